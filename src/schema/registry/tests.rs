use proptest::prelude::*;

use super::{Registry, days};
use crate::error::{Contradiction, Error, Malformed, Misuse, Unsupported};
use crate::{Basis, Class, FieldInfo, Purpose, PurposeId, PurposeInfo, Schema, Term, Treatment, Unit};

/// A description as a hand-written implementation could give it.
fn schema(label: &'static str, fields: Vec<FieldInfo>, reserved: &'static [(u16, &'static str)]) -> Schema {
    let mut cells = vec![0; fields.len()];
    crate::record::check::assign_cells(&fields, &mut cells);
    Schema {
        record: std::any::TypeId::of::<()>(),
        label,
        doc: " A record.\n",
        fields: fields.leak(),
        cells: cells.leak(),
        reserved,
    }
}

fn field(number: u16, label: &'static str, terms: &[Term]) -> FieldInfo {
    let terms = terms.to_vec().leak();
    FieldInfo {
        number,
        label,
        doc: " A field.\n",
        class: Class::Basic,
        sensitive: false,
        terms,
        treatment: &[],
    }
}

fn purpose(number: u16, label: &'static str, basis: Option<Basis>) -> PurposeInfo {
    PurposeInfo { number, label, basis, doc: "" }
}

fn term(n: u16, unit: Unit) -> Term {
    Term { purpose: purpose(1, "shipping", Some(Basis::Contract)), period: (n, unit) }
}

fn shipping() -> [Term; 1] {
    [term(90, Unit::Days)]
}

/// An order with an address and a fax number.
fn registry() -> Registry {
    let mut registry = Registry::default();
    let order = schema("order", vec![field(1, "address", &shipping()), field(4, "fax", &shipping())], &[]);
    assert_eq!(registry.merge(&[order], &[purpose(9, "ads", Some(Basis::Consent))]), Ok(true));
    registry
}

/// Refused for this reason, and nothing of it taken over.
#[track_caller]
fn refuses(schemas: &[Schema], purposes: &[PurposeInfo], why: impl Into<Error>) {
    let mut registry = registry();
    assert_eq!(registry.merge(schemas, purposes), Err(why.into()));
    assert_eq!(registry, self::registry(), "a refused declaration leaves nothing behind");
}

#[test]
fn the_same_declaration_changes_nothing() {
    let mut registry = registry();
    let order = schema("order", vec![field(1, "address", &shipping()), field(4, "fax", &shipping())], &[]);
    assert_eq!(registry.merge(&[order, order], &[]), Ok(false));
    assert_eq!(registry.merge(&[], &[]), Ok(false), "what another process declares stays");
}

#[test]
fn abuse_03_a_field_number_reused_is_refused() {
    refuses(&[schema("order", vec![field(1, "phone", &shipping())], &[])], &[], Contradiction::FieldRenamed);
}

#[test]
fn abuse_03_a_field_label_moved_is_refused() {
    refuses(
        &[schema("order", vec![field(2, "address", &shipping())], &[])],
        &[],
        Contradiction::FieldRenamed,
    );
}

#[test]
fn abuse_03_a_retired_field_stays_remembered() {
    let mut registry = registry();
    let without_fax = schema("order", vec![field(1, "address", &shipping())], &[]);
    assert_eq!(registry.merge(&[without_fax], &[]), Ok(true));
    let reused = schema("order", vec![field(1, "address", &shipping()), field(4, "pager", &shipping())], &[]);
    assert_eq!(registry.merge(&[reused], &[]), Err(Contradiction::FieldRenamed.into()));
    let back = schema("order", vec![field(1, "address", &shipping()), field(4, "fax", &shipping())], &[]);
    assert_eq!(registry.merge(&[back], &[]), Ok(true));
    assert_eq!(registry, self::registry(), "it may come back as what it was");
}

#[test]
fn abuse_03_a_reserved_number_or_label_is_refused_even_when_the_reservation_is_taken_out() {
    let mut registry = registry();
    let reserved =
        schema("order", vec![field(1, "address", &shipping())], &[(4, "fax"), (7, ""), (8, "pager")]);
    assert_eq!(registry.merge(&[reserved], &[]), Ok(true));
    for again in [field(4, "fax", &shipping()), field(4, "new", &shipping()), field(7, "new", &shipping())] {
        let order = schema("order", vec![again], &[]);
        assert_eq!(registry.merge(&[order], &[]), Err(Contradiction::FieldReserved.into()));
    }
    for label in ["fax", "pager"] {
        let order = schema("order", vec![field(10, label, &shipping())], &[]);
        assert_eq!(registry.merge(&[order], &[]), Err(Contradiction::FieldReserved.into()));
    }
    let both = schema("order", vec![field(11, "telex", &shipping())], &[(11, "")]);
    assert_eq!(
        registry.merge(&[both], &[]),
        Err(Contradiction::FieldReserved.into()),
        "it contradicts itself"
    );
}

#[test]
fn abuse_03_a_reservation_that_names_another_field_is_refused() {
    let order = |reserved| schema("order", vec![field(1, "address", &shipping())], reserved);
    refuses(&[order(&[(4, "pager")])], &[], Contradiction::FieldRenamed);
    refuses(&[order(&[(5, "fax")])], &[], Contradiction::FieldRenamed);
    let mut registry = registry();
    assert_eq!(registry.merge(&[order(&[(4, ""), (5, "")])], &[]), Ok(true));
    assert_eq!(registry.merge(&[order(&[(4, "fax"), (5, "pager")])], &[]), Ok(true), "a label may be added");
    assert_eq!(
        registry.merge(&[order(&[(4, ""), (5, "telex")])], &[]),
        Err(Contradiction::FieldRenamed.into())
    );
}

#[test]
fn abuse_03_consent_become_contract_is_refused() {
    refuses(&[], &[purpose(9, "ads", Some(Basis::Contract))], Contradiction::BasisChanged);
    let mut ads = term(1, Unit::Days);
    ads.purpose = purpose(9, "ads", Some(Basis::LegitimateInterest));
    refuses(&[schema("order", vec![field(1, "address", &[ads])], &[])], &[], Contradiction::BasisChanged);
}

#[test]
fn abuse_03_a_purpose_number_or_label_of_another_is_refused() {
    refuses(&[], &[purpose(9, "news", Some(Basis::Consent))], Contradiction::PurposeRenamed);
    refuses(&[], &[purpose(8, "ads", Some(Basis::Consent))], Contradiction::PurposeRenamed);
    refuses(&[], &[purpose(1, "ads", Some(Basis::Consent))], Contradiction::PurposeRenamed);
    let two = [purpose(20, "a", Some(Basis::Consent)), purpose(20, "b", Some(Basis::Consent))];
    refuses(&[], &two, Contradiction::PurposeRenamed);
}

#[test]
fn abuse_03_two_declarations_with_one_record_label_are_refused() {
    let mut other = schema("order", vec![field(1, "address", &shipping())], &[]);
    other.record = std::any::TypeId::of::<u8>();
    refuses(
        &[schema("order", vec![field(1, "address", &shipping())], &[]), other],
        &[],
        Contradiction::RecordTwice,
    );
}

#[test]
fn a_purpose_that_claims_to_be_built_in_is_refused() {
    enum Impostor {}
    impl Purpose for Impostor {
        const NUMBER: u16 = 0xFFF0;
        const LABEL: &'static str = "everything";
        const BASIS: Option<Basis> = Some(Basis::Contract);
        const DOC: &'static str = "";
    }
    refuses(&[], &[PurposeInfo::of::<Impostor>()], Misuse::BuiltIn);
    refuses(&[], &[PurposeInfo::of::<crate::SubjectAccess>()], Misuse::BuiltIn);
    refuses(&[], &[purpose(20, "legal-hold", Some(Basis::Contract))], Misuse::BuiltIn);
    refuses(&[], &[purpose(20, "no-basis", None)], Misuse::BuiltIn);
    let everything = Term::of::<Impostor>(1, Unit::Days);
    refuses(&[schema("order", vec![field(1, "address", &[everything])], &[])], &[], Misuse::BuiltIn);
}

#[test]
fn what_the_macros_would_not_compile_is_refused() {
    let order = |field| schema("order", vec![field], &[]);
    let good = || field(1, "address", &shipping());
    for bad in [schema("Order", vec![good()], &[]), order(field(0, "address", &shipping()))] {
        refuses(&[bad], &[], Misuse::Identifier);
    }
    refuses(&[order(field(1, "a|b", &shipping()))], &[], Misuse::Identifier);
    refuses(&[schema("order", vec![good()], &[(7, "Fax")])], &[], Misuse::Identifier);
    refuses(&[], &[purpose(0, "zero", Some(Basis::Consent))], Misuse::Identifier);
    refuses(&[], &[purpose(20, "", Some(Basis::Consent))], Misuse::Identifier);

    for terms in [&[][..], &[term(1, Unit::Days); 2], &[term(0, Unit::Days)], &[term(101, Unit::Years)]] {
        refuses(&[order(field(1, "address", terms))], &[], Misuse::Setting);
    }
    let unordered =
        schema("order", vec![field(4, "fax", &shipping()), field(1, "address", &shipping())], &[]);
    let twice = schema("order", vec![good(), good()], &[]);
    let unpadded = order(FieldInfo { treatment: &[Treatment::Padded(0)], ..good() });
    let mut cells = order(good());
    cells.cells = &[1];
    let mut no_cells = order(good());
    no_cells.cells = &[];
    for bad in [unordered, twice, unpadded, cells, no_cells] {
        refuses(&[bad], &[], Misuse::Setting);
    }
}

#[test]
fn a_documentation_beyond_the_bound_is_refused() {
    let mut long = purpose(20, "long", Some(Basis::Consent));
    long.doc = "a".repeat((64 << 10) + 1).leak();
    refuses(&[], &[long], Misuse::TooLarge);
    long.doc = "a".repeat(64 << 10).leak();
    let many: Vec<PurposeInfo> =
        (20..90).map(|number| PurposeInfo { number, label: format!("p{number}").leak(), ..long }).collect();
    refuses(&[], &many, Misuse::TooLarge);
    assert_eq!(registry().merge(&[], &many[..60]), Ok(true));
}

#[test]
fn the_longest_period_ever_declared_is_remembered() {
    let mut registry = registry();
    let order = |n, unit| schema("order", vec![field(1, "address", &[term(n, unit)])], &[]);
    let of = |registry: &Registry| (registry.longest_of(PurposeId(1)), registry.longest_days());
    assert_eq!(of(&registry), (Some(90), 90));
    for (n, unit, longest) in [(2, Unit::Years, 732), (1, Unit::Days, 732), (24, Unit::Months, 744)] {
        assert_eq!(registry.merge(&[order(n, unit)], &[]), Ok(true));
        assert_eq!(of(&registry), (Some(longest), longest));
    }
    assert_eq!(registry.longest_of(PurposeId(9)), Some(0), "no field names it");
    assert_eq!(registry.longest_of(PurposeId(2)), None);
    assert_eq!(registry.merge(&[order(1200, Unit::Months)], &[]), Ok(true));
    assert_eq!(Registry::decode(&registry.encode()), Ok(registry));
}

#[test]
fn purposes_are_found_through_records_and_without() {
    let registry = registry();
    assert_eq!(registry.purposes().map(PurposeId::number).collect::<Vec<_>>(), [1, 9]);
    assert_eq!(registry.basis(PurposeId(1)), Some(Basis::Contract));
    assert_eq!((registry.label(PurposeId(9)), registry.label(PurposeId(2))), (Some("ads"), None));
    assert_eq!(registry.basis(PurposeId::SUBJECT_ACCESS), None);
}

#[test]
fn no_calendar_period_is_longer_than_its_days() {
    assert_eq!((days((3, Unit::Days)), days((12, Unit::Months)), days((10, Unit::Years))), (3, 372, 3660));
    assert_eq!(days((u16::MAX, Unit::Years)), 65_535 * 366);
}

/// All states of a field, and documentation that wants to break out.
fn full() -> Registry {
    const NASTY: &str = " A \"quote\", a \\, a | b, <b>, `code`, [x](y)\n &amp;\u{1}\u{2028} ü. \n";
    let mut registry = registry();
    let mut ads = term(1, Unit::Years);
    ads.purpose = PurposeInfo { number: 9, label: "ads", basis: Some(Basis::Consent), doc: NASTY };
    let order = schema(
        "order",
        vec![field(2, "phone", &[term(3, Unit::Months)])],
        &[(4, "fax"), (7, ""), (8, "old")],
    );
    let mut phone = field(1, "phone", &[ads, term(1, Unit::Days)]);
    phone.class = Class::Behaviour;
    phone.sensitive = true;
    phone.doc = NASTY;
    let mut customer = schema("customer", vec![phone], &[]);
    customer.doc = " - A customer.";
    assert_eq!(registry.merge(&[order, customer], &[]), Ok(true));
    registry
}

#[test]
fn abuse_09_a_registry_has_one_encoding() {
    for registry in [Registry::default(), registry(), full()] {
        assert_eq!(Registry::decode(&registry.encode()), Ok(registry));
    }
    // Version 1, one purpose: 1 "a" by consent, 5 days, no doc; one record "b" with one reserved number.
    let bytes = [1, 1, 0, 1, 1, b'a', 2, 5, 0, 1, 1, b'b', 0, 1, 0, 7, 0, 4];
    assert_eq!(Registry::decode(&bytes).map(|registry| registry.encode()), Ok(bytes.to_vec()));
    let at = |i: usize, byte: u8| {
        let mut bytes = bytes;
        bytes[i] = byte;
        Registry::decode(&bytes)
    };
    let malformed = |why: Malformed| Err(Error::Malformed(why));
    assert_eq!(at(3, 0), malformed(Malformed::Content), "purpose 0");
    assert_eq!(at(2, 0xFF).map(|_| ()), Ok(()), "number 0xFF01 is a shop's");
    assert_eq!(at(5, b'A'), malformed(Malformed::Content), "label");
    assert_eq!(at(6, 5), malformed(Malformed::Content), "basis");
    assert_eq!(at(15, 0), malformed(Malformed::Content), "field 0");
    assert_eq!(at(17, 1), malformed(Malformed::Length), "a declaration is missing");
    assert_eq!(at(17, 5), malformed(Malformed::Content), "state");
    let built_in = [1, 1, 0xFF, 0xF0, 1, b'a', 2, 5, 0, 0];
    assert_eq!(Registry::decode(&built_in), malformed(Malformed::Content));
    let swapped = [1, 2, 0, 2, 1, b'a', 2, 5, 0, 0, 1, 1, b'b', 2, 5, 0, 0];
    assert_eq!(Registry::decode(&swapped), malformed(Malformed::Order));
    let label_twice = [1, 2, 0, 1, 1, b'a', 2, 5, 0, 0, 2, 1, b'a', 2, 5, 0, 0];
    assert_eq!(Registry::decode(&label_twice), malformed(Malformed::Order));
}

#[test]
fn abuse_08_an_unknown_version_is_unsupported_and_lengths_are_bounded() {
    for version in [0, 2, 255] {
        assert_eq!(Registry::decode(&[version, 0, 0]), Err(Unsupported::Version.into()));
    }
    for count in [&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F][..], &[0x80, 0x80, 0x80, 0x80, 0x08]] {
        assert!(Registry::decode(&[&[1], count].concat()).is_err());
        assert!(Registry::decode(&[&[1, 1, 0, 1], count].concat()).is_err(), "the length of a label");
        assert!(Registry::decode(&[&[1, 0, 1, 1, b'a'], count].concat()).is_err(), "the length of a doc");
    }
    assert_eq!(Registry::decode(&vec![1; (4 << 20) + 1]), Err(Malformed::Length.into()));
    assert!(Registry::decode(&[]).is_err());
}

#[test]
fn abuse_07_bit_flips_truncations_and_extensions_never_panic_and_give_no_second_encoding() {
    let bytes = full().encode();
    for i in 0..bytes.len() {
        assert!(Registry::decode(&bytes[..i]).is_err(), "cut at {i}");
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[i] ^= 1 << bit;
            if let Ok(registry) = Registry::decode(&flipped) {
                assert_eq!(registry.encode(), flipped, "bit {bit} of byte {i}");
                drop((registry.to_markdown(), registry.to_json()));
            }
        }
    }
    for n in 1..=64 {
        assert!(Registry::decode(&[&bytes[..], &vec![0; n]].concat()).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_canonical(bytes in proptest::collection::vec(0_u8..12, 0..64)) {
        let bytes = [&[1], &bytes[..]].concat();
        if let Ok(registry) = Registry::decode(&bytes) {
            prop_assert_eq!(registry.encode(), bytes);
        }
    }
}

#[test]
fn the_register_of_processing_as_markdown() {
    let text = full().to_markdown();
    assert_eq!(text, include_str!("register.md"), "\n{text}");
}

#[test]
fn the_register_of_processing_as_json() {
    let text = full().to_json();
    assert_eq!(text, include_str!("register.json").trim_end(), "\n{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let nasty = "A \"quote\", a \\, a | b, <b>, `code`, [x](y)\n&amp;\u{1}\u{2028} ü.";
    assert_eq!(json["purposes"][1]["description"], nasty);
    assert_eq!(json["records"][0]["fields"][0]["description"], nasty);
    assert_eq!(json["records"][1]["fields"][0]["state"], "retired");
}
