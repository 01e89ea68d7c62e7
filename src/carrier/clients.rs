//! Clients whose connections this host has accepted, and what they have still to be given.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::direct::{self, TcpReader, TcpWriter};
use crate::net::{ByteWriter, StreamError};

/// All of them, for whoever waits at the end.
#[derive(Debug, Default)]
pub struct Clients {
    /// Those that have not been told the end.
    open: AtomicUsize,
    /// Of them those that have no room for what is there.
    full: AtomicUsize,
    /// Bytes.
    given: AtomicU64,
    is_over: AtomicBool,
}

impl Clients {
    /// How many have not been told the end.
    pub fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// Whether there is something that one has no room for.
    pub fn are_held_up(&self) -> bool {
        self.full.load(SeqCst) > 0
    }

    /// How many bytes they were given.
    pub fn given(&self) -> u64 {
        self.given.load(Relaxed)
    }

    /// It is over: who has been told the end gets the rest from the kernel alone.
    pub fn leave_to_the_kernel(&self) {
        self.is_over.store(true, SeqCst);
    }
}

/// One of them.
#[derive(Debug)]
pub struct Client {
    stream: Arc<TcpStream>,
    was_told_the_end: AtomicBool,
    all: Arc<Clients>,
}

impl Client {
    /// One more.
    pub fn new(stream: TcpStream, all: &Arc<Clients>) -> Arc<Self> {
        all.open.fetch_add(1, SeqCst);
        Arc::new(Self {
            stream: Arc::new(stream),
            was_told_the_end: AtomicBool::new(false),
            all: Arc::clone(all),
        })
    }

    /// The two halves of its connection. Whoever keeps the client beside them is the last to have it.
    pub fn halves(self: Arc<Self>) -> (TcpReader, ClientWriter) {
        let (reader, inner) = direct::halves_of(Arc::clone(&self.stream));
        let writer = ClientWriter {
            inner,
            client: self,
        };
        (reader, writer)
    }

    /// Its connection ends with a reset.
    pub fn reset(&self) {
        direct::reset_at_close(&self.stream);
    }
}

impl Drop for Client {
    /// Behind both halves. When it is over, one that has not ended its own direction is not reset: that would take back what is on
    /// its way to it.
    fn drop(&mut self) {
        if !*self.was_told_the_end.get_mut() {
            self.all.open.fetch_sub(1, SeqCst);
        } else if self.all.is_over.load(SeqCst) {
            direct::end_in_order(&self.stream);
        }
    }
}

/// The writing half of one.
#[derive(Debug)]
pub struct ClientWriter {
    inner: TcpWriter,
    client: Arc<Client>,
}

impl ByteWriter for ClientWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StreamError> {
        let length = chunk.len() as u64;
        let _held = Held::new(&self.client.all.full);
        self.inner.write(chunk).await?;
        self.client.all.given.fetch_add(length, Relaxed);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        self.inner.finish().await?;
        self.client.was_told_the_end.store(true, SeqCst);
        self.client.all.open.fetch_sub(1, SeqCst);
        Ok(())
    }
}

/// Counts one as long as it is there.
struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const MUCH: usize = 100_000;

    /// What a client hears that was given `MUCH`, told the end or not, and let go.
    async fn heard(is_told: bool, is_over: bool) -> std::io::Result<usize> {
        let all = Arc::<Clients>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Most is still on its way when the client is let go.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let (peer, accepted) = tokio::join!(socket.connect(address), listener.accept());
        let client = Client::new(accepted.unwrap().0, &all);
        let (reader, mut writer) = Arc::clone(&client).halves();
        let written = writer.write(vec![0; MUCH].into());
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, written).await.unwrap().unwrap();
        assert_eq!((all.open(), all.given()), (1, MUCH as u64));
        if is_told {
            writer.finish().await.unwrap();
            assert_eq!(all.open(), 0);
        }
        if is_over {
            all.leave_to_the_kernel();
        }
        drop((reader, writer));
        drop(client);
        assert_eq!((all.open(), all.are_held_up()), (0, false));
        peer.unwrap().read_to_end(&mut Vec::new()).await
    }

    #[tokio::test]
    async fn who_was_told_the_end_is_not_reset_when_it_is_over() {
        assert_eq!(heard(true, true).await.unwrap(), MUCH);
    }

    /// Half of what was to come must not look like all of it, nor a broken connection like one that ended in order.
    #[tokio::test]
    async fn else_a_client_that_is_let_go_is_reset() {
        for is_over in [false, true] {
            heard(false, is_over).await.unwrap_err();
        }
    }
}
