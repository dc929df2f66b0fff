//! A vault goes from one keeper to another, and from one witness to another, while it is used.
#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, missing_docs, unreachable_pub, dead_code, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use customer_vault::error::{KeeperError, RolledBack};
use customer_vault::keeper::{
    Candidate, ErasureClass, FileKeeperOptions, FileSecret, Handover, Held, Keeper, RootId, RootKey, VaultId,
};
use customer_vault::store::MemoryStore;
use customer_vault::testing::{MemoryKeeper, grant, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::witness::{Both, NoWitness, Remembers, Witness};
use customer_vault::*;
use pollster::block_on;

#[path = "services/world.rs"]
mod world;
use world::id;

purposes! {
    pub Shipping: Contract = 1 "shipping";
}

record! {
    pub struct Person / SealedPerson / PersonView in person = "person" {
        pub name: PersonName = 1 "name", basic, for [Shipping: 1 year];
    }
}

/// Its keeper is the witness alone here.
type World = world::World<Person>;

/// The job of every week until the window is over.
async fn weeks(world: &World, vault: &Vault) {
    for _ in 0..6 {
        world.clock.advance_days(7);
        vault.expire(&tester(), &test_ground()).await.unwrap();
        vault.settle(&tester(), &test_ground()).await.unwrap();
    }
}

/// Somebody whose name can be read.
async fn with_alice(vault: &Vault) -> SealedPerson {
    let (me, why) = (tester(), test_ground());
    vault.enroll(&id("alice"), [], &me, &why).await.unwrap();
    let sealer = vault.sealer::<Person>(&id("alice"), &me, &why).await.unwrap();
    sealer.seal(Person { name: PersonName::parse("Alice Lee").unwrap() }).unwrap()
}

async fn reads(vault: &Vault, sealed: &SealedPerson) -> bool {
    let grant = grant::<Shipping>(vault, &id("alice")).await.unwrap();
    sealed.open(&grant).unwrap().name().is_ok()
}

async fn goes_over(from: impl Keeper + Clone, to: impl Keeper + Clone) {
    let world = World::new();
    let (me, why) = (tester(), test_ground());
    let options = world.options();
    let vault = options.create(world.store.clone(), from.clone(), world.keeper.clone()).await.unwrap();
    let sealed = with_alice(&vault).await;
    drop(vault);

    let handover = Handover::new(from.clone(), to.clone());
    let one = world.open_by(handover.clone()).await.unwrap();
    let two = world.open_by(handover.clone()).await.unwrap();
    assert_eq!(handover.remaining().await, Ok(1));
    assert!(world.open_by(to.clone()).await.is_err(), "it is not there yet");
    one.replace_root(&me, &why).await.unwrap();
    assert!(reads(&one, &sealed).await && reads(&two, &sealed).await);
    let alone = world.open_by(to.clone()).await;
    assert_eq!(alone.unwrap_err(), KeeperError::HandoverUnderWay.into());
    // The root of before is held for the restore window.
    assert_eq!(handover.remaining().await, Ok(1));
    one.settle(&me, &why).await.unwrap();
    assert_eq!(handover.remaining().await, Ok(1));
    two.enroll(&id("bob"), [], &me, &why).await.unwrap();
    weeks(&world, &one).await;
    assert_eq!(handover.remaining().await, Ok(0));
    assert!(reads(&one, &sealed).await && reads(&two, &sealed).await);
    drop((one, two));

    // Open with both again, then with the new one alone; the old one is over for good.
    let again = world.open_by(handover.clone()).await.unwrap();
    assert!(again.coverage(&me, &why, |_| {}).await.unwrap().holds());
    drop(again);
    let vault = world.open_by(to).await.unwrap();
    assert!(reads(&vault, &sealed).await);
    weeks(&world, &vault).await;
    assert!(reads(&vault, &sealed).await);
    assert!(matches!(world.open_by(from).await, Err(Error::RolledBack(_))));
}

#[test]
fn a_vault_goes_from_one_keeper_to_another_under_its_readers() {
    let dir = std::env::temp_dir().join(format!("customer-vault-handover-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str| {
        FileKeeperOptions::new().shared().create(dir.join(name), FileSecret::generate().unwrap().0).unwrap()
    };
    block_on(async {
        goes_over(MemoryKeeper::new(), MemoryKeeper::new()).await;
        goes_over(file("one"), MemoryKeeper::new()).await;
        goes_over(MemoryKeeper::new(), file("two")).await;
        goes_over(file("three"), file("four")).await;
    });
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn nothing_is_certified_by_the_new_keeper_alone_while_the_old_one_has_roots() {
    block_on(async {
        let world = World::new();
        let (from, to) = (MemoryKeeper::new(), MemoryKeeper::new());
        let (me, why) = (tester(), test_ground());
        let options = world.options();
        let vault = options.create(world.store.clone(), from.clone(), world.keeper.clone()).await.unwrap();
        let sealed = with_alice(&vault).await;
        drop(vault);
        let older = world.store.snapshot();
        let handover = Handover::new(from.clone(), to.clone());
        let vault = world.open_by(handover.clone()).await.unwrap();
        let forgotten = vault.forget(&id("alice"), Forget::by(&me, &why)).await.unwrap();
        vault.shred(&me, &why).await.unwrap();
        drop(vault);
        world.clock.advance_days(7);
        let refused = KeeperError::HandoverUnderWay;
        assert_eq!(world.open_by(to.clone()).await.unwrap_err(), refused.into());
        for _ in 0..4 {
            // Whichever process it is that goes on.
            let vault = world.open_by(handover.clone()).await.unwrap();
            vault.settle(&me, &why).await.unwrap();
            assert_eq!(handover.remaining().await, Ok(1));
            assert!(vault.certificate(&forgotten.reference).await.unwrap().is_none());
            drop(vault);
            assert_eq!(world.open_by(to.clone()).await.unwrap_err(), refused.into());
            world.clock.advance_days(7);
        }
        // The old keeper opens the older copy until its root is destroyed.
        let thief = world.options().open(older, from.snapshot(), NoWitness::new()).await.unwrap();
        assert!(reads(&thief, &sealed).await);
        let vault = world.open_by(handover.clone()).await.unwrap();
        let settled = vault.settle(&me, &why).await.unwrap();
        assert_eq!((settled.roots, settled.certificates.len()), (1, 1));
        drop(vault);
        assert!(world.open_by(to.clone()).await.is_ok());
        assert_eq!(handover.remaining().await, Ok(0));
    });
}

/// Of a process that died while it marked, and of a keeper that burned.
#[test]
fn a_mark_that_is_left_goes_when_nothing_is_left_with_the_old_keeper() {
    block_on(async {
        let world = World::new();
        let (from, to, burned) = (MemoryKeeper::new(), MemoryKeeper::new(), MemoryKeeper::new());
        let options = world.options();
        let vault = options.create(world.store.clone(), to.clone(), world.keeper.clone()).await.unwrap();
        let sealed = with_alice(&vault).await;
        drop(vault);
        to.candidate(u64::MAX - 1).await.unwrap();
        assert!(world.open_by(to.clone()).await.is_err());
        let handover = Handover::new(from.clone(), to.clone());
        drop(world.open_by(handover.clone()).await.unwrap());
        assert_eq!(handover.remaining().await, Ok(0));
        assert!(reads(&world.open_by(to.clone()).await.unwrap(), &sealed).await);

        let vault = world.open_by(Handover::new(to.clone(), burned.clone())).await.unwrap();
        vault.replace_root(&tester(), &test_ground()).await.unwrap();
        drop((vault, to));
        let vault = world.open_by(Handover::new(MemoryKeeper::new(), burned.clone())).await.unwrap();
        weeks(&world, &vault).await;
        drop(vault);
        assert!(reads(&world.open_by(burned).await.unwrap(), &sealed).await);
    });
}

/// Fails one call, before or after it took effect.
#[derive(Clone, Debug)]
struct Failing<K> {
    keeper: K,
    calls: Arc<AtomicU32>,
    fails: u32,
    after: bool,
}

impl<K: Keeper> Failing<K> {
    async fn call<T>(&self, call: impl Future<Output = Result<T, KeeperError>>) -> Result<T, KeeperError> {
        let fails = self.calls.fetch_add(1, Ordering::SeqCst) == self.fails;
        if fails && !self.after {
            return Err(KeeperError::Unreachable);
        }
        let done = call.await;
        if fails { Err(KeeperError::Unreachable) } else { done }
    }
}

impl<K: Keeper> Keeper for Failing<K> {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.call(self.keeper.bind(vault)).await
    }
    async fn candidate(&self, epoch: u64) -> Result<Candidate, KeeperError> {
        self.call(self.keeper.candidate(epoch)).await
    }
    async fn activate(&self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        self.call(self.keeper.activate(epoch, id)).await
    }
    async fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        self.call(self.keeper.unwrap(id, wrapped)).await
    }
    async fn destroy(&self, id: RootId) -> Result<(), KeeperError> {
        self.call(self.keeper.destroy(id)).await
    }
    async fn held(&self) -> Result<Vec<Held>, KeeperError> {
        self.call(self.keeper.held()).await
    }
    fn erasure_class(&self) -> ErasureClass {
        self.keeper.erasure_class()
    }
}

/// Does again what has failed.
async fn insists<T>(mut what: impl AsyncFnMut() -> Result<T>) -> T {
    for _ in 0..3 {
        match what().await {
            Err(Error::Keeper(KeeperError::Unreachable)) => {}
            done => return done.unwrap(),
        }
    }
    panic!("it fails again and again");
}

/// A vault with Alice, whose name is sealed, and Bob, with the keeper that goes.
async fn before_it() -> (World, MemoryKeeper, SealedPerson) {
    let (world, from) = (World::new(), MemoryKeeper::new());
    let window = RestoreWindow::days(7).unwrap();
    let settings = World::settings().height(1).unwrap().restore_window(window);
    let options = world.options().settings(settings);
    let vault = options.create(world.store.clone(), from.clone(), world.keeper.clone()).await.unwrap();
    let sealed = with_alice(&vault).await;
    vault.enroll(&id("bob"), [], &tester(), &test_ground()).await.unwrap();
    (world, from, sealed)
}

/// A handover in which one call of a keeper fails; false where it had no such call.
async fn goes_over_although(
    fails: u32,
    after: bool,
    (first, from, sealed): &(World, MemoryKeeper, SealedPerson),
) -> bool {
    let world = first.copy();
    let (from, to) = (from.snapshot(), MemoryKeeper::new());
    let (me, why) = (tester(), test_ground());
    let calls = Arc::new(AtomicU32::new(0));
    let failing =
        |keeper: &MemoryKeeper| Failing { keeper: keeper.clone(), calls: calls.clone(), fails, after };
    let handover = Handover::new(failing(&from), failing(&to));
    let vault = insists(async || world.open_by(handover.clone()).await).await;
    let forgotten = vault.forget(&id("bob"), Forget::by(&me, &why)).await.unwrap().reference;
    insists(async || vault.shred(&me, &why).await).await;
    insists(async || vault.replace_root(&me, &why).await).await;
    for day in [0, 4, 8] {
        let here = from.held().await.unwrap().iter().filter(|root| root.epoch != u64::MAX).count();
        let certificate = vault.certificate(&forgotten).await.unwrap();
        assert_eq!(certificate.is_some(), here == 0, "day {day}, call {fails}");
        assert!(here == 0 || world.open_by(to.clone()).await.is_err(), "day {day}, call {fails}");
        world.clock.advance_days(4);
        insists(async || vault.settle(&me, &why).await).await;
    }
    assert_eq!(insists(async || Ok(handover.remaining().await?)).await, 0);
    drop(vault);
    let vault = world.open_by(to.clone()).await.unwrap();
    assert!(reads(&vault, sealed).await, "call {fails}");
    assert!(vault.coverage(&me, &why, |_| {}).await.unwrap().holds());
    assert!(vault.certificate(&forgotten).await.unwrap().is_some());
    assert!(to.held().await.unwrap().iter().all(|root| root.epoch < 10), "no mark is left");
    calls.load(Ordering::SeqCst) > fails
}

#[test]
fn any_call_of_either_keeper_fails_once_and_the_new_one_reads_everything() {
    block_on(async {
        let before = before_it().await;
        for after in [false, true] {
            let mut nth = 0;
            while goes_over_although(nth, after, &before).await {
                nth += 1;
            }
            assert!(nth > 40, "{nth} calls");
        }
    });
}

#[test]
fn a_keeper_that_cannot_be_asked_is_not_one_that_has_nothing() {
    block_on(async {
        let world = World::new();
        let (from, to) = (MemoryKeeper::new(), MemoryKeeper::new());
        let (me, why) = (tester(), test_ground());
        let vault =
            world.options().create(world.store.clone(), from.clone(), world.keeper.clone()).await.unwrap();
        let sealed = with_alice(&vault).await;
        drop(vault);
        let handover = Handover::new(from.clone(), to.clone());
        let vault = world.open_by(handover.clone()).await.unwrap();
        let copy = world.store.snapshot();
        vault.replace_root(&me, &why).await.unwrap();
        for unreachable in [&from, &to] {
            unreachable.unreachable(true);
            // What is held in memory goes on; nothing new is opened, and nothing is settled.
            assert!(reads(&vault, &sealed).await);
            assert_eq!(handover.remaining().await.is_err(), std::ptr::eq(unreachable, &raw const from));
            assert_eq!(world.open_by(handover.clone()).await.unwrap_err(), KeeperError::Unreachable.into());
            assert!(vault.replace_root(&me, &why).await.is_err());
            unreachable.unreachable(false);
        }
        vault.replace_root(&me, &why).await.unwrap();
        weeks(&world, &vault).await;
        let older = world.options().open(copy, handover, world.keeper.clone()).await;
        assert_eq!(older.unwrap_err(), Error::RolledBack(RolledBack::Gone));
    });
}

#[test]
fn the_weaker_class_is_told() {
    let (from, to) = (MemoryKeeper::new(), MemoryKeeper::new());
    let service = |min_delay_s, max_delay_s| ErasureClass::Service { min_delay_s, max_delay_s };
    for (one, two, both) in [
        (ErasureClass::Hardware, ErasureClass::Hardware, ErasureClass::Hardware),
        (ErasureClass::Hardware, service(1, 2), service(1, 2)),
        (service(1, 9), service(0, 2), service(0, 9)),
        (service(1, 9), ErasureClass::BestEffort, ErasureClass::BestEffort),
    ] {
        for (one, two) in [(one, two), (two, one)] {
            from.says_erasure_class(one);
            to.says_erasure_class(two);
            assert_eq!(Handover::new(from.clone(), to.clone()).erasure_class(), both);
        }
    }
}

#[test]
fn a_second_witness_is_told_everything_and_can_stand_alone() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        let (keeper, new) = (MemoryKeeper::new(), MemoryKeeper::new());
        let old = world.keeper.clone();
        let open = |witness| world.options().open(world.store.clone(), keeper.clone(), witness);
        let vault = world.options().create(world.store.clone(), keeper.clone(), old.clone()).await.unwrap();
        let sealed = with_alice(&vault).await;
        drop(vault);
        let both = open(Both::new(old.clone(), new.clone())).await.unwrap();
        assert_eq!(new.recall(1).await, old.recall(1).await);
        both.enroll(&id("bob"), [], &me, &why).await.unwrap();
        assert!(both.forget(&id("bob"), Forget::by(&me, &why)).await.unwrap().witnessed);
        assert_eq!(new.recall(1).await, old.recall(1).await);

        // One that cannot be reached: the receipt says so, and the next call completes it.
        new.unreachable(true);
        both.enroll(&id("carol"), [], &me, &why).await.unwrap();
        assert!(!both.forget(&id("carol"), Forget::by(&me, &why)).await.unwrap().witnessed);
        new.unreachable(false);
        both.enroll(&id("dave"), [], &me, &why).await.unwrap();
        assert!(both.forget(&id("dave"), Forget::by(&me, &why)).await.unwrap().witnessed);
        drop(both);
        let alone = world.options().open(world.store.clone(), keeper.clone(), new.clone()).await.unwrap();
        assert!(reads(&alone, &sealed).await);
        alone.forget(&id("alice"), Forget::by(&me, &why)).await.unwrap();
        drop(alone);
        // The old one is behind now: it is told.
        drop(open(Both::new(old.clone(), new.clone())).await.unwrap());
        assert_eq!(new.recall(1).await, old.recall(1).await);

        let (other, keeper) = (MemoryKeeper::new(), MemoryKeeper::new());
        let store = MemoryStore::new();
        drop(world.options().create(store.clone(), keeper.clone(), other.clone()).await.unwrap());
        let mixed = world.options().open(store.clone(), keeper.clone(), Both::new(other.clone(), new)).await;
        assert_eq!(mixed.unwrap_err(), KeeperError::Foreign.into());
        let vault = world.options().open(store, keeper, Both::new(NoWitness::new(), other)).await.unwrap();
        assert_eq!(vault.custody().remembers, Remembers::Lines);
    });
}
