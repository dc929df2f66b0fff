//! The witness: it remembers, outside the store, what must not be undone by restoring the store.
//!
//! Every change that takes something away (a forget, a withdrawal, a destroyed day, a revocation, a freeze, a new
//! root) is a numbered line. The store commits the line together with the change; then the witness appends it; then the
//! call returns. On open, lines that the store has and the witness lacks are copied over; where the witness has lines
//! that the store lacks, the store is older: [`RolledBack`](crate::error::RolledBack).

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use crate::error::{KeeperError, Result};
use crate::keeper::{Serves, VaultId};
use crate::store::Volume;

mod both;
#[cfg(feature = "transit")]
mod kv;
#[cfg(feature = "postgres")]
mod postgres;

pub use both::Both;
#[cfg(feature = "transit")]
pub use kv::KvWitness;
#[cfg(feature = "postgres")]
pub use postgres::PostgresWitness;

/// A line is no longer, in bytes.
pub(crate) const MAX_LINE: usize = 4096;

/// A line of the journal: opaque to the witness, at most 4 KiB, chained by the vault so that a fork is found.
#[derive(Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "witnesses keep it")]
pub struct Line {
    /// From 1, without gaps.
    pub number: u64,
    /// What the vault wrote. Pseudonymous: it names subjects by their tags only.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("number", &self.number).finish_non_exhaustive()
    }
}

/// What a witness keeps of what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remembers {
    /// Every line, durably.
    Lines,
    /// Nothing: it stands where a vault has no witness.
    Nothing,
}

impl Remembers {
    /// Stable, short, and fit for a report.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Remembers::Lines => "lines",
            Remembers::Nothing => "nothing",
        }
    }
}

/// In the place of a witness where there is none, for a keeper without a memory of its own.
///
/// **Without a witness a store from before a forget is not told from a newer one until the root is replaced.** Whoever puts
/// back a copy that was made since the last shred or expiry has back whom it names, and the vault opens them without a
/// word. From the next replacement on the keeper tells, and the vault refuses the copy; since nothing can be done again
/// then, [`Options::recover`](crate::Options::recover) refuses it too. Receipts say `witnessed: false`, and
/// [`Vault::doctor`](crate::Vault::doctor) names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoWitness;

impl NoWitness {
    /// It takes no settings.
    #[must_use]
    pub const fn new() -> Self {
        NoWitness
    }
}

impl Witness for NoWitness {
    async fn bind(&self, _: VaultId) -> Result<(), KeeperError> {
        Ok(())
    }

    async fn recall(&self, _: u64) -> Result<Vec<Line>, KeeperError> {
        Ok(Vec::new())
    }

    async fn remember(&self, _: Vec<Line>) -> Result<(), KeeperError> {
        Ok(())
    }

    fn remembers(&self) -> Remembers {
        Remembers::Nothing
    }

    fn serves(&self) -> Serves {
        Serves::ManyHosts
    }
}

/// Remembers lines.
pub trait Witness: Send + Sync + fmt::Debug + 'static {
    /// Binds itself to a vault where it is bound to none; afterwards serves no other.
    ///
    /// # Errors
    ///
    /// [`KeeperError::Foreign`] where it is bound to another vault.
    fn bind(&self, vault: VaultId) -> impl Future<Output = Result<(), KeeperError>> + Send;

    /// All lines from number `from` on, in order.
    ///
    /// # Errors
    ///
    /// Where they cannot be read, or are damaged.
    fn recall(&self, from: u64) -> impl Future<Output = Result<Vec<Line>, KeeperError>> + Send;

    /// Appends, durably, before it returns. Numbers that are there already are passed over; a gap is refused.
    ///
    /// # Errors
    ///
    /// [`KeeperError::Damaged`] for a gap; [`KeeperError::Foreign`] where a number that is there has other bytes; others
    /// where it cannot be made durable.
    fn remember(&self, lines: Vec<Line>) -> impl Future<Output = Result<(), KeeperError>> + Send;

    /// What it keeps. A witness that says [`Remembers::Nothing`] is taken for none.
    fn remembers(&self) -> Remembers {
        Remembers::Lines
    }

    /// From where it can be used at once. A witness that does not say so serves one process.
    fn serves(&self) -> Serves {
        Serves::OneProcess
    }

    /// Where it lies on this host, as far as it knows: one for each copy.
    fn volumes(&self) -> Vec<Volume> {
        Vec::new()
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, KeeperError>> + Send + 'a>>;

trait ErasedWitness: Send + Sync + fmt::Debug {
    fn bind(&self, vault: VaultId) -> Boxed<'_, ()>;
    fn recall(&self, from: u64) -> Boxed<'_, Vec<Line>>;
    fn remember(&self, lines: Vec<Line>) -> Boxed<'_, ()>;
    fn remembers(&self) -> Remembers;
    fn serves(&self) -> Serves;
    fn volumes(&self) -> Vec<Volume>;
}

impl<W: Witness> ErasedWitness for W {
    fn bind(&self, vault: VaultId) -> Boxed<'_, ()> {
        Box::pin(Witness::bind(self, vault))
    }
    fn recall(&self, from: u64) -> Boxed<'_, Vec<Line>> {
        Box::pin(Witness::recall(self, from))
    }
    fn remember(&self, lines: Vec<Line>) -> Boxed<'_, ()> {
        Box::pin(Witness::remember(self, lines))
    }
    fn remembers(&self) -> Remembers {
        Witness::remembers(self)
    }
    fn serves(&self) -> Serves {
        Witness::serves(self)
    }
    fn volumes(&self) -> Vec<Volume> {
        Witness::volumes(self)
    }
}

/// The witness of an open vault.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<dyn ErasedWitness>);

impl Memory {
    pub(crate) fn new(witness: impl Witness) -> Self {
        Memory(Arc::new(witness))
    }
    pub(crate) async fn bind(&self, vault: VaultId) -> Result<()> {
        Ok(self.0.bind(vault).await?)
    }
    pub(crate) async fn recall(&self, from: u64) -> Result<Vec<Line>> {
        Ok(self.0.recall(from).await?)
    }
    pub(crate) async fn remember(&self, lines: Vec<Line>) -> Result<()> {
        Ok(self.0.remember(lines).await?)
    }
    pub(crate) fn remembers(&self) -> Remembers {
        self.0.remembers()
    }
    pub(crate) fn serves(&self) -> Serves {
        self.0.serves()
    }
    pub(crate) fn volumes(&self) -> Vec<Volume> {
        self.0.volumes()
    }
}
