//! Standbys: whether they have everything, and whether the server is set as the promises need it.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::PostgresStore;
use crate::custody::Concern;
use crate::error::StoreError;

/// How often, and how far apart, standbys are asked for their positions before they count as behind.
const ASKED: u32 = 25;
const APART: Duration = Duration::from_millis(200);

/// One moment: the position of now, or that which was given, whether the server takes writes, how many standbys hide their
/// positions, and how many lack something. A base backup that is being taken is a backup: the restore window covers it; and
/// what is sent WAL without ever saying what it has is an archive. A standby that is away keeps its slot, and what it lacks;
/// a slot that has kept nothing says nothing good.
const POSITIONS: &str = "SELECT now.lsn::text, current_setting('transaction_read_only'), \
    (SELECT count(*) FROM pg_stat_replication \
     WHERE state IS DISTINCT FROM 'backup' AND flush_lsn IS NULL AND sent_lsn IS NULL), \
    (SELECT count(*) FROM pg_stat_replication WHERE state IS DISTINCT FROM 'backup' AND flush_lsn < now.lsn) \
    + (SELECT count(*) FROM pg_replication_slots \
       WHERE slot_type = 'physical' AND NOT active AND (restart_lsn IS NULL OR restart_lsn < now.lsn)) \
    FROM (SELECT coalesce($1::text::pg_lsn, pg_current_wal_flush_lsn()) AS lsn) now";

impl PostgresStore {
    /// Waits a few seconds until every standby that is known to the server has on its disk what was committed so far.
    pub(super) async fn wait_for_copies(&self) -> Result<(), StoreError> {
        if !self.link.is_postgres {
            // A distributed database has no copies that lag behind an acknowledged commit.
            return Ok(());
        }
        let mut position: Option<String> = None;
        for asked in 0..ASKED {
            if asked > 0 {
                tokio::time::sleep(APART).await;
            }
            let rows = self.link.look(POSITIONS, &[Type::TEXT], &[&position]).await?;
            let row = rows.first().ok_or(StoreError::Damaged)?;
            let read_only: &str = row.try_get(1).map_err(|_| StoreError::Damaged)?;
            if read_only != "off" {
                return Err(StoreError::ReadOnly);
            }
            if number(Some(row), 2)? > 0 {
                return Err(StoreError::Refused);
            }
            if number(Some(row), 3)? == 0 {
                return Ok(());
            }
            position = Some(row.try_get(0).map_err(|_| StoreError::Damaged)?);
        }
        Err(StoreError::Behind)
    }

    /// What the server's settings lack.
    pub(super) async fn concerns(&self) -> Result<Vec<Concern>, StoreError> {
        let mut concerns = Vec::new();
        if !self.link.is_postgres {
            concerns.push(Concern::Untested);
            return Ok(concerns);
        }
        let row = self
            .one(
                "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
                 (SELECT count(*) FROM pg_stat_replication WHERE sync_state IS NULL), \
                 (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('async') AND state <> 'backup')",
            )
            .await?;
        let is_off = |column| row.try_get(column).map(|setting: &str| setting == "off");
        if is_off(0).map_err(|_| StoreError::Damaged)? {
            concerns.push(Concern::NoSync);
        }
        if is_off(1).map_err(|_| StoreError::Damaged)? {
            concerns.push(Concern::TornPages);
        }
        if number(Some(&row), 2)? > 0 {
            concerns.push(Concern::PositionsHidden);
        }
        if number(Some(&row), 3)? > 0 {
            concerns.push(Concern::AsynchronousStandbys);
        }
        Ok(concerns)
    }

    async fn one(&self, sql: &str) -> Result<Row, StoreError> {
        self.link.look(sql, &[], &[]).await?.into_iter().next().ok_or(StoreError::Damaged)
    }
}

fn number(row: Option<&Row>, column: usize) -> Result<i64, StoreError> {
    row.and_then(|row| row.try_get(column).ok()).ok_or(StoreError::Damaged)
}
