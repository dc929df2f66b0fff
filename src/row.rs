//! Rows of the key tables: each wrapped by itself under the node above it. The format is in docs/SPEC.md, "Wrapped row".
//!
//! A row names its parent's generation in clear: a mismatch says "read the path again", where a failed decryption would
//! look like tampering.

use zeroize::Zeroizing;

use crate::crypto::{
    self,
    aead::{Suite, TAG},
};
use crate::error::{Error, Malformed, Result, Unsupported};
use crate::keeper::VaultId;
use crate::key::{Parent, label};
use crate::wire::{Put as _, Reader};

const VERSION: u8 = 1;
const NONCE: usize = 16;
/// The fewest bytes of a part: its name and length, a nonce and a tag.
const SMALLEST: usize = 9 + NONCE + TAG;
/// The most parts of a row.
const MAX_PARTS: usize = 4096;

/// Which part of a row: its kind, a generation, and a purpose, where they apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part {
    pub(crate) kind: u8,
    pub(crate) generation: u16,
    pub(crate) purpose: u16,
}

impl Part {
    /// The only part of nodes, days and secrets.
    pub(crate) const WHOLE: Part = Part { kind: 0, generation: 0, purpose: 0 };
}

/// What a row says, opened.
#[derive(Debug)]
pub(crate) struct Plain {
    /// The node's own generation; 0 for what is no node.
    pub(crate) generation: u64,
    /// Strictly ascending.
    pub(crate) parts: Vec<(Part, Zeroizing<Vec<u8>>)>,
}

impl Plain {
    pub(crate) fn whole(generation: u64, bytes: &[u8]) -> Self {
        Plain { generation, parts: vec![(Part::WHOLE, Zeroizing::new(bytes.to_vec()))] }
    }

    pub(crate) fn into_whole(self) -> Option<Zeroizing<Vec<u8>>> {
        let mut parts = self.parts.into_iter();
        match (parts.next(), parts.next()) {
            (Some((Part::WHOLE, bytes)), None) => Some(bytes),
            _ => None,
        }
    }
}

/// Wraps a row under its parent.
pub(crate) fn wrap(
    parent: &Parent,
    vault: &VaultId,
    name: &[u8],
    parent_generation: u64,
    plain: &Plain,
) -> Result<Vec<u8>> {
    wrap_as(parent, vault, name, parent_generation, plain, &crypto::random()?)
}

/// With a serial that is random, or what a broken generator gives.
fn wrap_as(
    parent: &Parent,
    vault: &VaultId,
    name: &[u8],
    parent_generation: u64,
    plain: &Plain,
    serial: &[u8; 16],
) -> Result<Vec<u8>> {
    let mut row = Vec::new();
    row.put_u8(VERSION);
    row.put_u8(parent.suite.number());
    row.put_u64(parent_generation);
    row.put_u64(plain.generation);
    row.put(serial);
    if plain.parts.len() > MAX_PARTS {
        // What nobody reads again would keep its whole bucket from being rotated.
        return Err(crate::error::Misuse::TooLarge.into());
    }
    row.put_u16(u16::try_from(plain.parts.len()).map_err(|_| crate::error::Misuse::TooLarge)?);
    for (part, bytes) in &plain.parts {
        row.put_u8(part.kind);
        row.put_u16(part.generation);
        row.put_u16(part.purpose);
        row.put_u32(crate::wire::length(bytes));
    }
    let mut aad = aad(vault, name, &row);
    let common = aad.len();
    // Room for all of it first: the buffer must not move while a key lies in it.
    let sealed = |bytes: &[u8]| bytes.len().saturating_add(NONCE).saturating_add(TAG);
    row.reserve_exact(plain.parts.iter().fold(0, |sum, (_, bytes)| sealed(bytes).saturating_add(sum)));
    for (index, (_, bytes)) in (0_u16..).zip(&plain.parts) {
        aad.truncate(common);
        aad.put_u16(index);
        // The row's serial is in the authenticated data and is the random part of the hedge.
        let nonce = parent.nonce.tag(&[&crate::wire::length(&aad).to_be_bytes(), &aad, bytes]);
        // AES-GCM takes 12 of its 16 bytes: without this the others could be altered (ABUSE 7).
        aad.put(&nonce);
        let start = row.len().saturating_add(NONCE);
        row.put(&nonce);
        row.put(bytes);
        let tag = parent.cipher.seal(&nonce, &aad, row.get_mut(start..).unwrap_or_default())?;
        row.put(&tag);
    }
    Ok(row)
}

/// A row as it was read.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) parent_generation: u64,
    pub(crate) generation: u64,
    suite: Suite,
    header: &'a [u8],
    parts: Vec<(Part, &'a [u8])>,
}

impl<'a> Row<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Unsupported::Version.into());
        }
        let suite = Suite::from_number(reader.u8()?)?;
        let parent_generation = reader.u64()?;
        let generation = reader.u64()?;
        reader.take(16)?;
        let count = usize::from(reader.u16()?);
        if count > MAX_PARTS || reader.rest().len() < count.saturating_mul(SMALLEST) {
            return Err(Malformed::Length.into());
        }
        let mut named = Vec::with_capacity(count);
        for _ in 0..count {
            let part = Part { kind: reader.u8()?, generation: reader.u16()?, purpose: reader.u16()? };
            if named.last().is_some_and(|(last, _)| *last >= part) {
                return Err(Malformed::Order.into());
            }
            named.push((part, usize::try_from(reader.u32()?).map_err(|_| Malformed::Length)?));
        }
        let header = bytes.get(..bytes.len().saturating_sub(reader.rest().len())).unwrap_or_default();
        let mut parts = Vec::with_capacity(count);
        for (part, len) in named {
            parts.push((part, reader.take(len.saturating_add(NONCE).saturating_add(TAG))?));
        }
        reader.end()?;
        Ok(Row { parent_generation, generation, suite, header, parts })
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        self.parts.iter().map(|(part, _)| *part)
    }

    /// One part, `None` where the row has no such part.
    pub(crate) fn open(
        &self,
        parent: &Parent,
        vault: &VaultId,
        name: &[u8],
        part: Part,
    ) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let found = (0_u16..).zip(&self.parts).find(|(_, (known, _))| *known == part);
        let Some((index, (_, bytes))) = found else { return Ok(None) };
        if self.suite != parent.suite {
            return Err(Error::DoesNotOpen);
        }
        let mut aad = aad(vault, name, self.header);
        aad.put_u16(index);
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().ok_or(Error::DoesNotOpen)?;
        aad.put(nonce);
        let (sealed, tag) = sealed.split_last_chunk::<TAG>().ok_or(Error::DoesNotOpen)?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        parent.cipher.open(nonce, &aad, &mut plain, tag)?;
        Ok(Some(plain))
    }

    /// All parts.
    pub(crate) fn open_all(&self, parent: &Parent, vault: &VaultId, name: &[u8]) -> Result<Plain> {
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in self.parts() {
            parts.push((part, self.open(parent, vault, name, part)?.ok_or(Error::DoesNotOpen)?));
        }
        Ok(Plain { generation: self.generation, parts })
    }
}

fn aad(vault: &VaultId, name: &[u8], header: &[u8]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(
        label::ROW.len().saturating_add(name.len()).saturating_add(header.len()).saturating_add(32),
    );
    aad.put_bytes(label::ROW);
    aad.put(vault.bytes());
    aad.put_bytes(name);
    aad.put_bytes(header);
    aad
}

#[cfg(test)]
mod tests;
