//! The primitives, in the shape that this crate uses them. Only this module, [`aead`] and `envelope` name the primitive
//! crates (invariant 2), so that a reviewer who wants to know what is called with which bytes reads these three files.

pub(crate) mod aead;
#[cfg(feature = "tickets")]
pub(crate) mod envelope;

use ctutils::CtEq as _;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::{TryRng as _, rngs::SysRng};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Fills `out` from the operating system's generator.
pub(crate) fn fill_random(out: &mut [u8]) -> Result<()> {
    SysRng.try_fill_bytes(out).map_err(|_| Error::NoRandomness)
}

/// `N` bytes from the operating system's generator. For identifiers; keys are filled in place.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut out = [0; N];
    fill_random(&mut out)?;
    Ok(out)
}

/// Compares without a timing that depends on where the bytes differ. Lengths are public.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).to_bool()
}

/// Whether all are zero, without a timing that depends on where one is not.
#[inline]
pub(crate) fn all_zero(bytes: &[u8; 32]) -> bool {
    let mut any = 0_u8;
    for byte in bytes {
        any |= byte;
    }
    any == 0
}

/// SHA-256 (FIPS 180-4) of the parts, joined.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Sha256::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().into()
}

/// SHA-256 of what comes piece by piece.
#[derive(Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn end(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// HMAC-SHA-256 (RFC 2104, FIPS 198-1) with its key schedule done once. The state is wiped on drop.
pub(crate) struct Prf(Hmac<Sha256>);

impl Prf {
    #[expect(clippy::expect_used, reason = "the message says why it cannot fail")]
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Prf(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// Over the parts, joined: the caller prefixes lengths where the split could be ambiguous.
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut state = self.0.clone();
        for part in parts {
            state.update(part);
        }
        Zeroizing::new(state.finalize().into_bytes().into())
    }

    /// The first 16 bytes of [`mac`](Self::mac), for tags and identifiers.
    pub(crate) fn tag(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut tag = [0; 16];
        for (to, from) in tag.iter_mut().zip(self.mac(parts).iter()) {
            *to = *from;
        }
        tag
    }
}

impl std::fmt::Debug for Prf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prf(..)")
    }
}

/// HKDF-Extract and HKDF-Expand with SHA-256 (RFC 5869).
pub(crate) struct Hkdf(hkdf::Hkdf<Sha256>);

impl Hkdf {
    /// Both inputs are exactly 32 bytes: HMAC is then used as a dual PRF (Backendal, Bellare, Günther, Scarlata:
    /// "When Messages Are Keys: Is HMAC a Dual-PRF?", CRYPTO 2023, holds for keys of one fixed length).
    pub(crate) fn extract(salt: &[u8; 32], ikm: &[u8; 32], out: &mut [u8; 32]) {
        let mut prk = hkdf::Hkdf::<Sha256>::extract(Some(salt), ikm).0;
        out.copy_from_slice(&prk);
        zeroize::Zeroize::zeroize(prk.as_mut_slice());
    }

    #[expect(clippy::expect_used, reason = "the message says why it cannot fail")]
    pub(crate) fn from_prk(prk: &[u8; 32]) -> Self {
        Hkdf(hkdf::Hkdf::from_prk(prk).expect("32 bytes are the length of a pseudorandom key of SHA-256"))
    }

    #[expect(clippy::expect_used, reason = "the message says why it cannot fail")]
    pub(crate) fn expand(&self, info: &[&[u8]], out: &mut [u8; 32]) {
        self.0.expand_multi_info(info, out).expect("32 bytes are far below the limit of HKDF-Expand");
    }
}

/// Argon2id, version 0x13 (RFC 9106). The caller has bounded the parameters before any memory is taken.
pub(crate) fn argon2id(
    passphrase: &[u8],
    salt: &[u8; 16],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    out: &mut [u8; 64],
) -> Result<()> {
    let params = argon2::Params::new(memory_kib, passes, lanes, Some(out.len()))
        .map_err(|_| Error::Unsupported(crate::error::Unsupported::Parameters))?;
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(passphrase, salt, out)
        .map_err(|_| Error::Unsupported(crate::error::Unsupported::Parameters))
}

/// Ed25519 (RFC 8032).
pub(crate) fn sign(seed: &[u8; 32], message: &[u8]) -> [u8; 64] {
    SigningKey::from_bytes(seed).sign(message).to_bytes()
}

/// The public key of a signing seed.
pub(crate) fn public_key(seed: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

/// Strict verification: small-order keys and non-canonical points are refused, so that one signature has one meaning.
pub(crate) fn verify(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(public)
        .is_ok_and(|key| key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok())
}
