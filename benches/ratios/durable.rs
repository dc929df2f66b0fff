//! Commits that are on the disk when the call returns, beside bare redb with the same rows, one transaction each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use customer_vault::error::Error;
use customer_vault::store::{Batch, Store};
use customer_vault::testing::{MemoryKeeper, test_ground, tester};
use customer_vault::{Options, SubjectId, Vault};
use pollster::block_on;

use crate::common::disk::{BareRedb, Clocked, Folder, Rows, rows_of, together};
use crate::common::measured;
use crate::common::rounds::{Beside, Rounds, beside};
use crate::common::table::{Report, short};
use crate::common::worlds::{Note2, Shipping, token};

const TASKS: usize = 64;
const BARE: &str = "bare redb, the same rows, one transaction each";

pub fn run(report: &mut Report) {
    let folder = Folder::new("durable");
    let store = Clocked::new(&folder.join("vault.redb"));
    let keeper = MemoryKeeper::new();
    let options = Options::new().record::<Note2>();
    let vault = block_on(options.create(store.clone(), keeper.clone(), keeper)).unwrap();
    let bare = BareRedb::new(&folder.join("bare.redb"));
    commits(report, store.inner(), &bare);

    let next = AtomicUsize::new(0);
    let enroll = |_: usize| enrolled(&vault, next.fetch_add(1, Ordering::Relaxed));
    let few = if measured() { 1000 } else { 4 };
    together(TASKS, few, enroll);
    let token = token(&vault);
    let unlock = |number: usize| drop(block_on(vault.unlock::<Shipping>(&token, &id(number % few))).unwrap());

    let seen = |work: &dyn Fn(usize)| {
        let seen = store.seen(|| (0..few.min(50)).for_each(work));
        seen.commits.iter().map(rows_of).filter(|rows| !rows.is_empty()).collect::<Vec<_>>()
    };
    let rows = seen(&unlock);
    written(report, "an unlock", &rows);
    let one = by_turns(&bare, &rows, 1, &|n| together(1, n, unlock));
    report.plain("unlock, durable, one after the other", BARE, one);
    let many = by_turns(&bare, &rows, 20, &|n| together(TASKS, n, unlock));
    report.at_least("unlock, durable, 64 waiting", BARE, many, 15.0);
    let rows = seen(&enroll);
    written(report, "an enrolment", &rows);
    let one = by_turns(&bare, &rows, 1, &|n| together(1, n, enroll));
    report.plain("enroll, durable, one after the other", BARE, one);
    let many = by_turns(&bare, &rows, 20, &|n| together(TASKS, n, enroll));
    report.at_least("enroll, durable, 64 waiting", BARE, many, 15.0);
}

/// Rows and bytes that one commit writes, names and versions included.
fn written(report: &mut Report, what: &str, commits: &[Rows]) {
    let rows: usize = commits.iter().map(Vec::len).sum();
    let bytes: usize = commits.iter().flatten().map(|(name, row)| name.len() + row.len()).sum();
    let each = |sum: usize| short(sum as f64 / commits.len() as f64);
    report.figure(&format!("{what} writes"), &format!("{} rows, {} B", each(rows), each(bytes)));
}

/// Rounds of `more` times as many calls as there are bare transactions beside them.
fn by_turns(bare: &BareRedb, rows: &[Rows], more: usize, ours: &dyn Fn(usize) -> Duration) -> Beside {
    let of = if measured() {
        Rounds { rounds: 20, each: 64 * more }
    } else {
        Rounds { rounds: 1, each: 2 * more }
    };
    let mut at = 0;
    beside(of, ours, |n| {
        let transactions = n.div_ceil(more);
        let start = Instant::now();
        for _ in 0..transactions {
            bare.commit(&rows[at % rows.len()]);
            at += 1;
        }
        start.elapsed().mul_f64(n as f64 / transactions as f64)
    })
}

fn id(number: usize) -> SubjectId {
    SubjectId::new(&format!("customer {number}")).unwrap()
}

fn enrolled(vault: &Vault, number: usize) {
    while let Err(why) = block_on(vault.enroll(&id(number), [], &tester(), &test_ground())) {
        assert_eq!(why, Error::Busy, "customer {number}");
    }
}

/// The store port alone: two rows of 200 bytes.
fn commits(report: &mut Report, store: &impl Store, bare: &BareRedb) {
    let next = AtomicUsize::new(0);
    let name = |number: usize, row: u8| [b"\x7f", &number.to_be_bytes()[..], &[row]].concat();
    let commit = |_: usize| {
        let (number, mut batch) = (next.fetch_add(1, Ordering::Relaxed), Batch::new().unwrap());
        batch.put(&name(number, 0), vec![7; 200]).put(&name(number, 1), vec![7; 200]);
        block_on(store.commit(batch)).unwrap();
    };
    let rows: Vec<Rows> =
        (0..1 << 12).map(|n| [0, 1].map(|row| (name(n, row), vec![7; 216])).to_vec()).collect();
    let one = by_turns(bare, &rows, 1, &|n| together(1, n, commit));
    report.plain("a commit of two rows, alone", BARE, one);
    let many = by_turns(bare, &rows, 20, &|n| together(TASKS, n, commit));
    report.at_least("a commit of two rows, 64 waiting", BARE, many, 15.0);
}
