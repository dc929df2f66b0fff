//! What forgets, withdrawals, freezes and revocations say of tickets, in whatever order they come.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use customer_vault::error::{Denied, Erased, Halted};
use customer_vault::testing::FaultStore;

use super::*;

fn withdraw<P: Purpose>(shop: &Shop, who: &str) -> WithdrawReceipt {
    block_on(shop.vault.withdraw::<P>(&id(who), &shop.me, &shop.why)).unwrap()
}

#[test]
fn a_forget_says_until_when_tickets_live_and_no_ticket_is_given_after_it() {
    let shop = Shop::open();
    for who in ["alice", "bob", "carol"] {
        shop.enroll(who);
    }
    let sealed = shop.sealed("alice", 1);
    let scope = [TicketScope::of(&id("alice")).sealed(&sealed), TicketScope::of(&id("bob")).sealed(&sealed)];
    let late = shop.give::<Shipping>(HOUR, &scope).unwrap();
    shop.clock.advance(MINUTE);
    let sooner = shop.give::<Invoicing>(MINUTE, &scope).unwrap();
    assert!(sooner.ends_ms < late.ends_ms);
    let reader = shop.read::<Shipping>(&late.ticket).unwrap();

    // Another process, which was not there when they were given.
    let again = shop.reopen();
    let receipt = block_on(again.forget(&id("alice"), Forget::by(&shop.me, &shop.why))).unwrap();
    assert_eq!(receipt.tickets_until_ms, Some(late.ends_ms));
    assert_eq!(shop.forget("carol").tickets_until_ms, None);
    // That is what the receipt says: the ticket is beyond the vault's reach.
    let grant = reader.grant(&id("alice")).unwrap();
    assert_eq!(sealed.open(&grant, &1).unwrap().name().unwrap().expose(), "alice");
    shop.clock.set_wall(late.ends_ms - 1);
    assert!(sealed.open(&grant, &1).is_ok());
    shop.clock.set_wall(late.ends_ms);
    assert_eq!(sealed.open(&grant, &1).unwrap_err(), Denied::Expired.into());
    // Over for Bob too.
    assert_eq!(shop.forget("bob").tickets_until_ms, None);
    let after = shop.give::<Shipping>(HOUR, &scope);
    assert_eq!(after.unwrap_err(), Erased::Forgotten.into());
}

#[test]
fn what_stays_after_a_forget_may_be_given_and_undoing_and_forgetting_again_says_so() {
    let shop = Shop::open();
    shop.enroll("alice");
    let sealed = shop.sealed("alice", 1);
    let scope = [TicketScope::of(&id("alice")).sealed(&sealed)];
    let request = || Forget::by(&shop.me, &shop.why);
    assert_eq!(block_on(shop.vault.forget(&id("alice"), request())).unwrap().tickets_until_ms, None);
    let books = shop.give::<Invoicing>(MINUTE, &scope).unwrap();
    let grant = shop.read::<Invoicing>(&books.ticket).unwrap().grant(&id("alice")).unwrap();
    assert_eq!(sealed.open(&grant, &1).unwrap().name().unwrap().expose(), "alice");
    block_on(shop.vault.undo_forget(&id("alice"), &shop.me, &shop.why)).unwrap();
    let again = block_on(shop.vault.forget(&id("alice"), request())).unwrap();
    assert_eq!(again.tickets_until_ms, Some(books.ends_ms));
}

#[test]
fn a_purpose_that_is_kept_to_a_day_ends_for_a_reader_with_that_day() {
    let shop = Shop::open();
    shop.enroll("alice");
    let sealed = shop.sealed("alice", 1);
    let request = Forget::by(&shop.me, &shop.why).keeping::<Shipping>(shop.clock.today());
    block_on(shop.vault.forget(&id("alice"), request)).unwrap();
    shop.clock.advance(HOUR * 11 + MINUTE * 50);
    let scope = [TicketScope::of(&id("alice")).sealed(&sealed)];
    let given = shop.give::<Shipping>(HOUR, &scope).unwrap();
    let grant = shop.read::<Shipping>(&given.ticket).unwrap().grant(&id("alice")).unwrap();
    assert!(sealed.open(&grant, &1).unwrap().name().is_ok());
    shop.clock.advance(MINUTE * 11);
    assert_eq!(sealed.open(&grant, &1).unwrap().name().unwrap_err(), Absent::Withdrawn);
}

#[test]
fn a_day_that_ends_while_a_ticket_lives_is_over_for_its_reader() {
    let shop = Shop::open();
    shop.enroll("alice");
    let sealed = shop.sealed("alice", 1);
    shop.clock.advance_days(30);
    shop.clock.advance(HOUR * 11 + MINUTE * 50);
    let ticket = shop.ticket::<Shipping>(&[("alice", &sealed)]);
    let grant = shop.read::<Shipping>(&ticket).unwrap().grant(&id("alice")).unwrap();
    assert!(sealed.open(&grant, &1).unwrap().note().is_ok());
    let before = shop.now();
    shop.clock.advance(MINUTE * 11);
    assert_eq!(sealed.open(&grant, &1).unwrap().note().unwrap_err(), Absent::Expired);
    shop.clock.set_wall(before);
    let view = sealed.open(&grant, &1).unwrap();
    assert_eq!(view.note().unwrap_err(), Absent::Expired, "the clock was set back");
    assert!(view.name().is_ok());
}

#[test]
fn a_withdrawal_says_it_of_its_purpose_alone() {
    let shop = Shop::open();
    for who in ["alice", "bob"] {
        shop.enroll(who);
    }
    let sealed = shop.sealed("alice", 1);
    let scope = [TicketScope::of(&id("alice")).sealed(&sealed)];
    let given = shop.give::<Recommendation>(HOUR, &scope).unwrap();
    assert_eq!(withdraw::<Shipping>(&shop, "alice").tickets_until_ms, None);
    let receipt = withdraw::<Recommendation>(&shop, "alice");
    assert_eq!((receipt.tickets_until_ms, receipt.witnessed), (Some(given.ends_ms), true));
    assert_eq!(receipt.due, shop.clock.today().plus(7));
    assert_eq!(withdraw::<Recommendation>(&shop, "bob").tickets_until_ms, None);
    assert_eq!(shop.give::<Shipping>(HOUR, &scope).unwrap_err(), Erased::Purpose.into());
}

#[test]
fn a_freeze_and_a_revocation_stop_the_giving() {
    let shop = Shop::open();
    shop.enroll("alice");
    let sealed = shop.sealed("alice", 1);
    let scope = [TicketScope::of(&id("alice")).sealed(&sealed)];
    let token = shop.token::<Shipping>(Scope::everyone());
    let give = || block_on(shop.vault.ticket::<Shipping>(&token, &shop.key.recipient(), HOUR, &scope));
    block_on(shop.vault.freeze(&shop.me, &shop.why)).unwrap();
    assert_eq!(give().unwrap_err(), Halted::Frozen.into());
    block_on(shop.vault.unfreeze(&shop.me, &shop.why)).unwrap();
    assert!(give().is_ok());
    block_on(shop.vault.revoke(Revoke::All, &shop.me, &shop.why)).unwrap();
    assert_eq!(give().unwrap_err(), Denied::Revoked.into());
}

#[test]
fn a_ticket_ends_with_its_token_where_that_is_sooner() {
    let shop = Shop::open();
    shop.enroll("alice");
    let sealed = shop.sealed("alice", 1);
    let scope = [TicketScope::of(&id("alice")).sealed(&sealed)];
    let everyone = Scope::everyone();
    let token = block_on(shop.vault.issue::<Shipping>(&shop.me, &shop.why, MINUTE, everyone)).unwrap();
    let give = || block_on(shop.vault.ticket::<Shipping>(&token, &shop.key.recipient(), HOUR, &scope));
    assert_eq!(give().unwrap().ends_ms, token.unverified_expiry() * 1000);
    shop.clock.advance(MINUTE);
    assert_eq!(give().unwrap_err(), Denied::Expired.into());
}

/// The purposes for which tickets were given, in the certificate of a forget.
fn certified(shop: &Shop, receipt: &ForgetReceipt) -> String {
    block_on(shop.vault.shred(&shop.me, &shop.why)).unwrap();
    block_on(shop.vault.settle(&shop.me, &shop.why)).unwrap();
    let certificate = block_on(shop.vault.certificate(&receipt.reference)).unwrap().unwrap();
    let text = Certificate::verify(certificate.as_str(), &shop.vault.verifier_key().unwrap()).unwrap();
    text.lines().find_map(|line| line.strip_prefix("tickets given: ")).unwrap().to_owned()
}

#[test]
fn a_certificate_lists_the_purposes_for_which_tickets_were_given() {
    let shop = Shop::open();
    for who in ["alice", "bob"] {
        shop.enroll(who);
    }
    let sealed = shop.sealed("alice", 1);
    shop.ticket::<Shipping>(&[("alice", &sealed)]);
    shop.ticket::<Recommendation>(&[("alice", &sealed)]);
    // Withdrawn, destroyed, and over for long: it was given all the same.
    withdraw::<Recommendation>(&shop, "alice");
    shop.clock.advance_days(8);
    block_on(shop.vault.shred(&shop.me, &shop.why)).unwrap();
    withdraw::<Shipping>(&shop, "alice");
    shop.clock.advance_days(1);
    let receipt = block_on(shop.vault.forget(&id("alice"), Forget::by(&shop.me, &shop.why))).unwrap();
    assert_eq!(receipt.tickets_until_ms, None);
    // A shred between the forget and its own must not lose what the certificate has to say.
    shop.clock.advance_days(6);
    assert_eq!(block_on(shop.vault.shred(&shop.me, &shop.why)).unwrap().subjects, 1);
    shop.clock.advance_days(1);
    assert_eq!(certified(&shop, &receipt), "shipping, recommendation");

    let none = shop.forget("bob");
    assert_eq!(certified(&shop, &none), "none");
    // What a new enrolment gives is the new one's.
    block_on(shop.vault.enroll_again(&id("alice"), [], &shop.me, &shop.why)).unwrap();
    let again = shop.forget("alice");
    assert_eq!(certified(&shop, &again), "none");
}

/// What comes between, and what it says of a ticket.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Other {
    Forgets,
    Withdraws,
    Freezes,
}

/// Until when tickets live; a freeze does not say.
async fn other(what: Other, vault: &Vault) -> Option<i64> {
    let (me, why) = (tester(), test_ground());
    match what {
        Other::Forgets => vault.forget(&id("alice"), Forget::by(&me, &why)).await.unwrap().tickets_until_ms,
        Other::Withdraws => {
            vault.withdraw::<Recommendation>(&id("alice"), &me, &why).await.unwrap().tickets_until_ms
        }
        Other::Freezes => {
            vault.freeze(&me, &why).await.unwrap();
            None
        }
    }
}

struct Race {
    clock: ManualClock,
    one: Vault,
    two: Vault,
    store: FaultStore<MemoryStore>,
    token: Token,
    key: ReaderKey,
    scope: [TicketScope; 1],
}

impl Race {
    /// Two processes on one store; the calls of the first can be stopped.
    fn new() -> Race {
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let (shared, keeper) = (MemoryStore::shared_between_handles(), MemoryKeeper::new());
        let store = FaultStore::new(shared.clone());
        let options = || Options::new().record::<Order>().clock(clock.clone());
        let settings = Settings::default().height(1).unwrap();
        let new = options().settings(settings).create(store.clone(), keeper.clone(), keeper.clone());
        let one = block_on(new).unwrap();
        let two = block_on(options().open(shared, keeper.clone(), keeper)).unwrap();
        let (me, why) = (tester(), test_ground());
        let evidence = Evidence::of_notice(1, "We recommend goods.", "web", &me).unwrap();
        let consent = Consent::to::<Recommendation>(evidence);
        block_on(one.enroll(&id("alice"), [consent], &me, &why)).unwrap();
        let everyone = Scope::everyone();
        let token = block_on(one.issue::<Recommendation>(&me, &why, HOUR, everyone)).unwrap();
        let day = clock.today().plus(30);
        let scope = [TicketScope::of(&id("alice")).days(day, day)];
        Race { clock, one, two, store, token, key: ReaderKey::generate().unwrap(), scope }
    }

    async fn give(&self, vault: &Vault) -> Result<i64> {
        let (lifetime, recipient) = (MINUTE * 30, self.key.recipient());
        let given = vault.ticket::<Recommendation>(&self.token, &recipient, lifetime, &self.scope);
        given.await.map(|receipt| receipt.ends_ms)
    }

    /// Lets `meanwhile` run in the second process when the first makes its call number `at`; false where it makes fewer.
    fn stop_at<T: Send + 'static>(
        &self,
        at: usize,
        meanwhile: impl Future<Output = T> + Send + 'static,
    ) -> Arc<Mutex<Option<T>>> {
        let (calls, came) = (AtomicUsize::new(0), Arc::new(Mutex::new(None)));
        let (meanwhile, result) = (Mutex::new(Some(meanwhile)), Arc::clone(&came));
        self.store.before_each(move |_| {
            if calls.fetch_add(1, Ordering::SeqCst) == at
                && let Some(meanwhile) = meanwhile.lock().unwrap().take()
            {
                let result = Arc::clone(&result);
                return Box::pin(async move {
                    let came = meanwhile.await;
                    *result.lock().unwrap() = Some(came);
                });
            }
            Box::pin(std::future::ready(()))
        });
        came
    }
}

#[test]
fn at_whatever_call_of_a_ticket_a_forget_comes_it_is_refused_or_reported() {
    for what in [Other::Forgets, Other::Withdraws, Other::Freezes] {
        let (mut refused, mut given) = (0, 0);
        for at in 0.. {
            let race = Race::new();
            let two = race.two.clone();
            let until = race.stop_at(at, async move { other(what, &two).await });
            let ticket = block_on(race.give(&race.one));
            race.store.without_hook();
            let Some(until) = *until.lock().unwrap() else { break };
            match (ticket, what) {
                // Given while nothing had been taken away: then the forget was late enough to see it.
                (Ok(ends), Other::Forgets | Other::Withdraws) => {
                    assert_eq!(until, Some(ends), "{what:?} {at}");
                    given += 1;
                }
                (Ok(_), Other::Freezes) => given += 1,
                (Err(why), _) => {
                    let expected: &[Error] = match what {
                        Other::Forgets => &[Erased::Forgotten.into()],
                        Other::Withdraws => &[Erased::Purpose.into(), Erased::NoConsent.into()],
                        Other::Freezes => &[Halted::Frozen.into()],
                    };
                    assert!(expected.contains(&why), "{what:?} {at}: {why}");
                    assert_eq!(until, None);
                    refused += 1;
                }
            }
        }
        assert!(refused >= 2 && given >= 1, "{what:?}: {refused} refused, {given} given");
    }
}

#[test]
fn at_whatever_call_of_a_forget_a_ticket_comes_it_is_refused_or_reported() {
    for what in [Other::Forgets, Other::Withdraws] {
        let (mut refused, mut given) = (0, 0);
        for at in 0.. {
            let race = Arc::new(Race::new());
            let giving = Arc::clone(&race);
            let ticket = race.stop_at(at, async move { giving.give(&giving.two).await });
            let until = block_on(other(what, &race.one));
            race.store.without_hook();
            let Some(ticket) = ticket.lock().unwrap().take() else { break };
            match ticket {
                Ok(ends) => {
                    assert_eq!(until, Some(ends), "{what:?} {at}");
                    given += 1;
                }
                Err(Error::Erased(_)) => {
                    assert_eq!(until, None, "{what:?} {at}");
                    refused += 1;
                }
                Err(why) => panic!("{what:?} {at}: {why}"),
            }
            assert!(race.clock.wall() > 0);
        }
        assert!(given >= 1 && refused + given >= 2, "{what:?}: {refused} refused, {given} given");
    }
}

#[test]
fn a_ticket_that_cannot_be_written_down_is_not_given() {
    use customer_vault::error::StoreError;
    use customer_vault::testing::CommitFault;
    let race = Race::new();
    for fault in [CommitFault::Failed(StoreError::Full), CommitFault::KilledBefore] {
        race.store.fail_commit(0, fault);
        assert!(block_on(race.give(&race.one)).is_err());
        race.store.heal();
    }
    assert_eq!(block_on(other(Other::Forgets, &race.two)), None);
}
