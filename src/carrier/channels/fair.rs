//! Datagrams that wait for their turn, fairly between the flows that they belong to.
//!
//! Deficit round robin over flows, those that have just begun first: fq_codel (RFC 8290 section 4.2) without CoDel. A ping
//! waits for at most one packet of each bulk flow, and a flow that floods fills and loses its own queue.
//! What is dropped is the oldest, since for a datagram late is worse than lost; what has waited for [`PATIENCE`] is
//! not sent any more, so that a full window never means a queue of seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Flows that are told apart; others share a place with one of them.
const FLOWS: u64 = 256;
/// Memory of all that waits, and of what waits of one flow.
const MOST: usize = 2 * 1024 * 1024;
const MOST_OF_ONE: usize = 1024 * 1024;
/// What keeping a datagram costs beside its bytes.
const COST: usize = 64;
/// Bytes of a flow's turn: a packet of the usual size.
const QUANTUM: i64 = 1514;
/// How long a datagram may wait.
const PATIENCE: Duration = Duration::from_millis(100);
/// Room for datagrams that an empty queue keeps.
const KEPT: usize = 64;

/// Datagrams that were dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Too much waited: the oldest of the longest queue had to go.
    pub full: u64,
    /// It had waited too long.
    pub late: u64,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This.
    Datagram(Bytes),
    /// One that is larger than there is room for.
    TooLarge,
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    data: Bytes,
}

#[derive(Debug, Default)]
struct Flow {
    queue: VecDeque<Waiting>,
    memory: usize,
    /// Bytes that it may still send in this turn.
    deficit: i64,
    /// It stands in one of the lines, perhaps with nothing left.
    is_in_line: bool,
}

/// The datagrams of one channel.
#[derive(Debug)]
pub(super) struct FairQueue {
    flows: Vec<Flow>,
    fresh: VecDeque<usize>,
    old: VecDeque<usize>,
    memory: usize,
    waiting: usize,
    drops: Drops,
}

impl Default for FairQueue {
    fn default() -> Self {
        Self {
            flows: (0..FLOWS).map(|_| Flow::default()).collect(),
            fresh: VecDeque::new(),
            old: VecDeque::new(),
            memory: 0,
            waiting: 0,
            drops: Drops::default(),
        }
    }
}

impl FairQueue {
    /// Adds a datagram of the flow with this hash. Older ones may have to go for it.
    pub(super) fn push(&mut self, now: Instant, flow: u64, data: Bytes) {
        // The remainder is below FLOWS.
        let index = usize::try_from(flow % FLOWS).unwrap_or(0);
        let Some(flow) = self.flows.get_mut(index) else {
            return;
        };
        let memory = data.len() + COST;
        flow.memory += memory;
        flow.queue.push_back(Waiting { since: now, data });
        self.memory += memory;
        self.waiting += 1;
        if !flow.is_in_line {
            flow.is_in_line = true;
            flow.deficit = QUANTUM;
            self.fresh.push_back(index);
        }
        while self.flows[index].memory > MOST_OF_ONE {
            self.drop_oldest(index);
        }
        while self.memory > MOST {
            let longest = (0..self.flows.len()).max_by_key(|index| self.flows[*index].memory);
            self.drop_oldest(longest.unwrap_or(index));
        }
    }

    /// Takes the next datagram of at most so many bytes.
    pub(super) fn pop(&mut self, now: Instant, most: usize) -> Next {
        loop {
            let is_fresh = !self.fresh.is_empty();
            let line = if is_fresh { &self.fresh } else { &self.old };
            let Some(index) = line.front().copied() else {
                return Next::Nothing;
            };
            self.drop_late(now, index);
            let flow = &mut self.flows[index];
            let Some(first) = flow.queue.front() else {
                self.leave(is_fresh, index);
                continue;
            };
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM;
                self.go_behind(is_fresh);
                continue;
            }
            let length = first.data.len();
            if length > most {
                return Next::TooLarge;
            }
            flow.deficit -= i64::try_from(length).unwrap_or(i64::MAX);
            return match self.take(index) {
                Some(data) => Next::Datagram(data),
                None => Next::Nothing,
            };
        }
    }

    /// Drops all that waits.
    pub(super) fn clear(&mut self) {
        let drops = self.drops;
        *self = Self {
            drops,
            ..Self::default()
        };
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub(super) fn drops(&self) -> Drops {
        self.drops
    }

    /// The first of a line to the end of those that had a turn.
    fn go_behind(&mut self, is_fresh: bool) {
        let line = match is_fresh {
            true => &mut self.fresh,
            false => &mut self.old,
        };
        let index = line.pop_front();
        self.old.extend(index);
    }

    /// The first of a line has nothing left. One that was fresh has to wait for a turn of the others before it is so again:
    /// else it could always be the first.
    fn leave(&mut self, is_fresh: bool, index: usize) {
        if is_fresh {
            return self.go_behind(is_fresh);
        }
        self.old.pop_front();
        let flow = &mut self.flows[index];
        flow.is_in_line = false;
        if flow.queue.capacity() > KEPT {
            flow.queue = VecDeque::new();
        }
    }

    fn drop_oldest(&mut self, index: usize) {
        let dropped = self.take(index).is_some();
        self.drops.full += u64::from(dropped);
    }

    fn drop_late(&mut self, now: Instant, index: usize) {
        let is_late = |first: &Waiting| now.saturating_duration_since(first.since) > PATIENCE;
        while self.flows[index].queue.front().is_some_and(is_late) {
            self.take(index);
            self.drops.late += 1;
        }
    }

    fn take(&mut self, index: usize) -> Option<Bytes> {
        let flow = self.flows.get_mut(index)?;
        let Waiting { data, .. } = flow.queue.pop_front()?;
        let memory = data.len() + COST;
        flow.memory -= memory;
        self.memory -= memory;
        self.waiting -= 1;
        Some(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY: usize = usize::MAX;

    /// A datagram that says which flow it is of, and the how manieth.
    fn datagram(flow: u8, number: u32, length: usize) -> Bytes {
        let mut data = vec![flow; length.max(5)];
        data[1..5].copy_from_slice(&number.to_be_bytes());
        data.into()
    }

    fn sent(queue: &mut FairQueue, now: Instant) -> Option<(u8, u32)> {
        match queue.pop(now, ANY) {
            Next::Datagram(data) => {
                Some((data[0], u32::from_be_bytes(data[1..5].try_into().unwrap())))
            }
            Next::TooLarge => panic!("nothing is larger than any"),
            Next::Nothing => None,
        }
    }

    #[test]
    fn a_flood_delays_no_ping_and_starves_no_other() {
        let (mut queue, now) = (FairQueue::default(), Instant::now());
        for number in 0..1000 {
            queue.push(now, 1, datagram(1, number, 1400));
        }
        // It lost its own oldest, and none of anybody else.
        let kept = u32::try_from(MOST_OF_ONE / (1400 + COST)).unwrap();
        assert_eq!(queue.drops().full, u64::from(1000 - kept));
        queue.push(now, 2, datagram(2, 0, 100));
        assert_eq!(sent(&mut queue, now), Some((1, 1000 - kept)));
        let next: Vec<_> = (0..3).filter_map(|_| sent(&mut queue, now)).collect();
        assert!(next.contains(&(2, 0)), "{next:?}");
        // Two that flood share by bytes.
        for number in 0..100 {
            queue.push(now, 3, datagram(3, number, 700));
        }
        let mut bytes = [0; 4];
        for _ in 0..90 {
            let (flow, _) = sent(&mut queue, now).unwrap();
            bytes[usize::from(flow)] += if flow == 3 { 700 } else { 1400 };
        }
        let (one, other): (i32, i32) = (bytes[1], bytes[3]);
        assert!((one - other).abs() <= 3 * 1514, "{one} and {other}");
    }

    #[test]
    fn short_exchanges_starve_nobody() {
        let (mut queue, now) = (FairQueue::default(), Instant::now());
        for number in 0..100 {
            queue.push(now, 0, datagram(0, number, 1400));
        }
        let mut bulk = 0;
        for round in 0..10 {
            // Many flows that are always fresh, if they can be.
            for flow in 1..100 {
                queue.push(now, flow, datagram(1, round, 60));
            }
            let turns: Vec<_> = (0..99).filter_map(|_| sent(&mut queue, now)).collect();
            bulk += turns.iter().filter(|(flow, _)| *flow == 0).count();
        }
        assert!(bulk >= 5, "{bulk} in ten rounds");
    }

    #[test]
    fn nothing_waits_for_seconds() {
        let (mut queue, now) = (FairQueue::default(), Instant::now());
        queue.push(now, 1, datagram(1, 0, 1000));
        queue.push(now + PATIENCE, 1, datagram(1, 1, 1000));
        assert_eq!(queue.pop(now, 10), Next::TooLarge);
        let later = now + PATIENCE + Duration::from_millis(1);
        assert_eq!(sent(&mut queue, later), Some((1, 1)));
        assert_eq!(queue.drops(), Drops { full: 0, late: 1 });
        assert_eq!(sent(&mut queue, later), None);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_is_too_large_for_now_keeps_its_place() {
        let (mut queue, now) = (FairQueue::default(), Instant::now());
        queue.push(now, 1, datagram(1, 0, 1000));
        queue.push(now, 2, datagram(2, 0, 10));
        for _ in 0..3 {
            assert_eq!(queue.pop(now, 999), Next::TooLarge);
        }
        assert_eq!(sent(&mut queue, now), Some((1, 0)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8, usize),
        Pop(usize),
        Wait(u64),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (any::<u8>(), 0..33_000_usize).prop_map(|(flow, length)| Step::Push(flow % 8, length)),
            8 => (0..40_000_usize).prop_map(Step::Pop),
            2 => (0..90_u64).prop_map(Step::Wait),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is pushed and popped: a flow keeps its order, nothing late is sent, memory is bounded, and all is accounted for.
        #[test]
        fn any_story(steps in prop::collection::vec(step(), 0..400)) {
            let mut queue = FairQueue::default();
            let mut now = Instant::now();
            let (mut pushed, mut popped, mut cleared) = (0_u32, 0_u64, 0_u64);
            let mut since = Vec::new();
            let mut last = [None; 8];
            for step in steps {
                match step {
                    Step::Push(flow, length) => {
                        queue.push(now, flow.into(), datagram(flow, pushed, length));
                        since.push(now);
                        pushed += 1;
                    }
                    Step::Pop(most) => {
                        if let Next::Datagram(data) = queue.pop(now, most) {
                            let flow = usize::from(data[0]);
                            let number = u32::from_be_bytes(data[1..5].try_into().unwrap());
                            prop_assert!(data.len() <= most);
                            prop_assert!(last[flow] < Some(number), "a flow keeps its order");
                            last[flow] = Some(number);
                            let waited = now - since[usize::try_from(number).unwrap()];
                            prop_assert!(waited <= PATIENCE);
                            popped += 1;
                        }
                    }
                    Step::Wait(time) => now += Duration::from_millis(time),
                    Step::Clear => {
                        cleared += queue.waiting as u64;
                        queue.clear();
                    }
                }
                prop_assert!(queue.memory <= MOST);
                prop_assert!(queue.flows.iter().all(|flow| flow.memory <= MOST_OF_ONE));
                prop_assert_eq!(queue.memory, queue.flows.iter().map(|flow| flow.memory).sum::<usize>());
                let Drops { full, late } = queue.drops();
                prop_assert_eq!(u64::from(pushed), popped + full + late + cleared + queue.waiting as u64);
            }
            // Whatever the story was, what is left comes out, and then it is empty.
            while sent(&mut queue, now).is_some() {}
            prop_assert!(queue.is_empty() && queue.memory == 0);
        }
    }
}
