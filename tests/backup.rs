//! Backups: made under load, checked, restored, damaged in every way, and never a way back for the erased.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, missing_docs, unreachable_pub)]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs)]

#[path = "backup/shop.rs"]
mod shop;

use customer_vault::backup::{Backup, Manifest, Opens, check};
use customer_vault::error::{BackupError, KeeperError, RolledBack, StoreError};
use customer_vault::log::Action;
use customer_vault::store::{MemoryStore, Range, Store};
use customer_vault::testing::{CommitFault, FaultStore, MemoryKeeper, test_ground, tester};
use customer_vault::witness::NoWitness;
use customer_vault::*;
use pollster::block_on;

use shop::*;

fn wrong<T: std::fmt::Debug>(why: BackupError, what: Result<T>, context: &str) {
    assert_eq!(what.map(drop), Err(Error::Backup(why)), "{context}");
}

#[test]
fn a_full_backup_and_its_increments_bring_everything_back() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..20).await;
        let mut backups = vec![shop.full().await];
        shop.enroll(20..30).await;
        shop.forget(3).await;
        backups.push(shop.since(backups.last().unwrap()).await);
        shop.vault.shred(&tester(), &test_ground()).await.unwrap();
        backups.push(shop.since(backups.last().unwrap()).await);
        assert_eq!(backups[2].manifest.number, 2);
        assert!(backups[1].manifest.rows < backups[0].manifest.rows && backups[2].manifest.deleted > 0);

        let report = shop.vault.verify_backup(parts(&backups), &tester(), &test_ground()).await.unwrap();
        assert_eq!(report.opens, Opens::Now);
        assert_eq!((report.forgotten, report.parts.len()), (0, 3), "{report}");
        let older = shop.vault.verify_backup(parts(&backups[..1]), &tester(), &test_ground()).await.unwrap();
        assert_eq!((older.forgotten, older.withdrawn), (1, 0), "{older}");
        assert!(matches!(older.opens, Opens::Until(ms) if ms == shop.now() + 30 * 86_400_000), "{older}");

        let restored = shop.restore(parts(&backups)).await.unwrap();
        for who in 0..30 {
            assert_eq!(shop.reads(&restored, who).await, who != 3, "person {who}");
        }
        // It is the vault now: it takes newcomers, forgets, and can be backed up again.
        shop.refuses_to_open().await;
        restored.forget(&id(5), Forget::by(&tester(), &test_ground())).await.unwrap();
        assert!(!shop.reads(&restored, 5).await && shop.reads(&restored, 6).await);
    });
}

#[test]
fn a_chain_may_be_signed_by_keys_that_followed_each_other() {
    block_on(async {
        let shop = Shop::open().await;
        let (me, why) = (tester(), test_ground());
        shop.enroll(0..3).await;
        let mut backups = vec![shop.full().await];
        let before = shop.vault.verifier_keys().unwrap();
        shop.vault.change_key(KeyKind::Signing, &me, &why).await.unwrap();
        shop.enroll(3..5).await;
        backups.push(shop.since(backups.last().unwrap()).await);
        wrong(BackupError::Altered, check(parts(&backups), &before), "the new key is not known");
        let keys = shop.vault.verifier_keys().unwrap();
        // The last part names the one before by its hash: who believes its signature believes both.
        assert_eq!(check(parts(&backups), &keys[..1]).unwrap().len(), 2);
        assert_eq!(check(parts(&backups), &keys).unwrap().len(), 2);
        assert_eq!(shop.vault.verify_backup(parts(&backups), &me, &why).await.unwrap().opens, Opens::Now);
        let restored = shop.restore(parts(&backups)).await.unwrap();
        assert!(shop.reads(&restored, 4).await);
    });
}

/// The vault does not believe a retired key any more; the last part names the others by their hashes.
#[test]
fn a_chain_from_before_a_retired_key_is_restored_by_its_last_part() {
    block_on(async {
        let shop = Shop::open().await;
        let (me, why) = (tester(), test_ground());
        shop.enroll(0..3).await;
        let mut backups = vec![shop.full().await];
        shop.vault.change_key(KeyKind::Signing, &me, &why).await.unwrap();
        shop.enroll(3..5).await;
        backups.push(shop.since(backups.last().unwrap()).await);
        shop.vault.retire_keys(KeyKind::Signing, &me, &why).await.unwrap();
        shop.enroll(5..6).await;
        backups.push(shop.since(backups.last().unwrap()).await);
        assert_eq!(shop.vault.verify_backup(parts(&backups), &me, &why).await.unwrap().opens, Opens::Now);
        let restored = shop.restore(parts(&backups)).await.unwrap();
        assert!(shop.reads(&restored, 0).await && shop.reads(&restored, 5).await);
    });
}

#[test]
fn whoever_was_forgotten_after_the_backup_stays_forgotten() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..6).await;
        let backups = [shop.full().await];
        shop.forget(1).await;
        shop.vault.withdraw::<Ship>(&id(2), &tester(), &test_ground()).await.unwrap();
        shop.vault.shred(&tester(), &test_ground()).await.unwrap();
        shop.forget(4).await;
        let report = shop.vault.verify_backup(parts(&backups), &tester(), &test_ground()).await.unwrap();
        assert_eq!((report.forgotten, report.withdrawn), (2, 1), "{report}");
        assert!(report.brings_back());
        let restored = shop.restore(parts(&backups)).await.unwrap();
        for who in 0..6 {
            assert_eq!(shop.reads(&restored, who).await, ![1, 2, 4].contains(&who), "person {who}");
        }
    });
}

#[test]
fn abuse_05_a_backup_older_than_the_window_opens_for_nobody() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..3).await;
        let backups = [shop.full().await];
        shop.forget(1).await;
        shop.vault.shred(&tester(), &test_ground()).await.unwrap();
        for _ in 0..5 {
            shop.clock.advance_days(7);
            shop.vault.expire(&tester(), &test_ground()).await.unwrap();
        }
        shop.vault.settle(&tester(), &test_ground()).await.unwrap();
        let report = shop.vault.verify_backup(parts(&backups), &tester(), &test_ground()).await.unwrap();
        assert_eq!(report.opens, Opens::Never);
        assert!(!report.opens() && !report.brings_back() && report.to_string().contains("for nobody"));
        let store = MemoryStore::new();
        let refused = shop.restore_into(&store, parts(&backups)).await;
        assert_eq!(refused.unwrap_err(), Error::RolledBack(RolledBack::Gone));
        let open = shop.options().open(store, shop.keeper.clone(), shop.keeper.clone()).await;
        assert_eq!(open.unwrap_err(), Error::Store(StoreError::Unfinished));
    });
}

#[test]
fn an_increment_that_is_missing_or_out_of_place_is_refused() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..3).await;
        let mut all = vec![shop.full().await];
        for more in 0..3 {
            shop.enroll(3 + more..4 + more).await;
            all.push(shop.since(all.last().unwrap()).await);
        }
        let other = shop.full().await;
        let cases: [(&[&Made], BackupError); 7] = [
            (&[&all[0], &all[2]], BackupError::Missing),
            (&[&all[0], &all[1], &all[3]], BackupError::Missing),
            (&[&all[0], &all[2], &all[1]], BackupError::Missing),
            (&[&all[0], &all[1], &all[1]], BackupError::Missing),
            (&[&other, &all[1]], BackupError::Missing),
            (&[&all[1], &all[2]], BackupError::NotFull),
            (&[&all[0], &other], BackupError::NotFull),
        ];
        for (which, why) in cases {
            let parts = || which.iter().map(|made| &made.part[..]);
            wrong(why, check(parts(), &shop.vault.verifier_keys().unwrap()), "checked");
            wrong(why, shop.vault.verify_backup(parts(), &tester(), &test_ground()).await, "verified");
            wrong(why, shop.restore(parts()).await, "restored");
        }
        wrong(BackupError::NoParts, shop.restore(Vec::<&[u8]>::new()).await, "none");
        shop.restore(parts(&all)).await.unwrap();
    });
}

#[test]
fn a_part_that_is_cut_off_anywhere_is_refused() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..2).await;
        let full = shop.full().await;
        let key = shop.vault.verifier_keys().unwrap();
        for len in 0..full.part.len() {
            wrong(BackupError::Truncated, check([&full.part[..len]], &key), &format!("{len} bytes"));
        }
        let mut longer = full.part.clone();
        longer.push(0);
        wrong(BackupError::Altered, check([&longer[..]], &key), "a byte too many");
        // It stays closed, and can be begun again.
        let store = MemoryStore::new();
        let cut = &full.part[..full.part.len() - 1];
        wrong(BackupError::Truncated, shop.restore_into(&store, [cut]).await, "restored");
        let open = shop.options().open(store.clone(), shop.keeper.clone(), shop.keeper.clone()).await;
        assert_eq!(open.unwrap_err(), Error::Store(StoreError::Unfinished));
        let create = shop.options().create(store.clone(), MemoryKeeper::new(), MemoryKeeper::new()).await;
        assert_eq!(create.unwrap_err(), Error::Store(StoreError::Unfinished));
        let restored = shop.restore_into(&store, [&full.part[..]]).await.unwrap();
        assert!(shop.reads(&restored, 1).await);
    });
}

#[test]
fn a_part_that_was_altered_anywhere_is_refused() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..1).await;
        let full = shop.full().await;
        let key = shop.vault.verifier_keys().unwrap();
        for at in 0..full.part.len() {
            let mut altered = full.part.clone();
            altered[at] ^= 1 << (at % 8);
            let refused = check([&altered[..]], &key).unwrap_err();
            assert!(
                matches!(
                    refused,
                    Error::Backup(BackupError::Altered | BackupError::Truncated | BackupError::Foreign)
                        | Error::Unsupported(_)
                ),
                "byte {at}: {refused:?}"
            );
        }
    });
}

/// Whoever can write the part can write its hashes too; the signature is what they cannot.
#[test]
fn a_part_whose_hashes_were_made_again_is_refused_too() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..2).await;
        let (old, new) = (shop.full().await, shop.full().await);
        // The rows of one under the manifest of the other.
        let forged = forge(&new.part, &old.part);
        wrong(BackupError::Altered, check([&forged[..]], &shop.vault.verifier_keys().unwrap()), "checked");
        let store = MemoryStore::new();
        wrong(BackupError::Altered, shop.restore_into(&store, [&forged[..]]).await, "restored");
        let open = shop.options().open(store, shop.keeper.clone(), shop.keeper.clone()).await;
        assert_eq!(open.unwrap_err(), Error::Store(StoreError::Unfinished));
    });
}

#[test]
fn another_vaults_backup_is_refused() {
    block_on(async {
        let (shop, other) = (Shop::open().await, Shop::open().await);
        let (own, theirs) = (shop.full().await, other.full().await);
        let verified = shop.vault.verify_backup([&theirs.part[..]], &tester(), &test_ground()).await;
        wrong(BackupError::OtherVault, verified, "verified");
        wrong(
            BackupError::OtherVault,
            check([&theirs.part[..]], &shop.vault.verifier_keys().unwrap()),
            "checked",
        );
        let store = MemoryStore::new();
        let restored = shop.restore_into(&store, [&theirs.part[..]]).await;
        assert_eq!(restored.unwrap_err(), Error::Keeper(KeeperError::Foreign));
        assert!(rows(&store).await.is_empty(), "nothing was written");
        wrong(BackupError::OtherVault, shop.restore([&own.part[..], &theirs.part[..]]).await, "mixed");
        let (mut part, mut index) = (Vec::new(), Vec::new());
        let mut from = &theirs.index[..];
        let since = Backup::since(&theirs.manifest, &mut from, shop.me(), shop.why());
        wrong(BackupError::OtherVault, shop.vault.backup(&mut part, &mut index, since).await, "since");
    });
}

#[test]
fn an_increment_needs_the_index_of_its_base_as_it_was_written() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..2).await;
        let (one, two) = (shop.full().await, shop.full().await);
        let since = async |manifest: &Manifest, mut index: &[u8]| {
            let (mut part, mut next) = (Vec::new(), Vec::new());
            let what = Backup::since(manifest, &mut index, shop.me(), shop.why());
            let made = shop.vault.backup(&mut part, &mut next, what).await;
            // Whatever was written by then is no backup.
            if made.is_err() && !part.is_empty() {
                let key = shop.vault.verifier_keys().unwrap();
                wrong(BackupError::Truncated, check([&one.part[..], &part[..]], &key), "half");
            }
            made
        };
        since(&one.manifest, &one.index).await.unwrap();
        wrong(BackupError::WrongBase, since(&one.manifest, &two.index).await, "another index");
        for len in (0..one.index.len()).step_by(7) {
            let refused = since(&one.manifest, &one.index[..len]).await.unwrap_err();
            assert!(
                matches!(refused, Error::Backup(BackupError::WrongBase | BackupError::Truncated)),
                "{len}: {refused:?}"
            );
            let mut altered = one.index.clone();
            altered[len] ^= 1;
            assert!(since(&one.manifest, &altered).await.is_err(), "byte {len} altered");
        }
        let mut made_up = one.manifest.clone();
        made_up.index = two.manifest.index;
        wrong(BackupError::WrongBase, since(&made_up, &two.index).await, "a manifest that was made up");
        let note = one.manifest.note().replace("rows written: ", "rows written: 1");
        assert_eq!(
            Manifest::verify(&note, &shop.vault.verifier_keys().unwrap()).unwrap_err(),
            Error::DoesNotOpen
        );
        assert_eq!(
            Manifest::verify(one.manifest.note(), &shop.vault.verifier_keys().unwrap()).unwrap(),
            one.manifest
        );
    });
}

#[test]
fn a_store_with_anything_in_it_is_not_restored_into() {
    block_on(async {
        let shop = Shop::open().await;
        let full = shop.full().await;
        let before = rows(&shop.store).await;
        let refused = shop.restore_into(&shop.store, [&full.part[..]]).await;
        wrong(BackupError::NotEmpty, refused, "the vault's own store");
        assert_eq!(rows(&shop.store).await, before);
        let restored = shop.options().restore(
            MemoryStore::new(),
            shop.keeper.clone(),
            NoWitness::new(),
            [&full.part[..]],
            shop.me(),
            shop.why(),
        );
        assert_eq!(restored.await.unwrap_err(), Error::Keeper(KeeperError::Missing), "nothing to do again");
    });
}

#[test]
fn a_restore_that_is_killed_at_any_commit_opens_nothing_and_is_begun_again() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..4).await;
        let mut backups = vec![shop.full().await];
        shop.enroll(4..6).await;
        backups.push(shop.since(&backups[0]).await);
        shop.forget(1).await;
        for after in [false, true] {
            for nth in 0.. {
                let store = FaultStore::new(MemoryStore::new());
                let keeper = shop.keeper.snapshot();
                let fault = if after { CommitFault::KilledAfter } else { CommitFault::KilledBefore };
                store.fail_commit(nth, fault);
                let restore = async || {
                    let (one, two) = (keeper.clone(), keeper.clone());
                    let into = store.clone();
                    shop.options().restore(into, one, two, parts(&backups), shop.me(), shop.why()).await
                };
                let first = restore().await;
                if !store.killed() {
                    assert!(first.is_ok() && nth > 5, "every commit was killed once: {nth}");
                    break;
                }
                drop(first);
                store.heal();
                let (one, two) = (keeper.clone(), keeper.clone());
                if let Ok(vault) = shop.options().open(store.clone(), one, two).await {
                    assert!(!shop.reads(&vault, 1).await, "opened after commit {nth}");
                }
                let vault = match restore().await {
                    Err(Error::Backup(BackupError::NotEmpty)) => {
                        let (one, two) = (keeper.clone(), keeper.clone());
                        shop.options().recover(store.clone(), one, two, shop.me(), shop.why()).await.unwrap()
                    }
                    vault => vault.unwrap(),
                };
                for who in 0..6 {
                    assert_eq!(shop.reads(&vault, who).await, who != 1, "person {who} after commit {nth}");
                }
            }
        }
    });
}

#[test]
fn who_makes_a_backup_stands_in_the_log_before_its_first_byte() {
    block_on(async {
        let shop = Shop::open().await;
        let mut full = Failing;
        let made =
            shop.vault.backup(&mut full, &mut std::io::sink(), Backup::full(shop.me(), shop.why())).await;
        wrong(BackupError::Write, made, "a disk that fails");
        let made = shop.full().await;
        shop.vault.verify_backup([&made.part[..]], shop.me(), shop.why()).await.unwrap();
        let restored = shop.restore([&made.part[..]]).await.unwrap();
        let of = async |vault: &Vault| {
            let log = vault.log().await.unwrap();
            let own = log
                .iter()
                .filter(|entry| entry.actors() == [tester()] && entry.ground() == Some(&test_ground()));
            own.map(log::Entry::action).collect::<Vec<_>>()
        };
        let count = |actions: &[Action], action| actions.iter().filter(|known| **known == action).count();
        let actions = of(&shop.vault).await;
        assert_eq!(count(&actions, Action::Backup), 3, "one that failed, and one that did not");
        assert_eq!(count(&actions, Action::VerifyBackup), 1);
        assert_eq!(count(&of(&restored).await, Action::Restore), 1);
        assert!(restored.verify_log().await.unwrap().holds());
    });
}

#[test]
fn nothing_in_a_part_is_in_the_clear() {
    block_on(async {
        let shop = Shop::open().await;
        shop.enroll(0..5).await;
        let full = shop.full().await;
        let has = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        assert!(has(&full.part, b"customer-vault/backup/1"), "the search finds things");
        assert!(!has(&full.part, CANARY.as_bytes()) && !has(&full.index, CANARY.as_bytes()));
    });
}

async fn rows(store: &MemoryStore) -> Vec<(Vec<u8>, store::Versioned)> {
    store.scan(Range::prefix(b""), 100_000).await.unwrap().rows
}
