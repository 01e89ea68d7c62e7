//! OpenSSH user certificates (PROTOCOL.certkeys) in files: CertificateFile, and FILE-cert.pub beside a key file.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::Certificate;
use russh::keys::ssh_key::certificate::CertType;

use super::key_file::{KeyError, read_text};

/// A certificate and where it was read.
pub(super) struct CertificateFile {
    pub(super) path: PathBuf,
    pub(super) certificate: Certificate,
}

impl CertificateFile {
    /// Reads the certificate at `path`.
    ///
    /// # Errors
    /// [`KeyError::Unreadable`], [`KeyError::NoCertificate`], [`KeyError::HostCertificate`].
    pub(super) fn load(path: &Path) -> Result<Self, KeyError> {
        let text = read_text(path)?;
        let certificate =
            Certificate::from_openssh(text.trim()).map_err(|_| KeyError::NoCertificate)?;
        if certificate.cert_type() != CertType::User {
            return Err(KeyError::HostCertificate);
        }
        Ok(Self {
            path: path.to_owned(),
            certificate,
        })
    }

    /// The certificate beside the key file `key`, where there is one.
    pub(super) fn beside(key: &Path) -> Option<Self> {
        let mut name = key.as_os_str().to_owned();
        name.push("-cert.pub");
        Self::load(Path::new(&name)).ok()
    }
}

/// What is the matter with its validity now, for the list of what was tried: the server only says no.
pub(super) fn remark(certificate: &Certificate) -> &'static str {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    if certificate.valid_before() <= now {
        ", expired"
    } else if certificate.valid_after() > now {
        ", not valid yet"
    } else {
        ""
    }
}
