//! Tokens.

use serde_json::json;

use super::{check, count, hex, said};
use crate::actor::{Actor, Ground, SubjectId};
use crate::crypto::Prf;
use crate::error::{Denied, Error};
use crate::keeper::VaultId;
use crate::token::{Claims, FieldRef, Fields, Token, issue, tlv, verify};
use crate::wire::Put as _;

const FROM: i64 = 1_767_600_000;

fn key() -> Prf {
    Prf::new(&count(0x55))
}

fn vault() -> VaultId {
    VaultId(count(0x10))
}

fn subject(id: &str) -> SubjectId {
    SubjectId::new(id).unwrap()
}

fn issued() -> Token {
    let field = |record, number| FieldRef { record, number };
    let claims = Claims {
        id: count(0xD0),
        purpose: 1,
        actor: &Actor::third_party("carrier").unwrap(),
        ground: &Ground::new("parcel").unwrap(),
        not_before: FROM,
        expires: FROM + 3600,
        subjects: Some(&[subject("alice"), subject("bob")]),
        fields: Some(&[field("order", 2), field("order", 1), field("customer", 300)]),
    };
    issue(&key(), &vault(), &claims).unwrap()
}

/// A token with one block more, under the MAC that `token` carries, whatever the block says.
fn with_block(token: &Token, block: &[u8]) -> String {
    let bytes = decode(token.expose());
    let (before, mac) = bytes.split_last_chunk::<32>().unwrap();
    let mut out = before.to_vec();
    out.put_bytes(block);
    out.put(Prf::new(mac).mac(&[b"customer-vault/v1/token/narrow", block]).as_slice());
    encode(&out)
}

fn encode(bytes: &[u8]) -> String {
    use base64ct::Encoding as _;
    format!("cv1.{}", base64ct::Base64UrlUnpadded::encode_string(bytes))
}

fn decode(text: &str) -> Vec<u8> {
    use base64ct::Encoding as _;
    base64ct::Base64UrlUnpadded::decode_vec(text.strip_prefix("cv1.").unwrap()).unwrap()
}

fn vector(name: &str, show: &str, text: &str, result: &str) {
    let verified = Token::parse(text).and_then(|token| verify(&key(), &vault(), &token));
    assert_eq!(said(&verified), result, "{name}");
    let mut vector = json!({
        "show": show,
        "kind": "token",
        "vault": hex(vault().bytes()),
        "token_key": hex(&count::<32>(0x55)),
        "token": text,
        "result": result,
    });
    if let Ok(verified) = verified {
        let actors: Vec<String> = verified.actors().map(ToString::to_string).collect();
        let fields: Vec<_> = verified.fields().into_iter().flat_map(Fields::iter).collect();
        let reaches: Vec<&str> =
            ["alice", "bob", "carol"].into_iter().filter(|id| verified.reaches(&subject(id))).collect();
        vector["claims"] = json!({
            "id": hex(&verified.id),
            "purpose": verified.purpose,
            "actors": actors,
            "ground": verified.ground().code(),
            "not_before": verified.not_before,
            "expires": verified.expires,
            "fields": fields,
        });
        vector["asked"] = json!(["alice", "bob", "carol"]);
        vector["reaches"] = json!(reaches);
    }
    check(name, &vector);
}

#[test]
fn tokens() {
    let token = issued();
    vector("token", "For two subjects and three fields.", token.expose(), "opens");
    let once = token.narrow().expires_at(FROM + 600).subject(&subject("alice")).done().unwrap();
    let fields = [FieldRef { record: "order", number: 1 }];
    let driver = Actor::staff("driver-7").unwrap();
    let twice = once.narrow().not_before(FROM + 60).fields(&fields).actor(driver).done().unwrap();
    vector(
        "token-narrowed-twice",
        "Narrowed to one subject and ten minutes, then to a later start, one field and a further actor.",
        twice.expose(),
        "opens",
    );
    // The other subject: each level that names subjects has to name it.
    let never = once.narrow().subject(&subject("bob")).done().unwrap();
    vector(
        "token-narrowed-to-two-subjects",
        "Narrowed to Alice, then to Bob: to nobody.",
        never.expose(),
        "opens",
    );

    let mut later = Vec::new();
    tlv::put(&mut later, 1, &(FROM + 7200).to_be_bytes());
    vector("token-widened", "A narrowing that sets a later end.", &with_block(&token, &later), "denied");
    let wider = Token::parse(&with_block(&token, &later)).unwrap();
    assert_eq!(verify(&key(), &vault(), &wider).unwrap_err(), Error::Denied(Denied::Wider));
    vector("token-empty-narrowing", "A narrowing without a claim.", &with_block(&token, &[]), "malformed");
    let mut unknown = Vec::new();
    tlv::put(&mut unknown, 6, b"?");
    vector("token-unknown-claim", "A narrowing with claim 6.", &with_block(&token, &unknown), "unsupported");

    let mut bytes = decode(twice.expose());
    let at = bytes.len() - 33;
    bytes[at] ^= 1;
    vector(
        "token-altered",
        "The last letter of the further actor's name is altered.",
        &encode(&bytes),
        "denied",
    );
    let cut = decode(once.expose());
    let mut bytes = decode(token.expose());
    let mac = bytes.len() - 32;
    bytes.splice(mac.., cut[cut.len() - 32..].iter().copied());
    vector(
        "token-narrowing-taken-away",
        "The narrowing is gone, its MAC is kept.",
        &encode(&bytes),
        "denied",
    );
    let stray = {
        let mut text = token.expose().to_owned();
        let last = text.pop().unwrap();
        let next = char::from(u8::try_from(u32::from(last)).unwrap() + 1);
        text.push(next);
        text
    };
    assert_ne!(decode(token.expose()).len() % 3, 0, "there are stray bits to set");
    vector(
        "token-stray-bits",
        "The last character has a bit set that stands for nothing.",
        &stray,
        "malformed",
    );
    let other = token.expose().replacen("cv1.", "cv2.", 1);
    vector("token-unknown-version", "The text of another version.", &other, "unsupported");
}
