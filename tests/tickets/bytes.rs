//! Tickets as bytes: altered, cut, of others, too late; and keys that are none.

use customer_vault::error::{Denied, Malformed, Unsupported};
use zeroize::Zeroizing;

use super::*;

fn one() -> (Shop, SealedOrder, Ticket) {
    let shop = Shop::open();
    shop.enroll("alice");
    let sealed = shop.sealed("alice", 1);
    let ticket = shop.ticket::<Shipping>(&[("alice", &sealed)]);
    (shop, sealed, ticket)
}

#[test]
fn abuse_07_altered_at_any_bit_cut_at_any_byte_or_extended_it_is_refused() {
    let (shop, _, ticket) = one();
    let bytes = ticket.as_bytes();
    let read = |bytes: Vec<u8>| shop.read::<Shipping>(&Ticket::from_bytes(bytes)?).map(drop);
    assert_eq!(read(bytes.to_vec()), Ok(()));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut altered = bytes.to_vec();
            altered[at] ^= 1 << bit;
            let why = read(altered).unwrap_err();
            let times = 35..51;
            match why {
                Error::Unsupported(Unsupported::Version) if at == 0 => {}
                Error::Malformed(Malformed::Content) if times.contains(&at) => {}
                Error::Denied(Denied::NotOurs) if at > 0 => {}
                why => panic!("{at} {bit}: {why}"),
            }
        }
        let cut = read(bytes[..at].to_vec()).unwrap_err();
        assert!(matches!(cut, Error::Malformed(_) | Error::Denied(Denied::NotOurs)), "{at}: {cut}");
    }
    for more in 1..=64 {
        let mut extended = bytes.to_vec();
        extended.resize(bytes.len() + more, 0);
        assert_eq!(read(extended).unwrap_err(), Denied::NotOurs.into());
    }
    assert_eq!(read(vec![1; (1 << 20) + 1]).unwrap_err(), Malformed::Length.into());
    assert_eq!(read(vec![2; 300]).unwrap_err(), Unsupported::Version.into());
    assert_eq!(read(Vec::new()).unwrap_err(), Malformed::Length.into());
    // Nothing was lost by it.
    assert_eq!(read(bytes.to_vec()), Ok(()));
}

#[test]
fn a_ticket_for_another_recipient_says_so() {
    let (shop, _, ticket) = one();
    let other = ReaderKey::generate().unwrap();
    let verifier = shop.vault.verifier_key().unwrap();
    let read = Reader::<Shipping>::open_by(&other, &ticket, &verifier, shop.clock.clone());
    assert_eq!(read.unwrap_err(), Denied::Recipient.into());
    assert_eq!(Error::from(Denied::Recipient).to_string(), "denied: the ticket is for another recipient");
}

#[test]
fn a_ticket_of_another_vault_with_equal_subjects_is_not_taken_and_opens_nothing() {
    let (shop, sealed, ticket) = one();
    let (other, others, theirs) = one();
    let read = |of: &Shop, ticket: &Ticket, key: &ReaderKey| {
        let verifier = of.vault.verifier_key().unwrap();
        Reader::<Shipping>::open_by(key, ticket, &verifier, shop.clock.clone())
    };
    assert_eq!(read(&shop, &theirs, &other.key).unwrap_err(), Denied::NotOurs.into());
    assert_eq!(read(&other, &ticket, &shop.key).unwrap_err(), Denied::NotOurs.into());
    // Neither does one open what the other vault sealed for the same id, record and day.
    let grant = read(&other, &theirs, &other.key).unwrap().grant(&id("alice")).unwrap();
    assert!(others.open(&grant, &1).is_ok());
    assert!(matches!(sealed.open(&grant, &1), Err(Error::DoesNotOpen)));
}

#[test]
fn a_ticket_ends_by_either_clock_and_does_not_begin_before_it_was_given() {
    let (shop, sealed, ticket) = one();
    let start = shop.now();
    let verifier = shop.vault.verifier_key().unwrap();
    let at = |wall: i64| {
        let clock = ManualClock::at(Day::of(0));
        clock.set_wall(wall);
        let reader = Reader::<Shipping>::open_by(&shop.key, &ticket, &verifier, clock.clone());
        reader.map(|reader| (reader, clock))
    };
    let hour = 3_600_000;
    assert_eq!(at(start + hour).unwrap_err(), Denied::Expired.into());
    assert_eq!(at(i64::MAX).unwrap_err(), Denied::Expired.into());
    assert_eq!(at(start - 60_001).unwrap_err(), Denied::NotYet.into());
    assert_eq!(at(i64::MIN).unwrap_err(), Denied::NotYet.into());
    assert!(at(start + hour - 1).is_ok() && at(start - 60_000).is_ok());

    let opens = |grant: &Grant<Shipping>| sealed.open(grant, &1).map(|view| view.name().is_ok());
    let expired = || Err(Denied::Expired.into());
    // The wall clock.
    let (reader, clock) = at(start).unwrap();
    let grant = reader.grant(&id("alice")).unwrap();
    clock.set_wall(start + hour - 1);
    assert_eq!(opens(&grant), Ok(true));
    clock.set_wall(start + hour);
    assert_eq!(opens(&grant), expired());
    assert_eq!(reader.grant(&id("alice")).unwrap_err(), Denied::Expired.into());
    // The monotonic one: a wall clock that is set back gives no more time.
    let (reader, clock) = at(start).unwrap();
    let grant = reader.grant(&id("alice")).unwrap();
    for minute in 0..60 {
        assert_eq!(opens(&grant), Ok(true), "{minute}");
        clock.advance(MINUTE);
        clock.set_wall(start);
    }
    assert_eq!(opens(&grant), expired());
    assert_eq!(reader.grant(&id("alice")).unwrap_err(), Denied::Expired.into());
    // A clock that is behind gives no more than an hour either.
    let (reader, clock) = at(start - 60_000).unwrap();
    let grant = reader.grant(&id("alice")).unwrap();
    clock.advance(HOUR);
    clock.set_wall(start);
    assert_eq!(opens(&grant), expired());
}

#[test]
fn keys_are_kept_by_whoever_asks_and_shown_by_nothing_else() {
    let key = ReaderKey::generate().unwrap();
    let bytes = Zeroizing::new(*key.expose());
    let again = ReaderKey::from_bytes(&bytes).unwrap();
    assert_eq!(again.recipient(), key.recipient());
    let public = Recipient::from_bytes(*key.recipient().bytes()).unwrap();
    assert_eq!(public.fingerprint(), key.recipient().fingerprint());
    let hex = |bytes: &[u8]| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.concat()
    };
    for shown in [format!("{key:?}"), format!("{public:?}")] {
        assert!(shown.contains(&hex(&public.fingerprint())));
        assert!(!shown.contains(&hex(bytes.as_slice())) && !shown.contains(&format!("{:?}", &bytes[..4])));
    }
    assert_ne!(ReaderKey::generate().unwrap().recipient(), public);
}

#[test]
fn public_keys_of_small_order_are_refused() {
    // RFC 7748, section 6.1, and the points of order 1, 2, 4 and 8 that curve25519-dalek lists.
    let mut one = [0; 32];
    one[0] = 1;
    let order_8 = *b"\xe0\xeb\x7a\x7c\x3b\x41\xb8\xae\x16\x56\xe3\xfa\xf1\x9f\xc4\x6a\xda\x09\x8d\xeb\x9c\x32\xb1\xfd\x86\x62\x05\x16\x5f\x49\xb8\x00";
    let mut minus_one = [0xFF; 32];
    (minus_one[0], minus_one[31]) = (0xEC, 0x7F);
    let mut prime = minus_one;
    prime[0] = 0xED;
    for small in [[0; 32], one, order_8, minus_one, prime] {
        assert_eq!(Recipient::from_bytes(small).unwrap_err(), Malformed::Content.into());
    }
    assert!(Recipient::from_bytes([9; 32]).is_ok());
}

#[test]
fn nothing_of_a_ticket_names_a_subject_or_a_key_in_the_clear() {
    let shop = Shop::open();
    let who = "a-very-long-customer-number-4711";
    shop.enroll(who);
    let sealed = shop.sealed(who, 1);
    let ticket = shop.ticket::<Shipping>(&[(who, &sealed)]);
    let found = |needle: &[u8]| ticket.as_bytes().windows(needle.len()).any(|window| window == needle);
    assert!(!found(who.as_bytes()) && !found(b"shipping"));
    assert!(found(shop.key.recipient().bytes()));
    let shown = format!("{ticket:?} {:?}", shop.read::<Shipping>(&ticket).unwrap());
    assert!(!shown.contains(who) && shown.len() < 200, "{shown}");
    // Two for the same are two.
    assert_ne!(shop.ticket::<Shipping>(&[(who, &sealed)]), ticket);
}
