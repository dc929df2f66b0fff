//! Two threads that use the same handles, beside one.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use customer_vault::Suite;
use pollster::block_on;

use crate::common::bare::{Aes256Gcm, Bare};
use crate::common::measured;
use crate::common::rounds::{Beside, Rounds, beside};
use crate::common::table::Report;
use crate::common::worlds::{Held, NOTE_NAMES, Note2, Shipping, note, note_plan, token};

/// Calls of each thread in a round.
const CALLS: usize = 500;

/// Each of the threads does as much as one would do alone; from the first one's start to the last one's end.
fn on(threads: usize, calls: usize, work: &(impl Fn(usize) + Sync)) -> Duration {
    let (ready, first) = (Barrier::new(threads), Barrier::new(threads));
    let moments: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
        let run = || {
            scope.spawn(|| {
                ready.wait();
                // So that all are awake.
                first.wait();
                let start = Instant::now();
                work(calls);
                (start, Instant::now())
            })
        };
        let running: Vec<_> = (0..threads).map(|_| run()).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let start = moments.iter().map(|(start, _)| *start).min().unwrap();
    moments.iter().map(|(_, end)| *end).max().unwrap() - start
}

/// Time a call of all threads together, beside one thread's.
fn compare(threads: usize, calls: usize, work: &(impl Fn(usize) + Sync)) -> Beside {
    let of = if measured() { Rounds { rounds: 300, each: calls } } else { Rounds { rounds: 1, each: 2 } };
    let of = beside(of, |n| on(threads, n, work), |n| on(1, n, work));
    Beside { ours: of.ours / threads as f64, limit: of.limit }
}

pub fn run(report: &mut Report) {
    let held = Held::new(Suite::default());
    let (grant, token) = (held.grant::<Shipping>(), token(&held.vault));
    let sealed = held.sealer::<Note2>().seal(note(198), &7).unwrap();
    sealed.open(&grant, &7).unwrap();
    let bare = Bare::<Aes256Gcm>::new(&note_plan::<Note2>(198), NOTE_NAMES);
    let seals = |n: usize| {
        let mut room = bare.room();
        (0..n).for_each(|_| bare.seal(&mut room));
    };
    let opens = |n: usize| (0..n).for_each(|_| drop(black_box(&sealed).open(&grant, &7).unwrap()));
    let unlocks = |n: usize| {
        (0..n).for_each(|_| drop(block_on(held.vault.unlock::<Shipping>(&token, &held.id)).unwrap()));
    };
    let one = "one thread";
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    for threads in (1..=cores.max(2)).filter(|threads| threads.is_power_of_two()) {
        // A handle makes a million seals: a new one for each comparison.
        let sealer = held.sealer::<Note2>();
        let sealing = |n: usize| (0..n).for_each(|_| drop(sealer.seal(note(198), &7).unwrap()));
        let done = [
            ("seal", compare(threads, CALLS, &sealing)),
            ("open", compare(threads, CALLS, &opens)),
            ("unlock, hot", compare(threads, CALLS / 5, &unlocks)),
            ("bare seal, for comparison", compare(threads, CALLS, &seals)),
        ];
        for (what, of) in done {
            report.point("threads", what, threads, of);
            if threads == 2 && what.starts_with("bare") {
                report.plain(&format!("{what}, two threads"), one, of);
            } else if threads == 2 {
                report.at_least(&format!("{what}, two threads"), one, of, 1.9);
            }
        }
    }
}
