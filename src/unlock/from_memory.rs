//! Grants of subjects who are remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64};
use std::time::Duration;

use super::{Prepared, TokenRow};
use crate::entry::Meta;
use crate::grant::{Ciphers, Core, Fresh, HeldShelves, Now, UNCHECKED};
use crate::key::Tag;
use crate::purpose::Basis;
use crate::remembered::{Kept, Known, Read};
use crate::store::Expect;
use crate::token::{LAST_USE_MS, Verified, token_name};
use crate::vault::Inner;

impl Inner {
    /// The grants of those who are remembered, at their places, with the fence row by which they hold: the commit of their
    /// log entry has to expect it. Nobody is refused from memory.
    pub(super) fn from_memory(
        self: &Arc<Self>,
        verified: &Arc<Verified>,
        purpose: u16,
        places: &[Option<Tag>],
        since: Now,
    ) -> Option<(Expect, Vec<Option<Prepared>>)> {
        // Before the state: one that has gone on since fails the commit.
        let fence = self.remembered.fence(self.journal.known())?;
        let ends = self.ends(verified, since);
        let given = self.journal.with(|state| {
            let notice = state.notice(purpose);
            let of = |tag: &Tag| {
                self.remembered.with(state, tag, purpose, since, |known, fence| {
                    if fence.is_some_and(|fence| !fence.permits(purpose, self.day(since))) {
                        return None;
                    }
                    let era = fence.map_or(0, |fence| fence.era);
                    let fresh = Fresh {
                        vault: Arc::clone(self),
                        tag: *tag,
                        since,
                        era,
                        checked: AtomicU64::new(UNCHECKED),
                    };
                    let core = remembered_core(known, fresh, notice, verified, ends)?;
                    Some(Prepared { core: Arc::new(core), pseudonym: known.pseudonym })
                })
            };
            let of = |place: &Option<Tag>| of(&self.remembered.name_of(place.as_ref()?));
            places.iter().map(of).collect::<Vec<_>>()
        });
        given.iter().any(Option::is_some).then_some((fence, given))
    }

    /// Notes that the token was used. Where its row was not read, it is looked at once a minute.
    pub(super) async fn note_use(&self, verified: &Verified, row: TokenRow) {
        let row = match row {
            TokenRow::Read(row) => row,
            TokenRow::Unread if self.remembered.use_is_due(&verified.id, self.clock.wall(), LAST_USE_MS) => {
                // A convenience for `tokens()`: that it cannot be read keeps nobody from a grant.
                self.rows.get(&token_name(&verified.id)).await.ok().flatten()
            }
            TokenRow::Unread => return,
        };
        self.used(verified, row.as_ref()).await;
    }

    /// Remembers a subject as it was read.
    pub(super) fn remember(&self, read: &Prepared, meta: &Meta, epoch: u64) {
        let core = &read.core;
        if core.built_in.is_some() {
            return;
        }
        let read = Read {
            since: core.fresh.since,
            epoch,
            meta,
            purpose: core.purpose,
            by_consent: self.basis(core.purpose) == Some(Basis::Consent),
            pseudonym: read.pseudonym,
        };
        let key = |generation| core.keys.get(&(generation, core.purpose));
        self.journal.with(|state| self.remembered.put(state, &core.fresh.tag, self.now(), &read, key));
    }
}

/// The grant of a subject who is remembered; `None` where the newest enrolment's key may not be used any more.
fn remembered_core(
    known: &Known,
    fresh: Fresh,
    notice: u32,
    token: &Arc<Verified>,
    ends: Duration,
) -> Option<Core> {
    let (purpose, today) = (token.purpose, fresh.vault.day(fresh.since));
    let mut core = Core {
        fresh,
        purpose,
        notice,
        built_in: None,
        token: Arc::clone(token),
        ends,
        serials: known.serials.iter().copied().collect(),
        keys: BTreeMap::new(),
        until: BTreeMap::new(),
        held: HeldShelves::new(),
        remade: BTreeSet::new(),
        ciphers: Ciphers::default(),
        today: AtomicU16::new(today.0),
    };
    let mut take = |kept: &Kept| {
        let name = (kept.generation, purpose);
        core.keys.insert(name, kept.key()?);
        core.until.extend(kept.until.map(|until| (name, until)));
        if kept.remade {
            core.remade.insert(name);
        }
        Some(())
    };
    if !known.newest.stands(notice, today) {
        return None;
    }
    take(&known.newest)?;
    for kept in known.earlier.iter().filter(|kept| kept.stands(notice, today)) {
        take(kept)?;
    }
    Some(core)
}
