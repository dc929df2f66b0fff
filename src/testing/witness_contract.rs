//! What [`Witness`] promises, as tests that run against any witness.

use super::Task;
use super::faults::yield_now;
use super::store_contract::{fail, together};
use crate::error::KeeperError;
use crate::keeper::{Serves, VaultId};
use crate::witness::{Line, MAX_LINE, Witness};

const VAULT: VaultId = VaultId([1; 16]);
const ANOTHER: VaultId = VaultId([2; 16]);

/// Tries each promise of [`Witness`]. `open` opens the witness at the place of a number, from 0 on: a new and empty one for
/// a number that it was not called with before, a further handle of the same for one that it was. Unless the witness says
/// that it [serves](Witness::serves) one process, handles of one place are used at once; else each is dropped before the
/// next. It needs no runtime but the one that polls it; [`witness_contract_on_threads`] is the part with threads.
///
/// # Panics
///
/// Where a promise is broken, and says which.
pub async fn witness_contract<W: Witness>(mut open: impl FnMut(u32) -> W) {
    it_serves_one_vault(&mut open, 0).await;
    gaps_and_other_histories_are_refused_whole(&mut open, 1).await;
    what_is_there_is_passed_over(&mut open, 2).await;
    lines_have_a_bound(&mut open, 3).await;
    many_lines_are_recalled_from_anywhere(&mut open, 4).await;
    long_lines_are_recalled(&mut open, 5).await;
    if open(6).serves() != Serves::OneProcess {
        several_handles_lose_nothing(&mut open, 7).await;
        two_histories_never_mix(&mut open, 8).await;
        two_vaults_never_share(&mut open, 9).await;
    }
}

/// The part of [`witness_contract`] for witnesses that several processes use: 5 threads append to one journal, and two
/// histories and two vaults meet in one place. `open` is as there, and opens at least two handles of each place at once.
/// `run` runs one future to its end on the thread that it is called on.
///
/// # Panics
///
/// Where a line is lost, or two histories are mixed.
pub fn witness_contract_on_threads<W: Witness>(
    open: impl Fn(u32) -> W + Sync,
    run: impl Fn(Task<'_>) + Sync,
) {
    let (open, run) = (&open, &run);
    std::thread::scope(|threads| {
        for pace in PACES {
            threads.spawn(move || {
                let witness = open(0);
                run(Box::pin(async move {
                    bind(&witness).await;
                    append(&witness, pace).await;
                }));
            });
        }
    });
    for round in 1..=4 {
        let outcomes = std::thread::scope(|threads| {
            let tell = |who: u8| {
                let witness = open(round);
                let mut outcome = Ok(());
                run(Box::pin(async {
                    bind(&witness).await;
                    outcome = history(&witness, who, round).await;
                }));
                outcome
            };
            let both = [1, 2].map(|who| threads.spawn(move || tell(who)));
            both.map(|one| one.join().unwrap_or_else(|_| fail("a history", "its thread")))
        });
        let witness = open(round);
        run(Box::pin(async move { of_one_history(&witness, outcomes).await }));
        let outcomes = std::thread::scope(|threads| {
            let bind = |vault| {
                let witness = open(round.saturating_add(100));
                let mut outcome = Ok(());
                run(Box::pin(async { outcome = witness.bind(vault).await }));
                outcome
            };
            let both = [VAULT, ANOTHER].map(|vault| threads.spawn(move || bind(vault)));
            both.map(|one| one.join().unwrap_or_else(|_| fail("binding", "its thread")))
        });
        one_of_two(outcomes, "of two vaults that bind one place at once");
    }
    let witness = open(0);
    run(Box::pin(async move {
        bind(&witness).await;
        assert!(recalled(&witness, 1).await == lines(1, LAST), "every line is there once, in order");
    }));
}

async fn it_serves_one_vault<W: Witness>(open: &mut impl FnMut(u32) -> W, place: u32) {
    let witness = open(place);
    bind(&witness).await;
    bind(&witness).await;
    assert!(
        witness.bind(ANOTHER).await == Err(KeeperError::Foreign),
        "bound to one vault it refuses another"
    );
    assert!(recalled(&witness, 1).await.is_empty(), "a new one remembers nothing");
    remember(&witness, lines(1, 2)).await;
    drop(witness);
    let again = open(place);
    assert!(
        again.bind(ANOTHER).await == Err(KeeperError::Foreign),
        "a further handle refuses another vault too"
    );
    bind(&again).await;
    assert!(recalled(&again, 1).await == lines(1, 2), "a further handle recalls what was remembered");
}

async fn gaps_and_other_histories_are_refused_whole<W: Witness>(open: &mut impl FnMut(u32) -> W, place: u32) {
    let witness = open(place);
    bind(&witness).await;
    let refused = async |lines: Vec<Line>, why: KeeperError, what: &str| {
        let said = witness.remember(lines).await;
        assert!(said == Err(why), "{what} is refused as {why:?}: {said:?}");
    };
    for gap in [lines(2, 2), lines(0, 1), vec![line(1), line(3)], lines(u64::MAX, u64::MAX)] {
        refused(gap, KeeperError::Damaged, "a gap").await;
    }
    assert!(recalled(&witness, 1).await.is_empty(), "what was refused is not there");
    remember(&witness, lines(1, 3)).await;
    for other in [vec![other(3), line(4)], vec![other(1), line(2)], vec![line(4), other(4)]] {
        refused(other, KeeperError::Foreign, "a number that is there with other bytes").await;
    }
    refused(lines(5, 6), KeeperError::Damaged, "a gap").await;
    refused(vec![line(4), line(6)], KeeperError::Damaged, "a gap after a good line").await;
    assert!(recalled(&witness, 1).await == lines(1, 3), "nothing of what was refused is there");
}

async fn what_is_there_is_passed_over<W: Witness>(open: &mut impl FnMut(u32) -> W, place: u32) {
    let witness = open(place);
    bind(&witness).await;
    remember(&witness, lines(1, 3)).await;
    remember(&witness, lines(1, 3)).await;
    remember(&witness, vec![line(2), line(3), line(4), line(4)]).await;
    remember(&witness, vec![line(2), line(5)]).await;
    remember(&witness, Vec::new()).await;
    assert!(
        recalled(&witness, 1).await == lines(1, 5),
        "numbers that are there are passed over, new ones kept"
    );
    assert!(recalled(&witness, 0).await == lines(1, 5), "from 0 is from the first");
    assert!(recalled(&witness, 4).await == lines(4, 5), "lines from a number on");
    for beyond in [6, u64::MAX] {
        assert!(recalled(&witness, beyond).await.is_empty(), "beyond the last there is nothing");
    }
}

async fn lines_have_a_bound<W: Witness>(open: &mut impl FnMut(u32) -> W, place: u32) {
    let witness = open(place);
    bind(&witness).await;
    let long = |bytes| vec![Line { number: 1, bytes: vec![7; bytes] }];
    let said = witness.remember(long(MAX_LINE.saturating_add(1))).await;
    assert!(said == Err(KeeperError::Damaged), "a line beyond 4 KiB is refused: {said:?}");
    remember(&witness, long(MAX_LINE)).await;
    remember(&witness, vec![Line { number: 2, bytes: Vec::new() }]).await;
    let there = recalled(&witness, 1).await;
    assert!(
        there.len() == 2 && there.starts_with(&long(MAX_LINE)),
        "a line of 4 KiB and an empty one are kept"
    );
}

async fn many_lines_are_recalled_from_anywhere<W: Witness>(open: &mut impl FnMut(u32) -> W, place: u32) {
    let mut witness = open(place);
    bind(&witness).await;
    for last in [255, 256, 257, 2048, 2049] {
        remember(&witness, lines(1, last)).await;
        assert!(recalled(&witness, 1).await == lines(1, last), "{last} lines come back");
        drop(witness);
        witness = open(place);
        bind(&witness).await;
        for from in [2, 200, last] {
            let there = recalled(&witness, from).await;
            assert!(there == lines(from, last), "a further handle recalls from {from} to {last}");
        }
    }
}

async fn long_lines_are_recalled<W: Witness>(open: &mut impl FnMut(u32) -> W, place: u32) {
    let witness = open(place);
    bind(&witness).await;
    let long = |number: u64| Line { number, bytes: number.to_be_bytes().repeat(MAX_LINE / 8) };
    let all: Vec<Line> = (1..=100).map(long).collect();
    for part in all.chunks(7) {
        remember(&witness, part.to_vec()).await;
    }
    assert!(recalled(&witness, 1).await == all, "a hundred lines of 4 KiB come back");
}

async fn several_handles_lose_nothing<W: Witness>(open: &mut impl FnMut(u32) -> W, place: u32) {
    let handles: Vec<W> = PACES.iter().map(|_| open(place)).collect();
    for witness in &handles {
        bind(witness).await;
    }
    together(handles.iter().zip(PACES).map(|(witness, pace)| append(witness, pace)).collect()).await;
    for witness in &handles {
        assert!(
            recalled(witness, 1).await == lines(1, LAST),
            "every handle recalls every line once, in order"
        );
    }
}

async fn two_histories_never_mix<W: Witness>(open: &mut impl FnMut(u32) -> W, place: u32) {
    let handles = [open(place), open(place)];
    for witness in &handles {
        bind(witness).await;
    }
    let [one, two] = &handles;
    let outcomes = together(vec![history(one, 1, 0), history(two, 2, 0)]).await;
    let outcomes = outcomes.try_into().unwrap_or_else(|_| fail("two histories", "two outcomes"));
    of_one_history(&open(place), outcomes).await;
}

async fn two_vaults_never_share<W: Witness>(open: &mut impl FnMut(u32) -> W, place: u32) {
    let (one, two) = (open(place), open(place));
    let outcomes = together(vec![one.bind(VAULT), two.bind(VAULT)]).await;
    assert!(outcomes == [Ok(()), Ok(())], "two handles bind one place to one vault at once");
    assert!(two.bind(ANOTHER).await == Err(KeeperError::Foreign), "what one handle bound the other refuses");
}

/// How many lines the handles of one journal take each time.
const PACES: [u64; 5] = [1, 7, 10, 29, 64];
const LAST: u64 = 200;

/// Adds lines as a process does that goes on from what it knows, until all are there.
async fn append<W: Witness>(witness: &W, pace: u64) {
    let mut known = 0_u64;
    while known < LAST {
        let next = known.saturating_add(pace).min(LAST);
        remember(witness, lines(known.max(1), next)).await;
        // So that others go between, in one task too.
        yield_now().await;
        let there = recalled(witness, 1).await;
        let count = u64::try_from(there.len()).unwrap_or(0);
        assert!(count >= next, "what was acknowledged is there");
        assert!(there == lines(1, count), "lines are in their order, without gaps");
        // What others have added is theirs; some do it again all the same.
        known = if pace.is_multiple_of(2) || pace == 1 { count } else { next };
    }
}

/// Forty lines that are `who`'s own, in parts.
async fn history<W: Witness>(witness: &W, who: u8, round: u32) -> Result<(), KeeperError> {
    let own: Vec<Line> = (1..=40).map(|number| Line { number, bytes: vec![who] }).collect();
    let part = usize::try_from(round.saturating_mul(5).saturating_add(1)).unwrap_or(1);
    for part in own.chunks(part) {
        witness.remember(part.to_vec()).await?;
        yield_now().await;
    }
    Ok(())
}

async fn of_one_history<W: Witness>(witness: &W, outcomes: [Result<(), KeeperError>; 2]) {
    one_of_two(outcomes, "of two histories in one place");
    bind(witness).await;
    let there = recalled(witness, 1).await;
    let one = there.first().map(|first| there.iter().all(|line| line.bytes == first.bytes));
    assert!(there.len() == 40 && one == Some(true), "lines of two histories never mix");
}

fn one_of_two(outcomes: [Result<(), KeeperError>; 2], what: &str) {
    let right = outcomes.contains(&Ok(())) && outcomes.contains(&Err(KeeperError::Foreign));
    assert!(right, "{what} one is taken and one is Foreign: {outcomes:?}");
}

fn line(number: u64) -> Line {
    Line { number, bytes: format!("line {number}").into_bytes() }
}

fn other(number: u64) -> Line {
    Line { number, bytes: b"another".to_vec() }
}

fn lines(first: u64, last: u64) -> Vec<Line> {
    (first..=last).map(line).collect()
}

async fn bind<W: Witness>(witness: &W) {
    if let Err(error) = witness.bind(VAULT).await {
        fail("binding to one vault, again and again", error);
    }
}

async fn remember<W: Witness>(witness: &W, lines: Vec<Line>) {
    if let Err(error) = witness.remember(lines).await {
        fail("remembering lines that follow", error);
    }
}

async fn recalled<W: Witness>(witness: &W, from: u64) -> Vec<Line> {
    witness.recall(from).await.unwrap_or_else(|error| fail("recalling", error))
}
