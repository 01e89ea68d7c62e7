//! What passes between us and the process in the namespaces: one report with descriptors, and later a descriptor per
//! request.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use super::Inside;
use crate::os::{SocketOwners, TunDevice};

/// The longest report, in bytes: a line for a person.
const MOST: usize = 4096;
/// The most descriptors of a message: the device, three namespaces, and what says whose a socket is.
const MOST_DESCRIPTORS: usize = 5;
/// First byte of a report.
const MADE: u8 = b'+';
const REFUSED: u8 = b'-';

/// What the child says when it is done.
pub(super) enum Report {
    Made(Made),
    /// One line for a person.
    Refused(String),
}

pub(super) struct Made {
    pub(super) device: TunDevice,
    pub(super) inside: Inside,
    pub(super) owners: Option<SocketOwners>,
}

/// Two ends that keep messages apart and tell of each other's end.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

pub(super) fn send_made(socket: &OwnedFd, made: &Made) -> io::Result<()> {
    let Made {
        device,
        inside,
        owners,
    } = made;
    let mut message = vec![MADE, u8::from(device.offload()), u8::from(owners.is_some())];
    message.extend(device.mtu().to_be_bytes());
    message.extend(device.name().as_bytes());
    let mut descriptors = vec![
        device.as_raw_fd(),
        inside.mount.as_raw_fd(),
        inside.network.as_raw_fd(),
    ];
    descriptors.extend(owners.as_ref().map(AsRawFd::as_raw_fd));
    descriptors.extend(inside.user.as_ref().map(AsRawFd::as_raw_fd));
    send(socket, &message, &descriptors)
}

pub(super) fn send_refused(socket: &OwnedFd, why: &str) -> io::Result<()> {
    let mut message = vec![REFUSED];
    message.extend(why.bytes().take(MOST - 1));
    send(socket, &message, &[])
}

pub(super) fn receive_report(socket: &OwnedFd) -> io::Result<Report> {
    let (message, descriptors) = receive(socket, MOST)?;
    match message.split_first() {
        Some((&MADE, rest)) => made(rest, descriptors).map(Report::Made),
        Some((&REFUSED, rest)) => Ok(Report::Refused(String::from_utf8_lossy(rest).into_owned())),
        Some(_) => Err(io::ErrorKind::InvalidData.into()),
        None => Err(io::Error::other("the process that makes it has ended")),
    }
}

fn made(message: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<Made> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let (&[offload, has_owners, high, low], name) =
        message.split_first_chunk().ok_or_else(malformed)?;
    let name = String::from_utf8(name.to_vec()).map_err(|_| malformed())?;
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or_else(malformed);
    let (device, mount, network) = (next()?, next()?, next()?);
    let owners = (has_owners != 0).then(next).transpose()?;
    let mtu = u16::from_be_bytes([high, low]);
    Ok(Made {
        device: TunDevice::from_parts(device, name, offload != 0, mtu),
        inside: Inside {
            user: descriptors.next(),
            mount,
            network,
        },
        owners: owners.map(SocketOwners::from),
    })
}

/// Sends one message with descriptors.
pub(super) fn send(socket: &OwnedFd, message: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let rights = if descriptors.is_empty() {
        &[]
    } else {
        &rights[..]
    };
    let message = [IoSlice::new(message)];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &message,
        rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// The next message, empty at the end, and its descriptors. Waits.
pub(super) fn receive(socket: &OwnedFd, most: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; most];
    let mut space = cmsg_space!([RawFd; MOST_DESCRIPTORS]);
    let (length, raw) = loop {
        let mut pieces = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut space[..]), flags) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(message) => break (message.bytes, rights(message.cmsgs()?)),
        }
    };
    buffer.truncate(length);
    Ok((buffer, raw.into_iter().map(owned).collect()))
}

fn rights(messages: impl Iterator<Item = ControlMessageOwned>) -> Vec<RawFd> {
    let rights = messages.filter_map(|message| match message {
        ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    rights.flatten().collect()
}

fn owned(raw: RawFd) -> OwnedFd {
    #[expect(unsafe_code, reason = "recvmsg(2) gives plain numbers")]
    // SAFETY: the kernel has just installed this descriptor for us; nobody else knows it.
    unsafe {
        OwnedFd::from_raw_fd(raw)
    }
}
