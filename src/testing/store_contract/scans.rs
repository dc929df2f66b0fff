//! What [`Store`] promises of names and of ranges.

use super::{batch, done, fail, page, put, walk};
use crate::store::{Key, MAX_KEY, Page, Range, Store};

/// Names that a store which thinks of text, of C strings or of numbers gets wrong, in ascending order.
fn awkward() -> Vec<Key> {
    let longest = vec![0xFF; MAX_KEY];
    let names: [&[u8]; 13] = [
        b"",
        b"\0",
        b"\0\0",
        b"\0\xFF",
        b"\x01",
        b"A",
        b"a",
        b"a\0",
        b"a\0b",
        b"a ",
        b"ab",
        b"\xC3\x28",
        b"\xFF",
    ];
    names.iter().map(|name| name.to_vec()).chain([b"\xFF\xFF".to_vec(), longest]).collect()
}

pub(super) async fn names_are_bytes<S: Store>(store: &S) {
    let names = awkward();
    let mut all = batch();
    for name in names.iter().rev() {
        all.put(name, name.clone());
    }
    done(store, all).await;
    let rows = store.read(&names).await.unwrap_or_else(|error| fail("a read", error));
    for (name, row) in names.iter().zip(&rows) {
        assert!(row.as_ref().is_some_and(|row| row.value == *name), "the row {name:02X?} is kept apart");
    }
    let (scanned, _) = walk(store, Range::prefix(b""), 100).await;
    assert!(scanned == names, "a scan gives names in the order of their bytes: {scanned:02X?}");
    for limit in [1, 2, 7] {
        let (scanned, _) = walk(store, Range::prefix(b""), limit).await;
        assert!(scanned == names, "pages of {limit} give the same rows as one page");
    }
}

pub(super) async fn scans_page_in_order<S: Store>(store: &S) {
    let names: Vec<Key> = (0..1000_u32).map(|n| n.to_be_bytes().to_vec()).collect();
    for part in names.chunks(250) {
        let mut batch = batch();
        part.iter().rev().for_each(|name| {
            batch.put(name, name.clone());
        });
        done(store, batch).await;
    }
    for limit in [1, 999, 1000, 1001, usize::MAX] {
        let (scanned, pages) = walk(store, Range::prefix(&[]), limit).await;
        assert!(scanned == names, "pages of at most {limit} give every row once, in order");
        assert!(limit > 1 || pages == names.len(), "a page has at most as many rows as asked for");
    }
}

/// From where, to where, and the names that are found.
type Case<'a> = (&'a [u8], &'a [u8], &'a [&'a [u8]]);

pub(super) async fn scans_keep_their_bounds<S: Store>(store: &S) {
    let empty = page(store, Range::prefix(b""), 10).await;
    assert!(empty == Page::default(), "an empty store has one empty page");
    put(store, &[(b"a", b""), (b"b", b""), (b"c", b"")]).await;
    let between = |start: &[u8], end: &[u8]| Range { start: start.to_vec(), end: end.to_vec() };
    let cases: [Case<'_>; 8] = [
        (b"a", b"c", &[b"a", b"b"]),
        (b"a\0", b"c", &[b"b"]),
        (b"", b"a", &[]),
        (b"c", b"c\0", &[b"c"]),
        (b"d", b"z", &[]),
        (b"b", b"b", &[]),
        (b"c", b"a", &[]),
        (b"", b"", &[]),
    ];
    for (start, end, expected) in cases {
        let (scanned, _) = walk(store, between(start, end), 2).await;
        assert!(scanned == expected, "{start:02X?} to {end:02X?}: the start is in it, the end is not");
    }
    let two = page(store, between(b"a", b"c"), 2).await;
    assert!(
        two.next.is_none(),
        "a range that is used up has no next page, whatever comes after it in the store"
    );
}

pub(super) async fn prefixes_end_where_they_should<S: Store>(store: &S) {
    let names: [&[u8]; 8] = [b"a", b"a\0", b"a\xFF", b"a\xFF\xFF", b"b", b"\xFF", b"\xFF\0", b"\xFF\xFF"];
    put(store, &names.map(|name| (name, name))).await;
    let cases: [(&[u8], &[&[u8]]); 7] = [
        (b"", &names),
        (b"a", &[b"a", b"a\0", b"a\xFF", b"a\xFF\xFF"]),
        (b"a\xFF", &[b"a\xFF", b"a\xFF\xFF"]),
        (b"b", &[b"b"]),
        (b"\xFF", &[b"\xFF", b"\xFF\0", b"\xFF\xFF"]),
        (b"\xFF\xFF", &[b"\xFF\xFF"]),
        (b"c", &[]),
    ];
    for (prefix, expected) in cases {
        let (scanned, _) = walk(store, Range::prefix(prefix), 3).await;
        assert!(scanned == expected, "the prefix {prefix:02X?} has these rows and no others");
    }
}
