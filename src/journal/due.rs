//! What lines say is to be destroyed, and when. The store has rows that say it too, by which a shred finds its work; but
//! whoever writes the store can take a row away, and no line.

use std::collections::{BTreeMap, HashMap};

use super::Event;
use crate::clock::Day;
use crate::key::Tag;

/// What was asked for, and what shreds have said is done.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// By day and subject, with the last line that asks, and whether something has left the entry already.
    asked: BTreeMap<(Day, Tag), (u64, bool)>,
    /// By their own lines.
    shreds: Vec<(u64, Option<Done>)>,
    done: Option<Done>,
}

/// Everything that lines up to a number ask for up to a day.
#[derive(Clone, Copy, Debug)]
struct Done {
    day: Day,
    lines: u64,
}

impl Due {
    pub(super) fn apply(&mut self, line: u64, event: &Event) {
        let mut ask = |day: Day, tag: &Tag, removed| {
            let asked = self.asked.entry((day, *tag)).or_default();
            *asked = (line, asked.1 | removed);
        };
        match event {
            Event::Forgot { tag, due, keeps, .. } => {
                ask(*due, tag, false);
                for (_, until) in keeps {
                    ask(until.plus(1).max(*due), tag, false);
                }
            }
            Event::Withdrew { tag, due, .. } => ask(*due, tag, false),
            // What was to wait does so no more.
            Event::Again { tag, .. } => ask(Day(0), tag, false),
            Event::Released { tag, .. } => ask(Day(0), tag, true),
            Event::Shredded { day, lines, .. } => {
                self.done = Some(Done { day: *day, lines: *lines });
                self.shreds.push((line, self.done));
            }
            // A copy that had so many lines has what was shredded after them.
            Event::Restored { lines } if *lines > 0 => {
                let before = self.shreds.iter().rev().find(|(line, _)| line <= lines);
                self.done = before.and_then(|(_, done)| *done);
                self.shreds.push((line, self.done));
            }
            _ => {}
        }
    }

    /// Whom lines name up to a day that no shred has dealt with, each with whether something has left the entry already.
    pub(super) fn until(&self, today: Day) -> HashMap<Tag, bool> {
        let mut due = HashMap::new();
        for ((day, tag), (line, removed)) in self.asked.range(..=(today, [u8::MAX; 16])) {
            if self.done.is_none_or(|done| *day > done.day || *line > done.lines) {
                *due.entry(*tag).or_default() |= removed;
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::{Due, Event};
    use crate::clock::Day;

    #[test]
    fn what_lines_ask_for_is_due_from_its_day_until_a_shred_has_read_them() {
        let mut due = Due::default();
        let tag = |tag| [tag; 16];
        let forgot =
            |who, day, keeps| Event::Forgot { tag: tag(who), state: 1, at_ms: 0, due: Day(day), keeps };
        let shredded = |day, lines| Event::Shredded { day: Day(day), epoch_left: 1, lines };
        let whom = |due: &Due, day| {
            let mut whom: Vec<_> =
                due.until(Day(day)).into_iter().map(|(tag, left)| (tag[0], left)).collect();
            whom.sort_unstable();
            whom
        };
        due.apply(1, &forgot(1, 10, vec![(3, Day(20)), (4, Day(5))]));
        due.apply(2, &Event::Withdrew { tag: tag(2), state: 1, purpose: 1, due: Day(11) });
        assert_eq!([9, 10, 11].map(|day| whom(&due, day).len()), [0, 1, 2]);
        due.apply(3, &Event::Released { tag: tag(3), state: 1 });
        due.apply(4, &Event::Again { tag: tag(4), state: 1, generation: 2 });
        assert_eq!(whom(&due, 0), [(3, true), (4, false)]);
        // One that had read three lines.
        due.apply(5, &shredded(10, 3));
        assert_eq!((whom(&due, 10), whom(&due, 11)), (vec![(4, false)], vec![(2, false), (4, false)]));
        // What is kept ends by its own day.
        due.apply(6, &shredded(20, 5));
        assert_eq!((whom(&due, 20), whom(&due, 21)), (vec![], vec![(1, false)]));
        // Asked for again, by a line that no shred has read.
        due.apply(7, &forgot(2, 11, Vec::new()));
        assert_eq!(whom(&due, 20), [(2, false)]);
        // A copy with five lines has what the second shred took.
        due.apply(8, &Event::Restored { lines: 5 });
        assert_eq!(whom(&due, 20), [(2, false), (4, false)]);
        due.apply(9, &Event::Restored { lines: 4 });
        assert_eq!(whom(&due, 20).len(), 4);
    }
}
