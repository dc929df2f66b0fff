use proptest::prelude::*;

use super::{Action, Count, Entry, FaultKind, Heads, Lane, Outcome, Pseudonym, Refusal};
use super::{TicketEntry, entry_of, origin, verify_lane, verify_lane_to};
use crate::actor::{Actor, Ground};
use crate::crypto::{Prf, hash};
use crate::error::{Error, Malformed, Misuse, Unsupported};
use crate::keeper::VaultId;
use crate::note::{SignedNote, VerifierKey, merkle_root, sign_note};
use crate::token::{FieldRef, Fields};

const VAULT: VaultId = VaultId([7; 16]);
const TIME: i64 = 1_790_000_000_123;

fn subject(n: u8) -> Pseudonym {
    Pseudonym::of(&Prf::new(&[n; 32]), &VAULT)
}

fn fields() -> Fields {
    let field = |record, number| FieldRef { record, number };
    Fields::new(&[field("order", 1), field("order", 2), field("customer", 4)]).unwrap()
}

fn unlock(n: u8) -> Entry {
    Entry::new(TIME, Action::Unlock, Outcome::Done)
        .by(vec![Actor::service("labels").unwrap(), Actor::third_party("carrier").unwrap()])
        .unwrap()
        .because(Ground::new("parcel").unwrap())
        .under_token([3; 16])
        .for_purpose(1)
        .about(subject(n))
}

fn full() -> Entry {
    unlock(1)
        .about_many(vec![subject(1), subject(2), subject(3)])
        .unwrap()
        .with_reference([9; 16])
        .touching(fields())
        .counting(Count::Days, 2)
        .counting(Count::Subjects, 3)
        .with_causes(&[1, 2, 1])
        .giving(TicketEntry { id: [4; 16], recipient: [5; 16], ends_ms: 6 })
}

type Rows = Vec<(u64, Vec<u8>)>;

fn start() -> Lane {
    Lane::start(&VAULT, [1; 16])
}

fn lane_of(count: u8) -> (Lane, Rows) {
    let mut lane = start();
    let mut rows = Vec::new();
    for n in 1..=count {
        let (next, row) = lane.next(&unlock(n));
        lane = next;
        rows.push((lane.seq, row));
    }
    (lane, rows)
}

/// What is wrong, and with which entry.
fn fault(rows: &Rows) -> Option<(u64, FaultKind)> {
    let rows = rows.iter().map(|(seq, row)| (*seq, row));
    verify_lane(&start(), rows).err().map(|fault| (fault.seq(), fault.kind()))
}

fn fault_to(rows: &Rows, head: &Lane) -> Option<(u64, FaultKind)> {
    let rows = rows.iter().map(|(seq, row)| (*seq, row));
    verify_lane_to(&start(), rows, head).err().map(|fault| (fault.seq(), fault.kind()))
}

#[test]
fn the_chain_is_these_hashes() {
    let lane = start();
    assert_eq!(lane.hash, hash(&[b"customer-vault/v1/log/lane", &[7; 16], &[1; 16]]));
    let (next, row) = lane.next(&unlock(1));
    let entry = unlock(1).encode();
    let length = u32::try_from(entry.len()).unwrap().to_be_bytes();
    let seq = 1_u64.to_be_bytes();
    let expected = hash(&[b"customer-vault/v1/log/entry", &lane.hash, &seq, &length, &entry]);
    assert_eq!((next.seq, next.hash), (1, expected));
    assert_eq!(row, [&expected[..], &entry].concat());
    assert_eq!(entry_of(&row), Ok(unlock(1)));
    assert_eq!(entry_of(b"short"), Err(Malformed::Length.into()));
}

#[test]
fn a_lane_verifies_whole_page_by_page_and_empty() {
    let (head, rows) = lane_of(5);
    assert_eq!(verify_lane(&start(), rows.clone()), Ok(head));
    let middle = verify_lane(&start(), rows[..2].to_vec()).unwrap();
    assert_eq!(verify_lane(&middle, rows[2..].to_vec()), Ok(head));
    assert_eq!(verify_lane_to(&start(), rows.clone(), &middle), Ok(head));
    assert_eq!(verify_lane(&head, Rows::new()), Ok(head));
}

#[test]
fn abuse_42_a_changed_entry_is_named() {
    let (_, rows) = lane_of(4);
    for changed in 0..rows.len() {
        for bit in 0..rows[changed].1.len() * 8 {
            let mut rows = rows.clone();
            rows[changed].1[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(fault(&rows), Some((rows[changed].0, FaultKind::Altered)), "{changed} {bit}");
        }
        for length in 0..rows[changed].1.len() {
            let mut rows = rows.clone();
            rows[changed].1.truncate(length);
            assert_eq!(fault(&rows), Some((rows[changed].0, FaultKind::Altered)));
        }
        let mut rows = rows.clone();
        rows[changed].1.push(0);
        assert_eq!(fault(&rows), Some((rows[changed].0, FaultKind::Altered)));
    }
}

#[test]
fn abuse_42_a_changed_entry_with_its_own_hash_made_right_shows_in_the_next() {
    let (_, mut rows) = lane_of(4);
    let before = verify_lane(&start(), rows[..1].to_vec()).unwrap();
    rows[1].1 = before.next(&unlock(99)).1;
    assert_eq!(fault(&rows), Some((3, FaultKind::Altered)));
}

#[test]
fn abuse_42_a_deleted_entry_is_missed() {
    for deleted in 0..3 {
        let (_, mut rows) = lane_of(4);
        let (seq, _) = rows.remove(deleted);
        assert_eq!(fault(&rows), Some((seq, FaultKind::Gap)));
        // The rest moved up to hide it.
        rows.iter_mut().skip(deleted).for_each(|(seq, _)| *seq -= 1);
        assert_eq!(fault(&rows), Some((seq, FaultKind::Altered)));
    }
}

#[test]
fn abuse_42_an_inserted_entry_is_found() {
    let (_, mut rows) = lane_of(4);
    let before = verify_lane(&start(), rows[..2].to_vec()).unwrap();
    rows.insert(2, (3, before.next(&unlock(99)).1));
    assert_eq!(fault(&rows), Some((3, FaultKind::Order)));
    rows.iter_mut().skip(3).for_each(|(seq, _)| *seq += 1);
    assert_eq!(fault(&rows), Some((4, FaultKind::Altered)));
}

#[test]
fn abuse_42_reordered_and_repeated_entries_are_found() {
    let (_, mut rows) = lane_of(4);
    rows.swap(1, 2);
    assert_eq!(fault(&rows), Some((2, FaultKind::Gap)));
    rows[1].0 = 2;
    rows[2].0 = 3;
    assert_eq!(fault(&rows), Some((2, FaultKind::Altered)));
    let (_, mut rows) = lane_of(4);
    rows.insert(1, rows[0].clone());
    assert_eq!(fault(&rows), Some((1, FaultKind::Order)));
    rows[0].0 = 0;
    assert_eq!(fault(&rows), Some((0, FaultKind::Order)));
    rows[0].0 = u64::MAX;
    assert_eq!(fault(&rows), Some((1, FaultKind::Gap)));
}

#[test]
fn abuse_42_a_cut_tail_is_found_against_a_head_and_only_then() {
    let (head, mut rows) = lane_of(4);
    rows.pop();
    assert_eq!(fault(&rows), None, "a lane that was cut verifies in itself: documented");
    assert_eq!(fault_to(&rows, &head), Some((4, FaultKind::Cut)));
    rows.clear();
    assert_eq!(fault_to(&rows, &head), Some((1, FaultKind::Cut)));
}

#[test]
fn abuse_42_a_replaced_lane_is_found_against_a_head_and_only_then() {
    let (head, rows) = lane_of(4);
    let mut lane = verify_lane(&start(), rows[..2].to_vec()).unwrap();
    let mut other = rows[..2].to_vec();
    for n in 50..55 {
        let (next, row) = lane.next(&unlock(n));
        lane = next;
        other.push((lane.seq, row));
    }
    assert_eq!(fault(&other), None);
    assert_eq!(fault_to(&other, &head), Some((4, FaultKind::Replaced)));
    let empty = Lane { seq: 0, hash: [0; 32], ..start() };
    assert_eq!(fault_to(&rows, &empty), Some((0, FaultKind::Replaced)));
    let middle = verify_lane(&start(), rows[..2].to_vec()).unwrap();
    let beyond = verify_lane_to(&head, Rows::new(), &middle).map_err(|fault| fault.kind());
    assert_eq!(beyond, Err(FaultKind::Replaced), "a start beyond the head shows nothing");
}

#[test]
fn a_lane_of_another_vault_or_of_another_id_does_not_verify() {
    let (head, rows) = lane_of(2);
    for other in [Lane::start(&VaultId([8; 16]), [1; 16]), Lane::start(&VAULT, [2; 16])] {
        assert_eq!(verify_lane(&other, rows.clone()).unwrap_err().kind(), FaultKind::Altered);
    }
    let foreign = Lane { id: [2; 16], ..head };
    assert_eq!(fault_to(&rows, &foreign), Some((0, FaultKind::Replaced)));
}

#[test]
fn a_head_row_has_one_encoding() {
    let (head, _) = lane_of(3);
    let bytes = head.encode();
    assert_eq!(Lane::decode(&bytes), Ok(head));
    for length in 0..bytes.len() {
        assert_eq!(Lane::decode(&bytes[..length]), Err(Malformed::Length.into()));
    }
    assert_eq!(Lane::decode(&[&bytes[..], &[0]].concat()), Err(Malformed::Length.into()));
    assert_eq!(Lane::decode(&[&[2], &bytes[1..]].concat()), Err(Unsupported::Version.into()));
}

#[test]
fn an_entry_reads_as_it_was_written() {
    for entry in [unlock(1), full(), Entry::new(i64::MIN, Action::Expire, Outcome::Refused(Refusal::Clock))] {
        assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
    }
    let entry = full();
    assert_eq!((entry.count(Count::Days), entry.count(Count::Roots)), (Some(2), None));
    assert_eq!((entry.subjects().len(), entry.causes()), (3, &[1, 2, 1][..]));
    assert_eq!((entry.actors().len(), entry.purpose(), entry.token()), (2, Some(1), Some(&[3; 16])));
}

#[test]
fn an_entry_is_one_line_for_an_operator() {
    let entry = unlock(1).touching(fields()).counting(Count::Subjects, 1).with_causes(&[4, 5]);
    let expected = format!(
        "2026-09-21T14:13:20Z unlock done by=service:labels>third-party:carrier ground=parcel purpose=1 token={} \
         subject={} fields=customer/4 fields=order/1,2 count:subjects=1 causes=4,5",
        "03".repeat(16),
        subject(1),
    );
    assert_eq!(entry.to_string(), expected);
    assert!(full().to_string().contains(" subjects=3 reference=0909"));
    let refused = Entry::new(0, Action::Unlock, Outcome::Refused(Refusal::NotEnrolled));
    assert_eq!(refused.to_string(), "1970-01-01T00:00:00Z unlock refused:not-enrolled");
}

#[test]
fn a_ticket_stands_in_an_entry_by_its_id_its_recipient_and_its_end() {
    let ticket = TicketEntry { id: [0xA1; 16], recipient: [0xB2; 16], ends_ms: 1_789_999_999_000 };
    let entry = Entry::new(0, Action::Ticket, Outcome::Done).giving(ticket);
    let bytes = entry.encode();
    assert_eq!(bytes[11..13], [10, 40]);
    assert_eq!((Entry::decode(&bytes), entry.ticket()), (Ok(entry.clone()), Some(&ticket)));
    let expected = format!(
        "1970-01-01T00:00:00Z ticket done ticket={} recipient={} until=2026-09-21T14:13:19Z",
        "a1".repeat(16),
        "b2".repeat(16),
    );
    assert_eq!(entry.to_string(), expected);
    // Entries for two tickets stay two.
    let other = Entry::new(0, Action::Ticket, Outcome::Done).giving(TicketEntry { id: [0; 16], ..ticket });
    assert_eq!(Entry::joined(vec![entry.clone(), entry, other]).unwrap().len(), 2);
}

#[test]
fn abuse_07_an_entry_cut_extended_or_of_another_version_is_refused() {
    let bytes = full().encode();
    for length in 0..bytes.len() {
        // A shorter entry with fewer claims can be one too: never the same.
        assert_ne!(Entry::decode(&bytes[..length]), Ok(full()));
    }
    for more in 1..=64 {
        let mut bytes = bytes.clone();
        bytes.resize(bytes.len() + more, 0);
        assert_eq!(Entry::decode(&bytes), Err(Malformed::Order.into()));
    }
    for (at, value) in [(0, 0), (0, 2), (9, 0), (9, 255), (10, 255)] {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        assert_eq!(Entry::decode(&bytes), Err(Unsupported::Version.into()), "{at} {value}");
    }
    let claim = |claim: &[u8]| Entry::decode(&[&bytes[..11], claim].concat()).err();
    assert_eq!(claim(b"\x0B\x00"), Some(Unsupported::Version.into()));
    assert_eq!(claim(b"\x04\x82\x00\x00\x01"), Some(Malformed::NotCanonical.into()));
    for empty in [1, 3, 4, 5, 6, 7, 8, 9, 10] {
        assert_eq!(claim(&[empty, 0]), Some(Malformed::Length.into()), "{empty}");
    }
    assert_eq!(claim(b"\x02\x00"), Some(Malformed::Content.into()));
    assert_eq!(claim(b"\x02\x05a b c"), Some(Malformed::Content.into()));
    assert_eq!(claim(&[&[5, 32][..], &[1; 32]].concat()), Some(Malformed::Order.into()));
    assert_eq!(claim(&[&[8, 18][..], &[1; 18]].concat()), Some(Malformed::Order.into()));
    assert_eq!(claim(&[&[8, 9, 200][..], &[0; 8]].concat()), Some(Unsupported::Version.into()));
    assert_eq!(claim(&[&[9, 65][..], &[0; 65]].concat()), Some(Malformed::Length.into()));
    assert_eq!(claim(&vec![0xFF; 40_000]), Some(Malformed::Length.into()));
}

#[test]
fn every_part_of_an_entry_is_bounded() {
    let many: Vec<_> = (0..=u8::MAX).map(|n| Actor::staff(&n.to_string()).unwrap()).collect();
    assert_eq!(unlock(1).by(many), Err(Misuse::TooLarge.into()));
    let chunk = |count: u16| {
        (0..count).map(|n| {
            let [a, b] = n.to_be_bytes();
            Pseudonym::of(&Prf::new(&std::array::from_fn(|at| if at == 0 { a } else { b })), &VAULT)
        })
    };
    assert_eq!(unlock(1).about_many(chunk(1025).collect()), Err(Misuse::TooLarge.into()));
    let largest = unlock(1).about_many(chunk(1024).collect()).unwrap().with_causes(&[7; 200]);
    assert_eq!((largest.causes().len(), largest.count(Count::MoreCauses)), (64, Some(136)));
    assert_eq!(Entry::decode(&largest.encode()), Ok(largest));
}

#[test]
fn a_pseudonym_depends_on_the_audit_key_and_the_vault_alone() {
    assert_eq!(subject(1), subject(1));
    assert_ne!(subject(1), subject(2));
    assert_ne!(subject(1), Pseudonym::of(&Prf::new(&[1; 32]), &VaultId([8; 16])));
    let expected = Prf::new(&[1; 32]).tag(&[b"customer-vault/v1/log/pseudonym", &[7; 16]]);
    assert_eq!(subject(1).bytes(), &expected);
}

fn heads() -> Heads {
    let (head, _) = lane_of(3);
    Heads::new(vec![Lane { id: [9; 16], ..head }, head, Lane { id: [4; 16], seq: 1, ..head }]).unwrap()
}

#[test]
fn a_checkpoint_covers_every_head_and_is_signed() {
    let heads = heads();
    let text = heads.text(&VAULT, TIME).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], ["customer-vault/07070707070707070707070707070707", "3"]);
    assert_eq!(lines[3..], ["time 2026-09-21T14:13:20Z"]);
    let name = origin(&VAULT);
    let note = sign_note(&name, &[5; 32], &text).unwrap();
    let key = VerifierKey::of(&name, &[5; 32]).unwrap();
    let note = SignedNote::parse(&note).unwrap();
    assert_eq!(heads.check(&VAULT, note.verify(&key).unwrap()).unwrap().root(), &heads.root());
}

#[test]
fn abuse_42_a_checkpoint_over_other_heads_is_refused() {
    let heads = heads();
    let text = heads.text(&VAULT, TIME).unwrap();
    let refused = |other: &Heads| other.check(&VAULT, &text).err() == Some(Error::DoesNotOpen);
    assert!(!refused(&heads));
    for at in 0..3 {
        let mut fewer = heads.lanes().to_vec();
        fewer.remove(at);
        assert!(refused(&Heads::new(fewer).unwrap()));
        let edits: [fn(&mut Lane); 3] =
            [|lane| lane.seq += 1, |lane| lane.hash[0] ^= 1, |lane| lane.id[0] ^= 1];
        for edit in edits {
            let mut changed = heads.lanes().to_vec();
            edit(&mut changed[at]);
            assert!(refused(&Heads::new(changed).unwrap()));
        }
    }
    assert_eq!(heads.check(&VaultId([8; 16]), &text), Err(Error::DoesNotOpen));
    assert!(matches!(heads.check(&VAULT, "text\n"), Err(Error::Malformed(_))));
}

#[test]
fn heads_have_one_encoding_and_one_order() {
    let heads = heads();
    let bytes = heads.encode();
    assert_eq!(Heads::decode(&bytes), Ok(heads.clone()));
    assert_eq!(heads.of(&[4; 16]).map(|lane| lane.seq), Some(1));
    assert_eq!(heads.of(&[5; 16]), None);
    let lanes = heads.lanes();
    assert_eq!(Heads::new(vec![lanes[0], lanes[0]]), Err(Malformed::Order.into()));
    let swapped = [&bytes[..1], &bytes[57..113], &bytes[1..57], &bytes[113..]].concat();
    assert_eq!(Heads::decode(&swapped), Err(Malformed::Order.into()));
    assert_eq!(Heads::decode(&bytes[..60]), Err(Malformed::Length.into()));
    assert_eq!(Heads::decode(b"\x02"), Err(Unsupported::Version.into()));
    let none = Heads::decode(b"\x01").unwrap();
    assert_eq!(none.root(), merkle_root::<&[u8]>(&[]));
}

proptest! {
    #[test]
    fn abuse_07_any_bytes_are_no_entry_or_its_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let framed = [&[1, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0][..], &bytes].concat();
        for bytes in [bytes, framed] {
            if let Ok(entry) = Entry::decode(&bytes) {
                prop_assert_eq!(entry.encode(), bytes.clone());
            }
            drop((Lane::decode(&bytes), Heads::decode(&bytes), start().follow(1, &bytes), entry_of(&bytes)));
        }
    }

    #[test]
    fn abuse_07_one_changed_byte_is_refused_or_another_entry(at in any::<proptest::sample::Index>(), value: u8) {
        let mut bytes = full().encode();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(entry.encode(), bytes);
        }
    }
}
