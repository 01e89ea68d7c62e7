//! The tunnel that a plan asks for, at the start.

use tracing::{info, warn};

use super::far_side::{FarSideError, Found, Wish};
use super::tunnel::{NoTunnel, Tunnel, open};
use crate::carrier::AnyCarrier;
use crate::os::{Netlink, NetlinkError, host};
use crate::plan::advice::HostNetworks;
use crate::plan::far_side::TunnelAddress;
use crate::plan::{Plan, TunnelMode, TunnelPlan};

/// The MTU of the server's device, as of the networks behind most servers.
const MTU: u16 = 1500;
/// sshd reads no longer packets from its device (SSH_TUN_MAX_FRAME less headers and room).
const LONGEST: u16 = 16_380;

/// Nothing but an open tunnel tells this, and a dry run opens none.
const UNASKED: &str = "whether the server permits the tunnel (PermitTunnel) was not asked: underpass doctor --tunnel asks";
/// A pair is drawn for each run, so that those of several clients do not meet.
const CHOSEN: &str =
    "the addresses of a tunnel are chosen anew each time; --tunnel-address OURS,FAR keeps them";

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub(in crate::app) enum TunnelError {
    /// Everything was to go through it.
    #[error("{0}; without it there is nothing that frames could go through: take --tunnel")]
    Ethernet(String),
    /// Addresses or a device that were named, and cannot be had.
    #[error(transparent)]
    Taken(FarSideError),
    /// The host's networks.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// What is wished of the server, where `plan` has a tunnel. `networks` are this host's.
pub(in crate::app) fn wish(plan: &Plan, tunnel: &TunnelPlan, networks: &HostNetworks) -> Wish {
    Wish {
        id: super::super::seed(),
        kind: tunnel.mode.far(),
        unit: tunnel.unit,
        address: tunnel.address,
        ipv6: networks.ipv6
            && plan
                .capture
                .subnets
                .iter()
                .any(|subnet| subnet.net.addr().is_ipv6()),
        // Who runs containers translates their addresses into ours.
        back: Vec::new(),
        mtu: plan.device.mtu.unwrap_or(MTU).min(LONGEST),
        inbound: tunnel.mode != TunnelMode::Hybrid,
        taken: networks.used.clone(),
    }
}

/// What came of it.
pub(in crate::app) enum Wished {
    /// Nobody asked for one.
    Nothing,
    /// It is open.
    Open(Box<Tunnel>),
    /// It goes on without, for a reason of one line.
    Without(String),
}

impl Wished {
    /// The tunnel.
    pub(in crate::app) fn open(&self) -> Option<&Tunnel> {
        match self {
            Self::Open(tunnel) => Some(tunnel),
            Self::Nothing | Self::Without(_) => None,
        }
    }

    /// Why there is none, where one was asked for.
    pub(super) fn why(&self) -> Option<String> {
        match self {
            Self::Without(why) => Some(why.clone()),
            Self::Nothing | Self::Open(_) => None,
        }
    }
}

/// Opens what `plan` asks for. `slot` is ours, where the device is in this network. Where there is none the log says why, and what
/// to do.
///
/// # Errors
/// [`TunnelError`].
pub(in crate::app) async fn tunnel(
    plan: &Plan,
    slot: Option<u32>,
    carrier: &AnyCarrier,
) -> Result<Wished, TunnelError> {
    let Some(tunnel) = &plan.beside.tunnel else {
        return Ok(Wished::Nothing);
    };
    let networks = match slot {
        Some(slot) => host::networks(&Netlink::new()?, slot).await?,
        None => HostNetworks::default(),
    };
    let wish = wish(plan, tunnel, &networks);
    match open(&wish, carrier, true).await {
        Ok(opened) => {
            let tunnel = Tunnel::new(tunnel, wish, opened);
            info!("{tunnel}");
            if plan.beside.udp || plan.beside.pings.is_some() {
                info!("the tunnel carries datagrams and pings: --udp and --ping are not needed");
            }
            Ok(Wished::Open(Box::new(tunnel)))
        }
        Err(NoTunnel::FarSide(error @ (FarSideError::Taken(_) | FarSideError::UnitTaken(_)))) => {
            Err(TunnelError::Taken(error))
        }
        Err(error) if tunnel.mode == TunnelMode::Ethernet => {
            help(&error);
            Err(TunnelError::Ethernet(error.to_string()))
        }
        Err(error) => {
            warn!("{error}; TCP goes on without it: start underpass again when that is mended");
            help(&error);
            match plan.beside.udp || plan.beside.pings.is_some() {
                true => info!("until then --udp and --ping carry what was asked of them"),
                false => info!(
                    "until then --udp and --ping carry datagrams and pings, where the server runs commands for this login"
                ),
            }
            Ok(Wished::Without(error.to_string()))
        }
    }
}

/// What a tunnel would be, for --dry-run.
#[derive(Debug, Default)]
pub(in crate::app) struct Shown {
    /// The addresses of both ends, where there would be one.
    pub(in crate::app) address: Option<TunnelAddress>,
    /// What would be done on the server, or would have to be done there by somebody else.
    pub(in crate::app) lines: Vec<String>,
}

/// Asks the server what would be done there; does none of it.
///
/// # Errors
/// [`FarSideError`].
pub(in crate::app) async fn shown(
    plan: &Plan,
    tunnel: &TunnelPlan,
    networks: &HostNetworks,
    carrier: &AnyCarrier,
) -> Result<Shown, FarSideError> {
    let found = wish(plan, tunnel, networks).find(carrier, &[]).await?;
    Ok(match found {
        Found::End(end) => {
            let mut lines = under("on the server", end.shown());
            lines.push(UNASKED.to_owned());
            lines.extend(end.dropped_there());
            if tunnel.address.is_none() {
                lines.push(CHOSEN.to_owned());
            }
            Shown {
                address: Some(end.address()),
                lines,
            }
        }
        Found::Prepared(prepared) => Shown {
            address: Some(prepared.address),
            lines: Vec::new(),
        },
        Found::MayNot { why, commands } => {
            let heading = format!("--tunnel: {why}; an administrator can, as root there");
            Shown {
                address: None,
                lines: under(&heading, commands),
            }
        }
    })
}

fn under(heading: &str, lines: Vec<String>) -> Vec<String> {
    let lines = lines.into_iter().map(|line| format!("  {line}"));
    std::iter::once(format!("{heading}:"))
        .chain(lines)
        .collect()
}

fn help(error: &NoTunnel) {
    let mut lines = error.help().peekable();
    if lines.peek().is_some() {
        info!("an administrator of the server can set it up, as root there:");
    }
    for line in lines {
        info!("  {line}");
    }
}
