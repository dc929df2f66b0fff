//! That both backends are the same ciphers.
#![cfg(feature = "ring")]
#![allow(clippy::arithmetic_side_effects, reason = "a test")]

use super::{Suite, TAG, assembly, portable};

type Seal = dyn Fn(&[u8; 32], &[u8; 24], &[u8], &mut [u8]) -> [u8; TAG];
type Open = dyn Fn(&[u8; 32], &[u8; 24], &[u8], &mut [u8], &[u8; TAG]) -> bool;

fn short(nonce: &[u8; 24]) -> &[u8; 12] {
    nonce.first_chunk().unwrap()
}

/// Both backends of a suite.
fn backends(suite: Suite) -> [(Box<Seal>, Box<Open>); 2] {
    match suite {
        Suite::Aes256Gcm => [
            (
                Box::new(|k, n, a, b| portable::Aes::new(k).seal(short(n), a, b).unwrap()),
                Box::new(|k, n, a, b, t| portable::Aes::new(k).open(short(n), a, b, t).is_ok()),
            ),
            (
                Box::new(|k, n, a, b| assembly::Aes::new(k).seal(short(n), a, b).unwrap()),
                Box::new(|k, n, a, b, t| assembly::Aes::new(k).open(short(n), a, b, t).is_ok()),
            ),
        ],
        Suite::XChaCha20Poly1305 => [
            (
                Box::new(|k, n, a, b| portable::XChaCha::new(k).seal(n, a, b).unwrap()),
                Box::new(|k, n, a, b, t| portable::XChaCha::new(k).open(n, a, b, t).is_ok()),
            ),
            (
                Box::new(|k, n, a, b| assembly::XChaCha::new(k).seal(n, a, b).unwrap()),
                Box::new(|k, n, a, b, t| assembly::XChaCha::new(k).open(n, a, b, t).is_ok()),
            ),
        ],
    }
}

fn bytes<const N: usize>(seed: &mut u64) -> [u8; N] {
    std::array::from_fn(|_| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()[0]
    })
}

#[test]
fn both_backends_make_the_same_bytes_and_open_the_other_s() {
    let mut seed = 7;
    for suite in [Suite::Aes256Gcm, Suite::XChaCha20Poly1305] {
        let [(seal, open), (other_seal, other_open)] = backends(suite);
        for len in (0..=300).chain([1023, 1024, 1025, 16_384, 65_537]) {
            let (key, nonce): ([u8; 32], [u8; 24]) = (bytes(&mut seed), bytes(&mut seed));
            let aad: [u8; 97] = bytes(&mut seed);
            let aad = &aad[..len % 98];
            let plain: Vec<u8> = (0..len).map(|_| bytes::<1>(&mut seed)[0]).collect();
            let (mut one, mut other) = (plain.clone(), plain.clone());
            let tag = seal(&key, &nonce, aad, &mut one);
            assert_eq!(tag, other_seal(&key, &nonce, aad, &mut other), "{suite:?}, {len}");
            assert_eq!(one, other, "{suite:?}, {len}");
            assert!(other_open(&key, &nonce, aad, &mut one, &tag) && one == plain);
            assert!(open(&key, &nonce, aad, &mut other, &tag) && other == plain);
        }
    }
}

#[test]
fn both_refuse_what_was_altered_and_leave_no_plaintext() {
    let mut seed = 11;
    for suite in [Suite::Aes256Gcm, Suite::XChaCha20Poly1305] {
        for (seal, open) in backends(suite) {
            let (key, nonce): ([u8; 32], [u8; 24]) = (bytes(&mut seed), bytes(&mut seed));
            let plain = [0x5A; 80];
            let mut sealed = plain;
            let tag = seal(&key, &nonce, b"context", &mut sealed);
            for at in 0..80 + TAG {
                let (mut buffer, mut tag) = (sealed, tag);
                match buffer.get_mut(at) {
                    Some(byte) => *byte ^= 1,
                    None => tag[at - 80] ^= 0x80,
                }
                assert!(!open(&key, &nonce, b"context", &mut buffer, &tag));
                assert!(!buffer.windows(8).any(|part| part == &plain[..8]));
            }
            assert!(!open(&key, &nonce, b"contexu", &mut sealed.clone(), &tag));
            assert!(!open(&key, &[0; 24], b"context", &mut sealed.clone(), &tag));
        }
    }
}
