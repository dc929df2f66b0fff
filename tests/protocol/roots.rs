//! Replacing and destroying roots, shredding and settling.

use crate::Mistake;
use crate::state::*;
use crate::steps::{Flow, Step, Turn};

impl Turn<'_> {
    /// The keeper first: another process may move both between the two calls, the store before the keeper.
    pub(super) fn keeper_held(&mut self) -> Flow {
        if self.mistake == Mistake::AsksTheStoreBeforeTheKeeper {
            return self.ask_store();
        }
        self.me().held = self.world.keeper.roots;
        Flow::Next
    }

    pub(super) fn keeper_store(&mut self) -> Flow {
        if self.mistake == Mistake::AsksTheStoreBeforeTheKeeper {
            self.me().held = self.world.keeper.roots;
        } else if self.ask_store() == Flow::Refused {
            return Flow::Refused;
        }
        let me = self.me();
        let beyond = |held: &Held| matches!(held, Held::Activated(epoch) if *epoch > me.epoch);
        if me.held.iter().any(beyond) { Flow::Refused } else { Flow::Next }
    }

    fn ask_store(&mut self) -> Flow {
        if self.catch_up().is_none() {
            return Flow::Refused;
        }
        let (epoch, root) = (self.world.store.epoch, self.world.store.root);
        let me = self.me();
        (me.epoch, me.candidate) = (epoch, root);
        Flow::Next
    }

    pub(super) fn keeper_activate(&mut self) -> Flow {
        let (epoch, root) = (self.me().epoch, self.me().candidate);
        if self.world.keeper.holds(root) {
            return self.activated(epoch, root);
        }
        // Replaced and destroyed by another process since, or truly lacking.
        if self.world.store.root == root { Flow::Refused } else { Flow::Next }
    }

    fn activated(&mut self, epoch: u8, root: u8) -> Flow {
        let keeper = &mut self.world.keeper;
        if epoch <= keeper.active_epoch() && self.mistake != Mistake::ActivatesBackwards {
            return Flow::Next;
        }
        if !keeper.holds(root) {
            return Flow::Fails;
        }
        keeper.roots[usize::from(root)] = Held::Activated(epoch);
        keeper.active = root;
        self.world.truth.activated = self.world.truth.activated.max(epoch);
        Flow::Next
    }

    /// A candidate that lost.
    pub(super) fn lost_candidate(&mut self) -> Option<u8> {
        let mistake = self.mistake;
        let me = *self.me();
        let lost = |id: &u8| {
            let Held::Candidate(epoch) = me.held[usize::from(*id)] else { return false };
            let was_root = me.known.epoch_of(*id).is_some() && mistake != Mistake::ForgetsWhatWasARoot;
            let passed = epoch < me.epoch || mistake == Mistake::DestroysCandidatesTooEarly;
            !was_root && *id != me.candidate && passed
        };
        (1..).take(ROOTS).find(lost)
    }

    pub(super) fn keeper_destroy(&mut self) -> Flow {
        let Some(id) = self.lost_candidate() else { return Flow::Next };
        self.me().held[usize::from(id)] = Held::No;
        if self.world.keeper.active == id {
            return Flow::Fails;
        }
        self.world.keeper.roots[usize::from(id)] = Held::No;
        Flow::Again
    }

    /// A batch that is still removing is taken over: what it removed stands, the rest is still due.
    pub(super) fn take_over(&mut self) -> Flow {
        let batches = &mut self.world.store.batches;
        let removing = |phase: &Phase| matches!(phase, Phase::Removing { .. });
        if let Some(slot) = batches.iter().position(removing) {
            if let Phase::Removing { made } = batches[slot] {
                batches[slot] = Phase::Rotating { made };
            }
            self.wrote(&[Row::Batch(slot)]);
            return Flow::Again;
        }
        Flow::Next
    }

    /// The batches of which only the root is left to replace.
    pub(super) fn complete(&mut self, leaps: bool) -> Flow {
        self.me().read = Versions::default();
        self.me().held = Roots::default();
        self.me().candidate = 0;
        self.me().epoch = self.world.store.epoch;
        let mut any = leaps;
        for (slot, phase) in self.world.store.batches.into_iter().enumerate() {
            if matches!(phase, Phase::Rotating { .. }) {
                self.note(&[Row::Batch(slot)]);
                any = true;
            }
        }
        if any { Flow::Next } else { Flow::Past(Step::TellRoot) }
    }

    /// Roots beyond the store's epoch: the restored copy does not know them.
    pub(super) fn leap_held(&mut self) -> Flow {
        let held = self.world.keeper.roots;
        let leaps_by_the_journal = self.mistake != Mistake::LeapsByTheKeeperAlone;
        let me = self.me();
        let mut any = leaps_by_the_journal && me.known.epoch() > me.epoch;
        for (id, held) in (0_u8..).zip(held) {
            let named = me.known.epoch_of(id).filter(|_| leaps_by_the_journal);
            let beyond = match held {
                Held::Activated(epoch) => Some(epoch),
                Held::Candidate(_) => named,
                Held::No => None,
            };
            if let Some(epoch) = beyond.filter(|epoch| *epoch > me.epoch) {
                me.held[usize::from(id)] = Held::Activated(epoch);
                any = true;
            }
        }
        if any { Flow::Next } else { Flow::Past(Step::LeapTell) }
    }

    pub(super) fn before(&mut self) -> Flow {
        if self.catch_up().is_none() || !self.world.keeper.holds(self.world.store.root) {
            return Flow::Refused;
        }
        self.note(&[Row::Epoch, Row::Bucket, Row::Fence]);
        self.me().epoch = self.world.store.epoch;
        Flow::Next
    }

    pub(super) fn candidate(&mut self) -> Flow {
        let epoch = self.me().epoch;
        let keeper = &mut self.world.keeper;
        if usize::from(keeper.made) == ROOTS {
            return Flow::Stuck;
        }
        keeper.made += 1;
        let id = keeper.made;
        keeper.roots[usize::from(id)] = Held::Candidate(epoch);
        self.me().candidate = id;
        if self.mistake == Mistake::ActivatesBeforeTheCommit {
            return self.activated(epoch + 1, id);
        }
        Flow::Next
    }

    /// The commit that decides: the epoch moves, its children are wrapped again, the old root is retired.
    pub(super) fn replace(&mut self) -> Flow {
        let me = *self.me();
        let batches: Vec<usize> = (0..BATCHES).filter(|slot| me.read.of(Row::Batch(*slot)) != 0).collect();
        let rows: Vec<Row> = batches.iter().map(|slot| Row::Batch(*slot)).collect();
        let mut expected = vec![Row::Epoch, Row::Bucket, Row::Fence];
        if self.mistake == Mistake::ReplacesWithoutTheChildren {
            expected = vec![Row::Epoch, Row::Fence];
        }
        if !self.unchanged(&expected) || !self.unchanged(&rows) {
            let leaps = crate::steps::script(me.job)[..usize::from(me.step)].contains(&Step::LeapHeld)
                && !crate::steps::script(me.job)[..usize::from(me.step)].contains(&Step::LeapTell);
            return Flow::Back(if leaps { Step::LeapComplete } else { Step::Complete });
        }
        let now = self.world.time;
        let known = me.known;
        let orphans = (0_u8..).zip(me.held).filter_map(|(id, held)| match held {
            Held::Activated(epoch) => Some((epoch, id)),
            _ => None,
        });
        let store = &mut self.world.store;
        let (left, old) = (store.epoch, store.root);
        let named = if self.mistake == Mistake::LeapsByTheKeeperAlone { 0 } else { known.epoch() };
        let mut next = left.max(named);
        for (epoch, id) in orphans {
            next = next.max(epoch);
            store.retired[usize::from(epoch)] = Retired { id, at: now };
        }
        next += 1;
        for slot in batches {
            if let Phase::Rotating { made } = store.batches[slot] {
                store.batches[slot] = Phase::Left { made, epoch: left };
            }
        }
        store.retired[usize::from(left)] = Retired { id: old, at: now };
        (store.epoch, store.root) = (next, me.candidate);
        if self.unchanged(&[Row::Bucket]) {
            self.world.store.under = next;
        }
        self.world.store.lines.push(Event::Root { epoch: next, id: me.candidate });
        self.wrote(&[Row::Epoch, Row::Bucket, Row::Fence]);
        self.wrote(&rows);
        self.world.truth.left_at[usize::from(old)] = now;
        let lines = self.world.store.lines;
        let me = self.me();
        (me.known, me.epoch) = (lines, next);
        Flow::Next
    }

    pub(super) fn activate(&mut self) -> Flow {
        let (epoch, id) = (self.me().epoch, self.me().candidate);
        self.activated(epoch, id)
    }

    pub(super) fn due(&mut self) -> Flow {
        let entry = self.world.store.entries[ALICE];
        self.me().made = 0;
        if entry.forgotten && !entry.shredded { Flow::Next } else { Flow::Ahead(Step::ShredDone) }
    }

    pub(super) fn begin(&mut self) -> Flow {
        let batches = &mut self.world.store.batches;
        let Some(slot) = batches.iter().position(|phase| *phase == Phase::None) else { return Flow::Stuck };
        batches[slot] = Phase::Removing { made: 0 };
        self.wrote(&[Row::Batch(slot)]);
        self.me().batch = u8::try_from(slot).unwrap();
        Flow::Next
    }

    fn slot(&mut self) -> usize {
        usize::from(self.me().batch)
    }

    pub(super) fn removal(&mut self) -> Flow {
        let (slot, made) = (self.slot(), self.me().made);
        if self.world.store.batches[slot] != (Phase::Removing { made }) {
            return Flow::Fails;
        }
        if !self.world.keeper.holds(self.world.store.root) {
            return Flow::Refused;
        }
        self.me().read = Versions::default();
        self.note(&[Row::Batch(slot), Row::Epoch, Row::Bucket, Row::Entry(ALICE), Row::Entry(BOB)]);
        Flow::Next
    }

    /// Keys go, and the bucket has a new one, in one commit. Who was not there when it was read is not wrapped again.
    pub(super) fn remove(&mut self) -> Flow {
        let slot = self.slot();
        let read = self.me().read;
        let seen: Vec<usize> =
            [ALICE, BOB].into_iter().filter(|who| read.of(Row::Entry(*who)) != 0).collect();
        let mut rows = vec![Row::Batch(slot), Row::Epoch, Row::Bucket];
        rows.extend(seen.iter().map(|who| Row::Entry(*who)));
        if !self.unchanged(&rows) {
            return Flow::Back(Step::Removal);
        }
        let removal = self.me().made;
        let store = &mut self.world.store;
        store.generation += 1;
        for who in seen {
            let entry = &mut store.entries[who];
            entry.under = store.generation;
            if entry.forgotten && !entry.shredded {
                (entry.key, entry.shredded) = (false, true);
                if entry.referenced {
                    store.pending = Some((u8::try_from(slot).unwrap(), removal));
                }
            }
        }
        store.batches[slot] = Phase::Removing { made: removal + 1 };
        rows.push(Row::Pending);
        self.wrote(&rows);
        self.me().made = removal + 1;
        Flow::Next
    }

    pub(super) fn removed(&mut self) -> Flow {
        let (slot, made) = (self.slot(), self.me().made);
        match self.world.store.batches[slot] {
            Phase::Removing { made: there } if there == made => {
                self.world.store.batches[slot] = Phase::Rotating { made };
                self.wrote(&[Row::Batch(slot)]);
                Flow::Next
            }
            Phase::Removing { .. } | Phase::None => Flow::Refused,
            _ => Flow::Next,
        }
    }

    /// Roots that the keeper holds and no row names are retired now.
    pub(super) fn retire_store(&mut self) -> Flow {
        if self.catch_up().is_none() {
            return Flow::Refused;
        }
        let (me, now) = (*self.me(), self.world.time);
        let store = &mut self.world.store;
        for (id, held) in (0_u8..).zip(me.held) {
            let activated = match held {
                Held::No => continue,
                Held::Candidate(_) => None,
                Held::Activated(epoch) => Some(epoch),
            };
            let Some(epoch) = me.known.epoch_of(id).or(activated) else { continue };
            let row = &mut store.retired[usize::from(epoch)];
            if id != store.root && epoch < store.epoch && row.id != id {
                *row = Retired { id, at: now };
            }
        }
        self.me().held = Roots::default();
        Flow::Next
    }

    /// The oldest root whose window is over. Before the first, every copy that may be promoted has to be current.
    pub(super) fn next_root(&mut self) -> Flow {
        let (now, first) = (self.world.time, self.me().made == 0);
        let oldest = self.me().retired.into_iter().find(|retired| retired.id != 0);
        let early = |retired: Retired| retired.at >= now && self.mistake != Mistake::IgnoresTheWindow;
        if oldest.is_none_or(early) {
            return Flow::Ahead(Step::CertifyHeld);
        }
        if !first {
            return Flow::Ahead(Step::Destroy);
        }
        if self.mistake != Mistake::SettlesBeforeTheCopies {
            self.world.standby = self.world.store.root;
        }
        Flow::Next
    }

    pub(super) fn destroy(&mut self) -> Flow {
        let Some(oldest) = self.me().retired.into_iter().find(|retired| retired.id != 0) else {
            return Flow::Fails;
        };
        if self.world.keeper.active == oldest.id {
            return Flow::Fails;
        }
        self.world.keeper.roots[usize::from(oldest.id)] = Held::No;
        Flow::Next
    }

    pub(super) fn settled(&mut self) -> Flow {
        let me = self.me();
        let Some(epoch) = me.retired.iter().position(|retired| retired.id != 0) else { return Flow::Fails };
        me.retired[epoch] = Retired::default();
        me.made = 1;
        let store = &mut self.world.store;
        store.retired[epoch] = Retired::default();
        store.settled = store.settled.max(u8::try_from(epoch).unwrap());
        Flow::Back(Step::NextRoot)
    }

    pub(super) fn certify(&mut self) -> Flow {
        let me = *self.me();
        let store = &mut self.world.store;
        let Some((slot, removal)) = store.pending else { return Flow::Next };
        let Phase::Left { made, epoch } = store.batches[usize::from(slot)] else { return Flow::Next };
        let readable = (0_u8..).zip(me.held).any(|(id, held)| match held {
            Held::No => false,
            Held::Candidate(of) | Held::Activated(of) => of <= epoch && id != store.root,
        });
        let waits = epoch > me.epoch || epoch >= store.epoch || readable;
        if removal >= made || waits && self.mistake != Mistake::CertifiesBeforeTheKeeper {
            return Flow::Next;
        }
        (store.certificate, store.pending) = (epoch, None);
        self.wrote(&[Row::Pending]);
        Flow::Next
    }
}
