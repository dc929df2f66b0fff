//! Many people at a time on PostgreSQL, beside the bare SQL: the same rows and bytes, read and written by as few plain
//! statements and round trips as there can be, in plain transactions, in the same run and by turns.
//!
//! `PEOPLE` is another number of people a round. The server is started for the bench, in a directory below `TMPDIR`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::expect_used
)]
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::cast_precision_loss)]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "the server's file is the tests'")]

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use customer_vault::store::{Batch, Key, PostgresOptions, PostgresStore};
use customer_vault::testing::{Call, FaultStore, MemoryKeeper, test_ground, tester};
use customer_vault::value::Bytes;
use customer_vault::{Consent, Evidence, Options, Scope, Sealed, SubjectId, Token, Vault, purposes, record};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Statement};

#[path = "../tests/services/postgres.rs"]
mod server;
use server::Server;

purposes! {
    Shipping: Contract = 1 "shipping";
    Marketing: Consent = 2 "marketing";
    Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    struct Note[u64] / SealedNote / NoteView in note = "note" {
        body: Bytes = 1 "body", basic, for [Shipping: 90 days, Marketing: 90 days, Invoicing: 1 year];
    }
}

/// Tasks that unlock, or enroll, one by one.
const TASKS: usize = 64;

fn id(round: usize, number: usize) -> SubjectId {
    SubjectId::new(&format!("customer {round} {number}")).unwrap()
}

/// What the vault asked of its store.
#[derive(Clone)]
enum Asked {
    Read(Vec<Key>),
    Commit(Batch),
}

type Record = Arc<Mutex<Vec<Asked>>>;

/// A table of the same columns, by hand.
struct Bare {
    client: Client,
    read: Statement,
    write: Statement,
}

impl Bare {
    async fn connect(url: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        drop(tokio::spawn(connection));
        client
            .batch_execute(
                "CREATE TABLE IF NOT EXISTS bare (k bytea PRIMARY KEY, x bytea NOT NULL, v bytea NOT NULL)",
            )
            .await
            .unwrap();
        let read = "SELECT k, x, v FROM bare WHERE k = ANY($1)";
        let write = "INSERT INTO bare (k, x, v) SELECT * FROM unnest($1, $2, $3) \
                     ON CONFLICT (k) DO UPDATE SET x = EXCLUDED.x, v = EXCLUDED.v";
        let read = client.prepare_typed(read, &[Type::BYTEA_ARRAY]).await.unwrap();
        let write = client.prepare_typed(write, &[const { Type::BYTEA_ARRAY }; 3]).await.unwrap();
        Bare { client, read, write }
    }

    async fn read(&self, keys: &[Key]) -> usize {
        let rows = self.client.query(&self.read, &[&keys]).await.unwrap();
        let rows: Vec<(Key, Vec<u8>, Vec<u8>)> =
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        rows.len()
    }

    async fn write(&self, batch: &Columns) {
        let begin = pin!(self.client.batch_execute("BEGIN"));
        let columns: [&(dyn ToSql + Sync); 3] = [&batch.keys, &batch.versions, &batch.values];
        let write = pin!(self.client.execute(&self.write, &columns));
        let commit = pin!(self.client.batch_execute("COMMIT"));
        let (begun, written, committed) = tokio::join!(biased; begin, write, commit);
        begun.unwrap();
        committed.unwrap();
        assert_eq!(written.unwrap(), batch.keys.len() as u64);
    }

    /// The same again, and how long it took.
    async fn replay(&self, asked: &[Asked]) -> Duration {
        let asked: Vec<Result<&[Key], Columns>> = asked
            .iter()
            .map(|asked| match asked {
                Asked::Read(keys) => Ok(keys.as_slice()),
                Asked::Commit(batch) => Err(Columns::of(batch)),
            })
            .collect();
        let start = Instant::now();
        for asked in &asked {
            match asked {
                Ok(keys) => drop(self.read(keys).await),
                Err(columns) => self.write(columns).await,
            }
        }
        start.elapsed()
    }
}

/// A batch as parameters, made ready before the clock runs.
#[derive(Default)]
struct Columns {
    keys: Vec<Key>,
    versions: Vec<Vec<u8>>,
    values: Vec<Vec<u8>>,
}

impl Columns {
    fn of(batch: &Batch) -> Self {
        let mut columns = Columns::default();
        for (key, value) in &batch.writes {
            let Some(value) = value else { continue };
            columns.keys.push(key.clone());
            columns.versions.push(batch.version_of(key).to_vec());
            columns.values.push(value.clone());
        }
        columns
    }
}

/// Times of the vault and of the bare SQL, round by round.
#[derive(Default)]
struct Beside {
    vault: Vec<f64>,
    bare: Vec<f64>,
}

impl Beside {
    fn took(&mut self, vault: Duration, bare: Duration) {
        self.vault.push(vault.as_secs_f64() * 1e3);
        self.bare.push(bare.as_secs_f64() * 1e3);
    }

    fn print(&self, what: &str) {
        let mut ratios: Vec<f64> = self.vault.iter().zip(&self.bare).map(|(v, b)| v / b).collect();
        println!(
            "{what}: vault {:.0} ms, bare SQL {:.0} ms; by rounds {}; median {:.2} times",
            median(&mut self.vault.clone()),
            median(&mut self.bare.clone()),
            ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" "),
            median(&mut ratios),
        );
    }
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Runs, and says how long it took and what was asked of the store meanwhile.
async fn recorded<T>(record: &Record, work: impl Future<Output = T>) -> (T, Duration, Vec<Asked>) {
    record.lock().unwrap().clear();
    let start = Instant::now();
    let out = work.await;
    let took = start.elapsed();
    (out, took, std::mem::take(&mut *record.lock().unwrap()))
}

fn describe(what: &str, asked: &[Asked]) {
    let (mut reads, mut read, mut commits, mut written, mut bytes) = (0, 0, 0, 0, 0);
    for asked in asked {
        match asked {
            Asked::Read(keys) => (reads, read) = (reads + 1, read + keys.len()),
            Asked::Commit(batch) => {
                (commits, written) = (commits + 1, written + batch.writes.len());
                bytes += batch.writes.iter().flat_map(|(_, v)| v).map(Vec::len).sum::<usize>();
            }
        }
    }
    println!("{what}: {reads} reads of {read} rows, {commits} commits of {written} rows, {bytes} bytes");
}

async fn bench(server: &Server, people: usize, rounds: usize) {
    let options = PostgresOptions::new(&server.url("postgres")).unwrap();
    let store = FaultStore::new(PostgresStore::connect(options).await.unwrap());
    let keeper = MemoryKeeper::new();
    let vault = Options::new().record::<Note>().create(store.clone(), keeper.clone(), keeper).await.unwrap();
    let bare = Bare::connect(&server.url("postgres")).await;
    server.sql("postgres", "INSERT INTO bare SELECT k, x, v FROM customer_vault");
    let record: Record = Arc::default();
    let seen = Arc::clone(&record);
    store.before_each(move |call| {
        match call {
            Call::Read(keys) => seen.lock().unwrap().push(Asked::Read(keys.to_vec())),
            Call::Commit(batch) => seen.lock().unwrap().push(Asked::Commit(batch.clone())),
            _ => {}
        }
        Box::pin(std::future::ready(()))
    });
    drop(tokio::spawn({
        let vault = vault.clone();
        async move { vault.watch().await }
    }));
    let (me, why) = (tester(), test_ground());
    let evidence = Evidence::new(1, [7; 32], "web", &me).unwrap();
    let hour = Duration::from_secs(3600);
    let token = vault.issue::<Shipping>(&me, &why, hour, Scope::everyone()).await.unwrap();

    let (mut enrolled, mut put, mut unlocked) = (Beside::default(), Beside::default(), Beside::default());
    for round in 0..rounds {
        let ids: Vec<SubjectId> = (0..people).map(|number| id(round, number)).collect();
        let consents = || [Consent::to::<Marketing>(evidence.clone())];
        let newcomers: Vec<_> = ids.iter().map(|id| (id.clone(), consents())).collect();
        let (results, took, asked) =
            recorded(&record, Box::pin(vault.enroll_many(&newcomers, &me, &why))).await;
        assert!(results.iter().all(Result::is_ok));
        describe("enroll_many", &asked);
        enrolled.took(took, bare.replay(&asked).await);

        let start = Instant::now();
        let sealers = vault.sealers::<Note>(&ids, &me, &why).await.unwrap();
        println!("sealers: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
        let seal = |sealer: &customer_vault::Sealer<Note>| {
            sealer.seal(Note { body: Bytes::parse(&[9; 100]).unwrap() }, &1).unwrap()
        };
        let notes: Vec<Sealed<Note>> = sealers.into_iter().map(|sealer| seal(&sealer.unwrap())).collect();
        let records: Vec<_> = ids.iter().zip(&notes).map(|(id, note)| (id, &1, note)).collect();
        let (results, took, asked) = recorded(&record, vault.put_many(&records, &me, &why)).await;
        assert!(results.iter().all(Result::is_ok));
        describe("put_many", &asked);
        put.took(took, bare.replay(&asked).await);

        let (grants, took, asked) =
            recorded(&record, Box::pin(vault.unlock_many::<Shipping>(&token, &ids))).await;
        assert!(grants.unwrap().iter().all(Result::is_ok));
        describe("unlock_many", &asked);
        unlocked.took(took, bare.replay(&asked).await);
    }
    enrolled.print(&format!("enroll_many of {people}"));
    put.print(&format!("put_many of {people}"));
    unlocked.print(&format!("unlock_many of {people}"));
    let unlocks = people / 5;
    let some = async {
        for number in 0..unlocks {
            drop(vault.unlock::<Shipping>(&token, &id(0, number % people)).await.unwrap());
        }
    };
    let ((), _, asked) = recorded(&record, some).await;
    store.without_hook();
    let keys = asked.into_iter().filter_map(|asked| match asked {
        Asked::Read(keys) => Some(keys),
        Asked::Commit(_) => None,
    });
    one_by_one(server, &vault, token, rounds, keys.collect()).await;
}

/// So many pieces of work, dealt out to the tasks.
async fn from_tasks<F: Future<Output = ()> + Send + 'static>(
    pieces: usize,
    work: impl Fn(usize, usize) -> F + Clone + Send + 'static,
) -> Duration {
    let start = Instant::now();
    let task = |task: usize| {
        let work = work.clone();
        tokio::spawn(async move {
            for number in (task..pieces).step_by(TASKS) {
                work(task, number).await;
            }
        })
    };
    let tasks: Vec<_> = (0..TASKS).map(task).collect();
    for task in tasks {
        task.await.unwrap();
    }
    start.elapsed()
}

/// How many times the rate of plain transactions of `rows` rows, one after the other, this one is.
async fn beside_alone(bare: &Bare, what: &str, pieces: usize, took: Duration, rows: usize) {
    let alone = 300;
    let entries: Vec<Columns> = (0..alone).map(|number| plain(&format!("{what} {number}"), rows)).collect();
    let start = Instant::now();
    for entry in &entries {
        bare.write(entry).await;
    }
    let alone = f64::from(alone) / start.elapsed().as_secs_f64();
    let rate = pieces as f64 / took.as_secs_f64();
    println!(
        "{what} from {TASKS} tasks: {rate:.0} a second, {:.1} times one plain transaction of {rows} rows after the other \
         ({alone:.0} a second)",
        rate / alone
    );
}

/// Rows of a log entry's size that are nowhere yet.
fn plain(name: &str, rows: usize) -> Columns {
    let mut columns = Columns::default();
    for row in 0..rows {
        columns.keys.push(format!("\u{7f}{name} {row}").into_bytes());
        columns.versions.push(vec![0; 16]);
        columns.values.push(vec![0; 150]);
    }
    columns
}

/// Unlocks from some tasks, each with its entry in the log durable before it is given, beside as many plain reads of the
/// same rows and plain inserts of an entry's bytes, which the server makes durable together. Then enrolments.
async fn one_by_one(server: &Server, vault: &Vault, token: Token, rounds: usize, keys: Vec<Vec<Key>>) {
    let token = Arc::new(token);
    let (unlocks, keys) = (keys.len(), Arc::new(keys));
    let mut clients = Vec::new();
    for _ in 0..TASKS {
        clients.push(Arc::new(Bare::connect(&server.url("postgres")).await));
    }
    let (mut beside, mut took) = (Beside::default(), Duration::ZERO);
    let clients = Arc::new(clients);
    for round in 0..rounds {
        let (vault, token) = (vault.clone(), Arc::clone(&token));
        took = from_tasks(unlocks, move |_, number| {
            let (vault, token) = (vault.clone(), Arc::clone(&token));
            async move { drop(vault.unlock::<Shipping>(&token, &id(0, number)).await.unwrap()) }
        })
        .await;
        let (clients, keys) = (Arc::clone(&clients), Arc::clone(&keys));
        let bare = from_tasks(unlocks, move |task, number| {
            let (client, keys) = (Arc::clone(&clients[task]), Arc::clone(&keys));
            async move {
                client.read(&keys[number]).await;
                client.write(&plain(&format!("{round} {number}"), 1)).await;
            }
        })
        .await;
        beside.took(took, bare);
    }
    beside.print(&format!("{unlocks} unlocks from {TASKS} tasks"));
    beside_alone(&clients[0], "unlocks", unlocks, took, 1).await;
    let newcomers = vault.clone();
    let took = from_tasks(unlocks, move |_, number| {
        let vault = newcomers.clone();
        async move { vault.enroll(&id(usize::MAX, number), [], &tester(), &test_ground()).await.unwrap() }
    })
    .await;
    beside_alone(&clients[0], "enrolments", unlocks, took, 6).await;
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let asked = std::env::var("PEOPLE").ok().and_then(|number| number.parse().ok());
    let people: usize = asked.unwrap_or(if measured { 10_000 } else { 20 });
    let rounds = if measured { 3 } else { 1 };
    let server = Server::start("bench", &["max_connections=120"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench(&server, people, rounds));
}
