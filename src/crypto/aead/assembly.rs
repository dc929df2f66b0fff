//! The same ciphers by `ring`, whose assembly is faster on short messages. The bytes are the same.
//!
//! `ring` wipes no keys. Those that are held here are overwritten when they are dropped; copies that it made on the stack
//! are overwritten by what runs next, and nothing says when.

use std::hint::black_box;
use std::sync::OnceLock;

use chacha20::R20;
use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::{Failed, TAG};

#[expect(clippy::expect_used, reason = "the message says why it cannot fail")]
fn ring_key(algorithm: &'static Algorithm, key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(algorithm, key).expect("32 bytes are what both ciphers take"))
}

/// A key with its schedule, overwritten on drop.
struct Wiped(LessSafeKey);

impl Wiped {
    #[inline]
    fn new(algorithm: &'static Algorithm, key: &[u8; 32]) -> Self {
        Wiped(ring_key(algorithm, key))
    }

    #[inline]
    fn seal(&self, nonce: [u8; 12], aad: &[u8], buffer: &mut [u8]) -> Result<[u8; TAG], Failed> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), buffer).map_err(|_| Failed)?;
        tag.as_ref().try_into().map_err(|_| Failed)
    }

    #[inline]
    fn open(&self, nonce: [u8; 12], aad: &[u8], buffer: &mut [u8], tag: &[u8; TAG]) -> Result<(), Failed> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::from(aad), (*tag).into(), buffer, 0..);
        opened.map(|_| ()).map_err(|_| Failed)
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        // By a key of the same cipher, so that all of it is written.
        static AES: OnceLock<LessSafeKey> = OnceLock::new();
        static CHACHA: OnceLock<LessSafeKey> = OnceLock::new();
        let nothing = if self.0.algorithm() == &AES_256_GCM {
            AES.get_or_init(|| ring_key(&AES_256_GCM, &[0; 32]))
        } else {
            CHACHA.get_or_init(|| ring_key(&CHACHA20_POLY1305, &[0; 32]))
        };
        self.0.clone_from(nothing);
        // So that the compiler does not leave out a write that nobody reads.
        black_box(&mut self.0);
    }
}

/// AES-256-GCM.
pub(super) struct Aes(Wiped);

impl Aes {
    #[inline]
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Aes(Wiped::new(&AES_256_GCM, key))
    }

    #[inline]
    pub(super) fn seal(&self, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> Result<[u8; TAG], Failed> {
        self.0.seal(*nonce, aad, buffer)
    }

    #[inline]
    pub(super) fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), Failed> {
        self.0.open(*nonce, aad, buffer, tag)
    }
}

/// XChaCha20-Poly1305, put together as section 2 of draft-irtf-cfrg-xchacha-03 says: ChaCha20-Poly1305 (RFC 8439) under the
/// key that `HChaCha20` gives for the first 16 bytes of the nonce, with four zeros and the other eight as its nonce.
pub(super) struct XChaCha(Zeroizing<[u8; 32]>);

impl XChaCha {
    #[inline]
    pub(super) fn new(key: &[u8; 32]) -> Self {
        XChaCha(Zeroizing::new(*key))
    }

    #[inline]
    pub(super) fn seal(&self, nonce: &[u8; 24], aad: &[u8], buffer: &mut [u8]) -> Result<[u8; TAG], Failed> {
        let (key, nonce) = self.derived(nonce);
        key.seal(nonce, aad, buffer)
    }

    #[inline]
    pub(super) fn open(
        &self,
        nonce: &[u8; 24],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), Failed> {
        let (key, nonce) = self.derived(nonce);
        key.open(nonce, aad, buffer, tag)
    }

    fn derived(&self, nonce: &[u8; 24]) -> (Wiped, [u8; 12]) {
        let [first @ .., a, b, c, d, e, f, g, h] = *nonce;
        let first: [u8; 16] = first;
        let key: &[u8; 32] = &self.0;
        let key = Zeroizing::new(<[u8; 32]>::from(chacha20::hchacha::<R20>(key.into(), &first.into())));
        (Wiped::new(&CHACHA20_POLY1305, &key), [0, 0, 0, 0, a, b, c, d, e, f, g, h])
    }
}
