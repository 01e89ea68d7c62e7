//! What an instance is, apart from what it does: its name, its files, and what is done for it elsewhere.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::warn;

use crate::app::control;
use crate::app::exit::Exit;
use crate::os::Processes;
use crate::os::confine::Writes;
use crate::os::daemon::Attached;
use crate::os::names;
use crate::os::pid_file::Keeper;
use crate::os::run_dir::{Claim, ClaimError};
use crate::plan::{CapturePlan, InstancePlan};

/// Works out again what is captured: from the same arguments, the files that they name, and the profile. An error is one line
/// for a person.
pub type Replan = Arc<dyn Fn() -> Result<CapturePlan, String> + Send + Sync>;

/// What is done for us by others.
#[derive(Debug, Default)]
pub struct Apart {
    /// Writes the pid file, where we may not.
    pub keeper: Option<Keeper>,
    /// Finds who opens a connection, for the audit log.
    pub processes: Processes,
    /// Looks after the host's names, where they are to be looked up through the server.
    pub names: Option<names::Keeper>,
}

/// What an instance is, apart from what it does.
pub struct Instance {
    /// For `status` and `down`.
    pub(super) name: String,
    /// The claim to the name, and the control socket; `None` where none can be had.
    pub(super) claimed: Option<(Claim, UnixListener)>,
    /// The file to write the process's number to.
    pub(super) pid_file: Option<PathBuf>,
    pub(super) apart: Apart,
    /// Whoever waits for packets to flow, where the terminal is to be left then.
    pub(super) attached: Option<Attached>,
    /// For the log of a daemon on a host that keeps none; goes with the run directory's other files.
    pub(super) log_file: Option<PathBuf>,
    pub(super) replan: Replan,
}

impl Instance {
    /// Claims the name.
    ///
    /// # Errors
    /// The exit code, when the name is another's; said.
    pub fn new(
        plan: &InstancePlan,
        apart: Apart,
        attached: Option<Attached>,
        replan: Replan,
    ) -> Result<Self, Exit> {
        let claimed = match Claim::new(&plan.name, &control::instances::own_places()) {
            Ok(claimed) => Some(claimed),
            Err(error @ (ClaimError::Taken { .. } | ClaimError::Name(_))) => {
                tracing::error!("{error}");
                return Err((&error).into());
            }
            // Packets flow without it as well.
            Err(error) => {
                warn!("status, down and reload will not find this run: {error}");
                None
            }
        };
        let directory = claimed.as_ref().map(|(claim, _)| claim.directory());
        Ok(Self {
            name: plan.name.clone(),
            log_file: directory.map(|directory| directory.join(format!("{}.log", plan.name))),
            claimed,
            pid_file: plan.pid_file.clone(),
            apart,
            attached,
            replan,
        })
    }

    /// Where it writes to: the directories of its pid file, and of its control socket.
    pub fn writes(&self) -> Writes {
        let pid_file = self.pid_file.as_deref().map(std::path::absolute);
        let pid_file = pid_file.and_then(|file| Some(file.ok()?.parent()?.to_owned()));
        let socket = self.claimed.as_ref().map(|(claim, _)| claim.directory());
        Writes {
            below: pid_file.into_iter().collect(),
            own: socket.map(PathBuf::from).into_iter().collect(),
        }
    }
}
