//! A record is sealed, its bytes are altered, and what opens then is what was sealed or nothing.
#![no_main]

use std::cell::RefCell;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use customer_vault::testing::{ephemeral, grant, test_ground, tester};
use customer_vault::value::Bytes;
use customer_vault::*;
use libfuzzer_sys::fuzz_target;
use pollster::block_on;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    pub struct Note[u64] / SealedNote / NoteView in note = "note" {
        pub first: Bytes = 1 "first", basic, for [Shipping: 90 days, Invoicing: 10 years];
        pub second: Option<Bytes> = 2 "second", basic, for [Shipping: 90 days], padded 16;
        pub third: Vec<Bytes> = 300 "third", basic, for [Invoicing: 10 years];
    }
}

#[derive(Arbitrary, Debug)]
struct Input {
    id: u64,
    first: Vec<u8>,
    second: Option<Vec<u8>>,
    third: Vec<Vec<u8>>,
    changes: Vec<Change>,
}

#[derive(Arbitrary, Debug)]
enum Change {
    Flip(u16, u8),
    Set(u16, u8),
    Cut(u16),
    Append(Vec<u8>),
    Insert(u16, u8),
    Remove(u16),
    Swap(u16, u16),
    /// A part of the value, moved elsewhere.
    Copy(u16, u16, u8),
    /// Under another record id.
    Elsewhere(u64),
}

static VAULT: LazyLock<(Vault, SubjectId, Grant<Shipping>, Grant<SubjectAccess>)> = LazyLock::new(|| {
    block_on(async {
        let vault = ephemeral(Options::new().record::<Note>()).await.unwrap();
        let id = SubjectId::new("alice").unwrap();
        vault.enroll(&id, [], &tester(), &test_ground()).await.unwrap();
        let (shipping, access) = (grant(&vault, &id).await.unwrap(), grant(&vault, &id).await.unwrap());
        (vault, id, shipping, access)
    })
});

thread_local! {
    static SEALER: RefCell<Option<Sealer<Note>>> = const { RefCell::new(None) };
}

fn seal(note: impl Fn() -> Note, id: u64) -> SealedNote {
    let (vault, subject, ..) = &*VAULT;
    SEALER.with_borrow_mut(|held| {
        if let Some(Ok(sealed)) = held.as_ref().map(|sealer| sealer.seal(note(), &id)) {
            return sealed;
        }
        // None yet, or its seals are used up.
        let sealer = block_on(vault.sealer::<Note>(subject, &tester(), &test_ground())).unwrap();
        let sealed = sealer.seal(note(), &id).unwrap();
        *held = Some(sealer);
        sealed
    })
}

fn change(bytes: &mut Vec<u8>, id: &mut u64, change: &Change) {
    let place = |at: u16, len: usize| usize::from(at) % len.max(1);
    let len = bytes.len();
    match change {
        Change::Flip(at, bits) if len > 0 => bytes[place(*at, len)] ^= bits,
        Change::Set(at, byte) if len > 0 => bytes[place(*at, len)] = *byte,
        Change::Cut(at) => bytes.truncate(place(*at, len)),
        Change::Append(more) => bytes.extend_from_slice(more),
        Change::Insert(at, byte) => bytes.insert(place(*at, len), *byte),
        Change::Remove(at) if len > 0 => drop(bytes.remove(place(*at, len))),
        Change::Swap(a, b) if len > 0 => bytes.swap(place(*a, len), place(*b, len)),
        Change::Copy(from, to, n) if len > 0 => {
            let (from, to) = (place(*from, len), place(*to, len));
            let n = usize::from(*n).min(len - from).min(len - to);
            bytes.copy_within(from..from + n, to);
        }
        Change::Elsewhere(other) => *id = *other,
        _ => {}
    }
}

fuzz_target!(|input: Input| {
    let Input { id, first, second, third, changes } = &input;
    let value = |bytes: &Vec<u8>| Bytes::parse(bytes).unwrap();
    let note = || Note {
        first: value(first),
        second: second.as_ref().map(value),
        third: third.iter().map(value).collect(),
    };
    let sealed = seal(note, *id);
    let (_, _, shipping, access) = &*VAULT;
    let (mut bytes, mut elsewhere) = (sealed.as_bytes().to_vec(), *id);
    for step in changes {
        change(&mut bytes, &mut elsewhere, step);
    }
    let same = bytes == sealed.as_bytes() && elsewhere == *id;
    let altered = match SealedNote::from_bytes(bytes) {
        Ok(altered) => altered,
        Err(_) => return assert!(!same),
    };
    // What opens holds the values that were sealed; a whole cell may have been cut off.
    let third_is = |found: &[Bytes]| {
        found.len() == third.len() && found.iter().zip(third).all(|(found, sealed)| found.expose() == sealed)
    };
    match altered.open(shipping, &elsewhere) {
        Ok(view) => {
            assert!(
                view.first().is_ok_and(|found| found.expose() == first) || !same && view.first().is_err()
            );
            match view.second() {
                Ok(found) => assert_eq!(found.map(Bytes::expose), second.as_deref()),
                Err(_) => assert!(!same),
            }
        }
        Err(_) => assert!(!same),
    }
    match altered.open(access, &elsewhere) {
        Ok(view) => match view.third() {
            Ok(found) => assert!(third_is(found)),
            Err(_) => assert!(!same),
        },
        Err(_) => assert!(!same),
    }
    // Under another record id no cell opens at all.
    if elsewhere != *id
        && let Ok(view) = altered.open(access, &elsewhere)
    {
        assert!(view.first().is_err() && view.second().is_err() && view.third().is_err());
    }
});
