//! Any number of changes, some at a time: so that memory and the entries of the log are bounded, and whoever writes at the
//! same time is not kept from it.

use std::collections::HashSet;
use std::hash::Hash;

use crate::error::{Error, Result};
use crate::tree::ATTEMPTS;

/// How many subjects, or records, one read and one commit take at most.
pub(crate) const CHUNK: usize = 1000;

/// No further item joins a chunk of this many bytes.
const CHUNK_BYTES: usize = 4 << 20;

/// What can be changed together with others.
pub(crate) trait Item {
    /// Two of the same name are changed one after the other.
    type Name: Eq + Hash;

    fn name(&self) -> Self::Name;

    /// Its bytes, as far as they are many.
    fn bytes(&self) -> usize {
        0
    }
}

/// Items on their way, with what became of those before. What was refused beforehand is an `Err`.
#[derive(Debug)]
pub(crate) struct Parts<I, T> {
    items: I,
    /// Those of this chunk, with their places among the results.
    chunk: Vec<T>,
    places: Vec<usize>,
    /// How many of the chunk are done.
    done: usize,
    /// How many are tried at a time: half of them where a race was lost, until they pass.
    size: usize,
    lost: usize,
    results: Vec<Result<()>>,
}

impl<I: Iterator<Item = Result<T>>, T: Item> Parts<I, T> {
    pub(crate) fn of(items: I) -> Self {
        let (chunk, places, results) = (Vec::new(), Vec::new(), Vec::new());
        Parts { items, chunk, places, done: 0, size: CHUNK, lost: 0, results }
    }

    /// The next ones to try.
    pub(crate) fn next(&mut self) -> Option<&[T]> {
        if self.done == self.chunk.len() {
            self.refill();
        }
        let left = self.chunk.get(self.done..).unwrap_or_default();
        let mut seen = HashSet::new();
        let part = left.iter().take(self.size).take_while(|item| seen.insert(item.name())).count();
        left.get(..part).filter(|part| !part.is_empty())
    }

    fn refill(&mut self) {
        self.chunk.clear();
        self.places.clear();
        self.done = 0;
        let mut bytes = 0_usize;
        while self.chunk.len() < CHUNK && bytes < CHUNK_BYTES {
            let Some(item) = self.items.next() else { return };
            self.results.push(match item {
                Err(why) => Err(why),
                Ok(item) => {
                    bytes = bytes.saturating_add(item.bytes());
                    self.places.push(self.results.len());
                    self.chunk.push(item);
                    // Until it is known.
                    Err(Error::Busy)
                }
            });
        }
    }

    /// What became of the part that [`next`](Self::next) gave: `None` where it lost a race, and is tried again. An error
    /// is everyone's from there on.
    pub(crate) fn came_to<O>(&mut self, outcome: Result<Option<Vec<Result<O>>>>) {
        match outcome {
            Ok(Some(outcomes)) => {
                let places = self.places.get(self.done..).unwrap_or_default();
                self.done = self.done.saturating_add(outcomes.len());
                for (place, outcome) in places.iter().zip(outcomes) {
                    if let Some(result) = self.results.get_mut(*place) {
                        *result = outcome.map(drop);
                    }
                }
                (self.size, self.lost) = (self.size.saturating_mul(2).min(CHUNK), 0);
            }
            Ok(None) => {
                (self.size, self.lost) = (self.size.div_ceil(2), self.lost.saturating_add(1));
                if self.lost >= ATTEMPTS {
                    self.fail(Error::Busy);
                }
            }
            Err(why) => self.fail(why),
        }
    }

    fn fail(&mut self, why: Error) {
        for place in self.places.drain(..).skip(self.done) {
            if let Some(result) = self.results.get_mut(place) {
                *result = Err(why);
            }
        }
        self.results.extend(self.items.by_ref().map(|_| Err(why)));
        self.chunk.clear();
        self.done = 0;
    }

    /// In the order of the items.
    pub(crate) fn results(self) -> Vec<Result<()>> {
        self.results
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, CHUNK_BYTES, Item, Parts};
    use crate::error::{Error, Misuse, Result, StoreError};
    use crate::tree::ATTEMPTS;

    struct Number(usize, usize);

    impl Item for Number {
        type Name = usize;

        fn name(&self) -> usize {
            self.0
        }

        fn bytes(&self) -> usize {
            self.1
        }
    }

    fn parts(
        numbers: impl IntoIterator<Item = usize>,
    ) -> Parts<impl Iterator<Item = Result<Number>>, Number> {
        Parts::of(numbers.into_iter().map(|number| Ok(Number(number, 0))))
    }

    fn pass<I: Iterator<Item = Result<Number>>>(parts: &mut Parts<I, Number>) -> Option<usize> {
        let done: Vec<Result<()>> = parts.next()?.iter().map(|_| Ok(())).collect();
        let len = done.len();
        parts.came_to(Ok(Some(done)));
        Some(len)
    }

    #[test]
    fn a_part_is_bounded_by_number_by_bytes_and_by_a_second_one_of_the_same_name() {
        let mut many = parts(0..=CHUNK);
        assert_eq!([pass(&mut many), pass(&mut many), pass(&mut many)], [Some(CHUNK), Some(1), None]);
        assert_eq!(many.results().len(), CHUNK + 1);

        let mut large = Parts::of((0..3).map(|number| Ok(Number(number, CHUNK_BYTES / 2))));
        assert_eq!([pass(&mut large), pass(&mut large), pass(&mut large)], [Some(2), Some(1), None]);

        let mut twice = parts([1, 2, 1, 1]);
        assert_eq!([0; 4].map(|_| pass(&mut twice)), [Some(2), Some(1), Some(1), None]);
    }

    #[test]
    fn what_lost_a_race_is_tried_in_halves_and_given_up_in_the_end() {
        let mut many = parts(0..CHUNK);
        let mut tried = Vec::new();
        while let Some(part) = many.next() {
            tried.push(part.len());
            many.came_to::<()>(Ok(None));
        }
        assert_eq!((tried.len(), &tried[..4]), (ATTEMPTS, &[1000, 500, 250, 125][..]));
        assert_eq!(tried.last(), Some(&1));
        assert_eq!(many.results(), vec![Err(Error::Busy); CHUNK]);

        let mut many = parts(0..CHUNK);
        many.next();
        many.came_to::<()>(Ok(None));
        assert_eq!([pass(&mut many), pass(&mut many), pass(&mut many)], [Some(500), Some(500), None]);
        assert_eq!(many.results(), vec![Ok(()); CHUNK]);
    }

    #[test]
    fn results_stand_at_their_places_and_a_failure_is_everyones_from_there_on() {
        let why = Error::from(Misuse::NotConsent);
        let items = [Err(why), Ok(Number(1, 0)), Err(why), Ok(Number(2, 0)), Ok(Number(1, 0)), Err(why)];
        let mut parts = Parts::of(items.into_iter());
        assert_eq!(parts.next().map(<[Number]>::len), Some(2));
        parts.came_to(Ok(Some(vec![Ok(()), Err(Error::NotEnrolled)])));
        assert_eq!(parts.next().map(<[Number]>::len), Some(1));
        parts.came_to::<()>(Err(StoreError::Full.into()));
        assert!(parts.next().is_none());
        let (full, unknown) = (StoreError::Full.into(), Error::NotEnrolled);
        let results = [Err(why), Ok(()), Err(why), Err(unknown), Err(full), Err(why)];
        assert_eq!(parts.results(), results);
    }
}
