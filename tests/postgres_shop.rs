//! The example of a shop's service, on PostgreSQL: its session, and two of its processes' worth of requests at a time.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]
#![allow(unreachable_pub, missing_docs, dead_code, reason = "modules of an example, and of several tests")]

#[path = "services/postgres.rs"]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod server;
#[path = "../examples/shop_axum/service.rs"]
mod service;
#[path = "../examples/shop_axum/session.rs"]
mod session;

use std::sync::Arc;

use customer_vault::Options;
use customer_vault::store::{PostgresOptions, PostgresStore};
use customer_vault::testing::MemoryKeeper;
use server::Server;
use service::Shop;
use service::rows::postgres::PostgresRows;
use service::rows::records;
use session::Client;
use tokio::net::TcpListener;

const OPERATOR: &str = "an operator's secret of this test";

/// A service on a database of its own.
async fn service(server: &Server, database: &str) -> Client {
    server.sql("postgres", &format!("CREATE DATABASE {database}"));
    let options = PostgresOptions::new(&server.url(database)).unwrap().table("shop_vault");
    let (store, keeper) = (PostgresStore::connect(options.clone()).await.unwrap(), MemoryKeeper::new());
    let vault = records(Options::new()).create(store, keeper.clone(), keeper).await.unwrap();
    tokio::spawn(service::operate::watch(vault.clone()));
    let rows = PostgresRows::connect(&options).await.unwrap();
    let shop = Shop::new(vault, rows, OPERATOR).unwrap();
    let free = || TcpListener::bind(("127.0.0.1", 0));
    let (world, operator) = (free().await.unwrap(), free().await.unwrap());
    let at = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
    let client = Client::new(&at(&world), &at(&operator));
    tokio::spawn(service::serve(shop, world, operator, std::future::pending()));
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_of_the_example_goes_on_postgresql_as_on_redb() {
    let server = Server::start("shop-session", &[]);
    let client = service(&server, "session").await;
    tokio::task::spawn_blocking(move || session::run(&client, OPERATOR).map_err(|why| why.to_string()))
        .await
        .unwrap()
        .unwrap();
    // Ann came back; Ben's row and the index of his address are gone, the orders' rows stay.
    assert_eq!(server.sql("session", "SELECT count(*) FROM shop_customers"), "1");
    assert_eq!(server.sql("session", "SELECT count(*) FROM shop_orders"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_sign_up_at_once_with_one_address_one_is_taken_in() {
    let server = Server::start("shop-storm", &[]);
    let client = Arc::new(service(&server, "storm").await);
    let mut asking = Vec::new();
    for n in 0..24 {
        let client = Arc::clone(&client);
        asking.push(tokio::task::spawn_blocking(move || {
            let email = format!("somebody-{}@example.org", n % 8);
            client.sign_up(&email).unwrap()
        }));
    }
    let mut statuses = Vec::new();
    for asked in asking {
        statuses.push(asked.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![201; 8], vec![409; 16]].concat());
    assert_eq!(server.sql("storm", "SELECT count(*) FROM shop_customers"), "8");
}
