//! Histories that the model has found, or that reading has: each by itself, and short.

use std::collections::BTreeMap;
use std::time::Duration;

use customer_vault::error::{Erased, Halted};
use customer_vault::store::MemoryStore;
use customer_vault::testing::{
    CommitFault, FaultStore, ManualClock, MemoryKeeper, grant, test_ground, tester,
};
use customer_vault::*;
use pollster::block_on;

use crate::shop::{Books, Order, Recs, Ship, an_order, order};

struct Shop {
    clock: ManualClock,
    vault: Vault,
    alice: SubjectId,
}

fn options(clock: &ManualClock) -> Options {
    Options::new().record::<Order>().settings(Settings::default().height(1).unwrap()).clock(clock.clone())
}

fn evidence(version: u32) -> Evidence {
    Evidence::of_notice(version, "notice", "web", &tester()).unwrap()
}

fn consents() -> [Consent; 1] {
    [Consent::to::<Recs>(evidence(0))]
}

fn start() -> Shop {
    let clock = ManualClock::at(Day::from_ymd(2026, 3, 1).unwrap());
    let vault = block_on(testing::ephemeral(options(&clock))).unwrap();
    let alice = SubjectId::new("alice").unwrap();
    block_on(vault.enroll(&alice, consents(), &tester(), &test_ground())).unwrap();
    Shop { clock, vault, alice }
}

impl Shop {
    fn sealer(&self) -> Sealer<Order> {
        block_on(self.vault.sealer::<Order>(&self.alice, &tester(), &test_ground())).unwrap()
    }

    fn seal(&self) -> Sealed<Order> {
        self.sealer().seal(record(), &1).unwrap()
    }

    fn forget(&self, request: impl FnOnce(Forget) -> Forget) -> ForgetReceipt {
        let request = request(Forget::by(&tester(), &test_ground()));
        block_on(self.vault.forget(&self.alice, request)).unwrap()
    }

    fn withdraw(&self) {
        block_on(self.vault.withdraw::<Recs>(&self.alice, &tester(), &test_ground())).unwrap();
    }

    fn consent(&self) {
        let (me, why) = (tester(), test_ground());
        block_on(self.vault.consent::<Recs>(&self.alice, evidence(0), &me, &why)).unwrap();
    }

    fn enroll_again(&self) {
        let (me, why) = (tester(), test_ground());
        block_on(self.vault.enroll_again(&self.alice, consents(), &me, &why)).unwrap();
    }

    fn shred(&self) -> ShredReceipt {
        block_on(self.vault.shred(&tester(), &test_ground())).unwrap()
    }

    fn expire(&self) {
        block_on(self.vault.expire(&tester(), &test_ground())).unwrap();
    }

    fn grant<P: Purpose>(&self) -> Result<Grant<P>> {
        block_on(grant::<P>(&self.vault, &self.alice))
    }

    /// A grant that lives longer than an hour.
    fn long_grant<P: Purpose>(&self) -> Grant<P> {
        let (me, why) = (tester(), test_ground());
        let year = Duration::from_secs(366 * 86_400);
        let token = block_on(self.vault.issue::<P>(&me, &why, year, Scope::everyone())).unwrap();
        block_on(self.vault.unlock::<P>(&token, &self.alice)).unwrap()
    }
}

fn record() -> Order {
    an_order(&(1..=5).map(|field| (field, format!("field {field}"))).collect::<BTreeMap<_, _>>())
}

#[test]
fn a_withdrawal_is_shredded_although_a_forget_of_the_same_day_was_undone() {
    let shop = start();
    shop.withdraw();
    shop.forget(|request| request);
    shop.clock.advance_days(1);
    block_on(shop.vault.undo_forget(&shop.alice, &tester(), &test_ground())).unwrap();
    shop.clock.advance_days(6);
    assert_eq!(shop.shred().subjects, 1, "the key of what was withdrawn is destroyed");
}

#[test]
fn what_is_kept_for_less_than_the_grace_comes_back_with_an_undo() {
    let shop = start();
    let sealed = shop.seal();
    let today = shop.clock.today();
    shop.forget(|request| request.keeping::<Ship>(today));
    shop.clock.advance_days(2);
    shop.shred();
    block_on(shop.vault.undo_forget(&shop.alice, &tester(), &test_ground())).unwrap();
    let view = sealed.open(&shop.grant::<Ship>().unwrap(), &1).unwrap();
    assert_eq!(view.note().unwrap().0, "field 2");
}

#[test]
fn a_new_consent_does_not_wake_a_grant_whose_key_was_destroyed() {
    let shop = start();
    let sealed = shop.seal();
    let (recs, access) = (shop.long_grant::<Recs>(), shop.long_grant::<SubjectAccess>());
    assert!(sealed.open(&recs, &1).unwrap().taste().is_ok());
    shop.withdraw();
    assert_eq!(sealed.open(&recs, &1).unwrap_err(), Error::Erased(Erased::Purpose));
    shop.clock.advance_days(7);
    shop.shred();
    shop.consent();
    assert_eq!(sealed.open(&recs, &1).unwrap_err(), Error::Stale);
    assert_eq!(sealed.open(&access, &1).unwrap_err(), Error::Stale);
}

#[test]
fn after_a_new_consent_what_is_older_stays_dead_for_it_and_open_for_all_else() {
    let shop = start();
    let old = shop.seal();
    shop.withdraw();
    shop.clock.advance_days(7);
    shop.shred();
    shop.consent();
    let new = shop.seal();
    let recs = shop.grant::<Recs>().unwrap();
    assert_eq!(new.open(&recs, &1).unwrap().taste().unwrap().0, "field 3");
    assert_eq!(old.open(&recs, &1).unwrap().taste().unwrap_err(), Absent::Withdrawn);
    let access = shop.grant::<SubjectAccess>().unwrap();
    let view = old.open(&access, &1).unwrap();
    assert_eq!(view.device().unwrap().0, "field 4", "for fraud it is still there");
    assert_eq!(view.taste().unwrap_err(), Absent::Withdrawn);
    assert_eq!(old.open(&access, &2).unwrap_err(), Error::DoesNotOpen, "another record's id");
}

#[test]
fn a_raised_notice_ends_grants_and_sealers_that_were_taken_before() {
    let shop = start();
    let sealer = shop.sealer();
    let sealed = sealer.seal(record(), &1).unwrap();
    let (recs, ship) = (shop.long_grant::<Recs>(), shop.long_grant::<Ship>());
    block_on(shop.vault.require_notice::<Recs>(1, &tester(), &test_ground())).unwrap();
    assert_eq!(sealed.open(&recs, &1).unwrap_err(), Error::Stale);
    assert_eq!(sealer.seal(record(), &1).unwrap_err(), Error::Stale);
    assert!(sealed.open(&ship, &1).is_ok(), "who does not read by consent goes on");
    assert_eq!(shop.grant::<Recs>().unwrap_err(), Error::Erased(Erased::Purpose));
}

#[test]
fn what_is_kept_ends_with_its_day_for_a_grant_that_was_taken_before() {
    let shop = start();
    let sealed = shop.seal();
    let today = shop.clock.today();
    shop.forget(|request| request.keeping::<Ship>(today));
    let ship = shop.long_grant::<Ship>();
    assert!(sealed.open(&ship, &1).unwrap().note().is_ok());
    shop.clock.advance_days(1);
    let closed = sealed.open(&ship, &1).map(|view| view.note().map(|_| ()).unwrap_err());
    assert!(matches!(closed, Err(Error::Erased(Erased::Forgotten)) | Ok(Absent::Withdrawn)), "{closed:?}");
}

#[test]
fn what_is_kept_ends_with_its_day_after_a_new_enrolment_too() {
    let shop = start();
    let sealed = shop.seal();
    let today = shop.clock.today();
    shop.forget(|request| request.keeping::<Ship>(today));
    shop.enroll_again();
    let ship = shop.long_grant::<Ship>();
    assert!(sealed.open(&ship, &1).unwrap().note().is_ok());
    shop.clock.advance_days(1);
    shop.expire();
    assert_eq!(sealed.open(&ship, &1).unwrap().note().unwrap_err(), Absent::Withdrawn);
}

#[test]
fn abuse_31_what_the_law_keeps_does_not_come_back_through_an_update_or_a_renewal() {
    let shop = start();
    let sealed = shop.seal();
    shop.forget(Forget::without_grace);
    shop.shred();
    shop.enroll_again();
    let (sealer, books) = (shop.sealer(), shop.grant::<Books>().unwrap());
    assert!(sealed.open(&books, &1).unwrap().address().is_ok(), "the books stay");
    let ship = shop.grant::<Ship>().unwrap();
    let today = shop.clock.today();
    let updated = sealed.update(&sealer, &books, &1, |changes| {
        changes.set::<order::lines>(crate::shop::Text("corrected".into()));
    });
    assert_eq!(updated.unwrap_err(), Error::Erased(Erased::Purpose));
    let renewed = block_on(sealed.renew(&sealer, &books, &1, today, &tester(), &test_ground())).unwrap();
    assert_eq!(renewed.open(&ship, &1).unwrap().address().unwrap_err(), Absent::Withdrawn);
}

#[test]
fn abuse_16_a_clock_that_jumped_shreds_and_settles_nothing() {
    let shop = start();
    let sealed = shop.seal();
    shop.forget(|request| request);
    shop.clock.advance_days(3650);
    let (me, why) = (tester(), test_ground());
    assert_eq!(block_on(shop.vault.shred(&me, &why)).unwrap_err(), Error::Halted(Halted::Clock));
    assert_eq!(block_on(shop.vault.settle(&me, &why)).unwrap_err(), Error::Halted(Halted::Clock));
    let before = shop.clock.today().start_ms() - 3650 * 86_400_000;
    shop.clock.set_wall(before + 43_200_000);
    block_on(shop.vault.undo_forget(&shop.alice, &me, &why)).unwrap();
    assert!(sealed.open(&shop.grant::<Ship>().unwrap(), &1).unwrap().note().is_ok());
}

#[test]
fn a_purpose_of_consent_that_is_kept_opens_after_the_shred_too() {
    let shop = start();
    let sealed = shop.seal();
    let until = Day::of(shop.clock.today().end_ms() + 9 * 86_400_000);
    let receipt = shop.forget(|request| request.without_grace().keeping::<Recs>(until));
    assert!(receipt.stays.contains(&(PurposeId::of::<Recs>(), until)));
    assert!(sealed.open(&shop.grant::<Recs>().unwrap(), &1).unwrap().taste().is_ok());
    shop.shred();
    assert!(sealed.open(&shop.grant::<Recs>().unwrap(), &1).unwrap().taste().is_ok());
}

#[test]
fn abuse_45_a_freeze_by_another_process_stops_sealers_and_puts() {
    let clock = ManualClock::at(Day::from_ymd(2026, 3, 1).unwrap());
    let (store, keeper) = (MemoryStore::shared_between_handles(), MemoryKeeper::new());
    let (me, why, alice) = (tester(), test_ground(), SubjectId::new("alice").unwrap());
    block_on(async {
        let one = options(&clock).create(store.clone(), keeper.clone(), keeper.clone()).await.unwrap();
        let two = options(&clock).open(store, keeper.clone(), keeper).await.unwrap();
        one.enroll(&alice, consents(), &me, &why).await.unwrap();
        let sealed = one.sealer::<Order>(&alice, &me, &why).await.unwrap().seal(record(), &1).unwrap();
        two.freeze(&me, &why).await.unwrap();
        let frozen = Error::Halted(Halted::Frozen);
        assert_eq!(one.sealer::<Order>(&alice, &me, &why).await.unwrap_err(), frozen);
        two.unfreeze(&me, &why).await.unwrap();
        one.sealer::<Order>(&alice, &me, &why).await.unwrap();
        two.freeze(&me, &why).await.unwrap();
        assert_eq!(one.put(&alice, &1, &sealed, &me, &why).await.unwrap_err(), frozen);
    });
}

#[test]
fn abuse_36_a_hold_after_a_release_that_was_killed_opens_what_it_keeps() {
    let clock = ManualClock::at(Day::from_ymd(2026, 3, 1).unwrap());
    let (store, keeper) = (FaultStore::new(MemoryStore::new()), MemoryKeeper::new());
    let (me, why, alice) = (tester(), test_ground(), SubjectId::new("alice").unwrap());
    block_on(async {
        let vault = options(&clock).create(store.clone(), keeper.clone(), keeper.clone()).await.unwrap();
        vault.enroll(&alice, consents(), &me, &why).await.unwrap();
        vault.hold(&alice, &me, &why).await.unwrap();
        clock.advance_days(1);
        vault.expire(&me, &why).await.unwrap();
        store.fail_commit(0, CommitFault::KilledAfter);
        assert!(vault.release_hold(&alice, &me, &why).await.is_err());
        store.heal();
        drop(vault);
        let vault = options(&clock).open(store.clone(), keeper.clone(), keeper).await.unwrap();
        let sealed = vault.sealer::<Order>(&alice, &me, &why).await.unwrap().seal(record(), &1).unwrap();
        vault.hold(&alice, &me, &why).await.unwrap();
        for _ in 0..3 {
            clock.advance_days(7);
            vault.expire(&me, &why).await.unwrap();
        }
        let hold = grant::<LegalHold>(&vault, &alice).await.unwrap();
        assert_eq!(sealed.open(&hold, &1).unwrap().note().unwrap().0, "field 2");
    });
}

#[test]
fn abuse_36_a_shred_that_is_killed_before_the_records_are_deleted_is_finished_by_the_next() {
    let clock = ManualClock::at(Day::from_ymd(2026, 3, 1).unwrap());
    let (store, keeper) = (MemoryStore::new(), MemoryKeeper::new());
    let (me, why, alice) = (tester(), test_ground(), SubjectId::new("alice").unwrap());
    block_on(async {
        let vault = options(&clock).create(store.clone(), keeper.clone(), keeper.clone()).await.unwrap();
        vault.enroll(&alice, consents(), &me, &why).await.unwrap();
        let sealed = vault.sealer::<Order>(&alice, &me, &why).await.unwrap().seal(record(), &1).unwrap();
        vault.put(&alice, &1, &sealed, &me, &why).await.unwrap();
        vault.forget(&alice, Forget::by(&me, &why).without_grace()).await.unwrap();
        // Until the books are over, too.
        for _ in 0..14 {
            clock.advance_days(7);
            vault.expire(&me, &why).await.unwrap();
        }
        drop(vault);
        for nth in 0.. {
            let (faults, keeper) = (FaultStore::new(store.snapshot()), keeper.snapshot());
            let open = || options(&clock).open(faults.clone(), keeper.clone(), keeper.clone());
            let vault = open().await.unwrap();
            assert_eq!(vault.list::<Order, u64>(&alice, &me, &why).await.unwrap().len(), 1);
            faults.fail_commit(nth, CommitFault::KilledAfter);
            drop(vault.shred(&me, &why).await);
            let killed = faults.killed();
            faults.heal();
            drop(vault);
            let vault = open().await.unwrap();
            vault.shred(&me, &why).await.unwrap();
            assert!(vault.list::<Order, u64>(&alice, &me, &why).await.unwrap().is_empty(), "commit {nth}");
            assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 0, "commit {nth}");
            if !killed {
                break;
            }
        }
    });
}
