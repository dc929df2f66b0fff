//! Vault and model compared.

use crate::Op;
use crate::world::{SUBJECTS, World};

impl World {
    /// One value under one grant: exactly what the model says, and nothing under another record or subject.
    pub fn check(&self, value: usize, grant: usize) {
        let (sealed, value) = &self.values[value];
        let (grant, pass) = &self.grants[grant];
        let real = grant.open(sealed, value.order);
        let wrong = grant.open(sealed, value.order + 1);
        assert!(wrong.is_err() || wrong.unwrap().values().all(Result::is_err), "another order's");
        if value.subject != pass.subject {
            assert!(real.is_err() || real.unwrap().values().all(Result::is_err), "another subject's");
            return;
        }
        let expected = self.model.open(value, pass);
        match real {
            Err(error) => assert!(expected.errors.contains(&error), "{error:?}, not as in {expected:?}"),
            Ok(view) => {
                let wanted = expected.view.as_ref().expect("the model opens nothing");
                let wanted = view.keys().map(|field| (*field, wanted[field].clone())).collect();
                assert_eq!(view, wanted, "vault (left) and model (right) by {pass:?} of {value:?}");
            }
        }
    }

    pub fn check_some(&self, choice: u64) {
        let (values, grants) = (self.values.len() as u64, self.grants.len() as u64);
        if values == 0 || grants == 0 {
            return;
        }
        for n in 0..4 {
            let at = choice.rotate_left(n * 16);
            let value = usize::try_from(at % values).unwrap();
            let grant = usize::try_from((at >> 16) % grants).unwrap();
            self.check(value, grant);
        }
    }

    /// Every value under every grant, then under fresh grants of every purpose, and all that is stored.
    pub async fn check_all(&mut self) {
        for value in 0..self.values.len() {
            (0..self.grants.len()).for_each(|grant| self.check(value, grant));
        }
        if self.model.frozen {
            self.step(&Op::Unfreeze).await;
        }
        self.grants.clear();
        self.actors += 1;
        for who in 0..SUBJECTS {
            for reader in 0..6 {
                self.unlock(who, reader, 1, false).await;
                for value in 0..self.values.len() {
                    (0..self.grants.len()).for_each(|grant| self.check(value, grant));
                }
                self.grants.clear();
            }
            self.records(who).await;
        }
        assert!(self.vault().verify_log().await.unwrap().holds());
    }
}
