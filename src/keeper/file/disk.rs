//! Where the key file lies: the lock beside it, its replacement, and the overwriting of what it replaced.
//!
//! The new content is written beside the key file (`.new`) and brought to the disk. Then the key file steps aside
//! (`.old`), the new content takes its place, and the folder is brought to the disk: from here on the new content
//! holds. Only then is the old content overwritten with zeros, brought to the disk, and removed. Because it keeps a
//! name until then, a crash does not lose sight of it: the next open overwrites it.
//!
//! What each state found on open means:
//!
//! | key file | `.old` | `.new` |                                                                    |
//! | -------- | ------ | ------ | ------------------------------------------------------------------ |
//! | there    |        | there  | stopped while writing: `.new` is overwritten                       |
//! |          | there  | there  | stopped while taking its place: `.old` goes back                   |
//! | there    | there  |        | stopped before or while overwriting: `.old` is overwritten         |

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock as _, SystemClock};
use crate::error::KeeperError;

/// What a fault can stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Write,
    Sync,
    SyncFolder,
    Rename,
    Cut,
    Remove,
}

/// Asked before every operation that changes something. Only tests have one.
pub(crate) trait Gate: Send + Sync + std::fmt::Debug {
    fn pass(&self, operation: Operation) -> io::Result<()>;
}

/// The file system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Option<Arc<dyn Gate>>);

impl Disk {
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn through(gate: Arc<dyn Gate>) -> Self {
        Disk(Some(gate))
    }

    fn pass(&self, operation: Operation) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |gate| gate.pass(operation))
    }

    /// For reading and writing; with permissions for the owner only where it is made.
    pub(super) fn create(&self, path: &Path, options: &mut OpenOptions) -> io::Result<File> {
        self.pass(Operation::Create)?;
        for_owner(options.read(true).write(true)).open(path)
    }

    pub(super) fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        if self.0.is_none() {
            return file.write_all(bytes);
        }
        // Two operations, so that a test can stop between the halves: a torn write.
        let (first, second) = bytes.split_at(bytes.len().div_ceil(2));
        self.pass(Operation::Write)?;
        file.write_all(first)?;
        self.pass(Operation::Write)?;
        file.write_all(second)
    }

    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        self.pass(Operation::Sync)?;
        file.sync_all()
    }

    /// Without it a rename is not durable (POSIX says nothing of the folder when a file is synced).
    pub(super) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.pass(Operation::SyncFolder)?;
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }

    pub(super) fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        self.pass(Operation::Cut)?;
        file.set_len(length)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass(Operation::Rename)?;
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.pass(Operation::Remove)?;
        fs::remove_file(path)
    }

    /// Overwrites with zeros, brings them to the disk, and removes. Best effort: see the docs of the keeper.
    fn wipe(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        let mut left = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        let zeros = [0; 4096];
        while left > 0 {
            let some = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
            self.write(&file, zeros.get(..some).unwrap_or(&zeros))?;
            left = left.saturating_sub(u64::try_from(some).unwrap_or(left));
        }
        self.sync(&file)?;
        drop(file);
        self.remove(path)
    }
}

#[cfg(unix)]
fn for_owner(options: &mut OpenOptions) -> &mut OpenOptions {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600)
}

#[cfg(not(unix))]
fn for_owner(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// A file that others may write can be put back to an older state by them.
#[cfg(unix)]
pub(super) fn others_may_write(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(file.metadata()?.permissions().mode() & 0o022 != 0)
}

#[cfg(not(unix))]
pub(super) fn others_may_write(_file: &File) -> io::Result<bool> {
    Ok(false)
}

/// All of it, unless it is longer than `limit`: nothing of a file that cannot be ours is taken into memory.
pub(super) fn read_bounded(file: &File, limit: u64) -> Result<Vec<u8>, KeeperError> {
    let mut bytes = Vec::new();
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(said)?;
    if u64::try_from(read).is_ok_and(|read| read <= limit) { Ok(bytes) } else { Err(KeeperError::Damaged) }
}

/// What the operating system said, without its text: that may name the path.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn said(error: io::Error) -> KeeperError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => KeeperError::Full,
        io::ErrorKind::NotFound => KeeperError::Missing,
        io::ErrorKind::AlreadyExists => KeeperError::Exists,
        _ => KeeperError::Io,
    }
}

/// How long a shared call waits for its turn. A turn lasts for a few syncs.
const TURN: Duration = Duration::from_secs(10);

/// The names, and the lock: held as long as this lives, or for a turn at a time.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) disk: Disk,
    pub(super) names: Names,
    /// A replacement did not come to its end: something may have to be put back or overwritten.
    untidy: bool,
    lock: File,
}

#[derive(Debug)]
pub(super) struct Names {
    pub(super) key: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) folder: PathBuf,
    old: PathBuf,
    new: PathBuf,
    lock: PathBuf,
}

impl Names {
    /// Symbolic links are followed first: otherwise two names of one file would have two locks, and a replacement
    /// would replace the link.
    pub(super) fn of(path: &Path) -> Result<Self, KeeperError> {
        let key = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = fs::canonicalize(folder.unwrap_or(Path::new("."))).map_err(said)?;
                folder.join(path.file_name().ok_or(KeeperError::Missing)?)
            }
            Err(error) => return Err(said(error)),
        };
        let beside = |suffix: &str| {
            let mut name = OsString::from(key.as_os_str());
            name.push(suffix);
            PathBuf::from(name)
        };
        Ok(Names {
            folder: key.parent().ok_or(KeeperError::Missing)?.to_owned(),
            journal: beside(".journal"),
            old: beside(".old"),
            new: beside(".new"),
            lock: beside(".lock"),
            key,
        })
    }

    pub(super) fn has_key(&self) -> bool {
        there(&self.key)
    }

    /// Whether there is a key file, or one that stepped aside.
    pub(super) fn taken(&self) -> bool {
        there(&self.key) || there(&self.old)
    }
}

fn there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Given back by name: a child process that was forked a moment ago shares the open file, and with it the lock, until it
/// runs its own program.
impl Drop for Place {
    fn drop(&mut self) {
        self.end_turn();
    }
}

impl Place {
    /// Takes the lock for life, and finishes what a crash interrupted.
    pub(super) fn take(disk: Disk, names: Names) -> Result<Self, KeeperError> {
        let mut place = Self::at(disk, names)?;
        if !place.try_lock()? {
            return Err(KeeperError::Locked);
        }
        place.tidy()?;
        Ok(place)
    }

    /// Without the lock: each turn takes it.
    pub(super) fn at(disk: Disk, names: Names) -> Result<Self, KeeperError> {
        let lock = disk.create(&names.lock, OpenOptions::new().create(true).truncate(false)).map_err(said)?;
        Ok(Place { disk, names, untidy: true, lock })
    }

    fn try_lock(&self) -> Result<bool, KeeperError> {
        match self.lock.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(said(error)),
        }
    }

    /// Takes the lock, waiting for others to give it back. It asks again and again, because no system call waits for a
    /// lock and for no longer than so; a waiting call is not served in the order of asking.
    pub(super) fn begin_turn(&mut self) -> Result<(), KeeperError> {
        let since = SystemClock.monotonic();
        let mut pause = Duration::from_micros(200);
        while !self.try_lock()? {
            if SystemClock.monotonic().saturating_sub(since) >= TURN {
                return Err(KeeperError::Locked);
            }
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2).min(Duration::from_millis(5));
        }
        // Whoever had the last turn may have died in it.
        self.untidy = true;
        Ok(())
    }

    /// Where giving it back fails, the system does so when the file is closed.
    pub(super) fn end_turn(&self) {
        drop(self.lock.unlock());
    }

    /// After an error the old content stands, or the new one: the caller goes on with the old. After success the new
    /// content is durable; whether the old content is overwritten is told by [`tidy`](Self::tidy).
    pub(super) fn replace(&mut self, bytes: &[u8]) -> Result<(), KeeperError> {
        self.tidy()?;
        self.untidy = true;
        if let Err(error) = self.swap(bytes) {
            // Gives back the space at once where it can; where it cannot, the next call tries again.
            let _ = self.tidy();
            return Err(said(error));
        }
        self.untidy = there(&self.names.old) && self.disk.wipe(&self.names.old).is_err();
        Ok(())
    }

    fn swap(&self, bytes: &[u8]) -> io::Result<()> {
        let Names { key, old, new, folder, .. } = &self.names;
        let file = self.disk.create(new, OpenOptions::new().create_new(true))?;
        self.disk.write(&file, bytes)?;
        self.disk.sync(&file)?;
        drop(file);
        if there(key) {
            self.disk.rename(key, old)?;
        }
        self.disk.rename(new, key)?;
        self.disk.sync_folder(folder)
    }

    /// Finishes what was interrupted. Does nothing where nothing was.
    pub(super) fn tidy(&mut self) -> Result<(), KeeperError> {
        if self.untidy {
            self.finish().map_err(said)?;
            self.untidy = false;
        }
        Ok(())
    }

    /// Nothing is overwritten before the folder is on the disk: after a power failure the zeros could otherwise stand
    /// under the name of the key file.
    fn finish(&self) -> io::Result<()> {
        let Names { key, old, new, folder, .. } = &self.names;
        if !there(key) && there(old) {
            self.disk.rename(old, key)?;
        }
        if there(new) {
            self.disk.sync_folder(folder)?;
            self.disk.wipe(new)?;
        }
        if there(old) {
            // Where the sync after the renaming has failed, a second one may succeed although what the first could
            // not write is lost (Rebello and others, "Can Applications Recover from fsync Failures?",
            // USENIX ATC 2020). One more renaming makes the folder be written again.
            self.disk.rename(old, new)?;
            self.disk.sync_folder(folder)?;
            self.disk.wipe(new)?;
        }
        Ok(())
    }
}
