//! Changing what is sealed: `update` sets fields and keeps a cell's own purposes and days; `renew` gives new days.

use std::collections::{BTreeMap, BTreeSet};

use zeroize::Zeroizing;

use crate::actor::{Actor, Ground};
use crate::cell::{self, Cell, Shelves, Slot, slot};
use crate::clock::Day;
use crate::context::Context;
use crate::error::{Erased, Error, Misuse, Result};
use crate::grant::{Grant, Now};
use crate::log::Action;
use crate::purpose::Purpose;
use crate::record::{Field, NoId, Record, RecordId};
use crate::schema::FieldInfo;
use crate::sealed::{Sealed, VERSION, shape};
use crate::sealer::{Core, Sealer};
use crate::value::{Encoder, FieldType};
use crate::wire::{Put as _, Reader};

/// The fields that an update sets.
#[derive(Debug)]
pub struct Changes<R> {
    /// A field's slot, as it will lie in its cell.
    slots: BTreeMap<u16, Piece>,
    /// A value was too large, or wrote another length than it said.
    refused: bool,
    of: std::marker::PhantomData<fn() -> R>,
}

/// A field's bytes with their padding.
#[derive(Debug)]
struct Piece {
    padded: bool,
    bytes: Zeroizing<Vec<u8>>,
}

impl<R: Record> Changes<R> {
    /// Sets a field. The value is taken and wiped.
    pub fn set<F: Field<Record = R>>(&mut self, value: F::Type) {
        let padding = F::INFO.padding();
        let len = slot::len(value.encoded_len(), padding);
        if len > cell::MAX_PLAINTEXT {
            self.refused = true;
            return;
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        let mut encoder = Encoder::new(&mut bytes);
        slot::put(value.encoded_len(), padding, &mut encoder, |out| value.encode(out));
        self.refused |= !encoder.is_whole() || bytes.len() != len;
        self.slots.insert(F::INFO.number, Piece { padded: padding > 0, bytes });
    }
}

impl<R: Record<Id = NoId>> Sealed<R, NoId> {
    /// Seals again the cells of the fields that `change` sets, with the cells' own purposes and days, less those that
    /// are over, under new content keys. Other cells stay as they are. A field that was not sealed before is sealed as
    /// declared.
    ///
    /// # Errors
    ///
    /// [`Misuse::UpdateCannotOpen`] where the grant cannot open a touched cell and not every field of it is set;
    /// [`Erased::Purpose`] where nothing is left that a touched cell could be sealed for; as opening and sealing.
    pub fn update<P: Purpose>(
        &self,
        sealer: &Sealer<R>,
        grant: &Grant<P>,
        change: impl FnOnce(&mut Changes<R>),
    ) -> Result<Self> {
        update(self, sealer, grant, &[], change)
    }

    /// Seals the record's cells again as it is declared now, with periods counted from `from`: new days, and purposes
    /// that were declared later. Cells that the grant cannot open stay as they are.
    ///
    /// # Errors
    ///
    /// [`Misuse::AsOfFuture`]; as opening and sealing; where the log cannot be written.
    pub async fn renew<P: Purpose>(
        &self,
        sealer: &Sealer<R>,
        grant: &Grant<P>,
        from: Day,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Self> {
        renew(self, sealer, grant, &[], from, actor, ground).await
    }
}

impl<R: Record<Id = I>, I: RecordId> Sealed<R, I> {
    /// Seals again the cells of the fields that `change` sets, with the cells' own purposes and days, less those that
    /// are over, under new content keys. Other cells stay as they are. A field that was not sealed before is sealed as
    /// declared.
    ///
    /// # Errors
    ///
    /// [`Misuse::UpdateCannotOpen`] where the grant cannot open a touched cell and not every field of it is set;
    /// [`Erased::Purpose`] where nothing is left that a touched cell could be sealed for; as opening and sealing.
    pub fn update<P: Purpose>(
        &self,
        sealer: &Sealer<R>,
        grant: &Grant<P>,
        id: &I,
        change: impl FnOnce(&mut Changes<R>),
    ) -> Result<Self> {
        update(self, sealer, grant, id.id_bytes().bytes().ok_or(Misuse::Identifier)?, change)
    }

    /// Seals the record's cells again as it is declared now, with periods counted from `from`: new days, and purposes
    /// that were declared later. Cells that the grant cannot open stay as they are.
    ///
    /// # Errors
    ///
    /// [`Misuse::AsOfFuture`]; as opening and sealing; where the log cannot be written.
    pub async fn renew<P: Purpose>(
        &self,
        sealer: &Sealer<R>,
        grant: &Grant<P>,
        id: &I,
        from: Day,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Self> {
        let id = id.id_bytes();
        renew(self, sealer, grant, id.bytes().ok_or(Misuse::Identifier)?, from, actor, ground).await
    }
}

/// A new cell, or one that is copied as it lies there.
enum Next<'a> {
    Same(&'a [u8]),
    New { shelves: Box<Shelves>, pieces: BTreeMap<u16, Piece> },
}

fn update<R: Record<Id = I>, I, P: Purpose>(
    sealed: &Sealed<R, I>,
    sealer: &Sealer<R, I>,
    grant: &Grant<P>,
    record_id: &[u8],
    change: impl FnOnce(&mut Changes<R>),
) -> Result<Sealed<R, I>> {
    let (core, now) = together(sealer, grant)?;
    let mut changes = Changes { slots: BTreeMap::new(), refused: false, of: std::marker::PhantomData };
    change(&mut changes);
    if changes.refused {
        return Err(Misuse::TooLarge.into());
    }
    let mut set = changes.slots;
    let context = core.context::<R>(record_id)?;
    let mut next: BTreeMap<u16, Next<'_>> = BTreeMap::new();
    for (raw, cell) in raw_cells(sealed.as_bytes())? {
        let numbers: BTreeSet<u16> = cell.slots().map(|slot| slot.number).collect();
        let first = numbers.first().copied().unwrap_or(0);
        let touched: Vec<u16> = numbers.iter().copied().filter(|number| set.contains_key(number)).collect();
        if touched.is_empty() {
            next.insert(first, Next::Same(raw));
            continue;
        }
        let days = core.live(&cell, &context, now);
        if days.is_empty() && touched.len() == numbers.len() {
            // Nothing of the cell is alive and nothing of it is wanted: the new values are sealed as declared.
            continue;
        }
        let shelves = core.shelves_for(&days, now.day())?.ok_or(Erased::Purpose)?;
        let mut pieces = if touched.len() == numbers.len() {
            BTreeMap::new()
        } else {
            pieces::<R, P>(&cell, grant, now, record_id)?.ok_or(Misuse::UpdateCannotOpen)?
        };
        for number in touched {
            pieces.extend(set.remove(&number).map(|piece| (number, piece)));
        }
        next.insert(first, Next::New { shelves: Box::new(shelves), pieces });
    }
    for (cell, pieces) in by_declared_cell::<R>(set) {
        let Some(field) = R::FIELDS.iter().zip(R::CELLS).find(|(_, of)| **of == cell).map(|(field, _)| field)
        else {
            continue;
        };
        let Some(shelves) = core.shelves(field.terms, now.day(), now.day())? else { continue };
        let first = pieces.first_key_value().map_or(0, |(number, _)| *number);
        next.insert(first, Next::New { shelves: Box::new(shelves), pieces });
    }
    given_on(core, grant, now, build(core, record_id, next)?)
}

async fn renew<R: Record<Id = I>, I, P: Purpose>(
    sealed: &Sealed<R, I>,
    sealer: &Sealer<R, I>,
    grant: &Grant<P>,
    record_id: &[u8],
    from: Day,
    actor: &Actor,
    ground: &Ground,
) -> Result<Sealed<R, I>> {
    let (core, now) = together(sealer, grant)?;
    if from > now.day() {
        return Err(Misuse::AsOfFuture.into());
    }
    let vault = &core.fresh.vault;
    vault.log(vault.entry_by(Action::Renew, actor, ground)?.for_purpose(P::NUMBER)).await?;
    let context = core.context::<R>(record_id)?;
    let mut next: BTreeMap<u16, Next<'_>> = BTreeMap::new();
    for (raw, cell) in raw_cells(sealed.as_bytes())? {
        let first = cell.slots().next().map_or(0, |slot| slot.number);
        // What an earlier enrolment left behind is kept for what the law says, and never sealed for the new one.
        let own = cell.generation == core.generation;
        let pieces = if own { pieces::<R, P>(&cell, grant, now, record_id)? } else { None };
        let Some(pieces) = pieces else {
            next.insert(first, Next::Same(raw));
            continue;
        };
        // Fields that this declaration does not know keep the cell's own days.
        let known = |number: &u16| R::FIELDS.iter().any(|field| field.number == *number);
        let (known, unknown): (BTreeMap<_, _>, BTreeMap<_, _>) =
            pieces.into_iter().partition(|(number, _)| known(number));
        if let Some((first, _)) = unknown.first_key_value() {
            let Some(shelves) = core.shelves_for(&core.live(&cell, &context, now), now.day())? else {
                return Err(Misuse::UpdateCannotOpen.into());
            };
            next.insert(*first, Next::New { shelves: Box::new(shelves), pieces: unknown });
        }
        for (cell, pieces) in by_declared_cell::<R>(known) {
            let field = R::FIELDS.iter().zip(R::CELLS).find(|(_, of)| **of == cell).map(|(field, _)| field);
            let (Some(field), Some((first, _))) = (field, pieces.first_key_value()) else { continue };
            let shelves = core.shelves(field.terms, from, now.day())?.ok_or(Erased::Purpose)?;
            next.insert(*first, Next::New { shelves: Box::new(shelves), pieces });
        }
    }
    given_on(core, grant, now, build(core, record_id, next)?)
}

/// Gives out what was decided by `now`, where sealer and grant may still be used, on that day.
fn given_on<P: Purpose, T>(core: &Core, grant: &Grant<P>, now: Now, sealed: T) -> Result<T> {
    let day = |now| core.fresh.vault.day(now);
    if grant.check()? == day(now) && day(core.check()?) == day(now) { Ok(sealed) } else { Err(Error::Stale) }
}

/// Sealer and grant have to be of one subject, and both fresh.
fn together<'a, R: Record<Id = I>, I, P: Purpose>(
    sealer: &'a Sealer<R, I>,
    grant: &Grant<P>,
) -> Result<(&'a Core, Now)> {
    let core = sealer.core();
    let now = core.check()?;
    grant.check()?;
    if !grant.is_of(&core.fresh) {
        return Err(Error::DoesNotOpen);
    }
    Ok((core, now))
}

/// Each cell with the bytes it was parsed from.
fn raw_cells(bytes: &[u8]) -> Result<Vec<(&[u8], Cell<'_>)>> {
    let mut reader = Reader::new(bytes.get(1..).unwrap_or_default());
    let mut cells = Vec::new();
    while !reader.is_empty() {
        let raw = reader.bytes()?;
        cells.push((raw, Cell::parse(raw)?));
    }
    Ok(cells)
}

/// Opens a cell into its fields' bytes; `None` where the grant may not open it, or not all of it.
fn pieces<R: Record, P: Purpose>(
    cell: &Cell<'_>,
    grant: &Grant<P>,
    now: Now,
    record_id: &[u8],
) -> Result<Option<BTreeMap<u16, Piece>>> {
    if !cell.slots().all(|slot| grant.covers(R::RECORD, slot.number)) {
        return Ok(None);
    }
    let pieces = grant.open(cell, now.day(), |serial, purpose, cipher| {
        let context = Context::new(grant.vault_id(), serial, R::RECORD, record_id, shape::<R>())?;
        cell.open(&context, purpose, cipher, |values| {
            let mut reader = Reader::new(values);
            let mut pieces = BTreeMap::new();
            for slot in cell.slots() {
                let bytes = Zeroizing::new(slot::take_raw(&mut reader)?.to_vec());
                pieces.insert(slot.number, Piece { padded: slot.padded, bytes });
            }
            reader.end()?;
            Ok(pieces)
        })
    });
    match pieces {
        Ok(pieces) => Ok(pieces.ok()),
        Err(Error::Malformed(_)) => Err(Error::DoesNotOpen),
        Err(why) => Err(why),
    }
}

fn by_declared_cell<R: Record>(pieces: BTreeMap<u16, Piece>) -> BTreeMap<usize, BTreeMap<u16, Piece>> {
    let cell_of = |number: u16| {
        R::FIELDS
            .iter()
            .zip(R::CELLS)
            .find(|(field, _): &(&FieldInfo, _)| field.number == number)
            .map(|(_, cell)| *cell)
    };
    let mut cells: BTreeMap<usize, BTreeMap<u16, Piece>> = BTreeMap::new();
    for (number, piece) in pieces {
        if let Some(cell) = cell_of(number) {
            cells.entry(cell).or_default().insert(number, piece);
        }
    }
    cells
}

fn build<R: Record<Id = I>, I>(
    core: &Core,
    record_id: &[u8],
    next: BTreeMap<u16, Next<'_>>,
) -> Result<Sealed<R, I>> {
    let mut out = Zeroizing::new(vec![VERSION]);
    for cell in next.into_values() {
        match cell {
            Next::Same(raw) => out.put_bytes(raw),
            Next::New { shelves, pieces } => {
                let slots: Vec<Slot> = pieces
                    .iter()
                    .map(|(number, piece)| Slot { number: *number, padded: piece.padded })
                    .collect();
                let plaintext = pieces.values().map(|piece| piece.bytes.len()).fold(0, usize::saturating_add);
                // A buffer of its own: growing the record must not leave plaintext behind.
                let mut sealed = Zeroizing::new(Vec::with_capacity(cell::sealed_len(
                    &slots,
                    shelves.boxes.len(),
                    plaintext,
                )));
                core.seal_cell::<R>(&shelves, &slots, record_id, plaintext, &mut sealed, |out| {
                    for piece in pieces.values() {
                        out.put(&piece.bytes);
                    }
                })?;
                out.put(&sealed);
            }
        }
    }
    core.check()?;
    Ok(Sealed::trusted(std::mem::take(&mut *out)))
}
