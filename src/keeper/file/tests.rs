use std::path::{Path, PathBuf};
use std::{env, fs};

use pollster::block_on;

use super::disk::Operation;
use super::{Argon2Cost, FileKeeper, FileKeeperOptions, FileSecret, Passphrase};
use crate::crypto;
use crate::error::{Error, KeeperError, Result};
use crate::keeper::{Candidate, ErasureClass, Held, Keeper, RootId, RootKey, VaultId};
use crate::testing::KeeperFaults;
use crate::witness::{Line, Witness};

mod change_secret;
mod copy;
mod crash;
mod place;
mod shared;

const VAULT: VaultId = VaultId([0xAB; 16]);

/// A folder of its own, removed at the end. In memory where that is possible: thousands of syncs are simulated here, and
/// need no disk.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        let name = u128::from_be_bytes(crypto::random().unwrap());
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { env::temp_dir() };
        let folder = parent.join(format!("customer-vault-{name:032x}"));
        fs::create_dir(&folder).unwrap();
        Folder(fs::canonicalize(folder).unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn key(&self) -> PathBuf {
        self.path("k")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn copy(&self) -> Folder {
        let copy = Folder::new();
        for name in self.names() {
            fs::copy(self.path(&name), copy.path(&name)).unwrap();
        }
        copy
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn secret() -> FileSecret {
    FileSecret::key([0x5A; 32].into())
}

fn words(text: &str) -> FileSecret {
    FileSecret::passphrase_at(Passphrase::new(text.to_owned()).unwrap(), Argon2Cost::insecure_for_tests())
}

fn line(number: u64) -> Line {
    Line { number, bytes: format!("line {number}").into_bytes() }
}

fn bind(keeper: &FileKeeper, vault: VaultId) -> Result<(), KeeperError> {
    block_on(Keeper::bind(keeper, vault))
}

fn candidate(keeper: &FileKeeper, epoch: u64) -> Candidate {
    block_on(keeper.candidate(epoch)).unwrap()
}

fn activate(keeper: &FileKeeper, epoch: u64, id: RootId) -> Result<(), KeeperError> {
    block_on(keeper.activate(epoch, id))
}

fn unwrap(keeper: &FileKeeper, root: &Candidate) -> Result<RootKey, KeeperError> {
    block_on(Keeper::unwrap(keeper, root.id, &root.wrapped))
}

fn destroy(keeper: &FileKeeper, id: RootId) -> Result<(), KeeperError> {
    block_on(keeper.destroy(id))
}

fn held(keeper: &FileKeeper) -> Vec<Held> {
    block_on(keeper.held()).unwrap()
}

fn remember(keeper: &FileKeeper, number: u64) -> Result<(), KeeperError> {
    block_on(keeper.remember(vec![line(number)]))
}

fn recall(keeper: &FileKeeper) -> Vec<Line> {
    block_on(keeper.recall(1)).unwrap()
}

fn bound(path: &Path) -> FileKeeper {
    let keeper = FileKeeper::create(path, secret()).unwrap();
    bind(&keeper, VAULT).unwrap();
    keeper
}

fn reopen(path: &Path) -> Result<FileKeeper> {
    FileKeeper::open(path, secret())
}

#[test]
fn what_was_done_is_there_after_reopening() {
    let folder = Folder::new();
    let keeper = bound(&folder.key());
    let (one, two) = (candidate(&keeper, 0), candidate(&keeper, 1));
    activate(&keeper, 1, one.id).unwrap();
    remember(&keeper, 1).unwrap();
    drop(keeper);
    let keeper = reopen(&folder.key()).unwrap();
    for (root, epoch, activated) in [(&one, 1, true), (&two, 1, false)] {
        assert_eq!(unwrap(&keeper, root).unwrap().expose(), root.key.expose());
        assert!(held(&keeper).contains(&Held { id: root.id, epoch, activated }));
    }
    assert_eq!(recall(&keeper), [line(1)]);
    assert_eq!(Keeper::erasure_class(&keeper), ErasureClass::BestEffort);
    assert_eq!(folder.names(), ["k", "k.journal", "k.lock"]);
}

#[test]
fn a_clone_is_the_same_keeper() {
    let folder = Folder::new();
    let keeper = bound(&folder.key());
    let root = candidate(&keeper.clone(), 0);
    assert!(unwrap(&keeper, &root).is_ok());
}

#[test]
fn what_is_destroyed_is_gone_after_reopening_too() {
    let folder = Folder::new();
    let keeper = bound(&folder.key());
    let root = candidate(&keeper, 0);
    destroy(&keeper, root.id).unwrap();
    assert_eq!(unwrap(&keeper, &root).err(), Some(KeeperError::NoSuchRoot));
    destroy(&keeper, root.id).unwrap();
    drop(keeper);
    let keeper = reopen(&folder.key()).unwrap();
    assert_eq!(unwrap(&keeper, &root).err(), Some(KeeperError::NoSuchRoot));
    assert!(held(&keeper).is_empty());
}

#[test]
fn activation_never_goes_backwards_and_the_active_root_is_not_destroyed() {
    let folder = Folder::new();
    let keeper = bound(&folder.key());
    let (one, two) = (candidate(&keeper, 0), candidate(&keeper, 1));
    assert_eq!(activate(&keeper, 1, [0; 16]), Err(KeeperError::NoSuchRoot));
    activate(&keeper, 1, one.id).unwrap();
    assert!(destroy(&keeper, one.id).is_err());
    activate(&keeper, 2, two.id).unwrap();
    for (epoch, id) in [(1, one.id), (2, one.id), (0, [0; 16])] {
        activate(&keeper, epoch, id).unwrap();
    }
    assert!(held(&keeper).contains(&Held { id: one.id, epoch: 1, activated: true }));
    drop(keeper);
    let keeper = reopen(&folder.key()).unwrap();
    assert!(destroy(&keeper, two.id).is_err());
    assert!(unwrap(&keeper, &two).is_ok());
    destroy(&keeper, one.id).unwrap();
}

#[test]
fn it_serves_one_vault() {
    let folder = Folder::new();
    let keeper = FileKeeper::create(folder.key(), secret()).unwrap();
    assert_eq!(block_on(keeper.candidate(0)).err(), Some(KeeperError::Missing));
    assert_eq!(remember(&keeper, 1), Err(KeeperError::Missing));
    assert!(recall(&keeper).is_empty());
    drop(keeper);
    let keeper = reopen(&folder.key()).unwrap();
    block_on(Witness::bind(&keeper, VAULT)).unwrap();
    bind(&keeper, VAULT).unwrap();
    assert_eq!(bind(&keeper, VaultId([0; 16])), Err(KeeperError::Foreign));
    drop(keeper);
    let keeper = reopen(&folder.key()).unwrap();
    assert_eq!(bind(&keeper, VaultId([0; 16])), Err(KeeperError::Foreign));
    bind(&keeper, VAULT).unwrap();
}

#[test]
fn the_journal_of_another_vault_or_keeper_is_refused() {
    let (folder, other) = (Folder::new(), Folder::new());
    drop(bound(&folder.key()));
    let keeper = FileKeeper::create(other.key(), secret()).unwrap();
    bind(&keeper, VaultId([0; 16])).unwrap();
    drop(keeper);
    fs::copy(other.path("k.journal"), folder.path("k.journal")).unwrap();
    assert_eq!(reopen(&folder.key()).err(), Some(KeeperError::Foreign.into()));
    let same = Folder::new();
    drop(bound(&same.key()));
    fs::copy(same.path("k.journal"), folder.path("k.journal")).unwrap();
    assert_eq!(reopen(&folder.key()).err(), Some(KeeperError::Damaged.into()));
    fs::remove_file(folder.path("k.journal")).unwrap();
    assert_eq!(reopen(&folder.key()).err(), Some(KeeperError::Damaged.into()));
}

#[test]
fn a_journal_older_than_the_key_file_is_damage() {
    let folder = Folder::new();
    let keeper = bound(&folder.key());
    remember(&keeper, 1).unwrap();
    let older = fs::read(folder.path("k.journal")).unwrap();
    remember(&keeper, 2).unwrap();
    candidate(&keeper, 0);
    drop(keeper);
    fs::write(folder.path("k.journal"), older).unwrap();
    assert_eq!(reopen(&folder.key()).err(), Some(KeeperError::Damaged.into()));
}

#[test]
fn abuse_39_a_second_one_is_told_that_it_is_locked() {
    let folder = Folder::new();
    let keeper = bound(&folder.key());
    assert_eq!(reopen(&folder.key()).err(), Some(KeeperError::Locked.into()));
    let clone = keeper.clone();
    drop(keeper);
    assert_eq!(reopen(&folder.key()).err(), Some(KeeperError::Locked.into()));
    drop(clone);
    assert!(reopen(&folder.key()).is_ok());
}

#[cfg(unix)]
#[test]
fn abuse_39_two_names_of_one_file_have_one_lock() {
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let keeper = bound(&folder.key());
    std::os::unix::fs::symlink(folder.key(), elsewhere.key()).unwrap();
    assert_eq!(reopen(&elsewhere.key()).err(), Some(KeeperError::Locked.into()));
    drop(keeper);
    let root = candidate(&reopen(&elsewhere.key()).unwrap(), 0);
    assert!(unwrap(&reopen(&folder.key()).unwrap(), &root).is_ok());
    assert_eq!(elsewhere.names(), ["k"]);
}

#[test]
fn what_is_there_is_not_created_and_what_is_not_is_not_opened() {
    let folder = Folder::new();
    assert_eq!(reopen(&folder.key()).err(), Some(KeeperError::Missing.into()));
    assert_eq!(FileKeeper::create(folder.path("no/k"), secret()).err(), Some(KeeperError::Missing.into()));
    assert_eq!(FileKeeper::create("", secret()).err(), Some(KeeperError::Missing.into()));
    assert_eq!(FileKeeper::create(&folder.0, secret()).err(), Some(KeeperError::Exists.into()));
    assert!(folder.names().is_empty());
    let keeper = bound(&folder.key());
    remember(&keeper, 1).unwrap();
    drop(keeper);
    assert_eq!(FileKeeper::create(folder.key(), secret()).err(), Some(KeeperError::Exists.into()));
    fs::remove_file(folder.key()).unwrap();
    assert_eq!(FileKeeper::create(folder.key(), secret()).err(), Some(KeeperError::Exists.into()));
    assert_eq!(reopen(&folder.key()).err(), Some(KeeperError::Missing.into()));
}

#[test]
fn the_wrong_passphrase_opens_nothing_and_changes_nothing() {
    let folder = Folder::new();
    drop(FileKeeper::create(folder.key(), words("correct horse battery")).unwrap());
    let before = fs::read(folder.key()).unwrap();
    for wrong in [words("correct horse batterY"), secret()] {
        assert_eq!(FileKeeper::open(folder.key(), wrong).err(), Some(KeeperError::WrongSecret.into()));
    }
    assert_eq!(fs::read(folder.key()).unwrap(), before);
    assert!(FileKeeper::open(folder.key(), words("correct horse battery")).is_ok());
}

#[test]
fn a_key_file_of_another_length_is_refused() {
    let folder = Folder::new();
    drop(bound(&folder.key()));
    fs::write(folder.key(), vec![b'a'; super::slots::FILE + 1]).unwrap();
    assert_eq!(reopen(&folder.key()).err(), Some(KeeperError::Damaged.into()));
}

#[cfg(unix)]
#[test]
fn files_are_for_their_owner_and_refused_where_others_may_write() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let keeper = bound(&folder.key());
    candidate(&keeper, 0);
    drop(keeper);
    let mode = |name: &str| fs::metadata(folder.path(name)).unwrap().permissions().mode() & 0o777;
    for name in folder.names() {
        assert_eq!(mode(&name), 0o600, "{name}");
    }
    let set = |name: &str, mode| {
        fs::set_permissions(folder.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    for name in ["k", "k.journal"] {
        for bad in [0o620, 0o602, 0o666] {
            set(name, bad);
            assert_eq!(reopen(&folder.key()).err(), Some(KeeperError::Exposed.into()), "{name}");
        }
        set(name, 0o640);
    }
    // Readable is accepted: the key file is encrypted.
    candidate(&reopen(&folder.key()).unwrap(), 0);
}

#[test]
fn abuse_34_no_key_lies_in_the_files_in_the_clear_or_in_debug() {
    let folder = Folder::new();
    let keeper = bound(&folder.key());
    let root = candidate(&keeper, 0);
    remember(&keeper, 1).unwrap();
    let state = keeper.state();
    let secrets = [
        *state.contents.roots[0].key.expose(),
        *state.contents.journal.expose(),
        *root.key.expose(),
        [0x5A; 32],
    ];
    drop(state);
    let shown = format!("{keeper:?} {root:?} {:?}", keeper.state().contents);
    for key in secrets {
        let hex = format!("{:032x}", u128::from_be_bytes(*key.first_chunk().unwrap()));
        for name in folder.names() {
            let bytes = fs::read(folder.path(&name)).unwrap();
            // Eight bytes in a row are no accident; in base64 at each of three offsets.
            assert!(!bytes.windows(8).any(|window| key.windows(8).any(|part| part == window)), "{name}");
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.to_lowercase().contains(&hex[..16]), "{name}");
            for skip in 0..3 {
                let base64 = <base64ct::Base64 as base64ct::Encoding>::encode_string(&key[skip..skip + 12]);
                assert!(!text.contains(&base64), "{name}");
            }
        }
        assert!(!shown.contains(&hex[..16]) && !shown.contains(&format!("{:?}", &key[..4])[1..]));
    }
}

#[test]
fn there_is_a_bound_on_the_roots_held() {
    let folder = Folder::new();
    let keeper = bound(&folder.key());
    let root = candidate(&keeper, 0);
    {
        let mut state = keeper.state();
        for number in 1..super::format::MAX_ROOTS {
            let mut id = [0xFF; 16];
            id[8..].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
            let key = super::wrapping::WrappingKey::random().unwrap();
            state.contents.roots.push(super::format::Root { id, epoch: 0, activated: false, key });
        }
    }
    assert_eq!(block_on(keeper.candidate(0)).err(), Some(KeeperError::Full));
    activate(&keeper, 1, root.id).unwrap();
    drop(keeper);
    let keeper = reopen(&folder.key()).unwrap();
    assert_eq!(held(&keeper).len(), super::format::MAX_ROOTS, "the largest key file can be read again");
    let other = held(&keeper)[1].id;
    destroy(&keeper, if other == root.id { held(&keeper)[0].id } else { other }).unwrap();
    candidate(&keeper, 1);
}
