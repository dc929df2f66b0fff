//! Attacks by somebody who has read the code: who writes the store, sets the clock, or runs two processes against each
//! other. Each says what must not come of it.
#![cfg(feature = "testing")]
#![allow(missing_docs, unreachable_pub, reason = "a test")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::arithmetic_side_effects, reason = "a test")]

use std::time::Duration;

use customer_vault::clock::Clock as _;
use customer_vault::keeper::{Held, Keeper};
use customer_vault::store::{Batch, Key, MemoryStore, Range, Store, Versioned};
use customer_vault::testing::{ManualClock, MemoryKeeper, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;
use pollster::block_on;

#[path = "attacks/batches.rs"]
mod batches;
#[path = "attacks/grants.rs"]
mod grants;
#[path = "attacks/processes.rs"]
mod processes;
#[path = "attacks/races.rs"]
mod races;
#[path = "attacks/rows.rs"]
mod rows;
#[path = "attacks/traces.rs"]
mod traces;

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
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// On the label.
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days, Invoicing: 1 year];
        /// A remark to the driver.
        pub note: PersonName = 2 "note", basic, for [Shipping: 90 days];
        /// On the invoice.
        pub lines: PersonName = 3 "lines", transaction, for [Shipping: 90 days, Invoicing: 1 year];
        /// For suggestions.
        pub taste: PersonName = 4 "taste", behaviour, for [Recommendation: 1 year];
    }
}

const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn id(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

fn name(text: &str) -> PersonName {
    PersonName::parse(text).unwrap()
}

fn an_order() -> Order {
    Order { name: name("Alice"), note: name("ring twice"), lines: name("green tea"), taste: name("tea") }
}

fn by() -> Forget {
    Forget::by(&tester(), &test_ground())
}

fn options(clock: &ManualClock) -> Options {
    let settings = Settings::default().height(1).unwrap();
    Options::new().record::<Order>().clock(clock.clone()).settings(settings)
}

/// A vault with all that an attacker may lay hands on. Alice is enrolled, and agreed to recommendations.
struct Shop {
    store: MemoryStore,
    keeper: MemoryKeeper,
    clock: ManualClock,
    vault: Vault,
    alice: SubjectId,
    me: Actor,
    why: Ground,
}

impl Shop {
    fn open() -> Shop {
        Shop::over(MemoryStore::new(), 1)
    }

    /// With nodes between buckets and root.
    fn deep() -> Shop {
        Shop::over(MemoryStore::new(), 3)
    }

    /// Over a database that other processes use too.
    fn shared() -> Shop {
        Shop::over(MemoryStore::shared_between_handles(), 1)
    }

    fn over(store: MemoryStore, height: u8) -> Shop {
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let keeper = MemoryKeeper::new();
        let options = options(&clock).settings(Settings::default().height(height).unwrap());
        let vault = block_on(options.create(store.clone(), keeper.clone(), keeper.clone())).unwrap();
        let (me, why) = (tester(), test_ground());
        let shop = Shop { store, keeper, clock, vault, alice: id("alice"), me, why };
        let consent = Consent::to::<Recommendation>(shop.evidence(1));
        block_on(shop.vault.enroll(&shop.alice, [consent], &shop.me, &shop.why)).unwrap();
        shop
    }

    /// Another process on a store of this vault.
    fn process(&self, store: impl Store) -> Result<Vault> {
        block_on(options(&self.clock).open(store, self.keeper.clone(), self.keeper.clone()))
    }

    fn evidence(&self, version: u32) -> Evidence {
        Evidence::of_notice(version, "We recommend goods.", "web", &self.me).unwrap()
    }

    fn consent(&self, version: u32) {
        let evidence = self.evidence(version);
        block_on(self.vault.consent::<Recommendation>(&self.alice, evidence, &self.me, &self.why)).unwrap();
    }

    fn withdraw(&self) {
        block_on(self.vault.withdraw::<Recommendation>(&self.alice, &self.me, &self.why)).unwrap();
    }

    fn enroll(&self, subject: &SubjectId) {
        block_on(self.vault.enroll(subject, [], &self.me, &self.why)).unwrap();
    }

    fn enroll_again(&self) {
        block_on(self.vault.enroll_again(&self.alice, [], &self.me, &self.why)).unwrap();
    }

    fn forget(&self, request: Forget) -> ForgetReceipt {
        block_on(self.vault.forget(&self.alice, request)).unwrap()
    }

    fn shred(&self) -> ShredReceipt {
        block_on(self.vault.shred(&self.me, &self.why)).unwrap()
    }

    fn settle(&self) -> SettleReceipt {
        block_on(self.vault.settle(&self.me, &self.why)).unwrap()
    }

    /// A week at a time: the clock of a vault that nobody uses for longer has to be confirmed.
    fn weeks(&self, weeks: u32) {
        for _ in 0..weeks {
            self.clock.advance_days(7);
            block_on(self.vault.expire(&self.me, &self.why)).unwrap();
        }
    }

    fn sealer(&self) -> Sealer<Order> {
        block_on(self.vault.sealer::<Order>(&self.alice, &self.me, &self.why)).unwrap()
    }

    fn sealed(&self) -> SealedOrder {
        self.sealer().seal(an_order(), &7).unwrap()
    }

    fn token<P: Purpose>(&self) -> Token {
        block_on(self.vault.issue::<P>(&self.me, &self.why, YEAR, Scope::everyone())).unwrap()
    }

    fn unlock<P: Purpose>(&self) -> Result<Grant<P>> {
        block_on(self.vault.unlock::<P>(&self.token::<P>(), &self.alice))
    }

    /// The roots that the keeper can unwrap.
    fn held(&self) -> Vec<Held> {
        block_on(Keeper::held(&self.keeper)).unwrap()
    }

    /// The rows whose names begin so.
    fn rows(&self, prefix: &[u8]) -> Vec<(Key, Versioned)> {
        rows_of(&self.store, prefix)
    }

    /// Writes behind the vault's back; `None` deletes.
    fn write(&self, rows: Vec<(Key, Option<Vec<u8>>)>) {
        let mut batch = Batch::new().unwrap();
        batch.writes = rows;
        block_on(self.store.commit(batch)).unwrap();
    }

    /// Puts the rows of these kinds back as they were in an older copy.
    fn put_back(&self, old: &MemoryStore, kinds: &[&[u8]]) {
        for kind in kinds {
            self.write(rows_of(old, kind).into_iter().map(|(key, row)| (key, Some(row.value))).collect());
        }
    }
}

fn rows_of(store: &MemoryStore, prefix: &[u8]) -> Vec<(Key, Versioned)> {
    block_on(store.scan(Range::prefix(prefix), 100_000)).unwrap().rows
}

/// Whether the name comes out.
fn name_opens<P: Purpose>(sealed: &SealedOrder, grant: &Grant<P>) -> bool
where
    order::name: OpensFor<P>,
{
    sealed.open(grant, &7).is_ok_and(|view| view.name().is_ok_and(|name| name.expose() == "Alice"))
}

fn taste_opens(sealed: &SealedOrder, grant: &Grant<Recommendation>) -> bool {
    sealed.open(grant, &7).is_ok_and(|view| view.taste().is_ok())
}

/// Whether the remark comes out, which is kept for shipping alone.
fn note_opens<P: Purpose>(sealed: &SealedOrder, grant: &Grant<P>) -> bool
where
    order::note: OpensFor<P>,
{
    sealed.open(grant, &7).is_ok_and(|view| view.note().is_ok())
}
