//! The folder, the volume, and a disk that is really full.
#![allow(clippy::print_stderr, reason = "what is skipped says so")]

use super::*;

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

    use super::*;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_in_which_others_may_replace_the_files_is_refused() {
        let folder = Folder::new();
        drop(bound(&folder.key()));
        let owner = fs::metadata(&folder.0).unwrap();
        let own_group = owner.gid() == owner.uid();
        for (mode, accepted) in [
            (0o700, true),
            (0o755, true),
            (0o777, false),
            (0o702, false),
            (0o1777, true), // as /tmp is
            (0o775, own_group),
        ] {
            set(&folder.0, mode);
            let expected = if accepted { None } else { Some(KeeperError::Exposed.into()) };
            assert_eq!(reopen(&folder.key()).err(), expected, "{mode:o}");
        }
        set(&folder.0, 0o755);
        let shared = FileKeeperOptions::new().shared().open(folder.key(), secret()).unwrap();
        set(&folder.path("k.journal"), 0o606);
        // An open handle looks at what it reads anew.
        fs::write(folder.path("k.journal"), b"").unwrap();
        assert_eq!(remember(&shared, 1), Err(KeeperError::Exposed));
    }

    #[test]
    fn a_key_file_is_not_made_in_such_a_folder() {
        let folder = Folder::new();
        set(&folder.0, 0o777);
        assert_eq!(FileKeeper::create(folder.key(), secret()).err(), Some(KeeperError::Exposed.into()));
        assert!(folder.names().is_empty());
        set(&folder.0, 0o700);
    }

    /// Only root can give files away.
    #[test]
    fn files_and_folders_of_somebody_else_are_refused() {
        let folder = Folder::new();
        drop(bound(&folder.key()));
        if !Path::new("/proc/self").exists() || chown(folder.key(), Some(54321), None).is_err() {
            eprintln!("skipped: this user cannot give a file away");
            return;
        }
        assert_eq!(reopen(&folder.key()).err(), Some(KeeperError::Exposed.into()));
        let me = fs::metadata("/proc/self").unwrap().uid();
        chown(folder.key(), Some(me), None).unwrap();
        drop(reopen(&folder.key()).unwrap());
        for path in [&folder.0, &folder.path("k.journal")] {
            chown(path, Some(54321), None).unwrap();
            assert_eq!(reopen(&folder.key()).err(), Some(KeeperError::Exposed.into()));
            chown(path, Some(me), None).unwrap();
        }
        // A group of somebody else's may not write to the folder, whatever its number.
        chown(&folder.0, Some(me), Some(54321)).unwrap();
        set(&folder.0, 0o775);
        assert_eq!(reopen(&folder.key()).err(), Some(KeeperError::Exposed.into()));
    }
}

/// A file system of its own, unmounted at the end.
#[cfg(target_os = "linux")]
struct Small(Folder);

#[cfg(target_os = "linux")]
impl Small {
    /// `None` where this user cannot mount.
    fn mounted(kib: u32) -> Option<Self> {
        use std::process::Command;
        let folder = Folder::new();
        let size = format!("size={kib}k,mode=700");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&folder.0).output();
        match done {
            Ok(done) if done.status.success() => Some(Small(folder)),
            _ => {
                eprintln!("skipped: this user cannot mount a file system");
                None
            }
        }
    }

    /// Takes all that is left.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.0.path("filler")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }
}

#[cfg(target_os = "linux")]
impl Drop for Small {
    fn drop(&mut self) {
        let done = std::process::Command::new("umount").arg(&self.0.0).status();
        assert!(done.is_ok_and(|done| done.success()) || std::thread::panicking());
    }
}

/// Not simulated: a file system without a free block.
#[cfg(target_os = "linux")]
#[test]
fn abuse_38_on_a_disk_without_a_free_block_roots_are_destroyed_and_the_forgotten_remembered() {
    let (Some(small), other) = (Small::mounted(2048), Folder::new()) else { return };
    let options = FileKeeperOptions::new().copy(small.0.path("c"));
    let keeper = options.create(other.key(), secret()).unwrap();
    bind(&keeper, VAULT).unwrap();
    let (one, two) = (candidate(&keeper, 0), candidate(&keeper, 0));
    small.fill();
    activate(&keeper, 1, one.id).unwrap();
    destroy(&keeper, two.id).unwrap();
    keeper.change_secret(FileSecret::key([1; 32].into())).unwrap();
    for epoch in 2..200 {
        candidate(&keeper, epoch);
    }
    let long = |number| Line { number, bytes: vec![7; 1000] };
    let say = |number| block_on(keeper.remember(vec![long(number)]));
    let full = (1..200).find(|number| say(*number).is_err()).unwrap();
    assert!(full > 60, "64 KiB are room for more than {full} lines");
    assert_eq!(say(full), Err(KeeperError::Copy));
    // A keeper that has its only copy there says what it is.
    assert_eq!(FileKeeper::create(small.0.path("k"), secret()).err(), Some(KeeperError::Full.into()));
    fs::remove_file(small.0.path("filler")).unwrap();
    say(full).unwrap();
    drop(keeper);
    let alone = FileKeeper::open(small.0.path("c"), FileSecret::key([1; 32].into())).unwrap();
    assert_eq!(recall(&alone), (1..=full).map(long).collect::<Vec<_>>());
    assert_eq!(held(&alone).len(), 199);
}

#[cfg(unix)]
#[test]
fn each_copy_says_on_which_volume_it_lies() {
    use crate::store::Volume;
    let folder = Folder::new();
    let keeper = bound(&folder.key());
    let here = Volume::of(&folder.0).unwrap();
    assert_eq!(Keeper::volumes(&keeper), [here]);
    assert_eq!(Witness::volumes(&keeper), [here]);
    drop(keeper);
    let options = FileKeeperOptions::new().copy(folder.path("c"));
    assert_eq!(Keeper::volumes(&options.open(folder.key(), secret()).unwrap()), [here, here]);
    let elsewhere = env::temp_dir();
    match Volume::of(&elsewhere).filter(|there| *there != here) {
        None => eprintln!("skipped: there is no second volume"),
        Some(there) => {
            let path = elsewhere.join(folder.0.file_name().unwrap());
            fs::create_dir(&path).unwrap();
            let options = FileKeeperOptions::new().copy(path.join("d"));
            assert_eq!(Keeper::volumes(&options.open(folder.key(), secret()).unwrap()), [here, there]);
            fs::remove_dir_all(&path).unwrap();
        }
    }
}
