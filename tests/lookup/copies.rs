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
