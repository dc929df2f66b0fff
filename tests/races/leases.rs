//! Leases, step by step: what another process may still do, and until when.

use super::*;

/// Runs `race` while `vault` watches.
fn watching<T>(stage: &Stage<'_>, vault: &Vault, race: impl Future<Output = T>) -> T {
    let mut out = None;
    let step = async { out = Some(race.await) };
    let tasks = vec![task(step), task(async { assert!(vault.watch().await.is_err()) }).in_background()];
    run(tasks, &stage.clock, &mut Seeded::new(1));
    out.unwrap()
}

async fn grant(stage: &Stage<'_>, vault: &Vault) -> Grant<Shipping> {
    let (id, _) = &stage.shop.people[0];
    stage.unlock::<Shipping>(vault, &stage.shop.tokens.shipping, id).await.unwrap()
}

fn opens(stage: &Stage<'_>, grant: &Grant<Shipping>) -> Result<()> {
    stage.shop.people[0].1.open(grant, &1).map(drop)
}

async fn passes(stage: &Stage<'_>, ms: u64) {
    for _ in 0..ms / 50 {
        stage.clock.sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[test]
fn without_watch_a_grant_lives_for_one_bound_and_with_it_it_goes_on() {
    let stage = shop().stage(Manner::Before);
    let vault = stage.process();
    alone(&stage.clock, async {
        let grant = grant(&stage, &vault).await;
        stage.clock.advance_ms(999);
        assert_eq!(opens(&stage, &grant), Ok(()));
        stage.clock.advance_ms(1);
        assert_eq!(opens(&stage, &grant), Err(Error::Stale));
    });
    watching(&stage, &vault, async {
        let grant = grant(&stage, &vault).await;
        for _ in 0..20 {
            passes(&stage, 1000).await;
            assert_eq!(opens(&stage, &grant), Ok(()));
        }
    });
    // Nobody watches any more.
    alone(&stage.clock, async {
        let grant = grant(&stage, &vault).await;
        stage.clock.advance_ms(1000);
        assert_eq!(opens(&stage, &grant), Err(Error::Stale));
    });
}

#[test]
fn a_process_that_cannot_read_the_store_any_more_stops_opening_when_its_lease_ends() {
    let stage = shop().stage(Manner::Before);
    let vault = stage.process();
    watching(&stage, &vault, async {
        let grant = grant(&stage, &vault).await;
        passes(&stage, 3000).await;
        assert_eq!(opens(&stage, &grant), Ok(()));
        stage.is_reachable(false);
        passes(&stage, 1000).await;
        assert_eq!(opens(&stage, &grant), Err(Error::Stale));
        stage.is_reachable(true);
        passes(&stage, 3000).await;
        // The watch has ended with the failure.
        assert_eq!(opens(&stage, &grant), Err(Error::Stale));
    });
    watching(&stage, &vault, async {
        let grant = grant(&stage, &vault).await;
        passes(&stage, 3000).await;
        assert_eq!(opens(&stage, &grant), Ok(()));
    });
}

#[test]
fn abuse_16_a_wall_clock_that_is_set_ends_leases_early_and_never_late() {
    let day = 86_400_000;
    let stage = shop().stage(Manner::Before);
    let vault = stage.process();
    alone(&stage.clock, async {
        let noon = stage.clock.wall();
        let before = grant(&stage, &vault).await;
        // Forwards while no time passes: whatever the process was, it may have been asleep.
        stage.clock.set_wall(noon + 5000);
        assert_eq!(opens(&stage, &before), Err(Error::Stale));
        // Back: what was taken meanwhile gets no more time.
        let meanwhile = grant(&stage, &vault).await;
        stage.clock.set_wall(noon);
        assert_eq!(opens(&stage, &meanwhile), Ok(()));
        stage.clock.advance_ms(1000);
        assert_eq!(opens(&stage, &meanwhile), Err(Error::Stale));
        // Three days on and back again: what was over is over.
        stage.clock.set_wall(noon + 4 * day);
        drop(grant(&stage, &vault).await);
        stage.clock.set_wall(noon);
        let back = grant(&stage, &vault).await;
        let view = stage.shop.people[0].1.open(&back, &1).unwrap();
        assert_eq!(view.name().err(), Some(Absent::Expired));
        // Ten years ahead: nothing is destroyed, nothing is sealed, and the mark does not move.
        stage.clock.set_wall(noon + 3650 * day);
        let (id, _) = &stage.shop.people[0];
        let halted = Err(Error::Halted(Halted::Clock));
        assert_eq!(vault.expire(&tester(), &test_ground()).await.map(drop), halted);
        assert_eq!(vault.sealer::<shop::Order>(id, &tester(), &test_ground()).await.map(drop), halted);
        stage.clock.set_wall(noon + 4 * day);
        stage.seal(&vault, id, 3).await.unwrap();
    });
}

#[test]
fn abuse_19_a_forget_in_one_process_ends_grants_of_the_other_before_it_returns() {
    for watched in [false, true] {
        let stage = shop().stage(Manner::Before);
        let (one, two) = (stage.process(), stage.process());
        let (id, _) = &stage.shop.people[0];
        let race = async {
            let grant = grant(&stage, &two).await;
            assert_eq!(opens(&stage, &grant), Ok(()));
            one.forget(id, Forget::by(&tester(), &test_ground())).await.unwrap();
            let ended = opens(&stage, &grant);
            // Who watches has read of it; who does not has lost the lease.
            let why = if watched { Error::Erased(Erased::Forgotten) } else { Error::Stale };
            assert_eq!(ended, Err(why));
            // Undone, it is another era: what was held is not good again.
            one.undo_forget(id, &tester(), &test_ground()).await.unwrap();
            passes(&stage, 2000).await;
            assert_eq!(opens(&stage, &grant), Err(Error::Stale));
        };
        if watched { watching(&stage, &two, race) } else { alone(&stage.clock, race) }
    }
}

#[test]
fn abuse_18_a_revocation_and_a_freeze_reach_the_other_process_within_the_bound_and_outlive_both() {
    let stage = shop().stage(Manner::Before);
    let (one, two) = (stage.process(), stage.process());
    let (me, why) = (tester(), test_ground());
    let (id, _) = &stage.shop.people[0];
    let shipping = &stage.shop.tokens.shipping;
    let revoked = Some(Error::Denied(Denied::Revoked));
    watching(&stage, &two, async {
        let grant = grant(&stage, &two).await;
        one.freeze(&me, &why).await.unwrap();
        assert_eq!(opens(&stage, &grant), Err(Error::Halted(Halted::Frozen)));
        let frozen = stage.unlock::<Shipping>(&two, shipping, id).await.err();
        assert_eq!(frozen, Some(Error::Halted(Halted::Frozen)));
        one.unfreeze(&me, &why).await.unwrap();
        assert_eq!(opens(&stage, &grant), Ok(()));
        let mine = two.issue::<Shipping>(&me, &why, std::time::Duration::from_secs(60), Scope::everyone());
        let mine = mine.await.unwrap();
        one.revoke(Revoke::Token(shipping.unverified_id()), &me, &why).await.unwrap();
        assert_eq!(opens(&stage, &grant).err(), revoked);
        assert!(stage.unlock::<Shipping>(&two, &mine, id).await.is_ok());
        one.revoke(Revoke::Actor(me.clone()), &me, &why).await.unwrap();
        assert_eq!(stage.unlock::<Shipping>(&two, &mine, id).await.err(), revoked);
        one.revoke(Revoke::Purpose(PurposeId::of::<shop::Recommendation>()), &me, &why).await.unwrap();
        one.revoke(Revoke::All, &me, &why).await.unwrap();
    });
    drop((one, two));
    let later = stage.process();
    let tokens = &stage.shop.tokens;
    alone(&stage.clock, async {
        assert_eq!(stage.unlock::<Shipping>(&later, shipping, id).await.err(), revoked);
        let books = stage.unlock::<shop::Invoicing>(&later, &tokens.invoicing, id).await.err();
        assert_eq!(books, revoked);
    });
}

#[test]
fn a_process_that_only_reads_opens_what_another_seals_to_days_made_meanwhile() {
    let stage = shop().stage(Manner::Before);
    let (one, two) = (stage.process(), stage.process());
    let (id, _) = &stage.shop.people[0];
    let (me, why, minute) = (tester(), test_ground(), std::time::Duration::from_secs(60));
    alone(&stage.clock, async {
        // The calendar that both have read ends 35 days after the longest period.
        for _ in 0..38 {
            stage.clock.advance_days(1);
            let token = one.issue::<Shipping>(&me, &why, minute, Scope::everyone()).await.unwrap();
            let sealed = stage.seal(&one, id, 1).await.unwrap();
            let grant = stage.unlock::<Shipping>(&two, &token, id).await.unwrap();
            assert!(sealed.open(&grant, &1).expect("a lease that is fresh").name().is_ok());
        }
    });
}

#[cfg(feature = "redb")]
#[test]
fn abuse_39_a_second_process_on_one_file_is_told_so() {
    use customer_vault::error::StoreError;
    use customer_vault::store::RedbStore;
    let path = std::env::temp_dir().join(format!("customer-vault-two-{}.redb", std::process::id()));
    drop(std::fs::remove_file(&path));
    let first = RedbStore::create(&path).unwrap();
    assert_eq!(RedbStore::open(&path).err(), Some(StoreError::Locked));
    assert_eq!(RedbStore::create(&path).err(), Some(StoreError::Exists));
    drop(first);
    drop(RedbStore::open(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
}
