//! What is due by the journal: rows that say it can be taken away.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Due;
use crate::clock::Day;
use crate::entry::{Entry, Meta};
use crate::error::Result;
use crate::key::Tag;
use crate::tree::Node;
use crate::vault::Inner;

impl Inner {
    /// Adds what lines of the journal say is due and no row does: rows can be taken away. Gives how many of whom lines
    /// tell are not there at all.
    pub(super) async fn add_by_lines(&self, today: Day, buckets: &mut BTreeMap<Node, Due>) -> Result<usize> {
        let (mut asked, moved) = self.journal.with(|state| (state.due(today), state.moved()));
        let named: Vec<Tag> = buckets.values().flat_map(BTreeMap::keys).copied().collect();
        if asked.is_empty() {
            return Ok(0);
        }
        for places in named.chunks(1000) {
            for (found, place) in self.tree.find_many(places, &[]).await?.0.into_iter().zip(places) {
                // Rows are believed where the subject is there.
                if let Ok(Some(meta)) = found.and_then(|found| self.tree.meta(&found))
                    && !self.was_put_back(&meta, place)
                {
                    asked.remove(&meta.tag(place));
                }
            }
        }
        let places: Vec<(Tag, Tag)> = asked.keys().map(|tag| (*tag, self.place_of(tag))).collect();
        let mut there = self.add_found(today, &asked, &places, buckets).await?;
        asked.retain(|tag, _| !there.contains(tag));
        if moved && !asked.is_empty() {
            let places = self.tree.places_of(&asked.keys().copied().collect()).await?;
            for (tag, place) in &places {
                self.lies_at(*tag, *place);
            }
            let places: Vec<(Tag, Tag)> = places.into_iter().collect();
            there = self.add_found(today, &asked, &places, buckets).await?;
            asked.retain(|tag, _| !there.contains(tag));
        }
        Ok(asked.len())
    }

    /// Whether an entry is older than what the journal says of its subject.
    pub(super) fn was_put_back(&self, meta: &Meta, place: &Tag) -> bool {
        self.journal
            .with(|state| state.fences.get(&meta.tag(place)).is_some_and(|fence| fence.state > meta.state))
    }

    /// Adds those that lie at these places and have something due, or had something removed. Gives who lies there.
    async fn add_found(
        &self,
        today: Day,
        asked: &HashMap<Tag, bool>,
        places: &[(Tag, Tag)],
        buckets: &mut BTreeMap<Node, Due>,
    ) -> Result<HashSet<Tag>> {
        let mut there = HashSet::new();
        for some in places.chunks(1000) {
            let places: Vec<Tag> = some.iter().map(|(_, place)| *place).collect();
            for (found, (tag, place)) in self.tree.find_many(&places, &[]).await?.0.into_iter().zip(some) {
                // What does not open is nobody's; where it is due by a row, the shred says so.
                let entry = found.and_then(|found| self.tree.entry(&found)).ok().flatten();
                let hers =
                    |entry: &Entry| entry.meta.tag(place) == *tag && !self.was_put_back(&entry.meta, place);
                let Some(entry) = entry.filter(hers) else { continue };
                there.insert(*tag);
                let due = entry.next_due().is_some_and(|day| day <= today);
                if due || asked.get(tag) == Some(&true) {
                    let bucket = Node::bucket(place, self.tree.height);
                    buckets.entry(bucket).or_default().entry(*place).or_default();
                }
            }
        }
        Ok(there)
    }
}
