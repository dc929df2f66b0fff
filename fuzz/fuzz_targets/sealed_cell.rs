//! Whatever bytes claim to be a sealed value: parsing and opening refuse them or give values, and never panic.
#![no_main]

use std::sync::LazyLock;

use customer_vault::testing::{ephemeral, grant, test_ground, tester};
use customer_vault::value::{Bytes, FreeText};
use customer_vault::*;
use libfuzzer_sys::fuzz_target;
use pollster::block_on;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    pub struct Note / SealedNote / NoteView in note = "note" {
        pub body: Bytes = 1 "body", basic, for [Shipping: 90 days, Invoicing: 10 years];
        pub remark: Option<FreeText> = 2 "remark", basic, for [Shipping: 90 days], padded 32;
    }
}

static GRANTS: LazyLock<(Grant<Shipping>, Grant<SubjectAccess>)> = LazyLock::new(|| {
    block_on(async {
        let vault = ephemeral(Options::new().record::<Note>()).await.unwrap();
        let id = SubjectId::new("alice").unwrap();
        vault.enroll(&id, [], &tester(), &test_ground()).await.unwrap();
        (grant(&vault, &id).await.unwrap(), grant(&vault, &id).await.unwrap())
    })
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(sealed) = SealedNote::from_bytes(bytes.to_vec()) else { return };
    assert_eq!(sealed.as_bytes(), bytes);
    let _ = (sealed.left_out(), sealed.unverified_days());
    // Nobody guesses a key: whatever opens holds no value.
    let (shipping, access) = &*GRANTS;
    if let Ok(view) = sealed.open(shipping) {
        assert!(view.body().is_err() && view.remark().is_err());
    }
    if let Ok(view) = sealed.open(access) {
        assert!(view.body().is_err() && view.remark().is_err());
    }
    if let Ok(field) = Sealed::<note::body>::from_bytes(bytes.to_vec()) {
        assert!(field.open(shipping).is_err());
    }
});
