use base64ct::{Base64UrlUnpadded, Encoding as _};

use super::narrowing::append;
use super::verify::{next_mac, subject_hint};
use super::{Claims, Cut, FieldRef, Head, LAST_SECOND, Parts, Token, Verified, issue, tlv, verify};
use crate::actor::{Actor, Ground, SubjectId};
use crate::crypto::Prf;
use crate::error::{Denied, Error, Malformed, Misuse, Result, Unsupported};
use crate::keeper::VaultId;

mod spelling;

const VAULT: VaultId = VaultId([7; 16]);
const START: i64 = 1_700_000_000;
const END: i64 = START + 3600;
const ADDRESS: FieldRef = FieldRef { record: "order", number: 1 };
const PHONE: FieldRef = FieldRef { record: "order", number: 2 };

fn key() -> Prf {
    Prf::new(&[42; 32])
}

fn id(text: &str) -> SubjectId {
    SubjectId::new(text).unwrap()
}

fn issued(
    subjects: Option<&[SubjectId]>,
    fields: Option<&[FieldRef]>,
    not_before: i64,
    expires: i64,
) -> Result<Token> {
    let claims = Claims {
        id: [3; 16],
        purpose: 1,
        actor: &Actor::service("labels").unwrap(),
        ground: &Ground::new("parcel").unwrap(),
        not_before,
        expires,
        subjects,
        fields,
    };
    issue(&key(), &VAULT, &claims)
}

fn plain() -> Token {
    issued(None, None, START, END).unwrap()
}

fn check(token: &Token) -> Result<Verified> {
    verify(&key(), &VAULT, token)
}

fn text_of(bytes: &[u8]) -> String {
    format!("cv1.{}", Base64UrlUnpadded::encode_string(bytes))
}

/// Parsing and verification, as the vault does them.
fn accepts(bytes: &[u8]) -> Result<Verified> {
    check(&Token::parse(&text_of(bytes))?)
}

/// A block that no honest holder would add, under the right MAC.
fn forced(token: &Token, block: &[u8]) -> Result<Token> {
    append(token, &Prf::new(Parts::split(&token.bytes)?.mac), block)
}

fn blocks(token: &Token) -> Vec<Vec<u8>> {
    let mut parts = Parts::split(&token.bytes).unwrap();
    let mut all = vec![parts.head.to_vec()];
    while let Some(block) = parts.next_block().unwrap() {
        all.push(block.to_vec());
    }
    all
}

fn join(blocks: &[Vec<u8>], mac: &[u8]) -> Vec<u8> {
    use crate::wire::Put as _;
    let mut bytes = vec![1];
    for block in blocks {
        bytes.put_bytes(block);
    }
    bytes.extend_from_slice(mac);
    bytes
}

fn mac(token: &Token) -> Vec<u8> {
    Parts::split(&token.bytes).unwrap().mac.to_vec()
}

#[test]
fn the_format_and_its_macs_are_these() {
    let token = plain();
    let mut head = Vec::new();
    tlv::put(&mut head, 1, &[3; 16]);
    tlv::put(&mut head, 2, &[7; 16]);
    tlv::put(&mut head, 3, &[0, 1]);
    tlv::put(&mut head, 4, b"\x02labels");
    tlv::put(&mut head, 5, b"parcel");
    tlv::put(&mut head, 6, &START.to_be_bytes());
    tlv::put(&mut head, 7, &END.to_be_bytes());
    let mac = key().mac(&[b"customer-vault/v1/token/head", &[7; 16], &head]);
    assert_eq!(*token.bytes, join(std::slice::from_ref(&head), &*mac));

    let narrowed = token.narrow().subject(&id("alice")).expires_at(END - 1).done().unwrap();
    let hint = Prf::new(&mac).tag(&[b"customer-vault/v1/token/subject", b"alice"]);
    let mut block = Vec::new();
    tlv::put(&mut block, 1, &(END - 1).to_be_bytes());
    tlv::put(&mut block, 3, &hint);
    let next = Prf::new(&mac).mac(&[b"customer-vault/v1/token/narrow", &block]);
    assert_eq!(*narrowed.bytes, join(&[head, block], &*next));
}

#[test]
fn a_token_says_unverified_what_it_was_issued_for() {
    let token = plain().narrow().expires_at(END - 5).done().unwrap();
    assert_eq!(token.unverified_id(), [3; 16]);
    assert_eq!(token.unverified_purpose(), 1);
    assert_eq!(token.unverified_expiry(), END - 5);
    let verified = check(&token).unwrap();
    assert_eq!((verified.id, verified.purpose, verified.not_before), ([3; 16], 1, START));
    assert_eq!((verified.expires, verified.ground().code()), (END - 5, "parcel"));
    assert!(verified.reaches(&id("anyone")) && verified.covers("order", 1));
}

#[test]
fn abuse_21_debug_shows_the_id_alone() {
    let token = plain();
    assert_eq!(format!("{token:?}"), format!("Token(cv1…, id {})", "03".repeat(16)));
    assert!(!format!("{:?}", token.narrow()).contains(&token.expose()[4..]));
}

#[test]
fn abuse_07_14_every_bit_flipped_and_every_truncation_and_extension_is_refused() {
    let subjects = [id("alice"), id("bob")];
    let token = issued(Some(&subjects), Some(&[ADDRESS, PHONE]), START, END).unwrap();
    let token = token.narrow().subject(&id("alice")).fields(&[ADDRESS]).done().unwrap();
    assert!(accepts(&token.bytes).is_ok());
    for at in 0..token.bytes.len() * 8 {
        let mut bytes = token.bytes.to_vec();
        bytes[at / 8] ^= 1 << (at % 8);
        assert!(accepts(&bytes).is_err(), "bit {at}");
    }
    for length in 0..token.bytes.len() {
        assert!(accepts(&token.bytes[..length]).is_err(), "{length} bytes");
    }
    for more in 1..=64 {
        for fill in [0, 1, 0xFF] {
            let mut bytes = token.bytes.to_vec();
            bytes.resize(bytes.len() + more, fill);
            assert!(accepts(&bytes).is_err(), "{more} more");
        }
    }
    for at in 0..token.expose().len() {
        assert!(Token::parse(&token.expose()[..at]).and_then(|t| check(&t)).is_err());
    }
}

#[test]
fn abuse_14_forged_and_foreign_tokens_look_alike() {
    let not_ours = |result: Result<Verified>| assert_eq!(result.err(), Some(Denied::NotOurs.into()));
    let token = plain();
    not_ours(verify(&Prf::new(&[43; 32]), &VAULT, &token));
    not_ours(verify(&key(), &VaultId([8; 16]), &token));
    not_ours(accepts(&join(&blocks(&token), &[0; 32])));

    // Another vault's claim under this vault's MAC: only a fault of ours could make it.
    let mut head = token.said.head.clone();
    head.vault = [8; 16];
    let block = head.encode();
    let mac = key().mac(&[b"customer-vault/v1/token/head", VAULT.bytes(), &block]);
    not_ours(accepts(&join(&[block], &*mac)));
}

#[test]
fn abuse_14_a_narrowing_can_be_neither_stripped_nor_moved_nor_repeated() {
    let token = plain();
    let first = token.narrow().expires_at(END - 10).done().unwrap();
    let second = first.narrow().subject(&id("alice")).done().unwrap();
    let all = blocks(&second);
    let [head, one, two] = [all[0].clone(), all[1].clone(), all[2].clone()];
    for (case, blocks) in [
        ("last stripped", vec![head.clone(), one.clone()]),
        ("first stripped", vec![head.clone(), two.clone()]),
        ("both stripped", vec![head.clone()]),
        ("reordered", vec![head.clone(), two.clone(), one.clone()]),
        ("repeated", vec![head.clone(), one.clone(), one.clone(), two.clone()]),
        ("repeated last", vec![head, one, two.clone(), two]),
    ] {
        for mac in [mac(&second), mac(&first)] {
            let refused = accepts(&join(&blocks, &mac)).err();
            let first_itself = case == "last stripped" && mac == self::mac(&first);
            assert_eq!(refused, (!first_itself).then_some(Denied::NotOurs.into()), "{case}");
        }
    }
    assert!(check(&second).is_ok());
}

#[test]
fn abuse_14_claims_out_of_order_twice_or_unknown_are_refused_even_under_a_right_mac() {
    let token = plain();
    let second = END.to_be_bytes();
    let refused = |claims: &[(u8, &[u8])]| {
        let mut block = Vec::new();
        for (tag, value) in claims {
            tlv::put(&mut block, *tag, value);
        }
        forced(&token, &block).expect_err("refused")
    };
    assert_eq!(refused(&[]), Malformed::Content.into());
    assert_eq!(refused(&[(1, &second), (1, &second)]), Malformed::Order.into());
    assert_eq!(refused(&[(2, &second), (1, &second)]), Malformed::Order.into());
    assert_eq!(refused(&[(0, &second)]), Malformed::Order.into());
    assert_eq!(refused(&[(6, &second)]), Unsupported::Version.into());
    assert_eq!(refused(&[(1, &second[..7])]), Malformed::Length.into());
    assert_eq!(refused(&[(3, &[0; 15])]), Malformed::Length.into());
    assert_eq!(refused(&[(4, b"")]), Malformed::Length.into());
    assert_eq!(refused(&[(5, b"\x01")]), Malformed::Content.into());
    assert_eq!(refused(&[(5, b"\x09x")]), Unsupported::Version.into());
    assert_eq!(forced(&token, b"\x01\x88\x00").err(), Some(Malformed::NotCanonical.into()));
    assert_eq!(forced(&token, b"\x01\xFF\xFF\xFF\xFF\x0F").err(), Some(Malformed::Length.into()));
}

#[test]
fn a_head_that_lacks_a_claim_or_has_an_unknown_one_is_refused() {
    let head = plain().said.head.encode();
    let claims = || {
        let mut reader = tlv::Claims::new(&head);
        std::iter::from_fn(move || reader.next().unwrap()).collect::<Vec<_>>()
    };
    for missing in 0..claims().len() {
        let mut block = Vec::new();
        let rest = claims().into_iter().enumerate().filter(|(at, _)| *at != missing);
        rest.for_each(|(_, (tag, value))| tlv::put(&mut block, tag, value));
        assert!(matches!(Head::decode(&block), Err(Error::Malformed(_))), "{missing}");
    }
    let mut unknown = head.clone();
    tlv::put(&mut unknown, 10, b"");
    assert_eq!(Head::decode(&unknown), Err(Unsupported::Version.into()));
    let hints = |hints: &[u8]| {
        let mut block = head.clone();
        tlv::put(&mut block, 8, hints);
        Head::decode(&block).err()
    };
    assert_eq!(hints(b""), Some(Malformed::Length.into()));
    assert_eq!(hints(&[0; 17]), Some(Malformed::Length.into()));
    assert_eq!(hints(&[0; 32]), Some(Malformed::Order.into()));
    assert_eq!(hints(&[1; 65 * 16]), Some(Malformed::Length.into()));
}

#[test]
fn abuse_14_a_narrowing_that_would_widen_is_refused_to_the_holder_and_by_the_vault() {
    let token = issued(None, Some(&[ADDRESS]), START, END).unwrap();
    let wider = Some(Error::Denied(Denied::Wider));
    let other = FieldRef { record: "customer", number: 1 };
    assert_eq!(token.narrow().expires_at(END + 1).done().err(), wider);
    assert_eq!(token.narrow().not_before(START - 1).done().err(), wider);
    assert_eq!(token.narrow().fields(&[ADDRESS, PHONE]).done().err(), wider);
    assert_eq!(token.narrow().fields(&[other]).done().err(), wider);
    // Relative to what an earlier narrowing left, too.
    let sooner = token.narrow().expires_at(END - 10).done().unwrap();
    assert_eq!(sooner.narrow().expires_at(END - 9).done().err(), wider);

    let cuts = [
        Cut { expires: Some(END + 1), ..Cut::default() },
        Cut { not_before: Some(START - 1), ..Cut::default() },
        Cut { fields: Some(super::Fields::new(&[ADDRESS, PHONE]).unwrap()), ..Cut::default() },
    ];
    for cut in cuts {
        assert_eq!(check(&forced(&token, &cut.encode()).unwrap()).err(), wider);
        assert_eq!(check(&forced(&sooner, &cut.encode()).unwrap()).err(), wider);
    }
}

#[test]
fn a_narrowing_that_cannot_be_meant_is_refused() {
    let token = plain();
    assert_eq!(token.narrow().done().err(), Some(Misuse::Setting.into()));
    assert_eq!(token.narrow().expires_at(1).expires_at(2).done().err(), Some(Misuse::Setting.into()));
    let two = token.narrow().subject(&id("alice")).subject(&id("bob")).done();
    assert_eq!(two.err(), Some(Misuse::Setting.into()));
    assert_eq!(token.narrow().not_before(END).done().err(), Some(Misuse::Period.into()));
    assert_eq!(token.narrow().expires_at(START).done().err(), Some(Misuse::Period.into()));
    assert_eq!(token.narrow().expires_at(i64::MIN).done().err(), Some(Misuse::Period.into()));
    assert_eq!(token.narrow().fields(&[]).done().err(), Some(Unsupported::Parameters.into()));
}

#[test]
fn fields_narrow_down_to_what_is_left() {
    let token = plain().narrow().fields(&[ADDRESS, PHONE]).done().unwrap();
    let token = token.narrow().fields(&[PHONE]).done().unwrap();
    let verified = check(&token).unwrap();
    assert!(verified.covers("order", 2) && !verified.covers("order", 1) && !verified.covers("customer", 2));
}

#[test]
fn abuse_15_the_last_second_works_and_the_expiry_does_not() {
    let verified = check(&plain()).unwrap();
    assert_eq!(verified.check_time((END - 1) * 1000), Ok(()));
    assert_eq!(verified.check_time(END * 1000 - 1), Ok(()));
    assert_eq!(verified.check_time(END * 1000), Err(Denied::Expired));
    assert_eq!(verified.check_time(START * 1000 - 1), Err(Denied::NotYet));
    assert_eq!(verified.check_time(START * 1000), Ok(()));
    assert_eq!(verified.check_time(i64::MAX), Err(Denied::Expired));
    assert_eq!(verified.check_time(i64::MIN), Err(Denied::NotYet));
    assert_eq!(check(&issued(None, None, 0, 1).unwrap()).unwrap().check_time(-1), Err(Denied::NotYet));
}

#[test]
fn abuse_15_far_and_negative_moments_are_refused() {
    assert!(issued(None, None, 0, LAST_SECOND).is_ok());
    for (start, end) in [
        (-1, END),
        (i64::MIN, END),
        (START, START),
        (END, START),
        (START, LAST_SECOND + 1),
        (START, i64::MAX),
        (i64::MIN, i64::MAX),
        (i64::MAX, i64::MIN),
    ] {
        assert_eq!(issued(None, None, start, end).err(), Some(Misuse::Period.into()), "{start} {end}");
        let head = Head { not_before: start, expires: end, ..plain().said.head.clone() };
        assert_eq!(Head::decode(&head.encode()), Err(Malformed::Content.into()), "{start} {end}");
    }
    for far in [-1, i64::MIN, i64::MAX, LAST_SECOND + 1] {
        let cut = Cut { expires: Some(far), ..Cut::default() };
        assert_eq!(Cut::decode(&cut.encode()), Err(Malformed::Content.into()));
    }
}

#[test]
fn every_level_that_names_subjects_has_to_name_this_one() {
    let listed = issued(Some(&[id("alice"), id("bob"), id("alice")]), None, START, END).unwrap();
    assert_eq!(listed.said.head.subjects.as_ref().map(Vec::len), Some(2));
    let reaches = |token: &Token, name: &str| check(token).unwrap().reaches(&id(name));
    assert!(reaches(&listed, "alice") && reaches(&listed, "bob") && !reaches(&listed, "carol"));
    let bob = listed.narrow().subject(&id("bob")).done().unwrap();
    assert!(!reaches(&bob, "alice") && reaches(&bob, "bob") && !reaches(&bob, "bo"));
    // Outside the head's list: the holder is not told, the vault refuses.
    let carol = listed.narrow().subject(&id("carol")).done().unwrap();
    assert!(!reaches(&carol, "carol") && !reaches(&carol, "alice"));
    let both = bob.narrow().subject(&id("alice")).done().unwrap();
    assert!(!reaches(&both, "alice") && !reaches(&both, "bob"));
}

#[test]
fn the_number_of_subjects_is_bounded() {
    let ids: Vec<_> = (0..65).map(|n| id(&n.to_string())).collect();
    assert!(issued(Some(&ids[..64]), None, START, END).is_ok());
    assert_eq!(issued(Some(&ids), None, START, END).err(), Some(Unsupported::Parameters.into()));
    assert_eq!(issued(Some(&[]), None, START, END).err(), Some(Unsupported::Parameters.into()));
}

#[test]
fn abuse_17_hints_of_one_subject_have_nothing_in_common() {
    let alice = id("alice");
    let listed = issued(Some(std::slice::from_ref(&alice)), None, START, END).unwrap();
    let once = listed.narrow().subject(&alice).done().unwrap();
    let twice = once.narrow().subject(&alice).done().unwrap();
    assert!(check(&twice).unwrap().reaches(&alice));
    let mut hints: Vec<_> = twice.said.cuts.iter().filter_map(|cut| cut.subject).collect();
    hints.extend(twice.said.head.subjects.clone().unwrap());
    // Another token for the same subject, and the same narrowing of it.
    let claims = Claims {
        id: [4; 16],
        purpose: 1,
        actor: &Actor::service("labels").unwrap(),
        ground: &Ground::new("parcel").unwrap(),
        not_before: START,
        expires: END,
        subjects: Some(std::slice::from_ref(&alice)),
        fields: None,
    };
    let other = issue(&key(), &VAULT, &claims).unwrap().narrow().subject(&alice).done().unwrap();
    hints.extend(other.said.cuts.iter().filter_map(|cut| cut.subject));
    hints.extend(other.said.head.subjects.clone().unwrap());
    let count = hints.len();
    hints.sort_unstable();
    hints.dedup();
    assert_eq!((count, hints.len()), (5, 5));
    // What a later holder could try: the MAC that it holds.
    let own = Prf::new(Parts::split(&twice.bytes).unwrap().mac);
    assert!(twice.said.cuts.iter().all(|cut| cut.subject != Some(subject_hint(&own, &alice))));
}

#[test]
fn abuse_17_a_chain_of_sixteen_names_every_actor_and_a_seventeenth_is_refused() {
    let mut token = plain();
    for n in 1..=16_i64 {
        let actor = Actor::third_party(&format!("carrier-{n}")).unwrap();
        token = token.narrow().actor(actor).expires_at(END - n).done().unwrap();
    }
    let verified = check(&token).unwrap();
    let actors: Vec<&str> = verified.actors().map(Actor::name).collect();
    assert_eq!((actors.len(), verified.expires), (17, END - 16));
    assert_eq!((actors[0], actors[16]), ("labels", "carrier-16"));
    let more = token.narrow().expires_at(START + 1).done();
    assert_eq!(more.err(), Some(Unsupported::Parameters.into()));
    let block = Cut { expires: Some(START + 1), ..Cut::default() }.encode();
    assert_eq!(forced(&token, &block).err(), Some(Unsupported::Parameters.into()));
}

#[test]
fn a_block_is_bound_to_its_place_by_the_mac_before_it() {
    let block = Cut { expires: Some(END - 1), ..Cut::default() }.encode();
    let token = plain();
    let under = |key: &[u8; 32]| next_mac(&Prf::new(key), &block);
    let mac = *Parts::split(&token.bytes).unwrap().mac;
    assert_ne!(*under(&mac), *under(&[42; 32]));
    assert_eq!(mac_of(&forced(&token, &block).unwrap()), *under(&mac));
}

fn mac_of(token: &Token) -> [u8; 32] {
    *Parts::split(&token.bytes).unwrap().mac
}
