//! A batch of removals: how far it has come, and which nodes it leads through.
//!
//! Two rows, both with a proof under the journal's key, so that nobody who writes the store makes one up. The *way* is
//! written once, when the batch begins: the nodes that it removes from, then all nodes above them, deepest first. The
//! *phase* says how many removals are made and how many nodes of the way are rotated. So there is nothing between a
//! removal and its rotation that could be taken away unnoticed.
//!
//! An older phase that is put back claims less than was done, never more: fewer removals, whose certificates then never
//! come, or fewer rotations, which are then done again.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::error::{Malformed, Result, Unsupported};
use crate::journal::Journal;
use crate::store::{Key, Versioned};
use crate::tree::Node;
use crate::wire::{Put as _, Reader};

/// Names a batch of removals.
pub(crate) type BatchId = [u8; 16];

pub(crate) const BATCHES: &[u8] = b"p";
const WAYS: &[u8] = b"x";

/// The row of a batch's phase.
pub(crate) fn batch_name(id: &BatchId) -> Key {
    [BATCHES, &id[..]].concat()
}

/// The row of a batch's way.
pub(crate) fn way_name(id: &BatchId) -> Key {
    [WAYS, &id[..]].concat()
}

/// From the name of a batch's row.
pub(crate) fn batch_of(name: &[u8]) -> Option<BatchId> {
    name.strip_prefix(BATCHES)?.try_into().ok()
}

/// How far a batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Keys are being removed: so many of the removals are made.
    Removing { made: u32 },
    /// No more are made, and so many nodes above them are rotated.
    Rotating { made: u32, done: u32 },
    /// The store's commit at this moment left the root of this epoch: nothing that these removals took lies under a
    /// later one.
    Left { made: u32, epoch: u64, at_ms: i64 },
    /// Rows of it were altered or put back: it is never said to have left an epoch.
    Void,
}

impl Phase {
    pub(crate) fn encode(self, journal: &Journal, name: &[u8]) -> Vec<u8> {
        let mut out = vec![1];
        match self {
            Phase::Removing { made } => {
                out.put_u8(1);
                out.put_u32(made);
            }
            Phase::Rotating { made, done } => {
                out.put_u8(2);
                out.put_u32(made);
                out.put_u32(done);
            }
            Phase::Left { made, epoch, at_ms } => {
                out.put_u8(3);
                out.put_u32(made);
                out.put_u64(epoch);
                out.put_i64(at_ms);
            }
            Phase::Void => out.put_u8(4),
        }
        journal.prove(name, out)
    }

    /// `None` where the row is missing, or is not one that this vault has written for this batch.
    pub(crate) fn of(journal: &Journal, name: &[u8], row: Option<&Versioned>) -> Result<Option<Self>> {
        row.and_then(|row| journal.proven(name, &row.value)).map(Self::decode).transpose()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return Err(Unsupported::Version.into());
        }
        let phase = match r.u8()? {
            1 => Phase::Removing { made: r.u32()? },
            2 => Phase::Rotating { made: r.u32()?, done: r.u32()? },
            3 => Phase::Left { made: r.u32()?, epoch: r.u64()?, at_ms: r.i64()? },
            4 => Phase::Void,
            _ => return Err(Malformed::Content.into()),
        };
        r.end()?;
        Ok(phase)
    }
}

/// What a batch takes for put back, beside a node that still has the generation that it had when the batch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appears {
    /// Nothing: somebody may have been enrolled there.
    New,
    /// A node of the way that was not there when the batch began.
    OnTheWay,
    /// Every node that was not there: nobody enrolls meanwhile.
    Anywhere,
}

/// The nodes that a batch leads through, each with the generation that it had when the batch began. One that was not there
/// has 0, or where it counts as put back once it appears, the highest number.
#[derive(Debug)]
pub(crate) struct Way {
    places: Vec<(Node, u64)>,
    index: HashMap<Node, usize>,
    /// How many of them are what is removed from; those above come after them.
    targets: usize,
    /// It leads through every node below the root: one that it does not name was put back.
    whole: bool,
}

impl Way {
    /// From the nodes to remove from, in the order of their removals, to below the root; without generations.
    pub(crate) fn of_targets(targets: &[Node]) -> Vec<Node> {
        let above = targets.iter().flat_map(|target| target.above().map_or_else(Vec::new, |node| node.way()));
        let above: BTreeSet<(usize, Node)> =
            above.map(|node| (usize::MAX.saturating_sub(node.depth()), node)).collect();
        targets.iter().cloned().chain(above.into_iter().map(|(_, node)| node)).collect()
    }

    pub(crate) fn new(places: Vec<(Node, u64)>, targets: usize, whole: bool) -> Self {
        let index = places.iter().enumerate().map(|(at, (node, _))| (node.clone(), at)).collect();
        Way { places, index, targets, whole }
    }

    /// The nodes to rotate next once so many are rotated: of one depth, and so many at most. None where only the root is
    /// left.
    pub(crate) fn steps(&self, done: u32, most: usize) -> Vec<Node> {
        let at = usize::try_from(done).unwrap_or(usize::MAX).saturating_add(self.targets);
        let left = self.places.get(at..).unwrap_or_default();
        let depth = left.first().map(|(node, _)| node.depth());
        let next = left.iter().take(most).take_while(|(node, _)| Some(node.depth()) == depth);
        next.map(|(node, _)| node.clone()).collect()
    }

    /// The generation that a child has left behind by the time that its parent is rotated, if it is on the way and so
    /// many removals were made. One that still has it was put back: what was removed would live on below it.
    pub(crate) fn left_behind(&self, child: &[u8], made: u32) -> Option<u64> {
        let node = Node::from_name(child)?;
        let Some(at) = self.index.get(&node).copied() else {
            return (self.whole && matches!(node, Node::Tree(_))).then_some(u64::MAX);
        };
        let touched = at >= self.targets || u32::try_from(at).is_ok_and(|at| at < made);
        self.places.get(at).filter(|_| touched).map(|(_, generation)| *generation)
    }

    pub(crate) fn encode(&self, journal: &Journal, name: &[u8]) -> Vec<u8> {
        let mut out = vec![1, self.whole.into()];
        out.put_u32(u32::try_from(self.targets).unwrap_or(u32::MAX));
        for (node, generation) in &self.places {
            out.put_bytes(&node.name());
            out.put_u64(*generation);
        }
        journal.prove(name, out)
    }

    /// `None` where the row is missing, or is not one that this vault has written for this batch.
    pub(crate) fn of(journal: &Journal, name: &[u8], row: Option<&Versioned>) -> Result<Option<Self>> {
        row.and_then(|row| journal.proven(name, &row.value)).map(Self::decode).transpose()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return Err(Unsupported::Version.into());
        }
        let whole = r.flag()?;
        let targets = usize::try_from(r.u32()?).map_err(|_| Malformed::Length)?;
        let mut places = Vec::new();
        while !r.is_empty() {
            places.push((Node::from_name(r.bytes()?).ok_or(Malformed::Content)?, r.u64()?));
        }
        if targets > places.len() {
            return Err(Malformed::Length.into());
        }
        Ok(Way::new(places, targets, whole))
    }
}

/// A batch in the hands of the process that removes. What its rows must say it knows by itself.
#[derive(Debug)]
pub(crate) struct Removals {
    pub(crate) id: BatchId,
    pub(crate) targets: Vec<Node>,
    /// Nodes of the way that were not there when the batch began.
    pub(crate) absent: HashSet<Node>,
    /// How many are made; the next one is from this node of `targets`.
    pub(crate) made: u32,
}

impl Removals {
    /// The node to remove from next.
    pub(crate) fn next(&self) -> Option<&Node> {
        self.some(1).first()
    }

    /// Whether the next one was not there when the batch began. One that appears may have been hidden, and may be put back
    /// once more unseen: nothing is removed from it.
    pub(crate) fn is_absent(&self) -> bool {
        self.next().is_some_and(|node| self.absent.contains(node))
    }

    /// So many of those to remove from next, at most.
    pub(super) fn some(&self, most: usize) -> &[Node] {
        let left = usize::try_from(self.made).ok().and_then(|made| self.targets.get(made..));
        left.map_or(&[], |left| left.get(..most).unwrap_or(left))
    }
}
