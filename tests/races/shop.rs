//! A shop whose subjects lie in one bucket of the key tree, and what people do in it. Each story has its subject to
//! itself, so that what must come of it is known exactly, whatever goes on around it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use customer_vault::error::Erased;
use customer_vault::log::{Action, Outcome};
use customer_vault::store::{MemoryStore, Range, Store};
use customer_vault::testing::{MemoryKeeper, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;
use pollster::block_on;

use crate::schedule::{Gate, Manner, SimClock, Yielding, YieldingKeeper};

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
        /// To whom it goes.
        pub name: PersonName = 1 "name", basic, for [Shipping: 3 days, Invoicing: 5 days];
        /// For suggestions.
        pub taste: PersonName = 2 "taste", behaviour, for [Recommendation: 2 days];
    }
}

record! {
    /// Of which the law keeps nothing.
    pub struct Parcel[u64] / SealedParcel / ParcelView in parcel = "parcel" {
        /// To whom it goes.
        pub name: PersonName = 1 "name", basic, for [Shipping: 3 days];
    }
}

pub fn order() -> Order {
    let name = |text| PersonName::parse(text).unwrap();
    Order { name: name("Ada Lovelace"), taste: name("green tea") }
}

pub fn first_day() -> Day {
    Day::from_ymd(2026, 1, 5).unwrap()
}

pub fn consent() -> Consent {
    Consent::to::<Recommendation>(evidence())
}

pub fn evidence() -> Evidence {
    Evidence::new(1, [7; 32], "web", &tester()).unwrap()
}

/// A vault with enrolled subjects, as of its first day; races run on copies of it.
pub struct Shop {
    store: MemoryStore,
    keeper: MemoryKeeper,
    /// Enrolled, with consent; all lie where `absent` will.
    pub people: Vec<(SubjectId, Sealed<Order>)>,
    /// Not enrolled.
    pub absent: Vec<SubjectId>,
    pub tokens: Tokens,
}

pub struct Tokens {
    pub shipping: Token,
    pub recommendation: Token,
    pub invoicing: Token,
    pub hold: Token,
    pub access: Token,
}

impl Shop {
    /// `shared` says whether several processes may have the store. Forgets and withdrawals can be undone for a day; old
    /// roots die at once.
    pub fn new(shared: bool, height: u8) -> Self {
        let store = if shared { MemoryStore::shared_between_handles() } else { MemoryStore::new() };
        let keeper = MemoryKeeper::new();
        let settings = Settings::default()
            .height(height)
            .unwrap()
            .grace_days(1)
            .unwrap()
            .restore_window(RestoreWindow::none_every_older_backup_of_the_keys_dies_at_once());
        let clock = SimClock::at(first_day());
        let options = options(&clock).settings(settings);
        let vault = block_on(options.create(store.clone(), keeper.clone(), keeper.clone())).unwrap();
        let (mut together, tokens) = block_on(async {
            let tokens = Tokens {
                shipping: token::<Shipping>(&vault).await,
                recommendation: token::<Recommendation>(&vault).await,
                invoicing: token::<Invoicing>(&vault).await,
                hold: token::<LegalHold>(&vault).await,
                access: token::<SubjectAccess>(&vault).await,
            };
            (neighbours(&store, &keeper, &clock).await, tokens)
        });
        let absent = together.split_off(together.len() / 2);
        let mut people = Vec::new();
        for id in together {
            block_on(vault.enroll(&id, [consent()], &tester(), &test_ground())).unwrap();
            let sealer = block_on(vault.sealer::<Order>(&id, &tester(), &test_ground())).unwrap();
            let sealed = sealer.seal(order(), &1).unwrap();
            people.push((id, sealed));
        }
        Shop { store, keeper, people, absent, tokens }
    }

    /// A copy to race on.
    pub fn stage(&self, manner: Manner) -> Stage<'_> {
        let gate = Gate::default();
        let keeper = YieldingKeeper { keeper: self.keeper.snapshot(), gate: gate.clone() };
        let out_of_reach = Arc::new(AtomicBool::new(false));
        let store = Yielding { store: self.store.snapshot(), gate: gate.clone(), manner, out_of_reach };
        let clock = SimClock::at(first_day());
        Stage {
            shop: self,
            store,
            keeper,
            clock,
            gate,
            unlocked: Cell::new(0),
            killed: Cell::new(false),
            ends: RefCell::default(),
            references: RefCell::default(),
        }
    }
}

async fn token<P: Purpose>(vault: &Vault) -> Token {
    let month = Duration::from_secs(30 * 86_400);
    vault.issue::<P>(&tester(), &test_ground(), month, Scope::everyone()).await.unwrap()
}

pub fn options(clock: &SimClock) -> Options {
    Options::new().record::<Order>().clock(clock.clone())
}

/// Ids whose entries lie below one node: found by enrolling them in a copy.
async fn neighbours(store: &MemoryStore, keeper: &MemoryKeeper, clock: &SimClock) -> Vec<SubjectId> {
    let (copy, keeper) = (store.snapshot(), keeper.snapshot());
    let vault = options(clock).open(copy.clone(), keeper.clone(), keeper).await.unwrap();
    let mut known: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut nodes: Vec<Vec<SubjectId>> = vec![Vec::new(); 16];
    for n in 0..150 {
        let id = SubjectId::new(&format!("person-{n}")).unwrap();
        vault.enroll(&id, [], &tester(), &test_ground()).await.unwrap();
        for (name, _) in copy.scan(Range::prefix(b"s"), 10_000).await.unwrap().rows {
            let node = usize::from(name[1]);
            if known.insert(name) {
                nodes[node].push(id.clone());
            }
        }
    }
    nodes.into_iter().max_by_key(Vec::len).unwrap()
}

/// What must be true of a subject when all is quiet.
#[derive(Clone)]
pub enum End {
    Opens(SubjectId, Sealed<Order>),
    /// Only for the books.
    Gone(SubjectId, Sealed<Order>),
    NoRecommendation(SubjectId, Sealed<Order>),
    /// A hold keeps what was forgotten.
    HeldBack(SubjectId, Sealed<Order>),
    /// A hold keeps what was sealed to days that are over.
    HeldDays(SubjectId, Sealed<Order>),
}

/// One race: a store and a keeper, the clock of all processes, and what has come of it so far.
pub struct Stage<'a> {
    pub shop: &'a Shop,
    pub store: Yielding<MemoryStore>,
    pub keeper: YieldingKeeper,
    pub clock: SimClock,
    pub gate: Gate,
    /// Grants that were acknowledged.
    pub unlocked: Cell<u64>,
    /// Somebody was killed: a grant may be in the log that nobody got.
    pub killed: Cell<bool>,
    pub ends: RefCell<Vec<End>>,
    /// Forgets that are due, whose certificates must come.
    pub references: RefCell<Vec<[u8; 16]>>,
}

impl Stage<'_> {
    /// One more process. It is opened alone.
    pub fn process(&self) -> Vault {
        self.gate.open(false);
        let opened = self.opening();
        let vault = crate::schedule::alone(&self.clock, opened).unwrap();
        self.gate.open(true);
        vault
    }

    pub async fn opening(&self) -> Result<Vault> {
        options(&self.clock).open(self.store.clone(), self.keeper.clone(), self.keeper.clone()).await
    }

    pub fn end(&self, end: End) {
        self.ends.borrow_mut().push(end);
    }

    /// Takes a grant, and counts it.
    pub async fn unlock<P: Purpose>(&self, vault: &Vault, token: &Token, id: &SubjectId) -> Result<Grant<P>> {
        let grant = vault.unlock::<P>(token, id).await;
        self.unlocked.set(self.unlocked.get() + u64::from(grant.is_ok()));
        grant
    }

    /// Seals, with a new sealer where a lease has ended meanwhile.
    pub async fn seal(&self, vault: &Vault, id: &SubjectId, no: u64) -> Result<Sealed<Order>> {
        for _ in 0..50 {
            let sealer = vault.sealer::<Order>(id, &tester(), &test_ground()).await?;
            match sealer.seal(order(), &no) {
                Err(Error::Stale) => {}
                done => return done,
            }
        }
        Err(Error::Stale)
    }

    /// Unlocks for shipping and opens, with a new grant where a lease has ended meanwhile.
    pub async fn read(&self, vault: &Vault, id: &SubjectId, sealed: &Sealed<Order>, no: u64) -> Result<()> {
        for _ in 0..50 {
            let grant = self.unlock::<Shipping>(vault, &self.shop.tokens.shipping, id).await?;
            match sealed.open(&grant, &no) {
                Err(Error::Stale) => {}
                Err(why) => return Err(why),
                Ok(view) => {
                    assert!(view.name().is_ok(), "a lockbox for shipping did not open");
                    return Ok(());
                }
            }
        }
        Err(Error::Stale)
    }

    /// Nothing that is acknowledged is lost, in `vaults` and in a process that starts now; `thoroughly` destroys the old
    /// roots too.
    pub fn verify(&self, mut vaults: Vec<Vault>, thoroughly: bool) {
        self.gate.open(false);
        let (me, why) = (tester(), test_ground());
        crate::schedule::alone(&self.clock, async {
            vaults.push(self.opening().await.expect("the vault opens again"));
            let last = vaults.last().unwrap();
            self.verify_in(last).await;
            self.shreds(last).await;
            if thoroughly {
                last.settle(&me, &why).await.expect("settling when all is quiet");
                let references = self.references.borrow().clone();
                for reference in &references {
                    let certificate = last.certificate(reference).await.unwrap();
                    assert!(
                        certificate.is_some(),
                        "a forget that is shredded and settled has its certificate"
                    );
                }
            }
            for vault in &vaults {
                self.verify_in(vault).await;
            }
            assert!(last.verify_log().await.unwrap().holds(), "the log does not hold");
            let given = |e: &&log::Entry| e.action() == Action::Unlock && e.outcome() == Outcome::Done;
            let entries = u64::try_from(last.log().await.unwrap().iter().filter(given).count()).unwrap();
            let unlocked = self.unlocked.get();
            assert!(
                entries == unlocked || (self.killed.get() && entries > unlocked),
                "one entry for each grant"
            );
        });
    }

    async fn verify_in(&self, vault: &Vault) {
        let tokens = &self.shop.tokens;
        let ends = self.ends.borrow().clone();
        for end in ends {
            match end {
                End::Opens(id, sealed) => {
                    self.read(vault, &id, &sealed, 1).await.expect("an enrolled subject opens");
                }
                End::NoRecommendation(id, sealed) => {
                    let refused = self.unlock::<Recommendation>(vault, &tokens.recommendation, &id).await;
                    assert!(matches!(refused, Err(Error::Erased(_))), "{refused:?}");
                    self.read(vault, &id, &sealed, 1).await.expect("other purposes go on");
                }
                End::Gone(id, sealed) => {
                    let refused = self.read(vault, &id, &sealed, 1).await;
                    assert_eq!(refused, Err(Error::Erased(Erased::Forgotten)));
                    let again = vault.enroll(&id, [], &tester(), &test_ground()).await;
                    assert_eq!(again, Err(Error::Erased(Erased::Forgotten)));
                    let books = self.unlock::<Invoicing>(vault, &tokens.invoicing, &id).await.unwrap();
                    let view = sealed.open(&books, &1).unwrap();
                    assert!(view.name().is_ok(), "the law keeps it");
                }
                End::HeldDays(id, _) => {
                    assert!(self.holds_keep(vault).await, "{id:?}: a hold keeps the days that are over");
                }
                End::HeldBack(id, sealed) => {
                    let refused = self.read(vault, &id, &sealed, 1).await;
                    assert!(matches!(refused, Err(Error::Erased(_))), "{refused:?}");
                    let held = self.unlock::<LegalHold>(vault, &tokens.hold, &id).await.unwrap();
                    let view = sealed.open(&held, &1).expect("a hold keeps it");
                    assert!(view.taste().is_ok() && view.name().is_ok(), "a hold keeps all of it");
                }
            }
        }
    }
}
