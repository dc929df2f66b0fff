//! A logged-in session, and what becomes of it when the token goes away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as TokenError, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

use super::options::{AskPin, TokenPin, TokenSlot, Which};
use crate::crypto;
use crate::error::KeeperError;

/// Why a call at the token failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The session is over, or the token away: worth another session.
    Lost,
    /// The token's last word.
    Final(KeeperError),
}

impl From<KeeperError> for Trouble {
    fn from(error: KeeperError) -> Self {
        Trouble::Final(error)
    }
}

impl From<TokenError> for Trouble {
    /// Without what it says in words: a module may quote its input.
    fn from(error: TokenError) -> Self {
        let TokenError::Pkcs11(code, _) = error else {
            return Trouble::Final(match error {
                TokenError::LibraryLoading(_) | TokenError::MissingSymbol(_) => KeeperError::Missing,
                TokenError::NullFunctionPointer | TokenError::NotSupported => KeeperError::Unfit,
                _ => KeeperError::Damaged,
            });
        };
        Trouble::Final(match code {
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => KeeperError::WrongSecret,
            RvError::PinLocked
            | RvError::PinExpired
            | RvError::UserPinNotInitialized
            | RvError::UserAnotherAlreadyLoggedIn
            | RvError::UserTooManyTypes
            | RvError::UserTypeInvalid
            | RvError::ActionProhibited => KeeperError::Refused,
            RvError::TokenWriteProtected | RvError::SessionReadOnly => KeeperError::ReadOnly,
            RvError::DeviceMemory => KeeperError::Full,
            RvError::EncryptedDataInvalid | RvError::EncryptedDataLenRange => KeeperError::Damaged,
            RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::KeySizeRange
            | RvError::KeyFunctionNotPermitted
            | RvError::FunctionNotSupported
            | RvError::AttributeReadOnly
            | RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::TemplateIncomplete
            | RvError::TemplateInconsistent => KeeperError::Unfit,
            // Sessions that ended, tokens that are away, devices and modules with a trouble of their own, handles of what
            // another process has destroyed: all worth one more look with a new session.
            _ => return Trouble::Lost,
        })
    }
}

impl Trouble {
    /// Where no further try is made.
    pub(super) fn at_last(self) -> KeeperError {
        match self {
            Trouble::Lost => KeeperError::Unreachable,
            Trouble::Final(why) => why,
        }
    }
}

/// A loaded module. It is never unloaded: other code of the process may use it too.
pub(super) struct Module {
    library: Pkcs11,
    /// Nobody else in this process had initialised it.
    ours: bool,
    /// How often it was started again. Whoever calls it reads this; to finalise it while others call it is undefined.
    restarts: RwLock<u64>,
}

impl Module {
    /// One for each path, for all of the process.
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, KeeperError> {
        static LOADED: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());
        let path = path.canonicalize().map_err(|_| KeeperError::Missing)?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.get(&path) {
            return Ok(Arc::clone(module));
        }
        let library = Pkcs11::new(&path).map_err(|_| KeeperError::Missing)?;
        let ours = initialise(&library).map_err(Trouble::at_last)?;
        let module = Arc::new(Module { library, ours, restarts: RwLock::default() });
        loaded.insert(path, Arc::clone(&module));
        Ok(module)
    }

    fn calls(&self) -> RwLockReadGuard<'_, u64> {
        self.restarts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some modules find a token that was away only after this. All sessions of the process end with it; those of other
    /// keepers are opened again by their next calls. False where it is not ours to do, or failed.
    fn restart(&self) -> bool {
        let mut restarts = self.restarts.write().unwrap_or_else(PoisonError::into_inner);
        if !self.ours {
            return false;
        }
        *restarts = restarts.saturating_add(1);
        // It may be finalised already.
        drop(self.library.clone().finalize());
        initialise(&self.library).is_ok()
    }
}

/// True where nobody else had done so.
fn initialise(library: &Pkcs11) -> Result<bool, Trouble> {
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) => Ok(true),
        Err(TokenError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(false),
        Err(why) => Err(why.into()),
    }
}

/// A session, and after which restart it was opened: the numbers of older ones may be others' by now, so that they are
/// neither used nor closed.
struct Open {
    session: Session,
    since: u64,
}

/// A token, and a session on it where there is one.
pub(super) struct Link {
    module: Arc<Module>,
    slot: TokenSlot,
    pin: AskPin,
    /// The token has refused it: it is not tried again. Tokens lock after a few wrong ones.
    refused: Option<TokenPin>,
    open: Option<Open>,
}

impl Drop for Link {
    fn drop(&mut self) {
        let module = Arc::clone(&self.module);
        self.close(*module.calls());
    }
}

impl Link {
    /// Not connected yet.
    pub(super) fn new(module: Arc<Module>, slot: TokenSlot, pin: AskPin) -> Self {
        Link { module, slot, pin, refused: None, open: None }
    }

    /// Does `work` with a session; again with a new one where the session is lost, and again after the module was started
    /// anew. So `work` has to stand being done several times.
    pub(super) fn with<T>(
        &mut self,
        mut work: impl FnMut(&Session) -> Result<T, Trouble>,
    ) -> Result<T, KeeperError> {
        let module = Arc::clone(&self.module);
        for last in [false, true] {
            let calls = module.calls();
            for _ in 0..2 {
                match self.attempt(*calls, &mut work) {
                    Ok(done) => return Ok(done),
                    // It was there when the keeper was opened.
                    Err(Trouble::Lost | Trouble::Final(KeeperError::Missing)) => self.close(*calls),
                    Err(Trouble::Final(why)) => return Err(why),
                }
            }
            drop(calls);
            if last || !module.restart() {
                break;
            }
        }
        Err(KeeperError::Unreachable)
    }

    fn attempt<T>(
        &mut self,
        restarts: u64,
        work: &mut impl FnMut(&Session) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let open = match self.open.take().filter(|open| open.since == restarts) {
            Some(open) => open,
            None => Open { session: self.connect()?, since: restarts },
        };
        let open = self.open.insert(open);
        work(&open.session)
    }

    /// The first connection. True where the slot is one of a hardware module.
    pub(super) fn open(&mut self) -> Result<bool, KeeperError> {
        let module = Arc::clone(&self.module);
        let calls = module.calls();
        let session = self.connect().map_err(Trouble::at_last)?;
        let open = self.open.insert(Open { session, since: *calls });
        let slot = open.session.get_session_info().map_err(|why| Trouble::from(why).at_last())?.slot_id();
        let info = module.library.get_slot_info(slot).map_err(|why| Trouble::from(why).at_last())?;
        Ok(info.hardware_slot())
    }

    /// Whether the module speaks PKCS#11 2.40 or later.
    pub(super) fn knows_copyable(&self) -> bool {
        let calls = self.module.calls();
        let knows = self.module.library.get_library_info().is_ok_and(|info| {
            let version = info.cryptoki_version();
            (version.major(), version.minor()) >= (2, 40)
        });
        drop(calls);
        knows
    }

    fn close(&mut self, restarts: u64) {
        if let Some(open) = self.open.take().filter(|open| open.since == restarts) {
            // It is lost, or not needed: what the token says of it makes no difference.
            drop(open.session.close());
        }
    }

    fn connect(&mut self) -> Result<Session, Trouble> {
        let slot = match self.find() {
            // Other code of the process has finalised the module.
            Err(TokenError::Pkcs11(RvError::CryptokiNotInitialized, _)) => {
                initialise(&self.module.library)?;
                self.find()
            }
            found => found,
        }?
        .ok_or(KeeperError::Missing)?;
        let session = self.module.library.open_rw_session_no_drop(slot)?;
        match self.log_in(&session) {
            Ok(()) => Ok(session),
            Err(why) => {
                drop(session.close());
                Err(why)
            }
        }
    }

    /// The slot; `None` where there is no such token, or more than one.
    fn find(&self) -> Result<Option<Slot>, TokenError> {
        let mut found = None;
        for slot in self.module.library.get_slots_with_token()? {
            let Ok(token) = self.module.library.get_token_info(slot) else { continue };
            let is_it = match &self.slot.0 {
                Which::Label(label) => token.label() == label,
                Which::Serial(serial) => token.serial_number() == serial,
                Which::Id(id) => slot.id() == *id,
            };
            if is_it && token.token_initialized() && found.replace(slot).is_some() {
                return Ok(None);
            }
        }
        Ok(found)
    }

    fn log_in(&mut self, session: &Session) -> Result<(), Trouble> {
        // A login is the process's, not the session's: another keeper may have made it.
        if session.get_session_info()?.session_state() == SessionState::RwUser {
            return Ok(());
        }
        let pin = (self.pin)()?;
        if self
            .refused
            .as_ref()
            .is_some_and(|no| crypto::equal(no.expose().as_bytes(), pin.expose().as_bytes()))
        {
            return Err(KeeperError::WrongSecret.into());
        }
        let given = AuthPin::new(pin.expose().into());
        match session.login(UserType::User, Some(&given)) {
            Ok(()) | Err(TokenError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                self.refused = None;
                Ok(())
            }
            Err(why) => {
                let why = Trouble::from(why);
                if why == Trouble::Final(KeeperError::WrongSecret) {
                    self.refused = Some(pin);
                }
                Err(why)
            }
        }
    }
}
