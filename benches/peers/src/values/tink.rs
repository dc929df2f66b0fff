//! Tink: a keyset and its primitive.

use std::rc::Rc;

use tink_core::keyset::Handle;
use tink_core::{Aead, Primitive, registry};

use super::{as_json, of_bytes};
use crate::measure::{Job, Keys, Side, again};
use crate::plain::{self, Order};

type Shared = Rc<dyn Aead>;

fn template() -> tink_proto::KeyTemplate {
    tink_aead::aes256_gcm_key_template()
}

fn primitive() -> Box<dyn Aead> {
    tink_aead::new(&Handle::new(&template()).unwrap()).unwrap()
}

fn seal(aead: &Shared) -> impl Fn(&[u8]) -> Vec<u8> + 'static {
    let aead = Rc::clone(aead);
    move |bytes| aead.encrypt(bytes, plain::CONTEXT.as_bytes()).unwrap()
}

fn open(aead: &Shared) -> impl Fn(&[u8]) -> Vec<u8> + 'static {
    let aead = Rc::clone(aead);
    move |bytes| aead.decrypt(bytes, plain::CONTEXT.as_bytes()).unwrap()
}

pub fn sides() -> Vec<Side> {
    tink_aead::init();
    let (one, each) = (Keys::One, Keys::EachValue);
    let kept: Shared = primitive().into();
    let mut sides = of_bytes("tink-aead", "primitive kept", one, seal(&kept), open(&kept));
    sides.extend(as_json("tink-aead", "primitive kept, the record as JSON", one, seal(&kept), open(&kept)));

    let handle = Rc::new(Handle::new(&template()).unwrap());
    let other = Rc::clone(&handle);
    sides.extend(of_bytes(
        "tink-aead",
        "primitive made each time",
        one,
        move |bytes| tink_aead::new(&handle).unwrap().encrypt(bytes, plain::CONTEXT.as_bytes()).unwrap(),
        move |bytes| tink_aead::new(&other).unwrap().decrypt(bytes, plain::CONTEXT.as_bytes()).unwrap(),
    ));

    let envelope: Shared = Rc::new(tink_aead::KmsEnvelopeAead::new(template(), primitive()));
    let way = "envelope, its key service a kept primitive";
    sides.extend(of_bytes("tink-aead", way, each, seal(&envelope), open(&envelope)));
    let way = "the same envelope, the record as JSON";
    sides.extend(as_json("tink-aead", way, each, seal(&envelope), open(&envelope)));
    sides.extend(by_purpose());
    sides
}

/// The fields of each part of the record, and the purposes that may read it, of four: as the vault's cells.
const PARTS: [(std::ops::Range<usize>, &[usize]); 3] =
    [(0..6, &[0, 1, 2]), (6..9, &[1, 2]), (9..12, &[1, 3])];

/// What gives a peer's user a key for each purpose: for each part a data key, wrapped for each of its purposes, as
/// `KmsEnvelopeAead` does it for one. There are no days in it, and no commitment.
fn by_purpose() -> Vec<Side> {
    let purposes: Rc<Vec<Box<dyn Aead>>> = Rc::new((0..4).map(|_| primitive()).collect());
    let template = template();
    let cipher = {
        let url = template.type_url.clone();
        move |key: &[u8]| match registry::primitive(&url, key).unwrap() {
            Primitive::Aead(aead) => aead,
            _ => panic!("of another kind"),
        }
    };
    let seal = {
        let (purposes, cipher) = (Rc::clone(&purposes), cipher.clone());
        move |order: &Order| {
            PARTS.map(|(fields, readers)| {
                let key = registry::new_key(&template).unwrap();
                let wrap =
                    |purpose: &usize| purposes[*purpose].encrypt(&key, plain::CONTEXT.as_bytes()).unwrap();
                let locks: Vec<Vec<u8>> = readers.iter().map(wrap).collect();
                let body = cipher(&key).encrypt(&order.encode_fields(fields), plain::CONTEXT.as_bytes());
                (locks, body.unwrap())
            })
        }
    };
    let order = Order::new();
    let parts = seal(&order);
    let size: usize =
        parts.iter().map(|(locks, body)| locks.iter().map(Vec::len).sum::<usize>() + body.len()).sum();
    let open = move || {
        let (locks, body) = &parts[0];
        let key = purposes[0].decrypt(&locks[0], plain::CONTEXT.as_bytes()).unwrap();
        Order::decode_fields::<6>(&cipher(&key).decrypt(body, plain::CONTEXT.as_bytes()).unwrap())
    };
    assert_eq!(open(), std::array::from_fn(plain::field));
    let bytes = size - plain::BYTES;
    let side = |job, way, work| Side { job, keys: Keys::EachPurpose, krate: "tink-aead", way, bytes, work };
    vec![
        side(Job::SealRecord, "by hand: 3 data keys, 7 wraps for 4 keysets", again(move || seal(&order))),
        side(Job::OpenRecord, "by hand: 6 fields for one keyset", again(open)),
    ]
}
