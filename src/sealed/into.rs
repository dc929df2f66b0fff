//! Opening into memory that the caller has.

use super::{Sealed, shape};
use crate::cell::{Cell, slot, wipe_from};
use crate::clock::Day;
use crate::context::Context;
use crate::error::{Absent, Error, Malformed, Misuse, Result};
use crate::grant::Grant;
use crate::purpose::{OpensFor, Purpose};
use crate::record::{Field, NoId, RecordId, Sealable};
use crate::value::{Bytes, free::MOST_BYTES};
use crate::wire::Reader;

impl<F: Field<Id = NoId, Type = Bytes>> Sealed<F, NoId> {
    /// Opens a field of bytes and appends them to a buffer of the caller's, where they are decrypted. On an error nothing is
    /// added. Wiping the buffer is the caller's; reserve as much as [`as_bytes`](Sealed::as_bytes) has before, since a vector
    /// that grows leaves what it held where it lay.
    ///
    /// # Errors
    ///
    /// As [`open`](Sealed::open).
    pub fn open_into<P: Purpose>(&self, grant: &Grant<P>, out: &mut Vec<u8>) -> Result<()>
    where
        F: OpensFor<P>,
    {
        self.append_opened(grant, &[], out)
    }
}

impl<F: Field<Id = I, Type = Bytes>, I: RecordId> Sealed<F, I> {
    /// Opens a field of bytes of the record with this id and appends them to a buffer of the caller's, where they are
    /// decrypted. On an error nothing is added. Wiping the buffer is the caller's; reserve as much as
    /// [`as_bytes`](Sealed::as_bytes) has before, since a vector that grows leaves what it held where it lay.
    ///
    /// # Errors
    ///
    /// As [`open`](Sealed::open).
    pub fn open_into<P: Purpose>(&self, grant: &Grant<P>, id: &I, out: &mut Vec<u8>) -> Result<()>
    where
        F: OpensFor<P>,
    {
        let id = id.id_bytes();
        self.append_opened(grant, id.bytes().ok_or(Misuse::Identifier)?, out)
    }
}

impl<F: Field<Type = Bytes>, I> Sealed<F, I> {
    fn append_opened<P: Purpose>(&self, grant: &Grant<P>, record_id: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut added = Added { start: out.len(), out, keep: false };
        grant.while_fresh(|today| {
            wipe_from(added.out, added.start);
            let mut absent = Absent::NotSealedThen;
            for cell in self.parsed()? {
                match append_cell::<F, P>(&cell?, grant, today, record_id, added.out)? {
                    Ok(()) => return Ok(()),
                    Err(why) => absent = why,
                }
            }
            Err(Error::Absent(absent))
        })?;
        added.keep = true;
        Ok(())
    }
}

/// What was added to the caller's buffer goes with this, unless it may be kept: on an error, and where a clock of the
/// shop's panics.
struct Added<'a> {
    start: usize,
    out: &'a mut Vec<u8>,
    keep: bool,
}

impl Drop for Added<'_> {
    fn drop(&mut self) {
        if !self.keep {
            wipe_from(self.out, self.start);
        }
    }
}

fn append_cell<F: Sealable, P: Purpose>(
    cell: &Cell<'_>,
    grant: &Grant<P>,
    today: Day,
    record_id: &[u8],
    out: &mut Vec<u8>,
) -> Result<Result<(), Absent>> {
    let field = cell.slots().next().ok_or(Error::DoesNotOpen)?;
    if !grant.covers(F::RECORD, field.number) {
        return Ok(Err(Absent::NotInToken));
    }
    let opened = grant.open(cell, today, |serial, purpose, cipher| {
        let context = Context::new(grant.vault_id(), serial, F::RECORD, record_id, shape::<F>())?;
        cell.open_behind(&context, purpose, cipher, out, |values| {
            let mut reader = Reader::new(values);
            let value = slot::take(&mut reader, field.padded)?.ok_or(Malformed::Content)?;
            reader.end()?;
            if value.len() > MOST_BYTES { Err(Malformed::Length.into()) } else { Ok(value) }
        })
    });
    match opened {
        Err(Error::Malformed(_) | Error::DoesNotOpen) => {
            grant.note_cause();
            Err(Error::DoesNotOpen)
        }
        opened => opened,
    }
}
