//! Keeps customers' personal data, and does it right.

#![cfg_attr(docsrs, feature(doc_cfg))]

// What is protected.
pub mod purpose;
pub mod record;
pub mod schema;
pub mod value;
// How it is sealed.
mod cell;
mod context;
mod crypto;
mod key;
mod sealed;
mod sealer;
mod update;
mod wire;
// Where keys live.
mod calendar;
mod entry;
mod journal;
pub mod keeper;
mod row;
mod tree;
pub mod witness;
// Who may open.
pub mod actor;
pub mod consent;
mod grant;
pub mod token;
mod unlock;
// When it goes.
mod certificate;
mod change;
mod forget;
mod hold;
mod recover;
mod retention;
mod shred;
// Where it lives.
pub mod clock;
pub mod log;
pub mod note;
mod records;
pub mod store;
// The whole.
pub mod error;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod vault;

pub use actor::{Actor, Ground, SubjectId};
pub use certificate::Certificate;
pub use clock::Day;
pub use consent::{Consent, Evidence};
pub use crypto::aead::Suite;
pub use error::{Absent, Error, Result};
pub use forget::{Forget, ForgetReceipt};
pub use grant::Grant;
pub use purpose::{Basis, LegalHold, OpensFor, Purpose, PurposeId, PurposeInfo, SubjectAccess};
pub use record::{Field, NoId, Record, RecordId, RecordIdBytes, Sealable};
pub use records::RecordKey;
pub use schema::{Class, FieldInfo, Registry, Schema, Term, Treatment, Unit};
pub use sealed::Sealed;
pub use sealer::Sealer;
pub use shred::{ExpireReceipt, SettleReceipt, ShredReceipt};
pub use token::Token;
pub use unlock::{Revoke, Scope, TokenInfo, field};
pub use update::Changes;
pub use value::{Encoder, FieldType, Value};
pub use vault::{LogReport, Options, RestoreWindow, Settings, Vault};

/// What code that `record!` and `purposes!` write refers to.
#[doc(hidden)]
pub mod __private {
    pub use crate::record::check::{
        built_in_among, cells, count, each_once, in_order, kept_number, label, no_empty_period, no_forever,
        reserved, treatment,
    };
    pub use crate::record::{encode, encoded_len, lend, number_at, take};
    pub use crate::value::Encoder;
}
