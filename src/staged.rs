//! Changes of the vault that the shop's own transaction makes, together with the shop's own rows.
//!
//! A staged change is a list of SQL statements. Run in a transaction on the database of the vault's table, they make the
//! change with that transaction's commit, or not at all. They lock what the change was decided on and raise an error where
//! it is not as it was, so that they are right under READ COMMITTED, and though nobody looks at how many rows they
//! touched.

use std::sync::{Arc, PoisonError};

use crate::actor::{Actor, Ground, SubjectId};
use crate::change::{Assembled, Change};
use crate::consent::{Consent, Evidence};
use crate::entry::Entry;
use crate::error::{Error, Misuse, Result};
use crate::forget::{Fencing, Forget, ForgetReceipt, WithdrawReceipt};
use crate::log::Action;
use crate::purpose::Purpose;
use crate::record::Record;
use crate::records::RecordKey;
use crate::sealed::Sealed;
use crate::sealer::Sealer;
use crate::store::{Committed, Outline, Statement};
use crate::tree::ATTEMPTS;
use crate::vault::{Inner, Subject, Vault, lane};

/// Makes staged changes: see [`Vault::staged`].
#[derive(Debug)]
pub struct Staging<'a>(&'a Arc<Inner>);

/// A change that waits for the shop's transaction. Run its statements in it, commit, then [`finish`](Self::finish).
///
/// One change goes with one transaction. Two would have to be of subjects that share nothing in the vault, which nobody can
/// tell beforehand: the second was decided on what the first has not changed yet, and its statements raise an error.
///
/// While the transaction is under way its statements hold locks: a forget holds up every other forget, and a `put` or
/// `delete` holds up forgets, revocations and freezes. Run them last and commit at once. A transaction that stands idle with
/// them for 15 seconds is ended by the server.
///
/// Dropped, it changes nothing. Where the transaction was committed and the process died before `finish`, any process that
/// has the vault open, or opens it, does what was left.
#[must_use = "its statements make the change, and `finish` completes it"]
pub struct Staged<T> {
    inner: Arc<Inner>,
    statements: Vec<Statement>,
    /// Whether it takes something away, which other processes have to see.
    fences: bool,
    lane: Option<lane::Writer>,
    outline: Outline,
    out: T,
}

impl<T> std::fmt::Debug for Staged<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staged").field("statements", &self.statements.len()).finish_non_exhaustive()
    }
}

impl Vault {
    /// Changes that are made by the shop's own transaction: to enroll somebody together with inserting the customer's
    /// row, to forget somebody together with deleting the cart.
    ///
    /// ```no_run
    /// # #[cfg(feature = "postgres")]
    /// # async fn sign_up(vault: &customer_vault::Vault, client: &mut customer_vault::store::deadpool_postgres::Client,
    /// #     id: &customer_vault::SubjectId, actor: &customer_vault::Actor, ground: &customer_vault::Ground)
    /// #     -> Result<(), Box<dyn std::error::Error>> {
    /// let mut staged = vault.staged().enroll(id, [], actor, ground).await?;
    /// let transaction = client.transaction().await?;
    /// transaction.execute("INSERT INTO customers (id) VALUES ($1)", &[&"c-1042"]).await?;
    /// staged.run(&transaction).await?; // Error::Busy: roll back, stage again, try again
    /// transaction.commit().await?;
    /// staged.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The store must be one that lies in a database of the shop's: [`Misuse::NotStaged`] otherwise.
    #[must_use]
    pub fn staged(&self) -> Staging<'_> {
        Staging(&self.0)
    }
}

impl Staging<'_> {
    /// As [`Vault::enroll`].
    ///
    /// # Errors
    ///
    /// As [`Vault::enroll`]; [`Misuse::NotStaged`].
    pub async fn enroll(
        &self,
        id: &SubjectId,
        consents: impl IntoIterator<Item = Consent>,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Staged<()>> {
        let consents = self.0.checked(consents)?;
        let enrolling =
            |subject: &Subject, entry| self.0.enrolling(&subject.tag, entry, &consents, actor, ground, false);
        self.change(id, enrolling).await
    }

    /// As [`enroll`](Self::enroll), with a sealer for what the same transaction inserts. **What it seals opens only if the
    /// transaction is committed**: use it for rows of that transaction alone.
    ///
    /// # Errors
    ///
    /// As [`enroll`](Self::enroll) and [`Vault::sealer`].
    pub async fn enroll_and_seal<R: Record>(
        &self,
        id: &SubjectId,
        consents: impl IntoIterator<Item = Consent>,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<(Staged<()>, Sealer<R>)> {
        let consents = self.0.checked(consents)?;
        self.0.ready_to_seal::<R>().await?;
        let since = self.0.now();
        let mut sealer = None;
        let enrolling = |subject: &Subject, entry| {
            let change = self.0.enrolling(&subject.tag, entry, &consents, actor, ground, false)?;
            sealer = Some(self.0.sealer_of(&subject.tag, &change.entry, since)?);
            Ok(change)
        };
        let staged = self.change(id, enrolling).await?;
        Ok((staged, sealer.ok_or(Error::NotEnrolled)?))
    }

    /// As [`Vault::consent`].
    ///
    /// # Errors
    ///
    /// As [`Vault::consent`]; [`Misuse::NotStaged`].
    pub async fn consent<P: Purpose>(
        &self,
        id: &SubjectId,
        evidence: Evidence,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Staged<()>> {
        let consent = self.0.checked_one(Consent::to::<P>(evidence))?;
        let consenting = |subject: &Subject, entry| {
            Ok(self.0.consenting(&subject.tag, entry, &consent, actor, ground)?.giving(()))
        };
        self.change(id, consenting).await
    }

    /// As [`Vault::withdraw`].
    ///
    /// # Errors
    ///
    /// As [`Vault::withdraw`]; [`Misuse::NotStaged`].
    pub async fn withdraw<P: Purpose>(
        &self,
        id: &SubjectId,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Staged<WithdrawReceipt>> {
        let withdrawing =
            |subject: &Subject, entry| self.0.withdrawing(&subject.tag, entry, P::NUMBER, actor, ground);
        self.change(id, withdrawing).await
    }

    /// As [`Vault::forget`]. The subject is fenced when [`finish`](Staged::finish) returns, not before.
    ///
    /// # Errors
    ///
    /// As [`Vault::forget`]; [`Misuse::NotStaged`].
    pub async fn forget(&self, id: &SubjectId, request: Forget) -> Result<Staged<ForgetReceipt>> {
        let fencing = Fencing::new()?;
        let forgetting =
            |subject: &Subject, entry| self.0.forgetting(&subject.tag, entry, &request, &fencing);
        self.change(id, forgetting).await
    }

    /// As [`Vault::put`].
    ///
    /// # Errors
    ///
    /// As [`Vault::put`]; [`Misuse::NotStaged`].
    pub async fn put<R: Record>(
        &self,
        id: &SubjectId,
        key: impl RecordKey<R>,
        sealed: &Sealed<R>,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Staged<()>> {
        let made = self.0.assemble_write(id, key, Some(sealed), Action::Put, actor, ground).await?;
        self.stage(Assembled { batch: made.batch, logs: made.logs, lines: made.lines, out: () }).await
    }

    /// As [`Vault::delete`].
    ///
    /// # Errors
    ///
    /// As [`Vault::delete`]; [`Misuse::NotStaged`].
    pub async fn delete<R: Record>(
        &self,
        id: &SubjectId,
        key: impl RecordKey<R>,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Staged<bool>> {
        let made = self.0.assemble_write::<R>(id, key, None, Action::Delete, actor, ground).await?;
        self.stage(made).await
    }

    async fn change<T>(
        &self,
        id: &SubjectId,
        mut edit: impl FnMut(&Subject, Option<Entry>) -> Result<Change<T>>,
    ) -> Result<Staged<T>> {
        for _ in 0..ATTEMPTS {
            let edit = |_: usize, subject: &Subject, entry| edit(subject, entry);
            if let Some(made) = self.0.assemble(&[id], &[], edit).await? {
                return self.stage(made.single()?).await;
            }
        }
        Err(Error::Busy)
    }

    async fn stage<T>(&self, made: Assembled<T>) -> Result<Staged<T>> {
        let Assembled { mut batch, logs, lines, out } = made;
        // A lane of its own while it is under way: the process's own goes on meanwhile.
        let idle = self.0.staging.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let lane = match idle {
            Some(lane) => lane,
            None => lane::Writer::new(self.0.id, self.0.rows.clone())?,
        };
        lane.stage(&mut batch, &logs).await?;
        let statements = self.0.rows.statements(&batch).ok_or(Misuse::NotStaged)?;
        let (inner, outline) = (Arc::clone(self.0), Outline::of(&batch));
        Ok(Staged { inner, statements, fences: !lines.is_empty(), lane: Some(lane), outline, out })
    }
}

impl<T: Completed> Staged<T> {
    /// What to run, in this order, in a transaction on the database of the vault's table, with the rights of a role that may
    /// read and write it. An error with the SQLSTATE `22012`, `23505`, `40001` or `40P01` says that somebody else was
    /// first: roll back, stage the change again and try again.
    ///
    /// `run` (feature `postgres`) does it with `tokio-postgres`.
    #[must_use]
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// Completes the change after the transaction was committed: tells the witness, and for a forget or a withdrawal waits
    /// until no process opens anything any more. May be called again.
    ///
    /// Where it is not known whether the transaction was committed, or it may still be under way, this finds out: it waits
    /// for the locks that the transaction holds, or makes sure that it cannot be committed any more.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] where the transaction was not committed, and never will be: nothing has changed.
    /// [`StoreError::Unknown`](crate::error::StoreError::Unknown) where it could not be found out: call it again. What the
    /// store says: then it may have been committed, and whoever opens the vault completes it.
    pub async fn finish(&mut self) -> Result<T> {
        match self.inner.rows.resolve(&self.outline).await? {
            Committed::Yes => {}
            Committed::Conflict => return Err(Error::Busy),
        }
        // Lines of others may lie before these.
        self.inner.journal.refresh().await?;
        let witnessed = self.inner.journal.tell().await;
        if self.fences {
            self.inner.wait_out_bound().await;
        }
        Ok(self.out.clone().witnessed(witnessed))
    }
}

impl<T> Drop for Staged<T> {
    /// Its lane is used again. Where its transaction is still under way, one of the two changes will fail.
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            self.inner.staging.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
        }
    }
}

/// What a staged change gives when it is complete.
pub trait Completed: Clone + completed::Sealed {
    #[doc(hidden)]
    #[must_use]
    fn witnessed(self, witnessed: bool) -> Self;
}

mod completed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl Sealed for bool {}
    impl Sealed for crate::forget::ForgetReceipt {}
    impl Sealed for crate::forget::WithdrawReceipt {}
}

impl Completed for () {
    fn witnessed(self, _: bool) -> Self {}
}

impl Completed for bool {
    fn witnessed(self, _: bool) -> Self {
        self
    }
}

impl Completed for ForgetReceipt {
    fn witnessed(self, witnessed: bool) -> Self {
        ForgetReceipt { witnessed, ..self }
    }
}

impl Completed for WithdrawReceipt {
    fn witnessed(self, witnessed: bool) -> Self {
        WithdrawReceipt { witnessed, ..self }
    }
}

#[cfg(feature = "postgres")]
impl<T: Completed> Staged<T> {
    /// Runs the statements in a transaction of `tokio-postgres`.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] where somebody else was first: roll back, stage the change again and try again. What the database
    /// says otherwise. Either way the transaction is over.
    pub async fn run(&self, transaction: &tokio_postgres::Transaction<'_>) -> Result<()> {
        use tokio_postgres::error::SqlState;
        use tokio_postgres::types::{ToSql, Type};
        for Statement { sql, parameters } in &self.statements {
            let parameters = parameters.iter().map(|bytes| {
                let bytes: &(dyn ToSql + Sync) = bytes;
                (bytes, Type::BYTEA)
            });
            let parameters: Vec<_> = parameters.collect();
            let run = transaction.query_typed(sql, &parameters).await;
            run.map_err(|error| crate::store::staged_failure(error.code().map(SqlState::code)))?;
        }
        Ok(())
    }
}

#[cfg(all(feature = "postgres", feature = "sqlx-0_9"))]
impl<T: Completed> Staged<T> {
    /// Runs the statements in a transaction of `sqlx` 0.9: `staged.run_sqlx(&mut transaction)`.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] where somebody else was first: roll back, stage the change again and try again. What the database
    /// says otherwise. Either way the transaction is over.
    pub async fn run_sqlx(
        &self,
        transaction: &mut sqlx_0_9::Transaction<'_, sqlx_0_9::Postgres>,
    ) -> Result<()> {
        for Statement { sql, parameters } in &self.statements {
            // The text is made by the store, of a table's name that was checked and of numbered parameters.
            let mut query = sqlx_0_9::query(sqlx_0_9::AssertSqlSafe(sql.as_str()));
            for bytes in parameters {
                query = query.bind(bytes.as_slice());
            }
            query.execute(&mut **transaction).await.map_err(|error| {
                let code = error.as_database_error().and_then(sqlx_0_9::error::DatabaseError::code);
                crate::store::staged_failure(code.as_deref())
            })?;
        }
        Ok(())
    }
}
