//! The ciphers. Only this module names one: by default those of `RustCrypto`, with the feature `ring` those of `ring`, which
//! make the same bytes.

#[cfg(feature = "ring")]
mod assembly;
#[cfg(any(test, not(feature = "ring")))]
mod portable;

#[cfg(feature = "ring")]
use assembly::{Aes, XChaCha};
#[cfg(not(feature = "ring"))]
use portable::{Aes, XChaCha};

use crate::error::{Error, Result, Unsupported};

/// The cipher of envelopes.
#[cfg(feature = "tickets")]
pub(super) use hpke::aead::AesGcm256 as EnvelopeAead;

/// The bytes that every suite adds to a plaintext.
pub(crate) const TAG: usize = 16;

/// Which cipher seals. The number is in every derivation and in every header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Suite {
    /// AES-256-GCM (NIST SP 800-38D). Number 1.
    #[default]
    Aes256Gcm,
    /// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03). Number 2.
    XChaCha20Poly1305,
}

impl Suite {
    /// On the wire. 3 is reserved for SM4-GCM (RFC 8998), 4 for XAES-256-GCM (C2SP).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Suite::Aes256Gcm => 1,
            Suite::XChaCha20Poly1305 => 2,
        }
    }

    /// From the wire.
    ///
    /// # Errors
    ///
    /// [`Unsupported::Suite`] for a number that this version does not know.
    pub fn from_number(number: u8) -> Result<Self> {
        match number {
            1 => Ok(Suite::Aes256Gcm),
            2 => Ok(Suite::XChaCha20Poly1305),
            _ => Err(Error::Unsupported(Unsupported::Suite)),
        }
    }
}

/// A cipher refused. It says no more.
#[derive(Debug)]
struct Failed;

/// A cipher with its key schedule done. Wiped on drop.
pub(crate) struct Cipher(Kind);

enum Kind {
    Aes256Gcm(Box<Aes>),
    XChaCha20Poly1305(Box<XChaCha>),
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    pub(crate) fn new(suite: Suite, key: &[u8; 32]) -> Self {
        Cipher(match suite {
            Suite::Aes256Gcm => Kind::Aes256Gcm(Box::new(Aes::new(key))),
            Suite::XChaCha20Poly1305 => Kind::XChaCha20Poly1305(Box::new(XChaCha::new(key))),
        })
    }

    /// Encrypts `buffer` in place and returns the tag. The nonce is the first 12 bytes for AES-256-GCM, all 16 and
    /// eight zeros for XChaCha20-Poly1305.
    pub(crate) fn seal(&self, nonce: &[u8; 16], aad: &[u8], buffer: &mut [u8]) -> Result<[u8; TAG]> {
        match &self.0 {
            Kind::Aes256Gcm(cipher) => cipher.seal(short(nonce), aad, buffer),
            Kind::XChaCha20Poly1305(cipher) => cipher.seal(&long(nonce), aad, buffer),
        }
        .map_err(|_| Error::Misuse(crate::error::Misuse::TooLarge))
    }

    /// Decrypts `buffer` in place. On failure the buffer holds no plaintext.
    pub(crate) fn open(
        &self,
        nonce: &[u8; 16],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<()> {
        match &self.0 {
            Kind::Aes256Gcm(cipher) => cipher.open(short(nonce), aad, buffer, tag),
            Kind::XChaCha20Poly1305(cipher) => cipher.open(&long(nonce), aad, buffer, tag),
        }
        .map_err(|_| Error::DoesNotOpen)
    }
}

/// One message under one key, with a nonce of zeros: [`Cipher`] without its box, for content keys, which encrypt one body
/// ever.
pub(crate) fn seal_once(suite: Suite, key: &[u8; 32], aad: &[u8], buffer: &mut [u8]) -> Result<[u8; TAG]> {
    match suite {
        Suite::Aes256Gcm => Aes::new(key).seal(&[0; 12], aad, buffer),
        Suite::XChaCha20Poly1305 => XChaCha::new(key).seal(&[0; 24], aad, buffer),
    }
    .map_err(|_| Error::Misuse(crate::error::Misuse::TooLarge))
}

/// The counterpart of [`seal_once`].
pub(crate) fn open_once(
    suite: Suite,
    key: &[u8; 32],
    aad: &[u8],
    buffer: &mut [u8],
    tag: &[u8; TAG],
) -> Result<()> {
    match suite {
        Suite::Aes256Gcm => Aes::new(key).open(&[0; 12], aad, buffer, tag),
        Suite::XChaCha20Poly1305 => XChaCha::new(key).open(&[0; 24], aad, buffer, tag),
    }
    .map_err(|_| Error::DoesNotOpen)
}

fn short(nonce: &[u8; 16]) -> &[u8; 12] {
    let [short @ .., _, _, _, _] = nonce;
    short
}

fn long(nonce: &[u8; 16]) -> [u8; 24] {
    let mut out = [0; 24];
    for (to, from) in out.iter_mut().zip(nonce) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests;
