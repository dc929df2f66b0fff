//! A keeper whose wrapping keys never leave a PKCS#11 token: [`options`] says which token, [`link`] keeps a session on it,
//! [`objects`] knows what lies there.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::crypto;
use crate::error::{KeeperError, Result};
use crate::keeper::file::wrapping::{ACTIVE, narrow};
use crate::keeper::worker::Worker;
use crate::keeper::{Candidate, ErasureClass, Held, Keeper, RootId, RootKey, Serves, VaultId};

mod link;
mod objects;
mod options;

pub use options::{Pkcs11Options, TokenCopies, TokenPin, TokenSlot};

use link::{Link, Module, Trouble};
use objects::{Listing, Name, Objects};

/// How long to wait before what a token shows is looked at again.
const LOOK_AGAIN: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(20), Duration::from_millis(80)];

/// Root keys under keys of a PKCS#11 token: an HSM, a smart card, SoftHSM. For every root epoch the token generates an
/// AES-256 key object of its own, which never leaves it and wraps that one root; destroying the object destroys the epoch.
/// Clones are the same keeper.
///
/// It has no memory of its own: give the vault a witness beside it, on another machine than the store or in another
/// database ([`FileKeeper`](crate::keeper::FileKeeper), `PostgresWitness`), or
/// [`NoWitness`](crate::witness::NoWitness) with what that costs.
///
/// ```no_run
/// # async fn open(
/// #     options: customer_vault::Options,
/// #     store: customer_vault::store::MemoryStore,
/// # ) -> customer_vault::Result<()> {
/// use customer_vault::keeper::{
///     FileKeeper, FileSecret, Pkcs11Keeper, Pkcs11Options, TokenCopies, TokenPin, TokenSlot,
/// };
///
/// let module = "/usr/lib/softhsm/libsofthsm2.so";
/// let token = Pkcs11Options::new(module, TokenSlot::labelled("vault"), || TokenPin::from_env("VAULT_PIN"))
///     .copies(TokenCopies::KeptFor(std::time::Duration::from_secs(30 * 86_400)));
/// let keeper = Pkcs11Keeper::open(token).await?;
/// let witness = FileKeeper::open("/var/lib/shop-witness/journal", FileSecret::from_env("WITNESS_KEY")?)?;
/// let vault = options.open(store, keeper, witness).await?;
/// # Ok(()) }
/// ```
///
/// # On the token
///
/// All objects of a vault have one `CKA_LABEL`: the prefix of the options, a space, the vault's id in hexadecimal. So
/// several vaults may use one token, and none sees another's.
///
/// - For every root a key object: `CKA_TOKEN`, `CKA_PRIVATE`, `CKA_SENSITIVE`, for encryption and decryption and nothing
///   else; not extractable, not modifiable and, from PKCS#11 2.40 on, not copyable. Its `CKA_ID` is 25 bytes: version 1,
///   the epoch that the candidate would follow (`u64`, big-endian), the root's id. It is written once and never changed.
/// - For every root that was activated a data object, whose value is 25 bytes of the same form: version 1, the root's
///   epoch, its id. The highest one is the active root's. Marks are added, never moved: no order of two processes, and no
///   crash between two steps, takes the vault back to an older root, and the key that the store has just chosen is not
///   written again to say so (a software token that loses power while it writes an object may lose the object).
///
/// The wrapped root is 69 bytes: version 1, the candidate's epoch, a 12-byte IV, 32 bytes and a 16-byte tag of
/// `CKM_AES_GCM` (NIST SP 800-38D), whose associated data are a label, vault, epoch and root id. The key encrypts one
/// message, so that the IV may be zero; where the token insists on one of its own, that is kept instead.
///
/// A new key is looked at before a root is wrapped under it, and unwrapped with once: a token that makes one that is
/// extractable, or was not made inside it, or cannot do AES-GCM, is refused with [`KeeperError::Unfit`], and the key is
/// destroyed.
///
/// # Security
///
/// **What destruction is worth** is stated, not found out. [`Hardware`](ErasureClass::Hardware) stands in certificates
/// only where the slot says that it is hardware (`CKF_HW_SLOT`) and the options name no copies of the token.
/// [`TokenCopies::KeptFor`] says for how long backups and clones are kept: no certificate is final before that is over.
/// Everything else is [`BestEffort`](ErasureClass::BestEffort): SoftHSM is software, and removes a file. Many HSMs are
/// backed up and run in pairs: a restored backup of the token has the destroyed keys again. Say so in the options.
///
/// Whoever has the PIN and the store can unwrap, or delete the keys and with them all data. The PIN is asked for by a
/// callback and wiped after use. A PIN that the token has refused is not tried again until the callback gives another
/// one, or the keeper is opened again: tokens lock after a few.
///
/// The module is a C library that runs in this process with all its rights: it, and its path, have to be trusted like the
/// program itself. A login holds for the whole process: once one keeper has logged in, other code that uses the module,
/// another keeper included, needs no PIN for that token.
///
/// # When the token is away
///
/// Calls fail with [`KeeperError::Unreachable`]. Meanwhile the vault reads with the root that it has in memory. As soon as
/// the token is back, the next call opens a session, asks for the PIN and goes on. Some modules find a token again only
/// after they were started anew (`C_Finalize`, `C_Initialize`): the keeper does so if nobody else in the process had
/// initialised the module before it, and then all sessions of the process on this module end; those of other keepers are
/// opened again by their next call.
///
/// Nothing that is not seen counts as destroyed: a token that does not show the marks which it has shown before is away
/// ([`KeeperError::Unreachable`]), or an older copy of itself ([`KeeperError::Damaged`]).
///
/// # Threads and processes
///
/// All calls are made by one thread of the keeper's own, one after the other, so that no async task is blocked. PKCS#11 has
/// no time limits: where a module does not answer, the call waits. Dropping the last clone waits until the session is
/// closed, for at most 2 seconds. Open the keeper after a fork, not before.
///
/// Several processes may use one token at once. [`Keeper::serves`] is [`Serves::OneHost`] unless the options say
/// [`many_hosts`](Pkcs11Options::many_hosts).
#[derive(Clone)]
pub struct Pkcs11Keeper {
    thread: Arc<Thread>,
    class: ErasureClass,
    serves: Serves,
}

/// The thread that makes all calls at the token.
struct Thread(Worker<State>);

/// How long the last one that is dropped waits until the session is closed.
const CLOSING: Duration = Duration::from_secs(2);

impl Drop for Thread {
    /// Waits: a process that ended while its session is being closed would take the module away under that call, and
    /// modules crash then.
    fn drop(&mut self) {
        let (closed, wait) = mpsc::channel();
        let close = move |state: &mut State| {
            state.link = None;
            let _ = closed.send(());
        };
        if self.0.post(close) {
            // Where the token does not answer there is nothing more to wait for.
            let _ = wait.recv_timeout(CLOSING);
        }
    }
}

impl fmt::Debug for Pkcs11Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pkcs11Keeper(..)")
    }
}

impl Pkcs11Keeper {
    /// Loads the module, finds the token, and logs in. All that is done on the keeper's own thread.
    ///
    /// # Errors
    ///
    /// - [`KeeperError::Missing`] where there is no such module, or no such token, or more than one.
    /// - [`KeeperError::WrongSecret`] where the token refuses the PIN: it was tried once.
    /// - [`KeeperError::Refused`] where the PIN is locked, has expired, or was never set, and where the security officer is
    ///   logged in.
    /// - [`KeeperError::Unreachable`] where the token does not answer, or is removed meanwhile.
    /// - [`Misuse::Setting`](crate::error::Misuse::Setting) for a label prefix that cannot be used.
    /// - What the callback returns.
    ///
    /// Later calls can fail so too, with `Unreachable` in the place of `Missing`, and besides with
    /// [`KeeperError::Unfit`], [`KeeperError::Full`], [`KeeperError::ReadOnly`], and with [`KeeperError::Damaged`] for
    /// objects that bear the vault's label and another version's name.
    pub async fn open(options: Pkcs11Options) -> Result<Self> {
        options.check()?;
        let Pkcs11Options { module, slot, pin, prefix, copies, serves } = options;
        let thread = Arc::new(Thread(Worker::start("customer-vault-pkcs11", State::default())?));
        let hardware = thread
            .0
            .run(move |state| {
                let mut link = Link::new(Module::load(&module)?, slot, pin);
                let hardware = link.open()?;
                *state =
                    State { copyable: link.knows_copyable(), link: Some(link), prefix, ..State::default() };
                Ok(hardware)
            })
            .await?;
        Ok(Pkcs11Keeper { thread, class: copies.class(hardware), serves })
    }
}

/// What the thread owns.
#[derive(Default)]
struct State {
    link: Option<Link>,
    prefix: String,
    copyable: bool,
    bound: Option<(VaultId, String)>,
    /// The highest epoch that the token has shown as activated.
    seen: Option<u64>,
}

impl State {
    fn bind(&mut self, vault: VaultId) -> Result<(), KeeperError> {
        match &self.bound {
            Some((bound, _)) if *bound != vault => Err(KeeperError::Foreign),
            Some(_) => Ok(()),
            None => {
                self.bound = Some((vault, format!("{} {vault}", self.prefix)));
                // What it shows now it has to show later.
                let known = self.listing(|_, _| Ok(()));
                if known.is_err() {
                    self.bound = None;
                }
                known
            }
        }
    }

    fn with<T>(
        &mut self,
        mut work: impl FnMut(&Objects<'_>) -> Result<T, Trouble>,
    ) -> Result<T, KeeperError> {
        let (vault, label) = self.bound.as_ref().ok_or(KeeperError::Missing)?;
        let link = self.link.as_mut().ok_or(KeeperError::Missing)?;
        let copyable = self.copyable;
        link.with(|session| work(&Objects { session, vault: *vault, label, copyable }))
    }

    /// What is on the token, if it is the token that it was: what is not there shall not count as destroyed because
    /// another one answers, or an empty place.
    ///
    /// While other sessions write, a token may show for a moment what is gone, or not yet what is there: damage is looked at
    /// again before it is believed, and so is a template that it finds inconsistent.
    fn listing<T>(
        &mut self,
        mut then: impl FnMut(&Objects<'_>, Listing) -> Result<T, Trouble>,
    ) -> Result<T, KeeperError> {
        for pause in LOOK_AGAIN {
            match self.listing_now(&mut then) {
                Err(KeeperError::Damaged | KeeperError::Unfit) => std::thread::sleep(pause),
                done => return done,
            }
        }
        self.listing_now(&mut then)
    }

    fn listing_now<T>(
        &mut self,
        then: &mut impl FnMut(&Objects<'_>, Listing) -> Result<T, Trouble>,
    ) -> Result<T, KeeperError> {
        let seen = self.seen;
        let (now, done) = self.with(|objects| {
            let listing = objects.list()?;
            let now = listing.active().map(|active| active.epoch);
            if now < seen {
                return Err(if now.is_none() { Trouble::Lost } else { KeeperError::Damaged.into() });
            }
            Ok((now, then(objects, listing)?))
        })?;
        self.seen = now;
        Ok(done)
    }

    fn candidate(&mut self, epoch: u64) -> Result<Candidate, KeeperError> {
        let id = crypto::random::<16>().map_err(narrow)?;
        let mut key = RootKey::new(Zeroizing::new([0; 32]));
        crypto::fill_random(key.0.as_mut_slice()).map_err(narrow)?;
        let wrapped = self.with(|objects| objects.make(Name { epoch, id }, &key))?;
        Ok(Candidate { id, key, wrapped })
    }

    fn activate(&mut self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        self.listing(|objects, listing| {
            if listing.active().is_some_and(|active| active.epoch >= epoch) {
                return Ok(());
            }
            if !listing.has(id) {
                return Err(KeeperError::NoSuchRoot.into());
            }
            objects.mark(Name { epoch, id })
        })?;
        self.seen = self.seen.max(Some(epoch));
        Ok(())
    }

    fn unwrap(&mut self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        match self.with(|objects| objects.unwrap(id, wrapped)) {
            Ok(Some(root)) => return Ok(root),
            Ok(None) | Err(KeeperError::Damaged) => {}
            Err(why) => return Err(why),
        }
        // The bytes may be another root's, altered, or none at all: whether the root is gone its object says alone.
        self.listing(|_, listing| {
            Err(if listing.has(id) { KeeperError::Damaged } else { KeeperError::NoSuchRoot }.into())
        })
    }

    fn destroy(&mut self, id: RootId) -> Result<(), KeeperError> {
        self.listing(|objects, listing| {
            if listing.active().is_some_and(|active| active.id == id) {
                return Err(ACTIVE.into());
            }
            for (_, key) in listing.keys.iter().filter(|(name, _)| name.id == id) {
                objects.destroy(*key)?;
            }
            if objects.list()?.has(id) {
                return Err(KeeperError::StillUnwraps.into());
            }
            // After the key: what was once activated shall not look like a candidate.
            for (_, mark) in listing.marks.iter().filter(|(name, _)| name.id == id) {
                objects.destroy(*mark)?;
            }
            Ok(())
        })
    }

    fn held(&mut self) -> Result<Vec<Held>, KeeperError> {
        self.listing(|_, listing| {
            let held = listing.keys.iter().map(|(name, _)| {
                let marks = listing.marks.iter().filter(|(mark, _)| mark.id == name.id);
                let activated = marks.map(|(mark, _)| mark.epoch).max();
                Held { id: name.id, epoch: activated.unwrap_or(name.epoch), activated: activated.is_some() }
            });
            Ok(held.collect())
        })
    }
}

impl Keeper for Pkcs11Keeper {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.thread.0.run(move |state| state.bind(vault)).await
    }

    async fn candidate(&self, epoch: u64) -> Result<Candidate, KeeperError> {
        self.thread.0.run(move |state| state.candidate(epoch)).await
    }

    async fn activate(&self, epoch: u64, id: RootId) -> Result<(), KeeperError> {
        self.thread.0.run(move |state| state.activate(epoch, id)).await
    }

    async fn unwrap(&self, id: RootId, wrapped: &[u8]) -> Result<RootKey, KeeperError> {
        let wrapped = wrapped.to_vec();
        self.thread.0.run(move |state| state.unwrap(id, &wrapped)).await
    }

    async fn destroy(&self, id: RootId) -> Result<(), KeeperError> {
        self.thread.0.run(move |state| state.destroy(id)).await
    }

    async fn held(&self) -> Result<Vec<Held>, KeeperError> {
        self.thread.0.run(State::held).await
    }

    fn erasure_class(&self) -> ErasureClass {
        self.class
    }

    fn serves(&self) -> Serves {
        self.serves
    }
}
