//! The key tree: nodes that wrap what lies below them, up to a root that lies outside the store.
//!
//! Two rules keep it whole (both were modelled, and both have a test that fails without them):
//!
//! - Whoever adds, changes or removes a child commits with the parent row's version as a precondition *and writes the
//!   parent row again*. Checking alone would lose an acknowledged enrolment to a rotation that runs at the same time.
//! - A shred rotates node by node, deepest first, each in a small commit under the current root, which also
//!   says how far its batch has come ([`rotate`]). The root comes last ([`root`]).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use zeroize::Zeroizing;

use crate::crypto::aead::Suite;
use crate::entry::{Entry, META_PART, Meta};
use crate::error::{Error, KeeperError, Malformed, Result, RolledBack, StoreError, Unsupported};
use crate::keeper::{RootId, Roots, VaultId};
use crate::key::{Node as NodeStage, Parent, Secret, Tag};
use crate::row::{Part, Plain, Row, wrap};
use crate::store::{Batch, Expect, Key, Range, Rows, Versioned};
use crate::wire::{Put as _, Reader};

pub(crate) mod batch;
mod draft;
pub(crate) mod node;
pub(crate) mod root;
pub(crate) mod rotate;

pub(crate) use draft::Draft;
pub(crate) use node::Node;

/// How often a lost race is run again before the caller is told [`Error::Busy`].
pub(crate) const ATTEMPTS: usize = 100;

/// Of a node that was just made.
const FIRST_GENERATION: u64 = 1;

/// The epoch row: which root the store lies under.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "its number is the epoch")]
pub(crate) struct Epoch {
    pub(crate) epoch: u64,
    pub(crate) id: RootId,
    pub(crate) wrapped: Vec<u8>,
}

impl Epoch {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![1];
        out.put_u64(self.epoch);
        out.put(&self.id);
        out.put_bytes(&self.wrapped);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return Err(Unsupported::Version.into());
        }
        let epoch = Epoch { epoch: r.u64()?, id: r.array()?, wrapped: r.bytes()?.to_vec() };
        r.end()?;
        if epoch.wrapped.len() > 1024 { Err(Malformed::Length.into()) } else { Ok(epoch) }
    }
}

/// A root, ready for use on the rows below it.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) epoch: u64,
    pub(crate) id: RootId,
    pub(crate) parent: Parent,
}

/// The tree of one vault.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) vault: VaultId,
    pub(crate) rows: Rows,
    pub(crate) roots: Roots,
    pub(crate) suite: Suite,
    pub(crate) height: u8,
    current: RwLock<Option<Arc<Root>>>,
}

/// A row with the keys to what lies below it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) node: Node,
    pub(crate) row: Versioned,
    pub(crate) generation: u64,
    pub(crate) parent: Arc<Parent>,
}

/// The way from the root to a node, as of one moment.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) root: Arc<Root>,
    pub(crate) epoch_row: Arc<Versioned>,
    /// What exists of the way, from the top. Ways that were read together share their nodes.
    pub(crate) nodes: Vec<Arc<Opened>>,
}

impl Path {
    /// The row, generation and keys of the deepest node that exists.
    fn deepest(&self) -> (&Versioned, Node, u64, &Parent) {
        self.nodes
            .last()
            .map_or((&self.epoch_row, Node::Root, self.root.epoch, &self.root.parent), |opened| {
                (&opened.row, opened.node.clone(), opened.generation, &opened.parent)
            })
    }

    /// The same of a node on the way.
    pub(crate) fn at(&self, node: &Node) -> Option<(&Versioned, u64, &Parent)> {
        if *node == Node::Root {
            return Some((&self.epoch_row, self.root.epoch, &self.root.parent));
        }
        let opened = self.nodes.iter().find(|opened| opened.node == *node)?;
        Some((&opened.row, opened.generation, &opened.parent))
    }
}

/// The nodes of several ways, each once, those above before those below.
struct Ways {
    /// With the place of the node above; `None` directly below the root.
    nodes: Vec<(Node, Option<usize>)>,
    /// The places of each way's nodes, from the top.
    each: Vec<Vec<usize>>,
}

impl Ways {
    fn to(ends: &[Node]) -> Self {
        let mut places: HashMap<Node, usize> = HashMap::new();
        let mut ways = Ways { nodes: Vec::new(), each: Vec::with_capacity(ends.len()) };
        for end in ends {
            let mut each = Vec::new();
            for node in end.way() {
                let place = *places.entry(node).or_insert_with_key(|node| {
                    ways.nodes.push((node.clone(), each.last().copied()));
                    ways.nodes.len().saturating_sub(1)
                });
                each.push(place);
            }
            ways.each.push(each);
        }
        ways
    }
}

/// A subject's entry as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: Path,
    pub(crate) name: Key,
    pub(crate) row: Option<Versioned>,
}

impl Tree {
    pub(crate) fn new(vault: VaultId, rows: Rows, roots: Roots, suite: Suite, height: u8) -> Self {
        Tree { vault, rows, roots, suite, height, current: RwLock::default() }
    }

    /// The root that a row names: from memory, or from the keeper.
    pub(crate) async fn root(&self, epoch: &Epoch) -> Result<Arc<Root>> {
        if let Some(root) = self.current.read().unwrap_or_else(PoisonError::into_inner).as_ref()
            && root.id == epoch.id
            && root.epoch == epoch.epoch
        {
            return Ok(Arc::clone(root));
        }
        let key = match self.roots.unwrap(epoch.id, &epoch.wrapped).await {
            Ok(key) => key,
            Err(KeeperError::NoSuchRoot) => return Err(self.who_is_older(epoch).await?),
            Err(why) => return Err(why.into()),
        };
        let secret = Secret::<NodeStage>::from_slice(key.expose()).ok_or(Error::DoesNotOpen)?;
        Ok(self.keep_root(Root { epoch: epoch.epoch, id: epoch.id, parent: secret.parent(self.suite) }))
    }

    /// Keeps a root in memory: while the keeper is out of reach, reading goes on with it.
    pub(crate) fn keep_root(&self, root: Root) -> Arc<Root> {
        let root = Arc::new(root);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|known| known.epoch <= root.epoch) {
            *current = Some(Arc::clone(&root));
        }
        root
    }

    /// The keeper lacks the root that the store names: either it has destroyed it, or it is the older one.
    async fn who_is_older(&self, epoch: &Epoch) -> Result<Error> {
        let newest =
            self.roots.held().await?.iter().filter(|held| held.activated).map(|held| held.epoch).max();
        Ok(Error::RolledBack(if newest.is_some_and(|newest| newest > epoch.epoch) {
            RolledBack::Gone
        } else {
            RolledBack::Keeper
        }))
    }

    /// Reads the way to `node` and some other rows, all as of one moment, in one multi-key read.
    pub(crate) async fn path(&self, node: &Node, more: &[Key]) -> Result<(Path, Vec<Option<Versioned>>)> {
        let (mut paths, rows) = self.paths(std::slice::from_ref(node), more).await?;
        Ok((paths.pop().ok_or(Malformed::Length)??, rows))
    }

    /// Reads the ways to several nodes and some other rows, all as of one moment, in one multi-key read. A node that ways
    /// share is read and opened once; one that does not open spoils the ways through it and no others.
    pub(crate) async fn paths(
        &self,
        nodes: &[Node],
        more: &[Key],
    ) -> Result<(Vec<Result<Path>>, Vec<Option<Versioned>>)> {
        let ways = Ways::to(nodes);
        let mut names = vec![Node::Root.name()];
        names.extend(ways.nodes.iter().map(|(node, _)| node.name()));
        names.extend_from_slice(more);
        let mut lacking = None;
        for _ in 0..ATTEMPTS {
            let mut rows = self.rows.read(&names).await?.into_iter();
            let epoch_row = rows.next().flatten().ok_or(StoreError::Empty)?;
            if let Some((version, why)) = lacking.take()
                && version == epoch_row.version
            {
                return Err(why);
            }
            match self.root(&Epoch::decode(&epoch_row.value)?).await {
                Ok(root) => {
                    let top = Path { root, epoch_row: Arc::new(epoch_row), nodes: Vec::new() };
                    return Ok((self.open_ways(&ways, &top, &mut rows), rows.collect()));
                }
                // The root may have been replaced and destroyed between the store's answer and the keeper's: it was no
                // race only where the store still names that root.
                Err(why @ Error::RolledBack(_)) => lacking = Some((epoch_row.version, why)),
                Err(why) => return Err(why),
            }
        }
        Err(Error::Busy)
    }

    /// One path a way, from the rows of their nodes.
    fn open_ways(
        &self,
        ways: &Ways,
        top: &Path,
        rows: &mut impl Iterator<Item = Option<Versioned>>,
    ) -> Vec<Result<Path>> {
        let mut opened: Vec<Result<Option<Arc<Opened>>>> = Vec::with_capacity(ways.nodes.len());
        for (node, above) in &ways.nodes {
            let row = rows.next().flatten();
            let above = match above.map(|place| opened.get(place)) {
                None => Ok(Some((top.root.epoch, &top.root.parent))),
                Some(Some(Ok(Some(above)))) => Ok(Some((above.generation, &*above.parent))),
                Some(Some(Err(why))) => Err(*why),
                Some(Some(Ok(None)) | None) => Ok(None),
            };
            opened.push(match (above, row) {
                (Err(why), _) => Err(why),
                (Ok(Some((generation, parent))), Some(row)) => {
                    self.open_node(parent, generation, node.clone(), row).map(|opened| Some(Arc::new(opened)))
                }
                // A node without the one above it: rows of different moments.
                (Ok(None), Some(_)) => Err(RolledBack::Mixed.into()),
                (Ok(_), None) => Ok(None),
            });
        }
        let path = |way: &Vec<usize>| {
            let mut path = top.clone();
            for node in way.iter().filter_map(|place| opened.get(*place)) {
                path.nodes.extend(node.as_ref().map_err(|why| *why)?.clone());
            }
            Ok(path)
        };
        ways.each.iter().map(path).collect()
    }

    fn open_node(&self, above: &Parent, generation: u64, node: Node, row: Versioned) -> Result<Opened> {
        let (own, key) = {
            let parsed = Row::parse(&row.value)?;
            if parsed.parent_generation != generation {
                return Err(RolledBack::Mixed.into());
            }
            let key = parsed
                .open(above, &self.vault, &node.name(), Part::WHOLE)
                .map_err(mixed)?
                .ok_or(Error::DoesNotOpen)?;
            (parsed.generation, Secret::<NodeStage>::from_slice(&key).ok_or(Error::DoesNotOpen)?)
        };
        Ok(Opened { node, row, generation: own, parent: Arc::new(key.parent(self.suite)) })
    }

    /// Reads a subject's entry with its way, and some other rows.
    pub(crate) async fn find(&self, tag: &Tag, more: &[Key]) -> Result<(Found, Vec<Option<Versioned>>)> {
        let (mut found, rows) = self.find_many(std::slice::from_ref(tag), more).await?;
        Ok((found.pop().ok_or(Malformed::Length)??, rows))
    }

    /// Reads the entries of several subjects with their ways, and some other rows, in one multi-key read.
    pub(crate) async fn find_many(
        &self,
        tags: &[Tag],
        more: &[Key],
    ) -> Result<(Vec<Result<Found>>, Vec<Option<Versioned>>)> {
        let buckets: Vec<Node> = tags.iter().map(|tag| Node::bucket(tag, self.height)).collect();
        let mut names: Vec<Key> = tags.iter().map(|tag| node::entry_name(tag, self.height)).collect();
        names.extend_from_slice(more);
        let (paths, rows) = self.paths(&buckets, &names).await?;
        let mut rows = rows.into_iter();
        let found = paths.into_iter().zip(names).zip(rows.by_ref()).map(|((path, name), row)| {
            let path = path?;
            if row.is_some() && path.nodes.len() != usize::from(self.height) {
                return Err(RolledBack::Mixed.into());
            }
            Ok(Found { path, name, row })
        });
        Ok((found.collect(), rows.collect()))
    }

    /// The places of these subjects, wherever they lie: every entry is opened and looked at. Of two, the one under the
    /// later lookup key is the subject's, and the other was put back.
    pub(crate) async fn places_of(&self, tags: &HashSet<Tag>) -> Result<HashMap<Tag, Tag>> {
        let mut places: HashMap<Tag, (u16, Tag)> = HashMap::new();
        let mut range = Range::prefix(b"s");
        loop {
            let page = self.rows.page(range.clone(), 500).await?;
            let here: Vec<Tag> = page.rows.iter().filter_map(|(name, _)| node::tag_of(name)).collect();
            let (found, _) = self.find_many(&here, &[]).await?;
            for (found, place) in found.into_iter().zip(here) {
                // One that does not open is nobody's.
                let Ok(Some(meta)) = found.and_then(|found| self.meta(&found)) else { continue };
                let tag = meta.tag(&place);
                if tags.contains(&tag) && places.get(&tag).is_none_or(|(lookup, _)| *lookup < meta.lookup) {
                    places.insert(tag, (meta.lookup, place));
                }
            }
            match page.next {
                Some(next) => range.start = next,
                None => return Ok(places.into_iter().map(|(tag, (_, place))| (tag, place)).collect()),
            }
        }
    }

    /// What stands of a subject, without its keys.
    pub(crate) fn meta(&self, found: &Found) -> Result<Option<Meta>> {
        let Some(plain) = self.part(found, META_PART)? else { return Ok(None) };
        Meta::decode(&plain).map(Some)
    }

    /// One part of an entry.
    pub(crate) fn part(&self, found: &Found, part: Part) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let Some(row) = &found.row else { return Ok(None) };
        let parsed = Row::parse(&row.value)?;
        let (_, _, generation, parent) = found.path.deepest();
        if parsed.parent_generation != generation {
            return Err(RolledBack::Mixed.into());
        }
        parsed.open(parent, &self.vault, &found.name, part).map_err(mixed)
    }

    /// The whole entry.
    pub(crate) fn entry(&self, found: &Found) -> Result<Option<Entry>> {
        let Some(row) = &found.row else { return Ok(None) };
        let parsed = Row::parse(&row.value)?;
        let (_, _, generation, parent) = found.path.deepest();
        if parsed.parent_generation != generation {
            return Err(RolledBack::Mixed.into());
        }
        Entry::from_plain(parsed.open_all(parent, &self.vault, &found.name).map_err(mixed)?).map(Some)
    }

    /// Adds the writing of an entry to a batch: the entry, its bucket again, and what is missing of the way.
    pub(crate) fn put_entry(&self, found: &Found, entry: &Entry, draft: &mut Draft) -> Result<()> {
        let bucket = Node::of_entry(&found.name, self.height).ok_or(Malformed::Content)?;
        let plain = entry.to_plain();
        draft.expect(&found.name, Expect::unchanged(found.row.as_ref()));
        let row = self.below(&found.path, &bucket, draft, |parent, generation| {
            wrap(parent, &self.vault, &found.name, generation, &plain)
        })?;
        draft.put(&found.name, row);
        Ok(())
    }

    /// Adds the removal of an entry to a batch: the entry, and its bucket again.
    pub(crate) fn take_entry(found: &Found, draft: &mut Draft) {
        draft.expect(&found.name, Expect::unchanged(found.row.as_ref()));
        let (row, deepest, ..) = found.path.deepest();
        draft.touch(&deepest, row);
        draft.write(&found.name, None);
    }

    /// Touches `node`, or makes it and what is missing above it, and lets `work` wrap under it. What the same batch has
    /// made for another subject is there.
    pub(crate) fn below<T>(
        &self,
        path: &Path,
        node: &Node,
        draft: &mut Draft,
        work: impl FnOnce(&Parent, u64) -> Result<T>,
    ) -> Result<T> {
        let (row, deepest, generation, parent) = path.deepest();
        draft.touch(&deepest, row);
        if deepest == *node {
            return work(parent, generation);
        }
        let mut above: Option<Arc<Parent>> = None;
        for missing in node.way().into_iter().skip(path.nodes.len()) {
            if let Some(made) = draft.made(&missing) {
                above = Some(made);
                continue;
            }
            let key = Secret::<NodeStage>::random()?;
            let (parent, generation) =
                above.as_deref().map_or((parent, generation), |parent| (parent, FIRST_GENERATION));
            let plain = Plain::whole(FIRST_GENERATION, key.expose());
            let row = wrap(parent, &self.vault, &missing.name(), generation, &plain)?;
            draft.expect(&missing.name(), Expect::Absent);
            draft.put(&missing.name(), row);
            let made = Arc::new(key.parent(self.suite));
            above = Some(Arc::clone(&made));
            draft.make(missing, made);
        }
        let (parent, generation) =
            above.as_deref().map_or((parent, generation), |parent| (parent, FIRST_GENERATION));
        work(parent, generation)
    }

    /// Opens a row that lies directly under the root.
    pub(crate) fn open_under_root(
        &self,
        path: &Path,
        name: &[u8],
        row: &Versioned,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let parsed = Row::parse(&row.value)?;
        if parsed.parent_generation != path.root.epoch {
            return Err(RolledBack::Mixed.into());
        }
        parsed
            .open_all(&path.root.parent, &self.vault, name)
            .map_err(mixed)?
            .into_whole()
            .ok_or(Error::DoesNotOpen)
    }

    /// Adds the writing of a row directly under the root.
    pub(crate) fn put_under_root(
        &self,
        path: &Path,
        name: &[u8],
        old: Option<&Versioned>,
        bytes: &[u8],
        batch: &mut Batch,
    ) -> Result<()> {
        batch.expect(name, Expect::unchanged(old));
        touch(&Node::Root, &path.epoch_row, batch);
        batch
            .put(name, wrap(&path.root.parent, &self.vault, name, path.root.epoch, &Plain::whole(0, bytes))?);
        Ok(())
    }
}

/// Writes a row again as it is: a rotation that has read it fails its precondition.
pub(crate) fn touch(node: &Node, row: &Versioned, batch: &mut Batch) {
    let name = node.name();
    batch.expect(&name, Expect::Version(row.version));
    if !batch.writes.iter().any(|(known, _)| *known == name) {
        batch.put(&name, row.value.clone());
    }
}

/// Under a key of the tree nothing of one moment fails to open: the row is another moment's, or altered.
fn mixed(why: Error) -> Error {
    if why == Error::DoesNotOpen { RolledBack::Mixed.into() } else { why }
}
