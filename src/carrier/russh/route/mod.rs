//! The way to a server: a TCP connection of ours, a channel of a jump host, or a command.
//!
//! Each connection to a server behind a jump host has a connection to the jump host of its own, as with ssh: over a shared
//! one, a flow that nobody reads would hold up the flows of all.

mod command;
mod hop;
mod outbox;
mod stream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

use super::connection::Connection;
use super::load::Load;
use super::login::{self, Access, How};
use super::tcp::{self, AckAtOnce, Connected, Pulse, SshTcp};
use crate::carrier::error::{CommandEnd, ConnectError, Stage};
use crate::carrier::failure::{harmless, words};
use crate::carrier::processes;
use crate::plan::{Route, SshPlan};

pub(super) use command::Running;
use hop::HopStream;
pub(super) use outbox::Gate;
use outbox::Outbox;
use stream::Duplex;
pub(super) use stream::SshStream;

/// How long the handshake may take, without the time that a person takes to answer, unless ConnectTimeout says so.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// The same for a command: it may ask a person, or start a machine. Without ConnectTimeout ssh waits for ever.
const SLOW_START: Duration = Duration::from_secs(120);
/// How long a jump host may take to connect to the next host.
const FORWARD: Duration = Duration::from_secs(30);

/// How long the name of a server that a command connects to is looked for.
const LOOKUP: Duration = Duration::from_secs(2);

/// Why a way is at its end: a jump host or a command has gone. For a person.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct WayEnd(String);

impl From<WayEnd> for io::Error {
    fn from(end: WayEnd) -> Self {
        Self::other(end)
    }
}

impl WayEnd {
    /// Whether `error` is one.
    pub(super) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// A way to a server, before its SSH handshake.
pub(super) struct Way {
    pub(super) stream: SshStream,
    pub(super) base: Base,
    /// Where it is known already.
    pub(super) round_trip: Option<Duration>,
    pub(super) ack_at_once: AckAtOnce,
    /// How long the handshake may take.
    pub(super) patience: Duration,
}

/// What the way of a connection rests on, for as long as the connection lives.
pub(super) enum Base {
    /// A TCP connection to this address.
    Tcp(SocketAddr, Pulse),
    /// A jump host.
    Hop(Box<Connection>),
    /// A command.
    Command(Running),
}

impl Base {
    /// Where our own TCP connection goes, if it goes to the server itself.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(peer, _) => Some(*peer),
            Self::Hop(_) | Self::Command(_) => None,
        }
    }

    /// The far ends of all TCP connections that the way takes from this host.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::Tcp(peer, _) => vec![peer.ip()],
            Self::Hop(hop) => hop.base().addresses(),
            Self::Command(running) => processes::peers(running.pid()),
        }
    }

    /// Whether this host's own TCP connection under it is gone. Of a command that is not known.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Tcp(_, pulse) => pulse.is_gone(),
            Self::Hop(hop) => hop.base().is_gone(),
            Self::Command(_) => false,
        }
    }

    /// The server for a person.
    pub(super) fn name(&self, plan: &SshPlan) -> String {
        match self {
            Self::Tcp(peer, _) => peer.to_string(),
            Self::Hop(_) | Self::Command(_) => plan.place(),
        }
    }

    /// What a command said last on stderr.
    pub(super) fn last_words(&self) -> Option<String> {
        match self {
            Self::Command(running) => running.last_words(),
            Self::Tcp(..) | Self::Hop(_) => None,
        }
    }
}

/// What was found out on the first way, for those after it.
#[derive(Clone)]
pub(super) enum Known {
    /// All addresses of the server, and the one that answered.
    Tcp(Vec<SocketAddr>, SocketAddr),
    /// How we got into the jump host.
    Hop(Box<Access>),
    /// Nothing; and the addresses that the server's name has here, where it has any.
    Command(Vec<SocketAddr>),
}

impl Known {
    /// All addresses that a way may go to from this host.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::Tcp(addresses, _) | Self::Command(addresses) => {
                addresses.iter().map(SocketAddr::ip).collect()
            }
            Self::Hop(access) => access.known.addresses(),
        }
    }
}

/// Opens a way to the server of `plan`. What waits to be sent closes the gate of `load`.
///
/// # Errors
/// [`ConnectError`], also of a jump host's login.
pub(super) async fn open(
    plan: &SshPlan,
    how: &How<'_>,
    load: &Load,
) -> Result<(Way, Known), ConnectError> {
    let gate = load.gate();
    match &plan.route {
        Route::Direct => direct(plan, how, load).await,
        Route::Jump(hop) => jump(plan, hop, how, gate).await,
        Route::Command(text) => by_command(plan, text, how, gate).await,
    }
}

async fn direct(plan: &SshPlan, how: &How<'_>, load: &Load) -> Result<(Way, Known), ConnectError> {
    let known = match how.known() {
        Some(Known::Tcp(all, peer)) => Some((all.clone(), *peer)),
        _ => None,
    };
    let (all, tried) = match known {
        Some((all, peer)) => (all, vec![peer]),
        None => {
            let all = tcp::resolve(plan).await?;
            (all.clone(), all)
        }
    };
    let Connected {
        stream,
        peer,
        round_trip,
    } = tcp::connect(&tried, &plan.dialling).await?;
    tcp::give_up_after(&stream, login::silence(plan));
    let pulse = Pulse::of(&stream).map_err(|source| ConnectError::Unreachable {
        server: peer.to_string(),
        source,
    })?;
    let ack_at_once = AckAtOnce::new(AtomicBool::new(false));
    let stream = SshStream::tcp(SshTcp::new(
        stream,
        Arc::clone(&ack_at_once),
        Arc::clone(load.turns()),
    ));
    let way = Way {
        stream,
        base: Base::Tcp(peer, pulse),
        round_trip: Some(round_trip),
        ack_at_once,
        patience: plan.dialling.timeout.unwrap_or(HANDSHAKE),
    };
    Ok((way, Known::Tcp(all, peer)))
}

async fn jump(
    plan: &SshPlan,
    hop: &SshPlan,
    how: &How<'_>,
    gate: &Arc<Gate>,
) -> Result<(Way, Known), ConnectError> {
    let how = how.of_hop();
    if how.is_further && how.before.is_none() {
        // What was found out belongs to this very plan.
        return Err(unforeseen(plan));
    }
    let logged_in = login::boxed(hop, how).await;
    let (connection, access) = logged_in.map_err(|error| error.of_hop(&hop.alias))?;
    let patience = plan.dialling.timeout.unwrap_or(FORWARD);
    let opening = connection.forward(&plan.host, plan.port);
    let channel = timeout(patience, opening)
        .await
        .map_err(|_| ConnectError::TimedOut {
            server: plan.place(),
            seconds: patience.as_secs(),
            stage: Stage::Forwarding,
        })?
        .map_err(|error| ConnectError::not_forwarded(hop, plan, error))?;
    let load = Arc::clone(connection.load());
    let stream = HopStream::new(channel, load, hop.alias.clone());
    let way = Way::proxied(
        plan,
        Box::new(stream),
        Base::Hop(Box::new(connection)),
        gate,
        HANDSHAKE,
    );
    Ok((way, Known::Hop(Box::new(access))))
}

async fn by_command(
    plan: &SshPlan,
    text: &str,
    how: &How<'_>,
    gate: &Arc<Gate>,
) -> Result<(Way, Known), ConnectError> {
    let known = match how.known() {
        Some(known) => known.clone(),
        // Most commands go there; that the name says nothing here is their ordinary case.
        None => {
            let found = timeout(LOOKUP, tcp::resolve(plan)).await;
            Known::Command(found.ok().and_then(Result::ok).unwrap_or_default())
        }
    };
    let may_ask = how.prompter.is_some();
    let started = command::start(text, may_ask);
    let (stream, running) = started.map_err(|error| ConnectError::Command {
        host: plan.alias.clone(),
        detail: format!("the ProxyCommand cannot be started: {}", words(&error)),
        command: harmless(text),
        end: CommandEnd::NoWay,
    })?;
    let base = Base::Command(running);
    let way = Way::proxied(plan, Box::new(stream), base, gate, SLOW_START);
    Ok((way, known))
}

fn unforeseen(plan: &SshPlan) -> ConnectError {
    ConnectError::Ended {
        host: plan.host.clone(),
        detail: "before it began: the way there has changed".to_owned(),
    }
}

impl Way {
    fn proxied(
        plan: &SshPlan,
        stream: Box<dyn Duplex>,
        base: Base,
        gate: &Arc<Gate>,
        patience: Duration,
    ) -> Self {
        Self {
            stream: SshStream::proxied(Outbox::new(stream, Arc::clone(gate))),
            base,
            round_trip: None,
            ack_at_once: AckAtOnce::default(),
            patience: plan.dialling.timeout.unwrap_or(patience),
        }
    }
}
