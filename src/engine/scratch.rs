//! A buffer for one packet, placed so that copies to and from the kernel are fast.
//!
//! Processors copy large pieces by one instruction (`rep movsb`, which the kernel uses throughout). Zen 3 and 4 take it 15 times
//! as long where the destination lies less than 32 bytes behind the source, both taken modulo 4096; elsewhere it is fastest
//! where both begin at the same offset. The kernel keeps the payload of a large packet from the beginning of a page
//! (tun_alloc_skb() in drivers/net/tun.c). A buffer wherever the allocator had room spent a third of a download's CPU time in
//! that copy, in one run out of some.

use std::ops::{Deref, DerefMut};

use super::HEADROOM;

/// The largest packet: the length fields of IP have 16 bits.
pub(super) const MAX_PACKET: usize = 65_535;
/// What alignment is worth; the size of a page in memory does not matter here.
const PAGE: usize = 4096;
/// IPv4 and TCP headers without options. Behind those of IPv6 a payload begins 20 bytes later, which is as good.
const HEADERS: usize = 40;

/// [`HEADROOM`] bytes and room for the largest packet, whose payload begins on a page.
#[derive(Debug)]
pub struct Scratch {
    memory: Box<[u8]>,
    start: usize,
}

impl Scratch {
    const LEN: usize = HEADROOM + MAX_PACKET;
}

impl Default for Scratch {
    /// A buffer of zeroes.
    fn default() -> Self {
        let memory: Box<[u8]> = vec![0; Self::LEN + PAGE].into();
        let payload = memory.as_ptr().addr() + HEADROOM + HEADERS;
        let start = payload.next_multiple_of(PAGE) - payload;
        Self { memory, start }
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..][..Self::LEN]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..Self::LEN]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_begins_on_a_page_wherever_the_memory_is() {
        // Kept, so that each is elsewhere.
        let mut kept = Vec::new();
        for size in 1..50 {
            let mut scratch = Scratch::default();
            assert_eq!(scratch.len(), HEADROOM + MAX_PACKET);
            let payload = scratch[HEADROOM + HEADERS..].as_mut_ptr();
            assert_eq!(payload.addr() % PAGE, 0);
            kept.push((scratch, vec![0_u8; size]));
        }
    }
}
