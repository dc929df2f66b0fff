//! The vault and the model side by side: each step is done to both, and both must say the same.

use std::collections::BTreeMap;
use std::time::Duration;

use customer_vault::store::MemoryStore;
use customer_vault::testing::{CommitFault, FaultStore, ManualClock, MemoryKeeper, test_ground, tester};
use customer_vault::*;

use crate::plain::{
    BOOKS, DAY_MS, Done, Model, PURPOSES, Pass, RECS, Reader, SHIP, Seal, Ticket, Value, WINDOW_MS,
};
use crate::shop::{AnyGrant, Order, Recs, Ship, an_order, issue, set};
use crate::{Op, with_grant};

pub const SUBJECTS: usize = 3;
const KEPT: usize = 14;

pub struct World {
    pub clock: ManualClock,
    store: FaultStore<MemoryStore>,
    keeper: MemoryKeeper,
    vault: Option<Vault>,
    pub model: Model,
    sealers: Vec<(Sealer<Order>, Seal)>,
    pub grants: Vec<(AnyGrant, Pass)>,
    tokens: Vec<(Token, Ticket)>,
    pub values: Vec<(Sealed<Order>, Value)>,
    pub actors: usize,
    texts: usize,
}

fn options(clock: &ManualClock) -> Options {
    let window = RestoreWindow::days((WINDOW_MS / DAY_MS).try_into().unwrap()).unwrap();
    let settings = Settings::default().height(2).unwrap().restore_window(window);
    Options::new().record::<Order>().settings(settings).clock(clock.clone())
}

fn subject(who: usize) -> SubjectId {
    SubjectId::new(&format!("subject-{who}")).unwrap()
}

fn day(number: u16) -> Day {
    Day::of(i64::from(number) * DAY_MS)
}

fn same<T>(real: Result<T>, model: Done) -> Option<T> {
    let (done, real) = (real.as_ref().map(|_| ()).map_err(|error| *error), real.ok());
    assert_eq!(done, model, "vault (left) and model (right)");
    real
}

fn pick(index: u8, len: usize) -> Option<usize> {
    usize::from(index).checked_rem(len)
}

/// Adds at the end, and lets the oldest but the first half go at random places.
fn keep<T>(all: &mut Vec<T>, one: T) {
    if all.len() >= KEPT {
        all.remove(all.len() / 2);
    }
    all.push(one);
}

impl World {
    pub async fn new() -> Self {
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 20).unwrap());
        let (store, keeper) = (FaultStore::new(MemoryStore::new()), MemoryKeeper::new());
        let vault = options(&clock).create(store.clone(), keeper.clone(), keeper.clone()).await.unwrap();
        let model = Model::new(SUBJECTS, clock::Clock::wall(&clock));
        World {
            clock,
            store,
            keeper,
            vault: Some(vault),
            model,
            sealers: Vec::new(),
            grants: Vec::new(),
            tokens: Vec::new(),
            values: Vec::new(),
            actors: 1,
            texts: 0,
        }
    }

    pub fn vault(&self) -> Vault {
        self.vault.clone().unwrap()
    }

    async fn reopen(&mut self) {
        self.grants.clear();
        self.sealers.clear();
        self.vault = None;
        self.store.heal();
        let (store, keeper) = (self.store.clone(), self.keeper.clone());
        self.vault = Some(options(&self.clock).open(store, keeper.clone(), keeper).await.unwrap());
        self.model.keep_time();
    }

    fn pass_ms(&mut self, ms: i64) {
        self.clock.advance(Duration::from_millis(ms.try_into().unwrap()));
        self.model.now_ms = clock::Clock::wall(&self.clock);
    }

    fn texts(&mut self) -> BTreeMap<u16, String> {
        self.texts += 1;
        (1..=5).map(|field| (field, format!("text {} of field {field}", self.texts))).collect()
    }

    fn consent_of(&self, yes: bool) -> Vec<Consent> {
        yes.then(|| Consent::to::<Recs>(Self::evidence(self.model.notice))).into_iter().collect()
    }

    fn evidence(version: u32) -> Evidence {
        Evidence::of_notice(version, "notice", "web", &tester()).unwrap()
    }

    pub async fn step(&mut self, op: &Op) {
        let (vault, me, why) = (self.vault(), tester(), test_ground());
        // A millisecond between steps, so that "issued so far" has a meaning.
        self.pass_ms(1);
        match *op {
            Op::Enroll(who, yes) => {
                let who = usize::from(who) % SUBJECTS;
                let real = vault.enroll(&subject(who), self.consent_of(yes), &me, &why).await;
                same(real, self.model.enroll(who, yes.then_some(self.model.notice)));
            }
            Op::EnrollAgain(who, yes) => {
                let who = usize::from(who) % SUBJECTS;
                let real = vault.enroll_again(&subject(who), self.consent_of(yes), &me, &why).await;
                same(real, self.model.enroll_again(who, yes.then_some(self.model.notice)));
            }
            Op::Consent(who, old) => {
                let who = usize::from(who) % SUBJECTS;
                let version = self.model.notice.saturating_sub(old.into());
                let real = vault.consent::<Recs>(&subject(who), Self::evidence(version), &me, &why).await;
                same(real, self.model.consent(who, version));
            }
            Op::RequireNotice => {
                self.model.require_notice();
                vault.require_notice::<Recs>(self.model.notice, &me, &why).await.unwrap();
            }
            Op::Withdraw(who, purpose) => {
                let who = usize::from(who) % SUBJECTS;
                let purpose = PURPOSES[usize::from(purpose) % 4];
                let id = subject(who);
                let real = match purpose {
                    SHIP => vault.withdraw::<Ship>(&id, &me, &why).await,
                    RECS => vault.withdraw::<Recs>(&id, &me, &why).await,
                    BOOKS => vault.withdraw::<crate::shop::Books>(&id, &me, &why).await,
                    _ => vault.withdraw::<crate::shop::Fraud>(&id, &me, &why).await,
                };
                same(real, self.model.withdraw(who, purpose));
            }
            Op::Forget { who, keep, days, at_once } => {
                self.forget(usize::from(who) % SUBJECTS, keep, days, at_once).await;
            }
            Op::Undo(who) => {
                let who = usize::from(who) % SUBJECTS;
                same(vault.undo_forget(&subject(who), &me, &why).await, self.model.undo(who));
            }
            Op::Hold(who) => {
                let who = usize::from(who) % SUBJECTS;
                same(vault.hold(&subject(who), &me, &why).await, self.model.hold(who));
            }
            Op::Release(who) => {
                let who = usize::from(who) % SUBJECTS;
                same(vault.release_hold(&subject(who), &me, &why).await, self.model.release(who));
            }
            Op::TakeSealer(who) => {
                let who = usize::from(who) % SUBJECTS;
                let real = vault.sealer::<Order>(&subject(who), &me, &why).await;
                let model = self.model.sealer(who);
                if let Some(real) = same(real, model.as_ref().map(|_| ()).map_err(|error| *error)) {
                    keep(&mut self.sealers, (real, model.unwrap()));
                }
            }
            Op::Seal { sealer, order, back } => self.seal(sealer, order.into(), back),
            Op::Update { value, sealer, grant, field } => self.update(value, sealer, grant, field),
            Op::Renew { value, sealer, grant, back } => self.renew(value, sealer, grant, back).await,
            Op::Unlock { who, reader, old, long } => {
                self.unlock(usize::from(who) % SUBJECTS, reader, old, long).await;
            }
            Op::Put(value) => self.put(value).await,
            Op::Read(who) => self.records(usize::from(who) % SUBJECTS).await,
            Op::Delete(who, order) => self.delete(usize::from(who) % SUBJECTS, order.into()).await,
            Op::Expire => {
                same(vault.expire(&me, &why).await, self.model.expire());
            }
            Op::Shred => {
                same(vault.shred(&me, &why).await, self.model.shred());
            }
            Op::Settle => self.settle().await,
            Op::Killed { shred, commit, after } => self.killed(shred, commit.into(), after).await,
            Op::Freeze => {
                vault.freeze(&me, &why).await.unwrap();
                self.model.frozen = true;
            }
            Op::Unfreeze => {
                vault.unfreeze(&me, &why).await.unwrap();
                self.model.frozen = false;
            }
            Op::Revoke(how, which) => self.revoke(how, which).await,
            Op::Advance(days) => self.advance(days).await,
            Op::Jump(days) => self.pass_ms(i64::from(days) * DAY_MS),
            Op::ConfirmTime => {
                vault.confirm_time(&me, &why).await.unwrap();
                self.model.confirm_time();
            }
            Op::Reopen => self.reopen().await,
        }
    }

    async fn forget(&mut self, who: usize, kept: u8, days: u8, at_once: bool) {
        let (vault, me, why) = (self.vault(), tester(), test_ground());
        let until = self.model.trusted_today() + u16::from(days % 30);
        let mut request = Forget::by(&me, &why).requested_by("the person");
        let keeps = match kept % 4 {
            1 => {
                request = request.keeping::<Ship>(day(until));
                Some((SHIP, until))
            }
            2 => {
                request = request.keeping::<Recs>(day(until));
                Some((RECS, until))
            }
            _ => None,
        };
        if at_once {
            request = request.without_grace();
        }
        let receipt = vault.forget(&subject(who), request).await;
        let books = receipt.as_ref().map_or(0, |receipt| {
            let books = receipt.stays.iter().find(|(purpose, _)| purpose.number() == BOOKS);
            let (_, until) = books.expect("what the law keeps stays");
            let longest = until.number() - self.model.trusted_today();
            assert!((89..=93).contains(&longest), "three months, and not {longest} days");
            until.number()
        });
        let reference = receipt.as_ref().map_or([0; 16], |receipt| receipt.reference);
        let stays = self.model.forget(who, keeps, books, at_once, reference);
        if let Some(receipt) = same(receipt, stays.as_ref().map(|_| ()).map_err(|error| *error)) {
            assert!(receipt.witnessed);
            let real: Vec<_> = receipt.stays.iter().map(|(p, day)| (p.number(), day.number())).collect();
            assert_eq!(real, stays.unwrap());
        }
    }

    fn seal(&mut self, sealer: u8, order: u64, back: u8) {
        let texts = self.texts();
        let Some(index) = pick(sealer, self.sealers.len()) else { return };
        let (sealer, seal) = &self.sealers[index];
        let as_of = (back > 0).then(|| self.model.today() - u16::from(back));
        let record = an_order(&texts);
        let real = match as_of {
            Some(as_of) => sealer.seal_as_of(record, &order, day(as_of)),
            None => sealer.seal(record, &order),
        };
        let model = self.model.seal(seal, order, &texts, as_of);
        if let Some(real) = same(real, model.as_ref().map(|_| ()).map_err(|error| *error)) {
            keep(&mut self.values, (real, model.unwrap()));
        }
    }

    fn update(&mut self, value: u8, sealer: u8, grant: u8, field: u8) {
        let text = self.texts().remove(&1).unwrap();
        let Some((value, sealer, grant)) = self.three(value, sealer, grant) else { return };
        let field = u16::from(field % 5) + 1;
        let (real, model) = {
            let (sealed, value) = &self.values[value];
            let (sealer, seal) = &self.sealers[sealer];
            let (grant, pass) = &self.grants[grant];
            let real = with_grant!(grant, grant => {
                sealed.update(sealer, grant, &value.order, |changes| set(changes, field, &text))
            });
            (real, self.model.update(value, seal, pass, field, &text))
        };
        self.changed(real, model);
    }

    async fn renew(&mut self, value: u8, sealer: u8, grant: u8, back: u8) {
        let Some((value, sealer, grant)) = self.three(value, sealer, grant) else { return };
        let from = self.model.today() - u16::from(back);
        let (me, why) = (tester(), test_ground());
        let (real, model) = {
            let (sealed, value) = &self.values[value];
            let (sealer, seal) = &self.sealers[sealer];
            let (grant, pass) = &self.grants[grant];
            let real = with_grant!(grant, grant => {
                sealed.renew(sealer, grant, &value.order, day(from), &me, &why).await
            });
            (real, self.model.renew(value, seal, pass, from))
        };
        self.changed(real, model);
    }

    fn changed(&mut self, real: Result<Sealed<Order>>, model: Done<Value>) {
        match (real, model) {
            (Ok(real), Ok(model)) => keep(&mut self.values, (real, model)),
            // A grant whose purpose has lapsed says Erased or, before anything else happened, cannot open.
            (Err(_), Err(Error::Erased(_))) => {}
            (real, model) => {
                assert_eq!(real.map(|_| ()), model.map(|_| ()), "vault (left) and model (right)");
            }
        }
    }

    /// A value with a sealer and a grant of the same subject, the nearest to those that were asked for.
    fn three(&self, value: u8, sealer: u8, grant: u8) -> Option<(usize, usize, usize)> {
        let value = pick(value, self.values.len())?;
        let subject = self.values[value].1.subject;
        let of = |subjects: Vec<usize>, from: u8| {
            let start = pick(from, subjects.len())?;
            (0..subjects.len()).map(|i| (start + i) % subjects.len()).find(|i| subjects[*i] == subject)
        };
        let sealer = of(self.sealers.iter().map(|(_, seal)| seal.subject).collect(), sealer)?;
        let grant = of(self.grants.iter().map(|(_, pass)| pass.subject).collect(), grant)?;
        Some((value, sealer, grant))
    }

    pub async fn unlock(&mut self, who: usize, reader: u8, old: u8, long: bool) {
        let vault = self.vault();
        let (token, ticket) =
            if let Some(index) = pick(old, self.tokens.len()).filter(|_| old.is_multiple_of(3)) {
                let (token, ticket) = &self.tokens[index];
                (Token::parse(token.expose()).unwrap(), ticket.clone())
            } else {
                let reader = match reader % 6 {
                    4 => Reader::Access,
                    5 => Reader::Hold,
                    n => Reader::Purpose(PURPOSES[usize::from(n)]),
                };
                let actor = self.actors - 1;
                let lifetime = if long { 300 * 86_400 } else { 3_600 };
                let name = Actor::service(&format!("actor-{actor}")).unwrap();
                let token = issue(&vault, reader, &name, Duration::from_secs(lifetime)).await;
                let Some(token) = same(token, self.model.issue()) else { return };
                let ticket = Ticket {
                    reader,
                    id: token.unverified_id(),
                    actor,
                    issued_ms: self.model.now_ms,
                    expires_s: token.unverified_expiry(),
                };
                keep(&mut self.tokens, (Token::parse(token.expose()).unwrap(), ticket.clone()));
                (token, ticket)
            };
        let real = AnyGrant::unlock(&vault, ticket.reader, &token, &subject(who)).await;
        let model = self.model.unlock(&ticket, who);
        if let Some(real) = same(real, model.as_ref().map(|_| ()).map_err(|error| *error)) {
            keep(&mut self.grants, (real, model.unwrap()));
        }
    }

    async fn put(&mut self, value: u8) {
        let (vault, me, why) = (self.vault(), tester(), test_ground());
        let Some(index) = pick(value, self.values.len()) else { return };
        let (sealed, value) = &self.values[index];
        let real = vault.put(&subject(value.subject), &value.order, sealed, &me, &why).await;
        let frozen = self.model.frozen;
        let record = self.model.subjects[value.subject].as_mut().unwrap();
        let model = if frozen {
            Err(error::Halted::Frozen.into())
        } else if record.newest().forgotten.is_some() {
            Err(error::Erased::Forgotten.into())
        } else {
            Ok(())
        };
        if same(real, model).is_some() {
            record.records.insert(value.order, sealed.as_bytes().to_vec());
        }
    }

    /// Everything stored of a subject, by `list` and by `get`.
    pub async fn records(&self, who: usize) {
        let (vault, me, why) = (self.vault(), tester(), test_ground());
        let id = subject(who);
        let listed = vault.list::<Order, u64>(&id, &me, &why).await;
        let Some(model) = &self.model.subjects[who] else {
            assert_eq!(listed.unwrap_err(), Error::NotEnrolled);
            return;
        };
        let listed = listed.unwrap().into_iter().map(|(order, sealed)| (order, sealed.into_bytes()));
        assert_eq!(listed.collect::<BTreeMap<_, _>>(), model.records);
        for order in 0..4 {
            let sealed = vault.get::<Order>(&id, &order, &me, &why).await.unwrap();
            assert_eq!(sealed.map(Sealed::into_bytes).as_ref(), model.records.get(&order));
        }
    }

    async fn delete(&mut self, who: usize, order: u64) {
        let (vault, me, why) = (self.vault(), tester(), test_ground());
        let real = vault.delete::<Order>(&subject(who), &order, &me, &why).await;
        let model = match &mut self.model.subjects[who] {
            _ if self.model.frozen => Err(error::Halted::Frozen.into()),
            None => Err(Error::NotEnrolled),
            Some(subject) => Ok(subject.records.remove(&order).is_some()),
        };
        assert_eq!(real, model);
    }

    async fn settle(&mut self) {
        let vault = self.vault();
        let before = self.model.certified.len();
        let settled = vault.settle(&tester(), &test_ground()).await;
        let model = self.model.settle();
        let Some(settled) = same(settled, model) else { return };
        assert_eq!(settled.certificates.len(), self.model.certified.len() - before);
        let key = vault.verifier_key().unwrap();
        for reference in &self.model.certified {
            let certificate = vault.certificate(reference).await.unwrap().expect("issued");
            Certificate::verify(certificate.as_str(), &key).unwrap();
        }
        for reference in &self.model.uncertified {
            assert_eq!(vault.certificate(reference).await.unwrap(), None, "nothing is certified too early");
        }
    }

    /// The process dies at one commit of a shred or an expiry; another opens the vault and does it again.
    async fn killed(&mut self, shred: bool, commit: u64, after: bool) {
        let fault = if after { CommitFault::KilledAfter } else { CommitFault::KilledBefore };
        for again in [false, true] {
            if !again {
                self.store.fail_commit(commit, fault);
            }
            let (vault, me, why) = (self.vault(), tester(), test_ground());
            let real = if shred {
                vault.shred(&me, &why).await.map(|_| ())
            } else {
                vault.expire(&me, &why).await.map(|_| ())
            };
            let killed = self.store.killed();
            self.store.heal();
            drop(vault);
            if killed {
                self.reopen().await;
                continue;
            }
            same(real, if shred { self.model.shred() } else { self.model.expire() });
            return;
        }
    }

    async fn revoke(&mut self, how: u8, which: u8) {
        let now = self.model.now_ms;
        let Some(index) = pick(which, self.tokens.len()) else { return };
        let ticket = &self.tokens[index].1;
        let what = match how % 4 {
            0 => {
                self.model.revoked_tokens.insert(ticket.id);
                Revoke::Token(ticket.id)
            }
            1 => {
                let name = format!("actor-{}", self.actors - 1);
                self.model.revoked_actors.insert(self.actors - 1);
                self.actors += 1;
                Revoke::Actor(Actor::service(&name).unwrap())
            }
            2 => {
                let purpose = match ticket.reader {
                    Reader::Access => PurposeId::SUBJECT_ACCESS,
                    Reader::Hold => PurposeId::LEGAL_HOLD,
                    Reader::Purpose(SHIP) => PurposeId::of::<Ship>(),
                    Reader::Purpose(BOOKS) => PurposeId::of::<crate::shop::Books>(),
                    Reader::Purpose(RECS) => PurposeId::of::<Recs>(),
                    Reader::Purpose(_) => PurposeId::of::<crate::shop::Fraud>(),
                };
                self.model.revoked_purposes.insert(purpose.number(), now);
                Revoke::Purpose(purpose)
            }
            _ => {
                self.model.revoked_all = Some(now);
                Revoke::All
            }
        };
        self.vault().revoke(what, &tester(), &test_ground()).await.unwrap();
    }

    /// Days pass, with an expiry a week, as a shop would run it.
    async fn advance(&mut self, days: u16) {
        let vault = self.vault();
        let mut left = days;
        while left > 0 {
            let step = left.min(7);
            left -= step;
            self.pass_ms(i64::from(step) * DAY_MS);
            let done = same(vault.expire(&tester(), &test_ground()).await, self.model.expire());
            if done.is_none() {
                // The clock has to be confirmed first.
                return;
            }
        }
    }
}
