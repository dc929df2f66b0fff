//! What must not be undone: the numbered events that store and witness both keep, and their state in memory, which
//! every process asks before it opens anything, whatever the store says.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::clock::Day;
use crate::crypto::{self, Prf};
use crate::error::{Error, Malformed, Misuse, Result, RolledBack, StoreError, Unsupported};
use crate::keeper::{RootId, Serves, VaultId};
use crate::key::{Tag, label};
use crate::store::{Batch, Committed, Expect, Key, Range, Rows, Versioned};
use crate::wire::{Put as _, Reader};
use crate::witness::{Line, MAX_LINE, Memory};

const VERSION: u8 = 1;
const CHAIN: &[u8] = b"customer-vault/v1/journal";

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
    /// A consent that came after a withdrawal.
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
    fn encode(&self) -> Vec<u8> {
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

/// What the journal says of one subject.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fence {
    pub(crate) state: u64,
    /// Where it is forgotten: what stays, and until when.
    pub(crate) forgotten: Option<Vec<(u16, Day)>>,
    pub(crate) withdrawn: BTreeSet<u16>,
    pub(crate) held: bool,
    /// Raised by every forget, undo, enroll-again, consent after a withdrawal, hold and release: what was taken in another
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
}

/// A day, or none yet.
pub(crate) type Day0 = Option<Day>;

impl State {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Created => {}
            Event::Registry => self.registry = self.registry.saturating_add(1),
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

    /// Whether a token is revoked, by its id, any of its actors, its purpose, or with all others.
    pub(crate) fn revoked(&self, id: &[u8; 16], actors: &[(u8, &str)], purpose: u16, issued_ms: i64) -> bool {
        self.tokens.contains(id)
            || actors.iter().any(|(kind, name)| self.actors.contains(&(*kind, (*name).to_owned())))
            || self.purposes.get(&purpose).is_some_and(|until| issued_ms <= *until)
            || self.all_until_ms.is_some_and(|until| issued_ms <= until)
    }
}

/// How far a chain of events has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) number: u64,
    pub(crate) hash: [u8; 32],
}

impl Head {
    fn start(key: &Prf, vault: &VaultId) -> Self {
        Head { number: 0, hash: *key.mac(&[CHAIN, vault.bytes()]) }
    }

    /// Keyed, or whoever writes the store could append an event of their own: an undo, or a mark of time that ends every
    /// day.
    fn next(self, key: &Prf, event: &[u8]) -> Self {
        let number = self.number.saturating_add(1);
        let hash = *key.mac(&[CHAIN, &self.hash, &number.to_be_bytes(), event]);
        Head { number, hash }
    }

    /// A line is the chain's hash after it, then the event.
    fn line(self, event: &[u8]) -> Line {
        Line { number: self.number, bytes: [&self.hash[..], event].concat() }
    }
}

/// The fence row's name.
pub(crate) const FENCE: &[u8] = b"f";

fn line_name(number: u64) -> Key {
    [b"j", &number.to_be_bytes()[..]].concat()
}

/// Store, witness and memory of the events.
#[derive(Debug)]
pub(crate) struct Journal {
    vault: VaultId,
    key: Prf,
    rows: Rows,
    witness: Memory,
    state: RwLock<State>,
    /// How many events the memory has.
    known: AtomicU64,
    /// The mark of time, plus one; 0 where there is none. Beside the state, so that no open takes a lock for it.
    mark: AtomicU32,
    /// What memory and witness have.
    progress: Mutex<Progress>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    known: Head,
    witnessed: u64,
}

impl Journal {
    pub(crate) fn new(vault: VaultId, key: Prf, rows: Rows, witness: Memory) -> Self {
        let progress = Progress { known: Head::start(&key, &vault), witnessed: 0 };
        Journal {
            vault,
            key,
            rows,
            witness,
            state: RwLock::default(),
            known: AtomicU64::new(0),
            mark: AtomicU32::new(0),
            progress: Mutex::new(progress),
        }
    }

    /// From where the witness can be used at once.
    pub(crate) fn witness_serves(&self) -> Serves {
        self.witness.serves()
    }

    /// How many events this process has applied. What was checked at one number holds until the number changes.
    pub(crate) fn known(&self) -> u64 {
        self.known.load(Ordering::Acquire)
    }

    /// Whether a day is over by the mark, whatever the clock says.
    pub(crate) fn over(&self, day: Day) -> bool {
        u32::from(day.0) < self.mark.load(Ordering::Acquire)
    }

    /// Every day up to this one is over.
    pub(crate) fn mark(&self) -> Option<Day> {
        self.mark.load(Ordering::Acquire).checked_sub(1).and_then(|day| u16::try_from(day).ok()).map(Day)
    }

    pub(crate) fn with<T>(&self, ask: impl FnOnce(&State) -> T) -> T {
        ask(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The head that the fence row names.
    pub(crate) fn head_of(&self, row: Option<&Versioned>) -> Result<Head> {
        let Some(row) = row else { return Ok(Head::start(&self.key, &self.vault)) };
        let mut r = Reader::new(&row.value);
        let head = Head { number: r.u64()?, hash: r.array()? };
        r.end()?;
        Ok(head)
    }

    /// Reads witness and store when a vault is opened.
    ///
    /// Lines that the store has and the witness lacks are copied over: a process died between the two. Lines that only
    /// the witness has mean that the store is older.
    pub(crate) async fn open(&self) -> Result<()> {
        let lines = self.witness.recall(1).await?;
        let fence = self.rows.get(FENCE).await?;
        let store = self.head_of(fence.as_ref())?;
        let witnessed = self.replay_into_memory(&lines)?;
        self.set_witnessed(witnessed.number);
        if store.number < witnessed.number {
            return Err(RolledBack::Store.into());
        }
        self.catch_up(store).await.map_err(|why| match why {
            // The store forked from what the witness remembers.
            Error::RolledBack(RolledBack::Mixed) => RolledBack::Store.into(),
            why => why,
        })?;
        self.complete().await
    }

    /// For `recover`: what the witness remembers and the store has lost, with the lines to write.
    pub(crate) async fn lost(&self) -> Result<Vec<(Line, Event)>> {
        let lines = self.witness.recall(1).await?;
        let witnessed = self.replay_into_memory(&lines)?;
        self.set_witnessed(witnessed.number);
        let store = self.head_of(self.rows.get(FENCE).await?.as_ref())?;
        let mut lost = Vec::new();
        for line in lines {
            let (hash, event) = line.bytes.split_first_chunk::<32>().ok_or(Malformed::Length)?;
            if line.number == store.number && *hash != store.hash {
                // Not an older copy but another history.
                return Err(RolledBack::Mixed.into());
            }
            if line.number > store.number {
                let event = Event::decode(event)?;
                lost.push((line, event));
            }
        }
        Ok(lost)
    }

    /// Writes lost lines back, the fence row last.
    pub(crate) async fn write_back(&self, lost: &[(Line, Event)]) -> Result<()> {
        for chunk in lost.chunks(1000) {
            let mut batch = Batch::new()?;
            for (line, _) in chunk {
                batch.writes.push((line_name(line.number), Some(line.bytes.clone())));
            }
            // It expects nothing: it was not made, and the fence row must not say that it was.
            if self.rows.commit(batch).await? == Committed::Conflict {
                return Err(Error::Busy);
            }
        }
        let Some((line, _)) = lost.last() else { return Ok(()) };
        let hash = line.bytes.get(..32).ok_or(Malformed::Length)?;
        let fence = self.rows.get(FENCE).await?;
        let mut batch = Batch::new()?;
        batch.expect(FENCE, Expect::unchanged(fence.as_ref()));
        batch.put(FENCE, [&line.number.to_be_bytes()[..], hash].concat());
        match self.rows.commit(batch).await? {
            Committed::Yes => Ok(()),
            Committed::Conflict => Err(Error::Busy),
        }
    }

    /// What a row of this name is to hold: the content, and a proof that this vault wrote it. It does not tell an older
    /// row of the same name from a newer one; that is for who reads it.
    pub(crate) fn prove(&self, name: &[u8], mut content: Vec<u8>) -> Vec<u8> {
        let proof = self.proof(name, &content);
        content.put(&proof);
        content
    }

    /// The content of a row of this name; `None` where this vault did not write it.
    pub(crate) fn proven<'a>(&self, name: &[u8], row: &'a [u8]) -> Option<&'a [u8]> {
        let (content, proof) = row.split_last_chunk::<32>()?;
        crypto::equal(proof, &self.proof(name, content)).then_some(content)
    }

    fn proof(&self, name: &[u8], content: &[u8]) -> [u8; 32] {
        let length = crate::wire::length(name).to_be_bytes();
        *self.key.mac(&[label::ROW_PROOF, self.vault.bytes(), &length, name, content])
    }

    fn replay_into_memory(&self, lines: &[Line]) -> Result<Head> {
        let mut head = Head::start(&self.key, &self.vault);
        for line in lines {
            head = self.check(head, line.number, &line.bytes)?;
        }
        self.apply(lines)?;
        Ok(head)
    }

    fn check(&self, head: Head, number: u64, bytes: &[u8]) -> Result<Head> {
        let (hash, event) = bytes.split_first_chunk::<32>().ok_or(Malformed::Length)?;
        let next = head.next(&self.key, event);
        if next.number == number && next.hash == *hash { Ok(next) } else { Err(RolledBack::Mixed.into()) }
    }

    fn apply(&self, lines: &[Line]) -> Result<()> {
        let mut events = Vec::with_capacity(lines.len());
        for line in lines {
            let (hash, event) = line.bytes.split_first_chunk::<32>().ok_or(Malformed::Length)?;
            events.push((Head { number: line.number, hash: *hash }, Event::decode(event)?));
        }
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for (head, event) in events {
            if head.number == progress.known.number.saturating_add(1) {
                state.apply(&event);
                progress.known = head;
            }
        }
        self.mark.store(state.mark.map_or(0, |day| u32::from(day.0).saturating_add(1)), Ordering::Release);
        self.known.store(progress.known.number, Ordering::Release);
        Ok(())
    }

    fn progress(&self) -> Progress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_witnessed(&self, number: u64) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.witnessed = progress.witnessed.max(number);
    }

    /// Takes in what other processes have written up to `store`.
    pub(crate) async fn catch_up(&self, store: Head) -> Result<()> {
        let known = self.progress().known;
        if store.number < known.number {
            // Read before another task of this process went on: whatever is built on it fails its precondition.
            return Ok(());
        }
        if store.number == known.number {
            return if store.hash == known.hash { Ok(()) } else { Err(RolledBack::Mixed.into()) };
        }
        let range = Range {
            start: line_name(known.number.saturating_add(1)),
            end: line_name(store.number.saturating_add(1)),
        };
        let mut head = known;
        let mut lines = Vec::new();
        for (_, row) in self.rows.all(range).await? {
            let number = head.number.saturating_add(1);
            head = self.check(head, number, &row.value)?;
            lines.push(Line { number, bytes: row.value });
        }
        if head != store {
            return Err(RolledBack::Mixed.into());
        }
        self.apply(&lines)
    }

    /// Brings the witness up to what memory has. Idempotent: whoever finds it undone does it.
    pub(crate) async fn complete(&self) -> Result<()> {
        let progress = self.progress();
        if progress.witnessed >= progress.known.number {
            return Ok(());
        }
        let range = Range {
            start: line_name(progress.witnessed.saturating_add(1)),
            end: line_name(progress.known.number.saturating_add(1)),
        };
        let mut lines = Vec::new();
        for (number, (_, row)) in (progress.witnessed.saturating_add(1)..).zip(self.rows.all(range).await?) {
            lines.push(Line { number, bytes: row.value });
        }
        if lines.last().map(|line| line.number) != Some(progress.known.number) {
            return Err(StoreError::Damaged.into());
        }
        self.witness.remember(lines).await?;
        self.set_witnessed(progress.known.number);
        Ok(())
    }

    /// Adds events to a batch, after `fence` as it was read. Whoever commits it calls [`committed`](Self::committed).
    pub(crate) fn stage(
        &self,
        batch: &mut Batch,
        fence: Option<&Versioned>,
        events: &[Event],
    ) -> Result<Vec<Line>> {
        let mut head = self.head_of(fence)?;
        if head.number < self.known() {
            // Read too early, or the store was put back under a running process: never write a second line of one
            // number.
            return Err(Error::Busy);
        }
        let mut lines = Vec::with_capacity(events.len());
        for event in events {
            let bytes = event.encode();
            head = head.next(&self.key, &bytes);
            let line = head.line(&bytes);
            if line.bytes.len() > MAX_LINE {
                // A witness takes no more: committed, it would keep every later line from the witness, and the vault from
                // being opened.
                return Err(Misuse::TooLarge.into());
            }
            batch.put(&line_name(head.number), line.bytes.clone());
            lines.push(line);
        }
        batch.expect(FENCE, Expect::unchanged(fence));
        batch.put(FENCE, [&head.number.to_be_bytes()[..], &head.hash].concat());
        Ok(lines)
    }

    /// The store has them: from here on this process refuses what they name.
    pub(crate) fn committed(&self, lines: &[Line]) -> Result<()> {
        self.apply(lines)
    }

    /// Commits events that need nothing else. They hold from then on; true where the witness has them too. Where it
    /// cannot be reached, the next call or open completes it.
    pub(crate) async fn record(&self, events: &[Event]) -> Result<bool> {
        for _ in 0..crate::tree::ATTEMPTS {
            let fence = self.rows.get(FENCE).await?;
            self.catch_up(self.head_of(fence.as_ref())?).await?;
            let mut batch = Batch::new()?;
            let lines = match self.stage(&mut batch, fence.as_ref(), events) {
                Err(Error::Busy) => continue,
                lines => lines?,
            };
            if self.rows.commit(batch).await? == Committed::Yes {
                self.committed(&lines)?;
                return Ok(self.complete().await.is_ok());
            }
        }
        Err(Error::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Journal};
    use crate::clock::Day;
    use crate::crypto::Prf;
    use crate::error::{Error, Misuse};
    use crate::keeper::VaultId;
    use crate::store::{Batch, MemoryStore, Rows};
    use crate::testing::MemoryKeeper;
    use crate::witness::{MAX_LINE, Memory};

    #[test]
    fn a_line_that_no_witness_takes_is_not_written() {
        let (rows, memory) = (Rows::new(MemoryStore::new()), Memory::new(MemoryKeeper::new()));
        let journal = Journal::new(VaultId([1; 16]), Prf::new(&[2; 32]), rows, memory);
        let stage = |kept: u16| {
            let keeps = (1..=kept).map(|purpose| (purpose, Day(9))).collect();
            let event = Event::Forgot { tag: [3; 16], state: 1, at_ms: 0, due: Day(9), keeps };
            journal.stage(&mut Batch::new().unwrap(), None, &[event])
        };
        // Hash, version, kind, tag, state, moment and day take 68 bytes, each purpose four.
        assert_eq!(stage(1007).unwrap()[0].bytes.len(), MAX_LINE);
        assert_eq!(stage(1008), Err(Error::Misuse(Misuse::TooLarge)));
    }
}
