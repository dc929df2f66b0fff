//! Bounds of sealing, of tokens and of clocks, and the length of what is padded. ABUSE 13, 15, 16, 18 and 26.
#![cfg(feature = "testing")]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, reason = "a test")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(missing_docs, unreachable_pub, reason = "a test")]

use std::time::Duration;

use customer_vault::clock::Clock;
use customer_vault::error::{Denied, Halted, Misuse};
use customer_vault::testing::{ManualClock, ephemeral, grant, test_ground, tester};
use customer_vault::value::{Bytes, PersonName};
use customer_vault::*;
use pollster::block_on;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub Invoicing: LegalObligation = 3 "invoicing";
}

/// A value of as many bytes as it says, or of others.
#[derive(Debug)]
pub struct Blob {
    says: usize,
    has: usize,
}

impl Value for Blob {
    fn encoded_len(&self) -> usize {
        self.says
    }
    fn encode(&self, out: &mut Encoder<'_>) {
        out.put(&vec![7; self.has]);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Blob { says: bytes.len(), has: bytes.len() })
    }
}

record! {
    pub struct Scan[u64] / SealedScan / ScanView in scan = "scan" {
        pub page: Blob = 1 "page", basic, for [Shipping: 90 days];
        pub cover: Blob = 2 "cover", basic, for [Shipping: 90 days], padded 64;
        pub title: PersonName = 3 "title", basic, for [Invoicing: 2 years];
    }
}

record! {
    pub struct Form / SealedForm / FormView in form = "form" {
        pub phone: Option<Bytes> = 1 "phone", basic, for [Shipping: 90 days], padded 32;
        pub pages: Vec<Bytes> = 2 "pages", basic, for [Shipping: 90 days], padded 1000;
    }
}

fn vault(options: Options, clock: &ManualClock) -> Vault {
    let options = options.record::<Scan>().record::<Form>().clock(clock.clone());
    let vault = block_on(ephemeral(options)).unwrap();
    block_on(vault.enroll(&alice(), [], &tester(), &test_ground())).unwrap();
    vault
}

fn alice() -> SubjectId {
    SubjectId::new("alice").unwrap()
}

fn noon() -> ManualClock {
    ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap())
}

fn a_scan(says: usize, has: usize) -> Scan {
    let cover = Blob { says: 1, has: 1 };
    Scan { page: Blob { says, has }, cover, title: PersonName::parse("Title").unwrap() }
}

fn sealer<R: Record>(vault: &Vault) -> Sealer<R> {
    block_on(vault.sealer::<R>(&alice(), &tester(), &test_ground())).unwrap()
}

#[track_caller]
fn misuse<T: std::fmt::Debug>(outcome: Result<T>) -> Misuse {
    match outcome.unwrap_err() {
        Error::Misuse(why) => why,
        why => panic!("{why}"),
    }
}

#[test]
fn abuse_13_a_sealer_makes_as_many_seals_as_it_may_and_then_none() {
    let vault = vault(Options::new().max_seals(6), &noon());
    let all = sealer::<Scan>(&vault);
    // Two cells each.
    for n in 0..3 {
        all.seal(a_scan(1, 1), &n).unwrap();
    }
    for n in 3..10 {
        assert_eq!(misuse(all.seal(a_scan(1, 1), &n)), Misuse::SealsUsedUp);
        assert_eq!(misuse(all.seal_field::<scan::page>(Blob { says: 1, has: 1 }, &n)), Misuse::SealsUsedUp);
    }
    let another = sealer::<Scan>(&vault);
    another.seal(a_scan(1, 1), &3).unwrap();
    // The bound cannot be raised above that of the specification.
    let vault = self::vault(Options::new().max_seals(u64::MAX), &noon());
    sealer::<Scan>(&vault).seal(a_scan(1, 1), &1).unwrap();
}

#[test]
fn abuse_13_updates_count_as_seals() {
    let vault = vault(Options::new().max_seals(3), &noon());
    let sealer = sealer::<Scan>(&vault);
    let sealed = sealer.seal(a_scan(1, 1), &1).unwrap();
    let grant = block_on(grant::<Shipping>(&vault, &alice())).unwrap();
    let change = |sealed: &SealedScan| {
        sealed.update(&sealer, &grant, &1, |set| set.set::<scan::page>(Blob { says: 2, has: 2 }))
    };
    let sealed = change(&sealed).unwrap();
    assert_eq!(misuse(change(&sealed)), Misuse::SealsUsedUp);
}

#[test]
fn abuse_13_a_value_above_16_mib_is_refused_and_one_of_16_mib_is_not() {
    const MOST: usize = 16 << 20;
    let vault = vault(Options::new(), &noon());
    let sealer = sealer::<Scan>(&vault);
    // Beside the page its four bytes of length, and the cover with its padding.
    let most = MOST - 4 - 65;
    for len in [most + 1, MOST, MOST + 1, 40 << 20] {
        assert_eq!(misuse(sealer.seal(a_scan(len, len), &1)), Misuse::TooLarge);
    }
    let field = |len| sealer.seal_field::<scan::page>(Blob { says: len, has: len }, &1);
    assert_eq!(misuse(field(MOST - 3)), Misuse::TooLarge);
    let sealed = field(MOST - 4).unwrap();
    assert!(Sealed::<scan::page>::from_bytes(sealed.into_bytes()).is_ok());
}

#[test]
fn abuse_13_a_length_that_nothing_could_hold_is_refused_before_memory_is_taken() {
    let vault = vault(Options::new(), &noon());
    let sealer = sealer::<Scan>(&vault);
    let grant = block_on(grant::<Shipping>(&vault, &alice())).unwrap();
    let sealed = sealer.seal(a_scan(1, 1), &1).unwrap();
    for says in [u32::MAX.try_into().unwrap(), usize::MAX / 2, usize::MAX - 1, usize::MAX] {
        assert_eq!(misuse(sealer.seal(a_scan(says, 1), &1)), Misuse::TooLarge);
        let blob = || Blob { says, has: 1 };
        assert_eq!(misuse(sealer.seal_field::<scan::page>(blob(), &1)), Misuse::TooLarge);
        assert_eq!(misuse(sealer.seal_field::<scan::cover>(blob(), &1)), Misuse::TooLarge);
        let updated = sealed.update(&sealer, &grant, &1, |set| set.set::<scan::page>(blob()));
        assert_eq!(misuse(updated), Misuse::TooLarge);
        let updated = sealed.update(&sealer, &grant, &1, |set| set.set::<scan::cover>(blob()));
        assert_eq!(misuse(updated), Misuse::TooLarge);
    }
}

#[test]
fn a_value_that_writes_another_length_than_it_says_is_refused_and_spoils_nothing() {
    let vault = vault(Options::new(), &noon());
    let sealer = sealer::<Scan>(&vault);
    let grant = block_on(grant::<Shipping>(&vault, &alice())).unwrap();
    let sealed = sealer.seal(a_scan(3, 3), &1).unwrap();
    for (says, has) in [(3, 2), (3, 4), (0, 1), (1, 0), (100, 101), (200, 10), (0, 5000)] {
        assert_eq!(misuse(sealer.seal(a_scan(says, has), &1)), Misuse::TooLarge);
        let blob = || Blob { says, has };
        assert_eq!(misuse(sealer.seal_field::<scan::cover>(blob(), &1)), Misuse::TooLarge);
        let updated = sealed.update(&sealer, &grant, &1, |set| set.set::<scan::page>(blob()));
        assert_eq!(misuse(updated), Misuse::TooLarge, "{says} {has}");
        let updated = sealed.update(&sealer, &grant, &1, |set| set.set::<scan::cover>(blob()));
        assert_eq!(misuse(updated), Misuse::TooLarge, "{says} {has}");
    }
    assert_eq!(sealed.open(&grant, &1).unwrap().page().unwrap().has, 3);
}

#[test]
fn abuse_13_a_day_after_today_is_refused_and_so_is_one_whose_periods_are_all_over() {
    let clock = noon();
    let vault = vault(Options::new(), &clock);
    let sealer = sealer::<Scan>(&vault);
    let day = |y, m, d| Day::from_ymd(y, m, d).unwrap();
    for late in [day(2026, 1, 6), day(2036, 1, 5), day(2149, 6, 6)] {
        assert_eq!(misuse(sealer.seal_as_of(a_scan(1, 1), &1, late)), Misuse::AsOfFuture);
    }
    assert!(sealer.seal_as_of(a_scan(1, 1), &1, day(2026, 1, 5)).is_ok());
    // Ninety days before: its last day is today.
    assert!(sealer.seal_as_of(a_scan(1, 1), &1, day(2025, 10, 7)).unwrap().left_out().is_empty());
    let sealed = sealer.seal_as_of(a_scan(1, 1), &1, day(2025, 10, 6)).unwrap();
    assert_eq!(sealed.left_out(), ["page", "cover"]);
    for early in [day(2024, 1, 4), day(1970, 1, 1)] {
        assert_eq!(misuse(sealer.seal_as_of(a_scan(1, 1), &1, early)), Misuse::Day);
    }
}

#[test]
fn abuse_13_a_day_beyond_the_calendar_is_refused_until_the_next_sealer_is_taken() {
    let clock = noon();
    let vault = vault(Options::new().settings(Settings::default().clock_jump_days(1000)), &clock);
    let old = sealer::<Scan>(&vault);
    clock.advance_days(35);
    assert!(old.seal(a_scan(1, 1), &1).is_ok(), "made ahead");
    clock.advance_days(3);
    assert_eq!(misuse(old.seal(a_scan(1, 1), &1)), Misuse::Day);
    assert!(sealer::<Scan>(&vault).seal(a_scan(1, 1), &1).is_ok());
    assert!(old.seal(a_scan(1, 1), &1).is_ok(), "the calendar is the vault's");
    let late = ManualClock::at(Day::from_ymd(2149, 1, 1).unwrap());
    let beyond = block_on(ephemeral(Options::new().record::<Scan>().clock(late)));
    assert_eq!(misuse(beyond), Misuse::Day);
}

fn hour() -> Duration {
    Duration::from_secs(3600)
}

#[test]
fn abuse_15_a_token_works_to_its_last_second_and_so_does_what_it_gave() {
    let clock = noon();
    let vault = vault(Options::new(), &clock);
    let sealed = sealer::<Scan>(&vault).seal(a_scan(1, 1), &1).unwrap();
    let token =
        block_on(vault.issue::<Shipping>(&tester(), &test_ground(), hour(), Scope::everyone())).unwrap();
    let unlock = || block_on(vault.unlock::<Shipping>(&token, &alice()));
    let early = unlock().unwrap();
    clock.advance(Duration::from_secs(3599));
    let late = unlock().unwrap();
    assert!(sealed.open(&early, &1).is_ok() && sealed.open(&late, &1).is_ok());
    clock.advance(Duration::from_millis(999));
    assert!(unlock().is_ok());
    assert!(sealed.open(&early, &1).is_ok() && sealed.open(&late, &1).is_ok());
    clock.advance(Duration::from_millis(1));
    let expired = Error::Denied(Denied::Expired);
    assert_eq!(unlock().unwrap_err(), expired);
    assert_eq!(sealed.open(&early, &1).unwrap_err(), expired);
    assert_eq!(sealed.open(&late, &1).unwrap_err(), expired);
}

#[test]
fn abuse_15_a_token_for_later_does_not_work_now_and_none_lives_too_long() {
    let clock = noon();
    let vault = vault(Options::new().settings(Settings::default().max_token_seconds(3600)), &clock);
    let issue = |life| block_on(vault.issue::<Shipping>(&tester(), &test_ground(), life, Scope::everyone()));
    let too_long = Error::Denied(Denied::Lifetime);
    assert_eq!(issue(hour() + Duration::from_secs(1)).unwrap_err(), too_long);
    assert_eq!(issue(Duration::MAX).unwrap_err(), too_long);
    let token = issue(hour()).unwrap();
    let soon = clock.today().start_ms() / 1000 + 43_200 + 60;
    let narrowed = token.narrow().not_before(soon).done().unwrap();
    let unlock = |token| block_on(vault.unlock::<Shipping>(token, &alice()));
    assert!(unlock(&token).is_ok());
    assert_eq!(unlock(&narrowed).unwrap_err(), Error::Denied(Denied::NotYet));
    clock.advance(Duration::from_millis(59_999));
    assert_eq!(unlock(&narrowed).unwrap_err(), Error::Denied(Denied::NotYet));
    clock.advance(Duration::from_millis(1));
    assert!(unlock(&narrowed).is_ok());
}

#[test]
fn abuse_16_a_clock_set_back_gives_a_grant_no_more_time() {
    let clock = noon();
    let vault = vault(Options::new(), &clock);
    let sealed = sealer::<Scan>(&vault).seal(a_scan(1, 1), &1).unwrap();
    let grant = block_on(grant::<Shipping>(&vault, &alice())).unwrap();
    clock.advance(Duration::from_secs(1800));
    clock.set_wall(clock.today().start_ms());
    assert!(matches!(sealed.open(&grant, &1), Err(Error::Denied(Denied::NotYet))), "before it was issued");
    clock.set_wall(clock.today().start_ms() + 43_200_000);
    assert!(sealed.open(&grant, &1).is_ok());
    clock.advance(Duration::from_secs(1800));
    clock.set_wall(clock.today().start_ms() + 43_200_000);
    assert_eq!(sealed.open(&grant, &1).unwrap_err(), Error::Denied(Denied::Expired));
}

#[test]
fn abuse_16_a_clock_set_back_revives_no_token_and_no_day() {
    let clock = noon();
    let vault = vault(Options::new(), &clock);
    let sealed = sealer::<Scan>(&vault).seal(a_scan(1, 1), &1).unwrap();
    let start = clock.today().start_ms() + 43_200_000;
    let issue = |life| block_on(vault.issue::<Shipping>(&tester(), &test_ground(), life, Scope::everyone()));
    let (token, long) = (issue(hour()).unwrap(), issue(hour() * 24 * 300).unwrap());
    for _ in 0..16 {
        clock.advance_days(6);
        block_on(vault.expire(&tester(), &test_ground())).unwrap();
    }
    let unlock = |token| block_on(vault.unlock::<Shipping>(token, &alice()));
    let view = sealed.open(&unlock(&long).unwrap(), &1).unwrap();
    assert_eq!(view.page().unwrap_err(), Absent::Expired);
    clock.set_wall(start);
    assert_eq!(unlock(&token).unwrap_err(), Error::Denied(Denied::Expired), "it had expired");
    if let Ok(grant) = unlock(&long) {
        assert_eq!(sealed.open(&grant, &1).unwrap().page().unwrap_err(), Absent::Expired);
    }
    // What is sealed now must not lie under a day that is gone.
    let again = sealer::<Scan>(&vault).seal(a_scan(1, 1), &1).unwrap();
    let mark = Day::from_ymd(2026, 4, 10).unwrap();
    assert!(again.unverified_days().iter().all(|(_, day)| *day > mark));
    assert_eq!(again.left_out(), ["page", "cover"]);
}

#[test]
fn abuse_18_revoking_all_reaches_what_was_issued_before_the_clock_was_set_back() {
    for what in [Revoke::All, Revoke::Purpose(PurposeId::of::<Shipping>())] {
        let clock = noon();
        let vault = vault(Options::new(), &clock);
        let day = Scope::everyone();
        let token = block_on(vault.issue::<Shipping>(&tester(), &test_ground(), hour(), day)).unwrap();
        clock.set_wall(clock.wall() - 10_000);
        block_on(vault.revoke(what, &tester(), &test_ground())).unwrap();
        assert!(block_on(vault.tokens()).unwrap().is_empty());
        clock.advance(Duration::from_secs(20));
        let refused = block_on(vault.unlock::<Shipping>(&token, &alice())).unwrap_err();
        assert_eq!(refused, Error::Denied(Denied::Revoked));
        let later = block_on(vault.issue::<Shipping>(&tester(), &test_ground(), hour(), Scope::everyone()));
        assert!(block_on(vault.unlock::<Shipping>(&later.unwrap(), &alice())).is_ok());
    }
}

#[test]
fn abuse_16_a_clock_ten_years_ahead_stops_expiry_and_sealing_and_moves_no_mark() {
    let clock = noon();
    let vault = vault(Options::new(), &clock);
    let held = sealer::<Scan>(&vault);
    let sealed = held.seal(a_scan(1, 1), &1).unwrap();
    let wall = clock.today().start_ms() + 43_200_000;
    clock.set_wall(wall + 3653 * 86_400_000);
    let halted = Error::Halted(Halted::Clock);
    assert_eq!(block_on(vault.expire(&tester(), &test_ground())).unwrap_err(), halted);
    assert_eq!(held.seal(a_scan(1, 1), &1).unwrap_err(), halted);
    assert_eq!(block_on(vault.sealer::<Scan>(&alice(), &tester(), &test_ground())).unwrap_err(), halted);
    clock.set_wall(wall);
    assert!(block_on(vault.expire(&tester(), &test_ground())).unwrap().days.is_empty());
    let grant = block_on(grant::<Shipping>(&vault, &alice())).unwrap();
    assert!(sealed.open(&grant, &1).unwrap().page().is_ok(), "nothing was destroyed");
    assert!(held.seal(a_scan(1, 1), &1).is_ok());
}

#[test]
fn abuse_26_padded_values_of_different_length_seal_to_one_length() {
    let vault = vault(Options::new(), &noon());
    let sealer = sealer::<Form>(&vault);
    let grant = block_on(grant::<Shipping>(&vault, &alice())).unwrap();
    let bytes = |n: usize| Bytes::parse(&vec![0; n]).unwrap();
    let seal = |phone: Option<usize>, pages: &[usize]| {
        let pages = pages.iter().map(|n| bytes(*n)).collect();
        let sealed = sealer.seal(Form { phone: phone.map(bytes), pages }).unwrap();
        let view = sealed.open(&grant).unwrap();
        assert_eq!(view.phone().unwrap().map(|b| b.expose().len()), phone);
        sealed.as_bytes().len()
    };
    let shortest = seal(None, &[]);
    for phone in [None, Some(0), Some(1), Some(30), Some(31)] {
        for pages in [&[][..], &[0], &[1, 2, 3], &[500, 400], &[996], &[995]] {
            assert_eq!(seal(phone, pages), shortest, "{phone:?} {pages:?}");
        }
    }
    assert_eq!(seal(Some(32), &[]), shortest + 32);
    assert_eq!(seal(Some(63), &[]), shortest + 32);
    assert_eq!(seal(None, &[997]), shortest + 1000);
    let field = |n| sealer.seal_field::<form::phone>(Some(bytes(n))).unwrap().as_bytes().len();
    assert_eq!(field(0), field(31));
    assert_eq!(field(31) + 32, field(32));
}
