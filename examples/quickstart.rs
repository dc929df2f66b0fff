//! The README's code: `SHOP_VAULT_KEY=$(openssl rand -hex 32) cargo run --example quickstart`.

#![allow(clippy::print_stdout, reason = "a program")]

use std::time::Duration;

use customer_vault::keeper::{FileKeeper, FileSecret};
use customer_vault::store::RedbStore;
use customer_vault::value::{Country, PostalAddress};
use customer_vault::{Actor, Forget, Ground, Options, Scope, SubjectId, purposes, record};

purposes! {
    /// Deliver the parcel.
    pub(crate) Shipping: Contract = 1 "shipping";
    /// Books of account.
    pub(crate) Invoicing: LegalObligation = 2 "invoicing";
}

record! {
    /// One order.
    pub(crate) struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// Printed on the label.
        pub address: PostalAddress = 1 "address", basic, for [Shipping: 90 days, Invoicing: 10 years];
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::var_os("SHOP_VAULT_KEY").is_none() {
        println!("The key file is encrypted under 32 bytes that you choose. Run this with");
        println!("  SHOP_VAULT_KEY=$(openssl rand -hex 32) cargo run --example quickstart");
        return Ok(());
    }
    let dir = std::env::temp_dir().join(format!("customer-vault-quickstart-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let told = pollster::block_on(story(&dir));
    std::fs::remove_dir_all(&dir)?;
    Ok(told?)
}

async fn story(dir: &std::path::Path) -> customer_vault::Result<()> {
    let keeper = FileKeeper::create(dir.join("shop.keys"), FileSecret::from_env("SHOP_VAULT_KEY")?)?;
    let store = RedbStore::create(dir.join("shop.redb"))?;
    // The file keeper is the witness too: it remembers, outside the store, what was erased.
    let vault = Options::new().record::<Order>().create(store, keeper.clone(), keeper).await?;

    let (clerk, parcel) = (Actor::service("orders")?, Ground::new("parcel")?);
    let alice = SubjectId::new("c-4711")?;
    vault.enroll(&alice, [], &clerk, &parcel).await?;

    let address = PostalAddress::parse("1 Long Street\nSpringfield", Country::parse("US")?)?;
    let sealer = vault.sealer::<Order>(&alice, &clerk, &parcel).await?;
    let sealed: SealedOrder = sealer.seal(Order { address }, &7)?; // keep it anywhere
    println!("Order 7 is {} bytes that open for nobody without a key of Alice's.", sealed.as_bytes().len());

    let hour = Duration::from_secs(3600);
    let token = vault.issue::<Shipping>(&clerk, &parcel, hour, Scope::subject(&alice)).await?;
    let grant = vault.unlock::<Shipping>(&token, &alice).await?;
    let view = sealed.open(&grant, &7)?;
    println!("For shipping: {}", view.address()?.expose_lines().collect::<Vec<_>>().join(", "));

    let receipt = vault.forget(&alice, Forget::by(&clerk, &Ground::new("person-asked")?)).await?;
    println!("Forgotten, the keys to be destroyed from {}.", receipt.due);
    if let Err(why) = sealed.open(&grant, &7) {
        println!("For shipping: {why}");
    }
    let books = vault.issue::<Invoicing>(&clerk, &Ground::new("audit")?, hour, Scope::everyone()).await?;
    let books = vault.unlock::<Invoicing>(&books, &alice).await?;
    println!("For the books, which the law keeps: {}", sealed.open(&books, &7)?.address()?.masked());
    Ok(())
}
