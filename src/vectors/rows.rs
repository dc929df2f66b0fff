//! Wrapped rows.

use serde_json::json;
use zeroize::Zeroizing;

use super::{check, count, hex, said};
use crate::crypto::aead::Suite;
use crate::keeper::VaultId;
use crate::key::{Node, Secret, label};
use crate::row::{Part, Plain, Row, wrap};
use crate::wire::{Put as _, length};

/// What `wrap` makes, with a serial that is given.
fn wrap_with(serial: &[u8; 16], suite: Suite, name: &[u8], above: u64, plain: &Plain) -> Vec<u8> {
    let parent = node().parent(suite);
    let mut row = vec![1, suite.number()];
    row.put_u64(above);
    row.put_u64(plain.generation);
    row.put(serial);
    row.put_u16(u16::try_from(plain.parts.len()).unwrap());
    for (part, bytes) in &plain.parts {
        row.put_u8(part.kind);
        row.put_u16(part.generation);
        row.put_u16(part.purpose);
        row.put_u32(length(bytes));
    }
    let header = row.clone();
    for (index, (_, bytes)) in plain.parts.iter().enumerate() {
        let mut aad = Vec::new();
        aad.put_bytes(label::ROW);
        aad.put(vault().bytes());
        aad.put_bytes(name);
        aad.put_bytes(&header);
        aad.put_u16(u16::try_from(index).unwrap());
        let nonce = parent.nonce.tag(&[&length(&aad).to_be_bytes(), &aad, bytes]);
        aad.put(&nonce);
        let mut sealed = bytes.to_vec();
        let tag = parent.cipher.seal(&nonce, &aad, &mut sealed).unwrap();
        row.extend([&nonce[..], &sealed, &tag].concat());
    }
    row
}

fn vault() -> VaultId {
    VaultId(count(0x10))
}

fn node() -> Secret<Node> {
    Secret::from_slice(&count::<32>(0xE0)).unwrap()
}

const NAME: &[u8] = b"s\x01\x02\x0a\x0f0123456789abcdef";

fn plain() -> Plain {
    let part = |kind, generation, purpose, bytes: &[u8]| {
        (Part { kind, generation, purpose }, Zeroizing::new(bytes.to_vec()))
    };
    Plain { generation: 0, parts: vec![part(1, 0, 0, b"meta"), part(3, 1, 1, &count::<32>(0x40))] }
}

#[test]
fn rows() {
    for (suite, name) in
        [(Suite::Aes256Gcm, "row-aes-256-gcm"), (Suite::XChaCha20Poly1305, "row-xchacha20-poly1305")]
    {
        let made = wrap(&node().parent(suite), &vault(), NAME, 5, &plain()).unwrap();
        let serial: [u8; 16] = made[18..34].try_into().unwrap();
        assert_eq!(made, wrap_with(&serial, suite, NAME, 5, &plain()), "this is how the crate wraps");
        vector(
            name,
            "A row of two parts.",
            suite,
            NAME,
            &wrap_with(&count(0xB0), suite, NAME, 5, &plain()),
            "opens",
        );
    }
    let suite = Suite::Aes256Gcm;
    let row = wrap_with(&count(0xB0), suite, NAME, 5, &plain());
    let other = b"s\x01\x02\x0a\x0f0123456789abcdeg";
    vector("row-of-another-name", "The row of another subject.", suite, other, &row, "does-not-open");
    let mut moved = row.clone();
    moved[9] ^= 1;
    vector(
        "row-altered-parent",
        "The row names another generation of its parent.",
        suite,
        NAME,
        &moved,
        "does-not-open",
    );
    let mut unknown = row.clone();
    unknown[1] = 4;
    vector("row-unknown-suite", "Suite 4, which is reserved.", suite, NAME, &unknown, "unsupported");
    let mut nonce = row.clone();
    // Header of 36 + 2 * 9 bytes, then 16 of nonce.
    nonce[54 + 15] ^= 1;
    vector(
        "row-altered-nonce",
        "A byte of the nonce that AES-256-GCM does not take is altered.",
        suite,
        NAME,
        &nonce,
        "does-not-open",
    );
}

fn vector(file: &str, show: &str, suite: Suite, name: &[u8], row: &[u8], result: &str) {
    let opened = Row::parse(row).and_then(|row| row.open_all(&node().parent(suite), &vault(), name));
    assert_eq!(said(&opened), result, "{file}");
    let mut vector = json!({
        "show": show,
        "kind": "row",
        "vault": hex(vault().bytes()),
        "parent_key": hex(node().expose()),
        "name": hex(name),
        "row": hex(row),
        "result": result,
    });
    if let Ok(plain) = opened {
        let parts: Vec<_> = plain
            .parts
            .iter()
            .map(|(part, bytes)| {
                json!({
                    "kind": part.kind,
                    "generation": part.generation,
                    "purpose": part.purpose,
                    "plaintext": hex(bytes),
                })
            })
            .collect();
        vector["parent_generation"] = json!(5);
        vector["serial"] = json!(hex(&count::<16>(0xB0)));
        vector["parts"] = json!(parts);
    }
    check(file, &vector);
}
