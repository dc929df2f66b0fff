//! The storage under redb, held twice: by redb, and by the repair that runs before it.

use std::{fmt, io, ops::Bound, sync::Arc};

use redb::{BackendError, StorageBackend};

/// A storage that redb owns while we keep a hand on it.
#[derive(Clone)]
pub(super) struct Device(Arc<dyn StorageBackend>);

impl Device {
    pub(super) fn new(backend: impl StorageBackend) -> Self {
        Device(Arc::new(backend))
    }

    /// Writes again what can be read, and syncs it.
    ///
    /// After a failed fsync the system may hold pages in its cache that it takes for written and that are not on the
    /// disk ("fsyncgate"; Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). The
    /// recovery would read them, find them intact and build on them. Once written again they are on the disk, or the
    /// sync fails again. A power failure during this leaves a mixture that the interrupted commit could have left,
    /// too.
    pub(super) fn write_again(&self) -> io::Result<()> {
        let mut block = vec![0; BLOCK];
        let len = self.0.len()?;
        let mut offset: u64 = 0;
        while offset < len {
            let left = usize::try_from(len.saturating_sub(offset)).unwrap_or(BLOCK).min(BLOCK);
            block.resize(left, 0);
            self.0.read(offset, &mut block)?;
            for page in block.chunks(PAGE) {
                // A page of a tree is never all zeros. Holes of a sparse file are, and filling them would take room
                // that a full disk does not have.
                if page.iter().any(|byte| *byte != 0) {
                    self.0.write(offset, page)?;
                }
                offset = offset.saturating_add(u64::try_from(page.len()).unwrap_or(u64::MAX));
            }
        }
        self.0.sync_data()
    }
}

const PAGE: usize = 4096;
const BLOCK: usize = 256 * PAGE;

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Device(..)")
    }
}

type Lock = Result<bool, BackendError>;

impl StorageBackend for Device {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock {
        self.0.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock {
        self.0.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock {
        self.0.query_lock_range(start, end)
    }
}
