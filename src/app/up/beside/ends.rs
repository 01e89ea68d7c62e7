//! What the far side says, for the applications that it is for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::talk::Talk;
use crate::app::up::life::Passed;
use crate::audit::{Audit, FlowEntry, Protocol};
use crate::inlet::tun::{Answers, Datagram, Echo, Unreachable};
use crate::net::{FlowKey, OpenFailure, StreamError, Target};
use crate::os::TunDevice;
use crate::ping::Reply;
use crate::relay::{Meter, Outcome};
use crate::udp::{Deliver, End, Heard, Record};

/// The way to applications.
pub(super) struct Ends {
    pub(super) answers: Answers<TunDevice>,
    /// Where flows are written down.
    pub(super) audit: Option<Arc<Audit>>,
    /// Where echoes are.
    pub(super) talk: Option<Arc<Talk>>,
    /// That something was heard.
    pub(super) passed: Arc<Passed>,
}

/// What is written down of a flow, where that is wanted.
pub(super) struct Entry(Option<FlowEntry>);

impl Record for Entry {
    fn sent(&self, bytes: u64) {
        if let Some(entry) = &self.0 {
            entry.add_up(bytes);
        }
    }

    fn received(&self, bytes: u64) {
        if let Some(entry) = &self.0 {
            entry.add_down(bytes);
        }
    }

    fn end(self, end: End) {
        if let Some(entry) = self.0 {
            entry.end(&match end {
                End::Idle => Outcome::Finished,
                End::Lost => Outcome::Broken(StreamError::Lost),
                End::Refused(error) => Outcome::Refused(error),
            });
        }
    }
}

impl Deliver for Ends {
    type Record = Entry;

    fn began(&self, key: FlowKey, far: SocketAddr) -> Entry {
        let mapped_to = (far != key.target.0).then_some(Target(far));
        let audit = self.audit.as_ref();
        Entry(audit.map(|audit| audit.flow(Protocol::Udp, key, mapped_to, None)))
    }

    fn deliver(&self, key: FlowKey, heard: Heard) {
        match heard {
            Heard::Datagram(payload) => {
                self.passed.note();
                self.answers.datagram(key.target, key.source, &payload);
            }
            Heard::Failed(failure) => {
                let datagram = Datagram {
                    source: key.source,
                    target: key.target,
                    payload: &[],
                };
                self.answers.unreachable(&datagram, unreachable(failure));
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
        self.passed.note();
        if let Some(talk) = &self.talk {
            talk.echo(ping.target, ping.source, ping.payload.len(), None);
        }
        self.answers.echo(&Echo {
            source: ping.source,
            target: ping.target,
            ident: ping.ident,
            seq: ping.seq,
            ttl: ping.ttl,
            payload: &ping.payload,
        });
    }
}
