//! What goes wrong on the way, and the exit code for it.

use std::io;

use thiserror::Error;

use super::beside::TunnelError;
use super::far_networks::FarNetworksError;
use super::names::NamesError;
use crate::app::exit::Exit;
use crate::audit::AuditError;
use crate::carrier::ConnectError;
use crate::os::NetlinkError;
use crate::os::helper::HandError;
use crate::os::pid_file::PidFileError;
use crate::plan::PlanError;

/// Why packets do not flow, or no longer.
#[derive(Debug, Error)]
pub(super) enum UpError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    #[error(transparent)]
    Hand(#[from] HandError),
    #[error(transparent)]
    Names(#[from] NamesError),
    #[error(transparent)]
    FarNetworks(#[from] FarNetworksError),
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("could not read the host's networks: {0}")]
    Netlink(#[from] NetlinkError),
    #[error("{step}: {source}")]
    Io {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the connection was lost, and trying again does not mend it: {0}")]
    NotAgain(#[source] ConnectError),
}

impl UpError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Plan(_) | Self::Tunnel(TunnelError::Taken(_)) => Exit::Usage,
            Self::Hand(error) => error.into(),
            Self::Connect(error) | Self::NotAgain(error) => error.into(),
            _ => Exit::Failure,
        }
    }
}

/// An error of the system in `step`.
pub(super) fn io_error(step: &'static str) -> impl FnOnce(io::Error) -> UpError {
    move |source| UpError::Io { step, source }
}
