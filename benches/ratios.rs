//! Every job of the vault beside its limit in the same run: the same primitive operations done bare, or the store alone
//! with the same keys and bytes. Prints the ratios as Markdown, with what was aimed at.
//!
//! Names after `--` choose groups of jobs; `--write` leaves what was measured in `docs/performance`. Sizes by environment
//! variables: `SUBJECTS`, `VALUES` and `CELLS`, a million each. `DIR` is the directory for stores, some 6 GB at those sizes;
//! ten million `CELLS` take 15 GB.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::panic
)]
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unchecked_time_subtraction)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the other benches")]

#[path = "ratios/cells.rs"]
mod cells;
#[path = "common/all.rs"]
mod common;
#[path = "ratios/days.rs"]
mod days;
#[path = "ratios/durable.rs"]
mod durable;
#[path = "ratios/subjects.rs"]
mod subjects;
#[path = "ratios/threads.rs"]
mod threads;
#[path = "ratios/tokens.rs"]
mod tokens;
#[path = "ratios/unlocks.rs"]
mod unlocks;

use common::table::{Report, page};

/// A group of jobs that are measured together.
type Group = (&'static str, fn(&mut Report));

const GROUPS: [Group; 7] = [
    ("cells", cells::run),
    ("tokens", tokens::run),
    ("unlocks", unlocks::run),
    ("threads", threads::run),
    ("durable", durable::run),
    ("days", days::run),
    ("subjects", subjects::run),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let write = arguments.iter().any(|argument| argument == "--write");
    let chosen: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    for name in &chosen {
        assert!(GROUPS.iter().any(|(group, _)| group == name), "there is no group {name}");
    }
    for (name, run) in GROUPS {
        if chosen.is_empty() || chosen.iter().any(|chosen| *chosen == name) {
            let mut report = Report::new(name, write);
            run(&mut report);
            report.save();
        }
    }
    if write {
        page(&GROUPS.map(|(name, _)| name));
    }
}
