//! Rows of the records layer deleted, put back, exchanged and altered behind the vault's back. ABUSE 6.
#![cfg(feature = "testing")]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, reason = "a test")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(missing_docs, unreachable_pub, reason = "a test")]

use customer_vault::error::RolledBack;
use customer_vault::store::{Batch, MemoryStore, Range, Store, Versioned};
use customer_vault::testing::{ManualClock, MemoryKeeper, grant, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;
use pollster::block_on;

purposes! {
    pub Shipping: Contract = 1 "shipping";
}

record! {
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days];
    }
}

record! {
    pub struct Parcel[u64] / SealedParcel / ParcelView in parcel = "parcel" {
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days];
    }
}

struct Shop {
    store: MemoryStore,
    vault: Vault,
    alice: SubjectId,
    bob: SubjectId,
}

type Rows = Vec<(Vec<u8>, Versioned)>;

impl Shop {
    /// With two orders and a parcel of Alice's, and one order of Bob's.
    fn open() -> Shop {
        let (store, keeper) = (MemoryStore::new(), MemoryKeeper::new());
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let options = Options::new().record::<Order>().record::<Parcel>().clock(clock);
        let vault = block_on(options.create(store.clone(), keeper.clone(), keeper)).unwrap();
        let (alice, bob) = (SubjectId::new("alice").unwrap(), SubjectId::new("bob").unwrap());
        let shop = Shop { store, vault, alice, bob };
        for id in [&shop.alice, &shop.bob] {
            block_on(shop.vault.enroll(id, [], &tester(), &test_ground())).unwrap();
        }
        shop.put(&shop.alice, 1, "first");
        shop.put(&shop.alice, 2, "second");
        shop.put(&shop.bob, 1, "of Bob");
        let sealer = block_on(shop.vault.sealer::<Parcel>(&shop.alice, &tester(), &test_ground())).unwrap();
        let sealed = sealer.seal(Parcel { name: PersonName::parse("parcel").unwrap() }, &1).unwrap();
        block_on(shop.vault.put(&shop.alice, &1, &sealed, &tester(), &test_ground())).unwrap();
        shop
    }

    fn put(&self, id: &SubjectId, order: u64, text: &str) {
        let sealer = block_on(self.vault.sealer::<Order>(id, &tester(), &test_ground())).unwrap();
        let sealed = sealer.seal(Order { name: PersonName::parse(text).unwrap() }, &order).unwrap();
        block_on(self.vault.put(id, &order, &sealed, &tester(), &test_ground())).unwrap();
    }

    /// The names in the orders of a subject, by id.
    fn list(&self, id: &SubjectId) -> Result<Vec<(u64, String)>> {
        let mut found = Vec::new();
        for (order, sealed) in block_on(self.vault.list::<Order, u64>(id, &tester(), &test_ground()))? {
            found.push((order, self.name(id, order, &sealed)?));
        }
        found.sort();
        Ok(found)
    }

    fn get(&self, id: &SubjectId, order: u64) -> Result<Option<String>> {
        match block_on(self.vault.get::<Order>(id, &order, &tester(), &test_ground()))? {
            Some(sealed) => self.name(id, order, &sealed).map(Some),
            None => Ok(None),
        }
    }

    fn name(&self, id: &SubjectId, order: u64, sealed: &SealedOrder) -> Result<String> {
        let grant = block_on(grant::<Shipping>(&self.vault, id)).unwrap();
        Ok(sealed.open(&grant, &order)?.name().unwrap().expose().to_owned())
    }

    /// The rows that begin so: `v` for records, `u` for heads.
    fn rows(&self, prefix: &[u8]) -> Rows {
        block_on(self.store.scan(Range::prefix(prefix), 1000)).unwrap().rows
    }

    fn write(&self, key: &[u8], value: Option<&[u8]>) {
        let mut batch = Batch::new().unwrap();
        match value {
            Some(value) => batch.put(key, value.to_vec()),
            None => batch.delete(key),
        };
        block_on(self.store.commit(batch)).unwrap();
    }

    /// The rows that a change of the vault wrote or removed, as they were before.
    fn changed_by(&self, prefix: &[u8], change: impl FnOnce()) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let before = self.rows(prefix);
        change();
        let after = self.rows(prefix);
        let mut changed = Vec::new();
        for (key, row) in &after {
            let old = before.iter().find(|(known, _)| known == key).map(|(_, old)| old);
            if old.is_none_or(|old| old.value != row.value) {
                changed.push((key.clone(), old.map(|old| old.value.clone())));
            }
        }
        for (key, row) in before {
            if !after.iter().any(|(known, _)| *known == key) {
                changed.push((key, Some(row.value)));
            }
        }
        changed
    }

    fn put_all(&self, rows: &[(Vec<u8>, Option<Vec<u8>>)]) {
        for (key, value) in rows {
            self.write(key, value.as_deref());
        }
    }
}

fn mixed<T: std::fmt::Debug>(outcome: Result<T>) {
    assert_eq!(outcome.unwrap_err(), Error::RolledBack(RolledBack::Mixed));
}

fn all_of_alice() -> Vec<(u64, String)> {
    vec![(1, "first".into()), (2, "second".into())]
}

#[test]
fn list_gives_what_was_put_and_says_so_after_every_change() {
    let shop = Shop::open();
    assert_eq!(shop.list(&shop.alice).unwrap(), all_of_alice());
    shop.put(&shop.alice, 1, "first again");
    shop.put(&shop.alice, 3, "third");
    assert!(block_on(shop.vault.delete::<Order>(&shop.alice, &2, &tester(), &test_ground())).unwrap());
    assert!(!block_on(shop.vault.delete::<Order>(&shop.alice, &2, &tester(), &test_ground())).unwrap());
    assert_eq!(shop.list(&shop.alice).unwrap(), [(1, "first again".into()), (3, "third".into())]);
    assert_eq!(shop.list(&shop.bob).unwrap(), [(1, "of Bob".into())]);
}

#[test]
fn abuse_06_a_row_put_back_is_found_by_list() {
    let shop = Shop::open();
    let old = shop.changed_by(b"v", || shop.put(&shop.alice, 1, "first again"));
    assert_eq!(old.len(), 1);
    shop.put_all(&old);
    mixed(shop.list(&shop.alice));
    assert_eq!(shop.list(&shop.bob).unwrap().len(), 1, "another subject's are as they were");
}

#[test]
fn abuse_06_get_does_not_find_a_row_put_back_or_deleted_and_says_so_in_its_documentation() {
    let shop = Shop::open();
    let old = shop.changed_by(b"v", || shop.put(&shop.alice, 1, "first again"));
    shop.put_all(&old);
    assert_eq!(shop.get(&shop.alice, 1).unwrap().as_deref(), Some("first"));
    shop.write(&old[0].0, None);
    assert_eq!(shop.get(&shop.alice, 1).unwrap(), None);
    mixed(shop.list(&shop.alice));
}

#[test]
fn abuse_06_every_row_that_was_deleted_is_missed() {
    let shop = Shop::open();
    let rows = shop.rows(b"v");
    assert_eq!(rows.len(), 4);
    let mut missed = 0;
    for (key, row) in &rows {
        shop.write(key, None);
        let (alice, bob) = (shop.list(&shop.alice), shop.list(&shop.bob));
        assert!(alice.is_err() != bob.is_err(), "one of them misses it");
        missed += u32::from(alice.is_err());
        shop.write(key, Some(&row.value));
        assert!(shop.list(&shop.alice).is_ok() && shop.list(&shop.bob).is_ok());
    }
    assert_eq!(missed, 3, "the parcel too: the set of all rows is checked");
}

#[test]
fn abuse_06_a_row_that_was_deleted_by_the_vault_does_not_come_back() {
    let shop = Shop::open();
    let old = shop.changed_by(b"v", || {
        block_on(shop.vault.delete::<Order>(&shop.alice, &1, &tester(), &test_ground())).unwrap();
    });
    shop.put_all(&old);
    mixed(shop.list(&shop.alice));
}

#[test]
fn abuse_06_an_older_head_does_not_fit_and_neither_does_anothers() {
    let shop = Shop::open();
    let old = shop.changed_by(b"u", || shop.put(&shop.alice, 3, "third"));
    assert_eq!(old.len(), 1);
    let new = shop.rows(b"u");
    shop.put_all(&old);
    mixed(shop.list(&shop.alice));
    mixed(shop.get(&shop.alice, 3));
    assert_eq!(shop.get(&shop.alice, 1).unwrap().as_deref(), Some("first"));
    let bobs = new.iter().find(|(key, _)| *key != old[0].0).unwrap();
    shop.write(&old[0].0, Some(&bobs.1.value));
    mixed(shop.list(&shop.alice));
    mixed(shop.get(&shop.alice, 1));
    shop.write(&old[0].0, None);
    mixed(shop.list(&shop.alice));
    mixed(shop.get(&shop.alice, 1));
}

#[test]
fn abuse_06_rows_exchanged_between_ids_records_and_subjects_open_nowhere() {
    let shop = Shop::open();
    let rows = shop.rows(b"v");
    for (to, (key, own)) in rows.iter().enumerate() {
        for (from, (_, row)) in rows.iter().enumerate() {
            if from == to {
                continue;
            }
            shop.write(key, Some(&row.value));
            assert!(shop.list(&shop.alice).is_err() || shop.list(&shop.bob).is_err());
            let gets = [shop.get(&shop.alice, 1), shop.get(&shop.alice, 2), shop.get(&shop.bob, 1)];
            let wrong = gets.iter().filter(|got| got.is_err()).count();
            // The parcel's row is no order's.
            assert!(wrong <= 1);
            shop.write(key, Some(&own.value));
        }
    }
    assert_eq!(shop.list(&shop.alice).unwrap(), all_of_alice());
}

#[test]
fn abuse_06_a_row_of_no_name_is_found_by_list() {
    let shop = Shop::open();
    let (key, row) = shop.rows(b"v").remove(0);
    let mut other = key.clone();
    *other.last_mut().unwrap() ^= 1;
    shop.write(&other, Some(&row.value));
    assert!(shop.list(&shop.alice).is_err() || shop.list(&shop.bob).is_err());
}

#[test]
fn abuse_07_every_bit_of_a_stored_row_is_authenticated() {
    let shop = Shop::open();
    for prefix in [b"v", b"u"] {
        for (key, row) in shop.rows(prefix) {
            for at in 0..row.value.len() {
                let mut altered = row.value.clone();
                altered[at] ^= 1 << (at % 8);
                shop.write(&key, Some(&altered));
                assert!(shop.list(&shop.alice).is_err() || shop.list(&shop.bob).is_err(), "byte {at}");
            }
            shop.write(&key, Some(&row.value));
        }
    }
    assert!(shop.list(&shop.alice).is_ok() && shop.list(&shop.bob).is_ok());
}

#[test]
fn abuse_06_all_rows_and_the_head_of_one_subject_put_back_together_are_not_found() {
    let shop = Shop::open();
    let (records, heads) = (shop.rows(b"v"), shop.rows(b"u"));
    shop.put(&shop.alice, 1, "first again");
    shop.put(&shop.alice, 3, "third");
    for (key, _) in shop.rows(b"v") {
        shop.write(&key, None);
    }
    for (key, row) in records.iter().chain(&heads) {
        shop.write(key, Some(&row.value));
    }
    // The head is as old as its rows, and nothing outside the store remembers it.
    assert_eq!(shop.list(&shop.alice).unwrap(), all_of_alice());
}
