//! vitaminc: it seals each field of a struct by itself, bound to the field's name. It has no bytes of its own for a struct:
//! what is stored is names and sealed fields, so both are counted.

use std::rc::Rc;

use vitaminc_encrypt::{Aes256Cipher, CipherText, Key, LocalCipherText, Node, decrypt, encrypt};
use vitaminc_random::{Generatable as _, SafeRand};

use crate::measure::{Job, Keys, Side, Work, again, timed};
use crate::plain::{self, Order};

type Leaf = LocalCipherText;

pub fn sides() -> Vec<Side> {
    let mut sides = held();
    sides.extend(wrapped());
    sides
}

fn key() -> Key {
    Key::random(&mut SafeRand::from_entropy().unwrap()).unwrap()
}

fn side(job: Job, keys: Keys, bytes: usize, work: Work) -> Side {
    let way = match keys {
        Keys::EachValue => "a data key for each value, wrapped by its `Key::wrap`",
        _ => "cipher kept",
    };
    Side { job, keys, krate: "vitaminc-encrypt", way, bytes, work }
}

/// What is stored of a tree.
#[derive(Clone)]
enum Stored {
    Single(Vec<u8>),
    Map(Vec<(String, Vec<u8>)>),
}

impl Stored {
    fn new(tree: Node<Leaf>) -> Self {
        let bytes = |tree| match tree {
            CipherText::Single(leaf) => AsRef::<[u8]>::as_ref(&leaf).to_vec(),
            _ => panic!("a scalar"),
        };
        match tree {
            CipherText::Map(entries) => {
                Stored::Map(entries.into_iter().map(|(name, tree)| (name, bytes(tree))).collect())
            }
            tree => Stored::Single(bytes(tree)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Stored::Single(leaf) => leaf.len(),
            Stored::Map(entries) => entries.iter().map(|(name, leaf)| name.len() + leaf.len()).sum(),
        }
    }

    fn tree(self) -> Node<Leaf> {
        let single = |leaf| CipherText::Single(Leaf::from(leaf));
        match self {
            Stored::Single(leaf) => single(leaf),
            Stored::Map(entries) => {
                CipherText::Map(entries.into_iter().map(|(name, leaf)| (name, single(leaf))).collect())
            }
        }
    }
}

fn held() -> Vec<Side> {
    let cipher = Rc::new(Aes256Cipher::new(&key()).unwrap());
    let field = Stored::new(encrypt(plain::FIELD.as_slice(), &*cipher, plain::CONTEXT).unwrap());
    let order = Stored::new(encrypt(Order::new(), &*cipher, plain::CONTEXT).unwrap());
    let opened: Order = decrypt(&*cipher, order.clone().tree(), plain::CONTEXT).unwrap();
    assert_eq!(opened, Order::new());
    let (field_bytes, order_bytes) = (field.len() - plain::FIELD.len(), order.len() - plain::BYTES);
    let side = |job, bytes, work| side(job, Keys::One, bytes, work);
    let [a, b, c, d] = std::array::from_fn(|_| Rc::clone(&cipher));
    vec![
        side(
            Job::SealField,
            field_bytes,
            again(move || encrypt(plain::FIELD.as_slice(), &*a, plain::CONTEXT).unwrap()),
        ),
        side(
            Job::OpenField,
            field_bytes,
            Box::new(move |times| {
                timed((0..times).map(|_| field.clone().tree()).collect(), |tree| {
                    decrypt::<Vec<u8>, _, _>(&*b, tree, plain::CONTEXT).unwrap()
                })
            }),
        ),
        side(
            Job::SealRecord,
            order_bytes,
            Box::new(move |times| {
                timed((0..times).map(|_| Order::new()).collect(), |order| {
                    encrypt(order, &*c, plain::CONTEXT).unwrap()
                })
            }),
        ),
        side(
            Job::OpenRecord,
            order_bytes,
            Box::new(move |times| {
                timed((0..times).map(|_| order.clone().tree()).collect(), |tree| {
                    decrypt::<Order, _, _>(&*d, tree, plain::CONTEXT).unwrap()
                })
            }),
        ),
    ]
}

/// The wrapped key, and what is sealed under it.
type Wrapped = (Node<Leaf>, Node<Leaf>);

fn wrapped() -> Vec<Side> {
    let kek = Rc::new(Aes256Cipher::new(&key()).unwrap());
    // Seeded once, as its own documentation does.
    let random = Rc::new(std::cell::RefCell::new(SafeRand::from_entropy().unwrap()));
    let data_key = {
        let kek = Rc::clone(&kek);
        move || {
            let key = Key::random(&mut *random.borrow_mut()).unwrap();
            let cipher = Aes256Cipher::new(&key).unwrap();
            (key.wrap(&kek, plain::CONTEXT).unwrap(), cipher)
        }
    };
    let seal_field = {
        let data_key = data_key.clone();
        move || -> Wrapped {
            let (wrapped, cipher) = data_key();
            (wrapped, encrypt(plain::FIELD.as_slice(), &cipher, plain::CONTEXT).unwrap())
        }
    };
    let seal_order = move |order: Order| -> Wrapped {
        let (wrapped, cipher) = data_key();
        (wrapped, encrypt(order, &cipher, plain::CONTEXT).unwrap())
    };
    let stored = |(key, value): Wrapped| (Stored::new(key), Stored::new(value));
    let (field, order) = (stored(seal_field()), stored(seal_order(Order::new())));
    let size = |of: &(Stored, Stored), plain: usize| of.0.len() + of.1.len() - plain;
    let (field_bytes, order_bytes) = (size(&field, plain::FIELD.len()), size(&order, plain::BYTES));
    let side = |job, bytes, work| side(job, Keys::EachValue, bytes, work);
    let (one, two) = (Rc::clone(&kek), kek);
    let unwrap = |kek: &Aes256Cipher, wrapped| {
        Aes256Cipher::new(&Key::from_wrapped(kek, wrapped, plain::CONTEXT).unwrap()).unwrap()
    };
    let read = |of: &(Stored, Stored)| (of.0.clone().tree(), of.1.clone().tree());
    vec![
        side(Job::SealField, field_bytes, again(seal_field)),
        side(
            Job::OpenField,
            field_bytes,
            Box::new(move |times| {
                timed((0..times).map(|_| read(&field)).collect(), |(key, value)| {
                    decrypt::<Vec<u8>, _, _>(&unwrap(&one, key), value, plain::CONTEXT).unwrap()
                })
            }),
        ),
        side(
            Job::SealRecord,
            order_bytes,
            Box::new(move |times| timed((0..times).map(|_| Order::new()).collect(), &seal_order)),
        ),
        side(
            Job::OpenRecord,
            order_bytes,
            Box::new(move |times| {
                timed((0..times).map(|_| read(&order)).collect(), |(key, value)| {
                    decrypt::<Order, _, _>(&unwrap(&two, key), value, plain::CONTEXT).unwrap()
                })
            }),
        ),
    ]
}
