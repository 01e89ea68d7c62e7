//! The end that asks.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::debug;

use super::line::{Line, Takes};
use super::wire::{Hello, Opened, Refusal, Reply, Request};
use crate::os::TunDevice;
use crate::os::names::Wish;
use crate::plan::far_side::TunnelAddress;
use crate::plan::{CapturePlan, DevicePlan};

/// How long the privileged end may take to end after all was said.
const FAREWELL: Duration = Duration::from_secs(2);
/// Requests that wait for their turn.
const WAITING: usize = 4;

/// Something was not done.
#[derive(Debug, Error)]
pub enum HandError {
    /// The privileged end said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It never began.
    #[error("{program} did not start the privileged part of underpass ({status}); {hint}")]
    NotStarted {
        /// What was run for it.
        program: String,
        /// How that ended.
        status: String,
        /// What to do.
        hint: String,
    },
    /// It is there no longer.
    #[error("the privileged part of underpass has ended, and nothing is captured any more")]
    Gone,
    /// The socket failed.
    #[error("the privileged part of underpass cannot be talked to: {0}")]
    Io(#[from] io::Error),
}

/// Does through the privileged end what needs privileges. Dropped, it lets that end undo everything.
#[derive(Debug)]
pub struct Hand {
    asks: mpsc::Sender<Ask>,
    gone: watch::Receiver<bool>,
    elsewhere: bool,
}

/// The device as the other end has made it.
#[derive(Debug)]
pub struct Device {
    /// The device; it goes when this is dropped.
    pub tun: TunDevice,
    /// Number of the slot that is claimed for it.
    pub slot: u32,
    /// What a killed run had left and was removed, in words.
    pub cleared: Option<String>,
    /// The name servers that programs in another network had, where their names are asked of us.
    pub near: Vec<SocketAddr>,
}

/// A request, and who waits for its answer. Without a request: the end.
struct Ask {
    request: Option<Request>,
    answer: oneshot::Sender<Result<Answer, HandError>>,
}

#[derive(Debug)]
enum Answer {
    Reply(Reply),
    Device(Device),
    Connection(OwnedFd),
    End,
}

/// What was run to have the other end, and its name for a person.
#[derive(Debug)]
pub struct Process {
    /// The process.
    pub child: Child,
    /// What was run.
    pub program: String,
    /// What to do when it fails.
    pub hint: String,
}

impl Hand {
    /// Greets the privileged end of `socket`, which works in `namespace` if one is given; waits until it answers, and
    /// somebody may have to type a password first.
    ///
    /// # Errors
    /// [`HandError::NotStarted`] when `process` ends instead, [`HandError::Gone`] where there is none.
    pub async fn greet(
        socket: UnixStream,
        hello: Hello,
        namespace: Option<OwnedFd>,
        process: Option<Process>,
    ) -> Result<Self, HandError> {
        let elsewhere = namespace.is_some();
        let hello = if elsewhere {
            hello.with_namespace()
        } else {
            hello
        };
        let mut line = Line::new(socket, Takes::Descriptors)?;
        let greeted = async {
            line.send(&hello, namespace.as_ref().map(AsFd::as_fd))
                .await?;
            line.receive::<Reply>().await
        };
        match greeted.await {
            Ok(Some(Reply::Ready)) => {}
            Ok(Some(Reply::Refused(refusal))) => return Err(refusal.into()),
            Ok(Some(_)) => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
            Ok(None) => return Err(not_started(process).await),
            Err(error) => {
                debug!("greeting the privileged part: {error}");
                return Err(not_started(process).await);
            }
        }
        let (asks, asked) = mpsc::channel(WAITING);
        let (tell, gone) = watch::channel(false);
        tokio::spawn(serve_asks(line, asked, process, tell));
        Ok(Self {
            asks,
            gone,
            elsewhere,
        })
    }

    /// Whether it works in a network namespace that is not ours.
    pub fn is_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// Has the device made. Once.
    ///
    /// # Errors
    /// Why it was not; nothing is left of it.
    pub async fn open(&self, plan: &DevicePlan) -> Result<Device, HandError> {
        match self.ask(Some(Request::Open(plan.clone()))).await? {
            Answer::Device(device) => Ok(device),
            other => Err(unexpected(&other)),
        }
    }

    /// Has exactly `capture` captured from here on, without the addresses `exempt`. With `names` programs ask our name server
    /// ([`name_server`](crate::os::routes::name_server)) from here on. With `ends` the device is that of a tunnel, and has its
    /// addresses; that is said with the first capture, and stays.
    ///
    /// # Errors
    /// Why it was not. What was captured before may be captured in part.
    pub async fn hold(
        &self,
        capture: &CapturePlan,
        exempt: &[IpAddr],
        names: Option<&Wish>,
        ends: Option<TunnelAddress>,
    ) -> Result<(), HandError> {
        let request = Request::hold(capture, exempt, names, ends);
        match self.ask(Some(request)).await? {
            Answer::Reply(Reply::Held) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Begins a TCP connection to `server`, one of those that programs in the other network had, from there; with `datagrams` a
    /// socket for those instead.
    ///
    /// # Errors
    /// Why none was begun.
    pub async fn near(&self, server: SocketAddr, datagrams: bool) -> Result<OwnedFd, HandError> {
        let request = Request::Near { server, datagrams };
        match self.ask(Some(request)).await? {
            Answer::Connection(connection) => Ok(connection),
            other => Err(unexpected(&other)),
        }
    }

    /// Has nothing captured any more; a line for each part that could not be taken back.
    ///
    /// # Errors
    /// When the other end is gone, and has taken it back or not.
    pub async fn release(&self) -> Result<Vec<String>, HandError> {
        match self.ask(Some(Request::Release {})).await? {
            Answer::Reply(Reply::Released { left }) => Ok(left),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets the other end go, and waits for it. The device should be gone by then.
    pub async fn end(&self) {
        // Gone already is as good.
        let _ = self.ask(None).await;
    }

    /// Resolves when the other end has gone.
    pub async fn gone(&self) {
        let mut gone = self.gone.clone();
        // An error says that who told of it has gone itself.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Goes on to its end also when this is dropped.
    async fn ask(&self, request: Option<Request>) -> Result<Answer, HandError> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { request, answer };
        self.asks.send(ask).await.map_err(|_| HandError::Gone)?;
        answered.await.map_err(|_| HandError::Gone)?
    }
}

/// Takes requests to the other end, one at a time, until it goes or nobody asks any more.
async fn serve_asks(
    mut line: Line,
    mut asked: mpsc::Receiver<Ask>,
    process: Option<Process>,
    gone: watch::Sender<bool>,
) {
    let mut farewell = None;
    loop {
        let ask = tokio::select! {
            ask = asked.recv() => ask,
            () = line.disturbed() => None,
        };
        let Some(ask) = ask else { break };
        let Some(request) = ask.request else {
            farewell = Some(ask.answer);
            break;
        };
        let answer = exchange(&mut line, &request).await;
        let is_over = matches!(answer, Err(HandError::Gone | HandError::Io(_)));
        // Who asked may no longer wait.
        let _ = ask.answer.send(answer);
        if is_over {
            break;
        }
    }
    drop(line);
    drop(asked);
    gone.send_replace(true);
    ended(process).await;
    if let Some(answer) = farewell {
        let _ = answer.send(Ok(Answer::End));
    }
}

async fn exchange(line: &mut Line, request: &Request) -> Result<Answer, HandError> {
    line.send(request, None)
        .await
        .map_err(|_| HandError::Gone)?;
    match line.receive().await? {
        Some(Reply::Opened(opened)) => Ok(Answer::Device(device(line, opened)?)),
        Some(Reply::Near) => match line.take_descriptor() {
            Some(connection) => Ok(Answer::Connection(connection)),
            None => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        },
        Some(Reply::Refused(refusal)) => Err(refusal.into()),
        Some(reply) => Ok(Answer::Reply(reply)),
        None => Err(HandError::Gone),
    }
}

fn device(line: &mut Line, opened: Opened) -> io::Result<Device> {
    let descriptor = line.take_descriptor();
    let descriptor = descriptor.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Device {
        near: opened.near,
        tun: TunDevice::from_parts(descriptor, opened.name, opened.offload, opened.mtu),
        slot: opened.slot,
        cleared: opened.cleared,
    })
}

fn unexpected(answer: &Answer) -> HandError {
    debug!("not the answer to that: {answer:?}");
    io::Error::from(io::ErrorKind::InvalidData).into()
}

async fn not_started(process: Option<Process>) -> HandError {
    let Some(process) = process else {
        return HandError::Gone;
    };
    let (program, hint) = (process.program.clone(), process.hint.clone());
    let status = match ended(Some(process)).await {
        Some(status) => status.to_string(),
        None => "it does not end".to_owned(),
    };
    HandError::NotStarted {
        program,
        status,
        hint,
    }
}

/// How `process` ended, where it does soon.
async fn ended(process: Option<Process>) -> Option<ExitStatus> {
    let mut child = process?.child;
    let wait = tokio::task::spawn_blocking(move || child.wait());
    tokio::time::timeout(FAREWELL, wait).await.ok()?.ok()?.ok()
}
