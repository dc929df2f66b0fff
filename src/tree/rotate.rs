//! Rotation: new keys for dirty nodes, deepest first, and a new root last.
//!
//! A *mark* is a row that says which batches dirtied a node. Marks only move up: a removal marks a parent, a rotation
//! takes a node's mark away and puts it on the parent. So once a scan from the deepest level up has seen no mark of a
//! batch below the root, none can come back, and the next root leaves everything behind that the batch removed.

use crate::crypto;
use crate::error::{Error, KeeperError, Malformed, Result, RolledBack, StoreError};
use crate::journal::{Event, FENCE, Journal};
use crate::keeper::{Candidate, RootId};
use crate::key::{Node as NodeStage, Secret};
use crate::row::{Plain, Row, wrap};
use crate::store::{Batch, Committed, Expect, Key, Range, Versioned};
use crate::tree::node::under_root;
use crate::tree::{ATTEMPTS, Epoch, Node, Tree, mixed, touch};
use crate::wire::{Put as _, Reader};

/// Names a batch of removals.
pub(crate) type BatchId = [u8; 16];

/// How far a batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Keys are being removed.
    Removing,
    /// All are removed, and nodes are being rotated.
    Rotating,
    /// The store's commit at this moment left the root of this epoch: nothing that the batch removed lies under a later
    /// one. The proof is the journal's: a certificate rests on this row, and whoever writes the store must not make it.
    Left { epoch: u64, at_ms: i64, proof: [u8; 32] },
}

/// The row of a batch.
pub(crate) fn batch_name(id: &BatchId) -> Key {
    [b"p", &id[..]].concat()
}

impl Phase {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = vec![1];
        match self {
            Phase::Removing => out.put_u8(1),
            Phase::Rotating => out.put_u8(2),
            Phase::Left { epoch, at_ms, proof } => {
                out.put_u8(3);
                out.put_u64(epoch);
                out.put_i64(at_ms);
                out.put(&proof);
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return Err(crate::error::Unsupported::Version.into());
        }
        let phase = match r.u8()? {
            1 => Phase::Removing,
            2 => Phase::Rotating,
            3 => Phase::Left { epoch: r.u64()?, at_ms: r.i64()?, proof: r.array()? },
            _ => return Err(Malformed::Content.into()),
        };
        r.end()?;
        Ok(phase)
    }
}

/// A root that a commit has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retired {
    pub(crate) epoch: u64,
    pub(crate) id: RootId,
    pub(crate) wrapped: Vec<u8>,
    pub(crate) at_ms: i64,
}

pub(crate) const RETIRED: &[u8] = b"q";

impl Retired {
    pub(crate) fn name(epoch: u64) -> Key {
        [RETIRED, &epoch.to_be_bytes()[..]].concat()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![1];
        out.put_u64(self.epoch);
        out.put(&self.id);
        out.put_i64(self.at_ms);
        out.put_bytes(&self.wrapped);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return Err(crate::error::Unsupported::Version.into());
        }
        let (epoch, id, at_ms) = (r.u64()?, r.array()?, r.i64()?);
        let retired = Retired { epoch, id, at_ms, wrapped: r.bytes()?.to_vec() };
        r.end()?;
        Ok(retired)
    }
}

const MARKS: &[u8] = b"x";

/// Deepest first.
fn mark_name(node: &Node) -> Key {
    let depth = u8::try_from(node.depth()).unwrap_or(u8::MAX);
    [MARKS, &[u8::MAX.saturating_sub(depth)], &node.name()[..]].concat()
}

fn marked(row: Option<&Versioned>) -> Result<Vec<BatchId>> {
    let Some(row) = row else { return Ok(Vec::new()) };
    let mut r = Reader::new(&row.value);
    let mut ids = Vec::new();
    while !r.is_empty() {
        ids.push(r.array()?);
    }
    Ok(ids)
}

/// Where a new root has to come after epochs that the store does not know.
#[derive(Debug, Default)]
struct Leap {
    floor: u64,
    orphans: Vec<Retired>,
}

/// Writes that go with a removal: certificates to come, index rows.
pub(crate) type Beside = Vec<(Key, Option<Vec<u8>>)>;

/// What a removal does to each child: another content, the same, or `None` for a child that goes.
pub(crate) trait Edit {
    fn edit(&mut self, name: &[u8], child: Plain, beside: &mut Beside) -> Result<Option<Plain>>;
}

impl<F: FnMut(&[u8], Plain, &mut Beside) -> Result<Option<Plain>>> Edit for F {
    fn edit(&mut self, name: &[u8], child: Plain, beside: &mut Beside) -> Result<Option<Plain>> {
        self(name, child, beside)
    }
}

impl Tree {
    /// Begins a batch.
    pub(crate) async fn begin(&self) -> Result<BatchId> {
        let id = crypto::random()?;
        let mut batch = Batch::new()?;
        batch.put(&batch_name(&id), Phase::Removing.encode());
        match self.rows.commit(batch).await? {
            Committed::Yes => Ok(id),
            Committed::Conflict => Err(Error::Busy),
        }
    }

    /// All removals of the batch are made. In the same commit the batch marks the root: whoever has consumed its marks
    /// meanwhile, another root replacement comes, and a replacement that is under way fails.
    pub(crate) async fn removed(&self, id: &BatchId) -> Result<()> {
        let (name, mark) = (batch_name(id), mark_name(&Node::Root));
        for _ in 0..ATTEMPTS {
            let rows = self.rows.read(&[name.clone(), mark.clone()]).await?;
            let [Some(row), root] = rows.as_slice() else { return Err(Error::Busy) };
            if Phase::decode(&row.value)? != Phase::Removing {
                return Ok(());
            }
            let mut ids = marked(root.as_ref())?;
            if !ids.contains(id) {
                ids.push(*id);
            }
            let mut batch = Batch::new()?;
            batch.expect(&name, Expect::Version(row.version));
            batch.put(&name, Phase::Rotating.encode());
            batch.expect(&mark, Expect::unchanged(root.as_ref()));
            batch.put(&mark, ids.concat());
            if self.rows.commit(batch).await? == Committed::Yes {
                return Ok(());
            }
        }
        Err(Error::Busy)
    }

    /// Removes from the children of one node and rotates it, in one commit; the node's parent is marked. Nothing happens
    /// where the batch is not removing any more: another process has taken it for dead and goes on with what it did.
    pub(crate) async fn remove(
        &self,
        id: &BatchId,
        node: &Node,
        expect: &[(Key, Expect)],
        edit: &mut impl Edit,
    ) -> Result<()> {
        let name = batch_name(id);
        for _ in 0..ATTEMPTS {
            let Some(row) = self.rows.get(&name).await? else { return Err(Error::Busy) };
            if Phase::decode(&row.value)? != Phase::Removing {
                return Err(Error::Busy);
            }
            let mut batch = Batch::new()?;
            batch.expect(&name, Expect::Version(row.version));
            for (key, what) in expect {
                batch.expect(key, *what);
            }
            if self.rotate_once(batch, node, Some(*id), edit).await? == Committed::Yes {
                return Ok(());
            }
            if !expect.is_empty() {
                // The caller's own precondition may be what failed: it has to look again.
                return Err(Error::Busy);
            }
        }
        Err(Error::Busy)
    }

    /// New key for a node, its children wrapped again under it.
    async fn rotate_once(
        &self,
        mut batch: Batch,
        node: &Node,
        dirtied_by: Option<BatchId>,
        edit: &mut impl Edit,
    ) -> Result<Committed> {
        let above = node.above().ok_or(Malformed::Content)?;
        let (own_mark, above_mark) = (mark_name(node), mark_name(&above));
        let (path, marks) = self.path(node, &[own_mark.clone(), above_mark.clone()]).await?;
        let (own, over) = match marks.as_slice() {
            [own, over] => (own.as_ref(), over.as_ref()),
            _ => return Err(StoreError::Damaged.into()),
        };
        let mut ids = marked(own)?;
        ids.extend(dirtied_by);
        batch.expect(&own_mark, Expect::unchanged(own));
        if own.is_some() {
            batch.delete(&own_mark);
        }

        // A node that is gone took its children with it: only its mark has to move up.
        if let Some((row, generation, parent)) = path.at(node) {
            let children = self.rows.all(node.children(self.height)).await?;
            let key = Secret::<NodeStage>::random()?;
            let (fresh, next) = (key.parent(self.suite), generation.saturating_add(1));
            let mut left = 0_usize;
            let mut beside = Beside::new();
            for (name, child) in &children {
                let parsed = Row::parse(&child.value)?;
                if parsed.parent_generation != generation {
                    // The scan is of a later moment than the path.
                    return Ok(Committed::Conflict);
                }
                let plain = parsed.open_all(parent, &self.vault, name).map_err(mixed)?;
                batch.expect(name, Expect::Version(child.version));
                match edit.edit(name, plain, &mut beside)? {
                    Some(plain) => {
                        batch.put(name, wrap(&fresh, &self.vault, name, next, &plain)?);
                        left = left.saturating_add(1);
                    }
                    None => {
                        batch.delete(name);
                    }
                }
            }
            for (name, value) in beside {
                match value {
                    Some(value) => batch.put(&name, value),
                    None => batch.delete(&name),
                };
            }
            let name = node.name();
            batch.expect(&name, Expect::Version(row.version));
            let (above_row, above_generation, above_parent) = path.at(&above).ok_or(RolledBack::Mixed)?;
            touch(&above, above_row, &mut batch);
            if left == 0 {
                batch.delete(&name);
            } else {
                let plain = Plain::whole(next, key.expose());
                batch.put(&name, wrap(above_parent, &self.vault, &name, above_generation, &plain)?);
            }
        }

        let mut union = marked(over)?;
        union.extend(ids.into_iter().filter(|id| !union.contains(id)).collect::<Vec<_>>());
        batch.expect(&above_mark, Expect::unchanged(over));
        batch.put(&above_mark, union.concat());
        self.rows.commit(batch).await
    }

    /// Rotates what is dirty, deepest first, until only the root is left to replace; then replaces it. Idempotent:
    /// whoever finds marks goes on with them, whosever they are.
    pub(crate) async fn finish_rotations(&self, journal: &Journal, now_ms: impl Fn() -> i64) -> Result<()> {
        self.adopt().await?;
        let mut attempts = 0_usize;
        loop {
            let Some((name, _)) = self.rows.page(Range::prefix(MARKS), 1).await?.rows.pop() else {
                return Ok(());
            };
            let node = name.get(2..).and_then(Node::from_name).ok_or(Malformed::Content)?;
            let done = if node == Node::Root {
                self.replace_root(journal, now_ms(), &Leap::default()).await?
            } else {
                let mut keep = |_: &[u8], plain: Plain, _: &mut Beside| Ok(Some(plain));
                self.rotate_once(Batch::new()?, &node, None, &mut keep).await?
            };
            attempts = if done == Committed::Yes { 0 } else { attempts.saturating_add(1) };
            if attempts > ATTEMPTS {
                return Err(Error::Busy);
            }
        }
    }

    /// Takes over batches whose process died while it removed: what it removed is marked, the rest is still due. A
    /// living process that is only slow finds its batch taken and says `Busy`.
    async fn adopt(&self) -> Result<()> {
        for (name, row) in self.rows.all(Range::prefix(b"p")).await? {
            if Phase::decode(&row.value)? == Phase::Removing {
                let id: BatchId = name.last_chunk().copied().ok_or(Malformed::Content)?;
                self.removed(&id).await?;
            }
        }
        Ok(())
    }

    /// The last commit of all batches that are dirty at the root alone: a fresh root, its children wrapped again under
    /// it, the epoch moved. The store decides; the keeper follows.
    async fn replace_root(&self, journal: &Journal, now_ms: i64, leap: &Leap) -> Result<Committed> {
        let root_mark = mark_name(&Node::Root);
        let mut names: Vec<Key> = under_root::ALL.iter().map(|name| name.to_vec()).collect();
        names.push(Node::Days.name());
        let mut more = vec![root_mark.clone(), FENCE.to_vec()];
        more.extend_from_slice(&names);
        let (path, mut rows) = self.path(&Node::Root, &more).await?;
        let fixed = rows.split_off(2);
        let (mark, fence) = match rows.as_slice() {
            [mark, fence] => (mark.as_ref(), fence.as_ref()),
            _ => return Err(StoreError::Damaged.into()),
        };
        journal.catch_up(journal.head_of(fence)?).await?;
        let old = Epoch::decode(&path.epoch_row.value)?;

        let mut batch = Batch::new()?;
        batch.expect(&root_mark, Expect::unchanged(mark));
        batch.delete(&root_mark);
        for (name, row) in self.complete_at_root(mark).await? {
            batch.expect(&name, Expect::Version(row.version));
            let proof = journal.proof_of_left(&name, old.epoch, now_ms);
            batch.put(&name, Phase::Left { epoch: old.epoch, at_ms: now_ms, proof }.encode());
        }

        let mut children: Vec<(Key, Versioned)> =
            names.into_iter().zip(fixed).filter_map(|(name, row)| Some((name, row?))).collect();
        children.extend(self.rows.all(Node::Root.children(self.height)).await?);

        for orphan in &leap.orphans {
            batch.put(&Retired::name(orphan.epoch), orphan.encode());
        }
        let next = old.epoch.max(leap.floor).saturating_add(1);
        let fresh = self.roots.candidate(old.epoch).await?;
        let committed =
            self.commit_root(batch, &path, &old, next, &children, &fresh, journal, fence, now_ms).await;
        if committed == Ok(Committed::Yes) {
            self.roots.activate(next, fresh.id).await?;
            journal.complete().await?;
        }
        committed
    }

    #[expect(clippy::too_many_arguments, reason = "one commit, and what it is made of")]
    async fn commit_root(
        &self,
        mut batch: Batch,
        path: &super::Path,
        old: &Epoch,
        next: u64,
        children: &[(Key, Versioned)],
        fresh: &Candidate,
        journal: &Journal,
        fence: Option<&Versioned>,
        now_ms: i64,
    ) -> Result<Committed> {
        let secret = Secret::<NodeStage>::from_slice(fresh.key.expose()).ok_or(Error::DoesNotOpen)?;
        let parent = secret.parent(self.suite);
        for (name, child) in children {
            let parsed = Row::parse(&child.value)?;
            if parsed.parent_generation != old.epoch {
                return Ok(Committed::Conflict);
            }
            let plain = parsed.open_all(&path.root.parent, &self.vault, name).map_err(mixed)?;
            batch.expect(name, Expect::Version(child.version));
            batch.put(name, wrap(&parent, &self.vault, name, next, &plain)?);
        }
        let retired = Retired { epoch: old.epoch, id: old.id, wrapped: old.wrapped.clone(), at_ms: now_ms };
        batch.put(&Retired::name(old.epoch), retired.encode());
        let epoch = Epoch { epoch: next, id: fresh.id, wrapped: fresh.wrapped.clone() };
        let name = Node::Root.name();
        batch.expect(&name, Expect::Version(path.epoch_row.version));
        batch.put(&name, epoch.encode());
        let lines = match journal.stage(&mut batch, fence, &[Event::Root { epoch: next, id: fresh.id }]) {
            Err(Error::Busy) => return Ok(Committed::Conflict),
            lines => lines?,
        };
        let committed = self.rows.commit(batch).await?;
        if committed == Committed::Yes {
            self.keep_root(super::Root { epoch: next, id: fresh.id, parent });
            journal.committed(&lines)?;
        }
        Ok(committed)
    }

    /// The batches of the root's mark that have made all their removals and have no mark below the root any more. Their
    /// phases are read first: a batch that was still removing then could mark a node after the scan.
    async fn complete_at_root(&self, mark: Option<&Versioned>) -> Result<Vec<(Key, Versioned)>> {
        let mut complete = Vec::new();
        for id in marked(mark)? {
            let name = batch_name(&id);
            if let Some(row) = self.rows.get(&name).await?
                && Phase::decode(&row.value)? == Phase::Rotating
            {
                complete.push((id, name, row));
            }
        }
        let root = mark_name(&Node::Root);
        for (name, row) in self.rows.all(Range::prefix(MARKS)).await? {
            if name != root {
                let below = marked(Some(&row))?;
                complete.retain(|(id, ..)| !below.contains(id));
            }
        }
        Ok(complete.into_iter().map(|(_, name, row)| (name, row)).collect())
    }

    /// For a store that was restored from an older copy: a root beyond every epoch that the keeper has seen, and rows for
    /// the roots that the copy does not know, so that they are destroyed in their turn.
    pub(crate) async fn leap(&self, journal: &Journal, now_ms: i64) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let row = self.rows.get(&Node::Root.name()).await?.ok_or(StoreError::Empty)?;
            let epoch = Epoch::decode(&row.value)?.epoch;
            let held = self.roots.held().await?;
            let orphans: Vec<Retired> = held
                .iter()
                .filter(|root| root.activated && root.epoch > epoch)
                .map(|root| Retired { epoch: root.epoch, id: root.id, wrapped: Vec::new(), at_ms: now_ms })
                .collect();
            let Some(floor) = orphans.iter().map(|orphan| orphan.epoch).max() else { return Ok(()) };
            if self.replace_root(journal, now_ms, &Leap { floor, orphans }).await? == Committed::Yes {
                return Ok(());
            }
        }
        Err(Error::Busy)
    }

    /// Roots that the keeper holds and no row names any more are retired now: nothing that was ever a root is forgotten
    /// about, whatever became of its row.
    pub(crate) async fn retire_orphans(&self, now_ms: i64) -> Result<()> {
        let row = self.rows.get(&Node::Root.name()).await?.ok_or(StoreError::Empty)?;
        let current = Epoch::decode(&row.value)?;
        for root in self.roots.held().await? {
            let name = Retired::name(root.epoch);
            if !root.activated
                || root.id == current.id
                || root.epoch >= current.epoch
                || self.rows.get(&name).await?.is_some()
            {
                continue;
            }
            let mut batch = Batch::new()?;
            batch.expect(&name, Expect::Absent);
            let orphan = Retired { epoch: root.epoch, id: root.id, wrapped: Vec::new(), at_ms: now_ms };
            batch.put(&name, orphan.encode());
            self.rows.commit(batch).await?;
        }
        Ok(())
    }

    /// Whether the store lies under this root now.
    async fn still_names(&self, epoch: &Epoch) -> Result<bool> {
        let row = self.rows.get(&Node::Root.name()).await?.ok_or(StoreError::Empty)?;
        Ok(Epoch::decode(&row.value)?.id == epoch.id)
    }

    /// Brings the keeper to what the store has decided, and destroys candidates that lost. Any process may do it at any
    /// time.
    pub(crate) async fn settle_keeper(&self) -> Result<()> {
        // The keeper first: another process may move both between the two reads, the store before the keeper.
        let held = self.roots.held().await?;
        let row = self.rows.get(&Node::Root.name()).await?.ok_or(StoreError::Empty)?;
        let epoch = Epoch::decode(&row.value)?;
        if held.iter().any(|root| root.activated && root.epoch > epoch.epoch) {
            return Err(RolledBack::Store.into());
        }
        match self.roots.unwrap(epoch.id, &epoch.wrapped).await {
            Ok(_) => self.roots.activate(epoch.epoch, epoch.id).await?,
            // Replaced and destroyed by another process since the row was read, or truly lacking.
            Err(KeeperError::NoSuchRoot) if self.still_names(&epoch).await? => {
                return Err(RolledBack::Keeper.into());
            }
            Err(KeeperError::NoSuchRoot) => {}
            Err(why) => return Err(why.into()),
        }
        for root in held {
            // Only when the store has passed the epoch that a candidate was made for: a commit that names it could
            // still come before. What was the root once is in the rows of the retired, activated or not.
            if root.activated || root.id == epoch.id || root.epoch >= epoch.epoch {
                continue;
            }
            let was_root = match self.rows.get(&Retired::name(root.epoch.saturating_add(1))).await? {
                Some(row) => Retired::decode(&row.value)?.id == root.id,
                None => false,
            };
            if !was_root {
                self.roots.destroy(root.id).await?;
            }
        }
        Ok(())
    }
}
