//! Older copies of the store, and rows that are put back.

use customer_vault::error::{Erased, RolledBack};

use super::*;

#[test]
fn abuse_04_a_forget_reaches_copies_from_before_from_the_middle_and_from_after() {
    block_on(async {
        for forgotten in ["alice", "bob", "zoe"] {
            let (world, vault) = World::new().await;
            let (me, why) = (tester(), test_ground());
            let mut copies = vec![("before", world.store.snapshot())];
            change(&vault).await;
            copies.push(("changed", world.store.snapshot()));
            assert_eq!(moved(&vault, &everyone()[..1]).await, (1, 0, 0, 0));
            vault.enroll(&id("zoe"), [], &me, &why).await.unwrap();
            copies.push(("one has moved", world.store.snapshot()));
            moved(&vault, &everyone()).await;
            copies.push(("all have moved", world.store.snapshot()));
            retire(&vault).await.unwrap();
            copies.push(("retired", world.store.snapshot()));
            vault.forget(&id(forgotten), Forget::by(&me, &why).without_grace()).await.unwrap();
            drop(vault);
            for (made, copy) in copies {
                let keeper = world.keeper.snapshot();
                let then = World { store: copy.snapshot(), keeper, clock: world.clock.clone() };
                let vault = then.recover(then.store.clone()).await.unwrap();
                for who in ["alice", "bob", "carol", "dave"] {
                    let opened = opens(&vault, &id(who)).await;
                    let expected = if who == forgotten { Err(Erased::Forgotten.into()) } else { Ok(1) };
                    assert_eq!(opened, expected, "{who} in a copy: {made}");
                }
                if forgotten == "zoe" {
                    // She was enrolled under a key that the oldest copy does not have.
                    let expected = match made {
                        "before" => Err(Error::NotEnrolled),
                        _ => Err(Erased::Forgotten.into()),
                    };
                    assert_eq!(opens(&vault, &id("zoe")).await, expected, "{made}");
                }
                // It goes on from there.
                let ids = [everyone(), vec![id("zoe")]].concat();
                let former = |key: &KeyInfo| key.kind == KeyKind::Lookup && !key.current;
                if vault.keys().iter().any(former) {
                    moved(&vault, &ids).await;
                    retire(&vault).await.unwrap();
                }
                change(&vault).await;
                moved(&vault, &ids).await;
                assert_eq!(moves(&vault).await.1, 0, "{made}");
                retire(&vault).await.unwrap();
                assert_eq!(opens(&vault, &id("dave")).await, Ok(1));
                assert!(vault.coverage(&me, &why, |_| ()).await.unwrap().holds());
            }
        }
    });
}

/// The rows of entries that one of two sets has and the other has not.
fn only<'a>(one: &'a [(Vec<u8>, Vec<u8>)], other: &[(Vec<u8>, Vec<u8>)]) -> &'a (Vec<u8>, Vec<u8>) {
    one.iter().find(|(name, _)| !other.iter().any(|(known, _)| known == name)).unwrap()
}

#[test]
fn an_entry_that_is_put_back_where_it_lay_is_not_believed_and_is_taken_away() {
    block_on(async {
        let (world, vault) = World::new().await;
        let (me, why) = (tester(), test_ground());
        let before = world.rows(b"s").await;
        change(&vault).await;
        moved(&vault, &[id("alice")]).await;
        let after = world.rows(b"s").await;
        let (old, row) = only(&before, &after);
        vault.forget(&id("alice"), Forget::by(&me, &why)).await.unwrap();
        world.write(old, Some(row)).await;
        assert_eq!(opens(&vault, &id("alice")).await, Err(Erased::Forgotten.into()));
        assert_eq!(moves(&vault).await, (1, 4, 0), "it is seen");
        assert_eq!(moved(&vault, &[id("alice")]).await, (1, 0, 0, 0));
        assert_eq!(moves(&vault).await, (1, 3, 0));
        vault.undo_forget(&id("alice"), &me, &why).await.unwrap();
        assert_eq!(opens(&vault, &id("alice")).await, Ok(1));
    });
}

#[test]
fn abuse_05_after_a_shred_the_place_before_opens_nothing_either() {
    block_on(async {
        for settled in [false, true] {
            let (world, vault) = World::new().await;
            let (me, why) = (tester(), test_ground());
            let before = world.rows(b"s").await;
            change(&vault).await;
            moved(&vault, &[id("alice")]).await;
            let after = world.rows(b"s").await;
            let ((old, row), (new, _)) = (only(&before, &after), only(&after, &before));
            vault.forget(&id("alice"), Forget::by(&me, &why).without_grace()).await.unwrap();
            // The entry from before opens under its bucket still: the journal alone keeps it from being believed.
            let entry = world.rows(new).await.pop().unwrap().1;
            world.write(new, None).await;
            world.write(old, Some(row)).await;
            let refused = vault.status(&id("alice"), &me, &why).await;
            assert_eq!(refused.unwrap_err(), RolledBack::Store.into());
            world.write(new, Some(&entry)).await;
            if settled {
                world.write(old, None).await;
            }

            // The shred rotates the bucket of then, and takes away what lies there.
            assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 1);
            assert_eq!(vault.settle(&me, &why).await.unwrap().certificates.len(), 1);
            assert!(world.rows(old).await.is_empty());
            world.write(new, None).await;
            world.write(old, Some(row)).await;
            let refused = vault.status(&id("alice"), &me, &why).await;
            assert_eq!(refused.unwrap_err(), RolledBack::Mixed.into());
        }
    });
}

#[test]
fn a_bucket_that_was_left_is_rotated_once() {
    block_on(async {
        let (world, vault) = World::new().await;
        let (me, why) = (tester(), test_ground());
        change(&vault).await;
        moved(&vault, &everyone()).await;
        retire(&vault).await.unwrap();
        vault.withdraw::<News>(&id("alice"), &me, &why).await.unwrap();
        world.clock.advance_days(4);
        // One root more is left for the buckets of before.
        let shred = vault.shred(&me, &why).await.unwrap();
        let left = shred.epoch_left.unwrap();
        assert_eq!(shred.subjects, 1);
        vault.forget(&id("alice"), Forget::by(&me, &why).without_grace()).await.unwrap();
        let shred = vault.shred(&me, &why).await.unwrap();
        assert_eq!((shred.subjects, shred.epoch_left), (1, Some(left + 1)));
    });
}

#[test]
fn a_bucket_that_lies_about_its_rotation_or_hides_from_it_saves_nothing() {
    block_on(async {
        for hidden in [false, true] {
            let (world, vault) = World::new().await;
            let (me, why) = (tester(), test_ground());
            let before = world.rows(b"s").await;
            change(&vault).await;
            moved(&vault, &everyone()).await;
            let after = world.rows(b"s").await;
            let who = id("alice");
            let buckets =
                |rows: &[(Vec<u8>, Vec<u8>)]| rows.iter().map(|(n, _)| n[1..3].to_vec()).collect::<Vec<_>>();
            let (left, now) = (buckets(&before), buckets(&after));
            // Four of 256: seldom somebody comes to lie where another lay.
            if left.iter().any(|bucket| now.contains(bucket)) {
                continue;
            }
            let names: Vec<Vec<u8>> = left.iter().map(|digits| [b"n\x02", &digits[..]].concat()).collect();
            let mut rows = Vec::new();
            for name in &names {
                rows.push(world.rows(name).await.pop().unwrap().1);
            }
            vault.forget(&who, Forget::by(&me, &why).without_grace()).await.unwrap();
            for (name, row) in names.iter().zip(&rows) {
                let mut other = row.clone();
                other[17] += 1;
                world.write(name, (!hidden).then_some(&other)).await;
            }
            if !hidden {
                let refused = vault.shred(&me, &why).await;
                assert_eq!(refused.unwrap_err(), RolledBack::Mixed.into());
                for (name, row) in names.iter().zip(&rows) {
                    world.write(name, Some(row)).await;
                }
            }
            assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 1);
            for (name, row) in names.iter().zip(&rows) {
                world.write(name, Some(row)).await;
            }
            for (name, row) in &before {
                world.write(name, Some(row)).await;
            }
            for (name, _) in &after {
                world.write(name, None).await;
            }
            // The rows of then are all there, and the one of the forgotten opens under nothing.
            let refused = vault.status(&who, &me, &why).await;
            assert_eq!(refused.unwrap_err(), RolledBack::Mixed.into());
        }
    });
}
