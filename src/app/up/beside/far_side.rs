//! `--tunnel`: has the server's end of the tunnel set up and taken back, by commands that are run there.
//!
//! In this order: [`Wish::find`], [`FarEnd::prepare`], then the carrier opens the device [`FarEnd::unit`], then
//! [`FarEnd::set_up`], and at the end [`FarEnd::undo`], before the connection is closed. After a reconnect all of it again:
//! what is left of the lost connection is taken back then.

use ipnet::IpNet;
use thiserror::Error;
use tracing::{debug, info, warn};

use crate::carrier::examine::{Answer, Request};
use crate::carrier::{AnyCarrier, PacketCarrier};
use crate::plan::far_side::{
    self, DeviceKind, FarSide, MayNot, Prepared, Probe, ProbeError, Report, ReportError, Rights,
    TunnelAddress, Verb, Way,
};

/// Runs a command on the server.
pub trait Exec {
    /// What it prints, to its end.
    fn exec(&self, command: &str) -> impl Future<Output = Answer> + Send;
}

impl Exec for AnyCarrier {
    async fn exec(&self, command: &str) -> Answer {
        self.ask(Request::Exec(command)).await
    }
}

impl Exec for PacketCarrier {
    async fn exec(&self, command: &str) -> Answer {
        self.ask(Request::Exec(command)).await
    }
}

/// Why the server's end is not as it shall be.
#[derive(Debug, Error)]
pub enum FarSideError {
    /// No command is run.
    #[error(
        "--tunnel: the SSH server runs no command that could set up its end of the tunnel; permit exec for this login"
    )]
    NoExec,
    /// No answer.
    #[error("--tunnel: the SSH server did not answer in time")]
    Silent,
    /// Not what was asked.
    #[error("--tunnel: {0}")]
    Probe(#[from] ProbeError),
    /// Not done.
    #[error("--tunnel: {0}")]
    Report(#[from] ReportError),
    /// No free addresses.
    #[error(
        "--tunnel: there is no free pair of addresses for it; name one, for example --tunnel-address 10.255.255.1,10.255.255.2"
    )]
    NoAddress,
    /// A device that somebody has.
    #[error(
        "--tunnel-unit: the server has a device {0} already; name another number, or leave it out"
    )]
    UnitTaken(String),
    /// Addresses that somebody has.
    #[error(
        "--tunnel-address {0}: this host or the server has a route to it already; name another pair, or leave it out"
    )]
    Taken(TunnelAddress),
}

/// What is wanted of the server's end.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Whose it is: the same for all connections of a run, and of no other run.
    pub id: u64,
    /// What the device carries.
    pub kind: DeviceKind,
    /// The number of the server's device, if it was named.
    pub unit: Option<u32>,
    /// The addresses, if they were named.
    pub address: Option<TunnelAddress>,
    /// Whether IPv6 goes through the tunnel, where the server has it.
    pub ipv6: bool,
    /// Networks here whose packets come through the tunnel beside our own address.
    pub back: Vec<IpNet>,
    /// The device's MTU.
    pub mtu: u16,
    /// Hosts over there may connect to here.
    pub inbound: bool,
    /// What this host has routes to, but for those of its own tunnel.
    pub taken: Vec<IpNet>,
}

/// What can be had.
#[derive(Clone, Debug)]
pub enum Found {
    /// One to set up.
    End(Box<FarEnd>),
    /// One that an administrator has set up: only to be opened.
    Prepared(Prepared),
    /// None.
    MayNot {
        /// Why.
        why: MayNot,
        /// What an administrator of the server runs as root.
        commands: Vec<String>,
    },
}

/// A server's end of a tunnel.
#[derive(Clone, Debug)]
pub struct FarEnd {
    side: FarSide,
    rights: Rights,
    probe: Probe,
}

impl Wish {
    /// Asks the server what can be had. `refused` are devices that it would not open, and others were tried then.
    ///
    /// # Errors
    /// [`FarSideError`].
    pub async fn find(&self, server: &impl Exec, refused: &[u32]) -> Result<Found, FarSideError> {
        let mut probe = ask(server).await?;
        let mut way = probe.way(self.kind);
        if let Some(unit) = self.unit
            && probe.has(self.kind, unit)
            && matches!(way, Way::Setup(_))
        {
            // Ours, perhaps, of a connection that is lost here and not yet there. Another's stays as it is.
            self.end(unit, probe)?.undo(server).await;
            probe = ask(server).await?;
            way = probe.way(self.kind);
        }
        if let Way::Prepared(prepared) = way {
            self.tell(&prepared);
            return Ok(Found::Prepared(prepared));
        }
        let end = self.end(self.free_unit(&probe, refused)?, probe)?;
        Ok(match way {
            Way::MayNot(why) => Found::MayNot {
                why,
                commands: far_side::by_hand(&end.side, &end.probe),
            },
            _ => Found::End(Box::new(end)),
        })
    }

    fn free_unit(&self, probe: &Probe, refused: &[u32]) -> Result<u32, FarSideError> {
        match self.unit {
            Some(unit) if probe.has(self.kind, unit) => {
                Err(FarSideError::UnitTaken(self.kind.device(unit)))
            }
            Some(unit) => Ok(unit),
            None => Ok(probe.unit(self.kind, refused)),
        }
    }

    fn end(&self, unit: u32, probe: Probe) -> Result<FarEnd, FarSideError> {
        let side = FarSide {
            id: self.id,
            unit,
            kind: self.kind,
            address: self.address(&probe)?,
            back: self.back.clone(),
            mtu: self.mtu,
            inbound: self.inbound,
        };
        Ok(FarEnd {
            side,
            rights: probe.rights,
            probe,
        })
    }

    /// The addresses that were named may be those of a connection that is lost, which go with it.
    fn address(&self, probe: &Probe) -> Result<TunnelAddress, FarSideError> {
        let taken: Vec<IpNet> = probe.taken.iter().chain(&self.taken).copied().collect();
        let ipv6 = self.ipv6 && probe.ipv6;
        let spare = || {
            let spare = far_side::spare_address(self.id, &taken, ipv6);
            spare.ok_or(FarSideError::NoAddress)
        };
        match self.address {
            Some(address) if !address.is_free(&others(&taken, address)) => {
                Err(FarSideError::Taken(address))
            }
            // One pair was named, and the other is chosen.
            Some(address) if ipv6 && address.v6.is_none() => Ok(TunnelAddress {
                v6: spare()?.v6,
                ..address
            }),
            Some(address) => Ok(address),
            None => spare(),
        }
    }

    fn tell(&self, prepared: &Prepared) {
        let device = self.kind.device(prepared.unit);
        info!("--tunnel: {device} on the server is ready for this login");
        if self.address.is_some_and(|named| named != prepared.address) {
            warn!(
                "--tunnel-address is left out: {device} on the server has {}",
                prepared.address
            );
        }
    }
}

impl FarEnd {
    /// The number of the device that is to be opened.
    pub fn unit(&self) -> u32 {
        self.side.unit
    }

    /// The addresses of both ends.
    pub fn address(&self) -> TunnelAddress {
        self.side.address
    }

    /// What is set up, for people, in the words of ip(8).
    pub fn shown(&self) -> Vec<String> {
        self.side.shown(&self.probe)
    }

    /// Has the device made, where sshd may not do that for this login. It goes again when nobody opens it.
    ///
    /// # Errors
    /// [`FarSideError`].
    pub async fn prepare(&self, server: &impl Exec) -> Result<(), FarSideError> {
        if self.rights == Rights::Root {
            return Ok(());
        }
        let owner = self.probe.uid;
        self.run(server, Verb::Prepare { owner }).await.map(drop)
    }

    /// Sets the device up that the carrier has opened. What a person should know of it is handed back, one line each.
    ///
    /// # Errors
    /// [`FarSideError`]; nothing is left of it then.
    pub async fn set_up(&self, server: &impl Exec) -> Result<Vec<String>, FarSideError> {
        let report = self.run(server, Verb::Setup).await?;
        let device = self.side.device();
        let warnings = report.dropping.iter().map(|chain| drops(chain, &device));
        Ok(warnings.collect())
    }

    /// What the server's firewall does to it, as far as that was seen beforehand, one line each.
    pub fn dropped_there(&self) -> impl Iterator<Item = String> {
        let device = self.side.device();
        let chains = self.probe.dropping.iter();
        chains.map(move |chain| drops(chain, &device))
    }

    /// Takes it back. Where that fails the server does so by itself when the device is closed.
    pub async fn undo(&self, server: &impl Exec) {
        if let Err(error) = self.run(server, Verb::Undo).await {
            debug!("{error}; the server takes its end back by itself");
        }
    }

    async fn run(&self, server: &impl Exec, verb: Verb) -> Result<Report, FarSideError> {
        let command = self.side.command(verb, self.rights);
        Ok(Report::read(&said(server.exec(&command).await)?)?)
    }
}

async fn ask(server: &impl Exec) -> Result<Probe, FarSideError> {
    let text = said(server.exec(&far_side::probe_command()).await)?;
    Ok(Probe::read(&text)?)
}

fn drops(chain: &str, device: &str) -> String {
    let commands = far_side::let_pass(chain, device);
    format!(
        "the server's firewall (nft chain {chain}) drops what none of its rules lets pass; let {device} pass, as root there: {commands}"
    )
}

/// Without the routes to the ends themselves, which are those of a tunnel that was lost.
fn others(taken: &[IpNet], address: TunnelAddress) -> Vec<IpNet> {
    let ends: Vec<IpNet> = address.ends().map(IpNet::from).collect();
    let others = taken.iter().filter(|net| !ends.contains(net));
    others.copied().collect()
}

fn said(answer: Answer) -> Result<String, FarSideError> {
    match answer {
        Answer::Granted(output) => Ok(String::from_utf8_lossy(&output).into_owned()),
        Answer::Refused | Answer::NoSession => Err(FarSideError::NoExec),
        Answer::Silent => Err(FarSideError::Silent),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Says what it was told to say, in this order.
    struct Server(Mutex<Vec<Answer>>);

    impl Server {
        fn new(answers: &[&str]) -> Self {
            let answers = answers.iter().rev();
            let answers = answers.map(|text| Answer::Granted(text.as_bytes().to_vec()));
            Self(Mutex::new(answers.collect()))
        }
    }

    impl Exec for Server {
        async fn exec(&self, _: &str) -> Answer {
            self.0.lock().unwrap().pop().unwrap_or(Answer::Refused)
        }
    }

    fn wish() -> Wish {
        Wish {
            id: 0,
            kind: DeviceKind::Tun,
            unit: None,
            address: None,
            ipv6: true,
            back: Vec::new(),
            mtu: 1500,
            inbound: false,
            taken: vec!["198.19.128.0/30".parse().unwrap()],
        }
    }

    const PROBE: &str = "underpass-probe 1\nuid 0\nhas ip\nhas tun\nworks nft\ndisable6 1\n\
        link 9: tun64: <UP>\nroute4 198.19.128.4/30 dev x\nend\n";

    #[tokio::test]
    async fn neither_side_has_a_route_to_the_addresses() {
        let server = Server::new(&[PROBE, "done\n", "failed link: no\n", ""]);
        let Ok(Found::End(end)) = wish().find(&server, &[65]).await else {
            panic!("root may");
        };
        assert_eq!(end.unit(), 66);
        assert_eq!(end.address().to_string(), "198.19.128.9,198.19.128.10");
        assert!(end.shown()[1].starts_with("ip addr add 198.19.128.10 peer 198.19.128.9"));
        end.prepare(&server).await.unwrap();
        assert_eq!(end.set_up(&server).await.unwrap(), Vec::<String>::new());
        let error = end.set_up(&server).await.unwrap_err().to_string();
        assert!(error.contains("link: no"), "{error}");
        end.undo(&server).await;
    }

    #[tokio::test]
    async fn addresses_that_were_named_are_taken_or_refused() {
        let mut wish = wish();
        let pair = "198.19.128.13,198.19.128.14";
        wish.address = Some(pair.parse().unwrap());
        // Its routes on a connection that was lost are no reason, and the pair of IPv6 is chosen for it.
        let lost = PROBE.replace(
            "disable6 1\n",
            "disable6 0\nroute4 198.19.128.13 dev tun64\n",
        );
        let found = wish.find(&Server::new(&[&lost]), &[]).await;
        let Ok(Found::End(end)) = found else {
            panic!("{found:?}");
        };
        let chosen = end.address().to_string();
        assert_eq!(
            chosen,
            format!("{pair},fd75:6e64:6572:7074::1,fd75:6e64:6572:7074::2")
        );
        // Those of this host, and of a network of the server's.
        for taken in ["198.19.128.1,198.19.128.9", "198.19.128.5,198.19.128.6"] {
            wish.address = Some(taken.parse().unwrap());
            let error = wish.find(&Server::new(&[PROBE]), &[]).await.unwrap_err();
            assert!(matches!(error, FarSideError::Taken(_)), "{error}");
        }
    }

    /// Whoever it belongs to.
    #[tokio::test]
    async fn a_device_that_is_there_is_not_taken() {
        let mut wish = wish();
        wish.unit = Some(64);
        let stays = [PROBE, "done\n", PROBE];
        let error = wish.find(&Server::new(&stays), &[]).await.unwrap_err();
        assert!(matches!(error, FarSideError::UnitTaken(_)), "{error}");
        let is_ours = PROBE.replace("link 9: tun64: <UP>\n", "");
        let goes = [PROBE, "done\n", &is_ours];
        let found = wish.find(&Server::new(&goes), &[]).await;
        assert!(matches!(found, Ok(Found::End(end)) if end.unit() == 64));
        wish.unit = Some(65);
        let found = wish.find(&Server::new(&[PROBE]), &[]).await;
        assert!(matches!(found, Ok(Found::End(end)) if end.unit() == 65));
    }

    #[tokio::test]
    async fn who_may_not_gets_commands() {
        let probe = PROBE.replace("uid 0", "uid 1000\nuser alice");
        let found = wish().find(&Server::new(&[&probe]), &[]).await;
        let Ok(Found::MayNot { why, commands }) = found else {
            panic!("{found:?}");
        };
        assert_eq!(why, MayNot::Rights);
        assert_eq!(commands[0], "ip tuntap add dev tun65 mode tun user alice");
    }

    #[tokio::test]
    async fn no_answer_is_an_error_of_one_line() {
        for server in [
            Server::new(&[]),
            Server::new(&["Hello\n"]),
            Server::new(&["underpass-probe 1\n"]),
        ] {
            let error = wish().find(&server, &[]).await.unwrap_err().to_string();
            assert!(
                error.starts_with("--tunnel: ") && !error.contains('\n'),
                "{error}"
            );
        }
    }
}
