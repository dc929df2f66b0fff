//! Sealed values in the shop's own tables: `cargo run --example own_database`.
//!
//! The shop keeps its rows where they always were. Columns with personal data hold sealed values: a whole record as
//! base64 text in a JSON document, or single fields as bytes in columns of their own. The vault's file has keys only.

#![allow(clippy::print_stdout, reason = "a program")]

use std::collections::BTreeMap;
use std::time::Duration;

use customer_vault::keeper::{FileKeeper, FileSecret};
use customer_vault::store::RedbStore;
use customer_vault::value::{Email, PersonName};
use customer_vault::{
    Absent, Actor, Error, Forget, Ground, Options, Scope, Sealed, SubjectId, purposes, record,
};
use rand::TryRng as _;
use serde_json::json;
use zeroize::Zeroizing;

purposes! {
    /// Answer the customer's questions.
    pub(crate) Support: Contract = 1 "support";
    /// Letters about offers.
    pub(crate) Marketing: Consent = 2 "marketing";
}

record! {
    /// A customer.
    pub(crate) struct Customer / SealedCustomer / CustomerView in customer = "customer" {
        /// As written on a parcel.
        pub name: PersonName = 1 "name", basic, for [Support: 3 years];
        /// For answers, and for offers where that was agreed to.
        pub email: Email = 2 "email", basic, for [Support: 3 years, Marketing: 1 year];
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("customer-vault-own-database-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let told = pollster::block_on(story(&dir));
    std::fs::remove_dir_all(&dir)?;
    told
}

async fn story(dir: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut key = Zeroizing::new([0; 32]);
    rand::rngs::SysRng.try_fill_bytes(key.as_mut_slice())?;
    let keeper = FileKeeper::create(dir.join("shop.keys"), FileSecret::key(key))?;
    let store = RedbStore::create(dir.join("keys.redb"))?;
    let vault = Options::new().record::<Customer>().create(store, keeper.clone(), keeper).await?;
    let (shop, why) = (Actor::service("shop")?, Ground::new("signup")?);

    // One document a customer: the sealed record serialises as base64.
    let mut documents = BTreeMap::new();
    // A table of the shop's own: id, city in clear, sealed name, sealed address, each field by itself.
    let mut table: Vec<(&str, &str, Vec<u8>, Vec<u8>)> = Vec::new();
    let customers = [
        ("c-1", "Halifax", "Ann Baker", "ann@example.org"),
        ("c-2", "Leeds", "Ben Carter", "ben@example.org"),
    ];
    for (id, city, name, email) in customers {
        let subject = SubjectId::new(id)?;
        vault.enroll(&subject, [], &shop, &why).await?;
        let sealer = vault.sealer::<Customer>(&subject, &shop, &why).await?;
        let sealed = sealer.seal(Customer { name: name.parse()?, email: email.parse()? })?;
        documents.insert(id, json!({ "city": city, "customer": sealed }));
        let name = sealer.seal_field::<customer::name>(name.parse()?)?;
        let email = sealer.seal_field::<customer::email>(email.parse()?)?;
        table.push((id, city, name.into_bytes(), email.into_bytes()));
    }
    let path = dir.join("customers.json");
    std::fs::write(&path, serde_json::to_string_pretty(&documents)?)?;
    println!("The shop's own file:\n{}\n", std::fs::read_to_string(&path)?);

    let token = vault.issue::<Support>(&shop, &why, Duration::from_secs(3600), Scope::everyone()).await?;
    let documents: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    for (id, document) in &documents {
        let sealed: SealedCustomer = serde_json::from_value(document["customer"].clone())?;
        let grant = vault.unlock::<Support>(&token, &SubjectId::new(id)?).await?;
        let view = sealed.open(&grant)?;
        println!("{id} from the document:  {}, {}", view.name()?.expose(), view.email()?.expose());
    }
    for (id, city, name, email) in &table {
        let grant = vault.unlock::<Support>(&token, &SubjectId::new(id)?).await?;
        let name = Sealed::<customer::name>::from_bytes(name.clone())?;
        let email = Sealed::<customer::email>::from_bytes(email.clone())?;
        println!(
            "{id} from two columns:   {}, {} ({city})",
            name.open(&grant)?.expose(),
            email.open(&grant)?.expose()
        );
    }

    // A column is bound to its field and its customer: what is put elsewhere does not open there.
    let [(_, _, ann, ann_email), (_, _, ben, _)] = table.as_slice() else { return Err("two rows".into()) };
    let ann_id = SubjectId::new("c-1")?;
    let grant = vault.unlock::<Support>(&token, &ann_id).await?;
    let moved = Sealed::<customer::name>::from_bytes(ben.clone())?.open(&grant);
    println!("\nBen's name in Ann's row: {}", moved.err().ok_or("it opened")?);
    let swapped = Sealed::<customer::name>::from_bytes(ann_email.clone());
    println!("Ann's address as a name: {}", swapped.err().ok_or("it was taken")?);

    // A single field says why it is not there.
    let name = Sealed::<customer::name>::from_bytes(ann.clone())?;
    let email = Sealed::<customer::email>::from_bytes(ann_email.clone())?;
    let only = token.narrow().fields(&[customer_vault::field::<customer::name>()]).done()?;
    let narrow = vault.unlock::<Support>(&only, &ann_id).await?;
    assert!(name.open(&narrow).is_ok());
    assert_eq!(email.open(&narrow).err(), Some(Error::Absent(Absent::NotInToken)));

    // Forgetting reaches every copy, in tables, backups and exports that the vault has never heard of.
    vault.forget(&ann_id, Forget::by(&shop, &Ground::new("person-asked")?)).await?;
    println!("After Ann is forgotten:  {}", name.open(&grant).err().ok_or("it opened")?);
    println!("Her rows are still there, and nobody can open them; after the days of grace, nobody ever.");
    Ok(())
}
