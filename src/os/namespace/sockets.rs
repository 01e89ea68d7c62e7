//! Sockets that belong to the namespace, made by a process in it.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::passing::{receive, send};

/// Requests, and the first byte of an answer.
const V4: u8 = b'4';
const V6: u8 = b'6';
const FAILED: u8 = b'-';

/// Makes TCP sockets in the namespace.
#[derive(Debug)]
pub struct Sockets {
    process: Mutex<OwnedFd>,
}

impl Sockets {
    pub(super) fn new(process: OwnedFd) -> Self {
        Self {
            process: Mutex::new(process),
        }
    }

    /// A non-blocking TCP socket, not connected yet, for an address of the version of `to`. Waits for the process in the
    /// namespace, some microseconds.
    ///
    /// # Errors
    /// Those of socket(2); `NotConnected` when that process is gone.
    pub fn tcp(&self, to: IpAddr) -> io::Result<TcpStream> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let request = if to.is_ipv4() { V4 } else { V6 };
        send(&process, &[request], &[])?;
        let (answer, descriptors) = receive(&process, 1 + size_of::<i32>())?;
        match (answer.split_first(), descriptors.into_iter().next()) {
            (Some((&FAILED, errno)), _) => Err(failed(errno)),
            (Some(_), Some(socket)) => Ok(socket.into()),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

fn failed(errno: &[u8]) -> io::Error {
    match errno.try_into() {
        Ok(bytes) => io::Error::from_raw_os_error(i32::from_be_bytes(bytes)),
        Err(_) => io::ErrorKind::InvalidData.into(),
    }
}

/// Serves requests until the other end is gone.
pub(super) fn serve(asks: &OwnedFd) {
    while let Ok((request, _)) = receive(asks, 1) {
        let family = match request.as_slice() {
            [V4] => AddressFamily::Inet,
            [V6] => AddressFamily::Inet6,
            _ => return,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let answered = match socket(family, SockType::Stream, flags, None) {
            Ok(made) => send(asks, &request, &[made.as_raw_fd()]),
            Err(errno) => {
                let mut answer = vec![FAILED];
                answer.extend((errno as i32).to_be_bytes());
                send(asks, &answer, &[])
            }
        };
        if answered.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::super::passing::pair;
    use super::*;

    #[test]
    fn a_socket_of_either_version_comes_until_the_end() {
        let (ours, theirs) = pair().unwrap();
        let process = std::thread::spawn(move || serve(&theirs));
        let sockets = Sockets::new(ours);
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let socket = sockets.tcp(address).unwrap();
            assert_eq!(socket.local_addr().unwrap().is_ipv4(), address.is_ipv4());
        }
        drop(sockets);
        process.join().unwrap();
    }

    #[test]
    fn what_fails_there_is_told_here() {
        let (ours, theirs) = pair().unwrap();
        let mut answer = vec![FAILED];
        answer.extend(nix::libc::EMFILE.to_be_bytes());
        send(&theirs, &answer, &[]).unwrap();
        let sockets = Sockets::new(ours);
        let error = sockets.tcp(Ipv4Addr::LOCALHOST.into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EMFILE));
        drop(theirs);
        assert!(sockets.tcp(Ipv4Addr::LOCALHOST.into()).is_err());
    }
}
