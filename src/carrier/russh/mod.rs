//! The embedded SSH carrier, over russh.
//!
//! | file | idea |
//! |---|---|
//! | `login` | from a plan to a connection: `algorithms`, `host_key` over `known_hosts`, `auth`; `leash` ends one that leads nowhere |
//! | `route` | the way there: `tcp`, another connection, or a command; `greeting`: the exchange of versions on it; `server`: errors until then |
//! | `handler` | what the server may say to us |
//! | `connection` | one connection; `load` counts what it carries, `cut` ends it, `vigil` notices its loss while nobody reads |
//! | `pool` | all connections: which one a flow goes to, when one more is made, when one goes |
//! | `command` | a command on the server as a stream; `examine`: what a doctor asks of a connection |
//! | `reason` | what went wrong in a session, for a person |
//! | `refusal` | which open a refusal's text belongs to |
//! | `stream` | one channel as two halves; `backlog`: what arrives while nobody reads, `pace`: from when on, over `spill` |

mod ahead;
mod algorithms;
mod auth;
mod backlog;
mod command;
mod connection;
mod cut;
mod examine;
mod greeting;
mod handler;
mod host_key;
mod known_hosts;
mod leash;
mod load;
mod login;
mod pace;
mod pool;
mod reason;
mod refusal;
mod route;
mod server;
mod spill;
mod stream;
mod tcp;
mod turns;
mod vigil;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use self::load::Common;
use self::login::How;
use self::pool::{Place, Pool};
use super::by_name::{NoMore, ONE_CONNECTION};
use super::detach::detached;
use super::dial::DialBudget;
use super::error::{ConnectError, LostReason};
use super::link::{Description, Link, distinct};
use super::prompt::Prompter;
use crate::net::{Carrier, Far, OpenError, Source};
use crate::plan::SshPlan;

pub use self::algorithms::has_algorithm;
pub use self::auth::{KeyFacts, KeyLock, agent_key_facts, key_facts};
pub use self::spill::directory as backlog_directory;
pub use self::stream::{RusshReader, RusshWriter};

/// How long [`RusshCarrier::shutdown`] waits for the goodbyes to be sent.
const GOODBYE: Duration = Duration::from_millis(500);

/// Opens streams as `direct-tcpip` channels (RFC 4254 section 7.2) of one or more SSH connections to one server.
pub struct RusshCarrier {
    pool: Arc<Pool>,
    dial: Arc<DialBudget>,
    addresses: Vec<IpAddr>,
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
        let how = How {
            before: None,
            is_further: false,
            prompter: Some(prompter),
        };
        Self::log_in(plan, how).await
    }

    /// Logs in once more, with what let this one in. Where that asks somebody, or is not taken any more, `prompter` asks;
    /// `None` asks nobody.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::Refused`], too, where somebody would have to be asked.
    pub async fn again(&self, prompter: Option<Arc<dyn Prompter>>) -> Result<Self, ConnectError> {
        let access = self.pool.access();
        let how = How {
            before: Some(&access),
            is_further: false,
            prompter,
        };
        Self::log_in(self.pool.plan(), how).await
    }

    /// A further one, of one connection: see [`super::by_name`].
    pub(super) async fn apart(&self) -> Result<Self, NoMore> {
        let plan = self.pool.plan();
        let access = self.pool.access();
        if !access.is_silent() {
            return Err(NoMore::Ever(
                "this login asks somebody each time".to_owned(),
            ));
        }
        if plan.is_one_connection() {
            return Err(NoMore::Ever(ONE_CONNECTION.to_owned()));
        }
        let plan = SshPlan {
            connections: Some(1),
            ..plan.clone()
        };
        let how = How {
            before: Some(&access),
            is_further: true,
            prompter: None,
        };
        let carrier = Self::log_in(&plan, how).await;
        let carrier = carrier.map_err(|error| NoMore::of(&error))?;
        self.pool.renew(carrier.pool.access());
        Ok(carrier)
    }

    /// How many channels there are, with those that are to be opened.
    pub(super) fn channels(&self) -> usize {
        self.pool.all().iter().map(|c| c.load().channels()).sum()
    }

    /// Resolves when the server has done on every connection what it was asked for there.
    pub(super) async fn done(&self) {
        for connection in self.pool.all() {
            // An error means that the connection is gone, and what was asked for with it.
            let _ = connection.handle().send_ping().await;
        }
    }

    async fn log_in(plan: &SshPlan, how: How<'_>) -> Result<Self, ConnectError> {
        let common = Arc::<Common>::default();
        let (first, access) = login::log_in(plan, how, Arc::clone(&common)).await?;
        let description = Description {
            server: first.base().peer(),
            host_key: first.host_key().map(host_key::describe).unwrap_or_default(),
            cipher: first.cipher().to_owned(),
            authentication: access.credential.describe(),
            key: access.credential.key(),
            methods: access.credential.methods().to_vec(),
        };
        Ok(Self {
            addresses: access.known.addresses(),
            pool: Pool::new(plan.clone(), access, first, common),
            dial: Arc::default(),
            description,
        })
    }
}

impl Link for RusshCarrier {
    fn description(&self) -> &Description {
        &self.description
    }

    fn server_addresses(&self) -> Vec<IpAddr> {
        let connections = self.pool.all();
        let peers = connections.iter().flat_map(|c| c.base().addresses());
        distinct(self.addresses.iter().copied().chain(peers))
    }

    fn connections(&self) -> usize {
        self.pool.all().len()
    }

    async fn lost(&self) -> LostReason {
        self.pool.lost().await
    }

    async fn check(&self) {
        self.pool.check().await;
    }

    async fn shutdown(&self) {
        let connections = self.pool.close();
        let mut goodbyes = JoinSet::new();
        for connection in &connections {
            let connection = Arc::clone(connection);
            goodbyes.spawn(async move { connection.disconnect().await });
        }
        let goodbye = async {
            goodbyes.join_all().await;
            self.pool.lost().await
        };
        // The sessions end when the goodbye is written. Neither a server that does not read nor a flow that nobody reads holds
        // us up, or keeps a connection.
        if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
            for connection in connections {
                connection.load().cut().cut();
            }
        }
    }
}

impl Carrier for RusshCarrier {
    type Reader = RusshReader;
    type Writer = RusshWriter;

    async fn open_far(
        &self,
        source: Source,
        far: Far,
    ) -> Result<(RusshReader, RusshWriter), OpenError> {
        let permit = self.dial.acquire(far.target.0.ip()).await;
        let Place { connection, place } = self.pool.place().await?;
        let store = Arc::clone(self.pool.store());
        detached(async move {
            let opened = connection.open(source, &far, place, &store).await;
            permit.give_back(opened.as_ref().err());
            opened
        })
        .await
    }
}
