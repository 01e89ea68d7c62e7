//! What a person can look at, after the kind of failure.

use std::io;
use std::net::SocketAddr;

use crate::carrier::failure::by_text;
use crate::net::OpenFailure;
use crate::plan::{SshPlan, quoted};

/// How far a connection had come when time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No TCP connection yet.
    Connecting,
    /// No TCP connection yet, from the jump host on.
    Forwarding,
    /// Connected, but the server has not said that it speaks SSH (RFC 4253 section 4.2).
    Banner,
    /// In the midst of the handshake.
    Keys,
}

impl Stage {
    pub(super) fn had_come(self) -> &'static str {
        match self {
            Self::Connecting => "",
            Self::Forwarding => " by way of the jump host",
            Self::Banner => ": it is connected, but sends no SSH banner",
            Self::Keys => ": the SSH handshake does not end",
        }
    }

    pub(super) fn advice(self, server: &str) -> String {
        match self {
            Self::Connecting => format!(
                "A firewall may drop what is sent there; check the address and the port (-p): nc -vz {}",
                apart(server)
            ),
            Self::Forwarding => {
                "Check the address, the port and the firewalls between the two".to_owned()
            }
            Self::Banner => format!(
                "Is it sshd that listens there? It should say SSH-2.0 here: nc {}",
                apart(server)
            ),
            Self::Keys => "Large packets may be lost on the way; check the MTU: ip link".to_owned(),
        }
    }
}

/// What to look at where no TCP connection to `server` comes about, by the kind of failure.
pub(super) fn unreachable(server: &str, error: &io::Error) -> String {
    let place = apart(server);
    match by_text(&error.to_string()) {
        OpenFailure::NetworkUnreachable | OpenFailure::HostUnreachable => {
            match server.parse::<SocketAddr>() {
                Ok(address) => format!("The route there: ip route get {}", address.ip()),
                Err(_) => "The routes of this host: ip route".to_owned(),
            }
        }
        OpenFailure::Refused => {
            let port = place.rsplit(' ').next().unwrap_or_default();
            format!(
                "Nothing listens on port {port} there, or a firewall refuses; is sshd on another port (-p)? Check with: nc -vz {place}"
            )
        }
        OpenFailure::Filtered => {
            "A packet filter forbids it, here or on the way: sudo nft list ruleset".to_owned()
        }
        _ => format!("Is sshd there? Check with: nc -vz {place}"),
    }
}

/// Why a login is refused that nobody was there to answer.
pub(super) const ASKS: &str = "It asks for a password or a code";

/// What to do where the server of `plan` refuses a login and would go on with `methods`. `was_answered`: a person was there, and has
/// given a password or a code.
pub(in crate::carrier) fn refused(plan: &SshPlan, methods: &[&str], was_answered: bool) -> String {
    let takes_keys = methods.is_empty() || methods.contains(&"publickey");
    let takes_answers = ["password", "keyboard-interactive"]
        .iter()
        .any(|method| methods.contains(method));
    let arguments = &plan.arguments;
    match (takes_keys, takes_answers) {
        (true, _) if was_answered => format!(
            "Was the answer right, and {} the right user? Compare with: ssh {arguments}. {}",
            plan.user,
            plan.to_name_a_key()
        ),
        (_, true) if was_answered => format!(
            "Was the answer right, and {} the right user? Compare with: ssh {arguments}",
            plan.user
        ),
        (true, _) => plan.to_name_a_key(),
        (false, true) => {
            format!("{ASKS}: start underpass in a terminal, or set SSH_ASKPASS, without BatchMode")
        }
        (false, false) => format!("Compare with: ssh -v {arguments}"),
    }
}

/// What to do where the server of `plan` has ended the connection after so many attempts.
pub(in crate::carrier) fn too_many_tries(plan: &SshPlan) -> &'static str {
    match plan.is_hop {
        true => {
            "Offer the right key alone: IdentitiesOnly and IdentityFile for it in ssh's configuration"
        }
        false => "Offer the right key alone: -o IdentitiesOnly=yes -i FILE",
    }
}

/// `host:port` as two words of a shell.
pub(super) fn apart(place: &str) -> String {
    match place.rsplit_once(':') {
        Some((host, port)) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            format!("{} {}", quoted(host), quoted(port))
        }
        None => quoted(place),
    }
}
