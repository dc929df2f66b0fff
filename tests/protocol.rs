//! The protocol between keeper, witness and store, as a finite model: two processes, and every order of their steps.
//!
//! Processes crash at any step and lose their memory; calls fail before or after they took effect; a process pauses for as
//! long as others go on; once, an older copy of the store is put back. A checker visits every state that can be reached, and
//! looks at invariants 6 and 7 in each. It is the protocol that is checked here, not the code: that the code follows it is
//! what `races.rs`, `crash.rs` and `restore.rs` look at.
//!
//! A handover from one keeper to another has a model of its own.
//!
//! `VAULT_PROTOCOL=1` lets one call of store, keeper or witness more fail in each of them, and takes long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::print_stdout, missing_docs, unreachable_pub)]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, clippy::enum_glob_use)]
#![allow(clippy::struct_excessive_bools, clippy::trivially_copy_pass_by_ref)]

#[path = "protocol/changes.rs"]
mod changes;
#[path = "protocol/handover.rs"]
mod handover;
#[path = "protocol/model.rs"]
mod model;
#[path = "protocol/roots.rs"]
mod roots;
#[path = "protocol/state.rs"]
mod state;
#[path = "protocol/steps.rs"]
mod steps;

use stateright::{Checker, Expectation, HasDiscoveries, Model as _, Path};

use model::{Action, Protocol};
use state::{Budget, World};

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

/// Visits every state, sees that every property holds in all of them, and that what `reaches` names is reached.
fn holds(left: Budget, reaches: &[&str]) {
    let more = std::env::var("VAULT_PROTOCOL").map_or(0, |more| more.parse().expect("a number"));
    let left = Budget { lost: left.lost + more, ..left };
    let checker = Protocol { left, mistake: Mistake::None }.checker().spawn_bfs().join();
    println!("{} states, the deepest after {} steps", checker.unique_state_count(), checker.max_depth());
    for property in checker.model().properties() {
        let path = checker.discovery(property.name);
        match property.expectation {
            Expectation::Always => assert!(path.is_none(), "{}:\n{}", property.name, told(path)),
            _ => assert!(path.is_some() || !reaches.contains(&property.name), "never: {}", property.name),
        }
    }
    let known = |name: &&str| checker.model().properties().iter().any(|property| property.name == *name);
    assert!(reaches.iter().all(known));
}

/// Sees that a mistake is found, by the property that it breaks.
fn is_found(mistake: Mistake, left: Budget, breaks: &'static str) {
    let broken = HasDiscoveries::AnyOf([breaks].into());
    let checker = Protocol { left, mistake }.checker().finish_when(broken).spawn_bfs().join();
    let path = checker.discovery(breaks);
    assert!(path.is_some(), "{mistake:?} does not break: {breaks}");
    println!("{mistake:?}, after {} states: {breaks}\n{}", checker.unique_state_count(), told(path));
}

/// The steps that lead there.
fn told(path: Option<Path<World, Action>>) -> String {
    let steps = path.map_or_else(Vec::new, Path::into_actions);
    steps.iter().fold(String::new(), |told, step| told + &format!("  {step:?}\n"))
}

const NONE: Budget = Budget::NONE;

const OPENS: &str = "a grant opens";
const UNDONE: &str = "a forget is undone";
const UNHEARD: &str = "a forget returns, and the witness has not heard of it";
const BOB_STAYS: &str = "Bob is wrapped again under another root";
const LOSES: &str = "a candidate loses and is destroyed";
const CERTIFIED: &str = "a certificate is issued";
const REFUSED: &str = "a store that was put back is refused";
const AGAIN: &str = "a forget is done again in a recovered store";
const LEAPT: &str = "a recovered store is under a new root";
const CLOSED: &str = "a copy opens for nobody";

#[test]
fn a_forget_and_its_undo_beside_a_reader_that_crashes() {
    let left = Budget { forget: 1, undo: 1, unlock: 2, crash: 1, open: 1, lost: 1, ..NONE };
    holds(left, &[OPENS, UNDONE, UNHEARD]);
}

#[test]
fn two_processes_that_shred_while_somebody_is_enrolled() {
    holds(Budget { enroll: 1, forget: 1, shred: 2, ..NONE }, &[BOB_STAYS, LOSES]);
}

#[test]
fn a_shred_that_crashes_or_whose_calls_fail() {
    let left = Budget { enroll: 1, forget: 1, shred: 1, crash: 1, open: 1, lost: 1, ..NONE };
    holds(left, &[BOB_STAYS, LOSES, UNHEARD]);
}

#[test]
fn a_settling_beside_a_shred_and_a_crash() {
    let left = Budget { forget: 1, shred: 1, settle: 1, tick: 1, crash: 1, open: 1, ..NONE };
    holds(left, &[CERTIFIED, LOSES]);
}

#[test]
fn an_older_store_beside_readers() {
    let changes = Budget { enroll: 1, forget: 1, undo: 1, unlock: 1, ..NONE };
    let left = Budget { backup: 1, restore: 1, recover: 1, open: 1, ..changes };
    holds(left, &[OPENS, UNDONE, AGAIN, REFUSED]);
}

#[test]
fn an_older_store_after_a_shred_that_crashed() {
    let left = Budget { forget: 1, shred: 1, crash: 1, open: 1, backup: 1, restore: 1, recover: 1, ..NONE };
    holds(left, &[AGAIN, LEAPT, LOSES]);
}

#[test]
fn two_that_recover_at_once_and_one_crashes() {
    let left = Budget { forget: 1, backup: 1, restore: 1, recover: 2, crash_restored: 1, ..NONE };
    holds(left, &[AGAIN, LEAPT, LOSES]);
}

#[test]
fn an_older_store_whose_root_is_destroyed() {
    let left = Budget { forget: 1, shred: 1, settle: 1, tick: 1, backup: 1, restore: 1, recover: 1, ..NONE };
    holds(left, &[CERTIFIED, CLOSED, REFUSED, AGAIN, LEAPT]);
}

/// The test of the test: the same model with a mistake, and the property that finds it.
#[test]
fn every_mistake_is_found() {
    let reads = Budget { forget: 1, unlock: 1, undo: 1, ..NONE };
    let shreds = Budget { enroll: 1, forget: 1, shred: 2, ..NONE };
    let settles = Budget { forget: 1, shred: 1, settle: 1, tick: 1, ..NONE };
    let restores = Budget { forget: 1, unlock: 1, backup: 1, restore: 1, recover: 1, open: 1, ..NONE };
    let opens = "6: the forgotten opens in no process";
    let refused = "7: nobody is refused but for a store that was put back";
    let whole = "7: all that is there hangs together";
    let window = "7: a root is held until its window is over";
    let cases = [
        (Mistake::AcknowledgesBeforeTheCommit, reads, opens),
        (Mistake::ForgetDoesNotWait, reads, opens),
        (Mistake::LeaseCountsFromTheAnswer, reads, opens),
        (Mistake::WatchTakesNothingIn, reads, opens),
        (Mistake::TellsTheWitnessFirst, Budget { crash: 1, open: 1, ..reads }, refused),
        (Mistake::ChecksTheParentWithoutWriting, shreds, whole),
        (Mistake::ReplacesWithoutTheChildren, shreds, whole),
        (Mistake::ActivatesBackwards, shreds, "7: the keeper never goes back"),
        (Mistake::ActivatesBeforeTheCommit, shreds, refused),
        (Mistake::AsksTheStoreBeforeTheKeeper, shreds, refused),
        (Mistake::DestroysCandidatesTooEarly, shreds, "7: the keeper holds the root of the store"),
        (Mistake::ForgetsWhatWasARoot, Budget { settle: 1, enroll: 0, ..shreds }, window),
        (Mistake::IgnoresTheWindow, settles, window),
        (Mistake::CertifiesBeforeTheKeeper, settles, "6: a certificate only when the keeper has let go"),
        (Mistake::SettlesBeforeTheCopies, settles, "7: the keeper holds the root of a standby"),
        (Mistake::OpensWithoutTheWitness, restores, opens),
        (Mistake::RecoverReplaysNothing, restores, "7: what was acknowledged is there"),
        (Mistake::RestoresUnderRunningProcesses, restores, opens),
        (
            Mistake::WritesBackOverWhatCameSince,
            Budget { recover: 2, open: 0, ..restores },
            "7: no line that was committed goes away again",
        ),
        (
            Mistake::LeapsByTheKeeperAlone,
            Budget { shred: 1, crash: 1, unlock: 0, ..restores },
            "7: an epoch has one root",
        ),
    ];
    for (mistake, left, breaks) in cases {
        is_found(mistake, left, breaks);
    }
}
