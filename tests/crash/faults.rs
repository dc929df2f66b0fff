//! A store that yields, a keeper whose n-th call goes wrong, and a way to poll what is dropped in the middle.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use customer_vault::error::{KeeperError, StoreError};
use customer_vault::keeper::{Candidate, ErasureClass, Held, Keeper, RootId, RootKey, VaultId};
use customer_vault::store::{Batch, CommitError, Key, MemoryStore, Page, Range, Store, Versioned};
use customer_vault::testing::{FaultStore, MemoryKeeper, yield_now};
use customer_vault::witness::{Line, Witness};

/// Where it is told so, yields before each call and after each commit: a future over it can be dropped between a commit that
/// happened and its caller.
#[derive(Clone, Debug)]
pub struct Slow {
    pub rows: MemoryStore,
    slow: Arc<AtomicBool>,
}

pub type TestStore = FaultStore<Slow>;

impl Slow {
    pub fn new(rows: MemoryStore) -> Self {
        Slow { rows, slow: Arc::default() }
    }

    pub fn slow(&self, yes: bool) {
        self.slow.store(yes, Ordering::SeqCst);
    }

    async fn pause(&self) {
        if self.slow.load(Ordering::SeqCst) {
            yield_now().await;
        }
    }
}

impl Store for Slow {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        self.pause().await;
        self.rows.read(keys).await
    }
    async fn scan(&self, range: Range, limit: usize) -> Result<Page, StoreError> {
        self.pause().await;
        self.rows.scan(range, limit).await
    }
    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        self.pause().await;
        let outcome = self.rows.commit(batch).await;
        self.pause().await;
        outcome
    }
    fn shared(&self) -> bool {
        self.rows.shared()
    }
}

/// What becomes of a call to keeper or witness. Whoever hangs was killed: its future is dropped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeeperFault {
    FailsBefore,
    FailsAfter,
    KilledBefore,
    KilledAfter,
}

/// Keeper and witness in memory, with a plan of faults.
#[derive(Clone, Debug)]
pub struct FaultKeeper {
    pub inner: MemoryKeeper,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    calls: u64,
    fault: Option<(u64, KeeperFault)>,
    killed: bool,
    slow: bool,
}

impl FaultKeeper {
    pub fn new(inner: MemoryKeeper) -> Self {
        FaultKeeper { inner, plan: Arc::default() }
    }

    pub fn calls(&self) -> u64 {
        self.plan().calls
    }

    /// The `nth` call from now, counted from 0.
    pub fn fail(&self, nth: u64, fault: KeeperFault) {
        let mut plan = self.plan();
        plan.fault = Some((plan.calls + nth, fault));
    }

    pub fn heal(&self) {
        let mut plan = self.plan();
        (plan.fault, plan.killed) = (None, false);
    }

    pub fn killed(&self) -> bool {
        self.plan().killed
    }

    pub fn slow(&self, yes: bool) {
        self.plan().slow = yes;
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap()
    }

    fn step(&self) -> (Option<KeeperFault>, bool) {
        let mut plan = self.plan();
        let now = plan.calls;
        plan.calls += 1;
        let fault = plan.fault.filter(|(at, _)| *at == now).map(|(_, fault)| fault);
        plan.killed |= matches!(fault, Some(KeeperFault::KilledBefore));
        (fault, plan.slow)
    }

    async fn around<T>(
        &self,
        call: impl Future<Output = Result<T, KeeperError>> + Send,
    ) -> Result<T, KeeperError> {
        let (fault, slow) = self.step();
        if slow {
            yield_now().await;
        }
        match fault {
            Some(KeeperFault::FailsBefore) => return Err(KeeperError::Unreachable),
            Some(KeeperFault::KilledBefore) => pending().await,
            _ => {}
        }
        let out = call.await;
        if fault == Some(KeeperFault::KilledAfter) {
            self.plan().killed = true;
            pending::<()>().await;
        }
        if slow {
            yield_now().await;
        }
        if fault == Some(KeeperFault::FailsAfter) { Err(KeeperError::Unreachable) } else { out }
    }
}

impl Keeper for FaultKeeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.around(Keeper::bind(&self.inner, vault)).await
    }
    async fn candidate(&self, epoch: u64) -> Result<Candidate, KeeperError> {
        self.around(self.inner.candidate(epoch)).await
    }
    async fn activate(&self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        self.around(self.inner.activate(epoch, id)).await
    }
    async fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        self.around(self.inner.unwrap(id, wrapped)).await
    }
    async fn destroy(&self, id: RootId) -> Result<(), KeeperError> {
        self.around(self.inner.destroy(id)).await
    }
    async fn held(&self) -> Result<Vec<Held>, KeeperError> {
        self.around(self.inner.held()).await
    }
    fn erasure_class(&self) -> ErasureClass {
        self.inner.erasure_class()
    }
}

impl Witness for FaultKeeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.around(Witness::bind(&self.inner, vault)).await
    }
    async fn recall(&self, from: u64) -> Result<Vec<Line>, KeeperError> {
        self.around(self.inner.recall(from)).await
    }
    async fn remember(&self, lines: Vec<Line>) -> Result<(), KeeperError> {
        self.around(self.inner.remember(lines)).await
    }
}

/// Polls a future until it is ready, `stop` says so while it waits, or it was pending so many times; then it is dropped.
pub fn drive<T>(
    future: impl Future<Output = T>,
    stop: impl Fn() -> bool,
    pending_at_most: usize,
) -> Option<T> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let mut waited = 0;
    loop {
        if let Poll::Ready(out) = future.as_mut().poll(&mut context) {
            return Some(out);
        }
        if stop() || waited >= pending_at_most {
            return None;
        }
        waited += 1;
        assert!(waited < 100_000, "it waits for nothing");
    }
}
