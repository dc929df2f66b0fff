//! Whom a ticket is sealed to.

use std::fmt;

use zeroize::Zeroizing;

use crate::crypto::{self, envelope};
use crate::error::{Malformed, Result};
use crate::key::{Recipient as RecipientStage, Secret};

const FINGERPRINT: &[u8] = b"customer-vault/v1/recipient";

/// The private key of a process that reads by tickets: 32 bytes, X25519 (RFC 7748). Made by that process; wiped on drop,
/// never cloned, not shown by `Debug`.
pub struct ReaderKey {
    private: Secret<RecipientStage>,
    public: [u8; 32],
}

impl ReaderKey {
    /// A new one, from the operating system's generator.
    ///
    /// # Errors
    ///
    /// [`Error::NoRandomness`](crate::Error::NoRandomness).
    pub fn generate() -> Result<Self> {
        Self::of(Secret::random()?)
    }

    /// The one that [`expose`](Self::expose) gave, from wherever the reader's operator keeps it.
    ///
    /// # Errors
    ///
    /// None that is expected: any 32 bytes are a private key of X25519.
    pub fn from_bytes(private: &Zeroizing<[u8; 32]>) -> Result<Self> {
        Self::of(Secret::from_slice(private.as_slice()).ok_or(Malformed::Length)?)
    }

    fn of(private: Secret<RecipientStage>) -> Result<Self> {
        let public = envelope::public_key(private.expose())?;
        Ok(ReaderKey { private, public })
    }

    /// The private key in the clear, for the reader's operator to store. Whoever has it opens every ticket that was sealed
    /// to it, those of the past too.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.private.expose()
    }

    pub(crate) fn private(&self) -> &Secret<RecipientStage> {
        &self.private
    }

    /// The public key, for those who give tickets.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient(self.public)
    }
}

impl fmt::Debug for ReaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderKey").field("recipient", &self.recipient()).finish_non_exhaustive()
    }
}

/// The public key of a process that reads by tickets. Whoever can have another one taken for it gets its tickets: carry it
/// to the vault over a channel that is authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Recipient([u8; 32]);

impl Recipient {
    /// From the 32 bytes of an X25519 public key.
    ///
    /// # Errors
    ///
    /// [`Malformed::Content`] for a point of small order, to which nothing can be sealed in secret.
    pub fn from_bytes(public: [u8; 32]) -> Result<Self> {
        if envelope::is_usable(&public) { Ok(Recipient(public)) } else { Err(Malformed::Content.into()) }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the log calls it: SHA-256("customer-vault/v1/recipient" ‖ public key)[..16].
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 16] {
        super::format::shortened(&crypto::hash(&[FINGERPRINT, &self.0]))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recipient(")?;
        self.fingerprint().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}
