//! The keys of a vault that can be changed while it is used: of tokens, of blind indexes, of signatures, of the lookup of
//! subjects; and the suite of new seals. The keys of the tree change with every shred and expiry, and by [`Vault::replace_root`].
//!
//! A change is two steps. [`Vault::change_key`] makes a new key, which is used from then on; the former one stays valid
//! beside it. [`Vault::retire_keys`] ends what is still under a former key. Each is one commit, and every process goes over
//! to it when it next reads a subject, at the latest within the vault's bound where [`Vault::watch`] runs.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::actor::{Actor, Ground};
use crate::crypto::aead::Suite;
use crate::error::{Denied, Error, Malformed, Misuse, Result, RolledBack};
use crate::journal::{Event, FENCE};
use crate::log::{Action, Count, Entry};
use crate::note::VerifierKey;
use crate::shred::NOTES;
use crate::store::{Batch, Committed, Key, Versioned};
use crate::token::{self, Verified};
use crate::tree::batch::Appears;
use crate::tree::node::under_root;
use crate::tree::{ATTEMPTS, Node, Path};
use crate::vault::{Inner, Vault};

mod keys;

pub use keys::{KeyChange, KeyInfo, KeyKind};
pub(crate) use keys::{Places, Ring};

/// What a replacement of the root has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootReceipt {
    /// The root epoch that was left.
    pub epoch_left: u64,
    /// The moment, in milliseconds since 1970, from which `settle` destroys its root: until then whoever has a copy of the
    /// store from before, and the keeper, has what was changed since.
    pub settles_at_ms: i64,
}

/// What a change of the ring writes.
struct Change<T> {
    out: T,
    log: Entry,
    /// A row beside it.
    row: Option<(Key, Vec<u8>)>,
}

impl Vault {
    /// The keys that can be changed, with the former ones that are still valid.
    #[must_use]
    pub fn keys(&self) -> Vec<KeyInfo> {
        self.0.ring().infos()
    }

    /// The key that verifies checkpoints, notes and certificates of this vault from now on. Publish it.
    ///
    /// # Errors
    ///
    /// None that is expected: the name is made by the vault.
    pub fn verifier_key(&self) -> Result<VerifierKey> {
        self.0.ring().verifier(&self.0.origin())
    }

    /// The same with the former keys, the one that signs first: older notes are under those.
    ///
    /// # Errors
    ///
    /// None that is expected: the name is made by the vault.
    pub fn verifier_keys(&self) -> Result<Vec<VerifierKey>> {
        self.0.ring().verifiers(&self.0.origin())
    }

    /// Makes a new key, which is used from now on. The former one stays valid beside it: tokens under it are accepted, and
    /// [`former_index`](Self::former_index) gives index values under it. The secret half of a former signing key is gone
    /// with the change.
    ///
    /// Copies of the store from before hold the former keys for as long as their root is held: see
    /// [`replace_root`](Self::replace_root).
    ///
    /// # Errors
    ///
    /// [`Misuse::FormerKey`] for [`KeyKind::Index`] and [`KeyKind::Lookup`] while there is a former one; [`Misuse::TooLarge`] beyond 8 keys of a
    /// kind: [retire](Self::retire_keys) some; what the store says.
    pub async fn change_key(&self, kind: KeyKind, actor: &Actor, ground: &Ground) -> Result<KeyChange> {
        let inner = &self.0;
        let (now, origin) = (inner.clock.wall(), inner.origin());
        let log = inner.entry_by(Action::ChangeKey, actor, ground)?;
        let change = |ring: &mut Ring| {
            let out = ring.change(kind, now, &origin)?;
            let number = out.key.number;
            // The note of both keys is kept with the change: nobody can make it again.
            let row = out
                .note
                .clone()
                .map(|note| ([NOTES, b"key", &number.to_be_bytes()[..]].concat(), note.into_bytes()));
            Ok(Some(Change { out, log: log.clone().counting(Count::Key, number.into()), row }))
        };
        let change = inner.change_ring(change).await?.ok_or(Error::Busy)?;
        if kind == KeyKind::Signing {
            // So that the newest checkpoint is under the newest key. It is done, whatever becomes of that.
            drop(inner.checkpoint().await);
        }
        Ok(change)
    }

    /// Ends what is still under former keys of a kind: for [`KeyKind::Tokens`] those tokens are refused from then on, in
    /// all processes within the bound, and grants that were taken with them stop; for [`KeyKind::Index`] there are no index
    /// values under the former key any more; for [`KeyKind::Signing`] the vault forgets the former public keys, and
    /// believes no checkpoint and no backup's manifest under them; for [`KeyKind::Lookup`] nobody is looked for under the
    /// former key any more. It gives how many keys were retired.
    ///
    /// Before a lookup key is retired, all entries are opened and looked at (see [`moves`](Self::moves)), and the keys of the
    /// whole tree are made anew: that takes as long as writing all entries.
    ///
    /// # Errors
    ///
    /// [`Misuse::InUse`] for [`KeyKind::Tokens`] while a token under a former key is alive: wait for the last, or
    /// [revoke](Self::revoke) them first; for [`KeyKind::Lookup`] while an entry that is not erased lies under the former
    /// key: [move](Self::move_subjects) it first. [`RolledBack::Mixed`] where an entry does not open; what the store says.
    pub async fn retire_keys(&self, kind: KeyKind, actor: &Actor, ground: &Ground) -> Result<usize> {
        let inner = &self.0;
        inner.catch_up().await?;
        inner.refuse_if_recovering()?;
        let newest = inner.ring().token()?.0;
        // Nobody issues under a former key any more: an issue expects the fence row that the change has written.
        if kind == KeyKind::Tokens && self.tokens().await?.iter().any(|token| token.key < newest) {
            return Err(Misuse::InUse.into());
        }
        let lookup = inner.ring().lookup();
        if kind == KeyKind::Lookup && lookup.1.is_some() {
            // Nothing comes to lie under a former key any more, and what is erased there stays so: see `Moves`.
            let moves = inner.moves(|_| ()).await?;
            if moves.faults > 0 {
                return Err(RolledBack::Mixed.into());
            }
            if moves.left > 0 {
                return Err(Misuse::InUse.into());
            }
            // From here on nothing that any copy holds of a former place opens under the keys of now.
            let _one_at_a_time = inner.maintenance.lock().await;
            inner.tree.settle_keeper(&inner.journal).await?;
            inner.tree.finish_rotations(&inner.journal, || inner.clock.wall()).await?;
            inner.rotate_whole(Appears::OnTheWay).await?;
        }
        let log = inner.entry_by(Action::RetireKeys, actor, ground)?;
        let retire = |ring: &mut Ring| {
            if kind == KeyKind::Tokens && ring.token()?.0 != newest {
                // Changed again meanwhile: what is alive under the key that was the newest was not looked at.
                return Err(Error::Busy);
            }
            if kind == KeyKind::Lookup && ring.lookup() != lookup {
                return Err(Error::Busy);
            }
            let count = ring.retire(kind);
            let log = log.clone().counting(Count::Key, ring.first(kind).into());
            Ok((count > 0).then_some(Change { out: count, log, row: None }))
        };
        let count = inner.change_ring(retire).await?.unwrap_or(0);
        inner.wait_out_bound().await;
        Ok(count)
    }

    /// Seals by another suite from now on. What is sealed stays as it is, and opens; [`renew`](crate::Sealed::renew) seals
    /// it again. The key tables stay under the suite that the vault was made with.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn use_suite(&self, suite: Suite, actor: &Actor, ground: &Ground) -> Result<()> {
        let inner = &self.0;
        let log = inner.entry_by(Action::ChangeKey, actor, ground)?;
        let change = |ring: &mut Ring| {
            let other = ring.suite != suite;
            ring.suite = suite;
            Ok(other.then(|| Change { out: (), log: log.clone(), row: None }))
        };
        inner.change_ring(change).await?;
        Ok(())
    }

    /// Replaces the root: a fresh one from the keeper, under a wrapping key of its own. Every shred and expiry does so
    /// too; by itself it is for when the wrapping key, the keeper or a former key of the vault shall end, and nothing else is
    /// due. Readers and writers go on meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] where other processes keep replacing it; what store and keeper say.
    pub async fn replace_root(&self, actor: &Actor, ground: &Ground) -> Result<RootReceipt> {
        let inner = &self.0;
        let _one_at_a_time = inner.maintenance.lock().await;
        inner.catch_up().await?;
        inner.refuse_if_recovering()?;
        inner.advance_time().await?;
        inner.tree.settle_keeper(&inner.journal).await?;
        let at_ms = inner.clock.wall();
        let epoch_left = inner.tree.renew_root(&inner.journal, at_ms).await?;
        let entry = inner.entry_by(Action::ReplaceRoot, actor, ground)?;
        inner.log(entry.counting(Count::Epoch, epoch_left)).await?;
        Ok(RootReceipt { epoch_left, settles_at_ms: inner.settles_at(at_ms) })
    }
}

impl Inner {
    /// The keys as this process has them.
    pub(crate) fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Signs by the key that signs, as far as this process has [caught up](Self::catch_up).
    pub(crate) fn sign(&self, text: &str) -> Result<String> {
        self.ring().sign(&self.origin(), text)
    }

    /// What a token says, by whichever of the keys it was issued under. One that is newer than this process knows is
    /// looked for once in the store.
    pub(crate) async fn verified(&self, token: &token::Token) -> Result<Verified> {
        let verify = |ring: &Ring| {
            for (number, key) in ring.tokens() {
                match token::verify(key, &self.id, token) {
                    Err(Error::Denied(Denied::NotOurs)) => {}
                    Ok(verified) => return Ok(verified.under(number)),
                    refused => return refused,
                }
            }
            Err(Denied::NotOurs.into())
        };
        // Under the lock that readers share, and not across a wait.
        let known = verify(&self.ring.read().unwrap_or_else(PoisonError::into_inner));
        match known {
            Err(Error::Denied(Denied::NotOurs)) if self.rows.shared() => {
                self.catch_up().await?;
                verify(&self.ring())
            }
            verified => verified,
        }
    }

    /// After a recover: a restored store has the keys of then.
    pub(crate) async fn keys_anew(&self, entry: &Entry) -> Result<()> {
        let (last, lost) = self.journal.with(|state| (state.last_key, state.course.keys_lost));
        let now_ms = self.clock.wall();
        if !lost {
            return Ok(());
        }
        let anew = |ring: &mut Ring| {
            ring.anew(last, now_ms)?;
            let log = entry.clone().counting(Count::Key, ring.tokens_from().into());
            Ok(Some(Change { out: (), log, row: None }))
        };
        self.change_ring(anew).await?;
        Ok(())
    }

    /// Takes over what another process has changed.
    pub(crate) async fn refresh_ring(&self) -> Result<()> {
        let changed = || self.journal.with(|state| state.keys);
        if self.ring_seen.load(Ordering::Acquire) >= changed() {
            return Ok(());
        }
        // One after the other: an answer that comes late must not put back what a later one has brought.
        let _one_at_a_time = self.refreshing.lock().await;
        let changed = changed();
        if self.ring_seen.load(Ordering::Acquire) >= changed {
            return Ok(());
        }
        // Seldom, and large: not within the future of every call that reads a subject.
        let (_, ring, _) = Box::pin(self.read_ring()).await?;
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        self.ring_seen.fetch_max(changed, Ordering::AcqRel);
        Ok(())
    }

    /// The keys as of one moment of the journal, which says of them what they must be: under one root, rows that were
    /// put back would open too.
    async fn read_ring(&self) -> Result<(Path, Ring, [Option<Versioned>; 3])> {
        let names = [under_root::RING.to_vec(), under_root::LOOKUP.to_vec(), FENCE.to_vec()];
        for _ in 0..ATTEMPTS {
            let asked = self.journal.known();
            let (path, rows) = self.tree.path(&Node::Root, &names).await?;
            let rows: [Option<Versioned>; 3] = rows.try_into().map_err(|_| Malformed::Length)?;
            let [Some(ring), Some(lookup), fence] = &rows else { return Err(RolledBack::Mixed.into()) };
            let head = self.journal.head_of(fence.as_ref())?;
            self.journal.catch_up(head, asked).await?;
            let ring = self.tree.open_under_root(&path, under_root::RING, ring)?;
            let lookup = self.tree.open_under_root(&path, under_root::LOOKUP, lookup)?;
            let sum = self.journal.sum_of_keys(&ring, &lookup);
            let ring = Ring::decode(&ring, &lookup)?;
            if self.journal.with(|state| state.course.believes(sum, ring.is_first())) {
                return Ok((path, ring, rows));
            }
            if self.journal.known() == head.number {
                return Err(RolledBack::Mixed.into());
            }
        }
        Err(Error::Busy)
    }

    /// Changes the keys in one commit, with an event that tells other processes, the log entry, and a row beside them;
    /// `None` where there is nothing to change.
    async fn change_ring<T>(
        &self,
        change: impl Fn(&mut Ring) -> Result<Option<Change<T>>>,
    ) -> Result<Option<T>> {
        for _ in 0..ATTEMPTS {
            let (path, mut ring, [row, lookup_row, fence]) = self.read_ring().await?;
            self.refuse_if_recovering()?;
            let lookup = ring.lookup();
            let Some(Change { out, log, row: beside }) = change(&mut ring)? else { return Ok(None) };
            let (bytes, lookup_bytes) = (ring.encode(), ring.encode_lookup());
            let mut batch = Batch::new()?;
            self.tree.put_under_root(&path, under_root::RING, row.as_ref(), &bytes, &mut batch)?;
            if ring.lookup() != lookup {
                let row = lookup_row.as_ref();
                self.tree.put_under_root(&path, under_root::LOOKUP, row, &lookup_bytes, &mut batch)?;
            }
            if let Some((name, value)) = beside {
                batch.put(&name, value);
            }
            let event = Event::Keys {
                tokens_from: ring.tokens_from(),
                last: ring.last,
                lookup: ring.lookup().0,
                sum: self.journal.sum_of_keys(&bytes, &lookup_bytes),
            };
            let lines = match self.journal.stage(&mut batch, fence.as_ref(), &[event]) {
                Err(Error::Busy) => continue,
                lines => lines?,
            };
            if self.lane.commit(batch, std::slice::from_ref(&log)).await? == Committed::Yes {
                self.journal.committed(&lines)?;
                // It is changed, whatever becomes of the rest: that is made good by whatever comes next.
                let _ = self.refresh_ring().await;
                self.journal.tell().await;
                return Ok(Some(out));
            }
        }
        Err(Error::Busy)
    }
}
