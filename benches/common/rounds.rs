//! Comparing on a machine that does other things as well.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// How many rounds, and how many calls in each.
#[derive(Clone, Copy)]
pub struct Rounds {
    pub rounds: usize,
    pub each: usize,
}

impl Rounds {
    /// For a call that takes about so long: rounds of a tenth of a millisecond or one call, together at most three seconds
    /// a side. One round of one call where nothing is measured.
    pub fn of(call: Duration) -> Self {
        if !super::measured() {
            return Rounds { rounds: 1, each: 1 };
        }
        let nanos = call.as_nanos().max(1);
        let each = usize::try_from(100_000 / nanos).unwrap().clamp(1, 1000);
        let rounds = 3_000_000_000 / (nanos * each as u128);
        Rounds { rounds: usize::try_from(rounds).unwrap().clamp(10, 2000), each }
    }
}

/// Nanoseconds a call, of the two sides.
#[derive(Clone, Copy)]
pub struct Beside {
    pub ours: f64,
    pub limit: f64,
}

impl Beside {
    pub fn times(&self) -> f64 {
        self.ours / self.limit
    }
}

/// Short rounds, the two sides by turns, and of each the time that a tenth of its rounds keeps within: what disturbs the
/// machine makes rounds longer, never shorter. Each closure makes so many calls, and says how long they took.
pub fn beside(
    of: Rounds,
    mut ours: impl FnMut(usize) -> Duration,
    mut limit: impl FnMut(usize) -> Duration,
) -> Beside {
    ours(1);
    limit(1);
    let (a, b): (Vec<_>, Vec<_>) = (0..of.rounds).map(|_| (ours(of.each), limit(of.each))).unzip();
    let each = |times| quickest(times).as_secs_f64() * 1e9 / of.each as f64;
    Beside { ours: each(a), limit: each(b) }
}

/// The time that a tenth of them keeps within.
pub fn quickest(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 10]
}

pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Runs it on inputs that are made before the clock starts.
pub fn timed<I, T>(inputs: Vec<I>, mut work: impl FnMut(I) -> T) -> Duration {
    let start = Instant::now();
    for input in inputs {
        black_box(work(input));
    }
    start.elapsed()
}

pub fn once<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}
