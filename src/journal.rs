//! What must not be undone: the numbered events that store and witness both keep, and their state in memory, which
//! every process asks before it opens anything, whatever the store says.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use crate::clock::Day;
use crate::crypto::{self, Prf};
use crate::error::{Error, Malformed, Misuse, Result, RolledBack, StoreError};
use crate::keeper::VaultId;
use crate::key::label;
use crate::remembered::Remembered;
use crate::store::{Batch, Committed, Expect, Key, Range, Rows, Versioned};
use crate::wire::{Put as _, Reader};
use crate::witness::{Line, MAX_LINE, Memory, Remembers};

mod due;
mod event;
mod state;

pub(crate) use event::{Event, Revocation};
pub(crate) use state::{Course, Fence, State};

const CHAIN: &[u8] = b"customer-vault/v1/journal";

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
    /// What is wiped when an event says so.
    remembered: OnceLock<Arc<Remembered>>,
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
            remembered: OnceLock::new(),
        }
    }

    /// From here on, what this remembers is wiped as events say.
    pub(crate) fn wipes(&self, remembered: &Arc<Remembered>) {
        self.remembered.get_or_init(|| Arc::clone(remembered));
    }

    pub(crate) fn witness(&self) -> &Memory {
        &self.witness
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
        // Said again, now that it is verified: two witnesses at once tell the one what the other knew. Where they cannot be
        // told, they are with the next line.
        if let Some(last) = lines.last() {
            let _ = self.witness.remember(vec![last.clone()]).await;
        }
        self.set_witnessed(witnessed.number);
        if store.number < witnessed.number {
            return Err(RolledBack::Store.into());
        }
        self.catch_up(store, 0).await.map_err(|why| match why {
            // The store forked from what the witness remembers.
            Error::RolledBack(RolledBack::Mixed) => RolledBack::Store.into(),
            why => why,
        })?;
        self.complete().await
    }

    /// For `recover`: what the witness remembers and the store has lost, with the lines to write, and the fence row as it
    /// is.
    pub(crate) async fn lost(&self) -> Result<(Vec<(Line, Event)>, Option<Versioned>)> {
        let lines = self.witness.recall(1).await?;
        let witnessed = self.replay_into_memory(&lines)?;
        self.set_witnessed(witnessed.number);
        let fence = self.rows.get(FENCE).await?;
        let store = self.head_of(fence.as_ref())?;
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
        Ok((lost, fence))
    }

    /// Writes lost lines back, the fence row last, and only where it is still as it was when they were found lost: another
    /// process that recovers may have written more since, which must not go away again.
    ///
    /// The commit of the fence row says too that the store is being put right, so that from then on nobody takes it for one
    /// that is as it should be: whoever writes the store takes no line away.
    pub(crate) async fn write_back(&self, lost: &[(Line, Event)], fence: Option<&Versioned>) -> Result<()> {
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
        let store = self.head_of(fence)?;
        let (last, lines) = if let Some((line, _)) = lost.last() {
            let hash = *line.bytes.first_chunk().ok_or(Malformed::Length)?;
            (Head { number: line.number, hash }, store.number)
        } else {
            self.catch_up(store, 0).await?;
            if self.with(|state| state.course.recovering) {
                // An earlier attempt has written everything back, and has said so.
                return Ok(());
            }
            // Nobody knows what was away.
            (store, 0)
        };
        let event = Event::Restored { lines }.encode();
        let head = last.next(&self.key, &event);
        let mut batch = Batch::new()?;
        batch.put(&line_name(head.number), head.line(&event).bytes);
        batch.expect(FENCE, Expect::unchanged(fence));
        batch.put(FENCE, [&head.number.to_be_bytes()[..], &head.hash].concat());
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

    /// Of the rows of the keys, as bytes: what an event says of them, so that no older ones are believed.
    pub(crate) fn sum_of_keys(&self, ring: &[u8], lookup: &[u8]) -> [u8; 32] {
        let length = crate::wire::length(ring).to_be_bytes();
        *self.key.mac(&[label::RING, self.vault.bytes(), &length, ring, lookup])
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
        for (head, event) in &events {
            if head.number == progress.known.number.saturating_add(1) {
                state.apply(head.number, event);
                progress.known = *head;
            }
        }
        self.mark.store(state.mark.map_or(0, |day| u32::from(day.0).saturating_add(1)), Ordering::Release);
        self.known.store(progress.known.number, Ordering::Release);
        drop(state);
        drop(progress);
        if let Some(remembered) = self.remembered.get() {
            for (_, event) in &events {
                remembered.applied(event);
            }
        }
        Ok(())
    }

    fn progress(&self) -> Progress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_witnessed(&self, number: u64) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.witnessed = progress.witnessed.max(number);
    }

    /// Reads the fence row, and takes in what other processes have written.
    pub(crate) async fn refresh(&self) -> Result<Option<Versioned>> {
        let asked = self.known();
        let fence = self.rows.get(FENCE).await?;
        self.catch_up(self.head_of(fence.as_ref())?, asked).await?;
        Ok(fence)
    }

    /// Takes in what other processes have written up to `store`. `asked` is how many events were [known](Self::known) when
    /// the store was asked: a store that has fewer was put back, and what it says of others is as old.
    pub(crate) async fn catch_up(&self, store: Head, asked: u64) -> Result<()> {
        if store.number < asked {
            return Err(RolledBack::Store.into());
        }
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

    /// Every event that memory has, oldest first, with its number: read again from the store, page by page.
    pub(crate) async fn each(&self, mut see: impl FnMut(u64, &Event) + Send) -> Result<()> {
        let known = self.progress().known;
        let mut range = Range { start: line_name(1), end: line_name(known.number.saturating_add(1)) };
        let mut head = Head::start(&self.key, &self.vault);
        loop {
            let page = self.rows.page(range.clone(), 4096).await?;
            for (_, row) in &page.rows {
                head = self.check(head, head.number.saturating_add(1), &row.value)?;
                let (_, event) = row.value.split_first_chunk::<32>().ok_or(Malformed::Length)?;
                see(head.number, &Event::decode(event)?);
            }
            match page.next {
                Some(next) => range.start = next,
                None if head == known => return Ok(()),
                None => return Err(RolledBack::Mixed.into()),
            }
        }
    }

    /// Brings the witness up to what memory has, if it can be reached. True where it remembers all of it from here on.
    pub(crate) async fn tell(&self) -> bool {
        self.complete().await.is_ok() && self.witness.remembers() == Remembers::Lines
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
            let fence = self.refresh().await?;
            let mut batch = Batch::new()?;
            let lines = match self.stage(&mut batch, fence.as_ref(), events) {
                Err(Error::Busy) => continue,
                lines => lines?,
            };
            if self.rows.commit(batch).await? == Committed::Yes {
                self.committed(&lines)?;
                return Ok(self.tell().await);
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
