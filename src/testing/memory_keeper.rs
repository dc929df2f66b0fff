//! A keeper and witness that lives in memory, and can be told to misbehave.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::KeeperError;
use crate::keeper::file::wrapping::{self, WrappingKey};
use crate::keeper::{Candidate, ErasureClass, Held, Keeper, RootId, RootKey, VaultId};
use crate::witness::{Line, Witness};

/// Keeper and witness in one, for tests. Clones share what is kept; [`snapshot`](Self::snapshot) copies it. Everything
/// ends with the process.
#[derive(Clone, Debug)]
pub struct MemoryKeeper(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    vault: Option<VaultId>,
    active: Option<RootId>,
    roots: Vec<(Held, WrappingKey)>,
    /// Said to be destroyed.
    kept_back: Vec<(Held, WrappingKey)>,
    lines: Vec<Line>,
    keeper_unreachable: bool,
    witness_unreachable: bool,
    lies: bool,
    class: ErasureClass,
}

impl Default for MemoryKeeper {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryKeeper {
    /// Bound to no vault, holding nothing; its erasure class is best effort.
    #[must_use]
    pub fn new() -> Self {
        MemoryKeeper(Arc::new(Mutex::new(State {
            vault: None,
            active: None,
            roots: Vec::new(),
            kept_back: Vec::new(),
            lines: Vec::new(),
            keeper_unreachable: false,
            witness_unreachable: false,
            lies: false,
            class: ErasureClass::BestEffort,
        })))
    }

    /// A copy that shares nothing with this one: a backup of the keeper, to be restored by a test.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let state = self.state();
        let copy =
            |roots: &[(Held, WrappingKey)]| roots.iter().map(|(held, key)| (*held, key.copy())).collect();
        MemoryKeeper(Arc::new(Mutex::new(State {
            vault: state.vault,
            active: state.active,
            roots: copy(&state.roots),
            kept_back: copy(&state.kept_back),
            lines: state.lines.clone(),
            ..*state
        })))
    }

    /// While set, every call of the keeper and of the witness fails with [`KeeperError::Unreachable`].
    pub fn unreachable(&self, yes: bool) {
        self.keeper_unreachable(yes);
        self.witness_unreachable(yes);
    }

    /// While set, every call of the keeper fails with [`KeeperError::Unreachable`].
    pub fn keeper_unreachable(&self, yes: bool) {
        self.state().keeper_unreachable = yes;
    }

    /// While set, every call of the witness fails with [`KeeperError::Unreachable`].
    pub fn witness_unreachable(&self, yes: bool) {
        self.state().witness_unreachable = yes;
    }

    /// While set, `destroy` says that it has destroyed, `held` agrees, and `unwrap` goes on unwrapping.
    pub fn lies_about_destroying(&self, yes: bool) {
        self.state().lies = yes;
    }

    /// What it says of its destruction from now on.
    pub fn says_erasure_class(&self, class: ErasureClass) {
        self.state().class = class;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn as_keeper(&self) -> Result<MutexGuard<'_, State>, KeeperError> {
        let state = self.state();
        if state.keeper_unreachable { Err(KeeperError::Unreachable) } else { Ok(state) }
    }

    fn as_witness(&self) -> Result<MutexGuard<'_, State>, KeeperError> {
        let state = self.state();
        if state.witness_unreachable { Err(KeeperError::Unreachable) } else { Ok(state) }
    }
}

impl State {
    fn bind(&mut self, vault: VaultId) -> Result<(), KeeperError> {
        if *self.vault.get_or_insert(vault) == vault { Ok(()) } else { Err(KeeperError::Foreign) }
    }
}

impl Keeper for MemoryKeeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.as_keeper()?.bind(vault)
    }

    async fn candidate(&self, epoch: u64) -> Result<Candidate, KeeperError> {
        let mut state = self.as_keeper()?;
        let vault = state.vault.ok_or(KeeperError::Missing)?;
        let (key, candidate) = wrapping::candidate(vault)?;
        state.roots.push((Held { id: candidate.id, epoch, activated: false }, key));
        Ok(candidate)
    }

    async fn activate(&self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        let mut state = self.as_keeper()?;
        let now =
            state.roots.iter().find(|(held, _)| Some(held.id) == state.active).map(|(held, _)| held.epoch);
        if now.is_some_and(|now| epoch <= now) {
            return Ok(());
        }
        let (held, _) =
            state.roots.iter_mut().find(|(held, _)| held.id == id).ok_or(KeeperError::NoSuchRoot)?;
        (held.epoch, held.activated) = (epoch, true);
        state.active = Some(id);
        Ok(())
    }

    async fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        let state = self.as_keeper()?;
        let vault = state.vault.ok_or(KeeperError::Missing)?;
        let known = state.roots.iter().chain(&state.kept_back).find(|(held, _)| held.id == id);
        known.ok_or(KeeperError::NoSuchRoot)?.1.unwrap(vault, id, wrapped)
    }

    async fn destroy(&self, id: RootId) -> Result<(), KeeperError> {
        let mut state = self.as_keeper()?;
        if state.active == Some(id) {
            return Err(wrapping::ACTIVE);
        }
        if let Some(index) = state.roots.iter().position(|(held, _)| held.id == id) {
            let root = state.roots.remove(index);
            if state.lies {
                state.kept_back.push(root);
            }
        }
        Ok(())
    }

    async fn held(&self) -> Result<Vec<Held>, KeeperError> {
        Ok(self.as_keeper()?.roots.iter().map(|(held, _)| *held).collect())
    }

    fn erasure_class(&self) -> ErasureClass {
        self.state().class
    }
}

impl Witness for MemoryKeeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.as_witness()?.bind(vault)
    }

    async fn recall(&self, from: u64) -> Result<Vec<Line>, KeeperError> {
        Ok(self.as_witness()?.lines.iter().filter(|line| line.number >= from).cloned().collect())
    }

    async fn remember(&self, lines: Vec<Line>) -> Result<(), KeeperError> {
        let mut state = self.as_witness()?;
        let fresh = crate::keeper::file::journal::fresh(&state.lines, lines)?;
        state.lines.extend(fresh);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::{Keeper, KeeperError, Line, MemoryKeeper, VaultId, Witness};

    const VAULT: VaultId = VaultId([7; 16]);

    fn bound() -> MemoryKeeper {
        let keeper = MemoryKeeper::new();
        block_on(Keeper::bind(&keeper, VAULT)).unwrap();
        keeper
    }

    #[test]
    fn abuse_35_a_lying_keeper_still_unwraps_what_it_says_it_destroyed() {
        let keeper = bound();
        let root = block_on(keeper.candidate(0)).unwrap();
        keeper.lies_about_destroying(true);
        block_on(keeper.destroy(root.id)).unwrap();
        assert!(block_on(keeper.held()).unwrap().is_empty());
        let key = block_on(Keeper::unwrap(&keeper, root.id, &root.wrapped)).unwrap();
        assert_eq!(key.expose(), root.key.expose());
    }

    #[test]
    fn an_honest_one_does_not() {
        let keeper = bound();
        let root = block_on(keeper.candidate(0)).unwrap();
        block_on(keeper.destroy(root.id)).unwrap();
        assert_eq!(
            block_on(Keeper::unwrap(&keeper, root.id, &root.wrapped)).err(),
            Some(KeeperError::NoSuchRoot)
        );
    }

    #[test]
    fn a_snapshot_shares_nothing_and_a_clone_everything() {
        let keeper = bound();
        let root = block_on(keeper.candidate(0)).unwrap();
        let (snapshot, clone) = (keeper.snapshot(), keeper.clone());
        block_on(keeper.destroy(root.id)).unwrap();
        block_on(keeper.remember(vec![Line { number: 1, bytes: vec![1] }])).unwrap();
        assert!(block_on(Keeper::unwrap(&snapshot, root.id, &root.wrapped)).is_ok());
        assert!(block_on(snapshot.recall(1)).unwrap().is_empty());
        assert!(block_on(clone.held()).unwrap().is_empty());
        assert_eq!(block_on(clone.recall(1)).unwrap().len(), 1);
    }

    #[test]
    fn keeper_and_witness_can_be_out_of_reach_apart() {
        let keeper = bound();
        keeper.witness_unreachable(true);
        assert!(block_on(keeper.held()).is_ok());
        assert_eq!(block_on(keeper.recall(1)), Err(KeeperError::Unreachable));
        keeper.unreachable(true);
        assert_eq!(block_on(keeper.held()), Err(KeeperError::Unreachable));
        keeper.unreachable(false);
        assert!(block_on(keeper.recall(1)).is_ok());
    }

    #[test]
    fn the_active_root_is_never_destroyed_and_never_goes_backwards() {
        let keeper = bound();
        let (one, two) = (block_on(keeper.candidate(0)).unwrap(), block_on(keeper.candidate(1)).unwrap());
        block_on(keeper.activate(1, one.id)).unwrap();
        assert!(block_on(keeper.destroy(one.id)).is_err());
        block_on(keeper.activate(2, two.id)).unwrap();
        block_on(keeper.activate(1, one.id)).unwrap();
        assert!(block_on(keeper.destroy(two.id)).is_err());
        block_on(keeper.destroy(one.id)).unwrap();
        assert_eq!(block_on(keeper.activate(3, one.id)), Err(KeeperError::NoSuchRoot));
    }
}
