//! Commits of many tasks in one process are under way together, so that a store can make them durable with one sync.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use customer_vault::error::{Misuse, StoreError};
use customer_vault::store::{Batch, CommitError, Key, MemoryStore, Page, Range, Store, Versioned};
use customer_vault::testing::{MemoryKeeper, test_ground, tester, yield_now};
use customer_vault::{Error, Options, SubjectId};
use pollster::block_on;

const TASKS: usize = 8;

/// Applies a commit when it is called, as redb's queue orders them, and answers once another one is under way, or when
/// none has come for long.
#[derive(Debug, Default)]
struct Slow {
    rows: MemoryStore,
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    on: Arc<AtomicUsize>,
}

impl Store for Slow {
    fn read(&self, keys: &[Key]) -> impl Future<Output = Result<Vec<Option<Versioned>>, StoreError>> + Send {
        self.rows.read(keys)
    }

    fn scan(&self, range: Range, limit: usize) -> impl Future<Output = Result<Page, StoreError>> + Send {
        self.rows.scan(range, limit)
    }

    fn commit(&self, batch: Batch) -> impl Future<Output = Result<(), CommitError>> + Send {
        let answer = self.rows.commit(batch);
        self.under_way.fetch_add(1, Ordering::SeqCst);
        async move {
            for _ in 0..10_000 * self.on.load(Ordering::SeqCst) {
                if self.most.fetch_max(self.under_way.load(Ordering::SeqCst), Ordering::SeqCst) > 1 {
                    break;
                }
                std::thread::yield_now();
                yield_now().await;
            }
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            answer.await
        }
    }

    fn shared(&self) -> bool {
        false
    }
}

#[test]
fn commits_of_many_tasks_are_under_way_together_and_one_that_fails_takes_no_other_with_it() {
    let store = Slow::default();
    let (most, on) = (Arc::clone(&store.most), Arc::clone(&store.on));
    let keeper = MemoryKeeper::new();
    let vault = block_on(Options::new().create(store, keeper.clone(), keeper)).unwrap();
    on.store(1, Ordering::SeqCst);
    let (me, why) = (tester(), test_ground());
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for task in 0..TASKS {
            let (vault, me, why, refused) = (&vault, &me, &why, &refused);
            scope.spawn(move || {
                for number in 0..20 {
                    let own = SubjectId::new(&format!("{task}-{number}")).unwrap();
                    block_on(vault.enroll(&own, [], me, why)).unwrap();
                    // All but one of the tasks come too late, and what they commit must not hold.
                    let same = SubjectId::new(&format!("everybody-{number}")).unwrap();
                    match block_on(vault.enroll(&same, [], me, why)) {
                        Ok(()) => {}
                        Err(Error::Misuse(Misuse::AlreadyEnrolled)) => {
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    assert!(most.load(Ordering::SeqCst) > 1, "one commit waited for the end of the other");
    assert_eq!(refused.load(Ordering::SeqCst), (TASKS - 1) * 20);
    let report = block_on(vault.verify_log()).unwrap();
    assert!(report.holds());
    let enrolled = block_on(vault.log()).unwrap();
    let enrolled = enrolled.iter().filter(|entry| entry.action().label() == "enroll").count();
    assert_eq!(enrolled, TASKS * 20 + 20, "each is written once");
}
