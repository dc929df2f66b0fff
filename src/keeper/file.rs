//! A keeper and witness on a local disk.

use std::fmt;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{KeeperError, Misuse, Result};
use crate::keeper::{Candidate, ErasureClass, Held, Keeper, RootId, RootKey, VaultId};
use crate::witness::{Line, Witness};

pub(crate) mod disk;
mod format;
pub(crate) mod journal;
mod secret;
pub(crate) mod wrapping;

pub use secret::{Argon2Cost, FileSecret, Passphrase};

use disk::{Disk, Names, Place};
use format::{Contents, FileKey, Root};
use journal::Journal;
use wrapping::{WrappingKey, narrow};

/// Keeper and witness in one, for one host: a key file, encrypted under a passphrase or a key, and a journal beside it.
/// Clones are the same keeper; it may be given to a vault as both.
///
/// At `path` lies the key file, with a header that an operator can read: format, key derivation, vault, and a number
/// that grows with each write, which tells the newest copy. Beside it lie `path.journal`, what the witness remembers,
/// and `path.lock`, which is empty and must not be removed. While the key file is replaced, `path.new` and `path.old`
/// exist; what a crash leaves of them is overwritten and removed by the next open. All are made for their owner only.
/// A symbolic link is followed.
///
/// Bind it to its vault before anything else: until then [`Keeper::candidate`], [`Keeper::unwrap`] and
/// [`Witness::remember`] fail with [`KeeperError::Missing`], because there is no journal yet. At most 4,096 roots are
/// held at once; one more candidate is [`KeeperError::Full`]. Destroying the active root is refused with
/// [`KeeperError::Locked`]. A line longer than 4 KiB is refused like a gap.
///
/// All work is done in the calling task, which it blocks: a write waits for the disk a few times; opening with a
/// passphrase takes what Argon2id takes, tenths of a second at the default cost, and its memory.
///
/// # Security
///
/// Its erasure class is [`BestEffort`](ErasureClass::BestEffort). A destroyed wrapping key is gone from the key file
/// before `destroy` returns, and the blocks that held it were overwritten with zeros. File systems that write in new
/// places (btrfs, ZFS, APFS, snapshots of any kind) and drives that do (flash) keep the old blocks for a while all the
/// same. What is left there is encrypted under the passphrase or key of the file, and so is every copy that was made of
/// it: whoever has an old copy and that secret has the old wrapping keys. Keep no copy for longer than the vault's
/// restore window.
///
/// The journal is authenticated, not encrypted. A damaged place in it is found; that appends are missing at its end is
/// found by itself only up to the last write of the key file, and by the vault wherever the store knows more. Only the
/// files are checked for being writable by others, not the folders above them.
///
/// The lock holds between processes of one host. Do not put the files on a network file system.
#[derive(Clone)]
pub struct FileKeeper(Arc<Mutex<State>>);

impl fmt::Debug for FileKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKeeper(..)")
    }
}

impl FileKeeper {
    /// Makes a key file at `path`, bound to no vault yet. The folder must exist.
    ///
    /// # Errors
    ///
    /// [`KeeperError::Exists`] where there is a key file or a journal with lines, [`KeeperError::Missing`] where there
    /// is no such folder, [`KeeperError::Locked`], [`KeeperError::Full`], [`KeeperError::Io`]. After the last two a
    /// key file may be there all the same, and can be opened.
    pub fn create(path: impl AsRef<Path>, secret: FileSecret) -> Result<Self> {
        Self::create_on(Disk::default(), path.as_ref(), secret)
    }

    /// Opens the key file at `path`, if what it asks of Argon2id is within [`Argon2Cost::LIMIT`].
    ///
    /// # Errors
    ///
    /// As [`open_with`](Self::open_with).
    pub fn open(path: impl AsRef<Path>, secret: FileSecret) -> Result<Self> {
        Self::open_with(path, secret, Argon2Cost::LIMIT)
    }

    /// Opens the key file at `path`, if what it asks of Argon2id is within `max`.
    ///
    /// # Errors
    ///
    /// - [`KeeperError::Missing`] where there is none.
    /// - [`KeeperError::Locked`] where it is open already, in this process or another.
    /// - [`KeeperError::WrongSecret`], also for a passphrase where it has a key, or a key where it has a passphrase.
    /// - [`KeeperError::Damaged`] where it or its journal is damaged, where the journal is missing, and where it has
    ///   fewer lines than the key file has seen. An append that was interrupted, and so never acknowledged, is no
    ///   damage: it is cut off.
    /// - [`KeeperError::Foreign`] where the journal is another vault's.
    /// - [`Unsupported`](crate::error::Unsupported) for another version, or a cost above `max`.
    /// - [`Misuse::Setting`] where its group or others may write to one of the files (Unix): they could put back an
    ///   older one. Being readable is not refused: the key file is encrypted.
    /// - [`KeeperError::Io`].
    pub fn open_with(path: impl AsRef<Path>, secret: FileSecret, max: Argon2Cost) -> Result<Self> {
        Self::open_on(Disk::default(), path.as_ref(), secret, max)
    }

    #[expect(clippy::needless_pass_by_value, reason = "the secret is wiped when this is done")]
    pub(crate) fn create_on(disk: Disk, path: &Path, secret: FileSecret) -> Result<Self> {
        let names = Names::of(path)?;
        // Before the lock is taken too, so that nothing is left beside files that are not ours.
        if names.taken() || Journal::is_in_use(&names) {
            return Err(KeeperError::Exists.into());
        }
        let place = Place::take(disk, names)?;
        if place.names.taken() {
            return Err(KeeperError::Exists.into());
        }
        let contents = Contents {
            vault: None,
            sequence: 0,
            lines: 0,
            journal: WrappingKey::random()?,
            active: None,
            roots: Vec::new(),
        };
        let mut state = State { place, key: FileKey::fresh(&secret)?, contents, journal: None };
        state.write()?;
        Ok(FileKeeper(Arc::new(Mutex::new(state))))
    }

    #[expect(clippy::needless_pass_by_value, reason = "the secret is wiped when this is done")]
    pub(crate) fn open_on(disk: Disk, path: &Path, secret: FileSecret, max: Argon2Cost) -> Result<Self> {
        let names = Names::of(path)?;
        if !names.taken() {
            return Err(KeeperError::Missing.into());
        }
        let place = Place::take(disk, names)?;
        let file = OpenOptions::new().read(true).open(&place.names.key).map_err(disk::said)?;
        if disk::others_may_write(&file).map_err(disk::said)? {
            return Err(Misuse::Setting.into());
        }
        let bytes = disk::read_bounded(&file, format::MAX_FILE)?;
        let (key, contents) = FileKey::read(&bytes, &secret, max)?;
        let journal = match contents.vault {
            None => None,
            Some(vault) => {
                let key = contents.journal.expose();
                Some(Journal::open(&place.disk, &place.names, key, vault, contents.lines)?)
            }
        };
        Ok(FileKeeper(Arc::new(Mutex::new(State { place, key, contents, journal }))))
    }

    /// A panic elsewhere leaves the state as it was after the last step that succeeded.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct State {
    place: Place,
    key: FileKey,
    contents: Contents,
    journal: Option<Journal>,
}

/// Every change is made in memory, written, and taken back in memory where the write failed: the disk then has it or
/// not, and the next write puts it back to what memory says.
impl State {
    fn write(&mut self) -> Result<(), KeeperError> {
        self.contents.sequence = self.contents.sequence.checked_add(1).ok_or(KeeperError::Damaged)?;
        self.contents.lines = self.journal.as_ref().map_or(0, Journal::count);
        let bytes = self.key.write(&self.contents).map_err(narrow)?;
        self.place.replace(&bytes)
    }

    /// The journal first: a key file that names a vault always has one.
    fn bind(&mut self, vault: VaultId) -> Result<(), KeeperError> {
        if let Some(bound) = self.contents.vault {
            return if bound == vault { Ok(()) } else { Err(KeeperError::Foreign) };
        }
        let key = self.contents.journal.expose();
        self.journal = Some(Journal::create(&self.place.disk, &self.place.names, key, vault)?);
        self.contents.vault = Some(vault);
        self.write().inspect_err(|_| {
            self.contents.vault = None;
            self.journal = None;
        })
    }

    fn vault(&self) -> Result<VaultId, KeeperError> {
        self.contents.vault.ok_or(KeeperError::Missing)
    }

    fn candidate(&mut self, epoch: u64) -> Result<Candidate, KeeperError> {
        let vault = self.vault()?;
        if self.contents.roots.len() >= format::MAX_ROOTS {
            return Err(KeeperError::Full);
        }
        let (key, candidate) = wrapping::candidate(vault)?;
        let Err(index) = self.contents.find(candidate.id) else {
            return Err(KeeperError::Io);
        };
        self.contents.roots.insert(index, Root { id: candidate.id, epoch, activated: false, key });
        if let Err(error) = self.write() {
            self.contents.roots.remove(index);
            return Err(error);
        }
        Ok(candidate)
    }

    fn activate(&mut self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        if self.contents.epoch().is_some_and(|now| epoch <= now) {
            return Ok(());
        }
        let index = self.contents.find(id).map_err(|_| KeeperError::NoSuchRoot)?;
        let root = self.contents.roots.get_mut(index).ok_or(KeeperError::NoSuchRoot)?;
        let before = (root.epoch, root.activated, self.contents.active);
        (root.epoch, root.activated, self.contents.active) = (epoch, true, Some(id));
        self.write().inspect_err(|_| {
            if let Some(root) = self.contents.roots.get_mut(index) {
                (root.epoch, root.activated, self.contents.active) = before;
            }
        })
    }

    fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        let vault = self.vault()?;
        let index = self.contents.find(id).map_err(|_| KeeperError::NoSuchRoot)?;
        self.contents.roots.get(index).ok_or(KeeperError::NoSuchRoot)?.key.unwrap(vault, id, wrapped)
    }

    fn destroy(&mut self, id: RootId) -> Result<(), KeeperError> {
        if self.contents.active == Some(id) {
            return Err(wrapping::ACTIVE);
        }
        if let Ok(index) = self.contents.find(id) {
            let root = self.contents.roots.remove(index);
            if let Err(error) = self.write() {
                self.contents.roots.insert(index, root);
                return Err(error);
            }
        }
        // Not destroyed while the content before it lies there: said again by every further call until it is gone.
        self.place.tidy()
    }

    fn held(&self) -> Vec<Held> {
        let held = |root: &Root| Held { id: root.id, epoch: root.epoch, activated: root.activated };
        self.contents.roots.iter().map(held).collect()
    }

    fn recall(&self, from: u64) -> Vec<Line> {
        self.journal.as_ref().map_or_else(Vec::new, |journal| journal.recall(from))
    }

    fn remember(&mut self, lines: Vec<Line>) -> Result<(), KeeperError> {
        self.journal.as_mut().ok_or(KeeperError::Missing)?.append(lines)
    }
}

impl Keeper for FileKeeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.state().bind(vault)
    }

    async fn candidate(&self, epoch: u64) -> Result<Candidate, KeeperError> {
        self.state().candidate(epoch)
    }

    async fn activate(&self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        self.state().activate(epoch, id)
    }

    async fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        self.state().unwrap(id, wrapped)
    }

    async fn destroy(&self, id: RootId) -> Result<(), KeeperError> {
        self.state().destroy(id)
    }

    async fn held(&self) -> Result<Vec<Held>, KeeperError> {
        Ok(self.state().held())
    }

    fn erasure_class(&self) -> ErasureClass {
        ErasureClass::BestEffort
    }
}

impl Witness for FileKeeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.state().bind(vault)
    }

    async fn recall(&self, from: u64) -> Result<Vec<Line>, KeeperError> {
        Ok(self.state().recall(from))
    }

    async fn remember(&self, lines: Vec<Line>) -> Result<(), KeeperError> {
        self.state().remember(lines)
    }
}

#[cfg(test)]
mod tests;
