//! What is sealed: the same bytes for all sides.

use vitaminc_encrypt::{Decrypt, Encrypt};

/// Of one customer.
pub const CUSTOMER: &str = "c-4711";
/// What each peer binds a value to, ready made: the customer, the record, its number.
pub const CONTEXT: &str = "customer=c-4711;record=order;id=7";
/// One field.
pub const FIELD: [u8; 64] = [b'x'; 64];

/// An order as a peer's user has it: 12 fields, 600 bytes.
#[derive(Debug, PartialEq, Eq, Encrypt, Decrypt)]
pub struct Order {
    pub name: Vec<u8>,
    pub street: Vec<u8>,
    pub city: Vec<u8>,
    pub postal_code: Vec<u8>,
    pub country: Vec<u8>,
    pub phone: Vec<u8>,
    pub lines: Vec<u8>,
    pub total: Vec<u8>,
    pub payer: Vec<u8>,
    pub referrer: Vec<u8>,
    pub searched: Vec<u8>,
    pub device: Vec<u8>,
}

pub const FIELDS: usize = 12;
/// Of each field, in their order.
pub const SIZES: [usize; FIELDS] = [32, 48, 24, 8, 2, 16, 240, 12, 34, 64, 40, 80];
pub const BYTES: usize = 600;

/// The bytes of a field: printable, and different in each.
pub fn field(index: usize) -> Vec<u8> {
    vec![b'a' + index as u8; SIZES[index]]
}

impl Order {
    pub fn new() -> Self {
        Self::from_fields(std::array::from_fn(field))
    }

    fn from_fields(fields: [Vec<u8>; FIELDS]) -> Self {
        let [
            name,
            street,
            city,
            postal_code,
            country,
            phone,
            lines,
            total,
            payer,
            referrer,
            searched,
            device,
        ] = fields;
        Order {
            name,
            street,
            city,
            postal_code,
            country,
            phone,
            lines,
            total,
            payer,
            referrer,
            searched,
            device,
        }
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
        let mut bytes = Vec::with_capacity(BYTES + 2 * FIELDS);
        for field in self.fields() {
            bytes.extend_from_slice(&(field.len() as u16).to_be_bytes());
            bytes.extend_from_slice(field);
        }
        bytes
    }

    pub fn decode(mut bytes: &[u8]) -> Self {
        let order = Self::from_fields(std::array::from_fn(|_| {
            let (length, rest) = bytes.split_first_chunk().expect("a length");
            let (field, rest) = rest.split_at(u16::from_be_bytes(*length).into());
            bytes = rest;
            field.to_vec()
        }));
        assert!(bytes.is_empty());
        order
    }
}
