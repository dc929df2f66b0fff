//! Rotation: new keys for the nodes above what was removed, deepest first, and a new root last ([`root`](super::root)).
//!
//! Each step is one small commit that writes the batch's phase too: the phase says exactly what is done. Enrolments and
//! other changes never write it.
//!
//! Why a batch that is *left* has left everything behind: its way is fixed before the first removal. No removal is made
//! once the phase says rotating, and every rotation names the phase as it was read. A node is rotated only after all that
//! is deeper, and with it goes a look at its children: one that has not left the generation behind that it had when the
//! batch began was put back, and the batch is void. So is one whose way is missing. What remains is the root, whose
//! replacement looks at its children in the same manner and writes the epoch that was left.

use std::collections::{BTreeMap, HashSet};

use crate::crypto;
use crate::error::{Error, Malformed, Result, RolledBack};
use crate::journal::Journal;
use crate::key::{Node as NodeStage, Secret};
use crate::row::{Plain, Row, wrap};
use crate::store::{Committed, Expect, Key, Range, Versioned};
use crate::tree::batch::{Appears, BATCHES, BatchId, Phase, Removals, Way, batch_name, batch_of, way_name};
use crate::tree::{ATTEMPTS, Draft, Node, Tree, mixed};

/// So many nodes of one depth are rotated in one commit, where nothing keeps them apart: each has up to 16 children.
const NODES: usize = 64;

/// Writes that go with a removal: certificates to come, index rows.
pub(crate) type Beside = Vec<(Key, Option<Vec<u8>>)>;

/// What a removal does to each child: another content, the same, or `None` for a child that goes.
pub(crate) trait Edit {
    fn edit(&mut self, name: &[u8], child: Plain, beside: &mut Beside) -> Result<Option<Plain>>;

    /// After all children, also where there is none.
    fn rest(&mut self, beside: &mut Beside) {
        let _ = beside;
    }
}

impl<F: FnMut(&[u8], Plain, &mut Beside) -> Result<Option<Plain>>> Edit for F {
    fn edit(&mut self, name: &[u8], child: Plain, beside: &mut Beside) -> Result<Option<Plain>> {
        self(name, child, beside)
    }
}

/// What became of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Done,
    /// A precondition did not hold: read again.
    Again,
    /// A child was put back.
    PutBack,
}

impl From<Committed> for Turn {
    fn from(committed: Committed) -> Self {
        if committed == Committed::Yes { Turn::Done } else { Turn::Again }
    }
}

/// A batch of which only the root is left to replace.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) id: BatchId,
    pub(super) row: Versioned,
    pub(super) made: u32,
    pub(super) way: Way,
}

impl Tree {
    /// Begins a batch that will remove from the children of these nodes, in this order.
    pub(crate) async fn begin(
        &self,
        journal: &Journal,
        targets: Vec<Node>,
        appears: Appears,
    ) -> Result<Removals> {
        let id = crypto::random()?;
        let missing = if appears == Appears::New { 0 } else { u64::MAX };
        let (mut places, mut absent) = (Vec::new(), HashSet::new());
        for nodes in Way::of_targets(&targets).chunks(1000) {
            // Opened: a generation that somebody has written there would pass for one that was left behind.
            let (paths, _) = self.paths(nodes, &[]).await?;
            for (node, path) in nodes.iter().zip(paths) {
                let generation = path?.at(node).map(|(_, generation, _)| generation);
                if generation.is_none() {
                    absent.insert(node.clone());
                }
                places.push((node.clone(), generation.unwrap_or(missing)));
            }
        }
        let (name, way) = (batch_name(&id), way_name(&id));
        let whole = appears == Appears::Anywhere;
        let mut draft = Draft::new()?;
        draft.expect(&name, Expect::Absent);
        draft.put(&name, Phase::Removing { made: 0 }.encode(journal, &name));
        draft.put(&way, Way::new(places, targets.len(), whole).encode(journal, &way));
        match self.rows.commit(draft.done()).await? {
            Committed::Yes => Ok(Removals { id, targets, absent, made: 0 }),
            Committed::Conflict => Err(Error::Busy),
        }
    }

    /// Makes the next removal of a batch: from the children of one node, which is rotated in the same commit. Nothing
    /// happens where the batch is not removing any more: another process has taken it for dead and goes on with what it
    /// did.
    pub(crate) async fn remove(
        &self,
        journal: &Journal,
        removals: &mut Removals,
        expect: &[(Key, Expect)],
        edit: &mut impl Edit,
    ) -> Result<()> {
        let node = removals.next().ok_or(Malformed::Content)?.clone();
        self.remove_from(journal, removals, &[node], expect, edit, ATTEMPTS).await
    }

    /// New keys for the nodes to remove from next, and nothing removed: so many in one commit. Gives how many children
    /// they have.
    pub(crate) async fn remove_nothing(
        &self,
        journal: &Journal,
        removals: &mut Removals,
        most: usize,
    ) -> Result<usize> {
        let nodes = removals.some(most).to_vec();
        let mut children = 0_usize;
        let mut keep = |_: &[u8], plain: Plain, _: &mut Beside| {
            children = children.saturating_add(1);
            Ok(Some(plain))
        };
        // Fewer at a time, where others write there too: what is said then is `Busy`.
        let attempts = if nodes.len() == 1 { ATTEMPTS } else { 2 };
        self.remove_from(journal, removals, &nodes, &[], &mut keep, attempts).await?;
        Ok(children)
    }

    async fn remove_from(
        &self,
        journal: &Journal,
        removals: &mut Removals,
        nodes: &[Node],
        expect: &[(Key, Expect)],
        edit: &mut impl Edit,
        attempts: usize,
    ) -> Result<()> {
        let name = batch_name(&removals.id);
        let next = removals.made.saturating_add(count(nodes));
        for _ in 0..attempts {
            let row = self.rows.get(&name).await?;
            match Phase::of(journal, &name, row.as_ref())? {
                // Otherwise an older one was put back, and what came after it would be left out of what is said later.
                Some(Phase::Removing { made }) if made == removals.made => {}
                Some(Phase::Removing { .. }) | None => return Err(RolledBack::Mixed.into()),
                Some(_) => return Err(Error::Busy),
            }
            let mut draft = Draft::new()?;
            draft.expect(&name, Expect::unchanged(row.as_ref()));
            draft.put(&name, Phase::Removing { made: next }.encode(journal, &name));
            for (key, what) in expect {
                draft.expect(key, *what);
            }
            if self.rotate_once(draft, nodes, |_| None, edit).await? == Turn::Done {
                removals.made = next;
                return Ok(());
            }
            if !expect.is_empty() {
                // The caller's own precondition may be what failed: it has to look again.
                return Err(Error::Busy);
            }
        }
        Err(Error::Busy)
    }

    /// All removals of the batch are made.
    pub(crate) async fn removed(&self, journal: &Journal, removals: &Removals) -> Result<()> {
        let name = batch_name(&removals.id);
        for _ in 0..ATTEMPTS {
            let row = self.rows.get(&name).await?;
            let made = match Phase::of(journal, &name, row.as_ref())? {
                Some(Phase::Removing { made }) if made == removals.made => made,
                Some(Phase::Removing { .. }) | None => return Err(RolledBack::Mixed.into()),
                Some(_) => return Ok(()),
            };
            let phase = Phase::Rotating { made, done: 0 };
            if self.go_on(journal, &name, row.as_ref(), phase).await? == Turn::Done {
                return Ok(());
            }
        }
        Err(Error::Busy)
    }

    async fn go_on(
        &self,
        journal: &Journal,
        name: &[u8],
        row: Option<&Versioned>,
        phase: Phase,
    ) -> Result<Turn> {
        let mut draft = Draft::new()?;
        draft.expect(name, Expect::unchanged(row));
        draft.put(name, phase.encode(journal, name));
        if phase == Phase::Void
            && let Some(id) = batch_of(name)
        {
            draft.write(&way_name(&id), None);
        }
        Ok(self.rows.commit(draft.done()).await?.into())
    }

    /// From here on nothing is certified by this batch.
    pub(super) async fn void(&self, journal: &Journal, id: &BatchId, row: &Versioned) -> Result<Turn> {
        self.go_on(journal, &batch_name(id), Some(row), Phase::Void).await
    }

    /// New keys for nodes of one depth, the children of each wrapped again under it. `left_behind` says which generation
    /// a child must not have any more.
    async fn rotate_once(
        &self,
        mut draft: Draft,
        nodes: &[Node],
        left_behind: impl Fn(&[u8]) -> Option<u64>,
        edit: &mut impl Edit,
    ) -> Result<Turn> {
        let (paths, _) = self.paths(nodes, &[]).await?;
        let mut beside = Beside::new();
        for (node, path) in nodes.iter().zip(paths) {
            let (path, above) = (path?, node.above().ok_or(Malformed::Content)?);
            // A node that is gone took its children with it: there is nothing to rotate.
            let Some((row, generation, parent)) = path.at(node) else { continue };
            let children = self.rows.all(node.children(self.height)).await?;
            let key = Secret::<NodeStage>::random()?;
            let (fresh, next) = (key.parent(self.suite), generation.saturating_add(1));
            let mut left = 0_usize;
            for (name, child) in &children {
                let parsed = Row::parse(&child.value)?;
                if parsed.parent_generation != generation {
                    // The scan is of a later moment than the path.
                    return Ok(Turn::Again);
                }
                let plain = parsed.open_all(parent, &self.vault, name).map_err(mixed)?;
                if left_behind(name).is_some_and(|old| plain.generation <= old) {
                    return Ok(Turn::PutBack);
                }
                draft.expect(name, Expect::Version(child.version));
                let plain = edit.edit(name, plain, &mut beside)?;
                left = left.saturating_add(plain.is_some().into());
                let wrapped = plain.map(|plain| wrap(&fresh, &self.vault, name, next, &plain)).transpose()?;
                draft.write(name, wrapped);
            }
            let name = node.name();
            draft.expect(&name, Expect::Version(row.version));
            let (above_row, above_generation, above_parent) = path.at(&above).ok_or(RolledBack::Mixed)?;
            draft.touch(&above, above_row);
            let plain = Plain::whole(next, key.expose());
            let wrapped = wrap(above_parent, &self.vault, &name, above_generation, &plain)?;
            // An empty one of the tree stays: made again, it would begin with its first generation, as if put back.
            let stays = left > 0 || matches!(node, Node::Tree(_));
            draft.write(&name, stays.then_some(wrapped));
        }
        edit.rest(&mut beside);
        for (name, value) in beside {
            draft.write(&name, value);
        }
        Ok(self.rows.commit(draft.done()).await?.into())
    }

    /// Takes every batch as far as to where only the root is left to replace; then replaces it. Idempotent: whoever finds
    /// a batch goes on with it, whosever it is. One whose row is altered or missing never comes to an end, and is passed
    /// over: it must not keep others from theirs.
    pub(crate) async fn finish_rotations(&self, journal: &Journal, now_ms: impl Fn() -> i64) -> Result<()> {
        let mut open = false;
        for (name, row) in self.rows.all(Range::prefix(BATCHES)).await? {
            let phase = Phase::of(journal, &name, Some(&row))?;
            if let Some(Phase::Removing { .. } | Phase::Rotating { .. }) = phase
                && let Some(id) = batch_of(&name)
            {
                open = true;
                self.rotate_way(journal, &id).await?;
            }
        }
        if !open {
            return Ok(());
        }
        let mut attempts = 0_usize;
        loop {
            let complete = self.complete(journal).await?;
            if complete.is_empty() {
                return Ok(());
            }
            let done = self.replace_root(journal, now_ms(), complete, BTreeMap::new(), None).await?;
            attempts = if done == Turn::Done { 0 } else { attempts.saturating_add(1) };
            if attempts > ATTEMPTS {
                return Err(Error::Busy);
            }
        }
    }

    /// Rotates what is left of a batch's way. One that is still removing is taken over: what it removed stands, the rest
    /// is still due. A living process that is only slow finds its batch taken and says `Busy`.
    async fn rotate_way(&self, journal: &Journal, id: &BatchId) -> Result<()> {
        let names = [batch_name(id), way_name(id)];
        let [name, ..] = &names;
        let mut known: Option<Way> = None;
        let (mut attempts, mut most) = (0_usize, NODES);
        while attempts <= ATTEMPTS {
            // The way never changes: it is read once.
            let wanted = if known.is_some() { names.get(..1).unwrap_or(&names) } else { &names };
            let mut rows = self.rows.read(wanted).await?.into_iter();
            let Some(row) = rows.next().flatten() else { return Ok(()) };
            let Some(phase @ (Phase::Removing { .. } | Phase::Rotating { .. })) =
                Phase::of(journal, name, Some(&row))?
            else {
                return Ok(());
            };
            if known.is_none() {
                known = Way::of(journal, &way_name(id), rows.next().flatten().as_ref())?;
            }
            let turn = match (&known, phase) {
                (Some(_), Phase::Removing { made }) => {
                    self.go_on(journal, name, Some(&row), Phase::Rotating { made, done: 0 }).await?
                }
                (Some(way), Phase::Rotating { made, done }) => {
                    let nodes = way.steps(done, most);
                    if nodes.is_empty() {
                        return Ok(());
                    }
                    let next = Phase::Rotating { made, done: done.saturating_add(count(&nodes)) };
                    let mut draft = Draft::new()?;
                    draft.expect(name, Expect::Version(row.version));
                    draft.put(name, next.encode(journal, name));
                    self.rotate_once(draft, &nodes, |child| way.left_behind(child, made), &mut keep).await?
                }
                _ => Turn::PutBack,
            };
            // Fewer at a time, where others write there too.
            (attempts, most) = match turn {
                Turn::Again => (attempts.saturating_add(1), most.div_ceil(2)),
                _ => (0, most.saturating_mul(2).min(NODES)),
            };
            if turn == Turn::PutBack {
                // Where somebody was faster it is read again.
                self.void(journal, id, &row).await?;
            }
        }
        Err(Error::Busy)
    }

    /// The batches of which only the root is left to replace.
    pub(super) async fn complete(&self, journal: &Journal) -> Result<Vec<Complete>> {
        let mut complete = Vec::new();
        for (name, row) in self.rows.all(Range::prefix(BATCHES)).await? {
            let Some(id) = batch_of(&name) else { continue };
            let Some(Phase::Rotating { made, done }) = Phase::of(journal, &name, Some(&row))? else {
                continue;
            };
            let way_row = self.rows.get(&way_name(&id)).await?;
            let Some(way) = Way::of(journal, &way_name(&id), way_row.as_ref())? else {
                // Unless somebody has completed it since: then its phase is another.
                self.void(journal, &id, &row).await?;
                continue;
            };
            if way.steps(done, 1).is_empty() {
                complete.push(Complete { id, row, made, way });
            }
        }
        Ok(complete)
    }
}

/// Everything stays.
#[expect(clippy::unnecessary_wraps, reason = "it is an edit")]
fn keep(_: &[u8], plain: Plain, _: &mut Beside) -> Result<Option<Plain>> {
    Ok(Some(plain))
}

fn count(nodes: &[Node]) -> u32 {
    u32::try_from(nodes.len()).unwrap_or(u32::MAX)
}
