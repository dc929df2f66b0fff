//! Sealed values as columns of bytes, by `tokio-postgres` and by `sqlx`, and blind indexes as a unique column.
#![cfg(all(feature = "testing", feature = "postgres", feature = "sqlx-0_9"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, unreachable_pub, missing_docs, dead_code, reason = "a test")]

use std::sync::OnceLock;

use customer_vault::store::deadpool_postgres::tokio_postgres::{self, Client, NoTls};
use customer_vault::store::{PostgresOptions, PostgresStore};
use customer_vault::testing::{MemoryKeeper, test_ground, tester};
use customer_vault::value::{Email, PersonName};
use customer_vault::*;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};
use sqlx_0_9 as sqlx;

#[path = "services/postgres.rs"]
mod server;
use server::Server;

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
}

record! {
    /// How somebody logs in.
    pub struct Login / SealedLogin / LoginView in login = "login" {
        /// Their name.
        pub name: Option<PersonName> = 1 "name", basic, for [Shipping: 90 days];
        /// The address that they log in with.
        pub email: Email = 2 "email", basic, for [Shipping: 90 days];
    }
}

fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("columns", &[]))
}

fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

fn somebody(mail: &str) -> Login {
    Login { name: None, email: email(mail) }
}

async fn vault() -> (Vault, SubjectId) {
    let keeper = MemoryKeeper::new();
    let vault = Options::new().record::<Login>();
    let vault = vault.create(store::MemoryStore::new(), keeper.clone(), keeper).await.unwrap();
    let id = SubjectId::new("a").unwrap();
    vault.enroll(&id, [], &tester(), &test_ground()).await.unwrap();
    (vault, id)
}

async fn client() -> Client {
    let (client, connection) = tokio_postgres::connect(&shared().url("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn tokio_postgres_takes_and_gives_records_fields_nulls_and_arrays() {
    let (vault, id) = vault().await;
    let sealer = vault.sealer::<Login>(&id, &tester(), &test_ground()).await.unwrap();
    let record = sealer.seal(somebody("ada@example.com")).unwrap();
    let field = sealer.seal_field::<login::email>(email("ada@example.com")).unwrap();
    let none: Option<Sealed<login::email>> = None;
    let client = client().await;
    client.batch_execute("CREATE TABLE t1 (n serial, login bytea NOT NULL, email bytea)").await.unwrap();
    let insert = "INSERT INTO t1 (login, email) VALUES ($1, $2)";
    client.execute(insert, &[&record, &Some(&field)]).await.unwrap();
    client.execute(insert, &[&record, &none]).await.unwrap();
    let many = vec![record.clone(), record.clone(), record.clone()];
    let bulk = "INSERT INTO t1 (login) SELECT unnest($1::bytea[])";
    assert_eq!(client.execute(bulk, &[&many]).await.unwrap(), 3);

    let rows = client.query("SELECT login, email FROM t1 ORDER BY n", &[]).await.unwrap();
    assert_eq!(rows.len(), 5);
    let read: (SealedLogin, Option<Sealed<login::email>>) = (rows[0].get(0), rows[0].get(1));
    assert_eq!(read, (record.clone(), Some(field.clone())));
    assert_eq!(rows[1].get::<_, Option<Sealed<login::email>>>(1), None);
    let all: Vec<SealedLogin> =
        client.query_one("SELECT array_agg(login) FROM t1", &[]).await.unwrap().get(0);
    assert_eq!(all.len(), 5);
    let grant = testing::grant::<Shipping>(&vault, &id).await.unwrap();
    assert_eq!(read.0.open(&grant).unwrap().email().unwrap().expose(), "ada@example.com");

    // Bytes that are no sealed value are refused where they are read; a field's are not another field's.
    client.execute("UPDATE t1 SET login = 'x', email = $1 WHERE n = 1", &[&field]).await.unwrap();
    let row = client.query_one("SELECT login, email FROM t1 WHERE n = 1", &[]).await.unwrap();
    assert!(row.try_get::<_, SealedLogin>(0).is_err());
    assert!(row.try_get::<_, Sealed<login::name>>(1).is_err());
    assert!(client.query_one("SELECT 'text'", &[]).await.unwrap().try_get::<_, SealedLogin>(0).is_err());
}

#[tokio::test]
async fn sqlx_takes_and_gives_records_fields_nulls_and_arrays() {
    let (vault, id) = vault().await;
    let sealer = vault.sealer::<Login>(&id, &tester(), &test_ground()).await.unwrap();
    let record = sealer.seal(somebody("ada@example.com")).unwrap();
    let field = sealer.seal_field::<login::email>(email("ada@example.com")).unwrap();
    let mut connection = PgConnection::connect(&shared().url("postgres")).await.unwrap();
    connection.execute("CREATE TABLE t2 (n serial, login bytea NOT NULL, email bytea)").await.unwrap();
    let insert = || sqlx::query("INSERT INTO t2 (login, email) VALUES ($1, $2)");
    insert().bind(&record).bind(Some(&field)).execute(&mut connection).await.unwrap();
    insert().bind(&record).bind(None::<Sealed<login::email>>).execute(&mut connection).await.unwrap();
    let bulk = sqlx::query("INSERT INTO t2 (login) SELECT unnest($1::bytea[])");
    bulk.bind(vec![record.clone(), record.clone()]).execute(&mut connection).await.unwrap();

    let read: Vec<(SealedLogin, Option<Sealed<login::email>>)> =
        sqlx::query_as("SELECT login, email FROM t2 ORDER BY n").fetch_all(&mut connection).await.unwrap();
    assert_eq!(read.len(), 4);
    assert_eq!(read[0], (record.clone(), Some(field)));
    assert_eq!(read[1], (record.clone(), None));
    let all: Vec<SealedLogin> =
        sqlx::query_scalar("SELECT array_agg(login) FROM t2").fetch_one(&mut connection).await.unwrap();
    assert_eq!(all.len(), 4);
    let row = sqlx::query("SELECT 'x'::bytea").fetch_one(&mut connection).await.unwrap();
    assert!(row.try_get::<SealedLogin, _>(0).is_err());
    let row = sqlx::query("SELECT 'x'::text").fetch_one(&mut connection).await.unwrap();
    assert!(row.try_get::<SealedLogin, _>(0).is_err());
}

#[tokio::test]
async fn staged_changes_run_on_sqlx_too() {
    let options = PostgresOptions::new(&shared().url("postgres")).unwrap().table("staged_by_sqlx");
    let (store, keeper) = (PostgresStore::connect(options).await.unwrap(), MemoryKeeper::new());
    let vault = Options::new().record::<Login>().settings(Settings::default().bound_ms(200).unwrap());
    let vault = vault.create(store, keeper.clone(), keeper).await.unwrap();
    let (id, clerk, ground) = (SubjectId::new("a").unwrap(), tester(), test_ground());
    let mut connection = PgConnection::connect(&shared().url("postgres")).await.unwrap();
    connection.execute("CREATE TABLE people (id text PRIMARY KEY)").await.unwrap();
    let mut early = vault.staged().enroll(&id, [], &clerk, &ground).await.unwrap();
    let late = vault.staged().enroll(&id, [], &clerk, &ground).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    sqlx::query("INSERT INTO people VALUES ('a')").execute(&mut *transaction).await.unwrap();
    early.run_sqlx(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    early.finish().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    assert_eq!(late.run_sqlx(&mut transaction).await.unwrap_err(), Error::Busy);
    transaction.rollback().await.unwrap();
    let mut staged = vault.staged().forget(&id, Forget::by(&clerk, &ground)).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    staged.run_sqlx(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    assert!(staged.finish().await.unwrap().witnessed);
    assert!(vault.sealer::<Login>(&id, &clerk, &ground).await.is_err());
}

#[tokio::test]
async fn a_blind_index_is_a_unique_column() {
    let (vault, _) = vault().await;
    let hour = std::time::Duration::from_secs(3600);
    let token = vault.issue::<Shipping>(&tester(), &test_ground(), hour, Scope::everyone()).await.unwrap();
    let client = client().await;
    client.batch_execute("CREATE TABLE t3 (id text, mail bytea UNIQUE)").await.unwrap();
    let insert = "INSERT INTO t3 VALUES ($1, $2)";
    let index = async |mail: &str| vault.index::<login::email>(&token, &email(mail)).await.unwrap().to_vec();
    client.execute(insert, &[&"a", &index("ada@example.com").await]).await.unwrap();
    client.execute(insert, &[&"b", &index("bob@example.com").await]).await.unwrap();
    assert!(client.execute(insert, &[&"c", &index("ada@example.com").await]).await.is_err());
    let found =
        client.query_one("SELECT id FROM t3 WHERE mail = $1", &[&index("bob@example.com").await]).await;
    assert_eq!(found.unwrap().get::<_, &str>(0), "b");
}

/// Ambiguous, and so no code that compiles, where the type implements the trait.
macro_rules! has_no {
    ($trait:path: $($kind:ty)+) => { const _: () = {
        trait Ambiguous<A> { fn ask() {} }
        impl<T: ?Sized> Ambiguous<()> for T {}
        struct Has;
        impl<T: ?Sized + $trait> Ambiguous<Has> for T {}
        $( let _ = <$kind as Ambiguous<_>>::ask; )+
    }; };
}

// ABUSE 22: a plaintext has no way into a column.
has_no!(tokio_postgres::types::ToSql: Email PersonName Login LoginView<Shipping> Token);
has_no!(sqlx::Type<sqlx::Postgres>: Email PersonName Login LoginView<Shipping> Token);
