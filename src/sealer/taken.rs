//! Sealers taken: the way in for what is sealed.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, AtomicU64};
use std::sync::{Arc, OnceLock, RwLock};

use super::{Core, Sealer};
use crate::actor::{Actor, Ground, SubjectId};
use crate::change::{CHUNK, Change};
use crate::crypto;
use crate::entry::Entry;
use crate::error::{Erased, Error, Misuse, Result};
use crate::grant::{Fresh, Now, UNCHECKED};
use crate::journal::FENCE;
use crate::key::{Secret, Tag};
use crate::log::{self, Action};
use crate::record::Record;
use crate::store::{Committed, Expect};
use crate::tree::ATTEMPTS;
use crate::vault::{Inner, Subject, Vault};

impl Vault {
    /// Takes a sealer for record `R` and one subject. It holds the subject's purpose keys, and lives as long as a grant.
    ///
    /// # Errors
    ///
    /// [`Error::NotEnrolled`], [`Erased::Forgotten`], [`Misuse::UnknownRecord`] for a record that the vault was not
    /// opened with, [`Error::Halted`](crate::Error::Halted) when frozen or where the clock has jumped.
    pub async fn sealer<R: Record>(
        &self,
        id: &SubjectId,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Sealer<R>> {
        let mut sealers = self.sealers::<R>(std::slice::from_ref(id), actor, ground).await?;
        sealers.pop().unwrap_or(Err(Error::Busy))
    }

    /// Takes sealers for any number of subjects, a thousand at a time: each thousand is one read, and one commit of the
    /// log with one entry for all. Sealers and refusals stand at their places. What is given back takes memory: who needs
    /// more than fit calls it for some at a time.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnknownRecord`] for a record that the vault was not opened with, [`Error::Halted`](crate::Error::Halted)
    /// when frozen or where the clock has jumped; where the log cannot be written: then nothing is given. At its place,
    /// what [`sealer`](Self::sealer) says of one subject.
    pub async fn sealers<R: Record>(
        &self,
        ids: &[SubjectId],
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Vec<Result<Sealer<R>>>> {
        let inner = &self.0;
        inner.ready_to_seal::<R>().await?;
        let mut sealers = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(CHUNK) {
            sealers.extend(inner.sealers(chunk, actor, ground).await?);
        }
        Ok(sealers)
    }
}

impl Inner {
    /// Whether records of this type can be sealed now, with days ahead.
    pub(crate) async fn ready_to_seal<R: Record>(&self) -> Result<()> {
        if !self.served.contains(&(R::RECORD, TypeId::of::<R>())) {
            return Err(Misuse::UnknownRecord.into());
        }
        self.advance_time().await?;
        self.top_up(false).await
    }

    /// The sealers of one chunk.
    async fn sealers<R: Record>(
        self: &Arc<Self>,
        ids: &[SubjectId],
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Vec<Result<Sealer<R>>>> {
        let ids: Vec<&SubjectId> = ids.iter().collect();
        for _ in 0..ATTEMPTS {
            let since = self.now();
            let subjects = self.read_subjects(&ids, &[]).await?;
            self.refuse_if_frozen()?;
            let fence = subjects.iter().flatten().next().map(|read| Expect::unchanged(read.fence.as_ref()));
            let (mut sealers, mut logs) = (Vec::with_capacity(ids.len()), Vec::new());
            let mut lacking: Vec<&SubjectId> = Vec::new();
            for (subject, id) in subjects.into_iter().zip(&ids) {
                match subject.and_then(|subject| self.prepare_sealer(&subject, since, actor, ground)) {
                    Ok(Some((sealer, log))) => {
                        logs.push(log);
                        sealers.push(Ok(sealer));
                    }
                    Ok(None) => lacking.push(id),
                    Err(why) => sealers.push(Err(why)),
                }
            }
            if !lacking.is_empty() {
                lacking.sort_unstable_by_key(|id| id.bytes());
                lacking.dedup();
                // Where it lost a race, the next round finds what is lacking still.
                self.add_keys(&lacking, actor, ground).await?;
                continue;
            }
            if !logs.is_empty() {
                let expect = fence.map(|fence| (FENCE.to_vec(), fence));
                if self.lane.append(log::Entry::joined(logs)?, expect).await? == Committed::Conflict {
                    continue;
                }
            }
            return Ok(sealers);
        }
        Err(Error::Busy)
    }

    /// A sealer before its log entry is durable; `None` where a purpose that was registered after the enrolment has no key
    /// yet.
    fn prepare_sealer<R: Record>(
        self: &Arc<Self>,
        subject: &Subject,
        since: Now,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Option<(Sealer<R>, log::Entry)>> {
        let entry = self.tree.entry(&subject.found)?.ok_or(Error::NotEnrolled)?;
        let newest = entry.newest().ok_or(Error::NotEnrolled)?;
        if newest.forgotten.is_some() || self.fenced(&subject.tag) {
            return Err(Erased::Forgotten.into());
        }
        if !self.lacking(&entry).is_empty() {
            return Ok(None);
        }
        // Before the log is written: what is raised or fenced meanwhile ends the sealer.
        let sealer = self.sealer_of(&subject.tag, &entry, since)?;
        Ok(Some((sealer, self.about(self.entry_by(Action::Sealer, actor, ground)?, &entry))))
    }

    /// A sealer by what an entry says. It must not be given out before the log has it.
    pub(crate) fn sealer_of<R: Record>(
        self: &Arc<Self>,
        tag: &Tag,
        entry: &Entry,
        since: Now,
    ) -> Result<Sealer<R>> {
        let newest = entry.newest().ok_or(Error::NotEnrolled)?;
        let (generation, serial, state) = (newest.number, newest.serial, entry.meta.state);
        let purposes = self.purposes();
        let notices = self
            .journal
            .with(|state| purposes.iter().map(|purpose| (*purpose, state.notice(*purpose))).collect());
        let stands: Vec<u16> = self.standing(&entry.meta, generation, since.day());
        let mut keys = BTreeMap::new();
        for ((number, purpose), key) in &entry.keys {
            if *number == generation && stands.contains(purpose) {
                let copy = Secret::from_slice(key.expose()).ok_or(Error::DoesNotOpen)?;
                keys.insert(*purpose, copy);
            }
        }
        let fresh = Fresh {
            vault: Arc::clone(self),
            tag: *tag,
            since,
            era: self.era(tag),
            checked: AtomicU64::new(UNCHECKED),
        };
        Ok(Sealer::new(Arc::new(Core {
            fresh,
            state,
            generation,
            serial,
            keys,
            notices,
            suite: self.ring().suite,
            prefix: crypto::random()?,
            counter: AtomicU64::new(0),
            max_seals: self.max_seals,
            first: OnceLock::new(),
            other: RwLock::default(),
            columns: RwLock::default(),
            today: AtomicU16::new(since.day().0),
        })))
    }

    /// The purposes that were registered after the newest enrolment and have no key yet, with its number.
    fn lacking(&self, entry: &Entry) -> Vec<(u16, u16)> {
        let Some(newest) = entry.newest() else { return Vec::new() };
        let lacks = |purpose: &u16| {
            let withdrawn = newest.purposes.get(purpose).is_some_and(|s| s.withdrawn.is_some());
            !withdrawn && !entry.keys.contains_key(&(newest.number, *purpose))
        };
        self.purposes().into_iter().filter(lacks).map(|purpose| (newest.number, purpose)).collect()
    }

    /// Makes the keys that are lacking, if it loses no race.
    async fn add_keys(&self, ids: &[&SubjectId], actor: &Actor, ground: &Ground) -> Result<()> {
        let edit = |_: usize, _: &Subject, entry: Option<Entry>| {
            let mut entry = entry.ok_or(Error::NotEnrolled)?;
            let log = self.about(self.entry_by(Action::Sealer, actor, ground)?, &entry);
            if entry.newest().ok_or(Error::NotEnrolled)?.forgotten.is_some() {
                return Err(Erased::Forgotten.into());
            }
            for name in self.lacking(&entry) {
                entry.keys.insert(name, Secret::random()?);
            }
            Ok(Change::new(entry, log, ()))
        };
        // What is refused here is refused again when it is read again.
        self.try_change(ids, &[], edit).await?;
        Ok(())
    }
}
