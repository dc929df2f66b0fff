//! A store in memory, for tests: it is gone with the process.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Batch, CommitError, Expect, Key, MAX_KEY, MAX_VALUE, Moment, Moments, Page, Paging, Range, Store,
    Version, Versioned,
};
use crate::error::StoreError;

/// A page holds at most this many bytes of content, or one row where that is larger: so that a long range of large
/// rows does not have to fit into memory at once.
pub(super) const PAGE_BYTES: usize = 8 << 20;

/// Rows in memory, lost when the last clone is dropped. A clone is another handle on the same rows;
/// [`snapshot`](Self::snapshot) copies them.
#[derive(Clone, Default)]
pub struct MemoryStore {
    rows: Arc<Mutex<BTreeMap<Key, Versioned>>>,
    shared: bool,
}

impl MemoryStore {
    /// Empty, for one vault at a time: [`shared`](Store::shared) is `false`.
    #[must_use]
    pub fn new() -> Self {
        MemoryStore::default()
    }

    /// Empty, and [`shared`](Store::shared) is `true`: clones of it stand for several processes on one database.
    #[must_use]
    pub fn shared_between_handles() -> Self {
        MemoryStore { shared: true, ..MemoryStore::default() }
    }

    /// A copy as of now, which goes its own way from here: an old backup, or a replica that stayed behind.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        MemoryStore { rows: Arc::new(Mutex::new(self.rows().clone())), shared: self.shared }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Key, Versioned>> {
        // Nothing panics between two writes of a batch, so a poisoned lock still guards whole batches.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("rows", &self.rows().len())
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        let rows = self.rows();
        Ok(keys.iter().map(|key| rows.get(key).cloned()).collect())
    }

    async fn scan(&self, range: Range, limit: usize) -> Result<Page, StoreError> {
        Ok(page(&self.rows(), range, limit))
    }

    /// Done when it is called, not when the future is first polled.
    fn commit(&self, batch: Batch) -> impl Future<Output = Result<(), CommitError>> + Send {
        let done = self.apply(batch);
        async move { done }
    }

    fn shared(&self) -> bool {
        self.shared
    }

    async fn moment(&self) -> Moments {
        Ok(Some(Box::new(Copied(self.rows().clone()))))
    }
}

/// Rows that were copied.
struct Copied(BTreeMap<Key, Versioned>);

impl Moment for Copied {
    fn page(&mut self, range: Range, limit: usize) -> Paging<'_> {
        Box::pin(std::future::ready(Ok(page(&self.0, range, limit))))
    }
}

fn page(rows: &BTreeMap<Key, Versioned>, range: Range, limit: usize) -> Page {
    let mut page = Page::default();
    if range.start >= range.end {
        return page;
    }
    let mut bytes: usize = 0;
    for (key, row) in rows.range(range.start..range.end) {
        if is_full(&page, limit, bytes) {
            page.next = Some(key.clone());
            break;
        }
        bytes = bytes.saturating_add(row.value.len());
        page.rows.push((key.clone(), row.clone()));
    }
    page
}

impl MemoryStore {
    fn apply(&self, batch: Batch) -> Result<(), CommitError> {
        within_bounds(&batch)?;
        let mut rows = self.rows();
        if !batch.expect.iter().all(|(key, expect)| holds(*expect, rows.get(key).map(|row| row.version))) {
            return Err(CommitError::Conflict);
        }
        for (key, value) in &batch.writes {
            match value {
                Some(value) => {
                    let row = Versioned { version: batch.version_of(key), value: value.clone() };
                    drop(rows.insert(key.clone(), row));
                }
                None => drop(rows.remove(key)),
            }
        }
        Ok(())
    }
}

/// Whether a row of this version, or none, is what is expected.
pub(super) fn holds(expect: Expect, found: Option<Version>) -> bool {
    match expect {
        Expect::Absent => found.is_none(),
        Expect::Version(version) => found == Some(version),
    }
}

/// Whether a page takes no further row. A limit of 0 counts as 1, so that paging always moves.
pub(super) fn is_full(page: &Page, limit: usize, bytes: usize) -> bool {
    !page.rows.is_empty() && (page.rows.len() >= limit || bytes >= PAGE_BYTES)
}

/// Refuses names and contents that are longer than a store has to take.
pub(super) fn within_bounds(batch: &Batch) -> Result<(), StoreError> {
    let keys = batch.expect.iter().map(|(key, _)| key).chain(batch.writes.iter().map(|(key, _)| key));
    let values = batch.writes.iter().filter_map(|(_, value)| value.as_ref());
    if keys.map(Vec::len).any(|len| len > MAX_KEY) || values.map(Vec::len).any(|len| len > MAX_VALUE) {
        return Err(StoreError::Io(io::ErrorKind::InvalidInput));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_content() {
        let store = MemoryStore::new();
        let mut batch = Batch::new().unwrap();
        batch.put(b"canary-name", b"canary-value".to_vec());
        pollster::block_on(store.commit(batch)).unwrap();
        let text = format!("{store:?}");
        assert!(!text.contains("canary") && !text.contains("99"), "{text}");
    }

    #[test]
    fn a_clone_shares_and_a_snapshot_does_not() {
        let store = MemoryStore::shared_between_handles();
        let (clone, old) = (store.clone(), store.snapshot());
        let mut batch = Batch::new().unwrap();
        batch.put(b"a", vec![1]);
        pollster::block_on(store.commit(batch)).unwrap();
        let key = [b"a".to_vec()];
        assert!(pollster::block_on(clone.read(&key)).unwrap()[0].is_some());
        assert!(pollster::block_on(old.read(&key)).unwrap()[0].is_none());
        assert!(old.shared() && clone.shared() && !MemoryStore::new().shared());
    }
}
