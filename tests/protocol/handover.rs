//! A handover between two keepers, as a model of its own: two processes replace and settle roots, open with both keepers or
//! with the new one alone whenever they like, crash at any step, and find calls that took effect and were not answered.

use stateright::{Checker, Model, Property};

const PROCESSES: usize = 2;

/// What the handover can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    DoesNotMark,
    MarksAfterTheRoot,
    MarksWithoutLookingAgain,
    OpensUnderTheMark,
    UnmarksBeforeDestroying,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Whether the old keeper has anything, and the new one no mark.
    Look,
    Mark,
    Candidate,
    Commit,
    /// The new keeper destroys, then the old one.
    DestroyNew,
    DestroyOld,
    /// Whether the old keeper has nothing; then the mark goes.
    Left,
    Unmark,
    /// The vault asks to unwrap, and certifies where both refuse.
    Certify,
}

use Step::{Candidate, Certify, Commit, DestroyNew, DestroyOld, Left, Look, Mark, Unmark};

/// Looking again is the end of marking: a mark that came too late goes.
const REPLACE: &[Step] = &[Look, Mark, Left, Unmark, Candidate, Commit];
const SETTLE: &[Step] = &[DestroyNew, DestroyOld, Left, Unmark, Certify];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum With {
    #[default]
    Nothing,
    Both,
    New,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Process {
    with: With,
    /// The epoch that is replaced, or settled, and the next step.
    job: Option<(bool, u8, u8)>,
}

/// Epochs are bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    epoch: u8,
    /// Left, and not settled.
    retired: u8,
    settled: u8,
    old: u8,
    new: u8,
    marked: bool,
    processes: [Process; PROCESSES],
    replacements: u8,
    crashes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Opens(usize, With),
    Closes(usize),
    Replaces(usize),
    Settles(usize, u8),
    Steps(usize),
    /// The step took effect, and the process has died of it, or before it.
    Dies(usize, bool),
    /// Somebody asks how much remains.
    Asks,
}

#[derive(Debug)]
struct Handover {
    mistake: Mistake,
}

fn bit(epoch: u8) -> u8 {
    1 << epoch
}

impl Handover {
    fn steps(&self, replaces: bool) -> Vec<Step> {
        let steps = if replaces { REPLACE } else { SETTLE };
        match (self.mistake, replaces) {
            (Mistake::DoesNotMark, true) => vec![Candidate, Commit],
            (Mistake::MarksAfterTheRoot, true) => vec![Candidate, Commit, Look, Mark, Left, Unmark],
            (Mistake::MarksWithoutLookingAgain, true) => vec![Look, Mark, Candidate, Commit],
            (Mistake::UnmarksBeforeDestroying, false) => {
                vec![DestroyNew, Left, Unmark, DestroyOld, Certify]
            }
            _ => steps.to_vec(),
        }
    }

    /// The step after this one; `None` at the end.
    fn step(&self, world: &mut World, at: usize) -> Option<()> {
        let Process { with, job } = world.processes[at];
        let (replaces, epoch, now) = job?;
        let steps = self.steps(replaces);
        let ahead = |to: Step| steps.iter().position(|step| *step == to).unwrap();
        let mut next = usize::from(now) + 1;
        let both = with == With::Both;
        // What is to be destroyed still lies with the old keeper; the others it has are what is left.
        let left = if self.mistake == Mistake::UnmarksBeforeDestroying {
            world.old & !bit(epoch)
        } else {
            world.old
        };
        match steps[usize::from(now)] {
            Look if !both || world.old == 0 || world.marked => {
                next = steps.iter().position(|step| *step == Candidate).unwrap();
                if self.mistake == Mistake::MarksAfterTheRoot {
                    next = steps.len();
                }
            }
            Mark => world.marked = true,
            DestroyNew => world.new &= !bit(epoch),
            DestroyOld if both => world.old &= !bit(epoch),
            Left if !both || left != 0 => next = ahead(Unmark) + 1,
            Unmark => world.marked = false,
            Candidate => world.new |= bit(epoch + 1),
            Commit if world.epoch == epoch => {
                world.retired |= bit(epoch);
                world.epoch += 1;
            }
            Certify => {
                let refuses = world.new & bit(epoch) == 0 && (!both || world.old & bit(epoch) == 0);
                if refuses {
                    world.retired &= !bit(epoch);
                    world.settled |= bit(epoch);
                }
            }
            Look | DestroyOld | Left | Commit => {}
        }
        let job = (next < steps.len()).then(|| (replaces, epoch, u8::try_from(next).unwrap()));
        world.processes[at].job = job;
        Some(())
    }

    fn may_open(&self, world: &World, with: With) -> bool {
        let refused = world.marked && self.mistake != Mistake::OpensUnderTheMark;
        with == With::Both || (world.new & bit(world.epoch) != 0 && !refused)
    }
}

impl Model for Handover {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let processes = [Process::default(); PROCESSES];
        let (epoch, old) = (1, bit(1));
        let (retired, settled, new, marked) = (0, 0, 0, false);
        vec![World { epoch, retired, settled, old, new, marked, processes, replacements: 2, crashes: 2 }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.push(Action::Asks);
        for (at, process) in world.processes.iter().enumerate() {
            match process {
                Process { with: With::Nothing, .. } => {
                    actions.extend([With::Both, With::New].map(|with| Action::Opens(at, with)));
                }
                Process { job: Some(_), .. } => {
                    actions.push(Action::Steps(at));
                    if world.crashes > 0 {
                        actions.extend([true, false].map(|done| Action::Dies(at, done)));
                    }
                }
                Process { job: None, .. } => {
                    actions.push(Action::Closes(at));
                    if world.replacements > 0 {
                        actions.push(Action::Replaces(at));
                    }
                    // The lowest first, as the rows lie.
                    actions.extend(
                        (1..4)
                            .find(|epoch| world.retired & bit(*epoch) != 0)
                            .map(|epoch| Action::Settles(at, epoch)),
                    );
                }
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = *world;
        match action {
            Action::Opens(at, with) => {
                if !self.may_open(&world, with) {
                    return None;
                }
                world.processes[at].with = with;
            }
            Action::Closes(at) => world.processes[at] = Process::default(),
            Action::Replaces(at) => {
                world.replacements -= 1;
                world.processes[at].job = Some((true, world.epoch, 0));
            }
            Action::Settles(at, epoch) => {
                // It asks what is held before anything else.
                if world.processes[at].with == With::New && !self.may_open(&world, With::New) {
                    return None;
                }
                world.processes[at].job = Some((false, epoch, 0));
            }
            Action::Steps(at) => self.step(&mut world, at)?,
            Action::Dies(at, done) => {
                world.crashes -= 1;
                if done {
                    self.step(&mut world, at)?;
                }
                world.processes[at] = Process::default();
            }
            Action::Asks => {
                if world.old != 0 || !world.marked {
                    return None;
                }
                world.marked = false;
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(CERTIFIED, |_, world: &World| world.settled & (world.old | world.new) == 0),
            Property::always(ALONE, |_, world: &World| {
                let alone = world.processes.iter().any(|process| process.with == With::New);
                !alone || world.old == 0
            }),
            Property::always(FREE, |_, world: &World| {
                let idle = world.processes.iter().all(|process| process.job.is_none());
                !idle || world.crashes < 2 || world.old != 0 || !world.marked
            }),
            Property::sometimes(OVER, |_, world: &World| {
                let alone = world.processes.iter().any(|process| process.with == With::New);
                alone && world.settled == bit(1) | bit(2)
            }),
            Property::sometimes(LEFT, |_, world: &World| world.old == 0 && world.marked),
        ]
    }
}

const CERTIFIED: &str = "6: a certificate only when both keepers have let go";
const ALONE: &str = "no process has the new keeper alone while the old one has roots";
const FREE: &str = "where nobody has died, no mark is left";
const OVER: &str = "the new keeper stands alone and has settled a root of its own";
const LEFT: &str = "a mark is left by a process that died";

#[test]
fn a_handover_between_two_keepers() {
    let checker = Handover { mistake: Mistake::None }.checker().spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn every_mistake_of_a_handover_is_found() {
    for (mistake, breaks) in [
        (Mistake::DoesNotMark, CERTIFIED),
        (Mistake::MarksAfterTheRoot, CERTIFIED),
        (Mistake::MarksWithoutLookingAgain, FREE),
        (Mistake::OpensUnderTheMark, CERTIFIED),
        (Mistake::UnmarksBeforeDestroying, CERTIFIED),
    ] {
        let checker = Handover { mistake }.checker().spawn_bfs().join();
        assert!(checker.discovery(breaks).is_some(), "{mistake:?} does not break: {breaks}");
    }
}
