//! What a doctor asks of a connection: how long it takes, and what the server allows beside carrying flows.

use std::time::{Duration, Instant};

use russh::client::Msg;
use russh::{Channel, ChannelMsg};
use tokio::time::timeout;

use super::connection::Connection;
use super::{RusshCarrier, login};
use crate::carrier::examine::{Answer, MOST_OUTPUT, PATIENCE, Request, TERMINAL};
use crate::carrier::sftp::{End, Reading, SFTP};

impl RusshCarrier {
    /// How many bytes the server may send ahead for one flow on a path of this round trip.
    pub fn window(&self, round_trip: Duration) -> u32 {
        login::window(round_trip)
    }

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
        let asked = ask(&connection, request);
        timeout(PATIENCE, asked).await.unwrap_or(Answer::Silent)
    }
}

async fn ask(connection: &Connection, request: Request<'_>) -> Answer {
    let open = connection.handle().channel_open_session();
    let Ok(mut channel) = connection.load().refusals().with_text(open).await else {
        return Answer::NoSession;
    };
    let asked = match request {
        Request::Exec(command) => channel.exec(true, command).await,
        Request::Subsystem(name) => channel.request_subsystem(true, name).await,
        Request::File(_) => channel.request_subsystem(true, SFTP).await,
        Request::Terminal => {
            let (columns, rows) = TERMINAL;
            channel
                .request_pty(true, "vt100", columns, rows, 0, 0, &[])
                .await
        }
    };
    let answer = match asked {
        Ok(()) => {
            let answer = heard(&mut channel, matches!(request, Request::Exec(_))).await;
            match (request, &answer) {
                (Request::File(path), Answer::Granted(_)) => read(&mut channel, path).await,
                _ => answer,
            }
        }
        Err(_) => Answer::Silent,
    };
    // An error means that the connection is gone, and the channel with it.
    let _ = channel.close().await;
    answer
}

/// The file at `path`, from whoever speaks sftp on `channel`.
async fn read(channel: &mut Channel<Msg>, path: &str) -> Answer {
    let (mut reading, first) = Reading::begin(path);
    let mut said = first;
    loop {
        if !said.is_empty() && channel.data_bytes(std::mem::take(&mut said)).await.is_err() {
            return Answer::Silent;
        }
        let Some(message) = channel.wait().await else {
            return Answer::Refused;
        };
        let ChannelMsg::Data { data } = message else {
            continue;
        };
        let (reply, end) = reading.hear(&data);
        said = reply;
        match end {
            Some(End::File(file)) => {
                // It is closed with the channel, too.
                let _ = channel.data_bytes(reading.goodbye()).await;
                return Answer::Granted(file);
            }
            Some(End::Failed) => return Answer::Refused,
            None => {}
        }
    }
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
