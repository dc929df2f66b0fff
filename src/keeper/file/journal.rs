//! The journal, version 1: appends, one after the other, and zeros after them.
//!
//! ```text
//! header   "customer-vault journal 1\n", vault id 16, tag 16
//! append   length u32 of what follows up to the tag, number of the first line u64,
//!          for each line: length u16, bytes;  tag 16
//! ```
//!
//! Big-endian. The header's tag is HMAC-SHA-256(journal key, label ‖ all before it)[..16], an append's
//! HMAC-SHA-256(journal key, label ‖ tag before it ‖ all of the append before its tag)[..16]. Zeros after the last append
//! are room that is not written yet.
//!
//! One append is synced before the next is written. So a write that a crash interrupted can have left one bad append,
//! at the end; it was never acknowledged, and is overwritten with zeros. A bad append with a good one anywhere after it is
//! damage.
//!
//! What died between a write and its sync, or was told that the sync failed, can have left one good append at the end
//! that is not on the disk. So the last append of another process is written again, same bytes, and synced before
//! anything is built on it.
//!
//! Where there is a second copy, every append is synced in both before it counts. The one with more lines is believed, and
//! brought to the other, which must be its beginning.

use std::fs;

use super::disk::{Disk, is_zero, length, trimmed};
use super::place::{Names, blamed};
use crate::crypto::{self, Prf};
use crate::error::{Error, KeeperError, Result, Unsupported};
use crate::keeper::VaultId;
use crate::wire::{Put as _, Reader};
use crate::witness::{Line, MAX_LINE};

mod leaf;

use leaf::Leaf;

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
    vault: VaultId,
    mac: Prf,
    leaves: Vec<Leaf>,
    lines: Vec<Line>,
    /// So many bytes are acknowledged, and end with this tag.
    good: u64,
    tag: Tag,
}

/// What of `lines` is not in `known`: numbers that are there are passed over, gaps and long lines refused.
pub(crate) fn fresh(known: &[Line], lines: Vec<Line>) -> Result<Vec<Line>, KeeperError> {
    let mut next = count(known).checked_add(1).ok_or(KeeperError::Damaged)?;
    let mut fresh = Vec::new();
    for line in lines {
        if line.number == 0 || line.number > next || line.bytes.len() > MAX_LINE {
            return Err(KeeperError::Damaged);
        }
        // A number that is there with other bytes is another history: passing it over would say that it is remembered.
        let at = usize::try_from(line.number.saturating_sub(1)).ok();
        if at.and_then(|at| known.iter().chain(&fresh).nth(at)).is_some_and(|there| *there != line) {
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
        match fs::metadata(&names.journal) {
            Ok(file) if file.is_file() => {
                fs::read(&names.journal).map_or(true, |bytes| trimmed(&bytes).len() > HEADER)
            }
            there => there.is_ok(),
        }
    }

    /// With no line yet. Half a header that a crash left is written again.
    pub(super) fn create(
        disk: &Disk,
        places: &[Result<Names, KeeperError>],
        key: &[u8; 32],
        vault: VaultId,
    ) -> Result<Self, KeeperError> {
        if places.iter().flatten().any(Self::is_in_use) {
            return Err(KeeperError::Exists);
        }
        let mac = Prf::new(key);
        let mut header = [NAME, VERSION, vault.bytes()].concat();
        let tag = mac.tag(&[HEADER_LABEL, &header]);
        header.put(&tag);
        let mut leaves = leaves(disk, places);
        for (index, leaf) in leaves.iter_mut().enumerate() {
            let written = match leaf.read(0, HEADER) {
                Err(KeeperError::Exposed) => Err(KeeperError::Exposed),
                // A key file that names the vault may already be on the disk, and must not meet half a header after the
                // next crash: the same bytes are written over it.
                Ok(there) if there == header => leaf.write_again(&[(0, &header)]),
                _ => leaf.replace(&header),
            };
            written.map_err(|error| blamed(index, error))?;
        }
        Ok(Journal { vault, mac, leaves, lines: Vec::new(), good: length(header.len()), tag })
    }

    /// Reads all of it, wherever it lies, believes the one with the most lines, and brings it to the other. What was never
    /// acknowledged is overwritten.
    pub(super) fn open(
        disk: &Disk,
        places: &[Result<Names, KeeperError>],
        key: &[u8; 32],
        vault: VaultId,
        least: u64,
    ) -> Result<Self> {
        let mac = Prf::new(key);
        let mut leaves = leaves(disk, places);
        let read = |leaf: &mut Leaf| {
            let bytes = leaf.read(0, usize::MAX)?;
            match scan(&bytes, &mac, vault) {
                // It may be anything: nobody writes over it.
                Err(DAMAGED) if !is_ours(&bytes) => Err(FOREIGN_FILE),
                scan => scan.map(|scan| (bytes, scan)),
            }
        };
        let found: Vec<_> = leaves.iter_mut().map(read).collect();
        let scans = found.iter().enumerate().filter_map(|(index, found)| Some((index, found.as_ref().ok()?)));
        let Some((best, (bytes, scan))) = scans.rev().max_by_key(|(_, (_, scan))| scan.lines.len()) else {
            let first = found.into_iter().find_map(Result::err).unwrap_or(DAMAGED);
            return Err(if first == MISSING || first == FOREIGN_FILE { DAMAGED } else { first });
        };
        if count(&scan.lines) < least {
            return Err(DAMAGED);
        }
        for (index, (leaf, found)) in leaves.iter_mut().zip(&found).enumerate() {
            let all = bytes.get(..scan.good).unwrap_or_default();
            let written = match found {
                Ok((other, at)) if index == best || other.get(..at.good) == bytes.get(..at.good) => {
                    let from = at.good.min(scan.last);
                    let (header, appends) = (bytes.get(..HEADER), all.get(from..));
                    leaf.write_again(&[
                        (0, header.unwrap_or_default()),
                        (length(from), appends.unwrap_or_default()),
                    ])
                }
                // Another history: whoever mixes them loses one.
                Ok(_) => return Err(KeeperError::Foreign.into()),
                Err(DAMAGED | MISSING) => leaf.replace(all),
                Err(FOREIGN_FILE) => return Err(DAMAGED),
                Err(Error::Keeper(KeeperError::Io)) => {
                    leaf.away = true;
                    continue;
                }
                Err(error) => return Err(*error),
            };
            match written {
                Err(error) if index == best => return Err(blamed(index, error).into()),
                written => leaf.away = written.is_err(),
            }
        }
        let (good, tag) = (length(scan.good), scan.tag);
        let lines = found.into_iter().nth(best).and_then(Result::ok).map(|(_, scan)| scan.lines);
        Ok(Journal { vault, mac, leaves, lines: lines.unwrap_or_default(), good, tag })
    }

    /// Takes in what other processes have appended since. `false` where it must be opened again: it is not what it was,
    /// or not the same in both copies.
    pub(super) fn catch_up(&mut self) -> Result<bool, KeeperError> {
        // The tag before the end of what is known stands for all of it: a journal that was cut, or put back to an older
        // one, does not have it there.
        let from = self.good.checked_sub(length(TAG)).ok_or(KeeperError::Damaged)?;
        let mut more = false;
        for leaf in &mut self.leaves {
            match leaf.read(from, TAG.saturating_add(4)) {
                Ok(bytes) if bytes.starts_with(&self.tag) && !leaf.broken && !leaf.away => {
                    more |= !is_zero(bytes.get(TAG..).unwrap_or_default());
                }
                _ => return Ok(false),
            }
        }
        if !more {
            return Ok(true);
        }
        let tails: Result<Vec<_>, _> =
            self.leaves.iter_mut().map(|leaf| leaf.read(from, usize::MAX)).collect();
        let tails = tails?;
        let Some(first) = tails.first() else { return Ok(false) };
        if tails.iter().any(|tail| trimmed(tail) != trimmed(first)) {
            return Ok(false);
        }
        let mut scan =
            follow(first, TAG, self.tag, self.count(), &self.mac).map_err(super::wrapping::narrow)?;
        let last = first.get(scan.last..scan.good).unwrap_or_default();
        for (index, leaf) in self.leaves.iter_mut().enumerate() {
            leaf.write_again(&[(from.saturating_add(length(scan.last)), last)])
                .map_err(|error| blamed(index, error))?;
        }
        self.lines.append(&mut scan.lines);
        self.good = from.saturating_add(length(scan.good));
        self.tag = scan.tag;
        Ok(true)
    }

    /// Whether a copy of it was away when it was opened.
    pub(super) fn is_away(&self) -> bool {
        self.leaves.iter().any(|leaf| leaf.away)
    }

    /// Whether it says what `before` said, and perhaps more.
    pub(super) fn continues(&self, before: &Self) -> bool {
        self.lines.starts_with(&before.lines)
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
        self.mend()?;
        for (index, leaf) in self.leaves.iter_mut().enumerate() {
            if let Err(error) = leaf.append(self.good, append) {
                // What is in one of them alone does not count.
                self.leaves.iter_mut().for_each(|leaf| leaf.broken = true);
                return Err(blamed(index, error));
            }
        }
        Ok(())
    }

    /// After a failed sync the operating system may have dropped what it could not write, and say nothing more. So the
    /// file is opened again, what was acknowledged is read and verified, and the rest overwritten.
    fn mend(&mut self) -> Result<(), KeeperError> {
        for (index, leaf) in self.leaves.iter_mut().enumerate().filter(|(_, leaf)| leaf.broken || leaf.away) {
            let mended = leaf.read(0, usize::MAX).and_then(|mut bytes| {
                bytes.truncate(usize::try_from(self.good).map_err(|_| KeeperError::Damaged)?);
                let scan = scan(&bytes, &self.mac, self.vault).map_err(super::wrapping::narrow)?;
                if scan.tag != self.tag || length(scan.good) != self.good {
                    return Err(KeeperError::Damaged);
                }
                leaf.clear(self.good)
            });
            mended.map_err(|error| blamed(index, error))?;
            (leaf.broken, leaf.away) = (false, false);
        }
        Ok(())
    }
}

const DAMAGED: Error = Error::Keeper(KeeperError::Damaged);
const MISSING: Error = Error::Keeper(KeeperError::Missing);

/// Said here of a file that is no journal at all.
const FOREIGN_FILE: Error = Error::Keeper(KeeperError::Exists);

fn leaves(disk: &Disk, places: &[Result<Names, KeeperError>]) -> Vec<Leaf> {
    places.iter().map(|names| Leaf::of(disk, names)).collect()
}

/// A journal by its beginning, or a file of which nothing was written.
fn is_ours(bytes: &[u8]) -> bool {
    bytes.starts_with(NAME) || is_zero(bytes)
}

struct Scan {
    lines: Vec<Line>,
    /// Where the last good append begins; where there is none, where it ends.
    last: usize,
    /// Where the last good append ends.
    good: usize,
    tag: Tag,
}

fn scan(bytes: &[u8], mac: &Prf, vault: VaultId) -> Result<Scan> {
    let tag = header(bytes, mac, vault)?;
    follow(bytes, HEADER, tag, 0, mac)
}

/// The appends from `good` on, after `known` lines.
fn follow(bytes: &[u8], mut good: usize, mut tag: Tag, known: u64, mac: &Prf) -> Result<Scan> {
    let (mut lines, mut last) = (Vec::new(), good);
    // Zeros to the end are room; they are cut off here, and not before: a tag may end with a zero.
    while let Some(rest) = bytes.get(good..).filter(|rest| !is_zero(rest)) {
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
    // Not written to its end: what stands for the vault may be half of it.
    if tag == [0; TAG] {
        return Err(DAMAGED);
    }
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
    let bytes = trimmed(bytes);
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
