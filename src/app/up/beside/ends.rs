//! What the far side says, for the applications that it is for.

use std::net::IpAddr;

use crate::inlet::tun::{Answers, Datagram, Echo, Unreachable};
use crate::net::{FlowKey, OpenFailure};
use crate::os::TunDevice;
use crate::ping::Reply;
use crate::udp::{Deliver, Heard};

/// The way to applications.
pub(super) struct Ends(pub(super) Answers<TunDevice>);

impl Deliver for Ends {
    fn deliver(&self, key: FlowKey, heard: Heard) {
        match heard {
            Heard::Datagram(payload) => self.0.datagram(key.target, key.source, &payload),
            Heard::Failed(failure) => {
                let datagram = Datagram {
                    source: key.source,
                    target: key.target,
                    payload: &[],
                };
                self.0.unreachable(&datagram, unreachable(failure));
            }
        }
    }
}

fn unreachable(failure: OpenFailure) -> Unreachable {
    match failure {
        OpenFailure::Refused => Unreachable::Port,
        OpenFailure::NetworkUnreachable => Unreachable::Network,
        OpenFailure::Prohibited | OpenFailure::Filtered => Unreachable::Prohibited,
        _ => Unreachable::Host,
    }
}

/// An echo request that waits for its answer.
pub(super) struct Ping {
    source: IpAddr,
    target: IpAddr,
    ident: u16,
    seq: u16,
    ttl: u8,
    payload: Box<[u8]>,
}

impl Ping {
    pub(super) fn of(echo: &Echo<'_>) -> Self {
        Self {
            source: echo.source,
            target: echo.target,
            ident: echo.ident,
            seq: echo.seq,
            ttl: echo.ttl,
            payload: echo.payload.into(),
        }
    }
}

impl Reply<Ping> for Ends {
    fn reply(&self, ping: Ping) {
        self.0.echo(&Echo {
            source: ping.source,
            target: ping.target,
            ident: ping.ident,
            seq: ping.seq,
            ttl: ping.ttl,
            payload: &ping.payload,
        });
    }
}
