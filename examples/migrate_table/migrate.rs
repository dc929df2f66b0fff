//! Seals the plaintext columns of a table, verifies, and blanks them. It can be killed at any moment and run again.
//!
//! How far it is stands in the table alone. Of each row:
//!
//! | `sealed` | `name` | |
//! | --- | --- | --- |
//! | null | there | to be sealed |
//! | there | there | sealed; to be opened and compared, and then blanked |
//! | there | null | done |
//!
//! The shop may go on meanwhile: each update of a row is made only if the row is still the one that was read (its `xmin`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use customer_vault::clock::{Clock as _, SystemClock};
use customer_vault::error::Misuse;
use customer_vault::store::deadpool_postgres::tokio_postgres::{self, Client};
use customer_vault::value::{
    AsEntered, Country, DateOfBirth, Email, Invalid, PersonName, Phone, PostalAddress,
};
use customer_vault::{
    Absent, Actor, Consent, Day, Error, Evidence, Ground, Purpose, Revoke, Scope, SubjectAccess, SubjectId,
    Token, Vault, purposes, record,
};
use indicatif::ProgressBar;

purposes! {
    /// Answer the customer's questions.
    pub Support: Contract = 1 "support";
    /// Books of account.
    pub Invoicing: LegalObligation = 2 "invoicing";
    /// Letters about offers.
    pub Marketing: Consent = 3 "marketing";
    /// Know who buys what may not be sold to everyone.
    pub Identity: Contract = 4 "identity";
}

record! {
    /// A customer, as the old columns had it.
    pub struct Customer / SealedCustomer / CustomerView in customer = "customer" {
        /// As written on an invoice.
        pub name: PersonName = 1 "name", basic, for [Support: 3 years, Invoicing: 10 years, Marketing: 2 years], padded 32;
        /// For answers and offers.
        pub email: Option<Email> = 2 "email", basic, for [Support: 3 years, Marketing: 2 years], padded 32;
        /// For calling back. As it was typed: the old ones do not all parse.
        pub phone: Option<AsEntered<Phone>> = 3 "phone", basic sensitive, for [Support: 3 years], padded 32;
        /// As written on an invoice.
        pub address: PostalAddress = 4 "address", basic, for [Support: 3 years, Invoicing: 10 years], padded 64;
        /// For goods with an age limit.
        pub born: Option<DateOfBirth> = 5 "born", basic sensitive, for [Identity: 3 years];
    }
}

/// Rows that are read, sealed and written together.
const BATCH: i64 = 100;
/// Calls that wait for the log at once.
const WORKERS: usize = 8;
/// Passes over rows that have to be taken again.
const ATTEMPTS: u32 = 8;
const NOTICE: &str = "We write to you about offers, if you agree.";

/// New columns beside the old ones, which may now be empty. Each takes a short lock on the table and rewrites nothing.
const PREPARE: &str = "
    SET lock_timeout = '5s';
    ALTER TABLE customers ADD COLUMN IF NOT EXISTS sealed bytea, ADD COLUMN IF NOT EXISTS email_index bytea;
    ALTER TABLE customers ALTER COLUMN name DROP NOT NULL, ALTER COLUMN address DROP NOT NULL;
    CREATE INDEX IF NOT EXISTS customers_email_index ON customers (email_index);
    RESET lock_timeout";

const COLUMNS: &str = "id, (last_order - date '1970-01-01')::bigint AS day, marketing, country, name, email, phone, \
                       address, born, sealed, xmin::text AS version";

const SEAL: &str = "
    UPDATE customers SET sealed = v.sealed, email_index = v.email_index
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[]) AS v (id, version, sealed, email_index)
    WHERE customers.id = v.id AND customers.xmin::text = v.version AND customers.sealed IS NULL";

const BLANK: &str = "
    UPDATE customers SET name = NULL, email = NULL, phone = NULL, address = NULL, born = NULL
    FROM unnest($1::text[], $2::text[]) AS v (id, version)
    WHERE customers.id = v.id AND customers.xmin::text = v.version AND customers.sealed IS NOT NULL";

const UNSEAL: &str = "
    UPDATE customers SET sealed = NULL, email_index = NULL
    FROM unnest($1::text[], $2::text[]) AS v (id, version)
    WHERE customers.id = v.id AND customers.xmin::text = v.version AND customers.name IS NOT NULL";

/// What ends a run. Nothing is lost by it: run it again.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Stopped {
    #[error("the vault: {0}")]
    Vault(#[from] Error),
    #[error("the database, SQLSTATE {0:?}")]
    Database(Option<[u8; 5]>),
    #[error("a worker ended")]
    Worker,
}

impl From<tokio_postgres::Error> for Stopped {
    fn from(why: tokio_postgres::Error) -> Self {
        // The code alone: a message of the database's quotes the row.
        Stopped::Database(why.code().and_then(|code| code.code().as_bytes().try_into().ok()))
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    pub sealed: u64,
    pub blanked: u64,
    /// Taken again: changed by the shop meanwhile, or grants that were too old.
    pub again: u64,
    /// Of what was sealed: values whose periods were all over, so that nothing is kept of them.
    pub over: u64,
    /// By the row's id: which column, and a code.
    pub refused: BTreeMap<String, (&'static str, &'static str)>,
}

/// A row as it was read. It has no `Debug`.
struct Row {
    id: String,
    version: String,
    subject: SubjectId,
    day: Day,
    marketing: bool,
    country: String,
    name: String,
    email: Option<String>,
    phone: Option<String>,
    address: String,
    born: Option<String>,
    sealed: Option<SealedCustomer>,
}

/// The column, and a code.
type Refused = (&'static str, &'static str);

/// What keeps one row from going on: the row itself, or everything.
enum Trouble {
    Row(Refused),
    All(Stopped),
}

impl From<Error> for Trouble {
    fn from(why: Error) -> Self {
        match why {
            // The shop has forgotten this customer already.
            Error::Erased(_) => Trouble::Row(("id", "forgotten")),
            Error::Misuse(Misuse::Day) => Trouble::Row(("last_order", "all-periods-over")),
            Error::Misuse(Misuse::AsOfFuture) => Trouble::Row(("last_order", "after-today")),
            Error::NotEnrolled => Trouble::Row(("sealed", "not-enrolled")),
            Error::DoesNotOpen | Error::Absent(_) => Trouble::Row(("sealed", "does-not-open")),
            why => Trouble::All(why.into()),
        }
    }
}

/// Does all of it. `client` is a connection of this function's own.
pub async fn migrate(vault: &Vault, client: &Client, bar: &ProgressBar) -> Result<Report, Stopped> {
    client.batch_execute(PREPARE).await?;
    let to_do = client.query_one("SELECT count(*) FROM customers WHERE name IS NOT NULL", &[]).await?;
    bar.set_length(u64::try_from(to_do.try_get::<_, i64>(0)?).unwrap_or(0));
    // Without it a grant lasts for the vault's bound, a second: too short for a batch where the machine is busy. It ends
    // with this set.
    let mut watching = tokio::task::JoinSet::new();
    watching.spawn(watch(vault.clone()));
    let (me, why) = (Actor::service("migration")?, Ground::new("migration")?);
    let job = Arc::new(Job { vault: vault.clone(), me, why });
    let mut run = Run { job, client, bar, report: Report::default(), opener: None, finder: None };
    // What an earlier run has sealed and not blanked; then the rest.
    run.over("sealed IS NOT NULL AND name IS NOT NULL").await?;
    run.over("sealed IS NULL AND name IS NOT NULL").await?;
    // What the shop has changed meanwhile.
    for _ in 0..ATTEMPTS {
        let before = run.report.again;
        run.over("name IS NOT NULL").await?;
        if run.report.again == before {
            break;
        }
    }
    let Run { job, report, opener, finder, .. } = run;
    for token in opener.iter().chain(&finder) {
        job.vault.revoke(Revoke::Token(token.unverified_id()), &job.me, &job.why).await?;
    }
    bar.finish_and_clear();
    Ok(report)
}

async fn watch(vault: Vault) {
    loop {
        let _ = vault.watch().await; // the database was out of reach: try again
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What workers share.
struct Job {
    vault: Vault,
    me: Actor,
    why: Ground,
}

struct Run<'a> {
    job: Arc<Job>,
    client: &'a Client,
    bar: &'a ProgressBar,
    report: Report,
    opener: Option<Arc<Token>>,
    finder: Option<Arc<Token>>,
}

impl Run<'_> {
    /// All rows of which `condition` holds, batch by batch in the order of their ids: refused rows are passed by.
    async fn over(&mut self, condition: &str) -> Result<(), Stopped> {
        let sql = format!(
            "SELECT {COLUMNS} FROM customers WHERE {condition} AND id > $1 ORDER BY id LIMIT {BATCH}"
        );
        let sql = self.client.prepare(&sql).await?;
        let mut after = String::new();
        loop {
            let rows = self.client.query(&sql, &[&after]).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            let from = std::mem::replace(&mut after, last.try_get("id")?);
            let rows = rows.iter().map(row).collect::<Result<Vec<_>, _>>()?;
            let to_seal = rows.into_iter().filter(|row| row.sealed.is_none()).collect();
            self.seal(to_seal).await?;
            self.verify_and_blank(&from, &after).await?;
        }
    }

    async fn seal(&mut self, rows: Vec<Row>) -> Result<(), Stopped> {
        // Before anything is made: a row that is refused leaves nothing behind.
        let mut parsed = Vec::new();
        for row in rows {
            match row.parse() {
                Ok(record) => parsed.push((row, record)),
                Err(why) => self.refuse(row.id, why),
            }
        }
        let job = Arc::clone(&self.job);
        let evidence = Evidence::of_notice(1, NOTICE, "import", &job.me)?;
        let consents =
            |row: &Row| Vec::from_iter(row.marketing.then(|| Consent::to::<Marketing>(evidence.clone())));
        let people: Vec<_> = parsed.iter().map(|(row, _)| (row.subject.clone(), consents(row))).collect();
        let enrolled = job.vault.enroll_many(&people, &job.me, &job.why).await;
        let subjects: Vec<SubjectId> = parsed.iter().map(|(row, _)| row.subject.clone()).collect();
        let sealers = job.vault.sealers::<Customer>(&subjects, &job.me, &job.why).await?;
        let mut ready = Vec::new();
        for (((row, record), enrolled), sealer) in parsed.into_iter().zip(enrolled).zip(sealers) {
            let sealed = match enrolled {
                // Or by an earlier run that was killed, or by the shop.
                Ok(()) | Err(Error::Misuse(Misuse::AlreadyEnrolled)) => {
                    sealer.and_then(|sealer| sealer.seal_as_of(record, row.day))
                }
                Err(why) => Err(why),
            };
            match sealed {
                Ok(sealed) => ready.push((row, sealed)),
                Err(why) => self.pass_by(row.id, why.into())?,
            }
        }
        let indexes = self.indexes(&ready).await?;
        let (mut ids, mut versions, mut values) = (vec![], vec![], vec![]);
        for (row, sealed) in ready {
            let over = u64::try_from(sealed.left_out().len()).unwrap_or(u64::MAX);
            self.report.over = self.report.over.saturating_add(over);
            ids.push(row.id);
            versions.push(row.version);
            values.push(sealed);
        }
        let tried = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        let sealed = self.client.execute(SEAL, &[&ids, &versions, &values, &indexes]).await?;
        self.report.sealed = self.report.sealed.saturating_add(sealed);
        self.report.again = self.report.again.saturating_add(tried.saturating_sub(sealed));
        Ok(())
    }

    /// The blind indexes of their e-mail addresses, at their places. Each is an entry in the log: several at once share a
    /// commit.
    async fn indexes(&mut self, ready: &[(Row, SealedCustomer)]) -> Result<Vec<Option<Vec<u8>>>, Stopped> {
        // A token for this field, and for nothing else.
        let reach = Scope::everyone().field::<customer::email>();
        let finder = self.job.token::<Support>(&mut self.finder, reach).await?;
        let mut emails = Vec::new();
        for (place, (row, sealed)) in ready.iter().enumerate() {
            // Whoever may not be written to any more need not be found by their address either.
            if !sealed.left_out().contains(&"email") {
                emails.extend(row.email().ok().flatten().map(|email| (place, email)));
            }
        }
        let emails = Arc::new(Mutex::new(emails.into_iter()));
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..WORKERS {
            let (emails, job, finder) = (Arc::clone(&emails), Arc::clone(&self.job), Arc::clone(&finder));
            workers.spawn(async move {
                let mut done = Vec::new();
                loop {
                    let next = emails.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((place, email)) = next else { return Ok::<_, Error>(done) };
                    done.push((place, job.vault.index::<customer::email>(&finder, &email).await?));
                }
            });
        }
        let mut indexes = vec![None; ready.len()];
        while let Some(done) = workers.join_next().await {
            for (place, index) in done.map_err(|_| Stopped::Worker)?? {
                if let Some(at) = indexes.get_mut(place) {
                    *at = Some(index.to_vec());
                }
            }
        }
        Ok(indexes)
    }

    /// Reads what was written, opens it, and compares it with what stands beside it.
    async fn verify_and_blank(&mut self, from: &str, to: &str) -> Result<(), Stopped> {
        let sql = format!(
            "SELECT {COLUMNS} FROM customers \
             WHERE sealed IS NOT NULL AND name IS NOT NULL AND id > $1 AND id <= $2"
        );
        let rows = self.client.query(&sql, &[&from, &to]).await?;
        let rows = rows.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let subjects: Vec<SubjectId> = rows.iter().map(|row| row.subject.clone()).collect();
        if subjects.is_empty() {
            return Ok(());
        }
        let opener = self.job.token::<SubjectAccess>(&mut self.opener, Scope::everyone()).await?;
        let grants = self.job.vault.unlock_many::<SubjectAccess>(&opener, &subjects).await?;
        let (mut same, mut other) = ((vec![], vec![]), (vec![], vec![]));
        for (row, grant) in rows.into_iter().zip(grants) {
            let opens = grant.and_then(|grant| match &row.sealed {
                Some(sealed) => row.is_in(sealed, &sealed.open(&grant)?),
                None => Ok(false),
            });
            match opens {
                Ok(yes) => {
                    let (ids, versions) = if yes { &mut same } else { &mut other };
                    ids.push(row.id);
                    versions.push(row.version);
                }
                Err(why) => self.pass_by(row.id, why.into())?,
            }
        }
        let blanked = self.client.execute(BLANK, &[&same.0, &same.1]).await?;
        let again = self.client.execute(UNSEAL, &[&other.0, &other.1]).await?;
        self.report.blanked = self.report.blanked.saturating_add(blanked);
        self.report.again = self.report.again.saturating_add(again);
        self.bar.inc(blanked);
        Ok(())
    }

    fn pass_by(&mut self, id: String, why: Trouble) -> Result<(), Stopped> {
        match why {
            Trouble::Row(why) => self.refuse(id, why),
            // The next pass takes it again.
            Trouble::All(Stopped::Vault(Error::Stale | Error::Busy)) => {
                self.report.again = self.report.again.saturating_add(1);
            }
            Trouble::All(why) => return Err(why),
        }
        Ok(())
    }

    fn refuse(&mut self, id: String, why: Refused) {
        if self.report.refused.insert(id, why).is_none() {
            self.bar.inc(1);
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn lasts(token: &Token) -> bool {
    token.unverified_expiry() > SystemClock.wall().div_euclid(1000).saturating_add(600)
}

impl Job {
    /// A token for an hour, and then another: whoever finds it in a dump of this process has it for no longer.
    async fn token<P: Purpose>(
        &self,
        kept: &mut Option<Arc<Token>>,
        reach: Scope,
    ) -> Result<Arc<Token>, Stopped> {
        if let Some(token) = kept.as_ref().filter(|token| lasts(token)) {
            return Ok(Arc::clone(token));
        }
        let token = self.vault.issue::<P>(&self.me, &self.why, HOUR, reach).await?;
        Ok(Arc::clone(kept.insert(Arc::new(token))))
    }
}

fn row(row: &tokio_postgres::Row) -> Result<Row, Stopped> {
    let id: String = row.try_get("id")?;
    Ok(Row {
        version: row.try_get("version")?,
        subject: SubjectId::new(&id)?,
        id,
        day: Day::of(row.try_get::<_, i64>("day")?.saturating_mul(86_400_000)),
        marketing: row.try_get("marketing")?,
        country: row.try_get("country")?,
        name: row.try_get("name")?,
        email: row.try_get("email")?,
        phone: row.try_get("phone")?,
        address: row.try_get("address")?,
        born: row.try_get("born")?,
        sealed: row.try_get("sealed")?,
    })
}

impl Row {
    fn parse(&self) -> Result<Customer, Refused> {
        let country = Country::parse(&self.country).map_err(refused("country"))?;
        Ok(Customer {
            name: PersonName::parse(&self.name).map_err(refused("name"))?,
            email: self.email().map_err(refused("email"))?,
            phone: self.phone.as_deref().map(phone).transpose().map_err(refused("phone"))?,
            address: PostalAddress::parse(&self.address, country).map_err(refused("address"))?,
            born: self.born().map_err(refused("born"))?,
        })
    }

    fn email(&self) -> Result<Option<Email>, Invalid> {
        self.email.as_deref().map(Email::parse).transpose()
    }

    fn born(&self) -> Result<Option<DateOfBirth>, Invalid> {
        let today = Day::of(SystemClock.wall());
        self.born.as_deref().map(|text| DateOfBirth::parse_before(text, today)).transpose()
    }

    /// Whether what was opened is what stands in this row, in the form that the types give it.
    fn is_in(&self, sealed: &SealedCustomer, view: &CustomerView<SubjectAccess>) -> Result<bool, Error> {
        let Ok(mine) = self.parse() else { return Ok(false) };
        let over = sealed.left_out();
        // A value whose periods were all over is not there, and is not to be.
        let same = |label: &str, is: Result<bool, Absent>| match is {
            Err(Absent::NotSealedThen) if over.contains(&label) => Ok(true),
            is => is,
        };
        let lines = |address: &PostalAddress| {
            (address.expose_country(), address.expose_lines().map(str::to_owned).collect::<Vec<_>>())
        };
        let mail = |email: Option<&Email>| email.map(|email| email.expose().to_owned());
        let phone = |phone: Option<&AsEntered<Phone>>| phone.map(|phone| phone.expose().to_owned());
        let born = |born: Option<&DateOfBirth>| born.map(DateOfBirth::expose_parts);
        Ok(same("name", view.name().map(|name| name.expose() == mine.name.expose()))?
            && same("email", view.email().map(|email| mail(email) == mail(mine.email.as_ref())))?
            && same("phone", view.phone().map(|is| phone(is) == phone(mine.phone.as_ref())))?
            && same("address", view.address().map(|address| lines(address) == lines(&mine.address)))?
            && same("born", view.born().map(|is| born(is) == born(mine.born.as_ref())))?)
    }
}

/// What somebody could dial: digits, and what people put between them.
fn phone(text: &str) -> Result<AsEntered<Phone>, Invalid> {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b" +-.()/#x".contains(&b));
    if plain && (6..=18).contains(&digits) { AsEntered::keep(text) } else { Err(Invalid::Form) }
}

fn refused(column: &'static str) -> impl Fn(Invalid) -> Refused {
    move |why| {
        let code = match why {
            Invalid::Empty => "empty",
            Invalid::TooLong => "too-long",
            Invalid::TooShort => "too-short",
            Invalid::Character => "character",
            Invalid::Date => "no-such-date",
            Invalid::Future => "after-today",
            Invalid::Country => "no-such-country",
            _ => "form",
        };
        (column, code)
    }
}
