//! Habits from elsewhere: what to write instead, in one line.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use thiserror::Error;

/// An option that another program has.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Mistake {
    /// One of sshuttle's that is not here.
    #[error("{option} is no option here: {instead}")]
    Instead {
        /// As typed.
        option: String,
        /// What to do.
        instead: &'static str,
    },
    /// The command is missing.
    #[error("{option} belongs to a command; write: underpass up {option} ...")]
    NoCommand {
        /// As typed.
        option: String,
    },
}

/// sshuttle's options that are not options here (sshuttle(8)), and what there is instead.
const SSHUTTLE: &[(&[&str], &str)] = &[
    (
        &["--method"],
        "packets are taken by a TUN device and routes; no firewall is touched, so there is nothing to choose",
    ),
    (
        &["-e", "--ssh-cmd"],
        "name what ssh shall do: -F FILE, -J HOST, -i KEY, -p PORT, -o KEY=VALUE; --carrier openssh runs your own ssh",
    ),
    (
        &[
            "--python",
            "--no-cmd-delimiter",
            "--remote-shell",
            "--add-cmd-delimiter",
        ],
        "nothing runs on the server; leave it out",
    ),
    (
        &["-H", "--auto-hosts", "--seed-hosts"],
        "/etc/hosts is never written; --dns has names looked up through the server",
    ),
    (
        &[
            "--no-latency-control",
            "--latency-control",
            "--latency-buffer-size",
        ],
        "each connection has a window of its own, and none delays another; leave it out",
    ),
    (
        &["--wrap"],
        "channels are numbered by SSH itself; leave it out",
    ),
    (
        &["-t", "--tmark"],
        "no packet is marked: the SSH connection is left out by routes; leave it out",
    ),
    (
        &["--listen", "--firewall", "--hostwatch"],
        "nothing listens on this host; containers are routed as they are, and hosts behind it with --gateway",
    ),
    (
        &["--ns-hosts", "--to-ns"],
        "--dns-server IP names who is asked for names, as the server reaches them",
    ),
    (
        &["--syslog"],
        "-D writes to the system's log by itself; each connection is written there with --audit-log syslog",
    ),
    (
        &["--namespace", "--namespace-pid"],
        "--netns NAME captures in one of ip-netns(8), --netns pid:N in that of a process",
    ),
    (
        &[
            "--sudoers-no-modify",
            "--sudoers-user",
            "--sudoers",
            "--sudoers-filename",
            "--no-sudo-pythonpath",
        ],
        "underpass sudoers prints a rule, for the privileged part alone; leave it out",
    ),
];

/// What was perhaps meant by what clap does not know.
pub(super) fn mistaken(error: &clap::Error, is_of_up: impl Fn(&str) -> bool) -> Option<Mistake> {
    let kind = match error.kind() {
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        _ => return None,
    };
    let Some(ContextValue::String(typed)) = error.get(kind) else {
        return None;
    };
    let option = typed.split('=').next().unwrap_or_default().to_owned();
    let known = SSHUTTLE
        .iter()
        .find(|(options, _)| options.contains(&option.as_str()));
    match known {
        Some((_, instead)) => Some(Mistake::Instead { option, instead }),
        None if is_of_up(&option) => Some(Mistake::NoCommand { option }),
        None => None,
    }
}
