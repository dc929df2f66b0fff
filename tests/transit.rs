//! Root keys in a real OpenBao server: the whole life of a vault, and what may go wrong between the two.
#![cfg(all(feature = "testing", feature = "transit"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]
#![allow(clippy::arithmetic_side_effects, unreachable_pub, missing_docs, dead_code, reason = "a test")]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, reason = "a test")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use customer_vault::error::{KeeperError, Misuse, RolledBack};
use customer_vault::keeper::{
    BaoOptions, ErasureClass, Handover, Held, Keeper, ServerCopies, Serves, TransitKeeper, VaultId,
};
use customer_vault::store::MemoryStore;
use customer_vault::testing::{ManualClock, MemoryKeeper, ephemeral, grant, test_ground, tester};
use customer_vault::value::PersonName;
use customer_vault::witness::KvWitness;
use customer_vault::*;
use pollster::block_on;
use serde_json::json;

#[path = "services/bao.rs"]
mod server;
use server::{Act, Bao, Proxy};

#[path = "transit/life.rs"]
mod life;
#[path = "transit/token.rs"]
mod token;
#[path = "transit/trouble.rs"]
mod trouble;

purposes! {
    /// Deliver the parcel.
    pub Shipping: Contract = 1 "shipping";
}

record! {
    /// One order.
    pub struct Order[u64] / SealedOrder / OrderView in order = "order" {
        /// To whom it goes.
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days];
    }
}

/// What the documentation of the keeper says that a token needs.
const KEEPER: &str = r#"
path "transit/keys"           { capabilities = ["list"] }
path "transit/keys/cv1-*"     { capabilities = ["read", "update", "delete"] }
path "transit/encrypt/cv1-*"  { capabilities = ["update"] }
path "transit/decrypt/cv1-*"  { capabilities = ["update"] }
"#;

/// And that of the witness, for every path of these tests.
const WITNESS: &str = r#"
path "secret/data/+/*"     { capabilities = ["create", "read", "update"] }
path "secret/metadata/+/*" { capabilities = ["list"] }
"#;

/// One server for the tests that leave it as it is; `None` where there is none, which was said then.
fn shared() -> Option<&'static Bao> {
    static SERVER: OnceLock<Option<Bao>> = OnceLock::new();
    SERVER.get_or_init(|| Bao::start("transit")).as_ref()
}

fn keeper_at(options: BaoOptions) -> TransitKeeper {
    try_keeper(options, "transit").unwrap()
}

fn try_keeper(options: BaoOptions, mount: &str) -> Result<TransitKeeper> {
    block_on(TransitKeeper::connect(options, mount, ServerCopies::kept_for_days(14).unwrap()))
}

fn keeper(bao: &Bao) -> TransitKeeper {
    keeper_at(bao.options(&bao.token("", KEEPER, json!({}))))
}

/// A path that no other test has.
fn path() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("shop-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn witness(bao: &Bao, path: &str) -> KvWitness {
    let options = bao.options(&bao.token("", WITNESS, json!({})));
    block_on(KvWitness::connect(options, "secret", path)).unwrap()
}

/// A vault's name that no other test has.
fn vault_id() -> VaultId {
    block_on(ephemeral(Options::new())).unwrap().id()
}

fn bound(bao: &Bao) -> TransitKeeper {
    let keeper = keeper(bao);
    block_on(Keeper::bind(&keeper, vault_id())).unwrap();
    keeper
}

fn clock() -> ManualClock {
    ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap())
}

fn options(clock: &ManualClock) -> Options {
    Options::new()
        .record::<Order>()
        .settings(Settings::default().height(1).unwrap().bound_ms(300).unwrap())
        .clock(clock.clone())
}

/// Days pass; an operator confirms that they have.
async fn days(clock: &ManualClock, vaults: &[&Vault], days: u32) {
    clock.advance_days(days);
    for vault in vaults {
        vault.confirm_time(&tester(), &test_ground()).await.unwrap();
    }
}

fn id(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

/// Enrolls somebody and seals an order.
async fn sealed(vault: &Vault, who: &SubjectId) -> SealedOrder {
    vault.enroll(who, [], &tester(), &test_ground()).await.unwrap();
    let sealer = vault.sealer::<Order>(who, &tester(), &test_ground()).await.unwrap();
    sealer.seal(Order { name: PersonName::parse("Ada Lovelace").unwrap() }, &7).unwrap()
}

/// Whether it opens now.
async fn opens(vault: &Vault, who: &SubjectId, order: &SealedOrder) -> Result<()> {
    let grant = grant::<Shipping>(vault, who).await?;
    order.open(&grant, &7)?.name()?;
    Ok(())
}

fn forget() -> Forget {
    Forget::by(&tester(), &test_ground()).without_grace()
}
