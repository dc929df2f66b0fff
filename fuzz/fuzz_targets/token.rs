//! Whatever text claims to be a token: it parses into what it says and nothing else, can be narrowed, and never unlocks.
#![no_main]

use std::cell::RefCell;
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

struct Issuer {
    vault: Vault,
    id: SubjectId,
    token: Token,
    refusals: u32,
}

impl Issuer {
    fn new() -> Self {
        block_on(async {
            let vault = ephemeral(Options::new().record::<Note>()).await.unwrap();
            let id = SubjectId::new("alice").unwrap();
            let (me, why, hour) = (tester(), test_ground(), Duration::from_secs(3600));
            vault.enroll(&id, [], &me, &why).await.unwrap();
            let token = vault.issue::<Shipping>(&me, &why, hour, Scope::everyone()).await.unwrap();
            Issuer { vault, id, token, refusals: 0 }
        })
    }

    fn refuses(&mut self, token: &Token) {
        assert!(block_on(self.vault.unlock::<Shipping>(token, &self.id)).is_err());
        self.refusals += 1;
    }
}

thread_local! {
    static ISSUER: RefCell<Issuer> = RefCell::new(Issuer::new());
}

/// The text as it is, the bytes as a token's, and the bytes laid over a genuine token.
fn texts(input: &[u8], genuine: &Token) -> Vec<String> {
    let mut laid_over =
        Base64UrlUnpadded::decode_vec(genuine.expose().strip_prefix("cv1.").unwrap()).unwrap();
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

fn check(text: &str, issuer: &mut Issuer) {
    let Ok(token) = Token::parse(text) else { return };
    assert_eq!(token.expose(), text);
    let genuine = text == issuer.token.expose();
    if !genuine {
        issuer.refuses(&token);
    }
    if let Ok(narrowed) = token.narrow().subject(&issuer.id).actor(tester()).done() {
        let again = Token::parse(narrowed.expose()).unwrap();
        assert_eq!(again.unverified_id(), token.unverified_id());
        assert_eq!(again.unverified_expiry(), token.unverified_expiry());
        if !genuine {
            issuer.refuses(&narrowed);
        }
    }
    if let Ok(sooner) = token.narrow().expires_at(token.unverified_expiry() - 1).done() {
        assert!(sooner.unverified_expiry() < token.unverified_expiry());
    }
    let _ = token.narrow().not_before(0).fields(&[field::<note::body>()]).done();
}

fuzz_target!(|input: &[u8]| {
    ISSUER.with_borrow_mut(|issuer| {
        // Refusals are logged, and the log must not fill the memory.
        if issuer.refusals > 20_000 {
            *issuer = Issuer::new();
        }
        for text in texts(input, &issuer.token) {
            check(&text, issuer);
        }
    });
});
