//! A command on the server, as a stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{Channel, ChannelMsg};
use tokio::time::timeout;

use super::RusshCarrier;
use super::connection::Connection;
use super::pool::Place;
use super::stream::{RusshReader, RusshWriter, halves};
use crate::carrier::command::no_command;
use crate::carrier::detach::detached;
use crate::net::{OpenError, OpenFailure};

/// How long a server may take to run a command.
const PATIENCE: Duration = Duration::from_secs(10);
/// Messages of output that may come before the word that the command runs: some servers are not so particular.
const EARLY: usize = 64;

impl RusshCarrier {
    /// Runs `command` on the server: its output, and its input. When both halves are gone, so is the command's channel. What it
    /// says on stderr is for the log.
    ///
    /// # Errors
    /// [`OpenFailure::Prohibited`] where the server opens no session or runs no commands.
    pub async fn open_exec(&self, command: &str) -> Result<(RusshReader, RusshWriter), OpenError> {
        let Place { connection, place } = self.pool.place().await?;
        let store = Arc::clone(self.pool.store());
        let command = command.to_owned();
        let running = detached(async move {
            let (channel, early) = run(&connection, &command).await?;
            let (mut reader, writer) = halves(channel, place, store);
            reader.put_first(early);
            Ok((reader, writer))
        });
        let silent = || OpenError::new(OpenFailure::TimedOut, "the server does not answer");
        timeout(PATIENCE, running).await.map_err(|_| silent())?
    }
}

async fn run(
    connection: &Connection,
    command: &str,
) -> Result<(Channel<Msg>, Vec<Bytes>), OpenError> {
    let open = connection.handle().channel_open_session();
    let opened = connection.load().refusals().with_text(open).await;
    let mut channel = opened.map_err(|error| match error.failure {
        OpenFailure::ConnectionLost => error,
        // OpenSSH says the same as where a network is unreachable.
        _ => no_command(),
    })?;
    let lost = || OpenError::new(OpenFailure::ConnectionLost, "");
    channel.exec(true, command).await.map_err(|_| lost())?;
    let mut early = Vec::new();
    loop {
        match channel.wait().await.ok_or_else(lost)? {
            ChannelMsg::Success => return Ok((channel, early)),
            ChannelMsg::Data { data } if early.len() < EARLY => early.push(data),
            ChannelMsg::Failure | ChannelMsg::Data { .. } | ChannelMsg::Close => break,
            _ => {}
        }
    }
    // An error means that the connection is gone, and the channel with it.
    let _ = channel.close().await;
    Err(no_command())
}
