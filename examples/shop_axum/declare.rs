//! What the shop keeps, why, and for how long.

use customer_vault::value::{Email, OrderLine, PaymentToken, PersonName, Phone, PostalAddress};
use customer_vault::{purposes, record};

purposes! {
    /// Show customers their own account, and fill in their forms.
    pub Account: Contract = 1 "account";
    /// Deliver the parcel.
    pub Shipping: Contract = 2 "shipping";
    /// Charge the customer, and pay back.
    pub Payment: Contract = 3 "payment";
    /// Answer the customer's questions.
    pub Support: Contract = 4 "support";
    /// Books of account.
    pub Invoicing: LegalObligation = 5 "invoicing";
    /// Letters about offers.
    pub Marketing: Consent = 6 "marketing";
}

record! {
    /// A customer's account.
    pub struct Profile / SealedProfile / ProfileView in profile = "profile" {
        /// As written on a letter.
        pub name: PersonName = 1 "name", basic, for [Account: 3 years, Support: 3 years, Marketing: 2 years], padded 32;
        /// By which the customer is found, and written to.
        pub email: Email = 2 "email", basic, for [Account: 3 years, Support: 3 years, Marketing: 2 years], padded 32;
        /// For calling back.
        pub phone: Option<Phone> = 3 "phone", basic sensitive, for [Account: 3 years, Support: 3 years], padded 32;
        /// What the next order's form is filled in with.
        pub address: PostalAddress = 4 "address", basic, for [Account: 3 years], padded 64;
    }
}

record! {
    /// One order. It holds what was on its form: a later change of the account changes no order.
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// On the label, and on the invoice.
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days, Invoicing: 10 years], padded 32;
        /// Where the parcel goes.
        pub address: PostalAddress = 2 "address", basic, for [Shipping: 90 days, Invoicing: 10 years], padded 64;
        /// For the driver.
        pub phone: Option<Phone> = 3 "phone", basic sensitive, for [Shipping: 90 days], padded 32;
        /// What was bought.
        pub lines: Vec<OrderLine> = 4 "lines", transaction, for [Support: 2 years, Invoicing: 10 years];
    }
}

record! {
    /// How an order is paid. A record of its own: whoever packs or answers has nothing to do with it.
    pub struct Paid[u64] / SealedPaid / PaidView in paid = "paid" {
        /// What the payment provider gave for the card.
        pub token: PaymentToken = 1 "token", transaction sensitive, for [Payment: 60 days];
    }
}
