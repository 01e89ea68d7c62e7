//! `cleanup`: removes what a killed run left behind.

use super::exit::Exit;
use crate::os::{Netlink, NetlinkError, stale};

/// Removes rules, routes and devices whose owner is gone.
pub async fn run() -> Exit {
    match clear().await {
        Ok(cleared) if cleared.is_empty() => {
            tracing::info!("nothing was left behind");
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
