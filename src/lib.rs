//! Keeps customers' personal data for a shop: each field for stated purposes and periods, under keys that end with them.
//!
//! ```
//! use customer_vault::{Forget, Options, Scope, SubjectId, purposes, record, testing};
//! use customer_vault::value::{Country, PostalAddress};
//!
//! purposes! {
//!     /// Deliver the parcel.
//!     pub Shipping: Contract = 1 "shipping";
//!     /// Books of account.
//!     pub Invoicing: LegalObligation = 2 "invoicing";
//! }
//!
//! record! {
//!     /// One order.
//!     pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
//!         /// Printed on the label.
//!         pub address: PostalAddress = 1 "address", basic, for [Shipping: 90 days, Invoicing: 10 years];
//!     }
//! }
//!
//! # pollster::block_on(async {
//! # let (me, why) = (testing::tester(), testing::test_ground());
//! let vault = testing::ephemeral(Options::new().record::<Order>()).await?;
//! let alice = SubjectId::new("c-4711")?;
//! vault.enroll(&alice, [], &me, &why).await?;
//!
//! let address = PostalAddress::parse("1 Long Street\nSpringfield", Country::parse("US")?)?;
//! let sealer = vault.sealer::<Order>(&alice, &me, &why).await?;
//! let sealed: SealedOrder = sealer.seal(Order { address }, &7)?; // keep it anywhere
//!
//! let hour = std::time::Duration::from_secs(3600);
//! let token = vault.issue::<Shipping>(&me, &why, hour, Scope::subject(&alice)).await?;
//! let grant = vault.unlock::<Shipping>(&token, &alice).await?;
//! assert_eq!(sealed.open(&grant, &7)?.address()?.expose_lines().next(), Some("1 Long Street"));
//!
//! vault.forget(&alice, Forget::by(&me, &why)).await?;
//! assert!(sealed.open(&grant, &7).is_err()); // from here on, everywhere; the books are kept, for the books alone
//! # Ok::<(), customer_vault::Error>(()) }).unwrap();
//! ```
//!
//! **Every piece of data has its own key. That key lies in one lockbox per purpose, and each lockbox takes two keys: the
//! person's key for that purpose, and the key of the last day on which that purpose may use it. Destroy either, and that
//! purpose is over. When the last lockbox is dead, the data is dead, in every copy, wherever the ciphertext has
//! travelled.** Both kinds of key lie wrapped in a tree whose root is kept outside the store; destroying keys replaces
//! the root, so that older copies of the key store stop opening too.
//!
//! # The verbs
//!
//! | to | call | afterwards |
//! | --- | --- | --- |
//! | take somebody in | [`enroll`](Vault::enroll), [`consent`](Vault::consent) | keys for every purpose; consent on record |
//! | seal | [`sealer`](Vault::sealer), then [`seal`](Sealer::seal) | a [`Sealed`] value, to be kept anywhere or [`put`](Vault::put) |
//! | let somebody read | [`issue`](Vault::issue), [`narrow`](Token::narrow) | a [`Token`] for one purpose |
//! | read | [`unlock`](Vault::unlock), then [`open`](Sealed::open) | an entry in the log, then a [`Grant`], then a view |
//! | let a process read that has no root | `ticket`, with the feature `tickets` | sealed keys for an hour; `forget` and `withdraw` say until when |
//! | change | [`update`](Sealed::update), [`renew`](Sealed::renew) | sealed again; only `renew` gives new days |
//! | see what stands | [`status`](Vault::status), [`tokens`](Vault::tokens), [`log`](Vault::log) | consents, purposes, holds; live tokens; who did what |
//! | do so for many | [`enroll_many`](Vault::enroll_many), [`sealers`](Vault::sealers), [`put_many`](Vault::put_many), [`unlock_many`](Vault::unlock_many) | one commit and one entry a thousand, results at their places |
//! | end a consent | [`withdraw`](Vault::withdraw) | that purpose stops at once |
//! | let time do its work | [`expire`](Vault::expire), daily | the keys of days that are over are destroyed |
//! | forget | [`forget`](Vault::forget), [`undo_forget`](Vault::undo_forget) | *fenced*: nothing opens, except what must stay |
//! | destroy | [`shred`](Vault::shred), daily | *unreachable*: the keys are gone from the store, the root is replaced |
//! | prove it | [`settle`](Vault::settle), daily | *destroyed*, *final*: the old root is gone, a [`Certificate`] is signed |
//! | keep as evidence | [`hold`](Vault::hold), [`release_hold`](Vault::release_hold) | what would go stays, for [`LegalHold`] alone |
//! | stop | [`revoke`](Vault::revoke), [`freeze`](Vault::freeze) | refused everywhere within the bound |
//! | back up and restore | [`backup`](Vault::backup), [`verify_backup`](Vault::verify_backup), [`Options::restore`], [`drill`](Vault::drill) | signed parts; the erased stay erased; a report to be filed |
//! | say who can still read | [`who_can_read`](Vault::who_can_read) | roots and backups of a subject, each with its date |
//! | change keys | [`change_key`](Vault::change_key), [`retire_keys`](Vault::retire_keys), [`replace_root`](Vault::replace_root), [`use_suite`](Vault::use_suite), [`coverage`](Vault::coverage), [`move_subjects`](Vault::move_subjects), [`moves`](Vault::moves) | new keys beside the former ones, which are retired in time |
//! | put a restored store right | [`Options::recover`] | the erased stay erased |
//!
//! # Which type do I want
//!
//! - Declare with [`purposes!`] and [`record!`]; the fields' types are in [`value`], or your own [`Value`].
//! - [`Options`] opens a vault over a [`store`] (one redb file by default), a [`keeper`] of root keys and a [`witness`];
//!   [`keeper::FileKeeper`] is both of these.
//! - [`Sealed<Order>`](Sealed) is a whole record, `Sealed<order::address>` one field for a column of its own. Both are
//!   plain serde values.
//! - [`Error`] says what to do next; [`Absent`] says why a field of a view is not there.
//!
//! # What it does not do
//!
//! - It does not stop a process that has the vault open: that process can open everything. A token limits requests *to*
//!   it.
//! - It does not bring anything back without the keeper: whoever loses keeper or passphrase has lost the data.
//! - It does not notice when store, keeper and witness are all put back to one earlier moment.
//! - It does not encrypt whole files or streams: a cell holds at most 16 MiB.
//!
//! The bytes are specified in `docs/SPEC.md`, the threats in `SECURITY.md`, the structure and the invariants in
//! `ARCHITECTURE.md`; the [`guide`] has the rest.
//!
//! # Features
//!
//! | feature | default | gives |
//! | --- | --- | --- |
//! | `redb` | yes | [`store::RedbStore`]: one file, crash-safe, one process |
//! | `postgres` | no | `store::PostgresStore`: a table in a PostgreSQL database, any number of processes; `witness::PostgresWitness`: one in another |
//! | `postgres-types` | no | [`Sealed`] as a `bytea` column for `tokio-postgres` and `postgres` |
//! | `sqlx-0_9` | no | [`Sealed`] as a `BYTEA` column for `sqlx` 0.9; needs Rust 1.94, as `sqlx` does |
//! | `pkcs11` | no | `keeper::Pkcs11Keeper`: root keys under keys of a PKCS#11 token |
//! | `transit` | no | `keeper::TransitKeeper`: root keys in OpenBao or HashiCorp Vault; `witness::KvWitness`: its key-value store |
//! | `tickets` | no | `ticket`: shelf keys for an hour, sealed to another process's key, and the reader that opens with them alone |
//! | `testing` | no | `testing`: a vault in memory, a clock by hand, faults, the store contract |

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
mod coverage;
mod custody;
mod entry;
mod journal;
pub mod keeper;
mod moves;
mod ring;
mod row;
mod tree;
pub mod witness;
// Who may open.
pub mod actor;
pub mod consent;
mod grant;
mod remembered;
mod status;
#[cfg(feature = "tickets")]
#[cfg_attr(docsrs, doc(cfg(feature = "tickets")))]
pub mod ticket;
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
pub mod backup;
pub mod clock;
mod index;
pub mod log;
pub mod note;
mod records;
mod staged;
pub mod store;
// The whole.
pub mod error;
pub mod guide;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod vault;
#[cfg(test)]
mod vectors;

pub use actor::{Actor, Ground, SubjectId};
pub use certificate::Certificate;
pub use clock::Day;
pub use consent::{Consent, Evidence};
pub use coverage::Coverage;
pub use crypto::aead::Suite;
pub use custody::{Concern, Custody};
pub use error::{Absent, Error, Result};
pub use forget::{Forget, ForgetReceipt, WithdrawReceipt};
pub use grant::Grant;
pub use index::Indexable;
pub use moves::{Moved, Moves};
pub use purpose::{Basis, LegalHold, OpensFor, Purpose, PurposeId, PurposeInfo, SubjectAccess};
pub use record::{Field, NoId, Record, RecordId, RecordIdBytes, Sealable};
pub use records::RecordKey;
pub use ring::{KeyChange, KeyInfo, KeyKind, RootReceipt};
pub use schema::{Class, FieldInfo, Registry, Schema, Term, Treatment, Unit};
pub use sealed::Sealed;
pub use sealer::Sealer;
pub use shred::{ExpireReceipt, SettleReceipt, ShredReceipt};
pub use staged::{Completed, Staged, Staging};
pub use status::{PurposeStatus, Status};
pub use token::{Revoke, Scope, Token, TokenInfo, field};
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

/// The code of the README compiles.
#[cfg(all(doctest, feature = "redb"))]
#[doc = include_str!("../README.md")]
struct Readme;
