//! A full disk, a keeper or a witness out of reach, a log that cannot be written; and what crashes have left behind.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use customer_vault::error::{Erased, KeeperError, Misuse, RolledBack, StoreError};
use customer_vault::log::{Action, Outcome};
use customer_vault::testing::{Call, CommitFault, grant, test_ground, tester};
use customer_vault::*;
use pollster::block_on;

use crate::faults::KeeperFault;
use crate::matrix::Stage;
use crate::operations::{opens_under_hold, operation};
use crate::world::{Order, Place, Recommendation, Shipping, World, evidence, id, options};

fn small() -> Place {
    let mut place = World::small(1).place();
    place.open().unwrap();
    place
}

/// From now on no commit is made.
fn full(p: &Place) {
    let store = p.store.clone();
    p.store.before_each(move |call| {
        if matches!(call, Call::Commit(_)) {
            store.fail_commit(0, CommitFault::Failed(StoreError::Full));
        }
        Box::pin(std::future::ready(()))
    });
}

#[test]
fn abuse_38_on_a_full_disk_every_change_says_so_and_goes_on_once_there_is_room() {
    for name in ["enroll", "put", "forget", "withdraw", "shred", "expire", "settle"] {
        let stage = Stage::new(operation(name), 1);
        let mut place = stage.place();
        full(&place);
        for _ in 0..2 {
            assert_eq!(stage.run(&place), Some(Err(StoreError::Full.into())), "{name}");
        }
        stage.settle_down(&mut place, "a full disk", None);
    }
}

#[test]
fn abuse_41_without_a_keeper_reads_go_on_and_nothing_is_certified() {
    let mut p = small();
    p.keeper.inner.unreachable(true);
    // Past midnight too, when the mark of time moves.
    p.clock.advance_days(1);
    assert!(p.opens("bob", 1));
    p.order("bob", 2);
    assert!(p.opens("bob", 2));
    let receipt = p.forget("alice").unwrap();
    assert!(!receipt.witnessed);
    assert_eq!(p.unlocks::<Shipping>("alice"), Err(Erased::Forgotten.into()));
    let out_of_reach = Error::Keeper(KeeperError::Unreachable);
    assert_eq!(p.shred().unwrap_err(), out_of_reach);
    assert_eq!(p.settle().unwrap_err(), out_of_reach);
    assert_eq!(block_on(p.vault().certificate(&receipt.reference)).unwrap(), None);
    p.keeper.inner.unreachable(false);
    assert_eq!(p.shred().unwrap().subjects, 1);
    assert_eq!(p.settle().unwrap().certificates.len(), 1);
    assert!(block_on(p.vault().certificate(&receipt.reference)).unwrap().is_some());
    p.is_sound("the keeper was out of reach");
}

#[test]
fn abuse_41_where_the_keeper_is_lost_in_the_middle_reads_go_on() {
    for name in ["shred", "expire", "settle"] {
        let stage = Stage::new(operation(name), 1);
        for nth in 0..stage.calls().keeper {
            let mut p = stage.place();
            p.keeper.fail(nth, KeeperFault::FailsBefore);
            let outcome = stage.run(&p);
            p.keeper.inner.unreachable(true);
            assert_eq!(p.unlocks::<Shipping>("bob"), Ok(()), "{name}, {nth}");
            block_on(p.vault().sealer::<Order>(&id("bob"), &tester(), &test_ground())).unwrap();
            p.keeper.inner.unreachable(false);
            stage.settle_down(&mut p, &format!("lost at call {nth}"), outcome);
        }
    }
}

#[test]
fn abuse_35_a_keeper_that_still_unwraps_gets_no_certificate_before_it_stops() {
    let stage = Stage::new(operation("settle"), 1);
    let mut p = stage.place();
    p.keeper.inner.lies_about_destroying(true);
    for _ in 0..2 {
        assert_eq!(p.settle().unwrap_err(), KeeperError::StillUnwraps.into());
        assert!(p.rows(b"z").is_empty());
        p.open().unwrap();
    }
}

#[test]
fn abuse_43_where_the_log_cannot_be_written_nothing_is_opened() {
    let p = small();
    let (alice, me, why) = (id("alice"), tester(), test_ground());
    let hour = Duration::from_secs(3600);
    let token = block_on(p.vault().issue::<Shipping>(&me, &why, hour, Scope::everyone())).unwrap();
    full(&p);
    let no_room = Error::Store(StoreError::Full);
    assert_eq!(block_on(p.vault().unlock::<Shipping>(&token, &alice)).unwrap_err(), no_room);
    let both = [alice.clone(), id("bob")];
    assert_eq!(block_on(p.vault().unlock_many::<Shipping>(&token, &both)).unwrap_err(), no_room);
    assert_eq!(block_on(p.vault().get::<Order>(&alice, &1, &me, &why)).unwrap_err(), no_room);
    assert_eq!(block_on(p.vault().list::<Order, u64>(&alice, &me, &why)).unwrap_err(), no_room);
    assert_eq!(block_on(p.vault().sealer::<Order>(&alice, &me, &why)).unwrap_err(), no_room);
}

#[test]
fn abuse_43_whatever_becomes_of_a_commit_no_grant_is_without_its_entry() {
    let faults = [
        CommitFault::Failed(StoreError::Full),
        CommitFault::UnknownNotDone,
        CommitFault::UnknownDone,
        CommitFault::KilledBefore,
        CommitFault::KilledAfter,
    ];
    for (nth, fault) in (0..4).flat_map(|nth| faults.map(|fault| (nth, fault))) {
        let mut p = small();
        let unlocked = |p: &Place| {
            let log = block_on(p.vault().log()).unwrap();
            log.iter().filter(|e| e.action() == Action::Unlock && e.outcome() == Outcome::Done).count()
        };
        let before = unlocked(&p);
        p.store.fail_commit(nth, fault);
        let given = block_on(grant::<Shipping>(p.vault(), &id("alice"))).is_ok();
        p.heal();
        p.open().unwrap();
        let written = unlocked(&p) - before;
        assert!(written == 1 || (written == 0 && !given), "{nth}, {fault:?}: {written} entries, {given}");
    }
}

#[test]
fn a_forget_that_the_witness_has_not_heard_of_is_completed_by_the_next_change_or_open() {
    for by_open in [false, true] {
        let mut p = small();
        let before = p.world().store;
        p.keeper.inner.witness_unreachable(true);
        assert!(!p.forget("alice").unwrap().witnessed);
        assert_eq!(p.unlocks::<Shipping>("alice"), Err(Erased::Forgotten.into()));
        p.keeper.inner.witness_unreachable(false);
        if by_open {
            p.open().unwrap();
        } else {
            block_on(p.vault().enroll(&id("eve"), [], &tester(), &test_ground())).unwrap();
        }
        p.close();
        // The witness tells: a store from before the forget is found.
        let keeper = p.keeper.clone();
        let opened = block_on(options(&p.clock).open(before, keeper.clone(), keeper));
        assert_eq!(opened.unwrap_err(), RolledBack::Store.into(), "completed by open: {by_open}");
        p.open().unwrap();
        p.is_sound("the witness was out of reach");
    }
}

/// Ours is made, not acknowledged, and then others write the same rows before we look.
#[test]
fn a_change_of_unknown_outcome_is_found_though_others_wrote_after_it() {
    let p = small();
    let mut other = p.clone();
    other.close();
    let keeper = p.keeper.clone();
    let rows = p.store.inner().rows.clone();
    let other = block_on(options(&p.clock).open(rows, keeper.clone(), keeper)).unwrap();
    let done = Arc::new(Mutex::new(false));
    let armed = Arc::clone(&done);
    p.store.fail_commit(0, CommitFault::UnknownDone);
    p.store.before_each(move |call| {
        let other = other.clone();
        // The first read after the commit is the one that looks what became of it.
        let look = matches!(call, Call::Read(_)) && std::mem::take(&mut *armed.lock().unwrap());
        if matches!(call, Call::Commit(_)) {
            *armed.lock().unwrap() = true;
        }
        Box::pin(async move {
            if look {
                // Sixteen nodes, all of them written again.
                for n in 0..64 {
                    let who = id(&format!("x{n}"));
                    other.enroll(&who, [], &tester(), &test_ground()).await.unwrap();
                }
            }
        })
    });
    block_on(p.vault().enroll(&id("eve"), [], &tester(), &test_ground())).unwrap();
    assert!(!*done.lock().unwrap(), "others have written");
    p.store.without_hook();
    p.order("eve", 1);
    assert!(p.opens("eve", 1));
}

#[test]
fn a_withdrawal_survives_a_forget_that_is_undone_on_the_same_day() {
    let p = small();
    let (alice, me, why) = (id("alice"), tester(), test_ground());
    block_on(p.vault().consent::<Recommendation>(&alice, evidence(), &me, &why)).unwrap();
    p.order("alice", 2);
    block_on(p.vault().withdraw::<Recommendation>(&alice, &me, &why)).unwrap();
    block_on(p.vault().forget(&alice, Forget::by(&me, &why))).unwrap();
    block_on(p.vault().undo_forget(&alice, &me, &why)).unwrap();
    p.clock.advance_days(3);
    assert_eq!(p.shred().unwrap().subjects, 1, "the withdrawn key is due");
    block_on(p.vault().consent::<Recommendation>(&alice, evidence(), &me, &why)).unwrap();
    let grant = block_on(grant::<Recommendation>(p.vault(), &alice)).unwrap();
    // Another key, under which nothing opens that was sealed before.
    let sealed = p.get("alice", 2).unwrap();
    let view = sealed.open(&grant, &2).unwrap();
    assert_eq!(view.taste().unwrap_err(), Absent::Withdrawn);
}

#[test]
fn a_second_hold_keeps_days_that_an_interrupted_expiry_had_kept_for_the_first() {
    let stage = Stage::new(operation("expire"), 1);
    let mut kept = 0;
    for nth in 0..stage.calls().commits {
        let mut p = stage.place();
        p.store.fail_commit(nth, CommitFault::KilledBefore);
        stage.run(&p);
        p.heal();
        p.open().unwrap();
        let due = p.rows_until(b'd', p.clock.today());
        // The release is killed too, if it has more than one commit.
        p.store.fail_commit(1, CommitFault::KilledBefore);
        let _ = block_on(p.vault().release_hold(&id("alice"), &tester(), &test_ground()));
        p.heal();
        p.open().unwrap();
        p.hold("alice").unwrap();
        p.expire().unwrap();
        if due > 1 {
            opens_under_hold(&p, "alice");
            kept += 1;
        }
        p.is_sound("a second hold");
    }
    assert!(kept > 2, "{kept}");
}

#[test]
fn what_is_stored_for_a_new_enrolment_is_not_deleted_with_the_old_one() {
    let stage = Stage::new(operation("shred"), 1);
    let mut early = 0;
    for nth in 0..stage.calls().commits {
        let mut p = stage.place();
        p.store.fail_commit(nth, CommitFault::KilledBefore);
        stage.run(&p);
        p.heal();
        p.open().unwrap();
        early += usize::from(p.rows(b"v").len() == 4);
        let (alice, me, why) = (id("alice"), tester(), test_ground());
        block_on(p.vault().enroll_again(&alice, [], &me, &why)).unwrap();
        p.order("alice", 2);
        p.shred().unwrap();
        assert!(p.opens("alice", 2), "killed before commit {nth}");
        p.is_sound("enrolled again");
    }
    assert!(early > 2, "{early}");
}

#[test]
fn a_retry_of_what_was_not_acknowledged_says_that_it_is_done() {
    let mut p = small();
    p.store.fail_commit(0, CommitFault::KilledAfter);
    let enroll = |p: &Place| block_on(p.vault().enroll(&id("eve"), [], &tester(), &test_ground()));
    assert_eq!(enroll(&p), Err(StoreError::Unknown.into()));
    p.heal();
    p.open().unwrap();
    assert_eq!(enroll(&p), Err(Misuse::AlreadyEnrolled.into()));
}
