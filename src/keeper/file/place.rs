//! Where the files lie, once or twice, and the locks beside them.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::{Disk, said};
use super::slots::{Found, Slots};
use crate::clock::{Clock as _, SystemClock};
use crate::error::{Error, KeeperError, Misuse, Result};
use crate::store::Volume;

/// How long a shared call waits for its turn. A turn lasts for a few syncs.
const TURN: Duration = Duration::from_secs(10);

/// The key file with what lies beside it; and the second copy, where there is one. Everything here is done to both.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) disk: Disk,
    halves: Vec<Half>,
}

#[derive(Debug)]
struct Half {
    path: PathBuf,
    /// Not known while its folder is away.
    names: Option<Names>,
    lock: Option<File>,
    locked: bool,
    slots: Slots,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) key: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) folder: PathBuf,
    lock: PathBuf,
}

impl Names {
    /// Symbolic links are followed first: otherwise two names of one file would have two locks.
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
            lock: beside(".lock"),
            key,
        })
    }
}

/// Of which half an error is: those of the copy are one.
pub(super) fn blamed(half: usize, error: KeeperError) -> KeeperError {
    if half == 0 { error } else { KeeperError::Copy }
}

/// Given back by name: a child process that was forked a moment ago shares the open file, and with it the lock, until it
/// runs its own program.
impl Drop for Place {
    fn drop(&mut self) {
        self.end_turn();
    }
}

impl Place {
    /// Nothing is touched yet.
    pub(super) fn of(disk: Disk, path: &Path, copy: Option<&Path>) -> Result<Self> {
        let half = |path: &Path| Half {
            path: path.to_owned(),
            names: None,
            lock: None,
            locked: false,
            slots: Slots::unknown(),
        };
        let mut place = Place { disk, halves: [path].into_iter().chain(copy).map(half).collect() };
        let names: Vec<_> = place.halves.iter_mut().map(|half| half.names().cloned()).collect();
        match names.as_slice() {
            [Ok(first), Ok(second)] if first == second => Err(Misuse::Setting.into()),
            [Err(first), rest @ ..] if rest.iter().all(Result::is_err) => Err((*first).into()),
            _ => Ok(place),
        }
    }

    /// The names of each half; an error where its folder is away.
    pub(super) fn names(&self) -> Vec<Result<Names, KeeperError>> {
        self.halves.iter().map(|half| half.names.clone().ok_or(KeeperError::Missing)).collect()
    }

    /// Whether there is a file at any of its paths.
    pub(super) fn is_there(&self) -> bool {
        self.halves.iter().any(|half| half.names.as_ref().is_some_and(|names| there(&names.key)))
    }

    pub(super) fn volumes(&self) -> Vec<Volume> {
        self.halves.iter().filter_map(|half| Volume::of(&half.path)).collect()
    }

    /// Takes the locks for life.
    pub(super) fn take(&mut self) -> Result<(), KeeperError> {
        if self.lock()? { Ok(()) } else { Err(KeeperError::Locked) }
    }

    /// Takes the locks, waiting for others to give them back. It asks again and again, because no system call waits for
    /// a lock and for no longer than so; a waiting call is not served in the order of asking.
    pub(super) fn begin_turn(&mut self) -> Result<(), KeeperError> {
        let since = SystemClock.monotonic();
        let mut pause = Duration::from_micros(200);
        while !self.lock()? {
            if SystemClock.monotonic().saturating_sub(since) >= TURN {
                return Err(KeeperError::Locked);
            }
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2).min(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Where giving it back fails, the system does so when the file is closed.
    pub(super) fn end_turn(&mut self) {
        for half in self.halves.iter_mut().filter(|half| half.locked) {
            half.locked = false;
            if let Some(lock) = &half.lock {
                drop(lock.unlock());
            }
        }
    }

    /// All locks, or none. A half that is away has none; at least one must be there.
    fn lock(&mut self) -> Result<bool, KeeperError> {
        let mut outcomes = Vec::new();
        for half in &mut self.halves {
            outcomes.push(half.lock(&self.disk));
        }
        if outcomes.contains(&Ok(false)) {
            self.end_turn();
            return Ok(false);
        }
        if self.halves.iter().any(|half| half.locked) {
            return Ok(true);
        }
        Err(outcomes.into_iter().find_map(Result::err).unwrap_or(KeeperError::Missing))
    }

    /// The locks of halves that were away. Another's lock is an error here: a turn is under way.
    pub(super) fn lock_more(&mut self) -> Result<(), KeeperError> {
        for half in &mut self.halves {
            if let Ok(false) = half.lock(&self.disk) {
                return Err(KeeperError::Locked);
            }
        }
        Ok(())
    }

    /// What lies in each half. A half that is away says why.
    pub(super) fn look(&mut self) -> Vec<Result<Found>> {
        let Place { disk, halves } = self;
        halves.iter_mut().map(|half| half.look(disk)).collect()
    }

    /// Makes `current` the one content of every half that is there. The first that fails is told of, after all.
    pub(super) fn settle(&mut self, found: &[Result<Found>], current: &[u8]) -> Result<(), KeeperError> {
        let disk = self.disk.clone();
        self.each(|index, half| match found.get(index) {
            Some(Ok(found)) => half.with(|slots, names| slots.settle(&disk, names, found, current)),
            Some(Err(Error::Keeper(error))) => Err(*error),
            _ => Err(KeeperError::Io),
        })
    }

    /// Whether all is as it was left, and nothing is left to be done.
    pub(super) fn is_unchanged(&mut self) -> bool {
        let Place { disk, halves } = self;
        halves
            .iter_mut()
            .all(|half| half.locked && half.with(|slots, names| slots.is_unchanged(disk, names)) == Ok(true))
    }

    /// Whether it is known of every half what counts there.
    pub(super) fn is_known(&self) -> bool {
        self.halves.iter().all(|half| half.locked && half.slots.is_known())
    }

    /// After an error the old content stands, and the new one is overwritten where that is possible. After success the
    /// new content counts, and is on the disk in every half; whether the old content is overwritten is told by
    /// [`tidy`](Self::tidy).
    pub(super) fn replace(&mut self, new: &[u8]) -> Result<(), KeeperError> {
        self.tidy()?;
        let disk = self.disk.clone();
        let mut outcome = Ok(());
        for (index, half) in self.halves.iter_mut().enumerate() {
            outcome = half
                .with(|slots, names| slots.prepare(&disk, names, new))
                .map_err(|error| blamed(index, error));
            if outcome.is_err() {
                break;
            }
        }
        if outcome.is_ok() {
            self.halves.iter_mut().for_each(|half| half.slots.adopt());
        }
        let _ = self.tidy();
        outcome
    }

    /// Overwrites what does not count, in every half. Does nothing where there is nothing.
    pub(super) fn tidy(&mut self) -> Result<(), KeeperError> {
        let disk = self.disk.clone();
        self.each(|_, half| half.with(|slots, names| slots.tidy(&disk, names)))
    }

    fn each(
        &mut self,
        mut work: impl FnMut(usize, &mut Half) -> Result<(), KeeperError>,
    ) -> Result<(), KeeperError> {
        let mut outcome = Ok(());
        for (index, half) in self.halves.iter_mut().enumerate() {
            let done = work(index, half).map_err(|error| blamed(index, error));
            outcome = outcome.and(done);
        }
        outcome
    }
}

impl Half {
    fn names(&mut self) -> Result<&Names, KeeperError> {
        if self.names.is_none() {
            self.names = Some(Names::of(&self.path)?);
        }
        self.names.as_ref().ok_or(KeeperError::Missing)
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Slots, &Names) -> io::Result<T>) -> Result<T, KeeperError> {
        let names = self.names.as_ref().ok_or(KeeperError::Missing)?;
        work(&mut self.slots, names).map_err(said)
    }

    fn look(&mut self, disk: &Disk) -> Result<Found> {
        self.names()?;
        let names = self.names.as_ref().ok_or(KeeperError::Missing)?;
        // Without its folder it is away; without the file alone it is to be written.
        fs::metadata(&names.folder).map_err(said)?;
        self.slots.look(disk, names)
    }

    fn lock(&mut self, disk: &Disk) -> Result<bool, KeeperError> {
        if self.locked {
            return Ok(true);
        }
        if self.lock.is_none() {
            let path = self.names()?.lock.clone();
            self.lock = Some(disk.open_or_create(&path).map_err(said)?.file);
        }
        let Some(lock) = &self.lock else { return Err(KeeperError::Io) };
        match lock.try_lock() {
            Ok(()) => {
                self.locked = true;
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(said(error)),
        }
    }
}

pub(super) fn there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
