//! Writing the log: this process's lane. Unlocks that wait together share one durable commit.

use std::sync::{Arc, Mutex, PoisonError};

use crate::crypto;
use crate::error::{Error, Result};
use crate::keeper::VaultId;
use crate::log::{Entry, Lane};
use crate::store::{Batch, Committed, Expect, Key, Rows, Versioned};
use crate::tree::ATTEMPTS;
use crate::vault::Inner;

/// The most entries in one commit.
const GROUP: usize = 512;

/// The name of a lane's head row.
pub(crate) fn head_name(lane: &[u8; 16]) -> Key {
    [b"l", &lane[..]].concat()
}

/// The name of an entry's row.
pub(crate) fn entry_name(lane: &[u8; 16], seq: u64) -> Key {
    [b"o", &lane[..], &seq.to_be_bytes()].concat()
}

/// Writes one lane.
#[derive(Debug)]
pub(crate) struct Writer {
    vault: VaultId,
    rows: Rows,
    id: [u8; 16],
    /// `None` while a commit is under way, and after one whose end was not seen: then the head row is read again.
    head: async_lock::Mutex<Option<Head>>,
    waiting: Mutex<Vec<Arc<Waiting>>>,
}

#[derive(Debug)]
struct Head {
    lane: Lane,
    row: Option<Versioned>,
}

/// An entry that waits for a commit, with the row that must be as it was read.
#[derive(Debug)]
struct Waiting {
    entry: Entry,
    expect: Option<(Key, Expect)>,
    done: Mutex<Option<Committed>>,
}

impl Writer {
    pub(crate) fn new(vault: VaultId, rows: Rows) -> Result<Self> {
        let id = crypto::random()?;
        Ok(Writer { vault, rows, id, head: async_lock::Mutex::new(None), waiting: Mutex::default() })
    }

    /// Commits a batch together with entries. A conflict says that a precondition of the batch did not hold, or that
    /// the head was not where it was believed to be.
    pub(crate) async fn commit(&self, batch: Batch, entries: &[Entry]) -> Result<Committed> {
        let mut guard = self.head.lock().await;
        self.commit_with(&mut guard, batch, entries).await
    }

    async fn commit_with(
        &self,
        guard: &mut async_lock::MutexGuard<'_, Option<Head>>,
        mut batch: Batch,
        entries: &[Entry],
    ) -> Result<Committed> {
        let Head { mut lane, row } = self.take(guard).await?;
        for entry in entries {
            let (next, bytes) = lane.next(entry);
            lane = next;
            batch.put(&entry_name(&self.id, lane.seq), bytes);
        }
        let name = head_name(&self.id);
        let value = lane.encode();
        batch.expect(&name, Expect::unchanged(row.as_ref()));
        batch.put(&name, value.clone());
        let version = batch.version_of(&name);
        // From here on the head is not known until the outcome is: a dropped future leaves `None` behind.
        let committed = self.rows.commit(batch).await?;
        if committed == Committed::Yes {
            **guard = Some(Head { lane, row: Some(Versioned { version, value }) });
        }
        Ok(committed)
    }

    async fn take(&self, guard: &mut async_lock::MutexGuard<'_, Option<Head>>) -> Result<Head> {
        if let Some(head) = guard.take() {
            return Ok(head);
        }
        let row = self.rows.get(&head_name(&self.id)).await?;
        let lane = match &row {
            Some(row) => Lane::decode(&row.value)?,
            None => Lane::start(&self.vault, self.id),
        };
        Ok(Head { lane, row })
    }

    /// Appends an entry under a precondition, together with all others that wait under the same one.
    pub(crate) async fn append(&self, entry: Entry, expect: Option<(Key, Expect)>) -> Result<Committed> {
        let own = Arc::new(Waiting { entry, expect, done: Mutex::new(None) });
        self.queue().push(Arc::clone(&own));
        // Whoever gets the lane first commits for all that wait; the others find their entry written.
        let mut guard = self.head.lock().await;
        if let Some(done) = *own.done.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(done);
        }
        let group = self.group(&own);
        let mut batch = Batch::new()?;
        if let Some((key, expect)) = &own.expect {
            batch.expect(key, *expect);
        }
        let entries: Vec<Entry> = group.iter().map(|waiting| waiting.entry.clone()).collect();
        let committed = self.commit_with(&mut guard, batch, &entries).await?;
        for waiting in &group {
            *waiting.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(committed);
        }
        Ok(committed)
    }

    /// Takes out of the queue what can be committed with `own`. Where somebody took `own` before and then failed or
    /// vanished, it is written here: an entry too many is no harm, one too few is.
    fn group(&self, own: &Arc<Waiting>) -> Vec<Arc<Waiting>> {
        let mut queue = self.queue();
        let mut group = vec![Arc::clone(own)];
        queue.retain(|waiting| {
            if Arc::ptr_eq(waiting, own) {
                return false;
            }
            let fits = group.len() < GROUP && waiting.expect == own.expect;
            if fits {
                group.push(Arc::clone(waiting));
            }
            !fits
        });
        group
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Writes an entry that goes with no other change.
    pub(crate) async fn log(&self, entry: Entry) -> Result<()> {
        for _ in 0..ATTEMPTS {
            if self.lane.append(entry.clone(), None).await? == Committed::Yes {
                return Ok(());
            }
        }
        Err(Error::Busy)
    }
}
