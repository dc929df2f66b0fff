//! The model: who may read what, until when. It knows no cryptography; a key is a number that is never used twice.

use std::collections::{BTreeMap, BTreeSet};

use customer_vault::error::{Denied, Erased, Halted, Misuse};
use customer_vault::{Absent, Error};

pub const SHIP: u16 = 1;
pub const RECS: u16 = 2;
pub const BOOKS: u16 = 3;
pub const FRAUD: u16 = 4;
pub const PURPOSES: [u16; 4] = [SHIP, RECS, BOOKS, FRAUD];
pub const GRACE: u16 = 7;
pub const WINDOW_MS: i64 = 10 * DAY_MS;
pub const DAY_MS: i64 = 86_400_000;
const CLOCK_BOUND: u16 = 7;

pub type KeyId = u32;

#[derive(Clone, Debug, Default)]
pub struct Standing {
    pub key: Option<KeyId>,
    pub consent: Option<u32>,
    pub withdrawn: Option<u16>,
    pub until: Option<u16>,
    pub held: bool,
}

#[derive(Clone, Debug)]
pub struct Forgotten {
    pub due: u16,
    pub shredded: bool,
    pub reference: [u8; 16],
}

#[derive(Clone, Debug)]
pub struct Generation {
    pub number: u16,
    pub forgotten: Option<Forgotten>,
    pub purposes: BTreeMap<u16, Standing>,
}

/// By generation, purpose and day.
pub type Shelves = BTreeMap<(u16, u16, u16), KeyId>;

#[derive(Clone, Debug, Default)]
pub struct Subject {
    pub generations: Vec<Generation>,
    /// `Some` while a hold stands: the shelves of days that were dropped meanwhile.
    pub held: Option<Shelves>,
    /// Forgets, undos, new enrolments, holds and releases so far.
    pub era: u64,
    /// Withdrawals, and consents that ended one, so far.
    pub turns: u64,
    /// Consents that ended a withdrawal, by purpose.
    pub resumed: BTreeMap<u16, u64>,
    /// What is stored, by order number.
    pub records: BTreeMap<u64, Vec<u8>>,
}

impl Subject {
    pub fn newest(&self) -> &Generation {
        self.generations.last().unwrap()
    }

    pub fn newest_mut(&mut self) -> &mut Generation {
        self.generations.last_mut().unwrap()
    }

    fn resumed(&self, reader: Reader) -> u64 {
        match reader {
            Reader::Purpose(purpose) => self.resumed.get(&purpose).copied().unwrap_or(0),
            _ => self.resumed.values().sum(),
        }
    }
}

/// For what a token grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Purpose(u16),
    Access,
    Hold,
}

#[derive(Clone, Debug)]
pub struct Ticket {
    pub reader: Reader,
    pub id: [u8; 16],
    pub actor: usize,
    pub issued_ms: i64,
    pub expires_s: i64,
}

/// A grant.
#[derive(Clone, Debug)]
pub struct Pass {
    pub subject: usize,
    pub ticket: Ticket,
    pub seen: (u64, u64, u64),
    pub generations: BTreeSet<u16>,
    pub keys: BTreeMap<(u16, u16), KeyId>,
    pub untils: BTreeMap<(u16, u16), u16>,
    pub shelves: Shelves,
}

/// A sealer.
#[derive(Clone, Debug)]
pub struct Seal {
    pub subject: usize,
    pub generation: u16,
    pub keys: BTreeMap<u16, KeyId>,
    pub seen: (u64, u64, u64),
}

#[derive(Clone, Debug)]
pub struct Cell {
    pub fields: BTreeMap<u16, String>,
    pub generation: u16,
    /// By purpose: the last day, and the key.
    pub boxes: BTreeMap<u16, (u16, KeyId)>,
}

#[derive(Clone, Debug)]
pub struct Value {
    pub subject: usize,
    pub order: u64,
    pub cells: Vec<Cell>,
}

pub type View = BTreeMap<u16, Result<String, Absent>>;

/// What opening may come to.
#[derive(Debug)]
pub struct Expected {
    pub errors: Vec<Error>,
    pub view: Option<View>,
}

impl Expected {
    fn only(error: impl Into<Error>) -> Self {
        Expected { errors: vec![error.into()], view: None }
    }
}

#[derive(Debug, Default)]
pub struct Model {
    pub now_ms: i64,
    pub mark: u16,
    pub destroyed: u16,
    pub frozen: bool,
    pub notice: u32,
    pub notices: u64,
    pub subjects: Vec<Option<Subject>>,
    pub keys: KeyId,
    /// Forgets that were shredded, and when their epoch was left.
    pub waiting: Vec<([u8; 16], i64)>,
    pub certified: Vec<[u8; 16]>,
    pub uncertified: Vec<[u8; 16]>,
    pub revoked_tokens: BTreeSet<[u8; 16]>,
    pub revoked_actors: BTreeSet<usize>,
    pub revoked_purposes: BTreeMap<u16, i64>,
    pub revoked_all: Option<i64>,
}

pub type Done<T = ()> = Result<T, Error>;

impl Model {
    pub fn new(subjects: usize, now_ms: i64) -> Self {
        let mut model = Model { now_ms, subjects: vec![None; subjects], ..Model::default() };
        model.mark = model.today() - 1;
        model.destroyed = model.mark;
        model
    }

    pub fn today(&self) -> u16 {
        (self.now_ms / DAY_MS).try_into().unwrap()
    }

    /// Where the clock has jumped, a forget is not due years away.
    pub fn trusted_today(&self) -> u16 {
        if self.sane() { self.today().max(self.mark + 1) } else { self.mark + 1 }
    }

    pub fn sane(&self) -> bool {
        self.today() <= self.mark + CLOCK_BOUND + 1
    }

    pub fn keep_time(&mut self) {
        if self.sane() {
            self.mark = self.mark.max(self.today() - 1);
        }
    }

    pub fn advance_time(&mut self) -> Done {
        if !self.sane() {
            return Err(Halted::Clock.into());
        }
        self.keep_time();
        Ok(())
    }

    pub fn fresh_key(&mut self) -> KeyId {
        self.keys += 1;
        self.keys
    }

    pub fn subject(&mut self, who: usize) -> Done<&mut Subject> {
        self.subjects[who].as_mut().ok_or(Error::NotEnrolled)
    }

    pub fn generation(&mut self, number: u16, consent: Option<u32>) -> Generation {
        let purposes = PURPOSES
            .into_iter()
            .map(|purpose| {
                let consent = consent.filter(|_| purpose == RECS);
                (purpose, Standing { key: Some(self.fresh_key()), consent, ..Standing::default() })
            })
            .collect();
        Generation { number, forgotten: None, purposes }
    }

    pub fn permits(&self, subject: &Subject, purpose: u16) -> bool {
        let newest = subject.newest();
        let standing = &newest.purposes[&purpose];
        standing.withdrawn.is_none()
            && (newest.forgotten.is_none() || standing.until.is_some_and(|until| until >= self.today()))
    }

    fn revoked(&self, ticket: &Ticket) -> bool {
        let purpose = number(ticket.reader);
        self.revoked_tokens.contains(&ticket.id)
            || self.revoked_actors.contains(&ticket.actor)
            || self.revoked_purposes.get(&purpose).is_some_and(|until| ticket.issued_ms <= *until)
            || self.revoked_all.is_some_and(|until| ticket.issued_ms <= until)
    }

    pub fn unlock(&mut self, ticket: &Ticket, who: usize) -> Done<Pass> {
        self.keep_time();
        if self.now_ms.div_euclid(1000) >= ticket.expires_s {
            return Err(Denied::Expired.into());
        }
        if self.frozen {
            return Err(Halted::Frozen.into());
        }
        if self.revoked(ticket) {
            return Err(Denied::Revoked.into());
        }
        let today = self.today();
        let subject = self.subjects[who].as_ref().ok_or(Error::NotEnrolled)?;
        let mut pass = Pass {
            subject: who,
            ticket: ticket.clone(),
            seen: (subject.era, subject.resumed(ticket.reader), self.notices),
            generations: subject.generations.iter().map(|generation| generation.number).collect(),
            keys: BTreeMap::new(),
            untils: BTreeMap::new(),
            shelves: Shelves::new(),
        };
        let newest = subject.newest();
        for generation in &subject.generations {
            for (purpose, standing) in &generation.purposes {
                let Some(key) = standing.key else { continue };
                let stands = stands(generation, *purpose, self.notice, today);
                let takes = match ticket.reader {
                    Reader::Purpose(of) => of == *purpose && stands && self.permits(subject, *purpose),
                    Reader::Access => {
                        generation.number == newest.number
                            && standing.withdrawn.is_none()
                            && !standing.held
                            && self.permits(subject, *purpose)
                    }
                    Reader::Hold => {
                        let waits =
                            generation.forgotten.is_none() && standing.withdrawn.is_none() && !standing.held;
                        !stands && !waits
                    }
                };
                if takes {
                    pass.keys.insert((generation.number, *purpose), key);
                    pass.untils.extend(standing.until.map(|until| ((generation.number, *purpose), until)));
                }
            }
        }
        match ticket.reader {
            Reader::Purpose(purpose) if pass.keys.is_empty() => Err(if newest.forgotten.is_some() {
                Erased::Forgotten
            } else if purpose == RECS && newest.purposes[&RECS].consent.is_none() {
                Erased::NoConsent
            } else {
                Erased::Purpose
            }
            .into()),
            Reader::Access if newest.forgotten.is_some() => Err(Erased::Forgotten.into()),
            Reader::Hold => {
                pass.shelves = subject.held.clone().ok_or(Misuse::NotHeld)?;
                Ok(pass)
            }
            _ => Ok(pass),
        }
    }

    pub fn issue(&self) -> Done {
        if self.frozen { Err(Halted::Frozen.into()) } else { Ok(()) }
    }

    /// What a grant opens of a value now.
    pub fn open(&self, value: &Value, pass: &Pass) -> Expected {
        if let Err(error) = self.alive(pass) {
            return Expected::only(error);
        }
        let subject = self.subjects[pass.subject].as_ref().unwrap();
        let mut expected = Expected { errors: Vec::new(), view: None };
        if let Reader::Purpose(purpose) = pass.ticket.reader
            && !self.permits(subject, purpose)
        {
            let newest = subject.newest();
            let forgotten = newest.forgotten.is_some();
            expected.errors.push(if forgotten { Erased::Forgotten.into() } else { Erased::Purpose.into() });
            // What was kept and is over since this grant was taken: nothing has happened but that a day went by.
            let lapsed = newest.purposes[&purpose].until.is_some() && self.seen(subject, pass) == pass.seen;
            if !forgotten || !lapsed {
                return expected;
            }
        } else if self.seen(subject, pass) != pass.seen {
            return Expected::only(Error::Stale);
        }
        let mut view: View = (1..=5).map(|field| (field, Err(Absent::NotSealedThen))).collect();
        for cell in &value.cells {
            let opens = self.opens(subject, cell, pass);
            for (field, text) in &cell.fields {
                view.insert(*field, opens.map(|()| text.clone()));
            }
        }
        expected.view = Some(view);
        expected
    }

    pub fn seen(&self, subject: &Subject, pass: &Pass) -> (u64, u64, u64) {
        let notices = match pass.ticket.reader {
            // Nobody else reads by consent.
            Reader::Purpose(RECS) => self.notices,
            _ => pass.seen.2,
        };
        (subject.era, subject.resumed(pass.ticket.reader), notices)
    }

    pub fn alive(&self, pass: &Pass) -> Done {
        if self.now_ms.div_euclid(1000) >= pass.ticket.expires_s {
            return Err(Denied::Expired.into());
        }
        if self.frozen {
            return Err(Halted::Frozen.into());
        }
        if self.revoked(&pass.ticket) {
            return Err(Denied::Revoked.into());
        }
        let subject = self.subjects[pass.subject].as_ref().unwrap();
        match pass.ticket.reader {
            Reader::Access if subject.newest().forgotten.is_some() => Err(Erased::Forgotten.into()),
            Reader::Hold if subject.held.is_none() => Err(Erased::Purpose.into()),
            _ => Ok(()),
        }
    }

    pub fn opens(&self, subject: &Subject, cell: &Cell, pass: &Pass) -> Result<(), Absent> {
        if let Reader::Purpose(purpose) = pass.ticket.reader {
            let lockbox = cell.boxes.get(&purpose).ok_or(Absent::NotForThisPurpose)?;
            return self.shelf(subject, cell.generation, purpose, *lockbox, pass);
        }
        let mut last = Err(Absent::Withdrawn);
        for (purpose, lockbox) in &cell.boxes {
            last = self.shelf(subject, cell.generation, *purpose, *lockbox, pass);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    fn shelf(
        &self,
        subject: &Subject,
        generation: u16,
        purpose: u16,
        (day, key): (u16, KeyId),
        pass: &Pass,
    ) -> Result<(), Absent> {
        let name = (generation, purpose);
        let same = |known: KeyId| if known == key { Ok(()) } else { Err(Absent::Withdrawn) };
        if !pass.generations.contains(&generation) {
            return Err(Absent::Withdrawn);
        }
        if let Some(kept) = pass.shelves.get(&(generation, purpose, day)) {
            return same(*kept);
        }
        if pass.ticket.reader == Reader::Access && !self.permits(subject, purpose) {
            return Err(Absent::Withdrawn);
        }
        let known = *pass.keys.get(&name).ok_or(Absent::Withdrawn)?;
        let held = pass.ticket.reader == Reader::Hold;
        if !held && pass.untils.get(&name).is_some_and(|until| *until < self.today()) {
            return Err(Absent::Withdrawn);
        }
        if day < self.today() || day <= self.mark {
            return Err(Absent::Expired);
        }
        same(known)
    }
}

pub fn stands(generation: &Generation, purpose: u16, notice: u32, today: u16) -> bool {
    let standing = &generation.purposes[&purpose];
    let agreed = purpose != RECS || standing.consent.is_some_and(|version| version >= notice);
    let kept = match &generation.forgotten {
        None => agreed,
        // Kept by a decision, which a later notice does not touch.
        Some(_) => standing.until.is_some_and(|until| until >= today),
    };
    kept && standing.withdrawn.is_none() && !standing.held
}

pub fn number(reader: Reader) -> u16 {
    match reader {
        Reader::Purpose(purpose) => purpose,
        Reader::Access => 0xFFFE,
        Reader::Hold => 0xFFFF,
    }
}
