//! The embedded SSH carrier, over russh.
//!
//! | file | idea |
//! |---|---|
//! | `login` | from a plan to a connection: `tcp`, `host_key` over `known_hosts`, `auth` |
//! | `handler` | what the server may say to us |
//! | `connection` | one connection; `load` counts what it carries, `cut` ends it |
//! | `pool` | all connections: which one a flow goes to, when one more is made, when one goes |
//! | `refusal` | which open a refusal's text belongs to |
//! | `stream` | one channel as two halves; `backlog`: what arrives while nobody reads, `pace`: from when on, over `spill` |

mod auth;
mod backlog;
mod connection;
mod cut;
mod detach;
mod handler;
mod host_key;
mod known_hosts;
mod load;
mod login;
mod pace;
mod pool;
mod refusal;
mod spill;
mod stream;
mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use self::auth::Credential;
use self::detach::detached;
use self::pool::{Place, Pool};
use super::dial::DialBudget;
use super::error::{ConnectError, LostReason};
use super::link::{Description, Link};
use super::prompt::{NoPrompter, Prompter};
use crate::net::{Carrier, OpenError, Source, Target};
use crate::plan::SshPlan;

pub use self::auth::Keyring;
pub use self::stream::{RusshReader, RusshWriter};

/// How long [`RusshCarrier::shutdown`] waits for the goodbyes to be sent.
const GOODBYE: Duration = Duration::from_millis(500);

/// Opens streams as `direct-tcpip` channels (RFC 4254 section 7.2) of one or more SSH connections to one server.
pub struct RusshCarrier {
    pool: Arc<Pool>,
    dial: Arc<DialBudget>,
    addresses: Vec<SocketAddr>,
    description: Description,
}

impl RusshCarrier {
    /// Logs in to the server of `plan`; `prompter` asks what a person has to answer.
    ///
    /// # Errors
    /// [`ConnectError`]: one line for a person, with what to do.
    pub async fn connect(
        plan: &SshPlan,
        prompter: Arc<dyn Prompter>,
    ) -> Result<Self, ConnectError> {
        Self::log_in(plan, prompter, None).await
    }

    /// Logs in once more, with what let this one in. Where that asks somebody, or is not taken any more, `prompter` asks;
    /// `None` asks nobody.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::Refused`], too, where somebody would have to be asked.
    pub async fn again(&self, prompter: Option<Arc<dyn Prompter>>) -> Result<Self, ConnectError> {
        let plan = self.pool.plan();
        let credential = self.pool.credential();
        let with_person = prompter.is_some();
        let prompter = prompter.unwrap_or_else(|| Arc::new(NoPrompter));
        // A key that is to be touched, a code: not while nobody knows of it.
        let before = (with_person || credential.is_silent()).then_some(credential);
        Self::log_in(plan, prompter, before).await
    }

    async fn log_in(
        plan: &SshPlan,
        prompter: Arc<dyn Prompter>,
        before: Option<&Credential>,
    ) -> Result<Self, ConnectError> {
        let addresses = tcp::resolve(&plan.host, plan.port).await?;
        let changed = Arc::new(Notify::new());
        let bell = Arc::clone(&changed);
        let (first, credential) = login::first(plan, &addresses, prompter, before, bell).await?;
        let description = Description {
            server: Some(first.peer()),
            host_key: first.host_key().map(describe_key).unwrap_or_default(),
            cipher: first.cipher().to_owned(),
            authentication: credential.describe(),
        };
        Ok(Self {
            pool: Pool::new(plan.clone(), credential, first, changed),
            dial: Arc::default(),
            addresses,
            description,
        })
    }
}

fn describe_key(key: &russh::keys::PublicKey) -> String {
    let kind = host_key::type_name(&key.algorithm());
    format!("{kind} {}", host_key::fingerprint(key))
}

impl Link for RusshCarrier {
    fn description(&self) -> &Description {
        &self.description
    }

    fn server_addresses(&self) -> Vec<IpAddr> {
        let connections = self.pool.all();
        let peers = connections.iter().map(|c| c.peer());
        let mut addresses: Vec<IpAddr> = self
            .addresses
            .iter()
            .copied()
            .chain(peers)
            .map(|address| address.ip().to_canonical())
            .collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    async fn lost(&self) -> LostReason {
        self.pool.lost().await
    }

    async fn check(&self) {
        self.pool.check().await;
    }

    async fn shutdown(&self) {
        let goodbye = async {
            for connection in self.pool.close() {
                connection.disconnect().await;
            }
            self.pool.lost().await
        };
        // The sessions end when the goodbye is written; a server that does not read does not hold us up.
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

impl Carrier for RusshCarrier {
    type Reader = RusshReader;
    type Writer = RusshWriter;

    async fn open(
        &self,
        source: Source,
        target: Target,
    ) -> Result<(RusshReader, RusshWriter), OpenError> {
        let permit = self.dial.acquire(target.0.ip()).await;
        let Place { connection, place } = self.pool.place().await?;
        let store = Arc::clone(self.pool.store());
        detached(async move {
            let opened = connection.open(source, target, place, &store).await;
            permit.give_back(opened.as_ref().err());
            opened
        })
        .await
    }
}
