//! A token that is narrowed by its holders, without asking the vault: `cargo run --example narrow_token`.
//!
//! The shop gives its carrier a token for shipping. The carrier's depot narrows it for one driver, one parcel, until this
//! evening. What comes out can do less; nobody can make it do more, and revoking any actor in the chain ends it.

#![allow(clippy::print_stdout, reason = "a program")]
#![allow(clippy::arithmetic_side_effects, reason = "seconds of this year")]

use std::time::Duration;

use customer_vault::testing::{ManualClock, ephemeral};
use customer_vault::value::{Phone, PostalAddress};
use customer_vault::{
    Actor, Day, Error, Ground, Options, Revoke, Scope, SubjectId, Token, field, purposes, record,
};

purposes! {
    /// Deliver the parcel.
    pub(crate) Shipping: Contract = 1 "shipping";
    /// Charge the customer.
    pub(crate) Payment: Contract = 2 "payment";
}

record! {
    /// One order.
    pub(crate) struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// Printed on the label.
        pub address: PostalAddress = 1 "address", basic, for [Shipping: 90 days];
        /// For the driver.
        pub phone: Phone = 2 "phone", basic sensitive, for [Shipping: 90 days];
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(pollster::block_on(story())?)
}

async fn story() -> customer_vault::Result<()> {
    // In memory, with a clock that stands still until it is moved: see the `testing` feature.
    let clock = ManualClock::at(Day::from_ymd(2026, 11, 23)?);
    let vault = ephemeral(Options::new().record::<Order>().purpose::<Payment>().clock(clock.clone())).await?;
    let (shop, parcel) = (Actor::service("shop")?, Ground::new("parcel")?);
    let (ann, ben) = (SubjectId::new("ann")?, SubjectId::new("ben")?);
    for subject in [&ann, &ben] {
        vault.enroll(subject, [], &shop, &parcel).await?;
    }
    let order = Order {
        address: PostalAddress::parse("1 Long Street\nHalifax", "GB".parse()?)?,
        phone: Phone::parse_international("+44 114 496 0787")?,
    };
    let sealed = vault.sealer::<Order>(&ann, &shop, &parcel).await?.seal(order, &7)?;

    let carrier = Actor::third_party("carrier")?;
    let week = Duration::from_secs(7 * 86_400);
    let broad = vault.issue::<Shipping>(&carrier, &parcel, week, Scope::everyone()).await?;
    println!("The carrier's token:  {} characters, every parcel, seven days", broad.expose().len());

    // At the depot, offline. It travels as text; nothing of the vault is needed to narrow it.
    let received: Token = broad.expose().parse()?;
    let start_s = clock.today().start_ms() / 1000;
    let (evening, driver) = (start_s + 20 * 3600, Actor::third_party("driver-12")?);
    let narrow = received
        .narrow()
        .subject(&ann)
        .fields(&[field::<order::address>()])
        .expires_at(evening)
        .actor(driver.clone())
        .done()?;
    println!(
        "The driver's token:   {} characters, one parcel, the address alone, until 20:00\n",
        narrow.expose().len()
    );

    let grant = vault.unlock::<Shipping>(&narrow, &ann).await?;
    let label = sealed.open(&grant, &7)?;
    println!("Ann's address         {}", label.address()?.expose_lines().collect::<Vec<_>>().join(", "));
    println!("Ann's phone           {}", label.phone().err().map_or("opened".into(), |why| why.to_string()));
    say("Ben's parcel", vault.unlock::<Shipping>(&narrow, &ben).await.err());
    say("for payment", vault.unlock::<Payment>(&narrow, &ann).await.err());
    say("widened to the phone", narrow.narrow().fields(&[field::<order::phone>()]).done().err());
    say("until next week", narrow.narrow().expires_at(evening + 7 * 86_400).done().err());
    let mut text = narrow.expose().to_owned();
    text.replace_range(40..41, if text.get(40..41) == Some("A") { "B" } else { "A" });
    say(
        "one character changed",
        match Token::parse(&text) {
            Ok(forged) => vault.unlock::<Shipping>(&forged, &ann).await.err(),
            Err(why) => Some(why),
        },
    );

    // Revoking the driver ends what names the driver; the carrier's own token goes on.
    vault.revoke(Revoke::Actor(driver), &shop, &Ground::new("phone-lost")?).await?;
    println!("\nThe driver's phone is lost, and the driver is revoked:");
    say("the driver's token", vault.unlock::<Shipping>(&narrow, &ann).await.err());
    say("a grant taken before", sealed.open(&grant, &7).err());
    say("the carrier's token", vault.unlock::<Shipping>(&broad, &ann).await.err());

    // Revoking the carrier reaches everything that was narrowed from what it was given.
    let other = broad.narrow().subject(&ben).actor(Actor::third_party("driver-13")?).done()?;
    vault.revoke(Revoke::Actor(carrier), &shop, &Ground::new("contract-over")?).await?;
    println!("\nThe carrier is revoked:");
    say("the carrier's token", vault.unlock::<Shipping>(&broad, &ann).await.err());
    say("driver 13's, from it", vault.unlock::<Shipping>(&other, &ben).await.err());

    println!("\nWhat the log says of it, without a name of any customer:");
    for entry in vault.log().await?.iter().filter(|entry| entry.purpose() == Some(1)) {
        println!("  {entry}");
    }
    Ok(())
}

fn say(what: &str, refused: Option<Error>) {
    println!("{what:<21} {}", refused.map_or_else(|| "goes on".to_owned(), |why| why.to_string()));
}
