//! What a security officer asks about a login.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::check::Check;
use crate::carrier::Description;
use crate::carrier::examine::Answer;
use crate::carrier::russh::{KeyFacts, KeyLock, key_facts};
use crate::plan::{HostKeyPolicy, SshPlan, quoted};

/// An RSA key shorter than this is not to be used any more, and one shorter than that soon, in bits (NIST SP 800-57
/// part 1, table 2: 112 bits of strength until 2030).
const RSA_BROKEN: u32 = 2048;
const RSA_SHORT: u32 = 3072;
/// A key older than this should be replaced.
const OLD: Duration = Duration::from_secs(2 * 365 * 24 * 3600);

/// Where a first key is, for a shell in the user's home.
const USUAL: &str = ".ssh/id_ed25519";

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

/// What let us in, and the key behind it: of `files`, else of the agent.
pub(super) fn keys(
    files: &[KeyFile],
    agent: &[KeyFacts],
    login: Option<&Description>,
    plan: &SshPlan,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let files = relevant(files, login);
    if let Some(login) = login {
        checks.push(credential(login, plan));
        if files.is_empty()
            && let Some(key) = &login.key
        {
            checks.extend(of_agent(key, agent, plan));
        }
    }
    for file in files {
        let path = file.path.display().to_string();
        match &file.facts {
            Ok(facts) => {
                let renew = renew(&file.path, plan);
                checks.push(strength(&path, facts, &renew));
                checks.push(passphrase(&path, facts));
                checks.push(age(file, &renew));
            }
            Err(error) => checks.push(Check::warn(
                "key-type",
                format!("{path}: {error}"),
                format!("ssh-keygen -l -f {}", quoted(&path)),
            )),
        }
    }
    checks
}

/// A key that let us in without a file here.
fn of_agent(key: &str, agent: &[KeyFacts], plan: &SshPlan) -> Vec<Check> {
    let name = format!("the agent's key {key}");
    let mut keys = agent.iter();
    let strength = match keys.find(|facts| facts.fingerprint.as_deref() == Some(key)) {
        Some(facts) => strength(&name, facts, &renew(Path::new(USUAL), plan)),
        None => Check::skip(
            "key-type",
            format!("{name}: the agent does not list it, so see: ssh-add -l"),
        ),
    };
    let untold = |check, what| {
        let found = format!("{name}: {what}; name its file to know: -i FILE");
        Check::skip(check, found)
    };
    vec![
        strength,
        untold("passphrase", "whether its file has one is not known here"),
        untold("key-age", "an agent does not tell"),
    ]
}

/// What makes a new key in the place of the one at `path`, and has the server take it: for a shell.
fn renew(path: &Path, plan: &SshPlan) -> String {
    let new = format!("{}.new", path.display());
    format!(
        "ssh-keygen -t ed25519 -f {} && ssh {} 'cat >>.ssh/authorized_keys' <{}",
        quoted(&new),
        plan.arguments,
        quoted(&format!("{new}.pub"))
    )
}

fn credential(login: &Description, plan: &SshPlan) -> Check {
    let found = match &login.key {
        Some(key) if !login.authentication.contains(key) => {
            format!("{} ({key})", login.authentication)
        }
        _ => login.authentication.clone(),
    };
    if login.key.is_some() {
        return Check::pass("credential", found);
    }
    Check::warn(
        "credential",
        format!("no key: {found}"),
        format!(
            "a key with a passphrase, in an agent, cannot be guessed: {}",
            renew(Path::new(USUAL), plan)
        ),
    )
}

fn strength(name: &str, facts: &KeyFacts, renew: &str) -> Check {
    let kind = facts
        .kind
        .as_deref()
        .unwrap_or("a type that its passphrase hides");
    let replace = format!("replace it: {renew}");
    match (kind, facts.bits) {
        (_, Some(bits)) if bits < RSA_BROKEN => {
            Check::fail("key-type", format!("{name}: RSA of {bits} bits"), replace)
        }
        (_, Some(bits)) if bits < RSA_SHORT => Check::warn(
            "key-type",
            format!("{name}: RSA of {bits} bits, enough until 2030"),
            replace,
        ),
        (_, Some(bits)) => Check::pass("key-type", format!("{name}: RSA of {bits} bits")),
        ("ssh-dss", _) => Check::fail("key-type", format!("{name}: DSA, which is broken"), replace),
        _ => Check::pass("key-type", format!("{name}: {kind}")),
    }
}

fn passphrase(path: &str, facts: &KeyFacts) -> Check {
    match facts.lock {
        KeyLock::Locked => Check::pass("passphrase", format!("{path} is encrypted")),
        KeyLock::Hardware => Check::pass("passphrase", format!("{path}: the key is in hardware")),
        KeyLock::Elsewhere => Check::pass("passphrase", format!("{path} has the public half only")),
        KeyLock::Open => Check::warn(
            "passphrase",
            format!("{path} has no passphrase: whoever reads it can log in"),
            format!(
                "give it one, and type it once for an agent: ssh-keygen -p -f {0} && ssh-add {0}",
                quoted(path)
            ),
        ),
    }
}

fn age(file: &KeyFile, renew: &str) -> Check {
    let path = file.path.display();
    let Some(age) = file.age else {
        return Check::skip("key-age", format!("{path} does not tell"));
    };
    let days = age.as_secs() / 86_400;
    let found = format!("{path} was changed {days} days ago");
    if age < OLD {
        return Check::pass("key-age", found);
    }
    Check::warn(
        "key-age",
        found,
        format!("replace it, and take the old one out of authorized_keys there: {renew}"),
    )
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
    let guessable = login
        .methods
        .iter()
        .filter_map(|method| match method.as_str() {
            "password" => Some("PasswordAuthentication no"),
            "keyboard-interactive" => Some("KbdInteractiveAuthentication no"),
            _ => None,
        });
    let settings: Vec<&str> = guessable.collect();
    if settings.is_empty() {
        return Check::pass("password-login", found);
    }
    Check::warn(
        "password-login",
        found,
        format!(
            "the server's administrator, in sshd_config, unless a second factor is asked for: {}",
            settings.join(", ")
        ),
    )
}

/// What the configuration says, as it counts for this server.
pub(super) fn configuration(
    plan: &SshPlan,
    forwards_agent: Option<bool>,
    has_tunnel: bool,
) -> Vec<Check> {
    vec![
        root(plan, has_tunnel),
        agent(forwards_agent),
        host_keys(plan),
        known_hosts(plan),
    ]
}

fn root(plan: &SshPlan, has_tunnel: bool) -> Check {
    if plan.user == "root" && has_tunnel {
        return Check::warn(
            "root-login",
            "you log in as root, for the tunnel's set-up",
            "an account of its own will do where an administrator has set the tunnel up: up --tunnel with it says how",
        );
    }
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
    takes_commands: bool,
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
        let hint = match takes_commands {
            true => {
                "commands have to stay for --tunnel, --udp and --ping, a terminal need not: restrict,port-forwarding in authorized_keys"
            }
            false => {
                "where forwarding is enough: restrict,port-forwarding,command=\"/bin/false\" in authorized_keys"
            }
        };
        return Check::warn("restrictions", found, hint);
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

    fn plan() -> SshPlan {
        SshPlan {
            arguments: "h".to_owned(),
            ..SshPlan::new("h", 22, "me")
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
            let checks = keys(&[file(bits, lock, days)], &[], None, &plan());
            let found: Vec<Verdict> = checks.iter().map(|check| check.verdict).collect();
            assert_eq!(found, expected, "{bits:?} {lock:?} {days}");
        }
    }

    #[test]
    fn the_key_that_let_us_in_counts() {
        let mut other = file(Some(1024), KeyLock::Open, 1);
        other.facts.as_mut().unwrap().fingerprint = None;
        let files = [other, file(None, KeyLock::Locked, 1)];
        let of = |login: &Description| keys(&files, &[], Some(login), &plan());
        let by_key = login(Some("SHA256:k"), "key /k", &[]);
        assert_eq!(
            verdicts(&of(&by_key)),
            [
                ("credential", Pass),
                ("key-type", Pass),
                ("passphrase", Pass),
                ("key-age", Pass)
            ]
        );
        let by_password = login(None, "password", &[]);
        assert_eq!(verdicts(&of(&by_password)), [("credential", Warn)]);
    }

    /// The agent says of which type it is; how old it is, and how its file is kept, nobody here can know.
    #[test]
    fn a_key_of_the_agent_is_told_as_far_as_it_is_known() {
        let other = [file(None, KeyLock::Locked, 1)];
        for (bits, listed, expected) in [
            (Some(1024), "SHA256:a", Fail),
            (None, "SHA256:a", Pass),
            (None, "SHA256:b", Skip),
        ] {
            let mut facts = file(bits, KeyLock::Elsewhere, 1).facts.unwrap();
            facts.fingerprint = Some(listed.to_owned());
            let by_agent = login(Some("SHA256:a"), "key ED25519 SHA256:a from the agent", &[]);
            let checks = keys(&other, &[facts], Some(&by_agent), &plan());
            let expected = [
                ("credential", Pass),
                ("key-type", expected),
                ("passphrase", Skip),
                ("key-age", Skip),
            ];
            assert_eq!(verdicts(&checks), expected);
            assert!(checks.iter().all(|check| check.found.contains("SHA256:a")));
        }
    }

    #[test]
    fn a_key_is_replaced_by_what_can_be_pasted() {
        let mut old = file(Some(2048), KeyLock::Open, 1000);
        old.path = "/my keys/id".into();
        let checks = keys(&[old], &[], None, &plan());
        for (check, command) in [
            (
                0,
                "ssh-keygen -t ed25519 -f '/my keys/id.new' && ssh h 'cat >>.ssh/authorized_keys' <'/my keys/id.new.pub'",
            ),
            (1, "ssh-keygen -p -f '/my keys/id' && ssh-add '/my keys/id'"),
            (2, "ssh-keygen -t ed25519 -f '/my keys/id.new' && ssh h "),
        ] {
            let advice = checks[check].advice.as_deref().unwrap();
            assert!(advice.contains(command), "{advice}");
        }
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
        let advice = |offered: &[&str]| methods(&login(None, "key", offered)).advice.unwrap();
        assert!(advice(&["password"]).ends_with(": PasswordAuthentication no"));
        let other = advice(&["publickey", "keyboard-interactive"]);
        assert!(
            other.ends_with(": KbdInteractiveAuthentication no"),
            "{other}"
        );
        assert_eq!(verdict("key of ssh's", &[]), Skip);
        assert_eq!(verdict("no authentication", &[]), Fail);
    }

    #[test]
    fn the_configuration() {
        let mut plan = SshPlan::new("h", 22, "me");
        plan.hash_known_hosts = true;
        let all = |plan: &SshPlan, agent| -> Vec<Verdict> {
            configuration(plan, agent, false)
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
        let for_a_tunnel = root(&plan, true);
        assert_eq!(for_a_tunnel.verdict, Warn);
        assert!(!format!("{for_a_tunnel:?}").contains("needs no root"));
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
            let check = restrictions(&exec, &terminal, &sftp, ours, false);
            assert_eq!(check.verdict, expected, "{check:?}");
            assert!(check.found.contains(word), "{check:?}");
            let with_udp = restrictions(&exec, &terminal, &sftp, ours, true);
            assert!(!format!("{with_udp:?}").contains("/bin/false"));
        }
    }
}
