//! The lookup key is changed while the vault is used: entries move, nothing fails meanwhile, and what is erased stays so.
#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, missing_docs, unreachable_pub, dead_code, reason = "a test")]

use std::time::Duration;

use customer_vault::error::{Erased, Misuse};
use customer_vault::log::Action;
use customer_vault::store::{Batch, MemoryStore, Range, Store};
use customer_vault::testing::{ManualClock, MemoryKeeper, grant, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;
use pollster::block_on;

#[path = "lookup/branches.rs"]
mod branches;
#[path = "lookup/copies.rs"]
mod copies;
#[path = "lookup/due.rs"]
mod due;
#[path = "lookup/failures.rs"]
mod failures;
#[path = "lookup/forks.rs"]
mod forks;
#[path = "lookup/histories.rs"]
mod histories;
#[path = "lookup/processes.rs"]
mod processes;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub News: LegitimateInterest = 2 "news";
}

record! {
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days, News: 2 days];
    }
}

fn id(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

fn everyone() -> Vec<SubjectId> {
    ["alice", "bob", "carol", "dave"].map(id).to_vec()
}

struct World {
    store: MemoryStore,
    keeper: MemoryKeeper,
    clock: ManualClock,
}

impl World {
    /// Alice, Bob, Carol and Dave with an order each, under the key that the vault was made with.
    async fn new() -> (Self, Vault) {
        let clock = ManualClock::at(Day::from_ymd(2026, 3, 2).unwrap());
        let world =
            World { store: MemoryStore::shared_between_handles(), keeper: MemoryKeeper::new(), clock };
        let keeper = || world.keeper.clone();
        let vault = world.options().create(world.store.clone(), keeper(), keeper()).await.unwrap();
        for id in everyone() {
            vault.enroll(&id, [], &tester(), &test_ground()).await.unwrap();
            put(&vault, &id, 1).await;
        }
        (world, vault)
    }

    fn options(&self) -> Options {
        let window = RestoreWindow::none_every_older_backup_of_the_keys_dies_at_once();
        let settings = Settings::default().bound_ms(100).unwrap().grace_days(3).unwrap();
        let settings = settings.restore_window(window).height(2).unwrap();
        Options::new().record::<Order>().settings(settings).clock(self.clock.clone())
    }

    async fn open<S: Store>(&self, store: S) -> Result<Vault> {
        let keeper = || self.keeper.clone();
        self.options().open(store, keeper(), keeper()).await
    }

    async fn recover(&self, store: MemoryStore) -> Result<Vault> {
        let keeper = || self.keeper.clone();
        self.options().recover(store, keeper(), keeper(), &tester(), &test_ground()).await
    }

    async fn rows(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let page = self.store.scan(Range::prefix(prefix), 1000).await.unwrap();
        page.rows.into_iter().map(|(name, row)| (name, row.value)).collect()
    }

    async fn write(&self, name: &[u8], value: Option<&[u8]>) {
        let mut batch = Batch::new().unwrap();
        match value {
            Some(value) => batch.put(name, value.to_vec()),
            None => batch.delete(name),
        };
        self.store.commit(batch).await.unwrap();
    }
}

fn order(text: &str) -> Order {
    Order { name: PersonName::parse(text).unwrap() }
}

async fn put(vault: &Vault, id: &SubjectId, number: u64) {
    let sealer = vault.sealer::<Order>(id, &tester(), &test_ground()).await.unwrap();
    let sealed = sealer.seal(order("Lee"), &number).unwrap();
    vault.put(id, &number, &sealed, &tester(), &test_ground()).await.unwrap();
}

async fn change(vault: &Vault) -> u16 {
    vault.change_key(KeyKind::Lookup, &tester(), &test_ground()).await.unwrap().key.number
}

async fn retire(vault: &Vault) -> Result<usize> {
    vault.retire_keys(KeyKind::Lookup, &tester(), &test_ground()).await
}

async fn moved(vault: &Vault, ids: &[SubjectId]) -> (u64, u64, u64, u64) {
    let moved = vault.move_subjects(ids, &tester(), &test_ground()).await.unwrap();
    (moved.moved, moved.already, moved.waiting, moved.unknown)
}

/// Moved, left, erased; none that does not open.
async fn moves(vault: &Vault) -> (u64, u64, u64) {
    let moves = vault.moves(|_| ()).await.unwrap();
    assert_eq!(moves.faults, 0);
    (moves.moved, moves.left, moves.erased)
}

/// How many of the subject's orders open.
async fn opens(vault: &Vault, id: &SubjectId) -> Result<usize> {
    let grant = grant::<Shipping>(vault, id).await?;
    let orders = vault.list::<Order, u64>(id, &tester(), &test_ground()).await?;
    let mut open = 0;
    for (number, sealed) in &orders {
        let one = vault.get::<Order>(id, number, &tester(), &test_ground()).await?.unwrap();
        let [listed, got] = [sealed.open(&grant, number)?, one.open(&grant, number)?];
        open += usize::from(listed.name().is_ok() && got.name().is_ok());
    }
    Ok(open)
}

#[test]
fn a_subject_is_the_same_before_while_and_after_it_moves() {
    block_on(async {
        let (world, vault) = World::new().await;
        let (me, why) = (tester(), test_ground());
        let other = world.open(world.store.clone()).await.unwrap();
        let (alice, bob, zoe) = (id("alice"), id("bob"), id("zoe"));
        let before = grant::<Shipping>(&other, &alice).await.unwrap();
        let sealed = vault.get::<Order>(&alice, &1, &me, &why).await.unwrap().unwrap();
        assert_eq!(change(&vault).await, 4);
        // A second one is for when the first is over.
        let second = vault.change_key(KeyKind::Lookup, &me, &why).await;
        assert_eq!(second, Err(Misuse::FormerKey.into()));

        // The other process has not noticed: it finds everybody, and enrolls under the new key.
        assert_eq!(opens(&other, &bob).await, Ok(1));
        other.enroll(&zoe, [], &me, &why).await.unwrap();
        assert_eq!(moves(&vault).await, (1, 4, 0));
        assert_eq!(vault.enroll(&zoe, [], &me, &why).await, Err(Misuse::AlreadyEnrolled.into()));
        assert_eq!(other.enroll(&alice, [], &me, &why).await, Err(Misuse::AlreadyEnrolled.into()));

        assert_eq!(retire(&vault).await, Err(Misuse::InUse.into()));
        let ids = [alice.clone(), zoe.clone(), id("nobody"), alice.clone()];
        assert_eq!(moved(&vault, &ids).await, (1, 2, 0, 1));
        assert_eq!(moves(&other).await, (2, 3, 0));
        for vault in [&vault, &other] {
            for id in everyone() {
                assert_eq!(opens(vault, &id).await, Ok(1), "{id:?}");
            }
            assert_eq!(opens(vault, &zoe).await, Ok(0));
        }
        assert!(sealed.open(&before, &1).unwrap().name().is_ok());
        assert_eq!(retire(&vault).await, Err(Misuse::InUse.into()));
        assert_eq!(moved(&other, &everyone()).await, (3, 1, 0, 0));
        assert_eq!(retire(&vault).await, Ok(1));
        assert_eq!(retire(&vault).await, Ok(0));

        for vault in [&vault, &other] {
            for id in everyone() {
                assert_eq!(opens(vault, &id).await, Ok(1), "{id:?}");
                put(vault, &id, 2).await;
                assert_eq!(opens(vault, &id).await, Ok(2));
                assert!(vault.delete::<Order>(&id, &2, &me, &why).await.unwrap());
            }
            let lookup: Vec<(u16, bool)> = vault
                .keys()
                .iter()
                .filter(|key| key.kind == KeyKind::Lookup)
                .map(|key| (key.number, key.current))
                .collect();
            assert_eq!(lookup, [(4, true)]);
            let ids = [alice.clone(), id("nobody")];
            let token =
                vault.issue::<Shipping>(&me, &why, Duration::from_secs(60), Scope::everyone()).await.unwrap();
            let grants = vault.unlock_many::<Shipping>(&token, &ids).await.unwrap();
            assert!(grants[0].is_ok() && grants[1].is_err());
        }
        assert!(vault.coverage(&me, &why, |_| ()).await.unwrap().holds());
        assert!(vault.verify_log().await.unwrap().holds());
        // In the log: two of three calls moved somebody.
        let log = vault.log().await.unwrap();
        let entries = log.iter().filter(|entry| entry.action() == Action::MoveSubjects);
        let mut subjects: Vec<usize> = entries.map(|entry| entry.subjects().len()).collect();
        subjects.sort_unstable();
        assert_eq!(subjects, [1, 3]);
        // A grant from before is fenced by a forget from after.
        vault.forget(&alice, Forget::by(&me, &why)).await.unwrap();
        other.status(&alice, &me, &why).await.unwrap();
        assert!(sealed.open(&before, &1).is_err());
    });
}

#[test]
fn who_is_changed_moves_by_that() {
    block_on(async {
        let (world, vault) = World::new().await;
        let (me, why) = (tester(), test_ground());
        let (alice, bob, carol) = (id("alice"), id("bob"), id("carol"));
        change(&vault).await;
        vault.withdraw::<News>(&alice, &me, &why).await.unwrap();
        vault.hold(&bob, &me, &why).await.unwrap();
        vault.forget(&carol, Forget::by(&me, &why)).await.unwrap();
        assert_eq!(moves(&vault).await, (3, 1, 0));
        vault.undo_forget(&carol, &me, &why).await.unwrap();
        assert_eq!(opens(&vault, &carol).await, Ok(1));
        assert_eq!(moved(&vault, &everyone()).await, (1, 3, 0, 0));
        assert_eq!(retire(&vault).await, Ok(1));

        // What was recorded of them stands, and what is due of it is destroyed.
        let news = |status: Status| status.purposes.iter().find(|p| p.purpose.number() == 2).unwrap().clone();
        assert!(!news(vault.status(&alice, &me, &why).await.unwrap()).stands);
        world.clock.advance_days(4);
        // Carol's forget was undone, and the row that said when it was due is looked at all the same.
        assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 2);
        assert!(grant::<News>(&vault, &alice).await.is_err());
        assert_eq!(opens(&vault, &alice).await, Ok(1));
        // The hold keeps what expires, and finds it under the name of the enrolment.
        let orders = vault.list::<Order, u64>(&bob, &me, &why).await.unwrap();
        world.clock.advance_days(100);
        vault.confirm_time(&me, &why).await.unwrap();
        vault.expire(&me, &why).await.unwrap();
        assert_eq!(opens(&vault, &bob).await, Ok(0));
        let held = grant::<LegalHold>(&vault, &bob).await.unwrap();
        assert!(orders[0].1.open(&held, &1).unwrap().name().is_ok());
        vault.release_hold(&bob, &me, &why).await.unwrap();
        assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 1);
        assert!(grant::<LegalHold>(&vault, &bob).await.is_err());
        assert!(vault.status(&bob, &me, &why).await.is_ok());
    });
}

#[test]
fn what_is_due_is_destroyed_where_it_lies_before_it_moves() {
    block_on(async {
        let (_, vault) = World::new().await;
        let (me, why) = (tester(), test_ground());
        let (alice, bob) = (id("alice"), id("bob"));
        vault.forget(&alice, Forget::by(&me, &why).without_grace()).await.unwrap();
        vault.forget(&bob, Forget::by(&me, &why).without_grace()).await.unwrap();
        change(&vault).await;
        assert_eq!(moved(&vault, &everyone()).await, (2, 0, 2, 0));
        assert_eq!(retire(&vault).await, Err(Misuse::InUse.into()));
        vault.shred(&me, &why).await.unwrap();
        assert_eq!(vault.settle(&me, &why).await.unwrap().certificates.len(), 2);
        // The shop has deleted them: nobody hands their ids in any more. Alice comes back before, Bob after.
        assert_eq!(moves(&vault).await, (2, 0, 2));
        assert_eq!(vault.enroll(&alice, [], &me, &why).await, Err(Erased::Forgotten.into()));
        vault.enroll_again(&alice, [], &me, &why).await.unwrap();
        assert_eq!(moves(&vault).await, (3, 0, 1));
        assert_eq!(opens(&vault, &alice).await, Ok(0));
        assert_eq!(retire(&vault).await, Ok(1));
        assert_eq!(opens(&vault, &bob).await, Err(Error::NotEnrolled));
        vault.enroll(&bob, [], &me, &why).await.unwrap();
        assert_eq!(opens(&vault, &bob).await, Ok(0));
        assert_eq!(vault.status(&alice, &me, &why).await.unwrap().enrolments, 2);
    });
}

#[test]
fn the_key_is_changed_many_times() {
    block_on(async {
        let (world, vault) = World::new().await;
        let (me, why) = (tester(), test_ground());
        for round in 0..3_u64 {
            change(&vault).await;
            put(&vault, &id("alice"), round + 2).await;
            assert_eq!(moved(&vault, &everyone()).await, (4, 0, 0, 0));
            assert_eq!(retire(&vault).await, Ok(1));
            assert_eq!(opens(&vault, &id("alice")).await, Ok(usize::try_from(round).unwrap() + 2));
            let again = world.open(world.store.clone()).await.unwrap();
            assert_eq!(opens(&again, &id("bob")).await, Ok(1));
        }
        vault.forget(&id("alice"), Forget::by(&me, &why).without_grace()).await.unwrap();
        assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 1);
        assert_eq!(vault.settle(&me, &why).await.unwrap().certificates.len(), 1);
        // Its rows in the records layer are gone too.
        assert_eq!(world.rows(b"u").await.len(), 3);
        assert!(opens(&vault, &id("alice")).await.is_err());
        assert!(vault.coverage(&me, &why, |_| ()).await.unwrap().holds());
        assert!(vault.who_can_read(&id("bob"), &me, &why).await.is_ok());
    });
}

#[cfg(feature = "tickets")]
#[test]
fn tickets_are_reported_wherever_the_subject_lies() {
    use customer_vault::ticket::{ReaderKey, TicketScope};
    block_on(async {
        let (_, vault) = World::new().await;
        let (me, why) = (tester(), test_ground());
        let hour = Duration::from_secs(3600);
        let token = vault.issue::<Shipping>(&me, &why, hour, Scope::everyone()).await.unwrap();
        let reader = ReaderKey::generate().unwrap();
        let give = async |name: &str| {
            let sealed = vault.get::<Order>(&id(name), &1, &me, &why).await.unwrap().unwrap();
            let scope = TicketScope::of(&id(name)).sealed(&sealed);
            let given = vault.ticket::<Shipping>(&token, &reader.recipient(), hour, &[scope]).await.unwrap();
            assert_eq!(given.each, [Ok(())]);
            given.ends_ms
        };
        let before = give("alice").await;
        change(&vault).await;
        let meanwhile = give("bob").await;
        assert_eq!(moves(&vault).await, (1, 3, 0), "a ticket is written into the entry");
        moved(&vault, &everyone()).await;
        retire(&vault).await.unwrap();
        for (name, ends_ms) in [("alice", before), ("bob", meanwhile), ("carol", give("carol").await)] {
            let receipt = vault.forget(&id(name), Forget::by(&me, &why)).await.unwrap();
            assert_eq!(receipt.tickets_until_ms, Some(ends_ms), "{name}");
        }
    });
}
