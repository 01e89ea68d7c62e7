//! Why a packet went no further: an enum that is also the counter's label.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// Why a packet was dropped or answered with a refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)+ }

        impl Reason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// The label of the counter.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)+ }
            }
        }
    };
}

reasons! {
    /// Shorter than its headers, or than the length that they state.
    Truncated = "truncated",
    /// Neither IPv4 nor IPv6, or a header length below the minimum.
    BadHeader = "bad_header",
    /// An IPv4 header checksum or a TCP checksum that is wrong.
    BadChecksum = "bad_checksum",
    /// A fragment: reassembly belongs to a path with honest MTUs.
    Fragment = "fragment",
    /// An IPv6 extension header in front of the transport.
    ExtensionHeader = "extension_header",
    /// Source or target is no unicast address, or is unspecified, or loopback.
    NotUnicast = "not_unicast",
    /// Port zero.
    PortZero = "port_zero",
    /// A set of TCP flags that no state allows (SYN with RST or FIN, none at all).
    BadFlags = "bad_flags",
    /// UDP: answered with port unreachable.
    Udp = "udp",
    /// An ICMP echo request: no honest answer is known, so there is none.
    Echo = "echo",
    /// Any other ICMP message.
    Icmp = "icmp",
    /// Any other transport.
    UnknownProtocol = "unknown_protocol",
    /// A TCP segment of no flow: answered with a reset.
    NoFlow = "no_flow",
    /// A SYN beyond the bound of flows; the initiator sends it again.
    NoRoom = "no_room",
    /// Bytes beyond the window that a SYN-ACK offered, before another one was.
    BeyondWindow = "beyond_window",
    /// May go no further than the far side: answered in its name, where that is known.
    Expired = "expired",
    /// Too long for the tunnel: the sender is told what fits.
    TooLong = "too_long",
    /// TCP out of the tunnel, which carries none.
    FarTcp = "far_tcp",
    /// A packet out of the tunnel that is not for us.
    NotForUs = "not_for_us",
    /// A packet out of the tunnel that answers nothing, or is about this host's own link.
    Unasked = "unasked",
}

/// A counter per [`Reason`].
#[derive(Debug, Default)]
pub struct Drops([AtomicU64; Reason::ALL.len()]);

impl Drops {
    pub(super) fn count(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often `reason` has come up.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    /// All counters that are not zero, with their labels.
    pub fn nonzero(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Reason::ALL
            .iter()
            .map(|&reason| (reason.name(), self.get(reason)))
            .filter(|&(_, count)| count > 0)
    }
}
