//! The access log: who read or changed what, when, for which purpose and why, in chains of hashes that show what was
//! changed afterwards.
//!
//! Each open vault writes a _lane_ of its own, and more for changes that are under way together. Chains are not keyed:
//! whoever can write the store can make a whole new lane that verifies in itself. What shows that is a head that somebody
//! else holds: the lane's head in a signed checkpoint, and the checkpoint in the witness. So entries after the last
//! checkpoint can be cut off without a trace (a cut is found only against a head).
//!
//! ```text
//! h 0   = SHA-256("customer-vault/v1/log/lane" ‖ vault id ‖ lane id)
//! h n   = SHA-256("customer-vault/v1/log/entry" ‖ h n-1 ‖ n as u64 ‖ length as u32 ‖ entry), n from 1
//! row n = h n ‖ entry
//! head  = 0x01 ‖ lane id ‖ n as u64 ‖ h n
//! ```

mod action;
mod checkpoint;
mod entry;
#[cfg(test)]
mod tests;

use std::fmt;

pub use action::{Action, Count, Outcome, Refusal};
pub(crate) use checkpoint::{Heads, origin};
pub use entry::{Entry, Pseudonym, TicketEntry};

use crate::crypto;
use crate::error::{Result, Unsupported};
use crate::keeper::VaultId;
use crate::wire::{Put as _, Reader, length};

const LANE: &[u8] = b"customer-vault/v1/log/lane";
const ENTRY: &[u8] = b"customer-vault/v1/log/entry";
const HASH_LEN: usize = 32;
const HEAD_VERSION: u8 = 1;

/// How far a lane goes: the hash covers every entry up to the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    /// Random, new at each open.
    pub(crate) id: [u8; 16],
    /// The number of the last entry; 0 where there is none.
    pub(crate) seq: u64,
    pub(crate) hash: [u8; HASH_LEN],
}

impl Lane {
    /// Without entries.
    pub(crate) fn start(vault: &VaultId, id: [u8; 16]) -> Self {
        Lane { id, seq: 0, hash: crypto::hash(&[LANE, vault.bytes(), &id]) }
    }

    /// The lane with one entry more, and the entry's row. Nothing has changed until the caller has stored both.
    pub(crate) fn next(&self, entry: &Entry) -> (Self, Vec<u8>) {
        let entry = entry.encode();
        // 2^64 entries are not written.
        let next = self.chain(self.seq.saturating_add(1), &entry);
        let mut row = Vec::with_capacity(HASH_LEN.saturating_add(entry.len()));
        row.put(&next.hash);
        row.put(&entry);
        (next, row)
    }

    /// The lane after a stored row, if the row is the one that was written there.
    pub(crate) fn follow(&self, seq: u64, row: &[u8]) -> Result<Self, LogFault> {
        let expected = self.seq.saturating_add(1);
        if seq > expected {
            return Err(LogFault { seq: expected, kind: FaultKind::Gap });
        }
        if seq < expected {
            return Err(LogFault { seq, kind: FaultKind::Order });
        }
        let altered = LogFault { seq, kind: FaultKind::Altered };
        let (hash, entry) = row.split_first_chunk::<HASH_LEN>().ok_or(altered)?;
        let next = self.chain(seq, entry);
        if next.hash == *hash { Ok(next) } else { Err(altered) }
    }

    /// For the lane's head row.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![HEAD_VERSION];
        self.put(&mut out);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != HEAD_VERSION {
            return Err(Unsupported::Version.into());
        }
        let lane = Self::take(&mut reader)?;
        reader.end()?;
        Ok(lane)
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put(&self.id);
        out.put_u64(self.seq);
        out.put(&self.hash);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Lane { id: reader.array()?, seq: reader.u64()?, hash: reader.array()? })
    }

    fn chain(&self, seq: u64, entry: &[u8]) -> Self {
        let length = length(entry).to_be_bytes();
        Lane { seq, hash: crypto::hash(&[ENTRY, &self.hash, &seq.to_be_bytes(), &length, entry]), ..*self }
    }
}

/// The entry in a row that [`Lane::follow`] has passed.
///
/// # Errors
///
/// As [`Entry::decode`].
pub(crate) fn entry_of(row: &[u8]) -> Result<Entry> {
    Entry::decode(row.get(HASH_LEN..).unwrap_or_default())
}

/// Follows rows from `start` on, in ascending order, and says where the lane then stands: rows can be given page by
/// page. Only the chain is checked, so that entries of a later version do not break it.
///
/// # Errors
///
/// The first row that is not the one that was written there.
#[cfg(test)]
pub(crate) fn verify_lane<R: AsRef<[u8]>>(
    start: &Lane,
    rows: impl IntoIterator<Item = (u64, R)>,
) -> Result<Lane, LogFault> {
    rows.into_iter().try_fold(*start, |lane, (seq, row)| lane.follow(seq, row.as_ref()))
}

/// As [`verify_lane`], and against a head that was kept elsewhere: in a checkpoint, or by the witness. `start` lies at
/// or before the head.
///
/// # Errors
///
/// Also [`FaultKind::Cut`] where the rows end before the head, [`FaultKind::Replaced`] where another entry than the
/// head's stands at its number.
pub(crate) fn verify_lane_to<R: AsRef<[u8]>>(
    start: &Lane,
    rows: impl IntoIterator<Item = (u64, R)>,
    head: &Lane,
) -> Result<Lane, LogFault> {
    let passes = |lane: &Lane| {
        let replaced = lane.id != head.id || (lane.seq == head.seq && lane.hash != head.hash);
        if replaced { Err(LogFault { seq: lane.seq, kind: FaultKind::Replaced }) } else { Ok(()) }
    };
    // From beyond the head nothing can be said about it, which must not look like success.
    if start.seq > head.seq {
        return Err(LogFault { seq: head.seq, kind: FaultKind::Replaced });
    }
    passes(start)?;
    let end = rows.into_iter().try_fold(*start, |lane, (seq, row)| {
        let next = lane.follow(seq, row.as_ref())?;
        passes(&next).map(|()| next)
    })?;
    if end.seq < head.seq {
        return Err(LogFault { seq: end.seq.saturating_add(1), kind: FaultKind::Cut });
    }
    Ok(end)
}

/// Where a lane is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {seq}: {kind}")]
pub struct LogFault {
    seq: u64,
    kind: FaultKind,
}

impl LogFault {
    pub(crate) fn new(seq: u64, kind: FaultKind) -> Self {
        LogFault { seq, kind }
    }

    /// The number of the first entry that is not as it was written.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        self.kind
    }
}

/// How a lane can differ from what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// Its hash does not fit: it was changed, or what stood before it was.
    Altered,
    /// It is missing, and later ones are there.
    Gap,
    /// It stands where it cannot: a second time, or after a later one.
    Order,
    /// It and all after it are missing, though a head that was kept elsewhere covers it.
    Cut,
    /// The lane verifies in itself, and is another than the one whose head was kept elsewhere.
    Replaced,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::Altered => "altered",
            FaultKind::Gap => "missing",
            FaultKind::Order => "out of order",
            FaultKind::Cut => "cut off",
            FaultKind::Replaced => "not the one that was signed",
        })
    }
}
