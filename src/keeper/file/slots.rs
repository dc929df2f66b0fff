//! A key file: two slots of 320 KiB, made at once, so that no later change needs room.
//!
//! One slot holds the content that counts, followed by zeros; the other is all zeros. A change writes the other slot,
//! brings it to the disk and reads it back; from here on the new content counts, because its number is higher. Then the
//! slot with the old content is overwritten. A power failure at any moment, also one that tears a write between two
//! sectors, leaves one slot as it was.
//!
//! Reading back shows that the system took the bytes at their place. It does not show the medium: the answer comes from
//! the system's cache. What is on the medium is what the sync says.
//!
//! After a sync that failed the cache may show what will never be on the disk, and a later sync may succeed without it
//! (Rebello and others, "Can Applications Recover from fsync Failures?", USENIX ATC 2020). So nothing is only synced
//! again: it is written again. For whoever opens the file next, the first byte of the slot that does not count tells
//! what can be believed:
//!
//! | first byte | rest | |
//! | --- | --- | --- |
//! | 0 | 0 | it was overwritten, on the disk too, and the other slot is on the disk |
//! | `-` | 0 | it is being overwritten: that is done again; the other slot is on the disk |
//! | `+` | 0 | the other slot is written for the first time: that is done again |
//! | any | a content, with a lower number | the other slot may not be on the disk: it is written again |
//! | any | anything else | a change that was interrupted: it is overwritten |
//!
//! An unfinished slot is overwritten over its whole length, because a part may be zeros in the cache alone.

use std::io;

use super::disk::{Disk, Open, exposed, is_zero, length, said, trimmed};
use super::format;
use super::place::Names;
use crate::error::{KeeperError, Result};

/// No content is longer: 4,096 roots of 57 bytes in base64, and the header.
pub(super) const SLOT: usize = 320 << 10;

/// The whole file.
pub(super) const FILE: usize = 2 * SLOT;

/// Every content has its nonce within so many bytes, and no two have the same.
const HEAD: usize = 512;

const OVERWRITING: u8 = b'-';
const FIRST: u8 = b'+';

/// What both slots have, without the zeros at their ends.
pub(super) type Found = [Vec<u8>; 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// All zeros, on the disk too.
    Zero,
    /// What counts, so many bytes, on the disk.
    Holds(usize),
    /// Something else. After so many bytes there are zeros, on the disk too.
    Other(usize),
}

/// What is known of a key file.
#[derive(Debug)]
pub(super) struct Slots {
    states: [Slot; 2],
    heads: [Vec<u8>; 2],
    /// A content that was prepared and does not count yet: in which slot, and how long.
    prepared: Option<(usize, usize)>,
}

impl Slots {
    pub(super) fn unknown() -> Self {
        Slots {
            states: [Slot::Other(SLOT), Slot::Other(SLOT)],
            heads: [Vec::new(), Vec::new()],
            prepared: None,
        }
    }

    /// Whether it is known which slot counts.
    pub(super) fn is_known(&self) -> bool {
        self.states.iter().any(|slot| matches!(slot, Slot::Holds(_)))
    }

    /// Whether nothing is left to be done.
    pub(super) fn is_settled(&self) -> bool {
        self.is_known() && self.states.contains(&Slot::Zero)
    }

    /// Whether the file is still as this has left or found it. Within one boot a slot whose first byte is zero is all
    /// zeros; whoever opens the file looks at the whole of it.
    pub(super) fn is_unchanged(&self, disk: &Disk, names: &Names) -> io::Result<bool> {
        let file = disk.open(&names.key)?;
        let head = |at| file.read(offset(at), HEAD).map(|head| trimmed(&head).to_vec());
        Ok(self.is_settled() && self.heads == [head(0)?, head(1)?])
    }

    /// Reads the whole file. One that is not there, or that is not written yet, has two empty slots.
    pub(super) fn look(&mut self, disk: &Disk, names: &Names) -> Result<Found> {
        *self = Slots::unknown();
        let file = match disk.open(&names.key) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(said(error).into()),
        };
        if exposed(file.as_ref().map(|file| &file.file), &names.folder).map_err(said)? {
            return Err(KeeperError::Exposed.into());
        }
        let Some(file) = file else { return Ok(Found::default()) };
        let bytes = file.read(0, FILE.saturating_add(1)).map_err(said)?;
        // Of another length it is not ours, and must not be written over.
        let (first, second) = match bytes.split_at_checked(SLOT) {
            Some((first, second)) if bytes.len() == FILE => (trimmed(first), trimmed(second)),
            _ if bytes.len() < FILE && is_zero(&bytes) => return Ok(Found::default()),
            _ => return Err(KeeperError::Damaged.into()),
        };
        for (at, content) in [first, second].into_iter().enumerate() {
            self.set(at, if content.is_empty() { Slot::Zero } else { Slot::Other(SLOT) }, content);
        }
        Ok([first.to_vec(), second.to_vec()])
    }

    /// Makes `current` the one content, whatever was found. Where it is there and on the disk, and nothing else is,
    /// nothing is written.
    pub(super) fn settle(
        &mut self,
        disk: &Disk,
        names: &Names,
        found: &Found,
        current: &[u8],
    ) -> io::Result<()> {
        let [first, second] = found;
        let at = match [first, second].map(|slot| slot == current) {
            [true, _] => 0,
            [_, true] => 1,
            // What does not count at all, else the older one.
            _ => usize::from(format::number(first) > format::number(second)),
        };
        let (here, there) = if at == 0 { (first, second) } else { (second, first) };
        let mut file = prepare(disk, names, first.is_empty() && second.is_empty())?;
        if here == current && format::number(there).is_none() && *there != [FIRST] {
            self.set(at, Slot::Holds(current.len()), current);
        } else {
            if format::number(there).is_none() && *there != [FIRST] {
                self.overwrite(&mut file, other(at))?;
                self.set(other(at), Slot::Other(SLOT), &[FIRST]);
                file.write(offset(other(at)), &[FIRST])?;
                self.set(other(at), Slot::Other(1), &[FIRST]);
            }
            self.write(&mut file, at, current)?;
            self.set(at, Slot::Holds(current.len()), current);
        }
        self.overwrite(&mut file, other(at))
    }

    /// Brings `new` to the disk, beside what counts.
    pub(super) fn prepare(&mut self, disk: &Disk, names: &Names, new: &[u8]) -> io::Result<()> {
        let at = usize::from(matches!(self.states, [Slot::Holds(_), _]));
        let mut file = disk.open(&names.key)?;
        self.write(&mut file, at, new)?;
        self.prepared = Some((at, new.len()));
        Ok(())
    }

    /// What was prepared counts now. Nothing is written.
    pub(super) fn adopt(&mut self) {
        if let Some((at, used)) = self.prepared.take() {
            if let Slot::Holds(used) = self.slot(other(at)) {
                self.put(other(at), Slot::Other(used));
            }
            self.put(at, Slot::Holds(used));
        }
    }

    /// Overwrites what does not count: an old content, or one that was prepared in vain.
    pub(super) fn tidy(&mut self, disk: &Disk, names: &Names) -> io::Result<()> {
        self.prepared = None;
        if self.is_settled() {
            return Ok(());
        }
        if !self.is_known() {
            return Err(io::ErrorKind::Other.into());
        }
        let mut file = disk.open(&names.key)?;
        for at in [0, 1] {
            if matches!(self.slot(at), Slot::Other(_)) {
                self.overwrite(&mut file, at)?;
            }
        }
        Ok(())
    }

    /// Writes a slot whole, brings it to the disk, and reads it back.
    fn write(&mut self, file: &mut Open, at: usize, content: &[u8]) -> io::Result<()> {
        let used = match self.slot(at) {
            Slot::Zero => content.len(),
            Slot::Holds(used) | Slot::Other(used) => used.max(content.len()),
        };
        let mut bytes = content.to_vec();
        bytes.resize(used, 0);
        if bytes.len() > SLOT {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.set(at, Slot::Other(used), content);
        file.write(offset(at), &bytes)?;
        file.sync()?;
        let there = file.read(offset(at), SLOT)?;
        if there.get(..content.len()) != Some(content)
            || !is_zero(there.get(content.len()..).unwrap_or_default())
        {
            self.put(at, Slot::Other(SLOT));
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }

    /// Overwrites a slot with zeros. Its first byte follows when the rest is on the disk.
    fn overwrite(&mut self, file: &mut Open, at: usize) -> io::Result<()> {
        let used = match self.slot(at) {
            Slot::Zero => return Ok(()),
            Slot::Holds(used) | Slot::Other(used) => used.max(1),
        };
        let mut zeros = vec![0; used];
        if let Some(first) = zeros.first_mut() {
            *first = OVERWRITING;
        }
        self.put(at, Slot::Other(used));
        file.write(offset(at), &zeros)?;
        file.sync()?;
        file.write(offset(at), &[0])?;
        self.set(at, Slot::Zero, &[]);
        Ok(())
    }

    fn slot(&self, at: usize) -> Slot {
        self.states.get(at).copied().unwrap_or(Slot::Other(SLOT))
    }

    fn put(&mut self, at: usize, slot: Slot) {
        if let Some(place) = self.states.get_mut(at) {
            *place = slot;
        }
    }

    fn set(&mut self, at: usize, slot: Slot, content: &[u8]) {
        self.put(at, slot);
        if let Some(head) = self.heads.get_mut(at) {
            *head = trimmed(content.get(..HEAD).unwrap_or(content)).to_vec();
        }
    }
}

fn other(at: usize) -> usize {
    usize::from(at == 0)
}

fn offset(at: usize) -> u64 {
    if at == 0 { 0 } else { length(SLOT) }
}

/// The file in its full length, with its name on the disk. Of one in which nothing was written yet nobody knows that
/// either is.
fn prepare(disk: &Disk, names: &Names, blank: bool) -> io::Result<Open> {
    let mut file = disk.open_or_create(&names.key)?;
    if blank {
        file.write(0, &vec![0; FILE])?;
        file.sync()?;
        disk.sync_folder(&names.folder)?;
    }
    Ok(file)
}
