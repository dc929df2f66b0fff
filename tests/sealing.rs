//! Sealing into the caller's buffer, many at once, and over midnight.
#![cfg(feature = "testing")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    unreachable_pub,
    reason = "a test"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use customer_vault::testing::{ManualClock, ephemeral, grant, test_ground, tester};
use customer_vault::value::Bytes;
use customer_vault::{
    Absent, Day, Encoder, Error, Forget, Options, Sealed, Sealer, SubjectId, Value, Vault, purposes, record,
};
use pollster::block_on;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub Invoicing: LegalObligation = 3 "invoicing";
}

/// A value that panics while it is encoded, where it says so.
#[derive(Debug)]
pub struct Touchy(Vec<u8>);

impl Value for Touchy {
    fn encoded_len(&self) -> usize {
        self.0.len() + 1
    }
    fn encode(&self, out: &mut Encoder<'_>) {
        out.put(&self.0);
        assert_ne!(self.0, b"canary, panics");
        out.put(&[0]);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Touchy(bytes.strip_suffix(&[0])?.to_vec()))
    }
}

record! {
    pub struct Note[u64] / SealedNotes / NoteView in note = "note" {
        pub body: Bytes = 1 "body", basic, for [Shipping: 90 days, Invoicing: 10 years];
        pub touchy: Touchy = 2 "touchy", basic, for [Shipping: 90 days];
        pub scan: Bytes = 3 "scan", basic, for [Shipping: 90 days], padded 64;
    }
}

fn a_note(number: u64) -> Note {
    Note {
        body: Bytes::parse(&number.to_be_bytes()).unwrap(),
        touchy: Touchy(b"calm".to_vec()),
        scan: Bytes::parse(&[]).unwrap(),
    }
}

struct World {
    vault: Vault,
    clock: ManualClock,
    id: SubjectId,
    sealer: Sealer<Note>,
}

fn world() -> World {
    let clock = ManualClock::at(Day::from_ymd(2026, 3, 1).unwrap());
    let vault = block_on(ephemeral(Options::new().record::<Note>().clock(clock.clone()))).unwrap();
    let id = SubjectId::new("alice").unwrap();
    block_on(vault.enroll(&id, [], &tester(), &test_ground())).unwrap();
    let sealer = block_on(vault.sealer::<Note>(&id, &tester(), &test_ground())).unwrap();
    World { vault, clock, id, sealer }
}

#[test]
fn many_are_sealed_at_their_places_on_any_number_of_threads() {
    let World { vault, id, sealer, .. } = world();
    let grant = block_on(grant::<Shipping>(&vault, &id)).unwrap();
    for count in [0, 1, 31, 32, 33, 64, 65, 1000] {
        let sealed = sealer.seal_many((0..count).map(|number| (a_note(number), number)).collect());
        assert_eq!(sealed.len(), usize::try_from(count).unwrap());
        for (number, sealed) in (0..count).zip(sealed) {
            let view = sealed.unwrap().open(&grant, &number).unwrap();
            assert_eq!(view.body().unwrap().expose(), number.to_be_bytes());
        }
    }
    // Of many, one that is refused is refused alone.
    let long = Note { touchy: Touchy(vec![1; 17 << 20]), ..a_note(0) };
    let mut records: Vec<(Note, u64)> = (0..99).map(|number| (a_note(number), number)).collect();
    records.insert(50, (long, 50));
    let sealed = sealer.seal_many(records);
    assert!(sealed.iter().enumerate().all(|(place, sealed)| sealed.is_err() == (place == 50)));
    // After a forget nothing comes out of it.
    block_on(vault.forget(&id, Forget::by(&tester(), &test_ground()))).unwrap();
    let sealed = sealer.seal_many((0..99).map(|number| (a_note(number), number)).collect());
    assert!(sealed.iter().all(|sealed| matches!(sealed, Err(Error::Erased(_)))));
}

#[test]
fn what_is_sealed_into_a_buffer_stands_behind_what_it_held() {
    let World { vault, id, sealer, .. } = world();
    let grant = block_on(grant::<Shipping>(&vault, &id)).unwrap();
    let mut buffer = b"before".to_vec();
    let mut ends = vec![buffer.len()];
    for number in 0..5 {
        sealer.seal_into(a_note(number), &number, &mut buffer).unwrap();
        ends.push(buffer.len());
    }
    assert!(buffer.starts_with(b"before"));
    for (number, span) in (0..5_u64).zip(ends.windows(2)) {
        let sealed = Sealed::<Note>::from_bytes(buffer[span[0]..span[1]].to_vec()).unwrap();
        let view = sealed.open(&grant, &number).unwrap();
        assert_eq!(view.body().unwrap().expose(), number.to_be_bytes());
    }
    // Nothing is added where sealing fails, or where a value of the shop's panics in the middle.
    let held = buffer.clone();
    let panics = Note { touchy: Touchy(b"canary, panics".to_vec()), ..a_note(0) };
    let panicked = catch_unwind(AssertUnwindSafe(|| sealer.seal_into(panics, &1, &mut buffer)));
    assert!(panicked.is_err());
    assert_eq!(buffer, held);
    block_on(vault.forget(&id, Forget::by(&tester(), &test_ground()))).unwrap();
    assert!(matches!(sealer.seal_into(a_note(9), &9, &mut buffer), Err(Error::Erased(_))));
    assert_eq!(buffer, held);
}

#[test]
fn a_sealer_that_is_held_over_midnight_seals_for_the_new_day() {
    let World { vault, clock, id, sealer } = world();
    let days = |sealed: &SealedNotes| sealed.unverified_days().into_iter().map(|(_, day)| day).min().unwrap();
    let first = sealer.seal(a_note(1), &1).unwrap();
    let field = sealer.seal_field::<note::touchy>(Touchy(Vec::new()), &1).unwrap();
    for later in 1..4 {
        clock.advance_days(1);
        let sealed = sealer.seal(a_note(2), &2).unwrap();
        assert_eq!(days(&sealed), days(&first).plus(later));
        let next = sealer.seal_field::<note::touchy>(Touchy(Vec::new()), &1).unwrap();
        assert_eq!(next.unverified_days()[0].1, field.unverified_days()[0].1.plus(later));
        // As of a day of before, between seals of today.
        let before = sealer.seal_as_of(a_note(3), &3, Day::from_ymd(2026, 3, 1).unwrap()).unwrap();
        assert_eq!(days(&before), days(&first));
        assert_eq!(days(&sealer.seal(a_note(4), &4).unwrap()), days(&first).plus(later));
        let grant = block_on(grant::<Shipping>(&vault, &id)).unwrap();
        assert!(first.open(&grant, &1).unwrap().touchy().is_ok());
    }
}

#[test]
fn a_grant_that_is_held_over_the_last_day_opens_nothing_of_it() {
    let World { vault, clock, id, sealer } = world();
    let sealed = sealer.seal(a_note(1), &1).unwrap();
    // Ten seconds before midnight of the last day, and ten after it, by one grant.
    clock.advance_days(90);
    clock.advance(Duration::from_secs(43_190));
    let grant = block_on(grant::<Shipping>(&vault, &id)).unwrap();
    assert!(sealed.open(&grant, &1).unwrap().touchy().is_ok());
    clock.advance(Duration::from_secs(20));
    assert_eq!(sealed.open(&grant, &1).unwrap().touchy().unwrap_err(), Absent::Expired);
}

#[test]
fn bytes_are_opened_into_a_buffer_behind_what_it_held() {
    let World { vault, id, sealer, .. } = world();
    let ships = block_on(grant::<Shipping>(&vault, &id)).unwrap();
    let books = block_on(grant::<Invoicing>(&vault, &id)).unwrap();
    for len in [0, 1, 30, 31, 32, 33, 62, 63, 64, 200, 1000, 70_000, 1 << 20] {
        let bytes: Vec<u8> = (0..len).map(|place| u8::try_from(place % 251).unwrap()).collect();
        let value = || Bytes::parse(&bytes).unwrap();
        let body = sealer.seal_field::<note::body>(value(), &1).unwrap();
        let scan = sealer.seal_field::<note::scan>(value(), &1).unwrap();
        let mut out = b"before".to_vec();
        body.open_into(&ships, &1, &mut out).unwrap();
        scan.open_into(&ships, &1, &mut out).unwrap();
        body.open_into(&books, &1, &mut out).unwrap();
        assert_eq!(out, [b"before", bytes.as_slice(), &bytes, &bytes].concat(), "{len}");
        assert_eq!(body.open(&ships, &1).unwrap().expose(), bytes);

        // Another record's id, a bit that was altered: nothing is added, and nothing of it is left behind.
        let held = out.clone();
        assert_eq!(body.open_into(&ships, &2, &mut out), Err(Error::DoesNotOpen));
        let mut altered = scan.as_bytes().to_vec();
        *altered.last_mut().unwrap() ^= 1;
        let altered = Sealed::<note::scan>::from_bytes(altered).unwrap();
        assert_eq!(altered.open_into(&ships, &1, &mut out), Err(Error::DoesNotOpen));
        assert_eq!(out, held);
    }
    let body = sealer.seal_field::<note::body>(Bytes::parse(&[7; 99]).unwrap(), &1).unwrap();
    let mut out = Vec::new();
    block_on(vault.withdraw::<Shipping>(&id, &tester(), &test_ground())).unwrap();
    assert!(body.open_into(&ships, &1, &mut out).is_err() && out.is_empty());
    block_on(vault.forget(&id, Forget::by(&tester(), &test_ground()))).unwrap();
    let late = body.open_into(&ships, &1, &mut out);
    assert!(matches!(late, Err(Error::Erased(_) | Error::Stale)) && out.is_empty());
}
