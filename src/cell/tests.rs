#![allow(clippy::arithmetic_side_effects, clippy::missing_docs_in_private_items, reason = "a test")]

mod collisions;
mod uniqueness;

use zeroize::Zeroizing;

use super::{
    COMMITMENT, Cell, LOCKBOX, Lock, MAX_AAD, MAX_FIELDS, MAX_HEADER, SEAL_ID, Shelves, Slot, Unique, seal,
    sealed_len, slot,
};
use crate::clock::Day;
use crate::context::{Aad, Context, Shape};
use crate::crypto::Prf;
use crate::crypto::aead::{Cipher, Suite, TAG};
use crate::error::{Error, Malformed, Misuse, Result, Unsupported};
use crate::keeper::VaultId;
use crate::value::Encoder;
use crate::wire::Reader;

pub(super) const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::XChaCha20Poly1305];

pub(super) fn context(id: &[u8]) -> Context<'_> {
    Context::new(&VaultId([1; 16]), &[2; 16], "order", id, Shape::Record).unwrap()
}

/// A lockbox's cipher, the same for the same purpose and day, whatever the suite.
pub(super) fn cipher(suite: Suite, purpose: u16, day: u16) -> Cipher {
    let key = crate::crypto::hash(&[&purpose.to_be_bytes(), &day.to_be_bytes()]);
    Cipher::new(suite, &key)
}

/// The hedge keys are the same whatever the shelves are: a harder case than any that can come up.
pub(super) fn shelves(suite: Suite, generation: u16, boxes: &[(u16, u16)]) -> Shelves {
    let lock = |(purpose, day): &(u16, u16)| Lock {
        purpose: *purpose,
        day: Day(*day),
        cipher: cipher(suite, *purpose, *day),
    };
    Shelves {
        suite,
        generation,
        hedge: Prf::new(&[3; 32]),
        second_hedge: Prf::new(&[4; 32]),
        boxes: boxes.iter().map(lock).collect(),
    }
}

pub(super) const UNIQUE: Unique = Unique { prefix: [5; 16], counter: 6 };

pub(super) fn field(number: u16) -> Slot {
    Slot { number, padded: false }
}

pub(super) fn sealed(
    shelves: &Shelves,
    context: &Context<'_>,
    unique: Unique,
    slots: &[Slot],
    values: &[u8],
) -> Vec<u8> {
    let mut out = Zeroizing::new(Vec::with_capacity(sealed_len(slots, shelves.boxes.len(), values.len())));
    seal(shelves, context, unique, slots, values.len(), &mut out, |out| out.put(values)).unwrap();
    assert_eq!(out.len(), sealed_len(slots, shelves.boxes.len(), values.len()));
    out.to_vec()
}

fn opened(bytes: &[u8], purpose: u16) -> Result<Vec<u8>> {
    let cell = Cell::parse(bytes)?;
    let day = cell.day_for(purpose).ok_or(Error::DoesNotOpen)?;
    cell.open(&context(&[7]), purpose, &cipher(cell.suite, purpose, day.0), |values| Ok(values.to_vec()))
}

#[test]
fn a_cell_has_the_parts_that_the_specification_says() {
    for suite in SUITES {
        let slots = [field(1), Slot { number: 64, padded: true }, field(300)];
        let bytes = sealed(&shelves(suite, 9, &[(1, 2), (3, 4)]), &context(&[7]), UNIQUE, &slots, b"values");
        let header = [suite.number(), 0, 9, 3, 2, 127, 0xD8, 3, 2, 0, 1, 0, 2, 0, 3, 0, 4];
        assert_eq!(bytes[..header.len()], header);
        assert_eq!(bytes.len(), header.len() + SEAL_ID + 2 * LOCKBOX + COMMITMENT + 6 + TAG);
        let cell = Cell::parse(&bytes).unwrap();
        assert_eq!((cell.suite, cell.generation), (suite, 9));
        assert_eq!(cell.slots().collect::<Vec<_>>(), slots);
        assert_eq!(cell.lockboxes().collect::<Vec<_>>(), [(1, Day(2)), (3, Day(4))]);
        assert_eq!(opened(&bytes, 1).unwrap(), b"values");
        assert_eq!(opened(&bytes, 3).unwrap(), b"values");
    }
}

#[test]
fn abuse_01_a_cell_opens_under_its_own_context_alone_even_where_the_keys_are_the_same() {
    let own = context(&[7]);
    for suite in SUITES {
        let bytes = sealed(&shelves(suite, 9, &[(1, 2)]), &own, UNIQUE, &[field(1)], b"values");
        let cell = Cell::parse(&bytes).unwrap();
        let open =
            |context: &Context<'_>| cell.open(context, 1, &cipher(suite, 1, 2), |values| Ok(values.to_vec()));
        assert_eq!(open(&own).unwrap(), b"values");
        for (vault, serial, record, id, shape) in [
            (9, 2, "order", &[7][..], Shape::Record),
            (1, 9, "order", &[7], Shape::Record),
            (1, 2, "orders", &[7], Shape::Record),
            (1, 2, "order", &[8], Shape::Record),
            (1, 2, "order", &[], Shape::Record),
            (1, 2, "order", &[7], Shape::Field),
        ] {
            let other = Context::new(&VaultId([vault; 16]), &[serial; 16], record, id, shape).unwrap();
            assert_eq!(open(&other), Err(Error::DoesNotOpen));
        }
    }
}

/// Whether an altered cell may still open for purpose 1: where only the other purpose's lockbox was touched.
fn opens_all_the_same(at: usize, header: usize) -> bool {
    (header + SEAL_ID + LOCKBOX..header + SEAL_ID + 2 * LOCKBOX).contains(&at)
}

#[test]
fn abuse_07_every_bit_of_a_cell_counts_and_so_does_every_byte_at_its_end() {
    for suite in SUITES {
        for values in [&b""[..], b"a", &[8; 1500]] {
            let slots = [field(1), Slot { number: 64, padded: true }];
            let bytes = sealed(&shelves(suite, 9, &[(1, 2), (3, 4)]), &context(&[7]), UNIQUE, &slots, values);
            let header = 4 + 2 + 1 + 8;
            for bit in 0..bytes.len().min(600) * 8 {
                let mut altered = bytes.clone();
                altered[bit / 8] ^= 1 << (bit % 8);
                let same = opens_all_the_same(bit / 8, header);
                assert_eq!(opened(&altered, 1).is_ok(), same, "bit {bit}");
            }
            for len in 0..bytes.len() {
                assert!(opened(&bytes[..len], 1).is_err(), "cut at {len}");
            }
            for more in 1..=64 {
                for byte in [0, 1, 0x80, 0xFF] {
                    let longer = [&bytes[..], &vec![byte; more]].concat();
                    assert!(opened(&longer, 1).is_err(), "{more} more");
                    let before = [&vec![byte; more], &bytes[..]].concat();
                    assert!(opened(&before, 1).is_err(), "{more} before");
                }
            }
        }
    }
}

#[test]
fn abuse_08_an_unknown_suite_is_unsupported_whatever_follows() {
    for number in (0..=u8::MAX).filter(|number| ![1, 2].contains(number)) {
        for rest in [&[][..], &[0; 200], &[0xFF; 200]] {
            let bytes = [&[number], rest].concat();
            assert_eq!(Cell::parse(&bytes).unwrap_err(), Error::Unsupported(Unsupported::Suite));
        }
    }
}

/// A cell of purpose 1 on day 2, around a header's fields and the rest.
fn crafted(count: u8, fields: &[u8], boxes: &[u8], rest: usize) -> Vec<u8> {
    let mut bytes = vec![1, 0, 1, count];
    bytes.extend(fields);
    bytes.extend(boxes);
    bytes.resize(bytes.len() + rest, 0);
    bytes
}

#[test]
fn abuse_09_a_header_has_one_form() {
    let rest = SEAL_ID + LOCKBOX + COMMITMENT + TAG;
    let one = [1, 0, 1, 0, 2];
    assert!(Cell::parse(&crafted(1, &[2], &one, rest)).is_ok());
    let malformed = |bytes: Vec<u8>, why: Malformed| {
        assert_eq!(Cell::parse(&bytes).unwrap_err(), Error::Malformed(why), "{bytes:?}");
    };
    // No field, a field of number 0, two of one number, a number beyond 65,535.
    malformed(crafted(0, &[], &one, rest), Malformed::Content);
    malformed(crafted(1, &[0], &one, rest), Malformed::Order);
    malformed(crafted(1, &[1], &one, rest), Malformed::Order);
    malformed(crafted(2, &[2, 0], &one, rest), Malformed::Order);
    malformed(crafted(1, &[0x80, 0x80, 0x08], &one, rest), Malformed::Order);
    malformed(crafted(2, &[0xFE, 0xFF, 0x07, 2], &one, rest), Malformed::Order);
    assert!(Cell::parse(&crafted(1, &[0xFE, 0xFF, 0x07], &one, rest)).is_ok(), "65,535");
    // Integers with zeros before them, and of more than 32 bits.
    for fields in
        [&[0x82, 0][..], &[0x82, 0x80, 0], &[0x82, 0x80, 0x80, 0x80, 0], &[0xFF, 0xFF, 0xFF, 0xFF, 0x1F]]
    {
        malformed(crafted(1, fields, &one, rest), Malformed::NotCanonical);
    }
    malformed(crafted(1, &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1], &one, rest), Malformed::NotCanonical);
    // No lockbox, purpose 0, the same purpose twice, out of order.
    malformed(crafted(1, &[2], &[0], rest), Malformed::Content);
    malformed(crafted(1, &[2], &[1, 0, 0, 0, 2], rest), Malformed::Order);
    malformed(crafted(1, &[2], &[2, 0, 1, 0, 2, 0, 1, 0, 3], rest + LOCKBOX), Malformed::Order);
    malformed(crafted(1, &[2], &[2, 0, 2, 0, 2, 0, 1, 0, 3], rest + LOCKBOX), Malformed::Order);
    // More fields and lockboxes than may be, with room for all of them.
    let many = u8::try_from(MAX_FIELDS).unwrap();
    assert!(Cell::parse(&crafted(many, &[2; MAX_FIELDS], &one, rest)).is_ok());
    malformed(crafted(many + 1, &[2; MAX_FIELDS + 1], &one, rest), Malformed::Content);
    malformed(crafted(255, &[2; 255], &one, rest), Malformed::Content);
    let boxes = |n: u8| {
        let mut boxes = vec![n];
        (1..=n).for_each(|purpose| boxes.extend([0, purpose, 0, 2]));
        crafted(1, &[2], &boxes, rest + LOCKBOX * usize::from(n - 1))
    };
    assert!(Cell::parse(&boxes(32)).is_ok());
    malformed(boxes(33), Malformed::Content);
    malformed(boxes(255), Malformed::Content);
}

fn taken(bytes: &[u8], padded: bool) -> Result<Option<Vec<u8>>> {
    let mut reader = Reader::new(bytes);
    let value = slot::take(&mut reader, padded)?.map(<[u8]>::to_vec);
    reader.end()?;
    Ok(value)
}

#[test]
fn abuse_09_a_value_has_one_form() {
    assert_eq!(taken(&[0], false), Ok(None));
    assert_eq!(taken(&[1], false), Ok(Some(vec![])));
    assert_eq!(taken(&[3, 8, 9], false), Ok(Some(vec![8, 9])));
    assert_eq!(taken(&[5, 0, 0, 0, 0], true), Ok(None));
    assert_eq!(taken(&[5, 2, 8, 0, 0], true), Ok(Some(vec![8])));
    for bytes in [
        &[][..],
        // A count with zeros before it, of more than 32 bits, or beyond what is there.
        &[0x80, 0],
        &[0x81, 0],
        &[0x83, 0x80, 0, 8, 9],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0x1F],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
        &[0x80, 0x80, 0x80, 0x80, 0x08],
        &[0x81, 0x80, 0x80, 0x80, 0x08, 0, 0],
        &[4, 8, 9],
        &[16],
        // Bytes left over.
        &[3, 8, 9, 0],
        &[0, 0],
    ] {
        assert!(taken(bytes, false).is_err(), "{bytes:?}");
    }
    for bytes in [
        // No slot, an empty one, and a value that is longer than its slot.
        &[0][..],
        &[1],
        &[3, 3, 8],
        &[3, 0xFF, 0xFF],
        // Padding that is not zero, at either end.
        &[5, 2, 8, 0, 1],
        &[5, 2, 8, 1, 0],
        &[5, 0, 1, 0, 0],
        &[5, 0x82, 0, 8, 0],
    ] {
        assert!(taken(bytes, true).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_value_is_as_long_as_announced_and_comes_back() {
    for padding in [0, 1, 2, 31, 32, 64, 1000, u16::MAX] {
        for len in [None, Some(0), Some(1), Some(30), Some(31), Some(126), Some(127), Some(128), Some(20_000)]
        {
            let value = vec![8; len.unwrap_or(0)];
            let announced = slot::len(len, padding);
            let mut out = Zeroizing::new(Vec::with_capacity(announced));
            slot::put(len, padding, &mut Encoder::new(&mut out), |out| out.put(&value));
            assert_eq!(out.len(), announced);
            assert_eq!(taken(&out, padding > 0), Ok(len.map(|_| value)), "{len:?} padded {padding}");
        }
    }
}

#[test]
fn what_cannot_be_a_cell_is_not_sealed_and_leaves_nothing_behind() {
    let refused = |slots: &[Slot], boxes: &[(u16, u16)], announced: usize, written: &[u8]| {
        let mut out = Zeroizing::new(vec![42]);
        let shelves = shelves(Suite::Aes256Gcm, 1, boxes);
        let done = seal(&shelves, &context(&[7]), UNIQUE, slots, announced, &mut out, |out| out.put(written));
        assert_eq!(done.unwrap_err(), Error::Misuse(Misuse::TooLarge));
        assert_eq!(*out, [42]);
    };
    let many: Vec<(u16, u16)> = (1..=33).map(|purpose| (purpose, 2)).collect();
    let all: Vec<Slot> = (1..=129).map(field).collect();
    refused(&[], &[(1, 2)], 1, b"a");
    refused(&[field(1)], &[], 1, b"a");
    refused(&all, &[(1, 2)], 1, b"a");
    refused(&[field(1)], &many, 1, b"a");
    refused(&[field(1)], &[(1, 2)], 2, b"a");
    refused(&[field(1)], &[(1, 2)], 0, b"a");
    refused(&[field(1)], &[(1, 2)], super::MAX_PLAINTEXT + 1, b"a");
    refused(&[field(1)], &[(1, 2)], usize::MAX, b"a");
}

/// The largest header and context fit into what is reserved for them.
#[test]
fn the_largest_cell_seals_and_opens() {
    let name = "n".repeat(64);
    let context = Context::new(&VaultId([1; 16]), &[2; 16], &name, &[7; 128], Shape::Record).unwrap();
    let slots: Vec<Slot> =
        (0..128).map(|n| Slot { number: 65_535 - 500 * (127 - n), padded: true }).collect();
    let boxes: Vec<(u16, u16)> = (1..=32).map(|purpose| (purpose * 2000, u16::MAX)).collect();
    let bytes = sealed(&shelves(Suite::Aes256Gcm, 9, &boxes), &context, UNIQUE, &slots, b"values");
    let cell = Cell::parse(&bytes).unwrap();
    let open =
        cell.open(&context, 64_000, &cipher(cell.suite, 64_000, u16::MAX), |values| Ok(values.to_vec()));
    assert_eq!(open.unwrap(), b"values");
    assert!(Aad::new(&mut [0; MAX_AAD], &context).unwrap().after_context(&[&[0; MAX_HEADER]]).is_ok());
}
