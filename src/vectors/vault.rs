//! A whole store: every row of a small vault, with its root key. It holds randomness, so it is written once, and a normal
//! run opens it, as every later version of this crate has to.

use std::sync::Arc;
use std::time::Duration;

use pollster::block_on;
use serde_json::{Map, Value as Json, json};
use zeroize::Zeroizing;

use super::{array, hex, read, unhex, write, writing};
use crate::certificate::Certificate;
use crate::clock::Day;
use crate::consent::{Consent, Evidence};
use crate::error::KeeperError;
use crate::forget::Forget;
use crate::keeper::{Candidate, ErasureClass, Held, Keeper, RootId, RootKey, VaultId};
use crate::store::{Batch, MemoryStore, Range, Store};
use crate::testing::{ManualClock, MemoryKeeper, grant, test_ground, tester};
use crate::tree::Epoch;
use crate::value::{Country, OrderLine, PersonName, Phone};
use crate::vault::{Options, RestoreWindow, Settings, Vault};
use crate::witness::{Line, Witness};
use crate::{Scope, SubjectId};

crate::purposes! {
    /// Deliver the parcel.
    Shipping: Contract = 1 "shipping";
    /// Recommend goods.
    Newsletter: Consent = 2 "newsletter";
    /// Books of account.
    Invoicing: LegalObligation = 3 "invoicing";
}

crate::record! {
    /// One order.
    struct Order[u64] / SealedOrder / OrderView in order = "order", reserved [4 "fax"] {
        /// Printed on the label.
        name: PersonName = 1 "name", basic, for [Shipping: 2 days, Invoicing: 3 days];
        /// For the driver.
        phone: Option<Phone> = 2 "phone", basic sensitive, for [Shipping: 2 days], padded 32;
        /// What was bought.
        lines: Vec<OrderLine> = 3 "lines", transaction, for [Shipping: 2 days, Invoicing: 3 days];
    }
}

const NAME: &str = "vault";

fn options(clock: &ManualClock) -> Options {
    Options::new().record::<Order>().purpose::<Newsletter>().clock(clock.clone())
}

fn subject(id: &str) -> SubjectId {
    SubjectId::new(id).unwrap()
}

fn an_order() -> Order {
    let de = Country::parse("DE").unwrap();
    Order {
        name: PersonName::parse("Alice Lee").unwrap(),
        phone: Some(Phone::parse("030 1234567", de).unwrap()),
        lines: vec![
            OrderLine::parse("tea", 2, 350, "EUR").unwrap(),
            OrderLine::parse("cup", 1, 900, "EUR").unwrap(),
        ],
    }
}

async fn make() -> Json {
    let (me, why) = (tester(), test_ground());
    let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
    let (store, keeper) = (MemoryStore::new(), MemoryKeeper::new());
    let window = RestoreWindow::none_every_older_backup_of_the_keys_dies_at_once();
    let settings = Settings::default().restore_window(window);
    let vault = options(&clock)
        .settings(settings)
        .create(store.clone(), keeper.clone(), keeper.clone())
        .await
        .unwrap();
    let evidence = Evidence::of_notice(1, "We write once a month.", "web", &me).unwrap();
    vault.enroll(&subject("alice"), [Consent::to::<Newsletter>(evidence)], &me, &why).await.unwrap();
    for other in ["bob", "carol", "dave"] {
        vault.enroll(&subject(other), [], &me, &why).await.unwrap();
    }
    let sealer = vault.sealer::<Order>(&subject("alice"), &me, &why).await.unwrap();
    let sealed = sealer.seal(an_order(), &7).unwrap();
    vault.put(&subject("alice"), &7, &sealed, &me, &why).await.unwrap();
    vault.put(&subject("alice"), &8, &sealer.seal(an_order(), &8).unwrap(), &me, &why).await.unwrap();
    drop(grant::<Shipping>(&vault, &subject("alice")).await.unwrap());
    vault.withdraw::<Newsletter>(&subject("alice"), &me, &why).await.unwrap();
    vault.hold(&subject("carol"), &me, &why).await.unwrap();

    let at_once = || Forget::by(&me, &why).requested_by("the person").without_grace();
    let receipt = vault.forget(&subject("bob"), at_once()).await.unwrap();
    vault.shred(&me, &why).await.unwrap();
    let settled = vault.settle(&me, &why).await.unwrap();
    assert_eq!(settled.certificates.len(), 1);
    clock.advance_days(1);
    let note = vault.expire(&me, &why).await.unwrap().note.unwrap();
    vault.forget(&subject("dave"), at_once()).await.unwrap();
    vault.shred(&me, &why).await.unwrap();
    let verifier = vault.verifier_key().unwrap().to_string();
    drop(sealer);

    let mut rows = Map::new();
    let all = store.scan(Range { start: Vec::new(), end: vec![0xFF; 65] }, usize::MAX).await.unwrap();
    assert!(all.next.is_none());
    let mut root = None;
    for (name, row) in all.rows {
        if name == b"e" {
            let epoch = Epoch::decode(&row.value).unwrap();
            root = Some((epoch.id, Keeper::unwrap(&keeper, epoch.id, &epoch.wrapped).await.unwrap()));
        }
        rows.insert(hex(&name), json!(hex(&row.value)));
    }
    let (root_id, root) = root.unwrap();
    let lines = keeper.recall(1).await.unwrap();
    json!({
        "show": "A whole store of a small vault: orders of Alice, Bob shredded, Carol held, Dave shredded.",
        "kind": "vault",
        "wall_ms": crate::clock::Clock::wall(&clock),
        "vault": hex(vault.id().bytes()),
        "root_id": hex(&root_id),
        "root_key": hex(root.expose()),
        "verifier_key": verifier,
        "sealed": hex(sealed.as_bytes()),
        "orders": [7, 8],
        "subjects": ["alice", "bob", "carol", "dave"],
        "reference": hex(&receipt.reference),
        "opening": hex(&receipt.opening),
        "requester": "the person",
        "certificate": settled.certificates[0].as_str(),
        "expiry_note": note,
        "lines": lines.iter().map(|line| hex(&line.bytes)).collect::<Vec<_>>(),
        "rows": rows,
    })
}

/// A keeper with one root, and what the witness remembers.
#[derive(Clone, Debug)]
struct Fixed(Arc<(Held, [u8; 32], Vec<Line>)>);

impl Keeper for Fixed {
    async fn bind(&self, _: VaultId) -> Result<(), KeeperError> {
        Ok(())
    }
    async fn candidate(&self, _: u64) -> Result<Candidate, KeeperError> {
        Err(KeeperError::Unreachable)
    }
    async fn activate(&self, _: u64, _: RootId) -> Result<(), KeeperError> {
        Ok(())
    }
    async fn unwrap(&self, id: RootId, _: &[u8]) -> Result<RootKey, KeeperError> {
        if id == self.0.0.id {
            Ok(RootKey::new(Zeroizing::new(self.0.1)))
        } else {
            Err(KeeperError::NoSuchRoot)
        }
    }
    async fn destroy(&self, _: RootId) -> Result<(), KeeperError> {
        Err(KeeperError::Unreachable)
    }
    async fn held(&self) -> Result<Vec<Held>, KeeperError> {
        Ok(vec![self.0.0])
    }
    fn erasure_class(&self) -> ErasureClass {
        ErasureClass::BestEffort
    }
}

impl Witness for Fixed {
    async fn bind(&self, _: VaultId) -> Result<(), KeeperError> {
        Ok(())
    }
    async fn recall(&self, _: u64) -> Result<Vec<Line>, KeeperError> {
        Ok(self.0.2.clone())
    }
    async fn remember(&self, _: Vec<Line>) -> Result<(), KeeperError> {
        Err(KeeperError::Unreachable)
    }
}

async fn opened(vector: &Json) -> Vault {
    let store = MemoryStore::new();
    let mut batch = Batch::new().unwrap();
    for (name, value) in vector["rows"].as_object().unwrap() {
        batch.writes.push((unhex(&json!(name)), Some(unhex(value))));
    }
    let epoch =
        batch.writes.iter().find(|(name, _)| name == b"e").and_then(|(_, value)| value.clone()).unwrap();
    let epoch = Epoch::decode(&epoch).unwrap();
    Store::commit(&store, batch).await.unwrap();
    let lines = vector["lines"].as_array().unwrap();
    let lines = (1..).zip(lines).map(|(number, line)| Line { number, bytes: unhex(line) }).collect();
    let held = Held { id: array(&vector["root_id"]), epoch: epoch.epoch, activated: true };
    let keeper = Fixed(Arc::new((held, array(&vector["root_key"]), lines)));
    let clock = ManualClock::at(Day::of(vector["wall_ms"].as_i64().unwrap()));
    options(&clock).open(store, keeper.clone(), keeper).await.unwrap()
}

#[test]
fn a_vault_that_was_written_opens() {
    block_on(async {
        if writing() {
            write(NAME, &make().await);
        }
        let vector = read(NAME);
        let vault = opened(&vector).await;
        let (me, why) = (tester(), test_ground());
        let token = vault
            .issue::<Invoicing>(&me, &why, Duration::from_secs(60), Scope::subject(&subject("alice")))
            .await
            .unwrap();
        let grant = vault.unlock::<Invoicing>(&token, &subject("alice")).await.unwrap();
        for number in [7, 8] {
            let sealed = vault.get::<Order>(&subject("alice"), &number, &me, &why).await.unwrap().unwrap();
            let view = sealed.open(&grant, &number).unwrap();
            assert_eq!(view.name().unwrap().expose(), "Alice Lee");
            assert_eq!(view.lines().unwrap().len(), 2);
        }
        assert_eq!(vault.list::<Order, u64>(&subject("alice"), &me, &why).await.unwrap().len(), 2);
        assert!(vault.status(&subject("carol"), &me, &why).await.unwrap().held);
        assert!(vault.status(&subject("bob"), &me, &why).await.unwrap().forgotten.is_some());
        assert!(vault.verify_log().await.unwrap().holds());
        assert_eq!(vault.verifier_key().unwrap().to_string(), vector["verifier_key"].as_str().unwrap());
        let reference = array(&vector["reference"]);
        let certificate = vault.certificate(&reference).await.unwrap().unwrap();
        assert_eq!(certificate.as_str(), vector["certificate"].as_str().unwrap());
        assert!(Certificate::verify(certificate.as_str(), &vault.verifier_key().unwrap()).is_ok());
        assert_eq!(vault.expiry_notes().await.unwrap(), [vector["expiry_note"].as_str().unwrap()]);
    });
}
