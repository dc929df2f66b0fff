//! Two processes: the shop, which has the vault, and its label printer, which has a key of its own and a ticket:
//! `cargo run --example label_printer`.
//!
//! The shop starts the printer and talks to it over standard input and output. No store, keeper or root key is in the
//! printer's process: it prints the labels that the ticket is for, and cannot open anything else that it is sent.

#![allow(clippy::print_stdout, unreachable_pub, reason = "a program, and a module that is read alone")]

#[allow(dead_code, reason = "what another example declares besides")]
#[path = "shop/declare.rs"]
mod declare;

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use customer_vault::clock::{Clock as _, SystemClock};
use customer_vault::testing::ephemeral;
use customer_vault::ticket::{Reader, ReaderKey, Recipient, Ticket, TicketScope};
use customer_vault::value::{Country, OrderLine, PersonName, PostalAddress};
use customer_vault::{Actor, Forget, Ground, Options, Scope, SubjectId, Vault};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use declare::{Order, SealedOrder, Shipping, Support, order};

/// What can go wrong in a program.
type Fallible<T> = Result<T, Box<dyn Error>>;

const CUSTOMERS: &str = include_str!("data/customers.jsonl");
const PRINTER: &str = "printer";
/// A real shop would take minutes: this one waits for the end.
const LIFETIME: Duration = Duration::from_secs(3);

/// What the shop sends, a line each.
#[derive(Serialize, Deserialize)]
enum Told {
    /// Once, when the printer is set up: whose tickets it takes.
    Vault(String),
    Ticket(Vec<u8>),
    Print(Parcel),
}

#[derive(Serialize, Deserialize)]
struct Parcel {
    customer: String,
    number: String,
    sealed: SealedOrder,
}

fn main() -> Fallible<()> {
    if std::env::args().nth(1).as_deref() == Some(PRINTER) { printer() } else { pollster::block_on(shop()) }
}

/// The printer's process.
fn printer() -> Fallible<()> {
    let key = ReaderKey::generate()?;
    println!("{}", serde_json::to_string(key.recipient().bytes())?);
    let (mut vault, mut reader) = (None, None);
    for line in std::io::stdin().lines() {
        match serde_json::from_str(&line?)? {
            Told::Vault(verifier) => vault = Some(verifier.parse()?),
            Told::Ticket(bytes) => {
                let (ticket, vault) = (Ticket::from_bytes(bytes)?, vault.as_ref().ok_or("no vault yet")?);
                // The same bytes are no ticket for the support desk, which may see phone numbers and e-mail addresses.
                let desk = Reader::<Support>::open(&key, &ticket, vault).err();
                println!("for the support desk: {}", desk.map_or("opened".into(), |why| why.to_string()));
                reader = Some(Reader::<Shipping>::open(&key, &ticket, vault)?);
            }
            Told::Print(parcel) => println!("{}", label(reader.as_ref().ok_or("no ticket yet")?, &parcel)?),
        }
    }
    Ok(())
}

/// A label, or why there is none.
fn label(reader: &Reader<Shipping>, parcel: &Parcel) -> Fallible<String> {
    let grant = match reader.grant(&SubjectId::new(&parcel.customer)?) {
        Ok(grant) => grant,
        Err(why) => return Ok(format!("{}: {why}", parcel.customer)),
    };
    let view = match parcel.sealed.open(&grant, &parcel.number) {
        Ok(view) => view,
        Err(why) => return Ok(format!("{}: {why}", parcel.customer)),
    };
    let phone = view.phone().err().map_or("opened".into(), |why| why.to_string());
    let address: Vec<_> = view.address()?.expose_lines().collect();
    Ok(format!("[ {} | {} ]  (phone: {phone})", view.name()?.expose(), address.join(", ")))
}

/// The shop's side of it.
struct Printer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Printer {
    fn start() -> Fallible<(Self, Recipient)> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(PRINTER).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (to, from) = (child.stdin.take().ok_or("no pipe")?, child.stdout.take().ok_or("no pipe")?);
        let mut printer = Printer { child, to, from: BufReader::new(from) };
        let recipient = Recipient::from_bytes(serde_json::from_str(&printer.answer()?)?)?;
        Ok((printer, recipient))
    }

    fn tell(&mut self, what: &Told) -> Fallible<()> {
        writeln!(self.to, "{}", serde_json::to_string(what)?)?;
        Ok(self.to.flush()?)
    }

    fn answer(&mut self) -> Fallible<String> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn print(&mut self, parcel: Parcel) -> Fallible<()> {
        self.tell(&Told::Print(parcel))?;
        println!("  printer> {}", self.answer()?);
        Ok(())
    }
}

/// Customers of the sample with something to send, and their first orders.
fn orders() -> Fallible<Vec<(String, String, Order)>> {
    let mut orders = Vec::new();
    for line in CUSTOMERS.lines().take(50) {
        let customer: Value = serde_json::from_str(line)?;
        let text = |at: &str| {
            customer.pointer(at).and_then(Value::as_str).map(str::to_owned).ok_or("not as expected")
        };
        let Some(items) = customer.pointer("/orders/0/items").and_then(Value::as_array) else { continue };
        let lines: Result<Vec<_>, _> =
            items.iter().map(|item| OrderLine::parse(item.as_str().unwrap_or("?"), 1, 100, "EUR")).collect();
        let country = Country::parse(&text("/country")?)?;
        let order = Order {
            name: PersonName::parse(&text("/name")?)?,
            address: PostalAddress::parse(&text("/address")?, country)?,
            phone: None,
            lines: lines?,
        };
        orders.push((text("/customer")?, text("/orders/0/order")?, order));
    }
    orders.truncate(4);
    Ok(orders)
}

async fn parcels(vault: &Vault, clerk: &Actor, ground: &Ground) -> Fallible<Vec<Parcel>> {
    let mut parcels = Vec::new();
    for (customer, number, order) in orders()? {
        let id = SubjectId::new(&customer)?;
        vault.enroll(&id, [], clerk, ground).await?;
        let sealed = vault.sealer::<Order>(&id, clerk, ground).await?.seal(order, &number)?;
        parcels.push(Parcel { customer, number, sealed });
    }
    Ok(parcels)
}

async fn shop() -> Fallible<()> {
    let (mut printer, recipient) = Printer::start()?;
    let vault = ephemeral(Options::new().record::<Order>().purpose::<Support>()).await?;
    let (clerk, ground) = (Actor::service("shop")?, Ground::new("parcel")?);
    let parcels = parcels(&vault, &clerk, &ground).await?;
    let [first, .., last] = parcels.as_slice() else { return Err("the sample has too few orders".into()) };
    printer.tell(&Told::Vault(vault.verifier_key()?.to_string()))?;

    // Names and addresses of orders, for shipping: what a label needs.
    let scope = Scope::everyone().field::<order::name>().field::<order::address>();
    let hour = Duration::from_secs(3600);
    let token = vault.issue::<Shipping>(&Actor::service("label-printer")?, &ground, hour, scope).await?;
    let mut scopes = Vec::new();
    for parcel in parcels.iter().filter(|parcel| parcel.customer != last.customer) {
        scopes.push(TicketScope::of(&SubjectId::new(&parcel.customer)?).sealed(&parcel.sealed));
    }
    let given = vault.ticket::<Shipping>(&token, &recipient, LIFETIME, &scopes).await?;
    let bytes = given.ticket.as_bytes();
    println!("A ticket of {} bytes for {} customers, for {LIFETIME:?}.", bytes.len(), scopes.len());
    printer.tell(&Told::Ticket(bytes.to_vec()))?;
    println!("  printer> {}", printer.answer()?);

    println!("\nIt prints what the ticket reaches, and not the last one, for whom it has no key:");
    let again = || Parcel {
        sealed: first.sealed.clone(),
        customer: first.customer.clone(),
        number: first.number.clone(),
    };
    for Parcel { customer, number, sealed } in &parcels {
        let (customer, number, sealed) = (customer.clone(), number.clone(), sealed.clone());
        printer.print(Parcel { customer, number, sealed })?;
    }
    println!("Nor does it open that order where it is told that it is somebody else's:");
    printer.print(Parcel {
        sealed: last.sealed.clone(),
        customer: first.customer.clone(),
        number: last.number.clone(),
    })?;

    let id = SubjectId::new(&first.customer)?;
    let receipt = vault.forget(&id, Forget::by(&clerk, &Ground::new("person-asked")?)).await?;
    let until = receipt.tickets_until_ms.ok_or("the ticket was alive")?;
    let left = until.saturating_sub(SystemClock.wall());
    println!("\n{} is forgotten. The receipt says that a ticket lives for {left} ms more:", first.customer);
    printer.print(again())?;
    std::thread::sleep(Duration::from_millis(u64::try_from(left)?));
    println!("and then:");
    printer.print(again())?;
    let refused = vault.ticket::<Shipping>(&token, &recipient, LIFETIME, &scopes).await?;
    println!("The next ticket reaches {} customers.", refused.each.iter().flatten().count());

    println!("\nWhat the log says of it, without a name of any customer:");
    for entry in vault.log().await?.iter().filter(|entry| entry.ticket().is_some()) {
        println!("  {entry}");
    }
    drop(printer.to);
    if printer.child.wait()?.success() { Ok(()) } else { Err("the printer failed".into()) }
}
