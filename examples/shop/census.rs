//! Counts what still opens, by opening it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use customer_vault::{Actor, Error, Grant, Ground, Purpose, Result, Scope, SubjectId, Vault};
use pollster::block_on;

use crate::declare::{
    Analytics, Identity, Invoicing, Marketing, Payment, Recommendation, SealedOrder, SealedSearch, Shipping,
    Support,
};
use crate::load::Copies;

/// The columns of the table.
pub const PURPOSES: [&str; 8] =
    ["shipping", "support", "payment", "invoicing", "identity", "recommend", "marketing", "analytics"];

/// For each purpose, how many records still show it something. Tries every record of every customer; `tried` counts.
pub fn census(vault: &Vault, copies: &[Copies], tried: &AtomicUsize) -> Result<[usize; 8]> {
    Ok([
        count::<Shipping>(vault, copies, tried, |of, grant| {
            orders(of, |sealed, id| Ok(sealed.open(grant, id)?.address().is_ok()))
        })?,
        count::<Support>(vault, copies, tried, |of, grant| {
            Ok((1, usize::from(of.customer.open(grant)?.name().is_ok())))
        })?,
        count::<Payment>(vault, copies, tried, |of, grant| {
            Ok((1, usize::from(matches!(of.customer.open(grant)?.card(), Ok(Some(_))))))
        })?,
        count::<Invoicing>(vault, copies, tried, |of, grant| {
            orders(of, |sealed, id| Ok(sealed.open(grant, id)?.lines().is_ok()))
        })?,
        count::<Identity>(vault, copies, tried, |of, grant| {
            Ok((1, usize::from(matches!(of.customer.open(grant)?.born(), Ok(Some(_))))))
        })?,
        count::<Recommendation>(vault, copies, tried, |of, grant| {
            searches(of, |sealed, id| Ok(sealed.open(grant, id)?.query().is_ok()))
        })?,
        count::<Marketing>(vault, copies, tried, |of, grant| {
            Ok((1, usize::from(of.customer.open(grant)?.name().is_ok())))
        })?,
        count::<Analytics>(vault, copies, tried, |of, grant| {
            searches(of, |sealed, id| Ok(sealed.open(grant, id)?.query().is_ok()))
        })?,
    ])
}

/// How many were tried, and how many opened.
type Seen = Result<(usize, usize)>;

fn orders(of: &Copies, open: impl Fn(&SealedOrder, &String) -> Result<bool>) -> Seen {
    sum(of.orders.iter().map(|(id, sealed)| open(sealed, id)))
}

fn searches(of: &Copies, open: impl Fn(&SealedSearch, &u32) -> Result<bool>) -> Seen {
    sum(of.searches.iter().map(|(id, sealed)| open(sealed, id)))
}

fn sum(opened: impl Iterator<Item = Result<bool>>) -> Seen {
    opened.zip(1..).try_fold((0, 0), |(_, open), (one, tried)| Ok((tried, open + usize::from(one?))))
}

/// Unlocks a thousand customers at a time, with one entry in the log for each thousand.
fn count<P: Purpose>(
    vault: &Vault,
    copies: &[Copies],
    tried: &AtomicUsize,
    look: impl Fn(&Copies, &Grant<P>) -> Seen + Sync,
) -> Result<usize> {
    let (auditor, why) = (Actor::staff("auditor")?, Ground::new("census")?);
    let hour = Duration::from_secs(3600);
    let token = block_on(vault.issue::<P>(&auditor, &why, hour, Scope::everyone()))?;
    let open = AtomicUsize::new(0);
    let chunk = |of: &[Copies]| {
        let ids: Vec<SubjectId> = of.iter().map(|one| one.subject.clone()).collect();
        // A refused customer has withdrawn, never consented, or was forgotten: nothing of theirs opens.
        for (one, grant) in of.iter().zip(block_on(vault.unlock_many::<P>(&token, &ids))?) {
            if let Ok(grant) = grant {
                let (looked, opened) = look(one, &grant)?;
                tried.fetch_add(looked, Ordering::Relaxed);
                open.fetch_add(opened, Ordering::Relaxed);
            }
        }
        Ok::<(), Error>(())
    };
    let (left, right) = copies.split_at(copies.len() / 2);
    let half = |of: &[Copies]| of.chunks(1000).try_for_each(chunk);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| half(right));
        half(left)?;
        other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(open.load(Ordering::Relaxed))
}
