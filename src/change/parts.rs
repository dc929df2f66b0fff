//! Any number of changes, some at a time: so that memory and the entries of the log are bounded, and whoever writes at the
//! same time is not kept from it.

use std::collections::HashSet;
use std::future::poll_fn;
use std::hash::Hash;
use std::pin::pin;
use std::task::Poll;

use crate::error::{Error, Result};
use crate::key::Tag;
use crate::tree::ATTEMPTS;

/// How many subjects, or records, one read and one commit take at most.
pub(crate) const CHUNK: usize = 1000;

/// So many items are taken at a time: halves of them are seldom more than a chunk.
const TAKEN: usize = 1900;

/// No further item joins a chunk of this many bytes.
const CHUNK_BYTES: usize = 4 << 20;

/// Tags are as good as random: as many lie below it as above.
const MIDDLE: Tag = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What can be changed together with others.
pub(crate) trait Item {
    /// Two of the same name are changed one after the other.
    type Name: Eq + Hash;

    fn name(&self) -> Self::Name;

    /// Where its subject lies, or is to lie: what has one name has one subject.
    fn place(&self) -> Tag;

    /// Its bytes, as far as they are many.
    fn bytes(&self) -> usize {
        0
    }
}

/// What is done with items.
pub(crate) trait Work: Sync {
    type Item: Item + Send + Sync;
    type Out: Send;

    /// Whether what is done with an item is done where it lies, or is to lie, alone: then two halves are apart.
    fn stays_in_place(&self) -> bool {
        true
    }

    /// The item of a place; an `Err` where it is refused beforehand.
    fn item(&self, place: usize) -> Result<Self::Item>;

    /// Does up to a chunk of different names, and says what became of each; `None` where it lost a race.
    fn part(
        &self,
        part: &[Self::Item],
    ) -> impl Future<Output = Result<Option<Vec<Result<Self::Out>>>>> + Send;
}

/// Does the items of so many places, and gives what became of each. After an error nothing more is begun, and what was not
/// done has that error.
///
/// More than a chunk is done in two halves at once: one is decided while the other is made durable. They are divided at
/// the middle of the tree, so that neither is in the other's way; what reaches across it is done one after the other.
pub(crate) async fn in_parts<W: Work>(count: usize, work: &W) -> Vec<Result<()>> {
    let mut results = Vec::with_capacity(count);
    while results.len() < count {
        let taken = take(count, work, &mut results);
        let bytes = taken.iter().fold(0_usize, |sum, (_, item)| sum.saturating_add(item.bytes()));
        let few = !work.stays_in_place() || taken.len() <= CHUNK && bytes <= CHUNK_BYTES;
        let (one, two) = taken.into_iter().partition(|(_, item)| few || item.place() < MIDDLE);
        let (mut one, mut two) = (Parts::of(one), Parts::of(two));
        both(one.through(work), two.through(work)).await;
        for (place, result) in one.results().chain(two.results()) {
            if let Some(there) = results.get_mut(place) {
                *there = result;
            }
        }
        if let Some(why) = one.failed.or(two.failed) {
            results.resize(count, Err(why));
        }
    }
    results
}

/// What comes next, with its places.
fn take<W: Work>(count: usize, work: &W, results: &mut Vec<Result<()>>) -> Vec<(usize, W::Item)> {
    let (mut taken, mut bytes) = (Vec::new(), 0_usize);
    while results.len() < count && taken.len() < TAKEN && bytes < CHUNK_BYTES.saturating_mul(2) {
        let place = results.len();
        results.push(match work.item(place) {
            Err(why) => Err(why),
            Ok(item) => {
                bytes = bytes.saturating_add(item.bytes());
                taken.push((place, item));
                // Until it is known.
                Err(Error::Busy)
            }
        });
    }
    taken
}

/// Polls two futures until both are ready.
pub(crate) async fn both<A, B>(one: impl Future<Output = A>, two: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut two) = (pin!(one), pin!(two));
    let (mut first, mut second) = (None, None);
    poll_fn(move |context| {
        if first.is_none()
            && let Poll::Ready(ready) = one.as_mut().poll(context)
        {
            first = Some(ready);
        }
        if second.is_none()
            && let Poll::Ready(ready) = two.as_mut().poll(context)
        {
            second = Some(ready);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            undone => {
                (first, second) = undone;
                Poll::Pending
            }
        }
    })
    .await
}

/// Items that are done one part after the other.
#[derive(Debug)]
struct Parts<T> {
    places: Vec<usize>,
    items: Vec<T>,
    /// As far as they are known.
    results: Vec<Result<()>>,
    /// How many are tried at a time: half of them where a race was lost, until they pass.
    size: usize,
    lost: usize,
    /// What keeps the rest from being tried.
    failed: Option<Error>,
}

impl<T: Item> Parts<T> {
    fn of(items: Vec<(usize, T)>) -> Self {
        let (places, items) = items.into_iter().unzip();
        Parts { places, items, results: Vec::new(), size: CHUNK, lost: 0, failed: None }
    }

    async fn through(&mut self, work: &impl Work<Item = T>) {
        while let Some(part) = self.next() {
            let outcome = work.part(part).await;
            self.came_to(outcome);
        }
    }

    /// The next ones to try.
    fn next(&self) -> Option<&[T]> {
        if self.failed.is_some() {
            return None;
        }
        let left = self.items.get(self.results.len()..).unwrap_or_default();
        let (mut seen, mut bytes) = (HashSet::new(), 0_usize);
        let fits = |item: &&T| {
            let fits = bytes < CHUNK_BYTES && seen.insert(item.name());
            bytes = bytes.saturating_add(item.bytes());
            fits
        };
        let part = left.iter().take(self.size).take_while(fits).count();
        left.get(..part).filter(|part| !part.is_empty())
    }

    /// What became of the part that [`next`](Self::next) gave: `None` where it lost a race, and is tried again.
    fn came_to<O>(&mut self, outcome: Result<Option<Vec<Result<O>>>>) {
        match outcome {
            Ok(Some(outcomes)) => {
                self.results.extend(outcomes.into_iter().map(|outcome| outcome.map(drop)));
                (self.size, self.lost) = (self.size.saturating_mul(2).min(CHUNK), 0);
            }
            Ok(None) => {
                (self.size, self.lost) = (self.size.div_ceil(2), self.lost.saturating_add(1));
                if self.lost >= ATTEMPTS {
                    self.failed = Some(Error::Busy);
                }
            }
            Err(why) => self.failed = Some(why),
        }
    }

    /// With their places. What is not known has failed.
    fn results(&self) -> impl Iterator<Item = (usize, Result<()>)> {
        let left = Err(self.failed.unwrap_or(Error::Busy));
        self.places.iter().copied().zip(self.results.iter().copied().chain(std::iter::repeat(left)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use pollster::block_on;

    use super::{CHUNK, CHUNK_BYTES, Item, TAKEN, Work, in_parts};
    use crate::error::{Error, Misuse, Result, StoreError};
    use crate::key::Tag;
    use crate::tree::ATTEMPTS;

    struct Number(u16, usize);

    impl Item for Number {
        type Name = u16;

        fn name(&self) -> u16 {
            self.0
        }

        fn place(&self) -> Tag {
            let mut tag = [0; 16];
            tag[..2].copy_from_slice(&self.0.to_be_bytes());
            tag
        }

        fn bytes(&self) -> usize {
            self.1
        }
    }

    /// Numbers, what becomes of a part by how many were begun before it, and what the parts were.
    struct Numbers<F> {
        items: Vec<Result<(u16, usize)>>,
        outcome: F,
        parts: Mutex<Vec<Vec<u16>>>,
    }

    impl<F: Fn(usize, &[Number]) -> Result<Option<()>> + Sync> Work for Numbers<F> {
        type Item = Number;
        type Out = ();

        fn item(&self, place: usize) -> Result<Number> {
            self.items[place].map(|(number, bytes)| Number(number, bytes))
        }

        async fn part(&self, part: &[Number]) -> Result<Option<Vec<Result<()>>>> {
            let begun = {
                let mut parts = self.parts.lock().unwrap();
                let begun = parts.len();
                parts.push(part.iter().map(|number| number.0).collect());
                begun
            };
            Ok((self.outcome)(begun, part)?.map(|()| vec![Ok(()); part.len()]))
        }
    }

    fn numbers(numbers: impl IntoIterator<Item = u16>) -> Vec<Result<(u16, usize)>> {
        numbers.into_iter().map(|number| Ok((number, 0))).collect()
    }

    /// What the parts were, and the results.
    fn done(
        items: Vec<Result<(u16, usize)>>,
        outcome: impl Fn(usize, &[Number]) -> Result<Option<()>> + Sync,
    ) -> (Vec<Vec<u16>>, Vec<Result<()>>) {
        let work = Numbers { items, outcome, parts: Mutex::default() };
        let results = block_on(in_parts(work.items.len(), &work));
        (work.parts.into_inner().unwrap(), results)
    }

    fn sizes(items: Vec<Result<(u16, usize)>>) -> Vec<usize> {
        let (parts, results) = done(items, |_, _| Ok(Some(())));
        assert!(results.iter().all(Result::is_ok));
        parts.iter().map(Vec::len).collect()
    }

    #[test]
    fn a_part_is_bounded_by_number_by_bytes_and_by_a_second_one_of_the_same_name() {
        let half = u16::try_from(CHUNK / 2).unwrap();
        let spread = |half: u16| (0..half).flat_map(|number| [number, number | 0x8000]);
        assert_eq!(sizes(numbers(spread(half))), [CHUNK]);
        assert_eq!(sizes(numbers(spread(half + 1))), [CHUNK / 2 + 1; 2]);
        assert_eq!(sizes(numbers(spread(2 * half))), [TAKEN / 2, TAKEN / 2, 2 * CHUNK - TAKEN]);
        assert_eq!(sizes(numbers(0..3 * half)), [CHUNK, CHUNK / 2]);
        assert_eq!(sizes(numbers([1, 2, 1, 1])), [2, 1, 1]);
        let large =
            |parts: &[u16]| sizes(parts.iter().map(|number| Ok((*number, CHUNK_BYTES / 2))).collect());
        assert_eq!(large(&[0, 0x8000]), [2]);
        assert_eq!(large(&[0, 0x8000, 1]), [2, 1]);
        assert_eq!(large(&[0, 1, 2, 3, 4]), [2, 2, 1]);
    }

    #[test]
    fn halves_share_no_subject_and_keep_the_order_of_one() {
        let mixed = (0..1500_u16).map(|n| n.wrapping_mul(40_503)).chain([0; 2]);
        let (parts, results) = done(numbers(mixed), |_, _| Ok(Some(())));
        assert_eq!(results.len(), 1502);
        for part in &parts {
            let lower = part.iter().filter(|number| **number < 0x8000).count();
            assert!(lower == 0 || lower == part.len());
        }
        assert_eq!(parts.iter().filter(|part| part.contains(&0)).count(), 3);
    }

    #[test]
    fn what_lost_a_race_is_tried_in_halves_and_given_up_in_the_end() {
        let chunk = u16::try_from(CHUNK).unwrap();
        let (parts, results) = done(numbers(0..chunk), |_, _| Ok(None));
        let tried: Vec<usize> = parts.iter().map(Vec::len).collect();
        assert_eq!((tried.len(), &tried[..4]), (ATTEMPTS, &[1000, 500, 250, 125][..]));
        assert_eq!(tried.last(), Some(&1));
        assert_eq!(results, vec![Err(Error::Busy); CHUNK]);

        let (parts, results) = done(numbers(0..chunk), |begun, _| Ok((begun > 0).then_some(())));
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 500, 500]);
        assert_eq!(results, vec![Ok(()); CHUNK]);
    }

    #[test]
    fn results_stand_at_their_places_and_after_a_failure_nothing_is_begun() {
        let why = Error::from(Misuse::NotConsent);
        let items = vec![Err(why), Ok((1, 0)), Err(why), Ok((2, 0)), Ok((1, 0)), Err(why)];
        let full = Error::from(StoreError::Full);
        let (parts, results) = done(items, |begun, _| if begun == 1 { Err(full) } else { Ok(Some(())) });
        assert_eq!(parts, [vec![1, 2], vec![1]]);
        assert_eq!(results, [Err(why), Ok(()), Err(why), Ok(()), Err(full), Err(why)]);

        // Of two halves the other one is done; what comes after both is not begun.
        let many = (0..1500_u16).flat_map(|number| [number, number | 0x8000]);
        let failing = |_, part: &[Number]| if part[0].0 < 0x8000 { Err(full) } else { Ok(Some(())) };
        let (parts, results) = done(numbers(many), failing);
        assert_eq!(parts.len(), 2);
        for (place, result) in results.into_iter().enumerate() {
            let other = place % 2 == 1 && place < TAKEN;
            assert_eq!(result, if other { Ok(()) } else { Err(full) }, "{place}");
        }
    }
}
