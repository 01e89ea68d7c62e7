//! The far end of a tunnel: what has to be done on the SSH server for packets, as text for a shell there, and what the
//! server says to it. No I/O here.
//!
//! In this order: [`PROBE`] asks what is there ([`Probe`]), which says how it may go on ([`Way`]). Who is not root, but may
//! use sudo, has the device made first ([`Verb::Prepare`]). Then sshd opens the device, and it is set up ([`Verb::Setup`]). At
//! the end it is taken back ([`Verb::Undo`]); where nobody says so, a watchdog there takes it back within seconds of the
//! device's end, or of nobody holding it any more. Any number of tunnels share a server: what is theirs alone is named by
//! their device, and what they share goes with the last one.

mod addresses;
mod by_hand;
mod probe;
mod report;

use std::fmt::Write;

use ipnet::IpNet;

pub use addresses::{Ends, TunnelAddress, TunnelAddressError, spare_address};
pub use by_hand::{by_hand, let_pass};
pub use probe::{MayNot, Prepared, Probe, ProbeError, Rights, Way};
pub use report::{Report, ReportError};

/// What is run there first, by whoever logs in. [`Probe::read`] reads what it says.
const PROBE: &str = concat!(include_str!("drops.sh"), include_str!("probe.sh"));
/// The rest, in one file.
const SCRIPT: &str = concat!(include_str!("drops.sh"), include_str!("far.sh"));
/// Where it is kept there while the tunnel lives, below `/run`. Other network namespaces may share that, and have tunnels of
/// the same names.
const DIRECTORY: &str = "underpass-tunnel";

/// What the tunnel's devices carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Packets of IP.
    Tun,
    /// Ethernet frames.
    Tap,
}

impl DeviceKind {
    /// As ip-tuntap(8) has it, and as names of devices begin.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tun => "tun",
            Self::Tap => "tap",
        }
    }

    /// What sshd calls the device of number `unit`.
    pub fn device(self, unit: u32) -> String {
        format!("{}{unit}", self.word())
    }

    /// What `PermitTunnel` has to say for it (sshd_config(5)).
    pub fn permission(self) -> &'static str {
        match self {
            Self::Tun => "point-to-point",
            Self::Tap => "ethernet",
        }
    }
}

/// One end of a tunnel, as it shall be on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarSide {
    /// Whose it is. The same client's earlier ones, on a connection that is lost, are taken back when it is set up.
    pub id: u64,
    /// The number of the device.
    pub unit: u32,
    /// What the device carries.
    pub kind: DeviceKind,
    /// The addresses of both ends.
    pub address: TunnelAddress,
    /// Networks here whose packets come through the tunnel, too: routed back into it, and shown as the server as well.
    pub back: Vec<IpNet>,
    /// The device's MTU.
    pub mtu: u16,
    /// Hosts over there may connect to here.
    pub inbound: bool,
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// To make the device, for the user with this number.
    Prepare {
        /// Who logs in.
        owner: u32,
    },
    /// To set up the device that sshd holds open. Once more changes nothing.
    Setup,
    /// To take everything back.
    Undo,
}

/// What shows how the server is; for [`Probe::read`].
pub fn probe_command() -> String {
    format!("exec sh -c '\n{}'", without_comments(PROBE))
}

impl FarSide {
    /// The name of the device on the server.
    pub fn device(&self) -> String {
        self.kind.device(self.unit)
    }

    /// What the server's shell has to run for that; [`Report::read`] reads what it says.
    pub fn command(&self, verb: Verb, rights: Rights) -> String {
        let device = self.device();
        let sudo = rights.prefix();
        // No single quotes and no backslashes in any of it, so that every login shell reads this as it is.
        let place = format!(
            "umask 077\nrun=/run\n[ -d $run ] || run=/var/run\nnet=$(readlink /proc/self/ns/net)\nnet=${{net#*[}}\n\
             dir=$run/{DIRECTORY}-${{net%]}}\nscript=$dir/{device}.sh\n"
        );
        let body = match verb {
            Verb::Prepare { owner } => self.put(owner, "prepare"),
            Verb::Setup => self.put(0, "setup"),
            Verb::Undo => format!(
                "[ -f $script ] || {{ echo done; exit; }}\nexec sh $script undo {:016x}\n",
                self.id
            ),
        };
        format!("exec {sudo}sh -c '\n{place}{body}'")
    }

    /// Writes the script, again where somebody was just clearing the directory away, and runs it. A shell reads its script
    /// as it goes, so one that is in use is replaced and not written over.
    fn put(&self, owner: u32, verb: &str) -> String {
        format!(
            "put() {{\nmkdir -p $dir && cat >$script.$$ <<\"END-OF-SCRIPT\"\n{}{}END-OF-SCRIPT\n}}\n\
             {{ put || put; }} && mv -f $script.$$ $script && exec sh $script {verb}\n\
             echo \"failed files: nothing can be written below $run\"\n",
            self.variables(owner),
            without_comments(SCRIPT),
        )
    }

    fn variables(&self, owner: u32) -> String {
        let v6 = self.address.v6;
        let (ours6, far6) = match v6 {
            Some(ends) => (ends.ours.to_string(), ends.far.to_string()),
            None => (String::new(), String::new()),
        };
        let back = IpNet::aggregate(&self.back);
        let of = |v4: bool| {
            let nets = back.iter().filter(|net| matches!(net, IpNet::V4(_)) == v4);
            nets.map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let variables = [
            ("dev", self.device()),
            ("kind", self.kind.word().to_owned()),
            ("id", format!("{:016x}", self.id)),
            ("owner", owner.to_string()),
            ("mtu", self.mtu.to_string()),
            ("inbound", yes_or_no(self.inbound).to_owned()),
            ("ours4", self.address.v4.ours.to_string()),
            ("far4", self.address.v4.far.to_string()),
            ("back4", of(true)),
            ("ours6", ours6),
            ("far6", far6),
            ("back6", of(false)),
        ];
        variables
            .iter()
            .fold(String::new(), |mut text, (name, value)| {
                // Writing to a String does not fail.
                let _ = writeln!(text, "{name}=\"{value}\"");
                text
            })
    }
}

fn yes_or_no(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

/// Comments are for who reads it here.
fn without_comments(script: &str) -> String {
    let lines = script
        .lines()
        .filter(|line| !line.trim_start().starts_with('#') && !line.is_empty());
    lines.fold(String::new(), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn far_side() -> FarSide {
        FarSide {
            id: 7,
            unit: 64,
            kind: DeviceKind::Tun,
            address: "198.19.128.1,198.19.128.2,fd00::1,fd00::2".parse().unwrap(),
            back: vec![
                "172.17.0.0/16".parse().unwrap(),
                "172.17.3.0/24".parse().unwrap(),
                "10.9.0.0/24".parse().unwrap(),
            ],
            mtu: 1500,
            inbound: false,
        }
    }

    fn commands() -> Vec<String> {
        let verbs = [Verb::Prepare { owner: 1000 }, Verb::Setup, Verb::Undo];
        let commands = verbs.map(|verb| far_side().command(verb, Rights::Sudo));
        commands.into_iter().chain([probe_command()]).collect()
    }

    /// Bash, fish and zsh read single quotes alike where there is no backslash in them.
    #[test]
    fn every_login_shell_hands_it_on() {
        for command in commands() {
            assert_eq!(command.matches('\'').count(), 2, "{command}");
            assert!(command.ends_with('\'') && !command.contains('\\'));
            // Linux takes no longer argument (MAX_ARG_STRLEN).
            assert!(command.len() < 100_000, "{}", command.len());
        }
    }

    #[test]
    fn shells_find_no_mistake_in_it() {
        for shell in [&["dash"][..], &["busybox", "ash"], &["bash", "--posix"]] {
            for command in commands() {
                let inner = command.split('\'').nth(1).unwrap();
                // Also what is in the document.
                let script = inner
                    .replace("cat >$script.$$ <<\"END-OF-SCRIPT\"\n", "")
                    .replace("END-OF-SCRIPT\n", "");
                for text in [inner, &script] {
                    let mut check = Command::new(shell[0]);
                    check.args(&shell[1..]).args(["-n", "-c", text]);
                    let output = check.output().unwrap();
                    let said = String::from_utf8_lossy(&output.stderr);
                    assert!(
                        output.status.success() && said.is_empty(),
                        "{shell:?}: {said}"
                    );
                }
            }
        }
    }

    #[test]
    fn it_has_what_was_asked_for() {
        let text = far_side().command(Verb::Setup, Rights::Root);
        assert!(text.starts_with("exec sh -c '"), "{text}");
        for line in [
            "dev=\"tun64\"",
            "id=\"0000000000000007\"",
            "back4=\"10.9.0.0/24, 172.17.0.0/16\"",
            "ours6=\"fd00::1\"",
            "inbound=\"no\"",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
        }
        let text = far_side().command(Verb::Undo, Rights::Sudo);
        assert!(text.starts_with("exec sudo -n sh -c '"), "{text}");
        assert!(text.contains("undo 0000000000000007"), "{text}");
    }
}
