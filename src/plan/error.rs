//! What can be wrong with the arguments, and what to change.

use std::path::PathBuf;

use ipnet::IpNet;
use thiserror::Error;

use super::far_side::TunnelAddressError;
use super::sources::SourceError;

/// Arguments that make no plan. Each message is one line that says what to change.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// No `-r`.
    #[error("no SSH server is named; add -r [user@]host[:port]")]
    NoRemote,
    /// A server that cannot be read.
    #[error(
        "-r {text:?}: {reason}; write [user@]host[:port], an IPv6 address in brackets: admin@[2001:db8::1]:22"
    )]
    BadRemote {
        /// As typed; a password is left out.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Both `-p` and `:port`, and they differ.
    #[error(
        "the SSH port is given twice: {remote} in -r and {option} in -p; leave one of them out"
    )]
    PortTwice {
        /// The port in `-r`.
        remote: u16,
        /// The port in `-p`.
        option: u16,
    },
    /// Both `-l` and `user@`, and they differ.
    #[error(
        "the login name is given twice: {remote:?} in -r and {option:?} in -l; leave one of them out"
    )]
    UserTwice {
        /// The name in `-r`.
        remote: String,
        /// The name in `-l`.
        option: String,
    },
    /// A login name that cannot be one.
    #[error("-l: {reason}; write the name alone, for example -l admin")]
    BadLogin {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Neither `user@` nor a login name.
    #[error("the login name on the server is not known; write -r user@host")]
    NoUser,
    /// Nothing to capture was named.
    #[error(
        "no subnet is named; add what to capture, for example 10.0.1.0/24 or 0/0, or -N for what the server has routes for"
    )]
    NoSubnets,
    /// A host's name that cannot be read.
    #[error(
        "host {text:?}: {reason}; write NAME[:PORT[-PORT]], for example db.example.com:5432 or *.internal.example.com"
    )]
    BadHost {
        /// As typed.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A subnet that cannot be read.
    #[error(
        "subnet {text:?}: {reason}; write ADDRESS[/WIDTH][:PORT[-PORT]], for example 10.0.1.0/24:80-443 or [fd00::/64]:443"
    )]
    BadSubnet {
        /// As typed.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `FAR=LOCAL` that cannot be read, or makes no sense.
    #[error("subnet {text:?}: {reason}; write {write}")]
    BadMapping {
        /// As typed.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
        /// What to write instead.
        write: String,
    },
    /// Two subnets by which an address stands for two hosts.
    #[error("{wider} and {narrower}: an address here would stand for two hosts; {advice}")]
    TwoMeanings {
        /// The one that has the other in it, or was typed first.
        wider: String,
        /// The other.
        narrower: String,
        /// What to write instead of which.
        advice: String,
    },
    /// An exclusion that cannot be read.
    #[error("-x {text:?}: {reason}; write ADDRESS[/WIDTH], for example 10.0.5.0/24 or fd00::/64")]
    BadExclude {
        /// As typed.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A network namespace that cannot be read.
    #[error("--netns {text:?}: {reason}; write a NAME of ip-netns(8), a PATH, or pid:N")]
    BadNetns {
        /// As typed.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A user whom nobody knows.
    #[error("--user {name:?}: this host knows no such user; getent passwd shows those it knows")]
    NoSuchUser {
        /// As typed.
        name: String,
    },
    /// A group that nobody knows.
    #[error("--group {name:?}: this host knows no such group; getent group shows those it knows")]
    NoSuchGroup {
        /// As typed.
        name: String,
    },
    /// A group of no use.
    #[error(
        "--group {name:?}: {count} users are in it, and it takes 1 to {most}, for the kernel's routing rules know users alone; name those who are meant with --user NAME"
    )]
    GroupSize {
        /// As typed.
        name: String,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// No interface.
    #[error(
        "--gateway={name:?}: {reason}; write --gateway for all, or --gateway=IFACE; ip link shows the names"
    )]
    BadGateway {
        /// As typed.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `--user` or `--group`, and `--gateway`.
    #[error(
        "--user or --group, and --gateway: what is forwarded is no user's of this host; leave one of them out"
    )]
    UserAndGateway,
    /// No domain, or a switch, where domains belong.
    #[error(
        "--dns {text:?}: write all for all names, or domains, for example corp.internal; to have none, leave it out"
    )]
    BadDns {
        /// As typed.
        text: String,
    },
    /// A name server that cannot be read.
    #[error("--dns-server {text:?}: write IP or IP:PORT, for example 10.0.0.2 or [fd00::2]:53")]
    BadServer {
        /// As typed.
        text: String,
    },
    /// More name servers than are asked.
    #[error("--dns-server: {most} at most are asked; leave out those that are asked last")]
    TooManyServers {
        /// How many there may be.
        most: usize,
    },
    /// `--dns-server` beside `--dns-names`.
    #[error(
        "--dns-server beside --dns-names: nobody is asked where the SSH server itself looks names up; leave one of them out"
    )]
    ServerBesideNames,
    /// Networks that no addresses for names can be of.
    #[error(
        "--dns-names {text:?}: {reason}; write default, or networks that nobody uses, for example --dns-names=198.19.0.0/20,fd99::/64"
    )]
    BadNamePool {
        /// As typed.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Addresses of a tunnel that make none.
    #[error(transparent)]
    BadTunnelAddress(#[from] TunnelAddressError),
    /// Another address than the far side's, in whole packets.
    #[error(
        "--tunnel carries whole packets, with the addresses that they have: {subnet} cannot stand for another network there; leave --tunnel or the mapping out"
    )]
    TunnelMapped {
        /// As it is here.
        subnet: IpNet,
    },
    /// Addresses that the server does not know the way to.
    #[error(
        "--tunnel carries packets of this host and its containers alone, and --gateway captures others'; leave one of them out"
    )]
    TunnelGateway,
    /// Names that take more than packets.
    #[error(
        "--tunnel={mode} carries no connections by name: leave out --dns-names and targets by name, with ethernet --dns as well; or take --tunnel alone"
    )]
    TunnelNames {
        /// The tunnel's mode.
        mode: &'static str,
    },
    /// `--tunnel-address` or `--tunnel-unit` alone.
    #[error("--tunnel-address and --tunnel-unit are for --tunnel; add that")]
    NoTunnel,
    /// `--upload-helper` alone.
    #[error("--upload-helper is for UDP by a helper on the server: add --udp")]
    NoUdp,
    /// A tunnel without what opens one.
    #[error("--tunnel takes ssh itself, which is not installed: apt install openssh-client")]
    TunnelWithoutSsh,
    /// A tunnel over what has none, and nothing beside it.
    #[error(
        "--tunnel takes a connection of the installed ssh beside the built-in one, and there is to be one alone (--connections 1, a \
         ProxyCommand): leave --carrier russh out"
    )]
    TunnelOverRussh,
    /// `--dns-server` without `--dns`.
    #[error(
        "--dns-server: no name is looked up through the server without --dns; add --dns, or --dns corp.internal for the names below that"
    )]
    ServerWithoutNames,
    /// A port to publish that cannot be read.
    #[error(
        "--publish {text:?}: {reason}; this host's port stands before the command's: --publish {meant}"
    )]
    BadPublish {
        /// As typed.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
        /// What was perhaps meant.
        meant: String,
    },
    /// A network that no route can lead to a device.
    #[error("subnet {net} is {what} and never leaves the host; leave it out")]
    NotRoutable {
        /// The network.
        net: IpNet,
        /// Loopback or multicast.
        what: &'static str,
    },
    /// Our own addresses are excluded.
    #[error("-x {exclude}: underpass has {what} in {own}, which has to be captured; exclude less")]
    ExcludesOwn {
        /// The exclusion.
        exclude: IpNet,
        /// What is there.
        what: &'static str,
        /// Where.
        own: IpNet,
    },
    /// The SSH server as a host behind itself.
    #[error(
        "{host}: this is the SSH server, which is never captured; write 127.0.0.1=100.64.0.1 for what listens there on loopback, or leave it out"
    )]
    HostIsServer {
        /// As typed.
        host: String,
    },
    /// Every subnet is excluded.
    #[error(
        "-x excludes every subnet; nothing is left to capture: take back one -x or add a subnet"
    )]
    NothingLeft,
    /// IPv6 is all that was asked for, and the host has none.
    #[error(
        "every subnet is IPv6, and IPv6 is switched off on this host; switch it on: sudo sysctl -w net.ipv6.conf.default.disable_ipv6=0"
    )]
    NoIpv6,
    /// An `-o` without a value.
    #[error("-o {text:?} has no value; write -o KEY=VALUE")]
    OptionWithoutValue {
        /// As typed.
        text: String,
    },
    /// An `-o` with a value that it does not take.
    #[error("-o {key}={value}: it takes {takes}")]
    BadOptionValue {
        /// The key, as ssh_config(5) spells it.
        key: &'static str,
        /// The value as typed.
        value: String,
        /// What it takes.
        takes: &'static str,
    },
    /// A jump host that cannot be read.
    #[error(
        "jump host {text:?}: {reason}; write -J or ProxyJump as [user@]host[:port], several with commas between"
    )]
    BadJump {
        /// As written; a password is left out.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Jump hosts that lead through each other.
    #[error(
        "{host}: more than {most} jump hosts, one through the other; does a ProxyJump lead back to itself? \"ProxyJump none\" ends the way"
    )]
    TooManyJumps {
        /// The server as typed.
        host: String,
        /// How many there may be.
        most: usize,
    },
    /// ssh does not accept its configuration, or its arguments.
    #[error(
        "ssh's configuration for {host} cannot be used: {said}; correct that, or choose a file with -F"
    )]
    SshConfig {
        /// The host that it was asked about.
        host: String,
        /// What it said, one line.
        said: String,
    },
    /// A value of ssh's configuration that makes no sense.
    #[error(
        "ssh's configuration has {key} {value:?}, which is not understood; correct it, or add -o {key}=VALUE"
    )]
    BadConfigValue {
        /// The option, as ssh_config(5) spells it.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A token or variable in a value of ssh's configuration that stands for nothing.
    #[error(
        "ssh's configuration has {key} {value:?}: {reason}; the section TOKENS of ssh_config(5) lists what may stand there"
    )]
    BadToken {
        /// The option, as ssh_config(5) spells it.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A time that cannot be read.
    #[error("{option} {text:?} is no time; write 90 for seconds, or 30s, 10m, 2h, 1h30m")]
    BadDuration {
        /// The option.
        option: &'static str,
        /// As typed.
        text: String,
    },
    /// An MTU out of range.
    #[error("--mtu {mtu} is out of range; take 1280 to 65520 bytes, or leave it out")]
    BadMtu {
        /// As typed, in bytes.
        mtu: u32,
    },
    /// `--disable-ipv6`, and every subnet is IPv6.
    #[error(
        "every subnet is IPv6, and --disable-ipv6 leaves these out; add an IPv4 subnet or take it back"
    )]
    OnlyIpv6,
    /// A file or a variable that cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A name of an instance that cannot be one.
    #[error(
        "--name {name:?}: {reason}; take 1 to 64 letters, digits, '-', '_' or '.', for example prod"
    )]
    BadInstanceName {
        /// As typed.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A device name that the kernel would not take.
    #[error("--tun {name:?}: {reason}; take 1 to 15 letters, digits, '-' or '_', for example vpc0")]
    BadDeviceName {
        /// As typed.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// What was understood, though perhaps not as meant.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanWarning {
    /// Host bits were set.
    #[error("{text} has host bits set; taken as {meant}")]
    Masked {
        /// As typed.
        text: String,
        /// As taken.
        meant: String,
    },
    /// An exclusion in the addresses that are mapped, and not in those that they are mapped to.
    #[error(
        "-x {exclude} leaves nothing out: {exclude} behind the server is {local} here; write -x {local} if that is meant"
    )]
    ExcludesFar {
        /// The exclusion.
        exclude: IpNet,
        /// What it is here.
        local: IpNet,
    },
    /// `--disable-ipv6`.
    #[error("{net} is not captured: --disable-ipv6 leaves IPv6 out")]
    Ipv6LeftOut {
        /// The network.
        net: IpNet,
    },
    /// A key file that was named is not there.
    #[error("key file {} does not exist; going on without it", path.display())]
    NoIdentity {
        /// As named.
        path: PathBuf,
    },
    /// All is captured, and a command connects to the server.
    #[error(
        "{subnet} takes all traffic, and a ProxyCommand connects to {host}: what it is connected to at the login is left alone; \
             exclude other addresses that it may use with -x"
    )]
    CommandUnderDefault {
        /// The subnet.
        subnet: IpNet,
        /// The host that the command connects to, as typed.
        host: String,
    },
    /// All names are the far side's, and a command connects to the server.
    #[error(
        "all names are asked of the far side, and a ProxyCommand connects to {host}: after a lost connection it finds no names but those \
             that are written in it as hosts (me@HOST, HOST:22, a.b); where it needs others, name the domains behind the server, of which it \
             needs none: --dns DOMAIN"
    )]
    CommandUnderNames {
        /// The host that the command connects to, as typed.
        host: String,
    },
    /// Ports leave nothing for what was asked for beside TCP.
    #[error(
        "no UDP and no ping for {options}: of {subnet} only TCP to its ports is captured; leave the ports out for all of it"
    )]
    OnlyPorts {
        /// What was asked for.
        options: String,
        /// One of the networks, all of which have ports.
        subnet: String,
    },
    /// The kernel's rules end at port 65534.
    #[error("{net}: port 65535 is not captured; the kernel's routing rules end at 65534")]
    LastPort {
        /// The network.
        net: IpNet,
    },
}
