//! The device that one smoltcp interface sees: at most one packet waiting to be taken in, and a scratch
//! buffer per thread for what goes out, so that no packet costs an allocation.

use std::cell::{Cell, RefCell};
use std::num::{NonZeroU16, NonZeroUsize};

use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta, RxToken,
    TxToken,
};
use smoltcp::time::Instant;
use smoltcp::wire::IPV6_HEADER_LEN;

use super::said::Said;
use super::scratch::{MAX_PACKET, Scratch};
use super::{Config, Frame, HEADROOM, Outlet};

/// The largest packet that is left to the device to cut. With the headers of the links that it may be forwarded to (a
/// container's veth, a tunnel behind it) it stays below 64 KiB: the kernel cuts larger ones itself, which costs a third
/// of a container's download (gso_features_check() in net/core/dev.c; MAX_TCP_HEADER in include/net/tcp.h).
const MAX_SEGMENTED: usize = MAX_PACKET - 320;
/// IPv6 and TCP headers without options; those of IPv4 are shorter.
const HEADERS: usize = 60;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Calls `f` with a copy of `packet`, which is one, behind [`HEADROOM`] free bytes.
pub(super) fn with_headroom(packet: &[u8], f: impl FnOnce(&mut [u8])) {
    SCRATCH.with_borrow_mut(|scratch| {
        if let Some(buffer) = scratch.get_mut(..HEADROOM + packet.len()) {
            buffer[HEADROOM..].copy_from_slice(packet);
            f(buffer);
        }
    });
}

/// What a smoltcp interface may expect of the device.
fn capabilities(config: &Config, ipv6_segment: Option<NonZeroU16>) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = if ipv6_segment.is_some() {
        MAX_PACKET
    } else {
        config.mtu
    };
    // The packet was looked at before it came here; see `packet::parse`.
    let mut checksum = ChecksumCapabilities::default();
    checksum.ipv4 = Checksum::Tx;
    checksum.tcp = Checksum::Tx;
    if config.offload {
        checksum.tcp = Checksum::None;
        capabilities.segmentation.tcpv4 = NonZeroUsize::new(MAX_SEGMENTED);
        if ipv6_segment.is_some() {
            capabilities.segmentation.tcpv6 = NonZeroUsize::new(MAX_SEGMENTED);
        }
    }
    capabilities.checksum = checksum;
    capabilities
}

/// Payload bytes that fill a packet, about.
pub(super) fn full_packet(config: &Config) -> usize {
    let packet = if config.offload {
        MAX_SEGMENTED
    } else {
        config.mtu
    };
    packet.saturating_sub(HEADERS).max(1)
}

pub(super) struct Phy<'a, O> {
    pub(super) config: &'a Config,
    pub(super) outlet: &'a O,
    pub(super) incoming: Option<&'a [u8]>,
    /// Payload bytes per segment of an IPv6 flow whose packets the device cuts. smoltcp 0.14 drops every IPv6 packet
    /// above the MTU and does not hand the segment size on (`dispatch_ip`): so it is told of a large MTU, and the size
    /// is added here.
    pub(super) ipv6_segment: Option<NonZeroU16>,
    /// What was sent, in short.
    pub(super) said: Cell<Option<Said>>,
}

impl<O: Outlet> Device for Phy<'_, O> {
    type RxToken<'t>
        = Incoming<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Outgoing<'t, O>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_, O>)> {
        let incoming = Incoming(self.incoming.take()?);
        Some((incoming, self.outgoing()))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_, O>> {
        Some(self.outgoing())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.config, self.ipv6_segment)
    }
}

impl<O: Outlet> Phy<'_, O> {
    fn outgoing(&self) -> Outgoing<'_, O> {
        Outgoing {
            outlet: self.outlet,
            partial_checksum: self.config.offload,
            ipv6_segment: self.ipv6_segment,
            said: &self.said,
            meta: PacketMeta::default(),
        }
    }
}

pub(super) struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(super) struct Outgoing<'a, O> {
    outlet: &'a O,
    partial_checksum: bool,
    ipv6_segment: Option<NonZeroU16>,
    said: &'a Cell<Option<Said>>,
    meta: PacketMeta,
}

impl<O: Outlet> TxToken for Outgoing<'_, O> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        SCRATCH.with_borrow_mut(|scratch| {
            let buffer = &mut scratch[..HEADROOM + len];
            let result = f(&mut buffer[HEADROOM..]);
            self.said
                .set(Said::after(self.said.get(), &buffer[HEADROOM..]));
            let ipv6_segment = self
                .ipv6_segment
                .filter(|size| ipv6_payload_len(&buffer[HEADROOM..]) > usize::from(size.get()));
            self.outlet.transmit(Frame {
                buffer,
                partial_checksum: self.partial_checksum,
                segment_size: self.meta.segmentation_offload_size.or(ipv6_segment),
            });
            result
        })
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

/// TCP payload bytes of an IPv6 packet without extension headers.
fn ipv6_payload_len(packet: &[u8]) -> usize {
    let data_offset = packet.get(IPV6_HEADER_LEN + 12).map_or(0, |byte| byte >> 4);
    packet
        .len()
        .saturating_sub(IPV6_HEADER_LEN + usize::from(data_offset) * 4)
}
