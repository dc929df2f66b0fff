//! The shop's own export, line by line: each becomes typed values or a refusal that says where and why, never what.

use std::collections::HashSet;
use std::fmt;

use customer_vault::value::{
    AsEntered, CardNumber, Country, DateOfBirth, Email, Invalid, OrderLine, PersonName, Phone, PostalAddress,
    ResidentId, SearchQuery,
};
use customer_vault::{Day, SubjectId};
use serde_json::{Map, Value};

use crate::declare::{Customer, Order};
use crate::json;

/// A customer's row, parsed.
pub struct Row {
    pub id: String,
    pub subject: SubjectId,
    pub profile: Customer,
    pub consents: Vec<Wish>,
    pub orders: Vec<Placed>,
    pub searches: Vec<SearchQuery>,
}

/// An order, with the day it was placed on.
pub struct Placed {
    pub id: String,
    pub day: Day,
    pub order: Order,
}

/// What a customer can consent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Recommendation,
    Marketing,
    Analytics,
}

/// Why a row was refused, and where. It holds nothing of the row.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    pub line: usize,
    pub field: &'static str,
    pub why: Why,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    LineTooLong,
    CutOff,
    NoJson,
    NoObject,
    TooDeep,
    KeyTwice,
    UnknownKey,
    Missing,
    WrongType,
    NoDate,
    Negative,
    Empty,
    UnknownConsent,
    Twice,
    Id,
    Value(Invalid),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::LineTooLong => "longer than a line may be",
            Why::CutOff => "ends too early",
            Why::NoJson => "is not JSON",
            Why::NoObject => "is not a JSON object",
            Why::TooDeep => "nested too deeply",
            Why::KeyTwice => "one key twice",
            Why::UnknownKey => "a key that is not known",
            Why::Missing => "missing",
            Why::WrongType => "of another JSON type",
            Why::NoDate => "no date and time",
            Why::Negative => "below zero",
            Why::Empty => "empty",
            Why::UnknownConsent => "no consent that the shop asks for",
            Why::Twice => "was there before",
            Why::Id => "not 1 to 256 bytes, or a control character",
            Why::Value(invalid) => return invalid.fmt(f),
        })
    }
}

impl From<Invalid> for Why {
    fn from(invalid: Invalid) -> Self {
        Why::Value(invalid)
    }
}

/// Reads the lines of one file; ids must be new to `seen`.
pub fn read(text: &str, today: Day, seen: &mut HashSet<String>) -> Vec<Result<Row, Refusal>> {
    let refusal = |line, (field, why)| Refusal { line, field, why };
    (1..)
        .zip(text.lines())
        .map(|(line, text)| row(text, today, seen).map_err(|why| refusal(line, why)))
        .collect()
}

type Refused = (&'static str, Why);

const KEYS: [&str; 14] = [
    "customer",
    "locale",
    "name",
    "email",
    "phone",
    "address",
    "country",
    "born",
    "national_id",
    "card",
    "consents",
    "orders",
    "searches",
    "why_bad",
];

fn row(line: &str, today: Day, seen: &mut HashSet<String>) -> Result<Row, Refused> {
    let object = json::object(line).map_err(|why| ("line", why))?;
    if object.keys().any(|key| !KEYS.contains(&key.as_str())) {
        return Err(("line", Why::UnknownKey));
    }
    let fields = Fields(&object);
    let id = fields.text("customer")?;
    let subject = SubjectId::new(id).map_err(|_| ("customer", Why::Id))?;
    let country = fields.value("country", Country::parse)?;
    let (phone, entered) = phone(fields.text("phone")?, Some(country)).map_err(|why| ("phone", why))?;
    let profile = Customer {
        name: fields.value("name", PersonName::parse)?,
        email: fields.optional("email", Email::parse)?,
        phone,
        phone_as_entered: entered,
        born: Some(fields.value("born", |text| DateOfBirth::parse_before(text, today))?),
        resident_id: fields.optional("national_id", |text| ResidentId::parse_before(text, today))?,
        card: fields.optional("card", CardNumber::parse)?,
    };
    // Parsed before any order is: an address is checked even where nothing was ordered.
    fields.value("address", |text| PostalAddress::parse(text, country))?;
    let consents = fields.list("consents")?.iter().map(wish).collect::<Result<_, _>>();
    let mut ids = HashSet::new();
    let mut orders = Vec::new();
    for value in fields.list("orders")? {
        let placed = order(value, &fields, country)?;
        if !ids.insert(placed.id.clone()) {
            return Err(("orders.order", Why::Twice));
        }
        orders.push(placed);
    }
    let searches = fields.list("searches")?.iter().map(|value| {
        let text = value.as_str().ok_or(("searches", Why::WrongType))?;
        SearchQuery::parse(text).map_err(|why| ("searches", why.into()))
    });
    let row = Row {
        id: id.to_owned(),
        subject,
        profile,
        consents: consents.map_err(|why| ("consents", why))?,
        orders,
        searches: searches.collect::<Result<_, _>>()?,
    };
    // Last: a row that was refused may come again, mended.
    if seen.insert(id.to_owned()) { Ok(row) } else { Err(("customer", Why::Twice)) }
}

/// A number where it is one; as it was entered where it could be one, but for a digit too many or too few.
pub fn phone(text: &str, region: Option<Country>) -> Result<(Option<Phone>, Option<AsEntered<Phone>>), Why> {
    let read = match region {
        Some(region) => Phone::parse(text, region),
        None => Phone::parse_international(text),
    };
    match read {
        Ok(phone) => Ok((Some(phone), None)),
        Err(why) => {
            let digits = text.bytes().filter(u8::is_ascii_digit).count();
            let plain = text.bytes().all(|b| b.is_ascii_digit() || b" +-.()/#x".contains(&b));
            if plain && (6..=18).contains(&digits) {
                Ok((None, Some(AsEntered::keep(text)?)))
            } else {
                Err(why.into())
            }
        }
    }
}

fn wish(value: &Value) -> Result<Wish, Why> {
    match value.as_str().ok_or(Why::WrongType)? {
        "recommendation" => Ok(Wish::Recommendation),
        "marketing" => Ok(Wish::Marketing),
        "analytics" => Ok(Wish::Analytics),
        _ => Err(Why::UnknownConsent),
    }
}

fn order(value: &Value, customer: &Fields<'_>, country: Country) -> Result<Placed, Refused> {
    let object = value.as_object().ok_or(("orders", Why::WrongType))?;
    let text = |key, field| object.get(key).and_then(Value::as_str).ok_or((field, Why::WrongType));
    let id = text("order", "orders.order")?;
    let placed: jiff::civil::DateTime =
        text("placed", "orders.placed")?.parse().map_err(|_| ("orders.placed", Why::NoDate))?;
    let day = Day::from_ymd(placed.year(), placed.month(), placed.day());
    let total =
        object.get("total_cents").and_then(Value::as_i64).ok_or(("orders.total_cents", Why::WrongType))?;
    if total < 0 {
        return Err(("orders.total_cents", Why::Negative));
    }
    let items = object.get("items").and_then(Value::as_array).ok_or(("orders.items", Why::WrongType))?;
    // The export has one total for all: the first line carries it, the rest are free of charge beside it.
    let mut lines = Vec::new();
    for (item, price) in items.iter().zip(std::iter::once(total).chain(std::iter::repeat(0))) {
        let item = item.as_str().ok_or(("orders.items", Why::WrongType))?;
        lines.push(OrderLine::parse(item, 1, price, "EUR").map_err(|why| ("orders.items", why.into()))?);
    }
    if lines.is_empty() {
        return Err(("orders.items", Why::Empty));
    }
    let order = Order {
        name: customer.value("name", PersonName::parse)?,
        address: customer.value("address", |text| PostalAddress::parse(text, country))?,
        phone: phone(customer.text("phone")?, Some(country)).map_err(|why| ("phone", why))?.0,
        lines,
    };
    Ok(Placed { id: id.to_owned(), day: day.map_err(|_| ("orders.placed", Why::NoDate))?, order })
}

/// What every field of an object goes through.
pub struct Fields<'a>(pub &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub fn text(&self, field: &'static str) -> Result<&'a str, Refused> {
        self.0.get(field).ok_or((field, Why::Missing))?.as_str().ok_or((field, Why::WrongType))
    }

    pub fn text_or_null(&self, field: &'static str) -> Result<Option<&'a str>, Refused> {
        match self.0.get(field) {
            Some(Value::Null) => Ok(None),
            _ => self.text(field).map(Some),
        }
    }

    pub fn value<T>(
        &self,
        field: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Invalid>,
    ) -> Result<T, Refused> {
        parse(self.text(field)?).map_err(|why| (field, why.into()))
    }

    pub fn optional<T>(
        &self,
        field: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Invalid>,
    ) -> Result<Option<T>, Refused> {
        self.text_or_null(field)?.map(parse).transpose().map_err(|why| (field, why.into()))
    }

    pub fn list(&self, field: &'static str) -> Result<&'a Vec<Value>, Refused> {
        self.0.get(field).ok_or((field, Why::Missing))?.as_array().ok_or((field, Why::WrongType))
    }
}
