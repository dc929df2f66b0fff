//! What of some files is on the disk, and what is only in the system's cache.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::keeper::file::disk::{Asked, Operation};

/// The sector that a disk writes whole.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Medium(BTreeMap<PathBuf, Image>);

#[derive(Debug, Default)]
struct Image {
    durable: Vec<u8>,
    /// Written since, in order.
    waiting: Vec<(usize, Vec<u8>)>,
    /// Its name is on the disk.
    named: bool,
}

impl Medium {
    /// Before it is carried out. A sync that fails loses what waits for it: so Linux behaves.
    pub(super) fn take(&mut self, asked: &Asked<'_>, fails: bool) {
        if asked.operation == Operation::SyncFolder {
            for (path, image) in self.0.iter_mut().filter(|_| !fails) {
                image.named |= path.parent() == Some(asked.path);
            }
            return;
        }
        if fails && asked.operation != Operation::Sync {
            return;
        }
        let image = self.0.entry(asked.path.to_owned()).or_insert_with(|| {
            let there = fs::read(asked.path).ok();
            Image { named: there.is_some(), durable: there.unwrap_or_default(), waiting: Vec::new() }
        });
        match asked.operation {
            Operation::Write | Operation::Extend => {
                let offset = usize::try_from(asked.offset).unwrap_or(usize::MAX);
                image.waiting.push((offset, asked.bytes.to_vec()));
            }
            Operation::Sync => {
                for (offset, bytes) in std::mem::take(&mut image.waiting).into_iter().filter(|_| !fails) {
                    put(&mut image.durable, offset, &bytes);
                }
            }
            Operation::Create | Operation::SyncFolder => {}
        }
    }

    pub(super) fn write_to(&self, mut seed: u64, to: &Path) -> io::Result<()> {
        for (path, image) in &self.0 {
            let mut bytes = image.durable.clone();
            for (offset, written) in &image.waiting {
                let mut at = *offset;
                let mut left = written.as_slice();
                while !left.is_empty() {
                    let within = SECTOR.saturating_sub(at.checked_rem(SECTOR).unwrap_or(0)).min(left.len());
                    let (sector, rest) = left.split_at(within);
                    if next(&mut seed) & 1 == 1 {
                        put(&mut bytes, at, sector);
                    }
                    (at, left) = (at.saturating_add(within), rest);
                }
            }
            let Some(name) = path.file_name().filter(|_| image.named || next(&mut seed) & 1 == 1) else {
                continue;
            };
            let mut options = OpenOptions::new();
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.write(true).create(true).truncate(true).open(to.join(name))?.write_all(&bytes)?;
        }
        Ok(())
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, part: &[u8]) {
    let end = offset.saturating_add(part.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(place) = bytes.get_mut(offset..end) {
        place.copy_from_slice(part);
    }
}

/// `SplitMix64` (Steele, Lea, Flood, 2014): repeatable, and not for secrets.
pub(super) fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
