//! Writing records: each row together with the head of its subject.

use std::collections::HashMap;

use zeroize::Zeroizing;

use super::{Head, Keys, NAME, RecordKey, SEALED, head_name, place_of};
use crate::actor::{Actor, Ground, SubjectId};
use crate::change::{Assembled, Item, Work, in_parts};
use crate::error::{Erased, Error, Malformed, Misuse, Result};
use crate::journal::FENCE;
use crate::key::{Parent, Tag};
use crate::log::{self, Action, Count};
use crate::record::Record;
use crate::row::{Plain, Row, wrap};
use crate::sealed::Sealed;
use crate::store::{Batch, Committed, Expect, Versioned};
use crate::tree::{ATTEMPTS, Draft};
use crate::vault::{Inner, Subject, Vault};
use crate::wire::Put as _;

/// The largest sealed record, in bytes: 24 MiB.
const MAX_SEALED: usize = 24 << 20;

impl Vault {
    /// Stores a sealed record of a subject, or replaces the one of the same id.
    ///
    /// # Errors
    ///
    /// [`Error::NotEnrolled`]; [`Erased::Forgotten`]; [`Misuse::Identifier`] for an id that is too long.
    pub async fn put<R: Record>(
        &self,
        id: &SubjectId,
        key: impl RecordKey<R>,
        sealed: &Sealed<R>,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<()> {
        self.0.write_one(id, key, Some(sealed), Action::Put, actor, ground).await?;
        Ok(())
    }

    /// Stores any number of sealed records of any subjects, up to a thousand or 4 MiB at a time: each of these chunks is
    /// one read and one commit, with one entry in the log, and two are under way at once. One that is refused keeps no
    /// other from being stored.
    ///
    /// Whoever comes in between makes a chunk smaller and lets it be read again. A crash leaves whole chunks: storing all
    /// again is safe. Of two for the same id the later one stays.
    ///
    /// # Errors
    ///
    /// At its place, what [`put`](Self::put) says of one record. After a chunk that could not be read or written nothing
    /// more is begun, and every record left has its error: only what is
    /// [`StoreError::Unknown`](crate::error::StoreError::Unknown) may have been done.
    pub async fn put_many<R: Record, K: RecordKey<R> + Sync>(
        &self,
        records: &[(&SubjectId, K, &Sealed<R>)],
        actor: &Actor,
        ground: &Ground,
    ) -> Vec<Result<()>> {
        let inner = &self.0;
        match inner.record_keys() {
            Ok(keys) => in_parts(records.len(), &Putting { inner, keys, records, actor, ground }).await,
            Err(why) => vec![Err(why); records.len()],
        }
    }

    /// Deletes a record. Its ciphertext may live on in copies of the store, readable to the end of its last day: to end
    /// that earlier, forget the subject. True where there was one.
    ///
    /// # Errors
    ///
    /// [`Error::NotEnrolled`].
    pub async fn delete<R: Record>(
        &self,
        id: &SubjectId,
        key: impl RecordKey<R>,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<bool> {
        self.0.write_one::<R>(id, key, None, Action::Delete, actor, ground).await
    }
}

/// A row to write.
#[derive(Debug)]
struct Write<'a> {
    id: &'a SubjectId,
    /// Where the subject lies, or is to lie.
    place: Tag,
    /// The same for two of one record.
    which: [u8; 16],
    /// What the row says of itself: the record's label, behind its length, then its id.
    label: Zeroizing<Vec<u8>>,
    /// `None` deletes.
    sealed: Option<&'a [u8]>,
}

impl Item for Write<'_> {
    type Name = [u8; 16];

    fn name(&self) -> [u8; 16] {
        self.which
    }

    fn place(&self) -> Tag {
        self.place
    }

    fn bytes(&self) -> usize {
        self.sealed.map_or(0, <[u8]>::len)
    }
}

/// Many rows to write.
struct Putting<'a, R: Record, K> {
    inner: &'a Inner,
    keys: Keys,
    records: &'a [(&'a SubjectId, K, &'a Sealed<R>)],
    actor: &'a Actor,
    ground: &'a Ground,
}

impl<'a, R: Record, K: RecordKey<R> + Sync> Work for Putting<'a, R, K> {
    type Item = Write<'a>;
    type Out = bool;

    fn item(&self, place: usize) -> Result<Write<'a>> {
        let (id, key, sealed) = self.records.get(place).ok_or(Malformed::Length)?;
        self.inner.writing(&self.keys, id, *key, Some(*sealed))
    }

    async fn part(&self, part: &[Write<'a>]) -> Result<Option<Vec<Result<bool>>>> {
        self.inner.try_write(&self.keys, part, Action::Put, self.actor, self.ground).await
    }
}

/// A subject whose rows are written.
struct Owner {
    head: Head,
    head_row: Option<Versioned>,
    /// Whether something new may be stored, and under which enrolment.
    open: Result<(Parent, u64)>,
    log: log::Entry,
    written: bool,
}

impl Inner {
    fn writing<'a, R: Record>(
        &self,
        keys: &Keys,
        id: &'a SubjectId,
        key: impl RecordKey<R>,
        sealed: Option<&'a Sealed<R>>,
    ) -> Result<Write<'a>> {
        let label = key.with_bytes(|record_id| {
            let record_id = record_id.ok_or(Misuse::Identifier)?;
            let mut label = Zeroizing::new(Vec::new());
            label.put_bytes(R::RECORD.as_bytes());
            label.put(record_id);
            Ok::<_, Error>(label)
        })?;
        let sealed = sealed.map(Sealed::as_bytes);
        if sealed.is_some_and(|sealed| sealed.len() > MAX_SEALED) {
            return Err(Misuse::TooLarge.into());
        }
        let length = crate::wire::length(id.bytes()).to_be_bytes();
        let which = keys.sums.tag(&[b"item", &length, id.bytes(), &label]);
        Ok(Write { id, place: self.ring().places(id)?.newest, which, label, sealed })
    }

    /// Writes or deletes one row. True where there was one before.
    async fn write_one<R: Record>(
        &self,
        id: &SubjectId,
        key: impl RecordKey<R>,
        sealed: Option<&Sealed<R>>,
        action: Action,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            let made = self.assemble_write(id, key, sealed, action, actor, ground).await?;
            if self.lane.commit(made.batch, &made.logs).await? == Committed::Yes {
                return Ok(made.out);
            }
        }
        Err(Error::Busy)
    }

    /// What writing or deleting one row commits. It gives whether there was one before.
    pub(crate) async fn assemble_write<R: Record>(
        &self,
        id: &SubjectId,
        key: impl RecordKey<R>,
        sealed: Option<&Sealed<R>>,
        action: Action,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Assembled<bool>> {
        let keys = self.record_keys()?;
        let write = self.writing(&keys, id, key, sealed)?;
        self.assemble_writes(&keys, &[write], action, actor, ground).await?.single()
    }

    /// Writes rows of different names with their heads in one commit; `None` where it lost a race.
    async fn try_write(
        &self,
        keys: &Keys,
        writes: &[Write<'_>],
        action: Action,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Option<Vec<Result<bool>>>> {
        let made = self.assemble_writes(keys, writes, action, actor, ground).await?;
        let done = made.logs.is_empty() || self.lane.commit(made.batch, &made.logs).await? == Committed::Yes;
        Ok(done.then_some(made.out))
    }

    /// What writing rows of different names commits. For each it gives whether there was one before.
    async fn assemble_writes(
        &self,
        keys: &Keys,
        writes: &[Write<'_>],
        action: Action,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Assembled<Vec<Result<bool>>>> {
        let mut ids: Vec<&SubjectId> = writes.iter().map(|write| write.id).collect();
        ids.sort_unstable_by_key(|id| id.bytes());
        ids.dedup();
        let whose: HashMap<&SubjectId, usize> = ids.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        let name = |tags: &[Tag], write: &Write<'_>| {
            let tag = whose.get(write.id).and_then(|at| tags.get(*at)).ok_or(Malformed::Length)?;
            keys.name_of(tag, &write.label)
        };
        let names = |tags: &[Tag]| {
            let rows = writes.iter().map(|write| name(tags, write));
            rows.chain(tags.iter().map(|tag| Ok(head_name(tag)))).collect()
        };
        let (tags, subjects) = self.read_with_rows(&ids, names).await?;
        // After reading, which takes in what other processes have frozen or let go on.
        self.refuse_if_frozen()?;
        let Some((fence, more)) =
            subjects.iter().flatten().next().map(|read| (read.fence.clone(), read.more.clone()))
        else {
            let why = |subject: Result<Subject>| subject.err().unwrap_or(Error::Busy);
            let why: HashMap<&SubjectId, Error> =
                ids.into_iter().zip(subjects.into_iter().map(why)).collect();
            let refused = |write: &Write<'_>| Err(why.get(write.id).copied().unwrap_or(Error::Busy));
            let (batch, logs, lines) = (Batch::new()?, Vec::new(), Vec::new());
            return Ok(Assembled { batch, logs, lines, out: writes.iter().map(refused).collect() });
        };
        let (rows, head_rows) = more.split_at_checked(writes.len()).ok_or(Malformed::Length)?;
        let mut owners: HashMap<&SubjectId, Result<Owner>> = HashMap::with_capacity(ids.len());
        for (((subject, id), tag), head_row) in subjects.into_iter().zip(&ids).zip(&tags).zip(head_rows) {
            let owner = subject.and_then(|subject| {
                let log = self.about_subject(&subject, self.entry_by(action, actor, ground)?)?;
                let head = keys.head(self, tag, head_row.as_ref())?;
                let open = self.may_store(&subject);
                Ok(Owner { head, head_row: head_row.clone(), open, log, written: false })
            });
            owners.insert(*id, owner);
        }
        let mut draft = Draft::new()?;
        // A forget bumps the fence: nothing is stored after it.
        draft.expect(FENCE, Expect::unchanged(fence.as_ref()));
        let mut done = Vec::with_capacity(writes.len());
        for (write, row) in writes.iter().zip(rows) {
            done.push(match owners.get_mut(write.id) {
                Some(Ok(owner)) => name(&tags, write)
                    .and_then(|name| self.write_row(keys, owner, write, &name, row.as_ref(), &mut draft)),
                Some(Err(why)) => Err(*why),
                None => Err(Malformed::Length.into()),
            });
        }
        let mut logs = Vec::new();
        for (id, tag) in ids.iter().zip(&tags) {
            let Some(Ok(owner)) = owners.remove(id) else { continue };
            if owner.written {
                let (name, head) = (head_name(tag), owner.head);
                let plain = Plain::whole(0, &head.encode());
                draft.expect(&name, Expect::unchanged(owner.head_row.as_ref()));
                draft.put(&name, wrap(&keys.heads, &self.id, &name, head.last, &plain)?);
                logs.push(owner.log);
            }
        }
        let mut logs = log::Entry::joined(logs)?;
        let stored = done.iter().flatten().count();
        if let ([log], 2..) = (logs.as_mut_slice(), stored) {
            *log = log.clone().counting(Count::Records, u64::try_from(stored).unwrap_or(u64::MAX));
        }
        Ok(Assembled { batch: draft.done(), logs, lines: Vec::new(), out: done })
    }

    /// Whether a record of a subject may be stored: what wraps it, and the number of the enrolment.
    fn may_store(&self, subject: &Subject) -> Result<(Parent, u64)> {
        let newest =
            subject.meta.as_ref().and_then(|meta| meta.generations.last()).ok_or(Error::NotEnrolled)?;
        if newest.forgotten.is_some() || self.fenced(&subject.tag) {
            return Err(Erased::Forgotten.into());
        }
        let generation = u64::from(newest.number);
        Ok((self.rows_of(subject, generation)?.ok_or(Erased::Purpose)?, generation))
    }

    fn write_row(
        &self,
        keys: &Keys,
        owner: &mut Owner,
        write: &Write<'_>,
        name: &[u8],
        row: Option<&Versioned>,
        draft: &mut Draft,
    ) -> Result<bool> {
        let mut head = owner.head;
        if let Some(row) = row {
            head.take(keys, name, place_of(&Row::parse(&row.value)?));
        }
        let value = match write.sealed {
            Some(sealed) => {
                let (parent, generation) = owner.open.as_ref().map_err(|why| *why)?;
                head.last = head.last.saturating_add(1);
                head.add(keys, name, (head.last, *generation));
                let parts = vec![(NAME, write.label.clone()), (SEALED, Zeroizing::new(sealed.to_vec()))];
                let plain = Plain { generation: *generation, parts };
                Some(wrap(parent, &self.id, name, head.last, &plain)?)
            }
            None => None,
        };
        (owner.head, owner.written) = (head, true);
        draft.expect(name, Expect::unchanged(row));
        draft.write(name, value);
        Ok(row.is_some())
    }
}
