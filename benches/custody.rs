//! What replacing a root costs with a keeper outside of the process, while others read and write, beside what the service
//! needs to make one key. No call of anybody may fail meanwhile.
//!
//! A token of SoftHSM is made for it, in a folder below `TMPDIR`, and a server of OpenBao started (named in `BAO_BIN`). What is
//! not there it says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]
#![allow(clippy::print_stdout, clippy::disallowed_methods)]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "the token's file is the tests'")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::Criterion;
use cryptoki::context::Pkcs11;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use customer_vault::keeper::{
    Keeper, Pkcs11Keeper, Pkcs11Options, ServerCopies, TokenPin, TokenSlot, TransitKeeper,
};
use customer_vault::store::RedbStore;
use customer_vault::testing::{MemoryKeeper, grant, test_ground, tester};
use customer_vault::value::Bytes;
use customer_vault::{
    Error, Forget, Options, RestoreWindow, Result, Settings, SubjectId, Vault, purposes, record,
};
use pollster::block_on;

#[path = "../tests/services/bao.rs"]
mod bao;
#[path = "../tests/services/softhsm.rs"]
mod softhsm;
use softhsm::{PIN, Tokens};

purposes! {
    Shipping: Contract = 1 "shipping";
}

record! {
    struct Note[u64] / SealedNote / NoteView in note = "note" {
        body: Bytes = 1 "body", basic, for [Shipping: 90 days];
    }
}

const PEOPLE: usize = 50;
const READERS: usize = 2;
const WRITERS: usize = 2;

fn id(kind: &str, number: usize) -> SubjectId {
    SubjectId::new(&format!("{kind} {number}")).unwrap()
}

fn note() -> Note {
    Note { body: Bytes::parse(&[7; 100]).unwrap() }
}

/// As a caller does it: once more where somebody else changed the same thing.
fn persistently<T>(busy: &AtomicUsize, mut act: impl FnMut() -> Result<T>) -> T {
    loop {
        match act() {
            Err(Error::Busy | Error::Stale) => busy.fetch_add(1, Ordering::Relaxed),
            done => return done.expect("no call fails"),
        };
    }
}

/// A vault on a keeper, and people in it.
struct World {
    vault: Vault,
    next: AtomicUsize,
    calls: AtomicUsize,
    busy: AtomicUsize,
}

impl World {
    fn new(tokens: &Tokens, name: &str, keeper: impl Keeper) -> Self {
        let settings = Settings::default()
            .restore_window(RestoreWindow::none_every_older_backup_of_the_keys_dies_at_once());
        let store = RedbStore::create(tokens.dir.join(name)).unwrap();
        let options = Options::new().record::<Note>().settings(settings);
        let vault = block_on(options.create(store, keeper, MemoryKeeper::new())).unwrap();
        for number in 0..PEOPLE {
            block_on(vault.enroll(&id("reader", number), [], &tester(), &test_ground())).unwrap();
        }
        World { vault, next: AtomicUsize::new(0), calls: AtomicUsize::new(0), busy: AtomicUsize::new(0) }
    }

    /// Takes a grant and opens with it.
    fn read(&self, who: usize) {
        let subject = id("reader", who % PEOPLE);
        let (me, why) = (tester(), test_ground());
        let sealed = persistently(&self.busy, || {
            block_on(self.vault.sealer::<Note>(&subject, &me, &why))?.seal(note(), &1)
        });
        persistently(&self.busy, || {
            let grant = block_on(grant::<Shipping>(&self.vault, &subject))?;
            sealed.open(&grant, &1).map(|_| ())
        });
        self.calls.fetch_add(2, Ordering::Relaxed);
    }

    /// Takes somebody in, and keeps something of theirs.
    fn write(&self) {
        let subject = id("writer", self.next.fetch_add(1, Ordering::Relaxed));
        let (me, why) = (tester(), test_ground());
        persistently(&self.busy, || block_on(self.vault.enroll(&subject, [], &me, &why)));
        persistently(&self.busy, || {
            let sealed = block_on(self.vault.sealer::<Note>(&subject, &me, &why))?.seal(note(), &1)?;
            block_on(self.vault.put(&subject, &1, &sealed, &me, &why))
        });
        self.calls.fetch_add(2, Ordering::Relaxed);
    }

    /// A shred of one subject, which replaces the root: the time of it alone. The old root is destroyed afterwards.
    fn replace(&self) -> Duration {
        let subject = id("leaves", self.next.fetch_add(1, Ordering::Relaxed));
        let (me, why) = (tester(), test_ground());
        persistently(&self.busy, || block_on(self.vault.enroll(&subject, [], &me, &why)));
        let forget = || Forget::by(&me, &why).without_grace();
        persistently(&self.busy, || block_on(self.vault.forget(&subject, forget())));
        let start = Instant::now();
        let done = persistently(&self.busy, || block_on(self.vault.shred(&me, &why)));
        let took = start.elapsed();
        assert!(done.epoch_left.is_some(), "a root was replaced");
        let settled = persistently(&self.busy, || block_on(self.vault.settle(&me, &why)));
        assert_eq!(settled.roots, 1);
        took
    }

    fn replacements(&self, n: u64) -> Duration {
        (0..n).map(|_| self.replace()).sum()
    }

    /// The same while others read and write.
    fn replacements_under_load(&self, n: u64) -> Duration {
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            for reader in 0..READERS {
                let done = &done;
                threads.spawn(move || {
                    let mut who = reader;
                    while !done.load(Ordering::Relaxed) {
                        self.read(who);
                        who += READERS;
                    }
                });
            }
            for _ in 0..WRITERS {
                threads.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        self.write();
                    }
                });
            }
            let took = self.replacements(n);
            done.store(true, Ordering::Relaxed);
            took
        })
    }
}

fn compare<K: Keeper>(c: &mut Criterion, tokens: &Tokens, name: &str, keeper: K) {
    let world = World::new(tokens, name, keeper);
    let mut group = c.benchmark_group(name);
    group.sample_size(10).measurement_time(Duration::from_secs(5)).warm_up_time(Duration::from_secs(1));
    group.bench_function("replacement, alone", |b| b.iter_custom(|n| world.replacements(n)));
    group.bench_function("replacement, under load", |b| b.iter_custom(|n| world.replacements_under_load(n)));
    group.finish();
    let (calls, busy) = (world.calls.into_inner(), world.busy.into_inner());
    println!("{name}: {calls} calls of readers and writers meanwhile, none failed; {busy} were made again\n");
}

/// What the token itself needs to make an AES key that it keeps.
fn bare(c: &mut Criterion, library: &Pkcs11) {
    let slots = library.get_slots_with_initialized_token().unwrap();
    let session = library.open_rw_session(slots[0]).unwrap();
    if session.get_session_info().unwrap().session_state() != cryptoki::session::SessionState::RwUser {
        session.login(UserType::User, Some(&AuthPin::from(PIN))).unwrap();
    }
    c.bench_function("softhsm/bare key", |b| {
        b.iter_custom(|n| {
            let template = [
                Attribute::Token(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::ValueLen(32.into()),
            ];
            let mut took = Duration::ZERO;
            for _ in 0..n {
                let start = Instant::now();
                let key = session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
                took += start.elapsed();
                session.destroy_object(key).unwrap();
            }
            took
        });
    });
}

fn softhsm(c: &mut Criterion, tokens: &Tokens) {
    let module = softhsm::module().unwrap();
    let options = Pkcs11Options::new(&module, TokenSlot::labelled("vault"), || TokenPin::new(PIN.to_owned()));
    let keeper = block_on(Pkcs11Keeper::open(options)).unwrap();
    bare(c, &Pkcs11::new(&module).unwrap());
    compare(c, tokens, "softhsm", keeper);
}

fn openbao(c: &mut Criterion, tokens: &Tokens) {
    let Some(bao) = bao::Bao::start("custody") else { return };
    c.bench_function("openbao/bare key", |b| {
        b.iter_custom(|n| {
            let mut took = Duration::ZERO;
            for number in 0..n {
                let path = format!("transit/keys/bare-{number}");
                let start = Instant::now();
                bao.done("POST", "", &path, serde_json::json!({ "type": "aes256-gcm96", "derived": true }));
                took += start.elapsed();
                bao.done(
                    "POST",
                    "",
                    &format!("{path}/config"),
                    serde_json::json!({ "deletion_allowed": true }),
                );
                bao.done("DELETE", "", &path, serde_json::Value::Null);
            }
            took
        });
    });
    let copies = ServerCopies::none_are_made_and_losing_the_server_loses_the_vault();
    let keeper = TransitKeeper::connect(bao.options(&bao.root), "transit", copies);
    compare(c, tokens, "openbao", block_on(keeper).unwrap());
}

fn main() {
    let Some(tokens) = Tokens::here() else {
        if softhsm::module().is_none() {
            println!(
                "skipped: SoftHSM is not on this machine (Debian: softhsm2), nor named in SOFTHSM2_MODULE"
            );
            return;
        }
        let tokens = Tokens::empty("bench");
        tokens.add("vault");
        // The module reads its settings once in a process: in one that has them.
        let mut child = tokens.command(std::env::current_exe().unwrap());
        assert!(child.args(std::env::args_os().skip(1)).status().unwrap().success());
        return;
    };
    let mut criterion = Criterion::default().configure_from_args();
    compare(&mut criterion, &tokens, "memory", MemoryKeeper::new());
    softhsm(&mut criterion, &tokens);
    openbao(&mut criterion, &tokens);
    criterion.final_summary();
}
