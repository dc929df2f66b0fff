//! Any sequence of operations on a vault of three subjects: what opens is what a simple account of it allows.
#![no_main]

use arbitrary::Arbitrary;
use customer_vault::testing::{ManualClock, ephemeral, grant, test_ground, tester};
use customer_vault::value::Bytes;
use customer_vault::*;
use libfuzzer_sys::fuzz_target;
use pollster::block_on;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub Recommendation: Consent = 2 "recommendation";
    pub Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    pub struct Note[u64] / SealedNote / NoteView in note = "note" {
        pub address: Bytes = 1 "address", basic, for [Shipping: 20 days, Invoicing: 60 days];
        pub taste: Bytes = 2 "taste", behaviour, for [Recommendation: 30 days];
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Who {
    Alice,
    Bob,
    Carol,
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Enroll(Who, bool),
    EnrollAgain(Who),
    Consent(Who),
    WithdrawConsent(Who),
    Object(Who),
    Seal(Who),
    Put(Who, u8),
    Grant(Who),
    Forget(Who, bool),
    Undo(Who),
    Hold(Who),
    Release(Who),
    Shred,
    Expire,
    Settle,
    Days(u8),
    Open(u8),
}

/// What is known of one subject without asking the vault.
#[derive(Default)]
struct Known {
    enrolled: bool,
    forgotten: bool,
    /// Keys that a forget has made due, and no `undo` has saved.
    generation: u32,
    objected: bool,
    grants: Vec<Granted>,
}

enum Granted {
    Shipping(Grant<Shipping>),
    Recommendation(Grant<Recommendation>),
    Invoicing(Grant<Invoicing>),
}

struct Kept {
    who: Who,
    generation: u32,
    sealed_on: u32,
    value: u8,
    sealed: SealedNote,
}

struct World {
    vault: Vault,
    clock: ManualClock,
    day: u32,
    known: [Known; 3],
    kept: Vec<Kept>,
}

fn id(who: Who) -> SubjectId {
    SubjectId::new(["alice", "bob", "carol"][who as usize]).unwrap()
}

fn evidence() -> Evidence {
    Evidence::of_notice(1, "We recommend goods.", "web", &tester()).unwrap()
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let settings = Settings::default().height(2).unwrap().clock_jump_days(u16::MAX - 1);
        let options = Options::new().record::<Note>().clock(clock.clone()).settings(settings);
        World {
            vault: ephemeral(options).await.unwrap(),
            clock,
            day: 0,
            known: Default::default(),
            kept: vec![],
        }
    }

    async fn run(&mut self, operation: &Operation) {
        let (me, why, vault) = (tester(), test_ground(), self.vault.clone());
        match *operation {
            Operation::Enroll(who, consents) => {
                let consents = consents.then(|| Consent::to::<Recommendation>(evidence()));
                let done = vault.enroll(&id(who), consents, &me, &why).await;
                let known = &mut self.known[who as usize];
                assert_eq!(done.is_ok(), !known.enrolled, "{done:?}");
                known.enrolled = true;
            }
            Operation::EnrollAgain(who) => {
                let done = vault.enroll_again(&id(who), [], &me, &why).await;
                let known = &mut self.known[who as usize];
                assert_eq!(done.is_ok(), known.forgotten, "{done:?}");
                if done.is_ok() {
                    (known.forgotten, known.objected) = (false, false);
                    known.generation += 1;
                }
            }
            Operation::Consent(who) => {
                let done = vault.consent::<Recommendation>(&id(who), evidence(), &me, &why).await;
                assert_eq!(done.is_ok(), self.live(who), "{done:?}");
            }
            Operation::WithdrawConsent(who) => {
                let done = vault.withdraw::<Recommendation>(&id(who), &me, &why).await;
                assert!(done.is_err() || self.live(who));
            }
            Operation::Object(who) => {
                let done = vault.withdraw::<Shipping>(&id(who), &me, &why).await;
                assert!(done.is_err() || self.live(who));
                self.known[who as usize].objected |= done.is_ok();
            }
            Operation::Seal(who) => self.seal(who).await,
            Operation::Put(who, which) => self.put(who, which).await,
            Operation::Grant(who) => {
                for granted in [
                    grant(&vault, &id(who)).await.map(Granted::Shipping),
                    grant(&vault, &id(who)).await.map(Granted::Recommendation),
                    grant(&vault, &id(who)).await.map(Granted::Invoicing),
                ] {
                    self.known[who as usize].grants.extend(granted);
                }
            }
            Operation::Forget(who, at_once) => {
                let request = Forget::by(&me, &why);
                let request = if at_once { request.without_grace() } else { request };
                let done = vault.forget(&id(who), request).await;
                assert_eq!(done.is_ok(), self.live(who), "{done:?}");
                self.known[who as usize].forgotten |= done.is_ok();
            }
            Operation::Undo(who) => {
                let done = vault.undo_forget(&id(who), &me, &why).await;
                let known = &mut self.known[who as usize];
                assert!(done.is_err() || known.forgotten);
                known.forgotten &= done.is_err();
            }
            Operation::Hold(who) => {
                let done = vault.hold(&id(who), &me, &why).await;
                assert_eq!(done.is_ok(), self.known[who as usize].enrolled, "{done:?}");
            }
            Operation::Release(who) => {
                let _ = vault.release_hold(&id(who), &me, &why).await;
            }
            Operation::Shred => drop(vault.shred(&me, &why).await.unwrap()),
            Operation::Expire => drop(vault.expire(&me, &why).await.unwrap()),
            Operation::Settle => drop(vault.settle(&me, &why).await.unwrap()),
            Operation::Days(days) => {
                self.clock.advance_days(days.into());
                self.day += u32::from(days);
            }
            Operation::Open(which) => {
                if let Some(kept) = self.kept.get(usize::from(which) % self.kept.len().max(1)) {
                    self.open(kept).await;
                }
            }
        }
    }

    fn live(&self, who: Who) -> bool {
        let known = &self.known[who as usize];
        known.enrolled && !known.forgotten
    }

    async fn seal(&mut self, who: Who) {
        let sealer = self.vault.sealer::<Note>(&id(who), &tester(), &test_ground()).await;
        assert_eq!(sealer.is_ok(), self.live(who), "{sealer:?}");
        let Ok(sealer) = sealer else { return };
        let value = u8::try_from(self.kept.len() % 200).unwrap();
        let bytes = || Bytes::parse(&[value; 20]).unwrap();
        let sealed = sealer.seal(Note { address: bytes(), taste: bytes() }, &u64::from(value)).unwrap();
        let generation = self.known[who as usize].generation;
        self.kept.push(Kept { who, generation, sealed_on: self.day, value, sealed });
    }

    async fn put(&mut self, who: Who, which: u8) {
        let Some(kept) = self.kept.get(usize::from(which) % self.kept.len().max(1)) else { return };
        let key = u64::from(kept.value);
        let done = self.vault.put(&id(who), &key, &kept.sealed, &tester(), &test_ground()).await;
        assert_eq!(done.is_ok(), self.live(who), "{done:?}");
        if done.is_ok() {
            let back = self.vault.get::<Note>(&id(who), &key, &tester(), &test_ground()).await.unwrap();
            assert_eq!(back.as_ref(), Some(&kept.sealed));
        }
    }

    /// By grants that were taken at any time, and by new ones.
    async fn open(&self, kept: &Kept) {
        let (key, age) = (u64::from(kept.value), self.day - kept.sealed_on);
        let known = &self.known[kept.who as usize];
        let current = self.live(kept.who) && kept.generation == known.generation;
        let right = |value: &Bytes| assert_eq!(value.expose(), [kept.value; 20]);
        let shipping = |grant: &Grant<Shipping>| {
            let Ok(view) = kept.sealed.open(grant, &key) else { return false };
            assert!(view.address().is_err() || current && !known.objected && age <= 20);
            view.address().inspect(|value| right(value)).is_ok()
        };
        let taste = |grant: &Grant<Recommendation>| {
            if let Ok(view) = kept.sealed.open(grant, &key) {
                assert!(view.taste().is_err() || current && age <= 30);
                let _ = view.taste().inspect(|value| right(value));
            }
        };
        // The law keeps it, of older enrolments too.
        let invoicing = |grant: &Grant<Invoicing>| {
            let Ok(view) = kept.sealed.open(grant, &key) else { return false };
            assert!(view.address().is_err() || age <= 60);
            view.address().inspect(|value| right(value)).is_ok()
        };
        for granted in &known.grants {
            match granted {
                Granted::Shipping(grant) => drop(shipping(grant)),
                Granted::Recommendation(grant) => taste(grant),
                Granted::Invoicing(grant) => drop(invoicing(grant)),
            }
        }
        let who = id(kept.who);
        let fresh = grant::<Shipping>(&self.vault, &who).await;
        let opened = fresh.is_ok_and(|grant| shipping(&grant));
        assert_eq!(opened, current && !known.objected && age <= 20);
        if let Ok(grant) = grant::<Recommendation>(&self.vault, &who).await {
            taste(&grant);
        }
        // A forget keeps it for as long as the longest period, so that nothing of it is lost.
        let fresh = grant::<Invoicing>(&self.vault, &who).await;
        let opened = fresh.is_ok_and(|grant| invoicing(&grant));
        assert_eq!(opened, age <= 60);
        if let Ok(grant) = grant::<SubjectAccess>(&self.vault, &who).await
            && let Ok(view) = kept.sealed.open(&grant, &key)
        {
            assert!(current || view.address().is_err() && view.taste().is_err());
        }
        // Nobody else's grants open it.
        for other in [Who::Alice, Who::Bob, Who::Carol] {
            if other as usize != kept.who as usize
                && let Ok(grant) = grant::<Invoicing>(&self.vault, &id(other)).await
            {
                assert!(
                    kept.sealed.open(&grant, &key).is_err_and(|why| why == Error::DoesNotOpen)
                        || kept.sealed.open(&grant, &key).is_ok_and(|view| view.address().is_err())
                );
            }
        }
    }
}

fuzz_target!(|operations: Vec<Operation>| {
    block_on(async {
        let mut world = World::new().await;
        for operation in operations.iter().take(60) {
            if world.day > 4000 {
                break;
            }
            world.run(operation).await;
        }
        for kept in &world.kept {
            world.open(kept).await;
        }
        assert!(world.vault.verify_log().await.unwrap().holds());
    });
});
