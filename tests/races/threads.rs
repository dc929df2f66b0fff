//! Real threads, on a store in memory and on one file: for the orders that no list of calls has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use customer_vault::error::Erased;
use customer_vault::log::{Action, Outcome};
use customer_vault::store::Store;
use customer_vault::testing::{ManualClock, MemoryKeeper};
use pollster::block_on;

use super::*;

const PEOPLE: usize = 6;

/// Every thread does so many rounds; nothing waits for a time.
fn stress(store: impl Store, rounds: usize) {
    let clock = ManualClock::at(shop::first_day());
    let keeper = MemoryKeeper::new();
    let window = RestoreWindow::none_every_older_backup_of_the_keys_dies_at_once();
    let settings = Settings::default().height(1).unwrap().restore_window(window);
    let options = Options::new().record::<shop::Order>().clock(clock).settings(settings);
    let vault = block_on(options.create(store, keeper.clone(), keeper)).unwrap();
    let hour = Duration::from_secs(3600);
    let token =
        block_on(vault.issue::<Shipping>(&tester(), &test_ground(), hour, Scope::everyone())).unwrap();
    let unlocked = AtomicUsize::new(0);
    let unlock = |id: &SubjectId| {
        let grant = block_on(vault.unlock::<Shipping>(&token, id));
        unlocked.fetch_add(usize::from(grant.is_ok()), Ordering::SeqCst);
        grant
    };
    let seal = |id: &SubjectId| {
        let sealer = block_on(vault.sealer::<shop::Order>(id, &tester(), &test_ground()))?;
        sealer.seal(shop::order(), &1)
    };
    let name = |who: &str, n: usize| SubjectId::new(&format!("{who}-{n}")).unwrap();
    let leaving: Vec<(SubjectId, Sealed<shop::Order>, Arc<AtomicBool>)> = (0..PEOPLE)
        .map(|n| {
            let id = name("leaver", n);
            block_on(vault.enroll(&id, [], &tester(), &test_ground())).unwrap();
            let sealed = seal(&id).unwrap();
            (id, sealed, Arc::default())
        })
        .collect();
    let working = AtomicUsize::new(3);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..rounds {
                let id = name("comer", n);
                block_on(vault.enroll(&id, [], &tester(), &test_ground())).unwrap();
                let sealed = seal(&id).unwrap();
                block_on(vault.put(&id, &1, &sealed, &tester(), &test_ground())).unwrap();
                assert!(sealed.open(&unlock(&id).unwrap(), &1).unwrap().name().is_ok());
            }
            working.fetch_sub(1, Ordering::SeqCst);
        });
        scope.spawn(|| {
            for (id, _, gone) in &leaving {
                for _ in 0..rounds / PEOPLE {
                    std::thread::yield_now();
                }
                let forget = Forget::by(&tester(), &test_ground()).without_grace();
                block_on(vault.forget(id, forget)).unwrap();
                gone.store(true, Ordering::SeqCst);
            }
            working.fetch_sub(1, Ordering::SeqCst);
        });
        scope.spawn(|| {
            for n in 0..rounds {
                let (id, sealed, gone) = &leaving[n % PEOPLE];
                let before = gone.load(Ordering::SeqCst);
                let outcome = unlock(id).and_then(|grant| {
                    let again = gone.load(Ordering::SeqCst);
                    let opened = sealed.open(&grant, &1).map(drop);
                    assert!(!(again && opened.is_ok()), "opened after the forget had returned");
                    opened
                });
                match outcome {
                    Ok(()) => assert!(!before, "unlocked after the forget had returned"),
                    Err(why) => assert_eq!(why, Error::Erased(Erased::Forgotten)),
                }
                match seal(id) {
                    Ok(_) => assert!(!before, "sealed after the forget had returned"),
                    Err(why) => assert_eq!(why, Error::Erased(Erased::Forgotten)),
                }
            }
            working.fetch_sub(1, Ordering::SeqCst);
        });
        scope.spawn(|| {
            while working.load(Ordering::SeqCst) > 0 {
                block_on(vault.shred(&tester(), &test_ground())).unwrap();
                block_on(vault.settle(&tester(), &test_ground())).unwrap();
                assert!(block_on(vault.verify_log()).unwrap().holds());
            }
        });
    });
    block_on(vault.shred(&tester(), &test_ground())).unwrap();
    for (id, sealed, _) in &leaving {
        let refused = unlock(id).and_then(|grant| sealed.open(&grant, &1).map(drop));
        assert_eq!(refused, Err(Error::Erased(Erased::Forgotten)));
    }
    for n in 0..rounds {
        assert!(unlock(&name("comer", n)).is_ok(), "an enrolment is lost");
    }
    assert!(block_on(vault.verify_log()).unwrap().holds());
    let entries = block_on(vault.log()).unwrap();
    let given = |e: &&log::Entry| e.action() == Action::Unlock && e.outcome() == Outcome::Done;
    assert_eq!(entries.iter().filter(given).count(), unlocked.load(Ordering::SeqCst));
}

#[test]
fn abuse_28_threads_on_a_store_in_memory() {
    stress(store::MemoryStore::new(), usize::try_from(schedules(60)).unwrap());
}

#[cfg(feature = "redb")]
#[test]
fn abuse_28_threads_on_one_file() {
    let path = std::env::temp_dir().join(format!("customer-vault-threads-{}.redb", std::process::id()));
    drop(std::fs::remove_file(&path));
    let store = store::RedbStore::create(&path).unwrap();
    stress(store, usize::try_from(schedules(30)).unwrap());
    std::fs::remove_file(&path).unwrap();
}
