//! A fixed number of operations of the hot path, for `ci/counts.sh`, which counts their instructions: `counts JOB N`.
//! `counts store N` prints what the store was asked for by them instead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::print_stdout, clippy::panic, clippy::as_conversions, clippy::cast_possible_truncation)]
#![allow(clippy::cast_precision_loss)]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the other benches")]

use std::hint::black_box;

use customer_vault::store::MemoryStore;
use customer_vault::testing::{FaultStore, MemoryKeeper, test_ground, tester, verify};
use customer_vault::{Options, SubjectId, Suite, Vault};
use pollster::block_on;

#[path = "common/all.rs"]
mod common;
use common::bare::{Aes256Gcm, Bare};
use common::worlds::{Held, Invoicing, NOTE_NAMES, Note2, Order, Shipping, note, note_plan, order, token};

fn seal(suite: Suite, n: usize) {
    let held = Held::new(suite);
    let sealer = held.sealer::<Note2>();
    for _ in 0..n {
        black_box(sealer.seal(note(198), &7).unwrap());
    }
}

fn open(suite: Suite, n: usize) {
    let held = Held::new(suite);
    let sealed = held.sealer::<Note2>().seal(note(198), &7).unwrap();
    let grant = held.grant::<Shipping>();
    for _ in 0..n {
        black_box(black_box(&sealed).open(&grant, &7).unwrap());
    }
}

/// The primitive operations of the two, so that what the vault adds can be told from them.
fn bare(sealing: bool, n: usize) {
    let bare = Bare::<Aes256Gcm>::new(&note_plan::<Note2>(198), NOTE_NAMES);
    let mut room = bare.room();
    for _ in 0..n {
        if sealing { bare.seal(&mut room) } else { bare.open(&mut room) }
    }
}

fn seal_record(n: usize) {
    let held = Held::new(Suite::default());
    let sealer = held.sealer::<Order>();
    for _ in 0..n {
        black_box(sealer.seal(order(), &7).unwrap());
    }
}

fn open_record(n: usize) {
    let held = Held::new(Suite::default());
    let sealed = held.sealer::<Order>().seal(order(), &7).unwrap();
    let grant = held.grant::<Invoicing>();
    for _ in 0..n {
        black_box(black_box(&sealed).open(&grant, &7).unwrap());
    }
}

fn verify_token(n: usize) {
    let held = Held::new(Suite::default());
    let token = token(&held.vault).narrow().subject(&held.id).done().unwrap();
    for _ in 0..n {
        block_on(verify(&held.vault, black_box(&token))).unwrap();
    }
}

fn unlock(n: usize) {
    let held = Held::new(Suite::default());
    let token = token(&held.vault);
    for _ in 0..n {
        black_box(block_on(held.vault.unlock::<Shipping>(&token, &held.id)).unwrap());
    }
}

fn store(n: usize) {
    let (store, keeper) = (FaultStore::new(MemoryStore::new()), MemoryKeeper::new());
    let options = Options::new().record::<Note2>();
    let vault: Vault = block_on(options.create(store.clone(), keeper.clone(), keeper)).unwrap();
    let id = |number: usize| SubjectId::new(&format!("customer {number}")).unwrap();
    let (me, why, token) = (tester(), test_ground(), token(&vault));
    let all: Vec<_> = (0..n).map(id).collect();
    let tally = |what: &str, times: usize, work: &mut dyn FnMut()| {
        let before = store.counts();
        work();
        let used = store.counts() - before;
        let each = [used.reads, used.rows_read, used.scans, used.commits, used.rows_written];
        let names = ["reads", "rows-read", "scans", "commits", "rows-written"];
        for (name, count) in names.iter().zip(each) {
            println!("{what}.{name} {:.2}", count as f64 / times as f64);
        }
    };
    // The first is another: it opens the day.
    block_on(vault.enroll(&id(n), [], &me, &why)).unwrap();
    block_on(vault.unlock::<Shipping>(&token, &id(n))).unwrap();
    tally("store.enroll", n, &mut || {
        for id in &all {
            block_on(vault.enroll(id, [], &me, &why)).unwrap();
        }
    });
    tally("store.unlock", n, &mut || {
        for id in &all {
            block_on(vault.unlock::<Shipping>(&token, id)).unwrap();
        }
    });
    tally("store.unlock-again", n, &mut || {
        for _ in 0..n {
            block_on(vault.unlock::<Shipping>(&token, &all[0])).unwrap();
        }
    });
    tally("store.unlock-many", 1, &mut || {
        drop(block_on(vault.unlock_many::<Shipping>(&token, &all)).unwrap());
    });
    let sealer = block_on(vault.sealer::<Note2>(&all[0], &me, &why)).unwrap();
    let grant = block_on(vault.unlock::<Shipping>(&token, &all[0])).unwrap();
    tally("store.seal-and-open", n, &mut || {
        for _ in 0..n {
            sealer.seal(note(198), &7).unwrap().open(&grant, &7).unwrap();
        }
    });
    tally("store.put", n, &mut || {
        for number in 0..n as u64 {
            let sealed = sealer.seal(note(198), &number).unwrap();
            block_on(vault.put(&all[0], &number, &sealed, &me, &why)).unwrap();
        }
    });
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [job, n] = arguments.as_slice() else { return };
    let n: usize = n.parse().expect("a number of operations");
    match job.as_str() {
        "seal" => seal(Suite::Aes256Gcm, n),
        "open" => open(Suite::Aes256Gcm, n),
        "bare-seal" => bare(true, n),
        "bare-open" => bare(false, n),
        "seal-xchacha" => seal(Suite::XChaCha20Poly1305, n),
        "open-xchacha" => open(Suite::XChaCha20Poly1305, n),
        "seal-record" => seal_record(n),
        "open-record" => open_record(n),
        "verify" => verify_token(n),
        "unlock" => unlock(n),
        "store" => store(n),
        _ => panic!("there is no such job"),
    }
}
