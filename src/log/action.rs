//! What was done and how it ended, as stable numbers with labels. A number is never used again for something else.

use std::fmt;

use crate::error::{Denied, Erased, Error, Halted};

/// Declares an enum whose variants have a number, which is stored, and a label, which is shown.
macro_rules! numbered {
    ($( $(#[$doc:meta])* $name:ident { $( $(#[$vdoc:meta])* $variant:ident = $number:literal $label:literal, )+ } )+) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name { $( $(#[$vdoc])* $variant, )+ }

        impl $name {
            #[cfg(test)]
            pub(crate) const ALL: &[$name] = &[$( $name::$variant, )+];

            /// The number that is stored.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self { $( $name::$variant => $number, )+ }
            }

            /// Short, stable, and fit for a metric's label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $( $name::$variant => $label, )+ }
            }

            pub(crate) const fn from_number(number: u8) -> Option<Self> {
                match number { $( $number => Some($name::$variant), )+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.label())
            }
        }
    )+ };
}

numbered! {
    /// What was done, or refused.
    Action {
        /// A process opened the vault.
        OpenVault = 1 "open-vault",
        /// A subject was enrolled.
        Enroll = 2 "enroll",
        /// A forgotten subject was enrolled again.
        EnrollAgain = 3 "enroll-again",
        /// Consent was recorded.
        Consent = 4 "consent",
        /// Consent was withdrawn, or an objection recorded.
        Withdraw = 5 "withdraw",
        /// A sealer was taken.
        Sealer = 6 "sealer",
        /// A token was issued.
        Issue = 7 "issue",
        /// Tokens were revoked.
        Revoke = 8 "revoke",
        /// A grant for one subject was taken.
        Unlock = 9 "unlock",
        /// Grants for a chunk of subjects were taken.
        UnlockMany = 10 "unlock-many",
        /// A record was stored.
        Put = 11 "put",
        /// A record was read from the vault's own store.
        Get = 12 "get",
        /// Records were listed.
        List = 13 "list",
        /// A sealed value was updated.
        Update = 14 "update",
        /// A sealed value got new days or purposes.
        Renew = 15 "renew",
        /// A record was deleted.
        Delete = 16 "delete",
        /// Days that are over were destroyed.
        Expire = 17 "expire",
        /// A subject was forgotten.
        Forget = 18 "forget",
        /// A forget was undone.
        UndoForget = 19 "undo-forget",
        /// Keys were destroyed and the root replaced.
        Shred = 20 "shred",
        /// Old roots were destroyed.
        Settle = 21 "settle",
        /// A legal hold was placed.
        Hold = 22 "hold",
        /// A legal hold was released.
        ReleaseHold = 23 "release-hold",
        /// Everything was stopped.
        Freeze = 24 "freeze",
        /// What was stopped goes on.
        Unfreeze = 25 "unfreeze",
        /// An operator confirmed the time.
        ConfirmTime = 26 "confirm-time",
        /// Erasures were replayed on a restored store.
        Recover = 27 "recover",
        /// The log was verified.
        Verify = 28 "verify",
        /// Records of a subject were exported.
        Export = 29 "export",
        /// A checkpoint was signed.
        Checkpoint = 30 "checkpoint",
        /// What stands of a subject was asked.
        Status = 31 "status",
        /// The blind index of a value was asked.
        Index = 32 "index",
        /// A ticket was given.
        Ticket = 33 "ticket",
        /// A key of the vault, or the suite of new seals, was changed.
        ChangeKey = 40 "change-key",
        /// Former keys were retired.
        RetireKeys = 41 "retire-keys",
        /// The root was replaced by itself.
        ReplaceRoot = 42 "replace-root",
        /// It was checked that all keys open under the root.
        Coverage = 43 "coverage",
        /// Subjects were moved to where the lookup key of now puts them.
        MoveSubjects = 44 "move-subjects",
        /// A backup was begun, or finished.
        Backup = 60 "backup",
        /// A backup was verified.
        VerifyBackup = 61 "verify-backup",
        /// A backup was restored.
        Restore = 62 "restore",
        /// A restore was rehearsed.
        Drill = 63 "drill",
        /// It was asked who can still read a subject.
        WhoCanRead = 64 "who-can-read",
    }
    /// Why it was refused: an [`Error`] without its details, in one byte.
    Refusal {
        /// [`Denied::NotOurs`].
        NotOurs = 16 "denied/not-ours",
        /// [`Denied::Expired`].
        Expired = 17 "denied/expired",
        /// [`Denied::NotYet`].
        NotYet = 18 "denied/not-yet",
        /// [`Denied::Revoked`].
        Revoked = 19 "denied/revoked",
        /// [`Denied::Purpose`].
        Purpose = 20 "denied/purpose",
        /// [`Denied::Subject`].
        Subject = 21 "denied/subject",
        /// [`Denied::Lifetime`].
        Lifetime = 22 "denied/lifetime",
        /// [`Denied::Wider`].
        Wider = 23 "denied/wider",
        /// [`Denied::Field`].
        Field = 24 "denied/field",
        /// [`Denied::Recipient`].
        Recipient = 25 "denied/recipient",
        /// [`Erased::Forgotten`].
        Forgotten = 32 "erased/forgotten",
        /// [`Erased::Purpose`].
        PurposeOver = 33 "erased/purpose",
        /// [`Erased::GraceOver`].
        GraceOver = 34 "erased/grace-over",
        /// [`Erased::NoConsent`].
        NoConsent = 35 "erased/no-consent",
        /// [`Halted::Frozen`].
        Frozen = 48 "halted/frozen",
        /// [`Halted::Clock`].
        Clock = 49 "halted/clock",
        /// [`Error::NotEnrolled`].
        NotEnrolled = 64 "not-enrolled",
        /// [`Error::DoesNotOpen`].
        DoesNotOpen = 65 "does-not-open",
        /// [`Error::Absent`].
        Absent = 66 "absent",
        /// [`Error::Stale`].
        Stale = 67 "stale",
        /// [`Error::Unsupported`].
        Unsupported = 68 "unsupported",
        /// [`Error::RolledBack`].
        RolledBack = 69 "rolled-back",
        /// [`Error::Busy`].
        Busy = 70 "busy",
        /// [`Error::Store`].
        Store = 71 "store",
        /// [`Error::Keeper`].
        Keeper = 72 "keeper",
        /// [`Error::Malformed`].
        Malformed = 73 "malformed",
        /// [`Error::Invalid`].
        Invalid = 74 "invalid",
        /// [`Error::Contradiction`].
        Contradiction = 75 "contradiction",
        /// [`Error::Misuse`].
        Misuse = 76 "misuse",
        /// [`Error::NoRandomness`].
        NoRandomness = 77 "no-randomness",
        /// [`Error::Backup`].
        Backup = 80 "backup",
    }
    /// What is counted in an entry.
    Count {
        /// Subjects.
        Subjects = 1 "subjects",
        /// Records.
        Records = 2 "records",
        /// Days.
        Days = 3 "days",
        /// Root keys.
        Roots = 4 "roots",
        /// Entries of the log.
        Entries = 5 "entries",
        /// Lanes of the log.
        Lanes = 6 "lanes",
        /// Tokens.
        Tokens = 7 "tokens",
        /// The root epoch that was left.
        Epoch = 8 "epoch",
        /// Causes beyond those that the entry lists.
        MoreCauses = 9 "more-causes",
        /// The number of a key.
        Key = 10 "key",
        /// Rows of the store.
        Rows = 20 "rows",
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        match error {
            Error::Denied(reason) => match reason {
                Denied::NotOurs => Refusal::NotOurs,
                Denied::Expired => Refusal::Expired,
                Denied::NotYet => Refusal::NotYet,
                Denied::Revoked => Refusal::Revoked,
                Denied::Purpose => Refusal::Purpose,
                Denied::Subject => Refusal::Subject,
                Denied::Lifetime => Refusal::Lifetime,
                Denied::Wider => Refusal::Wider,
                Denied::Field => Refusal::Field,
                Denied::Recipient => Refusal::Recipient,
            },
            Error::Erased(reason) => match reason {
                Erased::Forgotten => Refusal::Forgotten,
                Erased::Purpose => Refusal::PurposeOver,
                Erased::GraceOver => Refusal::GraceOver,
                Erased::NoConsent => Refusal::NoConsent,
            },
            Error::Halted(reason) => match reason {
                Halted::Frozen => Refusal::Frozen,
                Halted::Clock => Refusal::Clock,
            },
            Error::NotEnrolled => Refusal::NotEnrolled,
            Error::DoesNotOpen => Refusal::DoesNotOpen,
            Error::Absent(_) => Refusal::Absent,
            Error::Stale => Refusal::Stale,
            Error::Unsupported(_) => Refusal::Unsupported,
            Error::RolledBack(_) => Refusal::RolledBack,
            Error::Busy => Refusal::Busy,
            Error::Store(_) => Refusal::Store,
            Error::Keeper(_) => Refusal::Keeper,
            Error::Malformed(_) => Refusal::Malformed,
            Error::Invalid(_) => Refusal::Invalid,
            Error::Contradiction(_) => Refusal::Contradiction,
            Error::Misuse(_) => Refusal::Misuse,
            Error::NoRandomness => Refusal::NoRandomness,
            Error::Backup(_) => Refusal::Backup,
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Granted, or done.
    Done,
    /// Refused.
    Refused(Refusal),
}

impl Outcome {
    /// 0, or the refusal's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::Refused(refusal) => refusal.number(),
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        if number == 0 { Some(Outcome::Done) } else { Refusal::from_number(number).map(Outcome::Refused) }
    }
}

impl<T> From<&crate::error::Result<T>> for Outcome {
    fn from(result: &crate::error::Result<T>) -> Self {
        result.as_ref().map_or_else(|error| Outcome::Refused(error.into()), |_| Outcome::Done)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done => f.write_str("done"),
            Outcome::Refused(refusal) => write!(f, "refused:{refusal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Count, Outcome, Refusal};
    use crate::error::{Denied, Error, Misuse};

    #[test]
    fn numbers_and_labels_are_unique_and_lead_back() {
        macro_rules! check {
            ($($name:ident)+) => { $(
                for one in $name::ALL {
                    assert_eq!($name::from_number(one.number()), Some(*one));
                    let same = $name::ALL.iter().filter(|other| {
                        other.number() == one.number() || other.label() == one.label()
                    });
                    assert_eq!(same.count(), 1, "{one}");
                }
                assert_eq!((0..=255).filter_map($name::from_number).count(), $name::ALL.len());
            )+ };
        }
        check!(Action Refusal Count);
        assert_eq!(Refusal::from_number(0), None, "0 is the outcome that is no refusal");
    }

    #[test]
    fn an_error_becomes_one_byte() {
        let outcome = |result: Result<(), Error>| Outcome::from(&result);
        assert_eq!(outcome(Ok(())).number(), 0);
        assert_eq!(outcome(Err(Denied::Revoked.into())).to_string(), "refused:denied/revoked");
        assert_eq!(outcome(Err(Misuse::Day.into())), Outcome::Refused(Refusal::Misuse));
        for refusal in Refusal::ALL {
            let outcome = Outcome::Refused(*refusal);
            assert_eq!(Outcome::from_number(outcome.number()), Some(outcome));
        }
        assert_eq!(Outcome::from_number(255), None);
    }
}
