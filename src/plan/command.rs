//! What a command that connects to the server (ProxyCommand) may lack while everything is captured: nobody knows beforehand where it
//! connects to, and which names it looks up.

use super::{CapturePlan, DnsPlan, PlanWarning, SshPlan};

/// What there is to say of it; `dns` is what programs of this host are answered.
pub(super) fn warnings(
    ssh: &SshPlan,
    capture: &CapturePlan,
    dns: Option<&DnsPlan>,
) -> Vec<PlanWarning> {
    let Some((nearest, _)) = ssh.commanded() else {
        return Vec::new();
    };
    let mut nets = capture.subnets.iter().map(|subnet| subnet.net);
    let all = nets.find(|net| net.prefix_len() == 0);
    let under_default = all.map(|subnet| PlanWarning::CommandUnderDefault {
        subnet,
        host: nearest.alias.clone(),
    });
    let all_names = dns.filter(|dns| dns.is_all);
    let under_names = all_names.map(|_| PlanWarning::CommandUnderNames {
        host: nearest.alias.clone(),
    });
    under_default.into_iter().chain(under_names).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Route;
    use super::*;

    #[test]
    fn a_command_is_warned_of_where_all_names_are_the_far_sides() {
        let mut ssh = SshPlan::new("prod", 22, "me");
        let capture = CapturePlan::default();
        let mut dns = DnsPlan {
            is_all: true,
            ..DnsPlan::default()
        };
        assert_eq!(warnings(&ssh, &capture, Some(&dns)), []);
        ssh.route = Route::Command("ssh -W prod:22 gw".into());
        let warned = warnings(&ssh, &capture, Some(&dns));
        let expected = PlanWarning::CommandUnderNames {
            host: "prod".into(),
        };
        assert_eq!(warned, [expected]);
        let line = warned[0].to_string();
        assert!(
            line.ends_with("--dns DOMAIN") && line.lines().count() == 1,
            "{line}"
        );
        dns.is_all = false;
        assert_eq!(warnings(&ssh, &capture, Some(&dns)), []);
        assert_eq!(warnings(&ssh, &capture, None), []);
    }
}
