//! Every built-in type has one encoding, and reads nothing else (abuse 7 to 9).

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;

fn encoded(value: &impl Value) -> Vec<u8> {
    let mut out = Zeroizing::new(Vec::with_capacity(value.encoded_len()));
    value.encode(&mut Encoder::new(&mut out));
    assert_eq!(out.len(), value.encoded_len());
    out.to_vec()
}

/// What decodes encodes to the same bytes.
fn check<T: Value>(bytes: &[u8]) -> bool {
    T::decode(bytes).is_some_and(|value| {
        assert_eq!(encoded(&value), bytes);
        true
    })
}

const CHECKS: [fn(&[u8]) -> bool; 16] = [
    check::<PersonName>,
    check::<Email>,
    check::<Phone>,
    check::<PostalAddress>,
    check::<ResidentId>,
    check::<DateOfBirth>,
    check::<CardNumber>,
    check::<Iban>,
    check::<IpAddress>,
    check::<FreeText>,
    check::<SearchQuery>,
    check::<OrderLine>,
    check::<BrowsingEvent>,
    check::<PaymentToken>,
    check::<Bytes>,
    check::<AsEntered<Email>>,
];

/// One of each type, in the order of [`CHECKS`].
fn samples() -> Vec<Vec<u8>> {
    let ca = Country::parse("CA").unwrap();
    let address =
        PostalAddress::parse("8210 111 ST NW\nb\u{fc}ro 2", ca).unwrap().with_city("Edmonton").unwrap();
    let address = address.with_region("AB").unwrap().with_postal_code("T6G 2C7").unwrap();
    vec![
        encoded(&PersonName::parse("Stanis\u{142}aw W\u{f3}jcik").unwrap()),
        encoded(&Email::parse("a.b@b\u{fc}cher.example").unwrap()),
        encoded(&Phone::parse("+1-365-641-8408x88641", ca).unwrap()),
        encoded(&address),
        encoded(&ResidentId::parse("11010519491231002X").unwrap()),
        encoded(&DateOfBirth::parse("2000-02-29").unwrap()),
        encoded(&CardNumber::parse("4111 1111 1111 1111").unwrap()),
        encoded(&Iban::parse("DE89 3704 0044 0532 0130 00").unwrap()),
        encoded(&IpAddress::parse("2001:db8::1").unwrap()),
        encoded(&FreeText::parse("a\r\n\tb\u{200f}").unwrap()),
        encoded(&SearchQuery::parse(" le  prix ").unwrap()),
        encoded(&OrderLine::parse_credit("voucher", 2, -500, "EUR").unwrap()),
        encoded(&BrowsingEvent::parse("view", "/p/1", 1_700_000_000_000).unwrap()),
        encoded(&PaymentToken::parse("tok_1", "4242").unwrap()),
        encoded(&Bytes::parse(&[0, 255]).unwrap()),
        encoded(&AsEntered::<Email>::keep("no\0 mail").unwrap()),
    ]
}

#[test]
fn each_sample_decodes_to_itself() {
    for (sample, check) in samples().iter().zip(CHECKS) {
        assert!(check(sample), "{sample:?}");
    }
}

#[test]
fn abuse_07_flipped_cut_and_extended_bytes_never_panic() {
    for sample in samples() {
        for check in CHECKS {
            for at in 0..sample.len() {
                check(&sample[..at]);
                for bit in 0..8 {
                    let mut bytes = sample.clone();
                    bytes[at] ^= 1 << bit;
                    check(&bytes);
                }
            }
            for extra in 1..=64 {
                check(&[&sample[..], &vec![0; extra]].concat());
            }
        }
    }
}

#[test]
fn abuse_08_lengths_beyond_the_bytes_are_refused() {
    for length in [
        &[0x80, 0x80, 0x80, 0x80, 0x08][..],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0x7f],
    ] {
        assert!(!check::<PostalAddress>(&[b"CA\x01", length].concat()));
        assert!(!check::<BrowsingEvent>(&[&[0; 8], length].concat()));
    }
    assert!(!check::<PostalAddress>(b"CA\x01\x81\x00a\0\0\0")); // a length of one in two bytes
    assert!(!check::<FreeText>(&vec![b'a'; 64 * 1024 + 1]));
    assert!(!check::<Bytes>(&vec![0; 1024 * 1024 + 1]));
    assert!(!check::<AsEntered<Email>>(&[b'a'; 4097]));
}

/// What a type makes of a text it makes of its own result too.
fn settles<T: Value + std::str::FromStr<Err = Invalid>>(text: &str, expose: fn(&T) -> &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(check::<T>(&encoded(&value)));
        let again = expose(&value).parse::<T>().unwrap();
        assert_eq!(expose(&again), expose(&value));
    }
}

fn settle_all(text: &str) {
    settles(text, PersonName::expose);
    settles(text, Email::expose);
    settles(text, DateOfBirth::expose);
    settles(text, ResidentId::expose);
    settles(text, CardNumber::expose);
    settles(text, Iban::expose);
    settles(text, FreeText::expose);
    settles(text, SearchQuery::expose);
    for region in ["DE", "US", "RU", "HU", "JP", "VA"] {
        if let Ok(phone) = Phone::parse(text, Country::parse(region).unwrap()) {
            assert!(check::<Phone>(&encoded(&phone)));
            assert!(phone.expose_e164().len() <= 16);
        }
    }
    let country = Country::parse("IN").unwrap();
    if let Ok(address) = PostalAddress::parse(text, country) {
        let address = [PostalAddress::with_city, PostalAddress::with_region, PostalAddress::with_postal_code]
            .into_iter()
            .try_fold(address, |address, with| with(address, text));
        assert!(address.is_err() || check::<PostalAddress>(&encoded(&address.unwrap())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn abuse_09_any_bytes_decode_to_what_encodes_to_them(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for check in CHECKS {
            check(&bytes);
        }
    }

    #[test]
    fn abuse_09_altered_encodings_decode_to_what_encodes_to_them(
        which in 0_usize..16,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4),
    ) {
        let mut bytes = samples().swap_remove(which);
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len().saturating_add(1));
            match kind {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = byte),
            }
        }
        for check in CHECKS {
            check(&bytes);
        }
    }

    #[test]
    fn any_text_settles_in_one_step(text in any::<String>()) {
        settle_all(&text);
    }

    #[test]
    fn text_of_marks_spaces_and_letters_settles_in_one_step(
        text in "[a-zA-Z \u{a0}\u{3000}\u{301}\u{323}\u{1100}-\u{1112}\u{1161}-\u{1175}\u{11a8}\u{e0}-\u{f6}\u{212b}\u{1e0a}\u{200d}\u{f900}\u{2000}@.-]{0,24}",
    ) {
        settle_all(&text);
    }

    #[test]
    fn digits_and_signs_settle_in_one_step(text in "[+]?[0-9 ()x.-]{0,24}") {
        settle_all(&text);
    }
}
