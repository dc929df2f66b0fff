//! What is kept, for how long, and that nothing of it is left in memory.
#![allow(clippy::arithmetic_side_effects, reason = "a test")]

use std::hint::black_box;
use std::time::Duration;

use zeroize::{Zeroize as _, Zeroizing};

use super::{FEW, Read, Remembered, SHARDS};
use crate::clock::Day;
use crate::entry::{Generation, Meta};
use crate::grant::Now;
use crate::journal::{Event, Fence, State};
use crate::key::{Purpose, Secret, Tag};

const AGE: Duration = Duration::from_secs(60);

fn tag(number: usize) -> Tag {
    u128::try_from(number).unwrap().to_be_bytes()
}

fn at(seconds: u64) -> Now {
    Now { wall: i64::try_from(seconds * 1000).unwrap(), monotonic: Duration::from_secs(seconds) }
}

/// What the keys of one test have in them. By itself it must not lie in this process.
const MASKED: [u8; 31] = *b"no such bytes lie in any memory";
const MASK: u8 = 0xA7;

fn secret(first: u8) -> Secret<Purpose> {
    let mut bytes = Zeroizing::new([first; 32]);
    for (to, masked) in bytes.iter_mut().skip(1).zip(black_box(MASKED)) {
        *to = masked ^ black_box(MASK);
    }
    Secret::from_slice(bytes.as_slice()).unwrap()
}

fn meta(state: u64) -> Meta {
    let generation = |number| Generation {
        number,
        serial: [1; 16],
        enrolled_ms: 0,
        forgotten: None,
        purposes: std::collections::BTreeMap::new(),
    };
    Meta { state, generations: vec![generation(1), generation(2)], ..Meta::default() }
}

fn put(kept: &Remembered, state: &State, number: usize, read_at: Now) {
    put_keys(kept, state, number, read_at, &[1, 2].map(|first| Secret::from_slice(&[first; 32]).unwrap()));
}

fn put_keys(kept: &Remembered, state: &State, number: usize, read_at: Now, keys: &[Secret<Purpose>; 2]) {
    let meta = meta(3);
    let read = Read { since: read_at, epoch: 5, meta: &meta, purpose: 7, by_consent: false, pseudonym: None };
    kept.put(state, &tag(number), read_at, &read, |generation| keys.get(usize::from(generation) - 1));
}

fn has(kept: &Remembered, state: &State, number: usize, now: Now) -> bool {
    kept.with(state, &tag(number), 7, now, |known, _| known.newest.key().map(|key| key.expose()[0]))
        == Some(2)
}

fn state() -> State {
    let mut state = State::default();
    state.epoch = 5;
    state
}

fn fence(state: u64) -> Fence {
    Fence { state, ..Fence::default() }
}

#[test]
fn it_is_kept_by_tag_purpose_epoch_and_state() {
    let (kept, mut now) = (Remembered::new(10, AGE), state());
    put(&kept, &now, 1, at(0));
    assert!(has(&kept, &now, 1, at(1)) && !has(&kept, &now, 2, at(1)));
    let another = kept.with(&now, &tag(1), 8, at(1), |known, _| known.newest.key());
    assert!(another.is_none(), "another purpose");

    now.fences.insert(tag(1), fence(3));
    assert!(has(&kept, &now, 1, at(1)), "the event that it was read after");
    now.fences.insert(tag(1), fence(4));
    assert!(!has(&kept, &now, 1, at(1)), "a later event");
    put(&kept, &now, 1, at(1));
    assert_eq!(kept.len(), 0, "read before the event, and put after it");

    put(&kept, &now, 2, at(1));
    now.epoch = 6;
    assert!(!has(&kept, &now, 2, at(1)), "another root");
    put(&kept, &now, 2, at(1));
    assert_eq!(kept.len(), 0);
    (now.epoch, now.frozen) = (5, true);
    put(&kept, &now, 2, at(1));
    assert_eq!(kept.len(), 0, "frozen");
}

#[test]
fn events_wipe_what_they_are_about() {
    let (kept, now) = (Remembered::new(10, AGE), state());
    let tag = tag(1);
    let about = |event: Event| {
        put(&kept, &now, 1, at(0));
        put(&kept, &now, 2, at(0));
        assert_eq!(kept.len(), 2);
        kept.applied(&event);
        [has(&kept, &now, 1, at(0)), has(&kept, &now, 2, at(0))]
    };
    let (state, purpose, day) = (4, 7, Day(20_000));
    for event in [
        Event::Forgot { tag, state, at_ms: 0, due: day, keeps: Vec::new() },
        Event::Undone { tag, state },
        Event::Again { tag, state, generation: 3 },
        Event::Withdrew { tag, state, purpose, due: day },
        Event::Consented { tag, state, purpose },
        Event::Held { tag, state },
        Event::Released { tag, state },
    ] {
        assert_eq!(about(event), [false, true]);
    }
    assert_eq!(about(Event::Root { epoch: 6, id: [0; 16] }), [false, false]);
    assert_eq!(about(Event::Frozen(true)), [false, false]);
    assert_eq!(about(Event::Frozen(false)), [true, true]);
    assert_eq!(about(Event::Mark { day }), [true, true]);
}

#[test]
fn it_is_bounded_by_number_and_age() {
    let now = state();
    for room in [0, 1, 5, FEW] {
        let kept = Remembered::new(room, AGE);
        for number in 0..3000 {
            put(&kept, &now, number, at(0));
            assert!(kept.len() <= room.next_multiple_of(SHARDS), "{} of {room}", kept.len());
            assert_eq!(has(&kept, &now, number, at(0)), room > 0, "who came last is there");
        }
        assert_eq!(kept.len(), room);
    }
    let kept = Remembered::new(10, AGE);
    put(&kept, &now, 1, at(0));
    assert!(has(&kept, &now, 1, at(59)));
    put(&kept, &now, 2, at(60));
    assert_eq!(kept.len(), 1, "too old, and found when another came");
    // A wall clock that was set forward ends it as well.
    let late = Now { wall: 120_000, ..at(61) };
    assert!(!has(&kept, &now, 2, late));
}

#[test]
fn who_is_asked_for_stays_and_the_names_of_those_who_went_do_not_pile_up() {
    let (kept, now) = (Remembered::new(100, AGE), state());
    for number in 0..10_000 {
        put(&kept, &now, number, at(0));
        assert!(has(&kept, &now, 0, at(0)), "asked for all the time");
        kept.applied(&Event::Undone { tag: tag(number + 1), state: 4 });
        kept.applied(&Event::Undone { tag: tag(number.max(1)), state: 4 });
    }
    let names: usize = kept.shards.iter().map(|shard| super::lock(shard).ring.len()).sum();
    assert!(names <= 200, "{names}");
}

/// How often the masked part of the keys lies in this process.
#[cfg(target_os = "linux")]
fn found() -> usize {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut memory = std::fs::File::open("/proc/self/mem").unwrap();
    let mut buffer = vec![0_u8; 1 << 16];
    // What is read lies there too, and would be found again.
    let own = u64::try_from(buffer.as_ptr().addr()).unwrap();
    let own = own..own + (1 << 16);
    let mut count = 0;
    for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.starts_with("rw") || words.nth(3).is_some_and(|name| name.starts_with("[v")) {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [mut from, end] = [start, end].map(|word| u64::from_str_radix(word, 16).unwrap());
        while from < end {
            if own.contains(&from) {
                from = own.end;
                continue;
            }
            let until = if from < own.start { end.min(own.start) } else { end };
            let len = usize::try_from((until - from).min(1 << 16)).unwrap();
            memory.seek(SeekFrom::Start(from)).unwrap();
            if memory.read_exact(&mut buffer[..len]).is_err() {
                break;
            }
            let first = MASKED[0] ^ MASK;
            for place in (0..len).filter(|place| buffer[*place] == first) {
                let Some(window) = buffer[..len].get(place..place + MASKED.len()) else { continue };
                count += usize::from(window.iter().zip(MASKED).all(|(byte, masked)| *byte ^ MASK == masked));
            }
            buffer.as_mut_slice().zeroize();
            from += u64::try_from(len).unwrap();
        }
    }
    count
}

#[test]
#[cfg(target_os = "linux")]
fn no_key_is_left_of_what_was_crowded_out_or_wiped() {
    let (kept, now) = (Remembered::new(50, AGE), state());
    let put = |number| put_keys(&kept, &now, number, at(0), &[secret(1), secret(2)]);
    for number in 0..1000 {
        put(number);
        assert!(has(&kept, &now, number, at(0)));
    }
    // Two enrolments each. A page's end may cut one in two.
    let lying = found();
    assert!((95..=100).contains(&lying), "{lying}");
    kept.applied(&Event::Root { epoch: 6, id: [0; 16] });
    assert_eq!(found(), 0);
}
