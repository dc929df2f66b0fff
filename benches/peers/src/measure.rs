//! Many short rounds, all sides by turns, and of each the time that a tenth of its rounds keeps within: what disturbs the
//! machine makes rounds longer, never shorter.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    SealField,
    OpenField,
    SealRecord,
    OpenRecord,
    Token,
}

/// With which keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// customer-vault: a key for each value, in a lockbox for each purpose and day.
    Ours,
    /// One key, whatever is sealed and whoever reads.
    One,
    /// A data key for each value, wrapped under one key.
    EachValue,
    /// A data key for each part of a value, wrapped for each purpose.
    EachPurpose,
    /// A token's.
    Token,
}

/// So many times in a row, and how long all of them took.
pub type Work = Box<dyn FnMut(usize) -> Duration>;

/// One crate, used in one way.
pub struct Side {
    pub job: Job,
    pub keys: Keys,
    /// As in the lock file.
    pub krate: &'static str,
    pub way: &'static str,
    /// Of what is stored, beyond the plaintext; of a token all.
    pub bytes: usize,
    pub work: Work,
}

/// Makes inputs first, then does the work on each: the making is not measured.
pub fn timed<I, T>(inputs: Vec<I>, mut work: impl FnMut(I) -> T) -> Duration {
    let start = Instant::now();
    for input in inputs {
        black_box(work(input));
    }
    start.elapsed()
}

/// The same call again and again.
pub fn again<T>(mut call: impl FnMut() -> T + 'static) -> Work {
    Box::new(move |times| timed(vec![(); times], |()| call()))
}

pub struct Measured {
    pub side: Side,
    /// Of one time.
    pub nanoseconds: f64,
}

/// The most rounds of each side, and for how long one job goes on at most.
const ROUNDS: usize = 2000;
/// A round lasts about so long.
const ROUND: Duration = Duration::from_micros(100);
const MOST: usize = 50;

/// All sides of one job.
pub fn by_turns(sides: Vec<Side>, at_most: Duration) -> Vec<Measured> {
    let mut sides: Vec<(Side, usize, Vec<Duration>)> = sides
        .into_iter()
        .map(|mut side| {
            (side.work)(5);
            let one = (0..5).map(|_| (side.work)(1)).min().unwrap_or_default().max(Duration::from_nanos(1));
            let times = (ROUND.as_nanos() / one.as_nanos()).clamp(1, MOST as u128) as usize;
            (side, times, Vec::with_capacity(ROUNDS))
        })
        .collect();
    let start = Instant::now();
    for round in 0..ROUNDS {
        for (side, times, took) in &mut sides {
            took.push((side.work)(*times));
        }
        if round >= 50 && start.elapsed() > at_most {
            break;
        }
    }
    sides
        .into_iter()
        .map(|(side, times, mut took)| {
            took.sort_unstable();
            Measured { side, nanoseconds: took[took.len() / 10].as_secs_f64() * 1e9 / times as f64 }
        })
        .collect()
}
