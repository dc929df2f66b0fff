//! Histories that branch: copies of copies, copies that are given up, processes that stay open, and what the witness does
//! not know.

use std::sync::Mutex;

use customer_vault::backup::Backup;
use customer_vault::error::KeeperError;
use customer_vault::testing::CommitFault;

use super::forks::*;
use super::*;

pub(super) fn phase_of(batch: &Batch) -> Option<Vec<u8>> {
    let phase = batch.writes.iter().find(|(name, _)| name.first() == Some(&b'p') && name.len() == 17);
    phase.and_then(|(_, value)| value.clone())
}

impl World {
    pub(super) fn on(&self, store: &MemoryStore) -> World {
        World { store: store.clone(), keeper: self.keeper.clone(), clock: self.clock.clone() }
    }

    /// How many more faults there are with this row put into the store; 0: it opens.
    pub(super) async fn faults_with(&self, vault: &Vault, row: &Row) -> u64 {
        let before = vault.moves(|_| ()).await.unwrap().faults;
        let known = self.rows(&row.0).await;
        self.write(&row.0, Some(&row.1)).await;
        let after = vault.moves(|_| ()).await.unwrap().faults;
        self.write(&row.0, known.first().map(|(_, row)| &row[..])).await;
        after - before
    }
}

/// Everything in `to` as it is in `from`, in one commit.
pub(super) async fn put_back(to: &World, from: &MemoryStore) {
    let (now, then) = (to.rows(b"").await, to.on(from).rows(b"").await);
    let mut batch = Batch::new().unwrap();
    for (name, _) in now.iter().filter(|(name, _)| !then.iter().any(|(known, _)| known == name)) {
        batch.delete(name);
    }
    for (name, row) in &then {
        batch.put(name, row.clone());
    }
    to.store.commit(batch).await.unwrap();
}

#[test]
fn a_copy_of_a_store_that_was_put_right_is_put_right_too() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        for what in ["suite", "retired tokens", "retired lookup"] {
            let (world, vault) = World::new().await;
            match what {
                "retired tokens" => {
                    vault.change_key(KeyKind::Tokens, &me, &why).await.unwrap();
                }
                "retired lookup" => {
                    change(&vault).await;
                    moved(&vault, &everyone()).await;
                }
                _ => {}
            }
            let copy = world.store.snapshot();
            match what {
                "suite" => vault.use_suite(Suite::XChaCha20Poly1305, &me, &why).await.unwrap(),
                "retired tokens" => {
                    vault.retire_keys(KeyKind::Tokens, &me, &why).await.unwrap();
                }
                _ => {
                    retire(&vault).await.unwrap();
                }
            }
            drop(vault);
            let then = world.on(&copy);
            let vault = then.recover(copy.clone()).await.unwrap();
            assert_eq!(opens(&vault, &id("bob")).await, Ok(1));
            // An ordinary backup of the vault as it is now, and something after it.
            let mut backup = Vec::new();
            vault.backup(&mut backup, &mut std::io::sink(), Backup::full(&me, &why)).await.unwrap();
            let second = copy.snapshot();
            vault.forget(&id("alice"), now()).await.unwrap();
            drop(vault);
            assert!(then.open(copy.clone()).await.is_ok(), "{what}");
            // The store is lost; there are two ways back.
            let fresh = MemoryStore::shared_between_handles();
            let keeper = world.keeper.snapshot();
            let restored = world
                .options()
                .restore(fresh, keeper.clone(), keeper, [&backup[..]], &me, &why)
                .await
                .unwrap();
            assert_eq!(opens(&restored, &id("bob")).await, Ok(1), "{what}");
            let again = world.on(&second).recover(second.clone()).await.unwrap();
            assert_eq!(opens(&again, &id("bob")).await, Ok(1), "{what}");
            assert_eq!(opens(&again, &id("alice")).await, Err(Erased::Forgotten.into()), "{what}");
        }
    });
}

#[test]
fn abuse_04_a_copy_of_a_store_that_is_being_put_right_is_put_right_too() {
    block_on(async {
        for changed_before in [false, true] {
            let (world, vault) = with_a_crowd().await;
            if changed_before {
                change(&vault).await;
                moved(&vault, &[everyone(), crowd()].concat()).await;
                retire(&vault).await.unwrap();
            }
            let copy = world.store.snapshot();
            change(&vault).await;
            let (who, _, new) = first_who_leaves_her_bucket(&world, &vault).await;
            drop(vault);
            // The recover, with a copy before each of its commits.
            let copies: Arc<Mutex<Vec<MemoryStore>>> = Arc::default();
            let then = world.on(&copy);
            let faults = FaultStore::new(copy.clone());
            let (list, store) = (Arc::clone(&copies), copy.clone());
            faults.before_each(move |call| {
                if matches!(call, Call::Commit(_)) {
                    list.lock().unwrap().push(store.snapshot());
                }
                Box::pin(async {})
            });
            let keeper = || world.keeper.clone();
            let vault =
                then.options().recover(faults, keeper(), keeper(), &tester(), &test_ground()).await.unwrap();
            drop(vault);
            let copies = copies.lock().unwrap().clone();
            assert!(copies.len() > 8);
            let after = world.keeper.snapshot();
            for (nth, copy) in copies.iter().enumerate() {
                let copy = copy.snapshot();
                let world =
                    World { store: copy.clone(), keeper: after.snapshot(), clock: world.clock.clone() };
                let vault = world.recover(copy.clone()).await.unwrap();
                vault.forget(&who, now()).await.unwrap();
                assert_eq!(shred_and_settle(&vault).await, 1);
                assert_eq!(world.faults_with(&vault, &new).await, 1, "copy {nth}");
            }
        }
    });
}

#[test]
fn abuse_05_a_bucket_that_is_hidden_while_a_shred_begins_is_not_certified() {
    block_on(async {
        let (world, _) = World::new().await;
        let faults = FaultStore::new(world.store.clone());
        let vault = world.open(faults.clone()).await.unwrap();
        let before = world.rows(b"s").await;
        vault.forget(&id("alice"), now()).await.unwrap();
        let after = world.rows(b"s").await;
        let (name, row) = before
            .iter()
            .find(|(name, row)| after.iter().any(|(k, o)| k == name && o != row))
            .unwrap()
            .clone();
        let bucket = [b"n\x02", &name[1..3]].concat();
        let node = world.rows(&bucket).await.pop().unwrap().1;
        let children = world.rows(&[b"s", &name[1..3]].concat()).await;
        let (hook_bucket, hook_node, store) = (bucket.clone(), node.clone(), world.store.clone());
        let done = AtomicUsize::new(0);
        faults.before_each(move |call| {
            let Call::Commit(batch) = call else { return Box::pin(async {}) };
            let mut back = Batch::new().unwrap();
            match phase_of(batch).as_deref() {
                // It begins: written while it looked; there again now.
                Some([_, 1, 0, 0, 0, 0, ..]) => {
                    back.put(&hook_bucket, hook_node.clone());
                    for (name, row) in &children {
                        back.put(name, row.clone());
                    }
                }
                // All is removed, and goes on to the nodes above.
                Some([_, 2, 0, 0, 0, 1, 0, 0, 0, 0, ..]) if done.fetch_add(1, Ordering::SeqCst) == 0 => {
                    back.put(&hook_bucket, hook_node.clone());
                    for (name, row) in &children {
                        back.put(name, row.clone());
                    }
                }
                _ => return Box::pin(async {}),
            }
            block_on(store.commit(back)).unwrap();
            Box::pin(async {})
        });
        // Hidden.
        for (name, _) in world.rows(&[b"s", &name[1..3]].concat()).await {
            world.write(&name, None).await;
        }
        world.write(&bucket, None).await;
        drop(vault.shred(&tester(), &test_ground()).await);
        faults.without_hook();
        let settled = vault.settle(&tester(), &test_ground()).await.unwrap();
        assert_eq!(settled.certificates.len(), 0);
        // The next one finds her by the journal.
        assert_eq!(shred_and_settle(&vault).await, 1);
        assert_eq!(world.faults_with(&vault, &(name.clone(), row.clone())).await, 1);
    });
}

#[test]
fn abuse_04_who_is_shredded_where_she_lay_before_she_moved_does_not_open_where_she_moved_to() {
    block_on(async {
        for fork in [true, false] {
            let (world, vault) = with_a_crowd().await;
            let (me, why) = (tester(), test_ground());
            let some: Vec<SubjectId> = crowd().into_iter().take(12).collect();
            for who in &some {
                vault.forget(who, Forget::by(&me, &why)).await.unwrap();
            }
            change(&vault).await;
            let copy = world.store.snapshot();
            let was = world.on(&copy);
            let due = was.rows(b"w").await;
            let buckets: Vec<Vec<u8>> = was
                .rows(b"s")
                .await
                .iter()
                .filter(|(n, _)| due.iter().any(|(d, _)| d[3..] == n[3..]))
                .map(|(n, _)| n[1..3].to_vec())
                .collect();
            assert_eq!((due.len(), buckets.len()), (12, 12));
            // One who moves to a bucket in which nobody else is due.
            let mut found = None;
            for who in &some {
                let before = world.rows(b"s").await;
                moved(&vault, std::slice::from_ref(who)).await;
                let after = world.rows(b"s").await;
                let (old, new) = (only(&before, &after), only(&after, &before));
                if !buckets.contains(&new.0[1..3].to_vec())
                    && before.iter().any(|(n, _)| n[1..3] == new.0[1..3])
                {
                    found = Some((old, new));
                    break;
                }
            }
            let (old, new) = found.unwrap();
            let (then, vault) = if fork {
                drop(vault);
                // A standby, or a backup, from before the move.
                let then = world.on(&copy);
                assert_eq!(then.open(copy.clone()).await.unwrap_err(), RolledBack::Store.into());
                let vault = then.recover(copy.clone()).await.unwrap();
                (then, vault)
            } else {
                // Somebody writes three rows back, between two calls: her entry, and that nothing is due at the new place.
                world.write(&new.0, None).await;
                world.write(&old.0, Some(&was.rows(&old.0).await[0].1)).await;
                let due = [&b"w"[..], &due[0].0[1..3], &new.0[3..]].concat();
                assert_eq!(world.rows(&due).await.len(), 1);
                world.write(&due, None).await;
                (world.on(&world.store), vault)
            };
            world.clock.advance_days(4);
            let receipt = vault.shred(&me, &why).await.unwrap();
            let certificates = vault.settle(&me, &why).await.unwrap().certificates.len();
            assert_eq!((receipt.subjects, certificates), (12, 12));
            // An older row of hers opens under what the newest store and the newest keeper give.
            assert_eq!(then.faults_with(&vault, &new).await, 1, "{fork}");
        }
    });
}

#[test]
fn a_key_that_was_retired_after_the_copy_is_not_believed_again() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (world, vault) = World::new().await;
        vault.change_key(KeyKind::Signing, &me, &why).await.unwrap();
        let copy = world.store.snapshot();
        assert_eq!(vault.retire_keys(KeyKind::Signing, &me, &why).await, Ok(1));
        assert_eq!(vault.verifier_keys().unwrap().len(), 1);
        drop(vault);
        let vault = world.on(&copy).recover(copy.clone()).await.unwrap();
        assert_eq!(vault.verifier_keys().unwrap().len(), 1);
    });
}

#[test]
fn a_process_that_stays_open_while_the_store_is_put_right_takes_over_its_keys() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let (world, vault) = World::new().await;
        change(&vault).await;
        let copy = world.store.snapshot();
        moved(&vault, &everyone()).await;
        retire(&vault).await.unwrap();
        let other = world.open(world.store.clone()).await.unwrap();
        assert_eq!(opens(&other, &id("alice")).await, Ok(1));
        drop(vault);
        // The database is restored, and put right by an operator's process.
        put_back(&world, &copy).await;
        let vault = world.recover(world.store.clone()).await.unwrap();
        assert_eq!(opens(&vault, &id("alice")).await, Ok(1));
        assert_eq!(opens(&other, &id("alice")).await, Ok(1));
        let twice = other.enroll(&id("alice"), [], &me, &why).await;
        assert_eq!(twice, Err(Misuse::AlreadyEnrolled.into()));
    });
}

#[test]
fn an_enrolment_beside_a_shred_takes_no_certificate_away() {
    block_on(async {
        for _ in 0..4 {
            let (me, why) = (tester(), test_ground());
            let (world, vault) = World::new().await;
            let other = world.open(world.store.clone()).await.unwrap();
            drop(vault);
            let faults = FaultStore::new(world.store.clone());
            let vault = world.open(faults.clone()).await.unwrap();
            // Alice changes her mind, Bob does not.
            vault.forget(&id("alice"), Forget::by(&me, &why)).await.unwrap();
            vault.undo_forget(&id("alice"), &me, &why).await.unwrap();
            vault.forget(&id("bob"), Forget::by(&me, &why)).await.unwrap();
            change(&vault).await;
            moved(&vault, &everyone()).await;
            world.clock.advance_days(4);
            let (pass, beside) = (AtomicUsize::new(0), other.clone());
            faults.before_each(move |call| {
                let Call::Commit(batch) = call else { return Box::pin(async {}) };
                // All removals are made: first of the batch of the buckets that were left, then of the shred itself.
                let removed = matches!(phase_of(batch).as_deref(), Some([_, 2, 0, 0, 0, _, 0, 0, 0, 0, ..]));
                if removed && pass.fetch_add(1, Ordering::SeqCst) == 1 {
                    let people: Vec<(SubjectId, [Consent; 0])> =
                        (0..1500).map(|n| (id(&format!("n{n}")), [])).collect();
                    assert!(
                        block_on(beside.enroll_many(&people, &tester(), &test_ground()))
                            .iter()
                            .all(Result::is_ok)
                    );
                }
                Box::pin(async {})
            });
            vault.shred(&me, &why).await.unwrap();
            faults.without_hook();
            assert_eq!(vault.settle(&me, &why).await.unwrap().certificates.len(), 1);
        }
    });
}

#[test]
fn nobody_moves_before_the_witness_knows_of_the_change() {
    block_on(async {
        let (world, vault) = with_a_crowd().await;
        let copy = world.store.snapshot();
        world.keeper.witness_unreachable(true);
        change(&vault).await;
        let refused = vault.move_subjects(&everyone(), &tester(), &test_ground()).await;
        assert_eq!(refused.unwrap_err(), KeeperError::Unreachable.into());
        // Nor is anybody enrolled.
        let refused = vault.enroll(&id("zoe"), [], &tester(), &test_ground()).await;
        assert_eq!(refused.unwrap_err(), KeeperError::Unreachable.into());
        // Who is changed is not moved by that.
        vault.withdraw::<News>(&id("alice"), &tester(), &test_ground()).await.unwrap();
        assert_eq!(moves(&vault).await, (0, 404, 0));
        world.keeper.witness_unreachable(false);
        let (who, _, new) = first_who_leaves_her_bucket(&world, &vault).await;
        drop(vault);
        let then = world.on(&copy);
        let vault = then.recover(copy).await.unwrap();
        vault.forget(&who, now()).await.unwrap();
        assert_eq!(shred_and_settle(&vault).await, 1);
        assert_eq!(then.faults_with(&vault, &new).await, 1);
    });
}

#[test]
fn what_is_acknowledged_while_a_copy_is_put_right_stays() {
    block_on(async {
        let (world, vault) = World::new().await;
        let copy = world.store.snapshot();
        change(&vault).await;
        put_back(&world, &copy).await;
        let faults = FaultStore::new(world.store.clone());
        let count = AtomicUsize::new(0);
        let other = vault.clone();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&seen);
        faults.before_each(move |call| {
            if let Call::Commit(_) = call {
                let n = count.fetch_add(1, Ordering::SeqCst);
                let name = format!("new{n}");
                let result = block_on(other.enroll(&id(&name), [], &tester(), &test_ground()));
                list.lock().unwrap().push((name, result));
            }
            Box::pin(async {})
        });
        let keeper = || world.keeper.clone();
        let (me, why) = (tester(), test_ground());
        drop(world.options().recover(faults.clone(), keeper(), keeper(), &me, &why).await);
        faults.without_hook();
        let vault = world.recover(world.store.clone()).await.unwrap();
        let seen = seen.lock().unwrap().clone();
        assert!(seen.len() > 8);
        for (name, enrolled) in seen {
            let found = vault.status(&id(&name), &tester(), &test_ground()).await.map(drop);
            assert_eq!(found.is_ok(), enrolled.is_ok(), "{name}: {enrolled:?}, {found:?}");
        }
    });
}

#[test]
fn abuse_05_no_certificate_comes_while_a_copy_that_was_given_up_opens() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        let clock = ManualClock::at(Day::from_ymd(2026, 3, 2).unwrap());
        let store = MemoryStore::shared_between_handles();
        let world = World { store: store.clone(), keeper: MemoryKeeper::new(), clock: clock.clone() };
        let keeper = || world.keeper.clone();
        let options = || {
            let settings = Settings::default().bound_ms(100).unwrap().grace_days(3).unwrap();
            let settings = settings.restore_window(RestoreWindow::days(30).unwrap()).height(2).unwrap();
            Options::new().record::<Order>().settings(settings).clock(clock.clone())
        };
        let vault = options().create(store.clone(), keeper(), keeper()).await.unwrap();
        vault.enroll(&id("alice"), [], &me, &why).await.unwrap();
        let hers = world.rows(b"s").await.pop().unwrap();
        let old = store.snapshot();
        vault.forget(&id("alice"), now()).await.unwrap();
        vault.shred(&me, &why).await.unwrap();
        let newer = store.snapshot();
        drop(vault);
        clock.advance_days(5);
        // The wrong copy first: it is put right in part, and given up.
        let mut given_up = None;
        for nth in 0..14 {
            let copy = old.snapshot();
            let faults = FaultStore::new(copy.clone());
            faults.fail_commit(nth, CommitFault::KilledAfter);
            let before = world.keeper.snapshot();
            let then = World { store: copy.clone(), keeper: before.clone(), clock: clock.clone() };
            drop(options().recover(faults, before.clone(), before.clone(), &me, &why).await);
            let (epoch, row) = (then.rows(b"e").await, then.rows(&hers.0).await);
            if epoch[0].1[8] > 2 && row[0].1.len() >= hers.1.len() {
                given_up = Some(nth);
            }
        }
        let nth = given_up.unwrap();
        let wrong = old.snapshot();
        let faults = FaultStore::new(wrong.clone());
        faults.fail_commit(nth, CommitFault::KilledAfter);
        drop(options().recover(faults, keeper(), keeper(), &me, &why).await);
        // Then the right one.
        let vault = options().recover(newer.clone(), keeper(), keeper(), &me, &why).await.unwrap();
        assert_eq!(vault.settle(&me, &why).await.unwrap().certificates.len(), 0);
        for _ in 0..4 {
            clock.advance_days(7);
            vault.confirm_time(&me, &why).await.unwrap();
        }
        assert_eq!(vault.settle(&me, &why).await.unwrap().certificates.len(), 0);
        // Its root is held as long as any.
        for _ in 0..2 {
            clock.advance_days(7);
            vault.confirm_time(&me, &why).await.unwrap();
        }
        assert_eq!(vault.settle(&me, &why).await.unwrap().certificates.len(), 1);
        let back = options().recover(wrong.snapshot(), keeper(), keeper(), &me, &why).await;
        assert_eq!(back.unwrap_err(), RolledBack::Gone.into());
    });
}

#[test]
fn abuse_04_who_was_enrolled_after_the_copy_is_ended_by_being_enrolled_and_forgotten() {
    block_on(async {
        let (me, why) = (tester(), test_ground());
        for retired in [false, true] {
            let (world, vault) = with_a_crowd().await;
            let copy = world.store.snapshot();
            let there = world.rows(b"s").await;
            let mut found = None;
            for n in 0.. {
                let before = world.rows(b"s").await;
                let who = id(&format!("zoe{n}"));
                vault.enroll(&who, [], &me, &why).await.unwrap();
                let new = only(&world.rows(b"s").await, &before);
                if there.iter().any(|(name, _)| name[1..3] == new.0[1..3]) {
                    found = Some((who, new));
                    break;
                }
            }
            let (zoe, row) = found.unwrap();
            drop(vault);
            let then = world.on(&copy);
            let vault = then.recover(copy.clone()).await.unwrap();
            change(&vault).await;
            if retired {
                moved(&vault, &everyone()).await;
                moved(&vault, &crowd()).await;
                retire(&vault).await.unwrap();
            }
            vault.enroll(&zoe, [], &me, &why).await.unwrap();
            vault.forget(&zoe, now()).await.unwrap();
            let certified = shred_and_settle(&vault).await;
            let faults = then.faults_with(&vault, &row).await;
            assert_eq!((certified, faults), (1, 1), "retired {retired}");
        }
    });
}

mod consent_only {
    use super::*;
    purposes! { pub Ads: Consent = 1 "ads"; }
    record! {
        pub struct Click[u64] / SealedClick / ClickView in click = "click" {
            pub name: PersonName = 1 "name", basic, for [Ads: 2 days];
        }
    }

    #[test]
    fn a_hold_that_was_replayed_keeps_what_a_new_consent_brings() {
        block_on(async {
            for lost in [false, true] {
                let (me, why) = (tester(), test_ground());
                let clock = ManualClock::at(Day::from_ymd(2026, 3, 2).unwrap());
                let store = MemoryStore::shared_between_handles();
                let world = World { store: store.clone(), keeper: MemoryKeeper::new(), clock: clock.clone() };
                let keeper = || world.keeper.clone();
                let options = || {
                    let window = RestoreWindow::none_every_older_backup_of_the_keys_dies_at_once();
                    let settings = Settings::default().bound_ms(100).unwrap().grace_days(3).unwrap();
                    Options::new()
                        .record::<Click>()
                        .settings(settings.restore_window(window).height(2).unwrap())
                        .clock(clock.clone())
                };
                let vault = options().create(store.clone(), keeper(), keeper()).await.unwrap();
                let alice = id("alice");
                let evidence =
                    |version| Evidence::of_notice(version, "We recommend goods.", "web", &me).unwrap();
                vault.enroll(&alice, [Consent::to::<Ads>(evidence(1))], &me, &why).await.unwrap();
                vault.withdraw::<Ads>(&alice, &me, &why).await.unwrap();
                clock.advance_days(4);
                vault.shred(&me, &why).await.unwrap();
                let copy = store.snapshot();
                vault.hold(&alice, &me, &why).await.unwrap();
                let vault = if lost {
                    drop(vault);
                    options().recover(copy.clone(), keeper(), keeper(), &me, &why).await.unwrap()
                } else {
                    vault
                };
                assert!(vault.status(&alice, &me, &why).await.unwrap().held);
                vault.consent::<Ads>(&alice, evidence(1), &me, &why).await.unwrap();
                let sealer = vault.sealer::<Click>(&alice, &me, &why).await.unwrap();
                let sealed = sealer.seal(Click { name: PersonName::parse("Lee").unwrap() }, &1).unwrap();
                clock.advance_days(5);
                vault.expire(&me, &why).await.unwrap();
                let opened = match grant::<LegalHold>(&vault, &alice).await {
                    Ok(held) => sealed.open(&held, &1).map(|view| view.name().is_ok()),
                    Err(why) => Err(why),
                };
                assert!(vault.status(&alice, &me, &why).await.unwrap().held);
                assert_eq!(opened, Ok(true), "{lost}");
            }
        });
    }
}
