//! HPKE (RFC 9180) in base mode, one message an encapsulation: DHKEM(X25519, HKDF-SHA256), number 0x0020; HKDF-SHA256,
//! 0x0001; AES-256-GCM, 0x0002.

use std::convert::Infallible;

use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use zeroize::Zeroizing;

use super::Prf;
use super::aead::{EnvelopeAead, TAG};
use crate::error::{Error, Result};

type PrivateKey = <X25519HkdfSha256 as hpke::Kem>::PrivateKey;
type PublicKey = <X25519HkdfSha256 as hpke::Kem>::PublicKey;
type EncappedKey = <X25519HkdfSha256 as hpke::Kem>::EncappedKey;
type Tag = hpke::aead::AeadTag<EnvelopeAead>;

/// The public key of 32 private bytes, which X25519 clamps.
pub(crate) fn public_key(private: &[u8; 32]) -> Result<[u8; 32]> {
    let mut public = [0; 32];
    X25519HkdfSha256::sk_to_pk(&private_key(private)?).write_exact(&mut public);
    Ok(public)
}

/// Whether anything can be sealed to a public key: not where it is of small order, for which the shared secret would be
/// known to everybody (RFC 9180, section 7.1.4).
pub(crate) fn is_usable(public: &[u8; 32]) -> bool {
    seal(public, &[], &mut [], &Zeroizing::new([1; 32])).is_ok()
}

/// Seals `bytes` in place. `drawn` is 32 random bytes that are used for this alone: the ephemeral key is made of them.
/// Returns the encapsulated key and the tag.
pub(crate) fn seal(
    public: &[u8; 32],
    info: &[u8],
    bytes: &mut [u8],
    drawn: &Zeroizing<[u8; 32]>,
) -> Result<([u8; 32], [u8; TAG])> {
    let public = PublicKey::from_bytes(public).map_err(|_| Error::DoesNotOpen)?;
    let (encapped, sealed) =
        hpke::single_shot_seal_inout_detached_with_rng::<EnvelopeAead, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            info,
            InOutBuf::from(bytes),
            &[],
            &mut Stream::of(drawn),
        )
        .map_err(|_| Error::DoesNotOpen)?;
    let (mut key, mut tag) = ([0; 32], [0; TAG]);
    encapped.write_exact(&mut key);
    sealed.write_exact(&mut tag);
    Ok((key, tag))
}

/// Opens `bytes` in place; after a failure they say nothing.
pub(crate) fn open(
    private: &[u8; 32],
    encapped: &[u8; 32],
    info: &[u8],
    bytes: &mut [u8],
    tag: &[u8; TAG],
) -> Result<()> {
    let private = private_key(private)?;
    let encapped = EncappedKey::from_bytes(encapped).map_err(|_| Error::DoesNotOpen)?;
    let tag = Tag::from_bytes(tag).map_err(|_| Error::DoesNotOpen)?;
    hpke::single_shot_open_inout_detached::<EnvelopeAead, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &private,
        &encapped,
        info,
        InOutBuf::from(bytes),
        &[],
        &tag,
    )
    .map_err(|_| Error::DoesNotOpen)
}

fn private_key(bytes: &[u8; 32]) -> Result<PrivateKey> {
    PrivateKey::from_bytes(bytes).map_err(|_| Error::DoesNotOpen)
}

/// What the HPKE crate draws its ephemeral key from: HMAC-SHA-256(drawn, counter as u64). Drawn beforehand, so that a
/// generator that fails is an error here and no panic there.
struct Stream {
    prf: Prf,
    counter: u64,
}

impl Stream {
    fn of(drawn: &Zeroizing<[u8; 32]>) -> Self {
        Stream { prf: Prf::new(drawn), counter: 0 }
    }

    fn fill(&mut self, out: &mut [u8]) {
        for piece in out.chunks_mut(32) {
            let block = self.prf.mac(&[&self.counter.to_be_bytes()]);
            piece.iter_mut().zip(block.iter()).for_each(|(to, from)| *to = *from);
            self.counter = self.counter.wrapping_add(1);
        }
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        Ok(u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        Ok(u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for Stream {}
