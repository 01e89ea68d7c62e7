//! Ports that a command listens on, for the host.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::carrier::clients::{Client, ClientWriter, Clients};
use crate::carrier::direct::{self, TcpReader, TcpWriter};
use crate::net::{Carrier, Far, Inbound, OpenError, OpenFailure, Source, Target};
use crate::os::namespace::Sockets;
use crate::plan::Publish;
use crate::relay::{Traffic, relay};

/// Connections through one published port at a time; further ones wait in the kernel's queue.
const MOST: usize = 1024;
/// Connections that wait there.
const QUEUE: u32 = 1024;
/// After a failed accept(2), as without descriptors: it would fail at once again.
const PAUSE: Duration = Duration::from_millis(100);
/// From here on everybody may listen (ip_unprivileged_port_start, ip(7)).
const UNPRIVILEGED: u16 = 1024;
/// Where a command listens.
const INSIDE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// A port cannot be published.
#[derive(Debug, Error)]
#[error("--publish: cannot listen on {}: {source}{}", port.listen, hint(.port, .source))]
pub(super) struct PublishError {
    port: Publish,
    #[source]
    source: io::Error,
}

fn hint(port: &Publish, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; take another port before the colon".to_owned(),
        io::ErrorKind::PermissionDenied if port.inside >= UNPRIVILEGED => format!(
            "; this host's port stands before the command's: --publish {}",
            port.reversed()
        ),
        io::ErrorKind::PermissionDenied => "; take a port from 1024 on before the colon".to_owned(),
        io::ErrorKind::AddrNotAvailable => "; take an address of this host".to_owned(),
        _ => String::new(),
    }
}

/// A port that is ours, and that nobody can connect to yet.
pub(super) struct Bound {
    port: Publish,
    socket: TcpSocket,
}

/// Takes every port.
pub(super) fn bind(ports: &[Publish]) -> Result<Vec<Bound>, PublishError> {
    let bound = ports.iter().map(|port| {
        let socket = bound_to(port.listen).map_err(failed(port))?;
        let port = *port;
        Ok(Bound { port, socket })
    });
    bound.collect()
}

fn bound_to(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Connections of the last command that are still about to end are no obstacle.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn failed(port: &Publish) -> impl FnOnce(io::Error) -> PublishError {
    let port = *port;
    move |source| PublishError { port, source }
}

/// Listens on every port; what they let in is carried by the tasks given back, and counted among `clients`.
pub(super) fn start(
    ports: Vec<Bound>,
    sockets: Sockets,
    clients: &Arc<Clients>,
) -> Result<Vec<JoinHandle<()>>, PublishError> {
    let sockets = Arc::new(sockets);
    let mut tasks = Vec::new();
    for Bound { port, socket } in ports {
        let listener = socket.listen(QUEUE).map_err(failed(&port))?;
        let sockets = Arc::clone(&sockets);
        let within = Arc::new(Within {
            sockets,
            port,
            clients: Arc::clone(clients),
            is_told: AtomicBool::new(false),
        });
        tasks.push(tokio::spawn(serve(listener, within)));
    }
    Ok(tasks)
}

async fn serve(listener: TcpListener, within: Arc<Within>) {
    let room = Arc::new(Semaphore::new(MOST));
    let mut told = false;
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                let within = Arc::clone(&within);
                tokio::spawn(async move {
                    carry(stream, from, &within).await;
                    drop(place);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    warn!("a published port takes no connection for now: {error}");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

async fn carry(stream: TcpStream, from: SocketAddr, within: &Within) {
    let inside = within.port.inside;
    // Behind the halves it is the last to have the socket.
    let client = Client::new(stream, &within.clients);
    let inbound = Accepted {
        client: Arc::clone(&client),
        from,
        target: SocketAddr::new(INSIDE[0], inside),
    };
    let target = inbound.target();
    let outcome = relay(inbound, within, target.into(), &Traffic::default()).await;
    debug!("published port {inside}: {outcome}");
}

/// A connection that the host's kernel has taken already.
struct Accepted {
    client: Arc<Client>,
    from: SocketAddr,
    target: SocketAddr,
}

impl Inbound for Accepted {
    type Reader = TcpReader;
    type Writer = ClientWriter;

    fn source(&self) -> Source {
        Source(self.from)
    }

    fn target(&self) -> Target {
        Target(self.target)
    }

    async fn withdrawn(&mut self) {
        // The answer from inside comes within a moment.
        std::future::pending().await
    }

    fn accept(self) -> (TcpReader, ClientWriter) {
        self.client.halves()
    }

    /// It was taken before anybody could ask inside: a reset comes nearest to a refusal.
    fn refuse(self, _: &OpenError) {
        self.client.reset();
    }
}

/// Opens streams to the namespace's own loopback.
struct Within {
    sockets: Arc<Sockets>,
    port: Publish,
    clients: Arc<Clients>,
    /// It was said that the ports seem to be the wrong way round.
    is_told: AtomicBool,
}

impl Carrier for Within {
    type Reader = TcpReader;
    type Writer = TcpWriter;

    /// To whichever loopback somebody listens on.
    async fn open_far(&self, _: Source, far: Far) -> Result<(TcpReader, TcpWriter), OpenError> {
        let mut failure = OpenError::new(OpenFailure::Refused, "");
        for ip in INSIDE {
            match self.connect(SocketAddr::new(ip, far.target.0.port())).await {
                Ok(stream) => return Ok(direct::halves(stream)),
                Err(error) => failure = direct::open_error(&error),
            }
        }
        self.tell_if_reversed().await;
        Err(failure)
    }
}

impl Within {
    /// Nobody listens on the one port: perhaps on the other.
    async fn tell_if_reversed(&self) {
        let Publish { listen, inside } = self.port;
        if listen.port() == inside || self.is_told.load(Ordering::Relaxed) {
            return;
        }
        let mut is_used = false;
        for ip in INSIDE {
            is_used |= self.is_used(SocketAddr::new(ip, listen.port())).await;
        }
        if is_used && !self.is_told.swap(true, Ordering::Relaxed) {
            let (port, reversed) = (self.port, self.port.reversed());
            warn!(
                "--publish {port}: the command listens on port {}, not {inside}; this host's port stands before the \
                 command's: --publish {reversed}",
                listen.port()
            );
        }
    }

    /// Whether somebody inside has this address, found out without a connection to them.
    async fn is_used(&self, address: SocketAddr) -> bool {
        let sockets = Arc::clone(&self.sockets);
        let socket = spawn_blocking(move || sockets.tcp(address.ip())).await;
        let Ok(Ok(socket)) = socket else {
            return false;
        };
        let bound = TcpSocket::from_std_stream(socket).bind(address);
        bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let sockets = Arc::clone(&self.sockets);
        let socket = spawn_blocking(move || sockets.tcp(to.ip())).await??;
        TcpSocket::from_std_stream(socket).connect(to).await
    }
}
