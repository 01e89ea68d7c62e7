//! Whether there would be a tunnel of whole packets (`--tunnel`).

use super::check::Check;
use crate::carrier::ConnectError;
use crate::carrier::examine::{Answer, Tunnel};
use crate::plan::far_side::{DeviceKind, Probe, Rights, Way, let_pass};

/// The check of the server's end.
const SETUP: &str = "tun-setup";

/// Whether the server makes tunnels of whole packets. Nothing needs one, unless it `is_wanted`; `restrict` of a key does not forbid
/// them.
pub(super) fn permitted(
    answer: &Result<Tunnel, ConnectError>,
    terminal: &Answer,
    is_wanted: bool,
) -> Check {
    let tunnel = match answer {
        Ok(tunnel) => tunnel,
        Err(error) => {
            let why = Check::error("tun", error).found;
            return Check::skip(
                "tun",
                format!(
                    "only the installed ssh can ask for one, by a login that asks nobody: {why}"
                ),
            );
        }
    };
    let lacks = |found: &str| match is_wanted {
        true => Check::fail(
            "tun",
            format!("{found}, which --tunnel needs"),
            "have it permitted there (PermitTunnel yes in sshd_config, then: systemctl reload ssh), or take --udp --ping",
        ),
        false => Check::pass("tun", format!("{found}; nothing needs it")),
    };
    let found = match tunnel {
        Tunnel::Permitted => {
            "ssh -w is permitted (PermitTunnel); a device was asked for that cannot be, and none was made"
        }
        Tunnel::Made => "ssh -w is permitted (PermitTunnel); a device was made there, and went",
        Tunnel::Forbidden => {
            return lacks("ssh -w is not permitted (PermitTunnel)");
        }
        Tunnel::Unknown => {
            return lacks("the server knows no tunnel as of ssh -w");
        }
        Tunnel::Refused => return Check::skip("tun", "the server does not say why it makes none"),
        Tunnel::Silent => return Check::skip("tun", "the server does not answer in time"),
        Tunnel::Unheard => {
            return Check::skip(
                "tun",
                "the installed ssh is older than 8.5, and does not tell",
            );
        }
    };
    match terminal {
        Answer::Refused if !is_wanted => Check::warn(
            "tun",
            format!("{found}; and this login seems to be restricted"),
            "`restrict` of a key does not forbid tunnels: PermitTunnel no, in a Match block where others need them",
        ),
        _ => Check::pass("tun", found),
    }
}

/// Whether the server's end of a tunnel can be set up by this login, from what the server says of itself.
pub(super) fn set_up(answer: &Answer, kind: DeviceKind) -> Check {
    let output = match answer {
        Answer::Granted(output) => String::from_utf8_lossy(output),
        Answer::Refused | Answer::NoSession => {
            return Check::fail(
                SETUP,
                "no command is run, and the server's end of the tunnel has to be set up by some",
                "permit exec for this login (no forced command, MaxSessions above 0)",
            );
        }
        Answer::Silent => return Check::skip(SETUP, "the server did not answer"),
    };
    let probe = match Probe::read(&output) {
        Ok(probe) => probe,
        Err(error) => {
            return Check::fail(
                SETUP,
                error.to_string(),
                "give --tunnel a login with a usual shell",
            );
        }
    };
    let found = match probe.way(kind) {
        Way::Setup(Rights::Sudo) => {
            "this login sets the server's end of the tunnel up, with sudo".to_owned()
        }
        Way::Setup(_) => "this login sets the server's end of the tunnel up".to_owned(),
        Way::Prepared(prepared) => {
            let device = kind.device(prepared.unit);
            return Check::pass(SETUP, format!("{device} there is ready for this login"));
        }
        Way::MayNot(why) => {
            return Check::fail(
                SETUP,
                why.to_string(),
                "up --tunnel prints what an administrator runs there once; or take --udp --ping",
            );
        }
    };
    match probe.dropping.first() {
        None => Check::pass(SETUP, found),
        Some(chain) => Check::warn(
            SETUP,
            format!(
                "{found}; but the server's firewall (nft chain {chain}) drops what none of its rules lets pass"
            ),
            format!(
                "let tunnels pass, as root there: {}",
                let_pass(chain, &format!("'\"{}*\"'", kind.word()))
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict::{Fail, Pass, Skip, Warn};
    use super::*;

    #[test]
    fn a_tunnel_is_told_as_the_server_says() {
        let restricted = Answer::Refused;
        let free = || Answer::Granted(Vec::new());
        for (answer, terminal, expected, words) in [
            (Tunnel::Permitted, free(), Pass, "none was made"),
            (Tunnel::Permitted, restricted, Warn, "restricted"),
            (Tunnel::Made, free(), Pass, "made there"),
            (Tunnel::Forbidden, free(), Pass, "not permitted"),
            (Tunnel::Unknown, free(), Pass, "knows no"),
            (Tunnel::Refused, free(), Skip, "why"),
            (Tunnel::Silent, free(), Skip, "in time"),
            (Tunnel::Unheard, free(), Skip, "8.5"),
        ] {
            let check = permitted(&Ok(answer), &terminal, false);
            assert_eq!(check.verdict, expected, "{check:?}");
            assert!(check.found.contains(words), "{check:?}");
        }
        let missing = crate::carrier::openssh::SshError::Missing;
        for (answer, terminal, expected) in [
            (Tunnel::Forbidden, free(), Fail),
            (Tunnel::Unknown, free(), Fail),
            (Tunnel::Permitted, Answer::Refused, Pass),
        ] {
            let check = permitted(&Ok(answer), &terminal, true);
            assert_eq!(check.verdict, expected, "{check:?}");
        }
        let check = permitted(&Err(missing.into()), &free(), false);
        assert_eq!(check.verdict, Skip);
        assert!(check.found.contains("no ssh client"), "{check:?}");
    }

    #[test]
    fn who_sets_the_servers_end_up() {
        let root = "underpass-probe 1\nuid 0\nhas ip\nhas tun\nhas nft\nworks nft\n";
        let said = |text: &str| Answer::Granted(format!("{text}end\n").into_bytes());
        for (answer, verdict, word) in [
            (said(root), Pass, "sets the server's end of the tunnel up"),
            (
                said(&root.replace("uid 0", "uid 5\nsudo yes")),
                Pass,
                "with sudo",
            ),
            (
                said(&root.replace("uid 0", "uid 5")),
                Fail,
                "may not use sudo",
            ),
            (said(&root.replace("has tun\n", "")), Fail, "/dev/net/tun"),
            (
                said(&format!("{root}drops inet fw forward\n")),
                Warn,
                "(nft chain inet fw forward)",
            ),
            (
                Answer::Granted(b"hello\n".to_vec()),
                Fail,
                "no shell script of ours",
            ),
            (Answer::Refused, Fail, "no command is run"),
            (Answer::Silent, Skip, "did not answer"),
        ] {
            let check = set_up(&answer, DeviceKind::Tun);
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.found.contains(word), "{check:?}");
        }
    }
}
