//! Why a login failed, why a host key was not accepted, and why a connection ended: one line each, with
//! what to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// Why there is no connection to the server.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("cannot resolve {host}: {source}. Check the name: getent hosts {host}")]
    UnknownHost {
        /// The name as typed.
        host: String,
        /// The resolver's words.
        source: io::Error,
    },
    /// No address of the server took a TCP connection; the error is that of the last one.
    #[error("cannot connect to {address}: {source}. Is sshd there? Check with: nc -vz {} {}", .address.ip(), .address.port())]
    Unreachable {
        /// The address tried last.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// The address to connect from cannot be used.
    #[error(
        "cannot connect from {address} (BindAddress): {source}. The addresses of this host: ip address"
    )]
    BindAddress {
        /// The address or name as configured.
        address: String,
        /// The system's words.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error(
        "no answer from {server} within {seconds} s{stage}. Check the address, the port (-p) and the firewalls between"
    )]
    TimedOut {
        /// The server: the address tried last, or its name where another program or host connects to it.
        server: String,
        /// How long was waited, in seconds.
        seconds: u64,
        /// What had come by then, with a colon in front; empty where nothing had.
        stage: &'static str,
    },
    /// A jump host does not connect to the next host.
    #[error(
        "the jump host {hop} does not connect to {target}: {reason}. Try there: ssh {hop} nc -vz {}", .target.replace(':', " ")
    )]
    Forward {
        /// The jump host as typed.
        hop: String,
        /// The next host and its port.
        target: String,
        /// The jump host's words.
        reason: String,
    },
    /// The ProxyCommand did not lead to the server.
    #[error("{host}: {detail}. The command was: {command}")]
    Command {
        /// The server as typed.
        host: String,
        /// How the command ended, and its last words.
        detail: String,
        /// The command.
        command: String,
    },
    /// The embedded SSH has none of the algorithms that were asked for.
    #[error("{host}: the embedded SSH has none of {option} {asked}; it has {known}")]
    NoAlgorithm {
        /// The server as typed.
        host: String,
        /// The option of ssh_config(5).
        option: &'static str,
        /// Its value.
        asked: String,
        /// What could be asked for, comma separated.
        known: String,
    },
    /// What answers does not speak SSH, or both sides have no algorithm in common.
    #[error("the SSH handshake with {server} failed: {detail}. Compare with: ssh -v {compare}")]
    Handshake {
        /// The server: its address, or its name where another program or host connects to it.
        server: String,
        /// Arguments that lead ssh there.
        compare: String,
        /// What went wrong.
        detail: String,
    },
    /// The server's host key is not accepted.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// The server took none of the keys.
    #[error(
        "{user}@{host}: permission denied (the server takes: {methods}; tried: {tried}). Name a key with -i FILE, or ssh-add it"
    )]
    Refused {
        /// The login name.
        user: String,
        /// The server as typed.
        host: String,
        /// The methods that the server would go on with, comma separated.
        methods: String,
        /// The keys tried, and those that could not be, comma separated.
        tried: String,
    },
    /// The connection ended during the login.
    #[error(
        "{host} ended the connection during login: {detail}. The server's log says why (journalctl -u ssh)"
    )]
    Ended {
        /// The server as typed.
        host: String,
        /// What is known of the reason.
        detail: String,
    },
}

/// Why a host key was not accepted. Never accepted silently: unknown and changed keys always end here or
/// at a person who said yes.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HostKeyError {
    /// No file knows the host, and the policy or the person did not take the key.
    #[error(
        "host key verification failed: no {algorithm} host key is known for {host} (offered: {fingerprint}). Compare the fingerprint, then connect once with ssh, or pass -o StrictHostKeyChecking=accept-new"
    )]
    Unknown {
        /// The host as known_hosts spells it.
        host: String,
        /// The type of the key offered.
        algorithm: String,
        /// `SHA256:...` of the key offered.
        fingerprint: String,
    },
    /// A file knows another key for the host.
    #[error("host key verification failed: the {algorithm} host key of {host} has changed (offered: {fingerprint}, known: {}:{line}). Somebody may be listening in. If the change is expected: ssh-keygen -R '{host}' -f {}", .file.display(), .file.display())]
    Changed {
        /// The host as known_hosts spells it.
        host: String,
        /// The type of the key offered.
        algorithm: String,
        /// `SHA256:...` of the key offered.
        fingerprint: String,
        /// The file that knows another key.
        file: PathBuf,
        /// The line of that key, from 1.
        line: usize,
    },
    /// A file has marked the key as revoked.
    #[error("host key verification failed: the host key {fingerprint} of {host} is marked as revoked in {}:{line}. Ask the server's administrator for its new key", .file.display())]
    Revoked {
        /// The host as known_hosts spells it.
        host: String,
        /// `SHA256:...` of the key offered.
        fingerprint: String,
        /// The file with the mark.
        file: PathBuf,
        /// The line of the mark, from 1.
        line: usize,
    },
}

/// Why the last connection ended.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LostReason {
    /// The server said goodbye (RFC 4253 section 11.1).
    #[error("the server ended the connection: {0}")]
    Disconnected(String),
    /// The server answered no keepalive.
    #[error("the server does not answer any more")]
    Silent,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
}
