//! What becomes of subjects in the model: enrolled, forgotten, held, shredded.

use std::collections::BTreeMap;

use customer_vault::error::{Erased, Halted, Misuse};

use crate::plain::{BOOKS, Done, Forgotten, GRACE, Model, RECS, Shelves, Subject, WINDOW_MS, stands};

impl Model {
    pub fn enroll(&mut self, who: usize, consent: Option<u32>) -> Done {
        if self.frozen {
            return Err(Halted::Frozen.into());
        }
        match &self.subjects[who] {
            Some(subject) if subject.newest().forgotten.is_some() => {
                return Err(Erased::Forgotten.into());
            }
            Some(_) => return Err(Misuse::AlreadyEnrolled.into()),
            None => {}
        }
        let generations = vec![self.generation(1, consent)];
        self.subjects[who] = Some(Subject { generations, ..Subject::default() });
        Ok(())
    }

    pub fn enroll_again(&mut self, who: usize, consent: Option<u32>) -> Done {
        if self.frozen {
            return Err(Halted::Frozen.into());
        }
        let today = self.trusted_today();
        let newest = self.subject(who)?.newest();
        if newest.forgotten.is_none() {
            return Err(Misuse::AlreadyEnrolled.into());
        }
        let number = newest.number + 1;
        let fresh = self.generation(number, consent);
        let subject = self.subject(who)?;
        for generation in &mut subject.generations {
            if let Some(forgotten) = &mut generation.forgotten {
                forgotten.due = forgotten.due.min(today);
            }
        }
        subject.generations.push(fresh);
        subject.era += 1;
        Ok(())
    }

    pub fn consent(&mut self, who: usize, version: u32) -> Done {
        let (key, today) = (self.fresh_key(), self.trusted_today());
        let subject = self.subject(who)?;
        let newest = subject.newest_mut();
        if newest.forgotten.is_some() {
            return Err(Erased::Forgotten.into());
        }
        let standing = newest.purposes.get_mut(&RECS).unwrap();
        if standing.withdrawn.is_some() && standing.held {
            return Err(Erased::Purpose.into());
        }
        if standing.withdrawn.is_some_and(|due| due <= today) {
            standing.key = None;
        }
        standing.consent = Some(version);
        let resumed = standing.withdrawn.take().is_some();
        standing.key.get_or_insert(key);
        if resumed {
            subject.turns += 1;
            *subject.resumed.entry(RECS).or_default() += 1;
        }
        Ok(())
    }

    pub fn require_notice(&mut self) {
        self.notice += 1;
        self.notices += 1;
    }

    pub fn withdraw(&mut self, who: usize, purpose: u16) -> Done {
        if purpose == BOOKS {
            return Err(Misuse::NotConsent.into());
        }
        let due = self.trusted_today() + GRACE;
        let subject = self.subject(who)?;
        let newest = subject.newest_mut();
        if newest.forgotten.is_some() {
            return Err(Erased::Forgotten.into());
        }
        let standing = newest.purposes.get_mut(&purpose).unwrap();
        if standing.withdrawn.is_some() {
            return Err(Erased::Purpose.into());
        }
        standing.withdrawn = Some(due);
        subject.turns += 1;
        Ok(())
    }

    /// `keeps` is what is asked for; the books stay until `books`, as the receipt says. Returns what stays.
    pub fn forget(
        &mut self,
        who: usize,
        keeps: Option<(u16, u16)>,
        books: u16,
        at_once: bool,
        reference: [u8; 16],
    ) -> Done<Vec<(u16, u16)>> {
        let today = self.trusted_today();
        let notice = self.notice;
        let subject = self.subject(who)?;
        let newest = subject.newest_mut();
        if newest.forgotten.is_some() {
            return Err(Erased::Forgotten.into());
        }
        let mut stays = BTreeMap::from_iter(keeps);
        stays.insert(BOOKS, books.max(stays.get(&BOOKS).copied().unwrap_or(0)));
        stays.retain(|purpose, _| stands(newest, *purpose, notice, today));
        for (purpose, until) in &stays {
            newest.purposes.get_mut(purpose).unwrap().until = Some(*until);
        }
        let due = if at_once { today } else { today + GRACE };
        newest.forgotten = Some(Forgotten { due, shredded: false, reference });
        subject.era += 1;
        self.uncertified.push(reference);
        Ok(stays.into_iter().collect())
    }

    pub fn undo(&mut self, who: usize) -> Done {
        let today = self.trusted_today();
        let subject = self.subject(who)?;
        let newest = subject.newest_mut();
        let forgotten = newest.forgotten.as_ref().ok_or(Misuse::NothingToUndo)?;
        if forgotten.shredded || forgotten.due <= today {
            return Err(Erased::GraceOver.into());
        }
        newest.forgotten = None;
        newest.purposes.values_mut().for_each(|standing| standing.until = None);
        subject.era += 1;
        Ok(())
    }

    pub fn hold(&mut self, who: usize) -> Done {
        let subject = self.subject(who)?;
        if subject.held.is_none() {
            subject.held = Some(Shelves::new());
            subject.era += 1;
        }
        Ok(())
    }

    pub fn release(&mut self, who: usize) -> Done {
        let subject = self.subject(who)?;
        subject.held.take().ok_or(Misuse::NotHeld)?;
        subject.era += 1;
        for generation in &mut subject.generations {
            generation.purposes.values_mut().for_each(|standing| standing.held = false);
        }
        Ok(())
    }

    pub fn expire(&mut self) -> Done {
        self.advance_time()?;
        for subject in self.subjects.iter_mut().flatten() {
            let Some(shelves) = &mut subject.held else { continue };
            for generation in &subject.generations {
                for (purpose, standing) in &generation.purposes {
                    let Some(key) = standing.key else { continue };
                    for day in self.destroyed + 1..=self.mark {
                        shelves.insert((generation.number, *purpose, day), key);
                    }
                }
            }
        }
        self.destroyed = self.mark;
        Ok(())
    }

    pub fn shred(&mut self) -> Done {
        self.advance_time()?;
        let today = self.today();
        for subject in self.subjects.iter_mut().flatten() {
            let mut changed = false;
            for generation in &mut subject.generations {
                let due = generation.forgotten.as_ref().is_some_and(|forgotten| forgotten.due <= today);
                for standing in generation.purposes.values_mut().filter(|standing| standing.key.is_some()) {
                    let over = due && standing.until.is_none_or(|until| until < today)
                        || standing.withdrawn.is_some_and(|day| day <= today);
                    if over {
                        standing.held = subject.held.is_some();
                        if !standing.held {
                            standing.key = None;
                            changed = true;
                        }
                    }
                }
                let held = generation.purposes.values().any(|standing| standing.held);
                if let Some(forgotten) = &mut generation.forgotten
                    && due
                    && !forgotten.shredded
                    && !held
                {
                    forgotten.shredded = true;
                    self.waiting.push((forgotten.reference, self.now_ms));
                }
            }
            let gone = subject.generations.iter().flat_map(|g| g.purposes.values()).all(|s| s.key.is_none());
            if changed && gone {
                subject.records.clear();
            }
        }
        Ok(())
    }

    pub fn settle(&mut self) -> Done {
        self.advance_time()?;
        let now = self.now_ms;
        let (done, waiting) =
            self.waiting.drain(..).partition::<Vec<_>, _>(|(_, left)| left + WINDOW_MS <= now);
        self.waiting = waiting;
        for (reference, _) in done {
            self.uncertified.retain(|known| *known != reference);
            self.certified.push(reference);
        }
        Ok(())
    }

    pub fn confirm_time(&mut self) {
        self.mark = self.mark.max(self.today() - 1);
    }
}
