//! What people do in the shop, step by step, with what must come of each step.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use customer_vault::error::{Erased, Misuse};
use customer_vault::store::{Range, Store};
use customer_vault::testing::{test_ground, tester};
use customer_vault::*;

use crate::schedule::Manner;
use crate::shop::{End, Order, Recommendation, Shipping, Stage, consent, evidence, first_day, order};

impl Stage<'_> {
    pub async fn enrolls(&self, vault: &Vault, id: &SubjectId) {
        vault.enroll(id, [consent()], &tester(), &test_ground()).await.expect("enrolling");
        let sealed = self.seal(vault, id, 1).await.expect("sealing for who was just enrolled");
        vault.put(id, &1, &sealed, &tester(), &test_ground()).await.expect("storing");
        self.read(vault, id, &sealed, 1).await.expect("opening what was just sealed");
        self.end(End::Opens(id.clone(), sealed));
    }

    pub async fn reads(&self, vault: &Vault, n: usize) {
        let (id, sealed) = &self.shop.people[n];
        for _ in 0..2 {
            self.read(vault, id, sealed, 1).await.expect("a reader meets a rotated path and succeeds");
        }
        self.end(End::Opens(id.clone(), sealed.clone()));
    }

    pub async fn withdraws(&self, vault: &Vault, n: usize, again: bool) {
        let (id, sealed) = &self.shop.people[n];
        vault.withdraw::<Recommendation>(id, &tester(), &test_ground()).await.expect("withdrawing");
        let refused = self.unlock::<Recommendation>(vault, &self.shop.tokens.recommendation, id).await.err();
        assert!(matches!(refused, Some(Error::Erased(_))), "{refused:?}");
        if again {
            vault
                .consent::<Recommendation>(id, evidence(), &tester(), &test_ground())
                .await
                .expect("consent");
            let grant = self.unlock::<Recommendation>(vault, &self.shop.tokens.recommendation, id).await;
            match sealed.open(&grant.expect("consent lets it stand again"), &1) {
                Ok(view) => assert!(view.taste().is_ok()),
                Err(why) => assert_eq!(why, Error::Stale),
            }
            self.end(End::Opens(id.clone(), sealed.clone()));
        } else {
            self.end(End::NoRecommendation(id.clone(), sealed.clone()));
        }
    }

    /// `gone` is set when the forget has returned.
    pub async fn leaves(&self, vault: &Vault, n: usize, gone: &Cell<bool>, again: bool) {
        let (id, sealed) = &self.shop.people[n];
        let (me, why) = (tester(), test_ground());
        let forget = Forget::by(&me, &why).without_grace();
        let receipt = vault.forget(id, forget.clone()).await.expect("forgetting");
        gone.set(true);
        self.references.borrow_mut().push(receipt.reference);
        assert_eq!(self.read(vault, id, sealed, 1).await, Err(Error::Erased(Erased::Forgotten)));
        let stored = vault.put(id, &9, sealed, &me, &why).await;
        assert_eq!(stored, Err(Error::Erased(Erased::Forgotten)), "nothing is stored after a forget");
        assert_eq!(vault.forget(id, forget).await.err(), Some(Error::Erased(Erased::Forgotten)));
        let undone = vault.undo_forget(id, &me, &why).await;
        assert_eq!(undone, Err(Error::Erased(Erased::GraceOver)));
        if again {
            vault.enroll_again(id, [consent()], &me, &why).await.expect("enrolling again");
            let twice = vault.enroll_again(id, [], &me, &why).await;
            assert_eq!(twice, Err(Error::Misuse(Misuse::AlreadyEnrolled)));
            let fresh = self.seal(vault, id, 1).await.expect("sealing for the new enrolment");
            vault.put(id, &1, &fresh, &me, &why).await.expect("storing for the new enrolment");
            self.read(vault, id, &fresh, 1).await.expect("opening what the new enrolment sealed");
            let grant = self.unlock::<Shipping>(vault, &self.shop.tokens.shipping, id).await.unwrap();
            match sealed.open(&grant, &1) {
                Ok(view) => {
                    assert_eq!(view.name().err(), Some(Absent::Withdrawn), "old ciphertext stays dead");
                }
                Err(why) => assert_eq!(why, Error::Stale),
            }
            self.end(End::Opens(id.clone(), fresh));
        } else {
            self.end(End::Gone(id.clone(), sealed.clone()));
        }
    }

    /// One unlock and one open of somebody who may be forgotten meanwhile.
    pub async fn opens_once(&self, vault: &Vault, n: usize, gone: &Cell<bool>) {
        let (id, sealed) = &self.shop.people[n];
        if let Ok(grant) = self.unlock::<Shipping>(vault, &self.shop.tokens.shipping, id).await {
            let opened = sealed.open(&grant, &1).is_ok();
            assert!(!(opened && gone.get()), "opened after the forget had returned");
        }
    }

    /// One sealer and one seal.
    pub async fn seals_once(&self, vault: &Vault, n: usize, gone: &Cell<bool>) {
        let (id, _) = &self.shop.people[n];
        if let Ok(sealer) = vault.sealer::<Order>(id, &tester(), &test_ground()).await {
            let sealed = sealer.seal(order(), &2).is_ok();
            assert!(!(sealed && gone.get()), "sealed after the forget had returned");
        }
    }

    /// One put. Where nobody goes between a commit and its answer, an answer says that it was stored just now.
    pub async fn stores_once(&self, vault: &Vault, n: usize, gone: &Cell<bool>) {
        let (id, sealed) = &self.shop.people[n];
        let before = gone.get();
        let stored = vault.put(id, &1, sealed, &tester(), &test_ground()).await.is_ok();
        let after = before || (self.store.manner == Manner::Before && gone.get());
        assert!(!(stored && after), "stored after the forget had returned");
    }

    /// Takes and uses grants and sealers of somebody who is forgotten meanwhile.
    pub async fn clings(&self, vault: &Vault, n: usize, gone: &Cell<bool>) {
        let (id, sealed) = &self.shop.people[n];
        let mut grants = Vec::new();
        let mut sealers = Vec::new();
        for round in 0..4 {
            match self.unlock::<Shipping>(vault, &self.shop.tokens.shipping, id).await {
                Ok(grant) => grants.push(grant),
                Err(why) => assert_eq!(why, Error::Erased(Erased::Forgotten)),
            }
            match vault.sealer::<Order>(id, &tester(), &test_ground()).await {
                Ok(sealer) => sealers.push(sealer),
                Err(why) => assert_eq!(why, Error::Erased(Erased::Forgotten)),
            }
            let before = gone.get();
            let mut made = None;
            for sealer in &sealers {
                match sealer.seal(order(), &round) {
                    Ok(sealed) => {
                        assert!(!before, "sealed after the forget had returned");
                        made = Some(sealed);
                    }
                    Err(why) => assert!(matches!(why, Error::Erased(_) | Error::Stale), "{why:?}"),
                }
            }
            for grant in &grants {
                match sealed.open(grant, &1) {
                    Ok(_) => assert!(!before, "opened after the forget had returned"),
                    Err(why) => assert!(matches!(why, Error::Erased(_) | Error::Stale), "{why:?}"),
                }
            }
            if let Some(made) = made {
                match vault.put(id, &round, &made, &tester(), &test_ground()).await {
                    Ok(()) => assert!(!before, "stored after the forget had returned"),
                    Err(why) => assert_eq!(why, Error::Erased(Erased::Forgotten)),
                }
            }
        }
    }

    pub async fn is_held(&self, vault: &Vault, n: usize) {
        let (id, sealed) = &self.shop.people[n];
        let (me, why) = (tester(), test_ground());
        vault.hold(id, &me, &why).await.expect("holding");
        vault.withdraw::<Recommendation>(id, &me, &why).await.expect("withdrawing");
        vault.forget(id, Forget::by(&me, &why).without_grace()).await.expect("forgetting who is held");
        self.end(End::HeldBack(id.clone(), sealed.clone()));
    }

    /// A hold that returned while a day's key was still there keeps that day.
    pub async fn is_held_in_time(&self, vault: &Vault, n: usize) {
        let (id, sealed) = &self.shop.people[n];
        vault.hold(id, &tester(), &test_ground()).await.expect("holding");
        // The inner store lets nobody go first.
        let days = self.store.store.scan(Range::prefix(b"d"), 2).await.unwrap().rows;
        let first = days.first().map(|(name, _)| name[1..].to_vec());
        if first.is_some_and(|day| day <= first_day().number().to_be_bytes().to_vec()) {
            self.end(End::HeldDays(id.clone(), sealed.clone()));
        }
    }

    /// Whether what a hold must keep still opens for it.
    pub async fn holds_keep(&self, vault: &Vault) -> bool {
        let ends = self.ends.borrow().clone();
        for end in ends {
            let End::HeldDays(id, sealed) = end else { continue };
            let held = self.unlock::<LegalHold>(vault, &self.shop.tokens.hold, &id).await.unwrap();
            let view = sealed.open(&held, &1).unwrap();
            if view.name().is_err() || view.taste().is_err() {
                return false;
            }
        }
        true
    }

    /// Who was forgotten before the race began, so that a shred has something to do.
    pub fn has_left(&self, vault: &Vault, n: usize) {
        let (id, sealed) = &self.shop.people[n];
        self.gate.open(false);
        let forget = Forget::by(&tester(), &test_ground()).without_grace();
        let receipt = crate::schedule::alone(&self.clock, vault.forget(id, forget)).unwrap();
        self.references.borrow_mut().push(receipt.reference);
        self.gate.open(true);
        self.end(End::Gone(id.clone(), sealed.clone()));
    }

    /// Shreds until it is done; in another process's way, it is told so and tries again.
    pub async fn shreds(&self, vault: &Vault) -> ShredReceipt {
        for _ in 0..50 {
            match vault.shred(&tester(), &test_ground()).await {
                Err(Error::Busy) if self.store.shared() => {}
                done => return done.expect("shredding"),
            }
        }
        panic!("shredding never gets through");
    }

    pub async fn expires(&self, vault: &Vault) -> ExpireReceipt {
        for _ in 0..50 {
            match vault.expire(&tester(), &test_ground()).await {
                Err(Error::Busy) if self.store.shared() => {}
                done => return done.expect("expiring"),
            }
        }
        panic!("expiring never gets through");
    }

    pub async fn settles(&self, vault: &Vault) -> SettleReceipt {
        vault.settle(&tester(), &test_ground()).await.expect("settling")
    }

    pub fn is_reachable(&self, yes: bool) {
        self.store.out_of_reach.store(!yes, Ordering::SeqCst);
    }
}
