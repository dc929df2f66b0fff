//! A witness in a table of a PostgreSQL database, for services of several processes and hosts.
//!
//! Layout: one table with two columns, `n` (bigint, primary key) and `line` (bytes), to which rows are only added. Line
//! `n` of the journal is row `n`; row 0 says that the table is ours and of which version, row -1 which vault it is bound
//! to.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::{Arc, OnceLock};

use deadpool_postgres::{Object, Pool};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::{Line, MAX_LINE, Witness};
use crate::crypto;
use crate::error::{Error, KeeperError, Misuse, Result, StoreError};
use crate::keeper::{Serves, VaultId};
use crate::store::PostgresOptions;
use crate::store::postgres::catalog::{FormatRow, Layout, Name, bytes};
use crate::store::postgres::link::{Link, REPEATS};
use crate::store::postgres::listen::{Pooled, Warnings};
use crate::store::postgres::outcome::Failure;

const LAYOUT: Layout = Layout {
    columns: &[("n", "int8", "PRIMARY KEY"), ("line", "bytea", "NOT NULL")],
    format: b"customer-vault witness 1",
};

/// The row that names the vault.
const BOUND: i64 = -1;

/// So many lines are written or read at a time: 4 MiB at most.
const CHUNK: usize = 1024;

/// A table in a PostgreSQL database, version 13 or later, that remembers for processes of any number of hosts. Clones are
/// the same witness.
///
/// **It must lie in another database server than the store**, one that fails, is backed up and is restored on its own. A
/// witness beside the store is restored together with it, and then nothing tells that the erasures of the meantime are
/// lost. Back it up by itself, and never restore the two to one moment.
///
/// Restored to an older state, or replaced by an empty table, it knows fewer lines than the store. The next open brings it
/// up to the store without a word, because a process that died before it told the witness leaves the same. Processes that
/// have the vault open meanwhile find a gap ([`KeeperError::Damaged`]), and their receipts say `witnessed: false`. What an
/// older witness cannot do is to find a store that is as old as itself: restore it from the newest copy there is, and open
/// the vault with the newest store before anything else is restored.
///
/// Whoever may write its table can make the vault refuse to open, or lose lines from its end; they cannot make one up:
/// lines are chained by a key of the vault. Give the vault's role `SELECT` and `INSERT` on the table, and nobody `UPDATE`,
/// `DELETE` or `TRUNCATE`.
///
/// It needs a `tokio` runtime: the calls of a vault with it are made within one. Lines are durable with
/// `synchronous_commit` at least `on`, whatever the role or the database has set. A standby is refused
/// ([`KeeperError::ReadOnly`]). A call whose outcome is lost with the connection is made again, which is harmless: a line
/// that is there is compared, and another one under its number is [`KeeperError::Foreign`]. Bind it before anything else:
/// until then there is [`KeeperError::Missing`]. A line longer than 4 KiB is refused like a gap.
#[derive(Clone)]
pub struct PostgresWitness {
    link: Link,
    name: String,
    bind: String,
    remember: String,
    recall: String,
    vault: Arc<OnceLock<VaultId>>,
}

impl fmt::Debug for PostgresWitness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresWitness").field("table", &self.name).finish_non_exhaustive()
    }
}

impl PostgresWitness {
    /// Opens the table, and makes it where there is none: `customer_vault_witness`, unless the options name another. One
    /// table serves one vault.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`] where the options cannot be used; [`KeeperError::Foreign`] where there is a table of this name
    /// that is no witness of ours, or of another version; [`KeeperError::ReadOnly`] on a standby;
    /// [`KeeperError::Refused`] where role or password are, or may not make the table; [`KeeperError::Missing`] where
    /// there is no such database; [`KeeperError::Unreachable`].
    pub async fn connect(options: PostgresOptions) -> Result<Self> {
        let pool = options.pooled().map_err(opening)?;
        Self::open(pool, options).await.map_err(opening)
    }

    /// The same on a pool of the shop's own, as
    /// [`PostgresStore::with_pool`](crate::store::PostgresStore::with_pool) takes it.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    pub async fn with_pool(pool: Pool, options: PostgresOptions) -> Result<Self> {
        Self::open((pool, Warnings::default()), options).await.map_err(opening)
    }

    async fn open(pool: Pooled, options: PostgresOptions) -> Result<Self, StoreError> {
        let table = Name::of(&options.schema, options.table_or("customer_vault_witness"))?;
        let link = Link::to(pool, options.answer).await?;
        let client = link.client().await?;
        let row = FormatRow {
            values: format!("0, {}", bytes(LAYOUT.format)),
            found_by: ("line", "n = 0".to_owned()),
        };
        link.wait(table.find_or_make(&client, LAYOUT, &row)).await??;
        let name = table.quoted();
        Ok(PostgresWitness {
            link,
            bind: format!(
                "WITH put AS (INSERT INTO {name} (n, line) VALUES ({BOUND}, $1) ON CONFLICT (n) DO NOTHING) \
                 SELECT 0::int8, set_config('statement_timeout', '0', true)"
            ),
            // One statement, which sees one moment: where anything is wrong, nothing is written. A row that another
            // process has made since that moment fails the transaction, which is then repeated. A time limit ends with
            // it: a commit that is ended by one while it waits for standbys counts as done.
            remember: format!(
                "WITH w AS (SELECT n, line FROM unnest($1, $2) AS w(n, line)), \
                 wrong AS (\
                 SELECT {NO_TRANSACTION} AS why WHERE current_setting('transaction_isolation') <> 'serializable' \
                 UNION ALL SELECT {ANOTHER} WHERE NOT EXISTS \
                 (SELECT 1 FROM {name} WHERE n = {BOUND} AND line = $4) \
                 UNION ALL (SELECT {ANOTHER} FROM w JOIN {name} t ON t.n = w.n WHERE t.line <> w.line LIMIT 1) \
                 UNION ALL (SELECT {GAP} FROM unnest($3) AS h(n) LEFT JOIN {name} t ON t.n = h.n \
                 WHERE t.n IS NULL LIMIT 1)), \
                 put AS (INSERT INTO {name} (n, line) SELECT n, line FROM w \
                 WHERE NOT EXISTS (SELECT 1 FROM wrong) ORDER BY n ON CONFLICT (n) DO NOTHING) \
                 SELECT coalesce(min(why), 0)::int8, set_config('statement_timeout', '0', true) FROM wrong"
            ),
            // One row at least, so that a standby, and the table of another vault, are known by their answer.
            recall: format!(
                "SELECT current_setting('transaction_read_only') = 'off', \
                 EXISTS (SELECT 1 FROM {name} WHERE n = {BOUND} AND line = $2), t.n, t.line \
                 FROM (SELECT 1) s LEFT JOIN \
                 (SELECT n, line FROM {name} WHERE n >= $1 ORDER BY n LIMIT $3) t ON true ORDER BY t.n"
            ),
            name,
            vault: Arc::default(),
        })
    }

    fn vault(&self) -> Result<VaultId, KeeperError> {
        self.vault.get().copied().ok_or(KeeperError::Missing)
    }

    /// Runs a writing statement until its outcome is known, and gives what it says was wrong.
    async fn write(
        &self,
        statement: &str,
        types: &[Type],
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<i64, KeeperError> {
        let [chance] = crypto::random().map_err(|_| KeeperError::Io)?;
        let mut lost = 3_u32;
        for attempt in 0..REPEATS {
            let client = self.link.client().await.map_err(said)?;
            match self.link.wait(self.link.transact(&client, statement, types, parameters)).await {
                Ok(Ok(wrong)) => return Ok(wrong),
                Ok(Err(Failure::Repeat | Failure::Locked)) => drop(client),
                Ok(Err(Failure::Said(why))) => return Err(said(why)),
                // It may have been done: doing it again tells.
                Ok(Err(Failure::Lost | Failure::NotSent)) => {
                    drop(Object::take(client));
                    lost = lost.saturating_sub(1);
                    if lost == 0 {
                        return Err(KeeperError::Unreachable);
                    }
                }
                Err(timeout) => {
                    // The answer is still to come: nobody else shall wait behind it.
                    drop(Object::take(client));
                    return Err(said(timeout));
                }
            }
            self.link.back_off(attempt, chance).await;
        }
        Err(KeeperError::Unreachable)
    }

    async fn page(&self, from: i64, vault: VaultId) -> Result<Vec<Row>, KeeperError> {
        let limit = i64::try_from(CHUNK).map_err(|_| KeeperError::Io)?;
        let types = [Type::INT8, Type::BYTEA, Type::INT8];
        let vault: &[u8] = vault.bytes();
        let rows = self.link.look(&self.recall, &types, &[&from, &vault, &limit]).await.map_err(said)?;
        let first = rows.first().ok_or(KeeperError::Damaged)?;
        let (writable, ours): (bool, bool) = (column(first, 0)?, column(first, 1)?);
        if !writable {
            return Err(KeeperError::ReadOnly);
        }
        if ours { Ok(rows) } else { Err(KeeperError::Foreign) }
    }
}

/// What was wrong, by the number that the statement gives.
const NO_TRANSACTION: i64 = 1;
const ANOTHER: i64 = 2;
const GAP: i64 = 3;

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, KeeperError> {
    row.try_get(at).map_err(|_| KeeperError::Damaged)
}

impl Witness for PostgresWitness {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        let bytes: &[u8] = vault.bytes();
        self.write(&self.bind, &[Type::BYTEA], &[&bytes]).await?;
        // Read back: the row that was there first stands.
        self.page(i64::MAX, vault).await?;
        if *self.vault.get_or_init(|| vault) == vault { Ok(()) } else { Err(KeeperError::Foreign) }
    }

    async fn recall(&self, from: u64) -> Result<Vec<Line>, KeeperError> {
        let vault = self.vault()?;
        let mut lines = Vec::new();
        let mut next = from.max(1);
        loop {
            // Beyond what a table can number there is nothing.
            let Ok(from) = i64::try_from(next) else { return Ok(lines) };
            let rows = self.page(from, vault).await?;
            for row in &rows {
                let Some(number) = column::<Option<i64>>(row, 2)? else { return Ok(lines) };
                if u64::try_from(number) != Ok(next) {
                    return Err(KeeperError::Damaged);
                }
                lines.push(Line { number: next, bytes: column(row, 3)? });
                next = next.saturating_add(1);
            }
            if rows.len() < CHUNK {
                return Ok(lines);
            }
        }
    }

    async fn remember(&self, lines: Vec<Line>) -> Result<(), KeeperError> {
        let vault = self.vault()?;
        let vault: &[u8] = vault.bytes();
        let types = [Type::INT8_ARRAY, Type::BYTEA_ARRAY, Type::INT8_ARRAY, Type::BYTEA];
        let lines = in_order(lines)?;
        let mut left = lines.iter().peekable();
        while left.peek().is_some() {
            let (mut numbers, mut contents, mut before) = (Vec::new(), Vec::new(), Vec::new());
            for (number, bytes) in left.by_ref().take(CHUNK) {
                let one_less = number.saturating_sub(1);
                if numbers.last() != Some(&one_less) {
                    // The line before it must be in the table: row 0 always is.
                    before.push(one_less);
                }
                numbers.push(*number);
                contents.push(bytes.as_slice());
            }
            let wrong = self.write(&self.remember, &types, &[&numbers, &contents, &before, &vault]).await?;
            match wrong {
                0 => {}
                GAP => return Err(KeeperError::Damaged),
                ANOTHER => return Err(KeeperError::Foreign),
                _ => return Err(KeeperError::Io),
            }
        }
        Ok(())
    }

    fn serves(&self) -> Serves {
        Serves::ManyHosts
    }
}

/// Each number once.
fn in_order(lines: Vec<Line>) -> Result<BTreeMap<i64, Vec<u8>>, KeeperError> {
    let mut sorted = BTreeMap::new();
    for line in lines {
        let number = i64::try_from(line.number).ok().filter(|number| *number > 0);
        let number = number.filter(|_| line.bytes.len() <= MAX_LINE).ok_or(KeeperError::Damaged)?;
        match sorted.entry(number) {
            Entry::Occupied(there) if *there.get() != line.bytes => return Err(KeeperError::Foreign),
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => {
                place.insert(line.bytes);
            }
        }
    }
    Ok(sorted)
}

fn opening(error: StoreError) -> Error {
    match error {
        StoreError::Settings => Misuse::Setting.into(),
        error => said(error).into(),
    }
}

/// What a witness can say.
fn said(error: StoreError) -> KeeperError {
    match error {
        StoreError::Foreign => KeeperError::Foreign,
        StoreError::Full => KeeperError::Full,
        StoreError::Damaged => KeeperError::Damaged,
        StoreError::ReadOnly => KeeperError::ReadOnly,
        StoreError::Refused => KeeperError::Refused,
        StoreError::Empty => KeeperError::Missing,
        StoreError::Unreachable | StoreError::Exhausted | StoreError::Timeout | StoreError::Closed => {
            KeeperError::Unreachable
        }
        _ => KeeperError::Io,
    }
}
