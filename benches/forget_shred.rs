//! What forgetting and shredding one among many costs, and what expiring a day costs that few or many values were sealed
//! to: in rows of the store, which do not depend on the machine, and in time.
//!
//! `SUBJECTS` is the largest number of subjects, `VALUES` the larger number of values.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::time::Instant;

use customer_vault::store::MemoryStore;
use customer_vault::testing::{Counts, FaultStore, ManualClock, MemoryKeeper, test_ground, tester};
use customer_vault::value::Bytes;
use customer_vault::{Day, Forget, Options, Result, SubjectId, Vault, purposes, record};
use pollster::block_on;

purposes! {
    Shipping: Contract = 1 "shipping";
    Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    struct Note[u64] / SealedNote / NoteView in note = "note" {
        body: Bytes = 1 "body", basic, for [Shipping: 20 days, Invoicing: 60 days];
    }
}

struct World {
    vault: Vault,
    clock: ManualClock,
    store: FaultStore<MemoryStore>,
}

fn id(number: usize) -> SubjectId {
    SubjectId::new(&format!("customer {number}")).unwrap()
}

impl World {
    fn new(subjects: usize) -> Self {
        let (store, keeper) = (FaultStore::new(MemoryStore::new()), MemoryKeeper::new());
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let options = Options::new().record::<Note>().clock(clock.clone());
        let vault = block_on(options.create(store.clone(), keeper.clone(), keeper)).unwrap();
        for number in 0..subjects {
            block_on(vault.enroll(&id(number), [], &tester(), &test_ground())).unwrap();
        }
        World { vault, clock, store }
    }

    fn measured<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> T {
        let (before, start) = (self.store.counts(), Instant::now());
        let done = block_on(work).unwrap();
        let Counts { rows_read, rows_scanned, commits, rows_written, .. } = self.store.counts() - before;
        println!(
            "{what}: {rows_read} rows read, {rows_scanned} scanned, {rows_written} written in {commits} commits, {:.0} µs",
            start.elapsed().as_secs_f64() * 1e6
        );
        done
    }
}

fn forget_and_shred(subjects: usize) {
    let world = World::new(subjects);
    let (me, why) = (tester(), test_ground());
    for _ in 0..7 {
        // Days that are over go first, so that the shred is alone.
        world.clock.advance_days(1);
        block_on(world.vault.expire(&me, &why)).unwrap();
    }
    let request = Forget::by(&me, &why).without_grace();
    let one = id(subjects / 2);
    world.measured(&format!("forget one of {subjects}"), world.vault.forget(&one, request));
    let done = world.measured(&format!("shred one of {subjects}"), world.vault.shred(&me, &why));
    assert_eq!(done.subjects, 1);
}

fn expire(values: usize) {
    let subjects = 10;
    let world = World::new(subjects);
    let (me, why) = (tester(), test_ground());
    for number in 0..subjects {
        let sealer = block_on(world.vault.sealer::<Note>(&id(number), &me, &why)).unwrap();
        for value in 0..values / subjects {
            let key = u64::try_from(value).unwrap();
            let sealed = sealer.seal(Note { body: Bytes::parse(&[7; 100]).unwrap() }, &key).unwrap();
            // The vault keeps some; that it keeps them makes no difference to the day.
            if value < 10 {
                block_on(world.vault.put(&id(number), &key, &sealed, &me, &why)).unwrap();
            }
        }
    }
    for _ in 0..20 {
        world.clock.advance_days(1);
        block_on(world.vault.expire(&me, &why)).unwrap();
    }
    world.clock.advance_days(1);
    let done = world.measured(&format!("expire a day of {values} values"), world.vault.expire(&me, &why));
    assert_eq!(done.days.len(), 1);
}

fn asked(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let most = asked("SUBJECTS", if measured { 100_000 } else { 10 });
    let mut subjects = 10;
    while subjects <= most {
        forget_and_shred(subjects);
        subjects *= 10;
    }
    expire(10);
    expire(asked("VALUES", if measured { 100_000 } else { 100 }));
}
