//! What somebody sees who has stolen the file of the store.

use std::collections::HashMap;
use std::path::Path;

use redb::{ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition};

use crate::report::hexdump;

/// Opens a copy of the file with the tools that anyone has, and shows one row of the largest.
pub fn look(stolen: &Path) -> crate::Fallible<()> {
    let database = redb::Database::open(stolen)?;
    let read = database.begin_read()?;
    let rows = read.open_table(TableDefinition::<&[u8], &[u8]>::new("rows"))?;
    let mut largest = (Vec::new(), Vec::new());
    for row in rows.iter()?.take(200_000) {
        let (name, value) = row?;
        if value.value().len() > largest.1.len() && name.value().first() == Some(&b'v') {
            largest = (name.value().to_vec(), value.value().to_vec());
        }
    }
    println!("  {} rows, and this is one of them, {} bytes long:\n", rows.len()?, largest.1.len());
    hexdump(&largest.1, 6);
    Ok(())
}

/// Looks for known values of customers in a file: how many of them occur, of how many.
pub fn search(haystack: &[u8], known: &[String]) -> (usize, usize) {
    // By their first four bytes, so that the file is read once.
    let mut needles: HashMap<[u8; 4], Vec<&[u8]>> = HashMap::new();
    let mut pairs = vec![false; 1 << 16];
    for needle in known.iter().map(String::as_bytes).filter(|needle| needle.len() >= 6) {
        if let Some(start) = needle.first_chunk() {
            needles.entry(*start).or_default().push(needle);
            mark(&mut pairs, *start);
        }
    }
    let (looked_for, mut hits) = (needles.values().map(Vec::len).sum(), 0_usize);
    let mut rest = haystack;
    while let Some(start) = rest.first_chunk::<4>() {
        if pairs.get(usize::from(pair(*start))) == Some(&true)
            && let Some(candidates) = needles.get_mut(start)
        {
            let before = candidates.len();
            candidates.retain(|needle| !rest.starts_with(needle));
            hits = hits.saturating_add(before.saturating_sub(candidates.len()));
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    (hits, looked_for)
}

fn pair([a, b, ..]: [u8; 4]) -> u16 {
    u16::from_be_bytes([a, b])
}

fn mark(pairs: &mut [bool], start: [u8; 4]) {
    if let Some(known) = pairs.get_mut(usize::from(pair(start))) {
        *known = true;
    }
}
