//! The shop's own rows beside the vault: who the customers are and which orders are open, by ids and hashes alone.
//!
//! [`postgres`] keeps them in tables of the database that the vault's table lies in, so that a change of both is one
//! transaction. [`redb`] keeps them in a file of its own, and shows what has to be done without that.

use std::future::Future;

use customer_vault::{Actor, Consent, Day, Forget, ForgetReceipt, SubjectId, Vault};

use crate::service::answer::Answer;
use crate::service::declare::{Order, Paid, Profile, SealedOrder, SealedPaid, SealedProfile};

#[cfg(feature = "postgres")]
pub mod postgres;
pub mod redb;

/// A customer to be.
pub struct NewCustomer {
    /// The blind index of the e-mail address.
    pub email: [u8; 16],
    /// SHA-256 of the session's secret.
    pub session: [u8; 32],
    pub consents: Vec<Consent>,
}

/// A customer, by what the shop calls them: a random id that says nothing.
#[derive(Clone)]
pub struct Customer {
    pub id: String,
    pub subject: SubjectId,
}

impl Customer {
    pub fn new(id: String) -> Answer<Self> {
        Ok(Customer { subject: SubjectId::new(&id)?, id })
    }
}

/// An order's row.
pub struct OrderRow {
    pub number: u64,
    pub customer: Customer,
    pub open: bool,
    pub sealed: SealedOrder,
}

/// What the shop asks of its rows.
pub trait Rows: Clone + Send + Sync + 'static {
    /// Makes the customer's row, enrols the customer, and seals the profile: all of it or nothing. `profile` is asked
    /// for again where it has to be tried again: sealing takes a value, and wipes it.
    fn sign_up(
        &self,
        vault: &Vault,
        me: &Actor,
        customer: &Customer,
        new: &NewCustomer,
        profile: impl Fn() -> Answer<Profile> + Send + Sync,
    ) -> impl Future<Output = Answer<()>> + Send;

    fn by_session(&self, session: [u8; 32]) -> impl Future<Output = Answer<Option<Customer>>> + Send;

    fn by_email(&self, index: [u8; 16]) -> impl Future<Output = Answer<Option<Customer>>> + Send;

    /// All of them. A real shop asks for a page.
    fn customers(&self) -> impl Future<Output = Answer<Vec<Customer>>> + Send;

    fn profile(
        &self,
        vault: &Vault,
        me: &Actor,
        customer: &Customer,
    ) -> impl Future<Output = Answer<SealedProfile>> + Send;

    /// Replaces a profile that is still `old`; `Error::Busy` where it is not.
    fn set_profile(
        &self,
        vault: &Vault,
        me: &Actor,
        customer: &Customer,
        old: &SealedProfile,
        new: &SealedProfile,
    ) -> impl Future<Output = Answer<()>> + Send;

    /// The number of an order to be: it is sealed under it.
    fn next_order(&self) -> impl Future<Output = Answer<u64>> + Send;

    /// Keeps an order and how it is paid.
    fn place(
        &self,
        vault: &Vault,
        me: &Actor,
        order: &OrderRow,
        paid: &SealedPaid,
    ) -> impl Future<Output = Answer<()>> + Send;

    /// How an order is paid.
    fn paid(
        &self,
        vault: &Vault,
        me: &Actor,
        customer: &Customer,
        number: u64,
    ) -> impl Future<Output = Answer<Option<SealedPaid>>> + Send;

    fn order(
        &self,
        vault: &Vault,
        me: &Actor,
        number: u64,
    ) -> impl Future<Output = Answer<Option<OrderRow>>> + Send;

    fn orders(
        &self,
        vault: &Vault,
        me: &Actor,
        customer: &Customer,
    ) -> impl Future<Output = Answer<Vec<OrderRow>>> + Send;

    /// The parcel has gone.
    fn shipped(&self, number: u64) -> impl Future<Output = Answer<()>> + Send;

    /// Forgets the customer and deletes their row. Where an order is open, its parcel still goes out: shipping is kept
    /// until `keep`.
    fn forget(
        &self,
        vault: &Vault,
        customer: &Customer,
        request: Forget,
        keep: Day,
    ) -> impl Future<Output = Answer<ForgetReceipt>> + Send;
}

/// The records of this shop, for `Options`.
pub fn records(options: customer_vault::Options) -> customer_vault::Options {
    options.record::<Profile>().record::<Order>().record::<Paid>()
}
