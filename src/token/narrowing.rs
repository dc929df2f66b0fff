//! Narrowing: what a holder can do without the vault.

use super::claims::Reach;
use super::verify::{next_mac, subject_hint};
use super::{Cut, FieldRef, Fields, MAX_NARROWINGS, Parts, Token};
use crate::actor::{Actor, SubjectId};
use crate::crypto::Prf;
use crate::error::{Error, Misuse, Result, Unsupported};

/// A narrowed token in the making. Each limit can be set once; [`done`](Self::done) says what was wrong.
#[must_use = "`done` makes the narrowed token"]
pub struct Narrowing<'a> {
    token: &'a Token,
    /// Of the MAC that the narrowed token will no longer carry.
    key: Prf,
    cut: Cut,
    refused: Option<Error>,
}

impl<'a> Narrowing<'a> {
    pub(super) fn new(token: &'a Token) -> Self {
        let (key, refused) = match Parts::split(&token.bytes) {
            Ok(parts) => (Prf::new(parts.mac), None),
            Err(error) => (Prf::new(&[0; 32]), Some(error)),
        };
        Narrowing { token, key, cut: Cut::default(), refused }
    }

    /// To one subject. Whoever gets the narrowed token cannot tell which. A token that is narrowed to two different
    /// subjects, one after the other, reaches neither.
    pub fn subject(mut self, id: &SubjectId) -> Self {
        let hint = subject_hint(&self.key, id);
        let twice = self.cut.subject.replace(hint).is_some();
        self.once(twice)
    }

    /// To these fields, which must be among those that the token reaches.
    pub fn fields(mut self, fields: &[FieldRef]) -> Self {
        match Fields::new(fields) {
            Ok(fields) => {
                let twice = self.cut.fields.replace(fields).is_some();
                self.once(twice)
            }
            Err(error) => self.refuse(error),
        }
    }

    /// To an earlier end: the first second in which it is refused, since 1970-01-01T00:00:00Z.
    pub fn expires_at(mut self, seconds: i64) -> Self {
        let twice = self.cut.expires.replace(seconds).is_some();
        self.once(twice)
    }

    /// To a later start: the first second in which it is accepted, since 1970-01-01T00:00:00Z.
    pub fn not_before(mut self, seconds: i64) -> Self {
        let twice = self.cut.not_before.replace(seconds).is_some();
        self.once(twice)
    }

    /// Names a further actor, who will stand in the log beside those before. Revoking any of them ends the token.
    pub fn actor(mut self, actor: Actor) -> Self {
        let twice = self.cut.actor.replace(actor).is_some();
        self.once(twice)
    }

    /// The narrowed token.
    ///
    /// # Errors
    ///
    /// [`Denied::Wider`](crate::error::Denied::Wider) where a limit lies outside what the token itself states; [`Misuse::Period`] where nothing is
    /// left between start and end; [`Misuse::Setting`] where no limit was set, or one twice; [`Misuse::Identifier`]
    /// for a record label that cannot be one; [`Unsupported::Parameters`] for a 17th narrowing, for an empty list of
    /// fields, or where the text would be longer than 8 KiB.
    pub fn done(self) -> Result<Token> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        if self.cut == Cut::default() {
            return Err(Misuse::Setting.into());
        }
        if self.token.said.cuts.len() >= MAX_NARROWINGS {
            return Err(Unsupported::Parameters.into());
        }
        let mut reach = Reach::after(&self.token.said.head, &self.token.said.cuts)?;
        reach.cut(&self.cut)?;
        if reach.not_before >= reach.expires {
            return Err(Misuse::Period.into());
        }
        append(self.token, &self.key, &self.cut.encode())
    }

    fn once(self, twice: bool) -> Self {
        if twice { self.refuse(Misuse::Setting.into()) } else { self }
    }

    fn refuse(mut self, error: Error) -> Self {
        self.refused.get_or_insert(error);
        self
    }
}

impl std::fmt::Debug for Narrowing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Narrowing").field("token", self.token).finish_non_exhaustive()
    }
}

/// Adds a block under the token's own MAC, whatever the block says.
pub(super) fn append(token: &Token, key: &Prf, block: &[u8]) -> Result<Token> {
    let parts = Parts::split(&token.bytes)?;
    Token::assemble(parts.before, block, &next_mac(key, block))
}
