//! A shop rehearses its restore, and asks who can still read a customer: `cargo run --release --example drill`.
//!
//! It makes a small shop in a temporary directory (a redb file and a key file), backs it up in full and again after an
//! erasure, verifies the parts, rehearses a restore, and prints what it has shown. Nothing is left behind.

#![allow(clippy::print_stdout, reason = "a program")]

use std::fs::{self, File};
use std::path::Path;

use customer_vault::backup::{Backup, Drill};
use customer_vault::keeper::{FileKeeper, FileSecret};
use customer_vault::store::RedbStore;
use customer_vault::value::{Country, PostalAddress};
use customer_vault::{Actor, Error, Forget, Ground, Options, Scope, SubjectId, Vault, purposes, record};

purposes! {
    /// Deliver the parcel.
    pub(crate) Shipping: Contract = 1 "shipping";
    /// Books of account.
    pub(crate) Invoicing: LegalObligation = 2 "invoicing";
}

record! {
    /// Where a customer lives.
    pub(crate) struct Home / SealedHome / HomeView in home = "home" {
        /// Printed on the label.
        pub address: PostalAddress = 1 "address", basic, for [Shipping: 90 days, Invoicing: 10 years];
    }
}

const CUSTOMERS: [(&str, &str); 4] = [
    ("c-1", "1 Long Street\nSpringfield"),
    ("c-2", "2 Long Street\nSpringfield"),
    ("c-3", "17 Harbour Road\nPortsmouth"),
    ("c-4", "4 Mill Lane\nMillbrook"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("customer-vault-drill-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let told = pollster::block_on(story(&dir));
    fs::remove_dir_all(&dir)?;
    told
}

fn options() -> Options {
    Options::new().record::<Home>()
}

async fn story(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    // A real shop keeps its secret: see `FileSecret::from_env`.
    let (secret, _) = FileSecret::generate()?;
    let keeper = FileKeeper::create(dir.join("shop.keys"), secret)?;
    let store = RedbStore::create(dir.join("shop.redb"))?;
    let vault = options().create(store, keeper.clone(), keeper).await?;
    let (nightly, routine) = (Actor::service("nightly")?, Ground::new("routine")?);
    for (customer, address) in CUSTOMERS {
        let id = SubjectId::new(customer)?;
        vault.enroll(&id, [], &nightly, &routine).await?;
        let sealer = vault.sealer::<Home>(&id, &nightly, &routine).await?;
        let sealed = sealer.seal(Home { address: PostalAddress::parse(address, Country::parse("US")?)? })?;
        vault.put(&id, (), &sealed, &nightly, &routine).await?;
    }

    // Each night: the rows that have changed since the last backup. Once a week: all of them.
    let (mut part, mut index) = (File::create(dir.join("full"))?, File::create(dir.join("full.index"))?);
    let what = Backup::full(&nightly, &routine).kept_for_days(30);
    let full = vault.backup(&mut part, &mut index, what).await?;
    let leaving = SubjectId::new("c-2")?;
    let request = Forget::by(&Actor::staff("clerk")?, &Ground::new("person-asked")?).without_grace();
    vault.forget(&leaving, request).await?;
    vault.shred(&nightly, &routine).await?;
    let (mut part, mut index) = (File::create(dir.join("more"))?, File::create(dir.join("more.index"))?);
    let mut old = File::open(dir.join("full.index"))?;
    let what = Backup::since(&full, &mut old, &nightly, &routine).kept_for_days(30);
    vault.backup(&mut part, &mut index, what).await?;

    for parts in [&["full"][..], &["full", "more"]] {
        let files = parts.iter().map(|part| File::open(dir.join(part))).collect::<Result<Vec<_>, _>>()?;
        println!(
            "The backup {}:\n{}",
            parts.join(" and "),
            vault.verify_backup(files, &nightly, &routine).await?
        );
    }
    for (customer, _) in CUSTOMERS.iter().take(2) {
        let said = vault.who_can_read(&SubjectId::new(customer)?, &nightly, &routine).await?;
        println!("{customer}: {said}");
    }

    // Once a month: whether it would work.
    let sample =
        CUSTOMERS.iter().map(|(customer, _)| SubjectId::new(customer)).collect::<Result<Vec<_>, _>>()?;
    let mut file = File::options().read(true).write(true).create_new(true).open(dir.join("rehearsal"))?;
    let (first, second) =
        (RedbStore::create(dir.join("first.redb"))?, RedbStore::create(dir.join("second.redb"))?);
    let drill =
        Drill::of(&sample, &nightly, &routine).opening(Box::new(|vault, id| Box::pin(opens(vault, id))));
    let report = vault.drill(options, &mut file, first, second, drill).await?;
    println!("{report}");
    println!("The key that signed it: {}", vault.verifier_key()?);
    Ok(())
}

/// How many values of a customer open for the books in a restored vault.
async fn opens(vault: Vault, id: SubjectId) -> Result<u64, Error> {
    let (auditor, drill) = (Actor::service("auditor")?, Ground::new("drill")?);
    let hour = std::time::Duration::from_secs(3600);
    let token = vault.issue::<Invoicing>(&auditor, &drill, hour, Scope::subject(&id)).await?;
    let grant = vault.unlock::<Invoicing>(&token, &id).await?;
    let Some(sealed) = vault.get::<Home>(&id, (), &auditor, &drill).await? else { return Ok(0) };
    Ok(u64::from(sealed.open(&grant)?.address().is_ok()))
}
