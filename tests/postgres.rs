//! The store on PostgreSQL keeps what the port promises, and says clearly what is wrong.
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

use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use customer_vault::error::StoreError;
use customer_vault::store::deadpool_postgres::tokio_postgres;
use customer_vault::store::{Batch, CommitError, PostgresOptions, PostgresStore, Range, Store};
use customer_vault::testing::{store_contract, store_contract_on_threads};

#[path = "services/postgres.rs"]
mod server;
use server::Server;

/// One server for the tests that leave it standing.
fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("store", &[]))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

/// The name of a table that no other test has.
fn table() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("vault_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn options(server: &Server) -> PostgresOptions {
    PostgresOptions::new(&server.url("postgres")).unwrap().table(&table())
}

fn put(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new().unwrap();
    batch.put(key, value.to_vec());
    batch
}

async fn get(store: &PostgresStore, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(store.read(&[key.to_vec()]).await?.remove(0).map(|row| row.value))
}

async fn why(options: PostgresOptions) -> StoreError {
    PostgresStore::connect(options).await.map(drop).unwrap_err()
}

#[test]
fn postgres_keeps_the_contract() {
    let runtime = runtime();
    runtime.block_on(store_contract(|| {
        let connecting = PostgresStore::connect(options(shared()).connections(8));
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(connecting)).unwrap()
    }));
    let store = runtime.block_on(PostgresStore::connect(options(shared()))).unwrap();
    store_contract_on_threads(&store, |task| runtime.block_on(task));
}

#[tokio::test]
async fn the_table_is_made_once_by_however_many_and_found_again() {
    let name = table();
    let options = || {
        let options = PostgresOptions::new(&shared().url("postgres")).unwrap();
        options.schema("shop_vault").table(&name).connections(1)
    };
    let made = tokio::join!(
        PostgresStore::connect(options()),
        PostgresStore::connect(options()),
        PostgresStore::connect(options()),
        PostgresStore::connect(options()),
    );
    let (a, b) = (made.0.unwrap(), made.1.unwrap());
    made.2.unwrap();
    made.3.unwrap();
    a.commit(put(b"a", b"1")).await.unwrap();
    assert_eq!(get(&b, b"a").await, Ok(Some(b"1".to_vec())));
    let found = PostgresStore::connect(options()).await.unwrap();
    assert_eq!(get(&found, b"a").await, Ok(Some(b"1".to_vec())));
    let all = found.scan(Range { start: Vec::new(), end: vec![0xFF; 200] }, 10).await.unwrap();
    assert_eq!(all.rows.len(), 1, "the row that says what the table is, is none of the vault's");
}

#[tokio::test]
async fn a_table_of_somebody_else_is_refused_and_left_alone() {
    let server = shared();
    for (columns, rows) in [
        ("k bytea primary key, v bytea not null", ""),
        ("k bytea primary key, x bytea not null, v text not null", ""),
        ("k bytea primary key, x bytea not null, v bytea not null, more int", ""),
        ("k bytea primary key, x bytea not null, v bytea not null", "('a', 'b', 'c')"),
        (
            "k bytea primary key, x bytea not null, v bytea not null",
            "(decode(repeat('ff', 66), 'hex'), 'b', 'customer-vault table 2')",
        ),
    ] {
        let name = table();
        server.sql("postgres", &format!("CREATE TABLE {name} ({columns})"));
        if !rows.is_empty() {
            server.sql("postgres", &format!("INSERT INTO {name} VALUES {rows}"));
        }
        let before = server.sql("postgres", &format!("SELECT * FROM {name}"));
        let options = PostgresOptions::new(&server.url("postgres")).unwrap().table(&name);
        assert_eq!(why(options).await, StoreError::Foreign, "{columns} {rows}");
        assert_eq!(server.sql("postgres", &format!("SELECT * FROM {name}")), before);
    }
    let name = table();
    server.sql(
        "postgres",
        &format!("CREATE VIEW {name} AS SELECT ''::bytea AS k, ''::bytea AS x, ''::bytea AS v"),
    );
    let options = PostgresOptions::new(&server.url("postgres")).unwrap().table(&name);
    assert_eq!(why(options).await, StoreError::Foreign, "a view");
}

#[tokio::test]
async fn a_database_that_is_down_or_goes_away_is_said_and_comes_back() {
    let port = server::free_port();
    let nowhere = format!("postgres://shop@127.0.0.1:{port}/postgres");
    assert_eq!(why(PostgresOptions::new(&nowhere).unwrap()).await, StoreError::Unreachable);
    assert_eq!(why(PostgresOptions::new(&shared().url("nothing")).unwrap()).await, StoreError::Empty);

    let mut server = Server::start("goes-away", &[]);
    let store = PostgresStore::connect(options(&server).connections(2)).await.unwrap();
    store.commit(put(b"a", b"1")).await.unwrap();
    server.stop();
    assert_eq!(get(&store, b"a").await, Err(StoreError::Unreachable));
    let refused = store.commit(put(b"a", b"2")).await.unwrap_err();
    assert_eq!(refused, CommitError::Failed(StoreError::Unreachable), "nothing was sent");
    server.resume();
    assert_eq!(get(&store, b"a").await, Ok(Some(b"1".to_vec())), "no new handle is needed");
    store.commit(put(b"a", b"3")).await.unwrap();

    // Connections that were cut while they lay in the pool.
    server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'shop'");
    assert_eq!(get(&store, b"a").await, Ok(Some(b"3".to_vec())), "a read is made again");
}

/// Commits one after the other, and what the store acknowledged.
async fn count(store: &PostgresStore, name: u8, stop: &std::sync::atomic::AtomicBool) -> (u64, u64) {
    let (mut acknowledged, mut sent) = (0_u64, 0_u64);
    while !stop.load(Ordering::Acquire) {
        sent += 1;
        match store.commit(put(&[name], &sent.to_be_bytes())).await {
            Ok(()) => acknowledged = sent,
            Err(CommitError::Unknown | CommitError::Failed(_)) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(CommitError::Conflict) => panic!("nothing was expected"),
        }
    }
    (acknowledged, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_a_server_that_is_killed() {
    // Whatever the database thinks of durability.
    let mut server = Server::start("killed", &["synchronous_commit=off"]);
    let store = PostgresStore::connect(options(&server)).await.unwrap();
    for _ in 0..3 {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let writers: Vec<_> = (0..8)
            .map(|name| {
                let (store, stop) = (store.clone(), std::sync::Arc::clone(&stop));
                tokio::spawn(async move { count(&store, name, &stop).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(700)).await;
        tokio::task::block_in_place(|| server.kill());
        stop.store(true, Ordering::Release);
        let mut counts = Vec::new();
        for writer in writers {
            counts.push(writer.await.unwrap());
        }
        tokio::task::block_in_place(|| server.resume());
        for (name, (acknowledged, sent)) in (0..).zip(counts) {
            let there = get(&store, &[name]).await.unwrap().unwrap();
            let there = u64::from_be_bytes(there.try_into().unwrap());
            assert!(
                acknowledged > 0 && (acknowledged..=sent).contains(&there),
                "{acknowledged} {there} {sent}"
            );
        }
    }
}

#[tokio::test]
async fn a_commit_is_serializable_and_durable_whatever_the_database_has_set() {
    let server = shared();
    let name = table();
    server.sql("postgres", "CREATE DATABASE lax");
    for setting in [
        "synchronous_commit = off",
        "default_transaction_isolation = 'read committed'",
        "default_transaction_deferrable = on",
    ] {
        server.sql("postgres", &format!("ALTER DATABASE lax SET {setting}"));
    }
    let options = PostgresOptions::new(&server.url("lax")).unwrap().table(&name);
    let store = PostgresStore::connect(options.clone()).await.unwrap();
    server.sql("lax", "CREATE TABLE seen (isolation text, durable text)");
    server.sql(
        "lax",
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO seen VALUES \
         (current_setting(''transaction_isolation''), current_setting(''synchronous_commit'')); RETURN NEW; END'",
    );
    server.sql(
        "lax",
        &format!("CREATE TRIGGER see BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION see()"),
    );
    store.commit(put(b"a", b"1")).await.unwrap();
    // A stronger promise of the database's is kept.
    server.sql("lax", "ALTER DATABASE lax SET synchronous_commit = remote_apply");
    let store = PostgresStore::connect(options).await.unwrap();
    store.commit(put(b"b", b"1")).await.unwrap();
    let seen = server.sql("lax", "SELECT * FROM seen");
    assert_eq!(seen, "serializable|on\nserializable|remote_apply");
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_said_to_be_read_only() {
    let server = Server::start("read-only", &[]);
    let opened = options(&server);
    let store = PostgresStore::connect(opened.clone()).await.unwrap();
    store.commit(put(b"a", b"1")).await.unwrap();
    server.sql("postgres", "ALTER SYSTEM SET default_transaction_read_only = on");
    server.sql("postgres", "SELECT pg_reload_conf()");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(get(&store, b"a").await, Err(StoreError::ReadOnly), "what it says may be old");
    let refused = store.commit(put(b"a", b"2")).await.unwrap_err();
    assert_eq!(refused, CommitError::Failed(StoreError::ReadOnly));
    assert_eq!(why(opened).await, StoreError::ReadOnly);
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_is_lost() {
    let server = shared();
    let dir = server::directory("full");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=20m", "tmpfs"]).arg(&dir).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: a full disk needs a small tmpfs, and mounting one is not allowed here");
        return;
    }
    let _mounted = Mounted(dir.clone());
    drop(Command::new("chown").arg("postgres:postgres").arg(&dir).status());
    server.sql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", dir.display()));
    server.sql("postgres", "CREATE DATABASE small TABLESPACE small TEMPLATE template0 STRATEGY file_copy");
    let store = PostgresStore::connect(PostgresOptions::new(&server.url("small")).unwrap()).await;
    let store = store.unwrap();
    let mut acknowledged = 0_u32;
    let refused = loop {
        // Random, so that it cannot be made smaller.
        let value: Vec<u8> =
            (0..50_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> (n % 23)).to_le_bytes()[1]).collect();
        match store.commit(put(&acknowledged.to_be_bytes(), &value)).await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 10_000, "the disk is not full");
    };
    assert_eq!(refused, CommitError::Failed(StoreError::Full));
    for n in 0..acknowledged {
        assert!(get(&store, &n.to_be_bytes()).await.unwrap().is_some(), "what was acknowledged is there");
    }
}

/// Unmounted when the test ends.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
        drop(std::fs::remove_dir(&self.0));
    }
}

/// Holds a lock on a row until it is dropped.
async fn holds(server: &Server, table: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(&server.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("BEGIN; UPDATE {table} SET v = v WHERE k = 'a'")).await.unwrap();
    client
}

#[tokio::test]
async fn a_time_limit_of_the_database_or_of_ours_ends_a_commit() {
    let server = shared();
    let name = table();
    let url = format!("{}?options=-c%20statement_timeout%3D300", server.url("postgres"));
    let store = PostgresStore::connect(PostgresOptions::new(&url).unwrap().table(&name)).await.unwrap();
    store.commit(put(b"a", b"1")).await.unwrap();
    let lock = holds(server, &name).await;
    assert_eq!(store.commit(put(b"a", b"2")).await, Err(CommitError::Failed(StoreError::Timeout)));

    let patient = PostgresOptions::new(&server.url("postgres")).unwrap().table(&name);
    let impatient = patient.wait_for_answer(Duration::from_millis(300));
    let store = PostgresStore::connect(impatient).await.unwrap();
    let refused = store.commit(put(b"a", b"3")).await;
    assert_eq!(refused, Err(CommitError::Failed(StoreError::Timeout)), "the row was another's all the time");
    lock.batch_execute("ROLLBACK").await.unwrap();
    store.commit(put(b"b", b"4")).await.unwrap();
}

#[tokio::test]
async fn a_pool_or_a_role_without_a_free_connection_is_said() {
    let server = shared();
    let name = table();
    let one = PostgresOptions::new(&server.url("postgres")).unwrap().table(&name).connections(1);
    let store = PostgresStore::connect(one.wait_for_connection(Duration::from_millis(200))).await.unwrap();
    store.commit(put(b"a", b"1")).await.unwrap();
    let lock = holds(server, &name).await;
    let stuck = tokio::spawn({
        let store = store.clone();
        async move { store.commit(put(b"a", b"2")).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(get(&store, b"a").await, Err(StoreError::Exhausted));
    assert_eq!(store.commit(put(b"b", b"")).await, Err(CommitError::Failed(StoreError::Exhausted)));
    lock.batch_execute("ROLLBACK").await.unwrap();
    stuck.await.unwrap().unwrap();

    server.sql("postgres", "CREATE ROLE few LOGIN CONNECTION LIMIT 0");
    let url = server.url("postgres").replace("shop@", "few@");
    assert_eq!(why(PostgresOptions::new(&url).unwrap()).await, StoreError::Exhausted);
    server.sql("postgres", "CREATE ROLE nobody LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let url = server.url("postgres").replace("shop@", "nobody@");
    assert_eq!(why(PostgresOptions::new(&url).unwrap().table(&table())).await, StoreError::Refused);
}

#[tokio::test]
async fn the_services_need_no_right_to_make_tables() {
    let server = shared();
    let name = table();
    let owner = PostgresOptions::new(&server.url("postgres")).unwrap().schema("owned").table(&name);
    PostgresStore::connect(owner.clone()).await.unwrap();
    server.sql("postgres", "CREATE ROLE service LOGIN; GRANT USAGE ON SCHEMA owned TO service");
    server.sql("postgres", &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON owned.{name} TO service"));
    let url = server.url("postgres").replace("shop@", "service@");
    let service = PostgresOptions::new(&url).unwrap().schema("owned").table(&name);
    let store = PostgresStore::connect(service).await.unwrap();
    store.commit(put(b"a", b"1")).await.unwrap();
}

#[test]
fn abuse_21_the_password_is_in_no_debug_and_no_error() {
    let options = PostgresOptions::new("postgres://shop:canary-password@db.example/shop").unwrap();
    assert!(!format!("{options:?}").contains("canary"));
    for broken in
        ["postgres://shop:canary@[/x", "password=canary port=none", "canary", "", "user=a password=canary"]
    {
        let error = PostgresOptions::new(broken).unwrap_err();
        assert_eq!(error, StoreError::Settings);
        assert!(!format!("{error:?} {error}").contains("canary"));
    }
}

#[tokio::test]
async fn between_hosts_there_is_tls_and_its_certificate_is_checked() {
    let ca = |dir: &std::path::Path, name: &str| {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=database.test", "-addext", "subjectAltName=DNS:database.test"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(dir.join(format!("{name}.key")))
            .arg("-out")
            .arg(dir.join(format!("{name}.crt")))
            .output()
            .unwrap();
        assert!(made.status.success());
        std::fs::read_to_string(dir.join(format!("{name}.crt"))).unwrap()
    };
    let dir = server::directory("tls");
    let (ours, other) = (ca(&dir, "ours"), ca(&dir, "other"));
    drop(Command::new("chown").arg("postgres").arg(dir.join("ours.key")).output());
    let tls = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", dir.join("ours.crt").display()),
        format!("ssl_key_file={}", dir.join("ours.key").display()),
    ];
    let server = Server::start("tls-server", &tls.each_ref().map(String::as_str));
    let url = |mode: &str| {
        format!("host=database.test hostaddr=127.0.0.1 port={} user=shop dbname=postgres {mode}", server.port)
    };
    for mode in ["", "sslmode=prefer", "sslmode=require"] {
        let options = PostgresOptions::new(&url(mode)).unwrap().table("encrypted");
        let trusting = options.clone().certificate_authorities(&ours);
        let store = PostgresStore::connect(trusting).await.unwrap();
        store.commit(put(b"a", b"1")).await.unwrap();
        let used = server.sql("postgres", "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE s.ssl AND a.usename = 'shop'");
        assert_ne!(used, "0", "{mode}");
        assert_eq!(why(options.certificate_authorities(&other)).await, StoreError::Unreachable, "{mode}");
    }
    let wrong_host = url("").replace("database.test", "elsewhere.test");
    let options = PostgresOptions::new(&wrong_host).unwrap().certificate_authorities(&ours);
    assert_eq!(why(options).await, StoreError::Unreachable, "a certificate for another host");
    let plain = Server::start("plain", &[]);
    let url = format!("host=database.test hostaddr=127.0.0.1 port={} user=shop dbname=postgres", plain.port);
    let options = PostgresOptions::new(&url).unwrap().certificate_authorities(&ours);
    assert_eq!(why(options).await, StoreError::Unreachable, "a server without TLS");
    drop(std::fs::remove_dir_all(dir));
}
