//! Verifying tokens, beside their HMACs alone.

use std::time::Instant;

use customer_vault::testing::verify;
use customer_vault::{SubjectId, Suite, field};
use pollster::block_on;

use crate::common::bare::BareToken;
use crate::common::rounds::{Rounds, beside, once, timed};
use crate::common::table::Report;
use crate::common::worlds::{Held, note2, token};

pub fn run(report: &mut Report) {
    let held = Held::new(Suite::default());
    let vault = &held.vault;
    let plain = token(vault);
    let alice = SubjectId::new("alice").unwrap();
    let narrowed = plain.narrow().subject(&alice).fields(&[field::<note2::body>()]).done().unwrap();
    let twice = narrowed.narrow().expires_at(plain.unverified_expiry().saturating_sub(60)).done().unwrap();
    for (name, token) in [("as issued", &plain), ("narrowed", &narrowed), ("narrowed twice", &twice)] {
        let bare = BareToken::of(token.expose(), false);
        let of = Rounds::of(once(|| bare.verify()).1);
        let verifying = beside(
            of,
            |n| {
                block_on(async {
                    let start = Instant::now();
                    for _ in 0..n {
                        verify(vault, token).await.unwrap();
                    }
                    start.elapsed()
                })
            },
            |n| timed((0..n).collect(), |_| bare.verify()),
        );
        report.at_most(&format!("verify a token, {name}"), "its HMACs alone", verifying, 1.5);
    }
}
