//! What sealing, updating and renewing come to in the model.

use std::collections::BTreeMap;

use customer_vault::error::{Erased, Halted, Misuse};
use customer_vault::{Day, Error};

use crate::plain::{BOOKS, Cell, Done, FRAUD, KeyId, Model, Pass, RECS, Reader, SHIP, Seal, Value, stands};

/// The declaration of `order`: fields in cells, with the days or months of each purpose.
const CELLS: [(&[u16], &[Term]); 4] = [
    (&[1, 5], &[(SHIP, Period::Days(20)), (BOOKS, Period::Months(3))]),
    (&[2], &[(SHIP, Period::Days(20))]),
    (&[3], &[(RECS, Period::Months(2))]),
    (&[4], &[(RECS, Period::Months(2)), (FRAUD, Period::Days(40))]),
];

type Term = (u16, Period);

#[derive(Clone, Copy)]
enum Period {
    Days(u16),
    Months(i32),
}

impl Period {
    fn last_day(self, from: u16) -> u16 {
        match self {
            Period::Days(days) => from + days,
            Period::Months(months) => {
                let (year, month, day) = civil(from);
                let month = month - 1 + months;
                let (year, month) = (year + month / 12, month % 12 + 1);
                let exact = |day: i32| {
                    Day::from_ymd(
                        year.try_into().unwrap(),
                        month.try_into().unwrap(),
                        day.try_into().unwrap(),
                    )
                };
                // A month that is too short ends on its last day.
                (0..4).find_map(|less| exact(day - less).ok()).unwrap().number()
            }
        }
    }
}

/// Year, month and day of a day since 1970, by counting.
fn civil(day: u16) -> (i32, i32, i32) {
    let mut rest = i32::from(day);
    let mut year = 1970;
    let leap = |year: i32| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while rest >= 365 + i32::from(leap(year)) {
        rest -= 365 + i32::from(leap(year));
        year += 1;
    }
    for (month, length) in (1..).zip([31, 28 + i32::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
    {
        if rest < length {
            return (year, month, rest + 1);
        }
        rest -= length;
    }
    panic!("no such day")
}

impl Model {
    pub fn sealer(&mut self, who: usize) -> Done<Seal> {
        self.advance_time()?;
        if self.frozen {
            return Err(Halted::Frozen.into());
        }
        let (today, notice, notices) = (self.today(), self.notice, self.notices);
        let subject = self.subject(who)?;
        let newest = subject.newest();
        if newest.forgotten.is_some() {
            return Err(Erased::Forgotten.into());
        }
        let keys = newest
            .purposes
            .iter()
            .filter(|(purpose, _)| stands(newest, **purpose, notice, today))
            .filter_map(|(purpose, standing)| Some((*purpose, standing.key?)))
            .collect();
        let seen = (subject.era, subject.turns, notices);
        Ok(Seal { subject: who, generation: newest.number, keys, seen })
    }

    pub fn may_seal(&self, seal: &Seal) -> Done {
        if !self.sane() {
            return Err(Halted::Clock.into());
        }
        if self.frozen {
            return Err(Halted::Frozen.into());
        }
        let subject = self.subjects[seal.subject].as_ref().unwrap();
        if subject.newest().forgotten.is_some() {
            return Err(Erased::Forgotten.into());
        }
        if seal.seen == (subject.era, subject.turns, self.notices) { Ok(()) } else { Err(Error::Stale) }
    }

    fn boxes(&self, seal: &Seal, days: impl Iterator<Item = (u16, u16)>) -> BTreeMap<u16, (u16, KeyId)> {
        days.filter(|(_, day)| *day >= self.today() && *day > self.mark)
            .filter_map(|(purpose, day)| Some((purpose, (day, *seal.keys.get(&purpose)?))))
            .collect()
    }

    fn declared(&self, seal: &Seal, cell: usize, from: u16) -> BTreeMap<u16, (u16, KeyId)> {
        self.boxes(seal, CELLS[cell].1.iter().map(|(purpose, period)| (*purpose, period.last_day(from))))
    }

    pub fn seal(
        &self,
        seal: &Seal,
        order: u64,
        texts: &BTreeMap<u16, String>,
        as_of: Option<u16>,
    ) -> Done<Value> {
        self.may_seal(seal)?;
        let from = as_of.unwrap_or(self.today());
        let mut value = Value { subject: seal.subject, order, cells: Vec::new() };
        for (cell, (fields, _)) in CELLS.iter().enumerate() {
            let boxes = self.declared(seal, cell, from);
            if !boxes.is_empty() {
                let fields = fields.iter().map(|field| (*field, texts[field].clone())).collect();
                value.cells.push(Cell { fields, generation: seal.generation, boxes });
            }
        }
        if !value.cells.is_empty() {
            return Ok(value);
        }
        Err(if seal.keys.is_empty() {
            Erased::Purpose.into()
        } else if from < self.today() {
            Misuse::Day.into()
        } else {
            Erased::NoConsent.into()
        })
    }

    fn together(&self, seal: &Seal, pass: &Pass) -> Done {
        self.may_seal(seal)?;
        self.alive(pass)?;
        let subject = self.subjects[pass.subject].as_ref().unwrap();
        if let Reader::Purpose(purpose) = pass.ticket.reader
            && !self.permits(subject, purpose)
        {
            return Err(Erased::Purpose.into());
        }
        if self.seen(subject, pass) != pass.seen {
            return Err(Error::Stale);
        }
        if seal.subject == pass.subject { Ok(()) } else { Err(Error::DoesNotOpen) }
    }

    /// Sets one field of a value of the same subject.
    pub fn update(&self, value: &Value, seal: &Seal, pass: &Pass, field: u16, text: &str) -> Done<Value> {
        self.together(seal, pass)?;
        let subject = self.subjects[pass.subject].as_ref().unwrap();
        let mut next = value.clone();
        for cell in &mut next.cells {
            if !cell.fields.contains_key(&field) {
                continue;
            }
            let old = cell.generation != seal.generation;
            if cell.fields.len() > 1 && (old || self.opens(subject, cell, pass).is_err()) {
                return Err(Misuse::UpdateCannotOpen.into());
            }
            cell.boxes = self.boxes(seal, cell.boxes.iter().map(|(purpose, (day, _))| (*purpose, *day)));
            if cell.boxes.is_empty() {
                return Err(Erased::Purpose.into());
            }
            cell.generation = seal.generation;
            cell.fields.insert(field, text.to_owned());
            return Ok(next);
        }
        let declared = CELLS.iter().position(|(fields, _)| fields.contains(&field)).unwrap();
        let boxes = self.declared(seal, declared, self.today());
        if !boxes.is_empty() {
            let fields = BTreeMap::from([(field, text.to_owned())]);
            next.cells.push(Cell { fields, generation: seal.generation, boxes });
        }
        Ok(next)
    }

    pub fn renew(&self, value: &Value, seal: &Seal, pass: &Pass, from: u16) -> Done<Value> {
        self.together(seal, pass)?;
        let subject = self.subjects[pass.subject].as_ref().unwrap();
        let mut next = value.clone();
        for cell in &mut next.cells {
            if cell.generation != seal.generation || self.opens(subject, cell, pass).is_err() {
                continue;
            }
            let first = cell.fields.keys().next().unwrap();
            let declared = CELLS.iter().position(|(fields, _)| fields.contains(first)).unwrap();
            cell.boxes = self.declared(seal, declared, from);
            if cell.boxes.is_empty() {
                return Err(Erased::Purpose.into());
            }
        }
        Ok(next)
    }
}
