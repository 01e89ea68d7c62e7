//! ProxyCommand: a program whose stdin and stdout lead to the server.
//!
//! It is run as ssh runs it: by the user's shell, which is told to `exec` it, in our own process group, so that it may
//! ask on the terminal (a password, a code). A further connection asks nobody: its command has no terminal. Ctrl-C on the
//! terminal is ours alone, for we have something to take back first; the command hangs up with the connection. It
//! ends with us even where we are killed: many an `nc` does not care that its stdin is at the end.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep, timeout};
use tracing::{debug, info};

use super::WayEnd;
use crate::carrier::TO_PERSON;
use crate::carrier::failure::{harmless_line, words};
use crate::carrier::processes;
use crate::os::child::{self, Terminal};

/// The shell where the environment names none (sshconnect.c `ssh_proxy_connect`).
const SHELL: &str = "/bin/sh";
/// How long the command may take to end by itself.
const HANG_UP: Duration = Duration::from_millis(500);
/// How long its last words are waited for after its end, and its end after that of its output.
const LAST_WORDS: Duration = Duration::from_millis(200);
const LAST_BREATH: Duration = Duration::from_secs(1);
/// So many of its last lines are kept: an error of a cloud tool may take some, and what it said before is no error.
const MAX_LAST: usize = 3;
/// A longer line on stderr is cut, in bytes.
const MAX_LINE: usize = 1024;
/// What is not gone on with for so long is all of it.
const QUESTION: Duration = Duration::from_millis(300);

/// A command at work, for as long as its stream lives.
#[derive(Clone, Debug)]
pub(in super::super) struct Running {
    pid: u32,
    said: Arc<Said>,
}

impl Running {
    /// Its number; that of its shell's own process.
    pub(in super::super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its last lines on stderr, if it said any.
    pub(super) fn last_words(&self) -> Option<String> {
        Some(self.said.last()).filter(|last| !last.is_empty())
    }

    /// What it says from here on matters less, and what it has said tells nothing about its end.
    pub(in super::super) fn logged_in(&self) {
        self.said.is_quiet.store(true, Relaxed);
        self.said.last_lines().clear();
    }
}

/// What the command said on stderr.
#[derive(Debug)]
struct Said {
    last: Mutex<VecDeque<String>>,
    is_quiet: AtomicBool,
}

impl Said {
    /// `is_quiet`: what it says matters to nobody now.
    fn new(is_quiet: bool) -> Self {
        Self {
            last: Mutex::default(),
            is_quiet: AtomicBool::new(is_quiet),
        }
    }

    fn line(&self, line: &[u8]) {
        let line = harmless_line(&String::from_utf8_lossy(line));
        if line.trim().is_empty() {
            return;
        }
        // Before the login it may tell the person what to do: where to log in, which code to type.
        match self.is_quiet.load(Relaxed) {
            true => debug!("the ProxyCommand says: {line}"),
            false => info!(target: TO_PERSON, "the ProxyCommand says: {line}"),
        }
        let mut last = self.last_lines();
        if last.len() == MAX_LAST {
            last.pop_front();
        }
        last.push_back(line.trim().to_owned());
    }

    fn last_lines(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> String {
        let last = self.last_lines();
        let lines: Vec<_> = last.iter().map(String::as_str).collect();
        lines.join("; ")
    }
}

/// Starts `text`; `is_first` if it may ask a person.
///
/// # Errors
/// Those of fork(2) and exec(2) for the shell. That the command itself is missing is told by the stream's end.
pub(super) fn start(text: &str, is_first: bool) -> io::Result<(CommandStream, Running)> {
    let terminal = match is_first {
        true => Terminal::Shared,
        false => Terminal::None,
    };
    let mut child = child::spawn_tied(command(text), terminal, Signal::SIGKILL)?;
    let missing = || io::Error::other("the command has no pipes");
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let running = Running {
        pid: child.id().ok_or_else(missing)?,
        // A further connection's command says again what the first one's did.
        said: Arc::new(Said::new(!is_first)),
    };
    let (report, ended) = oneshot::channel();
    let (stop, stopped) = oneshot::channel();
    let said = Arc::clone(&running.said);
    tokio::spawn(supervise(child, stderr, said, stopped, report));
    let stream = CommandStream {
        stdin,
        stdout,
        ended,
        patience: None,
        _stop: stop,
    };
    Ok((stream, running))
}

fn command(text: &str) -> tokio::process::Command {
    let own = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    let mut command = tokio::process::Command::new(own.as_deref().unwrap_or(OsStr::new(SHELL)));
    command
        .arg("-c")
        .arg(format!("exec {text}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Hangs up on the command and its children when dropped.
struct HangUp(Option<u32>);

impl Drop for HangUp {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            processes::signal_tree(pid, Signal::SIGHUP);
        }
    }
}

/// Waits for the command's end, or ends it when nobody needs it any more.
async fn supervise(
    mut child: Child,
    stderr: ChildStderr,
    said: Arc<Said>,
    stopped: oneshot::Receiver<()>,
    report: oneshot::Sender<String>,
) {
    let mut hang_up = HangUp(child.id());
    let listening = listen(stderr, &said);
    tokio::pin!(listening);
    let mut heard = false;
    let status = {
        let ended = child.wait();
        tokio::pin!(ended, stopped);
        loop {
            tokio::select! {
                status = &mut ended => break Some(status),
                _ = &mut stopped => break None,
                () = &mut listening, if !heard => heard = true,
            }
        }
    };
    let Some(status) = status else {
        let tree = processes::tree(hang_up.0.unwrap_or_default());
        drop(hang_up);
        if timeout(HANG_UP, child.wait()).await.is_err() {
            processes::signal(&tree, Signal::SIGKILL);
        }
        return;
    };
    // Its number may be another's from here on.
    hang_up.0 = None;
    if !heard {
        // Its children may hold stderr open.
        let _ = timeout(LAST_WORDS, listening).await;
    }
    // Nobody may wait for it.
    let _ = report.send(end(status, &said.last()));
}

fn end(status: io::Result<ExitStatus>, last: &str) -> String {
    let how = match status {
        Ok(status) => status.to_string(),
        Err(error) => words(&error),
    };
    let colon = if last.is_empty() { "" } else { ": " };
    format!("the ProxyCommand ended ({how}){colon}{last}")
}

/// Reads stderr line by line to its end. A question has no end of a line.
async fn listen(mut stderr: impl AsyncRead + Unpin, said: &Said) {
    let mut line = Vec::with_capacity(MAX_LINE);
    let mut chunk = [0; 512];
    loop {
        let read = match line.is_empty() {
            true => stderr.read(&mut chunk).await,
            false => match timeout(QUESTION, stderr.read(&mut chunk)).await {
                Ok(read) => read,
                Err(_) => {
                    said.line(&line);
                    line.clear();
                    continue;
                }
            },
        };
        let bytes = match read {
            Ok(0) | Err(_) => break,
            Ok(bytes) => bytes,
        };
        for byte in &chunk[..bytes] {
            match byte {
                b'\n' | b'\r' => {
                    said.line(&line);
                    line.clear();
                }
                byte if line.len() < MAX_LINE => line.push(*byte),
                _ => {}
            }
        }
    }
    said.line(&line);
}

/// The command's stdin and stdout. Its end is an error that says how the command ended.
pub(super) struct CommandStream {
    stdin: ChildStdin,
    stdout: ChildStdout,
    ended: oneshot::Receiver<String>,
    /// Since the output is at its end.
    patience: Option<Pin<Box<Sleep>>>,
    /// Dropped with the stream: the command is to end.
    _stop: oneshot::Sender<()>,
}

impl CommandStream {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let patience = self
            .patience
            .get_or_insert_with(|| Box::pin(sleep(LAST_BREATH)));
        if let Poll::Ready(Ok(how)) = Pin::new(&mut self.ended).poll(cx) {
            return Poll::Ready(WayEnd(how).into());
        }
        ready!(patience.as_mut().poll(cx));
        let how = "the ProxyCommand closed its output".to_owned();
        Poll::Ready(WayEnd(how).into())
    }
}

impl AsyncRead for CommandStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.patience.is_none() {
            let before = buf.filled().len();
            let read = ready!(Pin::new(&mut self.stdout).poll_read(cx, buf));
            if read.is_err() || buf.filled().len() > before {
                return Poll::Ready(read);
            }
        }
        self.poll_end(cx).map(Err)
    }
}

impl AsyncWrite for CommandStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_is_shown_while_it_is_waited_for() {
        let (mut command, stderr) = tokio::io::duplex(64);
        let said = Said::new(false);
        let mut listening = std::pin::pin!(listen(stderr, &said));
        let mut hear = async |text: &str| {
            command.write_all(text.as_bytes()).await.unwrap();
            let heard = timeout(2 * QUESTION, listening.as_mut()).await;
            assert!(heard.is_err(), "it listens on");
            said.last()
        };
        assert_eq!(
            hear("Welcome\nEnter OTP code: ").await,
            "Welcome; Enter OTP code:"
        );
        assert_eq!(hear("\n").await, "Welcome; Enter OTP code:");
        assert_eq!(hear("thanks\n").await, "Welcome; Enter OTP code:; thanks");
    }
}
