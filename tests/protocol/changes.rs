//! Changing and reading a subject, opening and recovering.

use crate::Mistake;
use crate::state::*;
use crate::steps::{Flow, Step, Turn};

const ALICES: [Row; 3] = [Row::Entry(ALICE), Row::Bucket, Row::Fence];

impl Turn<'_> {
    /// Whether the journal knows more than the rows say, or the root cannot be had.
    fn is_behind(&mut self) -> bool {
        let (store, keeper) = (self.world.store, self.world.keeper);
        let known = self.me().known;
        store.entries[ALICE].state < known.state() || store.epoch < known.epoch() || !keeper.holds(store.root)
    }

    pub(super) fn enroll_read(&mut self) -> Flow {
        if self.catch_up().is_none() || self.is_behind() {
            return Flow::Refused;
        }
        if self.world.store.entries[BOB].there {
            return Flow::Fails;
        }
        self.me().epoch = self.world.store.generation;
        self.note(&[Row::Entry(BOB), Row::Bucket]);
        Flow::Next
    }

    pub(super) fn enroll_commit(&mut self) -> Flow {
        if !self.unchanged(&[Row::Entry(BOB), Row::Bucket]) {
            return Flow::Back(Step::EnrollRead);
        }
        let under = self.me().epoch;
        self.world.store.entries[BOB] = Entry { there: true, under, key: true, ..Entry::default() };
        let touched = if self.mistake == Mistake::ChecksTheParentWithoutWriting {
            &[Row::Entry(BOB)][..]
        } else {
            &[Row::Entry(BOB), Row::Bucket]
        };
        self.wrote(touched);
        Flow::Next
    }

    pub(super) fn change_read(&mut self, forget: bool) -> Flow {
        if self.catch_up().is_none() || self.is_behind() {
            return Flow::Refused;
        }
        let entry = self.world.store.entries[ALICE];
        if !entry.there || entry.shredded || entry.forgotten == forget {
            return Flow::Fails;
        }
        self.note(&ALICES);
        if forget && self.mistake == Mistake::AcknowledgesBeforeTheCommit {
            self.world.truth.promised = true;
        }
        if forget && self.mistake == Mistake::TellsTheWitnessFirst {
            let mut lines = self.me().known;
            lines.push(Event::Forgot { state: entry.state + 1 });
            if lines.extends(&self.world.witness) {
                self.world.witness = lines;
            }
        }
        Flow::Next
    }

    fn change_commit(&mut self, event: impl Fn(u8) -> Event) -> bool {
        if !self.unchanged(&ALICES) {
            return false;
        }
        let entry = &mut self.world.store.entries[ALICE];
        entry.state += 1;
        let event = event(entry.state);
        entry.forgotten = matches!(event, Event::Forgot { .. });
        entry.referenced = entry.forgotten;
        self.world.store.lines.push(event);
        self.wrote(&ALICES);
        self.me().known = self.world.store.lines;
        self.me().grant = None;
        true
    }

    pub(super) fn forget_commit(&mut self) -> Flow {
        if !self.change_commit(|state| Event::Forgot { state }) {
            return Flow::Back(Step::ForgetRead);
        }
        self.world.truth.alice_lives = false;
        for (at, process) in self.world.processes.iter_mut().enumerate() {
            if at != self.at {
                process.old = process.job == Job::Unlock && process.step > 0;
                process.grant = process.grant.map(|grant| Grant { old: true, ..grant });
            }
        }
        Flow::Next
    }

    /// The bound passes: what counts from before the forget is stale.
    pub(super) fn forget_wait(&mut self) -> Flow {
        if self.mistake != Mistake::ForgetDoesNotWait {
            for process in &mut self.world.processes {
                process.grant = process.grant.filter(|grant| !grant.old);
                if process.old && self.mistake != Mistake::LeaseCountsFromTheAnswer {
                    process.end();
                }
            }
        }
        // Somebody may have undone it meanwhile.
        self.world.truth.promised = self.world.store.lines.forgotten();
        Flow::Next
    }

    pub(super) fn undo_commit(&mut self) -> Flow {
        if !self.change_commit(|state| Event::Undone { state }) {
            return Flow::Back(Step::UndoRead);
        }
        self.world.truth.promised = false;
        Flow::Next
    }

    pub(super) fn unlock_read(&mut self) -> Flow {
        if self.catch_up().is_none() || self.is_behind() {
            return Flow::Refused;
        }
        let entry = self.world.store.entries[ALICE];
        let me = self.me();
        if me.known.forgotten() || entry.forgotten || !entry.key {
            return Flow::Fails;
        }
        (me.epoch, me.old) = (me.known.state(), false);
        self.note(&[Row::Fence]);
        Flow::Next
    }

    /// The log entry, under the precondition that the fence row is as it was read.
    pub(super) fn unlock_commit(&mut self) -> Flow {
        let late = self.mistake == Mistake::LeaseCountsFromTheAnswer;
        if !self.unchanged(&[Row::Fence]) && !late {
            return Flow::Back(Step::UnlockRead);
        }
        let me = self.me();
        me.grant = Some(Grant { state: me.epoch, old: me.old && !late });
        Flow::Next
    }

    /// Keeps a lease alive: reads the fence row, takes in what it says, and writes under the precondition that it is still
    /// that.
    pub fn watch(&mut self) -> Flow {
        if self.mistake != Mistake::WatchTakesNothingIn && self.catch_up().is_none() {
            return Flow::Refused;
        }
        let me = self.me();
        me.grant = me.grant.map(|grant| Grant { old: false, ..grant });
        Flow::Next
    }

    pub(super) fn lost_fence(&mut self) -> Flow {
        let lines = self.world.store.lines;
        let me = self.me();
        if me.known.count() >= lines.count() && !me.known.extends(&lines) {
            return Flow::Refused;
        }
        me.epoch = lines.count();
        self.note(&[Row::Fence]);
        Flow::Next
    }

    /// Each lost line about Alice, in order.
    pub(super) fn replay(&mut self) -> Flow {
        let (known, from) = (self.me().known, usize::from(self.me().epoch));
        let mut entry = self.world.store.entries[ALICE];
        let lost = known.events().skip(from);
        let mut next = lost.filter_map(|event| match event {
            Event::Forgot { state } => Some((state, true)),
            Event::Undone { state } => Some((state, false)),
            Event::Root { .. } => None,
        });
        let Some((state, forgot)) = next.find(|(state, _)| *state > entry.state) else {
            return Flow::Next;
        };
        entry.state = state;
        if forgot && !entry.there {
            entry = Entry { there: true, forgotten: true, shredded: true, state, ..Entry::default() };
        } else if !entry.shredded {
            entry.forgotten = forgot;
            entry.referenced = false;
        }
        if self.mistake != Mistake::RecoverReplaysNothing {
            entry.under = self.world.store.generation;
            self.world.store.entries[ALICE] = entry;
            self.wrote(&[Row::Entry(ALICE), Row::Bucket]);
            return Flow::Again;
        }
        self.world.store.entries[ALICE].state = state;
        Flow::Again
    }

    pub(super) fn write_back(&mut self) -> Flow {
        let (known, from) = (self.me().known, self.me().epoch);
        if known.count() <= from {
            return Flow::Next;
        }
        if !self.unchanged(&[Row::Fence]) && self.mistake != Mistake::WritesBackOverWhatCameSince {
            return Flow::Fails;
        }
        self.world.store.lines = known;
        self.wrote(&[Row::Fence]);
        Flow::Next
    }
}
