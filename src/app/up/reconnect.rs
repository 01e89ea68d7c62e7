//! Logs in again when the connection was lost.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use super::near::Near;
use super::setup::Setup;
use crate::carrier::prompt::Prompter;
use crate::carrier::steady::Connector;
use crate::carrier::{AnyCarrier, ConnectError};
use crate::plan::SshPlan;

/// How long the resolver may take to say where the server is now.
const LOOKUP: Duration = Duration::from_secs(5);

/// Logs in with what let the last connection in; asks a person where that is not enough.
pub(super) struct Reconnect {
    plan: SshPlan,
    prompter: Arc<dyn Prompter>,
    setup: Arc<Mutex<Setup>>,
    /// Who knows the server's name, where others are asked of us.
    near: Option<Near>,
}

impl Reconnect {
    pub(super) fn new(
        plan: &SshPlan,
        prompter: Arc<dyn Prompter>,
        setup: Arc<Mutex<Setup>>,
        near: Option<Near>,
    ) -> Self {
        Self {
            plan: plan.clone(),
            prompter,
            setup,
            near,
        }
    }

    /// The server's name may lead elsewhere by now, and that may be in a subnet that is captured.
    async fn exempt(&self) {
        let Some(server) = self.plan.dialled() else {
            return;
        };
        if let Some(near) = &self.near {
            let near = near.addresses();
            if let Err(error) = self.setup.lock().await.exempt(&near).await {
                warn!("this host has new name servers, which are still captured: {error}");
            }
        }
        let lookup = lookup_host((server.host.as_str(), server.port));
        // Whoever connects says so, too.
        let Ok(Ok(found)) = timeout(LOOKUP, lookup).await else {
            return;
        };
        let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        if let Err(error) = self.setup.lock().await.exempt(&found).await {
            warn!("the SSH server has a new address, which is still captured: {error}");
        }
    }
}

impl Connector for Reconnect {
    type Link = AnyCarrier;

    async fn connect(
        &self,
        last: &AnyCarrier,
        with_person: bool,
    ) -> Result<AnyCarrier, ConnectError> {
        self.exempt().await;
        last.again(with_person.then(|| Arc::clone(&self.prompter)))
            .await
    }

    fn has_person(&self) -> bool {
        self.prompter.has_person()
    }

    /// A login is begun when somebody is there to end it: sshd waits two minutes (LoginGraceTime) and counts in vain ones.
    async fn summon(&self) -> bool {
        let prompter = Arc::clone(&self.prompter);
        let ask = move || prompter.line("underpass: press Enter to log in again: ");
        let answer = spawn_blocking(ask).await;
        answer.is_ok_and(|line| line.is_some())
    }

    fn server(&self) -> &str {
        &self.plan.alias
    }
}
