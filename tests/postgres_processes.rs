//! Four processes on one vault, killed, stopped and resumed at random: no change that was acknowledged is lost, and
//! nothing opens after a forget has returned.
//!
//! `VAULT_PROCESS_SECONDS=600 cargo test --features postgres --test postgres_processes` runs for ten minutes.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test"
)]
#![allow(unreachable_pub, missing_docs, dead_code, reason = "a module of several tests")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use customer_vault::error::{Erased, KeeperError, Misuse};
use customer_vault::keeper::{FileKeeper, FileKeeperOptions, FileSecret};
use customer_vault::store::{PostgresOptions, PostgresStore};
use customer_vault::testing::{test_ground, tester};
use customer_vault::value::FreeText;
use customer_vault::*;

#[path = "services/postgres.rs"]
mod server;
use server::Server;

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
}

record! {
    /// Says to whom and to which enrolment it belongs.
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// `person enrolment number`.
        pub text: FreeText = 1 "text", basic, for [Shipping: 90 days];
    }
}

const PROCESSES: usize = 4;
/// How many people each process has to itself; anybody opens what is theirs.
const PEOPLE: usize = 10;

/// A generator of its own for each process: xorshift64*, which is enough to choose what to do.
struct Dice(u64);

impl Dice {
    fn seeded(salt: u64) -> Dice {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Dice(u64::from(now.subsec_nanos()) ^ (salt << 32) ^ u64::from(std::process::id()) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(u64::try_from(n).unwrap())).unwrap()
    }
}

/// Microseconds by the clock that all processes of the machine share.
fn now() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros()
}

/// What has become of a person, as far as their process was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Person {
    /// How many enrolments were acknowledged.
    enrolments: u64,
    forgotten: bool,
    /// Numbers of records that were acknowledged in the newest enrolment.
    records: u64,
    /// What was begun and has no answer.
    doubt: Option<char>,
}

/// A process's own account, which outlives it.
struct History {
    file: File,
    people: Vec<Person>,
}

impl History {
    /// Reads what there is, to go on from there.
    fn resume(path: &Path) -> History {
        let people = read(path).0;
        History { file: File::options().create(true).append(true).open(path).unwrap(), people }
    }

    fn write(&mut self, line: &str) {
        // One write: a process that is killed leaves whole lines.
        self.file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn begin(&mut self, what: char, person: usize) {
        self.write(&format!("{what} {person}"));
        apply(&mut self.people, what, person, false);
    }

    fn done(&mut self, what: char, person: usize) {
        self.write(&format!("{what} {person} {}", now()));
        apply(&mut self.people, what, person, true);
    }
}

fn apply(people: &mut [Person], what: char, person: usize, done: bool) {
    let person = &mut people[person];
    if !done {
        person.doubt = Some(what);
        return;
    }
    person.doubt = None;
    match what {
        'e' => (person.enrolments, person.forgotten, person.records) = (person.enrolments + 1, false, 0),
        'f' => person.forgotten = true,
        'p' => person.records += 1,
        _ => panic!("{what}"),
    }
}

/// What a process has told: its people, when which enrolment's forget returned, what it opened, what went wrong.
type Told = (Vec<Person>, Vec<(usize, u64, u128)>, Vec<(usize, u64, u128)>, Vec<String>);

fn read(path: &Path) -> Told {
    let (mut people, mut forgets, mut opens, mut faults) =
        (vec![Person::default(); PEOPLE], Vec::new(), Vec::new(), Vec::new());
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["!", ..] => faults.push(line.to_owned()),
            ["o", person, enrolment, at] => {
                opens.push((person.parse().unwrap(), enrolment.parse().unwrap(), at.parse().unwrap()));
            }
            [what, person] => {
                apply(&mut people, what.chars().next().unwrap(), person.parse().unwrap(), false);
            }
            [what, person, at] => {
                let person: usize = person.parse().unwrap();
                if *what == "f" {
                    forgets.push((person, people[person].enrolments, at.parse().unwrap()));
                }
                apply(&mut people, what.chars().next().unwrap(), person, true);
            }
            _ => panic!("{line}"),
        }
    }
    (people, forgets, opens, faults)
}

fn id(process: usize, person: usize) -> SubjectId {
    SubjectId::new(&format!("{process}-{person}")).unwrap()
}

fn options() -> Options {
    let settings = Settings::default().bound_ms(500).unwrap().grace_days(0).unwrap().height(2).unwrap();
    let window = RestoreWindow::none_every_older_backup_of_the_keys_dies_at_once();
    Options::new().record::<Order>().settings(settings.restore_window(window))
}

fn keeper(dir: &Path, make: bool) -> FileKeeper {
    let secret = FileSecret::key([7; 32].into());
    let path = dir.join("keys");
    if make {
        FileKeeperOptions::new().shared().create(path, secret)
    } else {
        FileKeeperOptions::new().shared().open(path, secret)
    }
    .unwrap()
}

async fn store(url: &str) -> PostgresStore {
    PostgresStore::connect(PostgresOptions::new(url).unwrap().connections(4)).await.unwrap()
}

/// One of the processes: the test below starts its own program with these variables.
#[test]
fn one_of_the_processes() {
    let Ok(url) = std::env::var("VAULT_PROCESS_URL") else { return };
    let dir = PathBuf::from(std::env::var("VAULT_PROCESS_DIR").unwrap());
    let process: usize = std::env::var("VAULT_PROCESS").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work(&url, &dir, process));
}

async fn work(url: &str, dir: &Path, process: usize) {
    let vault = loop {
        let keeper = keeper(dir, false);
        match options().open(store(url).await, keeper.clone(), keeper).await {
            Ok(vault) => break vault,
            Err(Error::Busy | Error::Keeper(KeeperError::Locked) | Error::Store(_)) => {}
            Err(why) => panic!("it does not open: {why:?}"),
        }
    };
    tokio::spawn({
        let vault = vault.clone();
        async move {
            loop {
                let _ = vault.watch().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let mut dice = Dice::seeded(u64::try_from(process).unwrap());
    let mut history = History::resume(&dir.join(format!("history-{process}")));
    let hour = Duration::from_secs(3600);
    let token = loop {
        match vault.issue::<Shipping>(&tester(), &test_ground(), hour, Scope::everyone()).await {
            Ok(token) => break token,
            Err(why) => note(&mut history, "issue", why),
        }
    };
    let mut held: Vec<(usize, Grant<Shipping>, SealedOrder, u64)> = Vec::new();
    loop {
        let person = dice.index(PEOPLE);
        match dice.below(100) {
            // What was begun and has no answer is done again first.
            0..45 => change(&vault, &mut history, process, person, &mut dice).await,
            45..85 => {
                let of = dice.index(PROCESSES);
                open(&vault, &mut history, &token, (of, person), &mut held, &mut dice).await;
            }
            85..95 => {
                // Grants that were taken some time ago.
                for (person, grant, sealed, number) in &held {
                    opened(&mut history, *person, grant, sealed, *number);
                }
            }
            95..98 => maintain(&mut history, "shred", vault.shred(&tester(), &test_ground()).await.map(drop)),
            _ => maintain(&mut history, "settle", vault.settle(&tester(), &test_ground()).await.map(drop)),
        }
        held.truncate(12);
    }
}

/// One change of a person who is this process's own.
async fn change(vault: &Vault, history: &mut History, process: usize, person: usize, dice: &mut Dice) {
    let (actor, ground, who) = (tester(), test_ground(), id(process, person));
    let state = history.people[person].clone();
    let what = match state.doubt {
        Some(what) => what,
        None if state.enrolments == 0 || state.forgotten => 'e',
        None if dice.below(5) == 0 => 'f',
        None => 'p',
    };
    history.begin(what, person);
    let done = match what {
        'e' => {
            let enrolled = if state.enrolments == 0 {
                vault.enroll(&who, [], &actor, &ground).await
            } else {
                vault.enroll_again(&who, [], &actor, &ground).await
            };
            match enrolled {
                // It had gone through before.
                Err(Error::Misuse(Misuse::AlreadyEnrolled)) if state.doubt.is_some() => Ok(()),
                enrolled => enrolled,
            }
        }
        'f' => match vault.forget(&who, Forget::by(&actor, &ground)).await {
            Err(Error::Erased(Erased::Forgotten)) if state.doubt.is_some() => {
                // Fenced by a call that did not return: it holds everywhere after one bound.
                tokio::time::sleep(vault.settings().bound() * 2).await;
                Ok(())
            }
            forgotten => forgotten.map(drop),
        },
        _ => put(vault, &who, process, person, &state).await,
    };
    match done {
        Ok(()) => history.done(what, person),
        Err(why) => note(history, "change", why),
    }
}

async fn put(vault: &Vault, who: &SubjectId, process: usize, person: usize, state: &Person) -> Result<()> {
    let (actor, ground) = (tester(), test_ground());
    let number = state.records;
    let text = format!("{} {} {number}", process * PEOPLE + person, state.enrolments);
    let sealer = vault.sealer::<Order>(who, &actor, &ground).await?;
    let sealed = sealer.seal(Order { text: FreeText::parse(&text).unwrap() }, &number)?;
    vault.put(who, &number, &sealed, &actor, &ground).await
}

async fn open(
    vault: &Vault,
    history: &mut History,
    token: &Token,
    (process, person): (usize, usize),
    held: &mut Vec<(usize, Grant<Shipping>, SealedOrder, u64)>,
    dice: &mut Dice,
) {
    let who = id(process, person);
    let number = dice.below(6);
    let grant = match vault.unlock::<Shipping>(token, &who).await {
        Ok(grant) => grant,
        Err(why) => return note(history, "unlock", why),
    };
    match vault.get::<Order>(&who, &number, &tester(), &test_ground()).await {
        Ok(Some(sealed)) => {
            let person = process * PEOPLE + person;
            opened(history, person, &grant, &sealed, number);
            held.insert(0, (person, grant, sealed, number));
        }
        Ok(None) => {}
        Err(why) => note(history, "get", why),
    }
}

/// Opens, and tells of which enrolment it was and when opening began.
fn opened(history: &mut History, person: usize, grant: &Grant<Shipping>, sealed: &SealedOrder, number: u64) {
    let began = now();
    let text = sealed.open(grant, &number).and_then(|view| Ok(view.text()?.expose().to_owned()));
    match text {
        Ok(text) => {
            let words: Vec<u64> = text.split(' ').map(|word| word.parse().unwrap()).collect();
            if words[0] != u64::try_from(person).unwrap() || words[2] != number {
                history.write("! somebody else's record");
            }
            history.write(&format!("o {person} {} {began}", words[1]));
        }
        Err(why) => note(history, "open", why),
    }
}

fn maintain(history: &mut History, what: &str, done: Result<()>) {
    if let Err(why) = done {
        note(history, what, why);
    }
}

/// What may be said where processes meet, stop and die, and what may not.
fn note(history: &mut History, what: &str, why: Error) {
    let expected = matches!(
        why,
        Error::Busy
            | Error::Stale
            | Error::NotEnrolled
            | Error::Erased(_)
            | Error::Absent(_)
            | Error::Store(_)
            | Error::Keeper(KeeperError::Locked)
    );
    // A grant from before an enrolment does not open what was sealed in it.
    let older = what == "open" && why == Error::DoesNotOpen;
    if !expected && !older {
        history.write(&format!("! {what} {why:?}"));
    }
}

fn spawn(url: &str, dir: &Path, process: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_of_the_processes", "--nocapture", "--test-threads=1"])
        .env("VAULT_PROCESS_URL", url)
        .env("VAULT_PROCESS_DIR", dir)
        .env("VAULT_PROCESS", process.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::options().create(true).append(true).open(dir.join(format!("said-{process}"))).unwrap())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, name: &str) {
    drop(Command::new("kill").args([name, &child.id().to_string()]).status());
}

#[test]
fn abuse_28_processes_that_are_killed_stopped_and_resumed_lose_nothing_and_open_nothing_that_was_forgotten() {
    let server = Server::start("processes", &[]);
    let url = server.url("postgres");
    let dir = server.dir.join("shop");
    fs::create_dir(&dir).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let keeper = keeper(&dir, true);
        drop(options().create(store(&url).await, keeper.clone(), keeper).await.unwrap());
    });

    let seconds = std::env::var("VAULT_PROCESS_SECONDS").map_or(25, |text| text.parse().expect("a number"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut processes: Vec<Child> = (0..PROCESSES).map(|process| spawn(&url, &dir, process)).collect();
    let mut dice = Dice::seeded(99);
    let (mut killed, mut stopped) = (0_u32, 0_u32);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(300 + dice.below(1200)));
        let which = dice.index(PROCESSES);
        let ended = processes[which].try_wait().unwrap();
        if dice.below(2) == 0 || ended.is_some() {
            let said = fs::read_to_string(dir.join(format!("said-{which}"))).unwrap();
            assert!(ended.is_none(), "a process has ended by itself: {said}");
            signal(&processes[which], "-KILL");
            processes[which].wait().unwrap();
            processes[which] = spawn(&url, &dir, which);
            killed += 1;
        } else {
            signal(&processes[which], "-STOP");
            std::thread::sleep(Duration::from_millis(100 + dice.below(2500)));
            signal(&processes[which], "-CONT");
            stopped += 1;
        }
    }
    for process in &mut processes {
        signal(process, "-KILL");
        process.wait().unwrap();
    }

    let told: Vec<Told> =
        (0..PROCESSES).map(|process| read(&dir.join(format!("history-{process}")))).collect();
    let faults: Vec<&String> = told.iter().flat_map(|told| &told.3).collect();
    assert!(faults.is_empty(), "{faults:?}");
    let mut forgotten: BTreeMap<(usize, u64), u128> = BTreeMap::new();
    for (process, (_, forgets, ..)) in told.iter().enumerate() {
        for (person, enrolment, at) in forgets {
            let first = forgotten.entry((process * PEOPLE + person, *enrolment)).or_insert(*at);
            *first = (*first).min(*at);
        }
    }
    let mut opens = 0;
    for (person, enrolment, began) in told.iter().flat_map(|told| &told.2) {
        opens += 1;
        if let Some(returned) = forgotten.get(&(*person, *enrolment)) {
            assert!(began <= returned, "opened {} µs after its forget had returned", began - returned);
        }
    }
    let counts = runtime.block_on(verify(&url, &dir, &told));
    println!(
        "{killed} killed, {stopped} stopped, {opens} opens, {} forgets, {} enrolments and {} records checked",
        forgotten.len(),
        counts.0,
        counts.1
    );
    assert!(opens > 0 && !forgotten.is_empty() && counts.0 > 0, "it has tried something");
}

/// That everything which was acknowledged is there.
async fn verify(url: &str, dir: &Path, told: &[Told]) -> (u64, u64) {
    let keeper = keeper(dir, false);
    let vault = options().open(store(url).await, keeper.clone(), keeper).await.unwrap();
    let (actor, ground) = (tester(), test_ground());
    assert!(vault.verify_log().await.unwrap().holds());
    vault.shred(&actor, &ground).await.unwrap();
    vault.settle(&actor, &ground).await.unwrap();
    let (mut enrolments, mut records) = (0, 0);
    for (process, (people, ..)) in told.iter().enumerate() {
        for (person, state) in people.iter().enumerate() {
            let who = id(process, person);
            let unlocked = testing::grant::<Shipping>(&vault, &who).await;
            enrolments += state.enrolments;
            let grant = match (state, unlocked) {
                (Person { doubt: Some('e' | 'f'), .. }, _)
                | (Person { enrolments: 0, .. }, Err(Error::NotEnrolled))
                | (Person { forgotten: true, .. }, Err(Error::Erased(Erased::Forgotten))) => continue,
                (Person { forgotten: false, enrolments: 1.., .. }, Ok(grant)) => grant,
                (state, unlocked) => panic!("{who:?} {state:?} {:?}", unlocked.err()),
            };
            for number in 0..state.records {
                let sealed = vault.get::<Order>(&who, &number, &actor, &ground).await.unwrap();
                let sealed = sealed.unwrap_or_else(|| panic!("record {number} of {who:?} {state:?} is lost"));
                let view = sealed.open(&grant, &number).unwrap();
                let expected = format!("{} {} {number}", process * PEOPLE + person, state.enrolments);
                assert_eq!(view.text().unwrap().expose(), expected);
                records += 1;
            }
        }
    }
    (enrolments, records)
}
