//! Rows put back from an older copy, forged, or deleted; sealed bytes whose header was changed.

use super::*;
use customer_vault::error::{Erased, RolledBack};
use sha2::{Digest as _, Sha256};

const TREE: [&[u8]; 3] = [b"e", b"n", b"s"];
const OLDER: Option<Error> = Some(Error::RolledBack(RolledBack::Store));
const MIXED: Option<Error> = Some(Error::RolledBack(RolledBack::Mixed));

#[test]
fn abuse_05_rows_put_back_after_a_forget_open_nothing() {
    let shop = Shop::open();
    let old = shop.store.snapshot();
    shop.forget(by().without_grace());
    // The root is the same still: the state number in the entry tells.
    shop.put_back(&old, &TREE);
    assert_eq!(shop.unlock::<Shipping>().err(), OLDER);
    assert_eq!(shop.unlock::<SubjectAccess>().err(), OLDER);
    assert_eq!(block_on(shop.vault.sealer::<Order>(&shop.alice, &shop.me, &shop.why)).err(), OLDER);
    assert_eq!(
        block_on(shop.process(shop.store.clone()).unwrap().status(&shop.alice, &shop.me, &shop.why)).err(),
        OLDER
    );
}

#[test]
fn abuse_05_rows_put_back_after_a_shred_open_nothing() {
    let shop = Shop::open();
    let bob = id("bob");
    shop.enroll(&bob);
    let old = shop.store.snapshot();
    shop.forget(by().without_grace());
    shop.shred();
    shop.put_back(&old, &TREE);
    assert_eq!(shop.unlock::<Shipping>().err(), OLDER);
    // Of whom no event is remembered, the epoch tells.
    let token = shop.token::<Shipping>();
    assert_eq!(block_on(shop.vault.unlock::<Shipping>(&token, &bob)).err(), OLDER);
    // Nor where everything that is wrapped is put back.
    shop.put_back(&old, &[b"k", b"b", b"m", b"d"]);
    assert_eq!(shop.unlock::<Shipping>().err(), OLDER);
    assert!(matches!(shop.process(shop.store.clone()), Err(Error::RolledBack(_))));
}

#[test]
fn abuse_05_rows_put_back_after_enroll_again_open_nothing() {
    for shredded in [false, true] {
        let shop = Shop::open();
        let sealed = shop.sealed();
        let old = shop.store.snapshot();
        shop.forget(by().without_grace());
        if shredded {
            shop.shred();
        }
        shop.enroll_again();
        assert!(!note_opens(&sealed, &shop.unlock::<Shipping>().unwrap()));
        shop.put_back(&old, &TREE);
        // Who is remembered is not read: nothing but what was given before.
        assert!(!note_opens(&sealed, &shop.unlock::<Shipping>().unwrap()), "shredded: {shredded}");
        assert_eq!(shop.unlock::<Invoicing>().err(), OLDER, "shredded: {shredded}");
        assert_eq!(shop.unlock::<SubjectAccess>().err(), OLDER, "shredded: {shredded}");
    }
}

#[test]
fn abuse_05_nobody_without_the_key_adds_a_line_to_the_journal() {
    let shop = Shop::open();
    let old = shop.store.snapshot();
    shop.forget(by());
    let tag = &shop.rows(b"s")[0].0[2..].to_vec();
    let fence = shop.rows(b"f").remove(0).1.value;
    let (number, hash) = fence.split_first_chunk::<8>().unwrap();
    let next = (u64::from_be_bytes(*number) + 1).to_be_bytes();
    // "Undone", with a state beyond all that were reached.
    let event = [&[1, 3], &tag[..], &99_u64.to_be_bytes()].concat();
    let parts = [&b"customer-vault/v1/journal"[..], hash, &next, &event].concat();
    let forged = Sha256::digest(parts).to_vec();
    let token = shop.token::<Shipping>();
    let unlock = || block_on(shop.vault.unlock::<Shipping>(&token, &shop.alice)).err();
    shop.write(vec![
        ([b"j", &next[..]].concat(), Some([&forged[..], &event].concat())),
        (b"f".to_vec(), Some([&next[..], &forged].concat())),
    ]);
    assert_eq!(unlock(), MIXED);
    assert!(matches!(shop.process(shop.store.clone()), Err(Error::RolledBack(_))));
    shop.put_back(&old, &TREE);
    assert_eq!(unlock(), MIXED);
}

/// What a store's writer can make of the rows about batches and roots, between a shred and the end of the window.
fn no_certificate_early(alter: impl FnOnce(&Shop)) {
    let shop = Shop::open();
    let receipt = shop.forget(by().without_grace());
    let left = shop.shred().epoch_left.unwrap();
    alter(&shop);
    let certificates =
        block_on(shop.vault.settle(&shop.me, &shop.why)).map_or(0, |done| done.certificates.len());
    assert!(shop.held().iter().any(|root| root.epoch <= left), "the root that could read is still there");
    assert_eq!((certificates, block_on(shop.vault.certificate(&receipt.reference))), (0, Ok(None)));
}

#[test]
fn abuse_35_no_certificate_for_a_row_that_says_that_all_is_settled() {
    no_certificate_early(|shop| shop.write(vec![(b"S".to_vec(), Some(1_000_u64.to_be_bytes().to_vec()))]));
}

#[test]
fn abuse_35_no_certificate_for_a_batch_that_claims_an_older_epoch() {
    no_certificate_early(|shop| {
        let (name, row) = shop.rows(b"p").remove(0);
        let mut claimed = row.value;
        claimed[2..10].fill(0);
        shop.write(vec![(name, Some(claimed))]);
    });
}

#[test]
fn abuse_35_no_certificate_while_the_keeper_holds_the_root() {
    let shop = Shop::open();
    let bob = id("bob");
    shop.enroll(&bob);
    let receipt = shop.forget(by().without_grace());
    let left = shop.shred().epoch_left.unwrap();
    // Nothing in the store names the root any more that could read Alice.
    shop.write(shop.rows(b"q").into_iter().map(|(name, _)| (name, None)).collect());
    block_on(shop.vault.forget(&bob, by().without_grace())).unwrap();
    shop.shred();
    let readable = || {
        let newest = shop.held().iter().map(|root| root.epoch).max();
        shop.held().iter().any(|root| root.epoch <= left && Some(root.epoch) != newest)
    };
    for _ in 0..6 {
        shop.weeks(1);
        let done = shop.settle();
        assert!(done.certificates.is_empty() || !readable());
        assert_eq!(block_on(shop.vault.certificate(&receipt.reference)).unwrap().is_some(), !readable());
    }
    // Found by asking the keeper, and destroyed in its turn.
    assert!(!readable());
    assert!(block_on(shop.vault.certificate(&receipt.reference)).unwrap().is_some());
}

#[test]
fn abuse_35_a_pending_row_that_somebody_made_up_never_becomes_a_certificate() {
    let shop = Shop::open();
    let receipt = shop.forget(by().without_grace());
    shop.shred();
    let (_, pending) = shop.rows(b"r").remove(0);
    let batch = shop.rows(b"p")[0].0[1..].to_vec();
    let made_up = [7_u8; 16];
    // Reference, batch, commitment, moment, actor, approver, ground, and what was destroyed, in clear.
    let mut plain = [&[1], &made_up[..], &batch, &[0; 32], &[0; 8]].concat();
    for text in ["service:test", "", "test"] {
        plain.push(u8::try_from(text.len()).unwrap());
        plain.extend_from_slice(text.as_bytes());
    }
    plain.extend_from_slice(&[0, 0]);
    shop.weeks(5);
    for forged in [plain, pending.value] {
        let name = [&b"r"[..], &made_up].concat();
        shop.write(vec![(name.clone(), Some(forged))]);
        // It stops with it, rather than to sign; without it, it goes on.
        assert!(block_on(shop.vault.settle(&shop.me, &shop.why)).is_err());
        assert_eq!(block_on(shop.vault.certificate(&made_up)), Ok(None));
        shop.write(vec![(name, None)]);
    }
    shop.settle();
    assert_eq!(block_on(shop.vault.certificate(&made_up)), Ok(None));
    assert!(block_on(shop.vault.certificate(&receipt.reference)).unwrap().is_some());
}

#[test]
fn update_seals_nothing_again_that_an_earlier_enrolment_left() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    shop.forget(by().without_grace());
    shop.shred();
    shop.enroll_again();
    let (books, parcel) = (shop.unlock::<Invoicing>().unwrap(), shop.unlock::<Shipping>().unwrap());
    assert!(name_opens(&sealed, &books) && !name_opens(&sealed, &parcel));
    let sealer = shop.sealer();
    let one = sealed.update(&sealer, &books, &7, |changes| changes.set::<order::lines>(name("nothing")));
    assert_eq!(one.err(), Some(Erased::Purpose.into()));
    // Where all of the cell is set, nothing of the old is wanted: it is sealed for the new enrolment.
    let all = sealed
        .update(&sealer, &books, &7, |changes| {
            changes.set::<order::name>(name("Bob"));
            changes.set::<order::lines>(name("nothing"));
        })
        .unwrap();
    assert_eq!(all.open(&parcel, &7).unwrap().name().unwrap().expose(), "Bob");
    assert!(!note_opens(&all, &parcel));
    let renewed = sealed.renew(&sealer, &books, &7, shop.clock.today(), &shop.me, &shop.why);
    assert!(!name_opens(&block_on(renewed).unwrap(), &parcel));
}

/// The place of a purpose's number in the header of the cell with this enrolment and these fields.
fn place(sealed: &[u8], head: &[u8], purpose: u16) -> usize {
    let at = sealed.windows(head.len()).position(|bytes| bytes == head).unwrap() + head.len();
    let boxes = sealed[at..].chunks(4);
    at + 1
        + 4 * boxes.map(|bytes| u16::from_be_bytes([bytes[1], bytes[2]])).position(|p| p == purpose).unwrap()
}

#[test]
fn update_seals_for_nothing_that_the_header_only_claims() {
    let shop = Shop::open();
    let sealed = shop.sealed();
    let sealer = shop.sealer();
    let (parcel, books) = (shop.unlock::<Shipping>().unwrap(), shop.unlock::<Invoicing>().unwrap());
    let days = sealed.unverified_days();
    let forge = |at: usize, purpose: Option<u16>, later: u16| {
        let mut bytes = sealed.as_bytes().to_vec();
        if let Some(purpose) = purpose {
            bytes[at..at + 2].copy_from_slice(&purpose.to_be_bytes());
        }
        let day = u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]) + later;
        bytes[at + 2..at + 4].copy_from_slice(&day.to_be_bytes());
        SealedOrder::from_bytes(bytes).unwrap()
    };

    // What was collected for recommendations claims to be for shipping, to a day that there is a key of.
    let forged = forge(place(sealed.as_bytes(), &[0, 1, 1, 8], 2), Some(1), 20);
    let updated =
        forged.update(&sealer, &parcel, &7, |changes| changes.set::<order::taste>(name("coffee"))).unwrap();
    assert_eq!(updated.unverified_days(), days);

    // What shipping may have for 90 days claims 290.
    let forged = forge(place(sealed.as_bytes(), &[0, 1, 2, 2, 4], 1), None, 200);
    let one = forged.update(&sealer, &books, &7, |changes| changes.set::<order::lines>(name("nothing")));
    assert_eq!(one.err(), Some(Error::DoesNotOpen));
    let updated = forged
        .update(&sealer, &books, &7, |changes| {
            changes.set::<order::name>(name("Alice"));
            changes.set::<order::lines>(name("nothing"));
        })
        .unwrap();
    assert_eq!(updated.unverified_days(), days);
    assert!(name_opens(&updated, &books) && !name_opens(&updated, &parcel));
}
