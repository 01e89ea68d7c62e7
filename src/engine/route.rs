//! Verdicts: what shall happen to a packet, and what the initiator is told. Pure functions that return what
//! shall be done instead of doing it.

use std::net::SocketAddr;

use super::NameServers;
use super::packet::{Parsed, Tcp, Transport};
use super::reason::Reason;
use super::reject::Unreachable;
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
    /// It is counted, nothing else.
    Drop(Reason),
}

/// What shall happen to `packet`, where `name_servers` are ours.
pub fn verdict(packet: &Parsed<'_>, name_servers: &NameServers) -> Verdict {
    match packet.transport {
        Transport::Tcp(tcp) => Verdict::Flow(tcp),
        Transport::Udp(port) if name_servers.has(SocketAddr::new(packet.target, port)) => {
            Verdict::Name
        }
        // QUIC and the like fall back to TCP at once instead of waiting for a time-out.
        Transport::Udp(_) => Verdict::Reject(Unreachable::Port, Reason::Udp),
        Transport::IcmpEcho => Verdict::Drop(Reason::Echo),
        Transport::IcmpOther => Verdict::Drop(Reason::Icmp),
        Transport::Other(_) => Verdict::Drop(Reason::UnknownProtocol),
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
