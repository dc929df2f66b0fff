//! A million subjects on redb: a full backup, an increment after a thousand erasures, verifying and restoring both. For each
//! its size, its time, and the most memory that the process had meanwhile.
//!
//! `PEOPLE` is another number than a million; `DIR` another directory than the machine's for temporary files, which needs
//! some 6 GB.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::arithmetic_side_effects, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, clippy::panic, missing_docs)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use customer_vault::backup::{Backup, Manifest};
use customer_vault::store::RedbStore;
use customer_vault::testing::{MemoryKeeper, grant, test_ground, tester};
use customer_vault::value::FreeText;
use customer_vault::{Consent, Error, Forget, Options, Settings, SubjectId, Vault, purposes, record};
use pollster::block_on;

purposes! {
    Shipping: Contract = 1 "shipping";
    Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    struct Note[u64] / SealedNote / NoteView in note = "note" {
        text: FreeText = 1 "text", basic, for [Shipping: 90 days, Invoicing: 1 year];
    }
}

fn id(number: usize) -> SubjectId {
    SubjectId::new(&format!("customer {number}")).unwrap()
}

/// Runs it, and says how long it took and the most memory meanwhile, where the system tells.
fn measured<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let forgotten = fs::write("/proc/self/clear_refs", "5").is_ok();
    let start = Instant::now();
    let done = run();
    let took = start.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.filter(|_| forgotten).map_or("not told", str::trim);
    println!("{what}: {took:.1} s, at most {peak} of memory");
    done
}

/// In megabytes.
fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len() / 1_000_000
}

fn backup(vault: &Vault, dir: &Path, name: &str, base: Option<(&Manifest, &str)>) -> Manifest {
    let (me, why) = (tester(), test_ground());
    let (part, index) = (dir.join(format!("{name}.part")), dir.join(format!("{name}.index")));
    let (mut out, mut next) = (File::create(&part).unwrap(), File::create(&index).unwrap());
    let mut old =
        base.map(|(manifest, base)| (manifest, File::open(dir.join(format!("{base}.index"))).unwrap()));
    let what = match &mut old {
        Some((base, old)) => Backup::since(base, old, &me, &why),
        None => Backup::full(&me, &why),
    };
    let manifest = measured(name, || {
        let manifest = block_on(vault.backup(&mut out, &mut next, what)).unwrap();
        out.sync_all().unwrap();
        next.sync_all().unwrap();
        manifest
    });
    println!(
        "  {} MB, index {} MB, {} rows, {} deleted, {} in all",
        size(&part),
        size(&index),
        manifest.rows,
        manifest.deleted,
        manifest.total
    );
    manifest
}

fn bench(dir: &Path, people: usize) {
    let (me, why) = (tester(), test_ground());
    let keeper = MemoryKeeper::new();
    let settings = Settings::default().grace_days(0).unwrap();
    let options = || Options::new().record::<Note>();
    let store = RedbStore::create(dir.join("vault.redb")).unwrap();
    let vault = options().settings(settings).create(store, keeper.clone(), keeper.clone());
    let vault = block_on(vault).unwrap();
    measured(&format!("enrolling {people}"), || {
        for first in (0..people).step_by(100_000) {
            let newcomers: Vec<(_, [Consent; 0])> =
                (first..people.min(first + 100_000)).map(|number| (id(number), [])).collect();
            assert!(block_on(vault.enroll_many(&newcomers, &me, &why)).iter().all(Result::is_ok));
        }
    });
    println!("  {} MB in the store's file", size(&dir.join("vault.redb")));
    let full = backup(&vault, dir, "full", None);

    let few = 1000.min(people / 4);
    let gone: Vec<SubjectId> = (0..few).map(|n| id(n * (people / few))).collect();
    measured(&format!("forgetting and shredding {few}"), || {
        let forgotten = block_on(vault.forget_many(&gone, Forget::by(&me, &why)));
        assert!(forgotten.iter().all(Result::is_ok));
        assert_eq!(block_on(vault.shred(&me, &why)).unwrap().subjects, few);
    });
    backup(&vault, dir, "increment", Some((&full, "full")));

    let parts = || ["full", "increment"].map(|name| File::open(dir.join(format!("{name}.part"))).unwrap());
    let report = measured("verifying", || block_on(vault.verify_backup(parts(), &me, &why)).unwrap());
    assert!(report.opens() && report.forgotten == 0, "{report}");
    drop(vault);
    let store = RedbStore::create(dir.join("restored.redb")).unwrap();
    let restored = measured("restoring", || {
        let keeper = keeper.clone();
        block_on(options().restore(store, keeper.clone(), keeper, parts(), &me, &why)).unwrap()
    });
    println!("  {} MB in the store's file", size(&dir.join("restored.redb")));
    assert!(block_on(grant::<Shipping>(&restored, &id(1))).is_ok());
    assert!(matches!(block_on(grant::<Shipping>(&restored, &id(0))), Err(Error::Erased(_))));
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let asked = std::env::var("PEOPLE").ok().and_then(|number| number.parse().ok());
    let people: usize = asked.unwrap_or(if measured { 1_000_000 } else { 100 });
    let dir = std::env::var_os("DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("customer-vault-{}-backup", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    bench(&dir, people);
    fs::remove_dir_all(&dir).unwrap();
}
