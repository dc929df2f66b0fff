use super::{KeyKind, MAX_KEYS, Ring};
use crate::crypto::aead::Suite;
use crate::error::{Error, Malformed, Misuse, Unsupported};

const ORIGIN: &str = "customer-vault/test";

/// Every list has several keys.
fn ring() -> Ring {
    let mut ring = Ring::fresh(Suite::Aes256Gcm, 1).unwrap();
    for (kind, made_ms) in [(KeyKind::Tokens, 2), (KeyKind::Index, 3), (KeyKind::Signing, 4)] {
        ring.change(kind, made_ms, ORIGIN).unwrap();
    }
    ring
}

fn decoded(bytes: &[u8]) -> Result<Ring, Error> {
    Ring::decode(bytes, &[7; 32])
}

fn refused(bytes: &[u8]) -> Error {
    decoded(bytes).err().unwrap()
}

#[test]
fn a_ring_is_read_as_it_was_written() {
    let ring = ring();
    let bytes = ring.encode();
    let read = decoded(&bytes).unwrap();
    assert_eq!(read.encode(), bytes);
    assert_eq!((read.infos(), read.last, read.suite), (ring.infos(), 6, Suite::Aes256Gcm));
    for kind in [KeyKind::Tokens, KeyKind::Index, KeyKind::Signing] {
        let numbers: Vec<(u16, bool)> = read
            .infos()
            .iter()
            .filter(|info| info.kind == kind)
            .map(|info| (info.number, info.current))
            .collect();
        assert!(matches!(numbers[..], [(first, false), (_, true)] if first == read.first(kind)));
    }
    // The key that signed is there by its public half alone.
    assert_eq!(read.verifiers(ORIGIN).unwrap(), ring.verifiers(ORIGIN).unwrap());
    let secret = Ring::fresh(Suite::Aes256Gcm, 1).unwrap();
    let mut changed = decoded(&secret.encode()).unwrap();
    changed.change(KeyKind::Signing, 2, ORIGIN).unwrap();
    let seed = secret.signing().expose();
    assert!(!changed.encode().windows(32).any(|bytes| bytes == seed));
}

#[test]
fn a_ring_that_is_cut_or_longer_is_refused() {
    let bytes = ring().encode();
    for length in 0..bytes.len() {
        assert!(matches!(refused(&bytes[..length]), Error::Malformed(_)), "{length}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(refused(&longer), Error::Malformed(_)));
    let mut other = bytes.to_vec();
    other[0] = 2;
    assert_eq!(refused(&other), Unsupported::Version.into());
}

#[test]
fn lists_that_are_out_of_order_empty_or_too_long_are_refused() {
    let bytes = ring().encode();
    // Version, suite, last; then a count, and the number of the first token key.
    let (count, first, second) = (4, 5, 5 + 42);
    assert_eq!((bytes[count], bytes[first + 1], bytes[second + 1]), (2, 1, 4));
    for same in [4, 5] {
        let mut other = bytes.to_vec();
        other[first + 1] = same;
        assert_eq!(refused(&other), Malformed::Order.into(), "{same}");
    }
    let empty = [&bytes[..count], &[0], &bytes[second + 42..]].concat();
    assert_eq!(refused(&empty), Malformed::Length.into());

    let mut full = Ring::fresh(Suite::Aes256Gcm, 1).unwrap();
    for _ in 1..MAX_KEYS {
        full.change(KeyKind::Tokens, 2, ORIGIN).unwrap();
    }
    assert_eq!(full.change(KeyKind::Tokens, 2, ORIGIN), Err(Misuse::TooLarge.into()));
    let bytes = full.encode();
    decoded(&bytes).unwrap();
    let last = &bytes[count + 1 + 42 * (MAX_KEYS - 1)..][..42];
    let mut nine = [&bytes[..count + 1 + 42 * MAX_KEYS], last, &bytes[count + 1 + 42 * MAX_KEYS..]].concat();
    nine[count] = 9;
    nine[count + 1 + 42 * MAX_KEYS + 1] += 1;
    nine[3] += 1;
    assert_eq!(refused(&nine), Malformed::Order.into());
}

#[test]
fn a_number_above_the_last_is_refused() {
    let ring = ring();
    let mut bytes = ring.encode();
    bytes[3] = 5;
    assert_eq!(refused(&bytes), Malformed::Content.into());
    bytes[3] = 7;
    decoded(&bytes).unwrap();
}

#[test]
fn lookup_keys_are_one_that_the_vault_was_made_with_or_a_list_of_one_or_two() {
    let alice = crate::SubjectId::new("alice").unwrap();
    let mut ring = ring();
    let first = ring.encode_lookup();
    assert_eq!(first.len(), 32);
    let before = ring.places(&alice).unwrap();
    assert_eq!((before.number, before.former), (0, None));
    ring.change(KeyKind::Lookup, 5, ORIGIN).unwrap();
    assert_eq!(ring.change(KeyKind::Lookup, 5, ORIGIN), Err(Misuse::FormerKey.into()));
    let both = ring.encode_lookup();
    let read = Ring::decode(&ring.encode(), &both).unwrap();
    let places = read.places(&alice).unwrap();
    assert_eq!((places.number, places.former), (7, Some(before.newest)));
    assert_ne!(places.newest, before.newest);
    assert_eq!((read.encode_lookup(), read.infos()), (both.clone(), ring.infos()));
    assert_eq!(ring.retire(KeyKind::Lookup), 1);
    let one = ring.encode_lookup();
    let read = Ring::decode(&ring.encode(), &one).unwrap();
    assert_eq!(read.places(&alice).unwrap(), super::Places { former: None, ..places });

    let bytes = ring.encode();
    for length in (0..both.len()).filter(|length| *length != 32) {
        assert!(Ring::decode(&bytes, &both[..length]).is_err(), "{length}");
    }
    let mut made_with = one.to_vec();
    made_with[1..3].copy_from_slice(&[0, 0]);
    assert_eq!(Ring::decode(&bytes, &made_with).err().unwrap(), Malformed::NotCanonical.into());
    let mut three = [&both[..], &both[43..]].concat();
    three[0] = 3;
    three[both.len() + 1] += 1;
    assert!(Ring::decode(&bytes, &three).is_err());
    assert!(Ring::decode(&bytes, &[0]).is_err());
}

#[test]
fn what_is_retired_is_gone_from_the_bytes() {
    let mut ring = ring();
    let before = ring.encode();
    for kind in [KeyKind::Tokens, KeyKind::Index, KeyKind::Signing] {
        assert_eq!((ring.retire(kind), ring.retire(kind)), (1, 0), "{kind:?}");
    }
    let after = ring.encode();
    assert_eq!(before.len() - after.len(), 3 * 42);
    assert!(decoded(&after).unwrap().infos().iter().all(|info| info.current));
}
