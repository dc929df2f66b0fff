//! The default store: one file on a local disk, through the `redb` crate.
//!
//! Layout: the table `rows` maps a row's name to its version (16 bytes) followed by its content; the table
//! `customer-vault` maps `format` to two bytes, the version of this layout as a big-endian number (1).

use std::{
    ffi::OsString,
    fmt,
    fs::{self, File, OpenOptions},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use futures_channel::oneshot;
use redb::{
    Builder, Database, ReadableDatabase as _, StorageBackend, TableDefinition, backends::FileBackend,
};

use super::memory::{is_full, within_bounds};
use super::{
    Batch, CommitError, Key, Moment, Moments, Page, Paging, Range, Store, Version, Versioned, Volume,
};
use crate::{crypto, error::StoreError};

mod committer;
mod device;

use committer::{Opened, Waiting};
use device::Device;

const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");
const ABOUT: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("customer-vault");
const FORMAT: &str = "format";
const FORMAT_VERSION: [u8; 2] = [0, 1];

/// What redb keeps in memory of the file, in bytes, at most: 64 MiB.
const CACHE: usize = 64 << 20;

/// One file on a local disk, crash-safe, for one process.
///
/// The file is locked while it is open: a second handle, in this process or another, gets [`StoreError::Locked`].
/// Network file systems are not for it: their locks and syncs cannot be relied on.
///
/// **Commits** are made by one thread, which groups what waits (up to 512 batches or 8 MiB) into one durable
/// transaction, so that many tasks share one fsync. Each batch passes or fails alone, against what the batches before
/// it left, in the order in which [`commit`](Store::commit) was _called_: a batch is in the queue when the call
/// returns its future, polled or not. So a second batch may expect the version of a first one that is still under way.
/// **Reads and scans** see one moment each, and happen in the calling task, on its thread: they block for as long as
/// the disk takes where the page is not in memory (at most 64 MiB are kept).
///
/// **When the disk fails**, whoever waits gets [`CommitError::Failed`] where nothing can have been written, otherwise
/// [`CommitError::Unknown`]; from then on every call fails, reading too, with [`StoreError::Full`] where the disk was
/// full and [`StoreError::Closed`] otherwise, until the file is opened again. Nothing is built on a commit that failed:
/// opening a file that was not closed in order first writes again all that it finds in it, because after a failed
/// fsync a system can show pages that are not on the disk. That takes as long as reading and writing the file once.
///
/// **What is deleted stays** in the file until its page is used again, and redb never overwrites a page in place. Only
/// wrapped keys and ciphertext lie there, and they are unreadable once the root key that wraps them is destroyed.
/// [`compact`](Self::compact) gives free pages back to the file system; nothing here wipes the medium.
pub struct RedbStore {
    queue: Option<Sender<Waiting>>,
    committer: Option<JoinHandle<()>>,
    opened: Arc<Opened>,
    volume: Option<Volume>,
}

impl RedbStore {
    /// Makes a new file, on Unix readable and writable for its owner alone (0600). It appears under its name once it is
    /// complete and durable; a crash before that leaves a file beside it, whose name ends in `.new` and which can be
    /// removed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`] where there is something at this path; [`StoreError::Full`]; [`StoreError::Io`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if fs::symlink_metadata(path).is_ok() {
            return Err(StoreError::Exists);
        }
        let random = crypto::random().map_err(|_| StoreError::Io(io::ErrorKind::Other))?;
        let mut unfinished = OsString::from(path);
        unfinished.push(format!(".{:08x}.new", u32::from_be_bytes(random)));
        let unfinished = PathBuf::from(unfinished);
        let file = options().create_new(true).open(&unfinished).map_err(|error| error.kind())?;
        let made = Self::in_file(file, Purpose::Create).and_then(|store| {
            publish(&unfinished, path)?;
            Ok(store)
        });
        // After publishing it is a second name of the store, or already gone.
        drop(fs::remove_file(&unfinished));
        let store = made?;
        sync_directory(path)?;
        Ok(store)
    }

    /// Opens a file that [`create`](Self::create) made. Where it was not closed in order, it is repaired first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] where it is open already, here or in another process; [`StoreError::Foreign`] where it is
    /// no store of this crate and version; [`StoreError::Damaged`]; [`StoreError::Full`] where the repair needs more
    /// room; [`StoreError::Io`], with [`io::ErrorKind::NotFound`] where there is no file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::in_file(options().open(path).map_err(|error| error.kind())?, Purpose::Open)
    }

    /// Opens the file, or makes it where there is none.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open) and [`create`](Self::create), without [`StoreError::Exists`].
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        match Self::open(path) {
            Err(StoreError::Io(io::ErrorKind::NotFound)) => match Self::create(path) {
                Err(StoreError::Exists) => Self::open(path),
                made => made,
            },
            opened => opened,
        }
    }

    /// Moves the rows together and gives free pages back to the file system. For a file that is not open; takes as long
    /// as copying it.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn compact(path: impl AsRef<Path>) -> Result<(), StoreError> {
        let file = options().open(path).map_err(|error| error.kind())?;
        let mut database = open_database(Device::new(FileBackend::new(file).map_err(why)?), Purpose::Open)?;
        guarded(|| {
            database.compact().map_err(why)?;
            database.close().map_err(why)
        })
    }

    fn in_file(file: File, purpose: Purpose) -> Result<Self, StoreError> {
        let volume = Volume::of_file(&file);
        let mut store = Self::with_backend(FileBackend::new(file).map_err(why)?, purpose)?;
        store.volume = volume;
        Ok(store)
    }

    /// On a disk that fails, for tests.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn create_on(backend: impl StorageBackend) -> Result<Self, StoreError> {
        Self::with_backend(backend, Purpose::Create)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn open_on(backend: impl StorageBackend) -> Result<Self, StoreError> {
        Self::with_backend(backend, Purpose::Open)
    }

    fn with_backend(backend: impl StorageBackend, purpose: Purpose) -> Result<Self, StoreError> {
        let opened = Arc::new(Opened::new(open_database(Device::new(backend), purpose)?));
        let (queue, waiting) = mpsc::channel();
        let served = Arc::clone(&opened);
        let committer = thread::Builder::new()
            .name("customer-vault-store".into())
            .spawn(move || served.serve(&waiting))
            .map_err(|error| error.kind())?;
        Ok(RedbStore { queue: Some(queue), committer: Some(committer), opened, volume: None })
    }

    /// How many durable transactions were made since it was opened, so that a test can see that commits are grouped.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.opened.transactions.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn submit(&self, batch: Batch) -> Result<oneshot::Receiver<Result<(), CommitError>>, StoreError> {
        within_bounds(&batch)?;
        self.opened.usable()?;
        let (done, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        queue.send(Waiting { batch, done }).map_err(|_| StoreError::Closed)?;
        Ok(answer)
    }

    /// Reads as of one moment.
    fn look<T>(&self, look: impl FnOnce(&Rows) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.opened.look(|| {
            let transaction = self.opened.database.begin_read().map_err(why)?;
            look(&transaction.open_table(ROWS).map_err(why)?)
        })
    }
}

type Rows = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

impl Store for RedbStore {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        self.look(|table| {
            let row = |key: &Key| match table.get(key.as_slice()).map_err(why)? {
                Some(row) => versioned(row.value()).map(Some),
                None => Ok(None),
            };
            keys.iter().map(row).collect()
        })
    }

    async fn scan(&self, range: Range, limit: usize) -> Result<Page, StoreError> {
        self.look(|table| page(table, &range, limit))
    }

    fn commit(&self, batch: Batch) -> impl Future<Output = Result<(), CommitError>> + Send {
        let answer = self.submit(batch);
        async move { answer?.await.unwrap_or(Err(CommitError::Unknown)) }
    }

    fn shared(&self) -> bool {
        false
    }

    /// One read transaction: as long as it lives, the file keeps the pages that it sees, and grows by what is written.
    async fn moment(&self) -> Moments {
        let begin = |opened: &Opened| {
            let transaction = opened.database.begin_read().map_err(why)?;
            transaction.open_table(ROWS).map_err(why)
        };
        let table = self.opened.look(|| begin(&self.opened))?;
        Ok(Some(Box::new(Kept { table, opened: Arc::clone(&self.opened) })))
    }

    fn volumes(&self) -> Vec<Volume> {
        self.volume.into_iter().collect()
    }
}

/// The rows of one read transaction.
struct Kept {
    table: Rows,
    opened: Arc<Opened>,
}

impl Moment for Kept {
    fn page(&mut self, range: Range, limit: usize) -> Paging<'_> {
        let found = self.opened.look(|| page(&self.table, &range, limit));
        Box::pin(std::future::ready(found))
    }
}

fn page(table: &Rows, range: &Range, limit: usize) -> Result<Page, StoreError> {
    let mut page = Page::default();
    if range.start >= range.end {
        return Ok(page);
    }
    let mut bytes: usize = 0;
    for entry in table.range(range.start.as_slice()..range.end.as_slice()).map_err(why)? {
        let (key, row) = entry.map_err(why)?;
        if is_full(&page, limit, bytes) {
            page.next = Some(key.value().to_vec());
            break;
        }
        let row = versioned(row.value())?;
        bytes = bytes.saturating_add(row.value.len());
        page.rows.push((key.value().to_vec(), row));
    }
    Ok(page)
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(committer) = self.committer.take() {
            // The thread catches what redb panics with. Joined, so that the file is unlocked once this is dropped.
            drop(committer.join());
        }
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("usable", &self.opened.usable()).finish_non_exhaustive()
    }
}

/// What a storage is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Create,
    Open,
}

fn open_database(device: Device, purpose: Purpose) -> Result<Database, StoreError> {
    // redb would make a new database of an empty file.
    if purpose == Purpose::Open && device.len().map_err(|error| error.kind())? == 0 {
        return Err(StoreError::Foreign);
    }
    let failure = Arc::new(Mutex::new(None));
    let (again, noted) = (device.clone(), Arc::clone(&failure));
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_repair_callback(move |session| {
        let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
        // Called repeatedly, for progress. The file is locked by now.
        if noted.is_none() {
            let outcome = again.write_again().map_err(|error| error.kind());
            if outcome.is_err() {
                session.abort();
            }
            *noted = Some(outcome);
        }
    });
    guarded(|| {
        let database = builder.create_with_backend(device).map_err(|error| {
            let noted = failure.lock().unwrap_or_else(PoisonError::into_inner);
            match (*noted, error) {
                (Some(Err(kind)), _) => StoreError::from(kind),
                // How redb says that the magic number is another.
                (_, redb::DatabaseError::Storage(redb::StorageError::Io(error)))
                    if error.kind() == io::ErrorKind::InvalidData =>
                {
                    StoreError::Foreign
                }
                (_, error) => why(error),
            }
        })?;
        match purpose {
            Purpose::Create => mark(&database)?,
            Purpose::Open => check_mark(&database)?,
        }
        Ok(database)
    })
}

fn mark(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(why)?;
    drop(transaction.open_table(ROWS).map_err(why)?);
    drop(transaction.open_table(ABOUT).map_err(why)?.insert(FORMAT, FORMAT_VERSION.as_slice()).map_err(why)?);
    transaction.commit().map_err(why)
}

fn check_mark(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_read().map_err(why)?;
    let format = transaction.open_table(ABOUT).map_err(why)?.get(FORMAT).map_err(why)?;
    let known = format.is_some_and(|format| format.value() == FORMAT_VERSION);
    if !known {
        return Err(StoreError::Foreign);
    }
    drop(transaction.open_table(ROWS).map_err(why)?);
    Ok(())
}

/// redb may panic on a file that was altered behind its back.
fn guarded<T>(run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(StoreError::Damaged))
}

fn decode(row: &[u8]) -> Result<(Version, &[u8]), StoreError> {
    let (version, value) = row.split_first_chunk().ok_or(StoreError::Damaged)?;
    Ok((*version, value))
}

fn versioned(row: &[u8]) -> Result<Versioned, StoreError> {
    let (version, value) = decode(row)?;
    Ok(Versioned { version, value: value.to_vec() })
}

/// Which of our errors one of redb's is. Its texts are dropped: they may quote the file.
fn why(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => StoreError::Damaged,
        redb::Error::Io(error) => error.kind().into(),
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => StoreError::Locked,
        redb::Error::UpgradeRequired(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => StoreError::Foreign,
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => StoreError::Closed,
        _ => StoreError::Damaged,
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Gives a finished file its name, and never replaces one.
fn publish(unfinished: &Path, path: &Path) -> Result<(), StoreError> {
    let taken = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => StoreError::Exists,
        kind => kind.into(),
    };
    match fs::hard_link(unfinished, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(StoreError::Exists),
        // A file system without hard links: an empty file takes the name first.
        Err(_) => {
            options().create_new(true).open(path).map(drop).map_err(taken)?;
            fs::rename(unfinished, path).map_err(|error| {
                drop(fs::remove_file(path));
                error.kind().into()
            })
        }
    }
}

/// A new name is durable once its directory is synced; elsewhere than on Unix a directory cannot be opened.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(|error| error.kind())?;
    }
    Ok(())
}
