//! A shop's main job from end to end, on one redb file: `cargo run --release --example shop`.
//!
//! It reads 5,000 customers of the sample and the Chinook shop, seals and stores all of it, lets five years pass, forgets
//! ten people, restores an older backup, and shows at each step what opens and what does not. Everything lies in a
//! temporary folder, which is removed in the end. Nobody in the data exists.

#![allow(clippy::print_stdout, unreachable_pub, reason = "a program, and modules that are read alone")]
#![allow(clippy::arithmetic_side_effects, reason = "sums of what was counted")]

#[path = "shop/census.rs"]
mod census;
#[path = "shop/chinook.rs"]
mod chinook;
#[path = "shop/declare.rs"]
mod declare;
#[path = "shop/erase.rs"]
mod erase;
#[path = "shop/json.rs"]
mod json;
#[path = "shop/load.rs"]
mod load;
#[path = "shop/report.rs"]
mod report;
#[path = "shop/rows.rs"]
mod rows;
#[path = "shop/thief.rs"]
mod thief;

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use customer_vault::keeper::{FileKeeper, FileSecret};
use customer_vault::store::RedbStore;
use customer_vault::testing::ManualClock;
use customer_vault::{Actor, Day, Ground, Options, Result, Scope, SubjectId, Vault};
use indicatif::ProgressBar;
use pollster::block_on;
use rand::TryRng as _;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use declare::{Customer, Invoicing, Marketing, Order, Search, Shipping, Support};
use load::Copies;
use report::{Done, section};
use rows::{Refusal, Row};

/// What can go wrong in a program.
type Fallible<T> = std::result::Result<T, Box<dyn Error>>;

/// The default of `Settings::grace_days`.
const GRACE: u32 = 7;
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");

/// Where the shop keeps its vault, and what opens it.
struct Shop {
    dir: PathBuf,
    key: Zeroizing<[u8; 32]>,
    clock: ManualClock,
}

impl Shop {
    fn new() -> Fallible<Self> {
        let dir = std::env::temp_dir().join(format!("customer-vault-shop-{}", std::process::id()));
        fs::create_dir(&dir)?;
        // A real shop takes it from its secret manager; see `FileSecret::from_env`.
        let mut key = Zeroizing::new([0; 32]);
        SysRng.try_fill_bytes(key.as_mut_slice())?;
        Ok(Shop { dir, key, clock: ManualClock::at(Day::from_ymd(2026, 11, 23)?) })
    }

    fn options(&self) -> Options {
        Options::new().record::<Customer>().record::<Order>().record::<Search>().clock(self.clock.clone())
    }

    fn secret(&self) -> FileSecret {
        FileSecret::key(self.key.clone())
    }

    fn keeper(&self, path: &Path) -> Result<FileKeeper> {
        FileKeeper::open(path, self.secret())
    }

    fn store(&self) -> PathBuf {
        self.dir.join("shop.redb")
    }

    async fn create(&self) -> Result<Vault> {
        let keeper = FileKeeper::create(self.dir.join("shop.keys"), self.secret())?;
        self.options().create(RedbStore::create(self.store())?, keeper.clone(), keeper).await
    }

    async fn open(&self) -> Result<Vault> {
        let keeper = self.keeper(&self.dir.join("shop.keys"))?;
        self.options().open(RedbStore::open(self.store())?, keeper.clone(), keeper).await
    }
}

fn main() -> Fallible<()> {
    let shop = Shop::new()?;
    let told = story(&shop);
    fs::remove_dir_all(&shop.dir)?;
    told
}

fn story(shop: &Shop) -> Fallible<()> {
    let mut done = Done::default();
    let (admin, clerk) = (Actor::staff("admin")?, Actor::service("shop")?);
    let read = |name: &str| fs::read_to_string(Path::new(DATA).join(name));
    let (own, messy) = (read("customers.jsonl")?, read("customers-messy.jsonl")?);

    section(
        "Reading",
        "Every value is parsed into a type that is strict about it, masks itself, and wipes itself.",
    );
    let mut seen = HashSet::new();
    let mut rows = done.time("rows parsed", || {
        let mut rows = rows::read(&own, shop.clock.today(), &mut seen);
        rows.extend(chinook::read(
            &read("chinook-customers.jsonl")?,
            &read("chinook-invoices.jsonl")?,
            &read("chinook-invoice-lines.jsonl")?,
        ));
        Ok((rows.len(), rows))
    })?;
    let refused = rows.extract_if(.., |row| row.is_err()).count();
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    let entered = rows.iter().filter(|row| row.profile.phone_as_entered.is_some()).count();
    println!("  {} customers of two shops read, {refused} refused.", rows.len());
    println!("  {entered} phone numbers are none that exist, and are kept as they were entered.");
    refuse_the_messy(&messy, shop, &rows.iter().map(|row| row.id.clone()).collect());

    section(
        "Sealing and storing",
        "Each cell has a key of its own, in one lockbox for each purpose that stands.",
    );
    let vault = block_on(shop.create())?;
    let known = known_values(&own)?;
    let (mut copies, tally) = done.time("records sealed, stored and logged", || {
        let (copies, tally) = load::load(&vault, rows, &clerk)?;
        let stored =
            copies.len() + copies.iter().map(|of| of.orders.len() + of.searches.len()).sum::<usize>();
        Ok((stored, (copies, tally)))
    })?;
    println!("{tally}");

    section(
        "A thief and the service",
        "The thief has a copy of the file. The service has a token for one purpose.",
    );
    done.time("megabytes searched for what is known", || look_as_a_thief(shop, &known, own.as_bytes()))?;
    block_on(look_as_the_service(&vault, &copies, &clerk))?;

    section(
        "Five years, week by week",
        "`expire` destroys one key for each day that is over, whatever was sealed to it.",
    );
    five_years(shop, &vault, &copies, &admin, &mut done)?;

    section(
        "Ten people ask to be forgotten",
        "One has an order that must still ship; the law keeps invoices.",
    );
    drop(vault);
    let backup = shop.dir.join("backup.redb");
    fs::copy(shop.store(), &backup)?;
    let vault = block_on(shop.open())?;
    let open_order = copies.iter_mut().find(|of| of.id == "c-00001").ok_or("c-00001 is gone")?;
    block_on(erase::order_again(&vault, open_order, &clerk))?;
    let people = erase::pick(&copies);
    let until = Day::of(shop.clock.today().start_ms() + 60 * 86_400_000);
    let receipts = done.time("people forgotten", || {
        Ok((people.len(), block_on(erase::forget(&vault, &people, until, &clerk))?))
    })?;
    println!("  Fenced at once. Their keys are destroyed after {GRACE} days of grace. Of them there opens");
    erase::print_what_opens(&vault, &people)?;
    shop.clock.advance_days(GRACE);
    let why = Ground::new("nightly")?;
    block_on(vault.expire(&admin, &why))?;
    let shredded = block_on(vault.shred(&admin, &why))?;
    println!(
        "  A week later: {} people shredded, root epoch {:?} left.",
        shredded.subjects, shredded.epoch_left
    );
    drop(vault);

    section(
        "A backup from before is restored",
        "Rehearsed on copies, with the newest keeper, as it must be.",
    );
    block_on(erase::rehearse(shop, &backup, &people))?;

    section("The old roots are destroyed", "30 days later nothing within policy can read the backup's keys.");
    let vault = block_on(shop.open())?;
    for _ in 0..5 {
        shop.clock.advance_days(7);
        block_on(vault.expire(&admin, &why))?;
    }
    let settled = block_on(vault.settle(&admin, &why))?;
    println!("  {} roots destroyed; the keeper was asked to unwrap with each, and could not.", settled.roots);
    println!("  {} certificates. The first, as the person gets it:\n", settled.certificates.len());
    let verified = block_on(erase::certificates(&vault, &receipts))?;
    println!("\n  {verified} certificates verified with the vault's public key. The backup once more:");
    drop(vault);
    block_on(erase::rehearse(shop, &backup, &people))?;

    section("The log", "A hash chain for each time the vault was opened, with signed checkpoints.");
    let vault = block_on(shop.open())?;
    let report = done.time("entries of the log verified", || {
        let report = block_on(vault.verify_log())?;
        Ok((usize::try_from(report.entries)?, report))
    })?;
    let word = if report.holds() { "all of it holds" } else { "IT DOES NOT HOLD" };
    println!("  {} entries in {} lanes: {word}.", report.entries, report.lanes);
    drop(vault);

    section("What was done", "On this machine, with every acknowledged change on the disk.");
    done.print();
    println!(
        "\n  {} MiB in the store's file, {} KiB of keys and journal beside it.",
        fs::metadata(shop.store())?.len() >> 20,
        (fs::metadata(shop.dir.join("shop.keys"))?.len()
            + fs::metadata(shop.dir.join("shop.keys.journal"))?.len())
            >> 10
    );
    Ok(())
}

/// The messy file: line, field and reason of each, never the value. `noted` is what its author says is wrong.
fn refuse_the_messy(messy: &str, shop: &Shop, seen: &HashSet<String>) {
    println!("  Of the {} lines of a messy file:\n", messy.lines().count());
    let rows = rows::read(messy, shop.clock.today(), &mut seen.clone());
    for (row, line) in rows.iter().zip(messy.lines()) {
        if let Err(Refusal { line: number, field, why }) = row {
            let noted =
                json::object(line).ok().and_then(|row| Some(row.get("why_bad")?.as_str()?.to_owned()));
            let noted = noted.map_or_else(String::new, |noted| format!("noted: {noted}"));
            println!("    line {number:>2}  {field:<18} {:<42} {noted}", why.to_string());
        }
    }
    println!(
        "\n  {} refused, {} accepted.",
        rows.iter().filter(|row| row.is_err()).count(),
        rows.iter().flatten().count()
    );
}

/// Names, mail addresses, phones, numbers, ids of the sample: what a thief would look for.
fn known_values(own: &str) -> Fallible<Vec<String>> {
    let mut known = Vec::new();
    for line in own.lines() {
        let row: serde_json::Value = serde_json::from_str(line)?;
        let fields = ["customer", "name", "email", "phone", "address", "national_id", "card"];
        known.extend(fields.iter().filter_map(|field| Some(row.get(field)?.as_str()?.to_owned())));
        let orders = row.get("orders").and_then(serde_json::Value::as_array).into_iter().flatten();
        known.extend(orders.filter_map(|order| Some(order.get("order")?.as_str()?.to_owned())));
    }
    known.sort_unstable();
    known.dedup();
    Ok(known)
}

fn look_as_a_thief(shop: &Shop, known: &[String], own: &[u8]) -> report::Counted<()> {
    let stolen = shop.dir.join("stolen.redb");
    fs::copy(shop.store(), &stolen)?;
    let bytes = fs::read(&stolen)?;
    let (hits, looked_for) = thief::search(&bytes, known);
    println!(
        "  {looked_for} names, mail addresses, phones, street addresses, card and identity numbers and ids were looked for"
    );
    println!(
        "  in the {} MiB of the stolen file: {hits} found. (In the sample itself: {}.)",
        bytes.len() >> 20,
        thief::search(own, known).0
    );
    println!("\n  What it shows:");
    thief::look(&stolen)?;
    fs::remove_file(&stolen)?;
    println!(
        "\n  What he does learn: how many rows there are, how long they are, and when the file was written."
    );
    Ok((bytes.len() >> 20, ()))
}

async fn look_as_the_service(vault: &Vault, copies: &[Copies], clerk: &Actor) -> Fallible<()> {
    let hour = Duration::from_secs(3600);
    let of = copies.iter().find(|of| of.id == "c-00001").ok_or("c-00001 is gone")?;
    let alice = SubjectId::new("c-00001")?;
    println!("\n  What the service sees of c-00001, who is made up:\n");

    let why = Ground::new("ticket:4711")?;
    let token = vault.issue::<Support>(clerk, &why, hour, Scope::subject(&alice)).await?;
    let profile = vault.get::<Customer>(&alice, (), clerk, &why).await?.ok_or("no profile")?;
    let view = profile.open(&vault.unlock::<Support>(&token, &alice).await?)?;
    let (name, email) = (view.name()?, view.email()?.ok_or("no address")?);
    println!("    for support      {}, {}", name.expose(), email.expose());
    println!(
        "      in a list      {}, {}, {}",
        name.masked(),
        email.masked(),
        view.phone()?.ok_or("no phone")?.masked()
    );
    println!("      the card       does not compile: support is not among the purposes of `card`");

    let carrier = Actor::third_party("carrier")?;
    let shipping =
        vault.issue::<Shipping>(&carrier, &Ground::new("parcel")?, hour, Scope::subject(&alice)).await?;
    let shipping = vault.unlock::<Shipping>(&shipping, &alice).await?;
    let books = vault.issue::<Invoicing>(clerk, &Ground::new("audit")?, hour, Scope::everyone()).await?;
    let books = vault.unlock::<Invoicing>(&books, &alice).await?;
    for (id, sealed) in &of.orders {
        let (label, invoice) = (sealed.open(&shipping, id)?, sealed.open(&books, id)?);
        match label.address() {
            Ok(address) => println!(
                "    for shipping     {id}: {}",
                address.expose_lines().collect::<Vec<_>>().join(", ")
            ),
            Err(absent) => println!("    for shipping     {id}: {absent}"),
        }
        let total: i64 =
            invoice.lines()?.iter().filter_map(customer_vault::value::OrderLine::expose_total).sum();
        println!(
            "    for the books    {id}: {} lines, {}.{:02} EUR",
            invoice.lines()?.len(),
            total / 100,
            total % 100
        );
    }
    let nobody = copies.iter().find(|of| of.id == "c-00000").ok_or("c-00000 is gone")?;
    let token = vault.issue::<Marketing>(clerk, &Ground::new("letter")?, hour, Scope::everyone()).await?;
    let refused = vault.unlock::<Marketing>(&token, &nobody.subject).await.err().ok_or("was given")?;
    println!("    for marketing    c-00000: {refused}");
    Ok(())
}

fn five_years(shop: &Shop, vault: &Vault, copies: &[Copies], admin: &Actor, done: &mut Done) -> Fallible<()> {
    let (tried, why) = (AtomicUsize::new(0), Ground::new("nightly")?);
    println!("  How many records open for each purpose, by opening all of them:\n");
    println!("    {:<10} {}", "", census::PURPOSES.map(|purpose| format!("{purpose:>10}")).join(" "));
    let count = |done: &mut Done| -> Fallible<()> {
        let open = done.time("records unlocked and opened", || {
            let before = tried.load(Ordering::Relaxed);
            let open = census::census(vault, copies, &tried)?;
            Ok((tried.load(Ordering::Relaxed) - before, open))
        })?;
        println!("    {} {}", shop.clock.today(), open.map(|open| format!("{open:>10}")).join(" "));
        Ok(())
    };
    count(done)?;
    let (mut days, bar) = (0_usize, ProgressBar::new(5 * 52));
    for year in 1..=5 {
        days += done.time("weeks expired", || {
            let mut days = 0;
            for _ in 0..52 {
                shop.clock.advance_days(7);
                days += block_on(vault.expire(admin, &why))?.days.len();
                bar.inc(1);
            }
            // Roots that were left more than 30 days ago are destroyed.
            block_on(vault.settle(admin, &why))?;
            Ok((52, days))
        })?;
        if year == 5 {
            bar.finish_and_clear();
        }
        count(done)?;
    }
    println!("\n  {days} day keys destroyed. Nothing was re-sealed, no row was looked for.");
    Ok(())
}
