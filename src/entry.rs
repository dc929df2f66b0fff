//! A subject's entry in the key tree: generations of purpose keys, what stands of them, and why. It lies in one wrapped
//! row, each key a part of its own, so that a grant opens the keys that it may use and no others.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::clock::Day;
use crate::consent::Evidence;
use crate::error::{Error, Malformed, Result, RolledBack, Unsupported};
use crate::key::{Audit, Hold, Node, Purpose, Secret, Tag};
use crate::purpose::Basis;
use crate::row::{Part, Plain};

mod standing;

const META: u8 = 1;
const AUDIT: u8 = 2;
const PURPOSE: u8 = 3;
const HOLD: u8 = 4;
const RECORDS: u8 = 5;

/// All that the vault knows of a subject, but for its keys.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    /// Raised by each forget, undo, enroll-again, withdrawal, hold and release; the witness remembers it.
    pub(crate) state: u64,
    /// Ascending; the last one is the newest.
    pub(crate) generations: Vec<Generation>,
    pub(crate) held: Option<Held>,
    /// The number of the lookup key under which it lies.
    pub(crate) lookup: u16,
    /// Where it lay before, oldest first, each with whether an older copy of the entry may open there still: until a
    /// shred has rotated the bucket.
    pub(crate) left: Vec<(Tag, bool)>,
}

/// One enrolment.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) number: u16,
    /// What contexts name.
    pub(crate) serial: [u8; 16],
    pub(crate) enrolled_ms: i64,
    pub(crate) forgotten: Option<Forgotten>,
    /// By purpose: what is recorded of it beyond its key.
    pub(crate) purposes: BTreeMap<u16, Standing>,
}

/// What is recorded of one purpose of one enrolment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) consent: Option<Evidence>,
    /// Withdrawn (or objected to): the day from which a shred destroys the key.
    pub(crate) withdrawn: Option<Day>,
    /// Kept after a forget, to the end of this day.
    pub(crate) until: Option<Day>,
    /// What a hold keeps of a key that is over for its purpose.
    pub(crate) held: bool,
    /// The key is not the enrolment's first: an older one was destroyed, and what it sealed is over, not altered.
    pub(crate) remade: bool,
    /// The latest end of the tickets that were given for it, in milliseconds since 1970. It stays when it is over: the
    /// certificate says that there were some.
    pub(crate) tickets_ms: Option<i64>,
}

/// A forget that was asked for and not yet shredded, or shredded but for what stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forgotten {
    pub(crate) at_ms: i64,
    /// The first day on which a shred destroys the keys; until then it can be undone.
    pub(crate) due: Day,
    /// Keys that do not stay are destroyed. What is still linked to a person is gone with them.
    pub(crate) shredded: bool,
    /// Names the certificate. Zero once shredded, so that nothing leads from the tombstone to it.
    pub(crate) reference: [u8; 16],
    /// Commitment to who asked.
    pub(crate) commitment: [u8; 32],
    pub(crate) actor: String,
    pub(crate) approver: String,
    pub(crate) ground: String,
}

/// A legal hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Random, in the names of the rows that this hold keeps: what an earlier hold has left is never taken for its own.
    pub(crate) serial: [u8; 8],
    pub(crate) since_ms: i64,
    pub(crate) ground: String,
}

/// An entry with the keys that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) meta: Meta,
    /// By generation and purpose.
    pub(crate) keys: BTreeMap<(u16, u16), Secret<Purpose>>,
    /// By generation.
    pub(crate) audit: BTreeMap<u16, Secret<Audit>>,
    pub(crate) hold: Option<Secret<Hold>>,
    /// By generation: what wraps the subject's rows in the records layer, so that their ids end with the subject too.
    pub(crate) records: BTreeMap<u16, Secret<Node>>,
}

pub(crate) const META_PART: Part = Part { kind: META, generation: 0, purpose: 0 };
pub(crate) const HOLD_PART: Part = Part { kind: HOLD, generation: 0, purpose: 0 };

pub(crate) const fn audit_part(generation: u16) -> Part {
    Part { kind: AUDIT, generation, purpose: 0 }
}

pub(crate) const fn records_part(generation: u16) -> Part {
    Part { kind: RECORDS, generation, purpose: 0 }
}

pub(crate) const fn key_part(generation: u16, purpose: u16) -> Part {
    Part { kind: PURPOSE, generation, purpose }
}

impl Generation {
    /// A new enrolment with fresh keys.
    pub(crate) fn fresh(number: u16, now_ms: i64, purposes: &[u16], entry: &mut Entry) -> Result<()> {
        // Drawn in one go: asking the system's generator takes longer than wrapping what it gives.
        let mut drawn = Zeroizing::new(vec![0; purposes.len().saturating_add(2).saturating_mul(32)]);
        crate::crypto::fill_random(&mut drawn)?;
        let mut drawn = drawn.chunks_exact(32);
        let mut next = || drawn.next().ok_or(Error::NoRandomness);
        let serial = crate::crypto::random()?;
        for purpose in purposes {
            let key = Secret::from_slice(next()?).ok_or(Error::NoRandomness)?;
            entry.keys.insert((number, *purpose), key);
        }
        entry.audit.insert(number, Secret::from_slice(next()?).ok_or(Error::NoRandomness)?);
        entry.records.insert(number, Secret::from_slice(next()?).ok_or(Error::NoRandomness)?);
        let purposes = BTreeMap::new();
        let generation = Generation { number, serial, enrolled_ms: now_ms, forgotten: None, purposes };
        entry.meta.generations.push(generation);
        Ok(())
    }

    /// Whether a purpose may be used today. Its key has to be there too.
    pub(crate) fn stands(&self, purpose: u16, basis: Option<Basis>, notice: u32, today: Day) -> bool {
        let standing = self.purposes.get(&purpose);
        let until = standing.and_then(|s| s.until);
        let kept = match (&self.forgotten, until) {
            (None, None) => true,
            (None | Some(_), Some(until)) => until >= today,
            (Some(_), None) => false,
        };
        // What was kept stays by the decision to keep it; its evidence goes with the shred.
        let agreed = basis != Some(Basis::Consent)
            || (self.forgotten.is_some() && until.is_some())
            || standing
                .and_then(|s| s.consent.as_ref())
                .is_some_and(|consent| consent.notice_version >= notice);
        kept && agreed && basis.is_some() && standing.is_none_or(|s| s.withdrawn.is_none() && !s.held)
    }
}

impl Generation {
    /// Whether nothing but a consent is missing: such a purpose is not over, it has not begun.
    pub(crate) fn awaits_consent(&self, purpose: u16) -> bool {
        self.forgotten.is_none()
            && self
                .purposes
                .get(&purpose)
                .is_none_or(|s| s.withdrawn.is_none() && !s.held && s.until.is_none())
    }
}

impl Entry {
    /// Where it is held and there was nothing to keep, a hold key comes with the first key to keep.
    pub(crate) fn keep_hold(&mut self) -> Result<()> {
        if self.meta.held.is_some() && self.hold.is_none() && !self.keys.is_empty() {
            self.hold = Some(Secret::random()?);
        }
        Ok(())
    }

    pub(crate) fn newest(&self) -> Option<&Generation> {
        self.meta.generations.last()
    }

    pub(crate) fn to_plain(&self) -> Plain {
        let mut parts = vec![(META_PART, self.meta.encode())];
        parts.extend(self.audit.iter().map(|(generation, key)| (audit_part(*generation), bytes(key))));
        parts.extend(self.keys.iter().map(|((g, purpose), key)| (key_part(*g, *purpose), bytes(key))));
        parts.extend(self.hold.iter().map(|key| (HOLD_PART, bytes(key))));
        parts.extend(self.records.iter().map(|(generation, key)| (records_part(*generation), bytes(key))));
        Plain { generation: 0, parts }
    }

    pub(crate) fn from_plain(plain: Plain) -> Result<Self> {
        let mut entry = Entry::default();
        let mut found = false;
        for (part, bytes) in plain.parts {
            let fits = match part.kind {
                META => {
                    entry.meta = Meta::decode(&bytes)?;
                    found = true;
                    true
                }
                AUDIT => Secret::from_slice(&bytes)
                    .is_some_and(|key| entry.audit.insert(part.generation, key).is_none()),
                PURPOSE => Secret::from_slice(&bytes)
                    .is_some_and(|key| entry.keys.insert((part.generation, part.purpose), key).is_none()),
                RECORDS => Secret::from_slice(&bytes)
                    .is_some_and(|key| entry.records.insert(part.generation, key).is_none()),
                HOLD => {
                    entry.hold = Secret::from_slice(&bytes);
                    entry.hold.is_some()
                }
                _ => return Err(Unsupported::Version.into()),
            };
            if !fits {
                return Err(Malformed::Content.into());
            }
        }
        if found { Ok(entry) } else { Err(Error::RolledBack(RolledBack::Mixed)) }
    }

    /// Whether nothing of it opens any more and nobody waits for it: a tombstone.
    pub(crate) fn is_erased(&self) -> bool {
        let over =
            |newest: &Generation| newest.forgotten.as_ref().is_some_and(|forgotten| forgotten.shredded);
        self.keys.is_empty() && self.hold.is_none() && self.newest().is_none_or(over)
    }

    /// The latest end of tickets that reach the subject for one of `purposes` and are not over.
    pub(crate) fn tickets_until(&self, now_ms: i64, purposes: impl Fn(u16) -> bool) -> Option<i64> {
        let of = self.meta.generations.iter().flat_map(|generation| &generation.purposes);
        let ends =
            of.filter(|(purpose, _)| purposes(**purpose)).filter_map(|(_, standing)| standing.tickets_ms);
        ends.filter(|end| *end > now_ms).max()
    }

    /// What earlier enrolments have a key for still, and until when.
    pub(crate) fn kept_before(&self) -> impl Iterator<Item = (u16, Day)> + '_ {
        let earlier = self.meta.generations.split_last().map(|(_, earlier)| earlier).unwrap_or_default();
        earlier.iter().flat_map(move |generation| {
            let number = generation.number;
            let kept = generation.purposes.iter().filter(move |(purpose, standing)| {
                standing.withdrawn.is_none() && self.keys.contains_key(&(number, **purpose))
            });
            kept.filter_map(|(purpose, standing)| Some((*purpose, standing.until?)))
        })
    }

    /// A withdrawal reaches what earlier enrolments have of the purpose, too.
    pub(crate) fn withdraw_before(&mut self, purpose: u16, due: Day) {
        let keys = &self.keys;
        let had = |generation: &&mut Generation| keys.contains_key(&(generation.number, purpose));
        for generation in self.meta.generations.iter_mut().rev().skip(1).filter(had) {
            let standing = generation.purposes.entry(purpose).or_default();
            standing.withdrawn = standing.withdrawn.or(Some(due));
        }
    }

    /// The next day on which a shred has something to do here; `None` where it has nothing.
    pub(crate) fn next_due(&self) -> Option<Day> {
        let mut due = None;
        let mut soonest = |day: Day| due = Some(due.map_or(day, |known: Day| known.min(day)));
        for generation in &self.meta.generations {
            let number = generation.number;
            let kept =
                |purpose: u16| generation.purposes.get(&purpose).is_some_and(|s| s.held || s.until.is_some());
            // While a hold keeps all that is due, there is nothing to do until it is released.
            let waits = self.meta.held.is_some()
                && self.keys.range((number, 0)..=(number, u16::MAX)).all(|((_, purpose), _)| kept(*purpose));
            if let Some(forgotten) = &generation.forgotten
                && !forgotten.shredded
                && !waits
            {
                soonest(forgotten.due);
            }
            for (purpose, standing) in &generation.purposes {
                if standing.held || !self.keys.contains_key(&(generation.number, *purpose)) {
                    continue;
                }
                if let Some(day) = standing.withdrawn {
                    soonest(day);
                }
                if let Some(day) = standing.until {
                    // Not within the grace period: an undo gives everything back.
                    let grace = generation.forgotten.as_ref().map_or(day, |forgotten| forgotten.due);
                    soonest(day.plus(1).max(grace));
                }
            }
        }
        due
    }

    /// Destroys what is due on `today`: the keys leave the entry, unless a hold keeps them for `LegalHold` alone.
    /// Returns the forgets that were completed, for their certificates, with the purposes that were destroyed.
    pub(crate) fn shred(&mut self, today: Day) -> Vec<Shredded> {
        let hold = self.meta.held.is_some();
        let mut done: Vec<Shredded> = Vec::new();
        // What stays of the enrolments so far: a later forget says of it that it stays.
        let mut stay: BTreeMap<u16, Day> = BTreeMap::new();
        for generation in &mut self.meta.generations {
            let number = generation.number;
            let due = generation.forgotten.as_ref().is_some_and(|f| f.due <= today);
            let mut destroyed = Vec::new();
            let mut kept = Vec::new();
            for (_, purpose) in
                self.keys.range((number, 0)..=(number, u16::MAX)).map(|(key, _)| *key).collect::<Vec<_>>()
            {
                let standing = generation.purposes.entry(purpose).or_default();
                let stays = match (due, standing.until) {
                    (true, Some(until)) => until >= today,
                    (true, None) => false,
                    // Within the grace period even what was kept for less: an undo gives everything back.
                    (false, _) => true,
                } && standing.withdrawn.is_none_or(|day| day > today);
                if stays {
                    kept.extend(standing.until.filter(|_| due).map(|until| (purpose, until)));
                } else if hold {
                    standing.held = true;
                } else {
                    standing.held = false;
                    self.keys.remove(&(number, purpose));
                    destroyed.push(purpose);
                }
            }
            for (purpose, until) in kept {
                let known = stay.entry(purpose).or_insert(until);
                *known = until.max(*known);
            }
            let held: Vec<u16> =
                generation.purposes.iter().filter(|(_, s)| s.held).map(|(purpose, _)| *purpose).collect();
            if let Some(forgotten) = &mut generation.forgotten
                && due
                && !forgotten.shredded
                && held.is_empty()
            {
                let given = generation.purposes.iter().filter(|(_, s)| s.tickets_ms.is_some());
                let tickets = given.map(|(purpose, _)| *purpose).collect();
                let kept = stay.iter().map(|(purpose, until)| (*purpose, *until)).collect();
                done.push(Shredded { forgotten: forgotten.clone(), destroyed, kept, tickets });
                forgotten.shredded = true;
                // Nor when: the log has the same moments beside its pseudonyms.
                forgotten.at_ms = 0;
                generation.enrolled_ms = 0;
                forgotten.reference = [0; 16];
                forgotten.commitment = [0; 32];
                forgotten.actor.clear();
                forgotten.approver.clear();
                forgotten.ground.clear();
                // What is left of the enrolment must not tell what the person had agreed to.
                for standing in generation.purposes.values_mut() {
                    standing.consent = None;
                    standing.tickets_ms = None;
                }
                // Without its key, no entry of the log can be linked to the subject any more.
                self.audit.remove(&number);
            }
            if self.keys.range((number, 0)..=(number, u16::MAX)).next().is_none() {
                self.records.remove(&number);
            }
            generation.purposes.retain(|purpose, standing| {
                // A withdrawal is remembered, or the next sealer would make a new key without a new consent.
                self.keys.contains_key(&(number, *purpose))
                    || standing.consent.is_some()
                    // Until the certificate has it.
                    || standing.tickets_ms.is_some()
                    || (standing.withdrawn.is_some() && generation.forgotten.is_none())
            });
        }
        done
    }
}

/// A forget whose keys are gone from the entry.
#[derive(Debug)]
pub(crate) struct Shredded {
    pub(crate) forgotten: Forgotten,
    pub(crate) destroyed: Vec<u16>,
    pub(crate) kept: Vec<(u16, Day)>,
    /// The purposes for which tickets were ever given.
    pub(crate) tickets: Vec<u16>,
}

fn bytes<K: crate::key::Stage>(key: &Secret<K>) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(key.expose().to_vec())
}

impl Meta {
    /// Whether it says that the subject is forgotten and nothing of it is kept.
    pub(crate) fn is_tombstone(&self) -> bool {
        let shredded = |generation: &Generation| generation.forgotten.as_ref().is_some_and(|f| f.shredded);
        self.held.is_none() && self.generations.iter().all(|g| shredded(g) && g.purposes.is_empty())
    }

    /// What names the subject in the journal, with its records and its holds: the place where it was enrolled, wherever
    /// its entry lies now.
    pub(crate) fn tag(&self, place: &Tag) -> Tag {
        self.left.first().map_or(*place, |(tag, _)| *tag)
    }
}
