//! Whatever lies in the files of a keeper: opening them fails or gives a keeper, and takes no more memory than they are
//! long, a few times.
#![no_main]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use allocation_counter::measure;
use arbitrary::Arbitrary;
use customer_vault::Options;
use customer_vault::keeper::{FileKeeper, FileSecret, Keeper};
use customer_vault::testing::ephemeral;
use customer_vault::witness::{Line, Witness};
use libfuzzer_sys::fuzz_target;
use pollster::block_on;

#[derive(Arbitrary, Debug)]
enum Input {
    /// The key file alone, of whatever length.
    Key(Vec<u8>),
    /// The key file alone, with these two slots.
    Slots(Vec<u8>, Vec<u8>),
    /// Both files, of which the key file is a good one.
    Journal(Vec<u8>),
    /// The good files with bytes changed.
    Changed { key: Vec<(u16, u8)>, journal: Vec<(u16, u8)>, cut: Option<(bool, u16)> },
}

struct Good {
    folder: PathBuf,
    key: Vec<u8>,
    journal: Vec<u8>,
}

fn secret() -> FileSecret {
    FileSecret::key([7; 32].into())
}

static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("customer-vault-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("good");
    for name in ["good", "good.journal"] {
        let _ = fs::remove_file(folder.join(name));
    }
    let keeper = FileKeeper::create(&path, secret()).unwrap();
    block_on(async {
        // Any vault's id will do.
        let vault = ephemeral(Options::new()).await.unwrap();
        Keeper::bind(&keeper, vault.id()).await.unwrap();
        let first = keeper.candidate(0).await.unwrap();
        keeper.activate(1, first.id).await.unwrap();
        keeper.candidate(1).await.unwrap();
        for number in 1..=3 {
            let line = Line { number, bytes: vec![8; 20] };
            keeper.remember(vec![line]).await.unwrap();
        }
    });
    drop(keeper);
    let (key, journal) = (fs::read(&path).unwrap(), fs::read(folder.join("good.journal")).unwrap());
    Good { folder, key, journal }
});

fn put(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

const SLOT: usize = 320 << 10;

fn slots(contents: [Vec<u8>; 2]) -> Vec<u8> {
    contents
        .into_iter()
        .flat_map(|mut content| {
            content.resize(SLOT, 0);
            content
        })
        .collect()
}

/// Where there are two slots, every other change is in the second.
fn changed(good: &[u8], changes: &[(u16, u8)]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for (at, with) in changes {
        let at = usize::from(*at);
        let at = if good.len() == 2 * SLOT { at % 2 * SLOT + at / 2 } else { at % bytes.len().max(1) };
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= with;
        }
    }
    bytes
}

fuzz_target!(|input: Input| {
    let good = &*GOOD;
    let (mut key, mut journal) = (good.key.clone(), good.journal.clone());
    match input {
        Input::Key(bytes) => key = bytes,
        Input::Slots(first, second) => key = slots([first, second]),
        Input::Journal(bytes) => journal = bytes,
        Input::Changed { key: in_key, journal: in_journal, cut } => {
            (key, journal) = (changed(&key, &in_key), changed(&journal, &in_journal));
            match cut {
                Some((true, at)) => key.truncate(usize::from(at)),
                Some((false, at)) => journal.truncate(usize::from(at)),
                None => {}
            }
        }
    }
    let path = good.folder.join("key");
    put(&path, &key);
    put(&good.folder.join("key.journal"), &journal);
    let length = u64::try_from(key.len() + journal.len()).unwrap();
    let mut opened = None;
    let used = measure(|| opened = Some(FileKeeper::open(&path, secret())));
    assert!(used.bytes_max <= 64 * length + 65_536, "{} bytes for {length}", used.bytes_max);
    if let Some(Ok(keeper)) = opened {
        // What counts is authenticated: whatever opens is the good one. The journal may have lost a torn end.
        assert_eq!(block_on(keeper.held()).unwrap().len(), 2);
        let _ = block_on(keeper.recall(0)).unwrap();
    }
});
