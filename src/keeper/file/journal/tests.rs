use std::fs;
use std::path::Path;

use super::{HEADER, Journal, MAX_LINE, scan};
use crate::crypto::Prf;
use crate::error::{Error, KeeperError, Unsupported};
use crate::keeper::VaultId;
use crate::keeper::file::disk::Disk;
use crate::keeper::file::place::Names;
use crate::keeper::file::tests::Folder;
use crate::witness::Line;

const VAULT: VaultId = VaultId([5; 16]);
const KEY: [u8; 32] = [9; 32];

fn line(number: u64) -> Line {
    Line { number, bytes: format!("line {number}").into_bytes() }
}

fn lines(numbers: std::ops::RangeInclusive<u64>) -> Vec<Line> {
    numbers.map(line).collect()
}

fn names(folder: &Folder) -> Names {
    Names::of(&folder.path("k")).unwrap()
}

fn create(names: &Names) -> Result<Journal, KeeperError> {
    Journal::create(&Disk::default(), &[Ok(names.clone())], &KEY, VAULT)
}

fn open(names: &Names, least: u64) -> Result<Journal, Error> {
    Journal::open(&Disk::default(), &[Ok(names.clone())], &KEY, VAULT, least)
}

/// Three appends: lines 1 and 2, line 3, lines 4 to 6. The bytes, and where each append ends.
fn three(folder: &Folder) -> (Vec<u8>, [usize; 4]) {
    let names = names(folder);
    let mut journal = create(&names).unwrap();
    let mut ends = [HEADER; 4];
    for (end, numbers) in ends.iter_mut().skip(1).zip([1..=2, 3..=3, 4..=6]) {
        journal.append(lines(numbers)).unwrap();
        *end = usize::try_from(journal.good).unwrap();
    }
    let mut bytes = fs::read(&names.journal).unwrap();
    let room = bytes.split_off(ends[3]);
    assert!(room.len() >= 64 << 10 && room.iter().all(|byte| *byte == 0));
    (bytes, ends)
}

fn scanned(bytes: &[u8]) -> Result<Vec<Line>, Error> {
    scan(bytes, &Prf::new(&KEY), VAULT).map(|scan| scan.lines)
}

fn opened(path: &Path, bytes: &[u8], least: u64) -> Result<Journal, Error> {
    fs::write(path, bytes).unwrap();
    let names = Names::of(&path.with_extension("")).unwrap();
    open(&names, least)
}

#[test]
fn what_was_appended_is_recalled_after_reopening() {
    let folder = Folder::new();
    let (bytes, _) = three(&folder);
    let mut journal = opened(&names(&folder).journal, &bytes, 6).unwrap();
    for (from, expected) in [(0, 1..=6), (1, 1..=6), (4, 4..=6), (6, 6..=6)] {
        assert_eq!(journal.recall(from), lines(expected));
    }
    assert!(journal.recall(7).is_empty() && journal.recall(u64::MAX).is_empty());
    journal.append(lines(7..=8)).unwrap();
    let bytes = fs::read(&names(&folder).journal).unwrap();
    assert_eq!(scanned(&bytes).unwrap(), lines(1..=8));
}

#[test]
fn known_numbers_are_passed_over_and_gaps_refused() {
    let folder = Folder::new();
    let mut journal = create(&names(&folder)).unwrap();
    assert_eq!(journal.append(lines(2..=2)), Err(KeeperError::Damaged));
    journal.append(lines(1..=3)).unwrap();
    let other = Line { number: 2, bytes: vec![0xEE] };
    assert_eq!(journal.append(vec![other, line(4)]), Err(KeeperError::Foreign), "another history");
    journal.append(vec![line(2), line(3), line(4), line(4)]).unwrap();
    assert_eq!(journal.append(vec![line(5), line(7)]), Err(KeeperError::Damaged));
    assert_eq!(journal.recall(1), lines(1..=4));
    journal.append(Vec::new()).unwrap();
    assert_eq!(scanned(&fs::read(&names(&folder).journal).unwrap()).unwrap(), lines(1..=4));
}

#[test]
fn a_line_beyond_its_bound_is_refused_and_one_at_it_kept() {
    let folder = Folder::new();
    let mut journal = create(&names(&folder)).unwrap();
    let of = |number, length| Line { number, bytes: vec![1; length] };
    assert_eq!(journal.append(vec![of(1, MAX_LINE + 1)]), Err(KeeperError::Damaged));
    // More than one append holds.
    let many: Vec<_> = (1..=600).map(|number| of(number, MAX_LINE)).chain([of(601, 0)]).collect();
    journal.append(many.clone()).unwrap();
    assert_eq!(scanned(&fs::read(&names(&folder).journal).unwrap()).unwrap(), many);
}

#[test]
fn abuse_07_damage_before_the_last_append_is_an_error_and_in_it_cuts_it_off() {
    let folder = Folder::new();
    let (good, ends) = three(&folder);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let result = scanned(&bytes);
            if at < ends[2] {
                assert!(result.is_err(), "byte {at}, bit {bit}");
            } else {
                assert_eq!(result.unwrap(), lines(1..=3), "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn abuse_07_at_every_length_what_is_whole_is_kept() {
    let folder = Folder::new();
    let (good, ends) = three(&folder);
    for length in 0..good.len() {
        let result = scanned(&good[..length]);
        match ends.iter().filter(|end| **end <= length).count() {
            0 => assert_eq!(result.err(), Some(KeeperError::Damaged.into()), "{length}"),
            1 => assert!(result.unwrap().is_empty(), "{length}"),
            2 => assert_eq!(result.unwrap(), lines(1..=2), "{length}"),
            _ => assert_eq!(result.unwrap(), lines(1..=3), "{length}"),
        }
    }
}

#[test]
fn abuse_07_a_torn_tail_is_cut_off_and_appending_goes_on() {
    let folder = Folder::new();
    let (good, _) = three(&folder);
    let path = names(&folder).journal;
    for more in 1..=64 {
        for fill in [0, 1, 0xFF] {
            let bytes = [good.as_slice(), &vec![fill; more]].concat();
            let mut journal = opened(&path, &bytes, 6).unwrap();
            let left = fs::read(&path).unwrap();
            assert!(left.starts_with(&good) && left[good.len()..].iter().all(|byte| *byte == 0));
            journal.append(lines(7..=7)).unwrap();
            drop(journal);
            assert_eq!(scanned(&fs::read(&path).unwrap()).unwrap(), lines(1..=7));
        }
    }
}

#[test]
fn abuse_08_lengths_that_lie_take_no_memory() {
    let folder = Folder::new();
    let (good, ends) = three(&folder);
    for length in [0, 7, 8, 15, 1 << 31, u32::MAX] {
        let mut bytes = good.clone();
        bytes[ends[1]..ends[1] + 4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(scanned(&bytes).err(), Some(KeeperError::Damaged.into()), "{length}");
    }
    let endless = [good.as_slice(), &vec![1; (1 << 20) + 21]].concat();
    assert_eq!(scanned(&endless).err(), Some(KeeperError::Damaged.into()), "longer than any append");
}

#[test]
fn fewer_lines_than_the_key_file_has_seen_are_damage() {
    let folder = Folder::new();
    let (good, ends) = three(&folder);
    let path = names(&folder).journal;
    assert!(opened(&path, &good[..ends[2]], 3).is_ok());
    for (length, least) in [(ends[2], 4), (ends[2] + 9, 4), (ends[0], 1), (0, 0)] {
        let result = opened(&path, &good[..length], least);
        assert_eq!(result.err(), Some(KeeperError::Damaged.into()));
        assert_eq!(fs::read(&path).unwrap().len(), length, "and nothing was cut");
    }
    fs::remove_file(&path).unwrap();
    let missing = open(&names(&folder), 0);
    assert_eq!(missing.err(), Some(KeeperError::Damaged.into()));
}

#[test]
fn appends_left_out_swapped_or_repeated_are_damage() {
    let folder = Folder::new();
    let (good, ends) = three(&folder);
    let part = |index: usize| &good[ends[index]..ends[index + 1]];
    let header = &good[..HEADER];
    for bytes in [
        [header, part(1), part(2)].concat(),
        [header, part(0), part(2), part(1)].concat(),
        [header, part(1), part(0), part(2)].concat(),
    ] {
        assert_eq!(scanned(&bytes).err(), Some(KeeperError::Damaged.into()));
    }
    // The same append twice at the end: the second fits nowhere, and is cut off like any tail.
    assert_eq!(scanned(&[&good, part(2)].concat()).unwrap(), lines(1..=6));
}

#[test]
fn another_vaults_key_or_version_is_told_apart() {
    let folder = Folder::new();
    let (good, _) = three(&folder);
    let with = |key: &[u8; 32], vault| scan(&good, &Prf::new(key), vault).err();
    assert_eq!(with(&KEY, VaultId([6; 16])), Some(KeeperError::Foreign.into()));
    assert_eq!(with(&[8; 32], VAULT), Some(KeeperError::Damaged.into()));
    let mut newer = good.clone();
    newer[23] = b'2';
    assert_eq!(scanned(&newer).err(), Some(Unsupported::Version.into()));
}

#[test]
fn lines_of_another_time_are_not_written_over() {
    let folder = Folder::new();
    let (good, ends) = three(&folder);
    let names = names(&folder);
    let create = || create(&names).err();
    assert_eq!(create(), Some(KeeperError::Exists));
    assert!(fs::read(&names.journal).unwrap().starts_with(&good));
    for length in 0..=ends[0] {
        fs::write(&names.journal, &good[..length]).unwrap();
        assert_eq!(create(), None, "a header that a crash cut short");
        let left = fs::read(&names.journal).unwrap();
        assert!(left.starts_with(&good[..HEADER]) && left[HEADER..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn room_of_any_length_is_no_line_and_no_damage() {
    let folder = Folder::new();
    let (good, _) = three(&folder);
    for more in [0, 1, 3, 4, 20, 64 << 10, 5 << 20] {
        assert_eq!(scanned(&[good.as_slice(), &vec![0; more]].concat()).unwrap(), lines(1..=6));
    }
}

/// Sectors are written in any order: a beginning that is still zeros is no end where something follows it.
#[test]
fn abuse_07_an_append_of_which_any_sectors_are_missing_is_cut_off() {
    let folder = Folder::new();
    let names = names(&folder);
    let mut journal = create(&names).unwrap();
    journal.append(lines(1..=1)).unwrap();
    let before = usize::try_from(journal.good).unwrap();
    journal.append((2..=60).map(|number| Line { number, bytes: vec![0xEE; 60] }).collect()).unwrap();
    let good = fs::read(&names.journal).unwrap();
    let end = usize::try_from(journal.good).unwrap();
    let sectors: Vec<_> = (before..end).step_by(512).collect();
    for missing in 1..1_u32 << sectors.len() {
        let mut bytes = good.clone();
        for (_, sector) in sectors.iter().enumerate().filter(|(at, _)| missing >> at & 1 == 1) {
            bytes[*sector..(*sector + 512).min(end)].fill(0);
        }
        assert_eq!(scanned(&bytes).unwrap(), lines(1..=1), "{missing:b}");
    }
}
