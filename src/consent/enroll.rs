//! Enrolment: where a subject gets its keys.

use super::Consent;
use crate::actor::{Actor, Ground, SubjectId};
use crate::change::{Change, Changed, Item, Work, in_parts};
use crate::entry::{Entry, Generation};
use crate::error::{Erased, Error, Malformed, Misuse, Result};
use crate::journal::Event;
use crate::key::Tag;
use crate::log::Action;
use crate::vault::{Inner, Subject, Vault};

impl Vault {
    /// Enrolls a subject: makes its keys for all registered purposes, and records the consents that were given.
    /// Contract, legal obligation and legitimate interest stand from now on.
    ///
    /// # Errors
    ///
    /// [`Misuse::AlreadyEnrolled`]; [`Erased::Forgotten`] for a subject that was forgotten: see
    /// [`enroll_again`](Self::enroll_again); [`Misuse::UnknownPurpose`] or [`Misuse::NotConsent`] for a consent to a
    /// purpose that is not registered or whose basis is another.
    pub async fn enroll(
        &self,
        id: &SubjectId,
        consents: impl IntoIterator<Item = Consent>,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<()> {
        let person = self.0.newcomer(id, consents)?;
        self.0.enroll_one(&person, actor, ground, false).await
    }

    /// Enrolls any number of people, up to a thousand at a time: each of these chunks is one read and one commit, with one
    /// entry in the log, and two are under way at once. What became of each stands at its place, and one that is refused
    /// keeps no other from being enrolled.
    ///
    /// Whoever comes in between makes a chunk smaller and lets it be read again. A crash leaves whole chunks: enrolling all
    /// again gives [`Misuse::AlreadyEnrolled`] for those that were done.
    ///
    /// # Errors
    ///
    /// At its place, what [`enroll`](Self::enroll) says of one person. After a chunk that could not be read or written
    /// nothing more is begun, and everyone left has its error: only what is
    /// [`StoreError::Unknown`](crate::error::StoreError::Unknown) may have been done.
    pub async fn enroll_many<C: AsRef<[Consent]> + Sync>(
        &self,
        people: &[(SubjectId, C)],
        actor: &Actor,
        ground: &Ground,
    ) -> Vec<Result<()>> {
        in_parts(people.len(), &Enrolling { inner: &self.0, people, actor, ground }).await
    }

    /// Enrolls a forgotten subject anew. It is a new generation with keys of its own: what was sealed before stays dead,
    /// and what the law keeps stays in the old one. A forget that could still be undone is final with this.
    ///
    /// # Errors
    ///
    /// [`Misuse::AlreadyEnrolled`] where it was not forgotten; [`Error::NotEnrolled`] where it was never there.
    pub async fn enroll_again(
        &self,
        id: &SubjectId,
        consents: impl IntoIterator<Item = Consent>,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<()> {
        let person = self.0.newcomer(id, consents)?;
        self.0.enroll_one(&person, actor, ground, true).await
    }
}

/// Who shall be enrolled.
#[derive(Debug)]
struct Newcomer {
    id: SubjectId,
    /// Where it is to lie.
    place: Tag,
    consents: Vec<Consent>,
}

impl Item for Newcomer {
    type Name = SubjectId;

    fn name(&self) -> SubjectId {
        self.id.clone()
    }

    fn place(&self) -> Tag {
        self.place
    }
}

/// Many who shall be.
struct Enrolling<'a, C> {
    inner: &'a Inner,
    people: &'a [(SubjectId, C)],
    actor: &'a Actor,
    ground: &'a Ground,
}

impl<C: AsRef<[Consent]> + Sync> Work for Enrolling<'_, C> {
    type Item = Newcomer;
    type Out = Changed<()>;

    fn item(&self, place: usize) -> Result<Newcomer> {
        let (id, consents) = self.people.get(place).ok_or(Malformed::Length)?;
        self.inner.newcomer(id, consents.as_ref().iter().cloned())
    }

    async fn part(&self, part: &[Newcomer]) -> Result<Option<Vec<Result<Changed<()>>>>> {
        let ids: Vec<&SubjectId> = part.iter().map(|person| &person.id).collect();
        let edit = |place: usize, subject: &Subject, entry: Option<Entry>| {
            let person = part.get(place).ok_or(Malformed::Length)?;
            self.inner.enrolling(&subject.tag, entry, &person.consents, self.actor, self.ground, false)
        };
        self.inner.try_change(&ids, &[], edit).await
    }
}

impl Inner {
    fn newcomer(&self, id: &SubjectId, consents: impl IntoIterator<Item = Consent>) -> Result<Newcomer> {
        let place = self.ring().places(id)?.newest;
        Ok(Newcomer { id: id.clone(), place, consents: self.checked(consents)? })
    }

    async fn enroll_one(&self, person: &Newcomer, actor: &Actor, ground: &Ground, again: bool) -> Result<()> {
        let Newcomer { id, consents, .. } = person;
        let enrolling =
            |subject: &Subject, entry| self.enrolling(&subject.tag, entry, consents, actor, ground, again);
        self.change(id, &[], enrolling).await?;
        Ok(())
    }

    /// What an enrolment makes of an entry.
    pub(crate) fn enrolling(
        &self,
        tag: &Tag,
        entry: Option<Entry>,
        consents: &[Consent],
        actor: &Actor,
        ground: &Ground,
        again: bool,
    ) -> Result<Change<()>> {
        // After reading, which takes in what other processes have frozen or let go on.
        self.refuse_if_frozen()?;
        let known = entry.is_some();
        let mut entry = entry.unwrap_or_default();
        let number = match (known, again, entry.newest()) {
            // An entry without an enrolment is what a replay leaves of somebody who was enrolled after the copy.
            (false, false, _) | (true, _, None) => 1,
            (true, true, Some(newest)) if newest.forgotten.is_some() => {
                newest.number.checked_add(1).ok_or(Misuse::TooLarge)?
            }
            (true, false, Some(newest)) if newest.forgotten.is_some() => {
                return Err(Erased::Forgotten.into());
            }
            (true, ..) => return Err(Misuse::AlreadyEnrolled.into()),
            (false, true, _) => return Err(Error::NotEnrolled),
        };
        // What the journal says of a lost enrolment ends with this one.
        let again = again || known;
        if again {
            // What was to be destroyed after the grace period is destroyed with the next shred.
            let today = self.trusted_today();
            for generation in &mut entry.meta.generations {
                if let Some(forgotten) = &mut generation.forgotten {
                    forgotten.due = forgotten.due.min(today);
                }
            }
            entry.meta.state = entry.meta.state.saturating_add(1);
        }
        Generation::fresh(number, self.clock.wall(), &self.purposes(), &mut entry)?;
        if let Some(generation) = entry.meta.generations.last_mut() {
            for consent in consents {
                generation.purposes.entry(consent.purpose).or_default().consent =
                    Some(consent.evidence.clone());
            }
        }
        let action = if again { Action::EnrollAgain } else { Action::Enroll };
        let log = self.about(self.entry_by(action, actor, ground)?, &entry);
        let (tag, state) = (*tag, entry.meta.state);
        let change = Change::new(entry, log, ());
        Ok(if again { change.event(Event::Again { tag, state, generation: number }) } else { change })
    }
}
