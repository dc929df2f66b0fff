//! Destroying keys: `shred` removes them and replaces the root, `settle` destroys old roots, `expire` destroys days.
//!
//! Each is safe at any time, in any process, any number of times: what a crash left undone the next one finishes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::actor::{Actor, Ground};
use crate::certificate::{Certificate, Pending};
use crate::change::{DUE, due_name, due_of};
use crate::clock::{Day, rfc3339};
use crate::error::{Error, Halted, KeeperError, Malformed, Misuse, Result, RolledBack, StoreError};
use crate::hold;
use crate::journal::Event;
use crate::key::Tag;
use crate::log::{Action, Count};
use crate::row::Plain;
use crate::store::{Batch, Committed, Expect, Key, Range, Versioned};
use crate::tree::batch::{Appears, BatchId, Phase, Removals, batch_name};
use crate::tree::node::day_of;
use crate::tree::root::{RETIRED, Retired};
use crate::tree::rotate::Beside;
use crate::tree::{ATTEMPTS, Epoch, Node};
use crate::vault::{Inner, Vault};
use crate::wire::{Put as _, Reader};

mod bucket;
mod lines;

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

/// Signed notes: of expiries, and of changes of the signing key.
pub(crate) const NOTES: &[u8] = b"N";

/// The row of an expiry that is under way.
const EXPIRY: &[u8] = b"E";

/// What an expiry destroys.
#[derive(Debug, Default)]
struct Expiry {
    batch: BatchId,
    days: BTreeSet<Day>,
}

impl Expiry {
    /// One that was interrupted, or nothing. A row that this vault did not write is none: its days would be somebody
    /// else's choice, in a signed note. One that was put back names days that are destroyed too, and repeats them.
    async fn unfinished(inner: &Inner) -> Result<Self> {
        let row = inner.rows.get(EXPIRY).await?;
        let Some(content) = row.as_ref().and_then(|row| inner.journal.proven(EXPIRY, &row.value)) else {
            return Ok(Self::default());
        };
        let mut r = Reader::new(content);
        let mut expiry = Expiry { batch: r.array()?, days: BTreeSet::new() };
        while !r.is_empty() {
            expiry.days.insert(Day(r.u16()?));
        }
        Ok(expiry)
    }

    fn encode(&self, inner: &Inner) -> Vec<u8> {
        let mut out = self.batch.to_vec();
        self.days.iter().for_each(|day| out.put_u16(day.number()));
        inner.journal.prove(EXPIRY, out)
    }
}

/// Names subjects of whom nothing opens any more.
const GONE: &[u8] = b"G";

fn gone_name(tag: &Tag) -> Key {
    [GONE, &tag[..]].concat()
}

/// Places in a bucket where something is to be destroyed, with the index rows that said so.
type Due = BTreeMap<Tag, Vec<Key>>;

impl Vault {
    /// Destroys what is due: forgets and withdrawals whose grace is over, kept purposes whose date is over, released
    /// holds. Rotates the keys' paths to the root and replaces the root.
    ///
    /// # Errors
    ///
    /// [`Halted::Clock`] where the clock stands further beyond the mark of time than the settings allow;
    /// [`RolledBack::Mixed`] where rows were altered or put back while it ran: then nothing is certified of it; what store
    /// and keeper say. Where the keeper cannot be reached the keys are removed and the root is not replaced:
    /// the next shred goes on.
    pub async fn shred(&self, actor: &Actor, ground: &Ground) -> Result<ShredReceipt> {
        let inner = &self.0;
        let _one_at_a_time = inner.maintenance.lock().await;
        // A clock that is years ahead would end every grace, and what the law keeps with it.
        inner.catch_up().await?;
        inner.refuse_if_recovering()?;
        inner.advance_time().await?;
        inner.tree.settle_keeper(&inner.journal).await?;
        inner.tree.finish_rotations(&inner.journal, || inner.clock.wall()).await?;
        inner.sweep().await?;
        let (today, lines) = (inner.today(), inner.journal.known());
        let mut buckets: BTreeMap<Node, Due> = BTreeMap::new();
        let range = Range { start: DUE.to_vec(), end: due_name(today.plus(1), &[0; 16]) };
        for (name, _) in inner.rows.all(range).await? {
            let (_, place) = due_of(&name).ok_or(Malformed::Content)?;
            buckets
                .entry(Node::bucket(&place, inner.tree.height))
                .or_default()
                .entry(place)
                .or_default()
                .push(name);
        }
        let unknown = inner.add_by_lines(today, &mut buckets).await?;
        if buckets.is_empty() {
            return Ok(ShredReceipt { subjects: 0, epoch_left: None, settles_at_ms: None });
        }
        let places: Vec<Tag> = buckets.values().flat_map(BTreeMap::keys).copied().collect();
        let dealt = inner.rotate_left(&places).await?;
        let targets = buckets.keys().cloned().collect();
        let mut removals = inner.tree.begin(&inner.journal, targets, Appears::New).await?;
        let (mut subjects, mut waiting) = (0_usize, 0_usize);
        for due in buckets.values() {
            let (done, wait) = inner.shred_bucket(&mut removals, due, &dealt, today).await?;
            (subjects, waiting) = (subjects.saturating_add(done), waiting.saturating_add(wait));
        }
        inner.tree.removed(&inner.journal, &removals).await?;
        inner.tree.finish_rotations(&inner.journal, || inner.clock.wall()).await?;
        inner.sweep().await?;
        let left = inner.left(&removals.id).await?;
        if let Some((_, epoch_left, _)) = left
            && (waiting, unknown) == (0, 0)
        {
            // So that it can be said of a backup whether it is older or newer than what was shredded.
            inner.journal.record(&[Event::Shredded { day: today, epoch_left, lines }]).await?;
        }
        let mut entry = inner.entry_by(Action::Shred, actor, ground)?;
        entry = entry.counting(Count::Subjects, u64::try_from(subjects).unwrap_or(u64::MAX));
        if let Some((_, epoch, _)) = left {
            entry = entry.counting(Count::Epoch, epoch);
        }
        inner.log(entry).await?;
        Ok(ShredReceipt {
            subjects,
            epoch_left: left.map(|(_, epoch, _)| epoch),
            settles_at_ms: left.map(|(.., at_ms)| inner.settles_at(at_ms)),
        })
    }

    /// Destroys the roots whose restore window is over, asks the keeper to unwrap with them and expects failure, and
    /// issues the certificates that waited for it.
    ///
    /// # Errors
    ///
    /// [`Halted::Clock`] as for [`shred`](Self::shred); [`KeeperError::StillUnwraps`] where the keeper says destroyed and
    /// still unwraps: then nothing is certified. [`RolledBack::Mixed`] where rows that a certificate rests on were altered or
    /// put back: that one does not come, all others are issued before it is said.
    pub async fn settle(&self, actor: &Actor, ground: &Ground) -> Result<SettleReceipt> {
        let inner = &self.0;
        let _one_at_a_time = inner.maintenance.lock().await;
        // A clock that is years ahead would end the restore window.
        inner.catch_up().await?;
        inner.refuse_if_recovering()?;
        inner.advance_time().await?;
        let now = inner.clock.wall();
        inner.tree.retire_orphans(&inner.journal, now).await?;
        let all_retired = inner.rows.all(Range::prefix(RETIRED)).await?;
        // After reading them: another process may have replaced a root and not yet told the keeper, for whom the old one
        // is still the active one.
        inner.tree.settle_keeper(&inner.journal).await?;
        let mut receipt = SettleReceipt::default();
        for (name, row) in all_retired {
            let Some(retired) = Retired::of(&inner.journal, &name, Some(&row))? else {
                // What the keeper holds has a new row by now. This one names nothing, and must not keep others waiting.
                inner.drop_row(&name, &row).await?;
                continue;
            };
            if inner.settles_at(retired.at_ms) > now {
                // Older roots first: one that stays keeps everything behind it readable.
                break;
            }
            if receipt.roots == 0 {
                // A standby that still names it would open for nobody once it is promoted.
                inner.rows.copies_are_current().await?;
                // Another server may have taken the place of the one that was asked at first.
                inner.tree.settle_keeper(&inner.journal).await?;
            }
            inner.roots.destroy(retired.id).await?;
            match inner.roots.unwrap(retired.id, &retired.wrapped).await {
                Err(KeeperError::NoSuchRoot) => {}
                Ok(_) => return Err(KeeperError::StillUnwraps.into()),
                Err(why) => return Err(why.into()),
            }
            inner.tree.settled(&inner.journal, retired.epoch).await?;
            receipt.roots = receipt.roots.saturating_add(1);
        }
        let altered = inner.certify(now, actor, ground, &mut receipt.certificates).await?;
        if receipt.roots > 0 || !receipt.certificates.is_empty() {
            let roots = u64::try_from(receipt.roots).unwrap_or(u64::MAX);
            inner.log(inner.entry_by(Action::Settle, actor, ground)?.counting(Count::Roots, roots)).await?;
            inner.checkpoint().await?;
        }
        if altered { Err(RolledBack::Mixed.into()) } else { Ok(receipt) }
    }

    /// Destroys the keys of all days that are over, whatever was sealed to them, in one root replacement, and leaves a
    /// signed note. Deletes what the store keeps about tokens that have expired. Run it once a day; any time is safe.
    ///
    /// # Errors
    ///
    /// [`Halted::Clock`] where the clock stands further beyond the mark of time than the settings allow: then nothing is
    /// destroyed, and an operator has to [`confirm_time`](Self::confirm_time). [`RolledBack::Mixed`] where rows were altered
    /// or put back while it ran: the next call does it again.
    pub async fn expire(&self, actor: &Actor, ground: &Ground) -> Result<ExpireReceipt> {
        let inner = &self.0;
        let _one_at_a_time = inner.maintenance.lock().await;
        inner.catch_up().await?;
        inner.refuse_if_recovering()?;
        inner.advance_time().await?;
        inner.tree.settle_keeper(&inner.journal).await?;
        inner.tree.finish_rotations(&inner.journal, || inner.clock.wall()).await?;
        let Some(mark) = inner.journal.mark() else { return Err(Halted::Clock.into()) };
        inner.top_up(true).await?;
        inner.drop_tokens(mark).await?;
        let over = Range { start: b"d".to_vec(), end: crate::tree::node::day_name(mark.plus(1)) };
        let due: Vec<Day> = inner.rows.all(over).await?.iter().filter_map(|(name, _)| day_of(name)).collect();
        let mut expiry = Expiry::unfinished(inner).await?;
        if due.is_empty() && expiry.days.is_empty() {
            return Ok(ExpireReceipt { days: due, epoch_left: None, note: None });
        }
        // Of a batch whose rows were altered nobody can say what it left: its months are rotated again.
        // So are those of one that was cut short: its days may have been hidden since.
        let months: BTreeSet<Node> = expiry.days.iter().map(|day| Node::month(*day)).collect();
        let again = match inner.left(&expiry.batch).await {
            _ if months.is_empty() => false,
            Ok(Some((made, ..))) => usize::try_from(made).is_ok_and(|made| made < months.len()),
            Ok(None) => false,
            Err(why) => why == RolledBack::Mixed.into(),
        };
        if !due.is_empty() || again {
            let mut targets: BTreeSet<Node> = due.iter().map(|day| Node::month(*day)).collect();
            if again {
                targets.extend(months);
            }
            let targets = targets.into_iter().collect();
            let mut removals = inner.tree.begin(&inner.journal, targets, Appears::OnTheWay).await?;
            expiry.batch = removals.id;
            expiry.days.extend(&due);
            // Written before anything is dropped: whoever comes after a crash says what was destroyed.
            let mut batch = Batch::new()?;
            batch.put(EXPIRY, expiry.encode(inner));
            // It expects nothing: it was not made, and a crash would leave no note.
            if inner.rows.commit(batch).await? == Committed::Conflict {
                return Err(Error::Busy);
            }
            inner.drop_days(&mut removals, &due, mark).await?;
            inner.tree.removed(&inner.journal, &removals).await?;
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
                    epoch_left: left.map(|(_, epoch, _)| epoch),
                    note: Some(note),
                });
            }
        }
        Err(Error::Busy)
    }
}

impl Inner {
    pub(crate) fn settles_at(&self, left_ms: i64) -> i64 {
        left_ms.saturating_add(i64::from(self.settings.window.in_days()).saturating_mul(86_400_000))
    }

    /// How many removals a batch has made, the epoch that its last commit left, and when. `None` while it is under way.
    async fn left(&self, batch: &BatchId) -> Result<Option<(u32, u64, i64)>> {
        let name = batch_name(batch);
        match Phase::of(&self.journal, &name, self.rows.get(&name).await?.as_ref())? {
            Some(Phase::Left { made, epoch, at_ms }) => Ok(Some((made, epoch, at_ms))),
            Some(Phase::Removing { .. } | Phase::Rotating { .. }) => Ok(None),
            Some(Phase::Void) | None => Err(RolledBack::Mixed.into()),
        }
    }

    async fn drop_row(&self, name: &[u8], row: &Versioned) -> Result<()> {
        let mut batch = Batch::new()?;
        batch.expect(name, Expect::Version(row.version));
        batch.delete(name);
        self.rows.commit(batch).await?;
        Ok(())
    }

    /// Deletes the records of subjects of whom nothing opens any more: kept, they would only take room. A row says whose,
    /// so that a crash leaves nothing behind; a hold or a new enrolment that came meanwhile keeps what it needs.
    async fn sweep(&self) -> Result<()> {
        for tag in self.gone().await? {
            crate::records::delete_all(self, &tag).await?;
            let mut batch = Batch::new()?;
            batch.delete(&gone_name(&tag));
            self.rows.commit(batch).await?;
        }
        Ok(())
    }

    /// Of whom nothing opens any more, and whose records are still there.
    pub(crate) async fn gone(&self) -> Result<Vec<Tag>> {
        let tag = |name: &Key| name.last_chunk().copied().ok_or(Malformed::Length.into());
        self.rows.all(Range::prefix(GONE)).await?.iter().map(|(name, _)| tag(name)).collect()
    }

    async fn drop_days(&self, removals: &mut Removals, days: &[Day], mark: Day) -> Result<()> {
        while let Some(month) = removals.next().cloned() {
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
                match self.tree.remove(&self.journal, removals, &[guard], &mut edit).await {
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

    fn expiry_note(&self, days: &[Day], left: Option<(u32, u64, i64)>) -> Result<String> {
        let (Some(first), Some(last)) = (days.first(), days.last()) else { return Err(Misuse::Day.into()) };
        let mut text = format!("{}/expiry\n", self.origin());
        let _ = writeln!(text, "days {first} to {last}: {} keys destroyed", days.len());
        if let Some((_, epoch, at_ms)) = left {
            let _ = writeln!(text, "root epoch left: {epoch} at {}", rfc3339(at_ms));
            let _ = writeln!(
                text,
                "unreadable after, if settled by then: {}",
                rfc3339(self.unreadable_after(at_ms))
            );
        }
        let _ = writeln!(text, "keeper: {}", self.roots.erasure_class().label());
        self.sign(&text)
    }

    /// If its root is destroyed as soon as it may be.
    pub(crate) fn unreadable_after(&self, left_ms: i64) -> i64 {
        self.unreadable_once_destroyed(self.settles_at(left_ms))
    }

    /// The keeper's delay counts from the destruction, which may come later than it could: a copy that was made the moment
    /// before lives as long as any.
    pub(crate) fn unreadable_once_destroyed(&self, at_ms: i64) -> i64 {
        let delay = i64::try_from(self.roots.erasure_class().max_delay_s()).unwrap_or(i64::MAX);
        at_ms.saturating_add(delay.saturating_mul(1000))
    }
}

impl Inner {
    /// Signs the certificates of all forgets whose epoch is settled. True where rows that one rests on were altered: it
    /// is passed over, and must not keep others waiting.
    async fn certify(
        &self,
        now: i64,
        actor: &Actor,
        ground: &Ground,
        certificates: &mut Vec<Certificate>,
    ) -> Result<bool> {
        let settled = self.tree.settled_epoch(&self.journal).await?;
        let held = self.roots.held().await?;
        let current = self.rows.get(&Node::Root.name()).await?.ok_or(StoreError::Empty)?;
        let current = Epoch::decode(&current.value)?;
        // A copy that was put right and given up again may have the keys under a root of its own.
        let branched = self.journal.with(|state| state.branched);
        let mut altered = false;
        for (name, row) in self.rows.all(Range::prefix(Pending::PREFIX)).await? {
            let Ok(pending) = Pending::unwrap(self, &name, &row) else {
                altered = true;
                continue;
            };
            let (epoch, left_ms) = match self.left(&pending.batch).await {
                Ok(None) => continue,
                // What the batch has left behind has to be this removal too.
                Ok(Some((made, epoch, at_ms))) if pending.removal < made => (epoch, at_ms),
                Ok(Some(_)) | Err(Error::RolledBack(RolledBack::Mixed)) => {
                    altered = true;
                    continue;
                }
                Err(why) => return Err(why),
            };
            // Rows can be altered; what the keeper still holds cannot. No certificate while it could unwrap a root of that
            // epoch or an earlier one, whatever the rows say.
            let until = epoch.max(branched);
            let readable = held.iter().any(|root| root.epoch <= until && root.id != current.id);
            if epoch > settled || epoch >= current.epoch || readable {
                continue;
            }
            let certificate = Certificate::sign(self, &pending, epoch, left_ms, now)?;
            let entry = self.entry_by(Action::Settle, actor, ground)?.with_reference(pending.reference);
            for attempt in 0..=ATTEMPTS {
                let mut batch = Batch::new()?;
                batch.expect(&name, Expect::Version(row.version));
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
        Ok(altered)
    }
}
