//! Verdicts: what shall happen to a packet, and what the initiator is told. Pure functions that return what
//! shall be done instead of doing it.

use std::net::SocketAddr;

use super::NameServers;
use super::outline::{self, Outline};
use super::packet::{Parsed, Tcp, Transport};
use super::reason::Reason;
use super::reject::Unreachable;
use super::ways::{Others, Pings, Udp, Ways};
use crate::net::OpenFailure;

/// What shall happen to a packet.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// It belongs to a TCP flow, or begins one.
    Flow(Tcp),
    /// It is answered with an ICMP error and counted.
    Reject(Unreachable, Reason),
    /// It is a datagram to a name server.
    Name,
    /// It is no flow, and somebody may carry it.
    Beside(Handed),
    /// It is counted, nothing else.
    Drop(Reason),
}

/// What is handed out of a packet that is no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// The datagram.
    Datagram,
    /// The echo request.
    Echo,
    /// All of it.
    Packet,
}

/// What shall happen to `packet`, where `name_servers` are ours.
pub fn verdict(packet: &Parsed<'_>, name_servers: &NameServers, ways: &Ways) -> Verdict {
    match packet.transport {
        Transport::Tcp(tcp) if ways.full && !name_servers.has(tcp.key.target.0) => {
            Verdict::Beside(Handed::Packet)
        }
        Transport::Tcp(tcp) => Verdict::Flow(tcp),
        Transport::Udp(port) if name_servers.has(SocketAddr::new(packet.target, port)) => {
            Verdict::Name
        }
        Transport::Udp(_) => match ways.udp {
            Udp::Refuse => Verdict::Reject(Unreachable::Port, Reason::Udp),
            Udp::Datagrams => Verdict::Beside(Handed::Datagram),
            Udp::Packets => Verdict::Beside(Handed::Packet),
        },
        Transport::IcmpEcho => match ways.pings {
            Pings::Silent => Verdict::Drop(Reason::Echo),
            Pings::Ask => Verdict::Beside(Handed::Echo),
            Pings::Packets => Verdict::Beside(Handed::Packet),
        },
        Transport::IcmpOther if ways.others == Others::Packets => Verdict::Beside(Handed::Packet),
        Transport::IcmpOther => Verdict::Drop(Reason::Icmp),
        Transport::Other(_) if ways.others == Others::Packets => Verdict::Beside(Handed::Packet),
        Transport::Other(_) => Verdict::Drop(Reason::UnknownProtocol),
    }
}

/// Whether a packet that is no whole transport packet, for `reason`, is handed out whole nevertheless.
pub fn passes(packet: &Outline<'_>, reason: Reason, ways: &Ways) -> bool {
    let is_possible = match reason {
        Reason::Fragment | Reason::ExtensionHeader => true,
        // The host behind the tunnel says what it thinks of them.
        Reason::BadFlags => ways.full,
        _ => false,
    };
    is_possible
        && match packet.protocol {
            outline::TCP => ways.full,
            outline::UDP => ways.udp == Udp::Packets,
            // Of a fragment behind the first nobody knows what kind of message it is of.
            outline::ICMP | outline::ICMPV6 => ways.pings == Pings::Packets,
            _ => ways.others == Others::Packets,
        }
}

/// How a held SYN is answered when the far side did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A TCP reset: ECONNREFUSED.
    Reset,
    /// An ICMP error.
    Icmp(Unreachable),
    /// Nothing, also for SYNs sent again: the application's own time-out decides.
    Silence,
    /// Nothing, and the next SYN starts anew.
    Forget,
}

/// The answer to the initiator for each way in which the far side can fail.
pub const fn refusal(failure: OpenFailure) -> Refusal {
    match failure {
        OpenFailure::Refused => Refusal::Reset,
        OpenFailure::NetworkUnreachable => Refusal::Icmp(Unreachable::Network),
        OpenFailure::Prohibited | OpenFailure::Filtered => Refusal::Icmp(Unreachable::Prohibited),
        OpenFailure::TimedOut => Refusal::Silence,
        OpenFailure::NoResources => Refusal::Forget,
        OpenFailure::HostUnreachable | OpenFailure::ConnectionLost | OpenFailure::Other => {
            Refusal::Icmp(Unreachable::Host)
        }
    }
}
