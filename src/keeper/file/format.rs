//! What a slot of the key file holds, version 1. ASCII lines, each ended by one line feed, in this order and no other:
//!
//! ```text
//! customer-vault keeper 1
//! kdf argon2id m=65536 t=3 p=1        (KiB, passes, lanes)   or: kdf hkdf-sha256
//! salt <16 bytes>
//! commitment <32 bytes>
//! vault <16 bytes>                    or: vault unbound
//! sequence <decimal>                  one more at each write
//! nonce <32 bytes>                    random, new at each write
//! body <base64 with padding>
//! ```
//!
//! Bytes are lower-case hexadecimal, numbers decimal without leading zeros. The body is XChaCha20-Poly1305 under a key
//! of its own for each write (so that its nonce may be zero), with all lines before it as associated data, as
//! received. In it, big-endian: least number of journal lines u64, journal key 32, whether a root is active u8 and if
//! so its id 16, number of roots u32, and for each root, ids ascending: id 16, epoch u64, activated u8, key 32.

use std::fmt::{self, Write as _};

use base64ct::{Base64, Encoding as _};
use zeroize::Zeroizing;

use super::secret::{Argon2Cost, FileSecret, Secret, unhex};
use super::wrapping::WrappingKey;
use crate::crypto::aead::{self, Suite, TAG};
use crate::crypto::{self, Hkdf};
use crate::error::{Error, KeeperError, Result, Unsupported};
use crate::keeper::{RootId, VaultId};
use crate::wire::{Put as _, Reader};

/// More roots than this are not held at once. A root lives one restore window, 30 days, so that this is more than a
/// hundred replacements a day.
pub(super) const MAX_ROOTS: usize = 4096;

const NAME: &str = "customer-vault keeper ";
const VERSION: &str = "1";
const UNBOUND: &str = "unbound";
const SUITE: Suite = Suite::XChaCha20Poly1305;

const ENCRYPTION: &[u8] = b"customer-vault/1 keeper file encryption";
const COMMITMENT: &[u8] = b"customer-vault/1 keeper file commitment";
const BODY: &[u8] = b"customer-vault/1 keeper file body";

/// id, epoch, activated, key.
const ROOT: usize = 16 + 8 + 1 + 32;

/// What the file says.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) vault: Option<VaultId>,
    pub(super) sequence: u64,
    /// The journal had at least so many lines when this was written.
    pub(super) lines: u64,
    pub(super) journal: WrappingKey,
    pub(super) active: Option<RootId>,
    /// Ascending by id.
    pub(super) roots: Vec<Root>,
}

#[derive(Debug)]
pub(super) struct Root {
    pub(super) id: RootId,
    pub(super) epoch: u64,
    pub(super) activated: bool,
    pub(super) key: WrappingKey,
}

impl Contents {
    pub(super) fn find(&self, id: RootId) -> Result<usize, usize> {
        self.roots.binary_search_by(|root| root.id.cmp(&id))
    }

    /// The epoch of the active root.
    pub(super) fn epoch(&self) -> Option<u64> {
        let index = self.find(self.active?).ok()?;
        self.roots.get(index).map(|root| root.epoch)
    }
}

/// What a passphrase or key became with the salt: everything to open and write the file.
pub(super) struct FileKey {
    kdf: Kdf,
    salt: [u8; 16],
    commitment: [u8; 32],
    key: Box<Zeroizing<[u8; 32]>>,
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKey").field("kdf", &self.kdf).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kdf {
    Argon2id(Argon2Cost),
    HkdfSha256,
}

impl FileKey {
    /// For a file that is created, or whose secret is changed.
    pub(super) fn fresh(secret: &FileSecret) -> Result<Self> {
        let kdf = match &secret.0 {
            Secret::Passphrase(_, cost) => Kdf::Argon2id(*cost),
            Secret::Key(_) => Kdf::HkdfSha256,
        };
        Self::derive(secret, kdf, crypto::random()?)
    }

    fn derive(secret: &FileSecret, kdf: Kdf, salt: [u8; 16]) -> Result<Self> {
        let mut key = Box::new(Zeroizing::new([0; 32]));
        let mut commitment = [0; 32];
        match (&secret.0, kdf) {
            (Secret::Passphrase(passphrase, _), Kdf::Argon2id(cost)) => {
                let mut out = Box::new(Zeroizing::new([0; 64]));
                crypto::argon2id(
                    passphrase.expose(),
                    &salt,
                    cost.memory_kib(),
                    cost.passes(),
                    cost.lanes(),
                    &mut out,
                )?;
                let (first, second) = out.split_at(32);
                key.copy_from_slice(first);
                commitment.copy_from_slice(second);
            }
            (Secret::Key(raw), Kdf::HkdfSha256) => {
                let hkdf = Hkdf::from_prk(raw);
                hkdf.expand(&[ENCRYPTION, &salt], &mut key);
                hkdf.expand(&[COMMITMENT, &salt], &mut commitment);
            }
            // A key for a file that has a passphrase, or the other way round.
            _ => return Err(KeeperError::WrongSecret.into()),
        }
        Ok(FileKey { kdf, salt, commitment, key })
    }

    /// The whole file, with a key and a nonce of its own.
    pub(super) fn write(&self, contents: &Contents) -> Result<Vec<u8>> {
        let nonce: [u8; 32] = crypto::random()?;
        let header = self.header(contents, &nonce);
        let mut body = plaintext(contents);
        let tag = aead::seal_once(SUITE, &self.body_key(&nonce), header.as_bytes(), &mut body)?;
        body.put(&tag);
        Ok(format!("{header}body {}\n", Base64::encode_string(&body)).into_bytes())
    }

    /// Refuses before it takes memory for Argon2, and before it decrypts.
    pub(super) fn open(bytes: &[u8], secret: &FileSecret, max: Argon2Cost) -> Result<(Self, Contents)> {
        let stated = Stated::parse(bytes)?;
        if let Kdf::Argon2id(cost) = stated.kdf
            && !cost.is_within(max)
        {
            return Err(Unsupported::Parameters.into());
        }
        let file_key = Self::derive(secret, stated.kdf, stated.salt)?;
        let contents = file_key.decrypt(stated)?;
        Ok((file_key, contents))
    }

    /// Whether a content states what this was derived from.
    pub(super) fn fits(&self, bytes: &[u8]) -> bool {
        Stated::parse(bytes).is_ok_and(|stated| (stated.kdf, stated.salt) == (self.kdf, self.salt))
    }

    /// Another content of the same file. Nothing is derived again: what has another salt or cost is another file, or under
    /// another secret.
    pub(super) fn read(&self, bytes: &[u8]) -> Result<Contents> {
        let stated = Stated::parse(bytes)?;
        if (stated.kdf, stated.salt) != (self.kdf, self.salt) {
            return Err(KeeperError::WrongSecret.into());
        }
        self.decrypt(stated)
    }

    fn decrypt(&self, stated: Stated<'_>) -> Result<Contents> {
        let Stated { vault, sequence, nonce, header, mut body, .. } = stated;
        // Compared before anything is decrypted: XChaCha20-Poly1305 does not commit to its key, so that one body could
        // be made to open under many passphrases, and each try at opening would tell which half holds the right one
        // (partitioning oracle: Len, Grubbs, Ristenpart, USENIX Security 2021).
        if !crypto::equal(&self.commitment, &stated.commitment) {
            return Err(KeeperError::WrongSecret.into());
        }
        let (_, tag) = body.split_last_chunk::<TAG>().ok_or(DAMAGED)?;
        let tag = *tag;
        let end = body.len().saturating_sub(TAG);
        body.truncate(end);
        aead::open_once(SUITE, &self.body_key(&nonce), header, &mut body, &tag).map_err(|_| DAMAGED)?;
        parse(&body, vault, sequence).map_err(|_| DAMAGED)
    }

    fn body_key(&self, nonce: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::from_prk(&self.key).expand(&[BODY, nonce], &mut key);
        key
    }

    fn header(&self, contents: &Contents, nonce: &[u8; 32]) -> String {
        let mut out = format!("{NAME}{VERSION}\n");
        let kdf = match self.kdf {
            Kdf::Argon2id(cost) => {
                format!("argon2id m={} t={} p={}", cost.memory_kib(), cost.passes(), cost.lanes())
            }
            Kdf::HkdfSha256 => "hkdf-sha256".to_owned(),
        };
        let vault = contents.vault.map_or_else(|| UNBOUND.to_owned(), |vault| to_hex(vault.bytes()));
        for (name, value) in [
            ("kdf", kdf),
            ("salt", to_hex(&self.salt)),
            ("commitment", to_hex(&self.commitment)),
            ("vault", vault),
            ("sequence", contents.sequence.to_string()),
            ("nonce", to_hex(nonce)),
        ] {
            for part in [name, " ", &value, "\n"] {
                out.push_str(part);
            }
        }
        out
    }
}

const DAMAGED: Error = Error::Keeper(KeeperError::Damaged);

/// The number and the vault that a content states, not yet believed: for what lies in a slot and may be torn.
pub(super) fn stated(bytes: &[u8]) -> Result<(u64, Option<VaultId>)> {
    Stated::parse(bytes).map(|stated| (stated.sequence, stated.vault))
}

/// The number alone; `None` for what is no content.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    stated(bytes).ok().map(|(number, _)| number)
}

/// A content as it lies there, not yet believed.
struct Stated<'a> {
    kdf: Kdf,
    salt: [u8; 16],
    commitment: [u8; 32],
    vault: Option<VaultId>,
    sequence: u64,
    nonce: [u8; 32],
    /// All before the body.
    header: &'a [u8],
    body: Zeroizing<Vec<u8>>,
}

impl<'a> Stated<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut lines = Lines(std::str::from_utf8(bytes).map_err(|_| DAMAGED)?);
        let version = lines.next(NAME)?;
        if version != VERSION {
            return Err(if decimal(version).is_some() { Unsupported::Version.into() } else { DAMAGED });
        }
        let kdf = kdf(lines.next("kdf ")?)?;
        let salt = hex(lines.next("salt ")?)?;
        let commitment = hex(lines.next("commitment ")?)?;
        let vault = lines.next("vault ")?;
        let vault = if vault == UNBOUND { None } else { Some(VaultId(hex(vault)?)) };
        let sequence = decimal(lines.next("sequence ")?).ok_or(DAMAGED)?;
        let nonce = hex(lines.next("nonce ")?)?;
        let header = bytes.strip_suffix(lines.0.as_bytes()).ok_or(DAMAGED)?;
        let body = lines.next("body ")?;
        if !lines.0.is_empty() {
            return Err(DAMAGED);
        }
        let body = Zeroizing::new(Base64::decode_vec(body).map_err(|_| DAMAGED)?);
        Ok(Stated { kdf, salt, commitment, vault, sequence, nonce, header, body })
    }
}

struct Lines<'a>(&'a str);

impl<'a> Lines<'a> {
    /// What follows `name` on the next line, which must have its line feed.
    fn next(&mut self, name: &str) -> Result<&'a str> {
        let (line, rest) = self.0.split_once('\n').ok_or(DAMAGED)?;
        self.0 = rest;
        line.strip_prefix(name).ok_or(DAMAGED)
    }
}

fn kdf(text: &str) -> Result<Kdf> {
    if text == "hkdf-sha256" {
        return Ok(Kdf::HkdfSha256);
    }
    let parameters = text.strip_prefix("argon2id ").ok_or(Unsupported::Suite)?;
    let mut parts = parameters.split(' ');
    let mut next = |name| decimal(parts.next()?.strip_prefix(name)?);
    let (Some(memory), Some(passes), Some(lanes)) = (next("m="), next("t="), next("p=")) else {
        return Err(DAMAGED);
    };
    if parts.next().is_some() {
        return Err(DAMAGED);
    }
    // 2^32 and more is a number, but none that Argon2 has.
    let narrow = |number: u64| u32::try_from(number).map_err(|_| Unsupported::Parameters);
    Ok(Kdf::Argon2id(Argon2Cost::stated(narrow(memory)?, narrow(passes)?, narrow(lanes)?)))
}

/// Digits only, no leading zero.
fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    if !canonical || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn hex<const N: usize>(text: &str) -> Result<[u8; N]> {
    let mut out = [0; N];
    unhex(text.as_bytes(), &mut out).ok_or(DAMAGED)?;
    Ok(out)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Made large enough at once: a buffer that grows leaves keys behind.
fn plaintext(contents: &Contents) -> Zeroizing<Vec<u8>> {
    let roots = contents.roots.len();
    let mut out = Zeroizing::new(Vec::with_capacity(roots.saturating_mul(ROOT).saturating_add(128)));
    out.put_u64(contents.lines);
    out.put(contents.journal.expose());
    out.put_u8(u8::from(contents.active.is_some()));
    out.put(contents.active.as_ref().map_or(&[], |id| id.as_slice()));
    out.put_u32(u32::try_from(roots).unwrap_or(u32::MAX));
    for root in &contents.roots {
        out.put(&root.id);
        out.put_u64(root.epoch);
        out.put_u8(u8::from(root.activated));
        out.put(root.key.expose());
    }
    out
}

fn parse(body: &[u8], vault: Option<VaultId>, sequence: u64) -> Result<Contents> {
    let mut reader = Reader::new(body);
    let lines = reader.u64()?;
    let journal = key(&mut reader)?;
    let active = if reader.flag()? { Some(reader.array()?) } else { None };
    let count = usize::try_from(reader.u32()?).map_err(|_| DAMAGED)?;
    if count > MAX_ROOTS || count.checked_mul(ROOT) != Some(reader.rest().len()) {
        return Err(DAMAGED);
    }
    let mut roots = Vec::with_capacity(count);
    for _ in 0..count {
        roots.push(Root {
            id: reader.array()?,
            epoch: reader.u64()?,
            activated: reader.flag()?,
            key: key(&mut reader)?,
        });
    }
    reader.end()?;
    let contents = Contents { vault, sequence, lines, journal, active, roots };
    if contents.is_consistent() { Ok(contents) } else { Err(DAMAGED) }
}

fn key(reader: &mut Reader<'_>) -> Result<WrappingKey> {
    let (key, _) = reader.take(32)?.split_first_chunk().ok_or(DAMAGED)?;
    Ok(WrappingKey::from_slice(key))
}

impl Contents {
    /// Ids ascend, and the active root is there, was activated, and no activated root has a higher epoch.
    fn is_consistent(&self) -> bool {
        let ascending =
            self.roots.iter().zip(self.roots.iter().skip(1)).all(|(first, second)| first.id < second.id);
        let active = match self.active {
            None => None,
            Some(id) => match self.roots.iter().find(|root| root.id == id && root.activated) {
                None => return false,
                Some(root) => Some(root.epoch),
            },
        };
        ascending && self.roots.iter().filter(|root| root.activated).all(|root| Some(root.epoch) <= active)
    }
}

#[cfg(test)]
mod tests;
