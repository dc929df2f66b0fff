//! A history with copies of store and keeper taken on the way, and what must hold of any vault that is opened after it.

use customer_vault::store::{Batch, Key, MemoryStore, Range, Store, Versioned};
use customer_vault::testing::{ManualClock, MemoryKeeper, grant, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;

purposes! {
    /// Deliver the parcel.
    pub Ship: Contract = 1 "ship";
    /// Recommend goods.
    pub Recs: Consent = 2 "recs";
    /// Books of account.
    pub Books: LegalObligation = 3 "books";
}

record! {
    /// One order.
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// Who gets it.
        pub name: PersonName = 1 "name", basic, for [Ship: 60 days, Books: 3 months];
        /// For the driver.
        pub note: PersonName = 2 "note", basic, for [Ship: 60 days];
        /// For suggestions.
        pub taste: PersonName = 3 "taste", behaviour, for [Recs: 2 months];
    }
}

/// Never touched.
pub const BOB: usize = 0;
/// Forgotten and shredded.
pub const ALICE: usize = 1;
/// Withdrew the consent.
pub const CAROL: usize = 2;
/// Forgotten, and the forget was undone.
pub const DAVE: usize = 3;
/// Forgotten, shredded and enrolled again.
pub const ERIN: usize = 4;
/// Held, and forgotten.
pub const FRANK: usize = 5;
/// Forgotten, and enrolled again before any shred.
pub const GRACE: usize = 6;
pub const PEOPLE: usize = 7;
pub const CANARY: &str = "canary";

pub fn id(who: usize) -> SubjectId {
    SubjectId::new(&format!("{CANARY}-person-{who}")).unwrap()
}

pub struct Copy {
    pub what: &'static str,
    pub store: MemoryStore,
    pub keeper: MemoryKeeper,
}

pub struct History {
    pub clock: ManualClock,
    pub store: MemoryStore,
    pub keeper: MemoryKeeper,
    pub copies: Vec<Copy>,
    /// What was sealed for each at the beginning.
    pub sealed: Vec<Sealed<Order>>,
    /// The forgets that wait for a certificate.
    pub references: Vec<[u8; 16]>,
}

pub fn options(clock: &ManualClock) -> Options {
    let settings = Settings::default().height(1).unwrap().restore_window(RestoreWindow::days(10).unwrap());
    Options::new().record::<Order>().settings(settings).clock(clock.clone())
}

pub fn consents() -> [Consent; 1] {
    [Consent::to::<Recs>(Evidence::of_notice(0, "notice", "web", &tester()).unwrap())]
}

pub fn an_order() -> Order {
    let name = |text: &str| PersonName::parse(&format!("{CANARY} {text}")).unwrap();
    Order { name: name("name"), note: name("note"), taste: name("taste") }
}

impl History {
    fn copy(&mut self, what: &'static str) {
        let (store, keeper) = (self.store.snapshot(), self.keeper.snapshot());
        self.copies.push(Copy { what, store, keeper });
    }

    /// Up to before anything is settled: every copy's root is still there.
    pub async fn unsettled() -> (Self, Vault) {
        let clock = ManualClock::at(Day::from_ymd(2026, 3, 1).unwrap());
        let (store, keeper) = (MemoryStore::new(), MemoryKeeper::new());
        let vault = options(&clock).create(store.clone(), keeper.clone(), keeper.clone()).await.unwrap();
        let (copies, sealed, references) = (Vec::new(), Vec::new(), Vec::new());
        let mut all = History { clock, store, keeper, copies, sealed, references };
        let (me, why) = (&tester(), &test_ground());
        let at_once = || Forget::by(me, why).requested_by(CANARY).without_grace();
        all.copy("created");
        for who in 0..PEOPLE {
            vault.enroll(&id(who), consents(), me, why).await.unwrap();
            let sealer = vault.sealer::<Order>(&id(who), me, why).await.unwrap();
            all.sealed.push(sealer.seal(an_order(), &1).unwrap());
            vault.put(&id(who), &1, &all.sealed[who], me, why).await.unwrap();
        }
        all.copy("enrolled");
        all.references.push(vault.forget(&id(ALICE), at_once()).await.unwrap().reference);
        all.copy("alice forgotten");
        vault.withdraw::<Recs>(&id(CAROL), me, why).await.unwrap();
        vault.forget(&id(DAVE), Forget::by(me, why)).await.unwrap();
        all.copy("carol withdrawn, dave forgotten");
        vault.undo_forget(&id(DAVE), me, why).await.unwrap();
        vault.hold(&id(FRANK), me, why).await.unwrap();
        all.copy("dave undone, frank held");
        all.references.push(vault.forget(&id(ERIN), at_once()).await.unwrap().reference);
        vault.forget(&id(FRANK), at_once()).await.unwrap();
        vault.forget(&id(GRACE), Forget::by(me, why)).await.unwrap();
        all.copy("erin, frank and grace forgotten");
        vault.enroll_again(&id(GRACE), consents(), me, why).await.unwrap();
        all.copy("grace enrolled again");
        vault.shred(me, why).await.unwrap();
        all.copy("shredded");
        vault.enroll_again(&id(ERIN), consents(), me, why).await.unwrap();
        all.copy("erin enrolled again");
        all.clock.advance_days(7);
        vault.expire(me, why).await.unwrap();
        all.copy("expired");
        vault.shred(me, why).await.unwrap();
        all.copy("carol shredded");
        vault.withdraw::<Ship>(&id(CAROL), me, why).await.unwrap();
        (all, vault)
    }

    /// The same, and the first roots are destroyed.
    pub async fn settled() -> (Self, Vault) {
        let (mut all, vault) = Self::unsettled().await;
        let (me, why) = (&tester(), &test_ground());
        all.clock.advance_days(4);
        vault.expire(me, why).await.unwrap();
        all.copy("expired again");
        assert!(vault.settle(me, why).await.unwrap().roots > 0);
        all.copy("settled");
        vault.withdraw::<Ship>(&id(DAVE), me, why).await.unwrap();
        (all, vault)
    }

    pub fn index_of(&self, what: &str) -> usize {
        self.copies.iter().position(|copy| copy.what == what).expect("a copy of that name")
    }

    async fn opens<P: Purpose>(
        &self,
        vault: &Vault,
        who: usize,
        fields: impl Fn(&OrderView<P>) -> Vec<Result<String, Absent>>,
    ) -> Result<Vec<Result<String, Absent>>>
    where
        Order: OpensFor<P>,
    {
        let grant = grant::<P>(vault, &id(who)).await?;
        self.sealed[who].open(&grant, &1).map(|view| fields(&view))
    }

    /// Whether each is open: name, note for the parcel; taste; name for the books; any for the person; any for the hold.
    pub async fn state(&self, vault: &Vault, who: usize) -> [Result<bool>; 5] {
        let text = |value: Result<&PersonName, Absent>| value.map(|name| name.expose().to_owned());
        let open = |fields: Result<Vec<Result<String, Absent>>>| match fields {
            Ok(fields) => {
                Ok(fields.iter().flatten().inspect(|text| assert!(text.contains(CANARY))).count() > 0)
            }
            Err(Error::Erased(_) | Error::NotEnrolled | Error::Misuse(error::Misuse::NotHeld)) => Ok(false),
            Err(why) => Err(why),
        };
        let all =
            |view: &OrderView<SubjectAccess>| vec![text(view.name()), text(view.note()), text(view.taste())];
        let held =
            |view: &OrderView<LegalHold>| vec![text(view.name()), text(view.note()), text(view.taste())];
        [
            open(self.opens::<Ship>(vault, who, |view| vec![text(view.name()), text(view.note())]).await),
            open(self.opens::<Recs>(vault, who, |view| vec![text(view.taste())]).await),
            open(self.opens::<Books>(vault, who, |view| vec![text(view.name())]).await),
            open(self.opens::<SubjectAccess>(vault, who, all).await),
            open(self.opens::<LegalHold>(vault, who, held).await),
        ]
    }

    /// That nothing erased opens, and everything else does. `late` tells how many of the late objections to the parcel
    /// there are: carol's, dave's. `partly` where a refusal that says why will do.
    pub async fn check(&self, vault: &Vault, late: u8, partly: bool, context: &str) {
        for who in 0..PEOPLE {
            let may = match who {
                BOB => [true, true, true, true, false],
                DAVE => [late < 2, true, true, true, false],
                CAROL => [late < 1, false, true, true, false],
                FRANK => [false, false, true, false, true],
                _ => [false, false, true, false, false],
            };
            for (at, (open, may)) in self.state(vault, who).await.into_iter().zip(may).enumerate() {
                match open {
                    Ok(open) if open == may => {}
                    Ok(false) | Err(Error::RolledBack(_) | Error::Busy | Error::Stale) if partly => {}
                    open => panic!("{context}: person {who}, purpose {at}: {open:?}, and {may} is right"),
                }
            }
        }
    }
}

/// All rows of a store.
pub async fn rows(store: &MemoryStore) -> Vec<(Key, Versioned)> {
    let mut range = Range { start: Vec::new(), end: vec![0xFF; 64] };
    let mut all = Vec::new();
    loop {
        let page = store.scan(range.clone(), 4096).await.unwrap();
        all.extend(page.rows);
        let Some(next) = page.next else { return all };
        range.start = next;
    }
}

/// Puts a row's content as it was, or takes the row away.
pub async fn put_back(store: &MemoryStore, name: &[u8], row: Option<&Versioned>) {
    let mut batch = Batch::new().unwrap();
    match row {
        Some(row) => {
            batch.put(name, row.value.clone());
        }
        None => {
            batch.delete(name);
        }
    }
    store.commit(batch).await.unwrap();
}
