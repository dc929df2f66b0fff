//! Faults for the file keeper: an operation that fails once, a process that is killed, a disk that is full.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::keeper::file::disk::{Disk, Gate, Operation};
use crate::keeper::{Argon2Cost, FileKeeper, FileSecret, Serves};

/// A plan of faults. Clones share it; it belongs to the keepers that it made or opened.
///
/// Operations are counted from 0: creating a file, each half of a write, bringing a file or a folder to the disk,
/// renaming, cutting, removing. Reading and locking are not counted.
#[derive(Clone, Debug, Default)]
pub struct KeeperFaults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    trace: Vec<Operation>,
    fail: Option<usize>,
    kill: Option<usize>,
    full: bool,
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
        FileKeeper::create_on(self.disk(), path.as_ref(), secret, Serves::OneProcess)
    }

    /// [`FileKeeper::open`], under this plan.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn open(&self, path: impl AsRef<Path>, secret: FileSecret) -> Result<FileKeeper> {
        FileKeeper::open_on(self.disk(), path.as_ref(), secret, Argon2Cost::LIMIT)
    }

    /// [`FileKeeper::open_shared`], under this plan.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn open_shared(&self, path: impl AsRef<Path>, secret: FileSecret) -> Result<FileKeeper> {
        FileKeeper::open_shared_on(self.disk(), path.as_ref(), secret, Argon2Cost::LIMIT)
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

    /// Whether the disk is full: nothing can be created or written, all else works.
    pub fn disk_full(&self, full: bool) {
        self.plan().full = full;
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

    fn disk(&self) -> Disk {
        Disk::through(Arc::new(self.clone()))
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for KeeperFaults {
    fn pass(&self, operation: Operation) -> io::Result<()> {
        let mut plan = self.plan();
        let now = plan.trace.len();
        plan.trace.push(operation);
        if plan.full && matches!(operation, Operation::Create | Operation::Write) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if plan.fail == Some(now) || plan.kill.is_some_and(|from| from <= now) {
            return Err(io::ErrorKind::Other.into());
        }
        Ok(())
    }
}
