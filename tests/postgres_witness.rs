//! The witness on PostgreSQL remembers what the port promises, and finds a store that was put back.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, unreachable_pub, missing_docs, dead_code, reason = "a test")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use customer_vault::error::{Erased, KeeperError, Misuse, RolledBack};
use customer_vault::keeper::{FileKeeperOptions, FileSecret, Serves, VaultId};
use customer_vault::store::{PostgresOptions, PostgresStore};
use customer_vault::testing::{
    ephemeral, grant, test_ground, tester, witness_contract, witness_contract_on_threads,
};
use customer_vault::value::PersonName;
use customer_vault::witness::{Line, PostgresWitness, Witness};
use customer_vault::*;

#[path = "services/postgres.rs"]
mod server;
use server::Server;

/// One server for the tests that leave it as it is.
fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("witness", &[]))
}

fn block_on<T>(task: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
    });
    runtime.block_on(task)
}

/// A table that no other test has.
fn table() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("witness_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn options(server: &Server, table: &str) -> PostgresOptions {
    PostgresOptions::new(&server.url("postgres")).unwrap().table(table).connections(2)
}

/// Two vaults' names.
fn vaults() -> [VaultId; 2] {
    static IDS: OnceLock<[VaultId; 2]> = OnceLock::new();
    let id = || pollster::block_on(ephemeral(Options::new())).unwrap().id();
    *IDS.get_or_init(|| [id(), id()])
}

async fn opened(server: &Server, table: &str) -> PostgresWitness {
    let witness = PostgresWitness::connect(options(server, table)).await.unwrap();
    witness.bind(vaults()[0]).await.unwrap();
    witness
}

fn line(number: u64) -> Line {
    Line { number, bytes: format!("line {number}").into_bytes() }
}

fn lines(numbers: std::ops::RangeInclusive<u64>) -> Vec<Line> {
    numbers.map(line).collect()
}

#[test]
fn it_keeps_the_contract() {
    let (one, many) = (table(), table());
    let connect = |name: &str, place| PostgresWitness::connect(options(shared(), &format!("{name}_{place}")));
    block_on(witness_contract(|place| {
        let connecting = connect(&one, place);
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(connecting)).unwrap()
    }));
    witness_contract_on_threads(|place| block_on(connect(&many, place)).unwrap(), |task| block_on(task));
}

#[test]
fn whose_it_is_is_looked_at_again_and_it_says_how_many_hosts() {
    block_on(async {
        let name = table();
        let witness = PostgresWitness::connect(options(shared(), &name)).await.unwrap();
        assert_eq!(witness.serves(), Serves::ManyHosts);
        assert_eq!(witness.remember(lines(1..=1)).await, Err(KeeperError::Missing), "bound to nothing yet");
        assert_eq!(witness.recall(1).await, Err(KeeperError::Missing));
        let [vault, _] = vaults();
        witness.bind(vault).await.unwrap();
        let second = PostgresWitness::connect(options(shared(), &name)).await.unwrap();
        assert_eq!(second.remember(lines(1..=1)).await, Err(KeeperError::Missing));
        second.bind(vault).await.unwrap();
        assert_eq!(second.recall(1).await.unwrap(), []);
        // Put in the place of another vault's table under an open handle.
        let its = opened(shared(), &table()).await;
        its.remember(lines(1..=1)).await.unwrap();
        shared().sql("postgres", &format!("UPDATE {name} SET line = '\\x00' WHERE n = -1"));
        assert_eq!(witness.remember(lines(1..=1)).await, Err(KeeperError::Foreign));
        assert_eq!(witness.recall(1).await, Err(KeeperError::Foreign));
        assert_eq!(shared().sql("postgres", &format!("SELECT count(*) FROM {name} WHERE n > 0")), "0");
    });
}

#[test]
fn many_lines_go_in_parts_and_a_hole_is_damage() {
    block_on(async {
        let name = table();
        let witness = opened(shared(), &name).await;
        // One more than two parts, and exactly two: the page after the last is empty.
        for last in [2048, 2049] {
            witness.remember(lines(1..=last)).await.unwrap();
            assert_eq!(witness.recall(1).await.unwrap(), lines(1..=last));
            assert_eq!(opened(shared(), &name).await.recall(1025).await.unwrap(), lines(1025..=last));
        }
        shared().sql("postgres", &format!("DELETE FROM {name} WHERE n = 1500"));
        assert_eq!(witness.recall(1).await, Err(KeeperError::Damaged));
        assert_eq!(witness.recall(1500).await, Err(KeeperError::Damaged));
        assert_eq!(witness.recall(1501).await.unwrap().len(), 549);
        witness.remember(lines(1499..=1501)).await.unwrap();
        assert_eq!(witness.recall(1).await.unwrap(), lines(1..=2049));
    });
}

#[test]
fn those_who_make_the_table_at_once_all_find_it() {
    block_on(async {
        for round in 0..25 {
            let (name, schema) = (table(), format!("made_at_once_{round}"));
            let process = || {
                let options = options(shared(), &name).schema(&schema);
                tokio::spawn(async move { PostgresWitness::connect(options).await.map(drop) })
            };
            let all: Vec<_> = (0..8).map(|_| process()).collect();
            for one in all {
                assert_eq!(one.await.unwrap(), Ok(()), "round {round}");
            }
        }
    });
}

#[test]
fn what_is_no_witness_of_ours_is_refused() {
    block_on(async {
        let (server, name) = (shared(), table());
        drop(PostgresStore::connect(options(server, &name)).await.unwrap());
        let refused = PostgresWitness::connect(options(server, &name)).await.unwrap_err();
        assert_eq!(refused, KeeperError::Foreign.into(), "a store's table");
        let name = table();
        drop(opened(server, &name).await);
        assert!(PostgresStore::connect(options(server, &name)).await.is_err(), "the other way round");
        for change in [
            "UPDATE {} SET line = line || '2' WHERE n = 0",
            "DELETE FROM {} WHERE n = 0",
            "ALTER TABLE {} ADD COLUMN more bytea",
        ] {
            let name = table();
            drop(opened(server, &name).await);
            server.sql("postgres", &change.replace("{}", &name));
            let refused = PostgresWitness::connect(options(server, &name)).await.unwrap_err();
            assert_eq!(refused, KeeperError::Foreign.into(), "{change}");
        }
        let bad = PostgresWitness::connect(options(server, "a\"b")).await.unwrap_err();
        assert_eq!(bad, Misuse::Setting.into());
        let none = PostgresOptions::new(&server.url("nowhere")).unwrap();
        assert_eq!(PostgresWitness::connect(none).await.unwrap_err(), KeeperError::Missing.into());
        server.sql("postgres", &format!("CREATE ROLE reader LOGIN; GRANT SELECT ON {name} TO reader"));
        let reader = PostgresOptions::new(&server.url("postgres").replace("shop@", "reader@")).unwrap();
        let reading = PostgresWitness::connect(reader.clone().table(&name)).await.unwrap();
        assert_eq!(reading.bind(vaults()[0]).await, Err(KeeperError::Refused));
        // These two rights are enough.
        server.sql("postgres", &format!("GRANT INSERT ON {name} TO reader"));
        reading.bind(vaults()[0]).await.unwrap();
        reading.remember(lines(1..=2)).await.unwrap();
        assert_eq!(reading.recall(2).await.unwrap(), lines(2..=2));
        // PostgreSQL 15 and later let nobody make tables in `public`.
        let made = PostgresWitness::connect(reader.table(&table())).await;
        assert!(made.is_ok() || made.unwrap_err() == KeeperError::Refused.into());
    });
}

#[test]
fn a_server_that_takes_no_writes_is_refused() {
    let server = Server::start("witness-standby", &[]);
    block_on(async {
        let witness = opened(&server, "w").await;
        witness.remember(lines(1..=1)).await.unwrap();
        server.sql("postgres", "ALTER SYSTEM SET default_transaction_read_only = on");
        server.sql("postgres", "SELECT pg_reload_conf()");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(witness.recall(1).await, Err(KeeperError::ReadOnly));
        assert_eq!(witness.remember(lines(2..=2)).await, Err(KeeperError::ReadOnly));
        assert_eq!(witness.bind(vaults()[0]).await, Err(KeeperError::ReadOnly));
        let refused = PostgresWitness::connect(options(&server, "w")).await.unwrap_err();
        assert_eq!(refused, KeeperError::ReadOnly.into());
        server.sql("postgres", "ALTER SYSTEM RESET default_transaction_read_only");
        server.sql("postgres", "SELECT pg_reload_conf()");
        tokio::time::sleep(Duration::from_millis(500)).await;
        witness.remember(lines(2..=2)).await.unwrap();
        assert_eq!(witness.recall(1).await.unwrap(), lines(1..=2));
    });
}

/// The server's own settings say that commits need not be durable.
#[test]
fn a_server_that_was_down_is_back_with_every_line_and_the_same_handle_goes_on() {
    let mut server =
        Server::start("witness-down", &["synchronous_commit=off", "wal_writer_delay=10000", "fsync=on"]);
    let witness = block_on(opened(&server, "w"));
    for round in 0..3_u64 {
        let (first, last) = (round * 20 + 1, round * 20 + 20);
        for number in first..=last {
            block_on(witness.remember(lines(number..=number))).unwrap();
        }
        server.kill();
        assert_eq!(block_on(witness.remember(lines(1..=last + 1))), Err(KeeperError::Unreachable));
        assert_eq!(block_on(witness.recall(1)), Err(KeeperError::Unreachable));
        let fresh = PostgresWitness::connect(options(&server, "w"));
        assert_eq!(block_on(fresh).unwrap_err(), KeeperError::Unreachable.into());
        server.resume();
        assert_eq!(block_on(witness.recall(1)).unwrap(), lines(1..=last));
    }
    // Connections that are cut in the middle of calls: what was acknowledged is there, whatever became of the others.
    let mut last = 60;
    for _ in 0..20 {
        let writes = async {
            for number in last + 1..=last + 10 {
                witness.remember(lines(last.max(1)..=number)).await.unwrap();
            }
        };
        let cuts = async {
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' \
                       AND pid <> pg_backend_pid()";
            tokio::task::block_in_place(|| server.sql("postgres", cut));
        };
        block_on(async {
            tokio::join!(writes, async {
                tokio::time::sleep(Duration::from_millis(3)).await;
                cuts.await;
            })
        });
        last += 10;
    }
    assert_eq!(block_on(witness.recall(1)).unwrap(), lines(1..=last));
}

purposes! {
    /// Deliver the parcel.
    pub Ship: Contract = 1 "ship";
}

record! {
    /// One order.
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// Who gets it.
        pub name: PersonName = 1 "name", basic, for [Ship: 60 days];
    }
}

fn person(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

fn vault_options() -> Options {
    Options::new().record::<Order>().settings(Settings::default().height(1).unwrap())
}

#[test]
fn abuse_04_a_store_put_back_on_one_server_is_found_by_the_witness_on_another() {
    let (store, mut other) = (Server::start("vault-store", &[]), Server::start("vault-witness", &[]));
    // The server's own directory may belong to the server's user: a keeper wants one of its own.
    let folder = server::directory("vault-keeper").join("keys");
    std::fs::create_dir(&folder).unwrap();
    let key = || FileSecret::key([7; 32].into());
    FileKeeperOptions::new().shared().create(folder.join("k"), key()).unwrap();
    let rows = || PostgresStore::connect(PostgresOptions::new(&store.url("postgres")).unwrap());
    let url = other.url("postgres");
    let witness = || PostgresWitness::connect(PostgresOptions::new(&url).unwrap());
    let keeper = || FileKeeperOptions::new().shared().open(folder.join("k"), key()).unwrap();
    let (me, why) = (&tester(), &test_ground());
    let (alice, bob) = (&person("alice"), &person("bob"));

    let (vault, second, sealed) = block_on(async {
        let vault =
            vault_options().create(rows().await.unwrap(), keeper(), witness().await.unwrap()).await.unwrap();
        let custody = vault.custody();
        assert_eq!((custody.store, custody.witness), (Serves::ManyHosts, Serves::ManyHosts));
        assert_eq!((custody.keeper, custody.serves()), (Serves::OneHost, Serves::OneHost));
        let mut sealed = Vec::new();
        for who in [alice, bob] {
            vault.enroll(who, [], me, why).await.unwrap();
            let sealer = vault.sealer::<Order>(who, me, why).await.unwrap();
            sealed.push(sealer.seal(Order { name: PersonName::parse("Name").unwrap() }, &1).unwrap());
        }
        // Another process, as far as anything here can tell.
        let second =
            vault_options().open(rows().await.unwrap(), keeper(), witness().await.unwrap()).await.unwrap();
        (vault, second, sealed)
    });
    store.sql("postgres", "CREATE TABLE backup AS TABLE customer_vault");
    block_on(async {
        let receipt = vault.forget(alice, Forget::by(me, why).without_grace()).await.unwrap();
        assert!(receipt.witnessed);
        assert_eq!(grant::<Ship>(&second, alice).await.unwrap_err(), Erased::Forgotten.into());
        second.shred(me, why).await.unwrap();
    });
    // The witness is down: the forget holds all the same, and is completed later.
    other.kill();
    let late = block_on(vault.forget(bob, Forget::by(me, why))).unwrap();
    assert!(!late.witnessed);
    other.resume();
    block_on(async {
        vault.undo_forget(bob, me, why).await.unwrap();
        let told: u64 = other.sql("postgres", "SELECT max(n) FROM customer_vault_witness").parse().unwrap();
        drop((vault, second));
        store.sql("postgres", "TRUNCATE customer_vault; INSERT INTO customer_vault SELECT * FROM backup");
        let refused = vault_options()
            .open(rows().await.unwrap(), keeper(), witness().await.unwrap())
            .await
            .unwrap_err();
        assert_eq!(refused, RolledBack::Store.into());
        let recovered = vault_options()
            .recover(rows().await.unwrap(), keeper(), witness().await.unwrap(), me, why)
            .await
            .unwrap();
        assert_eq!(grant::<Ship>(&recovered, alice).await.unwrap_err(), Erased::Forgotten.into());
        let open = grant::<Ship>(&recovered, bob).await.unwrap();
        assert_eq!(sealed[1].open(&open, &1).unwrap().name().unwrap().expose(), "Name");
        let now: u64 = other.sql("postgres", "SELECT max(n) FROM customer_vault_witness").parse().unwrap();
        assert!(now > told, "the recovery is remembered after {told} lines");
        drop(recovered);
        // A witness that was put back is brought up to the store by the next open.
        other.sql("postgres", "DELETE FROM customer_vault_witness WHERE n > 3");
        let vault =
            vault_options().open(rows().await.unwrap(), keeper(), witness().await.unwrap()).await.unwrap();
        let again: u64 = other.sql("postgres", "SELECT max(n) FROM customer_vault_witness").parse().unwrap();
        assert!(again >= now);
        assert_eq!(grant::<Ship>(&vault, alice).await.unwrap_err(), Erased::Forgotten.into());
    });
    drop(std::fs::remove_dir_all(folder));
}
