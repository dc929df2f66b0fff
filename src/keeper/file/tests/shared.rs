//! Several handles and several processes on the same files.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::*;
use crate::clock::{Clock as _, SystemClock};
use crate::keeper::Serves;

fn options() -> FileKeeperOptions {
    FileKeeperOptions::new().shared()
}

fn shared(path: &Path) -> FileKeeper {
    options().open(path, secret()).unwrap()
}

/// Files that are bound, and nobody's.
fn files() -> Folder {
    let folder = Folder::new();
    let keeper = options().create(folder.key(), secret()).unwrap();
    bind(&keeper, VAULT).unwrap();
    folder
}

/// Appends what comes next until `last` is there, as processes do that find lines in a common store.
fn remember_up_to(keeper: &FileKeeper, last: u64) {
    loop {
        let known = u64::try_from(recall(keeper).len()).unwrap();
        if known >= last {
            return;
        }
        let next = (known.saturating_sub(1).max(1)..=known.saturating_add(2).min(last)).map(line).collect();
        block_on(keeper.remember(next)).unwrap();
    }
}

#[test]
fn each_says_how_many_it_serves() {
    let folder = files();
    let one = shared(&folder.key());
    assert_eq!((Keeper::serves(&one), Witness::serves(&one)), (Serves::OneHost, Serves::OneHost));
    drop(one);
    let alone = reopen(&folder.key()).unwrap();
    assert_eq!((Keeper::serves(&alone), Witness::serves(&alone)), (Serves::OneProcess, Serves::OneProcess));
    assert_eq!(Keeper::serves(&options().create(folder.path("l"), secret()).unwrap()), Serves::OneHost);
    assert_eq!(Keeper::serves(&FileKeeper::create(folder.path("m"), secret()).unwrap()), Serves::OneProcess);
}

#[test]
fn what_one_handle_does_the_other_sees_at_its_next_call() {
    let folder = Folder::new();
    let one = options().create(folder.key(), secret()).unwrap();
    let two = shared(&folder.key());
    bind(&one, VAULT).unwrap();
    bind(&two, VAULT).unwrap();
    assert_eq!(bind(&two, VaultId([0; 16])), Err(KeeperError::Foreign));
    let (old, new) = (candidate(&one, 0), candidate(&two, 0));
    activate(&two, 1, old.id).unwrap();
    activate(&one, 2, new.id).unwrap();
    assert_eq!(held(&one), held(&two));
    assert_eq!(unwrap(&one, &new).unwrap().expose(), new.key.expose());
    assert!(destroy(&two, new.id).is_err(), "it is active");
    destroy(&two, old.id).unwrap();
    assert_eq!(unwrap(&one, &old).err(), Some(KeeperError::NoSuchRoot));
    for number in 1..=9 {
        remember(if number % 3 == 0 { &one } else { &two }, number).unwrap();
    }
    assert_eq!(remember(&one, 11), Err(KeeperError::Damaged));
    let other = Line { number: 4, bytes: b"another".to_vec() };
    assert_eq!(block_on(one.remember(vec![other])), Err(KeeperError::Foreign));
    assert_eq!(recall(&one), (1..=9).map(line).collect::<Vec<_>>());
    assert_eq!(recall(&one), recall(&two));
    drop((one, two));
    assert_eq!(recall(&reopen(&folder.key()).unwrap()).len(), 9);
    assert_eq!(folder.names(), ["k", "k.journal", "k.lock"]);
}

#[test]
fn abuse_39_one_that_has_the_files_for_itself_excludes_shared_ones_and_waits_for_none() {
    let folder = files();
    let one = shared(&folder.key());
    let alone = reopen(&folder.key()).unwrap();
    let root = candidate(&alone, 0);
    // Its turn does not come while the other lives.
    let waited = thread::scope(|scope| {
        let (waits, opens) =
            (scope.spawn(|| held_or(&one)), scope.spawn(|| options().open(folder.key(), secret()).map(drop)));
        (waits.join().unwrap(), opens.join().unwrap())
    });
    assert_eq!(waited, (Err(KeeperError::Locked), Err(KeeperError::Locked.into())));
    // It does as soon as the other has ended.
    thread::scope(|scope| {
        let waits = scope.spawn(|| unwrap(&one, &root).map(drop));
        thread::sleep(Duration::from_millis(300));
        drop(alone);
        assert_eq!(waits.join().unwrap(), Ok(()));
    });
}

fn held_or(keeper: &FileKeeper) -> Result<(), KeeperError> {
    block_on(keeper.held()).map(drop)
}

#[test]
fn a_passphrase_is_derived_once_a_handle() {
    let folder = Folder::new();
    let cost = Argon2Cost::new(64 << 10, 3, 1).unwrap();
    let words =
        || FileSecret::passphrase_at(Passphrase::new("correct horse battery".to_owned()).unwrap(), cost);
    let one = options().create(folder.key(), words()).unwrap();
    bind(&one, VAULT).unwrap();
    let timed = |work: &mut dyn FnMut()| {
        let since = SystemClock.monotonic();
        work();
        SystemClock.monotonic().checked_sub(since).unwrap()
    };
    let mut two = None;
    let opening = timed(&mut || two = Some(options().open(folder.key(), words()).unwrap()));
    let two = two.unwrap();
    let calls = timed(&mut || {
        for epoch in 0..4 {
            candidate(&one, epoch);
            assert_eq!(held(&two).len(), usize::try_from(epoch).unwrap() + 1);
        }
    });
    assert!(calls < opening * 4, "{calls:?} for eight calls, {opening:?} for one derivation");
}

#[test]
fn an_older_copy_put_under_an_open_handle_is_damage() {
    let folder = files();
    let one = shared(&folder.key());
    remember(&one, 1).unwrap();
    let older = folder.copy();
    let root = candidate(&one, 0);
    remember(&one, 2).unwrap();
    let newer = folder.copy();
    fs::copy(older.path("k"), folder.path("k")).unwrap();
    assert_eq!(unwrap(&one, &root).err(), Some(KeeperError::Damaged));
    assert_eq!(block_on(one.candidate(1)).err(), Some(KeeperError::Damaged));
    fs::copy(newer.path("k"), folder.path("k")).unwrap();
    assert!(unwrap(&one, &root).is_ok());
    fs::copy(older.path("k.journal"), folder.path("k.journal")).unwrap();
    assert_eq!(remember(&one, 3), Err(KeeperError::Damaged));
    assert_eq!(block_on(one.recall(1)), Err(KeeperError::Damaged));
    fs::copy(newer.path("k.journal"), folder.path("k.journal")).unwrap();
    remember(&one, 3).unwrap();
    // Another keeper of the same secret has another salt.
    let other = files();
    fs::copy(other.path("k"), folder.path("k")).unwrap();
    assert_eq!(unwrap(&one, &root).err(), Some(KeeperError::WrongSecret));
    fs::remove_file(folder.path("k")).unwrap();
    assert_eq!(unwrap(&one, &root).err(), Some(KeeperError::Missing));
}

#[test]
fn abuse_36_a_call_killed_at_any_operation_is_finished_by_the_next_call_of_another_handle() {
    type Call = fn(&FileKeeper, &Candidate) -> Result<(), KeeperError>;
    let calls: [(&str, Call); 4] = [
        ("candidate", |keeper, _| block_on(keeper.candidate(2)).map(drop)),
        ("activate", |keeper, old| activate(keeper, 3, old.id)),
        ("destroy", |keeper, old| destroy(keeper, old.id)),
        ("remember", |keeper, _| block_on(keeper.remember(vec![line(2), line(3)]))),
    ];
    for (name, call) in calls {
        for fails_once in [false, true] {
            for at in 0.. {
                let (folder, faults) = (files(), KeeperFaults::new());
                let two = shared(&folder.key());
                let (old, active) = (candidate(&two, 0), candidate(&two, 0));
                activate(&two, 1, old.id).unwrap();
                activate(&two, 2, active.id).unwrap();
                remember(&two, 1).unwrap();
                let one = faults.under(options()).open(folder.key(), secret()).unwrap();
                let before = faults.operations();
                if fails_once {
                    faults.fail_once(at);
                } else {
                    faults.kill(at);
                }
                let acknowledged = call(&one, &old).is_ok();
                let operations = faults.operations().saturating_sub(before);
                // It reads first: whatever it sees it may build on.
                let seen = (held(&two), recall(&two));
                assert!(unwrap(&two, &active).is_ok(), "{name} at {at}");
                call(&two, &old).unwrap();
                if !acknowledged && name != "candidate" {
                    faults.clear();
                    call(&one, &old).unwrap();
                }
                faults.clear();
                let now = (held(&one), recall(&one));
                assert_eq!(now, (held(&two), recall(&two)), "{name} at {at}");
                let done = match name {
                    "candidate" => now.0.len() >= 3 + usize::from(acknowledged),
                    "activate" => now.0.contains(&Held { id: old.id, epoch: 3, activated: true }),
                    "destroy" => now.0.iter().all(|held| held.id != old.id),
                    _ => now.1 == [line(1), line(2), line(3)],
                };
                assert!(done, "{name} at {at}: {seen:?}, then {now:?}");
                drop((one, two));
                assert_eq!((held(&reopen(&folder.key()).unwrap()), 0), (now.0, 0), "{name} at {at}");
                assert_eq!(folder.names(), ["k", "k.journal", "k.lock"], "{name} at {at}");
                if at >= operations {
                    break;
                }
            }
        }
    }
}

/// What lies whole in the journal and was never synced is synced before another handle passes it over.
#[test]
fn abuse_37_a_line_of_a_process_that_died_before_its_sync_is_synced_by_the_next() {
    let folder = files();
    let (dies, goes_on) = (KeeperFaults::new(), KeeperFaults::new());
    let one = dies.under(options()).open(folder.key(), secret()).unwrap();
    let two = goes_on.under(options()).open(folder.key(), secret()).unwrap();
    dies.kill(2);
    remember(&one, 1).unwrap_err();
    let before = goes_on.operations();
    remember(&two, 1).unwrap();
    let done = goes_on.trace().split_off(before);
    assert_eq!(done, [Operation::Write, Operation::Write, Operation::Sync]);
    // Once is enough.
    remember(&two, 1).unwrap();
    assert_eq!(goes_on.operations(), before + 3);
    drop((one, two));
    // A process that has the files for itself does the same when it opens them.
    let alone = KeeperFaults::new();
    drop(alone.open(folder.key(), secret()).unwrap());
    assert!(alone.trace().ends_with(&[Operation::Write, Operation::Write, Operation::Sync]));
}

const FOLDER: &str = "CUSTOMER_VAULT_TEST_KEEPER";
const WORK: &str = "CUSTOMER_VAULT_TEST_WORK";
const LINES: u64 = 60;

/// Not a test by itself: the process that others start, from this very binary.
#[test]
fn child() {
    let (Ok(folder), Ok(work)) = (env::var(FOLDER), env::var(WORK)) else { return };
    let keeper = shared(&Path::new(&folder).join("k"));
    let endless = work == "endless";
    for round in 0_u64.. {
        if !endless && round == 12 {
            break;
        }
        let (kept, gone) = (candidate(&keeper, round), candidate(&keeper, round));
        // Another process may have activated a later one: then nothing happens.
        activate(&keeper, round + 1, kept.id).unwrap();
        destroy(&keeper, gone.id).unwrap();
        assert_eq!(unwrap(&keeper, &gone).err(), Some(KeeperError::NoSuchRoot));
        assert_eq!(unwrap(&keeper, &kept).unwrap().expose(), kept.key.expose());
        if endless {
            let known = u64::try_from(recall(&keeper).len()).unwrap();
            remember_up_to(&keeper, known + 3);
            // So that the file does not fill up.
            let _ = destroy(&keeper, kept.id);
        } else {
            remember_up_to(&keeper, (round + 1) * LINES / 12);
        }
    }
}

fn start(folder: &Folder, work: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "keeper::file::tests::shared::child", "--quiet"])
        .env(FOLDER, &folder.0)
        .env(WORK, work)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn processes_at_once_lose_nothing() {
    let folder = files();
    let mut children: Vec<_> = (0..4).map(|_| start(&folder, "so many")).collect();
    let keeper = shared(&folder.key());
    remember_up_to(&keeper, LINES / 2);
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(recall(&keeper), (1..=LINES).map(line).collect::<Vec<_>>());
    // Each process has kept one root a round, and the last epoch is active.
    let roots = held(&keeper);
    assert_eq!(roots.len(), 4 * 12);
    assert_eq!(roots.iter().filter(|held| held.activated).map(|held| held.epoch).max(), Some(12));
    drop(keeper);
    let alone = reopen(&folder.key()).unwrap();
    assert_eq!((held(&alone), recall(&alone).len()), (roots, usize::try_from(LINES).unwrap()));
    assert_eq!(folder.names(), ["k", "k.journal", "k.lock"]);
}

#[test]
fn abuse_36_processes_killed_again_and_again_leave_it_whole() {
    let folder = files();
    let keeper = shared(&folder.key());
    let root = candidate(&keeper, 0);
    let mut lines = 0;
    for round in 0_u64..12 {
        let mut children: Vec<_> = (0..2).map(|_| start(&folder, "endless")).collect();
        thread::sleep(Duration::from_millis(120 + round * 17));
        let mine = candidate(&keeper, round);
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        for root in [&root, &mine] {
            assert_eq!(unwrap(&keeper, root).unwrap().expose(), root.key.expose());
        }
        destroy(&keeper, mine.id).unwrap();
        let now = recall(&keeper);
        assert!(now.len() >= lines, "{} lines after {lines}", now.len());
        lines = now.len();
        assert_eq!(now, (1..=u64::try_from(lines).unwrap()).map(line).collect::<Vec<_>>());
        let fresh = shared(&folder.key());
        assert_eq!((held(&fresh), recall(&fresh).len()), (held(&keeper), lines));
    }
    assert!(lines > 12, "only {lines} lines: nothing was killed at work");
    drop(keeper);
    assert_eq!(recall(&reopen(&folder.key()).unwrap()).len(), lines);
    assert_eq!(folder.names(), ["k", "k.journal", "k.lock"]);
}
