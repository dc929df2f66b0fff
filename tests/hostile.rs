//! Bytes from outside: no panic, no allocation larger than the input, one encoding of each thing. ABUSE 7, 8 and 9.
#![cfg(feature = "testing")]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, reason = "a test")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(missing_docs, unreachable_pub, clippy::arithmetic_side_effects, reason = "a test")]

use allocation_counter::measure;
use customer_vault::error::{Malformed, Unsupported};
use customer_vault::note::{SignedNote, VerifierKey};
use customer_vault::testing::{ManualClock, ephemeral, grant, test_ground, tester};
use customer_vault::value::Bytes;
use customer_vault::*;
use pollster::block_on;

purposes! {
    pub Shipping: Contract = 1 "shipping";
}

record! {
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        pub a: Bytes = 1 "a", basic, for [Shipping: 90 days];
        pub b: Option<Bytes> = 2 "b", basic, for [Shipping: 90 days], padded 16;
    }
}

struct Fixture {
    grant: Grant<Shipping>,
    sealed: SealedOrder,
    field: Sealed<order::a>,
}

fn fixture(suite: Suite) -> Fixture {
    let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
    let options = Options::new().record::<Order>().clock(clock);
    let vault = block_on(ephemeral(options.settings(Settings::default().suite(suite)))).unwrap();
    let (id, me, why) = (SubjectId::new("alice").unwrap(), tester(), test_ground());
    block_on(vault.enroll(&id, [], &me, &why)).unwrap();
    let sealer = block_on(vault.sealer::<Order>(&id, &me, &why)).unwrap();
    let value = |n| Bytes::parse(&vec![7; n]).unwrap();
    Fixture {
        sealed: sealer.seal(Order { a: value(20), b: Some(value(3)) }, &1).unwrap(),
        field: sealer.seal_field::<order::a>(value(20), &1).unwrap(),
        grant: block_on(grant::<Shipping>(&vault, &id)).unwrap(),
    }
}

impl Fixture {
    /// Whether any value comes out of a record.
    fn record_opens(&self, bytes: Vec<u8>) -> bool {
        let view = Sealed::<Order>::from_bytes(bytes).and_then(|sealed| sealed.open(&self.grant, &1));
        view.is_ok_and(|view| view.a().is_ok() || view.b().is_ok())
    }

    fn field_opens(&self, bytes: Vec<u8>) -> bool {
        Sealed::<order::a>::from_bytes(bytes).and_then(|sealed| sealed.open(&self.grant, &1)).is_ok()
    }
}

const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::XChaCha20Poly1305];

#[test]
fn abuse_07_a_sealed_value_with_any_bit_flipped_any_byte_missing_or_more_at_its_end_gives_no_value() {
    for suite in SUITES {
        let all = fixture(suite);
        let check = |bytes: &[u8], opens: &dyn Fn(Vec<u8>) -> bool| {
            assert!(opens(bytes.to_vec()));
            for bit in 0..bytes.len() * 8 {
                let mut altered = bytes.to_vec();
                altered[bit / 8] ^= 1 << (bit % 8);
                assert!(!opens(altered), "{suite:?}, bit {bit}");
            }
            for len in 0..bytes.len() {
                assert!(!opens(bytes[..len].to_vec()), "{suite:?}, cut at {len}");
                let mut without = bytes.to_vec();
                without.remove(len);
                assert!(!opens(without), "{suite:?}, without byte {len}");
            }
            for more in 1..=64 {
                for byte in [0, 1, 0x80, 0xFF] {
                    assert!(!opens([bytes, &vec![byte; more]].concat()), "{suite:?}, {more} more");
                }
            }
            assert!(!opens([bytes, bytes].concat()));
            assert!(!opens([bytes, &bytes[1..]].concat()));
        };
        check(all.sealed.as_bytes(), &|bytes| all.record_opens(bytes));
        check(all.field.as_bytes(), &|bytes| all.field_opens(bytes));
    }
}

#[test]
fn abuse_08_an_unknown_version_or_suite_is_unsupported_without_any_key() {
    let sealed = fixture(Suite::Aes256Gcm).sealed;
    for (at, why) in [(0, Unsupported::Version), (3, Unsupported::Suite)] {
        for number in [0, 3, 4, 0x7F, 0xFF] {
            let mut bytes = sealed.as_bytes().to_vec();
            // The length of the cell takes two bytes.
            assert_eq!((bytes[0], bytes[2] & 0x80, bytes[3]), (1, 0, 1));
            bytes[at] = number;
            let refused = Sealed::<Order>::from_bytes(bytes.clone()).unwrap_err();
            assert_eq!(refused, Error::Unsupported(why));
            if at == 0 {
                assert_eq!(Sealed::<Order>::from_bytes(vec![number]).unwrap_err(), Error::Unsupported(why));
            }
        }
    }
    assert_eq!(Token::parse("cv2.AAAA").unwrap_err(), Error::Unsupported(Unsupported::Version));
}

/// Lengths as unsigned LEB128, as a hostile sender writes them.
fn lengths() -> Vec<Vec<u8>> {
    vec![
        vec![0],
        vec![15],
        vec![0xFF, 0xFF, 0xFF, 0xFF, 0x07],
        vec![0x80, 0x80, 0x80, 0x80, 0x08],
        vec![0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
        vec![0xFF, 0xFF, 0xFF, 0xFF, 0x1F],
        vec![0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
        vec![0xFF; 10],
    ]
}

/// Runs it on a hostile input and fails where more memory was held at once than `most` bytes.
fn frugal<T>(most: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut out = None;
    let taken = measure(|| out = Some(work()));
    assert!(taken.bytes_max <= most.try_into().unwrap(), "{} bytes above {most}", taken.bytes_max);
    out.unwrap()
}

#[test]
fn abuse_09_no_length_in_a_sealed_value_makes_it_take_memory() {
    let good = fixture(Suite::Aes256Gcm).sealed.into_bytes();
    for length in lengths() {
        for rest in [&[][..], &good[3..], &[0; 1000], &[0xFF; 1000]] {
            let bytes = [&[1], &length[..], rest].concat();
            let size = bytes.len();
            assert!(frugal(size, || Sealed::<Order>::from_bytes(bytes.clone())).is_err(), "{length:?}");
            // In place of a count in the cell: of fields, of lockboxes.
            for at in [6, 9] {
                let bytes = [&good[..at], &length, &good[at + 1..]].concat();
                let size = bytes.len();
                assert!(frugal(size, || Sealed::<Order>::from_bytes(bytes.clone())).is_err(), "{length:?}");
            }
        }
    }
    // The cell's length with a zero before it.
    let longer = [&[1, good[1], good[2] | 0x80, 0], &good[3..]].concat();
    let refused = Sealed::<Order>::from_bytes(longer).unwrap_err();
    assert_eq!(refused, Error::Malformed(Malformed::NotCanonical));
}

#[test]
fn abuse_09_text_of_a_sealed_value_has_one_form() {
    let sealed = fixture(Suite::Aes256Gcm).sealed;
    let json = serde_json::to_string(&sealed).unwrap();
    assert_eq!(serde_json::from_str::<SealedOrder>(&json).unwrap(), sealed);
    let text = json.trim_matches('"');
    let body = text.trim_end_matches('=');
    let padding = &text[body.len()..];
    // Three bytes more or fewer in the value would move the padding.
    assert!(!padding.is_empty(), "the value is chosen so");
    let stray = {
        let (rest, last) = body.split_at(body.len() - 1);
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let at = alphabet.find(last).unwrap();
        format!("{rest}{}{padding}", &alphabet[at + 1..=at + 1])
    };
    let (left, right) = text.split_at(10);
    for other in [
        body.to_owned(),
        format!("{text}="),
        format!("{text}===="),
        stray,
        format!(" {text}"),
        format!("{text}\\n"),
        format!("{left}\\n{right}"),
        format!("{left} {right}"),
        format!("{left}={right}"),
        format!("{left}-{}", &right[1..]),
        String::new(),
    ] {
        assert!(serde_json::from_str::<SealedOrder>(&format!("\"{other}\"")).is_err(), "{other}");
    }
}

#[test]
fn abuse_09_text_from_outside_takes_no_more_memory_than_two_copies_of_it() {
    let texts = [
        String::new(),
        "cv1.".to_owned(),
        format!("cv1.{}", "A".repeat(8000)),
        format!("cv1.{}", "_".repeat(8188)),
        format!("cv1.{}", "A".repeat(100_000)),
        format!("cv1.{}=", "A".repeat(100)),
        "x".repeat(1_000_000),
        "\n".repeat(100_000),
        format!("text\n\n{}", "\u{2014} name AAAA\n".repeat(1000)),
        format!("text\n\n\u{2014} name {}\n", "A".repeat(10_000)),
        format!("name+01234567+{}", "A".repeat(10_000)),
    ];
    for text in &texts {
        // A token's text and its bytes; no length that it claims.
        let most = 2 * text.len();
        assert!(frugal(most, || Token::parse(text)).is_err());
        // One of these is a note, with a signature of a kind that nobody knows.
        drop(frugal(most, || SignedNote::parse(text)));
        assert!(frugal(most, || text.parse::<VerifierKey>()).is_err());
    }
}
