//! What the port promises, and the whole life of a vault.

use super::*;

#[test]
fn the_whole_life_ends_in_a_certificate() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (store, clock, path) = (MemoryStore::new(), clock(), path());
        let keeper = keeper(bao);
        let vault = options(&clock).create(store.clone(), keeper.clone(), witness(bao, &path)).await.unwrap();
        let custody = vault.custody();
        assert_eq!((custody.keeper, custody.witness), (Serves::ManyHosts, Serves::ManyHosts));
        assert_eq!(custody.erasure_class, ErasureClass::Service { min_delay_s: 0, max_delay_s: 14 * 86_400 });
        let (alice, bob) = (id("alice"), id("bob"));
        let (hers, his) = (sealed(&vault, &alice).await, sealed(&vault, &bob).await);
        opens(&vault, &alice, &hers).await.unwrap();
        let before = store.snapshot();
        assert!(vault.forget(&alice, forget()).await.unwrap().witnessed);
        clock.advance_days(1);
        let shredded = vault.shred(&me, &why).await.unwrap();
        assert_eq!((shredded.subjects, shredded.epoch_left), (1, Some(1)));
        // Abuse 4: within the window an older store is known by what keeper and witness say, and is put right.
        let refused = options(&clock).open(before.snapshot(), self::keeper(bao), witness(bao, &path)).await;
        assert_eq!(refused.unwrap_err(), RolledBack::Store.into());
        assert_eq!(vault.settle(&me, &why).await.unwrap().roots, 0);
        days(&clock, &[&vault], 31).await;
        let settled = vault.settle(&me, &why).await.unwrap();
        assert_eq!((settled.roots, settled.certificates.len()), (1, 1));
        let text = settled.certificates[0].as_str();
        // A day later than it could be, and the copies of the server's storage from just before.
        for said in [
            "keeper: service\n",
            "destroyed: 2026-02-06T12:00:00Z\n",
            "unreadable after: 2026-02-20T12:00:00Z\n",
        ] {
            assert!(text.contains(said), "{text}");
        }
        // Abuse 5: the copy from before opens for nobody, its root is gone.
        let recovered =
            options(&clock).recover(before, self::keeper(bao), witness(bao, &path), &me, &why).await;
        assert_eq!(recovered.unwrap_err(), RolledBack::Gone.into());
        assert!(opens(&vault, &alice, &hers).await.is_err());
        opens(&vault, &bob, &his).await.unwrap();
        // Everything is found again by another process.
        drop(vault);
        let vault = options(&clock).open(store, self::keeper(bao), witness(bao, &path)).await.unwrap();
        opens(&vault, &bob, &his).await.unwrap();
        assert_eq!(keeper.held().await.unwrap().len(), 1);
    });
}

#[test]
fn a_candidate_is_wrapped_activated_unwrapped_and_destroyed() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let keeper = bound(bao);
        let (one, two) = (keeper.candidate(0).await.unwrap(), keeper.candidate(1).await.unwrap());
        assert_eq!(one.wrapped.len(), 118);
        let state = |held: Vec<Held>| {
            let mut state: Vec<_> = held.iter().map(|held| (held.epoch, held.activated)).collect();
            state.sort_unstable();
            state
        };
        assert_eq!(state(keeper.held().await.unwrap()), [(0, false), (1, false)]);
        keeper.activate(1, one.id).await.unwrap();
        assert_eq!(state(keeper.held().await.unwrap()), [(1, false), (1, true)]);
        assert_eq!(keeper.destroy(one.id).await, Err(KeeperError::Locked), "the active one");
        keeper.activate(2, two.id).await.unwrap();
        // Late, and said again: nothing goes backwards.
        keeper.activate(1, one.id).await.unwrap();
        keeper.activate(2, one.id).await.unwrap();
        assert_eq!(keeper.destroy(two.id).await, Err(KeeperError::Locked));
        let unwrapped = keeper.unwrap(one.id, &one.wrapped).await.unwrap();
        assert_eq!(unwrapped.expose(), one.key.expose());
        keeper.destroy(one.id).await.unwrap();
        keeper.destroy(one.id).await.unwrap();
        assert_eq!(keeper.unwrap(one.id, &one.wrapped).await.err(), Some(KeeperError::NoSuchRoot));
        assert_eq!(keeper.unwrap(one.id, &[]).await.err(), Some(KeeperError::NoSuchRoot));
        assert_eq!(keeper.activate(3, one.id).await, Err(KeeperError::NoSuchRoot));
        assert_eq!(keeper.destroy([0; 16]).await, Ok(()), "what is not there counts as destroyed");
        assert_eq!(state(keeper.held().await.unwrap()), [(2, true)]);
        assert_eq!(keeper.unwrap(two.id, &two.wrapped).await.unwrap().expose(), two.key.expose());
    });
}

#[test]
fn what_is_wrapped_opens_as_the_root_of_its_own_vault_and_epoch_only() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let (keeper, vault) = (keeper(bao), vault_id());
        Keeper::bind(&keeper, vault).await.unwrap();
        let (one, two) = (keeper.candidate(0).await.unwrap(), keeper.candidate(0).await.unwrap());
        // Another epoch in the wrapped bytes: that key is not there, this root's is.
        let mut other_epoch = one.wrapped.clone();
        other_epoch[8] ^= 1;
        assert_eq!(keeper.unwrap(one.id, &other_epoch).await.err(), Some(KeeperError::Damaged));
        assert_eq!(keeper.unwrap(one.id, &two.wrapped).await.err(), Some(KeeperError::Damaged));
        for at in [0, 9, 40, 68, 69, 80, 117] {
            let mut altered = one.wrapped.clone();
            altered[at] ^= 1;
            assert_eq!(keeper.unwrap(one.id, &altered).await.err(), Some(KeeperError::Damaged), "byte {at}");
        }
        for cut in [0, 1, 68, 117] {
            assert_eq!(keeper.unwrap(one.id, &one.wrapped[..cut]).await.err(), Some(KeeperError::Damaged));
        }
        // The server itself opens it for the context of this vault, epoch and root alone.
        let names = bao.done("GET", "", "transit/keys?list=true", json!({}))["data"]["keys"].clone();
        let hex = format!("{:032x}", u128::from_be_bytes(one.id));
        let all = names.as_array().unwrap().iter().filter_map(|name| name.as_str());
        let name = all.filter(|name| name.ends_with(&hex)).collect::<Vec<_>>()[0].to_owned();
        let encode = <base64ct::Base64 as base64ct::Encoding>::encode_string;
        let asked = |epoch: u64| {
            let parts =
                [b"customer-vault/v1/transit".as_slice(), vault.bytes(), &epoch.to_be_bytes(), &one.id];
            let ciphertext = format!("vault:v1:{}", encode(&one.wrapped[9..69]));
            let body = json!({"ciphertext": ciphertext, "context": encode(&parts.concat())});
            bao.api("POST", &format!("transit/decrypt/{name}"), "", body).0
        };
        assert_eq!((asked(0), asked(1)), (200, 400));
        let longer = [one.wrapped.as_slice(), &[0]].concat();
        assert_eq!(keeper.unwrap(one.id, &longer).await.err(), Some(KeeperError::Damaged));
    });
}

#[test]
fn a_keeper_serves_one_vault_and_knows_anothers_keys() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let fresh = keeper(bao);
        assert_eq!(fresh.candidate(0).await.err(), Some(KeeperError::Missing), "bound to nothing yet");
        let one = bound(bao);
        let root = one.candidate(0).await.unwrap();
        assert_eq!(Keeper::bind(&one, vault_id()).await, Err(KeeperError::Foreign));
        let another = bound(bao);
        assert_eq!(another.unwrap(root.id, &root.wrapped).await.err(), Some(KeeperError::Foreign));
        assert_eq!(another.held().await.unwrap(), []);
        // It does not touch what is not its own.
        another.destroy(root.id).await.unwrap();
        assert!(one.unwrap(root.id, &root.wrapped).await.is_ok());
        // A vault whose store names keys that this server does not have.
        bao.mount("", "elsewhere", json!({"type": "transit"}));
        let (store, clock, path) = (MemoryStore::new(), clock(), path());
        drop(options(&clock).create(store.clone(), keeper(bao), witness(bao, &path)).await.unwrap());
        let empty = try_keeper(bao.options(&bao.root), "elsewhere").unwrap();
        let refused = options(&clock).open(store, empty, witness(bao, &path)).await;
        assert_eq!(refused.unwrap_err(), RolledBack::Keeper.into());
    });
}

#[test]
fn a_key_that_could_be_taken_out_is_not_used() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let proxy = Proxy::before(bao);
        let keeper = keeper_at(server::of(&proxy.url, &bao.root));
        Keeper::bind(&keeper, vault_id()).await.unwrap();
        let answer = |change: &'static str, to: &'static str| {
            let good = json!({"data": {"type": "aes256-gcm96", "derived": true, "exportable": false,
                "allow_plaintext_backup": false, "convergent_encryption": false, "imported_key": false}});
            let said = good.to_string().replace(change, to);
            move |request: &str| {
                let reads = request.starts_with("GET") && request.contains("/keys/cv1-");
                if reads { Act::Say(200, said.clone()) } else { Act::Pass }
            }
        };
        proxy.rule(answer("none", "none"));
        assert!(keeper.candidate(0).await.is_ok());
        for (from, to) in [
            (r#""exportable":false"#, r#""exportable":true"#),
            (r#""allow_plaintext_backup":false"#, r#""allow_plaintext_backup":true"#),
            (r#""convergent_encryption":false"#, r#""convergent_encryption":true"#),
            (r#""imported_key":false"#, r#""imported_key":true"#),
            (r#""derived":true"#, r#""derived":false"#),
            ("aes256-gcm96", "aes128-gcm96"),
        ] {
            proxy.rule(answer(from, to));
            assert_eq!(keeper.candidate(0).await.err(), Some(KeeperError::Unfit), "{to}");
        }
        // One that was made before under this name, exportable: real, by the server's own word.
        let made = |name: &str| json!({"type": "aes256-gcm96", "derived": true, "exportable": name == "yes"});
        let created = bao.done("POST", "", "transit/keys/shop-own", made("yes"));
        assert_eq!(created["data"]["exportable"], true);
    });
}

#[test]
fn two_processes_replace_the_root_in_turn_and_at_once() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (store, clock, path) = (MemoryStore::shared_between_handles(), clock(), path());
        let one = options(&clock).create(store.clone(), keeper(bao), witness(bao, &path)).await.unwrap();
        let two = options(&clock).open(store.clone(), keeper(bao), witness(bao, &path)).await.unwrap();
        let mut orders = Vec::new();
        for n in 0..8 {
            let who = id(&format!("customer-{n}"));
            orders.push((who.clone(), sealed(&one, &who).await));
        }
        for (n, (who, _)) in orders.iter().take(4).enumerate() {
            let vault = if n % 2 == 0 { &one } else { &two };
            vault.forget(who, forget()).await.unwrap();
        }
        clock.advance_days(1);
        let both = std::thread::scope(|threads| {
            let other = threads.spawn(|| block_on(two.shred(&tester(), &test_ground())));
            (block_on(one.shred(&me, &why)), other.join().unwrap())
        });
        for done in [both.0, both.1] {
            assert!(matches!(done, Ok(_) | Err(Error::Busy)), "{done:?}");
        }
        one.shred(&me, &why).await.unwrap();
        two.forget(&orders[4].0, forget()).await.unwrap();
        clock.advance_days(1);
        two.shred(&me, &why).await.unwrap();
        days(&clock, &[&one, &two], 31).await;
        let certificates = one.settle(&me, &why).await.unwrap().certificates.len();
        let rest = two.settle(&me, &why).await.unwrap().certificates.len();
        assert_eq!(certificates + rest, 5);
        for (n, (who, order)) in orders.iter().enumerate() {
            for vault in [&one, &two] {
                assert_eq!(opens(vault, who, order).await.is_ok(), n > 4, "customer {n}");
            }
        }
    });
}

#[test]
fn a_candidate_from_a_process_that_died_is_destroyed_and_one_that_may_still_win_is_not() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (store, clock, path) = (MemoryStore::new(), clock(), path());
        let mine = keeper(bao);
        let vault = options(&clock).create(store, mine.clone(), witness(bao, &path)).await.unwrap();
        // Made for the epoch that stands: its commit may still come.
        let waiting = mine.candidate(1).await.unwrap();
        vault.shred(&me, &why).await.unwrap();
        assert!(mine.unwrap(waiting.id, &waiting.wrapped).await.is_ok());
        let who = id("alice");
        sealed(&vault, &who).await;
        vault.forget(&who, forget()).await.unwrap();
        clock.advance_days(1);
        vault.shred(&me, &why).await.unwrap();
        vault.shred(&me, &why).await.unwrap();
        assert_eq!(mine.unwrap(waiting.id, &waiting.wrapped).await.err(), Some(KeeperError::NoSuchRoot));
        assert_eq!(mine.held().await.unwrap().len(), 2, "the root and the one that was left");
    });
}

#[test]
fn abuse_35_who_says_destroyed_and_still_decrypts_gets_no_certificate() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let proxy = Proxy::before(bao);
        let (store, clock, path) = (MemoryStore::new(), clock(), path());
        let lying = keeper_at(server::of(&proxy.url, &bao.root));
        let vault = options(&clock).create(store, lying, witness(bao, &path)).await.unwrap();
        let who = id("alice");
        sealed(&vault, &who).await;
        vault.forget(&who, forget()).await.unwrap();
        clock.advance_days(1);
        vault.shred(&me, &why).await.unwrap();
        days(&clock, &[&vault], 31).await;
        let gone = std::sync::Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
        let deleted = std::sync::Arc::clone(&gone);
        proxy.rule(move |request| {
            let path = request.split(' ').nth(1).unwrap().to_owned();
            let key = path.trim_end_matches("/config").to_owned();
            let mut deleted = deleted.lock().unwrap();
            if request.starts_with("DELETE") {
                deleted.push(key);
                return Act::Say(204, String::new());
            }
            if path.ends_with("keys?list=true") {
                let mut listed = bao.done("GET", "", "transit/keys?list=true", json!({}));
                let names = listed["data"]["keys"].as_array_mut().unwrap();
                names.retain(|name| !deleted.iter().any(|key| key.ends_with(name.as_str().unwrap())));
                return Act::Say(200, listed.to_string());
            }
            let nothing = Act::Say(404, r#"{"errors":[]}"#.to_owned());
            if request.starts_with("GET") && deleted.contains(&key) { nothing } else { Act::Pass }
        });
        assert_eq!(vault.settle(&me, &why).await.unwrap_err(), KeeperError::StillUnwraps.into());
        assert_eq!(gone.lock().unwrap().len(), 2, "the key and what says that it was active");
        // The truth, in the end.
        proxy.rule(|_| Act::Pass);
        assert_eq!(vault.settle(&me, &why).await.unwrap().certificates.len(), 1);
    });
}

#[test]
fn the_server_sees_no_root_and_keeps_no_key_in_the_clear() {
    let Some(bao) = Bao::start("leaks") else { return };
    block_on(async {
        let proxy = Proxy::before(&bao);
        let seen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let all = std::sync::Arc::clone(&seen);
        let keeper = keeper_at(server::of(&proxy.url, &bao.root));
        proxy.rule(move |request| {
            all.lock().unwrap().push_str(request);
            Act::Pass
        });
        Keeper::bind(&keeper, vault_id()).await.unwrap();
        let root = keeper.candidate(0).await.unwrap();
        keeper.unwrap(root.id, &root.wrapped).await.unwrap();
        let requests = seen.lock().unwrap().clone();
        assert!(requests.contains("plaintext"), "the test sees what is sent");
        let base64 = <base64ct::Base64 as base64ct::Encoding>::encode_string(root.key.expose());
        assert!(!requests.contains(&base64));
        let disk = bao.on_disk();
        assert!(disk.len() > 10_000);
        let contains = |needle: &[u8]| disk.windows(needle.len()).any(|bytes| bytes == needle);
        assert!(!contains(root.key.expose()) && !contains(base64.as_bytes()));
    });
}

async fn goes_over(bao: &Bao, from: impl Keeper + Clone, to: impl Keeper + Clone) {
    let (me, why) = (tester(), test_ground());
    let (store, clock, path) = (MemoryStore::new(), clock(), path());
    let open = async |keeper| options(&clock).open(store.clone(), keeper, witness(bao, &path)).await;
    let vault = options(&clock).create(store.clone(), from.clone(), witness(bao, &path)).await.unwrap();
    let alice = id("alice");
    let hers = sealed(&vault, &alice).await;
    drop(vault);
    let handover = Handover::new(from, to.clone());
    let vault = options(&clock).open(store.clone(), handover.clone(), witness(bao, &path)).await.unwrap();
    vault.replace_root(&me, &why).await.unwrap();
    opens(&vault, &alice, &hers).await.unwrap();
    days(&clock, &[&vault], 20).await;
    vault.settle(&me, &why).await.unwrap();
    assert_eq!(handover.remaining().await, Ok(1));
    assert_eq!(open(to.clone()).await.unwrap_err(), KeeperError::HandoverUnderWay.into());
    days(&clock, &[&vault], 11).await;
    assert_eq!(vault.settle(&me, &why).await.unwrap().roots, 1);
    assert_eq!(handover.remaining().await, Ok(0));
    drop(vault);
    opens(&open(to.clone()).await.unwrap(), &alice, &hers).await.unwrap();
    assert_eq!(to.held().await.unwrap().len(), 1, "no mark is left");
}

#[test]
fn a_vault_goes_to_the_server_and_from_it() {
    let Some(bao) = shared() else { return };
    block_on(async {
        goes_over(bao, MemoryKeeper::new(), keeper(bao)).await;
        goes_over(bao, keeper(bao), MemoryKeeper::new()).await;
    });
}
