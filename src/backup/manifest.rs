//! What closes a backup: a signed note that says what it holds and what it follows.

use std::fmt::{self, Write as _};

use super::format::Header;
use crate::clock::{Day, rfc3339};
use crate::crypto;
use crate::error::{BackupError, Error, Malformed, Result};
use crate::keeper::{RootId, VaultId};
use crate::note::{SignedNote, VerifierKey};
use crate::ring::Ring;

/// A verified manifest: what one part of a backup holds. Its [`note`](Self::note) is to be kept beside the part, and is what
/// an increment is made against.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// Of which vault.
    pub vault: VaultId,
    /// Random, in the log entries about it.
    pub id: [u8; 16],
    /// 0 for a full backup, then the place of the increment.
    pub number: u32,
    /// For an increment the [`hash`](Self::hash) of the manifest that it follows.
    pub parent: Option<[u8; 32]>,
    /// The moment that it shows, in milliseconds since 1970; the note says it in whole seconds beside them.
    pub at_ms: i64,
    /// The root epoch of that moment.
    pub epoch: u64,
    /// The root of that epoch: without it nothing in the backup opens.
    pub root: RootId,
    /// How many lines the journal had.
    pub journal: u64,
    /// Rows that the part writes.
    pub rows: u64,
    /// Rows that it deletes.
    pub deleted: u64,
    /// Rows that the store had.
    pub total: u64,
    /// The last day on which a copy is kept, as was said when it was made.
    pub kept_until: Day,
    /// SHA-256 over the part, chunk by chunk.
    pub content: [u8; 32],
    /// SHA-256 of the index.
    pub index: [u8; 32],
    pub(super) note: String,
}

impl Manifest {
    /// Reads a note, and checks that this vault has signed it.
    ///
    /// # Errors
    ///
    /// [`BackupError::OtherVault`] where it names another vault; [`Error::DoesNotOpen`] where none of the keys has signed it;
    /// [`Malformed`] and [`BackupError::Foreign`] where it is no manifest.
    pub fn verify(note: &str, keys: &[VerifierKey]) -> Result<Self> {
        let signed = SignedNote::parse(note)?;
        let (name, _) = note.split_once("/backup\n").ok_or(BackupError::Foreign)?;
        if keys.iter().all(|key| name != key.name()) {
            return Err(BackupError::OtherVault.into());
        }
        let text = keys.iter().find_map(|key| signed.verify(key).ok()).ok_or(Error::DoesNotOpen)?;
        let mut manifest = Self::parse(text)?;
        note.clone_into(&mut manifest.note);
        Ok(manifest)
    }

    /// Of a note that another one names by the hash of its text, which somebody has signed.
    pub(super) fn believed(note: &str) -> Result<Self> {
        SignedNote::parse(note)?;
        let (text, _) = note.rsplit_once("\n\n").ok_or(BackupError::Foreign)?;
        let mut manifest = Self::parse(&format!("{text}\n"))?;
        note.clone_into(&mut manifest.note);
        Ok(manifest)
    }

    /// The signed note, with its signature.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// SHA-256 of the text that is signed. An increment names its base by it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        crypto::hash(&[self.text().as_bytes()])
    }

    /// Whether a part's header says the same.
    pub(super) fn fits(&self, header: &Header) -> bool {
        (self.vault, self.id, self.number, self.at_ms, self.epoch)
            == (header.vault, header.id, header.number, header.at_ms, header.epoch)
            && self.parent.unwrap_or_default() == header.parent
    }

    pub(super) fn sign(mut self, ring: &Ring) -> Result<Self> {
        self.note = ring.sign(&crate::log::origin(&self.vault), &self.text())?;
        Ok(self)
    }

    fn text(&self) -> String {
        let mut text = format!("{}/backup\n", crate::log::origin(&self.vault));
        // Writing to a String cannot fail.
        let mut line = |what: &str, value: &dyn fmt::Display| {
            let _ = writeln!(text, "{what}: {value}");
        };
        line("vault", &self.vault);
        line("backup", &hex(&self.id));
        line("number", &self.number);
        line("follows", &self.parent.map_or_else(|| "nothing".into(), |hash| hex(&hash)));
        line("moment", &rfc3339(self.at_ms));
        line("milliseconds", &self.at_ms);
        line("root epoch", &self.epoch);
        line("root", &hex(&self.root));
        line("journal", &self.journal);
        line("rows written", &self.rows);
        line("rows deleted", &self.deleted);
        line("rows in all", &self.total);
        line("kept until", &self.kept_until);
        line("kept until day", &self.kept_until.number());
        line("content", &hex(&self.content));
        line("index", &hex(&self.index));
        text
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().skip(1);
        let mut value = |what: &str| {
            let line = lines.next().and_then(|line| line.strip_prefix(what)?.strip_prefix(": "));
            line.ok_or(Error::Backup(BackupError::Foreign))
        };
        let vault = VaultId(unhex(value("vault")?)?);
        let id = unhex(value("backup")?)?;
        let number = parsed(value("number")?)?;
        let parent = match value("follows")? {
            "nothing" => None,
            hash => Some(unhex(hash)?),
        };
        value("moment")?;
        let at_ms = parsed(value("milliseconds")?)?;
        let epoch = parsed(value("root epoch")?)?;
        let root = unhex(value("root")?)?;
        let journal = parsed(value("journal")?)?;
        let (rows, deleted, total) = (
            parsed(value("rows written")?)?,
            parsed(value("rows deleted")?)?,
            parsed(value("rows in all")?)?,
        );
        value("kept until")?;
        let kept_until = Day(parsed(value("kept until day")?)?);
        let (content, index) = (unhex(value("content")?)?, unhex(value("index")?)?);
        let note = String::new();
        let manifest = Manifest {
            vault,
            id,
            number,
            parent,
            at_ms,
            epoch,
            root,
            journal,
            rows,
            deleted,
            total,
            kept_until,
            content,
            index,
            note,
        };
        // Written again, so that no second spelling passes.
        if manifest.text() == text { Ok(manifest) } else { Err(Malformed::NotCanonical.into()) }
    }
}

/// The text that is signed.
impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn unhex<const N: usize>(text: &str) -> Result<[u8; N]> {
    let mut out = [0; N];
    if text.len() != N.saturating_mul(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Malformed::Length.into());
    }
    for (to, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| Malformed::Content)?;
        *to = u8::from_str_radix(pair, 16).map_err(|_| Malformed::Content)?;
    }
    Ok(out)
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Malformed::Content.into())
}
