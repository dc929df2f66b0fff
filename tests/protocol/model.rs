//! What can happen in any state, and what must hold in all of them.

use stateright::{Model, Property};

use crate::Mistake;
use crate::state::*;
use crate::steps::{Flow, Outcome, Step, Turn, script};

/// The protocol, within bounds, perhaps with a mistake.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub left: Budget,
    pub mistake: Mistake,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A process begins an operation.
    Starts(usize, Job),
    Takes(usize, Step, Outcome),
    Watches(usize),
    Crashes(usize),
    /// A copy of the store is made.
    Copies,
    /// It is put back, and all processes begin anew.
    PutsBack,
    /// The standby has what the store has.
    Replicates,
    /// A restore window goes by.
    TimePasses,
}

impl Process {
    /// What it was doing is over.
    pub fn end(&mut self) {
        let Process { open, refused, known, witnessed, grant, .. } = *self;
        *self = Process { open, refused, known, witnessed, grant, ..Process::default() };
        if !open {
            *self = Process { refused, ..Process::default() };
        }
    }
}

impl Budget {
    fn of(&mut self, job: Job) -> Option<&mut u8> {
        Some(match job {
            Job::Enroll => &mut self.enroll,
            Job::Forget => &mut self.forget,
            Job::Undo => &mut self.undo,
            Job::Unlock => &mut self.unlock,
            Job::Shred => &mut self.shred,
            Job::Settle => &mut self.settle,
            Job::Open => &mut self.open,
            Job::Recover => &mut self.recover,
            Job::Idle => return None,
        })
    }
}

impl Protocol {
    fn begin(world: &mut World, at: usize, job: Job) {
        if let Some(left) = world.left.of(job) {
            *left -= 1;
        }
        let process = &mut world.processes[at];
        (process.job, process.refused) = (job, false);
    }

    fn step(&self, world: &mut World, at: usize, step: Step, outcome: Outcome) -> Option<()> {
        if outcome != Outcome::Done {
            world.left.lost -= 1;
        }
        let mut flow = Turn { world, at, mistake: self.mistake }.take(step, outcome);
        loop {
            if !Self::goes_on(world, at, flow)? {
                return Some(());
            }
            let process = world.processes[at];
            let Some(step) = script(process.job).get(usize::from(process.step)) else { break };
            let mut turn = Turn { world, at, mistake: self.mistake };
            if !turn.is_idle(*step) {
                return Some(());
            }
            flow = turn.take(*step, Outcome::Done);
        }
        let process = &mut world.processes[at];
        let job = process.job;
        process.end();
        match job {
            Job::Enroll => world.truth.bob_lives = true,
            Job::Undo => world.truth.alice_lives = !world.store.lines.forgotten(),
            Job::Recover => world.left.shred += 1,
            _ => {}
        }
        Some(())
    }

    /// Brings a process to its next step; false where it came to nothing.
    fn goes_on(world: &mut World, at: usize, flow: Flow) -> Option<bool> {
        let process = &mut world.processes[at];
        let steps = script(process.job);
        let now = usize::from(process.step);
        let ahead = |step| steps[now..].iter().position(|other| *other == step).map(|by| now + by);
        let next = match flow {
            Flow::Stuck => return None,
            Flow::Again => now,
            Flow::Next => now + 1,
            Flow::Back(step) => steps[..now].iter().rposition(|other| *other == step).unwrap(),
            Flow::Ahead(step) => ahead(step).unwrap(),
            Flow::Past(step) => ahead(step).unwrap() + 1,
            Flow::Fails | Flow::Refused => {
                process.refused = flow == Flow::Refused;
                process.end();
                return Some(false);
            }
        };
        process.step = u8::try_from(next).unwrap();
        Some(true)
    }

    fn put_back(&self, world: &mut World) {
        let Some(copy) = world.copy else { return };
        let (newest, time) = (world.store, world.time);
        world.left.restore -= 1;
        world.left.crash = world.left.crash_restored;
        if self.mistake != Mistake::RestoresUnderRunningProcesses {
            world.processes = <[Process; PROCESSES]>::default();
        }
        world.store = copy;
        world.standby = copy.root;
        let truth = &mut world.truth;
        truth.restored = true;
        if newest.entries[ALICE].key {
            truth.thrown_away = newest.root;
        }
        if newest.root != copy.root {
            truth.left_at[usize::from(newest.root)] = time;
        }
        truth.dead = !world.keeper.holds(copy.root);
        if !truth.dead {
            truth.left_at[usize::from(copy.root)] = NEVER;
        }
        truth.bob_lives &= copy.entries[BOB].there;
        // What neither the copy nor the witness has is lost with the store, as receipts say.
        let remembered = if world.witness.count() > copy.lines.count() { world.witness } else { copy.lines };
        truth.promised &= remembered.forgotten();
        truth.alice_lives &= !remembered.forgotten();
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.left)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (at, process) in world.processes.iter().enumerate() {
            if process.job == Job::Idle {
                let jobs = match (process.open, world.truth.restored) {
                    (true, _) => {
                        &[Job::Enroll, Job::Forget, Job::Undo, Job::Unlock, Job::Shred, Job::Settle][..]
                    }
                    (false, true) => &[Job::Open, Job::Recover],
                    (false, false) => &[Job::Open],
                };
                let mut left = world.left;
                let may = |job: &&Job| left.of(**job).is_some_and(|left| *left > 0);
                actions.extend(jobs.iter().filter(may).map(|job| Action::Starts(at, *job)));
                if process.grant.is_some() {
                    actions.push(Action::Watches(at));
                }
            } else {
                let step = script(process.job)[usize::from(process.step)];
                actions.push(Action::Takes(at, step, Outcome::Done));
                if world.left.lost > 0 && step.can_be_lost() {
                    actions.push(Action::Takes(at, step, Outcome::FailsBefore));
                    actions.push(Action::Takes(at, step, Outcome::FailsAfter));
                }
            }
            if world.left.crash > 0 && (process.open || process.job != Job::Idle) {
                actions.push(Action::Crashes(at));
            }
        }
        if world.left.backup > 0 {
            actions.push(Action::Copies);
        }
        if world.left.restore > 0 && world.copy.is_some() {
            actions.push(Action::PutsBack);
        }
        if world.standby != world.store.root {
            actions.push(Action::Replicates);
        }
        if world.left.tick > 0 {
            actions.push(Action::TimePasses);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = *world;
        match action {
            Action::Starts(at, job) => Self::begin(&mut next, at, job),
            Action::Takes(at, step, outcome) => self.step(&mut next, at, step, outcome)?,
            Action::Watches(at) => {
                let flow = Turn { world: &mut next, at, mistake: self.mistake }.watch();
                if flow == Flow::Refused {
                    next.processes[at] = Process { refused: true, ..Process::default() };
                }
            }
            Action::Crashes(at) => {
                next.left.crash -= 1;
                next.processes[at] = Process::default();
            }
            Action::Copies => {
                next.left.backup -= 1;
                next.copy = Some(next.store);
            }
            Action::PutsBack => self.put_back(&mut next),
            Action::Replicates => next.standby = next.store.root,
            Action::TimePasses => {
                next.left.tick -= 1;
                next.time += 1;
            }
        }
        next.tidy();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("6: the forgotten opens in no process", |_, world: &World| {
                !world.truth.promised || !world.processes.iter().any(Process::grant_is_good)
            }),
            Property::always("6: after the certificate no copy opens", |_, world: &World| {
                world.store.certificate == 0 || !world.alice_is_readable()
            }),
            Property::always("6: a certificate only when the keeper has let go", |_, world: &World| {
                let certified = world.store.certificate;
                let roots = world.store.lines.roots();
                let mut left = roots.filter(|(epoch, _)| *epoch <= certified);
                left.all(|(_, id)| !world.keeper.holds(id))
            }),
            Property::always("7: all that is there hangs together", |_, world: &World| {
                let store = &world.store;
                let whole = |entry: &Entry| !entry.there || entry.under == store.generation;
                store.under == store.epoch && store.entries.iter().all(whole)
            }),
            Property::always("7: what was acknowledged is there", |_, world: &World| world.keeps_its_word()),
            Property::always("7: the keeper holds the root of the store", |_, world: &World| {
                world.truth.dead || world.keeper.holds(world.store.root)
            }),
            Property::always("7: the keeper holds the root of a standby", |_, world: &World| {
                world.truth.dead || world.keeper.holds(world.standby)
            }),
            Property::always("6: a copy whose root is destroyed opens for nobody", |_, world: &World| {
                !world.truth.dead || !world.processes.iter().any(|process| process.open)
            }),
            Property::always("7: a root is held until its window is over", |_, world: &World| {
                let over = |id: u8| world.truth.left_at[usize::from(id)] < world.time;
                world.store.lines.roots().all(|(_, id)| over(id) || world.keeper.holds(id))
            }),
            Property::always("7: nobody is refused but for a store that was put back", |_, world: &World| {
                world.truth.restored || !world.processes.iter().any(|process| process.refused)
            }),
            Property::always("7: no line that was committed goes away again", |_, world: &World| {
                let open = |process: &&Process| process.open;
                world.processes.iter().filter(open).all(|process| world.store.lines.extends(&process.known))
            }),
            Property::always("7: an open vault is not behind its own journal", |_, world: &World| {
                let settled = |process: &&Process| process.open && process.known == world.store.lines;
                world.processes.iter().filter(settled).all(|one| one.known.epoch() <= world.store.epoch)
            }),
            Property::always("7: the keeper never goes back", |_, world: &World| {
                world.keeper.active_epoch() == world.truth.activated
            }),
            Property::always("7: an epoch has one root", |_, world: &World| {
                let named = |epoch| world.store.lines.roots().filter(|(of, _)| *of == epoch).count();
                (1..=world.store.lines.epoch()).all(|epoch| named(epoch) <= 1)
            }),
            Property::sometimes("a grant opens", |_, world: &World| {
                world.processes.iter().any(Process::grant_is_good)
            }),
            Property::sometimes("a forget is undone", |_, world: &World| {
                world.truth.alice_lives && world.store.lines.state() > 1
            }),
            Property::sometimes(
                "a forget returns, and the witness has not heard of it",
                |_, world: &World| world.truth.promised && !world.witness.forgotten(),
            ),
            Property::sometimes("Bob is wrapped again under another root", |_, world: &World| {
                world.truth.bob_lives && world.store.epoch > 1
            }),
            Property::sometimes("a candidate loses and is destroyed", |_, world: &World| {
                let lost = |id: u8| world.store.lines.epoch_of(id).is_none() && !world.keeper.holds(id);
                (1..=world.keeper.made).any(lost)
            }),
            Property::sometimes("a certificate is issued", |_, world: &World| world.store.certificate > 0),
            Property::sometimes("a store that was put back is refused", |_, world: &World| {
                world.processes.iter().any(|process| process.refused)
            }),
            Property::sometimes("a forget is done again in a recovered store", |_, world: &World| {
                let open = world.processes.iter().any(|process| process.open);
                world.truth.restored && world.truth.promised && open
            }),
            Property::sometimes("a recovered store is under a new root", |_, world: &World| {
                let open = world.processes.iter().any(|process| process.open);
                world.truth.restored && open && world.store.epoch > world.copy.map_or(0, |copy| copy.epoch)
            }),
            Property::sometimes("a copy opens for nobody", |_, world: &World| {
                world.copy.is_some_and(|copy| !world.keeper.holds(copy.root))
            }),
        ]
    }
}

impl Process {
    /// Whether its grant for Alice opens now.
    fn grant_is_good(&self) -> bool {
        self.grant.is_some_and(|grant| grant.state == self.known.state() && !self.known.forgotten())
    }
}

impl World {
    /// Whether anybody who has every copy, and the keeper, has Alice's key.
    fn alice_is_readable(&self) -> bool {
        let opens = |store: &Store| store.entries[ALICE].key && self.keeper.holds(store.root);
        opens(&self.store)
            || self.copy.is_some_and(|copy| opens(&copy))
            || self.truth.thrown_away != 0 && self.keeper.holds(self.truth.thrown_away)
    }

    /// Of the store, unless it was put back and nobody has opened it since.
    fn keeps_its_word(&self) -> bool {
        let current = |process: &Process| process.open && process.known == self.store.lines;
        if self.truth.restored && !self.processes.iter().any(current) {
            return true;
        }
        let (alice, bob) = (self.store.entries[ALICE], self.store.entries[BOB]);
        (!self.truth.alice_lives || alice.key && !alice.forgotten)
            && (!self.truth.bob_lives || bob.key)
            && (!self.truth.promised || alice.forgotten)
    }
}
