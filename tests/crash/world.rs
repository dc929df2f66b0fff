//! A small vault with some people in it, copied for each case, and what must hold of it whatever has happened.

use std::time::Duration;

use customer_vault::error::{Erased, Misuse};
use customer_vault::keeper::Held;
use customer_vault::log::Action;
use customer_vault::store::{Key, MemoryStore, Range, Store};
use customer_vault::testing::{FaultStore, ManualClock, MemoryKeeper, grant, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;
use pollster::block_on;

use crate::faults::{FaultKeeper, Slow, TestStore};

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
    /// Recommend goods.
    pub Recommendation: Consent = 2 "recommendation";
    /// Books of account.
    pub Invoicing: LegalObligation = 3 "invoicing";
    /// Declared later than the people were enrolled.
    pub Support: Contract = 4 "support";
}

record! {
    /// One order. Periods are short, so that the calendar is small.
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// Printed on the label.
        pub address: PersonName = 1 "address", basic, for [Shipping: 3 days, Invoicing: 5 days];
        /// For suggestions.
        pub taste: PersonName = 2 "taste", behaviour, for [Recommendation: 3 days];
    }
}

pub fn order() -> Order {
    let name = |text| PersonName::parse(text).unwrap();
    Order { address: name("Long Street"), taste: name("green tea") }
}

pub fn id(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

pub fn later(day: Day, days: i64) -> Day {
    Day::of(day.start_ms() + days * 86_400_000)
}

pub fn evidence() -> Evidence {
    Evidence::of_notice(1, "we recommend goods", "web", &tester()).unwrap()
}

pub fn settings(height: u8) -> Settings {
    let window = RestoreWindow::none_every_older_backup_of_the_keys_dies_at_once();
    let settings = Settings::default().height(height).unwrap().grace_days(2).unwrap();
    settings.restore_window(window).clock_jump_days(60)
}

pub fn options(clock: &ManualClock) -> Options {
    Options::new().record::<Order>().purpose::<Support>().clock(clock.clone())
}

/// Store and keeper as of one moment.
pub struct World {
    pub store: MemoryStore,
    pub keeper: MemoryKeeper,
    pub day: Day,
}

/// A copy of a world, in which things go wrong.
#[derive(Clone)]
pub struct Place {
    vault: Option<Vault>,
    pub store: TestStore,
    pub keeper: FaultKeeper,
    pub clock: ManualClock,
}

impl World {
    /// Nothing at all.
    pub fn empty() -> Self {
        let day = Day::from_ymd(2026, 1, 5).unwrap();
        World { store: MemoryStore::new(), keeper: MemoryKeeper::new(), day }
    }

    /// Alice, Bob, Carol and Dan, each with one order.
    pub fn small(height: u8) -> Self {
        let mut place = World::empty().place();
        let options = Options::new().record::<Order>().clock(place.clock.clone()).settings(settings(height));
        let (keeper, store) = (place.keeper.clone(), place.store.clone());
        place.vault = Some(block_on(options.create(store, keeper.clone(), keeper)).unwrap());
        for name in ["alice", "bob", "carol", "dan"] {
            block_on(place.vault().enroll(&id(name), [], &tester(), &test_ground())).unwrap();
            place.order(name, 1);
        }
        place.world()
    }

    /// The same world after something was done in it.
    pub fn after(self, work: impl FnOnce(&Place)) -> Self {
        let mut place = self.place();
        place.open().unwrap();
        work(&place);
        place.world()
    }

    pub fn place(&self) -> Place {
        Place {
            vault: None,
            store: FaultStore::new(Slow::new(self.store.snapshot())),
            keeper: FaultKeeper::new(self.keeper.snapshot()),
            clock: ManualClock::at(self.day),
        }
    }
}

impl Place {
    pub fn world(&self) -> World {
        let store = self.store.inner().rows.snapshot();
        World { store, keeper: self.keeper.inner.snapshot(), day: self.clock.today() }
    }

    pub fn vault(&self) -> &Vault {
        self.vault.as_ref().expect("it is open")
    }

    pub fn open(&mut self) -> Result<()> {
        self.vault = None;
        let keeper = self.keeper.clone();
        self.vault = Some(block_on(options(&self.clock).open(self.store.clone(), keeper.clone(), keeper))?);
        Ok(())
    }

    pub fn is_open(&self) -> bool {
        self.vault.is_some()
    }

    /// No fault any more. Whether it was killed.
    pub fn heal(&self) -> bool {
        let killed = self.store.killed() || self.keeper.killed();
        self.store.heal();
        self.store.without_hook();
        self.keeper.heal();
        self.slow(false);
        killed
    }

    /// Lets every call to store and keeper yield.
    pub fn slow(&self, yes: bool) {
        self.store.inner().slow(yes);
        self.keeper.slow(yes);
    }

    pub fn close(&mut self) {
        self.vault = None;
    }

    /// What lies in the store, whatever the vault says.
    pub fn rows(&self, prefix: &[u8]) -> Vec<Key> {
        let page = block_on(self.store.inner().rows.scan(Range::prefix(prefix), 10_000)).unwrap();
        page.rows.into_iter().map(|(name, _)| name).collect()
    }

    /// Rows of days or due dates that are over, by the two bytes after the first.
    pub fn rows_until(&self, prefix: u8, day: Day) -> usize {
        let over = |name: &Key| u16::from_be_bytes([name[1], name[2]]) <= day.number();
        self.rows(&[prefix]).iter().filter(|name| over(name)).count()
    }

    pub fn roots(&self) -> Vec<Held> {
        use customer_vault::keeper::Keeper as _;
        block_on(self.keeper.inner.held()).unwrap()
    }

    pub fn order(&self, name: &str, number: u64) {
        let sealer = block_on(self.vault().sealer::<Order>(&id(name), &tester(), &test_ground())).unwrap();
        let sealed = sealer.seal(order(), &number).unwrap();
        block_on(self.vault().put(&id(name), &number, &sealed, &tester(), &test_ground())).unwrap();
    }

    pub fn get(&self, name: &str, number: u64) -> Option<SealedOrder> {
        block_on(self.vault().get::<Order>(&id(name), &number, &tester(), &test_ground())).unwrap()
    }

    /// Whether a purpose can be unlocked.
    pub fn unlocks<P: Purpose>(&self, name: &str) -> Result<()> {
        block_on(grant::<P>(self.vault(), &id(name))).map(drop)
    }

    /// Whether an order that the vault keeps opens for shipping.
    pub fn opens(&self, name: &str, number: u64) -> bool {
        let Some(sealed) = self.get(name, number) else { return false };
        let grant = match block_on(grant::<Shipping>(self.vault(), &id(name))) {
            Ok(grant) => grant,
            Err(Error::Erased(_)) => return false,
            Err(why) => panic!("{name}: {why}"),
        };
        sealed.open(&grant, &number).unwrap().address().is_ok()
    }

    pub fn forget(&self, name: &str) -> Result<ForgetReceipt> {
        let request = Forget::by(&tester(), &test_ground()).requested_by(name).without_grace();
        block_on(self.vault().forget(&id(name), request))
    }

    pub fn shred(&self) -> Result<ShredReceipt> {
        block_on(self.vault().shred(&tester(), &test_ground()))
    }

    pub fn settle(&self) -> Result<SettleReceipt> {
        block_on(self.vault().settle(&tester(), &test_ground()))
    }

    pub fn expire(&self) -> Result<ExpireReceipt> {
        block_on(self.vault().expire(&tester(), &test_ground()))
    }

    pub fn hold(&self, name: &str) -> Result<()> {
        block_on(self.vault().hold(&id(name), &tester(), &test_ground()))
    }

    /// What must hold after anything: the others open, the log and the records are whole, what is due is destroyed and
    /// certified in the end, and nothing is left over.
    pub fn is_sound(&mut self, what: &str) {
        self.others_open(what);
        let report = block_on(self.vault().verify_log()).unwrap();
        assert!(report.holds(), "{what}: {report:?}");
        for name in ["alice", "bob", "carol", "dan", "eve"] {
            match block_on(self.vault().list::<Order, u64>(&id(name), &tester(), &test_ground())) {
                Ok(_) | Err(Error::NotEnrolled) => {}
                Err(why) => panic!("{what}: the orders of {name}: {why}"),
            }
        }
        self.open().unwrap_or_else(|why| panic!("{what}: opened once more: {why}"));
        self.converges(what);
        self.open().unwrap_or_else(|why| panic!("{what}: opened at the end: {why}"));
        for name in ["bob", "carol"] {
            assert!(self.opens(name, 77), "{what}: {name}, on the last day and under another root");
        }
    }

    fn others_open(&self, what: &str) {
        for name in ["bob", "carol"] {
            match block_on(self.vault().enroll(&id(name), [], &tester(), &test_ground())) {
                Ok(()) | Err(Error::Misuse(Misuse::AlreadyEnrolled)) => {}
                Err(why) => panic!("{what}: {name}: {why}"),
            }
            self.order(name, 77);
            assert!(self.opens(name, 77), "{what}: {name}");
        }
    }

    fn converges(&self, what: &str) {
        // So that the root is replaced at least once more, after which no candidate of before can be left.
        let spare = id("spare");
        block_on(self.vault().enroll(&spare, [], &tester(), &test_ground())).unwrap();
        self.forget("spare").unwrap();
        self.clock.advance(Duration::from_secs(3 * 86_400));
        let epoch = self.shred().unwrap().epoch_left;
        assert!(epoch.is_some(), "{what}");
        let again = self.shred().unwrap();
        assert_eq!((again.subjects, again.epoch_left), (0, None), "{what}: a second shred");
        self.settle().unwrap();
        let again = self.settle().unwrap();
        assert_eq!((again.roots, again.certificates.len()), (0, 0), "{what}: a second settle");
        assert_eq!(self.roots().len(), 1, "{what}: roots that nobody destroys: {:?}", self.roots());
        for (prefix, left) in [(b"x", "ways"), (b"r", "certificates to come"), (b"q", "retired roots")] {
            assert_eq!(self.rows(prefix).len(), 0, "{what}: {left}");
        }
        assert_eq!(self.rows_until(b'w', self.clock.today()), 0, "{what}: due");
        let log = block_on(self.vault().log()).unwrap();
        let undone = log.iter().filter(|entry| entry.action() == Action::UndoForget).count();
        let forgets = log.iter().filter(|entry| entry.action() == Action::Forget);
        let references: Vec<[u8; 16]> = forgets.filter_map(|entry| entry.reference().copied()).collect();
        let certified = references
            .iter()
            .filter(|reference| block_on(self.vault().certificate(reference)).unwrap().is_some());
        assert_eq!(certified.count() + undone, references.len(), "{what}: certificates");
    }
}

/// Whether it is what a caller is to try again after: it says nothing of what was asked for.
pub fn is_passing(why: Error) -> bool {
    use customer_vault::error::{KeeperError::Unreachable, StoreError as S};
    let passing = matches!(why, Error::Store(S::Full | S::Unknown | S::Closed | S::Io(_)));
    passing || matches!(why, Error::Busy | Error::Keeper(Unreachable))
}

pub fn is_forgotten(outcome: Result<()>) -> bool {
    match outcome {
        Ok(()) => false,
        Err(Error::Erased(Erased::Forgotten)) => true,
        Err(why) => panic!("neither before nor after: {why}"),
    }
}
