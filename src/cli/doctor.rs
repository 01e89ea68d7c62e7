//! The arguments of `doctor`.

use clap::{Args, ValueHint};

use super::up::UpArgs;

/// The arguments of `doctor`. A command that takes them hides what only `up` does:
/// `#[command(mut_args(doctor_hides))]`.
#[derive(Args, Clone, Debug, Default)]
pub struct DoctorArgs {
    /// What would be given to `up`.
    #[command(flatten)]
    pub up: UpArgs,
    /// Connect there through the server; repeatable
    #[arg(long = "probe", value_name = "HOST:PORT", value_hint = ValueHint::Other)]
    pub probes: Vec<String>,
    /// Say it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Hides what `up` alone does: it is taken, so that a line can be repeated with `doctor` for `up`.
pub fn doctor_hides(argument: clap::Arg) -> clap::Arg {
    let only_up = [
        "name",
        "daemon",
        "pidfile",
        "audit_log",
        "limit",
        "idle_timeout",
        "users",
        "groups",
        "gateway",
        "netns",
        "dns",
        "dns_servers",
        "dns_names",
        "tunnel",
        "tunnel_address",
        "tunnel_unit",
        "udp",
        "upload_helper",
        "ping",
        "mtu",
        "tun",
        "dry_run",
    ];
    match only_up.contains(&argument.get_id().as_str()) {
        true => argument.hide(true),
        false => argument,
    }
}
