//! The Internet checksum (RFC 1071) over whole packets, written apart from the stack under test.

/// Where the parts of an IP packet lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// 4 or 6.
    pub(crate) version: u8,
    /// Length of the IP header in bytes.
    pub(crate) ip_len: usize,
    /// The transport protocol's number.
    pub(crate) protocol: u8,
}

/// Lays `packet` out; panics when the IP header contradicts the packet.
pub(crate) fn layout(packet: &[u8]) -> Layout {
    match packet[0] >> 4 {
        4 => {
            let ip_len = usize::from(packet[0] & 15) * 4;
            assert!(ip_len >= 20 && packet.len() >= ip_len, "IPv4 header length");
            assert_eq!(usize::from(be16(packet, 2)), packet.len(), "IPv4 length");
            assert_eq!(be16(packet, 6) & 0x3fff, 0, "a fragment was emitted");
            assert!(packet[8] > 0, "TTL");
            Layout {
                version: 4,
                ip_len,
                protocol: packet[9],
            }
        }
        6 => {
            assert_eq!(
                usize::from(be16(packet, 4)) + 40,
                packet.len(),
                "IPv6 length"
            );
            assert!(packet[7] > 0, "hop limit");
            Layout {
                version: 6,
                ip_len: 40,
                protocol: packet[6],
            }
        }
        other => panic!("IP version {other}"),
    }
}

/// Two bytes in network order.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Four bytes in network order.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn add(mut sum: u64, bytes: &[u8]) -> u64 {
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
    }
    sum
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Sum of the pseudo header: RFC 9293 section 3.1 for IPv4, RFC 8200 section 8.1 for IPv6. ICMP over IPv4 has none.
fn pseudo_header(packet: &[u8], at: Layout) -> u64 {
    let length = (packet.len() - at.ip_len) as u64;
    let addresses = match (at.version, at.protocol) {
        (4, 1) => return 0,
        (4, _) => &packet[12..20],
        _ => &packet[8..40],
    };
    add(0, addresses) + u64::from(at.protocol) + (length >> 16) + (length & 0xffff)
}

/// The checksum that belongs into the transport header whose field is zero now.
fn transport_checksum(packet: &[u8], at: Layout) -> u16 {
    !fold(add(pseudo_header(packet, at), &packet[at.ip_len..]))
}

/// Whether all of `packet`, its checksum included, sums up.
fn transport_is_right(packet: &[u8], at: Layout) -> bool {
    fold(add(pseudo_header(packet, at), &packet[at.ip_len..])) == 0xffff
}

/// Sets the IPv4 header checksum.
pub(crate) fn fill_ip(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        let ip_len = usize::from(packet[0] & 15) * 4;
        packet[10..12].fill(0);
        let sum = !fold(add(0, &packet[..ip_len]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Sets the TCP, UDP, ICMP or ICMPv6 checksum.
pub(crate) fn fill_transport(packet: &mut [u8]) {
    let at = layout(packet);
    let field = at.ip_len + checksum_offset(at.protocol);
    packet[field..field + 2].fill(0);
    let sum = transport_checksum(packet, at);
    packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

fn checksum_offset(protocol: u8) -> usize {
    match protocol {
        1 | 58 => 2,
        6 => 16,
        17 => 6,
        other => panic!("protocol {other} was emitted"),
    }
}

/// Panics unless all lengths and checksums of `packet` are right.
pub(crate) fn verify(packet: &[u8]) {
    let at = layout(packet);
    if at.version == 4 {
        assert_eq!(
            fold(add(0, &packet[..at.ip_len])),
            0xffff,
            "IPv4 header checksum of {packet:02x?}"
        );
    }
    checksum_offset(at.protocol);
    assert!(
        transport_is_right(packet, at),
        "transport checksum of {packet:02x?}"
    );
}

/// Completes a partial TCP checksum and cuts what stands for several segments, as `tcp_gso_segment` of
/// net/ipv4/tcp_offload.c and `inet_gso_segment` of net/ipv4/af_inet.c do.
pub(crate) fn cut(packet: &[u8], segment_size: Option<usize>) -> Vec<Vec<u8>> {
    let at = layout(packet);
    assert_eq!(at.protocol, 6, "only TCP has a partial checksum");
    let header_len = at.ip_len + usize::from(packet[at.ip_len + 12] >> 4) * 4;
    let (header, payload) = packet.split_at(header_len);
    let size = segment_size.unwrap_or(usize::MAX);
    let mut pieces: Vec<_> = payload.chunks(size).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let last = pieces.len() - 1;
    assert!(
        segment_size.is_none() || last > 0,
        "one segment needs no cutting"
    );
    let mut segments = Vec::new();
    for (index, piece) in pieces.into_iter().enumerate() {
        let mut segment = [header, piece].concat();
        let length = segment.len();
        if at.version == 4 {
            let id = be16(&segment, 4).wrapping_add(index as u16);
            segment[4..6].copy_from_slice(&id.to_be_bytes());
            segment[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        } else {
            segment[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
        }
        if segment_size.is_some() {
            let seq = be32(&segment, at.ip_len + 4).wrapping_add((index * size) as u32);
            segment[at.ip_len + 4..at.ip_len + 8].copy_from_slice(&seq.to_be_bytes());
        }
        if index != last {
            // FIN and PSH belong to the last segment.
            segment[at.ip_len + 13] &= !0x09;
        }
        fill_ip(&mut segment);
        fill_transport(&mut segment);
        segments.push(segment);
    }
    segments
}
