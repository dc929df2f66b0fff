//! What is absent from the source: invariant 2, by looking at it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// Files of `src` outside tests whose code names one of `words`.
fn naming(words: &[&str]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut naming = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
        let is_test = name.ends_with("tests.rs") || name.contains("/tests/") || name.starts_with("vectors");
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let names = code.lines().any(|line| {
            let line = line.trim_start();
            !line.starts_with("//") && words.iter().any(|word| line.contains(word))
        });
        if names && !is_test {
            naming.push(name);
        }
    }
    naming.sort();
    naming
}

#[test]
fn only_one_module_names_an_aead() {
    assert_eq!(naming(&["aes_gcm", "chacha20poly1305"]), ["crypto/aead/portable.rs"]);
    assert_eq!(naming(&["ring::aead", "chacha20::"]), ["crypto/aead/assembly.rs"]);
    // The first seals envelopes; the last asks a token for the mechanism of that name: the cipher runs inside it.
    let named = ["crypto/aead.rs", "crypto/aead/portable.rs", "keeper/pkcs11/objects.rs"];
    assert_eq!(naming(&["AesGcm"]), named);
}

#[test]
fn only_crypto_names_the_primitive_crates() {
    let words = ["sha2::", "hmac::", "hkdf::", "argon2::", "ed25519_dalek", "ctutils", "rand::"];
    assert_eq!(naming(&words), ["crypto.rs"]);
    assert_eq!(naming(&["hpke::"]), ["crypto/aead.rs", "crypto/envelope.rs"]);
}

#[test]
fn only_the_clock_reads_the_clock() {
    let words = ["SystemTime::now", "Instant::now", "Zoned::now", "Timestamp::now"];
    assert_eq!(naming(&words), ["clock.rs"]);
}

#[test]
fn every_label_of_a_derivation_is_used_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut labels = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with("tests.rs") && !file.ends_with("vectors.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for line in
            text.lines().filter(|line| line.contains("const ") && line.contains("b\"customer-vault/v1/"))
        {
            labels.push(line.split("b\"").nth(1).unwrap().split('"').next().unwrap().to_owned());
        }
    }
    let all = labels.len();
    labels.sort();
    labels.dedup();
    assert!(all > 10);
    assert_eq!(labels.len(), all, "two constants share a label");
}
