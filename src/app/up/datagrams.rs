//! Sockets for questions to name servers, from the network of this process.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use crate::carrier::Direct;
use crate::net::Target;
use crate::resolve::{Datagrams, Socket};

/// What any datagram has at most, in bytes.
const MOST: usize = 65_535;

impl Socket for UdpSocket {
    async fn send(&self, message: &[u8]) -> io::Result<()> {
        UdpSocket::send(self, message).await.map(drop)
    }

    async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut message = vec![0; MOST];
        let length = self.recv(&mut message).await?;
        message.truncate(length);
        Ok(message)
    }
}

impl Datagrams for Direct {
    type Socket = UdpSocket;

    async fn socket(&self, server: Target) -> io::Result<UdpSocket> {
        connected(server.0).await
    }
}

/// One that nobody but `server` is heard on; its port is the kernel's choice.
pub(super) async fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    Ok(socket)
}
