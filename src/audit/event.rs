//! What is handed over to be written down.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use serde::Serialize;

use super::Protocol;
use crate::net::{FlowKey, Target};
use crate::relay::{Outcome, Traffic};

/// Something to be written down, or to be looked at by the writer.
#[derive(Debug)]
pub(super) enum Event {
    Session(SystemTime, Box<Session>),
    Lost(SystemTime, String),
    Back(SystemTime, Box<Login>),
    FlowStart(Arc<Flow>),
    FlowEnd(Arc<Flow>, End),
    /// Something waits beside the queue.
    Look,
    /// The last one.
    Stop(SystemTime, String, Totals),
}

/// One flow, shared by its task and the writer.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) number: u64,
    pub(super) protocol: Protocol,
    pub(super) key: FlowKey,
    /// Whom the target stands for.
    pub(super) mapped_to: Option<Target>,
    /// The name that the server is asked for in its place.
    pub(super) name: Option<Arc<str>>,
    pub(super) start: SystemTime,
    pub(super) traffic: Traffic,
    /// Its end, where the queue had no room for that.
    pub(super) end_beside: OnceLock<End>,
}

/// When a flow ended, and how.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) time: SystemTime,
    /// `None`: it was stopped.
    pub(super) outcome: Option<Outcome>,
}

impl End {
    pub(super) fn now(outcome: Option<Outcome>) -> Self {
        Self {
            time: SystemTime::now(),
            outcome,
        }
    }
}

impl Flow {
    pub(super) fn new(
        number: u64,
        protocol: Protocol,
        key: FlowKey,
        mapped_to: Option<Target>,
        name: Option<Arc<str>>,
    ) -> Self {
        Self {
            number,
            protocol,
            key,
            mapped_to,
            name,
            start: SystemTime::now(),
            traffic: Traffic::default(),
            end_beside: OnceLock::new(),
        }
    }
}

/// What a session is, and who runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// This program's version.
    pub version: &'static str,
    /// Number of the user who runs this process.
    pub uid: u32,
    /// Their name.
    pub user: Option<String>,
    /// Who called sudo, where somebody did.
    pub sudo_user: Option<String>,
    /// What is captured.
    pub subnets: Vec<String>,
    /// What is not.
    pub excludes: Vec<String>,
    /// Numbers of the users whose packets alone are captured; empty for everybody's.
    pub users: Vec<u32>,
    /// Interfaces by which hosts come in that are captured, too, or `all`; empty for containers of this host alone.
    pub gateway: Vec<String>,
    /// The TUN device.
    pub device: String,
    /// The login.
    #[serde(flatten)]
    pub login: Login,
}

/// Which server was logged in to, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Login {
    /// `russh` or `openssh`.
    pub carrier: &'static str,
    /// Host and port, as configured.
    pub server: String,
    /// The address that answered; `None` where another program made the connection.
    pub address: Option<SocketAddr>,
    /// The login name there.
    #[serde(rename = "login")]
    pub user: String,
    /// Type and fingerprint of the server's key.
    pub host_key: String,
    /// The cipher.
    pub cipher: String,
    /// What the server took.
    pub authentication: String,
    /// `SHA256:...` of the key that let us in.
    pub key: Option<String>,
}

/// What a session has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Flows that have ended.
    pub flows: u64,
    /// Bytes from the applications.
    pub bytes_up: u64,
    /// Bytes to the applications.
    pub bytes_down: u64,
}
