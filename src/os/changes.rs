//! What the kernel tells of changes in the host's links, addresses and routes (rtnetlink(7), multicast groups).
//!
//! A socket of its own: what matters is that something changed, so messages are looked at and forgotten, and a burst
//! that overruns the socket's buffer is a change as well.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use rtnetlink::packet_core::NetlinkBuffer;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::news::News;
use super::routes::PROTOCOL;

/// `RTMGRP_*` of linux/rtnetlink.h: links, and addresses and routes of both IP versions.
const GROUPS: i32 = libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE;
/// And rules. `RTNLGRP_IPV6_RULE` has no `RTMGRP_*`.
const HELPER_GROUPS: i32 = GROUPS | libc::RTMGRP_IPV4_RULE | 1 << (libc::RTNLGRP_IPV6_RULE - 1);
/// What one read takes, in bytes: NLMSG_GOODSIZE is a page, and notifications of one event come together.
const BUFFER: usize = 32 << 10;
/// Changes within this time are one.
const TOGETHER: Duration = Duration::from_millis(50);
/// Hears of changes that are not our own: in what `protocol` [`PROTOCOL`] or our device does, nothing is new.
#[derive(Debug)]
pub struct Changes {
    socket: AsyncFd<OwnedFd>,
    seen: Seen,
}

/// Whose changes they are.
#[derive(Debug)]
enum Seen {
    /// The helper's: whatever changes in links, and what may have taken a route or rule of ours away.
    Helper,
    /// Those of the host, as the way to the server sees them.
    Host(News),
}

impl Changes {
    /// Listens from here on, in the network namespace of this thread; `device` is ours.
    ///
    /// # Errors
    /// When the socket cannot be made, or there is no such device.
    pub fn new(device: &str) -> io::Result<Self> {
        let seen = Seen::Host(News::new(if_nametoindex(device)?));
        Self::of(GROUPS, seen)
    }

    /// The same for the helper: of whatever changes in links, as the routes of a device that goes down go without a word, and
    /// of what may have taken our routes and rules away.
    pub(super) fn for_helper() -> io::Result<Self> {
        Self::of(HELPER_GROUPS, Seen::Helper)
    }

    fn of(groups: i32, seen: Seen) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups as u32))?;
        #[allow(unsafe_code)]
        // SAFETY: the `AsyncFd` owns the descriptor, which stays open and the same as long as it lives.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket, seen })
    }

    /// Waits for the next change; what changed, in a word. Cancel safe.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn next(&mut self) -> io::Result<&'static str> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let mut ready = self.socket.readable().await?;
            let read = ready.try_io(|socket| {
                Ok(recv(
                    socket.as_raw_fd(),
                    &mut buffer,
                    MsgFlags::MSG_DONTWAIT,
                )?)
            });
            match read {
                Err(_) => {}
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.seen.forget();
                    return Ok("many things");
                }
                Ok(Err(error)) => return Err(error),
                Ok(Ok(length)) => {
                    if let Some(what) = self.seen.news(&buffer[..length]) {
                        return Ok(what);
                    }
                }
            }
        }
    }

    /// Waits for what comes together with a change, which seldom comes alone, and takes note of it: it is part of that.
    pub async fn settle(&mut self) {
        tokio::time::sleep(TOGETHER).await;
        let mut buffer = vec![0; BUFFER];
        let socket = self.socket.as_raw_fd();
        loop {
            match recv(socket, &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => _ = self.seen.news(&buffer[..length]),
                Err(Errno::ENOBUFS) => self.seen.forget(),
                Err(_) => return,
            }
        }
    }
}

impl Seen {
    fn forget(&mut self) {
        if let Self::Host(news) = self {
            news.forget();
        }
    }

    /// What is new in the messages of one datagram.
    fn news(&mut self, mut datagram: &[u8]) -> Option<&'static str> {
        let mut news = None;
        while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
            news = self.one(message.message_type(), message.payload()).or(news);
            // NLMSG_ALIGN: each message begins at a multiple of four.
            let next = (message.length() as usize).next_multiple_of(4);
            datagram = datagram.get(next..).unwrap_or_default();
        }
        news
    }

    fn one(&mut self, kind: u16, body: &[u8]) -> Option<&'static str> {
        match (self, kind) {
            (Self::Host(news), _) => news.of(kind, body),
            (Self::Helper, libc::RTM_NEWLINK | libc::RTM_DELLINK) => Some("a link"),
            // `rtm_protocol` of `struct rtmsg` (linux/rtnetlink.h).
            (Self::Helper, libc::RTM_DELROUTE) => {
                (*body.get(5)? == PROTOCOL).then_some("a route of ours")
            }
            // Whose it was comes behind the fixed part (FRA_PROTOCOL): few go, so each is looked into.
            (Self::Helper, libc::RTM_DELRULE) => Some("a rule"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with its header (netlink(7)).
    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = 16 + body.len() as u32;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link(index: u32, flags: i32) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend(index.to_ne_bytes());
        body.extend(flags.to_ne_bytes());
        body.extend([0; 4]);
        message(libc::RTM_NEWLINK, &body)
    }

    fn route(protocol: u8) -> Vec<u8> {
        message(
            libc::RTM_NEWROUTE,
            &[2, 0, 0, 0, 254, protocol, 0, 0, 0, 0, 0, 0],
        )
    }

    #[test]
    fn the_helper_hears_of_links_and_of_what_takes_its_own_away() {
        let mut seen = Seen::Helper;
        let gone = |protocol| {
            let body = [2, 0, 0, 0, 254, protocol, 0, 0, 0, 0, 0, 0];
            message(libc::RTM_DELROUTE, &body)
        };
        assert_eq!(seen.news(&gone(PROTOCOL)), Some("a route of ours"));
        assert_eq!(seen.news(&gone(3)), None);
        assert_eq!(seen.news(&route(PROTOCOL)), None);
        assert_eq!(seen.news(&route(3)), None);
        for index in [3, 7] {
            assert_eq!(seen.news(&link(index, libc::IFF_UP)), Some("a link"));
        }
        let rule = message(libc::RTM_DELRULE, &[2; 12]);
        assert_eq!(seen.news(&rule), Some("a rule"));
    }

    #[test]
    fn each_message_of_a_datagram_is_looked_at() {
        let mut seen = Seen::Host(News::new(7));
        let datagram = [route(PROTOCOL), route(3), route(PROTOCOL)].concat();
        assert_eq!(seen.news(&datagram), Some("a route"));
        assert_eq!(seen.news(&datagram), None);
    }

    #[test]
    fn cut_messages_are_no_news() {
        let news = |bytes: &[u8]| Seen::Host(News::new(7)).news(bytes);
        let whole = route(3);
        for length in 0..whole.len() {
            assert_eq!(news(&whole[..length]), None, "{length}");
        }
        let mut lies = whole;
        lies[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(news(&lies), None);
        lies[..4].copy_from_slice(&0u32.to_ne_bytes());
        assert_eq!(news(&lies), None);
    }
}
