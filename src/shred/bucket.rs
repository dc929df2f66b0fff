//! Removing what is due from the entries of a bucket, and what has to be rotated before.

use std::collections::{BTreeSet, HashSet};

use super::{Due, gone_name};
use crate::certificate::Pending;
use crate::change::due_name;
use crate::clock::Day;
use crate::entry::Entry;
use crate::error::{Error, Malformed, Result, RolledBack};
use crate::key::Tag;
use crate::row::Plain;
use crate::store::Range;
use crate::tree::batch::{Appears, BatchId, Removals};
use crate::tree::node::tag_of;
use crate::tree::rotate::{Beside, Edit};
use crate::tree::{ATTEMPTS, Node};
use crate::vault::Inner;

/// So many buckets one way leads through at most: its row is of some ten megabytes then.
const WAY: usize = 500_000;

/// A commit that removes nothing has about so many entries.
const CHILDREN: usize = 500;

impl Inner {
    /// Rotates the buckets in which subjects lay before they moved, of those that have something to destroy: an older copy
    /// of their entries opens under those until then. Gives the places that are dealt with.
    pub(super) async fn rotate_left(&self, places: &[Tag]) -> Result<HashSet<Tag>> {
        let (mut dealt, mut buckets) = (HashSet::new(), BTreeSet::new());
        let (newest, former) = self.ring().lookup();
        if (newest, former) == (0, None) {
            // Nobody has ever moved.
            return Ok(dealt);
        }
        let mut whole = false;
        for places in places.chunks(1000) {
            for found in self.tree.find_many(places, &[]).await?.0 {
                let Some(meta) = self.tree.meta(&found?)? else { continue };
                // Another copy, or somebody who puts rows back, may have it where nobody can tell.
                whole |= former.is_some() && meta.lookup != newest;
                for (place, open) in meta.left {
                    dealt.insert(place);
                    // Also where it is missing, or was rotated since by somebody whose batch may be void: what lies
                    // above is rotated, and looked at.
                    if open {
                        buckets.insert(Node::bucket(&place, self.tree.height));
                    }
                }
            }
        }
        if whole {
            self.rotate_whole(Appears::OnTheWay).await?;
        }
        if buckets.is_empty() {
            return Ok(dealt);
        }
        let targets: Vec<Node> = buckets.into_iter().collect();
        for _ in 0..3 {
            let mut removals = self.tree.begin(&self.journal, targets.clone(), Appears::OnTheWay).await?;
            while removals.next().is_some() {
                // What lies there was put back: its subject lies elsewhere.
                let mut edit = |name: &[u8], child: Plain, _: &mut Beside| {
                    let place = tag_of(name).ok_or(Malformed::Content)?;
                    Ok((!dealt.contains(&place)).then_some(child))
                };
                self.tree.remove(&self.journal, &mut removals, &[], &mut edit).await?;
            }
            match self.finish_batch(&removals).await {
                // Perhaps somebody was enrolled in one that was empty.
                Err(Error::RolledBack(RolledBack::Mixed)) => {}
                done => return done.map(|()| dealt),
            }
        }
        Err(RolledBack::Mixed.into())
    }

    /// In a copy of the store that is put right: new keys for the whole tree, where the copy cannot tell under which buckets
    /// subjects lay in what was lost. What other copies hold of them opens under the former keys alone.
    pub(crate) async fn rotate_where_lost(&self) -> Result<()> {
        if !self.journal.with(|state| state.course.lay_elsewhere) && self.ring().lookup().1.is_none() {
            return Ok(());
        }
        self.rotate_whole(Appears::Anywhere).await
    }

    /// New keys for every bucket and what is above.
    pub(crate) async fn rotate_whole(&self, appears: Appears) -> Result<()> {
        let mut targets = Vec::new();
        let mut range = Range::prefix(&[b'n', self.tree.height]);
        loop {
            let page = self.rows.page(range.clone(), 4096).await?;
            targets.extend(page.rows.iter().filter_map(|(name, _)| Node::from_name(name)));
            match page.next {
                Some(next) => range.start = next,
                None => break,
            }
        }
        // What is not of the same batch is not taken for put back.
        let appears = if targets.len() > WAY { Appears::OnTheWay } else { appears };
        let mut left = targets.as_slice();
        let mut taken = 0_usize;
        while !left.is_empty() {
            let targets = left.get(..WAY).unwrap_or(left).to_vec();
            let mut removals = self.tree.begin(&self.journal, targets, appears).await?;
            let whole = self.remove_nothing(&mut removals).await;
            let made = usize::try_from(removals.made).unwrap_or(usize::MAX);
            // What was made has no name in a further way, and would count as put back.
            let done = if whole.is_err() && appears == Appears::Anywhere { 0 } else { made };
            left = left.get(done..).unwrap_or_default();
            // Another process may have taken it for dead: then it goes on with what was made, and this one with the rest.
            taken = if done > 0 { 0 } else { taken.saturating_add(1) };
            match whole {
                Err(Error::Busy) if taken < ATTEMPTS => {
                    self.tree.finish_rotations(&self.journal, || self.clock.wall()).await?;
                    self.left(&removals.id).await?.ok_or(Error::Busy)?;
                }
                whole => {
                    whole?;
                    self.finish_batch(&removals).await?;
                }
            }
        }
        Ok(())
    }

    async fn remove_nothing(&self, removals: &mut Removals) -> Result<()> {
        let mut most = 1_usize;
        while removals.next().is_some() {
            most = match self.tree.remove_nothing(&self.journal, removals, most).await {
                Err(Error::Busy) if most > 1 => most.div_ceil(2),
                children if children? < CHILDREN => most.saturating_mul(2),
                _ => most.div_ceil(2),
            };
        }
        Ok(())
    }

    /// After the last removal of a batch that certifies nothing by itself.
    async fn finish_batch(&self, removals: &Removals) -> Result<()> {
        self.tree.removed(&self.journal, removals).await?;
        self.tree.finish_rotations(&self.journal, || self.clock.wall()).await?;
        self.left(&removals.id).await?.ok_or(Error::Busy)?;
        Ok(())
    }

    /// Removes what is due from the entries of the next bucket and rotates it. All its entries are looked at: a row that
    /// said that something is due may have been taken away. Gives how many were dealt with, and how many wait.
    ///
    /// One that lay elsewhere before waits for the next shred, unless its `left` places are dealt with.
    pub(super) async fn shred_bucket(
        &self,
        removals: &mut Removals,
        due: &Due,
        left: &HashSet<Tag>,
        today: Day,
    ) -> Result<(usize, usize)> {
        let (batch, removal) = (removals.id, removals.made);
        if removals.is_absent() {
            // The rows that led here go; who is due by the journal is looked for by the next shred.
            let mut nothing = Nothing { due };
            self.tree.remove(&self.journal, removals, &[], &mut nothing).await?;
            return Ok((0, 0));
        }
        let (seen, waiting) = (HashSet::new(), HashSet::new());
        let mut shredding = Shredding { inner: self, due, left, today, batch, removal, seen, waiting };
        self.tree.remove(&self.journal, removals, &[], &mut shredding).await?;
        let Shredding { seen, waiting, .. } = shredding;
        let done = due.keys().filter(|place| seen.contains(*place) && !waiting.contains(*place)).count();
        Ok((done, waiting.len()))
    }
}

/// What a shred does to a bucket that was not there when it began.
struct Nothing<'a> {
    due: &'a Due,
}

impl Edit for Nothing<'_> {
    fn edit(&mut self, _: &[u8], child: Plain, _: &mut Beside) -> Result<Option<Plain>> {
        Ok(Some(child))
    }

    fn rest(&mut self, beside: &mut Beside) {
        beside.extend(self.due.values().flatten().map(|row| (row.clone(), None)));
    }
}

/// What a shred does to the entries of a bucket.
struct Shredding<'a> {
    inner: &'a Inner,
    due: &'a Due,
    left: &'a HashSet<Tag>,
    today: Day,
    batch: BatchId,
    removal: u32,
    seen: HashSet<Tag>,
    /// Of these, whose places before are not dealt with.
    waiting: HashSet<Tag>,
}

impl Edit for Shredding<'_> {
    fn edit(&mut self, name: &[u8], child: Plain, beside: &mut Beside) -> Result<Option<Plain>> {
        let place = tag_of(name).ok_or(Malformed::Content)?;
        let mut entry = Entry::from_plain(child)?;
        let found = entry.next_due().filter(|day| *day <= self.today).map(|day| due_name(day, &place));
        let rows = self.due.get(&place);
        let dealt = entry.meta.left.iter().all(|(left, _)| self.left.contains(left));
        if rows.is_none() && found.is_none() {
            return Ok(Some(entry.to_plain()));
        }
        self.seen.insert(place);
        if !dealt || self.inner.was_put_back(&entry.meta, &place) {
            self.waiting.insert(place);
            beside.extend(found.map(|row| (row, Some(Vec::new()))));
            return Ok(Some(entry.to_plain()));
        }
        // Their buckets are not looked at again.
        entry.meta.left.iter_mut().for_each(|(_, open)| *open = false);
        beside.extend(found.map(|row| (row, None)));
        for shredded in entry.shred(self.today) {
            // A forget that was replayed on a restored store has no reference: nobody waits for its certificate.
            if shredded.forgotten.reference != [0; 16] {
                let label = |purpose| self.inner.label(purpose);
                let pending = Pending::of(&shredded, self.batch, self.removal, label);
                beside.push((pending.name(), Some(pending.wrap(self.inner)?)));
            }
        }
        beside.extend(rows.into_iter().flatten().map(|row| (row.clone(), None)));
        beside.extend(entry.next_due().map(|day| (due_name(day, &place), Some(Vec::new()))));
        if entry.keys.is_empty() && entry.hold.is_none() {
            let tag = entry.meta.tag(&place);
            beside.push((gone_name(&tag), Some(Vec::new())));
            self.inner.lies_at(tag, place);
        }
        Ok(Some(entry.to_plain()))
    }

    /// Its subject has moved since, and what is due there has a row of its own.
    fn rest(&mut self, beside: &mut Beside) {
        let moved = self.due.iter().filter(|(place, _)| !self.seen.contains(*place));
        beside.extend(moved.flat_map(|(_, rows)| rows).map(|row| (row.clone(), None)));
    }
}
