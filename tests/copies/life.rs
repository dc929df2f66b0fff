//! A random history of a few people, with copies of store and keeper on the way, and a ledger of what was erased.

use std::collections::BTreeSet;
use std::time::Duration;

use customer_vault::clock::Clock as _;
use customer_vault::error::{Erased, Misuse};
use customer_vault::keeper::{Held, Keeper as _};
use customer_vault::store::MemoryStore;
use customer_vault::testing::{
    CommitFault, FaultStore, ManualClock, MemoryKeeper, grant, test_ground, tester,
};
use customer_vault::*;

use crate::history::{Books, Order, Recs, Ship, an_order, consents, id, options};

pub const PEOPLE: usize = 5;
pub const SHIP: u8 = 1;
pub const RECS: u8 = 2;
pub const BOOKS: u8 = 3;

/// Splitmix64.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }

    pub fn person(&mut self) -> usize {
        usize::try_from(self.below(PEOPLE as u64)).unwrap()
    }
}

/// What was sealed, under which enrolment, and when.
pub struct Value {
    pub who: usize,
    pub enrolment: usize,
    pub day: Day,
    pub order: u64,
    pub sealed: Sealed<Order>,
}

pub struct Copy {
    pub store: MemoryStore,
    pub keeper: MemoryKeeper,
    pub clock: ManualClock,
    pub held: Vec<Held>,
}

/// Erased of one enrolment of a person: for a purpose.
pub type Erasure = (usize, usize, u8);

pub struct Life {
    pub clock: ManualClock,
    store: FaultStore<MemoryStore>,
    pub keeper: MemoryKeeper,
    vault: Option<Vault>,
    dice: Dice,
    pub copies: Vec<Copy>,
    pub values: Vec<Value>,
    /// Enrolments of each person so far.
    enrolments: [usize; PEOPLE],
    forgotten: [bool; PEOPLE],
    withdrawn: BTreeSet<Erasure>,
    pub erased: BTreeSet<Erasure>,
    /// Of forgets that were not undone, as far as receipts were heard.
    references: Vec<(usize, usize, [u8; 16])>,
    /// The last day of each expiry, and the epoch that it left.
    expired: Vec<(Day, u64)>,
    pub killed: usize,
}

fn day_of(clock: &ManualClock) -> Day {
    Day::of(clock.wall())
}

impl Life {
    pub async fn new(seed: u64) -> Self {
        let clock = ManualClock::at(Day::from_ymd(2026, 3, 1).unwrap());
        let (store, keeper) = (FaultStore::new(MemoryStore::new()), MemoryKeeper::new());
        let vault = options(&clock).create(store.clone(), keeper.clone(), keeper.clone()).await.unwrap();
        let mut life = Life {
            clock,
            store,
            keeper,
            vault: Some(vault),
            dice: Dice(seed),
            copies: Vec::new(),
            values: Vec::new(),
            enrolments: [0; PEOPLE],
            forgotten: [false; PEOPLE],
            withdrawn: BTreeSet::new(),
            erased: BTreeSet::new(),
            references: Vec::new(),
            expired: Vec::new(),
            killed: 0,
        };
        for who in 0..PEOPLE {
            life.enroll(who).await;
            life.seal(who).await;
        }
        life
    }

    pub fn store(&self) -> &MemoryStore {
        self.store.inner()
    }

    pub fn vault(&self) -> Vault {
        self.vault.clone().unwrap()
    }

    async fn copy(&mut self) {
        let clock = ManualClock::at(day_of(&self.clock));
        let (store, keeper) = (self.store().snapshot(), self.keeper.snapshot());
        let held = keeper.held().await.unwrap();
        self.copies.push(Copy { store, keeper, clock, held });
    }

    async fn reopen(&mut self) {
        self.vault = None;
        self.store.heal();
        let (store, keeper) = (self.store.clone(), self.keeper.clone());
        self.vault = Some(options(&self.clock).open(store, keeper.clone(), keeper).await.unwrap());
    }

    /// Takes so many steps, with so many copies on the way, the first and the last included.
    pub async fn live(&mut self, steps: u64, copies: u64) {
        for step in 0..steps {
            let copies_now = step % (steps / copies).max(1) == 0;
            if copies_now {
                self.copy().await;
            }
            // A process may be killed at any commit of the step, and a copy be made before it is there again.
            if self.dice.below(5) == 0 {
                let nth = self.dice.below(9);
                let after = self.dice.below(2) == 0;
                let fault = if after { CommitFault::KilledAfter } else { CommitFault::KilledBefore };
                self.store.fail_commit(nth, fault);
            }
            let before = self.dice.clone();
            self.step().await;
            if self.store.killed() {
                self.killed += 1;
                if self.dice.below(3) == 0 {
                    self.copy().await;
                }
                self.reopen().await;
                // The same again, so that the ledger knows what has become of it.
                let after = std::mem::replace(&mut self.dice, before);
                self.step().await;
                self.dice = after;
            }
            self.store.heal();
        }
        self.copy().await;
    }

    async fn step(&mut self) {
        let (who, what) = (self.dice.person(), self.dice.below(40));
        match what {
            0..=3 => self.enroll(who).await,
            4..=12 => self.seal(who).await,
            13..=17 => self.forget(who).await,
            18..=19 => self.undo(who).await,
            20..=22 => self.withdraw(who).await,
            23..=26 => {
                drop(self.vault().shred(&tester(), &test_ground()).await);
            }
            27..=28 => {
                if let Ok(receipt) = self.vault().expire(&tester(), &test_ground()).await
                    && let (Some(last), Some(epoch)) = (receipt.days.last(), receipt.epoch_left)
                {
                    self.expired.push((*last, epoch));
                }
            }
            29..=30 => {
                drop(self.vault().settle(&tester(), &test_ground()).await);
            }
            31..=36 => {
                let days = 1 + self.dice.below(4);
                if !self.store.killed() {
                    self.clock.advance(Duration::from_secs(86_400 * days));
                }
                let _ = self.vault().confirm_time(&tester(), &test_ground()).await;
            }
            _ => {
                drop(self.vault().checkpoint().await);
            }
        }
    }

    async fn enroll(&mut self, who: usize) {
        let (vault, me, why) = (self.vault(), tester(), test_ground());
        let done = if self.enrolments[who] == 0 {
            vault.enroll(&id(who), consents(), &me, &why).await
        } else if self.forgotten[who] {
            vault.enroll_again(&id(who), consents(), &me, &why).await
        } else {
            return;
        };
        if matches!(done, Ok(()) | Err(Error::Misuse(Misuse::AlreadyEnrolled))) {
            self.enrolments[who] += 1;
            self.forgotten[who] = false;
        }
    }

    async fn seal(&mut self, who: usize) {
        let (vault, me, why) = (self.vault(), tester(), test_ground());
        let Ok(sealer) = vault.sealer::<Order>(&id(who), &me, &why).await else { return };
        let order = self.values.len() as u64;
        let Ok(sealed) = sealer.seal(an_order(), &order) else { return };
        let _ = vault.put(&id(who), &order, &sealed, &me, &why).await;
        let (enrolment, day) = (self.enrolments[who], day_of(&self.clock));
        self.values.push(Value { who, enrolment, day, order, sealed });
    }

    async fn forget(&mut self, who: usize) {
        let (vault, me, why) = (self.vault(), tester(), test_ground());
        let request = Forget::by(&me, &why);
        let at_once = self.dice.below(2) == 0;
        let request = if at_once { request.without_grace() } else { request };
        let enrolment = self.enrolments[who];
        match vault.forget(&id(who), request).await {
            Ok(receipt) => {
                assert!(receipt.witnessed);
                self.references.push((who, enrolment, receipt.reference));
            }
            Err(Error::Erased(Erased::Forgotten)) => {}
            Err(_) => return,
        }
        self.forgotten[who] = true;
        self.erased.extend([(who, enrolment, SHIP), (who, enrolment, RECS)]);
    }

    async fn undo(&mut self, who: usize) {
        let (vault, enrolment) = (self.vault(), self.enrolments[who]);
        let undone = vault.undo_forget(&id(who), &tester(), &test_ground()).await;
        if !matches!(undone, Ok(()) | Err(Error::Misuse(Misuse::NothingToUndo))) {
            return;
        }
        self.forgotten[who] = false;
        self.references.retain(|(other, of, _)| (*other, *of) != (who, enrolment));
        for purpose in [SHIP, RECS] {
            let erasure = (who, enrolment, purpose);
            if !self.withdrawn.contains(&erasure) {
                self.erased.remove(&erasure);
            }
        }
    }

    async fn withdraw(&mut self, who: usize) {
        let (vault, me, why) = (self.vault(), tester(), test_ground());
        let purpose = if self.dice.below(3) == 0 { SHIP } else { RECS };
        let done = match purpose {
            SHIP => vault.withdraw::<Ship>(&id(who), &me, &why).await,
            _ => vault.withdraw::<Recs>(&id(who), &me, &why).await,
        };
        if matches!(done, Ok(_) | Err(Error::Erased(Erased::Purpose))) {
            let erasure = (who, self.enrolments[who], purpose);
            self.withdrawn.insert(erasure);
            self.erased.insert(erasure);
        }
    }

    /// Whether a value's day for a purpose is over on a day, by more than calendars can differ.
    fn over(value: &Value, purpose: u8, today: Day) -> bool {
        let days = i64::from(match purpose {
            SHIP => 62,
            RECS => 64,
            _ => 94,
        });
        Day::of(value.day.start_ms() + days * 86_400_000) < today
    }

    /// Whether it must not open for anybody who runs this code with the newest of keeper and witness.
    pub fn is_erased(&self, value: &Value, purpose: u8) -> bool {
        self.erased.contains(&(value.who, value.enrolment, purpose))
            || Self::over(value, purpose, day_of(&self.clock))
    }

    /// What is destroyed by now: nothing opens it with the newest keeper, whatever else is put back, clock and code
    /// included.
    pub async fn destroyed(&self) -> Destroyed {
        let mut forgets = BTreeSet::new();
        for (who, enrolment, reference) in &self.references {
            if self.vault().certificate(reference).await.unwrap().is_some() {
                forgets.insert((*who, *enrolment));
            }
        }
        let held = self.keeper.held().await.unwrap();
        let newest = held.iter().map(|root| root.epoch).max();
        let gone = |epoch: u64| held.iter().all(|root| root.epoch > epoch || Some(root.epoch) == newest);
        let days = self.expired.iter().filter(|(_, epoch)| gone(*epoch)).map(|(day, _)| *day).max();
        Destroyed { forgets, days }
    }
}

pub struct Destroyed {
    pub forgets: BTreeSet<(usize, usize)>,
    pub days: Option<Day>,
}

impl Destroyed {
    pub fn names(&self, value: &Value, purpose: u8) -> bool {
        let forgotten = purpose != BOOKS && self.forgets.contains(&(value.who, value.enrolment));
        forgotten || self.days.is_some_and(|last| Life::over(value, purpose, last))
    }
}

/// What of all values opens, by number and purpose: for its own purpose, and for the person.
pub async fn opens(vault: &Vault, values: &[Value]) -> BTreeSet<(usize, u8)> {
    let mut open = BTreeSet::new();
    for who in 0..PEOPLE {
        let ship = grant::<Ship>(vault, &id(who)).await;
        let recs = grant::<Recs>(vault, &id(who)).await;
        let books = grant::<Books>(vault, &id(who)).await;
        let person = grant::<SubjectAccess>(vault, &id(who)).await;
        for (n, value) in values.iter().enumerate().filter(|(_, value)| value.who == who) {
            let (sealed, order) = (&value.sealed, &value.order);
            if let Ok(grant) = &ship
                && sealed.open(grant, order).is_ok_and(|view| view.note().is_ok())
            {
                open.insert((n, SHIP));
            }
            if let Ok(grant) = &recs
                && sealed.open(grant, order).is_ok_and(|view| view.taste().is_ok())
            {
                open.insert((n, RECS));
            }
            if let Ok(grant) = &books
                && sealed.open(grant, order).is_ok_and(|view| view.name().is_ok())
            {
                open.insert((n, BOOKS));
            }
            if let Ok(grant) = &person
                && let Ok(view) = sealed.open(grant, order)
            {
                open.extend(view.note().is_ok().then_some((n, SHIP)));
                open.extend(view.taste().is_ok().then_some((n, RECS)));
            }
        }
    }
    open
}
