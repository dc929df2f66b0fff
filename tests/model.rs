//! A vault against a plain model of who may read what, until when.
//!
//! `CUSTOMER_VAULT_MODEL_CASES` raises the number of histories.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, missing_docs, unreachable_pub)]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs)]

#[path = "model/cases.rs"]
mod cases;
#[path = "model/checks.rs"]
mod checks;
#[path = "model/life.rs"]
mod life;
#[path = "model/plain.rs"]
mod plain;
#[path = "model/sealing.rs"]
mod sealing;
#[path = "model/shop.rs"]
mod shop;
#[path = "model/world.rs"]
mod world;

use pollster::block_on;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use world::World;

/// What is done. Numbers choose among what is there.
#[derive(Clone, Debug)]
pub enum Op {
    Enroll(u8, bool),
    EnrollAgain(u8, bool),
    Consent(u8, bool),
    RequireNotice,
    Withdraw(u8, u8),
    Forget { who: u8, keep: u8, days: u8, at_once: bool },
    Undo(u8),
    Hold(u8),
    Release(u8),
    TakeSealer(u8),
    Seal { sealer: u8, order: u8, back: u8 },
    Update { value: u8, sealer: u8, grant: u8, field: u8 },
    Renew { value: u8, sealer: u8, grant: u8, back: u8 },
    Unlock { who: u8, reader: u8, old: u8, long: bool },
    Put(u8),
    Read(u8),
    Delete(u8, u8),
    Expire,
    Shred,
    Settle,
    Killed { shred: bool, commit: u8, after: bool },
    Freeze,
    Unfreeze,
    Revoke(u8, u8),
    Advance(u16),
    Jump(u16),
    ConfirmTime,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let n = any::<u8>;
    let yes = any::<bool>;
    prop_oneof![
        6 => (n(), yes()).prop_map(|(who, yes)| Op::Enroll(who, yes)),
        3 => (n(), yes()).prop_map(|(who, yes)| Op::EnrollAgain(who, yes)),
        4 => (n(), prop::bool::weighted(0.2)).prop_map(|(who, old)| Op::Consent(who, old)),
        1 => Just(Op::RequireNotice),
        4 => (n(), n()).prop_map(|(who, purpose)| Op::Withdraw(who, purpose)),
        5 => (n(), n(), n(), prop::bool::weighted(0.3))
            .prop_map(|(who, keep, days, at_once)| Op::Forget { who, keep, days, at_once }),
        2 => n().prop_map(Op::Undo),
        3 => n().prop_map(Op::Hold),
        2 => n().prop_map(Op::Release),
        8 => n().prop_map(Op::TakeSealer),
        10 => (n(), 0..4_u8, prop_oneof![3 => Just(0), 1 => 1..80_u8])
            .prop_map(|(sealer, order, back)| Op::Seal { sealer, order, back }),
        5 => (n(), n(), n(), n())
            .prop_map(|(value, sealer, grant, field)| Op::Update { value, sealer, grant, field }),
        3 => (n(), n(), n(), 0..10_u8)
            .prop_map(|(value, sealer, grant, back)| Op::Renew { value, sealer, grant, back }),
        16 => (n(), n(), n(), prop::bool::weighted(0.8))
            .prop_map(|(who, reader, old, long)| Op::Unlock { who, reader, old, long }),
        3 => n().prop_map(Op::Put),
        1 => n().prop_map(Op::Read),
        1 => (n(), 0..4_u8).prop_map(|(who, order)| Op::Delete(who, order)),
        2 => Just(Op::Expire),
        5 => Just(Op::Shred),
        2 => Just(Op::Settle),
        2 => (yes(), 0..12_u8, yes())
            .prop_map(|(shred, commit, after)| Op::Killed { shred, commit, after }),
        1 => Just(Op::Freeze),
        3 => Just(Op::Unfreeze),
        1 => (n(), n()).prop_map(|(how, which)| Op::Revoke(how, which)),
        10 => prop_oneof![30 => 1..9_u16, 8 => 9..60_u16, 1 => 60..=400_u16].prop_map(Op::Advance),
        1 => (1..30_u16).prop_map(Op::Jump),
        2 => Just(Op::ConfirmTime),
        2 => Just(Op::Reopen),
    ]
}

fn history() -> impl Strategy<Value = Vec<(Op, u64)>> {
    prop::collection::vec((op(), any::<u64>()), 20..70)
}

fn run(history: &[(Op, u64)]) {
    block_on(async {
        let mut world = World::new().await;
        for (who, consents) in [(0, true), (1, false)] {
            world.step(&Op::Enroll(who, consents)).await;
            world.step(&Op::TakeSealer(who)).await;
        }
        for (op, choice) in history {
            world.step(op).await;
            world.check_some(*choice);
        }
        world.check_all().await;
    });
}

#[test]
fn the_vault_opens_what_a_plain_model_says_and_nothing_else() {
    let asked = std::env::var("CUSTOMER_VAULT_MODEL_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = Config {
        cases: asked.unwrap_or(32),
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&history(), |history| {
        run(&history);
        Ok(())
    });
    match outcome {
        Err(TestError::Fail(why, history)) => {
            let steps: Vec<String> = history.iter().map(|(op, _)| format!("{op:?}")).collect();
            panic!("{why}\nafter:\n{}", steps.join("\n"));
        }
        outcome => outcome.unwrap(),
    }
}
