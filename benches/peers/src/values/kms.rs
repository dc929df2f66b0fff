//! kms-aead: a data key for each value, or one that is held. Its key service is a key in memory.

use std::rc::Rc;

use async_trait::async_trait;
use kms_aead::errors::KmsAeadEncryptionError;
use kms_aead::ring_encryption::RingAeadEncryption;
use kms_aead::{
    AeadEncryption, CipherText, CipherTextWithEncryptedKey, DataEncryptionKey, EncryptedDataEncryptionKey,
    KmsAeadEnvelopeEncryption, KmsAeadResult, KmsAeadRingEncryptionProvider, KmsAeadRingEnvelopeEncryption,
};
use pollster::block_on;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use secret_vault_value::SecretValue;

use super::of_bytes;
use crate::measure::{Keys, Side};
use crate::plain;

/// A wrapping key, ready for use.
struct InMemory {
    key: LessSafeKey,
    random: SystemRandom,
}

impl InMemory {
    fn new() -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &[5; 32]).unwrap();
        InMemory { key: LessSafeKey::new(key), random: SystemRandom::new() }
    }
}

#[async_trait]
impl KmsAeadRingEncryptionProvider for InMemory {
    async fn encrypt_data_encryption_key(
        &self,
        key: &DataEncryptionKey,
    ) -> KmsAeadResult<EncryptedDataEncryptionKey> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).unwrap();
        let mut wrapped = Vec::with_capacity(NONCE_LEN + 32 + 16);
        wrapped.extend_from_slice(&nonce);
        wrapped.extend_from_slice(key.0.ref_sensitive_value());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag =
            self.key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut wrapped[NONCE_LEN..]).unwrap();
        wrapped.extend_from_slice(tag.as_ref());
        Ok(EncryptedDataEncryptionKey::new(wrapped, None))
    }

    async fn decrypt_data_encryption_key(
        &self,
        wrapped: &EncryptedDataEncryptionKey,
    ) -> KmsAeadResult<DataEncryptionKey> {
        let (nonce, key) = wrapped.wrapped().split_at(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
        let mut key = key.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::empty(), &mut key);
        let length = opened.map_err(|_| KmsAeadEncryptionError::create("DOES_NOT_OPEN", ""))?.len();
        key.truncate(length);
        Ok(DataEncryptionKey(SecretValue::from(key)))
    }

    async fn generate_encryption_key(&self, aead: &RingAeadEncryption) -> KmsAeadResult<DataEncryptionKey> {
        aead.generate_data_encryption_key()
    }
}

pub fn sides() -> Vec<Side> {
    let context = plain::CONTEXT.to_owned();
    // It takes ChaCha20-Poly1305 where nothing is said, which is slower here.
    let envelope = KmsAeadRingEnvelopeEncryption::with_algorithm(InMemory::new(), &AES_256_GCM);
    let envelope = Rc::new(block_on(envelope).unwrap());
    let (other, its_context) = (Rc::clone(&envelope), context.clone());
    let mut sides = of_bytes(
        "kms-aead",
        "AES-256-GCM, its key service a key in memory",
        Keys::EachValue,
        move |bytes| {
            let sealed = block_on(envelope.encrypt_value(&context, &SecretValue::from(bytes.to_vec())));
            sealed.unwrap().0
        },
        move |bytes| {
            let sealed = CipherTextWithEncryptedKey::from(bytes.to_vec());
            let opened = block_on(other.decrypt_value(&its_context, &sealed)).unwrap();
            opened.ref_sensitive_value().clone()
        },
    );

    let aead = Rc::new(RingAeadEncryption::with_algorithm(&AES_256_GCM, SystemRandom::new()).unwrap());
    let key = Rc::new(aead.generate_data_encryption_key().unwrap());
    let (other, its_key) = (Rc::clone(&aead), Rc::clone(&key));
    let (context, its_context) = (plain::CONTEXT.to_owned(), plain::CONTEXT.to_owned());
    sides.extend(of_bytes(
        "kms-aead",
        "AES-256-GCM, a data key that is held",
        Keys::One,
        move |bytes| {
            let plaintext = SecretValue::from(bytes.to_vec());
            block_on(aead.encrypt_value(&context, &plaintext, &key)).unwrap().0
        },
        move |bytes| {
            let sealed = CipherText(bytes.to_vec());
            let opened = block_on(other.decrypt_value(&its_context, &sealed, &its_key)).unwrap();
            opened.ref_sensitive_value().clone()
        },
    ));
    sides
}
