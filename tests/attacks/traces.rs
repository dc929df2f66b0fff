//! What a thief of the store can link after a shred. ABUSE 44: nothing leads from a tag to a pseudonym.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::*;
use customer_vault::log::{Action, Entry};
use customer_vault::store::Version;

/// Somebody whose every event has a moment of its own is forgotten, shredded and certified.
struct Traces {
    shop: Shop,
    tag: Vec<u8>,
    /// Of the log, while the subject was there.
    pseudonym: [u8; 16],
    receipt: ForgetReceipt,
    log: Vec<Entry>,
    rows: Vec<(Key, Versioned)>,
}

impl Traces {
    fn leave() -> Traces {
        let shop = Shop::open();
        let [(entry, _)] = &shop.rows(b"s")[..] else { panic!("one subject") };
        let tag = entry[2..].to_vec();
        let tick = || shop.clock.advance(Duration::from_millis(1_237));
        tick();
        let sealed = shop.sealed();
        tick();
        block_on(shop.vault.put(&shop.alice, &7, &sealed, &shop.me, &shop.why)).unwrap();
        tick();
        shop.unlock::<Shipping>().unwrap();
        tick();
        shop.withdraw();
        tick();
        shop.consent(1);
        tick();
        block_on(shop.vault.hold(&shop.alice, &shop.me, &shop.why)).unwrap();
        tick();
        block_on(shop.vault.release_hold(&shop.alice, &shop.me, &shop.why)).unwrap();
        tick();
        shop.forget(by());
        tick();
        block_on(shop.vault.undo_forget(&shop.alice, &shop.me, &shop.why)).unwrap();
        tick();
        shop.enroll(&id("bob"));
        tick();
        let receipt = shop.forget(by().without_grace());
        tick();
        shop.shred();
        shop.weeks(5);
        tick();
        assert_eq!(shop.settle().certificates.len(), 1);
        let log = block_on(shop.vault.log()).unwrap();
        let enrolled = log.iter().find(|entry| entry.action() == Action::Enroll).unwrap();
        let pseudonym = *enrolled.subjects()[0].bytes();
        let rows = shop.rows(b"");
        Traces { shop, tag, pseudonym, receipt, log, rows }
    }

    /// The rows that name the subject by its tag.
    fn of_the_subject(&self) -> Vec<&(Key, Versioned)> {
        let named = |(key, row): &&(Key, Versioned)| holds(key, &self.tag) || holds(&row.value, &self.tag);
        self.rows.iter().filter(named).collect()
    }

    fn certificate(&self) -> Certificate {
        block_on(self.shop.vault.certificate(&self.receipt.reference)).unwrap().unwrap()
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn abuse_44_rows_of_one_commit_share_no_version() {
    let traces = Traces::leave();
    let mut versions: BTreeMap<Version, &[u8]> = BTreeMap::new();
    for (key, row) in &traces.rows {
        let twin = versions.insert(row.version, key);
        assert!(twin.is_none(), "{key:02x?} and {twin:02x?}");
    }
    // Nor do they hold each other's.
    for (key, row) in traces.of_the_subject() {
        let named = traces.rows.iter().find(|(_, other)| holds(&row.value, &other.version));
        assert!(named.is_none(), "{key:02x?}");
    }
}

#[test]
fn abuse_44_no_row_with_the_tag_holds_a_moment_a_pseudonym_or_a_reference_of_the_log() {
    let traces = Traces::leave();
    let rows = traces.of_the_subject();
    // The tombstone, a line of the journal for each thing that takes or gives back, and what the books keep.
    let kinds: Vec<char> = rows.iter().map(|(key, _)| char::from(key[0])).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == 'j').count(), 7, "{kinds:?}");
    assert_eq!(BTreeSet::from_iter(kinds), BTreeSet::from(['j', 's', 'u', 'v', 'w']));
    for (key, row) in rows {
        for entry in &traces.log {
            let parts = entry.subjects().iter().map(|subject| &subject.bytes()[..]);
            let parts = parts.chain(entry.reference().map(|reference| &reference[..]));
            for part in parts {
                assert!(!holds(&row.value, part) && !holds(key, part), "{entry}");
            }
            assert!(!holds(&row.value, &entry.time_ms().to_be_bytes()), "{entry}");
            assert!(!holds(&row.value, &entry.time_ms().to_le_bytes()), "{entry}");
        }
    }
    // What is wrapped in the tombstone: nothing that the log has a moment of.
    let (me, why) = (&traces.shop.me, &traces.shop.why);
    let status = block_on(traces.shop.vault.status(&traces.shop.alice, me, why)).unwrap();
    assert_eq!(status.enrolled_ms, 0);
    assert!(status.purposes.iter().all(|purpose| purpose.consent.is_none()));
    assert!(block_on(traces.shop.vault.log()).unwrap().last().unwrap().subjects().is_empty());
}

#[test]
fn abuse_44_entries_beside_lines_of_the_journal_name_nobody_and_no_reference_twice() {
    let traces = Traces::leave();
    let beside = [
        Action::Withdraw,
        Action::Consent,
        Action::Hold,
        Action::ReleaseHold,
        Action::Forget,
        Action::UndoForget,
        Action::EnrollAgain,
        Action::Shred,
        Action::Settle,
    ];
    let mut references = BTreeSet::new();
    for entry in &traces.log {
        if beside.contains(&entry.action()) {
            assert!(entry.subjects().is_empty(), "{entry}");
        }
        // Only the certificate says again what the forget said.
        if let Some(reference) = entry.reference()
            && entry.action() != Action::Settle
        {
            assert!(entry.subjects().is_empty() && references.insert(*reference), "{entry}");
        }
    }
    assert_eq!(references.len(), 7);
    // What stood beside no line did name somebody: there was something to hide.
    let unlocked = traces.log.iter().find(|entry| entry.action() == Action::Unlock).unwrap();
    assert_eq!(unlocked.subjects()[0].bytes(), &traces.pseudonym);
}

#[test]
fn abuse_44_a_certificate_leads_neither_to_a_tag_nor_to_a_pseudonym() {
    let traces = Traces::leave();
    let text = traces.certificate().as_str().to_owned();
    assert!(text.contains(&hex(&traces.receipt.reference)));
    for what in [&traces.tag[..], &traces.pseudonym] {
        assert!(!text.contains(&hex(what)));
    }
    // The names and contents of all rows that name the reference: certificate and entries of the log.
    let named = traces.rows.iter().filter(|(key, row)| {
        holds(key, &traces.receipt.reference) || holds(&row.value, &traces.receipt.reference)
    });
    for (key, row) in named {
        assert!(matches!(key[0], b'z' | b'o'), "{key:02x?}");
        assert!(!holds(&row.value, &traces.tag) && !holds(&row.value, &traces.pseudonym), "{key:02x?}");
    }
}
