//! What unlocking has lately read of subjects: one who is asked for often costs no read of the store.
//!
//! What is remembered is never believed by itself. The commit that writes an unlock's log entry expects the fence row as it
//! was when the journal in memory was last brought up to it, and whatever takes something away writes that row: a forget, a
//! withdrawal, a revocation, a freeze, a hold, a new root, in this process or another. So the commit that every unlock makes
//! says that nothing was taken away, or fails, and then the subject is read again. Where memory says no, it is read again
//! too: what was given since, such as a consent, writes no fence.
//!
//! It is kept by subject, purpose and root epoch, of one vault: a grant takes the keys that it may use and no others, and so
//! does this. Keys lie here as 32 bytes and are expanded where they are used: ciphers that were kept ready would be slower
//! from some ten thousand subjects on, because they do not fit into a processor's caches.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::clock::Day;
use crate::entry::{Generation, Meta};
use crate::grant::Now;
use crate::journal::{Event, Fence, State};
use crate::key::{Purpose, Secret, Tag};
use crate::log::Pseudonym;
use crate::store::Expect;

/// Subjects and purposes that are remembered unless the shop says otherwise.
pub(crate) const ENTRIES: usize = 10_000;

/// How long unless the shop says otherwise: what is asked for again and again comes within it, and what is not lies about
/// no longer.
pub(crate) const AGE: Duration = Duration::from_secs(60);

/// So many locks, that two cores seldom meet at one.
const SHARDS: usize = 16;

/// Fewer lie under one lock, so that the bound is exact.
const FEW: usize = 1024;

/// The most tokens whose last use is remembered.
const MAX_USES: usize = 4096;

/// One enrolment's key for the purpose.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) generation: u16,
    /// Kept after a forget, to the end of this day.
    pub(crate) until: Option<Day>,
    /// The notice that was consented to, where it stands by consent.
    pub(crate) notice: Option<u32>,
    pub(crate) remade: bool,
    key: Zeroizing<[u8; 32]>,
}

impl Kept {
    /// Its key is filled in where it lies: moving it would leave copies.
    fn without_key(generation: &Generation, purpose: u16, by_consent: bool) -> Self {
        let standing = generation.purposes.get(&purpose);
        let until = standing.and_then(|standing| standing.until);
        // What was kept stays by the decision to keep it, as in `Generation::stands`.
        let kept = generation.forgotten.is_some() && until.is_some();
        let consent = standing.and_then(|standing| standing.consent.as_ref());
        Kept {
            generation: generation.number,
            until,
            notice: (by_consent && !kept).then(|| consent.map_or(0, |consent| consent.notice_version)),
            remade: standing.is_some_and(|standing| standing.remade),
            key: Zeroizing::new([0; 32]),
        }
    }

    /// Whether it may still be used: the one thing that changes without an event of the subject's own.
    pub(crate) fn stands(&self, notice: u32, today: Day) -> bool {
        self.until.is_none_or(|until| until >= today) && self.notice.is_none_or(|agreed| agreed >= notice)
    }

    pub(crate) fn key(&self) -> Option<Secret<Purpose>> {
        Secret::from_slice(self.key.as_slice())
    }
}

/// What is remembered of a subject for one purpose.
#[derive(Debug)]
pub(crate) struct Known {
    /// Before the read was sent.
    since: Now,
    epoch: u64,
    state: u64,
    pub(crate) pseudonym: Option<Pseudonym>,
    pub(crate) serials: Box<[(u16, [u8; 16])]>,
    /// Of the newest enrolment: what is given without an event is given there.
    pub(crate) newest: Kept,
    pub(crate) earlier: Vec<Kept>,
    /// Asked for since the hand of the clock last came by.
    used: bool,
}

/// What a subject was read as.
#[derive(Debug)]
pub(crate) struct Read<'a> {
    pub(crate) since: Now,
    pub(crate) epoch: u64,
    pub(crate) meta: &'a Meta,
    pub(crate) purpose: u16,
    pub(crate) by_consent: bool,
    pub(crate) pseudonym: Option<Pseudonym>,
}

impl Known {
    /// `None` where the newest enrolment has no key that may be used: then the next one has to be read.
    fn of<'k>(read: &Read<'_>, key: impl Fn(u16) -> Option<&'k Secret<Purpose>>) -> Option<Box<Self>> {
        let (newest, earlier) = read.meta.generations.split_last()?;
        let kept = |generation: &Generation| Kept::without_key(generation, read.purpose, read.by_consent);
        key(newest.number)?;
        let mut known = Box::new(Known {
            since: read.since,
            epoch: read.epoch,
            state: read.meta.state,
            pseudonym: read.pseudonym,
            serials: read.meta.generations.iter().map(|g| (g.number, g.serial)).collect(),
            newest: kept(newest),
            earlier: earlier.iter().filter(|g| key(g.number).is_some()).map(kept).collect(),
            used: false,
        });
        let Known { newest, earlier, .. } = &mut *known;
        for kept in earlier.iter_mut().chain([newest]) {
            kept.key.copy_from_slice(key(kept.generation)?.expose());
        }
        Some(known)
    }

    /// Whether it is what would be read, as far as the journal knows.
    fn holds(&self, state: &State, fence: Option<&Fence>) -> bool {
        self.epoch == state.epoch && self.state >= fence.map_or(0, |fence| fence.state)
    }
}

type Name = (Tag, u16);

/// Those under one lock.
#[derive(Debug, Default)]
struct Shard {
    known: HashMap<Name, Box<Known>>,
    /// In the order in which the hand of the clock comes by; some have gone since.
    ring: VecDeque<Name>,
    purposes: Vec<u16>,
}

impl Shard {
    fn put(&mut self, name: Name, known: Box<Known>, room: usize, over: impl Fn(&Known) -> bool) {
        if !self.purposes.contains(&name.1) {
            self.purposes.push(name.1);
        }
        if let Some(there) = self.known.get_mut(&name) {
            *there = known;
            return;
        }
        self.make_room(room, over);
        if self.ring.len() >= room.saturating_mul(2) {
            // Of those who were wiped out of turn, and came again.
            let mut once = HashSet::new();
            self.ring.retain(|name| self.known.contains_key(name) && once.insert(*name));
        }
        self.known.insert(name, known);
        self.ring.push_back(name);
    }

    /// Oldest first: those that are too old or have gone, and as many as there is no room for. One that was asked for since
    /// is passed over once.
    fn make_room(&mut self, room: usize, over: impl Fn(&Known) -> bool) {
        let mut passing = self.ring.len();
        while let Some(next) = self.ring.front().copied() {
            let crowded = self.known.len() >= room;
            match self.known.get_mut(&next) {
                Some(known) if !over(known) => {
                    if !crowded {
                        return;
                    }
                    if known.used && passing > 0 {
                        known.used = false;
                        passing = passing.saturating_sub(1);
                        self.ring.push_back(next);
                    } else {
                        self.known.remove(&next);
                    }
                }
                Some(_) => {
                    self.known.remove(&next);
                }
                None => {}
            }
            self.ring.pop_front();
        }
    }

    fn forget(&mut self, tag: &Tag) {
        for purpose in &self.purposes {
            self.known.remove(&(*tag, *purpose));
        }
    }

    fn clear(&mut self) {
        self.known.clear();
        self.ring.clear();
    }
}

/// The fence row, as it was when the journal in memory had so many events.
#[derive(Clone, Copy, Debug)]
struct Seen {
    number: u64,
    fence: Expect,
}

/// What a process remembers of subjects.
///
/// Locks are taken in one order: the journal's state, then one of these.
#[derive(Debug)]
pub(crate) struct Remembered {
    shards: Box<[Mutex<Shard>]>,
    /// In each shard.
    room: usize,
    age: Duration,
    seen: Mutex<Option<Seen>>,
    /// When tokens were last used, as far as it is written.
    uses: Mutex<HashMap<[u8; 16], i64>>,
    /// The tags of those whose place under the lookup key that is used is another: a subject keeps its tag for good.
    names: RwLock<HashMap<Tag, Tag>>,
}

impl Remembered {
    pub(crate) fn new(entries: usize, age: Duration) -> Self {
        let shards = if entries < FEW { 1 } else { SHARDS };
        Remembered {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            room: entries.div_ceil(shards),
            age,
            seen: Mutex::default(),
            uses: Mutex::default(),
            names: RwLock::default(),
        }
    }

    /// What names the subject of a place, where it is another than that.
    pub(crate) fn name_of(&self, place: &Tag) -> Tag {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.get(place).copied().unwrap_or(*place)
    }

    /// Notes what names the subject of a place.
    pub(crate) fn named(&self, place: Tag, tag: Tag) {
        if self.room == 0 || self.name_of(&place) == tag {
            return;
        }
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if place == tag {
            // Whoever was there is gone, and another enrolment is named by the place.
            names.remove(&place);
            return;
        }
        if names.len() >= self.room.saturating_mul(self.shards.len()) {
            names.clear();
        }
        names.insert(place, tag);
    }

    /// The fence row was read, and memory has all the events that it names.
    pub(crate) fn saw(&self, number: u64, fence: Expect) {
        let mut seen = lock(&self.seen);
        if seen.is_none_or(|seen| seen.number <= number) {
            *seen = Some(Seen { number, fence });
        }
    }

    /// The fence row of so many events, if it was read. Ask before the journal's state is asked.
    pub(crate) fn fence(&self, number: u64) -> Option<Expect> {
        lock(&self.seen).filter(|seen| seen.number == number).map(|seen| seen.fence)
    }

    /// Lets `take` look at what is remembered, if it holds by `state`.
    pub(crate) fn with<T>(
        &self,
        state: &State,
        tag: &Tag,
        purpose: u16,
        now: Now,
        take: impl FnOnce(&Known, Option<&Fence>) -> Option<T>,
    ) -> Option<T> {
        let fence = state.fences.get(tag);
        let mut shard = self.shard(tag)?;
        let known = shard.known.get_mut(&(*tag, purpose))?;
        if now.since(known.since) >= self.age || !known.holds(state, fence) {
            shard.known.remove(&(*tag, purpose));
            return None;
        }
        known.used = true;
        take(known, fence)
    }

    /// Remembers what was read, unless `state` has gone on since.
    pub(crate) fn put<'k>(
        &self,
        state: &State,
        tag: &Tag,
        now: Now,
        read: &Read<'_>,
        key: impl Fn(u16) -> Option<&'k Secret<Purpose>>,
    ) {
        if self.room == 0 {
            return;
        }
        let Some(known) = Known::of(read, key) else { return };
        if state.frozen || !known.holds(state, state.fences.get(tag)) {
            return;
        }
        if let Some(mut shard) = self.shard(tag) {
            shard.put((*tag, read.purpose), known, self.room, |known| now.since(known.since) >= self.age);
        }
    }

    /// What an event is about is wiped. After the state has it, so that nothing that was read before comes in again.
    pub(crate) fn applied(&self, event: &Event) {
        match event {
            Event::Forgot { tag, .. }
            | Event::Undone { tag, .. }
            | Event::Again { tag, .. }
            | Event::Withdrew { tag, .. }
            | Event::Consented { tag, .. }
            | Event::Held { tag, .. }
            | Event::Released { tag, .. } => {
                if let Some(mut shard) = self.shard(tag) {
                    shard.forget(tag);
                }
            }
            Event::Root { .. } | Event::Frozen(true) | Event::Restored { .. } => {
                self.shards.iter().for_each(|shard| lock(shard).clear());
            }
            _ => {}
        }
    }

    /// Whether a token's use has to be written: its last one is more than `every` ago, in milliseconds, as far as this
    /// process knows. Asked once for each.
    pub(crate) fn use_is_due(&self, token: &[u8; 16], now_ms: i64, every: i64) -> bool {
        let uses = lock(&self.uses);
        if uses.get(token).is_some_and(|last| now_ms.saturating_sub(*last) < every) {
            return false;
        }
        drop(uses);
        self.used(token, now_ms);
        true
    }

    /// When a token was last used, as it is written or will be.
    pub(crate) fn used(&self, token: &[u8; 16], last_ms: i64) {
        let mut uses = lock(&self.uses);
        if uses.len() >= MAX_USES {
            uses.clear();
        }
        uses.insert(*token, last_ms);
    }

    fn shard(&self, tag: &Tag) -> Option<MutexGuard<'_, Shard>> {
        let [.., last] = tag;
        self.shards.get(usize::from(*last).checked_rem(self.shards.len())?).map(lock)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).known.len()).sum()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
