//! The protocol between keeper, witness and store, as a finite model: two processes, and every order of their steps.
//!
//! Processes crash at any step and lose their memory; calls fail before or after they took effect; a process pauses for as
//! long as others go on; once, an older copy of the store is put back. A checker visits every state that can be reached, and
//! looks at invariants 6 and 7 in each. It is the protocol that is checked here, not the code: that the code follows it is
//! what `races.rs`, `crash.rs` and `restore.rs` look at.
//!
//! `VAULT_PROTOCOL=2` allows more of everything, and takes long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::print_stdout, missing_docs, unreachable_pub)]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, clippy::enum_glob_use)]

#[path = "protocol/changes.rs"]
mod changes;
#[path = "protocol/model.rs"]
mod model;
#[path = "protocol/roots.rs"]
mod roots;
#[path = "protocol/state.rs"]
mod state;
#[path = "protocol/steps.rs"]
mod steps;

use stateright::{Checker, Model as _};

use model::Protocol;
use state::Budget;

/// What a model can do wrong, to see that the checker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    None,
    AcknowledgesBeforeTheCommit,
    ActivatesBackwards,
    ActivatesBeforeTheCommit,
    AsksTheStoreBeforeTheKeeper,
    CertifiesBeforeTheKeeper,
    ChecksTheParentWithoutWriting,
    DestroysCandidatesTooEarly,
    ForgetDoesNotWait,
    ForgetsWhatWasARoot,
    IgnoresTheWindow,
    LeapsByTheKeeperAlone,
    LeaseCountsFromTheAnswer,
    OpensWithoutTheWitness,
    RecoverReplaysNothing,
    ReplacesWithoutTheChildren,
    RestoresUnderRunningProcesses,
    SettlesBeforeTheCopies,
    TellsTheWitnessFirst,
    WatchTakesNothingIn,
    WritesBackOverWhatCameSince,
}

fn find(mistake: Mistake, left: Budget) {
    let model = Protocol { left, mistake };
    let began = std::time::Instant::now();
    let checker = model.checker().threads(1).finish_when(stateright::HasDiscoveries::AnyFailures).timeout(std::time::Duration::from_secs(40)).spawn_bfs().join();
    println!("{mistake:?} {:?} {}", began.elapsed(), checker.unique_state_count());
    for (name, path) in checker.discoveries() {
        println!("   {name}");
        for (_, action) in path.into_vec() { if let Some(a) = action { print!("  {a:?}"); } }
        println!();
    }
}
#[test]
fn m() {
    use Mistake::*;
    let none = Budget::default();
    let forget = Budget { forget: 1, unlock: 1, undo: 1, ..none };
    let shreds = Budget { enroll: 1, forget: 1, shred: 2, ..none };
    let crash = Budget { crash: 1, open: 1, ..shreds };
    let settle = Budget { forget: 1, shred: 1, settle: 1, tick: 1, backup: 1, ..none };
    let back = Budget { forget: 1, unlock: 1, shred: 1, backup: 1, restore: 1, recover: 1, open: 1, ..none };
    let _ = (back, settle, shreds, crash, forget);
    for (mistake, left) in [
    (LeaseCountsFromTheAnswer, forget),
    (ForgetsWhatWasARoot, Budget{shred:2,forget:1, settle: 1,..none}),
    ] { find(mistake, left); }
}
fn check(name: &str, left: Budget) {
    let model = Protocol { left, mistake: Mistake::None };
    let began = std::time::Instant::now();
    let checker = model.checker().threads(2).timeout(std::time::Duration::from_secs(40)).spawn_bfs().join();
    println!("{:?}", began.elapsed());
    println!("{name}: {} states, {} visited, depth {}", checker.unique_state_count(), checker.state_count(), checker.max_depth());
    for (name, path) in checker.discoveries() {
        if checker.model().properties().iter().any(|p| p.name == name && p.expectation.discovery_is_failure()) {
            println!("{name}");
            for (state, action) in path.into_vec() { println!("  {action:?}"); let _ = state; }
            panic!("{name}");
        }
    }
}

#[test]
fn s() {
    check("shred", Budget { enroll: 1, forget: 1, shred: 1, open: 1, crash: 1, ..Budget::default() });
}
#[test]
fn a() {
    check("life", Budget { forget: 1, undo: 1, unlock: 1, open: 1, crash: 1, lost: 1, ..Budget::default() });
}
#[test]
fn b() {
    check("restore", Budget { forget: 1, shred: 1, backup: 1, restore: 1, recover: 1, ..Budget::default() });
}
#[test]
fn b1() {
    check("restore", Budget { forget: 1, shred: 1, backup: 1, restore: 1, recover: 1, open: 1, ..Budget::default() });
}
#[test]
fn b2() {
    check("restore", Budget { forget: 1, shred: 1, backup: 1, restore: 1, recover: 2, ..Budget::default() });
}
#[test]
fn c() {
    check("settle", Budget { forget: 1, shred: 1, settle: 2, tick: 1, ..Budget::default() });
}
