#![allow(clippy::arithmetic_side_effects, reason = "a test")]

use std::collections::HashSet;

use zeroize::Zeroizing;

use super::{MAX_PARTS, NONCE, Part, Plain, Row, wrap, wrap_as};
use crate::crypto::aead::{Suite, TAG};
use crate::error::{Error, Malformed, Misuse, Result, Unsupported};
use crate::keeper::VaultId;
use crate::key::{Node, Parent, Secret};

const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::XChaCha20Poly1305];
const VAULT: VaultId = VaultId([1; 16]);
const PARTS: usize = 1 + 1 + 8 + 8 + 16 + 2;

fn parent(suite: Suite) -> Parent {
    Secret::<Node>::from_slice(&[2; 32]).unwrap().parent(suite)
}

fn part(purpose: u16) -> Part {
    Part { kind: 3, generation: 1, purpose }
}

fn plain(parts: &[(u16, &[u8])]) -> Plain {
    let parts =
        parts.iter().map(|(purpose, bytes)| (part(*purpose), Zeroizing::new(bytes.to_vec()))).collect();
    Plain { generation: 5, parts }
}

/// Every part of a row.
fn opened(bytes: &[u8], suite: Suite) -> Result<Vec<Vec<u8>>> {
    let row = Row::parse(bytes)?;
    let plain = row.open_all(&parent(suite), &VAULT, b"name")?;
    Ok(plain.parts.iter().map(|(_, bytes)| bytes.to_vec()).collect())
}

#[test]
fn abuse_07_every_bit_of_a_row_counts_and_so_does_every_byte_at_its_end() {
    for suite in SUITES {
        let bytes = wrap(&parent(suite), &VAULT, b"name", 4, &plain(&[(1, &[7; 32]), (2, b"")])).unwrap();
        assert_eq!(opened(&bytes, suite).unwrap(), [vec![7; 32], vec![]]);
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(opened(&altered, suite).is_err(), "{suite:?}, bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(opened(&bytes[..len], suite).is_err(), "cut at {len}");
        }
        for more in 1..=64 {
            for byte in [0, 1, 0x80, 0xFF] {
                assert!(opened(&[&bytes[..], &vec![byte; more]].concat(), suite).is_err(), "{more} more");
            }
        }
    }
}

#[test]
fn abuse_07_a_row_opens_under_its_own_name_vault_and_key_alone() {
    let suite = Suite::Aes256Gcm;
    let bytes = wrap(&parent(suite), &VAULT, b"name", 4, &plain(&[(1, &[7; 32])])).unwrap();
    let row = Row::parse(&bytes).unwrap();
    let other = Secret::<Node>::from_slice(&[3; 32]).unwrap().parent(suite);
    assert!(row.open(&parent(suite), &VAULT, b"name", part(1)).unwrap().is_some());
    assert!(row.open(&parent(suite), &VAULT, b"name", part(2)).unwrap().is_none());
    for (parent, vault, name) in [
        (&other, VAULT, &b"name"[..]),
        (&parent(Suite::XChaCha20Poly1305), VAULT, b"name"),
        (&parent(suite), VaultId([2; 16]), b"name"),
        (&parent(suite), VAULT, b"names"),
        (&parent(suite), VAULT, b""),
    ] {
        assert_eq!(row.open(parent, &vault, name, part(1)).unwrap_err(), Error::DoesNotOpen);
    }
}

#[test]
fn abuse_08_an_unknown_version_or_suite_of_a_row_is_unsupported_whatever_follows() {
    let bytes = wrap(&parent(Suite::Aes256Gcm), &VAULT, b"name", 4, &plain(&[(1, &[7; 32])])).unwrap();
    for (at, why) in [(0, Unsupported::Version), (1, Unsupported::Suite)] {
        for number in [0, 3, 4, 0x7F, 0xFF] {
            let mut altered = bytes.clone();
            altered[at] = number;
            assert_eq!(Row::parse(&altered).unwrap_err(), Error::Unsupported(why));
            assert_eq!(Row::parse(&altered[..2]).unwrap_err(), Error::Unsupported(why));
        }
    }
}

#[test]
fn abuse_09_parts_are_in_order_and_as_long_as_they_say() {
    let suite = Suite::Aes256Gcm;
    let wrapped = |parts: &[(u16, &[u8])]| wrap(&parent(suite), &VAULT, b"name", 4, &plain(parts)).unwrap();
    for parts in [&[(2, &b"a"[..]), (1, b"b")], &[(1, b"a"), (1, b"b")]] {
        assert_eq!(Row::parse(&wrapped(parts)).unwrap_err(), Error::Malformed(Malformed::Order));
    }
    let good = wrapped(&[(1, &[7; 15])]);
    for length in [0, 14, 16, 1 << 31, u32::MAX, u32::MAX - 31] {
        let mut altered = good.clone();
        altered[PARTS + 5..PARTS + 9].copy_from_slice(&u32::to_be_bytes(length));
        assert_eq!(Row::parse(&altered).unwrap_err(), Error::Malformed(Malformed::Length), "{length}");
    }
    for count in [2, 15, 4096, 4097, u16::MAX] {
        let mut altered = good.clone();
        altered[PARTS - 2..PARTS].copy_from_slice(&u16::to_be_bytes(count));
        assert_eq!(Row::parse(&altered).unwrap_err(), Error::Malformed(Malformed::Length), "{count}");
    }
}

#[test]
fn abuse_12_with_a_stuck_serial_any_difference_gives_another_nonce_and_none_gives_the_same_bytes() {
    for suite in SUITES {
        let mut rows = Vec::new();
        let (key, values): (Parent, [&[u8]; 4]) = (parent(suite), [b"", b"\0", &[7; 32], &[8; 32]]);
        for vault in [VAULT, VaultId([2; 16])] {
            for name in [&b"n"[..], b"na", b"nam"] {
                for generation in [4, 5] {
                    for value in values {
                        for (purpose, own) in [(1, 5), (2, 5), (1, 6)] {
                            let mut plain = plain(&[(purpose, value), (9, value)]);
                            plain.generation = own;
                            let row = wrap_as(&key, &vault, name, generation, &plain, &[0; 16]).unwrap();
                            assert_eq!(
                                row,
                                wrap_as(&key, &vault, name, generation, &plain, &[0; 16]).unwrap()
                            );
                            rows.push((row, value.len()));
                        }
                    }
                }
            }
        }
        let mut nonces = HashSet::new();
        for (row, len) in &rows {
            let first = PARTS + 2 * 9;
            let second = first + NONCE + len + TAG;
            // AES-256-GCM takes the first twelve bytes. The two parts of a row have equal values.
            for at in [first, second] {
                nonces.insert(row[at..at + 12].to_vec());
            }
        }
        assert_eq!(rows.len(), 2 * 3 * 2 * 4 * 3);
        assert_eq!(nonces.len(), 2 * rows.len(), "{suite:?}");
    }
}

#[test]
fn equal_rows_differ_when_the_generator_works() {
    let key = parent(Suite::Aes256Gcm);
    let row = || wrap(&key, &VAULT, b"name", 4, &plain(&[(1, &[7; 32])])).unwrap();
    assert_ne!(row(), row());
}

#[test]
fn what_is_written_can_be_read_and_no_more_is_written() {
    let parent = parent(Suite::Aes256Gcm);
    let plain = |parts: usize| {
        let parts = (1..).take(parts).map(|purpose| (part(purpose), Zeroizing::new(vec![1; 32])));
        Plain { generation: 0, parts: parts.collect() }
    };
    let row = wrap(&parent, &VAULT, b"s", 1, &plain(MAX_PARTS)).unwrap();
    assert_eq!(Row::parse(&row).unwrap().parts().count(), MAX_PARTS);
    let more = wrap(&parent, &VAULT, b"s", 1, &plain(MAX_PARTS.saturating_add(1)));
    assert_eq!(more, Err(Error::Misuse(Misuse::TooLarge)));
}
