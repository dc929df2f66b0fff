//! A process that has sealed and opened canaries, and dropped them, scans its own memory for them. ABUSE 23.
#![cfg(all(feature = "testing", target_os = "linux"))]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, reason = "a test")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a test"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    reason = "a test"
)]

use std::hint::black_box;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::process::Command;

use customer_vault::store::MemoryStore;
use customer_vault::testing::{ManualClock, MemoryKeeper, grant, test_ground, tester};
use customer_vault::value::{
    AsEntered, Bytes, Country, Email, FreeText, OrderLine, PersonName, Phone, PostalAddress, SearchQuery,
};
use customer_vault::*;
use pollster::block_on;
use zeroize::{Zeroize as _, Zeroizing};

purposes! {
    pub Shipping: Contract = 1 "shipping";
}

record! {
    pub struct Person[u64] / SealedPerson / PersonView in person = "person" {
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days];
        pub email: Email = 2 "email", basic, for [Shipping: 90 days], padded 32;
        pub address: PostalAddress = 3 "address", basic, for [Shipping: 90 days];
        pub text: Option<FreeText> = 4 "text", basic, for [Shipping: 30 days];
        pub lines: Vec<OrderLine> = 5 "lines", transaction, for [Shipping: 90 days];
        pub query: SearchQuery = 6 "query", behaviour, for [Shipping: 90 days];
        pub scan: Bytes = 7 "scan", basic, for [Shipping: 60 days];
        pub entered: AsEntered<Phone> = 8 "entered", basic, for [Shipping: 90 days], alone;
    }
}

/// The text that stands in every value, each byte combined with `MASK` by exclusive or: by itself it must not lie in
/// this process.
const MASKED: [u8; 12] = mask(*b"zqxvwkjhbpmg");
const MASK: u8 = 0x95;

const fn mask(mut text: [u8; 12]) -> [u8; 12] {
    let mut at = 0;
    while at < text.len() {
        text[at] ^= MASK;
        at += 1;
    }
    text
}

/// Text with the canary and a number, as long as it needs to be. Wiped.
fn canary(before: &str, number: usize, after: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(before.len() + 12 + 20 + after.len()));
    text.push_str(before);
    for byte in black_box(MASKED) {
        text.push(char::from(byte ^ black_box(MASK)));
    }
    let mut rest = number;
    for _ in 0..4 {
        text.push(char::from(b'a' + u8::try_from(rest % 26).unwrap()));
        rest /= 26;
    }
    text.push_str(after);
    text
}

fn a_person(number: usize) -> Person {
    let us = Country::parse("US").unwrap();
    // A scan that is decrypted on the heap.
    let mut long = Zeroizing::new(String::with_capacity(200 * 40));
    for _ in 0..200 {
        long.push_str(&canary(" ", number, "."));
    }
    Person {
        name: PersonName::parse(&canary("", number, "")).unwrap(),
        email: Email::parse(&canary("", number, "@mail.example")).unwrap(),
        address: PostalAddress::parse(&canary("1 ", number, " street"), us).unwrap(),
        text: Some(FreeText::parse(&canary("text ", number, "")).unwrap()),
        lines: vec![OrderLine::parse(&canary("tea ", number, ""), 1, 1, "USD").unwrap()],
        query: SearchQuery::parse(&canary("find ", number, "")).unwrap(),
        scan: Bytes::parse(long.as_bytes()).unwrap(),
        entered: AsEntered::keep(&canary("call ", number, "")).unwrap(),
    }
}

/// Where in the memory of this process the canary lies: the name of each mapping, with how often.
fn found() -> Vec<(String, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut memory = std::fs::File::open("/proc/self/mem").unwrap();
    let mut buffer = vec![0_u8; 1 << 16];
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let name = words.nth(3).unwrap_or("anonymous").to_owned();
        if !rights.starts_with("rw") || name.starts_with("[v") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let (mut at, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        let mut count = 0;
        while at < end {
            let len = usize::try_from((end - at).min(1 << 16)).unwrap();
            memory.seek(SeekFrom::Start(at)).unwrap();
            if memory.read_exact(&mut buffer[..len]).is_err() {
                break;
            }
            let hit = |window: &[u8]| window.iter().zip(MASKED).all(|(byte, masked)| *byte ^ MASK == masked);
            count += buffer[..len].windows(MASKED.len()).filter(|window| hit(window)).count();
            buffer.as_mut_slice().zeroize();
            // What lies across the end of a piece is in the next one too.
            at += u64::try_from(len).unwrap() - if len == 1 << 16 { 16 } else { 0 };
        }
        if count > 0 {
            found.push((name, count));
        }
    }
    found
}

/// Says where the canary was found, for the parent to read.
fn report(stage: &str) {
    println!("{stage}: {:?}", found());
}

const CHILD: &str = "CUSTOMER_VAULT_SCANS_ITSELF";
const MANY: usize = 1000;

/// Runs in a process of its own.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
    let keeper = MemoryKeeper::new();
    let options = Options::new().record::<Person>().clock(clock);
    let vault = block_on(options.create(MemoryStore::new(), keeper.clone(), keeper)).unwrap();
    let (id, me, why) = (SubjectId::new("alice").unwrap(), tester(), test_ground());
    block_on(vault.enroll(&id, [], &me, &why)).unwrap();
    report("at the start");

    let person = a_person(0);
    report("one in the clear");
    drop(person);
    report("one made and dropped");

    let sealer = block_on(vault.sealer::<Person>(&id, &me, &why)).unwrap();
    let mut sealed = Vec::new();
    for number in 0..MANY {
        sealed.push(sealer.seal(a_person(number), &(number as u64)).unwrap());
    }
    report("sealed");

    let grant = block_on(grant::<Shipping>(&vault, &id)).unwrap();
    for (number, sealed) in sealed.iter().enumerate() {
        let view = sealed.open(&grant, &(number as u64)).unwrap();
        assert_eq!(view.name().unwrap().expose().len(), 16);
        assert_eq!(view.scan().unwrap().expose().len(), 200 * 18);
    }
    report("opened");

    for (number, sealed) in sealed.iter().enumerate().take(100) {
        let number = number as u64;
        assert!(sealed.open(&grant, &(number + 1)).is_err());
        let mut bytes = sealed.as_bytes().to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(Sealed::<Person>::from_bytes(bytes).unwrap().open(&grant, &number).is_err());
    }
    report("refused");

    for (number, sealed) in sealed.iter().enumerate().take(100) {
        let id = number as u64;
        let name = || PersonName::parse(&canary("", number, "")).unwrap();
        let updated = sealed.update(&sealer, &grant, &id, |set| set.set::<person::name>(name())).unwrap();
        assert!(updated.open(&grant, &id).is_ok());
    }
    report("updated");

    for (number, sealed) in sealed.iter().enumerate().take(100) {
        let key = number as u64;
        block_on(vault.put(&id, &key, sealed, &me, &why)).unwrap();
        let got = block_on(vault.get::<Person>(&id, &key, &me, &why)).unwrap().unwrap();
        assert!(got.open(&grant, &key).is_ok());
    }
    report("stored");
    // Not a figure of speech: it is in this process while it is in the clear.
    let kept = sealed[0].open(&grant, &0).unwrap();
    report("one kept open");
    drop(kept);
    report("at the end");
}

#[test]
fn abuse_23_a_process_that_has_opened_a_thousand_canaries_holds_none_of_them() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8(child.stdout).unwrap();
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    let stages: Vec<&str> = said.lines().filter(|line| line.ends_with(']')).collect();
    assert_eq!(stages.len(), 10, "{said}");
    for stage in &stages {
        // The scan finds what is there.
        let clear = stage.contains("in the clear") || stage.contains("kept open");
        assert_eq!(!stage.ends_with(" []"), clear, "{said}");
    }
}
