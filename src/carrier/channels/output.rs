//! Packets on their way to the socket: small heads gathered, data not copied.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Data up to this length is copied behind its head: an element of a vectored write costs more than so few bytes.
const COPY_UP_TO: usize = 512;

/// Room for heads that is allocated at a time.
const HEADS: usize = 4096;

/// What is to be written next, in order. Filled by [`Channels::poll_output`](super::Channels::poll_output),
/// written through [`Buf`] (for a vectored write), best with no lock held.
#[derive(Debug, Default)]
pub struct Outgoing {
    pieces: VecDeque<Bytes>,
    /// What comes after the pieces.
    tail: BytesMut,
    length: usize,
}

impl Outgoing {
    /// Where a message goes that holds no data.
    pub(super) fn message(&mut self, put: impl FnOnce(&mut BytesMut)) {
        if self.tail.capacity() - self.tail.len() < HEADS / 8 {
            self.tail.reserve(HEADS);
        }
        let before = self.tail.len();
        put(&mut self.tail);
        self.length += self.tail.len() - before;
    }

    /// Adds data behind the head that was written last.
    pub(super) fn data(&mut self, data: Bytes) {
        self.length += data.len();
        if data.len() <= COPY_UP_TO {
            self.tail.extend_from_slice(&data);
            return;
        }
        self.seal();
        self.pieces.push_back(data);
    }

    /// Makes a piece of the tail.
    pub(super) fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&self.tail, |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let chunks = self.pieces.iter().map(|piece| &**piece);
        let tail = std::iter::once(&*self.tail).filter(|tail| !tail.is_empty());
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(chunks.chain(tail)) {
            *slice = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut written: usize) {
        self.length -= written;
        while let Some(front) = self.pieces.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.pieces.pop_front();
        }
        self.tail.advance(written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    fn filled() -> (Outgoing, Vec<u8>) {
        let mut out = Outgoing::default();
        let mut expected = Vec::new();
        for (head, data) in [(b"one", 10), (b"two", 5000), (b"thr", 600), (b"fou", 0)] {
            out.message(|tail| tail.put_slice(head));
            out.data(vec![b'.'; data].into());
            expected.extend_from_slice(head);
            expected.extend(vec![b'.'; data]);
        }
        (out, expected)
    }

    #[test]
    fn bytes_come_out_in_order_in_any_steps() {
        for step in [1, 7, 700, 10_000] {
            let (mut out, expected) = filled();
            let mut written = Vec::new();
            while out.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = out.chunks_vectored(&mut slices);
                let flat: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                assert!(flat.starts_with(out.chunk()));
                let take = step.min(flat.len());
                written.extend_from_slice(&flat[..take]);
                out.advance(take);
            }
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn large_data_is_not_copied() {
        let data = Bytes::from(vec![1; 5000]);
        let mut out = Outgoing::default();
        out.message(|tail| tail.put_slice(b"head"));
        out.data(data.clone());
        out.advance(4);
        assert_eq!(out.chunk().as_ptr(), data.as_ptr());
    }
}
