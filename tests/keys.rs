//! The keys of a vault are changed while it is used: nothing fails meanwhile, and what is retired is over.
#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, missing_docs, unreachable_pub, dead_code, reason = "a test")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use customer_vault::clock::Clock as _;
use customer_vault::error::{Denied, Misuse, RolledBack};
use customer_vault::log::Action;
use customer_vault::note::SignedNote;
use customer_vault::store::{Batch, MemoryStore, Range, Store as _};
use customer_vault::testing::{ManualClock, MemoryKeeper, grant, test_ground, tester};
use customer_vault::value::{Email, PersonName};
use customer_vault::*;
use pollster::block_on;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub Login: Contract = 2 "login";
}

record! {
    pub struct Person / SealedPerson / PersonView in person = "person" {
        pub name: PersonName = 1 "name", basic, for [Shipping: 30 days];
        pub mail: Email = 2 "mail", basic, for [Login: 1 year];
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn id(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

fn alice() -> Person {
    Person { name: PersonName::parse("Alice Lee").unwrap(), mail: Email::parse("alice@example.com").unwrap() }
}

struct World {
    store: MemoryStore,
    keeper: MemoryKeeper,
    clock: ManualClock,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::at(Day::from_ymd(2026, 3, 2).unwrap());
        World { store: MemoryStore::shared_between_handles(), keeper: MemoryKeeper::new(), clock }
    }

    fn options(&self) -> Options {
        // Nobody waits for others here: each test says when they look.
        let settings = Settings::default().bound_ms(100).unwrap().grace_days(0).unwrap();
        Options::new().record::<Person>().settings(settings).clock(self.clock.clone())
    }

    async fn create(&self) -> Vault {
        let keeper = || self.keeper.clone();
        self.options().create(self.store.clone(), keeper(), keeper()).await.unwrap()
    }

    async fn open(&self, store: &MemoryStore) -> Result<Vault> {
        let keeper = || self.keeper.clone();
        self.options().open(store.clone(), keeper(), keeper()).await
    }
}

async fn token(vault: &Vault) -> Token {
    vault.issue::<Shipping>(&tester(), &test_ground(), HOUR, Scope::everyone()).await.unwrap()
}

async fn sealed(vault: &Vault, name: &str) -> SealedPerson {
    let sealer = vault.sealer::<Person>(&id(name), &tester(), &test_ground()).await.unwrap();
    sealer.seal(alice()).unwrap()
}

fn numbers(vault: &Vault, kind: KeyKind) -> Vec<(u16, bool)> {
    vault.keys().iter().filter(|key| key.kind == kind).map(|key| (key.number, key.current)).collect()
}

#[test]
fn tokens_live_on_under_the_former_key_until_it_is_retired() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        let (one, two) = (world.create().await, world.open(&world.store).await.unwrap());
        one.enroll(&id("alice"), [], &me, &why).await.unwrap();
        let sealed = sealed(&one, "alice").await;
        let old = token(&one).await;
        let narrowed = old.narrow().subject(&id("alice")).done().unwrap();
        let change = one.change_key(KeyKind::Tokens, &me, &why).await.unwrap();
        assert_eq!((change.key.number, change.key.current, change.note), (4, true, None));
        assert_eq!(numbers(&one, KeyKind::Tokens), [(1, false), (4, true)]);

        // The other process has not looked since: it finds the new key when it meets a token under it.
        assert_eq!(numbers(&two, KeyKind::Tokens), [(1, true)]);
        let new = token(&one).await;
        for vault in [&two, &one] {
            for token in [&old, &narrowed, &new] {
                let grant = vault.unlock::<Shipping>(token, &id("alice")).await.unwrap();
                assert!(sealed.open(&grant).unwrap().name().is_ok());
            }
        }
        assert_eq!(numbers(&two, KeyKind::Tokens), [(1, false), (4, true)]);
        let keys: Vec<u16> = two.tokens().await.unwrap().iter().map(|info| info.key).collect();
        assert_eq!((keys.len(), keys.contains(&1), keys.contains(&4)), (2, true, true));

        // What is alive keeps the key; then it is over for all, grants that were taken before too.
        let refused = one.retire_keys(KeyKind::Tokens, &me, &why).await;
        assert_eq!(refused, Err(Misuse::InUse.into()));
        let grant = two.unlock::<Shipping>(&old, &id("alice")).await.unwrap();
        one.revoke(Revoke::Token(old.unverified_id()), &me, &why).await.unwrap();
        assert_eq!(one.retire_keys(KeyKind::Tokens, &me, &why).await, Ok(1));
        assert_eq!(one.retire_keys(KeyKind::Tokens, &me, &why).await, Ok(0), "nothing is left to retire");
        assert_eq!(two.unlock::<Shipping>(&old, &id("alice")).await.unwrap_err(), Denied::Revoked.into());
        assert!(sealed.open(&grant).is_err());
        for vault in [&one, &two] {
            assert!(vault.unlock::<Shipping>(&new, &id("alice")).await.is_ok());
            assert!(vault.unlock::<Shipping>(&narrowed, &id("alice")).await.is_err());
        }
        assert_eq!(one.unlock::<Shipping>(&old, &id("alice")).await.unwrap_err(), Denied::NotOurs.into());
        let log = one.log().await.unwrap();
        let of = |action| log.iter().filter(|entry| entry.action() == action).count();
        assert_eq!((of(Action::ChangeKey), of(Action::RetireKeys)), (1, 1));
    });
}

#[test]
fn another_process_refuses_a_retired_key_before_it_has_read_the_new_ones() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        let (one, two) = (world.create().await, world.open(&world.store).await.unwrap());
        one.enroll(&id("alice"), [], &me, &why).await.unwrap();
        let old = token(&one).await;
        world.clock.advance(HOUR + Duration::from_secs(1));
        // It expired by the clock of the one; the other's is behind, as a machine's clock can be.
        one.change_key(KeyKind::Tokens, &me, &why).await.unwrap();
        assert_eq!(one.retire_keys(KeyKind::Tokens, &me, &why).await, Ok(1));
        world.clock.set_wall(world.clock.wall() - 3_600_000);
        assert_eq!(two.unlock::<Shipping>(&old, &id("alice")).await.unwrap_err(), Denied::Revoked.into());
    });
}

#[test]
fn index_values_are_found_under_both_keys_until_the_former_is_retired() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        let (one, two) = (world.create().await, world.open(&world.store).await.unwrap());
        let token = one.issue::<Login>(&me, &why, HOUR, Scope::everyone()).await.unwrap();
        let mail = alice().mail;
        let first = one.index::<person::mail>(&token, &mail).await.unwrap();
        assert_eq!(one.former_index::<person::mail>(&token, &mail).await, Ok(None));
        one.change_key(KeyKind::Index, &me, &why).await.unwrap();
        let again = one.change_key(KeyKind::Index, &me, &why).await;
        assert_eq!(again.unwrap_err(), Misuse::FormerKey.into());
        let second = one.index::<person::mail>(&token, &mail).await.unwrap();
        assert_ne!(first, second);
        for vault in [&two, &one] {
            assert_eq!(vault.index::<person::mail>(&token, &mail).await, Ok(second));
            assert_eq!(vault.former_index::<person::mail>(&token, &mail).await, Ok(Some(first)));
        }
        assert_eq!(one.retire_keys(KeyKind::Index, &me, &why).await, Ok(1));
        for vault in [&two, &one] {
            assert_eq!(vault.index::<person::mail>(&token, &mail).await, Ok(second));
            assert_eq!(vault.former_index::<person::mail>(&token, &mail).await, Ok(None));
        }
        one.change_key(KeyKind::Index, &me, &why).await.unwrap();
        assert_eq!(one.former_index::<person::mail>(&token, &mail).await, Ok(Some(second)));
    });
}

#[test]
fn notes_verify_under_the_key_of_their_time_and_both_keys_sign_the_change() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        let vault = world.create().await;
        vault.enroll(&id("alice"), [], &me, &why).await.unwrap();
        let old = vault.verifier_key().unwrap();
        world.clock.advance_days(1);
        let note = vault.expire(&me, &why).await.unwrap().note.unwrap();
        let change = vault.change_key(KeyKind::Signing, &me, &why).await.unwrap();
        let new = vault.verifier_key().unwrap();
        assert_ne!(old, new);
        assert_eq!(vault.verifier_keys().unwrap(), [new.clone(), old.clone()]);
        let said = SignedNote::parse(&change.note.unwrap()).unwrap();
        assert_eq!(said.verify(&old), said.verify(&new));
        assert!(said.verify(&old).unwrap().contains(&format!("key: {new}\n")));
        assert!(SignedNote::parse(&note).unwrap().verify(&old).is_ok());
        assert!(SignedNote::parse(&note).unwrap().verify(&new).is_err());
        world.clock.advance_days(1);
        let later = vault.expire(&me, &why).await.unwrap().note.unwrap();
        assert!(SignedNote::parse(&later).unwrap().verify(&new).is_ok());
        assert!(vault.verify_log().await.unwrap().holds());
        assert_eq!(vault.retire_keys(KeyKind::Signing, &me, &why).await, Ok(1));
        assert!(vault.verify_log().await.unwrap().holds());
        assert_eq!(vault.verifier_keys().unwrap(), [new]);
    });
}

#[test]
fn new_seals_are_under_the_new_suite_and_old_ones_open() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        let (one, two) = (world.create().await, world.open(&world.store).await.unwrap());
        one.enroll(&id("alice"), [], &me, &why).await.unwrap();
        assert_eq!(one.suite(), Suite::Aes256Gcm);
        let before = sealed(&one, "alice").await;
        one.use_suite(Suite::XChaCha20Poly1305, &me, &why).await.unwrap();
        let after = sealed(&two, "alice").await;
        assert_eq!((one.suite(), two.suite()), (Suite::XChaCha20Poly1305, Suite::XChaCha20Poly1305));
        let grant = grant::<Shipping>(&two, &id("alice")).await.unwrap();
        for sealed in [&before, &after] {
            assert!(sealed.open(&grant).unwrap().name().is_ok());
        }
        let suites = |sealed: &SealedPerson| sealed.unverified_suites();
        assert_eq!(suites(&before), [Suite::Aes256Gcm; 2]);
        assert_eq!(suites(&after), [Suite::XChaCha20Poly1305; 2]);
        assert!(two.coverage(&me, &why, |_| {}).await.unwrap().holds());

        // What the grant opens is sealed again; the other cell stays as it is.
        let sealer = two.sealer::<Person>(&id("alice"), &me, &why).await.unwrap();
        let renewed = before.renew(&sealer, &grant, world.clock.today(), &me, &why).await.unwrap();
        assert_eq!(suites(&renewed), [Suite::XChaCha20Poly1305, Suite::Aes256Gcm]);
        assert!(renewed.open(&grant).unwrap().name().is_ok());
    });
}

#[test]
fn the_root_is_replaced_under_readers_and_what_was_before_ends_with_it() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        let (one, two) = (world.create().await, world.open(&world.store).await.unwrap());
        for number in 0..40 {
            one.enroll(&id(&format!("person {number}")), [], &me, &why).await.unwrap();
        }
        let person = sealed(&one, "person 7").await;
        let copy = world.store.snapshot();
        let seen = AtomicBool::new(false);
        let before = one.coverage(&me, &why, |so_far| seen.store(so_far.parts > 0, Ordering::Relaxed)).await;
        let before = before.unwrap();
        assert!(before.holds() && seen.load(Ordering::Relaxed));
        assert_eq!((before.epoch, before.subjects), (1, 40));
        // 365 days for the longest period, today, and 35 ahead.
        assert!(before.days > 365 && before.parts > before.subjects * 3);

        let left = one.replace_root(&me, &why).await.unwrap();
        assert_eq!(left.epoch_left, 1);
        let grant = grant::<Shipping>(&two, &id("person 7")).await.unwrap();
        assert!(person.open(&grant).unwrap().name().is_ok());
        let after = two.coverage(&me, &why, |_| {}).await.unwrap();
        assert_eq!((after.epoch, after.subjects, after.days), (2, before.subjects, before.days));
        assert_eq!((after.nodes, after.parts, after.faults), (before.nodes, before.parts, 0));

        assert!(matches!(world.open(&copy).await, Err(Error::RolledBack(RolledBack::Store))));
        world.clock.advance_days(31);
        one.confirm_time(&me, &why).await.unwrap();
        assert!(one.settle(&me, &why).await.unwrap().roots > 0);
        assert!(matches!(world.open(&copy).await, Err(Error::RolledBack(RolledBack::Gone))));
        assert!(one.coverage(&me, &why, |_| {}).await.unwrap().holds());
    });
}

#[test]
fn a_row_that_does_not_open_is_counted() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        let vault = world.create().await;
        for number in 0..5 {
            vault.enroll(&id(&format!("person {number}")), [], &me, &why).await.unwrap();
        }
        let whole = vault.coverage(&me, &why, |_| {}).await.unwrap();
        for prefix in [b's', b'd'] {
            let store = world.store.snapshot();
            let row = store.scan(Range::prefix(&[prefix]), 1).await.unwrap().rows.remove(0);
            let mut value = row.1.value;
            *value.last_mut().unwrap() ^= 1;
            let mut batch = Batch::new().unwrap();
            batch.put(&row.0, value);
            store.commit(batch).await.unwrap();
            let damaged = World { store, keeper: world.keeper.snapshot(), clock: world.clock.clone() };
            // A day that does not open is found by the open already.
            let Ok(vault) = damaged.open(&damaged.store).await else {
                assert_eq!(prefix, b'd');
                continue;
            };
            let coverage = vault.coverage(&me, &why, |_| {}).await.unwrap();
            assert!(!coverage.holds());
            assert_eq!(coverage.faults, 1);
            assert_eq!(coverage.subjects + coverage.days + 1, whole.subjects + whole.days);
        }
    });
}

#[test]
fn abuse_04_a_recovered_store_does_not_bring_a_retired_key_back() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        let vault = world.create().await;
        vault.enroll(&id("alice"), [], &me, &why).await.unwrap();
        let old = token(&vault).await;
        let copy = world.store.snapshot();
        vault.change_key(KeyKind::Tokens, &me, &why).await.unwrap();
        vault.revoke(Revoke::All, &me, &why).await.unwrap();
        vault.retire_keys(KeyKind::Tokens, &me, &why).await.unwrap();
        drop(vault);
        let keeper = || world.keeper.clone();
        let recovered = world.options().recover(copy, keeper(), keeper(), &me, &why).await.unwrap();
        assert_eq!(numbers(&recovered, KeyKind::Tokens), [(5, true)]);
        assert!(recovered.unlock::<Shipping>(&old, &id("alice")).await.is_err());
        let new = token(&recovered).await;
        assert!(recovered.unlock::<Shipping>(&new, &id("alice")).await.is_ok());
    });
}
