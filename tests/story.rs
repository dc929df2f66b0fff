//! The main job from end to end, on one redb file with a file keeper.
#![cfg(all(feature = "redb", feature = "testing"))]
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use customer_vault::keeper::{Argon2Cost, FileKeeper, FileSecret, Passphrase};
use customer_vault::store::RedbStore;
use customer_vault::testing::{ManualClock, test_ground, tester};
use customer_vault::value::{Country, OrderLine, PersonName, Phone, PostalAddress};
use customer_vault::*;
use pollster::block_on;

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
    /// Recommend goods.
    pub Recommendation: Consent = 2 "recommendation";
    /// Books of account.
    pub Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    /// One order.
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// Printed on the label.
        pub address: PostalAddress = 1 "address", basic, for [Shipping: 90 days, Invoicing: 10 years];
        /// For the driver.
        pub phone: Option<Phone> = 2 "phone", basic sensitive, for [Shipping: 90 days], padded 32;
        /// What was bought.
        pub lines: Vec<OrderLine> = 3 "lines", transaction, for [Shipping: 90 days, Invoicing: 10 years];
        /// For suggestions.
        pub taste: PersonName = 4 "taste", behaviour, for [Recommendation: 1 year];
    }
}

fn an_order() -> Order {
    let us = Country::parse("US").unwrap();
    Order {
        address: PostalAddress::parse("1 Long Street\nSpringfield", us).unwrap(),
        phone: None,
        lines: vec![OrderLine::parse("tea", 2, 350, "USD").unwrap()],
        taste: PersonName::parse("green tea").unwrap(),
    }
}

#[test]
fn the_whole_story() {
    let dir = std::env::temp_dir().join(format!("customer-vault-story-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (store, key) = (dir.join("vault.redb"), dir.join("keeper.key"));
    for path in [&store, &key] {
        drop(std::fs::remove_file(path));
    }
    let secret = || {
        let words = Passphrase::new("correct horse battery staple".to_owned()).unwrap();
        FileSecret::passphrase_at(words, Argon2Cost::insecure_for_tests())
    };
    let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
    let options = || Options::new().record::<Order>().clock(clock.clone());
    let (me, why) = (tester(), test_ground());
    block_on(async {
        let keeper = FileKeeper::create(&key, secret()).unwrap();
        let vault = options()
            .create(RedbStore::create(&store).unwrap(), keeper.clone(), keeper.clone())
            .await
            .unwrap();
        let alice = SubjectId::new("alice").unwrap();
        vault.enroll(&alice, [], &me, &why).await.unwrap();
        let sealer = vault.sealer::<Order>(&alice, &me, &why).await.unwrap();
        let sealed = sealer.seal(an_order(), &7).unwrap();
        assert_eq!(sealed.left_out(), ["taste"]);
        vault.put(&alice, &7, &sealed, &me, &why).await.unwrap();

        let hour = Duration::from_secs(3600);
        let carrier = Actor::third_party("carrier").unwrap();
        let token = vault.issue::<Shipping>(&carrier, &why, hour, Scope::everyone()).await.unwrap();
        let grant = vault.unlock::<Shipping>(&token, &alice).await.unwrap();
        let sealed = vault.get::<Order>(&alice, &7, &me, &why).await.unwrap().unwrap();
        let view = sealed.open(&grant, &7).unwrap();
        assert_eq!(view.lines().unwrap().len(), 1);
        assert!(view.phone().unwrap().is_none());
        assert_eq!(sealed.open(&grant, &8).unwrap_err(), Error::DoesNotOpen);

        let receipt = vault.forget(&alice, Forget::by(&me, &why).requested_by("alice")).await.unwrap();
        assert!(receipt.witnessed);
        assert_eq!(receipt.stays.len(), 1);
        assert!(matches!(sealed.open(&grant, &7).unwrap_err(), Error::Erased(_)));
        drop(grant);
        drop(sealer);

        clock.advance_days(7);
        let shredded = vault.shred(&me, &why).await.unwrap();
        assert_eq!((shredded.subjects, shredded.epoch_left), (1, Some(1)));
        clock.advance_days(1);
        assert_eq!(vault.expire(&me, &why).await.unwrap().days.len(), 8);
        drop(vault);
        drop(keeper);
        let keeper = FileKeeper::open(&key, secret()).unwrap();
        let vault = options().open(RedbStore::open(&store).unwrap(), keeper.clone(), keeper).await.unwrap();
        let token = vault.issue::<Invoicing>(&carrier, &why, hour, Scope::everyone()).await.unwrap();
        let grant = vault.unlock::<Invoicing>(&token, &alice).await.unwrap();
        let view = sealed.open(&grant, &7).unwrap();
        assert_eq!(view.lines().unwrap().len(), 1);
        let ticket = vault.issue::<Shipping>(&carrier, &why, hour, Scope::everyone()).await.unwrap();
        assert!(matches!(vault.unlock::<Shipping>(&ticket, &alice).await.unwrap_err(), Error::Erased(_)));
        assert_eq!(vault.settle(&me, &why).await.unwrap().roots, 0);
        for _ in 0..7 {
            clock.advance_days(7);
            vault.expire(&me, &why).await.unwrap();
        }
        let settled = vault.settle(&me, &why).await.unwrap();
        assert_eq!(settled.certificates.len(), 1);
        let certificate = vault.certificate(&receipt.reference).await.unwrap().unwrap();
        let text = Certificate::verify(certificate.as_str(), &vault.verifier_key().unwrap()).unwrap();
        assert!(text.contains("destroyed purposes: shipping"), "{text}");
        assert!(vault.verify_log().await.unwrap().holds());
    });
    std::fs::remove_dir_all(&dir).unwrap();
}
