//! What the device has: packets, which an engine looks at, or frames, which nobody does.

use std::io;
use std::sync::Arc;

use crate::inlet::tap::{Tap, ip_packet};
use crate::inlet::tun::{Answers, Beside, Datagram, Tun, TunInbound, Ways};
use crate::os::TunDevice;

/// An inlet of either kind.
#[derive(Clone)]
pub(in crate::app) enum Inlet {
    /// Flows of TCP, and whatever else there is, with what answers it.
    Packets(Tun<TunDevice>, Answers<TunDevice>),
    /// Of a tunnel that carries Ethernet.
    Frames(Arc<Tap<TunDevice>>),
}

impl Inlet {
    /// Of packets.
    pub(in crate::app) fn packets(tun: Tun<TunDevice>) -> Self {
        let answers = tun.answers();
        Self::Packets(tun, answers)
    }

    /// Runs it until the device is gone, as [`Tun::run`]; of frames each is a packet beside the flows.
    ///
    /// # Errors
    /// What reading from the device said last.
    pub(in crate::app) async fn run(
        &self,
        on_inbound: impl Fn(TunInbound<TunDevice>),
        on_name: impl Fn(Datagram<'_>),
        on_beside: impl Fn(Beside<'_>),
    ) -> io::Result<()> {
        match self {
            Self::Packets(tun, _) => tun.run(on_inbound, on_name, on_beside).await,
            Self::Frames(tap) => tap.run(|frame| on_beside(Beside::Packet(frame))).await,
        }
    }

    /// From here on, what is no flow goes these ways.
    pub(super) fn carry(&self, ways: Ways) {
        if let Self::Packets(tun, _) = self {
            tun.carry(ways);
        }
    }

    /// What answers in the name of others; nobody, where nobody looks at what comes.
    pub(super) fn answers(&self) -> Option<&Answers<TunDevice>> {
        match self {
            Self::Packets(_, answers) => Some(answers),
            Self::Frames(_) => None,
        }
    }

    /// Takes what has come out of a tunnel: whether it is for us, as far as anybody looks.
    pub(super) fn deliver(&self, packet: &[u8]) -> bool {
        match self {
            Self::Packets(_, answers) => answers.packet(packet),
            Self::Frames(tap) => {
                tap.send(packet);
                true
            }
        }
    }

    /// The IP packet in what passes between the device and a tunnel; `None` in a frame that carries something else.
    pub(super) fn ip_packet<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Packets(..) => Some(bytes),
            Self::Frames(_) => ip_packet(bytes),
        }
    }

    /// Resets every flow.
    pub(in crate::app) fn reset_flows(&self) {
        if let Self::Packets(tun, _) = self {
            tun.reset_flows();
        }
    }

    /// How often packets went no further, by reason.
    pub(in crate::app) fn drops(&self) -> Vec<(&'static str, u64)> {
        match self {
            Self::Packets(tun, _) => tun.drops().nonzero().collect(),
            Self::Frames(_) => Vec::new(),
        }
    }

    /// Packets that the device did not take.
    pub(in crate::app) fn failed_writes(&self) -> u64 {
        match self {
            Self::Packets(tun, _) => tun.failed_writes(),
            Self::Frames(tap) => tap.failed_writes(),
        }
    }
}
