//! Tokens, namespaces, addresses and certificates.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use zeroize::Zeroizing;

use super::*;

/// Options whose token is what `tokens` gives, the last one for ever; how often it was asked.
fn asking(bao: &Bao, tokens: Vec<String>) -> (BaoOptions, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let (count, left) = (Arc::clone(&asked), Mutex::new(tokens));
    let options = BaoOptions::new(&bao.url(), move || {
        count.fetch_add(1, Ordering::Relaxed);
        let mut left = left.lock().unwrap();
        let token = if left.len() > 1 { left.remove(0) } else { left[0].clone() };
        Ok(Zeroizing::new(token))
    });
    (options.unwrap().certificate_authorities(&bao.authority).unwrap(), asked)
}

#[test]
fn the_policies_that_the_documentation_prints_are_these() {
    let docs = |file: &str| {
        let text =
            std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("/// ")).collect();
        let policy: Vec<&str> = lines.into_iter().filter(|line| line.starts_with("path ")).collect();
        policy.join("\n")
    };
    assert_eq!(docs("src/keeper/transit.rs"), KEEPER.trim());
    assert_eq!(docs("src/witness/kv.rs").replace("customer-vault/shop", "+"), WITNESS.trim());
}

#[test]
fn an_expired_token_is_asked_for_again_and_a_revoked_one_refused() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let short = || bao.token("", KEEPER, json!({"ttl": "2s", "renewable": false}));
        let lasting = bao.token("", KEEPER, json!({}));
        let (options, asked) = asking(bao, vec![short(), lasting.clone()]);
        let keeper = keeper_at(options);
        Keeper::bind(&keeper, vault_id()).await.unwrap();
        let root = keeper.candidate(0).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        std::thread::sleep(Duration::from_millis(2500));
        assert!(keeper.unwrap(root.id, &root.wrapped).await.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        bao.done("POST", "", "auth/token/revoke", json!({"token": lasting}));
        for _ in 0..2 {
            assert_eq!(keeper.held().await, Err(KeeperError::Refused));
            assert_eq!(keeper.unwrap(root.id, &root.wrapped).await.err(), Some(KeeperError::Refused));
        }
    });
}

#[test]
fn a_renewable_token_outlives_its_time_without_being_asked_for_again() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let token = bao.token("", KEEPER, json!({"ttl": "3s", "renewable": true, "explicit_max_ttl": "60s"}));
        let (options, asked) = asking(bao, vec![token]);
        let keeper = keeper_at(options);
        Keeper::bind(&keeper, vault_id()).await.unwrap();
        // No calls meanwhile.
        std::thread::sleep(Duration::from_secs(8));
        keeper.held().await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_token_source_that_fails_says_why_and_what_is_no_token_is_refused() {
    let Some(bao) = shared() else { return };
    let trusted = |options: BaoOptions| options.certificate_authorities(&bao.authority).unwrap();
    let failing = BaoOptions::new(&bao.url(), || Err(KeeperError::NotSet)).unwrap();
    assert_eq!(try_keeper(trusted(failing), "transit").unwrap_err(), KeeperError::NotSet.into());
    for bad in ["no token", "", "a\r\nX-Other: b", "\u{0}"] {
        assert_eq!(try_keeper(bao.options(bad), "transit").unwrap_err(), KeeperError::Refused.into());
    }
    // As a file has it.
    assert!(try_keeper(bao.options(&format!("{}\n", bao.root)), "transit").is_ok());
}

#[test]
fn a_token_that_may_not_make_keys_is_refused() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let policy = KEEPER.replace(r#""read", "update", "delete""#, r#""read", "delete""#);
        let keeper = keeper_at(bao.options(&bao.token("", &policy, json!({}))));
        Keeper::bind(&keeper, vault_id()).await.unwrap();
        assert_eq!(keeper.candidate(0).await.err(), Some(KeeperError::Refused));
        let none = bao.token("", WITNESS, json!({}));
        assert_eq!(try_keeper(bao.options(&none), "transit").unwrap_err(), KeeperError::Refused.into());
    });
}

#[test]
fn a_mount_that_is_not_there_or_another_engine_is_told() {
    let Some(bao) = shared() else { return };
    assert_eq!(try_keeper(bao.options(&bao.root), "nowhere").unwrap_err(), KeeperError::Missing.into());
    assert_eq!(try_keeper(bao.options(&bao.root), "a/../b").unwrap_err(), Misuse::Setting.into());
    let of_keys = block_on(KvWitness::connect(bao.options(&bao.root), "nowhere", "a"));
    assert_eq!(of_keys.unwrap_err(), KeeperError::Missing.into());
    // A token that may not see the mount is not told that it is missing.
    let token = bao.token("", KEEPER, json!({}));
    assert_eq!(try_keeper(bao.options(&token), "nowhere").unwrap_err(), KeeperError::Refused.into());
    assert!(try_keeper(bao.options(&bao.root), "secret").is_err());
}

#[test]
fn a_destroyed_key_is_not_believed_gone_because_its_mount_is() {
    let Some(bao) = shared() else { return };
    block_on(async {
        bao.mount("", "renamed", json!({"type": "transit"}));
        let keeper = try_keeper(bao.options(&bao.root), "renamed").unwrap();
        Keeper::bind(&keeper, vault_id()).await.unwrap();
        let root = keeper.candidate(0).await.unwrap();
        bao.done("DELETE", "", "sys/mounts/renamed", json!({}));
        for said in [
            keeper.unwrap(root.id, &root.wrapped).await.err(),
            keeper.destroy(root.id).await.err(),
            keeper.held().await.err(),
        ] {
            assert_eq!(said, Some(KeeperError::Missing));
        }
    });
}

#[test]
fn a_certificate_that_is_not_trusted_is_no_server_of_ours() {
    let Some(bao) = shared() else { return };
    let (another, ..) = server::certificate();
    let options = server::of(&bao.url(), &bao.root).certificate_authorities(&another).unwrap();
    assert_eq!(try_keeper(options, "transit").unwrap_err(), KeeperError::Unreachable.into());
    // Nor is one for another name.
    let other_name = format!("https://127.0.0.2:{}", bao.port);
    let options = server::of(&other_name, &bao.root).certificate_authorities(&bao.authority).unwrap();
    assert_eq!(try_keeper(options, "transit").unwrap_err(), KeeperError::Unreachable.into());
    // TLS to a port that does not speak it.
    let plain = format!("https://127.0.0.1:{}", bao.plain);
    let options = server::of(&plain, &bao.root).certificate_authorities(&bao.authority).unwrap();
    assert_eq!(try_keeper(options, "transit").unwrap_err(), KeeperError::Unreachable.into());
}

#[test]
fn a_client_shows_its_certificate_where_the_server_asks_for_one() {
    let Some(bao) = shared() else { return };
    let url = format!("https://127.0.0.1:{}", bao.mutual);
    let options = || server::of(&url, &bao.root).certificate_authorities(&bao.authority).unwrap();
    assert_eq!(try_keeper(options(), "transit").unwrap_err(), KeeperError::Unreachable.into());
    assert!(try_keeper(options().client_certificate(&bao.chain, &bao.key).unwrap(), "transit").is_ok());
    let (_, chain, key) = server::certificate();
    let strange = options().client_certificate(&chain, &key).unwrap();
    assert_eq!(try_keeper(strange, "transit").unwrap_err(), KeeperError::Unreachable.into());
}

#[test]
fn a_token_whose_life_could_not_be_asked_for_at_first_is_renewed_all_the_same() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let proxy = Proxy::before(bao);
        let token = bao.token("", KEEPER, json!({"ttl": "3s", "renewable": true, "explicit_max_ttl": "60s"}));
        let away = Arc::new(AtomicU32::new(0));
        let asked = Arc::clone(&away);
        proxy.rule(move |request| {
            let first = request.contains("lookup-self") && asked.fetch_add(1, Ordering::Relaxed) == 0;
            if first { Act::Cut } else { Act::Pass }
        });
        let keeper = keeper_at(server::of(&proxy.url, &token));
        Keeper::bind(&keeper, vault_id()).await.unwrap();
        keeper.held().await.unwrap();
        assert_eq!(away.load(Ordering::Relaxed), 2);
        std::thread::sleep(Duration::from_secs(6));
        keeper.held().await.unwrap();
    });
}

#[test]
fn keys_and_lines_lie_in_their_namespace() {
    let Some(bao) = shared() else { return };
    block_on(async {
        bao.done("POST", "", "sys/namespaces/shop", json!({}));
        bao.mount("shop", "transit", json!({"type": "transit"}));
        bao.mount("shop", "secret", json!({"type": "kv", "options": {"version": "2"}}));
        let token = bao.token("shop", &format!("{KEEPER}{WITNESS}"), json!({}));
        let inside = || bao.options(&token).namespace("shop").unwrap();
        let keeper = keeper_at(inside());
        let (clock, path, who) = (clock(), path(), id("alice"));
        let lines = KvWitness::connect(inside(), "secret", &path).await.unwrap();
        let vault = options(&clock).create(MemoryStore::new(), keeper.clone(), lines).await.unwrap();
        let order = sealed(&vault, &who).await;
        opens(&vault, &who, &order).await.unwrap();
        let names = bao.done("GET", "shop", "transit/keys?list=true", json!({}));
        assert_eq!(names["data"]["keys"].as_array().unwrap().len(), 2, "{names}");
        let outside = bao.api("GET", "transit/keys?list=true", "", json!({})).1.to_string();
        assert!(!outside.contains(&vault.id().to_string()));
        // Without the namespace the token is nobody's.
        assert_eq!(try_keeper(bao.options(&token), "transit").unwrap_err(), KeeperError::Refused.into());
    });
}

#[test]
fn nothing_secret_is_shown() {
    let Some(bao) = shared() else { return };
    let keeper = bound(bao);
    let shown = format!("{keeper:?} {:?} {:?}", bao.options("hvs.secret"), witness(bao, &path()));
    for secret in ["hvs", "127.0.0.1", "transit\"", "shop"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
