//! The vault: store, keeper and witness opened together, with everything that a process keeps in memory.

use std::any::TypeId;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::actor::{Actor, Ground};
use crate::calendar::{AHEAD, Calendar};
use crate::clock::{Clock, Day};
use crate::crypto::aead::Suite;
use crate::error::{Error, Halted, Misuse, Result, StoreError};
use crate::grant::Now;
use crate::journal::{Event, FENCE, Journal};
use crate::keeper::{Roots, VaultId};
use crate::key::{Index, Secret, Tag};
use crate::log::{Action, Entry, Outcome};
use crate::purpose::{Basis, PurposeId};
use crate::remembered::Remembered;
use crate::ring::Ring;
use crate::schema::Registry;
use crate::store::{Batch, Committed, Expect, Rows};
use crate::tree::Tree;

mod audit;
pub(crate) mod lane;
mod lanes;
pub(crate) mod open;
mod settings;
mod subject;

pub use audit::LogReport;
pub use open::Options;
pub use settings::{RestoreWindow, Settings};
pub(crate) use subject::{Other, Subject};

/// How many causes are kept until the next entry of the log takes them.
const MAX_CAUSES: usize = 64;

/// An open vault. Cheap to clone; every clone is the same vault.
#[derive(Clone)]
pub struct Vault(pub(crate) Arc<Inner>);

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("id", &format_args!("{}", self.0.id)).finish_non_exhaustive()
    }
}

/// What all clones, grants and sealers share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) id: VaultId,
    pub(crate) rows: Rows,
    pub(crate) roots: Roots,
    pub(crate) tree: Tree,
    pub(crate) journal: Journal,
    pub(crate) calendar: Calendar,
    /// This is the process that puts a copy right.
    pub(crate) recovers: AtomicBool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) registry: RwLock<Registry>,
    /// Where subjects were found that lie at another place than their tag.
    pub(crate) moved: Mutex<HashMap<Tag, Tag>>,
    pub(crate) index: Secret<Index>,
    /// The keys that can be changed, as this process knows them.
    pub(crate) ring: RwLock<Arc<Ring>>,
    pub(crate) remembered: Arc<Remembered>,
    pub(crate) lane: lane::Writer,
    pub(crate) lanes: lanes::Lanes,
    /// Lanes for changes that the shop's transactions make, while none does.
    pub(crate) staging: Mutex<Vec<lane::Writer>>,
    /// Shred, expire and settle of one process run one after the other.
    pub(crate) maintenance: async_lock::Mutex<()>,
    /// Since when `watch` has kept leases alive: before its last read was sent.
    lease: RwLock<Option<Now>>,
    causes: Mutex<VecDeque<u8>>,
    pub(crate) max_seals: u64,
    /// The labels of the records that this process serves.
    pub(crate) served: Vec<(&'static str, TypeId)>,
    /// Up to which growth the registry in memory is that of the store.
    pub(crate) registry_seen: AtomicU64,
    /// The same of the ring.
    pub(crate) ring_seen: AtomicU64,
    /// Registry and ring are read again by one task at a time.
    pub(crate) refreshing: async_lock::Mutex<()>,
}

/// What could not be opened, in the log's buffer of causes.
const CAUSE_DOES_NOT_OPEN: u8 = 1;

impl Inner {
    pub(crate) fn now(&self) -> Now {
        Now { wall: self.clock.wall(), monotonic: self.clock.monotonic() }
    }

    /// The wall clock for tokens, which never stands before the end of the mark of time: what had expired by then stays
    /// expired where the clock is set back (ABUSE 16).
    pub(crate) fn token_time(&self, wall_ms: i64) -> i64 {
        self.journal.mark().map_or(wall_ms, |mark| wall_ms.max(mark.end_ms()))
    }

    /// The day of a moment, never before the end of the mark of time: what is over stays over.
    pub(crate) fn day(&self, now: Now) -> Day {
        self.journal.mark().map_or(now.day(), |mark| now.day().max(mark.plus(1)))
    }

    pub(crate) fn today(&self) -> Day {
        self.now().day()
    }

    /// The name of this vault's notes.
    pub(crate) fn origin(&self) -> String {
        crate::log::origin(&self.id)
    }

    /// Whether what was read at `since` may still be believed. One process alone needs no lease: its fences are in
    /// memory.
    pub(crate) fn leased(&self, since: Now, now: Now) -> bool {
        if !self.rows.shared() {
            return true;
        }
        let bound = Duration::from_millis(self.settings.bound_ms.into());
        let fresh = |from: Now| now.since(from) < bound;
        fresh(since) || self.lease.read().unwrap_or_else(PoisonError::into_inner).is_some_and(fresh)
    }

    pub(crate) fn note_cause(&self) {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        if causes.len() < MAX_CAUSES {
            causes.push_back(CAUSE_DOES_NOT_OPEN);
        }
    }

    /// The beginning of an entry, with the causes that have gathered.
    pub(crate) fn entry(&self, action: Action, outcome: Outcome) -> Entry {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let causes: Vec<u8> = causes.drain(..).collect();
        Entry::new(self.clock.wall(), action, outcome).with_causes(&causes)
    }

    /// The same, by an actor on a ground.
    pub(crate) fn entry_by(&self, action: Action, actor: &Actor, ground: &Ground) -> Result<Entry> {
        Ok(self.entry(action, Outcome::Done).by(vec![actor.clone()])?.because(ground.clone()))
    }

    pub(crate) fn basis(&self, purpose: u16) -> Option<Basis> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).basis(PurposeId(purpose))
    }

    pub(crate) fn purposes(&self) -> Vec<u16> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        registry.purposes().map(PurposeId::number).collect()
    }

    pub(crate) fn label(&self, purpose: u16) -> String {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        registry.label(PurposeId(purpose)).unwrap_or("unknown").to_owned()
    }

    /// The longest period ever declared for a purpose.
    pub(crate) fn longest_of(&self, purpose: u16) -> u16 {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        u16::try_from(registry.longest_of(PurposeId(purpose)).unwrap_or(0)).unwrap_or(u16::MAX)
    }

    fn longest(&self) -> u16 {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        u16::try_from(registry.longest_days()).unwrap_or(u16::MAX)
    }

    /// Refuses a clock that stands too far beyond the mark of time (ABUSE 16): what it seals would live too long, what
    /// it destroys would be gone.
    pub(crate) fn clock_is_sane(&self, now: Now) -> Result<()> {
        let mark = self.journal.mark();
        let bound = u32::from(self.settings.clock_jump_days).saturating_add(1);
        match mark {
            Some(mark) if u32::from(now.day().0) > u32::from(mark.0).saturating_add(bound) => {
                Err(Halted::Clock.into())
            }
            _ => Ok(()),
        }
    }

    /// Moves the mark of time to yesterday, if it is behind and the clock can be believed.
    pub(crate) async fn advance_time(&self) -> Result<()> {
        let now = self.now();
        self.clock_is_sane(now)?;
        let Some(yesterday) = now.day().before() else { return Err(Halted::Clock.into()) };
        if self.journal.mark().is_none_or(|mark| mark < yesterday) {
            self.journal.record(&[Event::Mark { day: yesterday }]).await?;
        }
        if let Some(mark) = self.journal.mark() {
            self.calendar.drop_until(mark);
        }
        Ok(())
    }

    /// Today, by a clock that is believed: no earlier than the mark of time, and where the clock has jumped beyond the
    /// bound, the day after the mark. A forget must always be possible, and must not be due years away.
    pub(crate) fn trusted_today(&self) -> Day {
        let now = self.now();
        match self.journal.mark() {
            Some(mark) if self.clock_is_sane(now).is_err() => mark.plus(1),
            Some(mark) => now.day().max(mark.plus(1)),
            None => now.day(),
        }
    }

    /// As [`advance_time`](Self::advance_time), where a jump of the clock is somebody else's to report.
    pub(crate) async fn keep_time(&self) -> Result<()> {
        if self.calendar.missed() {
            self.calendar.load(&self.tree).await?;
        }
        let last = self.today().plus(self.longest());
        if self.clock_is_sane(self.now()).is_ok() && !self.calendar.reaches(last) {
            // A process that only reads takes no sealer, which would look.
            self.top_up(true).await?;
        }
        match self.advance_time().await {
            Err(Error::Halted(Halted::Clock)) => Ok(()),
            done => done,
        }
    }

    /// Makes days ahead where they run short.
    pub(crate) async fn top_up(&self, always: bool) -> Result<()> {
        let today = self.today();
        let longest = self.longest();
        if always || !self.calendar.covers(today, today.plus(longest)) {
            let over = self.journal.mark();
            let to = today.plus(longest).plus(AHEAD);
            self.calendar
                .fill(&self.tree, over, today.max(over.map_or(today, |mark| mark.plus(1))), to)
                .await?;
        }
        Ok(())
    }

    pub(crate) fn refuse_if_frozen(&self) -> Result<()> {
        let (frozen, recovering) = self.journal.with(|state| (state.frozen, state.course.recovering));
        self.refuse_other_than_recovering(recovering)?;
        if frozen { Err(Halted::Frozen.into()) } else { Ok(()) }
    }

    /// Where a copy was put in the store's place while this process had it open, and another one puts it right: what is
    /// changed now may be replaced.
    pub(crate) fn refuse_if_recovering(&self) -> Result<()> {
        self.refuse_other_than_recovering(self.journal.with(|state| state.course.recovering))
    }

    fn refuse_other_than_recovering(&self, recovering: bool) -> Result<()> {
        if recovering && !self.recovers.load(Ordering::Acquire) {
            Err(StoreError::Unfinished.into())
        } else {
            Ok(())
        }
    }
}

/// What a process can do without acting on a subject.
impl Vault {
    /// Which vault this is.
    #[must_use]
    pub fn id(&self) -> VaultId {
        self.0.id
    }

    /// The settings that were chosen when the vault was made.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The suite that seals.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.0.ring().suite
    }

    /// The register of processing, as the vault has stored it: print it with `to_markdown` or `to_json`.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.0.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps leases alive where several processes share the store, and takes in what others have fenced: spawn it on
    /// your runtime. Without it, a grant or sealer lives for one bound. It ends where only one process can have the
    /// store, and when the store cannot be read: spawn it again then.
    ///
    /// # Errors
    ///
    /// What reading the store or the witness said.
    pub async fn watch(&self) -> Result<()> {
        let inner = &self.0;
        let half = Duration::from_millis(u64::from(inner.settings.bound_ms) / 2);
        while inner.rows.shared() {
            let since = inner.now();
            let fence = inner.catch_up().await?;
            // A primary that was replaced and does not know it still answers reads. It can commit nothing any more, where
            // commits wait for standbys.
            let mut beat = Batch::new()?;
            beat.expect(FENCE, Expect::unchanged(fence.as_ref()));
            if inner.lane.commit(beat, &[]).await? == Committed::Conflict {
                continue;
            }
            // Only after what was read is in memory may others rely on it.
            *inner.lease.write().unwrap_or_else(PoisonError::into_inner) = Some(since);
            inner.journal.complete().await?;
            inner.clock.sleep(half).await;
        }
        Ok(())
    }

    /// Stops every unlock, seal and open in all processes, within the bound, until [`unfreeze`](Self::unfreeze). Tickets that
    /// were given before live on to their end: at most an hour.
    ///
    /// # Errors
    ///
    /// Where it cannot be made durable.
    pub async fn freeze(&self, actor: &Actor, ground: &Ground) -> Result<()> {
        self.frozen(true, Action::Freeze, actor, ground).await
    }

    /// Lets things go on.
    ///
    /// # Errors
    ///
    /// Where it cannot be made durable.
    pub async fn unfreeze(&self, actor: &Actor, ground: &Ground) -> Result<()> {
        self.frozen(false, Action::Unfreeze, actor, ground).await
    }

    async fn frozen(&self, on: bool, action: Action, actor: &Actor, ground: &Ground) -> Result<()> {
        let inner = &self.0;
        // Fenced first: a log that cannot be written must not keep an incident running.
        inner.journal.record(&[Event::Frozen(on)]).await?;
        inner.wait_out_bound().await;
        inner.log(inner.entry_by(action, actor, ground)?).await
    }

    /// Lets the mark of time move to yesterday although the clock has jumped.
    ///
    /// # Errors
    ///
    /// Where it cannot be made durable.
    pub async fn confirm_time(&self, actor: &Actor, ground: &Ground) -> Result<()> {
        let inner = &self.0;
        let yesterday = inner.today().before().ok_or(Misuse::Day)?;
        inner.log(inner.entry_by(Action::ConfirmTime, actor, ground)?).await?;
        inner.journal.record(&[Event::Mark { day: yesterday }]).await?;
        inner.calendar.drop_until(yesterday);
        inner.top_up(true).await
    }
}

impl Inner {
    /// Where several processes share the store, waits until all of them have seen the fence or lost their lease.
    pub(crate) async fn wait_out_bound(&self) {
        if self.rows.shared() {
            let bound = u64::from(self.settings.bound_ms);
            self.clock.sleep(Duration::from_millis(bound.saturating_add(bound / 10).saturating_add(1))).await;
        }
    }
}
