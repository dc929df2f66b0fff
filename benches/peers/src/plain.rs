//! What is sealed: the same bytes for all sides.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use vitaminc_encrypt::{Decrypt, Encrypt};

/// Of one customer.
pub const CUSTOMER: &str = "c-4711";
/// What each peer binds a value to, ready made: the customer, the record, its number.
pub const CONTEXT: &str = "customer=c-4711;record=order;id=7";
/// One field.
pub const FIELD: [u8; 64] = [b'x'; 64];

/// An order as a peer's user has it: 12 fields, 600 bytes.
macro_rules! order {
    ($name:ident, $type:ty, $($derive:path),*) => {
        #[derive(Debug, PartialEq, Eq, $($derive),*)]
        pub struct $name {
            pub name: $type,
            pub street: $type,
            pub city: $type,
            pub postal_code: $type,
            pub country: $type,
            pub phone: $type,
            pub lines: $type,
            pub total: $type,
            pub payer: $type,
            pub referrer: $type,
            pub searched: $type,
            pub device: $type,
        }

        impl $name {
            fn from_fields(fields: [$type; FIELDS]) -> Self {
                let [a, b, c, d, e, f, g, h, i, j, k, l] = fields;
                $name {
                    name: a,
                    street: b,
                    city: c,
                    postal_code: d,
                    country: e,
                    phone: f,
                    lines: g,
                    total: h,
                    payer: i,
                    referrer: j,
                    searched: k,
                    device: l,
                }
            }
        }
    };
}

order!(Order, Vec<u8>, Encrypt, Decrypt);
order!(OrderText, String, Serialize, Deserialize);

pub const FIELDS: usize = 12;
/// Of each field, in their order.
pub const SIZES: [usize; FIELDS] = [32, 48, 24, 8, 2, 16, 240, 12, 34, 64, 40, 80];
pub const BYTES: usize = 600;

/// The bytes of a field: printable, and different in each.
pub fn field(index: usize) -> Vec<u8> {
    vec![b'a' + index as u8; SIZES[index]]
}

impl OrderText {
    /// The same order, in text.
    pub fn new() -> Self {
        Self::from_fields(std::array::from_fn(|index| String::from_utf8(field(index)).unwrap()))
    }
}

impl Order {
    pub fn new() -> Self {
        Self::from_fields(std::array::from_fn(field))
    }

    fn fields(&self) -> [&[u8]; FIELDS] {
        [
            &self.name,
            &self.street,
            &self.city,
            &self.postal_code,
            &self.country,
            &self.phone,
            &self.lines,
            &self.total,
            &self.payer,
            &self.referrer,
            &self.searched,
            &self.device,
        ]
    }

    /// For peers that seal bytes, the least that gives the fields back: each behind its length in two bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_fields(0..FIELDS)
    }

    pub fn encode_fields(&self, range: Range<usize>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES + 2 * FIELDS);
        for field in &self.fields()[range] {
            bytes.extend_from_slice(&(field.len() as u16).to_be_bytes());
            bytes.extend_from_slice(field);
        }
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Self {
        Self::from_fields(Self::decode_fields(bytes))
    }

    pub fn decode_fields<const N: usize>(mut bytes: &[u8]) -> [Vec<u8>; N] {
        let fields = std::array::from_fn(|_| {
            let (length, rest) = bytes.split_first_chunk().expect("a length");
            let (field, rest) = rest.split_at(u16::from_be_bytes(*length).into());
            bytes = rest;
            field.to_vec()
        });
        assert!(bytes.is_empty());
        fields
    }
}
