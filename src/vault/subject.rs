//! Reading subjects, and taking in what other processes have done meanwhile.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::Inner;
use crate::actor::SubjectId;
use crate::entry::Meta;
use crate::error::{Error, Malformed, Result, RolledBack};
use crate::journal::FENCE;
use crate::key::Tag;
use crate::ring::{Places, Ring};
use crate::schema::Registry;
use crate::store::{Expect, Key, Versioned};
use crate::tree::node::{tag_of, under_root};
use crate::tree::{ATTEMPTS, Found, Node};

/// A subject as it was read.
#[derive(Debug)]
pub(crate) struct Subject {
    /// Where its entry lies, or is to lie.
    pub(crate) found: Found,
    /// What names it outside the tree: where it was enrolled, or is to be.
    pub(crate) tag: Tag,
    /// `None` where it was never enrolled.
    pub(crate) meta: Option<Meta>,
    /// While a former lookup key is valid.
    pub(crate) other: Option<Other>,
    /// The number of the lookup key that is used; `None` where it was not read by its id.
    pub(crate) lookup: Option<u16>,
    pub(crate) fence: Option<Versioned>,
    /// The other rows that were asked for. Subjects that were read together share them.
    pub(crate) more: Arc<[Option<Versioned>]>,
}

/// The other place of a subject.
#[derive(Debug)]
pub(crate) enum Other {
    /// It lies under the former key, and this is the place under the one that is used.
    Newest(Found),
    /// It lies under the key that is used, or nowhere, and this is the place under the former one.
    Former(Found),
}

/// Where to look for a subject.
#[derive(Clone, Copy, Debug)]
enum Seek {
    Places(Places),
    /// By its tag, at a place where it may lie.
    Named {
        tag: Tag,
        place: Tag,
    },
}

impl Seek {
    fn places(&self) -> impl Iterator<Item = Tag> {
        match self {
            Seek::Places(places) => [Some(places.newest), places.former],
            Seek::Named { place, .. } => [Some(*place), None],
        }
        .into_iter()
        .flatten()
    }
}

/// A subject of which only the rows are known.
type Half = (Found, Tag, Option<Meta>, Option<Other>);

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
    pub(crate) async fn read_subject(&self, id: &SubjectId, more: &[Key]) -> Result<Subject> {
        let mut subjects = self.read_subjects(&[id], more).await?;
        subjects.pop().ok_or(Malformed::Length)?
    }

    /// The same of several, all in one multi-key read. What is wrong with one of them stands at its place.
    ///
    /// While a former lookup key is valid, both places of each are read: as of one moment the entry lies at one of them.
    pub(crate) async fn read_subjects(
        &self,
        ids: &[&SubjectId],
        more: &[Key],
    ) -> Result<Vec<Result<Subject>>> {
        let seek =
            |ring: &Ring| ids.iter().map(|id| ring.places(id).map(Seek::Places)).collect::<Result<Vec<_>>>();
        self.read_all(seek, more).await
    }

    /// With rows whose names are made from their tags: read again where one lies at another place than its tag.
    pub(crate) async fn read_with_rows(
        &self,
        ids: &[&SubjectId],
        names: impl Fn(&[Tag]) -> Result<Vec<Key>>,
    ) -> Result<(Vec<Tag>, Vec<Result<Subject>>)> {
        let mut tags = Vec::with_capacity(ids.len());
        for id in ids {
            tags.push(self.ring().places(id)?.newest);
        }
        for _ in 0..ATTEMPTS {
            let subjects = self.read_subjects(ids, &names(&tags)?).await?;
            let mut guessed = true;
            for (tag, subject) in tags.iter_mut().zip(&subjects) {
                if let Ok(subject) = subject
                    && subject.tag != *tag
                {
                    (*tag, guessed) = (subject.tag, false);
                }
            }
            if guessed {
                return Ok((tags, subjects));
            }
        }
        Err(Error::Busy)
    }

    /// Reads a subject by its tag. One that lies at another place is looked for in the whole tree, and found at once from
    /// then on.
    pub(crate) async fn read_named(&self, tag: &Tag) -> Result<Subject> {
        let mut failed = None;
        for _ in 0..ATTEMPTS {
            let place = self.place_of(tag);
            let seek = |_: &Ring| Ok(vec![Seek::Named { tag: *tag, place }]);
            let subject = self.read_all(seek, &[]).await?.pop().ok_or(Malformed::Length)?;
            match subject {
                Ok(subject) if subject.meta.is_some() => return Ok(subject),
                Err(why) if why != RolledBack::Store.into() => return Err(why),
                // Nobody has ever moved.
                subject if self.ring().lookup() == (0, None) => return subject,
                subject if failed == Some(place) => return subject,
                _ => {}
            }
            failed = Some(place);
            // Those who are asked for by their tags, all at once.
            let mut asked: HashSet<Tag> = self.gone().await?.into_iter().collect();
            asked.insert(*tag);
            self.journal.with(|state| {
                asked.extend(state.fences.iter().filter(|(_, fence)| fence.held).map(|(tag, _)| *tag));
            });
            let places = self.tree.places_of(&asked).await?;
            // It may lie there only since.
            failed = failed.filter(|failed| places.get(tag).unwrap_or(tag) == failed);
            if !places.contains_key(tag) {
                self.lies_at(*tag, *tag);
            }
            for (tag, place) in places {
                self.lies_at(tag, place);
            }
        }
        Err(Error::Busy)
    }

    /// Where a subject lies, as far as this process knows.
    pub(crate) fn place_of(&self, tag: &Tag) -> Tag {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).get(tag).copied().unwrap_or(*tag)
    }

    /// Notes where a subject lies: a hint for who asks for it by its tag.
    pub(crate) fn lies_at(&self, tag: Tag, place: Tag) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if tag == place {
            moved.remove(&tag);
        } else {
            moved.insert(tag, place);
        }
    }

    async fn read_all(
        &self,
        seek: impl Fn(&Ring) -> Result<Vec<Seek>>,
        more: &[Key],
    ) -> Result<Vec<Result<Subject>>> {
        let mut names = vec![FENCE.to_vec()];
        names.extend_from_slice(more);
        let mut failed_at = None;
        for _ in 0..ATTEMPTS {
            // One ring for both: another task may take over a newer one meanwhile.
            let ring = self.ring();
            let rolled_back = match self.read_once(&seek(&ring)?, ring.lookup(), &names).await {
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

    /// `None` where the journal has gone on since, or the lookup key was changed.
    async fn read_once(
        &self,
        seeks: &[Seek],
        lookup: (u16, Option<u16>),
        names: &[Key],
    ) -> Result<Option<Vec<Result<Subject>>>> {
        let asked = self.journal.known();
        let places: Vec<Tag> = seeks.iter().flat_map(Seek::places).collect();
        let (found, rows) = self.tree.find_many(&places, names).await?;
        let mut rows = rows.into_iter();
        let fence = rows.next().flatten();
        let more: Arc<[Option<Versioned>]> = rows.collect();
        let head = self.journal.head_of(fence.as_ref())?;
        self.journal.catch_up(head, asked).await?;
        self.refresh_registry().await?;
        self.refresh_ring().await?;
        if self.ring().lookup() != lookup {
            return Ok(None);
        }
        if head.number == self.journal.known() {
            self.remembered.saw(head.number, Expect::unchanged(fence.as_ref()));
        }
        let mut found = found.into_iter();
        let mut subjects = Vec::with_capacity(seeks.len());
        for seek in seeks {
            let half = match seek {
                Seek::Named { tag, .. } => {
                    let found = found.next().ok_or(Malformed::Length)?;
                    self.named(tag, found)
                }
                Seek::Places(places) => {
                    let newest = found.next().ok_or(Malformed::Length)?;
                    let former = places.former.and_then(|place| Some((place, found.next()?)));
                    self.at_one_of(places, newest, former)
                }
            };
            let epoch = self.journal.with(|state| state.epoch);
            // Either the rows were read before the journal went on, or somebody put older ones back: what the journal
            // remembers holds, whatever the store says.
            let behind = half.as_ref().is_ok_and(|(found, tag, meta, _)| {
                found.path.root.epoch < epoch || self.is_behind(tag, seek, meta.as_ref())
            });
            if behind && head.number < self.journal.known() {
                return Ok(None);
            }
            let whole = |(found, tag, meta, other)| {
                let lookup = match seek {
                    Seek::Places(places) => Some(places.number),
                    Seek::Named { .. } => None,
                };
                let (fence, more) = (fence.clone(), Arc::clone(&more));
                Subject { found, tag, meta, other, lookup, fence, more }
            };
            subjects.push(if behind { Err(RolledBack::Store.into()) } else { half.map(whole) });
        }
        Ok(Some(subjects))
    }

    fn named(&self, tag: &Tag, found: Result<Found>) -> Result<Half> {
        let found = found?;
        let place = tag_of(&found.name).ok_or(Malformed::Length)?;
        // Another subject may lie there.
        let meta = self.tree.meta(&found)?.filter(|meta| meta.tag(&place) == *tag);
        Ok((found, *tag, meta, None))
    }

    fn at_one_of(
        &self,
        places: &Places,
        newest: Result<Found>,
        former: Option<(Tag, Result<Found>)>,
    ) -> Result<Half> {
        let newest = newest?;
        let meta = self.tree.meta(&newest)?;
        let Some((place, former)) = former else {
            let tag = meta.as_ref().map_or(places.newest, |meta| meta.tag(&places.newest));
            return Ok((newest, tag, meta, None));
        };
        let former = former?;
        match (meta, self.tree.meta(&former)?) {
            (None, Some(meta)) => {
                let tag = meta.tag(&place);
                Ok((former, tag, Some(meta), Some(Other::Newest(newest))))
            }
            (None, None) => Ok((newest, places.newest, None, Some(Other::Former(former)))),
            (Some(meta), behind) => {
                // It has left that place: what lies there was put back, and the next change takes it away. Or it is of an
                // earlier enrolment that is forgotten, of which a copy that was put right knows no more than that.
                let over = |behind: &Meta| {
                    let newest = behind.generations.last();
                    behind.is_tombstone()
                        || meta.is_tombstone() && newest.is_none_or(|newest| newest.forgotten.is_some())
                };
                let left = |behind: &Meta| over(behind) || meta.left.iter().any(|(left, _)| *left == place);
                if behind.as_ref().is_some_and(|behind| !left(behind)) {
                    return Err(RolledBack::Mixed.into());
                }
                let tag = meta.tag(&places.newest);
                Ok((newest, tag, Some(meta), Some(Other::Former(former))))
            }
        }
    }

    fn is_behind(&self, tag: &Tag, seek: &Seek, meta: Option<&Meta>) -> bool {
        let remembered = |tag: &Tag| self.journal.with(|s| s.fences.get(tag).map_or(0, |fence| fence.state));
        match meta {
            Some(meta) => meta.state < remembered(tag),
            // It is nowhere: at none of its places anything must be remembered.
            None => remembered(tag) > 0 || seek.places().any(|place| remembered(&place) > 0),
        }
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
