//! A token's life: how long it lasts, and a thread that renews it.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::HeaderValue;

use super::client::Client;
use crate::clock::{Clock as _, SystemClock};
use crate::error::KeeperError;

/// What `auth/token/lookup-self` says.
#[derive(Deserialize)]
pub(super) struct Looked {
    data: LookedData,
}

#[derive(Deserialize)]
struct LookedData {
    ttl: u64,
    renewable: bool,
}

impl Looked {
    /// How long it lasts, in seconds, where it can be renewed.
    pub(super) fn life(&self) -> Option<u64> {
        (self.data.renewable && self.data.ttl > 0).then_some(self.data.ttl)
    }
}

/// What `auth/token/renew-self` says.
#[derive(Deserialize)]
pub(super) struct Renewed {
    auth: RenewedAuth,
}

#[derive(Deserialize)]
struct RenewedAuth {
    lease_duration: u64,
    renewable: bool,
}

impl Renewed {
    pub(super) fn life(&self) -> Option<u64> {
        (self.auth.renewable && self.auth.lease_duration > 0).then_some(self.auth.lease_duration)
    }
}

/// The token in use.
#[derive(Default)]
pub(super) struct Lease {
    token: Option<HeaderValue>,
    /// Whether the server has said how long it lasts, or that it does not say.
    asked: bool,
    /// When to renew and when it ends, on the monotonic clock.
    renews_at: Option<Duration>,
    ends_at: Duration,
}

impl Lease {
    /// With whether it is known how long it lasts.
    pub(super) fn token(&self) -> Option<(HeaderValue, bool)> {
        Some((self.token.clone()?, self.asked))
    }

    pub(super) fn renews_at(&self) -> Option<Duration> {
        self.renews_at
    }

    pub(super) fn begin(&mut self, token: &HeaderValue) {
        *self = Lease { token: Some(token.clone()), ..Lease::default() };
    }

    /// The server has refused it.
    pub(super) fn forget(&mut self, token: &HeaderValue) {
        if self.token.as_ref() == Some(token) {
            *self = Lease::default();
        }
    }

    /// It lasts so many seconds and can be renewed, or it cannot. It is renewed when two thirds are over, never twice within
    /// a second.
    pub(super) fn lasts(&mut self, token: &HeaderValue, life_s: Option<u64>) {
        if self.token.as_ref() != Some(token) {
            return;
        }
        let now = SystemClock.monotonic();
        let life = Duration::from_secs(life_s.unwrap_or(0));
        let third = life.checked_div(3).unwrap_or_default();
        let wait = third.saturating_mul(2).max(Duration::from_secs(1));
        self.asked = true;
        self.ends_at = now.saturating_add(life);
        self.renews_at = life_s.map(|_| now.saturating_add(wait));
    }

    /// Tried again after half of what is left, until nothing is left.
    pub(super) fn not_renewed(&mut self) {
        let now = SystemClock.monotonic();
        let left = self.ends_at.saturating_sub(now);
        let half = left.checked_div(2).unwrap_or_default();
        self.renews_at = (left > Duration::from_secs(1)).then(|| now.saturating_add(half));
    }
}

/// A thread that renews the token of a client for as long as the client lives.
#[derive(Default)]
pub(super) struct Renewal(Mutex<Option<mpsc::Sender<()>>>);

impl Renewal {
    pub(super) fn start(&self, client: &Arc<Client>) -> Result<(), KeeperError> {
        let (poke, poked) = mpsc::channel::<()>();
        let client = Arc::downgrade(client);
        let work = move || {
            // Without a client there is nothing more to do, and the channel is closed.
            while let Some(wait) = until_next(&client) {
                match poked.recv_timeout(wait) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => {
                        if let Some(client) = client.upgrade()
                            && client.renews_at().is_some_and(|at| at <= SystemClock.monotonic())
                        {
                            client.renew();
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        thread::Builder::new()
            .name("customer-vault-renew".to_owned())
            .spawn(work)
            .map_err(|_| KeeperError::Io)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(poke);
        Ok(())
    }

    /// There is another token.
    pub(super) fn poke(&self) {
        if let Some(poke) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // The thread has ended only where the process ends.
            let _ = poke.send(());
        }
    }
}

/// An hour where nothing is to be renewed: a new token pokes.
fn until_next(client: &Weak<Client>) -> Option<Duration> {
    let at = client.upgrade()?.renews_at();
    let hour = Duration::from_secs(3600);
    Some(at.map_or(hour, |at| at.saturating_sub(SystemClock.monotonic()).min(hour)))
}
