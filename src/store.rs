//! Where wrapped keys and ciphertext lie. A store sees neither a key nor a value in the clear (invariant 3).
//!
//! The port is three calls. What a store must promise is written at each, and the contract tests of the `testing`
//! feature check it: run them against your own store before you trust it.

use std::{collections::HashSet, fmt, future::Future, pin::Pin, sync::Arc};

use crate::crypto;
use crate::custody::Concern;
use crate::error::StoreError;
use crate::key::label;

mod memory;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redb")]
mod redb;
mod volume;

/// What a pool of the shop's own is made of.
#[cfg(feature = "postgres")]
pub use deadpool_postgres;
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub(crate) use postgres::staged_failure;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
#[cfg(feature = "redb")]
pub use redb::RedbStore;
pub use volume::Volume;

/// The name of a row. Compared as bytes.
pub type Key = Vec<u8>;

/// The longest name of a row, in bytes.
pub const MAX_KEY: usize = 64;

/// The largest content of a row, in bytes: 32 MiB.
pub const MAX_VALUE: usize = 32 << 20;

/// Derived from a random part of each [`Batch`] and the row's name, so that a row which was deleted and made again never
/// matches an old version, and rows that one batch wrote cannot be told to belong together.
pub type Version = [u8; 16];

/// A row as it was read.
#[derive(Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make it")]
pub struct Versioned {
    /// [`Batch::version_of`] the row, by the batch that wrote it last.
    pub version: Version,
    /// What it wrote.
    pub value: Vec<u8>,
}

impl fmt::Debug for Versioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Versioned").field("bytes", &self.value.len()).finish_non_exhaustive()
    }
}

/// Rows from `start` on, before `end`, in ascending order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores read it")]
pub struct Range {
    /// The first name that is in it.
    pub start: Key,
    /// The first name that is not in it any more.
    pub end: Key,
}

impl Range {
    /// All names that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.last_mut() {
            if let Some(next) = last.checked_add(1) {
                *last = next;
                return Range { start: prefix.to_vec(), end };
            }
            end.pop();
        }
        Range { start: prefix.to_vec(), end: vec![0xFF; MAX_KEY.saturating_add(1)] }
    }
}

/// Some rows of a [`Range`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make it")]
pub struct Page {
    /// In ascending order of their names.
    pub rows: Vec<(Key, Versioned)>,
    /// Where the next page starts; `None` where the range has no more rows.
    pub next: Option<Key>,
}

/// What must hold of a row at the moment of the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "stores must know them all")]
pub enum Expect {
    /// There is no such row.
    Absent,
    /// It has this version.
    Version(Version),
}

impl Expect {
    /// That the row is as it was read.
    #[must_use]
    pub fn unchanged(row: Option<&Versioned>) -> Self {
        row.map_or(Expect::Absent, |row| Expect::Version(row.version))
    }
}

/// Writes that are made together, where all preconditions hold, or not at all.
#[derive(Clone)]
#[expect(clippy::exhaustive_structs, reason = "stores read it")]
pub struct Batch {
    /// 16 random bytes, chosen for this batch and stored nowhere: [`version_of`](Self::version_of) a row is what is
    /// stored with it.
    pub nonce: [u8; 16],
    /// At most one for each row, in any order.
    pub expect: Vec<(Key, Expect)>,
    /// `None` deletes. At most one for each row; a row that is deleted may be absent.
    pub writes: Vec<(Key, Option<Vec<u8>>)>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("expect", &self.expect.len())
            .field("writes", &self.writes.len())
            .finish_non_exhaustive()
    }
}

impl Batch {
    /// Empty, with a nonce of its own.
    ///
    /// # Errors
    ///
    /// [`Error::NoRandomness`](crate::Error::NoRandomness).
    pub fn new() -> crate::Result<Self> {
        Ok(Batch { nonce: crypto::random()?, expect: Vec::new(), writes: Vec::new() })
    }

    /// The version that this batch gives to a row: the first 16 bytes of SHA-256(label ‖ nonce ‖ name). It is known before
    /// the batch is committed, so that the next one can be built on it.
    #[must_use]
    pub fn version_of(&self, key: &[u8]) -> Version {
        version_of(&self.nonce, key)
    }

    /// Adds a precondition. The first one for a row stands.
    pub fn expect(&mut self, key: &[u8], expect: Expect) -> &mut Self {
        if !self.expect.iter().any(|(known, _)| known == key) {
            self.expect.push((key.to_vec(), expect));
        }
        self
    }

    /// Adds a write. The last one for a row stands.
    pub fn put(&mut self, key: &[u8], value: Vec<u8>) -> &mut Self {
        self.write(key, Some(value))
    }

    /// Adds a deletion.
    pub fn delete(&mut self, key: &[u8]) -> &mut Self {
        self.write(key, None)
    }

    fn write(&mut self, key: &[u8], value: Option<Vec<u8>>) -> &mut Self {
        match self.writes.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.writes.push((key.to_vec(), value)),
        }
        self
    }
}

fn version_of(nonce: &[u8; 16], key: &[u8]) -> Version {
    let mut version = [0; 16];
    for (to, from) in version.iter_mut().zip(crypto::hash(&[label::VERSION, nonce, key])) {
        *to = from;
    }
    version
}

/// How a commit did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(clippy::exhaustive_enums, reason = "the vault must know them all")]
pub enum CommitError {
    /// A precondition did not hold. Nothing was written.
    #[error("a precondition did not hold")]
    Conflict,
    /// It may have happened or not, or may still happen. The vault reads rows of the batch, compares their versions, and
    /// makes sure that it does not happen any more.
    #[error("the outcome is not known")]
    Unknown,
    /// Nothing was written.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// A statement of SQL with its parameters, each a string of bytes (`bytea`): for the shop's own driver, in the shop's own
/// transaction.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statement {
    /// With `$1`, `$2`… for the parameters.
    pub sql: String,
    /// In their order.
    pub parameters: Vec<Vec<u8>>,
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").field("parameters", &self.parameters.len()).finish_non_exhaustive()
    }
}

/// A call of a [`Moment`] under way.
pub type Paging<'a> = Pin<Box<dyn Future<Output = Result<Page, StoreError>> + Send + 'a>>;

/// The rows as they were at one moment, for as long as this lives.
pub trait Moment: Send {
    /// As [`Store::scan`], but all pages are of the same moment.
    fn page(&mut self, range: Range, limit: usize) -> Paging<'_>;
}

/// What [`Store::moment`] gives.
pub type Moments = Result<Option<Box<dyn Moment>>, StoreError>;

/// Rows with versions. Every promise here is checked by `testing::store_contract`.
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// The rows of these names, in their order, `None` where there is none; all as of one moment. A row that a
    /// successful [`commit`](Self::commit) wrote before this was called is seen.
    fn read(&self, keys: &[Key]) -> impl Future<Output = Result<Vec<Option<Versioned>>, StoreError>> + Send;

    /// At most `limit` rows of a range, at least one where there are any, all as of one moment; pages of one scan may
    /// be of different moments.
    fn scan(&self, range: Range, limit: usize) -> impl Future<Output = Result<Page, StoreError>> + Send;

    /// Makes all writes or none, durably: when it returns `Ok`, the writes outlive a power failure. Commits are as if they
    /// were made one after the other, each with its preconditions fulfilled, and one that began after another had returned
    /// comes after it. A future that is dropped may leave the commit done or not done, never half.
    fn commit(&self, batch: Batch) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// Whether several processes can have this store open. Where they can, `forget` waits until all have seen it.
    fn shared(&self) -> bool;

    /// Waits until every copy of the store that may take its place has on its disk what was committed so far: before a
    /// root key is destroyed that an older copy would still need.
    ///
    /// # Errors
    ///
    /// [`StoreError::Behind`] where one has not, and does not come within some seconds.
    fn copies_are_current(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        std::future::ready(Ok(()))
    }

    /// All rows as of one moment, no earlier than this call: every batch is in it whole or not at all, and every one whose
    /// [`commit`](Self::commit) had returned before. Commits go on meanwhile. `None` where the store cannot do so: then
    /// the vault makes no backups of it.
    fn moment(&self) -> impl Future<Output = Moments> + Send {
        std::future::ready(Ok(None))
    }

    /// What its settings lack for what the vault promises; empty where all is well.
    ///
    /// # Errors
    ///
    /// Where it cannot be found out.
    fn doctor(&self) -> impl Future<Output = Result<Vec<Concern>, StoreError>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Where it lies on this host, as far as it knows.
    fn volumes(&self) -> Vec<Volume> {
        Vec::new()
    }

    /// The batch as statements that make it in a transaction of somebody else's: run in their order, they raise an error
    /// where a precondition does not hold, whatever the transaction's isolation and though nobody looks at row counts.
    /// `None` where the store has no such transactions.
    fn statements(&self, _batch: &Batch) -> Option<Vec<Statement>> {
        None
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`Store`] behind a pointer, so that the vault has no type parameters.
trait ErasedStore: Send + Sync + fmt::Debug {
    fn read<'a>(&'a self, keys: &'a [Key]) -> Boxed<'a, Result<Vec<Option<Versioned>>, StoreError>>;
    fn scan(&self, range: Range, limit: usize) -> Boxed<'_, Result<Page, StoreError>>;
    fn commit(&self, batch: Batch) -> Boxed<'_, Result<(), CommitError>>;
    fn shared(&self) -> bool;
    fn copies_are_current(&self) -> Boxed<'_, Result<(), StoreError>>;
    fn moment(&self) -> Boxed<'_, Moments>;
    fn doctor(&self) -> Boxed<'_, Result<Vec<Concern>, StoreError>>;
    fn volumes(&self) -> Vec<Volume>;
    fn statements(&self, batch: &Batch) -> Option<Vec<Statement>>;
}

impl<S: Store> ErasedStore for S {
    fn read<'a>(&'a self, keys: &'a [Key]) -> Boxed<'a, Result<Vec<Option<Versioned>>, StoreError>> {
        Box::pin(Store::read(self, keys))
    }
    fn scan(&self, range: Range, limit: usize) -> Boxed<'_, Result<Page, StoreError>> {
        Box::pin(Store::scan(self, range, limit))
    }
    fn commit(&self, batch: Batch) -> Boxed<'_, Result<(), CommitError>> {
        Box::pin(Store::commit(self, batch))
    }
    fn shared(&self) -> bool {
        Store::shared(self)
    }
    fn copies_are_current(&self) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(Store::copies_are_current(self))
    }
    fn moment(&self) -> Boxed<'_, Moments> {
        Box::pin(Store::moment(self))
    }
    fn doctor(&self) -> Boxed<'_, Result<Vec<Concern>, StoreError>> {
        Box::pin(Store::doctor(self))
    }
    fn volumes(&self) -> Vec<Volume> {
        Store::volumes(self)
    }
    fn statements(&self, batch: &Batch) -> Option<Vec<Statement>> {
        Store::statements(self, batch)
    }
}

/// The store of an open vault.
#[derive(Clone, Debug)]
pub(crate) struct Rows(Arc<dyn ErasedStore>);

/// What a commit came to, once an unknown outcome is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    Yes,
    /// A precondition did not hold: read again.
    Conflict,
}

impl Rows {
    pub(crate) fn new(store: impl Store) -> Self {
        Rows(Arc::new(store))
    }

    pub(crate) fn shared(&self) -> bool {
        self.0.shared()
    }

    pub(crate) fn statements(&self, batch: &Batch) -> Option<Vec<Statement>> {
        self.0.statements(batch)
    }

    pub(crate) async fn copies_are_current(&self) -> crate::Result<()> {
        Ok(self.0.copies_are_current().await?)
    }

    pub(crate) async fn doctor(&self) -> crate::Result<Vec<Concern>> {
        Ok(self.0.doctor().await?)
    }

    pub(crate) async fn moment(&self) -> crate::Result<Option<Box<dyn Moment>>> {
        Ok(self.0.moment().await?)
    }

    pub(crate) fn volumes(&self) -> Vec<Volume> {
        self.0.volumes()
    }

    pub(crate) async fn read(&self, keys: &[Key]) -> crate::Result<Vec<Option<Versioned>>> {
        let rows = self.0.read(keys).await?;
        if rows.len() == keys.len() { Ok(rows) } else { Err(StoreError::Damaged.into()) }
    }

    pub(crate) async fn get(&self, key: &[u8]) -> crate::Result<Option<Versioned>> {
        Ok(self.read(&[key.to_vec()]).await?.pop().flatten())
    }

    pub(crate) async fn page(&self, range: Range, limit: usize) -> crate::Result<Page> {
        Ok(self.0.scan(range, limit).await?)
    }

    /// All rows of a range that is known to be small.
    pub(crate) async fn all(&self, mut range: Range) -> crate::Result<Vec<(Key, Versioned)>> {
        let mut rows = Vec::new();
        loop {
            let page = self.0.scan(range.clone(), 4096).await?;
            rows.extend(page.rows);
            match page.next {
                Some(next) => range.start = next,
                None => return Ok(rows),
            }
        }
    }

    /// Commits; an unknown outcome is [resolved](Self::resolve).
    ///
    /// The store is called now, not when the future is first polled: a store that queues commits in the order of the
    /// calls can be given one that builds on another which is still under way.
    pub(crate) fn commit(&self, batch: Batch) -> impl Future<Output = crate::Result<Committed>> + Send + '_ {
        let outline = if self.shared() { Outline::of(&batch) } else { Outline::alone(&batch) };
        let answer = self.0.commit(batch);
        async move {
            match answer.await {
                Ok(()) => Ok(Committed::Yes),
                Err(CommitError::Conflict) => Ok(Committed::Conflict),
                Err(CommitError::Failed(why)) => Err(why.into()),
                Err(CommitError::Unknown) if outline.written.is_empty() => Err(StoreError::Unknown.into()),
                Err(CommitError::Unknown) => self.resolve(&outline).await,
            }
        }
    }

    /// Finds out what became of a batch, by reading its rows and comparing their versions. All of them, since another
    /// writer may have come after ours to some: the batch is atomic, so one that has its version proves it, and every batch
    /// that must not be made twice writes a row of its own (an entry of the log, a line of the journal) that nobody writes
    /// again.
    ///
    /// Where several processes share the store, a batch that is not there may still come: a database commits what it was
    /// sent when the lock that it waits for is gone, long after the client has given up. So one of the rows that it was
    /// built on and writes is written again, as it is: of two that write a row one fails, so then it never comes. A row that
    /// it only looks at would not do: what it saw of it, it has seen. And a batch that is there may lack its copies: another
    /// commit, which waits for them, comes after it.
    pub(crate) async fn resolve(&self, batch: &Outline) -> crate::Result<Committed> {
        let mut names = batch.written.clone();
        names.extend(batch.expected.iter().map(|(key, _)| key.clone()));
        for _ in 0..RESOLVING {
            // What a call says from here on is not what became of the batch: "failed" would mean that nothing has changed.
            let rows = self.read(&names).await.map_err(|_| StoreError::Unknown)?;
            let (written, expected) = rows.split_at(batch.written.len().min(rows.len()));
            let ours = |(row, key): (&Option<Versioned>, &Key)| {
                row.as_ref().is_some_and(|row| row.version == version_of(&batch.nonce, key))
            };
            if written.iter().zip(&batch.written).any(ours) {
                return self.outlive().await.map(|()| Committed::Yes);
            }
            let mut built_on = expected.iter().zip(&batch.expected);
            let holds = |(row, (_, version)): (&Option<Versioned>, &(Key, Version))| {
                row.as_ref().is_some_and(|row| row.version == *version)
            };
            let first = expected.first().and_then(Option::as_ref).zip(batch.expected.first());
            let Some((row, (key, version))) = first.filter(|_| self.shared() && built_on.all(holds)) else {
                // A row that it writes was written by another, and a version never comes again.
                return Ok(Committed::Conflict);
            };
            let mut again = Batch::new()?;
            again.expect(key, Expect::Version(*version)).put(key, row.value.clone());
            match self.0.commit(again).await {
                Ok(()) => return Ok(Committed::Conflict),
                Err(CommitError::Conflict | CommitError::Unknown) => {}
                Err(CommitError::Failed(_)) => return Err(StoreError::Unknown.into()),
            }
        }
        Err(StoreError::Unknown.into())
    }

    /// Makes durable, on all copies that a commit waits for, whatever is visible now.
    pub(crate) async fn outlive(&self) -> crate::Result<()> {
        if !self.shared() {
            return Ok(());
        }
        for _ in 0..RESOLVING {
            let mut batch = Batch::new()?;
            batch.put(OUTLIVED, Vec::new());
            if self.0.commit(batch).await.is_ok() {
                return Ok(());
            }
        }
        Err(StoreError::Unknown.into())
    }
}

/// How often it is tried to find out what became of a commit.
const RESOLVING: usize = 4;

/// A row without content, that is written for the sake of what was written before it.
const OUTLIVED: &[u8] = b"i";

/// What is needed of a batch to find out what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Outline {
    nonce: [u8; 16],
    written: Vec<Key>,
    /// What it writes over, and in which version it expects it.
    expected: Vec<(Key, Version)>,
}

impl Outline {
    /// Where one process has the store: nothing of its comes late.
    fn alone(batch: &Batch) -> Self {
        let written = batch.writes.iter().filter(|(_, value)| value.is_some());
        let written = written.map(|(key, _)| key.clone()).collect();
        Outline { nonce: batch.nonce, written, expected: Vec::new() }
    }

    pub(crate) fn of(batch: &Batch) -> Self {
        let Outline { nonce, written, .. } = Outline::alone(batch);
        let version = |(key, expect): &(Key, Expect)| match expect {
            Expect::Version(version) => Some((key.clone(), *version)),
            Expect::Absent => None,
        };
        let names: HashSet<&Key> = written.iter().collect();
        let mut expected: Vec<(Key, Version)> = batch.expect.iter().filter_map(version).collect();
        expected.retain(|(key, _)| names.contains(key));
        // The lane's head, where there is one: nobody else waits for it.
        expected.reverse();
        Outline { nonce, written, expected }
    }
}
