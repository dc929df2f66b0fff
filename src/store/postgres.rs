//! Rows in a table of a PostgreSQL database, for services of several processes and hosts.
//!
//! Layout: one table with three columns of bytes, `k` (the row's name, primary key), `x` (its version) and `v` (its
//! content). One row, whose name is longer than any that a vault writes, says that the table is ours and of which
//! version. The SQL is that of the standard and of `unnest`: no extensions, sequences or advisory locks.

use std::{collections::HashMap, fmt};

use deadpool_postgres::{Object, Pool};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::memory::{PAGE_BYTES, within_bounds};
use super::{
    Batch, CommitError, Expect, Key, MAX_KEY, Moments, Page, Range, Statement, Store, Version, Versioned,
    version_of,
};
use crate::custody::Concern;
use crate::error::StoreError;

pub(crate) mod catalog;
mod copies;
pub(crate) mod link;
pub(crate) mod listen;
mod moment;
mod options;
pub(crate) mod outcome;
mod staged;
mod table;

use link::{Link, REPEATS};
use listen::{Pooled, Warnings};
pub use options::PostgresOptions;
use outcome::Failure;
pub(crate) use outcome::staged_failure;
use table::Table;

/// A table in a PostgreSQL database, version 13 or later, for any number of processes and hosts.
///
/// It needs a `tokio` runtime: the calls of a vault on it are made within one.
///
/// **Commits** are SERIALIZABLE transactions of one round trip, made durable with `synchronous_commit` at least `on`,
/// whatever the role or the database has set: with synchronous standbys, an acknowledged commit is on as many of them
/// as `synchronous_standby_names` says. What the database asks to repeat (`40001`, `40P01`) is repeated. A connection
/// that is lost while the outcome of a commit is on its way makes [`CommitError::Unknown`], which the vault resolves by
/// the rows' versions. `statement_timeout` bounds the statement and not the commit: a commit that was cancelled while it
/// waits for a standby would be reported as done.
///
/// **Reads and scans** are one statement each. A read that is answered by a standby, or by a server that was made
/// read-only, is refused with [`StoreError::ReadOnly`]; a read whose connection was lost is made again.
///
/// **Distributed databases** that speak the protocol have not been tested. What they need is in the guide
/// ([`guide::postgres`](crate::guide::postgres)).
#[derive(Clone)]
pub struct PostgresStore {
    link: Link,
    table: Table,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("table", &self.table.name()).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Opens the table, and makes it where there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Settings`] where the options cannot be used; [`StoreError::Foreign`] where there is a table of this
    /// name that is none of ours, or of another version; [`StoreError::ReadOnly`] on a standby; [`StoreError::Refused`]
    /// where role or password are, or may not make the table; [`StoreError::Unreachable`]; [`StoreError::Exhausted`].
    pub async fn connect(options: PostgresOptions) -> Result<Self, StoreError> {
        Self::open(options.pooled()?, options).await
    }

    /// The same on a pool of the shop's own, which the shop has given its TLS and its size. Of the options, schema, table
    /// and time limit count.
    ///
    /// A pool behind a connection pooler must keep prepared statements over a session, or have the pooler do so.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    pub async fn with_pool(pool: Pool, options: PostgresOptions) -> Result<Self, StoreError> {
        Self::open((pool, Warnings::default()), options).await
    }

    async fn open(pool: Pooled, options: PostgresOptions) -> Result<Self, StoreError> {
        let table = Table::named(&options.schema, options.table_or("customer_vault"))?;
        let link = Link::to(pool, options.answer).await?;
        let client = link.client().await?;
        link.wait(table.find_or_make(&client)).await??;
        Ok(PostgresStore { link, table })
    }

    async fn try_commit(&self, client: &Object, parts: &Parts<'_>) -> Result<bool, Failure> {
        let put_versions: Vec<&[u8]> = parts.put_versions.iter().map(Version::as_slice).collect();
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&parts.expected, &parts.versions, &parts.put, &put_versions, &parts.contents, &parts.deleted];
        let wrong = self.link.transact(client, &self.table.commit, &COMMIT_TYPES, &parameters).await?;
        Ok(wrong == 0)
    }
}

const COMMIT_TYPES: [Type; 6] = [
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
];

/// A batch as parameters.
struct Parts<'a> {
    expected: Vec<&'a [u8]>,
    /// `None` where the row must be absent.
    versions: Vec<Option<&'a [u8]>>,
    put: Vec<&'a [u8]>,
    put_versions: Vec<Version>,
    contents: Vec<&'a [u8]>,
    deleted: Vec<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn of(batch: &'a Batch) -> Parts<'a> {
        let mut parts = Parts {
            expected: Vec::with_capacity(batch.expect.len()),
            versions: Vec::with_capacity(batch.expect.len()),
            put: Vec::with_capacity(batch.writes.len()),
            put_versions: Vec::with_capacity(batch.writes.len()),
            contents: Vec::with_capacity(batch.writes.len()),
            deleted: Vec::new(),
        };
        for (key, expect) in &batch.expect {
            parts.expected.push(key);
            parts.versions.push(match expect {
                Expect::Absent => None,
                Expect::Version(version) => Some(version),
            });
        }
        for (key, value) in &batch.writes {
            match value {
                Some(value) => {
                    parts.put.push(key);
                    parts.put_versions.push(version_of(&batch.nonce, key));
                    parts.contents.push(value);
                }
                None => parts.deleted.push(key),
            }
        }
        parts
    }
}

impl Store for PostgresStore {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.link.look(&self.table.read, &[Type::BYTEA_ARRAY], &[&keys]).await?;
        let mut found: HashMap<&[u8], Versioned> = HashMap::with_capacity(rows.len());
        for row in &rows {
            let read_only: &str = row.try_get(0).map_err(|_| StoreError::Damaged)?;
            if read_only != "off" {
                return Err(StoreError::ReadOnly);
            }
            let name: Option<&[u8]> = row.try_get(1).map_err(|_| StoreError::Damaged)?;
            if let Some(name) = name {
                found.insert(name, versioned(row, 2)?);
            }
        }
        Ok(keys.iter().map(|key| found.get(key.as_slice()).cloned()).collect())
    }

    async fn scan(&self, range: Range, limit: usize) -> Result<Page, StoreError> {
        let asked = Asked::of(range, limit);
        let rows = self.link.look(&self.table.scan, &SCAN_TYPES, &asked.parameters()).await?;
        page(&rows, asked.limit)
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        within_bounds(&batch)?;
        let parts = Parts::of(&batch);
        for attempt in 0..REPEATS {
            let client = self.link.client().await?;
            let why = match self.link.wait(self.try_commit(&client, &parts)).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => return Err(CommitError::Conflict),
                Ok(Err(why)) => why,
                Err(_) => {
                    drop(Object::take(client));
                    return Err(CommitError::Unknown);
                }
            };
            match why {
                // Its row is another transaction's, which may be there for long: nothing was written.
                Failure::Locked if attempt.saturating_add(1) == REPEATS => {
                    return Err(StoreError::Timeout.into());
                }
                Failure::Repeat | Failure::Locked => drop(client),
                Failure::Lost => {
                    drop(Object::take(client));
                    return Err(CommitError::Unknown);
                }
                // A connection that had died in the pool: the statement was not sent.
                Failure::NotSent => drop(Object::take(client)),
                Failure::Said(why) => return Err(why.into()),
            }
            if attempt > 0 {
                // Those that ran into each other shall not do so again.
                self.link.back_off(attempt, batch.nonce.first().copied().unwrap_or(0)).await;
            }
        }
        // Nothing was written; whoever asked reads again.
        Err(CommitError::Conflict)
    }

    fn shared(&self) -> bool {
        true
    }

    async fn moment(&self) -> Moments {
        Ok(Some(Box::new(moment::Kept::begin(&self.link, &self.table).await?)))
    }

    async fn copies_are_current(&self) -> Result<(), StoreError> {
        self.wait_for_copies().await
    }

    async fn doctor(&self) -> Result<Vec<Concern>, StoreError> {
        self.concerns().await
    }

    fn statements(&self, batch: &Batch) -> Option<Vec<Statement>> {
        Some(staged::statements(&self.table.name(), self.link.is_postgres, batch))
    }
}

/// What a page is asked for with.
struct Asked {
    range: Range,
    limit: usize,
    rows: i64,
    bytes: i64,
}

const SCAN_TYPES: [Type; 4] = [Type::BYTEA, Type::BYTEA, Type::INT8, Type::INT8];

impl Asked {
    fn of(mut range: Range, limit: usize) -> Self {
        // The row that says what the table is has a longer name.
        range.end = range.end.min(vec![0xFF; MAX_KEY.saturating_add(1)]);
        let limit = limit.clamp(1, 1 << 20);
        let rows = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        Asked { range, limit, rows, bytes: i64::try_from(PAGE_BYTES).unwrap_or(i64::MAX) }
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 4] {
        [&self.range.start, &self.range.end, &self.rows, &self.bytes]
    }
}

fn page(rows: &[Row], limit: usize) -> Result<Page, StoreError> {
    let mut page = Page::default();
    for row in rows {
        let name: Key = row.try_get(0).map_err(|_| StoreError::Damaged)?;
        // A row that is only there to say that the page is full comes without its content.
        let full: bool = row.try_get(3).map_err(|_| StoreError::Damaged)?;
        if row.try_get::<_, &str>(4).map_err(|_| StoreError::Damaged)? != "off" {
            return Err(StoreError::ReadOnly);
        }
        if page.rows.len() >= limit || (full && !page.rows.is_empty()) {
            page.next = Some(name);
            break;
        }
        page.rows.push((name, versioned(row, 1)?));
    }
    Ok(page)
}

fn versioned(row: &Row, from: usize) -> Result<Versioned, StoreError> {
    let version: &[u8] = row.try_get(from).map_err(|_| StoreError::Damaged)?;
    Ok(Versioned {
        version: version.try_into().map_err(|_| StoreError::Damaged)?,
        value: row.try_get(from.saturating_add(1)).map_err(|_| StoreError::Damaged)?,
    })
}
