//! Destroying keys: `shred` removes them and replaces the root, `settle` destroys old roots, `expire` destroys days.
//!
//! Each is safe at any time, in any process, any number of times: what a crash left undone the next one finishes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::actor::{Actor, Ground};
use crate::certificate::{Certificate, Pending};
use crate::change::{DUE, due_name, due_of};
use crate::clock::{Day, rfc3339};
use crate::crypto;
use crate::entry::Entry;
use crate::error::{Error, Halted, KeeperError, Malformed, Misuse, Result, RolledBack, StoreError};
use crate::hold;
use crate::journal::Event;
use crate::key::Tag;
use crate::log::{Action, Count};
use crate::note::sign_note;
use crate::row::Plain;
use crate::store::{Batch, Committed, Key, Range};
use crate::tree::node::{day_of, tag_of};
use crate::tree::rotate::{BatchId, Beside, Phase, RETIRED, Retired, batch_name};
use crate::tree::{ATTEMPTS, Epoch, Node};
use crate::vault::{Inner, Vault};
use crate::wire::{Put as _, Reader};

/// What a shred has reached: *unreachable*. The store committed without the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShredReceipt {
    /// Subjects whose keys were removed.
    pub subjects: usize,
    /// The root epoch that was left; `None` where there was nothing to do. Once its root is destroyed, no older copy of
    /// the store opens what was removed.
    pub epoch_left: Option<u64>,
    /// The moment, in milliseconds since 1970, from which `settle` destroys that root.
    pub settles_at_ms: Option<i64>,
}

/// What an expiry has done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpireReceipt {
    /// Days whose keys were destroyed, ascending.
    pub days: Vec<Day>,
    /// The root epoch that was left; `None` where there was nothing to do.
    pub epoch_left: Option<u64>,
    /// The signed note about it; `None` where there was nothing to do.
    pub note: Option<String>,
}

/// What settling has reached: *destroyed*, and *final* for what the certificates name.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SettleReceipt {
    /// Root keys that the keeper has destroyed and was seen not to unwrap any more.
    pub roots: usize,
    /// One for each forget that is final with this.
    pub certificates: Vec<Certificate>,
}

const NOTES: &[u8] = b"N";

/// The row of an expiry that is under way.
const EXPIRY: &[u8] = b"E";

/// What an expiry destroys.
#[derive(Debug, Default)]
struct Expiry {
    batch: BatchId,
    days: BTreeSet<Day>,
}

impl Expiry {
    /// One that was interrupted, or nothing.
    async fn unfinished(inner: &Inner) -> Result<Self> {
        let Some(row) = inner.rows.get(EXPIRY).await? else { return Ok(Self::default()) };
        let mut r = Reader::new(&row.value);
        let mut expiry = Expiry { batch: r.array()?, days: BTreeSet::new() };
        while !r.is_empty() {
            expiry.days.insert(Day(r.u16()?));
        }
        Ok(expiry)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = self.batch.to_vec();
        self.days.iter().for_each(|day| out.put_u16(day.number()));
        out
    }
}

/// Names subjects of whom nothing opens any more.
const GONE: &[u8] = b"G";

fn gone_name(tag: &Tag) -> Key {
    [GONE, &tag[..]].concat()
}

/// Subjects of a bucket that have something to destroy, with the index rows that said so.
type Due = BTreeMap<Tag, Vec<Key>>;

impl Vault {
    /// Destroys what is due: forgets and withdrawals whose grace is over, kept purposes whose date is over, released
    /// holds. Rotates the keys' paths to the root and replaces the root.
    ///
    /// # Errors
    ///
    /// [`Halted::Clock`] where the clock stands further beyond the mark of time than the settings allow; what store and
    /// keeper say. Where the keeper cannot be reached the keys are removed and the root is not replaced:
    /// the next shred goes on.
    pub async fn shred(&self, actor: &Actor, ground: &Ground) -> Result<ShredReceipt> {
        let inner = &self.0;
        let _one_at_a_time = inner.maintenance.lock().await;
        // A clock that is years ahead would end every grace, and what the law keeps with it.
        inner.advance_time().await?;
        inner.tree.settle_keeper().await?;
        inner.tree.finish_rotations(&inner.journal, || inner.clock.wall()).await?;
        inner.sweep().await?;
        let today = inner.today();
        let mut buckets: BTreeMap<Node, Due> = BTreeMap::new();
        let range = Range { start: DUE.to_vec(), end: due_name(today.plus(1), &[0; 16]) };
        for (name, _) in inner.rows.all(range).await? {
            let (_, tag) = due_of(&name).ok_or(Malformed::Content)?;
            buckets
                .entry(Node::bucket(&tag, inner.tree.height))
                .or_default()
                .entry(tag)
                .or_default()
                .push(name);
        }
        if buckets.is_empty() {
            return Ok(ShredReceipt { subjects: 0, epoch_left: None, settles_at_ms: None });
        }
        let batch = inner.tree.begin().await?;
        let mut subjects = 0_usize;
        for (bucket, tags) in &buckets {
            inner.shred_bucket(&batch, bucket, tags, today).await?;
            subjects = subjects.saturating_add(tags.len());
        }
        inner.tree.removed(&batch).await?;
        inner.tree.finish_rotations(&inner.journal, || inner.clock.wall()).await?;
        inner.sweep().await?;
        let left = inner.left(&batch).await?;
        let mut entry = inner.entry_by(Action::Shred, actor, ground)?;
        entry = entry.counting(Count::Subjects, u64::try_from(subjects).unwrap_or(u64::MAX));
        if let Some((epoch, _)) = left {
            entry = entry.counting(Count::Epoch, epoch);
        }
        inner.log(entry).await?;
        Ok(ShredReceipt {
            subjects,
            epoch_left: left.map(|(epoch, _)| epoch),
            settles_at_ms: left.map(|(_, at_ms)| inner.settles_at(at_ms)),
        })
    }

    /// Destroys the roots whose restore window is over, asks the keeper to unwrap with them and expects failure, and
    /// issues the certificates that waited for it.
    ///
    /// # Errors
    ///
    /// [`Halted::Clock`] as for [`shred`](Self::shred); [`KeeperError::StillUnwraps`] where the keeper says destroyed and still unwraps: then nothing is certified.
    pub async fn settle(&self, actor: &Actor, ground: &Ground) -> Result<SettleReceipt> {
        let inner = &self.0;
        let _one_at_a_time = inner.maintenance.lock().await;
        // A clock that is years ahead would end the restore window.
        inner.advance_time().await?;
        let now = inner.clock.wall();
        inner.tree.retire_orphans(now).await?;
        let all_retired = inner.rows.all(Range::prefix(RETIRED)).await?;
        // After reading them: another process may have replaced a root and not yet told the keeper, for whom the old one
        // is still the active one.
        inner.tree.settle_keeper().await?;
        let mut receipt = SettleReceipt::default();
        for (name, row) in all_retired {
            let retired = Retired::decode(&row.value)?;
            if inner.settles_at(retired.at_ms) > now {
                // Older roots first: one that stays keeps everything behind it readable.
                break;
            }
            if receipt.roots == 0 {
                // A standby that still names it would open for nobody once it is promoted.
                inner.rows.copies_are_current().await?;
            }
            inner.roots.destroy(retired.id).await?;
            match inner.roots.unwrap(retired.id, &retired.wrapped).await {
                Err(KeeperError::NoSuchRoot) => {}
                Ok(_) => return Err(KeeperError::StillUnwraps.into()),
                Err(why) => return Err(why.into()),
            }
            inner.settled(retired.epoch, &name).await?;
            receipt.roots = receipt.roots.saturating_add(1);
        }
        receipt.certificates = inner.certify(now, actor, ground).await?;
        if receipt.roots > 0 || !receipt.certificates.is_empty() {
            let roots = u64::try_from(receipt.roots).unwrap_or(u64::MAX);
            inner.log(inner.entry_by(Action::Settle, actor, ground)?.counting(Count::Roots, roots)).await?;
            inner.checkpoint().await?;
        }
        Ok(receipt)
    }

    /// Destroys the keys of all days that are over, whatever was sealed to them, in one root replacement, and leaves a
    /// signed note. Run it once a day; any time is safe.
    ///
    /// # Errors
    ///
    /// [`Halted::Clock`] where the clock stands further beyond the mark of time than the settings allow: then nothing is
    /// destroyed, and an operator has to [`confirm_time`](Self::confirm_time).
    pub async fn expire(&self, actor: &Actor, ground: &Ground) -> Result<ExpireReceipt> {
        let inner = &self.0;
        let _one_at_a_time = inner.maintenance.lock().await;
        inner.advance_time().await?;
        inner.tree.settle_keeper().await?;
        inner.tree.finish_rotations(&inner.journal, || inner.clock.wall()).await?;
        let Some(mark) = inner.journal.mark() else { return Err(Halted::Clock.into()) };
        inner.top_up(true).await?;
        let over = Range { start: b"d".to_vec(), end: crate::tree::node::day_name(mark.plus(1)) };
        let due: Vec<Day> = inner.rows.all(over).await?.iter().filter_map(|(name, _)| day_of(name)).collect();
        let mut expiry = Expiry::unfinished(inner).await?;
        if due.is_empty() && expiry.days.is_empty() {
            return Ok(ExpireReceipt { days: due, epoch_left: None, note: None });
        }
        if !due.is_empty() {
            expiry.batch = inner.tree.begin().await?;
            expiry.days.extend(&due);
            // Written before anything is dropped: whoever comes after a crash says what was destroyed.
            let mut batch = Batch::new()?;
            batch.put(EXPIRY, expiry.encode());
            // It expects nothing: it was not made, and a crash would leave no note.
            if inner.rows.commit(batch).await? == Committed::Conflict {
                return Err(Error::Busy);
            }
            inner.drop_days(&expiry.batch, &due, mark).await?;
            inner.tree.removed(&expiry.batch).await?;
        }
        inner.tree.finish_rotations(&inner.journal, || inner.clock.wall()).await?;
        inner.journal.record(&[Event::DaysDestroyed { day: mark }]).await?;
        inner.calendar.drop_until(mark);
        let left = inner.left(&expiry.batch).await?;
        let days: Vec<Day> = expiry.days.into_iter().collect();
        let note = inner.expiry_note(&days, left)?;
        let count = u64::try_from(days.len()).unwrap_or(u64::MAX);
        let entry = inner.entry_by(Action::Expire, actor, ground)?.counting(Count::Days, count);
        for _ in 0..ATTEMPTS {
            let mut writes = Batch::new()?;
            writes.delete(EXPIRY);
            writes.put(&[NOTES, &mark.number().to_be_bytes()[..]].concat(), note.clone().into_bytes());
            if inner.lane.commit(writes, std::slice::from_ref(&entry)).await? == Committed::Yes {
                return Ok(ExpireReceipt {
                    days,
                    epoch_left: left.map(|(epoch, _)| epoch),
                    note: Some(note),
                });
            }
        }
        Err(Error::Busy)
    }

    /// The signed notes that expiries have left, oldest first.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn expiry_notes(&self) -> Result<Vec<String>> {
        let rows = self.0.rows.all(Range::prefix(NOTES)).await?;
        rows.into_iter()
            .map(|(_, row)| String::from_utf8(row.value).map_err(|_| Malformed::Content.into()))
            .collect()
    }
}

impl Inner {
    fn settles_at(&self, left_ms: i64) -> i64 {
        left_ms.saturating_add(i64::from(self.settings.window.in_days()).saturating_mul(86_400_000))
    }

    /// The epoch that a batch's last commit left, and when.
    async fn left(&self, batch: &BatchId) -> Result<Option<(u64, i64)>> {
        let name = batch_name(batch);
        let Some(row) = self.rows.get(&name).await? else { return Ok(None) };
        match Phase::decode(&row.value)? {
            Phase::Left { epoch, at_ms, proof } => {
                let ours = crypto::equal(&proof, &self.journal.proof_of_left(&name, epoch, at_ms));
                if ours { Ok(Some((epoch, at_ms))) } else { Err(RolledBack::Mixed.into()) }
            }
            Phase::Removing | Phase::Rotating => Ok(None),
        }
    }

    /// Removes what is due from the entries of one bucket and rotates it.
    async fn shred_bucket(&self, batch: &BatchId, bucket: &Node, due: &Due, today: Day) -> Result<()> {
        let mut edit = |name: &[u8], child: Plain, beside: &mut Beside| {
            let Some((tag, rows)) = tag_of(name).and_then(|tag| Some((tag, due.get(&tag)?))) else {
                return Ok(Some(child));
            };
            let mut entry = Entry::from_plain(child)?;
            for shredded in entry.shred(today) {
                // A forget that was replayed on a restored store has no reference: nobody waits for its certificate.
                if shredded.forgotten.reference != [0; 16] {
                    let pending = Pending::of(&shredded, *batch, |purpose| self.label(purpose));
                    beside.push((pending.name(), Some(pending.wrap(self)?)));
                }
            }
            beside.extend(rows.iter().map(|row| (row.clone(), None)));
            beside.extend(entry.next_due().map(|day| (due_name(day, &tag), Some(Vec::new()))));
            if entry.keys.is_empty() && entry.hold.is_none() {
                beside.push((gone_name(&tag), Some(Vec::new())));
            }
            Ok(Some(entry.to_plain()))
        };
        self.tree.remove(batch, bucket, &[], &mut edit).await
    }

    /// Deletes the records of subjects of whom nothing opens any more: kept, they would only take room. A row says whose,
    /// so that a crash leaves nothing behind; a hold or a new enrolment that came meanwhile keeps what it needs.
    async fn sweep(&self) -> Result<()> {
        for (name, _) in self.rows.all(Range::prefix(GONE)).await? {
            let tag: Tag = name.last_chunk().copied().ok_or(Malformed::Length)?;
            crate::records::delete_all(self, &tag).await?;
            let mut batch = Batch::new()?;
            batch.delete(&name);
            self.rows.commit(batch).await?;
        }
        Ok(())
    }

    async fn drop_days(&self, batch: &BatchId, days: &[Day], mark: Day) -> Result<()> {
        let months: BTreeSet<Node> = days.iter().map(|day| Node::month(*day)).collect();
        for month in months {
            let own: Vec<Day> = days.iter().copied().filter(|day| Node::month(*day) == month).collect();
            let mut dropped = false;
            for _ in 0..ATTEMPTS {
                let guard = match hold::keep_shelves(self, &own).await {
                    Err(Error::Busy) => {
                        self.calendar.load(&self.tree).await?;
                        continue;
                    }
                    guard => guard?,
                };
                let mut edit = |name: &[u8], child: Plain, _: &mut Beside| {
                    Ok(day_of(name).is_none_or(|day| day > mark).then_some(child))
                };
                match self.tree.remove(batch, &month, &[guard], &mut edit).await {
                    Ok(()) => {
                        dropped = true;
                        break;
                    }
                    // A hold was placed meanwhile: its shelves have to be kept first.
                    Err(Error::Busy) => {}
                    Err(why) => return Err(why),
                }
            }
            if !dropped {
                return Err(Error::Busy);
            }
        }
        Ok(())
    }

    fn expiry_note(&self, days: &[Day], left: Option<(u64, i64)>) -> Result<String> {
        let (Some(first), Some(last)) = (days.first(), days.last()) else { return Err(Misuse::Day.into()) };
        let mut text = format!("{}/expiry\n", self.origin());
        let _ = writeln!(text, "days {first} to {last}: {} keys destroyed", days.len());
        if let Some((epoch, at_ms)) = left {
            let _ = writeln!(text, "root epoch left: {epoch} at {}", rfc3339(at_ms));
            let _ = writeln!(text, "unreadable after: {}", rfc3339(self.unreadable_after(at_ms)));
        }
        let _ = writeln!(text, "keeper: {}", self.roots.erasure_class().label());
        sign_note(&self.origin(), self.signing.expose(), &text)
    }

    pub(crate) fn unreadable_after(&self, left_ms: i64) -> i64 {
        let delay = i64::try_from(self.roots.erasure_class().max_delay_s()).unwrap_or(i64::MAX);
        self.settles_at(left_ms).saturating_add(delay.saturating_mul(1000))
    }
}

/// The row of the highest epoch whose root is destroyed, with all before it.
const SETTLED: &[u8] = b"S";

impl Inner {
    async fn settled(&self, epoch: u64, retired: &[u8]) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let row = self.rows.get(SETTLED).await?;
            let known = settled_epoch(row.as_ref())?;
            let mut batch = Batch::new()?;
            batch.expect(SETTLED, crate::store::Expect::unchanged(row.as_ref()));
            batch.put(SETTLED, known.max(epoch).to_be_bytes().to_vec());
            batch.delete(retired);
            if self.rows.commit(batch).await? == Committed::Yes {
                return Ok(());
            }
        }
        Err(Error::Busy)
    }

    /// Signs the certificates of all forgets whose epoch is settled.
    async fn certify(&self, now: i64, actor: &Actor, ground: &Ground) -> Result<Vec<Certificate>> {
        let settled = settled_epoch(self.rows.get(SETTLED).await?.as_ref())?;
        let held = self.roots.held().await?;
        let current = self.rows.get(&Node::Root.name()).await?.ok_or(StoreError::Empty)?;
        let current = Epoch::decode(&current.value)?;
        let mut certificates = Vec::new();
        for (name, row) in self.rows.all(Range::prefix(Pending::PREFIX)).await? {
            let pending = Pending::unwrap(self, &name, &row)?;
            let Some((epoch, left_ms)) = self.left(&pending.batch).await? else { continue };
            // Rows can be altered; what the keeper still holds cannot. No certificate while it could unwrap a root of that
            // epoch or an earlier one, whatever the rows say.
            let readable = held.iter().any(|root| root.epoch <= epoch && root.id != current.id);
            if epoch > settled || epoch >= current.epoch || readable {
                continue;
            }
            let certificate = Certificate::sign(self, &pending, epoch, left_ms, now)?;
            let entry = self.entry_by(Action::Settle, actor, ground)?.with_reference(pending.reference);
            for attempt in 0..=ATTEMPTS {
                let mut batch = Batch::new()?;
                batch.expect(&name, crate::store::Expect::Version(row.version));
                batch.delete(&name);
                batch.put(&Certificate::name(&pending.reference), certificate.as_str().as_bytes().to_vec());
                if self.lane.commit(batch, std::slice::from_ref(&entry)).await? == Committed::Yes {
                    certificates.push(certificate);
                    break;
                }
                if self.rows.get(&name).await?.is_none() {
                    // Another process has issued it.
                    break;
                }
                if attempt == ATTEMPTS {
                    return Err(Error::Busy);
                }
            }
        }
        Ok(certificates)
    }
}

fn settled_epoch(row: Option<&crate::store::Versioned>) -> Result<u64> {
    match row {
        None => Ok(0),
        Some(row) => Ok(u64::from_be_bytes(row.value.as_slice().try_into().map_err(|_| Malformed::Length)?)),
    }
}
