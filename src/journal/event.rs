//! The events of the journal, as they are written. The format is in docs/SPEC.md, "Journal".

use crate::clock::Day;
use crate::error::{Malformed, Result, Unsupported};
use crate::keeper::RootId;
use crate::key::Tag;
use crate::wire::{Put as _, Reader};

const VERSION: u8 = 1;

/// Something that takes away, or gives back what was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Created,
    /// A new root.
    Root {
        epoch: u64,
        id: RootId,
    },
    /// Nothing of the subject but what stays.
    Forgot {
        tag: Tag,
        state: u64,
        at_ms: i64,
        due: Day,
        keeps: Vec<(u16, Day)>,
    },
    Undone {
        tag: Tag,
        state: u64,
    },
    Again {
        tag: Tag,
        state: u64,
        generation: u16,
    },
    Withdrew {
        tag: Tag,
        state: u64,
        purpose: u16,
        due: Day,
    },
    /// A consent that came after a withdrawal, or to an older notice than the one before.
    Consented {
        tag: Tag,
        state: u64,
        purpose: u16,
    },
    Held {
        tag: Tag,
        state: u64,
    },
    Released {
        tag: Tag,
        state: u64,
    },
    /// Every day up to this one is over.
    Mark {
        day: Day,
    },
    /// Their keys are gone.
    DaysDestroyed {
        day: Day,
    },
    Revoked(Revocation),
    Frozen(bool),
    /// A signed checkpoint of the log.
    Checkpoint {
        number: u64,
        hash: [u8; 32],
    },
    /// Consents to notices of an older version do not count any more.
    Notice {
        purpose: u16,
        version: u32,
    },
    /// The registry has grown: what the law keeps may be more now.
    Registry,
    /// The keys of the vault have changed. Tokens under a key before this number are refused.
    Keys {
        tokens_from: u16,
        /// The highest number that a key was given.
        last: u16,
        /// The number of the lookup key that is used.
        lookup: u16,
        /// Of the rows that hold them: others are not believed.
        sum: [u8; 32],
    },
    /// Entries have come to lie under the lookup key that is used: a copy without this line has them elsewhere.
    Moved {
        subjects: u32,
    },
    /// A backup is about to leave the store.
    BackupBegun {
        id: [u8; 16],
        at_ms: i64,
        epoch: u64,
        /// The last day on which a copy of it is kept, as was said when it was made.
        kept_until: Day,
    },
    /// All of it was written.
    BackupDone {
        id: [u8; 16],
    },
    /// What was due up to a day, by the lines that a shred had read when it began, is under no root after the one that was
    /// left.
    Shredded {
        day: Day,
        epoch_left: u64,
        lines: u64,
    },
    /// A copy of the store that had so many lines is being put right: what was shredded after them may be in it again,
    /// until the next shred.
    Restored {
        lines: u64,
    },
    /// It was put right to the end.
    Recovered,
}

/// Which tokens are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Revocation {
    Token([u8; 16]),
    /// Kind and name.
    Actor(u8, String),
    Purpose {
        purpose: u16,
        until_ms: i64,
    },
    /// All that were issued up to a moment.
    All {
        until_ms: i64,
    },
}

impl Event {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Event::Created => out.put_u8(0),
            Event::Root { epoch, id } => {
                out.put_u8(1);
                out.put_u64(*epoch);
                out.put(id);
            }
            Event::Forgot { tag, state, at_ms, due, keeps } => {
                subject(&mut out, 2, tag, *state);
                out.put_i64(*at_ms);
                out.put_u16(due.number());
                for (purpose, until) in keeps {
                    out.put_u16(*purpose);
                    out.put_u16(until.number());
                }
            }
            Event::Undone { tag, state } => subject(&mut out, 3, tag, *state),
            Event::Again { tag, state, generation } => {
                subject(&mut out, 4, tag, *state);
                out.put_u16(*generation);
            }
            Event::Withdrew { tag, state, purpose, due } => {
                subject(&mut out, 5, tag, *state);
                out.put_u16(*purpose);
                out.put_u16(due.number());
            }
            Event::Consented { tag, state, purpose } => {
                subject(&mut out, 6, tag, *state);
                out.put_u16(*purpose);
            }
            Event::Held { tag, state } => subject(&mut out, 7, tag, *state),
            Event::Released { tag, state } => subject(&mut out, 8, tag, *state),
            Event::Mark { day } => {
                out.put_u8(9);
                out.put_u16(day.number());
            }
            Event::DaysDestroyed { day } => {
                out.put_u8(10);
                out.put_u16(day.number());
            }
            Event::Revoked(Revocation::Token(id)) => {
                out.put_u8(11);
                out.put(id);
            }
            Event::Revoked(Revocation::Actor(kind, name)) => {
                out.put_u8(12);
                out.put_u8(*kind);
                out.put(name.as_bytes());
            }
            Event::Revoked(Revocation::Purpose { purpose, until_ms }) => {
                out.put_u8(13);
                out.put_u16(*purpose);
                out.put_i64(*until_ms);
            }
            Event::Revoked(Revocation::All { until_ms }) => {
                out.put_u8(14);
                out.put_i64(*until_ms);
            }
            Event::Frozen(on) => {
                out.put_u8(15);
                out.put_u8((*on).into());
            }
            Event::Checkpoint { number, hash } => {
                out.put_u8(16);
                out.put_u64(*number);
                out.put(hash);
            }
            Event::Notice { purpose, version } => {
                out.put_u8(17);
                out.put_u16(*purpose);
                out.put_u32(*version);
            }
            Event::Registry => out.put_u8(18),
            Event::Keys { tokens_from, last, lookup, sum } => {
                out.put_u8(19);
                out.put_u16(*tokens_from);
                out.put_u16(*last);
                out.put_u16(*lookup);
                out.put(sum);
            }
            Event::Moved { subjects } => {
                out.put_u8(20);
                out.put_u32(*subjects);
            }
            Event::BackupBegun { id, at_ms, epoch, kept_until } => {
                out.put_u8(30);
                out.put(id);
                out.put_i64(*at_ms);
                out.put_u64(*epoch);
                out.put_u16(kept_until.number());
            }
            Event::BackupDone { id } => {
                out.put_u8(31);
                out.put(id);
            }
            Event::Shredded { day, epoch_left, lines } => {
                out.put_u8(32);
                out.put_u16(day.number());
                out.put_u64(*epoch_left);
                out.put_u64(*lines);
            }
            Event::Restored { lines } => {
                out.put_u8(33);
                out.put_u64(*lines);
            }
            Event::Recovered => out.put_u8(34),
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != VERSION {
            return Err(Unsupported::Version.into());
        }
        let event = match r.u8()? {
            0 => Event::Created,
            1 => Event::Root { epoch: r.u64()?, id: r.array()? },
            2 => {
                let (tag, state, at_ms, due) = (r.array()?, r.u64()?, r.i64()?, Day(r.u16()?));
                let mut keeps = Vec::new();
                while !r.is_empty() {
                    keeps.push((r.u16()?, Day(r.u16()?)));
                }
                Event::Forgot { tag, state, at_ms, due, keeps }
            }
            3 => Event::Undone { tag: r.array()?, state: r.u64()? },
            4 => Event::Again { tag: r.array()?, state: r.u64()?, generation: r.u16()? },
            5 => Event::Withdrew { tag: r.array()?, state: r.u64()?, purpose: r.u16()?, due: Day(r.u16()?) },
            6 => Event::Consented { tag: r.array()?, state: r.u64()?, purpose: r.u16()? },
            7 => Event::Held { tag: r.array()?, state: r.u64()? },
            8 => Event::Released { tag: r.array()?, state: r.u64()? },
            9 => Event::Mark { day: Day(r.u16()?) },
            10 => Event::DaysDestroyed { day: Day(r.u16()?) },
            11 => Event::Revoked(Revocation::Token(r.array()?)),
            12 => {
                let kind = r.u8()?;
                let name = std::str::from_utf8(r.take(r.rest().len())?).map_err(|_| Malformed::Content)?;
                Event::Revoked(Revocation::Actor(kind, name.to_owned()))
            }
            13 => Event::Revoked(Revocation::Purpose { purpose: r.u16()?, until_ms: r.i64()? }),
            14 => Event::Revoked(Revocation::All { until_ms: r.i64()? }),
            15 => Event::Frozen(r.flag()?),
            16 => Event::Checkpoint { number: r.u64()?, hash: r.array()? },
            17 => Event::Notice { purpose: r.u16()?, version: r.u32()? },
            18 => Event::Registry,
            19 => Event::Keys { tokens_from: r.u16()?, last: r.u16()?, lookup: r.u16()?, sum: r.array()? },
            20 => Event::Moved { subjects: r.u32()? },
            30 => Event::BackupBegun {
                id: r.array()?,
                at_ms: r.i64()?,
                epoch: r.u64()?,
                kept_until: Day(r.u16()?),
            },
            31 => Event::BackupDone { id: r.array()? },
            32 => Event::Shredded { day: Day(r.u16()?), epoch_left: r.u64()?, lines: r.u64()? },
            33 => Event::Restored { lines: r.u64()? },
            34 => Event::Recovered,
            _ => return Err(Unsupported::Version.into()),
        };
        r.end()?;
        Ok(event)
    }
}

fn subject(out: &mut Vec<u8>, kind: u8, tag: &Tag, state: u64) {
    out.put_u8(kind);
    out.put(tag);
    out.put_u64(state);
}
