//! The table: its statements and its layout.

use deadpool_postgres::Object;

use super::catalog::{FormatRow, Layout, Name, bytes};
use crate::error::StoreError;
use crate::store::MAX_KEY;

/// The number is the version of this layout.
const LAYOUT: Layout = Layout {
    columns: &[("k", "bytea", "PRIMARY KEY"), ("x", "bytea", "NOT NULL"), ("v", "bytea", "NOT NULL")],
    format: b"customer-vault table 1",
};

/// The name of the row that says what the table is: longer than a vault's names, and behind them all.
const FORMAT_KEY: [u8; MAX_KEY + 2] = [0xFF; MAX_KEY + 2];

/// A table's name, and its statements.
#[derive(Clone, Debug)]
pub(super) struct Table {
    name: Name,
    pub(super) read: String,
    pub(super) scan: String,
    pub(super) commit: String,
}

impl Table {
    pub(super) fn named(schema: &str, table: &str) -> Result<Self, StoreError> {
        let named = Name::of(schema, table)?;
        let name = named.quoted();
        Ok(Table {
            // One row at least, so that a standby is known by its answer.
            read: format!(
                "SELECT s.ro, t.k, t.x, t.v FROM (SELECT current_setting('transaction_read_only') AS ro) s \
                 LEFT JOIN {name} t ON t.k = ANY($1)"
            ),
            // Contents are summed up so that a page fits into memory; the row that is one too many has none.
            scan: format!(
                "SELECT k, x, CASE WHEN before < $4 OR nth = 1 THEN v END, before >= $4 AND nth > 1, current_setting('transaction_read_only') FROM (\
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
            name: named,
        })
    }

    /// With its schema, as SQL writes it.
    pub(super) fn name(&self) -> String {
        self.name.quoted()
    }

    pub(super) async fn find_or_make(&self, client: &Object) -> Result<(), StoreError> {
        let key = bytes(&FORMAT_KEY);
        let row = FormatRow {
            values: [key.as_str(), &bytes(&[0; 16]), &bytes(LAYOUT.format)].join(", "),
            found_by: ("v", format!("k = {key}")),
        };
        self.name.find_or_make(client, LAYOUT, &row).await
    }
}
