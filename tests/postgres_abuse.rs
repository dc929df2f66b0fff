//! What is tried against processes that share a vault on PostgreSQL.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
#![allow(unreachable_pub, missing_docs, dead_code, reason = "a module of several tests")]

use std::time::Duration;

use customer_vault::error::{Denied, Erased};
use customer_vault::testing::{test_ground, tester};
use customer_vault::*;

#[path = "services/shop.rs"]
mod shop;
use shop::{Order, SealedOrder, Shipping, Shop, forget, id, order};

const HOUR: Duration = Duration::from_secs(3600);

async fn sealed(shop: &Shop, name: &str) -> SealedOrder {
    shop.vault.enroll(&id(name), [], &tester(), &test_ground()).await.unwrap();
    let sealer = shop.vault.sealer::<Order>(&id(name), &tester(), &test_ground()).await.unwrap();
    sealer.seal(order(), &7).unwrap()
}

fn watched(vault: &Vault) -> tokio::task::JoinHandle<Result<()>> {
    let vault = vault.clone();
    tokio::spawn(async move { vault.watch().await })
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_18_what_is_revoked_in_one_process_is_refused_in_the_other_and_after_a_restart() {
    let shop = Shop::new().await;
    let (clerk, ground) = (tester(), test_ground());
    let order = sealed(&shop, "a").await;
    let other = shop.another().await;
    let watching = watched(&other);
    let actor = Actor::service("label-printer").unwrap();
    let issue = async || {
        // A purpose is revoked for what was issued so far, by the millisecond.
        tokio::time::sleep(Duration::from_millis(5)).await;
        shop.vault.issue::<Shipping>(&actor, &ground, HOUR, Scope::everyone()).await.unwrap()
    };
    for kind in 0..4 {
        let token = &issue().await;
        let what = match kind {
            0 => Revoke::Token(token.unverified_id()),
            1 => Revoke::Purpose(PurposeId::of::<Shipping>()),
            2 => Revoke::All,
            _ => Revoke::Actor(actor.clone()),
        };
        let grant = other.unlock::<Shipping>(token, &id("a")).await.unwrap();
        assert!(order.open(&grant, &7).is_ok());
        shop.vault.revoke(what, &clerk, &ground).await.unwrap();
        assert!(order.open(&grant, &7).is_err(), "a grant that was taken before");
        for vault in [&other, &shop.another().await] {
            let refused = vault.unlock::<Shipping>(token, &id("a")).await.unwrap_err();
            assert_eq!(refused, Error::Denied(Denied::Revoked));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    watching.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_29_what_was_read_before_a_forget_serves_nothing_after_it() {
    let shop = Shop::new().await;
    let other = shop.another().await;
    let watching = watched(&other);
    for round in 0..10 {
        let name = format!("p{round}");
        let order = sealed(&shop, &name).await;
        // Unlocks of another process run into the forget at every moment of it.
        let unlocking = {
            let (other, name) = (other.clone(), name.clone());
            tokio::spawn(async move {
                let mut grants = Vec::new();
                for _ in 0..12 {
                    grants.extend(testing::grant::<Shipping>(&other, &id(&name)).await);
                }
                grants
            })
        };
        tokio::time::sleep(Duration::from_millis(3 * round)).await;
        shop.vault.forget(&id(&name), forget()).await.unwrap();
        let late = testing::grant::<Shipping>(&other, &id(&name)).await.unwrap_err();
        assert_eq!(late, Error::Erased(Erased::Forgotten));
        for grant in unlocking.await.unwrap() {
            assert!(order.open(&grant, &7).is_err(), "round {round}");
        }
    }
    watching.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_41_without_a_keeper_reads_go_on_in_every_process_and_nothing_is_certified() {
    let shop = Shop::new().await;
    let (clerk, ground) = (tester(), test_ground());
    let (alice, bob) = (sealed(&shop, "alice").await, sealed(&shop, "bob").await);
    let other = shop.another().await;
    shop.vault.forget(&id("alice"), forget().without_grace()).await.unwrap();
    shop.keeper.keeper_unreachable(true);
    for vault in [&shop.vault, &other] {
        let grant = testing::grant::<Shipping>(vault, &id("bob")).await.unwrap();
        assert!(bob.open(&grant, &7).is_ok());
        assert!(matches!(vault.shred(&clerk, &ground).await, Err(Error::Keeper(_) | Error::Busy)));
        assert!(matches!(vault.settle(&clerk, &ground).await, Err(Error::Keeper(_) | Error::Busy)));
        assert!(testing::grant::<Shipping>(vault, &id("alice")).await.is_err());
    }
    shop.keeper.keeper_unreachable(false);
    let left = other.shred(&clerk, &ground).await.unwrap();
    assert!(left.epoch_left.is_some() || shop.vault.shred(&clerk, &ground).await.unwrap().subjects == 0);
    let grant = testing::grant::<Shipping>(&shop.vault, &id("bob")).await.unwrap();
    assert!(bob.open(&grant, &7).is_ok() && alice.open(&grant, &7).is_err());
}
