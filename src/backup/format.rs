//! The bytes of a part and of an index. The format is in docs/SPEC.md, "Backup".
//!
//! A part is a line that says what it is, then chunks: a header, rows, and at the end the signed manifest. Behind each chunk
//! stands the hash of all before it, so that damage is found before what comes after it is believed; that the hash itself is
//! the vault's only the manifest's signature says.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use crate::crypto::{self, Hasher};
use crate::error::{BackupError, Error, Malformed, Result, Unsupported};
use crate::keeper::VaultId;
use crate::key::label;
use crate::store::{Key, MAX_KEY, MAX_VALUE, Version};
use crate::wire::{Put as _, Reader};

const PART: &[u8] = b"customer-vault/backup/1";
const INDEX: &[u8] = b"customer-vault/backup-index/1";
/// After either.
const NEWLINE: &[u8] = b"\n";

/// A chunk is closed once it has this many bytes: 1 MiB.
const CHUNK: usize = 1 << 20;
/// A chunk that holds one row of the largest size.
const MAX_CHUNK: usize = CHUNK + MAX_VALUE + MAX_KEY + 16;

const HEADER: u8 = 1;
const ROWS: u8 = 2;
const END: u8 = 3;

/// What a part says of itself before its first row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) vault: VaultId,
    pub(super) id: [u8; 16],
    /// 0 for a full backup, then the place of the increment.
    pub(super) number: u32,
    /// The hash of the manifest that an increment follows; zero for a full backup.
    pub(super) parent: [u8; 32],
    pub(super) at_ms: i64,
    pub(super) epoch: u64,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put(self.vault.bytes());
        out.put(&self.id);
        out.put_u32(self.number);
        out.put(&self.parent);
        out.put_i64(self.at_ms);
        out.put_u64(self.epoch);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let header = Header {
            vault: VaultId(r.array()?),
            id: r.array()?,
            number: r.u32()?,
            parent: r.array()?,
            at_ms: r.i64()?,
            epoch: r.u64()?,
        };
        r.end()?;
        if (header.number == 0) == (header.parent == [0; 32]) {
            Ok(header)
        } else {
            Err(Malformed::Content.into())
        }
    }
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) name: Key,
    /// `None` where it was deleted.
    pub(super) value: Option<Vec<u8>>,
}

/// Writes a part. Holds no more than one chunk.
pub(super) struct PartWriter<'a> {
    out: BufWriter<&'a mut (dyn Write + Send)>,
    hash: [u8; 32],
    rows: Vec<u8>,
    bytes: u64,
}

impl<'a> PartWriter<'a> {
    pub(super) fn begin(out: &'a mut (dyn Write + Send), header: &Header) -> Result<Self> {
        let out = BufWriter::new(out);
        let mut part = PartWriter { out, hash: [0; 32], rows: Vec::new(), bytes: 0 };
        part.write(PART)?;
        part.write(NEWLINE)?;
        part.hash = crypto::hash(&[label::BACKUP, PART, NEWLINE]);
        part.chunk(HEADER, &header.encode())?;
        Ok(part)
    }

    pub(super) fn put(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        self.make_room(value.len())?;
        self.name(1, name)?;
        self.rows.put_bytes(value);
        Ok(())
    }

    pub(super) fn delete(&mut self, name: &[u8]) -> Result<()> {
        self.make_room(0)?;
        self.name(0, name)
    }

    fn name(&mut self, kind: u8, name: &[u8]) -> Result<()> {
        self.rows.put_u8(kind);
        self.rows.put_u8(u8::try_from(name.len()).map_err(|_| Malformed::Length)?);
        self.rows.put(name);
        Ok(())
    }

    /// A large row gets a chunk of its own.
    fn make_room(&mut self, value: usize) -> Result<()> {
        let full = self.rows.len().saturating_add(value) >= CHUNK;
        if full && !self.rows.is_empty() { self.close_chunk() } else { Ok(()) }
    }

    fn close_chunk(&mut self) -> Result<()> {
        let mut rows = std::mem::take(&mut self.rows);
        self.chunk(ROWS, &rows)?;
        rows.clear();
        self.rows = rows;
        Ok(())
    }

    /// The hash over everything up to here, which the manifest states.
    pub(super) fn content(&mut self) -> Result<[u8; 32]> {
        if !self.rows.is_empty() {
            self.close_chunk()?;
        }
        Ok(self.hash)
    }

    /// Gives how many bytes were written.
    pub(super) fn end(mut self, note: &str) -> Result<u64> {
        self.chunk(END, note.as_bytes())?;
        self.out.flush().map_err(written)?;
        Ok(self.bytes)
    }

    fn chunk(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        let mut head = vec![kind];
        head.put_u32(crate::wire::length(payload));
        self.hash = crypto::hash(&[label::BACKUP, &self.hash, &head, payload]);
        let hash = self.hash;
        self.write(&head)?;
        self.write(payload)?;
        self.write(&hash)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(written)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }
}

/// Reads a part. Holds no more than one chunk.
pub(super) struct PartReader<R> {
    from: BufReader<R>,
    pub(super) header: Header,
    hash: [u8; 32],
    last: Option<Key>,
    bytes: u64,
}

/// What comes next in a part.
#[derive(Debug)]
pub(super) enum Next {
    /// In ascending order of the names, over all chunks.
    Rows(Vec<Change>),
    /// The manifest, with the hash over everything before it, and how many bytes the part has. Nothing comes after it.
    End { note: String, content: [u8; 32], bytes: u64 },
}

impl<R: Read> PartReader<R> {
    pub(super) fn begin(from: R) -> Result<Self> {
        let mut from = BufReader::new(from);
        magic(&mut from, PART)?;
        let header =
            Header { vault: VaultId([0; 16]), id: [0; 16], number: 0, parent: [0; 32], at_ms: 0, epoch: 0 };
        let hash = crypto::hash(&[label::BACKUP, PART, NEWLINE]);
        let bytes = u64::try_from(PART.len()).unwrap_or(u64::MAX).saturating_add(1);
        let mut part = PartReader { from, header, hash, last: None, bytes };
        let (kind, payload) = part.chunk()?;
        if kind != HEADER {
            return Err(BackupError::Altered.into());
        }
        part.header = Header::decode(&payload).map_err(altered)?;
        Ok(part)
    }

    pub(super) fn next(&mut self) -> Result<Next> {
        let content = self.hash;
        let (kind, payload) = self.chunk()?;
        match kind {
            ROWS => self.rows(&payload).map(Next::Rows).map_err(altered),
            END => {
                if !self.from.fill_buf().map_err(read)?.is_empty() {
                    return Err(BackupError::Altered.into());
                }
                let note = String::from_utf8(payload).map_err(|_| BackupError::Altered)?;
                Ok(Next::End { note, content, bytes: self.bytes })
            }
            _ => Err(BackupError::Altered.into()),
        }
    }

    fn rows(&mut self, payload: &[u8]) -> Result<Vec<Change>> {
        let mut rows = Vec::new();
        let mut r = Reader::new(payload);
        while !r.is_empty() {
            let kind = r.flag()?;
            let len = usize::from(r.u8()?);
            if len > MAX_KEY {
                return Err(Malformed::Length.into());
            }
            let name = r.take(len)?.to_vec();
            if self.last.as_ref().is_some_and(|last| *last >= name) {
                return Err(Malformed::Order.into());
            }
            let value = if kind { Some(r.bytes()?.to_vec()) } else { None };
            if value.as_ref().is_some_and(|value| value.len() > MAX_VALUE) {
                return Err(Malformed::Length.into());
            }
            self.last = Some(name.clone());
            rows.push(Change { name, value });
        }
        if rows.is_empty() { Err(Malformed::Length.into()) } else { Ok(rows) }
    }

    fn chunk(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.from.read_exact(&mut head).map_err(read)?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| BackupError::Altered)?;
        if length > MAX_CHUNK {
            return Err(BackupError::Altered.into());
        }
        // Grows with what comes: a length that lies takes no memory.
        let mut payload = Vec::new();
        let wanted = u64::try_from(length).map_err(|_| BackupError::Altered)?;
        self.from.by_ref().take(wanted).read_to_end(&mut payload).map_err(read)?;
        let mut hash = [0; 32];
        if payload.len() < length {
            return Err(BackupError::Truncated.into());
        }
        self.from.read_exact(&mut hash).map_err(read)?;
        let own = crypto::hash(&[label::BACKUP, &self.hash, &head, &payload]);
        if own != hash {
            return Err(BackupError::Altered.into());
        }
        self.hash = own;
        self.bytes = self.bytes.saturating_add(wanted).saturating_add(37);
        Ok((kind, payload))
    }
}

/// What is compared of a version: of two different ones a chance of 2^-64 finds the same.
pub(super) type Mark = [u8; 8];

pub(super) fn mark_of(version: &Version) -> Mark {
    let [a, b, c, d, e, f, g, h, ..] = *version;
    [a, b, c, d, e, f, g, h]
}

/// Writes the index: which rows there were, and in which version.
pub(super) struct IndexWriter<'a> {
    out: BufWriter<&'a mut (dyn Write + Send)>,
    hasher: Hasher,
    last: Key,
    pub(super) bytes: u64,
}

impl<'a> IndexWriter<'a> {
    pub(super) fn begin(out: &'a mut (dyn Write + Send)) -> Result<Self> {
        let out = BufWriter::new(out);
        let mut index = IndexWriter { out, hasher: Hasher::default(), last: Key::new(), bytes: 0 };
        index.write(INDEX)?;
        index.write(NEWLINE)?;
        Ok(index)
    }

    /// Names come in ascending order, each without what it shares with the one before.
    pub(super) fn put(&mut self, name: &[u8], version: &Version) -> Result<()> {
        let shared = name.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        let rest = name.get(shared..).unwrap_or_default();
        let mut entry = Vec::with_capacity(rest.len().saturating_add(10));
        entry.put_u8(u8::try_from(shared).map_err(|_| Malformed::Length)?);
        entry.put_u8(u8::try_from(rest.len()).map_err(|_| Malformed::Length)?);
        entry.put(rest);
        entry.put(&mark_of(version));
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        self.write(&entry)
    }

    pub(super) fn end(mut self) -> Result<[u8; 32]> {
        self.out.flush().map_err(written)?;
        Ok(self.hasher.end())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.add(bytes);
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.out.write_all(bytes).map_err(written)
    }
}

/// Reads an index. What it says is to be believed once [`end`](Self::end) has given the hash that the manifest states.
pub(super) struct IndexReader<'a> {
    from: BufReader<&'a mut (dyn Read + Send)>,
    hasher: Hasher,
    last: Key,
    begun: bool,
}

impl<'a> IndexReader<'a> {
    pub(super) fn begin(from: &'a mut (dyn Read + Send)) -> Result<Self> {
        let mut from = BufReader::new(from);
        magic(&mut from, INDEX)?;
        let mut hasher = Hasher::default();
        hasher.add(INDEX);
        hasher.add(NEWLINE);
        Ok(IndexReader { from, hasher, last: Key::new(), begun: false })
    }

    pub(super) fn next(&mut self) -> Result<Option<(Key, Mark)>> {
        if self.from.fill_buf().map_err(read)?.is_empty() {
            return Ok(None);
        }
        let mut head = [0; 2];
        self.from.read_exact(&mut head).map_err(read)?;
        let [shared, rest] = head.map(usize::from);
        if shared > self.last.len() || shared.saturating_add(rest) > MAX_KEY {
            return Err(BackupError::Altered.into());
        }
        let mut name = self.last.get(..shared).unwrap_or_default().to_vec();
        name.resize(shared.saturating_add(rest), 0);
        self.from.read_exact(name.get_mut(shared..).unwrap_or_default()).map_err(read)?;
        let mut mark = [0; 8];
        self.from.read_exact(&mut mark).map_err(read)?;
        if self.begun && name <= self.last {
            return Err(BackupError::Altered.into());
        }
        self.hasher.add(&head);
        self.hasher.add(name.get(shared..).unwrap_or_default());
        self.hasher.add(&mark);
        self.begun = true;
        self.last.clone_from(&name);
        Ok(Some((name, mark)))
    }

    /// After the last row.
    pub(super) fn end(self) -> [u8; 32] {
        self.hasher.end()
    }
}

/// Another number at the end of the line is another version.
fn magic(from: &mut impl Read, expected: &[u8]) -> Result<()> {
    let expected = [expected, NEWLINE].concat();
    let mut found = vec![0; expected.len()];
    from.read_exact(&mut found).map_err(read)?;
    if found == expected {
        return Ok(());
    }
    let kind = expected.len().saturating_sub(2);
    if found.get(..kind) == expected.get(..kind) {
        return Err(Unsupported::Version.into());
    }
    Err(BackupError::Foreign.into())
}

/// How a part that cannot be parsed is told: its hash was right, so nobody damaged it by chance.
fn altered(why: Error) -> Error {
    if matches!(why, Error::Malformed(_)) { BackupError::Altered.into() } else { why }
}

fn read(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::Truncated.into(),
        _ => BackupError::Read.into(),
    }
}

fn written(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BackupError::Full.into(),
        _ => BackupError::Write.into(),
    }
}
