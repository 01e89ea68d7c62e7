//! The carrier over the user's own OpenSSH: ssh logs in with all its options, keys and prompts, and carries our
//! channels over its control socket (mux proxy mode).
//!
//! # Theory of operation
//!
//! We start `ssh -M -N` for ourselves, never use a master of the user's: a master dies after some 16,380 refused
//! opens, and when its proxy socket closes at a bad moment, and takes everything down that is on it. So ours and its
//! socket live and die together. On the socket we speak the connection protocol through
//! [`channels`](super::channels): a flow's window opens as the flow is read, so all that arrives can be taken off the
//! socket at once, and no flow waits for another.
//!
//! A master that has refused many opens, or carries many flows, is joined by a fresh one that logs in without asking
//! anybody; new flows go there, and the old one ends with its last flow.
//!
//! What ssh's configuration says holds, but for what would be done once for each master: forwardings, a RemoteCommand, and a
//! LocalCommand (`PermitLocalCommand=no`). ssh writes its log to a pipe of its own (`-E`), from which alone we learn who
//! answered: what a banner or a ProxyCommand says comes on stderr, and is only shown.
//!
//! | file | idea |
//! |---|---|
//! | `client` | which ssh is installed, and its arguments |
//! | `master` | one ssh process: start, wait until it is ready, end |
//! | `hearing` | its log, its stderr, and the `terminal` that it asks on, in the order in which it speaks |
//! | `words` | what it says: `facts` of a login from its log, `said` to a person, and `refusal`: why a login failed, `astray`: on the way |
//! | `wait` | a login that takes long; `den`: the directory of its control socket |
//! | `hello` | the control socket until it carries channels |
//! | `connection` | one master's reader and writer, over `shared`: its channels behind one lock; `flow`: one channel's state |
//! | `stream` | one channel as two halves, over its `place` on the connection |
//! | `sessions` | a channel that runs a command; `packets`: one of whole packets |
//! | `pool` | all masters: which one a flow goes to, when one more is started, when one goes |
//! | `life` | whether the server is still there; `examine`, `tunnel`: what a doctor asks of it |

mod astray;
mod client;
mod connection;
mod den;
mod examine;
mod facts;
mod flow;
mod hearing;
mod hello;
mod life;
mod master;
mod packets;
mod place;
mod pool;
mod refusal;
mod said;
mod sessions;
mod shared;
mod stream;
mod terminal;
mod tunnel;
mod wait;
mod words;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use self::client::{Asks, Client};
use self::pool::Pool;
use super::by_name::{NoMore, ONE_CONNECTION};
use super::dial::DialBudget;
use super::error::{ConnectError, LostReason};
use super::link::{Description, Link, distinct};
use super::prompt;
use crate::net::{Carrier, Far, OpenError, Source};
use crate::plan::{SshClient, SshPlan};

pub use self::client::SshError;
pub use self::packets::PacketLink;
pub use self::stream::{OpensshReader, OpensshWriter};

/// How long [`OpensshCarrier::shutdown`] waits for the masters' ends.
const GOODBYE: Duration = Duration::from_millis(900);

/// Opens streams as `direct-tcpip` channels (RFC 4254 section 7.2) of the user's own ssh.
pub struct OpensshCarrier {
    pool: Arc<Pool>,
    dial: Arc<DialBudget>,
    addresses: Vec<SocketAddr>,
    description: Description,
}

impl OpensshCarrier {
    /// Lets ssh log in to the server of `plan`. It asks on the terminal whatever it has to ask.
    ///
    /// # Errors
    /// [`ConnectError`]: one line for a person, with what to do.
    pub async fn connect(plan: &SshPlan, client: &SshClient) -> Result<Self, ConnectError> {
        let client = Client::find(plan, client).await?;
        Self::log_in(client, whom_to_ask(plan)).await
    }

    /// The same with one connection, which asks nobody unless it `may_ask`.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::Refused`], too, where somebody would have to be asked.
    pub(super) async fn alone(
        plan: &SshPlan,
        client: &SshClient,
        may_ask: bool,
    ) -> Result<Self, ConnectError> {
        let client = Client::find(plan, client).await?.with_one_master();
        let asks = match may_ask {
            true => whom_to_ask(plan),
            false => Asks::Nobody,
        };
        Self::log_in(client, asks).await
    }

    /// Logs in once more. Unless `with_person`, ssh asks nobody.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::Refused`], too, where somebody would have to be asked.
    pub async fn again(&self, with_person: bool) -> Result<Self, ConnectError> {
        let asks = if with_person {
            Asks::Person
        } else {
            Asks::Nobody
        };
        Self::log_in(self.pool.client().clone(), asks).await
    }

    /// A further one, of one master: see [`super::by_name`].
    pub(super) async fn apart(&self) -> Result<Self, NoMore> {
        let client = self.pool.client();
        if client.plan().is_one_connection() {
            return Err(NoMore::Ever(ONE_CONNECTION.to_owned()));
        }
        let carrier = Self::log_in(client.clone().with_one_master(), Asks::Nobody).await;
        carrier.map_err(|error| NoMore::of(&error))
    }

    /// How many channels there are, with those that are to be opened.
    pub(super) fn channels(&self) -> usize {
        let masters = self.pool.all();
        let burdens = masters.iter().filter_map(|master| master.burden());
        burdens.map(|burden| burden.flows).sum()
    }

    /// Resolves when the server has done for every master what it was asked for there.
    pub(super) async fn done(&self) {
        for master in self.pool.all() {
            if let Some(answer) = master.ask() {
                // It resolves with the answer, to whatever.
                let _ = answer.await;
            }
        }
    }

    async fn log_in(client: Client, asks: Asks) -> Result<Self, ConnectError> {
        let addresses = resolve(client.plan()).await;
        let (pool, description) = Pool::start(client, asks).await?;
        Ok(Self {
            pool,
            dial: Arc::default(),
            addresses,
            description,
        })
    }
}

/// The addresses that the nearest server's name has. ssh looks them up by itself: a failure is its to tell.
async fn resolve(plan: &SshPlan) -> Vec<SocketAddr> {
    let Some(nearest) = plan.dialled() else {
        return Vec::new();
    };
    match tokio::net::lookup_host((nearest.host.as_str(), nearest.port)).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            debug!("looking up {}: {error}", nearest.host);
            Vec::new()
        }
    }
}

impl Link for OpensshCarrier {
    fn description(&self) -> &Description {
        &self.description
    }

    fn server_addresses(&self) -> Vec<IpAddr> {
        let named = self.addresses.iter().map(|address| address.ip());
        distinct(named.chain(self.pool.peers()))
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
        self.pool.close();
        // Masters that do not end in time are killed when the runtime or this process ends.
        let _ = tokio::time::timeout(GOODBYE, self.pool.ended()).await;
    }
}

/// Where there is nobody, ssh would send an empty password for each try.
fn whom_to_ask(plan: &SshPlan) -> Asks {
    let person = prompt::usual(plan.login.batch, |name| std::env::var_os(name));
    match person.has_person() {
        true => Asks::Person,
        false => Asks::Nobody,
    }
}

impl Drop for OpensshCarrier {
    fn drop(&mut self) {
        self.pool.close();
    }
}

impl Carrier for OpensshCarrier {
    type Reader = OpensshReader;
    type Writer = OpensshWriter;

    async fn open_far(
        &self,
        source: Source,
        far: Far,
    ) -> Result<(OpensshReader, OpensshWriter), OpenError> {
        let permit = self.dial.acquire(far.target.0.ip()).await;
        let connection = self.pool.place()?;
        connection.open(source, &far, permit)?.await
    }
}
