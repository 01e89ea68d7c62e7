//! Who talks with whom where there are no flows, for the audit log.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::interval;

use crate::audit::{Audit, Conversations, Passed, Protocol};
use crate::inlet::tun::Parties;
use crate::net::Target;

/// Between two looks whether somebody is silent.
const LOOK: Duration = Duration::from_secs(5);

/// Has it written down.
pub(super) struct Talk(Conversations);

impl Talk {
    pub(super) fn new(audit: Arc<Audit>) -> Self {
        Self(Conversations::new(audit))
    }

    /// A packet goes into a tunnel, or has come out of it.
    pub(super) fn packet(&self, packet: &[u8]) {
        if let Some(parties) = Parties::of(packet) {
            let passed = Passed {
                protocol: parties.protocol.into(),
                source: parties.source,
                target: parties.target,
                bytes: packet.len() as u64,
            };
            self.0.passed(Instant::now(), &passed, None);
        }
    }

    /// A request or its reply, with so many bytes. `far` is whom the server knows as its target, for a request.
    pub(super) fn echo(&self, source: IpAddr, target: IpAddr, bytes: usize, far: Option<IpAddr>) {
        let at = |address| SocketAddr::new(address, 0);
        let passed = Passed {
            protocol: Protocol::Icmp,
            source: at(source),
            target: at(target),
            bytes: bytes as u64,
        };
        let mapped_to = far.filter(|far| *far != target).map(|far| Target(at(far)));
        self.0.passed(Instant::now(), &passed, mapped_to);
    }

    /// Ends what is over, as long as it is polled.
    pub(super) async fn keep(&self) {
        let mut ticks = interval(LOOK);
        loop {
            ticks.tick().await;
            self.0.end_silent(Instant::now());
        }
    }
}
