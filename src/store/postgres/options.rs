//! How to reach the database.

use std::{fmt, sync::Arc, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::listen::{Listening, Pooled, Warnings};
use crate::error::StoreError;

/// How to reach the database, and which table to use.
#[derive(Clone)]
pub struct PostgresOptions {
    config: Option<Config>,
    pub(crate) schema: String,
    table: Option<String>,
    pub(crate) answer: Duration,
    connections: usize,
    wait: Duration,
    authorities: Option<String>,
}

impl Default for PostgresOptions {
    /// Schema `public`, and in it the table `customer_vault` for a store, `customer_vault_witness` for a witness; up to 16 connections, 10 seconds for a free one, 30 for an answer.
    fn default() -> Self {
        PostgresOptions {
            config: None,
            schema: "public".to_owned(),
            table: None,
            answer: Duration::from_secs(30),
            connections: 16,
            wait: Duration::from_secs(10),
            authorities: None,
        }
    }
}

impl fmt::Debug for PostgresOptions {
    /// Without the connection string: it holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("schema", &self.schema)
            .field("table", &self.table)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// From a connection string, `postgres://role:password@host/database` or the `key=value` form of libpq. Several hosts
    /// may be named: the one that takes writes is used.
    ///
    /// TLS is required unless every host is this machine (a socket or a loopback address), or the string says
    /// `sslmode=disable`. `sslmode=prefer` is not obeyed: it is what an attacker in between would choose.
    ///
    /// # Errors
    ///
    /// [`StoreError::Settings`] where the string cannot be read. It is not quoted.
    pub fn new(connection: &str) -> Result<Self, StoreError> {
        let mut config: Config = connection.parse().map_err(|_| StoreError::Settings)?;
        if config.get_hosts().is_empty() {
            return Err(StoreError::Settings);
        }
        if config.get_ssl_mode() == SslMode::Prefer {
            // An address goes before a name.
            let local = config.get_hosts().iter().all(is_this_machine)
                && config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
            config.ssl_mode(if local { SslMode::Disable } else { SslMode::Require });
        }
        // A standby answers with what it had some time ago.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(10));
        }
        Ok(PostgresOptions { config: Some(config), ..Self::default() })
    }

    /// The schema of the table: lower-case letters, digits and `_`, up to 63, not beginning with a digit. It is made where
    /// it is missing.
    #[must_use]
    pub fn schema(mut self, name: &str) -> Self {
        name.clone_into(&mut self.schema);
        self
    }

    /// The table, one for each vault. Named as a schema is.
    #[must_use]
    pub fn table(mut self, name: &str) -> Self {
        self.table = Some(name.to_owned());
        self
    }

    /// The most connections of this process. A backup holds one for as long as it reads, and needs another.
    #[must_use]
    pub fn connections(mut self, most: usize) -> Self {
        self.connections = most.max(1);
        self
    }

    /// How long to wait for a free connection: then [`StoreError::Exhausted`].
    #[must_use]
    pub fn wait_for_connection(mut self, at_most: Duration) -> Self {
        self.wait = at_most;
        self
    }

    /// How long to wait for an answer: then [`StoreError::Timeout`] for a read, and the vault finds out what became of a
    /// commit.
    #[must_use]
    pub fn wait_for_answer(mut self, at_most: Duration) -> Self {
        self.answer = at_most;
        self
    }

    /// The certificate authorities to trust, as PEM, instead of the machine's.
    #[must_use]
    pub fn certificate_authorities(mut self, pem: &str) -> Self {
        self.authorities = Some(pem.to_owned());
        self
    }

    pub(crate) fn table_or<'a>(&'a self, default: &'a str) -> &'a str {
        self.table.as_deref().unwrap_or(default)
    }

    /// A pool with these settings, for the shop's own tables: TLS and time limits are as the store has them. Give the store
    /// another one ([`PostgresStore::connect`](super::PostgresStore::connect) makes it): a request that holds a connection of
    /// a pool and waits for the vault, which waits for a connection of the same pool, may wait in vain.
    ///
    /// # Errors
    ///
    /// [`StoreError::Settings`] where the options cannot be used.
    pub fn pool(&self) -> Result<Pool, StoreError> {
        Ok(self.pooled()?.0)
    }

    pub(crate) fn pooled(&self) -> Result<Pooled, StoreError> {
        let config = self.config.clone().ok_or(StoreError::Settings)?;
        // A connection that has died in the pool is found by `is_closed`; the vault finds out about one that has not been
        // noticed yet.
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let warnings = Warnings::default();
        let heard = Arc::clone(&warnings);
        let manager = if config.get_ssl_mode() == SslMode::Disable {
            Manager::from_connect(config, Listening { tls: NoTls, warnings: heard }, manager)
        } else {
            let tls = MakeRustlsConnect::new(self.tls()?);
            Manager::from_connect(config, Listening { tls, warnings: heard }, manager)
        };
        let pool = Pool::builder(manager)
            .max_size(self.connections)
            .wait_timeout(Some(self.wait))
            .create_timeout(Some(self.wait))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| StoreError::Settings)?;
        Ok((pool, warnings))
    }

    fn tls(&self) -> Result<ClientConfig, StoreError> {
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    let certificate = certificate.map_err(|_| StoreError::Settings)?;
                    roots.add(certificate).map_err(|_| StoreError::Settings)?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(StoreError::Settings);
        }
        // Named here, so that a provider which the shop has installed for itself does not decide.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().map_err(|_| StoreError::Settings)?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}
