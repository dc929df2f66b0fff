//! A keeper and witness on a local disk.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{KeeperError, Result};
use crate::keeper::{Candidate, ErasureClass, Held, Keeper, RootId, RootKey, Serves, VaultId};
use crate::witness::{Line, Witness};

pub(crate) mod disk;
mod format;
pub(crate) mod journal;
mod secret;
mod state;
pub(crate) mod wrapping;

pub use secret::{Argon2Cost, FileSecret, Passphrase};

use disk::{Disk, Names, Place};
use journal::Journal;
use state::{Needs, State, read};
use wrapping::narrow;

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
/// # One process or several
///
/// [`open`](Self::open) and [`create`](Self::create) take the lock for as long as the keeper lives: no other process has
/// the files meanwhile. [`open_shared`](Self::open_shared) and [`create_shared`](Self::create_shared) are for several
/// processes _of one host_ on one store: each call takes the lock, reads again what another process has changed, and
/// gives the lock back. A call waits up to 10 seconds for its turn, then fails with [`KeeperError::Locked`]; what a
/// process that died in its turn has left is finished by the next call of any. While one process has the files for
/// itself, shared calls fail so too; while shared ones rest, a process may take the files for itself.
///
/// It cannot serve processes on several hosts, and says so: [`Keeper::serves`] is [`Serves::OneProcess`] or
/// [`Serves::OneHost`]. Copies of the files on two hosts are two keepers that know nothing of each other: the first root
/// that one of them makes is missing in the other.
///
/// All work is done in the calling task, which it blocks: a write waits for the disk a few times, a shared call for its
/// turn; opening with a passphrase takes what Argon2id takes, tenths of a second at the default cost, and its memory.
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
/// The lock holds between processes of one host. Do not put the files on a network file system, and do not remove the
/// lock file while a process has them open.
#[derive(Clone)]
pub struct FileKeeper {
    state: Arc<Mutex<State>>,
    serves: Serves,
}

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
        Self::create_on(Disk::default(), path.as_ref(), secret, Serves::OneProcess)
    }

    /// The same for several processes of this host: others may open it with [`open_shared`](Self::open_shared) at once.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_shared(path: impl AsRef<Path>, secret: FileSecret) -> Result<Self> {
        Self::create_on(Disk::default(), path.as_ref(), secret, Serves::OneHost)
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
    /// - [`Misuse::Setting`](crate::error::Misuse::Setting) where its group or others may write to one of the files (Unix): they could put back an
    ///   older one. Being readable is not refused: the key file is encrypted.
    /// - [`KeeperError::Io`].
    pub fn open_with(path: impl AsRef<Path>, secret: FileSecret, max: Argon2Cost) -> Result<Self> {
        Self::open_on(Disk::default(), path.as_ref(), secret, max)
    }

    /// Opens the key file at `path` for several processes of this host, if what it asks of Argon2id is within
    /// [`Argon2Cost::LIMIT`]. See "One process or several" above.
    ///
    /// Later calls can fail with what opening can fail with, where the files were changed by something else: an older
    /// copy that was put in their place is [`KeeperError::Damaged`], a key file under another passphrase or salt
    /// [`KeeperError::WrongSecret`].
    ///
    /// # Errors
    ///
    /// As [`open_with`](Self::open_with); [`KeeperError::Locked`] only where another process has the files for itself, or
    /// for longer than 10 seconds.
    pub fn open_shared(path: impl AsRef<Path>, secret: FileSecret) -> Result<Self> {
        Self::open_shared_with(path, secret, Argon2Cost::LIMIT)
    }

    /// The same, if what the file asks of Argon2id is within `max`.
    ///
    /// # Errors
    ///
    /// As [`open_shared`](Self::open_shared).
    pub fn open_shared_with(path: impl AsRef<Path>, secret: FileSecret, max: Argon2Cost) -> Result<Self> {
        Self::open_shared_on(Disk::default(), path.as_ref(), secret, max)
    }

    #[expect(clippy::needless_pass_by_value, reason = "the secret is wiped when this is done")]
    pub(crate) fn create_on(disk: Disk, path: &Path, secret: FileSecret, serves: Serves) -> Result<Self> {
        let names = Names::of(path)?;
        // Before the lock is taken too, so that nothing is left beside files that are not ours.
        if names.taken() || Journal::is_in_use(&names) {
            return Err(KeeperError::Exists.into());
        }
        let place = if serves == Serves::OneProcess {
            Place::take(disk, names)?
        } else {
            let mut place = Place::at(disk, names)?;
            place.begin_turn()?;
            place.tidy()?;
            place
        };
        if place.names.taken() {
            return Err(KeeperError::Exists.into());
        }
        let mut state = State::fresh(place, &secret)?;
        state.write()?;
        if serves != Serves::OneProcess {
            state.place.end_turn();
        }
        Ok(Self::of(state, serves))
    }

    #[expect(clippy::needless_pass_by_value, reason = "the secret is wiped when this is done")]
    pub(crate) fn open_on(disk: Disk, path: &Path, secret: FileSecret, max: Argon2Cost) -> Result<Self> {
        let names = Names::of(path)?;
        if !names.taken() {
            return Err(KeeperError::Missing.into());
        }
        let place = Place::take(disk, names)?;
        let bytes = read(&place.names)?;
        let mut state = State::of(place, &bytes, &secret, max)?;
        state.refresh_journal()?;
        Ok(Self::of(state, Serves::OneProcess))
    }

    #[expect(clippy::needless_pass_by_value, reason = "the secret is wiped when this is done")]
    pub(crate) fn open_shared_on(
        disk: Disk,
        path: &Path,
        secret: FileSecret,
        max: Argon2Cost,
    ) -> Result<Self> {
        let names = Names::of(path)?;
        if !names.taken() {
            return Err(KeeperError::Missing.into());
        }
        let mut place = Place::at(disk, names)?;
        place.begin_turn()?;
        let bytes = place.tidy().map_err(Into::into).and_then(|()| read(&place.names));
        place.end_turn();
        // Outside of the turn: nobody else shall wait for Argon2.
        let keeper = Self::of(State::of(place, &bytes?, &secret, max)?, Serves::OneHost);
        drop(keeper.try_turn(Needs::Journal)?);
        Ok(keeper)
    }

    fn of(state: State, serves: Serves) -> Self {
        FileKeeper { state: Arc::new(Mutex::new(state)), serves }
    }

    /// A panic elsewhere leaves the state as it was after the last step that succeeded.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state as the files have it now, and nobody else's until it is dropped.
    fn turn(&self, needs: Needs) -> Result<Turn<'_>, KeeperError> {
        self.try_turn(needs).map_err(narrow)
    }

    fn try_turn(&self, needs: Needs) -> Result<Turn<'_>> {
        let mut state = self.state();
        let shared = self.serves != Serves::OneProcess;
        if shared {
            state.place.begin_turn()?;
        }
        let mut turn = Turn { state, shared };
        if shared {
            turn.refresh(needs)?;
        }
        Ok(turn)
    }
}

/// Gives the lock back at its end, where the files are shared.
struct Turn<'a> {
    state: MutexGuard<'a, State>,
    shared: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.shared {
            self.state.place.end_turn();
        }
    }
}

impl Deref for Turn<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Keeper for FileKeeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.turn(Needs::Journal)?.bind(vault)
    }

    async fn candidate(&self, epoch: u64) -> Result<Candidate, KeeperError> {
        self.turn(Needs::Change)?.candidate(epoch)
    }

    async fn activate(&self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        self.turn(Needs::Change)?.activate(epoch, id)
    }

    async fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        self.turn(Needs::Roots)?.unwrap(id, wrapped)
    }

    async fn destroy(&self, id: RootId) -> Result<(), KeeperError> {
        self.turn(Needs::Change)?.destroy(id)
    }

    async fn held(&self) -> Result<Vec<Held>, KeeperError> {
        Ok(self.turn(Needs::Roots)?.held())
    }

    fn erasure_class(&self) -> ErasureClass {
        ErasureClass::BestEffort
    }

    fn serves(&self) -> Serves {
        self.serves
    }
}

impl Witness for FileKeeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.turn(Needs::Journal)?.bind(vault)
    }

    async fn recall(&self, from: u64) -> Result<Vec<Line>, KeeperError> {
        Ok(self.turn(Needs::Journal)?.recall(from))
    }

    async fn remember(&self, lines: Vec<Line>) -> Result<(), KeeperError> {
        self.turn(Needs::Journal)?.remember(lines)
    }

    fn serves(&self) -> Serves {
        self.serves
    }
}

#[cfg(test)]
mod tests;
