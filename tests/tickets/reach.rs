//! What a ticket reaches: one purpose, its subjects, its days, its fields, and nothing else.

use std::sync::atomic::{AtomicUsize, Ordering};

use customer_vault::error::{Absent, Denied, Misuse, Unsupported};
use customer_vault::log::{Action, Outcome};
use customer_vault::testing::{Call, FaultStore};

use super::*;

#[test]
fn a_reader_opens_with_a_ticket_alone_as_a_grant_of_the_vault_does() {
    let shop = Shop::open();
    shop.enroll("alice");
    let sealed = shop.sealed("alice", 1);
    let ticket = shop.ticket::<Shipping>(&[("alice", &sealed)]);
    let verifier = shop.vault.verifier_key().unwrap();
    let Shop { clock, key, vault, store, keeper, .. } = shop;
    // Nothing of the shop is left but what a printer has.
    drop((vault, store, keeper));

    let verifier: note::VerifierKey = verifier.to_string().parse().unwrap();
    let key = ReaderKey::from_bytes(&zeroize::Zeroizing::new(*key.expose())).unwrap();
    let ticket = Ticket::from_bytes(ticket.as_bytes().to_vec()).unwrap();
    let reader = Reader::<Shipping>::open_by(&key, &ticket, &verifier, clock.clone()).unwrap();
    assert_eq!((reader.subjects(), reader.ends_ms()), (1, clock.wall() + 3_600_000));
    let grant = reader.grant(&id("alice")).unwrap();
    let view = sealed.open(&grant, &1).unwrap();
    assert_eq!(view.name().unwrap().expose(), "alice");
    assert_eq!(view.note().unwrap().expose(), "ring twice");
    assert!(matches!(sealed.open(&grant, &2), Err(Error::DoesNotOpen)));
    assert!(matches!(reader.grant(&id("bob")), Err(Error::Denied(Denied::Subject))));
}

/// Every ticket of a purpose, a subject and a day, against every sealed value: it opens the one, and no other.
#[test]
fn a_ticket_opens_no_other_purpose_subject_or_day() {
    let shop = Shop::open();
    let people = ["alice", "bob", "carol"];
    for who in &people {
        shop.enroll(who);
    }
    let mut sealed = Vec::new();
    for (day, number) in (1..=3).enumerate() {
        for who in people {
            sealed.push((who, day, number, shop.sealed(who, number)));
        }
        shop.clock.advance_days(1);
    }
    for (who, day, number, one) in &sealed {
        let scope = [TicketScope::of(&id(who)).sealed(one)];
        let shipping = shop.give::<Shipping>(HOUR, &scope).unwrap().ticket;
        let books = shop.give::<Invoicing>(HOUR, &scope).unwrap().ticket;
        assert_eq!(shop.read::<Invoicing>(&shipping).unwrap_err(), Denied::Purpose.into());
        assert_eq!(shop.read::<Shipping>(&books).unwrap_err(), Denied::Purpose.into());
        let shipping = shop.read::<Shipping>(&shipping).unwrap();
        let books = shop.read::<Invoicing>(&books).unwrap();
        let (to_ship, to_bill) = (shipping.grant(&id(who)).unwrap(), books.grant(&id(who)).unwrap());
        for (of, on, with, other) in &sealed {
            if of != who {
                assert_eq!(shipping.grant(&id(of)).unwrap_err(), Denied::Subject.into());
                // Not even where the printer takes one for the other.
                if on == day {
                    assert!(matches!(other.open(&to_ship, with), Err(Error::DoesNotOpen)), "{who} {of}");
                }
                continue;
            }
            let (label, bill) = (other.open(&to_ship, with).unwrap(), other.open(&to_bill, with).unwrap());
            let there = if on == day { None } else { Some(Absent::NotInTicket) };
            assert_eq!(label.name().err(), there, "{who} {day} {on}");
            assert_eq!(label.note().err(), there);
            assert_eq!(bill.name().err(), there);
            assert!(
                matches!(other.open(&to_ship, &(with + 100)), Err(Error::DoesNotOpen)) || there.is_some()
            );
            assert_eq!(with == number, on == day);
        }
    }
}

#[test]
fn one_reader_of_the_books_does_not_see_what_is_for_shipping_alone() {
    let shop = Shop::open();
    shop.enroll("alice");
    let sealed = shop.sealed("alice", 1);
    let reader = shop.read::<Invoicing>(&shop.ticket::<Invoicing>(&[("alice", &sealed)])).unwrap();
    // The declaration lets nobody ask for the note with this purpose; a single field's type says the same. What the bytes
    // hold is asked here by a purpose type of somebody else's that claims the number.
    purposes! { pub Other: LegalObligation = 3 "other"; }
    let grant = reader.grant(&id("alice")).unwrap();
    assert_eq!(sealed.open(&grant, &1).unwrap().name().unwrap().expose(), "alice");
    let ticket = shop.ticket::<Invoicing>(&[("alice", &sealed)]);
    assert_eq!(shop.read::<Other>(&ticket).unwrap_err(), Denied::Purpose.into());
}

#[test]
fn days_by_range_reach_what_ends_on_them() {
    let shop = Shop::open();
    shop.enroll("alice");
    let sealed = shop.sealed("alice", 1);
    let (note, name) = (shop.clock.today().plus(30), shop.clock.today().plus(90));
    let of = |first: Day, last: Day| {
        let scope = [TicketScope::of(&id("alice")).days(first, last)];
        let given = shop.give::<Shipping>(HOUR, &scope).unwrap();
        let reader = shop.read::<Shipping>(&given.ticket).unwrap();
        let view = sealed.open(&reader.grant(&id("alice")).unwrap(), &1).unwrap();
        (view.name().err(), view.note().err())
    };
    let no = Some(Absent::NotInTicket);
    assert_eq!(of(note, name), (None, None));
    assert_eq!(of(note, note), (no, None));
    assert_eq!(of(name, name.plus(5000)), (None, no));
    assert_eq!(of(Day::of(0), note), (no, None), "days that are over are left out");
    let none = |first, last| shop.give::<Shipping>(HOUR, &[TicketScope::of(&id("alice")).days(first, last)]);
    for (first, last) in [(Day::of(0), Day::of(0)), (name, note), (name.plus(6000), name.plus(6001))] {
        assert_eq!(none(first, last).unwrap_err(), Misuse::Day.into());
    }
    assert_eq!(
        shop.give::<Shipping>(HOUR, &[TicketScope::of(&id("alice"))]).unwrap_err(),
        Misuse::Day.into()
    );
}

#[test]
fn fields_that_the_token_leaves_out_the_ticket_leaves_out() {
    let shop = Shop::open();
    shop.enroll("alice");
    let sealed = shop.sealed("alice", 1);
    let token = shop.token::<Shipping>(Scope::everyone().field::<order::name>());
    let scope = [TicketScope::of(&id("alice")).sealed(&sealed)];
    let given = block_on(shop.vault.ticket::<Shipping>(&token, &shop.key.recipient(), HOUR, &scope)).unwrap();
    let grant = shop.read::<Shipping>(&given.ticket).unwrap().grant(&id("alice")).unwrap();
    let view = sealed.open(&grant, &1).unwrap();
    assert_eq!(view.name().unwrap().expose(), "alice");
    assert_eq!(view.note().unwrap_err(), Absent::NotInToken);
}

#[test]
fn refusals_stand_at_their_places_and_in_the_log() {
    let shop = Shop::open();
    for who in ["alice", "bob", "carol"] {
        shop.enroll(who);
    }
    let sealed = shop.sealed("alice", 1);
    shop.forget("bob");
    let scope = Scope::subject(&id("alice")).and(&id("bob")).and(&id("nobody"));
    let token = shop.token::<Shipping>(scope);
    let scopes = ["alice", "bob", "carol", "nobody", "alice"];
    let mut scopes: Vec<_> = scopes.iter().map(|who| TicketScope::of(&id(who)).sealed(&sealed)).collect();
    let given =
        block_on(shop.vault.ticket::<Shipping>(&token, &shop.key.recipient(), HOUR, &scopes)).unwrap();
    let refused = |why: Error| Err(why);
    assert_eq!(
        given.each,
        [
            Ok(()),
            refused(error::Erased::Forgotten.into()),
            refused(Denied::Subject.into()),
            refused(Error::NotEnrolled),
            Ok(())
        ]
    );
    assert_eq!(shop.read::<Shipping>(&given.ticket).unwrap().subjects(), 1);

    let log = block_on(shop.vault.log()).unwrap();
    let entries: Vec<_> = log.iter().filter(|entry| entry.action() == Action::Ticket).collect();
    let done: Vec<_> = entries.iter().filter(|entry| entry.outcome() == Outcome::Done).collect();
    assert_eq!((done.len(), entries.len()), (1, 4));
    let ticket = done[0].ticket().unwrap();
    assert_eq!(ticket.id, given.ticket.unverified_id());
    assert_eq!(ticket.recipient, shop.key.recipient().fingerprint());
    assert_eq!((ticket.ends_ms, given.ends_ms), (given.ends_ms, shop.now() + 3_600_000));
    assert_eq!((done[0].subjects().len(), done[0].purpose()), (1, Some(1)));
    assert_eq!(done[0].token(), token_id(&shop).as_ref());
    assert!(entries.iter().all(|entry| entry.outcome() == Outcome::Done || entry.subjects().is_empty()));

    scopes.truncate(3);
    scopes.remove(0);
    let nobody = block_on(shop.vault.ticket::<Shipping>(&token, &shop.key.recipient(), HOUR, &scopes));
    assert_eq!(nobody.unwrap_err(), error::Erased::Forgotten.into());
}

fn token_id(shop: &Shop) -> Option<[u8; 16]> {
    block_on(shop.vault.tokens()).unwrap().first().map(|token| token.id)
}

#[test]
fn what_a_ticket_cannot_be_is_refused_and_nothing_is_given() {
    let shop = Shop::open();
    shop.enroll("alice");
    let sealed = shop.sealed("alice", 1);
    let scope = [TicketScope::of(&id("alice")).sealed(&sealed)];
    let late = HOUR + Duration::from_millis(1);
    assert_eq!(shop.give::<Shipping>(late, &scope).unwrap_err(), Denied::Lifetime.into());
    assert_eq!(shop.give::<Shipping>(Duration::ZERO, &scope).unwrap_err(), Misuse::Period.into());
    assert_eq!(shop.give::<SubjectAccess>(HOUR, &scope).unwrap_err(), Misuse::BuiltIn.into());
    let key = shop.key.recipient();
    let token = shop.token::<Invoicing>(Scope::everyone());
    let other = block_on(shop.vault.ticket::<Shipping>(&token, &key, HOUR, &scope));
    assert_eq!(other.unwrap_err(), Denied::Purpose.into());
    let many = vec![scope[0].clone(); 1001];
    assert_eq!(shop.give::<Shipping>(HOUR, &many).unwrap_err(), Unsupported::Parameters.into());
    // 160 people and 125 days are 20,000 keys.
    let (first, last) = (shop.clock.today(), shop.clock.today().plus(124));
    let wide: Vec<_> = (0..160).map(|n| TicketScope::of(&id(&format!("c-{n}"))).days(first, last)).collect();
    assert_eq!(shop.give::<Shipping>(HOUR, &wide).unwrap_err(), Unsupported::Parameters.into());
    assert_eq!(shop.give::<Shipping>(HOUR, &[]).unwrap_err(), Misuse::Day.into());
    assert_eq!(shop.forget("alice").tickets_until_ms, None);
}

#[test]
fn a_ticket_of_a_thousand_subjects_is_one_commit_and_one_entry() {
    let shop = Shop::open();
    let names: Vec<String> = (0..1000).map(|n| format!("c-{n}")).collect();
    for who in &names {
        shop.enroll(who);
    }
    let last = shop.clock.today().plus(90);
    let scopes: Vec<_> = names.iter().map(|who| TicketScope::of(&id(who)).days(last, last)).collect();
    let given = shop.give::<Shipping>(HOUR, &scopes).unwrap();
    assert!(given.each.iter().all(Result::is_ok));
    let sealed = shop.sealed("c-999", 7);
    let reader = shop.read::<Shipping>(&given.ticket).unwrap();
    assert_eq!(reader.subjects(), 1000);
    assert_eq!(
        sealed.open(&reader.grant(&id("c-999")).unwrap(), &7).unwrap().name().unwrap().expose(),
        "c-999"
    );
    let log = block_on(shop.vault.log()).unwrap();
    let given: Vec<_> = log.iter().filter(|entry| entry.action() == Action::Ticket).collect();
    assert_eq!((given.len(), given[0].subjects().len()), (1, 1000));
}

#[test]
fn what_a_ticket_opens_updates_nothing() {
    let shop = Shop::open();
    shop.enroll("alice");
    let sealed = shop.sealed("alice", 1);
    let ticket = shop.ticket::<Shipping>(&[("alice", &sealed)]);
    let grant = shop.read::<Shipping>(&ticket).unwrap().grant(&id("alice")).unwrap();
    let sealer = block_on(shop.vault.sealer::<Order>(&id("alice"), &shop.me, &shop.why)).unwrap();
    let updated = sealed.update(&sealer, &grant, &1, |set| set.set::<order::note>(name("no")));
    assert_eq!(updated.unwrap_err(), Error::DoesNotOpen);
}

#[test]
fn what_was_sealed_before_a_withdrawal_is_withdrawn_for_a_reader_too() {
    let shop = Shop::open();
    shop.enroll("alice");
    let old = shop.sealed("alice", 1);
    block_on(shop.vault.withdraw::<Recommendation>(&id("alice"), &shop.me, &shop.why)).unwrap();
    shop.clock.advance_days(10);
    block_on(shop.vault.shred(&shop.me, &shop.why)).unwrap();
    let evidence = Evidence::of_notice(1, "We recommend goods.", "web", &shop.me).unwrap();
    block_on(shop.vault.consent::<Recommendation>(&id("alice"), evidence, &shop.me, &shop.why)).unwrap();
    let ticket = shop.ticket::<Recommendation>(&[("alice", &old)]);
    let grant = shop.read::<Recommendation>(&ticket).unwrap().grant(&id("alice")).unwrap();
    assert_eq!(old.open(&grant, &1).unwrap().taste().unwrap_err(), Absent::Withdrawn);
}

/// Midnight comes while a ticket waits for the store: at its read of the entry, which comes after its days were looked up,
/// or at none.
#[test]
fn a_ticket_is_not_given_for_a_day_that_ends_while_it_waits() {
    let evening = || {
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let (store, keeper) = (FaultStore::new(MemoryStore::new()), MemoryKeeper::new());
        let settings = Settings::default().height(1).unwrap();
        let options = Options::new().record::<Order>().clock(clock.clone()).settings(settings);
        let vault = block_on(options.create(store.clone(), keeper.clone(), keeper)).unwrap();
        block_on(vault.enroll(&id("alice"), [], &tester(), &test_ground())).unwrap();
        let sealer = block_on(vault.sealer::<Order>(&id("alice"), &tester(), &test_ground())).unwrap();
        let order = Order { name: name("alice"), note: name("ring twice"), taste: name("green tea") };
        let sealed = sealer.seal(order, &1).unwrap();
        // The last minute of the last day of the note.
        clock.set_wall(Day::from_ymd(2026, 2, 5).unwrap().start_ms() - 30_000);
        let token = block_on(vault.issue::<Shipping>(&tester(), &test_ground(), HOUR, Scope::everyone()));
        (clock, store, vault, sealed, token.unwrap())
    };
    let key = ReaderKey::generate().unwrap();
    let (mut cut, mut whole) = (0, 0);
    for nth in 0..4 {
        let (clock, store, vault, sealed, token) = evening();
        let before = ManualClock::at(clock.today());
        before.set_wall(clock.wall() + 1000);
        let note = clock.today();
        let reads = AtomicUsize::new(0);
        let hand = clock.clone();
        store.before_each(move |call| {
            if matches!(call, Call::Read(_)) && reads.fetch_add(1, Ordering::SeqCst) == nth {
                hand.advance(MINUTE);
            }
            Box::pin(std::future::ready(()))
        });
        let of = |scope: TicketScope| {
            let (to, scopes) = (key.recipient(), [scope]);
            block_on(vault.ticket::<Shipping>(&token, &to, MINUTE * 30, &scopes))
        };
        let both = of(TicketScope::of(&id("alice")).sealed(&sealed)).unwrap().ticket;
        let came = clock.today() > note;
        let alone = came.then(|| of(TicketScope::of(&id("alice")).days(note, note)));
        store.without_hook();
        // To a clock of the day before, so that it is the ticket that lacks the day.
        let reader =
            Reader::<Shipping>::open_by(&key, &both, &vault.verifier_key().unwrap(), before).unwrap();
        let grant = reader.grant(&id("alice")).unwrap();
        let view = sealed.open(&grant, &1).unwrap();
        assert!(view.name().is_ok(), "read {nth}");
        match view.note().err() {
            Some(why) => {
                assert_eq!((why, came), (Absent::NotInTicket, true), "read {nth}");
                assert_eq!(alone.unwrap().unwrap_err(), Misuse::Day.into());
                cut += 1;
            }
            None => whole += 1,
        }
    }
    assert!(cut > 0 && whole > 0, "{cut} {whole}");
}
