//! A server that runs commands: a shell of this machine, with pipes in place of a channel.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
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
}

impl Local {
    pub fn new(shell: &'static [&'static str]) -> Self {
        Self {
            shell,
            path: None,
            runs: Arc::default(),
            forbids: false,
        }
    }
}

pub struct Said {
    stdout: ChildStdout,
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

pub struct Told(Option<ChildStdin>);

impl ByteWriter for Told {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StreamError> {
        let stdin = self.0.as_mut().ok_or(StreamError::Reset)?;
        let written = stdin.write_all(&chunk).await;
        written.map_err(|_| StreamError::Reset)
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        self.0 = None;
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
        process.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process.kill_on_drop(true).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Ok((
            Said {
                stdout,
                _child: child,
            },
            Told(Some(stdin)),
        ))
    }
}
