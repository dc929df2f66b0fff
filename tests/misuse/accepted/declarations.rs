//! Every form of a declaration, in a shop that warns of everything.
#![deny(missing_docs, missing_debug_implementations, warnings)]
#![allow(clippy::all)]

use customer_vault::{
    Absent, Encoder, Grant, LegalHold, NoId, OpensFor, Purpose, Record, Sealable, Sealed, SubjectAccess, Value,
};

/// Aliases that a macro must not stumble over.
pub type Result<T> = std::result::Result<T, ()>;

/// A value.
#[derive(Debug)]
pub struct Text;
impl Value for Text {
    fn encoded_len(&self) -> usize {
        0
    }
    fn encode(&self, _: &mut Encoder<'_>) {}
    fn decode(_: &[u8]) -> Option<Self> {
        Some(Text)
    }
}

customer_vault::purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
    /// Books of account.
    pub(crate) Invoicing: LegalObligation = 3 "invoicing";
}

customer_vault::record! {
    /// Private, with a private type.
    struct Private / SealedPrivate / PrivateView in private = "private" {
        hidden: Hidden = 1 "hidden", behaviour sensitive, for [Shipping: 1 day,], alone, padded 16;
    }
}

#[derive(Debug)]
struct Hidden;
impl Value for Hidden {
    fn encoded_len(&self) -> usize {
        0
    }
    fn encode(&self, _: &mut Encoder<'_>) {}
    fn decode(_: &[u8]) -> Option<Self> {
        Some(Hidden)
    }
}

/// Inner.
pub mod inner {
    use super::{Shipping, Text};

    customer_vault::record! {
        /// Seen one up.
        pub(super) struct Up / SealedUp / UpView in up = "up", reserved [] {
            pub(super) text: Text = 1 "text", basic, for [Shipping: 1 month];
        }
    }
    customer_vault::record! {
        /// Seen in the crate.
        pub(crate) struct Here[String] / SealedHere / HereView in here = "here", reserved [2, 3 "c",] {
            /// Two purposes.
            pub(crate) value: Text = 1 "value", basic, for [Shipping: 100 years, super::Invoicing: 1 year];
            /// Two words that the macro uses itself.
            pub(crate) draft: Option<Text> = 4 "draft", transaction, for [Shipping: 36525 days];
            number: Vec<Text> = 65535 "number", transaction, for [Shipping: 1200 months];
        }
    }
}

/// For whatever purpose may read it.
pub(crate) fn any<P: Purpose>(view: &inner::HereView<P>) -> std::result::Result<&Text, Absent>
where
    inner::here::value: OpensFor<P>,
{
    view.value()
}

fn all<T: Sealable<Id = NoId> + OpensFor<SubjectAccess> + OpensFor<LegalHold>>() -> Option<u16> {
    T::FIELD
}

/// One field in a column.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) text: Sealed<inner::up::text>,
}

/// Opening takes the id where there is one.
#[allow(dead_code)]
fn open(row: &Row, here: &inner::SealedHere, grant: &Grant<Shipping>) {
    let _: std::result::Result<Text, _> = row.text.open(grant);
    let _ = here.open(grant, &String::new()).map(|view| any(&view).is_ok());
}

fn main() {
    assert_eq!((all::<Private>(), all::<private::hidden>(), all::<inner::Up>()), (None, Some(1), None));
    assert_eq!(inner::Here::CELLS, [0, 1, 2]);
    let _ = any::<Shipping>;
    assert_eq!(format!("{:?} {:?}", Private { hidden: Hidden }, inner::Up { text: Text }), "Private { .. } Up { .. }");

    // In a function body, private, with a path to a purpose elsewhere.
    customer_vault::purposes! { Local: LegitimateInterest = 1 "local"; }
    customer_vault::record! {
        struct Body / SealedBody / BodyView in body = "body" {
            a: Text = 1 "a", behaviour, for [Local: 1 year, crate::Invoicing: 6 months];
        }
    }
    let view = Body::finish::<Local>(Body::draft()).expect("a draft is finished");
    assert_eq!(view.a().map(|_| ()), Err(Absent::NotSealedThen));
    assert_eq!(Body { a: Text }.encoded_len(0), Some(0));
    let _: Option<SealedBody> = None;
}
