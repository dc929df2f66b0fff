//! Commits that come late, come to no standby, or hang on somebody's lock; a store that goes back under running processes;
//! what a staged change needs of its transaction.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, clippy::print_stderr, reason = "a test")]
#![allow(unreachable_pub, missing_docs, dead_code, reason = "a module of several tests")]

use std::time::Duration;

use customer_vault::error::{Erased, Misuse, RolledBack, StoreError};
use customer_vault::store::deadpool_postgres::tokio_postgres::{self, Client, NoTls};
use customer_vault::store::{PostgresOptions, PostgresStore, Range, Store as _};
use customer_vault::testing::{MemoryKeeper, test_ground, tester};
use customer_vault::value::{Email, PersonName};
use customer_vault::*;

#[path = "services/postgres.rs"]
mod server;
use server::Server;

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
    /// Recommend goods.
    pub Recommendation: Contract = 2 "recommendation";
}

record! {
    /// One order.
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// To whom it goes.
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days];
        /// For questions.
        pub email: Email = 2 "email", basic, for [Shipping: 90 days];
    }
}

mod forged {
    use super::*;
    record! {
        /// With the label of another, and for another purpose; no vault was opened with it.
        pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
            /// For questions.
            pub email: Email = 2 "email", basic, for [Recommendation: 1 days];
        }
    }
}

fn order() -> Order {
    Order { name: PersonName::parse("Ada Lovelace").unwrap(), email: Email::parse("a@example.com").unwrap() }
}

fn id(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

fn forget() -> Forget {
    Forget::by(&tester(), &test_ground())
}

async fn client(server: &Server) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Gives up waiting for an answer after a second.
fn impatient(server: &Server) -> PostgresOptions {
    let options = PostgresOptions::new(&server.url("postgres")).unwrap().table("vault");
    options.wait_for_answer(Duration::from_secs(1))
}

async fn vault(server: &Server) -> (Vault, MemoryKeeper) {
    let keeper = MemoryKeeper::new();
    let store = PostgresStore::connect(impatient(server)).await.unwrap();
    let settings = Settings::default().bound_ms(300).unwrap().height(1).unwrap();
    let options = Options::new().record::<Order>().purpose::<Recommendation>().settings(settings);
    (options.create(store, keeper.clone(), keeper.clone()).await.unwrap(), keeper)
}

async fn another(server: &Server, keeper: &MemoryKeeper) -> Result<Vault> {
    let store = PostgresStore::connect(impatient(server)).await.unwrap();
    let options = Options::new().record::<Order>().purpose::<Recommendation>();
    options.open(store, keeper.clone(), keeper.clone()).await
}

/// From here on a commit waits for a standby that does not come; `None` lets it go on.
async fn waits_for(server: &Server, standby: Option<&str>) {
    let names = standby.unwrap_or_default();
    server.sql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
    server.sql("postgres", "SELECT pg_reload_conf()");
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_comes_late_is_our_own_and_not_somebody_elses() {
    let server = Server::start("late", &[]);
    let (vault, _) = vault(&server).await;
    let (clerk, ground) = (tester(), test_ground());
    for name in ["a", "b"] {
        vault.enroll(&id(name), [], &clerk, &ground).await.unwrap();
    }
    let mut client = client(&server).await;
    // Commits wait, far longer than their callers do.
    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute("LOCK TABLE vault IN SHARE MODE").await.unwrap();
    let (one, two, three) = (vault.clone(), vault.clone(), vault.clone());
    let forgetting = tokio::spawn(async move { one.forget(&id("a"), forget()).await });
    let enrolling = tokio::spawn(async move { two.enroll(&id("new"), [], &tester(), &test_ground()).await });
    let withdrawing =
        tokio::spawn(async move { three.withdraw::<Shipping>(&id("b"), &tester(), &test_ground()).await });
    tokio::time::sleep(Duration::from_millis(3200)).await;
    transaction.commit().await.unwrap();
    forgetting.await.unwrap().expect("forgotten now, and never before");
    enrolling.await.unwrap().expect("enrolled now, and never before");
    withdrawing.await.unwrap().expect("withdrawn now, and never before");
    assert!(vault.verify_log().await.unwrap().holds());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_commit_waits_for_a_standby_its_outcome_is_unknown_and_not_nothing() {
    let server = Server::start("waiting", &[]);
    let (vault, _) = vault(&server).await;
    let (clerk, ground) = (tester(), test_ground());
    vault.enroll(&id("a"), [], &clerk, &ground).await.unwrap();
    let mut staged = vault.staged().forget(&id("a"), forget()).await.unwrap();
    let mut client = client(&server).await;
    waits_for(&server, Some("nobody")).await;
    let transaction = client.transaction().await.unwrap();
    staged.run(&transaction).await.unwrap();
    let commit = tokio::time::timeout(Duration::from_secs(1), transaction.commit()).await;
    assert!(commit.is_err(), "it waits for the standby");
    let undecided = staged.finish().await.unwrap_err();
    assert_eq!(undecided, Error::Store(StoreError::Unknown), "it may come");
    waits_for(&server, None).await;
    let receipt = staged.finish().await.unwrap();
    assert!(receipt.witnessed);
    let refused = vault.sealer::<Order>(&id("a"), &clerk, &ground).await.unwrap_err();
    assert_eq!(refused, Error::Erased(Erased::Forgotten));
    assert_eq!(staged.finish().await.unwrap(), receipt, "it may be asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn finishing_a_transaction_that_is_not_committed_makes_sure_that_it_never_is() {
    let server = Server::start("never", &[]);
    let (vault, _) = vault(&server).await;
    let (clerk, ground) = (tester(), test_ground());
    let mut staged = vault.staged().enroll(&id("a"), [], &clerk, &ground).await.unwrap();
    assert_eq!(staged.finish().await.unwrap_err(), Error::Busy, "nothing was run");
    let mut client = client(&server).await;
    let transaction = client.transaction().await.unwrap();
    assert_eq!(staged.run(&transaction).await.unwrap_err(), Error::Busy, "and nothing comes any more");
    drop(transaction);
    assert!(vault.sealer::<Order>(&id("a"), &clerk, &ground).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staged_change_is_durable_whatever_the_shops_role_has_set() {
    let mut server =
        Server::start("lax-role", &["wal_writer_delay=10s", "bgwriter_delay=10s", "autovacuum=off"]);
    let (vault, keeper) = vault(&server).await;
    let (clerk, ground) = (tester(), test_ground());
    vault.enroll(&id("a"), [], &clerk, &ground).await.unwrap();
    server.sql("postgres", "ALTER ROLE shop SET synchronous_commit = off");
    let mut client = client(&server).await;
    let mut enrolment = vault.staged().enroll(&id("new"), [], &clerk, &ground).await.unwrap();
    let transaction = client.transaction().await.unwrap();
    enrolment.run(&transaction).await.unwrap();
    transaction.commit().await.unwrap();
    enrolment.finish().await.unwrap();
    let mut staged = vault.staged().forget(&id("a"), forget()).await.unwrap();
    let transaction = client.transaction().await.unwrap();
    staged.run(&transaction).await.unwrap();
    transaction.commit().await.unwrap();
    assert!(staged.finish().await.unwrap().witnessed);
    tokio::task::block_in_place(|| {
        server.kill();
        server.resume();
    });
    let vault = another(&server, &keeper).await.unwrap();
    vault.sealer::<Order>(&id("new"), &clerk, &ground).await.expect("enrolled");
    let refused = vault.sealer::<Order>(&id("a"), &clerk, &ground).await.unwrap_err();
    assert_eq!(refused, Error::Erased(Erased::Forgotten));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_cut_off_while_it_waits_for_a_standby_is_not_acknowledged() {
    for how in ["pg_cancel_backend", "pg_terminate_backend"] {
        let server = Server::start(&format!("cut-{how}"), &[]);
        let (vault, _) = vault(&server).await;
        vault.enroll(&id("a"), [], &tester(), &test_ground()).await.unwrap();
        waits_for(&server, Some("nobody")).await;
        let enrolling =
            tokio::spawn(async move { vault.enroll(&id("new"), [], &tester(), &test_ground()).await });
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            server.sql("postgres", &format!("SELECT {how}(pid) {waiting}"));
        }
        let acknowledged = tokio::time::timeout(Duration::from_secs(2), enrolling).await;
        let acknowledged = matches!(acknowledged, Ok(Ok(Ok(()))));
        assert!(!acknowledged, "{how}: no standby ever had it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_back_under_a_running_process_ends_its_leases() {
    let server = Server::start("went-back", &[]);
    let (vault, keeper) = vault(&server).await;
    let (clerk, ground) = (tester(), test_ground());
    for name in ["bob", "carol", "dan"] {
        vault.enroll(&id(name), [], &clerk, &ground).await.unwrap();
    }
    let sealer = vault.sealer::<Order>(&id("bob"), &clerk, &ground).await.unwrap();
    let sealed = sealer.seal(order(), &7).unwrap();
    let other = another(&server, &keeper).await.unwrap();
    let watching = tokio::spawn({
        let vault = vault.clone();
        async move { vault.watch().await }
    });
    let grant = testing::grant::<Shipping>(&vault, &id("bob")).await.unwrap();
    server.sql("postgres", "CREATE TABLE copy AS SELECT * FROM vault");
    for name in ["carol", "dan"] {
        vault.forget(&id(name), forget()).await.unwrap();
    }
    assert!(sealed.open(&grant, &7).is_ok());
    server.sql("postgres", "BEGIN; DELETE FROM vault; INSERT INTO vault SELECT * FROM copy; COMMIT");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(watching.await.unwrap().unwrap_err(), Error::RolledBack(RolledBack::Store));
    // A process that has not seen what was lost goes on.
    drop(other.forget(&id("bob"), forget()).await);
    assert!(sealed.open(&grant, &7).is_err());
    let refused = vault.forget(&id("bob"), forget()).await.unwrap_err();
    assert_eq!(refused, Error::RolledBack(RolledBack::Store));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forget_waits_for_a_shops_transaction_and_an_idle_one_is_ended() {
    let server = Server::start("idle", &[]);
    let (vault, _) = vault(&server).await;
    let (clerk, ground) = (tester(), test_ground());
    vault.enroll(&id("a"), [], &clerk, &ground).await.unwrap();
    let sealer = vault.sealer::<Order>(&id("a"), &clerk, &ground).await.unwrap();
    let sealed = sealer.seal(order(), &7).unwrap();
    let staged = vault.staged().put(&id("a"), &7, &sealed, &clerk, &ground).await.unwrap();
    let mut client = client(&server).await;
    let transaction = client.transaction().await.unwrap();
    staged.run(&transaction).await.unwrap();
    let idle = transaction.query_one("SHOW idle_in_transaction_session_timeout", &[]).await.unwrap();
    assert_eq!(idle.get::<_, &str>(0), "15s");
    let waiting = vault.freeze(&clerk, &ground).await.unwrap_err();
    assert_eq!(waiting, Error::Store(StoreError::Timeout), "nothing was done, and it is said");
    let busy = server.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
    assert_eq!(busy, "0", "nothing is left waiting at the server");
    transaction.rollback().await.unwrap();
    vault.freeze(&clerk, &ground).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_outside_a_transaction_are_refused_before_they_do_anything() {
    let server = Server::start("outside", &[]);
    let (vault, _) = vault(&server).await;
    let (clerk, ground) = (tester(), test_ground());
    let client = client(&server).await;
    let mut staged = vault.staged().enroll(&id("half"), [], &clerk, &ground).await.unwrap();
    let first = &staged.statements()[0];
    assert!(first.parameters.is_empty());
    let refused = client.query_typed(&first.sql, &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "25P01");
    assert_eq!(staged.finish().await.unwrap_err(), Error::Busy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_has_lost_its_log_is_behind_and_an_archive_is_no_standby() {
    let small = ["max_slot_wal_keep_size=16MB", "wal_keep_size=0", "min_wal_size=32MB", "max_wal_size=32MB"];
    let server = Server::start("slots", &small);
    let store = PostgresStore::connect(impatient(&server)).await.unwrap();
    store.copies_are_current().await.unwrap();
    server.sql("postgres", "SELECT pg_create_physical_replication_slot('s1', true)");
    server.sql("postgres", "CREATE TABLE t (a int)");
    assert_eq!(store.copies_are_current().await, Err(StoreError::Behind));
    for _ in 0..6 {
        for sql in ["INSERT INTO t VALUES (1)", "SELECT pg_switch_wal()", "CHECKPOINT"] {
            server.sql("postgres", sql);
        }
    }
    assert_eq!(server.sql("postgres", "SELECT wal_status FROM pg_replication_slots"), "lost");
    assert_eq!(store.copies_are_current().await, Err(StoreError::Behind));
    server.sql("postgres", "SELECT pg_drop_replication_slot('s1')");

    let archive = server::directory("archive");
    let mut receiving = server::unprivileged("pg_receivewal")
        .args(["-h", "127.0.0.1", "-p", &server.port.to_string(), "-U", "shop", "-D"])
        .arg(&archive)
        .spawn()
        .unwrap();
    while server.sql("postgres", "SELECT count(*) FROM pg_stat_replication") == "0" {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let current = store.copies_are_current().await;
    receiving.kill().unwrap();
    receiving.wait().unwrap();
    drop(std::fs::remove_dir_all(archive));
    assert_eq!(current, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_of_a_server_that_takes_no_writes_is_refused() {
    let server = Server::start("scan", &[]);
    let store = PostgresStore::connect(impatient(&server)).await.unwrap();
    let mut batch = store::Batch::new().unwrap();
    batch.put(b"a", vec![1]);
    store.commit(batch).await.unwrap();
    server.sql("postgres", "ALTER SYSTEM SET default_transaction_read_only = on");
    server.sql("postgres", "SELECT pg_reload_conf()");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(store.scan(Range::prefix(b""), 10).await.unwrap_err(), StoreError::ReadOnly);
}

#[tokio::test]
async fn an_address_elsewhere_is_not_this_machine_whatever_its_name_says() {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // No address of this machine's network is known here: an address of documentation, which nobody answers.
    let url = format!("host=localhost hostaddr=192.0.2.1 port={port} user=shop dbname=d connect_timeout=1");
    let options = PostgresOptions::new(&url).unwrap().certificate_authorities("");
    // Asked for TLS it has nobody to trust; without it would have tried to connect.
    assert_eq!(PostgresStore::connect(options).await.unwrap_err(), StoreError::Settings);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_counts_for_records_that_the_vault_was_opened_with() {
    let server = Server::start("forged", &[]);
    let (vault, _) = vault(&server).await;
    let (clerk, ground, hour) = (tester(), test_ground(), Duration::from_secs(600));
    let token = vault.issue::<Recommendation>(&clerk, &ground, hour, Scope::everyone()).await.unwrap();
    let mail = Email::parse("ada@example.com").unwrap();
    assert!(vault.index::<order::email>(&token, &mail).await.is_err());
    let forged = vault.index::<forged::order::email>(&token, &mail).await;
    assert_eq!(forged.unwrap_err(), Error::Misuse(Misuse::UnknownRecord));
}
