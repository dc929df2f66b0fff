//! Whatever bytes claim to be a ticket: they parse into what they say and nothing else, and never open.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use customer_vault::note::VerifierKey;
use customer_vault::testing::{ephemeral, test_ground, tester};
use customer_vault::ticket::{Reader, ReaderKey, Ticket, TicketScope};
use customer_vault::value::Bytes;
use customer_vault::*;
use libfuzzer_sys::fuzz_target;
use pollster::block_on;

purposes! {
    pub Shipping: Contract = 1 "shipping";
}

record! {
    pub struct Note / SealedNote / NoteView in note = "note" {
        pub body: Bytes = 1 "body", basic, for [Shipping: 90 days];
    }
}

static PRINTER: LazyLock<(ReaderKey, VerifierKey, Ticket)> = LazyLock::new(|| {
    block_on(async {
        let vault = ephemeral(Options::new().record::<Note>()).await.unwrap();
        let (me, why, hour) = (tester(), test_ground(), Duration::from_secs(3600));
        let id = SubjectId::new("alice").unwrap();
        vault.enroll(&id, [], &me, &why).await.unwrap();
        let token = vault.issue::<Shipping>(&me, &why, hour, Scope::everyone()).await.unwrap();
        let key = ReaderKey::generate().unwrap();
        let sealer = vault.sealer::<Note>(&id, &me, &why).await.unwrap();
        let sealed = sealer.seal(Note { body: Bytes::parse(b"body").unwrap() }).unwrap();
        let scope = [TicketScope::of(&id).sealed(&sealed)];
        let given = vault.ticket::<Shipping>(&token, &key.recipient(), hour, &scope).await.unwrap();
        (key, vault.verifier_key().unwrap(), given.ticket)
    })
});

fuzz_target!(|input: &[u8]| {
    let (key, verifier, genuine) = &*PRINTER;
    // The bytes as they are, and laid over a genuine ticket.
    let mut laid_over = genuine.as_bytes().to_vec();
    if let [high, low, over @ ..] = input {
        let at = usize::from(u16::from_be_bytes([*high, *low]));
        laid_over.iter_mut().skip(at).zip(over).for_each(|(byte, with)| *byte ^= with);
    }
    for bytes in [input.to_vec(), laid_over] {
        let Ok(ticket) = Ticket::from_bytes(bytes.clone()) else { continue };
        assert_eq!(ticket.as_bytes(), bytes);
        let _ = (ticket.unverified_id(), ticket.unverified_ends_ms());
        let opens = Reader::<Shipping>::open(key, &ticket, verifier).is_ok();
        assert!(!opens || ticket == *genuine);
    }
});
