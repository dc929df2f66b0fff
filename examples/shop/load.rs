//! Enrols every customer, seals every record as of its own day, and stores it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use customer_vault::error::{Erased, Misuse};
use customer_vault::{Actor, Consent, Error, Evidence, Ground, Result, SubjectId, Vault};
use indicatif::ProgressBar;
use pollster::block_on;

use crate::declare::{
    Analytics, Customer, Marketing, Order, Recommendation, SealedCustomer, SealedOrder, SealedSearch, Search,
};
use crate::rows::{Row, Wish};

/// So many tasks at once: what waits together shares one sync of the disk.
const TASKS: usize = 16;
const NOTICE: &str =
    "We recommend goods from what you looked for, count it, and write to you about offers, if you agree.";

/// Copies of what was stored, as they could lie anywhere: in the shop's own tables, in a backup, in an event stream.
pub struct Copies {
    pub id: String,
    pub subject: SubjectId,
    pub customer: SealedCustomer,
    pub orders: Vec<(String, SealedOrder)>,
    pub searches: Vec<(u32, SealedSearch)>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    pub customers: AtomicU64,
    pub orders: AtomicU64,
    pub searches: AtomicU64,
    /// Searches of people who had agreed to nothing that needs them.
    pub no_consent: AtomicU64,
    /// Orders from before all of their periods.
    pub too_old: AtomicU64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        writeln!(
            f,
            "  {} customers, {} orders and {} searches stored.",
            of(&self.customers),
            of(&self.orders),
            of(&self.searches)
        )?;
        writeln!(
            f,
            "  {} searches were not: their customers agreed to nothing that needs them.",
            of(&self.no_consent)
        )?;
        let too_old = of(&self.too_old);
        if too_old > 0 {
            writeln!(f, "  {too_old} orders were not: every one of their periods had ended.")?;
        }
        write!(
            f,
            "  Orders are sealed as of their own day: those older than 90 days have no lockbox for shipping."
        )
    }
}

/// Stores all rows, in their order.
pub fn load(vault: &Vault, rows: Vec<Row>, clerk: &Actor) -> Result<(Vec<Copies>, Tally)> {
    let bar = ProgressBar::new(u64::try_from(rows.len()).unwrap_or(0));
    let (tally, rows) = (Tally::default(), Mutex::new(rows.into_iter().enumerate()));
    let next = || rows.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut copies = Vec::new();
        while let Some((number, row)) = next() {
            copies.push((number, block_on(store(vault, row, clerk, &tally))?));
            bar.inc(1);
        }
        Ok::<_, Error>(copies)
    };
    let mut copies = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..TASKS).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            // A panic of a thread goes on here.
            all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, Error>(all)
    })?;
    bar.finish_and_clear();
    copies.sort_by_key(|(number, _)| *number);
    Ok((copies.into_iter().map(|(_, copies)| copies).collect(), tally))
}

async fn store(vault: &Vault, row: Row, clerk: &Actor, tally: &Tally) -> Result<Copies> {
    let why = Ground::new("import")?;
    let evidence = Evidence::of_notice(1, NOTICE, "web", clerk)?;
    let consents = row.consents.iter().map(|wish| match wish {
        Wish::Recommendation => Consent::to::<Recommendation>(evidence.clone()),
        Wish::Marketing => Consent::to::<Marketing>(evidence.clone()),
        Wish::Analytics => Consent::to::<Analytics>(evidence.clone()),
    });
    let subject = row.subject;
    vault.enroll(&subject, consents, clerk, &why).await?;

    let customer = vault.sealer::<Customer>(&subject, clerk, &why).await?.seal(row.profile)?;
    vault.put(&subject, (), &customer, clerk, &why).await?;
    tally.customers.fetch_add(1, Ordering::Relaxed);

    let mut orders = Vec::new();
    if !row.orders.is_empty() {
        let sealer = vault.sealer::<Order>(&subject, clerk, &why).await?;
        for placed in row.orders {
            // Purposes whose period is over since that day get no lockbox.
            match sealer.seal_as_of(placed.order, &placed.id, placed.day) {
                Ok(sealed) => {
                    vault.put(&subject, &placed.id, &sealed, clerk, &why).await?;
                    orders.push((placed.id, sealed));
                    tally.orders.fetch_add(1, Ordering::Relaxed);
                }
                Err(Error::Misuse(Misuse::Day)) => {
                    tally.too_old.fetch_add(1, Ordering::Relaxed);
                }
                Err(why) => return Err(why),
            }
        }
    }
    let mut searches = Vec::new();
    if !row.searches.is_empty() {
        let sealer = vault.sealer::<Search>(&subject, clerk, &why).await?;
        for (number, query) in (1..).zip(row.searches) {
            match sealer.seal(Search { query }, &number) {
                Ok(sealed) => {
                    vault.put(&subject, &number, &sealed, clerk, &why).await?;
                    searches.push((number, sealed));
                    tally.searches.fetch_add(1, Ordering::Relaxed);
                }
                // Nobody had to look the consent up: without it there is no key to seal with.
                Err(Error::Erased(Erased::NoConsent)) => {
                    tally.no_consent.fetch_add(1, Ordering::Relaxed);
                }
                Err(why) => return Err(why),
            }
        }
    }
    Ok(Copies { id: row.id, subject, customer, orders, searches })
}
