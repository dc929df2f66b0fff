//! What a cell is bound to. The caller states it at opening; it is never read from the sealed bytes, so that a row which
//! was moved to another customer does not open.

use crate::error::{Misuse, Result};
use crate::keeper::VaultId;
use crate::key::label;
use crate::record::RecordIdBytes;

/// The longest label of a record.
const MAX_LABEL: usize = 64;
/// The most bytes that a context takes: six parts with their prefixes of two bytes.
pub(crate) const MAX: usize = 12 + label::CONTEXT.len() + 16 + 16 + MAX_LABEL + RecordIdBytes::MAX + 1;

/// Whether a cell belongs to a record or is a field in a column of its own: the same value in the two does not open in
/// place of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Record,
    Field,
}

/// The parts of a context. Their encoding is `CONTEXT ‖ vault id ‖ serial ‖ record label ‖ record id ‖ shape`, each part
/// behind its length in two bytes, big endian: injective (SPEC, "Context").
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    vault: VaultId,
    serial: [u8; 16],
    record: &'a str,
    record_id: &'a [u8],
    shape: Shape,
}

impl<'a> Context<'a> {
    /// `record_id` is empty for a record that has none; a real id has at least one byte.
    #[inline]
    pub(crate) fn new(
        vault: &VaultId,
        serial: &[u8; 16],
        record: &'a str,
        record_id: &'a [u8],
        shape: Shape,
    ) -> Result<Self> {
        if record.len() > MAX_LABEL || record_id.len() > RecordIdBytes::MAX {
            return Err(Misuse::Identifier.into());
        }
        Ok(Context { vault: *vault, serial: *serial, record, record_id, shape })
    }
}

impl Context<'_> {
    /// How many bytes it takes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        const REST: usize = 12 + label::CONTEXT.len() + 16 + 16 + 1;
        self.record.len().saturating_add(self.record_id.len()).saturating_add(REST)
    }
}

/// Authenticated data: a context, which is self-delimiting, and what follows it, which has one form. It lies in memory
/// that the caller lends, so that nothing of it is moved or allocated.
pub(crate) struct Aad<'a> {
    room: &'a mut [u8],
    context: usize,
    len: usize,
}

impl<'a> Aad<'a> {
    #[inline]
    pub(crate) fn new(room: &'a mut [u8], context: &Context<'_>) -> Result<Self> {
        let mut aad = Aad { room, context: 0, len: 0 };
        let shape = match context.shape {
            Shape::Record => 0,
            Shape::Field => 1,
        };
        // Parts of a known length are pushed with it in one piece: this is run for every seal and open.
        aad.part(label::CONTEXT)?;
        aad.push(&[0, 16])?;
        aad.push(context.vault.bytes())?;
        aad.push(&[0, 16])?;
        aad.push(&context.serial)?;
        aad.part(context.record.as_bytes())?;
        aad.part(context.record_id)?;
        aad.push(&[0, 1, shape])?;
        aad.context = aad.len;
        Ok(aad)
    }

    /// The context alone.
    pub(crate) fn context(&self) -> &[u8] {
        self.room.get(..self.context).unwrap_or_default()
    }

    /// The context, and these: what stood behind it before is gone.
    #[inline]
    pub(crate) fn after_context(&mut self, parts: &[&[u8]]) -> Result<()> {
        self.len = self.context;
        parts.iter().try_for_each(|part| self.push(part))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.room.get(..self.len).unwrap_or_default()
    }

    #[inline]
    fn part(&mut self, part: &[u8]) -> Result<()> {
        let length = u16::try_from(part.len()).map_err(|_| Misuse::Identifier)?;
        self.push(&length.to_be_bytes())?;
        self.push(part)
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.len.saturating_add(bytes.len());
        self.room.get_mut(self.len..end).ok_or(Misuse::TooLarge)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
impl Context<'_> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        Aad::new(&mut [0; MAX], self).unwrap().context().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::{Context, Shape};
    use crate::keeper::VaultId;

    fn context(record: &str, id: &[u8], shape: Shape) -> Vec<u8> {
        Context::new(&VaultId([1; 16]), &[2; 16], record, id, shape).unwrap().bytes()
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
