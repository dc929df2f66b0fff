//! Tink: a keyset and its primitive.

use tink_core::Aead;
use tink_core::keyset::Handle;

use super::of_bytes;
use crate::measure::{Keys, Side};
use crate::plain;

pub fn sides() -> Vec<Side> {
    tink_aead::init();
    let template = tink_aead::aes256_gcm_key_template;
    let primitive = || tink_aead::new(&Handle::new(&template()).unwrap()).unwrap();
    let mut sides = with("primitive kept", Keys::One, primitive());

    let handle = std::rc::Rc::new(Handle::new(&template()).unwrap());
    let other = std::rc::Rc::clone(&handle);
    sides.extend(of_bytes(
        "tink-aead",
        "primitive made each time",
        Keys::One,
        move |bytes| tink_aead::new(&handle).unwrap().encrypt(bytes, plain::CONTEXT.as_bytes()).unwrap(),
        move |bytes| tink_aead::new(&other).unwrap().decrypt(bytes, plain::CONTEXT.as_bytes()).unwrap(),
    ));

    let envelope = tink_aead::KmsEnvelopeAead::new(template(), primitive());
    sides.extend(with("envelope, its key service a kept primitive", Keys::EachValue, Box::new(envelope)));
    sides
}

fn with(way: &'static str, keys: Keys, aead: Box<dyn Aead>) -> Vec<Side> {
    let other = aead.box_clone();
    of_bytes(
        "tink-aead",
        way,
        keys,
        move |bytes| aead.encrypt(bytes, plain::CONTEXT.as_bytes()).unwrap(),
        move |bytes| other.decrypt(bytes, plain::CONTEXT.as_bytes()).unwrap(),
    )
}
