//! A way to one database: its pool, its time limit, and how its answers are waited for.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use deadpool_postgres::{Object, Pool, PoolError};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::listen::{Pooled, Warnings};
use super::outcome::{Failure, failure};
use crate::error::StoreError;

/// How often a statement that the database asks to repeat is repeated before the caller hears of a conflict.
pub(crate) const REPEATS: u32 = 12;

/// The longest wait for a row that another transaction holds.
const MAX_LOCK: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Link {
    pool: Pool,
    /// How long to wait for an answer.
    answer: Duration,
    /// Whether it is PostgreSQL itself, with its settings and catalogues.
    pub(super) is_postgres: bool,
    begin: String,
    warnings: Warnings,
}

impl Link {
    /// Connects once, and refuses a database that takes no writes.
    pub(crate) async fn to((pool, warnings): Pooled, answer: Duration) -> Result<Self, StoreError> {
        let mut link = Link { pool, answer, is_postgres: false, begin: String::new(), warnings };
        let client = link.client().await?;
        link.is_postgres = link.wait(is_postgres(&client)).await??;
        let serializable = "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE";
        link.begin = String::from(serializable);
        if link.is_postgres {
            // A plan that reads the whole of a small table would conflict with whatever is written to it. A lock is waited
            // for a shorter time than the answer, so that its outcome is known.
            let lock = MAX_LOCK.as_millis().min(answer.as_millis() / 2).max(1);
            link.begin = format!(
                "{serializable}; SET LOCAL enable_seqscan = off; SET LOCAL lock_timeout = {lock}; \
                 SELECT set_config('synchronous_commit', 'on', true) \
                 WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
            );
        }
        Ok(link)
    }

    /// How many warnings the connections of the pool have given.
    fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Acquire)
    }

    pub(crate) async fn client(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(_) => StoreError::Exhausted,
            PoolError::Backend(error) => failure(&error).into_store(),
            PoolError::Closed => StoreError::Closed,
            PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => StoreError::Settings,
        })
    }

    pub(crate) async fn wait<T>(&self, answer: impl Future<Output = T>) -> Result<T, StoreError> {
        tokio::time::timeout(self.answer, answer).await.map_err(|_| StoreError::Timeout)
    }

    /// Runs a reading statement, again where the connection was lost.
    pub(crate) async fn look(
        &self,
        statement: &str,
        types: &[Type],
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let mut attempts = 3_u32;
        loop {
            let client = self.client().await?;
            let answer = async {
                let statement = client.prepare_typed_cached(statement, types).await?;
                client.query(&statement, parameters).await
            };
            let why = match self.wait(answer).await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(error)) => failure(&error),
                Err(timeout) => {
                    // The answer is still to come: nobody else shall wait behind it.
                    drop(Object::take(client));
                    return Err(timeout);
                }
            };
            if why == Failure::Lost {
                drop(Object::take(client));
            }
            attempts = attempts.saturating_sub(1);
            if attempts == 0 || !matches!(why, Failure::Lost | Failure::Repeat | Failure::Locked) {
                return Err(why.into_store());
            }
        }
    }

    /// One attempt at a statement in a transaction of its own, serializable and durable whatever the role or the database
    /// has set; gives the number in its first column. Opening the transaction, the statement and the commit go out
    /// together, so that a future which is dropped leaves no transaction open, and it takes one round trip.
    pub(crate) async fn transact(
        &self,
        client: &Object,
        statement: &str,
        types: &[Type],
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<i64, Failure> {
        // Nothing was written yet: whatever goes wrong here is no unknown outcome.
        let statement = client.prepare_typed_cached(statement, types).await;
        let statement = statement.map_err(|error| failure(&error).before_anything())?;
        let warnings = self.warnings();
        let begin = pin!(client.batch_execute(&self.begin));
        let write = pin!(client.query_one(&statement, parameters));
        let commit = pin!(client.batch_execute("COMMIT"));
        let (begun, written, committed) = tokio::join!(biased; begin, write, commit);
        if let Err(error) = begun {
            let why = failure(&error).at_the_beginning();
            // Without its transaction the statement may have been one of its own.
            return Err(if written.is_ok() { Failure::Lost } else { why });
        }
        let number = written.and_then(|row| row.try_get(0)).map_err(|error| failure(&error))?;
        // Whatever the database says of a commit, other than that it was refused for what it conflicts with, does not say
        // that nothing was written.
        committed.map_err(|error| failure(&error).at_the_commit())?;
        if self.warnings() != warnings {
            // Perhaps that somebody has ended its waiting for the standbys: it is here, and may be nowhere else.
            return Err(Failure::Lost);
        }
        Ok(number)
    }

    /// Waits a while before the next attempt of those that ran into each other: the longer the more there were, and each
    /// by its own `chance`.
    pub(crate) async fn back_off(&self, attempt: u32, chance: u8) {
        let spread = u64::from(chance.rotate_left(attempt)).saturating_add(64);
        tokio::time::sleep(Duration::from_millis((1_u64 << attempt.min(6)).saturating_mul(spread) / 128))
            .await;
    }
}

/// Whether the database is PostgreSQL itself. A standby is refused.
async fn is_postgres(client: &Object) -> Result<bool, StoreError> {
    let row = client
        .query_one("SELECT version(), current_setting('transaction_read_only')", &[])
        .await
        .map_err(|error| failure(&error).into_store())?;
    let version: &str = row.try_get(0).map_err(|_| StoreError::Foreign)?;
    let read_only: &str = row.try_get(1).map_err(|_| StoreError::Foreign)?;
    if read_only == "off" { Ok(version.starts_with("PostgreSQL ")) } else { Err(StoreError::ReadOnly) }
}
