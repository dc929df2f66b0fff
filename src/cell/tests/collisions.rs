//! ABUSE 11: a body that is valid under two keys, for each cipher, and what the zeros before the values do about it.
//!
//! Both authenticators are polynomials over the ciphertext: with both keys known, one block of it can be chosen so that
//! the tags agree (Len, Grubbs, Ristenpart: "Partitioning Oracle Attacks", USENIX Security 2021).

use super::{SUITES, cipher, context};
use crate::cell::{Cell, MAX_AAD};
use crate::context::Aad;
use crate::crypto::aead::{self, Suite, TAG};
use crate::error::{Error, Result};

/// Two purposes on one day, and one field.
const HEADER_REST: &[u8] = &[0, 1, 1, 2, 2, 0, 1, 0, 2, 0, 3, 0, 2];
const KEYS: [[u8; 32]; 2] = [[0x11; 32], [0x22; 32]];
const SEAL: [u8; 16] = [0x33; 16];

fn header(suite: Suite) -> Vec<u8> {
    [&[suite.number()], HEADER_REST].concat()
}

fn authenticated(suite: Suite) -> Vec<u8> {
    let mut room = [0; MAX_AAD];
    let mut aad = Aad::new(&mut room, &context(&[7])).unwrap();
    aad.after_context(&[&header(suite)]).unwrap();
    aad.bytes().to_vec()
}

/// What a key makes of zeros: the bytes to which a plaintext is added.
fn stream(suite: Suite, key: &[u8; 32], len: usize) -> Vec<u8> {
    let mut zeros = vec![0; len];
    aead::seal_once(suite, key, &[], &mut zeros).unwrap();
    zeros
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

/// A ciphertext whose plaintext under the first key begins with `plain`, its last block free, and one tag for both keys.
fn valid_under_both(suite: Suite, plain: &[u8]) -> (Vec<u8>, [u8; TAG]) {
    assert_eq!(plain.len() % 16, 0);
    let aad = authenticated(suite);
    for salt in 0_u8.. {
        // The byte before the free block is free as well: one in a few has a solution for Poly1305.
        let mut plain = plain.to_vec();
        *plain.last_mut().unwrap() = salt;
        let mut ciphertext = xor(&plain, &stream(suite, &KEYS[0], plain.len()));
        let found = match suite {
            Suite::Aes256Gcm => Some(gcm::last_block(&aad, &ciphertext)),
            Suite::XChaCha20Poly1305 => poly::last_block(&aad, &ciphertext),
        };
        if let Some((block, tag)) = found {
            ciphertext.extend(block);
            return (ciphertext, tag);
        }
    }
    panic!("no solution");
}

fn decrypted(suite: Suite, key: &[u8; 32], ciphertext: &[u8], tag: &[u8; TAG]) -> Result<Vec<u8>> {
    let mut buffer = ciphertext.to_vec();
    aead::open_once(suite, key, &authenticated(suite), &mut buffer, tag)?;
    Ok(buffer)
}

/// A cell whose two lockboxes hold two content keys.
fn cell(suite: Suite, keys: [&[u8; 32]; 2], body: &[u8], tag: &[u8; TAG]) -> Vec<u8> {
    let mut bytes = [header(suite), SEAL.to_vec()].concat();
    for (purpose, key) in [(1_u16, keys[0]), (3, keys[1])] {
        let mut room = [0; MAX_AAD];
        let mut aad = Aad::new(&mut room, &context(&[7])).unwrap();
        aad.after_context(&[&SEAL, &purpose.to_be_bytes(), &[0, 2]]).unwrap();
        let mut key = *key;
        let tag = cipher(suite, purpose, 2).seal(&SEAL, aad.bytes(), &mut key).unwrap();
        bytes.extend(key);
        bytes.extend(tag);
    }
    [&bytes, body, tag].concat()
}

fn open(bytes: &[u8], purpose: u16) -> Result<Vec<u8>> {
    let cell = Cell::parse(bytes)?;
    cell.open(&context(&[7]), purpose, &cipher(cell.suite, purpose, 2), |values| Ok(values.to_vec()))
}

#[test]
fn abuse_11_without_the_zeros_a_body_opens_under_two_keys() {
    for suite in SUITES {
        let (ciphertext, tag) = valid_under_both(suite, b"for the shipping clerk's eyes...");
        let both = KEYS.map(|key| decrypted(suite, &key, &ciphertext, &tag).unwrap());
        assert_ne!(both[0], both[1], "{suite:?}");
        assert!(both[0].starts_with(b"for the shipping clerk's eyes.."));
        assert!(decrypted(suite, &[0x44; 32], &ciphertext, &tag).is_err());
    }
}

#[test]
fn abuse_11_with_the_zeros_one_of_the_two_purposes_is_refused() {
    for suite in SUITES {
        let (ciphertext, tag) =
            valid_under_both(suite, &[[0; 32], *b"for the shipping clerk's eyes..."].concat());
        for key in &KEYS {
            assert!(decrypted(suite, key, &ciphertext, &tag).is_ok(), "the cipher does not see it");
        }
        let bytes = cell(suite, [&KEYS[0], &KEYS[1]], &ciphertext, &tag);
        assert!(open(&bytes, 1).unwrap().starts_with(b"for the shipping"));
        assert_eq!(open(&bytes, 3).unwrap_err(), Error::DoesNotOpen);
        // The same cell with one key in both lockboxes is a good one.
        let honest = cell(suite, [&KEYS[0], &KEYS[0]], &ciphertext, &tag);
        assert_eq!(open(&honest, 1), open(&honest, 3));
        assert!(open(&honest, 3).is_ok());
    }
}

/// GHASH, by NIST SP 800-38D: blocks are polynomials over GF(2), the first bit the lowest power.
mod gcm {
    use super::{KEYS, Suite, TAG, aead};

    const ONE: u128 = 1 << 127;

    fn mul(x: u128, mut y: u128) -> u128 {
        let mut z = 0;
        for bit in (0..128).rev() {
            if x >> bit & 1 == 1 {
                z ^= y;
            }
            y = if y & 1 == 1 { (y >> 1) ^ (0xE1 << 120) } else { y >> 1 };
        }
        z
    }

    /// To the power of 2^128 - 2.
    fn inverse(x: u128) -> u128 {
        let (mut power, mut out) = (x, ONE);
        for _ in 1..128 {
            power = mul(power, power);
            out = mul(out, power);
        }
        out
    }

    /// The hash key, and what is added to the hash, found through the cipher itself.
    fn of_key(key: &[u8; 32]) -> (u128, u128) {
        let tag =
            |aad: &[u8]| u128::from_be_bytes(aead::seal_once(Suite::Aes256Gcm, key, aad, &mut []).unwrap());
        // The hash of nothing is zero; that of a zero block is its length times the key.
        let mask = tag(&[]);
        (mul(tag(&[0; 16]) ^ mask, inverse(128 << 64)), mask)
    }

    fn blocks(bytes: &[u8]) -> Vec<u128> {
        let block = |chunk: &[u8]| {
            let mut block = [0; 16];
            block[..chunk.len()].copy_from_slice(chunk);
            u128::from_be_bytes(block)
        };
        bytes.chunks(16).map(block).collect()
    }

    fn hash(key: u128, aad: &[u8], ciphertext: &[u8]) -> u128 {
        let bits = |bytes: &[u8]| u128::try_from(bytes.len()).unwrap() * 8;
        let lengths = bits(aad) << 64 | bits(ciphertext);
        let all = blocks(aad).into_iter().chain(blocks(ciphertext)).chain([lengths]);
        all.fold(0, |hash, block| mul(hash ^ block, key))
    }

    pub(super) fn last_block(aad: &[u8], ciphertext: &[u8]) -> ([u8; 16], [u8; TAG]) {
        let whole = [ciphertext, &[0; 16]].concat();
        let [(first, rest1), (second, rest2)] = KEYS.map(|key| {
            let (key, mask) = of_key(&key);
            (key, hash(key, aad, &whole) ^ mask)
        });
        let (first, second) = (mul(first, first), mul(second, second));
        let block = mul(rest1 ^ rest2, inverse(first ^ second));
        (block.to_be_bytes(), (rest1 ^ mul(block, first)).to_be_bytes())
    }
}

/// Poly1305 under `XChaCha20`, by RFC 8439 and draft-irtf-cfrg-xchacha-03.
mod poly {
    use super::{KEYS, TAG};

    /// A number below 2^130 - 5: how often 2^128, and the rest.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Number(u128, u128);

    const FIVE_BELOW: u128 = u128::MAX - 4;

    impl Number {
        fn reduced(self) -> Self {
            let Number(mut high, mut low) = self;
            while high > 3 || (high == 3 && low >= FIVE_BELOW) {
                let (less, borrow) = low.overflowing_sub(FIVE_BELOW);
                (high, low) = (high - 3 - u128::from(borrow), less);
            }
            Number(high, low)
        }

        fn plus(self, other: Self) -> Self {
            let (low, carry) = self.1.overflowing_add(other.1);
            Number(self.0 + other.0 + u128::from(carry), low).reduced()
        }

        fn minus(self, other: Self) -> Self {
            let (mut low, borrow) = FIVE_BELOW.overflowing_sub(other.1);
            let mut high = 3 - u128::from(borrow) - other.0;
            let carry;
            (low, carry) = low.overflowing_add(self.1);
            high += self.0 + u128::from(carry);
            Number(high, low).reduced()
        }

        fn bit(self, at: u32) -> bool {
            let part = if at < 128 { self.1 >> at } else { self.0 >> (at - 128) };
            part & 1 == 1
        }

        fn times(self, other: Self) -> Self {
            let mut out = Number(0, 0);
            for at in (0..130).rev() {
                out = out.plus(out);
                if self.bit(at) {
                    out = out.plus(other);
                }
            }
            out
        }

        /// To the power of 2^130 - 7.
        fn inverse(self) -> Self {
            let power = Number(3, FIVE_BELOW - 2);
            let mut out = Number(0, 1);
            for at in (0..130).rev() {
                out = out.times(out);
                if power.bit(at) {
                    out = out.times(self);
                }
            }
            out
        }
    }

    fn rounds(state: &mut [u32; 16]) {
        let mut quarter = |a: usize, b: usize, c: usize, d: usize| {
            for (x, y, z, by) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
                state[x] = state[x].wrapping_add(state[y]);
                state[z] = (state[z] ^ state[x]).rotate_left(by);
            }
        };
        for _ in 0..10 {
            (0..4).for_each(|n| quarter(n, n + 4, n + 8, n + 12));
            (0..4).for_each(|n| quarter(n, 4 + (n + 1) % 4, 8 + (n + 2) % 4, 12 + (n + 3) % 4));
        }
    }

    fn state(key: &[u32]) -> [u32; 16] {
        let mut state = [0; 16];
        state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646E, 0x7962_2D32, 0x6B20_6574]);
        state[4..12].copy_from_slice(key);
        state
    }

    /// The two halves of the one-time key: of nonce zero, in block zero.
    fn of_key(key: &[u8; 32]) -> (Number, u128) {
        let words: Vec<u32> =
            key.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        let mut inner = state(&words);
        rounds(&mut inner);
        let subkey = [&inner[..4], &inner[12..]].concat();
        let mut block = state(&subkey);
        rounds(&mut block);
        let half = |from: usize| {
            let first = state(&subkey);
            let words = (from..from + 4).rev();
            words.fold(0_u128, |n, at| n << 32 | u128::from(block[at].wrapping_add(first[at])))
        };
        (Number(0, half(0) & 0x0FFF_FFFC_0FFF_FFFC_0FFF_FFFC_0FFF_FFFF), half(4))
    }

    fn blocks(bytes: &[u8]) -> Vec<Number> {
        let block = |chunk: &[u8]| {
            let mut block = [0; 16];
            block[..chunk.len()].copy_from_slice(chunk);
            Number(1, u128::from_le_bytes(block))
        };
        bytes.chunks(16).map(block).collect()
    }

    fn sum(key: Number, aad: &[u8], ciphertext: &[Number]) -> Number {
        let bytes = u128::try_from(ciphertext.len() * 16).unwrap();
        let lengths = Number(1, bytes << 64 | u128::try_from(aad.len()).unwrap());
        let all = blocks(aad).into_iter().chain(ciphertext.iter().copied()).chain([lengths]);
        all.fold(Number(0, 0), |sum, block| sum.plus(block).times(key))
    }

    fn tag((key, pad): (Number, u128), aad: &[u8], ciphertext: &[Number]) -> [u8; TAG] {
        sum(key, aad, ciphertext).1.wrapping_add(pad).to_le_bytes()
    }

    pub(super) fn last_block(aad: &[u8], ciphertext: &[u8]) -> Option<([u8; 16], [u8; TAG])> {
        let keys = KEYS.map(|key| of_key(&key));
        let mut whole = blocks(ciphertext);
        // Without the block at all, not even its length bit.
        whole.push(Number(0, 0));
        let at = whole.len() - 1;
        let [rest1, rest2] = keys.map(|(key, _)| sum(key, aad, &whole));
        let by = keys[0].0.times(keys[0].0).minus(keys[1].0.times(keys[1].0)).inverse();
        let pads = Number(0, keys[1].1).minus(Number(0, keys[0].1));
        // Tags drop what is above 2^128: the sums may differ by a few of it.
        for over in 0..4 {
            for pads in [pads.plus(Number(over, 0)), pads.minus(Number(over, 0))] {
                let block = rest2.minus(rest1).plus(pads).times(by);
                whole[at] = block;
                let tags = keys.map(|key| tag(key, aad, &whole));
                if block.0 == 1 && tags[0] == tags[1] {
                    return Some((block.1.to_le_bytes(), tags[0]));
                }
            }
        }
        None
    }
}
