//! The keeper: it wraps root keys, and destroys what wraps them. A vault's root key never lies in the store in a form
//! that the store alone could open.
//!
//! For every root epoch the keeper makes a wrapping key of its own. The wrapped root lies in the store's epoch row;
//! destroying the wrapping key ends every copy of the store that names that epoch. The store decides which candidate
//! becomes the root: any process may make candidates, and one conditional commit chooses.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use zeroize::Zeroizing;

use crate::error::{KeeperError, Result};
use crate::store::Volume;

pub(crate) mod file;
mod handover;
#[cfg(feature = "pkcs11")]
mod pkcs11;
#[cfg(feature = "transit")]
pub(crate) mod transit;
#[allow(dead_code, reason = "for keepers that are features")]
pub(crate) mod worker;

pub use file::{Argon2Cost, FileKeeper, FileKeeperOptions, FileSecret, Passphrase};
pub use handover::Handover;
#[cfg(feature = "pkcs11")]
pub use pkcs11::{Pkcs11Keeper, Pkcs11Options, TokenCopies, TokenPin, TokenSlot};
#[cfg(feature = "transit")]
pub use transit::{BaoOptions, ServerCopies, TransitKeeper};

/// Which vault: 16 random bytes, chosen when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VaultId(pub(crate) [u8; 16]);

impl VaultId {
    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for VaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which root: 16 random bytes, chosen for each candidate.
pub type RootId = [u8; 16];

/// A root key on its way between keeper and vault. Wiped on drop.
pub struct RootKey(pub(crate) Zeroizing<[u8; 32]>);

impl RootKey {
    /// For keepers: takes what they unwrapped.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        RootKey(bytes)
    }

    /// For keepers: what they have to wrap.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(..)")
    }
}

/// A root that may become the next one.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "keepers make it")]
pub struct Candidate {
    /// Its name.
    pub id: RootId,
    /// The key.
    pub key: RootKey,
    /// The key, wrapped: at most 1 KiB, kept in the store.
    pub wrapped: Vec<u8>,
}

/// A root that the keeper can unwrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "keepers make it")]
pub struct Held {
    /// Its name.
    pub id: RootId,
    /// For a candidate the epoch that it would follow; for an activated root its own epoch.
    pub epoch: u64,
    /// Whether it was ever activated.
    pub activated: bool,
}

/// What destruction by a keeper is worth. It is printed in certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErasureClass {
    /// Keys live and die inside a hardware module.
    Hardware,
    /// A key service destroys after a delay; both in seconds.
    Service {
        /// At least so long.
        min_delay_s: u64,
        /// At most so long.
        max_delay_s: u64,
    },
    /// Overwritten and deleted on ordinary media: file systems and drives may keep old blocks, and copies that the
    /// operator made are beyond it.
    BestEffort,
}

impl ErasureClass {
    /// As it stands in a certificate.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            ErasureClass::Hardware => "hardware",
            ErasureClass::Service { .. } => "service",
            ErasureClass::BestEffort => "best-effort",
        }
    }

    /// How long after its destruction a root may still be readable.
    #[must_use]
    pub const fn max_delay_s(self) -> u64 {
        match self {
            ErasureClass::Service { max_delay_s, .. } => max_delay_s,
            _ => 0,
        }
    }
}

/// From where a store, a keeper or a witness can be used at once. Less comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Serves {
    /// One process has it for itself.
    OneProcess,
    /// Any processes of one host.
    OneHost,
    /// Processes of any hosts.
    ManyHosts,
}

impl Serves {
    /// Stable, short, and fit for a report.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Serves::OneProcess => "one-process",
            Serves::OneHost => "one-host",
            Serves::ManyHosts => "many-hosts",
        }
    }
}

/// Makes, unwraps and destroys roots. Every call may be repeated: any process may find it undone and do it again.
pub trait Keeper: Send + Sync + fmt::Debug + 'static {
    /// Binds itself to a vault where it is bound to none; afterwards serves no other.
    ///
    /// # Errors
    ///
    /// [`KeeperError::Foreign`] where it is bound to another vault.
    fn bind(&self, vault: VaultId) -> impl Future<Output = Result<(), KeeperError>> + Send;

    /// Makes a fresh root that could follow `epoch`, durably, before it returns.
    ///
    /// # Errors
    ///
    /// Where it cannot be made durable, or the keeper cannot be reached.
    fn candidate(&self, epoch: u64) -> impl Future<Output = Result<Candidate, KeeperError>> + Send;

    /// The store has chosen: `id` is the root of `epoch`. Never goes backwards: an `epoch` at or below the activated
    /// one leaves everything as it is.
    ///
    /// # Errors
    ///
    /// [`KeeperError::NoSuchRoot`] where the keeper does not hold `id`.
    fn activate(&self, epoch: u64, id: RootId) -> impl Future<Output = Result<(), KeeperError>> + Send;

    /// Unwraps.
    ///
    /// # Errors
    ///
    /// [`KeeperError::NoSuchRoot`] where it is destroyed or was never there.
    fn unwrap(&self, id: RootId, wrapped: &[u8])
    -> impl Future<Output = Result<RootKey, KeeperError>> + Send;

    /// Destroys, durably, before it returns. What is not there counts as destroyed.
    ///
    /// # Errors
    ///
    /// Where it cannot be made durable; never the root that is active.
    fn destroy(&self, id: RootId) -> impl Future<Output = Result<(), KeeperError>> + Send;

    /// All that it could unwrap now.
    ///
    /// # Errors
    ///
    /// Where the keeper cannot be reached.
    fn held(&self) -> impl Future<Output = Result<Vec<Held>, KeeperError>> + Send;

    /// What its destruction is worth.
    fn erasure_class(&self) -> ErasureClass;

    /// From where it can be used at once. A keeper that does not say so serves one process.
    fn serves(&self) -> Serves {
        Serves::OneProcess
    }

    /// Where it lies on this host, as far as it knows: one for each copy.
    fn volumes(&self) -> Vec<Volume> {
        Vec::new()
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, KeeperError>> + Send + 'a>>;

trait ErasedKeeper: Send + Sync + fmt::Debug {
    fn bind(&self, vault: VaultId) -> Boxed<'_, ()>;
    fn candidate(&self, epoch: u64) -> Boxed<'_, Candidate>;
    fn activate(&self, epoch: u64, id: RootId) -> Boxed<'_, ()>;
    fn unwrap<'a>(&'a self, id: RootId, wrapped: &'a [u8]) -> Boxed<'a, RootKey>;
    fn destroy(&self, id: RootId) -> Boxed<'_, ()>;
    fn held(&self) -> Boxed<'_, Vec<Held>>;
    fn erasure_class(&self) -> ErasureClass;
    fn serves(&self) -> Serves;
    fn volumes(&self) -> Vec<Volume>;
}

impl<K: Keeper> ErasedKeeper for K {
    fn bind(&self, vault: VaultId) -> Boxed<'_, ()> {
        Box::pin(Keeper::bind(self, vault))
    }
    fn candidate(&self, epoch: u64) -> Boxed<'_, Candidate> {
        Box::pin(Keeper::candidate(self, epoch))
    }
    fn activate(&self, epoch: u64, id: RootId) -> Boxed<'_, ()> {
        Box::pin(Keeper::activate(self, epoch, id))
    }
    fn unwrap<'a>(&'a self, id: RootId, wrapped: &'a [u8]) -> Boxed<'a, RootKey> {
        Box::pin(Keeper::unwrap(self, id, wrapped))
    }
    fn destroy(&self, id: RootId) -> Boxed<'_, ()> {
        Box::pin(Keeper::destroy(self, id))
    }
    fn held(&self) -> Boxed<'_, Vec<Held>> {
        Box::pin(Keeper::held(self))
    }
    fn erasure_class(&self) -> ErasureClass {
        Keeper::erasure_class(self)
    }
    fn serves(&self) -> Serves {
        Keeper::serves(self)
    }
    fn volumes(&self) -> Vec<Volume> {
        Keeper::volumes(self)
    }
}

/// The keeper of an open vault.
#[derive(Clone, Debug)]
pub(crate) struct Roots(Arc<dyn ErasedKeeper>);

impl Roots {
    pub(crate) fn new(keeper: impl Keeper) -> Self {
        Roots(Arc::new(keeper))
    }
    pub(crate) async fn bind(&self, vault: VaultId) -> Result<()> {
        Ok(self.0.bind(vault).await?)
    }
    pub(crate) async fn candidate(&self, epoch: u64) -> Result<Candidate> {
        Ok(self.0.candidate(epoch).await?)
    }
    pub(crate) async fn activate(&self, epoch: u64, id: RootId) -> Result<()> {
        Ok(self.0.activate(epoch, id).await?)
    }
    pub(crate) async fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        self.0.unwrap(id, wrapped).await
    }
    pub(crate) async fn destroy(&self, id: RootId) -> Result<()> {
        Ok(self.0.destroy(id).await?)
    }
    pub(crate) async fn held(&self) -> Result<Vec<Held>> {
        let held = self.0.held().await?;
        // What it does not hold may lie with another: it must not count as destroyed.
        if handover::is_under_way(&held) { Err(KeeperError::HandoverUnderWay.into()) } else { Ok(held) }
    }
    pub(crate) fn erasure_class(&self) -> ErasureClass {
        self.0.erasure_class()
    }
    pub(crate) fn serves(&self) -> Serves {
        self.0.serves()
    }
    pub(crate) fn volumes(&self) -> Vec<Volume> {
        self.0.volumes()
    }
}
