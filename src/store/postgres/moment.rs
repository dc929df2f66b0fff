//! All rows as of one moment: a transaction that stays open.

use deadpool_postgres::Object;

use super::link::Link;
use super::outcome::failure;
use super::table::Table;
use super::{Asked, SCAN_TYPES, page};
use crate::error::StoreError;
use crate::store::{Moment, Page, Paging, Range};

/// A connection with a transaction of its own, whose snapshot is that of its first statement. While it is open the
/// database keeps what it could see.
///
/// REPEATABLE READ, not SERIALIZABLE: what it sees is what a crash at that moment would have left, and reading a whole
/// table must not make others repeat. Not READ ONLY either: that is how a standby is known.
pub(super) struct Kept {
    link: Link,
    scan: String,
    /// `None` once it is given up.
    client: Option<Object>,
}

impl Kept {
    pub(super) async fn begin(link: &Link, table: &Table) -> Result<Self, StoreError> {
        // Held from here on, so that a connection with an open transaction never goes back to the pool.
        let client = link.client().await?;
        let mut kept = Kept { link: link.clone(), scan: table.scan.clone(), client: Some(client) };
        let begin = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ";
        let begun = link.wait(kept.client()?.batch_execute(begin)).await?;
        begun.map_err(|error| failure(&error).into_store())?;
        kept.read(Range::prefix(b""), 1).await?;
        Ok(kept)
    }

    fn client(&self) -> Result<&Object, StoreError> {
        self.client.as_ref().ok_or(StoreError::Closed)
    }

    async fn read(&mut self, range: Range, limit: usize) -> Result<Page, StoreError> {
        let asked = Asked::of(range, limit);
        let client = self.client()?;
        let answer = async {
            let statement = client.prepare_typed_cached(&self.scan, &SCAN_TYPES).await?;
            client.query(&statement, &asked.parameters()).await
        };
        let rows = self.link.wait(answer).await?.map_err(|error| failure(&error).into_store())?;
        page(&rows, asked.limit)
    }
}

impl Moment for Kept {
    fn page(&mut self, range: Range, limit: usize) -> Paging<'_> {
        Box::pin(self.read(range, limit))
    }
}

impl Drop for Kept {
    /// Closes the connection, and with it the transaction.
    fn drop(&mut self) {
        drop(self.client.take().map(Object::take));
    }
}
