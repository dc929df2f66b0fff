//! Rehearsing a restore, and saying who can still read a subject.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, missing_docs, unreachable_pub, dead_code)]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs)]

#[path = "drill/raced.rs"]
mod raced;
#[path = "backup/shop.rs"]
mod shop;

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use customer_vault::backup::{Backup, Drill, DrillReport, Source};
use customer_vault::error::BackupError;
use customer_vault::keeper::{Held, Keeper};
use customer_vault::log::Action;
use customer_vault::store::{MemoryStore, Range, Store};
use customer_vault::testing::grant;
use customer_vault::witness::{Line, Witness};
use customer_vault::*;
use pollster::block_on;

use shop::*;

async fn outside(shop: &Shop) -> (Vec<Held>, Vec<Line>) {
    (Keeper::held(&shop.keeper).await.unwrap(), Witness::recall(&shop.keeper, 1).await.unwrap())
}

#[test]
fn a_drill_shows_that_the_restored_opens_and_the_erased_stays_erased() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..5).await;
        shop.forget(1).await;
        shop.vault.shred(shop.me(), shop.why()).await.unwrap();
        let sample: Vec<SubjectId> = [1, 2, 3].map(id).into();
        let (roots, lines) = outside(&shop).await;
        let log = shop.vault.log().await.unwrap().len();
        let opening = Drill::of(&sample, shop.me(), shop.why()).opening(Box::new(|vault, subject| {
            Box::pin(async move {
                let Ok(grant) = grant::<Ship>(&vault, &subject).await else { return Ok(0) };
                let (me, why) = (testing::tester(), testing::test_ground());
                let sealed = vault.get::<Note>(&subject, (), &me, &why).await?.unwrap();
                sealed.open(&grant)?.text().map_err(Error::from)?;
                Ok(1)
            })
        }));
        let mut file = Cursor::new(b"before".to_vec());
        file.set_position(6);
        let (first, second) = (MemoryStore::new(), MemoryStore::new());
        let report = shop.vault.drill(|| shop.options(), &mut file, first.clone(), second.clone(), opening);
        let report = report.await.unwrap();
        assert_eq!((report.subjects, report.keys, report.values), (3, 2, 2), "{report}");
        let text = DrillReport::verify(report.note(), &shop.vault.verifier_key().unwrap()).unwrap();
        for line in
            ["by: service:test", "ground: test", "sample, values opened: 2", "begun: 2026-03-01T12:00:00Z"]
        {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains(CANARY));

        // The vault goes on as if nothing had been: no root and no line of the drill's.
        let (roots_now, lines_now) = outside(&shop).await;
        assert_eq!(roots_now, roots);
        assert_eq!(lines_now[..lines.len()], lines);
        assert_eq!(lines_now.len(), lines.len() + 2, "that a backup was begun, and finished");
        for who in [0, 2, 3, 4] {
            assert!(shop.reads(&shop.vault, who).await, "person {who}");
        }
        let own: Vec<_> = shop.vault.log().await.unwrap().into_iter().map(|entry| entry.action()).collect();
        assert!(own.len() > log && own.contains(&Action::Drill) && !own.contains(&Action::Restore));
        assert_eq!(own.iter().filter(|action| **action == Action::Forget).count(), 1, "the one of before");
        // What lies in the scratch stores is another history, and the vault's own keeper does not open it.
        let (keeper, witness) = (shop.keeper.clone(), shop.keeper.clone());
        assert!(shop.options().open(first, keeper, witness).await.is_err());
    });
}

#[test]
fn a_drill_needs_somebody_to_forget_and_says_what_does_not_open() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..2).await;
        shop.forget(0).await;
        let drill = async |sample: &[SubjectId], fails: bool| {
            let mut file = Cursor::new(Vec::new());
            let mut drill = Drill::of(sample, shop.me(), shop.why());
            if fails {
                drill = drill.opening(Box::new(|_, _| Box::pin(async { Err(Error::DoesNotOpen) })));
            }
            let (one, two) = (MemoryStore::new(), MemoryStore::new());
            shop.vault.drill(|| shop.options(), &mut file, one, two, drill).await.map(drop)
        };
        assert_eq!(drill(&[id(0), id(7)], false).await, Err(Error::NotEnrolled));
        assert_eq!(drill(&[], false).await, Err(Error::NotEnrolled));
        assert_eq!(drill(&[id(1)], true).await, Err(Error::DoesNotOpen));
        assert_eq!(drill(&[id(0), id(1)], false).await, Ok(()));
        let log = shop.vault.log().await.unwrap();
        let refused = log
            .iter()
            .filter(|entry| entry.action() == Action::Drill && entry.outcome() != log::Outcome::Done);
        assert_eq!(refused.count(), 3);
    });
}

/// Who can read a person: the source, the epoch, and whether it ends.
async fn ways(shop: &Shop, who: usize) -> Vec<(Source, u64, bool)> {
    let said = shop.vault.who_can_read(&id(who), shop.me(), shop.why()).await.unwrap();
    for way in &said.ways {
        assert_eq!(way.purposes, [PurposeId::of::<Ship>()], "{said}");
    }
    assert_eq!(said.nobody(), said.ways.is_empty());
    assert!(!said.to_string().contains(CANARY));
    said.ways.into_iter().map(|way| (way.source, way.epoch, way.until_ms.is_some())).collect()
}

fn is_backup((source, ..): &(Source, u64, bool)) -> bool {
    matches!(source, Source::Backup { .. })
}

#[test]
fn who_can_read_ends_with_the_root_of_the_last_copy() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..2).await;
        assert_eq!(ways(&shop, 1).await, [(Source::Store, 1, false)]);
        let early = shop.full().await;
        shop.clock.advance_days(5);
        shop.enroll(2..3).await;
        shop.clock.advance_days(5);
        shop.enroll(3..4).await;
        let by_backup = ways(&shop, 1).await;
        assert!(by_backup.len() == 2 && is_backup(&by_backup[1]) && !by_backup[1].2);
        assert_eq!(ways(&shop, 2).await.len(), 2, "a clock may be wrong by days");
        assert_eq!(ways(&shop, 3).await.len(), 1, "not in a backup from long before the enrolment");

        shop.forget(1).await;
        assert_eq!(ways(&shop, 1).await.len(), 2, "fenced is policy: the keys are there");
        shop.vault.shred(shop.me(), shop.why()).await.unwrap();
        let shredded = ways(&shop, 1).await;
        assert_eq!(shredded.len(), 2, "{shredded:?}");
        assert_eq!((shredded[0].0, shredded[0].1, shredded[0].2), (Source::OlderCopy, 1, true));
        assert!(is_backup(&shredded[1]) && shredded[1].2, "{shredded:?}");
        let newer = shop.full().await;
        assert!(newer.manifest.epoch > early.manifest.epoch);
        // Roots come and go; what was shredded under the first is in none of the later.
        for _ in 0..3 {
            shop.clock.advance_days(7);
            shop.vault.expire(shop.me(), shop.why()).await.unwrap();
            assert_eq!(ways(&shop, 1).await, shredded);
            shop.full().await;
        }
        let bob = ways(&shop, 0).await;
        assert!(bob.len() > 5 && bob[0] == (Source::Store, 5, false), "{bob:?}");
        for _ in 0..2 {
            shop.clock.advance_days(7);
            shop.vault.settle(shop.me(), shop.why()).await.unwrap();
        }
        assert_eq!(ways(&shop, 1).await, []);
        let nobody = shop.vault.who_can_read(&id(1), shop.me(), shop.why()).await.unwrap();
        assert!(nobody.nobody() && nobody.to_string().contains("nobody"));
    });
}

#[test]
fn who_can_read_knows_withdrawals_days_and_backups_that_were_interrupted() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..2).await;
        let (mut disk, mut index) = (Failing, std::io::sink());
        let failed = shop.vault.backup(&mut disk, &mut index, Backup::full(shop.me(), shop.why()));
        assert_eq!(failed.await.unwrap_err(), Error::Backup(BackupError::Write));
        let before = ways(&shop, 0).await;
        assert!(matches!(before[1].0, Source::Backup { finished: false, .. }), "{before:?}");
        shop.clock.advance_days(2);
        shop.vault.expire(shop.me(), shop.why()).await.unwrap();
        let said = shop.vault.who_can_read(&id(0), shop.me(), shop.why()).await.unwrap();
        let days: Vec<_> = said.ways.iter().map(|way| (way.epoch, way.days_after)).collect();
        let over = Day::from_ymd(2026, 3, 2).unwrap();
        assert_eq!(days, [(2, Some(over)), (1, None), (1, None)], "{said}");

        shop.vault.withdraw::<Ship>(&id(0), shop.me(), shop.why()).await.unwrap();
        assert_eq!(ways(&shop, 0).await.len(), 3, "withdrawn, and within the grace");
        shop.clock.advance_days(7);
        shop.vault.shred(shop.me(), shop.why()).await.unwrap();
        let ways = ways(&shop, 0).await;
        assert!(ways.iter().all(|(source, _, ends)| *source != Source::Store && *ends), "{ways:?}");
        assert_eq!(ways.len(), 3, "epochs 1 and 2, and the backup: {ways:?}");
    });
}

#[test]
fn a_restore_brings_back_what_was_shredded_until_it_is_shredded_again() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..2).await;
        let backup = shop.full().await;
        shop.forget(1).await;
        shop.vault.shred(shop.me(), shop.why()).await.unwrap();
        let before = ways(&shop, 1).await;
        let store = MemoryStore::new();
        let vault = shop.restore_into(&store, [&backup.part[..]]).await.unwrap();
        let after = vault.who_can_read(&id(1), shop.me(), shop.why()).await.unwrap();
        let epochs: Vec<u64> = after.ways.iter().map(|way| way.epoch).collect();
        assert!(before.len() == 2 && epochs.iter().all(|epoch| *epoch < 4), "{after}");
        assert!(epochs.iter().max() > before.iter().map(|(_, epoch, _)| epoch).max(), "{after}");
        assert!(after.ways.iter().all(|way| way.until_ms.is_some()), "{after}");
    });
}

/// The clock has jumped: nothing is shredded until somebody confirms the time, and what came back is said to be there.
#[test]
fn after_ten_days_without_a_process_a_restore_says_what_it_brought_back() {
    block_on(async {
        let shop = Shop::open().await;
        let (me, why) = (shop.me(), shop.why());
        shop.enroll(0..3).await;
        let backup = shop.full().await;
        shop.forget(1).await;
        shop.vault.shred(me, why).await.unwrap();
        shop.clock.advance_days(10);
        let store = MemoryStore::new();
        let vault = shop.restore_into(&store, [&backup.part[..]]).await.unwrap();
        assert!(!shop.reads(&vault, 1).await);
        assert!(matches!(vault.shred(me, why).await, Err(Error::Halted(_))));
        let in_the_store = async |vault: &Vault| {
            let who = vault.who_can_read(&id(1), me, why).await.unwrap();
            who.ways.iter().any(|way| way.source == Source::Store)
        };
        assert!(in_the_store(&vault).await);
        drop(vault);
        let vault = shop.options().open(store, shop.keeper.clone(), shop.keeper.clone()).await.unwrap();
        assert!(in_the_store(&vault).await);
        let mut part = Vec::new();
        vault.backup(&mut part, &mut std::io::sink(), Backup::full(me, why)).await.unwrap();
        assert_eq!(vault.verify_backup([&part[..]], me, why).await.unwrap().forgotten, 1);
        vault.confirm_time(me, why).await.unwrap();
        vault.shred(me, why).await.unwrap();
        assert!(!in_the_store(&vault).await);
    });
}

#[test]
fn the_doctor_knows_the_backups() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..2).await;
        assert_eq!(shop.vault.doctor().await.unwrap(), []);
        shop.full().await;
        assert_eq!(shop.vault.doctor().await.unwrap(), []);
        shop.forget(0).await;
        shop.vault.shred(shop.me(), shop.why()).await.unwrap();
        assert_eq!(shop.vault.doctor().await.unwrap(), [Concern::BackupOlderThanShred]);
        let mut part = Vec::new();
        let what = Backup::full(shop.me(), shop.why()).kept_for_days(31);
        shop.vault.backup(&mut part, &mut std::io::sink(), what).await.unwrap();
        assert_eq!(shop.vault.doctor().await.unwrap(), [Concern::BackupsOutliveWindow]);
        shop.full().await;
        assert_eq!(shop.vault.doctor().await.unwrap(), []);
    });
}

/// Enrolments, forgets and shreds of two threads while backups of one moment are made.
#[test]
fn a_backup_is_of_one_moment_whatever_is_written_meanwhile() {
    let shop = block_on(Shop::open());
    block_on(shop.enroll(0..10));
    let stop = Arc::new(AtomicBool::new(false));
    let backups = std::thread::scope(|scope| {
        let enrolling = scope.spawn(|| {
            let mut who = 100;
            while !stop.load(Ordering::Acquire) {
                block_on(shop.enroll(who..who + 1));
                who += 1;
            }
            who
        });
        let forgetting = scope.spawn(|| {
            for who in 0..5 {
                block_on(shop.forget(who));
                block_on(shop.vault.shred(shop.me(), shop.why())).unwrap();
            }
        });
        let mut backups = vec![block_on(shop.full())];
        for _ in 0..8 {
            backups.push(block_on(shop.since(backups.last().unwrap())));
        }
        forgetting.join().unwrap();
        stop.store(true, Ordering::Release);
        enrolling.join().unwrap();
        backups
    });
    block_on(async {
        for upto in 1..=backups.len() {
            let keeper = shop.keeper.snapshot();
            let restore = shop.options().restore(
                MemoryStore::new(),
                keeper.clone(),
                keeper,
                parts(&backups[..upto]),
                shop.me(),
                shop.why(),
            );
            let vault = restore.await.unwrap();
            for who in 0..10 {
                assert_eq!(shop.reads(&vault, who).await, who >= 5, "person {who} in {upto}");
            }
            assert!(vault.verify_log().await.unwrap().holds(), "{upto}");
        }
        assert!(shop.store.scan(Range::prefix(b"B"), 10).await.unwrap().rows.is_empty());
    });
}
