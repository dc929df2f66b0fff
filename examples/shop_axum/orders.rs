//! From the checkout to the parcel.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use customer_vault::value::{OrderLine, PaymentToken, PersonName, Phone};
use customer_vault::{Error, Ground};
use serde::Deserialize;
use serde_json::{Value, json};

use super::account::{AddressForm, address};
use super::answer::{Answer, Form, Trouble, field};
use super::declare::{Order, Paid, Shipping};
use super::rows::{Customer, OrderRow, Rows};
use super::{Bearer, Shop};

const ATTEMPTS: u32 = 4;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckOut {
    name: String,
    phone: Option<String>,
    address: AddressForm,
    lines: Vec<LineForm>,
    payment: PaymentForm,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineForm {
    item: String,
    quantity: u32,
    cents: i64,
}

/// What the payment provider's script gave to the browser. The card itself never comes here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PaymentForm {
    token: String,
    last_four: String,
}

impl CheckOut {
    fn order(&self) -> Answer<Order> {
        let line = |line: &LineForm| {
            field("lines", &line.item, |item| OrderLine::parse(item, line.quantity, line.cents, "EUR"))
        };
        Ok(Order {
            name: field("name", &self.name, PersonName::parse)?,
            address: self.address.parse()?,
            phone: self.address.phone(self.phone.as_deref())?,
            lines: self.lines.iter().map(line).collect::<Answer<_>>()?,
        })
    }

    fn paid(&self) -> Answer<Paid> {
        let token = |token: &str| PaymentToken::parse(token, &self.payment.last_four);
        Ok(Paid { token: field("payment", &self.payment.token, token)? })
    }
}

/// `POST /orders`. It opens nothing: to seal takes no token.
pub async fn check_out<R: Rows>(
    State(shop): State<Arc<Shop<R>>>,
    customer: Customer,
    Form(form): Form<CheckOut>,
) -> Answer<(StatusCode, Json<Value>)> {
    for _ in 0..ATTEMPTS {
        match try_check_out(&shop, &customer, &form).await {
            Ok(number) => return Ok((StatusCode::CREATED, Json(json!({ "order": number })))),
            Err(Trouble::Vault(Error::Busy | Error::Stale)) => {}
            Err(why) => return Err(why),
        }
    }
    Err(Error::Busy.into())
}

async fn try_check_out<R: Rows>(shop: &Shop<R>, customer: &Customer, form: &CheckOut) -> Answer<u64> {
    let why = Ground::new("order")?;
    let (order, paid) = (form.order()?, form.paid()?);
    let number = shop.rows.next_order().await?;
    let sealer = shop.vault.sealer::<Order>(&customer.subject, &shop.me, &why).await?;
    let sealed = sealer.seal(order, &number)?;
    let sealer = shop.vault.sealer::<Paid>(&customer.subject, &shop.me, &why).await?;
    let paid = sealer.seal(paid, &number)?;
    let row = OrderRow { number, customer: customer.clone(), open: true, sealed };
    shop.rows.place(&shop.vault, &shop.me, &row, &paid).await?;
    Ok(number)
}

/// A path's number. The extractor's own rejection would quote the path.
async fn row<R: Rows>(shop: &Shop<R>, number: &str) -> Answer<OrderRow> {
    let number = number.parse().map_err(|_| Trouble::NotFound)?;
    shop.rows.order(&shop.vault, &shop.me, number).await?.ok_or(Trouble::NotFound)
}

/// `GET /orders/{number}/label`, with a token for shipping. What the token does not reach is left out: a carrier's may
/// reach one customer, and the name and address alone.
pub async fn label<R: Rows>(
    State(shop): State<Arc<Shop<R>>>,
    Bearer(token): Bearer,
    Path(number): Path<String>,
) -> Answer {
    let row = row(&shop, &number).await?;
    let grant = shop.vault.unlock::<Shipping>(&token, &row.customer.subject).await?;
    let order = row.sealed.open(&grant, &row.number)?;
    // `order.lines()` would not compile here: what is in the parcel is not declared for shipping.
    Ok(Json(json!({
        "order": row.number,
        "name": order.name()?.expose(),
        "address": address(order.address()?),
        "phone": order.phone().ok().flatten().map(Phone::expose_e164),
    })))
}

/// `POST /orders/{number}/shipped`, by whoever may see its label.
pub async fn shipped<R: Rows>(
    State(shop): State<Arc<Shop<R>>>,
    Bearer(token): Bearer,
    Path(number): Path<String>,
) -> Answer<StatusCode> {
    let row = row(&shop, &number).await?;
    drop(shop.vault.unlock::<Shipping>(&token, &row.customer.subject).await?);
    shop.rows.shipped(row.number).await?;
    Ok(StatusCode::NO_CONTENT)
}
