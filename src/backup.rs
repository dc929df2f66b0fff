//! Backups of the store: made while the vault is in use, checked without opening anything, restored with every erasure done
//! again, and rehearsed.
//!
//! **What a backup holds** is the store's rows: wrapped keys, ciphertext, pseudonyms. Without the keeper it opens for nobody.
//! With the keeper, or a copy of it that still has the root, it opens for whoever has both, also what was forgotten since:
//! that is what the restore window means, and [`who_can_read`](crate::Vault::who_can_read) says until when. The keeper and
//! the witness are not in it: keep them apart.
//!
//! **A full backup** has every row; **an increment** has what changed since another backup, found by the rows' versions.
//! Each is one stream, a *part*, closed by a signed [`Manifest`]. Beside it goes an *index*, which only the next increment
//! needs: about 30 bytes a row.
//!
//! ```
//! # use customer_vault::{testing, *, backup::Backup};
//! # purposes! { pub Shipping: Contract = 1 "shipping"; }
//! # pollster::block_on(async {
//! # let (me, why) = (testing::tester(), testing::test_ground());
//! # let (keeper, clock) = (testing::MemoryKeeper::new(), ());
//! # let store = store::MemoryStore::new();
//! # let vault = Options::new().purpose::<Shipping>().create(store, keeper.clone(), keeper.clone()).await?;
//! let (mut full, mut index) = (Vec::new(), Vec::new()); // or files
//! let first = vault.backup(&mut full, &mut index, Backup::full(&me, &why).kept_for_days(30)).await?;
//! vault.enroll(&SubjectId::new("c-4711")?, [], &me, &why).await?;
//! let (mut more, mut next) = (Vec::new(), Vec::new());
//! vault.backup(&mut more, &mut next, Backup::since(&first, &mut &index[..], &me, &why)).await?;
//!
//! let parts = || [&full[..], &more[..]];
//! assert!(vault.verify_backup(parts(), &me, &why).await?.opens());
//! # drop(vault);
//! let empty = store::MemoryStore::new();
//! let options = Options::new().purpose::<Shipping>();
//! let restored = options.restore(empty, keeper.clone(), keeper, parts(), &me, &why).await?;
//! assert_eq!(restored.status(&SubjectId::new("c-4711")?, &me, &why).await?.enrolments, 1);
//! # Ok::<(), Error>(()) }).unwrap();
//! ```

use std::io::{Read, Write};

use crate::actor::{Actor, Ground};
use crate::clock::Day;
use crate::custody::Concern;
use crate::error::{BackupError, Result, StoreError};
use crate::journal::{Event, FENCE};
use crate::log::{Action, Count};
use crate::store::{Key, MAX_KEY, Moment, Range, Versioned};
use crate::tree::{Epoch, Node};
use crate::vault::{Inner, Vault};

mod check;
mod drill;
mod format;
mod manifest;
mod reach;
mod restore;
#[cfg(test)]
mod table;

pub use check::{BackupReport, Opens, check};
pub use drill::{Drill, DrillReport, Opening};
pub use manifest::Manifest;
pub use reach::{CanRead, Source, WhoCanRead};

use format::{Header, IndexReader, IndexWriter, Mark, PartWriter, mark_of};

/// The name of the row that says that a restore is under way. It is in no backup.
pub(crate) const UNFINISHED: &[u8] = b"B";

/// Rows in a page of a scan.
const PAGE: usize = 4096;

/// What is to be backed up, by whom and why.
pub struct Backup<'a> {
    actor: &'a Actor,
    ground: &'a Ground,
    kept_days: Option<u16>,
    since: Option<(&'a Manifest, &'a mut (dyn Read + Send))>,
}

impl std::fmt::Debug for Backup<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup").field("full", &self.since.is_none()).finish_non_exhaustive()
    }
}

impl<'a> Backup<'a> {
    /// Every row.
    #[must_use]
    pub fn full(actor: &'a Actor, ground: &'a Ground) -> Self {
        Backup { actor, ground, kept_days: None, since: None }
    }

    /// What changed since `base`, a full backup or an increment of this vault, whose index is `index`.
    #[must_use]
    pub fn since(
        base: &'a Manifest,
        index: &'a mut (dyn Read + Send),
        actor: &'a Actor,
        ground: &'a Ground,
    ) -> Self {
        Backup { actor, ground, kept_days: None, since: Some((base, index)) }
    }

    /// For how many days copies of it are kept: your promise, which the vault writes down and reports, and cannot carry
    /// out. Without it, as long as the restore window, and a day at least.
    #[must_use]
    pub fn kept_for_days(mut self, days: u16) -> Self {
        self.kept_days = Some(days);
        self
    }
}

impl Vault {
    /// Writes a backup to `part`, and to `index` what the next increment will be compared with
    /// ([`std::io::sink`] where there will be none). Commits go on meanwhile; what it shows is one moment, no earlier than
    /// this call. Takes some MiB of memory, whatever the size of the store. Writing happens in the calling task.
    ///
    /// That a backup is made goes into the log and the journal before its first byte is written, so that one which was
    /// interrupted is known too. A part without its end cannot be restored. Sync the files before you rely on them.
    ///
    /// # Errors
    ///
    /// [`BackupError::WrongBase`], [`BackupError::OtherVault`] or [`BackupError::Altered`] where base or index are not what
    /// they must be; [`BackupError::Write`] and [`BackupError::Full`]; [`BackupError::NoMoment`] for a store that cannot
    /// show one moment; what the store says. What was written by then is no backup.
    pub async fn backup(
        &self,
        part: &mut (dyn Write + Send),
        index: &mut (dyn Write + Send),
        what: Backup<'_>,
    ) -> Result<Manifest> {
        let inner = &self.0;
        inner.catch_up().await?;
        if let Some((base, _)) = &what.since {
            // It may have come from anywhere: its fields are public.
            let verified = Manifest::verify(&base.note, &self.verifier_keys()?)?;
            if verified != **base {
                return Err(BackupError::WrongBase.into());
            }
        }
        let id = crate::crypto::random()?;
        // A restore believes the keys that the rows of this moment name: the one that signs must be among them.
        let ring = inner.ring();
        let mut moment = inner.rows.moment().await?.ok_or(BackupError::NoMoment)?;
        inner.catch_up().await?;
        if !inner.ring().verifiers(&inner.origin())?.contains(&ring.verifier(&inner.origin())?) {
            return Err(crate::Error::Busy);
        }
        let at_ms = inner.clock.wall();
        let epoch = read(&mut *moment, &Node::Root.name()).await?.ok_or(StoreError::Empty)?;
        let epoch = Epoch::decode(&epoch.value)?;
        let fence = read(&mut *moment, FENCE).await?;
        let journal = inner.journal.head_of(fence.as_ref())?.number;
        let kept = what.kept_days.unwrap_or(inner.settings.window.in_days().max(1));
        let kept_until = Day::of(at_ms).plus(kept);

        let entry = inner.entry_by(Action::Backup, what.actor, what.ground)?.with_reference(id);
        inner.log(entry.counting(Count::Epoch, epoch.epoch)).await?;
        inner.journal.record(&[Event::BackupBegun { id, at_ms, epoch: epoch.epoch, kept_until }]).await?;

        let (base, old) = what.since.map_or((None, None), |(base, index)| (Some(base), Some(index)));
        let parent = base.map(Manifest::hash);
        let header = Header {
            vault: inner.id,
            id,
            number: base.map_or(0, |base| base.number.saturating_add(1)),
            parent: parent.unwrap_or_default(),
            at_ms,
            epoch: epoch.epoch,
        };
        let mut out = Output {
            part: PartWriter::begin(part, &header)?,
            index: IndexWriter::begin(index)?,
            old: old.map(Old::begin).transpose()?,
            rows: 0,
            deleted: 0,
            total: 0,
        };
        let mut range = Range::prefix(b"");
        loop {
            let page = moment.page(range.clone(), PAGE).await?;
            for (name, row) in &page.rows {
                out.row(name, row)?;
            }
            match page.next {
                Some(next) => range.start = next,
                None => break,
            }
        }
        // The store need not keep it any longer.
        drop(moment);
        if out.finish_old()? != base.map(|base| base.index) {
            return Err(BackupError::WrongBase.into());
        }
        let content = out.part.content()?;
        let manifest = Manifest {
            vault: inner.id,
            id,
            number: header.number,
            parent,
            at_ms,
            epoch: epoch.epoch,
            root: epoch.id,
            journal,
            rows: out.rows,
            deleted: out.deleted,
            total: out.total,
            kept_until,
            content,
            index: out.index.end()?,
            note: String::new(),
        };
        let manifest = manifest.sign(&ring)?;
        out.part.end(&manifest.note)?;
        inner.journal.record(&[Event::BackupDone { id }]).await?;
        let entry = inner.entry_by(Action::Backup, what.actor, what.ground)?.with_reference(id);
        inner.log(entry.counting(Count::Rows, manifest.rows)).await?;
        Ok(manifest)
    }
}

/// Where a backup goes, and what it is compared with.
struct Output<'p, 'i, 'o> {
    part: PartWriter<'p>,
    index: IndexWriter<'i>,
    old: Option<Old<'o>>,
    rows: u64,
    deleted: u64,
    total: u64,
}

/// The index of the base, one row ahead.
struct Old<'a> {
    reader: IndexReader<'a>,
    next: Option<(Key, Mark)>,
}

impl<'a> Old<'a> {
    fn begin(from: &'a mut (dyn Read + Send)) -> Result<Self> {
        let mut reader = IndexReader::begin(from)?;
        let next = reader.next()?;
        Ok(Old { reader, next })
    }
}

impl Output<'_, '_, '_> {
    fn row(&mut self, name: &Key, row: &Versioned) -> Result<()> {
        if name == UNFINISHED {
            return Ok(());
        }
        self.total = self.total.saturating_add(1);
        self.index.put(name, &row.version)?;
        self.deleted_before(Some(name))?;
        if let Some(old) = &mut self.old
            && let Some((_, mark)) = old.next.take_if(|(known, _)| known == name)
        {
            old.next = old.reader.next()?;
            if mark == mark_of(&row.version) {
                return Ok(());
            }
        }
        self.rows = self.rows.saturating_add(1);
        self.part.put(name, &row.value)
    }

    /// Rows of the base that are not there any more.
    fn deleted_before(&mut self, name: Option<&Key>) -> Result<()> {
        let Some(old) = &mut self.old else { return Ok(()) };
        while let Some((gone, _)) = old.next.take_if(|(known, _)| name.is_none_or(|name| *known < *name)) {
            self.part.delete(&gone)?;
            self.deleted = self.deleted.saturating_add(1);
            old.next = old.reader.next()?;
        }
        Ok(())
    }

    /// The hash of the base's index, all of which has been read.
    fn finish_old(&mut self) -> Result<Option<[u8; 32]>> {
        self.deleted_before(None)?;
        Ok(self.old.take().map(|old| old.reader.end()))
    }
}

async fn read(moment: &mut dyn Moment, name: &[u8]) -> Result<Option<Versioned>> {
    let mut end = name.to_vec();
    // The next name after it.
    end.push(0);
    debug_assert!(name.len() < MAX_KEY, "names of single rows are short");
    let page = moment.page(Range { start: name.to_vec(), end }, 1).await?;
    Ok(page.rows.into_iter().next().map(|(_, row)| row))
}

impl Inner {
    /// What is wrong with the backups that the journal knows. A drill's is none: it is not kept.
    pub(crate) async fn backup_concerns(&self) -> Result<Vec<Concern>> {
        let known = self.known_backups().await?;
        let kept = |backup: &&KnownBackup| backup.finished && backup.kept_until > Day::of(backup.at_ms);
        let Some(newest) = known.iter().rfind(kept) else { return Ok(Vec::new()) };
        let mut concerns = Vec::new();
        if newest.epoch < self.journal.with(|state| state.epoch) {
            concerns.push(Concern::BackupOlderThanShred);
        }
        if newest.kept_until > Day::of(newest.at_ms).plus(self.settings.window.in_days()) {
            concerns.push(Concern::BackupsOutliveWindow);
        }
        Ok(concerns)
    }

    /// The backups that the journal knows, by their ids, oldest first.
    pub(crate) async fn known_backups(&self) -> Result<Vec<KnownBackup>> {
        let mut known: Vec<KnownBackup> = Vec::new();
        self.journal
            .each(|_, event| match event {
                Event::BackupBegun { id, at_ms, epoch, kept_until } => known.push(KnownBackup {
                    id: *id,
                    at_ms: *at_ms,
                    epoch: *epoch,
                    kept_until: *kept_until,
                    finished: false,
                }),
                Event::BackupDone { id } => {
                    known
                        .iter_mut()
                        .filter(|backup| backup.id == *id)
                        .for_each(|backup| backup.finished = true);
                }
                _ => {}
            })
            .await?;
        Ok(known)
    }
}

/// A backup that was begun, as the journal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownBackup {
    pub(crate) id: [u8; 16],
    pub(crate) at_ms: i64,
    pub(crate) epoch: u64,
    pub(crate) kept_until: Day,
    pub(crate) finished: bool,
}
