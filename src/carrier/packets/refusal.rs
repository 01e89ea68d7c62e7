//! Why a server carries no packets, for a person: one line, with what to do.

use thiserror::Error;

use crate::net::PacketKind;

/// Why there is no tunnel of whole packets. TCP is carried all the same.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TunnelRefusal {
    /// By sshd's configuration.
    #[error(
        "the server permits no tunnel (PermitTunnel). Have it permitted there: add \"PermitTunnel {kind}\" to \
         /etc/ssh/sshd_config, above any Match line, then: systemctl reload ssh"
    )]
    Forbidden {
        /// Of which kind.
        kind: PacketKind,
    },
    /// It is permitted, but `user` may not make the device, it is in use, or there are none.
    #[error(
        "the server permits tunnels, but {user} could not open {} there: it is in use, /dev/net/tun is missing{}",
        named(*.kind, *.unit), otherwise(*.kind, *.unit, user)
    )]
    Device {
        /// Of which kind.
        kind: PacketKind,
        /// Its number; any, where there is none.
        unit: Option<u32>,
        /// Who logs in.
        user: String,
    },
    /// It is no OpenSSH.
    #[error("the server knows no tunnels: only OpenSSH's sshd does. TCP goes without")]
    Unknown,
    /// It does not say why, or the installed ssh does not tell.
    #[error(
        "the server makes no tunnel, and does not say why: PermitTunnel in its sshd_config, or a login that may not make the \
         device. Ask it again: underpass doctor -r {alias}"
    )]
    Unclear {
        /// The server as it was typed.
        alias: String,
    },
    /// It did not answer in time.
    #[error("the server did not answer within {seconds} s whether it makes a tunnel")]
    Silent {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The SSH connection is gone, or full.
    #[error("the SSH connection was lost before there was a tunnel")]
    Lost,
}

/// What else it may be, and what to do.
fn otherwise(kind: PacketKind, unit: Option<u32>, user: &str) -> String {
    let of_the_key = "the key has another one (tunnel= in authorized_keys)";
    let device = kind.device();
    match user {
        "root" => format!(
            ", or {of_the_key}. Name the key's by --tunnel-unit, or leave that out; modprobe tun there makes /dev/net/tun"
        ),
        _ => format!(
            ", {of_the_key}, or only root may make it. Log in as root, or have it made there: ip tuntap add {device}{} mode {device} \
             user {user}",
            unit.unwrap_or(0)
        ),
    }
}

fn named(kind: PacketKind, unit: Option<u32>) -> String {
    match unit {
        Some(unit) => format!("{}{unit}", kind.device()),
        None => format!("a {} device", kind.device()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_can_be_pasted() {
        let forbidden = TunnelRefusal::Forbidden {
            kind: PacketKind::Ethernet,
        };
        assert!(forbidden.to_string().contains("\"PermitTunnel ethernet\""));
        let device_of = |user: &str, unit| {
            let kind = PacketKind::Ip;
            let user = user.to_owned();
            TunnelRefusal::Device { kind, unit, user }.to_string()
        };
        let device = |unit| device_of("me", unit);
        let one = device(Some(7));
        assert!(one.contains("could not open tun7 there"), "{one}");
        assert!(
            one.ends_with("ip tuntap add tun7 mode tun user me"),
            "{one}"
        );
        let any = device(None);
        assert!(any.contains("could not open a tun device there"), "{any}");
        let root = device_of("root", Some(7));
        assert!(
            root.contains("--tunnel-unit") && !root.contains("as root"),
            "{root}"
        );
        assert!(
            any.ends_with("ip tuntap add tun0 mode tun user me"),
            "{any}"
        );
    }
}
