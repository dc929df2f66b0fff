//! One story on a real file format with the power failing under it, and one with the key file failing.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use customer_vault::error::{Erased, Misuse, StoreError};
use customer_vault::keeper::{FileSecret, Keeper};
use customer_vault::log::Action;
use customer_vault::store::{MemoryStore, RedbStore, Store};
use customer_vault::testing::{
    FaultDisk, KeeperFaults, ManualClock, MemoryKeeper, Survivors, grant, test_ground, tester,
};
use customer_vault::witness::Witness;
use customer_vault::*;
use pollster::block_on;
use zeroize::Zeroizing;

use crate::world::{Order, Shipping, World, id, later, options, order, settings};

/// Alice and Bob are there. Eve comes, Alice goes, a week later days are over.
const STEPS: [&str; 5] = ["enroll", "forget", "shred", "settle", "expire"];

struct Story {
    clock: ManualClock,
    vault: Vault,
}

impl Story {
    fn begin(store: impl Store, keeper: impl Keeper + Witness + Clone) {
        let clock = ManualClock::at(World::empty().day);
        let create = options(&clock).settings(settings(1)).create(store, keeper.clone(), keeper);
        let vault = block_on(create).unwrap();
        for name in ["alice", "bob"] {
            block_on(vault.enroll(&id(name), [], &tester(), &test_ground())).unwrap();
        }
    }

    fn open(store: impl Store, keeper: impl Keeper + Witness + Clone, clock: &ManualClock) -> Result<Self> {
        let vault = block_on(options(clock).open(store, keeper.clone(), keeper))?;
        Ok(Story { clock: clock.clone(), vault })
    }

    fn step(&self, step: usize) -> Result<()> {
        let (me, why) = (tester(), test_ground());
        match STEPS[step] {
            "enroll" => block_on(self.vault.enroll(&id("eve"), [], &me, &why)),
            "forget" => {
                let request = Forget::by(&me, &why).without_grace();
                block_on(self.vault.forget(&id("alice"), request)).map(drop)
            }
            "shred" => block_on(self.vault.shred(&me, &why)).map(drop),
            "settle" => block_on(self.vault.settle(&me, &why)).map(drop),
            _ => {
                let then = later(World::empty().day, 8);
                if self.clock.today() < then {
                    self.clock.advance_days(8);
                }
                block_on(self.vault.expire(&me, &why)).map(drop)
            }
        }
    }

    /// Goes on from a step until one fails. Gives the first that was not acknowledged.
    fn go_on(&self, from: usize) -> (usize, Option<Error>) {
        for step in from..STEPS.len() {
            if let Err(why) = self.step(step) {
                return (step, Some(why));
            }
        }
        (STEPS.len(), None)
    }

    fn unlocks(&self, name: &str) -> Result<()> {
        block_on(grant::<Shipping>(&self.vault, &id(name))).map(drop)
    }

    /// What was acknowledged holds.
    fn holds(&self, acknowledged: usize, what: &str) {
        assert_eq!(self.unlocks("bob"), Ok(()), "{what}");
        if acknowledged > 0 {
            assert_eq!(self.unlocks("eve"), Ok(()), "{what}");
        }
        if acknowledged > 1 {
            assert_eq!(self.unlocks("alice"), Err(Erased::Forgotten.into()), "{what}");
        }
        if acknowledged > 3 {
            assert!(self.certified(), "{what}");
        }
        if acknowledged > 4 {
            assert_eq!(block_on(self.vault.expiry_notes()).unwrap().len(), 1, "{what}");
        }
        assert!(block_on(self.vault.verify_log()).unwrap().holds(), "{what}");
    }

    fn certified(&self) -> bool {
        let log = block_on(self.vault.log()).unwrap();
        let forget = log.iter().find(|entry| entry.action() == Action::Forget).unwrap();
        block_on(self.vault.certificate(forget.reference().unwrap())).unwrap().is_some()
    }

    /// The step that was under way is before or after; it is finished, and so is the story.
    fn ends(&self, acknowledged: usize, what: &str) {
        self.holds(acknowledged, what);
        let mut from = acknowledged;
        if let (step, Some(why)) = self.go_on(from) {
            let done = [Misuse::AlreadyEnrolled.into(), Erased::Forgotten.into()].contains(&why);
            assert!(done && step == acknowledged, "{what}: {} says {why:?}", STEPS[step]);
            from = step + 1;
            assert_eq!(self.go_on(from), (STEPS.len(), None), "{what}");
        }
        self.holds(STEPS.len(), what);
        // What the law had kept of Alice was due a week later.
        block_on(self.vault.shred(&tester(), &test_ground())).unwrap();
        let again = block_on(self.vault.shred(&tester(), &test_ground())).unwrap();
        assert_eq!((again.subjects, again.epoch_left), (0, None), "{what}");
        let (bob, me, why) = (id("bob"), tester(), test_ground());
        let sealer = block_on(self.vault.sealer::<Order>(&bob, &me, &why)).unwrap();
        let sealed = sealer.seal(order(), &1).unwrap();
        let grant = block_on(grant::<Shipping>(&self.vault, &bob)).unwrap();
        assert!(sealed.open(&grant, &1).unwrap().address().is_ok(), "{what}");
    }
}

#[test]
fn abuse_36_the_power_fails_under_a_redb_file() {
    let (disk, keeper) = (FaultDisk::new(), MemoryKeeper::new());
    Story::begin(disk.create().unwrap(), keeper.clone());
    let bytes = disk.bytes();
    let operations = {
        let (disk, keeper) = (FaultDisk::holding(bytes.clone()), keeper.snapshot());
        let clock = ManualClock::at(World::empty().day);
        let story = Story::open(disk.open().unwrap(), keeper, &clock).unwrap();
        let opened = disk.operations();
        story.ends(0, "no fault");
        disk.operations() - opened
    };
    assert!(operations > 60, "{operations}");
    // Not every operation, so that it stays quick: `store_crash` has them all, for a store alone.
    for at in (0..operations).step_by(11) {
        let (disk, before) = (FaultDisk::holding(bytes.clone()), keeper.snapshot());
        let clock = ManualClock::at(World::empty().day);
        let store: RedbStore = disk.open().unwrap();
        let story = Story::open(store, before.clone(), &clock).unwrap();
        disk.kill_at(at);
        let (acknowledged, _) = story.go_on(0);
        drop(story);
        for survivors in [Survivors::None, Survivors::All, Survivors::Some(at)] {
            let what = format!("killed at operation {at}, {survivors:?}");
            let store = disk.after_power_failure(survivors).open().unwrap();
            let clock = ManualClock::at(clock.today());
            let story =
                Story::open(store, before.snapshot(), &clock).unwrap_or_else(|why| panic!("{what}: {why:?}"));
            story.ends(acknowledged, &what);
        }
    }
}

#[test]
fn abuse_38_a_full_disk_under_a_redb_file_loses_nothing() {
    let (disk, keeper) = (FaultDisk::new(), MemoryKeeper::new());
    Story::begin(disk.create().unwrap(), keeper.clone());
    let bytes = disk.bytes();
    for at in (0..60).step_by(9) {
        let (disk, keeper) = (FaultDisk::holding(bytes.clone()), keeper.snapshot());
        let clock = ManualClock::at(World::empty().day);
        let story = Story::open(disk.open().unwrap(), keeper.clone(), &clock).unwrap();
        disk.fail_once(at, ErrorKind::StorageFull);
        let (acknowledged, why) = story.go_on(0);
        let clear = matches!(why, Some(Error::Store(StoreError::Full | StoreError::Unknown)));
        assert!(clear, "operation {at}: {why:?}");
        drop(story);
        let story = Story::open(disk.open().unwrap(), keeper, &clock).unwrap();
        story.ends(acknowledged, &format!("full at operation {at}"));
    }
}

/// A folder of its own, removed with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("customer-vault-crash-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn key(&self) -> PathBuf {
        self.0.join("key")
    }

    fn copy(&self) -> Folder {
        let copy = Folder::new();
        for file in std::fs::read_dir(&self.0).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.0.join(file.file_name())).unwrap();
        }
        copy
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all::<&Path>(&self.0));
    }
}

fn secret() -> FileSecret {
    FileSecret::key(Zeroizing::new([7; 32]))
}

fn with_key_file() -> (Folder, MemoryStore) {
    let (folder, store) = (Folder::new(), MemoryStore::new());
    Story::begin(store.clone(), KeeperFaults::new().create(folder.key(), secret()).unwrap());
    (folder, store)
}

/// A copy of the story's beginning, with faults to come.
fn under(faults: &KeeperFaults, (folder, store): &(Folder, MemoryStore)) -> (Folder, MemoryStore, Story) {
    let (folder, store) = (folder.copy(), store.snapshot());
    let keeper = faults.open(folder.key(), secret()).unwrap();
    let clock = ManualClock::at(World::empty().day);
    let story = Story::open(store.clone(), keeper, &clock).unwrap();
    (folder, store, story)
}

#[test]
fn abuse_36_the_key_file_fails_once_or_for_good() {
    let base = with_key_file();
    let faults = KeeperFaults::new();
    let (_folder, _, story) = under(&faults, &base);
    let opened = faults.operations();
    assert_eq!(story.go_on(0), (STEPS.len(), None));
    let operations = faults.operations() - opened;
    assert!(operations > 20, "{operations}");
    // Not every operation, because each waits for a disk: the key file's own tests have them all.
    for (at, killed) in (0..operations).step_by(3).zip([false, true].into_iter().cycle()) {
        let what = format!("key file, operation {at} of {operations}, killed: {killed}");
        let faults = KeeperFaults::new();
        let (folder, store, story) = under(&faults, &base);
        if killed {
            faults.kill(at);
        } else {
            faults.fail_once(at);
        }
        let (acknowledged, why) = story.go_on(0);
        // A witness that fails is no reason for a forget to fail: there, nothing is said but in the receipt.
        assert!(matches!(why, None | Some(Error::Keeper(_))), "{what}: {why:?}");
        if killed {
            let clock = story.clock.clone();
            drop(story);
            let keeper = KeeperFaults::new().open(folder.key(), secret()).unwrap();
            Story::open(store, keeper, &clock).unwrap().ends(acknowledged, &what);
        } else {
            story.ends(acknowledged, &what);
        }
    }
}

/// The key file never grows, and its journal has room kept.
#[test]
fn abuse_38_where_the_key_files_disk_is_full_people_are_forgotten_and_roots_destroyed_all_the_same() {
    let base = with_key_file();
    let faults = KeeperFaults::new();
    let (_folder, _, story) = under(&faults, &base);
    faults.disk_full(true);
    let request = Forget::by(&tester(), &test_ground()).without_grace();
    assert!(block_on(story.vault.forget(&id("alice"), request)).unwrap().witnessed);
    assert_eq!(story.unlocks("alice"), Err(Erased::Forgotten.into()));
    let (_folder, _, story) = under(&faults, &base);
    assert_eq!(story.go_on(0), (STEPS.len(), None));
    story.ends(STEPS.len(), "without room");
}
