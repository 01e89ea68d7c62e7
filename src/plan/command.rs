//! What a command that connects to the server (ProxyCommand) may lack while everything is captured: nobody knows beforehand where it
//! connects to, and which names it looks up but for those that are hosts among its words.

use super::{CapturePlan, DnsPlan, PlanWarning, SshPlan};

/// So many hosts are looked for in a command.
const MAX_HOSTS: usize = 64;

/// The words of `command` that are written as hosts are: `me@HOST`, `HOST:22`, `https://HOST/`, also behind a `=`, and what has a dot. A bare
/// word may be anything, and names that are not looked up on the way stay where they are.
pub(super) fn hosts(command: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| c.is_whitespace() || "'\"`=,;|&()<>".contains(c);
    let program_apart = command.trim_start().split(ends).skip(1);
    program_apart.filter_map(host).take(MAX_HOSTS)
}

fn host(word: &str) -> Option<&str> {
    let (is_url, rest) = match word.split_once("://") {
        Some((_, rest)) => (true, rest.split('/').next()?),
        None => (false, word),
    };
    let (has_user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => (true, rest),
        None => (false, rest),
    };
    let (has_port, host) = match rest.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (true, host),
        _ => (false, rest),
    };
    // As ssh -W has it, of any host.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_written_as_one = is_url || has_user || has_port || host.contains('.');
    (is_written_as_one && may_be_a_name(host)).then_some(host)
}

/// Neither a number or an address, nor an option or a path.
fn may_be_a_name(word: &str) -> bool {
    let is_of_a_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    word.chars().all(is_of_a_name)
        && !word.starts_with(['-', '.'])
        && word.contains(char::is_alphabetic)
}

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
    fn hosts_are_told_from_other_words() {
        for (command, expected) in [
            (
                "ssh -W [bastion]:22 [::1]:22 me@gw.example.com:2200",
                &["bastion", "gw.example.com"][..],
            ),
            ("sh -c 'nc gw.example.com 22'", &["gw.example.com"]),
            (
                "tool --via=https://proxy.büro.example:3128/x?y me@gw 192.0.2.1",
                &["proxy.büro.example", "gw"],
            ),
            (
                "/home/alice/bin/gw.sh vault ssh --cluster=prod -i ~/.ssh/id.pem 22",
                &[],
            ),
            ("gw.example.com", &[]),
            ("", &[]),
        ] {
            assert_eq!(hosts(command).collect::<Vec<_>>(), expected, "{command}");
        }
        assert_eq!(hosts(&"me@w ".repeat(1000)).count(), MAX_HOSTS);
    }

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
