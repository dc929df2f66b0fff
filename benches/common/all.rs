//! What the benches share: vaults, the bare side of each job, the method of comparing the two, and tables.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::panic
)]
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unchecked_time_subtraction)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "no bench uses all of it")]

pub mod bare;
#[cfg(feature = "redb")]
pub mod disk;
pub mod rounds;
pub mod table;
pub mod worlds;

/// Whether to measure. Under `cargo test` everything is run once, small.
pub fn measured() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// A number from the environment.
pub fn asked(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}
