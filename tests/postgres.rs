//! The store on PostgreSQL keeps what the port promises, and says clearly what is wrong.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, unreachable_pub, missing_docs, dead_code, reason = "a test")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[allow(unused_imports)]
use customer_vault::error::StoreError;
use customer_vault::store::{
    Batch, CommitError, Expect, PostgresOptions, PostgresStore, Range, Store, Versioned,
};
use customer_vault::testing::{store_contract, store_contract_on_threads};

#[path = "services/postgres.rs"]
mod server;
use server::Server;

/// One server for the tests that leave it standing.
fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("store", &[]))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

/// A table that no other test has.
fn options(server: &Server) -> PostgresOptions {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let table = format!("vault_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    PostgresOptions::new(&server.url("postgres")).unwrap().table(&table)
}

fn put(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new().unwrap();
    batch.put(key, value.to_vec());
    batch
}

async fn get(store: &PostgresStore, key: &[u8]) -> Option<Versioned> {
    store.read(&[key.to_vec()]).await.unwrap().remove(0)
}

#[test]
fn postgres_keeps_the_contract() {
    let runtime = runtime();
    runtime.block_on(store_contract(|| {
        let connecting = PostgresStore::connect(options(shared()).connections(8));
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(connecting)).unwrap()
    }));
    let store = runtime.block_on(PostgresStore::connect(options(shared()))).unwrap();
    store_contract_on_threads(&store, |task| runtime.block_on(task));
}
