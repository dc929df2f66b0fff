//! A store in memory, a keeper that is the witness too, a clock, and vaults over them that serve one record: each that is
//! opened is a process of its own.

use std::marker::PhantomData;

use customer_vault::keeper::Keeper;
use customer_vault::store::{MemoryStore, Store};
use customer_vault::testing::{ManualClock, MemoryKeeper, test_ground, tester};
use customer_vault::*;

pub struct World<R> {
    pub store: MemoryStore,
    pub keeper: MemoryKeeper,
    pub clock: ManualClock,
    record: PhantomData<R>,
}

impl<R: Record> World<R> {
    pub fn new() -> Self {
        let clock = ManualClock::at(Day::from_ymd(2026, 3, 2).unwrap());
        let (store, keeper) = (MemoryStore::shared_between_handles(), MemoryKeeper::new());
        World { store, keeper, clock, record: PhantomData }
    }

    /// At the first moment, with what store and keeper have now; from then on they go different ways.
    pub fn copy(&self) -> Self {
        let (store, keeper) = (self.store.snapshot(), self.keeper.snapshot());
        World { store, keeper, ..World::new() }
    }

    /// Nobody waits for others here: each test says when they look.
    pub fn settings() -> Settings {
        Settings::default().bound_ms(100).unwrap().grace_days(0).unwrap()
    }

    pub fn options(&self) -> Options {
        Options::new().record::<R>().settings(Self::settings()).clock(self.clock.clone())
    }

    pub async fn create(&self) -> Vault {
        let keeper = || self.keeper.clone();
        self.options().create(self.store.clone(), keeper(), keeper()).await.unwrap()
    }

    pub async fn open(&self, store: impl Store) -> Result<Vault> {
        self.options().open(store, self.keeper.clone(), self.keeper.clone()).await
    }

    /// With another keeper; the witness is the same.
    pub async fn open_by(&self, keeper: impl Keeper) -> Result<Vault> {
        self.options().open(self.store.clone(), keeper, self.keeper.clone()).await
    }

    pub async fn recover(&self, store: impl Store) -> Result<Vault> {
        let keeper = || self.keeper.clone();
        self.options().recover(store, keeper(), keeper(), &tester(), &test_ground()).await
    }
}

pub fn id(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}
