//! ssh's configuration files, read without ssh. What that cannot do is said in one line.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ssh2_config::{Algorithms, HostParams, ParseRule, SshConfig};
use tracing::warn;

use crate::plan::PlanError;
use crate::plan::ssh_config::{Effective, Query, Settings, Source};

/// The configuration of the whole machine (ssh_config(5), FILES).
const OF_THE_MACHINE: &str = "/etc/ssh/ssh_config";

/// Says what cannot be done without ssh, and `why` there is none; where there is no file nothing is lost.
pub(super) fn tell(query: &Query, home: Option<&Path>, why: &str) {
    let files: Vec<_> = files(query, home).iter().map(|file| text(file)).collect();
    if !files.is_empty() {
        warn!(
            "{why}: reading {} without ssh, which knows no Match blocks and no canonical names",
            files.join(" and ")
        );
    }
}

/// What the command line and the files say about a host.
///
/// # Errors
/// [`PlanError::SshConfig`] for a file that cannot be read, or not without ssh.
pub(super) fn read(query: &Query, home: Option<&Path>) -> Result<Effective, PlanError> {
    let mut settings = query.settings();
    for file in files(query, home) {
        let found = section(&file, &query.host, home).map_err(|said| PlanError::SshConfig {
            host: query.host.clone(),
            said: format!("{}: {said}", file.display()),
        })?;
        settings.fill_up(found);
    }
    Ok(Effective {
        settings,
        defaults: Settings::default(),
        source: Source::Files,
    })
}

/// As ssh: the file of `-F` alone, else the user's and then the machine's, where they are there.
fn files(query: &Query, home: Option<&Path>) -> Vec<PathBuf> {
    match query.config_file.as_deref() {
        Some(none) if none.eq_ignore_ascii_case("none") => Vec::new(),
        Some(file) => vec![file.into()],
        None => {
            let own = home.map(|home| home.join(".ssh/config"));
            let all = own.into_iter().chain([OF_THE_MACHINE.into()]);
            all.filter(|file| file.exists()).collect()
        }
    }
}

fn section(file: &Path, host: &str, home: Option<&Path>) -> Result<Settings, String> {
    let mut reader = BufReader::new(File::open(file).map_err(|error| error.to_string())?);
    let rules = ParseRule::ALLOW_UNKNOWN_FIELDS | ParseRule::ALLOW_UNSUPPORTED_FIELDS;
    let config = SshConfig::default()
        .home_dir(home.unwrap_or(Path::new("/")))
        .parse(&mut reader, rules)
        .map_err(|error| error.to_string())?;
    // Its lines would be taken for those of the block before.
    let is_match = |key: &String| key.eq_ignore_ascii_case("match");
    let mut hosts = config.get_hosts().iter();
    if hosts.any(|host| host.params.ignored_fields.keys().any(is_match)) {
        return Err(
            "it has Match blocks, which only ssh can read (apt-get install openssh-client)"
                .to_owned(),
        );
    }
    Ok(settings(&config.query(host)))
}

fn settings(params: &HostParams) -> Settings {
    let mut settings = Settings::default();
    let mut push = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            settings.push(key, value);
        }
    };
    let hops = params.proxy_jump.as_ref().map(|hops| hops.join(","));
    let attempts = params.connection_attempts.map(|n| n.to_string());
    for (key, value) in [
        ("hostname", params.host_name.clone()),
        ("user", params.user.clone()),
        ("port", params.port.map(|port| port.to_string())),
        ("bindaddress", params.bind_address.clone()),
        ("bindinterface", params.bind_interface.clone()),
        ("compression", params.compression.map(flag)),
        (
            "pubkeyauthentication",
            params.pubkey_authentication.map(flag),
        ),
        ("connectionattempts", attempts),
        ("connecttimeout", params.connect_timeout.map(seconds)),
        (
            "serveraliveinterval",
            params.server_alive_interval.map(seconds),
        ),
        ("proxyjump", hops),
        (
            "certificatefile",
            params.certificate_file.as_deref().map(text),
        ),
    ] {
        push(key, value);
    }
    for file in params.identity_file.iter().flatten() {
        push("identityfile", Some(text(file)));
    }
    for (key, algorithms) in [
        ("ciphers", &params.ciphers),
        ("macs", &params.mac),
        ("kexalgorithms", &params.kex_algorithms),
        ("hostkeyalgorithms", &params.host_key_algorithms),
        (
            "pubkeyacceptedalgorithms",
            &params.pubkey_accepted_algorithms,
        ),
        ("casignaturealgorithms", &params.ca_signature_algorithms),
    ] {
        push(key, list(algorithms));
    }
    // In no order of their own, so in that of their names.
    let mut others: Vec<_> = params
        .unsupported_fields
        .iter()
        .chain(&params.ignored_fields)
        .collect();
    others.sort();
    for (key, words) in others {
        push(key, Some(joined(key, words)));
    }
    settings
}

/// The quotes of a single word are gone by now; a list of files needs them.
fn joined(key: &str, words: &[String]) -> String {
    match words {
        [path] if key.ends_with("knownhostsfile") && path.contains(' ') => format!("\"{path}\""),
        words => words.join(" "),
    }
}

fn flag(on: bool) -> String {
    if on { "yes" } else { "no" }.to_owned()
}

fn seconds(time: Duration) -> String {
    time.as_secs().to_string()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn list(algorithms: &Algorithms) -> Option<String> {
    (!algorithms.is_default()).then(|| algorithms.algorithms().join(","))
}
