//! The file system, as far as the file keeper needs it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::KeeperError;

/// What a fault can stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    /// Over what is there: it needs no room, where the file system writes in place.
    Write,
    /// Beyond the end of the file.
    Extend,
    Sync,
    SyncFolder,
}

/// An operation before it is carried out.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "redb"), allow(dead_code, reason = "only the disk of tests looks at all of it"))]
pub(crate) struct Asked<'a> {
    pub(crate) operation: Operation,
    pub(crate) path: &'a Path,
    /// Where it writes, and what.
    pub(crate) offset: u64,
    pub(crate) bytes: &'a [u8],
}

/// Asked before every operation that changes something. Only tests have one.
pub(crate) trait Gate: Send + Sync + std::fmt::Debug {
    fn pass(&self, asked: &Asked<'_>) -> io::Result<()>;
}

/// The file system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Option<Arc<dyn Gate>>);

impl Disk {
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn through(gate: Arc<dyn Gate>) -> Self {
        Disk(Some(gate))
    }

    fn pass(&self, operation: Operation, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |gate| gate.pass(&Asked { operation, path, offset, bytes }))
    }

    /// For reading and writing.
    pub(super) fn open(&self, path: &Path) -> io::Result<Open> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Open { disk: self.clone(), path: path.to_owned(), file })
    }

    /// The same; made for the owner only where it is not there.
    pub(super) fn open_or_create(&self, path: &Path) -> io::Result<Open> {
        match self.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            there => return there,
        }
        self.pass(Operation::Create, path, 0, &[])?;
        let mut options = OpenOptions::new();
        let file = for_owner(options.read(true).write(true).create(true).truncate(false)).open(path)?;
        Ok(Open { disk: self.clone(), path: path.to_owned(), file })
    }

    /// Without it the name of a new file is not durable (POSIX says nothing of the folder when a file is synced).
    pub(super) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.pass(Operation::SyncFolder, folder, 0, &[])?;
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }
}

/// An open file. It is opened before it is written, and synced through the same handle: so the system tells this handle
/// of every write that failed, also of one that fails late.
#[derive(Debug)]
pub(super) struct Open {
    disk: Disk,
    path: PathBuf,
    pub(super) file: File,
}

impl Open {
    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // Two operations under a test, so that it can stop between the halves: a torn write.
        let half = if self.disk.0.is_some() { bytes.len().div_ceil(2) } else { bytes.len() };
        let (first, second) = bytes.split_at(half);
        self.write_part(offset, first)?;
        if second.is_empty() { Ok(()) } else { self.write_part(offset.saturating_add(length(half)), second) }
    }

    fn write_part(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let within = offset.saturating_add(length(bytes.len())) <= self.length()?;
        let operation = if within { Operation::Write } else { Operation::Extend };
        self.disk.pass(operation, &self.path, offset, bytes)?;
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.write_all(bytes)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk.pass(Operation::Sync, &self.path, 0, &[])?;
        self.file.sync_all()
    }

    /// At most `limit` bytes from `offset` on.
    pub(super) fn read(&self, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length(limit)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

pub(super) fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

const ZEROS: [u8; 4096] = [0; 4096];

/// Up to the last byte that is not zero.
pub(super) fn trimmed(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let Some((before, page)) = rest.split_last_chunk()
        && *page == ZEROS
    {
        rest = before;
    }
    let end = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
    rest.get(..end).unwrap_or_default()
}

/// Looks no further than to the first byte that is not zero, or the page it is in.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROS.len()).all(|page| ZEROS.starts_with(page))
}

#[cfg(unix)]
fn for_owner(options: &mut OpenOptions) -> &mut OpenOptions {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600)
}

#[cfg(not(unix))]
fn for_owner(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// Whether somebody else can put back an older state: by the file's mode, as its owner, or by its folder. Where there is
/// no file yet, by the folder.
#[cfg(unix)]
pub(super) fn exposed(file: Option<&File>, folder: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    // Who runs this. Without /proc nobody can be asked, short of unsafe code.
    let me = fs::metadata("/proc/self").ok().map(|me| me.uid());
    let foreign = |owner: u32| owner != 0 && me.is_some_and(|me| me != owner);
    if let Some(file) = file {
        let file = file.metadata()?;
        if file.mode() & 0o022 != 0 || foreign(file.uid()) {
            return Ok(true);
        }
    }
    // In a sticky folder nobody takes another's file away. A group of one's own has the number of its user, by the
    // convention of Debian and Red Hat; their umask leaves new folders writable for it.
    let folder = fs::metadata(folder)?;
    let others = folder.mode() & 0o002 != 0 || folder.mode() & 0o020 != 0 && folder.gid() != folder.uid();
    Ok(foreign(folder.uid()) || others && folder.mode() & 0o1000 == 0)
}

#[cfg(not(unix))]
pub(super) fn exposed(_file: Option<&File>, _folder: &Path) -> io::Result<bool> {
    Ok(false)
}

/// What the operating system said, without its text: that may name the path.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn said(error: io::Error) -> KeeperError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => KeeperError::Full,
        io::ErrorKind::NotFound => KeeperError::Missing,
        io::ErrorKind::AlreadyExists => KeeperError::Exists,
        _ => KeeperError::Io,
    }
}
