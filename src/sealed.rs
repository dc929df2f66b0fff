//! Sealed records and fields: what the shop may keep anywhere. The format is in docs/SPEC.md, "Sealed value".

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use base64ct::{Base64, Encoding as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::cell::{Cell, slot};
use crate::clock::Day;
use crate::context::{Context, Shape};
use crate::crypto::aead::Suite;
use crate::error::{Absent, Error, Malformed, Misuse, Result, Unsupported};
use crate::grant::Grant;
use crate::purpose::{OpensFor, Purpose, PurposeId};
use crate::record::{NoId, Record, RecordId, Sealable};
use crate::wire::Reader;

#[cfg(any(feature = "postgres-types", feature = "sqlx-0_9"))]
mod columns;
mod into;

/// The version of the format, and the first byte of every sealed value.
pub(crate) const VERSION: u8 = 1;
/// The most cells in a sealed record.
const MAX_CELLS: usize = 128;

/// A sealed record `R`, or a sealed field `order::address`: ciphertext with its lockboxes. It can be stored, copied and
/// sent anywhere; it opens with [`open`](Self::open), under the record id that the caller states, while the purpose
/// lasts.
pub struct Sealed<T: Sealable, I = <T as Sealable>::Id> {
    bytes: Vec<u8>,
    of: PhantomData<fn() -> (T, I)>,
}

impl<T: Sealable> Sealed<T> {
    /// Takes bytes that [`as_bytes`](Self::as_bytes) gave. Their form is checked; whether they open shows at opening.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where they are no sealed value, [`Error::Unsupported`] for a version or suite that this
    /// version does not know.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let mut last = 0;
        let mut seen = std::collections::BTreeSet::new();
        for (count, cell) in cells(&bytes)?.enumerate() {
            let cell = cell?;
            let first = cell.slots().next().map_or(0, |slot| slot.number);
            let twice = !cell.slots().all(|slot| seen.insert(slot.number));
            if count >= MAX_CELLS || first <= last || twice {
                return Err(Malformed::Order.into());
            }
            last = first;
        }
        if T::FIELD.is_some_and(|number| !seen.iter().all(|sealed| *sealed == number)) {
            return Err(Malformed::Content.into());
        }
        Ok(Sealed { bytes, of: PhantomData })
    }
}

impl<T: Sealable, I> Sealed<T, I> {
    pub(crate) fn trusted(bytes: Vec<u8>) -> Self {
        Sealed { bytes, of: PhantomData }
    }

    /// For storing it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// For storing it.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The day on which each purpose ends that this was sealed for: purpose and last day, the latest where cells
    /// differ. Read from the clear header: authentic only where it opens.
    #[must_use]
    pub fn unverified_days(&self) -> Vec<(PurposeId, Day)> {
        let mut days = std::collections::BTreeMap::new();
        for (purpose, day) in
            cells(&self.bytes).into_iter().flatten().flatten().flat_map(|c| c.lockboxes().collect::<Vec<_>>())
        {
            let latest = days.entry(purpose).or_insert(day);
            *latest = day.max(*latest);
        }
        days.into_iter().map(|(purpose, day)| (PurposeId(purpose), day)).collect()
    }

    fn parsed(&self) -> Result<impl Iterator<Item = Result<Cell<'_>>>> {
        cells(&self.bytes)
    }

    /// `record_id` is empty for a record that has none.
    /// By which suites it is sealed, cell by cell, as it says itself: nothing has checked it. To find what is still under a
    /// suite that is to go, and [`renew`](Self::renew) it.
    #[must_use]
    pub fn unverified_suites(&self) -> Vec<Suite> {
        let cells = cells(&self.bytes).into_iter().flatten().flatten();
        cells.map(|cell| cell.suite).collect()
    }

    pub(crate) fn open_with<P: Purpose>(&self, grant: &Grant<P>, record_id: &[u8]) -> Result<T::Opened<P>> {
        let draft = grant.while_fresh(|today| {
            let mut draft = T::draft::<P>();
            self.parsed()?
                .try_for_each(|cell| open_cell::<T, P>(&cell?, grant, today, record_id, &mut draft))?;
            Ok(draft)
        })?;
        T::finish(draft)
    }
}

impl<R: Record<Id = I>, I> Sealed<R, I> {
    /// The labels of fields that no cell holds: their purposes had no basis, or were over, when this was sealed, or the
    /// field is newer.
    #[must_use]
    pub fn left_out(&self) -> Vec<&'static str> {
        let sealed: Vec<u16> = cells(&self.bytes)
            .into_iter()
            .flatten()
            .flatten()
            .flat_map(|cell| cell.slots().map(|slot| slot.number).collect::<Vec<_>>())
            .collect();
        R::FIELDS.iter().filter(|field| !sealed.contains(&field.number)).map(|field| field.label).collect()
    }
}

impl<T: Sealable<Id = NoId>> Sealed<T, NoId> {
    /// Opens what the grant's purpose may see.
    ///
    /// # Errors
    ///
    /// [`Error::DoesNotOpen`] where it is not of this subject and record, or was altered: they look alike.
    /// [`Error::Stale`] where the grant is no longer fresh, [`Error::Denied`] where it has expired or was revoked,
    /// [`Error::Erased`] where the subject was forgotten. For a single field, [`Error::Absent`] where it is not there
    /// for this purpose; for a record, the view's accessors say so.
    pub fn open<P: Purpose>(&self, grant: &Grant<P>) -> Result<T::Opened<P>>
    where
        T: OpensFor<P>,
    {
        self.open_with(grant, &[])
    }
}

impl<T: Sealable<Id = I>, I: RecordId> Sealed<T, I> {
    /// Opens what the grant's purpose may see of the record with this id.
    ///
    /// # Errors
    ///
    /// As for a record without an id.
    pub fn open<P: Purpose>(&self, grant: &Grant<P>, id: &I) -> Result<T::Opened<P>>
    where
        T: OpensFor<P>,
    {
        self.open_with(grant, id.id_bytes().bytes().ok_or(Misuse::Identifier)?)
    }
}

pub(crate) fn shape<T: Sealable>() -> Shape {
    if T::FIELD.is_some() { Shape::Field } else { Shape::Record }
}

/// The cells of a sealed value.
pub(crate) fn cells(bytes: &[u8]) -> Result<impl Iterator<Item = Result<Cell<'_>>>> {
    let (version, rest) = bytes.split_first().ok_or(Malformed::Length)?;
    if *version != VERSION {
        return Err(Unsupported::Version.into());
    }
    let mut reader = Reader::new(rest);
    let mut broken = false;
    Ok(std::iter::from_fn(move || {
        if reader.is_empty() || broken {
            return None;
        }
        let cell = reader.bytes().and_then(Cell::parse);
        broken = cell.is_err();
        Some(cell)
    }))
}

fn open_cell<T: Sealable, P: Purpose>(
    cell: &Cell<'_>,
    grant: &Grant<P>,
    today: Day,
    record_id: &[u8],
    draft: &mut T::Draft<P>,
) -> Result<()> {
    let absent = |draft: &mut T::Draft<P>, why: Absent| {
        cell.slots().try_for_each(|slot| T::fill(draft, slot.number, Err(why)))
    };
    if !cell.slots().any(|slot| grant.covers(T::RECORD, slot.number)) {
        return absent(draft, Absent::NotInToken);
    }
    let opened = grant.open(cell, today, |serial, purpose, cipher| {
        let context = Context::new(grant.vault_id(), serial, T::RECORD, record_id, shape::<T>())?;
        cell.open(&context, purpose, cipher, |values| {
            let mut reader = Reader::new(values);
            for field in cell.slots() {
                let value = slot::take(&mut reader, field.padded)?;
                let value =
                    if grant.covers(T::RECORD, field.number) { Ok(value) } else { Err(Absent::NotInToken) };
                T::fill(draft, field.number, value)?;
            }
            reader.end()
        })
    });
    match opened {
        // What was authenticated and does not decode was written by a faulty program, not by an attacker; the caller
        // can do the same about both, and an outsider learns nothing from the difference.
        Err(Error::Malformed(_) | Error::DoesNotOpen) => {
            grant.note_cause();
            Err(Error::DoesNotOpen)
        }
        Ok(Err(why)) => absent(draft, why),
        done => done.map(|_| ()),
    }
}

impl<T: Sealable, I> Clone for Sealed<T, I> {
    fn clone(&self) -> Self {
        Self::trusted(self.bytes.clone())
    }
}

impl<T: Sealable, I> PartialEq for Sealed<T, I> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T: Sealable, I> Eq for Sealed<T, I> {}

impl<T: Sealable, I> Hash for Sealed<T, I> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl<T: Sealable, I> fmt::Debug for Sealed<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("record", &T::RECORD)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// Text formats get standard base64 with padding, binary ones bytes.
impl<T: Sealable, I> Serialize for Sealed<T, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&Base64::encode_string(&self.bytes))
        } else {
            serializer.serialize_bytes(&self.bytes)
        }
    }
}

impl<'de, T: Sealable> Deserialize<'de> for Sealed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sealed value")
            }
            // A message of our own: serde's would quote the input.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
                Base64::decode_vec(text).map_err(|_| E::custom("not the base64 of a sealed value"))
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        let bytes = if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor)
        } else {
            deserializer.deserialize_byte_buf(Visitor)
        };
        Self::from_bytes(bytes?).map_err(de::Error::custom)
    }
}
