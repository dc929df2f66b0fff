//! Races in one process: operations as tasks, and the store and the keeper let others go first at every call.
//!
//! `VAULT_SCHEDULES=20` runs 20 times as many schedules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::print_stdout, missing_docs, unreachable_pub, dead_code)]

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use customer_vault::testing::{test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;

#[path = "races/schedule.rs"]
mod schedule;
#[path = "races/shop.rs"]
mod shop;
#[path = "races/stories.rs"]
mod stories;

use schedule::{Choose, Every, Manner, Named, Seeded, Task, alone, run, schedules, task};
use shop::{Parcel, Recommendation, Shipping, Shop, Stage, evidence};

fn shop() -> &'static Shop {
    static SHOP: OnceLock<Shop> = OnceLock::new();
    SHOP.get_or_init(|| Shop::new(false, 1))
}

fn deep_shop() -> &'static Shop {
    static SHOP: OnceLock<Shop> = OnceLock::new();
    SHOP.get_or_init(|| Shop::new(false, 3))
}

/// Runs `race` under schedules of at most two preemptions, in order, then under others by chance.
fn explore(shop: &Shop, most: u64, chance: u64, race: impl Fn(&Stage<'_>, &Vault, &mut dyn Choose)) {
    let mut every = Every::new(2);
    for number in 0..schedules(most) {
        let _named = Named(number);
        let stage = shop.stage(Manner::Before);
        let vault = stage.process();
        race(&stage, &vault, &mut every);
        stage.verify(vec![vault], number % 8 == 0);
        if !every.advance() {
            break;
        }
    }
    for seed in 0..schedules(chance) {
        let _named = Named(("seed", seed));
        let stage = shop.stage(Manner::Around);
        let vault = stage.process();
        race(&stage, &vault, &mut Seeded::new(seed));
        stage.verify(vec![vault], seed % 8 == 0);
    }
}

#[test]
fn abuse_46_an_enrolment_is_not_lost_to_a_shred_of_its_path() {
    for shop in [shop(), deep_shop()] {
        explore(shop, 250, 60, |stage, vault, choose| {
            stage.has_left(vault, 0);
            let shred = async { assert_eq!(stage.shreds(vault).await.subjects, 1) };
            run(vec![task(stage.enrolls(vault, &stage.shop.absent[0])), task(shred)], &stage.clock, choose);
        });
    }
}

/// Some schedule in which `race` comes to what it must never come to.
fn some_schedule(shop: &Shop, race: impl Fn(&Stage<'_>, &Vault, &mut dyn Choose) -> bool) -> bool {
    let mut every = Every::new(2);
    loop {
        let stage = shop.stage(Manner::SkipsTouches);
        let vault = stage.process();
        if race(&stage, &vault, &mut every) {
            return true;
        }
        if !every.advance() {
            return false;
        }
    }
}

#[test]
fn abuse_46_a_store_that_skips_touches_loses_an_enrolment_and_this_search_finds_it() {
    let lost = some_schedule(shop(), |stage, vault, choose| {
        stage.has_left(vault, 0);
        let id = &stage.shop.absent[0];
        let enroll = async { vault.enroll(id, [], &tester(), &test_ground()).await.expect("enrolling") };
        let shred = async { drop(vault.shred(&tester(), &test_ground()).await) };
        run(vec![task(enroll), task(shred)], &stage.clock, choose);
        stage.gate.open(false);
        let token = &stage.shop.tokens.shipping;
        let outcome = alone(&stage.clock, stage.unlock::<Shipping>(vault, token, id));
        matches!(outcome, Err(Error::RolledBack(_)))
    });
    assert!(lost, "no schedule lost the enrolment");
}

#[test]
fn abuse_32_a_store_that_skips_touches_loses_a_hold_and_this_search_finds_it() {
    let lost = some_schedule(shop(), |stage, vault, choose| {
        stage.gate.open(false);
        let (other, _) = &stage.shop.people[5];
        alone(&stage.clock, vault.hold(other, &tester(), &test_ground())).unwrap();
        stage.gate.open(true);
        stage.clock.advance_days(4);
        let expire = async { drop(vault.expire(&tester(), &test_ground()).await) };
        run(vec![task(stage.is_held_in_time(vault, 1)), task(expire)], &stage.clock, choose);
        stage.gate.open(false);
        !alone(&stage.clock, stage.holds_keep(vault))
    });
    assert!(lost, "no schedule lost the hold");
}

#[test]
fn abuse_46_a_consent_a_withdrawal_and_a_hold_are_not_lost_to_a_shred() {
    explore(shop(), 120, 60, |stage, vault, choose| {
        stage.has_left(vault, 0);
        let tasks = vec![
            task(stage.withdraws(vault, 1, true)),
            task(stage.withdraws(vault, 2, false)),
            task(stage.is_held(vault, 3)),
            task(stage.shreds(vault)),
        ];
        run(tasks, &stage.clock, choose);
    });
}

#[test]
fn abuse_28_nothing_opens_seals_or_is_stored_after_a_forget_has_returned() {
    for again in [false, true] {
        explore(shop(), 100, 60, |stage, vault, choose| {
            let gone = Cell::new(false);
            let mut tasks = vec![task(stage.leaves(vault, 1, &gone, again))];
            if !again {
                tasks.push(task(stage.clings(vault, 1, &gone)));
            }
            tasks.push(task(stage.shreds(vault)));
            run(tasks, &stage.clock, choose);
        });
    }
}

#[test]
fn abuse_28_a_forget_at_every_step_of_an_unlock_of_a_sealer_and_of_a_put() {
    for (manner, what) in [Manner::Before, Manner::Around].into_iter().flat_map(|m| [(m, 0), (m, 1), (m, 2)])
    {
        let mut every = Every::new(1);
        loop {
            let _named = Named((manner, what, every.clone()));
            let stage = shop().stage(manner);
            let vault = stage.process();
            let gone = Cell::new(false);
            let (id, _) = &stage.shop.people[1];
            let forget = async {
                vault.forget(id, Forget::by(&tester(), &test_ground())).await.expect("forgetting");
                gone.set(true);
            };
            let other = match what {
                0 => task(stage.opens_once(&vault, 1, &gone)),
                1 => task(stage.seals_once(&vault, 1, &gone)),
                _ => task(stage.stores_once(&vault, 1, &gone)),
            };
            run(vec![other, task(forget)], &stage.clock, &mut every);
            if !every.advance() {
                break;
            }
        }
    }
}

#[test]
fn abuse_47_a_reader_that_meets_a_rotated_path_reads_again_and_succeeds() {
    for shop in [shop(), deep_shop()] {
        explore(shop, 60, 100, |stage, vault, choose| {
            stage.has_left(vault, 0);
            let cleans = async {
                stage.shreds(vault).await;
                stage.settles(vault).await;
            };
            let tasks = vec![task(stage.reads(vault, 1)), task(cleans), task(stage.reads(vault, 2))];
            run(tasks, &stage.clock, choose);
        });
    }
}

#[test]
fn everything_at_once() {
    for (number, shop) in [shop(), deep_shop()].into_iter().enumerate() {
        for seed in 0..schedules(100) {
            let _named = Named(("shop", number, "seed", seed));
            let stage = shop.stage(Manner::Around);
            let vault = stage.process();
            stage.has_left(&vault, 0);
            let gone = Cell::new(false);
            let mut dice = Seeded::new(seed);
            let midnight = async {
                stage.clock.advance_days(1);
                stage.expires(&vault).await;
            };
            let audit = async { assert!(vault.verify_log().await.unwrap().holds()) };
            let mut tasks: Vec<Task<'_>> = vec![
                task(stage.enrolls(&vault, &stage.shop.absent[0])),
                task(stage.enrolls(&vault, &stage.shop.absent[1])),
                task(stage.leaves(&vault, 1, &gone, false)),
                task(stage.clings(&vault, 1, &gone)),
                task(stage.withdraws(&vault, 2, false)),
                task(stage.is_held(&vault, 3)),
                task(stage.reads(&vault, 4)),
                task(audit),
                task(midnight),
                task(stage.settles(&vault)),
            ];
            // A few of them, so that each meets each.
            while tasks.len() > 5 {
                drop(tasks.swap_remove(dice.below(tasks.len())));
            }
            tasks.push(task(stage.shreds(&vault)));
            run(tasks, &stage.clock, &mut dice);
            stage.verify(vec![vault], seed % 8 == 0);
        }
    }
}

#[test]
fn abuse_32_a_hold_placed_while_days_expire_keeps_their_shelves() {
    explore(shop(), 150, 60, |stage, vault, choose| {
        stage.clock.advance_days(4);
        let expire = async { assert!(!stage.expires(vault).await.days.is_empty()) };
        run(vec![task(stage.is_held_in_time(vault, 1)), task(expire)], &stage.clock, choose);
    });
}

#[test]
fn abuse_32_a_hold_keeps_its_shelves_when_midnight_comes_while_days_expire() {
    explore(shop(), 100, 60, |stage, vault, choose| {
        stage.gate.open(false);
        alone(&stage.clock, stage.is_held_in_time(vault, 1));
        stage.gate.open(true);
        stage.clock.advance_days(4);
        let expire = async {
            if vault.expire(&tester(), &test_ground()).await.err() == Some(Error::Busy) {
                assert!(!stage.expires(vault).await.days.is_empty());
            }
        };
        let midnight = async {
            stage.clock.advance_days(1);
            let (id, _) = &stage.shop.people[2];
            stage.unlock::<Shipping>(vault, &stage.shop.tokens.shipping, id).await.expect("unlocking");
        };
        run(vec![task(expire), task(midnight)], &stage.clock, choose);
    });
}

#[test]
fn abuse_28_cleaning_up_after_a_shred_leaves_a_new_enrolment_its_records() {
    for seed in 0..schedules(60) {
        let _named = Named(seed);
        let clock = schedule::SimClock::at(shop::first_day());
        let gate = schedule::Gate::default();
        let store = schedule::Yielding {
            store: store::MemoryStore::new(),
            gate: gate.clone(),
            manner: Manner::Before,
            out_of_reach: Arc::default(),
        };
        let keeper = testing::MemoryKeeper::new();
        let settings = Settings::default().height(1).unwrap();
        let options = Options::new().record::<Parcel>().clock(clock.clone()).settings(settings);
        let (me, why, id) = (tester(), test_ground(), SubjectId::new("ada").unwrap());
        let parcel = || Parcel { name: PersonName::parse("Ada Lovelace").unwrap() };
        let vault = alone(&clock, async {
            let vault = options.create(store, keeper.clone(), keeper).await.unwrap();
            vault.enroll(&id, [], &me, &why).await.unwrap();
            let sealer = vault.sealer::<Parcel>(&id, &me, &why).await.unwrap();
            vault.put(&id, &1, &sealer.seal(parcel(), &1).unwrap(), &me, &why).await.unwrap();
            vault.put(&id, &2, &sealer.seal(parcel(), &2).unwrap(), &me, &why).await.unwrap();
            vault.forget(&id, Forget::by(&me, &why).without_grace()).await.unwrap();
            vault
        });
        gate.open(true);
        let again = async {
            vault.enroll_again(&id, [], &me, &why).await.unwrap();
            let sealer = vault.sealer::<Parcel>(&id, &me, &why).await.unwrap();
            vault.put(&id, &1, &sealer.seal(parcel(), &1).unwrap(), &me, &why).await.unwrap();
        };
        let shred = async { vault.shred(&me, &why).await.unwrap() };
        run(vec![task(again), task(shred)], &clock, &mut Seeded::new(seed));
        gate.open(false);
        alone(&clock, async {
            let stored = vault.get::<Parcel>(&id, &1, &me, &why).await.unwrap();
            assert!(stored.is_some(), "an acknowledged record is gone");
            let grant = testing::grant::<Shipping>(&vault, &id).await.unwrap();
            assert!(stored.unwrap().open(&grant, &1).unwrap().name().is_ok());
            assert!(!vault.list::<Parcel, u64>(&id, &me, &why).await.expect("the set is whole").is_empty());
        });
    }
}

#[test]
fn abuse_33_expiring_twice_at_once_is_expiring_once() {
    explore(shop(), 60, 20, |stage, vault, choose| {
        stage.clock.advance_days(4);
        let days = Cell::new(0);
        let expire = || async {
            let destroyed = stage.expires(vault).await.days.len();
            days.set(days.get() + destroyed);
        };
        run(vec![task(expire()), task(expire())], &stage.clock, choose);
        assert_eq!(days.get(), 4);
    });
}

#[test]
fn abuse_48_a_batch_of_forgets_and_enrolments_go_on_together() {
    let stage = shop().stage(Manner::Before);
    let vault = stage.process();
    let many = usize::try_from(schedules(200)).unwrap();
    let ids: Vec<SubjectId> = (0..many).map(|n| SubjectId::new(&format!("leaver-{n}")).unwrap()).collect();
    stage.gate.open(false);
    alone(&stage.clock, async {
        for id in &ids {
            vault.enroll(id, [], &tester(), &test_ground()).await.unwrap();
        }
        let request = Forget::by(&tester(), &test_ground()).without_grace();
        assert!(vault.forget_many(&ids, request).await.iter().all(Result::is_ok));
    });
    stage.gate.open(true);
    let (enrolled, shredded) = (Cell::new(0), Cell::new(0));
    let enrolls = async {
        for id in &stage.shop.absent {
            stage.enrolls(&vault, id).await;
            enrolled.set(enrolled.get() + usize::from(shredded.get() == 0));
        }
    };
    let shred = async { shredded.set(stage.shreds(&vault).await.subjects) };
    run(vec![task(enrolls), task(shred)], &stage.clock, &mut Seeded::new(48));
    assert_eq!(shredded.get(), many);
    assert!(enrolled.get() > 0, "enrolments went on while the batch was shredded");
    stage.verify(vec![vault], true);
}

#[test]
fn abuse_29_a_grant_from_before_a_withdrawal_does_not_come_back_with_a_new_consent() {
    let stage = shop().stage(Manner::Before);
    let vault = stage.process();
    let (id, sealed) = &stage.shop.people[0];
    let (me, why) = (tester(), test_ground());
    alone(&stage.clock, async {
        let old =
            stage.unlock::<Recommendation>(&vault, &stage.shop.tokens.recommendation, id).await.unwrap();
        assert!(sealed.open(&old, &1).unwrap().taste().is_ok());
        vault.withdraw::<Recommendation>(id, &me, &why).await.unwrap();
        assert!(matches!(sealed.open(&old, &1), Err(Error::Erased(_))));
        stage.clock.advance_days(1);
        assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 1);
        vault.consent::<Recommendation>(id, evidence(), &me, &why).await.unwrap();
        // The key of then is destroyed, but for this grant's copy.
        assert_eq!(sealed.open(&old, &1).err(), Some(Error::Stale));
        let new =
            stage.unlock::<Recommendation>(&vault, &stage.shop.tokens.recommendation, id).await.unwrap();
        assert_eq!(sealed.open(&new, &1).unwrap().taste().unwrap_err(), Absent::Withdrawn);
    });
}

#[test]
fn a_withdrawal_is_still_due_when_a_forget_of_the_same_day_is_undone() {
    let stage = shop().stage(Manner::Before);
    let vault = stage.process();
    let (id, sealed) = &stage.shop.people[0];
    let (me, why) = (tester(), test_ground());
    alone(&stage.clock, async {
        vault.withdraw::<Recommendation>(id, &me, &why).await.unwrap();
        vault.forget(id, Forget::by(&me, &why)).await.unwrap();
        vault.undo_forget(id, &me, &why).await.unwrap();
        stage.read(&vault, id, sealed, 1).await.unwrap();
        stage.clock.advance_days(1);
        assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 1, "the withdrawn key is destroyed");
    });
}

#[test]
fn a_live_log_verifies_while_it_is_written() {
    explore(shop(), 60, 30, |stage, vault, choose| {
        let audit = async {
            let report = vault.verify_log().await.unwrap();
            assert!(report.holds(), "{report:?}");
        };
        run(vec![task(audit), task(stage.reads(vault, 0))], &stage.clock, choose);
    });
}

#[test]
fn a_grant_for_another_purpose_stays_what_it_is_through_a_shred() {
    let stage = shop().stage(Manner::Before);
    let vault = stage.process();
    stage.has_left(&vault, 0);
    let (id, sealed) = &stage.shop.people[1];
    alone(&stage.clock, async {
        let grant = stage.unlock::<Shipping>(&vault, &stage.shop.tokens.shipping, id).await.unwrap();
        stage.shreds(&vault).await;
        stage.settles(&vault).await;
        assert!(sealed.open(&grant, &1).unwrap().name().is_ok());
    });
}

#[path = "races/threads.rs"]
mod threads;
