//! Two witnesses at once.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Line, Remembers, Witness};
use crate::error::KeeperError;
use crate::keeper::{Serves, VaultId};
use crate::store::Volume;

/// Two witnesses that remember the same: to go from one to another, or so that the loss of one loses nothing.
///
/// When the vault is opened and has verified what the one says that knows more, the other is told the rest; then both are
/// told everything. A line counts as witnessed when both have it. To go from one to the other, open the vault with both,
/// once in each process, and then with the new one alone. Two that contradict each other are [`KeeperError::Foreign`].
#[derive(Clone, Debug)]
pub struct Both<A, B> {
    one: A,
    two: B,
    /// What one of them lacked when they were last asked: told with the next lines, which the vault has verified.
    lacking: Arc<Mutex<Lacking>>,
}

#[derive(Debug, Default)]
struct Lacking {
    one: Vec<Line>,
    two: Vec<Line>,
}

/// Those that come before the first of `lines`, and then `lines`.
fn after(lacking: &[Line], lines: &[Line]) -> Vec<Line> {
    let first = lines.first().map_or(0, |line| line.number);
    lacking.iter().filter(|line| line.number < first).chain(lines).cloned().collect()
}

impl<A: Witness, B: Witness> Both<A, B> {
    /// Of two witnesses; either may be new.
    #[must_use]
    pub fn new(one: A, two: B) -> Self {
        Both { one, two, lacking: Arc::default() }
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
        let (to_one, to_two) = (rest(&two), rest(&one));
        *self.lacking.lock().unwrap_or_else(PoisonError::into_inner) = Lacking { one: to_one, two: to_two };
        Ok(if one.len() < two.len() { two } else { one })
    }

    async fn remember(&self, lines: Vec<Line>) -> Result<(), KeeperError> {
        let (to_one, to_two) = {
            let lacking = self.lacking.lock().unwrap_or_else(PoisonError::into_inner);
            (after(&lacking.one, &lines), after(&lacking.two, &lines))
        };
        // Both are told, whatever the first says: what one of them has is found when the vault is opened.
        let one = self.one.remember(to_one).await;
        let two = self.two.remember(to_two).await;
        let mut lacking = self.lacking.lock().unwrap_or_else(PoisonError::into_inner);
        if one.is_ok() {
            lacking.one.clear();
        }
        if two.is_ok() {
            lacking.two.clear();
        }
        two.and(one)
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

    fn volumes(&self) -> Vec<Volume> {
        let mut volumes = self.one.volumes();
        volumes.extend(self.two.volumes());
        volumes
    }
}
