//! customer-vault: a vault in memory, so that no disk is waited for.

use std::rc::Rc;
use std::time::Duration;

use customer_vault::testing::{ephemeral, grant, test_ground, tester, verify_for};
use customer_vault::value::{Bytes, FreeText};
use customer_vault::{
    OpensFor, Options, Purpose, Record, Scope, Sealed, SubjectAccess, SubjectId, Token, Vault, purposes,
    record,
};
use pollster::block_on;

use crate::measure::{Job, Keys, Side, Work, again, timed};
use crate::plain;

purposes! {
    Shipping: Contract = 1 "shipping";
    Support: LegitimateInterest = 2 "support";
    Invoicing: LegalObligation = 3 "invoicing";
    Fraud: LegitimateInterest = 4 "fraud";
}

record! {
    struct Note[u64] / SealedNote / NoteView in note = "note" {
        body: Bytes = 1 "body", basic, for [Shipping: 90 days];
    }
}

/// Three cells with three, two and two lockboxes.
macro_rules! order {
    ($record:ident / $sealed:ident / $view:ident in $module:ident = $label:literal, $type:ident, $parse:expr) => {
        record! {
            struct $record[u64] / $sealed / $view in $module = $label {
                name: $type = 1 "name", basic, for [Shipping: 90 days, Support: 1 year, Invoicing: 10 years];
                street: $type = 2 "street", basic, for [Shipping: 90 days, Support: 1 year, Invoicing: 10 years];
                city: $type = 3 "city", basic, for [Shipping: 90 days, Support: 1 year, Invoicing: 10 years];
                postal_code: $type = 4 "postal-code", basic,
                    for [Shipping: 90 days, Support: 1 year, Invoicing: 10 years];
                country: $type = 5 "country", basic, for [Shipping: 90 days, Support: 1 year, Invoicing: 10 years];
                phone: $type = 6 "phone", basic, for [Shipping: 90 days, Support: 1 year, Invoicing: 10 years];
                lines: $type = 7 "lines", transaction, for [Support: 1 year, Invoicing: 10 years];
                total: $type = 8 "total", transaction, for [Support: 1 year, Invoicing: 10 years];
                payer: $type = 9 "payer", transaction, for [Support: 1 year, Invoicing: 10 years];
                referrer: $type = 10 "referrer", behaviour, for [Support: 30 days, Fraud: 90 days];
                searched: $type = 11 "searched", behaviour, for [Support: 30 days, Fraud: 90 days];
                device: $type = 12 "device", behaviour, for [Support: 30 days, Fraud: 90 days];
            }
        }

        impl $record {
            fn new() -> Self {
                let parse: fn(&[u8]) -> $type = $parse;
                let mut fields = (0..plain::FIELDS).map(|index| parse(&plain::field(index)));
                let mut next = || fields.next().unwrap();
                $record {
                    name: next(),
                    street: next(),
                    city: next(),
                    postal_code: next(),
                    country: next(),
                    phone: next(),
                    lines: next(),
                    total: next(),
                    payer: next(),
                    referrer: next(),
                    searched: next(),
                    device: next(),
                }
            }
        }
    };
}

order!(Order / SealedOrder / OrderView in order = "order", Bytes, |bytes| Bytes::parse(bytes).unwrap());
order!(Texts / SealedTexts / TextsView in texts = "texts", FreeText, |bytes| {
    FreeText::parse(std::str::from_utf8(bytes).unwrap()).unwrap()
});

/// What three cells with seven lockboxes take: the version; of each cell its length, suite, generation, two counts, the seal
/// id, the commitment and the tag; of each field its number and the length of its value; of each lockbox its purpose, its day,
/// a wrapped key. One value is long enough for a length of two bytes.
const OVERHEAD: usize = 1 + 3 * (2 + 1 + 2 + 1 + 1 + 16 + 32 + 16) + plain::FIELDS * 2 + 7 * (4 + 48) + 1;

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone)]
struct Held {
    vault: Rc<Vault>,
    id: SubjectId,
}

pub fn sides() -> Vec<Side> {
    let options = Options::new().record::<Note>().record::<Order>().record::<Texts>();
    let vault = Rc::new(block_on(ephemeral(options)).unwrap());
    let held = Held { vault, id: SubjectId::new(plain::CUSTOMER).unwrap() };
    block_on(held.vault.enroll(&held.id, [], &tester(), &test_ground())).unwrap();

    let note = held.sealed(a_note());
    let size = note.as_bytes().len() - plain::FIELD.len();
    let mut sides = vec![
        side(Job::SealField, "held sealer", size, held.seal(a_note)),
        side(Job::SealField, "a sealer taken each time", size, held.take_and_seal(a_note)),
        side(Job::OpenField, "held grant", size, held.open::<Note, Shipping>(&note)),
        side(Job::OpenField, "unlocked each time", size, held.unlock_and_open::<Note, Shipping>(&note)),
    ];

    let order = held.sealed(Order::new());
    let size = order.as_bytes().len() - plain::BYTES;
    assert_eq!(size, OVERHEAD, "these are not three cells with seven lockboxes");
    let texts = held.sealed(Texts::new());
    sides.extend([
        side(Job::SealRecord, "held sealer", size, held.seal(Order::new)),
        side(Job::SealRecord, "a sealer taken each time", size, held.take_and_seal(Order::new)),
        side(
            Job::OpenRecord,
            "held grant: 6 fields for shipping",
            size,
            held.open::<Order, Shipping>(&order),
        ),
        side(Job::OpenRecord, "the same, checked as text again", size, held.open::<Texts, Shipping>(&texts)),
        side(
            Job::OpenRecord,
            "held grant: 9 fields for invoicing",
            size,
            held.open::<Order, Invoicing>(&order),
        ),
        side(
            Job::OpenRecord,
            "held grant: all 12 for the customer",
            size,
            held.open::<Order, SubjectAccess>(&order),
        ),
        side(
            Job::OpenRecord,
            "unlocked each time: 6 fields",
            size,
            held.unlock_and_open::<Order, Shipping>(&order),
        ),
    ]);

    let token = held.token::<Shipping>(Scope::subject(&held.id)).expose().to_owned();
    let narrowed = held.token::<Shipping>(Scope::everyone()).narrow().subject(&held.id).done().unwrap();
    let narrowed = narrowed.expose().to_owned();
    sides.extend([
        side(Job::Token, "parsed and verified", token.len(), held.verify(token)),
        side(Job::Token, "narrowed by its holder to the customer", narrowed.len(), held.verify(narrowed)),
    ]);
    for side in sides.iter_mut().filter(|side| side.job == Job::Token) {
        side.keys = Keys::Token;
    }
    sides
}

fn a_note() -> Note {
    Note { body: Bytes::parse(&plain::FIELD).unwrap() }
}

fn side(job: Job, way: &'static str, bytes: usize, work: Work) -> Side {
    Side { job, keys: Keys::Ours, krate: "customer-vault", way, bytes, work }
}

impl Held {
    fn sealed<R: Record<Id = u64>>(&self, record: R) -> Rc<Sealed<R>> {
        let sealer = block_on(self.vault.sealer::<R>(&self.id, &tester(), &test_ground())).unwrap();
        Rc::new(sealer.seal(record, &7).unwrap())
    }

    fn token<P: Purpose>(&self, scope: Scope) -> Token {
        block_on(self.vault.issue::<P>(&tester(), &test_ground(), HOUR, scope)).unwrap()
    }

    fn seal<R: Record<Id = u64> + 'static>(&self, make: fn() -> R) -> Work {
        let sealer = block_on(self.vault.sealer::<R>(&self.id, &tester(), &test_ground())).unwrap();
        Box::new(move |times| {
            timed((0..times).map(|_| make()).collect(), |record| sealer.seal(record, &7).unwrap())
        })
    }

    fn take_and_seal<R: Record<Id = u64> + 'static>(&self, make: fn() -> R) -> Work {
        let (held, me, why) = (self.clone(), tester(), test_ground());
        Box::new(move |times| {
            timed((0..times).map(|_| make()).collect(), |record| {
                block_on(held.vault.sealer::<R>(&held.id, &me, &why)).unwrap().seal(record, &7).unwrap()
            })
        })
    }

    fn open<R: Record<Id = u64> + OpensFor<P> + 'static, P: Purpose>(&self, sealed: &Rc<Sealed<R>>) -> Work {
        let (grant, sealed) = (block_on(grant::<P>(&self.vault, &self.id)).unwrap(), Rc::clone(sealed));
        again(move || sealed.open(&grant, &7).unwrap())
    }

    fn unlock_and_open<R: Record<Id = u64> + OpensFor<P> + 'static, P: Purpose>(
        &self,
        sealed: &Rc<Sealed<R>>,
    ) -> Work {
        let (held, sealed) = (self.clone(), Rc::clone(sealed));
        let token = self.token::<P>(Scope::subject(&self.id));
        again(move || {
            let grant = block_on(held.vault.unlock::<P>(&token, &held.id)).unwrap();
            sealed.open(&grant, &7).unwrap()
        })
    }

    fn verify(&self, text: String) -> Work {
        let held = self.clone();
        again(move || {
            let token = Token::parse(&text).unwrap();
            block_on(verify_for::<Shipping>(&held.vault, &token, &held.id)).unwrap();
        })
    }
}
