//! Invariant 7: a crash, a failed call to store, keeper or witness, and a dropped future lose nothing that was
//! acknowledged, and the next call or open finishes what was begun.
#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, reason = "a test")]
#![allow(missing_docs, unreachable_pub, reason = "a test")]

#[cfg(feature = "redb")]
#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/faults.rs"]
mod faults;
#[path = "crash/matrix.rs"]
mod matrix;
#[path = "crash/operations.rs"]
mod operations;
#[path = "crash/trouble.rs"]
mod trouble;
#[path = "crash/world.rs"]
mod world;

use std::cell::Cell;
use std::io::ErrorKind;

use customer_vault::error::StoreError;
use customer_vault::testing::{Call, CommitFault};

use faults::KeeperFault;
use matrix::{Cases, Stage};
use operations::{operation, operations};

const COMMIT_FAULTS: [CommitFault; 5] = [
    CommitFault::Failed(StoreError::Full),
    CommitFault::UnknownNotDone,
    CommitFault::UnknownDone,
    CommitFault::KilledBefore,
    CommitFault::KilledAfter,
];

const KEEPER_FAULTS: [KeeperFault; 4] =
    [KeeperFault::FailsBefore, KeeperFault::FailsAfter, KeeperFault::KilledBefore, KeeperFault::KilledAfter];

#[test]
fn abuse_36_every_commit_goes_wrong_once() {
    let mut cases = Cases::default();
    for operation in operations() {
        let stage = Stage::new(operation, 1);
        for nth in 0..stage.calls().commits {
            for fault in COMMIT_FAULTS {
                cases.case(&stage, (nth, fault), |p| p.store.fail_commit(nth, fault));
            }
        }
    }
    cases.end(200);
}

/// The commit's outcome is not known, and the read that is to find it out fails.
#[test]
fn abuse_36_every_commit_ends_unknown_and_cannot_be_looked_up() {
    let mut cases = Cases::default();
    for operation in operations() {
        let stage = Stage::new(operation, 1);
        for nth in 0..stage.calls().commits {
            for fault in [CommitFault::UnknownNotDone, CommitFault::UnknownDone] {
                cases.case(&stage, (nth, fault), |p| {
                    let (store, left) = (p.store.clone(), std::sync::Mutex::new(Some(nth)));
                    p.store.before_each(move |call| {
                        if matches!(call, Call::Commit(_)) {
                            let mut left = left.lock().unwrap();
                            if *left == Some(0) {
                                store.fail_commit(0, fault);
                                store.fail_read(0, StoreError::Closed);
                            }
                            *left = left.and_then(|left| left.checked_sub(1));
                        }
                        Box::pin(std::future::ready(()))
                    });
                });
            }
        }
    }
    cases.end(80);
}

#[test]
fn abuse_36_every_read_fails_once() {
    let mut cases = Cases::default();
    for operation in operations() {
        let stage = Stage::new(operation, 1);
        for nth in 0..stage.calls().looks {
            cases.case(&stage, nth, |p| p.store.fail_read(nth, StoreError::Io(ErrorKind::Interrupted)));
        }
    }
    cases.end(100);
}

#[test]
fn abuse_36_every_call_to_keeper_and_witness_goes_wrong_once() {
    let mut cases = Cases::default();
    for operation in operations() {
        let stage = Stage::new(operation, 1);
        for nth in 0..stage.calls().keeper {
            for fault in KEEPER_FAULTS {
                cases.case(&stage, (nth, fault), |p| p.keeper.fail(nth, fault));
            }
        }
    }
    cases.end(100);
}

#[test]
fn abuse_36_killed_twice_in_a_row() {
    let mut cases = Cases::default();
    for name in ["forget", "expire", "shred"] {
        let stage = Stage::new(operation(name), if name == "shred" { 2 } else { 1 });
        let commits = stage.calls().commits;
        for (first, second) in (0..commits).flat_map(|first| (0..commits).map(move |second| (first, second)))
        {
            // Where nothing is left of the process, just after one commit is just before the next.
            let what = format!("killed after commits {first} and {second}");
            cases.check(format!("{name}: {what}"), || {
                let mut place = stage.place();
                place.store.fail_commit(first, CommitFault::KilledAfter);
                stage.run(&place);
                place.heal();
                place.open().unwrap();
                place.store.fail_commit(second, CommitFault::KilledAfter);
                let outcome = stage.run(&place);
                let acknowledged = outcome == Some(Ok(()));
                // What was done by the first call is no passing error of the second.
                stage.settle_down(&mut place, &what, acknowledged.then_some(Ok(())));
            });
        }
    }
    cases.end(100);
}

#[test]
fn a_future_dropped_anywhere_is_a_crash_without_an_end() {
    let mut cases = Cases::default();
    for operation in operations() {
        let stage = Stage::new(operation, 1);
        let over = Cell::new(false);
        for pending in 0.. {
            if over.get() {
                break;
            }
            assert!(pending < 1000, "it is dropped before it has done anything");
            cases.check(format!("{}: pending {pending} times", stage.operation.name), || {
                let mut place = stage.place();
                place.slow(true);
                let outcome = stage.run_for(&place, pending);
                over.set(outcome.is_some());
                stage.settle_down(&mut place, &format!("pending {pending} times"), outcome);
            });
        }
    }
    cases.end(200);
}
