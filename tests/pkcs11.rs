//! The PKCS#11 keeper on a real SoftHSM: each test in a process of its own, with tokens of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::print_stdout, missing_docs, unreachable_pub, dead_code)]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use customer_vault::error::KeeperError;
use customer_vault::keeper::{
    Argon2Cost, ErasureClass, FileKeeper, FileSecret, Held, Keeper, Passphrase, Pkcs11Keeper, Pkcs11Options,
    Serves, TokenCopies, TokenPin, TokenSlot, VaultId,
};
use customer_vault::store::{MemoryStore, RedbStore};
use customer_vault::testing::{ManualClock, ephemeral, grant, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::*;
use pollster::block_on;

#[path = "services/softhsm.rs"]
mod softhsm;
use softhsm::{PIN, Tokens, alone, copy, module};

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
}

record! {
    /// One parcel.
    pub struct Parcel[u64] / SealedParcel / ParcelView in parcel = "parcel" {
        /// To whom it goes.
        pub name: PersonName = 1 "name", basic, for [Shipping: 30 days];
    }
}

fn options(label: &str) -> Pkcs11Options {
    Pkcs11Options::new(module().unwrap(), TokenSlot::labelled(label), || TokenPin::new(PIN.to_owned()))
}

fn opened(label: &str) -> Pkcs11Keeper {
    block_on(Pkcs11Keeper::open(options(label))).unwrap()
}

/// Vaults' names.
fn vaults() -> [VaultId; 2] {
    let id = || block_on(ephemeral(Options::new())).unwrap().id();
    [id(), id()]
}

fn bound(label: &str, vault: VaultId) -> Pkcs11Keeper {
    let keeper = opened(label);
    block_on(keeper.bind(vault)).unwrap();
    keeper
}

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
fn a_token_that_is_removed_in_the_middle() {
    alone("a_token_that_is_removed_in_the_middle", &["vault"], |tokens| {
        block_on(async {
            let keeper = bound("vault", vaults()[0]);
            let one = keeper.candidate(0).await.unwrap();
            keeper.activate(1, one.id).await.unwrap();
            let two = keeper.candidate(1).await.unwrap();
            let folder = tokens.folders()[0].clone();
            let away = tokens.dir.join("away");
            std::fs::rename(&folder, &away).unwrap();
            println!("held {:?}", keeper.held().await);
            println!("unwrap {:?}", keeper.unwrap(two.id, &two.wrapped).await);
            println!("destroy {:?}", keeper.destroy(two.id).await);
            println!("candidate {:?}", keeper.candidate(1).await);
            println!("activate {:?}", keeper.activate(2, two.id).await);
            std::fs::rename(&away, &folder).unwrap();
            println!("held {:?}", keeper.held().await);
            println!("unwrap {:?}", keeper.unwrap(two.id, &two.wrapped).await);
            println!("destroy {:?}", keeper.destroy(two.id).await);
            println!("candidate {:?}", keeper.candidate(1).await);
        });
    });
}
