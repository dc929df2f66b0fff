//! Whatever text claims to be a token: it parses into what it says and nothing else, can be narrowed, and never unlocks.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use customer_vault::testing::{ephemeral, test_ground, tester};
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

static VAULT: LazyLock<(Vault, SubjectId, Token)> = LazyLock::new(|| {
    block_on(async {
        let vault = ephemeral(Options::new().record::<Note>()).await.unwrap();
        let id = SubjectId::new("alice").unwrap();
        vault.enroll(&id, [], &tester(), &test_ground()).await.unwrap();
        let hour = Duration::from_secs(3600);
        let token =
            vault.issue::<Shipping>(&tester(), &test_ground(), hour, Scope::everyone()).await.unwrap();
        (vault, id, token)
    })
});

fn refused(token: &Token) {
    let (vault, id, genuine) = &*VAULT;
    if token.expose() != genuine.expose() {
        assert!(block_on(vault.unlock::<Shipping>(token, id)).is_err());
    }
}

/// The text as it is, the bytes as a token's, and the bytes laid over a genuine token.
fn texts(input: &[u8]) -> Vec<String> {
    let genuine = VAULT.2.expose().strip_prefix("cv1.").unwrap();
    let mut laid_over = Base64UrlUnpadded::decode_vec(genuine).unwrap();
    if let [at, over @ ..] = input {
        for (byte, with) in laid_over.iter_mut().skip(usize::from(*at)).zip(over) {
            *byte ^= with;
        }
    }
    let mut texts = vec![
        format!("cv1.{}", Base64UrlUnpadded::encode_string(input)),
        format!("cv1.{}", Base64UrlUnpadded::encode_string(&laid_over)),
    ];
    texts.extend(std::str::from_utf8(input).map(str::to_owned));
    texts
}

fuzz_target!(|input: &[u8]| {
    for text in texts(input) {
        let Ok(token) = Token::parse(&text) else { continue };
        assert_eq!(token.expose(), text);
        let again = Token::parse(token.expose()).unwrap();
        assert_eq!(again.unverified_id(), token.unverified_id());
        assert_eq!(again.unverified_expiry(), token.unverified_expiry());
        refused(&token);
        let narrowed = token.narrow().subject(&VAULT.1).actor(tester()).done();
        if let Ok(narrowed) = narrowed {
            assert_eq!(Token::parse(narrowed.expose()).unwrap().unverified_id(), token.unverified_id());
            if token.expose() != VAULT.2.expose() {
                refused(&narrowed);
            }
        }
        if let Ok(sooner) = token.narrow().expires_at(token.unverified_expiry() - 1).done() {
            assert!(sooner.unverified_expiry() < token.unverified_expiry());
        }
        let _ = token.narrow().not_before(0).fields(&[field::<note::body>()]).done();
    }
});
