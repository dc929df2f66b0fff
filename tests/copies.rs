//! A long random history with copies of store, keeper and witness on the way, and then every combination of them: nothing
//! that was erased opens.
//!
//! `VAULT_HISTORIES=50` looks at 50 histories, and at more copies of each.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::print_stdout, missing_docs)]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, unreachable_pub, dead_code)]

#[path = "restore/history.rs"]
mod history;
#[path = "copies/life.rs"]
mod life;

use std::fmt;
use std::ops::AddAssign;

use customer_vault::store::MemoryStore;
use customer_vault::testing::{ManualClock, MemoryKeeper, test_ground, tester};
use customer_vault::*;
use pollster::block_on;

use history::options;
use life::{Copy, Destroyed, Life, opens};

/// What was looked at.
#[derive(Debug, Default)]
struct Count {
    combinations: usize,
    refused: usize,
    opened: usize,
    /// Values and purposes that were erased, and were tried in an open vault.
    tried: usize,
    /// What was erased and opens, as it may: it is not destroyed yet, or an old copy of the keeper was used.
    still: usize,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.combinations += other.combinations;
        self.refused += other.refused;
        self.opened += other.opened;
        self.tried += other.tried;
        self.still += other.still;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { combinations, refused, opened, tried, still } = self;
        write!(
            f,
            "{combinations} combinations, {refused} refused, {opened} opened; of {tried} erased values "
        )?;
        write!(f, "{still} open, as they may, and none that must not")
    }
}

/// How a vault is opened.
#[derive(Clone, Copy, Debug)]
enum How {
    Open,
    Recover,
}

/// Copies of everything, so that none is spoilt.
async fn try_to(
    how: How,
    store: &MemoryStore,
    keeper: &MemoryKeeper,
    witness: &MemoryKeeper,
    clock: &ManualClock,
) -> Result<Vault> {
    let (store, keeper, witness) = (store.snapshot(), keeper.snapshot(), witness.snapshot());
    match how {
        How::Open => options(clock).open(store, keeper, witness).await,
        How::Recover => options(clock).recover(store, keeper, witness, &tester(), &test_ground()).await,
    }
}

impl Count {
    /// Of a vault that may have been opened: how much opens of what must not.
    async fn look(
        &mut self,
        life: &Life,
        vault: Result<Vault>,
        must_not: impl Fn(&life::Value, u8) -> bool,
    ) -> usize {
        self.combinations += 1;
        let vault = match vault {
            Ok(vault) => vault,
            Err(Error::RolledBack(_)) => {
                self.refused += 1;
                return 0;
            }
            Err(why) => panic!("{why:?} does not say what is wrong"),
        };
        self.opened += 1;
        let open = opens(&vault, &life.values).await;
        let all = life.values.iter().enumerate();
        let each = all.flat_map(|(n, value)| [life::SHIP, life::RECS, life::BOOKS].map(|p| (n, value, p)));
        let erased: Vec<_> = each.filter(|(_, value, purpose)| life.is_erased(value, *purpose)).collect();
        self.tried += erased.len();
        let open = erased.into_iter().filter(|(n, _, purpose)| open.contains(&(*n, *purpose)));
        let (wrong, may): (Vec<_>, Vec<_>) = open.partition(|(_, value, purpose)| must_not(value, *purpose));
        self.still += may.len();
        wrong.len()
    }
}

/// With the newest witness the code refuses, whatever of store and keeper is put back.
async fn newest_witness(life: &Life, keepers: &[&MemoryKeeper], stores: &[&MemoryStore]) -> Count {
    let mut count = Count::default();
    for store in stores {
        for keeper in keepers {
            for how in [How::Open, How::Recover] {
                let vault = try_to(how, store, keeper, &life.keeper, &life.clock).await;
                let open = count.look(life, vault, |value, purpose| life.is_erased(value, purpose)).await;
                assert_eq!(open, 0, "{how:?}: what is erased opens");
            }
        }
    }
    count
}

/// With the newest keeper what is destroyed stays closed, whatever of store, witness and clock is put back. What is erased
/// and not destroyed yet may open: that is what `unreadable_after` says.
async fn newest_keeper(life: &Life, destroyed: &Destroyed) -> Count {
    let mut count = Count::default();
    for copy in &life.copies {
        for witness in &life.copies {
            for how in [How::Open, How::Recover] {
                let vault = try_to(how, &copy.store, &life.keeper, &witness.keeper, &copy.clock).await;
                let vault = tolerate(vault);
                let open = count.look(life, vault, |value, p| destroyed.names(value, p)).await;
                assert_eq!(open, 0, "{how:?}: what is destroyed opens");
            }
        }
    }
    count
}

/// Old store, old keeper and old witness together: they open what was there then, as long as that keeper holds a root that
/// the store's moment had.
async fn everything_old(life: &Life) -> Count {
    let mut count = Count::default();
    for store in &life.copies {
        for keeper in &life.copies {
            let vault =
                tolerate(try_to(How::Open, &store.store, &keeper.keeper, &store.keeper, &store.clock).await);
            let common = store.held.iter().any(|root| keeper.held.iter().any(|held| held.id == root.id));
            assert!(common || vault.is_err(), "a keeper without that root opens the store");
            count.look(life, vault, |_, _| false).await;
        }
    }
    count
}

/// Store and witness of different moments, neither the newest, may have gone different ways.
fn tolerate(vault: Result<Vault>) -> Result<Vault> {
    match vault {
        Err(Error::Keeper(_) | Error::Busy) => Err(error::RolledBack::Mixed.into()),
        vault => vault,
    }
}

async fn combine(life: &Life) -> [Count; 4] {
    let destroyed = life.destroyed().await;
    let now = opens(&life.vault(), &life.values).await;
    for (n, purpose) in &now {
        assert!(!life.is_erased(&life.values[*n], *purpose), "the newest opens what is erased");
    }
    assert!(!now.is_empty() && life.killed > 0, "a history in which something lives, and somebody dies");
    let stores: Vec<&MemoryStore> = life.copies.iter().map(|copy| &copy.store).collect();
    let keepers: Vec<&MemoryKeeper> = life.copies.iter().map(|copy: &Copy| &copy.keeper).collect();
    [
        newest_witness(life, &[&life.keeper], &stores).await,
        newest_witness(life, &keepers, &stores).await,
        newest_keeper(life, &destroyed).await,
        everything_old(life).await,
    ]
}

const WHAT: [&str; 4] = ["older store", "older store and keeper", "older store and witness", "all older"];

#[test]
fn abuse_05_no_combination_of_older_copies_opens_what_was_erased() {
    let many = std::env::var("VAULT_HISTORIES").map(|many| many.parse().expect("a number"));
    let (histories, parts, copies) = many.map_or((1, 1, 4), |many| (many, 3, 3));
    let mut total: [Count; 4] = Default::default();
    for seed in 0..histories {
        block_on(async {
            let mut life = Life::new(seed).await;
            for _ in 0..parts {
                life.live(180 / parts, copies).await;
                for (total, count) in total.iter_mut().zip(combine(&life).await) {
                    *total += count;
                }
            }
        });
    }
    for (what, count) in WHAT.iter().zip(&total) {
        println!("{what}: {count}");
        assert!(count.opened > 0 && count.refused > 0 && count.tried > 0);
    }
    let [newest, keepers, witnesses, all] = total;
    assert_eq!(
        newest.still + keepers.still,
        0,
        "what a witness that was not put back remembers stays closed"
    );
    assert!(witnesses.still < witnesses.tried / 2 && all.still > 0, "both limits are seen");
}
