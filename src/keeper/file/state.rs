//! What a file keeper has in memory: the key file, the journal, and whether they are still what the files say.

use super::format::{self, Contents, FileKey, Root};
use super::journal::Journal;
use super::place::{Place, there};
use super::secret::{Argon2Cost, FileSecret};
use super::slots::Found;
use super::wrapping::{self, WrappingKey, narrow};
use crate::crypto;
use crate::error::{Error, KeeperError, Result};
use crate::keeper::{Candidate, Held, RootId, RootKey, VaultId};
use crate::witness::Line;

/// What a call builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    /// It changes something: what another process has left half done comes first, and every copy must be there.
    pub(super) change: bool,
    /// The journal as well.
    pub(super) journal: bool,
}

pub(super) struct State {
    pub(super) place: Place,
    pub(super) key: FileKey,
    pub(super) contents: Contents,
    journal: Option<Journal>,
    /// The content as it was last read or written.
    hash: [u8; 32],
    shared: bool,
}

/// Every change is made in memory, written, and taken back in memory where the write failed: the disk then has it or
/// not, and the next write puts it back to what memory says.
impl State {
    /// For a file that is created. Nothing is at its place.
    pub(super) fn create(place: Place, secret: &FileSecret, shared: bool) -> Result<Self> {
        let contents = Contents {
            vault: None,
            sequence: 1,
            lines: 0,
            journal: WrappingKey::random()?,
            active: None,
            roots: Vec::new(),
        };
        let key = FileKey::fresh(secret)?;
        let bytes = key.write(&contents)?;
        let hash = crypto::hash(&[&bytes]);
        let mut state = State { place, key, contents, journal: None, hash, shared };
        let found = state.place.look();
        state.place.settle(&found, &bytes)?;
        Ok(state)
    }

    /// Of what lies there, wherever one half of it can be read. The halves are made equal by the next turn.
    pub(super) fn open(
        place: Place,
        found: &[Result<Found>],
        secret: &FileSecret,
        max: Argon2Cost,
        shared: bool,
    ) -> Result<Self> {
        let mut key: Option<FileKey> = None;
        let (bytes, contents) = choose(found, |bytes| match &key {
            Some(known) if known.fits(bytes) => known.read(bytes),
            _ => {
                let (fresh, contents) = FileKey::open(bytes, secret, max)?;
                key = Some(fresh);
                Ok(contents)
            }
        })?;
        let hash = crypto::hash(&[&bytes]);
        let key = key.filter(|key| key.fits(&bytes)).ok_or(KeeperError::Damaged)?;
        Ok(State { place, key, contents, journal: None, hash, shared })
    }

    /// Makes memory what the files say, after a process that died in its turn is tidied up behind.
    pub(super) fn refresh(&mut self, needs: Needs) -> Result<()> {
        let settled = if !self.shared && self.place.is_known() {
            // Nobody else writes.
            self.place.tidy()
        } else if self.place.is_unchanged() {
            Ok(())
        } else {
            self.look_again()?
        };
        // What only reads goes on where there is a key file, also on a disk that takes no writes, or without the copy.
        if needs.change {
            settled?;
        }
        if needs.journal { self.refresh_journal() } else { Ok(()) }
    }

    /// The outer error: there is nothing to go on with. The inner: not every half is as it should be.
    fn look_again(&mut self) -> Result<Result<(), KeeperError>> {
        let locked = self.place.lock_more();
        let found = self.place.look();
        let (bytes, contents) = choose(&found, |bytes| self.key.read(bytes))?;
        let hash = crypto::hash(&[&bytes]);
        if hash != self.hash {
            // Each write counts on: what has not done so is an older copy, or one of another history.
            if contents.sequence <= self.contents.sequence {
                return Err(KeeperError::Damaged.into());
            }
            if self.contents.vault.is_some() && contents.vault != self.contents.vault {
                return Err(KeeperError::Foreign.into());
            }
            (self.hash, self.contents) = (hash, contents);
        }
        Ok(locked.and_then(|()| self.place.settle(&found, &bytes)))
    }

    fn refresh_journal(&mut self) -> Result<()> {
        let Some(vault) = self.contents.vault else { return Ok(()) };
        let known = match &mut self.journal {
            Some(journal) if self.shared => journal.catch_up()?,
            Some(journal) => !journal.is_away(),
            None => false,
        };
        if !known {
            let key = self.contents.journal.expose();
            let least = self.contents.lines;
            let journal = Journal::open(&self.place.disk, &self.place.names(), key, vault, least)?;
            if self.journal.as_ref().is_some_and(|before| !journal.continues(before)) {
                return Err(KeeperError::Damaged.into());
            }
            self.journal = Some(journal);
        }
        let lines = self.journal.as_ref().map_or(0, Journal::count);
        if lines < self.contents.lines { Err(KeeperError::Damaged.into()) } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), KeeperError> {
        let before = (self.contents.sequence, self.contents.lines);
        self.contents.sequence = self.contents.sequence.checked_add(1).ok_or(KeeperError::Damaged)?;
        // Another process may have seen more lines than this one has read.
        let lines = self.journal.as_ref().map_or(0, Journal::count);
        self.contents.lines = self.contents.lines.max(lines);
        let bytes = self.key.write(&self.contents).map_err(narrow)?;
        self.place.replace(&bytes).inspect_err(|_| (self.contents.sequence, self.contents.lines) = before)?;
        self.hash = crypto::hash(&[&bytes]);
        Ok(())
    }

    /// The journal first: a key file that names a vault always has one.
    pub(super) fn bind(&mut self, vault: VaultId) -> Result<(), KeeperError> {
        if let Some(bound) = self.contents.vault {
            return if bound == vault { Ok(()) } else { Err(KeeperError::Foreign) };
        }
        let key = self.contents.journal.expose();
        self.journal = Some(Journal::create(&self.place.disk, &self.place.names(), key, vault)?);
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

    /// The content before it opens with the old secret: so it is changed only when that is overwritten.
    pub(super) fn change_key(&mut self, key: FileKey) -> Result<(), KeeperError> {
        let before = std::mem::replace(&mut self.key, key);
        if let Err(error) = self.write() {
            self.key = before;
            return Err(error);
        }
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

/// Whether something lies at one of the places that a new key file would destroy. A content that was cut short while
/// it was created is nothing yet, if there is no journal: a keeper with anything to lose has one.
pub(super) fn is_taken(place: &mut Place) -> Result<bool> {
    let names = place.names();
    for (found, names) in place.look().iter().zip(&names) {
        let Ok(names) = names else { continue };
        let is_file = std::fs::metadata(&names.key).map_or(true, |file| file.is_file());
        let content = match found {
            Ok(slots) => slots.iter().any(|slot| format::number(slot).is_some()),
            Err(Error::Keeper(KeeperError::Missing)) => false,
            Err(Error::Keeper(KeeperError::Exposed)) => return Err(KeeperError::Exposed.into()),
            Err(_) => true,
        };
        let written = found.as_ref().is_ok_and(|slots| slots.iter().any(|slot| !slot.is_empty()));
        if !is_file || content || written && there(&names.journal) || Journal::is_in_use(names) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What counts of all that was found: the content with the highest number that opens.
///
/// In one half an older content beside a newer one that does not open means that the newer was never acknowledged: it is
/// torn, or under a secret to which the change was not finished. A half without the content that was chosen and with a
/// higher number than it is no such case: then the chosen one is an older copy.
fn choose(
    found: &[Result<Found>],
    mut open: impl FnMut(&[u8]) -> Result<Contents>,
) -> Result<(Vec<u8>, Contents)> {
    let mut contents: Vec<(u64, &[u8])> = Vec::new();
    let (mut broken, mut failed, mut away) = (None, None, None);
    for half in found {
        match half {
            Ok(slots) => {
                for slot in slots.iter().filter(|slot| !slot.is_empty()) {
                    match format::stated(slot) {
                        Ok((number, _)) => contents.push((number, slot)),
                        // Another version comes before damage.
                        Err(error) => broken = broken.filter(|one| *one != DAMAGED).or(Some(error)),
                    }
                }
            }
            Err(error @ Error::Keeper(KeeperError::Exposed | KeeperError::Damaged)) => return Err(*error),
            Err(error) => away = away.or(Some(*error)),
        }
    }
    contents.sort_by(|(one, _), (other, _)| other.cmp(one));
    contents.dedup();
    let chosen = contents.iter().find_map(|(number, bytes)| match open(bytes) {
        Ok(contents) => Some((*number, *bytes, contents)),
        Err(error) => {
            failed = failed.or(Some(error));
            None
        }
    });
    let Some((number, bytes, chosen)) = chosen else {
        return Err(failed.or(broken).or(away).unwrap_or(KeeperError::Missing.into()));
    };
    for half in found.iter().flatten().filter(|half| !half.iter().any(|slot| slot == bytes)) {
        for slot in half {
            let Ok((other, vault)) = format::stated(slot) else { continue };
            if other > number {
                return Err(failed.unwrap_or(DAMAGED));
            }
            let is_foreign = vault.is_some() && chosen.vault.is_some() && vault != chosen.vault;
            if is_foreign || other == number && open(slot).is_ok() {
                return Err(KeeperError::Foreign.into());
            }
        }
    }
    Ok((bytes.to_vec(), chosen))
}

const DAMAGED: Error = Error::Keeper(KeeperError::Damaged);
