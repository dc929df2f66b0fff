//! The journal, the log, notes.

use serde_json::json;

use super::{check, count, hex, said};
use crate::actor::{Actor, Ground};
use crate::clock::Day;
use crate::crypto::Prf;
use crate::error::Denied;
use crate::journal::{Event, Journal, Revocation};
use crate::keeper::VaultId;
use crate::log::{Action, Count, Entry, Heads, Lane, Outcome, Pseudonym, Refusal, entry_of, origin};
use crate::note::{SignedNote, VerifierKey, sign_note};
use crate::store::{Batch, MemoryStore, Rows};
use crate::testing::MemoryKeeper;
use crate::token::{FieldRef, Fields};
use crate::witness::Memory;

const NOW: i64 = 1_767_614_400_123;

fn vault() -> VaultId {
    VaultId(count(0x10))
}

#[test]
fn journal_lines() {
    let journal = Journal::new(
        vault(),
        Prf::new(&count(0x44)),
        Rows::new(MemoryStore::new()),
        Memory::new(MemoryKeeper::new()),
    );
    let (tag, due) = (count(0x30), Day(20_465));
    let (ring, lookup) = (count::<200>(0x01), count::<32>(0x50));
    let events = [
        Event::Created,
        Event::Root { epoch: 1, id: count(0x70) },
        Event::Mark { day: Day(20_457) },
        Event::Forgot { tag, state: 1, at_ms: NOW, due, keeps: vec![(3, Day(24_111))] },
        Event::Undone { tag, state: 2 },
        Event::Withdrew { tag, state: 3, purpose: 2, due },
        Event::Consented { tag, state: 4, purpose: 2 },
        Event::Held { tag, state: 5 },
        Event::Released { tag, state: 6 },
        Event::Again { tag, state: 7, generation: 2 },
        Event::DaysDestroyed { day: Day(20_457) },
        Event::Revoked(Revocation::Token(count(0xD0))),
        Event::Revoked(Revocation::Actor(3, "carrier".to_owned())),
        Event::Revoked(Revocation::Purpose { purpose: 2, until_ms: NOW }),
        Event::Revoked(Revocation::All { until_ms: NOW }),
        Event::Frozen(true),
        Event::Checkpoint { number: 1, hash: count(0x90) },
        Event::Notice { purpose: 2, version: 4 },
        Event::Registry,
        Event::Keys { tokens_from: 4, last: 5, lookup: 0, sum: journal.sum_of_keys(&ring, &lookup) },
        Event::Moved { subjects: 3 },
        Event::BackupBegun { id: count(0xA0), at_ms: NOW, epoch: 1, kept_until: Day(20_490) },
        Event::BackupDone { id: count(0xA0) },
        Event::Shredded { day: Day(20_465), epoch_left: 1, lines: 19 },
        Event::Restored { lines: 20 },
        Event::Recovered,
    ];
    let mut batch = Batch::new().unwrap();
    let lines = journal.stage(&mut batch, None, &events).unwrap();
    let fence = batch.writes.iter().find(|(name, _)| name == b"f").and_then(|(_, value)| value.clone());
    let shown: Vec<_> = lines
        .iter()
        .zip(&events)
        .map(|(line, event)| {
            assert_eq!(Event::decode(&line.bytes[32..]).as_ref(), Ok(event));
            json!({ "number": line.number, "event": format!("{event:?}"), "line": hex(&line.bytes) })
        })
        .collect();
    check(
        "journal-lines",
        &json!({
            "show": "One line of each kind of event, chained, and the fence row after them.",
            "kind": "journal",
            "vault": hex(vault().bytes()),
            "journal_key": hex(&count::<32>(0x44)),
            "lines": shown,
            "fence": hex(&fence.unwrap()),
            "keys": { "ring": hex(&ring), "lookup": hex(&lookup) },
        }),
    );
}

fn entries() -> [Entry; 3] {
    let actor = |name: &str| Actor::third_party(name).unwrap();
    let fields = Fields::new(&[FieldRef { record: "order", number: 1 }]).unwrap();
    let who = Pseudonym::of(&Prf::new(&count(0x33)), &vault());
    [
        Entry::new(NOW, Action::OpenVault, Outcome::Done),
        Entry::new(NOW + 1, Action::Unlock, Outcome::Done)
            .by(vec![actor("carrier"), Actor::staff("driver-7").unwrap()])
            .unwrap()
            .because(Ground::new("parcel").unwrap())
            .under_token(count(0xD0))
            .for_purpose(1)
            .about(who)
            .touching(fields),
        Entry::new(NOW + 2, Action::Unlock, Outcome::Refused(Refusal::from(&Denied::Revoked.into())))
            .counting(Count::Subjects, 1)
            .with_reference(count(0xF0))
            .with_causes(&[1, 1]),
    ]
}

#[test]
fn log_lanes() {
    let mut lane = Lane::start(&vault(), count(0x01));
    let start = lane;
    let mut rows = Vec::new();
    for entry in entries() {
        let (next, row) = lane.next(&entry);
        assert_eq!(entry_of(&row), Ok(entry));
        lane = next;
        rows.push(row);
    }
    let vector = |name: &str, show: &str, rows: &[Vec<u8>], result: &str| {
        let followed = (1..).zip(rows).try_fold(start, |lane, (seq, row)| lane.follow(seq, row));
        assert_eq!(followed.is_ok(), result == "opens", "{name}");
        let texts: Vec<String> = rows
            .iter()
            .map(|row| entry_of(row).map_or_else(|_| "?".into(), |entry| entry.to_string()))
            .collect();
        let mut vector = json!({
            "show": show,
            "kind": "log-lane",
            "vault": hex(vault().bytes()),
            "lane": hex(&count::<16>(0x01)),
            "rows": rows.iter().map(|row| hex(row)).collect::<Vec<_>>(),
            "head": hex(&lane.encode()),
            "result": result,
        });
        if result == "opens" {
            vector["audit_key"] = json!(hex(&count::<32>(0x33)));
            vector["pseudonym"] = json!(Pseudonym::of(&Prf::new(&count(0x33)), &vault()).to_string());
            vector["entries"] = json!(texts);
        }
        check(name, &vector);
    };
    vector("log-lane", "A lane of three entries.", &rows, "opens");
    let mut altered = rows.clone();
    altered[1][40] ^= 1;
    vector("log-lane-altered-entry", "The time of the second entry is altered.", &altered, "altered");

    let other = Lane::start(&vault(), count(0x02));
    let heads = Heads::new(vec![other, lane]).unwrap();
    let seed = count(0x77);
    let text = heads.text(&vault(), NOW).unwrap();
    let note = sign_note(&origin(&vault()), &seed, &text).unwrap();
    let key = VerifierKey::of(&origin(&vault()), &seed).unwrap();
    let verified = SignedNote::parse(&note).and_then(|note| heads.check(&vault(), note.verify(&key)?));
    assert_eq!(said(&verified), "opens");
    check(
        "checkpoint",
        &json!({
            "show": "A signed checkpoint over the heads of two lanes.",
            "kind": "checkpoint",
            "vault": hex(vault().bytes()),
            "heads": hex(&heads.encode()),
            "root": hex(&heads.root()),
            "seed": hex(&seed),
            "verifier_key": key.to_string(),
            "note": note,
            "result": "opens",
        }),
    );
}

#[test]
fn notes() {
    let (name, seed) = (origin(&vault()), count(0x77));
    let key = VerifierKey::of(&name, &seed).unwrap();
    let note = sign_note(&name, &seed, "Two lines\n\nand a blank one between.\n").unwrap();
    let vector = |file: &str, show: &str, note: &str, result: &str| {
        let text = SignedNote::parse(note).and_then(|note| note.verify(&key).map(str::to_owned));
        assert_eq!(said(&text), result, "{file}");
        let mut vector = json!({
            "show": show,
            "kind": "note",
            "verifier_key": key.to_string(),
            "note": note,
            "result": result,
        });
        if let Ok(text) = text {
            vector["seed"] = json!(hex(&seed));
            vector["text"] = json!(text);
        }
        check(file, &vector);
    };
    vector("note", "A signed note.", &note, "opens");
    vector(
        "note-altered-text",
        "A letter of the text is altered.",
        &note.replace("Two", "Too"),
        "does-not-open",
    );
    vector("note-no-last-newline", "The last newline is missing.", note.trim_end(), "malformed");
}
