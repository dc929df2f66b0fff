//! What a cell is bound to. The caller states it at opening; it is never read from the sealed bytes, so that a row which
//! was moved to another customer does not open.

use crate::error::{Misuse, Result};
use crate::keeper::VaultId;
use crate::key::label;

/// The most bytes that a context takes: six parts with their prefixes of two bytes.
const MAX: usize = 12 + label::CONTEXT.len() + 16 + 16 + 64 + 128 + 1;

/// Whether a cell belongs to a record or is a field in a column of its own: the same value in the two does not open in
/// place of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Record,
    Field,
}

/// `CONTEXT ‖ vault id ‖ serial ‖ record label ‖ record id ‖ shape`, each part behind its length in two bytes, big
/// endian: an injective encoding (SPEC, "Context"). On the stack, since one is made for every seal and open.
#[derive(Clone)]
pub(crate) struct Context {
    bytes: [u8; MAX],
    len: usize,
}

impl Context {
    /// `record_id` is empty for a record that has none; a real id has at least one byte.
    #[inline]
    pub(crate) fn new(
        vault: &VaultId,
        serial: &[u8; 16],
        record: &str,
        record_id: &[u8],
        shape: Shape,
    ) -> Result<Self> {
        let mut context = Context { bytes: [0; MAX], len: 0 };
        let shape = match shape {
            Shape::Record => 0,
            Shape::Field => 1,
        };
        // Parts of a known length are pushed with it in one piece: this is run for every seal and open.
        let fits = context.part(label::CONTEXT)
            && context.push(&[0, 16])
            && context.push(vault.bytes())
            && context.push(&[0, 16])
            && context.push(serial)
            && context.part(record.as_bytes())
            && context.part(record_id)
            && context.push(&[0, 1, shape]);
        if fits { Ok(context) } else { Err(Misuse::Identifier.into()) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    #[inline]
    fn part(&mut self, part: &[u8]) -> bool {
        u16::try_from(part.len()).is_ok_and(|length| self.push(&length.to_be_bytes()) && self.push(part))
    }

    /// False where there is no room.
    #[inline]
    fn push(&mut self, bytes: &[u8]) -> bool {
        let end = self.len.saturating_add(bytes.len());
        let Some(room) = self.bytes.get_mut(self.len..end) else { return false };
        room.copy_from_slice(bytes);
        self.len = end;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Context, Shape};
    use crate::keeper::VaultId;

    fn context(record: &str, id: &[u8], shape: Shape) -> Vec<u8> {
        Context::new(&VaultId([1; 16]), &[2; 16], record, id, shape).unwrap().bytes().to_vec()
    }

    #[test]
    fn the_encoding_is_what_the_specification_says() {
        let expected = [
            &b"\x00\x19customer-vault/v1/context"[..],
            &[0, 16],
            &[1; 16],
            &[0, 16],
            &[2; 16],
            b"\x00\x05order",
            b"\x00\x02\x00\x07",
            b"\x00\x01\x00",
        ]
        .concat();
        assert_eq!(context("order", &[0, 7], Shape::Record), expected);
    }

    #[test]
    fn abuse_02_contexts_are_not_ambiguous() {
        let all = [
            context("ab", b"c", Shape::Record),
            context("a", b"bc", Shape::Record),
            context("abc", b"", Shape::Record),
            context("", b"abc", Shape::Record),
            context("a", b"b\0c", Shape::Record),
            context("a", b"b", Shape::Record),
            context("a", b"b\0", Shape::Record),
            context("a", "\u{e9}".as_bytes(), Shape::Record),
            context("a", "e\u{301}".as_bytes(), Shape::Record),
            context("ab", b"c", Shape::Field),
        ];
        for (i, a) in all.iter().enumerate() {
            for b in all.iter().skip(i + 1) {
                assert_ne!(a, b);
                assert!(!a.starts_with(b) && !b.starts_with(a));
            }
        }
    }

    #[test]
    fn a_part_that_is_too_long_is_refused() {
        assert!(Context::new(&VaultId([0; 16]), &[0; 16], "a", &[0; 300], Shape::Record).is_err());
    }
}
