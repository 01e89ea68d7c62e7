//! The TCP connection under the SSH connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::yield_now;
use tracing::debug;

use super::ahead::Ahead;
use super::turns::Turns;
use crate::carrier::error::{ConnectError, Stage};
use crate::plan::{AddressFamily, Dialling, SshPlan};

/// How long one address may take to answer, unless ConnectTimeout says so.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The time between two attempts (sshconnect.c `ssh_connect_direct`).
const ATTEMPTS_APART: Duration = Duration::from_secs(1);

/// The kernel asks so often within the time in which a silent server counts as gone.
const PROBES: u32 = 3;
/// What TCP_KEEPIDLE takes (net/tcp.h, MAX_TCP_KEEPIDLE).
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(32_767);

/// The addresses of the server of `plan`, of the family that it asks for.
///
/// # Errors
/// [`ConnectError::UnknownHost`].
pub(super) async fn resolve(plan: &SshPlan) -> Result<Vec<SocketAddr>, ConnectError> {
    let unknown = |source| ConnectError::UnknownHost {
        host: plan.host.clone(),
        source,
    };
    let family = plan.dialling.family;
    let found = tokio::net::lookup_host((plan.host.as_str(), plan.port));
    let mut addresses: Vec<SocketAddr> = found
        .await
        .map_err(unknown)?
        .filter(|address| is_of(family, address.ip()))
        .collect();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(unknown(io::Error::other(none_of(family))));
    }
    Ok(addresses)
}

fn is_of(family: AddressFamily, address: IpAddr) -> bool {
    match family {
        AddressFamily::Any => true,
        AddressFamily::V4 => address.is_ipv4(),
        AddressFamily::V6 => address.is_ipv6(),
    }
}

fn none_of(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::Any => "the name has no address",
        AddressFamily::V4 => "the name has no IPv4 address (AddressFamily inet)",
        AddressFamily::V6 => "the name has no IPv6 address (AddressFamily inet6)",
    }
}

/// A TCP connection to the server.
pub(super) struct Connected {
    /// The connection, with TCP_NODELAY set.
    pub(super) stream: TcpStream,
    /// Where it goes.
    pub(super) peer: SocketAddr,
    /// How long the handshake took: one round trip, and a little of this host's own.
    pub(super) round_trip: Duration,
}

/// Connects to the first of `addresses` that answers, in their order, as often as `dialling` says.
///
/// # Errors
/// That of the last address in the last attempt: [`ConnectError::Unreachable`], [`ConnectError::TimedOut`] or
/// [`ConnectError::BindAddress`].
pub(super) async fn connect(
    addresses: &[SocketAddr],
    dialling: &Dialling,
) -> Result<Connected, ConnectError> {
    let mut attempt = 1;
    loop {
        match attempt_all(addresses, dialling).await {
            Err(error) if attempt < dialling.attempts => {
                debug!("attempt {attempt} of {}: {error}", dialling.attempts);
                attempt += 1;
                tokio::time::sleep(ATTEMPTS_APART).await;
            }
            outcome => return outcome,
        }
    }
}

async fn attempt_all(
    addresses: &[SocketAddr],
    dialling: &Dialling,
) -> Result<Connected, ConnectError> {
    let timeout = dialling.timeout.unwrap_or(CONNECT_TIMEOUT);
    let mut failure = None;
    for &address in addresses {
        let began = Instant::now();
        match tokio::time::timeout(timeout, attempt_one(address, dialling)).await {
            Ok(Ok(stream)) => {
                return Ok(Connected {
                    stream,
                    peer: address,
                    round_trip: began.elapsed(),
                });
            }
            Ok(Err(error)) => failure = Some(error),
            Err(_) => {
                failure = Some(ConnectError::TimedOut {
                    server: address.to_string(),
                    seconds: timeout.as_secs(),
                    stage: Stage::Connecting,
                });
            }
        }
    }
    // `resolve` gives at least one address.
    Err(failure.unwrap_or_else(|| ConnectError::UnknownHost {
        host: String::new(),
        source: io::Error::other("the name has no address"),
    }))
}

async fn attempt_one(address: SocketAddr, dialling: &Dialling) -> Result<TcpStream, ConnectError> {
    let unreachable = |source| ConnectError::Unreachable {
        server: address.to_string(),
        source,
    };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(unreachable)?;
    if let Some(from) = &dialling.bind_address {
        bind(&socket, from, address).await?;
    }
    let stream = socket.connect(address).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(stream)
}

/// Binds to the first address of `from` that is of the family of `to`.
async fn bind(socket: &TcpSocket, from: &str, to: SocketAddr) -> Result<(), ConnectError> {
    let failed = |source| ConnectError::BindAddress {
        address: from.to_owned(),
        source,
    };
    let mut found = tokio::net::lookup_host((from, 0)).await.map_err(failed)?;
    let address = found
        .find(|address| address.is_ipv4() == to.is_ipv4())
        .ok_or_else(|| failed(io::Error::other(format!("it has no address to reach {to}"))))?;
    socket.bind(address).map_err(failed)
}

/// Ends the connection when the server's kernel says nothing for so long (tcp(7) TCP_USER_TIMEOUT): while russh writes, or is
/// held up by flows that are not read, it asks the server for no sign of life.
pub(super) fn give_up_after(stream: &TcpStream, silence: Duration) {
    let socket = SockRef::from(stream);
    let probe = (silence / PROBES).clamp(PROBE_MIN, PROBE_MAX);
    let probes = TcpKeepalive::new().with_time(probe).with_interval(probe);
    let timeout = socket.set_tcp_user_timeout(Some(silence));
    if let Err(error) = timeout.and_then(|()| socket.set_tcp_keepalive(&probes)) {
        debug!("TCP_USER_TIMEOUT, TCP_KEEPIDLE: {error}");
    }
}

/// Whether a connection is still there, for those who do not read from it.
#[derive(Debug)]
pub(super) struct Pulse(Socket);

impl Pulse {
    pub(super) fn of<S: AsFd>(socket: &S) -> io::Result<Self> {
        SockRef::from(socket).try_clone().map(Self)
    }

    /// It was reset, or the kernel has given it up. What had arrived can still be read.
    pub(super) fn is_gone(&self) -> bool {
        // Not SO_ERROR: who asks for that takes the reason away from the reader.
        matches!(self.0.peer_addr(), Err(error) if error.kind() == io::ErrorKind::NotConnected)
    }
}

/// Whether ACKs are to be sent at once. Set for servers on which no session can be opened: their sshd keeps
/// Nagle's algorithm on, and with our delayed ACKs each short exchange would stall for 40 ms.
pub(super) type AckAtOnce = Arc<AtomicBool>;

/// What one read takes from the socket at most, in bytes. russh asks for each packet in two pieces, its length and
/// its body; without this each would be a system call of its own.
const READ_BUFFER: usize = 128 << 10;

/// A TCP stream that reads in large pieces, lets others have their turn, and re-arms TCP_QUICKACK after each read while
/// [`AckAtOnce`] is set; the kernel clears the option by itself (tcp(7)).
pub(super) struct SshTcp {
    stream: BufReader<TcpStream>,
    ahead: Ahead,
    ack_at_once: AckAtOnce,
    turns: Arc<Turns>,
    /// What this turn may take, in bytes, and what is left of it.
    turn: usize,
    left: usize,
}

impl SshTcp {
    pub(super) fn new(stream: TcpStream, ack_at_once: AckAtOnce, turns: Arc<Turns>) -> Self {
        Self {
            stream: BufReader::with_capacity(READ_BUFFER, stream),
            ahead: Ahead::default(),
            ack_at_once,
            turns,
            turn: 0,
            left: 0,
        }
    }
}

impl SshTcp {
    /// In the order in which it came.
    fn poll_next(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.stream.buffer().is_empty()
            && let Some(read) = self.ahead.take(buf)
        {
            return Poll::Ready(read);
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncRead for SshTcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            self.turn = self.turns.next();
            self.left = self.turn;
            // Comes back after the sockets and the device were looked at.
            return pin!(yield_now()).poll(cx).map(Ok);
        }
        let before = buf.filled().len();
        let read = self.poll_next(cx, buf);
        self.left = match read {
            Poll::Ready(_) => self.left.saturating_sub(buf.filled().len() - before),
            Poll::Pending => self.turn,
        };
        if read.is_ready() && self.ack_at_once.load(Relaxed) {
            // Only speed is lost where the kernel refuses.
            let _ = SockRef::from(self.stream.get_ref()).set_tcp_quickack(true);
        }
        read
    }
}

impl AsyncWrite for SshTcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, ahead, .. } = &mut *self;
        let written = Pin::new(&mut *stream).poll_write(cx, buf);
        match written {
            Poll::Ready(_) => ahead.has_written(),
            Poll::Pending => ahead.waits(cx, stream.get_mut()),
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(connecting, listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// As our session and that of a server may: each writes all that it has before it reads.
    #[tokio::test]
    async fn two_that_write_before_they_read_come_to_reading() {
        const MUCH: usize = 4 << 20;
        let (near, mut far) = pair().await;
        for stream in [&near, &far] {
            let socket = SockRef::from(stream);
            socket.set_send_buffer_size(64 << 10).unwrap();
            socket.set_recv_buffer_size(64 << 10).unwrap();
        }
        let mut near = SshTcp::new(near, AckAtOnce::default(), Arc::default());
        let sent: Vec<u8> = (0..MUCH).map(|n| (n / 251) as u8).collect();
        let (mut got, mut got_there) = (vec![0; MUCH], vec![0; MUCH]);
        let here = async {
            near.write_all(&sent).await.unwrap();
            near.read_exact(&mut got).await.unwrap();
            near.read(&mut [0; 1]).await.unwrap()
        };
        let there = async {
            far.write_all(&sent).await.unwrap();
            far.read_exact(&mut got_there).await.unwrap();
            drop(far);
        };
        let both = async { tokio::join!(here, there) };
        let limit = Duration::from_secs(60);
        let (rest, ()) = tokio::time::timeout(limit, both).await.unwrap();
        assert!(got == sent && got_there == sent && rest == 0);
    }

    #[tokio::test]
    async fn a_pulse_tells_a_reset_and_takes_nothing_from_the_reader() {
        let (mut near, mut far) = pair().await;
        let pulse = Pulse::of(&near).unwrap();
        far.write_all(b"rest").await.unwrap();
        near.readable().await.unwrap();
        assert!(!pulse.is_gone());
        SockRef::from(&far)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(far);
        // Loopback: the reset is here when it was sent.
        assert!(pulse.is_gone());
        let mut rest = [0; 4];
        near.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"rest");
        let error = near.read(&mut rest).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
