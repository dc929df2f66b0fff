//! Every purpose and field that a vault was ever opened with. What is sealed names them by number, for as long as it
//! lives: a number that came to mean something else would open old data for a purpose it was never collected for.

mod format;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::{Class, FieldInfo, Schema, Unit};
use crate::error::{Contradiction, Misuse, Result};
use crate::record::check;
use crate::{Basis, PurposeId, PurposeInfo};

/// What a vault remembers of its declarations. It prints as the register of processing
/// ([`to_markdown`](Self::to_markdown), [`to_json`](Self::to_json)).
///
/// Nothing is ever taken out: a field that has left its declaration is *retired*, and its number and label stay taken.
/// A record or purpose that a process does not declare stays as it was, since another process may serve it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    pub(super) purposes: BTreeMap<u16, PurposeEntry>,
    pub(super) records: BTreeMap<Box<str>, RecordEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PurposeEntry {
    pub(super) label: Box<str>,
    pub(super) basis: Basis,
    pub(super) doc: Box<str>,
    /// The longest period that any declaration ever gave it; 0 where none did.
    pub(super) longest_days: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordEntry {
    pub(super) doc: Box<str>,
    pub(super) fields: BTreeMap<u16, FieldEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldEntry {
    /// Empty where only the number was reserved.
    pub(super) label: Box<str>,
    pub(super) state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In the newest declaration.
    Declared(Declaration),
    /// No more.
    Retired(Declaration),
    /// Reserved, with what it was, if it was anything.
    Reserved(Option<Declaration>),
}

impl State {
    pub(super) fn declaration(&self) -> Option<&Declaration> {
        match self {
            State::Declared(declaration) | State::Retired(declaration) => Some(declaration),
            State::Reserved(declaration) => declaration.as_ref(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declaration {
    pub(super) doc: Box<str>,
    pub(super) class: Class,
    pub(super) sensitive: bool,
    pub(super) terms: BTreeMap<u16, (u16, Unit)>,
}

/// The longest documentation of one item, in bytes.
pub(super) const MAX_DOC: usize = 64 << 10;
/// The longest encoding, in bytes.
pub(super) const MAX_BYTES: usize = 4 << 20;

impl Registry {
    /// Takes over what a process declares, all of it or nothing. `purposes` are those that no record names. True
    /// where something changed, so that it has to be stored.
    ///
    /// What may change: names in code, documentation, classes, marks, periods (the longest stays remembered), the
    /// purposes of a field. What was sealed keeps the purposes and days it was sealed with.
    ///
    /// # Errors
    ///
    /// [`Contradiction`] where a number, label or basis comes to mean something else. For declarations that the macros
    /// would not have compiled: [`Misuse::BuiltIn`] for a purpose that claims a number or label of the built-in ones or
    /// has no basis, [`Misuse::Identifier`] for a number or label of the wrong form, [`Misuse::Setting`] for the rest.
    /// [`Misuse::TooLarge`] for documentation of more than 64 KiB, and for more than 4 MiB in all.
    pub fn merge(&mut self, schemas: &[Schema], purposes: &[PurposeInfo]) -> Result<bool> {
        let mut next = self.clone();
        for purpose in purposes {
            next.merge_purpose(purpose)?;
        }
        let mut seen = BTreeMap::new();
        for schema in schemas {
            match seen.insert(schema.label(), schema.type_id()) {
                None => next.merge_record(schema)?,
                Some(same) if same == schema.type_id() => {}
                Some(_) => return Err(Contradiction::RecordTwice.into()),
            }
        }
        if *self == next {
            return Ok(false);
        }
        if next.encode().len() > MAX_BYTES {
            return Err(Misuse::TooLarge.into());
        }
        *self = next;
        Ok(true)
    }

    /// All purposes, ascending by number, without the built-in ones.
    pub fn purposes(&self) -> impl Iterator<Item = PurposeId> + '_ {
        self.purposes.keys().map(|number| PurposeId(*number))
    }

    /// The basis of a purpose; `None` for an unknown or built-in one.
    #[must_use]
    pub fn basis(&self, purpose: PurposeId) -> Option<Basis> {
        self.purposes.get(&purpose.0).map(|entry| entry.basis)
    }

    /// The label of a purpose; `None` for an unknown or built-in one.
    #[must_use]
    pub fn label(&self, purpose: PurposeId) -> Option<&str> {
        self.purposes.get(&purpose.0).map(|entry| &*entry.label)
    }

    /// The longest period ever declared for a purpose, in days, where a month counts 31 and a year 366; `None` for an
    /// unknown purpose, 0 for one that no field ever named.
    #[must_use]
    pub fn longest_of(&self, purpose: PurposeId) -> Option<u32> {
        self.purposes.get(&purpose.0).map(|entry| entry.longest_days)
    }

    /// The longest of all purposes, in days.
    #[must_use]
    pub fn longest_days(&self) -> u32 {
        self.purposes.values().map(|entry| entry.longest_days).max().unwrap_or(0)
    }

    fn merge_purpose(&mut self, info: &PurposeInfo) -> Result<()> {
        let Some(basis) = info.basis.filter(|_| !info.claims_built_in()) else {
            return Err(Misuse::BuiltIn.into());
        };
        if info.number == 0 || !check::label(info.label) {
            return Err(Misuse::Identifier.into());
        }
        let doc = tidy(info.doc)?;
        let moved = |(number, known): (&u16, &PurposeEntry)| {
            (*number == info.number) != (*known.label == *info.label)
        };
        if self.purposes.iter().any(moved) {
            return Err(Contradiction::PurposeRenamed.into());
        }
        let entry = self.purposes.entry(info.number).or_insert_with(|| PurposeEntry {
            label: info.label.into(),
            basis,
            doc: Box::default(),
            longest_days: 0,
        });
        if entry.basis != basis {
            return Err(Contradiction::BasisChanged.into());
        }
        entry.doc = doc;
        Ok(())
    }

    fn merge_record(&mut self, schema: &Schema) -> Result<()> {
        schema.check()?;
        for term in schema.fields.iter().flat_map(|field| field.terms) {
            self.merge_purpose(&term.purpose)?;
            if let Some(entry) = self.purposes.get_mut(&term.purpose.number) {
                entry.longest_days = entry.longest_days.max(days(term.period));
            }
        }
        let record = self.records.entry(schema.label.into()).or_default();
        record.doc = tidy(schema.doc)?;
        // Reserved first: a declaration that uses what it reserves contradicts itself.
        for (number, label) in schema.reserved {
            record.reserve(*number, label)?;
        }
        for entry in record.fields.values_mut() {
            if let State::Declared(declaration) = &entry.state {
                entry.state = State::Retired(declaration.clone());
            }
        }
        for field in schema.fields {
            record.declare(field)?;
        }
        Ok(())
    }
}

impl RecordEntry {
    fn reserve(&mut self, number: u16, label: &str) -> Result<()> {
        for (other, known) in &self.fields {
            let both_labelled = !label.is_empty() && !known.label.is_empty();
            if both_labelled && (*other == number) != (*known.label == *label) {
                return Err(Contradiction::FieldRenamed.into());
            }
        }
        let entry = self
            .fields
            .entry(number)
            .or_insert_with(|| FieldEntry { label: Box::default(), state: State::Reserved(None) });
        if entry.label.is_empty() {
            entry.label = label.into();
        }
        entry.state = State::Reserved(entry.state.declaration().cloned());
        Ok(())
    }

    fn declare(&mut self, field: &FieldInfo) -> Result<()> {
        for (number, known) in &self.fields {
            let (same_number, same_label) = (*number == field.number, *known.label == *field.label);
            if (same_number || same_label) && matches!(known.state, State::Reserved(_)) {
                return Err(Contradiction::FieldReserved.into());
            }
            if same_number != same_label {
                return Err(Contradiction::FieldRenamed.into());
            }
        }
        let declaration = Declaration {
            doc: tidy(field.doc)?,
            class: field.class,
            sensitive: field.sensitive,
            terms: field.terms.iter().map(|term| (term.purpose.number, term.period)).collect(),
        };
        let entry = FieldEntry { label: field.label.into(), state: State::Declared(declaration) };
        self.fields.insert(field.number, entry);
        Ok(())
    }
}

/// Rounded up: no month has more than 31 days, no year more than 366.
pub(super) fn days((n, unit): (u16, Unit)) -> u32 {
    let most = match unit {
        Unit::Days => 1,
        Unit::Months => 31,
        Unit::Years => 366,
    };
    u32::from(n).saturating_mul(most)
}

/// Without the space that follows `///`.
fn tidy(doc: &str) -> Result<Box<str>> {
    if doc.len() > MAX_DOC {
        return Err(Misuse::TooLarge.into());
    }
    let lines: Vec<&str> = doc.lines().map(str::trim).collect();
    Ok(lines.join("\n").trim().into())
}
