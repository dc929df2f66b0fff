//! Copies of store, keeper and witness of different moments, whole and mixed: nothing that was erased opens again.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, missing_docs, unreachable_pub)]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs)]

#[path = "restore/found.rs"]
mod found;
#[path = "restore/history.rs"]
mod history;

use std::collections::{BTreeMap, BTreeSet};

use customer_vault::error::{KeeperError, RolledBack};
use customer_vault::store::MemoryStore;
use customer_vault::testing::{CommitFault, FaultStore, MemoryKeeper, grant, test_ground, tester};
use customer_vault::*;
use pollster::block_on;

use history::*;

async fn open(all: &History, store: &MemoryStore, keeper: &MemoryKeeper) -> Result<Vault> {
    options(&all.clock).open(store.snapshot(), keeper.clone(), keeper.clone()).await
}

#[test]
fn abuse_04_an_older_store_refuses_to_open_and_recover_replays_every_erasure() {
    block_on(async {
        let (all, vault) = History::unsettled().await;
        all.check(&vault, 1, false, "the history itself").await;
        let (me, why) = (tester(), test_ground());
        for copy in &all.copies {
            let keeper = all.keeper.snapshot();
            let refused = open(&all, &copy.store, &keeper).await.unwrap_err();
            assert!(
                matches!(refused, Error::RolledBack(RolledBack::Store | RolledBack::Gone)),
                "{}",
                copy.what
            );
            if copy.what == "created" {
                continue;
            }
            let store = copy.store.snapshot();
            let (one, two) = (keeper.clone(), keeper.clone());
            let recovered = options(&all.clock).recover(store.clone(), one, two, &me, &why).await.unwrap();
            all.check(&recovered, 1, false, copy.what).await;
            drop(recovered);
            // It is the newest now, and goes on as such; what was the newest is another history.
            let (one, two) = (keeper.clone(), keeper.clone());
            let again = options(&all.clock).open(store, one, two).await.unwrap();
            all.check(&again, 1, false, copy.what).await;
            again.shred(&me, &why).await.unwrap();
            again.expire(&me, &why).await.unwrap();
            all.check(&again, 1, false, copy.what).await;
            let newest = open(&all, &all.store, &keeper).await;
            // The last copy lacked one line, which is in it again: nothing tells the two apart, or has to.
            let same = copy.what == "carol shredded";
            assert!(same || matches!(newest, Err(Error::RolledBack(_))), "{}: {newest:?}", copy.what);
        }
    });
}

#[test]
fn abuse_04_who_was_lost_with_the_copy_can_be_enrolled_again() {
    block_on(async {
        let (all, _vault) = History::unsettled().await;
        let (me, why) = (tester(), test_ground());
        let (store, keeper) = (all.copies[0].store.snapshot(), all.keeper.snapshot());
        let vault = options(&all.clock).recover(store, keeper.clone(), keeper, &me, &why).await.unwrap();
        for who in 0..PEOPLE {
            let state = all.state(&vault, who).await;
            assert_eq!(state, [Ok(false), Ok(false), Ok(false), Ok(false), Ok(false)], "person {who}");
            match vault.enroll(&id(who), [], &me, &why).await {
                Ok(()) => {}
                Err(Error::Erased(_)) => vault.enroll_again(&id(who), [], &me, &why).await.unwrap(),
                why => panic!("person {who}: {why:?}"),
            }
            let sealer = vault.sealer::<Order>(&id(who), &me, &why).await.unwrap();
            let sealed = sealer.seal(an_order(), &1).unwrap();
            let ship = grant::<Ship>(&vault, &id(who)).await.unwrap();
            assert!(sealed.open(&ship, &1).unwrap().note().is_ok());
        }
    });
}

#[test]
fn abuse_05_an_older_store_from_before_a_destroyed_root_opens_for_nobody() {
    block_on(async {
        let (all, vault) = History::settled().await;
        all.check(&vault, 2, false, "the history itself").await;
        let (me, why) = (tester(), test_ground());
        let first = all.index_of("shredded");
        for (at, copy) in all.copies.iter().enumerate() {
            let keeper = all.keeper.snapshot();
            let refused = open(&all, &copy.store, &keeper).await.unwrap_err();
            assert!(
                matches!(refused, Error::RolledBack(RolledBack::Store | RolledBack::Gone)),
                "{}",
                copy.what
            );
            let (one, two) = (keeper.clone(), keeper.clone());
            let recovered = options(&all.clock).recover(copy.store.snapshot(), one, two, &me, &why).await;
            if at < first {
                assert_eq!(recovered.unwrap_err(), Error::RolledBack(RolledBack::Gone), "{}", copy.what);
            } else {
                all.check(&recovered.unwrap(), 2, false, copy.what).await;
            }
        }
    });
}

/// The tables that belong together, by the first letter of their rows.
const TABLES: [&[u8]; 6] = [b"ek", b"bmd", b"ns", b"fj", b"hyg", b"vu"];

/// What is mixed: the newest store with copies, and one with a forget that nothing was rotated after, so that its old
/// entries lie under the same keys.
fn pairs(all: &History) -> Vec<(&MemoryStore, &MemoryKeeper, u8, &Copy)> {
    let copy = |what| &all.copies[all.index_of(what)];
    let unrotated = copy("grace enrolled again");
    vec![
        (&all.store, &all.keeper, 1, copy("enrolled")),
        (&all.store, &all.keeper, 1, copy("shredded")),
        (&unrotated.store, &unrotated.keeper, 0, copy("enrolled")),
        (&unrotated.store, &unrotated.keeper, 0, copy("erin, frank and grace forgotten")),
    ]
}

#[test]
fn abuse_05_every_mixture_of_old_and_new_tables_keeps_the_erased_closed() {
    block_on(async {
        let (all, _vault) = History::unsettled().await;
        for (newest, keeper, late, old) in pairs(&all) {
            let (new_rows, old_rows) = (rows(newest).await, rows(&old.store).await);
            for mixture in 1..1_usize << TABLES.len() {
                let taken = |name: &[u8]| {
                    let mut tables = TABLES.iter().enumerate();
                    tables.any(|(n, table)| mixture >> n & 1 == 1 && table.contains(&name[0]))
                };
                let store = newest.snapshot();
                for (name, _) in new_rows.iter().filter(|(name, _)| taken(name)) {
                    put_back(&store, name, None).await;
                }
                for (name, row) in old_rows.iter().filter(|(name, _)| taken(name)) {
                    put_back(&store, name, Some(row)).await;
                }
                check_mixed(&all, &store, keeper, late, &format!("{}, mixture {mixture:b}", old.what)).await;
            }
        }
    });
}

#[test]
fn abuse_05_a_single_old_row_keeps_the_erased_closed() {
    block_on(async {
        let (all, _vault) = History::unsettled().await;
        for (newest, keeper, late, old) in pairs(&all) {
            let new_rows: BTreeMap<_, _> = rows(newest).await.into_iter().collect();
            let old_rows: BTreeMap<_, _> = rows(&old.store).await.into_iter().collect();
            let names: BTreeSet<_> = new_rows.keys().chain(old_rows.keys()).collect();
            let mut days = 0;
            for name in names {
                let (before, now) = (old_rows.get(name), new_rows.get(name));
                // Of the many days a few will do; entries of the log are other tests' matter.
                days += usize::from(name[0] == b'd');
                if before == now || name[0] == b'd' && days > 3 || b"lo".contains(&name[0]) {
                    continue;
                }
                let store = newest.snapshot();
                put_back(&store, name, before).await;
                check_mixed(&all, &store, keeper, late, &format!("{}, row {name:?}", old.what)).await;
            }
        }
    });
}

/// It opens and the erased stays closed, or the refusal says that something is wrong with the rows.
async fn check_mixed(all: &History, store: &MemoryStore, keeper: &MemoryKeeper, late: u8, context: &str) {
    match open(all, store, &keeper.snapshot()).await {
        Ok(vault) => all.check(&vault, late, true, context).await,
        Err(Error::RolledBack(_) | Error::Store(_) | Error::Busy) => {}
        Err(why) => panic!("{context}: {why:?} does not say what is wrong"),
    }
}

#[test]
fn abuse_05_an_entry_from_before_a_forget_does_not_open_for_a_running_vault_either() {
    block_on(async {
        let (all, vault) = History::unsettled().await;
        let old = &all.copies[all.index_of("enrolled")];
        let entries = rows(&old.store).await.into_iter().filter(|(name, _)| name[0] == b's');
        for (name, row) in entries {
            put_back(&all.store, &name, Some(&row)).await;
        }
        all.check(&vault, 1, true, "old entries under a running vault").await;
    });
}

#[test]
fn an_older_keeper_is_refused_and_nothing_is_written() {
    block_on(async {
        let (all, _vault) = History::settled().await;
        let newest = rows(&all.store).await;
        for copy in &all.copies[..=all.index_of("carol shredded")] {
            let store = all.store.snapshot();
            let keeper = copy.keeper.snapshot();
            let witness = all.keeper.snapshot();
            let refused = options(&all.clock).open(store.clone(), keeper, witness).await.unwrap_err();
            assert_eq!(refused, Error::RolledBack(RolledBack::Keeper), "{}", copy.what);
            assert_eq!(rows(&store).await, newest, "{}", copy.what);
        }
    });
}

#[test]
fn an_older_witness_is_brought_up_by_the_newest_store() {
    block_on(async {
        let (all, _vault) = History::settled().await;
        for copy in &all.copies {
            let (witness, keeper) = (copy.keeper.snapshot(), all.keeper.snapshot());
            let store = all.store.snapshot();
            let vault = options(&all.clock).open(store, keeper.clone(), witness.clone()).await.unwrap();
            all.check(&vault, 2, false, copy.what).await;
            drop(vault);
            let old = options(&all.clock).open(copy.store.snapshot(), keeper, witness).await;
            let refused = old.unwrap_err();
            assert!(
                matches!(refused, Error::RolledBack(RolledBack::Store | RolledBack::Gone)),
                "{}",
                copy.what
            );
        }
    });
}

/// The stated limit: store, keeper and witness of one moment show nothing that could tell.
#[test]
fn all_three_of_one_older_moment_open_as_they_were() {
    block_on(async {
        let (all, _vault) = History::unsettled().await;
        let old = &all.copies[all.index_of("enrolled")];
        let vault = open(&all, &old.store, &old.keeper.snapshot()).await.unwrap();
        let state = all.state(&vault, ALICE).await;
        assert_eq!(state, [Ok(true), Ok(true), Ok(true), Ok(true), Ok(false)]);
    });
}

#[test]
fn recover_can_be_killed_at_every_commit_and_run_again() {
    block_on(async {
        let (all, _vault) = History::unsettled().await;
        let (me, why) = (tester(), test_ground());
        let copy = &all.copies[all.index_of("enrolled")];
        for after in [false, true] {
            for nth in 0.. {
                let store = FaultStore::new(copy.store.snapshot());
                let keeper = all.keeper.snapshot();
                let fault = if after { CommitFault::KilledAfter } else { CommitFault::KilledBefore };
                store.fail_commit(nth, fault);
                let (one, two) = (keeper.clone(), keeper.clone());
                let first = options(&all.clock).recover(store.clone(), one, two, &me, &why).await;
                if !store.killed() {
                    assert!(first.is_ok() && nth > 10, "every commit was killed once: {nth}");
                    break;
                }
                drop(first);
                store.heal();
                // Nothing opens in between, but by recovering.
                let (one, two) = (keeper.clone(), keeper.clone());
                if let Ok(vault) = options(&all.clock).open(store.clone(), one, two).await {
                    all.check(&vault, 1, false, &format!("opened after commit {nth}")).await;
                }
                let (one, two) = (keeper.clone(), keeper.clone());
                let vault = options(&all.clock).recover(store, one, two, &me, &why).await.unwrap();
                all.check(&vault, 1, false, &format!("recovered after commit {nth}, {after}")).await;
            }
        }
    });
}

#[test]
fn abuse_33_what_is_held_survives_its_day_in_a_recovered_store_and_an_expiry_that_is_killed() {
    block_on(async {
        let (all, _vault) = History::unsettled().await;
        let (me, why) = (tester(), test_ground());
        for what in ["enrolled", "carol shredded"] {
            let copy = &all.copies[all.index_of(what)];
            let (store, keeper) = (copy.store.snapshot(), all.keeper.snapshot());
            let (one, two) = (keeper.clone(), keeper.clone());
            let mut vault = options(&all.clock).recover(store.clone(), one, two, &me, &why).await.unwrap();
            let start = clock::Clock::wall(&all.clock);
            for week in 0..15 {
                all.clock.advance_days(7);
                drop(vault);
                let faults = FaultStore::new(store.clone());
                let (one, two) = (keeper.clone(), keeper.clone());
                vault = options(&all.clock).open(faults.clone(), one, two).await.unwrap();
                faults.fail_commit(week % 8, CommitFault::KilledAfter);
                let killed = vault.expire(&me, &why).await;
                assert!(killed.is_err() || !faults.killed());
                faults.heal();
                let (one, two) = (keeper.clone(), keeper.clone());
                vault = options(&all.clock).open(store.clone(), one, two).await.unwrap();
                vault.expire(&me, &why).await.unwrap();
                vault.expire(&me, &why).await.unwrap();
            }
            let state = all.state(&vault, FRANK).await;
            assert_eq!(state, [Ok(false), Ok(false), Ok(false), Ok(false), Ok(true)], "{what}");
            assert_eq!(all.state(&vault, BOB).await.map(|open| open.unwrap()), [false; 5], "{what}");
            vault.release_hold(&id(FRANK), &me, &why).await.unwrap();
            assert_eq!(all.state(&vault, FRANK).await.map(|open| open.unwrap()), [false; 5], "{what}");
            all.clock.set_wall(start);
        }
    });
}

#[test]
fn abuse_34_after_a_shred_no_plaintext_and_no_id_lies_in_the_rows() {
    block_on(async {
        let (all, vault) = History::settled().await;
        let has = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        let rows = rows(&all.store).await;
        assert!(rows.iter().any(|(_, row)| has(&row.value, b"customer-vault/v1")), "the search finds things");
        for (name, row) in &rows {
            assert!(!has(name, CANARY.as_bytes()) && !has(&row.value, CANARY.as_bytes()), "{name:?}");
        }
        for reference in &all.references {
            let certificate = vault.certificate(reference).await.unwrap().unwrap();
            assert!(!certificate.as_str().contains(CANARY));
        }
        // What was sealed lies in the rows of the living only under another layer, and for the shredded, who left
        // something for the books, too: but never as it was handed in.
        for sealed in &all.sealed {
            assert!(!rows.iter().any(|(_, row)| has(&row.value, sealed.as_bytes())));
        }
    });
}

#[test]
fn abuse_35_a_keeper_that_lies_about_destroying_gets_no_certificate() {
    block_on(async {
        let (all, vault) = History::unsettled().await;
        let (me, why) = (tester(), test_ground());
        all.clock.advance_days(4);
        all.keeper.lies_about_destroying(true);
        let still = Error::Keeper(KeeperError::StillUnwraps);
        for honest in [false, true] {
            // What it has kept back it keeps, even if it were honest from now on.
            all.keeper.lies_about_destroying(!honest);
            assert_eq!(vault.settle(&me, &why).await.unwrap_err(), still);
            for reference in &all.references {
                assert_eq!(vault.certificate(reference).await.unwrap(), None);
            }
        }
    });
}

#[test]
fn a_recovered_store_settles_the_roots_that_the_copy_did_not_know() {
    block_on(async {
        let (all, _vault) = History::unsettled().await;
        let (me, why) = (tester(), test_ground());
        let copy = &all.copies[all.index_of("enrolled")];
        let (store, keeper) = (copy.store.snapshot(), all.keeper.snapshot());
        let (one, two) = (keeper.clone(), keeper.clone());
        let vault = options(&all.clock).recover(store, one, two, &me, &why).await.unwrap();
        for _ in 0..2 {
            all.clock.advance_days(7);
            vault.expire(&me, &why).await.unwrap();
        }
        let settled = vault.settle(&me, &why).await.unwrap();
        assert!(settled.roots > 0);
        assert!(settled.certificates.is_empty(), "what nobody has a reference to is not certified");
        for copy in all.copies.iter().skip(1) {
            let (one, two) = (keeper.clone(), keeper.clone());
            let old = options(&all.clock).recover(copy.store.snapshot(), one, two, &me, &why).await;
            assert!(matches!(old, Err(Error::RolledBack(_))), "{}: {old:?}", copy.what);
        }
        all.check(&vault, 1, false, "recovered and settled").await;
    });
}

#[test]
fn without_a_witness_an_older_store_brings_somebody_back_and_the_vault_has_said_so() {
    use customer_vault::witness::{NoWitness, Remembers};
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (store, keeper) = (MemoryStore::new(), MemoryKeeper::new());
        let clock = History::unsettled().await.0.clock;
        let open =
            |store: &MemoryStore| options(&clock).open(store.clone(), keeper.clone(), NoWitness::new());
        let vault = options(&clock).create(store.clone(), keeper.clone(), NoWitness::new()).await.unwrap();
        assert_eq!(vault.custody().remembers, Remembers::Nothing);
        assert_eq!(vault.doctor().await.unwrap(), [Concern::NoWitness]);
        vault.enroll(&id(0), [], &me, &why).await.unwrap();
        let copy = store.snapshot();
        assert!(!vault.forget(&id(0), Forget::by(&me, &why).without_grace()).await.unwrap().witnessed);
        let newest = store.snapshot();
        drop(vault);
        // Until the root is replaced nothing tells; the newest store itself goes on as it should.
        assert!(open(&copy).await.unwrap().sealer::<Order>(&id(0), &me, &why).await.is_ok());
        let vault = open(&newest).await.unwrap();
        assert!(matches!(vault.sealer::<Order>(&id(0), &me, &why).await, Err(Error::Erased(_))));
        vault.shred(&me, &why).await.unwrap();
        assert_eq!(open(&copy).await.unwrap_err(), Error::RolledBack(RolledBack::Store));
        let recovered = options(&clock).recover(copy, keeper.clone(), NoWitness::new(), &me, &why).await;
        assert_eq!(recovered.unwrap_err(), Error::Keeper(KeeperError::Missing));
    });
}
