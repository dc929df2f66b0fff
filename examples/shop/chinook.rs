//! The Chinook sample shop: other columns, other habits, the same records. Its dates are moved forward by fourteen
//! years, or nothing of it could be kept any more. What no purpose needs (fax, company) is not taken.

use std::collections::HashMap;

use customer_vault::value::{Country, Email, OrderLine, PersonName, PostalAddress};
use customer_vault::{Day, SubjectId};
use jiff::ToSpan as _;
use serde_json::Value;

use crate::declare::{Customer, Order};
use crate::json;
use crate::rows::{Fields, Placed, Refusal, Row, Why, phone};

const YEARS: i64 = 14;

type Refused = (&'static str, Why);

/// Reads customers with their invoices as orders.
pub fn read(customers: &str, invoices: &str, lines: &str) -> Vec<Result<Row, Refusal>> {
    let refused = |line, (field, why)| Refusal { line, field, why };
    let (mut bought, mut placed, mut refusals) = (HashMap::new(), HashMap::new(), Vec::new());
    for (number, text) in (1..).zip(lines.lines()) {
        match line(text) {
            Ok((invoice, line)) => bought.entry(invoice).or_insert_with(Vec::new).push(line),
            Err(why) => refusals.push(Err(refused(number, why))),
        }
    }
    for (number, text) in (1..).zip(invoices.lines()) {
        match invoice(text, &mut bought) {
            Ok((customer, order)) => placed.entry(customer).or_insert_with(Vec::new).push(order),
            Err(why) => refusals.push(Err(refused(number, why))),
        }
    }
    for (number, text) in (1..).zip(customers.lines()) {
        refusals.push(customer(text, &mut placed).map_err(|why| refused(number, why)));
    }
    refusals
}

/// An order before the customer's name is known.
struct Unnamed {
    id: String,
    day: Day,
    address: PostalAddress,
    lines: Vec<OrderLine>,
}

fn customer(line: &str, placed: &mut HashMap<u64, Vec<Unnamed>>) -> Result<Row, Refused> {
    let object = json::object(line).map_err(|why| ("line", why))?;
    let fields = Fields(&object);
    let number = object.get("id").and_then(Value::as_u64).ok_or(("id", Why::WrongType))?;
    let name = format!("{} {}", fields.text("firstname")?, fields.text("lastname")?);
    let named = || PersonName::parse(&name).map_err(|why| ("lastname", why.into()));
    let entered = fields.text_or_null("phone")?;
    let phones = || entered.map_or(Ok((None, None)), |text| phone(text, None)).map_err(|why| ("phone", why));
    let (phone, phone_as_entered) = phones()?;
    let id = format!("chinook-{number}");
    let mut orders = Vec::new();
    for Unnamed { id, day, address, lines } in placed.remove(&number).unwrap_or_default() {
        orders.push(Placed { id, day, order: Order { name: named()?, address, phone: phones()?.0, lines } });
    }
    Ok(Row {
        subject: SubjectId::new(&id).map_err(|_| ("id", Why::Id))?,
        id,
        profile: Customer {
            name: named()?,
            email: fields.optional("email", Email::parse)?,
            phone,
            phone_as_entered,
            born: None,
            resident_id: None,
            card: None,
        },
        consents: Vec::new(),
        orders,
        searches: Vec::new(),
    })
}

fn invoice(text: &str, bought: &mut HashMap<u64, Vec<OrderLine>>) -> Result<(u64, Unnamed), Refused> {
    let object = json::object(text).map_err(|why| ("line", why))?;
    let fields = Fields(&object);
    let whole = |field| object.get(field).and_then(Value::as_u64).ok_or((field, Why::WrongType));
    let (id, customer) = (whole("id")?, whole("customer")?);
    let no_date = |_| ("invoicedate", Why::NoDate);
    let date: jiff::Timestamp = fields.text("invoicedate")?.parse().map_err(no_date)?;
    let date = date.to_zoned(jiff::tz::TimeZone::UTC).date().checked_add(YEARS.years()).map_err(no_date)?;
    let day =
        Day::from_ymd(date.year(), date.month(), date.day()).map_err(|_| ("invoicedate", Why::NoDate))?;
    let country = country(fields.text("billingcountry")?).ok_or(("billingcountry", Why::WrongType))?;
    let mut address = fields.value("billingaddress", |text| PostalAddress::parse(text, country))?;
    if let Some(city) = fields.text_or_null("billingcity")? {
        address = address.with_city(city).map_err(|why| ("billingcity", why.into()))?;
    }
    if let Some(region) = fields.text_or_null("billingstate")? {
        address = address.with_region(region).map_err(|why| ("billingstate", why.into()))?;
    }
    if let Some(code) = fields.text_or_null("billingpostalcode")? {
        address = address.with_postal_code(code).map_err(|why| ("billingpostalcode", why.into()))?;
    }
    let lines = bought.remove(&id).ok_or(("id", Why::Missing))?;
    Ok((customer, Unnamed { id: format!("invoice-{id}"), day, address, lines }))
}

fn line(text: &str) -> Result<(u64, OrderLine), Refused> {
    let object = json::object(text).map_err(|why| ("line", why))?;
    let whole = |field| object.get(field).and_then(Value::as_u64).ok_or((field, Why::WrongType));
    let (invoice, track) = (whole("invoice")?, whole("track")?);
    let quantity = u32::try_from(whole("quantity")?).map_err(|_| ("quantity", Why::WrongType))?;
    // Money is never a floating-point number: its decimal text is read instead.
    let price = object.get("unit_price").map(Value::to_string).and_then(|text| cents(&text));
    let price = price.ok_or(("unit_price", Why::WrongType))?;
    let line = OrderLine::parse(&format!("track {track}"), quantity, price, "USD");
    Ok((invoice, line.map_err(|why| ("unit_price", why.into()))?))
}

fn cents(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "00"));
    let part = match part.len() {
        1 => format!("{part}0"),
        2 => part.to_owned(),
        _ => return None,
    };
    whole.parse::<i64>().ok()?.checked_mul(100)?.checked_add(part.parse::<u8>().ok()?.into())
}

fn country(name: &str) -> Option<Country> {
    let code = match name {
        "Argentina" => "AR",
        "Australia" => "AU",
        "Austria" => "AT",
        "Belgium" => "BE",
        "Brazil" => "BR",
        "Canada" => "CA",
        "Chile" => "CL",
        "Czech Republic" => "CZ",
        "Denmark" => "DK",
        "Finland" => "FI",
        "France" => "FR",
        "Germany" => "DE",
        "Hungary" => "HU",
        "India" => "IN",
        "Ireland" => "IE",
        "Italy" => "IT",
        "Netherlands" => "NL",
        "Norway" => "NO",
        "Poland" => "PL",
        "Portugal" => "PT",
        "Spain" => "ES",
        "Sweden" => "SE",
        "USA" => "US",
        "United Kingdom" => "GB",
        _ => return None,
    };
    Country::parse(code).ok()
}
