//! Forgetting and shredding one person and a thousand among a million on PostgreSQL, while another process enrolls a
//! hundred a second: how long it takes, how many rows it writes, and how long the slowest enrolment waits.
//!
//! `PEOPLE` is another number than a million. The server is started for the bench, in a directory below `TMPDIR`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::panic)]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "the server's file is the tests'")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use customer_vault::store::{PostgresOptions, PostgresStore};
use customer_vault::testing::{FaultStore, MemoryKeeper, test_ground, tester};
use customer_vault::value::FreeText;
use customer_vault::{Consent, Error, Forget, Options, Settings, SubjectId, Vault, purposes, record};

#[path = "../tests/services/postgres.rs"]
mod server;
use server::Server;

purposes! {
    Shipping: Contract = 1 "shipping";
    Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    struct Note[u64] / SealedNote / NoteView in note = "note" {
        text: FreeText = 1 "text", basic, for [Shipping: 90 days, Invoicing: 1 year];
    }
}

fn id(number: usize) -> SubjectId {
    SubjectId::new(&format!("customer {number}")).unwrap()
}

async fn store(server: &Server) -> FaultStore<PostgresStore> {
    let options = PostgresOptions::new(&server.url("postgres")).unwrap();
    FaultStore::new(PostgresStore::connect(options).await.unwrap())
}

/// Enrolls a hundred a second until it is told to stop, and gives whom, and how long the slowest waited.
async fn enrolls(vault: Vault, from: usize, stop: Arc<AtomicBool>) -> (usize, Duration) {
    let (start, mut done, mut slowest) = (Instant::now(), 0_u32, Duration::ZERO);
    while !stop.load(Ordering::Acquire) {
        let due = Duration::from_millis(10) * done;
        if let Some(wait) = due.checked_sub(start.elapsed()) {
            tokio::time::sleep(wait).await;
        }
        let began = Instant::now();
        let number = from + usize::try_from(done).unwrap();
        loop {
            match vault.enroll(&id(number), [], &tester(), &test_ground()).await {
                Ok(()) => break,
                Err(Error::Busy) => {}
                Err(why) => panic!("{why:?}"),
            }
        }
        slowest = slowest.max(began.elapsed());
        done += 1;
    }
    (usize::try_from(done).unwrap(), slowest)
}

async fn bench(server: &Server, people: usize) {
    let keeper = MemoryKeeper::new();
    let settings = Settings::default().bound_ms(500).unwrap().grace_days(0).unwrap();
    let store_of = store(server).await;
    let options = || Options::new().record::<Note>();
    let vault = options().settings(settings).create(store_of.clone(), keeper.clone(), keeper.clone()).await;
    let vault = vault.unwrap();
    let start = Instant::now();
    let newcomers: Vec<(_, [Consent; 0])> = (0..people).map(|number| (id(number), [])).collect();
    let enrolled = vault.enroll_many(&newcomers, &tester(), &test_ground()).await;
    assert!(enrolled.iter().all(Result::is_ok));
    println!("enrolling {people}: {:.1} s", start.elapsed().as_secs_f64());

    let other = options().open(store(server).await, keeper.clone(), keeper.clone()).await.unwrap();
    let mut newcomer = people;
    for few in [1, 1000.min(people / 4)] {
        let stop = Arc::new(AtomicBool::new(false));
        let enrolling = tokio::spawn(enrolls(other.clone(), newcomer, Arc::clone(&stop)));
        tokio::time::sleep(Duration::from_secs(1)).await;

        let gone: Vec<SubjectId> = (0..few).map(|n| id(few + n * (people / 2 / few))).collect();
        let (before, start) = (store_of.counts(), Instant::now());
        let request = Forget::by(&tester(), &test_ground());
        for receipt in vault.forget_many(&gone, request).await {
            receipt.unwrap();
        }
        let forgotten = (store_of.counts() - before, start.elapsed());
        let (before, start) = (store_of.counts(), Instant::now());
        let receipt = loop {
            match vault.shred(&tester(), &test_ground()).await {
                Ok(receipt) => break receipt,
                Err(Error::Busy) => {}
                Err(why) => panic!("{why:?}"),
            }
        };
        let shredded = (store_of.counts() - before, start.elapsed());
        stop.store(true, Ordering::Release);
        let (enrolled, slowest) = enrolling.await.unwrap();
        assert_eq!(receipt.subjects, few);
        for (what, (counts, took)) in [("forgetting", forgotten), ("shredding", shredded)] {
            println!(
                "{what} {few} among {people}: {:.2} s, {} commits, {} rows written, {} conflicts",
                took.as_secs_f64(),
                counts.commits,
                counts.rows_written,
                counts.conflicts
            );
        }
        println!("meanwhile {enrolled} were enrolled, the slowest in {} ms", slowest.as_millis());
        for number in newcomer..newcomer + enrolled {
            vault.sealer::<Note>(&id(number), &tester(), &test_ground()).await.expect("enrolled and there");
        }
        newcomer += enrolled;
    }
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let asked = std::env::var("PEOPLE").ok().and_then(|number| number.parse().ok());
    let people: usize = asked.unwrap_or(if measured { 1_000_000 } else { 100 });
    let server = Server::start("million", &["max_wal_size=4GB"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench(&server, people));
}
