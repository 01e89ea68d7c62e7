//! The content of every test stream: byte `i` is a known function of `i`, so that a lost, doubled or swapped piece
//! shows, and where. Included by the fixture programs.

use std::sync::LazyLock;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// The pattern repeats after this many bytes: a prime, so that no shift by a buffer or segment size goes unseen.
pub(crate) const PERIOD: usize = 1_048_573;

/// How much of the pattern [`slice()`] hands out at a time, at most.
const CHUNK: usize = 256 * 1024;

/// One period and the first chunk again, so that every offset has a whole chunk in one piece.
static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..PERIOD + CHUNK)
        .map(|i| {
            let mixed = ((i % PERIOD) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed >> 40) as u8
        })
        .collect()
});

/// The pattern from stream offset `at` on: `len` bytes, or less when that is more than a chunk.
pub(crate) fn slice(at: u64, len: u64) -> &'static [u8] {
    let start = (at % PERIOD as u64) as usize;
    &BLOCK[start..start + len.min(CHUNK as u64) as usize]
}

/// The stream offset of the first byte of `data` that differs from the pattern at `at`, if any.
pub(crate) fn mismatch(mut at: u64, mut data: &[u8]) -> Option<u64> {
    while !data.is_empty() {
        let want = slice(at, data.len() as u64);
        let (got, rest) = data.split_at(want.len());
        if got != want {
            let offset = got.iter().zip(want).position(|(a, b)| a != b)?;
            return Some(at + offset as u64);
        }
        at += got.len() as u64;
        data = rest;
    }
    None
}

/// The SHA-256 of a byte stream, and its length.
#[derive(Default)]
pub(crate) struct Checksum {
    hash: Sha256,
    count: u64,
}

impl Checksum {
    /// Takes the next bytes of the stream.
    pub(crate) fn update(&mut self, data: &[u8]) {
        self.hash.update(data);
        self.count += data.len() as u64;
    }

    /// `COUNT SHA256`: how many bytes, and what they were.
    pub(crate) fn summary(self) -> String {
        let hash = HEXLOWER.encode(&self.hash.finalize());
        format!("{} {hash}", self.count)
    }

    /// The summary of the first `len` bytes of the pattern.
    pub(crate) fn of_pattern(len: u64) -> String {
        let mut sum = Self::default();
        let mut at = 0;
        while at < len {
            let piece = slice(at, len - at);
            sum.update(piece);
            at += piece.len() as u64;
        }
        sum.summary()
    }
}
