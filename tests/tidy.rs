//! What is over leaves no rows behind.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::time::Duration;

use customer_vault::error::Denied;
use customer_vault::store::{MemoryStore, Range, Store as _};
use customer_vault::testing::{ManualClock, MemoryKeeper, test_ground, tester};
use customer_vault::*;
use pollster::block_on;

purposes! {
    /// Answer questions.
    pub Support: Contract = 1 "support";
}

#[test]
fn an_expiry_drops_the_rows_of_tokens_that_are_over_and_revives_none() {
    block_on(async {
        let (store, keeper) = (MemoryStore::new(), MemoryKeeper::new());
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let settings = Settings::default().max_token_seconds(10 * 86_400);
        let options = Options::new().purpose::<Support>().clock(clock.clone()).settings(settings);
        let vault = options.create(store.clone(), keeper.clone(), keeper).await.unwrap();
        let (actor, ground, id) = (tester(), test_ground(), SubjectId::new("a").unwrap());
        vault.enroll(&id, [], &actor, &ground).await.unwrap();
        let issue = async |days: u64| {
            let lifetime = Duration::from_secs(days * 86_400);
            vault.issue::<Support>(&actor, &ground, lifetime, Scope::everyone()).await.unwrap()
        };
        let (short, long) = (issue(1).await, issue(9).await);
        let rows = async || store.scan(Range::prefix(b"t"), 100).await.unwrap().rows.len();
        assert_eq!(rows().await, 2);
        clock.advance_days(3);
        vault.expire(&actor, &ground).await.unwrap();
        assert_eq!((rows().await, vault.tokens().await.unwrap().len()), (1, 1));
        vault.unlock::<Support>(&long, &id).await.unwrap();
        // Also where the clock goes back to when it was good.
        clock.set_wall(Day::from_ymd(2026, 1, 5).unwrap().start_ms());
        let refused = vault.unlock::<Support>(&short, &id).await.unwrap_err();
        assert_eq!(refused, Error::Denied(Denied::Expired));
    });
}
