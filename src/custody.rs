//! In whose hands a vault is: what an operator wants to know of store, keeper and witness before starting another process.

use crate::keeper::{ErasureClass, Serves};
use crate::vault::Vault;

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
            witness: inner.journal.witness_serves(),
            erasure_class: inner.roots.erasure_class(),
        }
    }
}
