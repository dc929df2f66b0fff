//! Sealing and opening through handles that are held, beside the same primitive operations done bare.

use std::hint::black_box;
use std::time::Duration;

use chacha20poly1305::XChaCha20Poly1305;
use customer_vault::Sealer;

use crate::common::bare::{Aes256Gcm, Bare, Plan, Primitive};
use crate::common::rounds::{Beside, Rounds, beside, once, timed};
use crate::common::table::Report;
use crate::common::worlds::{
    Held, Invoicing, NOTE_NAMES, Note, Note1, Note2, Note3, Note4, ORDER_NAMES, Order, Shipping, bytes, note,
    note_plan, note1, order, order_plan, same_size, shows_name, shows_proof,
};

const BARE: &str = "the same hedges, wraps, schedule and body, bare";
const BARE_OPEN: &str = "the same unwrap, schedule and body, bare, and a buffer for each value";

pub fn run(report: &mut Report) {
    suite::<Aes256Gcm>(report);
    suite::<XChaCha20Poly1305>(report);
    // The curve over sizes, from 16 bytes to a mebibyte, and over lockboxes.
    let held = Held::new(Aes256Gcm::SUITE);
    for size in (4..=20).step_by(2).map(|bits| 1 << bits) {
        let [seal, open] = compare::<Aes256Gcm, Note2>(&held, size);
        report.point("size", "seal", size, seal);
        report.point("size", "open", size, open);
    }
}

fn suite<P: Primitive>(report: &mut Report) {
    let held = Held::new(P::SUITE);
    let plots = P::NAME == Aes256Gcm::NAME;
    macro_rules! lockboxes {
        ($($note:ident)*) => { $({
            let [seal, open] = compare::<P, $note>(&held, 198);
            let of = format!("a cell of 200 B, {} lockboxes, {}", $note::LOCKBOXES, P::NAME);
            report.at_most(&format!("seal {of}"), BARE, seal, 1.2);
            report.at_most(&format!("open {of}"), BARE_OPEN, open, 1.25);
            if plots {
                report.point("lockboxes", "seal", $note::LOCKBOXES, seal);
                report.point("lockboxes", "open", $note::LOCKBOXES, open);
            }
        })* };
    }
    lockboxes! { Note1 Note2 Note3 Note4 }
    field::<P>(report, &held);
    record::<P>(report, &held);
}

/// Inputs are made before the clock starts, and few at a time where they are large.
fn rounds_of(call: Duration, size: usize) -> Rounds {
    let mut rounds = Rounds::of(call);
    rounds.each = rounds.each.min((1 << 22) / size.max(1)).max(1);
    rounds
}

fn compare<P: Primitive, N: Note>(held: &Held, size: usize) -> [Beside; 2] {
    let plan = note_plan::<N>(size);
    let (bare, sealer, grant) =
        (Bare::<P>::new(&plan, NOTE_NAMES), held.sealer::<N>(), held.grant::<Shipping>());
    let sealed = sealer.seal(note::<N>(size), &7).unwrap();
    same_size(&sealed, &plan);
    let open = || drop(black_box(&sealed).open(&grant, &7).unwrap());
    open();
    let mut room = bare.room();
    let of = rounds_of(once(|| bare.seal(&mut room)).1, size);
    let seal = beside(
        of,
        |n| timed((0..n).map(|_| note::<N>(size)).collect(), |note| sealer.seal(note, &7).unwrap()),
        |n| timed((0..n).collect(), |_| black_box(&bare).seal(&mut room)),
    );
    let open = beside(
        of,
        |n| timed((0..n).collect(), |_| open()),
        |n| timed((0..n).collect(), |_| black_box(&bare).open(&mut room)),
    );
    [seal, open]
}

/// One field in a column of its own.
fn field<P: Primitive>(report: &mut Report, held: &Held) {
    let plan = [Plan { lockboxes: 1, values: vec![64], opened_by: Some(0) }];
    let bare = Bare::<P>::new(&plan, NOTE_NAMES);
    let (sealer, grant): (Sealer<Note1>, _) = (held.sealer(), held.grant::<Shipping>());
    let seal = |value| sealer.seal_field::<note1::body>(value, &7).unwrap();
    let sealed = seal(bytes(64));
    assert_eq!(sealed.as_bytes().len(), crate::common::bare::sealed_len(&plan));
    let open = || drop(black_box(&sealed).open(&grant, &7).unwrap());
    open();
    let mut room = bare.room();
    let of = rounds_of(once(|| bare.seal(&mut room)).1, 64);
    let sealing = beside(
        of,
        |n| timed((0..n).map(|_| bytes(64)).collect(), seal),
        |n| timed((0..n).collect(), |_| black_box(&bare).seal(&mut room)),
    );
    let opening = beside(
        of,
        |n| timed((0..n).collect(), |_| open()),
        |n| timed((0..n).collect(), |_| black_box(&bare).open(&mut room)),
    );
    report.at_most(&format!("seal a field of 64 B alone, {}", P::NAME), BARE, sealing, 1.2);
    report.at_most(&format!("open a field of 64 B alone, {}", P::NAME), BARE_OPEN, opening, 1.25);
}

/// Twelve fields in three cells with seven lockboxes.
fn record<P: Primitive>(report: &mut Report, held: &Held) {
    let [all, one] = [true, false].map(|all| Bare::<P>::new(&order_plan(all), ORDER_NAMES));
    let sealer = held.sealer::<Order>();
    let sealed = sealer.seal(order(), &7).unwrap();
    same_size(&sealed, &order_plan(true));
    let (invoicing, shipping) = (held.grant::<Invoicing>(), held.grant::<Shipping>());
    let books = || drop(black_box(&sealed).open(&invoicing, &7).unwrap());
    let parcel = || drop(black_box(&sealed).open(&shipping, &7).unwrap());
    assert!(shows_proof(&sealed.open(&invoicing, &7).unwrap()));
    assert!(shows_name(&sealed.open(&shipping, &7).unwrap()));
    let mut room = all.room();
    let of = rounds_of(once(|| all.seal(&mut room)).1, 700);
    let seal = beside(
        of,
        |n| timed((0..n).map(|_| order()).collect(), |order| sealer.seal(order, &7).unwrap()),
        |n| timed((0..n).collect(), |_| black_box(&all).seal(&mut room)),
    );
    let by_all = beside(
        of,
        |n| timed((0..n).collect(), |_| books()),
        |n| timed((0..n).collect(), |_| black_box(&all).open(&mut room)),
    );
    let by_one = beside(
        of,
        |n| timed((0..n).collect(), |_| parcel()),
        |n| timed((0..n).collect(), |_| black_box(&one).open(&mut room)),
    );
    let what = format!("a record of 12 fields, 3 cells, 7 lockboxes, {}", P::NAME);
    report.plain(&format!("seal {what}"), BARE, seal);
    report.plain(&format!("open all of {what}"), BARE_OPEN, by_all);
    report.plain(&format!("open what shipping sees of {what}"), BARE_OPEN, by_one);
}
