//! The byte stream of mux proxy mode cut into packets: `u32 length, u8 0, payload` (PROTOCOL.mux section 9).

use bytes::{Buf, Bytes, BytesMut};

use super::wire::WireError;

/// Room that a read gets, once less than half of it is left. Small enough that the buffers of a stream stay in the
/// processor's cache: what is read is soon read again.
const CHUNK: usize = 32 * 1024;

/// A shorter packet is copied out of its chunk. A slice keeps its whole chunk in memory, with what of a packet was
/// moved to its front about 64 KiB, so whoever queues slices holds at most five times their bytes.
const COPY_BELOW: usize = CHUNK / 2;

const LENGTH: usize = 4;
const PADDING: usize = 1;

/// Cuts a byte stream into packets. Bytes may arrive in any pieces.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    limit: usize,
}

impl Decoder {
    /// A decoder for packets with payloads of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            limit,
        }
    }

    /// Where the next bytes of the stream go: append them, then take the packets. There are at least 16 KiB of spare
    /// capacity. No more than a packet and a chunk are ever kept while [`packet`](Self::packet) is called until
    /// `None` between reads.
    pub fn space(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < CHUNK / 2 {
            self.buffer.reserve(CHUNK);
        }
        &mut self.buffer
    }

    /// The payload of the next packet that is complete.
    ///
    /// # Errors
    /// A frame that no peer may send. The stream cannot be read any further.
    pub fn packet(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.limit + PADDING {
            let limit = self.limit;
            return Err(WireError::TooLong { length, limit });
        }
        if length <= PADDING {
            return Err(WireError::Empty);
        }
        if self.buffer.len() < LENGTH + length {
            return Ok(None);
        }
        match self.buffer[LENGTH] {
            0 => Ok(Some(self.take(length - PADDING))),
            padding => Err(WireError::Padding(padding)),
        }
    }

    fn take(&mut self, payload: usize) -> Bytes {
        self.buffer.advance(LENGTH + PADDING);
        if payload < COPY_BELOW {
            let copy = Bytes::copy_from_slice(&self.buffer[..payload]);
            self.buffer.advance(payload);
            copy
        } else {
            self.buffer.split_to(payload).freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len() + 1).unwrap();
        [&length.to_be_bytes(), &[0][..], payload].concat()
    }

    #[test]
    fn packets_come_whole_however_the_stream_is_cut() {
        let payloads = [vec![1; 5], vec![2; 40_000], vec![3; 1], vec![4; COPY_BELOW]];
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| frame(payload)).collect();
        for step in [1, 3, 1000, 30_000, stream.len()] {
            let mut decoder = Decoder::new(40_000);
            let mut packets = Vec::new();
            for piece in stream.chunks(step) {
                decoder.space().extend_from_slice(piece);
                while let Some(packet) = decoder.packet().unwrap() {
                    packets.push(packet);
                }
            }
            assert!(packets == payloads, "in pieces of {step}");
        }
    }

    #[test]
    fn a_length_is_believed_only_up_to_the_limit() {
        let mut decoder = Decoder::new(100);
        decoder.space().extend_from_slice(&frame(&[7; 100]));
        assert_eq!(decoder.packet().unwrap().unwrap().len(), 100);
        decoder.space().extend_from_slice(&frame(&[7; 101])[..4]);
        let error = decoder.packet();
        assert_eq!(
            error,
            Err(WireError::TooLong {
                length: 102,
                limit: 100
            })
        );
        let mut decoder = Decoder::new(100);
        decoder.space().extend_from_slice(&[255; 4]);
        assert!(decoder.packet().is_err());
        assert!(decoder.space().capacity() <= 4 * CHUNK);
    }

    #[test]
    fn a_frame_without_a_message_or_with_padding() {
        for (bytes, error) in [
            (&[0, 0, 0, 0][..], WireError::Empty),
            (&[0, 0, 0, 1, 0], WireError::Empty),
            (&[0, 0, 0, 2, 4, 9], WireError::Padding(4)),
        ] {
            let mut decoder = Decoder::new(100);
            decoder.space().extend_from_slice(bytes);
            assert_eq!(decoder.packet(), Err(error));
        }
    }

    #[test]
    fn small_packets_hold_no_chunk() {
        let mut decoder = Decoder::new(40_000);
        let mut kept = Vec::new();
        let mut chunk = None;
        for _ in 0..10_000 {
            decoder.space().extend_from_slice(&frame(&[1; 100]));
            kept.push(decoder.packet().unwrap().unwrap());
            let base = decoder.space().as_ptr() as usize;
            let first = *chunk.get_or_insert(base);
            assert!(base.abs_diff(first) <= 4 * CHUNK, "the chunk is used again");
        }
    }
}
