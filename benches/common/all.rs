//! What the benches share: vaults, the bare side of each job, the method of comparing the two, and tables.

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
