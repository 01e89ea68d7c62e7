//! Why a host key was not accepted: one line each, with what to do.

use std::path::PathBuf;

use thiserror::Error;

/// Why a host key was not accepted. Never accepted silently: unknown and changed keys always end here or
/// at a person who said yes.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HostKeyError {
    /// No file knows the host, and the policy or the person did not take the key.
    #[error(
        "host key verification failed: no {algorithm} host key is known for {host} (offered: {fingerprint}). {advice}"
    )]
    Unknown {
        /// What to do: [`SshPlan::to_learn_its_key`](crate::plan::SshPlan::to_learn_its_key).
        advice: Box<str>,
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
