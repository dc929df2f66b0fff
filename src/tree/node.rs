//! Places in the tree, and the names of their rows.

use crate::clock::Day;
use crate::key::Tag;
use crate::store::{Key, Range};

/// A node: what has children.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Node {
    Root,
    /// By the first digits (base 16) of the tags below it; as many digits as its level, from 1 on.
    Tree(Vec<u8>),
    /// The branch of the day keys.
    Days,
    /// A month, counted from January 1970.
    Month(u16),
}

/// What lies directly under the root besides the uppermost nodes.
pub(crate) mod under_root {
    pub(crate) const LOOKUP: &[u8] = b"k1";
    pub(crate) const RING: &[u8] = b"k2";
    pub(crate) const INDEX: &[u8] = b"k3";
    pub(crate) const SETTINGS: &[u8] = b"k5";
    pub(crate) const REGISTRY: &[u8] = b"k6";
    pub(crate) const JOURNAL: &[u8] = b"k7";
    pub(crate) const ALL: [&[u8]; 6] = [LOOKUP, RING, INDEX, SETTINGS, REGISTRY, JOURNAL];
}

impl Node {
    /// The node above the entry of a tag.
    pub(crate) fn bucket(tag: &Tag, height: u8) -> Self {
        Node::Tree(digits(tag).take(height.into()).collect())
    }

    /// The node above an entry's row.
    pub(crate) fn of_entry(name: &[u8], height: u8) -> Option<Self> {
        Some(Node::Tree(name.strip_prefix(b"s")?.get(..height.into())?.to_vec()))
    }

    /// The month that a day lies in.
    pub(crate) fn month(day: Day) -> Self {
        let date = day.date();
        let months = i32::from(date.year()).saturating_sub(1970).saturating_mul(12);
        Node::Month(
            u16::try_from(months.saturating_add(i32::from(date.month())).saturating_sub(1))
                .unwrap_or(u16::MAX),
        )
    }

    /// The name of its row.
    pub(crate) fn name(&self) -> Key {
        match self {
            Node::Root => b"e".to_vec(),
            Node::Tree(digits) => [b"n", &[level(digits)], &digits[..]].concat(),
            Node::Days => b"b".to_vec(),
            Node::Month(month) => [b"m", &month.to_be_bytes()[..]].concat(),
        }
    }

    /// From the name of its row.
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        let (kind, rest) = name.split_first()?;
        match (kind, rest) {
            (b'e', []) => Some(Node::Root),
            (b'b', []) => Some(Node::Days),
            (b'm', [a, b]) => Some(Node::Month(u16::from_be_bytes([*a, *b]))),
            (b'n', [n, digits @ ..]) if usize::from(*n) == digits.len() && *n > 0 => {
                Some(Node::Tree(digits.to_vec()))
            }
            _ => None,
        }
    }

    /// `None` for the root.
    pub(crate) fn above(&self) -> Option<Node> {
        match self {
            Node::Root => None,
            Node::Tree(digits) => match digits.split_last() {
                Some((_, rest)) if !rest.is_empty() => Some(Node::Tree(rest.to_vec())),
                _ => Some(Node::Root),
            },
            Node::Days => Some(Node::Root),
            Node::Month(_) => Some(Node::Days),
        }
    }

    /// The nodes from below the root to this one.
    pub(crate) fn way(&self) -> Vec<Node> {
        let mut way = Vec::new();
        let mut next = Some(self.clone());
        while let Some(node) = next {
            next = node.above();
            if node != Node::Root {
                way.push(node);
            }
        }
        way.reverse();
        way
    }

    /// How deep it lies: rotation goes from the deepest up.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Node::Root => 0,
            Node::Tree(digits) => digits.len(),
            Node::Days => 1,
            Node::Month(_) => 2,
        }
    }

    /// Where the rows of its children lie; for the root, those that [`under_root::ALL`] and [`Node::Days`] do not name.
    pub(crate) fn children(&self, height: u8) -> Range {
        match self {
            Node::Root => Range::prefix(&[b'n', 1]),
            Node::Tree(digits) if digits.len() >= usize::from(height) => {
                Range::prefix(&[b"s", &digits[..]].concat())
            }
            Node::Tree(digits) => {
                Range::prefix(&[b"n", &[level(digits).saturating_add(1)], &digits[..]].concat())
            }
            Node::Days => Range::prefix(b"m"),
            Node::Month(month) => Range { start: day_name(first_of(*month)), end: end_of(*month) },
        }
    }
}

/// The name of a day's row.
pub(crate) fn day_name(day: Day) -> Key {
    [b"d", &day.number().to_be_bytes()[..]].concat()
}

/// From the name of a day's row.
pub(crate) fn day_of(name: &[u8]) -> Option<Day> {
    match name {
        [b'd', a, b] => Some(Day(u16::from_be_bytes([*a, *b]))),
        _ => None,
    }
}

/// The name of an entry's row: first the digits of its bucket, so that a bucket is a range.
pub(crate) fn entry_name(tag: &Tag, height: u8) -> Key {
    let mut name = vec![b's'];
    name.extend(digits(tag).take(height.into()));
    name.extend_from_slice(tag);
    name
}

/// From the name of an entry's row.
pub(crate) fn tag_of(name: &[u8]) -> Option<Tag> {
    name.last_chunk::<16>().copied()
}

fn digits(tag: &Tag) -> impl Iterator<Item = u8> + '_ {
    tag.iter().flat_map(|byte| [byte >> 4, byte & 0xF])
}

fn level(digits: &[u8]) -> u8 {
    u8::try_from(digits.len()).unwrap_or(u8::MAX)
}

fn first_of(month: u16) -> Day {
    let year = i16::try_from(month / 12).unwrap_or(0).saturating_add(1970);
    let month = i8::try_from(month % 12).unwrap_or(0).saturating_add(1);
    Day::from_ymd(year, month, 1).unwrap_or(Day(u16::MAX))
}

fn end_of(month: u16) -> Key {
    let next = first_of(month.saturating_add(1));
    if next == Day(u16::MAX) { b"e".to_vec() } else { day_name(next) }
}
