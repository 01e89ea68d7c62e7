//! Logs in again when the connection was lost.

use crate::carrier::steady::Connector;
use crate::carrier::{AnyCarrier, ConnectError};
use crate::plan::SshPlan;

/// With what let the last connection in. The terminal is the command's, so nobody is asked on it.
pub(super) struct Again {
    server: String,
}

impl Again {
    pub(super) fn new(plan: &SshPlan) -> Self {
        Self {
            server: plan.alias.clone(),
        }
    }
}

impl Connector for Again {
    type Link = AnyCarrier;

    async fn connect(&self, last: &AnyCarrier, _: bool) -> Result<AnyCarrier, ConnectError> {
        last.again(None).await
    }

    fn has_person(&self) -> bool {
        false
    }

    async fn summon(&self) -> bool {
        false
    }

    fn server(&self) -> &str {
        &self.server
    }
}
