//! Vaults and records that the benches seal and open.

use std::time::Duration;

use customer_vault::testing::{ephemeral, grant, test_ground, tester};
use customer_vault::value::{Bytes, Email, FreeText, PersonName};
use customer_vault::{
    Grant, OpensFor, Options, Purpose, Record, Sealed, Sealer, Settings, SubjectId, Suite, Token, Vault,
    purposes, record,
};
use pollster::block_on;

use super::bare::Plan;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub Support: Contract = 2 "support";
    pub Invoicing: LegalObligation = 3 "invoicing";
    pub Payment: Contract = 4 "payment";
}

record! {
    pub struct Note1[u64] / SealedNote1 / Note1View in note1 = "not1" {
        body: Bytes = 1 "body", basic, for [Shipping: 90 days];
    }
}

record! {
    pub struct Note2[u64] / SealedNote2 / Note2View in note2 = "not2" {
        body: Bytes = 1 "body", basic, for [Shipping: 90 days, Invoicing: 10 years];
    }
}

record! {
    pub struct Note3[u64] / SealedNote3 / Note3View in note3 = "not3" {
        body: Bytes = 1 "body", basic, for [Shipping: 90 days, Support: 1 year, Invoicing: 10 years];
    }
}

record! {
    pub struct Note4[u64] / SealedNote4 / Note4View in note4 = "not4" {
        body: Bytes = 1 "body", basic,
            for [Shipping: 90 days, Support: 1 year, Invoicing: 10 years, Payment: 30 days];
    }
}

record! {
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        name: PersonName = 1 "name", basic, for [Shipping: 90 days, Support: 1 year, Invoicing: 10 years];
        mail: Email = 2 "mail", basic, for [Shipping: 90 days, Support: 1 year, Invoicing: 10 years];
        street: FreeText = 3 "street", basic, for [Shipping: 90 days, Support: 1 year, Invoicing: 10 years];
        city: FreeText = 4 "city", basic, for [Shipping: 90 days, Support: 1 year, Invoicing: 10 years];
        lines: FreeText = 5 "lines", transaction, for [Support: 1 year, Invoicing: 10 years];
        remark: FreeText = 6 "remark", transaction, for [Support: 1 year, Invoicing: 10 years];
        total: FreeText = 7 "total", transaction, for [Support: 1 year, Invoicing: 10 years];
        origin: FreeText = 8 "origin", transaction, for [Support: 1 year, Invoicing: 10 years];
        payer: FreeText = 9 "payer", transaction, for [Invoicing: 10 years, Payment: 30 days];
        account: FreeText = 10 "account", transaction, for [Invoicing: 10 years, Payment: 30 days];
        mandate: FreeText = 11 "mandate", transaction, for [Invoicing: 10 years, Payment: 30 days];
        proof: Bytes = 12 "proof", transaction, for [Invoicing: 10 years, Payment: 30 days];
    }
}

/// The label of a note and its id.
pub const NOTE_NAMES: usize = 4 + 8;
/// The label of an order and its id.
pub const ORDER_NAMES: usize = 5 + 8;

/// A record of one value.
pub trait Note: OpensFor<Shipping> + Record<Id = u64> {
    const LOCKBOXES: usize;
    fn of(body: Bytes) -> Self;
}

macro_rules! notes {
    ($($note:ident $lockboxes:literal)*) => { $(
        impl Note for $note {
            const LOCKBOXES: usize = $lockboxes;
            fn of(body: Bytes) -> Self {
                $note { body }
            }
        }
    )* };
}

notes! { Note1 1 Note2 2 Note3 3 Note4 4 }

pub fn note<N: Note>(size: usize) -> N {
    N::of(bytes(size))
}

pub fn bytes(size: usize) -> Bytes {
    Bytes::parse(&vec![9; size]).unwrap()
}

/// The one cell of a note.
pub fn note_plan<N: Note>(size: usize) -> [Plan; 1] {
    [Plan { lockboxes: N::LOCKBOXES, values: vec![size], opened_by: Some(0) }]
}

pub fn order() -> Order {
    let text = |len: usize| FreeText::parse(&"0123456789".repeat(10)[..len]).unwrap();
    Order {
        name: PersonName::parse("Alice Example").unwrap(),
        mail: Email::parse("alice.example@shop.example").unwrap(),
        street: text(40),
        city: text(25),
        lines: text(100),
        remark: text(80),
        total: text(10),
        origin: text(50),
        payer: text(30),
        account: text(22),
        mandate: text(35),
        proof: bytes(170),
    }
}

/// Whether the cell of a name was opened.
pub fn shows_name(order: &OrderView<Shipping>) -> bool {
    order.name().is_ok()
}

/// Whether the cell of a proof was opened.
pub fn shows_proof(order: &OrderView<Invoicing>) -> bool {
    order.proof().is_ok()
}

/// The three cells of an order, as invoicing sees all of them, or as shipping sees one.
pub fn order_plan(all: bool) -> [Plan; 3] {
    let cell =
        |lockboxes, opened_by, values: &[usize]| Plan { lockboxes, values: values.to_vec(), opened_by };
    [
        cell(3, Some(if all { 2 } else { 0 }), &[13, 26, 40, 25]),
        cell(2, all.then_some(1), &[100, 80, 10, 50]),
        cell(2, all.then_some(0), &[30, 22, 35, 170]),
    ]
}

/// A vault in memory with one subject.
pub struct Held {
    pub vault: Vault,
    pub id: SubjectId,
}

impl Held {
    pub fn new(suite: Suite) -> Self {
        block_on(async {
            let options = Options::new().record::<Note1>().record::<Note2>().record::<Note3>();
            let options = options.record::<Note4>().record::<Order>();
            let vault = ephemeral(options.settings(Settings::default().suite(suite))).await.unwrap();
            let id = SubjectId::new("alice").unwrap();
            vault.enroll(&id, [], &tester(), &test_ground()).await.unwrap();
            Held { vault, id }
        })
    }

    pub fn grant<P: Purpose>(&self) -> Grant<P> {
        block_on(grant::<P>(&self.vault, &self.id)).unwrap()
    }

    /// Each makes a million seals at most.
    pub fn sealer<R: Record<Id = u64>>(&self) -> Sealer<R> {
        block_on(self.vault.sealer::<R>(&self.id, &tester(), &test_ground())).unwrap()
    }
}

/// The vault's bytes are those of the plan: the bare side does what the vault does.
pub fn same_size<R: Record>(sealed: &Sealed<R>, cells: &[Plan]) {
    let bytes = sealed.as_bytes().len();
    assert_eq!(bytes, super::bare::sealed_len(cells), "the bare side does not do what the vault does");
}

pub const HOUR: Duration = Duration::from_secs(3600);

/// For shipping, for everyone.
pub fn token(vault: &Vault) -> Token {
    let everyone = customer_vault::Scope::everyone();
    block_on(vault.issue::<Shipping>(&tester(), &test_ground(), HOUR, everyone)).unwrap()
}
