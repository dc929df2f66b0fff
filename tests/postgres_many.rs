//! Thousands of people in one call on PostgreSQL, from several processes at once: each is enrolled by one of them, and
//! nothing that was acknowledged is missing.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, unreachable_pub, missing_docs, dead_code, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use customer_vault::error::Misuse;
use customer_vault::store::{PostgresOptions, PostgresStore};
use customer_vault::testing::{MemoryKeeper, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;

#[path = "services/postgres.rs"]
mod server;
use server::Server;

purposes! {
    pub Shipping: Contract = 1 "shipping";
}

record! {
    pub struct Note[u64] / SealedNote / NoteView in note = "note" {
        pub name: PersonName = 1 "name", basic, for [Shipping: 30 days];
    }
}

const PEOPLE: usize = 1500;

fn everybody() -> Vec<SubjectId> {
    (0..PEOPLE).map(|number| SubjectId::new(&format!("customer {number}")).unwrap()).collect()
}

fn note(number: usize) -> Note {
    Note { name: PersonName::parse(&format!("Name of {number}")).unwrap() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_processes_enroll_store_and_unlock_the_same_thousands() {
    let server = Server::start("many", &[]);
    let url = server.url("postgres");
    let connect = async || PostgresStore::connect(PostgresOptions::new(&url).unwrap()).await.unwrap();
    let keeper = MemoryKeeper::new();
    let options = || Options::new().record::<Note>();
    // Of leases other tests tell: here all are busy for as long as they last.
    let settings = Settings::default().bound_ms(10_000).unwrap();
    let mut vaults = vec![
        options().settings(settings).create(connect().await, keeper.clone(), keeper.clone()).await.unwrap(),
    ];
    for _ in 0..2 {
        vaults.push(options().open(connect().await, keeper.clone(), keeper.clone()).await.unwrap());
    }
    for vault in vaults.clone() {
        drop(tokio::spawn(async move { vault.watch().await }));
    }
    let (me, why) = (tester(), test_ground());
    let token = vaults[0].issue::<Shipping>(&me, &why, Duration::from_secs(3600), Scope::everyone());
    let token = Arc::new(token.await.unwrap());

    // Each from another place on, so that they are in one another's way.
    let process = |number: usize, vault: Vault| {
        let token = Arc::clone(&token);
        async move {
            let (me, why) = (tester(), test_ground());
            let mut ids = everybody();
            ids.rotate_left(number * PEOPLE / 3);
            let mut enrolled = Vec::new();
            let mut left = ids.clone();
            while !left.is_empty() {
                let asked: Vec<(_, [Consent; 0])> = left.iter().map(|id| (id.clone(), [])).collect();
                let results = vault.enroll_many(&asked, &me, &why).await;
                let mut busy = Vec::new();
                for (id, result) in left.into_iter().zip(results) {
                    match result {
                        Ok(()) => enrolled.push(id),
                        Err(Error::Misuse(Misuse::AlreadyEnrolled)) => {}
                        Err(Error::Busy) => busy.push(id),
                        Err(why) => panic!("{why:?}"),
                    }
                }
                left = busy;
            }
            let sealers = vault.sealers::<Note>(&ids, &me, &why).await.unwrap();
            let seal = |(place, sealer): (usize, Result<Sealer<Note>>)| {
                sealer.unwrap().seal(note((place + number * PEOPLE / 3) % PEOPLE), &7).unwrap()
            };
            let notes: Vec<_> = sealers.into_iter().enumerate().map(seal).collect();
            let mut left: Vec<usize> = (0..PEOPLE).collect();
            while !left.is_empty() {
                let records: Vec<_> = left.iter().map(|place| (&ids[*place], &7, &notes[*place])).collect();
                let results = vault.put_many(&records, &me, &why).await;
                left =
                    left.iter().zip(results).filter(|(_, done)| done.is_err()).map(|(at, _)| *at).collect();
            }
            let grants = vault.unlock_many::<Shipping>(&token, &ids).await.unwrap();
            for (grant, note) in grants.iter().zip(&notes) {
                assert!(note.open(grant.as_ref().unwrap(), &7).unwrap().name().is_ok());
            }
            enrolled
        }
    };
    let tasks: Vec<_> =
        vaults.iter().enumerate().map(|(n, vault)| tokio::spawn(process(n, vault.clone()))).collect();
    let mut enrolled = Vec::new();
    for task in tasks {
        enrolled.extend(task.await.unwrap());
    }
    assert_eq!(enrolled.len(), PEOPLE, "each by one process");

    let some = &everybody()[..300];
    let grants = vaults[0].unlock_many::<Shipping>(&token, some).await.unwrap();
    for (number, (id, grant)) in some.iter().zip(grants).enumerate() {
        let there = vaults[0].get::<Note>(id, &7, &me, &why).await.unwrap().unwrap();
        let name = note(number).name;
        assert_eq!(there.open(&grant.unwrap(), &7).unwrap().name().unwrap().expose(), name.expose());
    }
    for vault in &vaults {
        assert!(vault.verify_log().await.unwrap().holds());
    }
}
