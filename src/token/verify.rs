//! What only the vault can do: issue, and verify.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::claims::Reach;
use super::{FieldRef, Fields, Head, LAST_SECOND, MAX_SUBJECTS, Parts, Said, Token, VERSION};
use crate::actor::{Actor, Ground, SubjectId};
use crate::crypto::{self, Prf};
use crate::error::{Denied, Misuse, Result, Unsupported};
use crate::keeper::VaultId;

// Under one key, no label is the beginning of another.
const HEAD: &[u8] = b"customer-vault/v1/token/head";
const HINTS: &[u8] = b"customer-vault/v1/token/hints";
const NARROW: &[u8] = b"customer-vault/v1/token/narrow";
const SUBJECT: &[u8] = b"customer-vault/v1/token/subject";

/// What a token is to grant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claims<'a> {
    /// Random.
    pub(crate) id: [u8; 16],
    pub(crate) purpose: u16,
    pub(crate) actor: &'a Actor,
    pub(crate) ground: &'a Ground,
    /// The first second in which it is accepted, since 1970, 0 or later.
    pub(crate) not_before: i64,
    /// The first second in which it is refused, after `not_before` and before the year 10000.
    pub(crate) expires: i64,
    /// `None` for every subject; otherwise 1 to 64.
    pub(crate) subjects: Option<&'a [SubjectId]>,
    /// `None` for every field.
    pub(crate) fields: Option<&'a [FieldRef]>,
}

/// Issues.
///
/// # Errors
///
/// [`Misuse::Period`] for moments outside what a token can state; [`Unsupported::Parameters`] for no or more than 64
/// subjects, no fields, or more than fits into 8 KiB; [`Misuse::Identifier`] for a record label that cannot be one.
pub(crate) fn issue(key: &Prf, vault: &VaultId, claims: &Claims<'_>) -> Result<Token> {
    if claims.not_before < 0 || claims.not_before >= claims.expires || claims.expires > LAST_SECOND {
        return Err(Misuse::Period.into());
    }
    let head = Head {
        id: claims.id,
        vault: *vault.bytes(),
        purpose: claims.purpose,
        actor: claims.actor.clone(),
        ground: claims.ground.clone(),
        not_before: claims.not_before,
        expires: claims.expires,
        subjects: claims.subjects.map(|ids| head_hints(key, &claims.id, ids)).transpose()?,
        fields: claims.fields.map(Fields::new).transpose()?,
    };
    let block = head.encode();
    Token::assemble(&[VERSION], &block, &head_mac(key, vault, &block))
}

/// Verifies that this vault issued the token, that its narrowings are its holders', and that none of them widens.
/// What it grants now, to whom, is for the caller to ask of the result.
///
/// # Errors
///
/// [`Denied::NotOurs`] for one that is forged, altered or another vault's; [`Denied::Wider`].
pub(crate) fn verify(key: &Prf, vault: &VaultId, token: &Token) -> Result<Verified> {
    let Said { head, cuts } = &*token.said;
    let mut parts = Parts::split(&token.bytes)?;
    let mut mac = head_mac(key, vault, parts.head);
    let mut checks = Vec::new();
    let mut names = cuts.iter().map(|cut| cut.subject);
    while let Some(block) = parts.next_block()? {
        let level = Prf::new(&mac);
        mac = next_mac(&level, block);
        if let Some(hint) = names.next().flatten() {
            checks.push(SubjectCheck { key: level, hint: Some(hint) });
        }
    }
    // In constant time, or a forger could find a MAC byte by byte.
    if !crypto::equal(mac.as_slice(), parts.mac) || head.vault != *vault.bytes() {
        return Err(Denied::NotOurs.into());
    }
    let Reach { not_before, expires, .. } = Reach::after(head, cuts)?;
    if head.subjects.is_some() {
        checks.push(SubjectCheck { key: hint_key(key, &head.id), hint: None });
    }
    let (id, purpose, said) = (head.id, head.purpose, Arc::clone(&token.said));
    Ok(Verified { key: 0, id, purpose, not_before, expires, said, checks })
}

/// A token that this vault issued. It may have expired, or have been revoked.
#[derive(Debug)]
pub(crate) struct Verified {
    /// The number of the key under which it was issued, for whoever knows it.
    pub(crate) key: u16,
    pub(crate) id: [u8; 16],
    pub(crate) purpose: u16,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    /// Seconds since 1970.
    pub(crate) expires: i64,
    /// Shared with the token: nothing of it is copied.
    said: Arc<Said>,
    checks: Vec<SubjectCheck>,
}

impl Verified {
    pub(crate) fn under(mut self, key: u16) -> Self {
        self.key = key;
        self
    }

    /// # Errors
    ///
    /// [`Denied::Expired`] from the second of the expiry on, [`Denied::NotYet`] before the first.
    pub(crate) fn check_time(&self, now_ms: i64) -> Result<(), Denied> {
        let now = now_ms.div_euclid(1000);
        if now >= self.expires {
            Err(Denied::Expired)
        } else if now < self.not_before {
            Err(Denied::NotYet)
        } else {
            Ok(())
        }
    }

    /// To whom it was issued, then those whom the narrowings name: revoking any of them ends it.
    pub(crate) fn actors(&self) -> impl Iterator<Item = &Actor> {
        let further = self.said.cuts.iter().filter_map(|cut| cut.actor.as_ref());
        std::iter::once(&self.said.head.actor).chain(further)
    }

    pub(crate) fn ground(&self) -> &Ground {
        &self.said.head.ground
    }

    /// `None` for every field. The last narrowing that names some has the fewest.
    pub(crate) fn fields(&self) -> Option<&Fields> {
        let cut = self.said.cuts.iter().rev().find_map(|cut| cut.fields.as_ref());
        cut.or(self.said.head.fields.as_ref())
    }

    /// Whether it reaches the subject: each level that names subjects has to name this one.
    pub(crate) fn reaches(&self, id: &SubjectId) -> bool {
        self.checks.iter().all(|SubjectCheck { key, hint }| {
            let ours = subject_hint(key, id);
            let of_head = || self.said.head.subjects.iter().flatten();
            // Without a short cut, so that the time does not tell which of the hints is the subject's.
            let named = |found: bool, stated: &[u8; 16]| found | crypto::equal(stated, &ours);
            hint.as_ref().map_or_else(|| of_head().fold(false, named), |hint| crypto::equal(hint, &ours))
        })
    }

    /// Whether it was narrowed to subjects.
    pub(crate) fn names_subjects(&self) -> bool {
        !self.checks.is_empty()
    }

    /// Whether it reaches the field.
    pub(crate) fn covers(&self, record: &str, number: u16) -> bool {
        self.fields().is_none_or(|fields| fields.covers(record, number))
    }
}

/// A level that names subjects, with the key that recomputes its hints; the key wipes itself.
#[derive(Debug)]
struct SubjectCheck {
    key: Prf,
    /// That of a narrowing; `None` for those of the head.
    hint: Option<[u8; 16]>,
}

pub(super) fn subject_hint(key: &Prf, id: &SubjectId) -> [u8; 16] {
    key.tag(&[SUBJECT, id.bytes()])
}

pub(super) fn next_mac(key: &Prf, block: &[u8]) -> Zeroizing<[u8; 32]> {
    key.mac(&[NARROW, block])
}

fn head_mac(key: &Prf, vault: &VaultId, head: &[u8]) -> Zeroizing<[u8; 32]> {
    key.mac(&[HEAD, vault.bytes(), head])
}

fn hint_key(key: &Prf, token: &[u8; 16]) -> Prf {
    Prf::new(&key.mac(&[HINTS, token]))
}

/// Sorted, so that their order does not tell the order in which the subjects were given.
fn head_hints(key: &Prf, token: &[u8; 16], ids: &[SubjectId]) -> Result<Vec<[u8; 16]>> {
    if !(1..=MAX_SUBJECTS).contains(&ids.len()) {
        return Err(Unsupported::Parameters.into());
    }
    let key = hint_key(key, token);
    let mut hints: Vec<_> = ids.iter().map(|id| subject_hint(&key, id)).collect();
    hints.sort_unstable();
    hints.dedup();
    Ok(hints)
}
