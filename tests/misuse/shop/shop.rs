//! The shop that the faulty programs beside belong to.
#![allow(dead_code)]

use customer_vault::{Encoder, RecordId, RecordIdBytes, Value, purposes, record};

macro_rules! values { ($($name:ident)*) => { $(
    #[derive(Debug)]
    pub struct $name;
    impl Value for $name {
        fn encoded_len(&self) -> usize { 0 }
        fn encode(&self, _: &mut Encoder<'_>) {}
        fn decode(_: &[u8]) -> Option<Self> { Some($name) }
    }
)* } }
values!(PostalAddress Phone);

pub struct OrderNo(u64);
impl RecordId for OrderNo {
    fn id_bytes(&self) -> RecordIdBytes {
        self.0.id_bytes()
    }
    fn from_id_bytes(bytes: &[u8]) -> Option<Self> {
        u64::from_id_bytes(bytes).map(OrderNo)
    }
}

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
    /// Recommend goods.
    pub Recommendation: Consent = 2 "recommendation";
    /// Books of account.
    pub Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    /// One order.
    pub struct Order[OrderNo] / SealedOrder / OrderView in order = "order", reserved [4 "fax"] {
        pub address: PostalAddress = 1 "address", basic, for [Shipping: 90 days, Invoicing: 10 years];
        pub phone: Option<Phone> = 2 "phone", basic sensitive, for [Shipping: 90 days];
        pub billing: PostalAddress = 3 "billing", basic, for [Shipping: 90 days, Invoicing: 10 years];
    }
}
