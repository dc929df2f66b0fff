//! Many people in one call: each at its place, as many reads and commits as there are chunks, and nothing lost to whoever
//! comes in between.
#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, reason = "a test")]
#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test")]

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

use customer_vault::error::{Denied, Erased, Halted, Misuse, StoreError};
use customer_vault::log::{Action, Count, Entry, Outcome};
use customer_vault::store::{MemoryStore, Store};
use customer_vault::testing::{
    CommitFault, Counts, FaultStore, ManualClock, MemoryKeeper, test_ground, tester,
};
use customer_vault::*;
use pollster::block_on;

#[path = "races/schedule.rs"]
mod schedule;
#[path = "races/shop.rs"]
mod shop;
#[path = "races/stories.rs"]
mod stories;

use schedule::{Choose, Every, Manner, Seeded, alone, run, task};
use shop::{End, Order, Recommendation, Shipping, Shop, Stage, consent, order};

purposes! {
    /// Declared later than the people were enrolled.
    pub Later: Contract = 9 "later";
}

/// The most that one chunk holds.
const CHUNK: usize = 1000;

fn id(number: usize) -> SubjectId {
    SubjectId::new(&format!("person {number}")).unwrap()
}

fn ids(numbers: impl IntoIterator<Item = usize>) -> Vec<SubjectId> {
    numbers.into_iter().map(id).collect()
}

fn people(numbers: impl IntoIterator<Item = usize>) -> Vec<(SubjectId, [Consent; 0])> {
    numbers.into_iter().map(|number| (id(number), [])).collect()
}

struct World<S> {
    store: FaultStore<S>,
    keeper: MemoryKeeper,
    clock: ManualClock,
    vault: Vault,
    token: Token,
}

impl<S: Store> World<S> {
    fn on(store: S) -> Self {
        let (store, keeper) = (FaultStore::new(store), MemoryKeeper::new());
        block_on(async {
            // Without time passing: a lease ends with the clock.
            let clock = ManualClock::at(shop::first_day());
            let options = Options::new().record::<Order>().clock(clock.clone());
            let vault = options.create(store.clone(), keeper.clone(), keeper.clone()).await.unwrap();
            let hour = Duration::from_secs(3600);
            let token = vault.issue::<Shipping>(&tester(), &test_ground(), hour, Scope::everyone()).await;
            World { store, keeper, clock, vault, token: token.unwrap() }
        })
    }

    /// The same store and keeper, opened again.
    fn opened_again(self) -> Self {
        self.opened_again_with(Options::new().record::<Order>())
    }

    fn opened_again_with(self, options: Options) -> Self {
        let World { store, keeper, clock, vault, token } = self;
        drop(vault);
        store.heal();
        let options = options.clock(clock.clone());
        let vault = block_on(options.open(store.clone(), keeper.clone(), keeper.clone())).unwrap();
        World { store, keeper, clock, vault, token }
    }

    fn enroll(&self, numbers: impl IntoIterator<Item = usize>) -> Vec<Result<()>> {
        block_on(self.vault.enroll_many(&people(numbers), &tester(), &test_ground()))
    }

    fn unlock(&self, ids: &[SubjectId]) -> Vec<Result<Grant<Shipping>>> {
        block_on(self.vault.unlock_many::<Shipping>(&self.token, ids)).unwrap()
    }

    fn sealers(&self, ids: &[SubjectId]) -> Vec<Result<Sealer<Order>>> {
        block_on(self.vault.sealers::<Order>(ids, &tester(), &test_ground())).unwrap()
    }

    fn put(&self, records: &[(SubjectId, u64, Sealed<Order>)]) -> Vec<Result<()>> {
        let records: Vec<_> = records.iter().map(|(id, no, sealed)| (id, no, sealed)).collect();
        block_on(self.vault.put_many(&records, &tester(), &test_ground()))
    }

    fn list(&self, id: &SubjectId) -> Vec<(u64, Sealed<Order>)> {
        let mut listed = block_on(self.vault.list::<Order, u64>(id, &tester(), &test_ground())).unwrap();
        listed.sort_by_key(|(no, _)| *no);
        listed
    }

    fn forget(&self, id: &SubjectId) {
        block_on(self.vault.forget(id, Forget::by(&tester(), &test_ground()))).unwrap();
    }

    /// The entries of a kind.
    fn entries(&self, action: Action) -> Vec<Entry> {
        let log = block_on(self.vault.log()).unwrap();
        log.into_iter().filter(|entry| entry.action() == action).collect()
    }

    fn counted<T>(&self, work: impl FnOnce() -> T) -> (T, Counts) {
        let before = self.store.counts();
        let out = work();
        (out, self.store.counts() - before)
    }

    /// Everybody is enrolled and can be sealed for and read, alone and together.
    fn are_whole(&self, ids: &[SubjectId]) {
        for ((id, sealer), grant) in ids.iter().zip(self.sealers(ids)).zip(self.unlock(ids)) {
            let sealed = sealer.unwrap().seal(order(), &7).unwrap();
            assert!(sealed.open(&grant.unwrap(), &7).unwrap().name().is_ok());
            let grant = block_on(self.vault.unlock::<Shipping>(&self.token, id)).unwrap();
            assert!(sealed.open(&grant, &7).unwrap().name().is_ok());
        }
        assert!(block_on(self.vault.verify_log()).unwrap().holds());
    }
}

/// Each story on every store that needs no server.
macro_rules! on_each_store {
    ($($name:ident)+) => { $(
        #[test]
        fn $name() {
            on::$name(World::on(MemoryStore::new()));
            on::$name(World::on(MemoryStore::shared_between_handles()));
            #[cfg(feature = "redb")]
            {
                let name = concat!("many-", stringify!($name));
                let folder = std::env::temp_dir().join(format!("customer-vault-{}-{name}", std::process::id()));
                std::fs::create_dir_all(&folder).unwrap();
                on::$name(World::on(store::RedbStore::create(folder.join("vault.redb")).unwrap()));
                std::fs::remove_dir_all(folder).unwrap();
            }
        }
    )+ };
}

on_each_store! {
    results_and_refusals_stand_at_their_places
    records_of_several_subjects_are_stored_together
    a_chunk_is_one_read_and_one_commit
    the_log_names_all_of_a_chunk_in_one_entry
    a_purpose_that_came_later_gets_its_keys_for_all_at_once
}

mod on {
    use super::*;

    pub fn results_and_refusals_stand_at_their_places<S: Store>(world: World<S>) {
        assert!(world.enroll([]).is_empty() && world.unlock(&[]).is_empty() && world.sealers(&[]).is_empty());
        assert_eq!(world.enroll([1, 2]), [Ok(()), Ok(())]);
        world.forget(&id(2));
        let already = Err(Misuse::AlreadyEnrolled.into());
        let forgotten = Err(Erased::Forgotten.into());
        assert_eq!(world.enroll([3, 1, 4, 2, 3, 5]), [Ok(()), already, Ok(()), forgotten, already, Ok(())]);

        // A consent to what knows none is refused before anything is read.
        let mixed = vec![(id(6), vec![consent()]), (id(7), vec![Consent::to::<Shipping>(shop::evidence())])];
        let enrolled = block_on(world.vault.enroll_many(&mixed, &tester(), &test_ground()));
        assert_eq!(enrolled, [Ok(()), Err(Misuse::NotConsent.into())]);
        let consented = block_on(testing::grant::<Recommendation>(&world.vault, &id(6)));
        assert!(consented.is_ok());

        let grants = world.unlock(&ids([1, 2, 99, 3, 1, 7]));
        let why = |place: usize| *grants[place].as_ref().unwrap_err();
        assert_eq!(why(1), Erased::Forgotten.into());
        assert_eq!((why(2), why(5)), (Error::NotEnrolled, Error::NotEnrolled));
        assert!([0, 3, 4].iter().all(|place: &usize| grants[*place].is_ok()));
        let sealers = world.sealers(&ids([1, 2, 99, 1]));
        let why = |place: usize| *sealers[place].as_ref().unwrap_err();
        assert_eq!((why(1), why(2)), (Erased::Forgotten.into(), Error::NotEnrolled));
        assert!(sealers[0].is_ok() && sealers[3].is_ok());
        world.are_whole(&ids([1, 3, 4, 5, 6]));

        // A grant is for the one at its place and nobody else.
        let sealed = sealers[0].as_ref().unwrap().seal(order(), &1).unwrap();
        let grants = world.unlock(&ids([1, 3]));
        assert!(sealed.open(grants[0].as_ref().unwrap(), &1).is_ok());
        assert!(sealed.open(grants[1].as_ref().unwrap(), &1).is_err());

        // A token that reaches some reaches no others.
        let hour = Duration::from_secs(3600);
        let scope = Scope::subject(&id(3));
        let narrow = block_on(world.vault.issue::<Shipping>(&tester(), &test_ground(), hour, scope)).unwrap();
        let grants = block_on(world.vault.unlock_many::<Shipping>(&narrow, &ids([1, 3, 99]))).unwrap();
        assert_eq!(*grants[0].as_ref().unwrap_err(), Denied::Subject.into());
        assert!(grants[1].is_ok() && grants[2].is_err());

        block_on(world.vault.freeze(&tester(), &test_ground())).unwrap();
        let frozen: Error = Halted::Frozen.into();
        assert_eq!(world.enroll([8, 9]), [Err(frozen); 2]);
        assert_eq!(world.put(&[(id(1), 1, sealed)]), [Err(frozen)]);
        let refused = block_on(world.vault.unlock_many::<Shipping>(&world.token, &ids([1])));
        assert_eq!(refused.unwrap_err(), frozen);
    }

    pub fn records_of_several_subjects_are_stored_together<S: Store>(world: World<S>) {
        world.enroll(0..4);
        let sealers: Vec<Sealer<Order>> = world.sealers(&ids(0..4)).into_iter().map(Result::unwrap).collect();
        let note = |who: usize, no: u64| (id(who), no, sealers[who].seal(order(), &no).unwrap());
        let mut records = vec![note(0, 1), note(1, 1), note(0, 2), note(2, 1), note(0, 1), note(1, 2)];
        let (unknown, forgotten) = ((id(99), 1, records[0].2.clone()), (id(3), 1, records[0].2.clone()));
        records.extend([unknown, forgotten, note(2, 9)]);
        world.forget(&id(3));
        let stored = world.put(&records);
        assert_eq!(stored[6..], [Err(Error::NotEnrolled), Err(Erased::Forgotten.into()), Ok(())]);
        assert!(stored[..6].iter().all(Result::is_ok));
        let bytes = |who: usize| -> Vec<(u64, Vec<u8>)> {
            world.list(&id(who)).into_iter().map(|(no, sealed)| (no, sealed.as_bytes().to_vec())).collect()
        };
        let given = |place: usize| (records[place].1, records[place].2.as_bytes().to_vec());
        assert_eq!(bytes(0), [given(4), given(2)], "of two for one id the later stays");
        assert_eq!(bytes(1), [given(1), given(5)]);
        assert_eq!(bytes(2), [given(3), given(8)]);
        // Each by itself goes on where many left it.
        block_on(world.vault.put(&id(0), &2, &records[2].2, &tester(), &test_ground())).unwrap();
        assert!(block_on(world.vault.delete::<Order>(&id(0), &1, &tester(), &test_ground())).unwrap());
        assert_eq!(bytes(0), [given(2)]);
        assert_eq!(world.put(&records[..2]), [Ok(()), Ok(())]);
        assert_eq!(bytes(0), [given(0), given(2)]);
    }

    pub fn a_chunk_is_one_read_and_one_commit<S: Store>(world: World<S>) {
        let many = CHUNK + 10;
        // The log's first head is there to be written on, and the nodes below the root, which two halves would both make.
        world.enroll(many..many + 300);
        let (enrolled, counts) = world.counted(|| world.enroll(0..many));
        assert!(enrolled.iter().all(Result::is_ok));
        assert_eq!((counts.reads, counts.commits, counts.scans), (2, 2, 0), "{counts:?}");
        // Fence and epoch, a way of four and an entry for each at most.
        let wide = u64::try_from(many).unwrap();
        assert!(counts.rows_read < 5 * wide, "{counts:?}");

        let all = ids(0..many);
        drop(world.unlock(&all[..1]));
        let (grants, counts) = world.counted(|| world.unlock(&all));
        assert!(grants.iter().all(Result::is_ok));
        assert_eq!((counts.reads, counts.commits, counts.scans), (2, 2, 0), "{counts:?}");
        assert_eq!(counts.rows_written, 4, "an entry and the lane's head each");

        let (sealers, counts) = world.counted(|| world.sealers(&all));
        assert_eq!((counts.reads, counts.commits, counts.scans), (2, 2, 0), "{counts:?}");
        let seal = |sealer: &Result<Sealer<Order>>| sealer.as_ref().unwrap().seal(order(), &1).unwrap();
        let records: Vec<_> =
            all.iter().zip(&sealers).map(|(id, sealer)| (id.clone(), 1, seal(sealer))).collect();
        let (stored, counts) = world.counted(|| world.put(&records));
        assert!(stored.iter().all(Result::is_ok));
        assert_eq!((counts.reads, counts.commits, counts.scans), (2, 2, 0), "{counts:?}");
        assert_eq!(counts.rows_written, 2 * wide + 4, "a row and a head each");
        for number in [0, CHUNK - 1, CHUNK, many - 1] {
            assert_eq!(world.list(&id(number)).len(), 1);
            assert!(records[number].2.open(grants[number].as_ref().unwrap(), &1).unwrap().name().is_ok());
        }
        world.are_whole(&[id(0), id(CHUNK - 1), id(CHUNK), id(many - 1), id(many)]);
    }

    pub fn the_log_names_all_of_a_chunk_in_one_entry<S: Store>(world: World<S>) {
        world.enroll(0..3);
        let [entry] = world.entries(Action::Enroll).try_into().unwrap();
        assert_eq!(entry.subjects().len(), 3);
        assert_eq!((entry.actors(), entry.ground()), (&[tester()][..], Some(&test_ground())));
        let of = |action| -> HashSet<log::Pseudonym> {
            world.entries(action).iter().flat_map(|entry| entry.subjects().to_vec()).collect()
        };
        let sealers = world.sealers(&ids([0, 1, 99]));
        assert_eq!((world.entries(Action::Sealer).len(), of(Action::Sealer).len()), (1, 2));
        let seal =
            |who: usize, no: u64| (id(who), no, sealers[who].as_ref().unwrap().seal(order(), &no).unwrap());
        world.put(&[seal(0, 1), seal(0, 2), seal(1, 1)]);
        let [put] = world.entries(Action::Put).try_into().unwrap();
        assert_eq!((put.subjects().len(), put.count(Count::Records)), (2, Some(3)));
        drop(world.unlock(&ids([0, 1, 98, 99])));
        let [done, refused] = world.entries(Action::UnlockMany).try_into().unwrap();
        assert_eq!((done.outcome(), done.subjects().len()), (Outcome::Done, 2));
        assert_eq!(done.token(), refused.token());
        assert_eq!((refused.count(Count::Subjects), refused.subjects()), (Some(2), &[][..]));
        assert!(of(Action::Enroll).is_superset(&of(Action::Sealer)));
        assert_eq!(of(Action::Sealer), of(Action::UnlockMany));
        let [token] = block_on(world.vault.tokens()).unwrap().try_into().unwrap();
        assert!(token.last_used_ms.is_some());
    }

    pub fn a_purpose_that_came_later_gets_its_keys_for_all_at_once<S: Store>(world: World<S>) {
        world.enroll(0..20);
        let world = world.opened_again_with(Options::new().record::<Order>().purpose::<Later>());
        let everybody = ids(0..20);
        let before = world.store.counts();
        assert!(world.sealers(&everybody).iter().all(Result::is_ok));
        let counts = world.store.counts() - before;
        assert_eq!(counts.commits, 2, "the keys of all, and the entry for all");
        for id in &everybody {
            assert!(block_on(testing::grant::<Later>(&world.vault, id)).is_ok());
        }
    }
}

/// A thousand people in the way of one another: parts of the same list, from the other end, and singly.
fn overlap(shop: &Shop, choose: &mut dyn Choose) {
    let stage = shop.stage(Manner::Before);
    let vault = stage.process();
    let all = &shop.absent[..5];
    let outcomes: RefCell<Vec<Vec<Result<()>>>> = RefCell::default();
    let enrolls = |of: Vec<SubjectId>| {
        let (vault, outcomes) = (&vault, &outcomes);
        async move {
            let people: Vec<_> = of.iter().map(|id| (id.clone(), [consent()])).collect();
            let results = vault.enroll_many(&people, &tester(), &test_ground()).await;
            let refused = Err(Misuse::AlreadyEnrolled.into());
            assert!(results.iter().all(|result| *result == Ok(()) || *result == refused), "{results:?}");
            let at = |id| of.iter().position(|one| one == id).map_or(refused, |place| results[place]);
            outcomes.borrow_mut().push(all.iter().map(at).collect());
        }
    };
    let reversed = all.iter().rev().cloned().collect();
    run(
        vec![task(enrolls(all.to_vec())), task(enrolls(reversed)), task(enrolls(all[1..3].to_vec()))],
        &stage.clock,
        choose,
    );
    for (place, id) in all.iter().enumerate() {
        let times = outcomes.borrow().iter().filter(|results| results[place].is_ok()).count();
        assert_eq!(times, 1, "each is enrolled by one call");
        stage.gate.open(false);
        let sealed = alone(&stage.clock, stage.seal(&vault, id, 1)).unwrap();
        stage.end(End::Opens(id.clone(), sealed));
    }
    stage.verify(vec![vault], false);
}

#[test]
fn calls_that_name_the_same_people_enroll_each_once() {
    for height in [1, 3] {
        let shop = Shop::new(false, height);
        let mut every = Every::new(2);
        for _ in 0..30 {
            overlap(&shop, &mut every);
            if !every.advance() {
                break;
            }
        }
        (0..15).for_each(|seed| overlap(&shop, &mut Seeded::new(seed)));
    }
}

#[test]
fn people_who_are_enrolled_together_are_not_lost_to_a_shred_of_their_paths() {
    for height in [1, 3] {
        let shop = Shop::new(false, height);
        let race = |choose: &mut dyn Choose| {
            let stage = shop.stage(Manner::Before);
            let vault = stage.process();
            stage.has_left(&vault, 0);
            let shred = async { assert_eq!(stage.shreds(&vault).await.subjects, 1) };
            run(vec![task(enroll_and_store(&stage, &vault)), task(shred)], &stage.clock, choose);
            stage.verify(vec![vault], false);
        };
        let mut every = Every::new(2);
        for _ in 0..50 {
            race(&mut every);
            if !every.advance() {
                break;
            }
        }
        (0..20).for_each(|seed| race(&mut Seeded::new(seed)));
    }
}

async fn enroll_and_store(stage: &Stage<'_>, vault: &Vault) {
    let (me, why) = (tester(), test_ground());
    let all = &stage.shop.absent[..4];
    let people: Vec<_> = all.iter().map(|id| (id.clone(), [consent()])).collect();
    let enrolled = vault.enroll_many(&people, &me, &why).await;
    assert_eq!(enrolled, [Ok(()); 4]);
    let sealers = vault.sealers::<Order>(all, &me, &why).await.expect("sealers");
    let sealed: Vec<_> = sealers.into_iter().map(|one| one.unwrap().seal(order(), &1).unwrap()).collect();
    let records: Vec<_> = all.iter().zip(&sealed).map(|(id, one)| (id, &1, one)).collect();
    let stored = vault.put_many(&records, &me, &why).await;
    assert_eq!(stored, [Ok(()); 4]);
    let token = &stage.shop.tokens.shipping;
    let grants = vault.unlock_many::<Shipping>(token, all).await.expect("grants");
    for (one, grant) in sealed.iter().zip(grants) {
        assert!(one.open(&grant.unwrap(), &1).unwrap().name().is_ok());
    }
    for (id, one) in all.iter().zip(sealed) {
        stage.end(End::Opens(id.clone(), one));
    }
}

#[test]
fn abuse_36_killed_between_chunks_each_person_is_whole_or_not_there() {
    // The second of a name begins another chunk.
    let numbers = [1, 2, 3, 1, 4, 5, 1, 6];
    for nth in 0..3 {
        for fault in [CommitFault::KilledBefore, CommitFault::KilledAfter] {
            let world = World::on(MemoryStore::new());
            world.enroll([9]);
            world.store.fail_commit(nth, fault);
            let results = world.enroll(numbers);
            assert!(world.store.killed());
            let done = [0, 3, 6][usize::try_from(nth).unwrap()];
            assert!(results[..done.min(3)].iter().all(Result::is_ok), "{results:?}");
            assert!(matches!(results[7], Err(Error::Store(StoreError::Unknown | StoreError::Closed))));
            let world = world.opened_again();
            let there: Vec<usize> =
                (1..=6).filter(|number| world.unlock(&[id(*number)])[0].is_ok()).collect();
            let after = u64::from(fault == CommitFault::KilledAfter);
            let whole = [0, 3, 5, 6][usize::try_from(nth + after).unwrap()];
            assert_eq!(there, (1..=whole).collect::<Vec<_>>(), "{nth} {fault:?}");
            world.are_whole(&ids(1..=whole));
            let again = world.enroll(1..=6);
            let already = Err(Misuse::AlreadyEnrolled.into());
            let expected: Vec<Result<()>> =
                (1..=6).map(|number| if number <= whole { already } else { Ok(()) }).collect();
            assert_eq!(again, expected);
            world.are_whole(&ids(1..=6));
        }
    }
}

#[test]
fn a_store_that_fails_is_asked_no_more_and_everyone_left_has_its_error() {
    let world = World::on(MemoryStore::new());
    world.enroll([9]);
    world.store.fail_commit(1, CommitFault::Failed(StoreError::Full));
    let (results, counts) = world.counted(|| world.enroll([1, 2, 1, 3, 3, 4]));
    let full = Err(StoreError::Full.into());
    assert_eq!(results, [Ok(()), Ok(()), full, full, full, full]);
    assert_eq!(counts.commits, 2);
    assert_eq!(world.enroll([1, 2, 3, 4])[2..], [Ok(()), Ok(())]);
}
