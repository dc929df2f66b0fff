//! The server away, sealed, slow, behind, or cut off in the middle of a request.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use customer_vault::clock::{Clock as _, SystemClock};

use super::*;

#[test]
fn abuse_41_while_the_keeper_is_away_reads_go_on_and_nothing_is_certified() {
    let Some(mut bao) = Bao::start("away") else { return };
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (store, clock, path) = (MemoryStore::new(), clock(), path());
        let vault = options(&clock).create(store, keeper(&bao), witness(&bao, &path)).await.unwrap();
        let (alice, bob) = (id("alice"), id("bob"));
        let (hers, his) = (sealed(&vault, &alice).await, sealed(&vault, &bob).await);
        let unreachable = Error::from(KeeperError::Unreachable);
        bao.kill();
        opens(&vault, &bob, &his).await.unwrap();
        // The fence stands in the store; the witness is told later.
        assert!(!vault.forget(&alice, forget()).await.unwrap().witnessed);
        assert!(opens(&vault, &alice, &hers).await.is_err());
        clock.advance_days(1);
        assert_eq!(vault.shred(&me, &why).await.unwrap_err(), unreachable);
        assert_eq!(vault.settle(&me, &why).await.unwrap_err(), unreachable);
        bao.resume();
        assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 1);
        days(&clock, &[&vault], 31).await;
        bao.seal();
        opens(&vault, &bob, &his).await.unwrap();
        assert!(opens(&vault, &alice, &hers).await.is_err());
        assert_eq!(vault.settle(&me, &why).await.unwrap_err(), unreachable);
        bao.unseal();
        assert_eq!(vault.settle(&me, &why).await.unwrap().certificates.len(), 1);
        opens(&vault, &bob, &his).await.unwrap();
    });
}

fn since(began: Duration) -> Duration {
    SystemClock.monotonic().saturating_sub(began)
}

#[test]
fn a_slow_server_is_waited_for_as_long_as_was_said() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let proxy = Proxy::before(bao);
        let options = || server::of(&proxy.url, &bao.root).wait_for_answer(Duration::from_millis(500));
        let keeper = keeper_at(options().retries(0));
        Keeper::bind(&keeper, vault_id()).await.unwrap();
        let root = keeper.candidate(0).await.unwrap();
        proxy.rule(|_| Act::Wait(Duration::from_millis(200)));
        assert!(keeper.unwrap(root.id, &root.wrapped).await.is_ok());
        proxy.rule(|_| Act::Wait(Duration::from_secs(5)));
        let began = SystemClock.monotonic();
        assert_eq!(keeper.unwrap(root.id, &root.wrapped).await.err(), Some(KeeperError::Unreachable));
        assert!(since(began) < Duration::from_secs(2));
        // All that waits in line is told at once, not one after the other.
        let began = SystemClock.monotonic();
        std::thread::scope(|threads| {
            for _ in 0..20 {
                let keeper = keeper.clone();
                let (id, wrapped) = (root.id, root.wrapped.clone());
                threads.spawn(move || {
                    assert_eq!(block_on(keeper.unwrap(id, &wrapped)).err(), Some(KeeperError::Unreachable));
                });
            }
        });
        assert!(since(began) < Duration::from_secs(4), "{:?}", since(began));
        proxy.rule(|_| Act::Pass);
        assert!(keeper.unwrap(root.id, &root.wrapped).await.is_ok());
    });
}

#[test]
fn every_request_may_be_lost_before_or_after_it_was_done() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let proxy = Proxy::before(bao);
        for act in [
            Act::Lose,
            Act::Cut,
            Act::Say(503, r#"{"errors":["sealed"]}"#.into()),
            Act::Say(429, String::new()),
        ] {
            let keeper = keeper_at(server::of(&proxy.url, &bao.root));
            Keeper::bind(&keeper, vault_id()).await.unwrap();
            let (turn, bad) = (AtomicBool::new(false), act.clone());
            // Every other request.
            proxy
                .rule(move |_| if turn.fetch_xor(true, Ordering::Relaxed) { Act::Pass } else { bad.clone() });
            let (one, two) = (keeper.candidate(0).await.unwrap(), keeper.candidate(0).await.unwrap());
            keeper.activate(1, one.id).await.unwrap();
            assert_eq!(keeper.unwrap(one.id, &one.wrapped).await.unwrap().expose(), one.key.expose());
            keeper.activate(2, two.id).await.unwrap();
            keeper.destroy(one.id).await.unwrap();
            let gone = keeper.unwrap(one.id, &one.wrapped).await.err();
            assert_eq!(gone, Some(KeeperError::NoSuchRoot), "{act:?}");
            let held = [Held { id: two.id, epoch: 2, activated: true }];
            assert_eq!(keeper.held().await.unwrap(), held);
            proxy.rule(|_| Act::Pass);
        }
    });
}

#[test]
fn answers_that_no_server_gives_are_errors_that_quote_nothing() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let proxy = Proxy::before(bao);
        let keeper = keeper_at(server::of(&proxy.url, &bao.root).retries(0));
        Keeper::bind(&keeper, vault_id()).await.unwrap();
        let root = keeper.candidate(0).await.unwrap();
        let plaintext = |bytes: &str| format!(r#"{{"data":{{"plaintext":"{bytes}"}}}}"#);
        let right = "A".repeat(43) + "=";
        for (status, body, said) in [
            (200, "secret-canary".to_owned(), KeeperError::Damaged),
            (200, String::new(), KeeperError::Damaged),
            (200, "{}".to_owned(), KeeperError::Damaged),
            (200, plaintext(""), KeeperError::Damaged),
            (200, plaintext("secret-canary"), KeeperError::Damaged),
            (200, plaintext(&"A".repeat(44)), KeeperError::Damaged),
            (200, plaintext(&right), KeeperError::Damaged),
            (200, format!("{{\"data\":{}", "[".repeat(100_000)), KeeperError::Damaged),
            (200, "x".repeat(9 << 20), KeeperError::Damaged),
            (301, String::new(), KeeperError::ReadOnly),
            (307, String::new(), KeeperError::ReadOnly),
            (404, "<html>secret-canary</html>".to_owned(), KeeperError::Damaged),
            (404, r#"{"errors":["no handler for route"]}"#.to_owned(), KeeperError::Missing),
            (405, String::new(), KeeperError::Missing),
            (413, String::new(), KeeperError::Full),
            (418, String::new(), KeeperError::Io),
            (472, String::new(), KeeperError::Unreachable),
            (473, String::new(), KeeperError::Unreachable),
            (502, String::new(), KeeperError::Unreachable),
        ] {
            let body_of = body.clone();
            proxy.rule(move |request| {
                if request.contains("/decrypt/") { Act::Say(status, body_of.clone()) } else { Act::Pass }
            });
            let why = keeper.unwrap(root.id, &root.wrapped).await.err();
            let shown = body.get(..body.len().min(40)).unwrap_or_default();
            assert_eq!(why, Some(said), "{status} {shown}");
        }
        // A page of something in between is not a key that is gone.
        for body in ["<html>404</html>", "", "{}", r#"{"errors":null}"#, r#"{"data":null}"#] {
            let fresh = keeper.candidate(0).await.unwrap();
            proxy.rule(move |request| match request.split(' ').next() {
                Some("GET") if request.contains("/keys/cv1-") => Act::Say(404, body.to_owned()),
                _ => Act::Pass,
            });
            let another = keeper.candidate(0).await;
            assert!(another.is_err(), "{body}");
            assert!(keeper.destroy(fresh.id).await.is_err(), "{body}");
            proxy.rule(|_| Act::Pass);
        }
        for list in [r#"{"data":{"keys":[7]}}"#, r#"{"data":{"keys":["cv1-"]}}"#, "[]", r#"{"data":{}}"#] {
            proxy.rule(move |request| {
                if request.contains("list=true") { Act::Say(200, list.to_owned()) } else { Act::Pass }
            });
            let held = keeper.held().await;
            assert!(held.is_err() || held == Ok(Vec::new()), "{list}");
        }
    });
}

#[test]
fn a_redirect_is_not_followed_and_the_token_goes_nowhere_else() {
    let Some(bao) = shared() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let asked = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&asked);
    let elsewhere = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        drop(listener.accept());
        heard.store(true, Ordering::Relaxed);
    });
    let from = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", from.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in from.incoming().flatten() {
            use std::io::{Read as _, Write as _};
            drop(client.read(&mut [0; 4096]));
            let answer =
                format!("HTTP/1.1 307 Go\r\nlocation: http://{elsewhere}/v1/x\r\ncontent-length: 0\r\n\r\n");
            drop(client.write_all(answer.as_bytes()));
        }
    });
    let said = try_keeper(server::of(&url, &bao.root), "transit").unwrap_err();
    assert_eq!(said, KeeperError::ReadOnly.into());
    assert!(!asked.load(Ordering::Relaxed));
}

#[test]
fn a_snapshot_of_the_keeper_brings_keys_back_and_the_vault_destroys_them_again() {
    let (Some(bao), Some(other)) = (Bao::start("snapshot"), shared()) else { return };
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (store, clock, path) = (MemoryStore::new(), clock(), path());
        let mine = keeper_at(bao.options(&bao.root));
        let vault = options(&clock).create(store.clone(), mine.clone(), witness(other, &path)).await.unwrap();
        let (alice, bob) = (id("alice"), id("bob"));
        let (hers, his) = (sealed(&vault, &alice).await, sealed(&vault, &bob).await);
        let (old_store, too_old) = (store.snapshot(), bao.snapshot());
        vault.forget(&alice, forget()).await.unwrap();
        clock.advance_days(1);
        vault.shred(&me, &why).await.unwrap();
        let both_keys = bao.snapshot();
        days(&clock, &[&vault], 31).await;
        assert_eq!(vault.settle(&me, &why).await.unwrap().certificates.len(), 1);
        assert_eq!(mine.held().await.unwrap().len(), 1);
        // The old root is back, and the witness, which lies elsewhere, knows better than the old store.
        bao.restore(&both_keys);
        assert_eq!(mine.held().await.unwrap().len(), 2);
        let reopened = options(&clock).open(old_store.snapshot(), mine.clone(), witness(other, &path)).await;
        assert_eq!(reopened.unwrap_err(), RolledBack::Store.into());
        assert_eq!(vault.settle(&me, &why).await.unwrap().roots, 0, "retired anew");
        days(&clock, &[&vault], 31).await;
        assert_eq!(vault.settle(&me, &why).await.unwrap().roots, 1);
        assert_eq!(mine.held().await.unwrap().len(), 1);
        // From before the root that the store names: the keeper is the older one.
        bao.restore(&too_old);
        let reopened = options(&clock).open(store, mine.clone(), witness(other, &path)).await;
        assert_eq!(reopened.unwrap_err(), RolledBack::Keeper.into());
        opens(&vault, &bob, &his).await.unwrap();
        assert!(opens(&vault, &alice, &hers).await.is_err());
    });
}

/// Abuse 35: one process stands still before its n-th request or dies there, another replaces the root meanwhile.
#[test]
fn abuse_35_two_processes_replace_the_root_and_one_is_paused_or_killed_anywhere() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let mut ended = 0;
        for (n, dies) in (0..14).flat_map(|n| [(n, false), (n, true)]) {
            let (proxy, path, clock) = (Proxy::before(bao), path(), clock());
            let store = MemoryStore::shared_between_handles();
            let slow = keeper_at(
                server::of(&proxy.url, &bao.root).wait_for_answer(Duration::from_secs(30)).retries(0),
            );
            let one = options(&clock).create(store.clone(), slow, witness(bao, &path)).await.unwrap();
            let two = options(&clock).open(store.clone(), keeper(bao), witness(bao, &path)).await.unwrap();
            let (alice, bob, carol) = (id("alice"), id("bob"), id("carol"));
            let orders = [sealed(&one, &alice).await, sealed(&one, &bob).await, sealed(&one, &carol).await];
            one.forget(&alice, forget()).await.unwrap();
            clock.advance_days(1);
            let (go_on, waits) = std::sync::mpsc::channel::<()>();
            let (stands, stood) = std::sync::mpsc::channel::<()>();
            let mut asked = 0;
            proxy.rule(move |_| {
                asked += 1;
                if dies && asked > n {
                    let _ = stands.send(());
                    return Act::Cut;
                }
                if asked == n + 1 {
                    let _ = stands.send(());
                    let _ = waits.recv_timeout(Duration::from_secs(20));
                }
                Act::Pass
            });
            let first = std::thread::scope(|threads| {
                let first = threads.spawn(|| block_on(one.shred(&tester(), &test_ground())));
                // It stands, or it is through without as many requests.
                while stood.try_recv().is_err() && !first.is_finished() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                block_on(two.forget(&bob, forget())).unwrap();
                clock.advance_days(1);
                let second = block_on(two.shred(&tester(), &test_ground()));
                assert!(matches!(second, Ok(_) | Err(Error::Busy)), "{n} {dies}: {second:?}");
                let _ = go_on.send(());
                first.join().unwrap()
            });
            ended += usize::from(first.is_ok());
            drop(one);
            two.shred(&me, &why).await.unwrap();
            days(&clock, &[&two], 31).await;
            two.shred(&me, &why).await.unwrap();
            let mut certificates = two.settle(&me, &why).await.unwrap().certificates.len();
            // A root that only the keeper knew of was retired just now.
            days(&clock, &[&two], 31).await;
            certificates += two.settle(&me, &why).await.unwrap().certificates.len();
            assert_eq!(certificates, 2, "{n} {dies}");
            drop(two);
            let again = options(&clock).open(store, keeper(bao), witness(bao, &path)).await.unwrap();
            for (who, order, there) in [(&alice, 0, false), (&bob, 1, false), (&carol, 2, true)] {
                assert_eq!(opens(&again, who, &orders[order]).await.is_ok(), there, "{n} {dies} {order}");
            }
        }
        assert!((5..28).contains(&ended), "paused ones come through, killed ones do not: {ended}");
    });
}
