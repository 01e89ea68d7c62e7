//! What a security officer asks about a login.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::check::Check;
use crate::carrier::Description;
use crate::carrier::examine::Answer;
use crate::carrier::russh::{KeyFacts, KeyLock, key_facts};
use crate::plan::{HostKeyPolicy, SshPlan};

/// An RSA key shorter than this is not to be used any more, and one shorter than that soon, in bits (NIST SP 800-57
/// part 1, table 2: 112 bits of strength until 2030).
const RSA_BROKEN: u32 = 2048;
const RSA_SHORT: u32 = 3072;
/// A key older than this should be replaced.
const OLD: Duration = Duration::from_secs(2 * 365 * 24 * 3600);

/// A key file of the plan.
#[derive(Clone, Debug)]
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    pub(super) facts: Result<KeyFacts, String>,
    /// Since it was changed last.
    pub(super) age: Option<Duration>,
}

impl KeyFile {
    pub(super) fn read(path: PathBuf) -> Self {
        let changed = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
        let age = changed
            .ok()
            .map(|time| SystemTime::now().duration_since(time));
        Self {
            facts: key_facts(&path),
            age: age.map(Result::unwrap_or_default),
            path,
        }
    }

    fn fingerprint(&self) -> Option<&str> {
        self.facts.as_ref().ok()?.fingerprint.as_deref()
    }
}

/// The key files that count: the one that let us in, where it is known, else all.
fn relevant<'a>(files: &'a [KeyFile], login: Option<&Description>) -> Vec<&'a KeyFile> {
    let key = login.and_then(|login| login.key.as_deref());
    let used = files
        .iter()
        .find(|file| key.is_some() && file.fingerprint() == key);
    match (used, login) {
        (Some(file), _) => vec![file],
        // Logged in with something else: an agent's key, a password.
        (None, Some(_)) => Vec::new(),
        (None, None) => files.iter().collect(),
    }
}

/// What let us in, and the key files behind it.
pub(super) fn keys(files: &[KeyFile], login: Option<&Description>) -> Vec<Check> {
    let mut checks = Vec::new();
    let from_agent = login.is_some_and(|login| login.authentication.contains("from the agent"));
    if let Some(login) = login {
        checks.push(credential(login, from_agent));
    }
    for file in relevant(files, login) {
        match &file.facts {
            Ok(facts) => {
                checks.push(strength(file, facts));
                checks.push(passphrase(file, facts));
                checks.push(age(file));
            }
            Err(error) => checks.push(Check::warn(
                "key-type",
                format!("{}: {error}", file.path.display()),
                "see ssh-keygen -l -f FILE",
            )),
        }
    }
    checks
}

fn credential(login: &Description, from_agent: bool) -> Check {
    let found = match &login.key {
        Some(key) if !login.authentication.contains(key) => {
            format!("{} ({key})", login.authentication)
        }
        _ => login.authentication.clone(),
    };
    if from_agent || login.key.is_some() {
        Check::pass("credential", found)
    } else {
        Check::warn(
            "credential",
            format!("no key: {found}"),
            "a key with a passphrase, in an agent, cannot be guessed: ssh-keygen -t ed25519, ssh-copy-id",
        )
    }
}

fn strength(file: &KeyFile, facts: &KeyFacts) -> Check {
    let path = file.path.display();
    let kind = facts
        .kind
        .as_deref()
        .unwrap_or("a type that its passphrase hides");
    let replace = "replace it: ssh-keygen -t ed25519";
    match (kind, facts.bits) {
        (_, Some(bits)) if bits < RSA_BROKEN => {
            Check::fail("key-type", format!("{path}: RSA of {bits} bits"), replace)
        }
        (_, Some(bits)) if bits < RSA_SHORT => Check::warn(
            "key-type",
            format!("{path}: RSA of {bits} bits, enough until 2030"),
            replace,
        ),
        (_, Some(bits)) => Check::pass("key-type", format!("{path}: RSA of {bits} bits")),
        ("ssh-dss", _) => Check::fail("key-type", format!("{path}: DSA, which is broken"), replace),
        _ => Check::pass("key-type", format!("{path}: {kind}")),
    }
}

fn passphrase(file: &KeyFile, facts: &KeyFacts) -> Check {
    let path = file.path.display();
    match facts.lock {
        KeyLock::Locked => Check::pass("passphrase", format!("{path} is encrypted")),
        KeyLock::Hardware => Check::pass("passphrase", format!("{path}: the key is in hardware")),
        KeyLock::Elsewhere => Check::pass("passphrase", format!("{path} has the public half only")),
        KeyLock::Open => Check::warn(
            "passphrase",
            format!("{path} has no passphrase: whoever reads it can log in"),
            format!("ssh-keygen -p -f {path}, and an agent to type it once"),
        ),
    }
}

fn age(file: &KeyFile) -> Check {
    let path = file.path.display();
    let Some(age) = file.age else {
        return Check::skip("key-age", format!("{path} does not tell"));
    };
    let days = age.as_secs() / 86_400;
    let found = format!("{path} was changed {days} days ago");
    if age < OLD {
        Check::pass("key-age", found)
    } else {
        Check::warn(
            "key-age",
            found,
            "keys are to be replaced from time to time",
        )
    }
}

/// What else the server would take, by its answer to who had shown nothing yet.
pub(super) fn methods(login: &Description) -> Check {
    if login.methods.is_empty() {
        return match login.authentication.as_str() {
            "no authentication" => Check::fail(
                "password-login",
                "the server lets everybody in",
                "the server's administrator: PermitEmptyPasswords no, AuthenticationMethods publickey",
            ),
            _ => Check::skip("password-login", "ssh does not tell what the server takes"),
        };
    }
    let found = format!("the server takes: {}", login.methods.join(", "));
    let guessable = ["password", "keyboard-interactive"];
    if login
        .methods
        .iter()
        .any(|method| guessable.contains(&method.as_str()))
    {
        return Check::warn(
            "password-login",
            found,
            "the server's administrator: PasswordAuthentication no, unless a second factor is asked for",
        );
    }
    Check::pass("password-login", found)
}

/// What the configuration says, as it counts for this server.
pub(super) fn configuration(plan: &SshPlan, forwards_agent: Option<bool>) -> Vec<Check> {
    vec![
        root(plan),
        agent(forwards_agent),
        host_keys(plan),
        known_hosts(plan),
    ]
}

fn root(plan: &SshPlan) -> Check {
    if plan.user == "root" {
        return Check::warn(
            "root-login",
            "you log in as root, and forwarding needs no root there",
            "an account of its own: restrict,port-forwarding in its authorized_keys",
        );
    }
    Check::pass("root-login", format!("you log in as {}", plan.user))
}

fn agent(forwards: Option<bool>) -> Check {
    match forwards {
        Some(true) => Check::warn(
            "agent-forwarding",
            "ssh's configuration forwards the agent to this server; underpass never does",
            "root there can use your keys: ForwardAgent no, and ProxyJump instead",
        ),
        Some(false) => Check::pass("agent-forwarding", "not configured"),
        None => Check::skip("agent-forwarding", "the configuration does not tell"),
    }
}

fn host_keys(plan: &SshPlan) -> Check {
    match plan.host_keys {
        HostKeyPolicy::Yes => Check::pass("strict-host-key", "yes: a new key is refused"),
        HostKeyPolicy::Ask => Check::pass("strict-host-key", "ask: a new key is shown to you"),
        HostKeyPolicy::AcceptNew => Check::warn(
            "strict-host-key",
            "accept-new: whoever answers first is believed",
            "compare the fingerprint once, then StrictHostKeyChecking yes",
        ),
        HostKeyPolicy::No => Check::warn(
            "strict-host-key",
            "no: whoever answers is believed, and may read everything",
            "StrictHostKeyChecking yes, with the server's key in known_hosts",
        ),
    }
}

fn known_hosts(plan: &SshPlan) -> Check {
    if plan.hash_known_hosts {
        return Check::pass("known-hosts", "names are hashed (HashKnownHosts yes)");
    }
    Check::warn(
        "known-hosts",
        "names of servers stand in clear in known_hosts",
        "whoever reads the file learns where you go: HashKnownHosts yes, ssh-keygen -H for those that are there",
    )
}

/// What the key may do beside forwarding.
pub(super) fn restrictions(
    exec: &Answer,
    terminal: &Answer,
    sftp: &Answer,
    runs_ours: bool,
) -> Check {
    let is_granted = |answer: &Answer| matches!(answer, Answer::Granted(_));
    let mut may = Vec::new();
    if runs_ours {
        may.push("run commands");
    }
    if is_granted(terminal) {
        may.push("have a terminal");
    }
    if is_granted(sftp) {
        may.push("use sftp");
    }
    if may.is_empty() {
        let instead = if is_granted(exec) {
            " (a forced command answers)"
        } else {
            ""
        };
        return Check::pass("restrictions", format!("port forwarding only{instead}"));
    }
    let found = format!("beside forwarding, this login may {}", may.join(", "));
    if is_granted(terminal) {
        return Check::warn(
            "restrictions",
            found,
            "where forwarding is enough: restrict,port-forwarding,command=\"/bin/false\" in authorized_keys",
        );
    }
    Check::pass(
        "restrictions",
        format!("{found}; no terminal: the key is restricted"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict::{self, Fail, Pass, Skip, Warn};
    use super::*;

    fn file(bits: Option<u32>, lock: KeyLock, days: u64) -> KeyFile {
        let kind = if bits.is_some() { "RSA" } else { "ED25519" };
        KeyFile {
            path: "/k".into(),
            facts: Ok(KeyFacts {
                kind: Some(kind.to_owned()),
                bits,
                fingerprint: Some("SHA256:k".to_owned()),
                lock,
            }),
            age: Some(Duration::from_secs(days * 86_400)),
        }
    }

    fn login(key: Option<&str>, authentication: &str, methods: &[&str]) -> Description {
        Description {
            server: None,
            host_key: "ED25519 SHA256:h".to_owned(),
            cipher: "c".to_owned(),
            authentication: authentication.to_owned(),
            key: key.map(str::to_owned),
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        }
    }

    fn verdicts(checks: &[Check]) -> Vec<(&str, Verdict)> {
        checks
            .iter()
            .map(|check| (check.check, check.verdict))
            .collect()
    }

    #[test]
    fn a_key_file_is_judged_by_type_passphrase_and_age() {
        for (bits, lock, days, expected) in [
            (None, KeyLock::Locked, 1, [Pass, Pass, Pass]),
            (None, KeyLock::Open, 1, [Pass, Warn, Pass]),
            (Some(1024), KeyLock::Hardware, 1, [Fail, Pass, Pass]),
            (Some(2048), KeyLock::Elsewhere, 1_000, [Warn, Pass, Warn]),
            (Some(4096), KeyLock::Locked, 729, [Pass, Pass, Pass]),
        ] {
            let checks = keys(&[file(bits, lock, days)], None);
            let found: Vec<Verdict> = checks.iter().map(|check| check.verdict).collect();
            assert_eq!(found, expected, "{bits:?} {lock:?} {days}");
        }
    }

    #[test]
    fn the_key_that_let_us_in_counts() {
        let mut other = file(Some(1024), KeyLock::Open, 1);
        other.facts.as_mut().unwrap().fingerprint = None;
        let files = [other, file(None, KeyLock::Locked, 1)];
        let by_key = login(Some("SHA256:k"), "key /k", &[]);
        assert_eq!(
            verdicts(&keys(&files, Some(&by_key))),
            [
                ("credential", Pass),
                ("key-type", Pass),
                ("passphrase", Pass),
                ("key-age", Pass)
            ]
        );
        let by_agent = login(Some("SHA256:a"), "key ED25519 SHA256:a from the agent", &[]);
        assert_eq!(
            verdicts(&keys(&files, Some(&by_agent))),
            [("credential", Pass)]
        );
        let by_password = login(None, "password", &[]);
        assert_eq!(
            verdicts(&keys(&files, Some(&by_password))),
            [("credential", Warn)]
        );
    }

    #[test]
    fn what_the_server_takes() {
        let verdict = |authentication, methods| methods_of(authentication, methods);
        fn methods_of(authentication: &str, offered: &[&str]) -> Verdict {
            methods(&login(None, authentication, offered)).verdict
        }
        assert_eq!(verdict("key", &["publickey"]), Pass);
        assert_eq!(verdict("key", &["publickey", "password"]), Warn);
        assert_eq!(verdict("key", &["publickey", "keyboard-interactive"]), Warn);
        assert_eq!(verdict("key of ssh's", &[]), Skip);
        assert_eq!(verdict("no authentication", &[]), Fail);
    }

    #[test]
    fn the_configuration() {
        let mut plan = SshPlan::new("h", 22, "me");
        plan.hash_known_hosts = true;
        let all = |plan: &SshPlan, agent| -> Vec<Verdict> {
            configuration(plan, agent)
                .iter()
                .map(|check| check.verdict)
                .collect()
        };
        assert_eq!(all(&plan, Some(false)), [Pass; 4]);
        plan.user = "root".to_owned();
        plan.host_keys = HostKeyPolicy::AcceptNew;
        plan.hash_known_hosts = false;
        assert_eq!(all(&plan, Some(true)), [Warn; 4]);
        plan.host_keys = HostKeyPolicy::No;
        assert_eq!(all(&plan, None), [Warn, Skip, Warn, Warn]);
    }

    #[test]
    fn restrictions_are_what_is_refused() {
        let granted = || Answer::Granted(Vec::new());
        let refused = Answer::Refused;
        for (exec, terminal, sftp, ours, expected, word) in [
            (granted(), granted(), granted(), true, Warn, "run commands"),
            (
                granted(),
                refused.clone(),
                refused.clone(),
                true,
                Pass,
                "restricted",
            ),
            (
                granted(),
                refused.clone(),
                refused.clone(),
                false,
                Pass,
                "forced command",
            ),
            (
                Answer::NoSession,
                Answer::NoSession,
                Answer::NoSession,
                false,
                Pass,
                "only",
            ),
        ] {
            let check = restrictions(&exec, &terminal, &sftp, ours);
            assert_eq!(check.verdict, expected, "{check:?}");
            assert!(check.found.contains(word), "{check:?}");
        }
    }
}
