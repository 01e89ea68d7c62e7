//! The sans-IO core: packets and far-side answers in, packets and new flows out.
//!
//! # Theory of operation
//!
//! A packet from the device is looked at once ([`packet`]), a verdict is taken ([`route`]), and it either goes
//! to its flow, is answered ([`reject`]), or is dropped with a counted reason ([`reason`]). A SYN for an
//! unknown pair of ends makes a flow that is no more than the SYN itself ([`held`]): the caller gets a
//! [`FlowHandle`], asks the far side, and then [`accept`](Engine::accept)s or
//! [`refuse`](Engine::refuse)s. Only an accepted flow has a TCP stack ([`tcp`]): one smoltcp interface with one
//! socket, fed with the SYN that was held. Datagrams to a [name server](Config::name_servers) are handed out, and
//! [`answer_name`](Engine::answer_name) sends what comes of them. What becomes of everything else that is no TCP, and
//! whether TCP is ours at all, the [`Ways`] say ([`beside`]); what comes back through a tunnel has to answer something ([`asked`]).
//!
//! A flow is an island behind one lock of its own. Whoever changes it drains its packets to the
//! [`Outlet`] before the lock is let go, so packets of one flow leave in order and no loop stands between two
//! flows. The table's lock is held for a look-up, an insertion or a removal only, and never
//! together with a flow's.
//!
//! Nothing here reads a clock, waits, or draws a random number: `now` and the seed are arguments.
//!
//! # Order of calls
//!
//! [`handle_packet`](Engine::handle_packet) for every packet, or [`handle_packet_in`](Engine::handle_packet_in) for each of those that
//! came together, then `end_batch`, and `acknowledge` when the relays have had their turn; [`handle_timeout`](Engine::handle_timeout) when
//! [`poll_timeout`](Engine::poll_timeout) has come ([`Outlet::rearm`] says that it moved nearer), and for each
//! handle: `poll_withdrawn` until `accept` or `refuse`, then `poll_read`, `poll_write` and `flush`,
//! `poll_finish`, `poll_reset`, and [`abandon`](Engine::abandon) for what was not ended in order.

mod asked;
mod beside;
pub mod datagram;
pub mod echo;
mod flow;
mod fragment;
mod held;
pub mod outline;
pub mod packet;
mod parties;
mod patience;
mod phy;
pub mod reason;
mod received;
pub mod reject;
pub mod route;
mod said;
mod scratch;
mod table;
mod tcp;
mod timers;
pub mod ways;

use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use smoltcp::time::Instant;

use crate::net::{FlowKey, OpenFailure, StreamError};

use asked::Asked;
pub use datagram::Datagram;
pub use echo::Echo;
pub use flow::FlowHandle;
use flow::{Flow, Step};
use packet::{Parsed, Tcp};
pub use parties::Parties;
use patience::Patience;
pub use reason::{Drops, Reason};
use route::Verdict;
pub use scratch::Scratch;
use table::Table;
use timers::Timers;
pub use ways::{Others, Pings, Udp, Ways};

/// Free bytes in front of every outgoing [`Frame`], for a header of the device's own.
pub const HEADROOM: usize = 10;
/// Of every packet that is made here (RFC 1700).
const HOP_LIMIT: u8 = 64;
/// The port of the DNS.
const DNS: u16 = 53;
/// Deadlines that are looked at in one call, about half a millisecond: those of many flows fall together.
const TIMEOUTS: usize = 1024;

/// A packet on its way out.
#[derive(Debug)]
pub struct Frame<'a> {
    /// [`HEADROOM`] bytes that the device may use, then one IP packet of at most 65,535 bytes.
    pub buffer: &'a mut [u8],
    /// The TCP checksum field is empty: the device has to fill it in or to hand it on as partial.
    pub partial_checksum: bool,
    /// The packet stands for TCP segments of so many payload bytes each; the last may be shorter.
    pub segment_size: Option<NonZeroU16>,
}

/// What leaves an engine on its own.
pub trait Outlet: Send + Sync {
    /// Sends a packet to the device. Must not block, and must not call the engine.
    fn transmit(&self, frame: Frame<'_>);

    /// [`Engine::poll_timeout`] is now `at`, earlier than before.
    fn rearm(&self, at: Instant);

    /// Nothing is kept in `unused` for now: its memory may go back to the system. What it holds then does not matter.
    fn give_back(&self, unused: &mut [u8]) {
        let _ = unused;
    }
}

/// The addresses of the name server: datagrams to their port 53 are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameServers(pub [Option<IpAddr>; 2]);

impl NameServers {
    /// Whether somebody who writes to `target` asks a name server.
    pub fn has(&self, target: SocketAddr) -> bool {
        target.port() == DNS && self.0.contains(&Some(target.ip()))
    }
}

/// What a packet brings.
#[derive(Debug)]
pub enum Arrival<'a> {
    /// A new flow that waits for the far side's answer.
    Flow(FlowHandle),
    /// A datagram to a name server.
    Name(Datagram<'a>),
    /// Something that is no flow, and somebody may carry.
    Beside(Beside<'a>),
}

/// What is no flow of ours, as the [`Ways`] have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside<'a> {
    /// A whole IP packet, its checksums complete where the device gave them so.
    Packet(&'a [u8]),
    /// A datagram.
    Datagram(Datagram<'a>),
    /// An echo request.
    Echo(Echo<'a>),
}

impl Arrival<'_> {
    /// The flow, if it is one.
    pub fn into_flow(self) -> Option<FlowHandle> {
        match self {
            Self::Flow(flow) => Some(flow),
            Self::Name(_) | Self::Beside(_) => None,
        }
    }
}

/// What an engine is made for; constant over its life.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The device's MTU in bytes; decides the MSS that is offered.
    pub mtu: usize,
    /// The device segments and completes TCP checksums ([`Frame::segment_size`]).
    pub offload: bool,
    /// What initial sequence numbers are derived from (RFC 6528 asks for a secret).
    pub seed: u64,
    /// Flows that may wait for the far side's answer; a SYN beyond is dropped, and the kernel sends it again.
    pub max_held: usize,
    /// Flows in all.
    pub max_flows: usize,
    /// Bytes on their way to applications over all flows, beyond which a flow may hold no more than 32 KiB.
    pub max_queued: usize,
    /// Where names are asked for.
    pub name_servers: NameServers,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mtu: 1500,
            offload: false,
            seed: 0,
            max_held: 16_384,
            max_flows: 65_536,
            max_queued: 512 << 20,
            name_servers: NameServers::default(),
        }
    }
}

/// Whether the sender's checksum can be relied upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The device vouches for it, or it is still to be filled in by hardware that is not there.
    Trusted,
    /// To be verified; a wrong one is a counted drop.
    Unverified,
}

/// The flows that packets of one wake-up went to and that have not answered yet.
#[derive(Debug, Default)]
pub struct Batch {
    /// The flow of the last packets, which brought nothing but room.
    room: Option<Arc<Flow>>,
    /// Those that got bytes or an end: what comes is passed on before it is acknowledged. One entry a packet at most.
    news: Vec<Arc<Flow>>,
    ways: ways::Known,
}

impl Batch {
    /// The flow of the packet before, if `key` is its.
    fn last(&mut self, key: &FlowKey) -> Option<Arc<Flow>> {
        let is_same = |flow: &Arc<Flow>| flow.key == *key;
        let room = self.room.take_if(|flow| is_same(flow));
        room.or_else(|| self.news.last().filter(|flow| is_same(flow)).cloned())
    }

    /// Notes that `flow` has to answer.
    fn owe(&mut self, flow: Arc<Flow>, brought_news: bool) {
        let is_noted = |last: &Arc<Flow>| Arc::ptr_eq(last, &flow);
        if self.news.last().is_some_and(is_noted) {
            return;
        }
        if brought_news {
            self.news.push(flow);
        } else {
            self.room = Some(flow);
        }
    }
}

/// The core. Shared by the driver of the device and by every relay.
#[derive(Debug)]
pub struct Engine<O> {
    config: Config,
    outlet: O,
    table: Table,
    timers: Timers,
    drops: Drops,
    queued: AtomicUsize,
    ways: ways::Current,
    asked: Asked,
    too_long: Patience,
    /// Of the last packet that was cut.
    fragment_id: AtomicU32,
}

impl<O: Outlet> Engine<O> {
    /// An engine without flows.
    pub fn new(config: Config, outlet: O) -> Self {
        Self {
            asked: Asked::new(config.seed),
            config,
            outlet,
            table: Table::default(),
            timers: Timers::default(),
            drops: Drops::default(),
            queued: AtomicUsize::new(0),
            ways: ways::Current::default(),
            too_long: Patience::default(),
            fragment_id: AtomicU32::new(config.seed as u32),
        }
    }

    /// How often each reason to drop or to refuse a packet has come up.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// How many flows exist: held, open and closing.
    pub fn flow_count(&self) -> usize {
        self.table.len()
    }

    /// The outlet that the engine was made with.
    pub fn outlet(&self) -> &O {
        &self.outlet
    }

    /// Takes one packet from the device; what it brings, if that is something new.
    pub fn handle_packet<'a>(
        &self,
        now: Instant,
        packet: &'a [u8],
        checksum: Checksum,
    ) -> Option<Arrival<'a>> {
        let mut batch = Batch::default();
        let opened = self.handle_packet_in(&mut batch, now, packet, checksum);
        self.end_batch(&mut batch, now);
        self.acknowledge(&mut batch, now);
        opened
    }

    /// As [`handle_packet`](Self::handle_packet), one of several packets that came together. What a flow has to send now
    /// that there is room is sent when the next flow's packet comes, or at [`end_batch`](Self::end_batch); bytes and ends
    /// are answered at [`acknowledge`](Self::acknowledge).
    pub fn handle_packet_in<'a>(
        &self,
        batch: &mut Batch,
        now: Instant,
        packet: &'a [u8],
        checksum: Checksum,
    ) -> Option<Arrival<'a>> {
        let ways = batch.ways.now(&self.ways).of(packet);
        let parsed = match packet::parse(packet, checksum) {
            Ok(parsed) => parsed,
            Err(reason) => return self.handle_unparsed(now, packet, reason, &ways),
        };
        match route::verdict(&parsed, &self.config.name_servers, &ways) {
            Verdict::Flow(tcp) => {
                let flow = self.handle_tcp(batch, now, &parsed, tcp);
                flow.map(Arrival::Flow)
            }
            Verdict::Name => self.read_datagram(&parsed, checksum).map(Arrival::Name),
            Verdict::Reject(reject, reason) => {
                self.drops.count(reason);
                reject::unreachable(reject, &parsed, &mut |f| self.outlet.transmit(f));
                None
            }
            Verdict::Drop(reason) => {
                self.drops.count(reason);
                None
            }
            Verdict::Beside(handed) => {
                let beside = self.handle_beside(now, &parsed, checksum, handed, &ways);
                beside.map(Arrival::Beside)
            }
        }
    }

    /// Lets the flow of the last packets use the room that they made.
    pub fn end_batch(&self, batch: &mut Batch, now: Instant) {
        if let Some(flow) = batch.room.take() {
            self.answer(&flow, now);
        }
    }

    /// Acknowledges what came with the packets of a batch. Nobody waits for that but the kernel, so it is best done when
    /// the relays have had their turn; what they send back meanwhile acknowledges as well.
    pub fn acknowledge(&self, batch: &mut Batch, now: Instant) {
        for flow in batch.news.drain(..) {
            self.answer(&flow, now);
        }
    }

    fn answer(&self, flow: &Arc<Flow>, now: Instant) {
        let step = flow.answer(self, now);
        self.after(flow, step);
    }

    fn handle_tcp(
        &self,
        batch: &mut Batch,
        now: Instant,
        parsed: &Parsed<'_>,
        tcp: Tcp,
    ) -> Option<FlowHandle> {
        // A SYN may begin a new flow between the ends of one that is over but for its answer.
        let last = (!tcp.syn).then(|| batch.last(&tcp.key)).flatten();
        if last.is_none() {
            self.end_batch(batch, now);
        }
        if tcp.syn && batch.news.iter().any(|flow| flow.key == tcp.key) {
            self.acknowledge(batch, now);
        }
        if let Some(flow) = last.or_else(|| self.table.get(&tcp.key)) {
            let step = flow.handle_segment(self, now, parsed, tcp);
            self.after(&flow, step);
            batch.owe(flow, tcp.brings_news());
            return None;
        }
        if tcp.is_opening() {
            return self.hold(now, parsed, tcp);
        }
        if !tcp.rst {
            self.drops.count(Reason::NoFlow);
            reject::reset(parsed, tcp, &mut |f| self.outlet.transmit(f));
        }
        None
    }

    fn hold(&self, now: Instant, parsed: &Parsed<'_>, tcp: Tcp) -> Option<FlowHandle> {
        if self.table.len() >= self.config.max_flows || self.table.held() >= self.config.max_held {
            self.drops.count(Reason::NoRoom);
            return None;
        }
        let flow = Arc::new(Flow::hold(tcp.key, now, parsed.bytes));
        self.table.insert(&flow);
        let step = flow.arm(self, now);
        self.after(&flow, step);
        Some(FlowHandle(flow))
    }

    /// The far side is open: answers the held SYN. A flow that is gone by now stays gone.
    pub fn accept(&self, now: Instant, flow: &FlowHandle) {
        let step = flow.0.accept(self, now);
        self.after(&flow.0, step);
    }

    /// The far side did not open: answers the held SYN as [`route::refusal`] has it.
    pub fn refuse(&self, now: Instant, flow: &FlowHandle, failure: OpenFailure) {
        let step = flow.0.refuse(self, now, failure);
        self.after(&flow.0, step);
    }

    /// Ready when the initiator has given up on a held flow.
    pub fn poll_withdrawn(&self, flow: &FlowHandle, cx: &mut Context<'_>) -> Poll<()> {
        flow.0.poll_withdrawn(cx)
    }

    /// The next bytes from the application, at most `max`; `None` after its FIN, also when a reset came after that. What
    /// came before a reset is read before it.
    pub fn poll_read(
        &self,
        now: Instant,
        flow: &FlowHandle,
        max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let (result, step) = flow.0.poll_read(self, now, max, cx);
        self.after(&flow.0, step);
        result
    }

    /// Ready when the application has reset the flow, also after its FIN.
    pub fn poll_reset(&self, flow: &FlowHandle, cx: &mut Context<'_>) -> Poll<StreamError> {
        flow.0.poll_reset(cx)
    }

    /// Takes bytes for the application off the front of `chunk`; ready when it is empty. What fills no packet may be
    /// held back until [`flush`](Self::flush), so that chunks that come together leave together. After a reset it is thrown
    /// away, and an error only once the reader has been told its end: an error ends both directions.
    pub fn poll_write(
        &self,
        now: Instant,
        flow: &FlowHandle,
        chunk: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        let (result, step) = flow.0.poll_write(self, now, chunk, cx);
        self.after(&flow.0, step);
        result
    }

    /// Sends what [`poll_write`](Self::poll_write) held back.
    pub fn flush(&self, now: Instant, flow: &FlowHandle) {
        let step = flow.0.flush(self, now);
        self.after(&flow.0, step);
    }

    /// Ends the direction to the application with a FIN behind all that was written.
    pub fn poll_finish(
        &self,
        now: Instant,
        flow: &FlowHandle,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        let (result, step) = flow.0.poll_finish(self, now, cx);
        self.after(&flow.0, step);
        result
    }

    /// Nobody relays this flow any more although it has not ended in order: a held one is forgotten in silence,
    /// an open one is reset, behind all that was written, or behind what its application has room for where much waits already, or
    /// the target is a name server of ours.
    pub fn abandon(&self, now: Instant, flow: &FlowHandle) {
        let step = flow.0.abandon(self, now);
        self.after(&flow.0, step);
    }

    /// Resets every open flow, behind what its application has room for, and forgets every held one: nothing will carry them any
    /// more.
    pub fn abandon_all(&self, now: Instant) {
        for flow in self.table.all() {
            let step = flow.abandon_now(self, now);
            self.after(&flow, step);
        }
    }

    /// The earliest time at which [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.earliest()
    }

    /// Does some of what is due at `now`: retransmissions, keepalives, initiators that gave up. Where that is more,
    /// [`poll_timeout`](Self::poll_timeout) stays as it was, and packets may have their turn before the next call.
    pub fn handle_timeout(&self, now: Instant) {
        for due in iter::from_fn(|| self.timers.pop_due(now)).take(TIMEOUTS) {
            if let Some(flow) = due.upgrade() {
                let step = flow.handle_timeout(self, now);
                self.after(&flow, step);
            }
        }
    }

    /// What a change of a flow asks of the engine, done when the flow's lock is free again.
    fn after(&self, flow: &Arc<Flow>, step: Step) {
        if step.no_longer_held {
            self.table.answered();
        }
        if step.remove {
            self.table.remove(flow);
        } else if let Some(at) = step.arm_at
            && self.timers.arm(at, flow)
        {
            self.outlet.rearm(at);
        }
        if let Some(waker) = step.wake {
            Waker::wake(waker);
        }
    }

    /// Adds to what waits for applications over all flows. `change` is the flow's new count less its old.
    fn account_queued(&self, before: usize, after: usize) {
        if after > before {
            self.queued.fetch_add(after - before, Ordering::Relaxed);
        } else if before > after {
            self.queued.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    fn is_crowded(&self) -> bool {
        self.queued.load(Ordering::Relaxed) > self.config.max_queued
    }

    /// A number that nobody outside can guess, for the initial sequence number of a flow (RFC 6528).
    fn flow_seed(&self, key: &FlowKey, now: Instant) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (self.config.seed, key, now.total_micros()).hash(&mut hasher);
        hasher.finish()
    }
}
