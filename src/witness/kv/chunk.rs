//! A part of the journal: one entry of the key-value store.

use base64ct::{Base64, Encoding as _};
use serde::{Deserialize, Serialize};

use crate::error::KeeperError;
use crate::keeper::VaultId;
use crate::witness::MAX_LINE;

/// An entry takes no more lines than this once it has so many, or so many bytes. With one longest line more it stays, as
/// JSON, below 100 KiB, where servers take 512 KiB and more.
const FULL_LINES: usize = 256;
const FULL_BYTES: usize = 60 << 10;

/// A part of the journal, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The number of its first line, by which the entry is named.
    pub(super) first: u64,
    pub(super) lines: Vec<Vec<u8>>,
}

/// What an entry holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) format: String,
    pub(super) vault: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lines: Vec<String>,
}

/// What every entry begins with, so that those of others are known.
const FORMAT: &str = "customer-vault witness 1";

impl Entry {
    /// The one that says whose the others are.
    pub(super) fn bound(vault: VaultId) -> Self {
        Entry { format: FORMAT.to_owned(), vault: vault.to_string(), lines: Vec::new() }
    }

    pub(super) fn is_of(&self, vault: VaultId) -> bool {
        self.format == FORMAT && self.vault == vault.to_string()
    }
}

impl Chunk {
    pub(super) fn starting_at(first: u64) -> Self {
        Chunk { first, lines: Vec::new() }
    }

    /// The number after its last line.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.lines.len()).unwrap_or(u64::MAX))
    }

    /// Whether the next line begins another entry. It is a matter of what is in it alone, so that all processes agree.
    pub(super) fn is_full(&self) -> bool {
        let bytes = self.lines.iter().fold(0_usize, |sum, line| sum.saturating_add(line.len()));
        self.lines.len() >= FULL_LINES || bytes > FULL_BYTES
    }

    pub(super) fn line(&self, number: u64) -> Option<&[u8]> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.lines.get(index).map(Vec::as_slice)
    }

    pub(super) fn entry(&self, vault: VaultId) -> Entry {
        let lines = self.lines.iter().map(|line| Base64::encode_string(line)).collect();
        Entry { lines, ..Entry::bound(vault) }
    }

    pub(super) fn of(entry: &Entry, vault: VaultId, first: u64) -> Result<Self, KeeperError> {
        if !entry.is_of(vault) {
            return Err(KeeperError::Foreign);
        }
        if entry.lines.is_empty() || entry.lines.len() > FULL_LINES {
            return Err(KeeperError::Damaged);
        }
        let mut chunk = Chunk::starting_at(first);
        for line in &entry.lines {
            if chunk.is_full() {
                return Err(KeeperError::Damaged);
            }
            let line = Base64::decode_vec(line).map_err(|_| KeeperError::Damaged)?;
            if line.len() > MAX_LINE {
                return Err(KeeperError::Damaged);
            }
            chunk.lines.push(line);
        }
        Ok(chunk)
    }

    /// The entry's name: the number in hexadecimal, so that names stand in the order of the lines.
    pub(super) fn name(first: u64) -> String {
        format!("{first:016x}")
    }

    /// `None` for names that are none of ours.
    pub(super) fn first_of(name: &str) -> Option<u64> {
        let number = u64::from_str_radix(name, 16).ok()?;
        (Self::name(number) == name).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding as _};

    use super::{Chunk, Entry, FULL_LINES};
    use crate::error::KeeperError;
    use crate::keeper::VaultId;

    const VAULT: VaultId = VaultId([5; 16]);

    fn of(json: &str) -> Result<Chunk, KeeperError> {
        let entry: Entry = serde_json::from_str(json).map_err(|_| KeeperError::Damaged)?;
        Chunk::of(&entry, VAULT, 7)
    }

    fn json(lines: &str) -> String {
        let vault = "05".repeat(16);
        format!(r#"{{"format":"customer-vault witness 1","vault":"{vault}","lines":[{lines}]}}"#)
    }

    #[test]
    fn an_entry_is_read_as_it_is_written() {
        let chunk = Chunk { first: 7, lines: vec![b"one".to_vec(), Vec::new(), vec![255; 4096]] };
        let written = serde_json::to_string(&chunk.entry(VAULT)).unwrap();
        assert_eq!(of(&written), Ok(chunk));
        assert_eq!(of(&json(r#""b25l","""#)).unwrap().lines, [b"one".to_vec(), Vec::new()]);
    }

    #[test]
    fn what_is_not_canonical_too_much_or_anothers_is_refused() {
        let long = Base64::encode_string(&[0; 4097]);
        for lines in
            ["", r#""b25l ""#, r#""b25l=""#, r#""b25""#, r#""b25=""#, "7", "null", &format!("{long:?}")]
        {
            assert_eq!(of(&json(lines)), Err(KeeperError::Damaged), "{lines}");
        }
        let many = |count: usize, line: &str| vec![format!("{line:?}"); count].join(",");
        assert!(of(&json(&many(256, ""))).is_ok());
        assert_eq!(of(&json(&many(257, ""))), Err(KeeperError::Damaged));
        let longest = Base64::encode_string(&[0; 4096]);
        assert!(of(&json(&many(16, &longest))).is_ok());
        assert_eq!(of(&json(&many(17, &longest))), Err(KeeperError::Damaged));
        assert_eq!(of(&json(r#""b25l""#).replace("05", "06")), Err(KeeperError::Foreign));
        assert_eq!(of(&json(r#""b25l""#).replace("witness 1", "witness 2")), Err(KeeperError::Foreign));
        assert_eq!(of(&json(r#""b25l""#).replace("lines", "more")), Err(KeeperError::Damaged));
    }

    #[test]
    fn names_are_in_the_order_of_lines() {
        assert_eq!(Chunk::name(257), "0000000000000101");
        assert_eq!(Chunk::first_of("0000000000000101"), Some(257));
        for other in
            ["vault", "101", "000000000000010G", "+000000000000101", "000000000000010A", "0000000000000101/"]
        {
            assert_eq!(Chunk::first_of(other), None, "{other}");
        }
        let full = Chunk { first: 1, lines: vec![Vec::new(); FULL_LINES] };
        assert!(full.is_full() && full.end() == 257 && full.line(256).is_some() && full.line(257).is_none());
    }
}
