//! What a doctor asks of a connection: how long it takes, and what the server allows beside carrying flows.

use std::time::{Duration, Instant};

use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg};
use tokio::time::timeout;

use super::handler::ClientHandler;
use super::{RusshCarrier, login};

/// How long the server may take for each answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// More output than this is not kept, in bytes.
const MOST_OUTPUT: usize = 64 << 10;
/// A terminal as ssh asks for it, in columns and rows.
const TERMINAL: (u32, u32) = (80, 24);

/// What is asked of a session (RFC 4254 sections 6.2 and 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// To run a command.
    Exec(&'a str),
    /// To start a subsystem, such as `sftp`.
    Subsystem(&'a str),
    /// To have a terminal; nothing is started in it.
    Terminal,
}

/// What the server says to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Granted. For a command: its output.
    Granted(Vec<u8>),
    /// The request is refused.
    Refused,
    /// No session is opened at all.
    NoSession,
    /// It does not answer in time.
    Silent,
}

impl RusshCarrier {
    /// How long a question to the server itself takes to be answered. `None` where it is not, within a few seconds.
    pub async fn round_trip(&self) -> Option<Duration> {
        let connection = self.pool.all().into_iter().next()?;
        let began = Instant::now();
        let answer = timeout(PATIENCE, connection.handle().send_ping()).await;
        answer.ok()?.ok()?;
        Some(began.elapsed())
    }

    /// Asks the server for something of a session, which is closed again.
    pub async fn ask(&self, request: Request<'_>) -> Answer {
        let Some(connection) = self.pool.all().into_iter().next() else {
            return Answer::Silent;
        };
        let asked = ask(connection.handle(), request);
        timeout(PATIENCE, asked).await.unwrap_or(Answer::Silent)
    }
}

/// How many bytes the server may send ahead for one flow on a path of this round trip.
pub fn window(round_trip: Duration) -> u32 {
    login::window(round_trip)
}

async fn ask(handle: &Handle<ClientHandler>, request: Request<'_>) -> Answer {
    let Ok(mut channel) = handle.channel_open_session().await else {
        return Answer::NoSession;
    };
    let asked = match request {
        Request::Exec(command) => channel.exec(true, command).await,
        Request::Subsystem(name) => channel.request_subsystem(true, name).await,
        Request::Terminal => {
            let (columns, rows) = TERMINAL;
            channel
                .request_pty(true, "vt100", columns, rows, 0, 0, &[])
                .await
        }
    };
    let answer = match asked {
        Ok(()) => heard(&mut channel, matches!(request, Request::Exec(_))).await,
        Err(_) => Answer::Silent,
    };
    // An error means that the connection is gone, and the channel with it.
    let _ = channel.close().await;
    answer
}

/// The answer; with `output` also what follows it, to its end.
async fn heard(channel: &mut Channel<Msg>, output: bool) -> Answer {
    let mut text = Vec::new();
    let mut is_granted = false;
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Success if !output => return Answer::Granted(text),
            ChannelMsg::Success => is_granted = true,
            ChannelMsg::Failure => return Answer::Refused,
            ChannelMsg::Data { data } => {
                let room = MOST_OUTPUT.saturating_sub(text.len());
                text.extend_from_slice(&data[..data.len().min(room)]);
            }
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    if is_granted {
        Answer::Granted(text)
    } else {
        Answer::Refused
    }
}
