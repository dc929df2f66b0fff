//! A disk that fails, and that forgets what was not synced.

use std::{
    fmt, io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

use super::medium::next;
use crate::error::StoreError;
use crate::store::RedbStore;

/// A kind of operation that changes a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskOperation {
    /// Writing some bytes.
    Write,
    /// Changing the length of the file.
    SetLen,
    /// Making what was written before durable.
    Sync,
}

/// Which of the writes that were not synced are on the disk after a power failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Survivors {
    /// None of them.
    None,
    /// All of them: as if the process had been killed and the machine had gone on.
    All,
    /// Each of them, a beginning of it, or nothing, by a pseudo-random sequence that starts from this number.
    Some(u64),
}

/// The storage of a [`RedbStore`], in memory, where the n-th operation can be made to fail. Clones are the same disk.
///
/// It keeps apart what can be read and what is durable. After a sync that failed, what was waiting for it can still
/// be read and will never become durable, later syncs notwithstanding, unless it is written again: so Linux behaves.
/// It has no locks: open one store at a time on it.
#[derive(Clone, Default)]
pub struct FaultDisk(Arc<Disk>);

#[derive(Default)]
struct Disk {
    state: Mutex<State>,
    resumed: Condvar,
}

#[derive(Clone, Default)]
struct State {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    operations: u64,
    plan: Option<Plan>,
    killed: bool,
    paused: bool,
    waiting: bool,
}

#[derive(Clone, Copy)]
struct Plan {
    left: u64,
    only: Option<DiskOperation>,
    failure: Failure,
}

#[derive(Clone, Copy)]
enum Failure {
    Once(io::ErrorKind),
    Kill,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl FaultDisk {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        FaultDisk::default()
    }

    /// Makes a store on it.
    ///
    /// # Errors
    ///
    /// Those of [`RedbStore::create`].
    pub fn create(&self) -> Result<RedbStore, StoreError> {
        RedbStore::create_on(Device(self.clone()))
    }

    /// Opens the store on it.
    ///
    /// # Errors
    ///
    /// Those of [`RedbStore::open`].
    pub fn open(&self) -> Result<RedbStore, StoreError> {
        RedbStore::open_on(Device(self.clone()))
    }

    /// How many operations it has been asked for, those that failed included.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The `nth` operation from now, counted from 0, fails; what comes after it works again.
    pub fn fail_once(&self, nth: u64, kind: io::ErrorKind) {
        self.state().plan = Some(Plan { left: nth, only: None, failure: Failure::Once(kind) });
    }

    /// The `nth` operation of this kind from now, counted from 0, fails; what comes after it works again.
    pub fn fail_once_at(&self, operation: DiskOperation, nth: u64, kind: io::ErrorKind) {
        self.state().plan = Some(Plan { left: nth, only: Some(operation), failure: Failure::Once(kind) });
    }

    /// The `nth` operation from now, counted from 0, is not carried out, and nothing is from there on: the process
    /// was killed, or the power failed. Go on with [`after_power_failure`](Self::after_power_failure).
    pub fn kill_at(&self, nth: u64) {
        self.state().plan = Some(Plan { left: nth, only: None, failure: Failure::Kill });
    }

    /// Whether [`kill_at`](Self::kill_at) has come to pass.
    #[must_use]
    pub fn killed(&self) -> bool {
        self.state().killed
    }

    /// Another disk, with what was durable on this one and what else survived of the writes since.
    #[must_use]
    pub fn after_power_failure(&self, survivors: Survivors) -> FaultDisk {
        let state = self.state();
        let mut bytes = state.durable.clone();
        let mut seed = match survivors {
            Survivors::Some(seed) => seed,
            Survivors::None | Survivors::All => 0,
        };
        for change in &state.unsynced {
            let change = match survivors {
                Survivors::None => None,
                Survivors::All => Some(change.clone()),
                Survivors::Some(_) => survive(change, next(&mut seed)),
            };
            if let Some(change) = change {
                change.apply(&mut bytes);
            }
        }
        FaultDisk::holding(bytes)
    }

    /// A copy of what can be read, as a machine that goes on would see it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.state().now.clone()
    }

    /// A disk with these bytes, all durable.
    #[must_use]
    pub fn holding(bytes: Vec<u8>) -> FaultDisk {
        let disk = FaultDisk::new();
        *disk.state() = State { now: bytes.clone(), durable: bytes, ..State::default() };
        disk
    }

    /// Lets the next sync wait until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.state().paused = true;
    }

    /// Waits until a sync waits.
    pub fn wait_until_paused(&self) {
        let mut state = self.state();
        while !state.waiting {
            state = self.0.resumed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets syncs go on.
    pub fn resume(&self) {
        self.state().paused = false;
        self.0.resumed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, operation: DiskOperation, change: Change) -> io::Result<()> {
        let mut state = self.state();
        state.step(operation)?;
        change.apply(&mut state.now);
        state.unsynced.push(change);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        while state.paused {
            state.waiting = true;
            self.0.resumed.notify_all();
            state = self.0.resumed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting = false;
        let outcome = state.step(DiskOperation::Sync);
        if state.killed {
            return outcome;
        }
        let waiting = std::mem::take(&mut state.unsynced);
        if outcome.is_ok() {
            for change in &waiting {
                change.apply(&mut state.durable);
            }
        }
        outcome
    }
}

impl State {
    fn step(&mut self, operation: DiskOperation) -> io::Result<()> {
        self.operations = self.operations.saturating_add(1);
        if self.killed {
            return Err(dead());
        }
        let Some(plan) = self.plan.as_mut().filter(|plan| plan.only.is_none_or(|only| only == operation))
        else {
            return Ok(());
        };
        let Some(left) = plan.left.checked_sub(1) else {
            let failure = plan.failure;
            self.plan = None;
            return Err(match failure {
                Failure::Once(kind) => kind.into(),
                Failure::Kill => {
                    self.killed = true;
                    dead()
                }
            });
        };
        plan.left = left;
        Ok(())
    }
}

fn dead() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::SetLen(len) => bytes.resize(*len, 0),
            Change::Write(offset, data) => {
                let end = offset.saturating_add(data.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if let Some(place) = bytes.get_mut(*offset..end) {
                    place.copy_from_slice(data);
                }
            }
        }
    }
}

/// The sector that a disk writes whole.
const SECTOR: usize = 512;

fn survive(change: &Change, random: u64) -> Option<Change> {
    match change {
        // File systems make the new length durable no later than the data beyond the old one.
        Change::SetLen(len) => Some(Change::SetLen(*len)),
        Change::Write(offset, data) => match random & 3 {
            0 => None,
            1 => {
                let sectors = u64::try_from(data.len().div_ceil(SECTOR)).unwrap_or(1);
                let kept =
                    random.checked_rem(sectors).and_then(|kept| usize::try_from(kept).ok()).unwrap_or(0);
                let kept = kept.saturating_mul(SECTOR);
                Some(Change::Write(*offset, data.iter().take(kept).copied().collect()))
            }
            _ => Some(change.clone()),
        },
    }
}

impl fmt::Debug for FaultDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("FaultDisk")
            .field("bytes", &state.now.len())
            .field("operations", &state.operations)
            .field("killed", &state.killed)
            .finish_non_exhaustive()
    }
}

/// What redb is given: kept private, so that redb's trait is no part of this crate's interface.
#[derive(Debug)]
struct Device(FaultDisk);

impl StorageBackend for Device {
    fn len(&self) -> io::Result<u64> {
        let state = self.0.state();
        if state.killed { Err(dead()) } else { u64::try_from(state.now.len()).map_err(|_| beyond()) }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.state();
        if state.killed {
            return Err(dead());
        }
        let start = usize::try_from(offset).map_err(|_| beyond())?;
        let place = state.now.get(start..start.saturating_add(out.len())).ok_or_else(beyond)?;
        out.copy_from_slice(place);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| beyond())?;
        self.0.change(DiskOperation::SetLen, Change::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|_| beyond())?;
        self.0.change(DiskOperation::Write, Change::Write(offset, data.to_vec()))
    }
}

fn beyond() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
