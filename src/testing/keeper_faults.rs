//! Faults for the file keeper: an operation that fails once, a process that is killed, a disk that is full.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::medium::Medium;
use crate::error::Result;
use crate::keeper::file::disk::{Asked, Disk, Gate, Operation};
use crate::keeper::{FileKeeper, FileKeeperOptions, FileSecret};

/// A plan of faults. Clones share it; it belongs to the keepers that it made or opened.
///
/// Operations are counted from 0: creating a file, each half of a write, bringing a file or a folder to the disk. Reading
/// and locking are not counted.
#[derive(Clone, Debug, Default)]
pub struct KeeperFaults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    trace: Vec<Operation>,
    fail: Option<usize>,
    kill: Option<usize>,
    full: bool,
    medium: Medium,
}

impl KeeperFaults {
    /// No fault, until one is asked for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// [`FileKeeper::create`], under this plan.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn create(&self, path: impl AsRef<Path>, secret: FileSecret) -> Result<FileKeeper> {
        self.under(FileKeeperOptions::new()).create(path, secret)
    }

    /// [`FileKeeper::open`], under this plan.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn open(&self, path: impl AsRef<Path>, secret: FileSecret) -> Result<FileKeeper> {
        self.under(FileKeeperOptions::new()).open(path, secret)
    }

    /// The same options, under this plan.
    #[must_use]
    pub fn under(&self, options: FileKeeperOptions) -> FileKeeperOptions {
        options.on(Disk::through(Arc::new(self.clone())))
    }

    /// How many operations there have been.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.plan().trace.len()
    }

    /// The operation after `n` more fails; what follows works.
    pub fn fail_once(&self, n: usize) {
        let mut plan = self.plan();
        plan.fail = Some(plan.trace.len().saturating_add(n));
    }

    /// The operation after `n` more fails, and so do all that follow, as if the process had ended there.
    pub fn kill(&self, n: usize) {
        let mut plan = self.plan();
        plan.kill = Some(plan.trace.len().saturating_add(n));
    }

    /// Whether the disk is full: nothing can be created or made longer, all else works.
    pub fn disk_full(&self, full: bool) {
        self.plan().full = full;
    }

    /// Writes into the folder `to` what is left of the files if the power fails now: what was brought to the disk, and of
    /// what was written since, each sector of 512 bytes or not, by a pseudo-random sequence that starts from `seed`. What a
    /// sync failed to bring to the disk is never there, though it can still be read. Files are told apart by their
    /// names alone.
    ///
    /// # Errors
    ///
    /// Where they cannot be written.
    pub fn power_failure(&self, seed: u64, to: &Path) -> io::Result<()> {
        self.plan().medium.write_to(seed, to)
    }

    /// No fault any more.
    pub fn clear(&self) {
        let mut plan = self.plan();
        (plan.fail, plan.kill, plan.full) = (None, None, false);
    }

    /// What was done, in order.
    #[cfg(test)]
    pub(crate) fn trace(&self) -> Vec<Operation> {
        self.plan().trace.clone()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for KeeperFaults {
    fn pass(&self, asked: &Asked<'_>) -> io::Result<()> {
        let operation = asked.operation;
        let mut plan = self.plan();
        let now = plan.trace.len();
        plan.trace.push(operation);
        if plan.full && matches!(operation, Operation::Create | Operation::Extend) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if plan.kill.is_some_and(|from| from <= now) {
            return Err(io::ErrorKind::Other.into());
        }
        let fails = plan.fail == Some(now);
        plan.medium.take(asked, fails);
        if fails { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }
}
