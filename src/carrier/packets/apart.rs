//! A connection for packets alone, beside a carrier that has no such channels.
//!
//! TCP goes on over the carrier, which costs less CPU for every byte; what is no TCP does not wait behind it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::info;

use crate::carrier::error::ConnectError;
use crate::carrier::first_host_key::FirstHostKey;
use crate::carrier::link::Link;
use crate::carrier::one::One;
use crate::carrier::openssh::OpensshCarrier;
use crate::plan::{SshClient, SshPlan};

/// The connection, once it is there.
pub(in crate::carrier) struct Apart {
    server: SshPlan,
    client: SshClient,
    now: Mutex<Option<Arc<One>>>,
    /// Of all such connections, one after the other.
    host_key: Arc<Mutex<FirstHostKey>>,
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

    /// The connection, where it is there and not lost.
    pub(in crate::carrier) fn get(&self) -> Option<Arc<One>> {
        let mut now = lock(&self.now);
        if now.as_ref().is_some_and(|one| one.is_over()) {
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
        lock(&self.host_key).recognise(&carrier.description().host_key)?;
        let one = Arc::new(One::Openssh(carrier));
        *lock(&self.now) = Some(Arc::clone(&one));
        Ok(one)
    }
}

/// Everything behind these locks is whole at every moment, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
