//! In whose hands a vault is: what an operator wants to know of store, keeper and witness before starting another process.

use crate::error::Result;
use crate::keeper::{ErasureClass, Serves};
use crate::vault::Vault;
use crate::witness::Remembers;

/// Something about store, keeper or witness that a promise of the vault does not hold with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Concern {
    /// `fsync` is off: what was acknowledged may be lost with the power.
    #[error("fsync is off: what was acknowledged may be lost with the power")]
    NoSync,
    /// `full_page_writes` is off: a crash may leave half a page.
    #[error("full_page_writes is off: a crash may leave half a page")]
    TornPages,
    /// A standby that `synchronous_standby_names` does not name: promoted, it may lack what was acknowledged.
    #[error("a standby is asynchronous: promoted, it may lack what was acknowledged")]
    AsynchronousStandbys,
    /// The role may not see the standbys' positions (`pg_monitor`): `settle` cannot tell whether they have everything.
    #[error("the role may not see the standbys' positions: grant it pg_monitor")]
    PositionsHidden,
    /// There is no witness: an older store is not told from a newer one.
    #[error("there is no witness: a restored store is not told from a newer one")]
    NoWitness,
    /// The newest backup was made before the root was last replaced: once the restore window is over it opens for nobody.
    #[error("the newest backup of the key tables is older than the last shred or expiry: make one")]
    BackupOlderThanShred,
    /// Backups are kept longer than the restore window: the older ones open for nobody once the root was replaced.
    #[error("backups are kept longer than the restore window: the older ones open for nobody")]
    BackupsOutliveWindow,
    /// A database that speaks PostgreSQL's protocol and is another one: untested.
    #[error("a database that was not tested")]
    Untested,
}

/// What store, keeper and witness say of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Custody {
    /// From where the store can be used at once.
    pub store: Serves,
    /// From where the keeper can.
    pub keeper: Serves,
    /// From where the witness can.
    pub witness: Serves,
    /// What the witness keeps.
    pub remembers: Remembers,
    /// What destruction by the keeper is worth.
    pub erasure_class: ErasureClass,
}

impl Custody {
    /// From where the vault can be open at once: no more than the least of the three.
    #[must_use]
    pub fn serves(&self) -> Serves {
        self.store.min(self.keeper).min(self.witness)
    }
}

impl Vault {
    /// What store, keeper and witness of this vault say of themselves.
    ///
    /// A shared store with a keeper of one process is no mistake: it is one process on that store, and a second one is
    /// refused by the keeper.
    #[must_use]
    pub fn custody(&self) -> Custody {
        let inner = &self.0;
        Custody {
            store: if inner.rows.shared() { Serves::ManyHosts } else { Serves::OneProcess },
            keeper: inner.roots.serves(),
            witness: inner.journal.witness().serves(),
            remembers: inner.journal.witness().remembers(),
            erasure_class: inner.roots.erasure_class(),
        }
    }

    /// What store, keeper and witness lack for what the vault promises, and what is wrong with the backups that this vault
    /// has made; empty where all is well. Ask at every start, and show it to an operator. Backups that were made by other
    /// means it knows nothing of.
    ///
    /// # Errors
    ///
    /// Where it cannot be found out.
    pub async fn doctor(&self) -> Result<Vec<Concern>> {
        let mut concerns = self.0.rows.doctor().await?;
        if self.0.journal.witness().remembers() == Remembers::Nothing {
            concerns.push(Concern::NoWitness);
        }
        self.0.catch_up().await?;
        concerns.extend(self.0.backup_concerns().await?);
        Ok(concerns)
    }
}
