//! A connection for packets alone, beside a carrier that has no such channels.
//!
//! TCP goes on over the carrier, which costs less CPU for every byte; what is no TCP does not wait behind it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use tracing::info;

use crate::carrier::error::{ConnectError, HostKeyError};
use crate::carrier::link::Link;
use crate::carrier::one::One;
use crate::carrier::openssh::OpensshCarrier;
use crate::plan::{SshClient, SshPlan};

/// The connection, once it is there.
pub(in crate::carrier) struct Apart {
    server: SshPlan,
    client: SshClient,
    now: Mutex<Option<Arc<One>>>,
    /// The host key of the first one, which all that follow have to have; empty before that.
    host_key: Arc<Mutex<String>>,
}

impl Apart {
    /// None yet; to `server`, by the installed ssh.
    pub(in crate::carrier) fn new(server: SshPlan, client: SshClient) -> Self {
        Self {
            server,
            client,
            now: Mutex::default(),
            host_key: Arc::default(),
        }
    }

    /// None yet, to the same, which has to have the same host key.
    pub(in crate::carrier) fn another(&self) -> Self {
        Self {
            host_key: Arc::clone(&self.host_key),
            ..Self::new(self.server.clone(), self.client.clone())
        }
    }

    /// Whether it is the same server's as the first one.
    fn recognise(&self, offered: &str) -> Result<(), ConnectError> {
        // It is whole at every moment, whoever panicked.
        let mut before = self.host_key.lock().unwrap_or_else(PoisonError::into_inner);
        if before.is_empty() {
            offered.clone_into(&mut before);
        }
        if offered.is_empty() || *before == offered {
            return Ok(());
        }
        Err(ConnectError::HostKey(HostKeyError::NotAsBefore {
            offered: offered.to_owned(),
            before: before.clone(),
        }))
    }

    fn now(&self) -> MutexGuard<'_, Option<Arc<One>>> {
        // It is whole at every moment, whoever panicked.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, where it is there and not lost.
    pub(in crate::carrier) fn get(&self) -> Option<Arc<One>> {
        let mut now = self.now();
        if now
            .as_ref()
            .is_some_and(|one| one.lost().now_or_never().is_some())
        {
            *now = None;
        }
        now.clone()
    }

    /// The connection, made where it is not there.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::Refused`], too, where somebody would have to be asked and it `may_ask` nobody.
    pub(in crate::carrier) async fn get_or_connect(
        &self,
        may_ask: bool,
    ) -> Result<Arc<One>, ConnectError> {
        if let Some(one) = self.get() {
            return Ok(one);
        }
        if may_ask {
            info!(
                "packets have a connection of their own, by the installed ssh; with --carrier openssh there is one for everything"
            );
        }
        let carrier = OpensshCarrier::alone(&self.server, &self.client, may_ask).await?;
        self.recognise(&carrier.description().host_key)?;
        let one = Arc::new(One::Openssh(carrier));
        *self.now() = Some(Arc::clone(&one));
        Ok(one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_follow_have_the_host_key_of_the_first() {
        let first = Apart::new(SshPlan::new("h", 22, "me"), SshClient::default());
        first.recognise("SHA256:a").unwrap();
        let next = first.another();
        next.recognise("SHA256:a").unwrap();
        // Where ssh does not tell.
        next.recognise("").unwrap();
        let error = next.recognise("SHA256:b").unwrap_err();
        assert!(matches!(error, ConnectError::HostKey(_)), "{error}");
    }
}
