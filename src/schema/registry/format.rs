//! The stored form of the registry. Integers are big-endian, counts and lengths minimal varints:
//!
//! ```text
//! registry    = version 1 (u8) ‖ count ‖ purpose* ‖ count ‖ record*
//! purpose     = number (u16, ascending) ‖ label ‖ basis (u8) ‖ longest period in days (varint) ‖ doc
//! record      = label (ascending) ‖ doc ‖ count ‖ field*
//! field       = number (u16, ascending) ‖ label ‖ state (u8) ‖ declaration, unless the state is 4
//! state       = 1 declared, 2 retired, 3 reserved, 4 reserved and never declared
//! declaration = doc ‖ class (u8) ‖ sensitive (u8) ‖ count ‖ term*
//! term        = purpose (u16, ascending) ‖ period (u16) ‖ unit (u8)
//! ```

use std::collections::BTreeMap;

use super::{Declaration, FieldEntry, MAX_BYTES, MAX_DOC, PurposeEntry, RecordEntry, Registry, State, days};
use crate::error::{Malformed, Result, Unsupported};
use crate::purpose::FIRST_BUILT_IN;
use crate::record::check;
use crate::schema::{Class, Unit};
use crate::wire::{Put as _, Reader};
use crate::{Basis, LegalHold, Purpose as _, SubjectAccess};

const VERSION: u8 = 1;

/// 100 years and what rounding up adds: 1,200 months of 31 days.
const MAX_DAYS: u32 = 37_200;

impl Registry {
    /// To bytes; one registry has one encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_count(&mut out, self.purposes.len());
        for (number, purpose) in &self.purposes {
            out.put_u16(*number);
            out.put_bytes(purpose.label.as_bytes());
            out.put_u8(purpose.basis.number());
            out.put_varint(purpose.longest_days);
            out.put_bytes(purpose.doc.as_bytes());
        }
        put_count(&mut out, self.records.len());
        for (label, record) in &self.records {
            out.put_bytes(label.as_bytes());
            out.put_bytes(record.doc.as_bytes());
            put_count(&mut out, record.fields.len());
            for (number, field) in &record.fields {
                out.put_u16(*number);
                put_field(&mut out, field);
            }
        }
        out
    }

    /// From bytes.
    ///
    /// # Errors
    ///
    /// [`Unsupported::Version`] for an unknown version; [`Malformed`] for anything that [`encode`](Self::encode) does
    /// not write.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_BYTES {
            return Err(Malformed::Length.into());
        }
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Unsupported::Version.into());
        }
        let mut registry = Registry::default();
        for _ in 0..reader.varint()? {
            let number = reader.u16()?;
            ascending(registry.purposes.last_key_value().map(|(last, _)| last), &number)?;
            registry.purposes.insert(number, purpose(&mut reader, number)?);
        }
        once(registry.purposes.values().map(|purpose| &*purpose.label))?;
        for _ in 0..reader.varint()? {
            let label = label(&mut reader)?;
            ascending(registry.records.last_key_value().map(|(last, _)| last), &label)?;
            let record = record(&mut reader, &registry.purposes)?;
            registry.records.insert(label, record);
        }
        reader.end()?;
        Ok(registry)
    }
}

fn put_count(out: &mut Vec<u8>, n: usize) {
    out.put_varint(u32::try_from(n).unwrap_or(u32::MAX));
}

fn put_field(out: &mut Vec<u8>, field: &FieldEntry) {
    out.put_bytes(field.label.as_bytes());
    out.put_u8(match &field.state {
        State::Declared(_) => 1,
        State::Retired(_) => 2,
        State::Reserved(Some(_)) => 3,
        State::Reserved(None) => 4,
    });
    let Some(declaration) = field.state.declaration() else { return };
    out.put_bytes(declaration.doc.as_bytes());
    out.put_u8(match declaration.class {
        Class::Basic => 1,
        Class::Transaction => 2,
        Class::Behaviour => 3,
    });
    out.put_u8(declaration.sensitive.into());
    put_count(out, declaration.terms.len());
    for (purpose, (n, unit)) in &declaration.terms {
        out.put_u16(*purpose);
        out.put_u16(*n);
        out.put_u8(match unit {
            Unit::Days => 1,
            Unit::Months => 2,
            Unit::Years => 3,
        });
    }
}

fn purpose(reader: &mut Reader<'_>, number: u16) -> Result<PurposeEntry> {
    let label = label(reader)?;
    let basis = Basis::from_number(reader.u8()?).ok_or(Malformed::Content)?;
    let longest_days = reader.varint()?;
    let built_in = number >= FIRST_BUILT_IN || [SubjectAccess::LABEL, LegalHold::LABEL].contains(&&*label);
    if number == 0 || built_in || longest_days > MAX_DAYS {
        return Err(Malformed::Content.into());
    }
    Ok(PurposeEntry { label, basis, doc: doc(reader)?, longest_days })
}

fn record(reader: &mut Reader<'_>, purposes: &BTreeMap<u16, PurposeEntry>) -> Result<RecordEntry> {
    let mut record = RecordEntry { doc: doc(reader)?, fields: BTreeMap::new() };
    for _ in 0..reader.varint()? {
        let number = reader.u16()?;
        ascending(record.fields.last_key_value().map(|(last, _)| last), &number)?;
        if number == 0 {
            return Err(Malformed::Content.into());
        }
        record.fields.insert(number, field(reader, purposes)?);
    }
    once(record.fields.values().map(|field| &*field.label).filter(|label| !label.is_empty()))?;
    Ok(record)
}

fn field(reader: &mut Reader<'_>, purposes: &BTreeMap<u16, PurposeEntry>) -> Result<FieldEntry> {
    let label = reader.text()?;
    let state = match reader.u8()? {
        1 => State::Declared(declaration(reader, purposes)?),
        2 => State::Retired(declaration(reader, purposes)?),
        3 => State::Reserved(Some(declaration(reader, purposes)?)),
        4 => State::Reserved(None),
        _ => return Err(Malformed::Content.into()),
    };
    let nameless = label.is_empty() && state == State::Reserved(None);
    if !nameless && !check::label(label) {
        return Err(Malformed::Content.into());
    }
    Ok(FieldEntry { label: label.into(), state })
}

fn declaration(reader: &mut Reader<'_>, purposes: &BTreeMap<u16, PurposeEntry>) -> Result<Declaration> {
    let doc = doc(reader)?;
    let class = match reader.u8()? {
        1 => Class::Basic,
        2 => Class::Transaction,
        3 => Class::Behaviour,
        _ => return Err(Malformed::Content.into()),
    };
    let sensitive = reader.flag()?;
    let mut terms = BTreeMap::new();
    for _ in 0..reader.varint()? {
        let (purpose, n) = (reader.u16()?, reader.u16()?);
        let unit = match reader.u8()? {
            1 => Unit::Days,
            2 => Unit::Months,
            3 => Unit::Years,
            _ => return Err(Malformed::Content.into()),
        };
        ascending(terms.last_key_value().map(|(last, _)| last), &purpose)?;
        let longest = purposes.get(&purpose).ok_or(Malformed::Content)?.longest_days;
        // A purpose's key must outlive every day that was promised to it.
        if n == 0 || days((n, unit)) > longest {
            return Err(Malformed::Content.into());
        }
        terms.insert(purpose, (n, unit));
    }
    if terms.is_empty() {
        return Err(Malformed::Content.into());
    }
    Ok(Declaration { doc, class, sensitive, terms })
}

fn label(reader: &mut Reader<'_>) -> Result<Box<str>> {
    let label = reader.text()?;
    if check::label(label) { Ok(label.into()) } else { Err(Malformed::Content.into()) }
}

fn doc(reader: &mut Reader<'_>) -> Result<Box<str>> {
    let doc = reader.text()?;
    if doc.len() <= MAX_DOC { Ok(doc.into()) } else { Err(Malformed::Length.into()) }
}

fn ascending<K: Ord>(last: Option<&K>, next: &K) -> Result<()> {
    if last.is_none_or(|last| last < next) { Ok(()) } else { Err(Malformed::Order.into()) }
}

fn once<'a>(labels: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut labels: Vec<&str> = labels.collect();
    labels.sort_unstable();
    if labels.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(Malformed::Order.into()) }
}
