//! Typed plaintext. A value parses strictly, normalises, masks itself in `Debug`, wipes itself on drop, and never puts
//! its input into an error.
//!
//! None of the types here implements `Clone`, `Display`, `Deref`, `PartialEq`, `Hash` or `Serialize` (invariant 5): the
//! ways out are called `expose…`, so that one search finds them.

#[macro_use]
mod text; // first: the others use its macros
mod address;
mod born;
#[cfg(test)]
mod canonical;
mod country;
mod email;
mod entered;
pub(crate) mod free;
mod name;
mod payment;
mod phone;
mod shop;

use std::fmt;

use zeroize::Zeroizing;

pub use self::{
    address::PostalAddress,
    born::{DateOfBirth, ResidentId},
    country::Country,
    email::Email,
    entered::AsEntered,
    free::{Bytes, FreeText, IpAddress, SearchQuery},
    name::PersonName,
    payment::{CardNumber, Iban, PaymentToken},
    phone::Phone,
    shop::{BrowsingEvent, OrderLine},
    text::Masked,
};
use crate::wire::{Put as _, Reader};

/// Why a value is refused. It says what is wrong, never what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// Nothing was given.
    #[error("empty")]
    Empty,
    /// Longer than the type allows.
    #[error("too long")]
    TooLong,
    /// Shorter than the type allows.
    #[error("too short")]
    TooShort,
    /// A character that the type does not allow.
    #[error("a character that may not stand there")]
    Character,
    /// Not of the form that the type demands.
    #[error("not of the required form")]
    Form,
    /// A check digit does not fit.
    #[error("the check digit does not fit")]
    CheckDigit,
    /// No such date, or one that cannot be.
    #[error("no such date")]
    Date,
    /// No such country, or one that this type does not know.
    #[error("no such country")]
    Country,
    /// No such region, number range or issuer.
    #[error("no such range")]
    Range,
    /// A date after today.
    #[error("a date after today")]
    Future,
    /// A card number stands where a payment provider's token should.
    #[error("a card number where a token is expected")]
    CardNumber,
}

/// Takes the bytes of a value, into memory that was taken before: it never grows, so that nothing is left behind.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Zeroizing<Vec<u8>>,
    whole: bool,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(out: &'a mut Zeroizing<Vec<u8>>) -> Self {
        Encoder { out, whole: true }
    }

    /// Whether everything fitted.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Appends. What does not fit into the announced length is left out, and sealing then refuses the value.
    pub fn put(&mut self, bytes: &[u8]) {
        if bytes.len() <= self.out.capacity().saturating_sub(self.out.len()) {
            self.out.extend_from_slice(bytes);
        } else {
            self.whole = false;
        }
    }
}

impl crate::wire::Put for Encoder<'_> {
    fn put(&mut self, bytes: &[u8]) {
        Encoder::put(self, bytes);
    }
}

/// A typed value with one canonical encoding. Implement it for types of your own: `decode` must refuse every encoding
/// but the one that `encode` writes, the type should wipe itself on drop, and its `Debug` should show nothing.
pub trait Value: Sized + fmt::Debug + Send + Sync + 'static {
    /// Exactly as many bytes as [`encode`](Self::encode) writes.
    fn encoded_len(&self) -> usize;
    /// To bytes.
    fn encode(&self, out: &mut Encoder<'_>);
    /// From bytes; `None` where they are not what `encode` writes.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// What a field may hold: a [`Value`], an `Option` of one, or a `Vec`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of a field",
    note = "write a built-in value such as `Phone`, an `Option` or `Vec` of one, or `impl Value for {Self}`"
)]
pub trait FieldType: Sized + Send + Sync + 'static {
    /// What an accessor lends: `&T`, `Option<&T>`, `&[T]`.
    type Ref<'a>
    where
        Self: 'a;
    /// Lends.
    fn lend(&self) -> Self::Ref<'_>;
    /// Exactly as many bytes as [`encode`](Self::encode) writes; `None` for "left empty".
    fn encoded_len(&self) -> Option<usize>;
    /// To bytes; nothing where it is left empty.
    fn encode(&self, out: &mut Encoder<'_>);
    /// From bytes; `None` where they are not what `encode` writes.
    fn take(bytes: Option<&[u8]>) -> Option<Self>;
}

#[diagnostic::do_not_recommend] // or the compiler speaks of `Value` first
impl<T: Value> FieldType for T {
    type Ref<'a> = &'a T;
    fn lend(&self) -> &T {
        self
    }
    fn encoded_len(&self) -> Option<usize> {
        Some(Value::encoded_len(self))
    }
    fn encode(&self, out: &mut Encoder<'_>) {
        Value::encode(self, out);
    }
    fn take(bytes: Option<&[u8]>) -> Option<Self> {
        T::decode(bytes?)
    }
}

impl<T: Value> FieldType for Option<T> {
    type Ref<'a> = Option<&'a T>;
    fn lend(&self) -> Option<&T> {
        self.as_ref()
    }
    fn encoded_len(&self) -> Option<usize> {
        self.as_ref().map(Value::encoded_len)
    }
    fn encode(&self, out: &mut Encoder<'_>) {
        if let Some(value) = self {
            Value::encode(value, out);
        }
    }
    fn take(bytes: Option<&[u8]>) -> Option<Self> {
        match bytes {
            Some(bytes) => T::decode(bytes).map(Some),
            None => Some(None),
        }
    }
}

impl<T: Value> FieldType for Vec<T> {
    type Ref<'a> = &'a [T];
    fn lend(&self) -> &[T] {
        self
    }
    fn encoded_len(&self) -> Option<usize> {
        let item = |item: &T| {
            let n = Value::encoded_len(item);
            n.saturating_add(crate::wire::varint_len(u32::try_from(n).unwrap_or(u32::MAX)))
        };
        Some(self.iter().map(item).fold(0, usize::saturating_add))
    }
    fn encode(&self, out: &mut Encoder<'_>) {
        for item in self {
            out.put_varint(u32::try_from(Value::encoded_len(item)).unwrap_or(u32::MAX));
            Value::encode(item, out);
        }
    }
    fn take(bytes: Option<&[u8]>) -> Option<Self> {
        let mut reader = Reader::new(bytes?);
        let mut items = Vec::new();
        while !reader.is_empty() {
            items.push(T::decode(reader.bytes().ok()?)?);
        }
        Some(items)
    }
}
