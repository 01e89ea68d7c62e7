//! The arguments of `up`, which `doctor` takes as well.
//!
//! What may be given in the configuration file and in the environment too is an [`Option`] or a list here, without a
//! default of clap's: what was not typed is then seen to be so ([`crate::plan::sources`]).

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::audit_log::AuditArgs;
use super::life::{DaemonArgs, InstanceArgs};
use super::run::CommandArgs;
use super::tunnel::TunnelArgs;

/// Heading of what concerns the SSH server.
const SERVER: &str = "Server";
/// Heading of what is captured.
pub(super) const NETWORKS: &str = "Networks";
/// Heading of how long and how it runs.
pub(super) const RUN: &str = "Run";

/// The arguments of `up`.
#[derive(Args, Clone, Debug, Default)]
pub struct UpArgs {
    /// Networks or hosts to capture, and the profile of config.toml to take
    ///
    /// A bare address is one host, 10.0/16 is 10.0.0.0/16, 0/0 and ::/0 are everything. With a port or a range, TCP to
    /// those ports only; otherwise every port and protocol. IPv6 with ports stands in brackets: [fd00::/64]:443.
    ///
    /// 0/0 and ::/0 leave alone what this host has a route of its own for: local networks, containers, VPNs. A
    /// narrower subnet takes them too, unless -x leaves them out.
    ///
    /// FAR=NET shows a network behind the server under other addresses, for a host that has the same ones itself: with
    /// 10.0.0.0/16=100.64.0.0/16, 100.64.1.20 here is 10.0.1.20 there. The two are of one size; -x is by the addresses here.
    /// 127.0.0.1=100.64.0.1 shows what listens on the server itself alone.
    ///
    /// A name with a dot is a host that the server looks up, *.internal.example.com every host below a domain. With ports as above its
    /// others are out of reach meanwhile.
    /// Their names are answered with addresses that stand for them (--dns-names says of which networks); all other names stay with the
    /// resolver that this host has.
    ///
    /// A word that begins with a letter and has no dot, colon or slash names a profile. Networks that are typed
    /// beside it replace those of the profile.
    #[arg(value_name = "PROFILE|[FAR=]NET[:PORT[-PORT]]", value_hint = ValueHint::Other)]
    pub subnets: Vec<String>,

    /// SSH server, [USER@]HOST[:PORT]; aliases as for ssh
    ///
    /// An IPv6 address with a port stands in brackets: me@[2001:db8::1]:22.
    #[allow(rustdoc::broken_intra_doc_links)] // the brackets are an address's
    #[arg(short, long, value_name = "HOST", help_heading = SERVER, value_hint = ValueHint::Hostname)]
    pub remote: Option<String>,
    /// Login name, when it is not in -r [default: as ssh]
    #[arg(short, long, value_name = "USER", help_heading = SERVER, value_hint = ValueHint::Other)]
    pub login: Option<String>,
    /// SSH port, when it is not in -r [default: as ssh]
    #[arg(short, long, value_name = "PORT", help_heading = SERVER)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Key file, before those configured; repeatable
    #[arg(short, long = "identity", value_name = "FILE", help_heading = SERVER, value_hint = ValueHint::FilePath)]
    pub identities: Vec<String>,
    /// Hosts to go through, nearest first, commas between
    ///
    /// Each is as in -r.
    #[arg(short = 'J', long, value_name = "HOSTS", help_heading = SERVER, value_hint = ValueHint::Other)]
    pub jump: Option<String>,
    /// ssh's configuration, instead of the usual files
    ///
    /// None at all with the word none.
    #[arg(short = 'F', long, value_name = "FILE", help_heading = SERVER, value_hint = ValueHint::FilePath)]
    pub ssh_config: Option<String>,
    /// Any option of ssh_config(5); repeatable
    ///
    /// For example StrictHostKeyChecking=accept-new.
    #[arg(short, long = "option", value_name = "KEY=VALUE", help_heading = SERVER, value_hint = ValueHint::Other)]
    pub options: Vec<String>,
    /// SSH built in (russh), or your own ssh (openssh)
    ///
    /// auto, the default, is the SSH that is built in, unless ssh's configuration asks for what only ssh can do. openssh is
    /// the ssh that is installed, with all its options, keys and prompts.
    #[arg(long, value_enum, value_name = "KIND", help_heading = SERVER, hide_possible_values = true)]
    pub carrier: Option<CarrierArg>,
    /// SSH connections to spread flows over, 1 to 16
    ///
    /// Otherwise 2 where the login asks nobody, up to 4 to keep bulk transfers and new flows apart, 16 for thousands of flows
    /// and one for each 800 beyond, 72 at most; 1 where each login asks somebody, and over a ProxyCommand. Over --carrier openssh
    /// 1, and a further one at 900 flows. A connection that is lost resets the flows on it alone. Names that the server looks up
    /// have up to 4 more, but with 1.
    #[arg(long, value_name = "N", help_heading = SERVER)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=16))]
    pub connections: Option<u8>,

    /// File of networks, one per line; repeatable
    ///
    /// # begins a comment.
    #[arg(short = 's', long = "subnets", value_name = "FILE", help_heading = NETWORKS, value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub subnet_files: Vec<PathBuf>,
    /// Network never to capture; repeatable
    ///
    /// Whatever the subnets say. The SSH server is always left out.
    #[arg(short = 'x', long = "exclude", value_name = "NET", help_heading = NETWORKS, value_hint = ValueHint::Other)]
    pub excludes: Vec<String>,
    /// File of these, one per line; repeatable
    #[arg(short = 'X', long = "exclude-from", value_name = "FILE", help_heading = NETWORKS, value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub exclude_files: Vec<PathBuf>,
    /// Capture the networks that the server has routes for, too
    ///
    /// As its kernel tells (/proc/net/route), by a command that has to be permitted; the log shows them, and with --dry-run
    /// nothing else is done. Default routes, loopback and link-local do not count, and what this host has a route of its own for
    /// is left alone.
    #[arg(short = 'N', long, help_heading = NETWORKS, hide_short_help = true)]
    pub auto_nets: bool,
    /// Look up names through the server: all, or those below these domains
    ///
    /// Commas between domains; the names of addresses in the networks are looked up there, too. Other names stay with the resolver
    /// that this host has. Behind --dns a network is a network: --dns 10.0.0.0/16 is --dns with all names. With up,
    /// systemd-resolved parts names where it is asked; elsewhere /etc/resolv.conf names underpass, which asks that resolver for the
    /// other names, and is put back at the end. With --netns the resolv.conf of that network does.
    #[arg(long, value_name = "DOMAINS", help_heading = NETWORKS, num_args = 0..=1, default_missing_value = "all", value_hint = ValueHint::Other)]
    pub dns: Vec<String>,
    /// Name server to ask, as the server reaches it; repeatable
    ///
    /// With a port as in 10.0.0.2:53. They are asked in this order. Otherwise those that the server itself asks.
    #[arg(long = "dns-server", value_name = "IP", help_heading = NETWORKS, value_hint = ValueHint::Other, hide_short_help = true)]
    pub dns_servers: Vec<String>,
    /// Have the server look names up as they are connected to
    ///
    /// For where no name server of the far side can be asked. Names, those of --dns or all, are answered with addresses that stand
    /// for them, of these networks; whoever connects to one is connected to the host of that name. A name that nobody has is
    /// noticed then: no route to host. Other records than addresses are not found. Beside hosts by name and without --dns: those
    /// alone.
    #[arg(long = "dns-names", value_name = "NETS", help_heading = NETWORKS, num_args = 0..=1, require_equals = true, default_missing_value = "default", value_hint = ValueHint::Other, hide_short_help = true)]
    pub dns_names: Option<String>,
    /// What TCP cannot carry.
    #[command(flatten)]
    pub tunnel: TunnelArgs,
    /// Leave out every IPv6 network
    #[arg(long, help_heading = NETWORKS)]
    pub disable_ipv6: bool,
    /// Capture for this user of this host alone; repeatable
    ///
    /// A name or a number. Others, and containers, reach the networks as without underpass.
    #[arg(long = "user", value_name = "NAME", help_heading = NETWORKS, value_hint = ValueHint::Username, hide_short_help = true)]
    pub users: Vec<String>,
    /// Capture for the users of this group alone; repeatable
    ///
    /// A name or a number. For its members and whose own group it is, as they are at the start and at a reload, whatever group
    /// their programs run with: the kernel's routing rules know users alone. A program that somebody else runs with the group
    /// (sg, newgrp, setgid) is not captured.
    #[arg(long = "group", value_name = "NAME", help_heading = NETWORKS, value_hint = ValueHint::Other, hide_short_help = true)]
    pub groups: Vec<String>,
    /// Capture for hosts behind this one too
    ///
    /// For those that come in by IFACE, where one is named; repeatable. Containers behind a bridge of Docker or Podman
    /// (docker0, br-0123456789ab, podman0) always reach the networks; a bridge of another name is named here. This host has to
    /// forward: sysctl net.ipv4.ip_forward.
    #[arg(long, value_name = "IFACE", help_heading = NETWORKS, num_args = 0..=1, require_equals = true, default_missing_value = "all", value_hint = ValueHint::Other)]
    pub gateway: Vec<String>,

    /// Profile of config.toml, as the word alone
    #[arg(long, value_name = "NAME", help_heading = RUN, value_hint = ValueHint::Other)]
    pub profile: Option<String>,
    /// The name of this run.
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Whether it goes to the background.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// End after this time, as 30s, 10m, 2h, 1h30m
    ///
    /// With exit code 0, as --idle-timeout.
    #[arg(long = "for", value_name = "TIME", help_heading = RUN, value_hint = ValueHint::Other)]
    pub limit: Option<String>,
    /// End when nobody has used it for this time
    ///
    /// No connection was open, and no datagram, ping or packet of a tunnel passed, from either side. --for ends it whatever passes.
    #[arg(long, value_name = "TIME", help_heading = RUN, value_hint = ValueHint::Other)]
    pub idle_timeout: Option<String>,
    /// Whether flows are written down.
    #[command(flatten)]
    pub audit: AuditArgs,
    /// MTU of the device, 1280 to 65520 bytes
    ///
    /// Otherwise 1500, or 65520 where the kernel has no offload.
    #[arg(long, value_name = "BYTES", help_heading = RUN, hide_short_help = true)]
    pub mtu: Option<u32>,
    /// Capture in this network namespace
    ///
    /// SSH leaves from the one where underpass is started. A name of ip-netns(8), a path, or pid:N for that of a process: a container's, for example.
    /// The process of another user takes sudo in front. With --dns its own resolv.conf is written, that of /etc/netns/NAME or the
    /// container's, and this host's is not.
    #[arg(long, value_name = "NETNS", help_heading = RUN, value_hint = ValueHint::Other)]
    pub netns: Option<String>,
    /// Name of the device [default: underpass0, ...]
    #[arg(long, value_name = "NAME", help_heading = RUN, value_hint = ValueHint::Other, hide_short_help = true)]
    pub tun: Option<String>,
    /// Say what would be set up, and change nothing
    ///
    /// As commands of ip(8), and where each value that was not typed comes from.
    #[arg(long, help_heading = RUN)]
    pub dry_run: bool,
    /// What [`run`](super::NetworkArgs) has beside these, from wherever it comes: none of it is an option of `up`.
    #[arg(skip)]
    pub command: CommandArgs,
}

/// What carries the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CarrierArg {
    /// The SSH that is built in, unless ssh's configuration asks for what only ssh can do
    #[default]
    Auto,
    /// The SSH that is built in
    Russh,
    /// The ssh that is installed: all its options, keys and prompts
    Openssh,
}
