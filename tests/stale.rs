//! A process that has not looked for a while, and answers that come late: nothing is built on what was.
#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, missing_docs, unreachable_pub, dead_code, reason = "a test")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use customer_vault::backup::Backup;
use customer_vault::error::{Misuse, RolledBack, StoreError};
use customer_vault::keeper::Handover;
use customer_vault::note::SignedNote;
use customer_vault::store::{Batch, CommitError, Key, MemoryStore, Page, Range, Store, Versioned};
use customer_vault::testing::{CommitFault, FaultStore, MemoryKeeper, grant, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::witness::{Both, Line, Witness as _};
use customer_vault::*;
use pollster::block_on;

#[path = "services/world.rs"]
mod world;
use world::id;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub Invoicing: LegalObligation = 2 "invoicing";
    pub Repair: Contract = 3 "repair";
}

record! {
    pub struct Person / SealedPerson / PersonView in person = "person" {
        pub name: PersonName = 1 "name", basic, for [Shipping: 30 days, Repair: 2 years];
    }
}

record! {
    pub struct Invoice / SealedInvoice / InvoiceView in invoice = "invoice" {
        pub name: PersonName = 1 "name", basic, for [Invoicing: 1 year];
    }
}

const HOUR: Duration = Duration::from_secs(3600);

type World = world::World<Person>;

/// A new vault with Alice.
async fn with_alice(world: &World) -> Vault {
    let vault = world.create().await;
    vault.enroll(&id("alice"), [], &tester(), &test_ground()).await.unwrap();
    vault
}

async fn token(vault: &Vault) -> Result<Token> {
    vault.issue::<Shipping>(&tester(), &test_ground(), HOUR, Scope::everyone()).await
}

/// Another key signs, and the one before is not believed any more.
async fn change_signature(vault: &Vault) {
    vault.change_key(KeyKind::Signing, &tester(), &test_ground()).await.unwrap();
    vault.retire_keys(KeyKind::Signing, &tester(), &test_ground()).await.unwrap();
}

/// A store of which one answer comes late: the rows are read, and the answer waits.
#[derive(Clone, Debug)]
struct Late {
    store: MemoryStore,
    row: &'static [u8],
    armed: Arc<AtomicBool>,
    waits: Arc<AtomicBool>,
}

impl Late {
    fn new(store: &MemoryStore, row: &'static [u8]) -> Self {
        Late { store: store.clone(), row, armed: Arc::default(), waits: Arc::default() }
    }
}

impl Store for Late {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        let rows = self.store.read(keys).await;
        if keys.iter().any(|key| key == self.row) && self.armed.swap(false, Ordering::SeqCst) {
            self.waits.store(true, Ordering::SeqCst);
            let come = |_: &mut Context<'_>| {
                if self.waits.load(Ordering::SeqCst) { Poll::Pending } else { Poll::Ready(()) }
            };
            std::future::poll_fn(come).await;
        }
        rows
    }

    async fn scan(&self, range: Range, limit: usize) -> Result<Page, StoreError> {
        self.store.scan(range, limit).await
    }

    fn commit(&self, batch: Batch) -> impl Future<Output = Result<(), CommitError>> + Send {
        self.store.commit(batch)
    }

    fn shared(&self) -> bool {
        true
    }
}

fn poll<F: Future + ?Sized>(task: &mut Pin<Box<F>>) -> Poll<F::Output> {
    task.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn an_answer_that_comes_late_puts_no_older_key_back() {
    block_on(async {
        let world = World::new();
        let other = with_alice(&world).await;
        let late = Late::new(&world.store, b"k2");
        let one = world.open(late.clone()).await.unwrap();
        change_signature(&other).await;
        late.armed.store(true, Ordering::SeqCst);
        let mut slow = Box::pin(token(&one));
        assert!(poll(&mut slow).is_pending() && late.waits.load(Ordering::SeqCst));
        change_signature(&other).await;
        let mut fast = Box::pin(token(&one));
        let fast_was_done = poll(&mut fast).is_ready();
        late.waits.store(false, Ordering::SeqCst);
        slow.await.unwrap();
        if !fast_was_done {
            fast.await.unwrap();
        }
        token(&one).await.unwrap();
        assert_eq!(one.keys(), other.keys());
    });
}

#[test]
fn an_answer_that_comes_late_does_not_forget_what_the_law_keeps() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        let keeper = || world.keeper.clone();
        drop(with_alice(&world).await);
        let late = Late::new(&world.store, b"k6");
        let one = world.open(late.clone()).await.unwrap();
        // Two declarations one after the other: the first is read late, the second in time.
        drop(
            world.options().purpose::<Repair>().open(world.store.clone(), keeper(), keeper()).await.unwrap(),
        );
        late.armed.store(true, Ordering::SeqCst);
        let alice = id("alice");
        let mut slow = Box::pin(one.status(&alice, &me, &why));
        let slow_is_done = poll(&mut slow).is_ready();
        let with_invoices = world.options().record::<Invoice>();
        let other = with_invoices.open(world.store.clone(), keeper(), keeper()).await.unwrap();
        drop(other.sealer::<Invoice>(&alice, &me, &why).await.unwrap());
        let mut fast = Box::pin(one.status(&alice, &me, &why));
        let fast_was_done = poll(&mut fast).is_ready();
        late.waits.store(false, Ordering::SeqCst);
        if !slow_is_done {
            slow.await.unwrap();
        }
        if !fast_was_done {
            fast.await.unwrap();
        }
        one.forget(&alice, Forget::by(&me, &why)).await.unwrap();
        one.shred(&me, &why).await.unwrap();
        assert!(grant::<Invoicing>(&other, &alice).await.is_ok());
    });
}

#[test]
fn who_has_not_looked_since_a_change_of_keys_looks_before_it_signs() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        let (one, two) = (with_alice(&world).await, world.open(world.store.clone()).await.unwrap());
        let by_now =
            |note: &str| SignedNote::parse(note).unwrap().verify(&two.verifier_key().unwrap()).is_ok();
        change_signature(&two).await;
        assert!(one.verify_log().await.unwrap().holds());
        change_signature(&two).await;
        one.checkpoint().await.unwrap();
        assert!(one.verify_log().await.unwrap().holds() && two.verify_log().await.unwrap().holds());
        change_signature(&two).await;
        world.clock.advance_days(1);
        assert!(by_now(&one.expire(&me, &why).await.unwrap().note.unwrap()));
        change_signature(&two).await;
        let mut part = Vec::new();
        let manifest = one.backup(&mut part, &mut std::io::sink(), Backup::full(&me, &why)).await.unwrap();
        assert!(by_now(manifest.note()));
        let (to, keeper) = (MemoryStore::new(), || world.keeper.clone());
        drop(world.options().restore(to, keeper(), keeper(), [&part[..]], &me, &why).await.unwrap());
    });
}

#[test]
fn a_key_that_another_process_made_former_is_not_retired_under_a_living_token() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        let (one, two) = (with_alice(&world).await, world.open(world.store.clone()).await.unwrap());
        let alive = token(&one).await.unwrap();
        two.change_key(KeyKind::Tokens, &me, &why).await.unwrap();
        assert_eq!(one.retire_keys(KeyKind::Tokens, &me, &why).await, Err(Misuse::InUse.into()));
        assert!(two.unlock::<Shipping>(&alive, &id("alice")).await.is_ok());
    });
}

#[test]
fn abuse_36_a_recover_that_was_killed_is_begun_again_before_anything_opens() {
    let mut killed = 0;
    for nth in 0..60 {
        let over = block_on(async {
            let world = World::new();
            let (me, why) = (tester(), test_ground());
            let vault = with_alice(&world).await;
            vault.enroll(&id("bob"), [], &me, &why).await.unwrap();
            let leaked = vault.verifier_key().unwrap();
            let copy = world.store.snapshot();
            vault.forget(&id("alice"), Forget::by(&me, &why)).await.unwrap();
            vault.shred(&me, &why).await.unwrap();
            let numbers = vault.change_key(KeyKind::Tokens, &me, &why).await.unwrap().key.number;
            vault.retire_keys(KeyKind::Tokens, &me, &why).await.unwrap();
            change_signature(&vault).await;
            drop(vault);
            let faults = FaultStore::new(copy.clone());
            faults.fail_commit(nth, CommitFault::KilledBefore);
            let done = world.recover(faults.clone()).await;
            if done.is_ok() && !faults.killed() {
                return true;
            }
            drop(done);
            killed += 1;
            let refused = world.open(copy.clone()).await.unwrap_err();
            let is_older = refused == RolledBack::Store.into();
            assert!(is_older || refused == StoreError::Unfinished.into(), "commit {nth}: {refused:?}");
            // Whatever whoever writes the store takes away.
            for (name, _) in copy.scan(Range::prefix(b""), usize::MAX).await.unwrap().rows {
                if nth % 5 == 0 && !name.starts_with(b"d") {
                    let altered = copy.snapshot();
                    let mut batch = Batch::new().unwrap();
                    batch.delete(&name);
                    altered.commit(batch).await.unwrap();
                    assert!(world.open(altered).await.is_err(), "commit {nth}, without {name:?}");
                }
            }
            let vault = world.recover(copy.clone()).await.unwrap();
            let new = token(&vault).await.unwrap();
            assert!(vault.unlock::<Shipping>(&new, &id("bob")).await.is_ok(), "{nth}");
            assert!(vault.unlock::<Shipping>(&new, &id("alice")).await.is_err(), "{nth}");
            assert!(!vault.verifier_keys().unwrap().contains(&leaked), "{nth}");
            // All but the lookup key, under which the entries of the copy lie.
            let anew = |key: &KeyInfo| key.kind == KeyKind::Lookup || key.number > numbers + 1;
            assert!(vault.keys().iter().all(anew), "{nth}");
            drop(vault);
            assert!(world.open(copy).await.is_ok());
            false
        });
        if over {
            assert!(killed > 5);
            return;
        }
    }
    panic!("it has more commits than were tried");
}

#[test]
fn a_second_witness_is_believed_after_it_was_verified() {
    block_on(async {
        let world = World::new();
        drop(with_alice(&world).await);
        let wrong = world.keeper.snapshot();
        let next = u64::try_from(wrong.recall(1).await.unwrap().len()).unwrap() + 1;
        wrong.remember(vec![Line { number: next, bytes: vec![7; 64] }]).await.unwrap();
        let keeper = || world.keeper.clone();
        let both = world.options().open(world.store.clone(), keeper(), Both::new(keeper(), wrong)).await;
        assert!(both.is_err());
        assert!(world.open(world.store.clone()).await.is_ok(), "the good one has taken nothing over");
    });
}

#[test]
fn coverage_asks_the_keeper_and_misses_what_is_gone() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        drop(with_alice(&world).await);
        let handover = Handover::new(world.keeper.clone(), MemoryKeeper::new());
        let open = world.options().open(world.store.clone(), handover, world.keeper.clone());
        let vault = open.await.unwrap();
        world.keeper.keeper_unreachable(true);
        assert!(vault.coverage(&me, &why, |_| {}).await.is_err());
        world.keeper.keeper_unreachable(false);
        assert!(vault.coverage(&me, &why, |_| {}).await.unwrap().holds());
        let mut batch = Batch::new().unwrap();
        batch.delete(b"k3");
        world.store.commit(batch).await.unwrap();
        assert_eq!(vault.coverage(&me, &why, |_| {}).await.unwrap().faults, 1);
    });
}

#[test]
fn what_an_earlier_forget_keeps_is_said_by_the_next_and_ends_with_a_withdrawal() {
    block_on(async {
        let world = World::new();
        let (me, why) = (tester(), test_ground());
        let alice = id("alice");
        let vault = with_alice(&world).await;
        let sealer = vault.sealer::<Person>(&alice, &me, &why).await.unwrap();
        let old = sealer.seal(Person { name: PersonName::parse("Alice Lee").unwrap() }).unwrap();
        let until = world.clock.today().plus(300);
        let keeping = Forget::by(&me, &why).keeping::<Repair>(until);
        vault.forget(&alice, keeping).await.unwrap();
        vault.shred(&me, &why).await.unwrap();
        vault.enroll_again(&alice, [], &me, &why).await.unwrap();

        let receipt = vault.forget(&alice, Forget::by(&me, &why)).await.unwrap();
        assert_eq!(receipt.stays, [(PurposeId::of::<Repair>(), until)]);
        vault.shred(&me, &why).await.unwrap();
        let repair = grant::<Repair>(&vault, &alice).await.unwrap();
        assert!(old.open(&repair).unwrap().name().is_ok(), "for its own purpose, as the receipt says");

        vault.enroll_again(&alice, [], &me, &why).await.unwrap();
        vault.withdraw::<Repair>(&alice, &me, &why).await.unwrap();
        vault.shred(&me, &why).await.unwrap();
        vault.forget(&alice, Forget::by(&me, &why)).await.unwrap();
        vault.shred(&me, &why).await.unwrap();
        vault.enroll_again(&alice, [], &me, &why).await.unwrap();
        let repair = grant::<Repair>(&vault, &alice).await.unwrap();
        assert!(old.open(&repair).and_then(|view| Ok(view.name().map(drop)?)).is_err());
    });
}
