//! Whether programs on this host do ask our name server, after everything was done for that: a lookup has to come back from it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

use super::host_names;
use super::names::Names;
use super::own_name::OwnName;
use crate::os::names::{By, Keeper};

/// How long a program's question may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// More of an answer is not read, in bytes.
const MOST: usize = 1232;

/// By which ways our name server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    /// As most programs ask: getaddrinfo(3).
    by_library: bool,
    /// As those do that read `/etc/resolv.conf` themselves.
    by_file: bool,
}

/// Looks our own name up as programs do; what to warn of.
pub(super) async fn check(names: &Names, keeper: Keeper) -> Option<String> {
    let own = names.own_name();
    let first = host_names::servers_now().into_iter().next();
    let by_file = async {
        match first {
            Some(server) => asks_there(own, server).await,
            None => false,
        }
    };
    let (by_library, by_file) = tokio::join!(asks_by_library(own), by_file);
    let asked = Asked {
        by_library,
        by_file,
    };
    warning(asked, keeper, first.map(|server| server.ip()))
}

async fn asks_by_library(own_name: &OwnName) -> bool {
    let own = IpAddr::from(own_name.address());
    let found = async {
        let mut found = lookup_host((own_name.text(), 53)).await?;
        Ok::<_, std::io::Error>(found.any(|found| found.ip() == own))
    };
    matches!(timeout(LOOKUP, found).await, Ok(Ok(true)))
}

async fn asks_there(own: &OwnName, server: SocketAddr) -> bool {
    let ask = async {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => ([0; 4], 0).into(),
            SocketAddr::V6(_) => ([0; 16], 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(server).await?;
        let id = super::seed() as u16;
        socket.send(&own.question(id)).await?;
        let mut answer = [0; MOST];
        let length = socket.recv(&mut answer).await?;
        Ok::<_, std::io::Error>(own.is_ours(&answer[..length]))
    };
    matches!(timeout(LOOKUP, ask).await, Ok(Ok(true)))
}

/// Who answers instead, and what to do; `first` is whom `/etc/resolv.conf` names.
fn warning(asked: Asked, keeper: Keeper, first: Option<IpAddr>) -> Option<String> {
    let first = first.map_or_else(|| "nobody".to_owned(), |ip| ip.to_string());
    let by_resolved = keeper.by() == Some(By::Resolved);
    let warning = match asked {
        Asked {
            by_library: true,
            by_file: true,
        } => return None,
        Asked {
            by_library: false,
            by_file: true,
        } => "names: programs on this host do not ask the name server of underpass, although /etc/resolv.conf names it; \
              another one answers them, by what stands behind hosts: in /etc/nsswitch.conf"
            .to_owned(),
        Asked {
            by_library: true,
            by_file: false,
        } => format!(
            "names: programs that read /etc/resolv.conf themselves (dig, Go's) do not ask the name server of underpass but {first}, \
             which that file names; to have them ask systemd-resolved: sudo ln -sf /run/systemd/resolve/stub-resolv.conf \
             /etc/resolv.conf"
        ),
        Asked { .. } if by_resolved => "names: programs on this host do not ask the name server of underpass: systemd-resolved \
             answers them by another link, which resolvectl domain shows; have that link leave these domains, or write: \
             underpass run --dns ... -- COMMAND"
            .to_owned(),
        Asked { .. } => format!(
            "names: programs on this host do not ask the name server of underpass: {first} answers them, which {} has put into \
             /etc/resolv.conf; write: underpass run --dns ... -- COMMAND",
            keeper.name()
        ),
    };
    Some(warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_instead_is_named_in_one_line() {
        let said = |by_library, by_file, keeper| {
            let asked = Asked {
                by_library,
                by_file,
            };
            warning(asked, keeper, Some([192, 0, 2, 1].into()))
        };
        assert_eq!(said(true, true, Keeper::Resolved), None);
        for (by_library, by_file, keeper, words) in [
            (false, true, Keeper::Plain, "nsswitch.conf"),
            (true, false, Keeper::Resolved, "but 192.0.2.1"),
            (false, false, Keeper::Resolved, "systemd-resolved answers"),
            (
                false,
                false,
                Keeper::NetworkManager,
                "192.0.2.1 answers them, which NetworkManager",
            ),
        ] {
            let line = said(by_library, by_file, keeper).unwrap();
            assert!(line.contains(words) && line.lines().count() == 1, "{line}");
            assert!(
                line.contains("do not ask the name server of underpass"),
                "{line}"
            );
        }
    }
}
