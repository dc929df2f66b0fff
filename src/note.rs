//! Signed notes, Merkle tree roots and checkpoints: what leaves the vault to be checked by others.
//!
//! The formats are those of transparency logs, so that other people's tools read them:
//! [c2sp.org/signed-note](https://c2sp.org/signed-note),
//! [c2sp.org/tlog-checkpoint](https://c2sp.org/tlog-checkpoint), and the Merkle tree hash of RFC 6962, section 2.1.

use std::{fmt, str::FromStr};

use base64ct::{Base64, Encoding as _};

use crate::crypto;
use crate::error::{Error, Malformed, Result, Unsupported};

/// The longest note, in bytes.
const MAX_NOTE: usize = 1024 * 1024;
/// The most signatures that are read; the specification asks for 16.
const MAX_SIGNATURES: usize = 64;
/// The longest name of a key, in bytes.
const MAX_NAME: usize = 256;
/// Signature type 0x01: Ed25519 over the text.
const ED25519: u8 = 0x01;
/// What a signature line begins with: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// A public key with its name. Its text is a verifier key as Go's `sumdb/note` writes it:
/// `<name>+<key id in hexadecimal>+<base64 of 0x01 and the 32 bytes of an Ed25519 key>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: Box<str>,
    key: [u8; 32],
}

impl VerifierKey {
    /// The name, which stands in the signature line.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first 4 bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key).
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = crypto::hash(&[self.name.as_bytes(), b"\n", &[ED25519], &self.key]);
        [a, b, c, d]
    }

    #[cfg(feature = "tickets")]
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.key
    }

    /// Of the key that signs.
    pub(crate) fn of(name: &str, seed: &[u8; 32]) -> Result<Self> {
        Self::new(name, crypto::public_key(seed))
    }

    pub(crate) fn new(name: &str, key: [u8; 32]) -> Result<Self> {
        if !is_name(name) {
            return Err(Malformed::Content.into());
        }
        Ok(VerifierKey { name: name.into(), key })
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut typed = [ED25519; 33];
        typed.iter_mut().skip(1).zip(self.key).for_each(|(to, from)| *to = from);
        let id = u32::from_be_bytes(self.id());
        write!(f, "{}+{id:08x}+{}", self.name, Base64::encode_string(&typed))
    }
}

impl FromStr for VerifierKey {
    type Err = Error;

    /// # Errors
    ///
    /// [`Malformed`] where it is no verifier key, or has a second spelling; [`Unsupported::Suite`] for a type other
    /// than Ed25519.
    fn from_str(text: &str) -> Result<Self> {
        if text.len() > MAX_NAME.saturating_add(64) {
            return Err(Malformed::Length.into());
        }
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(_), Some(typed)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Malformed::Content.into());
        };
        let typed = Base64::decode_vec(typed).map_err(|_| Malformed::NotCanonical)?;
        let (suite, key) = typed.split_first().ok_or(Malformed::Length)?;
        if *suite != ED25519 {
            return Err(Unsupported::Suite.into());
        }
        let key = Self::new(name, key.try_into().map_err(|_| Malformed::Length)?)?;
        // The key id is checked by writing the whole again, so that no second spelling passes.
        if key.to_string() == text { Ok(key) } else { Err(Malformed::NotCanonical.into()) }
    }
}

/// Signs a text: whole lines, UTF-8, no control characters but the newline.
///
/// # Errors
///
/// [`Malformed::Content`] for a name or a text that a note cannot hold, [`Malformed::Length`] beyond 1 MiB.
pub(crate) fn sign_note(name: &str, seed: &[u8; 32], text: &str) -> Result<String> {
    let key = VerifierKey::of(name, seed)?;
    if !text.ends_with('\n') {
        return Err(Malformed::Content.into());
    }
    let mut signature = [0; 68];
    let signed = crypto::sign(seed, text.as_bytes());
    signature.iter_mut().zip(key.id().into_iter().chain(signed)).for_each(|(to, from)| *to = from);
    let note = format!("{text}\n{DASH}{name} {}\n", Base64::encode_string(&signature));
    Ok(SignedNote::parse(&note)?.0)
}

/// A note that nobody has verified: its form is right, and that is all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote(String);

impl SignedNote {
    /// Reads a note of at most 1 MiB with 1 to 64 signatures.
    ///
    /// # Errors
    ///
    /// [`Malformed`] where it is no signed note.
    pub fn parse(note: &str) -> Result<Self> {
        if note.len() > MAX_NOTE {
            return Err(Malformed::Length.into());
        }
        if note.bytes().any(|b| b < 0x20 && b != b'\n') {
            return Err(Malformed::Content.into());
        }
        let (_, signatures) = split(note)?;
        let lines = signatures.strip_suffix('\n').ok_or(Malformed::Length)?;
        let mut count: usize = 0;
        for line in lines.split('\n') {
            count = count.saturating_add(1);
            if count > MAX_SIGNATURES {
                return Err(Malformed::Length.into());
            }
            Signature::parse(line)?;
        }
        Ok(SignedNote(note.to_owned()))
    }

    /// The whole note, with its signatures.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, if the key has signed it. Signatures of other keys are passed over; one of this key that does not fit
    /// refuses the note, whatever else stands there.
    ///
    /// # Errors
    ///
    /// [`Error::DoesNotOpen`] where the key has not signed this text.
    pub fn verify(&self, key: &VerifierKey) -> Result<&str> {
        let (text, signatures) = split(&self.0)?;
        let mut verified = false;
        for line in signatures.lines() {
            let signature = Signature::parse(line)?;
            if signature.name != key.name() || signature.id != key.id() {
                continue;
            }
            let bytes = signature.bytes.as_slice().try_into().map_err(|_| Error::DoesNotOpen)?;
            if !crypto::verify(&key.key, text.as_bytes(), bytes) {
                return Err(Error::DoesNotOpen);
            }
            verified = true;
        }
        if verified { Ok(text) } else { Err(Error::DoesNotOpen) }
    }
}

impl FromStr for SignedNote {
    type Err = Error;

    fn from_str(note: &str) -> Result<Self> {
        Self::parse(note)
    }
}

/// The text with its last newline, and the signature lines: the last blank line is between them.
fn split(note: &str) -> Result<(&str, &str)> {
    let blank = note.rfind("\n\n").ok_or(Malformed::Content)?;
    let (text, rest) = note.split_at_checked(blank.saturating_add(1)).ok_or(Malformed::Content)?;
    Ok((text, rest.strip_prefix('\n').ok_or(Malformed::Content)?))
}

struct Signature<'a> {
    name: &'a str,
    id: [u8; 4],
    bytes: Vec<u8>,
}

impl<'a> Signature<'a> {
    fn parse(line: &'a str) -> Result<Self> {
        let (name, encoded) =
            line.strip_prefix(DASH).and_then(|rest| rest.split_once(' ')).ok_or(Malformed::Content)?;
        if !is_name(name) {
            return Err(Malformed::Content.into());
        }
        let bytes = Base64::decode_vec(encoded).map_err(|_| Malformed::NotCanonical)?;
        match bytes.split_first_chunk() {
            Some((id, signature)) if !signature.is_empty() => {
                Ok(Signature { name, id: *id, bytes: signature.to_vec() })
            }
            _ => Err(Malformed::Length.into()),
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// The Merkle tree hash of RFC 6962, section 2.1: leaves and nodes have different prefixes, so that a node cannot be
/// passed off as a leaf.
pub(crate) fn merkle_root<L: AsRef<[u8]>>(leaves: &[L]) -> [u8; 32] {
    match leaves {
        [] => crypto::hash(&[]),
        [leaf] => crypto::hash(&[&[0x00], leaf.as_ref()]),
        // The left half is the largest power of two below the number of leaves.
        _ => match leaves.split_at_checked(leaves.len().next_power_of_two() >> 1) {
            Some((left, right)) => crypto::hash(&[&[0x01], &merkle_root(left), &merkle_root(right)]),
            None => crypto::hash(&[]),
        },
    }
}

/// A checkpoint's text: origin, number of leaves, root, and lines that extend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: Box<str>,
    size: u64,
    root: [u8; 32],
    extensions: Vec<Box<str>>,
}

impl Checkpoint {
    /// Reads the text of a note, after the note was verified.
    ///
    /// # Errors
    ///
    /// [`Malformed`] where it is no checkpoint.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.strip_suffix('\n').ok_or(Malformed::Length)?.split('\n');
        let mut line = || lines.next().filter(|line| !line.is_empty()).ok_or(Malformed::Content);
        let (origin, size, root) = (line()?, line()?, line()?);
        let root = Base64::decode_vec(root).map_err(|_| Malformed::NotCanonical)?;
        let root = root.as_slice().try_into().map_err(|_| Malformed::Length)?;
        let parsed: u64 = size.parse().map_err(|_| Malformed::Content)?;
        // `parse` takes leading zeros and a plus sign.
        if parsed.to_string() != size {
            return Err(Malformed::NotCanonical.into());
        }
        Self::new(origin, parsed, root, &lines.collect::<Vec<_>>())
    }

    /// What the log calls itself.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The Merkle tree hash of the leaves.
    #[must_use]
    pub fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// The lines after the root.
    pub fn extensions(&self) -> impl Iterator<Item = &str> {
        self.extensions.iter().map(|line| &**line)
    }

    pub(crate) fn new(origin: &str, size: u64, root: [u8; 32], extensions: &[&str]) -> Result<Self> {
        let is_line = |line: &str| !line.is_empty() && !line.bytes().any(|b| b < 0x20);
        if !is_line(origin) || !extensions.iter().all(|line| is_line(line)) {
            return Err(Malformed::Content.into());
        }
        let extensions = extensions.iter().map(|line| Box::from(*line)).collect();
        Ok(Checkpoint { origin: origin.into(), size, root, extensions })
    }
}

/// The text that is signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, Base64::encode_string(&self.root))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests;
