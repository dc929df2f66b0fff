//! A keeper and witness on a local disk.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{KeeperError, Result};
use crate::keeper::{Candidate, ErasureClass, Held, Keeper, RootId, RootKey, Serves, VaultId};
use crate::store::Volume;
use crate::witness::{Line, Witness};

pub(crate) mod disk;
mod format;
pub(crate) mod journal;
mod options;
mod place;
mod secret;
mod slots;
mod state;
pub(crate) mod wrapping;

pub use options::FileKeeperOptions;
pub use secret::{Argon2Cost, FileSecret, Passphrase};

use format::FileKey;
use state::{Needs, State};
use wrapping::narrow;

/// Keeper and witness in one, for one host: a key file, encrypted under a passphrase or a key, and a journal beside it.
/// Clones are the same keeper; it may be given to a vault as both.
///
/// At `path` lies the key file: 640 KiB, of which one half holds the content and the other one zeros. The content begins
/// with a header that an operator can read (`strings shop.keys | head -7`): format, key derivation, vault, and a number that
/// grows with each write, which tells the newest copy. Beside it lie `path.journal`, what the witness remembers, and
/// `path.lock`, which is empty and must not be removed. All are made for their owner only. A symbolic link is followed.
///
/// Bind it to its vault before anything else: until then [`Keeper::candidate`], [`Keeper::unwrap`] and
/// [`Witness::remember`] fail with [`KeeperError::Missing`], because there is no journal yet. At most 4,096 roots are
/// held at once; one more candidate is [`KeeperError::Full`]. Destroying the active root is refused with
/// [`KeeperError::Locked`]. A line longer than 4 KiB is refused like a gap.
///
/// # One process or several
///
/// [`open`](Self::open) and [`create`](Self::create) take the lock for as long as the keeper lives: no other process has
/// the files meanwhile. [`FileKeeperOptions::shared`] is for several processes _of one host_ on one store: each call
/// takes the lock, reads again what another process has changed, and gives the lock back. A call waits up to 10 seconds
/// for its turn, then fails with [`KeeperError::Locked`]; what a process that died in its turn has left is finished by the
/// next call of any. While one process has the files for itself, shared calls fail so too; while shared ones rest, a
/// process may take the files for itself.
///
/// A shared call can fail with what opening can fail with, where the files were changed by something else: an older copy
/// that was put in their place is [`KeeperError::Damaged`]. Where another process has changed the secret, it is
/// [`KeeperError::WrongSecret`]: open it again with the new one.
///
/// It cannot serve processes on several hosts, and says so: [`Keeper::serves`] is [`Serves::OneProcess`] or
/// [`Serves::OneHost`]. Copies of the files on two hosts are two keepers that know nothing of each other: the first root
/// that one of them makes is missing in the other.
///
/// All work is done in the calling task, which it blocks: a write waits for the disk a few times, a shared call for its
/// turn; opening with a passphrase takes what Argon2id takes, tenths of a second at the default cost, and its memory.
///
/// # Power failures and full disks
///
/// A change is on the disk, and read back, before its call returns; the old content stands until then and is overwritten
/// after it. Whatever fails in between, the file opens as it was before the change or after it; what was acknowledged
/// holds. Roots are made, activated and destroyed without room on the disk, since the file never grows, and the
/// journal keeps at least 64 KiB ready: some hundred lines. When that is used up too, [`KeeperError::Full`] says so,
/// and nothing is lost. This holds where the file system writes in place; one that writes in new places (btrfs, ZFS)
/// or a file that was copied with holes (`cp --sparse`, `rsync -S`) may need room for every change.
///
/// # A second copy
///
/// [`FileKeeperOptions::copy`] keeps all files twice, best on two volumes. Every change is on the disk in both before its
/// call returns, and a destroyed wrapping key is overwritten in both. Where they differ at opening, the one with the
/// higher number counts, and is brought to the other, whichever that is; so are a missing and a damaged one. What
/// differs in another way is refused: [`KeeperError::Foreign`] for another vault's and for two histories of one.
///
/// While one of the two cannot be reached, reading goes on from the other, and changes fail: with [`KeeperError::Copy`]
/// where it is the second, with the disk's own error where it is the first. To go on without it, open without it.
/// [`Vault::doctor`](crate::Vault::doctor) says where both lie on one volume, or on the store's. It sees an empty mount
/// point as an ordinary folder, like everybody: look at what it says.
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
/// Reading back shows that the system took what was written at its place; what is on the medium only the medium knows.
///
/// The journal is authenticated, not encrypted. A damaged place in it is found; that appends are missing at its end is
/// found by itself only up to the last write of the key file, and by the vault wherever the store knows more.
///
/// On Unix the files must not be writable for others, nor the folder they lie in, unless it is sticky; a group that has the
/// number of the folder's owner is taken for the owner's own. On Linux both must belong to root or to whoever runs this.
/// Folders above are not looked at, nor are access control lists.
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

const READ: Needs = Needs { change: false, journal: false };
const READ_LINES: Needs = Needs { change: false, journal: true };
const CHANGE: Needs = Needs { change: true, journal: false };
const CHANGE_LINES: Needs = Needs { change: true, journal: true };

impl FileKeeper {
    /// Makes a key file at `path` for one process, bound to no vault yet. The folder must exist.
    ///
    /// # Errors
    ///
    /// As [`FileKeeperOptions::create`].
    pub fn create(path: impl AsRef<Path>, secret: FileSecret) -> Result<Self> {
        FileKeeperOptions::new().create(path, secret)
    }

    /// Opens the key file at `path` for one process, if what it asks of Argon2id is within [`Argon2Cost::LIMIT`].
    ///
    /// # Errors
    ///
    /// As [`FileKeeperOptions::open`].
    pub fn open(path: impl AsRef<Path>, secret: FileSecret) -> Result<Self> {
        FileKeeperOptions::new().open(path, secret)
    }

    /// Puts the key file under another secret: from one passphrase to another, to a key, or back. Whatever was opened goes
    /// on, in this handle and its clones; other processes that share the file get [`KeeperError::WrongSecret`] until they
    /// open it again with the new one. A crash leaves the old secret or the new one; after an error either may open it.
    ///
    /// # Security
    ///
    /// The content under the old secret is overwritten before this returns, in the second copy too. **Other copies of the
    /// file, made before, stay readable with the old secret**, and so do the roots in them: this does not change them.
    /// Where the old secret may be known to others, replace the vault's root too, and settle: only then do copies stop
    /// opening the store.
    ///
    /// # Errors
    ///
    /// Where it cannot be written; [`Error::NoRandomness`](crate::Error::NoRandomness).
    #[expect(clippy::needless_pass_by_value, reason = "the secret is wiped when this is done")]
    pub fn change_secret(&self, new: FileSecret) -> Result<()> {
        // Outside of the turn: nobody else shall wait for Argon2.
        let key = FileKey::fresh(&new)?;
        Ok(self.try_turn(CHANGE)?.change_key(key)?)
    }

    fn of(state: State, serves: Serves) -> Self {
        FileKeeper { state: Arc::new(Mutex::new(state)), serves }
    }

    /// The first turn of a handle: what was interrupted is finished, and what one copy lacks is brought to it.
    fn begin(&self) -> Result<()> {
        self.try_turn(READ_LINES).map(drop)
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
        turn.refresh(needs)?;
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
        self.turn(CHANGE_LINES)?.bind(vault)
    }

    async fn candidate(&self, epoch: u64) -> Result<Candidate, KeeperError> {
        self.turn(CHANGE)?.candidate(epoch)
    }

    async fn activate(&self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        self.turn(CHANGE)?.activate(epoch, id)
    }

    async fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        self.turn(READ)?.unwrap(id, wrapped)
    }

    async fn destroy(&self, id: RootId) -> Result<(), KeeperError> {
        self.turn(CHANGE)?.destroy(id)
    }

    async fn held(&self) -> Result<Vec<Held>, KeeperError> {
        Ok(self.turn(READ)?.held())
    }

    fn erasure_class(&self) -> ErasureClass {
        ErasureClass::BestEffort
    }

    fn serves(&self) -> Serves {
        self.serves
    }

    fn volumes(&self) -> Vec<Volume> {
        self.state().place.volumes()
    }
}

impl Witness for FileKeeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.turn(CHANGE_LINES)?.bind(vault)
    }

    async fn recall(&self, from: u64) -> Result<Vec<Line>, KeeperError> {
        Ok(self.turn(READ_LINES)?.recall(from))
    }

    async fn remember(&self, lines: Vec<Line>) -> Result<(), KeeperError> {
        self.turn(CHANGE_LINES)?.remember(lines)
    }

    fn serves(&self) -> Serves {
        self.serves
    }

    fn volumes(&self) -> Vec<Volume> {
        self.state().place.volumes()
    }
}

#[cfg(test)]
mod tests;
