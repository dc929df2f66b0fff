//! The records layer: sealed records in the vault's own store. It is optional: a sealed record may lie anywhere.
//!
//! The names of rows are keyed hashes, and record ids lie encrypted beside the sealed bytes under a key of the subject's, so
//! that a thief of the store does not learn which orders a subject has, and nobody does once it is forgotten. Each subject has a head: a keyed hash over the set of its rows and their
//! numbers. Listing checks it, so that a row which was deleted, put back from an older copy, or mixed from two is found.

mod write;

use zeroize::Zeroizing;

use crate::actor::{Actor, Ground, SubjectId};
use crate::crypto::{Hkdf, Prf};
use crate::entry::{Meta, records_part};
use crate::error::{Error, Malformed, Misuse, Result, RolledBack};
use crate::key::{Node, Parent, Secret, Tag, label};
use crate::log::Action;
use crate::record::{NoId, Record, RecordId};
use crate::row::{Part, Row};
use crate::sealed::Sealed;
use crate::store::{Batch, Committed, Expect, Key, Range, Versioned};
use crate::tree::ATTEMPTS;
use crate::vault::{Inner, Subject, Vault};
use crate::wire::{Put as _, Reader};

const ROWS: &[u8] = b"v";
const HEADS: &[u8] = b"u";
const NAME: Part = Part { kind: 1, generation: 0, purpose: 0 };
const SEALED: Part = Part { kind: 2, generation: 0, purpose: 0 };

/// What names a record of type `R`: `&id`, or `()` for a record that has none.
pub trait RecordKey<R: Record>: Copy {
    /// Its bytes; empty for a record without an id, `None` where an id is not 1 to 128 bytes.
    fn with_bytes<T>(self, work: impl FnOnce(Option<&[u8]>) -> T) -> T;
}

impl<R: Record<Id = I>, I: RecordId> RecordKey<R> for &I {
    fn with_bytes<T>(self, work: impl FnOnce(Option<&[u8]>) -> T) -> T {
        work(self.id_bytes().bytes())
    }
}

impl<R: Record<Id = NoId>> RecordKey<R> for () {
    fn with_bytes<T>(self, work: impl FnOnce(Option<&[u8]>) -> T) -> T {
        work(Some(&[]))
    }
}

/// The head of a subject's records.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    /// The highest number that a row was given.
    last: u64,
    count: u64,
    /// The sum (exclusive or) of a keyed hash of every row's name and number.
    sum: [u8; 32],
}

impl Vault {
    /// Reads a sealed record of a subject. It is still sealed: opening it takes a grant. `None` where there is none, or
    /// where it belonged to an enrolment of which nothing is left. That an older row of the same record was put back shows
    /// in [`list`](Self::list), not here.
    ///
    /// It looks at one row. That the row was put back from an older copy of the store, or deleted behind the vault, is
    /// found by [`list`](Self::list) alone; and not there either where all rows of the subject and their head were.
    ///
    /// # Errors
    ///
    /// [`Error::NotEnrolled`]; [`RolledBack::Mixed`] where the row is another's or was altered.
    pub async fn get<R: Record>(
        &self,
        id: &SubjectId,
        key: impl RecordKey<R>,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Option<Sealed<R>>> {
        let inner = &self.0;
        let record_id = bytes_of(key)?;
        let keys = inner.record_keys()?;
        let names = |tags: &[Tag]| {
            let rows = |tag: &Tag| [keys.name(tag, R::RECORD, &record_id), head_name(tag)];
            Ok(tags.iter().flat_map(rows).collect())
        };
        let (_, mut subjects) = inner.read_with_rows(&[id], names).await?;
        let subject = subjects.pop().ok_or(Malformed::Length)??;
        let (tag, name) = (subject.tag, keys.name(&subject.tag, R::RECORD, &record_id));
        let entry = inner.about_subject(&subject, inner.entry_by(Action::Get, actor, ground)?)?;
        inner.log(entry).await?;
        let [row, head] = &*subject.more else { return Err(Malformed::Length.into()) };
        let head = keys.head(inner, &tag, head.as_ref())?;
        let Some(row) = row else { return Ok(None) };
        let parsed = Row::parse(&row.value)?;
        if parsed.parent_generation > head.last {
            return Err(RolledBack::Mixed.into());
        }
        let opened = inner.open_row(&subject, &name, &parsed)?;
        opened.map(|opened| Sealed::from_bytes(opened.sealed.to_vec())).transpose()
    }

    /// All records of one type of a subject, with their ids, in no particular order. The whole set of the subject's rows
    /// is checked against its head.
    ///
    /// # Errors
    ///
    /// [`Error::NotEnrolled`]; [`RolledBack::Mixed`] where a row was deleted, put back or altered behind the vault.
    pub async fn list<R: Record<Id = I>, I: RecordId>(
        &self,
        id: &SubjectId,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Vec<(I, Sealed<R>)>> {
        let inner = &self.0;
        let keys = inner.record_keys()?;
        for _ in 0..ATTEMPTS {
            let names = |tags: &[Tag]| Ok(tags.iter().map(head_name).collect());
            let (_, mut subjects) = inner.read_with_rows(&[id], names).await?;
            let subject = subjects.pop().ok_or(Malformed::Length)??;
            let tag = subject.tag;
            let entry = inner.about_subject(&subject, inner.entry_by(Action::List, actor, ground)?)?;
            let before = subject.more.first().cloned().flatten();
            let rows = inner.rows.all(Range::prefix(&[ROWS, &tag[..]].concat())).await?;
            let after = inner.rows.get(&head_name(&tag)).await?;
            if before.as_ref().map(|row| row.version) != after.as_ref().map(|row| row.version) {
                // Somebody wrote between the pages.
                continue;
            }
            let head = keys.head(inner, &tag, after.as_ref())?;
            let mut seen = Head { last: head.last, ..Head::default() };
            let mut found = Vec::new();
            for (name, row) in rows {
                let parsed = Row::parse(&row.value)?;
                seen.add(&keys, &name, place_of(&parsed));
                let Some(opened) = inner.open_row(&subject, &name, &parsed)? else { continue };
                let mut r = Reader::new(&opened.label);
                if r.text()? == R::RECORD {
                    let id = I::from_id_bytes(r.rest()).ok_or(Malformed::Content)?;
                    found.push((id, Sealed::from_bytes(opened.sealed.to_vec())?));
                }
            }
            if seen.count != head.count || seen.sum != head.sum {
                return Err(RolledBack::Mixed.into());
            }
            inner.log(entry).await?;
            return Ok(found);
        }
        Err(Error::Busy)
    }
}

fn bytes_of<R: Record>(key: impl RecordKey<R>) -> Result<Vec<u8>> {
    key.with_bytes(|bytes| bytes.map(<[u8]>::to_vec)).ok_or(Misuse::Identifier.into())
}

impl Inner {
    /// What wraps rows outside the tree, for one use each.
    pub(crate) fn side_parent(&self, label: &[u8]) -> Result<Parent> {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::from_prk(self.index.expose()).expand(&[label], &mut key);
        Ok(Secret::<Node>::from_slice(key.as_slice()).ok_or(Error::DoesNotOpen)?.parent(self.tree.suite))
    }

    fn record_keys(&self) -> Result<Keys> {
        let hkdf = Hkdf::from_prk(self.index.expose());
        let mut key = Zeroizing::new([0; 32]);
        hkdf.expand(&[label::RECORD_NAME], &mut key);
        let names = Prf::new(&key);
        hkdf.expand(&[label::RECORD_HEAD], &mut key);
        let sums = Prf::new(&key);
        Ok(Keys { names, sums, heads: self.side_parent(label::RECORD_ROW)? })
    }

    pub(crate) fn about_subject(
        &self,
        subject: &Subject,
        log: crate::log::Entry,
    ) -> Result<crate::log::Entry> {
        let meta = subject.meta.as_ref().ok_or(Error::NotEnrolled)?;
        let newest = meta.generations.last().ok_or(Error::NotEnrolled)?;
        let audit = self.tree.part(&subject.found, crate::entry::audit_part(newest.number))?;
        Ok(match audit.and_then(|bytes| Secret::<crate::key::Audit>::from_slice(&bytes)) {
            Some(key) => log.about(crate::log::Pseudonym::of(&Prf::new(key.expose()), &self.id)),
            None => log,
        })
    }
}

/// Deletes all rows of a subject, if nothing of it opens any more. The entry has to be as it was read: a hold or a new
/// enrolment that comes meanwhile keeps the rows.
pub(crate) async fn delete_all(inner: &Inner, tag: &Tag) -> Result<()> {
    let range = Range::prefix(&[ROWS, &tag[..]].concat());
    let mut lost = 0_usize;
    while lost < ATTEMPTS {
        let subject = inner.read_named(tag).await?;
        let entry = inner.tree.entry(&subject.found)?;
        if entry.is_some_and(|entry| !entry.keys.is_empty() || entry.hold.is_some()) {
            return Ok(());
        }
        let page = inner.rows.page(range.clone(), 1000).await?;
        let mut batch = Batch::new()?;
        batch.expect(&subject.found.name, Expect::unchanged(subject.found.row.as_ref()));
        for (name, _) in &page.rows {
            batch.writes.push((name.clone(), None));
        }
        if page.next.is_none() {
            batch.delete(&head_name(tag));
        }
        match inner.rows.commit(batch).await? {
            Committed::Yes if page.next.is_none() => return Ok(()),
            Committed::Yes => lost = 0,
            Committed::Conflict => lost = lost.saturating_add(1),
        }
    }
    Err(Error::Busy)
}

/// The keys of the records layer. Names and heads are under the vault's index key; rows are under a key of the subject's
/// entry, so that record ids end with the subject, in every copy.
struct Keys {
    names: Prf,
    sums: Prf,
    heads: Parent,
}

/// A row, opened.
struct Opened {
    /// The record's label, behind its length, then its id.
    label: Zeroizing<Vec<u8>>,
    sealed: Zeroizing<Vec<u8>>,
}

impl Keys {
    fn name(&self, tag: &Tag, record: &str, record_id: &[u8]) -> Key {
        let length = crate::wire::length(record.as_bytes()).to_be_bytes();
        let hash = self.names.tag(&[tag, &length, record.as_bytes(), record_id]);
        [ROWS, &tag[..], &hash].concat()
    }

    /// The same, from the record's label behind its length, and its id.
    fn name_of(&self, tag: &Tag, label: &[u8]) -> Result<Key> {
        let mut r = Reader::new(label);
        let record = r.text()?;
        Ok(self.name(tag, record, r.rest()))
    }

    fn head(&self, inner: &Inner, tag: &Tag, row: Option<&Versioned>) -> Result<Head> {
        let Some(row) = row else { return Ok(Head::default()) };
        let plain = Row::parse(&row.value)?.open_all(&self.heads, &inner.id, &head_name(tag));
        Head::decode(&plain.map_err(|_| RolledBack::Mixed)?.into_whole().ok_or(Malformed::Content)?)
    }
}

impl Inner {
    /// What wraps the rows of one enrolment; `None` once nothing of it is left.
    fn rows_of(&self, subject: &Subject, generation: u64) -> Result<Option<Parent>> {
        let generation = u16::try_from(generation).map_err(|_| RolledBack::Mixed)?;
        let part = self.tree.part(&subject.found, records_part(generation))?;
        Ok(part.and_then(|bytes| Secret::<Node>::from_slice(&bytes)).map(|key| key.parent(self.tree.suite)))
    }

    /// Opens a row; `None` where it belongs to an enrolment of which nothing is left.
    fn open_row(&self, subject: &Subject, name: &[u8], parsed: &Row<'_>) -> Result<Option<Opened>> {
        let Some(parent) = self.rows_of(subject, parsed.generation)? else {
            // An enrolment that never was is no enrolment that is over.
            let known =
                |meta: &Meta| meta.generations.iter().any(|g| u64::from(g.number) == parsed.generation);
            return if subject.meta.as_ref().is_some_and(known) {
                Ok(None)
            } else {
                Err(RolledBack::Mixed.into())
            };
        };
        let label = parsed.open(&parent, &self.id, name, NAME).map_err(|_| RolledBack::Mixed)?;
        let sealed = parsed.open(&parent, &self.id, name, SEALED).map_err(|_| RolledBack::Mixed)?;
        Ok(Some(Opened {
            label: label.ok_or(Malformed::Content)?,
            sealed: sealed.ok_or(Malformed::Content)?,
        }))
    }
}

/// The number that a row was given, and its enrolment. They are authenticated with the row and, where the row cannot be
/// opened any more, by the head.
fn place_of(row: &Row<'_>) -> Place {
    (row.parent_generation, row.generation)
}

type Place = (u64, u64);

fn head_name(tag: &Tag) -> Key {
    [HEADS, &tag[..]].concat()
}

impl Head {
    fn add(&mut self, keys: &Keys, name: &[u8], place: Place) {
        self.mix(keys, name, place);
        self.count = self.count.saturating_add(1);
    }

    fn take(&mut self, keys: &Keys, name: &[u8], place: Place) {
        self.mix(keys, name, place);
        self.count = self.count.saturating_sub(1);
    }

    fn mix(&mut self, keys: &Keys, name: &[u8], place: Place) {
        let hash = keys.sums.mac(&[name, &place.0.to_be_bytes(), &place.1.to_be_bytes()]);
        for (sum, byte) in self.sum.iter_mut().zip(hash.iter()) {
            *sum ^= byte;
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![1];
        out.put_u64(self.last);
        out.put_u64(self.count);
        out.put(&self.sum);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return Err(crate::error::Unsupported::Version.into());
        }
        let head = Head { last: r.u64()?, count: r.u64()?, sum: r.array()? };
        r.end()?;
        Ok(head)
    }
}
