//! A keeper whose wrapping keys never leave a PKCS#11 token.

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

/// Root keys under keys of a PKCS#11 token.
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
    /// Loads the module, finds the token, and logs in.
    ///
    /// # Errors
    ///
    /// - [`Misuse::Setting`](crate::error::Misuse::Setting) for a label prefix that cannot be used.
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
    fn listing<T>(
        &mut self,
        mut then: impl FnMut(&Objects<'_>, Listing) -> Result<T, Trouble>,
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
        if let Some(root) = self.with(|objects| objects.unwrap(id, wrapped))? {
            return Ok(root);
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
