//! Checking a backup without restoring it: whole, unaltered, of this vault, complete and in order; whether it opens, until
//! when, and whose data it would bring back.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Read;

use super::format::{Change, Header, Next, PartReader};
use super::manifest::Manifest;
use crate::actor::{Actor, Ground};
use crate::clock::{Day, rfc3339};
use crate::error::{BackupError, Error, Result};
use crate::journal::Event;
use crate::keeper::VaultId;
use crate::key::Tag;
use crate::log::{Action, Count};
use crate::note::{SignedNote, VerifierKey};
use crate::tree::root::Retired;
use crate::vault::{Inner, Vault};

/// The parts of one backup, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Chain {
    read: Vec<Seen>,
}

/// One part whose end was seen.
#[derive(Debug)]
struct Seen {
    header: Header,
    note: String,
    content: [u8; 32],
    bytes: u64,
}

/// A part that is being read.
pub(super) struct Part<R> {
    reader: PartReader<R>,
}

pub(super) enum Step {
    Rows(Vec<Change>),
    End,
}

impl Chain {
    /// Refuses a part that does not come next.
    pub(super) fn begin<R: Read>(&self, from: R) -> Result<Part<R>> {
        let reader = PartReader::begin(from)?;
        let header = reader.header;
        match self.read.last() {
            None if header.number > 0 => return Err(BackupError::NotFull.into()),
            None => {}
            Some(before) => {
                if header.vault != before.header.vault {
                    return Err(BackupError::OtherVault.into());
                }
                if header.number == 0 {
                    return Err(BackupError::NotFull.into());
                }
                let follows = before.header.number.checked_add(1) == Some(header.number);
                if !follows || header.parent != before.hash()? {
                    return Err(BackupError::Missing.into());
                }
            }
        }
        Ok(Part { reader })
    }

    pub(super) fn vault(&self) -> Result<VaultId> {
        Ok(self.read.first().ok_or(BackupError::NoParts)?.header.vault)
    }

    /// That the vault has signed all of it, and that the notes say what the parts are.
    pub(super) fn verify(&self, keys: &[VerifierKey]) -> Result<Vec<(Manifest, u64)>> {
        if self.read.is_empty() {
            return Err(BackupError::NoParts.into());
        }
        let last = self.read.len().saturating_sub(1);
        let one = |(place, part): (usize, &Seen)| {
            // The signature of the last one holds for all: each names the text of the one before by its hash.
            let manifest = if place == last {
                Manifest::verify(&part.note, keys)
            } else {
                Manifest::believed(&part.note)
            };
            let manifest = manifest.map_err(|why| match why {
                Error::DoesNotOpen | Error::Malformed(_) => BackupError::Altered.into(),
                why => why,
            })?;
            if manifest.fits(&part.header) && manifest.content == part.content {
                Ok((manifest, part.bytes))
            } else {
                Err(BackupError::Altered.into())
            }
        };
        self.read.iter().enumerate().map(one).collect()
    }
}

impl Seen {
    /// Of the text that was signed, whoever signed it.
    fn hash(&self) -> Result<[u8; 32]> {
        let end = self.note.rfind("\n\n").ok_or(BackupError::Altered)?.saturating_add(1);
        Ok(crate::crypto::hash(&[self.note.get(..end).unwrap_or_default().as_bytes()]))
    }
}

impl<R: Read> Part<R> {
    pub(super) fn header(&self) -> &Header {
        &self.reader.header
    }

    pub(super) fn next(&mut self, chain: &mut Chain) -> Result<Step> {
        match self.reader.next()? {
            Next::Rows(rows) => Ok(Step::Rows(rows)),
            Next::End { note, content, bytes } => {
                SignedNote::parse(&note).map_err(|_| BackupError::Altered)?;
                chain.read.push(Seen { header: self.reader.header, note, content, bytes });
                Ok(Step::End)
            }
        }
    }
}

/// Checks with the vault's public key alone, without the vault: that every part is whole and as the vault has written it, and
/// that they follow each other. Not whether anything in them opens: for that see
/// [`verify_backup`](crate::Vault::verify_backup).
///
/// # Errors
///
/// [`BackupError`], for what is wrong.
pub fn check<R: Read>(parts: impl IntoIterator<Item = R>, keys: &[VerifierKey]) -> Result<Vec<Manifest>> {
    let mut chain = Chain::default();
    for part in parts {
        let mut part = chain.begin(part)?;
        while let Step::Rows(_) = part.next(&mut chain)? {}
    }
    Ok(chain.verify(keys)?.into_iter().map(|(manifest, _)| manifest).collect())
}

/// What verifying a backup has found: it is whole, this vault's, complete and in order. Its text is meant to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// The parts, in their order.
    pub parts: Vec<Manifest>,
    /// Bytes of all parts.
    pub bytes: u64,
    /// When it was verified, in milliseconds since 1970.
    pub verified_ms: i64,
    /// Whether the keeper still holds the root.
    pub opens: Opens,
    /// Subjects that were forgotten and are still so, whose keys may be in it: put back without the journal, or with a copy
    /// of the keeper, it could bring them back.
    pub forgotten: usize,
    /// Subjects with a purpose that was withdrawn and is still so, whose key may be in it.
    pub withdrawn: usize,
    /// The first and the last of the days whose keys may be in it and were destroyed since.
    pub days: Option<(Day, Day)>,
}

/// Whether a backup opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Opens {
    /// Under the root that the vault lies under now: until the restore window after the next replacement is over.
    Now,
    /// Under a root that was left and that the keeper still holds; until this moment, in milliseconds since 1970.
    Until(i64),
    /// Its root is destroyed.
    Never,
}

impl BackupReport {
    /// Whether it can be restored.
    #[must_use]
    pub fn opens(&self) -> bool {
        self.opens != Opens::Never
    }

    /// Whether there is anybody whom it could bring back.
    #[must_use]
    pub fn brings_back(&self) -> bool {
        self.opens() && (self.forgotten > 0 || self.withdrawn > 0 || self.days.is_some())
    }
}

impl fmt::Display for BackupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            let kind = if part.number == 0 { "full" } else { "increment" };
            writeln!(
                f,
                "{kind} {} of {}: {} rows, {} deleted, {} in all, root epoch {}, kept until {}",
                part.number,
                rfc3339(part.at_ms),
                part.rows,
                part.deleted,
                part.total,
                part.epoch,
                part.kept_until
            )?;
        }
        writeln!(
            f,
            "whole, unaltered, in order: yes, {} bytes, verified {}",
            self.bytes,
            rfc3339(self.verified_ms)
        )?;
        match self.opens {
            Opens::Now => writeln!(f, "opens: yes, under the root of today")?,
            Opens::Until(ms) => writeln!(f, "opens: yes, until {}", rfc3339(ms))?,
            Opens::Never => return writeln!(f, "opens: for nobody, its root key is destroyed"),
        }
        writeln!(f, "may hold keys of subjects forgotten by now: {}", self.forgotten)?;
        writeln!(f, "may hold keys of purposes withdrawn by now, of subjects: {}", self.withdrawn)?;
        match self.days {
            Some((first, last)) => writeln!(f, "may hold keys of days destroyed by now: {first} to {last}"),
            None => writeln!(f, "may hold keys of days destroyed by now: none"),
        }
    }
}

impl Vault {
    /// Reads a backup to its end, and says whether it is whole, unaltered, this vault's, and complete; whether it opens with
    /// the keeper of today; and whom it could bring back. Nothing is opened and nothing restored: for that see
    /// [`drill`](Self::drill).
    ///
    /// Who is counted as one who could come back is decided by the journal: rather one too many than one too few. Counted is
    /// what restoring all the parts would bring; a part that was overwritten by a later one may hold more: verify the chain up to
    /// it by itself.
    ///
    /// # Errors
    ///
    /// [`BackupError`], for what is wrong with it; where the log cannot be written.
    pub async fn verify_backup<R: Read + Send>(
        &self,
        parts: impl IntoIterator<Item = R, IntoIter: Send>,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<BackupReport> {
        let inner = &self.0;
        inner.catch_up().await?;
        let mut chain = Chain::default();
        for part in parts {
            let mut part = chain.begin(part)?;
            if part.header().vault != inner.id {
                return Err(BackupError::OtherVault.into());
            }
            while let Step::Rows(_) = part.next(&mut chain)? {}
        }
        let verified = chain.verify(&self.verifier_keys()?)?;
        let bytes = verified.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let parts: Vec<Manifest> = verified.into_iter().map(|(manifest, _)| manifest).collect();
        let last = parts.last().ok_or(BackupError::NoParts)?;
        inner.journal.refresh().await?;
        let opens = inner.opens_of(last).await?;
        let (forgotten, withdrawn, days) = inner.lost_since(last).await?;
        let entry = inner.entry_by(Action::VerifyBackup, actor, ground)?.with_reference(last.id);
        inner.log(entry.counting(Count::Epoch, last.epoch)).await?;
        let verified_ms = inner.clock.wall();
        Ok(BackupReport { parts, bytes, verified_ms, opens, forgotten, withdrawn, days })
    }
}

impl Inner {
    async fn opens_of(&self, backup: &Manifest) -> Result<Opens> {
        if !self.roots.held().await?.iter().any(|root| root.id == backup.root) {
            return Ok(Opens::Never);
        }
        let name = Retired::name(backup.epoch);
        let row = self.rows.get(&name).await?;
        let retired = Retired::of(&self.journal, &name, row.as_ref())?;
        Ok(match retired.filter(|retired| retired.id == backup.root) {
            // Where nobody has settled in time: from now on at the soonest.
            Some(retired) => Opens::Until(self.unreadable_after(retired.at_ms).max(self.clock.wall())),
            // Left, and not yet written down as such: from now on at the soonest.
            None if self.journal.with(|state| state.epoch) > backup.epoch => {
                Opens::Until(self.unreadable_after(self.clock.wall()))
            }
            None => Opens::Now,
        })
    }

    /// Of whom keys may be in a backup that are to be gone by now. A forget from before it counts too, where its keys were
    /// not certainly destroyed by then.
    async fn lost_since(&self, backup: &Manifest) -> Result<(usize, usize, Option<(Day, Day)>)> {
        // With the first day on which a shred destroys the keys, and the purpose where it is one that was kept.
        // And the line that says so.
        let mut forgotten: HashMap<(Tag, Option<u16>), (Day, u64)> = HashMap::new();
        let mut withdrawn: HashMap<(Tag, u16), (Day, u64)> = HashMap::new();
        // What was shredded before the backup, and came back where a copy from before that was put right.
        let (mut gone, mut went) = (HashMap::new(), HashMap::new());
        let mut held: HashSet<Tag> = HashSet::new();
        let (mut over, mut before) = (None, None);
        self.journal
            .each(|number, event| match event {
                Event::Forgot { tag, due, keeps, .. } => {
                    forgotten.insert((*tag, None), (*due, number));
                    let kept = |(kept, until): &(u16, Day)| ((*tag, Some(*kept)), (until.plus(1), number));
                    forgotten.extend(keeps.iter().map(kept));
                }
                Event::Undone { tag, .. } => forgotten.retain(|(known, _), _| known != tag),
                Event::Withdrew { tag, purpose, due, .. } => {
                    withdrawn.insert((*tag, *purpose), (*due, number));
                }
                Event::Consented { tag, purpose, .. } => {
                    withdrawn.remove(&(*tag, *purpose));
                }
                Event::Held { tag, .. } => {
                    held.insert(*tag);
                }
                Event::Released { tag, .. } => {
                    held.remove(tag);
                }
                // What was destroyed before the backup is not in it. What a hold keeps was not destroyed.
                Event::Shredded { day, lines, .. } if number <= backup.journal => {
                    let stays = |tag: &Tag, (due, line): &(Day, u64)| {
                        *due > *day || *line > *lines || held.contains(tag)
                    };
                    gone.extend(
                        forgotten.extract_if(|(tag, _), of| !stays(tag, of)).map(|(k, _)| (k, number)),
                    );
                    went.extend(
                        withdrawn.extract_if(|(tag, _), of| !stays(tag, of)).map(|(k, _)| (k, number)),
                    );
                }
                Event::Restored { lines } if number <= backup.journal => {
                    let back = |line: &u64| line > lines;
                    forgotten.extend(gone.extract_if(|_, line| back(line)).map(|(k, _)| (k, (Day(0), 0))));
                    withdrawn.extend(went.extract_if(|_, line| back(line)).map(|(k, _)| (k, (Day(0), 0))));
                }
                Event::DaysDestroyed { day } if number <= backup.journal => before = Some(*day),
                // The first mark is the day before the vault was made, and the calendar begins after it.
                Event::Mark { day } => before = before.or(Some(*day)),
                Event::DaysDestroyed { day } => over = over.max(Some(*day)),
                _ => {}
            })
            .await?;
        // What is kept is restricted, not gone, until its day is over.
        let today = self.today();
        forgotten.retain(|(_, kept), (due, _)| kept.is_none() || *due <= today);
        let forgotten: HashSet<Tag> = forgotten.into_keys().map(|(tag, _)| tag).collect();
        let withdrawn: HashSet<Tag> = withdrawn.into_keys().map(|(tag, _)| tag).collect();
        // The calendar begins after the last day that was destroyed, or with the vault.
        let first = before.map_or_else(|| Day::of(backup.at_ms), |day: Day| day.plus(1));
        let days = over.filter(|last| *last >= first).map(|last| (first, last));
        Ok((forgotten.len(), withdrawn.len(), days))
    }
}
