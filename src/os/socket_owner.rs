//! Whose socket it is that a connection, or a datagram, comes from: sock_diag(7).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::libc::{IPPROTO_TCP, IPPROTO_UDP};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// SOCK_DIAG_BY_FAMILY (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST (linux/netlink.h).
const REQUEST: u16 = 1;
/// NLMSG_ERROR (linux/netlink.h).
const ERROR: u16 = 2;
/// Length of `struct nlmsghdr`, in bytes.
const HEADER: usize = 16;
/// Offsets of `idiag_state`, `idiag_uid` and `idiag_inode` in `struct inet_diag_msg` (linux/inet_diag.h).
const STATE: usize = HEADER + 1;
const UID: usize = HEADER + 64;
const INODE: usize = HEADER + 68;
/// TCP_LISTEN, a state (net/tcp_states.h).
const LISTEN: u8 = 10;
/// How long the kernel may take, in milliseconds. It answers at once.
const PATIENCE: i64 = 200;

/// What a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Who owns a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOwner {
    /// Number of the user.
    pub uid: u32,
    /// The socket's inode, which its descriptors name.
    pub inode: u64,
}

/// Asks the kernel about sockets of the network namespace in which it was made.
#[derive(Debug)]
pub struct SocketOwners {
    socket: OwnedFd,
    sequence: u32,
}

impl SocketOwners {
    /// Opens a netlink socket; it needs no privilege.
    ///
    /// # Errors
    /// Those of socket(2): EPROTONOSUPPORT where the kernel lacks sock_diag.
    pub fn new() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(PATIENCE))?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(socket.into())
    }

    /// Who owns the socket that is bound to `source` and connects, or is connected, to `target`. `None` where there is
    /// none in this namespace (the packets were forwarded) or nobody has it open any more. One of UDP may be bound to every
    /// address: `source` has to be one of this namespace then ([`is_own_address`]).
    ///
    /// # Errors
    /// Those of the netlink socket, and an answer that makes no sense.
    pub fn find(
        &mut self,
        transport: Transport,
        source: SocketAddr,
        target: SocketAddr,
    ) -> io::Result<Option<SocketOwner>> {
        self.sequence = self.sequence.wrapping_add(1);
        let question = question(self.sequence, transport, source, target);
        let socket = self.socket.as_raw_fd();
        send(socket, &question, MsgFlags::empty())?;
        let mut buffer = [0; 1024];
        loop {
            let length = recv(socket, &mut buffer, MsgFlags::empty())?;
            if let Some(found) = answer(&buffer[..length], self.sequence)? {
                return Ok(found.filter(|owner| owner.inode != 0));
            }
        }
    }
}

/// Whether `address` is one of this process's network namespace.
pub fn is_own_address(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// One that was made by another process, in its network namespace.
impl From<OwnedFd> for SocketOwners {
    fn from(socket: OwnedFd) -> Self {
        Self {
            socket,
            sequence: 0,
        }
    }
}

impl AsRawFd for SocketOwners {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` (linux/inet_diag.h).
fn question(
    sequence: u32,
    transport: Transport,
    source: SocketAddr,
    target: SocketAddr,
) -> [u8; 72] {
    let mut bytes = [0; 72];
    bytes[0..4].copy_from_slice(&72u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    let family = match source {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    bytes[16] = family as u8;
    // A socket of UDP is looked up as for a datagram that comes in: who sent that stands first (net/ipv4/udp_diag.c).
    let (number, first, second) = match transport {
        Transport::Tcp => (IPPROTO_TCP, source, target),
        Transport::Udp => (IPPROTO_UDP, target, source),
    };
    bytes[17] = number as u8;
    // Every state; no cookie.
    bytes[20..24].fill(0xff);
    bytes[24..26].copy_from_slice(&first.port().to_be_bytes());
    bytes[26..28].copy_from_slice(&second.port().to_be_bytes());
    put(&mut bytes[28..44], first.ip());
    put(&mut bytes[44..60], second.ip());
    bytes[64..72].fill(0xff);
    bytes
}

fn put(place: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(v4) => place[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => place.copy_from_slice(&v6.octets()),
    }
}

/// What an answer says; `None` where it is to another question.
///
/// # Errors
/// The kernel's, and a message that is cut short.
fn answer(bytes: &[u8], sequence: u32) -> io::Result<Option<Option<SocketOwner>>> {
    let cut_short = || io::Error::from(io::ErrorKind::InvalidData);
    let word = |at: usize| {
        let word = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(word))
    };
    let kind = bytes.get(4..6).ok_or_else(cut_short)?;
    if word(8).ok_or_else(cut_short)? != sequence {
        return Ok(None);
    }
    let kind = u16::from_ne_bytes([kind[0], kind[1]]);
    if kind == ERROR {
        let code = word(HEADER).ok_or_else(cut_short)?.cast_signed();
        return match code.wrapping_neg() {
            nix::libc::ENOENT => Ok(Some(None)),
            code => Err(io::Error::from_raw_os_error(code)),
        };
    }
    if kind != BY_FAMILY {
        return Err(cut_short());
    }
    // Where no connection is found the kernel takes a listener at the port (net/ipv4/inet_diag.c inet_diag_find_one_icsk()).
    if *bytes.get(STATE).ok_or_else(cut_short)? == LISTEN {
        return Ok(Some(None));
    }
    Ok(Some(Some(SocketOwner {
        uid: word(UID).ok_or_else(cut_short)?,
        inode: word(INODE).ok_or_else(cut_short)?.into(),
    })))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;

    fn owner_of(address: &str) {
        let listener = TcpListener::bind(address).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (source, target) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        is_ours(Transport::Tcp, source, target);
        let anybody = SocketAddr::new(source.ip(), 9);
        for bound in [address, "[::]:0"] {
            let socket = UdpSocket::bind(bound).unwrap();
            let source = SocketAddr::new(source.ip(), socket.local_addr().unwrap().port());
            is_ours(Transport::Udp, source, anybody);
            socket.connect(anybody).unwrap();
            is_ours(Transport::Udp, source, anybody);
        }
    }

    fn is_ours(transport: Transport, source: SocketAddr, target: SocketAddr) {
        let mut owners = SocketOwners::new().unwrap();
        let owner = owners.find(transport, source, target).unwrap().unwrap();
        assert_eq!(owner.uid, nix::unistd::geteuid().as_raw());
        let mut processes = crate::os::Processes::default();
        for _ in 0..2 {
            let found = processes.with_sockets([owner.inode, u64::MAX].into());
            assert_eq!(found[&owner.inode].pid, std::process::id());
            assert_eq!(found.len(), 1);
        }
    }

    #[test]
    fn the_owner_of_a_socket_is_found() {
        owner_of("127.0.0.1:0");
        owner_of("[::1]:0");
    }

    #[test]
    fn a_socket_that_is_not_here_has_no_owner() {
        let mut owners = SocketOwners::new().unwrap();
        let source = "192.0.2.1:1".parse().unwrap();
        let target = "192.0.2.2:2".parse().unwrap();
        for transport in [Transport::Tcp, Transport::Udp] {
            assert_eq!(owners.find(transport, source, target).unwrap(), None);
        }
    }

    /// One that was forwarded has its port by chance.
    #[test]
    fn a_listener_is_nobodys_connection() {
        let mut owners = SocketOwners::new().unwrap();
        for (bound, [source, target]) in [
            ("0.0.0.0:0", ["192.0.2.1", "192.0.2.2"]),
            ("[::]:0", ["192.0.2.1", "192.0.2.2"]),
            ("[::]:0", ["2001:db8::1", "2001:db8::2"]),
        ] {
            let listener = TcpListener::bind(bound).unwrap();
            let port = listener.local_addr().unwrap().port();
            let source = SocketAddr::new(source.parse().unwrap(), port);
            let target = SocketAddr::new(target.parse().unwrap(), 2);
            let found = owners.find(Transport::Tcp, source, target).unwrap();
            assert_eq!(found, None, "{bound}");
        }
    }

    #[test]
    fn an_address_is_own_where_packets_from_it_are() {
        for (address, is_own) in [("127.0.0.1", true), ("::1", true), ("192.0.2.1", false)] {
            assert_eq!(is_own_address(address.parse().unwrap()), is_own);
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), sequence: u32) {
            let _ = answer(&bytes, sequence);
        }

        #[test]
        fn what_was_asked_is_answered(uid: u32, inode: u32, sequence: u32, cut in 0usize..88) {
            let mut bytes = vec![0; 88];
            bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
            bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
            bytes[UID..UID + 4].copy_from_slice(&uid.to_ne_bytes());
            bytes[INODE..INODE + 4].copy_from_slice(&inode.to_ne_bytes());
            let owner = SocketOwner { uid, inode: inode.into() };
            prop_assert_eq!(answer(&bytes, sequence).unwrap(), Some(Some(owner)));
            prop_assert_eq!(answer(&bytes, sequence.wrapping_add(1)).unwrap(), None);
            if cut < 84 {
                prop_assert!(answer(&bytes[..cut], sequence).is_err());
            }
        }
    }
}
