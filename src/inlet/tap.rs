//! The TAP inlet: Ethernet frames between the device and a tunnel. What is in them matters to nobody but an audit log: addresses
//! are found, and broadcasts go, as on a wire.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::unix::AsyncFd;

use super::device::{Device, read_some};

/// The longest frame: the largest MTU of a device, and room for headers.
const MAX_FRAME: usize = 1 << 16;
/// Length of both addresses in a frame, in bytes (IEEE 802.3).
const ADDRESSES: usize = 12;
/// What a frame says that it carries: IPv4, IPv6 (IANA "IEEE 802 Numbers").
const IP: [[u8; 2]; 2] = [[0x08, 0x00], [0x86, 0xdd]];

/// The inlet: frames in, frames out.
#[derive(Debug)]
pub struct Tap<D: Device> {
    device: AsyncFd<D>,
    failed_writes: AtomicU64,
}

impl<D: Device> Tap<D> {
    /// An inlet over `device`, which has no offload.
    pub fn new(device: AsyncFd<D>) -> Self {
        Self {
            device,
            failed_writes: AtomicU64::new(0),
        }
    }

    /// Frames that the device did not take.
    pub fn failed_writes(&self) -> u64 {
        self.failed_writes.load(Ordering::Relaxed)
    }

    /// Gives each frame of the device to `on_frame`, which may not block, until the device is gone.
    ///
    /// # Errors
    /// What reading from the device said last, for example when the interface was deleted.
    pub async fn run(&self, on_frame: impl Fn(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; MAX_FRAME];
        loop {
            read_some(&self.device, &mut buffer, |frame| on_frame(frame)).await?;
            tokio::task::yield_now().await;
        }
    }

    /// Sends a frame that came out of the tunnel to the device, whole or not at all.
    pub fn send(&self, frame: &[u8]) {
        if nix::unistd::write(self.device.get_ref(), frame).is_err() {
            self.failed_writes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The IP packet in a frame, and what may follow it; `None` in one that carries something else.
pub fn ip_packet(frame: &[u8]) -> Option<&[u8]> {
    let (kind, packet) = frame.get(ADDRESSES..)?.split_first_chunk::<2>()?;
    IP.contains(kind).then_some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_stands_behind_the_head_of_its_frame() {
        let frame = |kind: [u8; 2], body: &[u8]| [&[0; ADDRESSES][..], &kind, body].concat();
        for (kind, expected) in [
            ([0x08, 0x00], Some(&b"ip"[..])),
            ([0x86, 0xdd], Some(b"ip")),
            ([0x08, 0x06], None),
        ] {
            assert_eq!(ip_packet(&frame(kind, b"ip")), expected);
        }
        assert_eq!(ip_packet(&frame(IP[0], b"")), Some(&b""[..]));
        assert_eq!(ip_packet(&frame(IP[0], b"")[..13]), None);
    }
}
