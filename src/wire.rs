//! Bytes in and out: minimal varints, length prefixes, bounds before allocation. Every format of this crate is read
//! through [`Reader`], so that strictness is in one place (invariant 8).

use crate::error::{Error, Malformed, Result};

/// Reads from a slice and never past it.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

const SHORT: Error = Error::Malformed(Malformed::Length);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All must have been read.
    pub(crate) fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(SHORT) }
    }

    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(SHORT)?;
        self.0 = tail;
        Ok(head)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = tail;
        Ok(*head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// An unsigned LEB128 of at most 32 bits, minimal.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32> {
        // Most are of one byte.
        if let Some((&byte @ 0..0x80, rest)) = self.0.split_first() {
            self.0 = rest;
            return Ok(u32::from(byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u32> {
        let mut value: u32 = 0;
        for shift in [0_u32, 7, 14, 21, 28] {
            let byte = self.u8()?;
            let bits = u32::from(byte & 0x7F);
            if shift == 28 && byte > 0x0F {
                return Err(Malformed::NotCanonical.into());
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // A last byte of zero says nothing that a shorter encoding would not.
                return if byte == 0 && shift > 0 { Err(Malformed::NotCanonical.into()) } else { Ok(value) };
            }
        }
        Err(Malformed::NotCanonical.into())
    }

    /// Bytes after a varint that counts them.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let n = self.varint()?;
        self.take(usize::try_from(n).map_err(|_| SHORT)?)
    }

    /// UTF-8 after a varint that counts its bytes.
    pub(crate) fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed::Content.into())
    }

    pub(crate) fn flag(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::NotCanonical.into()),
        }
    }
}

/// Writes. Everything that is longer than 2^32 - 1 was refused before.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }
    fn put_i64(&mut self, value: i64) {
        self.put(&value.to_be_bytes());
    }
    fn put_varint(&mut self, mut value: u32) {
        loop {
            let [low, ..] = (value & 0x7F).to_le_bytes();
            value >>= 7;
            if value == 0 {
                return self.put_u8(low);
            }
            self.put_u8(low | 0x80);
        }
    }
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_varint(length(bytes));
        self.put(bytes);
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Put for zeroize::Zeroizing<Vec<u8>> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// The length as it is written. Nothing that this crate writes comes near 4 GiB: values are bounded by 16 MiB.
pub(crate) fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// How many bytes a varint takes.
pub(crate) const fn varint_len(value: u32) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::{Put as _, Reader, varint_len};

    #[test]
    fn a_varint_has_one_encoding() {
        for value in
            [0, 1, 0x7F, 0x80, 0x3FFF, 0x4000, 0x1F_FFFF, 0x20_0000, 0xFFF_FFFF, 0x1000_0000, u32::MAX]
        {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            assert_eq!(bytes.len(), varint_len(value));
            assert_eq!(Reader::new(&bytes).varint(), Ok(value));
        }
        for bad in
            [&[0x80, 0][..], &[0xFF, 0x80, 0], &[0xFF; 5], &[0x80], &[], &[0x80, 0x80, 0x80, 0x80, 0x10]]
        {
            assert!(Reader::new(bad).varint().is_err());
        }
    }
}
