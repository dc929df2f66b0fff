//! Who acts, and why. Every call that releases or changes something takes both, and both stand in the log.

use std::fmt;
use std::sync::Arc;

use crate::error::{Misuse, Result};

/// What kind of actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ActorKind {
    /// A person who works for the shop.
    Staff,
    /// A program of the shop.
    Service,
    /// Somebody else, such as a carrier.
    ThirdParty,
}

impl ActorKind {
    pub(crate) const fn number(self) -> u8 {
        match self {
            ActorKind::Staff => 1,
            ActorKind::Service => 2,
            ActorKind::ThirdParty => 3,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(ActorKind::Staff),
            2 => Some(ActorKind::Service),
            3 => Some(ActorKind::ThirdParty),
            _ => None,
        }
    }

    /// As it stands in reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            ActorKind::Staff => "staff",
            ActorKind::Service => "service",
            ActorKind::ThirdParty => "third-party",
        }
    }
}

/// Who acts. The name stands in the log and in certificates: a role or an account, no customer's data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Actor {
    kind: ActorKind,
    /// Shared: it is cloned with every verified token.
    name: Arc<str>,
}

impl Actor {
    /// A person who works for the shop.
    ///
    /// # Errors
    ///
    /// [`Misuse::Identifier`] unless the name is 1 to 64 of `A-Z a-z 0-9 . _ : @ -`.
    pub fn staff(name: &str) -> Result<Self> {
        Self::new(ActorKind::Staff, name)
    }

    /// A program of the shop.
    ///
    /// # Errors
    ///
    /// As [`Actor::staff`].
    pub fn service(name: &str) -> Result<Self> {
        Self::new(ActorKind::Service, name)
    }

    /// Somebody else, such as a carrier.
    ///
    /// # Errors
    ///
    /// As [`Actor::staff`].
    pub fn third_party(name: &str) -> Result<Self> {
        Self::new(ActorKind::ThirdParty, name)
    }

    pub(crate) fn new(kind: ActorKind, name: &str) -> Result<Self> {
        if identifier(name) { Ok(Actor { kind, name: name.into() }) } else { Err(Misuse::Identifier.into()) }
    }

    /// What kind.
    #[must_use]
    pub fn kind(&self) -> ActorKind {
        self.kind
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.label(), self.name)
    }
}

/// A code for why, such as `parcel` or `ticket:4711`. It stands in the log: no customer's data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ground(Arc<str>);

impl Ground {
    /// From a code.
    ///
    /// # Errors
    ///
    /// [`Misuse::Identifier`] unless it is 1 to 64 of `A-Z a-z 0-9 . _ : @ -`.
    pub fn new(code: &str) -> Result<Self> {
        if identifier(code) { Ok(Ground(code.into())) } else { Err(Misuse::Identifier.into()) }
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn identifier(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'@' | b'-'))
}

/// What the shop calls a person, 1 to 256 bytes. Only a keyed hash of it is stored.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SubjectId(Box<str>);

impl SubjectId {
    /// Takes any text without control characters. Two texts that differ in one byte are two subjects: normalise
    /// before, if your ids are typed by people.
    ///
    /// # Errors
    ///
    /// [`Misuse::Identifier`] where it is empty, longer than 256 bytes, or has a control character.
    pub fn new(id: &str) -> Result<Self> {
        if id.is_empty() || id.len() > 256 || id.chars().any(char::is_control) {
            return Err(Misuse::Identifier.into());
        }
        Ok(SubjectId(id.into()))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubjectId(..)")
    }
}
