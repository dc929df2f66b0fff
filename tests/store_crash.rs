//! Every operation of a disk fails once, and the power fails at every one.
#![cfg(all(feature = "testing", feature = "redb"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]
#![allow(clippy::arithmetic_side_effects, clippy::print_stderr, reason = "a test")]

use std::io;

use customer_vault::{
    error::StoreError,
    store::{Batch, CommitError, Range, RedbStore, Store},
    testing::{DiskOperation, FaultDisk, Survivors},
};
use pollster::block_on;

/// Writes the number into two rows that must always agree, and into one of its own, which grows the file.
fn step(n: u8) -> Batch {
    let mut batch = Batch::new().unwrap();
    batch.put(b"left", vec![n]).put(b"right", vec![n; 6000]).put(&[b'n', n], vec![n; 3000]);
    if let Some(old) = n.checked_sub(3) {
        batch.delete(&[b'n', old]);
    }
    batch
}

/// Commits the numbers from `from` on, and gives the last that was acknowledged and the error that ended it.
fn run(store: &RedbStore, from: u8, to: u8) -> (Option<u8>, Option<CommitError>) {
    let mut acknowledged = from.checked_sub(1);
    for n in from..to {
        match block_on(store.commit(step(n))) {
            Ok(()) => acknowledged = Some(n),
            Err(error) => return (acknowledged, Some(error)),
        }
    }
    (acknowledged, None)
}

/// The last number that is there, of a store that is whole.
fn last(store: &RedbStore) -> Option<u8> {
    let rows = block_on(store.read(&[b"left".to_vec(), b"right".to_vec()])).unwrap();
    let n = rows[0].as_ref().map(|row| row.value[0]);
    assert_eq!(rows[1].as_ref().map(|row| row.value.clone()), n.map(|n| vec![n; 6000]), "half a batch");
    let page = block_on(store.scan(Range::prefix(b"n"), 100)).unwrap();
    let there: Vec<u8> = page.rows.iter().map(|(key, _)| key[1]).collect();
    let expected: Vec<u8> = n.map_or(vec![], |n| (n.saturating_sub(2)..=n).collect());
    assert_eq!(there, expected, "half a batch");
    n
}

/// Acknowledged is there; of what was not, at most the one that was under way.
fn check(found: Option<u8>, acknowledged: Option<u8>, what: &str) {
    let next = Some(acknowledged.map_or(0, |n| n + 1));
    assert!(
        found == acknowledged || found == next,
        "{what}: {found:?} where {acknowledged:?} was acknowledged"
    );
}

const STEPS: u8 = 7;

#[test]
fn abuse_36_a_power_failure_at_any_operation_leaves_before_or_after() {
    let mut at = 0;
    loop {
        let disk = FaultDisk::new();
        let store = disk.create().unwrap();
        disk.kill_at(at);
        let (acknowledged, error) = run(&store, 0, STEPS);
        drop(store);
        if !disk.killed() {
            assert!(error.is_none() && at > 20, "only {at} operations");
            break;
        }
        let survivors = [Survivors::None, Survivors::All].into_iter().chain((0..3).map(Survivors::Some));
        for survivors in survivors {
            let what = format!("killed at operation {at}, {survivors:?}");
            let disk = disk.after_power_failure(survivors);
            // Killed again while it recovers.
            let again: &[u64] = if survivors == Survivors::Some(0) { &[0, 2, 5, 13] } else { &[] };
            for &again in again {
                let disk = disk.after_power_failure(Survivors::All);
                disk.kill_at(again);
                drop(disk.open());
                for survivors in [Survivors::None, Survivors::Some(at)] {
                    let disk = disk.after_power_failure(survivors);
                    let store =
                        disk.open().unwrap_or_else(|error| panic!("{what}, again at {again}: {error:?}"));
                    check(last(&store), acknowledged, &what);
                }
            }
            let store = disk.open().unwrap_or_else(|error| panic!("{what}: {error:?}"));
            let found = last(&store);
            check(found, acknowledged, &what);
            let (acknowledged, error) = run(&store, found.map_or(0, |n| n + 1), STEPS + 2);
            assert!(error.is_none() && last(&store) == acknowledged, "{what}: goes on");
        }
        at += 1;
    }
}

#[test]
fn abuse_36_any_operation_that_fails_once_stops_the_store_until_it_is_opened_again() {
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        let mut at = 0;
        loop {
            let disk = FaultDisk::new();
            let store = disk.create().unwrap();
            disk.fail_once(at, kind);
            let (acknowledged, error) = run(&store, 0, STEPS);
            let Some(error) = error else {
                assert!(at > 20, "only {at} operations");
                break;
            };
            assert!(matches!(error, CommitError::Unknown | CommitError::Failed(_)), "{error:?}");
            let refusal =
                if kind == io::ErrorKind::StorageFull { StoreError::Full } else { StoreError::Closed };
            assert_eq!(block_on(store.read(&[b"left".to_vec()])), Err(refusal));
            assert_eq!(block_on(store.scan(Range::prefix(b""), 1)), Err(refusal));
            assert_eq!(block_on(store.commit(step(0))), Err(refusal.into()));
            drop(store);
            let store = disk.open().unwrap();
            let found = last(&store);
            check(found, acknowledged, "failed once");
            assert!(
                found == acknowledged || error == CommitError::Unknown,
                "failed means that it did not happen"
            );
            at += 1;
        }
    }
}

/// The disk shows what the failed sync lost. What is seen after reopening must be durable all the same.
#[test]
fn abuse_37_nothing_acknowledged_is_built_on_a_sync_that_failed() {
    let mut unknown = 0;
    for nth in 0..u64::from(STEPS) {
        let disk = FaultDisk::new();
        let store = disk.create().unwrap();
        disk.fail_once_at(DiskOperation::Sync, nth, io::ErrorKind::Other);
        let (acknowledged, error) = run(&store, 0, STEPS);
        drop(store);
        let store = disk.open().unwrap();
        let found = last(&store);
        match error {
            Some(CommitError::Unknown) => unknown += 1,
            // redb syncs once more where the file grows, before it commits.
            Some(CommitError::Failed(StoreError::Io(io::ErrorKind::Other))) => {
                assert_eq!(found, acknowledged);
            }
            other => panic!("sync {nth}: {other:?}"),
        }
        check(found, acknowledged, "reopened");
        // The power fails now: what a reader has seen is there.
        let after = disk.after_power_failure(Survivors::None).open().unwrap();
        assert_eq!(last(&after), found, "seen before the power failure, sync {nth}");
        // And so is what was acknowledged on top of it.
        let (acknowledged, error) = run(&store, found.map_or(0, |n| n + 1), STEPS + 2);
        assert!(error.is_none());
        let after = disk.after_power_failure(Survivors::None).open().unwrap();
        assert_eq!(last(&after), acknowledged, "acknowledged before the power failure, sync {nth}");
    }
    assert!(unknown > 3, "{unknown} commits whose sync failed");
}

#[test]
fn a_repair_that_fails_leaves_the_file_to_the_next_one() {
    let disk = FaultDisk::new();
    let store = disk.create().unwrap();
    let (acknowledged, _) = run(&store, 0, STEPS);
    let disk = FaultDisk::holding(disk.bytes());
    disk.fail_once_at(DiskOperation::Sync, 0, io::ErrorKind::StorageFull);
    assert_eq!(disk.open().map(drop).unwrap_err(), StoreError::Full);
    disk.fail_once_at(DiskOperation::Write, 0, io::ErrorKind::PermissionDenied);
    assert_eq!(disk.open().map(drop).unwrap_err(), StoreError::Io(io::ErrorKind::PermissionDenied));
    assert_eq!(last(&disk.open().unwrap()), acknowledged);
}
