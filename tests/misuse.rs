//! What must not compile, and what the compiler says then: its messages are part of the product.
//!
//! The snapshots are those of the current stable compiler. After a change of a message:
//! `TRYBUILD=overwrite cargo test --test misuse`, and read the difference.

/// ABUSE 22, and every faulty declaration that has a message of its own.
#[test]
fn abuse_22_misuse_does_not_compile_and_the_message_says_what_to_write() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/misuse/accepted/*.rs");
    cases.compile_fail("tests/misuse/*.rs");
}
