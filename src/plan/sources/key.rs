//! What may be set in the configuration file and in the environment: the long options of `up`, by the same names.

use std::path::PathBuf;

use clap::ValueEnum;

use super::super::{
    PlanError, capture, device, dns, domains, instance, life, remote, run, ssh_option, tunnel,
    whose,
};
use crate::cli::{CarrierArg, PingArg, TunnelArg, UpArgs};

/// One setting, by the name of its option.
#[derive(Debug)]
pub(super) struct Key {
    /// The long option without its dashes; the variable is `UNDERPASS_` and this in capitals.
    pub(super) name: &'static str,
    /// How several places with a value go together.
    pub(super) kind: Kind,
    /// Where it stands among the arguments.
    pub(super) slot: fn(&mut UpArgs) -> Slot<'_>,
    /// Whether a value makes sense.
    check: fn(&str) -> Result<(), PlanError>,
}

/// How several places with a value go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The highest place counts.
    One,
    /// Those of all places count, the highest first.
    Added,
    /// As [`Kind::One`], but all keys of this kind together: what is captured comes from one place.
    Networks,
    /// The same for whom it is captured.
    Users,
}

/// The place of a value among the arguments.
pub(super) enum Slot<'a> {
    Flag(&'a mut bool),
    Text(&'a mut Option<String>),
    File(&'a mut Option<PathBuf>),
    Port(&'a mut Option<u16>),
    Count(&'a mut Option<u8>),
    Bytes(&'a mut Option<u32>),
    Carrier(&'a mut Option<CarrierArg>),
    Tunnel(&'a mut Option<TunnelArg>),
    Ping(&'a mut Option<PingArg>),
    Networks(&'a mut Vec<String>),
    Texts(&'a mut Vec<String>),
    Files(&'a mut Vec<PathBuf>),
}

impl Slot<'_> {
    /// Whether something was given.
    pub(super) fn is_set(&self) -> bool {
        match self {
            Self::Flag(flag) => **flag,
            Self::Text(value) => value.is_some(),
            Self::File(value) => value.is_some(),
            Self::Port(value) => value.is_some(),
            Self::Count(value) => value.is_some(),
            Self::Bytes(value) => value.is_some(),
            Self::Carrier(value) => value.is_some(),
            Self::Tunnel(value) => value.is_some(),
            Self::Ping(value) => value.is_some(),
            Self::Networks(values) | Self::Texts(values) => !values.is_empty(),
            Self::Files(values) => !values.is_empty(),
        }
    }

    /// What it takes, for a person; and whether that is a list.
    pub(super) const fn takes(&self) -> (&'static str, bool) {
        match self {
            Self::Flag(_) => ("true or false", false),
            Self::Text(_) => ("a text in quotes", false),
            Self::File(_) => ("the name of a file in quotes", false),
            Self::Port(_) => ("a number from 1 to 65535", false),
            Self::Count(_) => ("a number from 1 to 16", false),
            Self::Bytes(_) => ("a number from 1280 to 65520", false),
            Self::Carrier(_) => ("auto, russh or openssh", false),
            Self::Tunnel(_) => ("hybrid, full or ethernet", false),
            Self::Ping(_) => ("server or probe", false),
            Self::Networks(_) => ("networks in quotes, in a list [\"...\", \"...\"]", true),
            Self::Texts(_) => ("texts in quotes, in a list [\"...\", \"...\"]", true),
            Self::Files(_) => (
                "names of files in quotes, in a list [\"...\", \"...\"]",
                true,
            ),
        }
    }

    /// Sets it, or adds to the list. `None`: this is no such value.
    pub(super) fn set(self, text: &str) -> Option<()> {
        match self {
            Self::Flag(flag) => *flag = truth(text)?,
            Self::Text(value) => *value = Some(text.to_owned()),
            Self::File(value) => *value = Some(text.into()),
            Self::Port(value) => *value = Some(text.parse().ok().filter(|port| *port > 0)?),
            Self::Count(value) => {
                *value = Some(text.parse().ok().filter(|n| (1..=16).contains(n))?);
            }
            Self::Bytes(value) => *value = Some(text.parse().ok()?),
            Self::Carrier(value) => *value = Some(CarrierArg::from_str(text, false).ok()?),
            Self::Tunnel(value) => *value = Some(TunnelArg::from_str(text, false).ok()?),
            Self::Ping(value) => *value = Some(PingArg::from_str(text, false).ok()?),
            Self::Networks(values) | Self::Texts(values) => values.push(text.to_owned()),
            Self::Files(values) => values.push(text.into()),
        }
        Some(())
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

/// The key of a name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The name of `names` that was perhaps meant.
pub(super) fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this two words are not alike (strsim's measure goes from 0 to 1).
    const ALIKE: f64 = 0.8;
    let scored = names.map(|name| (strsim::jaro_winkler(typed, name), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= ALIKE).then_some(best.1)
}

impl Key {
    /// Sets the value, after a look at whether it makes sense.
    pub(super) fn set(&self, args: &mut UpArgs, text: &str) -> Result<(), Refused> {
        let slot = (self.slot)(args);
        let (takes, _) = slot.takes();
        slot.set(text).ok_or(Refused::Takes(takes))?;
        (self.check)(text).map_err(Refused::Plan)
    }
}

/// Why a value is not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is of another kind; what is taken.
    Takes(&'static str),
    /// It makes no sense.
    Plan(PlanError),
}

macro_rules! key {
    ($name:literal, $kind:ident, $slot:ident, $($field:ident).+, $check:expr) => {
        Key {
            name: $name,
            kind: Kind::$kind,
            slot: |args| Slot::$slot(&mut args.$($field).+),
            check: $check,
        }
    };
}

fn any(_: &str) -> Result<(), PlanError> {
    Ok(())
}

/// Every key. `profile` is none: a profile names no other.
pub(super) const KEYS: &[Key] = &[
    key!("remote", One, Text, remote, |text| remote::parse(text)
        .map(drop)),
    key!("login", One, Text, login, |text| remote::user(text)
        .map(drop)),
    key!("port", One, Port, port, any),
    key!("identity", Added, Texts, identities, any),
    key!("jump", One, Text, jump, any),
    key!("ssh-config", One, Text, ssh_config, any),
    key!("option", Added, Texts, options, ssh_option::check),
    key!("carrier", One, Carrier, carrier, any),
    key!("connections", One, Count, connections, any),
    key!(
        "subnets",
        Networks,
        Networks,
        subnets,
        capture::check_target
    ),
    key!("subnets-from", Networks, Files, subnet_files, any),
    key!("exclude", Added, Networks, excludes, capture::check_exclude),
    key!("exclude-from", Added, Files, exclude_files, any),
    key!("auto-nets", One, Flag, auto_nets, any),
    key!("dns", One, Texts, dns, domains::check),
    key!("dns-names", One, Text, dns_names, dns::check_pool),
    key!("dns-server", One, Texts, dns_servers, dns::check_server),
    key!("tunnel", One, Tunnel, tunnel.tunnel, any),
    key!(
        "tunnel-address",
        One,
        Text,
        tunnel.tunnel_address,
        tunnel::check_address
    ),
    key!("udp", One, Flag, tunnel.udp, any),
    key!("upload-helper", One, File, tunnel.upload_helper, any),
    key!("ping", One, Ping, tunnel.ping, any),
    key!("disable-ipv6", One, Flag, disable_ipv6, any),
    key!("user", Users, Texts, users, any),
    key!("group", Users, Texts, groups, any),
    key!("gateway", One, Texts, gateway, whose::check_gateway),
    key!("name", One, Text, instance.name, instance::check_name),
    key!("pidfile", One, File, daemon.pidfile, any),
    key!("audit-log", One, Text, audit.audit_log, any),
    key!("for", One, Text, limit, life::check_limit),
    key!("idle-timeout", One, Text, idle_timeout, life::check_idle),
    key!("mtu", One, Bytes, mtu, device::check_mtu_text),
    key!("tun", One, Text, tun, device::check_tun),
    key!("all", One, Flag, command.all, any),
    key!("isolate", One, Flag, command.isolate, any),
    key!("publish", One, Texts, command.publish, |text| run::publish(
        text
    )
    .map(drop)),
];

/// Those that `up` has no use for, and those that `run` has none for. Of a profile, which both may take, they are left to the
/// other command.
const OF_RUN: [&str; 3] = ["all", "isolate", "publish"];
const OF_UP: [&str; 10] = [
    "auto-nets",
    "tunnel",
    "tunnel-address",
    "user",
    "group",
    "gateway",
    "name",
    "pidfile",
    "for",
    "idle-timeout",
];

/// What the arguments are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// `up`.
    Up,
    /// `run` and `shell`.
    Run,
    /// A look at all of them.
    Doctor,
}

impl Use {
    /// The command that has a use for `key`, where this one has none.
    pub(super) fn other_for(self, key: &Key) -> Option<&'static str> {
        match self {
            Self::Up if OF_RUN.contains(&key.name) => Some("run and shell"),
            Self::Run if OF_UP.contains(&key.name) => Some("up"),
            Self::Up | Self::Run | Self::Doctor => None,
        }
    }
}

/// Among these there is one for every key.
#[cfg(test)]
pub(super) const VALUES: [&str; 11] = [
    "true",
    "auto",
    "full",
    "probe",
    "10.1.0.0/16",
    "1500",
    "A=b",
    "15",
    "80:80",
    "10.0.0.2",
    "10.0.0.1,10.0.0.2",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_an_option_of_up() {
        let definition = crate::cli::definition();
        for key in KEYS {
            let command = Use::Up.other_for(key).map_or("up", |_| "run");
            let command = definition.find_subcommand(command).unwrap();
            // The networks of the command line stand alone; -s is the file.
            let is_list = matches!(key.name, "subnets-from");
            let named = |argument: &clap::Arg| argument.get_long() == Some(key.name);
            assert!(
                is_list || command.get_arguments().any(named),
                "{}",
                key.name
            );
        }
        for name in OF_UP.iter().chain(&OF_RUN) {
            assert!(find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn every_option_is_a_key_or_is_known_not_to_be() {
        let definition = crate::cli::definition();
        // It has all of `up`.
        let run = definition.find_subcommand("run").unwrap();
        // Of one start alone, or of the log.
        let not = [
            "profile",
            "daemon",
            "dry-run",
            "netns",
            "tunnel-unit",
            "help",
            "version",
            "verbose",
            "quiet",
            "log-format",
        ];
        for long in run.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(find(long).is_some() || not.contains(&long), "{long}");
        }
    }

    #[test]
    fn what_was_perhaps_meant() {
        let near = |typed| nearest(typed, KEYS.iter().map(|key| key.name));
        assert_eq!(near("excludes"), Some("exclude"));
        assert_eq!(near("subnet"), Some("subnets"));
        assert_eq!(near("idle_timeout"), Some("idle-timeout"));
        assert_eq!(near("zzz"), None);
        assert_eq!(nearest("", [].into_iter()), None);
    }

    #[test]
    fn what_is_set_is_seen_to_be() {
        for key in KEYS {
            let mut args = UpArgs::default();
            assert!(!(key.slot)(&mut args).is_set(), "{}", key.name);
            let taken = VALUES.iter().any(|text| {
                let slot = (key.slot)(&mut args);
                slot.set(text).is_some()
            });
            assert!(taken && (key.slot)(&mut args).is_set(), "{}", key.name);
        }
    }
}
