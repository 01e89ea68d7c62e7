//! What is no flow: handed out as the [`Ways`] have it, and what comes back for it. Nothing is kept of either.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use smoltcp::time::Instant;

use super::outline::{self, Outline, Role};
use super::packet::Parsed;
use super::reason::Reason;
use super::reject::{self, Unreachable};
use super::route::{self, Handed};
use super::{
    Arrival, Beside, Checksum, Datagram, Echo, Engine, Frame, HEADROOM, Outlet, Ways, datagram,
    echo, fragment, phy,
};
use crate::net::{Source, Target};

/// The least MTU that IPv6 knows (RFC 8200 section 5).
const LEAST_MTU_V6: usize = 1280;

impl<O: Outlet> Engine<O> {
    /// From here on, what is no flow goes these ways.
    pub fn carry(&self, ways: Ways) {
        self.ways.set(Ways {
            // Who gets a packet whole cannot cut it.
            full: ways.full && !self.config.offload,
            ..ways
        });
    }

    pub(super) fn handle_beside<'a>(
        &self,
        now: Instant,
        parsed: &Parsed<'a>,
        checksum: Checksum,
        handed: Handed,
        ways: &Ways,
    ) -> Option<Beside<'a>> {
        if handed == Handed::Packet {
            let outline = outline::of(parsed.bytes);
            let outline = outline.map_err(|reason| self.drops.count(reason)).ok()?;
            return self.hand_out(now, outline, ways);
        }
        if parsed.hop_limit() <= 1 {
            self.drops.count(Reason::Expired);
            if let Some(hop) = ways.hop_for(parsed.source) {
                reject::expired(hop, parsed, &mut |f| self.outlet.transmit(f));
            }
            return None;
        }
        if handed == Handed::Datagram {
            return self.read_datagram(parsed, checksum).map(Beside::Datagram);
        }
        let echo = echo::read(parsed, checksum);
        let echo = echo.map_err(|reason| self.drops.count(reason));
        echo.ok().map(Beside::Echo)
    }

    pub(super) fn read_datagram<'a>(
        &self,
        parsed: &Parsed<'a>,
        checksum: Checksum,
    ) -> Option<Datagram<'a>> {
        let datagram = datagram::read(parsed, checksum);
        datagram.map_err(|reason| self.drops.count(reason)).ok()
    }

    /// A packet that is no whole transport packet, for `reason`.
    pub(super) fn handle_unparsed<'a>(
        &self,
        now: Instant,
        packet: &'a [u8],
        reason: Reason,
        ways: &Ways,
    ) -> Option<Arrival<'a>> {
        match outline::of(packet) {
            Ok(outline) if route::passes(&outline, reason, ways) => {
                self.hand_out(now, outline, ways).map(Arrival::Beside)
            }
            _ => {
                self.drops.count(reason);
                None
            }
        }
    }

    fn hand_out<'a>(&self, now: Instant, packet: Outline<'a>, ways: &Ways) -> Option<Beside<'a>> {
        if packet.bytes.len() <= ways.max_len {
            if !ways.full {
                self.asked.goes_out(now, &packet);
            }
            return Some(Beside::Packet(packet.bytes));
        }
        self.drops.count(Reason::TooLong);
        // Also without "don't fragment": the next ones are cut by the sender then.
        if packet.may_be_answered() && self.too_long.allows(now) {
            let mtu = match packet.source {
                IpAddr::V4(_) => ways.max_len,
                IpAddr::V6(_) => ways.max_len.max(LEAST_MTU_V6),
            };
            reject::too_big(mtu, &packet, &mut |f| self.outlet.transmit(f));
        }
        None
    }

    /// Takes a packet out of the tunnel, for the device; it may be longer than the device's MTU. Whether it was let in.
    pub fn packet_from_far(&self, now: Instant, packet: &[u8]) -> bool {
        match self.admit(now, packet) {
            Ok(packet) => {
                phy::with_headroom(packet, |buffer| self.outlet.transmit(plain(buffer)));
                true
            }
            Err(reason) => {
                self.drops.count(reason);
                false
            }
        }
    }

    /// Nobody out there may speak to what listens for this host alone, nor TCP where the flows are ours, nor first where only
    /// answers are let in.
    fn admit<'a>(&self, now: Instant, packet: &'a [u8]) -> Result<&'a [u8], Reason> {
        let ways = self.ways.get();
        let packet = outline::of(packet)?;
        if !ways.lets_in(packet.target) {
            return Err(Reason::NotForUs);
        }
        if packet.protocol == outline::TCP && !ways.full {
            return Err(Reason::FarTcp);
        }
        let is_let_in = match packet.role() {
            Role::Error => true,
            // Routes and neighbours of this host are its own business.
            Role::Link => false,
            Role::Other => ways.full || self.asked.is_answered_by(now, &packet),
            Role::Question => ways.full,
        };
        is_let_in.then_some(packet.bytes).ok_or(Reason::Unasked)
    }

    /// Sends `message` in the name of the name server `from`; one that fits no packet is dropped.
    pub fn answer_name(&self, from: Target, to: Source, message: &[u8]) {
        if let Some(packet) = datagram::packet(from.0, to.0, message)
            && packet.len() - HEADROOM <= self.config.mtu
        {
            self.send(packet);
        }
    }

    /// Sends `payload` in the name of `from`, in fragments where it fits no packet. Both ends are of one IP version, else it is
    /// dropped, as is what no datagram can hold.
    pub fn answer_datagram(&self, from: Target, to: Source, payload: &[u8]) {
        if let Some(packet) = datagram::packet(from.0, to.0, payload) {
            self.send(packet);
        }
    }

    /// Tells who sent `datagram` that it was not delivered. Of its payload as much is repeated as is given.
    pub fn answer_unreachable(&self, datagram: &Datagram<'_>, what: Unreachable) {
        let (Source(source), Target(target)) = (datagram.source, datagram.target);
        if let Some(packet) = datagram::packet(source, target, datagram.payload) {
            let (from, to, quoted) = (target.ip(), source.ip(), &packet[HEADROOM..]);
            reject::unreachable_bytes(what, from, to, quoted, &mut |f| self.outlet.transmit(f));
        }
    }

    /// Answers `echo` in the name of its target, which has answered.
    pub fn answer_echo(&self, echo: &Echo<'_>) {
        if let Some(packet) = echo::reply(echo) {
            self.send(packet);
        }
    }

    /// Tells who sent `echo` that its target is not reached, in the name of its target.
    pub fn answer_echo_unreachable(&self, echo: &Echo<'_>, what: Unreachable) {
        if let Some(packet) = echo::request(echo) {
            let (from, to, quoted) = (echo.target, echo.source, &packet[HEADROOM..]);
            reject::unreachable_bytes(what, from, to, quoted, &mut |f| self.outlet.transmit(f));
        }
    }

    fn send(&self, packet: Vec<u8>) {
        let id = self.fragment_id.fetch_add(1, Ordering::Relaxed);
        fragment::send(packet, self.config.mtu, id, &mut |f| {
            self.outlet.transmit(f)
        });
    }
}

/// A finished packet, with [`HEADROOM`] in front.
fn plain(buffer: &mut [u8]) -> Frame<'_> {
    Frame {
        buffer,
        partial_checksum: false,
        segment_size: None,
    }
}
