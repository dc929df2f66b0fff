//! One change of a subject: read, decide, commit with its events and its log entry, and tell the witness. Whatever it
//! races with, it reads again and decides again.

use crate::clock::Day;
use crate::crypto;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::journal::Event;
use crate::key::Tag;
use crate::log;
use crate::store::{Batch, Committed, Expect, Key};
use crate::tree::ATTEMPTS;
use crate::vault::{Inner, Subject};
use crate::witness::Line;

/// What a change writes.
#[derive(Debug)]
pub(crate) struct Change<T> {
    pub(crate) entry: Entry,
    pub(crate) events: Vec<Event>,
    pub(crate) log: log::Entry,
    pub(crate) expect: Vec<(Key, Expect)>,
    pub(crate) writes: Vec<(Key, Option<Vec<u8>>)>,
    pub(crate) out: T,
}

impl<T> Change<T> {
    pub(crate) fn new(entry: Entry, log: log::Entry, out: T) -> Self {
        Change { entry, events: Vec::new(), log, expect: Vec::new(), writes: Vec::new(), out }
    }

    pub(crate) fn event(mut self, event: Event) -> Self {
        self.events.push(event);
        self
    }
}

/// What became of a change.
#[derive(Debug)]
pub(crate) struct Changed<T> {
    pub(crate) out: T,
    /// Whether the witness has it too. Where it could not be reached, the next call or open completes it.
    pub(crate) witnessed: bool,
}

/// The name of the row that says that a subject has something to destroy on a day.
pub(crate) const DUE: &[u8] = b"w";

pub(crate) fn due_name(day: Day, tag: &Tag) -> Key {
    [DUE, &day.number().to_be_bytes(), &tag[..]].concat()
}

pub(crate) fn due_of(name: &[u8]) -> Option<(Day, Tag)> {
    match name {
        [b'w', a, b, tag @ ..] => Some((Day(u16::from_be_bytes([*a, *b])), tag.try_into().ok()?)),
        _ => None,
    }
}

/// A change as one batch, before the lane's rows are added.
pub(crate) struct Assembled<T> {
    pub(crate) batch: Batch,
    pub(crate) log: log::Entry,
    /// Of the journal, for whoever has committed it.
    pub(crate) lines: Vec<Line>,
    pub(crate) out: T,
}

impl Inner {
    /// `edit` sees the subject as it is and says what it shall be; it may be asked again.
    pub(crate) async fn change<T>(
        &self,
        tag: &Tag,
        more: &[Key],
        mut edit: impl FnMut(&Subject, Option<Entry>) -> Result<Change<T>>,
    ) -> Result<Changed<T>> {
        for _ in 0..ATTEMPTS {
            let Some(made) = self.assemble(tag, more, &mut edit).await? else { continue };
            if self.lane.commit(made.batch, &[made.log]).await? == Committed::Yes {
                self.journal.committed(&made.lines)?;
                // Also where this change has no line: an earlier one's may not have reached the witness.
                let witnessed = self.journal.complete().await.is_ok();
                return Ok(Changed { out: made.out, witnessed });
            }
        }
        Err(Error::Busy)
    }

    /// Reads a subject, decides, and says what to commit; `None` where it was read too early.
    pub(crate) async fn assemble<T>(
        &self,
        tag: &Tag,
        more: &[Key],
        edit: &mut impl FnMut(&Subject, Option<Entry>) -> Result<Change<T>>,
    ) -> Result<Option<Assembled<T>>> {
        let subject = self.read_subject(tag, more).await?;
        let change = edit(&subject, self.tree.entry(&subject.found)?)?;
        let mut batch = Batch::new()?;
        self.tree.put_entry(&subject.found, &change.entry, &mut batch)?;
        if let Some(day) = change.entry.next_due() {
            batch.put(&due_name(day, tag), Vec::new());
        }
        for (name, expect) in &change.expect {
            batch.expect(name, *expect);
        }
        for (name, value) in change.writes {
            match value {
                Some(value) => batch.put(&name, value),
                None => batch.delete(&name),
            };
        }
        let (mut log, mut lines) = (change.log, Vec::new());
        if !change.events.is_empty() {
            // The n-th line of the journal names the tag: the n-th entry must not name the pseudonym, or every unlock
            // could be linked to the tombstone (ABUSE 44).
            log = log.anonymous(crypto::random()?);
            lines = match self.journal.stage(&mut batch, subject.fence.as_ref(), &change.events) {
                Err(Error::Busy) => return Ok(None),
                lines => lines?,
            };
        }
        Ok(Some(Assembled { batch, log, lines, out: change.out }))
    }
}
