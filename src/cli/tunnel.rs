//! The arguments about what TCP cannot carry.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::up::NETWORKS;

/// How packets that are no TCP reach the far side.
#[derive(Args, Clone, Debug, Default)]
pub struct TunnelArgs {
    /// Carry UDP, ping and all else as packets, by a device on the server
    ///
    /// As ssh -w does, with all that belongs to it on the server: addresses, forwarding, NAT and their undoing. TCP goes as
    /// before, at full speed. The server has to permit it (PermitTunnel of sshd_config), and the login has to be root's, or may use sudo
    /// without a password; otherwise the commands for its administrator are printed, and TCP goes on alone. Packets go by the installed ssh; TCP
    /// beside them by the built-in one, over a connection of its own, unless there is to be one (--connections 1, --carrier openssh). full has TCP
    /// go as packets, too, so that far hosts can connect to this one; ethernet has a link of layer 2 (a TAP device).
    #[arg(long, value_enum, value_name = "MODE", help_heading = NETWORKS, num_args = 0..=1, require_equals = true, default_missing_value = "hybrid", hide_possible_values = true, hide_short_help = true)]
    pub tunnel: Option<TunnelArg>,
    /// Addresses of the tunnel: here, there
    ///
    /// OURS,FAR,OURS6,FAR6 for IPv6 as well. Otherwise a pair of each that neither side has a route for.
    #[arg(long, value_name = "OURS,FAR", help_heading = NETWORKS, value_hint = ValueHint::Other, hide_short_help = true)]
    pub tunnel_address: Option<String>,
    /// Number of the server's device, tunN
    ///
    /// Otherwise one that is free there.
    #[arg(long, value_name = "N", help_heading = NETWORKS, hide_short_help = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=9999))]
    pub tunnel_unit: Option<u32>,
    /// Carry UDP by a helper on the server
    ///
    /// For where there is no tunnel. The login has to run commands, and the server has to have python3 or perl, or socat or nc, which
    /// carry one question and its answer; nothing is written there. Otherwise UDP is refused.
    #[arg(long, help_heading = NETWORKS, hide_short_help = true)]
    pub udp: bool,
    /// With --udp: send this program to a server without python3 and perl
    ///
    /// It goes into a temporary file of the first of $TMPDIR, /tmp, /var/tmp, $HOME and /dev/shm that programs can be run from; the
    /// file loses its name before the program is in it, and goes with the connection. Some 15 MB are sent at the start, and again
    /// whenever the connection was lost; until they are there datagrams wait for 3 s at most. The server has to have mktemp, head -c,
    /// wc, chmod, rm and /proc. It runs as the login does, and does nothing but send and receive datagrams. FILE, where the server
    /// is another machine, or has older libraries than this one: an underpass that is linked statically (cargo build --release
    /// --target x86_64-unknown-linux-musl).
    #[arg(long, value_name = "FILE", help_heading = NETWORKS, num_args = 0..=1, require_equals = true, default_missing_value = OURSELVES, value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub upload_helper: Option<PathBuf>,
    /// Answer pings, by the server's own ping
    ///
    /// For where there is no tunnel. Hosts that the server hears of are answered for, once a second each; the others are silent. probe takes
    /// no command there: it connects to ports 443, 80, 22, 445 and 3389, and a host that accepts or refuses is there.
    #[arg(long, value_enum, value_name = "HOW", help_heading = NETWORKS, num_args = 0..=1, require_equals = true, default_missing_value = "server", hide_possible_values = true, hide_short_help = true)]
    pub ping: Option<PingArg>,
}

/// The program that runs (proc(5)).
const OURSELVES: &str = "/proc/self/exe";

/// Who asks whether a host is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PingArg {
    /// The server's own ping
    #[default]
    Server,
    /// TCP ports are tried
    Probe,
}

/// What goes as packets, and as packets of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TunnelArg {
    /// What is no TCP
    #[default]
    Hybrid,
    /// Everything
    Full,
    /// Everything, over a link of layer 2
    Ethernet,
}
