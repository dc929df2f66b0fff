//! The primitive operations of one seal and one open, with everything ready that a handle keeps ready, on buffers that are
//! there. For each cell that is a hedge (HMAC-SHA-256 over what is authenticated and the plaintext), a second one, a wrap of
//! 32 bytes for each lockbox, the content key's schedule, and the body. Opening does one unwrap, the schedule and the body,
//! and takes a buffer from the heap for each value.

use std::hint::black_box;

use aes_gcm::AesGcm;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce, Tag};
use aes_gcm::aes::Aes256Enc;
use aes_gcm::aes::cipher::consts::U12;
use chacha20poly1305::XChaCha20Poly1305;
use customer_vault::Suite;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

const COMMITMENT: usize = 32;
const SEAL_ID: usize = 16;
const LOCKBOX: usize = 48;
/// label, vault, serial and shape, and six lengths of two bytes.
const CONTEXT: usize = 25 + 16 + 16 + 1 + 6 * 2;

/// With the key schedule of encryption alone, as the vault has it: GCM needs no other.
pub type Aes256Gcm = AesGcm<Aes256Enc, U12>;

/// A cipher as the vault uses it.
pub trait Primitive {
    const SUITE: Suite;
    const NAME: &str;
    fn prepare(key: &[u8; 32]) -> Self;
    fn seal(&self, nonce: &[u8; 16], aad: &[u8], buffer: &mut [u8]) -> [u8; 16];
    fn open(&self, nonce: &[u8; 16], aad: &[u8], buffer: &mut [u8], tag: &[u8; 16]);
}

macro_rules! primitive {
    ($cipher:ident, $name:literal) => {
        impl Primitive for $cipher {
            const SUITE: Suite = Suite::$cipher;
            const NAME: &str = $name;
            fn prepare(key: &[u8; 32]) -> Self {
                Self::new(key.into())
            }
            fn seal(&self, seal_id: &[u8; 16], aad: &[u8], buffer: &mut [u8]) -> [u8; 16] {
                let nonce = nonce::<Self>(seal_id);
                self.encrypt_inout_detached(&nonce, aad, InOutBuf::from(buffer)).unwrap().into()
            }
            fn open(&self, seal_id: &[u8; 16], aad: &[u8], buffer: &mut [u8], tag: &[u8; 16]) {
                let (nonce, tag) = (nonce::<Self>(seal_id), Tag::<Self>::from(*tag));
                self.decrypt_inout_detached(&nonce, aad, InOutBuf::from(buffer), &tag).unwrap();
            }
        }
    };
}

primitive!(Aes256Gcm, "AES-256-GCM");
primitive!(XChaCha20Poly1305, "XChaCha20-Poly1305");

fn nonce<C: AeadInOut>(seal_id: &[u8; 16]) -> Nonce<C> {
    let mut nonce = Nonce::<C>::default();
    let length = nonce.len().min(16);
    nonce[..length].copy_from_slice(&seal_id[..length]);
    nonce
}

/// A cell to be.
#[derive(Clone)]
pub struct Plan {
    pub lockboxes: usize,
    /// The encoded length of each value.
    pub values: Vec<usize>,
    /// Which lockbox the purpose opens, where it has one here.
    pub opened_by: Option<usize>,
}

impl Plan {
    /// Each value behind its length plus one, as a varint.
    fn plaintext(&self) -> usize {
        self.values.iter().map(|value| value + varint(value + 1)).sum()
    }

    /// suite, generation, number of fields, one byte for each, number of lockboxes, four bytes for each.
    fn header(&self) -> usize {
        1 + 2 + 1 + self.values.len() + 1 + 4 * self.lockboxes
    }

    fn sealed(&self) -> usize {
        self.header() + SEAL_ID + self.lockboxes * LOCKBOX + COMMITMENT + self.plaintext() + 16
    }
}

/// The bytes that a sealed value of these cells has.
pub fn sealed_len(cells: &[Plan]) -> usize {
    1 + cells.iter().map(|cell| cell.sealed() + varint(cell.sealed())).sum::<usize>()
}

fn varint(number: usize) -> usize {
    1 + (number.max(1).ilog2() / 7) as usize
}

pub struct Bare<P> {
    cells: Vec<Ready<P>>,
}

/// What a handle keeps of a cell.
struct Ready<P> {
    plan: Plan,
    hedge: Hmac<Sha256>,
    second_hedge: Hmac<Sha256>,
    wraps: Vec<P>,
    hedged: Vec<u8>,
    plaintext: Vec<u8>,
    lock_aad: Vec<u8>,
    body_aad: Vec<u8>,
}

/// A cell that was sealed.
struct Done {
    seal_id: [u8; SEAL_ID],
    locks: Vec<([u8; 32], [u8; 16])>,
    body: Vec<u8>,
    tag: [u8; 16],
}

/// Buffers for sealed cells, and one for opening.
pub struct Room {
    cells: Vec<Done>,
    opened: Vec<u8>,
}

impl<P: Primitive> Bare<P> {
    /// `names` is the length of the record's label and of its id together.
    pub fn new(cells: &[Plan], names: usize) -> Self {
        let ready = |plan: &Plan| {
            let (context, header) = (CONTEXT + names, plan.header());
            Ready {
                hedge: Hmac::new_from_slice(&[1; 32]).unwrap(),
                second_hedge: Hmac::new_from_slice(&[2; 32]).unwrap(),
                wraps: (0..plan.lockboxes).map(|of| P::prepare(&[3 + of as u8; 32])).collect(),
                // Prefix and counter; context, header and plaintext behind their lengths of four bytes.
                hedged: vec![5; 16 + 8 + 4 + context + 4 + header + 4],
                plaintext: vec![6; COMMITMENT + plan.plaintext()],
                lock_aad: vec![7; context + SEAL_ID + 4],
                body_aad: vec![8; context + header],
                plan: plan.clone(),
            }
        };
        Bare { cells: cells.iter().map(ready).collect() }
    }

    /// With sealed cells in it.
    pub fn room(&self) -> Room {
        let done = |cell: &Ready<P>| Done {
            seal_id: [0; _],
            locks: vec![([0; 32], [0; 16]); cell.plan.lockboxes],
            body: vec![0; cell.plaintext.len()],
            tag: [0; 16],
        };
        let most = self.cells.iter().map(|cell| cell.plaintext.len()).max().unwrap_or_default();
        let mut room = Room { cells: self.cells.iter().map(done).collect(), opened: vec![0; most] };
        self.seal(&mut room);
        room
    }

    pub fn seal(&self, into: &mut Room) {
        for (cell, done) in self.cells.iter().zip(&mut into.cells) {
            let content = cell.hedge.clone().chain_update(&cell.hedged);
            let content = content.chain_update(&cell.plaintext[COMMITMENT..]);
            let content: [u8; 32] = content.finalize().into_bytes().into();
            let second = cell.second_hedge.clone().chain_update(content);
            let second: [u8; 32] = second.finalize().into_bytes().into();
            done.seal_id = *second.first_chunk().unwrap();
            for (wrap, (key, tag)) in cell.wraps.iter().zip(&mut done.locks) {
                *key = content;
                *tag = wrap.seal(&done.seal_id, &cell.lock_aad, key);
            }
            done.body.copy_from_slice(&cell.plaintext);
            done.tag = P::prepare(&content).seal(&[0; 16], &cell.body_aad, &mut done.body);
        }
        black_box(into);
    }

    pub fn open(&self, from: &mut Room) {
        let Room { cells, opened } = from;
        for (cell, done) in self.cells.iter().zip(cells) {
            let Some(index) = cell.plan.opened_by else { continue };
            let (mut content, tag) = done.locks[index];
            cell.wraps[index].open(&done.seal_id, &cell.lock_aad, &mut content, &tag);
            let body = &mut opened[..done.body.len()];
            body.copy_from_slice(&done.body);
            P::prepare(&content).open(&[0; 16], &cell.body_aad, body, &done.tag);
            let mut at = COMMITMENT;
            // All live until the end, as the values of a view do; the vector is none of theirs, and small.
            let mut values: [Vec<u8>; 8] = Default::default();
            for (len, value) in cell.plan.values.iter().zip(&mut values) {
                at += varint(len + 1);
                *value = body[at..at + len].to_vec();
                at += len;
            }
            black_box(values);
        }
    }
}

/// The MACs of verifying a token: over its head, and for each narrowing a key's schedule and a MAC over its block.
pub struct BareToken {
    key: Hmac<Sha256>,
    head: Vec<u8>,
    blocks: Vec<Vec<u8>>,
    /// Whether subjects are named in the head: their key is one MAC and a schedule more.
    hints: bool,
}

impl BareToken {
    /// `text` is a token's.
    pub fn of(text: &str, hints: bool) -> Self {
        let bytes = decoded(text);
        let (mut rest, mut blocks) = (&bytes[1..bytes.len() - 32], Vec::new());
        while !rest.is_empty() {
            let (mut len, mut shift) = (0, 0);
            while let Some((byte, after)) = rest.split_first() {
                rest = after;
                len |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let (block, after) = rest.split_at(len);
            blocks.push(block.to_vec());
            rest = after;
        }
        let head = [vec![1; 28 + 16], blocks.remove(0)].concat();
        let blocks = blocks.into_iter().map(|block| [vec![2; 30], block].concat()).collect();
        BareToken { key: Hmac::new_from_slice(&[3; 32]).unwrap(), head, blocks, hints }
    }

    pub fn verify(&self) {
        let mut mac: [u8; 32] = self.key.clone().chain_update(&self.head).finalize().into_bytes().into();
        for block in &self.blocks {
            let level = Hmac::<Sha256>::new_from_slice(&mac).unwrap();
            mac = level.chain_update(block).finalize().into_bytes().into();
        }
        if self.hints {
            let hints = self.key.clone().chain_update([4; 29 + 16]).finalize().into_bytes();
            black_box(Hmac::<Sha256>::new_from_slice(&hints).unwrap());
        }
        black_box(mac);
    }
}

/// What a token's text holds: base64url behind its prefix.
fn decoded(text: &str) -> Vec<u8> {
    let text = text.split_once('.').unwrap().1;
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => panic!("a token is base64url"),
    };
    let (mut out, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for c in text.bytes() {
        bits = (bits << 6) | u32::from(digit(c));
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    out
}
