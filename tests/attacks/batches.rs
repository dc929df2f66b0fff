//! Rows about what is being destroyed, altered or put back between two steps: batches and their ways, nodes that were
//! rotated, retired roots, expiries, holds, due dates.

use std::sync::{Arc, Mutex};

use super::*;
use customer_vault::error::RolledBack;
use customer_vault::testing::{Call, CommitFault, FaultStore};

const MIXED: Error = Error::RolledBack(RolledBack::Mixed);

type Writes = Vec<(Key, Option<Vec<u8>>)>;

/// Whether a batch says of its removals that they are all made, of a node that it is rotated, or of the root that it is
/// left.
fn rotates(batch: &Batch) -> bool {
    let says = |row: &Vec<u8>| matches!(row[1], 2 | 3);
    batch.writes.iter().any(|(name, value)| name[0] == b'p' && value.as_ref().is_some_and(says))
}

/// Rows as they lie there now, for putting them back.
fn as_they_are(rows: Vec<(Key, Versioned)>) -> Writes {
    rows.into_iter().map(|(name, row)| (name, Some(row.value))).collect()
}

/// Forgets Alice and shreds. Right before the commit number `at` of those that say what is done, somebody writes to the
/// store. What the shred says, and the reference of the certificate that is to come.
fn attacked(
    shop: &Shop,
    at: usize,
    write: impl Fn(&Shop) -> Writes + Send + Sync + 'static,
) -> (Result<()>, [u8; 16]) {
    let receipt = shop.forget(by().without_grace());
    let store = FaultStore::new(shop.store.clone());
    let vault = shop.process(store.clone()).unwrap();
    let seen = Arc::new(Mutex::new(0));
    let (count, raw) = (Arc::clone(&seen), shop.view());
    store.before_each(move |call| {
        if matches!(call, Call::Commit(batch) if rotates(batch)) {
            let mut count = count.lock().unwrap();
            if *count == at {
                raw.write(write(&raw));
            }
            *count += 1;
        }
        Box::pin(async {})
    });
    let said = block_on(vault.shred(&shop.me, &shop.why)).map(drop);
    assert!(*seen.lock().unwrap() > at, "nobody came to write");
    (said, receipt.reference)
}

impl Shop {
    /// The same rows, for somebody who writes them.
    fn view(&self) -> Shop {
        Shop {
            store: self.store.clone(),
            keeper: self.keeper.clone(),
            clock: self.clock.clone(),
            vault: self.vault.clone(),
            alice: self.alice.clone(),
            me: self.me.clone(),
            why: self.why.clone(),
        }
    }

    fn certified(&self, reference: &[u8; 16]) -> bool {
        block_on(self.vault.certificate(reference)).unwrap().is_some()
    }
}

/// The certificate never comes, and settling says why; Bob, who leaves later, has his.
fn is_never_certified(shop: &Shop, said: Result<()>, reference: &[u8; 16]) {
    assert_eq!(said, Err(MIXED));
    let bob = id("bob");
    shop.enroll(&bob);
    let later = block_on(shop.vault.forget(&bob, by().without_grace())).unwrap().reference;
    shop.shred();
    for _ in 0..6 {
        shop.weeks(1);
        assert_eq!(block_on(shop.vault.settle(&shop.me, &shop.why)).map(drop), Err(MIXED));
    }
    assert_eq!((shop.certified(reference), shop.certified(&later)), (false, true));
    assert!(shop.process(shop.store.clone()).is_ok(), "others go on");
}

#[test]
fn abuse_35_a_way_that_is_taken_away_is_never_certified() {
    for at in 0..3 {
        let shop = Shop::deep();
        let taken = |shop: &Shop| vec![(shop.rows(b"x").remove(0).0, None)];
        let (said, reference) = attacked(&shop, at, taken);
        is_never_certified(&shop, said, &reference);
    }
}

#[test]
fn abuse_35_a_way_that_is_cut_short_is_never_certified() {
    let shop = Shop::deep();
    let cut = |shop: &Shop| {
        let (name, row) = shop.rows(b"x").remove(0);
        let (end, proof) = (row.value.len() - 32, row.value[row.value.len() - 32..].to_vec());
        // Without the last node: a name of two bytes and a digit behind its length, and a generation.
        vec![(name, Some([&row.value[..end - 12], &proof].concat()))]
    };
    let (said, reference) = attacked(&shop, 0, cut);
    is_never_certified(&shop, said, &reference);
}

#[test]
fn abuse_35_a_phase_that_is_altered_or_taken_away_is_never_certified() {
    for taken in [false, true] {
        let shop = Shop::deep();
        let altered = move |shop: &Shop| {
            let (name, mut row) = shop.rows(b"p").remove(0);
            // All nodes of the way are said to be rotated.
            row.value[9] = 9;
            vec![(name, (!taken).then_some(row.value))]
        };
        let (said, reference) = attacked(&shop, 1, altered);
        is_never_certified(&shop, said, &reference);
    }
}

#[test]
fn abuse_35_a_phase_from_before_the_removal_certifies_nothing_of_it() {
    let shop = Shop::deep();
    let receipt = shop.forget(by().without_grace());
    let store = FaultStore::new(shop.store.clone());
    let vault = shop.process(store.clone()).unwrap();
    let (raw, older) = (shop.view(), Mutex::new(Vec::new()));
    store.before_each(move |call| {
        let mut older = older.lock().unwrap();
        match call {
            Call::Commit(batch) if rotates(batch) => raw.write(std::mem::take(&mut *older)),
            Call::Commit(_) if older.is_empty() => *older = as_they_are(raw.rows(b"p")),
            _ => {}
        }
        Box::pin(async {})
    });
    // Who removed knows better.
    let said = block_on(vault.shred(&shop.me, &shop.why)).map(drop);
    assert_eq!(said, Err(MIXED));
    // Who comes later goes on with it, and does not take it for more than it says.
    assert_eq!(shop.shred().subjects, 0);
    is_never_certified(&shop, said, &receipt.reference);
}

#[test]
fn abuse_35_a_phase_from_before_a_rotation_has_it_done_again() {
    let shop = Shop::deep();
    let older = Mutex::new(Vec::new());
    let put_back = move |shop: &Shop| {
        let mut older = older.lock().unwrap();
        let now = as_they_are(shop.rows(b"p"));
        if older.is_empty() { std::mem::replace(&mut *older, now.clone()) } else { older.clone() }
    };
    // Taken before the first rotation is done, and put back before the second, by two who write.
    let receipt = shop.forget(by().without_grace());
    let store = FaultStore::new(shop.store.clone());
    let vault = shop.process(store.clone()).unwrap();
    let (raw, count) = (shop.view(), Mutex::new(0));
    store.before_each(move |call| {
        if matches!(call, Call::Commit(batch) if rotates(batch)) {
            let mut count = count.lock().unwrap();
            if *count == 1 || *count == 2 {
                raw.write(put_back(&raw));
            }
            *count += 1;
        }
        Box::pin(async {})
    });
    assert!(block_on(vault.shred(&shop.me, &shop.why)).unwrap().epoch_left.is_some());
    shop.weeks(5);
    shop.settle();
    assert!(shop.certified(&receipt.reference));
}

#[test]
fn abuse_35_a_bucket_that_is_put_back_after_its_removal_is_never_certified() {
    for (at, level) in [(0, 3), (1, 3), (2, 2), (3, 1)] {
        let shop = Shop::deep();
        let before: Arc<Mutex<Writes>> = Arc::default();
        // With all that lay below it then.
        let of_level = move |rows: Vec<(Key, Versioned)>| {
            as_they_are(rows).into_iter().filter(|(name, _)| name[0] == b's' || name[1] >= level).collect()
        };
        let old: Writes = of_level([shop.rows(b"n"), shop.rows(b"s")].concat());
        *before.lock().unwrap() = old;
        let (said, reference) = attacked(&shop, at, move |_| before.lock().unwrap().clone());
        // The last of them is seen when the root is replaced.
        is_never_certified(&shop, said, &reference);
    }
}

#[test]
fn abuse_35_a_root_that_is_said_to_be_left_long_ago_is_not_destroyed_early() {
    let shop = Shop::open();
    let receipt = shop.forget(by().without_grace());
    let left = shop.shred().epoch_left.unwrap();
    let (name, mut row) = shop.rows(b"q").remove(0);
    // Version, epoch and root id, then the moment.
    row.value[25..33].fill(0);
    shop.write(vec![(name, Some(row.value))]);
    let settled = shop.settle();
    assert_eq!((settled.roots, settled.certificates.len()), (0, 0));
    assert!(shop.held().iter().any(|root| root.epoch == left));
    // It is left now, for all that anybody can say.
    shop.weeks(5);
    assert!(shop.settle().roots > 0);
    assert!(shop.certified(&receipt.reference));
    assert!(shop.held().iter().all(|root| root.epoch > left));
}

#[test]
fn abuse_35_a_retired_root_that_somebody_made_up_keeps_nobody_waiting() {
    let shop = Shop::open();
    let receipt = shop.forget(by().without_grace());
    shop.shred();
    let (_, row) = shop.rows(b"q").remove(0);
    for epoch in [0_u64, 1_000] {
        shop.write(vec![([b"q", &epoch.to_be_bytes()[..]].concat(), Some(row.value.clone()))]);
    }
    shop.weeks(5);
    shop.settle();
    assert!(shop.certified(&receipt.reference));
}

#[test]
fn abuse_32_no_row_that_is_taken_away_loses_what_a_hold_keeps() {
    let shop = Shop::open();
    let almost_over = Day::of(shop.clock.today().start_ms() - 88 * 86_400_000);
    let sealed = shop.sealer().seal_as_of(an_order(), &7, almost_over).unwrap();
    block_on(shop.vault.hold(&shop.alice, &shop.me, &shop.why)).unwrap();
    // All that lies in clear and names a subject, and what says that holds have changed.
    for kind in [&b"g"[..], b"w", b"y"] {
        shop.write(shop.rows(kind).into_iter().map(|(name, _)| (name, None)).collect());
    }
    shop.weeks(1);
    assert!(!name_opens(&sealed, &shop.unlock::<Shipping>().unwrap()));
    assert!(note_opens(&sealed, &shop.unlock::<LegalHold>().unwrap()));
}

/// An expiry that is killed before its note is written, once its days are gone.
fn killed_expiry(shop: &Shop) {
    shop.clock.advance_days(3);
    let store = FaultStore::new(shop.store.clone());
    let vault = shop.process(store.clone()).unwrap();
    let killer = store.clone();
    store.before_each(move |call| {
        if matches!(call, Call::Commit(batch) if batch.writes.iter().any(|(name, _)| name[0] == b'N')) {
            killer.fail_commit(0, CommitFault::KilledBefore);
        }
        Box::pin(async {})
    });
    assert!(block_on(vault.expire(&shop.me, &shop.why)).is_err());
    assert!(store.killed());
    assert_eq!(shop.rows(b"E").len(), 1);
}

#[test]
fn abuse_33_no_note_names_days_that_somebody_made_up() {
    let shop = Shop::open();
    killed_expiry(&shop);
    let (name, mut row) = shop.rows(b"E").remove(0);
    // The first day, behind the batch's id: one in 1971.
    row.value[16..18].copy_from_slice(&400_u16.to_be_bytes());
    shop.write(vec![(name, Some(row.value))]);
    assert_eq!(block_on(shop.vault.expire(&shop.me, &shop.why)).unwrap().days, []);
    shop.clock.advance_days(1);
    let note = block_on(shop.vault.expire(&shop.me, &shop.why)).unwrap().note.unwrap();
    assert!(note.contains("days 2026-01-08 to 2026-01-08: 1 keys destroyed"), "{note}");
    assert_eq!(block_on(shop.vault.expiry_notes()).unwrap().len(), 1);
}

#[test]
fn abuse_33_an_expiry_whose_batch_was_altered_is_made_again() {
    for taken in [false, true] {
        let shop = Shop::open();
        killed_expiry(&shop);
        let epoch = shop.held().iter().map(|root| root.epoch).max().unwrap();
        let altered = shop.rows(b"p").into_iter().map(|(name, mut row)| {
            row.value[13] ^= 1;
            (name, (!taken).then_some(row.value))
        });
        shop.write(altered.collect());
        let done = block_on(shop.vault.expire(&shop.me, &shop.why)).unwrap();
        assert_eq!((done.days.len(), done.epoch_left), (3, Some(epoch)));
        assert!(done.note.unwrap().contains("days 2026-01-05 to 2026-01-07: 3 keys destroyed"));
    }
}

#[test]
fn abuse_33_days_that_are_put_back_are_destroyed_again() {
    let shop = Shop::open();
    shop.clock.advance_days(3);
    let store = FaultStore::new(shop.store.clone());
    let vault = shop.process(store.clone()).unwrap();
    let old = as_they_are([shop.rows(b"m"), shop.rows(b"d")].concat());
    let (raw, old) = (shop.view(), Mutex::new(old));
    store.before_each(move |call| {
        if matches!(call, Call::Commit(batch) if rotates(batch)) {
            raw.write(std::mem::take(&mut *old.lock().unwrap()));
        }
        Box::pin(async {})
    });
    let days = shop.rows(b"d").len();
    assert_eq!(block_on(vault.expire(&shop.me, &shop.why)).map(drop), Err(MIXED));
    assert_eq!(shop.rows(b"d").len(), days);
    assert!(block_on(vault.expiry_notes()).unwrap().is_empty());
    let done = block_on(vault.expire(&shop.me, &shop.why)).unwrap();
    assert_eq!((done.days.len(), shop.rows(b"d").len()), (3, days - 3));
    assert!(done.epoch_left.is_some());
}

#[test]
fn abuse_35_a_due_row_that_is_taken_away_is_not_missed() {
    let shop = Shop::open();
    let receipt = shop.forget(by().without_grace());
    shop.write(shop.rows(b"w").into_iter().map(|(name, _)| (name, None)).collect());
    assert_eq!(shop.shred().subjects, 1);
    assert_eq!(shop.shred().subjects, 0);
    shop.weeks(5);
    assert_eq!(shop.settle().certificates.len(), 1);
    assert!(shop.certified(&receipt.reference));
}
