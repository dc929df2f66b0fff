//! Interleavings: tasks that are polled in an order which a chooser picks, so that a race is found by search, has a
//! number, and can be run again.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use customer_vault::Day;
use customer_vault::clock::{Clock, Sleep};
use customer_vault::error::{KeeperError, StoreError};
use customer_vault::keeper::{Candidate, ErasureClass, Held, Keeper, RootId, RootKey, VaultId};
use customer_vault::store::{Batch, CommitError, Expect, Key, Page, Range, Store, Versioned};
use customer_vault::testing::{MemoryKeeper, yield_now};
use customer_vault::witness::{Line, Witness};

/// Picks the way to go on.
pub trait Choose {
    /// One of `ways`. Way 0 goes on with the task that ran last where `stays`: another is a preemption then.
    fn pick(&mut self, ways: usize, stays: bool) -> usize;
    /// How many milliseconds pass before the next step.
    fn drift(&mut self) -> u64 {
        0
    }
}

/// By chance, from a seed.
#[derive(Debug)]
pub struct Seeded {
    state: u64,
    most_drift: u64,
    /// Goes on with the same task as long as it can, but for one time in so many; 1 for always at random.
    sticky: usize,
}

impl Seeded {
    pub fn new(seed: u64) -> Self {
        // Races need now many changes between tasks, now a long run of one between two steps of another.
        let sticky = [1, 1, 6, 15][usize::try_from(seed % 4).unwrap()];
        let mut seeded = Seeded { state: seed, most_drift: 0, sticky };
        seeded.next();
        seeded
    }

    /// Time passes now and then, up to so many milliseconds at once.
    pub fn with_drift(seed: u64, most: u64) -> Self {
        Seeded { most_drift: most, ..Self::new(seed) }
    }

    /// Splitmix64.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }
}

impl Choose for Seeded {
    fn pick(&mut self, ways: usize, stays: bool) -> usize {
        if stays && self.below(self.sticky) > 0 { 0 } else { self.below(ways) }
    }

    fn drift(&mut self) -> u64 {
        if self.most_drift > 0 && self.below(12) == 0 { self.next() % self.most_drift } else { 0 }
    }
}

/// Every schedule with at most so many preemptions, one after the other.
#[derive(Clone, Debug)]
pub struct Every {
    preemptions: usize,
    /// The way taken, the ways there were, and whether another than way 0 is a preemption.
    path: Vec<(usize, usize, bool)>,
    at: usize,
}

impl Every {
    pub fn new(preemptions: usize) -> Self {
        Every { preemptions, path: Vec::new(), at: 0 }
    }

    /// Goes to the next schedule; false where there is none.
    pub fn advance(&mut self) -> bool {
        self.path.truncate(self.at);
        self.at = 0;
        while let Some((taken, ways, stays)) = self.path.pop() {
            let costs = usize::from(stays && taken == 0);
            if taken + 1 < ways && self.spent() + costs <= self.preemptions {
                self.path.push((taken + 1, ways, stays));
                return true;
            }
        }
        false
    }

    fn spent(&self) -> usize {
        self.path.iter().filter(|(taken, _, stays)| *stays && *taken > 0).count()
    }
}

impl Choose for Every {
    fn pick(&mut self, ways: usize, stays: bool) -> usize {
        if self.at == self.path.len() {
            self.path.push((0, ways, stays));
        }
        let taken = self.path[self.at].0.min(ways - 1);
        self.at += 1;
        taken
    }
}

/// A task of a race.
pub struct Task<'a> {
    future: Pin<Box<dyn Future<Output = ()> + 'a>>,
    woken: Arc<Woken>,
    polls: usize,
    /// Dropped after so many polls: the process was killed there.
    lives: usize,
    /// After so many polls it stands still until nobody else can go on.
    pauses: usize,
    forever: bool,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What the future comes to is dropped.
pub fn task<'a, T: 'a>(future: impl Future<Output = T> + 'a) -> Task<'a> {
    Task {
        future: Box::pin(async { drop(future.await) }),
        woken: Arc::new(Woken(AtomicBool::new(true))),
        polls: 0,
        lives: usize::MAX,
        pauses: usize::MAX,
        forever: false,
    }
}

impl Task<'_> {
    pub fn killed_after(mut self, polls: usize) -> Self {
        self.lives = polls;
        self
    }

    pub fn paused_after(mut self, polls: usize) -> Self {
        self.pauses = polls;
        self
    }

    /// The race does not wait for its end.
    pub fn in_background(mut self) -> Self {
        self.forever = true;
        self
    }
}

/// What a race came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ran {
    pub steps: usize,
    pub killed: usize,
}

/// Runs tasks to their ends.
pub fn run(mut tasks: Vec<Task<'_>>, clock: &SimClock, choose: &mut dyn Choose) -> Ran {
    let mut ran = Ran::default();
    let mut last = None;
    let mut live: Vec<usize> = (0..tasks.len()).collect();
    while live.iter().any(|i| !tasks[*i].forever) {
        clock.advance_ms(choose.drift());
        let ready = |paused: bool| -> Vec<usize> {
            let able = |i: &usize| {
                let task: &Task<'_> = &tasks[*i];
                task.woken.0.load(Ordering::SeqCst) && (paused || task.polls < task.pauses)
            };
            live.iter().copied().filter(able).collect()
        };
        let mut ready = match ready(false) {
            // Who stands still goes on when all others have ended, or wait for what it holds.
            none if none.is_empty() && !clock.is_awaited() => ready(true),
            some => some,
        };
        // The one that ran last stands first.
        ready.sort_by_key(|i| (Some(*i) != last, *i));
        if ready.is_empty() {
            let waiting: Vec<(usize, usize)> = live.iter().map(|i| (*i, tasks[*i].polls)).collect();
            assert!(clock.advance_to_next(), "nobody can go on: {waiting:?}");
            continue;
        }
        let stays = ready.first().copied() == last && last.is_some();
        let way = if ready.len() > 1 { choose.pick(ready.len(), stays) } else { 0 };
        let index = ready[way];
        last = Some(index);
        ran.steps += 1;
        assert!(ran.steps < 200_000, "the race does not end");
        let task = &mut tasks[index];
        task.woken.0.store(false, Ordering::SeqCst);
        task.polls += 1;
        let waker = Waker::from(Arc::clone(&task.woken));
        let done = task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let killed = !done && task.polls >= task.lives;
        if done || killed {
            ran.killed += usize::from(killed);
            live.retain(|i| *i != index);
            // Dropped where it stands.
            tasks[index].future = Box::pin(std::future::ready(()));
        }
    }
    ran
}

/// Runs something alone.
pub fn alone<T>(clock: &SimClock, future: impl Future<Output = T>) -> T {
    let mut out = None;
    let step = async {
        out = Some(future.await);
    };
    run(vec![task(step)], clock, &mut Seeded::new(0));
    out.unwrap()
}

/// A clock that moves when the race lets it. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct SimClock(Arc<Mutex<Hands>>);

#[derive(Debug)]
struct Hands {
    wall_ms: i64,
    monotonic_ms: u64,
    sleeping: Vec<(u64, Waker)>,
}

impl SimClock {
    /// Noon of a day.
    pub fn at(day: Day) -> Self {
        let wall_ms = day.start_ms() + 43_200_000;
        SimClock(Arc::new(Mutex::new(Hands { wall_ms, monotonic_ms: 0, sleeping: Vec::new() })))
    }

    pub fn advance_ms(&self, ms: u64) {
        let mut hands = self.0.lock().unwrap();
        hands.wall_ms += i64::try_from(ms).unwrap();
        hands.monotonic_ms += ms;
        let now = hands.monotonic_ms;
        let (due, rest) = std::mem::take(&mut hands.sleeping).into_iter().partition(|(end, _)| *end <= now);
        hands.sleeping = rest;
        drop(hands);
        let due: Vec<(u64, Waker)> = due;
        for (_, waker) in due {
            waker.wake();
        }
    }

    pub fn advance_days(&self, days: u64) {
        self.advance_ms(days * 86_400_000);
    }

    pub fn set_wall(&self, wall_ms: i64) {
        self.0.lock().unwrap().wall_ms = wall_ms;
    }

    fn is_awaited(&self) -> bool {
        !self.0.lock().unwrap().sleeping.is_empty()
    }

    fn advance_to_next(&self) -> bool {
        let hands = self.0.lock().unwrap();
        let Some(end) = hands.sleeping.iter().map(|(end, _)| *end).min() else { return false };
        let by = end.saturating_sub(hands.monotonic_ms);
        drop(hands);
        self.advance_ms(by);
        true
    }
}

impl Clock for SimClock {
    fn wall(&self) -> i64 {
        self.0.lock().unwrap().wall_ms
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.lock().unwrap().monotonic_ms)
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let hands = Arc::clone(&self.0);
        let end = u64::try_from(self.monotonic().saturating_add(duration).as_millis()).unwrap();
        Box::pin(poll_fn(move |context| {
            let mut hands = hands.lock().unwrap();
            if hands.monotonic_ms >= end {
                return Poll::Ready(());
            }
            hands.sleeping.push((end, context.waker().clone()));
            Poll::Pending
        }))
    }
}

/// Whether others may go first at each call.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    pub fn open(&self, yes: bool) {
        self.0.store(yes, Ordering::SeqCst);
    }

    async fn pass(&self) {
        if self.0.load(Ordering::SeqCst) {
            yield_now().await;
        }
    }
}

/// How a store treats the race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Others may go first before each call.
    Before,
    /// Before each call, and between its being carried out and its answer.
    Around,
    /// As `Before`, and broken: a row that is written again with the bytes that it has keeps its version, though its
    /// precondition is checked. So would a store that leaves out writes which change nothing.
    SkipsTouches,
}

/// A store that lets others go first.
#[derive(Clone)]
pub struct Yielding<S> {
    pub store: S,
    pub gate: Gate,
    pub manner: Manner,
    /// While set, every call fails.
    pub out_of_reach: Arc<AtomicBool>,
}

impl<S> fmt::Debug for Yielding<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Yielding").field("manner", &self.manner).finish_non_exhaustive()
    }
}

impl<S: Store> Yielding<S> {
    async fn before(&self) -> Result<(), StoreError> {
        self.gate.pass().await;
        if self.out_of_reach.load(Ordering::SeqCst) {
            return Err(StoreError::Io(std::io::ErrorKind::NotConnected));
        }
        Ok(())
    }

    async fn after(&self) {
        if self.manner == Manner::Around {
            self.gate.pass().await;
        }
    }

    async fn without_touches(&self, batch: &mut Batch) -> Result<(), StoreError> {
        let names: Vec<Key> = batch.writes.iter().map(|(name, _)| name.clone()).collect();
        let rows = self.store.read(&names).await?;
        let mut rows = rows.into_iter();
        let expect = &batch.expect;
        batch.writes.retain(|(name, value)| {
            let same = rows.next().flatten().is_some_and(|row| Some(&row.value) == value.as_ref());
            !(same && expect.iter().any(|(k, e)| k == name && matches!(e, Expect::Version(_))))
        });
        Ok(())
    }
}

impl<S: Store> Store for Yielding<S> {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        self.before().await?;
        let rows = self.store.read(keys).await;
        self.after().await;
        rows
    }

    async fn scan(&self, range: Range, limit: usize) -> Result<Page, StoreError> {
        self.before().await?;
        let page = self.store.scan(range, limit).await;
        self.after().await;
        page
    }

    async fn commit(&self, mut batch: Batch) -> Result<(), CommitError> {
        self.before().await?;
        if self.manner == Manner::SkipsTouches {
            self.without_touches(&mut batch).await?;
        }
        let done = self.store.commit(batch).await;
        self.after().await;
        done
    }

    fn shared(&self) -> bool {
        self.store.shared()
    }
}

/// A keeper and witness that lets others go first, before it acts and before it answers.
#[derive(Clone, Debug)]
pub struct YieldingKeeper {
    pub keeper: MemoryKeeper,
    pub gate: Gate,
}

impl YieldingKeeper {
    async fn around<T: Send>(&self, act: impl Future<Output = T> + Send) -> T {
        self.gate.pass().await;
        let done = act.await;
        self.gate.pass().await;
        done
    }
}

impl Keeper for YieldingKeeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        Keeper::bind(&self.keeper, vault).await
    }

    async fn candidate(&self, epoch: u64) -> Result<Candidate, KeeperError> {
        self.around(self.keeper.candidate(epoch)).await
    }

    async fn activate(&self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        self.around(self.keeper.activate(epoch, id)).await
    }

    async fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        self.around(Keeper::unwrap(&self.keeper, id, wrapped)).await
    }

    async fn destroy(&self, id: RootId) -> Result<(), KeeperError> {
        self.around(self.keeper.destroy(id)).await
    }

    async fn held(&self) -> Result<Vec<Held>, KeeperError> {
        self.around(self.keeper.held()).await
    }

    fn erasure_class(&self) -> ErasureClass {
        self.keeper.erasure_class()
    }
}

impl Witness for YieldingKeeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        Witness::bind(&self.keeper, vault).await
    }

    async fn recall(&self, from: u64) -> Result<Vec<Line>, KeeperError> {
        self.around(self.keeper.recall(from)).await
    }

    async fn remember(&self, lines: Vec<Line>) -> Result<(), KeeperError> {
        self.around(self.keeper.remember(lines)).await
    }
}

/// How many schedules: `n`, or more where the environment asks for it.
pub fn schedules(n: u64) -> u64 {
    n * std::env::var("VAULT_SCHEDULES").map_or(1, |times| times.parse().expect("a number"))
}

/// Says which schedule failed.
pub struct Named<T: fmt::Debug>(pub T);

#[allow(clippy::print_stdout, reason = "it says which schedule failed")]
impl<T: fmt::Debug> Drop for Named<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed in schedule {:?}", self.0);
        }
    }
}
