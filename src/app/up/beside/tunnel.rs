//! The tunnel that stays: opened again, and the server's end set up again, whenever it was lost.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::far_side::{FarEnd, FarSideError, Found, Wish};
use crate::app::control::report;
use crate::carrier::{AnyCarrier, ConnectError, PacketCarrier, PacketLink, Steady, TunnelRefusal};
use crate::inlet::tun::Ways;
use crate::net::PacketKind;
use crate::plan::far_side::{DeviceKind, MayNot, TunnelAddress};
use crate::plan::{TunnelMode, TunnelPlan};

/// Devices of the server's that are tried, where sshd opens none of the first ones: somebody else may have been faster.
const DEVICES: usize = 3;
/// Between two tries while the connection stands: the shortest, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// How long after a failure the connection may turn out to be lost.
const NOTICED: Duration = Duration::from_secs(2);
/// How long the server may take to take its end back; it does so by itself then.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no tunnel. One line, and commands for somebody else where those help.
#[derive(Debug, Error)]
pub(in crate::app) enum NoTunnel {
    /// The server's end cannot be set up.
    #[error(transparent)]
    FarSide(#[from] FarSideError),
    /// Its connection cannot be made.
    #[error("--tunnel: its own connection, by the installed ssh: {0}")]
    Connect(#[from] ConnectError),
    /// sshd opens none.
    #[error("--tunnel: {0}")]
    Refused(#[from] TunnelRefusal),
    /// Who logs in may not.
    #[error("--tunnel: {why}")]
    MayNot {
        /// Why.
        why: MayNot,
        /// What an administrator of the server runs.
        commands: Vec<String>,
    },
    /// It is not the one that the device here is for.
    #[error(
        "--tunnel: the server's end has other addresses by now, {0}; start underpass again to take them"
    )]
    Moved(TunnelAddress),
}

impl NoTunnel {
    /// Whether its connection was refused by one end or the other: nobody is asked there who could mend that.
    fn is_of_the_login(&self) -> bool {
        let Self::Connect(error) = self else {
            return false;
        };
        matches!(
            error.origin(),
            ConnectError::Refused { .. } | ConnectError::HostKey(_)
        )
    }

    /// The commands that would help, for the log: one line each.
    pub(in crate::app) fn help(&self) -> impl Iterator<Item = &str> {
        let commands = match self {
            Self::MayNot { commands, .. } => &commands[..],
            _ => &[],
        };
        commands.iter().map(String::as_str)
    }
}

/// A tunnel that is open, and whose far end is set up.
pub(in crate::app) struct Opened {
    link: Arc<PacketLink>,
    /// The addresses of both ends.
    pub(in crate::app) address: TunnelAddress,
    /// The server's device.
    device: String,
    /// What is to be taken back; nothing, where an administrator has set it up.
    end: Option<FarEnd>,
    /// What a person should know of the server, one line each.
    warnings: Vec<String>,
}

/// Opens a tunnel as `wish` has it. Where that takes one more login, somebody is asked at most where it `may_ask`.
///
/// # Errors
/// [`NoTunnel`]; nothing is left on the server then.
pub(in crate::app) async fn open(
    wish: &Wish,
    carrier: &AnyCarrier,
    may_ask: bool,
) -> Result<Opened, NoTunnel> {
    let carrier = &carrier.for_packets(may_ask).await?;
    let mut refused = Vec::new();
    loop {
        let end = match wish.find(carrier, &refused).await? {
            Found::MayNot { why, commands } => return Err(NoTunnel::MayNot { why, commands }),
            Found::Prepared(prepared) => {
                let link = open_prepared(wish.kind, prepared.unit, carrier).await?;
                return Ok(Opened {
                    link: Arc::new(link),
                    address: prepared.address,
                    device: wish.kind.device(prepared.unit),
                    end: None,
                    warnings: Vec::new(),
                });
            }
            Found::End(end) => end,
        };
        match set_up(wish, &end, carrier).await {
            Err(NoTunnel::Refused(refusal @ TunnelRefusal::Device { .. })) => {
                debug!("{}: {refusal}", wish.kind.device(end.unit()));
                refused.push(end.unit());
                if refused.len() == DEVICES || wish.unit.is_some() {
                    return Err(refusal.into());
                }
            }
            other => return other,
        }
    }
}

/// Opens the device that an administrator has made: a session of ours that has just ended may hold it for a moment.
async fn open_prepared(
    kind: DeviceKind,
    unit: u32,
    carrier: &PacketCarrier,
) -> Result<PacketLink, TunnelRefusal> {
    for _ in 1..DEVICES {
        match carrier.open_packets(packets(kind), Some(unit)).await {
            Err(TunnelRefusal::Device { .. }) => sleep(PAUSES[0]).await,
            answer => return answer,
        }
    }
    carrier.open_packets(packets(kind), Some(unit)).await
}

async fn set_up(wish: &Wish, end: &FarEnd, carrier: &PacketCarrier) -> Result<Opened, NoTunnel> {
    end.prepare(carrier).await?;
    let link = match carrier
        .open_packets(packets(wish.kind), Some(end.unit()))
        .await
    {
        Ok(link) => link,
        Err(refusal) => {
            end.undo(carrier).await;
            return Err(refusal.into());
        }
    };
    let warnings = end.set_up(carrier).await?;
    for line in &warnings {
        warn!("--tunnel: {line}");
    }
    Ok(Opened {
        link: Arc::new(link),
        address: end.address(),
        device: wish.kind.device(end.unit()),
        end: Some(end.clone()),
        warnings,
    })
}

fn packets(kind: DeviceKind) -> PacketKind {
    match kind {
        DeviceKind::Tun => PacketKind::Ip,
        DeviceKind::Tap => PacketKind::Ethernet,
    }
}

/// A tunnel that is opened again when it was lost.
pub(in crate::app) struct Tunnel {
    mode: TunnelMode,
    wish: Wish,
    address: TunnelAddress,
    now: Mutex<Now>,
    /// To the far side, and from there.
    up: Traffic,
    down: Traffic,
}

/// What has gone one way.
#[derive(Default)]
struct Traffic {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    fn count(&self, packet: &[u8]) {
        self.packets.fetch_add(1, Relaxed);
        self.bytes.fetch_add(packet.len() as u64, Relaxed);
    }

    fn report(&self) -> report::Traffic {
        report::Traffic {
            packets: self.packets.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}

struct Now {
    link: Option<Arc<PacketLink>>,
    device: String,
    end: Option<FarEnd>,
    warnings: Vec<String>,
    /// Why there is none.
    trouble: Option<String>,
    /// Packets that did not get through former ones.
    dropped: u64,
    max_len: usize,
}

impl fmt::Display for Tunnel {
    /// For the log, when it is open.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TunnelAddress { v4, v6 } = self.address;
        let device = self.now().device.clone();
        let what = match self.mode {
            TunnelMode::Hybrid => "what is no TCP",
            TunnelMode::Full => "every packet",
            TunnelMode::Ethernet => "every frame",
        };
        write!(
            f,
            "--tunnel: {what} goes by {device} on the server: {} here, {} there",
            v4.ours, v4.far
        )?;
        match v6 {
            Some(v6) => write!(f, "; {} here, {} there", v6.ours, v6.far),
            None => Ok(()),
        }
    }
}

impl Tunnel {
    /// One that is open. It is opened again with the addresses that it has.
    pub(in crate::app) fn new(plan: &TunnelPlan, wish: Wish, first: Opened) -> Self {
        let address = first.address;
        Self {
            mode: plan.mode,
            wish: Wish {
                address: Some(address),
                ..wish
            },
            address,
            now: Mutex::new(Now {
                max_len: first.link.max_len(),
                link: Some(first.link),
                device: first.device,
                end: first.end,
                warnings: first.warnings,
                trouble: None,
                dropped: 0,
            }),
            up: Traffic::default(),
            down: Traffic::default(),
        }
    }

    /// The addresses of both ends.
    pub(in crate::app) fn address(&self) -> TunnelAddress {
        self.address
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // It is whole at every moment, whoever panicked.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes through it.
    pub(super) fn ways(&self) -> Ways {
        let TunnelAddress { v4, v6 } = self.address;
        let longest = self.now().max_len.min(self.wish.mtu.into());
        let ways = match self.mode {
            TunnelMode::Hybrid => Ways::hybrid(longest),
            TunnelMode::Full | TunnelMode::Ethernet => Ways::full(longest),
        };
        Ways {
            v6: v6.is_some(),
            ours: [Some(v4.ours.into()), v6.map(|v6| v6.ours.into())],
            ..ways
        }
    }

    /// Sends a packet or a frame. While there is no tunnel it is lost, as on a line that is down.
    pub(super) fn send(&self, packet: &[u8]) {
        let link = self.now().link.clone();
        match link {
            Some(link) => {
                self.up.count(packet);
                link.send(packet);
            }
            None => self.now().dropped += 1,
        }
    }

    /// Gives `deliver` what comes out of it, and opens it again when it was lost. Never ends.
    pub(super) async fn keep(
        &self,
        server: &Steady<AnyCarrier>,
        deliver: impl Fn(&[u8]),
    ) -> Infallible {
        loop {
            let link = self.now().link.clone();
            if let Some(link) = link {
                while let Some(packet) = link.recv().await {
                    self.down.count(&packet);
                    deliver(&packet);
                }
                let mut now = self.now();
                now.dropped += link.drops().total();
                now.link = None;
                debug!("the tunnel is lost");
            }
            self.open_again(server).await;
        }
    }

    async fn open_again(&self, server: &Steady<AnyCarrier>) {
        let [mut pause, longest] = PAUSES;
        loop {
            let state = server.state();
            let Some(carrier) = server.link() else {
                server.other_than(&state).await;
                continue;
            };
            let opened = tokio::select! {
                opened = self.opened(&carrier) => opened,
                // What was begun over the former one goes with it.
                _ = server.other_than(&state) => continue,
            };
            match opened {
                Ok(opened) => {
                    let mut now = self.now();
                    info!(
                        "--tunnel: {} on the server carries packets again",
                        opened.device
                    );
                    now.link = Some(opened.link);
                    now.device = opened.device;
                    now.end = opened.end;
                    now.warnings = opened.warnings;
                    now.trouble = None;
                    return;
                }
                // With the connection the tunnel goes as well, and that may be known a moment later.
                Err(error) => match timeout(NOTICED, server.other_than(&state)).await {
                    Ok(_) => debug!("{error}"),
                    Err(_) => {
                        self.tell(&error);
                        // Logins that fail one after the other would have the server shut us out.
                        if error.is_of_the_login() {
                            pause = longest;
                            server.other_than(&state).await;
                        }
                    }
                },
            }
            drop(carrier);
            tokio::select! {
                _ = server.other_than(&state) => [pause, _] = PAUSES,
                () = sleep(pause) => pause = longest.min(pause * 2),
            }
        }
    }

    async fn opened(&self, carrier: &AnyCarrier) -> Result<Opened, NoTunnel> {
        let opened = open(&self.wish, carrier, false).await?;
        match opened.address == self.address {
            true => Ok(opened),
            false => Err(NoTunnel::Moved(opened.address)),
        }
    }

    /// Once for each reason.
    fn tell(&self, error: &NoTunnel) {
        let text = error.to_string();
        let mut now = self.now();
        if now.trouble.as_ref() != Some(&text) {
            let when = match error.is_of_the_login() {
                true => {
                    " when the server is connected to anew; --carrier openssh has one login for TCP and packets"
                }
                false => "",
            };
            warn!("{text}; the tunnel is tried again{when}");
            now.trouble = Some(text);
        }
    }

    /// Takes the server's end back.
    pub(super) async fn end(&self, carrier: &AnyCarrier) {
        let end = self.now().end.take();
        let Some(end) = end else { return };
        let undo = async {
            match carrier.has_packets() {
                Some(own) => end.undo(&own).await,
                None => end.undo(carrier).await,
            }
        };
        if timeout(PATIENCE, undo).await.is_err() {
            debug!("the server does not answer; it takes its end of the tunnel back by itself");
        }
    }

    /// What there is to say of it.
    pub(super) fn report(&self) -> report::Tunnel {
        let now = self.now();
        let dropped = now.link.as_ref().map_or(0, |link| link.drops().total());
        let TunnelAddress { v4, v6 } = self.address;
        let shown = |v4: IpAddr, v6: Option<IpAddr>| {
            let both = std::iter::once(v4).chain(v6);
            both.map(|ip| ip.to_string()).collect()
        };
        report::Tunnel {
            mode: self.mode.name().to_owned(),
            is_up: now.link.is_some(),
            device: now.device.clone(),
            ours: shown(v4.ours.into(), v6.map(|v6| v6.ours.into())),
            far: shown(v4.far.into(), v6.map(|v6| v6.far.into())),
            up: self.up.report(),
            down: self.down.report(),
            dropped: now.dropped + dropped,
            why: now.trouble.clone(),
            warnings: now.warnings.clone(),
        }
    }
}
