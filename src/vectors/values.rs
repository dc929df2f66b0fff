//! Encodings of the built-in values.

use serde_json::{Value as Json, json};
use zeroize::Zeroizing;

use super::{check, hex};
use crate::value::{
    AsEntered, BrowsingEvent, Bytes, CardNumber, Country, DateOfBirth, Email, Encoder, FreeText, Iban,
    IpAddress, OrderLine, PaymentToken, PersonName, Phone, PostalAddress, ResidentId, SearchQuery, Value,
};

fn encoded(value: &impl Value) -> Vec<u8> {
    let mut out = Zeroizing::new(Vec::with_capacity(value.encoded_len()));
    value.encode(&mut Encoder::new(&mut out));
    out.to_vec()
}

/// One that decodes, and some that do not.
fn of<T: Value>(kind: &str, value: &T, refused: &[&[u8]]) -> Json {
    let bytes = encoded(value);
    assert!(T::decode(&bytes).is_some(), "{kind}");
    for refused in refused {
        assert!(T::decode(refused).is_none(), "{kind} {refused:?}");
    }
    let refused: Vec<String> = refused.iter().map(|bytes| hex(bytes)).collect();
    json!({ "type": kind, "bytes": hex(&bytes), "refused": refused })
}

#[test]
fn values() {
    let ca = Country::parse("CA").unwrap();
    let address = PostalAddress::parse("8210 111 ST NW\nb\u{fc}ro 2", ca).unwrap();
    let address = address.with_city("Edmonton").unwrap().with_postal_code("T6G 2C7").unwrap();
    let all = [
        of(
            "person-name",
            &PersonName::parse("Stanis\u{142}aw W\u{f3}jcik").unwrap(),
            &[b"", b" a", b"a  b", b"a\xC2\xA0b", b"e\xCC\x81", b"a\tb", b"a\xE2\x80\xAEb", b"\xFF"],
        ),
        of(
            "email",
            &Email::parse("a.b+c@b\u{fc}cher.example").unwrap(),
            &[
                b"a@B.example",
                b"a@b",
                b"a..b@c.example",
                b"a@b.1",
                b"a@-b.example",
                b"a b@c.example",
                b"@b.example",
            ],
        ),
        of(
            "phone",
            &Phone::parse("+1-365-641-8408x88641", ca).unwrap(),
            &[
                b"13656418408",
                b"+0301234567",
                b"+1234",
                b"+1234567890123456",
                b"+4930123456x",
                b"+49 30123456",
            ],
        ),
        of(
            "postal-address",
            &address,
            &[
                b"ca\x01\x01a\0\0\0",
                b"ZZ\x01\x01a\0\0\0",
                b"CA\0\0\0\0",
                b"CA\x01\x01a\0\0",
                b"CA\x01\x01a\0\0\x01h",
            ],
        ),
        of(
            "resident-id",
            &ResidentId::parse("11010519491231002X").unwrap(),
            &[b"11010519491231002x", b"110105194912310021", b"110105199002300019"],
        ),
        of(
            "date-of-birth",
            &DateOfBirth::parse("2000-02-29").unwrap(),
            &[b"1900-02-29", b"1799-12-31", b"2000-2-29"],
        ),
        of(
            "card-number",
            &CardNumber::parse("4111 1111 1111 1111").unwrap(),
            &[b"4111111111111112", b"4111 1111 1111 1111", b"00000000000"],
        ),
        of(
            "iban",
            &Iban::parse("DE89 3704 0044 0532 0130 00").unwrap(),
            &[b"de89370400440532013000", b"DE88370400440532013000", b"DE89 3704 0044 0532 0130 00"],
        ),
        of(
            "payment-token",
            &PaymentToken::parse("tok_1", "4242").unwrap(),
            &[b"4242", b"42x2tok_1", b"4242tok 1"],
        ),
        of("payment-token", &PaymentToken::parse("~", "0000").unwrap(), &[b"11114111111111111111"]),
        of("ip-address", &IpAddress::parse("192.0.2.1").unwrap(), &[b"\0\0\0", b"\0\0\0\0\0"]),
        of(
            "ip-address",
            &IpAddress::parse("2001:db8::1").unwrap(),
            &[b"\0\0\0\0\0\0\0\0\0\0\xFF\xFF\xC0\0\x02\x01"],
        ),
        of(
            "free-text",
            &FreeText::parse("a\r\n\tb\u{200f}").unwrap(),
            &[b"", b"a\0", b"\xE2\x80\xAE", b"\xEF\xBF\xBE"],
        ),
        of("search-query", &SearchQuery::parse(" le  prix ").unwrap(), &[b"le  prix", b"a\n"]),
        of(
            "order-line",
            &OrderLine::parse_credit("voucher", 2, -500, "EUR").unwrap(),
            &[
                b"\0\0\0\0\0\0\0\0\0\0\0\x01EURa",
                b"\0\0\0\x01\0\0\0\0\0\0\0\x01EuRa",
                b"\0\0\0\x01\0\0\0\0\0\0\0\x01EUR",
            ],
        ),
        of(
            "browsing-event",
            &BrowsingEvent::parse("view", "/p/1", 1_700_000_000_000).unwrap(),
            &[
                b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01a\x01b",
                b"\0\0\0\0\0\0\0\0\x01a\x01b!",
                b"\0\0\0\0\0\0\0\0\0\x01b",
            ],
        ),
        of("bytes", &Bytes::parse(&[0, 255]).unwrap(), &[]),
        of("bytes", &Bytes::parse(&[]).unwrap(), &[]),
        of("as-entered", &AsEntered::<Email>::keep("no\0 mail").unwrap(), &[b"", b"\xFF"]),
    ];
    check(
        "values",
        &json!({
            "show": "One encoding of each built-in type, and some that are refused.",
            "kind": "values",
            "values": all,
        }),
    );
}
