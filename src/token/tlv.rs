//! Claims as tag, length, value: tags ascending, each at most once, so that one set of claims has one encoding.

use crate::error::{Malformed, Result};
use crate::wire::{Put, Reader};

/// Reads claims in order.
#[derive(Debug)]
pub(crate) struct Claims<'a> {
    reader: Reader<'a>,
    last: u8,
}

impl<'a> Claims<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Claims { reader: Reader::new(bytes), last: 0 }
    }

    pub(crate) fn next(&mut self) -> Result<Option<(u8, &'a [u8])>> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let tag = self.reader.u8()?;
        if tag <= self.last {
            return Err(Malformed::Order.into());
        }
        self.last = tag;
        Ok(Some((tag, self.reader.bytes()?)))
    }
}

pub(crate) fn put(out: &mut impl Put, tag: u8, value: &[u8]) {
    out.put_u8(tag);
    out.put_bytes(value);
}

/// A value of a fixed size.
pub(crate) fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N]> {
    value.try_into().map_err(|_| Malformed::Length.into())
}

/// A list of values of 16 bytes, strictly ascending, `least` to `most` of them.
pub(crate) fn ascending(value: &[u8], least: usize, most: usize) -> Result<Vec<[u8; 16]>> {
    let (items, rest) = value.as_chunks::<16>();
    if !rest.is_empty() || items.len() < least || items.len() > most {
        return Err(Malformed::Length.into());
    }
    if !items.is_sorted_by(|a, b| a < b) {
        return Err(Malformed::Order.into());
    }
    Ok(items.to_vec())
}
