//! What an operator does, and what happens by itself.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use customer_vault::{Actor, Error, Ground, Scope, Vault};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Form, Trouble};
use super::declare::{Marketing, Shipping, Support, order};
use super::rows::Rows;
use super::{DAY, HOUR, Operator, Shop};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issue {
    /// For whom: a name of the staff's, or of a carrier. It stands in the log.
    to: String,
    #[serde(rename = "for")]
    purpose: PurposeForm,
    hours: u32,
    /// Of an order: a token that reaches its customer alone, and of the label the name and address.
    order: Option<u64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PurposeForm {
    Support,
    Shipping,
    Marketing,
}

/// `POST /tokens`. The token is shown once; the vault keeps its id and no more.
pub async fn issue<R: Rows>(
    State(shop): State<Arc<Shop<R>>>,
    _: Operator,
    Form(form): Form<Issue>,
) -> Answer<(StatusCode, Json<Value>)> {
    let why = Ground::new("work")?;
    let life = HOUR.saturating_mul(form.hours);
    let everyone = Scope::everyone().issued_by(&Actor::service("operator")?);
    let vault = &shop.vault;
    let token = match (form.purpose, form.order) {
        (PurposeForm::Support, None) => {
            vault.issue::<Support>(&Actor::staff(&form.to)?, &why, life, everyone).await?
        }
        (PurposeForm::Marketing, None) => {
            vault.issue::<Marketing>(&Actor::staff(&form.to)?, &why, life, everyone).await?
        }
        (PurposeForm::Shipping, None) => {
            vault.issue::<Shipping>(&Actor::staff(&form.to)?, &why, life, everyone).await?
        }
        (PurposeForm::Shipping, Some(number)) => {
            let row = shop.rows.order(vault, &shop.me, number).await?.ok_or(Trouble::NotFound)?;
            let one = Scope::subject(&row.customer.subject).field::<order::name>().field::<order::address>();
            let one = one.issued_by(&Actor::service("operator")?);
            vault.issue::<Shipping>(&Actor::third_party(&form.to)?, &why, life, one).await?
        }
        (PurposeForm::Support | PurposeForm::Marketing, Some(_)) => return Err(Trouble::Body),
    };
    Ok((StatusCode::CREATED, Json(json!({ "token": token.expose() }))))
}

/// `POST /daily`: the day's work, now.
pub async fn daily<R: Rows>(State(shop): State<Arc<Shop<R>>>, _: Operator) -> Answer {
    let done = day(&shop.vault).await?;
    Ok(Json(json!({
        "days that are over": done.days,
        "people shredded": done.people,
        "roots destroyed": done.roots,
        "certificates": done.certificates,
    })))
}

/// What a day's work has done.
pub struct Done {
    pub days: usize,
    pub people: usize,
    pub roots: usize,
    pub certificates: usize,
}

/// Destroys the keys of days that are over, of who was forgotten and has had the days of grace, and old roots.
pub async fn day(vault: &Vault) -> Answer<Done> {
    let (me, why) = (Actor::service("shop-daily")?, Ground::new("daily")?);
    let days = vault.expire(&me, &why).await?.days.len();
    let people = vault.shred(&me, &why).await?.subjects;
    let settled = vault.settle(&me, &why).await?;
    Ok(Done { days, people, roots: settled.roots, certificates: settled.certificates.len() })
}

/// Does the day's work once a day, in every process: it is safe anywhere and at any time.
pub async fn every_day(vault: Vault) {
    loop {
        let pause = match day(&vault).await {
            Ok(Done { days, people, roots, certificates }) => {
                tracing::info!(days, people, roots, certificates, "the day's work");
                DAY
            }
            Err(Trouble::Vault(Error::Busy)) => Duration::from_secs(10), // another process is at it
            Err(why) => {
                // Tell somebody: what should be over is not.
                tracing::error!(code = why.code(), "the day's work");
                Duration::from_secs(900)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Keeps leases alive where several processes share the store: see the guide.
#[cfg(feature = "postgres")]
pub async fn watch(vault: Vault) {
    loop {
        if let Err(why) = vault.watch().await {
            tracing::warn!(code = why.code(), "watch");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
