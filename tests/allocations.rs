//! What sealing and opening take from the heap: one buffer for the sealed bytes, and one for each value.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

use allocation_counter::{AllocationInfo, measure};
use customer_vault::testing::{ephemeral, grant, test_ground, tester};
use customer_vault::value::{Bytes, OrderLine, PersonName};
use customer_vault::{Error, Grant, Options, Sealer, Settings, SubjectId, Suite, purposes, record};
use pollster::block_on;

purposes! {
    Shipping: Contract = 1 "shipping";
    Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    struct Order[u64] / SealedOrder / OrderView in order = "order" {
        name: PersonName = 1 "name", basic, for [Shipping: 90 days, Invoicing: 10 years];
        note: Option<Bytes> = 2 "note", basic, for [Shipping: 90 days], padded 64;
        lines: Vec<OrderLine> = 3 "lines", transaction, for [Shipping: 90 days, Invoicing: 10 years];
        proof: Bytes = 4 "proof", transaction, for [Shipping: 90 days], alone;
    }
}

fn an_order(note: usize, lines: usize) -> Order {
    Order {
        name: PersonName::parse("Alice Example").unwrap(),
        note: Some(Bytes::parse(&vec![7; note]).unwrap()),
        lines: (0..lines).map(|_| OrderLine::parse("tea", 2, 350, "USD").unwrap()).collect(),
        proof: Bytes::parse(&[9; 64]).unwrap(),
    }
}

async fn a_vault(suite: Suite) -> (Sealer<Order>, Grant<Shipping>) {
    let options = Options::new().record::<Order>().settings(Settings::default().suite(suite));
    let vault = ephemeral(options).await.unwrap();
    let id = SubjectId::new("alice").unwrap();
    vault.enroll(&id, [], &tester(), &test_ground()).await.unwrap();
    let sealer = vault.sealer::<Order>(&id, &tester(), &test_ground()).await.unwrap();
    let grant = grant::<Shipping>(&vault, &id).await.unwrap();
    // The first seal and open of a day prepare the ciphers that the handles keep.
    sealer.seal(an_order(10, 2), &7).unwrap().open(&grant, &7).unwrap();
    (sealer, grant)
}

#[test]
fn sealing_allocates_the_output_alone() {
    for suite in [Suite::Aes256Gcm, Suite::XChaCha20Poly1305] {
        let (sealer, _) = block_on(a_vault(suite));
        for (note, lines) in [(0, 0), (10, 2), (300, 40), (100_000, 2)] {
            let mut order = Some(an_order(note, lines));
            let mut sealed = None;
            let used = measure(|| sealed = Some(sealer.seal(order.take().unwrap(), &7).unwrap()));
            assert_eq!(used.count_total, 1, "{suite:?}, {note}, {lines}: {used:?}");
            // Three cells, and for the length of each at most five bytes, of which shorter ones leave some unused.
            let spare = used.bytes_total - u64::try_from(sealed.unwrap().as_bytes().len()).unwrap();
            assert!(spare < 3 * 5, "{spare}");
        }
    }
}

#[test]
fn sealing_into_a_buffer_that_has_room_allocates_nothing() {
    for suite in [Suite::Aes256Gcm, Suite::XChaCha20Poly1305] {
        let (sealer, _) = block_on(a_vault(suite));
        let mut buffer = Vec::with_capacity(10_000);
        for _ in 0..3 {
            let mut order = Some(an_order(300, 2));
            let used = measure(|| sealer.seal_into(order.take().unwrap(), &7, &mut buffer).unwrap());
            assert_eq!(used.count_total, 0, "{suite:?}: {used:?}");
        }
    }
}

#[test]
fn opening_allocates_the_values_alone() {
    for suite in [Suite::Aes256Gcm, Suite::XChaCha20Poly1305] {
        let (sealer, grant) = block_on(a_vault(suite));
        let allocations = |order: Order| -> AllocationInfo {
            let sealed = sealer.seal(order, &7).unwrap();
            let mut view = None;
            let used = measure(|| view = Some(sealed.open(&grant, &7).unwrap()));
            assert!(view.unwrap().proof().is_ok());
            used
        };
        // Name, note and proof.
        for note in [1, 10, 900] {
            let used = allocations(an_order(note, 0));
            assert_eq!((used.count_total, used.bytes_total), (3, u64::try_from(13 + note + 64).unwrap()));
        }
        // A body that does not lie on the stack takes one buffer more, which is gone at the end.
        let used = allocations(an_order(5000, 0));
        assert_eq!((used.count_total, used.count_current), (4, 3));
    }
}

#[test]
fn a_cell_that_is_refused_takes_nothing() {
    let (sealer, grant) = block_on(a_vault(Suite::Aes256Gcm));
    let sealed = sealer.seal(an_order(10, 0), &7).unwrap();
    // The first cause that is noted for the log takes room for some more.
    assert_eq!(sealed.open(&grant, &8).unwrap_err(), Error::DoesNotOpen);
    let used = measure(|| assert_eq!(sealed.open(&grant, &8).unwrap_err(), Error::DoesNotOpen));
    assert_eq!(used.count_total, 0);
}
