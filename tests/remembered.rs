//! Unlocking those who are remembered: without a read of the store, and never what somebody has taken away since.
#![cfg(feature = "testing")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "a test"
)]

use std::time::Duration;

use customer_vault::error::{Denied, Erased, Halted};
use customer_vault::store::MemoryStore;
use customer_vault::testing::{Counts, FaultStore, ManualClock, MemoryKeeper, test_ground, tester};
use customer_vault::value::Bytes;
use customer_vault::{
    Day, Error, Evidence, Forget, Grant, Options, Purpose, Revoke, Scope, SubjectId, Token, Vault, purposes,
    record,
};
use pollster::block_on;

purposes! {
    Shipping: Contract = 1 "shipping";
    Offers: Consent = 2 "offers";
    Books: LegalObligation = 3 "books";
}

record! {
    struct Note / SealedNote / NoteView in note = "note" {
        body: Bytes = 1 "body", basic, for [Shipping: 90 days, Offers: 30 days, Books: 1 year];
    }
}

/// Two processes on one store, or one alone.
struct Shop {
    store: FaultStore<MemoryStore>,
    keeper: MemoryKeeper,
    clock: ManualClock,
    here: Vault,
    id: SubjectId,
}

fn options(clock: &ManualClock) -> Options {
    Options::new().record::<Note>().clock(clock.clone())
}

impl Shop {
    fn new(shared: bool, set: impl Fn(Options) -> Options) -> Self {
        let rows = if shared { MemoryStore::shared_between_handles() } else { MemoryStore::new() };
        let (store, keeper) = (FaultStore::new(rows), MemoryKeeper::new());
        let clock = ManualClock::at(Day::from_ymd(2026, 3, 2).unwrap());
        let making = set(options(&clock)).create(store.clone(), keeper.clone(), keeper.clone());
        let (here, id) = (block_on(making).unwrap(), subject("alice"));
        block_on(here.enroll(&id, [], &tester(), &test_ground())).unwrap();
        Shop { store, keeper, clock, here, id }
    }

    /// Another process, whose store is not counted.
    fn another(&self) -> Vault {
        let keeper = self.keeper.clone();
        block_on(options(&self.clock).open(self.store.inner().clone(), keeper.clone(), keeper)).unwrap()
    }

    fn token<P: Purpose>(&self) -> Token {
        let day = Duration::from_secs(86_400 * 30);
        block_on(self.here.issue::<P>(&tester(), &test_ground(), day, Scope::everyone())).unwrap()
    }

    fn unlock<P: Purpose>(&self, token: &Token) -> Result<Grant<P>, Error> {
        block_on(self.here.unlock::<P>(token, &self.id))
    }

    /// What the store was asked while `work` was done.
    fn asked<T>(&self, work: impl FnOnce() -> T) -> (Counts, T) {
        let before = self.store.counts();
        let done = work();
        (self.store.counts() - before, done)
    }

    /// Whether unlocking reads nothing.
    fn remembers<P: Purpose>(&self, token: &Token) -> bool {
        let (asked, grant) = self.asked(|| self.unlock::<P>(token));
        grant.unwrap();
        assert_eq!((asked.commits, asked.conflicts), (1, 0));
        asked.reads == 0 && asked.scans == 0
    }
}

fn subject(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

fn evidence(version: u32) -> Evidence {
    Evidence::of_notice(version, "We send you offers.", "web", &tester()).unwrap()
}

#[test]
fn a_second_unlock_reads_nothing_and_opens_the_same() {
    for shared in [false, true] {
        let shop = Shop::new(shared, |options| options);
        let (vault, id) = (&shop.here, &shop.id);
        let sealer = block_on(vault.sealer::<Note>(id, &tester(), &test_ground())).unwrap();
        let sealed = sealer.seal(Note { body: Bytes::parse(b"hello").unwrap() }).unwrap();
        let token = shop.token::<Shipping>();
        drop(shop.unlock::<Shipping>(&token).unwrap());
        let (asked, grant) = shop.asked(|| shop.unlock::<Shipping>(&token).unwrap());
        assert_eq!(
            (asked.reads, asked.scans, asked.commits, asked.rows_written),
            (0, 0, 1, 2),
            "an entry of the log and the head of its lane"
        );
        let opened = sealed.open(&grant).unwrap();
        assert_eq!(opened.body.unwrap().expose(), b"hello");
        // Who was remembered for one purpose is not for another.
        let books = shop.token::<Books>();
        let (asked, _) = shop.asked(|| shop.unlock::<Books>(&books).unwrap());
        assert_eq!(asked.reads, 1);
        let log = block_on(vault.log()).unwrap();
        let unlocks: Vec<_> = log.iter().filter(|entry| entry.action().label() == "unlock").collect();
        assert_eq!(unlocks.len(), 3);
        assert!(unlocks.iter().all(|entry| entry.subjects() == unlocks[0].subjects()));
        assert_eq!(unlocks[0].subjects().len(), 1);
    }
}

#[test]
fn nobody_is_remembered_where_that_is_switched_off() {
    let shop = Shop::new(false, |options| options.remember(0, Duration::from_secs(60)));
    let token = shop.token::<Shipping>();
    drop(shop.unlock::<Shipping>(&token).unwrap());
    for _ in 0..3 {
        assert!(!shop.remembers::<Shipping>(&token));
    }
}

#[test]
fn of_many_only_those_are_read_who_are_not_remembered() {
    let shop = Shop::new(true, |options| options);
    let ids: Vec<SubjectId> = (0..6).map(|number| subject(&format!("customer {number}"))).collect();
    for id in &ids {
        block_on(shop.here.enroll(id, [], &tester(), &test_ground())).unwrap();
    }
    let token = shop.token::<Shipping>();
    let many = |ids: &[SubjectId]| block_on(shop.here.unlock_many::<Shipping>(&token, ids)).unwrap();
    assert!(many(&ids[..4]).iter().all(Result::is_ok));
    let (asked, given) = shop.asked(|| many(&ids[..4]));
    assert!(given.iter().all(Result::is_ok));
    assert_eq!((asked.reads, asked.commits), (0, 1));

    let mut mixed = vec![ids[5].clone(), ids[0].clone(), subject("nobody"), ids[1].clone(), ids[5].clone()];
    let (asked, given) = shop.asked(|| many(&mixed));
    assert_eq!((asked.reads, asked.commits, asked.conflicts), (1, 1, 0));
    assert_eq!(given[2].as_ref().unwrap_err(), &Error::NotEnrolled);
    assert_eq!(given.iter().filter(|one| one.is_ok()).count(), 4);

    // What another process has taken away meanwhile shows although the others are remembered.
    let there = shop.another();
    block_on(there.forget(&ids[0], Forget::by(&tester(), &test_ground()))).unwrap();
    for _ in 0..2 {
        let given = many(&mixed);
        assert_eq!(given[1].as_ref().unwrap_err(), &Error::Erased(Erased::Forgotten));
        assert_eq!(given.iter().filter(|one| one.is_ok()).count(), 3);
    }
    mixed.remove(2);
    mixed.remove(1);
    let (asked, given) = shop.asked(|| many(&mixed));
    assert!(given.iter().all(Result::is_ok));
    assert_eq!(asked.reads, 0, "the others are remembered still");
}

/// Something that takes away, in this process or another.
type Takes = fn(&Vault, &SubjectId, &Token);

fn takes() -> Vec<(&'static str, Takes, Error)> {
    fn forget(vault: &Vault, id: &SubjectId, _: &Token) {
        block_on(vault.forget(id, Forget::by(&tester(), &test_ground()))).unwrap();
    }
    fn withdraw(vault: &Vault, id: &SubjectId, _: &Token) {
        block_on(vault.withdraw::<Shipping>(id, &tester(), &test_ground())).unwrap();
    }
    fn freeze(vault: &Vault, _: &SubjectId, _: &Token) {
        block_on(vault.freeze(&tester(), &test_ground())).unwrap();
    }
    fn revoke(vault: &Vault, what: Revoke) {
        block_on(vault.revoke(what, &tester(), &test_ground())).unwrap();
    }
    fn forget_for_good(vault: &Vault, id: &SubjectId, _: &Token) {
        let request = Forget::by(&tester(), &test_ground()).without_grace();
        block_on(vault.forget(id, request)).unwrap();
        block_on(vault.shred(&tester(), &test_ground())).unwrap();
        block_on(vault.settle(&tester(), &test_ground())).unwrap();
    }
    fn forget_and_undo(vault: &Vault, id: &SubjectId, token: &Token) {
        forget(vault, id, token);
        block_on(vault.undo_forget(id, &tester(), &test_ground())).unwrap();
        forget(vault, id, token);
    }
    vec![
        ("forget", forget, Erased::Forgotten.into()),
        ("withdraw", withdraw, Erased::Purpose.into()),
        ("freeze", freeze, Halted::Frozen.into()),
        (
            "revoke the token",
            |vault, _, token| revoke(vault, Revoke::Token(token.unverified_id())),
            Denied::Revoked.into(),
        ),
        ("revoke the actor", |vault, _, _| revoke(vault, Revoke::Actor(tester())), Denied::Revoked.into()),
        ("revoke all", |vault, _, _| revoke(vault, Revoke::All), Denied::Revoked.into()),
        ("forget for good", forget_for_good, Erased::Forgotten.into()),
        ("forget, undo, forget", forget_and_undo, Erased::Forgotten.into()),
    ]
}

#[test]
fn what_is_taken_away_here_or_in_another_process_is_never_given_from_memory() {
    for (name, take, why) in takes() {
        for there in [false, true] {
            let shop = Shop::new(there, |options| options);
            let token = shop.token::<Shipping>();
            drop(shop.unlock::<Shipping>(&token).unwrap());
            let another = there.then(|| shop.another());
            if !there {
                assert!(shop.remembers::<Shipping>(&token), "{name}");
            }
            take(another.as_ref().unwrap_or(&shop.here), &shop.id, &token);
            for _ in 0..3 {
                assert_eq!(shop.unlock::<Shipping>(&token).unwrap_err(), why, "{name}, another: {there}");
            }
        }
    }
}

#[test]
fn what_is_taken_away_between_the_decision_and_its_commit_is_not_given() {
    for (name, take, why) in takes() {
        let shop = Shop::new(true, |options| options);
        let token = shop.token::<Shipping>();
        drop(shop.unlock::<Shipping>(&token).unwrap());
        assert!(shop.remembers::<Shipping>(&token), "{name}");
        let (there, id, copy) = (shop.another(), shop.id.clone(), Token::parse(token.expose()).unwrap());
        drop(shop.unlock::<Shipping>(&token).unwrap());
        assert!(shop.remembers::<Shipping>(&token), "{name}");
        let once = std::sync::atomic::AtomicBool::new(true);
        shop.store.before_each(move |call| {
            if matches!(call, customer_vault::testing::Call::Commit(_))
                && once.swap(false, std::sync::atomic::Ordering::SeqCst)
            {
                take(&there, &id, &copy);
            }
            Box::pin(std::future::ready(()))
        });
        let (asked, refused) = shop.asked(|| shop.unlock::<Shipping>(&token));
        assert_eq!(refused.unwrap_err(), why, "{name}");
        assert!(asked.conflicts >= 1, "{name}: decided from memory, and refused by the commit");
    }
}

#[test]
fn a_consent_that_another_process_was_given_opens_at_once_and_a_lower_one_closes() {
    let shop = Shop::new(true, |options| options);
    let there = shop.another();
    let token = shop.token::<Offers>();
    for _ in 0..2 {
        assert_eq!(shop.unlock::<Offers>(&token).unwrap_err(), Error::Erased(Erased::NoConsent));
    }
    block_on(there.consent::<Offers>(&shop.id, evidence(2), &tester(), &test_ground())).unwrap();
    drop(shop.unlock::<Offers>(&token).unwrap());
    assert!(shop.remembers::<Offers>(&token));

    // A newer notice ends what was agreed to before, and the consent to it is seen at once.
    block_on(there.require_notice::<Offers>(3, &tester(), &test_ground())).unwrap();
    for _ in 0..2 {
        assert_eq!(shop.unlock::<Offers>(&token).unwrap_err(), Error::Erased(Erased::Purpose));
    }
    block_on(there.consent::<Offers>(&shop.id, evidence(3), &tester(), &test_ground())).unwrap();
    drop(shop.unlock::<Offers>(&token).unwrap());
    assert!(shop.remembers::<Offers>(&token));

    // Recorded later, about an older notice: what counts now is not enough. When that returns, no grant of another process
    // goes on by the newer one.
    let sealer = block_on(there.sealer::<Note>(&shop.id, &tester(), &test_ground())).unwrap();
    let sealed = sealer.seal(Note { body: Bytes::parse(b"new").unwrap() }).unwrap();
    let grant = shop.unlock::<Offers>(&token).unwrap();
    assert!(sealed.open(&grant).is_ok());
    block_on(there.consent::<Offers>(&shop.id, evidence(1), &tester(), &test_ground())).unwrap();
    assert!(sealed.open(&grant).is_err());
    for _ in 0..2 {
        assert_eq!(shop.unlock::<Offers>(&token).unwrap_err(), Error::Erased(Erased::Purpose));
    }
}

#[test]
fn what_the_newest_enrolment_was_given_since_is_not_missing() {
    let shop = Shop::new(true, |options| options);
    let (there, id) = (shop.another(), &shop.id);
    let (me, why) = (tester(), test_ground());
    block_on(there.consent::<Offers>(id, evidence(1), &me, &why)).unwrap();
    let until = shop.clock.today().plus(40);
    let keeping = Forget::by(&me, &why).keeping::<Offers>(until);
    block_on(there.forget(id, keeping)).unwrap();
    block_on(there.enroll_again(id, [], &me, &why)).unwrap();
    let token = shop.token::<Offers>();
    // The former enrolment's alone.
    drop(shop.unlock::<Offers>(&token).unwrap());
    block_on(there.consent::<Offers>(id, evidence(1), &me, &why)).unwrap();
    let sealer = block_on(there.sealer::<Note>(id, &me, &why)).unwrap();
    let sealed = sealer.seal(Note { body: Bytes::parse(b"new").unwrap() }).unwrap();
    let grant = shop.unlock::<Offers>(&token).unwrap();
    assert_eq!(sealed.open(&grant).unwrap().body.unwrap().expose(), b"new");
    assert!(shop.remembers::<Offers>(&token));
    // The kept one ends by its day, without an event.
    shop.clock.advance_days(7);
    drop(shop.unlock::<Offers>(&token).unwrap());
}

#[test]
fn what_is_kept_for_some_days_ends_with_them_in_memory_too() {
    let shop = Shop::new(false, |options| options.remember(10, Duration::from_secs(86_400 * 30)));
    let until = shop.clock.today().plus(1);
    let keeping = Forget::by(&tester(), &test_ground()).keeping::<Shipping>(until);
    block_on(shop.here.forget(&shop.id, keeping)).unwrap();
    let token = shop.token::<Shipping>();
    drop(shop.unlock::<Shipping>(&token).unwrap());
    assert!(shop.remembers::<Shipping>(&token));
    shop.clock.advance_days(1);
    drop(shop.unlock::<Shipping>(&token).unwrap());
    shop.clock.advance_days(1);
    for _ in 0..2 {
        assert_eq!(shop.unlock::<Shipping>(&token).unwrap_err(), Error::Erased(Erased::Forgotten));
    }
}

#[test]
fn a_grant_from_memory_is_as_fresh_as_its_commit() {
    let shop = Shop::new(true, |options| options);
    let token = shop.token::<Shipping>();
    let first = shop.unlock::<Shipping>(&token).unwrap();
    let sealer = block_on(shop.here.sealer::<Note>(&shop.id, &tester(), &test_ground())).unwrap();
    let sealed = sealer.seal(Note { body: Bytes::parse(&[1]).unwrap() }).unwrap();
    // The bound is a second.
    shop.clock.advance(Duration::from_millis(900));
    let second = shop.unlock::<Shipping>(&token).unwrap();
    shop.clock.advance(Duration::from_millis(900));
    assert_eq!(sealed.open(&first).unwrap_err(), Error::Stale);
    drop(sealed.open(&second).unwrap());
    shop.clock.advance(Duration::from_millis(200));
    assert_eq!(sealed.open(&second).unwrap_err(), Error::Stale);
}

#[test]
fn who_is_crowded_out_or_too_old_is_read_again() {
    let shop = Shop::new(false, |options| options.remember(2, Duration::from_secs(10)));
    let token = shop.token::<Shipping>();
    let others = [subject("bob"), subject("carol")];
    for id in &others {
        block_on(shop.here.enroll(id, [], &tester(), &test_ground())).unwrap();
    }
    let reads = |id: &SubjectId| {
        let (asked, grant) = shop.asked(|| block_on(shop.here.unlock::<Shipping>(&token, id)));
        grant.unwrap();
        asked.reads
    };
    let [bob, carol] = &others;
    assert_eq!((reads(&shop.id), reads(bob)), (1, 1));
    assert_eq!((reads(bob), reads(bob)), (0, 0));
    // Alice was not asked for since, Bob was: she goes.
    assert_eq!((reads(carol), reads(bob), reads(carol)), (1, 0, 0));
    assert_eq!(reads(&shop.id), 1);
    shop.clock.advance(Duration::from_secs(9));
    assert_eq!(reads(&shop.id), 0);
    shop.clock.advance(Duration::from_secs(1));
    assert_eq!((reads(&shop.id), reads(&shop.id)), (1, 0));
}

#[test]
fn the_last_use_of_a_token_is_written_once_a_minute_although_nothing_is_read() {
    let shop = Shop::new(false, |options| options.remember(10, Duration::from_secs(3600)));
    let token = shop.token::<Shipping>();
    drop(shop.unlock::<Shipping>(&token).unwrap());
    let last = || block_on(shop.here.tokens()).unwrap().first().unwrap().last_used_ms.unwrap();
    let first = last();
    assert!(shop.remembers::<Shipping>(&token));
    assert_eq!(last(), first);
    shop.clock.advance(Duration::from_secs(61));
    let (asked, _) = shop.asked(|| shop.unlock::<Shipping>(&token).unwrap());
    assert_eq!((asked.reads, asked.rows_read, asked.commits), (1, 1, 2), "its row alone");
    assert_eq!(last(), first + 60_000);
    assert!(shop.remembers::<Shipping>(&token));
}
