//! The change of the lookup key: entries move to where the new key puts them.
//!
//! Where an entry lies is a keyed hash of the subject's id, and the vault does not know the ids: the shop hands them in
//! again. After [`Vault::change_key`] with [`KeyKind::Lookup`](crate::KeyKind::Lookup) whoever is enrolled lies under the new
//! key, and whoever is changed comes to lie there in the same commit. [`Vault::move_subjects`] does it for the rest, some
//! at a time; [`Vault::moves`] says how far it has come; [`Vault::retire_keys`] ends it. Readers look at both places in one
//! read.
//!
//! What names a subject in the journal, with its records and its holds stays the hash of its enrolment. So a copy of the
//! store from before is recovered by the same journal, and grants, records and holds do not notice.

use crate::actor::{Actor, Ground, SubjectId};
use crate::change::{Change, Changed, Item, Work, in_parts};
use crate::entry::Entry;
use crate::error::{Error, Malformed, Misuse, Result};
use crate::key::Tag;
use crate::log::Action;
use crate::store::{Key, Range};
use crate::tree::node::tag_of;
use crate::vault::{Inner, Other, Subject, Vault};

/// How many entries are read at a time, each with its way.
const ROWS: usize = 500;

/// What became of subjects that were to be moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// They lie under the lookup key that is used from now on.
    pub moved: u64,
    /// They lay there already.
    pub already: u64,
    /// They wait for a shred: something of them is to be destroyed now, and is destroyed where it lies.
    pub waiting: u64,
    /// The vault does not know them.
    pub unknown: u64,
}

/// Where the entries of subjects lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moves {
    /// Under the lookup key that is used.
    pub moved: u64,
    /// Under a former one. While there are any, it is not [retired](Vault::retire_keys).
    pub left: u64,
    /// Under a former one, of subjects that are erased: nothing of them opens, and no shop has their ids any more. They
    /// stay. Once the former key is retired, the vault does not know such a person again: `enroll` takes them as new.
    pub erased: u64,
    /// Entries that do not open.
    pub faults: u64,
}

impl Vault {
    /// Moves subjects to where the lookup key that is used puts them, up to a thousand in one commit. Readers and writers go
    /// on. It can be called any number of times, with any ids: those of subjects that lie there already are counted.
    ///
    /// A subject whose keys are due for destruction is not moved before a [`shred`](Self::shred) has destroyed them. The
    /// shred of a subject that has moved rotates the bucket in which it lay before, too.
    ///
    /// # Errors
    ///
    /// What store and witness say: nobody moves before the witness knows of the change. [`Error::Busy`] where others change
    /// subjects all the time: each move is a line of the journal. What was moved until then stays moved: call it again with all.
    pub async fn move_subjects(&self, ids: &[SubjectId], actor: &Actor, ground: &Ground) -> Result<Moved> {
        let work = Moving { inner: &self.0, ids, actor, ground };
        let mut moved = Moved::default();
        for result in in_parts(ids.len(), &work).await {
            let count = match result {
                Ok(()) => &mut moved.moved,
                Err(Error::Misuse(Misuse::AlreadyEnrolled)) => &mut moved.already,
                Err(Error::Misuse(Misuse::InUse)) => &mut moved.waiting,
                Err(Error::NotEnrolled) => &mut moved.unknown,
                Err(why) => return Err(why),
            };
            *count = count.saturating_add(1);
        }
        Ok(moved)
    }

    /// Opens every entry under the root of now and says under which lookup key it lies. Readers and writers go on
    /// meanwhile. `progress` is told after every 500 entries.
    ///
    /// # Errors
    ///
    /// What store and keeper say. Entries that do not open are counted.
    pub async fn moves(&self, progress: impl Fn(&Moves) + Send) -> Result<Moves> {
        self.0.catch_up().await?;
        self.0.moves(progress).await
    }
}

/// Who is to be moved.
#[derive(Debug)]
struct Mover {
    id: SubjectId,
    place: Tag,
}

impl Item for Mover {
    type Name = SubjectId;

    fn name(&self) -> SubjectId {
        self.id.clone()
    }

    fn place(&self) -> Tag {
        self.place
    }
}

/// Many who are.
struct Moving<'a> {
    inner: &'a Inner,
    ids: &'a [SubjectId],
    actor: &'a Actor,
    ground: &'a Ground,
}

impl Work for Moving<'_> {
    type Item = Mover;
    type Out = Changed<()>;

    /// It leaves a bucket that may be anywhere.
    fn stays_in_place(&self) -> bool {
        false
    }

    fn item(&self, place: usize) -> Result<Mover> {
        let id = self.ids.get(place).ok_or(Malformed::Length)?;
        Ok(Mover { id: id.clone(), place: self.inner.ring().places(id)?.newest })
    }

    async fn part(&self, part: &[Mover]) -> Result<Option<Vec<Result<Changed<()>>>>> {
        let ids: Vec<&SubjectId> = part.iter().map(|mover| &mover.id).collect();
        let edit = |_: usize, subject: &Subject, entry: Option<Entry>| {
            let entry = entry.ok_or(Error::NotEnrolled)?;
            match &subject.other {
                Some(Other::Newest(_)) => {}
                // Somebody has put an older entry back where it lay: it goes with this.
                Some(Other::Former(former)) if former.row.is_some() => {}
                _ => return Err(Misuse::AlreadyEnrolled.into()),
            }
            if entry.next_due().is_some_and(|day| day <= self.inner.trusted_today()) {
                return Err(Misuse::InUse.into());
            }
            let log = self.inner.entry_by(Action::MoveSubjects, self.actor, self.ground)?;
            let log = self.inner.about(log, &entry);
            Ok(Change { moves: true, ..Change::new(entry, log, ()) })
        };
        self.inner.try_change(&ids, &[], edit).await
    }
}

impl Inner {
    pub(crate) async fn moves(&self, progress: impl Fn(&Moves) + Send) -> Result<Moves> {
        let (newest, _) = self.ring().lookup();
        let mut moves = Moves::default();
        let mut range = Range::prefix(b"s");
        loop {
            let page = self.rows.page(range.clone(), ROWS).await?;
            let names: Vec<Key> = page.rows.into_iter().map(|(name, _)| name).collect();
            let places: Vec<Tag> = names.iter().filter_map(|name| tag_of(name)).collect();
            for found in self.tree.find_many(&places, &[]).await?.0 {
                let count = match found.and_then(|found| self.tree.entry(&found)) {
                    // Gone since: it lies elsewhere.
                    Ok(None) => continue,
                    Ok(Some(entry)) if entry.meta.lookup == newest => &mut moves.moved,
                    Ok(Some(entry)) if entry.is_erased() => &mut moves.erased,
                    Ok(Some(_)) => &mut moves.left,
                    Err(_) => &mut moves.faults,
                };
                *count = count.saturating_add(1);
            }
            progress(&moves);
            match page.next {
                Some(next) => range.start = next,
                None => return Ok(moves),
            }
        }
    }
}
