//! A primary and two standbys: what was acknowledged holds on whatever is promoted, a replaced primary keeps nothing
//! alive, and no root is destroyed that a standby would still need.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, unreachable_pub, missing_docs, dead_code, reason = "a test")]

use std::time::Duration;

use customer_vault::error::{Erased, StoreError};
use customer_vault::store::deadpool_postgres::{self, tokio_postgres};
use customer_vault::store::{PostgresOptions, PostgresStore, Store as _};
use customer_vault::testing::{MemoryKeeper, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;

#[path = "services/postgres.rs"]
mod server;
use server::Server;

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
}

record! {
    /// One order.
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// To whom it goes.
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days];
    }
}

/// Three servers, and a vault that finds the one that takes writes.
struct Cluster {
    primary: Server,
    standbys: [Server; 2],
    keeper: MemoryKeeper,
}

const QUORUM: &str = "synchronous_standby_names=ANY 1 (s1, s2)";

impl Cluster {
    fn start(name: &str) -> Cluster {
        // Without the setting until there are standbys: a commit would wait for them.
        let primary = Server::start(name, &["wal_keep_size=256MB"]);
        let standby = |n: &str| primary.standby(n, &["wal_keep_size=256MB", QUORUM]);
        let standbys = [standby("s1"), standby("s2")];
        primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (s1, s2)'");
        primary.sql("postgres", "SELECT pg_reload_conf()");
        for _ in 0..100 {
            if primary.sql("postgres", "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'")
                == "2"
            {
                return Cluster { primary, standbys, keeper: MemoryKeeper::new() };
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the standbys do not come");
    }

    fn options(&self) -> PostgresOptions {
        let ports =
            [&self.primary, &self.standbys[0], &self.standbys[1]].map(|server| server.port.to_string());
        let url = format!(
            "host=127.0.0.1,127.0.0.1,127.0.0.1 port={} user=shop dbname=postgres connect_timeout=2",
            ports.join(",")
        );
        PostgresOptions::new(&url).unwrap()
    }

    async fn create(&self) -> Vault {
        let settings = Settings::default().bound_ms(500).unwrap().grace_days(0).unwrap();
        let settings =
            settings.restore_window(RestoreWindow::none_every_older_backup_of_the_keys_dies_at_once());
        let store = PostgresStore::connect(self.options()).await.unwrap();
        let vault = Options::new().record::<Order>().settings(settings);
        vault.create(store, self.keeper.clone(), self.keeper.clone()).await.unwrap()
    }

    async fn open(&self, options: PostgresOptions) -> Result<Vault> {
        let store = PostgresStore::connect(options).await?;
        Options::new().record::<Order>().open(store, self.keeper.clone(), self.keeper.clone()).await
    }

    /// Promotes the standby that has the most, and lets the other follow it.
    fn fail_over(&mut self) {
        let position = |server: &Server| {
            let at = server.sql("postgres", "SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')");
            at.parse::<u64>().unwrap()
        };
        let newest = usize::from(position(&self.standbys[1]) > position(&self.standbys[0]));
        let other = 1 - newest;
        self.standbys[newest].promote();
        let [first, second] = &mut self.standbys;
        let (new, other) = if other == 1 { (first, (second, "s2")) } else { (second, (first, "s1")) };
        new.sql("postgres", &format!("SELECT pg_create_physical_replication_slot('{}')", other.1));
        other.0.stop();
        other.0.follow(new, other.1);
        other.0.resume();
    }
}

fn id(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

async fn sealed(vault: &Vault, name: &str) -> SealedOrder {
    vault.enroll(&id(name), [], &tester(), &test_ground()).await.unwrap();
    let sealer = vault.sealer::<Order>(&id(name), &tester(), &test_ground()).await.unwrap();
    sealer.seal(Order { name: PersonName::parse("Ada Lovelace").unwrap() }, &1).unwrap()
}

fn watched(vault: &Vault) -> tokio::task::JoinHandle<()> {
    let vault = vault.clone();
    tokio::spawn(async move {
        loop {
            let _ = vault.watch().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

fn forget() -> Forget {
    Forget::by(&tester(), &test_ground())
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_40_a_forget_outlives_the_primary_that_acknowledged_it() {
    let mut cluster = Cluster::start("killed-primary");
    let vault = cluster.create().await;
    let watching = watched(&vault);
    let (alice, bob) = (sealed(&vault, "alice").await, sealed(&vault, "bob").await);

    vault.forget(&id("alice"), forget()).await.unwrap();
    tokio::task::block_in_place(|| {
        cluster.primary.kill();
        cluster.fail_over();
    });
    // The process that was there, and one that comes anew.
    for vault in [vault.clone(), cluster.open(cluster.options()).await.unwrap()] {
        let grant = testing::grant::<Shipping>(&vault, &id("bob")).await.unwrap();
        assert_eq!(bob.open(&grant, &1).unwrap().name().unwrap().expose(), "Ada Lovelace");
        let refused = testing::grant::<Shipping>(&vault, &id("alice")).await.unwrap_err();
        assert_eq!(refused, Error::Erased(Erased::Forgotten));
    }
    // And the story goes on: the keys go, and the certificate comes.
    vault.shred(&tester(), &test_ground()).await.unwrap();
    let settled = vault.settle(&tester(), &test_ground()).await.unwrap();
    assert_eq!(settled.certificates.len(), 1);
    assert!(testing::grant::<Shipping>(&vault, &id("alice")).await.is_err());
    assert!(vault.verify_log().await.unwrap().holds());
    drop(alice);
    watching.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_was_replaced_and_does_not_know_it_keeps_no_lease_alive() {
    let mut cluster = Cluster::start("zombie");
    let vault = cluster.create().await;
    let alice = sealed(&vault, "alice").await;
    // A process that sees the old primary alone.
    let old = PostgresOptions::new(&cluster.primary.url("postgres")).unwrap();
    let cut_off = cluster.open(old).await.unwrap();
    let watching = watched(&cut_off);
    let grant = testing::grant::<Shipping>(&cut_off, &id("alice")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(alice.open(&grant, &1).is_ok(), "watching keeps it alive");

    tokio::task::block_in_place(|| {
        cluster.primary.paused(true);
        cluster.fail_over();
        cluster.primary.paused(false);
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let old = cluster.primary.sql("postgres", "SELECT count(*) > 0 FROM customer_vault");
    assert_eq!(old, "t", "the old primary answers reads");
    let ports = [&cluster.standbys[0], &cluster.standbys[1]].map(|server| server.port.to_string());
    let url = format!("host=127.0.0.1,127.0.0.1 port={} user=shop dbname=postgres", ports.join(","));
    let new = cluster.open(PostgresOptions::new(&url).unwrap()).await.unwrap();
    new.forget(&id("alice"), forget()).await.unwrap();
    assert!(alice.open(&grant, &1).is_err(), "and commits nothing, so that nobody keeps a lease by it");
    watching.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_read_by_nobody_and_no_root_dies_that_it_would_need() {
    let cluster = Cluster::start("standby");
    let vault = cluster.create().await;
    let standby = cluster.standbys[0].url("postgres");
    let refused = PostgresStore::connect(PostgresOptions::new(&standby).unwrap()).await.unwrap_err();
    assert_eq!(refused, StoreError::ReadOnly);
    // A pool of the shop's own that does not care.
    let config: tokio_postgres::Config = standby.parse().unwrap();
    let manager = deadpool_postgres::Manager::new(config, tokio_postgres::NoTls);
    let pool = deadpool_postgres::Pool::builder(manager).build().unwrap();
    let store = PostgresStore::with_pool(pool, PostgresOptions::default()).await;
    assert_eq!(store.unwrap_err(), StoreError::ReadOnly);

    sealed(&vault, "alice").await;
    vault.forget(&id("alice"), forget()).await.unwrap();
    vault.shred(&tester(), &test_ground()).await.unwrap();
    // One standby stands still; the quorum is there all the same.
    cluster.standbys[1].paused(true);
    vault.enroll(&id("bob"), [], &tester(), &test_ground()).await.unwrap();
    let refused = vault.settle(&tester(), &test_ground()).await.unwrap_err();
    assert_eq!(refused, Error::Store(StoreError::Behind));
    cluster.standbys[1].paused(false);
    let settled = vault.settle(&tester(), &test_ground()).await.unwrap();
    assert_eq!(settled.certificates.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_the_promises_need() {
    use customer_vault::Concern;
    let concerns = async |server: &Server| {
        let store =
            PostgresStore::connect(PostgresOptions::new(&server.url("postgres")).unwrap()).await.unwrap();
        store.doctor().await.unwrap()
    };
    let lax = Server::start("lax", &["fsync=off", "full_page_writes=off"]);
    assert_eq!(concerns(&lax).await, [Concern::NoSync, Concern::TornPages]);
    lax.sql("postgres", "CREATE ROLE service LOGIN; GRANT ALL ON SCHEMA public TO service");

    let cluster = Cluster::start("doctor");
    assert_eq!(concerns(&cluster.primary).await, []);
    for (names, expected) in [
        ("", vec![Concern::AsynchronousStandbys]),
        ("FIRST 1 (s1)", vec![Concern::AsynchronousStandbys]),
        ("*", vec![]),
    ] {
        cluster.primary.sql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
        cluster.primary.sql("postgres", "SELECT pg_reload_conf()");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(concerns(&cluster.primary).await, expected, "{names}");
    }
    // A role that may not see the standbys' positions cannot tell whether they have everything.
    cluster.primary.sql("postgres", "CREATE ROLE service LOGIN; GRANT ALL ON SCHEMA public TO service");
    let url = cluster.primary.url("postgres").replace("shop@", "service@");
    let store = PostgresStore::connect(PostgresOptions::new(&url).unwrap().table("service")).await.unwrap();
    assert_eq!(store.doctor().await.unwrap(), [Concern::PositionsHidden]);
    assert_eq!(store.copies_are_current().await, Err(StoreError::Refused));
    cluster.primary.sql("postgres", "GRANT pg_monitor TO service");
    store.copies_are_current().await.unwrap();
}
