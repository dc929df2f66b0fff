//! What clients are told, and what is written down: codes, never what somebody sent.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use customer_vault::clock::{Clock as _, SystemClock};
use customer_vault::error::{Absent, Misuse};
use customer_vault::value::Invalid;
use customer_vault::{Error, error::Denied};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What a handler gives.
pub type Answer<T = Json<Value>> = Result<T, Trouble>;

/// Why a request was not done. No variant holds anything of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// What the vault said.
    Vault(Error),
    /// A field of the form that its type refuses.
    Field(&'static str, Invalid),
    /// The body is not the JSON that is asked for.
    Body,
    /// No session, token or operator's secret, or none that stands.
    WhoAreYou,
    /// There is no such customer or order.
    NotFound,
    /// There is an account for this e-mail address.
    Taken,
    /// The shop's own tables cannot be reached.
    Rows,
}

impl From<Error> for Trouble {
    fn from(why: Error) -> Self {
        Trouble::Vault(why)
    }
}

impl From<Absent> for Trouble {
    fn from(why: Absent) -> Self {
        Trouble::Vault(why.into())
    }
}

impl Trouble {
    /// A stable code: for the client, for logs and for metrics.
    pub fn code(self) -> &'static str {
        match self {
            Trouble::Vault(why) => why.code(),
            Trouble::Field(..) => "invalid",
            Trouble::Body => "body",
            Trouble::WhoAreYou => "who-are-you",
            Trouble::NotFound => "not-found",
            Trouble::Taken => "taken",
            Trouble::Rows => "rows",
        }
    }

    /// The HTTP status: who has to do something about it.
    pub fn status(self) -> StatusCode {
        match self {
            Trouble::Vault(why) => status(why),
            Trouble::Field(..) => StatusCode::UNPROCESSABLE_ENTITY,
            Trouble::Body => StatusCode::BAD_REQUEST,
            Trouble::WhoAreYou => StatusCode::UNAUTHORIZED,
            Trouble::NotFound => StatusCode::NOT_FOUND,
            Trouble::Taken => StatusCode::CONFLICT,
            Trouble::Rows => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

fn status(why: Error) -> StatusCode {
    match why {
        // Another token is needed: from whoever issues them, or a newer one.
        Error::Denied(Denied::NotOurs | Denied::Expired | Denied::NotYet | Denied::Revoked) => {
            StatusCode::UNAUTHORIZED
        }
        Error::Denied(_) | Error::Absent(Absent::NotInToken | Absent::NotForThisPurpose) => {
            StatusCode::FORBIDDEN
        }
        Error::Erased(_) | Error::Absent(_) => StatusCode::GONE,
        Error::NotEnrolled => StatusCode::NOT_FOUND,
        Error::Misuse(Misuse::AlreadyEnrolled | Misuse::NothingToUndo) => StatusCode::CONFLICT,
        Error::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        // Handlers have tried again by then. The client may, later.
        Error::Busy | Error::Stale | Error::Store(_) | Error::Keeper(_) | Error::Halted(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        // Altered bytes, a restored store, a fault of this program: somebody has to look.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.code() });
        if let (Trouble::Field(field, why), Some(body)) = (self, body.as_object_mut()) {
            // `Invalid` says what is wrong, and never what was given.
            body.insert("field".into(), field.into());
            body.insert("why".into(), why.to_string().into());
        }
        let mut response = (self.status(), Json(body)).into_response();
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// A JSON body. Its rejection is one word: that of `axum::Json` quotes what it could not read.
pub struct Form<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Trouble;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let form: Result<Json<T>, JsonRejection> = Json::from_request(request, state).await;
        form.map(|Json(form)| Form(form)).map_err(|_| Trouble::Body)
    }
}

/// Parses a field of a form.
pub fn field<T>(name: &'static str, text: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Answer<T> {
    parse(text).map_err(|why| Trouble::Field(name, why))
}

/// One line a request: the route's pattern, not its path; the code, not the error's surroundings.
pub async fn traced(request: Request, next: Next) -> Response {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let started = SystemClock.monotonic();
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let ms = SystemClock.monotonic().saturating_sub(started).as_millis();
    let code = response.extensions().get::<Trouble>().map_or("done", |why| why.code());
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(id, %method, route, status, code, ms);
    } else {
        tracing::info!(id, %method, route, status, code, ms);
    }
    response.headers_mut().insert("x-request-id", HeaderValue::from(id));
    response
}
