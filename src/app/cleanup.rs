//! `cleanup`: removes what a killed run left behind.

use super::control::instances;
use super::exit::Exit;
use crate::os::{Netlink, NetlinkError, run_dir, stale};

/// Removes rules, routes, devices and control sockets whose owner is gone.
pub async fn run() -> Exit {
    let sockets = run_dir::clear(&instances::all_places());
    match sockets {
        0 => {}
        1 => tracing::info!("removed the control socket of a killed run"),
        several => tracing::info!("removed the control sockets of {several} killed runs"),
    }
    match clear().await {
        Ok(cleared) if cleared.is_empty() => {
            if sockets == 0 {
                tracing::info!("nothing was left behind");
            }
            Exit::Success
        }
        Ok(cleared) => {
            tracing::info!("removed what a killed run left: {cleared}");
            Exit::Success
        }
        Err(error) if error.errno() == Some(nix::libc::EPERM) => {
            tracing::error!(
                "removing what a killed run left is not permitted; run it with sudo: sudo underpass cleanup"
            );
            Exit::Privilege
        }
        Err(error) => {
            tracing::error!("could not remove what a killed run left: {error}");
            Exit::NotUndone
        }
    }
}

async fn clear() -> Result<stale::Cleared, NetlinkError> {
    stale::clear(&Netlink::new()?, None).await
}
