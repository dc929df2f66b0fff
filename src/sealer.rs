//! Sealers: hold a subject's purpose keys of the newest enrolment, and seal. Their API gives no plaintext back.

mod many;
mod taken;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use zeroize::Zeroizing;

use crate::cell::{self, Cell, Lock, MAX_PLAINTEXT, Shelves, Slot, Unique, slot};
use crate::clock::Day;
use crate::context::Context;
use crate::crypto::aead::Suite;
use crate::error::{Erased, Error, Misuse, Result};
use crate::grant::{Fresh, Now};
use crate::key::{Purpose as PurposeStage, Secret};
use crate::record::{Field, NoId, Record, RecordId, Sealable};
use crate::retention::last_day;
use crate::schema::{FieldInfo, Term};
use crate::sealed::{Sealed, VERSION, shape};
use crate::value::FieldType;
use crate::wire::Put as _;

/// How many seals one sealer makes: far below where a 96-bit nonce of a shelf could repeat (SPEC, "Bounds").
pub(crate) const MAX_SEALS: u64 = 1 << 20;

/// What a sealer is made of.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) fresh: Fresh,
    /// The state number of the subject when it was read: a withdrawal raises it, and ends the sealer.
    pub(crate) state: u64,
    pub(crate) generation: u16,
    pub(crate) serial: [u8; 16],
    /// Keys of the purposes whose basis stands.
    pub(crate) keys: BTreeMap<u16, Secret<PurposeStage>>,
    /// The versions of their notices: a consent that counted then may not count now.
    pub(crate) notices: Vec<(u16, u32)>,
    pub(crate) suite: Suite,
    /// 16 random bytes, once a handle; not stored.
    pub(crate) prefix: [u8; 16],
    pub(crate) counter: AtomicU64,
    pub(crate) max_seals: u64,
    /// The cells of the declaration, ready for the first day that is sealed to: found without a lock.
    pub(crate) first: OnceLock<Arc<Plan>>,
    /// And for another day.
    pub(crate) other: RwLock<Option<Arc<Plan>>>,
    /// Fields in columns of their own, by number.
    pub(crate) columns: RwLock<BTreeMap<u16, Arc<Column>>>,
    /// The day on which it was last used.
    pub(crate) today: AtomicU16,
}

/// Where a field in a column of its own is sealed to, on one day.
#[derive(Debug)]
pub(crate) struct Column {
    today: Day,
    terms: &'static [Term],
    shelves: Option<Shelves>,
}

/// How a record's fields lie in cells, and where the cells are sealed to.
#[derive(Debug)]
pub(crate) struct Plan {
    as_of: Day,
    today: Day,
    cells: Vec<PlannedCell>,
}

impl Plan {
    fn is(&self, as_of: Day, today: Day) -> bool {
        self.as_of == as_of && self.today == today
    }
}

#[derive(Debug)]
struct PlannedCell {
    /// `None` where no purpose stands: the cell is left out.
    shelves: Option<Shelves>,
    slots: Vec<Slot>,
    /// The fields, by their index in the declaration.
    fields: Vec<usize>,
}

/// Seals records of type `R` for one subject.
pub struct Sealer<R: Record, I = <R as Sealable>::Id> {
    core: Arc<Core>,
    of: PhantomData<fn() -> (R, I)>,
}

impl<R: Record, I> fmt::Debug for Sealer<R, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("record", &R::RECORD).finish_non_exhaustive()
    }
}

impl<R: Record<Id = NoId>> Sealer<R, NoId> {
    /// Seals a record that has no id. The record is taken and wiped.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`] where the sealer is no longer fresh or something of the subject changed, [`Error::Erased`] where
    /// the subject was forgotten, [`Error::Misuse`] for a value above 16 MiB, or when no purpose of any field stands.
    pub fn seal(&self, record: R) -> Result<Sealed<R>> {
        self.seal_record(&record, &[], None)
    }

    /// Seals as of an earlier day, from which all periods count: for imports. Purposes whose period is over get no
    /// lockbox.
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal); [`Misuse::AsOfFuture`] for a day after today, [`Misuse::Day`] where every period is over.
    pub fn seal_as_of(&self, record: R, as_of: Day) -> Result<Sealed<R>> {
        self.seal_record(&record, &[], Some(as_of))
    }

    /// Seals one field, for a column of its own.
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal).
    pub fn seal_field<F: Field<Record = R, Id = NoId>>(&self, value: F::Type) -> Result<Sealed<F>> {
        self.seal_one::<F>(&value, &[])
    }
}

impl<R: Record<Id = I>, I: RecordId> Sealer<R, I> {
    /// Seals a record under its id. The record is taken and wiped.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`] where the sealer is no longer fresh or something of the subject changed, [`Error::Erased`] where
    /// the subject was forgotten, [`Error::Misuse`] for a value above 16 MiB, an id of more than 128 bytes, or when no
    /// purpose of any field stands.
    pub fn seal(&self, record: R, id: &I) -> Result<Sealed<R>> {
        self.seal_record(&record, id.id_bytes().bytes().ok_or(Misuse::Identifier)?, None)
    }

    /// Seals as of an earlier day, from which all periods count: for imports. Purposes whose period is over get no
    /// lockbox.
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal); [`Misuse::AsOfFuture`] for a day after today, [`Misuse::Day`] where every period is over.
    pub fn seal_as_of(&self, record: R, id: &I, as_of: Day) -> Result<Sealed<R>> {
        self.seal_record(&record, id.id_bytes().bytes().ok_or(Misuse::Identifier)?, Some(as_of))
    }

    /// Seals one field, for a column of its own.
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal).
    pub fn seal_field<F: Field<Record = R, Id = I>>(&self, value: F::Type, id: &I) -> Result<Sealed<F>> {
        self.seal_one::<F>(&value, id.id_bytes().bytes().ok_or(Misuse::Identifier)?)
    }
}

impl<R: Record<Id = I>, I> Sealer<R, I> {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Sealer { core, of: PhantomData }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn seal_record(
        &self,
        record: &R,
        record_id: &[u8],
        as_of: Option<Day>,
    ) -> Result<Sealed<R, I>> {
        let mut out = Zeroizing::default();
        self.append(record, record_id, as_of, &mut out)?;
        Ok(Sealed::trusted(std::mem::take(&mut *out)))
    }

    /// Appends a sealed record to `out`, or leaves it as it is.
    fn append(
        &self,
        record: &R,
        record_id: &[u8],
        as_of: Option<Day>,
        out: &mut Zeroizing<Vec<u8>>,
    ) -> Result<()> {
        let start = out.len();
        let sealed = self.core.while_fresh(|today| {
            out.truncate(start);
            let as_of = as_of.unwrap_or(today);
            if as_of > today {
                return Err(Misuse::AsOfFuture.into());
            }
            if let Some(plan) = self.core.first.get()
                && plan.is(as_of, today)
            {
                return self.append_by(plan, record, record_id, out);
            }
            self.append_by(&*self.other_plan(as_of, today)?, record, record_id, out)
        });
        if sealed.is_err() {
            out.truncate(start);
        }
        sealed
    }

    fn append_by(
        &self,
        plan: &Plan,
        record: &R,
        record_id: &[u8],
        out: &mut Zeroizing<Vec<u8>>,
    ) -> Result<()> {
        let mut lens = Lens::default();
        let mut total = 1_usize;
        for planned in &plan.cells {
            let mut plaintext = 0_usize;
            for index in &planned.fields {
                let padding = R::FIELDS.get(*index).map_or(0, FieldInfo::padding);
                plaintext = plaintext.saturating_add(slot::len(record.encoded_len(*index), padding));
            }
            // Before memory is taken: a value may say any length.
            if plaintext > MAX_PLAINTEXT {
                return Err(Misuse::TooLarge.into());
            }
            let len = planned
                .shelves
                .as_ref()
                .map_or(0, |shelves| cell::sealed_len(&planned.slots, shelves.boxes.len(), plaintext));
            lens.push(plaintext);
            // The prefix of a cell takes five bytes at most.
            total = total.saturating_add(len).saturating_add(5);
        }
        if plan.cells.iter().all(|planned| planned.shelves.is_none()) {
            return Err(self.core.why_nothing(plan.as_of, plan.today));
        }
        // All of it now: it must not move while it holds plaintext.
        out.reserve(total);
        out.put_u8(VERSION);
        for (planned, plaintext) in plan.cells.iter().zip(lens.iter()) {
            let Some(shelves) = &planned.shelves else { continue };
            self.core.seal_cell::<R>(shelves, &planned.slots, record_id, plaintext, out, |out| {
                for index in &planned.fields {
                    let padding = R::FIELDS.get(*index).map_or(0, FieldInfo::padding);
                    slot::put(record.encoded_len(*index), padding, out, |out| record.encode(*index, out));
                }
            })?;
        }
        Ok(())
    }

    fn seal_one<F: Field<Record = R>>(&self, value: &F::Type, record_id: &[u8]) -> Result<Sealed<F>> {
        self.core.while_fresh(|today| self.seal_one_on::<F>(today, value, record_id))
    }

    fn seal_one_on<F: Field<Record = R>>(
        &self,
        today: Day,
        value: &F::Type,
        record_id: &[u8],
    ) -> Result<Sealed<F>> {
        let column = self.core.column(&F::INFO, today)?;
        let Some(shelves) = &column.shelves else { return Err(self.core.why_nothing(today, today)) };
        let padding = F::INFO.padding();
        let slots = [Slot { number: F::INFO.number, padded: padding > 0 }];
        let plaintext = slot::len(value.encoded_len(), padding);
        if plaintext > MAX_PLAINTEXT {
            return Err(Misuse::TooLarge.into());
        }
        let len = cell::sealed_len(&slots, shelves.boxes.len(), plaintext);
        let mut out = Zeroizing::new(Vec::with_capacity(len.saturating_add(6)));
        out.put_u8(VERSION);
        self.core.seal_cell::<F>(shelves, &slots, record_id, plaintext, &mut out, |out| {
            slot::put(value.encoded_len(), padding, out, |out| value.encode(out));
        })?;
        Ok(Sealed::trusted(std::mem::take(&mut *out)))
    }

    /// The plan that was made last, or a new one.
    fn other_plan(&self, as_of: Day, today: Day) -> Result<Arc<Plan>> {
        if let Some(plan) = self.core.other.read().unwrap_or_else(PoisonError::into_inner).as_ref()
            && plan.is(as_of, today)
        {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(self.plan(as_of, today)?);
        if self.core.first.set(Arc::clone(&plan)).is_err() {
            *self.core.other.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&plan));
        }
        Ok(plan)
    }

    /// The cells of the declaration, sealed to the days that follow from `as_of`.
    fn plan(&self, as_of: Day, today: Day) -> Result<Plan> {
        let mut cells: Vec<PlannedCell> = Vec::new();
        for (index, (info, cell)) in R::FIELDS.iter().zip(R::CELLS).enumerate() {
            if *cell == cells.len() {
                let shelves = self.core.shelves(info.terms, as_of, today)?;
                cells.push(PlannedCell { shelves, slots: Vec::new(), fields: Vec::new() });
            }
            let planned = cells.get_mut(*cell).ok_or(Misuse::UnknownRecord)?;
            planned.slots.push(Slot { number: info.number, padded: info.padding() > 0 });
            planned.fields.push(index);
        }
        Ok(Plan { as_of, today, cells })
    }
}

/// Lengths of the cells' plaintexts, on the stack for all but huge declarations.
#[derive(Default)]
struct Lens {
    few: [usize; 16],
    count: usize,
    more: Vec<usize>,
}

impl Lens {
    fn push(&mut self, len: usize) {
        match self.few.get_mut(self.count) {
            Some(place) => *place = len,
            None => self.more.push(len),
        }
        self.count = self.count.saturating_add(1);
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.few.iter().copied().take(self.count).chain(self.more.iter().copied())
    }
}

impl Core {
    /// Does `work`, and gives out what it has made only where the sealer may be used after it, on the day that `work` was
    /// told.
    fn while_fresh<T>(&self, mut work: impl FnMut(Day) -> Result<T>) -> Result<T> {
        let mut today = Day(self.today.load(Ordering::Relaxed));
        loop {
            let made = work(today);
            let now = self.check()?.day();
            if now == today {
                return made;
            }
            today = now;
            self.today.store(today.0, Ordering::Relaxed);
        }
    }

    pub(crate) fn check(&self) -> Result<Now> {
        let now = self.fresh.vault.now();
        self.fresh.vault.clock_is_sane(now)?;
        self.fresh.check(now, |state, fence| match fence {
            Some(fence) if fence.forgotten.is_some() => Err(Erased::Forgotten.into()),
            _ if self.notices.iter().any(|(purpose, notice)| state.notice(*purpose) != *notice) => {
                Err(Error::Stale)
            }
            Some(fence) if fence.state != self.state || fence.era != self.fresh.era => Err(Error::Stale),
            _ => Ok(()),
        })?;
        Ok(now)
    }

    /// Where a field in a column of its own is sealed to today.
    fn column(&self, info: &FieldInfo, today: Day) -> Result<Arc<Column>> {
        let known = self.columns.read().unwrap_or_else(PoisonError::into_inner).get(&info.number).cloned();
        if let Some(column) = known.filter(|column| column.today == today && column.terms == info.terms) {
            return Ok(column);
        }
        let column =
            Arc::new(Column { today, terms: info.terms, shelves: self.shelves(info.terms, today, today)? });
        let mut columns = self.columns.write().unwrap_or_else(PoisonError::into_inner);
        columns.insert(info.number, Arc::clone(&column));
        Ok(column)
    }

    /// The shelves of a list of terms, as of a day: without the purposes that do not stand or whose day is over. `None`
    /// where none is left.
    pub(crate) fn shelves(&self, terms: &[Term], as_of: Day, today: Day) -> Result<Option<Shelves>> {
        let mut days = BTreeMap::new();
        for term in terms {
            days.insert(term.purpose.number, last_day(as_of, term.period).ok_or(Misuse::Day)?);
        }
        self.shelves_for(&days.into_iter().collect::<Vec<_>>(), today)
    }

    /// The same for purposes and days, ascending by purpose.
    pub(crate) fn shelves_for(&self, days: &[(u16, Day)], today: Day) -> Result<Option<Shelves>> {
        let (mut boxes, mut hedges) = (Vec::with_capacity(days.len()), None);
        for (purpose, day) in days {
            let Some(key) = self.keys.get(purpose) else { continue };
            if *day < today || self.fresh.vault.journal.over(*day) {
                continue;
            }
            let day_key = self.fresh.vault.calendar.day(*day).ok_or(Misuse::Day)?;
            let shelf = Secret::combine(&day_key, key);
            if hedges.is_none() {
                hedges = Some(shelf.hedges(self.suite));
            }
            boxes.push(Lock { purpose: *purpose, day: *day, cipher: shelf.wrap(self.suite) });
        }
        Ok(hedges.map(|(hedge, second_hedge)| Shelves {
            suite: self.suite,
            generation: self.generation,
            hedge,
            second_hedge,
            boxes,
        }))
    }

    /// The purposes and days that a cell was really sealed for, as far as they are alive: each lockbox has to open under
    /// the subject's own key of today. A header alone says nothing: whoever writes the shop's rows could have written
    /// another purpose or a later day into it. A cell of an earlier enrolment has none.
    pub(crate) fn live(&self, cell: &Cell<'_>, context: &Context<'_>, now: Now) -> Vec<(u16, Day)> {
        if cell.generation != self.generation {
            return Vec::new();
        }
        let opens = |(purpose, day): &(u16, Day)| {
            let over = *day < now.day() || self.fresh.vault.journal.over(*day);
            let (Some(key), Some(day_key)) = (self.keys.get(purpose), self.fresh.vault.calendar.day(*day))
            else {
                return false;
            };
            !over && cell.is_locked_by(context, *purpose, &Secret::combine(&day_key, key).wrap(cell.suite))
        };
        cell.lockboxes().filter(opens).collect()
    }

    /// The context of this sealer's own enrolment.
    pub(crate) fn context<'a, T: Sealable>(&self, record_id: &'a [u8]) -> Result<Context<'a>> {
        Context::new(&self.fresh.vault.id, &self.serial, T::RECORD, record_id, shape::<T>())
    }

    /// Appends one cell with its length.
    pub(crate) fn seal_cell<T: Sealable>(
        &self,
        shelves: &Shelves,
        slots: &[Slot],
        record_id: &[u8],
        plaintext: usize,
        out: &mut Zeroizing<Vec<u8>>,
        write: impl FnOnce(&mut crate::value::Encoder<'_>),
    ) -> Result<()> {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        if counter >= self.max_seals {
            return Err(Misuse::SealsUsedUp.into());
        }
        let context = self.context::<T>(record_id)?;
        let len = cell::sealed_len(slots, shelves.boxes.len(), plaintext);
        out.reserve_exact(len.saturating_add(5));
        out.put_varint(u32::try_from(len).map_err(|_| Misuse::TooLarge)?);
        let unique = Unique { prefix: self.prefix, counter };
        cell::seal(shelves, &context, unique, slots, plaintext, out, write)
    }

    fn why_nothing(&self, as_of: Day, today: Day) -> Error {
        if self.keys.is_empty() {
            Erased::Purpose.into()
        } else if as_of < today {
            Misuse::Day.into()
        } else {
            Erased::NoConsent.into()
        }
    }
}
