//! The steps of each operation, as the code takes them: one call of store, keeper or witness each. What a process computes
//! between two calls goes with the second. A row that is read and written by itself, and again where that lost a race, is
//! one step.

use crate::Mistake;
use crate::state::*;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It fails, and nothing has happened.
    FailsBefore,
    /// It happens, and the caller is told that it failed.
    FailsAfter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    // Opening.
    Unwrap,
    Recall,
    Fence,
    Tell,
    Opened,
    // Recovering: what the witness has and the store lacks, done again and written back; then the leap.
    LostRecall,
    LostFence,
    Replay,
    WriteBack,
    LeapComplete,
    LeapHeld,
    LeapTell,
    // Bringing the keeper to what the store has decided.
    KeeperHeld,
    KeeperStore,
    KeeperActivate,
    KeeperDestroy,
    // Finishing rotations, and replacing the root.
    TakeOver,
    Complete,
    Before,
    Candidate,
    Replace,
    Activate,
    TellRoot,
    // Removing keys.
    Due,
    Begin,
    Removal,
    Remove,
    Removed,
    ShredDone,
    // Settling.
    RetireHeld,
    RetireStore,
    AllRetired,
    NextRoot,
    Destroy,
    Settled,
    CertifyHeld,
    Certify,
    // Changing and reading a subject.
    EnrollRead,
    EnrollCommit,
    ForgetRead,
    ForgetCommit,
    ForgetTell,
    ForgetWait,
    UndoRead,
    UndoCommit,
    UndoTell,
    UnlockRead,
    UnlockCommit,
}

use Step::*;

const OPEN: &[Step] = &[
    Unwrap,
    Recall,
    Fence,
    Tell, //
    KeeperHeld,
    KeeperStore,
    KeeperActivate,
    KeeperDestroy, //
    TakeOver,
    Complete,
    Before,
    Candidate,
    Replace,
    Activate,
    TellRoot,
    Opened,
];
/// A shred follows, as an operation of its own.
const RECOVER: &[Step] = &[
    Unwrap,
    LostRecall,
    LostFence,
    Replay,
    WriteBack, //
    LeapComplete,
    LeapHeld,
    Before,
    Candidate,
    Replace,
    Activate,
    LeapTell,
    Recall,
    Fence,
    Tell, //
    KeeperHeld,
    KeeperStore,
    KeeperActivate,
    KeeperDestroy, //
    TakeOver,
    Complete,
    Before,
    Candidate,
    Replace,
    Activate,
    TellRoot,
    Opened,
];
const SHRED: &[Step] = &[
    KeeperHeld,
    KeeperStore,
    KeeperActivate,
    KeeperDestroy, //
    TakeOver,
    Complete,
    Before,
    Candidate,
    Replace,
    Activate,
    TellRoot, //
    Due,
    Begin,
    Removal,
    Remove,
    Removed, //
    TakeOver,
    Complete,
    Before,
    Candidate,
    Replace,
    Activate,
    TellRoot,
    ShredDone,
];
const SETTLE: &[Step] = &[
    RetireHeld,
    RetireStore,
    AllRetired, //
    KeeperHeld,
    KeeperStore,
    KeeperActivate,
    KeeperDestroy,
    NextRoot, //
    KeeperHeld,
    KeeperStore,
    KeeperActivate,
    KeeperDestroy,
    Destroy,
    Settled,
    CertifyHeld,
    Certify,
];

pub fn script(job: Job) -> &'static [Step] {
    match job {
        Job::Idle => &[],
        Job::Open => OPEN,
        Job::Recover => RECOVER,
        Job::Enroll => &[EnrollRead, EnrollCommit],
        Job::Forget => &[ForgetRead, ForgetCommit, ForgetTell, ForgetWait],
        Job::Undo => &[UndoRead, UndoCommit, UndoTell],
        Job::Unlock => &[UnlockRead, UnlockCommit],
        Job::Shred => SHRED,
        Job::Settle => SETTLE,
    }
}

/// Where a process goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Next,
    Again,
    /// To the nearest such step before, after, or just past it.
    Back(Step),
    Ahead(Step),
    Past(Step),
    /// An error. What was opening is not open.
    Fails,
    /// Store, keeper and witness are not of one moment.
    Refused,
    /// Nothing is possible here: the bounds of the model.
    Stuck,
}

impl Step {
    /// Whether it is a call that can fail and have happened all the same.
    pub fn can_be_lost(self) -> bool {
        matches!(
            self,
            Tell | TellRoot
                | LeapTell
                | ForgetTell
                | UndoTell
                | Candidate
                | Activate
                | KeeperActivate
                | KeeperDestroy
                | Destroy
                | Replace
                | Remove
                | Begin
                | Removed
                | TakeOver
                | WriteBack
                | Replay
                | Settled
                | Certify
                | EnrollCommit
                | ForgetCommit
                | UndoCommit
        )
    }
}

/// One process at one step.
pub struct Turn<'a> {
    pub world: &'a mut World,
    pub at: usize,
    pub mistake: Mistake,
}

impl Turn<'_> {
    pub fn me(&mut self) -> &mut Process {
        &mut self.world.processes[self.at]
    }

    /// Takes a step, and says where it leads. A call that fails has a failure for its outcome wherever it led.
    pub fn take(&mut self, step: Step, outcome: Outcome) -> Flow {
        if outcome == Outcome::FailsBefore {
            return Self::failed(step);
        }
        let memory = *self.me();
        let flow = self.work(step);
        if outcome == Outcome::Done || matches!(flow, Flow::Fails | Flow::Refused | Flow::Stuck) {
            return flow;
        }
        // The caller learns nothing of what happened.
        *self.me() = memory;
        Self::failed(step)
    }

    fn failed(step: Step) -> Flow {
        // Whether the witness has it is told to the caller; the change stands.
        if matches!(step, ForgetTell | UndoTell) { Flow::Next } else { Flow::Fails }
    }

    fn work(&mut self, step: Step) -> Flow {
        match step {
            Unwrap => self.unwrap(),
            Recall | LostRecall => self.recall(),
            Fence => self.fence(),
            Tell | LeapTell | ForgetTell | UndoTell => self.tell(Flow::Next),
            TellRoot => self.tell(Flow::Back(Complete)),
            Opened => {
                self.me().open = true;
                Flow::Next
            }
            LostFence => self.lost_fence(),
            Replay => self.replay(),
            WriteBack => self.write_back(),
            LeapComplete => self.complete(true),
            LeapHeld => self.leap_held(),
            KeeperHeld => self.keeper_held(),
            KeeperStore => self.keeper_store(),
            KeeperActivate => self.keeper_activate(),
            KeeperDestroy => self.keeper_destroy(),
            TakeOver => self.take_over(),
            Complete => self.complete(false),
            Before => self.before(),
            Candidate => self.candidate(),
            Replace => self.replace(),
            Activate => self.activate(),
            Due => self.due(),
            Begin => self.begin(),
            Removal => self.removal(),
            Remove => self.remove(),
            Removed => self.removed(),
            ShredDone => Flow::Next,
            RetireHeld | CertifyHeld => self.ask_held(),
            RetireStore => self.retire_store(),
            AllRetired => {
                self.me().retired = self.world.store.retired;
                Flow::Next
            }
            NextRoot => self.next_root(),
            Destroy => self.destroy(),
            Settled => self.settled(),
            Certify => self.certify(),
            EnrollRead => self.enroll_read(),
            EnrollCommit => self.enroll_commit(),
            ForgetRead => self.change_read(true),
            ForgetCommit => self.forget_commit(),
            ForgetWait => self.forget_wait(),
            UndoRead => self.change_read(false),
            UndoCommit => self.undo_commit(),
            UnlockRead => self.unlock_read(),
            UnlockCommit => self.unlock_commit(),
        }
    }

    /// Takes in what others have written; `None` where the store is not what it was.
    pub fn catch_up(&mut self) -> Option<()> {
        let lines = self.world.store.lines;
        let me = self.me();
        if !lines.extends(&me.known) {
            return None;
        }
        me.known = lines;
        // What the journal ends is of no use any more.
        me.grant = me.grant.filter(|grant| grant.state == lines.state() && !lines.forgotten());
        Some(())
    }

    /// Notes the versions of rows.
    pub fn note(&mut self, rows: &[Row]) {
        for row in rows {
            let version = self.world.store.versions.of(*row);
            self.me().read.set(*row, version);
        }
    }

    /// Whether all of these rows are as they were read.
    pub fn unchanged(&self, rows: &[Row]) -> bool {
        let read = &self.world.processes[self.at].read;
        rows.iter().all(|row| self.world.store.unchanged(read, *row))
    }

    /// Gives rows that were written a version that none has had.
    pub fn wrote(&mut self, rows: &[Row]) {
        let version = self.world.fresh_version();
        for row in rows {
            self.world.store.versions.set(*row, version);
        }
    }

    /// Whether a step would look at nothing but the process's own memory, and change nothing: it goes with the one before.
    pub fn is_idle(&mut self, step: Step) -> bool {
        match step {
            Opened | ShredDone => true,
            Tell | TellRoot | LeapTell | UndoTell | ForgetTell => {
                let me = self.me();
                me.witnessed >= me.known.count()
            }
            KeeperDestroy => self.lost_candidate().is_none(),
            _ => false,
        }
    }

    fn unwrap(&mut self) -> Flow {
        if self.world.keeper.holds(self.world.store.root) { Flow::Next } else { Flow::Refused }
    }

    fn recall(&mut self) -> Flow {
        let lines = if self.mistake == Mistake::OpensWithoutTheWitness {
            self.world.store.lines
        } else {
            self.world.witness
        };
        let me = self.me();
        (me.known, me.witnessed) = (lines, lines.count());
        Flow::Next
    }

    fn fence(&mut self) -> Flow {
        if self.catch_up().is_some() { Flow::Next } else { Flow::Refused }
    }

    fn tell(&mut self, then: Flow) -> Flow {
        let known = self.me().known;
        if self.me().witnessed >= known.count() {
            return then;
        }
        if known.extends(&self.world.witness) {
            self.world.witness = known;
        } else if !self.world.witness.extends(&known) {
            return Flow::Fails;
        }
        self.me().witnessed = known.count();
        then
    }

    fn ask_held(&mut self) -> Flow {
        let (roots, settled) = (self.world.keeper.roots, self.world.store.settled);
        let me = self.me();
        (me.held, me.epoch) = (roots, settled);
        Flow::Next
    }
}
