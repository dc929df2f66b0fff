//! What the journal's events come to, in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::due::Due;
use super::{Event, Revocation};
use crate::clock::Day;
use crate::keeper::RootId;
use crate::key::Tag;
use crate::token::issued_ms;

/// What the journal says of one subject.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fence {
    pub(crate) state: u64,
    /// Where it is forgotten: what stays, and until when.
    pub(crate) forgotten: Option<Vec<(u16, Day)>>,
    pub(crate) withdrawn: BTreeSet<u16>,
    pub(crate) held: bool,
    /// Raised by every forget, undo, enroll-again, consent that took something away or gave it back, hold and release: what was taken in another
    /// era is stale, even where the subject looks the same again.
    pub(crate) era: u64,
}

impl Fence {
    /// Whether a purpose may be used, as far as the journal knows.
    pub(crate) fn permits(&self, purpose: u16, today: Day) -> bool {
        let stays = match &self.forgotten {
            None => true,
            Some(keeps) => keeps.iter().any(|(kept, until)| *kept == purpose && *until >= today),
        };
        stays && !self.withdrawn.contains(&purpose)
    }
}

/// The journal's state.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) fences: HashMap<Tag, Fence>,
    pub(crate) mark: Day0,
    pub(crate) destroyed: Day0,
    pub(crate) frozen: bool,
    tokens: HashSet<[u8; 16]>,
    actors: HashSet<(u8, String)>,
    purposes: BTreeMap<u16, i64>,
    all_until_ms: Option<i64>,
    pub(crate) checkpoint: Option<(u64, [u8; 32])>,
    pub(crate) epoch: u64,
    /// Every root that the store has ever named, with its epoch.
    pub(crate) roots: HashMap<RootId, u64>,
    notices: BTreeMap<u16, u32>,
    /// How often the registry has grown.
    pub(crate) registry: u64,
    /// How often the keys of the vault have changed.
    pub(crate) keys: u64,
    /// The oldest key of which tokens are accepted.
    pub(crate) tokens_from: u16,
    /// The highest number that a key of the vault was given.
    pub(crate) last_key: u16,
    /// What concerns the keys, and copies that are put right.
    pub(crate) course: Course,
    /// What it was after the lines that changed it: so a copy of so many lines has it.
    courses: Vec<(u64, Course)>,
    due: Due,
    /// The highest epoch that was named when the last copy began to be put right: roots of branches that were given up are
    /// not above it.
    pub(crate) branched: u64,
}

/// The keys, and whether an older copy of the store is being put right.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Course {
    /// What the rows of the keys must be; `None` while they are those that the vault was made with.
    pub(crate) ring: Option<RingSum>,
    /// An older copy is being put right.
    pub(crate) recovering: bool,
    /// The lookup key was changed after that copy was made: subjects lay elsewhere in what was lost.
    pub(crate) lay_elsewhere: bool,
    /// Keys were changed after that copy was made, and have not been made anew since.
    pub(crate) keys_lost: bool,
}

/// The keys as one change has left them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingSum {
    /// The number of the lookup key that is used.
    pub(crate) lookup: u16,
    pub(crate) sum: [u8; 32],
}

/// A day, or none yet.
pub(crate) type Day0 = Option<Day>;

impl State {
    /// Takes in the event of a line.
    pub(super) fn apply(&mut self, line: u64, event: &Event) {
        self.due.apply(line, event);
        match event {
            // Read again from the lines where somebody asks.
            Event::Created
            | Event::Moved { .. }
            | Event::BackupBegun { .. }
            | Event::BackupDone { .. }
            | Event::Shredded { .. } => {}
            Event::Restored { lines } => {
                self.branched = self.epoch;
                // Who has read them before has those of what was lost.
                self.keys = self.keys.saturating_add(1);
                self.turn(line, Course { recovering: true, ..self.course_of(*lines) });
            }
            Event::Recovered => {
                self.turn(line, Course { recovering: false, lay_elsewhere: false, ..self.course });
            }
            Event::Registry => self.registry = self.registry.saturating_add(1),
            Event::Keys { tokens_from, last, lookup, sum } => {
                let ring = Some(RingSum { lookup: *lookup, sum: *sum });
                self.turn(line, Course { ring, keys_lost: false, ..self.course });
                self.last_key = self.last_key.max(*last);
                self.keys = self.keys.saturating_add(1);
                self.tokens_from = self.tokens_from.max(*tokens_from);
            }
            Event::Root { epoch, id } => {
                self.epoch = self.epoch.max(*epoch);
                self.roots.insert(*id, *epoch);
            }
            Event::Forgot { tag, state, keeps, .. } => {
                self.new_era(tag, *state).forgotten = Some(keeps.clone());
            }
            Event::Undone { tag, state } => self.new_era(tag, *state).forgotten = None,
            Event::Again { tag, state, .. } => {
                let fence = self.new_era(tag, *state);
                fence.forgotten = None;
                fence.withdrawn.clear();
            }
            Event::Withdrew { tag, state, purpose, .. } => {
                self.fence(tag, *state).withdrawn.insert(*purpose);
            }
            Event::Consented { tag, state, purpose } => {
                // A new era: a grant from before the withdrawal may hold a key that a shred has destroyed since.
                self.new_era(tag, *state).withdrawn.remove(purpose);
            }
            Event::Held { tag, state } => self.new_era(tag, *state).held = true,
            Event::Released { tag, state } => self.new_era(tag, *state).held = false,
            Event::Mark { day } => self.mark = self.mark.max(Some(*day)),
            Event::DaysDestroyed { day } => {
                self.destroyed = self.destroyed.max(Some(*day));
                self.mark = self.mark.max(Some(*day));
            }
            Event::Revoked(Revocation::Token(id)) => {
                self.tokens.insert(*id);
            }
            Event::Revoked(Revocation::Actor(kind, name)) => {
                self.actors.insert((*kind, name.clone()));
            }
            Event::Revoked(Revocation::Purpose { purpose, until_ms }) => {
                let until = self.purposes.entry(*purpose).or_insert(*until_ms);
                *until = (*until).max(*until_ms);
            }
            Event::Revoked(Revocation::All { until_ms }) => {
                self.all_until_ms = self.all_until_ms.max(Some(*until_ms));
            }
            Event::Frozen(on) => self.frozen = *on,
            Event::Checkpoint { number, hash } => self.checkpoint = Some((*number, *hash)),
            Event::Notice { purpose, version } => {
                let known = self.notices.entry(*purpose).or_insert(*version);
                *known = (*known).max(*version);
            }
        }
    }

    /// The version of a purpose's notice below which consents do not count.
    pub(crate) fn notice(&self, purpose: u16) -> u32 {
        self.notices.get(&purpose).copied().unwrap_or(0)
    }

    /// Whom lines name up to a day that no shred has dealt with, each with whether something has left the entry already.
    pub(crate) fn due(&self, today: Day) -> HashMap<Tag, bool> {
        self.due.until(today)
    }

    /// Whether anybody may lie elsewhere than where they were enrolled.
    pub(crate) fn moved(&self) -> bool {
        self.courses.iter().any(|(_, course)| course.lookup() != 0)
    }

    fn turn(&mut self, line: u64, course: Course) {
        self.course = course;
        self.courses.push((line, course));
    }

    /// What a copy of so many lines has, put right from here on. 0 where nobody knows what was away: then no line was.
    pub(crate) fn course_of(&self, lines: u64) -> Course {
        if lines == 0 {
            return self.course;
        }
        let before = self.courses.partition_point(|(line, _)| *line <= lines);
        let (before, since) = self.courses.split_at(before);
        let mut course = before.last().map_or_else(Course::default, |(_, course)| *course);
        let lookup = course.lookup();
        course.lay_elsewhere |= since.iter().any(|(_, lost)| lost.lookup() != lookup);
        course.keys_lost |= since.iter().any(|(_, lost)| lost.ring != course.ring);
        course
    }

    fn new_era(&mut self, tag: &Tag, state: u64) -> &mut Fence {
        let fence = self.fence(tag, state);
        fence.era = fence.era.saturating_add(1);
        fence
    }

    fn fence(&mut self, tag: &Tag, state: u64) -> &mut Fence {
        let fence = self.fences.entry(*tag).or_default();
        fence.state = fence.state.max(state);
        fence
    }

    /// Whether an actor is revoked.
    pub(crate) fn names(&self, actor: &crate::actor::Actor) -> bool {
        self.actors.contains(&(actor.kind().number(), actor.name().to_owned()))
    }

    /// Whether a token is revoked, by its id, any of its actors, its purpose, its key, or with all others.
    pub(crate) fn revoked(&self, id: &[u8; 16], actors: &[(u8, &str)], purpose: u16, key: u16) -> bool {
        let issued_ms = issued_ms(id);
        key < self.tokens_from
            || self.tokens.contains(id)
            || !self.actors.is_empty()
                && actors.iter().any(|(kind, name)| self.actors.contains(&(*kind, (*name).to_owned())))
            || self.purposes.get(&purpose).is_some_and(|until| issued_ms <= *until)
            || self.all_until_ms.is_some_and(|until| issued_ms <= until)
    }
}

impl Course {
    fn lookup(&self) -> u16 {
        self.ring.map_or(0, |ring| ring.lookup)
    }

    /// Whether rows of the keys are the right ones, by their sum, or as those that the vault was made with.
    pub(crate) fn believes(&self, sum: [u8; 32], first: bool) -> bool {
        self.ring.map_or(first, |ring| ring.sum == sum)
    }
}
