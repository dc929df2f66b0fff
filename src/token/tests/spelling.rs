//! One token has one text, and no other text is one.

use proptest::prelude::*;

use super::super::{Cut, FieldRef, Head, Token};
use super::{END, START, check, forced, id, issued, join, mac, plain, text_of};
use crate::actor::Actor;
use crate::error::{Denied, Error, Malformed, Unsupported};

#[test]
fn abuse_09_a_second_spelling_of_the_text_is_refused() {
    let mut token = plain();
    // A length that leaves bits over in the last character.
    while token.bytes.len().is_multiple_of(3) {
        token = token
            .narrow()
            .actor(Actor::staff(&"a".repeat(token.bytes.len() % 7 + 1)).unwrap())
            .done()
            .unwrap();
    }
    let text = token.expose();
    assert!(Token::parse(text).is_ok());
    let (body, last) = text.split_at(text.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for other in alphabet.chars().filter(|c| !last.contains(*c)) {
        assert!(Token::parse(&format!("{body}{other}")).and_then(|t| check(&t)).is_err(), "{other}");
    }
    let at = text.len() / 2;
    for spelling in [
        format!("{text}="),
        format!("{text}=="),
        format!("{text}A"),
        format!("{text}\n"),
        format!(" {text}"),
        format!("{} {}", &text[..at], &text[at..]),
        format!("{}\r\n{}", &text[..at], &text[at..]),
        format!("{}+{}", &text[..at], &text[at + 1..]),
        format!("{}/{}", &text[..at], &text[at + 1..]),
        format!("{}\u{e9}{}", &text[..at], &text[at..]),
        text.replacen("cv1.", "CV1.", 1),
        text.replacen("cv1.", "cv1", 1),
        text.replacen("cv1.", "", 1),
    ] {
        assert!(matches!(Token::parse(&spelling), Err(Error::Malformed(_))), "{spelling}");
    }
}

#[test]
fn abuse_08_another_version_is_called_that() {
    for text in ["cv2.AAAA", "cv0.", "cv10.AAAA"] {
        assert_eq!(Token::parse(text).err(), Some(Unsupported::Version.into()));
    }
    for bytes in [&[0_u8][..], &[2], &[255; 100]] {
        assert_eq!(Token::parse(&text_of(bytes)).err(), Some(Unsupported::Version.into()));
    }
    for text in ["", "cv1.", "cv.", "cvx.AAAA", "v1.AAAA", "cv12345.AAAA"] {
        assert!(matches!(Token::parse(text), Err(Error::Malformed(_))), "{text}");
    }
}

#[test]
fn abuse_08_a_text_longer_than_the_bound_is_neither_read_nor_made() {
    assert_eq!(Token::parse(&format!("cv1.{}", "A".repeat(8189))).err(), Some(Malformed::Length.into()));
    let many: Vec<_> = (0..2000).map(|number| FieldRef { record: "order", number }).collect();
    let token = issued(None, Some(&many), START, END).unwrap();
    assert!(token.expose().len() <= 8192);
    assert_eq!(token.narrow().fields(&many).done().err(), Some(Unsupported::Parameters.into()));
}

fn any_fields() -> impl Strategy<Value = Option<Vec<FieldRef>>> {
    let field = (prop_oneof![Just("order"), Just("customer"), Just("a-1")], 0_u16..40);
    proptest::option::of(proptest::collection::vec(
        field.prop_map(|(record, number)| FieldRef { record, number }),
        1..30,
    ))
}

fn reencoded(token: &Token) -> Vec<u8> {
    let mut all = vec![token.said.head.encode()];
    all.extend(token.said.cuts.iter().map(Cut::encode));
    join(&all, &mac(token))
}

proptest! {
    #[test]
    fn abuse_07_any_bytes_are_refused_or_are_their_own_encoding(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for version in [None, Some(1)] {
            if let (Some(version), Some(first)) = (version, bytes.first_mut()) {
                *first = version;
            }
            if let Ok(token) = Token::parse(&text_of(&bytes)) {
                prop_assert_eq!(reencoded(&token), bytes.clone());
            }
            drop((Head::decode(&bytes), Cut::decode(&bytes)));
        }
    }

    #[test]
    fn abuse_07_any_text_is_refused_or_kept_as_it_is(text in "(cv1\\.)?\\PC{0,80}") {
        if let Ok(token) = Token::parse(&text) {
            prop_assert_eq!(token.expose(), text);
        }
    }

    #[test]
    fn what_is_accepted_has_one_encoding(
        fields in any_fields(),
        names in proptest::option::of(proptest::collection::vec("[a-z]{1,9}", 1..5)),
        cuts in proptest::collection::vec((proptest::option::of(0_i64..100), any::<bool>()), 0..5),
        change in (any::<proptest::sample::Index>(), any::<u8>()),
    ) {
        let ids: Option<Vec<_>> = names.map(|names| names.iter().map(|name| id(name)).collect());
        let mut token = issued(ids.as_deref(), fields.as_deref(), START, END).unwrap();
        for (sooner, subject) in cuts {
            let cut = Cut {
                expires: sooner.map(|by| END.saturating_sub(by)),
                subject: subject.then_some([5; 16]),
                actor: Some(Actor::staff("anna").unwrap()),
                ..Cut::default()
            };
            token = forced(&token, &cut.encode()).unwrap();
        }
        prop_assert_eq!(reencoded(&token), token.bytes.to_vec());
        prop_assert_eq!(text_of(&token.bytes), token.expose());
        let mut bytes = token.bytes.to_vec();
        let at = change.0.index(bytes.len());
        let changed = bytes[at] != change.1;
        bytes[at] = change.1;
        if let Ok(parsed) = Token::parse(&text_of(&bytes)) {
            prop_assert_eq!(reencoded(&parsed), bytes);
            prop_assert_eq!(check(&parsed).err() == Some(Denied::NotOurs.into()), changed);
        }
    }
}
