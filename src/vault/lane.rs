//! Writing the log: this process's lane. What waits together shares one durable commit.
//!
//! Every commit expects the head row that the one before it wrote. Where one process alone has the store, the next is
//! handed over while the one before is still under way, so that the store can make both durable with one sync. When one
//! fails, those that were built on it fail with it, and are built again here.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::crypto;
use crate::error::{Error, Result};
use crate::keeper::VaultId;
use crate::log::{Entry, Lane};
use crate::store::{Batch, Committed, Expect, Key, Rows, Version, Versioned};
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
    head: async_lock::Mutex<Place>,
    waiting: Mutex<Vec<Arc<Waiting>>>,
    /// How many commits are under way or wait for it.
    busy: AtomicUsize,
}

/// One that is under way, until it is dropped.
struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where the lane stands.
#[derive(Debug, Default)]
struct Place {
    /// In a shared store `None` while a commit is under way, and after one whose end was not seen. Otherwise what the
    /// store will say once it has made what it was given; `None` after a failure. Then the head row is read again.
    head: Option<Head>,
    /// Counts the failures: what was handed over before one says nothing about what came after.
    run: u64,
}

#[derive(Debug)]
struct Head {
    lane: Lane,
    row: Option<Versioned>,
}

impl Head {
    fn version(&self) -> Option<Version> {
        self.row.as_ref().map(|row| row.version)
    }
}

/// Entries that wait for a commit, with the row that must be as it was read.
#[derive(Debug)]
struct Waiting {
    entries: Vec<Entry>,
    expect: Option<(Key, Expect)>,
    done: Mutex<Option<Committed>>,
}

impl Writer {
    pub(crate) fn new(vault: VaultId, rows: Rows) -> Result<Self> {
        let id = crypto::random()?;
        Ok(Writer {
            vault,
            rows,
            id,
            head: async_lock::Mutex::default(),
            waiting: Mutex::default(),
            busy: AtomicUsize::new(0),
        })
    }

    /// A lane that nobody has written yet: its id was just drawn, so there is no head to be read.
    pub(crate) fn unwritten(vault: VaultId, rows: Rows) -> Result<Self> {
        let mut writer = Self::new(vault, rows)?;
        let lane = Lane::start(&writer.vault, writer.id);
        writer.head.get_mut().head = Some(Head { lane, row: None });
        Ok(writer)
    }

    /// Whether nothing is under way here.
    pub(crate) fn is_idle(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }

    fn busy(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(&self.busy)
    }

    /// Commits a batch together with entries. A conflict says that a precondition of the batch did not hold, or that
    /// the head was not where it was believed to be.
    pub(crate) async fn commit(&self, batch: Batch, entries: &[Entry]) -> Result<Committed> {
        let _busy = self.busy();
        if self.rows.shared() {
            let mut place = self.head.lock().await;
            let head = self.take(&mut place).await?;
            let (commit, next) = self.hand_over(&head, batch, entries);
            // From here on the head is not known until the outcome is: a dropped future leaves `None` behind.
            let committed = commit.await?;
            if committed == Committed::Yes {
                place.head = Some(next);
            }
            return Ok(committed);
        }
        for _ in 0..ATTEMPTS {
            let mut place = self.head.lock().await;
            let head = self.take(&mut place).await?;
            // A nonce of its own: the head of an attempt that failed must not be taken for that of this one.
            let again = Batch { nonce: crypto::random()?, ..batch.clone() };
            let (commit, next) = self.hand_over(&head, again, entries);
            place.head = Some(next);
            let run = place.run;
            drop(place);
            let committed = commit.await;
            if matches!(committed, Ok(Committed::Yes)) {
                return committed;
            }
            let mut place = self.head.lock().await;
            if place.run == run {
                *place = Place { head: None, run: run.wrapping_add(1) };
            }
            // Before the store is read: that it cannot be read does not say what became of the commit.
            let conflict = committed?;
            let there = self.rows.get(&head_name(&self.id)).await?;
            // The head was there: what did not hold is the batch's own. Otherwise it fell with the one before it.
            if there.map(|row| row.version) == head.version() {
                return Ok(conflict);
            }
        }
        Ok(Committed::Conflict)
    }

    /// Gives the store a batch that puts entries after a head, and says what the head is once it is made.
    fn hand_over(
        &self,
        head: &Head,
        mut batch: Batch,
        entries: &[Entry],
    ) -> (impl Future<Output = Result<Committed>> + Send, Head) {
        let next = self.extend(head, &mut batch, entries);
        (self.rows.commit(batch), next)
    }

    /// For somebody else to commit: puts entries after the head as it is in the store now. Another batch that is made
    /// before this one is committed, or given up, is built on the same head: one of the two will fail.
    pub(crate) async fn stage(&self, batch: &mut Batch, entries: &[Entry]) -> Result<()> {
        let mut head = self.take(&mut Place::default()).await?;
        if head.row.is_none() {
            // The head is there before anything is built on it: whether a batch can still come is found out by it.
            let mut first = Batch::new()?;
            let next = self.extend(&head, &mut first, &[]);
            if self.rows.commit(first).await? == Committed::Conflict {
                return Err(Error::Busy);
            }
            head = next;
        }
        self.extend(&head, batch, entries);
        Ok(())
    }

    /// Puts entries into a batch, and says what the head is after it.
    fn extend(&self, head: &Head, batch: &mut Batch, entries: &[Entry]) -> Head {
        let mut lane = head.lane;
        for entry in entries {
            let (next, bytes) = lane.next(entry);
            lane = next;
            batch.put(&entry_name(&self.id, lane.seq), bytes);
        }
        let name = head_name(&self.id);
        let value = lane.encode();
        batch.expect(&name, Expect::unchanged(head.row.as_ref()));
        batch.put(&name, value.clone());
        let version = batch.version_of(&name);
        Head { lane, row: Some(Versioned { version, value }) }
    }

    async fn take(&self, place: &mut Place) -> Result<Head> {
        if let Some(head) = place.head.take() {
            return Ok(head);
        }
        let row = self.rows.get(&head_name(&self.id)).await?;
        let lane = match &row {
            Some(row) => Lane::decode(&row.value)?,
            None => Lane::start(&self.vault, self.id),
        };
        Ok(Head { lane, row })
    }

    /// Appends entries under a precondition, together with all others that wait under the same one.
    pub(crate) async fn append(
        &self,
        entries: Vec<Entry>,
        expect: Option<(Key, Expect)>,
    ) -> Result<Committed> {
        if !self.rows.shared() {
            let mut batch = Batch::new()?;
            if let Some((key, expect)) = &expect {
                batch.expect(key, *expect);
            }
            return self.commit(batch, &entries).await;
        }
        let _busy = self.busy();
        let own = Arc::new(Waiting { entries, expect, done: Mutex::new(None) });
        self.queue().push(Arc::clone(&own));
        // Whoever gets the lane first commits for all that wait; the others find their entry written.
        let mut place = self.head.lock().await;
        if let Some(done) = *own.done.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(done);
        }
        let group = self.group(&own);
        let mut batch = Batch::new()?;
        if let Some((key, expect)) = &own.expect {
            batch.expect(key, *expect);
        }
        let entries: Vec<Entry> = group.iter().flat_map(|waiting| waiting.entries.iter().cloned()).collect();
        let head = self.take(&mut place).await?;
        let (commit, next) = self.hand_over(&head, batch, &entries);
        let committed = commit.await?;
        if committed == Committed::Yes {
            place.head = Some(next);
        }
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
            // Nobody waits any more for an entry whose future was dropped.
            if Arc::ptr_eq(waiting, own) || Arc::strong_count(waiting) == 1 {
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
            if self.lane.append(vec![entry.clone()], None).await? == Committed::Yes {
                return Ok(());
            }
        }
        Err(Error::Busy)
    }
}
