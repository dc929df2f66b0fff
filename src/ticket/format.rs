//! The bytes of a ticket: `header ‖ encapsulated key ‖ sealed contents ‖ tag ‖ signature`.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use super::{MAX_LIFETIME, MAX_SHELVES, MAX_SUBJECTS};
use crate::actor::SubjectId;
use crate::clock::Day;
use crate::crypto::aead::TAG;
use crate::crypto::{self, envelope};
use crate::error::{Denied, Malformed, Result, Unsupported};
use crate::keeper::VaultId;
use crate::key::{Recipient, Secret, Shelf};
use crate::log::origin;
use crate::note::VerifierKey;
use crate::token::Fields;
use crate::wire::{Put as _, Reader};

const INFO: &[u8] = b"customer-vault/v1/ticket";
const SIGNATURE: &[u8] = b"customer-vault/v1/ticket-signature";
const SUBJECT: &[u8] = b"customer-vault/v1/ticket-subject";

const VERSION: u8 = 1;
const HEADER: usize = 1 + 16 + 16 + 2 + 8 + 8 + 32;
const SIGNATURE_LEN: usize = 64;
/// Header, encapsulated key, tag and signature.
const AROUND: usize = HEADER + 32 + TAG + SIGNATURE_LEN;
/// The longest ticket, in bytes: 1 MiB. Every part is bounded so that none that is made comes near it.
const MAX_TICKET: usize = 1 << 20;

/// 32 random bytes for one ephemeral key.
pub(crate) type Drawn = Zeroizing<[u8; 32]>;

pub(crate) fn draw() -> Result<Drawn> {
    let mut drawn = Zeroizing::new([0; 32]);
    crypto::fill_random(drawn.as_mut_slice())?;
    Ok(drawn)
}

/// The first 16 bytes of a hash.
pub(crate) fn shortened(hash: &[u8; 32]) -> [u8; 16] {
    let mut short = [0; 16];
    short.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    short
}

/// What a ticket calls a subject, so that its contents have the ids of nobody.
pub(crate) fn subject_hint(ticket: &[u8; 16], id: &SubjectId) -> [u8; 16] {
    shortened(&crypto::hash(&[SUBJECT, ticket, id.bytes()]))
}

/// Shelf keys of one purpose, some subjects and days, sealed to one recipient. It is no secret to anybody else: keep and
/// send it as you like. At most 1 MiB.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket(Vec<u8>);

impl Ticket {
    /// Takes bytes that [`as_bytes`](Self::as_bytes) gave. Their form is checked; who made them, and for whom, shows when
    /// [`Reader::open`](super::Reader::open) opens it.
    ///
    /// # Errors
    ///
    /// [`Unsupported::Version`] for a version that this one does not know, [`Malformed`] where they are no ticket.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        // First, so that a ticket of another version is called that, and not damaged.
        if bytes.first().is_some_and(|version| *version != VERSION) {
            return Err(Unsupported::Version.into());
        }
        if bytes.len() > MAX_TICKET {
            return Err(Malformed::Length.into());
        }
        Parts::split(&bytes)?;
        Ok(Ticket(bytes))
    }

    /// For sending it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Which ticket, as the log names it. Read from the clear header: authentic only where the ticket opens.
    #[must_use]
    pub fn unverified_id(&self) -> [u8; 16] {
        Parts::split(&self.0).map_or([0; 16], |parts| parts.header.id)
    }

    /// When it ends, in milliseconds since 1970. Read from the clear header: authentic only where the ticket opens.
    #[must_use]
    pub fn unverified_ends_ms(&self) -> i64 {
        Parts::split(&self.0).map_or(0, |parts| parts.header.ends_ms)
    }

    /// Encrypts, then signs all of it.
    pub(crate) fn seal(
        header: &Header,
        contents: &Contents,
        drawn: &Drawn,
        signing: &[u8; 32],
    ) -> Result<Self> {
        let mut contents = contents.encode();
        let header_bytes = header.encode();
        let (encapped, tag) =
            envelope::seal(&header.recipient, &[INFO, &header_bytes].concat(), &mut contents, drawn)?;
        let mut out = Vec::with_capacity(AROUND.saturating_add(contents.len()));
        out.put(&header_bytes);
        out.put(&encapped);
        out.put(&contents);
        out.put(&tag);
        let signature = crypto::sign(signing, &signed(&out));
        out.put(&signature);
        Ok(Ticket(out))
    }

    /// Checks who made it and for whom, before any key is used.
    pub(crate) fn verified(&self, vault: &VerifierKey, recipient: &[u8; 32]) -> Result<Parts<'_>> {
        let parts = Parts::split(&self.0)?;
        if vault.name() != origin(&parts.header.vault)
            || !crypto::verify(vault.bytes(), &signed(parts.before), parts.signature)
        {
            return Err(Denied::NotOurs.into());
        }
        if parts.header.recipient != *recipient {
            return Err(Denied::Recipient.into());
        }
        Ok(parts)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(")?;
        self.unverified_id().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// What is signed. The version's byte, a control character, keeps it from being the text of any note.
fn signed(before: &[u8]) -> Vec<u8> {
    let mut signed = Vec::with_capacity(SIGNATURE.len().saturating_add(1).saturating_add(before.len()));
    signed.put_bytes(SIGNATURE);
    signed.put(before);
    signed
}

/// What stands in clear.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) vault: VaultId,
    pub(crate) id: [u8; 16],
    pub(crate) purpose: u16,
    pub(crate) given_ms: i64,
    pub(crate) ends_ms: i64,
    pub(crate) recipient: [u8; 32],
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.put_u8(VERSION);
        out.put(self.vault.bytes());
        out.put(&self.id);
        out.put_u16(self.purpose);
        out.put_i64(self.given_ms);
        out.put_i64(self.ends_ms);
        out.put(&self.recipient);
        out
    }
}

/// Where the parts of a ticket lie in its bytes.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) header: Header,
    info: Vec<u8>,
    encapped: [u8; 32],
    sealed: &'a [u8],
    tag: &'a [u8; TAG],
    before: &'a [u8],
    signature: &'a [u8; SIGNATURE_LEN],
}

impl<'a> Parts<'a> {
    fn split(bytes: &'a [u8]) -> Result<Self> {
        let (before, signature) = bytes.split_last_chunk().ok_or(Malformed::Length)?;
        let mut reader = Reader::new(before);
        if reader.u8()? != VERSION {
            return Err(Unsupported::Version.into());
        }
        let header = Header {
            vault: VaultId(reader.array()?),
            id: reader.array()?,
            purpose: reader.u16()?,
            given_ms: reader.i64()?,
            ends_ms: reader.i64()?,
            recipient: reader.array()?,
        };
        let encapped = reader.array()?;
        let (sealed, tag) = reader.rest().split_last_chunk().ok_or(Malformed::Length)?;
        let lifetime = header.ends_ms.checked_sub(header.given_ms).ok_or(Malformed::Content)?;
        let longest = i64::try_from(MAX_LIFETIME.as_millis()).unwrap_or(i64::MAX);
        if !(1..=longest).contains(&lifetime) {
            return Err(Malformed::Content.into());
        }
        let info = [INFO, before.get(..HEADER).unwrap_or_default()].concat();
        Ok(Parts { header, info, encapped, sealed, tag, before, signature })
    }

    pub(crate) fn open(&self, private: &Secret<Recipient>) -> Result<Contents> {
        let mut contents = Zeroizing::new(self.sealed.to_vec());
        envelope::open(private.expose(), &self.encapped, &self.info, &mut contents, self.tag)?;
        Contents::decode(&contents)
    }
}

/// By hint.
pub(crate) type Subjects = BTreeMap<[u8; 16], BTreeMap<u16, Generation>>;

/// One enrolment of a subject, as far as a ticket reaches it.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) serial: [u8; 16],
    /// The last day on which the purpose may be used, 65,535 for no such day.
    pub(crate) until: Day,
    /// The purpose's key is not the enrolment's first.
    pub(crate) remade: bool,
    pub(crate) shelves: BTreeMap<Day, Secret<Shelf>>,
}

/// What is sealed.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) label: String,
    /// `None` for every field.
    pub(crate) fields: Option<Fields>,
    pub(crate) subjects: Subjects,
}

impl Contents {
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let fields = self.fields.as_ref().map(Fields::encode);
        let generations = || self.subjects.values().flat_map(BTreeMap::values);
        let len = [
            (self.label.len().saturating_add(5), 1),
            (fields.as_ref().map_or(0, Vec::len).saturating_add(6), 1),
            (2, 1),
            (16 + 2, self.subjects.len()),
            (2 + 16 + 2 + 1 + 2, generations().count()),
            (2 + 32, generations().map(|generation| generation.shelves.len()).sum()),
        ];
        let len = len
            .iter()
            .fold(0_usize, |sum, (of_one, count)| sum.saturating_add(of_one.saturating_mul(*count)));
        // Room for all of it first: the buffer must not move while a key lies in it.
        let mut out = Zeroizing::new(Vec::with_capacity(len));
        let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        out.put_bytes(self.label.as_bytes());
        out.put_u8(fields.is_some().into());
        if let Some(fields) = &fields {
            out.put_bytes(fields);
        }
        out.put_u16(count(self.subjects.len()));
        for (hint, generations) in &self.subjects {
            out.put(hint);
            out.put_u16(count(generations.len()));
            for (number, generation) in generations {
                out.put_u16(*number);
                out.put(&generation.serial);
                out.put_u16(generation.until.number());
                out.put_u8(generation.remade.into());
                out.put_u16(count(generation.shelves.len()));
                for (day, shelf) in &generation.shelves {
                    out.put_u16(day.number());
                    out.put(shelf.expose());
                }
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let label = r.text()?.to_owned();
        let fields = r.flag()?.then(|| r.bytes().and_then(Fields::decode)).transpose()?;
        let mut subjects = Subjects::new();
        let mut shelves = 0_usize;
        for _ in 0..counted(&mut r, MAX_SUBJECTS)? {
            let hint = r.array()?;
            ascends(subjects.last_key_value(), &hint)?;
            let mut generations = BTreeMap::new();
            for _ in 0..counted(&mut r, MAX_SHELVES)? {
                let number = r.u16()?;
                ascends(generations.last_key_value(), &number)?;
                let generation = generation(&mut r)?;
                shelves = shelves.saturating_add(generation.shelves.len());
                generations.insert(number, generation);
            }
            subjects.insert(hint, generations);
        }
        r.end()?;
        if shelves > MAX_SHELVES {
            return Err(Malformed::Length.into());
        }
        Ok(Contents { label, fields, subjects })
    }
}

fn generation(r: &mut Reader<'_>) -> Result<Generation> {
    let (serial, until, remade) = (r.array()?, Day(r.u16()?), r.flag()?);
    let mut shelves = BTreeMap::new();
    for _ in 0..counted(r, MAX_SHELVES)? {
        let day = Day(r.u16()?);
        ascends(shelves.last_key_value(), &day)?;
        shelves.insert(day, Secret::from_slice(r.take(32)?).ok_or(Malformed::Length)?);
    }
    Ok(Generation { serial, until, remade, shelves })
}

/// How many follow: at least one.
fn counted(r: &mut Reader<'_>, most: usize) -> Result<usize> {
    let count = usize::from(r.u16()?);
    if (1..=most).contains(&count) { Ok(count) } else { Err(Malformed::Length.into()) }
}

fn ascends<K: Ord, V>(last: Option<(&K, &V)>, next: &K) -> Result<()> {
    if last.is_some_and(|(last, _)| last >= next) { Err(Malformed::Order.into()) } else { Ok(()) }
}
