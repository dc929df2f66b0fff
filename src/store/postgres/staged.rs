//! A batch as statements for a transaction of somebody else's.
//!
//! The first ones lock every row that has to be as it was read, written or not, and divide by zero where one is not: an
//! error of its own, whether or not anybody looks at what it gives back. Rows that must be absent are inserted without
//! "on conflict".
//!
//! The store's own commits are serializable and this transaction need not be, so the database does not weigh the two
//! against each other; locks do, as long as no commit writes a row that is only looked at here while it looks at one that
//! is written here. None does: the one row that a staged change only looks at is the fence row, and whoever writes that
//! looks at no record.

use super::{Batch, Expect, Key, Statement, version_of};

/// The most rows of one statement: far below the 65,535 parameters that it may have.
const ROWS: usize = 1000;

/// What has to be before anything else. Outside a transaction each statement would be one of its own, and half a change
/// could stay: a savepoint is refused there.
const BEFORE: [&str; 2] = ["SAVEPOINT customer_vault", "RELEASE SAVEPOINT customer_vault"];

/// The role of a shop's service often leaves durability out; and a transaction that stands idle with these locks holds up
/// every forget.
const SETTINGS: [&str; 2] = [
    "SELECT set_config('synchronous_commit', 'on', true) \
     WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')",
    "SELECT set_config('idle_in_transaction_session_timeout', '15000', true) FROM pg_catalog.pg_settings \
     WHERE name = 'idle_in_transaction_session_timeout' AND (setting::int8 = 0 OR setting::int8 > 15000)",
];

pub(super) fn statements(table: &str, is_postgres: bool, batch: &Batch) -> Vec<Statement> {
    let mut expected: Vec<(&[u8], &[u8])> = Vec::new();
    let mut absent: Vec<&[u8]> = Vec::new();
    for (key, expect) in &batch.expect {
        match expect {
            Expect::Version(version) => expected.push((key, version)),
            Expect::Absent => absent.push(key),
        }
    }
    // In one order everywhere, so that two transactions wait for each other as seldom as can be.
    expected.sort_unstable();
    absent.sort_unstable();
    let (mut made, mut changed, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
    for (key, value) in &batch.writes {
        match value {
            Some(value) if absent.binary_search(&key.as_slice()).is_ok() => made.push((key, value)),
            Some(value) => changed.push((key, value)),
            None => deleted.push(key.as_slice()),
        }
    }
    let written = |key: &[u8]| batch.writes.iter().any(|(name, _)| name == key);
    // What must be absent and stays so: made, so that nobody else can, and deleted again.
    let placeholders: Vec<&[u8]> =
        absent.iter().copied().filter(|key| !made.iter().any(|(name, _)| name.as_slice() == *key)).collect();

    let (locked, shared): (Vec<_>, Vec<_>) = expected.into_iter().partition(|(key, _)| written(key));

    let plain = |sql: &str| Statement { sql: sql.to_owned(), parameters: Vec::new() };
    let mut out: Vec<Statement> = BEFORE.map(plain).into();
    if is_postgres {
        out.extend(SETTINGS.map(plain));
    }
    for (expected, lock) in [(locked, "FOR UPDATE"), (shared, "FOR SHARE")] {
        for rows in expected.chunks(ROWS) {
            let (names, pairs, count) = (list(rows.len(), 2), values(rows.len(), 2), rows.len());
            let sql = format!(
                "WITH l AS (SELECT k, x FROM {table} WHERE k IN ({names}) ORDER BY k {lock}), \
                 e(k, x) AS (VALUES {pairs}) \
                 SELECT 1 / CASE WHEN (SELECT count(*) FROM l JOIN e ON e.k = l.k AND e.x = l.x) = {count} \
                 THEN 1 ELSE 0 END"
            );
            let parameters =
                rows.iter().flat_map(|(key, version)| [key.to_vec(), version.to_vec()]).collect();
            out.push(Statement { sql, parameters });
        }
    }
    for keys in placeholders.chunks(ROWS) {
        let rows = keys.iter().flat_map(|key| [key.to_vec(), vec![0; 16], Vec::new()]).collect();
        out.push(Statement {
            sql: format!("INSERT INTO {table} (k, x, v) VALUES {}", values(keys.len(), 3)),
            parameters: rows,
        });
    }
    let row = |(key, value): &(&Key, &Vec<u8>)| {
        [(*key).clone(), version_of(&batch.nonce, key).to_vec(), (*value).clone()]
    };
    for rows in made.chunks(ROWS) {
        let sql = format!("INSERT INTO {table} (k, x, v) VALUES {}", values(rows.len(), 3));
        out.push(Statement { sql, parameters: rows.iter().flat_map(row).collect() });
    }
    for rows in changed.chunks(ROWS) {
        let sql = format!(
            "INSERT INTO {table} (k, x, v) VALUES {} ON CONFLICT (k) DO UPDATE SET x = EXCLUDED.x, v = EXCLUDED.v",
            values(rows.len(), 3)
        );
        out.push(Statement { sql, parameters: rows.iter().flat_map(row).collect() });
    }
    deleted.extend(placeholders);
    for keys in deleted.chunks(ROWS) {
        let sql = format!("DELETE FROM {table} WHERE k IN ({})", list(keys.len(), 1));
        out.push(Statement { sql, parameters: keys.iter().map(|key| key.to_vec()).collect() });
    }
    out
}

/// `($1, $2), ($3, $4)`.
fn values(rows: usize, columns: usize) -> String {
    let row = |n: usize| {
        let from = n.saturating_mul(columns).saturating_add(1);
        let columns: Vec<String> =
            (from..from.saturating_add(columns)).map(|n| format!("${n}::bytea")).collect();
        format!("({})", columns.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// `$1, $3, $5`, where each has two columns.
fn list(count: usize, columns: usize) -> String {
    let name = |n: usize| format!("${}::bytea", n.saturating_mul(columns).saturating_add(1));
    (0..count).map(name).collect::<Vec<_>>().join(", ")
}
