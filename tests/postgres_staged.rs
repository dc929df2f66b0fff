//! Changes that the shop's own transactions make: whole or not at all, whatever the isolation, together with the shop's
//! rows.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, clippy::print_stderr, reason = "a test")]
#![allow(unreachable_pub, missing_docs, dead_code, reason = "a module of several tests")]

use std::time::Duration;

use customer_vault::error::{Erased, Misuse};
use customer_vault::store::MemoryStore;
use customer_vault::testing::{MemoryKeeper, test_ground, tester};
use customer_vault::*;

#[path = "services/shop.rs"]
mod shop;
use shop::{Order, SealedOrder, Shipping, Shop, client, forget, id, order};

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_is_made_with_the_shops_row_or_not_at_all() {
    let shop = Shop::new().await;
    let (clerk, ground) = (tester(), test_ground());
    for (n, level) in LEVELS.iter().enumerate() {
        let (kept, dropped) = (format!("kept-{n}"), format!("dropped-{n}"));
        let mut client = client().await;
        for (name, commits) in [(&kept, true), (&dropped, false)] {
            let mut staged = shop.vault.staged().enroll(&id(name), [], &clerk, &ground).await.unwrap();
            let transaction = client.transaction().await.unwrap();
            transaction.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}")).await.unwrap();
            shop.insert(&transaction, name).await;
            staged.run(&transaction).await.unwrap();
            if commits {
                transaction.commit().await.unwrap();
                staged.finish().await.unwrap();
            } else {
                transaction.rollback().await.unwrap();
                assert_eq!(staged.finish().await.unwrap_err(), Error::Busy, "nothing was made");
            }
        }
        assert!(shop.enrolled(&id(&kept)).await && !shop.enrolled(&id(&dropped)).await, "{level}");
    }
    assert_eq!(shop.customers(), "kept-0\nkept-1\nkept-2");
    assert!(shop.vault.verify_log().await.unwrap().holds());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sealed_in_the_same_transaction_opens_after_it() {
    let shop = Shop::new().await;
    let (clerk, ground) = (tester(), test_ground());
    let (mut staged, sealer) =
        shop.vault.staged().enroll_and_seal::<Order>(&id("a"), [], &clerk, &ground).await.unwrap();
    let sealed = sealer.seal(order(), &7).unwrap();
    let mut client = client().await;
    let transaction = client.transaction().await.unwrap();
    let sql = format!("INSERT INTO {} (id, cart) VALUES ('a', $1)", shop.customers);
    transaction.execute(&sql, &[&sealed.as_bytes()]).await.unwrap();
    staged.run(&transaction).await.unwrap();
    transaction.commit().await.unwrap();
    staged.finish().await.unwrap();

    let sql = format!("SELECT cart FROM {} WHERE id = 'a'", shop.customers);
    let bytes: Vec<u8> = client.query_one(&sql, &[]).await.unwrap().get(0);
    let vault = shop.another().await;
    let grant = testing::grant::<Shipping>(&vault, &id("a")).await.unwrap();
    let view = SealedOrder::from_bytes(bytes).unwrap().open(&grant, &7).unwrap();
    assert_eq!(view.name().unwrap().expose(), "Ada Lovelace");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_second_hears_busy_under_every_isolation() {
    for level in LEVELS {
        let shop = Shop::new().await;
        let (clerk, ground) = (tester(), test_ground());
        // Somebody else was first, and is done.
        let mut late = shop.vault.staged().enroll(&id("a"), [], &clerk, &ground).await.unwrap();
        shop.another().await.enroll(&id("a"), [], &clerk, &ground).await.unwrap();
        let mut one = client().await;
        let transaction = one.transaction().await.unwrap();
        transaction.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}")).await.unwrap();
        shop.insert(&transaction, "a").await;
        assert_eq!(late.run(&transaction).await.unwrap_err(), Error::Busy, "{level}");
        transaction.rollback().await.unwrap();
        assert_eq!(late.finish().await.unwrap_err(), Error::Busy);

        // Somebody else is under way: a transaction that has run its statements and not committed.
        let mut first = shop.vault.staged().forget(&id("a"), forget()).await.unwrap();
        let second = shop.vault.staged().forget(&id("a"), forget()).await.unwrap();
        let mut two = client().await;
        let transaction = one.transaction().await.unwrap();
        transaction.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}")).await.unwrap();
        first.run(&transaction).await.unwrap();
        let waiting = tokio::spawn({
            let level = level.to_owned();
            async move {
                let transaction = two.transaction().await.unwrap();
                transaction.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}")).await.unwrap();
                second.run(&transaction).await
            }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        transaction.commit().await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap_err(), Error::Busy, "{level}");
        let receipt = first.finish().await.unwrap();
        assert!(receipt.witnessed);
        let again = shop.vault.forget(&id("a"), forget()).await.unwrap_err();
        assert_eq!(again, Error::Erased(Erased::Forgotten));
        assert!(shop.vault.verify_log().await.unwrap().holds());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forget_goes_with_the_cart_and_holds_in_every_process_when_it_is_finished() {
    let shop = Shop::new().await;
    let (clerk, ground) = (tester(), test_ground());
    shop.vault.enroll(&id("a"), [], &clerk, &ground).await.unwrap();
    let sealer = shop.vault.sealer::<Order>(&id("a"), &clerk, &ground).await.unwrap();
    let sealed = sealer.seal(order(), &7).unwrap();
    let another = shop.another().await;
    let watching = tokio::spawn({
        let another = another.clone();
        async move { another.watch().await }
    });
    let grant = testing::grant::<Shipping>(&another, &id("a")).await.unwrap();
    let mut client = client().await;
    shop.insert(&client, "a").await;

    let mut staged = shop.vault.staged().forget(&id("a"), forget()).await.unwrap();
    let transaction = client.transaction().await.unwrap();
    transaction.execute(&format!("DELETE FROM {} WHERE id = 'a'", shop.customers), &[]).await.unwrap();
    staged.run(&transaction).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(sealed.open(&grant, &7).is_ok(), "it is not committed");
    transaction.commit().await.unwrap();
    let receipt = staged.finish().await.unwrap();
    assert!(sealed.open(&grant, &7).is_err(), "it has returned");
    assert!(receipt.witnessed && shop.customers().is_empty());
    watching.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_has_left_is_finished_by_the_next() {
    let shop = Shop::new().await;
    let (clerk, ground) = (tester(), test_ground());
    shop.vault.enroll(&id("a"), [], &clerk, &ground).await.unwrap();
    let staged = shop.vault.staged().forget(&id("a"), forget()).await.unwrap();
    let mut client = client().await;
    let transaction = client.transaction().await.unwrap();
    staged.run(&transaction).await.unwrap();
    transaction.commit().await.unwrap();
    // Neither this handle nor its vault does anything more.
    drop(staged);
    let another = shop.another().await;
    let refused = another.sealer::<Order>(&id("a"), &clerk, &ground).await.unwrap_err();
    assert_eq!(refused, Error::Erased(Erased::Forgotten));
    // The witness has it: a store from before it is refused.
    let old = Options::new().record::<Order>();
    let empty = old.open(MemoryStore::new(), shop.keeper.clone(), shop.keeper.clone()).await;
    assert!(empty.is_err());
    another.undo_forget(&id("a"), &clerk, &ground).await.unwrap();
    assert!(another.verify_log().await.unwrap().holds());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stored_after_a_forget_and_a_transaction_under_way_comes_before_it() {
    let shop = Shop::new().await;
    let (clerk, ground) = (tester(), test_ground());
    for (name, put_first) in [("a", false), ("b", true)] {
        let who = id(name);
        shop.vault.enroll(&who, [], &clerk, &ground).await.unwrap();
        let sealer = shop.vault.sealer::<Order>(&who, &clerk, &ground).await.unwrap();
        let sealed = sealer.seal(order(), &7).unwrap();
        let mut staged = shop.vault.staged().put(&who, &7, &sealed, &clerk, &ground).await.unwrap();
        let mut client = client().await;
        let transaction = client.transaction().await.unwrap();
        if put_first {
            staged.run(&transaction).await.unwrap();
            let another = shop.another().await;
            let forgetting = tokio::spawn({
                let who = who.clone();
                async move { another.forget(&who, forget()).await }
            });
            tokio::time::sleep(Duration::from_millis(800)).await;
            assert!(!forgetting.is_finished(), "it would have returned before something was stored");
            transaction.commit().await.unwrap();
            staged.finish().await.unwrap();
            forgetting.await.unwrap().unwrap();
        } else {
            shop.another().await.forget(&who, forget()).await.unwrap();
            assert_eq!(staged.run(&transaction).await.unwrap_err(), Error::Busy);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_lose_nothing_and_the_shops_rows_agree() {
    let shop = std::sync::Arc::new(Shop::new().await);
    let mut tasks = Vec::new();
    for worker in 0..6_u32 {
        let shop = std::sync::Arc::clone(&shop);
        tasks.push(tokio::spawn(async move {
            let (clerk, ground) = (tester(), test_ground());
            let mut client = client().await;
            for n in 0..12 {
                let name = format!("{worker}-{n}");
                // Every third transaction is given up after its statements have run.
                let gives_up = n % 3 == 2;
                loop {
                    let mut staged =
                        shop.vault.staged().enroll(&id(&name), [], &clerk, &ground).await.unwrap();
                    let transaction = client.transaction().await.unwrap();
                    let level = LEVELS[usize::try_from(worker).unwrap() % 3];
                    transaction
                        .batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}"))
                        .await
                        .unwrap();
                    shop.insert(&transaction, &name).await;
                    match staged.run(&transaction).await {
                        Ok(()) if gives_up => break,
                        Ok(()) => {}
                        Err(Error::Busy) => continue,
                        Err(why) => panic!("{why:?}"),
                    }
                    if transaction.commit().await.is_ok() {
                        staged.finish().await.unwrap();
                        break;
                    }
                }
            }
        }));
    }
    // Beside them the vault goes on: enrolments of its own, forgets and shreds of the same buckets.
    for n in 0..6 {
        let (clerk, ground) = (tester(), test_ground());
        let name = id(&format!("own-{n}"));
        shop.vault.enroll(&name, [], &clerk, &ground).await.unwrap();
        shop.vault.forget(&name, forget().without_grace()).await.unwrap();
        shop.vault.shred(&clerk, &ground).await.unwrap();
    }
    for task in tasks {
        task.await.unwrap();
    }
    let customers = shop.customers();
    let customers: Vec<&str> = customers.lines().collect();
    for worker in 0..6 {
        for n in 0..12 {
            let name = format!("{worker}-{n}");
            assert_eq!(shop.enrolled(&id(&name)).await, customers.contains(&name.as_str()), "{name}");
            assert_eq!(customers.contains(&name.as_str()), n % 3 != 2, "{name}");
        }
    }
    assert!(shop.vault.verify_log().await.unwrap().holds());
}

#[tokio::test]
async fn a_store_without_transactions_of_the_shops_says_so() {
    let keeper = MemoryKeeper::new();
    let vault = Options::new().record::<Order>();
    let vault = vault.create(MemoryStore::new(), keeper.clone(), keeper).await.unwrap();
    let refused = vault.staged().enroll(&id("a"), [], &tester(), &test_ground()).await.unwrap_err();
    assert_eq!(refused, Error::Misuse(Misuse::NotStaged));
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_39_two_vaults_in_one_database_both_work_and_know_nothing_of_each_other() {
    let (one, two) = (Shop::new().await, Shop::new().await);
    let (clerk, ground) = (tester(), test_ground());
    let mut sealed = Vec::new();
    for shop in [&one, &two] {
        shop.vault.enroll(&id("a"), [], &clerk, &ground).await.unwrap();
        let sealer = shop.vault.sealer::<Order>(&id("a"), &clerk, &ground).await.unwrap();
        sealed.push(sealer.seal(order(), &7).unwrap());
    }
    let (grant, other) = (
        testing::grant::<Shipping>(&one.vault, &id("a")).await.unwrap(),
        testing::grant::<Shipping>(&two.vault, &id("a")).await.unwrap(),
    );
    assert!(sealed[0].open(&grant, &7).is_ok() && sealed[1].open(&other, &7).is_ok());
    assert!(sealed[0].open(&other, &7).is_err() && sealed[1].open(&grant, &7).is_err());
    one.vault.forget(&id("a"), forget().without_grace()).await.unwrap();
    assert_eq!(one.vault.shred(&clerk, &ground).await.unwrap().epoch_left, Some(1));
    let other = testing::grant::<Shipping>(&two.vault, &id("a")).await.unwrap();
    assert!(sealed[1].open(&other, &7).is_ok());
    assert_eq!(two.vault.shred(&clerk, &ground).await.unwrap().epoch_left, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_39_two_processes_that_clean_up_at_once_leave_roots_behind_and_nothing_else() {
    let shop = Shop::new().await;
    let another = shop.another().await;
    let (clerk, ground) = (tester(), test_ground());
    for n in 0..8 {
        let who = id(&format!("p{n}"));
        shop.vault.enroll(&who, [], &clerk, &ground).await.unwrap();
        shop.vault.forget(&who, forget().without_grace()).await.unwrap();
    }
    let cleans = async |vault: &Vault| loop {
        match vault.shred(&clerk, &ground).await {
            Ok(receipt) => break receipt.epoch_left,
            Err(Error::Busy) => {}
            Err(why) => panic!("{why:?}"),
        }
        vault.expire(&clerk, &ground).await.map(drop).or_else(busy).unwrap();
    };
    let (left, also) = tokio::join!(cleans(&shop.vault), cleans(&another));
    // One root may be left by both batches: whoever replaces it takes along what is complete.
    let last = left.max(also).unwrap();
    let coverage = shop.vault.coverage(&clerk, &ground, |_| ()).await.unwrap();
    assert!(coverage.holds() && coverage.epoch > last, "{coverage:?} after {last}");
    for n in 0..8 {
        let who = id(&format!("p{n}"));
        let again = another.enroll_again(&who, [], &clerk, &ground).await;
        assert!(again.is_ok() && shop.enrolled(&who).await);
    }
    assert!(shop.vault.verify_log().await.unwrap().holds());
}

fn busy(why: Error) -> Result<()> {
    if why == Error::Busy { Ok(()) } else { Err(why) }
}
