//! A device that nobody holds.
//!
//! [`super::TunDevice::open`] makes its device persistent for a moment; the kernel has no other way to attach again. A
//! process that is killed in this moment leaves a device behind: down, without an address, and attached to nobody.
//! Both sides hold [`Lock`], so a device that is being made is never taken for such a one.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use super::netlink::name;
use super::slot::bind;
use super::source::DEVICE_PREFIX;
use super::tun::{CLONE_DEVICE, ioctl};
use super::{Netlink, NetlinkError};

/// The lock's name, an abstract Unix socket: one per network namespace, gone with the process.
const LOCK: &str = "underpass/device";
/// How long to wait for somebody else's lock; they hold it for milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(2);

/// Held while a device is made, and while orphans are looked for.
#[derive(Debug)]
pub(super) struct Lock {
    _name: UnixDatagram,
}

impl Lock {
    /// Takes the lock; blocks for a moment when somebody else has it.
    ///
    /// # Errors
    /// `TimedOut` when they keep it, or as socket(2).
    pub(super) fn take() -> io::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(name) = bind(LOCK)? {
                return Ok(Self { _name: name });
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Removes devices that have a name of ours and that nobody holds; how many there were.
///
/// # Errors
/// When the kernel refuses to list or to remove.
pub(super) async fn clear(netlink: &Netlink) -> Result<usize, NetlinkError> {
    let links = netlink.links().await?;
    let suspects: Vec<_> = links
        .iter()
        .filter(|link| is_suspect(link))
        .map(name)
        .collect();
    if suspects.is_empty() {
        return Ok(0);
    }
    let _lock = Lock::take().map_err(NetlinkError::Socket)?;
    let mut removed = 0;
    for name in suspects {
        removed += usize::from(remove(&name).map_err(NetlinkError::Kernel)?);
    }
    Ok(removed)
}

/// A TUN device with a name as we give them, still down.
fn is_suspect(link: &LinkMessage) -> bool {
    let is_tun = link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Tun)),
        _ => false,
    });
    is_tun && !link.header.flags.contains(LinkFlags::Up) && is_given_name(&name(link))
}

fn is_given_name(name: &str) -> bool {
    name.strip_prefix(DEVICE_PREFIX)
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Attaches to the device and lets it go for good. One that somebody holds refuses the attachment (`EBUSY`), one of
/// another kind too (`EINVAL`): false.
fn remove(name: &str) -> io::Result<bool> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(CLONE_DEVICE)?;
    let fd = OwnedFd::from(file);
    match ioctl::set_interface(&fd, name, false) {
        Ok(()) => {
            ioctl::set_persist(&fd, false)?;
            Ok(true)
        }
        Err(Errno::EBUSY | Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_as_we_give_them() {
        for (name, ours) in [
            ("underpass0", true),
            ("underpass12", true),
            ("underpass", false),
            ("underpass-vpc", false),
            ("underpass1x", false),
            ("tun0", false),
        ] {
            assert_eq!(is_given_name(name), ours, "{name}");
        }
    }
}
