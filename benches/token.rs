//! Plain figures of reading a token, verifying it, narrowing it, and taking a grant with it from a vault in memory, where no disk is waited for.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::panic)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the other benches")]

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use customer_vault::testing::verify;
use customer_vault::{SubjectId, Suite, Token, field};
use pollster::block_on;

#[path = "common/all.rs"]
mod common;
use common::worlds::{Held, Shipping, note2, token};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
        .configure_from_args();
    let held = Held::new(Suite::default());
    let (vault, id) = (&held.vault, SubjectId::new("alice").unwrap());
    let token = token(vault);
    let narrowed = token.narrow().subject(&id).fields(&[field::<note2::body>()]).done().unwrap();
    let twice = narrowed.narrow().expires_at(token.unverified_expiry().saturating_sub(60)).done().unwrap();

    let mut group = criterion.benchmark_group("token");
    for (name, token) in [("as issued", &token), ("narrowed", &narrowed), ("narrowed twice", &twice)] {
        let text = token.expose();
        group.bench_function(format!("parse, {name}"), |b| b.iter(|| Token::parse(black_box(text)).unwrap()));
        group.bench_function(format!("verify, {name}"), |b| {
            b.iter(|| block_on(verify(vault, black_box(token))).unwrap());
        });
        group.bench_function(format!("unlock, {name}"), |b| {
            b.iter(|| block_on(vault.unlock::<Shipping>(black_box(token), &id)).unwrap());
        });
    }
    group.bench_function("narrow to a subject", |b| {
        b.iter(|| black_box(&token).narrow().subject(&id).done().unwrap());
    });
    group.finish();
    criterion.final_summary();
}
