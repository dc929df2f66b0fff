//! What can go wrong, by what the caller does next.
//!
//! No variant holds text made from input, so that an error can be logged as it is: a parser's own message would quote
//! the card number that it could not read.

use std::io;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One variant for each thing that a caller can do about it. [`Error::code`] is stable across versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The token, its actor or its purpose may not do this. Ask for another token.
    #[error("denied: {0}")]
    Denied(#[from] Denied),
    /// The person was forgotten, or the purpose is over for them. Final, unless `undo_forget` still can.
    #[error("erased: {0}")]
    Erased(#[from] Erased),
    /// The subject was never enrolled here. Enroll it, or check the id.
    #[error("not enrolled: enroll the subject first")]
    NotEnrolled,
    /// Wrong key, wrong context, or altered bytes: they look alike on purpose.
    #[error("does not open")]
    DoesNotOpen,
    /// A single field was opened and is not there for this grant.
    #[error("absent: {0}")]
    Absent(#[from] Absent),
    /// The grant or the sealer has outlived its freshness. Take a new one.
    #[error("stale: take a new grant or sealer and try again")]
    Stale,
    /// Written by another version, or with parameters outside what this version accepts.
    #[error("unsupported: {0}")]
    Unsupported(#[from] Unsupported),
    /// Store, keeper and witness do not belong to one moment. See `Vault::recover`.
    #[error("rolled back: {0}")]
    RolledBack(#[from] RolledBack),
    /// Somebody else changed the same thing. Try again.
    #[error("busy: somebody else changed it, try again")]
    Busy,
    /// Frozen, or the clock cannot be trusted. An operator has to act.
    #[error("halted: {0}")]
    Halted(#[from] Halted),
    /// The store failed.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The keeper or the witness failed.
    #[error("keeper: {0}")]
    Keeper(#[from] KeeperError),
    /// Bytes that are no sealed value, token or note of ours.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    /// A value that its type refuses.
    #[error("invalid: {0}")]
    Invalid(#[from] crate::value::Invalid),
    /// The declarations contradict what the vault has stored.
    #[error("contradiction: {0}")]
    Contradiction(#[from] Contradiction),
    /// The call itself is wrong.
    #[error("misuse: {0}")]
    Misuse(#[from] Misuse),
    /// A backup cannot be made, or its parts cannot be used.
    #[error("backup: {0}")]
    Backup(#[from] BackupError),
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system")]
    NoRandomness,
}

impl Error {
    /// Stable, short, and fit for a metric's label.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Error::Denied(_) => "denied",
            Error::Erased(_) => "erased",
            Error::NotEnrolled => "not-enrolled",
            Error::DoesNotOpen => "does-not-open",
            Error::Absent(_) => "absent",
            Error::Stale => "stale",
            Error::Unsupported(_) => "unsupported",
            Error::RolledBack(_) => "rolled-back",
            Error::Busy => "busy",
            Error::Halted(_) => "halted",
            Error::Store(_) => "store",
            Error::Keeper(_) => "keeper",
            Error::Malformed(_) => "malformed",
            Error::Invalid(_) => "invalid",
            Error::Contradiction(_) => "contradiction",
            Error::Misuse(_) => "misuse",
            Error::Backup(_) => "backup",
            Error::NoRandomness => "no-randomness",
        }
    }
}

/// Declares an enum of reasons, each with its one line.
macro_rules! reasons {
    ($( $(#[$doc:meta])* $name:ident { $( $(#[$vdoc:meta])* $variant:ident = $text:literal, )+ } )+) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        #[non_exhaustive]
        pub enum $name { $( $(#[$vdoc])* #[error($text)] $variant, )+ }
    )+ };
}

reasons! {
    /// Why a token or a ticket was refused.
    Denied {
        /// Not a token or ticket of this vault: forged, altered, or another vault's.
        NotOurs = "not a token or ticket of this vault",
        /// Its last second has passed.
        Expired = "the token or ticket has expired",
        /// Its first second has not come.
        NotYet = "the token or ticket is not valid yet",
        /// Revoked by id, actor, purpose, or with all others.
        Revoked = "the token was revoked",
        /// It names another purpose.
        Purpose = "the token or ticket is for another purpose",
        /// It does not reach this subject.
        Subject = "the token or ticket does not reach this subject",
        /// It does not reach this field.
        Field = "the token does not reach this field",
        /// It would live longer than the vault's policy allows.
        Lifetime = "the token or ticket would live longer than the policy allows",
        /// A ticket that is sealed to another recipient's key.
        Recipient = "the ticket is for another recipient",
        /// A narrowing that would widen.
        Wider = "a token can only be narrowed",
    }
    /// What is over for a subject.
    Erased {
        /// Forgotten: nothing of the subject opens or seals.
        Forgotten = "the subject was forgotten",
        /// The purpose has no key any more.
        Purpose = "this purpose is over for the subject",
        /// The grace period of a forget is over: it cannot be undone.
        GraceOver = "the grace period is over",
        /// Consent was withdrawn, or never given.
        NoConsent = "there is no consent for this purpose",
    }
    /// Why a field that may be read is not there.
    Absent {
        /// Its last day for this purpose is over.
        Expired = "its last day for this purpose is over",
        /// The consent was withdrawn, or the purpose is over for this subject.
        Withdrawn = "the purpose is over for this subject",
        /// The token does not reach the field.
        NotInToken = "the token does not reach the field",
        /// Sealed under a declaration that did not name this purpose.
        NotForThisPurpose = "it was not sealed for this purpose",
        /// The ticket has no key for the day to which it was sealed.
        NotInTicket = "the ticket does not reach the day to which it was sealed",
        /// Not declared, or without any basis, when this was sealed.
        NotSealedThen = "it was not sealed",
    }
    /// What this version cannot read.
    Unsupported {
        /// An unknown format version.
        Version = "an unknown format version",
        /// An unknown suite.
        Suite = "an unknown suite",
        /// Parameters beyond the accepted bounds.
        Parameters = "parameters beyond the accepted bounds",
    }
    /// Which part is older than the others.
    RolledBack {
        /// The store is older than the witness remembers. `Vault::recover` replays what it lost.
        Store = "the store is older than the witness remembers: recover replays the erasures",
        /// The root of this copy of the store is destroyed: that is what destroying it was for.
        Gone = "the root key of this copy of the store is destroyed: it opens for nobody",
        /// The keeper lacks the root that the store names.
        Keeper = "the keeper lacks the root key that the store names: restore the newest keeper",
        /// The witness is older than the store says.
        Witness = "the witness is older than the store says: restore the newest witness",
        /// Rows of one store come from different moments.
        Mixed = "rows of the store come from different moments",
    }
    /// Why nothing goes on.
    Halted {
        /// Frozen by an operator.
        Frozen = "frozen by an operator",
        /// The clock jumped beyond the bound. `confirm_time` lets it pass.
        Clock = "the clock jumped: an operator has to confirm the time",
    }
    /// What the keeper or the witness said.
    KeeperError {
        /// The passphrase or the key does not fit.
        WrongSecret = "the passphrase or key does not open it",
        /// The file or object is damaged.
        Damaged = "damaged",
        /// It belongs to another vault.
        Foreign = "it belongs to another vault",
        /// Another process holds it.
        Locked = "another process holds it",
        /// It cannot be reached now.
        Unreachable = "it cannot be reached",
        /// It takes no writes: a standby, or a database that was made read-only.
        ReadOnly = "read-only: connect to the primary",
        /// It refused the role, its password, or what it may do.
        Refused = "it refused the role or its privileges",
        /// It does not hold what a vault needs of it: keys that could be taken out, or entries that go by themselves.
        Unfit = "it cannot make keys that stay inside, or keep entries that stay",
        /// It says destroyed and still unwraps.
        StillUnwraps = "it still opens what it says it has destroyed",
        /// Roots of the vault still lie with the keeper before it: see [`Handover`](crate::keeper::Handover).
        HandoverUnderWay = "roots still lie with the keeper before it: open the vault with a handover from that one",
        /// The disk is full.
        Full = "no space left",
        /// The second copy of a key file cannot be read or written. Nothing was changed; reading goes on.
        Copy = "the second copy cannot be reached or written: nothing is changed until it can",
        /// Others may write to the file, own it, or may replace it in its folder: they could put back an older one.
        Exposed = "others may write to it or replace it: mend its permissions, owner or folder",
        /// Reading or writing failed.
        Io = "reading or writing failed",
        /// There is no such root key.
        NoSuchRoot = "there is no such root key",
        /// The environment variable that should hold the secret is not set.
        NotSet = "the environment variable that should hold the secret is not set",
        /// There is nothing at this place.
        Missing = "there is nothing at this place",
        /// There is something at this place already.
        Exists = "there is something at this place already",
    }
    /// How bytes fail to be ours.
    Malformed {
        /// Shorter or longer than they say.
        Length = "shorter or longer than it says",
        /// A second encoding of the same thing.
        NotCanonical = "not canonical",
        /// Not in the required order, or twice.
        Order = "out of order, or twice",
        /// Something that this place cannot hold.
        Content = "something that this place cannot hold",
    }
    /// How a declaration contradicts the registry.
    Contradiction {
        /// A purpose's number has another label, or its label another number.
        PurposeRenamed = "a purpose's number or label is taken by another",
        /// A purpose's basis changed.
        BasisChanged = "a purpose's basis changed",
        /// A field's number has another label, or its label another number.
        FieldRenamed = "a field's number or label is taken by another",
        /// A field's number was reserved.
        FieldReserved = "a reserved field number or label is used again",
        /// Two declarations have the same record label.
        RecordTwice = "two declarations share a record label",
    }
    /// What is wrong with a backup, its parts or where they are to go.
    BackupError {
        /// The part ends too early: it was cut off, or the backup was not finished.
        Truncated = "a part ends too early: it was cut off, or never finished",
        /// A part, an index or a manifest is not as it was written.
        Altered = "a part, index or manifest is not as it was written",
        /// A part, index or manifest is none of ours, or of a version that this one does not know.
        Foreign = "not a backup of this version",
        /// It is of another vault.
        OtherVault = "of another vault",
        /// The first part is no full backup, or a full one comes later.
        NotFull = "the first part must be a full backup, and no other",
        /// An increment is missing, or stands in the wrong place.
        Missing = "an increment is missing or stands in the wrong place",
        /// There are no parts.
        NoParts = "there are no parts",
        /// The manifest does not belong to the index, or is not one of this vault.
        WrongBase = "the index is not that of the manifest",
        /// The store to restore into has rows in it.
        NotEmpty = "the store to restore into is not empty",
        /// The store cannot show all rows as of one moment.
        NoMoment = "the store cannot show all rows as of one moment",
        /// A part or an index cannot be read.
        Read = "reading it failed",
        /// A part or an index cannot be written.
        Write = "writing it failed",
        /// There is no room for it.
        Full = "no space left for it",
        /// What was restored did not show what a drill asks for.
        Drill = "what was restored is not what it must be",
    }
    /// A call that cannot be meant.
    Misuse {
        /// An identifier is empty, too long, or has a character that it may not have.
        Identifier = "an identifier is empty, too long, or has a character that it may not have",
        /// The value is larger than 16 MiB.
        TooLarge = "larger than a cell may be",
        /// A day that is over, or beyond the calendar.
        Day = "a day that is over, or beyond the calendar",
        /// The as-of date lies after today.
        AsOfFuture = "an as-of date after today",
        /// The sealer has made as many seals as it may. Take a new one.
        SealsUsedUp = "the sealer has made as many seals as it may: take a new one",
        /// The record was not given when the vault was opened.
        UnknownRecord = "the record was not given when the vault was opened",
        /// The purpose was not given when the vault was opened.
        UnknownPurpose = "the purpose was not given when the vault was opened",
        /// A touched cell cannot be opened by this grant, and not every field of it is set.
        UpdateCannotOpen = "the grant cannot open a touched cell: set every field of it, or use a grant that can",
        /// The subject is enrolled already.
        AlreadyEnrolled = "the subject is enrolled already",
        /// There is nothing to undo.
        NothingToUndo = "there is nothing to undo",
        /// There is no hold.
        NotHeld = "the subject is not held",
        /// Statements of a staged change outside a transaction.
        NoTransaction = "a staged change must be run in a transaction",
        /// The store has no transactions of the shop's to go with.
        NotStaged = "the store has no transactions of the shop's own to go with",
        /// The purpose's basis is not consent.
        NotConsent = "the purpose's basis is not consent",
        /// There is a former key of this kind still: retire it first.
        FormerKey = "there is a former key of this kind still: retire it first",
        /// Something alive needs the former key.
        InUse = "something that is alive needs the former key",
        /// The purpose is built in and cannot be used here.
        BuiltIn = "a built-in purpose cannot be used here",
        /// The shop's setting is outside what is accepted.
        Setting = "a setting is outside what is accepted",
        /// A period that ends before it starts, or lies outside what can be stated.
        Period = "a period that ends before it starts",
    }
}

/// What a store said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process holds it.
    #[error("another process holds it")]
    Locked,
    /// The disk is full.
    #[error("no space left")]
    Full,
    /// What lies there is damaged.
    #[error("damaged")]
    Damaged,
    /// What lies there is no store of ours, or of a version that this one does not know.
    #[error("not a store of this version")]
    Foreign,
    /// There is no vault in it.
    #[error("no vault in it: create one")]
    Empty,
    /// A restore into it, or a recover, was not finished: nothing opens. Begin it again.
    #[error("a restore into it, or a recover, was not finished: begin it again")]
    Unfinished,
    /// There is a vault in it already.
    #[error("there is a vault in it already: open it")]
    Exists,
    /// The outcome of a commit is not known, and could not be found out.
    #[error("the outcome of a commit is not known")]
    Unknown,
    /// A standby answered, or a database that was made read-only. Connect to the primary.
    #[error("read-only: connect to the primary")]
    ReadOnly,
    /// A copy of the database that may take its place lacks what was committed: a root key that it would need is not
    /// destroyed. Let it catch up, or drop its replication slot.
    #[error("a standby is behind: let it catch up, or drop its slot")]
    Behind,
    /// The database could not be reached, or the connection was lost.
    #[error("it cannot be reached")]
    Unreachable,
    /// No connection became free in time: the pool is too small, or the database takes no more.
    #[error("no connection became free in time")]
    Exhausted,
    /// No answer in time, or the database's own time limit has ended the statement.
    #[error("no answer in time")]
    Timeout,
    /// The database refused the role, its password, or what it may do.
    #[error("the database refused the role or its privileges")]
    Refused,
    /// The connection string, the schema's or the table's name, or the certificates cannot be used.
    #[error("the connection's settings cannot be used")]
    Settings,
    /// The store was closed, or its thread has ended after a failure.
    #[error("closed")]
    Closed,
    /// Reading or writing failed.
    #[error("reading or writing failed: {0}")]
    Io(io::ErrorKind),
}

impl From<io::ErrorKind> for StoreError {
    fn from(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
            kind => StoreError::Io(kind),
        }
    }
}
