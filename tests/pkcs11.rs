//! The PKCS#11 keeper on a real SoftHSM: each test in a process of its own, with tokens of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::print_stdout, missing_docs, unreachable_pub, dead_code)]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cryptoki::context::Pkcs11;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::Session;
use customer_vault::error::{KeeperError, RolledBack};
use customer_vault::keeper::{
    ErasureClass, Held, Keeper, Pkcs11Keeper, Pkcs11Options, Serves, TokenCopies, TokenPin, TokenSlot,
};
use customer_vault::store::{MemoryStore, RedbStore};
use customer_vault::testing::{MemoryKeeper, test_ground, tester};
use customer_vault::witness::NoWitness;
use customer_vault::*;
use pollster::block_on;

#[path = "services/softhsm.rs"]
mod softhsm;
#[path = "services/token_vault.rs"]
mod token_vault;
use softhsm::{PIN, alone, copy, module};
use token_vault::*;

#[test]
fn the_port_on_a_token() {
    alone("the_port_on_a_token", &["vault"], |_| {
        block_on(async {
            let keeper = opened("vault");
            assert_eq!(keeper.candidate(0).await.unwrap_err(), KeeperError::Missing, "bound to nothing yet");
            let [vault, another] = vaults();
            keeper.bind(vault).await.unwrap();
            keeper.bind(vault).await.unwrap();
            assert_eq!(keeper.bind(another).await, Err(KeeperError::Foreign));

            let (one, two) = (keeper.candidate(0).await.unwrap(), keeper.candidate(1).await.unwrap());
            assert_eq!(one.wrapped.len(), 69);
            let back = keeper.unwrap(one.id, &one.wrapped).await.unwrap();
            assert_eq!(back.expose(), one.key.expose());
            assert_eq!(keeper.held().await.unwrap().len(), 2);
            keeper.activate(1, one.id).await.unwrap();
            keeper.activate(1, one.id).await.unwrap();
            assert_eq!(keeper.destroy(one.id).await, Err(KeeperError::Locked), "the active one");
            keeper.activate(2, two.id).await.unwrap();
            keeper.activate(1, one.id).await.unwrap();
            assert_eq!(keeper.destroy(two.id).await, Err(KeeperError::Locked), "never backwards");
            let mut held = keeper.held().await.unwrap();
            held.sort_by_key(|held| held.epoch);
            assert_eq!(held[0], Held { id: one.id, epoch: 1, activated: true });
            assert_eq!(held[1], Held { id: two.id, epoch: 2, activated: true });
            keeper.destroy(one.id).await.unwrap();
            keeper.destroy(one.id).await.unwrap();
            for wrapped in [one.wrapped.as_slice(), &[], &two.wrapped] {
                assert_eq!(keeper.unwrap(one.id, wrapped).await.unwrap_err(), KeeperError::NoSuchRoot);
            }
            assert_eq!(keeper.activate(3, one.id).await, Err(KeeperError::NoSuchRoot));
            assert_eq!(keeper.held().await.unwrap(), [Held { id: two.id, epoch: 2, activated: true }]);
            assert_eq!(keeper.erasure_class(), ErasureClass::BestEffort, "it is software");
            assert_eq!(keeper.serves(), Serves::OneHost);
        });
    });
}

#[test]
fn abuse_07_an_altered_wrapped_root_does_not_open() {
    alone("abuse_07_an_altered_wrapped_root_does_not_open", &["vault"], |_| {
        block_on(async {
            let keeper = bound("vault", vaults()[0]);
            let (root, other) = (keeper.candidate(0).await.unwrap(), keeper.candidate(0).await.unwrap());
            let damaged = async |bytes: &[u8]| {
                assert_eq!(keeper.unwrap(root.id, bytes).await.unwrap_err(), KeeperError::Damaged);
            };
            for at in 0..root.wrapped.len() {
                damaged(&root.wrapped[..at]).await;
                for bit in 0..8 {
                    let mut bytes = root.wrapped.clone();
                    bytes[at] ^= 1 << bit;
                    damaged(&bytes).await;
                }
            }
            for more in 1..=64 {
                damaged(&[root.wrapped.as_slice(), &vec![0; more]].concat()).await;
            }
            damaged(&other.wrapped).await;
            assert!(keeper.unwrap(root.id, &root.wrapped).await.is_ok());
        });
    });
}

#[test]
fn abuse_04_05_a_whole_life_and_no_copy_from_before_a_destroyed_object_opens() {
    alone(
        "abuse_04_05_a_whole_life_and_no_copy_from_before_a_destroyed_object_opens",
        &["vault"],
        |tokens| {
            block_on(async {
                let (me, why, clock) = (tester(), test_ground(), clock());
                let (alice, bob) = (id("alice"), id("bob"));
                let (path, before, fenced) =
                    (tokens.dir.join("db"), tokens.dir.join("before"), tokens.dir.join("fenced"));
                let open = async |path: &Path, memory: bool| {
                    let store = RedbStore::open(path).unwrap();
                    if memory {
                        vault_options(&clock).open(store, opened("vault"), witness(&tokens.dir, false)).await
                    } else {
                        vault_options(&clock).open(store, opened("vault"), NoWitness::new()).await
                    }
                };
                let store = RedbStore::create(&path).unwrap();
                let vault = vault_options(&clock)
                    .create(store, opened("vault"), witness(&tokens.dir, true))
                    .await
                    .unwrap();
                for who in [&alice, &bob] {
                    vault.enroll(who, [], &me, &why).await.unwrap();
                }
                let (hers, his) = (sealed(&vault, &alice).await, sealed(&vault, &bob).await);
                opens(&vault, &alice, &hers).await.unwrap();
                drop(vault);
                std::fs::copy(&path, &before).unwrap();

                let vault = open(&path, true).await.unwrap();
                let forget = Forget::by(&me, &why).without_grace();
                let reference = vault.forget(&alice, forget).await.unwrap().reference;
                drop(vault);
                std::fs::copy(&path, &fenced).unwrap();
                // The witness remembers; and what it remembers is done again.
                assert_eq!(open(&before, true).await.unwrap_err(), Error::RolledBack(RolledBack::Store));
                let vault = open(&path, true).await.unwrap();
                assert_eq!(vault.shred(&me, &why).await.unwrap().subjects, 1);
                let settled = vault.settle(&me, &why).await.unwrap();
                assert_eq!(settled.roots, 1);
                let certificate = vault.certificate(&reference).await.unwrap().unwrap();
                assert!(certificate.as_str().contains("keeper: best-effort"), "{}", certificate.as_str());
                assert!(opens(&vault, &alice, &hers).await.is_err());
                opens(&vault, &bob, &his).await.unwrap();
                drop(vault);

                for old in [&before, &fenced] {
                    let with = open(old, true).await.unwrap_err();
                    assert!(
                        matches!(with, Error::RolledBack(RolledBack::Store | RolledBack::Gone)),
                        "{with:?}"
                    );
                    assert_eq!(open(old, false).await.unwrap_err(), Error::RolledBack(RolledBack::Gone));
                    let store = RedbStore::open(old).unwrap();
                    let again = vault_options(&clock);
                    let recovered =
                        again.recover(store, opened("vault"), witness(&tokens.dir, false), &me, &why).await;
                    assert_eq!(recovered.unwrap_err(), Error::RolledBack(RolledBack::Gone));
                }
                opens(&open(&path, true).await.unwrap(), &bob, &his).await.unwrap();
            });
        },
    );
}

#[test]
fn abuse_04_an_older_copy_is_recovered_while_its_object_is_there() {
    alone("abuse_04_an_older_copy_is_recovered_while_its_object_is_there", &["vault"], |_| {
        block_on(async {
            let (me, why, clock, store) = (tester(), test_ground(), clock(), MemoryStore::new());
            let (alice, bob, memory) = (id("alice"), id("bob"), MemoryKeeper::new());
            let vault =
                vault_options(&clock).create(store.clone(), opened("vault"), memory.clone()).await.unwrap();
            for who in [&alice, &bob] {
                vault.enroll(who, [], &me, &why).await.unwrap();
            }
            let (hers, his) = (sealed(&vault, &alice).await, sealed(&vault, &bob).await);
            let before = store.snapshot();
            vault.forget(&alice, Forget::by(&me, &why).without_grace()).await.unwrap();
            vault.shred(&me, &why).await.unwrap();
            drop(vault);
            let refused =
                vault_options(&clock).open(before.snapshot(), opened("vault"), memory.clone()).await;
            assert_eq!(refused.unwrap_err(), Error::RolledBack(RolledBack::Store));
            let again =
                vault_options(&clock).recover(before.clone(), opened("vault"), memory.clone(), &me, &why);
            let vault = again.await.unwrap();
            assert!(opens(&vault, &alice, &hers).await.is_err());
            opens(&vault, &bob, &his).await.unwrap();
            // It is the newest now: its epoch is beyond all that the token has shown.
            drop(vault);
            let vault = vault_options(&clock).open(before, opened("vault"), memory.clone()).await.unwrap();
            vault.settle(&me, &why).await.unwrap();
            let other = vault_options(&clock).open(store, opened("vault"), memory).await.unwrap_err();
            assert!(matches!(other, Error::RolledBack(_)), "{other:?}");
        });
    });
}

#[test]
fn an_older_copy_of_the_token_is_told_from_the_newest() {
    alone("an_older_copy_of_the_token_is_told_from_the_newest", &["vault"], |tokens| {
        block_on(async {
            let (me, why, clock, store) = (tester(), test_ground(), clock(), MemoryStore::new());
            let memory = MemoryKeeper::new();
            let vault =
                vault_options(&clock).create(store.clone(), opened("vault"), memory.clone()).await.unwrap();
            let folder = tokens.folders()[0].clone();
            let (old, new) = (tokens.dir.join("old"), tokens.dir.join("new"));
            copy(&folder, &old);
            vault.enroll(&id("alice"), [], &me, &why).await.unwrap();
            vault.forget(&id("alice"), Forget::by(&me, &why).without_grace()).await.unwrap();
            vault.shred(&me, &why).await.unwrap();
            // In the place of the newest while the vault is open, and afterwards.
            std::fs::rename(&folder, &new).unwrap();
            copy(&old, &folder);
            let settled = vault.settle(&me, &why).await.unwrap_err();
            assert!(
                matches!(settled, Error::Keeper(KeeperError::Damaged | KeeperError::Unreachable)),
                "{settled:?}"
            );
            drop(vault);
            let reopened = vault_options(&clock).open(store.clone(), opened("vault"), memory.clone()).await;
            assert_eq!(reopened.unwrap_err(), Error::RolledBack(RolledBack::Keeper));
            drop(std::fs::remove_dir_all(&folder));
            std::fs::rename(&new, &folder).unwrap();
            // A keeper that has seen the older copy goes on with the newer one.
            let vault = vault_options(&clock).open(store, opened("vault"), memory).await.unwrap();
            assert_eq!(vault.settle(&me, &why).await.unwrap().roots, 1);
        });
    });
}

#[test]
fn a_token_that_is_removed_in_the_middle_works_again_when_it_is_back() {
    alone("a_token_that_is_removed_in_the_middle_works_again_when_it_is_back", &["one", "two"], |tokens| {
        block_on(async {
            let [vault, another] = vaults();
            let asked = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&asked);
            let options = Pkcs11Options::new(module().unwrap(), TokenSlot::labelled("one"), move || {
                count.fetch_add(1, Ordering::SeqCst);
                TokenPin::new(PIN.to_owned())
            });
            let keeper = Pkcs11Keeper::open(options).await.unwrap();
            keeper.bind(vault).await.unwrap();
            let other = bound("two", another);
            let one = keeper.candidate(0).await.unwrap();
            keeper.activate(1, one.id).await.unwrap();
            let two = keeper.candidate(1).await.unwrap();
            let its = other.candidate(0).await.unwrap();
            other.activate(1, its.id).await.unwrap();

            let folder = tokens.folders().into_iter().find(|folder| objects(folder) == 3).unwrap();
            for round in 1..=2 {
                let away = tokens.dir.join("away");
                std::fs::rename(&folder, &away).unwrap();
                let away_now = Err(KeeperError::Unreachable);
                assert_eq!(keeper.destroy(two.id).await, away_now, "what is not seen is not destroyed");
                assert_eq!(keeper.held().await.unwrap_err(), KeeperError::Unreachable);
                let unwrapped = keeper.unwrap(two.id, &two.wrapped).await;
                assert_eq!(unwrapped.unwrap_err(), KeeperError::Unreachable);
                assert_eq!(keeper.candidate(1).await.unwrap_err(), KeeperError::Unreachable);
                assert_eq!(keeper.activate(2, two.id).await, away_now);
                let late = Pkcs11Keeper::open(self::options("one")).await.unwrap_err();
                assert_eq!(late, Error::Keeper(KeeperError::Missing));
                assert!(other.unwrap(its.id, &its.wrapped).await.is_ok(), "the other token goes on");
                assert_eq!(asked.load(Ordering::SeqCst), round, "nobody is asked for a PIN that is no use");

                std::fs::rename(&away, &folder).unwrap();
                assert_eq!(keeper.held().await.unwrap().len(), 2);
                assert!(keeper.unwrap(two.id, &two.wrapped).await.is_ok());
                assert!(other.unwrap(its.id, &its.wrapped).await.is_ok());
                assert_eq!(asked.load(Ordering::SeqCst), round + 1);
            }
        });
    });
}

/// How many objects are in a token's folder.
fn objects(folder: &Path) -> usize {
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".object") && name != "token.object").count()
}

#[test]
fn a_vault_stands_a_token_that_is_away() {
    alone("a_vault_stands_a_token_that_is_away", &["vault"], |tokens| {
        block_on(async {
            let (me, why, clock, store) = (tester(), test_ground(), clock(), MemoryStore::new());
            let memory = MemoryKeeper::new();
            let vault =
                vault_options(&clock).create(store.clone(), opened("vault"), memory.clone()).await.unwrap();
            let (alice, bob) = (id("alice"), id("bob"));
            for who in [&alice, &bob] {
                vault.enroll(who, [], &me, &why).await.unwrap();
            }
            let (hers, his) = (sealed(&vault, &alice).await, sealed(&vault, &bob).await);
            vault.forget(&alice, Forget::by(&me, &why).without_grace()).await.unwrap();
            let (folder, away) = (tokens.folders()[0].clone(), tokens.dir.join("away"));
            std::fs::rename(&folder, &away).unwrap();
            assert_eq!(vault.shred(&me, &why).await.unwrap_err(), Error::Keeper(KeeperError::Unreachable));
            opens(&vault, &bob, &his).await.expect("reading goes on with the root in memory");
            std::fs::rename(&away, &folder).unwrap();
            vault.shred(&me, &why).await.unwrap();
            std::fs::rename(&folder, &away).unwrap();
            let settled = vault.settle(&me, &why).await.unwrap_err();
            assert_eq!(
                settled,
                Error::Keeper(KeeperError::Unreachable),
                "no certificate for what nobody saw"
            );
            std::fs::rename(&away, &folder).unwrap();
            let settled = vault.settle(&me, &why).await.unwrap();
            assert_eq!((settled.roots, settled.certificates.len()), (1, 1));
            assert!(opens(&vault, &alice, &hers).await.is_err());
            opens(&vault, &bob, &his).await.unwrap();
        });
    });
}

/// Somebody else at the token.
fn beside(label: &str) -> Session {
    let library = Pkcs11::new(module().unwrap()).unwrap();
    let slots = library.get_slots_with_initialized_token().unwrap();
    let slot =
        slots.into_iter().find(|slot| library.get_token_info(*slot).unwrap().label() == label).unwrap();
    library.open_rw_session(slot).unwrap()
}

#[test]
fn an_object_that_somebody_else_deletes_is_a_root_that_is_gone() {
    alone("an_object_that_somebody_else_deletes_is_a_root_that_is_gone", &["vault"], |_| {
        block_on(async {
            let (clock, store, memory) = (clock(), MemoryStore::new(), MemoryKeeper::new());
            let vault =
                vault_options(&clock).create(store.clone(), opened("vault"), memory.clone()).await.unwrap();
            let keeper = bound("vault", vault.id());
            drop(vault);
            let spare = keeper.candidate(7).await.unwrap();
            let others = beside("vault");
            for key in others.find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY)]).unwrap() {
                others.destroy_object(key).unwrap();
            }
            assert_eq!(keeper.unwrap(spare.id, &spare.wrapped).await.unwrap_err(), KeeperError::NoSuchRoot);
            assert_eq!(keeper.held().await.unwrap(), []);
            assert_eq!(keeper.activate(9, spare.id).await, Err(KeeperError::NoSuchRoot));
            keeper.destroy(spare.id).await.unwrap();
            let reopened = vault_options(&clock).open(store, keeper, memory).await;
            assert_eq!(reopened.unwrap_err(), Error::RolledBack(RolledBack::Keeper));
        });
    });
}

#[test]
fn vaults_on_one_token_do_not_see_each_other() {
    alone("vaults_on_one_token_do_not_see_each_other", &["vault", "other"], |_| {
        block_on(async {
            let (me, why, clock) = (tester(), test_ground(), clock());
            let (stores, memories) =
                ([MemoryStore::new(), MemoryStore::new()], [MemoryKeeper::new(), MemoryKeeper::new()]);
            let mut vaults = Vec::new();
            for (store, memory) in stores.iter().zip(&memories) {
                let made = vault_options(&clock).create(store.clone(), opened("vault"), memory.clone()).await;
                vaults.push(made.unwrap());
            }
            for vault in &vaults {
                vault.enroll(&id("alice"), [], &me, &why).await.unwrap();
                vault.forget(&id("alice"), Forget::by(&me, &why).without_grace()).await.unwrap();
                vault.shred(&me, &why).await.unwrap();
                assert_eq!(vault.settle(&me, &why).await.unwrap().roots, 1);
            }
            let mut held = Vec::new();
            for vault in &vaults {
                let its = bound("vault", vault.id()).held().await.unwrap();
                assert_eq!(its.len(), 1, "its own and no other");
                held.extend(its);
            }
            assert_ne!(held[0].id, held[1].id);
            // One vault's keeper under the other's store.
            let its = bound("vault", vaults[0].id());
            let refused = vault_options(&clock).open(stores[1].clone(), its, memories[1].clone()).await;
            assert_eq!(refused.unwrap_err(), Error::Keeper(KeeperError::Foreign));
            // Another token, and another prefix, which have nothing of it.
            let prefix = Pkcs11Keeper::open(options("vault").label_prefix("another")).await.unwrap();
            for keeper in [opened("other"), prefix] {
                let refused =
                    vault_options(&clock).open(stores[1].clone(), keeper, memories[1].clone()).await;
                assert_eq!(refused.unwrap_err(), Error::RolledBack(RolledBack::Keeper));
            }
        });
    });
}

#[test]
fn abuse_28_a_wrong_pin_is_tried_once() {
    alone("abuse_28_a_wrong_pin_is_tried_once", &["vault"], |_| {
        block_on(async {
            let opened = async |pin: &'static str| {
                let options =
                    Pkcs11Options::new(module().unwrap(), TokenSlot::labelled("vault"), move || {
                        TokenPin::new(pin.to_owned())
                    });
                Pkcs11Keeper::open(options).await
            };
            let unset = Pkcs11Options::new(module().unwrap(), TokenSlot::labelled("vault"), || {
                TokenPin::from_env("CUSTOMER_VAULT_NO_SUCH_PIN")
            });
            assert_eq!(format!("{unset:?}").matches(PIN).count(), 0);
            assert_eq!(Pkcs11Keeper::open(unset).await.unwrap_err(), Error::Keeper(KeeperError::NotSet));
            assert_eq!(opened("no such pin").await.unwrap_err(), Error::Keeper(KeeperError::WrongSecret));
            assert_eq!(opened("").await.unwrap_err(), Error::Keeper(KeeperError::WrongSecret));
            assert!(opened(PIN).await.is_ok());
        });
    });
}

#[test]
fn what_cannot_be_found_is_said_so() {
    alone("what_cannot_be_found_is_said_so", &["vault", "twice", "twice"], |tokens| {
        block_on(async {
            let open = async |module: &Path, slot: TokenSlot| {
                let options = Pkcs11Options::new(module, slot, || TokenPin::new(PIN.to_owned()));
                Pkcs11Keeper::open(options).await.map(|_| ())
            };
            let module = module().unwrap();
            let missing = Err(Error::Keeper(KeeperError::Missing));
            for label in ["", "Vault", "vault ", "twice", "no such token"] {
                assert_eq!(open(&module, TokenSlot::labelled(label)).await, missing, "{label}");
            }
            let no_library = tokens.dir.join("softhsm2.conf");
            for path in [Path::new("/no/such/module.so"), &no_library] {
                assert_eq!(open(path, TokenSlot::labelled("vault")).await, missing);
            }
            let bad = options("vault").label_prefix("line\nbreak");
            assert_eq!(Pkcs11Keeper::open(bad).await.unwrap_err(), Error::Misuse(error::Misuse::Setting));

            let library = Pkcs11::new(&module).unwrap();
            let slots = library.get_slots_with_initialized_token().unwrap();
            let info = slots.iter().map(|slot| (slot.id(), library.get_token_info(*slot).unwrap()));
            let (number, token) = info.into_iter().find(|(_, token)| token.label() == "vault").unwrap();
            assert_eq!(open(&module, TokenSlot::with_serial(token.serial_number())).await, Ok(()));
            assert_eq!(open(&module, TokenSlot::with_id(number)).await, Ok(()));
            assert_eq!(open(&module, TokenSlot::with_serial("0")).await, missing);
        });
    });
}

#[test]
fn copies_decide_what_destruction_is_worth() {
    alone("copies_decide_what_destruction_is_worth", &["vault"], |_| {
        block_on(async {
            let month = std::time::Duration::from_secs(30 * 86_400);
            for (copies, class) in [
                (TokenCopies::None, ErasureClass::BestEffort),
                (TokenCopies::Unknown, ErasureClass::BestEffort),
                (
                    TokenCopies::KeptFor(month),
                    ErasureClass::Service { min_delay_s: 0, max_delay_s: 30 * 86_400 },
                ),
            ] {
                let keeper = Pkcs11Keeper::open(options("vault").copies(copies)).await.unwrap();
                assert_eq!(keeper.erasure_class(), class);
            }
            let keeper = Pkcs11Keeper::open(options("vault").many_hosts()).await.unwrap();
            assert_eq!(keeper.serves(), Serves::ManyHosts);
        });
    });
}

#[test]
fn hundreds_of_keys_are_told_apart() {
    alone("hundreds_of_keys_are_told_apart", &["vault"], |_| {
        block_on(async {
            let [vault, another] = vaults();
            let (ours, theirs) = (bound("vault", vault), bound("vault", another));
            let mut roots = Vec::new();
            for epoch in 0..200 {
                roots.push(ours.candidate(epoch).await.unwrap());
                theirs.candidate(epoch).await.unwrap();
            }
            ours.activate(200, roots[199].id).await.unwrap();
            let held = ours.held().await.unwrap();
            assert_eq!(held.len(), 200);
            assert_eq!(held.iter().filter(|root| root.activated).count(), 1);
            for root in &roots[..20] {
                let back = ours.unwrap(root.id, &root.wrapped).await.unwrap();
                assert_eq!(back.expose(), root.key.expose());
            }
            for root in &roots[..5] {
                ours.destroy(root.id).await.unwrap();
                assert_eq!(ours.unwrap(root.id, &root.wrapped).await.unwrap_err(), KeeperError::NoSuchRoot);
            }
            assert_eq!(ours.destroy(roots[199].id).await, Err(KeeperError::Locked));
            assert_eq!(ours.held().await.unwrap().len(), 195);
            assert_eq!(theirs.held().await.unwrap().len(), 200);
        });
    });
}
