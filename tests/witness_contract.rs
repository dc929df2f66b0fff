//! The witnesses that need no server keep the contract, and the contract finds each way to break it.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, reason = "a test")]

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use customer_vault::error::KeeperError;
use customer_vault::keeper::{FileKeeper, FileKeeperOptions, FileSecret, Serves, VaultId};
use customer_vault::testing::{MemoryKeeper, witness_contract, witness_contract_on_threads};
use customer_vault::witness::{Both, Line, Witness};
use pollster::block_on;

/// A folder that goes with it.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("customer-vault-witness-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Place(folder)
    }

    fn file(&self, options: &FileKeeperOptions, number: u32) -> FileKeeper {
        let path = self.0.join(number.to_string());
        let secret = || FileSecret::key([7; 32].into());
        match options.clone().create(&path, secret()) {
            Err(customer_vault::Error::Keeper(KeeperError::Exists)) => {
                options.clone().open(&path, secret()).unwrap()
            }
            made => made.unwrap(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// One for each place.
fn in_memory() -> impl Fn(u32) -> MemoryKeeper + Sync {
    let places: Mutex<HashMap<u32, MemoryKeeper>> = Mutex::default();
    move |place| places.lock().unwrap().entry(place).or_default().clone()
}

/// Says that several processes may use it, as clones of one in memory can be.
#[derive(Clone, Debug)]
struct Shared<W>(W);

impl<W: Witness> Witness for Shared<W> {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.0.bind(vault).await
    }
    async fn recall(&self, from: u64) -> Result<Vec<Line>, KeeperError> {
        self.0.recall(from).await
    }
    async fn remember(&self, lines: Vec<Line>) -> Result<(), KeeperError> {
        self.0.remember(lines).await
    }
    fn serves(&self) -> Serves {
        Serves::OneHost
    }
}

#[test]
fn the_one_in_memory_keeps_the_contract() {
    block_on(witness_contract(in_memory()));
    let open = in_memory();
    block_on(witness_contract(|place| Shared(open(place))));
    let open = in_memory();
    witness_contract_on_threads(&open, |task| block_on(task));
}

#[test]
fn the_file_keeps_the_contract() {
    for options in [FileKeeperOptions::new(), FileKeeperOptions::new().shared()] {
        let place = Place::new();
        block_on(witness_contract(|number| place.file(&options, number)));
    }
    let (place, shared) = (Place::new(), FileKeeperOptions::new().shared());
    let made = Mutex::new(());
    witness_contract_on_threads(
        |number| {
            let _one_at_a_time = made.lock().unwrap();
            place.file(&shared, number)
        },
        |task| block_on(task),
    );
}

#[test]
fn two_at_once_keep_the_contract() {
    let (one, two) = (in_memory(), in_memory());
    block_on(witness_contract(|place| Both::new(one(place), two(place))));
}

/// Ways in which a witness breaks its promises.
#[derive(Clone, Copy, Debug)]
enum Breach {
    ServesAnybody,
    RefusesToBindAgain,
    TakesGaps,
    TakesOtherBytes,
    KeepsHalfOfWhatItRefuses,
    RefusesWhatIsThere,
    TakesLongLines,
    RecallsFromTheStart,
    ForgetsTheOldest,
    LosesWhatAnotherWrote,
    MixesHistories,
}

/// A list of lines that does as it likes.
#[derive(Clone, Debug)]
struct Broken {
    breach: Breach,
    kept: Arc<Mutex<(Option<VaultId>, Vec<Line>)>>,
    own: Arc<Mutex<Vec<Line>>>,
}

impl Broken {
    fn is(&self, breach: Breach) -> bool {
        std::mem::discriminant(&self.breach) == std::mem::discriminant(&breach)
    }
}

impl Witness for Broken {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        let bound = &mut self.kept.lock().unwrap().0;
        if self.is(Breach::RefusesToBindAgain) && bound.is_some() {
            return Err(KeeperError::Exists);
        }
        let same = *bound.get_or_insert(vault) == vault;
        if same || self.is(Breach::ServesAnybody) { Ok(()) } else { Err(KeeperError::Foreign) }
    }

    async fn recall(&self, from: u64) -> Result<Vec<Line>, KeeperError> {
        let from = if self.is(Breach::RecallsFromTheStart) { 1 } else { from };
        let mut all = self.kept.lock().unwrap().1.clone();
        if self.is(Breach::ForgetsTheOldest) && all.len() > 2000 {
            all.remove(0);
        }
        Ok(all.into_iter().filter(|line| line.number >= from).collect())
    }

    async fn remember(&self, lines: Vec<Line>) -> Result<(), KeeperError> {
        let mut there = self.kept.lock().unwrap().1.clone();
        if self.is(Breach::LosesWhatAnotherWrote) && !self.own.lock().unwrap().is_empty() {
            there.clone_from(&self.own.lock().unwrap());
        }
        let mut said = Ok(());
        for line in lines {
            let next = u64::try_from(there.len()).unwrap() + 1;
            let known =
                usize::try_from(line.number.saturating_sub(1)).ok().and_then(|at| there.get(at).cloned());
            let gap = line.number == 0 || line.number > next;
            let fault = if gap && !self.is(Breach::TakesGaps)
                || line.bytes.len() > 4096 && !self.is(Breach::TakesLongLines)
            {
                Some(KeeperError::Damaged)
            } else if known.is_some() && self.is(Breach::RefusesWhatIsThere) {
                Some(KeeperError::Exists)
            } else if known.as_ref().is_some_and(|known| *known != line)
                && !self.is(Breach::TakesOtherBytes)
                && !(self.is(Breach::MixesHistories) && line.bytes.len() == 1)
            {
                Some(KeeperError::Foreign)
            } else {
                None
            };
            if let Some(fault) = fault {
                said = Err(fault);
                break;
            }
            if known.is_none() {
                there.push(line);
            }
        }
        if said.is_ok() || self.is(Breach::KeepsHalfOfWhatItRefuses) {
            self.own.lock().unwrap().clone_from(&there);
            self.kept.lock().unwrap().1 = there;
        }
        said
    }

    fn serves(&self) -> Serves {
        Serves::OneHost
    }
}

#[test]
fn the_contract_finds_each_breach() {
    let all = [
        Breach::ServesAnybody,
        Breach::RefusesToBindAgain,
        Breach::TakesGaps,
        Breach::TakesOtherBytes,
        Breach::KeepsHalfOfWhatItRefuses,
        Breach::RefusesWhatIsThere,
        Breach::TakesLongLines,
        Breach::RecallsFromTheStart,
        Breach::ForgetsTheOldest,
        Breach::LosesWhatAnotherWrote,
        Breach::MixesHistories,
    ];
    for breach in all {
        let mut places: HashMap<u32, Broken> = HashMap::new();
        let open = |place| {
            let kept = places.entry(place).or_insert_with(|| Broken {
                breach,
                kept: Arc::default(),
                own: Arc::default(),
            });
            Broken { own: Arc::default(), ..kept.clone() }
        };
        let found = catch_unwind(AssertUnwindSafe(|| block_on(witness_contract(open))));
        assert!(found.is_err(), "{breach:?} is not found");
    }
}
