//! Who may be asked when, without a clock: a host once a second at most.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A host is asked so often at most.
const APART: Duration = Duration::from_secs(1);
/// A request that comes so little too soon waits: `ping` sends one a second, but a clock's tick may shorten that.
const HOLD: Duration = Duration::from_millis(100);
/// Hosts that are asked at the same time.
const UNDER_WAY: usize = 64;
/// After that, no answer comes any more.
const PATIENCE: Duration = Duration::from_secs(10);
/// Hosts that are remembered.
const REMEMBERED: usize = 1024;
/// A silent host is asked so often at least, where asking leaves something behind.
const LONGEST: Duration = Duration::from_secs(8);

/// What asking costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A process for two seconds: a host may be asked every second.
    Steady,
    /// Opens that a server cannot take back: a silent host is asked less and less often.
    Slowing,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests whose host was not heard from.
    pub unanswered: u64,
    /// Requests that came too often, or when too many were under way.
    pub ignored: u64,
}

#[derive(Debug)]
struct Host<T> {
    /// When it may be asked again.
    next: Instant,
    silences: u32,
    /// Questions that are under way.
    asked: u32,
    held: Option<T>,
}

#[derive(Debug)]
struct Asked<T> {
    host: IpAddr,
    request: T,
    due: Instant,
}

/// Requests of the kind `T`, by host.
///
/// In: [`handle_request`](Self::handle_request), [`handle_answer`](Self::handle_answer),
/// [`handle_timeout`](Self::handle_timeout). Out: [`next_question`](Self::next_question) after the first and the last, and
/// [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Hosts<T> {
    pace: Pace,
    hosts: HashMap<IpAddr, Host<T>>,
    asked: HashMap<u32, Asked<T>>,
    questions: VecDeque<(u32, IpAddr)>,
    last: u32,
    counters: Counters,
}

impl<T> Hosts<T> {
    /// Nobody has asked yet.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            hosts: HashMap::new(),
            asked: HashMap::new(),
            questions: VecDeque::new(),
            last: 0,
            counters: Counters::default(),
        }
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether there is a question to be asked.
    pub fn wants(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Somebody asks whether `host` is there.
    pub fn handle_request(&mut self, now: Instant, host: IpAddr, request: T) {
        // Who cannot be asked now is not remembered either.
        let is_busy = self.asked.len() >= UNDER_WAY;
        if !self.hosts.contains_key(&host) && (is_busy || !self.has_room(now)) {
            self.counters.ignored += 1;
            return;
        }
        let known = self.hosts.entry(host).or_insert(Host {
            next: now,
            silences: 0,
            asked: 0,
            held: None,
        });
        if self.pace == Pace::Slowing && known.asked > 0 {
            // As long as one is not answered, a further one would only be left behind, too.
            self.counters.ignored += 1;
        } else if known.next <= now && !is_busy {
            self.ask(now, host, request);
        } else if known.held.is_none() && known.next > now && known.next - now <= HOLD {
            known.held = Some(request);
        } else {
            self.counters.ignored += 1;
        }
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.hosts.len() >= REMEMBERED {
            self.hosts
                .retain(|_, host| host.next > now || host.asked > 0 || host.held.is_some());
        }
        self.hosts.len() < REMEMBERED
    }

    fn ask(&mut self, now: Instant, host: IpAddr, request: T) {
        if let Some(known) = self.hosts.get_mut(&host) {
            known.next = now + APART;
            known.asked += 1;
        }
        self.last = self.last.wrapping_add(1);
        let due = now + PATIENCE;
        let asked = Asked { host, request, due };
        self.asked.insert(self.last, asked);
        self.questions.push_back((self.last, host));
    }

    /// A question that is to be asked now, with its number.
    pub fn next_question(&mut self) -> Option<(u32, IpAddr)> {
        self.questions.pop_front()
    }

    /// The host of question `number` was heard from, or was not: the request that is to be answered.
    pub fn handle_answer(&mut self, now: Instant, number: u32, is_alive: bool) -> Option<T> {
        let asked = self.asked.remove(&number)?;
        if let Some(host) = self.hosts.get_mut(&asked.host) {
            host.asked = host.asked.saturating_sub(1);
            host.silences = if is_alive { 0 } else { host.silences + 1 };
            if !is_alive && self.pace == Pace::Slowing {
                let pause = APART * (1 << host.silences.min(3));
                host.next = host.next.max(now + pause.min(LONGEST));
            }
        }
        if is_alive {
            self.counters.answered += 1;
            return Some(asked.request);
        }
        self.counters.unanswered += 1;
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let held = self.hosts.values().filter(|host| host.held.is_some());
        let asked = self.asked.values().map(|asked| asked.due);
        held.map(|host| host.next).chain(asked).min()
    }

    /// Asks for those who waited, and gives up those who were not heard from.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = self.asked.iter().filter(|(_, asked)| asked.due <= now);
        for number in late.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.handle_answer(now, number, false);
        }
        // Of one that nobody waits for any more, nobody is to be asked either, when somebody can be again.
        let asked = &self.asked;
        self.questions
            .retain(|(number, _)| asked.contains_key(number));
        let held = self.hosts.iter_mut().filter(|(_, host)| host.next <= now);
        let held = held.filter_map(|(ip, host)| Some((*ip, host.held.take()?)));
        for (host, request) in held.collect::<Vec<_>>() {
            match self.asked.len() < UNDER_WAY {
                true => self.ask(now, host, request),
                false => self.counters.ignored += 1,
            }
        }
    }

    /// Whoever was asked will not answer any more.
    pub fn handle_lost(&mut self) {
        self.counters.unanswered += self.asked.len() as u64;
        self.asked.clear();
        self.questions.clear();
        for host in self.hosts.values_mut() {
            host.asked = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "10.0.0.1";

    fn host(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_host_is_asked_once_a_second_and_each_answer_is_for_one_request() {
        let start = Instant::now();
        let mut hosts = Hosts::new(Pace::Steady);
        for (number, at) in (0_u32..30).map(|n| (n, start + ms(100 * u64::from(n)))) {
            hosts.handle_timeout(at);
            hosts.handle_request(at, host(HOST), number);
        }
        hosts.handle_timeout(start + ms(3000));
        let questions: Vec<_> = std::iter::from_fn(|| hosts.next_question()).collect();
        assert_eq!(questions.len(), 4, "at 0, 1, 2 and 3 seconds");
        assert_eq!(hosts.handle_answer(start, questions[0].0, true), Some(0));
        assert_eq!(hosts.handle_answer(start, questions[0].0, true), None);
        // The one that came 100 ms too soon.
        assert_eq!(hosts.handle_answer(start, questions[1].0, true), Some(9));
        assert_eq!(hosts.handle_answer(start, questions[2].0, false), None);
        let counters = hosts.counters();
        assert_eq!((counters.answered, counters.unanswered), (2, 1));
        assert_eq!(counters.ignored, 26);
    }

    #[test]
    fn others_are_asked_meanwhile_up_to_a_bound() {
        let now = Instant::now();
        let mut hosts = Hosts::new(Pace::Steady);
        for number in 0..100_u8 {
            hosts.handle_request(now, host(&format!("10.0.0.{number}")), number);
        }
        let asked = std::iter::from_fn(|| hosts.next_question()).count();
        assert_eq!((asked, hosts.counters().ignored), (UNDER_WAY, 36));
        assert_eq!(hosts.hosts.len(), UNDER_WAY);
        assert_eq!(hosts.poll_timeout(), Some(now + PATIENCE));
        hosts.handle_timeout(now + PATIENCE);
        hosts.handle_request(now + PATIENCE, host("10.0.0.99"), 99);
        assert!(hosts.wants(), "what was not heard from makes room");
    }

    /// As long as there is no connection. Each is a process on the server.
    #[test]
    fn what_nobody_waits_for_any_more_is_not_asked_later() {
        let start = Instant::now();
        let mut hosts = Hosts::new(Pace::Steady);
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            hosts.handle_timeout(now);
            hosts.handle_request(now, host(HOST), second);
        }
        let questions: Vec<_> = std::iter::from_fn(|| hosts.next_question()).collect();
        assert_eq!(questions.len(), 10, "those of the last ten seconds");
        let now = start + Duration::from_secs(3600);
        assert_eq!(hosts.handle_answer(now, questions[9].0, true), Some(3599));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let start = Instant::now();
        let mut hosts = Hosts::new(Pace::Steady);
        for number in 0..5_000_u32 {
            let ip = IpAddr::from(number.to_be_bytes());
            hosts.handle_request(start, ip, number);
            let waits = hosts.asked.len() < UNDER_WAY;
            if let Some((question, _)) = hosts.next_question().filter(|_| !waits) {
                hosts.handle_answer(start, question, true);
            }
        }
        assert_eq!(hosts.hosts.len(), REMEMBERED);
        hosts.handle_request(start + APART, host(HOST), 0);
        assert!(hosts.hosts.contains_key(&host(HOST)));
        assert_eq!(
            hosts.hosts.len(),
            UNDER_WAY,
            "those that wait for an answer stay"
        );
    }

    #[test]
    fn one_question_at_a_time_where_it_costs() {
        for (pace, expected) in [(Pace::Steady, 3), (Pace::Slowing, 1)] {
            let start = Instant::now();
            let mut hosts = Hosts::new(pace);
            for second in 0..3 {
                hosts.handle_request(start + Duration::from_secs(second), host(HOST), second);
            }
            let asked: Vec<_> = std::iter::from_fn(|| hosts.next_question()).collect();
            assert_eq!(asked.len(), expected, "{pace:?}");
            let now = start + Duration::from_secs(3);
            assert_eq!(hosts.handle_answer(now, asked[0].0, true), Some(0));
            hosts.handle_request(now, host(HOST), 3);
            assert!(hosts.wants());
        }
    }

    #[test]
    fn a_silent_host_is_asked_less_often_where_that_costs() {
        for (pace, expected) in [(Pace::Steady, 60), (Pace::Slowing, 9)] {
            let start = Instant::now();
            let mut hosts = Hosts::new(pace);
            let mut asked = 0;
            for second in 0..60 {
                let now = start + Duration::from_secs(second);
                hosts.handle_request(now, host(HOST), ());
                while let Some((number, _)) = hosts.next_question() {
                    asked += 1;
                    assert_eq!(hosts.handle_answer(now, number, false), None);
                }
            }
            assert_eq!(asked, expected, "{pace:?}");
        }
    }
}
