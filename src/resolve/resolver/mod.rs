//! The resolver without I/O: questions of clients and messages of far resolvers in, messages out. `C` is how a client is known.

mod line;
mod values;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use ipnet::IpNet;

use self::line::{Line, Ticket};
use self::values::Servers;
pub use self::values::{Config, Counters, Reply, Taken};
use super::answer::{Answer, Mismatch};
use super::by_name;
use super::cache::Cache;
use super::frame::frame;
use super::pool::{self, Named, Pool};
use super::question::{self, Asked, Question, Unfit, Way};
use super::view::View;
use super::zones::{Side, Zones};

/// Questions that may wait at a time.
const MAX_WAITING: usize = 4096;
/// Who may wait for the same answer, of which each gets a copy of up to 64 KiB, and who may wait in all.
const MAX_ASKERS: usize = 256;
const MAX_ALL_ASKERS: usize = 2 * MAX_WAITING;
/// Steps that may be ahead: those of answered questions stay until they are due.
const MAX_STEPS: usize = 16 * MAX_WAITING;
/// How long one resolver may take before the next one is asked, and a silent one is given up for that.
const STEP: Duration = Duration::from_millis(1500);
/// So many steps, and the client hears that it failed: less than the 5 s after which resolv.conf(5) has clients ask again.
const STEPS: u8 = 3;

/// See the module.
#[derive(Debug)]
pub struct Resolver<C> {
    zones: Zones,
    view: Arc<dyn View>,
    pool: Option<Pool>,
    sides: [Range<usize>; 2],
    lines: Vec<Line>,
    waiting: HashMap<Arc<Question>, Waiting<C>>,
    /// Clients that wait, over all questions.
    askers: usize,
    /// In order of time, as every step takes equally long.
    steps: VecDeque<Due>,
    cache: Cache,
    serial: u64,
    /// Of each side: answers to questions up to this one are not remembered.
    forgotten: [u64; 2],
    counters: Counters,
    told_of_full: bool,
}

/// One question, and who waits for its answer.
#[derive(Debug)]
struct Waiting<C> {
    serial: u64,
    /// The question in lower case, as it stands in a message.
    section: Box<[u8]>,
    askers: Vec<(C, Asked)>,
    /// Who was asked last.
    server: usize,
    tried: Servers,
    /// Who of those may still answer.
    owing: Servers,
    steps: u8,
    /// A stream that had answered nothing was lost, and the same server asked again on another.
    again: bool,
    /// A server's answer that says that it failed.
    failure: Option<Answer>,
}

impl<C> Waiting<C> {
    /// Whether `server` was asked last, or nobody else may still answer.
    fn is_left_with(&self, server: usize) -> bool {
        let mut others = self.owing;
        others.remove(server);
        self.server == server || others.is_empty()
    }
}

/// When a question's time with one server is over.
#[derive(Debug)]
struct Due {
    at: Instant,
    ticket: Ticket,
}

impl<C> Resolver<C> {
    /// One that has been asked nothing yet. At most 64 servers are used.
    pub fn new(config: Config) -> Self {
        let all = config.far + config.near;
        Self {
            zones: config.zones,
            view: config.view,
            pool: config.pools.map(Pool::new),
            sides: [0..config.far, config.far..all],
            lines: (0..all).map(|_| Line::default()).collect(),
            waiting: HashMap::new(),
            askers: 0,
            steps: VecDeque::new(),
            cache: Cache::default(),
            serial: 0,
            forgotten: [0; 2],
            counters: Counters::default(),
            told_of_full: false,
        }
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Of the addresses that stand for names: how many do, and how many can.
    pub fn pool_usage(&self, now: Instant) -> Option<(u32, u32)> {
        self.pool.as_ref().map(|pool| pool.usage(now))
    }

    /// The addresses of `networks` have their names on the far side from here on, and no others.
    pub fn set_networks(&mut self, networks: Vec<IpNet>) {
        self.zones.set_networks(networks);
    }

    /// What was heard of `side` counts no longer: others are asked there from here on.
    pub fn forget(&mut self, side: Side) {
        self.cache.forget(side);
        self.forgotten[side as usize] = self.serial;
    }

    /// A client's message.
    pub fn ask(&mut self, now: Instant, client: C, way: Way, message: &[u8]) -> Taken<C> {
        let (mut question, mut asked) = match question::read(message, way) {
            Ok(both) => both,
            Err(Unfit::Noise) => {
                self.counters.noise += 1;
                return Taken::Noise;
            }
            Err(Unfit::Answered(message)) => return Taken::Answered(Reply { client, message }),
        };
        self.counters.questions += 1;
        question::place(&mut question, &mut asked, &self.zones, &*self.view);
        if question.side == Side::Far
            && let Some(pool) = &mut self.pool
            && (self.zones.may_stand_for(&question.name) || by_name::is_of(pool, &question.name))
        {
            let is_meant = self.zones.is_meant(&question.name);
            let made = by_name::answer(pool, now, &question, &asked, is_meant);
            return Taken::Answered(match made {
                Some(message) => Reply { client, message },
                None => {
                    self.tell_of_full(now);
                    self.failed(client, &asked)
                }
            });
        }
        if let Some((answer, age)) = self.cache.get(&question, now) {
            self.counters.remembered += 1;
            let message = answer.copy_for(&asked, age, &*self.view);
            return Taken::Answered(Reply { client, message });
        }
        if self.askers >= MAX_ALL_ASKERS {
            return Taken::Answered(self.failed(client, &asked));
        }
        match self.waiting.get_mut(&question) {
            Some(waiting) if waiting.askers.len() < MAX_ASKERS => {
                waiting.askers.push((client, asked));
                self.askers += 1;
                self.counters.joined += 1;
                Taken::Waits
            }
            Some(_) => Taken::Answered(self.failed(client, &asked)),
            None => self.begin(now, question, client, asked),
        }
    }

    fn begin(&mut self, now: Instant, question: Question, client: C, asked: Asked) -> Taken<C> {
        let server = self.choose(question.side, now, Servers::default());
        let has_room = self.waiting.len() < MAX_WAITING && self.steps.len() < MAX_STEPS;
        let Some(server) = server.filter(|_| has_room) else {
            return Taken::Answered(self.failed(client, &asked));
        };
        self.serial += 1;
        let ticket = Ticket {
            question: Arc::new(question),
            serial: self.serial,
        };
        let waiting = Waiting {
            serial: self.serial,
            section: asked.passed_on(),
            askers: vec![(client, asked)],
            server,
            tried: Servers::default(),
            owing: Servers::default(),
            steps: 0,
            again: false,
            failure: None,
        };
        self.waiting.insert(Arc::clone(&ticket.question), waiting);
        self.askers += 1;
        self.steps.push_back(Due {
            at: now + STEP,
            ticket: ticket.clone(),
        });
        self.send_to(server, ticket);
        Taken::Waits
    }

    /// Once: who asks for many names goes on asking.
    fn tell_of_full(&mut self, now: Instant) {
        if std::mem::replace(&mut self.told_of_full, true) {
            return;
        }
        let (used, room) = self.pool_usage(now).unwrap_or_default();
        let hint = match room < pool::MOST {
            true => "; for more write larger networks: --dns-names=10.200.0.0/18,fd00:200::/112",
            false => "; there are never more",
        };
        tracing::warn!(
            "all {room} addresses that stand for names are taken ({used} in use), and further names fail (SERVFAIL) until one was not \
             used for 5 minutes{hint}"
        );
    }

    fn failed(&mut self, client: C, asked: &Asked) -> Reply<C> {
        self.counters.failed += 1;
        let message = asked.answered(ResponseCode::ServFail);
        Reply { client, message }
    }

    /// The first server of a side that was not tried and can be reached, as far as that is known.
    fn choose(&self, side: Side, now: Instant, tried: Servers) -> Option<usize> {
        let untried = || {
            let side = self.sides[side as usize].clone();
            side.filter(|server| !tried.has(*server))
        };
        let trusted = |server: &usize| self.lines[*server].is_trusted(now);
        untried().find(trusted).or_else(|| untried().next())
    }

    fn send_to(&mut self, server: usize, ticket: Ticket) {
        if let Some(waiting) = self.waiting.get_mut(&ticket.question) {
            waiting.server = server;
            waiting.tried.add(server);
            waiting.owing.add(server);
        }
        self.lines[server].queue(ticket, |ticket| is_current(&self.waiting, ticket));
    }

    /// Whom `ip` stands for, for a connection that uses it until [`leave`](Self::leave).
    pub fn enter(&mut self, now: Instant, ip: IpAddr) -> Named {
        let pool = self.pool.as_mut();
        pool.map_or(Named::Other, |pool| pool.enter(now, ip))
    }

    /// A connection to `ip`, which stood for a name, has ended.
    pub fn leave(&mut self, now: Instant, ip: IpAddr) {
        if let Some(pool) = &mut self.pool {
            pool.leave(now, ip);
        }
    }

    /// Whether there is something to be written to `server`.
    pub fn has_frames(&self, server: usize) -> bool {
        self.lines[server].has_work()
    }

    /// Whether the stream to `server` is to be given up since nothing comes from it. Told once.
    pub fn take_silent(&mut self, server: usize) -> bool {
        self.lines[server].take_silent()
    }

    /// The next message for `server`, its length in front.
    pub fn next_frame(&mut self, server: usize) -> Option<Vec<u8>> {
        let waiting = &self.waiting;
        let (id, ticket) = self.lines[server].send(|ticket| is_current(waiting, ticket))?;
        let section = &waiting.get(&ticket.question)?.section;
        // A question has 300 bytes at most.
        frame(&ticket.question.message(section, id))
    }

    /// A message from `server`.
    pub fn handle_message(&mut self, now: Instant, server: usize, message: &[u8]) -> Vec<Reply<C>> {
        match self.accept(now, server, message) {
            Ok(replies) => replies,
            Err(mismatch) => {
                self.counters.mismatched += 1;
                tracing::debug!("a message of name server {server} was dropped: {mismatch}");
                Vec::new()
            }
        }
    }

    fn accept(
        &mut self,
        now: Instant,
        server: usize,
        message: &[u8],
    ) -> Result<Vec<Reply<C>>, Mismatch> {
        let line = &mut self.lines[server];
        let id = Answer::id(message).ok_or(Mismatch::Malformed)?;
        let ticket = line.asked(id).ok_or(Mismatch::OtherQuestion)?.clone();
        let waiting = self.waiting.get_mut(&ticket.question);
        let Some(waiting) = waiting.filter(|waiting| waiting.serial == ticket.serial) else {
            // Answered by another, or given up.
            line.answered(now, id);
            return Ok(Vec::new());
        };
        let answer = Answer::read(message, &waiting.section)?;
        self.counters.trailing += u64::from(answer.is_part_of(message));
        let answer = match ticket.question.side {
            Side::Far => answer,
            Side::Near => answer.of_near_ones(),
        };
        line.answered(now, id);
        if !is_failure(answer.code()) {
            return Ok(self.answer(now, &ticket, answer));
        }
        waiting.failure = Some(answer);
        Ok(self.go_on_without(now, server, &ticket))
    }

    /// `server` does not answer this question; who was asked before it, or meanwhile, may know better.
    fn go_on_without(&mut self, now: Instant, server: usize, ticket: &Ticket) -> Vec<Reply<C>> {
        let Some(waiting) = self.waiting.get_mut(&ticket.question) else {
            return Vec::new();
        };
        let is_left_with = waiting.is_left_with(server);
        waiting.owing.remove(server);
        let is_awaited = !waiting.owing.is_empty();
        if !is_left_with {
            return Vec::new();
        }
        match self.ask_next(now, ticket) || is_awaited {
            true => Vec::new(),
            false => self.give_up(ticket),
        }
    }

    /// Asks a server that has not been asked yet; whether there is one.
    fn ask_next(&mut self, now: Instant, ticket: &Ticket) -> bool {
        let Some(waiting) = self.waiting.get(&ticket.question) else {
            return false;
        };
        let Some(next) = self.choose(ticket.question.side, now, waiting.tried) else {
            return false;
        };
        self.send_to(next, ticket.clone());
        true
    }

    fn answer(&mut self, now: Instant, ticket: &Ticket, answer: Answer) -> Vec<Reply<C>> {
        let Some(waiting) = self.end(ticket) else {
            return Vec::new();
        };
        let replies = copies(waiting.askers, &answer, &*self.view);
        let question = Question::clone(&ticket.question);
        if ticket.serial > self.forgotten[question.side as usize] {
            self.cache.put(question, Arc::new(answer), now);
        }
        replies
    }

    /// Nobody answers this question.
    fn give_up(&mut self, ticket: &Ticket) -> Vec<Reply<C>> {
        let Some(waiting) = self.end(ticket) else {
            return Vec::new();
        };
        if let Some(failure) = &waiting.failure {
            return copies(waiting.askers, failure, &*self.view);
        }
        let askers = waiting.askers.into_iter();
        askers
            .map(|(client, asked)| self.failed(client, &asked))
            .collect()
    }

    fn end(&mut self, ticket: &Ticket) -> Option<Waiting<C>> {
        let waiting = self.waiting.remove(&ticket.question)?;
        self.askers -= waiting.askers.len();
        let side = self.sides[ticket.question.side as usize].clone();
        for server in side.filter(|server| waiting.owing.has(*server)) {
            self.lines[server].judge();
        }
        Some(waiting)
    }

    /// The stream to `server` is gone; with `was_open` false there never was one.
    pub fn handle_lost(&mut self, now: Instant, server: usize, was_open: bool) -> Vec<Reply<C>> {
        let line = &mut self.lines[server];
        let (mut lost, has_answered) = line.lose();
        if !was_open {
            line.distrust(now);
            lost.extend(line.empty());
        }
        let mut replies = Vec::new();
        // The last first: each is put in front.
        for ticket in lost.into_iter().rev() {
            let waiting = self.waiting.get_mut(&ticket.question);
            let Some(waiting) = waiting.filter(|waiting| waiting.serial == ticket.serial) else {
                continue;
            };
            // A server that ends a stream after some answers goes on with the next one.
            if was_open
                && waiting.is_left_with(server)
                && (has_answered || !std::mem::replace(&mut waiting.again, true))
            {
                self.lines[server].queue_again(ticket);
            } else {
                replies.extend(self.go_on_without(now, server, &ticket));
            }
        }
        replies
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.steps.front().map(|due| due.at)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Reply<C>> {
        let mut replies = Vec::new();
        while self.steps.front().is_some_and(|due| due.at <= now) {
            if let Some(due) = self.steps.pop_front() {
                replies.extend(self.step(now, due.ticket));
            }
        }
        replies
    }

    fn step(&mut self, now: Instant, ticket: Ticket) -> Vec<Reply<C>> {
        let waiting = self.waiting.get_mut(&ticket.question);
        let Some(waiting) = waiting.filter(|waiting| waiting.serial == ticket.serial) else {
            return Vec::new();
        };
        waiting.steps += 1;
        let (steps, server) = (waiting.steps, waiting.server);
        let is_last = steps >= STEPS;
        // One that has refused has not been silent.
        let is_awaited = waiting.owing.has(server);
        // Its stream stays until nobody waits for it: on a fresh one a slow server would only begin anew.
        if (is_last || self.ask_next(now, &ticket)) && is_awaited {
            self.lines[server].suspect(now, STEP);
        }
        let replies = if is_last {
            self.give_up(&ticket)
        } else {
            self.steps.push_back(Due {
                at: now + STEP,
                ticket: ticket.clone(),
            });
            Vec::new()
        };
        let waiting = &self.waiting;
        self.lines[server].make_room(|ticket| is_current(waiting, ticket));
        replies
    }
}

/// One copy of `answer` for each.
fn copies<C>(askers: Vec<(C, Asked)>, answer: &Answer, view: &dyn View) -> Vec<Reply<C>> {
    let reply = |(client, asked): (C, Asked)| Reply {
        client,
        message: answer.copy_for(&asked, 0, view),
    };
    askers.into_iter().map(reply).collect()
}

fn is_current<C>(waiting: &HashMap<Arc<Question>, Waiting<C>>, ticket: &Ticket) -> bool {
    let waiting = waiting.get(&ticket.question);
    waiting.is_some_and(|waiting| waiting.serial == ticket.serial)
}

/// Whether another server may know better.
fn is_failure(code: ResponseCode) -> bool {
    !matches!(
        code,
        ResponseCode::NoError | ResponseCode::NXDomain | ResponseCode::YXDomain
    )
}
