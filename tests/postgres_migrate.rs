//! The example that seals a table's plaintext columns: killed at random moments and run again, it seals every row once, and
//! blanks none that it has not opened again.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, clippy::print_stdout, clippy::print_stderr, reason = "a test")]
#![allow(unreachable_pub, missing_docs, dead_code, reason = "modules of an example, and of several tests")]

#[path = "../examples/migrate_table/migrate.rs"]
mod migrate;
#[path = "../examples/migrate_table/sample.rs"]
mod sample;
#[path = "services/postgres.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use customer_vault::clock::{Clock as _, SystemClock};
use customer_vault::keeper::{FileKeeperOptions, FileSecret};
use customer_vault::store::deadpool_postgres::tokio_postgres::{self, NoTls};
use customer_vault::store::{PostgresOptions, PostgresStore};
use customer_vault::testing::{test_ground, tester};
use customer_vault::value::{Email, PersonName};
use customer_vault::*;
use indicatif::ProgressBar;
use migrate::{Customer, Report, SealedCustomer};
use rand::RngExt as _;
use server::Server;
use zeroize::Zeroizing;

/// Names the connection string and the key file for the process that migrates.
const WORK: &str = "CUSTOMER_VAULT_MIGRATE";

async fn vault(url: &str, keys: &Path, create: bool) -> Vault {
    let store = PostgresStore::connect(PostgresOptions::new(url).unwrap()).await.unwrap();
    let options = Options::new().record::<Customer>();
    let secret = FileSecret::key(Zeroizing::new([7; 32]));
    if create {
        let keeper = FileKeeperOptions::new().shared().create(keys, secret).unwrap();
        let options = options.settings(Settings::default().bound_ms(2000).unwrap());
        options.create(store, keeper.clone(), keeper).await.unwrap()
    } else {
        let keeper = FileKeeperOptions::new().shared().open(keys, secret).unwrap();
        options.open(store, keeper.clone(), keeper).await.unwrap()
    }
}

async fn client(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn run(url: &str, keys: &Path) -> Report {
    let vault = vault(url, keys, false).await;
    migrate::migrate(&vault, &client(url).await, &ProgressBar::hidden()).await.unwrap()
}

/// Not a test of its own: what the other test starts and kills.
#[test]
fn migrating_process() {
    let Ok(work) = std::env::var(WORK) else { return };
    let (url, keys) = work.split_once(' ').unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let report = runtime.block_on(run(url, Path::new(keys)));
    println!("blanked {}", report.blanked);
}

struct Place {
    server: Server,
    url: String,
    keys: PathBuf,
    good: Vec<sample::Row>,
    bad: Vec<sample::Row>,
}

impl Place {
    async fn new(name: &str, most: usize) -> Place {
        let server = Server::start(name, &["fsync=off"]);
        let (url, keys) = (server.url("postgres"), server.dir.join("keys").join("shop.keys"));
        std::fs::create_dir_all(server.dir.join("keys")).unwrap();
        let (good, bad) = sample::rows(most).unwrap();
        assert!(bad.len() >= 12, "{}", bad.len());
        sample::load(&client(&url).await, &[&*good, &*bad].concat()).await.unwrap();
        drop(vault(&url, &keys, true).await);
        Place { server, url, keys, good, bad }
    }

    fn count(&self, condition: &str) -> usize {
        let sql = format!("SELECT count(*) FROM customers WHERE {condition}");
        self.server.sql("postgres", &sql).parse().unwrap()
    }

    /// Everything is as it was promised.
    async fn check(&self) {
        let (vault, client) = (vault(&self.url, &self.keys, false).await, client(&self.url).await);
        let watched = vault.clone();
        let watching = tokio::spawn(async move { watched.watch().await });
        let columns = "id, sealed, email_index, name, email, phone, address, born, country";
        let rows = client.query(&format!("SELECT {columns} FROM customers"), &[]).await.unwrap();
        assert_eq!(rows.len(), self.good.len() + self.bad.len(), "no row is lost");
        let (who, why) = (tester(), test_ground());
        let hour = Duration::from_secs(3600);
        let token = vault.issue::<SubjectAccess>(&who, &why, hour, Scope::everyone()).await.unwrap();
        let finder = vault.issue::<migrate::Support>(&who, &why, hour, Scope::everyone()).await.unwrap();
        for row in rows {
            let id: &str = row.get("id");
            let text = |column: &str| row.get::<_, Option<String>>(column);
            let sealed: Option<SealedCustomer> = row.get("sealed");
            if let Some(was) = self.bad.iter().find(|was| was.id == id) {
                assert!(sealed.is_none(), "{id} was to be refused");
                assert_eq!(text("name").as_ref(), Some(&was.name));
                assert_eq!((text("email"), text("phone")), (was.email.clone(), was.phone.clone()));
                assert_eq!((text("address"), text("born")), (Some(was.address.clone()), was.born.clone()));
                continue;
            }
            let was = self.good.iter().find(|was| was.id == id).unwrap();
            for column in ["name", "email", "phone", "address", "born"] {
                assert_eq!(text(column), None, "{column} of {id} is blank");
            }
            let (sealed, id) = (sealed.unwrap(), SubjectId::new(id).unwrap());
            let grant = vault.unlock::<SubjectAccess>(&token, &id).await.unwrap();
            let view = sealed.open(&grant).unwrap();
            let over = sealed.left_out();
            assert_eq!(view.name().unwrap().expose(), PersonName::parse(&was.name).unwrap().expose());
            let lines = view.address().unwrap().expose_lines().collect::<Vec<_>>().join("\n");
            assert_eq!(lines, was.address.split_whitespace().collect::<Vec<_>>().join(" "));
            let email = was.email.as_deref().map(|email| Email::parse(email).unwrap());
            let index: Option<Vec<u8>> = row.get("email_index");
            if over.contains(&"email") {
                assert!(index.is_none() && is_over(&was.last_order), "only what is old is left out");
            } else {
                assert_eq!(view.email().unwrap().map(Email::expose), email.as_ref().map(Email::expose));
                let expected = match email {
                    Some(email) => {
                        let index = vault.index::<migrate::customer::email>(&finder, &email).await;
                        Some(index.unwrap().to_vec())
                    }
                    None => None,
                };
                assert_eq!(index, expected);
            }
            if !over.contains(&"phone") {
                assert_eq!(view.phone().unwrap().map(value::AsEntered::expose), was.phone.as_deref());
            }
            let status = vault.status(&id, &who, &why).await.unwrap();
            assert_eq!(status.enrolments, 1);
        }
        assert!(vault.verify_log().await.unwrap().holds());
        watching.abort();
    }
}

/// Whether three years have passed since.
fn is_over(day: &str) -> bool {
    let part = |range: std::ops::Range<usize>| day[range].parse::<i16>().unwrap();
    let [year, month, day] = [part(0..4), part(5..7), part(8..10)];
    let day = Day::from_ymd(year, month.try_into().unwrap(), day.try_into().unwrap()).unwrap();
    day.plus(3 * 365).start_ms() <= SystemClock.wall()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_it_seals_every_row_once_and_blanks_only_what_opens() {
    let place = Place::new("migrate-killed", 900).await;
    let (mut killed, mut ended) = (0, false);
    for _ in 0..40 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "migrating_process", "--nocapture"])
            .env(WORK, format!("{} {}", place.url, place.keys.display()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        if killed < 8 {
            let pause = Duration::from_millis(rand::rng().random_range(100..1200));
            tokio::time::sleep(pause).await;
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                killed += 1;
            }
        }
        let status = child.wait().unwrap();
        // At no moment is a value nowhere.
        if place
            .server
            .sql("postgres", "SELECT 1 FROM information_schema.columns WHERE column_name = 'sealed'")
            == "1"
        {
            assert_eq!(place.count("sealed IS NULL AND (name IS NULL OR address IS NULL)"), 0);
            eprintln!("{} of {} are blank", place.count("name IS NULL"), place.good.len());
        }
        if status.success() {
            ended = true;
            break;
        }
    }
    assert!(ended && killed > 2, "killed {killed} times");
    place.check().await;
    // Nothing is left, and the refused are said again, without their values.
    let report = run(&place.url, &place.keys).await;
    assert_eq!((report.sealed, report.blanked, report.again), (0, 0, 0));
    let refused: Vec<&String> = report.refused.keys().collect();
    let mut bad: Vec<&String> = place.bad.iter().map(|row| &row.id).collect();
    bad.sort();
    assert_eq!(refused, bad);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_shop_changes_meanwhile_is_sealed_as_it_is_then_and_what_it_forgets_is_left() {
    let place = Place::new("migrate-live", 120).await;
    let vault = vault(&place.url, &place.keys, false).await;
    // Sealed and not verified, as if killed there; then the shop changes the row, and forgets another customer.
    drop(run(&place.url, &place.keys).await);
    place.server.sql(
        "postgres",
        "UPDATE customers SET name = 'Ada Lovelace', address = '1 Long Street' WHERE id = 'c-00007'",
    );
    let forgotten = SubjectId::new("c-00008").unwrap();
    vault.forget(&forgotten, Forget::by(&tester(), &test_ground())).await.unwrap();
    place.server.sql(
        "postgres",
        "UPDATE customers SET name = 'Left Behind', address = 'x', sealed = NULL WHERE id = 'c-00008'",
    );
    // And in one row stands what was sealed for another customer: it does not open, so nothing is blanked.
    place.server.sql(
        "postgres",
        "UPDATE customers SET name = 'Still Here', address = 'x', sealed = \
         (SELECT sealed FROM customers WHERE id = 'c-00010') WHERE id = 'c-00009'",
    );
    let report = run(&place.url, &place.keys).await;
    assert_eq!((report.sealed, report.blanked, report.again), (1, 1, 1));
    assert_eq!(report.refused.get("c-00009"), Some(&("sealed", "does-not-open")));
    assert_eq!(place.count("id = 'c-00009' AND name = 'Still Here'"), 1);
    assert_eq!(report.refused.get("c-00008"), Some(&("id", "forgotten")));
    assert_eq!(place.count("id = 'c-00008' AND name IS NOT NULL AND sealed IS NULL"), 1);
    let client = client(&place.url).await;
    let sql = "SELECT sealed FROM customers WHERE id = 'c-00007'";
    let sealed: SealedCustomer = client.query_one(sql, &[]).await.unwrap().get(0);
    let grant = testing::grant::<SubjectAccess>(&vault, &SubjectId::new("c-00007").unwrap()).await.unwrap();
    assert_eq!(sealed.open(&grant).unwrap().name().unwrap().expose(), "Ada Lovelace");
}
