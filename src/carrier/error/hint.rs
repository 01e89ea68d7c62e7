//! What a person can look at, after the kind of failure.

use std::io;
use std::net::SocketAddr;

use crate::carrier::failure::by_text;
use crate::net::OpenFailure;
use crate::plan::quoted;

/// How far a connection had come when time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No TCP connection yet.
    Connecting,
    /// No TCP connection yet, from the jump host on.
    Forwarding,
    /// Connected, but the server has not said that it speaks SSH (RFC 4253 section 4.2).
    Banner,
    /// In the midst of the handshake.
    Keys,
}

impl Stage {
    pub(super) fn had_come(self) -> &'static str {
        match self {
            Self::Connecting => "",
            Self::Forwarding => " by way of the jump host",
            Self::Banner => ": it is connected, but sends no SSH banner",
            Self::Keys => ": the SSH handshake does not end",
        }
    }

    pub(super) fn advice(self, server: &str) -> String {
        match self {
            Self::Connecting => format!(
                "A firewall may drop what is sent there; check the address and the port (-p): nc -vz {}",
                apart(server)
            ),
            Self::Forwarding => {
                "Check the address, the port and the firewalls between the two".to_owned()
            }
            Self::Banner => format!(
                "Is it sshd that listens there? It should say SSH-2.0 here: nc {}",
                apart(server)
            ),
            Self::Keys => "Large packets may be lost on the way; check the MTU: ip link".to_owned(),
        }
    }
}

/// What to look at where no TCP connection comes about, by the kind of failure.
pub(super) fn unreachable(address: &SocketAddr, error: &io::Error) -> String {
    let (ip, port) = (address.ip(), address.port());
    match by_text(&error.to_string()) {
        OpenFailure::NetworkUnreachable | OpenFailure::HostUnreachable => {
            format!("The route there: ip route get {ip}")
        }
        OpenFailure::Refused => format!(
            "Nothing listens on port {port} there, or a firewall refuses; is sshd on another port (-p)? Check with: nc -vz {ip} {port}"
        ),
        OpenFailure::Filtered => {
            "A packet filter forbids it, here or on the way: sudo nft list ruleset".to_owned()
        }
        _ => format!("Is sshd there? Check with: nc -vz {ip} {port}"),
    }
}

/// `host:port` as two words of a shell.
pub(super) fn apart(place: &str) -> String {
    match place.rsplit_once(':') {
        Some((host, port)) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            format!("{} {}", quoted(host), quoted(port))
        }
        None => quoted(place),
    }
}
