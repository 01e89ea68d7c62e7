//! Streams from this host itself: plain TCP, for what is not to go through a server.
//!
//! The kernel says why a connection does not open; [`open_error`] says it in the words that an inlet knows.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nix::libc;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::net::{
    ByteReader, ByteWriter, Carrier, Far, OpenError, OpenFailure, Source, StreamError,
};

/// What one read takes at most, in bytes.
const CHUNK: usize = 64 << 10;

/// Opens streams from the network namespace of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct;

impl Carrier for Direct {
    type Reader = TcpReader;
    type Writer = TcpWriter;

    async fn open_far(&self, _: Source, far: Far) -> Result<(TcpReader, TcpWriter), OpenError> {
        if far.name.is_some() {
            let text = "names are for the server to look up";
            return Err(OpenError::new(OpenFailure::HostUnreachable, text));
        }
        let connected = TcpStream::connect(far.target.0).await;
        connected.map(halves).map_err(|error| open_error(&error))
    }
}

/// Why connect(2) failed, as the flow's inlet is to spell it.
pub fn open_error(error: &io::Error) -> OpenError {
    let failure = match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => OpenFailure::Refused,
        Some(libc::EHOSTUNREACH | libc::EHOSTDOWN) => OpenFailure::HostUnreachable,
        // EINVAL: an address that no connection can be made to. EAFNOSUPPORT: no IPv6.
        Some(libc::ENETUNREACH | libc::ENETDOWN | libc::EAFNOSUPPORT | libc::EINVAL) => {
            OpenFailure::NetworkUnreachable
        }
        Some(libc::ETIMEDOUT) => OpenFailure::TimedOut,
        Some(libc::EACCES | libc::EPERM) => OpenFailure::Filtered,
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EADDRNOTAVAIL
            | libc::EAGAIN,
        ) => OpenFailure::NoResources,
        _ => OpenFailure::Other,
    };
    OpenError::new(failure, error.to_string())
}

/// The two halves of a TCP connection.
pub fn halves(stream: TcpStream) -> (TcpReader, TcpWriter) {
    halves_of(Arc::new(stream))
}

/// The same of one that somebody else keeps open beside them.
pub fn halves_of(stream: Arc<TcpStream>) -> (TcpReader, TcpWriter) {
    // Only speed is lost where the kernel refuses.
    let _ = stream.set_nodelay(true);
    let reader = TcpReader {
        stream: Arc::clone(&stream),
        ended: false,
    };
    let writer = TcpWriter {
        stream,
        finished: false,
    };
    (reader, writer)
}

/// Closing sends a RST from here on (socket(7), SO_LINGER).
pub fn reset_at_close(stream: &TcpStream) {
    // A kernel that refuses ends the connection in order, which is all that can be had.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Closing sends what is left and a FIN from here on, as it does at first.
pub fn end_in_order(stream: &TcpStream) {
    // A kernel that refuses resets it, as if nobody had asked.
    let _ = SockRef::from(stream).set_linger(None);
}

/// The reading half of a TCP connection.
#[derive(Debug)]
pub struct TcpReader {
    stream: Arc<TcpStream>,
    ended: bool,
}

impl ByteReader for TcpReader {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        loop {
            let ready = self.stream.readable().await;
            ready.map_err(|_| StreamError::Lost)?;
            // Made when there is something to be read: an idle flow holds none.
            let mut chunk = BytesMut::with_capacity(CHUNK);
            match self.stream.try_read_buf(&mut chunk) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(_) => return Ok(Some(chunk.freeze())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(StreamError::Reset),
            }
        }
    }

    async fn reset(&mut self) -> StreamError {
        // EPOLLERR: sk_err is set (net/ipv4/tcp.c tcp_poll()), by a RST or a time-out.
        match self.stream.ready(Interest::ERROR).await {
            Ok(_) => StreamError::Reset,
            Err(_) => StreamError::Lost,
        }
    }
}

impl Drop for TcpReader {
    fn drop(&mut self) {
        if !self.ended {
            reset_at_close(&self.stream);
        }
    }
}

/// The writing half of a TCP connection.
#[derive(Debug)]
pub struct TcpWriter {
    stream: Arc<TcpStream>,
    finished: bool,
}

impl ByteWriter for TcpWriter {
    async fn write(&mut self, mut chunk: Bytes) -> Result<(), StreamError> {
        while !chunk.is_empty() {
            let ready = self.stream.writable().await;
            ready.map_err(|_| StreamError::Lost)?;
            match self.stream.try_write(&chunk) {
                Ok(written) => drop(chunk.split_to(written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(StreamError::Reset),
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        let ended = SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write);
        ended.map_err(|_| StreamError::Reset)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for TcpWriter {
    fn drop(&mut self) {
        if !self.finished {
            reset_at_close(&self.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::net::Target;

    const SOURCE: Source = Source(SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        1,
    ));

    async fn open() -> ((TcpReader, TcpWriter), TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target(listener.local_addr().unwrap());
        let (opened, accepted) = tokio::join!(Direct.open(SOURCE, target), listener.accept());
        (opened.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let ((mut reader, mut writer), mut peer) = open().await;
        writer.write(Bytes::from_static(b"there")).await.unwrap();
        writer.finish().await.unwrap();
        let mut heard = String::new();
        peer.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "there");
        peer.write_all(b"back").await.unwrap();
        assert_eq!(reader.read().await.unwrap().unwrap(), "back");
        drop(peer);
        assert_eq!(reader.read().await, Ok(None));
    }

    #[tokio::test]
    async fn a_half_that_is_dropped_early_resets() {
        let ((reader, writer), mut peer) = open().await;
        drop((reader, writer));
        let error = peer.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn an_orderly_end_is_no_reset() {
        let ((mut reader, mut writer), mut peer) = open().await;
        writer.finish().await.unwrap();
        peer.shutdown().await.unwrap();
        assert_eq!(reader.read().await, Ok(None));
        drop((reader, writer));
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_reset_after_the_end_is_noticed() {
        let ((mut reader, _writer), mut peer) = open().await;
        peer.shutdown().await.unwrap();
        assert_eq!(reader.read().await, Ok(None));
        let early = timeout(Duration::from_millis(50), reader.reset()).await;
        assert!(early.is_err());
        reset_at_close(&peer);
        drop(peer);
        assert_eq!(reader.reset().await, StreamError::Reset);
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let target = Target(listener.local_addr().unwrap());
        drop(listener);
        let error = Direct.open(SOURCE, target).await.unwrap_err();
        assert_eq!(error.failure, OpenFailure::Refused);
    }

    #[test]
    fn every_error_has_its_word() {
        for (errno, failure) in [
            (libc::ECONNREFUSED, OpenFailure::Refused),
            (libc::EHOSTUNREACH, OpenFailure::HostUnreachable),
            (libc::ENETUNREACH, OpenFailure::NetworkUnreachable),
            (libc::EAFNOSUPPORT, OpenFailure::NetworkUnreachable),
            (libc::ETIMEDOUT, OpenFailure::TimedOut),
            (libc::EACCES, OpenFailure::Filtered),
            (libc::EMFILE, OpenFailure::NoResources),
            (libc::EIO, OpenFailure::Other),
        ] {
            let error = open_error(&io::Error::from_raw_os_error(errno));
            assert_eq!(error.failure, failure, "{}", error.text);
        }
    }
}
