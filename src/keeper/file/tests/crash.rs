//! Every operation of every change, failed once, and the process ended there.

use super::super::disk::{Asked, Disk, Gate, is_zero};
use super::super::slots::{FILE, SLOT};
use super::*;

/// A keeper with an active root, an old one, two lines, and faults.
struct Scene {
    folder: Folder,
    faults: KeeperFaults,
    keeper: FileKeeper,
    old: Candidate,
    active: Candidate,
}

impl Scene {
    fn new() -> Self {
        let (folder, faults) = (Folder::new(), KeeperFaults::new());
        let keeper = faults.create(folder.key(), secret()).unwrap();
        bind(&keeper, VAULT).unwrap();
        let (old, active) = (candidate(&keeper, 0), candidate(&keeper, 1));
        activate(&keeper, 1, old.id).unwrap();
        activate(&keeper, 2, active.id).unwrap();
        remember(&keeper, 1).unwrap();
        remember(&keeper, 2).unwrap();
        Scene { folder, faults, keeper, old, active }
    }
}

type Change = fn(&Scene) -> Result<(), KeeperError>;

const CHANGES: [(&str, Change); 4] = [
    ("candidate", |scene| block_on(scene.keeper.candidate(2)).map(drop)),
    ("activate", |scene| activate(&scene.keeper, 3, scene.old.id)),
    ("destroy", |scene| destroy(&scene.keeper, scene.old.id)),
    ("remember", |scene| block_on(scene.keeper.remember(vec![line(3), line(4)]))),
];

type View = (Vec<(u64, bool)>, Vec<Line>);

/// What can be seen of a keeper. Of a candidate only that there is one more.
fn view(keeper: &FileKeeper) -> View {
    let mut roots: Vec<_> = held(keeper).iter().map(|held| (held.epoch, held.activated)).collect();
    roots.sort_unstable();
    (roots, recall(keeper))
}

/// The number of operations of a change, and what is there before and after it.
fn measured(change: Change) -> (usize, [View; 2]) {
    let scene = Scene::new();
    let (start, before) = (scene.faults.operations(), view(&scene.keeper));
    change(&scene).unwrap();
    (scene.faults.operations().saturating_sub(start), [before, view(&scene.keeper)])
}

fn is_tidy(folder: &Folder) {
    assert_eq!(folder.names(), ["k", "k.journal", "k.lock"]);
}

#[test]
fn abuse_36_killed_at_any_operation_it_is_before_or_after() {
    for (name, change) in CHANGES {
        let (operations, states) = measured(change);
        assert!(operations > 2);
        for at in 0..=operations {
            let scene = Scene::new();
            scene.faults.kill(at);
            let acknowledged = change(&scene).is_ok();
            let Scene { folder, keeper, active, .. } = scene;
            drop(keeper);
            let keeper = reopen(&folder.key()).unwrap();
            let now = view(&keeper);
            assert!(states.contains(&now), "{name} killed at {at}");
            assert!(!acknowledged || now == states[1], "{name} acknowledged, killed at {at}");
            assert!(acknowledged || at < operations, "{name} killed after its end");
            assert!(unwrap(&keeper, &active).is_ok());
            is_tidy(&folder);
        }
    }
}

#[test]
fn abuse_36_killed_again_while_reopening_it_is_before_or_after() {
    for (name, change) in CHANGES {
        let (operations, states) = measured(change);
        for at in 0..operations {
            let scene = Scene::new();
            scene.faults.kill(at);
            let acknowledged = change(&scene).is_ok();
            let folder = scene.folder.copy();
            for second in 0..12 {
                let faults = KeeperFaults::new();
                faults.kill(second);
                let again = folder.copy();
                drop(faults.open(again.key(), secret()));
                let now = view(&reopen(&again.key()).unwrap());
                assert!(states.contains(&now), "{name} killed at {at}, then {second}");
                assert!(
                    !acknowledged || now == states[1],
                    "{name} acknowledged, killed at {at}, then {second}"
                );
                is_tidy(&again);
            }
        }
    }
}

#[test]
fn abuse_36_failed_once_it_can_be_repeated() {
    for (name, change) in CHANGES {
        let (operations, states) = measured(change);
        for at in 0..operations {
            let scene = Scene::new();
            scene.faults.fail_once(at);
            let acknowledged = change(&scene).is_ok();
            let now = view(&scene.keeper);
            assert!(states.contains(&now), "{name} failed at {at}");
            assert!(!acknowledged || now == states[1], "{name} failed at {at}");
            if !acknowledged {
                change(&scene).unwrap();
            }
            assert_eq!(view(&scene.keeper), states[1], "{name} repeated after {at}");
            drop(scene.keeper);
            assert_eq!(view(&reopen(&scene.folder.key()).unwrap()), states[1], "{name} repeated after {at}");
            is_tidy(&scene.folder);
        }
    }
}

/// An error after the journal's bytes were written leaves them there: memory must not have them, and another line of
/// the same number must take their place.
#[test]
fn abuse_37_nothing_is_built_on_a_failed_append() {
    let (operations, _) = measured(CHANGES[3].1);
    for at in 0..operations {
        let scene = Scene::new();
        scene.faults.fail_once(at);
        let failed = Line { number: 3, bytes: vec![0xEE; 600] };
        block_on(scene.keeper.remember(vec![failed])).unwrap_err();
        assert_eq!(recall(&scene.keeper), [line(1), line(2)]);
        let other = Line { number: 3, bytes: b"another".to_vec() };
        block_on(scene.keeper.remember(vec![other.clone()])).unwrap();
        let bytes = fs::read(scene.folder.path("k.journal")).unwrap();
        let left = bytes.windows(8).any(|part| part == [0xEE; 8]);
        assert!(!left, "what failed at {at} is cleared away");
        remember(&scene.keeper, 4).unwrap();
        drop(scene.keeper);
        assert_eq!(recall(&reopen(&scene.folder.key()).unwrap()), [line(1), line(2), other, line(4)]);
    }
}

#[test]
fn abuse_37_what_lies_there_after_a_failed_append_is_verified() {
    let scene = Scene::new();
    scene.faults.fail_once(2);
    remember(&scene.keeper, 3).unwrap_err();
    let path = scene.folder.path("k.journal");
    let mut bytes = fs::read(&path).unwrap();
    bytes[70] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(remember(&scene.keeper, 3), Err(KeeperError::Damaged));
}

/// The order in which a crash can do no harm.
#[test]
fn the_new_content_is_on_the_disk_before_the_old_is_overwritten() {
    use Operation::{Sync, Write};
    let traced = |change: Change| {
        let scene = Scene::new();
        let start = scene.faults.operations();
        change(&scene).unwrap();
        let mut trace = scene.faults.trace().split_off(start);
        trace.dedup();
        trace
    };
    for (_, change) in &CHANGES[..3] {
        // The new content; the old one with zeros; its first byte.
        let expected = [Write, Sync, Write, Sync, Write];
        assert_eq!(traced(*change), expected);
    }
    assert_eq!(traced(CHANGES[3].1), [Write, Sync]);
}

#[test]
fn killed_while_created_or_bound_it_can_be_created_or_opened() {
    let faults = KeeperFaults::new();
    let folder = Folder::new();
    let keeper = faults.create(folder.key(), secret()).unwrap();
    let created = faults.operations();
    bind(&keeper, VAULT).unwrap();
    let all = faults.operations();
    for at in 0..all {
        let (folder, faults) = (Folder::new(), KeeperFaults::new());
        faults.kill(at);
        let acknowledged = match faults.create(folder.key(), secret()) {
            Ok(keeper) => bind(&keeper, VAULT).is_ok(),
            Err(_) => false,
        };
        assert!(!acknowledged || at > created);
        let keeper = match reopen(&folder.key()) {
            // Nothing, or half of something that never was a keeper.
            Err(Error::Keeper(KeeperError::Missing | KeeperError::Damaged)) => {
                FileKeeper::create(folder.key(), secret()).unwrap()
            }
            other => other.unwrap(),
        };
        bind(&keeper, VAULT).unwrap();
        remember(&keeper, 1).unwrap();
        let root = candidate(&keeper, 0);
        drop(keeper);
        let keeper = reopen(&folder.key()).unwrap();
        assert!(unwrap(&keeper, &root).is_ok());
        assert_eq!(recall(&keeper), [line(1)]);
        is_tidy(&folder);
    }
}

#[test]
fn binding_failed_once_and_repeated_and_then_killed_can_be_opened() {
    for at in 0..20 {
        for then in 0..20 {
            let (folder, faults) = (Folder::new(), KeeperFaults::new());
            let keeper = faults.create(folder.key(), secret()).unwrap();
            faults.fail_once(at);
            let _ = bind(&keeper, VAULT);
            faults.kill(then);
            let acknowledged = bind(&keeper, VAULT).is_ok();
            drop(keeper);
            let keeper = reopen(&folder.key()).unwrap();
            assert!(!acknowledged || keeper.state().contents.vault == Some(VAULT));
            bind(&keeper, VAULT).unwrap();
            remember(&keeper, 1).unwrap();
        }
    }
}

/// Everything goes on without room; forgetting until the journal's own is used up.
#[test]
fn abuse_38_on_a_full_disk_all_goes_on_until_the_room_is_used_up_and_nothing_is_lost() {
    for (name, change) in CHANGES {
        let scene = Scene::new();
        scene.faults.disk_full(true);
        let before = view(&scene.keeper);
        change(&scene).unwrap();
        assert_ne!(view(&scene.keeper), before, "{name}");
    }
    let scene = Scene::new();
    scene.faults.disk_full(true);
    let long = |number| Line { number, bytes: vec![7; 1000] };
    let mut lines = recall(&scene.keeper);
    let full = (3..200).find(|number| {
        let done = block_on(scene.keeper.remember(vec![long(*number)]));
        if done.is_ok() {
            lines.push(long(*number));
        } else {
            assert_eq!(done, Err(KeeperError::Full));
        }
        assert_eq!(recall(&scene.keeper), lines);
        done.is_err()
    });
    let full = full.expect("there is no endless room");
    assert!(full > 3 + 60, "room for 64 KiB was kept, not for {full} lines");
    assert_eq!(block_on(scene.keeper.remember(vec![long(full)])), Err(KeeperError::Full));
    // A shorter one may find room; and the key file needs none.
    destroy(&scene.keeper, candidate(&scene.keeper, 3).id).unwrap();
    let (held, folder) = (held(&scene.keeper), scene.folder.copy());
    let keeper = reopen(&folder.key()).unwrap();
    assert_eq!((super::held(&keeper), recall(&keeper)), (held, lines.clone()), "what a crash leaves here");
    scene.faults.disk_full(false);
    block_on(scene.keeper.remember(vec![long(full)])).unwrap();
    lines.push(long(full));
    assert_eq!(recall(&scene.keeper), lines);
    drop(scene.keeper);
    assert_eq!(recall(&reopen(&scene.folder.key()).unwrap()), lines);
}

/// The old content is still there: it is not said to be destroyed, and the next call overwrites it.
#[test]
fn a_root_is_destroyed_only_when_the_content_before_it_is_overwritten() {
    let (operations, _) = measured(CHANGES[2].1);
    let scene = Scene::new();
    scene.faults.kill(operations - 1);
    destroy(&scene.keeper, scene.old.id).unwrap_err();
    assert_eq!(unwrap(&scene.keeper, &scene.old).err(), Some(KeeperError::NoSuchRoot));
    destroy(&scene.keeper, scene.old.id).unwrap_err();
    scene.faults.clear();
    destroy(&scene.keeper, scene.old.id).unwrap();
    is_tidy(&scene.folder);
}

/// The slot that counts, and whether the other one is all zeros.
fn counting(folder: &Folder) -> (usize, bool) {
    let bytes = fs::read(folder.key()).unwrap();
    assert_eq!(bytes.len(), FILE);
    let is_zero = |slot: &[u8]| slot.iter().all(|byte| *byte == 0);
    let (first, second) = bytes.split_at(SLOT);
    (usize::from(is_zero(first)), is_zero(first) || is_zero(second))
}

/// One slot is overwritten. The last byte of the overwriting is not waited for.
fn one_is_gone(folder: &Folder) -> bool {
    let bytes = fs::read(folder.key()).unwrap();
    let (first, second) = bytes.split_at(SLOT);
    [first, second].iter().any(|slot| is_zero(&slot[1..]))
}

#[test]
fn the_slots_take_turns_and_the_old_one_is_overwritten() {
    for (name, change) in &CHANGES[..3] {
        let scene = Scene::new();
        let before = counting(&scene.folder);
        change(&scene).unwrap();
        let now = counting(&scene.folder);
        assert!(before.1 && now.1 && now.0 != before.0, "{name}");
    }
}

/// What each change has acknowledged holds after a power failure, whichever sectors of what was not synced are there.
#[test]
fn abuse_36_after_a_power_failure_at_any_operation_it_is_before_or_after() {
    for (name, change) in CHANGES {
        let (operations, states) = measured(change);
        for at in 0..=operations {
            let scene = Scene::new();
            scene.faults.kill(at);
            let acknowledged = change(&scene).is_ok();
            for seed in 0..12 {
                let left = Folder::new();
                scene.faults.power_failure(seed, &left.0).unwrap();
                let now = view(&reopen(&left.key()).unwrap());
                assert!(states.contains(&now), "{name} at {at}, {seed}");
                assert!(!acknowledged || now == states[1], "{name} acknowledged, at {at}, {seed}");
                assert!(counting(&left).1);
            }
        }
    }
}

/// A sync that fails once loses for good what it should have written, whatever the cache shows.
#[test]
fn abuse_37_nothing_acknowledged_is_built_on_a_failed_sync() {
    for (name, change) in CHANGES {
        let (operations, states) = measured(change);
        for at in 0..operations {
            for reopened in [false, true] {
                let mut scene = Scene::new();
                scene.faults.fail_once(at);
                let acknowledged = change(&scene).is_ok();
                if reopened {
                    // The next process sees the same cache.
                    drop(scene.keeper);
                    scene.keeper = scene.faults.open(scene.folder.key(), secret()).unwrap();
                }
                if !acknowledged && view(&scene.keeper) != states[1] {
                    change(&scene).unwrap();
                }
                assert_eq!(view(&scene.keeper), states[1], "{name} at {at}");
                if name == "destroy" {
                    destroy(&scene.keeper, scene.old.id).unwrap();
                }
                for seed in 0..6 {
                    let left = Folder::new();
                    scene.faults.power_failure(seed, &left.0).unwrap();
                    assert!(name != "destroy" || one_is_gone(&left), "{name} at {at}");
                    let now = view(&reopen(&left.key()).unwrap());
                    assert_eq!(now, states[1], "{name} at {at}, {seed}, reopened {reopened}");
                }
            }
        }
    }
}

/// The first process is killed, or is told of a failed sync and killed; the next one goes on with what the cache shows, is
/// killed too, and then the power fails.
#[test]
fn abuse_37_what_another_process_left_in_the_cache_is_written_again_before_it_is_built_on() {
    for (name, change) in CHANGES {
        let (operations, states) = measured(change);
        for at in 0..operations {
            for sync_failed in [false, true] {
                for second in (0..8).map(Some).chain([None]) {
                    let scene = Scene::new();
                    if sync_failed {
                        scene.faults.fail_once(at);
                    }
                    scene.faults.kill(at + usize::from(sync_failed));
                    let acknowledged = change(&scene).is_ok();
                    scene.faults.clear();
                    drop(scene.keeper);
                    if let Some(second) = second {
                        scene.faults.kill(second);
                    }
                    let seen = scene.faults.open(scene.folder.key(), secret()).map(|keeper| view(&keeper));
                    for seed in 0..2 {
                        let left = Folder::new();
                        scene.faults.power_failure(seed, &left.0).unwrap();
                        let is_gone = one_is_gone(&left);
                        let now = view(&reopen(&left.key()).unwrap());
                        let case = format!("{name} at {at}, {sync_failed}, then {second:?}, {seed}");
                        assert!(states.contains(&now), "{case}");
                        assert!(!acknowledged || now == states[1], "{case}");
                        assert!(second.is_some() || seen.as_ref() == Ok(&now), "{case}");
                        // Before opening it here has finished anything.
                        assert!(second.is_some() || is_gone, "{case}");
                    }
                }
            }
        }
    }
}

/// A medium that takes every write, and keeps another.
#[derive(Debug, Default)]
struct Lying(std::sync::atomic::AtomicBool);

impl Gate for Lying {
    fn pass(&self, asked: &Asked<'_>) -> std::io::Result<()> {
        if asked.operation == Operation::Sync && self.0.load(std::sync::atomic::Ordering::Relaxed) {
            let mut bytes = fs::read(asked.path).unwrap();
            for at in [300, SLOT + 300] {
                bytes[at] ^= u8::from(bytes[at] != 0);
            }
            fs::write(asked.path, bytes).unwrap();
        }
        Ok(())
    }
}

#[test]
fn what_does_not_read_back_as_it_was_written_does_not_count() {
    let (folder, lying) = (Folder::new(), std::sync::Arc::new(Lying::default()));
    let options = FileKeeperOptions::new().on(Disk::through(lying.clone()));
    let keeper = options.create(folder.key(), secret()).unwrap();
    bind(&keeper, VAULT).unwrap();
    let root = candidate(&keeper, 0);
    lying.0.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(block_on(keeper.candidate(1)).err(), Some(KeeperError::Io));
    assert_eq!(held(&keeper).len(), 1);
    assert!(unwrap(&keeper, &root).is_ok());
}
