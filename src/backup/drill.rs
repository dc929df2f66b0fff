//! Rehearsing a restore: a backup, restored into scratch stores, beside the vault that goes on.
//!
//! The restored vaults need a keeper and a witness, and must not touch those of the vault: what they make, activate and
//! destroy, and the lines that they write, stay in memory and end with the drill.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::future::Future;
use std::io::{self, Read, Seek, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::manifest::hex;
use super::{Backup, Manifest};
use crate::actor::{Actor, Ground, SubjectId};
use crate::clock::rfc3339;
use crate::crypto;
use crate::entry::Entry;
use crate::error::{BackupError, Error, KeeperError, Malformed, Result};
use crate::forget::Forget;
use crate::keeper::file::journal::fresh;
use crate::keeper::file::wrapping::{self, WrappingKey};
use crate::keeper::{Candidate, ErasureClass, Held, Keeper, RootId, RootKey, Roots, VaultId};
use crate::key::label;
use crate::log::{Action, Outcome};
use crate::note::{SignedNote, VerifierKey};
use crate::store::Store;
use crate::vault::{Options, Vault};
use crate::witness::{Line, Memory, Remembers, Witness};

/// What opens values of a subject in a restored vault, and says how many. It returns an error where one does not open.
pub type Opening = Box<dyn Fn(Vault, SubjectId) -> Pin<Box<dyn Future<Output = Result<u64>> + Send>> + Send>;

/// A drill that is to be made, by whom, why, and on whose data.
pub struct Drill<'a> {
    actor: &'a Actor,
    ground: &'a Ground,
    sample: &'a [SubjectId],
    opening: Option<Opening>,
}

impl fmt::Debug for Drill<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drill").field("sample", &self.sample.len()).finish_non_exhaustive()
    }
}

impl<'a> Drill<'a> {
    /// On a sample of subjects. The first who is neither forgotten nor held is forgotten in the scratch store, and only there.
    #[must_use]
    pub fn of(sample: &'a [SubjectId], actor: &'a Actor, ground: &'a Ground) -> Self {
        Drill { actor, ground, sample, opening: None }
    }

    /// Opens values of each subject too, wherever the shop keeps them: `open` gets the restored vault, and says how many it
    /// has opened.
    #[must_use]
    pub fn opening(mut self, open: Opening) -> Self {
        self.opening = Some(open);
        self
    }
}

/// What a drill has shown. Its text is a signed note, to be filed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrillReport {
    /// The backup that was made and restored.
    pub manifest: Manifest,
    /// Its size in bytes.
    pub bytes: u64,
    /// How long the backup took.
    pub backup: Duration,
    /// How long the first restore took, with the replay of the journal.
    pub restore: Duration,
    /// Subjects of the sample whose keys were found as they are in the vault.
    pub subjects: usize,
    /// Purpose keys that were compared.
    pub keys: usize,
    /// Values that were opened.
    pub values: u64,
    note: String,
}

impl DrillReport {
    /// The signed note.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Checks the signature of a note and returns the text that is signed.
    ///
    /// # Errors
    ///
    /// [`Error::DoesNotOpen`] where the key did not sign it, or it was altered; [`Malformed`] where it is no report.
    pub fn verify(note: &str, key: &VerifierKey) -> Result<String> {
        let text = SignedNote::parse(note)?.verify(key)?.to_owned();
        let heading = format!("{}/drill", key.name());
        if text.lines().next() == Some(&*heading) { Ok(text) } else { Err(Malformed::Content.into()) }
    }
}

impl fmt::Display for DrillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.note)
    }
}

/// What a drill does not show.
const NOT_SHOWN: [&str; 3] = [
    "that keeper and witness can be restored: the drill has used those of the vault, without changing them",
    "that copies of this backup elsewhere are whole: verify them where they lie",
    "that subjects outside the sample open, beyond that every row is as it was written",
];

impl Vault {
    /// Rehearses a restore while the vault goes on: makes a full backup into `file`, from where it is now; reads it again and
    /// verifies it; restores it into `first`; compares the keys of a sample with the vault's own, and opens values; forgets
    /// and shreds one of the sample there; restores the backup into `second`, and finds that one erased and the others as
    /// they were. `first` and `second` are empty stores, and are not used up: delete them, and the file, which hold all
    /// that the vault holds. `options` names the records and purposes that the vault serves.
    ///
    /// Nothing of it reaches the vault's store, keeper or witness, but that a backup and a drill were made. What is restored is
    /// the vault of the backup's moment, in this process: whom the vault forgets while the drill goes on opens there to its end.
    /// Where the vault's root is replaced meanwhile it fails with [`RolledBack::Store`](crate::error::RolledBack::Store): run
    /// it again.
    ///
    /// # Errors
    ///
    /// [`BackupError::Drill`] where what was restored is not what it must be; [`Error::NotEnrolled`] where nobody in the
    /// sample can be forgotten; [`KeeperError::Missing`] for a vault without a witness; those of
    /// [`backup`](Self::backup), [`verify_backup`](Self::verify_backup) and [`Options::restore`].
    pub async fn drill<F: Read + Write + Seek + Send>(
        &self,
        options: impl Fn() -> Options + Send,
        file: &mut F,
        first: impl Store,
        second: impl Store,
        drill: Drill<'_>,
    ) -> Result<DrillReport> {
        let inner = &self.0;
        inner.log(inner.entry_by(Action::Drill, drill.actor, drill.ground)?).await?;
        let done = self.rehearse(options, file, first, second, &drill).await;
        if let Err(why) = &done {
            let refused = inner.entry(Action::Drill, Outcome::Refused(why.into()));
            inner.log(refused.by(vec![drill.actor.clone()])?.because(drill.ground.clone())).await?;
        }
        done
    }

    async fn rehearse<F: Read + Write + Seek + Send>(
        &self,
        options: impl Fn() -> Options + Send,
        file: &mut F,
        first: impl Store,
        second: impl Store,
        drill: &Drill<'_>,
    ) -> Result<DrillReport> {
        let inner = &self.0;
        let (actor, ground) = (drill.actor, drill.ground);
        let began = inner.now();
        let before = self.keys_of(drill.sample).await?;
        let erased = self.somebody(drill.sample).await?;

        let start = file.stream_position().map_err(|_| BackupError::Read)?;
        let what = Backup::full(actor, ground).kept_for_days(0);
        let manifest = self.backup(&mut *file, &mut io::sink(), what).await?;
        let bytes = file.stream_position().map_err(|_| BackupError::Read)?.saturating_sub(start);
        let backed_up = inner.now();
        rewind(file, start)?;
        let verified = self.verify_backup([&mut *file], actor, ground).await?;
        if !verified.opens() || verified.parts != [manifest.clone()] {
            return Err(BackupError::Drill.into());
        }

        let keeper = ScratchKeeper::beside(inner.roots.clone(), inner.id);
        let witness = ScratchWitness::beside(inner.journal.witness()).await?;
        let with_clock = || {
            let mut options = options();
            options.clock = Arc::clone(&inner.clock);
            options
        };
        let restoring = inner.now();
        rewind(file, start)?;
        let restored =
            with_clock().restore(first, keeper.clone(), witness.clone(), [&mut *file], actor, ground).await?;
        let restore = inner.now().since(restoring);
        let after = self.keys_of(drill.sample).await?;
        let found = restored.keys_of(drill.sample).await?;
        let mut keys = 0_usize;
        for ((found, before), after) in found.iter().zip(&before).zip(&after) {
            // Something may have been changed meanwhile.
            if !found.is_restored_from(before) && !found.is_restored_from(after) {
                return Err(BackupError::Drill.into());
            }
            keys = keys.saturating_add(found.keys.len());
        }
        let mut values = 0_u64;
        if let Some(open) = &drill.opening {
            for subject in drill.sample {
                values = values.saturating_add(open(restored.clone(), subject.clone()).await?);
            }
        }

        let receipt = restored.forget(&erased, Forget::by(actor, ground).without_grace()).await?;
        restored.shred(actor, ground).await?;
        drop(restored);
        rewind(file, start)?;
        let again = with_clock().restore(second, keeper, witness, [&mut *file], actor, ground).await?;
        for (subject, known) in drill.sample.iter().zip(&found) {
            let own = again.keys_of(std::slice::from_ref(subject)).await?.pop().unwrap_or_default();
            let stays =
                |key: &KeyMark| receipt.stays.iter().any(|(purpose, _)| purpose.number() == key.purpose);
            let as_it_must_be =
                if *subject == erased { own.keys.iter().all(stays) } else { own.keys == known.keys };
            if !as_it_must_be {
                return Err(BackupError::Drill.into());
            }
        }
        drop(again);

        let mut report = DrillReport {
            manifest,
            bytes,
            backup: backed_up.since(began),
            restore,
            subjects: drill.sample.len(),
            keys,
            values,
            note: String::new(),
        };
        let text = self.text_of(&report, drill, began.wall, receipt.stays.len());
        inner.catch_up().await?;
        report.note = inner.sign(&text)?;
        Ok(report)
    }

    fn text_of(&self, report: &DrillReport, drill: &Drill<'_>, began_ms: i64, stays: usize) -> String {
        let mut text = format!("{}/drill\n", self.0.origin());
        // Writing to a String cannot fail.
        let mut line = |what: &str, value: &str| {
            let _ = writeln!(text, "{what}: {value}");
        };
        let manifest = &report.manifest;
        line("begun", &rfc3339(began_ms));
        line("ended", &rfc3339(self.0.clock.wall()));
        line("by", &drill.actor.to_string());
        line("ground", &drill.ground.to_string());
        line("backup", &hex(&manifest.id));
        line("manifest (SHA-256)", &hex(&manifest.hash()));
        line("rows", &manifest.rows.to_string());
        line("bytes", &report.bytes.to_string());
        line("root epoch", &manifest.epoch.to_string());
        line("backup took (ms)", &report.backup.as_millis().to_string());
        line("restore took (ms)", &report.restore.as_millis().to_string());
        line("sample, subjects", &report.subjects.to_string());
        line("sample, purpose keys as in the vault", &report.keys.to_string());
        line("sample, values opened", &report.values.to_string());
        line("forgotten in the scratch store, and restored again", "erased, all others as they were");
        line("purposes that stay of it, by law", &stays.to_string());
        for what in NOT_SHOWN {
            line("not shown", what);
        }
        text
    }

    async fn keys_of(&self, subjects: &[SubjectId]) -> Result<Vec<Keys>> {
        let today = self.0.today();
        let mut all = Vec::with_capacity(subjects.len());
        for id in subjects {
            let subject = self.0.read_subject(id, &[]).await?;
            let entry = self.0.tree.entry(&subject.found)?.unwrap_or_default();
            let keys = entry.keys.iter().map(|((generation, purpose), key)| KeyMark {
                generation: *generation,
                purpose: *purpose,
                mark: crypto::hash(&[label::DRILL, key.expose()]),
            });
            let due = entry.next_due().is_some_and(|day| day <= today);
            all.push(Keys { keys: keys.collect(), due });
        }
        Ok(all)
    }

    async fn somebody(&self, sample: &[SubjectId]) -> Result<SubjectId> {
        for id in sample {
            let subject = self.0.read_subject(id, &[]).await?;
            let entry = self.0.tree.entry(&subject.found)?.unwrap_or_default();
            if can_be_forgotten(&entry) {
                return Ok(id.clone());
            }
        }
        Err(Error::NotEnrolled)
    }
}

fn can_be_forgotten(entry: &Entry) -> bool {
    entry.meta.held.is_none() && entry.newest().is_some_and(|newest| newest.forgotten.is_none())
}

/// Which key, by its hash: two vaults compare theirs, and neither key lives longer than its reading.
#[derive(Clone, PartialEq, Eq)]
struct KeyMark {
    generation: u16,
    purpose: u16,
    mark: [u8; 32],
}

/// The purpose keys of a subject; none where it is unknown or erased.
#[derive(Default)]
struct Keys {
    keys: Vec<KeyMark>,
    /// A shred has something to destroy.
    due: bool,
}

impl Keys {
    /// A restore shreds what is due, and what is not due it leaves.
    fn is_restored_from(&self, known: &Keys) -> bool {
        if known.due { self.keys.iter().all(|key| known.keys.contains(key)) } else { self.keys == known.keys }
    }
}

fn rewind<F: Seek>(file: &mut F, to: u64) -> Result<()> {
    file.seek(io::SeekFrom::Start(to)).map(drop).map_err(|_| BackupError::Read.into())
}

/// Unwraps with the vault's keeper, and keeps to itself what else it is told.
#[derive(Clone, Debug)]
struct ScratchKeeper {
    live: Roots,
    vault: VaultId,
    own: Arc<Mutex<Own>>,
}

#[derive(Debug, Default)]
struct Own {
    roots: Vec<(Held, WrappingKey)>,
    destroyed: HashSet<RootId>,
    epoch: u64,
}

impl ScratchKeeper {
    fn beside(live: Roots, vault: VaultId) -> Self {
        ScratchKeeper { live, vault, own: Arc::default() }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn live(&self) -> Result<Vec<Held>, KeeperError> {
        let held = self.live.held().await.map_err(wrapping::narrow)?;
        let own = self.own();
        Ok(held.into_iter().filter(|root| !own.destroyed.contains(&root.id)).collect())
    }
}

impl Keeper for ScratchKeeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        if vault == self.vault { Ok(()) } else { Err(KeeperError::Foreign) }
    }

    async fn candidate(&self, epoch: u64) -> Result<Candidate, KeeperError> {
        let (key, candidate) = wrapping::candidate(self.vault)?;
        self.own().roots.push((Held { id: candidate.id, epoch, activated: false }, key));
        Ok(candidate)
    }

    async fn activate(&self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        if self.live().await?.iter().any(|root| root.id == id) {
            return Ok(());
        }
        let mut own = self.own();
        if epoch <= own.epoch {
            return Ok(());
        }
        own.epoch = epoch;
        let root = own.roots.iter_mut().find(|(held, _)| held.id == id).ok_or(KeeperError::NoSuchRoot)?;
        root.0 = Held { id, epoch, activated: true };
        Ok(())
    }

    async fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        {
            let own = self.own();
            if own.destroyed.contains(&id) {
                return Err(KeeperError::NoSuchRoot);
            }
            if let Some((_, key)) = own.roots.iter().find(|(held, _)| held.id == id) {
                return key.unwrap(self.vault, id, wrapped);
            }
        }
        self.live.unwrap(id, wrapped).await
    }

    async fn destroy(&self, id: RootId) -> Result<(), KeeperError> {
        let mut own = self.own();
        own.roots.retain(|(held, _)| held.id != id);
        own.destroyed.insert(id);
        Ok(())
    }

    async fn held(&self) -> Result<Vec<Held>, KeeperError> {
        let mut held = self.live().await?;
        held.extend(self.own().roots.iter().map(|(held, _)| *held));
        Ok(held)
    }

    fn erasure_class(&self) -> ErasureClass {
        self.live.erasure_class()
    }
}

/// Begins with the lines of the vault's witness, and goes its own way.
#[derive(Clone, Debug)]
struct ScratchWitness {
    vault_remembers: Remembers,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl ScratchWitness {
    async fn beside(live: &Memory) -> Result<Self> {
        let lines = live.recall(1).await?;
        Ok(ScratchWitness { vault_remembers: live.remembers(), lines: Arc::new(Mutex::new(lines)) })
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness for ScratchWitness {
    /// The scratch keeper has looked.
    async fn bind(&self, _: VaultId) -> Result<(), KeeperError> {
        Ok(())
    }

    async fn recall(&self, from: u64) -> Result<Vec<Line>, KeeperError> {
        Ok(self.lines().iter().filter(|line| line.number >= from).cloned().collect())
    }

    async fn remember(&self, lines: Vec<Line>) -> Result<(), KeeperError> {
        let mut known = self.lines();
        let fresh = fresh(&known, lines)?;
        known.extend(fresh);
        Ok(())
    }

    fn remembers(&self) -> Remembers {
        self.vault_remembers
    }
}
