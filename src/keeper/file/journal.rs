//! The journal, version 1: a file that only grows.
//!
//! ```text
//! header   "customer-vault journal 1\n", vault id 16, tag 16
//! append   length u32 of what follows up to the tag, number of the first line u64,
//!          for each line: length u16, bytes;  tag 16
//! ```
//!
//! Big-endian. The header's tag is HMAC-SHA-256(journal key, label ‖ all before it)[..16], an append's
//! HMAC-SHA-256(journal key, label ‖ tag before it ‖ all of the append before its tag)[..16].
//!
//! One append is synced before the next is written. So a write that a crash interrupted can have left one bad append,
//! at the end; it was never acknowledged, and is cut off. A bad append with a good one anywhere after it is damage.
//!
//! What died between a write and its sync, or was told that the sync failed, can have left one good append at the end
//! that is not on the disk. So the last append of another process is written again, same bytes, and synced before
//! anything is built on it.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::disk::{Disk, Names, others_may_write, read_bounded, said};
use crate::crypto::{self, Prf};
use crate::error::{Error, KeeperError, Misuse, Result, Unsupported};
use crate::keeper::VaultId;
use crate::wire::{Put as _, Reader};
use crate::witness::{Line, MAX_LINE};

const NAME: &[u8] = b"customer-vault journal ";
const VERSION: &[u8] = b"1\n";
const HEADER: usize = NAME.len() + VERSION.len() + 16 + TAG;

const HEADER_LABEL: &[u8] = b"customer-vault/1 keeper journal header";
const APPEND_LABEL: &[u8] = b"customer-vault/1 keeper journal append";

const TAG: usize = 16;

/// An append is no longer; more lines are appended in parts.
const MAX_APPEND: usize = 1 << 20;

type Tag = [u8; TAG];

/// The open journal. What it says is in memory.
#[derive(Debug)]
pub(super) struct Journal {
    disk: Disk,
    path: PathBuf,
    vault: VaultId,
    mac: Prf,
    file: File,
    lines: Vec<Line>,
    /// So many bytes are acknowledged, and end with this tag.
    good: u64,
    tag: Tag,
    /// A write has failed: nobody knows what lies after the good bytes.
    broken: bool,
}

/// What of `lines` is not in `known`: numbers that are there are passed over, gaps and long lines refused.
pub(crate) fn fresh(known: &[Line], lines: Vec<Line>) -> Result<Vec<Line>, KeeperError> {
    let mut next = count(known).checked_add(1).ok_or(KeeperError::Damaged)?;
    let mut fresh = Vec::new();
    for line in lines {
        if line.number > next || line.bytes.len() > MAX_LINE {
            return Err(KeeperError::Damaged);
        }
        // A number that is there with other bytes is another history: passing it over would say that it is remembered.
        let at = usize::try_from(line.number.saturating_sub(1)).ok();
        if line.number < next && at.and_then(|at| known.get(at)).is_some_and(|there| *there != line) {
            return Err(KeeperError::Foreign);
        }
        if line.number == next {
            next = next.checked_add(1).ok_or(KeeperError::Damaged)?;
            fresh.push(line);
        }
    }
    Ok(fresh)
}

fn count(lines: &[Line]) -> u64 {
    u64::try_from(lines.len()).unwrap_or(u64::MAX)
}

impl Journal {
    /// Whether something lies at its place that holds more than a header: lines that nobody may write over.
    pub(super) fn is_in_use(names: &Names) -> bool {
        fs::metadata(&names.journal).is_ok_and(|file| !file.is_file() || file.len() > length(HEADER))
    }

    /// A header that a crash left is written again, unless it is the same: a key file that names the vault may already
    /// be on the disk, and must not meet half a header after the next crash.
    pub(super) fn create(
        disk: &Disk,
        names: &Names,
        key: &[u8; 32],
        vault: VaultId,
    ) -> Result<Self, KeeperError> {
        if Self::is_in_use(names) {
            return Err(KeeperError::Exists);
        }
        let mac = Prf::new(key);
        let mut header = [NAME, VERSION, vault.bytes()].concat();
        let tag = mac.tag(&[HEADER_LABEL, &header]);
        header.put(&tag);
        let mut options = OpenOptions::new();
        let mut file = disk.create(&names.journal, options.create(true).truncate(false)).map_err(said)?;
        if read_bounded(&file, length(HEADER))? != header {
            file.rewind().and_then(|()| disk.cut(&file, 0)).map_err(said)?;
            disk.write(&file, &header).map_err(said)?;
        }
        disk.sync(&file).and_then(|()| disk.sync_folder(&names.folder)).map_err(said)?;
        Ok(Journal {
            disk: disk.clone(),
            path: names.journal.clone(),
            vault,
            mac,
            file,
            lines: Vec::new(),
            good: length(header.len()),
            tag,
            broken: false,
        })
    }

    /// Reads all, and cuts off an append that was never acknowledged.
    pub(super) fn open(
        disk: &Disk,
        names: &Names,
        key: &[u8; 32],
        vault: VaultId,
        least: u64,
    ) -> Result<Self> {
        let mac = Prf::new(key);
        let (file, bytes) = read(&names.journal, 0).map_err(|error| match error {
            KeeperError::Missing => KeeperError::Damaged,
            error => error,
        })?;
        if others_may_write(&file).map_err(said)? {
            return Err(Misuse::Setting.into());
        }
        let scan = scan(&bytes, &mac, vault)?;
        if count(&scan.lines) < least {
            return Err(KeeperError::Damaged.into());
        }
        scan.make_durable(disk, &file, &bytes, 0)?;
        Ok(Journal {
            disk: disk.clone(),
            path: names.journal.clone(),
            vault,
            mac,
            file,
            lines: scan.lines,
            good: length(scan.good),
            tag: scan.tag,
            broken: false,
        })
    }

    /// Takes in what other processes have appended since.
    pub(super) fn refresh(&mut self) -> Result<(), KeeperError> {
        // The tag before the end of what is known stands for all of it: a journal that was cut, or put back to an older
        // one, does not have it there.
        let from = self.good.checked_sub(length(TAG)).ok_or(KeeperError::Damaged)?;
        let (file, tail) = read(&self.path, from).map_err(|error| match error {
            KeeperError::Missing => KeeperError::Damaged,
            error => error,
        })?;
        if tail.first_chunk() != Some(&self.tag) {
            return Err(KeeperError::Damaged);
        }
        let mut scan =
            follow(&tail, TAG, self.tag, self.count(), &self.mac).map_err(super::wrapping::narrow)?;
        scan.make_durable(&self.disk, &file, &tail, from)?;
        self.lines.append(&mut scan.lines);
        self.good = from.saturating_add(length(scan.good));
        (self.tag, self.file, self.broken) = (scan.tag, file, false);
        Ok(())
    }

    pub(super) fn count(&self) -> u64 {
        count(&self.lines)
    }

    pub(super) fn recall(&self, from: u64) -> Vec<Line> {
        let skipped = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        self.lines.iter().skip(skipped).cloned().collect()
    }

    /// Durable where it returns `Ok`. After an error a part of the lines may be there; memory has exactly those whose
    /// sync succeeded.
    pub(super) fn append(&mut self, lines: Vec<Line>) -> Result<(), KeeperError> {
        let mut fresh = fresh(&self.lines, lines)?.into_iter().peekable();
        while let Some(first) = fresh.peek() {
            let mut append = vec![0; 4];
            append.put_u64(first.number);
            let mut part = Vec::new();
            while let Some(line) = fresh
                .next_if(|line| append.len().saturating_add(line.bytes.len()).saturating_add(2) <= MAX_APPEND)
            {
                append.put_u16(u16::try_from(line.bytes.len()).map_err(|_| KeeperError::Damaged)?);
                append.put(&line.bytes);
                part.push(line);
            }
            let payload = u32::try_from(append.len().saturating_sub(4)).map_err(|_| KeeperError::Damaged)?;
            append.splice(..4, payload.to_be_bytes());
            let tag = self.mac.tag(&[APPEND_LABEL, &self.tag, &append]);
            append.put(&tag);
            self.write(&append)?;
            self.good = self.good.saturating_add(length(append.len()));
            self.tag = tag;
            self.lines.append(&mut part);
        }
        Ok(())
    }

    fn write(&mut self, append: &[u8]) -> Result<(), KeeperError> {
        if self.broken {
            self.mend()?;
        }
        self.broken = true;
        self.file.seek(SeekFrom::Start(self.good)).map_err(said)?;
        self.disk.write(&self.file, append).and_then(|()| self.disk.sync(&self.file)).map_err(said)?;
        self.broken = false;
        Ok(())
    }

    /// After a failed sync the operating system may have dropped what it could not write, and say nothing more. So the
    /// file is opened again, what was acknowledged is read and verified, and the rest cut off.
    fn mend(&mut self) -> Result<(), KeeperError> {
        let (file, mut bytes) = read(&self.path, 0)?;
        bytes.truncate(usize::try_from(self.good).map_err(|_| KeeperError::Damaged)?);
        let scan = scan(&bytes, &self.mac, self.vault).map_err(super::wrapping::narrow)?;
        if scan.tag != self.tag || length(scan.good) != self.good {
            return Err(KeeperError::Damaged);
        }
        self.disk.cut(&file, self.good).and_then(|()| self.disk.sync(&file)).map_err(said)?;
        self.file = file;
        self.broken = false;
        Ok(())
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn read(path: &Path, from: u64) -> Result<(File, Vec<u8>), KeeperError> {
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(said)?;
    file.seek(SeekFrom::Start(from)).map_err(said)?;
    let bytes = read_bounded(&file, u64::MAX)?;
    Ok((file, bytes))
}

struct Scan {
    lines: Vec<Line>,
    /// Where the last good append begins; where there is none, where it ends.
    last: usize,
    /// Where the last good append ends.
    good: usize,
    tag: Tag,
}

impl Scan {
    /// Cuts off what was never acknowledged, and sees that the last good append is on the disk. A sync alone would not
    /// do: after one that failed a second one may succeed without what the first could not write (Rebello and others,
    /// "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
    fn make_durable(&self, disk: &Disk, mut file: &File, bytes: &[u8], from: u64) -> Result<(), KeeperError> {
        let at = |offset: usize| from.saturating_add(length(offset));
        if self.good < bytes.len() {
            disk.cut(file, at(self.good)).map_err(said)?;
        }
        let last = bytes.get(self.last..self.good).unwrap_or_default();
        if !last.is_empty() {
            file.seek(SeekFrom::Start(at(self.last))).map_err(said)?;
            disk.write(file, last).map_err(said)?;
        }
        if self.last < bytes.len() { disk.sync(file).map_err(said) } else { Ok(()) }
    }
}

fn scan(bytes: &[u8], mac: &Prf, vault: VaultId) -> Result<Scan> {
    let tag = header(bytes, mac, vault)?;
    follow(bytes, HEADER, tag, 0, mac)
}

/// The appends from `good` on, after `known` lines.
fn follow(bytes: &[u8], mut good: usize, mut tag: Tag, known: u64, mac: &Prf) -> Result<Scan> {
    let (mut lines, mut last) = (Vec::new(), good);
    while let Some(rest) = bytes.get(good..).filter(|rest| !rest.is_empty()) {
        let there = known.saturating_add(count(&lines));
        match split(rest).filter(|append| append.fits(mac, &tag)) {
            Some(append) => {
                append.lines(there, &mut lines)?;
                last = good;
                good = good.saturating_add(append.signed.len()).saturating_add(TAG);
                tag = append.tag;
            }
            None if is_torn(bytes, good, mac, &tag, there) => break,
            None => return Err(KeeperError::Damaged.into()),
        }
    }
    Ok(Scan { lines, last, good, tag })
}

fn header(bytes: &[u8], mac: &Prf, vault: VaultId) -> Result<Tag> {
    const DAMAGED: Error = Error::Keeper(KeeperError::Damaged);
    let mut reader = Reader::new(bytes);
    if reader.take(NAME.len()).map_err(|_| DAMAGED)? != NAME {
        return Err(DAMAGED);
    }
    let [version, end] = reader.array::<2>().map_err(|_| DAMAGED)?;
    if [version, end] != VERSION {
        return Err(if version.is_ascii_digit() && end == b'\n' {
            Unsupported::Version.into()
        } else {
            DAMAGED
        });
    }
    let stated = VaultId(reader.array().map_err(|_| DAMAGED)?);
    let tag = reader.array().map_err(|_| DAMAGED)?;
    if stated != vault {
        return Err(KeeperError::Foreign.into());
    }
    let signed = [NAME, VERSION, stated.bytes()].concat();
    if crypto::equal(&mac.tag(&[HEADER_LABEL, &signed]), &tag) { Ok(tag) } else { Err(DAMAGED) }
}

/// An append as it lies there, not yet believed.
struct Append<'a> {
    signed: &'a [u8],
    first: u64,
    tag: Tag,
}

/// `None` where there is no whole append.
fn split(bytes: &[u8]) -> Option<Append<'_>> {
    let mut reader = Reader::new(bytes);
    let payload = usize::try_from(reader.u32().ok()?).ok().filter(|payload| *payload <= MAX_APPEND)?;
    let mut payload = Reader::new(reader.take(payload).ok()?);
    let first = payload.u64().ok()?;
    let tag = reader.array().ok()?;
    let signed = bytes.get(..bytes.len().checked_sub(reader.rest().len())?.checked_sub(TAG)?)?;
    Some(Append { signed, first, tag })
}

impl Append<'_> {
    fn fits(&self, mac: &Prf, before: &Tag) -> bool {
        crypto::equal(&self.computed(mac, before), &self.tag)
    }

    fn computed(&self, mac: &Prf, before: &Tag) -> Tag {
        mac.tag(&[APPEND_LABEL, before, self.signed])
    }

    /// Only what the tag has vouched for comes here.
    fn lines(&self, known: u64, lines: &mut Vec<Line>) -> Result<()> {
        let mut reader = Reader::new(self.signed);
        reader.take(12)?;
        let mut number = self.first;
        if reader.is_empty() || Some(number) != known.checked_add(1) {
            return Err(KeeperError::Damaged.into());
        }
        while !reader.is_empty() {
            let length = usize::from(reader.u16()?);
            let bytes = reader.take(length)?.to_vec();
            lines.push(Line { number, bytes });
            number = number.checked_add(1).ok_or(KeeperError::Damaged)?;
        }
        Ok(())
    }
}

/// Whether the bad bytes from `at` on can be one interrupted append: they are not longer than one, and no good append
/// follows. Otherwise a damaged length in the middle would look like the end, and what follows would be thrown away.
fn is_torn(bytes: &[u8], at: usize, mac: &Prf, before: &Tag, known: u64) -> bool {
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.len() > MAX_APPEND.saturating_add(4 + TAG) {
        return false;
    }
    // Where the bad append's own tag is the damaged part, the next one continues what that tag should be.
    let bad = split(rest).map(|bad| (bad.signed.len().saturating_add(TAG), bad.computed(mac, before)));
    let numbers = known.saturating_add(1)..=known.saturating_add(length(rest.len()));
    (1..rest.len()).all(|offset| {
        let (Some(head), Some(tail)) = (bytes.get(..at.saturating_add(offset)), rest.get(offset..)) else {
            return true;
        };
        let Some(next) = split(tail).filter(|next| numbers.contains(&next.first)) else {
            return true;
        };
        let lying = next.fits(mac, before) || head.last_chunk().is_some_and(|tag| next.fits(mac, tag));
        let computed = bad.is_some_and(|(end, tag)| end == offset && next.fits(mac, &tag));
        !lying && !computed
    })
}

#[cfg(test)]
mod tests;
