//! Whether the server would make a device for a tunnel of whole packets (`ssh -w`), found out without one.
//!
//! The question is a channel to a device of an impossible number. sshd refuses it either way, and says in a debug message
//! how far it came; ssh writes that to its log. A debug message may come before the host key is checked, and its text is
//! the server's: so this is a login of its own, of which nothing else is believed, and which asks nobody.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use tracing::debug;

use super::client::{Asks, Client};
use super::connection::Connection;
use super::master::Master;
use super::shared::Owner;
use super::{GOODBYE, OpensshCarrier};
use crate::carrier::channels::{ChannelType, Refusal, TunLayer};
use crate::carrier::error::ConnectError;
use crate::carrier::examine::{PATIENCE, Tunnel};
use crate::plan::{SshClient, SshPlan};

/// How long after the refusal its reason may come: it was sent before, by another way.
const REASON: Duration = Duration::from_secs(1);

/// What `text` of ssh's log says of a tunnel: the server's debug messages (serverloop.c `server_request_tun`).
pub(super) fn said(text: &str) -> Option<Tunnel> {
    match text.strip_prefix("Remote: ")? {
        "Server has rejected tunnel device forwarding" => Some(Tunnel::Forbidden),
        "Failed to open the tunnel device." => Some(Tunnel::Permitted),
        _ => None,
    }
}

impl OpensshCarrier {
    /// Has the installed ssh log in once more, without asking anybody, and asks the server for a tunnel that it cannot make.
    ///
    /// # Errors
    /// [`ConnectError`]: ssh is not there, or does not get in by itself.
    pub async fn tunnel(plan: &SshPlan, client: &SshClient) -> Result<Tunnel, ConnectError> {
        let client = Client::find(plan, client).await?;
        Self::tunnel_of(client, TunLayer::PointToPoint).await
    }

    /// The same with an ssh that is known, of either layer.
    ///
    /// # Errors
    /// [`ConnectError`]: it does not get in by itself.
    pub(super) async fn tunnel_of(client: Client, layer: TunLayer) -> Result<Tunnel, ConnectError> {
        let client = client.with_remarks();
        if !client.tells() {
            return Ok(Tunnel::Unheard);
        }
        let (master, socket) = Master::start(&client, Asks::Nobody).await?;
        let mut reason = master.tunnel();
        let changed = Arc::new(Notify::new());
        let connection = Connection::start(master, socket, Arc::clone(&changed));
        let answer = connection.ask_for_no_tunnel(layer).await;
        let tunnel = match answer {
            Some(Ok(())) => Tunnel::Made,
            Some(Err(Refusal::UnknownChannelType)) => Tunnel::Unknown,
            Some(Err(refusal)) => {
                debug!("no tunnel: {refusal:?}");
                let reason = timeout(REASON, reason.wait_for(Option::is_some)).await;
                let reason = reason.ok().and_then(|reason| *reason.ok()?);
                reason.unwrap_or(match refusal {
                    Refusal::AdministrativelyProhibited => Tunnel::Forbidden,
                    _ => Tunnel::Refused,
                })
            }
            None => Tunnel::Silent,
        };
        connection.stop();
        // One that does not end in time is killed when the runtime or this process ends.
        let _ = timeout(GOODBYE, connection.ended()).await;
        Ok(tunnel)
    }
}

impl Connection {
    /// The server's answer; `None` where there is none in time.
    async fn ask_for_no_tunnel(self: &Arc<Self>, layer: TunLayer) -> Option<Result<(), Refusal>> {
        let (sender, answer) = oneshot::channel();
        self.with(|shared, _| {
            let id = shared.channels.open(ChannelType::no_tun(layer)).ok()?;
            shared.owners.insert(id, Owner::Tunnel(sender));
            Some(())
        })?;
        timeout(PATIENCE, answer).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_quoted_by_ssh() {
        for (text, expected) in [
            (
                "Remote: Server has rejected tunnel device forwarding",
                Some(Tunnel::Forbidden),
            ),
            (
                "Remote: Failed to open the tunnel device.",
                Some(Tunnel::Permitted),
            ),
            ("Remote: /k:1: key options: port-forwarding", None),
            ("Server has rejected tunnel device forwarding", None),
            ("", None),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }
}
