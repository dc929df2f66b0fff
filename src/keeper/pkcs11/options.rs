//! How to reach a token.

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fmt};

use zeroize::Zeroizing;

use crate::error::{KeeperError, Misuse, Result};
use crate::keeper::{ErasureClass, Serves};

/// Which token of a module.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSlot(pub(super) Which);

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Which {
    Label(String),
    Serial(String),
    Id(u64),
}

impl fmt::Debug for TokenSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Which::Label(_) => "TokenSlot(label)",
            Which::Serial(_) => "TokenSlot(serial)",
            Which::Id(_) => "TokenSlot(id)",
        })
    }
}

impl TokenSlot {
    /// The token with this label, in whichever slot it is: the best choice. Where several have it, none is taken.
    #[must_use]
    pub fn labelled(label: &str) -> Self {
        TokenSlot(Which::Label(label.to_owned()))
    }

    /// The token with this serial number.
    #[must_use]
    pub fn with_serial(serial: &str) -> Self {
        TokenSlot(Which::Serial(serial.to_owned()))
    }

    /// Whatever token is in the slot with this number. Modules may number their slots anew when they start (SoftHSM
    /// does not; others go by the order of the devices).
    #[must_use]
    pub fn with_id(id: u64) -> Self {
        TokenSlot(Which::Id(id))
    }
}

/// The PIN of a token's user. Wiped on drop.
pub struct TokenPin(Zeroizing<String>);

impl TokenPin {
    /// Takes the buffer over, so that no copy is left behind. It is used as given: nothing is trimmed.
    ///
    /// # Errors
    ///
    /// [`KeeperError::WrongSecret`] where it is empty or longer than 1,024 bytes: no token is asked then.
    pub fn new(pin: impl Into<Zeroizing<String>>) -> Result<Self, KeeperError> {
        let pin = pin.into();
        if pin.is_empty() || pin.len() > 1024 { Err(KeeperError::WrongSecret) } else { Ok(TokenPin(pin)) }
    }

    /// From the environment variable `var`.
    ///
    /// # Security
    ///
    /// The variable itself stays in the environment of the process, where others of the same user can read it, and is
    /// handed on to child processes.
    ///
    /// # Errors
    ///
    /// [`KeeperError::NotSet`] where it is not set, or not UTF-8; as [`new`](Self::new).
    pub fn from_env(var: &str) -> Result<Self, KeeperError> {
        Self::new(env::var(var).map_err(|_| KeeperError::NotSet)?)
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenPin(..)")
    }
}

/// What there is of a token besides the token: backups of its keys, clones, a key file that it was restored from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenCopies {
    /// None: nobody can make one, or nobody does.
    None,
    /// Each is destroyed after so long.
    KeptFor(Duration),
    /// There are some, and nobody can say for how long.
    Unknown,
}

impl TokenCopies {
    pub(super) fn class(self, hardware: bool) -> ErasureClass {
        match self {
            TokenCopies::None if hardware => ErasureClass::Hardware,
            TokenCopies::KeptFor(at_most) => {
                let rest = u64::from(at_most.subsec_nanos() > 0);
                ErasureClass::Service { min_delay_s: 0, max_delay_s: at_most.as_secs().saturating_add(rest) }
            }
            TokenCopies::None | TokenCopies::Unknown => ErasureClass::BestEffort,
        }
    }
}

/// Asks for the PIN.
pub(super) type AskPin = Box<dyn FnMut() -> Result<TokenPin, KeeperError> + Send>;

/// Which module, which token, and how to log in.
pub struct Pkcs11Options {
    pub(super) module: PathBuf,
    pub(super) slot: TokenSlot,
    pub(super) pin: AskPin,
    pub(super) prefix: String,
    pub(super) copies: TokenCopies,
    pub(super) serves: Serves,
}

impl fmt::Debug for Pkcs11Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11Options")
            .field("module", &self.module)
            .field("slot", &self.slot)
            .field("prefix", &self.prefix)
            .field("copies", &self.copies)
            .field("serves", &self.serves)
            .finish_non_exhaustive()
    }
}

impl Pkcs11Options {
    /// `module` is the path of the PKCS#11 library, for example `/usr/lib/softhsm/libsofthsm2.so`. `pin` is called
    /// whenever the session has to log in, on a thread of the keeper's own: at the start, and after the token was away.
    /// What it returns is wiped after use, except for a PIN that the token has refused: that is kept, so that it is not
    /// tried again. It must not panic.
    #[must_use]
    pub fn new(
        module: impl Into<PathBuf>,
        slot: TokenSlot,
        pin: impl FnMut() -> Result<TokenPin, KeeperError> + Send + 'static,
    ) -> Self {
        Pkcs11Options {
            module: module.into(),
            slot,
            pin: Box::new(pin),
            prefix: "customer-vault".to_owned(),
            copies: TokenCopies::None,
            serves: Serves::OneHost,
        }
    }

    /// What the labels of the vault's objects begin with: `customer-vault` unless it is set here, 1 to 64 printable ASCII
    /// characters. The vault's id follows it.
    #[must_use]
    pub fn label_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// What there is of this token besides it. It decides the erasure class; unless it is set here there is nothing.
    #[must_use]
    pub fn copies(mut self, copies: TokenCopies) -> Self {
        self.copies = copies;
        self
    }

    /// The token is reached over a network, and processes of several hosts use it. Otherwise processes of one host do.
    #[must_use]
    pub fn many_hosts(mut self) -> Self {
        self.serves = Serves::ManyHosts;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let printable = self.prefix.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if self.prefix.is_empty() || self.prefix.len() > 64 || !printable {
            return Err(Misuse::Setting.into());
        }
        Ok(())
    }
}
