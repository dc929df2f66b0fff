//! The PKCS#11 keeper on tokens that misbehave, processes that are killed in it, and several at one token.
//!
//! `VAULT_SCHEDULES=20` tries 20 times as many schedules and places to be killed at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::print_stdout, missing_docs, unreachable_pub, dead_code)]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use customer_vault::error::KeeperError;
use customer_vault::keeper::{
    Candidate, ErasureClass, Handover, Held, Keeper, Pkcs11Keeper, Pkcs11Options, RootId, RootKey,
    TokenCopies, TokenPin, TokenSlot, VaultId,
};
use customer_vault::store::{MemoryStore, RedbStore};
use customer_vault::testing::{MemoryKeeper, test_ground, tester, yield_now};
use customer_vault::*;
use pollster::block_on;

#[path = "races/schedule.rs"]
mod schedule;
#[path = "services/softhsm.rs"]
mod softhsm;
#[path = "services/token_vault.rs"]
mod token_vault;
use schedule::{Gate, Manner, Named, Seeded, SimClock, Yielding, run, schedules, task};
use softhsm::{PIN, Tokens, alone, copy};
use token_vault::*;

fn through_shim(tokens: &Tokens) -> Pkcs11Options {
    Pkcs11Options::new(tokens.shim(), TokenSlot::labelled("vault"), || TokenPin::new(PIN.to_owned()))
}

#[test]
fn a_token_that_makes_weaker_keys_than_it_is_asked_for_is_refused() {
    alone("a_token_that_makes_weaker_keys_than_it_is_asked_for_is_refused", &["vault"], |tokens| {
        block_on(async {
            let keeper = Pkcs11Keeper::open(through_shim(tokens)).await.unwrap();
            keeper.bind(vaults()[0]).await.unwrap();
            tokens.plans("C_GenerateKey weak 0");
            assert_eq!(keeper.candidate(0).await.unwrap_err(), KeeperError::Unfit);
            assert_eq!(keeper.held().await.unwrap(), [], "nothing is left of it");
            tokens.plans("");
            keeper.candidate(0).await.unwrap();
        });
    });
}

#[test]
fn a_vault_goes_to_a_token_and_from_one_to_another() {
    alone("a_vault_goes_to_a_token_and_from_one_to_another", &["vault", "next"], |_| {
        block_on(async {
            let (me, why, clock, store) = (tester(), test_ground(), clock(), MemoryStore::new());
            let (first, memory) = (MemoryKeeper::new(), MemoryKeeper::new());
            let vault =
                vault_options(&clock).create(store.clone(), first.clone(), memory.clone()).await.unwrap();
            let alice = id("alice");
            vault.enroll(&alice, [], &me, &why).await.unwrap();
            let hers = sealed(&vault, &alice).await;
            drop(vault);
            let alone =
                async |label| vault_options(&clock).open(store.clone(), opened(label), memory.clone()).await;
            let handover = Handover::new(first, opened("vault"));
            let vault =
                vault_options(&clock).open(store.clone(), handover.clone(), memory.clone()).await.unwrap();
            vault.replace_root(&me, &why).await.unwrap();
            assert_eq!(alone("vault").await.unwrap_err(), KeeperError::HandoverUnderWay.into());
            assert_eq!(vault.settle(&me, &why).await.unwrap().roots, 1);
            drop(vault);
            opens(&alone("vault").await.unwrap(), &alice, &hers).await.unwrap();

            let handover = Handover::new(opened("vault"), opened("next"));
            let vault =
                vault_options(&clock).open(store.clone(), handover.clone(), memory.clone()).await.unwrap();
            vault.replace_root(&me, &why).await.unwrap();
            assert_eq!(alone("next").await.unwrap_err(), KeeperError::HandoverUnderWay.into());
            assert_eq!(vault.settle(&me, &why).await.unwrap().roots, 1);
            assert_eq!(handover.remaining().await, Ok(0));
            drop(vault);
            opens(&alone("next").await.unwrap(), &alice, &hers).await.unwrap();
        });
    });
}

#[test]
fn a_token_that_makes_its_own_initialisation_vectors() {
    alone("a_token_that_makes_its_own_initialisation_vectors", &["vault"], |tokens| {
        block_on(async {
            let keeper = Pkcs11Keeper::open(through_shim(tokens)).await.unwrap();
            keeper.bind(vaults()[0]).await.unwrap();
            tokens.plans("C_Encrypt iv 0");
            let root = keeper.candidate(0).await.unwrap();
            assert_eq!(&root.wrapped[9..21], b"token's own!");
            tokens.plans("");
            let plain = keeper.candidate(0).await.unwrap();
            assert_eq!(plain.wrapped[9..21], [0; 12]);
            for root in [root, plain] {
                let back = keeper.unwrap(root.id, &root.wrapped).await.unwrap();
                assert_eq!(back.expose(), root.key.expose());
            }
        });
    });
}

#[test]
fn hardware_is_what_the_slot_says_and_copies_do_not_contradict() {
    alone("hardware_is_what_the_slot_says_and_copies_do_not_contradict", &["vault"], |tokens| {
        block_on(async {
            tokens.plans("C_GetSlotInfo hardware 0");
            let month = std::time::Duration::from_secs(30 * 86_400);
            let service = ErasureClass::Service { min_delay_s: 0, max_delay_s: 30 * 86_400 };
            for (copies, class) in [
                (TokenCopies::None, ErasureClass::Hardware),
                (TokenCopies::Unknown, ErasureClass::BestEffort),
                (TokenCopies::KeptFor(month), service),
            ] {
                let keeper = Pkcs11Keeper::open(through_shim(tokens).copies(copies)).await.unwrap();
                assert_eq!(keeper.erasure_class(), class);
            }
        });
    });
}

#[test]
fn each_refusal_of_a_token_has_its_error_and_passes() {
    alone("each_refusal_of_a_token_has_its_error_and_passes", &["vault"], |tokens| {
        block_on(async {
            let keeper = Pkcs11Keeper::open(through_shim(tokens)).await.unwrap();
            keeper.bind(vaults()[0]).await.unwrap();
            let root = keeper.candidate(0).await.unwrap();
            keeper.activate(1, root.id).await.unwrap();
            // Device error, memory and removal, token gone, session closed and invalid, logged out, general error.
            for code in ["30", "32", "e0", "b0", "b3", "101", "5"] {
                for function in ["C_FindObjectsInit", "C_FindObjects", "C_GetAttributeValue", "C_DecryptInit"]
                {
                    tokens.plans(&format!("{function} rv {code}"));
                    let refused = if function == "C_DecryptInit" {
                        keeper.unwrap(root.id, &root.wrapped).await.unwrap_err()
                    } else {
                        keeper.held().await.unwrap_err()
                    };
                    let general = function == "C_DecryptInit" && code == "5";
                    let expected = if general { KeeperError::Damaged } else { KeeperError::Unreachable };
                    assert_eq!(refused, expected, "{function} {code}");
                    tokens.plans("");
                    assert!(keeper.unwrap(root.id, &root.wrapped).await.is_ok(), "{function} {code}");
                }
            }
            for (function, code, expected) in [
                ("C_GenerateKey", "31", KeeperError::Full),
                ("C_GenerateKey", "e2", KeeperError::ReadOnly),
                ("C_GenerateKey", "70", KeeperError::Unfit),
                ("C_GenerateKey", "30", KeeperError::Unreachable),
                ("C_EncryptInit", "71", KeeperError::Unfit),
                ("C_EncryptInit", "80000001", KeeperError::Unreachable),
            ] {
                tokens.plans(&format!("{function} rv {code}"));
                assert_eq!(keeper.candidate(1).await.unwrap_err(), expected, "{function} {code}");
                tokens.plans("");
                assert_eq!(keeper.held().await.unwrap().len(), 1, "{function} {code}: nothing is left of it");
            }
            let two = keeper.candidate(1).await.unwrap();
            tokens.plans("C_CreateObject rv 31");
            assert_eq!(keeper.activate(2, two.id).await, Err(KeeperError::Full));
            tokens.plans("C_DestroyObject rv 30");
            assert_eq!(keeper.destroy(two.id).await, Err(KeeperError::Unreachable));
            tokens.plans("C_DestroyObject rv 0");
            assert_eq!(
                keeper.destroy(two.id).await,
                Err(KeeperError::StillUnwraps),
                "it says that it is gone"
            );
            tokens.plans("");
            assert!(keeper.unwrap(two.id, &two.wrapped).await.is_ok());
            keeper.destroy(two.id).await.unwrap();
        });
    });
}

#[test]
fn abuse_28_a_pin_that_was_refused_is_not_tried_again() {
    alone("abuse_28_a_pin_that_was_refused_is_not_tried_again", &["vault"], |tokens| {
        block_on(async {
            let pin = Arc::new(Mutex::new(PIN));
            let given = Arc::clone(&pin);
            let options = Pkcs11Options::new(tokens.shim(), TokenSlot::labelled("vault"), move || {
                TokenPin::new((*given.lock().unwrap()).to_owned())
            });
            let keeper = Pkcs11Keeper::open(options).await.unwrap();
            keeper.bind(vaults()[0]).await.unwrap();
            keeper.candidate(0).await.unwrap();
            // The session is lost, and the PIN was changed meanwhile.
            *pin.lock().unwrap() = "an old pin";
            let logins = tokens.calls("C_Login");
            tokens.plans("C_FindObjectsInit rv b3");
            for _ in 0..5 {
                assert_eq!(keeper.held().await.unwrap_err(), KeeperError::WrongSecret);
            }
            assert_eq!(tokens.calls("C_Login"), logins + 1);
            tokens.plans("");
            assert_eq!(keeper.candidate(0).await.unwrap_err(), KeeperError::WrongSecret);
            *pin.lock().unwrap() = "another old pin";
            assert_eq!(keeper.candidate(0).await.unwrap_err(), KeeperError::WrongSecret);
            assert_eq!(keeper.candidate(0).await.unwrap_err(), KeeperError::WrongSecret);
            assert_eq!(tokens.calls("C_Login"), logins + 2);
            *pin.lock().unwrap() = PIN;
            assert_eq!(keeper.held().await.unwrap().len(), 1);
            drop(keeper);

            for (code, expected) in [("a4", KeeperError::Refused), ("a3", KeeperError::Refused)] {
                tokens.plans(&format!("C_FindObjectsInit rv b3\nC_Login rv {code}"));
                let keeper = Pkcs11Keeper::open(through_shim(tokens)).await;
                // The last keeper's thread may still be logged in.
                let refused = match keeper {
                    Ok(keeper) => keeper.bind(vaults()[0]).await.unwrap_err(),
                    Err(Error::Keeper(why)) => why,
                    Err(why) => panic!("{why:?}"),
                };
                assert_eq!(refused, expected, "locked, and expired");
            }
        });
    });
}

/// Where a life that may be killed has its files.
fn base(tokens: &Tokens) -> [std::path::PathBuf; 2] {
    [tokens.dir.join("life"), tokens.dir.join("life-before")]
}

/// Run in a process that is killed somewhere: opens the vault, forgets, shreds, settles. Each may be done already.
#[test]
#[ignore = "what another test runs in processes of its own"]
fn a_life_that_may_be_killed() {
    let Some(tokens) = Tokens::here() else { return };
    block_on(async {
        let (me, why, [life, _]) = (tester(), test_ground(), base(&tokens));
        let keeper = Pkcs11Keeper::open(through_shim(&tokens)).await.unwrap();
        let store = RedbStore::open(life.join("db")).unwrap();
        let vault = vault_options(&clock()).open(store, keeper, witness(&life, false)).await.unwrap();
        match vault.forget(&id("alice"), Forget::by(&me, &why).without_grace()).await {
            Ok(_) | Err(Error::Erased(_)) => {}
            Err(why) => panic!("{why:?}"),
        }
        vault.shred(&me, &why).await.unwrap();
        vault.settle(&me, &why).await.unwrap();
        println!("lived to the end");
    });
}

#[test]
fn abuse_35_a_process_that_is_killed_before_any_call_at_the_token_is_finished_by_the_next() {
    let name = "abuse_35_a_process_that_is_killed_before_any_call_at_the_token_is_finished_by_the_next";
    alone(name, &["vault"], |tokens| {
        tokens.shim();
        tokens.plans("");
        let (me, why, [life, before]) = (tester(), test_ground(), base(tokens));
        let (folder, token) = (tokens.folders()[0].clone(), tokens.dir.join("token-before"));
        std::fs::create_dir_all(&life).unwrap();
        let (his, vault_id) = block_on(async {
            let store = RedbStore::create(life.join("db")).unwrap();
            let keeper = Pkcs11Keeper::open(options("vault")).await.unwrap();
            let vault = vault_options(&clock()).create(store, keeper, witness(&life, true)).await.unwrap();
            for who in [&id("alice"), &id("bob")] {
                vault.enroll(who, [], &me, &why).await.unwrap();
            }
            (sealed(&vault, &id("bob")).await, vault.id())
        });
        copy(&life, &before);
        copy(&folder, &token);
        let lives = || {
            let mut child = tokens.command(std::env::current_exe().unwrap());
            let out =
                child.args(["a_life_that_may_be_killed", "--exact", "--nocapture", "--ignored"]).output();
            let out = out.unwrap();
            assert!(
                out.status.success() || out.status.code() == Some(9),
                "{}",
                String::from_utf8_lossy(&out.stderr)
            );
            String::from_utf8_lossy(&out.stdout).contains("lived to the end")
        };
        // How many calls there are; then a place in each part of them.
        let calls = || std::fs::read_to_string(tokens.dir.join("calls")).unwrap_or_default().lines().count();
        let since = calls();
        assert!(lives());
        let all = calls() - since;
        let places = usize::try_from(schedules(24)).unwrap().min(all);
        for place in 0..places {
            let at = 1 + place * all / places;
            copy(&before, &life);
            copy(&token, &folder);
            tokens.plans(&format!("* exit {at:x}"));
            assert!(!lives(), "killed before call {at} of {all}");
            tokens.plans("");
            assert!(lives(), "killed before call {at} of {all}");
            // Seen by a process that starts now.
            let sees = tokens
                .command(std::env::current_exe().unwrap())
                .args(["what_a_life_has_left", "--exact", "--nocapture", "--ignored"])
                .env("LEFT_VAULT", vault_id.to_string())
                .env("LEFT_SEALED", serde_json::to_string(&his).unwrap())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&sees.stderr);
            assert!(sees.status.success(), "killed before call {at} of {all}: {said}");
        }
        println!("killed before {places} of {all} calls");
    });
}

/// One root, one mark, and the data of who was not forgotten.
#[test]
#[ignore = "what another test runs in processes of its own"]
fn what_a_life_has_left() {
    let Some(tokens) = Tokens::here() else { return };
    block_on(async {
        let [life, _] = base(&tokens);
        let keeper = opened("vault");
        let store = RedbStore::open(life.join("db")).unwrap();
        let vault = vault_options(&clock()).open(store, keeper.clone(), witness(&life, false)).await.unwrap();
        assert_eq!(std::env::var("LEFT_VAULT").unwrap(), vault.id().to_string());
        let held = keeper.held().await.unwrap();
        assert_eq!(held.len(), 1, "{held:?}");
        assert!(held[0].activated);
        let his: SealedParcel = serde_json::from_str(&std::env::var("LEFT_SEALED").unwrap()).unwrap();
        opens(&vault, &id("bob"), &his).await.unwrap();
        assert!(vault.verify_log().await.unwrap().holds());
        let objects = std::fs::read_dir(&tokens.folders()[0]).unwrap();
        let names = objects.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let ours = names.filter(|name| name.ends_with(".object") && name != "token.object").count();
        assert_eq!(ours, 2, "a key and its mark");
    });
}

/// A keeper that lets others go first, before and after each of its calls.
#[derive(Clone, Debug)]
struct Paced {
    keeper: Pkcs11Keeper,
    racing: Arc<AtomicBool>,
}

impl Paced {
    async fn around<T: Send>(&self, act: impl Future<Output = T> + Send) -> T {
        let racing = self.racing.load(Ordering::SeqCst);
        if racing {
            yield_now().await;
        }
        // Its own thread does it: nobody else goes on meanwhile, so that a schedule is the same each time.
        let done = block_on(act);
        if racing {
            yield_now().await;
        }
        done
    }
}

impl Keeper for Paced {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.around(self.keeper.bind(vault)).await
    }
    async fn candidate(&self, epoch: u64) -> Result<Candidate, KeeperError> {
        self.around(self.keeper.candidate(epoch)).await
    }
    async fn activate(&self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        self.around(self.keeper.activate(epoch, id)).await
    }
    async fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        self.around(self.keeper.unwrap(id, wrapped)).await
    }
    async fn destroy(&self, id: RootId) -> Result<(), KeeperError> {
        self.around(self.keeper.destroy(id)).await
    }
    async fn held(&self) -> Result<Vec<Held>, KeeperError> {
        self.around(self.keeper.held()).await
    }
    fn erasure_class(&self) -> ErasureClass {
        self.keeper.erasure_class()
    }
}

#[test]
fn abuse_35_two_sessions_replace_the_root_at_once_with_either_killed_or_paused_anywhere() {
    let name = "abuse_35_two_sessions_replace_the_root_at_once_with_either_killed_or_paused_anywhere";
    alone(name, &["vault"], |_| {
        let (me, why) = (tester(), test_ground());
        let racing = Arc::new(AtomicBool::new(false));
        let paced = || Paced { keeper: opened("vault"), racing: Arc::clone(&racing) };
        let mut killed = 0;
        for seed in 0..schedules(40) {
            let _named = Named(seed);
            racing.store(false, Ordering::SeqCst);
            let gate = Gate::default();
            let out_of_reach = Arc::new(AtomicBool::new(false));
            let inner = MemoryStore::shared_between_handles();
            let store = Yielding { store: inner, gate: gate.clone(), manner: Manner::Around, out_of_reach };
            let (memory, clock) = (MemoryKeeper::new(), SimClock::at(Day::from_ymd(2026, 1, 5).unwrap()));
            let opened = || {
                let at_once = RestoreWindow::none_every_older_backup_of_the_keys_dies_at_once();
                Options::new()
                    .record::<Parcel>()
                    .settings(Settings::default().restore_window(at_once))
                    .clock(clock.clone())
            };
            let one =
                schedule::alone(&clock, opened().create(store.clone(), paced(), memory.clone())).unwrap();
            let two = schedule::alone(&clock, opened().open(store.clone(), paced(), memory.clone())).unwrap();
            let (hers, his) = schedule::alone(&clock, async {
                for who in ["alice", "bob"] {
                    one.enroll(&id(who), [], &me, &why).await.unwrap();
                }
                let hers = sealed(&one, &id("alice")).await;
                one.forget(&id("alice"), Forget::by(&me, &why).without_grace()).await.unwrap();
                (hers, sealed(&one, &id("bob")).await)
            });
            clock.advance_days(2);
            let through = async |vault: &Vault| {
                for step in 0..3 {
                    for _ in 0..50 {
                        let done = match step {
                            0 => vault.shred(&me, &why).await.map(|_| ()),
                            1 => vault.expire(&me, &why).await.map(|_| ()),
                            _ => vault.settle(&me, &why).await.map(|_| ()),
                        };
                        match done {
                            Err(Error::Busy) => {}
                            done => {
                                done.unwrap();
                                break;
                            }
                        }
                    }
                }
            };
            gate.open(true);
            racing.store(true, Ordering::SeqCst);
            let mut dice = Seeded::with_drift(seed, 300);
            let first = match seed % 3 {
                0 => task(through(&one)),
                1 => task(through(&one)).killed_after(1 + dice.below(150)),
                _ => task(through(&one)).paused_after(1 + dice.below(150)),
            };
            killed += run(vec![first, task(through(&two))], &clock, &mut dice).killed;
            gate.open(false);
            racing.store(false, Ordering::SeqCst);

            schedule::alone(&clock, async {
                let last = opened().open(store.clone(), paced(), memory.clone()).await.unwrap();
                through(&last).await;
                for vault in [&two, &last] {
                    opens(vault, &id("bob"), &his).await.unwrap();
                    assert!(opens(vault, &id("alice"), &hers).await.is_err());
                }
                let held = block_on(bound("vault", last.id()).held()).unwrap();
                let (roots, candidates): (Vec<Held>, Vec<Held>) =
                    held.into_iter().partition(|root| root.activated);
                assert_eq!(roots.len(), 1, "one root is left: {roots:?}");
                // Of whoever was killed, until the root is replaced again.
                assert!(candidates.iter().all(|root| root.epoch == roots[0].epoch), "{candidates:?}");
                assert!(last.verify_log().await.unwrap().holds());
            });
        }
        assert!(killed > 0, "somebody was killed");
    });
}

#[test]
fn several_sessions_at_one_token_lose_nothing_of_each_other() {
    alone("several_sessions_at_one_token_lose_nothing_of_each_other", &["vault"], |_| {
        let vault = vaults()[0];
        let works = |first: u64| {
            let keeper = bound("vault", vault);
            block_on(async {
                for epoch in (first..first + 30).step_by(3) {
                    let root = keeper.candidate(epoch).await.unwrap();
                    let back = keeper.unwrap(root.id, &root.wrapped).await.unwrap();
                    assert_eq!(back.expose(), root.key.expose());
                    keeper.activate(epoch + 1, root.id).await.unwrap();
                    keeper.activate(epoch + 1, root.id).await.unwrap();
                    assert!(keeper.held().await.unwrap().iter().any(|held| held.id == root.id));
                    let lost = keeper.candidate(epoch).await.unwrap();
                    keeper.destroy(lost.id).await.unwrap();
                    let gone = keeper.unwrap(lost.id, &lost.wrapped).await.unwrap_err();
                    assert_eq!(gone, KeeperError::NoSuchRoot);
                }
            });
        };
        std::thread::scope(|threads| {
            for first in 0..3 {
                threads.spawn(move || works(first));
            }
        });
        block_on(async {
            let held = bound("vault", vault).held().await.unwrap();
            assert_eq!(held.len(), 30);
            let newest = held.iter().filter(|root| root.activated).max_by_key(|root| root.epoch).unwrap();
            assert_eq!(newest.epoch, 30, "whoever was last, it never goes backwards");
        });
    });
}
