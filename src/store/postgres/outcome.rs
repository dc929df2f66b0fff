//! What a database's error means for the caller. Its text is dropped: it quotes what was sent.

use std::io;

use crate::error::{Error, Misuse, StoreError};

/// How a statement failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The database has undone it and asks to run it again.
    Repeat,
    /// Another transaction holds a row for too long, and nothing was done: to be run again for a while.
    Locked,
    /// The connection is gone, before or after it was done.
    Lost,
    /// The connection was gone before anything was sent.
    NotSent,
    /// The database has refused it, and nothing was done.
    Said(StoreError),
}

impl Failure {
    pub(crate) fn into_store(self) -> StoreError {
        match self {
            Failure::Said(why) => why,
            Failure::Locked => StoreError::Timeout,
            Failure::Repeat => StoreError::Io(io::ErrorKind::ResourceBusy),
            Failure::Lost | Failure::NotSent => StoreError::Unreachable,
        }
    }

    pub(crate) fn before_anything(self) -> Self {
        if self == Failure::Lost { Failure::NotSent } else { self }
    }

    /// A standby makes no serializable transactions.
    pub(crate) fn at_the_beginning(self) -> Self {
        if self == Failure::Said(UNSUPPORTED) { Failure::Said(StoreError::ReadOnly) } else { self }
    }

    /// A commit that was refused is undone where the database asks to repeat it; anything else may have happened after it
    /// was durable.
    pub(crate) fn at_the_commit(self) -> Self {
        if self == Failure::Repeat { self } else { Failure::Lost }
    }
}

const UNSUPPORTED: StoreError = StoreError::Io(io::ErrorKind::Unsupported);

pub(crate) fn failure(error: &tokio_postgres::Error) -> Failure {
    let Some(state) = error.code() else {
        // Without an answer of the database: the network or TLS, or a server that takes no writes while one that does was
        // asked for.
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
        let refused = cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
        return if refused { Failure::Said(StoreError::ReadOnly) } else { Failure::Lost };
    };
    by_code(state.code())
}

/// By the SQLSTATE.
fn by_code(code: &str) -> Failure {
    Failure::Said(match code {
        // To be made again: a serialization failure, a deadlock, or two transactions that made the same row, of which one
        // sees the other's at its next attempt.
        "40001" | "40P01" | "23505" => return Failure::Repeat,
        // A lock that another transaction holds: of the shop's, with a staged change.
        "55P03" => return Failure::Locked,
        "57014" => StoreError::Timeout,
        "0A000" => UNSUPPORTED,
        "25006" => StoreError::ReadOnly,
        "3D000" => StoreError::Empty,
        // A table or column that was there when the store was opened.
        "42P01" | "42703" => StoreError::Foreign,
        "42501" => StoreError::Refused,
        "53100" | "53200" => StoreError::Full,
        "53300" => StoreError::Exhausted,
        _ => match code.get(..2) {
            Some("28") => StoreError::Refused,
            Some("08" | "57") => return Failure::Lost,
            Some("XX" | "58") => StoreError::Damaged,
            _ => StoreError::Io(io::ErrorKind::Other),
        },
    })
}

/// What a staged change's failure means, by its SQLSTATE where the database has said one: somebody else was first, or what
/// the database says.
pub(crate) fn staged_failure(code: Option<&str>) -> Error {
    match code.map(by_code) {
        // What the statements raise themselves.
        _ if code == Some("22012") => Error::Busy,
        _ if code == Some("25P01") => Misuse::NoTransaction.into(),
        Some(Failure::Repeat) => Error::Busy,
        Some(why) => why.into_store().into(),
        None => StoreError::Unreachable.into(),
    }
}
