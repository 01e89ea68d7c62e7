//! `cleanup`: removes what a killed run left behind.

use super::exit::Exit;
use crate::os::{Netlink, NetlinkError, stale};

/// Removes rules and routes whose owner is gone.
pub async fn run() -> Exit {
    match clear().await {
        Ok(cleared) if cleared.is_empty() => {
            tracing::info!("nothing was left behind");
            Exit::Success
        }
        Ok(cleared) => {
            let stale::Cleared { rules, routes } = cleared;
            tracing::info!("removed what a killed run left: {rules} rules, {routes} routes");
            Exit::Success
        }
        Err(error) if error.errno() == Some(nix::libc::EPERM) => {
            tracing::error!("removing rules is not permitted; run sudo underpass cleanup");
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
