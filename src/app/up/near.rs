//! The name servers that this host asks without us, whoever they are at the moment: with another network come others.

use std::net::{IpAddr, SocketAddr};

use nix::net::if_::if_nametoindex;

use crate::carrier::Direct;
use crate::carrier::direct::{TcpReader, TcpWriter};
use crate::net::{Carrier, Far, OpenError, Source, Target};
use crate::os::names::{By, upstream};
use crate::plan::names;

/// Opens streams to them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    by: By,
    /// Ours, which is among them where all names are asked of us.
    own: IpAddr,
}

impl Near {
    /// Of a host whose programs are brought to our name server, at `own`, like this.
    pub(super) fn new(by: By, own: IpAddr) -> Self {
        Self { by, own }
    }

    /// Who they are.
    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        let mut servers = names::servers(&upstream(self.by), |name| if_nametoindex(name).ok());
        servers.retain(|server| server.ip() != self.own);
        servers
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
        let target = now(far.target.0, &self.servers());
        Direct.open(source, Target(target)).await
    }
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
}
