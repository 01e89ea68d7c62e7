//! What an application has been told and what it says to it, where smoltcp does not tell, or takes it wrong.
//!
//! smoltcp 0.14 has three faults that a peer without fault can meet:
//!
//! - It cuts a segment at the edge of the window that it offered last, and takes the FIN behind what it has cut off. Rounding to
//!   the window's scale moves that edge back by up to seven bytes, so a kernel may have sent those already: the last bytes of a
//!   stream would be lost, and their end told.
//! - Where a window closes upon bytes that are on their way (RFC 9293 section 3.8.6 has senders be ready for it; Linux drops what it
//!   has no memory for, `ICSK_ACK_NOMEM`), it forgets to send them again.
//! - It ignores a SYN for a connection that it has (RFC 9293 section 3.10.7.4: a challenge ACK), so a peer that has lost its end
//!   waits for the keep-alive.

use smoltcp::wire::{TcpPacket, TcpSeqNumber};

use super::packet::{Parsed, Tcp, window_scale};
use super::received::end;

/// The packets that were sent, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// The number behind the last octet that was sent, a FIN apart.
    end: TcpSeqNumber,
    /// What was acknowledged last, and the window from there, without its scale.
    offer: Option<(TcpSeqNumber, u16)>,
    /// The scale of all windows, where a SYN was among them.
    scale: Option<u8>,
}

impl Said {
    /// What was said after `before`, with `packet`.
    pub(super) fn after(before: Option<Self>, packet: &[u8]) -> Option<Self> {
        let header_len = match packet.first()? {
            first if first >> 4 == 4 => usize::from(first & 15) * 4,
            _ => 40,
        };
        let Ok(tcp) = TcpPacket::new_checked(packet.get(header_len..)?) else {
            return before;
        };
        let len = tcp.payload().len();
        // Without a FIN: that one alone is sent again by its own time, and three acknowledgments would stop it (smoltcp 0.14).
        let end = tcp.seq_number() + usize::from(tcp.syn()) + len;
        // With one byte it may be a sign of life or a probe, of which smoltcp keeps no window in mind.
        let offer = (len != 1).then(|| (tcp.ack_number(), tcp.window_len()));
        let scale = tcp.syn().then(|| window_scale(&tcp).unwrap_or_default());
        Some(Self {
            end: before.map_or(end, |before| latest(before.end, end)),
            offer: offer.or(before.and_then(|before| before.offer)),
            scale: scale.or(before.and_then(|before| before.scale)),
        })
    }
}

/// What has been said so far. Each idle flow keeps one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// The edge of the window that was offered last, or less.
    edge: TcpSeqNumber,
    /// The number behind the last octet that was sent, but for probes of a closed window.
    end: TcpSeqNumber,
    /// What the application has acknowledged.
    acknowledged: TcpSeqNumber,
    /// See [`Said::scale`].
    scale: u8,
    /// Nothing but the SYN-ACK may have told the application of its window.
    is_first_window: bool,
    /// The application's window is closed.
    is_closed: bool,
    /// It was closed upon bytes on their way.
    is_squeezed: bool,
    /// The number behind the last one of these, which are sent again a little at a time.
    squeezed_until: TcpSeqNumber,
}

impl Default for Told {
    /// Nothing yet.
    fn default() -> Self {
        Self {
            edge: TcpSeqNumber(0),
            end: TcpSeqNumber(0),
            acknowledged: TcpSeqNumber(0),
            scale: 0,
            is_first_window: true,
            is_closed: false,
            is_squeezed: false,
            squeezed_until: TcpSeqNumber(0),
        }
    }
}

/// What is to become of a segment from the application.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is taken in as it is.
    Plainly,
    /// This is taken in instead.
    Instead(Vec<u8>),
    /// It opens a window that was closed upon bytes on their way: they are to be sent again.
    Opens,
}

impl Told {
    /// `said` was sent; in answer to a SYN, or later.
    pub(super) fn note(&mut self, said: Said, is_syn_ack: bool) {
        self.scale = said.scale.unwrap_or(self.scale);
        let scale = if is_syn_ack { 0 } else { self.scale };
        if let Some((ack, window)) = said.offer {
            self.edge = ack + (usize::from(window) << scale);
        }
        if is_syn_ack {
            (self.end, self.acknowledged) = (said.end, said.end);
            self.squeezed_until = said.end;
            return;
        }
        self.is_first_window = false;
        if !self.is_closed {
            self.end = latest(self.end, said.end);
        }
    }

    /// Whether nothing but a SYN-ACK has told of a window, which is not scaled.
    pub(super) fn is_first_window(&self) -> bool {
        self.is_first_window
    }

    /// Octets that were sent and not acknowledged, but for probes of a closed window; none where one was closed upon them, as they have to
    /// be sent again.
    pub(super) fn on_their_way(&self) -> usize {
        match self.end > self.acknowledged && self.squeezed_until <= self.acknowledged {
            true => self.end - self.acknowledged,
            false => 0,
        }
    }

    /// `segment` comes, which is `parsed`, when the SYN-ACK was answered.
    pub(super) fn hear(&mut self, segment: &Tcp, parsed: &Parsed<'_>) -> Heard {
        let sent = self.end;
        if segment.is_opening() && segment.payload_len == 0 {
            // An acknowledgment of what was never sent is answered as the SYN should be.
            return instead(parsed, |tcp| {
                tcp.set_ack(true);
                tcp.set_ack_number(sent + (1 << 30));
            });
        }
        if !segment.ack || segment.syn || segment.rst {
            return Heard::Plainly;
        }
        self.acknowledged = latest(self.acknowledged, segment.ack_number);
        // The FIN comes again, with the bytes before it that smoltcp cuts off.
        let is_cut_off = segment.fin && segment.payload_len > 0 && end(segment) > self.edge;
        let is_on_its_way = segment.ack_number < sent;
        let was_squeezed = std::mem::take(&mut self.is_squeezed);
        self.is_squeezed = segment.window == 0 && is_on_its_way;
        if self.is_squeezed {
            self.squeezed_until = sent;
        }
        self.is_closed = segment.window == 0 && !is_on_its_way;
        if is_cut_off || self.is_squeezed {
            return instead(parsed, |tcp| {
                tcp.set_fin(segment.fin && !is_cut_off);
                // As open as can be said: what is on its way is sent again when its time has come, a little at a time, which also
                // is the probe that such a window needs.
                tcp.set_window_len(segment.window.max(u16::from(self.is_squeezed)));
            });
        }
        match was_squeezed && is_on_its_way && segment.payload_len == 0 {
            true => Heard::Opens,
            false => Heard::Plainly,
        }
    }
}

fn instead(parsed: &Parsed<'_>, change: impl FnOnce(&mut TcpPacket<&mut [u8]>)) -> Heard {
    let mut packet = parsed.bytes.to_vec();
    // It was parsed, so it parses again; its checksum is not looked at any more.
    match TcpPacket::new_checked(&mut packet[parsed.header_len..]) {
        Ok(mut tcp) => change(&mut tcp),
        Err(_) => return Heard::Plainly,
    }
    Heard::Instead(packet)
}

fn latest(one: TcpSeqNumber, other: TcpSeqNumber) -> TcpSeqNumber {
    if one > other { one } else { other }
}
