//! The audit log: who connected where, when, through which login, and what came of it. One JSON object per line.
//!
//! # Theory of operation
//!
//! Whoever carries a flow hands an event over at its start and one at its end, and never waits: both go into a bounded queue. A
//! thread of its own takes them out, asks the kernel whose socket it was, and writes. Where it is too slow, the disk is
//! full or the journal is gone, lines are lost, not flows: the loss is counted, told once when it begins and once when it
//! is over, and then stands in the log itself. An end for which there is no room waits beside the queue: the writer knows its flow
//! until then.
//!
//! | file | idea |
//! |---|---|
//! | `event` | what is handed over |
//! | `conversations` | who talks without being a flow: until both are silent |
//! | `line` | the schema: events as JSON, in printable ASCII |
//! | `queue` | handing over without waiting, what waits beside, and what is lost |
//! | `writer` | the thread: batches, the flows that are open, the end of a loss |
//! | `protocol` | what a flow speaks |
//! | `owner` | user and process behind a flow, within a budget of time |
//! | `sink` | where lines go: `file`, `datagram` (journald and syslog) |
//!
//! # The lines
//!
//! Every line has `v` (the version of this schema, 1), `event`, `time` and `instance` (our process's number). Times are
//! RFC 3339 in UTC with milliseconds. Fields are added without a new version, and never change their meaning within one.
//! What is not known is `null`. All that is not printable ASCII is written as `\uXXXX`: no name can forge a line or steer
//! a terminal.
//!
//! | event | fields beside these |
//! |---|---|
//! | `session_start` | `version`, `uid`, `user`, `sudo_user`, `subnets`, `excludes`, `users` (numbers of those whose packets alone are captured), `gateway` (interfaces, or `all`), `device`, and the login: `carrier`, `server` (host and port), `address`, `login` (user there), `host_key`, `cipher`, `authentication`, `key` (fingerprint that let us in) |
//! | `session_lost` | `reason` |
//! | `session_back` | the login, as above |
//! | `session_stop` | `reason`, and of TCP connections `flows`, `bytes_up`, `bytes_down` |
//! | `flow_start` | `flow` (its number in this session), `start`, `uid`, `user`, `pid`, `process`, `program`, `protocol`, `source`, `target`, `mapped_to`, `name`, `carrier`, `server`, `address`, `login`, `key` |
//! | `flow_end` | the same, and `end`, `bytes_up`, `bytes_down`, `outcome`, `reason` |
//! | `lines_lost` | `count` |
//!
//! `outcome` is `finished`, `reset` (by one of the two ends), `lost` (the SSH connection), `refused` (`reason` says why,
//! with the server's words), `withdrawn` (the application gave up before the answer) or `stopped` (we ended). A flow that
//! is open has a `flow_start` and no `flow_end`. OpenSSH's server tells a reset on the far side as an end: that is `finished`.
//!
//! # What is a flow
//!
//! | `protocol` | asked for | what it is | bytes | its end |
//! |---|---|---|---|---|
//! | `tcp` | | a connection | of the streams | as above |
//! | `udp` | `--udp` | datagrams between two sockets | of the datagrams that went to the server's helper, and of the answers | `finished` 60 s after the last one, 30 s where none was answered; `refused` where that was since nobody is there, or the helper could not be started; `lost`; `stopped`, also where a 4,097th takes its place |
//! | `icmp` | `--ping` | echo requests from one address to another, and the replies that were given | of what they carry | `finished` 60 s after the last one, `stopped` |
//! | `udp`, `icmp` (echo), others by their number; with `full` and `ethernet` `tcp` too | `--tunnel` | packets between two sockets, or two addresses where there are no ports | of whole packets | `finished` 60 s after the last one, `stopped` |
//!
//! The login that stands beside a flow is that of TCP. Packets of a hybrid tunnel may go by another one, of the same user to the same
//! server, by the installed ssh (`carrier/packets/apart.rs`), which is not in the log.
//!
//! Where there are no ports they are 0, also in a fragment behind the first. In a tunnel whoever spoke first is the source: a host over
//! there with `full` and `ethernet`, or when one speaks again after a minute; what goes into a tunnel that is lost for now is counted.
//! Of pings and in a tunnel 16,384 are open at most: beyond that the one goes that has been silent for longest (`stopped`). Not
//! in the log are ICMP errors, what nobody carries (it is refused at once), questions to the name server of `--dns`, broadcasts, and
//! frames of `--tunnel=ethernet` that carry no IP.
//!
//! `target` is the address that the application asked for. Where that stands for another one (`FAR=LOCAL`, and in `run` for the
//! host's name server), `mapped_to` is the one that was asked for in its place; otherwise `null`. `name` is the host
//! whose name the target stands for (`--dns-names`), which was asked for then.
//!
//! `uid` and the process are those that own the socket on this host, or in the network of `run`. Both are `null` for what is
//! forwarded from a container or another host (`source` tells which), under `--netns`, for a socket that was gone before it could be looked at, and for what is neither TCP nor UDP. The
//! user is known of everybody's sockets. The process is known where it is of the user who runs underpass, who is the caller
//! under sudo, and of everybody's where that is root.
mod conversations;
mod event;
mod line;
mod owner;
mod protocol;
mod queue;
mod sink;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use self::event::{End, Event, Flow};
use self::queue::Queue;
use self::sink::Sink;
use self::writer::Writer;
use crate::net::{FlowKey, Target};
use crate::plan::AuditLog;
use crate::relay::{Meter, Outcome};

pub use self::conversations::{Conversations, Passed};
pub use self::event::{Login, Session, Totals};
pub use self::owner::{Addresses, Lookup};
pub use self::protocol::Protocol;
pub use self::sink::AuditError;

/// Takes what is to be written down.
#[derive(Debug)]
pub struct Audit {
    queue: Arc<Queue>,
    flows: AtomicU64,
}

impl Audit {
    /// Opens the log, and starts its thread; `lookup` finds who opens a connection.
    ///
    /// # Errors
    /// [`AuditError`]: where nothing can be written, nothing should be carried.
    pub fn open(destination: &AuditLog, lookup: Lookup) -> Result<Self, AuditError> {
        let sink = Sink::open(destination)?;
        let (queue, events) = Queue::new();
        let queue = Arc::new(queue);
        Writer::start(sink, events, Arc::clone(&queue), lookup).map_err(AuditError::Thread)?;
        Ok(Self {
            queue,
            flows: AtomicU64::new(0),
        })
    }

    /// A session begins.
    pub fn session(&self, session: Session) {
        self.hand_over(|time| Event::Session(time, Box::new(session)));
    }

    /// The SSH connection was lost.
    pub fn lost(&self, reason: String) {
        self.hand_over(|time| Event::Lost(time, reason));
    }

    /// There is one again.
    pub fn back(&self, login: Login) {
        self.hand_over(|time| Event::Back(time, Box::new(login)));
    }

    /// A flow begins: its first packet is here. It ends with [`FlowEntry::end`]; one that is dropped was stopped.
    /// `mapped_to` is whom its target stands for, if that is another, `name` the host whose name it stands for.
    pub fn flow(
        &self,
        protocol: Protocol,
        key: FlowKey,
        mapped_to: Option<Target>,
        name: Option<Arc<str>>,
    ) -> FlowEntry {
        let number = 1 + self.flows.fetch_add(1, Relaxed);
        let flow = Arc::new(Flow::new(number, protocol, key, mapped_to, name));
        let is_told = self.queue.offer(Event::FlowStart(Arc::clone(&flow)));
        FlowEntry {
            flow,
            queue: Arc::clone(&self.queue),
            is_told,
            has_ended: false,
        }
    }

    /// Opens the file anew, after it was renamed (logrotate(8)): before the next line is written.
    pub fn reopen(&self) {
        self.queue.want_reopen();
    }

    /// The session is over: writes that, and ends for what is open, within `patience`. Blocks. What is handed over later is
    /// not written.
    pub fn stop(&self, reason: &str, totals: Totals, patience: Duration) {
        let event = Event::Stop(SystemTime::now(), reason.to_owned(), totals);
        self.queue.finish(event, patience);
    }

    fn hand_over(&self, event: impl FnOnce(SystemTime) -> Event) {
        self.queue.offer(event(SystemTime::now()));
    }
}

/// A flow that is written down.
#[derive(Debug)]
pub struct FlowEntry {
    flow: Arc<Flow>,
    queue: Arc<Queue>,
    /// The writer hears, or has heard, of its start.
    is_told: bool,
    has_ended: bool,
}

impl FlowEntry {
    /// How it ended.
    pub fn end(mut self, outcome: &Outcome) {
        self.has_ended = true;
        self.hand_over(Some(outcome.clone()));
    }

    fn hand_over(&self, outcome: Option<Outcome>) {
        let (flow, end) = (Arc::clone(&self.flow), End::now(outcome));
        if self.is_told {
            self.queue.offer_end(flow, end);
        } else {
            self.queue.offer(Event::FlowEnd(flow, end));
        }
    }
}

impl Meter for FlowEntry {
    fn add_up(&self, bytes: u64) {
        self.flow.traffic.add_up(bytes);
    }

    fn add_down(&self, bytes: u64) {
        self.flow.traffic.add_down(bytes);
    }
}

impl Drop for FlowEntry {
    fn drop(&mut self) {
        if !self.has_ended {
            self.hand_over(None);
        }
    }
}

#[cfg(test)]
mod tests;
