//! The TUN or TAP device.
//!
//! `tun-tap` opens it, but cannot ask for `IFF_VNET_HDR`. So the device is made persistent for a moment, the
//! descriptor is replaced by a fresh one of `/dev/net/tun` and attached again with that flag
//! (linux/Documentation/networking/tuntap.rst). From then on every packet, read or written, follows a
//! `virtio_net_hdr` of 10 bytes (linux/virtio_net.h), and a read may give a TCP segment of up to 64 KiB. A device whose packets a
//! tunnel carries as they are stays as `tun-tap` opened it.

use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::unistd::dup3;
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;
use tun_tap::{Iface, Mode};

use super::orphan::Lock;
use super::source::DEVICE_PREFIX;
use crate::plan::{DeviceKind, DevicePlan};

/// MTU in bytes of a device with offload, and of one for a tunnel: hosts behind us then see an honest MSS.
pub const DEFAULT_MTU: u16 = 1500;
/// MTU in bytes of a device whose kernel has no offload: large reads and writes make up for it.
pub const PLAIN_MTU: u16 = 65_520;

/// Opened, it gives a descriptor that is attached to no device yet.
pub(super) const CLONE_DEVICE: &str = "/dev/net/tun";
/// How often, and how long apart, a device that is busy is attached again.
const ATTACH_TRIES: u32 = 100;
const ATTACH_PAUSE: Duration = Duration::from_millis(2);
/// Size in bytes of the header in front of a packet, `struct virtio_net_hdr` without `num_buffers`.
const VNET_HEADER_BYTES: libc::c_int = 10;

/// The device could not be made.
#[derive(Debug, Error)]
pub enum TunError {
    /// The kernel's module is not there, or the container has no such device.
    #[error(
        "there is no {CLONE_DEVICE}; run sudo modprobe tun, or give the container --device {CLONE_DEVICE}"
    )]
    NoTun,
    /// There is a file, and it is something else.
    #[error(
        "{CLONE_DEVICE} is no TUN device; make it anew with: sudo mknod -m 666 {CLONE_DEVICE} c 10 200, after sudo rm {CLONE_DEVICE}"
    )]
    NotTun,
    /// No privileges.
    #[error(
        "making a TUN device is not permitted; run it with sudo, or once: sudo setcap cap_net_admin+ep \"$(command -v underpass)\""
    )]
    NotPermitted,
    /// The device's file is not open to this user.
    #[error(
        "{CLONE_DEVICE} may not be opened by this user; run it with sudo, or once: sudo chmod 666 {CLONE_DEVICE}, its usual mode"
    )]
    Closed,
    /// The name is in use.
    #[error("there is a device {name} already; take another --tun NAME, or leave it out")]
    NameTaken {
        /// The name asked for.
        name: String,
    },
    /// Anything else.
    #[error("could not make the TUN device: {step}: {source}")]
    Io {
        /// What failed.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A TUN or TAP device; dropping it removes the device with its addresses and routes.
#[derive(Debug)]
pub struct TunDevice {
    fd: OwnedFd,
    name: String,
    offload: bool,
    mtu: u16,
}

impl TunDevice {
    /// Makes a device, non-blocking, still down and with the kernel's MTU: [`super::apply()`] sets both.
    ///
    /// # Errors
    /// Without `/dev/net/tun`, without `CAP_NET_ADMIN`, or when the name is taken.
    pub fn open(plan: &DevicePlan) -> Result<Self, TunError> {
        let _lock = Lock::take().map_err(|source| TunError::Io {
            step: "waiting for another start that makes its device",
            source,
        })?;
        let pattern = plan
            .name
            .clone()
            .unwrap_or_else(|| format!("{DEVICE_PREFIX}%d"));
        if exists(&pattern) {
            return Err(TunError::NameTaken { name: pattern });
        }
        let is_tap = plan.kind == DeviceKind::Tap;
        let mode = if is_tap { Mode::Tap } else { Mode::Tun };
        let iface = Iface::without_packet_info(&pattern, mode)
            .map_err(|error| open_error(error, &pattern))?;
        let name = iface.name().to_owned();
        let mut fd = into_owned(iface);
        set_close_on_exec(&fd).map_err(io_error("setting the descriptor's flags"))?;
        let asks = plan.kind == DeviceKind::Tun;
        let offload = asks && attach_with_offload(&mut fd, &name)?;
        set_flags(&fd).map_err(io_error("setting the descriptor's flags"))?;
        let lacks = asks && !offload;
        let default = if lacks { PLAIN_MTU } else { DEFAULT_MTU };
        Ok(Self {
            fd,
            name,
            offload,
            mtu: plan.mtu.unwrap_or(default),
        })
    }

    /// A device that another process made with [`Self::open`] and gave us; `fd` is its descriptor.
    pub(super) fn from_parts(fd: OwnedFd, name: String, offload: bool, mtu: u16) -> Self {
        Self {
            fd,
            name,
            offload,
            mtu,
        }
    }

    /// Lets the runtime watch the descriptor.
    ///
    /// # Errors
    /// When it cannot be registered; panics outside of a tokio runtime, as tokio does.
    pub fn watch(self) -> io::Result<AsyncFd<Self>> {
        #[allow(unsafe_code)]
        // SAFETY: `as_raw_fd` gives the descriptor that `self.fd` owns: valid and the same for as long as
        // the device lives, and the `AsyncFd` owns the device.
        let watched = unsafe {
            // An error alone is how a device that was deleted shows itself (EPOLLERR; tun_chr_poll() in
            // drivers/net/tun.c).
            AsyncFd::register_with_interest(self, Interest::READABLE | Interest::ERROR)
        };
        Ok(watched?)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether each packet follows a `virtio_net_hdr` of 10 bytes, and TCP segments may be larger than the
    /// MTU in both directions.
    pub fn offload(&self) -> bool {
        self.offload
    }

    /// The MTU in bytes that the device shall have.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Reads one packet or frame; its length in bytes, with the header.
    ///
    /// # Errors
    /// `WouldBlock` when none waits; otherwise read(2).
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.fd, buffer)?)
    }

    /// Writes one packet, with the header, whole or not at all.
    ///
    /// # Errors
    /// write(2); `EIO` when the device is down, `EINVAL` for a packet that is none.
    pub fn write(&self, packet: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(&self.fd, packet)?)
    }

    /// Writes one packet that lies in pieces, as [`Self::write`].
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(nix::sys::uio::writev(&self.fd, pieces)?)
    }
}

impl AsFd for TunDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for TunDevice {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The name that a device gets when none is asked for.
pub fn first_free_name() -> String {
    let mut names = (0..u32::MAX).map(|number| format!("{DEVICE_PREFIX}{number}"));
    names.find(|name| !exists(name)).unwrap_or_default()
}

fn io_error(step: &'static str) -> impl Fn(Errno) -> TunError {
    move |errno| TunError::Io {
        step,
        source: errno.into(),
    }
}

/// Attaching to a device that somebody made beforehand would make it ours to remove.
fn exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

fn open_error(error: io::Error, name: &str) -> TunError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoTun,
        Some(libc::ENOTTY) => TunError::NotTun,
        Some(libc::EACCES) => TunError::Closed,
        Some(libc::EPERM) => TunError::NotPermitted,
        Some(libc::EBUSY | libc::EINVAL) if exists(name) => TunError::NameTaken {
            name: name.to_owned(),
        },
        _ => TunError::Io {
            step: "TUNSETIFF",
            source: error,
        },
    }
}

fn into_owned(iface: Iface) -> OwnedFd {
    let raw = iface.into_raw_fd();
    #[allow(unsafe_code)]
    // SAFETY: `into_raw_fd` gave the descriptor up; it is open and nobody else owns it.
    unsafe {
        OwnedFd::from_raw_fd(raw)
    }
}

/// Attaches `fd` again with offload; whether that worked. If not, it is attached as it was.
fn attach_with_offload(fd: &mut OwnedFd, name: &str) -> Result<bool, TunError> {
    if let Err(errno) = ioctl::set_persist(fd, true) {
        warn!("{name}: no offload, TUNSETPERSIST: {errno}; using a large MTU instead");
        return Ok(false);
    }
    let offload = match attach(fd, name, true).and_then(|()| ioctl::enable_offload(fd)) {
        Ok(()) => true,
        Err(errno) => {
            warn!("{name}: no offload: {errno}; using a large MTU instead");
            attach(fd, name, false).map_err(io_error("attaching again"))?;
            false
        }
    };
    ioctl::set_persist(fd, false).map_err(io_error("TUNSETPERSIST"))?;
    Ok(offload)
}

/// Replaces `fd` by a fresh descriptor that is attached to the device `name`.
fn attach(fd: &mut OwnedFd, name: &str, vnet_header: bool) -> Result<(), Errno> {
    let fresh = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(CLONE_DEVICE)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    dup3(&fresh, fd, OFlag::O_CLOEXEC)?;
    let mut tries = ATTACH_TRIES;
    loop {
        match ioctl::set_interface(fd, name, vnet_header) {
            // A child that another thread has just forked still holds the old descriptor, until its execve(2).
            Err(Errno::EBUSY) if tries > 0 => {
                tries -= 1;
                std::thread::sleep(ATTACH_PAUSE);
            }
            result => return result,
        }
    }
}

fn set_flags(fd: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    set_close_on_exec(fd)
}

/// tun-tap opens without it.
fn set_close_on_exec(fd: &OwnedFd) -> Result<(), Errno> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map(drop)
}

/// The calls of linux/if_tun.h that tun-tap does not make.
#[allow(unsafe_code)]
pub(super) mod ioctl {
    use std::os::fd::{AsRawFd, OwnedFd};

    use nix::errno::Errno;
    use nix::libc;

    use super::VNET_HEADER_BYTES;

    nix::ioctl_write_int!(tunsetpersist, b'T', 203);
    nix::ioctl_write_int!(tunsetoffload, b'T', 208);
    nix::ioctl_write_ptr!(tunsetvnethdrsz, b'T', 216, libc::c_int);
    // Its number says that it points to an int, but it points to an `ifreq`.
    nix::ioctl_readwrite_bad!(
        tunsetiff,
        nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        libc::ifreq
    );

    /// Whether the device outlives its descriptor.
    pub(in crate::os) fn set_persist(fd: &OwnedFd, persist: bool) -> Result<(), Errno> {
        // SAFETY: the argument is a plain integer.
        unsafe { tunsetpersist(fd.as_raw_fd(), libc::c_ulong::from(persist)) }.map(drop)
    }

    /// Header size, checksums and TCP segmentation in both directions. `TUN_F_TSO_ECN` is left out: segments
    /// with CWR set then come cut by the kernel, and none of ours has it.
    pub(in crate::os) fn enable_offload(fd: &OwnedFd) -> Result<(), Errno> {
        // SAFETY: the argument points to an int that lives during the call.
        unsafe { tunsetvnethdrsz(fd.as_raw_fd(), &VNET_HEADER_BYTES) }?;
        let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
        // SAFETY: the argument is a plain integer.
        unsafe { tunsetoffload(fd.as_raw_fd(), libc::c_ulong::from(offloads)) }.map(drop)
    }

    /// Attaches a fresh descriptor to the device `name`.
    pub(in crate::os) fn set_interface(
        fd: &OwnedFd,
        name: &str,
        vnet_header: bool,
    ) -> Result<(), Errno> {
        let vnet = if vnet_header { libc::IFF_VNET_HDR } else { 0 };
        let mut request = request(name, libc::IFF_TUN | libc::IFF_NO_PI | vnet)?;
        // SAFETY: the argument points to an `ifreq` of ours, which the kernel reads and writes during the call.
        unsafe { tunsetiff(fd.as_raw_fd(), &mut request) }.map(drop)
    }

    fn request(name: &str, flags: libc::c_int) -> Result<libc::ifreq, Errno> {
        // SAFETY: `ifreq` is plain data for which all bits zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(Errno::ENAMETOOLONG);
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(|_| Errno::EINVAL)?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Runs `test` in a thread with a network namespace of its own. Needs root.
    fn in_namespace(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root (CAP_SYS_ADMIN)");
            test();
        })
        .join()
        .unwrap();
    }

    fn plan() -> DevicePlan {
        DevicePlan::default()
    }

    nix::ioctl_read_bad!(
        #[allow(unsafe_code)]
        tungetiff,
        nix::request_code_read!(b'T', 210, size_of::<libc::c_uint>()),
        libc::ifreq
    );

    /// What `tun` gives and takes, by its flags in the kernel (linux/if_tun.h).
    #[allow(unsafe_code)]
    fn flags(tun: &TunDevice) -> libc::c_int {
        // SAFETY: `ifreq` is plain data for which all bits zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // SAFETY: the argument points to an `ifreq` of ours, which the kernel writes during the call.
        unsafe { tungetiff(tun.as_raw_fd(), &mut request) }.unwrap();
        // SAFETY: this call writes flags, and no other field of the union.
        libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags })
    }

    #[test]
    fn a_device_for_a_tunnel_gives_what_is_on_a_wire() {
        for (kind, wanted) in [
            (DeviceKind::PlainTun, libc::IFF_TUN),
            (DeviceKind::Tap, libc::IFF_TAP),
        ] {
            in_namespace(move || {
                let plan = DevicePlan { kind, ..plan() };
                let tun = TunDevice::open(&plan).unwrap();
                assert!(!tun.offload());
                assert_eq!(tun.mtu(), DEFAULT_MTU);
                let asked = libc::IFF_TUN | libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
                assert_eq!(flags(&tun) & asked, wanted | libc::IFF_NO_PI);
                let flags = OFlag::from_bits_retain(fcntl(&tun, FcntlArg::F_GETFL).unwrap());
                assert!(flags.contains(OFlag::O_NONBLOCK));
                let flags = FdFlag::from_bits_retain(fcntl(&tun, FcntlArg::F_GETFD).unwrap());
                assert!(flags.contains(FdFlag::FD_CLOEXEC));
                let name = tun.name().to_owned();
                drop(tun);
                assert!(!exists(&name));
            });
        }
    }

    #[test]
    fn the_device_goes_with_its_descriptor() {
        in_namespace(|| {
            let tun = TunDevice::open(&plan()).unwrap();
            let name = tun.name().to_owned();
            assert!(tun.offload() && exists(&name));
            assert_eq!(tun.mtu(), DEFAULT_MTU);
            let flags = OFlag::from_bits_retain(fcntl(&tun, FcntlArg::F_GETFL).unwrap());
            assert!(flags.contains(OFlag::O_NONBLOCK));
            let flags = FdFlag::from_bits_retain(fcntl(&tun, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
            drop(tun);
            assert!(!exists(&name));
        });
    }

    /// What happens where a kernel takes no offload.
    #[test]
    fn a_device_can_be_attached_again_without_offload() {
        in_namespace(|| {
            let tun = TunDevice::open(&plan()).unwrap();
            let TunDevice { mut fd, name, .. } = tun;
            ioctl::set_persist(&fd, true).unwrap();
            attach(&mut fd, &name, false).unwrap();
            ioctl::set_persist(&fd, false).unwrap();
            assert!(exists(&name));
            drop(fd);
            assert!(!exists(&name));
        });
    }
}
