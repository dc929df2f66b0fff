//! Tokens given out: issued, listed, revoked.

use std::time::Duration;

use super::{Claims, FieldRef, Token, Verified};
use crate::actor::{Actor, ActorKind, Ground, SubjectId};
use crate::clock::Day;
use crate::crypto;
use crate::error::{Denied, Error, Malformed, Result, Unsupported};
use crate::journal::{Event, FENCE, Revocation, State};
use crate::log::{Action, Outcome};
use crate::purpose::{Purpose, PurposeId};
use crate::record::Field;
use crate::store::{Batch, Committed, Expect, Key, Range, Versioned};
use crate::tree::ATTEMPTS;
use crate::vault::{Inner, Vault};
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
    /// The number of the key under which it was issued.
    pub key: u16,
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
/// A token's last use is written again when it is older.
pub(crate) const LAST_USE_MS: i64 = 60_000;

/// The name of its row.
pub(crate) fn token_name(id: &[u8; 16]) -> Key {
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
    /// [`Denied::Lifetime`] above what the settings allow, [`Denied::Revoked`] for an actor that was revoked,
    /// [`Misuse::UnknownPurpose`](crate::error::Misuse::UnknownPurpose),
    /// [`Misuse::BuiltIn`](crate::error::Misuse::BuiltIn) for a type that only claims to be a built-in purpose.
    pub async fn issue<P: Purpose>(
        &self,
        actor: &Actor,
        ground: &Ground,
        lifetime: Duration,
        scope: Scope,
    ) -> Result<Token> {
        let inner = &self.0;
        inner.known::<P>()?;
        if lifetime > Duration::from_secs(inner.settings.max_token_s.into()) {
            return Err(Denied::Lifetime.into());
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
        let actors = scope.issuer.iter().chain([actor]).cloned().collect();
        let entry = inner.entry(Action::Issue, Outcome::Done).by(actors)?.because(ground.clone());
        let entry = entry.for_purpose(P::NUMBER).under_token(id);
        for _ in 0..ATTEMPTS {
            let fence = inner.catch_up().await?;
            inner.refuse_if_frozen()?;
            if inner.journal.with(|state| state.names(actor)) {
                return Err(Denied::Revoked.into());
            }
            let ring = inner.ring();
            let (key, prf) = ring.token()?;
            let token = super::issue(prf, &inner.id, &claims)?;
            let info = TokenInfo {
                id,
                purpose: PurposeId(P::NUMBER),
                actor: actor.clone(),
                expires,
                issued_ms: now,
                last_used_ms: None,
                key,
            };
            let mut batch = Batch::new()?;
            // Whatever revokes, freezes or changes keys writes it.
            batch.expect(FENCE, Expect::unchanged(fence.as_ref()));
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
        inner.journal.refresh().await?;
        let now = inner.token_time(inner.clock.wall()).div_euclid(1000);
        let mut alive = Vec::new();
        for (name, row) in inner.rows.all(Range::prefix(TOKENS)).await? {
            let id: [u8; 16] = name.last_chunk().copied().ok_or(Malformed::Length)?;
            let info = TokenInfo::decode(id, &row.value)?;
            let actor = [(info.actor.kind().number(), info.actor.name())];
            let revoked = |state: &State| state.revoked(&id, &actor, info.purpose.0, info.key);
            if info.expires > now && !inner.journal.with(revoked) {
                alive.push(info);
            }
        }
        Ok(alive)
    }

    /// Revokes tokens, in all processes within the bound, and for good. Tickets that were given under them live on to their
    /// end: at most an hour.
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
}

impl Inner {
    /// Notes a token's last use, to the minute. A convenience for `tokens()`: nothing depends on it.
    pub(crate) async fn used(&self, token: &Verified, row: Option<&Versioned>) {
        let name = token_name(&token.id);
        let now = self.clock.wall();
        let Some(row) = row else { return };
        let Ok(mut info) = TokenInfo::decode(token.id, &row.value) else { return };
        if let Some(last) = info.last_used_ms.filter(|last| now.saturating_sub(*last) < LAST_USE_MS) {
            self.remembered.used(&token.id, last);
            return;
        }
        let minute = now.div_euclid(LAST_USE_MS).saturating_mul(LAST_USE_MS);
        info.last_used_ms = Some(minute);
        self.remembered.used(&token.id, minute);
        if let Ok(mut batch) = Batch::new() {
            batch.expect(&name, Expect::Version(row.version));
            batch.put(&name, info.encode());
            let _ = self.rows.commit(batch).await;
        }
    }
}

impl Inner {
    /// Deletes the rows of tokens that are over by the mark of time: nothing revives them, whatever the clock says.
    pub(crate) async fn drop_tokens(&self, mark: Day) -> Result<()> {
        let mut range = Range::prefix(TOKENS);
        loop {
            let page = self.rows.page(range.clone(), 1000).await?;
            let mut batch = Batch::new()?;
            for (name, row) in page.rows {
                let id = name.last_chunk().copied().ok_or(Malformed::Length)?;
                let over = TokenInfo::decode(id, &row.value)
                    .is_ok_and(|info| info.expires.saturating_mul(1000) <= mark.end_ms());
                if over {
                    batch.writes.push((name, None));
                }
            }
            // Whether it was made does not matter: the next expiry finds what is left.
            if !batch.writes.is_empty() {
                self.rows.commit(batch).await?;
            }
            match page.next {
                Some(next) => range.start = next,
                None => return Ok(()),
            }
        }
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
        out.put_u16(self.key);
        out
    }

    fn decode(id: [u8; 16], bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return Err(Unsupported::Version.into());
        }
        let purpose = PurposeId(r.u16()?);
        let kind = ActorKind::from_number(r.u8()?).ok_or(Malformed::Content)?;
        let actor = Actor::new(kind, r.text()?).map_err(|_| Malformed::Content)?;
        let (expires, issued_ms, last, key) = (r.i64()?, r.i64()?, r.i64()?, r.u16()?);
        r.end()?;
        Ok(TokenInfo {
            id,
            purpose,
            actor,
            expires,
            issued_ms,
            last_used_ms: (last != i64::MIN).then_some(last),
            key,
        })
    }
}
