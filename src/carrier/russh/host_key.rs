//! Whether the server's host key is accepted. Invariant: an unknown or changed key is never accepted
//! silently.

use std::sync::Arc;

use russh::keys::ssh_key::HashAlg;
use russh::keys::{Algorithm, PublicKey};
use tracing::{info, warn};

use super::known_hosts::{KnownKeys, Place, Verdict, host_name, learn};
use crate::carrier::error::HostKeyError;
use crate::carrier::prompt::Prompter;
use crate::plan::{HostKeyPolicy, SshPlan};

/// How many times an answer that is neither yes nor no is asked again.
const MAX_QUESTIONS: usize = 3;

/// The check of one server's host key.
#[derive(Clone)]
pub(super) struct HostKeyCheck {
    plan: SshPlan,
    known: KnownKeys,
    /// `None` where nobody may be asked: a further connection in the background.
    prompter: Option<Arc<dyn Prompter>>,
}

impl HostKeyCheck {
    /// Reads the known_hosts files of `plan`.
    pub(super) fn new(plan: &SshPlan, prompter: Option<Arc<dyn Prompter>>) -> Self {
        let files = plan.known_hosts.iter().chain(&plan.global_known_hosts);
        let files: Vec<_> = files.cloned().collect();
        Self {
            plan: plan.clone(),
            known: KnownKeys::load(&files, &plan.host, plan.port),
            prompter,
        }
    }

    /// The host key algorithms to offer: `all`, those of the host's known keys first, as ssh does. A known key
    /// is then not missed because the server has one of another type too.
    pub(super) fn preferred(&self, all: &[Algorithm]) -> Vec<Algorithm> {
        let known = self.known.algorithms();
        let is_known = |offered: &&Algorithm| known.iter().any(|k| same_type(k, offered));
        let (mut first, rest): (Vec<_>, Vec<_>) = all.iter().partition(is_known);
        first.extend(rest);
        first.into_iter().cloned().collect()
    }

    /// Decides about `key`. May ask, so it blocks.
    ///
    /// # Errors
    /// [`HostKeyError`] when the key is not accepted.
    pub(super) fn check(&self, key: &PublicKey) -> Result<(), HostKeyError> {
        match self.known.verdict(key) {
            Verdict::Known => Ok(()),
            Verdict::Revoked(place) => Err(self.revoked(key, place)),
            Verdict::Changed(place) => self.changed(key, place),
            Verdict::Unknown => self.unknown(key),
        }
    }

    fn host(&self) -> String {
        host_name(&self.plan.host, self.plan.port)
    }

    fn revoked(&self, key: &PublicKey, place: Place) -> HostKeyError {
        HostKeyError::Revoked {
            host: self.host(),
            fingerprint: fingerprint(key),
            file: place.file,
            line: place.line,
        }
    }

    fn changed(&self, key: &PublicKey, place: Place) -> Result<(), HostKeyError> {
        let error = HostKeyError::Changed {
            host: self.host(),
            algorithm: type_name(&key.algorithm()),
            fingerprint: fingerprint(key),
            file: place.file,
            line: place.line,
        };
        if self.plan.host_keys == HostKeyPolicy::No {
            warn!("{error}. Going on all the same, because of StrictHostKeyChecking=no");
            return Ok(());
        }
        Err(error)
    }

    fn unknown(&self, key: &PublicKey) -> Result<(), HostKeyError> {
        let taken = match self.plan.host_keys {
            HostKeyPolicy::Yes => false,
            HostKeyPolicy::AcceptNew | HostKeyPolicy::No => true,
            HostKeyPolicy::Ask => self.ask(key),
        };
        if !taken {
            return Err(HostKeyError::Unknown {
                host: self.host(),
                algorithm: type_name(&key.algorithm()),
                fingerprint: fingerprint(key),
            });
        }
        self.learn(key);
        Ok(())
    }

    /// ssh's own question (sshconnect.c `check_host_key`).
    fn ask(&self, key: &PublicKey) -> bool {
        let Some(prompter) = &self.prompter else {
            return false;
        };
        let fingerprint = fingerprint(key);
        let mut question = self.question(key, &fingerprint);
        for _ in 0..MAX_QUESTIONS {
            let Some(answer) = prompter.line(&question) else {
                return false;
            };
            match answer.trim() {
                "no" => return false,
                answer if answer.eq_ignore_ascii_case("yes") || answer == fingerprint => {
                    return true;
                }
                _ => question = "Please type 'yes', 'no' or the fingerprint: ".to_owned(),
            }
        }
        false
    }

    fn question(&self, key: &PublicKey, fingerprint: &str) -> String {
        let host = self.host();
        let algorithm = type_name(&key.algorithm());
        let known = match self.known.any_exact() {
            Some(place) => format!(
                "This host is known by a key of another type: {}:{}.",
                place.file.display(),
                place.line
            ),
            None => "This key is not known by any other names.".to_owned(),
        };
        format!(
            "The authenticity of host '{host}' can't be established.\n\
             {algorithm} key fingerprint is {fingerprint}.\n\
             {known}\n\
             Are you sure you want to continue connecting (yes/no/[fingerprint])? "
        )
    }

    /// Writes the key down. Where that fails the key still holds for this connection: a person took it.
    fn learn(&self, key: &PublicKey) {
        let host = self.host();
        let algorithm = type_name(&key.algorithm());
        let Some(file) = self.plan.known_hosts.first() else {
            warn!("the {algorithm} host key of {host} is not kept: there is no known_hosts file");
            return;
        };
        match learn(file, &self.plan.host, self.plan.port, key) {
            Ok(()) => info!(
                "added {host} ({algorithm}, {}) to {}",
                fingerprint(key),
                file.display()
            ),
            Err(error) => warn!(
                "the {algorithm} host key of {host} cannot be written to {}: {error}",
                file.display()
            ),
        }
    }
}

/// `SHA256:...`
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// The type as ssh names it to people: `ED25519`, `RSA`, `ECDSA`.
pub(super) fn type_name(algorithm: &Algorithm) -> String {
    match algorithm {
        Algorithm::Ed25519 => "ED25519".to_owned(),
        Algorithm::Rsa { .. } => "RSA".to_owned(),
        Algorithm::Ecdsa { .. } => "ECDSA".to_owned(),
        Algorithm::SkEd25519 => "ED25519-SK".to_owned(),
        Algorithm::SkEcdsaSha2NistP256 => "ECDSA-SK".to_owned(),
        other => other.as_str().to_owned(),
    }
}

/// RSA keys are of one type whatever hash signs.
fn same_type(a: &Algorithm, b: &Algorithm) -> bool {
    a == b || matches!((a, b), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::path::Path;
    use std::sync::Mutex;
    use zeroize::Zeroizing;

    const A: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const B: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[derive(Default)]
    struct Person {
        answers: Mutex<VecDeque<String>>,
        asked: Mutex<Vec<String>>,
    }

    impl Person {
        fn saying(answers: &[&str]) -> Arc<Self> {
            Arc::new(Self {
                answers: Mutex::new(answers.iter().map(|a| (*a).to_owned()).collect()),
                asked: Mutex::default(),
            })
        }
    }

    impl Prompter for Person {
        fn secret(&self, _prompt: &str) -> Option<Zeroizing<String>> {
            None
        }

        fn line(&self, prompt: &str) -> Option<String> {
            self.asked.lock().unwrap().push(prompt.to_owned());
            self.answers.lock().unwrap().pop_front()
        }
    }

    fn check(dir: &Path, policy: HostKeyPolicy, person: Option<&Arc<Person>>) -> HostKeyCheck {
        let plan = SshPlan {
            host_keys: policy,
            known_hosts: vec![dir.join("known_hosts"), dir.join("known_hosts2")],
            ..SshPlan::new("bastion", 2222, "me")
        };
        HostKeyCheck::new(&plan, person.map(|p| Arc::clone(p) as Arc<dyn Prompter>))
    }

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    #[test]
    fn a_new_key_is_asked_for_in_ssh_words() {
        let dir = tempfile::tempdir().unwrap();
        let person = Person::saying(&["maybe", "yes"]);
        check(dir.path(), HostKeyPolicy::Ask, Some(&person))
            .check(&key(A))
            .unwrap();
        let asked = person.asked.lock().unwrap();
        assert!(asked[0].starts_with(
            "The authenticity of host '[bastion]:2222' can't be established.\nED25519 key fingerprint is SHA256:"
        ));
        assert!(asked[0].ends_with("(yes/no/[fingerprint])? "));
        assert_eq!(asked[1], "Please type 'yes', 'no' or the fingerprint: ");
        // Known from now on, also to those who ask nobody.
        check(dir.path(), HostKeyPolicy::Yes, None)
            .check(&key(A))
            .unwrap();
    }

    #[test]
    fn the_fingerprint_is_an_answer_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let right = fingerprint(&key(A));
        let wrong = fingerprint(&key(B));
        let person = Person::saying(&[&wrong, &wrong, &wrong, &right]);
        let ask = check(dir.path(), HostKeyPolicy::Ask, Some(&person));
        assert!(ask.check(&key(A)).is_err());
        ask.check(&key(A)).unwrap();
    }

    #[test]
    fn silence_and_no_refuse() {
        let dir = tempfile::tempdir().unwrap();
        for person in [Person::saying(&["no"]), Person::saying(&[])] {
            let error = check(dir.path(), HostKeyPolicy::Ask, Some(&person)).check(&key(A));
            assert!(matches!(error, Err(HostKeyError::Unknown { .. })));
        }
        for policy in [HostKeyPolicy::Ask, HostKeyPolicy::Yes] {
            assert!(check(dir.path(), policy, None).check(&key(A)).is_err());
        }
        assert!(!dir.path().join("known_hosts").exists());
    }

    #[test]
    fn accept_new_takes_a_new_key_but_no_changed_one() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path(), HostKeyPolicy::AcceptNew, None)
            .check(&key(A))
            .unwrap();
        for policy in [
            HostKeyPolicy::AcceptNew,
            HostKeyPolicy::Ask,
            HostKeyPolicy::Yes,
        ] {
            let person = Person::saying(&["yes"]);
            let error = check(dir.path(), policy, Some(&person))
                .check(&key(B))
                .unwrap_err();
            let text = error.to_string();
            assert!(
                matches!(error, HostKeyError::Changed { line: 1, .. }),
                "{text}"
            );
            assert!(
                text.contains("ssh-keygen -R '[bastion]:2222' -f "),
                "{text}"
            );
            assert!(person.asked.lock().unwrap().is_empty());
        }
        check(dir.path(), HostKeyPolicy::No, None)
            .check(&key(B))
            .unwrap();
    }

    #[test]
    fn a_revoked_key_is_refused_under_every_policy() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("known_hosts"),
            format!("[bastion]:2222 {A}\n"),
        )
        .unwrap();
        std::fs::write(dir.path().join("known_hosts2"), format!("@revoked * {A}\n")).unwrap();
        for policy in [HostKeyPolicy::No, HostKeyPolicy::AcceptNew] {
            let error = check(dir.path(), policy, None).check(&key(A)).unwrap_err();
            assert!(matches!(error, HostKeyError::Revoked { line: 1, .. }));
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("known_hosts")).unwrap();
        check(dir.path(), HostKeyPolicy::AcceptNew, None)
            .check(&key(A))
            .unwrap();
    }

    #[test]
    fn known_types_come_first() {
        let dir = tempfile::tempdir().unwrap();
        let all = russh::Preferred::DEFAULT.key;
        let preferred = {
            let ecdsa = russh::keys::PrivateKey::random(
                &mut rand::rng(),
                Algorithm::Ecdsa {
                    curve: russh::keys::EcdsaCurve::NistP256,
                },
            )
            .unwrap();
            let line = ecdsa.public_key().to_openssh().unwrap();
            std::fs::write(
                dir.path().join("known_hosts"),
                format!("[bastion]:2222 {line}\n"),
            )
            .unwrap();
            check(dir.path(), HostKeyPolicy::Yes, None).preferred(&all)
        };
        assert!(matches!(preferred[0], Algorithm::Ecdsa { .. }));
        assert_eq!(preferred.len(), all.len());
    }
}
