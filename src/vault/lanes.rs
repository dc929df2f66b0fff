//! More lanes, for changes of subjects that are under way together.
//!
//! Each commit of a lane is built on the one before it: where one fails, those that were handed over after it fail with it,
//! and are built again. Unlocking expects the fence row alone, which seldom changes, and shares one lane. Changes of
//! subjects expect rows of the tree that others change too: so that none takes others with it, each has a lane of its own
//! while it is under way. Who changes one after the other has one lane.

use std::sync::{Mutex, PoisonError};

use super::Inner;
use super::lane::Writer;
use crate::error::Result;
use crate::log::Entry;
use crate::store::{Batch, Committed};

/// So many at most; changes beyond them share the process's first lane.
const LANES: usize = 64;

/// Lanes that were made, and are not in use.
#[derive(Debug, Default)]
pub(crate) struct Lanes(Mutex<Idle>);

#[derive(Debug, Default)]
struct Idle {
    lanes: Vec<Writer>,
    made: usize,
}

impl Lanes {
    /// One that nobody else has until it is dropped; `None` where all are in use.
    fn take(&self, inner: &Inner) -> Result<Option<Taken<'_>>> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = match idle.lanes.pop() {
            Some(lane) => lane,
            None if idle.made < LANES => {
                idle.made = idle.made.saturating_add(1);
                Writer::unwritten(inner.id, inner.rows.clone())?
            }
            None => return Ok(None),
        };
        Ok(Some(Taken { lanes: self, lane: Some(lane) }))
    }
}

/// A lane that is given back when it is dropped, with the future that had it too.
struct Taken<'a> {
    lanes: &'a Lanes,
    lane: Option<Writer>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.lanes.0.lock().unwrap_or_else(PoisonError::into_inner).lanes.extend(self.lane.take());
    }
}

impl Inner {
    /// Commits a change of subjects together with its entries, as [`Writer::commit`] does.
    pub(crate) async fn commit_change(&self, batch: Batch, entries: &[Entry]) -> Result<Committed> {
        let taken = if self.lane.is_idle() { None } else { self.lanes.take(self)? };
        match taken.as_ref().and_then(|taken| taken.lane.as_ref()) {
            Some(lane) => lane.commit(batch, entries).await,
            None => self.lane.commit(batch, entries).await,
        }
    }
}
