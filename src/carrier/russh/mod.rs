//! The embedded SSH carrier, over russh.
//!
//! | file | idea |
//! |---|---|
//! | `login` | from a plan to a connection: `tcp`, `host_key` over `known_hosts`, `auth` over `keys`; `leash` ends one that leads nowhere |
//! | `handler` | what the server may say to us |
//! | `connection` | one connection; `load` counts what it carries |
//! | `pool` | all connections: which one a flow goes to, when one more is made, when one goes |
//! | `refusal` | which open a refusal's text belongs to |
//! | `stream` | one channel as two halves; `backlog`: what arrives while nobody reads, `pace`: from when on, over `spill` |

mod auth;
mod backlog;
mod connection;
mod detach;
mod handler;
mod host_key;
mod keys;
mod known_hosts;
mod leash;
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

use self::detach::detached;
use self::pool::{Place, Pool};
use super::dial::{DialBudget, DialPermit};
use super::error::{ConnectError, LostReason};
use super::link::{Description, Link};
use super::prompt::Prompter;
use crate::net::{Carrier, OpenError, OpenFailure, Source, Target};
use crate::plan::SshPlan;

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
        let addresses = tcp::resolve(&plan.host, plan.port).await?;
        let changed = Arc::new(Notify::new());
        let bell = Arc::clone(&changed);
        let (first, credential) = login::first(plan, &addresses, prompter, bell).await?;
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
            give_back(permit, opened.as_ref().err());
            opened
        })
        .await
    }
}

/// Gives the place in the budget back, and tells what the answer says about the host.
fn give_back(mut permit: DialPermit, error: Option<&OpenError>) {
    match error.map(|e| e.failure) {
        None | Some(OpenFailure::Refused) => permit.answered(true),
        Some(OpenFailure::TimedOut | OpenFailure::HostUnreachable) => permit.answered(false),
        // The server's word, not the host's.
        Some(_) => {}
    }
}
