//! A server that runs commands: a shell of this machine, with a pair of sockets in place of a channel, as sshd has them, or with
//! pipes, as dropbear has.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use underpass::net::{ByteReader, ByteWriter, Exec, OpenError, OpenFailure, StreamError};

/// The login's shell, with what stands before it, and the environment.
#[derive(Clone)]
pub struct Local {
    pub shell: &'static [&'static str],
    pub path: Option<String>,
    /// How many commands were run.
    pub runs: Arc<AtomicUsize>,
    /// Nothing is run at all.
    pub forbids: bool,
    /// Input and output are pipes.
    pub has_pipes: bool,
}

impl Local {
    pub fn new(shell: &'static [&'static str]) -> Self {
        Self {
            shell,
            path: None,
            runs: Arc::default(),
            forbids: false,
            has_pipes: false,
        }
    }
}

pub struct Said {
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// It is killed with the reader.
    _child: Child,
}

impl ByteReader for Said {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        let mut buffer = vec![0; 32 << 10];
        match self.stdout.read(&mut buffer).await {
            Ok(0) => Ok(None),
            Ok(len) => {
                buffer.truncate(len);
                Ok(Some(buffer.into()))
            }
            Err(_) => Err(StreamError::Reset),
        }
    }

    async fn reset(&mut self) -> StreamError {
        std::future::pending().await
    }
}

pub struct Told(Option<Box<dyn AsyncWrite + Send + Unpin>>);

impl ByteWriter for Told {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StreamError> {
        let stdin = self.0.as_mut().ok_or(StreamError::Reset)?;
        let written = stdin.write_all(&chunk).await;
        written.map_err(|_| StreamError::Reset)
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        if let Some(mut stdin) = self.0.take() {
            stdin.shutdown().await.map_err(|_| StreamError::Reset)?;
        }
        Ok(())
    }
}

impl Exec for Local {
    type Reader = Said;
    type Writer = Told;

    async fn exec(&self, command: &str) -> Result<(Said, Told), OpenError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        if self.forbids {
            return Err(OpenError::new(OpenFailure::Prohibited, "no exec"));
        }
        let mut process = Command::new(self.shell[0]);
        process.args(&self.shell[1..]).arg("-c").arg(command);
        if let Some(path) = &self.path {
            process.env_clear().env("PATH", path);
        }
        process.kill_on_drop(true);
        if self.has_pipes {
            process.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = process.spawn().unwrap();
            let stdin = Box::new(child.stdin.take().unwrap());
            let stdout = Box::new(child.stdout.take().unwrap());
            let said = Said {
                stdout,
                _child: child,
            };
            return Ok((said, Told(Some(stdin))));
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs = theirs.into_std().unwrap();
        theirs.set_nonblocking(false).unwrap();
        let theirs = OwnedFd::from(theirs);
        process.stdin(theirs.try_clone().unwrap()).stdout(theirs);
        let child = process.spawn().unwrap();
        // Ours is the only end now, but for the child's.
        drop(process);
        let (stdout, stdin) = ours.into_split();
        let said = Said {
            stdout: Box::new(stdout),
            _child: child,
        };
        Ok((said, Told(Some(Box::new(stdin)))))
    }
}
