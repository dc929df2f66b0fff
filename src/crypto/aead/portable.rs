//! The ciphers of `RustCrypto`: Rust alone, with the processor's instructions where it has them. They wipe their keys.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::aes::Aes256Enc;
use aes_gcm::aes::cipher::consts::U12;
use aes_gcm::{AesGcm, Tag};
use chacha20poly1305::XChaCha20Poly1305;

use super::{Failed, TAG};

/// AES-256-GCM. GCM only ever encrypts blocks, so that the key schedule of decryption is neither made nor kept.
pub(super) struct Aes(AesGcm<Aes256Enc, U12>);

impl Aes {
    #[inline]
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Aes(AesGcm::new(key.into()))
    }

    #[inline]
    pub(super) fn seal(&self, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> Result<[u8; TAG], Failed> {
        let sealed = self.0.encrypt_inout_detached(nonce.into(), aad, InOutBuf::from(buffer));
        sealed.map(Into::into).map_err(|_| Failed)
    }

    #[inline]
    pub(super) fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), Failed> {
        let tag: &Tag = tag.into();
        self.0.decrypt_inout_detached(nonce.into(), aad, InOutBuf::from(buffer), tag).map_err(|_| Failed)
    }
}

/// XChaCha20-Poly1305.
pub(super) struct XChaCha(XChaCha20Poly1305);

impl XChaCha {
    #[inline]
    pub(super) fn new(key: &[u8; 32]) -> Self {
        XChaCha(XChaCha20Poly1305::new(key.into()))
    }

    #[inline]
    pub(super) fn seal(&self, nonce: &[u8; 24], aad: &[u8], buffer: &mut [u8]) -> Result<[u8; TAG], Failed> {
        let sealed = self.0.encrypt_inout_detached(nonce.into(), aad, InOutBuf::from(buffer));
        sealed.map(Into::into).map_err(|_| Failed)
    }

    #[inline]
    pub(super) fn open(
        &self,
        nonce: &[u8; 24],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), Failed> {
        self.0
            .decrypt_inout_detached(nonce.into(), aad, InOutBuf::from(buffer), tag.into())
            .map_err(|_| Failed)
    }
}
