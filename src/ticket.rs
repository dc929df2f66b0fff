//! Tickets: shelf keys for one purpose, some subjects and days, sealed to another process's key. That process needs no
//! store, keeper or root to open with them. The format is in docs/SPEC.md, "Ticket".

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::actor::SubjectId;
use crate::change::{CHUNK, Change, Changed};
use crate::clock::Day;
use crate::crypto;
use crate::entry::Entry;
use crate::error::{Denied, Error, Misuse, Result, Unsupported};
use crate::journal::FENCE;
use crate::key::Secret;
use crate::log::{Action, Outcome, TicketEntry};
use crate::purpose::Purpose;
use crate::record::Sealable;
use crate::sealed::{Sealed, cells};
use crate::store::Expect;
use crate::token::{Token, Verified, token_name};
use crate::tree::ATTEMPTS;
use crate::vault::{Inner, Subject, Vault};

pub(crate) mod format;
mod reader;
mod recipient;

pub use format::Ticket;
use format::{Contents, Generation, Header, Subjects, subject_hint};
pub use reader::Reader;
pub(crate) use reader::Shelves;
pub use recipient::{ReaderKey, Recipient};

/// The longest that a ticket lives: an hour.
const MAX_LIFETIME: Duration = Duration::from_secs(3600);
/// The most shelf keys in a ticket.
const MAX_SHELVES: usize = 16_384;
/// The most subjects in a ticket: those of one commit.
const MAX_SUBJECTS: usize = CHUNK;

/// One subject and the days that a ticket shall reach: those to whose end something was sealed for the purpose.
///
/// ```
/// use customer_vault::{Day, SubjectId};
/// use customer_vault::ticket::TicketScope;
///
/// let alice = SubjectId::new("c-4711")?;
/// let scope = TicketScope::of(&alice).days(Day::from_ymd(2026, 4, 1)?, Day::from_ymd(2026, 4, 30)?);
/// # let _ = scope;
/// # Ok::<(), customer_vault::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TicketScope {
    id: SubjectId,
    ranges: Vec<(Day, Day)>,
    lockboxes: BTreeSet<(u16, Day)>,
}

impl TicketScope {
    /// A subject. Without a day it reaches nothing.
    #[must_use]
    pub fn of(id: &SubjectId) -> Self {
        TicketScope { id: id.clone(), ranges: Vec::new(), lockboxes: BTreeSet::new() }
    }

    /// The days from the first to the last, both included: what was sealed to be opened until one of them. Each is a shelf
    /// key, of which a ticket holds at most 16,384.
    #[must_use]
    pub fn days(mut self, first: Day, last: Day) -> Self {
        self.ranges.push((first, last));
        self
    }

    /// The days of a sealed value, as its clear header states them.
    #[must_use]
    pub fn sealed<T: Sealable, I>(mut self, sealed: &Sealed<T, I>) -> Self {
        let cells = cells(sealed.as_bytes()).into_iter().flatten().flatten();
        cells.for_each(|cell| self.lockboxes.extend(cell.lockboxes()));
        self
    }

    fn named(&self, purpose: u16) -> impl Iterator<Item = Day> + '_ {
        self.lockboxes.iter().filter(move |(of, _)| *of == purpose).map(|(_, day)| *day)
    }
}

/// What was given.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TicketReceipt {
    /// To be sent to the recipient: nobody else opens it.
    pub ticket: Ticket,
    /// When it ends, in milliseconds since 1970: the lifetime that was asked for, or the token's own end where that is
    /// sooner.
    pub ends_ms: i64,
    /// For each scope at its place, whether the ticket reaches it, or why not: [`Misuse::Day`] where none of its days has
    /// a key, otherwise as [`Vault::unlock`].
    pub each: Vec<Result<()>>,
}

impl Vault {
    /// Gives a ticket for purpose `P`, sealed to `recipient`: what the token's holder may unlock, another process may open
    /// for at most an hour, with [`Reader`]. At most 1,000 subjects and 16,384 shelf keys.
    ///
    /// Before it is given, one commit has written the log and, in each subject's entry, until when the ticket lives: so
    /// [`forget`](Self::forget) and [`withdraw`](Self::withdraw) report it, and the certificate lists the purpose.
    ///
    /// # Security
    ///
    /// What a recipient was given nobody takes back: neither `forget` nor `withdraw`, [`revoke`](Self::revoke) or
    /// [`freeze`](Self::freeze) reaches it. Its end, and the fields to which the token was narrowed, are kept by the code
    /// of the recipient's process. Purpose, subjects and days are kept by its keys: it has no others.
    ///
    /// # Errors
    ///
    /// As [`unlock`](Self::unlock); [`Denied::Lifetime`] beyond an hour, [`Misuse::Period`] for less than a millisecond;
    /// [`Misuse::BuiltIn`] for a built-in purpose; [`Unsupported::Parameters`] for more subjects or shelf keys than it
    /// may hold; where it would reach none of the subjects, why it does not reach the first. Then nothing is given.
    pub async fn ticket<P: Purpose>(
        &self,
        token: &Token,
        recipient: &Recipient,
        lifetime: Duration,
        scopes: &[TicketScope],
    ) -> Result<TicketReceipt> {
        let inner = &self.0;
        inner.keep_time().await?;
        let verified = match inner.admit_for::<P>(token).await {
            Ok(verified) => verified,
            Err(why) => return Err(inner.refused(Action::Ticket, None, P::NUMBER, why).await),
        };
        match inner.give::<P>(&verified, recipient, lifetime, scopes).await {
            Ok(receipt) => Ok(receipt),
            Err(why) => Err(inner.refused(Action::Ticket, Some(&verified), P::NUMBER, why).await),
        }
    }
}

/// Whose keys a ticket is to hold.
#[derive(Debug)]
struct Wanted {
    header: Header,
    /// As the log names it.
    about: TicketEntry,
    ids: Vec<SubjectId>,
    /// For each of them.
    hints: Vec<[u8; 16]>,
    days: Vec<BTreeSet<Day>>,
    /// For each scope its subject's place; `None` where the token does not reach it.
    places: Vec<Option<usize>>,
}

impl Inner {
    async fn give<P: Purpose>(
        &self,
        verified: &Verified,
        recipient: &Recipient,
        lifetime: Duration,
        scopes: &[TicketScope],
    ) -> Result<TicketReceipt> {
        if self.known::<P>()?.is_some() {
            return Err(Misuse::BuiltIn.into());
        }
        if lifetime > MAX_LIFETIME {
            return Err(Denied::Lifetime.into());
        }
        let given_ms = self.token_time(self.clock.wall());
        let left = verified.expires.saturating_mul(1000).saturating_sub(given_ms);
        let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX).min(left);
        if lifetime < 1 {
            return Err(Misuse::Period.into());
        }
        let header = Header {
            vault: self.id,
            id: crypto::random()?,
            purpose: P::NUMBER,
            given_ms,
            ends_ms: given_ms.saturating_add(lifetime),
            recipient: *recipient.bytes(),
        };
        let drawn = format::draw()?;
        let about =
            TicketEntry { id: header.id, recipient: recipient.fingerprint(), ends_ms: header.ends_ms };
        let wanted = self.wanted(verified, header, about, scopes).await?;
        let token = [token_name(&verified.id)];
        for _ in 0..ATTEMPTS {
            let (mut room, mut token_row) = (MAX_SHELVES, None);
            let edit = |place: usize, subject: &Subject, entry: Option<Entry>| {
                token_row = subject.more.first().cloned().flatten();
                let change = self.giving(verified, &wanted, place, subject, entry)?;
                let shelves: usize = change.out.values().map(|generation| generation.shelves.len()).sum();
                room = room.checked_sub(shelves).ok_or(Unsupported::Parameters)?;
                Ok(change)
            };
            let ids: Vec<&SubjectId> = wanted.ids.iter().collect();
            let Some(done) = self.try_change(&ids, &token, edit).await? else { continue };
            if let Some(row) = &token_row
                && done.iter().any(Result::is_ok)
            {
                self.used(verified, Some(row)).await;
            }
            return self.given(verified, P::LABEL, &wanted, &drawn, done).await;
        }
        Err(Error::Busy)
    }

    async fn wanted(
        &self,
        verified: &Verified,
        header: Header,
        about: TicketEntry,
        scopes: &[TicketScope],
    ) -> Result<Wanted> {
        if scopes.len() > MAX_SUBJECTS {
            return Err(Unsupported::Parameters.into());
        }
        let today = self.today();
        let unknown =
            |day: &Day| *day >= today && !self.journal.over(*day) && self.calendar.day(*day).is_none();
        if scopes.iter().flat_map(|scope| scope.named(header.purpose)).any(|day| unknown(&day)) {
            // Another process has made it since this one read the calendar.
            self.calendar.load(&self.tree).await?;
        }
        let purpose = header.purpose;
        let (ids, hints, days, places) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut wanted = Wanted { header, about, ids, hints, days, places };
        let mut known = HashMap::new();
        let mut shelves = 0_usize;
        for scope in scopes {
            if !verified.reaches(&scope.id) {
                wanted.places.push(None);
                continue;
            }
            let place = *known.entry(&scope.id).or_insert_with(|| {
                wanted.ids.push(scope.id.clone());
                wanted.hints.push(subject_hint(&about.id, &scope.id));
                wanted.days.push(BTreeSet::new());
                wanted.days.len().saturating_sub(1)
            });
            wanted.places.push(Some(place));
            let ranges = scope.ranges.iter().flat_map(|(from, to)| self.calendar.within(*from, *to));
            let Some(days) = wanted.days.get_mut(place) else { return Err(Error::Busy) };
            let before = days.len();
            days.extend(
                ranges.chain(scope.named(purpose)).filter(|day| *day >= today && !self.journal.over(*day)),
            );
            shelves = shelves.saturating_add(days.len().saturating_sub(before));
            if shelves > MAX_SHELVES {
                return Err(Unsupported::Parameters.into());
            }
        }
        Ok(wanted)
    }

    /// What giving a ticket makes of an entry, and the shelves that it holds of it. A forget that comes between fails one
    /// of the two commits: both write the entry.
    fn giving(
        &self,
        verified: &Verified,
        wanted: &Wanted,
        place: usize,
        subject: &Subject,
        entry: Option<Entry>,
    ) -> Result<Change<BTreeMap<u16, Generation>>> {
        let (days, tag) = (wanted.days.get(place).ok_or(Error::Busy)?, &subject.tag);
        let (about, purpose) = (wanted.about, wanted.header.purpose);
        let now = self.now();
        verified.check_time(self.token_time(now.wall))?;
        self.refuse_if_frozen()?;
        if self.revoked(verified) {
            return Err(Denied::Revoked.into());
        }
        let (meta, mut entry) = subject.meta.as_ref().zip(entry).ok_or(Error::NotEnrolled)?;
        let mut out = BTreeMap::new();
        for ((number, _), key) in self.keys_of(subject, meta, tag, purpose, now)? {
            let mut shelves = BTreeMap::new();
            for day in days {
                // It may have ended while this waited for the store, for this clock or for another process.
                if *day < now.day() || self.journal.over(*day) {
                    continue;
                }
                if let Some(day_key) = self.calendar.day(*day) {
                    shelves.insert(*day, Secret::combine(&day_key, &key));
                }
            }
            let generation = entry.meta.generations.iter_mut().find(|generation| generation.number == number);
            let Some(generation) = generation.filter(|_| !shelves.is_empty()) else { continue };
            let standing = generation.purposes.entry(purpose).or_default();
            standing.tickets_ms = standing.tickets_ms.max(Some(about.ends_ms));
            let (until, remade) = (standing.until.unwrap_or(Day(u16::MAX)), standing.remade);
            out.insert(number, Generation { serial: generation.serial, until, remade, shelves });
        }
        if out.is_empty() {
            return Err(Misuse::Day.into());
        }
        let log = self.unlock_entry(Action::Ticket, Outcome::Done, verified, purpose)?.giving(about);
        let log = self.about(log, &entry);
        let mut change = Change::new(entry, log, out);
        // Whatever takes away writes this row: revocations, freezes, forgets and withdrawals of this or another process.
        change.expect.push((FENCE.to_vec(), Expect::unchanged(subject.fence.as_ref())));
        Ok(change)
    }

    /// Seals what the commit has let go out.
    async fn given(
        &self,
        verified: &Verified,
        label: &str,
        wanted: &Wanted,
        drawn: &format::Drawn,
        done: Vec<Result<Changed<BTreeMap<u16, Generation>>>>,
    ) -> Result<TicketReceipt> {
        let mut subjects = Subjects::new();
        let mut outcomes = Vec::with_capacity(done.len());
        for (hint, one) in wanted.hints.iter().zip(done) {
            outcomes.push(one.map(|changed| {
                subjects.insert(*hint, changed.out);
            }));
        }
        let outcome = |place: &Option<usize>| {
            let of = place.and_then(|place| outcomes.get(place)).copied();
            of.unwrap_or_else(|| Err(Denied::Subject.into()))
        };
        let each: Vec<Result<()>> = wanted.places.iter().map(outcome).collect();
        if subjects.is_empty() {
            return Err(each.into_iter().find_map(Result::err).unwrap_or_else(|| Misuse::Day.into()));
        }
        let Wanted { header, .. } = wanted;
        for entry in self.refusals(Action::Ticket, verified, header.purpose, &each)? {
            self.log(entry).await?;
        }
        let contents = Contents { label: label.to_owned(), fields: verified.fields().cloned(), subjects };
        let ticket = Ticket::seal(header, &contents, drawn, self.ring().signing().expose())?;
        Ok(TicketReceipt { ticket, ends_ms: header.ends_ms, each })
    }
}

#[cfg(test)]
mod tests;
