//! Day keys: one for each UTC day, made ahead, so that sealing needs no I/O and midnight no care. They lie in a branch of
//! the tree of their own, a node a month; destroying a day is one small rotation, whatever was sealed to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::clock::Day;
use crate::error::{Error, Malformed, Misuse, Result, RolledBack};
use crate::key::{Day as DayStage, Node as NodeStage, Secret};
use crate::row::{Part, Plain, Row, wrap};
use crate::store::{Committed, Expect, Key, Range};
use crate::tree::node::{day_name, day_of};
use crate::tree::{ATTEMPTS, Draft, Node, Tree};

/// Days beyond the longest declared period that have keys already.
pub(crate) const AHEAD: u16 = 35;

/// The days that this process has.
#[derive(Debug, Default)]
pub(crate) struct Calendar {
    days: RwLock<BTreeMap<Day, Arc<Secret<DayStage>>>>,
    /// A day was asked for that another process must have made.
    missed: AtomicBool,
}

impl Calendar {
    /// The key of a day, unless it is destroyed or beyond the calendar.
    pub(crate) fn day(&self, day: Day) -> Option<Arc<Secret<DayStage>>> {
        self.days.read().unwrap_or_else(PoisonError::into_inner).get(&day).cloned()
    }

    /// The days of a range that have keys.
    #[cfg(feature = "tickets")]
    pub(crate) fn within(&self, from: Day, to: Day) -> Vec<Day> {
        if from > to {
            return Vec::new();
        }
        let days = self.days.read().unwrap_or_else(PoisonError::into_inner);
        days.range(from..=to).map(|(day, _)| *day).collect()
    }

    /// Remembers that a day was asked for that is not here.
    pub(crate) fn miss(&self) {
        self.missed.store(true, Ordering::Relaxed);
    }

    /// Whether it has to be read again. Asked once.
    pub(crate) fn missed(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }

    /// Whether the last day that is there is this one or later: a cheap sign that nothing is missing.
    pub(crate) fn reaches(&self, day: Day) -> bool {
        let days = self.days.read().unwrap_or_else(PoisonError::into_inner);
        days.last_key_value().is_some_and(|(last, _)| *last >= day)
    }

    /// Whether every day of a range is there.
    pub(crate) fn covers(&self, from: Day, to: Day) -> bool {
        let days = self.days.read().unwrap_or_else(PoisonError::into_inner);
        days.range(from..=to).count() == usize::from(to.0.saturating_sub(from.0)).saturating_add(1)
    }

    /// Forgets keys of days that are over.
    pub(crate) fn drop_until(&self, mark: Day) {
        let first =
            self.days.read().unwrap_or_else(PoisonError::into_inner).first_key_value().map(|(day, _)| *day);
        if first.is_none_or(|first| first > mark) {
            return;
        }
        let mut days = self.days.write().unwrap_or_else(PoisonError::into_inner);
        let kept = days.split_off(&mark.plus(1));
        *days = kept;
    }

    /// Reads all days, and makes those of `from..=to` that are missing; none at or before `over`.
    pub(crate) async fn fill(&self, tree: &Tree, over: Option<Day>, from: Day, to: Day) -> Result<()> {
        if from > to || to == Day(u16::MAX) {
            return Err(Misuse::Day.into());
        }
        for _ in 0..ATTEMPTS {
            match self.fill_once(tree, over, from, to).await {
                Err(Error::Busy | Error::RolledBack(RolledBack::Mixed)) => {}
                done => return done,
            }
        }
        // A mismatch that stays is no race.
        self.fill_once(tree, over, from, to).await
    }

    /// Reads all days, and makes none.
    pub(crate) async fn load(&self, tree: &Tree) -> Result<()> {
        self.fill(tree, Some(Day(u16::MAX)), Day(0), Day(0)).await
    }

    async fn fill_once(&self, tree: &Tree, over: Option<Day>, from: Day, to: Day) -> Result<()> {
        let (path, _) = tree.path(&Node::Days, &[]).await?;
        let months = tree.rows.all(Range::prefix(b"m")).await?;
        let days = tree.rows.all(Range::prefix(b"d")).await?;
        let branch = path.nodes.last();

        let mut nodes = BTreeMap::new();
        for (name, row) in months {
            let node = Node::from_name(&name).ok_or(Malformed::Content)?;
            let parsed = Row::parse(&row.value)?;
            let branch = branch.ok_or(RolledBack::Mixed)?;
            if parsed.parent_generation != branch.generation {
                return Err(RolledBack::Mixed.into());
            }
            let key = parsed
                .open(&branch.parent, &tree.vault, &name, Part::WHOLE)
                .map_err(|_| RolledBack::Mixed)?;
            let key =
                Secret::<NodeStage>::from_slice(&key.ok_or(RolledBack::Mixed)?).ok_or(RolledBack::Mixed)?;
            nodes.insert(node, (parsed.generation, key.parent(tree.suite), row.version, row.value.clone()));
        }

        let mut known = BTreeMap::new();
        for (name, row) in days {
            let day = day_of(&name).ok_or(Malformed::Content)?;
            let (generation, parent, ..) = nodes.get(&Node::month(day)).ok_or(RolledBack::Mixed)?;
            let parsed = Row::parse(&row.value)?;
            if parsed.parent_generation != *generation {
                return Err(RolledBack::Mixed.into());
            }
            let key = parsed.open(parent, &tree.vault, &name, Part::WHOLE).map_err(|_| RolledBack::Mixed)?;
            let key =
                Secret::<DayStage>::from_slice(&key.ok_or(RolledBack::Mixed)?).ok_or(RolledBack::Mixed)?;
            known.insert(day, Arc::new(key));
        }

        let missing: Vec<Day> = (from.0..=to.0)
            .map(Day)
            .filter(|day| !known.contains_key(day) && over.is_none_or(|over| *day > over))
            .collect();
        if !missing.is_empty() {
            let mut draft = Draft::new()?;
            // Once for the branch and its ancestors; months are made or touched below it.
            let fresh = tree.below(&path, &Node::Days, &mut draft, |branch, generation| {
                let mut made: BTreeMap<Node, (u64, crate::key::Parent)> = BTreeMap::new();
                let mut writes: Vec<(Key, Expect, Vec<u8>)> = Vec::new();
                for day in &missing {
                    let month = Node::month(*day);
                    if !nodes.contains_key(&month) && !made.contains_key(&month) {
                        let key = Secret::<NodeStage>::random()?;
                        let name = month.name();
                        let row =
                            wrap(branch, &tree.vault, &name, generation, &Plain::whole(1, key.expose()))?;
                        writes.push((name, Expect::Absent, row));
                        made.insert(month.clone(), (1, key.parent(tree.suite)));
                    }
                    let (generation, parent) = match (nodes.get(&month), made.get(&month)) {
                        (Some((generation, parent, version, value)), _) => {
                            writes.push((month.name(), Expect::Version(*version), value.clone()));
                            (*generation, parent)
                        }
                        (None, Some((generation, parent))) => (*generation, parent),
                        (None, None) => return Err(Malformed::Content.into()),
                    };
                    let key = Secret::<DayStage>::random()?;
                    let name = day_name(*day);
                    let row = wrap(parent, &tree.vault, &name, generation, &Plain::whole(0, key.expose()))?;
                    writes.push((name, Expect::Absent, row));
                    known.insert(*day, Arc::new(key));
                }
                Ok(writes)
            })?;
            for (name, expect, value) in fresh {
                draft.expect(&name, expect);
                draft.put(&name, value);
            }
            if tree.rows.commit(draft.done()).await? == Committed::Conflict {
                return Err(Error::Busy);
            }
        }
        *self.days.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }
}
