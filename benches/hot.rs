//! Unlocking who is remembered, beside what it cannot be had without: one commit of a log entry's two rows. In memory by
//! one and two threads; on a file, durable, by 64 tasks, beside as many commits one after the other.
//!
//! `TMPDIR` is another place for the file.
#![cfg(feature = "redb")]
#![allow(clippy::unwrap_used, clippy::as_conversions, clippy::arithmetic_side_effects)]
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::cast_precision_loss)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use customer_vault::store::{Batch, MemoryStore, RedbStore, Store};
use customer_vault::testing::{FaultStore, MemoryKeeper, test_ground, tester};
use customer_vault::value::Bytes;
use customer_vault::{Error, Options, Scope, SubjectId, Token, Vault, purposes, record};
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

const TASKS: usize = 64;

fn id(number: usize) -> SubjectId {
    SubjectId::new(&format!("customer {number}")).unwrap()
}

fn shop(store: impl Store) -> (Vault, Token) {
    let keeper = MemoryKeeper::new();
    let vault = block_on(Options::new().record::<Note>().create(store, keeper.clone(), keeper)).unwrap();
    let hour = Duration::from_secs(3600);
    let token =
        block_on(vault.issue::<Shipping>(&tester(), &test_ground(), hour, Scope::everyone())).unwrap();
    (vault, token)
}

fn enroll(vault: &Vault, people: usize) -> Vec<SubjectId> {
    let ids: Vec<SubjectId> = (0..people).map(id).collect();
    let newcomers: Vec<(SubjectId, [_; 0])> = ids.iter().map(|id| (id.clone(), [])).collect();
    block_on(vault.enroll_many(&newcomers, &tester(), &test_ground())).into_iter().for_each(Result::unwrap);
    ids
}

/// The two rows that an entry of the log takes.
fn entry(number: usize) -> Batch {
    let mut batch = Batch::new().unwrap();
    batch.put(format!("\u{7f}{number}").as_bytes(), vec![0; 150]);
    batch.put(b"\x7f", vec![0; 60]);
    batch
}

/// What this thread has used of a processor, which other programs do not slow down; `None` where the system does not say.
fn cpu() -> Option<Duration> {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(said.split(' ').next()?.parse().ok()?))
}

/// The same of all threads, to 10 ms, user and system.
fn cpu_of_all() -> Option<Duration> {
    let said = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = said.rsplit_once(") ")?;
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Duration::from_millis(ticks * 10))
}

/// How many µs of a processor one takes, the best of some rounds.
fn cost(count: usize, mut work: impl FnMut()) -> f64 {
    let rounds = (0..5).map(|_| {
        let (wall, start) = (Instant::now(), cpu());
        work();
        let used = cpu().zip(start).map_or(wall.elapsed(), |(end, start)| end.saturating_sub(start));
        used.as_secs_f64() * 1e6 / count as f64
    });
    rounds.fold(f64::MAX, f64::min)
}

/// How many a second, the best of some rounds.
fn rate(count: usize, mut work: impl FnMut()) -> f64 {
    let rounds = (0..5).map(|_| {
        let start = Instant::now();
        work();
        count as f64 / start.elapsed().as_secs_f64()
    });
    rounds.fold(0.0, f64::max)
}

/// The same by so many threads at once.
fn by_threads(threads: usize, count: usize, work: impl Fn() + Sync) -> f64 {
    rate(threads * count, || {
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(&work))));
    })
}

fn in_memory(measured: bool) {
    let (vault, token) = shop(MemoryStore::new());
    let ids = enroll(&vault, if measured { 1000 } else { 10 });
    let times = if measured { 20_000 } else { 20 };
    let bare = MemoryStore::new();
    let commit = rate(times, || (0..times).for_each(|number| block_on(bare.commit(entry(number))).unwrap()));
    let one_each = || {
        ids.iter()
            .cycle()
            .take(times)
            .for_each(|id| drop(block_on(vault.unlock::<Shipping>(&token, id)).unwrap()));
    };
    one_each();
    let unlock = by_threads(1, times, one_each);
    let again = (0..times).map(|number| id(number % ids.len())).collect::<Vec<_>>();
    let committed =
        cost(times, || (0..times).for_each(|number| block_on(bare.commit(entry(number))).unwrap()));
    // What is written of a token for another purpose is one entry, and nothing is read for it.
    let lapsed = block_on(vault.issue::<Invoicing>(
        &tester(),
        &test_ground(),
        Duration::from_secs(3600),
        Scope::everyone(),
    ));
    let lapsed = lapsed.unwrap();
    let refused = cost(times, || {
        for id in &again {
            assert!(block_on(vault.unlock::<Shipping>(&lapsed, id)).is_err());
        }
    });
    println!(
        "by processor time: a commit of two rows {committed:.2} µs, a refusal written to the log {refused:.2} µs, \
         unlock, hot {:.2} µs",
        cost(times, one_each)
    );
    println!("a commit of two rows {:.2} µs, unlock, hot {:.2} µs", 1e6 / commit, 1e6 / unlock);
    println!("unlock, hot: two threads {:.2} times one", by_threads(2, times, one_each) / unlock);
    let rounds = if measured { 50 } else { 1 };
    let many = || {
        for _ in 0..rounds {
            let given = block_on(vault.unlock_many::<Shipping>(&token, &ids)).unwrap();
            assert!(given.iter().all(Result::is_ok));
        }
    };
    let one = by_threads(1, rounds * ids.len(), many);
    let two = by_threads(2, rounds * ids.len(), many);
    println!("unlock_many, hot: {:.2} µs each; two threads {:.2} times one", 1e6 / one, two / one);
}

/// By so many tasks on two threads.
fn by_tasks<F: Future<Output = ()> + Send + 'static>(count: usize, work: impl Fn(usize) -> F) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let start = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(work(task))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    count as f64 / start.elapsed().as_secs_f64()
}

fn durable(measured: bool) {
    let folder = std::env::temp_dir().join(format!("customer-vault-hot-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let store = FaultStore::new(RedbStore::create(folder.join("vault.redb")).unwrap());
    let (vault, token) = shop(store.clone());
    let ids = Arc::new(enroll(&vault, if measured { 10_000 } else { 10 }));
    let each = if measured { 100 } else { 1 };
    let bare = RedbStore::create(folder.join("bare.redb")).unwrap();
    let next = Arc::new(AtomicUsize::new(1_000_000));
    let token = Arc::new(token);
    for round in 0..if measured { 3 } else { 1 } {
        let alone = each * 3;
        let start = Instant::now();
        (0..alone).for_each(|number| block_on(bare.commit(entry(number))).unwrap());
        let commit = alone as f64 / start.elapsed().as_secs_f64();
        let at_first = cpu_of_all();
        let unlock = by_tasks(TASKS * each, |task| {
            let (vault, token, ids) = (vault.clone(), Arc::clone(&token), Arc::clone(&ids));
            async move {
                for number in 0..each {
                    let id = ids.get((task * each + number) % ids.len()).unwrap();
                    drop(vault.unlock::<Shipping>(&token, id).await.unwrap());
                }
            }
        });
        let between = cpu_of_all();
        let before = (store.counts(), store.inner().transactions());
        let enroll = by_tasks(TASKS * each, |_| {
            let (vault, next) = (vault.clone(), Arc::clone(&next));
            async move {
                for _ in 0..each {
                    let id = id(next.fetch_add(1, Ordering::Relaxed));
                    while let Err(why) = vault.enroll(&id, [], &tester(), &test_ground()).await {
                        assert_eq!(why, Error::Busy);
                    }
                }
            }
        });
        let used = |from: Option<Duration>, to: Option<Duration>| {
            to.zip(from).map_or(0.0, |(to, from)| to.saturating_sub(from).as_secs_f64()) * 1e6
                / (TASKS * each) as f64
        };
        println!(
            "by processor time, of all threads: unlock {:.0} µs, enroll {:.0} µs",
            used(at_first, between),
            used(between, cpu_of_all())
        );
        let (used, transactions) =
            (store.counts() - before.0, store.inner().transactions().saturating_sub(before.1));
        println!(
            "enroll: {} commits, {} of them in conflict, {} reads, in {transactions} transactions",
            used.commits, used.conflicts, used.reads
        );
        println!(
            "round {round}: bare commits one after the other {commit:.0}/s; {TASKS} tasks: unlock {unlock:.0}/s \
             ({:.1} times), enroll {enroll:.0}/s ({:.1} times)",
            unlock / commit,
            enroll / commit
        );
    }
    drop((vault, bare, store));
    std::fs::remove_dir_all(folder).unwrap();
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    in_memory(measured);
    durable(measured);
}
