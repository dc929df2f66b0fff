//! A store that counts, fails and waits where a test says so.

use std::{
    fmt,
    future::poll_fn,
    ops::Sub,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use crate::error::StoreError;
use crate::store::{Batch, CommitError, Key, Moments, Page, Range, Store, Versioned, Volume};

/// How a commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitFault {
    /// It does not happen, and the store says so.
    Failed(StoreError),
    /// It does not happen, and the store does not know.
    UnknownNotDone,
    /// It happens, or fails by its preconditions, and the store does not know.
    UnknownDone,
    /// It does not happen, and every call from then on fails with [`StoreError::Closed`]: the process was killed just
    /// before.
    KilledBefore,
    /// It happens, and is not acknowledged; every call from then on fails with [`StoreError::Closed`]: the process was
    /// killed just after.
    KilledAfter,
}

/// What was asked of a store so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls of `read`.
    pub reads: u64,
    /// Names in them.
    pub rows_read: u64,
    /// Calls of `scan`.
    pub scans: u64,
    /// Rows that scans gave.
    pub rows_scanned: u64,
    /// Calls of `commit`.
    pub commits: u64,
    /// Commits that broke a precondition.
    pub conflicts: u64,
    /// Writes and deletions in the batches that were committed.
    pub rows_written: u64,
}

impl Sub for Counts {
    type Output = Counts;

    /// What was asked between two moments.
    fn sub(self, before: Counts) -> Counts {
        Counts {
            reads: self.reads.saturating_sub(before.reads),
            rows_read: self.rows_read.saturating_sub(before.rows_read),
            scans: self.scans.saturating_sub(before.scans),
            rows_scanned: self.rows_scanned.saturating_sub(before.rows_scanned),
            commits: self.commits.saturating_sub(before.commits),
            conflicts: self.conflicts.saturating_sub(before.conflicts),
            rows_written: self.rows_written.saturating_sub(before.rows_written),
        }
    }
}

/// What a hook is told before it happens.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Call<'a> {
    /// Reading these rows.
    Read(&'a [Key]),
    /// A page of this range.
    Scan(&'a Range),
    /// Committing this batch.
    Commit(&'a Batch),
}

type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;
type Hook = Arc<dyn Fn(Call<'_>) -> Pause + Send + Sync>;

/// A store around another. Clones are the same store: keep one, and give one to the vault.
pub struct FaultStore<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: S,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counts: Counts,
    commit: Option<(u64, CommitFault)>,
    look: Option<(u64, StoreError)>,
    killed: bool,
    hook: Option<Hook>,
}

impl<S> Clone for FaultStore<S> {
    fn clone(&self) -> Self {
        FaultStore(Arc::clone(&self.0))
    }
}

impl<S: fmt::Debug> fmt::Debug for FaultStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultStore")
            .field("store", &self.0.store)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl<S> FaultStore<S> {
    /// Passes everything on, until told otherwise.
    #[must_use]
    pub fn new(store: S) -> Self {
        FaultStore(Arc::new(Inner { store, state: Mutex::default() }))
    }

    /// The store inside, without counting or failing.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.0.store
    }

    /// What was asked so far. Subtract two to know what was asked between.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// The `nth` commit from now, counted from 0, fails so. Replaces what was said before.
    pub fn fail_commit(&self, nth: u64, fault: CommitFault) {
        self.state().commit = Some((nth, fault));
    }

    /// The `nth` read or scan from now, counted from 0, fails with this. Replaces what was said before.
    pub fn fail_read(&self, nth: u64, error: StoreError) {
        self.state().look = Some((nth, error));
    }

    /// Whether a [`CommitFault::KilledBefore`] or [`CommitFault::KilledAfter`] has come to pass.
    #[must_use]
    pub fn killed(&self) -> bool {
        self.state().killed
    }

    /// Everything works again, as after a restart. Counts and hook stay.
    pub fn heal(&self) {
        let mut state = self.state();
        (state.commit, state.look, state.killed) = (None, None, false);
    }

    /// Waits for what `hook` returns before each call: the place where a test lets others go first. While there is a
    /// hook, a commit reaches the store inside when its future is polled; without one, when it is called.
    pub fn before_each(&self, hook: impl Fn(Call<'_>) -> Pause + Send + Sync + 'static) {
        self.state().hook = Some(Arc::new(hook));
    }

    /// Waits for nothing any more.
    pub fn without_hook(&self) {
        self.state().hook = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self, call: Call<'_>) -> Option<Pause> {
        let hook = self.state().hook.clone();
        // Called without the lock, so that a hook may use this store.
        hook.map(|hook| hook(call))
    }

    fn look(&self, count: impl FnOnce(&mut Counts)) -> Result<(), StoreError> {
        let mut state = self.state();
        count(&mut state.counts);
        if state.killed {
            return Err(StoreError::Closed);
        }
        due(&mut state.look).map_or(Ok(()), Err)
    }
}

impl<S: Store> Store for FaultStore<S> {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        if let Some(pause) = self.pause(Call::Read(keys)) {
            pause.await;
        }
        self.look(|counts| {
            counts.reads = counts.reads.saturating_add(1);
            counts.rows_read = counts.rows_read.saturating_add(wide(keys.len()));
        })?;
        self.0.store.read(keys).await
    }

    async fn scan(&self, range: Range, limit: usize) -> Result<Page, StoreError> {
        if let Some(pause) = self.pause(Call::Scan(&range)) {
            pause.await;
        }
        self.look(|counts| counts.scans = counts.scans.saturating_add(1))?;
        let page = self.0.store.scan(range, limit).await?;
        let counts = &mut self.state().counts;
        counts.rows_scanned = counts.rows_scanned.saturating_add(wide(page.rows.len()));
        Ok(page)
    }

    fn commit(&self, batch: Batch) -> impl Future<Output = Result<(), CommitError>> + Send {
        let pause = self.pause(Call::Commit(&batch));
        // Without a hook the batch is handed on here, so that pipelined batches keep their order.
        let (now, later) = match pause {
            None => (Some(self.start(batch)), None),
            Some(pause) => (None, Some((pause, batch))),
        };
        async move {
            if let Some((pause, batch)) = later {
                pause.await;
                return self.start(batch).await;
            }
            match now {
                Some(started) => started.await,
                None => Err(CommitError::Unknown),
            }
        }
    }

    fn shared(&self) -> bool {
        self.0.store.shared()
    }

    /// Its pages are not counted and do not fail.
    async fn moment(&self) -> Moments {
        self.0.store.moment().await
    }

    fn volumes(&self) -> Vec<Volume> {
        self.0.store.volumes()
    }
}

impl<S: Store> FaultStore<S> {
    fn start(&self, batch: Batch) -> impl Future<Output = Result<(), CommitError>> + Send {
        let (killed, fault) = {
            let mut state = self.state();
            state.counts.commits = state.counts.commits.saturating_add(1);
            let before = state.killed;
            let fault = if before { None } else { due(&mut state.commit) };
            state.killed |= matches!(fault, Some(CommitFault::KilledBefore | CommitFault::KilledAfter));
            (before, fault)
        };
        let refusal = match fault {
            _ if killed => Some(CommitError::Failed(StoreError::Closed)),
            Some(CommitFault::Failed(why)) => Some(CommitError::Failed(why)),
            Some(CommitFault::UnknownNotDone | CommitFault::KilledBefore) => Some(CommitError::Unknown),
            Some(CommitFault::UnknownDone | CommitFault::KilledAfter) | None => None,
        };
        let rows = wide(batch.writes.len());
        let started = match refusal {
            None => Ok(self.0.store.commit(batch)),
            Some(refusal) => Err(refusal),
        };
        async move {
            let outcome = started?.await;
            let counts = &mut self.state().counts;
            match outcome {
                Ok(()) => counts.rows_written = counts.rows_written.saturating_add(rows),
                Err(CommitError::Conflict) => counts.conflicts = counts.conflicts.saturating_add(1),
                Err(_) => {}
            }
            if fault.is_some() { Err(CommitError::Unknown) } else { outcome }
        }
    }
}

/// Takes a plan whose turn it is.
fn due<T: Copy>(plan: &mut Option<(u64, T)>) -> Option<T> {
    let (left, fault) = plan.as_mut()?;
    if let Some(fewer) = left.checked_sub(1) {
        *left = fewer;
        return None;
    }
    let fault = *fault;
    *plan = None;
    Some(fault)
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Lets other tasks of the same thread go first, once.
pub fn yield_now() -> impl Future<Output = ()> + Send {
    let mut yielded = false;
    poll_fn(move |context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Expect, MemoryStore};

    fn put(key: &[u8]) -> Batch {
        let mut batch = Batch::new().unwrap();
        batch.put(key, vec![1]);
        batch
    }

    fn there(store: &MemoryStore, key: &[u8]) -> bool {
        pollster::block_on(store.read(&[key.to_vec()])).unwrap()[0].is_some()
    }

    #[test]
    fn the_nth_commit_fails_as_it_was_told_and_the_others_do_not() {
        let cases = [
            (CommitFault::Failed(StoreError::Full), CommitError::Failed(StoreError::Full), false),
            (CommitFault::UnknownNotDone, CommitError::Unknown, false),
            (CommitFault::UnknownDone, CommitError::Unknown, true),
        ];
        for (fault, error, done) in cases {
            let store = FaultStore::new(MemoryStore::new());
            store.fail_commit(1, fault);
            let outcomes = [b"a", b"b", b"c"].map(|key| pollster::block_on(store.commit(put(key))));
            assert_eq!(outcomes, [Ok(()), Err(error), Ok(())]);
            assert_eq!(there(store.inner(), b"b"), done);
            assert_eq!(store.counts().commits, 3);
            assert_eq!(store.counts().rows_written, if done { 3 } else { 2 });
        }
    }

    #[test]
    fn after_a_kill_everything_fails_until_it_is_healed() {
        for (fault, done) in [(CommitFault::KilledBefore, false), (CommitFault::KilledAfter, true)] {
            let store = FaultStore::new(MemoryStore::new());
            store.fail_commit(0, fault);
            assert_eq!(pollster::block_on(store.commit(put(b"a"))), Err(CommitError::Unknown));
            assert_eq!(pollster::block_on(store.commit(put(b"b"))), Err(StoreError::Closed.into()));
            assert_eq!(pollster::block_on(store.read(&[])), Err(StoreError::Closed));
            assert!(store.killed() && there(store.inner(), b"a") == done);
            store.heal();
            assert_eq!(pollster::block_on(store.commit(put(b"b"))), Ok(()));
        }
    }

    #[test]
    fn counts_tell_reads_conflicts_and_rows_apart() {
        let store = FaultStore::new(MemoryStore::new());
        store.fail_read(1, StoreError::Damaged);
        let before = store.counts();
        pollster::block_on(store.read(&[b"a".to_vec(), b"b".to_vec()])).unwrap();
        assert_eq!(pollster::block_on(store.scan(Range::prefix(b""), 9)), Err(StoreError::Damaged));
        pollster::block_on(store.commit(put(b"a"))).unwrap();
        pollster::block_on(store.scan(Range::prefix(b""), 9)).unwrap();
        let mut batch = put(b"a");
        batch.expect(b"a", Expect::Absent);
        assert_eq!(pollster::block_on(store.commit(batch)), Err(CommitError::Conflict));
        let counts = store.counts() - before;
        assert_eq!((counts.reads, counts.rows_read, counts.scans, counts.rows_scanned), (1, 2, 2, 1));
        assert_eq!((counts.commits, counts.conflicts, counts.rows_written), (2, 1, 1));
    }

    #[test]
    fn a_hook_lets_another_commit_go_first() {
        let store = FaultStore::new(MemoryStore::new());
        let other = store.inner().clone();
        store.before_each(move |call| {
            let other = other.clone();
            let commit = matches!(call, Call::Commit(_));
            Box::pin(async move {
                yield_now().await;
                if commit {
                    other.commit(put(b"a")).await.unwrap();
                }
            })
        });
        let mut batch = put(b"a");
        batch.expect(b"a", Expect::Absent);
        assert_eq!(pollster::block_on(store.commit(batch)), Err(CommitError::Conflict));
    }
}
