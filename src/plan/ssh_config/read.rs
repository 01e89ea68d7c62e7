//! From options as texts to the plan of a server.

use std::path::PathBuf;
use std::time::Duration;

use super::super::ssh::REQUIRED_RSA_SIZE;
use super::super::{
    AddressFamily, Agent, Algorithms, Dialling, Environment, HostKeyPolicy, Keepalive, Login,
    PlanError, PlanWarning, RekeyLimit, Route, SshPlan, ssh_option,
};
use super::tokens::{self, TokenError, Tokens};
use super::values::{bytes, paths, seconds};
use super::{Effective, Query, Source, Unheeded, jump, methods, table};

/// ssh's usual key files (ssh_config(5), IdentityFile), for a configuration read without ssh.
const KEY_FILES: [&str; 5] = [
    "~/.ssh/id_ed25519",
    "~/.ssh/id_ecdsa",
    "~/.ssh/id_rsa",
    "~/.ssh/id_ed25519_sk",
    "~/.ssh/id_ecdsa_sk",
];

/// ServerAliveInterval of Debian's ssh where BatchMode is set (its ssh_config(5)).
const BATCH_INTERVAL: Duration = Duration::from_secs(300);

/// A server's plan but for the way there, and the question about the host that the way leads through.
pub(in super::super) struct Read {
    pub(in super::super) plan: SshPlan,
    pub(in super::super) through: Option<Query>,
}

/// Reads the answer to `query`.
///
/// # Errors
/// [`PlanError`] for a value that makes no sense.
pub(in super::super) fn read(
    query: &Query,
    effective: &Effective,
    environment: &Environment,
    warnings: &mut Vec<PlanWarning>,
) -> Result<Read, PlanError> {
    let mut reader = Reader::new(query, effective, environment)?;
    let hops = jump::parse(&reader.jump()?)?;
    let host_keys = reader.host_keys()?;
    let login = reader.login()?;
    let plan = SshPlan {
        alias: query.host.clone(),
        arguments: query.typed(),
        arguments_to_ask: query.typed_to_ask(host_keys, login.batch),
        is_hop: false,
        host: reader.host.clone(),
        port: reader.port,
        user: reader.user.clone(),
        route: reader.route()?,
        dialling: reader.dialling()?,
        keepalive: reader.keepalive()?,
        identities: reader.identities(warnings)?,
        without_sudo: environment
            .without_sudo
            .clone()
            .filter(|_| login.agent == Agent::Environment),
        login,
        host_keys,
        known_hosts: reader.files("userknownhostsfile")?,
        global_known_hosts: reader.files("globalknownhostsfile")?,
        host_key_alias: reader.text("hostkeyalias").map(str::to_owned),
        hash_known_hosts: reader.flag("hashknownhosts")?,
        check_host_ip: reader.flag("checkhostip")?,
        revoked_host_keys: reader.files("revokedhostkeys")?,
        trust_localhost: reader.flag("nohostauthenticationforlocalhost")?,
        required_rsa_size: reader.rsa_size()?,
        algorithms: reader.algorithms(),
        compression: reader.flag("compression")?,
        rekey: reader.rekey()?,
        connections: None,
        unheeded: table::unheeded(effective),
        only_by_ssh: methods::only_by_ssh(effective, environment)
            .map(|option| format!("logs in by {option}")),
    };
    let plan = with_hardware_keys(plan, query, effective, environment);
    let plan = with_krls(plan, environment);
    let plan = with_algorithms(plan, environment);
    Ok(Read {
        plan,
        through: query.last_hop(&hops),
    })
}

/// A key in hardware signs by way of ssh, or of an agent. ssh is taken where the configuration names no other key; for the files
/// that ssh tries anyway only where there is no agent, which may have what lets us in.
fn with_hardware_keys(
    mut plan: SshPlan,
    query: &Query,
    effective: &Effective,
    environment: &Environment,
) -> SshPlan {
    let there = plan
        .identities
        .iter()
        .filter(|file| (environment.exists)(file));
    let hardware = there
        .clone()
        .filter(|file| (environment.is_hardware_key)(file));
    let (is_all, first) = (
        there.count() == hardware.clone().count(),
        hardware.clone().next(),
    );
    let is_named = !query.identities.is_empty() || effective.is_set("identityfile");
    let has_agent = match &plan.login.agent {
        Agent::Environment => (environment.variable)("SSH_AUTH_SOCK").is_some(),
        Agent::Socket(_) => true,
        Agent::None => false,
    };
    let file = first.cloned();
    if let Some(file) = file.filter(|_| is_all && (is_named || !has_agent)) {
        let way = format!("signs with the hardware key {}", file.display());
        plan.only_by_ssh.get_or_insert(way);
    }
    plan
}

/// The embedded carrier reads lists of plain keys, and takes no key where it cannot read one.
fn with_krls(mut plan: SshPlan, environment: &Environment) -> SshPlan {
    let is_krl = |file: &&PathBuf| (environment.is_krl)(file);
    if let Some(file) = plan.revoked_host_keys.iter().find(is_krl) {
        plan.unheeded.push(Unheeded {
            option: "RevokedHostKeys".to_owned(),
            value: file.display().to_string(),
            instead: "binary revocation lists are not read, and no host key is taken; use --carrier openssh, or a list of plain keys",
            is_by_ssh: true,
        });
    }
    plan
}

/// The embedded carrier connects with those of the names that it knows; where there is none, only ssh can.
fn with_algorithms(mut plan: SshPlan, environment: &Environment) -> SshPlan {
    let chosen = &plan.algorithms;
    let lists = [
        ("KexAlgorithms", &chosen.kex),
        ("Ciphers", &chosen.ciphers),
        ("MACs", &chosen.macs),
        ("HostKeyAlgorithms", &chosen.host_keys),
    ];
    let mut lists = lists
        .iter()
        .filter_map(|(option, list)| Some((*option, list.as_ref()?)));
    let foreign = lists.find(|(option, names)| {
        let is_known = |name: &String| (environment.has_algorithm)(option, name);
        !names.iter().any(is_known)
    });
    let foreign = foreign.map(|(option, names)| format!("has one of {option} {}", names.join(",")));
    plan.only_by_ssh = plan.only_by_ssh.or(foreign);
    plan
}

/// Options with the place to look them up, and what tokens stand for.
struct Reader<'a> {
    query: &'a Query,
    effective: &'a Effective,
    environment: &'a Environment,
    host: String,
    port: u16,
    user: String,
    jump: String,
}

impl<'a> Reader<'a> {
    fn new(
        query: &'a Query,
        effective: &'a Effective,
        environment: &'a Environment,
    ) -> Result<Self, PlanError> {
        let mut reader = Self {
            query,
            effective,
            environment,
            host: query.host.clone(),
            port: 0,
            user: String::new(),
            jump: String::new(),
        };
        reader.port = reader.number("port")?;
        if reader.port == 0 {
            return Err(bad("port", "0"));
        }
        if let Some(said) = reader.text("refuseconnection") {
            return Err(PlanError::SshConfig {
                host: query.host.clone(),
                said: format!("RefuseConnection says {said:?}"),
            });
        }
        let user = reader.value("user").or(environment.user.as_deref());
        reader.user = user.ok_or(PlanError::NoUser)?.to_owned();
        if let Some(host) = reader.text("hostname") {
            reader.host = match effective.source {
                Source::Ssh => host.to_owned(),
                Source::Files => reader.expand("hostname", host, tokens::HOST_NAME)?,
            };
        }
        Ok(reader)
    }

    fn value(&self, key: &str) -> Option<&'a str> {
        self.effective.value(key)
    }

    /// A value, unless there is none, or it is the word for that.
    fn text(&self, key: &str) -> Option<&'a str> {
        self.value(key)
            .filter(|value| !value.is_empty() && !value.eq_ignore_ascii_case("none"))
    }

    fn flag(&self, key: &'static str) -> Result<bool, PlanError> {
        match self.value(key) {
            None => Ok(false),
            Some(value) => match value.to_ascii_lowercase().as_str() {
                // PubkeyAuthentication has values between yes and no.
                "yes" | "true" | "on" | "unbound" | "host-bound" => Ok(true),
                "no" | "false" | "off" => Ok(false),
                _ => Err(bad(key, value)),
            },
        }
    }

    /// A number; 0 where there is none.
    fn number<N: std::str::FromStr + Default>(&self, key: &'static str) -> Result<N, PlanError> {
        match self.text(key) {
            None => Ok(N::default()),
            Some(value) => value.parse().map_err(|_| bad(key, value)),
        }
    }

    /// A time as sshd_config(5), TIME FORMATS, has it; `None` for 0, too.
    fn time(&self, key: &'static str) -> Result<Option<Duration>, PlanError> {
        let Some(value) = self.text(key) else {
            return Ok(None);
        };
        let seconds = seconds(value).ok_or_else(|| bad(key, value))?;
        Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
    }

    /// A list that was set by the user; ssh's own is not that of the carrier.
    fn list(&self, key: &str) -> Option<Vec<String>> {
        let value = self.text(key).filter(|_| self.effective.is_set(key))?;
        Some(value.split(',').map(str::to_owned).collect())
    }

    fn expand(&self, key: &'static str, text: &str, known: &str) -> Result<String, PlanError> {
        let home = self.environment.home.as_deref().unwrap_or("".as_ref());
        let tokens = Tokens {
            host: &self.host,
            alias: &self.query.host,
            key_alias: self.text("hostkeyalias").unwrap_or(&self.query.host),
            port: self.port,
            user: &self.user,
            jump: &self.jump,
            local_user: self.environment.user.as_deref().unwrap_or_default(),
            uid: self.environment.uid,
            home: &home.to_string_lossy(),
            local_host: &self.environment.host_name,
            variable: self.environment.variable,
        };
        tokens
            .expand(text, known)
            .map_err(|error: TokenError| PlanError::BadToken {
                key: spelled(key),
                value: text.to_owned(),
                reason: error.to_string(),
            })
    }

    /// A path with `~/` and tokens.
    fn path(&self, key: &'static str, text: &str) -> Result<PathBuf, PlanError> {
        let text = self.environment.expand(text);
        self.expand(key, &text.to_string_lossy(), tokens::PATH)
            .map(PathBuf::from)
    }

    /// A path of which `ssh -G` has expanded all that there was to expand (ssh.c `main`, before `config_test`).
    fn expanded_path(&self, key: &'static str, text: &str) -> Result<PathBuf, PlanError> {
        match self.effective.source {
            Source::Ssh => Ok(self.environment.expand(text)),
            Source::Files => self.path(key, text),
        }
    }

    fn jump(&mut self) -> Result<String, PlanError> {
        let text = self.text("proxyjump").unwrap_or_default();
        self.jump = self.expand("proxyjump", text, tokens::PROXY)?;
        Ok(self.jump.clone())
    }

    /// A jump is put in by who asks about its host.
    fn route(&self) -> Result<Route, PlanError> {
        match self.text("proxycommand") {
            Some(command) if self.jump.is_empty() => {
                let command = self.expand("proxycommand", command, tokens::PROXY)?;
                Ok(Route::Command(command))
            }
            _ => Ok(Route::Direct),
        }
    }

    fn dialling(&self) -> Result<Dialling, PlanError> {
        let family = match self.value("addressfamily").unwrap_or("any") {
            "any" => AddressFamily::Any,
            "inet" => AddressFamily::V4,
            "inet6" => AddressFamily::V6,
            other => return Err(bad("addressfamily", other)),
        };
        Ok(Dialling {
            family,
            bind_address: self.text("bindaddress").map(str::to_owned),
            timeout: self.time("connecttimeout")?,
            attempts: self.number("connectionattempts").map(|n: u32| n.max(1))?,
        })
    }

    fn keepalive(&self) -> Result<Option<Keepalive>, PlanError> {
        let count = self.number("serveralivecountmax")?;
        let interval = self.time("serveraliveinterval")?;
        // Debian's ssh has this where BatchMode is set and nothing else is said: a quarter of an hour until a dead peer
        // is noticed is nobody's choice.
        let is_debians = interval == Some(BATCH_INTERVAL) && self.flag("batchmode")?;
        let interval = interval.filter(|_| !is_debians);
        Ok(interval.map(|interval| Keepalive { interval, count }))
    }

    /// Of the files that the configuration names, ssh too leaves out what is not there without a word. What the command
    /// line names stays, so that a refused login can say that it was not there.
    fn identities(&self, warnings: &mut Vec<PlanWarning>) -> Result<Vec<PathBuf>, PlanError> {
        let exists = |path: &PathBuf| {
            let mut public = path.clone().into_os_string();
            public.push(".pub");
            // The private half may be in the agent alone.
            (self.environment.exists)(path) || (self.environment.exists)(public.as_ref())
        };
        let mut missing = Vec::new();
        for named in &self.query.identities {
            let path = self.path("identityfile", named)?;
            if !(self.environment.exists)(&path) {
                warnings.push(PlanWarning::NoIdentity { path: path.clone() });
                missing.push(path);
            }
        }
        let mut values: Vec<&str> = self.effective.settings.all("identityfile").collect();
        if values.is_empty() && self.effective.source == Source::Files {
            values.extend(KEY_FILES);
        }
        let values = values.iter().filter(|value| **value != "none");
        let paths: Result<Vec<_>, _> = values
            .map(|value| self.path("identityfile", value))
            .collect();
        let found = paths?.into_iter().filter(exists);
        let found: Vec<_> = found.filter(|path| !missing.contains(path)).collect();
        missing.extend(found);
        Ok(missing)
    }

    fn login(&self) -> Result<Login, PlanError> {
        let certificates = self.effective.settings.all("certificatefile");
        let certificates = certificates
            .filter(|value| *value != "none")
            .map(|value| self.path("certificatefile", value));
        Ok(Login {
            identities_only: self.flag("identitiesonly")?,
            agent: self.agent()?,
            certificates: certificates.collect::<Result<_, _>>()?,
            public_key: self.flag("pubkeyauthentication")?,
            password: self.flag("passwordauthentication")?,
            keyboard_interactive: self.flag("kbdinteractiveauthentication")?,
            preferred: self.list("preferredauthentications"),
            password_prompts: self.number("numberofpasswordprompts")?,
            batch: self.flag("batchmode")?,
        })
    }

    fn agent(&self) -> Result<Agent, PlanError> {
        let Some(value) = self
            .value("identityagent")
            .filter(|value| !value.is_empty())
        else {
            return Ok(Agent::Environment);
        };
        let variable = value
            .strip_prefix('$')
            .filter(|name| !name.starts_with('{'));
        Ok(match variable {
            _ if value.eq_ignore_ascii_case("none") => Agent::None,
            _ if value == "SSH_AUTH_SOCK" => Agent::Environment,
            // As in ssh, a variable that is not set means no agent.
            Some(name) => (self.environment.variable)(name)
                .map_or(Agent::None, |path| Agent::Socket(path.into())),
            None => Agent::Socket(self.expanded_path("identityagent", value)?),
        })
    }

    fn host_keys(&self) -> Result<HostKeyPolicy, PlanError> {
        ssh_option::policy(self.value("stricthostkeychecking").unwrap_or("ask"))
    }

    fn rsa_size(&self) -> Result<u32, PlanError> {
        let size = self.number("requiredrsasize")?;
        Ok(if size == 0 { REQUIRED_RSA_SIZE } else { size })
    }

    fn files(&self, key: &'static str) -> Result<Vec<PathBuf>, PlanError> {
        let value = self.text(key).unwrap_or_default();
        let words = match self.effective.source {
            Source::Ssh => paths(value),
            Source::Files => ssh_option::words(value),
        };
        let words = words.iter().filter(|word| *word != "none");
        words.map(|word| self.expanded_path(key, word)).collect()
    }

    fn algorithms(&self) -> Algorithms {
        Algorithms {
            ciphers: self.list("ciphers"),
            macs: self.list("macs"),
            kex: self.list("kexalgorithms"),
            host_keys: self.list("hostkeyalgorithms"),
            user_keys: self.list("pubkeyacceptedalgorithms"),
            authorities: self.list("casignaturealgorithms"),
        }
    }

    /// `ssh -G` prints two numbers, 0 for the default and for none.
    fn rekey(&self) -> Result<Option<RekeyLimit>, PlanError> {
        let Some(value) = self.text("rekeylimit") else {
            return Ok(None);
        };
        let odd = || bad("rekeylimit", value);
        let mut words = value.split_whitespace();
        let bytes = match words.next() {
            None | Some("default") => 0,
            Some(word) => bytes(word).ok_or_else(odd)?,
        };
        let time = match words.next() {
            None | Some("none") => 0,
            Some(word) => seconds(word).ok_or_else(odd)?,
        };
        let limit = RekeyLimit {
            bytes: (bytes > 0).then_some(bytes),
            time: (time > 0).then(|| Duration::from_secs(time)),
        };
        Ok((bytes > 0 || time > 0).then_some(limit))
    }
}

fn spelled(key: &'static str) -> &'static str {
    table::spelled(key).unwrap_or(key)
}

fn bad(key: &'static str, value: &str) -> PlanError {
    PlanError::BadConfigValue {
        key: spelled(key),
        value: value.to_owned(),
    }
}
