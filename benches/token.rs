//! Reading a token, narrowing it, and taking a grant with it from a vault in memory, where no disk is waited for.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use customer_vault::testing::{ephemeral, test_ground, tester};
use customer_vault::value::Bytes;
use customer_vault::{Options, Scope, SubjectId, Token, field, purposes, record};
use pollster::block_on;

purposes! {
    Shipping: Contract = 1 "shipping";
    Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    struct Note / SealedNote / NoteView in note = "note" {
        body: Bytes = 1 "body", basic, for [Shipping: 90 days, Invoicing: 10 years];
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
        .configure_from_args();
    let (me, why) = (tester(), test_ground());
    let vault = block_on(ephemeral(Options::new().record::<Note>())).unwrap();
    let id = SubjectId::new("alice").unwrap();
    block_on(vault.enroll(&id, [], &me, &why)).unwrap();
    let hour = Duration::from_secs(3600);
    let token = block_on(vault.issue::<Shipping>(&me, &why, hour, Scope::everyone())).unwrap();
    let narrowed = token.narrow().subject(&id).fields(&[field::<note::body>()]).done().unwrap();
    let twice = narrowed.narrow().expires_at(token.unverified_expiry().saturating_sub(60)).done().unwrap();

    let mut group = criterion.benchmark_group("token");
    for (name, token) in [("as issued", &token), ("narrowed", &narrowed), ("narrowed twice", &twice)] {
        let text = token.expose();
        group.bench_function(format!("parse, {name}"), |b| b.iter(|| Token::parse(black_box(text)).unwrap()));
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
