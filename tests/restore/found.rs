//! What the model of the protocol (`tests/protocol.rs`) has found in the code.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use customer_vault::error::RolledBack;
use customer_vault::keeper::Keeper as _;
use customer_vault::store::Store;
use customer_vault::testing::{Call, CommitFault, FaultStore, test_ground, tester};
use customer_vault::*;
use pollster::block_on;

use crate::history::*;

async fn open_on(all: &History, store: impl Store) -> Vault {
    options(&all.clock).open(store, all.keeper.clone(), all.keeper.clone()).await.unwrap()
}

async fn recover_on(all: &History, store: impl Store) -> Result<Vault> {
    let (keeper, witness) = (all.keeper.clone(), all.keeper.clone());
    options(&all.clock).recover(store, keeper, witness, &tester(), &test_ground()).await
}

/// One process dies after it has replaced the root, before it tells the keeper; another tells the witness. Then the store
/// is restored from before. The recovered store once took the same epoch for its own root: two roots shared the row that
/// says when they were left, and took it from each other, so that no root was ever destroyed again.
#[test]
fn a_root_that_the_keeper_was_not_told_of_does_not_keep_others_from_being_destroyed() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let mut killed = 0;
        for nth in 0.. {
            let (all, vault) = History::unsettled().await;
            drop(vault);
            let faults = FaultStore::new(all.store.clone());
            let (dies, lives) = (open_on(&all, faults.clone()).await, open_on(&all, all.store.clone()).await);
            lives.forget(&id(BOB), Forget::by(&me, &why).without_grace()).await.unwrap();
            let copy = all.store.snapshot();
            faults.fail_commit(nth, CommitFault::KilledAfter);
            drop(dies.shred(&me, &why).await);
            if !faults.killed() {
                break;
            }
            killed += 1;
            lives.forget(&id(DAVE), Forget::by(&me, &why)).await.unwrap();
            drop((dies, lives));
            let recovered = recover_on(&all, copy).await.unwrap();
            let there = all.keeper.held().await.unwrap();
            // Each round leaves a root, and one window is less than two rounds.
            for _ in 0..4 {
                all.clock.advance_days(6);
                recovered.expire(&me, &why).await.unwrap();
                recovered.settle(&me, &why).await.unwrap();
            }
            let held = all.keeper.held().await.unwrap();
            let left = there.iter().filter(|old| held.iter().any(|root| root.id == old.id));
            assert_eq!(left.count(), 0, "killed after commit {nth}: {held:?}");
            assert!(held.len() <= 4, "killed after commit {nth}: {held:?}");
        }
        assert!(killed > 3, "every commit was the last once: {killed}");
    });
}

/// A limit, and why all processes stop before a store is put back: one that has seen nothing since the copy was made cannot
/// know, and does not ask the witness at each unlock. One that has seen what the copy lacks refuses.
#[test]
fn a_process_that_slept_through_everything_since_the_copy_takes_a_store_that_was_put_back_for_the_newest() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (all, vault) = History::unsettled().await;
        drop(vault);
        let (sleeps, works) =
            (open_on(&all, all.store.clone()).await, open_on(&all, all.store.clone()).await);
        let copy = rows(&all.store).await;
        works.forget(&id(BOB), Forget::by(&me, &why).without_grace()).await.unwrap();
        for (name, _) in rows(&all.store).await {
            put_back(&all.store, &name, None).await;
        }
        for (name, row) in &copy {
            put_back(&all.store, name, Some(row)).await;
        }
        let refused = all.state(&works, BOB).await;
        assert!(refused.iter().all(|state| matches!(state, Err(Error::RolledBack(RolledBack::Store)))));
        assert_eq!(all.state(&sleeps, BOB).await[0], Ok(true));
        // Whoever opens it is told.
        drop((sleeps, works));
        let (keeper, witness) = (all.keeper.clone(), all.keeper.clone());
        let again = options(&all.clock).open(all.store.clone(), keeper, witness).await;
        assert_eq!(again.unwrap_err(), Error::RolledBack(RolledBack::Store));
    });
}

/// Two operators recover at once, and one of the processes stands still for long. It once wrote the fence row as it had
/// found it, under a process that had gone on.
#[test]
fn a_recover_that_was_overtaken_takes_no_line_away() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let mut overtaken = 0;
        for nth in 0.. {
            let (all, vault) = History::unsettled().await;
            drop(vault);
            let store = all.copies[all.index_of("enrolled")].store.snapshot();
            let faults = FaultStore::new(store.clone());
            let (commits, second) = (AtomicU64::new(0), std::sync::Arc::new(Mutex::new(None)));
            let (keeper, clock, kept) = (all.keeper.clone(), all.clock.clone(), second.clone());
            faults.before_each(move |call| {
                if matches!(call, Call::Commit(_)) && commits.fetch_add(1, Ordering::Relaxed) == nth {
                    let (one, two, me, why) = (keeper.clone(), keeper.clone(), tester(), test_ground());
                    let vault =
                        block_on(options(&clock).recover(store.clone(), one, two, &me, &why)).unwrap();
                    block_on(vault.withdraw::<Recs>(&id(DAVE), &me, &why)).unwrap();
                    *kept.lock().unwrap() = Some(vault);
                }
                Box::pin(async {})
            });
            // It may have to be told to try again.
            let first = recover_on(&all, faults.clone()).await;
            assert!(matches!(first, Ok(_) | Err(Error::Busy)), "{nth}: {first:?}");
            let Some(vault) = second.lock().unwrap().take() else { break };
            overtaken += 1;
            vault.withdraw::<Recs>(&id(BOB), &me, &why).await.unwrap();
            for who in [BOB, DAVE] {
                assert_eq!(all.state(&vault, who).await[1], Ok(false), "overtaken before commit {nth}");
            }
        }
        assert!(overtaken > 10, "{overtaken}");
    });
}
