//! The shop's tables in the database of the vault's table.

use customer_vault::store::PostgresOptions;
use customer_vault::store::deadpool_postgres::tokio_postgres::error::SqlState;
use customer_vault::store::deadpool_postgres::{Pool, PoolError, tokio_postgres};
use customer_vault::{Actor, Day, Error, Forget, ForgetReceipt, Ground, Vault};

use super::{Customer, NewCustomer, OrderRow, Rows};
use crate::service::answer::{Answer, Trouble};
use crate::service::declare::{Profile, SealedPaid, SealedProfile, Shipping};

/// The e-mail address and the session are hashes, everything else about a person is sealed. An order outlives its
/// customer's row, so it does not refer to it by a foreign key.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS shop_customers (
        id text PRIMARY KEY,
        email_index bytea NOT NULL UNIQUE,
        session bytea NOT NULL UNIQUE,
        profile bytea NOT NULL
    );
    CREATE TABLE IF NOT EXISTS shop_orders (
        number bigint PRIMARY KEY,
        customer text NOT NULL,
        open boolean NOT NULL DEFAULT true,
        sealed bytea NOT NULL,
        paid bytea NOT NULL
    );
    CREATE INDEX IF NOT EXISTS shop_orders_customer ON shop_orders (customer);
    CREATE SEQUENCE IF NOT EXISTS shop_order_numbers;";

/// How often a change is tried again that somebody else was faster than.
const ATTEMPTS: u32 = 8;

#[derive(Clone)]
pub struct PostgresRows(Pool);

impl From<tokio_postgres::Error> for Trouble {
    fn from(why: tokio_postgres::Error) -> Self {
        // The code alone: the message of a unique violation quotes the row.
        match why.code() {
            Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED) => {
                Error::Busy.into()
            }
            code => {
                tracing::warn!(sqlstate = code.map_or("none", SqlState::code), "the shop's tables");
                Trouble::Rows
            }
        }
    }
}

impl From<PoolError> for Trouble {
    fn from(_: PoolError) -> Self {
        Trouble::Rows
    }
}

impl PostgresRows {
    /// A pool of the shop's own: a request that holds a connection of the vault's pool, and waits for the vault, which
    /// waits for a connection, would wait for ever.
    pub async fn connect(options: &PostgresOptions) -> Answer<Self> {
        let rows = PostgresRows(options.pool().map_err(Error::from)?);
        rows.0.get().await?.batch_execute(TABLES).await?;
        Ok(rows)
    }

    async fn find(&self, sql: &str, hash: &[u8]) -> Answer<Option<Customer>> {
        let row = self.0.get().await?.query_opt(sql, &[&hash]).await?;
        row.map(|row| Customer::new(row.try_get(0)?)).transpose()
    }

    async fn try_sign_up(
        &self,
        vault: &Vault,
        me: &Actor,
        customer: &Customer,
        new: &NewCustomer,
        profile: Profile,
    ) -> Answer<()> {
        let why = Ground::new("sign-up")?;
        let mut client = self.0.get().await?;
        let consents = new.consents.iter().cloned();
        let (mut staged, sealer) =
            vault.staged().enroll_and_seal::<Profile>(&customer.subject, consents, me, &why).await?;
        let sealed = sealer.seal(profile)?;
        let transaction = client.transaction().await?;
        let insert = "INSERT INTO shop_customers (id, email_index, session, profile) VALUES ($1, $2, $3, $4)";
        let made = transaction
            .execute(insert, &[&customer.id, &new.email.as_slice(), &new.session.as_slice(), &sealed])
            .await;
        if made.as_ref().err().and_then(|why| why.code()) == Some(&SqlState::UNIQUE_VIOLATION) {
            return Err(Trouble::Taken);
        }
        made?;
        staged.run(&transaction).await?;
        // A connection that breaks here leaves open whether it was committed. `finish` finds out.
        drop(transaction.commit().await);
        Ok(staged.finish().await?)
    }

    async fn try_forget(
        &self,
        vault: &Vault,
        customer: &Customer,
        request: Forget,
        keep: Day,
    ) -> Answer<ForgetReceipt> {
        let mut client = self.0.get().await?;
        let transaction = client.transaction().await?;
        // No order is placed from here on: placing one takes a share of this lock.
        let lock = "SELECT 1 FROM shop_customers WHERE id = $1 FOR UPDATE";
        transaction.query_opt(lock, &[&customer.id]).await?.ok_or(Trouble::NotFound)?;
        let open = "SELECT 1 FROM shop_orders WHERE customer = $1 AND open LIMIT 1";
        let request = match transaction.query_opt(open, &[&customer.id]).await? {
            Some(_) => request.keeping::<Shipping>(keep),
            None => request,
        };
        let mut staged = vault.staged().forget(&customer.subject, request).await?;
        // The index of the e-mail address goes with the row.
        transaction.execute("DELETE FROM shop_customers WHERE id = $1", &[&customer.id]).await?;
        staged.run(&transaction).await?;
        drop(transaction.commit().await);
        Ok(staged.finish().await?)
    }
}

/// `bigint` has a sign.
fn number(order: u64) -> Answer<i64> {
    i64::try_from(order).map_err(|_| Trouble::NotFound)
}

fn order_row(row: &tokio_postgres::Row) -> Answer<OrderRow> {
    Ok(OrderRow {
        number: u64::try_from(row.try_get::<_, i64>("number")?).map_err(|_| Trouble::Rows)?,
        customer: Customer::new(row.try_get("customer")?)?,
        open: row.try_get("open")?,
        sealed: row.try_get("sealed")?,
    })
}

impl Rows for PostgresRows {
    async fn sign_up(
        &self,
        vault: &Vault,
        me: &Actor,
        customer: &Customer,
        new: &NewCustomer,
        profile: impl Fn() -> Answer<Profile> + Send + Sync,
    ) -> Answer<()> {
        for _ in 0..ATTEMPTS {
            match self.try_sign_up(vault, me, customer, new, profile()?).await {
                Err(Trouble::Vault(Error::Busy)) => {}
                done => return done,
            }
        }
        Err(Error::Busy.into())
    }

    async fn by_session(&self, session: [u8; 32]) -> Answer<Option<Customer>> {
        self.find("SELECT id FROM shop_customers WHERE session = $1", &session).await
    }

    async fn by_email(&self, index: [u8; 16]) -> Answer<Option<Customer>> {
        self.find("SELECT id FROM shop_customers WHERE email_index = $1", &index).await
    }

    async fn customers(&self) -> Answer<Vec<Customer>> {
        let rows = self.0.get().await?.query("SELECT id FROM shop_customers ORDER BY id", &[]).await?;
        rows.iter().map(|row| Customer::new(row.try_get(0)?)).collect()
    }

    async fn profile(&self, _: &Vault, _: &Actor, customer: &Customer) -> Answer<SealedProfile> {
        let sql = "SELECT profile FROM shop_customers WHERE id = $1";
        let row = self.0.get().await?.query_opt(sql, &[&customer.id]).await?;
        Ok(row.ok_or(Trouble::NotFound)?.try_get(0)?)
    }

    async fn set_profile(
        &self,
        _: &Vault,
        _: &Actor,
        customer: &Customer,
        old: &SealedProfile,
        new: &SealedProfile,
    ) -> Answer<()> {
        let sql = "UPDATE shop_customers SET profile = $3 WHERE id = $1 AND profile = $2";
        match self.0.get().await?.execute(sql, &[&customer.id, old, new]).await? {
            0 => Err(Error::Busy.into()),
            _ => Ok(()),
        }
    }

    async fn next_order(&self) -> Answer<u64> {
        let row = self.0.get().await?.query_one("SELECT nextval('shop_order_numbers')", &[]).await?;
        u64::try_from(row.try_get::<_, i64>(0)?).map_err(|_| Trouble::Rows)
    }

    async fn place(&self, _: &Vault, _: &Actor, order: &OrderRow, paid: &SealedPaid) -> Answer<()> {
        let mut client = self.0.get().await?;
        let transaction = client.transaction().await?;
        let lock = "SELECT 1 FROM shop_customers WHERE id = $1 FOR SHARE";
        transaction.query_opt(lock, &[&order.customer.id]).await?.ok_or(Trouble::NotFound)?;
        let insert = "INSERT INTO shop_orders (number, customer, sealed, paid) VALUES ($1, $2, $3, $4)";
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&number(order.number)?, &order.customer.id, &order.sealed, paid];
        transaction.execute(insert, &values).await?;
        Ok(transaction.commit().await?)
    }

    async fn paid(
        &self,
        _: &Vault,
        _: &Actor,
        customer: &Customer,
        order: u64,
    ) -> Answer<Option<SealedPaid>> {
        let sql = "SELECT paid FROM shop_orders WHERE number = $1 AND customer = $2";
        let row = self.0.get().await?.query_opt(sql, &[&number(order)?, &customer.id]).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn order(&self, _: &Vault, _: &Actor, order: u64) -> Answer<Option<OrderRow>> {
        let sql = "SELECT number, customer, open, sealed FROM shop_orders WHERE number = $1";
        let row = self.0.get().await?.query_opt(sql, &[&number(order)?]).await?;
        row.as_ref().map(order_row).transpose()
    }

    async fn orders(&self, _: &Vault, _: &Actor, customer: &Customer) -> Answer<Vec<OrderRow>> {
        let sql =
            "SELECT number, customer, open, sealed FROM shop_orders WHERE customer = $1 ORDER BY number";
        self.0.get().await?.query(sql, &[&customer.id]).await?.iter().map(order_row).collect()
    }

    async fn shipped(&self, order: u64) -> Answer<()> {
        let sql = "UPDATE shop_orders SET open = false WHERE number = $1";
        self.0.get().await?.execute(sql, &[&number(order)?]).await?;
        Ok(())
    }

    async fn forget(
        &self,
        vault: &Vault,
        customer: &Customer,
        request: Forget,
        keep: Day,
    ) -> Answer<ForgetReceipt> {
        for _ in 0..ATTEMPTS {
            match self.try_forget(vault, customer, request.clone(), keep).await {
                Err(Trouble::Vault(Error::Busy)) => {}
                done => return done,
            }
        }
        Err(Error::Busy.into())
    }
}
