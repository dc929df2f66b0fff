//! Blind indexes: a keyed hash of a value, by which equal values are found without being stored. The format is in
//! docs/SPEC.md, "Blind index".

use std::any::TypeId;

use zeroize::Zeroizing;

use crate::crypto::Prf;
use crate::error::{Denied, Error, Malformed, Misuse, Result};
use crate::journal::FENCE;
use crate::key::{Blind, Secret, label};
use crate::log::{Action, Outcome};
use crate::record::Field;
use crate::ring::Ring;
use crate::store::{Committed, Expect};
use crate::token::field;
use crate::token::{Fields, Token, Verified};
use crate::tree::ATTEMPTS;
use crate::value::{Email, Encoder, FieldType, Iban, PaymentToken, Phone, ResidentId, Value};
use crate::vault::{Inner, Vault};

/// A value that can be looked up by a blind index: one of which there are so many that nobody tries them all. A date of
/// birth, a postcode or a name is none: whoever may ask for index values could list them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no blind index",
    note = "only values that nobody can try out have one: `Email`, `Phone`, `ResidentId`, `Iban`, `PaymentToken`"
)]
pub trait Indexable: FieldType + indexable::Sealed {
    /// What is looked up: `T` for `Option<T>`.
    type Value: Value;
}

mod indexable {
    pub trait Sealed {}
}

macro_rules! indexable {
    ($($value:ty)+) => { $(
        impl indexable::Sealed for $value {}
        impl Indexable for $value {
            type Value = $value;
        }
        impl indexable::Sealed for Option<$value> {}
        impl Indexable for Option<$value> {
            type Value = $value;
        }
    )+ };
}

indexable!(Email Phone ResidentId Iban PaymentToken);

impl Vault {
    /// The blind index of a value of field `F`: 16 bytes, equal for equal values of this field in this vault, and random
    /// to whoever has not the vault's index key. For a column of the shop's own, unique where the shop wants it so.
    ///
    /// The token must be for a purpose that the field names and reach the field; it cannot be narrowed to a subject, since
    /// who is looked up is not known yet. The call is in the log, without the value.
    ///
    /// Values are compared as they are kept: an e-mail address keeps the case before its `@`, a payment token its last four
    /// digits.
    ///
    /// **What it tells**: that two rows have the same value, and to whoever may call this, whether a value that is guessed
    /// is among the rows. **After a forget** the vault keeps nothing of it, and the shop's column is the shop's to clear:
    /// an index value that is left behind still tells whoever may call this that the value was there, until the index key
    /// is changed.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] for a token that is not valid, was revoked, or is for another purpose, fields or a subject;
    /// [`Error::Halted`] when frozen; [`Error::Stale`] where the store answered too late: try again;
    /// [`Misuse::UnknownRecord`] for a record that the vault was not opened with. Refusals are in the log.
    pub async fn index<F: Field>(
        &self,
        token: &Token,
        value: &<F::Type as Indexable>::Value,
    ) -> Result<[u8; 16]>
    where
        F::Type: Indexable,
    {
        let index = |ring: &Ring| ring.index().0.map(|key| index_of::<F>(key, value));
        self.0.index::<F, _>(token, index).await?.ok_or(Malformed::Length.into())
    }

    /// The same under the former index key, while there is one: after [`change_key`](Self::change_key), until
    /// [`retire_keys`](Self::retire_keys). Look a value up by both meanwhile, and write the new one into each row.
    ///
    /// # Errors
    ///
    /// Those of [`index`](Self::index).
    pub async fn former_index<F: Field>(
        &self,
        token: &Token,
        value: &<F::Type as Indexable>::Value,
    ) -> Result<Option<[u8; 16]>>
    where
        F::Type: Indexable,
    {
        let index = |ring: &Ring| ring.index().1.map(|key| index_of::<F>(key, value));
        self.0.index::<F, _>(token, index).await
    }
}

impl Inner {
    async fn index<F: Field, T>(&self, token: &Token, index: impl Fn(&Ring) -> T) -> Result<T> {
        // What a declaration says counts where the vault was opened with it.
        if !self.served.contains(&(F::RECORD, TypeId::of::<F::Record>())) {
            return Err(Misuse::UnknownRecord.into());
        }
        self.keep_time().await?;
        let purposes: Vec<u16> = F::INFO.terms.iter().map(|term| term.purpose.number).collect();
        let verified = match self.admit(token, &purposes).await {
            Ok(verified) => verified,
            Err(why) => return Err(self.refused(Action::Index, None, 0, why).await),
        };
        for _ in 0..ATTEMPTS {
            let since = self.now();
            let fence = self.catch_up().await?;
            let allowed = self.may_index::<F>(&verified);
            if let Err(why) = allowed {
                return Err(self.refused(Action::Index, Some(&verified), verified.purpose, why).await);
            }
            let entry = self.unlock_entry(Action::Index, Outcome::Done, &verified, verified.purpose)?;
            let entry = entry.touching(Fields::new(&[field::<F>()])?);
            let expect = (FENCE.to_vec(), Expect::unchanged(fence.as_ref()));
            if self.lane.append(vec![entry], Some(expect)).await? == Committed::Yes {
                // A process that stood still meanwhile must not answer after a revocation has returned.
                let fresh = self.leased(since, self.now());
                return if fresh { Ok(index(&self.ring())) } else { Err(Error::Stale) };
            }
        }
        Err(Error::Busy)
    }
}

impl Inner {
    /// What can change while it waits for the log.
    fn may_index<F: Field>(&self, token: &Verified) -> Result<()> {
        self.refuse_if_frozen()?;
        token.check_time(self.token_time(self.clock.wall()))?;
        if self.revoked(token) {
            return Err(Denied::Revoked.into());
        }
        if token.names_subjects() {
            return Err(Denied::Subject.into());
        }
        if token.covers(F::RECORD, F::INFO.number) { Ok(()) } else { Err(Denied::Field.into()) }
    }
}

fn index_of<F: Field>(key: &Secret<Blind>, value: &impl Value) -> [u8; 16] {
    let mut bytes = Zeroizing::new(Vec::with_capacity(Value::encoded_len(value)));
    Value::encode(value, &mut Encoder::new(&mut bytes));
    let record = F::RECORD.as_bytes();
    let length = crate::wire::length(record).to_be_bytes();
    Prf::new(key.expose()).tag(&[label::BLIND_INDEX, &length, record, &F::INFO.number.to_be_bytes(), &bytes])
}
