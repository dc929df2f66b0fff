//! Processes beside each other: expiries, shreds and changes of keys while a copy is put right, and what is hidden or put back
//! between two calls.

use customer_vault::testing::CommitFault;

use super::branches::{phase_of, put_back};
use super::forks::*;
use super::*;

async fn a_month_over(world: &World, vault: &Vault, days: usize) {
    for _ in 0..days {
        world.clock.advance_days(5);
        vault.confirm_time(&tester(), &test_ground()).await.unwrap();
    }
}

/// Two processes expire at the same time, and a month ends with it.
#[test]
fn two_expiries_at_the_end_of_a_month_do_not_disturb_each_other() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (world, vault) = World::new().await;
        let other = world.open(world.store.clone()).await.unwrap();
        drop(vault);
        let faults = FaultStore::new(world.store.clone());
        let vault = world.open(faults.clone()).await.unwrap();
        a_month_over(&world, &vault, 8).await;
        let done = AtomicUsize::new(0);
        faults.before_each(move |call| {
            if let Call::Read(names) = call
                && names.iter().any(|name| name == b"E")
                && done.fetch_add(1, Ordering::SeqCst) == 0
            {
                block_on(other.expire(&tester(), &test_ground())).unwrap();
            }
            Box::pin(async {})
        });
        let expired = vault.expire(&me, &why).await;
        faults.without_hook();
        assert!(expired.is_ok() || expired == Err(Error::Busy), "{expired:?}");
    });
}

/// An expiry that was killed once it had written what it is about to destroy; the days are taken away between two calls, and
/// put back after the note.
#[test]
fn abuse_05_no_note_tells_of_days_that_were_hidden_and_open_again() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (first, vault) = World::new().await;
        drop(vault);
        for nth in 0..12 {
            let store = first.store.snapshot();
            let world = World {
                store: store.clone(),
                keeper: first.keeper.snapshot(),
                clock: ManualClock::at(Day::from_ymd(2026, 3, 2).unwrap()),
            };
            let faults = FaultStore::new(store.clone());
            let vault = world.open(faults.clone()).await.unwrap();
            a_month_over(&world, &vault, 3).await;
            let today = world.clock.today();
            faults.fail_commit(nth, CommitFault::KilledAfter);
            if vault.expire(&me, &why).await.is_ok() {
                break;
            }
            drop(vault);
            if world.rows(b"E").await.is_empty() {
                continue;
            }
            let over: Vec<Row> = world
                .rows(b"d")
                .await
                .into_iter()
                .filter(|(name, _)| {
                    name.len() == 3 && u16::from_be_bytes([name[1], name[2]]) < today.number()
                })
                .collect();
            if over.is_empty() {
                continue;
            }
            for (name, _) in &over {
                world.write(name, None).await;
            }
            let vault = world.open(store.clone()).await.unwrap();
            let receipt = vault.expire(&me, &why).await;
            let note = receipt.as_ref().ok().and_then(|r| r.note.clone());
            for (name, row) in &over {
                world.write(name, Some(row)).await;
            }
            // They open: or this would be refused.
            let again = vault.expire(&me, &why).await.map(|receipt| receipt.days.len());
            assert!(note.is_none() || again.is_err(), "a note, and the keys open after it");
        }
    });
}

/// What is due by lines, in a copy of a copy that is being put right, without its rows.
#[test]
fn what_is_due_is_known_in_a_copy_of_a_copy() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (world, vault) = with_a_crowd().await;
        let copy = world.store.snapshot();
        let hers = world.rows(b"s").await;
        vault.forget(&id("alice"), now()).await.unwrap();
        let after = world.rows(b"s").await;
        let hers =
            hers.into_iter().find(|(name, row)| after.iter().any(|(k, o)| k == name && o != row)).unwrap();
        vault.shred(&me, &why).await.unwrap();
        drop(vault);
        let copies: Arc<std::sync::Mutex<Vec<MemoryStore>>> = Arc::default();
        let then = world.on(&copy);
        let faults = FaultStore::new(copy.clone());
        let (list, store) = (Arc::clone(&copies), copy.clone());
        faults.before_each(move |call| {
            if matches!(call, Call::Commit(_)) {
                list.lock().unwrap().push(store.snapshot());
            }
            Box::pin(async {})
        });
        let keeper = || world.keeper.clone();
        drop(then.options().recover(faults, keeper(), keeper(), &me, &why).await.unwrap());
        let copies = copies.lock().unwrap().clone();
        let mut bad = Vec::new();
        for (nth, copy) in copies.iter().enumerate() {
            let copy = copy.snapshot();
            let world =
                World { store: copy.clone(), keeper: world.keeper.snapshot(), clock: world.clock.clone() };
            let rows = world.rows(b"w").await;
            for (name, _) in &rows {
                world.write(name, None).await;
            }
            let vault = world.recover(copy.clone()).await.unwrap();
            drop(vault.shred(&me, &why).await);
            let faults = world.faults_with(&vault, &hers).await;
            if faults == 0 {
                bad.push(nth);
            }
        }
        assert!(bad.is_empty(), "still open: {bad:?}");
    });
}

/// A recover that ends with the clock halted, of one who was erased where he lay, and enrolled anew under the key that is used.
#[test]
fn who_was_erased_and_enrolled_anew_is_read_while_the_clock_is_halted() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (world, vault) = World::new().await;
        vault.forget(&id("bob"), now()).await.unwrap();
        change(&vault).await;
        let copy = world.store.snapshot();
        vault.shred(&me, &why).await.unwrap();
        moved(&vault, &["alice", "carol", "dave"].map(id)).await;
        assert_eq!(moves(&vault).await, (3, 0, 1));
        retire(&vault).await.unwrap();
        vault.enroll(&id("bob"), [], &me, &why).await.unwrap();
        vault.withdraw::<News>(&id("bob"), &me, &why).await.unwrap();
        drop(vault);
        for halted in [false, true] {
            let copy = copy.snapshot();
            if halted {
                for _ in 0..10 {
                    world.clock.advance_days(9);
                }
            }
            let then =
                World { store: copy.clone(), keeper: world.keeper.snapshot(), clock: world.clock.clone() };
            let vault = then.recover(copy.clone()).await.unwrap();
            let status = vault.status(&id("bob"), &me, &why).await.map(drop);
            assert!(!matches!(status, Err(Error::RolledBack(_))), "halted {halted}: {status:?}");
        }
    });
}

/// A database is restored in place and put right while another process, which has it open, runs its daily shred.
#[test]
fn a_process_that_stays_open_does_not_shred_while_a_copy_is_put_right() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let mut results = Vec::new();
        for at in [3_usize, 5, 7, 9] {
            let (world, vault) = World::new().await;
            let people: Vec<(SubjectId, [Consent; 0])> =
                (0..60).map(|n| (id(&format!("p{n}")), [])).collect();
            assert!(vault.enroll_many(&people, &me, &why).await.iter().all(Result::is_ok));
            let copy = world.store.snapshot();
            change(&vault).await;
            moved(&vault, &everyone()).await;
            let other = world.open(world.store.clone()).await.unwrap();
            drop(vault);
            put_back(&world, &copy).await;
            let faults = FaultStore::new(world.store.clone());
            let (count, list) = (AtomicUsize::new(0), Arc::new(std::sync::Mutex::new(Vec::new())));
            let seen = Arc::clone(&list);
            faults.before_each(move |call| {
                let Call::Commit(batch) = call else { return Box::pin(async {}) };
                if matches!(phase_of(batch).as_deref(), Some([_, 1, ..]))
                    && count.fetch_add(1, Ordering::SeqCst) == at
                {
                    seen.lock().unwrap().push(block_on(other.shred(&tester(), &test_ground())).map(drop));
                }
                Box::pin(async {})
            });
            let keeper = || world.keeper.clone();
            let recovered =
                world.options().recover(faults.clone(), keeper(), keeper(), &me, &why).await.map(drop);
            faults.without_hook();
            let second = world.recover(world.store.clone()).await.map(drop);
            results.push((recovered, second));
        }
        assert!(results.iter().all(|(r, _)| r.is_ok() || *r == Err(Error::Busy)), "{results:?}");
    });
}

/// Somebody of whom lines tell is not there any more, and nobody tampered.
#[test]
fn a_tombstone_of_an_earlier_enrolment_stays_and_is_found() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (world, vault) = World::new().await;
        let bob = id("bob");
        let keeping = Forget::by(&me, &why).keeping::<Shipping>(world.clock.today().plus(11));
        vault.forget(&bob, keeping).await.unwrap();
        vault.undo_forget(&bob, &me, &why).await.unwrap();
        vault.forget(&bob, now()).await.unwrap();
        change(&vault).await;
        vault.shred(&me, &why).await.unwrap();
        moved(&vault, &["alice", "carol", "dave"].map(id)).await;
        assert_eq!(moves(&vault).await, (3, 0, 1));
        let copy = world.store.snapshot();
        retire(&vault).await.unwrap();
        vault.enroll(&bob, [], &me, &why).await.unwrap();
        vault.forget(&bob, now()).await.unwrap();
        drop(vault);
        let then = world.on(&copy);
        let vault = then.recover(copy.clone()).await.unwrap();
        vault.enroll_again(&bob, [], &me, &why).await.unwrap();
        retire(&vault).await.unwrap();
        for _ in 0..3 {
            world.clock.advance_days(5);
            vault.confirm_time(&me, &why).await.unwrap();
        }
        vault.hold(&id("alice"), &me, &why).await.unwrap();
        vault.release_hold(&id("alice"), &me, &why).await.unwrap();
        let mut left = Vec::new();
        for _ in 0..4 {
            left.push(vault.shred(&me, &why).await.unwrap().epoch_left);
            world.clock.advance_days(1);
        }
        assert_eq!(left[3], None, "{left:?}");
    });
}

/// The witness goes away between the two looks of a move.
#[test]
fn moved_is_said_of_who_was() {
    block_on(async {
        let (world, vault) = World::new().await;
        change(&vault).await;
        let other = world.open(world.store.clone()).await.unwrap();
        drop(vault);
        let faults = FaultStore::new(world.store.clone());
        let vault = world.open(faults.clone()).await.unwrap();
        let (done, keeper) = (AtomicUsize::new(0), world.keeper.clone());
        faults.before_each(move |call| {
            if let Call::Read(names) = call
                && names.len() > 3
                && done.fetch_add(1, Ordering::SeqCst) == 0
            {
                block_on(other.hold(&id("carol"), &tester(), &test_ground())).unwrap();
                keeper.witness_unreachable(true);
            }
            Box::pin(async {})
        });
        let said = vault.move_subjects(&everyone(), &tester(), &test_ground()).await;
        faults.without_hook();
        world.keeper.witness_unreachable(false);
        let (lie, _, _) = moves(&vault).await;
        assert!(said.is_err() || said.unwrap().moved + 1 == lie);
    });
}

/// Between two calls her row that says what is due is taken away, and her entry of before the forget is there; after the
/// shred of somebody else the newer one is put back.
#[test]
fn abuse_06_who_was_put_back_while_a_shred_looked_is_destroyed_by_the_next() {
    block_on(async {
        let (world, vault) = World::new().await;
        let (me, why) = (tester(), test_ground());
        let before = world.rows(b"s").await;
        vault.forget(&id("alice"), now()).await.unwrap();
        let after = world.rows(b"s").await;
        let (name, row) = after.iter().find(|entry| !before.contains(entry)).unwrap();
        let old = &before.iter().find(|(known, _)| known == name).unwrap().1;
        for (name, _) in world.rows(b"w").await {
            world.write(&name, None).await;
        }
        vault.forget(&id("bob"), now()).await.unwrap();
        world.write(name, Some(old)).await;
        assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 1);
        world.write(name, Some(row)).await;
        let second = vault.shred(&me, &why).await.unwrap();
        let third = {
            world.clock.advance_days(5);
            vault.shred(&me, &why).await.unwrap()
        };
        assert_eq!(second.subjects + third.subjects, 1);
    });
}

/// A process that stays open changes a key while the store is put right.
#[test]
fn no_key_is_changed_while_a_copy_is_put_right() {
    block_on(async {
        for nth in 0..6_usize {
            let (me, why) = (tester(), test_ground());
            let (world, vault) = World::new().await;
            vault.change_key(KeyKind::Signing, &me, &why).await.unwrap();
            let copy = world.store.snapshot();
            assert_eq!(vault.retire_keys(KeyKind::Signing, &me, &why).await, Ok(1));
            vault.replace_root(&me, &why).await.unwrap();
            let other = world.open(world.store.clone()).await.unwrap();
            drop(vault);
            put_back(&world, &copy).await;
            let faults = FaultStore::new(world.store.clone());
            let (done, beside) = (AtomicUsize::new(0), other.clone());
            faults.before_each(move |call| {
                let Call::Commit(_) = call else { return Box::pin(async {}) };
                if done.fetch_add(1, Ordering::SeqCst) == nth {
                    drop(block_on(beside.change_key(KeyKind::Index, &tester(), &test_ground())));
                }
                Box::pin(async {})
            });
            let keeper = || world.keeper.clone();
            let recovered = world.options().recover(faults.clone(), keeper(), keeper(), &me, &why).await;
            faults.without_hook();
            drop(recovered);
            let vault = match world.open(world.store.clone()).await {
                Ok(vault) => vault,
                Err(_) => world.recover(world.store.clone()).await.unwrap(),
            };
            assert_eq!(vault.verifier_keys().unwrap().len(), 1, "{nth}");
        }
    });
}
