//! The keys of a vault that can be changed while it is used: of tokens, of blind indexes, of signatures; and the suite of
//! new seals. The keys of the tree change with every shred and expiry, and by [`Vault::replace_root`].
//!
//! A change is two steps. [`Vault::change_key`] makes a new key, which is used from then on; the former one stays valid
//! beside it. [`Vault::retire_keys`] ends what is still under a former key. Each is one commit, and every process goes over
//! to it when it next reads a subject, at the latest within the vault's bound where [`Vault::watch`] runs.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use zeroize::Zeroizing;

use crate::actor::{Actor, Ground};
use crate::crypto::aead::Suite;
use crate::crypto::{self, Prf};
use crate::error::{Denied, Error, Malformed, Misuse, Result, RolledBack, Unsupported};
use crate::journal::{Event, FENCE};
use crate::key::{Blind, Secret, Signing, Stage, Token};
use crate::log::{Action, Count, Entry};
use crate::note::{VerifierKey, sign_note};
use crate::shred::NOTES;
use crate::store::{Batch, Committed, Key, Versioned};
use crate::token::{self, Verified};
use crate::tree::node::under_root;
use crate::tree::{ATTEMPTS, Node, Path};
use crate::vault::{Inner, Vault};
use crate::wire::{Put as _, Reader};

/// The most keys of one kind at once.
const MAX_KEYS: usize = 8;

/// A key that can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// Under which tokens are issued.
    Tokens,
    /// Of blind indexes: the shop's columns hold values under it.
    Index,
    /// Which signs checkpoints, notes and certificates. Its former keys only verify: their secret half goes with the
    /// change.
    Signing,
}

/// A key of the vault, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// What it is for.
    pub kind: KeyKind,
    /// Which one: all keys of the vault count together, and no number is used again.
    pub number: u16,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: i64,
    /// Whether it is the one that is used; otherwise it is a former one that is still valid.
    pub current: bool,
}

/// What a change of a key has done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyChange {
    /// The key that is used from now on.
    pub key: KeyInfo,
    /// For [`KeyKind::Signing`]: a note that both keys have signed and that holds the new verifier key. Publish it.
    pub note: Option<String>,
}

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

/// A key with its number, oldest first in its list: the last one is used.
#[derive(Debug)]
struct Keyed<T> {
    number: u16,
    made_ms: i64,
    key: T,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Ring {
    /// What seals.
    pub(crate) suite: Suite,
    /// The highest number that a key was given.
    last: u16,
    tokens: Vec<Keyed<(Secret<Token>, Prf)>>,
    index: Vec<Keyed<Secret<Blind>>>,
    signing: Keyed<Secret<Signing>>,
    /// Public keys.
    former: Vec<Keyed<[u8; 32]>>,
}

/// What is written beside a change.
type Beside<'a, T> = dyn Fn(&T) -> Option<(Key, Vec<u8>)> + Sync + 'a;

fn token_key(secret: Secret<Token>) -> (Secret<Token>, Prf) {
    let prf = Prf::new(secret.expose());
    (secret, prf)
}

impl Ring {
    /// The first keys.
    pub(crate) fn fresh(suite: Suite, made_ms: i64) -> Result<Self> {
        Ok(Ring {
            suite,
            last: 3,
            tokens: vec![Keyed { number: 1, made_ms, key: token_key(Secret::random()?) }],
            index: vec![Keyed { number: 2, made_ms, key: Secret::random()? }],
            signing: Keyed { number: 3, made_ms, key: Secret::random()? },
            former: Vec::new(),
        })
    }

    /// For a store that was restored from before changes of which the journal knows: which keys those were nobody can
    /// say, so all are made anew, and none of then is believed. `None` where nothing was lost.
    fn anew(&mut self, last: u16, made_ms: i64) -> Result<Option<()>> {
        if self.last >= last {
            return Ok(None);
        }
        let mut next = || {
            self.last = self.last.max(last).checked_add(1).ok_or(Misuse::TooLarge)?;
            Ok::<_, Error>(self.last)
        };
        let (token, index, signing) = (next()?, next()?, next()?);
        self.tokens = vec![Keyed { number: token, made_ms, key: token_key(Secret::random()?) }];
        self.index = vec![Keyed { number: index, made_ms, key: Secret::random()? }];
        self.signing = Keyed { number: signing, made_ms, key: Secret::random()? };
        self.former.clear();
        Ok(Some(()))
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Room for all of it first: the buffer must not move while a key lies in it.
        let mut out = Zeroizing::new(Vec::with_capacity(MAX_KEYS.saturating_mul(3 * 42).saturating_add(64)));
        out.put_u8(1);
        out.put_u8(self.suite.number());
        out.put_u16(self.last);
        put_list(&mut out, self.tokens.iter().map(|made| (made.number, made.made_ms, made.key.0.expose())));
        put_list(&mut out, self.index.iter().map(|made| (made.number, made.made_ms, made.key.expose())));
        put_list(&mut out, [(self.signing.number, self.signing.made_ms, self.signing.key.expose())]);
        put_list(&mut out, self.former.iter().map(|made| (made.number, made.made_ms, &made.key)));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return Err(Unsupported::Version.into());
        }
        let (suite, last) = (Suite::from_number(r.u8()?)?, r.u16()?);
        let tokens = take_list(&mut r, |key| secret(key).map(token_key))?;
        let index = take_list(&mut r, secret)?;
        let mut signing = take_list(&mut r, secret)?;
        let former = take_list(&mut r, |key| Ok(*key))?;
        r.end()?;
        if tokens.is_empty() || index.is_empty() || signing.len() != 1 {
            return Err(Malformed::Length.into());
        }
        let signing = signing.pop().ok_or(Malformed::Length)?;
        Ok(Ring { suite, last, tokens, index, signing, former })
    }

    /// The key of new tokens, with its number.
    pub(crate) fn token(&self) -> Result<(u16, &Prf)> {
        self.tokens.last().map(|made| (made.number, &made.key.1)).ok_or(Malformed::Length.into())
    }

    /// Every key that tokens are verified with, the newest first.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = (u16, &Prf)> {
        self.tokens.iter().rev().map(|made| (made.number, &made.key.1))
    }

    /// The oldest number of which tokens are accepted.
    fn tokens_from(&self) -> u16 {
        self.tokens.first().map_or(0, |made| made.number)
    }

    /// The key of blind indexes, and the one before it while that one is not retired.
    pub(crate) fn index(&self) -> (Option<&Secret<Blind>>, Option<&Secret<Blind>>) {
        let mut newest = self.index.iter().rev().map(|made| &made.key);
        (newest.next(), newest.next())
    }

    pub(crate) fn signing(&self) -> &Secret<Signing> {
        &self.signing.key
    }

    pub(crate) fn sign(&self, origin: &str, text: &str) -> Result<String> {
        sign_note(origin, self.signing.key.expose(), text)
    }

    pub(crate) fn verifier(&self, origin: &str) -> Result<VerifierKey> {
        VerifierKey::of(origin, self.signing.key.expose())
    }

    /// The keys that verify notes, the newest first.
    pub(crate) fn verifiers(&self, origin: &str) -> Result<Vec<VerifierKey>> {
        let own = self.verifier(origin);
        let former = self.former.iter().rev().map(|made| VerifierKey::new(origin, made.key));
        std::iter::once(own).chain(former).collect()
    }

    fn infos(&self) -> Vec<KeyInfo> {
        let mut infos = Vec::new();
        let mut list = |kind, made: Vec<(u16, i64)>| {
            let newest = made.last().map(|(number, _)| *number);
            infos.extend(made.into_iter().map(|(number, made_ms)| KeyInfo {
                kind,
                number,
                made_ms,
                current: Some(number) == newest,
            }));
        };
        list(KeyKind::Tokens, self.tokens.iter().map(|made| (made.number, made.made_ms)).collect());
        list(KeyKind::Index, self.index.iter().map(|made| (made.number, made.made_ms)).collect());
        let former = self.former.iter().map(|made| (made.number, made.made_ms));
        let signing = (self.signing.number, self.signing.made_ms);
        list(KeyKind::Signing, former.chain([signing]).collect());
        infos
    }

    /// The same with a new key, and the note of both where it signs.
    fn change(&mut self, kind: KeyKind, now_ms: i64, origin: &str) -> Result<KeyChange> {
        let room = |keys: usize| if keys < MAX_KEYS { Ok(()) } else { Err(Error::from(Misuse::TooLarge)) };
        let number = self.last.checked_add(1).ok_or(Misuse::TooLarge)?;
        let note = match kind {
            KeyKind::Tokens => {
                room(self.tokens.len())?;
                self.tokens.push(Keyed { number, made_ms: now_ms, key: token_key(Secret::random()?) });
                None
            }
            KeyKind::Index => {
                // Two: what the shop looks a value up by.
                if self.index.len() > 1 {
                    return Err(Misuse::FormerKey.into());
                }
                self.index.push(Keyed { number, made_ms: now_ms, key: Secret::random()? });
                None
            }
            KeyKind::Signing => {
                room(self.former.len())?;
                let old = &self.signing;
                let key = Secret::<Signing>::random()?;
                let verifier = VerifierKey::of(origin, key.expose())?;
                let text = format!("{origin}/key-change\nnumber: {number}\nkey: {verifier}\n");
                let mut note = sign_note(origin, old.key.expose(), &text)?;
                let own = sign_note(origin, key.expose(), &text)?;
                note.push_str(own.rsplit_once("\n\n").map_or("", |(_, signature)| signature));
                let public = crypto::public_key(old.key.expose());
                self.former.push(Keyed { number: old.number, made_ms: old.made_ms, key: public });
                self.signing = Keyed { number, made_ms: now_ms, key };
                Some(note)
            }
        };
        self.last = number;
        let key = KeyInfo { kind, number, made_ms: now_ms, current: true };
        Ok(KeyChange { key, note })
    }

    /// Drops the former keys of a kind, and says how many.
    fn retire(&mut self, kind: KeyKind) -> usize {
        let dropped = |keys: usize| keys.saturating_sub(1);
        match kind {
            KeyKind::Tokens => self.tokens.drain(..dropped(self.tokens.len())).count(),
            KeyKind::Index => self.index.drain(..dropped(self.index.len())).count(),
            KeyKind::Signing => self.former.drain(..).count(),
        }
    }
}

fn secret<K: Stage>(bytes: &[u8; 32]) -> Result<Secret<K>> {
    Secret::from_slice(bytes).ok_or(Malformed::Length.into())
}

fn put_list<'a>(out: &mut Vec<u8>, keys: impl IntoIterator<Item = (u16, i64, &'a [u8; 32])>) {
    let count = out.len();
    out.put_u8(0);
    for (number, made_ms, key) in keys {
        out.put_u16(number);
        out.put_i64(made_ms);
        out.put(key);
        if let Some(count) = out.get_mut(count) {
            *count = count.saturating_add(1);
        }
    }
}

/// Numbers ascend.
fn take_list<T>(r: &mut Reader<'_>, key: impl Fn(&[u8; 32]) -> Result<T>) -> Result<Vec<Keyed<T>>> {
    let mut keys: Vec<Keyed<T>> = Vec::new();
    for _ in 0..r.u8()? {
        let (number, made_ms) = (r.u16()?, r.i64()?);
        if keys.len() >= MAX_KEYS || keys.last().is_some_and(|last| last.number >= number) {
            return Err(Malformed::Order.into());
        }
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(r.array()?);
        keys.push(Keyed { number, made_ms, key: key(&bytes)? });
    }
    Ok(keys)
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
    /// [`Misuse::FormerKey`] for [`KeyKind::Index`] while there is a former one; [`Misuse::TooLarge`] beyond 8 keys of a
    /// kind: [retire](Self::retire_keys) some; what the store says.
    pub async fn change_key(&self, kind: KeyKind, actor: &Actor, ground: &Ground) -> Result<KeyChange> {
        let inner = &self.0;
        let (now, origin) = (inner.clock.wall(), inner.origin());
        let entry = inner.entry_by(Action::ChangeKey, actor, ground)?;
        // The note of both keys is kept with the change: nobody can make it again.
        let note = |change: &KeyChange| {
            let name = [NOTES, b"key", &change.key.number.to_be_bytes()[..]].concat();
            change.note.clone().map(|note| (name, note.into_bytes()))
        };
        let change = |ring: &mut Ring| ring.change(kind, now, &origin).map(Some);
        let change = inner.change_ring(&entry, &note, change).await?.ok_or(Error::Busy)?;
        if kind == KeyKind::Signing {
            // So that the newest checkpoint is under the newest key. It is done, whatever becomes of that.
            drop(inner.checkpoint().await);
        }
        Ok(change)
    }

    /// Ends what is still under former keys of a kind: for [`KeyKind::Tokens`] those tokens are refused from then on, in
    /// all processes within the bound, and grants that were taken with them stop; for [`KeyKind::Index`] there are no index
    /// values under the former key any more; for [`KeyKind::Signing`] the vault forgets the former public keys, and
    /// believes no checkpoint and no backup's manifest under them. It gives how many keys were retired.
    ///
    /// # Errors
    ///
    /// [`Misuse::InUse`] for [`KeyKind::Tokens`] while a token under a former key is alive: wait for the last, or
    /// [revoke](Self::revoke) them first; what the store says.
    pub async fn retire_keys(&self, kind: KeyKind, actor: &Actor, ground: &Ground) -> Result<usize> {
        let inner = &self.0;
        inner.catch_up().await?;
        let newest = inner.ring().token()?.0;
        // Nobody issues under a former key any more: an issue expects the fence row that the change has written.
        if kind == KeyKind::Tokens && self.tokens().await?.iter().any(|token| token.key < newest) {
            return Err(Misuse::InUse.into());
        }
        let retire = |ring: &mut Ring| {
            if kind == KeyKind::Tokens && ring.token()?.0 != newest {
                // Changed again meanwhile: what is alive under the key that was the newest was not looked at.
                return Err(Error::Busy);
            }
            Ok(Some(ring.retire(kind)).filter(|count| *count > 0))
        };
        let entry = inner.entry_by(Action::RetireKeys, actor, ground)?;
        let count = inner.change_ring(&entry, &|_| None, retire).await?.unwrap_or(0);
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
        let change = |ring: &mut Ring| {
            let other = ring.suite != suite;
            ring.suite = suite;
            Ok(other.then_some(()))
        };
        let entry = inner.entry_by(Action::ChangeKey, actor, ground)?;
        inner.change_ring(&entry, &|()| None, change).await?;
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
        match verify(&self.ring()) {
            Err(Error::Denied(Denied::NotOurs)) if self.rows.shared() => {
                self.journal.refresh().await?;
                self.refresh_ring().await?;
                verify(&self.ring())
            }
            verified => verified,
        }
    }

    /// After a recover: a restored store has the keys of then.
    pub(crate) async fn keys_anew(&self, entry: &Entry) -> Result<()> {
        let (last, now_ms) = (self.journal.with(|state| state.last_key), self.clock.wall());
        self.change_ring(entry, &|()| None, |ring| ring.anew(last, now_ms)).await?;
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
        let (_, ring, _) = self.read_ring().await?;
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        self.ring_seen.fetch_max(changed, Ordering::AcqRel);
        Ok(())
    }

    async fn read_ring(&self) -> Result<(Path, Ring, [Option<Versioned>; 2])> {
        let names = [under_root::RING.to_vec(), FENCE.to_vec()];
        let (path, rows) = self.tree.path(&Node::Root, &names).await?;
        let rows: [Option<Versioned>; 2] = rows.try_into().map_err(|_| Malformed::Length)?;
        let row = rows[0].as_ref().ok_or(RolledBack::Mixed)?;
        let ring = Ring::decode(&self.tree.open_under_root(&path, under_root::RING, row)?)?;
        Ok((path, ring, rows))
    }

    /// Changes the keys in one commit, with an event that tells other processes, the log entry, and a row beside them;
    /// `None` where there is nothing to change.
    async fn change_ring<T>(
        &self,
        entry: &Entry,
        beside: &Beside<'_, T>,
        change: impl Fn(&mut Ring) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        for _ in 0..ATTEMPTS {
            let asked = self.journal.known();
            let (path, mut ring, [row, fence]) = self.read_ring().await?;
            self.journal.catch_up(self.journal.head_of(fence.as_ref())?, asked).await?;
            let Some(changed) = change(&mut ring)? else { return Ok(None) };
            let mut batch = Batch::new()?;
            self.tree.put_under_root(&path, under_root::RING, row.as_ref(), &ring.encode(), &mut batch)?;
            if let Some((name, value)) = beside(&changed) {
                batch.put(&name, value);
            }
            let event = Event::Keys { tokens_from: ring.tokens_from(), last: ring.last };
            let lines = match self.journal.stage(&mut batch, fence.as_ref(), &[event]) {
                Err(Error::Busy) => continue,
                lines => lines?,
            };
            if self.lane.commit(batch, std::slice::from_ref(entry)).await? == Committed::Yes {
                self.journal.committed(&lines)?;
                // It is changed, whatever becomes of the rest: that is made good by whatever comes next.
                let _ = self.refresh_ring().await;
                self.journal.tell().await;
                return Ok(Some(changed));
            }
        }
        Err(Error::Busy)
    }
}
