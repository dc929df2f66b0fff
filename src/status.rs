//! What stands of a subject: enrolment, consents, purposes, holds. No plaintext, and still about a person: it is logged.

use crate::actor::{Actor, Ground, SubjectId};
use crate::clock::Day;
use crate::consent::Evidence;
use crate::error::{Error, Result};
use crate::log::Action;
use crate::purpose::PurposeId;
use crate::vault::Vault;

/// What stands of a subject, in its newest enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// When it was enrolled, in milliseconds since 1970.
    pub enrolled_ms: i64,
    /// How often it was enrolled, this time included.
    pub enrolments: usize,
    /// Where it is forgotten: the first day on which a shred destroys its keys, or has destroyed them.
    pub forgotten: Option<Day>,
    /// Whether a legal hold stands.
    pub held: bool,
    /// Every registered purpose.
    pub purposes: Vec<PurposeStatus>,
}

/// What stands of one purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurposeStatus {
    /// Which.
    pub purpose: PurposeId,
    /// Whether it may be used today.
    pub stands: bool,
    /// The consent on record.
    pub consent: Option<Evidence>,
    /// Where it was withdrawn: the first day on which a shred destroys its key, or has destroyed it.
    pub withdrawn: Option<Day>,
    /// Where it outlives a forget: its last day.
    pub kept_until: Option<Day>,
}

impl Vault {
    /// Says what stands of a subject.
    ///
    /// # Errors
    ///
    /// [`Error::NotEnrolled`]; where the log cannot be written.
    pub async fn status(&self, id: &SubjectId, actor: &Actor, ground: &Ground) -> Result<Status> {
        let inner = &self.0;
        let subject = inner.read_subject(id, &[]).await?;
        inner.log(inner.about_subject(&subject, inner.entry_by(Action::Status, actor, ground)?)?).await?;
        let meta = subject.meta.as_ref().ok_or(Error::NotEnrolled)?;
        let newest = meta.generations.last().ok_or(Error::NotEnrolled)?;
        let stands = inner.standing(meta, newest.number, inner.today());
        let purpose = |number: u16| {
            let known = newest.purposes.get(&number);
            PurposeStatus {
                purpose: PurposeId(number),
                stands: stands.contains(&number) && inner.permits(&subject.tag, number, inner.today()),
                consent: known.and_then(|standing| standing.consent.clone()),
                withdrawn: known.and_then(|standing| standing.withdrawn),
                kept_until: known.and_then(|standing| standing.until),
            }
        };
        Ok(Status {
            enrolled_ms: newest.enrolled_ms,
            enrolments: meta.generations.len(),
            forgotten: newest.forgotten.as_ref().map(|forgotten| forgotten.due),
            held: meta.held.is_some(),
            purposes: inner.purposes().into_iter().map(purpose).collect(),
        })
    }
}
