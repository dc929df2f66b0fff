//! Grants, sealers and tokens that outlive what they rest on; consents, clocks and an unreachable witness.

use std::fmt::Write as _;

use super::*;
use customer_vault::error::{Denied, Erased, Halted};
use customer_vault::log::{Action, Count, Outcome};
use customer_vault::witness::Witness as _;

#[test]
fn a_forget_that_is_undone_leaves_the_withdrawal_before_it_due() {
    let shop = Shop::open();
    shop.withdraw();
    shop.forget(by());
    block_on(shop.vault.undo_forget(&shop.alice, &shop.me, &shop.why)).unwrap();
    shop.clock.advance_days(7);
    assert_eq!(shop.shred().subjects, 1);
    assert_eq!(shop.shred().subjects, 0);
}

#[test]
fn a_grant_from_before_a_withdrawal_opens_nothing_after_a_new_consent() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    let before = shop.unlock::<Recommendation>().unwrap();
    assert!(taste_opens(&sealed, &before));
    shop.withdraw();
    shop.weeks(1);
    assert_eq!(shop.shred().subjects, 1);
    shop.consent(1);
    assert_eq!(sealed.open(&before, &7).err(), Some(Error::Stale));
    assert!(!taste_opens(&sealed, &shop.unlock().unwrap()));
}

#[test]
fn a_consent_after_the_grace_of_a_withdrawal_does_not_revive_what_was_sealed_before() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    shop.withdraw();
    shop.clock.advance_days(7);
    shop.consent(1);
    assert!(!taste_opens(&sealed, &shop.unlock().unwrap()));
    // Nor does the shred that was due take the new key.
    let since = shop.sealed();
    assert_eq!(shop.shred().subjects, 1);
    assert!(taste_opens(&since, &shop.unlock().unwrap()));
    assert!(!taste_opens(&sealed, &shop.unlock().unwrap()));
}

#[test]
fn a_newer_notice_ends_the_grants_and_sealers_that_rest_on_older_consents() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    let (grant, sealer) = (shop.unlock::<Recommendation>().unwrap(), shop.sealer());
    block_on(shop.vault.require_notice::<Recommendation>(2, &shop.me, &shop.why)).unwrap();
    assert_eq!(sealed.open(&grant, &7).err(), Some(Error::Stale));
    assert_eq!(sealer.seal(an_order(), &8).err(), Some(Error::Stale));
    assert_eq!(shop.unlock::<Recommendation>().err(), Some(Erased::Purpose.into()));
}

#[test]
fn abuse_31_a_cipher_that_a_grant_keeps_opens_nothing_after_the_date_that_a_purpose_was_kept_until() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    shop.forget(by().keeping::<Shipping>(shop.clock.today()));
    let grant = shop.unlock::<Shipping>().unwrap();
    assert!(name_opens(&sealed, &grant));
    shop.clock.advance_days(1);
    assert!(!name_opens(&sealed, &grant));
    assert!(!note_opens(&sealed, &grant));
}

#[test]
fn abuse_16_a_clock_set_back_revives_no_token() {
    let shop = Shop::open();
    let hour = Duration::from_secs(3600);
    let token = block_on(shop.vault.issue::<Shipping>(&shop.me, &shop.why, hour, Scope::everyone())).unwrap();
    let grant = block_on(shop.vault.unlock::<Shipping>(&token, &shop.alice)).unwrap();
    let sealed = shop.sealed();
    let noon = shop.clock.wall();
    shop.clock.advance_days(5);
    let expired = Some(Denied::Expired.into());
    assert_eq!(block_on(shop.vault.unlock::<Shipping>(&token, &shop.alice)).err(), expired);
    shop.clock.set_wall(noon);
    assert_eq!(block_on(shop.vault.unlock::<Shipping>(&token, &shop.alice)).err(), expired);
    assert_eq!(sealed.open(&grant, &7).err(), expired);
    assert_eq!(sealed.open(&grant, &8).err(), expired, "it does not tell what would not open either");
}

#[test]
fn abuse_16_a_clock_ahead_shreds_and_settles_nothing() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    // Somebody else is shredded, so that there is a root to settle.
    let bob = id("bob");
    shop.enroll(&bob);
    let receipt = block_on(shop.vault.forget(&bob, by().without_grace())).unwrap();
    assert_eq!(shop.shred().subjects, 1);
    shop.forget(by());
    let (held, days) = (shop.held(), shop.rows(b"d").len());

    let noon = shop.clock.wall();
    let halted = Some(Error::Halted(Halted::Clock));
    for years in [11, 22] {
        shop.clock.set_wall(noon + years * 366 * 86_400_000);
        assert_eq!(block_on(shop.vault.expire(&shop.me, &shop.why)).err(), halted);
        assert_eq!(block_on(shop.vault.shred(&shop.me, &shop.why)).err(), halted);
        assert_eq!(block_on(shop.vault.settle(&shop.me, &shop.why)).err(), halted);
    }
    shop.clock.set_wall(noon);
    assert_eq!((shop.held(), shop.rows(b"d").len()), (held, days));
    assert_eq!(block_on(shop.vault.certificate(&receipt.reference)), Ok(None));
    block_on(shop.vault.undo_forget(&shop.alice, &shop.me, &shop.why)).unwrap();
    assert!(note_opens(&sealed, &shop.unlock::<Shipping>().unwrap()));
    assert!(name_opens(&sealed, &shop.unlock::<Invoicing>().unwrap()));
}

#[test]
fn guesses_in_a_batch_are_in_the_log_with_their_number() {
    let shop = Shop::open();
    let token = shop.token::<Shipping>();
    let mut ids: Vec<SubjectId> = (0..50).map(|i| id(&format!("guess{i}"))).collect();
    ids.push(shop.alice.clone());
    let grants = block_on(shop.vault.unlock_many::<Shipping>(&token, &ids)).unwrap();
    assert_eq!(grants.iter().filter(|grant| grant.is_ok()).count(), 1);
    let log = block_on(shop.vault.log()).unwrap();
    let refused: Vec<_> = log
        .iter()
        .filter(|entry| entry.action() == Action::UnlockMany && entry.outcome() != Outcome::Done)
        .collect();
    assert_eq!(refused.iter().filter_map(|entry| entry.count(Count::Subjects)).sum::<u64>(), 50);
    assert!(refused.iter().all(|entry| entry.subjects().is_empty()));
}

#[test]
fn abuse_21_debug_of_changes_and_of_a_request_shows_neither_value_nor_person() {
    let shop = Shop::open();
    let (sealed, sealer) = (shop.sealed(), shop.sealer());
    let grant = shop.unlock::<Recommendation>().unwrap();
    let mut shown = String::new();
    sealed
        .update(&sealer, &grant, &7, |changes| {
            changes.set::<order::taste>(name("canary"));
            shown = format!("{changes:?} {changes:#?}");
        })
        .unwrap();
    let request = by().requested_by("canary");
    write!(shown, "{request:?} {request:#?}").unwrap();
    let receipt = shop.forget(request);
    write!(shown, "{receipt:?}").unwrap();
    // As text, and as the bytes of its beginning.
    assert!(!shown.contains("canary") && !shown.contains("99, 97") && !shown.contains("99,\n"), "{shown}");
    assert!(!shown.contains(&format!("{:?}", receipt.opening)), "{shown}");
}

#[test]
fn abuse_18_a_revocation_holds_while_the_witness_is_out_of_reach_and_reaches_it_later() {
    let shop = Shop::open();
    let token = shop.token::<Shipping>();
    let grant = block_on(shop.vault.unlock::<Shipping>(&token, &shop.alice)).unwrap();
    let sealed = shop.sealed();
    let before = shop.store.snapshot();

    shop.keeper.witness_unreachable(true);
    block_on(shop.vault.revoke(Revoke::All, &shop.me, &shop.why)).unwrap();
    let revoked = Some(Error::Denied(Denied::Revoked));
    assert_eq!(sealed.open(&grant, &7).err(), revoked);
    assert_eq!(block_on(shop.vault.unlock::<Shipping>(&token, &shop.alice)).err(), revoked);
    // Nor does the next day, whose mark the witness cannot be told either.
    shop.clock.advance_days(1);
    assert_eq!(block_on(shop.vault.unlock::<Shipping>(&token, &shop.alice)).err(), revoked);
    assert!(!shop.forget(by()).witnessed);

    shop.keeper.witness_unreachable(false);
    let lines = || block_on(shop.keeper.recall(1)).unwrap().len();
    assert!(lines() < shop.rows(b"j").len());
    let reopened = shop.process(shop.store.clone()).unwrap();
    assert_eq!(lines(), shop.rows(b"j").len());
    assert_eq!(block_on(reopened.unlock::<Shipping>(&token, &shop.alice)).err(), revoked);
    assert!(matches!(shop.process(before), Err(Error::RolledBack(_))));
}

#[test]
fn what_the_witness_missed_goes_with_the_next_event_that_reaches_it() {
    let shop = Shop::open();
    shop.keeper.witness_unreachable(true);
    block_on(shop.vault.revoke(Revoke::All, &shop.me, &shop.why)).unwrap();
    shop.keeper.witness_unreachable(false);
    assert!(shop.forget(by()).witnessed);
    assert_eq!(block_on(shop.keeper.recall(1)).unwrap().len(), shop.rows(b"j").len());
}
