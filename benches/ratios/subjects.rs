//! What each operation costs among a thousand to a million subjects, on redb with a key file, everything durable; then
//! the same with sealed values of each of the million, kept by the vault.

use std::time::Duration;

use customer_vault::keeper::{FileKeeper, FileSecret};
use customer_vault::store::{Range, Store};
use customer_vault::testing::{test_ground, tester};
use customer_vault::{Consent, Error, Forget, Options, Sealed, SubjectId, Token, Vault};
use pollster::block_on;

use crate::common::bare::{Aes256Gcm, Primitive};
use crate::common::disk::{BareRedb, Clocked, Folder, Rows, rows_of};
use crate::common::rounds::{Beside, median, once};
use crate::common::table::{Report, short, time};
use crate::common::worlds::{Note2, Shipping, note, token};
use crate::common::{asked, measured};

/// Subjects, or records, that are handed over in one call.
const CALL: usize = 100_000;

struct World {
    subjects: usize,
    vault: Vault,
    store: Clocked,
    token: Token,
    file: String,
}

fn id(number: usize) -> SubjectId {
    SubjectId::new(&format!("customer {number}")).unwrap()
}

impl World {
    fn new(folder: &Folder, subjects: usize, report: &mut Report) -> Self {
        let (me, why) = (tester(), test_ground());
        let file = format!("{subjects}.redb");
        let store = Clocked::new(&folder.join(&file));
        let secret = FileSecret::generate().unwrap().0;
        let keeper = FileKeeper::create(folder.join(&format!("{subjects}.keys")), secret).unwrap();
        let options = Options::new().record::<Note2>();
        let vault = block_on(options.create(store.clone(), keeper.clone(), keeper)).unwrap();
        let (peak, took) = peak_of(|| {
            for first in (0..subjects).step_by(CALL) {
                let newcomers: Vec<(_, [Consent; 0])> =
                    (first..subjects.min(first + CALL)).map(|number| (id(number), [])).collect();
                assert!(block_on(vault.enroll_many(&newcomers, &me, &why)).iter().all(Result::is_ok));
            }
        });
        let (rows, bytes) = count(&store);
        report.figure(
            &format!("{subjects} subjects"),
            &format!(
                "enrolled in {}; {} rows and {} B a subject, {} MB in the file; at most {peak} of memory",
                time(nanos(took)),
                short(rows as f64 / subjects as f64),
                short(bytes as f64 / subjects as f64),
                short(folder.size(&file) as f64 / 1e6),
            ),
        );
        let token = token(&vault);
        World { subjects, vault, store, token, file }
    }

    /// Spread over all, another one each time.
    fn nth(&self, number: usize, of: usize) -> SubjectId {
        id(number * (self.subjects / of.min(self.subjects)) % self.subjects)
    }

    fn unlock(&self, id: &SubjectId) {
        match block_on(self.vault.unlock::<Shipping>(&self.token, id)) {
            // Some were forgotten above.
            Ok(_) | Err(Error::Erased(_)) => {}
            Err(why) => panic!("{why}"),
        }
    }

    /// A subject that was not asked for, beyond the commit of the log, beside one read of the rows of others.
    fn cold(&self) -> Beside {
        let rounds = if measured() { 200 } else { 3 };
        let all = 2 * rounds + 1;
        let seen = self.store.seen(|| (0..rounds).for_each(|round| self.unlock(&self.nth(2 * round, all))));
        let most = seen.reads.iter().map(Vec::len).max().unwrap();
        let ways: Vec<_> = seen.reads.into_iter().filter(|keys| keys.len() == most).collect();
        // What redb keeps of the file in memory is now other rows.
        pages(&self.store, 200_000_000, |_, _| {});
        let (ours, reads) = (0..rounds)
            .map(|round| {
                let id = self.nth(2 * round + 1, all);
                let unlock = self.store.beyond_commits(|| self.unlock(&id));
                (unlock, once(|| block_on(self.store.inner().read(&ways[round % ways.len()])).unwrap()).1)
            })
            .unzip();
        Beside { ours: nanos(median(ours)), limit: nanos(median(reads)) }
    }

    fn hot(&self) -> Duration {
        let rounds = if measured() { 200 } else { 3 };
        let id = self.nth(1, 7);
        self.unlock(&id);
        median((0..rounds).map(|_| self.store.beyond_commits(|| self.unlock(&id))).collect())
    }

    /// For each of a thousand that are unlocked together, the log's entry included.
    fn many(&self) -> f64 {
        let ids: Vec<_> = (0..1000.min(self.subjects)).map(|number| self.nth(number, 1000)).collect();
        let unlock = || block_on(self.vault.unlock_many::<Shipping>(&self.token, &ids)).unwrap();
        nanos(median((0..5).map(|_| once(unlock).1).collect())) / ids.len() as f64
    }

    fn forget_and_shred(&self, one: &SubjectId) -> Duration {
        let (me, why) = (tester(), test_ground());
        let ((), took) = once(|| {
            block_on(self.vault.forget(one, Forget::by(&me, &why).without_grace())).unwrap();
            assert_eq!(block_on(self.vault.shred(&me, &why)).unwrap().subjects, 1);
        });
        took
    }

    /// Rows, their bytes, and commits of forgetting and shredding the last, who was not chosen before.
    fn writes_of_a_shred(&self) -> String {
        let seen = self.store.seen(|| {
            self.forget_and_shred(&id(self.subjects - 1));
        });
        let rows: Rows = seen.commits.iter().flat_map(rows_of).collect();
        let bytes: usize = rows.iter().map(|(name, row)| name.len() + row.len()).sum();
        format!("{} rows, {} B, in {} commits", rows.len(), bytes, seen.commits.len())
    }
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// Goes through the rows until it has seen so many bytes.
fn pages(store: &Clocked, most: usize, mut each: impl FnMut(&[u8], usize)) {
    let (mut range, mut seen) = (Range { start: Vec::new(), end: vec![0xff; 64] }, 0);
    while seen < most {
        let page = block_on(store.scan(range.clone(), 1000)).unwrap();
        for (key, row) in &page.rows {
            let bytes = key.len() + 16 + row.value.len();
            seen += bytes;
            each(key, bytes);
        }
        let Some(next) = page.next else { return };
        range.start = next;
    }
}

/// Rows and their bytes: name, version and content.
fn count(store: &Clocked) -> (usize, usize) {
    let mut of = (0, 0);
    pages(store, usize::MAX, |_, bytes| of = (of.0 + 1, of.1 + bytes));
    of
}

/// The most memory that the process had meanwhile, where the system tells.
fn peak_of(work: impl FnOnce()) -> (String, Duration) {
    let forgotten = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let ((), took) = once(work);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    let peak = kib
        .filter(|_| forgotten)
        .map_or("an unknown size".into(), |kib: f64| format!("{} MB", short(kib / 1e3)));
    (peak, took)
}

/// A table of wrapped keys, one for each subject, read, opened, wrapped under another key and written again: what makes
/// older copies useless without a tree.
fn rewrap(folder: &Folder, keys: usize) -> Duration {
    let bare = BareRedb::new(&folder.join(&format!("flat-{keys}.redb")));
    let [old, new] = [1, 2].map(|byte| Aes256Gcm::prepare(&[byte; 32]));
    let wrap = |cipher: &Aes256Gcm, name: &[u8], mut key: [u8; 32]| {
        let nonce: [u8; 16] = name.try_into().unwrap();
        let tag = cipher.seal(&nonce, name, &mut key);
        [&nonce[..12], &key, &tag].concat()
    };
    let name = |number: usize| [(number as u64).to_be_bytes(), [0; 8]].concat();
    let rows: Rows = (0..keys).map(|number| (name(number), wrap(&old, &name(number), [3; 32]))).collect();
    bare.commit(&rows);
    let rewrite = || {
        bare.rewrite(|name, row| {
            let mut key: [u8; 32] = row[12..44].try_into().unwrap();
            old.open(&name.try_into().unwrap(), name, &mut key, row[44..].try_into().unwrap());
            wrap(&new, name, key)
        });
    };
    once(rewrite).1
}

pub fn run(report: &mut Report) {
    let folder = Folder::new("subjects");
    let most = asked("SUBJECTS", if measured() { 1_000_000 } else { 100 });
    let first = most.min(1000);
    let sizes = std::iter::successors(Some(first), |n| Some(n * 10)).take_while(|n| *n <= most);
    let worlds: Vec<World> = sizes.map(|n| World::new(&folder, n, report)).collect();
    for world in &worlds {
        let n = world.subjects;
        let (cold, hot, many) = (world.cold(), nanos(world.hot()), world.many());
        let job = format!("unlock, cold, one of {n}, beyond its durable log entry");
        report.at_most(&job, "one read of as many rows of the same kind", cold, 3.0);
        report.figure(&format!("unlock, again, one of {n}, beyond its durable log entry"), &time(hot));
        report.figure(&format!("unlock, 1,000 of {n} together, each, log entry included"), &time(many));
        report.point("subjects", "unlock, cold", n, cold);
        report.point("subjects", "unlock, again", n, Beside { ours: hot, limit: cold.limit });
        report.point("subjects", "unlock, of 1,000 together", n, Beside { ours: many, limit: cold.limit });
    }
    let rounds = if measured() { 15 } else { 2 };
    let mut times = vec![Vec::new(); worlds.len()];
    for round in 0..rounds {
        for (world, times) in worlds.iter().zip(&mut times) {
            times.push(world.forget_and_shred(&world.nth(round, rounds)));
        }
    }
    let times: Vec<f64> = times.into_iter().map(|times| nanos(median(times))).collect();
    let few = format!("one of {first}");
    for (world, ours) in worlds.iter().zip(&times) {
        report.figure(
            &format!("forget and shred one of {} writes", world.subjects),
            &world.writes_of_a_shred(),
        );
        let flat = nanos(rewrap(&folder, world.subjects));
        report.point("subjects", "forget and shred", world.subjects, Beside { ours: *ours, limit: flat });
        if world.subjects == most {
            let job = format!("forget and shred one of {most}, durable");
            report.at_most(&job, &few, Beside { ours: *ours, limit: times[0] }, 2.0);
            let limit = format!("wrapping a flat table of {most} keys anew, bare redb, one transaction");
            report.at_least("the same", &limit, Beside { ours: *ours, limit: flat }, 100.0);
        }
    }
    // What follows takes long.
    report.save();
    if let Some(world) = worlds.last() {
        stored(report, &folder, world, asked("CELLS", most));
    }
}

/// Sealed values of everybody who is left, kept by the vault.
fn stored(report: &mut Report, folder: &Folder, world: &World, cells: usize) {
    let (me, why) = (tester(), test_ground());
    let each = cells / world.subjects;
    if each == 0 {
        return;
    }
    let (mut sealing, mut kept) = (Duration::ZERO, 0);
    let before = folder.size(&world.file);
    let (peak, took) = peak_of(|| {
        for first in (0..world.subjects).step_by(CALL / 10) {
            let ids: Vec<_> = (first..world.subjects.min(first + CALL / 10)).map(id).collect();
            let (sealed, took) = once(|| {
                let sealers = block_on(world.vault.sealers::<Note2>(&ids, &me, &why)).unwrap();
                // Who was forgotten above has none.
                let found = ids.iter().zip(sealers).filter_map(|(id, sealer)| Some((id, sealer.ok()?)));
                let seal = |(id, sealer): (_, customer_vault::Sealer<Note2>)| {
                    (0..each as u64).map(|n| (id, n, sealer.seal(note(100), &n).unwrap())).collect::<Vec<_>>()
                };
                found.flat_map(seal).collect::<Vec<(&SubjectId, u64, Sealed<Note2>)>>()
            });
            sealing += took;
            let records: Vec<_> = sealed.iter().map(|(id, number, sealed)| (*id, number, sealed)).collect();
            assert!(block_on(world.vault.put_many(&records, &me, &why)).iter().all(Result::is_ok));
            kept += records.len();
        }
    });
    let mut rows = std::collections::BTreeMap::<u8, (usize, usize)>::new();
    pages(&world.store, usize::MAX, |key, bytes| {
        let of = rows.entry(key[0]).or_default();
        *of = (of.0 + 1, of.1 + bytes);
    });
    report.figure(
        &format!("{kept} sealed values of 100 B with 2 lockboxes, kept"),
        &format!(
            "in {} ({} of it sealers and seals), {} each; {} B each in the file; at most {peak} of memory",
            time(nanos(took)),
            time(nanos(sealing)),
            time(nanos(took) / kept as f64),
            short((folder.size(&world.file) - before) as f64 / kept as f64),
        ),
    );
    for (kind, (count, bytes)) in rows.into_iter().filter(|(_, (count, _))| *count * 100 > world.subjects) {
        let each = short(bytes as f64 / count as f64);
        report.figure(&format!("rows of kind `{}`", char::from(kind)), &format!("{count}, of {each} B"));
    }
    let cold = world.cold();
    let job = format!("unlock, cold, one of {} with {kept} values kept", world.subjects);
    report.at_most(&job, "one read of as many rows of the same kind", cold, 3.0);
}
