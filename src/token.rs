//! Tokens: bytes that grant a purpose to an actor, and that their holder can narrow without asking the vault.
//!
//! A chain of HMACs (Birgisson, Politz, Erlingsson, Taly, Vrable, Lentczner: "Macaroons: Cookies with Contextual
//! Caveats for Decentralized Authorization in the Cloud", NDSS 2014). The vault's MAC covers the head claims; each
//! narrowing is keyed by the MAC before it, which the narrowed token no longer carries. So a narrowing can be added by
//! whoever holds the token, and taken away by nobody.
//!
//! ```text
//! text      = "cv1." ‖ base64url(bytes), no padding, at most 8 KiB
//! bytes     = version 0x01 ‖ length ‖ head ‖ (length ‖ narrowing)* ‖ MAC (32 bytes), at most 16 narrowings
//! head      = claims 1 id, 2 vault, 3 purpose, 4 actor, 5 ground, 6 not before, 7 expiry; 8 subjects, 9 fields if limited
//! narrowing = at least one of the claims 1 expiry, 2 not before, 3 subject, 4 fields, 5 a further actor
//! claim     = tag ‖ length ‖ value, tags ascending, each at most once; lengths are minimal varints
//!
//! MAC 0     = HMAC-SHA-256(token key, "customer-vault/v1/token/head" ‖ vault id ‖ head)
//! MAC i+1   = HMAC-SHA-256(MAC i, "customer-vault/v1/token/narrow" ‖ narrowing)
//! hint      = HMAC-SHA-256(hint key, "customer-vault/v1/token/subject" ‖ subject id)[..16]
//! hint key  = MAC i for the narrowing that makes MAC i+1;
//!             HMAC-SHA-256(token key, "customer-vault/v1/token/hints" ‖ token id) for the head
//! ```
//!
//! A subject is named by a hint that only the vault, and who made the narrowing, can recompute: a later holder cannot
//! try ids against it, and two tokens for one subject have nothing in common.

mod claims;
mod fields;
mod issued;
mod narrowing;
#[cfg(test)]
mod tests;
pub(crate) mod tlv;
mod verify;

use std::sync::Arc;
use std::{fmt, str::FromStr};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use zeroize::Zeroizing;

use crate::error::{Error, Malformed, Result, Unsupported};
use crate::wire::{Put as _, Reader, varint_len};

pub(crate) use claims::{Cut, Head, decode_actor, decode_ground, encode_actor};
pub use fields::{FieldRef, Fields};
pub(crate) use issued::{LAST_USE_MS, issued_ms, token_name};
pub use issued::{Revoke, Scope, TokenInfo, field};
pub use narrowing::Narrowing;
pub(crate) use verify::{Claims, Verified, issue, verify};

const PREFIX: &str = "cv1.";
const VERSION: u8 = 1;
const MAC_LEN: usize = 32;
/// The longest text of a token, in bytes.
const MAX_TEXT: usize = 8 * 1024;
/// The longest chain.
pub(crate) const MAX_NARROWINGS: usize = 16;
/// The most subjects that a head can name.
pub(crate) const MAX_SUBJECTS: usize = 64;

/// 9999-12-31T23:59:59Z, in seconds since 1970: no moment in a token lies after it.
const LAST_SECOND: i64 = 253_402_300_799;

/// A token that nobody has verified: its form is right, and that is all. Only the vault can tell whether it is genuine.
///
/// # Security
///
/// A bearer secret: whoever holds it may do what it grants. So it has no `Display`, no `Serialize` and no `Clone`, its
/// `Debug` shows its id alone, and its bytes are wiped on drop. [`expose`](Self::expose) gives the text, to be sent
/// where a password could be sent: in a header over TLS, never in a URL or a log.
pub struct Token {
    text: Zeroizing<String>,
    bytes: Zeroizing<Vec<u8>>,
    said: Arc<Said>,
}

/// What a token says, verified or not. No secret: its MAC is not among it.
pub(crate) struct Said {
    head: Head,
    cuts: Vec<Cut>,
}

impl Token {
    /// Reads a token's text: `cv1.` and base64url without padding, at most 8 KiB. Checks the form only.
    ///
    /// # Errors
    ///
    /// [`Malformed`] where it is no token; [`Unsupported::Version`] where it is one of another version, or has a claim
    /// that this version does not know (a limit that is not understood must not be passed over);
    /// [`Unsupported::Parameters`] for more than 16 narrowings.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_TEXT {
            return Err(Malformed::Length.into());
        }
        let body = text.strip_prefix(PREFIX).ok_or_else(|| unknown_prefix(text))?;
        let mut bytes = Zeroizing::new(vec![0; body.len().saturating_mul(3) / 4]);
        let decoded = Base64UrlUnpadded::decode(body, &mut bytes).map_err(|_| Malformed::NotCanonical)?.len();
        if decoded != bytes.len() {
            return Err(Malformed::NotCanonical.into());
        }
        Self::from_text_and_bytes(Zeroizing::new(text.to_owned()), bytes)
    }

    /// The text, to hand the token on.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Begins a narrowed token. This one stays as it is.
    pub fn narrow(&self) -> Narrowing<'_> {
        Narrowing::new(self)
    }

    /// The id that the token says it has. The vault may have issued none such.
    #[must_use]
    pub fn unverified_id(&self) -> [u8; 16] {
        self.said.head.id
    }

    /// The number of the purpose that the token says it is for.
    #[must_use]
    pub fn unverified_purpose(&self) -> u16 {
        self.said.head.purpose
    }

    /// When the token says it ends: the first second in which it is refused, since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn unverified_expiry(&self) -> i64 {
        self.said.cuts.iter().filter_map(|cut| cut.expires).fold(self.said.head.expires, i64::min)
    }

    fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Result<Self> {
        let encoded = Zeroizing::new(Base64UrlUnpadded::encode_string(&bytes));
        // Taken in full before it is filled: a text that grows leaves copies.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len().saturating_add(encoded.len())));
        text.push_str(PREFIX);
        text.push_str(&encoded);
        if text.len() > MAX_TEXT {
            return Err(Unsupported::Parameters.into());
        }
        Self::from_text_and_bytes(text, bytes)
    }

    fn from_text_and_bytes(text: Zeroizing<String>, bytes: Zeroizing<Vec<u8>>) -> Result<Self> {
        let mut parts = Parts::split(&bytes)?;
        let head = Head::decode(parts.head)?;
        let mut cuts = Vec::new();
        while let Some(block) = parts.next_block()? {
            if cuts.len() == MAX_NARROWINGS {
                return Err(Unsupported::Parameters.into());
            }
            cuts.push(Cut::decode(block)?);
        }
        Ok(Token { text, bytes, said: Arc::new(Said { head, cuts }) })
    }

    /// Puts the parts together; the parser has the last word on what was put together.
    fn assemble(before: &[u8], block: &[u8], mac: &[u8; MAC_LEN]) -> Result<Self> {
        let prefix = varint_len(crate::wire::length(block));
        let length = [before.len(), prefix, block.len(), MAC_LEN].into_iter().fold(0, usize::saturating_add);
        if length > MAX_TEXT {
            return Err(Unsupported::Parameters.into());
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        bytes.put(before);
        bytes.put_bytes(block);
        bytes.put(mac);
        Self::from_bytes(bytes)
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Said(..)")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(cv1…, id ")?;
        self.said.head.id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// Where the parts of a token lie in its bytes.
struct Parts<'a> {
    head: &'a [u8],
    blocks: Reader<'a>,
    /// Everything before the MAC.
    before: &'a [u8],
    mac: &'a [u8; MAC_LEN],
}

impl<'a> Parts<'a> {
    fn split(bytes: &'a [u8]) -> Result<Self> {
        // First, so that a token of another version is called that, and not damaged.
        if bytes.first().is_some_and(|version| *version != VERSION) {
            return Err(Unsupported::Version.into());
        }
        let (before, mac) = bytes.split_last_chunk().ok_or(Malformed::Length)?;
        let mut blocks = Reader::new(before);
        blocks.u8()?;
        let head = blocks.bytes()?;
        Ok(Parts { head, blocks, before, mac })
    }

    fn next_block(&mut self) -> Result<Option<&'a [u8]>> {
        if self.blocks.is_empty() { Ok(None) } else { self.blocks.bytes().map(Some) }
    }
}

fn unknown_prefix(text: &str) -> Error {
    let version = text.strip_prefix("cv").and_then(|rest| rest.split_once('.')).map(|(version, _)| version);
    match version {
        Some(digits) if matches!(digits.len(), 1..=4) && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Unsupported::Version.into()
        }
        _ => Malformed::Content.into(),
    }
}
