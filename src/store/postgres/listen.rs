//! Connections whose warnings are heard. A commit that waits for standbys and is cut off (`pg_cancel_backend`) is reported
//! as done, with no more than a warning beside it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deadpool_postgres::{Connect, Pool};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config, Error, Socket};

/// Counts warnings, of all connections of a pool.
pub(crate) type Warnings = Arc<AtomicU64>;

/// A pool with its warnings; those of a shop's own pool are not heard.
pub(crate) type Pooled = (Pool, Warnings);

pub(super) struct Listening<T> {
    pub(super) tls: T,
    pub(super) warnings: Warnings,
}

type Connecting<'a> = Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl<T> Connect for Listening<T>
where
    T: MakeTlsConnect<Socket> + Clone + Sync + Send + 'static,
    T::Stream: Sync + Send,
    T::TlsConnect: Sync + Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect(&self, config: &Config) -> Connecting<'_> {
        let (tls, config, warnings) = (self.tls.clone(), config.clone(), Arc::clone(&self.warnings));
        Box::pin(async move {
            let (client, mut connection) = config.connect(tls).await?;
            let served = tokio::spawn(async move {
                // What ends the connection is said to whoever waits for an answer of it.
                while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                    if let AsyncMessage::Notice(notice) = message
                        && *notice.code() == SqlState::WARNING
                    {
                        // Before the answer that follows it is handed on.
                        warnings.fetch_add(1, Ordering::Release);
                    }
                }
            });
            Ok((client, served))
        })
    }
}
