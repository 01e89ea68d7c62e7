//! Data of one channel that waits for its owner.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Shorter data is gathered: kept one by one, single bytes would cost a hundred times their length.
const GATHER_BELOW: usize = 2 * 1024;

/// Gathered data is handed out in pieces of at most this length.
const GATHERED: usize = 16 * 1024;

/// A queue of [`Data`](super::Event::Data) in order. As long as the window it holds, whatever sizes the server sends.
#[derive(Debug, Default)]
pub struct Inbox {
    pieces: VecDeque<Bytes>,
    /// Short data behind the pieces.
    tail: BytesMut,
    length: usize,
}

impl Inbox {
    /// Adds data at the end.
    pub fn push(&mut self, data: Bytes) {
        let is_first = self.is_empty();
        self.length += data.len();
        // Who reads as fast as data comes has nothing copied.
        if is_first || data.len() >= GATHER_BELOW {
            self.seal();
            self.pieces.push_back(data);
            return;
        }
        if self.tail.len() + data.len() > GATHERED {
            self.seal();
        }
        self.tail.extend_from_slice(&data);
    }

    /// Takes a piece from the front; its length is what the owner has then
    /// [`consumed`](super::Channels::consumed), once it has passed it on.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.seal();
        }
        let piece = self.pieces.pop_front()?;
        self.length -= piece.len();
        Some(piece)
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces
                .push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_whatever_the_sizes() {
        let sizes = [1, 5000, 10, 20, 3000, 1, 1, 2047, 2048, 2047, 2047];
        let all: Vec<u8> = (0..=255).cycle().take(sizes.iter().sum()).collect();
        for pop_each in [1, 3, 100] {
            let mut inbox = Inbox::default();
            let mut rest = Bytes::from(all.clone());
            let mut out = Vec::new();
            for (i, size) in sizes.iter().enumerate() {
                inbox.push(rest.split_to(*size));
                if i % pop_each == 0 {
                    out.extend(inbox.pop().unwrap());
                }
            }
            assert_eq!(out.len() + inbox.len(), all.len());
            while let Some(piece) = inbox.pop() {
                out.extend(piece);
            }
            assert!(out == all && inbox.is_empty());
        }
    }

    #[test]
    fn single_bytes_are_gathered() {
        let mut inbox = Inbox::default();
        for _ in 0..1 << 20 {
            inbox.push(Bytes::from_static(b"x"));
        }
        assert_eq!(inbox.len(), 1 << 20);
        assert!(inbox.pieces.len() <= 65);
        assert_eq!(inbox.pop().map(|piece| piece.len()), Some(1));
        assert_eq!(inbox.pop().map(|piece| piece.len()), Some(GATHERED));
    }

    #[test]
    fn what_is_alone_is_not_copied() {
        let data = Bytes::from(vec![1; 10]);
        let mut inbox = Inbox::default();
        inbox.push(data.clone());
        assert_eq!(inbox.pop().map(|piece| piece.as_ptr()), Some(data.as_ptr()));
    }
}
