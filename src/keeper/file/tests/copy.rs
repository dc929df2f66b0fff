//! Two copies, and everything that can make them differ.

use super::super::slots::SLOT;
use super::*;
use crate::error::Misuse;

/// Two folders, as of two disks. The names differ, so that they can be told apart after a power failure.
struct Two {
    one: Folder,
    other: Folder,
}

impl Two {
    fn new() -> Self {
        Two { one: Folder::new(), other: Folder::new() }
    }

    fn copy_path(&self) -> PathBuf {
        self.other.path("c")
    }

    fn options(&self) -> FileKeeperOptions {
        FileKeeperOptions::new().copy(self.copy_path())
    }

    fn open(&self) -> Result<FileKeeper> {
        self.options().open(self.one.key(), secret())
    }

    /// The same in other folders.
    fn twin(&self) -> Two {
        Two { one: self.one.copy(), other: self.other.copy() }
    }

    /// Both hold the same, and each opens alone.
    fn is_equal(&self) -> View {
        let content = |path: &Path| {
            let bytes = fs::read(path).unwrap();
            let mut slots: Vec<_> = bytes.chunks(SLOT).map(<[u8]>::to_vec).collect();
            slots.sort();
            assert!(slots[0].iter().all(|byte| *byte == 0), "one slot is overwritten");
            slots.pop()
        };
        assert_eq!(content(&self.one.key()), content(&self.copy_path()));
        let one = view(&reopen(&self.one.key()).unwrap());
        assert_eq!(one, view(&reopen(&self.copy_path()).unwrap()));
        one
    }
}

struct Scene {
    two: Two,
    faults: KeeperFaults,
    keeper: FileKeeper,
    old: Candidate,
    active: Candidate,
}

impl Scene {
    fn new() -> Self {
        let (two, faults) = (Two::new(), KeeperFaults::new());
        let keeper = faults.under(two.options()).create(two.one.key(), secret()).unwrap();
        bind(&keeper, VAULT).unwrap();
        let (old, active) = (candidate(&keeper, 0), candidate(&keeper, 1));
        activate(&keeper, 1, old.id).unwrap();
        activate(&keeper, 2, active.id).unwrap();
        remember(&keeper, 1).unwrap();
        Scene { two, faults, keeper, old, active }
    }

    /// What is left of both when the process is gone.
    fn left(self) -> (Two, Candidate) {
        drop(self.keeper);
        (self.two, self.old)
    }
}

type Change = fn(&Scene) -> Result<(), KeeperError>;

const CHANGES: [(&str, Change); 4] = [
    ("candidate", |scene| block_on(scene.keeper.candidate(2)).map(drop)),
    ("activate", |scene| activate(&scene.keeper, 3, scene.old.id)),
    ("destroy", |scene| destroy(&scene.keeper, scene.old.id)),
    ("remember", |scene| block_on(scene.keeper.remember(vec![line(2), line(3)]))),
];

type View = (Vec<(u64, bool)>, Vec<Line>);

fn view(keeper: &FileKeeper) -> View {
    let mut roots: Vec<_> = held(keeper).iter().map(|held| (held.epoch, held.activated)).collect();
    roots.sort_unstable();
    (roots, recall(keeper))
}

fn measured(change: Change) -> (usize, [View; 2]) {
    let scene = Scene::new();
    let (start, before) = (scene.faults.operations(), view(&scene.keeper));
    change(&scene).unwrap();
    let after = (scene.faults.operations().saturating_sub(start), [before, view(&scene.keeper)]);
    let (two, _) = scene.left();
    assert_eq!(two.is_equal(), after.1[1], "a change is in both when it returns");
    after
}

#[test]
fn abuse_36_killed_at_any_operation_both_are_before_or_after() {
    for (name, change) in CHANGES {
        let (operations, states) = measured(change);
        for at in 0..=operations {
            let scene = Scene::new();
            scene.faults.kill(at);
            let acknowledged = change(&scene).is_ok();
            let (two, _) = scene.left();
            let seen = view(&two.open().unwrap());
            assert!(states.contains(&seen), "{name} killed at {at}");
            assert!(!acknowledged || seen == states[1], "{name} acknowledged, killed at {at}");
            assert_eq!(two.is_equal(), seen, "{name} killed at {at}");
        }
    }
}

#[test]
fn abuse_36_after_a_power_failure_both_are_before_or_after() {
    for (name, change) in CHANGES {
        let (operations, states) = measured(change);
        for at in 0..=operations {
            let scene = Scene::new();
            scene.faults.kill(at);
            let acknowledged = change(&scene).is_ok();
            for seed in 0..4 {
                let left = Folder::new();
                scene.faults.power_failure(seed, &left.0).unwrap();
                let keeper = FileKeeperOptions::new().copy(left.path("c"));
                let now = view(&keeper.open(left.key(), secret()).unwrap());
                assert!(states.contains(&now), "{name} at {at}, {seed}");
                assert!(!acknowledged || now == states[1], "{name} acknowledged, at {at}, {seed}");
            }
        }
    }
}

#[test]
fn abuse_36_failed_once_it_can_be_repeated_and_is_in_both() {
    for (name, change) in CHANGES {
        let (operations, states) = measured(change);
        for at in 0..operations {
            let scene = Scene::new();
            scene.faults.fail_once(at);
            let acknowledged = change(&scene).is_ok();
            if !acknowledged {
                change(&scene).unwrap();
            }
            assert_eq!(view(&scene.keeper), states[1], "{name} repeated after {at}");
            assert!(unwrap(&scene.keeper, &scene.active).is_ok());
            let (two, _) = scene.left();
            drop(two.open().unwrap());
            assert_eq!(two.is_equal(), states[1], "{name} repeated after {at}");
        }
    }
}

/// The next process opens after the fault; then the power fails.
#[test]
fn abuse_37_nothing_acknowledged_is_built_on_a_failed_sync_of_either() {
    for (name, change) in CHANGES {
        let (operations, states) = measured(change);
        for at in 0..operations {
            let mut scene = Scene::new();
            scene.faults.fail_once(at);
            let acknowledged = change(&scene).is_ok();
            drop(scene.keeper);
            scene.keeper =
                scene.faults.under(scene.two.options()).open(scene.two.one.key(), secret()).unwrap();
            if !acknowledged && view(&scene.keeper) != states[1] {
                change(&scene).unwrap();
            }
            let left = Folder::new();
            scene.faults.power_failure(7, &left.0).unwrap();
            for path in [left.key(), left.path("c")] {
                assert_eq!(view(&reopen(&path).unwrap()), states[1], "{name} at {at}");
            }
        }
    }
}

/// Not before it is gone from both.
#[test]
fn a_root_is_destroyed_in_both_before_it_is_said() {
    let (operations, _) = measured(CHANGES[2].1);
    for at in 0..operations {
        let scene = Scene::new();
        scene.faults.kill(at);
        let said = destroy(&scene.keeper, scene.old.id);
        scene.faults.clear();
        let contents = |path: &Path| {
            let bytes = fs::read(path).unwrap();
            bytes.chunks(SLOT).filter(|slot| slot.iter().skip(1).any(|byte| *byte != 0)).count()
        };
        let left = contents(&scene.two.one.key()).max(contents(&scene.two.copy_path()));
        assert!(said.is_err() || left == 1, "said at {at}");
    }
}

/// Files of a keeper with a copy as they were, and as they are after a root was destroyed and a line remembered.
fn older_and_newer() -> (Two, Two, Candidate, View) {
    let scene = Scene::new();
    remember(&scene.keeper, 2).unwrap();
    let older = scene.two.twin();
    destroy(&scene.keeper, scene.old.id).unwrap();
    remember(&scene.keeper, 3).unwrap();
    let now = view(&scene.keeper);
    let (newer, gone) = scene.left();
    (older, newer, gone, now)
}

/// The paths of one half of both.
fn halves(older: &Two, newer: &Two) -> [(PathBuf, PathBuf); 2] {
    [(older.one.key(), newer.one.key()), (older.copy_path(), newer.copy_path())]
}

fn journal(path: &Path) -> PathBuf {
    path.with_extension("journal")
}

#[test]
fn what_one_lacks_is_brought_to_it_and_never_the_other_way() {
    type Harm = fn(older: &Path, path: &Path);
    let harms: [(&str, Harm); 9] = [
        ("an older one", |older, path| {
            fs::copy(older, path).unwrap();
            fs::copy(journal(older), journal(path)).unwrap();
        }),
        ("an older key file", |older, path| {
            fs::copy(older, path).unwrap();
        }),
        ("an older journal", |older, path| {
            fs::copy(journal(older), journal(path)).unwrap();
        }),
        ("nothing", |_, path| {
            fs::remove_file(path).unwrap();
            fs::remove_file(journal(path)).unwrap();
        }),
        ("no key file", |_, path| fs::remove_file(path).unwrap()),
        ("no journal", |_, path| fs::remove_file(journal(path)).unwrap()),
        ("a damaged key file", |_, path| {
            change_bytes(path, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 4));
        }),
        ("an altered body", |_, path| {
            change_bytes(path, |bytes| {
                let at = bytes.windows(5).position(|part| part == b"body ").unwrap() + 9;
                bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            });
        }),
        ("a damaged journal", |_, path| change_bytes(&journal(path), |bytes| bytes[70] ^= 1)),
    ];
    let (older, newer, gone, now) = older_and_newer();
    for (name, harm) in harms {
        for half in 0..2 {
            for shared in [false, true] {
                let two = newer.twin();
                let (from, to) = halves(&older, &two)[half].clone();
                harm(&from, &to);
                let options = if shared { two.options().shared() } else { two.options() };
                let keeper = options.open(two.one.key(), secret()).unwrap();
                assert_eq!(view(&keeper), now, "{name} in {half}");
                assert_eq!(unwrap(&keeper, &gone).err(), Some(KeeperError::NoSuchRoot), "{name} in {half}");
                candidate(&keeper, 5);
                remember(&keeper, 4).unwrap();
                drop(keeper);
                two.is_equal();
            }
        }
    }
}

fn change_bytes(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Killed anywhere while one is brought to the other, the newer is never lost.
#[test]
fn abuse_36_bringing_one_to_the_other_can_be_interrupted_and_the_power_can_fail() {
    let (older, newer, _, now) = older_and_newer();
    for half in 0..2 {
        for at in 0.. {
            let two = newer.twin();
            let (from, to) = halves(&older, &two)[half].clone();
            fs::copy(&from, &to).unwrap();
            fs::copy(journal(&from), journal(&to)).unwrap();
            let faults = KeeperFaults::new();
            faults.kill(at);
            drop(faults.under(two.options()).open(two.one.key(), secret()));
            if faults.operations() < at {
                break;
            }
            assert_eq!(view(&two.open().unwrap()), now, "{half} killed at {at}");
            assert_eq!(two.is_equal(), now);
        }
    }
}

/// Its sync failed, and the process that was told so has died: the cache shows a copy that is not on the disk.
#[test]
fn abuse_37_a_copy_that_is_in_the_cache_alone_is_written_again() {
    let scene = Scene::new();
    remember(&scene.keeper, 2).unwrap();
    let now = view(&scene.keeper);
    let (made, _) = scene.left();
    let all = KeeperFaults::new();
    let blank = Two { one: made.one.copy(), other: Folder::new() };
    drop(all.under(blank.options()).open(blank.one.key(), secret()).unwrap());
    assert!(all.operations() > 20);
    for at in 0..all.operations() {
        for changed in [false, true] {
            let (two, faults) = (Two { one: made.one.copy(), other: Folder::new() }, KeeperFaults::new());
            let open = || faults.under(two.options()).open(two.one.key(), secret());
            faults.fail_once(at);
            faults.kill(at + 1);
            drop(open());
            faults.clear();
            let keeper = open().unwrap();
            let root = changed.then(|| candidate(&keeper, 3));
            drop(keeper);
            for seed in 0..3 {
                let left = Folder::new();
                faults.power_failure(seed, &left.0).unwrap();
                let copy = reopen(&left.path("c")).unwrap();
                assert!(root.as_ref().is_none_or(|root| unwrap(&copy, root).is_ok()), "{at}, {seed}");
                assert_eq!(recall(&copy), now.1, "failed at {at}, {seed}");
            }
        }
    }
}

#[test]
fn both_damaged_are_damage_and_an_older_one_beside_a_damaged_newer_one_is_not_taken() {
    let (older, newer, _, _) = older_and_newer();
    let damage = |path: &Path| {
        change_bytes(path, |bytes| {
            let at = bytes.windows(5).position(|part| part == b"body ").unwrap() + 9;
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        });
    };
    for (path, other) in [(newer.one.key(), older.one.key()), (newer.copy_path(), older.copy_path())] {
        let good = fs::read(&path).unwrap();
        damage(&path);
        // The other half is older.
        let two = newer.twin();
        let [(_, one), (_, copy)] = halves(&older, &two);
        fs::copy(&other, if path == newer.one.key() { copy } else { one }).unwrap();
        assert_eq!(two.open().err(), Some(KeeperError::Damaged.into()));
        fs::write(&path, good).unwrap();
    }
    damage(&newer.one.key());
    damage(&newer.copy_path());
    assert_eq!(newer.open().err(), Some(KeeperError::Damaged.into()));
}

#[test]
fn abuse_41_while_one_is_away_reading_goes_on_and_changes_wait() {
    for (half, error) in [(0, KeeperError::Missing), (1, KeeperError::Copy)] {
        for shared in [false, true] {
            let (two, active) = {
                let Scene { two, keeper, active, .. } = Scene::new();
                drop(keeper);
                (two, active)
            };
            let options = if shared { two.options().shared() } else { two.options() };
            let before = options.open(two.one.key(), secret()).unwrap();
            let now = view(&before);
            let away = if half == 0 { &two.one.0 } else { &two.other.0 };
            let aside = two.other.0.with_extension("aside");
            fs::rename(away, &aside).unwrap();
            let refused = |keeper: &FileKeeper| {
                assert_eq!(view(keeper), now);
                assert!(unwrap(keeper, &active).is_ok());
                for _ in 0..2 {
                    assert_eq!(block_on(keeper.candidate(2)).err(), Some(error), "{half} {shared}");
                    assert_eq!(destroy(keeper, [1; 16]).err(), Some(error), "{half} {shared}");
                    assert_eq!(remember(keeper, 2), Err(error), "{half} {shared}");
                }
                assert_eq!(view(keeper), now);
            };
            if shared {
                refused(&before);
            } else {
                assert!(unwrap(&before, &active).is_ok());
                assert_eq!(block_on(before.candidate(2)).err(), Some(error));
                drop(before);
            }
            // One that is opened meanwhile reads too.
            let meanwhile = options.open(two.one.key(), secret()).unwrap();
            refused(&meanwhile);
            fs::rename(&aside, away).unwrap();
            candidate(&meanwhile, 2);
            remember(&meanwhile, 2).unwrap();
            drop(meanwhile);
            assert_eq!(two.is_equal().1, [line(1), line(2)]);
        }
    }
}

#[test]
fn what_is_not_the_same_keepers_is_refused_and_left_alone() {
    let (_, two, _, _) = older_and_newer();
    let other = Folder::new();
    let keeper = FileKeeper::create(other.key(), secret()).unwrap();
    bind(&keeper, VaultId([1; 16])).unwrap();
    drop(keeper);
    let refused = |path: &Path, bytes: &[u8], error: KeeperError| {
        let good = fs::read(path).unwrap();
        fs::write(path, bytes).unwrap();
        assert_eq!(two.open().err(), Some(error.into()));
        assert_eq!(fs::read(path).unwrap(), bytes);
        fs::write(path, good).unwrap();
    };
    for path in [two.one.key(), two.copy_path()] {
        refused(&path, &fs::read(other.key()).unwrap(), KeeperError::Foreign);
        refused(&path, b"a letter to a friend", KeeperError::Damaged);
        refused(&journal(&path), b"a letter to a friend", KeeperError::Damaged);
        refused(&journal(&path), &fs::read(journal(&other.key())).unwrap(), KeeperError::Foreign);
    }
    // One secret, but each went on alone.
    for path in [two.one.key(), two.copy_path()] {
        candidate(&reopen(&path).unwrap(), 7);
    }
    assert_eq!(two.open().err(), Some(KeeperError::Foreign.into()));
    let (_, two, _, _) = older_and_newer();
    for (path, text) in [(two.one.key(), "one"), (two.copy_path(), "other")] {
        let line = Line { number: 4, bytes: text.as_bytes().to_vec() };
        block_on(reopen(&path).unwrap().remember(vec![line])).unwrap();
    }
    assert_eq!(two.open().err(), Some(KeeperError::Foreign.into()));
}

#[test]
fn a_keeper_without_a_copy_gets_one_when_it_is_opened_with_one() {
    let two = Two::new();
    let keeper = bound(&two.one.key());
    let root = candidate(&keeper, 0);
    remember(&keeper, 1).unwrap();
    drop(keeper);
    drop(two.open().unwrap());
    assert_eq!(two.is_equal().1, [line(1)]);
    assert!(unwrap(&reopen(&two.copy_path()).unwrap(), &root).is_ok());
    assert_eq!(two.other.names(), ["c", "c.journal", "c.lock"]);
}

#[test]
fn a_copy_is_created_with_it_and_never_over_something() {
    let two = Two::new();
    fs::write(two.copy_path(), b"a letter to a friend").unwrap();
    let created = |two: &Two| two.options().create(two.one.key(), secret());
    assert_eq!(created(&two).err(), Some(KeeperError::Exists.into()));
    assert!(two.one.names().is_empty());
    fs::remove_file(two.copy_path()).unwrap();
    drop(created(&two).unwrap());
    assert_eq!(created(&two).err(), Some(KeeperError::Exists.into()));
    let same = FileKeeperOptions::new().copy(two.one.key());
    assert_eq!(same.open(two.one.key(), secret()).err(), Some(Misuse::Setting.into()));
    let nowhere = FileKeeperOptions::new().copy(two.one.path("no/c"));
    assert_eq!(nowhere.create(two.one.path("l"), secret()).err(), Some(KeeperError::Copy.into()));
}

#[test]
fn abuse_39_the_copy_is_locked_with_it() {
    let scene = Scene::new();
    assert_eq!(reopen(&scene.two.copy_path()).err(), Some(KeeperError::Locked.into()));
    let swapped = FileKeeperOptions::new().copy(scene.two.one.key());
    assert_eq!(swapped.open(scene.two.copy_path(), secret()).err(), Some(KeeperError::Locked.into()));
    drop(scene.keeper);
    // Either may be named first.
    assert_eq!(view(&swapped.open(scene.two.copy_path(), secret()).unwrap()).1, [line(1)]);
}

#[test]
fn two_handles_share_both() {
    let two = Two::new();
    let one = two.options().shared().create(two.one.key(), secret()).unwrap();
    let other = two.options().shared().open(two.one.key(), secret()).unwrap();
    bind(&one, VAULT).unwrap();
    let root = candidate(&other, 0);
    activate(&one, 1, root.id).unwrap();
    for number in 1..=6 {
        remember(if number % 2 == 0 { &one } else { &other }, number).unwrap();
    }
    let gone = candidate(&one, 1);
    destroy(&other, gone.id).unwrap();
    assert_eq!(unwrap(&one, &gone).err(), Some(KeeperError::NoSuchRoot));
    assert_eq!(view(&one), view(&other));
    let now = view(&one);
    drop((one, other));
    assert_eq!(two.is_equal(), now);
}
