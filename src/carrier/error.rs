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
    /// The user's own ssh carries nothing.
    #[error(transparent)]
    Ssh(#[from] super::openssh::SshError),
    /// The server took nothing of what was tried.
    #[error(
        "{user}@{host}: permission denied (the server takes: {methods}; tried: {tried}). {hint}"
    )]
    Refused {
        /// The login name.
        user: String,
        /// The server as typed.
        host: String,
        /// The methods that the server would go on with, comma separated.
        methods: String,
        /// What was tried, and what could not be, comma separated.
        tried: String,
        /// What to do.
        hint: &'static str,
    },
    /// The server ended the connection because of the attempts that had failed (MaxAuthTries of sshd_config(5)).
    #[error(
        "{user}@{host}: the server let us try no further after {count} attempts: {said} (tried: {tried}). Offer the right key alone: -o IdentitiesOnly=yes -i FILE"
    )]
    TooManyTries {
        /// The login name.
        user: String,
        /// The server as typed.
        host: String,
        /// The server's words.
        said: String,
        /// How many attempts were made.
        count: usize,
        /// What was tried, and what could not be, comma separated.
        tried: String,
    },
    /// The server took longer than any server does.
    #[error("{host} has not answered the login for {seconds} s. {hint}")]
    Unanswered {
        /// The server as typed.
        host: String,
        /// How long was waited, in seconds.
        seconds: u64,
        /// What to do.
        hint: String,
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
    /// No file knows the host but for an authority that vouches for it, and this one vouched for nothing that is valid.
    #[error(
        "host key verification failed: {host} is known by a certificate authority only ({}:{line}), and {fault} (key offered: {fingerprint}). {}", .file.display(), .fault.advice()
    )]
    Certificate {
        /// The host as known_hosts spells it.
        host: String,
        /// `SHA256:...` of the key offered.
        fingerprint: String,
        /// What is wrong with the certificate.
        fault: Box<CertificateFault>,
        /// The file that names an authority.
        file: PathBuf,
        /// The line of that authority, from 1.
        line: usize,
    },
    /// A file knows another key for the host.
    #[error("host key verification failed: the {algorithm} host key of {host} has changed (offered: {fingerprint}, known: {}:{line}). Somebody may be listening in. If the change is expected, remove the known key: {remove}", .file.display())]
    Changed {
        /// The host as known_hosts spells it.
        host: String,
        /// The type of the key offered.
        algorithm: Box<str>,
        /// `SHA256:...` of the key offered.
        fingerprint: String,
        /// The file that knows another key.
        file: PathBuf,
        /// The line of that key, from 1.
        line: usize,
        /// The command that removes the line.
        remove: Box<str>,
    },
    /// The server that answers after a loss is not the one that was lost.
    #[error(
        "host key verification failed: another host key than before the connection was lost ({offered} instead of {before}). If the change is expected, start again"
    )]
    NotAsBefore {
        /// Type and fingerprint of the key offered.
        offered: String,
        /// Type and fingerprint of the key before.
        before: String,
    },
    /// The host's key is known, or was taken, but its address has another one (CheckHostIP).
    #[error("host key verification failed: the {algorithm} host key of {host} differs from the key of its address {address} ({}:{line}). If the address has a new host, remove its old key: {remove}", .file.display())]
    AddressDiffers {
        /// The host as known_hosts spells it.
        host: String,
        /// Its address, spelled so too.
        address: String,
        /// The type of the key offered.
        algorithm: Box<str>,
        /// The file that knows another key for the address.
        file: PathBuf,
        /// The line of that key, from 1.
        line: usize,
        /// The command that removes the line.
        remove: Box<str>,
    },
    /// A file has marked the key, or the authority that signed it, as revoked.
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
    /// The user's own ssh does not take it.
    #[error("host key verification failed: ssh does not take the key of {host}: {said}")]
    Ssh {
        /// The host as typed.
        host: String,
        /// Why, and what to do.
        said: String,
    },
    /// A file of revoked keys cannot be read, so that no key may pass.
    #[error("host key verification failed: the revoked keys in {} cannot be read: {reason}. Repair the file, or unset RevokedHostKeys", .file.display())]
    Revocations {
        /// The file of RevokedHostKeys.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An RSA key is shorter than RequiredRSASize.
    #[error(
        "host key verification failed: the RSA host key of {host} has {bits} bits, and RequiredRSASize asks for {required}. Give the server a longer key (ssh-keygen -A), or pass -o RequiredRSASize={bits}"
    )]
    Short {
        /// The host as known_hosts spells it.
        host: String,
        /// The length of its key.
        bits: u32,
        /// The shortest that is allowed.
        required: u32,
    },
}

/// Why a host's certificate does not count (PROTOCOL.certkeys).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CertificateFault {
    /// The server has none.
    #[error("the server offered no certificate")]
    Missing,
    /// No file names its authority for the host.
    #[error("the server's certificate is signed by another authority ({0})")]
    Stranger(
        /// `SHA256:...` of the authority's key.
        String,
    ),
    /// It is a user's.
    #[error("the server's certificate is not a host certificate")]
    NotHost,
    /// It is not valid yet.
    #[error("the server's certificate is not valid before {0} from now")]
    Early(
        /// How long it takes until then.
        String,
    ),
    /// It is not valid any more.
    #[error("the server's certificate expired {0} ago")]
    Expired(
        /// How long ago.
        String,
    ),
    /// It is for other hosts.
    #[error("the server's certificate is not for {name} (it is for: {principals})")]
    Name {
        /// The name that was looked for.
        name: String,
        /// The names that the certificate has, comma separated.
        principals: String,
    },
    /// It has conditions that nobody here understands.
    #[error("the server's certificate has critical options: {0}")]
    Critical(
        /// Their names, comma separated.
        String,
    ),
    /// CASignatureAlgorithms does not allow how it is signed.
    #[error(
        "the server's certificate is signed with {0}, which CASignatureAlgorithms does not allow"
    )]
    Algorithm(
        /// The algorithm's name.
        String,
    ),
    /// Its signature is wrong.
    #[error("the signature of the server's certificate is wrong")]
    Signature,
}

impl CertificateFault {
    /// What a person can do about it.
    fn advice(&self) -> &'static str {
        match self {
            Self::Missing => {
                "Ask the server's administrator for a HostCertificate in sshd_config, or compare the fingerprint and connect once with ssh"
            }
            Self::Name { .. } => {
                "Connect by a name that the certificate has, or set HostKeyAlias to it"
            }
            Self::Early(_) | Self::Expired(_) => {
                "Check the clock (date), then ask the server's administrator for a new certificate"
            }
            Self::Stranger(_) => {
                "If that authority is right, add it to known_hosts with @cert-authority"
            }
            Self::NotHost | Self::Critical(_) | Self::Algorithm(_) | Self::Signature => {
                "Ask the server's administrator for a valid host certificate"
            }
        }
    }
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
