//! A grant for a subject that was asked for just before, on a vault in memory.

use std::time::{Duration, Instant};

use customer_vault::Suite;
use customer_vault::testing::append_to_log;
use pollster::block_on;

use crate::common::rounds::{Beside, Rounds, beside};
use crate::common::table::Report;
use crate::common::worlds::{Held, Shipping, token};

pub fn run(report: &mut Report) {
    let held = Held::new(Suite::default());
    let token = token(&held.vault);
    let unlock = |n: usize| {
        block_on(async {
            let start = Instant::now();
            for _ in 0..n {
                drop(held.vault.unlock::<Shipping>(&token, &held.id).await.unwrap());
            }
            start.elapsed()
        })
    };
    let log = |n: usize| {
        block_on(async {
            let start = Instant::now();
            for _ in 0..n {
                append_to_log(&held.vault).await.unwrap();
            }
            start.elapsed()
        })
    };
    let of = beside(Rounds::of(Duration::from_micros(10)), unlock, log);
    report.plain("unlock, hot, in memory", "its log entry alone", of);
    let beyond = Beside { ours: of.ours - of.limit, limit: of.limit };
    report.within("the same beyond its log entry", "its log entry alone", beyond, 3000.0);
}
