//! Grants taken: the way to a plaintext.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU16, AtomicU64};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::actor::SubjectId;
use crate::change::{CHUNK, both};
use crate::clock::Day;
use crate::crypto;
use crate::entry::{HOLD_PART, Meta, audit_part, key_part};
use crate::error::{Denied, Erased, Error, Malformed, Misuse, Result};
use crate::grant::{Ciphers, Core, Fresh, Grant, HeldShelves, Now, Source, UNCHECKED};
use crate::hold;
use crate::journal::FENCE;
use crate::key::{Audit, Purpose as PurposeStage, Secret, Tag};
use crate::log::{Action, Count, Outcome, Pseudonym, Refusal};
use crate::purpose::{Basis, BuiltIn, Purpose, PurposeId, built_in};
use crate::store::{Committed, Expect, Versioned};
use crate::token::{Token, Verified, issued_ms, token_name};
use crate::tree::ATTEMPTS;
use crate::vault::{Inner, Subject, Vault};

mod from_memory;

impl Vault {
    /// Takes a grant for purpose `P` and one subject: verifies the token, checks basis, revocation and freeze, writes
    /// the log durably, and only then holds the keys. For one who is [remembered](crate::Options::remember) it reads nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`], [`Error::Erased`], [`Error::NotEnrolled`], [`Error::Halted`]: refusals are in the log too.
    /// Where the log cannot be written, nothing is given.
    pub async fn unlock<P: Purpose>(&self, token: &Token, id: &SubjectId) -> Result<Grant<P>> {
        let inner = &self.0;
        inner.keep_time().await?;
        let verified = match inner.admit_for::<P>(token).await {
            Ok(verified) => Arc::new(verified),
            Err(why) => return Err(inner.refused(Action::Unlock, None, P::NUMBER, why).await),
        };
        let given = inner.unlock_chunk::<P>(&verified, std::slice::from_ref(id), Action::Unlock).await;
        match given.and_then(|mut given| given.pop().unwrap_or(Err(Error::Busy))) {
            Ok(grant) => Ok(grant),
            Err(why) => Err(inner.refused(Action::Unlock, Some(&verified), P::NUMBER, why).await),
        }
    }

    /// Takes grants for any number of subjects, a thousand at a time: each thousand is one read of those who are not
    /// [remembered](crate::Options::remember), and one commit of the log with one entry for all that are given and one for
    /// each reason of a refusal. Grants and refusals stand at their places.
    ///
    /// What is given back takes memory: who needs more than fit calls it for some at a time. A lease counts from when its
    /// thousand was begun: where several processes share the store, run [`watch`](Self::watch), or the first may be stale
    /// before the last are given. For [`LegalHold`](crate::LegalHold) it reads further rows for each subject.
    ///
    /// # Errors
    ///
    /// Where the token itself is refused, the vault is frozen, or the log cannot be written: then nothing is given, though
    /// the log may name the thousands before.
    pub async fn unlock_many<P: Purpose>(
        &self,
        token: &Token,
        ids: &[SubjectId],
    ) -> Result<Vec<Result<Grant<P>>>> {
        let inner = &self.0;
        inner.keep_time().await?;
        let verified = match inner.admit_for::<P>(token).await {
            Ok(verified) => Arc::new(verified),
            Err(why) => return Err(inner.refused(Action::UnlockMany, None, P::NUMBER, why).await),
        };
        let mut grants = Vec::with_capacity(ids.len());
        // Two chunks at a time: one is decided while the other's entry is made durable.
        for pair in ids.chunks(CHUNK.saturating_mul(2)) {
            let (one, two) = pair.split_at(CHUNK.min(pair.len()));
            let (one, two) = both(
                inner.unlock_chunk::<P>(&verified, one, Action::UnlockMany),
                inner.unlock_chunk::<P>(&verified, two, Action::UnlockMany),
            )
            .await;
            for given in [one, two] {
                match given {
                    Ok(given) => grants.extend(given),
                    Err(why) => {
                        return Err(inner.refused(Action::UnlockMany, Some(&verified), P::NUMBER, why).await);
                    }
                }
            }
        }
        Ok(grants)
    }
}

/// Keys that are not the first of their enrolment, by generation and purpose.
fn remade(meta: &Meta) -> BTreeSet<(u16, u16)> {
    let of = |g: &crate::entry::Generation| {
        let remade = g.purposes.iter().filter(|(_, standing)| standing.remade);
        remade.map(|(purpose, _)| (g.number, *purpose)).collect::<Vec<_>>()
    };
    meta.generations.iter().flat_map(of).collect()
}

/// The last days of purposes that are kept, by generation and purpose.
fn kept_until(meta: &Meta) -> BTreeMap<(u16, u16), Day> {
    let of = |generation: &crate::entry::Generation| {
        let number = generation.number;
        let until = generation.purposes.iter().filter_map(move |(p, s)| Some(((number, *p), s.until?)));
        until.collect::<Vec<_>>()
    };
    meta.generations.iter().flat_map(of).collect()
}

/// A grant before its log entry is durable: it must not be given out yet.
struct Prepared {
    core: Arc<Core>,
    pseudonym: Option<Pseudonym>,
}

/// What was decided for a chunk, from memory and one read of the others.
struct Decided {
    each: Vec<Result<Prepared>>,
    /// How the fence row was; `None` where nobody was read or remembered.
    fence: Option<Expect>,
    token: TokenRow,
}

/// The row of a token, as far as it was read.
enum TokenRow {
    Unread,
    Read(Option<Versioned>),
}

impl Inner {
    pub(crate) fn known<P: Purpose>(&self) -> Result<Option<BuiltIn>> {
        let built_in = built_in::<P>();
        if built_in.is_some() {
            return Ok(built_in);
        }
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        // A shop's own type may claim any number: only one that is registered with that basis is meant.
        match registry.basis(PurposeId(P::NUMBER)) {
            Some(basis)
                if P::BASIS == Some(basis) && registry.label(PurposeId(P::NUMBER)) == Some(P::LABEL) =>
            {
                Ok(None)
            }
            None if P::BASIS.is_none() => Err(Misuse::BuiltIn.into()),
            _ => Err(Misuse::UnknownPurpose.into()),
        }
    }

    /// What can be said of a token without a subject: that it is ours, for one of these purposes, and lives.
    pub(crate) async fn admit(&self, token: &Token, purposes: &[u16]) -> Result<Verified> {
        let verified = self.verified(token).await?;
        if !purposes.contains(&verified.purpose) {
            return Err(Denied::Purpose.into());
        }
        verified.check_time(self.token_time(self.clock.wall()))?;
        let lifetime = verified.expires.saturating_sub(issued_ms(&verified.id).div_euclid(1000));
        if lifetime > i64::from(self.settings.max_token_s).saturating_add(1) {
            return Err(Denied::Lifetime.into());
        }
        Ok(verified)
    }

    /// The same for unlocking by purpose `P`.
    pub(crate) async fn admit_for<P: Purpose>(&self, token: &Token) -> Result<Verified> {
        self.known::<P>()?;
        self.admit(token, &[P::NUMBER]).await
    }

    /// Whether the token, or an actor that it names, was revoked.
    pub(crate) fn revoked(&self, token: &Verified) -> bool {
        let actors: Vec<(u8, &str)> = token.actors().map(|a| (a.kind().number(), a.name())).collect();
        self.journal.with(|s| s.revoked(&token.id, &actors, token.purpose, token.key))
    }

    /// Decides, writes down, and only then gives.
    async fn unlock_chunk<P: Purpose>(
        self: &Arc<Self>,
        verified: &Arc<Verified>,
        ids: &[SubjectId],
        action: Action,
    ) -> Result<Vec<Result<Grant<P>>>> {
        // What is remembered is tried once: after that, everybody is read.
        let mut remembering = true;
        for _ in 0..ATTEMPTS {
            let decided = self.decide::<P>(verified, ids, remembering).await?;
            remembering = false;
            let Some(decided) = decided else { continue };
            let given: Vec<&Prepared> = decided.each.iter().flatten().collect();
            let mut entries = Vec::new();
            if !given.is_empty() {
                let who = given.iter().filter_map(|prepared| prepared.pseudonym).collect();
                let entry = self.unlock_entry(action, Outcome::Done, verified, P::NUMBER)?;
                entries.push(entry.about_many(who)?);
            }
            if action == Action::UnlockMany {
                entries.extend(self.refusals(action, verified, P::NUMBER, &decided.each)?);
            }
            if !entries.is_empty() {
                let expect = decided.fence.map(|fence| (FENCE.to_vec(), fence));
                if self.lane.append(entries, expect).await? == Committed::Conflict {
                    continue;
                }
            }
            if !given.is_empty() {
                self.note_use(verified, decided.token).await;
            }
            let grant = |one: Result<Prepared>| one.map(|one| Grant::new(Source::Vault(one.core)));
            return Ok(decided.each.into_iter().map(grant).collect());
        }
        Err(Error::Busy)
    }

    /// Decides for each subject: from memory where it may, from one read of all others. `None` where the two are not of one
    /// moment.
    async fn decide<P: Purpose>(
        self: &Arc<Self>,
        verified: &Arc<Verified>,
        ids: &[SubjectId],
        remembering: bool,
    ) -> Result<Option<Decided>> {
        let built_in = self.known::<P>()?;
        let since = self.now();
        let wall = self.token_time(since.wall);
        verified.check_time(wall)?;
        let ring = self.ring();
        let mut places = Vec::with_capacity(ids.len());
        for id in ids {
            places.push(if verified.reaches(id) { Some(ring.places(id)?.newest) } else { None });
        }
        let remembered = if remembering && built_in.is_none() {
            self.from_memory(verified, P::NUMBER, &places, since)
        } else {
            None
        };
        let (fence, given) = remembered.unzip();
        let given = given.into_iter().flatten().chain(std::iter::repeat_with(|| None));
        let asked: Vec<(Option<Tag>, Option<Prepared>)> = places.into_iter().zip(given).collect();
        let missed = ids.iter().zip(&asked).filter(|(_, (place, given))| place.is_some() && given.is_none());
        let reached: Vec<&SubjectId> = missed.map(|(id, _)| id).collect();
        let mut decided = Decided { each: Vec::with_capacity(ids.len()), fence, token: TokenRow::Unread };
        let subjects = if reached.is_empty() {
            Vec::new()
        } else {
            self.read_subjects(&reached, &[token_name(&verified.id)]).await?
        };
        self.refuse_if_frozen()?;
        if self.revoked(verified) {
            return Err(Denied::Revoked.into());
        }
        if let Some(read) = subjects.iter().flatten().next() {
            let fence = Some(Expect::unchanged(read.fence.as_ref()));
            if decided.fence.is_some() && decided.fence != fence {
                return Ok(None);
            }
            decided.fence = fence;
            decided.token = read.more.first().cloned().map_or(TokenRow::Unread, TokenRow::Read);
        }
        let mut subjects = subjects.into_iter();
        for asked in asked {
            decided.each.push(match asked {
                (_, Some(given)) => Ok(given),
                (None, None) => Err(Denied::Subject.into()),
                (Some(place), None) => match subjects.next() {
                    Some(Ok(subject)) => {
                        self.remembered.named(place, subject.tag);
                        self.prepare(verified, P::NUMBER, built_in, &subject, since).await
                    }
                    Some(Err(why)) => Err(why),
                    None => Err(Malformed::Length.into()),
                },
            });
        }
        Ok(Some(decided))
    }

    /// When the token stops, by the monotonic clock.
    fn ends(&self, verified: &Verified, since: Now) -> Duration {
        let left = verified.expires.saturating_mul(1000).saturating_sub(self.token_time(since.wall));
        since.monotonic.saturating_add(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// The grant for one subject, as it was read.
    async fn prepare(
        self: &Arc<Self>,
        verified: &Arc<Verified>,
        purpose: u16,
        built_in: Option<BuiltIn>,
        subject: &Subject,
        since: Now,
    ) -> Result<Prepared> {
        let tag = subject.tag;
        let meta = subject.meta.as_ref().ok_or(Error::NotEnrolled)?;
        // Before the keys are chosen: a notice that is raised meanwhile ends the grant.
        let notice = self.journal.with(|state| state.notice(purpose));
        let era = self.era(&tag);
        let (keys, held) = match built_in {
            None => (self.keys_of(subject, meta, &tag, purpose, since)?, HeldShelves::new()),
            Some(BuiltIn::SubjectAccess) => {
                (self.keys_of_subject(subject, meta, &tag, since)?, HeldShelves::new())
            }
            Some(BuiltIn::LegalHold) => self.keys_of_hold(subject, meta, &tag, since).await?,
        };
        let newest = meta.generations.last().ok_or(Error::NotEnrolled)?;
        let audit = self.tree.part(&subject.found, audit_part(newest.number))?;
        let audit = audit.and_then(|bytes| Secret::<Audit>::from_slice(&bytes));
        let pseudonym = audit.map(|key| Pseudonym::of(&crypto::Prf::new(key.expose()), &self.id));
        let core = Core {
            fresh: Fresh { vault: Arc::clone(self), tag, since, era, checked: AtomicU64::new(UNCHECKED) },
            purpose,
            notice,
            built_in,
            token: Arc::clone(verified),
            ends: self.ends(verified, since),
            serials: meta.generations.iter().map(|g| (g.number, g.serial)).collect(),
            until: if built_in == Some(BuiltIn::LegalHold) { BTreeMap::new() } else { kept_until(meta) },
            keys,
            held,
            remade: remade(meta),
            ciphers: Ciphers::default(),
            today: AtomicU16::new(self.day(since).0),
        };
        let prepared = Prepared { core: Arc::new(core), pseudonym };
        self.remember(&prepared, meta, subject.found.path.root.epoch);
        Ok(prepared)
    }

    /// The purpose's key of each enrolment in which it stands.
    pub(crate) fn keys_of(
        &self,
        subject: &Subject,
        meta: &Meta,
        tag: &Tag,
        purpose: u16,
        now: Now,
    ) -> Result<BTreeMap<(u16, u16), Secret<PurposeStage>>> {
        let mut keys = BTreeMap::new();
        if self.permits(tag, purpose, self.day(now)) {
            for generation in &meta.generations {
                if self.standing(meta, generation.number, self.day(now)).contains(&purpose)
                    && let Some(key) = self.key(subject, generation.number, purpose)?
                {
                    keys.insert((generation.number, purpose), key);
                }
            }
        }
        if !keys.is_empty() {
            return Ok(keys);
        }
        let newest = meta.generations.last().ok_or(Error::NotEnrolled)?;
        let consent = newest.purposes.get(&purpose).is_some_and(|standing| standing.consent.is_some());
        Err(if newest.forgotten.is_some() || self.fenced(tag) {
            Erased::Forgotten
        } else if self.basis(purpose) == Some(Basis::Consent) && !consent {
            Erased::NoConsent
        } else {
            Erased::Purpose
        }
        .into())
    }

    /// The keys of all purposes of the newest enrolment that are live, none after a forget.
    fn keys_of_subject(
        &self,
        subject: &Subject,
        meta: &Meta,
        tag: &Tag,
        now: Now,
    ) -> Result<BTreeMap<(u16, u16), Secret<PurposeStage>>> {
        let newest = meta.generations.last().ok_or(Error::NotEnrolled)?;
        if newest.forgotten.is_some() || self.fenced(tag) {
            return Err(Erased::Forgotten.into());
        }
        let mut keys = BTreeMap::new();
        for purpose in self.purposes() {
            let over = newest.purposes.get(&purpose).is_some_and(|s| s.withdrawn.is_some() || s.held);
            if !over
                && self.permits(tag, purpose, self.day(now))
                && let Some(key) = self.key(subject, newest.number, purpose)?
            {
                keys.insert((newest.number, purpose), key);
            }
        }
        Ok(keys)
    }

    /// What a hold keeps: keys that are over for their own purpose, and shelves of days that are over.
    async fn keys_of_hold(
        &self,
        subject: &Subject,
        meta: &Meta,
        tag: &Tag,
        now: Now,
    ) -> Result<(BTreeMap<(u16, u16), Secret<PurposeStage>>, HeldShelves)> {
        let hold = self.tree.part(&subject.found, HOLD_PART)?.and_then(|bytes| Secret::from_slice(&bytes));
        let stands = self.journal.with(|state| state.fences.get(tag).is_some_and(|fence| fence.held));
        let (Some(hold), Some(held), true) = (hold, &meta.held, stands) else {
            return Err(Misuse::NotHeld.into());
        };
        let mut keys = BTreeMap::new();
        for generation in &meta.generations {
            let stands = self.standing(meta, generation.number, self.day(now));
            for purpose in self.purposes() {
                let live = stands.contains(&purpose) || generation.awaits_consent(purpose);
                if !live && let Some(key) = self.key(subject, generation.number, purpose)? {
                    keys.insert((generation.number, purpose), key);
                }
            }
        }
        Ok((keys, hold::shelves(self, tag, held, &hold).await?))
    }

    fn key(&self, subject: &Subject, generation: u16, purpose: u16) -> Result<Option<Secret<PurposeStage>>> {
        let part = self.tree.part(&subject.found, key_part(generation, purpose))?;
        Ok(part.and_then(|bytes| Secret::from_slice(&bytes)))
    }

    /// The purposes that stand in an enrolment.
    pub(crate) fn standing(&self, meta: &Meta, generation: u16, today: Day) -> Vec<u16> {
        let Some(generation) = meta.generations.iter().find(|g| g.number == generation) else {
            return Vec::new();
        };
        let notice = |purpose| self.journal.with(|state| state.notice(purpose));
        let mut stands = self.purposes();
        stands.retain(|purpose| generation.stands(*purpose, self.basis(*purpose), notice(*purpose), today));
        stands
    }

    /// What the journal says, whatever the store says.
    pub(crate) fn permits(&self, tag: &Tag, purpose: u16, today: Day) -> bool {
        self.journal.with(|state| state.fences.get(tag).is_none_or(|fence| fence.permits(purpose, today)))
    }

    pub(crate) fn fenced(&self, tag: &Tag) -> bool {
        self.journal.with(|state| state.fences.get(tag).is_some_and(|fence| fence.forgotten.is_some()))
    }

    /// The subject's era.
    pub(crate) fn era(&self, tag: &Tag) -> u64 {
        self.journal.with(|state| state.fences.get(tag).map_or(0, |fence| fence.era))
    }

    pub(crate) fn unlock_entry(
        &self,
        action: Action,
        outcome: Outcome,
        token: &Verified,
        purpose: u16,
    ) -> Result<crate::log::Entry> {
        let mut entry = self
            .entry(action, outcome)
            .by(token.actors().cloned().collect())?
            .because(token.ground().clone())
            .under_token(token.id)
            .for_purpose(purpose);
        if let Some(fields) = token.fields() {
            entry = entry.touching(fields.clone());
        }
        Ok(entry)
    }

    /// Writes a refusal down. It names no subject: an entry about somebody who is unknown or erased must link to nobody.
    /// Where even that cannot be written, the refusal stands all the same.
    pub(crate) async fn refused(
        &self,
        action: Action,
        token: Option<&Verified>,
        purpose: u16,
        why: Error,
    ) -> Error {
        let outcome = Outcome::Refused(Refusal::from(&why));
        let entry = match token {
            Some(token) => self.unlock_entry(action, outcome, token, purpose),
            None => Ok(self.entry(action, outcome).for_purpose(purpose)),
        };
        if let Ok(entry) = entry {
            // The caller learns why it was refused, which says more than that the log has failed too.
            let _ = self.log(entry).await;
        }
        why
    }

    /// One entry for each reason, with the number of subjects that it was given for.
    pub(crate) fn refusals<T>(
        &self,
        action: Action,
        token: &Verified,
        purpose: u16,
        each: &[Result<T>],
    ) -> Result<Vec<crate::log::Entry>> {
        let mut reasons: BTreeMap<u8, (Refusal, u64)> = BTreeMap::new();
        for why in each.iter().filter_map(|one| one.as_ref().err()) {
            let reason = Refusal::from(why);
            let count = &mut reasons.entry(reason.number()).or_insert((reason, 0)).1;
            *count = count.saturating_add(1);
        }
        let entry = |(reason, count)| {
            let entry = self.unlock_entry(action, Outcome::Refused(reason), token, purpose)?;
            Ok(entry.counting(Count::Subjects, count))
        };
        reasons.into_values().map(entry).collect()
    }
}
