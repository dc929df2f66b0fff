//! What an unlock decides about a token, alone.

use crate::actor::SubjectId;
use crate::error::{Denied, Result};
use crate::purpose::Purpose;
use crate::token::Token;
use crate::vault::Vault;

/// Whether a token would be accepted for purpose `P` and one subject, as a service asks it at each request: its MACs, its
/// purpose, its time, its lifetime, whether it reaches the subject, whether it was revoked, whether the vault is frozen.
/// Nothing is read from the store, nothing is written to the log, and nobody gets a key. For measurements.
///
/// # Errors
///
/// [`Denied`] and [`Halted`](crate::error::Halted), as [`Vault::unlock`] says them.
pub async fn verify_for<P: Purpose>(vault: &Vault, token: &Token, id: &SubjectId) -> Result<()> {
    let inner = &vault.0;
    let verified = inner.admit_for::<P>(token).await?;
    inner.refuse_if_frozen()?;
    if inner.revoked(&verified) {
        return Err(Denied::Revoked.into());
    }
    if verified.reaches(id) { Ok(()) } else { Err(Denied::Subject.into()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pollster::block_on;

    use super::*;
    use crate::token::{Revoke, Scope};
    use crate::vault::Options;
    use crate::{LegalHold, SubjectAccess};

    #[test]
    fn a_token_is_accepted_for_its_purpose_and_subject_until_it_is_revoked() {
        let vault = block_on(crate::testing::ephemeral(Options::new())).unwrap();
        let (me, why) = (crate::testing::tester(), crate::testing::test_ground());
        let [alice, bob] = ["alice", "bob"].map(|name| SubjectId::new(name).unwrap());
        let hour = Duration::from_secs(3600);
        let token = block_on(vault.issue::<SubjectAccess>(&me, &why, hour, Scope::subject(&alice))).unwrap();
        assert_eq!(block_on(verify_for::<SubjectAccess>(&vault, &token, &alice)), Ok(()));
        let refused = |why: Denied| Err(why.into());
        assert_eq!(block_on(verify_for::<SubjectAccess>(&vault, &token, &bob)), refused(Denied::Subject));
        assert_eq!(block_on(verify_for::<LegalHold>(&vault, &token, &alice)), refused(Denied::Purpose));
        block_on(vault.revoke(Revoke::Token(token.unverified_id()), &me, &why)).unwrap();
        assert_eq!(block_on(verify_for::<SubjectAccess>(&vault, &token, &alice)), refused(Denied::Revoked));
    }
}
