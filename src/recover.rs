//! Replaying what a restored store has lost: every erasure that the witness remembers is done again before anything
//! opens.

use std::collections::{HashMap, HashSet};

use crate::change::due_name;
use crate::clock::Day;
use crate::entry::{Entry, Forgotten, Generation, Held};
use crate::error::{Error, Result, RolledBack};
use crate::journal::{Course, Event, Journal, State};
use crate::key::{Secret, Tag};
use crate::store::Committed;
use crate::tree::{ATTEMPTS, Draft, Tree};

/// Does again what the store has lost, then writes the lost lines back, with one that says that it is under way, and
/// replaces the root. Returns how many lines were lost. It may be run again after a crash: each step finds its own work done.
///
/// Where entries may have moved, all are looked at, so that no row that says where one lies can be taken away.
///
/// # Errors
///
/// [`RolledBack::Mixed`] before anything is written where the copy's keys are not `believes` to be those of then.
pub(crate) async fn replay(
    tree: &Tree,
    journal: &Journal,
    now_ms: i64,
    believes: impl Fn(&Course) -> bool,
) -> Result<u64> {
    let (lost, fence) = journal.lost().await?;
    let lines = journal.head_of(fence.as_ref())?.number;
    if !lost.is_empty() && !journal.with(|state| believes(&state.course_of(lines))) {
        return Err(RolledBack::Mixed.into());
    }
    let moved = journal.with(State::moved);
    let whose: HashSet<Tag> = lost.iter().filter_map(|(_, event)| Some(subject_of(event)?.0)).collect();
    let places = if moved && !whose.is_empty() { tree.places_of(&whose).await? } else { HashMap::new() };
    for (_, event) in &lost {
        if let Some((tag, state)) = subject_of(event) {
            again(tree, places.get(&tag).unwrap_or(&tag), state, event, Day::of(now_ms)).await?;
        }
    }
    journal.write_back(&lost, fence.as_ref()).await?;
    tree.leap(journal, now_ms).await?;
    Ok(u64::try_from(lost.len()).unwrap_or(u64::MAX))
}

fn subject_of(event: &Event) -> Option<(Tag, u64)> {
    match event {
        Event::Forgot { tag, state, .. }
        | Event::Undone { tag, state }
        | Event::Again { tag, state, .. }
        | Event::Withdrew { tag, state, .. }
        | Event::Consented { tag, state, .. }
        | Event::Held { tag, state }
        | Event::Released { tag, state } => Some((*tag, *state)),
        _ => None,
    }
}

fn takes_away(event: &Event) -> bool {
    matches!(event, Event::Forgot { .. } | Event::Withdrew { .. } | Event::Released { .. })
}

async fn again(tree: &Tree, place: &Tag, state: u64, event: &Event, today: Day) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let (found, _) = tree.find(place, &[]).await?;
        let mut entry = tree.entry(&found)?.unwrap_or_default();
        if entry.meta.state >= state {
            return Ok(());
        }
        entry.meta.state = state;
        apply(&mut entry, event)?;
        let mut draft = Draft::new()?;
        tree.put_entry(&found, &entry, &mut draft)?;
        if let Some(day) = entry.next_due() {
            draft.put(&due_name(day, place), Vec::new());
        }
        if takes_away(event) {
            // Also where the entry is not there, or lacks what it takes: other copies may have it, under this bucket.
            draft.put(&due_name(today, place), vec![1]);
        }
        if matches!(event, Event::Held { .. } | Event::Released { .. }) {
            draft.put(crate::hold::GUARD, Vec::new());
        }
        if tree.rows.commit(draft.done()).await? == Committed::Yes {
            return Ok(());
        }
    }
    Err(Error::Busy)
}

fn apply(entry: &mut Entry, event: &Event) -> Result<()> {
    match event {
        Event::Forgot { at_ms, due, keeps, .. } => {
            if entry.meta.generations.is_empty() {
                // Enrolled after the copy was made: its keys are lost, and the tombstone stands.
                entry.meta.generations.push(tombstone(1, *at_ms));
            }
            let Some(newest) = entry.meta.generations.last_mut() else { return Ok(()) };
            if newest.forgotten.as_ref().is_some_and(|forgotten| forgotten.shredded) {
                // A tombstone stays one: without keys there is nothing to shred, to certify or to undo.
                return Ok(());
            }
            newest.forgotten = Some(Forgotten { due: *due, ..forgotten(*at_ms) });
            for (purpose, until) in keeps {
                newest.purposes.entry(*purpose).or_default().until = Some(*until);
            }
        }
        Event::Undone { .. } => {
            if let Some(newest) = entry.meta.generations.last_mut()
                && newest.forgotten.as_ref().is_some_and(|forgotten| !forgotten.shredded)
            {
                newest.forgotten = None;
                newest.purposes.values_mut().for_each(|standing| standing.until = None);
            }
        }
        // The new enrolment's keys were made after the copy and are lost; new ones must not come by themselves.
        Event::Again { generation, .. }
            if entry.newest().is_none_or(|newest| newest.number < *generation) =>
        {
            entry.meta.generations.push(tombstone(*generation, 0));
        }
        Event::Withdrew { purpose, due, .. } => {
            if let Some(newest) = entry.meta.generations.last_mut() {
                newest.purposes.entry(*purpose).or_default().withdrawn = Some(*due);
            }
            entry.withdraw_before(*purpose, *due);
        }
        Event::Held { .. } => {
            let serial = crate::crypto::random()?;
            entry.meta.held = Some(Held { serial, since_ms: 0, ground: "recovered".to_owned() });
            // Where there is nothing to keep, one comes with the next enrolment.
            entry.hold = if entry.keys.is_empty() { None } else { Some(Secret::random()?) };
        }
        Event::Released { .. } => {
            entry.meta.held = None;
            entry.hold = None;
            for generation in &mut entry.meta.generations {
                generation.purposes.values_mut().for_each(|standing| standing.held = false);
            }
        }
        // The evidence of the new consent is lost, and the former one has ended with it: the person has to be asked again.
        Event::Consented { purpose, .. } => {
            if let Some(newest) = entry.meta.generations.last_mut()
                && let Some(standing) = newest.purposes.get_mut(purpose)
            {
                standing.consent = None;
            }
        }
        _ => {}
    }
    Ok(())
}

fn tombstone(number: u16, at_ms: i64) -> Generation {
    Generation {
        number,
        serial: [0; 16],
        enrolled_ms: at_ms,
        forgotten: Some(Forgotten { shredded: true, ..forgotten(at_ms) }),
        purposes: std::collections::BTreeMap::new(),
    }
}

/// The certificate of a forget that is replayed was issued or was due in the store that was lost; it has no reference
/// here.
fn forgotten(at_ms: i64) -> Forgotten {
    Forgotten {
        at_ms,
        due: Day::of(at_ms),
        shredded: false,
        reference: [0; 16],
        commitment: [0; 32],
        actor: String::new(),
        approver: String::new(),
        ground: String::new(),
    }
}
