//! Keys by stage. A key of the wrong stage does not compile, and every derivation label of the crate's keys stands here.
//!
//! ```text
//! root ─┬─ vault secrets
//!       ├─ days ── month ── day key ──┐
//!       └─ node ── … ── purpose key ──┴─ shelf key ─┬─ hedge, second hedge
//!                                                   └─ wrap key ── content key
//! ```

use std::{fmt, marker::PhantomData};

use zeroize::{Zeroize as _, Zeroizing};

use crate::crypto::aead::{Cipher, Suite};
use crate::crypto::{self, Hkdf, Prf};
use crate::error::Result;

/// The labels of all derivations from keys. Each names the specification and its version; a new use takes a new one.
pub(crate) mod label {
    pub(crate) const HEDGE: &[u8] = b"customer-vault/v1/hedge";
    pub(crate) const SECOND_HEDGE: &[u8] = b"customer-vault/v1/second-hedge";
    pub(crate) const WRAP: &[u8] = b"customer-vault/v1/wrap";
    pub(crate) const ROW_WRAP: &[u8] = b"customer-vault/v1/row-wrap";
    pub(crate) const ROW_NONCE: &[u8] = b"customer-vault/v1/row-nonce";
    pub(crate) const TAG: &[u8] = b"customer-vault/v1/tag";
    pub(crate) const RECORD_NAME: &[u8] = b"customer-vault/v1/record-name";
    pub(crate) const RECORD_ROW: &[u8] = b"customer-vault/v1/record-row";
    pub(crate) const RECORD_HEAD: &[u8] = b"customer-vault/v1/record-head";
    pub(crate) const CONTEXT: &[u8] = b"customer-vault/v1/context";
    pub(crate) const ROW: &[u8] = b"customer-vault/v1/row";
    pub(crate) const VERSION: &[u8] = b"customer-vault/v1/version";
    pub(crate) const BLIND_INDEX: &[u8] = b"customer-vault/v1/blind-index";
    pub(crate) const PENDING: &[u8] = b"customer-vault/v1/pending";
    pub(crate) const ROW_PROOF: &[u8] = b"customer-vault/v1/row-proof";
    pub(crate) const RING: &[u8] = b"customer-vault/v1/ring";
    pub(crate) const BACKUP: &[u8] = b"customer-vault/v1/backup";
    pub(crate) const DRILL: &[u8] = b"customer-vault/v1/drill";
}

macro_rules! stages {
    ($( $(#[$doc:meta])* $name:ident )+) => { $(
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) enum $name {}
        impl Stage for $name {}
    )+ };
}

/// What a key is for.
pub(crate) trait Stage {}

stages! {
    /// A node of the key tree, the root among them.
    Node
    /// One subject, one purpose, one generation.
    Purpose
    /// One UTC day.
    Day
    /// A purpose key and a day key, combined.
    Shelf
    /// Pseudonyms of one subject in the log.
    Audit
    /// Shelves that a legal hold keeps.
    Hold
    /// Tags of subjects.
    Lookup
    /// Tokens.
    Token
    /// The names of records, and rows outside the tree.
    Index
    /// Blind indexes.
    Blind
    /// Signing notes: an Ed25519 seed.
    Signing
    /// The chain of the journal.
    Journal
}

#[cfg(feature = "tickets")]
stages! {
    /// Tickets: a reader's X25519 private key.
    Recipient
}

/// 32 bytes of one stage. Boxed, so that moving it leaves no copy behind; wiped on drop, never cloned, shown as nothing.
pub(crate) struct Secret<K>(Box<Zeroizing<[u8; 32]>>, PhantomData<fn() -> K>);

impl<K> fmt::Debug for Secret<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<K: Stage> Secret<K> {
    /// Fresh from the operating system's generator.
    pub(crate) fn random() -> Result<Self> {
        let mut secret = Self::zero();
        crypto::fill_random(secret.0.as_mut_slice())?;
        Ok(secret)
    }

    /// From bytes that came out of an unwrapping.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 32] = bytes.try_into().ok()?;
        let mut secret = Self::zero();
        secret.0.copy_from_slice(bytes);
        Some(secret)
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn zero() -> Self {
        Secret(Box::new(Zeroizing::new([0; 32])), PhantomData)
    }
}

impl Secret<Node> {
    /// What wraps the rows below this node.
    pub(crate) fn parent(&self, suite: Suite) -> Parent {
        let hkdf = Hkdf::from_prk(self.expose());
        let mut key = Zeroizing::new([0; 32]);
        hkdf.expand(&[label::ROW_WRAP, &[suite.number()]], &mut key);
        let cipher = Cipher::new(suite, &key);
        hkdf.expand(&[label::ROW_NONCE, &[suite.number()]], &mut key);
        Parent { suite, cipher, nonce: Prf::new(&key) }
    }
}

/// The keys of a node, ready for use on the rows below it.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) suite: Suite,
    pub(crate) cipher: Cipher,
    /// Nonces of wraps are a PRF of everything that is authenticated, so that a generator that repeats itself repeats
    /// no nonce with different bytes.
    pub(crate) nonce: Prf,
}

impl Secret<Shelf> {
    /// `HKDF-Extract(salt = day key, ikm = purpose key)`.
    pub(crate) fn combine(day: &Secret<Day>, purpose: &Secret<Purpose>) -> Self {
        let mut shelf = Self::zero();
        Hkdf::extract(day.expose(), purpose.expose(), &mut shelf.0);
        shelf
    }

    /// The cipher of lockboxes.
    pub(crate) fn wrap(&self, suite: Suite) -> Cipher {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::from_prk(self.expose()).expand(&[label::WRAP, &[suite.number()]], &mut key);
        Cipher::new(suite, &key)
    }

    /// The hedge keys. Only the shelf of a cell's first lockbox gives them.
    pub(crate) fn hedges(&self, suite: Suite) -> (Prf, Prf) {
        let hkdf = Hkdf::from_prk(self.expose());
        let mut key = Zeroizing::new([0; 32]);
        hkdf.expand(&[label::HEDGE, &[suite.number()]], &mut key);
        let hedge = Prf::new(&key);
        hkdf.expand(&[label::SECOND_HEDGE, &[suite.number()]], &mut key);
        (hedge, Prf::new(&key))
    }
}

/// The key of one body. It lives for one seal or one open, on the stack: the hot path allocates nothing.
pub(crate) struct ContentKey([u8; 32]);

impl Drop for ContentKey {
    fn drop(&mut self) {
        // As a slice it is wiped in one piece, as an array byte by byte.
        self.0.as_mut_slice().zeroize();
    }
}

impl ContentKey {
    pub(crate) fn derive(hedge: &Prf, parts: &[&[u8]]) -> Self {
        ContentKey(*hedge.mac(parts))
    }

    /// Takes the bytes of an opened lockbox and wipes them where they lay.
    pub(crate) fn take(bytes: &mut [u8; 32]) -> Self {
        let key = ContentKey(*bytes);
        bytes.as_mut_slice().zeroize();
        key
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The name of a subject in the store, and a place in the tree: a keyed hash of its id.
pub(crate) type Tag = [u8; 16];

impl Secret<Lookup> {
    #[cfg(test)]
    pub(crate) fn tag(&self, id: &[u8]) -> Tag {
        Self::tag_by(&self.prf(), id)
    }

    /// What makes tags.
    pub(crate) fn prf(&self) -> Prf {
        Prf::new(self.expose())
    }

    pub(crate) fn tag_by(prf: &Prf, id: &[u8]) -> Tag {
        prf.tag(&[label::TAG, id])
    }
}
