//! The root: replacing it, and bringing the keeper to what the store has decided.

use std::collections::BTreeMap;

use crate::error::{Error, KeeperError, Malformed, Result, RolledBack, StoreError, Unsupported};
use crate::journal::{Event, FENCE, Journal};
use crate::keeper::{Held, RootId};
use crate::key::{Node as NodeStage, Parent, Secret};
use crate::row::{Row, wrap};
use crate::store::{Batch, Committed, Expect, Key, Versioned};
use crate::tree::batch::{Phase, batch_name, way_name};
use crate::tree::node::under_root;
use crate::tree::rotate::{Complete, Turn};
use crate::tree::{ATTEMPTS, Epoch, Node, Path, Root, Tree, mixed};
use crate::wire::{Put as _, Reader};

/// A root that a commit has left. Its proof is the journal's: whoever writes the store must not say that it was left
/// earlier, or the restore window would end too soon.
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

    /// One of which only the keeper knows.
    fn orphan(epoch: u64, id: RootId, at_ms: i64) -> Self {
        Retired { epoch, id, wrapped: Vec::new(), at_ms }
    }

    fn put(&self, journal: &Journal, batch: &mut Batch) {
        let name = Self::name(self.epoch);
        let mut out = vec![1];
        out.put_u64(self.epoch);
        out.put(&self.id);
        out.put_i64(self.at_ms);
        out.put_bytes(&self.wrapped);
        batch.put(&name, journal.prove(&name, out));
    }

    /// `None` where the row is missing, or is not one that this vault has written.
    pub(crate) fn of(journal: &Journal, name: &[u8], row: Option<&Versioned>) -> Result<Option<Self>> {
        row.and_then(|row| journal.proven(name, &row.value)).map(Self::decode).transpose()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return Err(Unsupported::Version.into());
        }
        let (epoch, id, at_ms) = (r.u64()?, r.array()?, r.i64()?);
        let retired = Retired { epoch, id, at_ms, wrapped: r.bytes()?.to_vec() };
        r.end()?;
        Ok(retired)
    }
}

/// Epochs that the store does not know, with their roots, which the new root has to come after.
pub(super) type Orphans = BTreeMap<u64, RootId>;

/// The root as a replacement has read it.
struct Before {
    path: Path,
    epoch: Epoch,
    fence: Option<Versioned>,
    children: Vec<(Key, Versioned)>,
}

impl Tree {
    /// The last commit of batches of which only the root is left: a fresh root, its children wrapped again under it, the
    /// epoch moved; where an epoch is named, that one only. The store decides; the keeper follows.
    pub(super) async fn replace_root(
        &self,
        journal: &Journal,
        now_ms: i64,
        complete: Vec<Complete>,
        orphans: Orphans,
        only: Option<u64>,
    ) -> Result<Turn> {
        // After the phases, so that every child is seen as the last rotation has left it, or as a later one.
        let before = self.before(journal).await?;
        if only.is_some_and(|epoch| epoch != before.epoch.epoch) {
            return Ok(Turn::Again);
        }
        // Beyond what the journal names too: two roots of one epoch would share a row, and neither would be destroyed.
        let named = journal.with(|state| state.epoch);
        let next = orphans.keys().copied().fold(before.epoch.epoch.max(named), u64::max).saturating_add(1);
        let fresh = self.roots.candidate(before.epoch.epoch).await?;
        let secret = Secret::<NodeStage>::from_slice(fresh.key.expose()).ok_or(Error::DoesNotOpen)?;
        let parent = secret.parent(self.suite);

        let mut batch = Batch::new()?;
        let Some(generations) = self.wrap_children(&before, &parent, next, &mut batch)? else {
            return Ok(Turn::Again);
        };
        for Complete { id, row, made, way } in &complete {
            let put_back = |(child, generation): (&Key, &u64)| {
                way.left_behind(child, *made).is_some_and(|old| *generation <= old)
            };
            if generations.iter().any(put_back) {
                self.void(journal, id, row).await?;
                return Ok(Turn::Again);
            }
            let name = batch_name(id);
            let left = Phase::Left { made: *made, epoch: before.epoch.epoch, at_ms: now_ms };
            batch.expect(&name, Expect::Version(row.version));
            batch.put(&name, left.encode(journal, &name));
            batch.delete(&way_name(id));
        }
        for (epoch, id) in orphans {
            Retired::orphan(epoch, id, now_ms).put(journal, &mut batch);
        }
        let Epoch { epoch, id, wrapped } = before.epoch;
        Retired { epoch, id, wrapped, at_ms: now_ms }.put(journal, &mut batch);
        let name = Node::Root.name();
        batch.expect(&name, Expect::Version(before.path.epoch_row.version));
        batch.put(&name, Epoch { epoch: next, id: fresh.id, wrapped: fresh.wrapped }.encode());
        let event = Event::Root { epoch: next, id: fresh.id };
        let lines = match journal.stage(&mut batch, before.fence.as_ref(), &[event]) {
            Err(Error::Busy) => return Ok(Turn::Again),
            lines => lines?,
        };
        if self.rows.commit(batch).await? == Committed::Conflict {
            return Ok(Turn::Again);
        }
        self.keep_root(Root { epoch: next, id: fresh.id, parent });
        journal.committed(&lines)?;
        self.roots.activate(next, fresh.id).await?;
        journal.complete().await?;
        Ok(Turn::Done)
    }

    /// A fresh root although nothing was removed; gives the epoch that was left.
    pub(crate) async fn renew_root(&self, journal: &Journal, now_ms: i64) -> Result<u64> {
        for _ in 0..ATTEMPTS {
            let complete = self.complete(journal).await?;
            let row = self.rows.get(&Node::Root.name()).await?.ok_or(StoreError::Empty)?;
            let epoch = Epoch::decode(&row.value)?.epoch;
            if self.replace_root(journal, now_ms, complete, Orphans::new(), Some(epoch)).await? == Turn::Done
            {
                return Ok(epoch);
            }
        }
        Err(Error::Busy)
    }

    async fn before(&self, journal: &Journal) -> Result<Before> {
        let mut names: Vec<Key> = under_root::ALL.iter().map(|name| name.to_vec()).collect();
        names.push(Node::Days.name());
        let mut more = vec![FENCE.to_vec()];
        more.extend_from_slice(&names);
        let asked = journal.known();
        let (path, rows) = self.path(&Node::Root, &more).await?;
        let mut rows = rows.into_iter();
        let fence = rows.next().flatten();
        journal.catch_up(journal.head_of(fence.as_ref())?, asked).await?;
        let mut children: Vec<(Key, Versioned)> =
            names.into_iter().zip(rows).filter_map(|(name, row)| Some((name, row?))).collect();
        children.extend(self.rows.all(Node::Root.children(self.height)).await?);
        let epoch = Epoch::decode(&path.epoch_row.value)?;
        Ok(Before { path, epoch, fence, children })
    }

    /// Wraps the root's children under the next one, and says their generations; `None` where they are of another moment
    /// than the root.
    fn wrap_children(
        &self,
        before: &Before,
        parent: &Parent,
        next: u64,
        batch: &mut Batch,
    ) -> Result<Option<BTreeMap<Key, u64>>> {
        let mut generations = BTreeMap::new();
        for (name, child) in &before.children {
            let parsed = Row::parse(&child.value)?;
            if parsed.parent_generation != before.epoch.epoch {
                return Ok(None);
            }
            let plain = parsed.open_all(&before.path.root.parent, &self.vault, name).map_err(mixed)?;
            batch.expect(name, Expect::Version(child.version));
            batch.put(name, wrap(parent, &self.vault, name, next, &plain)?);
            generations.insert(name.clone(), plain.generation);
        }
        Ok(Some(generations))
    }

    /// For a store that was restored from an older copy: a root beyond every epoch that keeper or journal have seen, and
    /// rows for the roots that the copy does not know, so that they are destroyed in their turn. The journal knows roots
    /// that the keeper was never told of: whoever replaced them died before that.
    pub(crate) async fn leap(&self, journal: &Journal, now_ms: i64) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let complete = self.complete(journal).await?;
            let row = self.rows.get(&Node::Root.name()).await?.ok_or(StoreError::Empty)?;
            let epoch = Epoch::decode(&row.value)?.epoch;
            let held = self.roots.held().await?;
            let (named, roots) = journal.with(|state| (state.epoch, state.roots.clone()));
            let was = |root: &Held| roots.get(&root.id).copied().or(root.activated.then_some(root.epoch));
            let known = held.iter().filter_map(|root| Some((was(root)?, root.id)));
            let orphans: Orphans = known.filter(|(was, _)| *was > epoch).collect();
            if orphans.is_empty() && named <= epoch {
                return Ok(());
            }
            if self.replace_root(journal, now_ms, complete, orphans, None).await? == Turn::Done {
                return Ok(());
            }
        }
        Err(Error::Busy)
    }

    /// Roots that the keeper holds and no row names any more are retired now: nothing that was ever a root is forgotten
    /// about, whatever became of its row. So is one whose row was altered: when it was left nobody can say, and now is
    /// never too early.
    pub(crate) async fn retire_orphans(&self, journal: &Journal, now_ms: i64) -> Result<()> {
        let (current, held) = self.store_and_keeper(journal).await?;
        for root in held {
            // One may have been the root and been replaced before anybody told the keeper.
            let was = journal.with(|state| state.roots.get(&root.id).copied());
            let Some(epoch) = was.or(root.activated.then_some(root.epoch)) else { continue };
            if root.id == current.id || epoch >= current.epoch {
                continue;
            }
            let name = Retired::name(epoch);
            let row = self.rows.get(&name).await?;
            if Retired::of(journal, &name, row.as_ref())?.is_some_and(|retired| retired.id == root.id) {
                continue;
            }
            let mut batch = Batch::new()?;
            batch.expect(&name, Expect::unchanged(row.as_ref()));
            Retired::orphan(epoch, root.id, now_ms).put(journal, &mut batch);
            self.rows.commit(batch).await?;
        }
        Ok(())
    }

    /// What the store lies under, and what the keeper holds. The keeper first: another process may move both between the
    /// two reads, the store before the keeper. Every root up to the store's is in the journal's memory then.
    async fn store_and_keeper(&self, journal: &Journal) -> Result<(Epoch, Vec<Held>)> {
        let held = self.roots.held().await?;
        let asked = journal.known();
        let rows = self.rows.read(&[Node::Root.name(), FENCE.to_vec()]).await?;
        let [Some(row), fence] = rows.as_slice() else { return Err(StoreError::Empty.into()) };
        journal.catch_up(journal.head_of(fence.as_ref())?, asked).await?;
        Ok((Epoch::decode(&row.value)?, held))
    }

    /// Whether the store lies under this root now.
    async fn still_names(&self, epoch: &Epoch) -> Result<bool> {
        let row = self.rows.get(&Node::Root.name()).await?.ok_or(StoreError::Empty)?;
        Ok(Epoch::decode(&row.value)?.id == epoch.id)
    }

    /// Brings the keeper to what the store has decided, and destroys candidates that lost. Any process may do it at any
    /// time.
    pub(crate) async fn settle_keeper(&self, journal: &Journal) -> Result<()> {
        let (epoch, held) = self.store_and_keeper(journal).await?;
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
            // still come before. What was the root once is in the journal, activated or not.
            let was_root = root.activated || journal.with(|state| state.roots.contains_key(&root.id));
            if !was_root && root.id != epoch.id && root.epoch < epoch.epoch {
                self.roots.destroy(root.id).await?;
            }
        }
        Ok(())
    }
}

/// The row of the highest epoch whose root is destroyed, with all before it.
const SETTLED: &[u8] = b"S";

impl Tree {
    /// That epoch; 0 where no row of this vault's says so: then the next root that is destroyed says it again.
    pub(crate) async fn settled_epoch(&self, journal: &Journal) -> Result<u64> {
        settled_epoch(journal, self.rows.get(SETTLED).await?.as_ref())
    }

    /// The root of this epoch is destroyed, with all before it.
    pub(crate) async fn settled(&self, journal: &Journal, epoch: u64) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let row = self.rows.get(SETTLED).await?;
            let known = settled_epoch(journal, row.as_ref())?;
            let mut batch = Batch::new()?;
            batch.expect(SETTLED, Expect::unchanged(row.as_ref()));
            batch.put(SETTLED, journal.prove(SETTLED, known.max(epoch).to_be_bytes().to_vec()));
            batch.delete(&Retired::name(epoch));
            if self.rows.commit(batch).await? == Committed::Yes {
                return Ok(());
            }
        }
        Err(Error::Busy)
    }
}

fn settled_epoch(journal: &Journal, row: Option<&Versioned>) -> Result<u64> {
    match row.and_then(|row| journal.proven(SETTLED, &row.value)) {
        None => Ok(0),
        Some(bytes) => Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| Malformed::Length)?)),
    }
}
