//! One case of the matrix: an operation in its world, with a fault; and the list of cases that failed.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use customer_vault::Result;

use crate::faults::drive;
use crate::operations::Operation;
use crate::world::{Place, World, is_passing};

/// How often what is asked of store and keeper in a run without faults.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    pub commits: u64,
    pub looks: u64,
    pub keeper: u64,
}

/// An operation, and the world that it begins in.
pub struct Stage {
    pub operation: Operation,
    world: World,
}

impl Stage {
    pub fn new(operation: Operation, height: u8) -> Self {
        let world = (operation.world)(height);
        Stage { operation, world }
    }

    /// A copy of the world, with the vault open where the operation needs it.
    pub fn place(&self) -> Place {
        let mut place = self.world.place();
        if self.operation.open {
            place.open().unwrap();
        }
        place
    }

    pub fn run(&self, place: &Place) -> Option<Result<()>> {
        self.run_for(place, usize::MAX)
    }

    /// Dropped where it was killed, or after it was pending so many times.
    pub fn run_for(&self, place: &Place, pending_at_most: usize) -> Option<Result<()>> {
        drive((self.operation.run)(place.clone()), || place.keeper.killed(), pending_at_most)
    }

    /// Runs it without faults.
    pub fn calls(&self) -> Calls {
        let mut place = self.place();
        let (before, keeper) = (place.store.counts(), place.keeper.calls());
        assert_eq!(self.run(&place), Some(Ok(())), "{}", self.operation.name);
        let counts = place.store.counts() - before;
        let keeper = place.keeper.calls() - keeper;
        self.settle_down(&mut place, "no fault", Some(Ok(())));
        Calls { commits: counts.commits, looks: counts.reads + counts.scans, keeper }
    }

    /// One case: the fault is laid by `arm`, then the operation runs, and everything is checked.
    pub fn case(&self, what: &str, arm: impl FnOnce(&Place)) {
        let mut place = self.place();
        arm(&place);
        let outcome = self.run(&place);
        self.settle_down(&mut place, what, outcome);
    }

    /// After a run in which something went wrong: it is before or after, the next call finishes it, and nothing else is
    /// touched. Where it was killed or dropped, there is no outcome.
    pub fn settle_down(&self, place: &mut Place, what: &str, outcome: Option<Result<()>>) {
        let Operation { name, open, done, already, then, .. } = &self.operation;
        let what = format!("{name}, {what}");
        let killed = place.heal();
        if let Some(Err(why)) = &outcome {
            assert!(is_passing(*why), "{what}: it says {why:?}");
        }
        if killed || !open {
            place.close();
            if let Err(why) = place.open() {
                assert!(!open, "{what}: it does not open again: {why:?}");
            }
        }
        let mut is_done = place.is_open() && done(place);
        let acknowledged = outcome == Some(Ok(()));
        assert!(is_done || !acknowledged, "{what}: acknowledged and lost");
        if !acknowledged {
            if !open {
                place.close();
            }
            match self.run(place) {
                Some(Ok(())) => {}
                Some(Err(why)) => assert!(is_done && already(&why), "{what}: repeated it says {why:?}"),
                None => panic!("{what}: repeated it hangs"),
            }
            if !open {
                place.open().unwrap_or_else(|why| panic!("{what}: it does not open: {why:?}"));
            }
            is_done = done(place);
        }
        assert!(is_done, "{what}: repeated and not done");
        then(place);
        place.is_sound(&what);
    }
}

/// Runs cases to the end and says at last which have failed.
#[derive(Default)]
pub struct Cases {
    run: usize,
    failed: Vec<String>,
}

impl Cases {
    pub fn case(&mut self, stage: &Stage, fault: impl Debug, arm: impl FnOnce(&Place)) {
        let what = format!("{fault:?}");
        self.check(format!("{}: {what}", stage.operation.name), || stage.case(&what, arm));
    }

    pub fn check(&mut self, what: String, case: impl FnOnce()) {
        self.run += 1;
        if catch_unwind(AssertUnwindSafe(case)).is_err() {
            self.failed.push(what);
        }
    }

    pub fn end(self, at_least: usize) {
        assert!(self.run >= at_least, "only {} cases", self.run);
        assert!(self.failed.is_empty(), "{} of {} cases: {:#?}", self.failed.len(), self.run, self.failed);
    }
}
