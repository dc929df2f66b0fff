//! The example of a shop's service on redb: what two files cannot do in one transaction is taken back or finished.
#![cfg(all(feature = "testing", feature = "redb"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
#![allow(unreachable_pub, missing_docs, dead_code, reason = "modules of an example")]

#[path = "../examples/shop_axum/service.rs"]
mod service;

use customer_vault::testing::{self, test_ground, tester};
use customer_vault::value::{Country, Email, PersonName, PostalAddress};
use customer_vault::{Error, Forget, Options};
use service::answer::{Answer, Trouble};
use service::declare::Profile;
use service::rows::redb::RedbRows;
use service::rows::{Customer, NewCustomer, Rows as _, records};
use service::{Shop, today};

#[expect(clippy::unnecessary_wraps, reason = "as the shop asks for it")]
fn profile() -> Answer<Profile> {
    Ok(Profile {
        name: PersonName::parse("Ann Baker").unwrap(),
        email: Email::parse("ann@example.org").unwrap(),
        phone: None,
        address: PostalAddress::parse("1 Long Street", Country::parse("GB").unwrap()).unwrap(),
    })
}

fn ann(session: u8) -> (Customer, NewCustomer) {
    let new = NewCustomer { email: [1; 16], session: [session; 32], consents: vec![] };
    (Customer::new(format!("c-{session}")).unwrap(), new)
}

#[tokio::test]
async fn a_sign_up_that_fails_halfway_leaves_the_address_free() {
    let dir = std::env::temp_dir().join(format!("customer-vault-{}-shop-rows", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let vault = testing::ephemeral(records(Options::new())).await.unwrap();
    let (me, why) = (tester(), test_ground());
    let rows = RedbRows::open(&dir.join("shop.redb")).unwrap();

    vault.freeze(&me, &why).await.unwrap();
    let (customer, new) = ann(1);
    let failed = rows.sign_up(&vault, &me, &customer, &new, profile).await.unwrap_err();
    assert!(matches!(failed, Trouble::Vault(Error::Halted(_))), "{failed:?}");
    vault.unfreeze(&me, &why).await.unwrap();
    // What could not be taken back at once is at the next start.
    rows.finish(&vault, &me, Shop::<RedbRows>::keep_until()).await.unwrap();
    assert!(rows.by_session(new.session).await.unwrap().is_none());

    let (customer, new) = ann(2);
    rows.sign_up(&vault, &me, &customer, &new, profile).await.unwrap();
    assert!(rows.by_session(new.session).await.unwrap().is_some());
    let taken = rows.sign_up(&vault, &me, &ann(3).0, &ann(3).1, profile).await.unwrap_err();
    assert_eq!(taken, Trouble::Taken);
    assert_eq!(rows.finish(&vault, &me, today()).await.unwrap(), 0);

    let request = Forget::by(&me, &why);
    let receipt = rows.forget(&vault, &customer, request, Shop::<RedbRows>::keep_until()).await.unwrap();
    assert_eq!(receipt.stays.len(), 1, "the books; no order is open");
    assert!(rows.by_email([1; 16]).await.unwrap().is_none());
    drop(rows);
    std::fs::remove_dir_all(&dir).unwrap();
}
