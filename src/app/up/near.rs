//! The name servers that this host, or another network, asks without us, whoever they are at the moment: with another network come others.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use nix::net::if_::if_nametoindex;
use tokio::net::{TcpStream, UdpSocket};
use tracing::warn;

use super::datagrams::connected;
use crate::carrier::Direct;
use crate::carrier::direct::{TcpReader, TcpWriter, halves, open_error};
use crate::net::{Carrier, Far, OpenError, OpenFailure, Source, Target};
use crate::os::helper::Hand;
use crate::os::names::{By, upstream};
use crate::plan::names;
use crate::resolve::{Datagrams, DatagramsFirst};

/// Opens streams to them.
#[derive(Clone, Debug)]
pub(super) enum Near {
    /// Of this host.
    Here {
        /// How its programs are brought to our name server.
        by: By,
        /// Ours, which is among them where all names are asked of us.
        own: IpAddr,
    },
    /// Of another network: they are asked from there.
    Elsewhere {
        /// Makes connections there.
        hand: Arc<Hand>,
        /// Those of the beginning.
        servers: Vec<SocketAddr>,
    },
}

impl Near {
    /// Whether they are asked from another network.
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Elsewhere { .. })
    }

    /// Who they are.
    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        match self {
            Self::Here { by, own } => {
                let mut servers = names::servers(&upstream(*by), |name| if_nametoindex(name).ok());
                servers.retain(|server| server.ip() != *own);
                servers
            }
            Self::Elsewhere { servers, .. } => servers.clone(),
        }
    }

    /// Where they are, so that their addresses must not be captured.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let servers = self.servers();
        let addresses = servers.iter().map(SocketAddr::ip);
        addresses.filter(|ip| !ip.is_loopback()).collect()
    }
}

impl Carrier for Near {
    type Reader = TcpReader;
    type Writer = TcpWriter;

    /// To `far`, or to another one where that is asked no longer.
    async fn open_far(
        &self,
        source: Source,
        far: Far,
    ) -> Result<(TcpReader, TcpWriter), OpenError> {
        match self {
            Self::Here { .. } => {
                let target = now(far.target.0, &self.servers());
                Direct.open(source, Target(target)).await
            }
            Self::Elsewhere { hand, .. } => open_there(hand, far.target.0).await,
        }
    }
}

impl Datagrams for Near {
    type Socket = UdpSocket;

    async fn socket(&self, server: Target) -> io::Result<UdpSocket> {
        match self {
            Self::Here { .. } => connected(now(server.0, &self.servers())).await,
            Self::Elsewhere { hand, .. } => {
                let made = hand.near(server.0, true).await;
                UdpSocket::from_std(made.map_err(io::Error::other)?.into())
            }
        }
    }
}

/// Warns where none of `servers`, which are asked by `carrier`, answers.
pub(super) async fn check<C: Datagrams>(
    carrier: &DatagramsFirst<C>,
    source: Source,
    servers: &[SocketAddr],
) {
    for server in servers {
        if carrier.answers(source, Target(*server)).await {
            return;
        }
    }
    warn!("{}", silence(servers));
}

/// What there is to say of `servers`, none of which answers.
pub(super) fn silence(servers: &[SocketAddr]) -> String {
    let Some(first) = servers.first() else {
        return "names: there is no name server here but that of underpass, so names that are not for the far side are not found; have \
                /etc/resolv.conf name one before underpass starts, or take --dns for all names"
            .to_owned();
    };
    let ip = first.ip();
    let all: Vec<String> = servers
        .iter()
        .map(|server| server.ip().to_string())
        .collect();
    format!(
        "names: the name servers here do not answer underpass: {}; names that are not for the far side are not found, nor the SSH server's \
         own after a lost connection; see whether one does: dig @{ip} . NS",
        all.join(", ")
    )
}

/// The privileged part takes another one where that is asked no longer there.
async fn open_there(hand: &Hand, server: SocketAddr) -> Result<(TcpReader, TcpWriter), OpenError> {
    let stream = hand.near(server, false).await;
    let stream = stream.map_err(|error| OpenError::new(OpenFailure::Other, error.to_string()))?;
    let connected = async {
        let stream = TcpStream::from_std(stream.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    };
    let connected: io::Result<_> = connected.await;
    connected.map(halves).map_err(|error| open_error(&error))
}

fn now(target: SocketAddr, servers: &[SocketAddr]) -> SocketAddr {
    match servers.first() {
        Some(first) if !servers.contains(&target) => *first,
        _ => target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_no_longer_is_not_asked() {
        let server = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let (old, new) = (server("192.0.2.1:53"), server("192.0.2.2:53"));
        assert_eq!(now(old, &[new, old]), old);
        assert_eq!(now(old, &[new]), new);
        assert_eq!(now(old, &[]), old);
    }

    #[test]
    fn who_does_not_answer_is_named_in_one_line() {
        let servers: [SocketAddr; 2] = [([192, 0, 2, 1], 53).into(), ([192, 0, 2, 2], 53).into()];
        let line = silence(&servers);
        assert!(line.contains(": 192.0.2.1, 192.0.2.2;"), "{line}");
        assert!(line.ends_with("dig @192.0.2.1 . NS"), "{line}");
        for line in [line, silence(&[])] {
            assert_eq!(line.lines().count(), 1, "{line}");
        }
    }
}
