//! Reading and verifying the log, and checkpoints: signed notes over the heads of all lanes, remembered by the witness.

use std::collections::BTreeMap;

use crate::crypto;
use crate::error::{Error, Malformed, Result, RolledBack};
use crate::journal::Event;
use crate::log::{Action, Count, Entry, FaultKind, Heads, Lane, LogFault, Outcome, entry_of, verify_lane_to};
use crate::note::SignedNote;
use crate::store::{Batch, Committed, Key, Range, Versioned};
use crate::tree::ATTEMPTS;
use crate::vault::{Inner, Vault, lane};

/// What verifying the log has found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogReport {
    /// Lanes: one for each time that a process opened the vault.
    pub lanes: usize,
    /// Entries whose chain holds.
    pub entries: u64,
    /// The number of the checkpoint that the witness remembers.
    pub checkpoint: Option<u64>,
    /// Where a lane is not as it was written: the lane, and what is wrong first.
    pub faults: Vec<([u8; 16], LogFault)>,
}

impl LogReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.faults.is_empty()
    }
}

const CHECKPOINTS: &[u8] = b"a";

fn checkpoint_name(number: u64, part: u8) -> Key {
    [CHECKPOINTS, &number.to_be_bytes()[..], &[part]].concat()
}

const NOTE: u8 = 1;
const HEADS: u8 = 2;

impl Vault {
    /// Signs a checkpoint over all lanes and lets the witness remember it. What was written before it cannot be cut off
    /// without being found. `settle` makes one too, where it has settled something.
    ///
    /// # Errors
    ///
    /// What store and witness say.
    pub async fn checkpoint(&self) -> Result<String> {
        self.0.checkpoint().await
    }

    /// Verifies every lane: its chain, its head, and the last checkpoint that the witness holds. Entries that were cut
    /// off after that checkpoint are not found.
    ///
    /// # Errors
    ///
    /// What the store says; [`Error::DoesNotOpen`] where the checkpoint's signature does not hold. What is wrong with the
    /// log stands in the report.
    pub async fn verify_log(&self) -> Result<LogReport> {
        let inner = &self.0;
        inner.catch_up().await?;
        let checkpoint = inner.journal.with(|state| state.checkpoint);
        let known = match checkpoint {
            Some((number, hash)) => Some(inner.heads_at(number, &hash).await?),
            None => None,
        };
        let mut heads = BTreeMap::new();
        for (name, row) in inner.rows.all(Range::prefix(b"l")).await? {
            let lane = Lane::decode(&row.value)?;
            if lane::head_name(&lane.id) != name {
                return Err(Malformed::Content.into());
            }
            heads.insert(lane.id, lane);
        }
        let mut report = LogReport {
            lanes: heads.len(),
            entries: 0,
            checkpoint: checkpoint.map(|(number, _)| number),
            faults: Vec::new(),
        };
        for lane in known.iter().flat_map(Heads::lanes) {
            // A lane that the checkpoint covers and the store lacks was removed as a whole.
            heads.entry(lane.id).or_insert(*lane);
        }
        for head in heads.values() {
            let kept = known.as_ref().and_then(|known| known.of(&head.id)).copied();
            match inner.verify_lane(head, kept).await? {
                Ok(entries) => report.entries = report.entries.saturating_add(entries),
                Err(fault) => report.faults.push((head.id, fault)),
            }
        }
        inner
            .log(inner.entry(Action::Verify, Outcome::Done).counting(Count::Entries, report.entries))
            .await?;
        Ok(report)
    }

    /// All entries of the log, oldest first. It reads them all into memory.
    ///
    /// # Errors
    ///
    /// What the store says; [`Error::Malformed`] for an entry that is none.
    pub async fn log(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (_, row) in self.0.rows.all(Range::prefix(b"o")).await? {
            entries.push(entry_of(&row.value)?);
        }
        entries.sort_by_key(Entry::time_ms);
        Ok(entries)
    }
}

impl Inner {
    pub(crate) async fn checkpoint(&self) -> Result<String> {
        for _ in 0..ATTEMPTS {
            let mut lanes = Vec::new();
            for (_, row) in self.rows.all(Range::prefix(b"l")).await? {
                lanes.push(Lane::decode(&row.value)?);
            }
            let heads = Heads::new(lanes)?;
            let fence = self.catch_up().await?;
            let number =
                self.journal.with(|state| state.checkpoint.map_or(1, |(number, _)| number.saturating_add(1)));
            let text = heads.text(&self.id, self.clock.wall())?;
            let note = self.sign(&text)?;
            let mut batch = Batch::new()?;
            batch.put(&checkpoint_name(number, NOTE), note.clone().into_bytes());
            batch.put(&checkpoint_name(number, HEADS), heads.encode());
            let hash = crypto::hash(&[note.as_bytes()]);
            let lines =
                match self.journal.stage(&mut batch, fence.as_ref(), &[Event::Checkpoint { number, hash }]) {
                    Err(Error::Busy) => continue,
                    lines => lines?,
                };
            if self.rows.commit(batch).await? == Committed::Yes {
                self.journal.committed(&lines)?;
                self.journal.complete().await?;
                self.log(self.entry(Action::Checkpoint, Outcome::Done)).await?;
                return Ok(note);
            }
        }
        Err(Error::Busy)
    }

    /// The heads of a checkpoint whose note has the hash that the witness remembers.
    async fn heads_at(&self, number: u64, hash: &[u8; 32]) -> Result<Heads> {
        let rows = self.rows.read(&[checkpoint_name(number, NOTE), checkpoint_name(number, HEADS)]).await?;
        let [Some(note), Some(heads)] = rows.as_slice() else { return Err(RolledBack::Store.into()) };
        if crypto::hash(&[&note.value]) != *hash {
            return Err(Error::DoesNotOpen);
        }
        let note = std::str::from_utf8(&note.value).map_err(|_| Malformed::Content)?;
        let note = SignedNote::parse(note)?;
        let heads = Heads::decode(&heads.value)?;
        // By the key of then: the hash that the witness remembers says which note it is.
        let keys = self.ring().verifiers(&self.origin())?;
        let text = keys.iter().find_map(|key| note.verify(key).ok()).ok_or(Error::DoesNotOpen)?;
        heads.check(&self.id, text)?;
        Ok(heads)
    }

    /// Whether a lane's head has moved since it was read: then entries beyond it were written in due order.
    async fn has_grown(&self, head: &Lane) -> Result<bool> {
        let row = self.rows.get(&lane::head_name(&head.id)).await?;
        Ok(match row {
            Some(row) => Lane::decode(&row.value)?.seq > head.seq,
            None => false,
        })
    }

    /// Follows one lane page by page, to the head row and, on the way, past the head that a checkpoint holds.
    async fn verify_lane(&self, head: &Lane, kept: Option<Lane>) -> Result<Result<u64, LogFault>> {
        let prefix = [b"o", &head.id[..]].concat();
        let rows = self.rows.all(Range::prefix(&prefix)).await?;
        let numbered = |rows: &[(Key, Versioned)]| -> Vec<(u64, Vec<u8>)> {
            let seq = |name: &Key| name.last_chunk().map_or(0, |seq| u64::from_be_bytes(*seq));
            rows.iter().map(|(name, row)| (seq(name), row.value.clone())).collect()
        };
        let start = Lane::start(&self.id, head.id);
        if let Some(kept) = kept
            && let Err(fault) = verify_lane_to(&start, numbered(&rows), &kept)
        {
            return Ok(Err(fault));
        }
        Ok(match verify_lane_to(&start, numbered(&rows), head) {
            Err(fault) => Err(fault),
            // The head row is written with the entry: entries beyond it were put there by somebody else.
            Ok(end) if end.seq > head.seq && !self.has_grown(head).await? => {
                Err(LogFault::new(head.seq.saturating_add(1), FaultKind::Replaced))
            }
            Ok(end) => Ok(end.seq),
        })
    }
}
