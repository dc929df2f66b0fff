//! What stays after a forget or a withdrawal, for how long, and what does not. ABUSE 31 and 32.
#![cfg(feature = "testing")]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, reason = "a test")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::time::Duration;

use customer_vault::error::{Denied, Erased};
use customer_vault::store::MemoryStore;
use customer_vault::testing::{ManualClock, MemoryKeeper, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;
use pollster::block_on;

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
    /// Recommend goods.
    pub Recommendation: Consent = 2 "recommendation";
    /// Books of account.
    pub Invoicing: LegalObligation = 3 "invoicing";
    /// Prevent fraud.
    pub Fraud: LegitimateInterest = 4 "fraud";
}

record! {
    /// One order.
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// On the label.
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days, Invoicing: 2 years, Fraud: 30 days];
        /// For suggestions.
        pub taste: PersonName = 2 "taste", behaviour, for [Recommendation: 1 year];
        /// A remark to the driver.
        pub note: PersonName = 3 "note", basic, for [Shipping: 90 days];
    }
}

struct Shop {
    vault: Vault,
    clock: ManualClock,
    alice: SubjectId,
    me: Actor,
    why: Ground,
}

const MONTH: Duration = Duration::from_secs(60 * 86_400);

impl Shop {
    /// With Alice enrolled, who agreed to recommendations.
    fn open() -> Shop {
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let keeper = MemoryKeeper::new();
        let settings = Settings::default().height(1).unwrap().clock_jump_days(4000);
        let options = Options::new().record::<Order>().clock(clock.clone()).settings(settings);
        let vault = block_on(options.create(MemoryStore::new(), keeper.clone(), keeper)).unwrap();
        let (me, why) = (tester(), test_ground());
        let alice = SubjectId::new("alice").unwrap();
        let shop = Shop { vault, clock, alice, me, why };
        let consent = Consent::to::<Recommendation>(shop.evidence(1));
        block_on(shop.vault.enroll(&shop.alice, [consent], &shop.me, &shop.why)).unwrap();
        shop
    }

    fn evidence(&self, version: u32) -> Evidence {
        Evidence::of_notice(version, "We recommend goods.", "web", &self.me).unwrap()
    }

    fn sealer(&self) -> Sealer<Order> {
        block_on(self.vault.sealer::<Order>(&self.alice, &self.me, &self.why)).unwrap()
    }

    fn sealed(&self) -> SealedOrder {
        self.sealer().seal(an_order(), &1).unwrap()
    }

    /// With a token that lives for two months.
    fn unlock<P: Purpose>(&self) -> Result<Grant<P>> {
        let everyone = Scope::everyone();
        let token = block_on(self.vault.issue::<P>(&self.me, &self.why, MONTH, everyone)).unwrap();
        block_on(self.vault.unlock::<P>(&token, &self.alice))
    }

    fn forget(&self, request: Forget) -> ForgetReceipt {
        block_on(self.vault.forget(&self.alice, request)).unwrap()
    }

    fn request(&self) -> Forget {
        Forget::by(&self.me, &self.why)
    }

    fn shred(&self) -> ShredReceipt {
        block_on(self.vault.shred(&self.me, &self.why)).unwrap()
    }

    fn expire(&self) {
        block_on(self.vault.expire(&self.me, &self.why)).unwrap();
    }

    fn withdraw<P: Purpose>(&self) {
        block_on(self.vault.withdraw::<P>(&self.alice, &self.me, &self.why)).unwrap();
    }

    fn consent(&self, version: u32) {
        let evidence = self.evidence(version);
        block_on(self.vault.consent::<Recommendation>(&self.alice, evidence, &self.me, &self.why)).unwrap();
    }

    fn days(&self, days: u32) {
        self.clock.advance_days(days);
    }
}

fn an_order() -> Order {
    let name = |text| PersonName::parse(text).unwrap();
    Order { name: name("Alice Liddell"), taste: name("green tea"), note: name("ring twice") }
}

/// Whether the name comes out. Anything but the name or "not there" fails the test.
fn name_opens<P: Purpose>(sealed: &SealedOrder, grant: &Grant<P>) -> bool
where
    order::name: OpensFor<P>,
{
    match sealed.open(grant, &1) {
        Ok(view) => view.name().is_ok_and(|name| name.expose() == "Alice Liddell"),
        Err(Error::Erased(_) | Error::Stale | Error::Denied(Denied::Expired)) => false,
        Err(why) => panic!("{why}"),
    }
}

fn taste_opens(sealed: &SealedOrder, grant: &Grant<Recommendation>) -> bool {
    sealed.open(grant, &1).is_ok_and(|view| view.taste().is_ok())
}

#[test]
fn abuse_31_after_a_forget_a_cell_opens_for_the_books_alone_and_not_after_their_day() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    let before = shop.unlock::<Shipping>().unwrap();
    assert!(name_opens(&sealed, &before));

    let receipt = shop.forget(shop.request());
    assert_eq!(receipt.stays.iter().map(|(p, _)| *p).collect::<Vec<_>>(), [PurposeId::of::<Invoicing>()]);
    let last = receipt.stays.first().unwrap().1;
    assert_eq!(before_error(&sealed, &before), Error::Erased(Erased::Forgotten));

    // The same fenced, unreachable and destroyed.
    for stage in ["fenced", "shredded", "settled"] {
        let books = shop.unlock::<Invoicing>().unwrap();
        assert!(name_opens(&sealed, &books), "{stage}");
        let view = sealed.open(&books, &1).unwrap();
        assert!(view.name().is_ok());
        assert!(matches!(shop.unlock::<Shipping>().unwrap_err(), Error::Erased(_)), "{stage}");
        assert!(matches!(shop.unlock::<Fraud>().unwrap_err(), Error::Erased(_)), "{stage}");
        assert!(matches!(shop.unlock::<Recommendation>().unwrap_err(), Error::Erased(_)), "{stage}");
        assert!(matches!(shop.unlock::<SubjectAccess>().unwrap_err(), Error::Erased(_)), "{stage}");
        assert!(!name_opens(&sealed, &before), "{stage}");
        if stage == "fenced" {
            shop.days(7);
            assert_eq!(shop.shred().subjects, 1);
        } else {
            shop.days(31);
            block_on(shop.vault.settle(&shop.me, &shop.why)).unwrap();
        }
    }

    // The cell's own last day is before that of the key, and both are over in the end.
    let cell_ends = Day::from_ymd(2028, 1, 5).unwrap();
    while shop.clock.today() < cell_ends {
        shop.days(1);
    }
    let books = shop.unlock::<Invoicing>().unwrap();
    assert!(name_opens(&sealed, &books), "on its last day");
    shop.days(1);
    assert!(!name_opens(&sealed, &books), "the day after");
    shop.expire();
    assert!(!name_opens(&sealed, &shop.unlock::<Invoicing>().unwrap()));
    while shop.clock.today() <= last {
        shop.days(1);
    }
    assert!(matches!(shop.unlock::<Invoicing>().unwrap_err(), Error::Erased(_)));
    assert_eq!(shop.shred().subjects, 1);
    assert!(matches!(shop.unlock::<Invoicing>().unwrap_err(), Error::Erased(_)));
}

fn before_error<P: Purpose>(sealed: &SealedOrder, grant: &Grant<P>) -> Error {
    sealed.open(grant, &1).unwrap_err()
}

#[test]
fn abuse_31_a_contract_kept_open_ends_on_its_day_for_grants_that_are_older_too() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    let until = Day::from_ymd(2026, 1, 10).unwrap();
    let receipt = shop.forget(shop.request().keeping::<Shipping>(until));
    assert!(receipt.stays.contains(&(PurposeId::of::<Shipping>(), until)));

    shop.days(2);
    let grant = shop.unlock::<Shipping>().unwrap();
    assert!(name_opens(&sealed, &grant), "the order must still ship");
    assert!(matches!(shop.unlock::<Fraud>().unwrap_err(), Error::Erased(_)));
    shop.days(3);
    assert_eq!(shop.clock.today(), until);
    assert!(name_opens(&sealed, &grant), "on its last day");
    shop.days(1);
    // Nothing else has happened: no call told this process that the day is over.
    assert!(!name_opens(&sealed, &grant), "the day after");
    assert!(matches!(shop.unlock::<Shipping>().unwrap_err(), Error::Erased(_)));
    assert!(!name_opens(&sealed, &grant));
    assert!(name_opens(&sealed, &shop.unlock::<Invoicing>().unwrap()));
}

#[test]
fn abuse_31_a_contract_kept_open_ends_on_its_day_after_a_new_enrolment_too() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    let until = Day::from_ymd(2026, 1, 10).unwrap();
    shop.forget(shop.request().keeping::<Shipping>(until));
    block_on(shop.vault.enroll_again(&shop.alice, [], &shop.me, &shop.why)).unwrap();
    let new = shop.sealed();
    let grant = shop.unlock::<Shipping>().unwrap();
    assert!(name_opens(&sealed, &grant) && name_opens(&new, &grant));
    // Consent was for the old enrolment.
    assert!(matches!(shop.unlock::<Recommendation>().unwrap_err(), Error::Erased(Erased::NoConsent)));
    shop.days(6);
    assert!(!name_opens(&sealed, &grant), "the day after");
    assert!(name_opens(&new, &grant));
    let grant = shop.unlock::<Shipping>().unwrap();
    assert!(!name_opens(&sealed, &grant) && name_opens(&new, &grant));
    let all = shop.unlock::<SubjectAccess>().unwrap();
    assert!(!name_opens(&sealed, &all) && name_opens(&new, &all));
}

#[test]
fn abuse_31_what_is_kept_past_its_day_is_refused() {
    let shop = Shop::open();
    let yesterday = Day::from_ymd(2026, 1, 4).unwrap();
    let request = shop.request().keeping::<Shipping>(yesterday);
    assert!(matches!(block_on(shop.vault.forget(&shop.alice, request)), Err(Error::Misuse(_))));
    assert!(shop.unlock::<Shipping>().is_ok(), "nothing has changed");
}

#[test]
fn abuse_32_a_withdrawn_consent_stops_that_purpose_at_once_and_no_other() {
    let shop = Shop::open();
    let (sealer, sealed) = (shop.sealer(), shop.sealed());
    let (taste, ship) = (shop.unlock::<Recommendation>().unwrap(), shop.unlock::<Shipping>().unwrap());
    let all = shop.unlock::<SubjectAccess>().unwrap();
    assert!(taste_opens(&sealed, &taste));
    assert!(sealed.open(&all, &1).unwrap().taste().is_ok());

    shop.withdraw::<Recommendation>();
    assert_eq!(before_error(&sealed, &taste), Error::Erased(Erased::Purpose));
    assert!(matches!(shop.unlock::<Recommendation>().unwrap_err(), Error::Erased(_)));
    assert_eq!(sealer.seal(an_order(), &2).unwrap_err(), Error::Stale, "a sealer that was taken before");
    assert!(!sealed.open(&all, &1).is_ok_and(|view| view.taste().is_ok()));
    assert!(name_opens(&sealed, &ship), "others go on, with grants taken before");
    assert!(name_opens(&sealed, &shop.unlock::<Shipping>().unwrap()));

    let later = shop.sealer().seal(an_order(), &1).unwrap();
    assert_eq!(later.left_out(), ["taste"]);
    assert!(name_opens(&later, &ship));
}

#[test]
fn abuse_32_a_consent_given_anew_within_the_grace_lets_the_purpose_stand_again() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    shop.withdraw::<Recommendation>();
    shop.days(6);
    shop.consent(1);
    assert!(taste_opens(&sealed, &shop.unlock::<Recommendation>().unwrap()));
    shop.days(6);
    shop.shred();
    assert!(taste_opens(&sealed, &shop.unlock::<Recommendation>().unwrap()));
}

#[test]
fn abuse_32_a_consent_given_anew_after_the_shred_revives_nothing_not_even_for_older_grants() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    let old = shop.unlock::<Recommendation>().unwrap();
    assert!(taste_opens(&sealed, &old));
    shop.withdraw::<Recommendation>();
    shop.days(7);
    assert_eq!(shop.shred().subjects, 1);
    shop.consent(2);
    assert!(!taste_opens(&sealed, &shop.unlock::<Recommendation>().unwrap()), "another key");
    assert!(!taste_opens(&sealed, &old), "a grant that still holds the destroyed key");
    let new = shop.sealed();
    assert!(taste_opens(&new, &shop.unlock::<Recommendation>().unwrap()));
}

#[test]
fn abuse_32_a_new_notice_ends_grants_and_sealers_that_rest_on_older_consents() {
    let shop = Shop::open();
    let (sealer, sealed) = (shop.sealer(), shop.sealed());
    let (taste, ship) = (shop.unlock::<Recommendation>().unwrap(), shop.unlock::<Shipping>().unwrap());
    let notice = || block_on(shop.vault.require_notice::<Recommendation>(2, &shop.me, &shop.why)).unwrap();
    notice();
    assert!(matches!(shop.unlock::<Recommendation>().unwrap_err(), Error::Erased(_)));
    assert!(!taste_opens(&sealed, &taste), "a grant that was taken before");
    match sealer.seal(an_order(), &2) {
        Ok(later) => assert_eq!(later.left_out(), ["taste"], "a sealer that was taken before"),
        Err(why) => assert_eq!(why, Error::Stale),
    }
    assert!(name_opens(&sealed, &ship), "others go on");
    shop.consent(2);
    assert!(taste_opens(&sealed, &shop.unlock::<Recommendation>().unwrap()));
}

#[test]
fn abuse_32_a_hold_keeps_what_a_withdrawal_would_destroy_for_legal_hold_alone() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    block_on(shop.vault.hold(&shop.alice, &shop.me, &shop.why)).unwrap();
    shop.withdraw::<Recommendation>();
    shop.days(7);
    shop.shred();
    assert!(matches!(shop.unlock::<Recommendation>().unwrap_err(), Error::Erased(_)));
    let all = shop.unlock::<SubjectAccess>().unwrap();
    assert!(sealed.open(&all, &1).unwrap().taste().is_err());
    let held = shop.unlock::<LegalHold>().unwrap();
    let view = sealed.open(&held, &1).unwrap();
    assert!(view.taste().is_ok());
    assert!(view.name().is_err(), "a purpose in use is no business of the hold");
    block_on(shop.vault.release_hold(&shop.alice, &shop.me, &shop.why)).unwrap();
    assert!(sealed.open(&held, &1).is_err());
    shop.shred();
    assert!(shop.unlock::<LegalHold>().is_err());
}

#[test]
fn abuse_32_a_hold_on_a_subject_being_forgotten_keeps_its_shelves_through_an_expiry() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    shop.forget(shop.request());
    block_on(shop.vault.hold(&shop.alice, &shop.me, &shop.why)).unwrap();
    shop.days(100);
    shop.shred();
    shop.expire();
    shop.expire();
    assert!(matches!(shop.unlock::<Shipping>().unwrap_err(), Error::Erased(_)));
    let view = sealed.open(&shop.unlock::<LegalHold>().unwrap(), &1).unwrap();
    assert_eq!(view.note().unwrap().expose(), "ring twice", "its day is over, its shelf was kept");
    assert!(view.taste().is_ok());
    block_on(shop.vault.release_hold(&shop.alice, &shop.me, &shop.why)).unwrap();
    shop.shred();
    assert!(shop.unlock::<LegalHold>().is_err());
    assert!(name_opens(&sealed, &shop.unlock::<Invoicing>().unwrap()), "the law still keeps it");
}
