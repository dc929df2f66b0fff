//! How a file keeper is made or opened, beyond the ordinary.

use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::{Argon2Cost, FileKeeper, FileSecret};
use crate::error::{KeeperError, Result};
use crate::keeper::Serves;

use super::place::Place;
use super::state::{State, is_taken};

/// Settings of a [`FileKeeper`]: several processes, a second copy, the dearest passphrase that is accepted.
///
/// ```
/// use customer_vault::keeper::{FileKeeperOptions, FileSecret};
/// # let disk = std::env::temp_dir().join(format!("customer-vault-copies-{}", std::process::id()));
/// # let other_disk = disk.join("other");
/// # std::fs::create_dir_all(&other_disk).unwrap();
/// # let (secret, again) = (FileSecret::key([7; 32].into()), FileSecret::key([7; 32].into()));
///
/// let options = FileKeeperOptions::new().shared().copy(other_disk.join("shop.keys"));
/// options.create(disk.join("shop.keys"), secret)?;
/// let keeper = options.open(disk.join("shop.keys"), again)?;
/// # std::fs::remove_dir_all(&disk).unwrap();
/// # Ok::<(), customer_vault::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileKeeperOptions {
    shared: bool,
    copy: Option<PathBuf>,
    max_cost: Argon2Cost,
    disk: Disk,
}

impl Default for FileKeeperOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl FileKeeperOptions {
    /// One process, one copy, and [`Argon2Cost::LIMIT`]: what [`FileKeeper::create`] and [`FileKeeper::open`] take.
    #[must_use]
    pub fn new() -> Self {
        FileKeeperOptions { shared: false, copy: None, max_cost: Argon2Cost::LIMIT, disk: Disk::default() }
    }

    /// For several processes of this host. See "One process or several" at [`FileKeeper`].
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// A second copy of all files, at `path`, best on another volume. See "A second copy" at [`FileKeeper`]. Where a keeper
    /// that has none is opened with one, it is made.
    #[must_use]
    pub fn copy(mut self, path: impl Into<PathBuf>) -> Self {
        self.copy = Some(path.into());
        self
    }

    /// The most that opening accepts of what a file asks of Argon2id, in each parameter.
    #[must_use]
    pub fn max_cost(mut self, cost: Argon2Cost) -> Self {
        self.max_cost = cost;
        self
    }

    /// With faults.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn on(mut self, disk: Disk) -> Self {
        self.disk = disk;
        self
    }

    /// Makes a key file at `path`, bound to no vault yet. The folder must exist, and that of the copy too.
    ///
    /// # Errors
    ///
    /// [`KeeperError::Exists`] where there is a key file or a journal with lines, [`KeeperError::Missing`] where there
    /// is no such folder, [`KeeperError::Exposed`], [`KeeperError::Locked`], [`KeeperError::Full`], [`KeeperError::Io`];
    /// [`KeeperError::Copy`] where the copy could not be made;
    /// [`Misuse::Setting`](crate::error::Misuse::Setting) where both paths are one file. After the failure of a disk a
    /// key file may be there all the same, and can be opened.
    #[expect(clippy::needless_pass_by_value, reason = "the secret is wiped when this is done")]
    pub fn create(&self, path: impl AsRef<Path>, secret: FileSecret) -> Result<FileKeeper> {
        let mut place = self.place(path.as_ref())?;
        // Before the locks are taken too, so that nothing is left beside files that are not ours.
        if is_taken(&mut place)? {
            return Err(KeeperError::Exists.into());
        }
        self.lock(&mut place)?;
        if is_taken(&mut place)? {
            return Err(KeeperError::Exists.into());
        }
        let mut state = State::create(place, &secret, self.shared)?;
        if self.shared {
            state.place.end_turn();
        }
        Ok(FileKeeper::of(state, self.serves()))
    }

    /// Opens the key file at `path`.
    ///
    /// # Errors
    ///
    /// - [`KeeperError::Missing`] where there is none.
    /// - [`KeeperError::Locked`] where it is open already, in this process or another; for a shared one only where another
    ///   process has it for itself, or for longer than 10 seconds.
    /// - [`KeeperError::WrongSecret`], also for a passphrase where it has a key, or a key where it has a passphrase.
    /// - [`KeeperError::Damaged`] where it or its journal is damaged, where the journal is missing, and where it has
    ///   fewer lines than the key file has seen. An append that was interrupted, and so never acknowledged, is no
    ///   damage: it is overwritten.
    /// - [`KeeperError::Foreign`] where the journal is another vault's; where the copy is, or has a history of its own.
    /// - [`Unsupported`](crate::error::Unsupported) for another version, or a cost above what is accepted.
    /// - [`KeeperError::Exposed`] where its group or others may write to one of the files or to the folder, or somebody else
    ///   owns them (Unix): they could put back an older one. Being readable is not refused: the key file is encrypted.
    /// - [`KeeperError::Io`].
    #[expect(clippy::needless_pass_by_value, reason = "the secret is wiped when this is done")]
    pub fn open(&self, path: impl AsRef<Path>, secret: FileSecret) -> Result<FileKeeper> {
        let mut place = self.place(path.as_ref())?;
        if !place.is_there() {
            return Err(KeeperError::Missing.into());
        }
        self.lock(&mut place)?;
        let found = place.look();
        if self.shared {
            // Nobody else shall wait for Argon2.
            place.end_turn();
        }
        let state = State::open(place, &found, &secret, self.max_cost, self.shared)?;
        let keeper = FileKeeper::of(state, self.serves());
        keeper.begin()?;
        Ok(keeper)
    }

    fn place(&self, path: &Path) -> Result<Place> {
        Place::of(self.disk.clone(), path, self.copy.as_deref())
    }

    fn lock(&self, place: &mut Place) -> Result<(), KeeperError> {
        if self.shared { place.begin_turn() } else { place.take() }
    }

    fn serves(&self) -> Serves {
        if self.shared { Serves::OneHost } else { Serves::OneProcess }
    }
}
