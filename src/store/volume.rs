//! Which disk something lies on.

use std::{fs, path::Path};

/// A disk or partition, as the operating system numbers it while it runs. Two paths of one volume fail together, and are
/// stolen together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Volume(u64);

impl Volume {
    /// That of a file; where there is none, of its folder. `None` where neither is there, and on systems other than Unix.
    ///
    /// Subvolumes of one disk (btrfs, bind mounts apart) have numbers of their own: different volumes may be one disk.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let there = fs::metadata(path).or_else(|_| fs::metadata(folder.unwrap_or(Path::new("."))));
        there.ok().and_then(|there| device(&there)).map(Volume)
    }

    #[cfg(feature = "redb")]
    pub(crate) fn of_file(file: &fs::File) -> Option<Self> {
        file.metadata().ok().and_then(|there| device(&there)).map(Volume)
    }
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere there is none")]
fn device(there: &fs::Metadata) -> Option<u64> {
    Some(std::os::unix::fs::MetadataExt::dev(there))
}

#[cfg(not(unix))]
fn device(_there: &fs::Metadata) -> Option<u64> {
    None
}
