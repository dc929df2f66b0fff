//! One change of a subject: read, decide, commit with its events and its log entry, and tell the witness. Whatever it
//! races with, it reads again and decides again.

mod parts;

use crate::actor::SubjectId;
use crate::clock::Day;
use crate::crypto;
use crate::entry::Entry;
use crate::error::{Error, Malformed, Misuse, Result};
use crate::journal::{Event, FENCE};
use crate::key::Tag;
use crate::log;
use crate::store::{Batch, Committed, Expect, Key};
use crate::tree::node::tag_of;
use crate::tree::{ATTEMPTS, Draft, Tree};
use crate::vault::{Inner, Other, Subject};
use crate::witness::Line;

pub(crate) use parts::{CHUNK, Item, Work, both, in_parts};

/// What a change writes.
#[derive(Debug)]
pub(crate) struct Change<T> {
    pub(crate) entry: Entry,
    pub(crate) events: Vec<Event>,
    pub(crate) log: log::Entry,
    pub(crate) expect: Vec<(Key, Expect)>,
    pub(crate) writes: Vec<(Key, Option<Vec<u8>>)>,
    /// A key has left the entry: from this day on, a shred of its bucket makes that true of older copies too.
    pub(crate) removed: Option<Day>,
    /// It is made so that the entry moves.
    pub(crate) moves: bool,
    pub(crate) out: T,
}

impl<T> Change<T> {
    pub(crate) fn new(entry: Entry, log: log::Entry, out: T) -> Self {
        let (events, expect, writes) = (Vec::new(), Vec::new(), Vec::new());
        Change { entry, events, log, expect, writes, removed: None, moves: false, out }
    }

    /// The same, with something else to give.
    pub(crate) fn giving<U>(self, out: U) -> Change<U> {
        let Change { entry, events, log, expect, writes, removed, moves, .. } = self;
        Change { entry, events, log, expect, writes, removed, moves, out }
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

/// Changes as one batch, before the lane's rows are added.
pub(crate) struct Assembled<T> {
    pub(crate) batch: Batch,
    /// Empty where nothing is to be changed.
    pub(crate) logs: Vec<log::Entry>,
    /// Of the journal, for whoever has committed it.
    pub(crate) lines: Vec<Line>,
    pub(crate) out: T,
}

impl<T> Assembled<Vec<Result<T>>> {
    /// Of one subject.
    pub(crate) fn single(self) -> Result<Assembled<T>> {
        let Assembled { batch, logs, lines, mut out } = self;
        Ok(Assembled { batch, logs, lines, out: out.pop().ok_or(Malformed::Length)?? })
    }
}

impl Inner {
    /// `edit` sees the subject as it is and says what it shall be; it may be asked again.
    pub(crate) async fn change<T>(
        &self,
        id: &SubjectId,
        more: &[Key],
        mut edit: impl FnMut(&Subject, Option<Entry>) -> Result<Change<T>>,
    ) -> Result<Changed<T>> {
        for _ in 0..ATTEMPTS {
            let edit = |_: usize, subject: &Subject, entry| edit(subject, entry);
            if let Some(mut changed) = self.try_change(&[id], more, edit).await? {
                return changed.pop().ok_or(Malformed::Length)?;
            }
        }
        Err(Error::Busy)
    }

    /// Changes several subjects, each of which `ids` names once, in one commit; `None` where it lost a race. One that
    /// `edit`, which is told its place, refuses to change stays as it is, and the others go on.
    pub(crate) async fn try_change<T>(
        &self,
        ids: &[&SubjectId],
        more: &[Key],
        edit: impl FnMut(usize, &Subject, Option<Entry>) -> Result<Change<T>>,
    ) -> Result<Option<Vec<Result<Changed<T>>>>> {
        let Some(made) = self.assemble(ids, more, edit).await? else { return Ok(None) };
        let mut witnessed = true;
        if !made.logs.is_empty() {
            if self.commit_change(made.batch, &made.logs).await? == Committed::Conflict {
                return Ok(None);
            }
            self.journal.committed(&made.lines)?;
            // Also where this change has no line: an earlier one's may not have reached the witness.
            witnessed = self.journal.tell().await;
        }
        let changed = |out: Result<T>| out.map(|out| Changed { out, witnessed });
        Ok(Some(made.out.into_iter().map(changed).collect()))
    }

    /// Adds the writing of an entry to a batch, and says where it lies from then on, and whether it has moved. One that
    /// lies under a former lookup key comes to lie under the one that is used, unless something of it is `due`: that is
    /// destroyed where it lies.
    fn put_subject(
        &self,
        subject: &Subject,
        entry: &mut Entry,
        due: bool,
        draft: &mut Draft,
    ) -> Result<(Tag, bool)> {
        let (mut leaves, mut moved) = (None, false);
        let found = match &subject.other {
            Some(Other::Newest(newest)) if !due => {
                let place = tag_of(&subject.found.name).ok_or(Malformed::Length)?;
                // Of those that are closed only the tag is of use.
                let mut places = 0..;
                entry.meta.left.retain(|(_, open)| places.next() == Some(0) || *open);
                if entry.meta.left.len() >= usize::from(u8::MAX) {
                    return Err(Misuse::TooLarge.into());
                }
                entry.meta.left.push((place, true));
                entry.meta.lookup = subject.lookup.unwrap_or_default();
                (leaves, moved) = (Some(&subject.found), true);
                newest
            }
            Some(Other::Newest(_)) => &subject.found,
            other => {
                entry.meta.lookup = subject.lookup.unwrap_or(entry.meta.lookup);
                if subject.meta.is_none() {
                    // A process that has not noticed a change of the lookup key enrolls nobody under the former one.
                    draft.expect(FENCE, Expect::unchanged(subject.fence.as_ref()));
                }
                if let Some(Other::Former(former)) = other {
                    draft.expect(&former.name, Expect::unchanged(former.row.as_ref()));
                    // What lies there was put back, or is the tombstone of an earlier enrolment, which stays.
                    let place = tag_of(&former.name);
                    let left = entry.meta.left.iter().any(|(left, _)| Some(*left) == place);
                    leaves = (left && former.row.is_some()).then_some(former);
                }
                &subject.found
            }
        };
        self.tree.put_entry(found, entry, draft)?;
        // After what may fail: the others of the draft are committed all the same.
        if let Some(former) = leaves {
            Tree::take_entry(former, draft);
        }
        Ok((tag_of(&found.name).ok_or(Malformed::Length)?, moved))
    }

    /// Reads subjects, decides, and says what to commit; `None` where they were read too early.
    pub(crate) async fn assemble<T>(
        &self,
        ids: &[&SubjectId],
        more: &[Key],
        mut edit: impl FnMut(usize, &Subject, Option<Entry>) -> Result<Change<T>>,
    ) -> Result<Option<Assembled<Vec<Result<T>>>>> {
        let mut draft = Draft::new()?;
        let (mut out, mut events, mut logs) = (Vec::with_capacity(ids.len()), Vec::new(), Vec::new());
        let (mut fence, mut moves) = (None, 0_u32);
        let subjects = self.read_subjects(ids, more).await?;
        self.refuse_if_recovering()?;
        // Nobody moves before the witness knows of the change: who recovers a copy from before has to hear of it.
        let told = if self.ring().lookup().1.is_some() { self.journal.complete().await } else { Ok(()) };
        for (place, subject) in subjects.into_iter().enumerate() {
            let one = || {
                let subject = subject?;
                let entry = self.tree.entry(&subject.found)?;
                // As it was read: what this change makes due moves, and both buckets are rotated.
                let due =
                    entry.as_ref().and_then(Entry::next_due).is_some_and(|day| day <= self.trusted_today());
                let erased = entry.as_ref().is_none_or(Entry::is_erased);
                let mut change = edit(place, &subject, entry)?;
                if subject.other.is_some() && (erased || change.moves) {
                    // Nor does anybody come to lie anew, under either key.
                    told?;
                }
                let log = if change.events.is_empty() {
                    change.log
                } else {
                    // The n-th line of the journal names the tag: the n-th entry must not name the pseudonym, or every
                    // unlock could be linked to the tombstone (ABUSE 44).
                    change.log.anonymous(crypto::random()?)
                };
                change.entry.keep_hold()?;
                // From here on it is in the batch.
                let (place, moved) =
                    self.put_subject(&subject, &mut change.entry, due || told.is_err(), &mut draft)?;
                moves = moves.saturating_add(moved.into());
                // Another copy may have an entry there of which this store knows nothing.
                let other = match &subject.other {
                    Some(Other::Newest(other) | Other::Former(other)) if !moved => tag_of(&other.name),
                    _ => None,
                };
                if let Some(day) = change.entry.next_due() {
                    draft.put(&due_name(day, &place), Vec::new());
                    if let Some(other) = &other {
                        draft.put(&due_name(day, other), vec![1]);
                    }
                }
                if let Some(day) = change.removed {
                    // Older copies have it, of every bucket that the entry has lain in.
                    let left = change.entry.meta.left.iter().filter(|(_, open)| *open);
                    for place in left.map(|(left, _)| left).chain(&other).chain([&place]) {
                        draft.put(&due_name(day, place), vec![1]);
                    }
                }
                for (name, expect) in &change.expect {
                    draft.expect(name, *expect);
                }
                for (name, value) in change.writes {
                    draft.write(&name, value);
                }
                events.extend(change.events);
                logs.push(log);
                fence = subject.fence;
                Ok(change.out)
            };
            out.push(one());
        }
        if moves > 0 {
            events.push(Event::Moved { subjects: moves });
        }
        let (mut batch, mut lines) = (draft.done(), Vec::new());
        if !events.is_empty() {
            lines = match self.journal.stage(&mut batch, fence.as_ref(), &events) {
                Err(Error::Busy) => return Ok(None),
                lines => lines?,
            };
        }
        Ok(Some(Assembled { batch, logs: log::Entry::joined(logs)?, lines, out }))
    }
}
