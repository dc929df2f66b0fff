//! Test vectors: tests/vectors/*.json, one scenario a file. A normal run makes each again and compares the bytes, or,
//! where what is made holds randomness, reads what lies there. `CUSTOMER_VAULT_VECTORS=write` writes them anew: only
//! for a change of the format. `tests/vectors/check.py` reads the same files without any of this code.
#![allow(clippy::arithmetic_side_effects, reason = "tests may overflow: they panic")]

mod batches;
mod cells;
mod chains;
mod keeper;
mod rows;
#[cfg(feature = "tickets")]
mod ticket;
mod token;
mod values;
mod vault;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::error::Error;

/// `N` bytes that count up from `first`.
fn count<const N: usize>(first: u8) -> [u8; N] {
    let mut next = first;
    std::array::from_fn(|_| {
        let byte = next;
        next = next.wrapping_add(1);
        byte
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

fn unhex(text: &Json) -> Vec<u8> {
    let text = text.as_str().unwrap();
    let digit = |c: char| u8::try_from(c.to_digit(16).unwrap()).unwrap();
    let digits: Vec<u8> = text.chars().map(digit).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn array<const N: usize>(text: &Json) -> [u8; N] {
    unhex(text).try_into().unwrap()
}

/// What reading came to.
fn said<T>(result: &Result<T, Error>) -> &'static str {
    result.as_ref().map_or_else(Error::code, |_| "opens")
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(format!("{name}.json"))
}

fn writing() -> bool {
    std::env::var_os("CUSTOMER_VAULT_VECTORS").is_some_and(|how| how == "write")
}

fn read(name: &str) -> Json {
    let text = std::fs::read_to_string(path(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn write(name: &str, vector: &Json) {
    std::fs::write(path(name), format!("{vector:#}\n")).unwrap();
}

/// Compares with the file, byte for byte.
fn check(name: &str, vector: &Json) {
    if writing() {
        write(name, vector);
    }
    let text = std::fs::read_to_string(path(name)).unwrap();
    assert_eq!(text, format!("{vector:#}\n"), "{name}");
}

fn sources(folder: &Path, found: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// From a quote to the next, of what begins like a label.
fn labels(text: &str, before: &str, after: char) -> BTreeSet<String> {
    let begin = format!("{before}customer-vault/");
    text.split(&begin).skip(1).map(|rest| rest.split(after).next().unwrap().to_owned()).collect()
}

#[test]
fn the_specification_lists_every_label_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    let spec = std::fs::read_to_string(root.join("docs/SPEC.md")).unwrap();
    let table = spec.split("## 3. Labels").nth(1).unwrap().split("## 4.").next().unwrap();
    assert_eq!(labels(table, "| `", '`'), labels(&code, "b\"", '"'));
}
