//! Which carrier is taken, and how the user's own ssh is run.

use super::ssh_config::Source;
use super::{PlanError, SshPlan, TunnelMode};
use crate::cli::CarrierArg;

/// What carries the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarrierPlan {
    /// The one to take.
    pub kind: CarrierKind,
    /// Why this one, for the log.
    pub why: String,
    /// How ssh is run, if it is.
    pub client: SshClient,
}

/// A carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarrierKind {
    /// The SSH client that is built in, over the russh library.
    Russh,
    /// The user's own ssh.
    Openssh,
}

impl CarrierKind {
    /// As `--carrier` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Russh => "russh",
            Self::Openssh => "openssh",
        }
    }
}

/// The user's own ssh: what was typed for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshClient {
    /// Arguments of ssh(1) as they were typed for underpass, but for the host.
    pub arguments: Vec<String>,
}

impl CarrierPlan {
    /// For packets there is no other way than the installed ssh. TCP beside them goes as ever, by a connection of its own, where
    /// there may be more than one.
    pub(super) fn for_tunnel(
        mode: TunnelMode,
        asked: CarrierArg,
        server: &SshPlan,
        source: Source,
        client: SshClient,
    ) -> Result<Self, PlanError> {
        if source == Source::Files {
            return Err(PlanError::TunnelWithoutSsh);
        }
        let may_be_two = !server.is_one_connection();
        match asked {
            CarrierArg::Russh if !may_be_two => Err(PlanError::TunnelOverRussh),
            CarrierArg::Auto if mode != TunnelMode::Hybrid || !may_be_two => Ok(Self {
                kind: CarrierKind::Openssh,
                why: "--tunnel".to_owned(),
                client,
            }),
            _ => Ok(Self::new(asked, server, source, client)),
        }
    }

    /// The built-in client, unless ssh is installed and something is configured that only ssh honours.
    pub(super) fn new(
        asked: CarrierArg,
        server: &SshPlan,
        source: Source,
        client: SshClient,
    ) -> Self {
        let mut unheeded = server.servers().flat_map(|server| &server.unheeded);
        let unheeded = unheeded.find(|option| option.is_by_ssh);
        let method = server
            .servers()
            .find_map(|server| server.only_by_ssh.as_ref());
        let only_ssh = unheeded
            .map(|option| format!("only ssh honours {}", option.option))
            .or_else(|| method.map(|what| format!("only ssh {what}")));
        let (kind, why) = match (asked, only_ssh, source) {
            (CarrierArg::Russh, ..) => (CarrierKind::Russh, "--carrier".to_owned()),
            (CarrierArg::Openssh, ..) => (CarrierKind::Openssh, "--carrier".to_owned()),
            (CarrierArg::Auto, Some(why), Source::Ssh) => (CarrierKind::Openssh, why),
            (CarrierArg::Auto, Some(_), Source::Files) => {
                (CarrierKind::Russh, "no ssh is installed".to_owned())
            }
            (CarrierArg::Auto, None, _) => (
                CarrierKind::Russh,
                "less CPU for every byte; nothing configured asks for ssh itself".to_owned(),
            ),
        };
        Self { kind, why, client }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Route;
    use super::super::ssh_config::Unheeded;
    use super::*;

    fn taken(asked: CarrierArg, is_unheeded: bool, source: Source) -> CarrierKind {
        let mut server = SshPlan::new("h", 22, "me");
        if is_unheeded {
            server.unheeded.push(Unheeded {
                option: "Made".into(),
                value: "up".into(),
                instead: "",
                is_by_ssh: true,
            });
        }
        CarrierPlan::new(asked, &server, source, SshClient::default()).kind
    }

    #[test]
    fn what_was_asked_for_is_taken() {
        for is_unheeded in [false, true] {
            for source in [Source::Ssh, Source::Files] {
                let taken = |asked| taken(asked, is_unheeded, source);
                assert_eq!(taken(CarrierArg::Russh), CarrierKind::Russh);
                assert_eq!(taken(CarrierArg::Openssh), CarrierKind::Openssh);
            }
        }
    }

    #[test]
    fn ssh_is_taken_where_only_it_will_do() {
        let taken = |is_unheeded, source| taken(CarrierArg::Auto, is_unheeded, source);
        assert_eq!(taken(false, Source::Ssh), CarrierKind::Russh);
        assert_eq!(taken(true, Source::Ssh), CarrierKind::Openssh);
        assert_eq!(taken(true, Source::Files), CarrierKind::Russh);
    }

    #[test]
    fn what_ssh_does_not_do_either_is_no_reason_to_take_it() {
        let mut server = SshPlan::new("h", 22, "me");
        server.unheeded.push(Unheeded {
            option: "PermitLocalCommand".into(),
            value: "yes".into(),
            instead: "",
            is_by_ssh: false,
        });
        let client = SshClient::default();
        let plan = CarrierPlan::new(CarrierArg::Auto, &server, Source::Ssh, client);
        assert_eq!(plan.kind, CarrierKind::Russh);
    }

    #[test]
    fn tcp_goes_as_ever_beside_a_tunnel_where_it_may() {
        let taken = |mode, asked, connections, source| {
            let mut server = SshPlan::new("h", 22, "me");
            server.connections = connections;
            let plan = CarrierPlan::for_tunnel(mode, asked, &server, source, SshClient::default());
            plan.map(|plan| plan.kind)
                .map_err(|error| error.to_string())
        };
        let (auto, hybrid) = (CarrierArg::Auto, TunnelMode::Hybrid);
        let kind = |mode, asked, connections| taken(mode, asked, connections, Source::Ssh).unwrap();
        assert_eq!(kind(hybrid, auto, None), CarrierKind::Russh);
        assert_eq!(kind(hybrid, auto, Some(1)), CarrierKind::Openssh);
        // Nothing goes beside packets then.
        assert_eq!(kind(TunnelMode::Full, auto, None), CarrierKind::Openssh);
        assert_eq!(kind(TunnelMode::Ethernet, auto, None), CarrierKind::Openssh);
        assert_eq!(
            kind(hybrid, CarrierArg::Openssh, None),
            CarrierKind::Openssh
        );
        assert_eq!(kind(hybrid, CarrierArg::Russh, None), CarrierKind::Russh);
        let refused = taken(hybrid, CarrierArg::Russh, Some(1), Source::Ssh).unwrap_err();
        assert!(refused.contains("--connections 1"), "{refused}");
        let refused = taken(hybrid, auto, None, Source::Files).unwrap_err();
        assert!(refused.contains("openssh-client"), "{refused}");
    }

    #[test]
    fn ssh_is_taken_where_only_it_can_log_in() {
        let way = SshPlan {
            only_by_ssh: Some("logs in by HostbasedAuthentication".into()),
            ..SshPlan::new("gw", 22, "me")
        };
        // A jump host counts too.
        let server = SshPlan {
            route: Route::Jump(Box::new(way)),
            ..SshPlan::new("h", 22, "me")
        };
        let plan =
            |source| CarrierPlan::new(CarrierArg::Auto, &server, source, SshClient::default());
        let taken = plan(Source::Ssh);
        assert_eq!(taken.kind, CarrierKind::Openssh);
        assert_eq!(taken.why, "only ssh logs in by HostbasedAuthentication");
        assert_eq!(plan(Source::Files).kind, CarrierKind::Russh);
    }
}
