//! The socket between the two ends: whole messages, and a descriptor beside one of them.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recv, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::wire::{self, PREFIX};

/// What one read takes, in bytes.
const CHUNK: usize = 16 << 10;

/// One end.
#[derive(Debug)]
pub(super) struct Line {
    stream: UnixStream,
    /// The beginning of a message; never longer than a message and [`CHUNK`].
    buffer: Vec<u8>,
    takes: Takes,
    descriptor: Option<OwnedFd>,
}

/// Whether descriptors are taken that come with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// One at a time.
    Descriptors,
    /// None: the kernel closes what comes.
    Nothing,
}

impl Line {
    /// # Errors
    /// When the runtime cannot watch it; panics outside of a runtime, as tokio does.
    pub(super) fn new(stream: net::UnixStream, takes: Takes) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: UnixStream::from_std(stream)?,
            buffer: Vec::new(),
            takes,
            descriptor: None,
        })
    }

    /// Sends a message whole, `descriptor` with it.
    ///
    /// # Errors
    /// sendmsg(2), or the message is too long.
    pub(super) async fn send(
        &mut self,
        message: &impl Serialize,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let bytes = wire::encode(message)?;
        let mut sent = 0;
        if let Some(descriptor) = descriptor {
            sent = self.send_with(&bytes, descriptor).await?;
        }
        self.stream.write_all(&bytes[sent..]).await
    }

    /// The beginning of `bytes` with `descriptor`; how much that was.
    async fn send_with(&self, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
        let descriptors = [descriptor.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let socket = self.stream.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let send = || {
            Ok(sendmsg::<()>(
                socket,
                &[IoSlice::new(bytes)],
                &rights,
                flags,
                None,
            )?)
        };
        self.stream.async_io(Interest::WRITABLE, send).await
    }

    /// The next message; `None` where the other end has gone between two. Cancel safe.
    ///
    /// # Errors
    /// recvmsg(2), or what came is no message.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some((prefix, rest)) = self.buffer.split_first_chunk() {
                let length = wire::length(*prefix)?;
                if let Some(body) = rest.get(..length) {
                    let message = wire::decode(body)?;
                    self.buffer.drain(..PREFIX + length);
                    return Ok(Some(message));
                }
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Waits until something comes although nothing is expected: at best the end.
    pub(super) async fn disturbed(&mut self) {
        if self.buffer.is_empty() {
            // Read and not only awaited: readiness may be an old one. Whatever came, it was not its time.
            let _ = self.fill().await;
        }
    }

    /// The descriptor that came last.
    pub(super) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// Reads what is there.
    async fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = vec![0; CHUNK];
        let (socket, takes) = (self.stream.as_raw_fd(), self.takes);
        let read = || match takes {
            Takes::Descriptors => read(socket, &mut chunk, MsgFlags::MSG_DONTWAIT),
            Takes::Nothing => Ok((recv(socket, &mut chunk, MsgFlags::MSG_DONTWAIT)?, None)),
        };
        let (length, descriptor) = self.stream.async_io(Interest::READABLE, read).await?;
        self.buffer.extend_from_slice(&chunk[..length]);
        if descriptor.is_some() {
            self.descriptor = descriptor;
        }
        Ok(length)
    }
}

/// Reads once; the descriptor that came last with that.
pub(super) fn read(
    socket: RawFd,
    chunk: &mut [u8],
    flags: MsgFlags,
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = cmsg_space!(RawFd);
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut pieces = [IoSliceMut::new(chunk)];
    let message = recvmsg::<()>(socket, &mut pieces, Some(&mut space), flags)?;
    let mut descriptor = None;
    // An error says that some had no room.
    for control in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(raws) = control {
            for raw in raws {
                descriptor = Some(own(raw));
            }
        }
    }
    Ok((message.bytes, descriptor))
}

fn own(raw: RawFd) -> OwnedFd {
    #[allow(unsafe_code)]
    // SAFETY: the kernel has just made the descriptor for this message, and nobody else knows of it.
    unsafe {
        OwnedFd::from_raw_fd(raw)
    }
}
