//! Who can still read somebody who was forgotten while a shred was under way, or whose shred stopped halfway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use customer_vault::backup::{Backup, Source};
use customer_vault::error::KeeperError;
use customer_vault::store::MemoryStore;
use customer_vault::testing::{Call, FaultStore, ManualClock, MemoryKeeper, grant, test_ground, tester};
use customer_vault::witness::NoWitness;
use customer_vault::*;
use pollster::block_on;

use super::shop::{Note, Ship, id};

/// A vault whose store can let others go first.
struct Raced {
    clock: ManualClock,
    store: FaultStore<MemoryStore>,
    keeper: MemoryKeeper,
    vault: Vault,
}

impl Raced {
    async fn new() -> Self {
        let clock = ManualClock::at(Day::from_ymd(2026, 3, 1).unwrap());
        let (store, keeper) = (FaultStore::new(MemoryStore::new()), MemoryKeeper::new());
        let settings = Settings::default().height(2).unwrap();
        let options = Options::new().record::<Note>().settings(settings).clock(clock.clone());
        let vault = options.create(store.clone(), keeper.clone(), keeper.clone()).await.unwrap();
        for who in 0..4 {
            vault.enroll(&id(who), [], &tester(), &test_ground()).await.unwrap();
        }
        Raced { clock, store, keeper, vault }
    }

    async fn forget(&self, who: usize) {
        forget(&self.vault, who).await;
    }

    /// 1 is shredded; 2 is forgotten after that shred has replaced the root and before it says so in the journal.
    async fn with_one_forgotten_during_a_shred() -> Self {
        let raced = Raced::new().await;
        raced.forget(1).await;
        let (seen, other) = (Arc::new(AtomicU32::new(0)), raced.vault.clone());
        let counted = Arc::clone(&seen);
        raced.store.before_each(move |call| {
            let sweep = matches!(call, Call::Scan(range) if range.start.starts_with(b"G"));
            if !sweep || seen.fetch_add(1, Ordering::SeqCst) != 1 {
                return Box::pin(std::future::ready(()));
            }
            let other = other.clone();
            Box::pin(async move { forget(&other, 2).await })
        });
        raced.vault.shred(&tester(), &test_ground()).await.unwrap();
        raced.store.without_hook();
        assert!(counted.load(Ordering::SeqCst) > 1, "it came between");
        raced
    }

    /// Who has copies of the store and of the keeper.
    async fn thief(&self, (store, keeper): (MemoryStore, MemoryKeeper)) -> Vault {
        let options = Options::new().record::<Note>().clock(self.clock.clone());
        options.open(store, keeper, NoWitness::new()).await.unwrap()
    }
}

async fn forget(vault: &Vault, who: usize) {
    let request = Forget::by(&tester(), &test_ground()).without_grace();
    vault.forget(&id(who), request).await.unwrap();
}

#[test]
fn a_report_counts_who_was_forgotten_while_a_shred_was_under_way() {
    block_on(async {
        let Raced { vault, .. } = Raced::with_one_forgotten_during_a_shred().await;
        let (me, why) = (tester(), test_ground());
        let mut part = Vec::new();
        vault.backup(&mut part, &mut std::io::sink(), Backup::full(&me, &why)).await.unwrap();
        let said = vault.who_can_read(&id(2), &me, &why).await.unwrap();
        assert!(said.ways.iter().any(|way| way.source == Source::Store), "so it is in the backup: {said}");
        let report = vault.verify_backup([&part[..]], &me, &why).await.unwrap();
        assert_eq!(report.forgotten, 1, "{report}");
    });
}

#[test]
fn a_backup_that_has_who_was_forgotten_during_a_shred_is_a_way() {
    block_on(async {
        let raced = Raced::with_one_forgotten_during_a_shred().await;
        let (vault, me, why) = (&raced.vault, tester(), test_ground());
        raced.clock.advance_days(6);
        let mut part = Vec::new();
        vault.backup(&mut part, &mut std::io::sink(), Backup::full(&me, &why)).await.unwrap();
        let stolen = (raced.store.inner().snapshot(), raced.keeper.snapshot());
        vault.shred(&me, &why).await.unwrap();
        // Until the window of the first root is over, and that of the second is not.
        for days in [6, 6, 6, 6, 1] {
            raced.clock.advance_days(days);
            vault.settle(&me, &why).await.unwrap();
        }
        let said = vault.who_can_read(&id(2), &me, &why).await.unwrap();
        let thief = raced.thief(stolen).await;
        let opened = thief.who_can_read(&id(2), &me, &why).await.unwrap();
        assert!(opened.ways.iter().any(|way| way.source == Source::Store), "{opened}");
        assert!(said.ways.iter().any(|way| matches!(way.source, Source::Backup { .. })), "{said}");
        assert!(vault.verify_backup([&part[..]], &me, &why).await.unwrap().brings_back());
    });
}

#[test]
fn a_shred_that_stops_before_the_root_leaves_copies_under_the_root_of_now() {
    block_on(async {
        let raced = Raced::new().await;
        let (vault, me, why) = (&raced.vault, tester(), test_ground());
        let yesterday = raced.store.inner().snapshot();
        raced.clock.advance_days(1);
        raced.forget(1).await;
        let away = raced.keeper.clone();
        raced.store.before_each(move |call| {
            if let Call::Commit(batch) = call
                && batch.writes.iter().any(|(name, _)| name.starts_with(b"p"))
            {
                away.keeper_unreachable(true);
            }
            Box::pin(std::future::ready(()))
        });
        let stopped = vault.shred(&me, &why).await;
        assert_eq!(stopped.unwrap_err(), KeeperError::Unreachable.into());
        raced.store.without_hook();
        raced.keeper.keeper_unreachable(false);
        let said = vault.who_can_read(&id(1), &me, &why).await.unwrap();
        let thief = raced.thief((yesterday, raced.keeper.snapshot())).await;
        assert!(
            grant::<Ship>(&thief, &id(1)).await.is_ok(),
            "yesterday's store opens with the keeper of now"
        );
        assert!(said.ways.iter().any(|way| way.source == Source::OlderCopy), "{said}");
    });
}
