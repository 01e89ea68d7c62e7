//! What can be wrong with the arguments, and what to change.

use std::path::PathBuf;

use ipnet::IpNet;
use thiserror::Error;

use super::ssh_option::KNOWN_OPTIONS;

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
    /// Neither `user@` nor a login name.
    #[error("the login name on the server is not known; write -r user@host")]
    NoUser,
    /// Nothing to capture was named.
    #[error("no subnet is named; add what to capture, for example 10.0.1.0/24 or 0/0")]
    NoSubnets,
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
    /// An exclusion that cannot be read.
    #[error("-x {text:?}: {reason}; write ADDRESS[/WIDTH], for example 10.0.5.0/24 or fd00::/64")]
    BadExclude {
        /// As typed.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A network that no route can lead to a device.
    #[error("subnet {net} is {what} and never leaves the host; leave it out")]
    NotRoutable {
        /// The network.
        net: IpNet,
        /// Loopback or multicast.
        what: &'static str,
    },
    /// Every subnet is excluded.
    #[error(
        "-x excludes every subnet; nothing is left to capture: take back one -x or add a subnet"
    )]
    NothingLeft,
    /// An `-o` without a value.
    #[error("-o {text:?} has no value; write -o KEY=VALUE")]
    OptionWithoutValue {
        /// As typed.
        text: String,
    },
    /// An `-o` that is not known.
    #[error("-o {key}: this option is not known; known are {}", KNOWN_OPTIONS.join(", "))]
    UnknownOption {
        /// The key as typed.
        key: String,
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
    /// An MTU out of range.
    #[error("--mtu {mtu} is out of range; take 1280 to 65520 bytes, or leave it out")]
    BadMtu {
        /// As typed, in bytes.
        mtu: u32,
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
    #[error("{text} has host bits set; taken as {net}")]
    Masked {
        /// As typed.
        text: String,
        /// As taken.
        net: IpNet,
    },
    /// A key file that was named is not there.
    #[error("key file {} does not exist; going on without it", path.display())]
    NoIdentity {
        /// As named.
        path: PathBuf,
    },
    /// The kernel's rules end at port 65534.
    #[error("{net}: port 65535 is not captured; the kernel's routing rules end at 65534")]
    LastPort {
        /// The network.
        net: IpNet,
    },
}
