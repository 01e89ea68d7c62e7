//! The TCP stack of one open flow: a smoltcp interface that owns just the target's address, and one socket.

use std::cell::Cell;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use bytes::Bytes;
use smoltcp::iface::{self, Interface, PollResult};
use smoltcp::socket::tcp::{RecvError, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};

use super::packet::{Parsed, Tcp, max_segment_size};
use super::phy::{Phy, full_packet};
use super::received::Received;
use super::said::{Heard, Told};
use super::{Config, Outlet};
use crate::net::StreamError;
use crate::os::ring::RingSocket;

/// Room for bytes on their way to the application. Pages are committed when they are first touched, and given back when the
/// flow is [`IDLE`].
const TO_APPLICATION: usize = 512 << 10;
/// Room for bytes from the application: the window that it sees.
const FROM_APPLICATION: usize = 256 << 10;
/// The same when so many flows exist that the sum of all windows would matter.
const FROM_APPLICATION_CROWDED: usize = 128 << 10;
const CROWD: usize = 1024;

/// An application whose host has vanished without a word is noticed by these. A stopped reader is not: its
/// kernel answers.
const KEEP_ALIVE: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(600);

/// A ring that nobody used for so long gives its memory back.
const IDLE: Duration = Duration::from_millis(250);
/// So does the other one, if nobody used that for so long: mostly both are used together.
const NEARLY_IDLE: Duration = Duration::from_millis(125);

/// What may go into the void: written after a reset while what came before it is not read on, or sent by an application that does not
/// read on to the reset. Whoever sends without end and reads nothing learns of the reset then.
const VOID: usize = 64 << 20;

/// An application that takes nothing for so long is not waited for with a reset: its kernel would answer for it for ever.
const READS_NOTHING: Duration = Duration::from_secs(120);

/// So many acknowledgments of the same have what is missing sent again at once (RFC 5681 section 3.2).
const DUPLICATES: usize = 3;

/// What a host takes that does not say (RFC 9293 section 3.7.1).
const DEFAULT_MSS_V6: usize = 1220;
/// Below this a SYN's word is not taken; smoltcp and Linux (`TCP_MIN_SND_MSS`) have the same bound.
const LEAST_MSS: usize = 48;
/// The headers of IPv6 and TCP without options.
const HEADERS_V6: usize = 60;

pub(super) struct Stack {
    interface: Interface,
    socket: RingSocket,
    received: Received,
    /// See [`Phy::ipv6_segment`].
    ipv6_segment: Option<NonZeroU16>,
    /// Bytes that were written since the last [`drain`](Self::drain).
    pub(super) held_back: usize,
    /// The last look for bytes from the application found none, and left a waker.
    pub(super) reader_waits: bool,
    /// The caller has promised to have what came last answered.
    pub(super) answer_comes: bool,
    /// When bytes for the application were last written, until the memory of their ring was given back.
    pub(super) written_at: Option<Instant>,
    /// The same of bytes from the application that were read.
    read_at: Option<Instant>,
    told: Told,
    /// The connection ended abruptly: by the application, by its silence, or by us.
    reset: bool,
    /// The reader has been told how the bytes from the application end.
    end_told: bool,
    /// A FIN is to follow what is still to be sent.
    finishing: bool,
    /// A reset is to follow what is still to be sent. Boxed: few flows end so.
    aborting: Option<Box<Aborting>>,
    /// Bytes that nobody took, of one direction: written after a reset since the reader last took some, or received since a reset
    /// is to follow.
    into_the_void: usize,
}

/// What a reset waits for.
struct Aborting {
    /// Bytes that were still to be taken, and since when they are no fewer.
    queued: usize,
    since: Instant,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack")
            .field("state", &self.state())
            .finish()
    }
}

impl Stack {
    /// A stack that listens where `syn` goes to, a packet whose header is `tcp`. `flows` is the number of flows that exist.
    pub(super) fn listen<O: Outlet>(
        phy: &mut Phy<'_, O>,
        syn: &Parsed<'_>,
        tcp: &Tcp,
        seed: u64,
        flows: usize,
        now: Instant,
    ) -> Option<Self> {
        let target = tcp.key.target.0;
        phy.ipv6_segment = ipv6_segment(phy.config, syn, target);
        let mut config = iface::Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, phy, now);
        let address = IpAddress::from(target.ip());
        let prefix_len = if target.is_ipv4() { 32 } else { 128 };
        interface.update_ip_addrs(|addresses| {
            // Cannot be full: it is the first one.
            let _ = addresses.push(IpCidr::new(address, prefix_len));
        });
        let from_application = if flows < CROWD {
            FROM_APPLICATION
        } else {
            FROM_APPLICATION_CROWDED
        };
        let mut socket = RingSocket::new(from_application, TO_APPLICATION);
        socket.set_nagle_enabled(false);
        // A packet from the device is up to 64 KB: an ACK for each costs little, a late one stalls.
        socket.set_ack_delay(None);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(TIMEOUT));
        socket
            .listen(IpEndpoint::new(address, target.port()))
            .ok()?;
        Some(Self {
            interface,
            socket,
            received: Received::behind(tcp),
            ipv6_segment: phy.ipv6_segment,
            held_back: 0,
            reader_waits: false,
            answer_comes: false,
            written_at: None,
            read_at: None,
            told: Told::default(),
            reset: false,
            end_told: false,
            finishing: false,
            aborting: None,
            into_the_void: 0,
        })
    }

    /// Whether what has come in wakes a reader, which will then drain.
    pub(super) fn wakes_reader(&self) -> bool {
        self.reader_waits && self.socket.can_recv()
    }

    pub(super) fn socket(&mut self) -> &mut RingSocket {
        &mut self.socket
    }

    pub(super) fn state(&self) -> State {
        self.socket.state()
    }

    /// Both directions have ended, or the connection was reset.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state(), State::Closed | State::TimeWait)
    }

    /// The connection ended abruptly.
    pub(super) fn was_reset(&self) -> bool {
        self.reset
    }

    /// Takes up to `max` bytes from the application; two pieces where the ring wraps.
    pub(super) fn receive(&mut self, max: usize, now: Instant) -> Bytes {
        self.into_the_void = 0;
        self.read_at = Some(now);
        let socket = &mut self.socket;
        let mut chunk = Vec::with_capacity(socket.recv_queue().min(max));
        while chunk.len() < max && socket.can_recv() {
            let room = max - chunk.len();
            let taken = socket.recv(|piece| {
                let taken = piece.len().min(room);
                chunk.extend_from_slice(&piece[..taken]);
                (taken, taken)
            });
            if !matches!(taken, Ok(1..)) {
                break;
            }
        }
        self.received.take(chunk.len());
        chunk.into()
    }

    /// How the bytes from the application ended, once all are read: in order, also when a reset came after its FIN.
    pub(super) fn end(&mut self) -> Result<(), StreamError> {
        self.end_told = true;
        match self.socket.recv(|_| (0, ())) {
            Err(RecvError::Finished) => Ok(()),
            _ => Err(StreamError::Reset),
        }
    }

    /// What becomes of `len` bytes that are written after a reset. They are thrown away, and the far side is not told before it
    /// has all that came ahead of the reset: an error would end both directions.
    pub(super) fn swallow(&mut self, len: usize) -> Result<(), StreamError> {
        self.into_the_void = self.into_the_void.saturating_add(len);
        if self.end_told || self.into_the_void > VOID {
            Err(StreamError::Reset)
        } else {
            Ok(())
        }
    }

    /// Bytes that wait for the application, sent or not.
    pub(super) fn queued(&self) -> usize {
        self.socket.send_queue()
    }

    /// Takes in a segment of the open flow, which is `parsed` and has the header `tcp`.
    pub(super) fn hear<O: Outlet>(
        &mut self,
        config: &Config,
        outlet: &O,
        parsed: &Parsed<'_>,
        tcp: &Tcp,
        now: Instant,
    ) {
        let heard = match self.state() {
            State::SynReceived => Heard::Plainly,
            _ => self.told.hear(tcp, parsed),
        };
        let mut take = |bytes| self.ingest(&mut phy(config, outlet, Some(bytes)), now, tcp);
        match heard {
            Heard::Plainly => take(parsed.bytes),
            Heard::Instead(bytes) => take(&bytes),
            Heard::Opens => (0..=DUPLICATES).for_each(|_| take(parsed.bytes)),
        }
    }

    /// Takes in the packet that waits in `phy`, whose header is `tcp`.
    pub(super) fn ingest<O: Outlet>(&mut self, phy: &mut Phy<'_, O>, now: Instant, tcp: &Tcp) {
        let was_open = self.state() != State::Closed;
        phy.ipv6_segment = self.ipv6_segment;
        self.received.hear(tcp, self.socket.recv_capacity());
        self.socket
            .poll_ingress_single(&mut self.interface, now, phy);
        self.note_sent(phy);
        // smoltcp listens again after a reset in SYN-RECEIVED (RFC 9293 section 3.10.7.4); this flow is over.
        if self.state() == State::Listen {
            self.socket.close();
        }
        self.reset |= tcp.rst && was_open && self.state() == State::Closed;
    }

    /// Sends everything that may be sent now. Bounded by the windows of the peer.
    pub(super) fn drain<O: Outlet>(&mut self, phy: &mut Phy<'_, O>, now: Instant) {
        let was_open = !self.is_over();
        phy.ipv6_segment = self.ipv6_segment;
        self.held_back = 0;
        if self.aborting.is_some() {
            self.discard(now);
        }
        self.close_in_time();
        self.send(phy, now);
        if self.is_to_be_reset(now) {
            self.socket.abort();
            self.send(phy, now);
        }
        // Without a segment, only the socket's own time-out closes it.
        self.reset |= was_open && self.state() == State::Closed;
    }

    fn send<O: Outlet>(&mut self, phy: &mut Phy<'_, O>, now: Instant) {
        while let PollResult::SocketStateChanged =
            self.socket.poll_egress(&mut self.interface, now, phy)
        {}
        self.note_sent(phy);
    }

    /// Has a FIN follow all that was written.
    pub(super) fn finish<O: Outlet>(&mut self, phy: &mut Phy<'_, O>, now: Instant) {
        self.finishing = true;
        self.drain(phy, now);
    }

    /// In LAST-ACK smoltcp 0.14 looks at no segment that acknowledges nothing new: an application that has ended its direction
    /// and lets its window close would not be heard when it opens again, nor its kernel's signs of life. So that state begins
    /// when the bytes have arrived.
    fn close_in_time(&mut self) {
        if self.finishing && (self.state() != State::CloseWait || self.queued() == 0) {
            self.finishing = false;
            self.socket.close();
        }
    }

    /// Has a reset follow all that was written, once the peer has room for it: what a far side sent before it closed is its
    /// application's (RFC 4254 section 5.3). Nobody reads from here on.
    pub(super) fn abort<O: Outlet>(&mut self, phy: &mut Phy<'_, O>, now: Instant) {
        self.aborting = Some(Box::new(Aborting {
            queued: self.queued(),
            since: now,
        }));
        self.reader_waits = false;
        self.into_the_void = 0;
        self.drain(phy, now);
    }

    /// Ends the connection with a reset behind what the peer has room for.
    pub(super) fn abort_now<O: Outlet>(&mut self, phy: &mut Phy<'_, O>, now: Instant) {
        self.drain(phy, now);
        self.socket.abort();
        self.drain(phy, now);
        self.reset = true;
    }

    /// Whether the reset that is to follow has waited long enough.
    fn is_to_be_reset(&mut self, now: Instant) -> bool {
        let Some(aborting) = &mut self.aborting else {
            return false;
        };
        let queued = self.socket.send_queue();
        if queued < aborting.queued {
            **aborting = Aborting { queued, since: now };
        }
        let is_all_sent = !self.finishing && queued <= self.told.on_their_way();
        is_all_sent || self.into_the_void > VOID || now >= aborting.since + READS_NOTHING
    }

    /// Takes what the application sends, so that it gets to reading what was written before the reset.
    fn discard(&mut self, now: Instant) {
        if self.socket.can_recv() {
            let before = self.into_the_void;
            let taken = self.receive(usize::MAX, now).len();
            self.into_the_void = before.saturating_add(taken);
        }
    }

    /// Sends what fills packets of what was written, and holds the rest back. Whether anything was sent.
    pub(super) fn drain_full<O: Outlet>(&mut self, phy: &mut Phy<'_, O>, now: Instant) -> bool {
        phy.ipv6_segment = self.ipv6_segment;
        let full = full_packet(phy.config);
        let mut sent = false;
        while self.held_back >= full
            && let PollResult::SocketStateChanged =
                self.socket.poll_egress(&mut self.interface, now, phy)
        {
            sent = true;
            // Never none: the packet may have been a smaller one, so only a flush knows that nothing is left.
            self.held_back = (self.held_back - full).max(1);
        }
        self.note_sent(phy);
        sent
    }

    /// Whatever was sent but a SYN-ACK told the application of the window as it is.
    fn note_sent<O: Outlet>(&mut self, phy: &Phy<'_, O>) {
        let Some(said) = phy.said.take() else { return };
        let is_syn_ack = self.state() == State::SynReceived;
        self.told.note(said, is_syn_ack);
    }

    /// When the memory of a ring is worth giving back; `None` while there are bytes in both.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        let written_at = self.written_at.filter(|_| self.queued() == 0);
        let read_at = self.read_at.filter(|_| self.received.is_all_taken());
        let used_at = [written_at, read_at].into_iter().flatten().min()?;
        Some(used_at + IDLE)
    }

    /// Gives the memory of rings that nobody uses back.
    pub(super) fn give_back<O: Outlet>(&mut self, outlet: &O, now: Instant) {
        let is_idle = |used_at: &mut Instant| *used_at + NEARLY_IDLE <= now;
        if self.queued() == 0
            && self.written_at.take_if(is_idle).is_some()
            && let Some(unused) = self.socket.unused_to_send()
        {
            outlet.give_back(unused);
        }
        if self.received.is_all_taken()
            && self.read_at.take_if(is_idle).is_some()
            && let Some(unused) = self.socket.unused_received()
        {
            outlet.give_back(unused);
        }
    }

    /// Whether `tcp` reaches beyond every window that the application was told of. smoltcp takes the first one, which is not
    /// scaled, for one that is, and would panic at what its ring has no room for.
    pub(super) fn is_beyond_window(&self, tcp: &Tcp) -> bool {
        self.told.is_first_window() && self.received.is_beyond_first_window(tcp)
    }

    /// When [`drain`](Self::drain) has something to do next without any further event.
    pub(super) fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        self.socket.poll_at(&mut self.interface, now)
    }
}

/// What a flow needs to know to give a stack its device.
pub(super) fn phy<'a, O: Outlet>(
    config: &'a Config,
    outlet: &'a O,
    incoming: Option<&'a [u8]>,
) -> Phy<'a, O> {
    Phy {
        config,
        outlet,
        incoming,
        ipv6_segment: None,
        said: Cell::new(None),
    }
}

/// How the device shall cut the packets of an IPv6 flow: by what the application's SYN allows, and by the MTU.
fn ipv6_segment(config: &Config, syn: &Parsed<'_>, target: SocketAddr) -> Option<NonZeroU16> {
    if !config.offload || target.is_ipv4() {
        return None;
    }
    let offered = max_segment_size(syn).map_or(DEFAULT_MSS_V6, usize::from);
    let fits = config.mtu.checked_sub(HEADERS_V6)?;
    NonZeroU16::new(offered.max(LEAST_MSS).min(fits) as u16)
}
