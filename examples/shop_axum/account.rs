//! What customers do with their own account.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use customer_vault::value::{Country, Email, OrderLine, PersonName, Phone, PostalAddress};
use customer_vault::{
    Absent, Actor, Consent, Error, Evidence, Forget, ForgetReceipt, Ground, PurposeId, SubjectAccess, Vault,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Form, Trouble, field};
use super::declare::{Account, Marketing, Profile, profile};
use super::rows::{Customer, NewCustomer, Rows};
use super::{Shop, hash, hex, random, today};

/// What people agree to. A new text is a new version: see `Vault::require_notice`.
const NOTICE: &str =
    "We write to you about offers, to the e-mail address of your account, until you tell us not to.";
const NOTICE_VERSION: u32 = 1;
/// A profile that somebody else changes at the same time is read again so often.
const ATTEMPTS: u32 = 4;

/// An address as it stands in a form. No `Debug`: what has none ends up in no log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressForm {
    /// Street, house, place: as on a letter, with line feeds.
    lines: String,
    country: String,
}

impl AddressForm {
    pub fn parse(&self) -> Answer<PostalAddress> {
        let country = field("country", &self.country, Country::parse)?;
        field("address", &self.lines, |lines| PostalAddress::parse(lines, country))
    }

    pub fn phone(&self, phone: Option<&str>) -> Answer<Option<Phone>> {
        let country = field("country", &self.country, Country::parse)?;
        phone.map(|phone| field("phone", phone, |phone| Phone::parse(phone, country))).transpose()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignUp {
    name: String,
    email: String,
    phone: Option<String>,
    address: AddressForm,
    /// Never ticked beforehand.
    #[serde(default)]
    marketing: bool,
}

impl SignUp {
    fn profile(&self) -> Answer<Profile> {
        Ok(Profile {
            name: field("name", &self.name, PersonName::parse)?,
            email: field("email", &self.email, Email::parse)?,
            phone: self.address.phone(self.phone.as_deref())?,
            address: self.address.parse()?,
        })
    }
}

fn evidence(me: &Actor) -> Answer<Evidence> {
    Ok(Evidence::of_notice(NOTICE_VERSION, NOTICE, "web", me)?)
}

/// `POST /customers`. The answer has the session's secret: whoever has it is the customer. A real shop would send a link
/// to the address first, and give the session to who follows it.
pub async fn sign_up<R: Rows>(
    State(shop): State<Arc<Shop<R>>>,
    Form(form): Form<SignUp>,
) -> Answer<(StatusCode, Json<Value>)> {
    // Everything is checked before anything is made.
    let profile = form.profile()?;
    let (customer, session) = (Customer::new(format!("c-{}", random::<16>()?))?, random::<32>()?);
    let new = NewCustomer {
        email: shop.index(&profile.email).await?,
        session: hash(&session),
        consents: if form.marketing { vec![Consent::to::<Marketing>(evidence(&shop.me)?)] } else { vec![] },
    };
    shop.rows.sign_up(&shop.vault, &shop.me, &customer, &new, || form.profile()).await?;
    Ok((StatusCode::CREATED, Json(json!({ "customer": customer.id, "session": session }))))
}

/// `GET /me`.
pub async fn show<R: Rows>(State(shop): State<Arc<Shop<R>>>, customer: Customer) -> Answer {
    let grant = shop.grant::<Account>(&customer, &Ground::new("account")?).await?;
    let view = shop.rows.profile(&shop.vault, &shop.me, &customer).await?.open(&grant)?;
    Ok(Json(json!({
        "name": view.name()?.expose(),
        "email": view.email()?.expose(),
        "phone": view.phone()?.map(Phone::expose_e164),
        "address": address(view.address()?),
    })))
}

/// What is done to a profile.
enum Change<'a> {
    Address(&'a AddressForm),
    /// Sealed again as it is declared, for the consents of now.
    Renew,
}

/// Reads the profile, changes it, and puts it back; again where somebody else did the same meanwhile, or where a change of
/// the customer's standing has made grant or sealer stale.
async fn change<R: Rows>(
    shop: &Shop<R>,
    customer: &Customer,
    why: &Ground,
    change: Change<'_>,
) -> Answer<()> {
    for _ in 0..ATTEMPTS {
        match try_change(shop, customer, why, &change).await {
            Err(Trouble::Vault(Error::Busy | Error::Stale)) => {}
            done => return done,
        }
    }
    Err(Error::Busy.into())
}

async fn try_change<R: Rows>(
    shop: &Shop<R>,
    customer: &Customer,
    why: &Ground,
    change: &Change<'_>,
) -> Answer<()> {
    let grant = shop.grant::<Account>(customer, why).await?;
    let sealer = shop.vault.sealer::<Profile>(&customer.subject, &shop.me, why).await?;
    let old = shop.rows.profile(&shop.vault, &shop.me, customer).await?;
    let new = match change {
        Change::Address(form) => {
            let address = form.parse()?;
            old.update(&sealer, &grant, |profile| profile.set::<profile::address>(address))?
        }
        Change::Renew => old.renew(&sealer, &grant, today(), &shop.me, why).await?,
    };
    shop.rows.set_profile(&shop.vault, &shop.me, customer, &old, &new).await
}

/// `PUT /me/address`.
pub async fn move_house<R: Rows>(
    State(shop): State<Arc<Shop<R>>>,
    customer: Customer,
    Form(form): Form<AddressForm>,
) -> Answer<StatusCode> {
    change(&shop, &customer, &Ground::new("moved")?, Change::Address(&form)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /me/marketing`. What was sealed before the consent has no lockbox for marketing: the profile is sealed again.
pub async fn consent<R: Rows>(State(shop): State<Arc<Shop<R>>>, customer: Customer) -> Answer<StatusCode> {
    let why = Ground::new("consent")?;
    shop.vault.consent::<Marketing>(&customer.subject, evidence(&shop.me)?, &shop.me, &why).await?;
    change(&shop, &customer, &why, Change::Renew).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /me/marketing`. There is nothing else to do: the key is fenced, and every letter stops here.
pub async fn withdraw<R: Rows>(State(shop): State<Arc<Shop<R>>>, customer: Customer) -> Answer<StatusCode> {
    shop.vault.withdraw::<Marketing>(&customer.subject, &shop.me, &Ground::new("withdrawn")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /me/export`: everything that is held of the person, for the person (GDPR Art. 15 and 20).
pub async fn export<R: Rows>(State(shop): State<Arc<Shop<R>>>, customer: Customer) -> Answer {
    let why = Ground::new("export")?;
    let grant = shop.grant::<SubjectAccess>(&customer, &why).await?;
    let profile = shop.rows.profile(&shop.vault, &shop.me, &customer).await?.open(&grant)?;
    let mut orders = Vec::new();
    for row in shop.rows.orders(&shop.vault, &shop.me, &customer).await? {
        let order = row.sealed.open(&grant, &row.number)?;
        let lines = |lines: &[OrderLine]| lines.iter().map(line).collect::<Value>();
        let paid = match shop.rows.paid(&shop.vault, &shop.me, &customer, row.number).await? {
            // The token is the provider's, and pays: what tells the person something is the card.
            Some(paid) => {
                shown(paid.open(&grant, &row.number)?.token(), |token| token.masked().to_string().into())
            }
            None => Value::Null,
        };
        orders.push(json!({
            "order": row.number,
            "open": row.open,
            "name": shown(order.name(), |name| name.expose().into()),
            "address": shown(order.address(), address),
            "phone": shown(order.phone(), phone),
            "lines": shown(order.lines(), lines),
            "paid": paid,
        }));
    }
    let status = shop.vault.status(&customer.subject, &shop.me, &why).await?;
    let marketing = status.purposes.iter().find(|one| one.purpose == PurposeId::of::<Marketing>());
    Ok(Json(json!({
        "customer": customer.id,
        "name": shown(profile.name(), |name| name.expose().into()),
        "email": shown(profile.email(), |email| email.expose().into()),
        "phone": shown(profile.phone(), phone),
        "address": shown(profile.address(), address),
        "marketing": marketing.is_some_and(|one| one.stands),
        "orders": orders,
    })))
}

/// A field, or why it is not there: that is a part of the answer too.
fn shown<T>(field: Result<T, Absent>, show: impl FnOnce(T) -> Value) -> Value {
    field.map_or_else(|why| json!({ "absent": why.to_string() }), show)
}

fn phone(phone: Option<&Phone>) -> Value {
    phone.map(Phone::expose_e164).into()
}

pub fn address(address: &PostalAddress) -> Value {
    json!({
        "lines": address.expose_lines().collect::<Vec<_>>(),
        "country": address.expose_country().as_str(),
    })
}

fn line(line: &OrderLine) -> Value {
    json!({
        "item": line.expose_item(),
        "quantity": line.expose_quantity(),
        "cents": line.expose_unit_price(),
        "currency": line.expose_currency(),
    })
}

/// `POST /me/forget`. An open order still ships, and the books stay, each for itself; all else is over when this returns.
/// The answer's `reference` and `opening` are the person's: with them the certificate to come can be asked for and read.
pub async fn forget<R: Rows>(State(shop): State<Arc<Shop<R>>>, customer: Customer) -> Answer {
    let request = Forget::by(&shop.me, &Ground::new("person-asked")?).requested_by("the account's owner");
    let receipt = shop.rows.forget(&shop.vault, &customer, request, Shop::<R>::keep_until()).await?;
    if !receipt.witnessed {
        tracing::warn!("a forget waits for the witness");
    }
    Ok(Json(told(&shop.vault, &receipt)))
}

fn told(vault: &Vault, receipt: &ForgetReceipt) -> Value {
    let registry = vault.registry();
    let stay = receipt.stays.iter();
    let stay = stay.map(|(purpose, until)| {
        (registry.label(*purpose).unwrap_or("unknown").to_owned(), until.to_string().into())
    });
    json!({
        "reference": hex(&receipt.reference),
        "opening": hex(&receipt.opening),
        "keys destroyed from": receipt.due.to_string(),
        "stays": stay.collect::<serde_json::Map<_, _>>(),
    })
}
