//! Legal holds: what a forget, a withdrawal or an expiry would destroy stays, for `LegalHold` alone.
//!
//! For purpose keys that is policy: the key is there, and grants for its own purpose do not get it. For days it is
//! cryptography: only the shelves of the held subject outlive the day key, under a hold key in the subject's entry.

use zeroize::Zeroizing;

use crate::actor::{Actor, Ground, SubjectId};
use crate::change::Change;
use crate::clock::Day;
use crate::crypto;
use crate::entry::Held;
use crate::error::{Error, Malformed, Misuse, Result};
use crate::grant::HeldShelves;
use crate::journal::{Event, FENCE};
use crate::key::{Hold, Secret, Tag};
use crate::log::Action;
use crate::row::{Part, Plain, Row, wrap};
use crate::store::{Batch, Committed, Expect, Key, Range};
use crate::tree::ATTEMPTS;
use crate::vault::{Inner, Vault};

/// The row that every hold and every release writes: dropping a day expects it unchanged, so that no hold can come
/// between looking for the held and dropping.
pub(crate) const GUARD: &[u8] = b"g";
const SHELVES: &[u8] = b"h";

fn shelves_of(tag: &Tag) -> Key {
    [SHELVES, &tag[..]].concat()
}

fn shelves_under(tag: &Tag, held: &Held) -> Key {
    [SHELVES, &tag[..], &held.serial].concat()
}

fn shelf_name(tag: &Tag, held: &Held, day: Day) -> Key {
    [&shelves_under(tag, held)[..], &day.number().to_be_bytes()].concat()
}

impl Vault {
    /// Places a legal hold on a subject. Purposes in use go on as before.
    ///
    /// # Errors
    ///
    /// [`Error::NotEnrolled`]; a second hold leaves the first as it is.
    pub async fn hold(&self, id: &SubjectId, actor: &Actor, ground: &Ground) -> Result<()> {
        let inner = &self.0;
        inner
            .change(id, &[GUARD.to_vec()], |subject, entry| {
                let mut entry = entry.ok_or(Error::NotEnrolled)?;
                let log = inner.about(inner.entry_by(Action::Hold, actor, ground)?, &entry);
                if entry.meta.held.is_some() {
                    return Ok(Change::new(entry, log, ()));
                }
                entry.meta.held = Some(Held {
                    serial: crypto::random()?,
                    since_ms: inner.clock.wall(),
                    ground: ground.code().to_owned(),
                });
                entry.hold = Some(Secret::random()?);
                entry.meta.state = entry.meta.state.saturating_add(1);
                let (tag, state) = (subject.tag, entry.meta.state);
                let mut change = Change::new(entry, log, ()).event(Event::Held { tag, state });
                change.writes.push((GUARD.to_vec(), Some(Vec::new())));
                change
                    .expect
                    .push((GUARD.to_vec(), Expect::unchanged(subject.more.first().and_then(Option::as_ref))));
                Ok(change)
            })
            .await?;
        Ok(())
    }

    /// Releases a hold. The hold key is dropped; all that the hold kept is destroyed by the next shred.
    ///
    /// # Errors
    ///
    /// [`Misuse::NotHeld`], [`Error::NotEnrolled`].
    pub async fn release_hold(&self, id: &SubjectId, actor: &Actor, ground: &Ground) -> Result<()> {
        let inner = &self.0;
        let tag = inner.read_subject(id, &[]).await?.tag;
        // Dead ciphertext once the hold key is gone, of earlier holds too: it goes in the same commit.
        let shelves = inner.rows.all(Range::prefix(&shelves_of(&tag))).await?;
        inner
            .change(id, &[GUARD.to_vec()], |subject, entry| {
                let mut entry = entry.ok_or(Error::NotEnrolled)?;
                let log = inner.about(inner.entry_by(Action::ReleaseHold, actor, ground)?, &entry);
                entry.meta.held.take().ok_or(Misuse::NotHeld)?;
                entry.hold = None;
                for generation in &mut entry.meta.generations {
                    for standing in generation.purposes.values_mut() {
                        standing.held = false;
                    }
                }
                entry.meta.state = entry.meta.state.saturating_add(1);
                let state = entry.meta.state;
                let mut change = Change::new(entry, log, ()).event(Event::Released { tag, state });
                change.removed = Some(inner.today());
                change.writes.push((GUARD.to_vec(), Some(Vec::new())));
                change.writes.extend(shelves.iter().map(|(name, _)| (name.clone(), None)));
                change
                    .expect
                    .push((GUARD.to_vec(), Expect::unchanged(subject.more.first().and_then(Option::as_ref))));
                Ok(change)
            })
            .await?;
        inner.wait_out_bound().await;
        Ok(())
    }
}

/// Keeps the shelves of all held subjects for days that are about to be dropped. Returns what must still hold when they
/// are dropped.
///
/// Who is held the journal says, which nobody who writes the store can cut: it is read up to the moment at which the guard
/// was.
pub(crate) async fn keep_shelves(inner: &Inner, days: &[Day]) -> Result<(Key, Expect)> {
    let asked = inner.journal.known();
    let rows = inner.rows.read(&[GUARD.to_vec(), FENCE.to_vec()]).await?;
    let [guard, fence] = rows.as_slice() else { return Err(Malformed::Length.into()) };
    inner.journal.catch_up(inner.journal.head_of(fence.as_ref())?, asked).await?;
    let mut subjects: Vec<Tag> = inner
        .journal
        .with(|state| state.fences.iter().filter(|(_, fence)| fence.held).map(|(tag, _)| *tag).collect());
    subjects.sort_unstable();
    for tag in subjects {
        let mut attempts = 0_usize;
        while keep_subject(inner, &tag, days).await? == Committed::Conflict {
            attempts = attempts.saturating_add(1);
            if attempts > ATTEMPTS {
                return Err(Error::Busy);
            }
        }
    }
    Ok((GUARD.to_vec(), Expect::unchanged(guard.as_ref())))
}

async fn keep_subject(inner: &Inner, tag: &Tag, days: &[Day]) -> Result<Committed> {
    let subject = inner.read_named(tag).await?;
    let Some(entry) = inner.tree.entry(&subject.found)? else { return Ok(Committed::Yes) };
    let (Some(hold), Some(held)) = (&entry.hold, &entry.meta.held) else { return Ok(Committed::Yes) };
    let names: Vec<Key> = days.iter().map(|day| shelf_name(tag, held, *day)).collect();
    let kept = inner.rows.read(&names).await?;
    let parent = node(hold)?.parent(inner.tree.suite);
    let mut batch = Batch::new()?;
    for ((day, name), row) in days.iter().zip(&names).zip(&kept) {
        // One row a subject and day, made once: a day that is run again finds it there.
        if row.is_some() {
            continue;
        }
        // Gone from memory and still in the store: it has to be read again, or the shelf would be lost with the day.
        let Some(day_key) = inner.calendar.day(*day) else { return Err(Error::Busy) };
        let mut parts = Vec::new();
        for ((generation, purpose), key) in &entry.keys {
            let shelf = Secret::combine(&day_key, key);
            let part = Part { kind: 1, generation: *generation, purpose: *purpose };
            parts.push((part, Zeroizing::new(shelf.expose().to_vec())));
        }
        batch.expect(name, Expect::Absent);
        batch.put(name, wrap(&parent, &inner.id, name, 0, &Plain { generation: 0, parts })?);
    }
    if batch.writes.is_empty() {
        return Ok(Committed::Yes);
    }
    // A key that is added to the entry meanwhile would be missing: the entry has to be as it was read.
    batch.expect(&subject.found.name, Expect::unchanged(subject.found.row.as_ref()));
    inner.rows.commit(batch).await
}

/// The shelves that a hold has kept.
pub(crate) async fn shelves(
    inner: &Inner,
    tag: &Tag,
    held: &Held,
    hold: &Secret<Hold>,
) -> Result<HeldShelves> {
    let parent = node(hold)?.parent(inner.tree.suite);
    let mut shelves = HeldShelves::new();
    for (name, row) in inner.rows.all(Range::prefix(&shelves_under(tag, held))).await? {
        let [.., a, b] = name.as_slice() else { return Err(Malformed::Length.into()) };
        let day = Day(u16::from_be_bytes([*a, *b]));
        for (part, bytes) in Row::parse(&row.value)?.open_all(&parent, &inner.id, &name)?.parts {
            let shelf = Secret::from_slice(&bytes).ok_or(Error::DoesNotOpen)?;
            shelves.insert((part.generation, part.purpose, day), shelf);
        }
    }
    Ok(shelves)
}

/// A hold key wraps rows as a node does.
fn node(hold: &Secret<Hold>) -> Result<Secret<crate::key::Node>> {
    Secret::from_slice(hold.expose()).ok_or(Error::DoesNotOpen)
}
