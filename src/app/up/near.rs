//! The name servers that this host, or another network, asks without us, whoever they are at the moment: with another network come others.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use tokio::net::{TcpStream, UdpSocket};
use tracing::warn;

use super::datagrams::connected;
use crate::carrier::Direct;
use crate::carrier::direct::{TcpReader, TcpWriter, halves, open_error};
use crate::net::{Carrier, Far, OpenError, OpenFailure, Source, Target};
use crate::os::helper::Hand;
use crate::os::names::{By, upstream};
use crate::plan::dns::is_name_server;
use crate::plan::names;
use crate::resolve::{Datagrams, DatagramsFirst};

/// It is looked at most so often whether others are asked.
const LOOK: Duration = Duration::from_secs(1);

/// Opens streams to them.
#[derive(Clone, Debug)]
pub(super) enum Near {
    /// Of this host.
    Here {
        /// How its programs are brought to our name server.
        by: By,
        /// Those of the beginning, by which they are known.
        at_first: Vec<SocketAddr>,
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
    /// Those of this host.
    pub(super) fn here(by: By) -> Self {
        Self::Here {
            by,
            at_first: servers_here(by),
        }
    }

    /// Whether they are asked from another network.
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Elsewhere { .. })
    }

    /// Who they are.
    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        match self {
            Self::Here { by, .. } => servers_here(*by),
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
            Self::Here { at_first, .. } => {
                let target = now(far.target.0, at_first, &self.servers());
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
            Self::Here { at_first, .. } => {
                connected(now(server.0, at_first, &self.servers())).await
            }
            Self::Elsewhere { hand, .. } => {
                let made = hand.near(server.0, true).await;
                UdpSocket::from_std(made.map_err(io::Error::other)?.into())
            }
        }
    }
}

/// Notices when others are asked than before.
#[derive(Debug)]
pub(super) struct Lookout {
    near: Near,
    seen: Mutex<Seen>,
}

impl Lookout {
    /// On those of `near`.
    pub(super) fn new(near: Near) -> Self {
        let seen = Seen {
            at: Instant::now(),
            servers: near.servers(),
        };
        Self {
            near,
            seen: Mutex::new(seen),
        }
    }

    /// Whether others are asked than when it was last looked at.
    pub(super) fn sees_others(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.differ(Instant::now(), || self.near.servers())
    }
}

/// Who was asked, when that was looked at.
#[derive(Debug)]
struct Seen {
    at: Instant,
    servers: Vec<SocketAddr>,
}

impl Seen {
    fn differ(&mut self, now: Instant, servers: impl FnOnce() -> Vec<SocketAddr>) -> bool {
        if now.saturating_duration_since(self.at) < LOOK {
            return false;
        }
        self.at = now;
        let before = std::mem::replace(&mut self.servers, servers());
        before != self.servers
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

/// Without ours, which are among them where all names are asked of one.
fn servers_here(by: By) -> Vec<SocketAddr> {
    let scope = |name: &str| if_nametoindex(name).ok();
    names::others(&upstream(by), scope, is_name_server)
}

/// Who is asked in the place that `target` had at first, or the first one where there are fewer.
fn now(target: SocketAddr, at_first: &[SocketAddr], servers: &[SocketAddr]) -> SocketAddr {
    let is_among_them = |all: &[SocketAddr]| all.iter().position(|server| *server == target);
    let place = is_among_them(at_first).or_else(|| is_among_them(servers));
    let there = servers.get(place.unwrap_or_default());
    *there.or(servers.first()).unwrap_or(&target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 53).into()
    }

    #[test]
    fn who_is_asked_no_longer_is_not_asked_and_each_new_one_is() {
        let (old, new) = ([server(1), server(2)], [server(3), server(4)]);
        let asked = |servers: &[SocketAddr]| old.map(|target| now(target, &old, servers));
        assert_eq!(asked(&old), old);
        assert_eq!(asked(&new), new);
        assert_eq!(asked(&new[..1]), [new[0]; 2]);
        assert_eq!(asked(&[]), old);
        assert_eq!(now(server(9), &old, &new), new[0]);
        assert_eq!(now(new[1], &old, &new), new[1]);
    }

    #[test]
    fn others_are_noticed_once_and_looked_for_once_a_second() {
        let start = Instant::now();
        let mut seen = Seen {
            at: start,
            servers: vec![server(1)],
        };
        let mut after = |millis, servers: &[SocketAddr]| {
            seen.differ(start + Duration::from_millis(millis), || servers.to_vec())
        };
        assert!(!after(999, &[server(2)]));
        assert!(after(1_000, &[server(2)]));
        assert!(!after(1_999, &[server(1)]));
        assert!(!after(2_000, &[server(2)]));
        assert!(after(3_000, &[]));
    }

    #[test]
    fn who_does_not_answer_is_named_in_one_line() {
        let servers = [server(1), server(2)];
        let line = silence(&servers);
        assert!(line.contains(": 192.0.2.1, 192.0.2.2;"), "{line}");
        assert!(line.ends_with("dig @192.0.2.1 . NS"), "{line}");
        for line in [line, silence(&[])] {
            assert_eq!(line.lines().count(), 1, "{line}");
        }
    }
}
