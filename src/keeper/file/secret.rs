//! What opens the key file: a passphrase, or 32 bytes.

use std::{env, fmt};

use base64ct::{Base64, Encoding as _};
use zeroize::Zeroizing;

use crate::error::{KeeperError, Malformed, Misuse, Result};

/// A passphrase of 12 characters to 1,024 bytes. Wiped on drop. It is used byte for byte as given: nothing is trimmed
/// or normalised.
///
/// Argon2 makes each guess expensive; it does not make a guessable passphrase strong. Take six or more words chosen by
/// dice, or use [`FileSecret::key`].
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes the buffer over, so that no copy is left behind.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`] where it is shorter than 12 characters or longer than 1,024 bytes.
    pub fn new(text: impl Into<Zeroizing<String>>) -> Result<Self> {
        let text = text.into();
        if text.len() > 1024 || text.chars().count() < 12 {
            return Err(Misuse::Setting.into());
        }
        Ok(Passphrase(text))
    }

    pub(super) fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// What a guess at a passphrase costs: the parameters of Argon2id (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Cost {
    /// 64 MiB, 3 passes, 1 lane: the memory and passes of RFC 9106, section 4, second recommended option. That option
    /// has 4 lanes; here one thread fills them, so that more lanes would only help an attacker who has more threads.
    pub const DEFAULT: Self = Argon2Cost { memory_kib: 64 << 10, passes: 3, lanes: 1 };

    /// The most that [`FileKeeper::open`](super::FileKeeper::open) accepts from a file: 1 GiB, 16 passes, 4 lanes.
    pub const LIMIT: Self = Argon2Cost { memory_kib: 1 << 20, passes: 16, lanes: 4 };

    /// Memory in KiB, passes over it, lanes.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`] below 19 MiB (19,456 KiB) or 2 passes (the least that OWASP's Password Storage Cheat Sheet
    /// names for one lane), without a lane, or with less than 8 KiB a lane.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self> {
        let cost = Argon2Cost { memory_kib, passes, lanes };
        if memory_kib < 19 << 10 || passes < 2 || !cost.is_defined() {
            return Err(Misuse::Setting.into());
        }
        Ok(cost)
    }

    /// The least that Argon2 can do: 8 KiB, 1 pass, 1 lane. A passphrase under it is guessed quickly.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub const fn insecure_for_tests() -> Self {
        Argon2Cost { memory_kib: 8, passes: 1, lanes: 1 }
    }

    /// As a file states it. Whether it is acceptable is for [`is_within`](Self::is_within).
    pub(super) const fn stated(memory_kib: u32, passes: u32, lanes: u32) -> Self {
        Argon2Cost { memory_kib, passes, lanes }
    }

    /// No more than `max` in any parameter, and defined at all.
    pub(super) fn is_within(self, max: Self) -> bool {
        self.is_defined()
            && self.memory_kib <= max.memory_kib
            && self.passes <= max.passes
            && self.lanes <= max.lanes
    }

    pub(super) const fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    pub(super) const fn passes(self) -> u32 {
        self.passes
    }

    pub(super) const fn lanes(self) -> u32 {
        self.lanes
    }

    /// RFC 9106, section 3.1.
    fn is_defined(self) -> bool {
        self.passes >= 1
            && (1..1 << 24).contains(&self.lanes)
            && self.lanes.checked_mul(8).is_some_and(|least| self.memory_kib >= least)
    }
}

impl Default for Argon2Cost {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What opens a key file. Wiped on drop.
#[derive(Debug)]
pub struct FileSecret(pub(super) Secret);

pub(super) enum Secret {
    Passphrase(Passphrase, Argon2Cost),
    Key(Box<Zeroizing<[u8; 32]>>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::Passphrase(..) => "Passphrase(..)",
            Secret::Key(_) => "Key(..)",
        })
    }
}

impl FileSecret {
    /// A passphrase, at [`Argon2Cost::DEFAULT`] for a file that is created with it.
    #[must_use]
    pub fn passphrase(passphrase: Passphrase) -> Self {
        Self::passphrase_at(passphrase, Argon2Cost::DEFAULT)
    }

    /// A passphrase, at `cost` for a file that is created with it. A file that exists states its own cost.
    #[must_use]
    pub fn passphrase_at(passphrase: Passphrase, cost: Argon2Cost) -> Self {
        FileSecret(Secret::Passphrase(passphrase, cost))
    }

    /// A fresh key, and its text for [`from_env`](Self::from_env): 64 hex digits. Put it where the service's other secrets
    /// are, and nowhere beside the store.
    ///
    /// # Errors
    ///
    /// [`Error::NoRandomness`](crate::Error::NoRandomness).
    pub fn generate() -> Result<(Self, Zeroizing<String>)> {
        let mut key = Zeroizing::new([0; 32]);
        crate::crypto::fill_random(key.as_mut_slice())?;
        let mut text = Zeroizing::new(String::with_capacity(64));
        for byte in key.iter() {
            for digit in [byte >> 4, byte & 0xF] {
                text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
            }
        }
        Ok((Self::key(key), text))
    }

    /// 32 bytes from a generator made for keys.
    #[must_use]
    pub fn key(key: Zeroizing<[u8; 32]>) -> Self {
        FileSecret(Secret::Key(Box::new(key)))
    }

    /// 32 bytes from the environment variable `var`: 64 lower-case hexadecimal digits, or 44 characters of base64 (RFC
    /// 4648, section 4) with their padding, and nothing else, as `openssl rand -hex 32` and `openssl rand -base64 32`
    /// print them.
    ///
    /// # Security
    ///
    /// The variable itself stays in the environment of the process, where others of the same user can read it, and is
    /// handed on to child processes.
    ///
    /// # Errors
    ///
    /// [`KeeperError::NotSet`] where it is not set, [`Malformed`] where it is anything else. No error quotes it.
    pub fn from_env(var: &str) -> Result<Self> {
        let text = Zeroizing::new(env::var_os(var).ok_or(KeeperError::NotSet)?.into_encoded_bytes());
        decode(&text)
    }
}

fn decode(text: &[u8]) -> Result<FileSecret> {
    let mut key = Box::new(Zeroizing::new([0; 32]));
    match text.len() {
        64 => unhex(text, key.as_mut_slice()).ok_or(Malformed::Content)?,
        44 => {
            let decoded = Base64::decode(text, key.as_mut_slice()).map_err(|_| Malformed::Content)?;
            if decoded.len() != 32 {
                return Err(Malformed::Length.into());
            }
        }
        _ => return Err(Malformed::Length.into()),
    }
    Ok(FileSecret(Secret::Key(key)))
}

/// Lower case only: one encoding. `None` for everything else, or another length.
pub(super) fn unhex(text: &[u8], out: &mut [u8]) -> Option<()> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != out.len() {
        return None;
    }
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(())
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => character.checked_sub(b'0'),
        b'a'..=b'f' => character.checked_sub(b'a' - 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Argon2Cost, FileSecret, Passphrase, Secret};
    use crate::error::{Error, KeeperError, Malformed, Misuse};

    #[test]
    fn a_short_or_endless_passphrase_is_refused() {
        for bad in ["", "elevenchars", "éééééééé", &"x".repeat(1025)] {
            assert_eq!(Passphrase::new(bad.to_owned()).err(), Some(Error::Misuse(Misuse::Setting)));
        }
        assert!(Passphrase::new("twelve chars".to_owned()).is_ok());
    }

    #[test]
    fn no_debug_shows_a_secret() {
        let passphrase = Passphrase::new("canary canary".to_owned()).unwrap();
        let key = FileSecret::key([0xCA; 32].into());
        let shown =
            [format!("{passphrase:?} {key:?}"), format!("{:?}", FileSecret::passphrase(passphrase))].concat();
        assert!(
            !shown.contains("canary") && !shown.contains("202") && !shown.to_lowercase().contains("ca, ")
        );
    }

    #[test]
    fn a_cost_below_what_protects_is_refused() {
        for (memory, passes, lanes) in [
            (19 * 1024 - 1, 2, 1),
            (19 * 1024, 1, 1),
            (19 * 1024, 2, 0),
            (19 * 1024, 2, 1 << 24),
            (u32::MAX, 2, u32::MAX),
        ] {
            assert_eq!(Argon2Cost::new(memory, passes, lanes), Err(Error::Misuse(Misuse::Setting)));
        }
        assert!(Argon2Cost::new(19 * 1024, 2, 1).is_ok());
    }

    /// The variables are read from what Cargo sets for every test: this crate may not set any (that is `unsafe`).
    #[test]
    fn a_variable_that_is_no_key_is_refused_and_not_quoted() {
        assert_eq!(FileSecret::from_env("CUSTOMER_VAULT_NEVER_SET").err(), Some(KeeperError::NotSet.into()));
        assert_eq!(FileSecret::from_env("").err(), Some(KeeperError::NotSet.into()));
        assert_eq!(FileSecret::from_env("CARGO_PKG_NAME").err(), Some(Malformed::Length.into()));
    }

    #[test]
    fn abuse_09_a_key_has_one_encoding_of_each_kind() {
        let read = |text: &str| match super::decode(text.as_bytes()) {
            Ok(FileSecret(Secret::Key(key))) => Ok(**key),
            Ok(_) => panic!("a key is no passphrase"),
            Err(error) => Err(error),
        };
        let mut key = [0xFF; 32];
        key[31] = 0xF0;
        assert_eq!(read(&format!("{}f0", "ff".repeat(31))), Ok(key));
        assert_eq!(read(&format!("{}8A==", "/".repeat(40))).err(), Some(Malformed::Length.into()));
        assert_eq!(read("//////////////////////////////////////////A="), Ok(key));
        for bad in [
            "//////////////////////////////////////////B=", // stray bits
            "//////////////////////////////////////////AA", // 33 bytes
            "/////////////////////////////////////////8==", // 31 bytes
            "__________________________________________A=", // another alphabet
            " /////////////////////////////////////////A=",
            &"FF".repeat(32),
            &"0x".repeat(32),
            &format!(" {}", "f".repeat(63)),
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        for bad in ["", "00", &"ff".repeat(33), "//////////////////////////////////////////A"] {
            assert_eq!(read(bad), Err(Malformed::Length.into()));
        }
    }
}
