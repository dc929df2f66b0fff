//! Peers that seal values.

mod envelopers;
#[cfg(feature = "esdk")]
mod esdk;
mod kms;
mod tink;
mod vitaminc;

use std::rc::Rc;

use crate::measure::{Job, Keys, Side, again};
use crate::plain::{self, Order, OrderText};

pub fn sides() -> Vec<Side> {
    let sides = [tink::sides(), kms::sides(), envelopers::sides(), vitaminc::sides()].into_iter().flatten();
    #[cfg(feature = "esdk")]
    let sides = sides.chain(esdk::sides());
    sides.collect()
}

/// The four jobs of a peer that seals bytes and gives bytes back, each bound to [`plain::CONTEXT`].
fn of_bytes<S, O>(krate: &'static str, way: &'static str, keys: Keys, seal: S, open: O) -> Vec<Side>
where
    S: Fn(&[u8]) -> Vec<u8> + 'static,
    O: Fn(&[u8]) -> Vec<u8> + 'static,
{
    let (seal, open) = (Rc::new(seal), Rc::new(open));
    let side = |job, bytes, work| Side { job, keys, krate, way, bytes, work };

    let field = seal(&plain::FIELD);
    assert_eq!(open(&field), plain::FIELD);
    let size = field.len() - plain::FIELD.len();
    let (s, o) = (Rc::clone(&seal), Rc::clone(&open));
    let mut sides = vec![
        side(Job::SealField, size, again(move || s(&plain::FIELD))),
        side(Job::OpenField, size, again(move || o(&field))),
    ];

    let order = Order::new();
    let sealed = seal(&order.encode());
    assert_eq!(Order::decode(&open(&sealed)), order);
    let size = sealed.len() - plain::BYTES;
    sides.push(side(Job::SealRecord, size, again(move || seal(&order.encode()))));
    sides.push(side(Job::OpenRecord, size, again(move || Order::decode(&open(&sealed)))));
    sides
}

/// The record once more, as JSON, which is what a shop's rows often are.
fn as_json<S, O>(krate: &'static str, way: &'static str, keys: Keys, seal: S, open: O) -> Vec<Side>
where
    S: Fn(&[u8]) -> Vec<u8> + 'static,
    O: Fn(&[u8]) -> Vec<u8> + 'static,
{
    let order = OrderText::new();
    let sealed = seal(&serde_json::to_vec(&order).unwrap());
    let decode = |bytes: Vec<u8>| serde_json::from_slice::<OrderText>(&bytes).unwrap();
    assert_eq!(decode(open(&sealed)), order);
    let bytes = sealed.len() - plain::BYTES;
    let side = |job, work| Side { job, keys, krate, way, bytes, work };
    vec![
        side(Job::SealRecord, again(move || seal(&serde_json::to_vec(&order).unwrap()))),
        side(Job::OpenRecord, again(move || decode(open(&sealed)))),
    ]
}
