//! A declaration that changes after something was sealed. ABUSE 3.
#![cfg(feature = "testing")]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, reason = "a test")]
#![allow(missing_docs, unreachable_pub, reason = "a test")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use customer_vault::error::Contradiction;
use customer_vault::store::MemoryStore;
use customer_vault::testing::{ManualClock, MemoryKeeper, grant, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;
use pollster::block_on;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days, Invoicing: 2 years], alone;
        pub note: PersonName = 2 "note", basic, for [Shipping: 90 days, Invoicing: 2 years], alone;
    }
}

fn name(text: &str) -> PersonName {
    PersonName::parse(text).unwrap()
}

/// The shop as it was, and as it is declared later.
mod later {
    use super::*;
    pub mod a_purpose_more {
        use super::*;
        purposes! { pub Marketing: LegitimateInterest = 9 "marketing"; }
        record! {
            pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
                pub name: PersonName = 1 "name", basic,
                    for [Shipping: 90 days, Invoicing: 2 years, Marketing: 1 year], alone;
                pub note: PersonName = 2 "note", basic, for [Shipping: 90 days, Invoicing: 2 years], alone;
            }
        }
    }
    pub mod another_basis {
        use super::*;
        purposes! { pub Shipping: Consent = 1 "shipping"; }
        record! {
            pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
                pub name: PersonName = 1 "name", basic, for [Shipping: 90 days];
            }
        }
    }
    pub mod a_purpose_number_reused {
        use super::*;
        purposes! { pub Marketing: Contract = 1 "marketing"; }
        record! {
            pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
                pub name: PersonName = 1 "name", basic, for [Marketing: 90 days];
            }
        }
    }
    pub mod a_purpose_label_reused {
        use super::*;
        purposes! { pub Marketing: Contract = 10 "shipping"; }
        record! {
            pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
                pub name: PersonName = 1 "name", basic, for [Marketing: 90 days];
            }
        }
    }
    pub mod a_field_number_reused {
        use super::*;
        record! {
            pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
                pub fax: PersonName = 1 "fax", basic, for [Shipping: 90 days];
            }
        }
    }
    pub mod a_field_reserved {
        use super::*;
        record! {
            pub struct Order[u64] / SealedOrder / OrderView in order = "order", reserved [1 "name"] {
                pub note: PersonName = 2 "note", basic, for [Shipping: 90 days];
            }
        }
    }
}

struct Disk {
    store: MemoryStore,
    keeper: MemoryKeeper,
    clock: ManualClock,
}

impl Disk {
    /// A vault of the first declaration, closed again, with one order of Alice's.
    fn new() -> (Disk, Vec<u8>) {
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let disk = Disk { store: MemoryStore::new(), keeper: MemoryKeeper::new(), clock };
        let options = Options::new().record::<Order>().clock(disk.clock.clone());
        let keeper = disk.keeper.clone();
        let vault = block_on(options.create(disk.store.clone(), keeper.clone(), keeper)).unwrap();
        let (id, me, why) = (SubjectId::new("alice").unwrap(), tester(), test_ground());
        block_on(vault.enroll(&id, [], &me, &why)).unwrap();
        let sealer = block_on(vault.sealer::<Order>(&id, &me, &why)).unwrap();
        let order = Order { name: name("Alice"), note: name("ring twice") };
        (disk, sealer.seal(order, &1).unwrap().into_bytes())
    }

    fn open<R: Record>(&self) -> Result<Vault> {
        let options = Options::new().record::<R>().clock(self.clock.clone());
        block_on(options.open(self.store.clone(), self.keeper.clone(), self.keeper.clone()))
    }
}

#[test]
fn abuse_03_a_purpose_declared_later_opens_nothing_that_was_sealed_before() {
    use later::a_purpose_more::{Marketing, Order as Later};
    let (disk, bytes) = Disk::new();
    let vault = disk.open::<Later>().unwrap();
    let (id, me, why) = (SubjectId::new("alice").unwrap(), tester(), test_ground());
    // Its key comes with the next sealer.
    assert!(matches!(block_on(grant::<Marketing>(&vault, &id)).unwrap_err(), Error::Erased(_)));
    let sealer = block_on(vault.sealer::<Later>(&id, &me, &why)).unwrap();
    let marketing = block_on(grant::<Marketing>(&vault, &id)).unwrap();
    let shipping = block_on(grant::<Shipping>(&vault, &id)).unwrap();
    let sealed = Sealed::<Later>::from_bytes(bytes).unwrap();
    let view = sealed.open(&marketing, &1).unwrap();
    assert_eq!(view.name().unwrap_err(), Absent::NotForThisPurpose);
    assert_eq!(sealed.open(&shipping, &1).unwrap().name().unwrap().expose(), "Alice");
    // Only `renew`, which is logged, adds it.
    let today = disk.clock.today();
    let renewed = block_on(sealed.renew(&sealer, &marketing, &1, today, &me, &why)).unwrap();
    assert_eq!(renewed.open(&marketing, &1).unwrap().name().unwrap_err(), Absent::NotForThisPurpose);
    let renewed = block_on(sealed.renew(&sealer, &shipping, &1, today, &me, &why)).unwrap();
    assert_eq!(renewed.open(&marketing, &1).unwrap().name().unwrap().expose(), "Alice");
}

#[test]
fn abuse_03_a_declaration_that_contradicts_the_registry_opens_no_vault() {
    let (disk, bytes) = Disk::new();
    let refused = |vault: Result<Vault>| match vault {
        Err(Error::Contradiction(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(disk.open::<later::another_basis::Order>()), Contradiction::BasisChanged);
    assert_eq!(refused(disk.open::<later::a_purpose_number_reused::Order>()), Contradiction::PurposeRenamed);
    assert_eq!(refused(disk.open::<later::a_purpose_label_reused::Order>()), Contradiction::PurposeRenamed);
    assert_eq!(refused(disk.open::<later::a_field_number_reused::Order>()), Contradiction::FieldRenamed);
    // Nothing of the refused declarations was stored: the first one still opens.
    let vault = disk.open::<Order>().unwrap();
    let id = SubjectId::new("alice").unwrap();
    let shipping = block_on(grant::<Shipping>(&vault, &id)).unwrap();
    assert!(Sealed::<Order>::from_bytes(bytes).unwrap().open(&shipping, &1).is_ok());
    // A type that only claims to be a registered purpose gets no grant.
    let changed = block_on(grant::<later::another_basis::Shipping>(&vault, &id));
    assert!(matches!(changed.unwrap_err(), Error::Misuse(_)));
    drop(vault);
    let two = Options::new().record::<Order>().record::<later::a_purpose_more::Order>();
    let two = two.open(disk.store.clone(), disk.keeper.clone(), disk.keeper.clone());
    assert_eq!(refused(block_on(two)), Contradiction::RecordTwice);
    // A number that was given up cannot come back.
    disk.open::<later::a_field_reserved::Order>().unwrap();
    assert_eq!(refused(disk.open::<Order>()), Contradiction::FieldReserved);
}
