//! Whether a flow's reader has taken all that came, and what may come at first.
//!
//! smoltcp keeps a segment that came ahead of its turn behind the end of its ring, and does not tell. So what came is noted here
//! by its sequence numbers (RFC 9293 section 3.4).

use smoltcp::wire::TcpSeqNumber;

use super::packet::Tcp;

/// The most that the window of a SYN-ACK can be, which is not scaled (RFC 7323 section 2.2).
const FIRST_WINDOW: usize = u16::MAX as usize;

/// Where in the stream from the application its reader is, and how far what came reaches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// The sequence number of the next byte that is taken.
    next: TcpSeqNumber,
    /// The one behind the last byte that came.
    end: TcpSeqNumber,
}

impl Received {
    /// Nothing yet behind this SYN.
    pub(super) fn behind(syn: &Tcp) -> Self {
        let first = syn.seq + 1;
        Self {
            next: first,
            end: first,
        }
    }

    /// A segment has come. Of what does not fit a ring of `capacity` bytes nothing was kept.
    pub(super) fn hear(&mut self, segment: &Tcp, capacity: usize) {
        if segment.payload_len == 0 {
            return;
        }
        let end = least(end(segment), self.next + capacity);
        if end > self.end {
            self.end = end;
        }
    }

    /// Whether a segment reaches beyond the window of a SYN-ACK.
    pub(super) fn is_beyond_first_window(&self, segment: &Tcp) -> bool {
        segment.payload_len > 0 && end(segment) > self.next + FIRST_WINDOW
    }

    /// So many bytes were taken.
    pub(super) fn take(&mut self, bytes: usize) {
        self.next += bytes;
    }

    /// Whether nothing is left of all that came.
    pub(super) fn is_all_taken(&self) -> bool {
        self.end <= self.next
    }
}

/// The sequence number behind the last byte of a segment that has any.
pub(super) fn end(segment: &Tcp) -> TcpSeqNumber {
    segment.seq + usize::from(segment.syn) + segment.payload_len
}

fn least(one: TcpSeqNumber, other: TcpSeqNumber) -> TcpSeqNumber {
    if one < other { one } else { other }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{FlowKey, Source, Target};

    const RING: usize = 1000;

    fn segment(seq: i32, payload_len: usize) -> Tcp {
        let end = ([10, 0, 0, 1], 1).into();
        Tcp {
            key: FlowKey {
                source: Source(end),
                target: Target(end),
            },
            syn: false,
            ack: true,
            fin: false,
            rst: false,
            seq: TcpSeqNumber(seq),
            ack_number: TcpSeqNumber(0),
            window: 0,
            payload_len,
        }
    }

    #[test]
    fn what_came_ahead_of_its_turn_counts_until_it_is_taken() {
        // Across the numbers' end.
        let seq = i32::MAX - 150;
        let at = |bytes: i32| seq.wrapping_add(1 + bytes);
        let mut received = Received::behind(&segment(seq, 0));
        assert!(received.is_all_taken());
        received.hear(&segment(at(100), 100), RING);
        assert!(!received.is_all_taken());
        received.hear(&segment(at(0), 100), RING);
        received.take(100);
        assert!(!received.is_all_taken());
        received.take(100);
        assert!(received.is_all_taken());
        received.hear(&segment(at(0), 200), RING);
        received.hear(&segment(at(200), 0), RING);
        assert!(received.is_all_taken());
    }

    #[test]
    fn what_is_beyond_the_window_counts_as_far_as_that_reaches() {
        let mut received = Received::behind(&segment(0, 0));
        received.hear(&segment(500, 1 << 20), RING);
        received.take(RING - 1);
        assert!(!received.is_all_taken());
        received.take(1);
        assert!(received.is_all_taken());
    }

    #[test]
    fn the_first_window_is_not_scaled() {
        let received = Received::behind(&segment(0, 0));
        assert!(!received.is_beyond_first_window(&segment(1, FIRST_WINDOW)));
        assert!(received.is_beyond_first_window(&segment(2, FIRST_WINDOW)));
        assert!(!received.is_beyond_first_window(&segment(1 << 20, 0)));
    }

    #[test]
    fn bytes_in_the_syn_count() {
        let syn = Tcp {
            syn: true,
            ..segment(7, 3)
        };
        let mut received = Received::behind(&syn);
        received.hear(&syn, RING);
        assert!(!received.is_all_taken());
        received.take(3);
        assert!(received.is_all_taken());
    }
}
