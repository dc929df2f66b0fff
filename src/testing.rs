//! What tests of a shop, of a store and of a keeper need. Behind the feature `testing`.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::actor::{Actor, Ground, SubjectId};
use crate::clock::{Clock, Day, Sleep};
use crate::error::{Error, Result};
use crate::grant::Grant;
use crate::log::Action;
use crate::purpose::Purpose;
use crate::record::{Record, Sealable};
use crate::store::{Committed, MemoryStore};
use crate::token::{Scope, Token};
use crate::value::Encoder;
use crate::vault::{Options, Vault};

mod admission;
#[cfg(feature = "redb")]
mod disk;
mod faults;
mod keeper_faults;
mod medium;
mod memory_keeper;
mod store_contract;
mod witness_contract;

pub use admission::verify_for;
#[cfg(feature = "redb")]
pub use disk::{DiskOperation, FaultDisk, Survivors};
pub use faults::{Call, CommitFault, Counts, FaultStore, yield_now};
pub use keeper_faults::KeeperFaults;
pub use memory_keeper::MemoryKeeper;
pub use store_contract::{Task, store_contract, store_contract_on_threads};
pub use witness_contract::{witness_contract, witness_contract_on_threads};

/// A clock that stands still until it is moved. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicU64,
    sleeping: Mutex<Vec<(u64, futures_channel::oneshot::Sender<()>)>>,
}

impl ManualClock {
    /// Noon of a day, UTC.
    #[must_use]
    pub fn at(day: Day) -> Self {
        let hands = Hands {
            wall_ms: AtomicI64::new(day.start_ms().saturating_add(43_200_000)),
            monotonic_ms: AtomicU64::new(0),
            sleeping: Mutex::default(),
        };
        ManualClock(Arc::new(hands))
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.wall_ms.fetch_add(i64::try_from(ms).unwrap_or(i64::MAX), Ordering::SeqCst);
        let now = self.0.monotonic_ms.fetch_add(ms, Ordering::SeqCst).saturating_add(ms);
        let mut sleeping = self.0.sleeping.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, rest): (Vec<_>, Vec<_>) = sleeping.drain(..).partition(|(end, _)| *end <= now);
        *sleeping = rest;
        drop(sleeping);
        // Whoever has stopped waiting does not mind.
        for (_, wake) in done {
            let _ = wake.send(());
        }
    }

    /// Days pass.
    pub fn advance_days(&self, days: u32) {
        self.advance(Duration::from_secs(u64::from(days).saturating_mul(86_400)));
    }

    /// The wall clock is set, forwards or backwards, while no time passes.
    pub fn set_wall(&self, wall_ms: i64) {
        self.0.wall_ms.store(wall_ms, Ordering::SeqCst);
    }

    /// Its day.
    #[must_use]
    pub fn today(&self) -> Day {
        Day::of(self.wall())
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> i64 {
        self.0.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.monotonic_ms.load(Ordering::SeqCst))
    }

    /// Ends when the clock is advanced so far. A wait of no more than a minute moves the clock itself, so that a test
    /// in one thread does not hang on `forget`.
    fn sleep(&self, duration: Duration) -> Sleep {
        if duration <= Duration::from_secs(60) {
            self.advance(duration);
            return Box::pin(std::future::ready(()));
        }
        let (wake, woken) = futures_channel::oneshot::channel();
        let end = self.monotonic().saturating_add(duration).as_millis();
        let mut sleeping = self.0.sleeping.lock().unwrap_or_else(PoisonError::into_inner);
        sleeping.push((u64::try_from(end).unwrap_or(u64::MAX), wake));
        drop(sleeping);
        Box::pin(async move {
            let _ = woken.await;
        })
    }
}

/// A vault in memory, gone when it is dropped. It is empty; `options` names its records.
///
/// # Errors
///
/// What the options are refused for.
pub async fn ephemeral(options: Options) -> Result<Vault> {
    let keeper = MemoryKeeper::new();
    options.create(MemoryStore::new(), keeper.clone(), keeper).await
}

/// The actor of tests.
///
/// # Panics
///
/// Never: the name is a good one.
#[must_use]
#[expect(clippy::expect_used, reason = "the message says why it cannot fail")]
pub fn tester() -> Actor {
    Actor::service("test").expect("a good name")
}

/// The ground of tests.
///
/// # Panics
///
/// Never: the code is a good one.
#[must_use]
#[expect(clippy::expect_used, reason = "the message says why it cannot fail")]
pub fn test_ground() -> Ground {
    Ground::new("test").expect("a good code")
}

/// A grant for purpose `P` and one subject, by way of a token for an hour: what it may open is what a real one may.
///
/// # Errors
///
/// As [`Vault::unlock`].
pub async fn grant<P: Purpose>(vault: &Vault, id: &SubjectId) -> Result<Grant<P>> {
    let hour = Duration::from_secs(3600);
    let token = vault.issue::<P>(&tester(), &test_ground(), hour, Scope::subject(id)).await?;
    vault.unlock::<P>(&token, id).await
}

/// Verifies a token, and nothing else that an unlock does: its MACs under the vault's keys, that no narrowing widens, and
/// that it is neither expired nor early. Revocations and freezes are not looked at. For measurements.
///
/// # Errors
///
/// [`Error::Denied`], as [`Vault::unlock`] says it.
pub async fn verify(vault: &Vault, token: &Token) -> Result<()> {
    let inner = &vault.0;
    inner.verified(token).await?.check_time(inner.token_time(inner.clock.wall()))?;
    Ok(())
}

/// Appends one entry to the log, as [`Vault::unlock`] does it, and nothing else that an unlock does. For measurements.
///
/// # Errors
///
/// Where the log cannot be written.
pub async fn append_to_log(vault: &Vault) -> Result<()> {
    let inner = &vault.0;
    let entry = inner.entry_by(Action::Unlock, &tester(), &test_ground())?;
    let entry = entry.under_token([0; 16]).for_purpose(1);
    match inner.lane.append(vec![entry], None).await? {
        Committed::Yes => Ok(()),
        Committed::Conflict => Err(Error::Busy),
    }
}

/// What purpose `P` would see of a record right after sealing, without a vault: for tests of code that takes views. Every
/// field that does not name `P` is absent.
///
/// # Errors
///
/// [`Error::Malformed`] for a value whose own encoding it does not decode.
pub fn view<P: Purpose, R: Record>(record: &R) -> Result<<R as Sealable>::Opened<P>> {
    let mut draft = R::draft::<P>();
    for (index, field) in R::FIELDS.iter().enumerate() {
        let named = field.terms.iter().any(|term| term.purpose.number == P::NUMBER);
        if named || crate::purpose::built_in::<P>().is_some() {
            let bytes = encoded(record, index);
            R::fill(&mut draft, field.number, Ok(bytes.as_ref().map(|bytes| bytes.as_slice())))?;
        } else {
            R::fill(&mut draft, field.number, Err(crate::error::Absent::NotForThisPurpose))?;
        }
    }
    R::finish(draft)
}

/// Whether two records hold the same values: plaintext has no `PartialEq`.
#[must_use]
pub fn same<R: Record>(a: &R, b: &R) -> bool {
    (0..R::FIELDS.len()).all(|index| encoded(a, index) == encoded(b, index))
}

fn encoded<R: Record>(record: &R, index: usize) -> Option<Zeroizing<Vec<u8>>> {
    let len = record.encoded_len(index)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(len));
    record.encode(index, &mut Encoder::new(&mut bytes));
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use pollster::block_on;

    use super::{ManualClock, append_to_log, ephemeral, test_ground, tester, verify};
    use crate::clock::Day;
    use crate::error::{Denied, Error};
    use crate::purpose::SubjectAccess;
    use crate::token::Scope;
    use crate::vault::Options;

    #[test]
    fn a_token_is_verified_by_the_vault_that_issued_it_until_it_expires() {
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let [ours, theirs] =
            [(); 2].map(|()| block_on(ephemeral(Options::new().clock(clock.clone()))).unwrap());
        let (me, why) = (tester(), test_ground());
        let hour = Duration::from_secs(3600);
        let token = block_on(ours.issue::<SubjectAccess>(&me, &why, hour, Scope::everyone())).unwrap();
        block_on(verify(&ours, &token)).unwrap();
        assert_eq!(block_on(verify(&theirs, &token)), Err(Error::Denied(Denied::NotOurs)));
        clock.advance(hour);
        assert_eq!(block_on(verify(&ours, &token)), Err(Error::Denied(Denied::Expired)));
    }

    #[test]
    fn one_entry_is_appended_to_a_log_that_holds() {
        let vault = block_on(ephemeral(Options::new())).unwrap();
        let before = block_on(vault.log()).unwrap().len();
        block_on(append_to_log(&vault)).unwrap();
        assert_eq!(block_on(vault.log()).unwrap().len(), before.saturating_add(1));
        assert!(block_on(vault.verify_log()).unwrap().holds());
    }
}
