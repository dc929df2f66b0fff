//! The other end of a ticket: a process that opens with it alone.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::format::{Generation, subject_hint};
use super::recipient::ReaderKey;
use super::{MAX_LIFETIME, Ticket};
use crate::actor::SubjectId;
use crate::cell::Cell;
use crate::clock::{Clock, Day, SystemClock};
use crate::crypto::aead::Cipher;
use crate::error::{Absent, Denied, Error, Result};
use crate::grant::{Ciphers, Grant, Now, Source};
use crate::keeper::VaultId;
use crate::note::VerifierKey;
use crate::purpose::Purpose;
use crate::token::Fields;

/// How far a reader's clock may stand behind the vault's when a ticket comes: further, and it is wrong.
const BEHIND_MS: i64 = 60_000;

/// Opens sealed values of purpose `P` with a ticket alone. Its process needs no store, no keeper and no root; it has the
/// shelf keys of the ticket and no others, and wipes them when this and all grants that it gave are dropped.
///
/// ```
/// # use customer_vault::{Options, Scope, SubjectId, purposes, record, testing};
/// # use customer_vault::value::{Country, PostalAddress};
/// use customer_vault::ticket::{Reader, ReaderKey, TicketScope};
/// # purposes! { pub Shipping: Contract = 1 "shipping"; }
/// # record! {
/// #     pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
/// #         pub address: PostalAddress = 1 "address", basic, for [Shipping: 90 days];
/// #     }
/// # }
/// # pollster::block_on(async {
/// # let (me, why) = (testing::tester(), testing::test_ground());
/// # let vault = testing::ephemeral(Options::new().record::<Order>()).await?;
/// # let alice = SubjectId::new("c-4711")?;
/// # vault.enroll(&alice, [], &me, &why).await?;
/// # let address = PostalAddress::parse("1 Long Street\nSpringfield", Country::parse("US")?)?;
/// # let sealed = vault.sealer::<Order>(&alice, &me, &why).await?.seal(Order { address }, &7)?;
/// # let hour = std::time::Duration::from_secs(3600);
/// # let token = vault.issue::<Shipping>(&me, &why, hour, Scope::subject(&alice)).await?;
/// // The printer makes a key and shows its public half to the shop.
/// let key = ReaderKey::generate()?;
/// let printer = key.recipient();
///
/// // The shop.
/// let scope = TicketScope::of(&alice).sealed(&sealed);
/// let given = vault.ticket::<Shipping>(&token, &printer, hour / 6, &[scope]).await?;
///
/// // The printer again, with the shop's verifier key, which it has had from the start.
/// let reader = Reader::<Shipping>::open(&key, &given.ticket, &vault.verifier_key()?)?;
/// let label = sealed.open(&reader.grant(&alice)?, &7)?;
/// assert_eq!(label.address()?.expose_lines().next(), Some("1 Long Street"));
/// # Ok::<(), customer_vault::Error>(()) }).unwrap();
/// ```
pub struct Reader<P> {
    shared: Arc<Shared>,
    subjects: HashMap<[u8; 16], Arc<Shelves>>,
    purpose: PhantomData<fn() -> P>,
}

/// What all subjects of a ticket have in common.
#[derive(Debug)]
struct Shared {
    vault: VaultId,
    ticket: [u8; 16],
    purpose: u16,
    fields: Option<Fields>,
    clock: Arc<dyn Clock>,
    opened: Now,
    ends_ms: i64,
    /// By the monotonic clock.
    ends: Duration,
}

impl<P: Purpose> Reader<P> {
    /// Opens a ticket with the key that it is sealed to. `vault` is the verifier key of the vault that the reader believes
    /// ([`Vault::verifier_key`](crate::Vault::verifier_key)), had from elsewhere than the ticket.
    ///
    /// # Errors
    ///
    /// [`Denied::NotOurs`] where that vault did not make it, or it was altered; [`Denied::Recipient`],
    /// [`Denied::Purpose`], [`Denied::Expired`]; [`Denied::NotYet`] where the clock stands more than a minute before the
    /// moment at which it was given; [`Error::DoesNotOpen`].
    pub fn open(key: &ReaderKey, ticket: &Ticket, vault: &VerifierKey) -> Result<Self> {
        Self::open_by(key, ticket, vault, SystemClock)
    }

    /// The same by another clock.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_by(key: &ReaderKey, ticket: &Ticket, vault: &VerifierKey, clock: impl Clock) -> Result<Self> {
        let parts = ticket.verified(vault, key.recipient().bytes())?;
        let header = &parts.header;
        if header.purpose != P::NUMBER {
            return Err(Denied::Purpose.into());
        }
        let opened = Now { wall: clock.wall(), monotonic: clock.monotonic() };
        if opened.wall >= header.ends_ms {
            return Err(Denied::Expired.into());
        }
        if opened.wall < header.given_ms.saturating_sub(BEHIND_MS) {
            return Err(Denied::NotYet.into());
        }
        let contents = parts.open(key.private())?;
        // A shop's own type may claim any number.
        if contents.label != P::LABEL {
            return Err(Denied::Purpose.into());
        }
        let left = u64::try_from(header.ends_ms.saturating_sub(opened.wall)).unwrap_or(0);
        let shared = Arc::new(Shared {
            vault: header.vault,
            ticket: header.id,
            purpose: header.purpose,
            fields: contents.fields,
            clock: Arc::new(clock),
            opened,
            ends_ms: header.ends_ms,
            ends: opened.monotonic.saturating_add(Duration::from_millis(left).min(MAX_LIFETIME)),
        });
        let shelves = |(hint, generations)| {
            let shared = Arc::clone(&shared);
            (hint, Arc::new(Shelves { shared, generations, ciphers: Ciphers::default() }))
        };
        let subjects = contents.subjects.into_iter().map(shelves).collect();
        Ok(Reader { shared, subjects, purpose: PhantomData })
    }

    /// What opens sealed values of one subject: they are opened as with a grant that a vault gave. For a day that the
    /// ticket has no key for, accessors say [`Absent::NotInTicket`]. It stops at the ticket's end, by the wall clock or by
    /// the monotonic one, whichever is there first; it updates nothing.
    ///
    /// # Errors
    ///
    /// [`Denied::Subject`] where the ticket does not reach the subject, [`Denied::Expired`].
    pub fn grant(&self, id: &SubjectId) -> Result<Grant<P>> {
        self.shared.check()?;
        let shelves = self.subjects.get(&subject_hint(&self.shared.ticket, id)).ok_or(Denied::Subject)?;
        Ok(Grant::new(Source::Ticket(Arc::clone(shelves))))
    }

    /// When the ticket ends, in milliseconds since 1970.
    #[must_use]
    pub fn ends_ms(&self) -> i64 {
        self.shared.ends_ms
    }

    /// How many subjects it reaches.
    #[must_use]
    pub fn subjects(&self) -> usize {
        self.subjects.len()
    }
}

impl<P> fmt::Debug for Reader<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("purpose", &self.shared.purpose).finish_non_exhaustive()
    }
}

impl Shared {
    /// Whether the ticket lives. Says which day it is: a wall clock that was set back gives no earlier one.
    fn check(&self) -> Result<Day> {
        let now = Now { wall: self.clock.wall(), monotonic: self.clock.monotonic() };
        if now.wall >= self.ends_ms || now.monotonic >= self.ends {
            return Err(Denied::Expired.into());
        }
        let passed = now.monotonic.saturating_sub(self.opened.monotonic).as_millis();
        let by_monotonic = self.opened.wall.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX));
        Ok(Day::of(now.wall.max(by_monotonic)))
    }
}

/// What a ticket gives of one subject.
#[derive(Debug)]
pub(crate) struct Shelves {
    shared: Arc<Shared>,
    generations: BTreeMap<u16, Generation>,
    ciphers: Ciphers,
}

impl Shelves {
    pub(crate) fn vault(&self) -> &VaultId {
        &self.shared.vault
    }

    pub(crate) fn purpose(&self) -> u16 {
        self.shared.purpose
    }

    pub(crate) fn covers(&self, record: &str, field: u16) -> bool {
        self.shared.fields.as_ref().is_none_or(|fields| fields.covers(record, field))
    }

    pub(crate) fn check(&self) -> Result<Day> {
        self.shared.check()
    }

    /// As a grant of the vault does, with shelves instead of keys that would make any of them.
    pub(crate) fn open<T>(
        &self,
        cell: &Cell<'_>,
        today: Day,
        mut open: impl FnMut(&[u8; 16], u16, &Cipher) -> Result<T>,
    ) -> Result<Result<T, Absent>> {
        let purpose = self.shared.purpose;
        let Some(day) = cell.day_for(purpose) else { return Ok(Err(Absent::NotForThisPurpose)) };
        let Some(generation) = self.generations.get(&cell.generation) else {
            return Ok(Err(Absent::Withdrawn));
        };
        if generation.until < today {
            return Ok(Err(Absent::Withdrawn));
        }
        if day < today {
            return Ok(Err(Absent::Expired));
        }
        let Some(shelf) = generation.shelves.get(&day) else { return Ok(Err(Absent::NotInTicket)) };
        let name = (cell.suite, cell.generation, purpose, day);
        let with = |cipher: &Cipher| open(&generation.serial, purpose, cipher);
        match self.ciphers.with(name, || Ok(shelf.wrap(cell.suite)), with)? {
            // Sealed under a key that a withdrawal has destroyed.
            Err(Error::DoesNotOpen) if generation.remade => Ok(Err(Absent::Withdrawn)),
            opened => opened.map(Ok),
        }
    }
}
