//! The shop's rows in a redb file, and its sealed records in the vault's store.
//!
//! Two files cannot change in one transaction. So a customer's row says first what is about to happen, and what was begun
//! when the process died is found at the next start: see [`RedbRows::finish`].

use std::path::Path;
use std::sync::Arc;

use customer_vault::error::Erased;
use customer_vault::{Actor, Day, Error, Forget, ForgetReceipt, Ground, Vault};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};

use super::{Customer, NewCustomer, OrderRow, Rows};
use crate::service::answer::{Answer, Trouble};
use crate::service::declare::{Order, Paid, Profile, SealedPaid, SealedProfile, Shipping};

/// By id: how far it is, the blind index of the e-mail address, the hash of the session's secret.
const CUSTOMERS: TableDefinition<'_, &str, (u8, &[u8; 16], &[u8; 32])> = TableDefinition::new("customers");
const EMAILS: TableDefinition<'_, &[u8; 16], &str> = TableDefinition::new("emails");
const SESSIONS: TableDefinition<'_, &[u8; 32], &str> = TableDefinition::new("sessions");
/// By number: the customer, and whether it is open.
const ORDERS: TableDefinition<'_, u64, (&str, bool)> = TableDefinition::new("orders");

const BEGUN: u8 = 0;
const STANDS: u8 = 1;
const LEAVING: u8 = 2;

#[derive(Clone)]
pub struct RedbRows {
    database: Arc<Database>,
    /// A profile is read, changed and put back by one request at a time, and an order is placed before a forget or not
    /// at all. One process has the file, so this is enough.
    changes: Arc<tokio::sync::Mutex<()>>,
}

impl RedbRows {
    /// Opens the file, and makes it where there is none.
    pub fn open(path: &Path) -> Answer<Self> {
        let make = || {
            let database = Database::create(path)?;
            let write = database.begin_write()?;
            drop(write.open_table(CUSTOMERS)?);
            drop(write.open_table(EMAILS)?);
            drop(write.open_table(SESSIONS)?);
            drop(write.open_table(ORDERS)?);
            write.commit()?;
            Ok::<_, redb::Error>(database)
        };
        let database = Arc::new(make().map_err(|_| Trouble::Rows)?);
        Ok(RedbRows { database, changes: Arc::default() })
    }

    /// Finishes what was begun when the process died: a sign-up is taken back, a forget is done again.
    pub async fn finish(&self, vault: &Vault, me: &Actor, keep: Day) -> Answer<usize> {
        let begun = self.with(|database| {
            let mut begun = Vec::new();
            for row in database.begin_read()?.open_table(CUSTOMERS)?.iter()? {
                let (id, row) = row?;
                if row.value().0 != STANDS {
                    begun.push((id.value().to_owned(), row.value().0));
                }
            }
            Ok(begun)
        });
        let begun = begun.await?;
        for (id, state) in &begun {
            let (customer, request) =
                (Customer::new(id.clone())?, Forget::by(me, &Ground::new("interrupted")?));
            let request = match *state {
                LEAVING => self.keeping(&customer, request, keep).await?,
                _ => request.without_grace(),
            };
            self.take_back(vault, customer, request).await?;
        }
        Ok(begun.len())
    }

    async fn take_back(&self, vault: &Vault, customer: Customer, request: Forget) -> Answer<()> {
        match vault.forget(&customer.subject, request).await {
            Ok(_) | Err(Error::NotEnrolled | Error::Erased(Erased::Forgotten)) => {
                self.delete(customer.id).await
            }
            Err(why) => Err(why.into()),
        }
    }

    async fn enroll_and_seal(
        &self,
        vault: &Vault,
        me: &Actor,
        customer: &Customer,
        new: &NewCustomer,
        profile: Profile,
    ) -> Answer<()> {
        let why = Ground::new("sign-up")?;
        vault.enroll(&customer.subject, new.consents.iter().cloned(), me, &why).await?;
        let sealed = vault.sealer::<Profile>(&customer.subject, me, &why).await?.seal(profile)?;
        vault.put(&customer.subject, (), &sealed, me, &why).await?;
        self.set_state(customer.id.clone(), STANDS).await
    }

    /// redb waits for the disk: away from the threads that serve requests.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Answer<T> {
        let database = Arc::clone(&self.database);
        let done = tokio::task::spawn_blocking(move || work(&database)).await;
        done.map_err(|_| Trouble::Rows)?.map_err(|_| Trouble::Rows)
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Answer<T> {
        let whole = |database: &Database| {
            let write = database.begin_write()?;
            let done = work(&write)?;
            write.commit()?;
            Ok(done)
        };
        self.with(whole).await
    }

    async fn set_state(&self, id: String, state: u8) -> Answer<()> {
        let set = move |write: &WriteTransaction| {
            let mut customers = write.open_table(CUSTOMERS)?;
            let row = customers.get(&*id)?.map(|row| (*row.value().1, *row.value().2));
            let Some((email, session)) = row else { return Ok(false) };
            customers.insert(&*id, (state, &email, &session))?;
            Ok(true)
        };
        if self.write(set).await? { Ok(()) } else { Err(Trouble::NotFound) }
    }

    async fn delete(&self, id: String) -> Answer<()> {
        let delete = move |write: &WriteTransaction| {
            let mut customers = write.open_table(CUSTOMERS)?;
            if let Some(row) = customers.remove(&*id)? {
                let (_, email, session) = row.value();
                write.open_table(EMAILS)?.remove(email)?;
                write.open_table(SESSIONS)?.remove(session)?;
            }
            Ok(())
        };
        self.write(delete).await
    }

    async fn numbers(&self, customer: &Customer) -> Answer<Vec<(u64, bool)>> {
        let id = customer.id.clone();
        let numbers = move |database: &Database| {
            // A real shop keeps a second table, by customer.
            let mut numbers = Vec::new();
            for row in database.begin_read()?.open_table(ORDERS)?.iter()? {
                let (number, row) = row?;
                if row.value().0 == id {
                    numbers.push((number.value(), row.value().1));
                }
            }
            Ok(numbers)
        };
        self.with(numbers).await
    }

    async fn keeping(&self, customer: &Customer, request: Forget, keep: Day) -> Answer<Forget> {
        let open = self.numbers(customer).await?.iter().any(|(_, open)| *open);
        Ok(if open { request.keeping::<Shipping>(keep) } else { request })
    }

    async fn begin(&self, customer: &Customer, new: &NewCustomer) -> Answer<()> {
        let (id, email, session) = (customer.id.clone(), new.email, new.session);
        let begin = move |write: &WriteTransaction| {
            let mut emails = write.open_table(EMAILS)?;
            if emails.get(&email)?.is_some() {
                return Ok(false);
            }
            emails.insert(&email, &*id)?;
            write.open_table(SESSIONS)?.insert(&session, &*id)?;
            write.open_table(CUSTOMERS)?.insert(&*id, (BEGUN, &email, &session))?;
            Ok(true)
        };
        if self.write(begin).await? { Ok(()) } else { Err(Trouble::Taken) }
    }

    async fn standing(&self, id: Option<String>) -> Answer<Option<Customer>> {
        let Some(id) = id else { return Ok(None) };
        let key = id.clone();
        let stands = move |database: &Database| {
            let customers = database.begin_read()?.open_table(CUSTOMERS)?;
            Ok(customers.get(&*key)?.is_some_and(|row| row.value().0 == STANDS))
        };
        if self.with(stands).await? { Customer::new(id).map(Some) } else { Ok(None) }
    }
}

impl Rows for RedbRows {
    async fn sign_up(
        &self,
        vault: &Vault,
        me: &Actor,
        customer: &Customer,
        new: &NewCustomer,
        profile: impl Fn() -> Answer<Profile> + Send + Sync,
    ) -> Answer<()> {
        let profile = profile()?;
        self.begin(customer, new).await?;
        let made = self.enroll_and_seal(vault, me, customer, new, profile).await;
        if made.is_err() {
            let request = Forget::by(me, &Ground::new("interrupted")?).without_grace();
            if let Err(why) = self.take_back(vault, customer.clone(), request).await {
                tracing::warn!(code = why.code(), "a sign-up waits for the next start to be taken back");
            }
        }
        made
    }

    async fn by_session(&self, session: [u8; 32]) -> Answer<Option<Customer>> {
        let find = move |database: &Database| {
            let sessions = database.begin_read()?.open_table(SESSIONS)?;
            Ok(sessions.get(&session)?.map(|id| id.value().to_owned()))
        };
        self.standing(self.with(find).await?).await
    }

    async fn by_email(&self, index: [u8; 16]) -> Answer<Option<Customer>> {
        let find = move |database: &Database| {
            let emails = database.begin_read()?.open_table(EMAILS)?;
            Ok(emails.get(&index)?.map(|id| id.value().to_owned()))
        };
        self.standing(self.with(find).await?).await
    }

    async fn customers(&self) -> Answer<Vec<Customer>> {
        let find = |database: &Database| {
            let mut ids = Vec::new();
            for row in database.begin_read()?.open_table(CUSTOMERS)?.iter()? {
                let (id, row) = row?;
                if row.value().0 == STANDS {
                    ids.push(id.value().to_owned());
                }
            }
            Ok(ids)
        };
        self.with(find).await?.into_iter().map(Customer::new).collect()
    }

    async fn profile(&self, vault: &Vault, me: &Actor, customer: &Customer) -> Answer<SealedProfile> {
        let why = Ground::new("account")?;
        vault.get::<Profile>(&customer.subject, (), me, &why).await?.ok_or(Trouble::NotFound)
    }

    async fn set_profile(
        &self,
        vault: &Vault,
        me: &Actor,
        customer: &Customer,
        old: &SealedProfile,
        new: &SealedProfile,
    ) -> Answer<()> {
        let _one_at_a_time = self.changes.lock().await;
        if self.profile(vault, me, customer).await?.as_bytes() != old.as_bytes() {
            return Err(Error::Busy.into());
        }
        Ok(vault.put(&customer.subject, (), new, me, &Ground::new("account")?).await?)
    }

    async fn next_order(&self) -> Answer<u64> {
        let next = |database: &Database| {
            let orders = database.begin_read()?.open_table(ORDERS)?;
            Ok(orders.last()?.map_or(1, |(last, _)| last.value().saturating_add(1)))
        };
        self.with(next).await
    }

    async fn place(&self, vault: &Vault, me: &Actor, order: &OrderRow, paid: &SealedPaid) -> Answer<()> {
        let why = Ground::new("order")?;
        let (number, id) = (order.number, order.customer.id.clone());
        let _one_at_a_time = self.changes.lock().await;
        let place = move |write: &WriteTransaction| {
            let mut orders = write.open_table(ORDERS)?;
            if orders.get(number)?.is_some() {
                return Ok(false); // somebody else has taken this number meanwhile
            }
            orders.insert(number, (&*id, true))?;
            Ok(true)
        };
        if !self.write(place).await? {
            return Err(Error::Busy.into());
        }
        // Where this fails, or the process dies, an open order without contents is left: it is as if it had been none.
        vault.put::<Order>(&order.customer.subject, &number, &order.sealed, me, &why).await?;
        Ok(vault.put::<Paid>(&order.customer.subject, &number, paid, me, &why).await?)
    }

    async fn paid(
        &self,
        vault: &Vault,
        me: &Actor,
        customer: &Customer,
        number: u64,
    ) -> Answer<Option<SealedPaid>> {
        Ok(vault.get::<Paid>(&customer.subject, &number, me, &Ground::new("order")?).await?)
    }

    async fn order(&self, vault: &Vault, me: &Actor, number: u64) -> Answer<Option<OrderRow>> {
        let find = move |database: &Database| {
            let orders = database.begin_read()?.open_table(ORDERS)?;
            Ok(orders.get(number)?.map(|row| (row.value().0.to_owned(), row.value().1)))
        };
        let Some((id, open)) = self.with(find).await? else { return Ok(None) };
        let customer = Customer::new(id)?;
        let sealed = vault.get::<Order>(&customer.subject, &number, me, &Ground::new("order")?).await?;
        Ok(sealed.map(|sealed| OrderRow { number, customer, open, sealed }))
    }

    async fn orders(&self, vault: &Vault, me: &Actor, customer: &Customer) -> Answer<Vec<OrderRow>> {
        let open = self.numbers(customer).await?;
        let sealed = vault.list::<Order, u64>(&customer.subject, me, &Ground::new("orders")?).await?;
        let row = |(number, sealed)| OrderRow {
            number,
            customer: customer.clone(),
            open: open.contains(&(number, true)),
            sealed,
        };
        let mut rows: Vec<OrderRow> = sealed.into_iter().map(row).collect();
        rows.sort_by_key(|row| row.number);
        Ok(rows)
    }

    async fn shipped(&self, number: u64) -> Answer<()> {
        let shipped = move |write: &WriteTransaction| {
            let mut orders = write.open_table(ORDERS)?;
            let id = orders.get(number)?.map(|row| row.value().0.to_owned());
            if let Some(id) = id {
                orders.insert(number, (&*id, false))?;
            }
            Ok(())
        };
        self.write(shipped).await
    }

    async fn forget(
        &self,
        vault: &Vault,
        customer: &Customer,
        request: Forget,
        keep: Day,
    ) -> Answer<ForgetReceipt> {
        let _one_at_a_time = self.changes.lock().await;
        let request = self.keeping(customer, request, keep).await?;
        self.set_state(customer.id.clone(), LEAVING).await?;
        let receipt = vault.forget(&customer.subject, request).await?;
        self.delete(customer.id.clone()).await?;
        Ok(receipt)
    }
}
