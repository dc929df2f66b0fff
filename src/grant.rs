//! Grants: the proof in memory that a token was verified now, with the keys that it may use and no others (invariant 4).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crate::cell::Cell;
use crate::clock::Day;
use crate::crypto::aead::{Cipher, Suite};
use crate::error::{Absent, Denied, Erased, Error, Halted, Result};
use crate::keeper::VaultId;
use crate::key::{Purpose as PurposeStage, Secret, Shelf, Tag};
use crate::purpose::{BuiltIn, Purpose};
use crate::token::Verified;
use crate::vault::Inner;

/// The most ciphers that a grant keeps ready.
const MAX_CIPHERS: usize = 4096;

/// No number of the journal: a fresh grant or sealer is checked against its whole state at first use.
pub(crate) const UNCHECKED: u64 = u64::MAX;

/// A moment by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) wall: i64,
    pub(crate) monotonic: Duration,
}

impl Now {
    pub(crate) fn day(self) -> Day {
        Day::of(self.wall)
    }

    /// How much time has passed, by the clock that says more: a wall clock that was set back and a process that was
    /// stopped both show.
    pub(crate) fn since(self, earlier: Now) -> Duration {
        let wall = u64::try_from(self.wall.saturating_sub(earlier.wall)).unwrap_or(0);
        self.monotonic.saturating_sub(earlier.monotonic).max(Duration::from_millis(wall))
    }
}

/// Freshness of a grant or a sealer: what it was checked against, and since when it may be believed.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) vault: Arc<Inner>,
    pub(crate) tag: Tag,
    /// Before the read was sent.
    pub(crate) since: Now,
    /// The subject's era when it was read.
    pub(crate) era: u64,
    /// The journal's number up to which nothing was found against it.
    pub(crate) checked: AtomicU64,
}

impl Fresh {
    /// Checks freeze, lease and the subject's fence; `refuse` looks at the journal's state for what else would end it.
    pub(crate) fn check(
        &self,
        now: Now,
        refuse: impl FnOnce(&crate::journal::State, Option<&crate::journal::Fence>) -> Result<()>,
    ) -> Result<()> {
        if !self.vault.leased(self.since, now) {
            return Err(Error::Stale);
        }
        let known = self.vault.journal.known();
        if known == self.checked.load(Ordering::Acquire) {
            return Ok(());
        }
        self.vault.journal.with(|state| {
            if state.frozen {
                return Err(Error::Halted(Halted::Frozen));
            }
            refuse(state, state.fences.get(&self.tag))
        })?;
        self.checked.store(known, Ordering::Release);
        Ok(())
    }
}

/// A shelf that a legal hold has kept, by generation, purpose and day.
pub(crate) type HeldShelves = HashMap<(u16, u16, Day), Secret<Shelf>>;

/// The shelf that a cipher is of: suite, generation, purpose and day.
pub(crate) type ShelfName = (Suite, u16, u16, Day);

/// What a grant opens with.
#[derive(Debug)]
pub(crate) enum Source {
    Vault(Arc<Core>),
    #[cfg(feature = "tickets")]
    Ticket(Arc<crate::ticket::Shelves>),
}

/// Ciphers that a grant keeps ready. Most grants open one day's cells: its cipher is found without a lock.
#[derive(Debug, Default)]
pub(crate) struct Ciphers {
    first: OnceLock<(ShelfName, Arc<Cipher>)>,
    more: RwLock<HashMap<ShelfName, Arc<Cipher>>>,
}

impl Ciphers {
    pub(crate) fn with<T>(
        &self,
        name: ShelfName,
        make: impl FnOnce() -> Result<Cipher>,
        work: impl FnOnce(&Cipher) -> T,
    ) -> Result<T> {
        if let Some((known, cipher)) = self.first.get()
            && *known == name
        {
            return Ok(work(cipher));
        }
        let known = self.more.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        if let Some(cipher) = known {
            return Ok(work(&cipher));
        }
        let cipher = Arc::new(make()?);
        if self.first.set((name, Arc::clone(&cipher))).is_err() {
            let mut more = self.more.write().unwrap_or_else(PoisonError::into_inner);
            if more.len() >= MAX_CIPHERS {
                more.clear();
            }
            more.insert(name, Arc::clone(&cipher));
        }
        Ok(work(&cipher))
    }
}

/// What a grant is made of.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) fresh: Fresh,
    pub(crate) purpose: u16,
    /// The version of the purpose's notice when it was taken: a consent that counted then may not count now.
    pub(crate) notice: u32,
    pub(crate) built_in: Option<BuiltIn>,
    pub(crate) token: Arc<Verified>,
    /// When the token stops, by the monotonic clock.
    pub(crate) ends: Duration,
    pub(crate) serials: BTreeMap<u16, [u8; 16]>,
    /// By generation and purpose.
    pub(crate) keys: BTreeMap<(u16, u16), Secret<PurposeStage>>,
    /// The last day of those that are kept after a forget: no event of the journal says that it is over.
    pub(crate) until: BTreeMap<(u16, u16), Day>,
    pub(crate) held: HeldShelves,
    /// Keys by generation and purpose that are not the first of their enrolment.
    pub(crate) remade: BTreeSet<(u16, u16)>,
    pub(crate) ciphers: Ciphers,
    /// The day on which it was last used.
    pub(crate) today: AtomicU16,
}

/// Proof that a token for purpose `P` was verified for one subject, with that purpose's keys. It comes from
/// [`Vault::unlock`](crate::Vault::unlock) and stops at the token's expiry, at the end of its lease, and when the subject
/// is forgotten. With the feature `tickets` it comes from a ticket too, which such a token was given for, and stops at the
/// ticket's end.
pub struct Grant<P> {
    source: Source,
    purpose: PhantomData<fn() -> P>,
}

impl<P> fmt::Debug for Grant<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let purpose = match &self.source {
            Source::Vault(core) => core.purpose,
            #[cfg(feature = "tickets")]
            Source::Ticket(shelves) => shelves.purpose(),
        };
        f.debug_struct("Grant").field("purpose", &purpose).finish_non_exhaustive()
    }
}

impl<P: Purpose> Grant<P> {
    pub(crate) fn new(source: Source) -> Self {
        Grant { source, purpose: PhantomData }
    }

    pub(crate) fn vault_id(&self) -> &VaultId {
        match &self.source {
            Source::Vault(core) => &core.fresh.vault.id,
            #[cfg(feature = "tickets")]
            Source::Ticket(shelves) => shelves.vault(),
        }
    }

    /// Whether it was taken for this subject of this vault. What a ticket gives knows no tags: it updates nothing.
    pub(crate) fn is_of(&self, fresh: &Fresh) -> bool {
        match &self.source {
            Source::Vault(core) => core.fresh.tag == fresh.tag && core.fresh.vault.id == fresh.vault.id,
            #[cfg(feature = "tickets")]
            Source::Ticket(_) => false,
        }
    }

    /// Whether the token reaches a field.
    pub(crate) fn covers(&self, record: &str, field: u16) -> bool {
        match &self.source {
            Source::Vault(core) => core.token.covers(record, field),
            #[cfg(feature = "tickets")]
            Source::Ticket(shelves) => shelves.covers(record, field),
        }
    }

    /// For the log, where there is one.
    pub(crate) fn note_cause(&self) {
        match &self.source {
            Source::Vault(core) => core.fresh.vault.note_cause(),
            #[cfg(feature = "tickets")]
            Source::Ticket(_) => {}
        }
    }

    /// Whether it may still be used, now. Says which day it is.
    pub(crate) fn check(&self) -> Result<Day> {
        match &self.source {
            Source::Vault(core) => {
                let now = core.fresh.vault.now();
                core.check(now)?;
                Ok(core.fresh.vault.day(now))
            }
            #[cfg(feature = "tickets")]
            Source::Ticket(shelves) => shelves.check(),
        }
    }

    /// Does `work`, and gives out what it has made only where the grant may be used after it, on the day that `work` was
    /// told. What comes late is dropped, and why there is nothing is not told late.
    ///
    /// It is not checked before: a process may be stopped right after that, so that nothing would be promised by it.
    pub(crate) fn while_fresh<T>(&self, mut work: impl FnMut(Day) -> Result<T>) -> Result<T> {
        let mut today = match &self.source {
            Source::Vault(core) => {
                // No clock is asked: what memory knows against it is enough to show nothing to anybody.
                if core.fresh.vault.journal.known() != core.fresh.checked.load(Ordering::Acquire) {
                    self.check()?;
                }
                Day(core.today.load(Ordering::Relaxed))
            }
            #[cfg(feature = "tickets")]
            Source::Ticket(shelves) => shelves.check()?,
        };
        loop {
            let made = work(today);
            let now = self.check()?;
            if now == today {
                return made;
            }
            today = now;
            match &self.source {
                Source::Vault(core) => core.today.store(today.0, Ordering::Relaxed),
                #[cfg(feature = "tickets")]
                Source::Ticket(_) => {}
            }
        }
    }

    /// Opens a cell by `open`, which gets the serial of its enrolment, the purpose of a lockbox, and the cipher; or says
    /// why it stays closed.
    pub(crate) fn open<T>(
        &self,
        cell: &Cell<'_>,
        today: Day,
        open: impl FnMut(&[u8; 16], u16, &Cipher) -> Result<T>,
    ) -> Result<Result<T, Absent>> {
        match &self.source {
            Source::Vault(core) => core.open(cell, today, open),
            #[cfg(feature = "tickets")]
            Source::Ticket(shelves) => shelves.open(cell, today, open),
        }
    }
}

impl Core {
    fn check(&self, now: Now) -> Result<()> {
        self.token.check_time(self.fresh.vault.token_time(now.wall))?;
        // A wall clock that was set back gives no more time (ABUSE 16).
        if now.monotonic >= self.ends {
            return Err(Denied::Expired.into());
        }
        self.fresh.check(now, |state, fence| {
            let actors: Vec<(u8, &str)> =
                self.token.actors().map(|a| (a.kind().number(), a.name())).collect();
            if state.revoked(&self.token.id, &actors, self.purpose, self.token.key) {
                return Err(Denied::Revoked.into());
            }
            if state.notice(self.purpose) != self.notice {
                return Err(Error::Stale);
            }
            let Some(fence) = fence else { return Ok(()) };
            match self.built_in {
                None if !fence.permits(self.purpose, self.fresh.vault.day(now)) => {
                    Err(if fence.forgotten.is_some() { Erased::Forgotten } else { Erased::Purpose }.into())
                }
                Some(BuiltIn::SubjectAccess) if fence.forgotten.is_some() => Err(Erased::Forgotten.into()),
                Some(BuiltIn::LegalHold) if !fence.held => Err(Erased::Purpose.into()),
                _ if fence.era != self.fresh.era => Err(Error::Stale),
                _ => Ok(()),
            }
        })
    }

    fn open<T>(
        &self,
        cell: &Cell<'_>,
        today: Day,
        mut open: impl FnMut(&[u8; 16], u16, &Cipher) -> Result<T>,
    ) -> Result<Result<T, Absent>> {
        let mut lockbox = |purpose, day| {
            let open = |serial: &[u8; 16], cipher: &Cipher| open(serial, purpose, cipher);
            match self.shelf((cell.suite, cell.generation, purpose, day), today, open) {
                // Sealed under a key that a withdrawal has destroyed.
                Err(Error::DoesNotOpen) if self.remade.contains(&(cell.generation, purpose)) => {
                    Ok(Err(Absent::Withdrawn))
                }
                opened => opened,
            }
        };
        if self.built_in.is_none() {
            let Some(day) = cell.day_for(self.purpose) else { return Ok(Err(Absent::NotForThisPurpose)) };
            return lockbox(self.purpose, day);
        }
        // The two built-in purposes take whichever lockbox they have keys for: all give the same content key.
        let mut refused = Absent::Withdrawn;
        for (purpose, day) in cell.lockboxes() {
            match lockbox(purpose, day)? {
                Err(why) => refused = why,
                opened => return Ok(opened),
            }
        }
        Ok(Err(refused))
    }

    /// Opens by a shelf's cipher, or says why it stays closed.
    fn shelf<T>(
        &self,
        name: ShelfName,
        today: Day,
        open: impl FnOnce(&[u8; 16], &Cipher) -> Result<T>,
    ) -> Result<Result<T, Absent>> {
        let (suite, generation, purpose, day) = name;
        let Some(serial) = self.serials.get(&generation) else { return Ok(Err(Absent::Withdrawn)) };
        let over = day < today || self.fresh.vault.journal.over(day);
        if self.until.get(&(generation, purpose)).is_some_and(|until| *until < today) {
            return Ok(Err(Absent::Withdrawn));
        }
        if let Some(shelf) = self.held.get(&(generation, purpose, day)) {
            return open(serial, &shelf.wrap(suite)).map(Ok);
        }
        let tag = &self.fresh.tag;
        let withdrawn = |state: &crate::journal::State| {
            state.fences.get(tag).is_some_and(|fence| !fence.permits(purpose, today))
        };
        if self.built_in == Some(BuiltIn::SubjectAccess) && self.fresh.vault.journal.with(withdrawn) {
            return Ok(Err(Absent::Withdrawn));
        }
        let Some(key) = self.keys.get(&(generation, purpose)) else {
            return Ok(Err(Absent::Withdrawn));
        };
        if over {
            return Ok(Err(Absent::Expired));
        }
        let make = || {
            // A day that this process does not know was made by another one since the calendar was read.
            let Some(day_key) = self.fresh.vault.calendar.day(day) else {
                self.fresh.vault.calendar.miss();
                return Err(Error::Stale);
            };
            Ok(Secret::combine(&day_key, key).wrap(suite))
        };
        self.ciphers.with(name, make, |cipher| open(serial, cipher))?.map(Ok)
    }
}
