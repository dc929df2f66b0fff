//! What the memory of a process holds that has a ticket and nothing else.
#![cfg(target_os = "linux")]
#![allow(clippy::arithmetic_side_effects, reason = "tests may overflow: they panic")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use pollster::block_on;
use zeroize::Zeroizing;

use super::{Reader, ReaderKey, Ticket, TicketScope};
use crate::testing::{ephemeral, test_ground, tester};
use crate::value::PersonName;
use crate::{Options, Scope, SubjectId, purposes, record};

purposes! {
    pub(crate) Shipping: Contract = 1 "shipping";
    pub(crate) Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    pub(crate) struct Order / SealedOrder / OrderView in order = "order" {
        pub(crate) name: PersonName = 1 "name", basic, for [Shipping: 20 days, Invoicing: 40 days];
    }
}

const CHILD: &str = "CUSTOMER_VAULT_READS_BY_TICKET";
/// Each byte of a key that is looked for is combined with it by exclusive or: by itself the key must not lie in the child.
const MASK: u8 = 0x95;

fn hex(bytes: &[u8], mask: u8) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{:02x}", byte ^ mask).unwrap();
        out
    })
}

fn unhex(text: &str) -> Zeroizing<Vec<u8>> {
    let digit = |c: u8| u8::try_from(char::from(c).to_digit(16).unwrap()).unwrap();
    Zeroizing::new(text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect())
}

/// How often halves of each key lie in the memory of this process, by name.
fn found(masked: &BTreeMap<String, Zeroizing<Vec<u8>>>) -> BTreeMap<String, usize> {
    let mut begins = vec![Vec::new(); 1 << 16];
    for (name, key) in masked {
        for half in key.chunks(16) {
            begins[usize::from(half[0] ^ MASK) << 8 | usize::from(half[1] ^ MASK)].push((name, half));
        }
    }
    let mut memory = std::fs::File::open("/proc/self/mem").unwrap();
    let mut buffer = vec![0_u8; 1 << 16];
    let mut found = BTreeMap::new();
    for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.starts_with("rw") || words.nth(3).is_some_and(|name| name.starts_with("[v")) {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [mut at, end] = [start, end].map(|word| u64::from_str_radix(word, 16).unwrap());
        while at < end {
            let len = usize::try_from((end - at).min(1 << 16)).unwrap();
            memory.seek(SeekFrom::Start(at)).unwrap();
            if memory.read_exact(&mut buffer[..len]).is_err() {
                break;
            }
            for place in 0..len.saturating_sub(15) {
                for (name, half) in &begins[usize::from(buffer[place]) << 8 | usize::from(buffer[place + 1])]
                {
                    if buffer[place..place + 16]
                        .iter()
                        .zip(*half)
                        .all(|(byte, masked)| byte ^ MASK == *masked)
                    {
                        *found.entry((*name).clone()).or_insert(0) += 1;
                    }
                }
            }
            zeroize::Zeroize::zeroize(buffer.as_mut_slice());
            // What lies across the end of a piece is in the next one too.
            at += u64::try_from(len).unwrap() - if len == 1 << 16 { 16 } else { 0 };
        }
    }
    found
}

/// Runs in a process of its own: what it is told comes by its standard input.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let mut told = BTreeMap::new();
    let mut masked = BTreeMap::new();
    for line in std::io::stdin().lines() {
        let line = Zeroizing::new(line.unwrap());
        let (name, value) = line.rsplit_once(' ').unwrap();
        match name.strip_prefix("look-for:") {
            Some(name) => masked.insert(name.to_owned(), unhex(value)).map(drop),
            None => told.insert(name.to_owned(), Zeroizing::new(value.to_owned())).map(drop),
        };
    }
    let private = unhex(&told["key"]);
    let mut bytes = Zeroizing::new([0; 32]);
    bytes.copy_from_slice(&private);
    drop(private);
    let key = ReaderKey::from_bytes(&bytes).unwrap();
    drop(bytes);
    let ticket = Ticket::from_bytes(unhex(&told["ticket"]).to_vec()).unwrap();
    let sealed = SealedOrder::from_bytes(unhex(&told["sealed"]).to_vec()).unwrap();
    let other = SealedOrder::from_bytes(unhex(&told["other"]).to_vec()).unwrap();
    let verifier = told["verifier"].parse().unwrap();

    let reader = Reader::<Shipping>::open(&key, &ticket, &verifier).unwrap();
    let alice = SubjectId::new("alice").unwrap();
    let grant = reader.grant(&alice).unwrap();
    assert_eq!(sealed.open(&grant).unwrap().name().unwrap().expose(), "Alice");
    assert!(other.open(&grant).is_err());
    assert!(reader.grant(&SubjectId::new("bob").unwrap()).is_err());
    #[expect(clippy::print_stdout, reason = "for the parent")]
    {
        println!("with the reader: {:?}", found(&masked));
        drop((reader, grant));
        println!("without it: {:?}", found(&masked));
    }
}

#[test]
fn a_process_that_has_a_ticket_alone_holds_no_key_beyond_it() {
    let vault = block_on(ephemeral(Options::new().record::<Order>())).unwrap();
    let (me, why) = (tester(), test_ground());
    let [alice, bob] = ["alice", "bob"].map(|who| SubjectId::new(who).unwrap());
    let mut look_for = String::new();
    let mut add = |name: &str, key: &[u8]| {
        assert!(key.len() == 32);
        writeln!(look_for, "look-for:{name} {}", hex(key, MASK)).unwrap();
    };
    let seal = |id: &SubjectId| {
        let sealer = block_on(vault.sealer::<Order>(id, &me, &why)).unwrap();
        sealer.seal(Order { name: PersonName::parse("Alice").unwrap() }).unwrap()
    };
    for id in [&alice, &bob] {
        block_on(vault.enroll(id, [], &me, &why)).unwrap();
    }
    let (sealed, other) = (seal(&alice), seal(&bob));

    let inner = &vault.0;
    let reached = inner.today().plus(20);
    let days = inner.calendar.within(crate::Day(0), crate::Day(u16::MAX));
    assert!(days.len() > 60 && days.contains(&reached));
    for day in &days {
        add(&format!("day {day}"), inner.calendar.day(*day).unwrap().expose());
    }
    for (who, id) in [("alice", &alice), ("bob", &bob)] {
        let subject = block_on(inner.read_subject(id, &[])).unwrap();
        let entry = inner.tree.entry(&subject.found).unwrap().unwrap();
        entry.audit.values().for_each(|key| add(&format!("audit of {who}"), key.expose()));
        for ((_, purpose), key) in &entry.keys {
            add(&format!("purpose {purpose} of {who}"), key.expose());
            for day in &days {
                let shelf = crate::key::Secret::combine(&inner.calendar.day(*day).unwrap(), key);
                let name = if (who, *purpose, *day) == ("alice", 1, reached) {
                    "given".to_owned()
                } else {
                    format!("shelf {purpose} {who} {day}")
                };
                add(&name, shelf.expose());
            }
        }
    }
    add("lookup", inner.ring().lookup_key().expose());
    add("index", inner.index.expose());
    add("signing", inner.ring().signing().expose());
    let epoch = block_on(inner.rows.get(&crate::tree::Node::Root.name())).unwrap().unwrap();
    let epoch = crate::tree::Epoch::decode(&epoch.value).unwrap();
    add("root", block_on(inner.roots.unwrap(epoch.id, &epoch.wrapped)).unwrap().expose());

    let key = ReaderKey::generate().unwrap();
    let hour = Duration::from_secs(3600);
    let token = block_on(vault.issue::<Shipping>(&me, &why, hour, Scope::everyone())).unwrap();
    let scope = [TicketScope::of(&alice).sealed(&sealed)];
    let given = block_on(vault.ticket::<Shipping>(&token, &key.recipient(), hour, &scope)).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ticket::tests::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told = format!(
        "key {}\nticket {}\nsealed {}\nother {}\nverifier {}\n{look_for}",
        hex(key.expose(), 0),
        hex(given.ticket.as_bytes(), 0),
        hex(sealed.as_bytes(), 0),
        hex(other.as_bytes(), 0),
        vault.verifier_key().unwrap(),
    );
    child.stdin.take().unwrap().write_all(told.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    // The scan finds what is there, and nothing of anything else; when the reader goes, that goes too.
    assert!(said.contains("with the reader: {\"given\": "), "{said}");
    assert_eq!(said.matches("\": ").count(), 1, "{said}");
    assert!(said.contains("without it: {}"), "{said}");
}
