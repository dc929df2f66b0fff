//! Taking a grant for a subject whose way is not in memory, from a file with 100,000 subjects, beside what a grant cannot
//! be had without: one read of the same rows, and one durable commit.
//!
//! `SUBJECTS` is another number of subjects, `TMPDIR` another place for the file. It is built once a run.
#![cfg(feature = "redb")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::cast_precision_loss)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use customer_vault::store::{Batch, Key, RedbStore, Store};
use customer_vault::testing::{Call, FaultStore, MemoryKeeper, test_ground, tester};
use customer_vault::value::Bytes;
use customer_vault::{Error, Options, Scope, SubjectId, Vault, purposes, record};
use pollster::block_on;

purposes! {
    Shipping: Contract = 1 "shipping";
    Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    struct Note / SealedNote / NoteView in note = "note" {
        body: Bytes = 1 "body", basic, for [Shipping: 90 days, Invoicing: 1 year];
    }
}

fn id(number: usize) -> SubjectId {
    SubjectId::new(&format!("customer {number}")).unwrap()
}

/// So many wait for the disk together.
const THREADS: usize = 64;

fn build(vault: &Vault, subjects: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|threads| {
        for _ in 0..THREADS.min(subjects) {
            threads.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= subjects {
                        return;
                    }
                    while let Err(why) = block_on(vault.enroll(&id(number), [], &tester(), &test_ground())) {
                        assert_eq!(why, Error::Busy, "subject {number}");
                    }
                }
            });
        }
    });
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let asked = std::env::var("SUBJECTS").ok().and_then(|number| number.parse().ok());
    let subjects: usize = asked.unwrap_or(if measured { 100_000 } else { 10 });
    let rounds = if measured { 500 } else { 5 };
    let folder = std::env::temp_dir().join(format!("customer-vault-unlock-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let store = FaultStore::new(RedbStore::create(folder.join("vault.redb")).unwrap());
    let keeper = MemoryKeeper::new();
    let vault = block_on(Options::new().record::<Note>().remember(0, Duration::ZERO).create(
        store.clone(),
        keeper.clone(),
        keeper,
    ))
    .unwrap();

    let start = Instant::now();
    build(&vault, subjects);
    let (counts, transactions) = (store.counts(), store.inner().transactions());
    println!(
        "{subjects} subjects in {:.1} s: {} commits, {} of them in conflict, in {transactions} transactions",
        start.elapsed().as_secs_f64(),
        counts.commits,
        counts.conflicts,
    );

    let hour = Duration::from_secs(3600);
    let token =
        block_on(vault.issue::<Shipping>(&tester(), &test_ground(), hour, Scope::everyone())).unwrap();
    // Every path is cold: the vault remembers nobody.
    let subject = |round: usize| id(round * (subjects / rounds.min(subjects)) % subjects);

    let reads: Arc<Mutex<Vec<Vec<Key>>>> = Arc::default();
    let seen = Arc::clone(&reads);
    store.before_each(move |call| {
        if let Call::Read(keys) = call {
            seen.lock().unwrap().push(keys.to_vec());
        }
        Box::pin(std::future::ready(()))
    });
    let before = store.counts();
    for round in 0..rounds {
        drop(block_on(vault.unlock::<Shipping>(&token, &subject(round))).unwrap());
    }
    let used = store.counts() - before;
    store.without_hook();
    let per = |n: u64| n as f64 / rounds as f64;
    println!(
        "an unlock: {:.2} reads of {:.1} rows together, {:.2} commits of {:.1} rows together",
        per(used.reads),
        per(used.rows_read),
        per(used.commits),
        per(used.rows_written),
    );
    let mut reads = std::mem::take(&mut *reads.lock().unwrap());
    // The way of a subject is the longest read of its unlock.
    let longest = reads.iter().map(Vec::len).max().unwrap();
    reads.retain(|keys| keys.len() == longest);

    // By turns, so that what else the disk does falls on all.
    let (mut unlocks, mut looks, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let id = subject(round);
        unlocks.push(timed(|| drop(block_on(vault.unlock::<Shipping>(&token, &id)).unwrap())));
        let keys = &reads[round % reads.len()];
        looks.push(timed(|| drop(block_on(store.inner().read(keys)).unwrap())));
        let mut batch = Batch::new().unwrap();
        batch.put(format!("\u{7f}{round}").as_bytes(), vec![0; 200]);
        batch.put(b"\x7f", vec![0; 60]);
        commits.push(timed(|| block_on(store.inner().commit(batch)).unwrap()));
    }
    let (unlock, read, commit) = (median(unlocks), median(looks), median(commits));
    println!(
        "unlock {unlock:.0} µs; one read of its {longest} rows {read:.0} µs, one durable commit of two rows {commit:.0} µs"
    );
    println!(
        "unlock: {:.2} times the read, {:.2} times read and commit",
        unlock / read,
        unlock / (read + commit)
    );
    drop(vault);
    drop(store);
    std::fs::remove_dir_all(folder).unwrap();
}
