//! Sealing into memory that the caller has, and many records at once.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use zeroize::{Zeroize as _, Zeroizing};

use super::Sealer;
use crate::error::{Misuse, Result};
use crate::record::{NoId, Record, RecordId};
use crate::sealed::Sealed;

/// Fewer records than this are not worth a thread: they take less than starting it.
const FEW: usize = 32;

/// The caller's buffer, lent: what it held is put back at the end, whatever comes, and with it what was sealed.
struct Lent<'a> {
    owner: &'a mut Vec<u8>,
    bytes: Zeroizing<Vec<u8>>,
    held: usize,
}

impl<'a> Lent<'a> {
    fn new(owner: &'a mut Vec<u8>) -> Self {
        let bytes = Zeroizing::new(std::mem::take(owner));
        Lent { held: bytes.len(), owner, bytes }
    }

    fn append(mut self, seal: impl FnOnce(&mut Zeroizing<Vec<u8>>) -> Result<()>) -> Result<()> {
        seal(&mut self.bytes)?;
        self.held = self.bytes.len();
        Ok(())
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // A value that panics while it is encoded leaves plaintext behind.
        if let Some(unfinished) = self.bytes.get_mut(self.held..) {
            unfinished.zeroize();
        }
        self.bytes.truncate(self.held);
        *self.owner = std::mem::take(&mut *self.bytes);
    }
}

impl<R: Record<Id = NoId>> Sealer<R, NoId> {
    /// Seals a record that has no id, and appends what [`Sealed::as_bytes`] would give to a buffer of the caller's, which may
    /// be used again and again. On an error the buffer is as it was, but for room.
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal).
    pub fn seal_into(&self, record: R, out: &mut Vec<u8>) -> Result<()> {
        Lent::new(out).append(|out| self.append(&record, &[], None, out))
    }
}

impl<R: Record<Id = I>, I: RecordId> Sealer<R, I> {
    /// Seals a record under its id, and appends what [`Sealed::as_bytes`] would give to a buffer of the caller's, which may
    /// be used again and again. On an error the buffer is as it was, but for room.
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal).
    pub fn seal_into(&self, record: R, id: &I, out: &mut Vec<u8>) -> Result<()> {
        let id = id.id_bytes();
        let id = id.bytes().ok_or(Misuse::Identifier)?;
        Lent::new(out).append(|out| self.append(&record, id, None, out))
    }

    /// Seals many records, on as many threads as the machine has cores where there are enough of them; the call blocks
    /// until all are done. Results stand at their places: one that is refused keeps nobody else from being sealed.
    pub fn seal_many(&self, records: Vec<(R, I)>) -> Vec<Result<Sealed<R>>>
    where
        R: Send,
        I: Send,
    {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let parts = cores.min(records.len().div_ceil(FEW)).max(1);
        let seal = |records: Vec<(R, I)>| -> Vec<Result<Sealed<R>>> {
            records.into_iter().map(|(record, id)| self.seal(record, &id)).collect()
        };
        if parts == 1 {
            return seal(records);
        }
        let mut sealed = Vec::with_capacity(records.len());
        let each = records.len().div_ceil(parts);
        let mut records = records.into_iter();
        let mut part = || -> Vec<(R, I)> { records.by_ref().take(each).collect() };
        let first = part();
        let others: Vec<Mutex<Vec<(R, I)>>> =
            std::iter::repeat_with(part).take_while(|part| !part.is_empty()).map(Mutex::new).collect();
        let take = |part: &Mutex<Vec<(R, I)>>| {
            std::mem::take(&mut *part.lock().unwrap_or_else(PoisonError::into_inner))
        };
        thread::scope(|threads| {
            // Where the system gives no thread, its part is sealed here.
            let spawn = |part| thread::Builder::new().spawn_scoped(threads, move || seal(take(part))).ok();
            let others: Vec<_> = others.iter().map(|part| (part, spawn(part))).collect();
            sealed.extend(seal(first));
            for (part, other) in others {
                sealed.extend(match other {
                    Some(other) => other.join().unwrap_or_else(|panic| resume_unwind(panic)),
                    None => seal(take(part)),
                });
            }
        });
        sealed
    }
}
