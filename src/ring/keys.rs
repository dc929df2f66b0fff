//! The keys that can be changed, as they lie in one row under the root. The format is in docs/SPEC.md, "Secrets".

use zeroize::Zeroizing;

use crate::actor::SubjectId;
use crate::crypto::aead::Suite;
use crate::crypto::{self, Prf};
use crate::error::{Error, Malformed, Misuse, Result, Unsupported};
use crate::key::{Blind, Lookup, Secret, Signing, Stage, Tag, Token};
use crate::note::{VerifierKey, sign_note};
use crate::wire::{Put as _, Reader};

/// The most keys of one kind at once.
const MAX_KEYS: usize = 8;

/// The last number of the keys that a vault is made with.
const FIRST_LAST: u16 = 3;

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
    /// Under which subjects are looked up: where their entries lie is a keyed hash of their ids. The vault does not know
    /// the ids: see [`Vault::move_subjects`](crate::Vault::move_subjects).
    Lookup,
}

/// A key of the vault, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// What it is for.
    pub kind: KeyKind,
    /// Which one: all keys of the vault count together, and no number is used again.
    pub number: u16,
    /// When it was made, in milliseconds since 1970; 0 for the lookup key that the vault was made with.
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
    pub(super) last: u16,
    tokens: Vec<Keyed<(Secret<Token>, Prf)>>,
    index: Vec<Keyed<Secret<Blind>>>,
    signing: Keyed<Secret<Signing>>,
    /// Public keys.
    former: Vec<Keyed<[u8; 32]>>,
    /// In a row of their own.
    lookup: Vec<Keyed<LookupKey>>,
}

/// Where the entry of a subject lies, or may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// The number of the lookup key that is used.
    pub(crate) number: u16,
    /// Under that key.
    pub(crate) newest: Tag,
    /// Under the one before it, while that one is not retired.
    pub(crate) former: Option<Tag>,
}

fn token_key(secret: Secret<Token>) -> (Secret<Token>, Prf) {
    let prf = Prf::new(secret.expose());
    (secret, prf)
}

/// With what makes tags, ready: every call that names a subject needs it.
type LookupKey = (Secret<Lookup>, Prf);

fn lookup_key(secret: Secret<Lookup>) -> LookupKey {
    let prf = secret.prf();
    (secret, prf)
}

impl Ring {
    /// The first keys.
    pub(crate) fn fresh(suite: Suite, made_ms: i64) -> Result<Self> {
        Ok(Ring {
            suite,
            last: FIRST_LAST,
            tokens: vec![Keyed { number: 1, made_ms, key: token_key(Secret::random()?) }],
            index: vec![Keyed { number: 2, made_ms, key: Secret::random()? }],
            signing: Keyed { number: 3, made_ms, key: Secret::random()? },
            former: Vec::new(),
            lookup: vec![Keyed { number: 0, made_ms: 0, key: lookup_key(Secret::random()?) }],
        })
    }

    /// For a store that was restored from before changes of which the journal knows: which keys those were nobody can
    /// say, so all are made anew, and none of then is believed. Lookup keys stay: the entries of the copy lie under them.
    pub(super) fn anew(&mut self, last: u16, made_ms: i64) -> Result<()> {
        let mut next = || {
            self.last = self.last.max(last).checked_add(1).ok_or(Misuse::TooLarge)?;
            Ok::<_, Error>(self.last)
        };
        let (token, index, signing) = (next()?, next()?, next()?);
        self.tokens = vec![Keyed { number: token, made_ms, key: token_key(Secret::random()?) }];
        self.index = vec![Keyed { number: index, made_ms, key: Secret::random()? }];
        self.signing = Keyed { number: signing, made_ms, key: Secret::random()? };
        self.former.clear();
        Ok(())
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

    /// The row of the lookup keys.
    pub(crate) fn encode_lookup(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(1 + 2 * 42));
        match self.lookup.as_slice() {
            [first] if first.number == 0 => out.put(first.key.0.expose()),
            keys => {
                put_list(&mut out, keys.iter().map(|made| (made.number, made.made_ms, made.key.0.expose())));
            }
        }
        out
    }

    fn decode_lookup(bytes: &[u8]) -> Result<Vec<Keyed<LookupKey>>> {
        if let Ok(first) = <&[u8; 32]>::try_from(bytes) {
            return Ok(vec![Keyed { number: 0, made_ms: 0, key: lookup_key(secret(first)?) }]);
        }
        let mut r = Reader::new(bytes);
        let keys = take_list(&mut r, |key| secret(key).map(lookup_key))?;
        r.end()?;
        match keys.as_slice() {
            [only] if only.number == 0 => Err(Malformed::NotCanonical.into()),
            [_] | [_, _] => Ok(keys),
            _ => Err(Malformed::Length.into()),
        }
    }

    /// From the ring's row and that of the lookup keys.
    pub(crate) fn decode(bytes: &[u8], lookup: &[u8]) -> Result<Self> {
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
        let lookup = Self::decode_lookup(lookup)?;
        let ring = Ring { suite, last, tokens, index, signing, former, lookup };
        // The next key would have a number that one of these has.
        if ring.infos().iter().any(|info| info.number > last) {
            Err(Malformed::Content.into())
        } else {
            Ok(ring)
        }
    }

    /// Where a subject lies, or may lie.
    pub(crate) fn places(&self, id: &SubjectId) -> Result<Places> {
        let mut newest =
            self.lookup.iter().rev().map(|made| (made.number, Secret::tag_by(&made.key.1, id.bytes())));
        let (number, place) = newest.next().ok_or(Malformed::Length)?;
        Ok(Places { number, newest: place, former: newest.next().map(|(_, place)| place) })
    }

    /// Whether these are the keys that the vault was made with.
    pub(crate) fn is_first(&self) -> bool {
        self.last == FIRST_LAST && self.lookup() == (0, None)
    }

    /// The numbers of the lookup key that is used, and of the former one while it is valid.
    pub(crate) fn lookup(&self) -> (u16, Option<u16>) {
        let mut newest = self.lookup.iter().rev().map(|made| made.number);
        (newest.next().unwrap_or(0), newest.next())
    }

    #[cfg(test)]
    pub(crate) fn lookup_key(&self) -> &Secret<Lookup> {
        &self.lookup.last().unwrap().key.0
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
    pub(super) fn tokens_from(&self) -> u16 {
        self.tokens.first().map_or(0, |made| made.number)
    }

    /// The oldest number of a kind that still counts.
    pub(super) fn first(&self, kind: KeyKind) -> u16 {
        self.infos().iter().find(|info| info.kind == kind).map_or(0, |info| info.number)
    }

    /// The key of blind indexes, and the one before it while that one is not retired.
    pub(crate) fn index(&self) -> (Option<&Secret<Blind>>, Option<&Secret<Blind>>) {
        let mut newest = self.index.iter().rev().map(|made| &made.key);
        (newest.next(), newest.next())
    }

    #[cfg(any(test, feature = "tickets"))]
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

    pub(super) fn infos(&self) -> Vec<KeyInfo> {
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
        list(KeyKind::Lookup, self.lookup.iter().map(|made| (made.number, made.made_ms)).collect());
        infos
    }

    /// The same with a new key, and the note of both where it signs.
    pub(super) fn change(&mut self, kind: KeyKind, now_ms: i64, origin: &str) -> Result<KeyChange> {
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
            KeyKind::Lookup => {
                // Two: where a subject is looked for.
                if self.lookup.len() > 1 {
                    return Err(Misuse::FormerKey.into());
                }
                self.lookup.push(Keyed { number, made_ms: now_ms, key: lookup_key(Secret::random()?) });
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
    pub(super) fn retire(&mut self, kind: KeyKind) -> usize {
        let dropped = |keys: usize| keys.saturating_sub(1);
        match kind {
            KeyKind::Tokens => self.tokens.drain(..dropped(self.tokens.len())).count(),
            KeyKind::Index => self.index.drain(..dropped(self.index.len())).count(),
            KeyKind::Signing => self.former.drain(..).count(),
            KeyKind::Lookup => self.lookup.drain(..dropped(self.lookup.len())).count(),
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

#[cfg(test)]
mod tests;
