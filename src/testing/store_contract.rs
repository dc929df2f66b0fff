//! What [`Store`] promises, as tests that run against any store.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
};

use crate::store::{
    Batch, CommitError, Expect, Key, MAX_KEY, MAX_VALUE, Page, Range, Store, Version, Versioned,
};

mod moment;
mod scans;

/// Tries each promise of [`Store`] on an empty store of its own, which `make` gives. Takes a few seconds and up to
/// 100 MiB of memory. It needs no runtime but the one that polls it, and runs its concurrent commits in one task;
/// [`store_contract_on_threads`] is the part with threads.
///
/// # Panics
///
/// Where a promise is broken, and says which.
pub async fn store_contract<S: Store>(mut make: impl FnMut() -> S) {
    reads_give_rows_in_the_order_of_the_names(&make()).await;
    a_batch_writes_all_of_its_rows_or_none(&make()).await;
    preconditions_hold_at_the_commit(&make()).await;
    a_row_made_again_matches_no_old_version(&make()).await;
    batches_without_writes_check_only(&make()).await;
    scans::names_are_bytes(&make()).await;
    scans::scans_page_in_order(&make()).await;
    scans::scans_keep_their_bounds(&make()).await;
    scans::prefixes_end_where_they_should(&make()).await;
    contents_may_be_empty_or_large(&make()).await;
    what_is_too_long_is_refused(&make()).await;
    of_concurrent_commits_one_wins(&make()).await;
    pipelined_batches_keep_their_order(&make()).await;
    a_read_is_of_one_moment(&make()).await;
    dropped_commits_are_whole(&make()).await;
    moment::pages_are_of_one_moment(&make()).await;
}

/// Counts to 400 in one row from 8 threads, while two more check that a read and a scan see whole batches. `run` runs
/// one future to its end on the thread that it is called on: `pollster::block_on`, or that of a runtime's handle.
///
/// # Panics
///
/// Where an acknowledged change is lost, or half a batch is seen.
pub fn store_contract_on_threads<S: Store>(store: &S, run: impl Fn(Task<'_>) + Sync) {
    const THREADS: u64 = 8;
    const EACH: u64 = 50;
    let working = AtomicU64::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                // Also where a check panics, or the readers would never end.
                let _done = Countdown(&working);
                run(Box::pin(async {
                    for _ in 0..EACH {
                        increment(store).await;
                    }
                }));
            });
        }
        for scanning in [false, true] {
            let working = &working;
            let run = &run;
            scope.spawn(move || {
                while working.load(Ordering::Acquire) > 0 {
                    run(Box::pin(async move {
                        let (left, right) = counters(store, scanning).await;
                        assert!(left == right, "a read or scan saw half a batch: {left} and {right}");
                    }));
                }
            });
        }
    });
    run(Box::pin(async {
        let expected = THREADS.saturating_mul(EACH);
        let (count, _) = counters(store, false).await;
        assert!(count == expected, "{count} of {expected} acknowledged increments are there");
    }));
}

/// A future that [`store_contract_on_threads`] or `witness_contract_on_threads` has run.
pub type Task<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

struct Countdown<'a>(&'a AtomicU64);

impl Drop for Countdown<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

async fn increment<S: Store>(store: &S) {
    loop {
        let rows = read(store, &[b"left", b"right"]).await;
        let old = rows.first().and_then(Option::as_ref);
        let count = old.map_or(0, number).saturating_add(1).to_be_bytes().to_vec();
        let mut batch = batch();
        batch.expect(b"left", Expect::unchanged(old)).put(b"left", count.clone()).put(b"right", count);
        match store.commit(batch).await {
            Ok(()) => return,
            Err(CommitError::Conflict) => {}
            Err(error) => fail("a commit under contention", error),
        }
    }
}

async fn counters<S: Store>(store: &S, scanning: bool) -> (u64, u64) {
    let rows: Vec<Option<Versioned>> = if scanning {
        let page = page(store, Range::prefix(b""), 10).await;
        page.rows.into_iter().map(|(_, row)| Some(row)).collect()
    } else {
        read(store, &[b"left", b"right"]).await
    };
    let count = |nth| rows.get(nth).and_then(Option::as_ref).map_or(0, number);
    (count(0), count(1))
}

fn number(row: &Versioned) -> u64 {
    row.value.as_slice().try_into().map_or(0, u64::from_be_bytes)
}

async fn reads_give_rows_in_the_order_of_the_names<S: Store>(store: &S) {
    assert!(store.read(&[]).await == Ok(vec![]), "reading no rows gives no rows");
    let written = put(store, &[(b"b", b"2"), (b"a", b"1")]).await;
    let rows = read(store, &[b"b", b"missing", b"a", b"b"]).await;
    let row = |value: &[u8]| {
        let version = written.version_of(if value == b"1" { b"a" } else { b"b" });
        Some(Versioned { version, value: value.to_vec() })
    };
    assert!(
        rows == [row(b"2"), None, row(b"1"), row(b"2")],
        "a read gives one entry for each name, in their order, with the version of the batch, repeated names too"
    );
}

async fn a_batch_writes_all_of_its_rows_or_none<S: Store>(store: &S) {
    let first = put(store, &[(b"a", b"1"), (b"b", b"1")]).await;
    let version = first.version_of(b"a");
    assert!(version != first.version_of(b"b"), "rows of one batch have versions of their own");
    let mut refused = batch();
    refused.expect(b"a", Expect::Version(version)).expect(b"c", Expect::Version(version));
    refused.put(b"a", vec![2]).delete(b"b").put(b"c", vec![2]);
    assert!(
        store.commit(refused).await == Err(CommitError::Conflict),
        "one broken precondition is a conflict"
    );
    let rows = read(store, &[b"a", b"b", b"c"]).await;
    let old = |key| Some(Versioned { version: first.version_of(key), value: b"1".to_vec() });
    assert!(rows == [old(b"a"), old(b"b"), None], "a batch that failed wrote nothing");

    let mut mixed = batch();
    mixed.put(b"c", vec![3]).delete(b"a").delete(b"missing");
    let newer = mixed.version_of(b"c");
    done(store, mixed).await;
    let rows = read(store, &[b"a", b"b", b"c"]).await;
    let new = Some(Versioned { version: newer, value: vec![3] });
    assert!(
        rows == [None, old(b"b"), new],
        "a batch puts and deletes, absent rows too, and leaves others alone"
    );
}

async fn preconditions_hold_at_the_commit<S: Store>(store: &S) {
    let absent = |key: &[u8]| {
        let mut batch = batch();
        batch.expect(key, Expect::Absent).put(key, vec![1]);
        batch
    };
    let first = absent(b"a");
    let version = first.version_of(b"a");
    done(store, first).await;
    assert!(
        store.commit(absent(b"a")).await == Err(CommitError::Conflict),
        "a row that is there is not absent"
    );

    let changed = |version: Version| {
        let mut batch = batch();
        batch.expect(b"a", Expect::Version(version)).put(b"a", vec![2]);
        batch
    };
    let second = changed(version);
    let newer = second.version_of(b"a");
    done(store, second).await;
    assert!(
        store.commit(changed(version)).await == Err(CommitError::Conflict),
        "an old version does not match"
    );
    assert!(store.commit(changed([0; 16])).await == Err(CommitError::Conflict), "zeros match no version");
    done(store, changed(newer)).await;
    let mut missing = batch();
    missing.expect(b"missing", Expect::Version([0; 16])).put(b"b", vec![1]);
    assert!(store.commit(missing).await == Err(CommitError::Conflict), "a row that is absent has no version");
}

async fn a_row_made_again_matches_no_old_version<S: Store>(store: &S) {
    let version = put(store, &[(b"a", b"same")]).await.version_of(b"a");
    let mut deletion = batch();
    deletion.delete(b"a");
    let deleted_in = deletion.version_of(b"a");
    done(store, deletion).await;
    put(store, &[(b"a", b"same")]).await;
    for old in [version, deleted_in] {
        let mut late = batch();
        late.expect(b"a", Expect::Version(old)).put(b"a", b"late".to_vec());
        let outcome = store.commit(late).await;
        assert!(
            outcome == Err(CommitError::Conflict),
            "a row that was deleted and made again matches no old version"
        );
    }
}

async fn batches_without_writes_check_only<S: Store>(store: &S) {
    done(store, batch()).await;
    let version = put(store, &[(b"a", b"1")]).await.version_of(b"a");
    let check = |expect| {
        let mut batch = batch();
        batch.expect(b"a", expect);
        store.commit(batch)
    };
    assert!(
        check(Expect::Version(version)).await == Ok(()),
        "a batch without writes checks its preconditions"
    );
    assert!(check(Expect::Absent).await == Err(CommitError::Conflict), "a batch without writes can conflict");
    let rows = read(store, &[b"a"]).await;
    assert!(rows == [Some(Versioned { version, value: b"1".to_vec() })], "a check changes no version");
}

async fn contents_may_be_empty_or_large<S: Store>(store: &S) {
    for len in [0, 1, 4095, 4096, 100_000, MAX_VALUE] {
        let value: Vec<u8> = (0..=250).cycle().take(len).collect();
        let mut batch = batch();
        batch.put(b"a", value.clone()).put(b"b", Vec::new());
        done(store, batch).await;
        let rows = read(store, &[b"a", b"b"]).await;
        let read = rows.first().and_then(Option::as_ref);
        assert!(read.is_some_and(|row| row.value == value), "{len} bytes come back as they were");
        let page = page(store, Range::prefix(b"a"), 10).await;
        assert!(page.rows.first().is_some_and(|(_, row)| row.value == value), "{len} bytes are scanned, too");
    }
}

async fn what_is_too_long_is_refused<S: Store>(store: &S) {
    let long = vec![b'a'; MAX_KEY.saturating_add(1)];
    let mut name = batch();
    name.put(b"a", vec![1]).put(&long, vec![1]);
    let mut content = batch();
    content.put(b"a", vec![0; MAX_VALUE.saturating_add(1)]);
    for batch in [name, content] {
        assert!(
            matches!(store.commit(batch).await, Err(CommitError::Failed(_))),
            "a name above MAX_KEY and a content above MAX_VALUE are refused"
        );
    }
    assert!(read(store, &[b"a"]).await == [None], "what was refused wrote nothing");
}

async fn of_concurrent_commits_one_wins<S: Store>(store: &S) {
    let version = put(store, &[(b"changed", b"old")]).await.version_of(b"changed");
    for (key, expect) in [(b"made".as_slice(), Expect::Absent), (b"changed", Expect::Version(version))] {
        let contend = |n: u8| {
            let mut batch = batch();
            batch.expect(key, expect).put(key, vec![n]).put(&[b'c', n], vec![n]);
            store.commit(batch)
        };
        let outcomes = together((0..50).map(contend).collect()).await;
        let won: Vec<u8> =
            (0..50).zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()).map(|(n, _)| n).collect();
        let [winner] = won.as_slice() else { fail("commits on one precondition with winners", won.len()) };
        let lost = outcomes.iter().filter(|outcome| **outcome == Err(CommitError::Conflict)).count();
        assert!(lost == 49, "the losers learn that it was a conflict");
        let rows = read(store, &[key]).await;
        let there = rows.into_iter().flatten().next();
        assert!(there.is_some_and(|row| row.value == [*winner]), "the row is the winner's");
        let (traces, _) = walk(store, Range::prefix(b"c"), 100).await;
        let traces: Vec<&Key> = traces.iter().filter(|name| name.len() == 2).collect();
        assert!(traces == [&vec![b'c', *winner]], "the losers wrote nothing");
        let mut clear = batch();
        clear.delete(&[b'c', *winner]);
        done(store, clear).await;
    }
}

async fn pipelined_batches_keep_their_order<S: Store>(store: &S) {
    let mut expect = Expect::Absent;
    let mut started = Vec::new();
    for n in 0..100 {
        let mut batch = batch();
        batch.expect(b"a", expect).put(b"a", vec![n]);
        expect = Expect::Version(batch.version_of(b"a"));
        started.push(store.commit(batch));
    }
    // The last first: what counts is the order of the calls. A store in which it is the order of the polling may
    // report conflicts from some batch on, and must then have written none of those after it.
    started.reverse();
    let mut outcomes = together(started).await;
    outcomes.reverse();
    let passed = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    assert!(
        outcomes.iter().skip(passed).all(|outcome| *outcome == Err(CommitError::Conflict)),
        "a batch that expects the version of one that failed must fail"
    );
    let rows = read(store, &[b"a"]).await;
    let last =
        rows.into_iter().flatten().next().map(|row| usize::from(row.value.first().copied().unwrap_or(255)));
    assert!(last == passed.checked_sub(1), "the row is that of the last batch that was acknowledged");
}

async fn a_read_is_of_one_moment<S: Store>(store: &S) {
    put(store, &[(b"left", &[0; 8]), (b"right", &[0; 8])]).await;
    let mut tasks: Vec<Task<'_>> = Vec::new();
    for n in 0..40 {
        if n % 4 == 0 {
            tasks.push(Box::pin(increment(store)));
        } else {
            tasks.push(Box::pin(async move {
                let (left, right) = counters(store, n % 2 == 0).await;
                assert!(left == right, "a read or scan is of one moment: it saw {left} and {right}");
            }));
        }
    }
    together(tasks).await;
    assert!(counters(store, false).await == (10, 10), "increments with retries lose nothing");
}

async fn dropped_commits_are_whole<S: Store>(store: &S) {
    for n in 0..20 {
        let mut batch = batch();
        batch.put(&[n, 0], vec![n]).put(&[n, 1], vec![n]);
        let mut commit = Box::pin(store.commit(batch));
        if n % 2 == 0 {
            // Started, and then given up.
            poll_fn(|context| {
                let _ = commit.as_mut().poll(context);
                Poll::Ready(())
            })
            .await;
        }
        drop(commit);
    }
    // Behind those that are still under way.
    put(store, &[(b"end", b"")]).await;
    for n in 0..20 {
        let rows = read(store, &[&[n, 0], &[n, 1]]).await;
        let there = rows.iter().filter(|row| row.is_some()).count();
        assert!(there != 1, "a commit whose future was dropped is done or not done, never half");
    }
}

fn batch() -> Batch {
    Batch::new().unwrap_or_else(|error| fail("the system's generator", error))
}

/// The batch that was committed, for the versions that it gave.
async fn put<S: Store>(store: &S, rows: &[(&[u8], &[u8])]) -> Batch {
    let mut batch = batch();
    for (key, value) in rows {
        batch.put(key, value.to_vec());
    }
    done(store, batch.clone()).await;
    batch
}

async fn done<S: Store>(store: &S, batch: Batch) {
    store.commit(batch).await.unwrap_or_else(|error| fail("a commit whose preconditions hold", error));
}

async fn read<S: Store>(store: &S, keys: &[&[u8]]) -> Vec<Option<Versioned>> {
    let keys: Vec<Key> = keys.iter().map(|key| key.to_vec()).collect();
    let rows = store.read(&keys).await.unwrap_or_else(|error| fail("a read", error));
    assert!(rows.len() == keys.len(), "a read gives one entry for each name");
    rows
}

async fn page<S: Store>(store: &S, range: Range, limit: usize) -> Page {
    store.scan(range, limit).await.unwrap_or_else(|error| fail("a scan", error))
}

/// All names of a range, and how many pages they took.
async fn walk<S: Store>(store: &S, mut range: Range, limit: usize) -> (Vec<Key>, usize) {
    let mut names: Vec<Key> = Vec::new();
    for pages in 1..=10_000 {
        let Page { rows, next } = page(store, range.clone(), limit).await;
        assert!(rows.len() <= limit, "a page has at most as many rows as asked for");
        assert!(!rows.is_empty() || next.is_none(), "a page that is not the last has a row");
        names.extend(rows.into_iter().map(|(name, _)| name));
        match next {
            Some(next) => {
                assert!(
                    names.last().is_none_or(|last| *last < next),
                    "the next page starts after the last row"
                );
                range.start = next;
            }
            None => return (names, pages),
        }
    }
    fail("paging that ends", "10,000 pages")
}

/// Polls all of them in turn until all are ready.
pub(super) async fn together<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        for (future, output) in &mut waiting {
            if output.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if waiting.iter().all(|(_, output)| output.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

#[expect(clippy::panic, reason = "a contract test fails by panicking")]
pub(super) fn fail(what: &str, error: impl std::fmt::Debug) -> ! {
    panic!("{what}: {error:?}")
}
