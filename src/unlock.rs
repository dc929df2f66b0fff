//! Tokens given out, and grants and sealers taken: every way in.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::actor::{Actor, Ground, SubjectId};
use crate::clock::Day;
use crate::crypto;
use crate::entry::{HOLD_PART, Meta, audit_part, key_part};
use crate::error::{Denied, Erased, Error, Misuse, Result};
use crate::grant::{Core, Fresh, Grant, HeldShelves, Now};
use crate::hold;
use crate::journal::{Event, FENCE, Revocation};
use crate::key::{Audit, Purpose as PurposeStage, Secret, Tag};
use crate::log::{Action, Count, Outcome, Pseudonym, Refusal};
use crate::purpose::{BuiltIn, Purpose, PurposeId, built_in};
use crate::record::{Field, Record};
use crate::sealer::{self, Sealer};
use crate::store::{Batch, Committed, Expect, Key, Range, Versioned};
use crate::token::{self, Claims, FieldRef, Token, Verified};
use crate::tree::ATTEMPTS;
use crate::vault::{Inner, Subject, Vault};
use crate::wire::{Put as _, Reader};

/// What a token shall reach.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    subjects: Vec<SubjectId>,
    fields: Vec<FieldRef>,
    issuer: Option<Actor>,
}

impl Scope {
    /// Every subject, and every field that the purpose may see.
    #[must_use]
    pub fn everyone() -> Self {
        Self::default()
    }

    /// One subject; call [`and`](Self::and) for more, up to 64.
    #[must_use]
    pub fn subject(id: &SubjectId) -> Self {
        Scope { subjects: vec![id.clone()], ..Self::default() }
    }

    /// One subject more.
    #[must_use]
    pub fn and(mut self, id: &SubjectId) -> Self {
        self.subjects.push(id.clone());
        self
    }

    /// Who issues it, where that is not the one who gets it: it stands first in the log.
    #[must_use]
    pub fn issued_by(mut self, actor: &Actor) -> Self {
        self.issuer = Some(actor.clone());
        self
    }

    /// Only this field, and others that are named so.
    #[must_use]
    pub fn field<F: Field>(mut self) -> Self {
        self.fields.push(field::<F>());
        self
    }
}

/// A field, for narrowing a token to it: `token.narrow().fields(&[field::<order::address>()])`.
#[must_use]
pub fn field<F: Field>() -> FieldRef {
    FieldRef { record: F::RECORD, number: F::INFO.number }
}

/// A token that is alive, for those who oversee them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenInfo {
    /// Its id, for [`Revoke::Token`].
    pub id: [u8; 16],
    /// Its purpose.
    pub purpose: PurposeId,
    /// To whom it was issued.
    pub actor: Actor,
    /// The second in which it stops, since 1970.
    pub expires: i64,
    /// When it was issued, in milliseconds since 1970.
    pub issued_ms: i64,
    /// When it was last used, to the minute, in milliseconds since 1970.
    pub last_used_ms: Option<i64>,
}

/// What to revoke: everything that was narrowed from it goes with it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Revoke {
    /// One token, by its id.
    Token([u8; 16]),
    /// All tokens that were issued to an actor or name it in a narrowing, those to come too.
    Actor(Actor),
    /// All tokens for a purpose that were issued so far.
    Purpose(PurposeId),
    /// All tokens that were issued so far.
    All,
}

const TOKENS: &[u8] = b"t";
/// No number of the journal: a fresh grant or sealer is checked against its whole state at first use.
const UNCHECKED: u64 = u64::MAX;
/// A token's last use is written again when it is older.
const LAST_USE_MS: i64 = 60_000;

fn token_name(id: &[u8; 16]) -> Key {
    [TOKENS, &id[..]].concat()
}

/// The first six bytes of a token's id are the milliseconds of its issue, so that "all that were issued so far" can be
/// said without a list.
pub(crate) fn issued_ms(id: &[u8; 16]) -> i64 {
    let [a, b, c, d, e, f, ..] = *id;
    i64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

impl Vault {
    /// Issues a token for purpose `P` to `actor`. Whoever holds it can narrow it without the vault.
    ///
    /// # Errors
    ///
    /// [`Denied::Lifetime`] above what the settings allow, [`Denied::Revoked`] for an actor that was revoked, [`Misuse::UnknownPurpose`], [`Misuse::BuiltIn`] for a type
    /// that only claims to be a built-in purpose.
    pub async fn issue<P: Purpose>(
        &self,
        actor: &Actor,
        ground: &Ground,
        lifetime: Duration,
        scope: Scope,
    ) -> Result<Token> {
        let inner = &self.0;
        inner.known::<P>()?;
        let fence = inner.rows.get(FENCE).await?;
        inner.journal.catch_up(inner.journal.head_of(fence.as_ref())?).await?;
        inner.refuse_if_frozen()?;
        if lifetime > Duration::from_secs(inner.settings.max_token_s.into()) {
            return Err(Denied::Lifetime.into());
        }
        if inner.journal.with(|state| state.names(actor)) {
            return Err(Denied::Revoked.into());
        }
        let now = inner.token_time(inner.clock.wall());
        let mut id: [u8; 16] = crypto::random()?;
        for (to, from) in id.iter_mut().zip(now.max(0).to_be_bytes().iter().skip(2)) {
            *to = *from;
        }
        let seconds = now.div_euclid(1000);
        let expires = seconds.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        let claims = Claims {
            id,
            purpose: P::NUMBER,
            actor,
            ground,
            not_before: seconds.max(0),
            expires,
            subjects: (!scope.subjects.is_empty()).then_some(scope.subjects.as_slice()),
            fields: (!scope.fields.is_empty()).then_some(scope.fields.as_slice()),
        };
        let token = token::issue(&inner.tokens, &inner.id, &claims)?;
        let info = TokenInfo {
            id,
            purpose: PurposeId(P::NUMBER),
            actor: actor.clone(),
            expires,
            issued_ms: now,
            last_used_ms: None,
        };
        let actors = scope.issuer.iter().chain([actor]).cloned().collect();
        let entry = inner.entry(Action::Issue, Outcome::Done).by(actors)?.because(ground.clone());
        let entry = entry.for_purpose(P::NUMBER).under_token(id);
        for _ in 0..ATTEMPTS {
            let mut batch = Batch::new()?;
            batch.expect(&token_name(&id), Expect::Absent);
            batch.put(&token_name(&id), info.encode());
            if inner.lane.commit(batch, std::slice::from_ref(&entry)).await? == Committed::Yes {
                return Ok(token);
            }
        }
        Err(Error::Busy)
    }

    /// The tokens that are alive: neither expired nor revoked.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>> {
        let inner = &self.0;
        let fence = inner.rows.get(FENCE).await?;
        inner.journal.catch_up(inner.journal.head_of(fence.as_ref())?).await?;
        let now = inner.token_time(inner.clock.wall()).div_euclid(1000);
        let mut alive = Vec::new();
        for (name, row) in inner.rows.all(Range::prefix(TOKENS)).await? {
            let id: [u8; 16] = name.last_chunk().copied().ok_or(crate::error::Malformed::Length)?;
            let info = TokenInfo::decode(id, &row.value)?;
            let actor = [(info.actor.kind().number(), info.actor.name())];
            let revoked =
                |state: &crate::journal::State| state.revoked(&id, &actor, info.purpose.0, issued_ms(&id));
            if info.expires > now && !inner.journal.with(revoked) {
                alive.push(info);
            }
        }
        Ok(alive)
    }

    /// Revokes tokens, in all processes within the bound, and for good.
    ///
    /// # Errors
    ///
    /// Where it cannot be made durable.
    pub async fn revoke(&self, what: Revoke, actor: &Actor, ground: &Ground) -> Result<()> {
        let inner = &self.0;
        let mut until_ms = inner.clock.wall();
        if matches!(what, Revoke::Purpose(_) | Revoke::All) {
            // A clock that was set back must not leave out what was issued before that.
            let issued = inner.rows.all(Range::prefix(TOKENS)).await?;
            let issued = issued.iter().filter_map(|(name, _)| name.last_chunk::<16>()).map(issued_ms);
            until_ms = issued.fold(until_ms, i64::max);
        }
        let revocation = match what {
            Revoke::Token(id) => Revocation::Token(id),
            Revoke::Actor(who) => Revocation::Actor(who.kind().number(), who.name().to_owned()),
            Revoke::Purpose(purpose) => Revocation::Purpose { purpose: purpose.0, until_ms },
            Revoke::All => Revocation::All { until_ms },
        };
        // Fenced first: a log that cannot be written must not keep a stolen token alive.
        inner.journal.record(&[Event::Revoked(revocation)]).await?;
        inner.wait_out_bound().await;
        inner.log(inner.entry_by(Action::Revoke, actor, ground)?).await
    }

    /// Takes a grant for purpose `P` and one subject: verifies the token, checks basis, revocation and freeze, writes
    /// the log durably, and only then holds the keys.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`], [`Error::Erased`], [`Error::NotEnrolled`], [`Error::Halted`]: refusals are in the log too.
    /// Where the log cannot be written, nothing is given.
    pub async fn unlock<P: Purpose>(&self, token: &Token, id: &SubjectId) -> Result<Grant<P>> {
        let inner = &self.0;
        inner.keep_time().await?;
        let verified = match inner.admit_for::<P>(token) {
            Ok(verified) => Arc::new(verified),
            Err(why) => return Err(inner.refused(Action::Unlock, None, P::NUMBER, why).await),
        };
        match inner.unlock_one::<P>(&verified, id).await {
            Ok(grant) => Ok(grant),
            Err(why) => Err(inner.refused(Action::Unlock, Some(&verified), P::NUMBER, why).await),
        }
    }

    /// Takes grants for many subjects, up to 1,000 a call, with one entry in the log for all that are given. Refusals
    /// stand at their places.
    ///
    /// # Errors
    ///
    /// Where the token itself is refused, or the log cannot be written.
    pub async fn unlock_many<P: Purpose>(
        &self,
        token: &Token,
        ids: &[SubjectId],
    ) -> Result<Vec<Result<Grant<P>>>> {
        let inner = &self.0;
        if ids.len() > 1000 {
            return Err(Misuse::TooLarge.into());
        }
        inner.keep_time().await?;
        let verified = match inner.admit_for::<P>(token) {
            Ok(verified) => Arc::new(verified),
            Err(why) => return Err(inner.refused(Action::UnlockMany, None, P::NUMBER, why).await),
        };
        for _ in 0..ATTEMPTS {
            let mut ready = Vec::with_capacity(ids.len());
            let mut fences = Vec::new();
            for id in ids {
                match inner.prepare::<P>(&verified, id).await {
                    Ok(prepared) => {
                        fences.push(Expect::unchanged(prepared.subject.fence.as_ref()));
                        ready.push(Ok(prepared));
                    }
                    Err(why) => ready.push(Err(why)),
                }
            }
            if fences.iter().any(|other| Some(other) != fences.first()) {
                continue;
            }
            if let Some(fence) = fences.first() {
                let who = ready.iter().flatten().filter_map(|prepared| prepared.pseudonym).collect();
                let entry = inner.unlock_entry(Action::UnlockMany, Outcome::Done, &verified, P::NUMBER)?;
                let expect = Some((FENCE.to_vec(), *fence));
                if inner.lane.append(entry.about_many(who)?, expect).await? == Committed::Conflict {
                    continue;
                }
                let row = ready.iter().flatten().next().and_then(|one| one.subject.more.first());
                inner.used(&verified, row.and_then(Option::as_ref)).await;
            }
            inner
                .refused_many(&verified, P::NUMBER, ready.iter().filter_map(|one| one.as_ref().err()))
                .await?;
            return Ok(ready.into_iter().map(|one| one.map(|one| Grant::new(Arc::new(one.core)))).collect());
        }
        Err(Error::Busy)
    }

    /// Takes a sealer for record `R` and one subject. It holds the subject's purpose keys, and lives as long as a grant.
    ///
    /// # Errors
    ///
    /// [`Error::NotEnrolled`], [`Erased::Forgotten`], [`Misuse::UnknownRecord`] for a record that the vault was not
    /// opened with, [`Error::Halted`] when frozen or where the clock has jumped.
    pub async fn sealer<R: Record>(
        &self,
        id: &SubjectId,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Sealer<R>> {
        let inner = &self.0;
        inner.ready_to_seal::<R>().await?;
        let tag = inner.tag(id);
        for _ in 0..ATTEMPTS {
            let since = inner.now();
            let mut subject = inner.read_subject(&tag, &[]).await?;
            inner.refuse_if_frozen()?;
            let entry = inner.tree.entry(&subject.found)?.ok_or(Error::NotEnrolled)?;
            let newest = entry.newest().ok_or(Error::NotEnrolled)?;
            if newest.forgotten.is_some() || inner.fenced(&tag) {
                return Err(Erased::Forgotten.into());
            }
            if inner.lacks_keys(&entry) {
                inner.add_keys(&tag, actor, ground).await?;
                continue;
            }
            // Before the log is written: what is raised or fenced meanwhile ends the sealer.
            let sealer = inner.sealer_of(&tag, &entry, since)?;
            let log = inner.about(inner.entry_by(Action::Sealer, actor, ground)?, &entry);
            let expect = Expect::unchanged(subject.fence.take().as_ref());
            if inner.lane.append(log, Some((FENCE.to_vec(), expect))).await? == Committed::Yes {
                return Ok(sealer);
            }
        }
        Err(Error::Busy)
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

    /// A sealer by what an entry says. It must not be given out before the log has it.
    pub(crate) fn sealer_of<R: Record>(
        self: &Arc<Self>,
        tag: &Tag,
        entry: &crate::entry::Entry,
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
        Ok(Sealer::new(Arc::new(sealer::Core {
            fresh,
            state,
            generation,
            serial,
            keys,
            notices,
            suite: self.tree.suite,
            prefix: crypto::random()?,
            counter: AtomicU64::new(0),
            max_seals: self.max_seals,
            plan: RwLock::default(),
        })))
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
    subject: Subject,
    core: Core,
    pseudonym: Option<Pseudonym>,
}

impl Inner {
    fn known<P: Purpose>(&self) -> Result<Option<BuiltIn>> {
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
    pub(crate) fn admit(&self, token: &Token, purposes: &[u16]) -> Result<Verified> {
        let verified = token::verify(&self.tokens, &self.id, token)?;
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
    fn admit_for<P: Purpose>(&self, token: &Token) -> Result<Verified> {
        self.known::<P>()?;
        self.admit(token, &[P::NUMBER])
    }

    /// Whether the token, or an actor that it names, was revoked.
    pub(crate) fn revoked(&self, token: &Verified) -> bool {
        let actors: Vec<(u8, &str)> = token.actors.iter().map(|a| (a.kind().number(), a.name())).collect();
        self.journal.with(|s| s.revoked(&token.id, &actors, token.purpose, issued_ms(&token.id)))
    }

    async fn unlock_one<P: Purpose>(
        self: &Arc<Self>,
        verified: &Arc<Verified>,
        id: &SubjectId,
    ) -> Result<Grant<P>> {
        for _ in 0..ATTEMPTS {
            let Prepared { subject, core, pseudonym } = self.prepare::<P>(verified, id).await?;
            let mut entry = self.unlock_entry(Action::Unlock, Outcome::Done, verified, P::NUMBER)?;
            if let Some(pseudonym) = pseudonym {
                entry = entry.about(pseudonym);
            }
            let expect = (FENCE.to_vec(), Expect::unchanged(subject.fence.as_ref()));
            if self.lane.append(entry, Some(expect)).await? == Committed::Yes {
                self.used(verified, subject.more.first().and_then(Option::as_ref)).await;
                return Ok(Grant::new(Arc::new(core)));
            }
        }
        Err(Error::Busy)
    }

    async fn prepare<P: Purpose>(
        self: &Arc<Self>,
        verified: &Arc<Verified>,
        id: &SubjectId,
    ) -> Result<Prepared> {
        let built_in = self.known::<P>()?;
        let since = self.now();
        let wall = self.token_time(since.wall);
        verified.check_time(wall)?;
        if !verified.reaches(id) {
            return Err(Denied::Subject.into());
        }
        let tag = self.tag(id);
        let subject = self.read_subject(&tag, &[token_name(&verified.id)]).await?;
        self.refuse_if_frozen()?;
        if self.revoked(verified) {
            return Err(Denied::Revoked.into());
        }
        let meta = subject.meta.as_ref().ok_or(Error::NotEnrolled)?;
        // Before the keys are chosen: a notice that is raised meanwhile ends the grant.
        let notice = self.journal.with(|state| state.notice(P::NUMBER));
        let era = self.era(&tag);
        let (keys, held) = match built_in {
            None => (self.keys_of(&subject, meta, &tag, P::NUMBER, since)?, HeldShelves::new()),
            Some(BuiltIn::SubjectAccess) => {
                (self.keys_of_subject(&subject, meta, &tag, since)?, HeldShelves::new())
            }
            Some(BuiltIn::LegalHold) => self.keys_of_hold(&subject, meta, &tag, since).await?,
        };
        let newest = meta.generations.last().ok_or(Error::NotEnrolled)?;
        let audit = self.tree.part(&subject.found, audit_part(newest.number))?;
        let audit = audit.and_then(|bytes| Secret::<Audit>::from_slice(&bytes));
        let pseudonym = audit.map(|key| Pseudonym::of(&crypto::Prf::new(key.expose()), &self.id));
        let left = verified.expires.saturating_mul(1000).saturating_sub(wall);
        let core = Core {
            fresh: Fresh { vault: Arc::clone(self), tag, since, era, checked: AtomicU64::new(UNCHECKED) },
            purpose: P::NUMBER,
            notice,
            built_in,
            token: Arc::clone(verified),
            ends: since.monotonic.saturating_add(Duration::from_millis(u64::try_from(left).unwrap_or(0))),
            serials: meta.generations.iter().map(|g| (g.number, g.serial)).collect(),
            until: if built_in == Some(BuiltIn::LegalHold) { BTreeMap::new() } else { kept_until(meta) },
            keys,
            held,
            remade: remade(meta),
            ciphers: RwLock::default(),
        };
        Ok(Prepared { subject, core, pseudonym })
    }

    /// The purpose's key of each enrolment in which it stands.
    fn keys_of(
        &self,
        subject: &Subject,
        meta: &Meta,
        tag: &Tag,
        purpose: u16,
        now: Now,
    ) -> Result<BTreeMap<(u16, u16), Secret<PurposeStage>>> {
        let mut keys = BTreeMap::new();
        if self.permits(tag, purpose, now.day()) {
            for generation in &meta.generations {
                if self.standing(meta, generation.number, now.day()).contains(&purpose)
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
        } else if self.basis(purpose) == Some(crate::purpose::Basis::Consent) && !consent {
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
                && self.permits(tag, purpose, now.day())
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
            let stands = self.standing(meta, generation.number, now.day());
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
    fn era(&self, tag: &Tag) -> u64 {
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
            .by(token.actors.clone())?
            .because(token.ground.clone())
            .under_token(token.id)
            .for_purpose(purpose);
        if let Some(fields) = &token.fields {
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
    async fn refused_many(
        &self,
        token: &Verified,
        purpose: u16,
        why: impl Iterator<Item = &Error>,
    ) -> Result<()> {
        let mut reasons: BTreeMap<u8, (Refusal, u64)> = BTreeMap::new();
        for why in why {
            let reason = Refusal::from(why);
            let count = &mut reasons.entry(reason.number()).or_insert((reason, 0)).1;
            *count = count.saturating_add(1);
        }
        for (reason, count) in reasons.into_values() {
            let entry = self.unlock_entry(Action::UnlockMany, Outcome::Refused(reason), token, purpose)?;
            self.log(entry.counting(Count::Subjects, count)).await?;
        }
        Ok(())
    }

    /// Notes a token's last use, to the minute. A convenience for `tokens()`: nothing depends on it.
    async fn used(&self, token: &Verified, row: Option<&Versioned>) {
        let name = token_name(&token.id);
        let now = self.clock.wall();
        let Some(row) = row else { return };
        let Ok(mut info) = TokenInfo::decode(token.id, &row.value) else { return };
        if info.last_used_ms.is_some_and(|last| now.saturating_sub(last) < LAST_USE_MS) {
            return;
        }
        info.last_used_ms = Some(now.div_euclid(LAST_USE_MS).saturating_mul(LAST_USE_MS));
        if let Ok(mut batch) = Batch::new() {
            batch.expect(&name, Expect::Version(row.version));
            batch.put(&name, info.encode());
            let _ = self.rows.commit(batch).await;
        }
    }

    /// Whether a purpose that was registered after the enrolment has no key yet.
    fn lacks_keys(&self, entry: &crate::entry::Entry) -> bool {
        let Some(newest) = entry.newest() else { return false };
        self.purposes().into_iter().any(|purpose| {
            let withdrawn = newest.purposes.get(&purpose).is_some_and(|s| s.withdrawn.is_some());
            !withdrawn && !entry.keys.contains_key(&(newest.number, purpose))
        })
    }

    async fn add_keys(&self, tag: &Tag, actor: &Actor, ground: &Ground) -> Result<()> {
        self.change(tag, &[], |_, entry| {
            let mut entry = entry.ok_or(Error::NotEnrolled)?;
            let log = self.about(self.entry_by(Action::Sealer, actor, ground)?, &entry);
            let Some(newest) = entry.meta.generations.last() else { return Err(Error::NotEnrolled) };
            if newest.forgotten.is_some() {
                return Err(Erased::Forgotten.into());
            }
            for purpose in self.purposes() {
                let withdrawn = newest.purposes.get(&purpose).is_some_and(|s| s.withdrawn.is_some());
                if !withdrawn && !entry.keys.contains_key(&(newest.number, purpose)) {
                    entry.keys.insert((newest.number, purpose), Secret::random()?);
                }
            }
            Ok(crate::change::Change::new(entry, log, ()))
        })
        .await?;
        Ok(())
    }
}

impl TokenInfo {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![1];
        out.put_u16(self.purpose.0);
        out.put_u8(self.actor.kind().number());
        out.put_bytes(self.actor.name().as_bytes());
        out.put_i64(self.expires);
        out.put_i64(self.issued_ms);
        out.put_i64(self.last_used_ms.unwrap_or(i64::MIN));
        out
    }

    fn decode(id: [u8; 16], bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return Err(crate::error::Unsupported::Version.into());
        }
        let purpose = PurposeId(r.u16()?);
        let kind = crate::actor::ActorKind::from_number(r.u8()?).ok_or(crate::error::Malformed::Content)?;
        let actor = Actor::new(kind, r.text()?).map_err(|_| crate::error::Malformed::Content)?;
        let (expires, issued_ms, last) = (r.i64()?, r.i64()?, r.i64()?);
        r.end()?;
        Ok(TokenInfo {
            id,
            purpose,
            actor,
            expires,
            issued_ms,
            last_used_ms: (last != i64::MIN).then_some(last),
        })
    }
}
