//! What is no TCP: as packets through a tunnel, or datagrams and pings by whoever can; else it is refused.
//!
//! | file | idea |
//! |---|---|
//! | `tunnel` | the tunnel that stays: opened again whenever it was lost |
//! | `wished` | the one that a plan asks for, at the start |
//! | `far_side` | the server's end of it |
//! | `ends` | what the far side says, for applications |
//! | `talk` | who talks with whom, for the audit log |
//! | `upload` | the helper that a server may be sent |
//! | `inlet` | packets or frames, as the device has them |

mod ends;
pub mod far_side;
mod inlet;
mod talk;
mod tunnel;
pub(in crate::app) mod upload;
pub(in crate::app) mod wished;

use std::convert::Infallible;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use self::ends::{Ends, Ping};
use self::talk::Talk;
use super::leads::Leads;
use super::life::Passed;
use crate::app::control::report;
use crate::audit::Audit;
use crate::carrier::{AnyCarrier, Steady};
use crate::inlet::tun::{self, Datagram, Echo, Pings, Udp, Unreachable, Ways};
use crate::net::{FlowKey, Source, Target};
use crate::ping::{Pace, Pinger};
use crate::plan::{BesidePlan, NamePool, PingPlan, Plan};
use crate::udp::Proxy;

pub(in crate::app) use self::inlet::Inlet;
pub(in crate::app) use self::tunnel::Tunnel;
pub(super) use self::wished::TunnelError;
pub(in crate::app) use self::wished::Wished;

/// Carries it, as far as it can be carried.
pub(in crate::app) struct Beside {
    plan: BesidePlan,
    inlet: Inlet,
    tunnel: Wished,
    udp: Option<Proxy<Ends>>,
    pings: Option<Pinger<Ping, Ends>>,
    /// What is no flow, where that is written down.
    talk: Option<Arc<Talk>>,
    /// That something goes either way.
    passed: Arc<Passed>,
    /// Addresses that stand for names: no host has them.
    pool: Option<NamePool>,
}

impl Beside {
    /// As `plan` has it, with what came of its tunnel. Flows are written down in `audit`. `server` is a hop on the way of what it
    /// asks for us.
    pub(in crate::app) fn new(
        plan: &Plan,
        inlet: &Inlet,
        tunnel: Wished,
        server: Option<IpAddr>,
        audit: Option<&Arc<Audit>>,
    ) -> Self {
        let beside = plan.beside.clone();
        let answers = inlet.answers().filter(|_| tunnel.open().is_none());
        let talk = audit.cloned().map(|audit| Arc::new(Talk::new(audit)));
        let passed = Arc::<Passed>::default();
        let ends = answers.map(|answers| {
            Arc::new(Ends {
                answers: answers.clone(),
                audit: audit.cloned(),
                talk: talk.clone(),
                passed: Arc::clone(&passed),
            })
        });
        let udp = ends.clone().filter(|_| beside.udp);
        let pings = ends.zip(beside.pings);
        let made = Self {
            udp: udp
                .map(|ends| Proxy::new(ends).with_upload(beside.upload.clone().map(upload::of))),
            pings: pings.map(|(ends, by)| Pinger::new(pace(by), ends)),
            talk,
            passed,
            inlet: inlet.clone(),
            tunnel,
            pool: plan.dns.as_ref().and_then(|dns| dns.by_name),
            plan: beside,
        };
        inlet.carry(made.ways(server));
        made
    }

    fn ways(&self, server: Option<IpAddr>) -> Ways {
        if let Some(tunnel) = self.tunnel.open() {
            return tunnel.ways();
        }
        Ways {
            udp: match self.udp {
                Some(_) => Udp::Datagrams,
                None => Udp::Refuse,
            },
            pings: match self.pings {
                Some(_) => Pings::Ask,
                None => Pings::Silent,
            },
            hop: [
                server.filter(IpAddr::is_ipv4),
                server.filter(IpAddr::is_ipv6),
            ],
            ..Ways::default()
        }
    }

    /// Where it is noted that something goes either way.
    pub(super) fn passed(&self) -> Arc<Passed> {
        Arc::clone(&self.passed)
    }

    /// Something has come that is no flow. Never waits.
    pub(super) fn take(&self, beside: tun::Beside<'_>, leads: &impl Leads) {
        match beside {
            tun::Beside::Packet(packet) => self.take_packet(packet),
            tun::Beside::Datagram(datagram) => self.take_datagram(&datagram, leads),
            tun::Beside::Echo(echo) => self.take_echo(&echo, leads),
        }
    }

    fn take_packet(&self, packet: &[u8]) {
        let Some(tunnel) = self.tunnel.open() else {
            return;
        };
        let is_for_a_name =
            self.pool.is_some() && destination(packet).is_some_and(|ip| self.names(ip));
        if !is_for_a_name {
            // Before its answer may have come.
            self.note(packet);
            tunnel.send(packet);
        }
    }

    fn deliver(&self, packet: &[u8]) {
        if self.inlet.deliver(packet) {
            self.note(packet);
        }
    }

    fn note(&self, packet: &[u8]) {
        let Some(packet) = self.inlet.ip_packet(packet) else {
            return;
        };
        if destination(packet).is_some_and(is_of_somebody) {
            self.passed.note();
        }
        if let Some(talk) = &self.talk {
            talk.packet(packet);
        }
    }

    fn take_datagram(&self, datagram: &Datagram<'_>, leads: &impl Leads) {
        let (source, target) = (datagram.source, datagram.target);
        let far = self.far(target, leads);
        let key = FlowKey { source, target };
        let is_taken = self
            .udp
            .as_ref()
            .zip(far)
            .is_some_and(|(udp, far)| udp.handle_datagram(key, far.0, datagram.payload));
        if is_taken {
            self.passed.note();
        }
        if let Some(answers) = self.inlet.answers().filter(|_| !is_taken) {
            answers.unreachable(datagram, Unreachable::Port);
        }
    }

    fn take_echo(&self, echo: &Echo<'_>, leads: &impl Leads) {
        let far = self.far(Target(SocketAddr::new(echo.target, 0)), leads);
        if let Some((pings, far)) = self.pings.as_ref().zip(far) {
            let far = far.0.ip();
            self.passed.note();
            if let Some(talk) = &self.talk {
                talk.echo(echo.source, echo.target, echo.payload.len(), Some(far));
            }
            pings.handle_request(far, Ping::of(echo));
        }
    }

    /// Whom the server knows as `target`.
    fn far(&self, target: Target, leads: &impl Leads) -> Option<Target> {
        leads
            .at_server(target)
            .filter(|_| !self.names(target.0.ip()))
    }

    /// Whether `ip` stands for a name: nobody but the server knows for which host.
    fn names(&self, ip: IpAddr) -> bool {
        let mut nets = self.pool.iter().flat_map(NamePool::nets);
        nets.any(|net| net.contains(&ip))
    }

    /// Carries it as long as it is polled.
    pub(in crate::app) async fn run(&self, server: &Steady<AnyCarrier>) -> Infallible {
        let tunnel = async {
            if let Some(tunnel) = self.tunnel.open() {
                tunnel.keep(server, |packet| self.deliver(packet)).await;
            }
        };
        let udp = async {
            if let Some(udp) = &self.udp {
                udp.run(server).await;
            }
        };
        let pings = async {
            match (&self.pings, self.plan.pings) {
                (Some(pings), Some(PingPlan::Server)) => {
                    pings.run_exec(server).await;
                }
                (Some(pings), Some(PingPlan::Probe)) => {
                    let nobody = Source(([0, 0, 0, 0], 0).into());
                    pings.run_probe(server, nobody).await;
                }
                _ => {}
            }
        };
        let talk = async {
            if let Some(talk) = &self.talk {
                talk.keep().await;
            }
        };
        tokio::join!(tunnel, udp, pings, talk);
        pending().await
    }

    /// Takes the server's end of the tunnel back, while there is a connection.
    pub(super) async fn end(&self, server: &Steady<AnyCarrier>) {
        if let Some((tunnel, carrier)) = self.tunnel.open().zip(server.link()) {
            tunnel.end(&carrier).await;
        }
    }

    /// What there is to say of it.
    pub(super) fn report(&self) -> report::Beside {
        let by_tunnel = || "by the tunnel".to_owned();
        let tunnel = self.tunnel.open().map(Tunnel::report);
        let udp = match (&tunnel, &self.udp) {
            (Some(_), _) => by_tunnel(),
            (None, Some(udp)) => udp.state().to_string(),
            (None, None) => String::new(),
        };
        let ping = match (&tunnel, &self.pings) {
            (Some(_), _) => by_tunnel(),
            (None, Some(pings)) => match self.plan.pings {
                Some(PingPlan::Probe) => "by TCP ports".to_owned(),
                _ => pings.state().to_string(),
            },
            (None, None) => String::new(),
        };
        report::Beside {
            tunnel,
            no_tunnel: self.tunnel.why(),
            udp,
            ping,
        }
    }
}

fn pace(by: PingPlan) -> Pace {
    match by {
        PingPlan::Server => Pace::Steady,
        PingPlan::Probe => Pace::Slowing,
    }
}

/// Whether packets to `ip` mean that somebody uses the network: devices speak to their link by themselves.
fn is_of_somebody(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !(v4.is_multicast() || v4.is_broadcast() || v4.is_link_local()),
        IpAddr::V6(v6) => !(v6.is_multicast() || v6.is_unicast_link_local()),
    }
}

/// Whom an IP packet is for.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(packet.get(16..20)?.first_chunk::<4>().copied()?.into()),
        6 => Some(packet.get(24..40)?.first_chunk::<16>().copied()?.into()),
        _ => None,
    }
}
