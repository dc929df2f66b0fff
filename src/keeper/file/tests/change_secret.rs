//! Another secret: the old one opens, or the new one, and never neither.

use super::super::slots::SLOT;
use super::*;

const OLD: &str = "correct horse battery";
const NEW: &str = "staple correct horse";

fn opens(options: &FileKeeperOptions, folder: &Folder, text: &str) -> Result<FileKeeper> {
    options.open(folder.key(), words(text))
}

/// With a root and a line.
fn made(options: &FileKeeperOptions, folder: &Folder) -> (FileKeeper, Candidate) {
    let keeper = options.create(folder.key(), words(OLD)).unwrap();
    bind(&keeper, VAULT).unwrap();
    let root = candidate(&keeper, 0);
    remember(&keeper, 1).unwrap();
    (keeper, root)
}

fn salts(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap();
    bytes
        .chunks(SLOT)
        .map(|slot| String::from_utf8_lossy(slot).into_owned())
        .filter_map(|slot| Some(slot.split_once("salt ")?.1[..32].to_owned()))
        .collect()
}

#[test]
fn the_new_secret_opens_and_the_old_one_does_not() {
    let folder = Folder::new();
    let options = FileKeeperOptions::new();
    let (keeper, root) = made(&options, &folder);
    let before = salts(&folder.key());
    let key = || FileSecret::key([9; 32].into());
    keeper.change_secret(key()).unwrap();
    let now = salts(&folder.key());
    assert!(now.len() == 1 && now != before, "what the old one opens is overwritten");
    // The handle goes on.
    let more = candidate(&keeper, 1);
    remember(&keeper, 2).unwrap();
    drop(keeper);
    assert_eq!(opens(&options, &folder, OLD).err(), Some(KeeperError::WrongSecret.into()));
    let keeper = options.open(folder.key(), key()).unwrap();
    for root in [&root, &more] {
        assert_eq!(unwrap(&keeper, root).unwrap().expose(), root.key.expose());
    }
    assert_eq!(recall(&keeper), [line(1), line(2)]);
    keeper.change_secret(words(NEW)).unwrap();
    drop(keeper);
    assert_eq!(options.open(folder.key(), key()).err(), Some(KeeperError::WrongSecret.into()));
    assert!(unwrap(&opens(&options, &folder, NEW).unwrap(), &root).is_ok());
}

#[test]
fn abuse_36_killed_anywhere_the_old_or_the_new_one_opens_and_the_acknowledged_one_alone() {
    for with_copy in [false, true] {
        for power_fails in [false, true] {
            for at in 0.. {
                let (folder, faults) = (Folder::new(), KeeperFaults::new());
                let options = |folder: &Folder| {
                    let plain = FileKeeperOptions::new();
                    if with_copy { plain.copy(folder.path("c")) } else { plain }
                };
                let (keeper, root) = made(&faults.under(options(&folder)), &folder);
                let start = faults.operations();
                faults.kill(at);
                let acknowledged = keeper.change_secret(words(NEW)).is_ok();
                let operations = faults.operations() - start;
                drop(keeper);
                // Whichever is tried first: what it finds, the other does not undo without its secret.
                for (first, second) in [(OLD, NEW), (NEW, OLD)] {
                    let left = if power_fails {
                        let left = Folder::new();
                        faults.power_failure(u64::try_from(at).unwrap(), &left.0).unwrap();
                        left
                    } else {
                        folder.copy()
                    };
                    let options = options(&left);
                    let opened = opens(&options, &left, first);
                    assert!(!acknowledged || opened.is_ok() == (first == NEW), "{first} at {at}");
                    let keeper = match opened {
                        Ok(keeper) => keeper,
                        Err(error) => {
                            assert_eq!(error, KeeperError::WrongSecret.into(), "{first} at {at}");
                            opens(&options, &left, second).unwrap()
                        }
                    };
                    assert_eq!(unwrap(&keeper, &root).unwrap().expose(), root.key.expose());
                    assert_eq!(recall(&keeper), [line(1)]);
                    assert_eq!(salts(&left.key()).len(), 1);
                    candidate(&keeper, 3);
                }
                if acknowledged && at >= operations {
                    break;
                }
            }
        }
    }
}

#[test]
fn failed_once_it_can_be_repeated() {
    for at in 0..6 {
        let (folder, faults) = (Folder::new(), KeeperFaults::new());
        let (keeper, root) = made(&faults.under(FileKeeperOptions::new()), &folder);
        faults.fail_once(at);
        let _ = keeper.change_secret(words(NEW));
        candidate(&keeper, 3);
        keeper.change_secret(words(NEW)).unwrap();
        drop(keeper);
        assert!(unwrap(&opens(&FileKeeperOptions::new(), &folder, NEW).unwrap(), &root).is_ok());
    }
}

#[test]
fn other_processes_are_told_and_open_it_again() {
    let folder = Folder::new();
    let options = FileKeeperOptions::new().shared();
    let (one, root) = made(&options, &folder);
    let two = opens(&options, &folder, OLD).unwrap();
    one.change_secret(words(NEW)).unwrap();
    assert_eq!(unwrap(&two, &root).err(), Some(KeeperError::WrongSecret));
    assert_eq!(remember(&two, 2), Err(KeeperError::WrongSecret));
    assert_eq!(two.change_secret(words(OLD)).err(), Some(KeeperError::WrongSecret.into()));
    assert!(unwrap(&one, &root).is_ok());
    let two = opens(&options, &folder, NEW).unwrap();
    remember(&two, 2).unwrap();
    assert_eq!(recall(&one), [line(1), line(2)]);
}

/// A copy of which only one half was put under the new secret is the older one, whatever its number says.
#[test]
fn an_older_half_under_the_old_secret_is_brought_up() {
    let folder = Folder::new();
    let options = FileKeeperOptions::new().copy(folder.path("c"));
    let (keeper, root) = made(&options, &folder);
    let older = folder.copy();
    keeper.change_secret(words(NEW)).unwrap();
    drop(keeper);
    for half in ["k", "c"] {
        fs::copy(older.path(half), folder.path(half)).unwrap();
        assert_eq!(opens(&options, &folder, OLD).err(), Some(KeeperError::WrongSecret.into()));
        assert!(unwrap(&opens(&options, &folder, NEW).unwrap(), &root).is_ok());
        assert_eq!(salts(&folder.path("k")), salts(&folder.path("c")));
    }
}
