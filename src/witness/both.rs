//! Two witnesses at once.

use super::{Line, Remembers, Witness};
use crate::error::KeeperError;
use crate::keeper::{Serves, VaultId};

/// Two witnesses that remember the same: to go from one to another, or so that the loss of one loses nothing.
///
/// When the vault is opened, the one that knows less is told the rest; then both are told everything. A line counts as
/// witnessed when both have it. To go from one to the other, open the vault with both, once in each process, and then with
/// the new one alone. Two that contradict each other are [`KeeperError::Foreign`].
#[derive(Clone, Debug)]
pub struct Both<A, B> {
    one: A,
    two: B,
}

impl<A: Witness, B: Witness> Both<A, B> {
    /// Of two witnesses; either may be new.
    #[must_use]
    pub fn new(one: A, two: B) -> Self {
        Both { one, two }
    }
}

impl<A: Witness, B: Witness> Witness for Both<A, B> {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.one.bind(vault).await?;
        self.two.bind(vault).await
    }

    async fn recall(&self, from: u64) -> Result<Vec<Line>, KeeperError> {
        let (one, two) = (self.one.recall(from).await?, self.two.recall(from).await?);
        let both = one.len().min(two.len());
        if one.get(..both) != two.get(..both) {
            return Err(KeeperError::Foreign);
        }
        let rest = |lines: &[Line]| lines.get(both..).unwrap_or_default().to_vec();
        if one.len() < two.len() {
            self.one.remember(rest(&two)).await?;
            return Ok(two);
        }
        if two.len() < one.len() {
            self.two.remember(rest(&one)).await?;
        }
        Ok(one)
    }

    async fn remember(&self, lines: Vec<Line>) -> Result<(), KeeperError> {
        // Both are told, whatever the first says: what one of them has is found when the vault is opened.
        let one = self.one.remember(lines.clone()).await;
        self.two.remember(lines).await.and(one)
    }

    fn remembers(&self) -> Remembers {
        match (self.one.remembers(), self.two.remembers()) {
            (Remembers::Nothing, Remembers::Nothing) => Remembers::Nothing,
            _ => Remembers::Lines,
        }
    }

    fn serves(&self) -> Serves {
        self.one.serves().min(self.two.serves())
    }
}
