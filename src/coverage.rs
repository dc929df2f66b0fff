//! Whether every key of the vault opens under its root.

use crate::actor::{Actor, Ground};
use crate::error::Result;
use crate::log::{Action, Count};
use crate::row::Row;
use crate::store::{Key, Range, Versioned};
use crate::tree::node::{day_of, under_root};
use crate::tree::{Epoch, Node, Path};
use crate::vault::{Inner, Vault};

/// How many rows are read at a time, each with its way.
const ROWS: usize = 500;

/// What opens under the root: a proof before a former root, or the keeper that holds it, is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Coverage {
    /// The root epoch when it began: everything below opened under that root or a later one.
    pub epoch: u64,
    /// Entries of subjects, forgotten ones among them.
    pub subjects: u64,
    /// Day keys.
    pub days: u64,
    /// Nodes of the tree and of the calendar, and the vault's secrets, settings and registry.
    pub nodes: u64,
    /// Wrapped parts of all of these: keys, and what is kept beside them.
    pub parts: u64,
    /// Rows that did not open.
    pub faults: u64,
}

impl Coverage {
    /// Whether everything opened.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.faults == 0
    }
}

impl Vault {
    /// Opens every row of the key tables under the root of now, and counts. Readers and writers go on meanwhile: each row
    /// is read together with its way, as of one moment. `progress` is told after every 500 rows.
    ///
    /// # Errors
    ///
    /// What store and keeper say. Rows that do not open are counted.
    pub async fn coverage(
        &self,
        actor: &Actor,
        ground: &Ground,
        progress: impl Fn(&Coverage) + Send,
    ) -> Result<Coverage> {
        let inner = &self.0;
        let (path, _) = inner.tree.path(&Node::Root, &[]).await?;
        // Asked again: memory may have a root that the keeper has not.
        let epoch = Epoch::decode(&path.epoch_row.value)?;
        inner.roots.unwrap(epoch.id, &epoch.wrapped).await?;
        let mut coverage = Coverage { epoch: path.root.epoch, ..Coverage::default() };
        let secrets: Vec<Key> = under_root::ALL.iter().map(|name| name.to_vec()).collect();
        inner.cover(&secrets, &mut coverage).await?;
        for prefix in [&b"b"[..], b"m", b"d", b"n", b"s"] {
            let mut range = Range::prefix(prefix);
            loop {
                let page = inner.rows.page(range.clone(), ROWS).await?;
                let names: Vec<Key> = page.rows.into_iter().map(|(name, _)| name).collect();
                inner.cover(&names, &mut coverage).await?;
                progress(&coverage);
                match page.next {
                    Some(next) => range.start = next,
                    None => break,
                }
            }
        }
        let entry = inner.entry_by(Action::Coverage, actor, ground)?.counting(Count::Epoch, coverage.epoch);
        inner.log(entry.counting(Count::Subjects, coverage.subjects)).await?;
        Ok(coverage)
    }
}

/// What a row lies below. `None` for one that is no row of the key tables.
fn above(name: &[u8], height: u8) -> Option<Node> {
    if under_root::ALL.contains(&name) {
        return Some(Node::Root);
    }
    if let Some(day) = day_of(name) {
        return Some(Node::month(day));
    }
    Node::of_entry(name, height).or_else(|| Node::from_name(name)?.above())
}

impl Inner {
    async fn cover(&self, names: &[Key], coverage: &mut Coverage) -> Result<()> {
        let named = names.iter().map(|name| Some((above(name, self.tree.height)?, name.clone())));
        let (nodes, names): (Vec<Node>, Vec<Key>) = named.clone().flatten().unzip();
        coverage.faults = coverage.faults.saturating_add(count(named.filter(Option::is_none)));
        let (paths, rows) = self.tree.paths(&nodes, &names).await?;
        for (((node, name), path), row) in nodes.iter().zip(&names).zip(paths).zip(rows) {
            // One that is gone since has nothing to open; those of the vault itself are always there.
            if row.is_none() && *node != Node::Root {
                continue;
            }
            let Some(parts) = row.zip(path.ok()).and_then(|(row, path)| self.opens(node, name, &path, &row))
            else {
                coverage.faults = coverage.faults.saturating_add(1);
                continue;
            };
            let kind = match name.first() {
                Some(b's') => &mut coverage.subjects,
                Some(b'd') => &mut coverage.days,
                _ => &mut coverage.nodes,
            };
            *kind = kind.saturating_add(1);
            coverage.parts = coverage.parts.saturating_add(parts);
        }
        Ok(())
    }

    /// How many parts of a row open under the node above it; `None` where one does not.
    fn opens(&self, node: &Node, name: &[u8], path: &Path, row: &Versioned) -> Option<u64> {
        let (_, generation, parent) = path.at(node)?;
        let row = Row::parse(&row.value).ok().filter(|row| row.parent_generation == generation)?;
        row.open_all(parent, &self.id, name).ok()?;
        Some(count(row.parts()))
    }
}

fn count(of: impl Iterator) -> u64 {
    u64::try_from(of.count()).unwrap_or(u64::MAX)
}
