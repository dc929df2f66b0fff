//! Plain figures of sealing and opening through handles that are held: sizes from 16 bytes to a mebibyte, a field alone, a
//! record of twelve fields in three cells, one to four lockboxes, both suites. Beside the primitives: the bench `ratios`.
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

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use customer_vault::{Sealer, Suite};

#[path = "common/all.rs"]
mod common;
use common::worlds::{
    Held, Invoicing, Note, Note1, Note2, Note3, Note4, Order, Shipping, bytes, note, note1, order,
};

/// A sealer makes a million seals at most: a new one in time.
struct Renewed<'a, R: customer_vault::Record> {
    held: &'a Held,
    sealer: Sealer<R>,
    left: u32,
}

impl<'a, R: customer_vault::Record<Id = u64>> Renewed<'a, R> {
    fn new(held: &'a Held) -> Self {
        Renewed { held, sealer: held.sealer(), left: 1 << 20 }
    }

    fn get(&mut self) -> &Sealer<R> {
        if self.left == 0 {
            *self = Self::new(self.held);
        }
        self.left -= 1;
        &self.sealer
    }
}

fn notes<N: Note>(criterion: &mut Criterion, held: &Held, suite: Suite, sizes: &[usize]) {
    let mut group = criterion.benchmark_group(format!("{suite:?}, {} lockboxes", N::LOCKBOXES));
    let grant = held.grant::<Shipping>();
    for size in sizes {
        let mut sealer = Renewed::<N>::new(held);
        let sealed = sealer.get().seal(note::<N>(*size), &7).unwrap();
        group.throughput(Throughput::Bytes(*size as u64));
        let batch = if *size > 10_000 { BatchSize::LargeInput } else { BatchSize::SmallInput };
        group.bench_function(BenchmarkId::new("seal", size), |b| {
            b.iter_batched(|| note::<N>(*size), |note| sealer.get().seal(note, &7).unwrap(), batch);
        });
        group.bench_function(BenchmarkId::new("open", size), |b| {
            b.iter(|| black_box(&sealed).open(&grant, &7).unwrap());
        });
    }
    group.finish();
}

fn others(criterion: &mut Criterion, held: &Held, suite: Suite) {
    let mut group = criterion.benchmark_group(format!("{suite:?}"));
    let (shipping, invoicing) = (held.grant::<Shipping>(), held.grant::<Invoicing>());
    let mut sealer = Renewed::<Note1>::new(held);
    let sealed = sealer.get().seal_field::<note1::body>(bytes(64), &7).unwrap();
    group.bench_function("seal a field of 64 B alone", |b| {
        let seal = |value| sealer.get().seal_field::<note1::body>(value, &7).unwrap();
        b.iter_batched(|| bytes(64), seal, BatchSize::SmallInput);
    });
    group.bench_function("open a field of 64 B alone", |b| {
        b.iter(|| black_box(&sealed).open(&shipping, &7).unwrap());
    });
    let mut sealer = Renewed::<Order>::new(held);
    let sealed = sealer.get().seal(order(), &7).unwrap();
    group.bench_function("seal a record of 12 fields", |b| {
        b.iter_batched(order, |order| sealer.get().seal(order, &7).unwrap(), BatchSize::SmallInput);
    });
    group.bench_function("open all of a record of 12 fields", |b| {
        b.iter(|| black_box(&sealed).open(&invoicing, &7).unwrap());
    });
    group.bench_function("open what shipping sees of a record of 12 fields", |b| {
        b.iter(|| black_box(&sealed).open(&shipping, &7).unwrap());
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
        .configure_from_args();
    for suite in [Suite::Aes256Gcm, Suite::XChaCha20Poly1305] {
        let held = Held::new(suite);
        notes::<Note1>(&mut criterion, &held, suite, &[198]);
        notes::<Note2>(&mut criterion, &held, suite, &[16, 198, 1 << 10, 1 << 14, 1 << 20]);
        notes::<Note3>(&mut criterion, &held, suite, &[198]);
        notes::<Note4>(&mut criterion, &held, suite, &[198]);
        others(&mut criterion, &held, suite);
    }
    criterion.final_summary();
}
