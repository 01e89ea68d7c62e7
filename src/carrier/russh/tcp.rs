//! The TCP connection under the SSH connection.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::yield_now;

use crate::carrier::error::ConnectError;

/// How long one address may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// All addresses of `host`.
///
/// # Errors
/// [`ConnectError::UnknownHost`].
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let unknown = |source| ConnectError::UnknownHost {
        host: host.to_owned(),
        source,
    };
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .map_err(unknown)?
        .collect();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(unknown(io::Error::other("the name has no address")));
    }
    Ok(addresses)
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

/// Connects to the first of `addresses` that answers, in their order.
///
/// # Errors
/// That of the last address: [`ConnectError::Unreachable`] or [`ConnectError::TimedOut`].
pub(super) async fn connect(addresses: &[SocketAddr]) -> Result<Connected, ConnectError> {
    let mut failure = None;
    for &address in addresses {
        let began = Instant::now();
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream
                    .set_nodelay(true)
                    .map_err(|source| ConnectError::Unreachable { address, source })?;
                return Ok(Connected {
                    stream,
                    peer: address,
                    round_trip: began.elapsed(),
                });
            }
            Ok(Err(source)) => failure = Some(ConnectError::Unreachable { address, source }),
            Err(_) => {
                failure = Some(ConnectError::TimedOut {
                    address,
                    seconds: CONNECT_TIMEOUT.as_secs(),
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

/// Whether ACKs are to be sent at once. Set for servers on which no session can be opened: their sshd keeps
/// Nagle's algorithm on, and with our delayed ACKs each short exchange would stall for 40 ms.
pub(super) type AckAtOnce = Arc<AtomicBool>;

/// What one read takes from the socket at most, in bytes. russh asks for each packet in two pieces, its length and
/// its body; without this each would be a system call of its own.
const READ_BUFFER: usize = 128 << 10;

/// What one task takes before the others of its thread get their turn, in bytes. A bulk transfer's session would go on for
/// milliseconds, and whatever else the process carries waits at each of its steps.
const TURN: usize = 256 << 10;

/// A TCP stream that reads in large pieces, lets others have their turn, and re-arms TCP_QUICKACK after each read while
/// [`AckAtOnce`] is set; the kernel clears the option by itself (tcp(7)).
pub(super) struct SshTcp {
    stream: BufReader<TcpStream>,
    ack_at_once: AckAtOnce,
    /// Bytes read since others had their turn.
    taken: usize,
}

impl SshTcp {
    pub(super) fn new(stream: TcpStream, ack_at_once: AckAtOnce) -> Self {
        Self {
            stream: BufReader::with_capacity(READ_BUFFER, stream),
            ack_at_once,
            taken: 0,
        }
    }
}

impl AsyncRead for SshTcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.taken >= TURN {
            self.taken = 0;
            // Comes back after the sockets and the device were looked at.
            return pin!(yield_now()).poll(cx).map(Ok);
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.taken = match read {
            Poll::Ready(_) => self.taken + buf.filled().len() - before,
            Poll::Pending => 0,
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
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
