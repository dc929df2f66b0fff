//! What the shop keeps, why, and for how long: the page that its data protection officer signs.

use customer_vault::value::{
    AsEntered, CardNumber, DateOfBirth, Email, OrderLine, PersonName, Phone, PostalAddress, ResidentId,
    SearchQuery,
};
use customer_vault::{purposes, record};

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
    /// Answer the customer's questions.
    pub Support: Contract = 2 "support";
    /// Charge the card, and pay back.
    pub Payment: Contract = 3 "payment";
    /// Books of account.
    pub Invoicing: LegalObligation = 4 "invoicing";
    /// Know who buys what may not be sold to everyone.
    pub Identity: Contract = 5 "identity";
    /// Recommend goods from what the customer looked for.
    pub Recommendation: Consent = 6 "recommendation";
    /// Letters about offers.
    pub Marketing: Consent = 7 "marketing";
    /// Count what is looked for.
    pub Analytics: Consent = 8 "analytics";
}

record! {
    /// A customer. Card numbers are here because the sample has them: a shop should keep its payment provider's
    /// `PaymentToken` instead, which is worth nothing to a thief. Where it must keep a number, then alone, and briefly.
    pub struct Customer / SealedCustomer / CustomerView in customer = "customer" {
        /// As written on a parcel.
        pub name: PersonName = 1 "name", basic, for [Support: 3 years, Marketing: 2 years], padded 32;
        /// For answers and offers.
        pub email: Option<Email> = 2 "email", basic, for [Support: 3 years, Marketing: 2 years], padded 32;
        /// For calling back.
        pub phone: Option<Phone> = 3 "phone", basic sensitive, for [Support: 3 years], padded 32;
        /// What was entered where it is no number that exists: better than none.
        pub phone_as_entered: Option<AsEntered<Phone>> = 4 "phone-as-entered", basic sensitive, for [Support: 3 years], padded 32;
        /// For goods with an age limit.
        pub born: Option<DateOfBirth> = 5 "born", basic sensitive, for [Identity: 3 years];
        /// The same, where the law asks for it.
        pub resident_id: Option<ResidentId> = 6 "resident-id", basic sensitive, for [Identity: 3 years], alone;
        /// For the payment that is under way.
        pub card: Option<CardNumber> = 7 "card", transaction sensitive, for [Payment: 30 days], alone;
    }
}

record! {
    /// One order.
    pub struct Order[String] / SealedOrder / OrderView in order = "order" {
        /// On the label, and on the invoice.
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days, Invoicing: 10 years], padded 32;
        /// Where the parcel goes.
        pub address: PostalAddress = 2 "address", basic, for [Shipping: 90 days, Invoicing: 10 years], padded 64;
        /// For the driver.
        pub phone: Option<Phone> = 3 "phone", basic sensitive, for [Shipping: 90 days], padded 32;
        /// What was bought.
        pub lines: Vec<OrderLine> = 4 "lines", transaction, for [Shipping: 90 days, Invoicing: 10 years];
    }
}

record! {
    /// One search: a record of its own, because a list that grows would have one day for all of it.
    pub struct Search[u32] / SealedSearch / SearchView in search = "search" {
        /// What was looked for.
        pub query: SearchQuery = 1 "query", behaviour, for [Recommendation: 1 year, Analytics: 6 months], padded 32;
    }
}
