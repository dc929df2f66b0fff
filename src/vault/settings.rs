//! What is chosen when a vault is made. It is a part of the vault, not of a process.

use crate::crypto::aead::Suite;
use crate::error::{Misuse, Result, Unsupported};
use crate::wire::{Put as _, Reader};

/// How long a root that was left stays with the keeper, so that a backup of the store can still be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreWindow(u16);

impl RestoreWindow {
    /// 1 to 3,650 days. Whatever was erased within it can still be read by who has a backup of the store from before,
    /// the keeper, and its secret.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`] outside that range.
    pub fn days(days: u16) -> Result<Self> {
        if (1..=3650).contains(&days) { Ok(RestoreWindow(days)) } else { Err(Misuse::Setting.into()) }
    }

    /// `settle` destroys old roots at once: after a shred, no backup of the key tables that is older opens for anyone,
    /// not for you either.
    #[must_use]
    pub fn none_every_older_backup_of_the_keys_dies_at_once() -> Self {
        RestoreWindow(0)
    }

    /// In days.
    #[must_use]
    pub fn in_days(self) -> u16 {
        self.0
    }
}

/// What is chosen when a vault is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub(crate) suite: Suite,
    pub(crate) height: u8,
    pub(crate) bound_ms: u32,
    pub(crate) grace_days: u16,
    pub(crate) window: RestoreWindow,
    pub(crate) max_token_s: u32,
    pub(crate) clock_jump_days: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            suite: Suite::Aes256Gcm,
            height: 4,
            bound_ms: 1000,
            grace_days: 7,
            window: RestoreWindow(30),
            max_token_s: 366 * 86_400,
            clock_jump_days: 7,
        }
    }
}

impl Settings {
    /// Which cipher seals. Default: AES-256-GCM.
    #[must_use]
    pub fn suite(mut self, suite: Suite) -> Self {
        self.suite = suite;
        self
    }

    /// Levels of the key tree, 1 to 6; each has 16 times the nodes of the one above. Default: 4, for up to 10 million
    /// subjects.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`] outside that range.
    pub fn height(mut self, height: u8) -> Result<Self> {
        if !(1..=6).contains(&height) {
            return Err(Misuse::Setting.into());
        }
        self.height = height;
        Ok(self)
    }

    /// How long, in milliseconds, another process may go on with what was fenced: 100 to 60,000. Default: 1,000. Only
    /// where several processes share the store.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`] outside that range.
    pub fn bound_ms(mut self, bound: u32) -> Result<Self> {
        if !(100..=60_000).contains(&bound) {
            return Err(Misuse::Setting.into());
        }
        self.bound_ms = bound;
        Ok(self)
    }

    /// How many days a forget or a withdrawal can be undone, 0 to 365. Default: 7. Nothing opens meanwhile.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`] outside that range.
    pub fn grace_days(mut self, days: u16) -> Result<Self> {
        if days > 365 {
            return Err(Misuse::Setting.into());
        }
        self.grace_days = days;
        Ok(self)
    }

    /// How long old roots are kept. Default: 30 days.
    #[must_use]
    pub fn restore_window(mut self, window: RestoreWindow) -> Self {
        self.window = window;
        self
    }

    /// The longest life of a token, in seconds. Default: 366 days.
    #[must_use]
    pub fn max_token_seconds(mut self, seconds: u32) -> Self {
        self.max_token_s = seconds;
        self
    }

    /// How far, in days, the clock may stand beyond the mark of time before an operator has to confirm it. Default: 7.
    #[must_use]
    pub fn clock_jump_days(mut self, days: u16) -> Self {
        self.clock_jump_days = days;
        self
    }

    /// How many days a forget or a withdrawal can be undone.
    #[must_use]
    pub fn grace(&self) -> u16 {
        self.grace_days
    }

    /// How long old roots are kept.
    #[must_use]
    pub fn window(&self) -> RestoreWindow {
        self.window
    }

    /// How long another process may go on with what was fenced.
    #[must_use]
    pub fn bound(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.bound_ms.into())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, self.suite.number(), self.height];
        out.put_u32(self.bound_ms);
        out.put_u16(self.grace_days);
        out.put_u16(self.window.0);
        out.put_u32(self.max_token_s);
        out.put_u16(self.clock_jump_days);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 1 {
            return Err(Unsupported::Version.into());
        }
        let settings = Settings {
            suite: Suite::from_number(r.u8()?)?,
            height: r.u8()?,
            bound_ms: r.u32()?,
            grace_days: r.u16()?,
            window: RestoreWindow(r.u16()?),
            max_token_s: r.u32()?,
            clock_jump_days: r.u16()?,
        };
        r.end()?;
        Ok(settings)
    }
}
