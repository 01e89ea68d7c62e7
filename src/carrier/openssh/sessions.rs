//! A channel that opens: to a far host at once, a session when it runs what it is to run.

use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut;
use tokio::time::timeout;

use super::OpensshCarrier;
use super::flow::{Flow, Opening};
use super::shared::{After, Shared};
use super::stream::{OpensshReader, OpensshWriter};
use crate::carrier::channels::{ChannelId, ChannelType};
use crate::carrier::command::no_command;
use crate::net::{OpenError, OpenFailure};

/// How long a server may take to run a command.
const PATIENCE: Duration = Duration::from_secs(10);

impl Shared {
    /// The server has opened the channel of `flow`.
    pub(super) fn flow_opened(&mut self, id: ChannelId, flow: &Arc<Flow>, after: &mut After) {
        let is_abandoned = flow.state().is_abandoned;
        match flow.command() {
            Some(command) if !is_abandoned => {
                let mut specific = Vec::new();
                // No command is near 4 GiB.
                specific.put_u32(u32::try_from(command.len()).unwrap_or_default());
                specific.put_slice(command.as_bytes());
                if self.channels.request(id, "exec", true, &specific).is_err() {
                    self.command_answered(id, flow, false, after);
                }
            }
            _ => self.has_opened(id, flow, after),
        }
    }

    /// The server runs the command of `flow`, or does not.
    pub(super) fn command_answered(
        &mut self,
        id: ChannelId,
        flow: &Arc<Flow>,
        success: bool,
        after: &mut After,
    ) {
        if success {
            return self.has_opened(id, flow, after);
        }
        self.owners.remove(&id);
        self.channels.abort(id);
        let mut state = flow.state();
        state.refuse(no_command());
        after.wake(&mut state.reader);
    }

    fn has_opened(&mut self, id: ChannelId, flow: &Arc<Flow>, after: &mut After) {
        let mut state = flow.state();
        if let Opening::Asked(Some(permit)) = std::mem::replace(&mut state.opening, Opening::Opened)
        {
            after.permits.push((permit, None));
        }
        if state.is_abandoned {
            self.owners.remove(&id);
            self.channels.abort(id);
        }
        after.wake(&mut state.reader);
    }
}

impl OpensshCarrier {
    /// Runs `command` on the server: its output, and its input. When both halves are gone, so is the command's channel; sshd then
    /// ends its input. What it says on stderr is for the log.
    ///
    /// # Errors
    /// [`OpenFailure::Prohibited`] where the server opens no session or runs no commands.
    pub async fn open_exec(
        &self,
        command: &str,
    ) -> Result<(OpensshReader, OpensshWriter), OpenError> {
        let connection = self.pool.place()?;
        let asked = connection.open_flow(ChannelType::session(), Flow::running(command))?;
        let silent = || OpenError::new(OpenFailure::TimedOut, "the server does not answer");
        timeout(PATIENCE, asked).await.map_err(|_| silent())?
    }
}
