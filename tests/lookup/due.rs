//! Rows that say what is to be destroyed are taken away: what the journal says is destroyed all the same.

use super::*;

async fn without_due_rows(world: &World) {
    for (name, _) in world.rows(b"w").await {
        world.write(&name, None).await;
    }
}

#[test]
fn abuse_06_what_is_due_is_destroyed_although_its_row_was_taken_away() {
    block_on(async {
        for elsewhere in [false, true] {
            let (world, vault) = World::new().await;
            let (me, why) = (tester(), test_ground());
            let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(id);
            vault.enroll(&id("eve"), [], &me, &why).await.unwrap();
            vault.hold(&carol, &me, &why).await.unwrap();
            if elsewhere {
                change(&vault).await;
                moved(&vault, &[everyone(), vec![id("eve")]].concat()).await;
                retire(&vault).await.unwrap();
            }
            let held = world.rows(b"s").await;
            let until = world.clock.today().plus(11);
            vault.forget(&alice, Forget::by(&me, &why).without_grace()).await.unwrap();
            vault.withdraw::<News>(&bob, &me, &why).await.unwrap();
            vault.release_hold(&carol, &me, &why).await.unwrap();
            let keeping = Forget::by(&me, &why).without_grace().keeping::<Shipping>(until);
            vault.forget(&dave, keeping).await.unwrap();
            vault.forget(&id("eve"), Forget::by(&me, &why)).await.unwrap();
            vault.undo_forget(&id("eve"), &me, &why).await.unwrap();
            assert!(world.rows(b"w").await.len() >= 4);
            without_due_rows(&world).await;

            // Another process, which knows only what the journal says.
            drop(vault);
            let vault = world.open(world.store.clone()).await.unwrap();
            world.clock.advance_days(4);
            assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 4);
            assert_eq!(vault.settle(&me, &why).await.unwrap().certificates.len(), 2);
            assert_eq!(opens(&vault, &alice).await, Err(Erased::Forgotten.into()));
            assert!(grant::<Shipping>(&vault, &dave).await.is_ok());
            assert!(grant::<Shipping>(&vault, &id("eve")).await.is_ok());
            // The rows with the keys of then open no more, that of the hold among them.
            let now = world.rows(b"s").await;
            for (name, row) in &held {
                if now.iter().any(|(known, new)| known == name && new != row) {
                    world.write(name, Some(row)).await;
                }
            }
            assert_eq!(vault.moves(|_| ()).await.unwrap().faults, 4);
            for (name, row) in &now {
                world.write(name, Some(row)).await;
            }
            // Nothing is asked for twice; what was kept ends with its day.
            assert_eq!(vault.shred(&me, &why).await.unwrap().epoch_left, None);
            world.clock.advance_days(5);
            assert_eq!(vault.shred(&me, &why).await.unwrap().epoch_left, None);
            world.clock.advance_days(5);
            without_due_rows(&world).await;
            assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 1);
            assert_eq!(opens(&vault, &dave).await, Err(Erased::Forgotten.into()));
        }
    });
}

#[test]
fn abuse_06_who_was_hidden_from_a_shred_is_destroyed_by_the_next() {
    block_on(async {
        let (world, vault) = World::new().await;
        let (me, why) = (tester(), test_ground());
        let before = world.rows(b"s").await;
        vault.forget(&id("alice"), Forget::by(&me, &why).without_grace()).await.unwrap();
        let after = world.rows(b"s").await;
        let (name, row) = after.iter().find(|entry| !before.contains(entry)).unwrap();
        vault.forget(&id("bob"), Forget::by(&me, &why).without_grace()).await.unwrap();
        without_due_rows(&world).await;
        world.write(name, None).await;
        assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 1);
        world.write(name, Some(row)).await;
        assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 1);
        assert_eq!(vault.settle(&me, &why).await.unwrap().certificates.len(), 2);
    });
}
