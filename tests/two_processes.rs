//! Two processes on one store: two open vaults with one keeper and one clock, in one thread, so that each order of
//! their calls can be tried; a process is killed by dropping its tasks, or stands still for long.
//!
//! `VAULT_SCHEDULES=20` runs 20 times as many schedules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::print_stdout, missing_docs, unreachable_pub, dead_code)]

use std::cell::Cell;
use std::sync::OnceLock;

use customer_vault::clock::Clock as _;
use customer_vault::error::{Denied, Erased, Halted};
use customer_vault::testing::{test_ground, tester};
use customer_vault::*;

#[path = "races/schedule.rs"]
mod schedule;
#[path = "races/shop.rs"]
mod shop;
#[path = "races/stories.rs"]
mod stories;

use schedule::{Manner, Named, Seeded, Task, alone, run, schedules, task};
use shop::{Shipping, Shop, Stage};

fn shop() -> &'static Shop {
    static SHOP: OnceLock<Shop> = OnceLock::new();
    SHOP.get_or_init(|| Shop::new(true, 1))
}

fn deep_shop() -> &'static Shop {
    static SHOP: OnceLock<Shop> = OnceLock::new();
    SHOP.get_or_init(|| Shop::new(true, 3))
}

/// Runs `race` with two processes under schedules by chance.
fn explore(shop: &Shop, n: u64, race: impl Fn(&Stage<'_>, &Vault, &Vault, &mut Seeded)) {
    for seed in 0..schedules(n) {
        let _named = Named(seed);
        let stage = shop.stage(Manner::Around);
        let (one, two) = (stage.process(), stage.process());
        race(&stage, &one, &two, &mut Seeded::with_drift(seed, 300));
        stage.verify(vec![one, two], seed % 4 == 0);
    }
}

/// Keeps leases alive, as a shop does: where it ends, it is spawned again.
async fn watches(stage: &Stage<'_>, vault: &Vault) {
    loop {
        let _ = vault.watch().await;
        stage.clock.sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[test]
fn abuse_35_two_processes_shred_at_once_and_nothing_is_lost() {
    for shop in [shop(), deep_shop()] {
        explore(shop, 100, |stage, one, two, dice| {
            stage.has_left(one, 0);
            let cleans = async |vault| {
                stage.shreds(vault).await;
                stage.settles(vault).await;
            };
            let tasks = vec![
                task(cleans(one)),
                task(cleans(two)),
                task(stage.enrolls(one, &stage.shop.absent[0])),
                task(stage.reads(two, 1)),
                task(stage.withdraws(two, 2, false)),
            ];
            run(tasks, &stage.clock, dice);
        });
    }
}

#[test]
fn abuse_35_a_process_that_is_killed_anywhere_in_a_shred_is_finished_by_the_other() {
    for seed in 0..schedules(150) {
        let _named = Named(seed);
        let shop = if seed % 3 == 0 { deep_shop() } else { shop() };
        let stage = shop.stage(Manner::Around);
        let (one, two) = (stage.process(), stage.process());
        let mut dice = Seeded::with_drift(seed, 300);
        stage.has_left(&one, 0);
        let cleans = async {
            stage.shreds(&one).await;
            stage.settles(&one).await;
        };
        let tasks = vec![
            task(cleans).killed_after(1 + dice.below(80)),
            task(stage.shreds(&two)),
            task(stage.reads(&two, 1)),
            task(stage.enrolls(&two, &stage.shop.absent[0])),
        ];
        stage.killed.set(true);
        run(tasks, &stage.clock, &mut dice);
        drop(one);
        stage.verify(vec![two], true);
    }
}

#[test]
fn abuse_35_a_process_that_stands_still_anywhere_and_goes_on_much_later_breaks_nothing() {
    for seed in 0..schedules(150) {
        let _named = Named(seed);
        let shop = if seed % 3 == 0 { deep_shop() } else { shop() };
        let stage = shop.stage(Manner::Around);
        let (one, two) = (stage.process(), stage.process());
        let mut dice = Seeded::with_drift(seed, 300);
        stage.has_left(&one, 0);
        let cleans = async |vault| {
            stage.shreds(vault).await;
            stage.settles(vault).await;
        };
        let late = async {
            stage.enrolls(&one, &stage.shop.absent[0]).await;
            stage.reads(&one, 1).await;
        };
        let other = async {
            cleans(&two).await;
            stage.withdraws(&two, 2, false).await;
            stage.clock.advance_days(1);
            cleans(&two).await;
        };
        let tasks = vec![
            task(cleans(&one)).paused_after(1 + dice.below(80)),
            task(late).paused_after(1 + dice.below(40)),
            task(other),
        ];
        run(tasks, &stage.clock, &mut dice);
        stage.verify(vec![one, two], true);
    }
}

#[test]
fn abuse_28_after_a_forget_has_returned_nothing_opens_in_the_other_process_watching_or_not() {
    for watching in [false, true] {
        for again in [false, true] {
            explore(shop(), 50, |stage, one, two, dice| {
                let gone = Cell::new(false);
                let mut tasks = vec![task(stage.leaves(one, 1, &gone, again))];
                if !again {
                    tasks.push(task(stage.clings(two, 1, &gone)));
                    tasks.push(task(stage.clings(one, 1, &gone)));
                }
                if watching {
                    tasks.push(task(watches(stage, two)).in_background());
                }
                tasks.push(task(stage.shreds(two)));
                run(tasks, &stage.clock, dice);
            });
        }
    }
}

#[test]
fn abuse_19_a_process_that_stood_still_opens_nothing_with_what_it_held_before_a_forget() {
    for seed in 0..schedules(100) {
        let _named = Named(seed);
        let stage = shop().stage(Manner::Around);
        let (one, two) = (stage.process(), stage.process());
        let gone = Cell::new(false);
        let mut dice = Seeded::with_drift(seed, 300);
        let polls = 1 + dice.below(60);
        let tasks = vec![
            task(stage.leaves(&one, 1, &gone, false)),
            task(stage.clings(&two, 1, &gone)).paused_after(polls),
            task(watches(&stage, &two)).in_background().paused_after(1 + dice.below(20)),
        ];
        run(tasks, &stage.clock, &mut dice);
        stage.verify(vec![one, two], false);
    }
}

#[test]
fn abuse_32_a_hold_placed_in_one_process_while_the_other_expires_keeps_its_shelves() {
    explore(shop(), 100, |stage, one, two, dice| {
        stage.clock.advance_days(4);
        let tasks = vec![
            task(stage.expires(one)),
            task(stage.expires(two)),
            task(stage.is_held_in_time(two, 1)),
            task(stage.is_held_in_time(one, 2)),
        ];
        run(tasks, &stage.clock, dice);
    });
}

#[test]
fn abuse_33_expiry_that_is_killed_half_way_is_finished_and_a_held_record_survives_its_day() {
    for seed in 0..schedules(80) {
        let _named = Named(seed);
        let stage = shop().stage(Manner::Around);
        let (one, two) = (stage.process(), stage.process());
        let mut dice = Seeded::with_drift(seed, 300);
        stage.gate.open(false);
        alone(&stage.clock, stage.is_held_in_time(&one, 1));
        stage.gate.open(true);
        stage.clock.advance_days(4);
        let expire = async { drop(stage.expires(&one).await) };
        run(vec![task(expire).killed_after(1 + dice.below(80))], &stage.clock, &mut dice);
        drop(one);
        run(vec![task(stage.expires(&two))], &stage.clock, &mut dice);
        assert!(alone(&stage.clock, two.expire(&tester(), &test_ground())).unwrap().days.is_empty());
        stage.verify(vec![two], true);
    }
}

#[test]
fn abuse_28_who_is_remembered_is_not_given_once_another_process_has_forgotten_or_withdrawn() {
    explore(shop(), 150, |stage, one, two, dice| {
        for n in [1, 2, 3] {
            let (id, sealed) = &stage.shop.people[n];
            alone(&stage.clock, stage.read(one, id, sealed, 1)).unwrap();
        }
        let gone = Cell::new(false);
        let tasks = vec![
            task(stage.leaves(two, 1, &gone, false)),
            task(stage.opens_once(one, 1, &gone)),
            task(stage.opens_once(one, 1, &gone)),
            task(stage.opens_once(one, 1, &gone)),
            task(stage.withdraws(two, 2, dice.below(2) == 0)),
            task(stage.reads(one, 3)),
        ];
        run(tasks, &stage.clock, dice);
    });
}

#[test]
fn everything_at_once_in_two_processes() {
    for (number, shop) in [shop(), deep_shop()].into_iter().enumerate() {
        for seed in 0..schedules(100) {
            let _named = Named(("shop", number, "seed", seed));
            let stage = shop.stage(Manner::Around);
            let (one, two) = (stage.process(), stage.process());
            stage.has_left(&one, 0);
            let gone = Cell::new(false);
            let mut dice = Seeded::with_drift(seed, 300);
            let midnight = async {
                stage.clock.advance_days(1);
                stage.expires(&two).await;
            };
            let audit = async { assert!(two.verify_log().await.unwrap().holds()) };
            let third = async { drop(stage.opening().await.expect("a third process opens")) };
            let mut tasks: Vec<Task<'_>> = vec![
                task(stage.enrolls(&one, &stage.shop.absent[0])),
                task(stage.enrolls(&two, &stage.shop.absent[1])),
                task(stage.leaves(&two, 1, &gone, false)),
                task(stage.clings(&one, 1, &gone)),
                task(stage.withdraws(&two, 2, false)),
                task(stage.is_held(&one, 3)),
                task(stage.reads(&one, 4)),
                task(stage.reads(&two, 5)),
                task(audit),
                task(midnight),
                task(third),
                task(stage.settles(&one)),
                task(stage.settles(&two)),
                task(stage.shreds(&one)),
            ];
            while tasks.len() > 6 {
                drop(tasks.swap_remove(dice.below(tasks.len())));
            }
            tasks.push(task(stage.shreds(&two)));
            run(tasks, &stage.clock, &mut dice);
            stage.verify(vec![one, two], seed % 4 == 0);
        }
    }
}

#[path = "races/leases.rs"]
mod leases;
