//! Whether the server's host key is accepted. Invariant: an unknown or changed key is never accepted
//! silently.

mod address;
mod certificate;
mod offered;
mod revoked;
mod show;
mod words;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::PublicKey;
use tracing::{debug, error, info, warn};

pub(super) use self::offered::Offered;
pub(super) use self::show::{describe, fingerprint, type_name};

use self::certificate::Demands;
use self::words::{Change, Stranger};
use super::known_hosts::{Known, KnownHosts, Place, Verdict, host_name, learn};
use crate::carrier::error::{CertificateFault, HostKeyError};
use crate::carrier::failure;
use crate::carrier::prompt::Prompter;
use crate::plan::{HostKeyPolicy, SshPlan};

/// How many times an answer that is neither yes nor no is asked again.
const MAX_QUESTIONS: usize = 3;
/// Characters that mean something in known_hosts: a name with one of them is not written (sshconnect.c
/// `check_host_key`).
const UNWRITABLE: &str = "@?*#[]|'\"\\,";

/// A host key that was accepted.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) key: PublicKey,
}

impl Accepted {
    /// The same key is accepted again: who took it was asked already, and it may stand in no file (as ssh's
    /// `previous_host_key`).
    ///
    /// # Errors
    /// [`HostKeyError::NotAsBefore`] for any other.
    fn again(&self, key: &PublicKey) -> Result<(), HostKeyError> {
        if self.key.key_data() == key.key_data() {
            return Ok(());
        }
        Err(HostKeyError::NotAsBefore {
            offered: describe(key),
            before: describe(&self.key),
        })
    }
}

/// The check of one server's host key.
#[derive(Clone)]
pub(super) struct HostKeyCheck {
    plan: SshPlan,
    known: Arc<KnownHosts>,
    /// The host as known_hosts spells it, and, off the default port, without the port: that is good to confirm a key, as in
    /// ssh, but not to say that it has changed.
    names: Vec<String>,
    /// Where the connection leads, unless it goes through another host or a command.
    address: Option<IpAddr>,
    /// `None` where nobody may be asked: a further connection in the background, or BatchMode.
    prompter: Option<Arc<dyn Prompter>>,
    /// What the first connection to the server accepted.
    before: Option<Accepted>,
}

impl HostKeyCheck {
    /// Reads the known_hosts files of `plan`.
    pub(super) fn new(plan: &SshPlan, prompter: Option<Arc<dyn Prompter>>) -> Self {
        let files = plan.known_hosts.iter().chain(&plan.global_known_hosts);
        let files: Vec<_> = files.cloned().collect();
        let names = match &plan.host_key_alias {
            Some(alias) => vec![alias.to_ascii_lowercase()],
            None if plan.port == 22 => vec![host_name(&plan.host, 22)],
            None => vec![host_name(&plan.host, plan.port), host_name(&plan.host, 22)],
        };
        Self {
            plan: plan.clone(),
            known: Arc::new(KnownHosts::load(&files)),
            names,
            address: None,
            prompter: prompter.filter(|_| !plan.login.batch),
            before: None,
        }
    }

    /// Whether somebody may be asked.
    pub(super) fn has_person(&self) -> bool {
        self.prompter.is_some()
    }

    /// For a connection after the one that accepted `before`: its key is the only one that will do.
    pub(super) fn after(mut self, before: Option<Accepted>) -> Self {
        self.before = before;
        self
    }

    /// For a connection made from here to `address`: what is known of the address counts, too.
    pub(super) fn at(mut self, address: IpAddr) -> Self {
        self.address = Some(address.to_canonical());
        self
    }

    /// Decides about what was offered. May ask, so it blocks.
    ///
    /// # Errors
    /// [`HostKeyError`] when it is not accepted.
    pub(super) fn check(&self, offered: &Offered) -> Result<(), HostKeyError> {
        self.long_enough(&offered.key)?;
        self.not_revoked(offered)?;
        if let Some(before) = &self.before {
            return before.again(&offered.key);
        }
        let is_local = self.address.is_some_and(|address| address.is_loopback());
        if self.plan.trust_localhost && is_local && self.plan.host_key_alias.is_none() {
            debug!(
                "any host key will do at {:?}, a loopback address",
                self.address
            );
            return Ok(());
        }
        match self.certified(offered) {
            Ok(()) => Ok(()),
            Err(fault) => self.plain(&offered.key, &fault),
        }
    }

    /// The host as known_hosts spells it.
    fn host(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// Its name without the port, or its HostKeyAlias: what a certificate must have.
    fn bare_name(&self) -> &str {
        self.plan.host_key_alias.as_ref().unwrap_or(&self.plan.host)
    }

    fn long_enough(&self, key: &PublicKey) -> Result<(), HostKeyError> {
        let Some(rsa) = key.key_data().rsa() else {
            return Ok(());
        };
        let required = self.plan.required_rsa_size;
        let bits = rsa.key_size();
        if bits >= required {
            return Ok(());
        }
        Err(HostKeyError::Short {
            host: self.host().to_owned(),
            bits,
            required,
        })
    }

    /// A mark counts against the key and against the authority that signed it, whatever the policy is.
    fn not_revoked(&self, offered: &Offered) -> Result<(), HostKeyError> {
        let authority = offered.certificate.as_ref().map(certificate::authority);
        let keys = [Some(&offered.key), authority.as_ref()];
        let keys: Vec<_> = keys
            .into_iter()
            .flatten()
            .map(|key| key.key_data())
            .collect();
        if let Some(place) = revoked::find(&self.plan.revoked_host_keys, &keys)? {
            return Err(self.revoked(&offered.key, place));
        }
        let marks = self.known.of(&self.names);
        match keys.iter().find_map(|key| marks.revoked(key)) {
            Some(place) => Err(self.revoked(&offered.key, place.clone())),
            None => Ok(()),
        }
    }

    fn revoked(&self, key: &PublicKey, place: Place) -> HostKeyError {
        HostKeyError::Revoked {
            host: self.host().to_owned(),
            fingerprint: fingerprint(key),
            file: place.file,
            line: place.line,
        }
    }

    /// Whether an authority that is known for the host has signed for it. Where not, the plain key may still do, as in
    /// ssh.
    fn certified(&self, offered: &Offered) -> Result<(), CertificateFault> {
        let Some(certificate) = &offered.certificate else {
            return Err(CertificateFault::Missing);
        };
        let authority = certificate::authority(certificate);
        let known = self.known.of(&self.names);
        let Some(place) = known.authority(authority.key_data()) else {
            return Err(CertificateFault::Stranger(fingerprint(&authority)));
        };
        // A clock before 1970 makes every certificate one of the future.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let demands = Demands {
            name: self.bare_name(),
            now: now.map_or(0, |now| now.as_secs()),
            signatures: self.plan.algorithms.authorities.as_deref(),
        };
        certificate::check(certificate, &demands)
            .inspect_err(|fault| warn!("{}: {fault}", self.host()))?;
        debug!("{}: certified by {}", self.host(), words::at(place));
        Ok(())
    }

    fn plain(&self, key: &PublicKey, fault: &CertificateFault) -> Result<(), HostKeyError> {
        let (exact, bare) = self.names.split_at(1);
        match self.known.of(exact).verdict(key.key_data()) {
            Verdict::Known(_) => {
                if let Some(address) = self.new_address(key)? {
                    self.learn(vec![address], key);
                }
                Ok(())
            }
            Verdict::Changed(known) => Err(self.changed(key, &known)),
            Verdict::Revoked(place) => Err(self.revoked(key, place)),
            Verdict::Unknown => match self.known.of(bare).verdict(key.key_data()) {
                Verdict::Known(_) => self.new_address(key).map(|_| ()),
                _ => self.unknown(key, fault),
            },
        }
    }

    /// Whatever the policy is: where StrictHostKeyChecking=no lets ssh go on, it forwards nothing any more (sshconnect.c
    /// `check_host_key`), and to forward is all that we do.
    fn changed(&self, key: &PublicKey, known: &Known) -> HostKeyError {
        let lines = words::changed(&Change {
            algorithm: &type_name(&key.algorithm()),
            fingerprint: &fingerprint(key),
            known,
            known_algorithm: &type_name(&known.algorithm),
            address: self.differing_address(key, known),
            remove: &words::remove(known, self.host()),
        });
        for line in lines {
            error!("{line}");
        }
        if self.plan.host_keys == HostKeyPolicy::No {
            error!("Port forwarding is disabled to avoid man-in-the-middle attacks.");
        }
        HostKeyError::Changed {
            host: self.host().to_owned(),
            algorithm: type_name(&key.algorithm()).into(),
            fingerprint: fingerprint(key),
            file: known.place.file.clone(),
            line: known.place.line,
            remove: words::remove(known, self.host()).into(),
        }
    }

    fn unknown(&self, key: &PublicKey, fault: &CertificateFault) -> Result<(), HostKeyError> {
        let taken = match self.plan.host_keys {
            HostKeyPolicy::Yes => false,
            HostKeyPolicy::AcceptNew | HostKeyPolicy::No => true,
            HostKeyPolicy::Ask => self.ask(key, fault),
        };
        if !taken {
            return Err(self.not_taken(key, fault));
        }
        let mut names = vec![self.host().to_owned()];
        names.extend(self.new_address(key)?);
        self.learn(names, key);
        Ok(())
    }

    fn not_taken(&self, key: &PublicKey, fault: &CertificateFault) -> HostKeyError {
        let host = self.host().to_owned();
        match self.known.of(&self.names).any_authority() {
            Some(place) => HostKeyError::Certificate {
                host,
                fingerprint: fingerprint(key),
                fault: Box::new(fault.clone()),
                file: place.file.clone(),
                line: place.line,
            },
            None => HostKeyError::Unknown {
                advice: self.plan.to_learn_its_key().into(),
                host,
                algorithm: type_name(&key.algorithm()),
                fingerprint: fingerprint(key),
            },
        }
    }

    fn ask(&self, key: &PublicKey, fault: &CertificateFault) -> bool {
        let fingerprint = fingerprint(key);
        let file = self.file_to_write();
        let has_authority = self.known.of(&self.names).any_authority().is_some();
        let question = words::question(&Stranger {
            host: self.host(),
            address: self
                .address
                .map(|a| host_name(&a.to_string(), self.plan.port)),
            algorithm: &type_name(&key.algorithm()),
            fingerprint: &fingerprint,
            others: self.known.names_of(key).collect(),
            fault: has_authority.then(|| fault.to_string()),
            file: file.map(|file| file.display().to_string()),
        });
        let again = "Please type 'yes', 'no' or the fingerprint: ";
        self.is_confirmed(question, again, Some(&fingerprint))
    }

    /// Asks until the answer is yes (or what else means that) or no (sshconnect.c `confirm`).
    fn is_confirmed(&self, mut question: String, again: &str, or: Option<&str>) -> bool {
        let Some(prompter) = &self.prompter else {
            return false;
        };
        for _ in 0..MAX_QUESTIONS {
            let Some(answer) = prompter.line(&question) else {
                return false;
            };
            match answer.trim() {
                "" => return false,
                answer if answer.eq_ignore_ascii_case("no") => return false,
                answer if answer.eq_ignore_ascii_case("yes") || Some(answer) == or => return true,
                _ => again.clone_into(&mut question),
            }
        }
        false
    }

    fn file_to_write(&self) -> Option<&std::path::Path> {
        let is_special = |c: char| UNWRITABLE.contains(c) || c.is_whitespace() || c.is_control();
        if self.bare_name().is_empty() || self.bare_name().contains(is_special) {
            return None;
        }
        self.plan.file_for_keys()
    }

    /// Writes the key down. Where that fails the key still holds for this connection: it was taken.
    fn learn(&self, names: Vec<String>, key: &PublicKey) {
        let shown = names.join(",");
        let algorithm = type_name(&key.algorithm());
        let Some(file) = self.file_to_write() else {
            warn!(
                "the {algorithm} host key of {shown} is not kept: there is no known_hosts file for it"
            );
            return;
        };
        match learn(file, &names, key, self.plan.hash_known_hosts) {
            Ok(()) => info!(
                "added {shown} ({algorithm}, {}) to {}",
                fingerprint(key),
                file.display()
            ),
            Err(error) => warn!(
                "the {algorithm} host key of {shown} cannot be written to {}: {}",
                file.display(),
                failure::words(&error)
            ),
        }
    }
}

#[cfg(test)]
mod tests;
