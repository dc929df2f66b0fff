//! From one keeper to another, while the vault is used.

use super::{Candidate, ErasureClass, Held, Keeper, RootId, RootKey, Serves, VaultId};
use crate::error::KeeperError;
use crate::store::Volume;

/// A keeper that retires another one: every new root is made by `to`, and the roots of `from` go as their time comes.
///
/// 1. Open the vault in **all** processes with a handover instead of the keeper (one that has only `from` would not find the
///    new roots).
/// 2. [`replace_root`](crate::Vault::replace_root), or wait for the next shred: from then on the root lies with `to`.
/// 3. [`settle`](crate::Vault::settle) as usual. When [`remaining`](Self::remaining) says 0 after it, which takes the restore
///    window, open the vault with `to` alone.
///
/// **Not before.** To a vault that is opened with `to` alone, a root that `from` still holds would be one that is gone: it
/// would certify its destruction, under the class of `to`. So before the first root is made there, `to` gets a candidate
/// that never becomes a root, and that goes when `from` has nothing left; while it is there, a vault that is opened with
/// `to` alone says [`KeeperError::HandoverUnderWay`]. Where `from` is lost for ever, hand over from a new keeper that has
/// nothing: that says, in your name, that nothing is left.
///
/// Each step may be repeated and interrupted anywhere. Once a root of `to` has been activated and the last but one of `from`
/// is to be destroyed, `from` gets a root that wraps nothing and is active for ever: it cannot be gone back to. What is left
/// with `from` then opens nothing; delete it.
///
/// Its erasure class is the weaker of the two, also for roots of the stronger. The witness is not handed over: see
/// [`witness::Both`](crate::witness::Both).
#[derive(Clone, Debug)]
pub struct Handover<A, B> {
    from: A,
    to: B,
}

/// The epoch of a root that wraps nothing.
const END: u64 = u64::MAX;

/// The epoch that the candidate would follow that stands with `to` for what `from` still has.
const UNDER_WAY: u64 = u64::MAX - 1;

/// Whether a keeper that holds this is one of two.
pub(super) fn is_under_way(held: &[Held]) -> bool {
    held.iter().any(|root| root.epoch == UNDER_WAY)
}

impl<A: Keeper, B: Keeper> Handover<A, B> {
    /// From one keeper to another. Both may be open already; `to` is new, or is bound to this vault.
    #[must_use]
    pub fn new(from: A, to: B) -> Self {
        Handover { from, to }
    }

    /// How many roots still lie with the keeper that goes. Where it says 0, `to` has been told, and stands alone from
    /// then on.
    ///
    /// # Errors
    ///
    /// Where one of them cannot be reached.
    pub async fn remaining(&self) -> Result<usize, KeeperError> {
        let left = self.left().await?.len();
        if left == 0 {
            for mark in self.marks().await? {
                self.to.destroy(mark).await?;
            }
        }
        Ok(left)
    }

    /// What the keeper that goes has for the vault.
    async fn left(&self) -> Result<Vec<Held>, KeeperError> {
        let mut held = self.from.held().await?;
        held.retain(|root| root.epoch != END);
        Ok(held)
    }

    /// What says with `to` that roots lie elsewhere: one, or more where processes were at it at once.
    async fn marks(&self) -> Result<Vec<RootId>, KeeperError> {
        let held = self.to.held().await?;
        Ok(held.iter().filter(|root| root.epoch == UNDER_WAY).map(|root| root.id).collect())
    }

    /// Has `to` say so, before it gets a root.
    async fn mark(&self) -> Result<(), KeeperError> {
        if self.left().await?.is_empty() || !self.marks().await?.is_empty() {
            return Ok(());
        }
        self.to.candidate(UNDER_WAY).await?;
        // Another process may have taken the last root from `from` since, and have found no mark to take away.
        self.remaining().await.map(drop)
    }

    /// Lets the keeper that goes give up its active root.
    async fn end(&self) -> Result<(), KeeperError> {
        // Perhaps there is one that a process did not get to activate.
        let made = self.from.held().await?.iter().find(|root| root.epoch == END).map(|root| root.id);
        let id = match made {
            Some(id) => id,
            None => self.from.candidate(END).await?.id,
        };
        self.from.activate(END, id).await
    }
}

impl<A: Keeper, B: Keeper> Keeper for Handover<A, B> {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.from.bind(vault).await?;
        self.to.bind(vault).await
    }

    async fn candidate(&self, epoch: u64) -> Result<Candidate, KeeperError> {
        self.mark().await?;
        self.to.candidate(epoch).await
    }

    async fn activate(&self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        // What it does not hold is the other's, or nobody's.
        if self.to.held().await?.iter().any(|root| root.id == id) {
            self.to.activate(epoch, id).await
        } else {
            self.from.activate(epoch, id).await
        }
    }

    async fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        let first = match self.to.unwrap(id, wrapped).await {
            Ok(key) => return Ok(key),
            // A service that has only other vaults' keys so far: nothing of this one.
            Err(KeeperError::Foreign) => KeeperError::NoSuchRoot,
            Err(why) => why,
        };
        match self.from.unwrap(id, wrapped).await {
            // It may lie with the one that could not be asked.
            Err(KeeperError::NoSuchRoot) => Err(first),
            unwrapped => unwrapped,
        }
    }

    async fn destroy(&self, id: RootId) -> Result<(), KeeperError> {
        self.to.destroy(id).await?;
        let held = self.from.held().await?;
        let Some(root) = held.iter().find(|root| root.id == id) else {
            // Perhaps one that died right after it had destroyed the last.
            return self.remaining().await.map(drop);
        };
        let newest = held.iter().filter(|root| root.activated).map(|root| root.epoch).max();
        let is_active = root.activated && Some(root.epoch) == newest;
        let moved =
            async || Ok(self.to.held().await?.iter().any(|new| new.activated && new.epoch > root.epoch));
        if is_active && moved().await? {
            self.end().await?;
        }
        self.from.destroy(id).await?;
        self.remaining().await.map(drop)
    }

    async fn held(&self) -> Result<Vec<Held>, KeeperError> {
        let mut held = self.left().await?;
        held.extend(self.to.held().await?.into_iter().filter(|root| root.epoch != UNDER_WAY));
        Ok(held)
    }

    fn erasure_class(&self) -> ErasureClass {
        match (self.from.erasure_class(), self.to.erasure_class()) {
            (ErasureClass::BestEffort, _) | (_, ErasureClass::BestEffort) => ErasureClass::BestEffort,
            (
                ErasureClass::Service { min_delay_s: a, max_delay_s: b },
                ErasureClass::Service { min_delay_s: c, max_delay_s: d },
            ) => ErasureClass::Service { min_delay_s: a.min(c), max_delay_s: b.max(d) },
            (service @ ErasureClass::Service { .. }, ErasureClass::Hardware)
            | (ErasureClass::Hardware, service @ ErasureClass::Service { .. }) => service,
            (ErasureClass::Hardware, ErasureClass::Hardware) => ErasureClass::Hardware,
        }
    }

    fn serves(&self) -> Serves {
        self.from.serves().min(self.to.serves())
    }

    /// Those of `to`, and what else `from` lies on: the two are no copies of each other.
    fn volumes(&self) -> Vec<Volume> {
        let mut volumes = self.to.volumes();
        let known = volumes.clone();
        volumes.extend(self.from.volumes().into_iter().filter(|volume| !known.contains(volume)));
        volumes
    }
}
