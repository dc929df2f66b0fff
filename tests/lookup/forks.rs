//! Copies of the store that part ways while the lookup key is changed, and a writer of the store who is exactly in time.

pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) use customer_vault::error::RolledBack;
pub(super) use customer_vault::testing::{Call, FaultStore};

use super::*;

pub(super) type Row = (Vec<u8>, Vec<u8>);

/// The row that `one` has and `other` has not.
pub(super) fn only(one: &[Row], other: &[Row]) -> Row {
    one.iter().find(|(name, _)| !other.iter().any(|(known, _)| known == name)).unwrap().clone()
}

/// So many that most buckets have somebody.
pub(super) fn crowd() -> Vec<SubjectId> {
    (0..400).map(|n| id(&format!("c{n}"))).collect()
}

pub(super) async fn with_a_crowd() -> (World, Vault) {
    let (world, vault) = World::new().await;
    let people: Vec<(SubjectId, [Consent; 0])> = crowd().into_iter().map(|id| (id, [])).collect();
    assert!(vault.enroll_many(&people, &tester(), &test_ground()).await.iter().all(Result::is_ok));
    (world, vault)
}

/// Moves one after the other until one comes to lie in another bucket, in which there is somebody: with her rows before and
/// after.
pub(super) async fn first_who_leaves_her_bucket(world: &World, vault: &Vault) -> (SubjectId, Row, Row) {
    for who in everyone().into_iter().chain(crowd()) {
        let before = world.rows(b"s").await;
        moved(vault, std::slice::from_ref(&who)).await;
        let after = world.rows(b"s").await;
        let (old, new) = (only(&before, &after), only(&after, &before));
        if old.0[1..3] != new.0[1..3] && before.iter().any(|(name, _)| name[1..3] == new.0[1..3]) {
            return (who, old, new);
        }
    }
    panic!("nobody left her bucket for one that is there");
}

pub(super) fn now() -> Forget {
    Forget::by(&tester(), &test_ground()).without_grace()
}

pub(super) async fn shred_and_settle(vault: &Vault) -> usize {
    vault.shred(&tester(), &test_ground()).await.unwrap();
    vault.settle(&tester(), &test_ground()).await.unwrap().certificates.len()
}

/// Puts a row into the store: it must not open there.
pub(super) async fn does_not_open(world: &World, vault: &Vault, row: &Row) {
    assert_eq!(vault.moves(|_| ()).await.unwrap().faults, 0);
    world.write(&row.0, Some(&row.1)).await;
    assert_eq!(vault.moves(|_| ()).await.unwrap().faults, 1);
    world.write(&row.0, None).await;
}

#[test]
fn abuse_04_what_another_copy_holds_of_where_she_lay_in_what_was_lost_does_not_open() {
    block_on(async {
        // A copy from before the change, and from before the move alone; she is forgotten in what was lost, or only then.
        for (changed, lost) in [(false, true), (false, false), (true, true), (true, false)] {
            let (world, vault) = with_a_crowd().await;
            if changed {
                change(&vault).await;
            }
            let copy = world.store.snapshot();
            if !changed {
                change(&vault).await;
            }
            let (who, _, new) = first_who_leaves_her_bucket(&world, &vault).await;
            if lost {
                vault.forget(&who, now()).await.unwrap();
            }
            drop(vault);
            let then =
                World { store: copy.clone(), keeper: world.keeper.clone(), clock: world.clock.clone() };
            assert_eq!(then.open(copy.clone()).await.unwrap_err(), RolledBack::Store.into());
            let vault = then.recover(copy).await.unwrap();
            if !lost {
                vault.forget(&who, now()).await.unwrap();
                assert_eq!(shred_and_settle(&vault).await, 1);
            }
            does_not_open(&then, &vault, &new).await;
        }
    });
}

#[test]
fn abuse_04_who_was_enrolled_and_forgotten_after_the_copy_opens_from_no_other() {
    block_on(async {
        let (world, vault) = with_a_crowd().await;
        let (copy, there) = (world.store.snapshot(), world.rows(b"s").await);
        // Somebody who shares a bucket with one of the copy: until then there was nothing that would have been rotated.
        let (mut zoe, mut row) = (0, None);
        while row.is_none() {
            zoe += 1;
            let before = world.rows(b"s").await;
            vault.enroll(&id(&format!("zoe{zoe}")), [], &tester(), &test_ground()).await.unwrap();
            let new = only(&world.rows(b"s").await, &before);
            row = there.iter().any(|(name, _)| name[1..3] == new.0[1..3]).then_some(new);
        }
        vault.forget(&id(&format!("zoe{zoe}")), now()).await.unwrap();
        drop(vault);
        let then = World { store: copy.clone(), keeper: world.keeper.clone(), clock: world.clock.clone() };
        let vault = then.recover(copy).await.unwrap();
        let tombstone = then.rows(&row.as_ref().unwrap().0).await;
        assert_eq!(tombstone.len(), 1);
        does_not_open(&then, &vault, &row.unwrap()).await;
    });
}

#[test]
fn abuse_05_a_bucket_that_is_put_back_before_its_parent_is_rotated_is_noticed() {
    block_on(async {
        let (world, vault) = with_a_crowd().await;
        change(&vault).await;
        let (who, old, _) = first_who_leaves_her_bucket(&world, &vault).await;
        let bucket = [b"n\x02", &old.0[1..3]].concat();
        let row = world.rows(&bucket).await.pop().unwrap().1;
        drop(vault);
        let faults = FaultStore::new(world.store.clone());
        let vault = world.open(faults.clone()).await.unwrap();
        vault.forget(&who, now()).await.unwrap();
        // Hidden while the batch begins, there again when its parent is rotated, each time.
        let hidden = Arc::new(AtomicUsize::new(0));
        let (count, store) = (Arc::clone(&hidden), world.store.clone());
        faults.before_each(move |call| {
            let Call::Commit(batch) = call else { return Box::pin(async {}) };
            let phase = batch.writes.iter().find(|(name, _)| name.first() == Some(&b'p') && name.len() == 17);
            // All removals are made.
            if matches!(phase.and_then(|(_, value)| value.as_deref()), Some([_, 2, ..])) {
                count.fetch_add(1, Ordering::SeqCst);
                let mut batch = Batch::new().unwrap();
                batch.put(&bucket, row.clone());
                block_on(store.commit(batch)).unwrap();
            }
            Box::pin(async {})
        });
        world.write(&[b"n\x02", &old.0[1..3]].concat(), None).await;
        let shredded = vault.shred(&tester(), &test_ground()).await;
        assert!(hidden.load(Ordering::SeqCst) > 0);
        faults.without_hook();
        let certified = match shredded {
            Ok(_) => vault.settle(&tester(), &test_ground()).await.unwrap().certificates.len(),
            Err(why) => {
                assert!(why == RolledBack::Mixed.into() || why == Error::Busy, "{why:?}");
                0
            }
        };
        if certified > 0 {
            does_not_open(&world, &vault, &old).await;
        }
    });
}

#[test]
fn abuse_05_a_generation_that_a_bucket_lies_about_is_not_believed() {
    block_on(async {
        let (world, _) = World::new().await;
        let faults = FaultStore::new(world.store.clone());
        let vault = world.open(faults.clone()).await.unwrap();
        let (me, why) = (tester(), test_ground());
        // A generation beyond the first: there is an older one to come back to.
        let before = world.rows(b"s").await;
        vault.hold(&id("alice"), &me, &why).await.unwrap();
        vault.release_hold(&id("alice"), &me, &why).await.unwrap();
        vault.shred(&me, &why).await.unwrap();
        let after = world.rows(b"s").await;
        let name =
            &after.iter().find(|(name, row)| before.iter().any(|(k, o)| k == name && o != row)).unwrap().0;
        let bucket = [b"n\x02", &name[1..3]].concat();
        let row = world.rows(&bucket).await.pop().unwrap().1;
        vault.forget(&id("alice"), now()).await.unwrap();
        let entry = world.rows(name).await;
        let mut lie = row.clone();
        lie[17] = 0;
        world.write(&bucket, Some(&lie)).await;
        // Right again once the batch has begun, and once it has removed her keys, as it was before with all that is below.
        let (bucket_row, store) = ((bucket.clone(), row.clone()), world.store.clone());
        faults.before_each(move |call| {
            let Call::Commit(batch) = call else { return Box::pin(async {}) };
            let phase = batch.writes.iter().find(|(name, _)| name.first() == Some(&b'p') && name.len() == 17);
            let made = phase.and_then(|(_, value)| Some((value.as_ref()?[1], value.as_ref()?[5])));
            let mut back = Batch::new().unwrap();
            match made {
                Some((1, 0)) => back.put(&bucket_row.0, bucket_row.1.clone()),
                Some((2, _)) => {
                    for (name, row) in entry.iter().chain([&bucket_row]) {
                        back.put(name, row.clone());
                    }
                    &mut back
                }
                _ => return Box::pin(async {}),
            };
            block_on(store.commit(back)).unwrap();
            Box::pin(async {})
        });
        assert_eq!(vault.shred(&me, &why).await.unwrap_err(), RolledBack::Mixed.into());
        faults.without_hook();
        assert_eq!(vault.settle(&me, &why).await.unwrap().certificates.len(), 0);
        // Nothing was begun, nothing is lost.
        world.write(&bucket, Some(&row)).await;
        assert_eq!(shred_and_settle(&vault).await, 1);
    });
}

#[test]
fn who_was_held_after_the_copy_does_not_keep_the_former_key() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        for changed in [false, true] {
            let (world, vault) = World::new().await;
            if changed {
                change(&vault).await;
            }
            let copy = world.store.snapshot();
            if !changed {
                change(&vault).await;
            }
            vault.enroll(&id("zoe"), [], &me, &why).await.unwrap();
            vault.hold(&id("zoe"), &me, &why).await.unwrap();
            drop(vault);
            let then =
                World { store: copy.clone(), keeper: world.keeper.clone(), clock: world.clock.clone() };
            let vault = then.recover(copy).await.unwrap();
            if !changed {
                change(&vault).await;
            }
            moved(&vault, &everyone()).await;
            retire(&vault).await.unwrap();
            // Enrolled anew, she is held as the journal says; with a copy from before the change nobody knows that it is
            // she.
            vault.enroll(&id("zoe"), [], &me, &why).await.unwrap();
            assert_eq!(vault.status(&id("zoe"), &me, &why).await.unwrap().held, changed);
            put(&vault, &id("zoe"), 1).await;
            world.clock.advance_days(5);
            vault.expire(&me, &why).await.unwrap();
            assert_eq!(opens(&vault, &id("zoe")).await, Ok(1));
            // What a hold keeps of the days that are over.
            assert_eq!(then.rows(b"h").await.is_empty(), !changed);
            assert_eq!(vault.release_hold(&id("zoe"), &me, &why).await.is_ok(), changed);
        }
    });
}

#[test]
fn a_recover_takes_the_one_under_the_later_key_for_hers() {
    block_on(async {
        let (world, vault) = with_a_crowd().await;
        change(&vault).await;
        let (who, old, _) = first_who_leaves_her_bucket(&world, &vault).await;
        let copy = world.store.snapshot();
        vault.forget(&who, now()).await.unwrap();
        drop(vault);
        // Before the copy is put right, somebody puts the row from before the move beside it.
        let then = World { store: copy.clone(), keeper: world.keeper.clone(), clock: world.clock.clone() };
        then.write(&old.0, Some(&old.1)).await;
        let vault = then.recover(copy).await.unwrap();
        assert_eq!(opens(&vault, &who).await, Err(Erased::Forgotten.into()));
        assert!(vault.status(&who, &tester(), &test_ground()).await.is_ok());
        world.clock.advance_days(4);
        vault.shred(&tester(), &test_ground()).await.unwrap();
        then.write(&old.0, None).await;
        does_not_open(&then, &vault, &old).await;
    });
}

#[test]
fn the_key_of_a_hold_that_was_released_is_in_no_bucket_that_she_left() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (world, vault) = World::new().await;
        vault.hold(&id("alice"), &me, &why).await.unwrap();
        let before = world.rows(b"s").await;
        change(&vault).await;
        moved(&vault, &[id("alice")]).await;
        let held = only(&before, &world.rows(b"s").await);
        moved(&vault, &everyone()).await;
        retire(&vault).await.unwrap();
        vault.release_hold(&id("alice"), &me, &why).await.unwrap();
        change(&vault).await;
        moved(&vault, &everyone()).await;
        retire(&vault).await.unwrap();
        vault.shred(&me, &why).await.unwrap();
        does_not_open(&world, &vault, &held).await;
    });
}

#[test]
fn rows_of_the_keys_that_are_put_back_are_not_believed() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        for (kind, row) in [(KeyKind::Lookup, b"k1"), (KeyKind::Tokens, b"k2")] {
            let (world, vault) = World::new().await;
            let old = world.rows(row).await.pop().unwrap();
            vault.change_key(kind, &me, &why).await.unwrap();
            let new = world.rows(row).await.pop().unwrap();
            let (copy, keeper) = (world.store.snapshot(), world.keeper.snapshot());
            vault.forget(&id("bob"), now()).await.unwrap();
            let other = world.open(world.store.clone()).await.unwrap();
            drop(vault);

            world.write(&old.0, Some(&old.1)).await;
            let refused = world.open(world.store.clone()).await.unwrap_err();
            assert_eq!(refused, RolledBack::Mixed.into());
            // Nor by one that is open, once it changes them.
            let refused = other.change_key(KeyKind::Index, &me, &why).await;
            assert_eq!(refused.unwrap_err(), RolledBack::Mixed.into());
            world.write(&new.0, Some(&new.1)).await;
            other.change_key(KeyKind::Index, &me, &why).await.unwrap();
            drop(other);

            // Nor in a copy that is put right: with the former lookup key nobody would be found there.
            let then =
                World { store: copy.clone(), keeper: world.keeper.clone(), clock: world.clock.clone() };
            then.write(&old.0, Some(&old.1)).await;
            let refused = then.recover(copy.clone()).await.unwrap_err();
            assert_eq!(refused, RolledBack::Mixed.into());
            then.write(&new.0, Some(&new.1)).await;
            let vault = then.recover(copy).await.unwrap();
            assert_eq!(opens(&vault, &id("bob")).await, Err(Erased::Forgotten.into()));
            assert_eq!(opens(&vault, &id("alice")).await, Ok(1));
            drop(keeper);
        }
    });
}

#[test]
fn abuse_04_a_bucket_that_is_hidden_while_a_copy_is_put_right_is_noticed() {
    block_on(async {
        let (world, vault) = with_a_crowd().await;
        let copy = world.store.snapshot();
        change(&vault).await;
        drop(vault);
        let then = World { store: copy.clone(), keeper: world.keeper.clone(), clock: world.clock.clone() };
        let bucket = then.rows(b"n\x02").await.pop().unwrap();
        let below = then.rows(&[b"s", &bucket.0[2..]].concat()).await;
        let rows: Vec<Row> = below.into_iter().chain([bucket]).collect();
        let faults = FaultStore::new(copy.clone());
        for (name, _) in &rows {
            then.write(name, None).await;
        }
        let (back, store) = (rows.clone(), copy.clone());
        faults.before_each(move |call| {
            let Call::Commit(batch) = call else { return Box::pin(async {}) };
            let phase = batch.writes.iter().find(|(name, _)| name.first() == Some(&b'p') && name.len() == 17);
            // All of the others are rotated.
            if matches!(phase.and_then(|(_, value)| value.as_deref()), Some([_, 2, ..])) {
                let mut batch = Batch::new().unwrap();
                for (name, row) in &back {
                    batch.put(name, row.clone());
                }
                block_on(store.commit(batch)).unwrap();
            }
            Box::pin(async {})
        });
        let keeper = || world.keeper.clone();
        let refused = then.options().recover(faults, keeper(), keeper(), &tester(), &test_ground()).await;
        assert_eq!(refused.unwrap_err(), RolledBack::Mixed.into());
        // Begun again, nothing is lost.
        let vault = then.recover(copy).await.unwrap();
        assert_eq!(vault.moves(|_| ()).await.unwrap().moved, 404);
    });
}
