//! Tickets: what a process reads with one alone, what it does not, and what a forget says of those that live.
#![cfg(all(feature = "testing", feature = "tickets"))]
#![allow(missing_docs, unreachable_pub, reason = "a test")]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, reason = "a test")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::print_stdout, reason = "a test")]

use std::time::Duration;

use customer_vault::clock::Clock as _;
use customer_vault::store::MemoryStore;
use customer_vault::testing::{ManualClock, MemoryKeeper, test_ground, tester};
use customer_vault::ticket::{Reader, ReaderKey, Recipient, Ticket, TicketReceipt, TicketScope};
use customer_vault::value::PersonName;
use customer_vault::*;
use pollster::block_on;

#[path = "tickets/bytes.rs"]
mod bytes;
#[path = "tickets/fences.rs"]
mod fences;
#[path = "tickets/reach.rs"]
mod reach;

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
    /// Recommend goods.
    pub Recommendation: Consent = 2 "recommendation";
    /// Books of account.
    pub Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    /// One order.
    pub(crate) struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// On the label.
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days, Invoicing: 1 year];
        /// A remark to the driver.
        pub note: PersonName = 2 "note", basic, for [Shipping: 30 days];
        /// For suggestions.
        pub taste: PersonName = 3 "taste", behaviour, for [Recommendation: 1 year];
    }
}

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn id(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

fn name(text: &str) -> PersonName {
    PersonName::parse(text).unwrap()
}

/// The shop, with the label printer's key.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) vault: Vault,
    pub(crate) store: MemoryStore,
    pub(crate) keeper: MemoryKeeper,
    pub(crate) clock: ManualClock,
    pub(crate) me: Actor,
    pub(crate) why: Ground,
    pub(crate) key: ReaderKey,
}

impl Shop {
    pub(crate) fn open() -> Shop {
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let (store, keeper) = (MemoryStore::new(), MemoryKeeper::new());
        let settings = Settings::default()
            .height(1)
            .unwrap()
            .clock_jump_days(4000)
            .restore_window(RestoreWindow::none_every_older_backup_of_the_keys_dies_at_once());
        let options = Options::new().record::<Order>().clock(clock.clone()).settings(settings);
        let vault = block_on(options.create(store.clone(), keeper.clone(), keeper.clone())).unwrap();
        let key = ReaderKey::generate().unwrap();
        Shop { vault, store, keeper, clock, me: tester(), why: test_ground(), key }
    }

    /// Another process on the same store, where that allows it.
    pub(crate) fn reopen(&self) -> Vault {
        let options = Options::new().record::<Order>().clock(self.clock.clone());
        block_on(options.open(self.store.clone(), self.keeper.clone(), self.keeper.clone())).unwrap()
    }

    pub(crate) fn enroll(&self, who: &str) {
        let evidence = Evidence::of_notice(1, "We recommend goods.", "web", &self.me).unwrap();
        let consent = Consent::to::<Recommendation>(evidence);
        block_on(self.vault.enroll(&id(who), [consent], &self.me, &self.why)).unwrap();
    }

    pub(crate) fn sealed(&self, who: &str, number: u64) -> SealedOrder {
        let sealer = block_on(self.vault.sealer::<Order>(&id(who), &self.me, &self.why)).unwrap();
        let order = Order { name: name(who), note: name("ring twice"), taste: name("green tea") };
        sealer.seal(order, &number).unwrap()
    }

    pub(crate) fn token<P: Purpose>(&self, scope: Scope) -> Token {
        block_on(self.vault.issue::<P>(&self.me, &self.why, HOUR * 24, scope)).unwrap()
    }

    pub(crate) fn give<P: Purpose>(
        &self,
        lifetime: Duration,
        scopes: &[TicketScope],
    ) -> Result<TicketReceipt> {
        let token = self.token::<P>(Scope::everyone());
        block_on(self.vault.ticket::<P>(&token, &self.key.recipient(), lifetime, scopes))
    }

    /// A ticket for all that is sealed so far for `P`.
    pub(crate) fn ticket<P: Purpose>(&self, of: &[(&str, &SealedOrder)]) -> Ticket {
        let scopes: Vec<_> =
            of.iter().map(|(who, sealed)| TicketScope::of(&id(who)).sealed(sealed)).collect();
        let given = self.give::<P>(HOUR, &scopes).unwrap();
        assert!(given.each.iter().all(Result::is_ok));
        given.ticket
    }

    pub(crate) fn read<P: Purpose>(&self, ticket: &Ticket) -> Result<Reader<P>> {
        Reader::open_by(&self.key, ticket, &self.vault.verifier_key().unwrap(), self.clock.clone())
    }

    pub(crate) fn forget(&self, who: &str) -> ForgetReceipt {
        let request = Forget::by(&self.me, &self.why).without_grace();
        block_on(self.vault.forget(&id(who), request)).unwrap()
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.wall()
    }
}
