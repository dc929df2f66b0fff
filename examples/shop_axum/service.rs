//! A small shop's service: what customers, staff, carrier and operator may ask of it.

use std::future::{Future, IntoFuture as _};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::from_fn;
use axum::routing::{get, post, put};
use customer_vault::clock::{Clock as _, SystemClock};
use customer_vault::{Actor, Day, Error, Grant, Ground, Purpose, Scope, Token, Vault, error::Denied};
use rand::TryRng as _;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};

pub mod account;
pub mod answer;
pub mod declare;
pub mod operate;
pub mod orders;
pub mod rows;
pub mod staff;

use answer::{Answer, Trouble, traced};
use declare::{Support, profile};
use rows::{Customer, Rows};

/// How long shipping is kept for an open order of somebody who is forgotten.
const OPEN_ORDER_DAYS: u16 = 30;
/// For what the service does itself, in the course of one request.
const BRIEFLY: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What every handler shares.
pub struct Shop<R> {
    pub vault: Vault,
    pub rows: R,
    /// Who the log says it was, where no staff was.
    pub me: Actor,
    finder: Mutex<Option<Arc<Token>>>,
    operator: [u8; 32],
}

impl<R: Rows> Shop<R> {
    /// `operator` is the secret that opens the operator's endpoints.
    pub fn new(vault: Vault, rows: R, operator: &str) -> Answer<Arc<Self>> {
        let me = Actor::service("shop")?;
        let operator = hash(operator);
        Ok(Arc::new(Shop { vault, rows, me, finder: Mutex::default(), operator }))
    }

    /// A grant for one customer and one act: its token lives for a minute and reaches nobody else.
    pub async fn grant<P: Purpose>(&self, customer: &Customer, why: &Ground) -> Answer<Grant<P>> {
        let token = self.vault.issue::<P>(&self.me, why, BRIEFLY, Scope::subject(&customer.subject)).await?;
        Ok(self.vault.unlock::<P>(&token, &customer.subject).await?)
    }

    /// The blind index of an e-mail address, by a token that can do nothing else: it reaches that one field. It is kept,
    /// because sign-ups are many and every token is a row.
    pub async fn index(&self, email: &customer_vault::value::Email) -> Answer<[u8; 16]> {
        let token = self.finder().await?;
        let index = self.vault.index::<profile::email>(&token, email).await;
        if let Err(Error::Denied(Denied::Revoked)) = index {
            *self.finder.lock().await = None; // the next request gets another
        }
        Ok(index?)
    }

    async fn finder(&self) -> Answer<Arc<Token>> {
        let mut finder = self.finder.lock().await;
        if let Some(token) = finder.as_ref().filter(|token| token.unverified_expiry() > in_seconds(60)) {
            return Ok(Arc::clone(token));
        }
        let reach = Scope::everyone().field::<profile::email>();
        let token = self.vault.issue::<Support>(&self.me, &Ground::new("sign-up")?, DAY, reach).await?;
        Ok(Arc::clone(finder.insert(Arc::new(token))))
    }

    /// Until when an open order may still be delivered.
    pub fn keep_until() -> Day {
        today().plus(OPEN_ORDER_DAYS)
    }
}

pub fn today() -> Day {
    Day::of(SystemClock.wall())
}

fn in_seconds(seconds: i64) -> i64 {
    SystemClock.wall().div_euclid(1000).saturating_add(seconds)
}

/// What is kept of a secret: enough to know it again.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// So many random bytes as hexadecimal digits.
pub fn random<const N: usize>() -> Answer<String> {
    let mut bytes = [0; N];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(|_| Error::NoRandomness)?;
    Ok(hex(&bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|half| char::from_digit(half.into(), 16))
        .collect()
}

fn bearer(parts: &Parts) -> Answer<&str> {
    let value = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.strip_prefix("Bearer ")).ok_or(Trouble::WhoAreYou)
}

/// The customer whose session it is. There is no id in a customer's URL that could be another's.
impl<R: Rows> FromRequestParts<Arc<Shop<R>>> for Customer {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, shop: &Arc<Shop<R>>) -> Answer<Self> {
        let session = hash(bearer(parts)?);
        shop.rows.by_session(session).await?.ok_or(Trouble::WhoAreYou)
    }
}

/// A vault's token. It is verified by the vault, when it is used.
pub struct Bearer(pub Token);

impl<S: Send + Sync> FromRequestParts<S> for Bearer {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        Token::parse(bearer(parts)?).map(Bearer).map_err(|_| Trouble::WhoAreYou)
    }
}

/// Whoever knows the operator's secret.
pub struct Operator;

impl<R: Rows> FromRequestParts<Arc<Shop<R>>> for Operator {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, shop: &Arc<Shop<R>>) -> Answer<Self> {
        // Hashes are compared: how long that takes tells nothing of the secret.
        if hash(bearer(parts)?) == shop.operator { Ok(Operator) } else { Err(Trouble::WhoAreYou) }
    }
}

/// What the world may ask.
pub fn public<R: Rows>(shop: Arc<Shop<R>>) -> Router {
    Router::new()
        .route("/customers", post(account::sign_up::<R>))
        .route("/me", get(account::show::<R>))
        .route("/me/address", put(account::move_house::<R>))
        .route("/me/marketing", put(account::consent::<R>).delete(account::withdraw::<R>))
        .route("/me/export", get(account::export::<R>))
        .route("/me/forget", post(account::forget::<R>))
        .route("/orders", post(orders::check_out::<R>))
        .route("/orders/{number}/label", get(orders::label::<R>))
        .route("/orders/{number}/shipped", post(orders::shipped::<R>))
        .route("/support/customers", post(staff::find::<R>))
        .route("/marketing/letters", post(staff::letter::<R>))
        .fallback(async || Trouble::NotFound)
        .layer(DefaultBodyLimit::max(64 << 10))
        .layer(from_fn(traced))
        .with_state(shop)
}

/// What an operator may ask, at an address that only this machine reaches.
pub fn private<R: Rows>(shop: Arc<Shop<R>>) -> Router {
    Router::new()
        .route("/tokens", post(operate::issue::<R>))
        .route("/daily", post(operate::daily::<R>))
        .fallback(async || Trouble::NotFound)
        .layer(DefaultBodyLimit::max(64 << 10))
        .layer(from_fn(traced))
        .with_state(shop)
}

/// Serves until `stop` is over, and then what is under way.
pub async fn serve<R: Rows>(
    shop: Arc<Shop<R>>,
    world: TcpListener,
    operator: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (running, stopped) = watch::channel(());
    let stopping = tokio::spawn(async move {
        stop.await;
        drop(running);
    });
    let over = |mut stopped: watch::Receiver<()>| async move { drop(stopped.changed().await) };
    let daily = tokio::spawn(operate::every_day(shop.vault.clone()));
    let world = axum::serve(world, public(Arc::clone(&shop)));
    let operator = axum::serve(operator, private(shop));
    let served = tokio::try_join!(
        world.with_graceful_shutdown(over(stopped.clone())).into_future(),
        operator.with_graceful_shutdown(over(stopped)).into_future(),
    );
    // What they were at is finished by the next start: every step of it is safe to cut off.
    daily.abort();
    stopping.abort();
    served.map(|_| ())
}
