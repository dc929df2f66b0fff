//! Tokens: each says for which customer, for what, to whom and until when, and the service asks for all four.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use biscuit_auth::macros::{authorizer, biscuit, biscuit_merge, block};
use biscuit_auth::{AuthorizerLimits, Biscuit, KeyPair};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use macaroon::{ByteString, Format, Macaroon, MacaroonKey, Verifier};
use pasetors::claims::{Claims as PasetoClaims, ClaimsValidationRules};
use pasetors::keys::{AsymmetricKeyPair, Generate as _, SymmetricKey};
use pasetors::token::UntrustedToken;
use pasetors::{Local, Public, local, public, version4::V4};
use serde::{Deserialize, Serialize};

use crate::measure::{Job, Keys, Side, Work, again};
use crate::plain;

const DAY: Duration = Duration::from_secs(86_400);
const WHO: &str = "service:test";
const WHAT: &str = "shipping";
const ID: &str = "0192f0c1-9d1e-7cc0-8b6a-1f2e3d4c5b6a";

pub fn sides() -> Vec<Side> {
    let mut sides = vec![jwt(), paseto_local(), paseto_public()];
    sides.extend(macaroons());
    sides.extend(biscuits());
    sides
}

fn side(krate: &'static str, way: &'static str, bytes: usize, work: Work) -> Side {
    Side { job: Job::Token, keys: Keys::Token, krate, way, bytes, work }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[derive(Debug, Serialize, Deserialize)]
struct JwtClaims {
    jti: String,
    sub: String,
    aud: String,
    act: String,
    nbf: u64,
    exp: u64,
}

fn jwt() -> Side {
    let secret = [7_u8; 32];
    let claims = JwtClaims {
        jti: ID.into(),
        sub: plain::CUSTOMER.into(),
        aud: WHAT.into(),
        act: WHO.into(),
        nbf: now() - 1,
        exp: now() + DAY.as_secs(),
    };
    let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(&secret)).unwrap();
    let key = DecodingKey::from_secret(&secret);
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_nbf = true;
    validation.set_audience(&[WHAT]);
    validation.sub = Some(plain::CUSTOMER.into());
    let work = again({
        let token = token.clone();
        move || {
            let claims = decode::<JwtClaims>(&token, &key, &validation).unwrap().claims;
            assert_eq!(claims.act, WHO);
            claims
        }
    });
    side("jsonwebtoken", "HS256", token.len(), work)
}

fn paseto_claims() -> PasetoClaims {
    let mut claims = PasetoClaims::new().unwrap();
    claims.token_identifier(ID).unwrap();
    claims.subject(plain::CUSTOMER).unwrap();
    claims.audience(WHAT).unwrap();
    claims.add_additional("act", WHO).unwrap();
    claims.set_expires_in(&DAY).unwrap();
    claims
}

fn paseto_rules() -> ClaimsValidationRules {
    let mut rules = ClaimsValidationRules::new();
    rules.validate_subject_with(plain::CUSTOMER);
    rules.validate_audience_with(WHAT);
    rules
}

fn paseto_local() -> Side {
    let key = SymmetricKey::<V4>::generate().unwrap();
    let token = local::encrypt(&key, &paseto_claims(), None, None).unwrap();
    let (bytes, rules) = (token.len(), paseto_rules());
    let work = again(move || {
        let untrusted = UntrustedToken::<Local, V4>::try_from(&token).unwrap();
        let trusted = local::decrypt(&key, &untrusted, &rules, None, None).unwrap();
        assert_eq!(trusted.payload_claims().unwrap().get_claim("act").unwrap(), WHO);
        trusted
    });
    side("pasetors", "v4.local", bytes, work)
}

fn paseto_public() -> Side {
    let keys = AsymmetricKeyPair::<V4>::generate().unwrap();
    let token = public::sign(&keys.secret, &paseto_claims(), None, None).unwrap();
    let (bytes, rules) = (token.len(), paseto_rules());
    let work = again(move || {
        let untrusted = UntrustedToken::<Public, V4>::try_from(&token).unwrap();
        let trusted = public::verify(&keys.public, &untrusted, &rules, None, None).unwrap();
        assert_eq!(trusted.payload_claims().unwrap().get_claim("act").unwrap(), WHO);
        trusted
    });
    side("pasetors", "v4.public", bytes, work)
}

/// A caveat about time: the seconds since 1970 before which it holds.
fn not_over(caveat: &ByteString) -> bool {
    let text = std::str::from_utf8(&caveat.0).unwrap_or_default();
    text.strip_prefix("before = ").and_then(|end| end.parse().ok()).is_some_and(|end: u64| now() < end)
}

fn macaroons() -> Vec<Side> {
    macaroon::initialize().unwrap();
    let key = MacaroonKey::generate_random();
    let mut issued = Macaroon::create(None, &key, ID.into()).unwrap();
    for caveat in
        [format!("purpose = {WHAT}"), format!("actor = {WHO}"), format!("before = {}", now() + DAY.as_secs())]
    {
        issued.add_first_party_caveat(caveat.into());
    }
    let mut narrowed = issued;
    narrowed.add_first_party_caveat(format!("customer = {}", plain::CUSTOMER).into());
    let token = narrowed.serialize(Format::V2).unwrap();
    let bytes = token.len();
    // A verifier is told what holds for this request.
    let work = again(move || {
        let mut verifier = Verifier::default();
        verifier.satisfy_exact(format!("purpose = {WHAT}").into());
        verifier.satisfy_exact(format!("actor = {WHO}").into());
        verifier.satisfy_exact(format!("customer = {}", plain::CUSTOMER).into());
        verifier.satisfy_general(not_over);
        verifier.verify(&Macaroon::deserialize(&token).unwrap(), &key, Vec::new()).unwrap();
    });
    vec![side("macaroon", "V2, four caveats, one of them a holder's", bytes, work)]
}

fn biscuits() -> Vec<Side> {
    let root = KeyPair::new();
    let end = SystemTime::now() + DAY;
    let issued = biscuit!(
        r#"purpose({what}); actor({who}); check if time($now), $now < {end};"#,
        what = WHAT,
        who = WHO,
        end = end
    );
    let customer = plain::CUSTOMER;
    let one = biscuit_merge!(issued.clone(), "check if customer({customer});").build(&root).unwrap();
    let narrowed = issued.build(&root).unwrap().append(block!("check if customer({customer});")).unwrap();
    let side = |way, token: Biscuit| {
        let (token, public) = (token.to_base64().unwrap(), root.public());
        let bytes = token.len();
        let work = again(move || {
            let token = Biscuit::from_base64(&token, public).unwrap();
            // What holds for this request, and what is asked of the token.
            let mut authorizer = authorizer!(
                "customer({customer}); allow if purpose({what}), actor({who});",
                customer = plain::CUSTOMER,
                what = WHAT,
                who = WHO
            )
            .time()
            .build(&token)
            .unwrap();
            // Its own limit is a millisecond, which a busy machine reaches.
            let limits = AuthorizerLimits { max_time: Duration::from_secs(10), ..Default::default() };
            authorizer.authorize_with_limits(limits).unwrap();
        });
        side("biscuit-auth", way, bytes, work)
    };
    vec![side("one block", one), side("narrowed by its holder to the customer", narrowed)]
}
