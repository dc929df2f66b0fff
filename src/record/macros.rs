//! `record!`, and what it shares with `purposes!`. Both write `Result`, `Option` and macros with their paths: a shop
//! may have an alias of that name in scope.

/// Declares a record: the clear struct, its sealed form, its view, and a module with the fields as types.
///
/// ```
/// # mod shop {
/// use customer_vault::{Value, purposes, record};
/// # /// A value.
/// # #[derive(Debug)] pub struct Text(String);
/// # impl Value for Text {
/// #     fn encoded_len(&self) -> usize { self.0.len() }
/// #     fn encode(&self, out: &mut customer_vault::Encoder<'_>) { out.put(self.0.as_bytes()) }
/// #     fn decode(bytes: &[u8]) -> Option<Self> { Some(Text(String::from_utf8(bytes.to_vec()).ok()?)) }
/// # }
/// # type PostalAddress = Text; type Phone = Text; type OrderLine = Text; type Iban = Text;
///
/// purposes! {
///     /// Deliver the parcel.
///     pub Shipping: Contract = 1 "shipping";
///     /// Books of account.
///     pub Invoicing: LegalObligation = 3 "invoicing";
/// }
///
/// record! {
///     /// One order.
///     pub struct Order[u64] / SealedOrder / OrderView in order = "order", reserved [4 "fax", 9] {
///         /// Printed on the label.
///         pub address: PostalAddress = 1 "address", basic, for [Shipping: 90 days, Invoicing: 10 years];
///         /// For the driver.
///         pub phone: Option<Phone> = 2 "phone", basic sensitive, for [Shipping: 90 days], padded 32;
///         /// What was bought.
///         pub lines: Vec<OrderLine> = 3 "lines", transaction, for [Shipping: 90 days, Invoicing: 10 years];
///         /// Who pays.
///         pub payer: Iban = 5 "payer", transaction sensitive, for [Invoicing: 10 years], alone;
///     }
/// }
/// # }
/// ```
///
/// - `[u64]` is the type of the record's id, a [`RecordId`](crate::RecordId). A record that a subject has only one of
///   leaves it out.
/// - `SealedOrder` is [`Sealed<Order>`](crate::Sealed); `OrderView<P>` is what opening gives, with one accessor for
///   each field, which compiles for the purposes that the field names; `order::phone` is the field as a type, for
///   `Sealed<order::phone>` in a column of its own.
/// - `= "order"`: the label of the record. Each field has a number from 1, ascending, and a label (1 to 64 of
///   `a-z 0-9 -`). They stand in sealed data and in reports: never change one, never use one again. The Rust names may
///   change. Put a removed field into `reserved`.
/// - `basic`, `transaction` or `behaviour`: the class; `sensitive` is a mark on top.
/// - `for [..]`: who may read it and for how long after sealing: `days`, `months` or `years`, at most 100 years.
/// - `alone` keeps the field out of a cell with others; `padded 32` pads its value to a multiple of 32 bytes, so that
///   the length of what is sealed does not tell the length of the value.
///
/// An accessor returns `Result<&T, Absent>`, with `Option<&T>` for an `Option` and `&[T]` for a `Vec`. The clear struct
/// and the view have a `Debug` that shows nothing, and none of `Clone`, `PartialEq`, `Display`, `Deref`, `Serialize`.
/// The documentation of record and fields goes into the register of processing.
#[macro_export]
macro_rules! record {
    // The types in the module must be as visible as the struct and no more, or a private value type "leaks" (E0446).
    ($(#[doc = $doc:literal])* struct $($rest:tt)+) => {
        $crate::__record! { [pub(super)] $(#[doc = $doc])* struct $($rest)+ }
    };
    ($(#[doc = $doc:literal])* pub(super) struct $($rest:tt)+) => {
        $crate::__record! { [pub(in super::super)] $(#[doc = $doc])* pub(super) struct $($rest)+ }
    };
    ($(#[doc = $doc:literal])* $vis:vis struct $($rest:tt)+) => {
        $crate::__record! { [$vis] $(#[doc = $doc])* $vis struct $($rest)+ }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __record {
    (
        [$inner:vis] $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident $([$id:ty])? / $sealed:ident / $view:ident in $module:ident = $label:literal
        $(, reserved [ $( $gone:literal $($gone_label:literal)? ),* $(,)? ])?
        {
            $(
                $(#[doc = $fdoc:literal])*
                $fvis:vis $field:ident : $ty:ty = $number:literal $flabel:literal ,
                $class:ident $($mark:ident)? ,
                for $terms:tt
                $(, $treatment:ident $($amount:literal)? )* ;
            )+
        }
    ) => {
        $(#[doc = $doc])*
        #[allow(clippy::exhaustive_structs)]
        $vis struct $name { $( $(#[doc = $fdoc])* $fvis $field : $ty ),+ }

        #[doc = ::core::concat!("[`", ::core::stringify!($name), "`], sealed.")]
        #[allow(dead_code)]
        $vis type $sealed = $crate::Sealed<$name>;

        #[doc = ::core::concat!("What purpose `P` may see of [`", ::core::stringify!($name), "`].")]
        $vis struct $view<P> {
            $( $field: ::core::result::Result<$ty, $crate::Absent>, )+
            // Fields of a struct are not hygienic: an ordinary name here could be one of the shop's.
            __purpose: ::core::marker::PhantomData<fn() -> P>,
        }

        #[doc = ::core::concat!("The fields of [`", ::core::stringify!($name), "`](super::", ::core::stringify!($name), "), as types.")]
        #[allow(non_camel_case_types, dead_code, rustdoc::broken_intra_doc_links)]
        $vis mod $module { $(
            $(#[doc = $fdoc])*
            #[doc = ::core::concat!("\n\nField ", $number, ", \"", $flabel, "\".")]
            #[derive(Debug)]
            #[allow(clippy::exhaustive_enums)]
            $inner enum $field {}
        )+ }

        // Not inside the module: in a function body it could not see the shop's types.
        $(
            $crate::__field! { $module $field ($name, $label, $number, $ty) {
                number: $number,
                label: $flabel,
                doc: ::core::concat!($($fdoc, "\n"),*),
                class: $crate::__word!(field $field class $class),
                sensitive: $crate::__word!(field $field mark $($mark)?),
                treatment: &[$( $crate::__word!(field $field treatment $treatment $($amount)?) ),*],
            } $terms }
        )+

        impl $crate::Sealable for $name {
            type Id = $crate::__id!($($id)?);
            type Opened<P: $crate::Purpose> = $view<P>;
            type Draft<P: $crate::Purpose> = $view<P>;
            const RECORD: &'static str = $label;
            const FIELD: ::core::option::Option<u16> = ::core::option::Option::None;
            fn draft<P: $crate::Purpose>() -> $view<P> {
                $view {
                    $( $field: ::core::result::Result::Err($crate::Absent::NotSealedThen), )+
                    __purpose: ::core::marker::PhantomData,
                }
            }
            #[allow(unreachable_patterns)] // a number that stands twice has a message of its own
            fn fill<P: $crate::Purpose>(
                draft: &mut $view<P>,
                number: u16,
                value: ::core::result::Result<::core::option::Option<&[u8]>, $crate::Absent>,
            ) -> ::core::result::Result<(), $crate::Error> {
                match number {
                    $( $number => draft.$field = $crate::__private::take::<$module::$field>(value)?, )+
                    _ => {}
                }
                ::core::result::Result::Ok(())
            }
            fn finish<P: $crate::Purpose>(draft: $view<P>) -> ::core::result::Result<$view<P>, $crate::Error> {
                ::core::result::Result::Ok(draft)
            }
        }

        // Any purpose may open a record: its cells decide at run time, the accessors at compile time.
        impl<P: $crate::Purpose> $crate::OpensFor<P> for $name {}

        impl $crate::Record for $name {
            const FIELDS: &'static [$crate::FieldInfo] = &[$( <$module::$field as $crate::Field>::INFO ),+];
            const CELLS: &'static [usize] = &$crate::__private::cells::<{ [$($number),+].len() }>(Self::FIELDS);
            const RESERVED: &'static [(u16, &'static str)] = &[$($( ($gone, ::core::concat!($($gone_label)?)) ),*)?];
            const DOC: &'static str = ::core::concat!($($doc, "\n"),*);
            #[allow(unreachable_patterns)]
            fn encoded_len(&self, field: usize) -> ::core::option::Option<usize> {
                match $crate::__private::number_at::<Self>(field) {
                    $(
                        ::core::option::Option::Some($number) => {
                            $crate::__private::encoded_len::<$module::$field>(&self.$field)
                        }
                    )+
                    _ => ::core::option::Option::None,
                }
            }
            #[allow(unreachable_patterns)]
            fn encode(&self, field: usize, out: &mut $crate::__private::Encoder<'_>) {
                match $crate::__private::number_at::<Self>(field) {
                    $(
                        ::core::option::Option::Some($number) => {
                            $crate::__private::encode::<$module::$field>(&self.$field, out);
                        }
                    )+
                    _ => {}
                }
            }
        }

        #[allow(dead_code)]
        impl<P: $crate::Purpose> $view<P> { $(
            $(#[doc = $fdoc])*
            #[doc = ::core::concat!("\n\nField ", $number, ", \"", $flabel, "\".\n\n# Errors\n\nWhy it is absent.")]
            // The bound is on the method, so that a wrong purpose gives our message and not "method not found".
            $fvis fn $field(&self) -> ::core::result::Result<<$ty as $crate::FieldType>::Ref<'_>, $crate::Absent>
            where
                $module::$field: $crate::OpensFor<P>,
            {
                $crate::__private::lend::<$module::$field>(&self.$field)
            }
        )+ }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(::core::stringify!($name)).finish_non_exhaustive()
            }
        }
        impl<P> ::core::fmt::Debug for $view<P> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(::core::stringify!($view)).finish_non_exhaustive()
            }
        }

        const _: () = {
            ::core::assert!(
                $crate::__private::label($label),
                ::core::concat!("`", ::core::stringify!($name), "`: a label is 1 to 64 of a-z, 0-9 and `-`"),
            );
            ::core::assert!(
                $crate::__private::reserved(<$name as $crate::Record>::RESERVED),
                ::core::concat!(
                    "`", ::core::stringify!($name), "`: `reserved` names each number (1 or more) and label once: ",
                    "`reserved [4 \"fax\", 9]`",
                ),
            );
        };
        // A constant for each field, so that the compiler reports all faulty fields and not the first alone.
        $( const _: () = {
            let info = <$module::$field as $crate::Field>::INFO;
            ::core::assert!(
                $crate::__private::in_order(<$name as $crate::Record>::FIELDS, info.number),
                ::core::concat!(
                    "`", ::core::stringify!($name.$field), "`: declare fields in ascending order of their numbers",
                ),
            );
            ::core::assert!(
                !$crate::__private::built_in_among(info.terms),
                ::core::concat!(
                    "`", ::core::stringify!($name.$field), "`: every field admits the built-in purposes: leave them out",
                ),
            );
            ::core::assert!(
                $crate::__private::each_once(info.terms),
                ::core::concat!("`", ::core::stringify!($name.$field), "` names a purpose twice in `for [..]`: keep one"),
            );
            ::core::assert!(
                $crate::__private::no_empty_period(info.terms),
                ::core::concat!("`", ::core::stringify!($name.$field), "`: a period of 0 keeps nothing: write 1 day or more"),
            );
            ::core::assert!(
                $crate::__private::no_forever(info.terms),
                ::core::concat!(
                    "`", ::core::stringify!($name.$field), "`: there is no forever: write a period of at most 100 years",
                ),
            );
            ::core::assert!(
                $crate::__private::treatment(info.treatment),
                ::core::concat!(
                    "`", ::core::stringify!($name.$field), "`: write `alone` and `padded` at most once each, and ",
                    "`padded` with 1 byte or more: `padded 32`",
                ),
            );
        }; )+
        $crate::__names! {
            $( [$name.$field] $number $flabel; )+
            reserved $($( ($gone, ::core::concat!($($gone_label)?)) ),*)?
        }
    };
    // As above, but for what follows the class. Only a declaration with a mistake there comes here.
    (
        [$inner:vis] $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident $([$id:ty])? / $sealed:ident / $view:ident in $module:ident = $label:literal
        $(, reserved [ $($gone:tt)* ])?
        {
            $(
                $(#[doc = $fdoc:literal])*
                $fvis:vis $field:ident : $ty:ty = $number:literal $flabel:literal ,
                $class:ident $($mark:ident)?
                $(, $word:ident $([ $($what:tt)* ])? $($amount:literal)? )* ;
            )+
        }
    ) => {
        $( $crate::__tail! { $field $(, $word $([ $($what)* ])? $($amount)? )* } )+
    };
}

/// Says which field lacks its `for [..]`.
#[doc(hidden)]
#[macro_export]
macro_rules! __tail {
    ($field:ident , for [ $($terms:tt)* ] $(, $treatment:ident $($amount:literal)? )*) => {};
    ($field:ident $($tail:tt)*) => {
        ::core::compile_error!(::core::concat!(
            "field `",
            ::core::stringify!($field),
            "`: after the class write who may read it and for how long, ",
            "`for [Shipping: 90 days]`, and after that `alone` or `padded 64` where you want it",
        ));
    };
}

/// A field as a type. Where the list does not parse it says what to write and goes on with an empty one, so that
/// nothing else is reported.
#[doc(hidden)]
#[macro_export]
macro_rules! __field {
    ($module:ident $field:ident $of:tt $info:tt [ $($purpose:path : $n:literal $unit:ident),+ $(,)? ]) => {
        $crate::__field! { @impl $module $field $of $info $(($purpose, $n, $unit))+ }
        $( impl $crate::OpensFor<$purpose> for $module::$field {} )+
    };
    (
        @impl $module:ident $field:ident ($name:ident, $label:literal, $number:literal, $ty:ty) { $($info:tt)* }
        $(($purpose:path, $n:literal, $unit:ident))*
    ) => {
        impl $crate::Sealable for $module::$field {
            type Id = <$name as $crate::Sealable>::Id;
            type Opened<P: $crate::Purpose> = $ty;
            type Draft<P: $crate::Purpose> = ::core::result::Result<$ty, $crate::Absent>;
            const RECORD: &'static str = $label;
            const FIELD: ::core::option::Option<u16> = ::core::option::Option::Some($number);
            fn draft<P: $crate::Purpose>() -> ::core::result::Result<$ty, $crate::Absent> {
                ::core::result::Result::Err($crate::Absent::NotSealedThen)
            }
            fn fill<P: $crate::Purpose>(
                draft: &mut ::core::result::Result<$ty, $crate::Absent>,
                number: u16,
                value: ::core::result::Result<::core::option::Option<&[u8]>, $crate::Absent>,
            ) -> ::core::result::Result<(), $crate::Error> {
                if number == $number {
                    *draft = $crate::__private::take::<Self>(value)?;
                }
                ::core::result::Result::Ok(())
            }
            fn finish<P: $crate::Purpose>(
                draft: ::core::result::Result<$ty, $crate::Absent>,
            ) -> ::core::result::Result<$ty, $crate::Error> {
                draft.map_err($crate::Error::Absent)
            }
        }
        impl $crate::Field for $module::$field {
            type Record = $name;
            type Type = $ty;
            const INFO: $crate::FieldInfo = $crate::FieldInfo {
                terms: &[$( $crate::Term::of::<$purpose>($n, $crate::__word!(field $field unit $unit)) ),*],
                $($info)*
            };
        }
    };
    ($module:ident $field:ident $of:tt $info:tt $terms:tt) => {
        ::core::compile_error!(::core::concat!(
            "field `", ::core::stringify!($field), "`: `for ", ::core::stringify!($terms),
            "` must name each purpose with its period, at least one: `for [Shipping: 90 days, Invoicing: 10 years]`",
        ));
        $crate::__field! { @impl $module $field $of $info }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __word {
    (field $f:ident class basic) => { $crate::Class::Basic };
    (field $f:ident class transaction) => { $crate::Class::Transaction };
    (field $f:ident class behaviour) => { $crate::Class::Behaviour };
    (field $f:ident class $word:ident) => {
        $crate::__word!(@ field $f $word "`basic`, `transaction` or `behaviour`")
    };
    (field $f:ident mark) => { false };
    (field $f:ident mark sensitive) => { true };
    (field $f:ident mark $word:ident) => {
        $crate::__word!(@ field $f $word "`sensitive`, or nothing, after the class")
    };
    (field $f:ident treatment alone) => { $crate::Treatment::Alone };
    (field $f:ident treatment padded $n:literal) => { $crate::Treatment::Padded($n) };
    (field $f:ident treatment $word:ident $($n:literal)?) => {
        $crate::__word!(@ field $f $word "`alone` or `padded 64`")
    };
    (field $f:ident unit day) => { $crate::Unit::Days };
    (field $f:ident unit days) => { $crate::Unit::Days };
    (field $f:ident unit month) => { $crate::Unit::Months };
    (field $f:ident unit months) => { $crate::Unit::Months };
    (field $f:ident unit year) => { $crate::Unit::Years };
    (field $f:ident unit years) => { $crate::Unit::Years };
    (field $f:ident unit $word:ident) => { $crate::__word!(@ field $f $word "`days`, `months` or `years`") };
    (purpose $p:ident basis Contract) => { $crate::Basis::Contract };
    (purpose $p:ident basis Consent) => { $crate::Basis::Consent };
    (purpose $p:ident basis LegalObligation) => { $crate::Basis::LegalObligation };
    (purpose $p:ident basis LegitimateInterest) => { $crate::Basis::LegitimateInterest };
    (purpose $p:ident basis $word:ident) => {
        $crate::__word!(@ purpose $p $word "`Contract`, `Consent`, `LegalObligation` or `LegitimateInterest`")
    };
    (@ $kind:ident $name:ident $word:ident $want:literal) => {
        ::core::compile_error!(::core::concat!(
            ::core::stringify!($kind), " `", ::core::stringify!($name), "`: `", ::core::stringify!($word), "`: write ",
            $want,
        ))
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __id {
    () => {
        $crate::NoId
    };
    ($id:ty) => {
        $id
    };
}

/// Numbers and labels, of purposes and of fields.
#[doc(hidden)]
#[macro_export]
macro_rules! __names {
    ($( [$($what:tt)+] $number:literal $label:literal; )+ reserved $($gone:expr),*) => {
        const _: () = {
            const ALL: &[(u16, &str)] = &[$(($number, $label)),+];
            const GONE: &[(u16, &str)] = &[$($gone),*];
            $( const _: () = {
                ::core::assert!(
                    $number > 0 && $crate::__private::label($label),
                    ::core::concat!(
                        "`", ::core::stringify!($($what)+),
                        "`: a number is 1 or more, a label 1 to 64 of a-z, 0-9 and `-`",
                    ),
                );
                ::core::assert!(
                    $crate::__private::count(ALL, $number, $label) == 1,
                    ::core::concat!(
                        "`", ::core::stringify!($($what)+), "`: number ", $number, " or label \"", $label,
                        "\" is taken twice: take the next free one",
                    ),
                );
                ::core::assert!(
                    $crate::__private::count(GONE, $number, $label) == 0,
                    ::core::concat!(
                        "`", ::core::stringify!($($what)+), "`: number ", $number, " or label \"", $label,
                        "\" is reserved: take the next free one",
                    ),
                );
            }; )+
        };
    };
}
