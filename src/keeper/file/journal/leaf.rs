//! A journal's file: what is written is followed by zeros, which are room for more.
//!
//! The room is made in steps, ahead of its use, so that forgetting goes on for a while where the disk is full.

use std::io;

use super::{HEADER, NAME};
use crate::error::{KeeperError, Result};
use crate::keeper::file::disk::{Disk, Open, exposed, length, said, trimmed};
use crate::keeper::file::place::Names;

/// After every append at least so many bytes are kept ready, and the file is made longer by as many: some hundred lines
/// of ordinary length.
pub(super) const ROOM: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Leaf {
    disk: Disk,
    names: Result<Names, KeeperError>,
    file: Option<Open>,
    /// A write has failed: nobody knows what lies after the good bytes.
    pub(super) broken: bool,
    /// It could not be read when the journal was opened.
    pub(super) away: bool,
}

impl Leaf {
    pub(super) fn of(disk: &Disk, names: &Result<Names, KeeperError>) -> Self {
        Leaf { disk: disk.clone(), names: names.clone(), file: None, broken: false, away: false }
    }

    /// All from `from` on, of the file that has the name now.
    pub(super) fn read(&mut self, from: u64, limit: usize) -> Result<Vec<u8>, KeeperError> {
        let names = self.names.as_ref().map_err(|error| *error)?;
        let file = self.disk.open(&names.journal).map_err(said)?;
        if from == 0 && exposed(Some(&file.file), &names.folder).map_err(said)? {
            return Err(KeeperError::Exposed);
        }
        let bytes = file.read(from, limit).map_err(said)?;
        self.file = Some(file);
        Ok(bytes)
    }

    /// Makes it the journal of which these are all bytes; durable where it returns `Ok`. The header is written when all else
    /// is on the disk: so whoever finds it can believe what follows it, except for the last append.
    pub(super) fn replace(&mut self, bytes: &[u8]) -> Result<(), KeeperError> {
        let names = self.names.clone()?;
        let (header, appends) = bytes.split_at_checked(HEADER).ok_or(KeeperError::Damaged)?;
        let work = |disk: &Disk| {
            let mut file = disk.open_or_create(&names.journal)?;
            let mut unfinished = NAME.to_vec();
            unfinished.resize(HEADER, 0);
            unfinished.extend_from_slice(appends);
            let there = usize::try_from(file.length()?).unwrap_or(usize::MAX);
            unfinished.resize(unfinished.len().max(there), 0);
            file.write(0, &unfinished)?;
            file.sync()?;
            disk.sync_folder(&names.folder)?;
            file.write(0, header)?;
            file.sync()?;
            Ok(file)
        };
        let mut file = work(&self.disk).map_err(said)?;
        // Not needed yet: a full disk is told when a line finds no room.
        drop(make_room(&mut file, length(bytes.len())));
        self.file = Some(file);
        Ok(())
    }

    /// Durable where it returns `Ok`. After an error anything may lie there.
    pub(super) fn append(&mut self, at: u64, bytes: &[u8]) -> Result<(), KeeperError> {
        let file = self.file.as_mut().ok_or(KeeperError::Io)?;
        let end = at.saturating_add(length(bytes.len()));
        let room = file.length().map_err(said)?;
        if let Err(error) = make_room(file, end)
            && end > room
        {
            return Err(said(error));
        }
        file.write(at, bytes).and_then(|()| file.sync()).map_err(said)
    }

    /// Writes these parts again, the last of which ends it, and zeros after it where there is anything else. Durable where
    /// it returns `Ok`.
    pub(super) fn write_again(&mut self, parts: &[(u64, &[u8])]) -> Result<(), KeeperError> {
        let names = self.names.clone()?;
        let work = |disk: &Disk| -> io::Result<Open> {
            let mut file = disk.open(&names.journal)?;
            for (at, bytes) in parts.iter().filter(|(_, bytes)| !bytes.is_empty()) {
                file.write(*at, bytes)?;
            }
            if let Some((at, bytes)) = parts.last() {
                let end = at.saturating_add(length(bytes.len()));
                let tail = file.read(end, usize::MAX)?;
                let tail = trimmed(&tail);
                if !tail.is_empty() {
                    file.write(end, &vec![0; tail.len()])?;
                }
            }
            file.sync()?;
            Ok(file)
        };
        self.file = Some(work(&self.disk).map_err(said)?);
        Ok(())
    }

    /// Overwrites all from `good` on with zeros, also what reads as zeros already: after a failed sync that may be true of
    /// the cache alone.
    pub(super) fn clear(&mut self, good: u64) -> Result<(), KeeperError> {
        let file = self.file.as_mut().ok_or(KeeperError::Io)?;
        let mut work = || {
            let left = file.length()?.saturating_sub(good);
            file.write(good, &vec![0; usize::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?])?;
            file.sync()
        };
        work().map_err(said)
    }
}

/// By a sync of its own: where there is no more room, nothing else is in doubt.
fn make_room(file: &mut Open, end: u64) -> io::Result<()> {
    let there = file.length()?;
    let wanted = end.saturating_add(ROOM);
    if there >= wanted {
        return Ok(());
    }
    let missing = wanted.next_multiple_of(ROOM).saturating_sub(there);
    file.write(there, &vec![0; usize::try_from(missing).map_err(|_| io::ErrorKind::InvalidInput)?])?;
    file.sync()
}
