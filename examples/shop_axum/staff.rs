//! What staff do, each with a token of their own. The log has every customer that they looked at.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use customer_vault::error::Erased;
use customer_vault::value::{Email, Phone};
use customer_vault::{Absent, Error};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Answer, Form, Trouble, field};
use super::declare::{Marketing, Support, profile};
use super::rows::Rows;
use super::{Bearer, Shop};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Find {
    email: String,
}

/// `POST /support/customers`, with a token for support: who is it that writes from this address? The address is in the
/// body, because URLs end up in logs.
pub async fn find<R: Rows>(
    State(shop): State<Arc<Shop<R>>>,
    Bearer(token): Bearer,
    Form(form): Form<Find>,
) -> Answer {
    let email = field("email", &form.email, Email::parse)?;
    let index = shop.vault.index::<profile::email>(&token, &email).await?;
    let customer = shop.rows.by_email(index).await?.ok_or(Trouble::NotFound)?;
    let grant = shop.vault.unlock::<Support>(&token, &customer.subject).await?;
    let profile = shop.rows.profile(&shop.vault, &shop.me, &customer).await?.open(&grant)?;
    Ok(Json(json!({
        "customer": customer.id,
        "name": profile.name()?.expose(),
        "email": profile.email()?.expose(),
        "phone": profile.phone()?.map(Phone::expose_e164),
    })))
}

/// `POST /marketing/letters`, with a token for marketing: writes to everybody who has agreed to it. Nobody keeps a list of
/// who has: without consent there is no key.
pub async fn letter<R: Rows>(State(shop): State<Arc<Shop<R>>>, Bearer(token): Bearer) -> Answer {
    let (mut sent, mut left_out) = (0_u32, 0_u32);
    for customers in shop.rows.customers().await?.chunks(1000) {
        let subjects: Vec<_> = customers.iter().map(|customer| customer.subject.clone()).collect();
        let grants = shop.vault.unlock_many::<Marketing>(&token, &subjects).await?;
        for (customer, grant) in customers.iter().zip(grants) {
            let grant = match grant {
                Ok(grant) => grant,
                Err(Error::Erased(Erased::NoConsent | Erased::Purpose | Erased::Forgotten)) => {
                    left_out = left_out.saturating_add(1);
                    continue;
                }
                Err(why) => return Err(why.into()),
            };
            let profile = shop.rows.profile(&shop.vault, &shop.me, customer).await?.open(&grant)?;
            match (profile.name(), profile.email()) {
                (Ok(name), Ok(email)) => {
                    write_to(name.expose(), email.expose());
                    sent = sent.saturating_add(1);
                }
                (Err(Absent::NotInToken), _) | (_, Err(Absent::NotInToken)) => {
                    return Err(Absent::NotInToken.into());
                }
                // Its two years are over, or it was sealed before the consent.
                _ => left_out = left_out.saturating_add(1),
            }
        }
    }
    Ok(Json(json!({ "sent": sent, "left out": left_out })))
}

/// A real shop hands it to its mail server here.
fn write_to(_name: &str, _email: &str) {}
