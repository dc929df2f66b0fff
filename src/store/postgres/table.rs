//! The table: its statements, how it is made, and how it is known to be ours.

use deadpool_postgres::Object;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::outcome::failure;
use crate::error::StoreError;
use crate::store::MAX_KEY;

/// The content of the row that says what the table is. The number is the version of this layout.
const FORMAT: &[u8] = b"customer-vault table 1";

/// The name of that row: longer than a vault's names, and behind them all.
const FORMAT_KEY: [u8; MAX_KEY + 2] = [0xFF; MAX_KEY + 2];

/// A table's name, and its statements.
#[derive(Clone, Debug)]
pub(super) struct Table {
    schema: String,
    own: String,
    /// Whether settings of PostgreSQL's planner exist.
    pub(super) is_postgres: bool,
    pub(super) read: String,
    pub(super) scan: String,
    pub(super) commit: String,
}

impl Table {
    pub(super) fn named(schema: &str, table: &str) -> Result<Self, StoreError> {
        if !is_plain(schema) || !is_plain(table) {
            return Err(StoreError::Settings);
        }
        let name = format!("\"{schema}\".\"{table}\"");
        Ok(Table {
            // One row at least, so that a standby is known by its answer.
            read: format!(
                "SELECT s.ro, t.k, t.x, t.v FROM (SELECT current_setting('transaction_read_only') AS ro) s \
                 LEFT JOIN {name} t ON t.k = ANY($1)"
            ),
            // Contents are summed up so that a page fits into memory; the row that is one too many has none.
            scan: format!(
                "SELECT k, x, CASE WHEN before < $4 OR nth = 1 THEN v END, before >= $4 AND nth > 1 FROM (\
                 SELECT k, x, v, nth, sum(octet_length(v)) OVER (ORDER BY k) - octet_length(v) AS before FROM (\
                 SELECT k, x, v, row_number() OVER (ORDER BY k) AS nth FROM {name} \
                 WHERE k >= $1 AND k < $2 ORDER BY k LIMIT $3) a) b \
                 ORDER BY k"
            ),
            // All of it is one statement, and so sees one moment. A time limit ends with it: a commit that is ended by one
            // while it waits for standbys counts as done. That the transaction is serializable is a precondition
            // like the others: a connection that lost its BEGIN would otherwise write without one.
            commit: format!(
                "WITH wrong AS (\
                 (SELECT 1 FROM unnest($1, $2) AS e(k, x) LEFT JOIN {name} t ON t.k = e.k \
                 WHERE t.x IS DISTINCT FROM e.x LIMIT 1) \
                 UNION ALL SELECT 1 WHERE current_setting('transaction_isolation') <> 'serializable'), \
                 put AS (INSERT INTO {name} (k, x, v) SELECT k, x, v FROM unnest($3, $4, $5) AS w(k, x, v) \
                 WHERE NOT EXISTS (SELECT 1 FROM wrong) \
                 ON CONFLICT (k) DO UPDATE SET x = EXCLUDED.x, v = EXCLUDED.v), \
                 gone AS (DELETE FROM {name} WHERE k = ANY($6) AND NOT EXISTS (SELECT 1 FROM wrong)) \
                 SELECT count(*), set_config('statement_timeout', '0', true) FROM wrong"
            ),
            schema: schema.to_owned(),
            own: table.to_owned(),
            is_postgres: false,
        })
    }

    /// With its schema, as SQL writes it.
    pub(super) fn name(&self) -> String {
        format!("\"{}\".\"{}\"", self.schema, self.own)
    }

    /// Opens a transaction as the store needs it.
    pub(super) fn begin(&self) -> &'static str {
        if self.is_postgres {
            // A plan that reads the whole of a small table would conflict with whatever is written to it.
            "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE; SET LOCAL enable_seqscan = off; \
             SELECT set_config('synchronous_commit', 'on', true) \
             WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
        } else {
            "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE"
        }
    }

    /// Finds the table or makes it. True where the database is PostgreSQL itself.
    pub(super) async fn find_or_make(&self, client: &Object) -> Result<bool, StoreError> {
        let said = |error| failure(&error).into_store();
        let row = client
            .query_one("SELECT version(), current_setting('transaction_read_only')", &[])
            .await
            .map_err(said)?;
        let version: &str = row.try_get(0).map_err(|_| StoreError::Foreign)?;
        let read_only: &str = row.try_get(1).map_err(|_| StoreError::Foreign)?;
        if read_only != "off" {
            return Err(StoreError::ReadOnly);
        }
        let is_postgres = version.starts_with("PostgreSQL ");
        if !self.is_there(client).await? {
            self.make(client).await?;
        }
        self.check(client).await?;
        Ok(is_postgres)
    }

    async fn is_there(&self, client: &Object) -> Result<bool, StoreError> {
        let found = client
            .query_opt(
                "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2",
                &[&self.schema, &self.own],
            )
            .await;
        Ok(found.map_err(|error| failure(&error).into_store())?.is_some())
    }

    /// Two processes may do it at once: the one that comes second finds what the first has made.
    async fn make(&self, client: &Object) -> Result<(), StoreError> {
        let said = |error| failure(&error).into_store();
        let namespace = client
            .query_opt("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1", &[&self.schema])
            .await
            .map_err(said)?;
        if namespace.is_none() {
            // Asked for where it is there, it would need a privilege that nobody needs.
            let made =
                client.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS \"{}\"", self.schema)).await;
            ours_or_another(made)?;
        }
        let name = self.name();
        let made = client
            .batch_execute(&format!(
                "CREATE TABLE IF NOT EXISTS {name} (k bytea PRIMARY KEY, x bytea NOT NULL, v bytea NOT NULL)"
            ))
            .await;
        ours_or_another(made)?;
        self.columns(client).await?;
        let empty = client.query_opt(&format!("SELECT 1 FROM {name} LIMIT 1"), &[]).await.map_err(said)?;
        if empty.is_some() {
            // Another process was here first, and has said what it is.
            return Ok(());
        }
        let version: &[u8] = &[0; 16];
        client
            .execute(
                &format!("INSERT INTO {name} (k, x, v) VALUES ($1, $2, $3) ON CONFLICT (k) DO NOTHING"),
                &[&FORMAT_KEY.as_slice(), &version, &FORMAT],
            )
            .await
            .map_err(said)?;
        Ok(())
    }

    /// Whether the columns are ours.
    async fn columns(&self, client: &Object) -> Result<(), StoreError> {
        let rows = client
            .query(
                "SELECT a.attname::text, t.typname::text FROM pg_catalog.pg_attribute a \
                 JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
                 WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
                &[&self.schema, &self.own],
            )
            .await
            .map_err(|error| failure(&error).into_store())?;
        let column = |row: &Row| -> Result<(String, String), tokio_postgres::Error> {
            Ok((row.try_get(0)?, row.try_get(1)?))
        };
        let columns: Vec<_> =
            rows.iter().map(column).collect::<Result<_, _>>().map_err(|_| StoreError::Foreign)?;
        let ours =
            |(column, (name, kind)): (&(String, String), (&str, &str))| column.0 == name && column.1 == kind;
        if columns.len() == COLUMNS.len() && columns.iter().zip(COLUMNS).all(ours) {
            Ok(())
        } else {
            Err(StoreError::Foreign)
        }
    }

    /// That the table is ours, and of this version.
    async fn check(&self, client: &Object) -> Result<(), StoreError> {
        self.columns(client).await?;
        let name = self.name();
        let row = client
            .query_opt(&format!("SELECT v FROM {name} WHERE k = $1"), &[&FORMAT_KEY.as_slice()])
            .await
            .map_err(|error| failure(&error).into_store())?;
        let format: Vec<u8> = row.ok_or(StoreError::Foreign)?.try_get(0).map_err(|_| StoreError::Foreign)?;
        if format == FORMAT { Ok(()) } else { Err(StoreError::Foreign) }
    }
}

const COLUMNS: [(&str, &str); 3] = [("k", "bytea"), ("x", "bytea"), ("v", "bytea")];

/// Making what another process makes at the same moment can fail for that alone.
fn ours_or_another(made: Result<(), tokio_postgres::Error>) -> Result<(), StoreError> {
    match made {
        Err(error)
            if error.code().is_some_and(|state| {
                [SqlState::UNIQUE_VIOLATION, SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_SCHEMA]
                    .contains(state)
            }) =>
        {
            Ok(())
        }
        made => made.map_err(|error| failure(&error).into_store()),
    }
}

/// Whether a name can stand in a statement as it is.
fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let rest = bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    first && rest && name.len() <= 63
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_more_than_a_name_is_refused() {
        for name in ["", "a\"b", "a.b", "a b", "Vault", "1a", "a;drop", "ä", "a\0b", &"a".repeat(64)] {
            assert_eq!(Table::named("public", name).unwrap_err(), StoreError::Settings, "{name:?}");
            assert_eq!(Table::named(name, "vault").unwrap_err(), StoreError::Settings, "{name:?}");
        }
        assert!(Table::named("shop_1", "_vault").is_ok());
    }
}
