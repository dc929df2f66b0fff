//! Shreds that meet holds, other shreds, and death, at the one moment that hurts.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::*;
use customer_vault::testing::{Call, CommitFault, FaultStore};

record! {
    /// Kept for nothing but its way.
    pub struct Parcel[u64] / SealedParcel / ParcelView in parcel = "parcel" {
        /// On the label.
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days];
    }
}

/// Two processes on one database, each through a store that can be stopped.
struct Depot {
    store: MemoryStore,
    clock: ManualClock,
    stores: [FaultStore<MemoryStore>; 2],
    vaults: [Vault; 2],
    me: Actor,
    why: Ground,
}

impl Depot {
    fn open(height: u8) -> Depot {
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let (store, keeper) = (MemoryStore::shared_between_handles(), MemoryKeeper::new());
        let options = || {
            let settings = Settings::default().height(height).unwrap();
            Options::new().record::<Parcel>().clock(clock.clone()).settings(settings)
        };
        drop(block_on(options().create(store.clone(), keeper.clone(), keeper.clone())).unwrap());
        let stores = [FaultStore::new(store.clone()), FaultStore::new(store.clone())];
        let vaults = stores
            .clone()
            .map(|store| block_on(options().open(store, keeper.clone(), keeper.clone())).unwrap());
        let depot = Depot { store, clock, stores, vaults, me: tester(), why: test_ground() };
        for subject in ["alice", "bob", "carol"] {
            block_on(depot.vaults[0].enroll(&id(subject), [], &depot.me, &depot.why)).unwrap();
        }
        depot
    }

    /// With three parcels in the store, and forgotten.
    fn forgotten(&self, subject: &SubjectId) -> SealedParcel {
        let [vault, _] = &self.vaults;
        let sealer = block_on(vault.sealer::<Parcel>(subject, &self.me, &self.why)).unwrap();
        let sealed = sealer.seal(Parcel { name: name("Alice") }, &1).unwrap();
        for number in 1..4_u64 {
            block_on(vault.put(subject, &number, &sealed, &self.me, &self.why)).unwrap();
        }
        block_on(vault.forget(subject, by().without_grace())).unwrap();
        sealed
    }

    fn count(&self, prefix: &[u8]) -> usize {
        rows_of(&self.store, prefix).len()
    }

    /// Weeks pass; how many certificates come of it.
    fn certificates_after(&self, weeks: u32) -> usize {
        let [_, vault] = &self.vaults;
        let mut certificates = 0;
        for _ in 0..weeks {
            self.clock.advance_days(7);
            block_on(vault.expire(&self.me, &self.why)).unwrap();
            certificates += block_on(vault.settle(&self.me, &self.why)).unwrap().certificates.len();
        }
        certificates
    }
}

/// Whether a batch writes (or deletes) a row of this kind.
fn touches(batch: &Batch, kind: u8) -> bool {
    batch.writes.iter().any(|(name, _)| name[0] == kind)
}

fn removes_keys(batch: &Batch) -> bool {
    touches(batch, b's') && touches(batch, b'p')
}

fn sweeps(batch: &Batch) -> bool {
    batch.writes.iter().any(|(name, value)| name[0] == b'v' && value.is_none())
}

/// Carries out a shred and places a hold right before its first commit of this kind.
fn hold_before(depot: &Depot, moment: fn(&Batch) -> bool) -> SealedParcel {
    let sealed = depot.forgotten(&id("alice"));
    let (done, vault) = (Arc::new(AtomicBool::new(false)), depot.vaults[0].clone());
    let held = Arc::clone(&done);
    depot.stores[1].before_each(move |call| {
        let hit = matches!(call, Call::Commit(batch) if moment(batch));
        if !hit || done.swap(true, SeqCst) {
            return Box::pin(async {});
        }
        let vault = vault.clone();
        Box::pin(async move { vault.hold(&id("alice"), &tester(), &test_ground()).await.unwrap() })
    });
    block_on(depot.vaults[1].shred(&depot.me, &depot.why)).unwrap();
    depot.stores[1].without_hook();
    assert!(held.load(SeqCst));
    sealed
}

#[test]
fn abuse_32_a_hold_placed_while_shredding_keeps_keys_and_records() {
    let depot = Depot::open(1);
    let sealed = hold_before(&depot, removes_keys);
    let [vault, _] = &depot.vaults;
    let everyone = Scope::everyone();
    let token = block_on(vault.issue::<LegalHold>(&depot.me, &depot.why, YEAR, everyone)).unwrap();
    let grant = block_on(vault.unlock::<LegalHold>(&token, &id("alice"))).unwrap();
    assert!(sealed.open(&grant, &1).unwrap().name().is_ok());
    assert_eq!(depot.count(b"v"), 3);
    assert!(block_on(vault.get::<Parcel>(&id("alice"), &1, &depot.me, &depot.why)).unwrap().is_some());
    assert_eq!(block_on(vault.list::<Parcel, u64>(&id("alice"), &depot.me, &depot.why)).unwrap().len(), 3);
}

#[test]
fn abuse_32_a_hold_placed_while_records_are_swept_keeps_them_all_or_finds_none() {
    let depot = Depot::open(1);
    hold_before(&depot, sweeps);
    assert_eq!(depot.count(b"v"), 3);
    // The hold came after the last key was destroyed, and what wraps the rows with it: they are whole, and say nothing.
    let listed = block_on(depot.vaults[0].list::<Parcel, u64>(&id("alice"), &depot.me, &depot.why));
    assert_eq!(listed.unwrap().len(), 0);
}

#[test]
fn abuse_36_what_a_kill_between_removal_and_sweep_leaves_of_the_records_the_next_shred_deletes() {
    let depot = Depot::open(1);
    drop(depot.forgotten(&id("alice")));
    let killer = depot.stores[1].clone();
    depot.stores[1].before_each(move |call| {
        if matches!(call, Call::Commit(batch) if sweeps(batch)) {
            killer.fail_commit(0, CommitFault::KilledBefore);
        }
        Box::pin(async {})
    });
    assert!(block_on(depot.vaults[1].shred(&depot.me, &depot.why)).is_err());
    assert!(depot.stores[1].killed());
    assert_eq!((depot.count(b"v"), depot.count(b"u")), (3, 1));
    // Another process has nothing else to do, and finishes it.
    assert_eq!(block_on(depot.vaults[0].shred(&depot.me, &depot.why)).unwrap().subjects, 0);
    assert_eq!((depot.count(b"v"), depot.count(b"u"), depot.count(b"G")), (0, 0, 0));
}

type Run = Arc<Mutex<Pin<Box<dyn Future<Output = Result<ShredReceipt>> + Send>>>>;

/// A process that forgets and shreds, step by step as it is polled.
fn run(vault: &Vault, subjects: &'static [&'static str]) -> Run {
    let vault = vault.clone();
    Arc::new(Mutex::new(Box::pin(async move {
        for subject in subjects {
            vault.forget(&id(subject), by().without_grace()).await?;
        }
        vault.shred(&tester(), &test_ground()).await
    })))
}

fn poll(run: &Run) -> Poll<Result<ShredReceipt>> {
    run.lock().unwrap().as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn finish(run: &Run) -> Result<ShredReceipt> {
    loop {
        if let Poll::Ready(done) = poll(run) {
            return done;
        }
    }
}

#[test]
fn abuse_35_a_batch_that_another_shred_has_finished_gets_its_certificate() {
    let depot = Depot::open(1);
    let [a, b] = &depot.vaults;
    block_on(b.forget(&id("bob"), by().without_grace())).unwrap();
    // A stops before it says that all its removals are done.
    let go = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&go);
    depot.stores[0].before_each(move |call| {
        let gate = Arc::clone(&gate);
        let says = |(name, value): &(Key, Option<Vec<u8>>)| {
            name[0] == b'p' && value.as_ref().is_some_and(|value| value[1] == 2)
        };
        let stop = matches!(call, Call::Commit(batch) if batch.writes.iter().any(says));
        Box::pin(poll_fn(move |_| if stop && !gate.load(SeqCst) { Poll::Pending } else { Poll::Ready(()) }))
    });
    let slow = run(a, &["alice"]);
    // B has rotated its own way, and looks for what is complete next: A completes it, and removes.
    let (scans, met, of_a) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)), Arc::clone(&slow));
    let seen = Arc::clone(&met);
    depot.stores[1].before_each(move |call| {
        if matches!(call, Call::Scan(range) if range.start == b"p")
            && scans.fetch_add(1, SeqCst) == 2
            && !seen.swap(true, SeqCst)
        {
            assert!(poll(&of_a).is_pending());
        }
        Box::pin(async {})
    });
    assert_eq!(block_on(b.shred(&depot.me, &depot.why)).unwrap().subjects, 1);
    assert!(met.load(SeqCst));
    depot.stores[1].without_hook();
    go.store(true, SeqCst);
    assert_eq!(finish(&slow).unwrap().subjects, 1);
    assert_eq!(depot.certificates_after(7), 2);
    assert_eq!(depot.count(b"r"), 0);
}

#[test]
fn abuse_35_a_batch_that_another_shred_took_for_dead_gets_its_certificate() {
    let depot = Depot::open(2);
    let [a, b] = &depot.vaults;
    block_on(b.forget(&id("bob"), by().without_grace())).unwrap();
    let go = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&go);
    depot.stores[0].before_each(move |call| {
        let gate = Arc::clone(&gate);
        let says = |(name, value): &(Key, Option<Vec<u8>>)| {
            name[0] == b'p' && value.as_ref().is_some_and(|value| value[1] == 2)
        };
        let stop = matches!(call, Call::Commit(batch) if batch.writes.iter().any(says));
        Box::pin(poll_fn(move |_| if stop && !gate.load(SeqCst) { Poll::Pending } else { Poll::Ready(()) }))
    });
    let slow = run(a, &["alice"]);
    assert!(poll(&slow).is_pending());
    // A's removals of Alice and Bob are made, and A does not say so.
    assert_eq!(block_on(b.shred(&depot.me, &depot.why)).unwrap().subjects, 0);
    go.store(true, SeqCst);
    assert_eq!(finish(&slow).unwrap().subjects, 2);
    assert_eq!(depot.certificates_after(7), 2);
    assert_eq!((depot.count(b"r"), depot.count(b"x")), (0, 0));
}

#[test]
fn abuse_35_a_batch_that_still_removes_keys_is_never_said_to_have_left_an_epoch() {
    let depot = Depot::open(2);
    let [a, b] = &depot.vaults;
    block_on(b.forget(&id("bob"), by().without_grace())).unwrap();
    // A goes as far as before its second removal, then as far as before it rotates, then on.
    let (gate, removals, last) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let (allowed, count, epoch, raw) =
        (Arc::clone(&gate), Arc::clone(&removals), Arc::clone(&last), depot.store.clone());
    depot.stores[0].before_each(move |call| {
        let need = match call {
            Call::Commit(batch)
                if removes_keys(batch) && batch.expect.iter().any(|(key, _)| key[0] == b'p') =>
            {
                epoch.store(epoch_of(&raw), SeqCst);
                usize::from(count.fetch_add(1, SeqCst) == 1)
            }
            Call::Scan(range) if range.start == b"p" && count.load(SeqCst) >= 2 => 2,
            _ => 0,
        };
        let allowed = Arc::clone(&allowed);
        let (epoch, raw, removes) = (Arc::clone(&epoch), raw.clone(), need == 1);
        Box::pin(poll_fn(move |_| {
            if allowed.load(SeqCst) < need {
                return Poll::Pending;
            }
            if removes {
                // The epoch under which the last keys were readable still.
                epoch.store(epoch_of(&raw), SeqCst);
            }
            Poll::Ready(())
        }))
    });
    let slow = run(a, &["alice", "carol"]);
    let (scans, of_a, opened) = (AtomicUsize::new(0), Arc::clone(&slow), Arc::clone(&gate));
    depot.stores[1].before_each(move |call| {
        match call {
            // B has made its removals, and looks for what there is to rotate.
            Call::Scan(range) if range.start == b"p" && scans.fetch_add(1, SeqCst) == 1 => {
                assert!(poll(&of_a).is_pending());
            }
            // B has seen that A removes, and takes it for dead.
            Call::Commit(batch)
                if touches(batch, b'p') && scans.load(SeqCst) == 2 && opened.swap(1, SeqCst) == 0 =>
            {
                assert!(poll(&of_a).is_pending());
            }
            _ => {}
        }
        Box::pin(async {})
    });
    let first = block_on(b.shred(&depot.me, &depot.why)).unwrap();
    depot.stores[1].without_hook();
    gate.store(2, SeqCst);
    let second = finish(&slow).unwrap();
    assert_eq!(removals.load(SeqCst), 2);
    assert!(first.epoch_left.is_some());
    assert!(second.epoch_left.unwrap() >= last.load(SeqCst), "{second:?} {last:?}");
    assert_eq!((first.subjects, second.subjects), (1, 2));
    assert_eq!(depot.certificates_after(7), 3);
}

fn epoch_of(store: &MemoryStore) -> u64 {
    let row = rows_of(store, b"e").remove(0).1.value;
    u64::from_be_bytes(*row[1..].first_chunk().unwrap())
}
