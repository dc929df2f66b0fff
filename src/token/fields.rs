//! Which fields: of which records, by their numbers. In tokens it limits; in the log it says what was touched.

use crate::error::{Malformed, Misuse, Result, Unsupported};
use crate::wire::{Put, Reader};

/// The longest encoding of a list, in bytes.
const MAX_LEN: usize = 4096;

/// One field, by its record's label and its own number, as declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "declarations write it")]
pub struct FieldRef {
    /// The record's label: 1 to 64 of `A-Z a-z 0-9 . _ : @ -`.
    pub record: &'static str,
    /// The field's number.
    pub number: u16,
}

/// A list of fields: at least one; sorted, so that one list has one encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(Vec<(Box<str>, Vec<u16>)>);

impl Fields {
    /// The records, by label, each with its fields' numbers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u16])> {
        self.0.iter().map(|(record, numbers)| (&**record, &**numbers))
    }

    /// In any order; what stands there twice counts once.
    pub(crate) fn new(fields: &[FieldRef]) -> Result<Self> {
        if fields.is_empty() {
            return Err(Unsupported::Parameters.into());
        }
        if !fields.iter().all(|field| label(field.record)) {
            return Err(Misuse::Identifier.into());
        }
        let mut fields = fields.to_vec();
        fields.sort_unstable();
        fields.dedup();
        let same_record = |a: &FieldRef, b: &FieldRef| a.record == b.record;
        let list = Fields(
            fields
                .chunk_by(same_record)
                .filter_map(|of_one| {
                    Some((of_one.first()?.record.into(), of_one.iter().map(|f| f.number).collect()))
                })
                .collect(),
        );
        if list.encode().len() > MAX_LEN {
            return Err(Unsupported::Parameters.into());
        }
        Ok(list)
    }

    pub(crate) fn covers(&self, record: &str, number: u16) -> bool {
        self.of(record).binary_search(&number).is_ok()
    }

    /// Whether the other list has every field of this one.
    pub(crate) fn within(&self, other: &Self) -> bool {
        self.iter().all(|(record, numbers)| {
            let theirs = other.of(record);
            numbers.iter().all(|number| theirs.binary_search(number).is_ok())
        })
    }

    /// (length ‖ label ‖ count ‖ numbers)*
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (record, numbers) in &self.0 {
            out.put_bytes(record.as_bytes());
            out.put_varint(u32::try_from(numbers.len()).unwrap_or(u32::MAX));
            for number in numbers {
                out.put_u16(*number);
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() || bytes.len() > MAX_LEN {
            return Err(Malformed::Length.into());
        }
        let mut reader = Reader::new(bytes);
        let mut list: Vec<(Box<str>, Vec<u16>)> = Vec::new();
        while !reader.is_empty() {
            let record = reader.text()?;
            if !label(record) {
                return Err(Malformed::Content.into());
            }
            if list.last().is_some_and(|(before, _)| &**before >= record) {
                return Err(Malformed::Order.into());
            }
            list.push((record.into(), decode_numbers(&mut reader)?));
        }
        Ok(Fields(list))
    }

    fn of(&self, record: &str) -> &[u16] {
        let found = self.0.binary_search_by(|(label, _)| (**label).cmp(record)).ok();
        found.and_then(|at| self.0.get(at)).map_or(&[], |(_, numbers)| numbers)
    }
}

fn decode_numbers(reader: &mut Reader<'_>) -> Result<Vec<u16>> {
    let count = usize::try_from(reader.varint()?).map_err(|_| Malformed::Length)?;
    // Taken before anything is allocated: a count that the bytes do not bear out costs nothing.
    let (numbers, _) = reader.take(count.saturating_mul(2))?.as_chunks::<2>();
    let numbers: Vec<u16> = numbers.iter().map(|number| u16::from_be_bytes(*number)).collect();
    if numbers.is_empty() {
        return Err(Malformed::Length.into());
    }
    if !numbers.is_sorted_by(|a, b| a < b) {
        return Err(Malformed::Order.into());
    }
    Ok(numbers)
}

fn label(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'@' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::{FieldRef, Fields};
    use crate::error::{Error, Malformed, Misuse, Unsupported};

    fn list(fields: &[(&'static str, u16)]) -> Fields {
        let refs: Vec<_> = fields.iter().map(|&(record, number)| FieldRef { record, number }).collect();
        Fields::new(&refs).unwrap()
    }

    #[test]
    fn one_list_has_one_encoding_whatever_order_it_was_written_in() {
        let a = list(&[("order", 3), ("order", 1), ("customer", 9), ("order", 3)]);
        let b = list(&[("customer", 9), ("order", 1), ("order", 3)]);
        assert_eq!(a.encode(), b"\x08customer\x01\x00\x09\x05order\x02\x00\x01\x00\x03");
        assert_eq!(a.encode(), b.encode());
        assert_eq!(Fields::decode(&a.encode()), Ok(b));
    }

    #[test]
    fn a_second_encoding_is_refused() {
        for (bytes, error) in [
            (&b""[..], Malformed::Length),
            (b"\x05order\x00", Malformed::Length),
            (b"\x05order\x02\x00\x01", Malformed::Length),
            (b"\x05order\xFF\xFF\xFF\xFF\x0F\x00\x01", Malformed::Length),
            (b"\x05order\x02\x00\x03\x00\x01", Malformed::Order),
            (b"\x05order\x02\x00\x01\x00\x01", Malformed::Order),
            (b"\x05order\x01\x00\x01\x05order\x01\x00\x02", Malformed::Order),
            (b"\x05order\x01\x00\x01\x05apple\x01\x00\x02", Malformed::Order),
            (b"\x05order\x81\x00\x00\x01", Malformed::NotCanonical),
            (b"\x00\x01\x00\x01", Malformed::Content),
            (b"\x02a b\x01\x00\x01", Malformed::Content),
            (b"\x01\xFF\x01\x00\x01", Malformed::Content),
        ] {
            assert_eq!(Fields::decode(bytes), Err(Error::Malformed(error)), "{bytes:?}");
        }
    }

    #[test]
    fn lists_that_no_token_can_hold_are_refused() {
        assert_eq!(Fields::new(&[]), Err(Error::Unsupported(Unsupported::Parameters)));
        let many: Vec<_> = (0..3000).map(|number| FieldRef { record: "r", number }).collect();
        assert_eq!(Fields::new(&many), Err(Error::Unsupported(Unsupported::Parameters)));
        for record in ["", "a b", "naïve", "a\n"] {
            assert_eq!(
                Fields::new(&[FieldRef { record, number: 1 }]),
                Err(Error::Misuse(Misuse::Identifier))
            );
        }
    }

    #[test]
    fn covers_and_within_go_by_record_and_number() {
        let all = list(&[("order", 1), ("order", 2), ("customer", 1)]);
        assert!(all.covers("order", 2) && all.covers("customer", 1));
        assert!(!all.covers("customer", 2) && !all.covers("orders", 1) && !all.covers("", 1));
        assert!(list(&[("order", 2)]).within(&all) && all.within(&all));
        assert!(!list(&[("order", 3)]).within(&all) && !list(&[("other", 1)]).within(&all));
    }
}
