//! Clients' streams: who has a place, and which answers wait until they are taken. No I/O, and no clock.
//!
//! Whoever asks and does not read holds memory, and a place. So a stream with enough unread answers has no further question read,
//! and where there is need of a place, or of memory, the stream goes that has been idle, or has taken nothing, for longest.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Streams at a time.
const PLACES: usize = 256;
/// Questions of one stream that may wait for their answers; the rest is not read.
const PIPELINE: usize = 64;
/// Bytes of answers that one stream has not taken, beyond which no further question of it is read.
const ENOUGH: usize = 128 << 10;
/// And that all have not taken: beyond these a stream may have one question at a time.
const ENOUGH_IN_ALL: usize = 8 << 20;
/// No more wait in all, whatever was asked before.
const MOST_IN_ALL: usize = 16 << 20;
/// How long a stream may say nothing (RFC 7766 section 6.2.3).
const IDLE: Duration = Duration::from_secs(30);

/// How a stream hears.
pub(super) trait Hears {
    /// There is an answer.
    fn answer(&self);

    /// Its place is another's now.
    fn gone(&self);
}

/// What is known of the open ones.
#[derive(Debug, Default)]
pub(super) struct Streams<H> {
    places: BTreeMap<u64, Place<H>>,
    /// Of all answers that are not taken.
    bytes: usize,
    serial: u64,
}

#[derive(Debug)]
struct Place<H> {
    hears: H,
    answers: VecDeque<Vec<u8>>,
    /// Of these, and of the one that is being written.
    bytes: usize,
    /// Questions whose answers are not taken.
    waiting: usize,
    /// When it last asked something whole, or took something whole.
    since: Instant,
}

impl<H> Place<H> {
    /// Whether it is us who have something to do.
    fn waits_for_us(&self) -> bool {
        self.waiting > 0 && self.bytes == 0
    }
}

impl<H: Hears> Streams<H> {
    /// A place for a further one.
    pub(super) fn enter(&mut self, now: Instant, hears: H) -> u64 {
        if self.places.len() >= PLACES {
            self.end_longest(|_| true);
        }
        self.serial += 1;
        let place = Place {
            hears,
            answers: VecDeque::new(),
            bytes: 0,
            waiting: 0,
            since: now,
        };
        self.places.insert(self.serial, place);
        self.serial
    }

    /// Its place is free again.
    pub(super) fn leave(&mut self, stream: u64) {
        if let Some(place) = self.places.remove(&stream) {
            self.bytes -= place.bytes;
        }
    }

    /// Ends the one of `those` that has been idle or stuck for longest; one that waits for us only where there is no other.
    fn end_longest(&mut self, those: impl Fn(&Place<H>) -> bool) {
        let those = self.places.iter().filter(|(_, place)| those(place));
        let longest = those.min_by_key(|(_, place)| (place.waits_for_us(), place.since));
        let Some((&stream, place)) = longest else {
            return;
        };
        place.hears.gone();
        self.leave(stream);
    }

    /// Whether its next question may be read.
    pub(super) fn may_ask(&self, stream: u64) -> bool {
        self.places.get(&stream).is_some_and(|place| {
            let has_room = place.bytes < ENOUGH && self.bytes < ENOUGH_IN_ALL;
            place.waiting == 0 || (place.waiting < PIPELINE && has_room)
        })
    }

    /// It has asked something.
    pub(super) fn asked(&mut self, now: Instant, stream: u64) {
        if let Some(place) = self.places.get_mut(&stream) {
            place.waiting += 1;
            place.since = now;
        }
    }

    /// An answer to what it has asked; a stream that is gone needs none.
    pub(super) fn push(&mut self, stream: u64, answer: Vec<u8>) {
        if let Some(place) = self.places.get_mut(&stream) {
            place.bytes += answer.len();
            self.bytes += answer.len();
            place.answers.push_back(answer);
            place.hears.answer();
        }
        while self.bytes > MOST_IN_ALL {
            self.end_longest(|place| place.bytes > 0);
        }
    }

    /// The next answer to be written, which [`taken`](Self::taken) has to follow.
    pub(super) fn next(&mut self, stream: u64) -> Option<Vec<u8>> {
        self.places.get_mut(&stream)?.answers.pop_front()
    }

    /// An answer of so many bytes has been taken.
    pub(super) fn taken(&mut self, now: Instant, stream: u64, bytes: usize) {
        if let Some(place) = self.places.get_mut(&stream) {
            place.bytes -= bytes;
            self.bytes -= bytes;
            place.waiting -= 1;
            place.since = now;
        }
    }

    /// When it has been idle for too long; `None` while answers are to come.
    pub(super) fn idle_at(&self, stream: u64) -> Option<Instant> {
        let place = self.places.get(&stream)?;
        (place.waiting == 0).then_some(place.since + IDLE)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    /// Whether it was told that it is gone.
    type IsGone = Rc<Cell<bool>>;

    impl Hears for IsGone {
        fn answer(&self) {}

        fn gone(&self) {
            self.set(true);
        }
    }

    fn enter(streams: &mut Streams<IsGone>, now: Instant) -> (u64, IsGone) {
        let is_gone = IsGone::default();
        (streams.enter(now, Rc::clone(&is_gone)), is_gone)
    }

    #[test]
    fn the_one_that_was_idle_or_stuck_longest_makes_room() {
        let (mut streams, mut now) = (Streams::<IsGone>::default(), Instant::now());
        let all: Vec<_> = (0..PLACES)
            .map(|_| {
                now += Duration::from_millis(1);
                enter(&mut streams, now)
            })
            .collect();
        // The first asks, the second has an answer that it does not take, the third asks once more and takes it.
        let [first, second, third] = [all[0].0, all[1].0, all[2].0];
        now += Duration::from_millis(1);
        streams.asked(now, first);
        streams.asked(now, second);
        streams.push(second, vec![0; 9]);
        streams.asked(now, third);
        streams.push(third, vec![0; 9]);
        let answer = streams.next(third).unwrap();
        now += Duration::from_secs(1);
        streams.taken(now, third, answer.len());
        let mut going = Vec::new();
        for _ in 1..PLACES {
            enter(&mut streams, now);
            let gone = all.iter().position(|(_, is_gone)| is_gone.take());
            going.push(gone.unwrap());
        }
        assert_eq!(going[..3], [3, 4, 5]);
        // Idle ones, the stuck one, the one that was heard of a moment ago. Who waits for us stays.
        assert_eq!(going[PLACES - 3..], [1, 2]);
        assert!(streams.may_ask(first) && streams.bytes == 0);
    }

    #[test]
    fn who_does_not_take_answers_is_not_heard() {
        let (mut streams, now) = (Streams::<IsGone>::default(), Instant::now());
        let (stream, _) = enter(&mut streams, now);
        let mut asked = 0;
        while streams.may_ask(stream) {
            streams.asked(now, stream);
            streams.push(stream, vec![0; 50_000]);
            asked += 1;
        }
        assert_eq!(asked, 3);
        let answer = streams.next(stream).unwrap();
        assert!(!streams.may_ask(stream));
        streams.taken(now, stream, answer.len());
        assert!(streams.may_ask(stream));
        // Small ones count by their number.
        let (other, _) = enter(&mut streams, now);
        for _ in 0..PIPELINE {
            assert!(streams.may_ask(other));
            streams.asked(now, other);
        }
        assert!(!streams.may_ask(other));
        assert_eq!(streams.idle_at(other), None);
        streams.leave(other);
        streams.leave(stream);
        assert_eq!((streams.bytes, streams.idle_at(stream)), (0, None));
    }

    #[test]
    fn answers_that_come_all_at_once_take_no_more_than_there_is() {
        let (mut streams, now) = (Streams::<IsGone>::default(), Instant::now());
        let all: Vec<_> = (0..PLACES).map(|_| enter(&mut streams, now)).collect();
        for (stream, _) in &all {
            for _ in 0..PIPELINE {
                streams.asked(now, *stream);
            }
        }
        for (stream, _) in &all {
            for _ in 0..PIPELINE {
                streams.push(*stream, vec![0; 65_535]);
                assert!(streams.bytes <= MOST_IN_ALL);
            }
        }
        let gone = all.iter().filter(|(_, is_gone)| is_gone.get()).count();
        assert!(gone > 0 && streams.places.len() == PLACES - gone);
        // With little room left a new one may still ask, one thing at a time.
        let (stream, _) = enter(&mut streams, now);
        assert!(streams.bytes > ENOUGH_IN_ALL && streams.may_ask(stream));
        streams.asked(now, stream);
        assert!(!streams.may_ask(stream));
    }

    proptest! {
        /// What is counted is what there is, whoever comes, asks, reads, goes or is ended.
        #[test]
        fn counts_are_true(steps in prop::collection::vec((0..6_u8, 0..300_u64, 0..70_000_usize), 0..400)) {
            let (mut streams, mut now) = (Streams::<IsGone>::default(), Instant::now());
            for (what, stream, len) in steps {
                now += Duration::from_millis(1);
                let waits = streams.places.get(&stream).is_some_and(|place| place.waiting > place.answers.len());
                match what {
                    0 => drop(enter(&mut streams, now)),
                    1 => streams.leave(stream),
                    2 | 3 if streams.may_ask(stream) => streams.asked(now, stream),
                    4 if waits => streams.push(stream, vec![0; len]),
                    _ => if let Some(answer) = streams.next(stream) {
                        streams.taken(now, stream, answer.len());
                    }
                }
                let bytes: usize = streams.places.values().map(|place| place.bytes).sum();
                let held: usize = streams.places.values().flat_map(|place| &place.answers).map(Vec::len).sum();
                prop_assert_eq!((streams.bytes, streams.bytes), (bytes, held));
                prop_assert!(streams.places.len() <= PLACES && bytes <= MOST_IN_ALL);
            }
        }
    }
}
