//! Reading subjects, and taking in what other processes have done meanwhile.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::Inner;
use crate::entry::Meta;
use crate::error::{Error, Malformed, Result, RolledBack};
use crate::journal::FENCE;
use crate::key::Tag;
use crate::schema::Registry;
use crate::store::{Expect, Key, Versioned};
use crate::tree::node::under_root;
use crate::tree::{ATTEMPTS, Found, Node};

/// A subject as it was read.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) found: Found,
    /// `None` where it was never enrolled.
    pub(crate) meta: Option<Meta>,
    pub(crate) fence: Option<Versioned>,
    /// The other rows that were asked for. Subjects that were read together share them.
    pub(crate) more: Arc<[Option<Versioned>]>,
}

impl Inner {
    /// Takes in what other processes have done and changed, and gives the fence row as it was read.
    pub(crate) async fn catch_up(&self) -> Result<Option<Versioned>> {
        let fence = self.journal.refresh().await?;
        self.refresh_registry().await?;
        self.refresh_ring().await?;
        Ok(fence)
    }

    /// Reads a subject with its way, the fence row and some more, in one multi-key read, and takes in what other
    /// processes have done.
    pub(crate) async fn read_subject(&self, tag: &Tag, more: &[Key]) -> Result<Subject> {
        let mut subjects = self.read_subjects(std::slice::from_ref(tag), more).await?;
        subjects.pop().ok_or(Malformed::Length)?
    }

    /// The same of several, all in one multi-key read. What is wrong with one of them stands at its place.
    pub(crate) async fn read_subjects(&self, tags: &[Tag], more: &[Key]) -> Result<Vec<Result<Subject>>> {
        let mut names = vec![FENCE.to_vec()];
        names.extend_from_slice(more);
        let mut failed_at = None;
        for _ in 0..ATTEMPTS {
            let rolled_back = match self.read_once(tags, &names).await {
                Ok(None) => continue,
                Ok(Some(subjects)) if !subjects.iter().any(is_mixed) => return Ok(subjects),
                Ok(Some(subjects)) => Ok(subjects),
                Err(Error::RolledBack(why)) => Err(why.into()),
                Err(why) => return Err(why),
            };
            // Perhaps the root was replaced between the read and the keeper's answer. What stays while the epoch row does
            // is no race.
            let version = self.rows.get(&Node::Root.name()).await?.map(|row| row.version);
            if version.is_none() || failed_at == version {
                return rolled_back;
            }
            failed_at = version;
        }
        Err(Error::Busy)
    }

    /// `None` where the journal has gone on since.
    async fn read_once(&self, tags: &[Tag], names: &[Key]) -> Result<Option<Vec<Result<Subject>>>> {
        let asked = self.journal.known();
        let (found, rows) = self.tree.find_many(tags, names).await?;
        let mut rows = rows.into_iter();
        let fence = rows.next().flatten();
        let more: Arc<[Option<Versioned>]> = rows.collect();
        let head = self.journal.head_of(fence.as_ref())?;
        self.journal.catch_up(head, asked).await?;
        self.refresh_registry().await?;
        self.refresh_ring().await?;
        if head.number == self.journal.known() {
            self.remembered.saw(head.number, Expect::unchanged(fence.as_ref()));
        }
        let mut subjects = Vec::with_capacity(tags.len());
        for (found, tag) in found.into_iter().zip(tags) {
            let subject = found.and_then(|found| {
                let meta = self.tree.meta(&found)?;
                Ok(Subject { found, meta, fence: fence.clone(), more: Arc::clone(&more) })
            });
            // Either the rows were read before the journal went on, or somebody put older ones back: what the journal
            // remembers holds, whatever the store says.
            let behind = subject.as_ref().is_ok_and(|subject| self.is_behind(tag, subject));
            if behind && head.number < self.journal.known() {
                return Ok(None);
            }
            subjects.push(if behind { Err(RolledBack::Store.into()) } else { subject });
        }
        Ok(Some(subjects))
    }

    fn is_behind(&self, tag: &Tag, subject: &Subject) -> bool {
        let state = subject.meta.as_ref().map_or(0, |meta| meta.state);
        let (remembered, epoch) =
            self.journal.with(|s| (s.fences.get(tag).map_or(0, |fence| fence.state), s.epoch));
        state < remembered || subject.found.path.root.epoch < epoch
    }

    /// Takes over what another process has added to the registry: a purpose that the law keeps must be known to whoever
    /// forgets.
    async fn refresh_registry(&self) -> Result<()> {
        let grown = || self.journal.with(|state| state.registry);
        if self.registry_seen.load(Ordering::Acquire) >= grown() {
            return Ok(());
        }
        // One after the other: an answer that comes late must not put back what a later one has brought.
        let _one_at_a_time = self.refreshing.lock().await;
        let grown = grown();
        if self.registry_seen.load(Ordering::Acquire) >= grown {
            return Ok(());
        }
        let name = under_root::REGISTRY.to_vec();
        let (path, rows) = self.tree.path(&Node::Root, std::slice::from_ref(&name)).await?;
        let [Some(row)] = rows.as_slice() else { return Err(RolledBack::Mixed.into()) };
        let stored = Registry::decode(&self.tree.open_under_root(&path, &name, row)?)?;
        *self.registry.write().unwrap_or_else(PoisonError::into_inner) = stored;
        self.registry_seen.fetch_max(grown, Ordering::AcqRel);
        Ok(())
    }
}

/// Whether the rows of a subject are of different moments.
fn is_mixed(subject: &Result<Subject>) -> bool {
    matches!(subject, Err(Error::RolledBack(why)) if *why != RolledBack::Store)
}
