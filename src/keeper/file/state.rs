//! What a file keeper has in memory: the key file, the journal, and whether they are still what the files say.

use std::fs::OpenOptions;

use super::disk::{self, Names, Place};
use super::format::{self, Contents, FileKey, Root};
use super::journal::Journal;
use super::secret::{Argon2Cost, FileSecret};
use super::wrapping::{self, WrappingKey, narrow};
use crate::crypto;
use crate::error::{KeeperError, Misuse, Result};
use crate::keeper::{Candidate, Held, RootId, RootKey, VaultId};
use crate::witness::Line;

/// What of the files a call builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Reads the key file.
    Roots,
    /// Changes it: what another process has left half done comes first.
    Change,
    /// The journal as well.
    Journal,
}

pub(super) struct State {
    pub(super) place: Place,
    key: FileKey,
    pub(super) contents: Contents,
    journal: Option<Journal>,
    seen: Seen,
}

/// The key file as it was last read or written whole.
#[derive(Default)]
struct Seen {
    hash: [u8; 32],
    sequence: u64,
    /// A write has failed since: nobody knows whether the old content is there or the new.
    uncertain: bool,
}

impl Seen {
    fn of(bytes: &[u8], sequence: u64) -> Self {
        Seen { hash: crypto::hash(&[bytes]), sequence, uncertain: false }
    }
}

/// The whole key file.
pub(super) fn read(names: &Names) -> Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).open(&names.key).map_err(disk::said)?;
    if disk::others_may_write(&file).map_err(disk::said)? {
        return Err(Misuse::Setting.into());
    }
    Ok(disk::read_bounded(&file, format::MAX_FILE)?)
}

/// Every change is made in memory, written, and taken back in memory where the write failed: the disk then has it or
/// not, and the next write puts it back to what memory says.
impl State {
    /// For a file that is created.
    pub(super) fn fresh(place: Place, secret: &FileSecret) -> Result<Self> {
        let contents = Contents {
            vault: None,
            sequence: 0,
            lines: 0,
            journal: WrappingKey::random()?,
            active: None,
            roots: Vec::new(),
        };
        Ok(State { place, key: FileKey::fresh(secret)?, contents, journal: None, seen: Seen::default() })
    }

    pub(super) fn of(place: Place, bytes: &[u8], secret: &FileSecret, max: Argon2Cost) -> Result<Self> {
        let (key, contents) = FileKey::read(bytes, secret, max)?;
        let seen = Seen::of(bytes, contents.sequence);
        Ok(State { place, key, contents, journal: None, seen })
    }

    /// Makes memory what the files say, after a process that died in its turn is tidied up behind.
    pub(super) fn refresh(&mut self, needs: Needs) -> Result<()> {
        // What only reads goes on where there is a key file, also on a disk that takes no writes.
        match self.place.tidy() {
            Err(why) if needs != Needs::Roots || !self.place.names.has_key() => return Err(why.into()),
            _ => {}
        }
        let bytes = read(&self.place.names)?;
        let unchanged = crypto::hash(&[&bytes]) == self.seen.hash;
        if !unchanged || self.seen.uncertain {
            let contents = self.key.read_again(&bytes)?;
            // Each write counts on: what has not done so is an older copy, or one of another history.
            if !unchanged && contents.sequence <= self.seen.sequence {
                return Err(KeeperError::Damaged.into());
            }
            if self.contents.vault.is_some() && contents.vault != self.contents.vault {
                return Err(KeeperError::Foreign.into());
            }
            self.seen = Seen::of(&bytes, contents.sequence);
            self.contents = contents;
        }
        if needs == Needs::Journal { self.refresh_journal() } else { Ok(()) }
    }

    pub(super) fn refresh_journal(&mut self) -> Result<()> {
        let Some(vault) = self.contents.vault else { return Ok(()) };
        let least = self.contents.lines;
        match &mut self.journal {
            Some(journal) => journal.refresh()?,
            none => {
                let key = self.contents.journal.expose();
                *none = Some(Journal::open(&self.place.disk, &self.place.names, key, vault, least)?);
            }
        }
        let lines = self.journal.as_ref().map_or(0, Journal::count);
        if lines < least { Err(KeeperError::Damaged.into()) } else { Ok(()) }
    }

    pub(super) fn write(&mut self) -> Result<(), KeeperError> {
        self.contents.sequence = self.contents.sequence.checked_add(1).ok_or(KeeperError::Damaged)?;
        // Another process may have seen more lines than this one has read.
        let lines = self.journal.as_ref().map_or(0, Journal::count);
        self.contents.lines = self.contents.lines.max(lines);
        let bytes = self.key.write(&self.contents).map_err(narrow)?;
        self.seen.uncertain = true;
        self.place.replace(&bytes)?;
        self.seen = Seen::of(&bytes, self.contents.sequence);
        Ok(())
    }

    /// The journal first: a key file that names a vault always has one.
    pub(super) fn bind(&mut self, vault: VaultId) -> Result<(), KeeperError> {
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

    pub(super) fn candidate(&mut self, epoch: u64) -> Result<Candidate, KeeperError> {
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

    pub(super) fn activate(&mut self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
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

    pub(super) fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        let vault = self.vault()?;
        let index = self.contents.find(id).map_err(|_| KeeperError::NoSuchRoot)?;
        self.contents.roots.get(index).ok_or(KeeperError::NoSuchRoot)?.key.unwrap(vault, id, wrapped)
    }

    pub(super) fn destroy(&mut self, id: RootId) -> Result<(), KeeperError> {
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

    pub(super) fn held(&self) -> Vec<Held> {
        let held = |root: &Root| Held { id: root.id, epoch: root.epoch, activated: root.activated };
        self.contents.roots.iter().map(held).collect()
    }

    pub(super) fn recall(&self, from: u64) -> Vec<Line> {
        self.journal.as_ref().map_or_else(Vec::new, |journal| journal.recall(from))
    }

    pub(super) fn remember(&mut self, lines: Vec<Line>) -> Result<(), KeeperError> {
        self.journal.as_mut().ok_or(KeeperError::Missing)?.append(lines)
    }
}
