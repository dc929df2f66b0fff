//! Why data may be read: purposes as types, so that a reader without the right one does not compile.
//!
//! The types guide; the keys decide. [`Purpose`] can be implemented by hand, and such an implementation may claim any
//! number, so nothing here or elsewhere recognises a built-in purpose by what it claims: `built_in` compares types.

use std::any::TypeId;

use crate::Field;

/// The legal ground of a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Basis {
    /// Needed to serve the customer (GDPR Art. 6(1)(b), PIPL Art. 13(1)(2)).
    Contract,
    /// Asked for, given, and withdrawable (GDPR Art. 6(1)(a), PIPL Art. 13(1)(1)).
    Consent,
    /// Demanded by a law; its keys survive a forget until their day (GDPR Art. 6(1)(c), PIPL Art. 13(1)(3)).
    LegalObligation,
    /// Weighed against the person's interests, and open to objection (GDPR Art. 6(1)(f)).
    LegitimateInterest,
}

impl Basis {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Basis::Contract => 1,
            Basis::Consent => 2,
            Basis::LegalObligation => 3,
            Basis::LegitimateInterest => 4,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Basis::Contract),
            2 => Some(Basis::Consent),
            3 => Some(Basis::LegalObligation),
            4 => Some(Basis::LegitimateInterest),
            _ => None,
        }
    }

    /// As it stands in reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Basis::Contract => "contract",
            Basis::Consent => "consent",
            Basis::LegalObligation => "legal-obligation",
            Basis::LegitimateInterest => "legitimate-interest",
        }
    }
}

/// A reason to read. [`purposes!`](crate::purposes!) declares the types that implement it.
///
/// # Security
///
/// An implementation written by hand is checked when a vault is opened with it: a number or label of the built-in
/// purposes, or no basis, is refused.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a purpose",
    note = "declare it: `purposes! {{ pub {Self}: Contract = 1 \"its-label\"; }}`"
)]
pub trait Purpose: 'static {
    /// Stands in sealed data; never reused.
    const NUMBER: u16;
    /// Stands in reports; never reused. 1 to 64 of `a-z 0-9 -`.
    const LABEL: &'static str;
    /// `None` for the two built-in purposes only.
    const BASIS: Option<Basis>;
    /// For the register of processing.
    const DOC: &'static str;
}

/// The number of a purpose, where types are out of reach: in sealed data, tokens, the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PurposeId(pub(crate) u16);

impl PurposeId {
    /// The person's own data: [`SubjectAccess`].
    pub const SUBJECT_ACCESS: Self = PurposeId(SubjectAccess::NUMBER);
    /// What a hold keeps: [`LegalHold`].
    pub const LEGAL_HOLD: Self = PurposeId(LegalHold::NUMBER);

    /// Of a type.
    #[must_use]
    pub const fn of<P: Purpose>() -> Self {
        PurposeId(P::NUMBER)
    }

    /// As it stands in sealed data.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// What a purpose's type says, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurposeInfo {
    /// See [`Purpose::NUMBER`].
    pub number: u16,
    /// See [`Purpose::LABEL`].
    pub label: &'static str,
    /// See [`Purpose::BASIS`].
    pub basis: Option<Basis>,
    /// See [`Purpose::DOC`].
    pub doc: &'static str,
}

impl PurposeInfo {
    /// Of a type. Needed for a purpose that no record names.
    #[must_use]
    pub const fn of<P: Purpose>() -> Self {
        PurposeInfo { number: P::NUMBER, label: P::LABEL, basis: P::BASIS, doc: P::DOC }
    }

    /// Claims what only a built-in purpose may. Stricter than equality: the numbers below the two are kept for more.
    pub(crate) fn claims_built_in(&self) -> bool {
        self.number >= FIRST_BUILT_IN
            || self.basis.is_none()
            || [SubjectAccess::LABEL, LegalHold::LABEL].contains(&self.label)
    }
}

/// The numbers from here up are kept for built-in purposes; a shop counts from 1.
pub(crate) const FIRST_BUILT_IN: u16 = 0xFFF0;

/// The person's own data: access, portability. Every field admits it, no field names it, and it keeps no key alive.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "nobody makes a value of it")]
pub enum SubjectAccess {}

/// What a legal hold keeps. Every field admits it, no field names it.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "nobody makes a value of it")]
pub enum LegalHold {}

impl Purpose for SubjectAccess {
    const NUMBER: u16 = 0xFFFE;
    const LABEL: &'static str = "subject-access";
    const BASIS: Option<Basis> = None;
    const DOC: &'static str = "The person asks for their own data.";
}

impl Purpose for LegalHold {
    const NUMBER: u16 = 0xFFFF;
    const LABEL: &'static str = "legal-hold";
    const BASIS: Option<Basis> = None;
    const DOC: &'static str = "Kept as evidence.";
}

/// Which built-in purpose a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BuiltIn {
    SubjectAccess,
    LegalHold,
}

/// By the type itself: a shop's own type that claims number 0xFFFE would otherwise open every field.
pub(crate) fn built_in<P: Purpose>() -> Option<BuiltIn> {
    let purpose = TypeId::of::<P>();
    if purpose == TypeId::of::<SubjectAccess>() {
        Some(BuiltIn::SubjectAccess)
    } else if purpose == TypeId::of::<LegalHold>() {
        Some(BuiltIn::LegalHold)
    } else {
        None
    }
}

/// Field `Self` may be read for purpose `P`. [`record!`](crate::record!) writes one implementation for each entry of a
/// field's `for [..]`.
///
/// # Security
///
/// It makes the compiler say early what would fail later. An implementation written by hand compiles, and opens
/// nothing that was not sealed for `P`.
#[diagnostic::on_unimplemented(
    message = "purpose `{P}` may not open field `{Self}`",
    label = "`{Self}` is not declared `for` purpose `{P}`",
    note = "use a grant for a purpose that the field names, or add `{P}: <period>` to its `for [..]`: \
            the privacy notice must then say so too, and what is already sealed stays closed to it"
)]
pub trait OpensFor<P> {}

// One implementation each for all fields. The compiler shall not offer them as the remedy for a wrong purpose.
#[diagnostic::do_not_recommend]
impl<F: Field> OpensFor<SubjectAccess> for F {}
#[diagnostic::do_not_recommend]
impl<F: Field> OpensFor<LegalHold> for F {}

/// Declares purposes: for each its documentation, visibility, name, basis, number and label.
///
/// Number (1 to 65519) and label (1 to 64 of `a-z 0-9 -`) stand in sealed data and in reports. They are never reused
/// and never changed, nor is the basis; a vault refuses to open with a declaration that does. The name may change. The
/// documentation goes into the register of processing.
///
/// ```
/// customer_vault::purposes! {
///     /// Deliver the parcel.
///     pub Shipping: Contract = 1 "shipping";
///     /// Recommend goods from what the customer looked at.
///     pub Recommendation: Consent = 2 "recommendation";
///     /// Books of account.
///     pub Invoicing: LegalObligation = 3 "invoicing";
/// }
/// ```
#[macro_export]
macro_rules! purposes {
    ($( $(#[doc = $doc:literal])* $vis:vis $name:ident : $basis:ident = $number:literal $label:literal ; )+) => {
        $(
            $(#[doc = $doc])*
            #[derive(Debug)]
            #[allow(clippy::exhaustive_enums)]
            $vis enum $name {}
            impl $crate::Purpose for $name {
                const NUMBER: u16 = $number;
                const LABEL: &'static str = $label;
                const BASIS: ::core::option::Option<$crate::Basis> =
                    ::core::option::Option::Some($crate::__word!(purpose $name basis $basis));
                const DOC: &'static str = ::core::concat!($($doc, "\n"),*);
            }
            const _: () = ::core::assert!(
                !$crate::__private::kept_number($number),
                ::core::concat!(
                    "`", ::core::stringify!($name), "`: the numbers from 65520 up are kept for built-in purposes: ",
                    "take the next free one",
                ),
            );
        )+
        $crate::__names! {
            $( [$name] $number $label; )+ reserved (0xFFFE, "subject-access"), (0xFFFF, "legal-hold")
        }
    };
}

#[cfg(test)]
mod tests {
    use super::{Basis, BuiltIn, LegalHold, Purpose, PurposeInfo, SubjectAccess, built_in};

    enum Impostor {}
    impl Purpose for Impostor {
        const NUMBER: u16 = SubjectAccess::NUMBER;
        const LABEL: &'static str = SubjectAccess::LABEL;
        const BASIS: Option<Basis> = None;
        const DOC: &'static str = SubjectAccess::DOC;
    }

    crate::purposes! {
        /// Deliver
        /// the parcel.
        Shipping: Contract = 1 "shipping";
        Undocumented: LegitimateInterest = 65519 "undocumented";
    }

    #[test]
    fn a_built_in_purpose_is_known_by_its_type_and_not_by_what_an_impostor_claims() {
        assert_eq!(built_in::<SubjectAccess>(), Some(BuiltIn::SubjectAccess));
        assert_eq!(built_in::<LegalHold>(), Some(BuiltIn::LegalHold));
        assert_eq!(built_in::<Impostor>(), None);
        assert_eq!(built_in::<Shipping>(), None);
        assert!(PurposeInfo::of::<Impostor>().claims_built_in());
        assert!(!PurposeInfo::of::<Undocumented>().claims_built_in());
    }

    #[test]
    fn a_declared_purpose_says_what_was_written() {
        assert_eq!(
            PurposeInfo::of::<Shipping>(),
            PurposeInfo {
                number: 1,
                label: "shipping",
                basis: Some(Basis::Contract),
                doc: " Deliver\n the parcel.\n"
            },
        );
        assert_eq!(PurposeInfo::of::<Undocumented>().doc, "");
    }

    #[test]
    fn a_basis_has_one_number() {
        for number in 0..=u8::MAX {
            assert!(Basis::from_number(number).is_none_or(|basis| basis.number() == number));
        }
    }
}
