//! Records and their fields, as [`record!`](crate::record!) declares them.
//!
//! The traits stay implementable by hand. Such an implementation may seal less sensibly, but it opens nothing that was
//! not sealed for the grant's purpose, and a vault refuses to open with one that `record!` would not have written.

pub(crate) mod check;
mod macros;

use std::fmt;

use crate::error::{Absent, Error, Malformed};
use crate::value::{Encoder, FieldType};
use crate::{FieldInfo, Purpose};

/// What [`Sealed`](crate::Sealed) can hold: a record, or one field of a record.
pub trait Sealable: Sized + 'static {
    /// Tells the records of one subject apart: a [`RecordId`], or [`NoId`] where a subject has one such record only.
    type Id;
    /// What opening gives: the view of a record, the value of a field.
    type Opened<P: Purpose>;
    /// What is being opened. Every field of it starts as [`Absent::NotSealedThen`].
    type Draft<P: Purpose>;
    /// The label of the record.
    const RECORD: &'static str;
    /// The number of the field; `None` for the whole record.
    const FIELD: Option<u16>;

    /// Nothing filled in yet.
    fn draft<P: Purpose>() -> Self::Draft<P>;

    /// Takes one field of a cell; `Ok(None)` is a field left empty. A number that this declaration does not know is
    /// passed over: it was sealed under another one.
    ///
    /// # Errors
    ///
    /// [`Malformed::Content`] where the bytes are no value of the field's type.
    fn fill<P: Purpose>(
        draft: &mut Self::Draft<P>,
        number: u16,
        value: Result<Option<&[u8]>, Absent>,
    ) -> Result<(), Error>;

    /// What the caller gets.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`] for a single field that is not there; a record's view holds that field by field.
    fn finish<P: Purpose>(draft: Self::Draft<P>) -> Result<Self::Opened<P>, Error>;
}

/// A declared record.
pub trait Record: Sealable {
    /// The fields, ascending by number.
    const FIELDS: &'static [FieldInfo];
    /// For each of [`FIELDS`](Self::FIELDS) the index of its cell. Fields with equal purposes and periods share one,
    /// unless they are `alone`; cells ascend by their first field.
    const CELLS: &'static [usize];
    /// Numbers and labels that must not be used again, `""` where no label was given.
    const RESERVED: &'static [(u16, &'static str)];
    /// For the register of processing.
    const DOC: &'static str;

    /// How many bytes [`encode`](Self::encode) writes for a field, by its index in [`FIELDS`](Self::FIELDS); `None`
    /// where it was left empty.
    fn encoded_len(&self, field: usize) -> Option<usize>;

    /// The value of a field, to bytes, by its index in [`FIELDS`](Self::FIELDS).
    fn encode(&self, field: usize, out: &mut Encoder<'_>);
}

/// A declared field: one of the types in the module that [`record!`](crate::record!) makes.
pub trait Field: Sealable {
    /// The record that it is a field of.
    type Record: Record;
    /// The type of its value.
    type Type: FieldType;
    /// What was declared.
    const INFO: FieldInfo;
}

/// The id of a record that a subject has only one of. It is no [`RecordId`], so that `seal` and `open` ask for an id
/// exactly where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "nobody makes a value of it")]
pub enum NoId {}

/// What tells the records of one subject apart, such as an order number. Its bytes are part of what a cell is bound
/// to: order 1 does not open as order 2.
pub trait RecordId {
    /// One canonical encoding of 1 to 128 bytes. Two ids that differ must differ here.
    fn id_bytes(&self) -> RecordIdBytes;

    /// From bytes; `None` where they are not what [`id_bytes`](Self::id_bytes) writes.
    fn from_id_bytes(bytes: &[u8]) -> Option<Self>
    where
        Self: Sized;
}

/// The bytes of a record id: 1 to 128, held in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecordIdBytes {
    bytes: [u8; RecordIdBytes::MAX],
    /// 0 for what was refused.
    length: u8,
}

impl RecordIdBytes {
    /// The longest id, in bytes.
    pub const MAX: usize = 128;

    /// Takes them over. What is empty or too long is remembered as such, and then nothing can be sealed under it: cut
    /// off, two long ids could become one.
    #[inline]
    #[must_use]
    pub fn new(id: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX];
        let mut length = 0;
        if let (Some(to), Ok(n)) = (bytes.get_mut(..id.len()), u8::try_from(id.len())) {
            to.copy_from_slice(id);
            length = n;
        }
        RecordIdBytes { bytes, length }
    }

    /// `None` where it was empty or too long.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..usize::from(self.length)).filter(|bytes| !bytes.is_empty())
    }
}

/// Shows no bytes: an id can be an email address.
impl fmt::Debug for RecordIdBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordIdBytes").field("length", &self.length).finish_non_exhaustive()
    }
}

macro_rules! number_ids {
    ($($number:ty)*) => { $(
        /// Big-endian.
        impl RecordId for $number {
            #[inline]
            fn id_bytes(&self) -> RecordIdBytes {
                RecordIdBytes::new(&self.to_be_bytes())
            }
            fn from_id_bytes(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(<$number>::from_be_bytes)
            }
        }
    )* };
}
number_ids!(u32 u64 i64);

/// UTF-8, as it is: ids that differ in case or in Unicode normal form are different ids.
impl RecordId for String {
    fn id_bytes(&self) -> RecordIdBytes {
        RecordIdBytes::new(self.as_bytes())
    }
    fn from_id_bytes(bytes: &[u8]) -> Option<Self> {
        RecordIdBytes::new(bytes).bytes()?;
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }
}

/// As it is: a UUID, for instance.
impl RecordId for [u8; 16] {
    fn id_bytes(&self) -> RecordIdBytes {
        RecordIdBytes::new(self)
    }
    fn from_id_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

// What `record!` calls. It names fields, not their types, so that a type that is no value is reported at the field.

#[doc(hidden)]
pub fn take<F: Field>(value: Result<Option<&[u8]>, Absent>) -> Result<Result<F::Type, Absent>, Error> {
    match value {
        Ok(bytes) => F::Type::take(bytes).map(Ok).ok_or(Error::Malformed(Malformed::Content)),
        Err(why) => Ok(Err(why)),
    }
}

#[doc(hidden)]
#[must_use]
pub fn encoded_len<F: Field>(value: &F::Type) -> Option<usize> {
    value.encoded_len()
}

#[doc(hidden)]
pub fn encode<F: Field>(value: &F::Type, out: &mut Encoder<'_>) {
    value.encode(out);
}

#[doc(hidden)]
pub fn lend<F: Field>(value: &Result<F::Type, Absent>) -> Result<<F::Type as FieldType>::Ref<'_>, Absent> {
    value.as_ref().map(F::Type::lend).map_err(|why| *why)
}

/// By its index.
#[doc(hidden)]
#[must_use]
pub fn number_at<R: Record>(field: usize) -> Option<u16> {
    R::FIELDS.get(field).map(|info| info.number)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::{Field as _, NoId, Record, RecordId, RecordIdBytes, Sealable};
    use crate::error::{Absent, Error, Malformed};
    use crate::value::{Encoder, FieldType, Value};
    use crate::{Class, LegalHold, OpensFor, Purpose, SubjectAccess, Term, Treatment, Unit};

    struct Text(String);
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
            Some(Text(std::str::from_utf8(bytes).ok()?.to_owned()))
        }
    }

    crate::purposes! {
        pub(super) Shipping: Contract = 1 "shipping";
        pub(super) Invoicing: LegalObligation = 3 "invoicing";
    }

    crate::record! {
        /// One order.
        struct Order[u64] / SealedOrder / OrderView in order = "order", reserved [4 "fax", 9] {
            /// On the label.
            address: Text = 1 "address", basic, for [Shipping: 90 days, Invoicing: 10 years];
            phone: Option<Text> = 2 "phone", basic sensitive, for [Shipping: 3 months], padded 32;
            lines: Vec<Text> = 3 "lines", transaction, for [Invoicing: 10 years, Shipping: 90 days];
            payer: Text = 5 "payer", behaviour, for [Shipping: 90 days, Invoicing: 10 years], padded 16, alone;
            note: Option<Text> = 65535 "note", basic, for [Shipping: 3 months];
        }
    }

    crate::record! {
        struct Customer / SealedCustomer / CustomerView in customer = "customer" {
            name: Text = 1 "name", basic, for [Shipping: 1 day];
        }
    }

    fn an_order() -> Order {
        Order {
            address: Text("1 Long Street".into()),
            phone: None,
            lines: vec![Text("tea".into()), Text(String::new())],
            payer: Text("DE89".into()),
            note: Some(Text("ring twice".into())),
        }
    }

    fn bytes_of<R: Record>(record: &R, field: usize) -> Option<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(record.encoded_len(field)?));
        record.encode(field, &mut Encoder::new(&mut out));
        assert_eq!(Some(out.len()), record.encoded_len(field));
        Some(out.to_vec())
    }

    fn reopened<P: Purpose>(order: &Order) -> OrderView<P> {
        let mut draft = Order::draft::<P>();
        for (i, info) in Order::FIELDS.iter().enumerate() {
            let bytes = bytes_of(order, i);
            Order::fill::<P>(&mut draft, info.number, Ok(bytes.as_deref())).unwrap();
        }
        Order::finish::<P>(draft).unwrap()
    }

    /// A shop's own function, for whatever purpose may open the address.
    fn address<P: Purpose>(view: &OrderView<P>) -> Result<&str, Absent>
    where
        order::address: OpensFor<P>,
    {
        Ok(view.address()?.0.as_str())
    }

    #[test]
    fn a_declaration_says_what_was_written() {
        let [address, phone, .., payer, note] = Order::FIELDS else { panic!("five fields") };
        assert_eq!((address.number, address.label, address.doc), (1, "address", " On the label.\n"));
        assert_eq!(
            address.terms,
            [Term::of::<Shipping>(90, Unit::Days), Term::of::<Invoicing>(10, Unit::Years)]
        );
        assert_eq!(
            (phone.class, phone.sensitive, phone.padding(), phone.alone()),
            (Class::Basic, true, 32, false)
        );
        assert_eq!(
            (payer.class, payer.sensitive, payer.padding(), payer.alone()),
            (Class::Behaviour, false, 16, true)
        );
        assert_eq!(payer.treatment, [Treatment::Padded(16), Treatment::Alone]);
        assert_eq!((note.number, note.padding()), (65535, 0));
        assert_eq!((Order::RECORD, Order::FIELD, Order::DOC), ("order", None, " One order.\n"));
        assert_eq!(Order::RESERVED, [(4, "fax"), (9, "")]);
        assert_eq!(order::phone::INFO, *phone);
        assert_eq!((order::phone::RECORD, order::phone::FIELD), ("order", Some(2)));
    }

    #[test]
    fn fields_with_equal_purposes_and_periods_share_a_cell_whatever_the_order_of_their_lists() {
        assert_eq!(Order::CELLS, [0, 1, 0, 2, 1]);
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let view = reopened::<Shipping>(&an_order());
        assert_eq!(address(&view), Ok("1 Long Street"));
        assert!(view.phone().unwrap().is_none());
        assert_eq!(view.lines().unwrap().iter().map(|line| line.0.as_str()).collect::<Vec<_>>(), ["tea", ""]);
        assert_eq!(view.note().unwrap().unwrap().0, "ring twice");
        assert_eq!(reopened::<SubjectAccess>(&an_order()).payer().unwrap().0, "DE89");
        assert_eq!(address(&reopened::<LegalHold>(&an_order())), Ok("1 Long Street"));
    }

    #[test]
    fn what_was_not_filled_was_not_sealed_then() {
        let view = Order::finish::<Shipping>(Order::draft()).unwrap();
        assert_eq!(view.address().unwrap_err(), Absent::NotSealedThen);
        assert_eq!(view.phone().unwrap_err(), Absent::NotSealedThen);
        let draft = <order::address as Sealable>::draft::<Shipping>();
        assert!(matches!(
            order::address::finish::<Shipping>(draft),
            Err(Error::Absent(Absent::NotSealedThen))
        ));
    }

    #[test]
    fn a_reason_is_handed_through() {
        let mut draft = Order::draft::<Shipping>();
        Order::fill::<Shipping>(&mut draft, 3, Err(Absent::Expired)).unwrap();
        assert_eq!(Order::finish::<Shipping>(draft).unwrap().lines().unwrap_err(), Absent::Expired);
        let mut draft = order::lines::draft::<Invoicing>();
        order::lines::fill::<Invoicing>(&mut draft, 3, Err(Absent::Withdrawn)).unwrap();
        assert!(matches!(order::lines::finish::<Invoicing>(draft), Err(Error::Absent(Absent::Withdrawn))));
    }

    #[test]
    fn an_unknown_number_is_passed_over_and_bytes_of_no_value_are_malformed() {
        let mut draft = Order::draft::<Shipping>();
        Order::fill::<Shipping>(&mut draft, 4, Ok(Some(&[0xFF]))).unwrap();
        let malformed = Err(Error::Malformed(Malformed::Content));
        assert_eq!(Order::fill::<Shipping>(&mut draft, 1, Ok(Some(&[0xFF]))), malformed);
        assert_eq!(Order::fill::<Shipping>(&mut draft, 1, Ok(None)), malformed, "an address is no option");
        assert_eq!(Order::fill::<Shipping>(&mut draft, 3, Ok(Some(&[2, b'a']))), malformed);
        let mut field = order::payer::draft::<Shipping>();
        order::payer::fill::<Shipping>(&mut field, 1, Ok(Some(b"another field"))).unwrap();
        assert!(order::payer::finish::<Shipping>(field).is_err(), "a field takes its own number only");
    }

    #[test]
    fn a_field_beyond_the_last_is_empty() {
        assert_eq!(an_order().encoded_len(5), None);
        assert_eq!(an_order().encoded_len(usize::MAX), None);
    }

    #[test]
    fn abuse_21_no_debug_shows_a_value() {
        let shown = format!("{:?} {:?}", an_order(), reopened::<Shipping>(&an_order()));
        assert_eq!(shown, "Order { .. } OrderView { .. }");
    }

    #[test]
    fn a_record_without_an_id_has_none() {
        fn no_id<T: Sealable<Id = NoId>>() {}
        no_id::<Customer>();
        no_id::<customer::name>();
        assert_eq!(<Text as FieldType>::encoded_len(&Customer { name: Text("a".into()) }.name), Some(1));
    }

    #[test]
    fn an_id_has_one_encoding_of_bounded_length() {
        assert_eq!(7_u64.id_bytes().bytes(), Some(&[0, 0, 0, 0, 0, 0, 0, 7][..]));
        assert_eq!(i64::from_id_bytes(&[0xFF; 8]), Some(-1));
        assert_eq!(u32::from_id_bytes(&[0; 3]), None);
        assert_eq!(u64::from_id_bytes(&[0; 9]), None);
        assert_eq!(<[u8; 16]>::from_id_bytes(&[1; 16]), Some([1; 16]));
        assert_eq!(<[u8; 16]>::from_id_bytes(&[1; 17]), None);
        assert_eq!(String::from_id_bytes(&[0xC0, 0x80]), None);
        assert_eq!(String::from_id_bytes(b""), None);
        for (n, good) in [(0, false), (1, true), (128, true), (129, false), (256, false), (257, false)] {
            let id = "a".repeat(n);
            assert_eq!(id.id_bytes().bytes(), good.then_some(id.as_bytes()), "{n} bytes");
            assert_eq!(String::from_id_bytes(id.as_bytes()).is_some(), good, "{n} bytes");
        }
        assert_eq!(format!("{:?}", RecordIdBytes::new(b"a@b.cn")), "RecordIdBytes { length: 6, .. }");
    }
}
