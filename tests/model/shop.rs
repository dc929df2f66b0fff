//! The shop of the model: four purposes, one for each basis, and an order.

use std::collections::BTreeMap;

use customer_vault::value::{Encoder, Value};
use customer_vault::*;

use crate::plain::{BOOKS, FRAUD, Reader, SHIP, View};

purposes! {
    /// Deliver the parcel.
    pub Ship: Contract = 1 "ship";
    /// Recommend goods.
    pub Recs: Consent = 2 "recs";
    /// Books of account.
    pub Books: LegalObligation = 3 "books";
    /// Find fraud.
    pub Fraud: LegitimateInterest = 4 "fraud";
}

record! {
    /// One order.
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// Where to.
        pub address: Text = 1 "address", basic, for [Ship: 20 days, Books: 3 months];
        /// For the driver.
        pub note: Text = 2 "note", basic, for [Ship: 20 days];
        /// For suggestions.
        pub taste: Text = 3 "taste", behaviour, for [Recs: 2 months];
        /// What it was ordered with.
        pub device: Text = 4 "device", behaviour, for [Recs: 2 months, Fraud: 40 days];
        /// What was ordered.
        pub lines: Text = 5 "lines", transaction, for [Ship: 20 days, Books: 3 months];
    }
}

pub struct Text(pub String);

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Text(..)")
    }
}

impl Value for Text {
    fn encoded_len(&self) -> usize {
        self.0.len()
    }
    fn encode(&self, out: &mut Encoder<'_>) {
        out.put(self.0.as_bytes());
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(|text| Text(text.to_owned()))
    }
}

pub fn an_order(texts: &BTreeMap<u16, String>) -> Order {
    let text = |field: u16| Text(texts[&field].clone());
    Order { address: text(1), note: text(2), taste: text(3), device: text(4), lines: text(5) }
}

pub fn set(changes: &mut Changes<Order>, field: u16, text: &str) {
    let text = Text(text.to_owned());
    match field {
        1 => changes.set::<order::address>(text),
        2 => changes.set::<order::note>(text),
        3 => changes.set::<order::taste>(text),
        4 => changes.set::<order::device>(text),
        _ => changes.set::<order::lines>(text),
    }
}

/// A grant of any purpose.
#[derive(Debug)]
pub enum AnyGrant {
    Ship(Grant<Ship>),
    Recs(Grant<Recs>),
    Books(Grant<Books>),
    Fraud(Grant<Fraud>),
    Access(Grant<SubjectAccess>),
    Hold(Grant<LegalHold>),
}

/// Runs an expression with the grant inside, whatever its purpose.
#[macro_export]
macro_rules! with_grant {
    ($any:expr, $grant:ident => $work:expr) => {
        match $any {
            AnyGrant::Ship($grant) => $work,
            AnyGrant::Recs($grant) => $work,
            AnyGrant::Books($grant) => $work,
            AnyGrant::Fraud($grant) => $work,
            AnyGrant::Access($grant) => $work,
            AnyGrant::Hold($grant) => $work,
        }
    };
}

impl AnyGrant {
    pub async fn unlock(vault: &Vault, reader: Reader, token: &Token, id: &SubjectId) -> Result<Self> {
        Ok(match reader {
            Reader::Purpose(SHIP) => AnyGrant::Ship(vault.unlock(token, id).await?),
            Reader::Purpose(BOOKS) => AnyGrant::Books(vault.unlock(token, id).await?),
            Reader::Purpose(FRAUD) => AnyGrant::Fraud(vault.unlock(token, id).await?),
            Reader::Purpose(_) => AnyGrant::Recs(vault.unlock(token, id).await?),
            Reader::Access => AnyGrant::Access(vault.unlock(token, id).await?),
            Reader::Hold => AnyGrant::Hold(vault.unlock(token, id).await?),
        })
    }

    /// All fields that the compiler lets this purpose name.
    pub fn open(&self, sealed: &Sealed<Order>, id: u64) -> Result<View> {
        macro_rules! fields {
            ($grant:ident: $($number:literal $field:ident),*) => {{
                let view = sealed.open($grant, &id)?;
                BTreeMap::from([$(($number, view.$field().map(|text| text.0.clone()))),*])
            }};
        }
        Ok(match self {
            AnyGrant::Ship(grant) => fields!(grant: 1 address, 2 note, 5 lines),
            AnyGrant::Recs(grant) => fields!(grant: 3 taste, 4 device),
            AnyGrant::Books(grant) => fields!(grant: 1 address, 5 lines),
            AnyGrant::Fraud(grant) => fields!(grant: 4 device),
            AnyGrant::Access(grant) => fields!(grant: 1 address, 2 note, 3 taste, 4 device, 5 lines),
            AnyGrant::Hold(grant) => fields!(grant: 1 address, 2 note, 3 taste, 4 device, 5 lines),
        })
    }
}

pub async fn issue(
    vault: &Vault,
    reader: Reader,
    actor: &Actor,
    lifetime: std::time::Duration,
) -> Result<Token> {
    let (why, all) = (testing::test_ground(), Scope::everyone());
    match reader {
        Reader::Purpose(SHIP) => vault.issue::<Ship>(actor, &why, lifetime, all).await,
        Reader::Purpose(BOOKS) => vault.issue::<Books>(actor, &why, lifetime, all).await,
        Reader::Purpose(FRAUD) => vault.issue::<Fraud>(actor, &why, lifetime, all).await,
        Reader::Purpose(_) => vault.issue::<Recs>(actor, &why, lifetime, all).await,
        Reader::Access => vault.issue::<SubjectAccess>(actor, &why, lifetime, all).await,
        Reader::Hold => vault.issue::<LegalHold>(actor, &why, lifetime, all).await,
    }
}
