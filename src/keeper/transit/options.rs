//! How to reach a server that speaks OpenBao's HTTP API.

use std::{fmt, sync::Arc, time::Duration};

use ureq::http::{HeaderValue, Uri, uri::Scheme};
use ureq::tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Proxy};
use zeroize::Zeroizing;

use crate::error::{KeeperError, Misuse, Result};

/// Asked for a token at first, and again when the server refuses the one that it has.
pub(super) type TokenSource = Arc<dyn Fn() -> Result<Zeroizing<String>, KeeperError> + Send + Sync>;

/// How to reach an OpenBao or HashiCorp Vault server, and as whom.
///
/// HTTPS with the certificate verified, without exception; plain HTTP is taken only for a loopback address, as for an agent
/// on this machine. No proxy is used, whatever the environment says, and no redirect is followed: the token goes to the
/// host that is named here.
#[derive(Clone)]
pub struct BaoOptions {
    address: String,
    secure: bool,
    namespace: Option<HeaderValue>,
    pub(super) token: TokenSource,
    answer: Duration,
    pub(super) retries: u32,
    authorities: Option<Vec<Certificate<'static>>>,
    client: Option<ClientCert>,
}

impl fmt::Debug for BaoOptions {
    /// Without address, namespace and token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("BaoOptions");
        shown.field("answer", &self.answer).field("retries", &self.retries).finish_non_exhaustive()
    }
}

impl BaoOptions {
    /// `address` is `https://host` or `https://host:port`, without a path. Name the active node, or a load balancer that
    /// finds it: a standby that answers reads by itself may be behind.
    ///
    /// `token` is asked for a token at the first call and again whenever the server refuses the one that it gave before:
    /// it may read a file that an agent keeps, or log in. It is called on a thread of its own, one call at a time, and may
    /// block. What it returns is wiped; the copy that goes into the request's header is not, because the HTTP library has
    /// it. A token that is renewable is renewed when two thirds of its time are over, whether or not there are calls.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`] where the address cannot be read, has a user, a path or a query, or is plain HTTP to another
    /// machine. It is not quoted.
    pub fn new(
        address: &str,
        token: impl Fn() -> Result<Zeroizing<String>, KeeperError> + Send + Sync + 'static,
    ) -> Result<Self> {
        let uri: Uri = address.parse().map_err(|_| Misuse::Setting)?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(Misuse::Setting.into());
        };
        let secure = *scheme == Scheme::HTTPS;
        let plain = *scheme == Scheme::HTTP && is_loopback(authority.host());
        let bare = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
        if !(secure || plain) || !bare || authority.host().is_empty() || address.contains('#') {
            return Err(Misuse::Setting.into());
        }
        Ok(BaoOptions {
            address: format!("{scheme}://{authority}"),
            secure,
            namespace: None,
            token: Arc::new(token),
            answer: Duration::from_secs(10),
            retries: 3,
            authorities: None,
            client: None,
        })
    }

    /// The namespace in which mounts and token are, such as `shop` or `group/shop`. Default: the root namespace.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`] for what is no path: names of letters, digits, `-`, `_` and `.`, joined by `/`.
    pub fn namespace(mut self, path: &str) -> Result<Self> {
        check_path(path)?;
        self.namespace = Some(HeaderValue::from_str(path).map_err(|_| Misuse::Setting)?);
        Ok(self)
    }

    /// How long to wait for one answer, connecting included. Default: 10 seconds.
    #[must_use]
    pub fn wait_for_answer(mut self, at_most: Duration) -> Self {
        self.answer = at_most;
        self
    }

    /// How often to try again where the server could not be reached, was sealed or busy; waiting 100 ms before the first
    /// time, then twice as long each, 2 seconds at most. Every request may be repeated. Default: 3, at most 10.
    #[must_use]
    pub fn retries(mut self, times: u32) -> Self {
        self.retries = times.min(10);
        self
    }

    /// The certificate authorities to trust, as PEM, instead of the machine's.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`] where there is none in it, or one that cannot be read.
    pub fn certificate_authorities(mut self, pem: &str) -> Result<Self> {
        self.authorities = Some(certificates(pem)?);
        Ok(self)
    }

    /// The certificate that this client shows, with its chain, and its private key, as PEM. The key is kept, unwiped, by
    /// the TLS library.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`] where they cannot be read.
    pub fn client_certificate(mut self, chain: &str, key: &str) -> Result<Self> {
        let key = parse_pem(key.as_bytes()).find_map(|item| match item {
            Ok(PemItem::PrivateKey(key)) => Some(key),
            _ => None,
        });
        let key = key.ok_or(Misuse::Setting)?;
        self.client = Some(ClientCert::new_with_certs(&certificates(chain)?, key));
        Ok(self)
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/v1/{path}", self.address)
    }

    pub(super) fn namespace_header(&self) -> Option<&HeaderValue> {
        self.namespace.as_ref()
    }

    pub(super) fn agent(&self) -> Result<Agent> {
        let config = Agent::config_builder()
            .https_only(self.secure)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // One that the environment names would be given the token where the address is plain.
            .proxy(None::<Proxy>)
            .timeout_global(Some(self.answer))
            .user_agent("customer-vault")
            .max_idle_connections(2);
        if !self.secure {
            return Ok(config.build().new_agent());
        }
        let authorities = self.authorities.clone().unwrap_or_else(|| {
            let machine = rustls_native_certs::load_native_certs().certs;
            machine.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
        });
        if authorities.is_empty() {
            return Err(Misuse::Setting.into());
        }
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::from(authorities))
            .client_cert(self.client.clone())
            // Named here, so that a provider which the shop has installed for itself does not decide.
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        Ok(config.tls_config(tls).build().new_agent())
    }
}

fn certificates(pem: &str) -> Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    for item in parse_pem(pem.as_bytes()) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| Misuse::Setting)? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(Misuse::Setting.into()) } else { Ok(found) }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A mount, a namespace or a path below one: nothing that would mean another place in a URL.
pub(crate) fn check_path(path: &str) -> Result<()> {
    let part = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if path.len() <= 200 && path.split('/').all(part) { Ok(()) } else { Err(Misuse::Setting.into()) }
}

#[cfg(test)]
mod tests {
    use super::{BaoOptions, check_path};
    use crate::error::{Error, Misuse};
    use zeroize::Zeroizing;

    fn of(address: &str) -> Result<BaoOptions, Error> {
        BaoOptions::new(address, || Ok(Zeroizing::new("secret-token".into())))
    }

    #[test]
    fn plain_http_is_for_this_machine_and_an_address_names_a_host_alone() {
        for good in [
            "https://bao.example",
            "https://bao.example:8200/",
            "http://127.0.0.1:8200",
            "http://localhost",
            "http://[::1]:8200",
            "https://[2001:db8::1]:8200",
        ] {
            assert!(of(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "bao.example",
            "http://bao.example",
            "http://10.0.0.1:8200",
            "http://127.0.0.1.example",
            "http://localhost.example",
            "ftp://bao.example",
            "https://",
            "https://me:secret@bao.example",
            "https://bao.example/v1",
            "https://bao.example?x=1",
            "https://bao.example#x",
            "https://bao example",
        ] {
            assert_eq!(of(bad).err(), Some(Misuse::Setting.into()), "{bad}");
        }
    }

    #[test]
    fn paths_stay_in_their_place() {
        for good in ["transit", "a/b", "customer-vault/shop_1", "a.b"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "a//b", "..", "a/../b", "a?b", "a#b", "a%2e", "a b", "ä"] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
        assert!(check_path(&"a".repeat(201)).is_err());
    }

    #[test]
    fn nothing_secret_or_unreadable_is_shown_or_taken() {
        let options = of("https://bao.example").unwrap().namespace("shop").unwrap();
        let shown = format!("{options:?}");
        assert!(!shown.contains("secret") && !shown.contains("bao") && !shown.contains("shop"), "{shown}");
        let again = || of("https://bao.example").unwrap();
        assert!(again().certificate_authorities("no certificate").is_err());
        assert!(again().client_certificate("none", "none").is_err());
        assert!(again().namespace("a\r\nX: b").is_err());
    }
}
