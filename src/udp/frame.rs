//! What goes over the stream to the far end: two bytes of length, four of the flow, one of the kind, then so many bytes. The far
//! end greets first.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::net::OpenFailure;

/// What the far end says before all frames. A login's shell may say something before that.
pub(super) const GREETING: &[u8] = b"underpass-udp-1\n";
/// So much may be said before the greeting, in bytes.
const MOST_NOISE: usize = 64 << 10;
/// Length of what stands before a payload, in bytes.
const HEADER_LEN: usize = 7;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A datagram of the flow.
    Data,
    /// One of the flow's datagrams did not reach anybody: one byte says why.
    Error,
    /// The flow is no more.
    Close,
    /// A new flow: to the address and the port in the payload, as a text with a space between them.
    Open,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Data, Self::Error, Self::Close, Self::Open];
}

/// Part of the stream, without its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The number of the flow.
    pub(super) flow: u32,
    /// What it is.
    pub(super) kind: Kind,
    /// What belongs to it.
    pub(super) payload: Bytes,
}

impl Frame {
    /// Why a datagram did not reach anybody, where this tells of that.
    pub(super) fn failure(&self) -> Option<OpenFailure> {
        let code = (self.kind == Kind::Error).then(|| self.payload.first());
        code.map(|code| match code {
            Some(1) => OpenFailure::Refused,
            Some(2) => OpenFailure::HostUnreachable,
            Some(3) => OpenFailure::NetworkUnreachable,
            Some(4) => OpenFailure::Filtered,
            Some(5) => OpenFailure::NoResources,
            _ => OpenFailure::Other,
        })
    }
}

/// What tells of `failure`.
pub(super) fn code(failure: OpenFailure) -> u8 {
    match failure {
        OpenFailure::Refused => 1,
        OpenFailure::HostUnreachable => 2,
        OpenFailure::NetworkUnreachable => 3,
        OpenFailure::Filtered => 4,
        OpenFailure::NoResources => 5,
        _ => 6,
    }
}

/// Adds a frame to `out`, unless `payload` is longer than any datagram.
pub(super) fn put(out: &mut BytesMut, flow: u32, kind: Kind, payload: &[u8]) {
    let Ok(len) = u16::try_from(payload.len()) else {
        return;
    };
    out.put_u16(len);
    out.put_u32(flow);
    out.put_u8(kind as u8);
    out.put_slice(payload);
}

/// What is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There was no greeting.
    #[error("something else than the helper answers on the server")]
    NoGreeting,
    /// Of no known kind.
    #[error("something else writes into what the helper says")]
    UnknownKind,
}

/// Puts frames together from the pieces of a stream.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    bytes: BytesMut,
    is_greeted: bool,
}

impl Deframer {
    /// Of who has greeted.
    pub(super) fn after_greeting() -> Self {
        Self {
            is_greeted: true,
            ..Self::default()
        }
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// Whether the far end has greeted.
    ///
    /// # Errors
    /// [`Fault::NoGreeting`], when it said too much else.
    pub(super) fn greeted(&mut self) -> Result<bool, Fault> {
        if self.is_greeted {
            return Ok(true);
        }
        let mut windows = self.bytes.windows(GREETING.len());
        if let Some(at) = windows.position(|window| window == GREETING) {
            self.bytes.advance(at + GREETING.len());
            self.is_greeted = true;
        } else if self.bytes.len() > MOST_NOISE {
            return Err(Fault::NoGreeting);
        }
        Ok(self.is_greeted)
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// [`Fault`]: nothing that follows makes sense.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, Fault> {
        if !self.greeted()? || self.bytes.len() < HEADER_LEN {
            return Ok(None);
        }
        let mut header = &self.bytes[..HEADER_LEN];
        let (len, flow, kind) = (header.get_u16(), header.get_u32(), header.get_u8());
        let kind = Kind::ALL.get(usize::from(kind)).ok_or(Fault::UnknownKind)?;
        let whole = HEADER_LEN + usize::from(len);
        if self.bytes.len() < whole {
            return Ok(None);
        }
        let payload = self.bytes.split_to(whole).freeze().split_off(HEADER_LEN);
        Ok(Some(Frame {
            flow,
            kind: *kind,
            payload,
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(Kind::ALL.to_vec())
    }

    #[test]
    fn a_frame_is_seven_bytes_and_its_payload() {
        let mut out = BytesMut::new();
        put(&mut out, 0x0102_0304, Kind::Close, b"ab");
        assert_eq!(&out[..], b"\0\x02\x01\x02\x03\x04\x02ab");
        put(&mut out, 1, Kind::Data, &[0; 65_536]);
        assert_eq!(out.len(), 9, "none is longer than 65,535");
    }

    #[test]
    fn what_failed_has_a_number() {
        let failure = |kind, payload: &'static [u8]| {
            let payload = Bytes::from_static(payload);
            let frame = Frame {
                flow: 1,
                kind,
                payload,
            };
            frame.failure()
        };
        assert_eq!(failure(Kind::Data, b"\x01"), None);
        for (code, expected) in [
            (&b"\x01"[..], OpenFailure::Refused),
            (b"\x02", OpenFailure::HostUnreachable),
            (b"\x03", OpenFailure::NetworkUnreachable),
            (b"\x04", OpenFailure::Filtered),
            (b"\x05", OpenFailure::NoResources),
            (b"\x06", OpenFailure::Other),
            (b"", OpenFailure::Other),
        ] {
            assert_eq!(failure(Kind::Error, code), Some(expected));
            if let [code] = code {
                assert_eq!(super::code(expected), *code);
            }
        }
    }

    #[test]
    fn noise_before_the_greeting_is_bounded() {
        let mut deframer = Deframer::default();
        deframer.push(&[b'x'; MOST_NOISE]);
        assert_eq!(deframer.next_frame(), Ok(None));
        deframer.push(b"x");
        assert_eq!(deframer.next_frame(), Err(Fault::NoGreeting));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            noise in "[a-z\n]{0,40}",
            frames in prop::collection::vec((any::<u32>(), kinds(), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut stream = BytesMut::from(noise.as_bytes());
            stream.extend_from_slice(GREETING);
            for (flow, kind, payload) in &frames {
                put(&mut stream, *flow, *kind, payload);
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.push(stream.len());
            cuts.sort_unstable();
            let (mut deframer, mut from, mut out) = (Deframer::default(), 0, Vec::new());
            for cut in cuts {
                deframer.push(&stream[from..cut]);
                while let Some(frame) = deframer.next_frame().unwrap() {
                    out.push((frame.flow, frame.kind, frame.payload.to_vec()));
                }
                from = cut;
            }
            prop_assert_eq!(out, frames);
        }

        #[test]
        fn no_bytes_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut deframer = Deframer::default();
            deframer.push(GREETING);
            for piece in pieces {
                deframer.push(&piece);
                while let Ok(Some(frame)) = deframer.next_frame() {
                    let _ = frame.failure();
                }
            }
        }
    }
}
