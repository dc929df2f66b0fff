//! Both stores keep what the port promises, and the file behaves as its documentation says.
#![cfg(all(feature = "testing", feature = "redb"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]
#![allow(clippy::arithmetic_side_effects, clippy::print_stderr, reason = "a test")]

use std::{
    fs, io,
    panic::catch_unwind,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use customer_vault::{
    error::StoreError,
    store::{Batch, CommitError, Expect, Key, MemoryStore, Page, Range, RedbStore, Store, Versioned},
    testing::{DiskOperation, FaultDisk, FaultStore, store_contract, store_contract_on_threads},
};
use pollster::block_on;

/// A directory of its own, gone afterwards.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("customer-vault-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("store.redb")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn put(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new().unwrap();
    batch.put(key, value.to_vec());
    batch
}

fn get(store: &impl Store, key: &[u8]) -> Option<Vec<u8>> {
    block_on(store.read(&[key.to_vec()])).unwrap().remove(0).map(|row| row.value)
}

fn why(store: Result<RedbStore, StoreError>) -> StoreError {
    store.map(drop).unwrap_err()
}

#[test]
fn memory_keeps_the_contract() {
    block_on(store_contract(MemoryStore::new));
    store_contract_on_threads(&MemoryStore::new(), |task| block_on(task));
}

#[test]
fn a_wrapped_store_keeps_the_contract() {
    block_on(store_contract(|| FaultStore::new(MemoryStore::new())));
    block_on(store_contract(|| {
        let store = FaultStore::new(MemoryStore::new());
        store.before_each(|_| Box::pin(customer_vault::testing::yield_now()));
        store
    }));
}

#[test]
fn redb_keeps_the_contract() {
    let place = Place::new("contract");
    let mut n = 0;
    block_on(store_contract(|| {
        n += 1;
        RedbStore::create(place.0.join(format!("{n}.redb"))).unwrap()
    }));
    store_contract_on_threads(&RedbStore::create(place.file()).unwrap(), |task| block_on(task));
}

/// Ways in which a store breaks its promises.
#[derive(Clone, Copy, Debug)]
enum Breach {
    ChecksNothing,
    WritesBeforeItChecks,
    HasOneVersionForAll,
    KeepsDeletedRows,
    SortsItsReads,
    StopsAtZeroBytes,
    IncludesTheEnd,
    SkipsAfterAPage,
    AlwaysHasANextPage,
    IgnoresTheLimit,
    CutsContents,
    TakesLongNames,
}

#[derive(Debug)]
struct Broken(MemoryStore, Breach);

impl Store for Broken {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        let mut keys = keys.to_vec();
        match self.1 {
            Breach::SortsItsReads => keys.sort(),
            Breach::StopsAtZeroBytes => keys.iter_mut().for_each(stop_at_zero),
            _ => {}
        }
        self.0.read(&keys).await
    }

    async fn scan(&self, mut range: Range, limit: usize) -> Result<Page, StoreError> {
        let end = range.end.clone();
        match self.1 {
            Breach::IncludesTheEnd if !end.is_empty() => range.end.push(0),
            Breach::IgnoresTheLimit => return self.0.scan(range, usize::MAX).await,
            _ => {}
        }
        let mut page = self.0.scan(range, limit).await?;
        match self.1 {
            Breach::SkipsAfterAPage => page.next.iter_mut().for_each(|next| next.push(0)),
            Breach::AlwaysHasANextPage => page.next = page.next.or(Some(end)),
            _ => {}
        }
        Ok(page)
    }

    async fn commit(&self, mut batch: Batch) -> Result<(), CommitError> {
        match self.1 {
            Breach::ChecksNothing => batch.expect.clear(),
            Breach::WritesBeforeItChecks => {
                let mut writes = batch.clone();
                writes.expect.clear();
                let checked = self.0.commit(Batch { writes: vec![], ..batch }).await;
                self.0.commit(writes).await?;
                return checked;
            }
            Breach::HasOneVersionForAll => {
                batch.nonce = [1; 16];
                let versions: Vec<_> = batch.expect.iter().map(|(key, _)| batch.version_of(key)).collect();
                for ((_, expect), same) in batch.expect.iter_mut().zip(versions) {
                    if let Expect::Version(version) = expect {
                        *version = same;
                    }
                }
            }
            Breach::KeepsDeletedRows => batch.writes.retain(|(_, value)| value.is_some()),
            Breach::StopsAtZeroBytes => batch.writes.iter_mut().for_each(|(key, _)| stop_at_zero(key)),
            Breach::CutsContents => {
                let values = batch.writes.iter_mut().filter_map(|(_, value)| value.as_mut());
                values.for_each(|value| value.truncate(65_536));
            }
            Breach::TakesLongNames => batch.writes.iter_mut().for_each(|(key, _)| key.truncate(64)),
            _ => {}
        }
        self.0.commit(batch).await
    }

    fn shared(&self) -> bool {
        false
    }
}

fn stop_at_zero(key: &mut Key) {
    let end = key.iter().position(|byte| *byte == 0).unwrap_or(key.len());
    key.truncate(end);
}

#[test]
fn the_contract_finds_what_is_broken() {
    for breach in [
        Breach::ChecksNothing,
        Breach::WritesBeforeItChecks,
        Breach::HasOneVersionForAll,
        Breach::KeepsDeletedRows,
        Breach::SortsItsReads,
        Breach::StopsAtZeroBytes,
        Breach::IncludesTheEnd,
        Breach::SkipsAfterAPage,
        Breach::AlwaysHasANextPage,
        Breach::IgnoresTheLimit,
        Breach::CutsContents,
        Breach::TakesLongNames,
    ] {
        let found = catch_unwind(|| block_on(store_contract(|| Broken(MemoryStore::new(), breach))));
        assert!(found.is_err(), "{breach:?} is not found");
    }
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let place = Place::new("reopen");
    let store = RedbStore::create(place.file()).unwrap();
    let mut version = Expect::Absent;
    for n in 0..100_u8 {
        let mut batch = put(b"counter", &[n]);
        batch.expect(b"counter", version).put(&[n], vec![n; 1000]);
        version = Expect::Version(batch.version_of(b"counter"));
        block_on(store.commit(batch)).unwrap();
    }
    drop(store);
    RedbStore::compact(place.file()).unwrap();
    let store = RedbStore::open_or_create(place.file()).unwrap();
    assert!(!store.shared());
    assert_eq!(get(&store, b"counter"), Some(vec![99]));
    let page = block_on(store.scan(Range::prefix(b""), 200)).unwrap();
    assert_eq!(page.rows.len(), 101);
    let mut batch = put(b"counter", &[100]);
    batch.expect(b"counter", version);
    block_on(store.commit(batch)).unwrap();
}

#[test]
fn what_was_handed_over_before_the_drop_is_carried_out() {
    let place = Place::new("handed-over");
    let store = RedbStore::create(place.file()).unwrap();
    for n in 0..100_u8 {
        drop(store.commit(put(&[n], &[n])));
    }
    drop(store);
    let store = RedbStore::open(place.file()).unwrap();
    assert_eq!(block_on(store.scan(Range::prefix(b""), 200)).unwrap().rows.len(), 100);
}

#[test]
fn abuse_39_a_second_handle_in_the_same_process_is_locked_out() {
    let place = Place::new("locked");
    let store = RedbStore::create(place.file()).unwrap();
    assert_eq!(why(RedbStore::open(place.file())), StoreError::Locked);
    assert_eq!(why(RedbStore::open_or_create(place.file())), StoreError::Locked);
    assert_eq!(RedbStore::compact(place.file()), Err(StoreError::Locked));
    block_on(store.commit(put(b"a", b"1"))).unwrap();
    drop(store);
    assert_eq!(get(&RedbStore::open(place.file()).unwrap(), b"a"), Some(b"1".to_vec()));
}

const OPEN_THIS: &str = "CUSTOMER_VAULT_TEST_OPEN";

#[test]
fn abuse_39_another_process_is_locked_out() {
    // The other process is this binary again, running this test alone.
    if let Some(path) = std::env::var_os(OPEN_THIS) {
        let code = match RedbStore::open(path) {
            Ok(_) => 20,
            Err(StoreError::Locked) => 21,
            Err(_) => 22,
        };
        std::process::exit(code);
    }
    let other = |path: &Path| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "abuse_39_another_process_is_locked_out"])
            .env(OPEN_THIS, path)
            .output()
            .unwrap()
            .status
            .code()
    };
    let place = Place::new("other-process");
    let store = RedbStore::create(place.file()).unwrap();
    assert_eq!(other(&place.file()), Some(21));
    drop(store);
    assert_eq!(other(&place.file()), Some(20));
}

#[test]
fn create_never_replaces_and_leaves_nothing_beside_it() {
    let place = Place::new("create");
    fs::write(place.file(), b"somebody's").unwrap();
    assert_eq!(why(RedbStore::create(place.file())), StoreError::Exists);
    assert_eq!(fs::read(place.file()).unwrap(), b"somebody's");
    fs::remove_file(place.file()).unwrap();
    assert_eq!(why(RedbStore::open(place.file())), StoreError::Io(io::ErrorKind::NotFound));
    drop(RedbStore::open_or_create(place.file()).unwrap());
    assert_eq!(why(RedbStore::create(place.file())), StoreError::Exists);
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1);
    let nowhere = place.0.join("no-such-directory").join("store.redb");
    assert_eq!(why(RedbStore::create(nowhere)), StoreError::Io(io::ErrorKind::NotFound));
}

#[test]
fn of_many_that_create_one_file_one_does() {
    let place = Place::new("race");
    let made: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| RedbStore::create(place.file()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
    assert!(made.iter().all(|made| !matches!(made, Err(error) if *error != StoreError::Exists)));
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new("mode");
    let _store = RedbStore::create(place.file()).unwrap();
    assert_eq!(fs::metadata(place.file()).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_file_that_is_no_store_is_foreign() {
    let place = Place::new("foreign");
    let text = b"SQLite format 3\0".repeat(1000);
    for content in [&b""[..], b"r", b"redb", &text, &vec![0; 100_000]] {
        fs::write(place.file(), content).unwrap();
        assert_eq!(why(RedbStore::open(place.file())), StoreError::Foreign, "{} bytes", content.len());
        assert_eq!(fs::read(place.file()).unwrap(), content, "and it is left as it was");
    }
    fs::remove_file(place.file()).unwrap();
    let table: redb::TableDefinition<'_, u64, u64> = redb::TableDefinition::new("somebody's");
    let database = redb::Database::create(place.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert(1, 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert_eq!(why(RedbStore::open(place.file())), StoreError::Foreign, "another program's redb file");
}

#[test]
fn abuse_08_another_version_of_the_layout_is_foreign() {
    let place = Place::new("version");
    drop(RedbStore::create(place.file()).unwrap());
    let table: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("customer-vault");
    let database = redb::Database::open(place.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert("format", [0_u8, 2].as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert_eq!(why(RedbStore::open(place.file())), StoreError::Foreign);
}

#[test]
fn abuse_07_a_truncated_file_is_an_error_and_no_panic() {
    let disk = FaultDisk::new();
    let store = disk.create().unwrap();
    for n in 0..50 {
        block_on(store.commit(put(&[n], &[n; 5000]))).unwrap();
    }
    let running = disk.bytes();
    drop(store);
    for whole in [disk.bytes(), running] {
        let lengths = [1, 8, 9, 100, 319, 320, 4095, 4096, 4097, 8192, whole.len() / 2, whole.len() - 1];
        for len in lengths {
            let store = FaultDisk::holding(whole[..len].to_vec()).open();
            let error = store.map(drop).unwrap_err();
            assert!(matches!(error, StoreError::Damaged | StoreError::Foreign), "{len} bytes: {error:?}");
        }
    }
}

/// Grouping is seen from outside: while one sync is held up, a hundred commits pile up, and share the next.
#[test]
fn what_waits_shares_one_transaction() {
    let disk = FaultDisk::new();
    let store = Arc::new(disk.create().unwrap());
    disk.pause();
    let first = store.commit(put(b"first", b""));
    disk.wait_until_paused();
    let others: Vec<_> = (0..100)
        .map(|n| {
            let mut batch = put(&[n], b"");
            // Each passes or fails alone.
            batch.expect(b"missing", if n % 10 == 0 { Expect::Version([1; 16]) } else { Expect::Absent });
            store.commit(batch)
        })
        .collect();
    disk.resume();
    block_on(first).unwrap();
    for (n, other) in others.into_iter().enumerate() {
        assert_eq!(block_on(other), if n % 10 == 0 { Err(CommitError::Conflict) } else { Ok(()) });
    }
    assert_eq!(store.transactions(), 2);
    let page = block_on(store.scan(Range::prefix(b""), 200)).unwrap();
    assert_eq!(page.rows.len(), 91);
}

#[test]
fn a_group_is_bounded() {
    let disk = FaultDisk::new();
    let store = disk.create().unwrap();
    disk.pause();
    let first = store.commit(put(b"first", b""));
    disk.wait_until_paused();
    let small: Vec<_> = (0..1024_u16).map(|n| store.commit(put(&n.to_be_bytes(), b""))).collect();
    let large: Vec<_> = (0..4).map(|n| store.commit(put(&[n, n, n], &vec![n; 5 << 20]))).collect();
    disk.resume();
    block_on(first).unwrap();
    small.into_iter().chain(large).for_each(|commit| block_on(commit).unwrap());
    // Two of 512, then two of two times 5 MiB.
    assert_eq!(store.transactions(), 5);
}

#[test]
fn checks_alone_need_no_transaction() {
    let disk = FaultDisk::new();
    let store = disk.create().unwrap();
    let operations = disk.operations();
    let mut check = Batch::new().unwrap();
    check.expect(b"a", Expect::Absent);
    block_on(store.commit(check)).unwrap();
    block_on(store.commit(Batch::new().unwrap())).unwrap();
    assert_eq!((store.transactions(), disk.operations()), (0, operations));
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.0).output());
    }
}

#[test]
fn abuse_38_a_full_disk_is_a_clear_error_and_nothing_is_lost() {
    let place = Place::new("full");
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&place.0).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: abuse_38 needs a small tmpfs, and mounting one is not allowed here");
        return;
    }
    let _mounted = Mounted(&place.0);
    let ballast = place.0.join("ballast");
    fs::write(&ballast, vec![1; 512 << 10]).unwrap();

    let store = RedbStore::create(place.file()).unwrap();
    let mut acknowledged = 0;
    let refused = loop {
        match block_on(store.commit(put(&[acknowledged], &vec![acknowledged; 100_000]))) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(acknowledged > 3);
    assert!(matches!(refused, CommitError::Unknown | CommitError::Failed(StoreError::Full)), "{refused:?}");
    assert_eq!(block_on(store.read(&[])), Err(StoreError::Full));
    assert_eq!(block_on(store.commit(put(b"x", b""))), Err(CommitError::Failed(StoreError::Full)));
    drop(store);

    fs::remove_file(&ballast).unwrap();
    let store = RedbStore::open(place.file()).unwrap();
    for n in 0..acknowledged {
        assert_eq!(get(&store, &[n]), Some(vec![n; 100_000]), "what was acknowledged is there");
    }
    let mut forget = Batch::new().unwrap();
    forget.delete(&[0]);
    block_on(store.commit(forget)).unwrap();
    assert_eq!(get(&store, &[0]), None);
}

#[test]
fn a_full_disk_at_any_operation_refuses_until_it_is_opened_again() {
    let disk = FaultDisk::new();
    let store = disk.create().unwrap();
    disk.fail_once_at(DiskOperation::Write, 0, io::ErrorKind::StorageFull);
    assert!(block_on(store.commit(put(b"a", b"1"))).is_err());
    assert_eq!(block_on(store.read(&[b"a".to_vec()])), Err(StoreError::Full));
    drop(store);
    let store = disk.open().unwrap();
    block_on(store.commit(put(b"a", b"2"))).unwrap();
}
