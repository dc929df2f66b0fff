//! The thread that makes what waits durable together.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use futures_channel::oneshot;
use redb::{Database, Durability, ReadableTable, Table, WriteTransaction};

use super::{ROWS, decode, guarded, why};
use crate::error::StoreError;
use crate::store::{Batch, CommitError, memory::holds};

/// No further batch joins a group of this many.
const GROUP: usize = 512;

/// No further batch joins a group of this many bytes of content.
const GROUP_BYTES: usize = 8 << 20;

/// A batch in the queue, and who waits for it.
pub(super) struct Waiting {
    pub(super) batch: Batch,
    pub(super) done: oneshot::Sender<Result<(), CommitError>>,
}

/// The open file.
pub(super) struct Opened {
    pub(super) database: Database,
    /// What every call is answered with, once the disk has failed.
    refusal: OnceLock<StoreError>,
    /// How many durable transactions were attempted.
    pub(super) transactions: AtomicU64,
}

impl Opened {
    pub(super) fn new(database: Database) -> Self {
        Opened { database, refusal: OnceLock::new(), transactions: AtomicU64::new(0) }
    }

    pub(super) fn usable(&self) -> Result<(), StoreError> {
        self.refusal.get().map_or(Ok(()), |refusal| Err(*refusal))
    }

    /// Takes note that the file cannot be used any more until it is opened again, and hands the cause on.
    pub(super) fn fail(&self, cause: StoreError) -> StoreError {
        let refusal = if cause == StoreError::Full { StoreError::Full } else { StoreError::Closed };
        // A second failure follows from the first.
        let _ = self.refusal.set(refusal);
        cause
    }

    /// Reads, and takes note of what fails.
    pub(super) fn look<T>(&self, look: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.usable()?;
        guarded(look).map_err(|cause| match cause {
            // One bad page: the others can still be read.
            StoreError::Damaged => cause,
            // After a failure redb still serves what it has in memory: rather nothing than half.
            cause => self.fail(cause),
        })
    }

    /// Until nobody can commit any more.
    pub(super) fn serve(&self, queue: &mpsc::Receiver<Waiting>) {
        while let Ok(first) = queue.recv() {
            let mut bytes = size(&first.batch);
            let mut group = vec![first];
            while group.len() < GROUP && bytes < GROUP_BYTES {
                let Ok(next) = queue.try_recv() else { break };
                bytes = bytes.saturating_add(size(&next.batch));
                group.push(next);
            }
            // redb may panic on a file that was altered behind its back. Whoever waits then learns that the outcome
            // is not known, because the other end of the channel is dropped.
            if catch_unwind(AssertUnwindSafe(|| self.commit(group))).is_err() {
                self.fail(StoreError::Damaged);
            }
        }
    }

    fn commit(&self, group: Vec<Waiting>) {
        let mut passed = Vec::with_capacity(group.len());
        let outcome = match self.usable() {
            Ok(()) => self.transact(&group, &mut passed),
            Err(refusal) => Err((refusal, false)),
        };
        let passed = passed.into_iter().chain(std::iter::repeat(false));
        for (Waiting { batch, done }, passed) in group.into_iter().zip(passed) {
            let answer = match outcome {
                Ok(()) if passed => Ok(()),
                Ok(()) => Err(CommitError::Conflict),
                Err((_, true)) if passed && !batch.writes.is_empty() => Err(CommitError::Unknown),
                // Also where a precondition did not hold: it may have been broken by a batch of the same group, which
                // has not happened now.
                Err((cause, _)) => Err(CommitError::Failed(cause)),
            };
            // Whoever asked may have gone away.
            let _ = done.send(answer);
        }
    }

    /// Makes one transaction of the group, and says which batches passed. An error says whether the transaction may
    /// have happened.
    fn transact(&self, group: &[Waiting], passed: &mut Vec<bool>) -> Result<(), (StoreError, bool)> {
        let transaction = self.judge(group, passed).map_err(|cause| (self.fail(cause), false))?;
        let changes = group
            .iter()
            .zip(passed.iter())
            .any(|(waiting, passed)| *passed && !waiting.batch.writes.is_empty());
        if !changes {
            return transaction.abort().map_err(|error| (self.fail(why(error)), false));
        }
        self.transactions.fetch_add(1, Ordering::Relaxed);
        transaction.commit().map_err(|error| (self.fail(why(error)), true))
    }

    /// Applies the batches in the order in which they came, each to what the ones before it left.
    fn judge(&self, group: &[Waiting], passed: &mut Vec<bool>) -> Result<WriteTransaction, StoreError> {
        let mut transaction = self.database.begin_write().map_err(why)?;
        transaction.set_durability(Durability::Immediate).map_err(why)?;
        {
            let mut table = transaction.open_table(ROWS).map_err(why)?;
            for waiting in group {
                passed.push(apply(&mut table, &waiting.batch)?);
            }
        }
        Ok(transaction)
    }
}

/// Whether the preconditions held; where they did not, nothing is written.
fn apply(table: &mut Table<'_, &'static [u8], &'static [u8]>, batch: &Batch) -> Result<bool, StoreError> {
    for (key, expect) in &batch.expect {
        let row = table.get(key.as_slice()).map_err(why)?;
        let version = row.map(|row| decode(row.value()).map(|(version, _)| version)).transpose()?;
        if !holds(*expect, version) {
            return Ok(false);
        }
    }
    for (key, value) in &batch.writes {
        match value {
            Some(value) => {
                let version = batch.version_of(key);
                let len = version.len().saturating_add(value.len());
                let mut row = table.insert_reserve(key.as_slice(), len).map_err(why)?;
                let parts = version.iter().chain(value);
                row.as_mut().iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
            }
            None => drop(table.remove(key.as_slice()).map_err(why)?),
        }
    }
    Ok(true)
}

fn size(batch: &Batch) -> usize {
    let contents = batch.writes.iter().filter_map(|(_, value)| value.as_ref());
    contents.fold(0, |sum, value| sum.saturating_add(value.len()))
}
