//! Every policy against every kind of key.

use super::*;
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey};
use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use zeroize::Zeroizing;

const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

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

fn key(text: &str) -> Offered {
    PublicKey::from_openssh(text).unwrap().into()
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
    let right = fingerprint(&key(A).key);
    let wrong = fingerprint(&key(B).key);
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

/// With `no` ssh goes on, but forwards nothing.
#[test]
fn accept_new_takes_a_new_key_but_no_policy_a_changed_one() {
    let dir = tempfile::tempdir().unwrap();
    check(dir.path(), HostKeyPolicy::AcceptNew, None)
        .check(&key(A))
        .unwrap();
    for policy in [
        HostKeyPolicy::AcceptNew,
        HostKeyPolicy::Ask,
        HostKeyPolicy::Yes,
        HostKeyPolicy::No,
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
        assert!(text.ends_with(" -R '[bastion]:2222'"), "{text}");
        assert!(person.asked.lock().unwrap().is_empty());
    }
}

#[test]
fn a_revoked_key_is_refused_under_every_policy() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("known_hosts"),
        format!("[bastion]:2222 {A}\n"),
    )
    .unwrap();
    fs::write(dir.path().join("known_hosts2"), format!("@revoked * {A}\n")).unwrap();
    for policy in [HostKeyPolicy::No, HostKeyPolicy::AcceptNew] {
        let error = check(dir.path(), policy, None).check(&key(A)).unwrap_err();
        assert!(matches!(error, HostKeyError::Revoked { line: 1, .. }));
    }
}

#[test]
fn a_file_that_cannot_be_written_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("known_hosts")).unwrap();
    check(dir.path(), HostKeyPolicy::AcceptNew, None)
        .check(&key(A))
        .unwrap();
}

#[test]
fn known_types_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let all = russh::Preferred::DEFAULT.key;
    let preferred = {
        let ecdsa = PrivateKey::random(
            &mut rand::rng(),
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP256,
            },
        )
        .unwrap();
        let line = ecdsa.public_key().to_openssh().unwrap();
        fs::write(
            dir.path().join("known_hosts"),
            format!("[bastion]:2222 {line}\n"),
        )
        .unwrap();
        check(dir.path(), HostKeyPolicy::Yes, None).preferred(&all)
    };
    assert!(matches!(preferred[0], Algorithm::Ecdsa { .. }));
    assert_eq!(preferred.len(), all.len());
}

/// A plan with one file of known hosts, which holds `known`.
fn plan(dir: &Path, policy: HostKeyPolicy, known: &str) -> SshPlan {
    fs::write(dir.join("known_hosts"), known).unwrap();
    SshPlan {
        host_keys: policy,
        known_hosts: vec![dir.join("known_hosts")],
        ..SshPlan::new("bastion", 22, "me")
    }
}

fn decide(plan: &SshPlan, offered: &Offered) -> Result<(), HostKeyError> {
    HostKeyCheck::new(plan, None).check(offered)
}

fn written(plan: &SshPlan) -> String {
    fs::read_to_string(&plan.known_hosts[0]).unwrap()
}

#[test]
fn the_port_matters_but_a_name_without_it_confirms() {
    let dir = tempfile::tempdir().unwrap();
    for (known, port, expected) in [
        (format!("bastion {A}"), 22, true),
        (format!("bastion {A}"), 2222, true),
        (format!("[bastion]:2222 {A}"), 2222, true),
        (format!("[bastion]:2222 {A}"), 22, false),
        (format!("[bastion]:22 {A}"), 22, false),
        // Confirms, but does not accuse.
        (format!("[bastion]:2222 {A}\nbastion {B}"), 2222, true),
    ] {
        let plan = SshPlan {
            port,
            ..plan(dir.path(), HostKeyPolicy::Yes, &known)
        };
        assert_eq!(decide(&plan, &key(A)).is_ok(), expected, "{known} {port}");
    }
    let known = format!("bastion {B}");
    let plan = SshPlan {
        port: 2222,
        ..plan(dir.path(), HostKeyPolicy::Yes, &known)
    };
    let error = decide(&plan, &key(A)).unwrap_err();
    assert!(matches!(error, HostKeyError::Unknown { .. }), "{error}");
}

#[test]
fn an_alias_stands_for_host_and_port() {
    let dir = tempfile::tempdir().unwrap();
    let plan = SshPlan {
        port: 2222,
        host_key_alias: Some("Prod".to_owned()),
        ..plan(
            dir.path(),
            HostKeyPolicy::AcceptNew,
            &format!("bastion {B}\n[bastion]:2222 {B}\n"),
        )
    };
    decide(&plan, &key(A)).unwrap();
    assert!(written(&plan).ends_with(&format!("\nprod {A}\n")));
    decide(&plan, &key(A)).unwrap();
    let error = decide(&plan, &key(B)).unwrap_err();
    assert!(error.to_string().ends_with("-R prod"), "{error}");
}

#[test]
fn names_are_hashed_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let plan = SshPlan {
        hash_known_hosts: true,
        ..plan(dir.path(), HostKeyPolicy::AcceptNew, "")
    };
    decide(&plan, &key(A)).unwrap();
    assert!(written(&plan).starts_with("|1|"));
    assert!(decide(&plan, &key(B)).is_err());
    decide(&plan, &key(A)).unwrap();
}

#[test]
fn a_name_that_would_be_a_pattern_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    for host in [
        "ba*", "a,b", "a b", "[x]", "|1|", "@revoked", "#", "!a\n*", "",
    ] {
        let plan = SshPlan {
            host: host.to_owned(),
            ..plan(dir.path(), HostKeyPolicy::AcceptNew, "")
        };
        decide(&plan, &key(A)).unwrap();
        assert_eq!(written(&plan), "", "{host:?}");
    }
}

#[test]
fn no_file_to_write_to_is_said() {
    let person = Person::saying(&["yes"]);
    let plan = SshPlan::new("bastion", 22, "me");
    HostKeyCheck::new(&plan, Some(Arc::clone(&person) as Arc<dyn Prompter>))
        .check(&key(A))
        .unwrap();
    let asked = person.asked.lock().unwrap();
    assert!(
        asked[0].contains("\nThe key will not be kept: "),
        "{asked:?}"
    );
}

#[test]
fn nobody_is_asked_in_batch_mode() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = plan(dir.path(), HostKeyPolicy::Ask, "");
    plan.login.batch = true;
    let person = Person::saying(&["yes"]);
    let check = HostKeyCheck::new(&plan, Some(Arc::clone(&person) as Arc<dyn Prompter>));
    assert!(check.check(&key(A)).is_err());
    assert!(person.asked.lock().unwrap().is_empty());
}

#[test]
fn a_key_that_only_a_pattern_knows_is_removed_by_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), HostKeyPolicy::Yes, &format!("#\nb* {B}\n"));
    let error = decide(&plan, &key(A)).unwrap_err().to_string();
    assert!(
        error.contains("remove the known key: sed -i.old 2d /"),
        "{error}"
    );
}

#[test]
fn the_address_is_checked_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let at = "192.0.2.1".parse().unwrap();
    let decide = |known: &str, policy, answers: &[&str]| {
        let plan = SshPlan {
            check_host_ip: true,
            ..plan(dir.path(), policy, known)
        };
        let person = Person::saying(answers);
        let check = HostKeyCheck::new(&plan, Some(Arc::clone(&person) as Arc<dyn Prompter>)).at(at);
        let result = check.check(&key(A));
        let asked = person.asked.lock().unwrap().clone();
        (result, written(&plan), asked)
    };
    // A new address of a known host, and of a new one.
    let known = format!("bastion {A}\n");
    let (result, text, _) = decide(&known, HostKeyPolicy::Yes, &[]);
    assert_eq!((result, text), (Ok(()), format!("{known}192.0.2.1 {A}\n")));
    let (result, text, asked) = decide("", HostKeyPolicy::Ask, &["yes"]);
    assert_eq!((result, text), (Ok(()), format!("bastion,192.0.2.1 {A}\n")));
    assert!(asked[0].starts_with("The authenticity of host 'bastion (192.0.2.1)' can't"));
    // An address with another key.
    let known = format!("bastion {A}\n192.0.2.1 {B}\n");
    for policy in [HostKeyPolicy::Yes, HostKeyPolicy::AcceptNew] {
        let (result, _, _) = decide(&known, policy, &["yes"]);
        let error = result.unwrap_err();
        assert!(
            matches!(error, HostKeyError::AddressDiffers { line: 2, .. }),
            "{error}"
        );
    }
    let (result, _, asked) = decide(&known, HostKeyPolicy::Ask, &["maybe", "yes"]);
    assert_eq!(result, Ok(()));
    assert!(
        asked[0].contains("differs from the key for the IP address '192.0.2.1'"),
        "{asked:?}"
    );
    assert!(asked[0].ends_with("(yes/no)? "));
    assert!(decide(&known, HostKeyPolicy::Ask, &["no"]).0.is_err());
    assert_eq!(decide(&known, HostKeyPolicy::No, &[]).0, Ok(()));
    // Both have the same key, or the host's has changed alone: a changed key is one all the same.
    for known in [
        format!("bastion,192.0.2.1 {B}\n"),
        format!("bastion {B}\n192.0.2.1 {A}\n"),
    ] {
        let error = decide(&known, HostKeyPolicy::Ask, &["yes"]).0.unwrap_err();
        assert!(matches!(error, HostKeyError::Changed { .. }), "{error}");
    }
}

#[test]
fn the_address_is_not_looked_for_by_default() {
    let dir = tempfile::tempdir().unwrap();
    let known = format!("bastion {A}\n192.0.2.1 {B}\n");
    let plan = plan(dir.path(), HostKeyPolicy::Yes, &known);
    let check = HostKeyCheck::new(&plan, None).at("192.0.2.1".parse().unwrap());
    assert_eq!(check.check(&key(A)), Ok(()));
    assert_eq!(written(&plan), known);
}

#[test]
fn localhost_may_be_anybody_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let known = format!("bastion {B}\n");
    let plan = SshPlan {
        trust_localhost: true,
        ..plan(dir.path(), HostKeyPolicy::Yes, &known)
    };
    let at = |plan: &SshPlan, address: &str| {
        HostKeyCheck::new(plan, None)
            .at(address.parse().unwrap())
            .check(&key(A))
    };
    for address in ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(at(&plan, address), Ok(()), "{address}");
    }
    assert!(at(&plan, "192.0.2.1").is_err());
    assert!(decide(&plan, &key(A)).is_err());
    let plan = SshPlan {
        host_key_alias: Some("bastion".to_owned()),
        ..plan
    };
    assert!(at(&plan, "127.0.0.1").is_err());
}

#[test]
fn revoked_in_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let revoked = dir.path().join("revoked");
    let plan = SshPlan {
        revoked_host_keys: vec![revoked.clone()],
        ..plan(dir.path(), HostKeyPolicy::No, &format!("bastion {A}\n"))
    };
    fs::write(&revoked, format!("{B}\n{A}\n")).unwrap();
    let error = decide(&plan, &key(A)).unwrap_err();
    assert!(
        matches!(error, HostKeyError::Revoked { line: 2, .. }),
        "{error}"
    );
    fs::remove_file(&revoked).unwrap();
    let error = decide(&plan, &key(A)).unwrap_err();
    assert!(matches!(error, HostKeyError::Revocations { .. }), "{error}");
}

#[test]
fn short_rsa_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rsa");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"])
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    let line = fs::read_to_string(path.with_extension("pub")).unwrap();
    let plan = SshPlan {
        required_rsa_size: 2048,
        ..plan(dir.path(), HostKeyPolicy::Yes, &format!("bastion {line}"))
    };
    decide(&plan, &key(&line)).unwrap();
    let plan = SshPlan {
        required_rsa_size: 3072,
        ..plan
    };
    let error = decide(&plan, &key(&line)).unwrap_err();
    assert!(
        matches!(error, HostKeyError::Short { bits: 2048, .. }),
        "{error}"
    );
}

#[test]
fn certificates_are_asked_for_where_an_authority_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let all = russh::Preferred::DEFAULT.key;
    let names = |plan: &SshPlan| -> Vec<_> {
        let asked = HostKeyCheck::new(plan, None).certificates(&all);
        asked.iter().map(Algorithm::to_certificate_type).collect()
    };
    let none = plan(
        dir.path(),
        HostKeyPolicy::Yes,
        &format!("bastion {A}\n@cert-authority other {A}\n"),
    );
    assert!(names(&none).is_empty());
    let some = plan(
        dir.path(),
        HostKeyPolicy::Yes,
        &format!("@cert-authority b* {A}\n"),
    );
    let asked = names(&some);
    assert_eq!(asked.len(), all.len() - 1);
    assert!(!asked.contains(&"ssh-rsa-cert-v01@openssh.com".to_owned()));
    let mut chosen = some;
    let list = [
        "ssh-ed25519",
        "rsa-sha2-512-cert-v01@openssh.com",
        "ssh-ed25519-cert-v01@openssh.com",
        "x",
    ];
    chosen.algorithms.host_keys = Some(list.map(str::to_owned).to_vec());
    assert_eq!(
        names(&chosen),
        [
            "rsa-sha2-512-cert-v01@openssh.com",
            "ssh-ed25519-cert-v01@openssh.com"
        ]
    );
}

/// A file that takes nothing, as with `UserKnownHostsFile=/dev/null`: who took the key is not asked about it again.
#[test]
fn the_key_that_was_accepted_is_the_only_one_that_will_do_again() {
    let plan = SshPlan {
        known_hosts: vec!["/dev/null".into()],
        ..SshPlan::new("bastion", 2222, "me")
    };
    let nobody = HostKeyCheck::new(&plan, None);
    assert!(nobody.check(&key(A)).is_err());
    let before = Accepted { key: key(A).key };
    let again = nobody.after(Some(before));
    assert_eq!(again.check(&key(A)), Ok(()));
    let error = again.check(&key(B)).unwrap_err();
    assert!(
        matches!(&error, HostKeyError::NotAsBefore { offered, before } if offered != before),
        "{error}"
    );
}

#[test]
fn what_was_revoked_meanwhile_is_not_accepted_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("known_hosts"), format!("@revoked * {A}\n")).unwrap();
    let before = Accepted { key: key(A).key };
    let again = check(dir.path(), HostKeyPolicy::Ask, None).after(Some(before));
    let error = again.check(&key(A)).unwrap_err();
    assert!(matches!(error, HostKeyError::Revoked { .. }), "{error}");
}

#[test]
fn the_type_that_was_accepted_before_is_asked_for_first() {
    let dir = tempfile::tempdir().unwrap();
    let before = Accepted { key: key(A).key };
    let again = check(dir.path(), HostKeyPolicy::Ask, None).after(Some(before));
    let ecdsa = Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    };
    let all = [ecdsa.clone(), Algorithm::Ed25519];
    assert_eq!(again.preferred(&all), [Algorithm::Ed25519, ecdsa]);
}
