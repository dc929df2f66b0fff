//! A table of ours: its name, how it is made, and how it is known to be ours and of which version.

use std::fmt::Write as _;

use deadpool_postgres::Object;
use tokio_postgres::Row;

use super::outcome::failure;
use crate::error::StoreError;

/// What a table of ours looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Name, type, and what SQL says of it besides.
    pub(crate) columns: &'static [(&'static str, &'static str, &'static str)],
    /// The content of the row that says what the table is, and of which version.
    pub(crate) format: &'static [u8],
}

/// The row that says what a table is.
pub(crate) struct FormatRow {
    /// As SQL writes its values.
    pub(crate) values: String,
    /// The column of the content, and the condition that finds the row.
    pub(crate) found_by: (&'static str, String),
}

/// A table's name with its schema.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    schema: String,
    table: String,
}

impl Name {
    pub(crate) fn of(schema: &str, table: &str) -> Result<Self, StoreError> {
        if is_plain(schema) && is_plain(table) {
            Ok(Name { schema: schema.to_owned(), table: table.to_owned() })
        } else {
            Err(StoreError::Settings)
        }
    }

    /// As SQL writes it.
    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\".\"{}\"", self.schema, self.table)
    }

    /// Finds the table or makes it, and checks that it is ours.
    pub(crate) async fn find_or_make(
        &self,
        client: &Object,
        layout: Layout,
        row: &FormatRow,
    ) -> Result<(), StoreError> {
        if !self.is_there(client).await? {
            let made = self.make(client, layout, row).await;
            // Another process may make it at the same moment, and the database then says one of several things.
            if made.is_err() && !self.is_there(client).await? {
                return made;
            }
        }
        self.has_columns(client, layout).await?;
        let (column, condition) = &row.found_by;
        let found = client
            .query_opt(&format!("SELECT {column} FROM {} WHERE {condition}", self.quoted()), &[])
            .await
            .map_err(|error| failure(&error).into_store())?;
        let format: Vec<u8> =
            found.ok_or(StoreError::Foreign)?.try_get(0).map_err(|_| StoreError::Foreign)?;
        if format == layout.format { Ok(()) } else { Err(StoreError::Foreign) }
    }

    async fn is_there(&self, client: &Object) -> Result<bool, StoreError> {
        let found = client
            .query_opt(
                "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2",
                &[&self.schema, &self.table],
            )
            .await;
        Ok(found.map_err(|error| failure(&error).into_store())?.is_some())
    }

    async fn has_schema(&self, client: &Object) -> Result<bool, StoreError> {
        let found = client
            .query_opt("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1", &[&self.schema])
            .await;
        Ok(found.map_err(|error| failure(&error).into_store())?.is_some())
    }

    /// The table and the row that says what it is are one transaction, so that nobody sees one without the other.
    async fn make(&self, client: &Object, layout: Layout, row: &FormatRow) -> Result<(), StoreError> {
        // Asked for where it is there, a schema would need a privilege that nobody needs.
        if !self.has_schema(client).await? {
            let made =
                client.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS \"{}\"", self.schema)).await;
            if let Err(error) = made
                && !self.has_schema(client).await?
            {
                return Err(failure(&error).into_store());
            }
        }
        let name = self.quoted();
        let mut columns = String::new();
        for (column, kind, more) in layout.columns {
            let comma = if columns.is_empty() { "" } else { ", " };
            let _ = write!(columns, "{comma}{column} {kind} {more}");
        }
        let values = &row.values;
        // Sent together they are one transaction, without a BEGIN that a dropped future could leave open.
        let make = format!("CREATE TABLE {name} ({columns}); INSERT INTO {name} VALUES ({values})");
        client.batch_execute(&make).await.map_err(|error| failure(&error).into_store())
    }

    /// Whether it is a table with our columns and a primary key, which a crash does not empty.
    async fn has_columns(&self, client: &Object, layout: Layout) -> Result<(), StoreError> {
        let rows = client
            .query(
                "SELECT a.attname::text, t.typname::text FROM pg_catalog.pg_attribute a \
                 JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
                 WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped \
                 AND c.relkind = 'r' AND c.relpersistence = 'p' AND EXISTS \
                 (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) \
                 ORDER BY a.attnum",
                &[&self.schema, &self.table],
            )
            .await
            .map_err(|error| failure(&error).into_store())?;
        let column = |row: &Row| -> Result<(String, String), tokio_postgres::Error> {
            Ok((row.try_get(0)?, row.try_get(1)?))
        };
        let columns: Vec<_> =
            rows.iter().map(column).collect::<Result<_, _>>().map_err(|_| StoreError::Foreign)?;
        let ours = columns.len() == layout.columns.len()
            && columns
                .iter()
                .zip(layout.columns)
                .all(|((column, kind), (name, of, _))| column == name && kind == of);
        if ours { Ok(()) } else { Err(StoreError::Foreign) }
    }
}

/// Bytes as SQL writes them, whatever the database thinks of backslashes.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    let mut out = String::from("decode('");
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out.push_str("', 'hex')");
    out
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
            assert_eq!(Name::of("public", name).unwrap_err(), StoreError::Settings, "{name:?}");
            assert_eq!(Name::of(name, "vault").unwrap_err(), StoreError::Settings, "{name:?}");
        }
        assert!(Name::of("shop_1", "_vault").is_ok());
    }
}
