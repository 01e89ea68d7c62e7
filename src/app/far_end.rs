//! `udp-far-end`: what `up --upload-helper` runs on a server. It reads no file, needs no privilege, and ends with its input.
//!
//! One task hears the near end, one speaks to it, and one for each flow waits for its datagrams. While the near end does not
//! read, these wait, and the sockets' own buffers drop.

use std::collections::HashMap;
use std::io::{self, Stdin, Stdout};
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, connect, recv, send, setsockopt,
    socket,
};
use nix::unistd::{read, write};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::exit::Exit;
use super::log;
use crate::cli::LogArgs;
use crate::net::OpenFailure;
use crate::os::standard;
use crate::udp::{FarEnd, MOST, Order};

/// Bytes that are read or written at once. No datagram is longer.
const PIECE: usize = 64 << 10;
/// Datagrams of a flow before it is another one's turn.
const TURN: usize = 32;

/// Serves whoever holds the other ends of stdin and stdout.
pub(super) fn run() -> Exit {
    // The file has no name that ps(1) could show.
    let _ = prctl::set_name(c"underpass");
    super::block_on(async {
        match serve().await {
            Ok(()) => Exit::Success,
            Err(error) => {
                log::start(LogArgs::default(), log::USUAL);
                match error.kind() {
                    // epoll(7) takes no file.
                    io::ErrorKind::PermissionDenied => super::said(
                        &"underpass up --upload-helper starts this by itself; there is nothing to do by hand",
                        Exit::Usage,
                    ),
                    _ => super::failed(&error),
                }
            }
        }
    })
}

async fn serve() -> io::Result<()> {
    let (input, output) = standard::streams()?;
    let near = Arc::new(Near::default());
    // The greeting is said to whoever says nothing, too.
    say_all(&output, &near).await?;
    tokio::select! {
        ended = hear(&input, &near) => ended,
        ended = say(&output, &near) => ended,
    }
}

/// The near end, as all tasks see it.
struct Near {
    stream: Mutex<Stream>,
    /// Rung when there is something to say.
    said: Notify,
    /// Rung when something was read.
    room: Notify,
}

struct Stream {
    far: FarEnd,
    /// Where datagrams arrive.
    buffer: Box<[u8]>,
}

impl Default for Near {
    fn default() -> Self {
        let stream = Stream {
            far: FarEnd::default(),
            buffer: vec![0; PIECE].into(),
        };
        Self {
            stream: Mutex::new(stream),
            said: Notify::new(),
            room: Notify::new(),
        }
    }
}

impl Near {
    fn lock(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, what: impl FnOnce(&mut FarEnd)) {
        what(&mut self.lock().far);
        self.said.notify_one();
    }

    /// Of a flow that is open.
    fn tell_error(&self, flow: u32, error: Errno) {
        if !is_loss(error) {
            self.tell(|far| far.tell_failure(flow, failure(error)));
        }
    }

    /// Waits until enough was read.
    async fn has_room(&self, is_full: fn(&FarEnd) -> bool) {
        loop {
            let freed = self.room.notified();
            if !is_full(&self.lock().far) {
                return;
            }
            freed.await;
        }
    }

    /// Takes what has come for a flow: `ready` for that, or for an error.
    fn take(&self, flow: u32, from: &UdpSocket, ready: Interest) {
        for _ in 0..TURN {
            let mut stream = self.lock();
            let Stream { far, buffer } = &mut *stream;
            if far.is_full() {
                break;
            }
            let receive = || Ok(recv(from.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?);
            match from.try_io(ready, receive) {
                Ok(len) => far.tell_datagram(flow, &buffer[..len]),
                Err(error) => {
                    drop(stream);
                    let number = error.raw_os_error().map(Errno::from_raw);
                    if let Some(number) = number {
                        self.tell_error(flow, number);
                        forget_errors(from);
                    }
                    break;
                }
            }
        }
        self.said.notify_one();
    }
}

async fn say(output: &AsyncFd<Stdout>, near: &Near) -> io::Result<()> {
    loop {
        say_all(output, near).await?;
        near.said.notified().await;
    }
}

/// Says what there is to say, until there is no more.
async fn say_all(output: &AsyncFd<Stdout>, near: &Near) -> io::Result<()> {
    loop {
        let mut piece = {
            let mut stream = near.lock();
            let said = stream.far.said();
            let len = said.len().min(PIECE);
            said.split_to(len)
        };
        if piece.is_empty() {
            return Ok(());
        }
        while !piece.is_empty() {
            let written = output
                .async_io(Interest::WRITABLE, |output| Ok(write(output, &piece)?))
                .await?;
            drop(piece.split_to(written));
        }
        near.room.notify_waiters();
    }
}

async fn hear(input: &AsyncFd<Stdin>, near: &Arc<Near>) -> io::Result<()> {
    let mut flows = Flows {
        near,
        flows: HashMap::new(),
    };
    let mut piece = vec![0; PIECE];
    loop {
        near.has_room(FarEnd::is_overfull).await;
        let len = input
            .async_io(Interest::READABLE, |input| Ok(read(input, &mut piece)?))
            .await?;
        if len == 0 {
            return Ok(());
        }
        near.lock().far.handle_bytes(&piece[..len]);
        loop {
            let order = near.lock().far.next_order();
            match order.map_err(io::Error::other)? {
                Some(Order::Open(flow, to)) => flows.open(flow, to).await,
                Some(Order::Send(flow, datagram)) => flows.send(flow, &datagram),
                Some(Order::Close(flow)) => flows.close(flow).await,
                None => break,
            }
        }
    }
}

/// The flows, each with its socket and with who waits for what comes there.
struct Flows<'a> {
    near: &'a Arc<Near>,
    flows: HashMap<u32, (Arc<UdpSocket>, JoinHandle<()>)>,
}

impl Flows<'_> {
    async fn open(&mut self, flow: u32, to: Option<SocketAddr>) {
        self.close(flow).await;
        let opened = match to {
            None => Err(OpenFailure::Other),
            Some(_) if self.flows.len() >= MOST => Err(OpenFailure::NoResources),
            Some(to) => connected(to).map_err(|error| {
                let number = error.raw_os_error().map(Errno::from_raw);
                number.map_or(OpenFailure::Other, failure)
            }),
        };
        match opened {
            Ok(socket) => {
                let socket = Arc::new(socket);
                let waits = receive(self.near.clone(), flow, socket.clone());
                self.flows.insert(flow, (socket, tokio::spawn(waits)));
            }
            Err(failure) => self.near.tell(|far| {
                far.tell_failure(flow, failure);
                far.tell_close(flow);
            }),
        }
    }

    fn send(&self, flow: u32, datagram: &[u8]) {
        let Some((socket, _)) = self.flows.get(&flow) else {
            return;
        };
        // An error of an earlier datagram is told in place of sending: then once more.
        for _ in 0..2 {
            match send(socket.as_raw_fd(), datagram, MsgFlags::MSG_DONTWAIT) {
                Ok(_) => return,
                Err(error) => self.near.tell_error(flow, error),
            }
            forget_errors(socket);
        }
    }

    /// The descriptor is free when this is done.
    async fn close(&mut self, flow: u32) {
        if let Some((_, task)) = self.flows.remove(&flow) {
            task.abort();
            // It says no more than that it was aborted.
            let _ = task.await;
        }
    }
}

async fn receive(near: Arc<Near>, flow: u32, socket: Arc<UdpSocket>) {
    while let Ok(ready) = socket.ready(Interest::READABLE | Interest::ERROR).await {
        near.has_room(FarEnd::is_full).await;
        // One at a time: readiness for two is never taken back.
        if ready.is_error() {
            near.take(flow, &socket, Interest::ERROR);
        }
        if ready.is_readable() {
            near.take(flow, &socket, Interest::READABLE);
        }
    }
}

/// A socket for one flow. Unreachable hosts and networks are heard of, too (IP_RECVERR, ip(7)).
fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = socket(family, SockType::Datagram, flags, None)?;
    match to {
        SocketAddr::V4(_) => setsockopt(&made, Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => setsockopt(&made, Ipv6RecvErr, &true)?,
    }
    connect(made.as_raw_fd(), &SockaddrStorage::from(to))?;
    UdpSocket::from_std(StdSocket::from(made))
}

/// What was told already.
fn forget_errors(socket: &UdpSocket) {
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    while recv(socket.as_raw_fd(), &mut [0], flags).is_ok() {}
}

/// Whether a datagram is lost at most, and nothing said of its flow: a queue here is full, say.
fn is_loss(error: Errno) -> bool {
    matches!(
        error,
        Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM
    )
}

/// What the near end is told.
fn failure(error: Errno) -> OpenFailure {
    match error {
        Errno::ECONNREFUSED => OpenFailure::Refused,
        Errno::EHOSTUNREACH | Errno::EHOSTDOWN => OpenFailure::HostUnreachable,
        Errno::ENETUNREACH | Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL => {
            OpenFailure::NetworkUnreachable
        }
        Errno::EACCES | Errno::EPERM => OpenFailure::Filtered,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => OpenFailure::NoResources,
        _ => OpenFailure::Other,
    }
}
