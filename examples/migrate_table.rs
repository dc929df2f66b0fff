//! Seals the plaintext columns of a table that is there: in batches, as of each row's own date, verified before the
//! plaintext is blanked, and safe to kill and to run again.
//!
//! ```text
//! cargo run --release --features postgres --example migrate_table        # the sample's customers, on a server of its own
//!
//! export SHOP_VAULT_KEY=$(openssl rand -hex 32)                          # keep it: without it the data is lost
//! cargo run --release --features postgres --example migrate_table -- postgres://… shop.keys --create
//! ```
//!
//! Without arguments it starts PostgreSQL itself, in a temporary folder (its programs have to be installed; `POSTGRES_BIN`
//! names their folder where it is not Debian's). With a connection string and the keeper's file it works on the table
//! `customers` of that database, which must have the columns of `migrate_table/sample.rs`; `--create` makes vault and key
//! file, the first time. Run it again until it says that nothing is left.

#![allow(clippy::print_stdout, unreachable_pub, reason = "a program, and modules that are read alone")]

#[path = "migrate_table/migrate.rs"]
mod migrate;
#[path = "migrate_table/sample.rs"]
mod sample;
#[path = "../tests/services/postgres.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::arithmetic_side_effects, dead_code)]
mod server;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use customer_vault::keeper::{FileKeeperOptions, FileSecret};
use customer_vault::store::deadpool_postgres::tokio_postgres::Client;
use customer_vault::store::{PostgresOptions, PostgresStore};
use customer_vault::{Options, Vault};
use indicatif::ProgressBar;
use migrate::{Customer, Report};
use rand::TryRng as _;
use zeroize::Zeroizing;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => demonstrate().await,
        [url, keys] => work(url, Path::new(keys), false).await,
        [url, keys, "--create"] => work(url, Path::new(keys), true).await,
        _ => Err("a connection string, the keeper's file, and --create the first time; or nothing".into()),
    }
}

async fn work(url: &str, keys: &Path, create: bool) -> Fallible<()> {
    let secret = FileSecret::from_env("SHOP_VAULT_KEY")?;
    let options = PostgresOptions::new(url)?;
    let vault = open(&options, keys, secret, create).await?;
    let pool = options.pool()?;
    let report = migrate::migrate(&vault, &*pool.get().await?, &ProgressBar::new(0)).await?;
    print(&report);
    println!("\n{LEFT}");
    Ok(())
}

/// The keeper is a shared one: the shop goes on meanwhile, with the same vault.
async fn open(options: &PostgresOptions, keys: &Path, secret: FileSecret, create: bool) -> Fallible<Vault> {
    let store = PostgresStore::connect(options.clone()).await?;
    let records = Options::new().record::<Customer>();
    Ok(if create {
        let keeper = FileKeeperOptions::new().shared().create(keys, secret)?;
        records.create(store, keeper.clone(), keeper).await?
    } else {
        let keeper = FileKeeperOptions::new().shared().open(keys, secret)?;
        records.open(store, keeper.clone(), keeper).await?
    })
}

fn print(report: &Report) {
    println!("{} rows were sealed, {} verified and blanked.", report.sealed, report.blanked);
    if report.over > 0 {
        println!("{} values were left out: every period that is declared for them was over.", report.over);
    }
    if report.again > 0 {
        println!(
            "{} rows were taken again: they were changed meanwhile, or grants were too old.",
            report.again
        );
    }
    if report.refused.is_empty() {
        return;
    }
    println!("\n{} rows were refused, and are as they were:\n", report.refused.len());
    let mut causes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (id, why) in &report.refused {
        causes.entry(*why).or_default().push(&**id);
    }
    for ((column, code), ids) in causes {
        println!("  {column} {code}: {}", ids.join(", "));
    }
}

const LEFT: &str = "\
The table has no plaintext any more. PostgreSQL still has, and this program cannot reach it:

- dead rows: an UPDATE leaves the old row in the table's file, its TOAST table and its indexes. VACUUM alone frees the space
  and does not overwrite it. VACUUM FULL customers (which locks the table) or pg_repack writes new files; the blocks of the
  old ones are the file system's to overwrite.
- statistics: pg_statistic holds common values of the old columns. ANALYZE customers replaces them.
- the write-ahead log: segments in pg_wal until they are recycled, and all that was archived.
- replicas and whatever reads by logical decoding: each has files and a log of its own.
- the server's logs, where statements or their parameters were logged, and pg_stat_statements.
- dumps, base backups and snapshots from before today. No key opens or closes these: let them run out, and write down
  by when.

Then drop the old columns.";

async fn demonstrate() -> Fallible<()> {
    let server = server::Server::start("migrate", &[]);
    let options = PostgresOptions::new(&server.url("postgres"))?;
    let pool = options.pool()?;
    let client = pool.get().await?;
    let (good, bad) = sample::rows(1000)?;
    sample::load(&client, &[&*good, &*bad].concat()).await?;
    println!(
        "A table of {} customers, in plain columns. One of them:\n",
        good.len().saturating_add(bad.len())
    );
    show(&client).await?;

    let mut key = Zeroizing::new([0; 32]);
    rand::rngs::SysRng.try_fill_bytes(key.as_mut_slice())?;
    // The server's directory may belong to the server's user: the keeper wants one of its own.
    let keys = server.dir.join("keys");
    std::fs::create_dir_all(&keys)?;
    let vault = open(&options, &keys.join("shop.keys"), FileSecret::key(key), true).await?;
    let report = migrate::migrate(&vault, &client, &ProgressBar::new(0)).await?;
    print(&report);
    println!("\nThe same row now:\n");
    show(&client).await?;

    let known: Vec<String> = good.iter().filter_map(|row| row.email.clone()).take(200).collect();
    let look = || search(&server.dir.join("data"), &known);
    println!("\nOf 200 of their e-mail addresses, files of the server's still hold:");
    println!("  {:>4}  after the migration", look()?);
    for statement in ["VACUUM FULL customers", "ANALYZE customers", "CHECKPOINT"] {
        client.batch_execute(statement).await?;
    }
    println!("  {:>4}  after VACUUM FULL, ANALYZE and a checkpoint: in the write-ahead log\n", look()?);
    println!("{LEFT}");
    Ok(())
}

async fn show(client: &Client) -> Fallible<()> {
    // Whatever its columns are by then: as JSON.
    let row = client
        .query_one("SELECT left(row_to_json(customers)::text, 240) FROM customers WHERE id = 'c-00003'", &[])
        .await?;
    println!("  {}", row.try_get::<_, String>(0)?);
    Ok(())
}

/// How many of these occur in the files of a folder.
fn search(dir: &Path, known: &[String]) -> Fallible<usize> {
    let mut found = HashSet::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(path).unwrap_or_default();
            for at in bytes.iter().enumerate().filter_map(|(at, byte)| (*byte == b'@').then_some(at)) {
                let here = |one: &&String| {
                    let local = one.find('@').unwrap_or(0);
                    let rest = at.checked_sub(local).and_then(|start| bytes.get(start..));
                    rest.is_some_and(|rest| rest.starts_with(one.as_bytes()))
                };
                found.extend(known.iter().filter(here));
            }
        }
    }
    Ok(found.len())
}
