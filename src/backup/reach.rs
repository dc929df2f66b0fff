//! Who can still read a subject: what lies in the store, under which roots that the keeper still holds, and in which backups.
//!
//! Decided by what the entry holds now and by the journal, which says when what was due was shredded. Nothing is opened that
//! is older than today, so where the journal cannot tell it is said that it can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use super::KnownBackup;
use super::manifest::hex;
use crate::actor::{Actor, Ground, SubjectId};
use crate::clock::{Day, rfc3339};
use crate::error::{Error, Result};
use crate::journal::Event;
use crate::key::Tag;
use crate::log::Action;
use crate::purpose::PurposeId;
use crate::store::Range;
use crate::tree::root::{RETIRED, Retired};
use crate::vault::{Inner, Vault};

/// From where a subject's keys can be read by whoever has it and the keeper, with its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The store as it is.
    Store,
    /// Any older copy of the store, made while a root was in use that was left and that the keeper still holds: a snapshot
    /// of a disk, a dump, a replica that stayed behind.
    OlderCopy,
    /// A backup that the vault has made.
    Backup {
        /// Its id, as its manifest and the log say it.
        id: [u8; 16],
        /// The moment that it shows, in milliseconds since 1970.
        at_ms: i64,
        /// The last day on which a copy is kept, as was said when it was made. Nothing but the shop makes it so.
        kept_until: Day,
        /// Whether it was written to its end. What was written before can be read all the same.
        finished: bool,
    },
}

/// One way to read a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CanRead {
    /// From where.
    pub source: Source,
    /// Under the root of this epoch.
    pub epoch: u64,
    /// The purposes whose keys are there: what was sealed for them can be read.
    pub purposes: Vec<PurposeId>,
    /// Of that, only what was sealed to days after this one; `None` where no day's key was destroyed by then.
    pub days_after: Option<Day>,
    /// The moment, in milliseconds since 1970, after which nothing within policy can read it any more: when
    /// [`settle`](crate::Vault::settle) has destroyed the root, with the longest delay of the keeper. `None` while the root
    /// is in use.
    pub until_ms: Option<i64>,
}

/// Who can still read a subject, as far as the vault can know. Its text is meant to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WhoCanRead {
    /// When it was asked, in milliseconds since 1970.
    pub asked_ms: i64,
    /// All ways, the store first, then roots and backups by their epochs; empty where nobody can.
    pub ways: Vec<CanRead>,
    /// The labels of the purposes that are named.
    labels: BTreeMap<u16, String>,
}

impl WhoCanRead {
    /// Whether nobody can, within policy: no copy of the keeper was made, and no plaintext kept.
    #[must_use]
    pub fn nobody(&self) -> bool {
        self.ways.is_empty()
    }
}

impl fmt::Display for WhoCanRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "who can still read this, as of {}:", rfc3339(self.asked_ms))?;
        if self.ways.is_empty() {
            return writeln!(f, "nobody who has no copy of the keeper from before");
        }
        for way in &self.ways {
            let mut line = match &way.source {
                Source::Store => "the store of today".to_owned(),
                Source::OlderCopy => "any copy of the store of that time".to_owned(),
                Source::Backup { id, at_ms, kept_until, finished } => {
                    let unfinished = if *finished { "" } else { ", not finished" };
                    let id = hex(id);
                    format!("backup {id} of {}, kept until {kept_until}{unfinished}", rfc3339(*at_ms))
                }
            };
            // Writing to a String cannot fail.
            let _ = write!(line, ", with the keeper, root epoch {}: ", way.epoch);
            let labels = way.purposes.iter().filter_map(|purpose| self.labels.get(&purpose.number()));
            line.push_str(&labels.map(String::as_str).collect::<Vec<_>>().join(", "));
            if let Some(day) = way.days_after {
                let _ = write!(line, ", sealed to days after {day}");
            }
            match way.until_ms {
                Some(ms) => writeln!(f, "{line}; until {}", rfc3339(ms))?,
                None => writeln!(f, "{line}; no end yet")?,
            }
        }
        Ok(())
    }
}

impl Vault {
    /// Says who can still read a subject: the store, the roots that were left and are held, the backups that this vault has
    /// made, each with the purposes and the moment after which it is over. With every one of them the keeper and its
    /// secret are needed too, or a copy of them.
    ///
    /// It says nothing of what the vault cannot know: copies of the keeper, plaintext that was kept, backups that were made
    /// by other means (those stand under the roots of their time). Where the journal does not tell whether a key was gone by
    /// then, it says that it was not.
    ///
    /// # Errors
    ///
    /// [`Error::NotEnrolled`]; what store and keeper say; where the log cannot be written.
    pub async fn who_can_read(&self, id: &SubjectId, actor: &Actor, ground: &Ground) -> Result<WhoCanRead> {
        let inner = &self.0;
        let subject = inner.read_subject(id, &[]).await?;
        inner.log(inner.about_subject(&subject, inner.entry_by(Action::WhoCanRead, actor, ground)?)?).await?;
        let entry = inner.tree.entry(&subject.found)?.ok_or(Error::NotEnrolled)?;
        let now: BTreeSet<u16> = entry.keys.keys().map(|(_, purpose)| *purpose).collect();
        // Unknown where a shred has cleared it, or a recover made it.
        let enrolled = |generation: &crate::entry::Generation| {
            if generation.serial == [0; 16] { 0 } else { generation.enrolled_ms }
        };
        let since = entry.meta.generations.iter().map(enrolled).min().unwrap_or(0);
        // Clocks may be wrong by so much.
        let since =
            since.saturating_sub(i64::from(inner.settings.clock_jump_days).saturating_mul(86_400_000));
        let past = inner.past_of(&subject.tag).await?;
        let copies = inner.copies().await?;
        let epoch = subject.found.path.root.epoch;
        let today = epoch;
        let mut ways = Vec::new();
        for copy in copies {
            let Copy { source, epoch, made_before_ms, until_ms } = copy;
            if since > 0 && made_before_ms.is_some_and(|before| before < since) {
                continue;
            }
            let purposes: Vec<PurposeId> = inner
                .purposes()
                .into_iter()
                .filter(|purpose| now.contains(purpose) || past.had(*purpose, epoch))
                .map(PurposeId)
                .collect();
            // An older copy under the root of today says more than the store only where keys were removed since.
            let more =
                epoch < today || source != Source::OlderCopy || purposes.iter().any(|p| !now.contains(&p.0));
            if !purposes.is_empty() && more {
                ways.push(CanRead { source, epoch, purposes, days_after: past.over(epoch), until_ms });
            }
        }
        if !now.is_empty() {
            let purposes = now.iter().copied().map(PurposeId).collect();
            let days_after = past.over(epoch);
            ways.insert(0, CanRead { source: Source::Store, epoch, purposes, days_after, until_ms: None });
        }
        let named = ways.iter().flat_map(|way| &way.purposes);
        let labels = named.map(|purpose| (purpose.number(), inner.label(purpose.number()))).collect();
        Ok(WhoCanRead { asked_ms: inner.clock.wall(), ways, labels })
    }
}

/// A copy of the store that a held root opens.
struct Copy {
    source: Source,
    epoch: u64,
    /// It shows nothing later.
    made_before_ms: Option<i64>,
    until_ms: Option<i64>,
}

/// What a shred destroys of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// All that a forget does not keep.
    Rest,
    /// A purpose that a forget has kept, when its last day is over.
    Kept(u16),
    Withdrawn(u16),
}

/// What became of a subject's keys, and of the days'.
#[derive(Debug, Default)]
struct Past {
    /// Since which day a shred destroys it, or has done so and nobody knows when.
    /// With the journal's line that says so.
    due: BTreeMap<What, (Day, u64)>,
    held: bool,
    /// The line of each purpose's last withdrawal.
    withdrawn: BTreeMap<u16, u64>,
    /// What was shredded: the last epoch that had it, and the journal's line that says so.
    gone: BTreeMap<What, (u64, u64)>,
    /// Days whose keys were destroyed, with the first epoch without them.
    days: Vec<(Day, u64)>,
    epoch: u64,
}

impl Past {
    fn see(&mut self, tag: &Tag, number: u64, event: &Event) {
        match event {
            Event::Root { epoch, .. } => self.epoch = self.epoch.max(*epoch),
            Event::DaysDestroyed { day } => self.days.push((*day, self.epoch)),
            Event::Forgot { tag: whose, due, keeps, .. } if whose == tag => {
                self.due.insert(What::Rest, (*due, number));
                let kept =
                    |(kept, until): &(u16, Day)| (What::Kept(*kept), (until.plus(1).max(*due), number));
                self.due.extend(keeps.iter().map(kept));
            }
            Event::Undone { tag: whose, .. } if whose == tag => {
                self.due.retain(|what, _| matches!(what, What::Withdrawn(_)));
            }
            Event::Withdrew { tag: whose, purpose, due, .. } if whose == tag => {
                self.withdrawn.insert(*purpose, number);
                self.due.insert(What::Withdrawn(*purpose), (*due, number));
            }
            Event::Consented { tag: whose, purpose, .. } if whose == tag => {
                self.due.remove(&What::Withdrawn(*purpose));
            }
            Event::Held { tag: whose, .. } if whose == tag => self.held = true,
            Event::Released { tag: whose, .. } if whose == tag => self.held = false,
            Event::Shredded { day, epoch_left, lines } if !self.held => {
                let is_done = |(_, (due, line)): &(What, (Day, u64))| due <= day && line <= lines;
                let (done, due): (BTreeMap<_, _>, _) =
                    std::mem::take(&mut self.due).into_iter().partition(is_done);
                self.due = due;
                self.gone.extend(done.into_keys().map(|what| (what, (*epoch_left, number))));
            }
            Event::Restored { lines } => {
                // It may have come back with the copy.
                let (back, gone): (BTreeMap<_, _>, _) =
                    std::mem::take(&mut self.gone).into_iter().partition(|(_, (_, line))| line > lines);
                self.gone = gone;
                self.due.extend(back.into_keys().map(|what| (what, (Day(0), 0))));
                // A consent after a lost withdrawal is lost for good: the withdrawal was done again.
                let lost = self.withdrawn.iter().filter(|(_, line)| *line > lines);
                self.due.extend(lost.map(|(purpose, _)| (What::Withdrawn(*purpose), (Day(0), 0))));
                // Days may have come back too.
                self.days.clear();
            }
            _ => {}
        }
    }

    /// Whether a copy of this epoch may have a key that the entry of today has not.
    fn had(&self, purpose: u16, epoch: u64) -> bool {
        [What::Rest, What::Kept(purpose), What::Withdrawn(purpose)].iter().any(|what| {
            self.due.contains_key(what) || self.gone.get(what).is_some_and(|(last, _)| epoch <= *last)
        })
    }

    /// The last day whose key was gone in this epoch.
    fn over(&self, epoch: u64) -> Option<Day> {
        self.days.iter().filter(|(_, first)| *first <= epoch).map(|(day, _)| *day).max()
    }
}

impl Inner {
    async fn past_of(&self, tag: &Tag) -> Result<Past> {
        let mut past = Past::default();
        self.journal.each(|number, event| past.see(tag, number, event)).await?;
        Ok(past)
    }

    /// Copies of the store that can be opened with a root that the keeper holds.
    async fn copies(&self) -> Result<Vec<Copy>> {
        let held = self.roots.held().await?;
        let (current, known) = self.journal.with(|state| (state.epoch, state.roots.clone()));
        let mut retired: BTreeMap<u64, Retired> = BTreeMap::new();
        for (name, row) in self.rows.all(Range::prefix(RETIRED)).await? {
            if let Some(row) = Retired::of(&self.journal, &name, Some(&row))? {
                retired.insert(row.epoch, row);
            }
        }
        let backups = self.known_backups().await?;
        // What was never a root wraps nothing.
        let mut epochs: BTreeSet<u64> = held.iter().filter_map(|root| known.get(&root.id).copied()).collect();
        epochs.insert(current);
        let now = self.clock.wall();
        let mut copies = Vec::new();
        for epoch in epochs {
            let left_ms = retired.get(&epoch).map(|retired| retired.at_ms);
            // Where nobody has settled in time: from now on at the soonest.
            let until_ms = (epoch < current).then(|| self.unreadable_after(left_ms.unwrap_or(now)).max(now));
            // Under the root of today too: keys may have been removed that an older copy has.
            copies.push(Copy { source: Source::OlderCopy, epoch, made_before_ms: left_ms, until_ms });
            copies.extend(backups.iter().filter(|backup| backup.epoch == epoch).map(|backup| {
                let KnownBackup { id, at_ms, kept_until, finished, .. } = *backup;
                let source = Source::Backup { id, at_ms, kept_until, finished };
                Copy { source, epoch, made_before_ms: Some(at_ms), until_ms }
            }));
        }
        Ok(copies)
    }
}
