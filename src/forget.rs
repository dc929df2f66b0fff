//! Forgetting a subject, withdrawing a purpose, and undoing both while there is time.
//!
//! A forget *fences* first: from when it returns nothing of the subject opens or seals in any process, except what
//! stays. The keys are destroyed by the next [`shred`](Vault::shred) after the grace period.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::actor::{Actor, Ground, SubjectId};
use crate::change::Change;
use crate::clock::Day;
use crate::crypto;
use crate::entry::{Entry, Forgotten};
use crate::error::{Erased, Error, Misuse, Result};
use crate::journal::Event;
use crate::key::Tag;
use crate::log::Action;
use crate::purpose::{Basis, Purpose, PurposeId};
use crate::vault::{Inner, Subject, Vault};

const COMMITMENT: &[u8] = b"customer-vault/v1/requester";

/// A request to forget somebody. Its `Debug` does not show who asked.
#[derive(Clone)]
pub struct Forget {
    actor: Actor,
    approver: Option<Actor>,
    ground: Ground,
    requester: Zeroizing<String>,
    keeping: BTreeMap<u16, Day>,
    at_once: bool,
}

impl Forget {
    /// Carried out by an actor on a ground, such as `person-asked`.
    #[must_use]
    pub fn by(actor: &Actor, ground: &Ground) -> Self {
        Forget {
            actor: actor.clone(),
            approver: None,
            ground: ground.clone(),
            requester: Zeroizing::default(),
            keeping: BTreeMap::new(),
            at_once: false,
        }
    }

    /// Who else approved it. It stands in the certificate.
    #[must_use]
    pub fn approved_by(mut self, actor: &Actor) -> Self {
        self.approver = Some(actor.clone());
        self
    }

    /// Who asked, in the shop's words. It is not stored: the certificate holds a commitment to it, whose opening
    /// [`ForgetReceipt::opening`] is for the person alone.
    #[must_use]
    pub fn requested_by(mut self, who: &str) -> Self {
        self.requester = Zeroizing::new(who.to_owned());
        self
    }

    /// Keeps purpose `P` to the end of a day: an open order must still ship. Purposes whose basis is a legal obligation
    /// stay without being named, until the longest period ever declared for them is over.
    #[must_use]
    pub fn keeping<P: Purpose>(mut self, until: Day) -> Self {
        self.keeping.insert(P::NUMBER, until);
        self
    }

    /// Without the grace period: the next shred destroys the keys. It cannot be undone then.
    #[must_use]
    pub fn without_grace(mut self) -> Self {
        self.at_once = true;
        self
    }
}

impl fmt::Debug for Forget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forget")
            .field("actor", &self.actor)
            .field("ground", &self.ground)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ForgetReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { witnessed, due, stays, tickets_until_ms, .. } = self;
        f.debug_struct("ForgetReceipt")
            .field("witnessed", witnessed)
            .field("due", due)
            .field("stays", stays)
            .field("tickets_until_ms", tickets_until_ms)
            .finish_non_exhaustive()
    }
}

/// What a forget has reached: *fenced*. Its `Debug` shows neither reference nor opening.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForgetReceipt {
    /// Names the certificate to come. Hand it to the person.
    pub reference: [u8; 16],
    /// Opens the commitment in the certificate: SHA-256 of a label, this, and who asked. Hand it to the person, and keep
    /// no copy.
    pub opening: [u8; 32],
    /// Whether the witness has it too. Where not, it could not be reached: the next call or open completes it, and until
    /// then a restored store could undo the forget.
    pub witnessed: bool,
    /// The first day on which a shred destroys the keys.
    pub due: Day,
    /// What stays, restricted to its own purpose, and until when.
    pub stays: Vec<(PurposeId, Day)>,
    /// Where tickets that reach the subject are still alive: the latest moment at which one ends, in milliseconds since
    /// 1970. Until then, and for the minute by which a reader's clock may be behind, their recipients' processes may read:
    /// this vault cannot reach them, and the subject is *fenced* there only after it. What a recipient has kept is beyond
    /// any destruction.
    pub tickets_until_ms: Option<i64>,
}

/// What a withdrawal has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WithdrawReceipt {
    /// Whether the witness has it too. Where not, it could not be reached: the next call or open completes it.
    pub witnessed: bool,
    /// The first day on which a shred destroys the key.
    pub due: Day,
    /// Where tickets for the purpose that reach the subject are still alive: the latest moment at which one ends, in
    /// milliseconds since 1970. Until then, and for the minute by which a reader's clock may be behind, their recipients'
    /// processes may read.
    pub tickets_until_ms: Option<i64>,
}

/// What names a forget and opens its commitment: the same however often it is decided again.
pub(crate) struct Fencing {
    reference: [u8; 16],
    opening: [u8; 32],
}

impl Fencing {
    pub(crate) fn new() -> Result<Self> {
        Ok(Fencing { reference: crypto::random()?, opening: crypto::random()? })
    }
}

impl Vault {
    /// Forgets a subject. When it returns, nothing of the subject opens or seals in any process, except what stays, and
    /// by tickets until the end that the receipt states.
    ///
    /// # Errors
    ///
    /// [`Error::NotEnrolled`]; [`Erased::Forgotten`] where it was forgotten before; [`Misuse::UnknownPurpose`] and
    /// [`Misuse::Day`] for what shall be kept; what the store says: then it may have happened all the same, where the
    /// outcome of a commit could not be found out, and a second call says [`Erased::Forgotten`].
    pub async fn forget(&self, id: &SubjectId, request: Forget) -> Result<ForgetReceipt> {
        let receipt = self.0.fence(id, &request).await?;
        self.0.wait_out_bound().await;
        Ok(receipt)
    }

    /// Forgets many subjects on one request, and waits for other processes only once. Each has its own result and its
    /// own certificate.
    pub async fn forget_many(&self, ids: &[SubjectId], request: Forget) -> Vec<Result<ForgetReceipt>> {
        let mut receipts = Vec::with_capacity(ids.len());
        for id in ids {
            receipts.push(self.0.fence(id, &request).await);
        }
        self.0.wait_out_bound().await;
        receipts
    }

    /// Takes a forget back while the grace period lasts.
    ///
    /// # Errors
    ///
    /// [`Misuse::NothingToUndo`]; [`Erased::GraceOver`]; [`Error::NotEnrolled`].
    pub async fn undo_forget(&self, id: &SubjectId, actor: &Actor, ground: &Ground) -> Result<()> {
        let inner = &self.0;
        inner
            .change(id, &[], |subject, entry| {
                let mut entry = entry.ok_or(Error::NotEnrolled)?;
                let log = inner.about(inner.entry_by(Action::UndoForget, actor, ground)?, &entry);
                let newest = entry.meta.generations.last_mut().ok_or(Error::NotEnrolled)?;
                let forgotten = newest.forgotten.as_ref().ok_or(Misuse::NothingToUndo)?;
                if forgotten.shredded || forgotten.due <= inner.trusted_today() {
                    return Err(Erased::GraceOver.into());
                }
                newest.forgotten = None;
                for standing in newest.purposes.values_mut() {
                    standing.until = None;
                }
                entry.meta.state = entry.meta.state.saturating_add(1);
                let (tag, state) = (subject.tag, entry.meta.state);
                Ok(Change::new(entry, log, ()).event(Event::Undone { tag, state }))
            })
            .await?;
        Ok(())
    }

    /// Withdraws consent to purpose `P`, or records an objection where its basis is another than a legal obligation.
    /// The purpose stops at once; its key is destroyed by the next shred after the grace period. Within it, a new
    /// consent lets the purpose stand again. The receipt says until when tickets for it live.
    ///
    /// # Errors
    ///
    /// [`Error::NotEnrolled`], [`Erased::Forgotten`], [`Erased::Purpose`] where it is over already,
    /// [`Misuse::UnknownPurpose`], [`Misuse::NotConsent`] for a legal obligation: nobody can withdraw from the law.
    pub async fn withdraw<P: Purpose>(
        &self,
        id: &SubjectId,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<WithdrawReceipt> {
        let inner = &self.0;
        let withdrawing =
            |subject: &Subject, entry| inner.withdrawing(&subject.tag, entry, P::NUMBER, actor, ground);
        let changed = inner.change(id, &[], withdrawing).await?;
        inner.wait_out_bound().await;
        Ok(WithdrawReceipt { witnessed: changed.witnessed, ..changed.out })
    }
}

impl Inner {
    /// What a withdrawal makes of an entry. Its receipt says that no witness has it yet.
    pub(crate) fn withdrawing(
        &self,
        tag: &Tag,
        entry: Option<Entry>,
        purpose: u16,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Change<WithdrawReceipt>> {
        match self.basis(purpose) {
            Some(Basis::LegalObligation) => return Err(Misuse::NotConsent.into()),
            Some(_) => {}
            None => return Err(Misuse::UnknownPurpose.into()),
        }
        let mut entry = entry.ok_or(Error::NotEnrolled)?;
        let log = self.entry_by(Action::Withdraw, actor, ground)?.for_purpose(purpose);
        let log = self.about(log, &entry);
        let due = self.trusted_today().plus(self.settings.grace_days);
        let tickets_until_ms = entry.tickets_until(self.clock.wall(), |given| given == purpose);
        let newest = entry.meta.generations.last_mut().ok_or(Error::NotEnrolled)?;
        if newest.forgotten.is_some() {
            return Err(Erased::Forgotten.into());
        }
        let standing = newest.purposes.entry(purpose).or_default();
        if standing.withdrawn.is_some() {
            return Err(Erased::Purpose.into());
        }
        standing.withdrawn = Some(due);
        entry.withdraw_before(purpose, due);
        entry.meta.state = entry.meta.state.saturating_add(1);
        let state = entry.meta.state;
        let receipt = WithdrawReceipt { witnessed: false, due, tickets_until_ms };
        Ok(Change::new(entry, log, receipt).event(Event::Withdrew { tag: *tag, state, purpose, due }))
    }

    async fn fence(&self, id: &SubjectId, request: &Forget) -> Result<ForgetReceipt> {
        let fencing = Fencing::new()?;
        let forgetting = |subject: &Subject, entry| self.forgetting(&subject.tag, entry, request, &fencing);
        let changed = self.change(id, &[], forgetting).await?;
        Ok(ForgetReceipt { witnessed: changed.witnessed, ..changed.out })
    }

    /// What a forget makes of an entry. Its receipt says that no witness has it yet.
    pub(crate) fn forgetting(
        &self,
        tag: &Tag,
        entry: Option<Entry>,
        request: &Forget,
        fencing: &Fencing,
    ) -> Result<Change<ForgetReceipt>> {
        let Fencing { reference, opening } = *fencing;
        let commitment = crypto::hash(&[COMMITMENT, &opening, request.requester.as_bytes()]);
        let today = self.trusted_today();
        for (purpose, until) in &request.keeping {
            self.basis(*purpose).ok_or(Misuse::UnknownPurpose)?;
            if *until < today {
                return Err(Misuse::Day.into());
            }
        }
        let due = if request.at_once { today } else { today.plus(self.settings.grace_days) };
        let mut entry = entry.ok_or(Error::NotEnrolled)?;
        let keeps = self.keeps(&entry, request, today);
        // What an earlier forget has kept stays as long as it said: in the enrolment of then.
        let mut stays: BTreeMap<u16, Day> = keeps.iter().copied().collect();
        for (purpose, until) in entry.kept_before().filter(|(_, until)| *until >= today) {
            let kept = stays.entry(purpose).or_insert(until);
            *kept = until.max(*kept);
        }
        let tickets_until_ms = entry.tickets_until(self.clock.wall(), |_| true);
        let newest = entry.meta.generations.last_mut().ok_or(Error::NotEnrolled)?;
        if newest.forgotten.is_some() {
            return Err(Erased::Forgotten.into());
        }
        let at_ms = self.clock.wall();
        newest.forgotten = Some(Forgotten {
            at_ms,
            due,
            shredded: false,
            reference,
            commitment,
            actor: request.actor.to_string(),
            approver: request.approver.as_ref().map_or_else(String::new, ToString::to_string),
            ground: request.ground.code().to_owned(),
        });
        for (purpose, until) in &keeps {
            newest.purposes.entry(*purpose).or_default().until = Some(*until);
        }
        entry.meta.state = entry.meta.state.saturating_add(1);
        let state = entry.meta.state;
        // A fresh reference instead of the pseudonym: after the shred it leads to nobody.
        let log = self.entry_by(Action::Forget, &request.actor, &request.ground)?.with_reference(reference);
        let keeps: Vec<(u16, Day)> = stays.into_iter().collect();
        let stays = keeps.iter().map(|(purpose, until)| (PurposeId(*purpose), *until)).collect();
        // The day alone: the log has the moment beside the reference.
        let at_ms = Day::of(at_ms).start_ms();
        let event = Event::Forgot { tag: *tag, state, at_ms, due, keeps };
        let receipt = ForgetReceipt { reference, opening, witnessed: false, due, stays, tickets_until_ms };
        Ok(Change::new(entry, log, receipt).event(event))
    }

    /// What stays: what was asked for, and what the law keeps. Only where there is a key, and nothing was withdrawn.
    fn keeps(&self, entry: &Entry, request: &Forget, today: Day) -> Vec<(u16, Day)> {
        let mut keeps = request.keeping.clone();
        for purpose in self.purposes() {
            if self.basis(purpose) == Some(Basis::LegalObligation) {
                let until = today.plus(self.longest_of(purpose));
                let kept = keeps.entry(purpose).or_insert(until);
                *kept = until.max(*kept);
            }
        }
        let Some(newest) = entry.newest() else { return Vec::new() };
        let stands = self.standing(&entry.meta, newest.number, today);
        keeps.into_iter().filter(|(purpose, _)| stands.contains(purpose)).collect()
    }
}
