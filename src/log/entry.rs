//! One entry: its types have no room for personal data, given that actors and grounds are codes.

use std::fmt;

use super::action::{Action, Count, Outcome};
use crate::actor::{Actor, Ground};
use crate::clock::rfc3339;
use crate::crypto::Prf;
use crate::error::{Malformed, Misuse, Result, Unsupported};
use crate::keeper::VaultId;
use crate::token::tlv::{self, ascending, fixed};
use crate::token::{Fields, decode_actor, decode_ground, encode_actor};
use crate::wire::{Put as _, Reader};

const VERSION: u8 = 1;
/// The longest entry, in bytes. Every part is bounded so that none that is made comes near it.
const MAX_ENTRY: usize = 32 * 1024;
/// Longer than any chain of a token.
const MAX_ACTORS: usize = 32;
/// The most subjects of one chunk.
const MAX_CHUNK: usize = 1024;
/// The most causes that are listed; further ones are counted.
const MAX_CAUSES: usize = 64;
const PSEUDONYM: &[u8] = b"customer-vault/v1/log/pseudonym";

/// Stands for a subject in the log. Made with the subject's own audit key: once that is shredded, nobody can tell whose
/// it was, and the chain still verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pseudonym([u8; 16]);

impl Pseudonym {
    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// HMAC-SHA-256(audit key, "customer-vault/v1/log/pseudonym" ‖ vault id)[..16]: one subject has one, so that its
    /// entries can be found while it is enrolled.
    pub(crate) fn of(audit: &Prf, vault: &VaultId) -> Self {
        Pseudonym(audit.tag(&[PSEUDONYM, vault.bytes()]))
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

/// A ticket, as the log names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TicketEntry {
    /// Its id.
    pub id: [u8; 16],
    /// The fingerprint of the key that it is sealed to.
    pub recipient: [u8; 16],
    /// When it ends, in milliseconds since 1970.
    pub ends_ms: i64,
}

/// One entry of the log. Its `Display` is one line for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    time_ms: i64,
    action: Action,
    outcome: Outcome,
    actors: Vec<Actor>,
    ground: Option<Ground>,
    token: Option<[u8; 16]>,
    purpose: Option<u16>,
    subjects: Vec<Pseudonym>,
    reference: Option<[u8; 16]>,
    fields: Option<Fields>,
    counts: Vec<(Count, u64)>,
    causes: Vec<u8>,
    ticket: Option<TicketEntry>,
}

/// What it says.
impl Entry {
    /// Milliseconds since 1970-01-01T00:00:00Z, by the clock of the process that wrote it.
    #[must_use]
    pub fn time_ms(&self) -> i64 {
        self.time_ms
    }

    /// What was done, or refused.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// How it ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Who: for a token, to whom it was issued and then those whom its narrowings name.
    #[must_use]
    pub fn actors(&self) -> &[Actor] {
        &self.actors
    }

    /// Why.
    #[must_use]
    pub fn ground(&self) -> Option<&Ground> {
        self.ground.as_ref()
    }

    /// The token's id.
    #[must_use]
    pub fn token(&self) -> Option<&[u8; 16]> {
        self.token.as_ref()
    }

    /// The number of the purpose.
    #[must_use]
    pub fn purpose(&self) -> Option<u16> {
        self.purpose
    }

    /// Whose data: none, one, or those of a chunk in ascending order.
    #[must_use]
    pub fn subjects(&self) -> &[Pseudonym] {
        &self.subjects
    }

    /// A random reference that stands where a pseudonym would link what must not be linked.
    #[must_use]
    pub fn reference(&self) -> Option<&[u8; 16]> {
        self.reference.as_ref()
    }

    /// Which fields were limited to or touched; `None` where it was not by field.
    #[must_use]
    pub fn fields(&self) -> Option<&Fields> {
        self.fields.as_ref()
    }

    /// How many.
    #[must_use]
    pub fn count(&self, what: Count) -> Option<u64> {
        self.counts.iter().find(|(counted, _)| *counted == what).map(|(_, number)| *number)
    }

    /// The ticket that was given.
    #[must_use]
    pub fn ticket(&self) -> Option<&TicketEntry> {
        self.ticket.as_ref()
    }

    /// Codes of what did not open since the entry before, in the order in which it happened: 0 to 64.
    #[must_use]
    pub fn causes(&self) -> &[u8] {
        &self.causes
    }
}

/// How it is made.
impl Entry {
    pub(crate) fn new(time_ms: i64, action: Action, outcome: Outcome) -> Self {
        Entry {
            time_ms,
            action,
            outcome,
            actors: Vec::new(),
            ground: None,
            token: None,
            purpose: None,
            subjects: Vec::new(),
            reference: None,
            fields: None,
            counts: Vec::new(),
            causes: Vec::new(),
            ticket: None,
        }
    }

    /// # Errors
    ///
    /// [`Misuse::TooLarge`] for more than 32; a token's chain has at most 17.
    pub(crate) fn by(self, actors: Vec<Actor>) -> Result<Self> {
        if actors.len() > MAX_ACTORS { Err(Misuse::TooLarge.into()) } else { Ok(Entry { actors, ..self }) }
    }

    pub(crate) fn because(self, ground: Ground) -> Self {
        Entry { ground: Some(ground), ..self }
    }

    pub(crate) fn under_token(self, id: [u8; 16]) -> Self {
        Entry { token: Some(id), ..self }
    }

    pub(crate) fn for_purpose(self, purpose: u16) -> Self {
        Entry { purpose: Some(purpose), ..self }
    }

    pub(crate) fn about(self, subject: Pseudonym) -> Self {
        Entry { subjects: vec![subject], ..self }
    }

    /// # Errors
    ///
    /// [`Misuse::TooLarge`] for more than 1,024: a chunk has to be smaller.
    pub(crate) fn about_many(self, mut subjects: Vec<Pseudonym>) -> Result<Self> {
        if subjects.len() > MAX_CHUNK {
            return Err(Misuse::TooLarge.into());
        }
        subjects.sort_unstable();
        subjects.dedup();
        Ok(Entry { subjects, ..self })
    }

    /// Entries that are alike but for their subjects as one, with the time of the first. What one commit does to many
    /// subjects it says once.
    ///
    /// # Errors
    ///
    /// [`Misuse::TooLarge`] for more than 1,024 subjects.
    pub(crate) fn joined(entries: Vec<Entry>) -> Result<Vec<Self>> {
        let mut joined: Vec<Entry> = Vec::new();
        for mut entry in entries {
            let subjects = std::mem::take(&mut entry.subjects);
            match joined.last_mut() {
                // A reference names one event.
                Some(last) if entry.reference.is_none() && last.is_like(&entry) => {
                    last.subjects.extend(subjects);
                }
                _ => joined.push(Entry { subjects, ..entry }),
            }
        }
        joined
            .into_iter()
            .map(|mut entry| {
                let subjects = std::mem::take(&mut entry.subjects);
                entry.about_many(subjects)
            })
            .collect()
    }

    fn is_like(&self, other: &Entry) -> bool {
        let what = |entry: &Entry| (entry.action, entry.outcome, entry.token, entry.purpose, entry.reference);
        what(self) == what(other)
            && self.ticket == other.ticket
            && self.actors == other.actors
            && self.ground == other.ground
            && self.fields == other.fields
            && self.counts == other.counts
            && other.causes.is_empty()
    }

    /// A reference instead of the subjects, unless it has one.
    pub(crate) fn anonymous(self, reference: [u8; 16]) -> Self {
        let reference = self.reference.or(Some(reference));
        Entry { subjects: Vec::new(), reference, ..self }
    }

    pub(crate) fn with_reference(self, reference: [u8; 16]) -> Self {
        Entry { reference: Some(reference), ..self }
    }

    pub(crate) fn touching(self, fields: Fields) -> Self {
        Entry { fields: Some(fields), ..self }
    }

    /// Counting the same twice keeps the later number.
    pub(crate) fn counting(mut self, what: Count, number: u64) -> Self {
        self.counts.retain(|(counted, _)| *counted != what);
        self.counts.push((what, number));
        self.counts.sort_unstable_by_key(|(counted, _)| counted.number());
        self
    }

    #[cfg(any(test, feature = "tickets"))]
    pub(crate) fn giving(self, ticket: TicketEntry) -> Self {
        Entry { ticket: Some(ticket), ..self }
    }

    /// The first 64 are listed; how many more there were is counted.
    pub(crate) fn with_causes(self, causes: &[u8]) -> Self {
        let (listed, more) = causes.split_at_checked(MAX_CAUSES).unwrap_or((causes, &[]));
        let entry = Entry { causes: listed.to_vec(), ..self };
        match u64::try_from(more.len()) {
            Ok(more @ 1..) => entry.counting(Count::MoreCauses, more),
            _ => entry,
        }
    }
}

/// How it is stored: version ‖ time ‖ action ‖ outcome ‖ claims, whose tags ascend; a claim that says nothing is left
/// out.
impl Entry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.put_i64(self.time_ms);
        out.put_u8(self.action.number());
        out.put_u8(self.outcome.number());
        if !self.actors.is_empty() {
            let mut actors = Vec::new();
            self.actors.iter().for_each(|actor| actors.put_bytes(&encode_actor(actor)));
            tlv::put(&mut out, 1, &actors);
        }
        if let Some(ground) = &self.ground {
            tlv::put(&mut out, 2, ground.code().as_bytes());
        }
        if let Some(token) = &self.token {
            tlv::put(&mut out, 3, token);
        }
        if let Some(purpose) = self.purpose {
            tlv::put(&mut out, 4, &purpose.to_be_bytes());
        }
        if !self.subjects.is_empty() {
            let subjects: Vec<u8> = self.subjects.iter().flat_map(|subject| subject.0).collect();
            tlv::put(&mut out, 5, &subjects);
        }
        if let Some(reference) = &self.reference {
            tlv::put(&mut out, 6, reference);
        }
        if let Some(fields) = &self.fields {
            tlv::put(&mut out, 7, &fields.encode());
        }
        if !self.counts.is_empty() {
            let mut counts = Vec::new();
            for (what, number) in &self.counts {
                counts.put_u8(what.number());
                counts.put_u64(*number);
            }
            tlv::put(&mut out, 8, &counts);
        }
        if !self.causes.is_empty() {
            tlv::put(&mut out, 9, &self.causes);
        }
        if let Some(TicketEntry { id, recipient, ends_ms }) = &self.ticket {
            let mut ticket = Vec::with_capacity(40);
            ticket.put(id);
            ticket.put(recipient);
            ticket.put_i64(*ends_ms);
            tlv::put(&mut out, 10, &ticket);
        }
        out
    }

    /// # Errors
    ///
    /// [`Malformed`]; [`Unsupported::Version`] where a later version wrote it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_ENTRY {
            return Err(Malformed::Length.into());
        }
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Unsupported::Version.into());
        }
        let time_ms = reader.i64()?;
        let action = Action::from_number(reader.u8()?).ok_or(Unsupported::Version)?;
        let outcome = Outcome::from_number(reader.u8()?).ok_or(Unsupported::Version)?;
        let mut entry = Entry::new(time_ms, action, outcome);
        let mut claims = tlv::Claims::new(reader.rest());
        while let Some((tag, value)) = claims.next()? {
            match tag {
                1 => entry.actors = decode_actors(value)?,
                2 => entry.ground = Some(decode_ground(value)?),
                3 => entry.token = Some(fixed(value)?),
                4 => entry.purpose = Some(u16::from_be_bytes(fixed(value)?)),
                5 => entry.subjects = ascending(value, 1, MAX_CHUNK)?.into_iter().map(Pseudonym).collect(),
                6 => entry.reference = Some(fixed(value)?),
                7 => entry.fields = Some(Fields::decode(value)?),
                8 => entry.counts = decode_counts(value)?,
                9 if (1..=MAX_CAUSES).contains(&value.len()) => entry.causes = value.to_vec(),
                9 => return Err(Malformed::Length.into()),
                10 => entry.ticket = Some(decode_ticket(value)?),
                _ => return Err(Unsupported::Version.into()),
            }
        }
        Ok(entry)
    }
}

fn decode_actors(value: &[u8]) -> Result<Vec<Actor>> {
    let mut reader = Reader::new(value);
    let mut actors = Vec::new();
    while !reader.is_empty() {
        if actors.len() == MAX_ACTORS {
            return Err(Malformed::Length.into());
        }
        actors.push(decode_actor(reader.bytes()?)?);
    }
    if actors.is_empty() { Err(Malformed::Length.into()) } else { Ok(actors) }
}

fn decode_ticket(value: &[u8]) -> Result<TicketEntry> {
    let mut reader = Reader::new(value);
    let ticket = TicketEntry { id: reader.array()?, recipient: reader.array()?, ends_ms: reader.i64()? };
    reader.end()?;
    Ok(ticket)
}

fn decode_counts(value: &[u8]) -> Result<Vec<(Count, u64)>> {
    let mut reader = Reader::new(value);
    let mut counts: Vec<(Count, u64)> = Vec::new();
    while !reader.is_empty() {
        let what = Count::from_number(reader.u8()?).ok_or(Unsupported::Version)?;
        if counts.last().is_some_and(|(before, _)| before.number() >= what.number()) {
            return Err(Malformed::Order.into());
        }
        counts.push((what, reader.u64()?));
    }
    if counts.is_empty() { Err(Malformed::Length.into()) } else { Ok(counts) }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", rfc3339(self.time_ms), self.action, self.outcome)?;
        for (at, actor) in self.actors.iter().enumerate() {
            write!(f, "{}{actor}", if at == 0 { " by=" } else { ">" })?;
        }
        if let Some(ground) = &self.ground {
            write!(f, " ground={ground}")?;
        }
        if let Some(purpose) = self.purpose {
            write!(f, " purpose={purpose}")?;
        }
        if let Some(token) = &self.token {
            f.write_str(" token=")?;
            hex(f, token)?;
        }
        match &*self.subjects {
            [] => {}
            [one] => write!(f, " subject={one}")?,
            many => write!(f, " subjects={}", many.len())?,
        }
        if let Some(reference) = &self.reference {
            f.write_str(" reference=")?;
            hex(f, reference)?;
        }
        for (record, numbers) in self.fields.iter().flat_map(Fields::iter) {
            write!(f, " fields={record}")?;
            for (at, number) in numbers.iter().enumerate() {
                write!(f, "{}{number}", if at == 0 { "/" } else { "," })?;
            }
        }
        if let Some(ticket) = &self.ticket {
            f.write_str(" ticket=")?;
            hex(f, &ticket.id)?;
            f.write_str(" recipient=")?;
            hex(f, &ticket.recipient)?;
            write!(f, " until={}", rfc3339(ticket.ends_ms))?;
        }
        for (what, number) in &self.counts {
            write!(f, " count:{what}={number}")?;
        }
        for (at, cause) in self.causes.iter().enumerate() {
            write!(f, "{}{cause}", if at == 0 { " causes=" } else { "," })?;
        }
        Ok(())
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}
