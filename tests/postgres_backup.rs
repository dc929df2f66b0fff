//! Backups of a vault on PostgreSQL: one moment of a table that others write to, and back into another table.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, clippy::exhaustive_enums, clippy::exhaustive_structs)]
#![allow(unreachable_pub, missing_docs, dead_code, reason = "a module of several tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use customer_vault::backup::{Backup, Manifest, Opens};
use customer_vault::error::StoreError;
use customer_vault::store::{PostgresOptions, PostgresStore, Range, Store};
use customer_vault::testing::{MemoryKeeper, grant, test_ground, tester};
use customer_vault::*;

#[path = "services/postgres.rs"]
mod server;
use server::Server;

purposes! {
    /// Deliver the parcel.
    pub Ship: Contract = 1 "ship";
}

fn id(who: usize) -> SubjectId {
    SubjectId::new(&format!("person {who}")).unwrap()
}

async fn table(server: &Server, table: &str) -> PostgresStore {
    let options = PostgresOptions::new(&server.url("postgres")).unwrap().table(table).connections(4);
    PostgresStore::connect(options).await.unwrap()
}

fn options() -> Options {
    let settings = Settings::default().height(2).unwrap().bound_ms(100).unwrap();
    Options::new().purpose::<Ship>().settings(settings)
}

async fn enroll(vault: &Vault, who: usize) {
    loop {
        match vault.enroll(&id(who), [], &tester(), &test_ground()).await {
            Ok(()) => return,
            Err(Error::Busy) => {}
            Err(why) => panic!("{why:?}"),
        }
    }
}

async fn made(vault: &Vault, base: Option<&(Vec<u8>, Vec<u8>, Manifest)>) -> (Vec<u8>, Vec<u8>, Manifest) {
    let (mut part, mut index) = (Vec::new(), Vec::new());
    let (me, why) = (tester(), test_ground());
    let mut old = base.map(|(_, index, _)| &index[..]);
    let what = match (base, &mut old) {
        (Some((.., manifest)), Some(old)) => Backup::since(manifest, old, &me, &why),
        _ => Backup::full(&me, &why),
    };
    let manifest = vault.backup(&mut part, &mut index, what).await.unwrap();
    (part, index, manifest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_restores_into_another_table() {
    let server = Server::start("backup", &[]);
    let keeper = MemoryKeeper::new();
    let (me, why) = (tester(), test_ground());
    let vault =
        options().create(table(&server, "first").await, keeper.clone(), keeper.clone()).await.unwrap();
    // A process of its own.
    let other = options().open(table(&server, "first").await, keeper.clone(), keeper.clone()).await.unwrap();
    for who in 0..20 {
        enroll(&vault, who).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let enrolling = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut who = 100;
            while !stop.load(Ordering::Acquire) {
                enroll(&other, who).await;
                who += 1;
            }
            who
        }
    });
    let mut backups = vec![made(&vault, None).await];
    for who in 0..4 {
        vault.forget(&id(who), Forget::by(&me, &why).without_grace()).await.unwrap();
        while vault.shred(&me, &why).await.is_err() {}
        backups.push(made(&vault, backups.last()).await);
    }
    stop.store(true, Ordering::Release);
    assert!(enrolling.await.unwrap() > 101, "others wrote meanwhile");
    vault.forget(&id(4), Forget::by(&me, &why)).await.unwrap();
    let parts = || backups.iter().map(|(part, ..)| &part[..]);
    let report = vault.verify_backup(parts(), &me, &why).await.unwrap();
    assert_eq!((report.opens, report.forgotten), (Opens::Now, 1), "{report}");

    let again = table(&server, "second").await;
    let cut = &backups[0].0[..backups[0].0.len() / 2];
    let (one, two) = (keeper.clone(), keeper.clone());
    options().restore(again.clone(), one, two, [cut], &me, &why).await.unwrap_err();
    let open = options().open(again.clone(), keeper.clone(), keeper.clone()).await;
    assert_eq!(open.unwrap_err(), Error::Store(StoreError::Unfinished));
    let (one, two) = (keeper.clone(), keeper.clone());
    let restored = options().restore(again, one, two, parts(), &me, &why).await.unwrap();
    for who in 0..20 {
        let opens = grant::<Ship>(&restored, &id(who)).await;
        assert_eq!(opens.is_ok(), who > 4, "person {who}: {opens:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_an_open_transaction_never_goes_back_to_the_pool() {
    let server = Server::start("moment", &[]);
    let options = PostgresOptions::new(&server.url("postgres")).unwrap().table("moment").connections(1);
    let store = PostgresStore::connect(options).await.unwrap();
    for _ in 0..3 {
        let mut moment = store.moment().await.unwrap().unwrap();
        moment.page(Range::prefix(b""), 10).await.unwrap();
        drop(moment);
        let mut batch = store::Batch::new().unwrap();
        batch.put(b"a", vec![1]);
        store.commit(batch).await.unwrap();
        assert!(store.read(&[b"a".to_vec()]).await.unwrap()[0].is_some());
    }
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    assert_eq!(server.sql("postgres", idle), "0");
}
