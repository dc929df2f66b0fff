//! What the macros ask at compile time, and the registry again when a vault is opened: an implementation written by
//! hand has not passed the macros.

use crate::purpose::FIRST_BUILT_IN;
use crate::{FieldInfo, Term, Treatment, Unit};

/// 1 to 64 of `a-z 0-9 -`.
#[must_use]
pub const fn label(label: &str) -> bool {
    let mut rest = label.as_bytes();
    while let [first, tail @ ..] = rest {
        if !matches!(first, b'a'..=b'z' | b'0'..=b'9' | b'-') {
            return false;
        }
        rest = tail;
    }
    matches!(label.len(), 1..=64)
}

/// A number that no shop's purpose may have.
#[must_use]
pub const fn kept_number(number: u16) -> bool {
    number >= FIRST_BUILT_IN
}

/// How often the number or the label occurs.
#[must_use]
pub const fn count(names: &[(u16, &str)], number: u16, label: &str) -> usize {
    let (mut rest, mut n) = (names, 0_usize);
    while let [(other, name), tail @ ..] = rest {
        if *other == number || same(name, label) {
            n = n.saturating_add(1);
        }
        rest = tail;
    }
    n
}

/// What comes before the number is smaller.
#[must_use]
pub const fn in_order(fields: &[FieldInfo], number: u16) -> bool {
    let mut rest = fields;
    while let [first, tail @ ..] = rest {
        if first.number >= number {
            return first.number == number;
        }
        rest = tail;
    }
    true
}

/// Each with a number, a good label or none, and none twice.
#[must_use]
pub const fn reserved(names: &[(u16, &str)]) -> bool {
    let mut rest = names;
    while let [(number, name), tail @ ..] = rest {
        if *number == 0 || !(name.is_empty() || label(name)) {
            return false;
        }
        let mut others = tail;
        while let [(other, label), further @ ..] = others {
            if *other == *number || (!label.is_empty() && same(label, name)) {
                return false;
            }
            others = further;
        }
        rest = tail;
    }
    true
}

/// No purpose twice.
#[must_use]
pub const fn each_once(terms: &[Term]) -> bool {
    let mut rest = terms;
    while let [first, tail @ ..] = rest {
        let mut others = tail;
        while let [other, further @ ..] = others {
            if first.purpose.number == other.purpose.number {
                return false;
            }
            others = further;
        }
        rest = tail;
    }
    true
}

/// A built-in purpose stands among them.
#[must_use]
pub const fn built_in_among(terms: &[Term]) -> bool {
    let mut rest = terms;
    while let [first, tail @ ..] = rest {
        if kept_number(first.purpose.number) {
            return true;
        }
        rest = tail;
    }
    false
}

/// No period of 0.
#[must_use]
pub const fn no_empty_period(terms: &[Term]) -> bool {
    let mut rest = terms;
    while let [first, tail @ ..] = rest {
        if first.period.0 == 0 {
            return false;
        }
        rest = tail;
    }
    true
}

/// No period of more than 100 years.
#[must_use]
pub const fn no_forever(terms: &[Term]) -> bool {
    let mut rest = terms;
    while let [first, tail @ ..] = rest {
        let (n, unit) = first.period;
        let most = match unit {
            Unit::Days => 36_525,
            Unit::Months => 1_200,
            Unit::Years => 100,
        };
        if n > most {
            return false;
        }
        rest = tail;
    }
    true
}

/// `padded` and `alone` at most once each, and no `padded 0`.
#[must_use]
pub const fn treatment(treatment: &[Treatment]) -> bool {
    let (mut rest, mut padded, mut alone) = (treatment, false, false);
    while let [first, tail @ ..] = rest {
        match first {
            Treatment::Padded(0) => return false,
            Treatment::Padded(_) if padded => return false,
            Treatment::Padded(_) => padded = true,
            Treatment::Alone if alone => return false,
            Treatment::Alone => alone = true,
        }
        rest = tail;
    }
    true
}

/// The cell of each field. `N` is their number.
#[must_use]
pub const fn cells<const N: usize>(fields: &[FieldInfo]) -> [usize; N] {
    let mut cells = [0; N];
    assign_cells(fields, &mut cells);
    cells
}

/// Fields with equal purposes and periods share a cell, whatever the order of their lists. Cells are numbered by their
/// first field.
#[expect(clippy::indexing_slicing, reason = "both indices are below both lengths, and no iterator is const")]
pub(crate) const fn assign_cells(fields: &[FieldInfo], cells: &mut [usize]) {
    let (mut i, mut next) = (0_usize, 0_usize);
    while i < fields.len() && i < cells.len() {
        let mut j = 0_usize;
        while j < i && !share(&fields[j], &fields[i]) {
            j = j.saturating_add(1);
        }
        if j < i {
            cells[i] = cells[j];
        } else {
            cells[i] = next;
            next = next.saturating_add(1);
        }
        i = i.saturating_add(1);
    }
}

const fn share(a: &FieldInfo, b: &FieldInfo) -> bool {
    if a.alone() || b.alone() || a.terms.len() != b.terms.len() {
        return false;
    }
    let mut rest = a.terms;
    while let [first, tail @ ..] = rest {
        if !contains(b.terms, first) {
            return false;
        }
        rest = tail;
    }
    true
}

const fn contains(terms: &[Term], wanted: &Term) -> bool {
    let mut rest = terms;
    while let [first, tail @ ..] = rest {
        let ((n, unit), (m, other)) = (first.period, wanted.period);
        // `==` of an enum is not const.
        let units = matches!(
            (unit, other),
            (Unit::Days, Unit::Days) | (Unit::Months, Unit::Months) | (Unit::Years, Unit::Years)
        );
        if first.purpose.number == wanted.purpose.number && n == m && units {
            return true;
        }
        rest = tail;
    }
    false
}

const fn same(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (a, b) {
            ([], []) => return true,
            ([x, a_rest @ ..], [y, b_rest @ ..]) if *x == *y => (a, b) = (a_rest, b_rest),
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{count, label, reserved};

    #[test]
    fn a_label_is_short_lower_case_and_plain() {
        for good in ["a", "order-2", "9", "-", "a".repeat(64).as_str()] {
            assert!(label(good), "{good}");
        }
        for bad in ["", "Order", "order_2", "order 2", "ö", "a\0", "a|b", "a".repeat(65).as_str()] {
            assert!(!label(bad), "{bad}");
        }
    }

    #[test]
    fn names_are_counted_by_number_or_label_and_once_each() {
        let names = [(1, "a"), (2, "b"), (3, "a")];
        assert_eq!(count(&names, 1, "a"), 2);
        assert_eq!(count(&names, 2, "b"), 1);
        assert_eq!(count(&names, 2, "ab"), 1);
        assert_eq!(count(&[(1, "a")], 2, "ab"), 0);
    }

    #[test]
    fn reserved_names_are_numbers_with_or_without_a_label() {
        assert!(reserved(&[]) && reserved(&[(9, "fax"), (4, ""), (5, "")]));
        for bad in [&[(0, "fax")][..], &[(1, "Fax")], &[(1, ""), (1, "a")], &[(1, "a"), (2, "a")]] {
            assert!(!reserved(bad));
        }
    }
}
