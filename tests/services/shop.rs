//! A vault on a real PostgreSQL server, and the shop's own table beside it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use customer_vault::store::deadpool_postgres::tokio_postgres::{self, Client, NoTls};
use customer_vault::store::{PostgresOptions, PostgresStore};
use customer_vault::testing::{MemoryKeeper, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;

#[path = "postgres.rs"]
pub mod server;
pub use server::Server;

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
    /// Recommend goods.
    pub Recommendation: Consent = 2 "recommendation";
}

record! {
    /// One order.
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// To whom it goes.
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days];
    }
}

pub fn order() -> Order {
    Order { name: PersonName::parse("Ada Lovelace").unwrap() }
}

pub fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("shop", &[]))
}

/// A vault and the shop's own table, in one database.
pub struct Shop {
    pub vault: Vault,
    pub options: PostgresOptions,
    pub keeper: MemoryKeeper,
    pub customers: String,
}

impl Shop {
    pub async fn new() -> Shop {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let options = PostgresOptions::new(&shared().url("postgres")).unwrap().table(&format!("vault_{n}"));
        let (store, keeper) = (PostgresStore::connect(options.clone()).await.unwrap(), MemoryKeeper::new());
        let settings = Settings::default().bound_ms(300).unwrap().height(1).unwrap();
        let vault = Options::new().record::<Order>().settings(settings);
        let vault = vault.create(store, keeper.clone(), keeper.clone()).await.unwrap();
        let customers = format!("customers_{n}");
        shared().sql("postgres", &format!("CREATE TABLE {customers} (id text PRIMARY KEY, cart bytea)"));
        Shop { vault, options, keeper, customers }
    }

    /// Another process on the same vault.
    pub async fn another(&self) -> Vault {
        let store = PostgresStore::connect(self.options.clone()).await.unwrap();
        Options::new().record::<Order>().open(store, self.keeper.clone(), self.keeper.clone()).await.unwrap()
    }

    pub async fn insert(&self, client: &impl tokio_postgres::GenericClient, id: &str) {
        client.execute(&format!("INSERT INTO {} (id) VALUES ($1)", self.customers), &[&id]).await.unwrap();
    }

    pub fn customers(&self) -> String {
        shared().sql("postgres", &format!("SELECT id FROM {} ORDER BY id", self.customers))
    }

    pub async fn enrolled(&self, id: &SubjectId) -> bool {
        match self.vault.sealer::<Order>(id, &tester(), &test_ground()).await {
            Ok(_) => true,
            Err(Error::NotEnrolled) => false,
            Err(why) => panic!("{why:?}"),
        }
    }
}

pub async fn client() -> Client {
    let (client, connection) = tokio_postgres::connect(&shared().url("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub fn id(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

pub fn forget() -> Forget {
    Forget::by(&tester(), &test_ground())
}
