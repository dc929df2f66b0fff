//! Restoring: a full backup and its increments into an empty store, and every erasure done again before anything opens.

use std::io::Read;

use super::check::{Chain, Step};
use super::format::Change;
use super::{PAGE, UNFINISHED};
use crate::actor::{Actor, Ground};
use crate::error::{BackupError, Error, KeeperError, Result, RolledBack};
use crate::keeper::{Keeper, Roots};
use crate::log::Action;
use crate::store::{Batch, Committed, Expect, Range, Rows, Store, Version};
use crate::vault::open::{CONFIG, Config, Opening};
use crate::vault::{Options, Vault};
use crate::witness::{Memory, Remembers, Witness};

/// A commit takes about this many bytes of content: 4 MiB.
const COMMIT: usize = 4 << 20;

impl Options {
    /// Restores a full backup and its increments, in their order, into an empty store, and opens the vault, with everything
    /// done again that the witness remembers, as [`recover`](Self::recover) does. Keeper and witness are the vault's own, of
    /// today: they are in no backup.
    ///
    /// Rows are written while the parts are read, and the store opens for nobody until all parts were found whole, signed by
    /// this vault, in order, and under a root that the keeper holds. A restore that was interrupted until then, or refused,
    /// leaves a store that says [`StoreError::Unfinished`](crate::error::StoreError::Unfinished) to everybody, and that a
    /// restore which is begun again clears first. Interrupted after that, it leaves an older copy of the vault, for
    /// [`recover`](Self::recover) to go on with: [`open`](Self::open) refuses it until that has come to its end, and a
    /// restore says [`BackupError::NotEmpty`]. Takes some MiB of memory, and more for the journal.
    ///
    /// Make a full backup afterwards: an increment would hold every row.
    ///
    /// # Errors
    ///
    /// [`BackupError`], for what is wrong with the parts, and [`BackupError::NotEmpty`]; [`RolledBack::Gone`] where the
    /// root of the last part is destroyed, so that it opens for nobody; [`KeeperError::Missing`] where there is no witness;
    /// [`KeeperError::Foreign`] where keeper or witness are another vault's; as [`open`](Self::open) otherwise.
    pub async fn restore<R: Read + Send>(
        self,
        store: impl Store,
        keeper: impl Keeper,
        witness: impl Witness,
        parts: impl IntoIterator<Item = R, IntoIter: Send>,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Vault> {
        let witness = Memory::new(witness);
        if witness.remembers() == Remembers::Nothing {
            return Err(KeeperError::Missing.into());
        }
        let (rows, roots) = (Rows::new(store), Roots::new(keeper));
        let mut chain = Chain::default();
        let mut writing: Option<Writing> = None;
        for part in parts {
            let mut part = chain.begin(part)?;
            if writing.is_none() {
                // Keeper and witness refuse another vault's backup before anything is written.
                roots.bind(part.header().vault).await?;
                witness.bind(part.header().vault).await?;
                writing = Some(Writing::begin(&rows).await?);
            }
            while let Step::Rows(changes) = part.next(&mut chain)? {
                if let Some(writing) = &mut writing {
                    for change in changes {
                        writing.take(change).await?;
                    }
                }
            }
        }
        let mut writing = writing.ok_or(BackupError::NoParts)?;
        writing.flush().await?;
        let config = Config::decode(&writing.config.take().ok_or(BackupError::Altered)?)?;
        let vault = chain.vault()?;
        if config.id != vault {
            return Err(BackupError::Altered.into());
        }
        let bytes = config.encode();
        let opening =
            Opening::begin(config, rows.clone(), roots, witness).await.map_err(|why| match why {
                // What was written is not what this vault has written: the chain holds, and its rows do not.
                Error::DoesNotOpen | Error::RolledBack(RolledBack::Mixed) => BackupError::Altered.into(),
                why => why,
            })?;
        chain.verify(&opening.verifier_keys()?)?;
        writing.finish(bytes).await?;
        self.replay(opening, Action::Restore, actor, ground).await
    }
}

/// A store that is being filled.
struct Writing {
    rows: Rows,
    /// Every commit expects it, so that of two restores into one store the first stops.
    mark: Version,
    batch: Batch,
    bytes: usize,
    /// It says that there is a vault here: written last.
    config: Option<Vec<u8>>,
}

impl Writing {
    /// Marks the store, and clears what an interrupted restore has left in it.
    async fn begin(rows: &Rows) -> Result<Self> {
        let known = rows.get(UNFINISHED).await?;
        if known.is_none() && !rows.page(Range::prefix(b""), 1).await?.rows.is_empty() {
            return Err(BackupError::NotEmpty.into());
        }
        let mut batch = Batch::new()?;
        batch.expect(UNFINISHED, Expect::unchanged(known.as_ref())).put(UNFINISHED, vec![1]);
        let mark = batch.version_of(UNFINISHED);
        if rows.commit(batch).await? == Committed::Conflict {
            return Err(Error::Busy);
        }
        let mut writing = Writing { rows: rows.clone(), mark, batch: Batch::new()?, bytes: 0, config: None };
        let mut range = Range::prefix(b"");
        while known.is_some() {
            let page = rows.page(range.clone(), PAGE).await?;
            for (name, _) in page.rows.into_iter().filter(|(name, _)| name != UNFINISHED) {
                writing.batch.writes.push((name, None));
            }
            writing.flush().await?;
            match page.next {
                Some(next) => range.start = next,
                None => break,
            }
        }
        Ok(writing)
    }

    async fn take(&mut self, change: Change) -> Result<()> {
        let Change { name, value } = change;
        if name == UNFINISHED {
            return Err(BackupError::Altered.into());
        }
        if name == CONFIG {
            self.config = value;
            return Ok(());
        }
        let bytes = value.as_ref().map_or(0, Vec::len).saturating_add(name.len());
        self.bytes = self.bytes.saturating_add(bytes);
        // A part has each name once, so this is the only write of it in the batch, but for a batch over two parts.
        if self.batch.writes.last().is_some_and(|(last, _)| *last >= name) {
            self.flush().await?;
        }
        self.batch.writes.push((name, value));
        if self.bytes >= COMMIT || self.batch.writes.len() >= PAGE { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        if self.batch.writes.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::replace(&mut self.batch, Batch::new()?);
        self.bytes = 0;
        batch.expect(UNFINISHED, Expect::Version(self.mark));
        match self.rows.commit(batch).await? {
            Committed::Yes => Ok(()),
            Committed::Conflict => Err(Error::Busy),
        }
    }

    /// From here on it is a vault, of the moment that the backup shows.
    async fn finish(self, config: Vec<u8>) -> Result<()> {
        let mut batch = self.batch;
        batch.expect(UNFINISHED, Expect::Version(self.mark)).delete(UNFINISHED);
        batch.put(CONFIG, config);
        match self.rows.commit(batch).await? {
            Committed::Yes => Ok(()),
            Committed::Conflict => Err(Error::Busy),
        }
    }
}
