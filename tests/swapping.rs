//! Sealed bytes moved to where they do not belong: nothing comes out. ABUSE 1, 6 and 25.
#![cfg(feature = "testing")]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, reason = "a test")]
#![allow(missing_docs, unreachable_pub, reason = "a test")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::arithmetic_side_effects, reason = "a test")]

use customer_vault::testing::{ManualClock, ephemeral, grant, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;
use pollster::block_on;
use proptest::prelude::*;

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

record! {
    /// The same fields, in one cell.
    pub struct Parcel[u64] / SealedParcel / ParcelView in parcel = "parcel" {
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days, Invoicing: 2 years];
        pub note: PersonName = 2 "note", basic, for [Shipping: 90 days, Invoicing: 2 years];
    }
}

record! {
    /// Without an id.
    pub struct Profile / SealedProfile / ProfileView in profile = "profile" {
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days, Invoicing: 2 years];
        pub note: PersonName = 2 "note", basic, for [Shipping: 90 days, Invoicing: 2 years];
    }
}

const SUBJECTS: [&str; 3] = ["alice", "bob", "alicebob"];
const RECORDS: [u64; 3] = [1, 2, 256];
const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::XChaCha20Poly1305];

fn name(text: &str) -> PersonName {
    PersonName::parse(text).unwrap()
}

/// What a cell is sealed to, besides its day, as opening states it: by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    vault: usize,
    suite: usize,
    subject: usize,
    record: usize,
    shape: usize,
}

const SHAPES: usize = 4;

impl Place {
    fn all() -> Vec<Place> {
        let mut all = Vec::new();
        for n in 0..2 * 2 * 3 * 3 * SHAPES {
            let (vault, n) = (n % 2, n / 2);
            let (suite, n) = (n % 2, n / 2);
            let (subject, n) = (n % 3, n / 3);
            let (record, shape) = (n % 3, n / 3);
            // A record without an id is there once.
            if shape != 3 || record == 0 {
                all.push(Place { vault, suite, subject, record, shape });
            }
        }
        all
    }
}

/// Two vaults of each suite, with subjects of the same names.
struct World {
    vaults: Vec<Vec<Vault>>,
    clock: ManualClock,
}

impl World {
    fn new() -> World {
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let vault = |suite| {
            let options = Options::new().record::<Order>().record::<Parcel>().record::<Profile>();
            let settings = Settings::default().suite(suite).height(1).unwrap();
            let vault = block_on(ephemeral(options.settings(settings).clock(clock.clone()))).unwrap();
            for subject in SUBJECTS {
                let id = SubjectId::new(subject).unwrap();
                block_on(vault.enroll(&id, [], &tester(), &test_ground())).unwrap();
            }
            vault
        };
        World { vaults: (0..2).map(|_| SUITES.map(vault).into()).collect(), clock }
    }

    fn vault(&self, place: Place) -> &Vault {
        &self.vaults[place.vault][place.suite]
    }

    fn seal(&self, place: Place, text: &str) -> Vec<u8> {
        let (vault, id) = (self.vault(place), SubjectId::new(SUBJECTS[place.subject]).unwrap());
        let (me, why, record) = (tester(), test_ground(), RECORDS[place.record]);
        let (name, note) = (name(text), name(text));
        match place.shape {
            0 | 2 => {
                let sealer = block_on(vault.sealer::<Order>(&id, &me, &why)).unwrap();
                if place.shape == 0 {
                    sealer.seal(Order { name, note }, &record).unwrap().into_bytes()
                } else {
                    sealer.seal_field::<order::name>(name, &record).unwrap().into_bytes()
                }
            }
            1 => {
                let sealer = block_on(vault.sealer::<Parcel>(&id, &me, &why)).unwrap();
                sealer.seal(Parcel { name, note }, &record).unwrap().into_bytes()
            }
            _ => {
                let sealer = block_on(vault.sealer::<Profile>(&id, &me, &why)).unwrap();
                sealer.seal(Profile { name, note }).unwrap().into_bytes()
            }
        }
    }

    fn grant(&self, place: Place) -> Grant<Shipping> {
        let id = SubjectId::new(SUBJECTS[place.subject]).unwrap();
        block_on(grant::<Shipping>(self.vault(place), &id)).unwrap()
    }
}

/// What comes out of any field, if anything does.
fn opened(place: Place, grant: &Grant<Shipping>, bytes: &[u8]) -> Result<Option<String>> {
    let (bytes, record) = (bytes.to_vec(), RECORDS[place.record]);
    Ok(match place.shape {
        0 => {
            let view = Sealed::<Order>::from_bytes(bytes)?.open(grant, &record)?;
            view.name().or(view.note()).ok().map(|name| name.expose().to_owned())
        }
        1 => {
            let view = Sealed::<Parcel>::from_bytes(bytes)?.open(grant, &record)?;
            view.name().or(view.note()).ok().map(|name| name.expose().to_owned())
        }
        2 => match Sealed::<order::name>::from_bytes(bytes)?.open(grant, &record) {
            Err(Error::Absent(_)) => None,
            done => Some(done?.expose().to_owned()),
        },
        _ => {
            let view = Sealed::<Profile>::from_bytes(bytes)?.open(grant)?;
            view.name().or(view.note()).ok().map(|name| name.expose().to_owned())
        }
    })
}

#[test]
fn abuse_01_what_was_sealed_at_one_place_comes_out_at_no_other() {
    let world = World::new();
    let places = Place::all();
    let mut sealed = Vec::new();
    for day in 0..2 {
        for place in &places {
            let text = format!("{place:?} on day {day}");
            sealed.push((*place, world.seal(*place, &text), text));
        }
        world.clock.advance_days(1);
    }
    for place in &places {
        let grant = world.grant(*place);
        for (from, bytes, text) in &sealed {
            let out = opened(*place, &grant, bytes);
            if from == place {
                assert_eq!(out.unwrap().as_ref(), Some(text));
            } else {
                assert!(!matches!(out, Ok(Some(_))), "{from:?} at {place:?}");
            }
        }
    }
}

/// One cell, cut where its parts meet: header, seal id, lockboxes in order, body.
fn parts(sealed: &[u8]) -> Vec<Vec<u8>> {
    let cell = cells(sealed).remove(0);
    let mut at = 4;
    for _ in 0..cell[3] {
        at += 1; // low field numbers take one byte
    }
    let boxes = usize::from(cell[at]);
    at += 1 + 4 * boxes;
    let mut cuts = vec![0, at, at + 16];
    cuts.extend((1..=boxes).map(|n| at + 16 + 48 * n));
    cuts.push(cell.len());
    cuts.windows(2).map(|pair| cell[pair[0]..pair[1]].to_vec()).collect()
}

/// The cells of a sealed value; each is shorter than 16 KiB.
fn cells(sealed: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut cells) = (&sealed[1..], Vec::new());
    while !rest.is_empty() {
        let (mut len, mut used) = (usize::from(rest[0] & 0x7F), 1);
        if rest[0] & 0x80 != 0 {
            len |= usize::from(rest[1]) << 7;
            used = 2;
        }
        cells.push(rest[used..used + len].to_vec());
        rest = &rest[used + len..];
    }
    cells
}

fn joined(cells: &[Vec<u8>]) -> Vec<u8> {
    let mut sealed = vec![1];
    for cell in cells {
        let len = u8::try_from(cell.len() & 0x7F).unwrap();
        match u8::try_from(cell.len() >> 7).unwrap() {
            0 => sealed.push(len),
            high => sealed.extend([len | 0x80, high]),
        }
        sealed.extend(cell);
    }
    sealed
}

#[test]
fn cutting_and_joining_a_sealed_value_gives_it_back() {
    let world = World::new();
    for shape in 0..SHAPES {
        let bytes = world.seal(Place { vault: 0, suite: 0, subject: 0, record: 0, shape }, "Alice");
        assert_eq!(joined(&cells(&bytes)), bytes);
        assert_eq!(parts(&bytes).concat(), cells(&bytes)[0]);
        assert_eq!(parts(&bytes).len(), 5);
    }
}

/// Everything that a grant for shipping reads: not the lockbox of the books, which is the last one.
fn seen(parts: &[Vec<u8>]) -> Vec<&Vec<u8>> {
    parts.iter().enumerate().filter(|(n, _)| *n != 3).map(|(_, part)| part).collect()
}

#[test]
fn abuse_01_parts_of_two_cells_open_only_where_all_that_is_read_is_of_one() {
    let world = World::new();
    let here = Place { vault: 0, suite: 0, subject: 0, record: 0, shape: 1 };
    let ours = world.seal(here, "ours");
    let mut others = vec![
        world.seal(here, "same place, same day"),
        world.seal(Place { subject: 1, ..here }, "subject"),
        world.seal(Place { record: 1, ..here }, "record"),
        world.seal(Place { shape: 3, ..here }, "shape"),
        world.seal(Place { vault: 1, ..here }, "vault"),
        world.seal(Place { suite: 1, ..here }, "suite"),
    ];
    world.clock.advance_days(1);
    others.push(world.seal(here, "same place, next day"));
    let grant = world.grant(here);
    let ours = parts(&ours);
    for other in &others {
        let other = parts(other);
        for mask in 0..1_usize << ours.len() {
            let mixed: Vec<Vec<u8>> = (0..ours.len())
                .map(|n| if mask >> n & 1 == 0 { ours[n].clone() } else { other[n].clone() })
                .collect();
            let out = opened(here, &grant, &joined(&[mixed.concat()])).ok().flatten();
            match out.as_deref() {
                Some("ours") => assert_eq!(seen(&mixed), seen(&ours), "{mask:b}"),
                Some("same place, same day" | "same place, next day") => {
                    assert_eq!(seen(&mixed), seen(&other), "{mask:b}");
                }
                Some(text) => panic!("{text} with {mask:b}"),
                None => assert_ne!(seen(&mixed), seen(&ours), "{mask:b}"),
            }
        }
    }
}

#[test]
fn abuse_01_lockboxes_of_one_cell_exchanged_open_nothing() {
    let world = World::new();
    let here = Place { vault: 0, suite: 0, subject: 0, record: 0, shape: 1 };
    let mut parts = parts(&world.seal(here, "ours"));
    parts.swap(2, 3);
    assert_eq!(opened(here, &world.grant(here), &joined(&[parts.concat()])), Err(Error::DoesNotOpen));
}

#[test]
fn abuse_01_a_cell_of_another_record_spoils_the_whole_record() {
    let world = World::new();
    let one = Place { vault: 0, suite: 0, subject: 0, record: 0, shape: 0 };
    let first = cells(&world.seal(one, "first"));
    let second = cells(&world.seal(Place { record: 1, ..one }, "second"));
    let column = cells(&world.seal(Place { shape: 2, ..one }, "column"));
    let grant = world.grant(one);
    for mixed in [
        [first[0].clone(), second[1].clone()],
        [second[0].clone(), first[1].clone()],
        // The cell of one field in place of a record's that holds the same field.
        [column[0].clone(), first[1].clone()],
    ] {
        assert_eq!(opened(one, &grant, &joined(&mixed)), Err(Error::DoesNotOpen));
    }
    // And the other way round.
    let field = Place { shape: 2, ..one };
    assert_eq!(opened(field, &grant, &joined(&first[..1])), Err(Error::DoesNotOpen));
    assert!(matches!(opened(field, &grant, &joined(&first[1..])), Err(Error::Malformed(_))));
    // Out of order, or twice.
    for order in [[&first[1], &first[0]], [&first[0], &first[0]]] {
        let bytes = joined(&order.map(Clone::clone));
        assert!(matches!(opened(one, &grant, &bytes), Err(Error::Malformed(_))));
    }
}

#[test]
fn abuse_06_an_older_cell_of_the_same_record_is_not_detected_in_the_shops_own_column() {
    let world = World::new();
    let one = Place { vault: 0, suite: 0, subject: 0, record: 0, shape: 0 };
    let (old, new) = (cells(&world.seal(one, "old")), cells(&world.seal(one, "new")));
    let grant = world.grant(one);
    let mixed = joined(&[old[0].clone(), new[1].clone()]);
    let view = Sealed::<Order>::from_bytes(mixed).unwrap().open(&grant, &1).unwrap();
    assert_eq!((view.name().unwrap().expose(), view.note().unwrap().expose()), ("old", "new"));
    let without = Sealed::<Order>::from_bytes(joined(&new[1..])).unwrap();
    assert_eq!(without.left_out(), ["name"]);
    assert_eq!(without.open(&grant, &1).unwrap().name().unwrap_err(), Absent::NotSealedThen);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Ids that differ in anything are different places, whatever they are made of.
    #[test]
    fn abuse_01_a_record_id_opens_under_itself_alone(a in "\\PC{1,40}", b in "\\PC{1,40}") {
        record! {
            struct Note[String] / SealedNote / NoteView in note = "note" {
                text: PersonName = 1 "text", basic, for [Shipping: 90 days];
            }
        }
        let vault = block_on(ephemeral(Options::new().record::<Note>())).unwrap();
        let (id, me, why) = (SubjectId::new("alice").unwrap(), tester(), test_ground());
        block_on(vault.enroll(&id, [], &me, &why)).unwrap();
        let sealer = block_on(vault.sealer::<Note>(&id, &me, &why)).unwrap();
        let sealed = sealer.seal(Note { text: name("hello") }, &a).unwrap();
        let grant = block_on(grant::<Shipping>(&vault, &id)).unwrap();
        prop_assert!(sealed.open(&grant, &a).is_ok());
        for other in [b, format!("{a}\0"), format!("{a}{a}"), a.chars().skip(1).collect()] {
            if other != a {
                prop_assert!(sealed.open(&grant, &other).is_err());
            }
        }
    }
}

#[test]
fn abuse_25_wrong_key_wrong_context_erased_and_altered_look_alike() {
    let world = World::new();
    let here = Place { vault: 0, suite: 0, subject: 0, record: 0, shape: 1 };
    let ours = world.seal(here, "ours");
    let elsewhere = [
        world.seal(Place { subject: 1, ..here }, "subject"),
        world.seal(Place { record: 1, ..here }, "record"),
        world.seal(Place { shape: 3, ..here }, "shape"),
        world.seal(Place { vault: 1, ..here }, "vault"),
    ];
    // Bob is gone for good: what was his is to Alice's reader what it was before.
    let (bob, me, why) = (SubjectId::new("bob").unwrap(), tester(), test_ground());
    let vault = world.vault(here);
    block_on(vault.forget(&bob, Forget::by(&me, &why).without_grace())).unwrap();
    block_on(vault.shred(&me, &why)).unwrap();
    let grant = world.grant(here);
    let mut all: Vec<Vec<u8>> = elsewhere.into();
    let cut = parts(&ours);
    for at in [1, 2, 4] {
        let mut altered = cut.clone();
        altered[at][0] ^= 1;
        all.push(joined(&[altered.concat()]));
    }
    // A lockbox that never was: random bytes.
    let mut never = cut.clone();
    never[2] = (0..48).map(|n| n * 5 + 3).collect();
    all.push(joined(&[never.concat()]));
    for bytes in all {
        let error = opened(here, &grant, &bytes).unwrap_err();
        assert_eq!(error, Error::DoesNotOpen);
        assert_eq!((format!("{error}"), error.code()), ("does not open".to_owned(), "does-not-open"));
    }
    // The cause is for the log alone.
    block_on(vault.checkpoint()).unwrap();
    let causes: usize = block_on(vault.log()).unwrap().iter().map(|entry| entry.causes().len()).sum();
    assert_eq!(causes, 8);
}
