//! The device as an inlet sees it: a descriptor that gives and takes whole packets or frames.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::os::TunDevice;

/// Packets that are taken before other tasks of the thread get their turn.
const BATCH: usize = 64;

/// A device that gives and takes whole IP packets, or frames, through a non-blocking descriptor.
pub trait Device: AsFd + AsRawFd + Send + Sync + 'static {
    /// Each packet has a `virtio_net_hdr` in front, and TCP may come and go as segments to be cut later.
    fn offload(&self) -> bool;

    /// The MTU in bytes.
    fn mtu(&self) -> usize;
}

impl Device for TunDevice {
    fn offload(&self) -> bool {
        Self::offload(self)
    }

    fn mtu(&self) -> usize {
        Self::mtu(self).into()
    }
}

/// Waits until there is something to read, and gives `each` what there is, one after the other, each in `buffer`; at most
/// [`BATCH`] of them.
pub(super) async fn read_some<D: Device>(
    device: &AsyncFd<D>,
    buffer: &mut [u8],
    mut each: impl FnMut(&mut [u8]),
) -> io::Result<()> {
    // A read says what the error is.
    let mut ready = device.ready(Interest::READABLE | Interest::ERROR).await?;
    for _ in 0..BATCH {
        match nix::unistd::read(device.get_ref(), buffer) {
            Ok(len) => each(&mut buffer[..len]),
            Err(Errno::EAGAIN) => {
                ready.clear_ready();
                break;
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
