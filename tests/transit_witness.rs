//! The witness in OpenBao's key-value store remembers what the port promises.
#![cfg(all(feature = "testing", feature = "transit"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, unreachable_pub, missing_docs, dead_code, reason = "a test")]
#![allow(clippy::exhaustive_enums, reason = "a test")]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use customer_vault::Options;
use customer_vault::error::{KeeperError, Misuse};
use customer_vault::keeper::{Serves, VaultId};
use customer_vault::testing::{ephemeral, witness_contract, witness_contract_on_threads};
use customer_vault::witness::{KvWitness, Line, Witness};
use pollster::block_on;
use serde_json::{Value, json};

#[path = "services/bao.rs"]
mod server;
use server::{Act, Bao, Proxy};

/// One server for the tests that leave it as it is; `None` where there is none, which was said then.
fn shared() -> Option<&'static Bao> {
    static SERVER: OnceLock<Option<Bao>> = OnceLock::new();
    SERVER.get_or_init(|| Bao::start("witness")).as_ref()
}

/// A path that no other test has.
fn path() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("vaults/shop-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Two vaults' names.
fn vaults() -> [VaultId; 2] {
    static IDS: OnceLock<[VaultId; 2]> = OnceLock::new();
    let id = || block_on(ephemeral(Options::new())).unwrap().id();
    *IDS.get_or_init(|| [id(), id()])
}

fn connected(bao: &Bao, path: &str) -> KvWitness {
    block_on(KvWitness::connect(bao.options(&bao.root), "secret", path)).unwrap()
}

fn opened(bao: &Bao, path: &str) -> KvWitness {
    let witness = connected(bao, path);
    block_on(witness.bind(vaults()[0])).unwrap();
    witness
}

fn line(number: u64) -> Line {
    Line { number, bytes: format!("line {number}").into_bytes() }
}

fn lines(numbers: std::ops::RangeInclusive<u64>) -> Vec<Line> {
    numbers.map(line).collect()
}

/// The names below a path.
fn entries(bao: &Bao, path: &str) -> Vec<String> {
    let listed = bao.done("GET", "", &format!("secret/metadata/{path}?list=true"), Value::Null);
    listed["data"]["keys"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn it_keeps_the_contract() {
    let Some(bao) = shared() else { return };
    let (one, many) = (path(), path());
    block_on(witness_contract(|place| connected(bao, &format!("{one}/{place}"))));
    witness_contract_on_threads(|place| connected(bao, &format!("{many}/{place}")), |task| block_on(task));
}

#[test]
fn whose_it_is_is_looked_at_again_and_it_says_how_many_hosts() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let path = path();
        let witness = connected(bao, &path);
        assert_eq!(witness.serves(), Serves::ManyHosts);
        assert_eq!(witness.remember(lines(1..=1)).await, Err(KeeperError::Missing), "bound to nothing yet");
        assert_eq!(witness.recall(1).await, Err(KeeperError::Missing));
        let [vault, another] = vaults();
        witness.bind(vault).await.unwrap();
        let second = connected(bao, &path);
        assert_eq!(second.remember(lines(1..=1)).await, Err(KeeperError::Missing));
        second.bind(vault).await.unwrap();
        assert_eq!(second.recall(1).await.unwrap(), []);
        // Another vault's put in its place, under an open handle.
        bao.done("DELETE", "", &format!("secret/metadata/{path}/vault"), Value::Null);
        for said in [witness.remember(lines(1..=1)).await.err(), witness.recall(1).await.err()] {
            assert_eq!(said, Some(KeeperError::Damaged), "bound to nothing any more");
        }
        connected(bao, &path).bind(another).await.unwrap();
        assert_eq!(witness.remember(lines(1..=1)).await, Err(KeeperError::Foreign));
        assert_eq!(witness.recall(1).await, Err(KeeperError::Foreign));
        assert_eq!(entries(bao, &path), ["vault"]);
    });
}

#[test]
fn many_lines_go_in_few_entries_and_a_hole_is_damage() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let path = path();
        let witness = opened(bao, &path);
        // Up to the end of an entry, and one more.
        for last in [255, 256, 257, 2048, 2049] {
            witness.remember(lines(1..=last)).await.unwrap();
            assert_eq!(witness.recall(1).await.unwrap(), lines(1..=last));
            assert_eq!(opened(bao, &path).recall(200).await.unwrap(), lines(200..=last));
        }
        assert_eq!(entries(bao, &path).len(), 10, "nine parts of 256 lines, and whose they are");
        let other = Line { number: 300, bytes: b"another".to_vec() };
        assert_eq!(witness.remember(vec![other]).await, Err(KeeperError::Foreign), "in an entry long full");
        let third = format!("{path}/0000000000000201");
        // Deleted: the server knows that there was one.
        bao.done("DELETE", "", &format!("secret/data/{third}"), Value::Null);
        assert_eq!(witness.recall(1).await, Err(KeeperError::Damaged));
        assert_eq!(witness.remember(lines(600..=601)).await, Err(KeeperError::Damaged));
        bao.done("POST", "", &format!("secret/undelete/{third}"), json!({"versions": [1]}));
        assert_eq!(witness.recall(1).await.unwrap(), lines(1..=2049));
        bao.done("PUT", "", &format!("secret/destroy/{third}"), json!({"versions": [1]}));
        assert_eq!(witness.recall(1).await, Err(KeeperError::Damaged));
        // Gone without a trace.
        bao.done("DELETE", "", &format!("secret/metadata/{third}"), Value::Null);
        assert_eq!(witness.recall(1).await, Err(KeeperError::Damaged));
        assert_eq!(witness.recall(513).await, Err(KeeperError::Damaged));
        assert_eq!(witness.recall(769).await.unwrap(), lines(769..=2049));
    });
}

#[test]
fn long_lines_stay_below_what_a_server_takes() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let path = path();
        let long = |number: u64| Line { number, bytes: vec![u8::try_from(number % 251).unwrap(); 4096] };
        let all: Vec<Line> = (1..=100).map(long).collect();
        let witness = opened(bao, &path);
        for part in all.chunks(7) {
            witness.remember(part.to_vec()).await.unwrap();
        }
        assert_eq!(witness.recall(1).await.unwrap(), all);
        assert_eq!(entries(bao, &path).len(), 8, "seven parts of up to 16 lines");
    });
}

#[test]
fn an_append_takes_two_requests_and_recalling_one_for_each_entry() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let (proxy, path) = (Proxy::before(bao), path());
        let options = server::of(&proxy.url, &bao.root);
        let witness = KvWitness::connect(options, "secret", &path).await.unwrap();
        witness.bind(vaults()[0]).await.unwrap();
        witness.remember(lines(1..=1000)).await.unwrap();
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        proxy.rule(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Act::Pass
        });
        for number in 1001..=1010 {
            witness.remember(lines(number..=number)).await.unwrap();
        }
        assert_eq!(count.swap(0, Ordering::Relaxed), 20);
        assert_eq!(witness.recall(1).await.unwrap().len(), 1010);
        assert_eq!(count.swap(0, Ordering::Relaxed), 6, "whose it is, what there is, and four entries");
        witness.recall(1005).await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn lines_survive_their_older_versions_and_a_place_that_forgets_is_refused() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let one = path();
        let witness = opened(bao, &one);
        let about = format!("secret/metadata/{one}/0000000000000001");
        bao.done("POST", "", &about, json!({"max_versions": 1}));
        for number in 1..=30 {
            witness.remember(lines(number..=number)).await.unwrap();
        }
        let kept = bao.done("GET", "", &about, Value::Null);
        assert_eq!(kept["data"]["versions"].as_object().unwrap().len(), 1, "{kept}");
        assert_eq!(witness.recall(1).await.unwrap(), lines(1..=30));
        // For this entry alone: what is written next would go.
        bao.done("POST", "", &about, json!({"delete_version_after": "1h"}));
        assert_eq!(witness.remember(lines(31..=31)).await, Err(KeeperError::Unfit));
        // For the whole mount: it cannot even be bound.
        bao.mount("", "fleeting", json!({"type": "kv", "options": {"version": "2"}}));
        bao.done("POST", "", "fleeting/config", json!({"delete_version_after": "1h"}));
        let fleeting = KvWitness::connect(bao.options(&bao.root), "fleeting", "a").await.unwrap();
        assert_eq!(fleeting.bind(vaults()[0]).await, Err(KeeperError::Unfit));
        // Version 1 has no check-and-set at all.
        bao.mount("", "first", json!({"type": "kv", "options": {"version": "1"}}));
        let first = KvWitness::connect(bao.options(&bao.root), "first", "a").await.unwrap();
        assert_eq!(first.bind(vaults()[0]).await, Err(KeeperError::Unfit));
    });
}

#[test]
fn what_is_no_witness_of_ours_is_refused() {
    let Some(bao) = shared() else { return };
    block_on(async {
        let put = |path: &str, name: &str, data: Value| {
            bao.done("POST", "", &format!("secret/data/{path}/{name}"), json!({"data": data}));
        };
        for data in
            [json!({"a": 1}), json!({"format": "customer-vault witness 2", "vault": vaults()[0].to_string()})]
        {
            let path = path();
            put(&path, "vault", data);
            assert_eq!(connected(bao, &path).bind(vaults()[0]).await, Err(KeeperError::Foreign));
        }
        let path = path();
        let witness = opened(bao, &path);
        witness.remember(lines(1..=2)).await.unwrap();
        // What lies beside does not disturb.
        put(&path, "notes", json!({"a": 1}));
        put(&path, "below/0000000000000009", json!({"a": 1}));
        assert_eq!(witness.recall(1).await.unwrap(), lines(1..=2));
        let name = "0000000000000001";
        for (data, said) in [
            (json!({"a": 1}), KeeperError::Foreign),
            (
                json!({"format": "customer-vault witness 1", "vault": vaults()[1].to_string(), "lines": ["AA=="]}),
                KeeperError::Foreign,
            ),
            (
                json!({"format": "customer-vault witness 1", "vault": vaults()[0].to_string(), "lines": ["AA"]}),
                KeeperError::Damaged,
            ),
            (
                json!({"format": "customer-vault witness 1", "vault": vaults()[0].to_string(), "lines": []}),
                KeeperError::Damaged,
            ),
        ] {
            put(&path, name, data.clone());
            assert_eq!(witness.recall(1).await, Err(said), "{data}");
            assert_eq!(witness.remember(lines(3..=3)).await, Err(said), "{data}");
        }
        // An entry that begins in the middle of another.
        let two = ["AA==", "AA=="];
        let good =
            json!({"format": "customer-vault witness 1", "vault": vaults()[0].to_string(), "lines": two});
        put(&path, name, good.clone());
        assert_eq!(witness.recall(1).await.unwrap().len(), 2);
        put(&path, "0000000000000002", good);
        assert_eq!(witness.recall(1).await, Err(KeeperError::Damaged));
        let bad = KvWitness::connect(bao.options(&bao.root), "secret", "../x").await;
        assert_eq!(bad.unwrap_err(), Misuse::Setting.into());
    });
}

#[test]
fn a_request_that_was_lost_before_or_after_it_was_done_is_made_again() {
    let Some(bao) = shared() else { return };
    block_on(async {
        for act in [Act::Lose, Act::Cut, Act::Say(503, String::new())] {
            let (proxy, path) = (Proxy::before(bao), path());
            let witness =
                KvWitness::connect(server::of(&proxy.url, &bao.root), "secret", &path).await.unwrap();
            let (turn, bad) = (AtomicBool::new(false), act.clone());
            proxy
                .rule(move |_| if turn.fetch_xor(true, Ordering::Relaxed) { Act::Pass } else { bad.clone() });
            witness.bind(vaults()[0]).await.unwrap();
            for first in [1_u64, 4, 7] {
                witness.remember(lines(first..=first + 2)).await.unwrap();
            }
            assert_eq!(witness.recall(1).await.unwrap(), lines(1..=9), "{act:?}");
            assert_eq!(opened(bao, &path).recall(1).await.unwrap(), lines(1..=9), "{act:?}");
        }
        // Written, and nobody is told: the next call finds it.
        let (proxy, path) = (Proxy::before(bao), path());
        let options = server::of(&proxy.url, &bao.root).retries(0);
        let witness = KvWitness::connect(options, "secret", &path).await.unwrap();
        witness.bind(vaults()[0]).await.unwrap();
        proxy.rule(|request| if request.starts_with("POST") { Act::Lose } else { Act::Pass });
        assert_eq!(witness.remember(lines(1..=2)).await, Err(KeeperError::Unreachable));
        assert_eq!(witness.recall(1).await.unwrap(), lines(1..=2));
        proxy.rule(|_| Act::Pass);
        witness.remember(lines(1..=3)).await.unwrap();
        assert_eq!(witness.recall(1).await.unwrap(), lines(1..=3));
        // Refused for what it is, again and again: an end.
        proxy
            .rule(|request| if request.starts_with("POST") { Act::Say(400, "{}".into()) } else { Act::Pass });
        assert_eq!(witness.remember(lines(4..=4)).await, Err(KeeperError::Io));
    });
}

#[test]
fn a_server_that_was_down_or_put_back_is_found_as_it_is_by_the_same_handle() {
    let Some(mut bao) = Bao::start("witness-down") else { return };
    block_on(async {
        let path = path();
        let witness = opened(&bao, &path);
        witness.remember(lines(1..=300)).await.unwrap();
        bao.kill();
        assert_eq!(witness.remember(lines(301..=301)).await, Err(KeeperError::Unreachable));
        assert_eq!(witness.recall(1).await, Err(KeeperError::Unreachable));
        bao.resume();
        assert_eq!(witness.recall(1).await.unwrap(), lines(1..=300), "what was acknowledged is there");
        bao.seal();
        assert_eq!(witness.remember(lines(301..=301)).await, Err(KeeperError::Unreachable));
        bao.unseal();
        let older = bao.snapshot();
        witness.remember(lines(301..=700)).await.unwrap();
        // Another entry was the last one.
        bao.restore(&older);
        assert_eq!(witness.remember(lines(701..=701)).await, Err(KeeperError::Damaged), "a gap");
        assert_eq!(witness.recall(1).await.unwrap(), lines(1..=300));
        witness.remember(lines(1..=701)).await.unwrap();
        assert_eq!(witness.recall(1).await.unwrap(), lines(1..=701));
    });
}
