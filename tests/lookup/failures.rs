//! Races with processes that have not noticed, calls that fail, and readers meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use customer_vault::error::{Misuse, StoreError};
use customer_vault::testing::{Call, CommitFault, FaultStore};

use super::*;

#[test]
fn a_process_that_has_not_noticed_enrolls_nobody_twice_and_changes_nobody_who_has_moved() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        for who in ["zoe", "alice"] {
            let (world, vault) = World::new().await;
            let faults = FaultStore::new(world.store.clone());
            let slow = world.open(faults.clone()).await.unwrap();
            let reached = Arc::new(AtomicBool::new(false));
            let (first, fast) = (Arc::clone(&reached), vault.clone());
            faults.before_each(move |call| {
                // It has read, and decided: now the key changes, and the same person is enrolled or moves.
                if matches!(call, Call::Commit(_)) && !first.swap(true, Ordering::SeqCst) {
                    let (me, why) = (tester(), test_ground());
                    block_on(async {
                        change(&fast).await;
                        if who == "zoe" {
                            fast.enroll(&id("zoe"), [], &me, &why).await.unwrap();
                        } else {
                            assert_eq!(moved(&fast, &everyone()).await, (4, 0, 0, 0));
                            retire(&fast).await.unwrap();
                        }
                    });
                }
                Box::pin(async {})
            });
            if who == "zoe" {
                let twice = slow.enroll(&id(who), [], &me, &why).await;
                assert_eq!(twice, Err(Misuse::AlreadyEnrolled.into()));
                assert_eq!(moves(&vault).await, (1, 4, 0));
            } else {
                slow.withdraw::<News>(&id(who), &me, &why).await.unwrap();
                assert_eq!(moves(&vault).await, (4, 0, 0));
                assert!(grant::<News>(&vault, &id(who)).await.is_err());
                assert_eq!(opens(&vault, &id(who)).await, Ok(1));
            }
            assert!(reached.load(Ordering::SeqCst));
        }
    });
}

/// A change of the key from beginning to end, with a forget in the middle; each step may be done already.
async fn all_of_it(vault: &Vault) -> Result<()> {
    let (me, why) = (tester(), test_ground());
    let keys = |vault: &Vault| vault.keys().iter().filter(|key| key.kind == KeyKind::Lookup).count();
    let is_first =
        |vault: &Vault| vault.keys().iter().any(|key| key.kind == KeyKind::Lookup && key.number == 0);
    if keys(vault) == 1 && is_first(vault) {
        vault.change_key(KeyKind::Lookup, &me, &why).await?;
    }
    vault.move_subjects(&everyone(), &me, &why).await?;
    match vault.forget(&id("alice"), Forget::by(&me, &why).without_grace()).await {
        Ok(_) | Err(Error::Erased(_)) => {}
        Err(why) => return Err(why),
    }
    vault.shred(&me, &why).await?;
    vault.settle(&me, &why).await?;
    vault.move_subjects(&everyone(), &me, &why).await?;
    vault.retire_keys(KeyKind::Lookup, &me, &why).await?;
    Ok(())
}

#[test]
fn whatever_fails_is_finished_by_the_next_call() {
    let faults = [
        CommitFault::Failed(StoreError::Full),
        CommitFault::UnknownNotDone,
        CommitFault::UnknownDone,
        CommitFault::KilledBefore,
        CommitFault::KilledAfter,
    ];
    for fault in faults {
        for nth in 0.. {
            let reached = block_on(async {
                let (world, vault) = World::new().await;
                drop(vault);
                let store = FaultStore::new(world.store.clone());
                let vault = world.open(store.clone()).await.unwrap();
                let before = store.counts();
                store.fail_commit(nth, fault);
                let failed = all_of_it(&vault).await.is_err();
                let commits = (store.counts() - before).commits;
                let killed = store.killed();
                store.heal();
                let vault = if killed { world.open(store.clone()).await.unwrap() } else { vault };
                let at = format!("{fault:?} at commit {nth}");
                for id in &everyone()[1..] {
                    assert_eq!(opens(&vault, id).await, Ok(1), "{at}");
                }
                if failed {
                    all_of_it(&vault).await.unwrap();
                }
                assert_eq!(moves(&vault).await, (4, 0, 0), "{at}");
                for id in &everyone()[1..] {
                    assert_eq!(opens(&vault, id).await, Ok(1), "{at}");
                }
                assert!(opens(&vault, &id("alice")).await.is_err(), "{at}");
                let (me, why) = (tester(), test_ground());
                assert!(vault.coverage(&me, &why, |_| ()).await.unwrap().holds(), "{at}");
                commits > nth
            });
            if !reached {
                assert!(nth > 10, "{nth}");
                break;
            }
        }
    }
}

#[test]
fn readers_and_writers_never_fail_while_everybody_moves() {
    let (world, vault) = block_on(World::new());
    let (me, why) = (tester(), test_ground());
    let people: Vec<SubjectId> = (0..40).map(|n| id(&format!("p{n}"))).collect();
    let new: Vec<(SubjectId, [Consent; 0])> = people.iter().map(|id| (id.clone(), [])).collect();
    assert!(block_on(vault.enroll_many(&new, &me, &why)).iter().all(Result::is_ok));
    let other = block_on(world.open(world.store.clone())).unwrap();
    let (stop, rounds, last, failed) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(10), Mutex::new(Vec::new()));
    let note = |what: &str, why: Option<Error>| {
        if let Some(why) = why {
            failed.lock().unwrap().push(format!("{what}: {why:?}"));
        }
    };
    std::thread::scope(|scope| {
        for (vault, readers) in [(&vault, true), (&other, true), (&other, false)] {
            let (stop, rounds, last, people, note) = (&stop, &rounds, &last, &people, &note);
            scope.spawn(move || {
                let (me, why) = (tester(), test_ground());
                let mut number = 10_u64;
                while !stop.load(Ordering::SeqCst) {
                    number += 1;
                    block_on(async {
                        if readers {
                            // The clock of the test goes on by the bound when a key is retired: a grant from before is stale
                            // by that, as it should be.
                            let failed = opens(vault, &id("bob")).await.err();
                            note("open", failed.filter(|why| *why != Error::Stale));
                            let hour = Duration::from_secs(60);
                            let token = vault.issue::<Shipping>(&me, &why, hour, Scope::everyone()).await;
                            let grants =
                                vault.unlock_many::<Shipping>(&token.unwrap(), people).await.unwrap();
                            for grant in grants {
                                note("unlock", grant.err());
                            }
                        } else {
                            let sealer = vault.sealer::<Order>(&id("carol"), &me, &why).await.unwrap();
                            let sealed = match sealer.seal(order("Lee"), &number) {
                                // By the same clock.
                                Err(Error::Stale) => return,
                                sealed => sealed.unwrap(),
                            };
                            note("put", vault.put(&id("carol"), &number, &sealed, &me, &why).await.err());
                            let newcomer = id(&format!("n{number}"));
                            last.fetch_max(usize::try_from(number).unwrap(), Ordering::SeqCst);
                            note("enroll", vault.enroll(&newcomer, [], &me, &why).await.err());
                            if number.is_multiple_of(16) {
                                // A new line of the journal: whoever unlocks decides again.
                                note("hold", vault.hold(&newcomer, &me, &why).await.err());
                            }
                        }
                    });
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        block_on(async {
            for _ in 0..2 {
                change(&vault).await;
                for some in people.chunks(20) {
                    vault.move_subjects(some, &me, &why).await.unwrap();
                    let so_far = rounds.load(Ordering::SeqCst);
                    while rounds.load(Ordering::SeqCst) < so_far + 2 && failed.lock().unwrap().is_empty() {
                        std::thread::yield_now();
                    }
                }
                vault.move_subjects(&everyone(), &me, &why).await.unwrap();
                // Some were enrolled before the change: the shop hands in all.
                let newcomers = 0..=last.load(Ordering::SeqCst);
                let newcomers: Vec<SubjectId> = newcomers.map(|n| id(&format!("n{n}"))).collect();
                vault.move_subjects(&newcomers, &me, &why).await.unwrap();
                let retired = retire(&vault).await;
                note("retire", retired.err());
            }
            stop.store(true, Ordering::SeqCst);
        });
    });
    assert_eq!(failed.into_inner().unwrap(), Vec::<String>::new());
    assert_eq!(block_on(opens(&other, &id("bob"))), Ok(1));
    let carols = block_on(opens(&vault, &id("carol"))).unwrap();
    assert!(carols > 3, "{carols}");
}

/// One task reads many people by the places of the former key while another of the same process takes over the new one.
#[test]
fn who_is_read_while_another_task_notices_the_change_is_not_enrolled_twice() {
    let new: Vec<(SubjectId, [Consent; 0])> = (0..400).map(|n| (id(&format!("n{n}")), [])).collect();
    for round in 0..6 {
        let (world, fast) = block_on(World::new());
        let slow = block_on(world.open(world.store.clone())).unwrap();
        let (me, why) = (tester(), test_ground());
        block_on(change(&fast));
        assert!(block_on(fast.enroll_many(&new, &me, &why)).iter().all(Result::is_ok));
        let again = std::thread::scope(|scope| {
            let enrolling = scope.spawn(|| block_on(slow.enroll_many(&new, &me, &why)));
            std::thread::sleep(Duration::from_micros(250 * round));
            drop(block_on(slow.status(&id("bob"), &me, &why)));
            enrolling.join().unwrap()
        });
        assert!(again.iter().all(Result::is_err), "round {round}");
        assert!(block_on(fast.status(&new[7].0, &me, &why)).is_ok());
    }
}
