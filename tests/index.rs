//! Blind indexes: equality only, per field, by a token.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::collections::HashSet;
use std::time::Duration;

use customer_vault::error::{Denied, Halted};
use customer_vault::log::{Action, Outcome};
use customer_vault::testing::{ManualClock, MemoryKeeper, test_ground, tester};
use customer_vault::value::{Email, Phone};
use customer_vault::*;
use pollster::block_on;

purposes! {
    /// Answer questions.
    pub Support: Contract = 1 "support";
    /// Recommend goods.
    pub Recommendation: Consent = 2 "recommendation";
}

record! {
    /// How somebody logs in.
    pub struct Login / SealedLogin / LoginView in login = "login" {
        /// The address that they log in with.
        pub email: Email = 1 "email", basic, for [Support: 90 days];
        /// Another one.
        pub second: Option<Email> = 2 "second", basic, for [Support: 90 days];
        /// For calls.
        pub phone: Phone = 3 "phone", basic, for [Recommendation: 90 days];
    }
}

record! {
    /// A record with the same field.
    pub struct Other / SealedOther / OtherView in other = "other" {
        /// The same number, label and type.
        pub email: Email = 1 "email", basic, for [Support: 90 days];
    }
}

struct Shop {
    vault: Vault,
    clock: ManualClock,
    token: Token,
}

fn shop() -> Shop {
    block_on(async {
        let keeper = MemoryKeeper::new();
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let options = Options::new().record::<Login>().record::<Other>().clock(clock.clone());
        let vault = options.create(store::MemoryStore::new(), keeper.clone(), keeper).await.unwrap();
        let token = token(&vault, Scope::everyone()).await;
        Shop { vault, clock, token }
    })
}

async fn token(vault: &Vault, scope: Scope) -> Token {
    vault.issue::<Support>(&tester(), &test_ground(), Duration::from_secs(3600), scope).await.unwrap()
}

fn mail(text: &str) -> Email {
    Email::parse(text).unwrap()
}

#[test]
fn abuse_27_equal_values_of_one_field_are_equal_and_nothing_else_is() {
    let (shop, another) = (shop(), shop());
    block_on(async {
        let ada = mail("ada@example.com");
        let one = shop.vault.index::<login::email>(&shop.token, &ada).await.unwrap();
        let again = shop.vault.index::<login::email>(&shop.token, &mail("ada@EXAMPLE.com")).await.unwrap();
        assert_eq!(one, again, "of the value as it is normalised");
        let all = [
            one,
            shop.vault.index::<login::email>(&shop.token, &mail("adb@example.com")).await.unwrap(),
            shop.vault.index::<login::second>(&shop.token, &ada).await.unwrap(),
            shop.vault.index::<other::email>(&shop.token, &ada).await.unwrap(),
            another.vault.index::<login::email>(&another.token, &ada).await.unwrap(),
        ];
        assert_eq!(all.into_iter().collect::<HashSet<_>>().len(), 5, "per value, field, record and vault");
    });
}

#[test]
fn abuse_27_an_index_needs_a_token_that_may_see_the_field_of_anybody() {
    let shop = shop();
    block_on(async {
        let (vault, ada) = (&shop.vault, mail("ada@example.com"));
        let somebody = SubjectId::new("a").unwrap();
        let narrowed = shop.token.narrow().subject(&somebody).done().unwrap();
        let fields = token(vault, Scope::everyone().field::<login::second>()).await;
        let subject = token(vault, Scope::subject(&somebody)).await;
        let stranger = self::shop();
        for (token, why) in [
            (&narrowed, Denied::Subject),
            (&subject, Denied::Subject),
            (&fields, Denied::Field),
            (&stranger.token, Denied::NotOurs),
        ] {
            assert_eq!(vault.index::<login::email>(token, &ada).await, Err(why.into()));
        }
        vault.index::<login::second>(&fields, &ada).await.unwrap();
        // A purpose that the field does not name.
        let phone = Phone::parse("+49 30 901820", value::Country::parse("DE").unwrap()).unwrap();
        let denied = vault.index::<login::phone>(&shop.token, &phone).await;
        assert_eq!(denied, Err(Denied::Purpose.into()));

        vault.freeze(&tester(), &test_ground()).await.unwrap();
        assert_eq!(vault.index::<login::email>(&shop.token, &ada).await, Err(Halted::Frozen.into()));
        vault.unfreeze(&tester(), &test_ground()).await.unwrap();
        vault.index::<login::email>(&shop.token, &ada).await.unwrap();
        shop.clock.advance(Duration::from_secs(3600));
        assert_eq!(vault.index::<login::email>(&shop.token, &ada).await, Err(Denied::Expired.into()));
        vault.revoke(Revoke::All, &tester(), &test_ground()).await.unwrap();
        shop.clock.advance(Duration::from_secs(1));
        let later = token(vault, Scope::everyone()).await;
        let revoked = Token::parse(later.expose()).unwrap();
        vault.index::<login::email>(&later, &ada).await.unwrap();
        vault.revoke(Revoke::Actor(tester()), &tester(), &test_ground()).await.unwrap();
        assert_eq!(vault.index::<login::email>(&revoked, &ada).await, Err(Denied::Revoked.into()));

        let mut asked = 0;
        let mut refused = 0;
        for entry in vault.log().await.unwrap() {
            if entry.action() == Action::Index {
                asked += usize::from(entry.outcome() == Outcome::Done);
                refused += usize::from(entry.outcome() != Outcome::Done);
            }
        }
        assert_eq!((asked, refused), (3, 8), "every call is in the log");
    });
}
