//! One request to the server and its answer: tried again where that may help, with a token that is kept alive.

use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use ureq::http::{HeaderValue, Method, Request, Response};
use ureq::{Agent, Body};
use zeroize::Zeroizing;

use super::options::BaoOptions;
use super::token::{Lease, Renewal};
use crate::clock::{Clock as _, SystemClock};
use crate::crypto;
use crate::error::{KeeperError, Result};
use crate::keeper::worker::Worker;

/// An answer is no longer, in bytes: lists of thousands of names, and a part of the journal.
const MAX_ANSWER: u64 = 8 << 20;

/// Room for an answer with a key in it, taken at once, so that it is not moved about.
const ROOM: usize = 16 << 10;

/// The longest wait before a request is made again, in milliseconds.
const MAX_PAUSE_MS: u64 = 2000;

/// The server's answer, of which nothing is ever shown. Wiped on drop.
pub(crate) struct Answer {
    status: u16,
    body: Zeroizing<Vec<u8>>,
}

/// What the server says where something is not there: nothing.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<IgnoredAny>,
}

impl Answer {
    pub(crate) fn is_good(&self) -> bool {
        self.status < 300
    }

    /// What `T` says, where the answer is good.
    pub(crate) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, KeeperError> {
        if self.is_good() { self.read_any() } else { Err(KeeperError::Io) }
    }

    /// The same of any answer.
    pub(crate) fn read_any<'a, T: Deserialize<'a>>(&'a self) -> Result<T, KeeperError> {
        serde_json::from_slice(&self.body).map_err(|_| KeeperError::Damaged)
    }

    /// Whether the server says that it has nothing under this name. A mount that is not there is an error of its own: a
    /// key is not destroyed because its mount was renamed.
    pub(crate) fn is_nothing(&self) -> Result<bool, KeeperError> {
        if self.status != 404 {
            return Ok(false);
        }
        match serde_json::from_slice::<Errors>(&self.body) {
            Ok(said) if said.errors.is_empty() => Ok(true),
            // Of a deleted entry the server shows what is left.
            Err(_) => Ok(false),
            Ok(_) => Err(KeeperError::Missing),
        }
    }
}

/// How one attempt ended that brought no answer for the caller.
enum Failed {
    /// To be made again.
    Now,
    /// The token was refused.
    Token,
    /// Nothing helps.
    Said(KeeperError),
}

/// The connection to one server.
pub(crate) struct Client {
    options: BaoOptions,
    agent: Agent,
    lease: Mutex<Lease>,
    renewal: Renewal,
}

impl Client {
    fn new(options: BaoOptions) -> Result<Self> {
        Ok(Client { agent: options.agent()?, options, lease: Mutex::default(), renewal: Renewal::default() })
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer, KeeperError> {
        self.call(&Method::GET, path, None)
    }

    pub(crate) fn delete(&self, path: &str) -> Result<Answer, KeeperError> {
        self.call(&Method::DELETE, path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Result<Answer, KeeperError> {
        self.call(&Method::POST, path, Some(body))
    }

    /// Makes a request until there is an answer. Every request that is made here may be repeated.
    fn call(&self, method: &Method, path: &str, body: Option<&[u8]>) -> Result<Answer, KeeperError> {
        let (mut tries, mut asked_again) = (0_u32, false);
        loop {
            let token = self.token()?;
            match self.attempt(method, path, body, &token) {
                Ok(answer) => return Ok(answer),
                Err(Failed::Said(why)) => return Err(why),
                Err(Failed::Token) if asked_again => return Err(KeeperError::Refused),
                Err(Failed::Token) => {
                    asked_again = true;
                    self.lease().forget(&token);
                }
                Err(Failed::Now) if tries >= self.options.retries => return Err(KeeperError::Unreachable),
                Err(Failed::Now) => {
                    pause(tries);
                    tries = tries.saturating_add(1);
                }
            }
        }
    }

    fn attempt(
        &self,
        method: &Method,
        path: &str,
        body: Option<&[u8]>,
        token: &HeaderValue,
    ) -> Result<Answer, Failed> {
        let said = |_| Failed::Said(KeeperError::Io);
        let mut request = Request::builder().method(method).uri(self.options.url(path));
        request = request.header("X-Vault-Token", token).header("X-Vault-Request", "true");
        if let Some(namespace) = self.options.namespace_header() {
            request = request.header("X-Vault-Namespace", namespace);
        }
        let answer = match body {
            Some(body) => {
                let request = request.header("Content-Type", "application/json");
                self.agent.run(request.body(body).map_err(said)?)
            }
            None => self.agent.run(request.body(()).map_err(said)?),
        };
        let answer = answer.map_err(|error| failed(&error))?;
        match answer.status().as_u16() {
            200..=299 | 400 | 404 => read(answer),
            // To the active node: whoever follows it gives the token to a host that nobody has named.
            300..=399 => Err(Failed::Said(KeeperError::ReadOnly)),
            403 => Err(Failed::Token),
            405 => Err(Failed::Said(KeeperError::Missing)),
            413 | 507 => Err(Failed::Said(KeeperError::Full)),
            // Sealed, a standby, not caught up yet, too many requests, or something between that is in trouble.
            412 | 429 | 472 | 473 | 500..=599 => Err(Failed::Now),
            _ => Err(Failed::Said(KeeperError::Io)),
        }
    }

    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token that there is, or a new one.
    fn token(&self) -> Result<HeaderValue, KeeperError> {
        let known = self.lease().token();
        let token = match known {
            Some((token, true)) => return Ok(token),
            Some((token, false)) => token,
            None => {
                let asked = (self.options.token)()?;
                let mut token = HeaderValue::from_str(asked.trim()).map_err(|_| KeeperError::Refused)?;
                token.set_sensitive(true);
                self.lease().begin(&token);
                token
            }
        };
        let life = match self.attempt(&Method::GET, "auth/token/lookup-self", None, &token) {
            // The server does not answer now: it is asked again with the next request.
            Err(Failed::Now) => return Ok(token),
            Ok(answer) => answer.read::<super::token::Looked>().ok().and_then(|looked| looked.life()),
            // It may not ask about itself, and is used as it is.
            Err(_) => None,
        };
        self.lease().lasts(&token, life);
        self.renewal.poke();
        Ok(token)
    }

    /// When the token is to be renewed; `None` where it is not.
    pub(super) fn renews_at(&self) -> Option<Duration> {
        self.lease().renews_at()
    }

    pub(super) fn renew(&self) {
        let Some((token, _)) = self.lease().token() else { return };
        match self.attempt(&Method::POST, "auth/token/renew-self", Some(b"{}"), &token) {
            Ok(answer) => {
                let renewed = answer.read::<super::token::Renewed>().ok();
                self.lease().lasts(&token, renewed.and_then(|renewed| renewed.life()));
            }
            Err(Failed::Now) => self.lease().not_renewed(),
            // Whoever calls next asks for another one, or goes on with this for as long as it lasts.
            Err(Failed::Token | Failed::Said(_)) => self.lease().lasts(&token, None),
        }
    }
}

/// 100 ms, then twice as long each, and up to half as much by chance.
fn pause(tries: u32) {
    let base = 100_u64.saturating_mul(1 << tries.min(10)).min(MAX_PAUSE_MS);
    let [chance] = crypto::random().unwrap_or([0]);
    let more = base.saturating_mul(u64::from(chance)) / 512;
    thread::sleep(Duration::from_millis(base.saturating_add(more)));
}

fn failed(error: &ureq::Error) -> Failed {
    use std::io::ErrorKind;
    match error {
        // A certificate that is not trusted: trying again does not make it so.
        ureq::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
            Failed::Said(KeeperError::Unreachable)
        }
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => Failed::Said(KeeperError::Unreachable),
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_)
        | ureq::Error::BodyStalled => Failed::Now,
        _ => Failed::Said(KeeperError::Io),
    }
}

fn read(mut answer: Response<Body>) -> Result<Answer, Failed> {
    let status = answer.status().as_u16();
    let mut body = Zeroizing::new(Vec::with_capacity(ROOM));
    let mut reader = answer.body_mut().as_reader().take(MAX_ANSWER.saturating_add(1));
    let mut part = Zeroizing::new([0_u8; 4096]);
    loop {
        // Cut off, or too slow.
        let read = reader.read(part.as_mut_slice()).map_err(|_| Failed::Now)?;
        let Some(read) = part.get(..read).filter(|read| !read.is_empty()) else { break };
        body.extend_from_slice(read);
    }
    let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
    if length > MAX_ANSWER { Err(Failed::Said(KeeperError::Damaged)) } else { Ok(Answer { status, body }) }
}

/// A client on a thread of its own, with what its work remembers from call to call.
pub(crate) struct Link<S> {
    worker: Worker<(Arc<Client>, S)>,
    /// When the server was last found out of reach, in milliseconds of the monotonic clock; 0 for never.
    failed_at: Arc<AtomicU64>,
}

impl<S> Clone for Link<S> {
    fn clone(&self) -> Self {
        Link { worker: self.worker.clone(), failed_at: Arc::clone(&self.failed_at) }
    }
}

impl<S: Send + 'static> Link<S> {
    pub(crate) fn start(options: BaoOptions, state: S) -> Result<Self> {
        let client = Arc::new(Client::new(options)?);
        client.renewal.start(&client)?;
        let worker = Worker::start("customer-vault-bao", (client, state))?;
        Ok(Link { worker, failed_at: Arc::default() })
    }

    /// Has something done. Whoever waited in line while the server was found out of reach is told so at once, instead of
    /// waiting for it as long again.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Client, &mut S) -> Result<T, KeeperError> + Send + 'static,
    ) -> Result<T, KeeperError> {
        let (asked_at, failed_at) = (now_ms(), Arc::clone(&self.failed_at));
        self.worker
            .run(move |(client, state)| {
                if asked_at < failed_at.load(Ordering::Relaxed) {
                    return Err(KeeperError::Unreachable);
                }
                job(client, state).inspect_err(|why| {
                    if *why == KeeperError::Unreachable {
                        failed_at.store(now_ms(), Ordering::Relaxed);
                    }
                })
            })
            .await
    }
}

fn now_ms() -> u64 {
    u64::try_from(SystemClock.monotonic().as_millis()).unwrap_or(u64::MAX)
}
