//! What sealing adds to a value, and how many rows forgetting, expiring and unlocking touch.
#![cfg(feature = "testing")]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, reason = "a test")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(missing_docs, unreachable_pub, clippy::arithmetic_side_effects, reason = "a test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use customer_vault::store::MemoryStore;
use customer_vault::testing::{
    Call, Counts, FaultStore, ManualClock, MemoryKeeper, ephemeral, test_ground, tester,
};
use customer_vault::value::Bytes;
use customer_vault::*;
use pollster::block_on;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub Invoicing: LegalObligation = 3 "invoicing";
    pub Fraud: LegitimateInterest = 4 "fraud";
}

record! {
    pub struct One[u64] / SealedOne / OneView in one = "one" {
        pub a: Bytes = 1 "a", basic, for [Shipping: 90 days];
    }
}

record! {
    pub struct Five[u64] / SealedFive / FiveView in five = "five" {
        pub a: Bytes = 1 "a", basic, for [Shipping: 90 days, Invoicing: 2 years, Fraud: 30 days];
        pub b: Bytes = 2 "b", basic, for [Shipping: 90 days, Invoicing: 2 years, Fraud: 30 days];
        pub c: Option<Bytes> = 3 "c", basic, for [Shipping: 90 days, Invoicing: 2 years, Fraud: 30 days];
        pub d: Bytes = 64 "d", basic, for [Shipping: 90 days, Invoicing: 2 years];
        pub e: Bytes = 300 "e", basic, for [Shipping: 90 days, Invoicing: 2 years];
    }
}

fn options() -> Options {
    let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
    Options::new().record::<One>().record::<Five>().clock(clock)
}

fn bytes(n: usize) -> Bytes {
    Bytes::parse(&vec![7; n]).unwrap()
}

fn sealer<R: Record>(vault: &Vault, id: &SubjectId) -> Sealer<R> {
    block_on(vault.sealer::<R>(id, &tester(), &test_ground())).unwrap()
}

fn alice() -> SubjectId {
    SubjectId::new("alice").unwrap()
}

/// Of the count before a value: its length plus one, in seven bits a byte.
fn count(n: usize) -> usize {
    match n + 1 {
        0..128 => 1,
        128..16_384 => 2,
        _ => 3,
    }
}

#[test]
fn a_cell_adds_72_bytes_and_52_a_lockbox_and_2_a_short_field() {
    for suite in [Suite::Aes256Gcm, Suite::XChaCha20Poly1305] {
        let vault = block_on(ephemeral(options().settings(Settings::default().suite(suite)))).unwrap();
        block_on(vault.enroll(&alice(), [], &tester(), &test_ground())).unwrap();
        let one = sealer::<One>(&vault, &alice());
        for n in [0, 1, 100, 126, 127, 128, 1000, 16_000, 16_383, 16_384, 100_000] {
            let added = one.seal(One { a: bytes(n) }, &1).unwrap().as_bytes().len() - n;
            // The length before the cell takes one byte below 128 and three above 16 KiB.
            let cell = 69 + 52 + 1 + count(n) + n;
            assert_eq!(added, 1 + count(cell - 1) + 69 + 52 + 1 + count(n), "{n} bytes");
            assert!(added <= 72 + 52 + 1 + count(n) + usize::from(cell >= 16_384));
            let field = one.seal_field::<one::a>(bytes(n), &1).unwrap().as_bytes().len() - n;
            assert_eq!(field, added, "a column of its own is no larger");
        }
        let five = sealer::<Five>(&vault, &alice());
        for n in [0, 100, 126, 127, 2000] {
            let sealed = five.seal(Five { a: bytes(n), b: bytes(n), c: None, d: bytes(n), e: bytes(n) }, &1);
            let added = sealed.unwrap().as_bytes().len() - 4 * n;
            let first = 72 + 3 * 52 + 2 * (1 + count(n)) + 2;
            // No version before the second cell; its fields' numbers are far from the ones before them.
            let second = 71 + 2 * 52 + 2 * (2 + count(n));
            assert_eq!(added, first + second, "{n} bytes");
        }
    }
}

struct Shop {
    store: FaultStore<MemoryStore>,
    vault: Vault,
    clock: ManualClock,
    ids: Vec<SubjectId>,
}

impl Shop {
    /// With so many subjects, and so many orders of theirs that all end on one day.
    fn of(subjects: usize, values: usize, height: u8) -> Shop {
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let (store, keeper) = (FaultStore::new(MemoryStore::new()), MemoryKeeper::new());
        let options = Options::new().record::<One>().clock(clock.clone());
        let options = options.settings(Settings::default().height(height).unwrap());
        let vault = block_on(options.create(store.clone(), keeper.clone(), keeper)).unwrap();
        let ids: Vec<SubjectId> =
            (0..subjects).map(|n| SubjectId::new(&format!("subject {n}")).unwrap()).collect();
        for id in &ids {
            block_on(vault.enroll(id, [], &tester(), &test_ground())).unwrap();
        }
        for n in 0..values {
            let (id, order) = (&ids[n % subjects], (n / subjects).try_into().unwrap());
            let sealed = sealer::<One>(&vault, id).seal(One { a: bytes(10) }, &order).unwrap();
            block_on(vault.put(id, &order, &sealed, &tester(), &test_ground())).unwrap();
        }
        Shop { store, vault, clock, ids }
    }

    fn counting<T>(&self, work: impl Future<Output = Result<T>>) -> (T, Counts) {
        let before = self.store.counts();
        let out = block_on(work).unwrap();
        (out, self.store.counts() - before)
    }
}

#[test]
fn forgetting_one_of_two_thousand_writes_its_bucket_and_its_way_and_no_more() {
    let shop = Shop::of(2000, 2000, 2);
    let (me, why) = (tester(), test_ground());
    for id in [&shop.ids[0], &shop.ids[999]] {
        let request = Forget::by(&me, &why).without_grace();
        let (_, forget) = shop.counting(shop.vault.forget(id, request));
        let (receipt, shred) = shop.counting(shop.vault.shred(&me, &why));
        assert_eq!(receipt.subjects, 1);
        // The entry, its bucket, what is due, the journal's line and fence, the log's entry and head.
        assert_eq!(forget.rows_written, 7);
        // The bucket's entries (2,000 in 256 buckets: 8 on average, hardly ever 25), two levels of 16 nodes, six vault
        // secrets and the days under the root, the epoch; and what a batch notes of itself.
        let written = shred.rows_written;
        assert!((16 + 16 + 6 + 1..=25 + 16 + 16 + 6 + 1 + 20).contains(&written), "{shred:?}");
        assert!(shred.rows_read + shred.rows_scanned < 160, "{shred:?}");
    }
}

#[test]
fn expiring_a_day_writes_as_many_rows_for_two_thousand_values_as_for_ten() {
    let rows = |values| {
        let shop = Shop::of(300, values, 2);
        let (me, why) = (tester(), test_ground());
        for _ in 0..15 {
            shop.clock.advance_days(6);
            block_on(shop.vault.expire(&me, &why)).unwrap();
        }
        let last = Day::from_ymd(2026, 4, 5).unwrap();
        assert_eq!(shop.clock.today(), last);
        shop.clock.advance_days(1);
        let (receipt, counts) = shop.counting(shop.vault.expire(&me, &why));
        assert_eq!(receipt.days, [last]);
        counts
    };
    let (few, many) = (rows(10), rows(2000));
    assert_eq!(many, few);
    assert!(many.rows_written < 120, "{many:?}");
}

#[test]
fn a_cold_unlock_is_one_read_of_many_rows_and_one_commit() {
    let shop = Shop::of(40, 40, 3);
    let (me, why) = (tester(), test_ground());
    let hour = Duration::from_secs(3600);
    let token = block_on(shop.vault.issue::<Shipping>(&me, &why, hour, Scope::everyone())).unwrap();
    let reads: Arc<Mutex<Vec<Vec<Vec<u8>>>>> = Arc::default();
    let seen = Arc::clone(&reads);
    shop.store.before_each(move |call| {
        if let Call::Read(keys) = call {
            seen.lock().unwrap().push(keys.to_vec());
        }
        Box::pin(std::future::ready(()))
    });
    for (n, id) in shop.ids.iter().enumerate() {
        reads.lock().unwrap().clear();
        let (_, counts) = shop.counting(shop.vault.unlock::<Shipping>(&token, id));
        let reads = reads.lock().unwrap();
        assert_eq!(reads.len(), 1, "one multi-key read");
        // The epoch, three nodes, the entry, the fence, and the token's last use, which is written once a minute.
        assert_eq!(reads[0].len(), 7);
        assert_eq!(counts.scans, 0);
        assert_eq!(counts.commits, if n == 0 { 2 } else { 1 });
        assert_eq!(counts.rows_written, if n == 0 { 3 } else { 2 }, "an entry and the head of the lane");
    }
}
