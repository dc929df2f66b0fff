//! What a declaration says, at run time: the description of a record, and the registry that remembers every
//! declaration that a vault was ever opened with.

mod print;
mod registry;

use std::any::TypeId;

pub use registry::Registry;

use crate::error::{Misuse, Result};
use crate::record::check;
use crate::{Purpose, PurposeInfo, Record};

/// The class of a field. "Sensitive" is a mark on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Who the person is and how to reach them.
    Basic,
    /// What they bought and paid.
    Transaction,
    /// What they looked at.
    Behaviour,
}

impl Class {
    /// As it stands in reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Class::Basic => "basic",
            Class::Transaction => "transaction",
            Class::Behaviour => "behaviour",
        }
    }
}

/// The unit of a calendar period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Days.
    Days,
    /// Calendar months.
    Months,
    /// Calendar years.
    Years,
}

impl Unit {
    /// As it stands in reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Unit::Days => "days",
            Unit::Months => "months",
            Unit::Years => "years",
        }
    }
}

/// One entry of `for [..]`: a purpose, and how long it may use the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Term {
    /// Who may read it.
    pub purpose: PurposeInfo,
    /// From sealing, rounded up to the end of a UTC day. At least 1 day, at most 100 years.
    pub period: (u16, Unit),
}

impl Term {
    /// For a purpose.
    #[must_use]
    pub const fn of<P: Purpose>(n: u16, unit: Unit) -> Self {
        Term { purpose: PurposeInfo::of::<P>(), period: (n, unit) }
    }
}

/// What may follow `for [..]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Treatment {
    /// A cell of its own.
    Alone,
    /// Padded to a multiple of so many bytes.
    Padded(u16),
}

/// A declared field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "`record!` writes it in the shop's crate")]
pub struct FieldInfo {
    /// Stands in sealed data.
    pub number: u16,
    /// Stands in reports.
    pub label: &'static str,
    /// For the register of processing.
    pub doc: &'static str,
    /// What kind of data it is.
    pub class: Class,
    /// The mark.
    pub sensitive: bool,
    /// `for [..]`, as written.
    pub terms: &'static [Term],
    /// What follows it, as written.
    pub treatment: &'static [Treatment],
}

impl FieldInfo {
    /// Declared `alone`: it shares no cell.
    #[must_use]
    pub const fn alone(&self) -> bool {
        let mut rest = self.treatment;
        while let [first, tail @ ..] = rest {
            if matches!(first, Treatment::Alone) {
                return true;
            }
            rest = tail;
        }
        false
    }

    /// Its value is padded to a multiple of so many bytes; 0 where it is not padded.
    #[must_use]
    pub const fn padding(&self) -> u16 {
        let mut rest = self.treatment;
        while let [first, tail @ ..] = rest {
            if let Treatment::Padded(n) = first {
                return *n;
            }
            rest = tail;
        }
        0
    }
}

/// The description of a record: what a vault is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    record: TypeId,
    label: &'static str,
    doc: &'static str,
    fields: &'static [FieldInfo],
    cells: &'static [usize],
    reserved: &'static [(u16, &'static str)],
}

impl Schema {
    /// Of a record. It finds the purposes that the record's fields name.
    #[must_use]
    pub fn of<R: Record>() -> Self {
        Schema {
            record: TypeId::of::<R>(),
            label: R::RECORD,
            doc: R::DOC,
            fields: R::FIELDS,
            cells: R::CELLS,
            reserved: R::RESERVED,
        }
    }

    /// The type that it describes. Two types may claim one label; only the one that the registry saw is served.
    pub(crate) fn type_id(&self) -> TypeId {
        self.record
    }

    /// The label of the record.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.label
    }

    /// The fields, ascending by number.
    #[must_use]
    pub fn fields(&self) -> &'static [FieldInfo] {
        self.fields
    }

    /// What `record!` would have refused to compile.
    fn check(&self) -> Result<()> {
        let labels = check::label(self.label)
            && self.fields.iter().all(|field| field.number > 0 && check::label(field.label))
            && check::reserved(self.reserved);
        if !labels {
            return Err(Misuse::Identifier.into());
        }
        if self.fields.iter().any(|field| check::built_in_among(field.terms)) {
            return Err(Misuse::BuiltIn.into());
        }
        let mut cells = vec![0; self.fields.len()];
        check::assign_cells(self.fields, &mut cells);
        let good = cells == self.cells
            && self.fields.is_sorted_by(|a, b| a.number < b.number)
            && self.fields.iter().all(|field| {
                !field.terms.is_empty()
                    && check::each_once(field.terms)
                    && check::no_empty_period(field.terms)
                    && check::no_forever(field.terms)
                    && check::treatment(field.treatment)
            });
        if good { Ok(()) } else { Err(Misuse::Setting.into()) }
    }
}
