//! Long histories by chance: copies, recovers that are killed and begun again, changes of keys, moves. Whoever is known at the
//! end is forgotten and certified; then no row of theirs, of any moment and any branch, opens.
//!
//! `HISTORIES` is another number of them than 12.

use std::collections::{HashMap, HashSet};

use customer_vault::testing::CommitFault;

use super::forks::*;
use super::*;

/// What comes next, by chance. The vault's own keys are random too: a seed does not give the same places.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(most).unwrap()).unwrap()
    }
}

/// Rows of entries as they were at any moment.
#[derive(Default)]
struct Seen {
    rows: HashSet<Row>,
    /// Whose they are, by place.
    owners: HashMap<Vec<u8>, SubjectId>,
}

impl Seen {
    /// After something that concerned one person: what is new is theirs.
    async fn look(&mut self, world: &World, who: &SubjectId) {
        for (name, row) in world.rows(b"s").await {
            self.owners.entry(name.clone()).or_insert_with(|| who.clone());
            self.rows.insert((name, row));
        }
    }
}

struct History {
    world: World,
    vault: Option<Vault>,
    ids: Vec<SubjectId>,
    copies: Vec<MemoryStore>,
    seen: Seen,
    chance: Chance,
    said: Vec<String>,
}

impl History {
    async fn begin(seed: u64) -> Self {
        // Most buckets are there from the beginning: what lies under them opens until they are rotated.
        let (world, vault) = with_a_crowd().await;
        let mut seen = Seen::default();
        // Theirs are not told apart.
        seen.look(&world, &id("nobody")).await;
        let chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (vault, ids, copies, said) = (Some(vault), Vec::new(), Vec::new(), Vec::new());
        let mut history = History { world, vault, ids, copies, seen, chance, said };
        for _ in 0..6 {
            history.enroll().await;
        }
        history
    }

    fn vault(&self) -> &Vault {
        self.vault.as_ref().unwrap()
    }

    async fn enroll(&mut self) {
        let who = id(&format!("p{}", self.ids.len()));
        self.vault().enroll(&who, [], &tester(), &test_ground()).await.unwrap();
        self.seen.look(&self.world, &who).await;
        self.ids.push(who);
    }

    async fn step(&mut self) {
        let (me, why) = (tester(), test_ground());
        let one = self.ids[self.chance.below(self.ids.len())].clone();
        let vault = self.vault().clone();
        let what = self.chance.below(13);
        let said = match what {
            0 | 1 => {
                self.copies.push(self.world.store.snapshot());
                format!("copy {}", self.copies.len())
            }
            2 => format!("{:?}", vault.change_key(KeyKind::Lookup, &me, &why).await.map(drop)),
            3 => format!("{:?}", vault.change_key(KeyKind::Tokens, &me, &why).await.map(drop)),
            4 => {
                self.enroll().await;
                String::new()
            }
            5 => format!("{:?}", vault.forget(&one, now()).await.map(drop)),
            6 => format!("{:?}", vault.forget(&one, Forget::by(&me, &why)).await.map(drop)),
            7 => format!("{:?}", vault.shred(&me, &why).await),
            8 => format!("{:?}", vault.move_subjects(std::slice::from_ref(&one), &me, &why).await),
            9 => {
                moved(&vault, &[everyone(), crowd()].concat()).await;
                self.seen.look(&self.world, &id("nobody")).await;
                for one in &self.ids {
                    vault.move_subjects(std::slice::from_ref(one), &me, &why).await.unwrap();
                    self.seen.look(&self.world, one).await;
                }
                format!("{:?}", retire(&vault).await)
            }
            10 => {
                self.world.clock.advance_days(1);
                String::new()
            }
            _ if self.copies.is_empty() => String::new(),
            _ => {
                drop(vault);
                self.recover().await
            }
        };
        self.said.push(format!("{what} {one:?} {said}"));
        self.seen.look(&self.world, &one).await;
    }

    /// A copy takes the store's place, perhaps at the second attempt.
    async fn recover(&mut self) -> String {
        let (me, why) = (tester(), test_ground());
        self.vault = None;
        let nth = self.chance.below(self.copies.len());
        let copy = self.copies[nth].snapshot();
        let mut said = format!("recover {nth}");
        if self.chance.below(2) == 0 {
            let (faults, at) = (FaultStore::new(copy.clone()), u64::try_from(self.chance.below(14)).unwrap());
            faults.fail_commit(at, CommitFault::KilledAfter);
            let keeper = || self.world.keeper.clone();
            let killed = self.world.options().recover(faults, keeper(), keeper(), &me, &why).await;
            said = format!("{said}, killed after {at}: {:?}", killed.map(drop));
            if self.chance.below(3) == 0 {
                self.copies.push(copy.snapshot());
            }
        }
        self.world.store = copy.clone();
        let recovered = self.world.recover(copy).await;
        self.vault = Some(recovered.unwrap_or_else(|why| panic!("{why:?} at {said} after {:#?}", self.said)));
        said
    }

    async fn end(self) {
        let (vault, world) = (self.vault(), &self.world);
        let mut gone = HashSet::new();
        for who in &self.ids {
            if vault.forget(who, now()).await.is_ok() {
                gone.insert(who);
            }
        }
        shred_and_settle(vault).await;
        assert_eq!(vault.moves(|_| ()).await.unwrap().faults, 0, "{:#?}", self.said);
        let there = world.rows(b"s").await;
        let hers = |row: &&Row| self.seen.owners.get(&row.0).is_some_and(|who| gone.contains(who));
        for row in self.seen.rows.iter().filter(hers).filter(|row| !there.contains(row)) {
            world.write(&row.0, Some(&row.1)).await;
            let faults = vault.moves(|_| ()).await.unwrap().faults;
            assert_eq!(faults, 1, "a row opens after {:#?}", self.said);
            world.write(&row.0, there.iter().find(|(name, _)| *name == row.0).map(|(_, row)| &row[..])).await;
        }
    }
}

#[test]
fn abuse_04_no_row_of_the_forgotten_opens_whatever_the_history() {
    let histories = std::env::var("HISTORIES").ok().and_then(|number| number.parse().ok()).unwrap_or(12);
    for seed in 1..=histories {
        block_on(async {
            let mut history = History::begin(seed).await;
            for _ in 0..28 {
                history.step().await;
            }
            history.end().await;
        });
    }
}
