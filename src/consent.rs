//! Consent, and its evidence: which notice, when, how, and who took it (GDPR Art. 7(1), PIPL Art. 14).

mod enroll;

use std::collections::btree_map::Entry;

use zeroize::Zeroizing;

use crate::actor::{Actor, ActorKind, Ground, SubjectId};
use crate::change::Change;
use crate::crypto::Prf;
use crate::error::{Erased, Error, Malformed, Misuse, Result};
use crate::journal::Event;
use crate::key::{Secret, Tag};
use crate::log::{self, Action};
use crate::purpose::{Basis, Purpose};
use crate::vault::{Inner, Subject, Vault};
use crate::wire::{Put as _, Reader};

/// What proves that a consent was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub(crate) notice_version: u32,
    pub(crate) notice_hash: [u8; 32],
    pub(crate) at_ms: i64,
    pub(crate) channel: Box<str>,
    pub(crate) by: Actor,
}

impl Evidence {
    /// The notice that was shown, by its version and the SHA-256 of its text, with the channel (a code such as `web`
    /// or `paper`) and who took it. The time is the vault's own when the consent is recorded, unless
    /// [`given_at`](Self::given_at) states an earlier one.
    ///
    /// # Errors
    ///
    /// [`Misuse::Identifier`] unless the channel is 1 to 32 of `a-z 0-9 -`.
    pub fn new(notice_version: u32, notice_hash: [u8; 32], channel: &str, by: &Actor) -> Result<Self> {
        let code = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=32).contains(&channel.len()) || !channel.bytes().all(code) {
            return Err(Misuse::Identifier.into());
        }
        Ok(Evidence { notice_version, notice_hash, at_ms: i64::MIN, channel: channel.into(), by: by.clone() })
    }

    /// As [`new`](Self::new), with the text of the notice, which is hashed here.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn of_notice(notice_version: u32, notice: &str, channel: &str, by: &Actor) -> Result<Self> {
        Self::new(notice_version, crate::crypto::hash(&[notice.as_bytes()]), channel, by)
    }

    /// When it was given, in milliseconds since 1970: for imports.
    #[must_use]
    pub fn given_at(mut self, wall_ms: i64) -> Self {
        self.at_ms = wall_ms;
        self
    }

    /// The version of the notice.
    #[must_use]
    pub fn notice_version(&self) -> u32 {
        self.notice_version
    }

    /// When it was given, in milliseconds since 1970; `None` until it is recorded, unless it was stated.
    #[must_use]
    pub fn at_ms(&self) -> Option<i64> {
        (self.at_ms != i64::MIN).then_some(self.at_ms)
    }

    /// How it was given.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Who took it.
    #[must_use]
    pub fn by(&self) -> &Actor {
        &self.by
    }

    pub(crate) fn encode(&self, out: &mut Zeroizing<Vec<u8>>) {
        out.put_u32(self.notice_version);
        out.put(&self.notice_hash);
        out.put_i64(self.at_ms);
        out.put_bytes(self.channel.as_bytes());
        out.put_u8(self.by.kind().number());
        out.put_bytes(self.by.name().as_bytes());
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let (notice_version, notice_hash, at_ms) = (r.u32()?, r.array()?, r.i64()?);
        let channel = r.text()?.into();
        let kind = ActorKind::from_number(r.u8()?).ok_or(Malformed::Content)?;
        let by = Actor::new(kind, r.text()?).map_err(|_| Malformed::Content)?;
        Ok(Evidence { notice_version, notice_hash, at_ms, channel, by })
    }
}

/// A consent to one purpose, for [`enroll`](crate::Vault::enroll).
#[derive(Clone, Debug)]
pub struct Consent {
    pub(crate) purpose: u16,
    pub(crate) evidence: Evidence,
}

impl Consent {
    /// To purpose `P`.
    #[must_use]
    pub fn to<P: Purpose>(evidence: Evidence) -> Self {
        Consent { purpose: P::NUMBER, evidence }
    }
}

impl Vault {
    /// Records a consent to purpose `P`, with its evidence. After a withdrawal it lets the purpose stand again: within
    /// the grace period with the same key, later with a new one, under which nothing opens that was sealed before. One to an
    /// older notice than before may end what stood by that: then it returns when that holds in all processes.
    ///
    /// # Errors
    ///
    /// [`Error::NotEnrolled`], [`Erased::Forgotten`], [`Misuse::UnknownPurpose`], [`Misuse::NotConsent`].
    pub async fn consent<P: Purpose>(
        &self,
        id: &SubjectId,
        evidence: Evidence,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<()> {
        let inner = &self.0;
        let consent = inner.checked_one(Consent::to::<P>(evidence))?;
        let consenting =
            |subject: &Subject, entry| inner.consenting(&subject.tag, entry, &consent, actor, ground);
        if inner.change(id, &[], consenting).await?.out {
            inner.wait_out_bound().await;
        }
        Ok(())
    }

    /// Raises the version of purpose `P`'s notice: consents to older versions do not count any more, until the person
    /// consents again.
    ///
    /// # Errors
    ///
    /// [`Misuse::NotConsent`] where the basis is another; where it cannot be made durable.
    pub async fn require_notice<P: Purpose>(
        &self,
        version: u32,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<()> {
        let inner = &self.0;
        if inner.basis(P::NUMBER) != Some(Basis::Consent) {
            return Err(Misuse::NotConsent.into());
        }
        inner.log(inner.entry_by(Action::Consent, actor, ground)?.for_purpose(P::NUMBER)).await?;
        inner.journal.record(&[Event::Notice { purpose: P::NUMBER, version }]).await?;
        inner.wait_out_bound().await;
        Ok(())
    }
}

impl Inner {
    /// Consents as they are recorded: to registered purposes whose basis is consent, given now unless they say when.
    pub(crate) fn checked(&self, consents: impl IntoIterator<Item = Consent>) -> Result<Vec<Consent>> {
        consents.into_iter().map(|consent| self.checked_one(consent)).collect()
    }

    pub(crate) fn checked_one(&self, mut consent: Consent) -> Result<Consent> {
        match self.basis(consent.purpose) {
            Some(Basis::Consent) => {}
            Some(_) => return Err(Misuse::NotConsent.into()),
            None => return Err(Misuse::UnknownPurpose.into()),
        }
        if consent.evidence.at_ms == i64::MIN {
            consent.evidence.at_ms = self.clock.wall();
        }
        Ok(consent)
    }

    /// What a consent makes of an entry; `true` where it may end what stood by the one before.
    pub(crate) fn consenting(
        &self,
        tag: &Tag,
        entry: Option<crate::entry::Entry>,
        consent: &Consent,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Change<bool>> {
        let purpose = consent.purpose;
        let mut entry = entry.ok_or(Error::NotEnrolled)?;
        let log = self.entry_by(Action::Consent, actor, ground)?.for_purpose(purpose);
        let log = self.about(log, &entry);
        let Some(generation) = entry.meta.generations.last_mut() else {
            return Err(Error::NotEnrolled);
        };
        if generation.forgotten.is_some() {
            return Err(Erased::Forgotten.into());
        }
        let standing = generation.purposes.entry(purpose).or_default();
        let former = standing.consent.replace(consent.evidence.clone());
        let lower = former.is_some_and(|former| former.notice_version > consent.evidence.notice_version);
        let (mut given_back, mut renewed) = (false, false);
        if let Some(due) = standing.withdrawn.take() {
            if standing.held {
                // The key is kept as evidence, and must not serve its purpose again.
                return Err(Erased::Purpose.into());
            }
            if due <= self.trusted_today() {
                // The grace is over: what was sealed before stays closed, whether a shred has run or not.
                entry.keys.remove(&(generation.number, purpose));
                renewed = true;
            }
            standing.remade |= !entry.keys.contains_key(&(generation.number, purpose));
            given_back = true;
        }
        if let Entry::Vacant(place) = entry.keys.entry((generation.number, purpose)) {
            place.insert(Secret::random()?);
        }
        // One to an older notice may take away what stood by the newer one: nobody goes on by that.
        let event = (given_back || lower).then(|| {
            entry.meta.state = entry.meta.state.saturating_add(1);
            Event::Consented { tag: *tag, state: entry.meta.state, purpose }
        });
        let mut change = Change::new(entry, log, lower);
        change.events.extend(event);
        change.removed = renewed.then(|| self.trusted_today());
        Ok(change)
    }

    /// An entry of the log about the newest enrolment of a subject. Without an audit key it names nobody.
    pub(crate) fn about(&self, log: log::Entry, entry: &crate::entry::Entry) -> log::Entry {
        match entry.newest().and_then(|generation| entry.audit.get(&generation.number)) {
            Some(audit) => log.about(log::Pseudonym::of(&Prf::new(audit.expose()), &self.id)),
            None => log,
        }
    }
}
