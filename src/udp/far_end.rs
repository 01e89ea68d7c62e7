//! The far end's side of the stream, without I/O: what `far/helper.py` does for whom this program itself is the helper.
//!
//! In: [`FarEnd::handle_bytes`], then [`FarEnd::next_order`] until there is none. Out: [`FarEnd::said`].

use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};

use super::frame::{Deframer, Fault, Frame, GREETING, Kind, code, put};
use crate::net::OpenFailure;

/// While so much waits to be read by the near end, in bytes, datagrams wait in their sockets.
const FULL: usize = 256 << 10;
/// Nothing the near end says is heard while even this waits.
const OVERFULL: usize = 2 * FULL;

/// What the near end asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A flow to this address; `None`: it is none.
    Open(u32, Option<SocketAddr>),
    /// A datagram of the flow.
    Send(u32, Bytes),
    /// The flow is no more.
    Close(u32),
}

/// What was heard and not yet done, and what was said and not yet read.
#[derive(Debug)]
pub struct FarEnd {
    deframer: Deframer,
    said: BytesMut,
}

impl Default for FarEnd {
    fn default() -> Self {
        Self {
            deframer: Deframer::after_greeting(),
            said: GREETING.into(),
        }
    }
}

impl FarEnd {
    /// A piece of what the near end says.
    pub fn handle_bytes(&mut self, piece: &[u8]) {
        self.deframer.push(piece);
    }

    /// What it asks for next.
    ///
    /// # Errors
    /// [`Fault`]: it is not the near end that says this.
    pub fn next_order(&mut self) -> Result<Option<Order>, Fault> {
        while let Some(Frame {
            flow,
            kind,
            payload,
        }) = self.deframer.next_frame()?
        {
            return Ok(Some(match kind {
                Kind::Open => Order::Open(flow, address(&payload)),
                Kind::Data => Order::Send(flow, payload),
                Kind::Close => Order::Close(flow),
                // Nobody here sends datagrams of its own.
                Kind::Error => continue,
            }));
        }
        Ok(None)
    }

    /// A datagram has come for the flow.
    pub fn tell_datagram(&mut self, flow: u32, payload: &[u8]) {
        put(&mut self.said, flow, Kind::Data, payload);
    }

    /// One of the flow's datagrams has reached nobody. Not told while nobody reads.
    pub fn tell_failure(&mut self, flow: u32, failure: OpenFailure) {
        if self.said.len() < OVERFULL {
            put(&mut self.said, flow, Kind::Error, &[code(failure)]);
        }
    }

    /// The flow is no more.
    pub fn tell_close(&mut self, flow: u32) {
        put(&mut self.said, flow, Kind::Close, b"");
    }

    /// Whether what comes has to wait in the sockets' own buffers, which drop.
    pub fn is_full(&self) -> bool {
        self.said.len() >= FULL
    }

    /// Whether the near end has to wait.
    pub fn is_overfull(&self) -> bool {
        self.said.len() >= OVERFULL
    }

    /// What the near end has not read yet: whoever writes it takes off what was written.
    pub fn said(&mut self) -> &mut BytesMut {
        &mut self.said
    }
}

fn address(payload: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some(SocketAddr::new(
        ip.parse::<IpAddr>().ok()?,
        port.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn orders(pieces: &[&[u8]]) -> Result<Vec<Order>, Fault> {
        let (mut far, mut orders) = (FarEnd::default(), Vec::new());
        for piece in pieces {
            far.handle_bytes(piece);
            while let Some(order) = far.next_order()? {
                orders.push(order);
            }
        }
        Ok(orders)
    }

    fn frame(flow: u32, kind: Kind, payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        put(&mut out, flow, kind, payload);
        out
    }

    #[test]
    fn orders_are_those_of_the_near_end() {
        let said = [
            frame(7, Kind::Open, b"10.0.0.1 53"),
            frame(7, Kind::Data, b"who?"),
            frame(8, Kind::Open, b"fd00::1 65535"),
            frame(8, Kind::Error, b"\x01"),
            frame(7, Kind::Close, b""),
        ]
        .concat();
        let expected = vec![
            Order::Open(7, "10.0.0.1:53".parse().ok()),
            Order::Send(7, Bytes::from_static(b"who?")),
            Order::Open(8, "[fd00::1]:65535".parse().ok()),
            Order::Close(7),
        ];
        let (one, other) = said.split_at(20);
        assert_eq!(orders(&[one, other]), Ok(expected));
    }

    #[test]
    fn what_is_no_address_opens_nothing() {
        for wrong in [
            "",
            "10.0.0.1",
            "10.0.0.1 65536",
            "db 53",
            "10.0.0.1  53",
            "10.0.0.1 53\n",
        ] {
            let said = frame(1, Kind::Open, wrong.as_bytes());
            assert_eq!(
                orders(&[&said]),
                Ok(vec![Order::Open(1, None)]),
                "{wrong:?}"
            );
        }
        let said = frame(1, Kind::Open, b"\xff 53");
        assert_eq!(orders(&[&said]), Ok(vec![Order::Open(1, None)]));
    }

    #[test]
    fn what_nobody_reads_is_bounded() {
        let mut far = FarEnd::default();
        assert_eq!(far.said()[..], *GREETING);
        while !far.is_full() {
            far.tell_datagram(1, &[0; 60_000]);
        }
        assert!(far.said().len() < FULL + 65_536 + 7);
        while !far.is_overfull() {
            far.tell_failure(1, OpenFailure::Refused);
        }
        let len = far.said().len();
        far.tell_failure(1, OpenFailure::Refused);
        assert_eq!(far.said().len(), len);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let _ = orders(&pieces);
        }
    }
}
