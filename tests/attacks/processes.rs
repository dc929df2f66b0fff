//! Two processes of which one knows less than the other; a store that was restored; a process that dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use super::*;
use customer_vault::error::Halted;
use customer_vault::testing::{Call, CommitFault, FaultStore};

/// The shop before the books of account were declared.
mod older {
    use super::*;
    record! {
        /// One order.
        pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
            /// On the label.
            pub name: PersonName = 1 "name", basic, for [Shipping: 90 days];
        }
    }
}

#[test]
fn a_process_with_an_older_registry_keeps_what_the_law_keeps_when_it_forgets() {
    let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
    let (store, keeper) = (MemoryStore::shared_between_handles(), MemoryKeeper::new());
    let settings = Settings::default().height(1).unwrap();
    let before = Options::new().record::<older::Order>().clock(clock.clone()).settings(settings);
    let before = block_on(before.create(store.clone(), keeper.clone(), keeper.clone())).unwrap();
    let after = block_on(options(&clock).open(store, keeper.clone(), keeper)).unwrap();

    let (alice, me, why) = (id("alice"), tester(), test_ground());
    block_on(after.enroll(&alice, [], &me, &why)).unwrap();
    let sealed = block_on(after.sealer::<Order>(&alice, &me, &why)).unwrap().seal(an_order(), &7).unwrap();
    let receipt = block_on(before.forget(&alice, by().without_grace())).unwrap();
    let stays: Vec<PurposeId> = receipt.stays.iter().map(|(purpose, _)| *purpose).collect();
    assert_eq!(stays, [PurposeId::of::<Invoicing>()]);
    assert!(receipt.stays[0].1 >= Day::from_ymd(2027, 1, 5).unwrap());
    block_on(before.shred(&me, &why)).unwrap();

    let token = block_on(after.issue::<Invoicing>(&me, &why, YEAR, Scope::everyone())).unwrap();
    assert!(name_opens(&sealed, &block_on(after.unlock::<Invoicing>(&token, &alice)).unwrap()));
}

#[test]
fn abuse_45_no_sealer_is_given_by_a_process_that_did_not_see_the_freeze() {
    let shop = Shop::shared();
    let other = shop.process(shop.store.clone()).unwrap();
    let sealer = || block_on(other.sealer::<Order>(&shop.alice, &shop.me, &shop.why));
    assert!(sealer().is_ok());
    block_on(shop.vault.freeze(&shop.me, &shop.why)).unwrap();
    assert_eq!(sealer().err(), Some(Halted::Frozen.into()));
}

#[test]
fn abuse_42_an_entry_that_is_written_while_the_log_is_verified_is_no_fault() {
    let shop = Shop::shared();
    let store = FaultStore::new(shop.store.clone());
    let other = shop.process(store.clone()).unwrap();
    let (busy, written) = (shop.vault.clone(), Arc::new(AtomicBool::new(false)));
    let seen = Arc::clone(&written);
    store.before_each(move |call| {
        if !matches!(call, Call::Scan(range) if range.start.first() == Some(&b'o')) {
            return Box::pin(async {});
        }
        seen.store(true, SeqCst);
        let busy = busy.clone();
        Box::pin(async move { drop(busy.checkpoint().await.unwrap()) })
    });
    let report = block_on(other.verify_log()).unwrap();
    assert!(written.load(SeqCst) && report.holds(), "{report:?}");
}

#[test]
fn a_commit_whose_outcome_is_unknown_is_not_made_twice_whatever_a_neighbour_writes_meanwhile() {
    let shop = Shop::shared();
    let store = FaultStore::new(shop.store.clone());
    let other = shop.process(store.clone()).unwrap();
    let neighbour = shop.vault.clone();
    // After each commit of unknown outcome, whoever shares a row with it has written it again.
    let arm = |round: &'static str| {
        let (step, neighbour) = (AtomicUsize::new(0), neighbour.clone());
        store.fail_commit(0, CommitFault::UnknownDone);
        store.before_each(move |call| {
            let next = |from| step.compare_exchange(from, from + 1, SeqCst, SeqCst).is_ok();
            match call {
                Call::Commit(_) if next(0) => Box::pin(async {}),
                Call::Read(_) if next(1) => Box::pin(crowd(neighbour.clone(), round)),
                _ => Box::pin(async {}),
            }
        });
    };
    arm("first");
    assert_eq!(block_on(other.enroll(&id("dave"), [], &shop.me, &shop.why)), Ok(()));
    arm("second");
    let receipt = block_on(other.forget(&id("dave"), by()));
    assert!(receipt.is_ok(), "{receipt:?}");
}

/// Enough newcomers to write every node again.
async fn crowd(vault: Vault, of: &'static str) {
    for i in 0..60 {
        vault.enroll(&id(&format!("{of}{i}")), [], &tester(), &test_ground()).await.unwrap();
    }
}

#[test]
fn abuse_04_a_hold_that_the_copy_did_not_have_stands_after_recovery_and_keeps_its_days() {
    let shop = Shop::open();
    let sealed = shop.sealer().seal_as_of(an_order(), &7, almost_over(&shop)).unwrap();
    let old = shop.store.snapshot();
    block_on(shop.vault.hold(&shop.alice, &shop.me, &shop.why)).unwrap();

    let keeper = shop.keeper.clone();
    let recovered = options(&shop.clock).recover(old.clone(), keeper.clone(), keeper, &shop.me, &shop.why);
    let recovered = block_on(recovered).unwrap();
    assert!(block_on(recovered.status(&shop.alice, &shop.me, &shop.why)).unwrap().held);
    shop.clock.advance_days(6);
    block_on(recovered.expire(&shop.me, &shop.why)).unwrap();
    let token = block_on(recovered.issue::<LegalHold>(&shop.me, &shop.why, YEAR, Scope::everyone())).unwrap();
    let grant = block_on(recovered.unlock::<LegalHold>(&token, &shop.alice)).unwrap();
    assert!(note_opens(&sealed, &grant));
}

#[test]
fn what_a_released_hold_left_behind_neither_breaks_the_next_hold_nor_opens_for_it() {
    let shop = Shop::open();
    let store = FaultStore::new(shop.store.clone());
    let vault = shop.process(store.clone()).unwrap();
    let sealed = shop.sealer().seal_as_of(an_order(), &7, almost_over(&shop)).unwrap();
    let unlock = || {
        let token = block_on(vault.issue::<LegalHold>(&shop.me, &shop.why, YEAR, Scope::everyone())).unwrap();
        block_on(vault.unlock::<LegalHold>(&token, &shop.alice))
    };
    block_on(vault.hold(&shop.alice, &shop.me, &shop.why)).unwrap();
    shop.clock.advance_days(6);
    block_on(vault.expire(&shop.me, &shop.why)).unwrap();
    assert!(note_opens(&sealed, &unlock().unwrap()));

    let kept = shop.rows(b"h");
    assert!(!kept.is_empty());
    block_on(vault.release_hold(&shop.alice, &shop.me, &shop.why)).unwrap();
    assert!(shop.rows(b"h").is_empty());
    // As an older copy, or a writer of the store, would have it.
    shop.write(kept.into_iter().map(|(name, row)| (name, Some(row.value))).collect());
    block_on(vault.hold(&shop.alice, &shop.me, &shop.why)).unwrap();
    assert!(!note_opens(&sealed, &unlock().unwrap()));
    // The next one keeps its own days.
    let newer = block_on(vault.sealer::<Order>(&shop.alice, &shop.me, &shop.why)).unwrap();
    let newer = newer.seal_as_of(an_order(), &7, almost_over(&shop)).unwrap();
    shop.clock.advance_days(6);
    block_on(vault.expire(&shop.me, &shop.why)).unwrap();
    assert!(note_opens(&newer, &unlock().unwrap()));
}

/// What is sealed as of this day may serve shipping for two days more.
fn almost_over(shop: &Shop) -> Day {
    Day::of(shop.clock.today().start_ms() - 88 * 86_400_000)
}
