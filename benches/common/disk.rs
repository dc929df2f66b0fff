//! Stores on the disk: one that says what its commits took, and redb alone.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use customer_vault::error::StoreError;
use customer_vault::store::{
    Batch, CommitError, Key, Moments, Page, Range, RedbStore, Store, Versioned, Volume,
};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

/// A folder below `DIR` or the machine's one for temporary files, gone at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let dir = std::env::var_os("DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = dir.join(format!("customer-vault-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Folder(dir)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Bytes of a file in it.
    pub fn size(&self, name: &str) -> u64 {
        std::fs::metadata(self.join(name)).unwrap().len()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The crate's store on redb, which says how long its commits took, and keeps what it was asked for. Clones are the same.
#[derive(Clone, Debug)]
pub struct Clocked(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: RedbStore,
    in_commits: AtomicU64,
    seen: Mutex<Option<Seen>>,
}

/// What the store was asked for.
#[derive(Debug, Default)]
pub struct Seen {
    pub reads: Vec<Vec<Key>>,
    pub commits: Vec<Batch>,
}

impl Clocked {
    pub fn new(path: &Path) -> Self {
        let store = RedbStore::create(path).unwrap();
        Clocked(Arc::new(Inner { store, in_commits: AtomicU64::new(0), seen: Mutex::default() }))
    }

    pub fn inner(&self) -> &RedbStore {
        &self.0.store
    }

    /// How long the work took beyond its commits, which must not overlap.
    pub fn beyond_commits<T>(&self, work: impl FnOnce() -> T) -> Duration {
        let before = self.0.in_commits.load(Ordering::Relaxed);
        let start = Instant::now();
        drop(work());
        let took = start.elapsed();
        took - Duration::from_nanos(self.0.in_commits.load(Ordering::Relaxed) - before)
    }

    /// What the work asked for.
    pub fn seen(&self, work: impl FnOnce()) -> Seen {
        *self.0.seen.lock().unwrap() = Some(Seen::default());
        work();
        self.0.seen.lock().unwrap().take().unwrap()
    }
}

impl Store for Clocked {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        if let Some(seen) = self.0.seen.lock().unwrap().as_mut() {
            seen.reads.push(keys.to_vec());
        }
        self.0.store.read(keys).await
    }

    async fn scan(&self, range: Range, limit: usize) -> Result<Page, StoreError> {
        self.0.store.scan(range, limit).await
    }

    fn commit(&self, batch: Batch) -> impl Future<Output = Result<(), CommitError>> + Send {
        if let Some(seen) = self.0.seen.lock().unwrap().as_mut() {
            seen.commits.push(batch.clone());
        }
        let start = Instant::now();
        // In the queue from here on.
        let made = self.0.store.commit(batch);
        async move {
            let done = made.await;
            let took = u64::try_from(start.elapsed().as_nanos()).unwrap();
            self.0.in_commits.fetch_add(took, Ordering::Relaxed);
            done
        }
    }

    fn shared(&self) -> bool {
        self.0.store.shared()
    }

    fn moment(&self) -> impl Future<Output = Moments> + Send {
        self.0.store.moment()
    }

    fn volumes(&self) -> Vec<Volume> {
        self.0.store.volumes()
    }
}

const TABLE: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");

/// Rows that are written together: name and content.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// redb, with nothing around it.
pub struct BareRedb(Database);

impl BareRedb {
    pub fn new(path: &Path) -> Self {
        let database = Database::create(path).unwrap();
        let bare = BareRedb(database);
        bare.commit(&[]);
        bare
    }

    /// One durable transaction.
    pub fn commit(&self, rows: &[(Vec<u8>, Vec<u8>)]) {
        let transaction = self.0.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for (key, value) in rows {
                table.insert(key.as_slice(), value.as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
    }

    /// Deletes rows in one durable transaction.
    pub fn delete(&self, keys: &[Vec<u8>]) {
        let transaction = self.0.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for key in keys {
                table.remove(key.as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
    }

    /// Reads every row and writes it again, in one durable transaction.
    pub fn rewrite(&self, mut change: impl FnMut(&[u8], &[u8]) -> Vec<u8>) {
        let read = self.0.begin_read().unwrap().open_table(TABLE).unwrap();
        let transaction = self.0.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for row in read.iter().unwrap() {
                let (key, value) = row.unwrap();
                let changed = change(key.value(), value.value());
                table.insert(key.value(), changed.as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
}

/// What a batch wrote, with the versions that stand before the content.
pub fn rows_of(batch: &Batch) -> Rows {
    let row = |(key, value): &(Key, Option<Vec<u8>>)| {
        Some((key.clone(), [&[0; 16], value.as_ref()?.as_slice()].concat()))
    };
    batch.writes.iter().filter_map(row).collect()
}

/// Some threads that do something until so many were done.
pub fn together(threads: usize, times: usize, work: impl Fn(usize) + Sync) -> Duration {
    let next = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(times) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed) as usize;
                    if number >= times {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
    start.elapsed()
}
