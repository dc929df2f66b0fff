//! Forgetting ten people; a rehearsal of restoring an older backup; certificates.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicUsize;

use customer_vault::store::RedbStore;
use customer_vault::value::{Country, OrderLine, PostalAddress};
use customer_vault::{Actor, Certificate, Day, Forget, ForgetReceipt, Ground, Result, Vault};

use crate::census::{PURPOSES, census};
use crate::declare::{Order, Shipping};
use crate::load::Copies;
use crate::{Fallible, Shop};

/// One person more orders, so that there is something that must still ship.
pub async fn order_again(vault: &Vault, copies: &mut Copies, clerk: &Actor) -> Result<()> {
    let why = Ground::new("order")?;
    let order = Order {
        name: "Olivie Baudry".parse()?,
        address: PostalAddress::parse("51, rue Collet, 83225 Martinsnec", Country::parse("FR")?)?,
        phone: None,
        lines: vec![OrderLine::parse("yeux", 1, 1990, "EUR")?],
    };
    let id = "o-00001-open".to_owned();
    let sealed = vault.sealer::<Order>(&copies.subject, clerk, &why).await?.seal(order, &id)?;
    vault.put(&copies.subject, &id, &sealed, clerk, &why).await?;
    copies.orders.push((id, sealed));
    Ok(())
}

/// Forgets them on their own request; for the first, shipping is kept for the order that is open.
pub async fn forget(
    vault: &Vault,
    people: &[&Copies],
    until: Day,
    clerk: &Actor,
) -> Result<Vec<ForgetReceipt>> {
    let why = Ground::new("person-asked")?;
    let mut receipts = Vec::new();
    for (number, person) in people.iter().enumerate() {
        let mut request = Forget::by(clerk, &why).requested_by(&person.id);
        if number == 0 {
            request = request.keeping::<Shipping>(until);
        }
        receipts.push(vault.forget(&person.subject, request).await?);
    }
    Ok(receipts)
}

/// Prints for which purposes data of these people still opens, and how many records.
pub fn print_what_opens(vault: &Vault, people: &[&Copies]) -> Result<()> {
    for person in people {
        let open = census(vault, std::slice::from_ref(*person), &AtomicUsize::new(0))?;
        let opens = PURPOSES.iter().zip(open).filter(|(_, open)| *open > 0);
        let opens: Vec<String> = opens.map(|(purpose, open)| format!("{purpose} ({open})")).collect();
        let opens = if opens.is_empty() { "nothing".to_owned() } else { opens.join(", ") };
        println!("    {:<9} {opens}", person.id);
    }
    Ok(())
}

/// A restore from an older backup, rehearsed on copies: the newest keeper, and a store from before the erasures.
pub async fn rehearse(shop: &Shop, backup: &Path, people: &[&Copies]) -> Fallible<()> {
    let elsewhere = shop.dir.join("rehearsal");
    fs::create_dir(&elsewhere)?;
    for name in ["shop.keys", "shop.keys.journal"] {
        fs::copy(shop.dir.join(name), elsewhere.join(name))?;
    }
    fs::copy(backup, elsewhere.join("shop.redb"))?;
    let open = || -> Result<_> {
        Ok((RedbStore::open(elsewhere.join("shop.redb"))?, shop.keeper(&elsewhere.join("shop.keys"))?))
    };
    let (store, keeper) = open()?;
    match shop.options().open(store, keeper.clone(), keeper).await {
        Ok(_) => return Err("an older store was opened".into()),
        Err(why) => println!("  Options::open:    {why}"),
    }
    let (store, keeper) = open()?;
    let (admin, why) = (Actor::staff("admin")?, Ground::new("rehearsal")?);
    match shop.options().recover(store, keeper.clone(), keeper, &admin, &why).await {
        Ok(vault) => {
            println!(
                "  Options::recover: opened. What the witness remembers was done again; of the ten there opens"
            );
            print_what_opens(&vault, people)?;
        }
        Err(why) => {
            println!("  Options::recover: {}, because the root key of that copy is destroyed.", why.code());
        }
    }
    fs::remove_dir_all(&elsewhere)?;
    Ok(())
}

/// Verifies each person's certificate with the vault's public key, and prints the first.
pub async fn certificates(vault: &Vault, receipts: &[ForgetReceipt]) -> Fallible<usize> {
    let key = vault.verifier_key()?;
    let mut verified = 0_usize;
    for receipt in receipts {
        let certificate = vault.certificate(&receipt.reference).await?.ok_or("no certificate")?;
        let text = Certificate::verify(certificate.as_str(), &key)?;
        if verified == 0 {
            text.lines().for_each(|line| println!("    {line}"));
        }
        verified = verified.saturating_add(1);
    }
    Ok(verified)
}

/// Those that the section is about: the one with the open order first, then one with invoices, then eight more.
pub fn pick(copies: &[Copies]) -> Vec<&Copies> {
    let invoices = copies.iter().filter(|one| one.id != "c-00001" && one.orders.len() > 2).take(1);
    let others = copies.iter().filter(|one| one.orders.is_empty()).take(8);
    copies.iter().filter(|one| one.id == "c-00001").chain(invoices).chain(others).collect()
}
