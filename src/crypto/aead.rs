//! The ciphers. Only this file names one.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Tag};
use chacha20poly1305::XChaCha20Poly1305;

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

/// A cipher with its key schedule done. Wiped on drop by the cipher crates.
pub(crate) enum Cipher {
    Aes256Gcm(Box<Aes256Gcm>),
    XChaCha20Poly1305(Box<XChaCha20Poly1305>),
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    pub(crate) fn new(suite: Suite, key: &[u8; 32]) -> Self {
        match suite {
            Suite::Aes256Gcm => Cipher::Aes256Gcm(Box::new(Aes256Gcm::new(key.into()))),
            Suite::XChaCha20Poly1305 => {
                Cipher::XChaCha20Poly1305(Box::new(XChaCha20Poly1305::new(key.into())))
            }
        }
    }

    /// Encrypts `buffer` in place and returns the tag. The nonce is the first 12 bytes for AES-256-GCM, all 16 and
    /// eight zeros for XChaCha20-Poly1305.
    pub(crate) fn seal(&self, nonce: &[u8; 16], aad: &[u8], buffer: &mut [u8]) -> Result<[u8; TAG]> {
        let tag = match self {
            Cipher::Aes256Gcm(cipher) => seal_gcm(cipher, nonce, aad, buffer),
            Cipher::XChaCha20Poly1305(cipher) => seal_xchacha(cipher, nonce, aad, buffer),
        };
        tag.map(Into::into).map_err(|_| Error::Misuse(crate::error::Misuse::TooLarge))
    }

    /// Decrypts `buffer` in place. On failure the buffer holds no plaintext.
    pub(crate) fn open(
        &self,
        nonce: &[u8; 16],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<()> {
        match self {
            Cipher::Aes256Gcm(cipher) => open_gcm(cipher, nonce, aad, buffer, tag),
            Cipher::XChaCha20Poly1305(cipher) => open_xchacha(cipher, nonce, aad, buffer, tag),
        }
        .map_err(|_| Error::DoesNotOpen)
    }
}

/// One message under one key: [`Cipher`] without its box, for content keys, which encrypt one body ever.
pub(crate) fn seal_once(
    suite: Suite,
    key: &[u8; 32],
    nonce: &[u8; 16],
    aad: &[u8],
    buffer: &mut [u8],
) -> Result<[u8; TAG]> {
    match suite {
        Suite::Aes256Gcm => seal_gcm(&Aes256Gcm::new(key.into()), nonce, aad, buffer),
        Suite::XChaCha20Poly1305 => seal_xchacha(&XChaCha20Poly1305::new(key.into()), nonce, aad, buffer),
    }
    .map(Into::into)
    .map_err(|_| Error::Misuse(crate::error::Misuse::TooLarge))
}

/// The counterpart of [`seal_once`].
pub(crate) fn open_once(
    suite: Suite,
    key: &[u8; 32],
    nonce: &[u8; 16],
    aad: &[u8],
    buffer: &mut [u8],
    tag: &[u8; TAG],
) -> Result<()> {
    match suite {
        Suite::Aes256Gcm => open_gcm(&Aes256Gcm::new(key.into()), nonce, aad, buffer, tag),
        Suite::XChaCha20Poly1305 => {
            open_xchacha(&XChaCha20Poly1305::new(key.into()), nonce, aad, buffer, tag)
        }
    }
    .map_err(|_| Error::DoesNotOpen)
}

type Outcome<T> = std::result::Result<T, aes_gcm::aead::Error>;

fn short(nonce: &[u8; 16]) -> [u8; 12] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *nonce;
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

fn long(nonce: &[u8; 16]) -> [u8; 24] {
    let mut out = [0; 24];
    for (to, from) in out.iter_mut().zip(nonce) {
        *to = *from;
    }
    out
}

fn seal_gcm(cipher: &Aes256Gcm, nonce: &[u8; 16], aad: &[u8], buffer: &mut [u8]) -> Outcome<Tag> {
    cipher.encrypt_inout_detached(&short(nonce).into(), aad, InOutBuf::from(buffer))
}

fn seal_xchacha(cipher: &XChaCha20Poly1305, nonce: &[u8; 16], aad: &[u8], buffer: &mut [u8]) -> Outcome<Tag> {
    cipher.encrypt_inout_detached(&long(nonce).into(), aad, InOutBuf::from(buffer))
}

fn open_gcm(c: &Aes256Gcm, nonce: &[u8; 16], aad: &[u8], buffer: &mut [u8], tag: &[u8; TAG]) -> Outcome<()> {
    c.decrypt_inout_detached(&short(nonce).into(), aad, InOutBuf::from(buffer), tag.into())
}

fn open_xchacha(
    cipher: &XChaCha20Poly1305,
    nonce: &[u8; 16],
    aad: &[u8],
    buffer: &mut [u8],
    tag: &[u8; TAG],
) -> Outcome<()> {
    cipher.decrypt_inout_detached(&long(nonce).into(), aad, InOutBuf::from(buffer), tag.into())
}
