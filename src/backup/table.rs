//! The table of the guide, "attacker has backup B and key K: can read…", made by doing it: every backup is put back without a
//! witness, with every copy of the keeper, and what keys come out is what the attacker has. Fences are policy, and do not count.

use std::fmt::Write as _;

use pollster::block_on;

use super::{Backup, UNFINISHED};
use crate::clock::Day;
use crate::error::{Error, RolledBack};
use crate::keeper::Roots;
use crate::store::{MemoryStore, Range, Rows, Store};
use crate::testing::{ManualClock, MemoryKeeper, test_ground, tester};
use crate::tree::Node;
use crate::tree::node::{day_name, day_of};
use crate::vault::open::{CONFIG, Config, Opening};
use crate::witness::{Memory, NoWitness};
use crate::{Forget, Options, RestoreWindow, Settings, SubjectId, Vault, purposes, record, value};

purposes! {
    /// Deliver the parcel.
    pub(crate) Shipping: Contract = 1 "shipping";
    /// Books of account.
    pub(crate) Books: LegalObligation = 2 "books";
}

record! {
    /// One order.
    pub(crate) struct Order / SealedOrder / OrderView in order = "order" {
        /// Printed on the label.
        pub(crate) text: value::FreeText = 1 "text", basic, for [Shipping: 30 days, Books: 1 year];
    }
}

/// The rows of a backup, as whoever stole it reads them.
async fn stolen(vault: &Vault) -> MemoryStore {
    let mut part = Vec::new();
    let (me, why) = (tester(), test_ground());
    vault.backup(&mut part, &mut std::io::sink(), Backup::full(&me, &why)).await.unwrap();
    let store = MemoryStore::new();
    let mut reader = super::format::PartReader::begin(&part[..]).unwrap();
    while let super::format::Next::Rows(rows) = reader.next().unwrap() {
        let mut batch = crate::store::Batch::new().unwrap();
        for row in rows {
            batch.put(&row.name, row.value.unwrap());
        }
        store.commit(batch).await.unwrap();
    }
    assert!(store.read(&[UNFINISHED.to_vec()]).await.unwrap()[0].is_none());
    store
}

/// What comes out: whose purposes, and whether the first day.
async fn reads(store: &MemoryStore, keeper: &MemoryKeeper, first: Day) -> Result<String, Error> {
    let rows = Rows::new(store.snapshot());
    let config = Config::decode(&rows.get(CONFIG).await?.unwrap().value)?;
    let (vault, tree) = (config.id, config.tree(&rows, &Roots::new(keeper.snapshot())));
    let memory = Memory::new(NoWitness::new());
    let opening = Opening::begin(config, rows.clone(), Roots::new(keeper.snapshot()), memory).await?;
    assert_eq!(opening.verifier_keys()?[0].name(), crate::log::origin(&vault));
    let mut out = Vec::new();
    for (who, name) in [("alice", "Alice"), ("bob", "Bob")] {
        let tag = opening.lookup().tag(SubjectId::new(who)?.bytes());
        let (found, _) = tree.find(&tag, &[]).await?;
        let Some(entry) = tree.entry(&found)? else { continue };
        let has = |purpose: u16| entry.keys.keys().any(|(_, known)| *known == purpose);
        match (has(1), has(2)) {
            (true, true) => out.push(format!("all of {name}")),
            (false, true) => out.push(format!("{name}'s books")),
            _ => out.push(format!("nothing of {name}")),
        }
    }
    let month = Node::month(first);
    let (_, day) = tree.path(&month, &[day_name(first)]).await?;
    let day = day.into_iter().next().flatten();
    assert_eq!(day_of(&day_name(first)), Some(first));
    out.push(if day.is_some() { "also what has expired" } else { "without what has expired" }.to_owned());
    Ok(out.join(", "))
}

async fn table() -> String {
    let first = Day::from_ymd(2026, 3, 1).unwrap();
    let clock = ManualClock::at(first);
    let (store, keeper) = (MemoryStore::new(), MemoryKeeper::new());
    let settings = Settings::default().height(1).unwrap().restore_window(RestoreWindow::days(10).unwrap());
    let options = Options::new().record::<Order>().settings(settings).clock(clock.clone());
    let vault = options.create(store.clone(), keeper.clone(), keeper.clone()).await.unwrap();
    let (me, why) = (tester(), test_ground());
    for who in ["alice", "bob"] {
        vault.enroll(&SubjectId::new(who).unwrap(), [], &me, &why).await.unwrap();
    }
    let mut backups = vec![("from before Alice was forgotten", stolen(&vault).await)];
    let mut keepers = vec![("a copy from before the shred", keeper.snapshot())];
    vault.forget(&SubjectId::new("alice").unwrap(), Forget::by(&me, &why).without_grace()).await.unwrap();
    backups.push(("after the forget, before the shred", stolen(&vault).await));
    clock.advance_days(1);
    vault.shred(&me, &why).await.unwrap();
    vault.expire(&me, &why).await.unwrap();
    backups.push(("after the shred and an expiry", stolen(&vault).await));
    keepers.push(("the keeper, within the restore window", keeper.snapshot()));
    for _ in 0..2 {
        clock.advance_days(7);
        vault.settle(&me, &why).await.unwrap();
    }
    keepers.push(("the keeper, after the window, settled", keeper.snapshot()));
    keepers.push(("none", MemoryKeeper::new()));
    assert!(
        store.scan(Range::prefix(b"q"), 10).await.unwrap().rows.is_empty(),
        "all old roots are destroyed"
    );

    let mut text = String::from(
        "| a backup of the store | and a keeper, with its secret | can read |\n| --- | --- | --- |\n",
    );
    for (made, rows) in &backups {
        for (held, keeper) in &keepers {
            let can = match reads(rows, keeper, first).await {
                Ok(can) => can,
                Err(Error::RolledBack(RolledBack::Gone | RolledBack::Keeper) | Error::Keeper(_)) => {
                    "nothing".into()
                }
                Err(why) => panic!("{made}, {held}: {why:?}"),
            };
            writeln!(text, "| {made} | {held} | {can} |").unwrap();
        }
    }
    text
}

#[test]
fn the_table_of_the_guide_is_what_comes_out() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/who_can_read.md");
    let table = block_on(table());
    if std::env::var_os("CUSTOMER_VAULT_TABLE").is_some_and(|how| how == "write") {
        std::fs::write(&path, &table).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), table, "CUSTOMER_VAULT_TABLE=write writes it again");
}
