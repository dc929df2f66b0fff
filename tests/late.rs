//! What comes late, what was ended and what forks: a token that is over before a value is renewed, a clock set back, an older
//! notice, a store that commits when it is polled.
#![cfg(feature = "testing")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    unreachable_pub,
    reason = "a test"
)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use customer_vault::clock::Clock;
use customer_vault::error::{Erased, StoreError};
use customer_vault::store::{Batch, CommitError, Key, MemoryStore, Page, Range, Store, Versioned};
use customer_vault::testing::{ManualClock, MemoryKeeper, test_ground, tester, yield_now};
use customer_vault::value::Bytes;
use customer_vault::{Day, Error, Evidence, Forget, Options, Revoke, Scope, SubjectId, purposes, record};
use pollster::block_on;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub Offers: Consent = 2 "offers";
}

record! {
    pub struct Note / SealedNote / NoteView in note = "note" {
        pub body: Bytes = 1 "body", basic, for [Shipping: 90 days, Offers: 30 days];
    }
}

/// Of one process; a commit is made when its future is polled, the second time where `slow` is on.
#[derive(Debug, Clone)]
struct Lazy {
    rows: MemoryStore,
    slow: Arc<AtomicBool>,
}

impl Lazy {
    fn new() -> Self {
        Lazy { rows: MemoryStore::new(), slow: Arc::new(AtomicBool::new(false)) }
    }
}

impl Store for Lazy {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        self.rows.read(keys).await
    }
    async fn scan(&self, range: Range, limit: usize) -> Result<Page, StoreError> {
        self.rows.scan(range, limit).await
    }
    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        if self.slow.load(Ordering::SeqCst) {
            yield_now().await;
        }
        self.rows.commit(batch).await
    }
    fn shared(&self) -> bool {
        false
    }
}

fn clock() -> ManualClock {
    ManualClock::at(Day::from_ymd(2026, 3, 2).unwrap())
}

fn options(clock: &ManualClock) -> Options {
    Options::new().record::<Note>().clock(clock.clone())
}

fn subject(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

#[test]
fn a_lane_does_not_fork_in_a_store_that_commits_when_polled() {
    let (clock, keeper, store) = (clock(), MemoryKeeper::new(), Lazy::new());
    let vault = block_on(options(&clock).create(store.clone(), keeper.clone(), keeper)).unwrap();
    let (me, why) = (tester(), test_ground());
    let ids = ["alice", "bob", "carol"].map(subject);
    for id in &ids {
        block_on(vault.enroll(id, [], &me, &why)).unwrap();
    }
    let day = Duration::from_secs(86_400);
    let token = block_on(vault.issue::<Shipping>(&me, &why, day, Scope::everyone())).unwrap();
    let other = block_on(vault.issue::<Shipping>(&me, &why, day, Scope::everyone())).unwrap();
    drop(block_on(vault.unlock::<Shipping>(&token, &ids[0])).unwrap());
    let before = block_on(vault.log()).unwrap().len();

    let mut context = Context::from_waker(Waker::noop());
    store.slow.store(true, Ordering::SeqCst);
    let mut unlock = pin!(vault.unlock::<Shipping>(&token, &ids[0]));
    let mut one = pin!(vault.status(&ids[1], &me, &why));
    let mut two = pin!(vault.status(&ids[2], &me, &why));
    assert!(unlock.as_mut().poll(&mut context).is_pending());
    assert!(one.as_mut().poll(&mut context).is_pending());
    assert!(two.as_mut().poll(&mut context).is_pending());
    store.slow.store(false, Ordering::SeqCst);
    // The fence row moves: the unlock was decided too early.
    block_on(vault.revoke(Revoke::Token(other.unverified_id()), &me, &why)).unwrap();
    let Poll::Ready(unlocked) = unlock.as_mut().poll(&mut context) else { panic!("pending") };
    unlocked.unwrap();
    let Poll::Ready(first) = one.as_mut().poll(&mut context) else { panic!("pending") };
    first.unwrap();
    let Poll::Ready(second) = two.as_mut().poll(&mut context) else { panic!("pending") };
    second.unwrap();
    let log = block_on(vault.log()).unwrap();
    let report = block_on(vault.verify_log()).unwrap();
    assert!(report.holds(), "{report:?}");
    assert_eq!(log.len() - before, 4);
}

#[test]
fn what_was_kept_to_a_day_does_not_open_again_when_the_clock_is_set_back() {
    for entries in [0, 10] {
        let (clock, keeper, store) = (clock(), MemoryKeeper::new(), MemoryStore::new());
        let making = options(&clock).remember(entries, Duration::from_secs(86_400 * 30));
        let vault = block_on(making.create(store, keeper.clone(), keeper)).unwrap();
        let (me, why, id) = (tester(), test_ground(), subject("alice"));
        block_on(vault.enroll(&id, [], &me, &why)).unwrap();
        let sealer = block_on(vault.sealer::<Note>(&id, &me, &why)).unwrap();
        let sealed = sealer.seal(Note { body: Bytes::parse(b"hello").unwrap() }).unwrap();
        let month = Duration::from_secs(86_400 * 30);
        let token = block_on(vault.issue::<Shipping>(&me, &why, month, Scope::everyone())).unwrap();
        let keeping = Forget::by(&me, &why).keeping::<Shipping>(clock.today().plus(1));
        block_on(vault.forget(&id, keeping)).unwrap();
        let unlock = || block_on(vault.unlock::<Shipping>(&token, &id));
        let held = unlock().unwrap();
        drop(sealed.open(&held).unwrap());
        let start = clock.wall();
        clock.advance_days(3);
        assert_eq!(unlock().unwrap_err(), Error::Erased(Erased::Forgotten));
        // The mark of time says that yesterday is over.
        clock.set_wall(start + 86_400_000);
        let by_held = sealed.open(&held).map(|view| view.body.map(|b| b.expose().to_vec()));
        let again =
            unlock().and_then(|grant| sealed.open(&grant)).map(|v| v.body.map(|b| b.expose().to_vec()));
        assert!(!matches!(again, Ok(Ok(_))), "opened after its day, remembering {entries}");
        assert!(!matches!(by_held, Ok(Ok(_))), "opened by a held grant");
    }
}

#[test]
fn after_a_recover_nothing_stands_by_a_consent_that_was_replaced_by_an_older_notice() {
    let (clock, keeper, store) = (clock(), MemoryKeeper::new(), MemoryStore::new());
    let vault = block_on(options(&clock).create(store.clone(), keeper.clone(), keeper.clone())).unwrap();
    let (me, why, id) = (tester(), test_ground(), subject("alice"));
    let evidence = |version| Evidence::of_notice(version, "We send you offers.", "web", &me).unwrap();
    block_on(vault.enroll(&id, [], &me, &why)).unwrap();
    block_on(vault.require_notice::<Offers>(2, &me, &why)).unwrap();
    block_on(vault.consent::<Offers>(&id, evidence(2), &me, &why)).unwrap();
    let month = Duration::from_secs(86_400 * 30);
    let token = block_on(vault.issue::<Offers>(&me, &why, month, Scope::everyone())).unwrap();
    drop(block_on(vault.unlock::<Offers>(&token, &id)).unwrap());
    let copy = store.snapshot();
    block_on(vault.consent::<Offers>(&id, evidence(1), &me, &why)).unwrap();
    assert_eq!(block_on(vault.unlock::<Offers>(&token, &id)).unwrap_err(), Error::Erased(Erased::Purpose));
    drop(vault);
    let vault = block_on(options(&clock).recover(copy, keeper.clone(), keeper, &me, &why)).unwrap();
    let unlocked = block_on(vault.unlock::<Offers>(&token, &id));
    assert!(unlocked.is_err(), "{unlocked:?}: given back by the recover");
}

#[test]
fn renewing_ends_with_the_token() {
    for revoked in [false, true] {
        let (clock, keeper, store) = (clock(), MemoryKeeper::new(), Lazy::new());
        let vault = block_on(options(&clock).create(store.clone(), keeper.clone(), keeper)).unwrap();
        let (me, why, id) = (tester(), test_ground(), subject("alice"));
        block_on(vault.enroll(&id, [], &me, &why)).unwrap();
        let sealer = block_on(vault.sealer::<Note>(&id, &me, &why)).unwrap();
        let sealed = sealer.seal(Note { body: Bytes::parse(b"hello").unwrap() }).unwrap();
        let minute = Duration::from_secs(60);
        let token = block_on(vault.issue::<Shipping>(&me, &why, minute, Scope::everyone())).unwrap();
        let grant = block_on(vault.unlock::<Shipping>(&token, &id)).unwrap();
        let today = clock.today();
        let mut context = Context::from_waker(Waker::noop());
        store.slow.store(true, Ordering::SeqCst);
        let mut renew = pin!(sealed.renew(&sealer, &grant, today, &me, &why));
        assert!(renew.as_mut().poll(&mut context).is_pending());
        store.slow.store(false, Ordering::SeqCst);
        if revoked {
            block_on(vault.revoke(Revoke::Token(token.unverified_id()), &me, &why)).unwrap();
        } else {
            clock.advance(Duration::from_secs(3600));
        }
        let Poll::Ready(renewed) = renew.as_mut().poll(&mut context) else { panic!("pending") };
        assert!(sealed.open(&grant).is_err());
        assert!(matches!(renewed, Err(Error::Denied(_))), "revoked: {revoked}");
    }
}

#[test]
fn updating_ends_with_the_token() {
    let (clock, keeper, store) = (clock(), MemoryKeeper::new(), MemoryStore::new());
    let vault = block_on(options(&clock).create(store, keeper.clone(), keeper)).unwrap();
    let (me, why, id) = (tester(), test_ground(), subject("alice"));
    block_on(vault.enroll(&id, [], &me, &why)).unwrap();
    let sealer = block_on(vault.sealer::<Note>(&id, &me, &why)).unwrap();
    let sealed = sealer.seal(Note { body: Bytes::parse(b"hello").unwrap() }).unwrap();
    let minute = Duration::from_secs(60);
    let token = block_on(vault.issue::<Shipping>(&me, &why, minute, Scope::everyone())).unwrap();
    let grant = block_on(vault.unlock::<Shipping>(&token, &id)).unwrap();
    let updated = sealed.update(&sealer, &grant, |change| {
        change.set::<note::body>(Bytes::parse(b"other").unwrap());
        clock.advance(Duration::from_secs(3600));
    });
    assert!(updated.is_err(), "its token has expired meanwhile");
}

static SEEN: std::sync::Mutex<Vec<Vec<u8>>> = std::sync::Mutex::new(Vec::new());

#[derive(Debug)]
pub struct Spy(Vec<u8>);

impl customer_vault::Value for Spy {
    fn encoded_len(&self) -> usize {
        self.0.len()
    }
    fn encode(&self, out: &mut customer_vault::Encoder<'_>) {
        out.put(&self.0);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        SEEN.lock().unwrap().push(bytes.to_vec());
        Some(Spy(bytes.to_vec()))
    }
}

record! {
    pub struct Watched / SealedWatched / WatchedView in watched = "watched" {
        pub body: Spy = 1 "body", basic, for [Shipping: 90 days];
    }
}

#[test]
fn a_value_of_the_shop_s_own_is_shown_nothing_after_a_forget() {
    let (clock, keeper, store) = (clock(), MemoryKeeper::new(), MemoryStore::new());
    let vault = block_on(options(&clock).record::<Watched>().create(store, keeper.clone(), keeper)).unwrap();
    let (me, why, id) = (tester(), test_ground(), subject("alice"));
    block_on(vault.enroll(&id, [], &me, &why)).unwrap();
    let sealer = block_on(vault.sealer::<Watched>(&id, &me, &why)).unwrap();
    let sealed = sealer.seal(Watched { body: Spy(b"hello".to_vec()) }).unwrap();
    let token =
        block_on(vault.issue::<Shipping>(&me, &why, Duration::from_secs(60), Scope::everyone())).unwrap();
    let grant = block_on(vault.unlock::<Shipping>(&token, &id)).unwrap();
    block_on(vault.forget(&id, Forget::by(&me, &why))).unwrap();
    assert!(sealed.open(&grant).is_err());
    let seen = SEEN.lock().unwrap().len();
    clock.advance(Duration::from_secs(3600));
    assert!(sealed.open(&grant).is_err());
    assert_eq!(seen, 0, "decoded after the forget had returned");
}
