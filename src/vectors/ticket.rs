//! Tickets.

use std::collections::BTreeMap;

use serde_json::json;
use zeroize::Zeroizing;

use super::{check, count, hex, said};
use crate::actor::SubjectId;
use crate::clock::Day;
use crate::error::{Denied, Error, Malformed, Result};
use crate::keeper::VaultId;
use crate::key::Secret;
use crate::log::origin;
use crate::note::VerifierKey;
use crate::ticket::format::{Contents, Generation, Header, Subjects, subject_hint};
use crate::ticket::{ReaderKey, Ticket};
use crate::token::{FieldRef, Fields};

const GIVEN: i64 = 1_767_600_000_000;
const ID: [u8; 16] = [0xD7; 16];

fn vault() -> VaultId {
    VaultId(count(0x10))
}

fn verifier() -> VerifierKey {
    VerifierKey::of(&origin(&vault()), &count(0x66)).unwrap()
}

fn reader() -> ReaderKey {
    ReaderKey::from_bytes(&Zeroizing::new(count(0x70))).unwrap()
}

fn header(recipient: &ReaderKey, ends_ms: i64) -> Header {
    let recipient = *recipient.recipient().bytes();
    Header { vault: vault(), id: ID, purpose: 1, given_ms: GIVEN, ends_ms, recipient }
}

fn contents(fields: Option<Fields>) -> Contents {
    let shelves = |days: &[u16]| {
        let shelf = |day: &u16| {
            let [_, low] = day.to_be_bytes();
            (Day(*day), Secret::from_slice(&count::<32>(low)).unwrap())
        };
        days.iter().map(shelf).collect::<BTreeMap<_, _>>()
    };
    let mut subjects = Subjects::new();
    for (who, until, remade) in [("alice", 0xFFFF, false), ("bob", 20_500, true)] {
        let generation = Generation {
            serial: count(0x20),
            until: Day(until),
            remade,
            shelves: shelves(&[20_488, 20_519]),
        };
        let hint = subject_hint(&ID, &SubjectId::new(who).unwrap());
        subjects.insert(hint, BTreeMap::from([(1, generation)]));
    }
    Contents { label: "shipping".to_owned(), fields, subjects }
}

fn sealed(header: &Header) -> Vec<u8> {
    let field = |record, number| FieldRef { record, number };
    let fields = Fields::new(&[field("order", 1), field("order", 2)]).unwrap();
    let ticket = Ticket::seal(header, &contents(Some(fields)), &Zeroizing::new(count(0x90)), &count(0x66));
    ticket.unwrap().as_bytes().to_vec()
}

fn opened(bytes: &[u8]) -> Result<Contents> {
    let ticket = Ticket::from_bytes(bytes.to_vec())?;
    let reader = reader();
    ticket.verified(&verifier(), reader.recipient().bytes())?.open(reader.private())
}

fn vector(name: &str, show: &str, bytes: &[u8], result: &str) {
    let opened = opened(bytes);
    assert_eq!(said(&opened), result, "{name}");
    let mut vector = json!({
        "show": show,
        "kind": "ticket",
        "reader_key": hex(&count::<32>(0x70)),
        "verifier_key": verifier().to_string(),
        "ticket": hex(bytes),
        "result": result,
    });
    if let Ok(contents) = opened {
        let of = |who: &str| {
            let generations = &contents.subjects[&subject_hint(&ID, &SubjectId::new(who).unwrap())];
            let of = |(number, g): (&u16, &Generation)| {
                let shelf = |(day, shelf): (&Day, &Secret<_>)| json!([day.number(), hex(shelf.expose())]);
                let shelves: Vec<_> = g.shelves.iter().map(shelf).collect();
                json!({
                    "number": number,
                    "serial": hex(&g.serial),
                    "until": g.until.number(),
                    "remade": g.remade,
                    "shelves": shelves,
                })
            };
            generations.iter().map(of).collect::<Vec<_>>()
        };
        let fields: Vec<_> = contents.fields.iter().flat_map(Fields::iter).collect();
        vector["claims"] = json!({
            "id": hex(&ID),
            "purpose": [1, contents.label],
            "given": GIVEN,
            "ends": GIVEN + 3_600_000,
            "fingerprint": hex(&reader().recipient().fingerprint()),
            "fields": fields,
        });
        vector["subjects"] = json!({ "alice": of("alice"), "bob": of("bob") });
    }
    check(name, &vector);
}

#[test]
fn tickets() {
    let bytes = sealed(&header(&reader(), GIVEN + 3_600_000));
    vector("ticket", "For two subjects, two days and two fields, for an hour.", &bytes, "opens");

    let other = ReaderKey::from_bytes(&Zeroizing::new(count(0x71))).unwrap();
    let theirs = sealed(&header(&other, GIVEN + 3_600_000));
    vector("ticket-other-recipient", "Sealed to another key.", &theirs, "denied");
    assert_eq!(opened(&theirs).unwrap_err(), Error::Denied(Denied::Recipient));

    let mut altered = bytes.clone();
    altered[120] ^= 1;
    vector("ticket-altered", "A bit of what is sealed is altered.", &altered, "denied");
    assert_eq!(opened(&altered).unwrap_err(), Error::Denied(Denied::NotOurs));

    let long = sealed(&header(&reader(), GIVEN + 3_600_001));
    vector("ticket-too-long", "Signed, and a millisecond longer than an hour.", &long, "malformed");
    assert_eq!(opened(&long).unwrap_err(), Error::Malformed(Malformed::Content));

    let mut version = bytes;
    version[0] = 2;
    vector("ticket-unknown-version", "Version 2.", &version, "unsupported");
}

#[test]
fn contents_that_are_signed_and_not_canonical_are_refused() {
    let plain = contents(None).encode();
    assert!(Contents::decode(&plain).is_ok());
    for len in 0..plain.len() {
        assert!(Contents::decode(&plain[..len]).is_err(), "{len}");
    }
    let at = |place: usize, byte: u8| {
        let mut plain = plain.to_vec();
        plain[place] = byte;
        Contents::decode(&plain).unwrap_err()
    };
    // Label of 8 bytes and its length, no fields; then the counts and the first subject.
    assert_eq!(at(9, 2), Error::Malformed(Malformed::NotCanonical));
    assert_eq!(at(11, 0), Error::Malformed(Malformed::Length), "one subject too few");
    assert_eq!(at(10, 0xFF), Error::Malformed(Malformed::Length), "more subjects than may be");
    assert_eq!(at(12, 0xFF), Error::Malformed(Malformed::Order), "the hints descend");
    assert_eq!(at(29, 0), Error::Malformed(Malformed::Length), "no enrolment");
    assert_eq!(at(50, 2), Error::Malformed(Malformed::NotCanonical), "a flag of 2");
    assert_eq!(at(52, 0), Error::Malformed(Malformed::Length), "no shelf");
    assert_eq!(at(53, 0xFF), Error::Malformed(Malformed::Order), "the days descend");
    assert!(Contents::decode(&[&plain[..], &[0]].concat()).is_err());
}
