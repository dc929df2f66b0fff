//! ABUSE 12: no key and nonce twice with different bytes, whatever repeats itself.

use std::collections::HashSet;

use super::{SUITES, UNIQUE, context, field, sealed, shelves};
use crate::cell::{Cell, LOCKBOX, MAX_AAD, Slot, Unique};
use crate::clock::Day;
use crate::context::{Aad, Context, Shape};
use crate::crypto::aead::Suite;
use crate::keeper::VaultId;
use crate::sealed::cells;
use crate::testing::{ManualClock, ephemeral, grant, test_ground, tester};
use crate::value::Bytes;
use crate::{Options, Settings, SubjectId};

/// Seal id and content key, as the lockbox of a purpose gives it.
fn content(
    cell: &Cell<'_>,
    context: &Context<'_>,
    purpose: u16,
    cipher: &crate::crypto::aead::Cipher,
) -> ([u8; 16], [u8; 32]) {
    let index = cell.lockboxes().position(|(known, _)| known == purpose).unwrap();
    let space = cell.locks.chunks_exact(LOCKBOX).nth(index).unwrap();
    let (wrapped, tag) = space.split_first_chunk::<32>().unwrap();
    let id: [u8; 16] = cell.seal_id.try_into().unwrap();
    let mut room = [0; MAX_AAD];
    let mut aad = Aad::new(&mut room, context).unwrap();
    aad.after_context(&[&id, cell.boxes.chunks_exact(4).nth(index).unwrap()]).unwrap();
    let mut key = *wrapped;
    cipher.open(&id, aad.bytes(), &mut key, tag.try_into().unwrap()).unwrap();
    (id, key)
}

#[test]
fn abuse_12_with_prefix_and_counter_repeated_any_difference_gives_another_key_and_none_gives_the_same_bytes()
{
    let contexts = [
        context(&[7]),
        context(&[8]),
        context(&[7, 0]),
        Context::new(&VaultId([9; 16]), &[2; 16], "order", &[7], Shape::Record).unwrap(),
        Context::new(&VaultId([1; 16]), &[9; 16], "order", &[7], Shape::Record).unwrap(),
        Context::new(&VaultId([1; 16]), &[2; 16], "orders", &[7], Shape::Record).unwrap(),
        Context::new(&VaultId([1; 16]), &[2; 16], "order", &[7], Shape::Field).unwrap(),
    ];
    let boxes: [&[(u16, u16)]; 7] = [
        &[(1, 2)],
        &[(1, 3)],
        &[(2, 2)],
        &[(1, 2), (3, 4)],
        &[(1, 2), (3, 5)],
        &[(1, 2), (4, 4)],
        &[(1, 2), (3, 4), (5, 6)],
    ];
    let slots: [&[Slot]; 5] = [
        &[field(1)],
        &[field(2)],
        &[Slot { number: 1, padded: true }],
        &[field(1), field(2)],
        &[field(1), field(3)],
    ];
    let values: [&[u8]; 6] = [b"", b"\0", b"a", b"b", b"ab", b"ab\0"];
    let (mut ids, mut keys, mut nonces, mut count) =
        (HashSet::new(), HashSet::new(), HashSet::new(), 0_usize);
    for suite in SUITES {
        for context in &contexts {
            for boxes in boxes {
                for slots in slots {
                    for values in values {
                        for generation in [1, 2] {
                            let shelves = shelves(suite, generation, boxes);
                            let bytes = sealed(&shelves, context, UNIQUE, slots, values);
                            assert_eq!(bytes, sealed(&shelves, context, UNIQUE, slots, values));
                            let cell = Cell::parse(&bytes).unwrap();
                            let lock = &shelves.boxes[0];
                            let (id, key) = content(&cell, context, lock.purpose, &lock.cipher);
                            ids.insert(id);
                            nonces.insert(id.first_chunk::<12>().copied());
                            keys.insert(key);
                            count += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(count, 2 * 7 * 7 * 5 * 6 * 2);
    assert_eq!((ids.len(), keys.len(), nonces.len()), (count, count, count));
}

#[test]
fn abuse_12_prefix_and_counter_alone_tell_equal_seals_apart() {
    let shelves = shelves(Suite::Aes256Gcm, 1, &[(1, 2)]);
    let of = |prefix, counter| {
        let unique = Unique { prefix: [prefix; 16], counter };
        sealed(&shelves, &context(&[7]), unique, &[field(1)], b"a")
    };
    let all = [of(0, 0), of(0, 1), of(1, 0), of(0, 1 << 32), of(0, u64::MAX), of(0xFF, u64::MAX)];
    let ids: HashSet<&[u8]> = all.iter().map(|bytes| Cell::parse(bytes).unwrap().seal_id).collect();
    assert_eq!(ids.len(), all.len());
}

crate::purposes! { Shipping: Contract = 1 "shipping"; Fraud: LegitimateInterest = 2 "fraud"; }

crate::record! {
    struct Note[u64] / SealedNote / NoteView in note = "note" {
        text: Bytes = 1 "text", basic, for [Shipping: 90 days, Fraud: 90 days];
    }
}

#[test]
fn abuse_12_a_hundred_thousand_equal_seals_over_threads_and_handles_share_no_nonce_and_no_key() {
    const EACH: usize = 25_000;
    let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
    let options =
        Options::new().record::<Note>().clock(clock).settings(Settings::default().height(1).unwrap());
    let vault = pollster::block_on(ephemeral(options)).unwrap();
    let id = SubjectId::new("alice").unwrap();
    pollster::block_on(vault.enroll(&id, [], &tester(), &test_ground())).unwrap();
    let handle = || pollster::block_on(vault.sealer::<Note>(&id, &tester(), &test_ground())).unwrap();
    // Two threads on one handle, and two with one each.
    let (shared, own, other) = (handle(), handle(), handle());
    let of = |sealer: &crate::Sealer<Note>| {
        let seal = |_| {
            sealer.seal(Note { text: Bytes::parse(b"always the same").unwrap() }, &1).unwrap().into_bytes()
        };
        (0..EACH).map(seal).collect::<Vec<_>>()
    };
    let all: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads = [&shared, &shared, &own, &other].map(|sealer| scope.spawn(move || of(sealer)));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let grant = pollster::block_on(grant::<Shipping>(&vault, &id)).unwrap();
    let today = grant.check().unwrap();
    let (mut nonces, mut keys) = (HashSet::new(), HashSet::new());
    for bytes in &all {
        let cell = cells(bytes).unwrap().next().unwrap().unwrap();
        let opened = grant.open(&cell, today, |serial, purpose, cipher| {
            let id = 1_u64.to_be_bytes();
            let context = Context::new(grant.vault_id(), serial, "note", &id, Shape::Record)?;
            Ok(content(&cell, &context, purpose, cipher))
        });
        let (id, key) = opened.unwrap().unwrap();
        nonces.insert(id.first_chunk::<12>().copied());
        keys.insert(key);
    }
    assert_eq!((all.len(), nonces.len(), keys.len()), (4 * EACH, 4 * EACH, 4 * EACH));
}
