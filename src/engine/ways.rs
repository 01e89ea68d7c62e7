//! What becomes of packets that are no flow of TCP: refused, handed out as what they say, or handed out whole for a tunnel.
//! May change while the engine runs, for what is permitted is known late.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

/// What becomes of datagrams, except those to a [name server](super::Config::name_servers).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Udp {
    /// Port unreachable: QUIC and the like fall back to TCP at once instead of waiting for a time-out.
    #[default]
    Refuse,
    /// Each is handed out for what it says.
    Datagrams,
    /// Handed out whole.
    Packets,
}

/// What becomes of ICMP echo requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pings {
    /// Nothing: no honest answer is known.
    #[default]
    Silent,
    /// Each is handed out, for somebody to ask the host itself.
    Ask,
    /// Handed out whole.
    Packets,
}

/// What becomes of everything else: other ICMP messages, other protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Others {
    /// A counted drop.
    #[default]
    Refuse,
    /// Handed out whole.
    Packets,
}

/// What becomes of what is no flow. By default nothing is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ways {
    /// TCP is handed out whole as well, unless the device leaves segments uncut ([`offload`](super::Config::offload)) or a name
    /// server is meant.
    pub full: bool,
    /// Datagrams.
    pub udp: Udp,
    /// Echo requests.
    pub pings: Pings,
    /// Everything else.
    pub others: Others,
    /// Whether IPv6 goes these ways as well; otherwise nothing of it is carried beside flows.
    pub v6: bool,
    /// The longest packet in bytes that may be handed out whole.
    pub max_len: usize,
    /// Whom packets out of the tunnel may be for; where there is none, any host that a packet can be for.
    pub ours: [Option<IpAddr>; 2],
    /// The far side as a hop: where a [`Datagram`](super::Datagram) or an [`Echo`](super::Echo) may go no further, it says so. One
    /// for each version of IP; without one nothing is said.
    pub hop: [Option<IpAddr>; 2],
}

impl Default for Ways {
    fn default() -> Self {
        Self {
            full: false,
            udp: Udp::default(),
            pings: Pings::default(),
            others: Others::default(),
            v6: true,
            max_len: usize::from(u16::MAX),
            ours: [None; 2],
            hop: [None; 2],
        }
    }
}

impl Ways {
    /// Only TCP by the engine, everything else whole, in packets of at most `max_len` bytes.
    pub fn hybrid(max_len: usize) -> Self {
        Self {
            udp: Udp::Packets,
            pings: Pings::Packets,
            others: Others::Packets,
            max_len,
            ..Self::default()
        }
    }

    /// Everything whole.
    pub fn full(max_len: usize) -> Self {
        Self {
            full: true,
            ..Self::hybrid(max_len)
        }
    }

    /// Those of `packet`.
    pub(super) fn of(self, packet: &[u8]) -> Self {
        let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
        match is_v6 && !self.v6 {
            true => Self::default(),
            false => self,
        }
    }

    /// Whether somebody at `target` may get a packet out of the tunnel.
    pub(super) fn lets_in(&self, target: IpAddr) -> bool {
        self.ours == [None; 2] || self.ours.contains(&Some(target))
    }

    /// The hop that speaks to `whom`.
    pub(super) fn hop_for(&self, whom: IpAddr) -> Option<IpAddr> {
        let hops = self.hop.into_iter().flatten();
        hops.into_iter().find(|hop| hop.is_ipv4() == whom.is_ipv4())
    }
}

/// The ways of now.
#[derive(Debug, Default)]
pub(super) struct Current {
    /// How often they have changed.
    changes: AtomicUsize,
    ways: RwLock<Ways>,
}

impl Current {
    pub(super) fn get(&self) -> Ways {
        *self.ways.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, ways: Ways) {
        *self.ways.write().unwrap_or_else(PoisonError::into_inner) = ways;
        self.changes.fetch_add(1, Ordering::Release);
    }
}

/// What a driver knows of them: packets between two changes share no lock.
#[derive(Debug, Default)]
pub(super) struct Known {
    changes: usize,
    ways: Ways,
}

impl Known {
    /// Those of now.
    pub(super) fn now(&mut self, current: &Current) -> Ways {
        let changes = current.changes.load(Ordering::Acquire);
        if changes != self.changes {
            *self = Self {
                changes,
                ways: current.get(),
            };
        }
        self.ways
    }
}
