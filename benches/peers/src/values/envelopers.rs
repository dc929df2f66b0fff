//! envelopers: a data key for each value, from the key provider that it has for a local key, with and without its cache.

use std::rc::Rc;

use envelopers::{
    Aes256Gcm, CacheOptions, CachingKeyWrapper, EncryptedRecord, EnvelopeCipher, KeyProvider,
    SimpleKeyProvider,
};
use pollster::block_on;

use super::of_bytes;
use crate::measure::{Keys, Side};
use crate::plain;

fn provider() -> SimpleKeyProvider<Aes256Gcm> {
    SimpleKeyProvider::init([5; 16])
}

pub fn sides() -> Vec<Side> {
    let mut sides = with("its local key provider", Keys::EachValue, provider());
    // It caches for ten messages or 100 bytes where nothing is said.
    let options = CacheOptions::default().with_max_bytes(1 << 30).with_max_messages(1 << 20);
    let cached = CachingKeyWrapper::new(provider(), options);
    sides.extend(with("with its cache: one data key for many values", Keys::One, cached));
    sides
}

fn with<K: KeyProvider<Cipher = Aes256Gcm> + 'static>(
    way: &'static str,
    keys: Keys,
    provider: K,
) -> Vec<Side> {
    let cipher: Rc<EnvelopeCipher<K>> = Rc::new(EnvelopeCipher::init(provider));
    let other = Rc::clone(&cipher);
    of_bytes(
        "envelopers",
        way,
        keys,
        move |bytes| {
            let sealed = block_on(cipher.encrypt_with(bytes).aad(plain::CONTEXT).encrypt()).unwrap();
            sealed.to_vec().unwrap()
        },
        move |bytes| {
            let sealed = EncryptedRecord::try_from(bytes).unwrap();
            block_on(other.decrypt_with(&sealed).aad(plain::CONTEXT).decrypt()).unwrap()
        },
    )
}
