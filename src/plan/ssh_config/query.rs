//! What ssh's configuration is asked about: a host as typed, with the options of the command line.

use super::super::remote::{self, Remote};
use super::super::{HostKeyPolicy, PlanError, quoted, ssh_option};
use super::Settings;
use crate::cli::UpArgs;

/// What keeps ssh from asking about a new host key.
const STRICT: &str = "StrictHostKeyChecking";
const BATCH: &str = "BatchMode";

/// A question to ssh's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Host name, address or alias as typed, without brackets.
    pub host: String,
    /// Login name on the server: `user@` or `-l`.
    pub user: Option<String>,
    /// TCP port: `:port` or `-p`.
    pub port: Option<u16>,
    /// The configuration file instead of the usual ones (`-F`); `none` for none at all.
    pub config_file: Option<String>,
    /// Hosts to go through (`-J`).
    pub jump: Option<String>,
    /// Key files (`-i`), before those of the configuration.
    pub identities: Vec<String>,
    /// Options (`-o`) in ssh's form, `Key=Value` or `Key Value`.
    pub options: Vec<String>,
}

impl Query {
    /// What is asked for the server of `-r`.
    ///
    /// # Errors
    /// [`PlanError`] for arguments that contradict each other or cannot be read.
    pub(in super::super) fn new(args: &UpArgs) -> Result<Self, PlanError> {
        let typed = args.remote.as_deref().ok_or(PlanError::NoRemote)?;
        let remote = remote::parse(typed)?;
        for option in &args.options {
            ssh_option::check(option)?;
        }
        Ok(Self {
            user: user(remote.user, args.login.clone())?,
            port: port(remote.port, args.port)?,
            host: remote.host,
            config_file: args.ssh_config.clone(),
            jump: args.jump.clone(),
            identities: args.identities.clone(),
            options: args.options.clone(),
        })
    }

    /// What is asked for a host on the way, `hops` being all of them: as ssh does, which starts itself for the last
    /// with `-F` and what is left of `-J`, and nothing else of its own command line (ssh.c, `jump_host`).
    pub(super) fn last_hop(&self, hops: &[Remote]) -> Option<Self> {
        let (last, before) = hops.split_last()?;
        let jump = before.iter().map(ToString::to_string);
        Some(Self {
            host: last.host.clone(),
            user: last.user.clone(),
            port: last.port,
            config_file: self.config_file.clone(),
            jump: (!before.is_empty()).then(|| jump.collect::<Vec<_>>().join(",")),
            ..Self::default()
        })
    }

    /// The arguments of ssh(1) that print the effective configuration.
    pub fn arguments(&self) -> Vec<String> {
        // -T, or ssh complains about a stdin that is no terminal.
        let mut arguments = vec!["-G".to_owned(), "-T".to_owned()];
        arguments.extend(self.flags());
        arguments.extend(["--".to_owned(), self.host.clone()]);
        arguments
    }

    /// The arguments of ssh(1), the host among them, for a person to paste into a shell.
    pub fn typed(&self) -> String {
        let mut words = self.flags();
        words.push(self.host.clone());
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        words.join(" ")
    }

    /// The same for an ssh that asks about a new host key, where it would not under this policy or under `batch`, its BatchMode.
    pub(super) fn typed_to_ask(&self, policy: HostKeyPolicy, batch: bool) -> String {
        let silences = |option: &String| {
            let (key, _) = ssh_option::split(option);
            [STRICT, BATCH]
                .iter()
                .any(|one| key.eq_ignore_ascii_case(one))
        };
        let mut query = self.clone();
        query.options.retain(|option| !silences(option));
        // A file may say it, too.
        if policy == HostKeyPolicy::Yes {
            query.options.push(format!("{STRICT}=ask"));
        }
        if batch {
            query.options.push(format!("{BATCH}=no"));
        }
        query.typed()
    }

    /// The arguments of ssh(1) but for the host.
    pub fn flags(&self) -> Vec<String> {
        let port = self.port.map(|port| port.to_string());
        let singles = [
            ("-F", &self.config_file),
            ("-J", &self.jump),
            ("-l", &self.user),
            ("-p", &port),
        ];
        let singles = singles
            .into_iter()
            .filter_map(|(flag, value)| Some((flag, value.as_ref()?)));
        let identities = self.identities.iter().map(|value| ("-i", value));
        let options = self.options.iter().map(|value| ("-o", value));
        let flags = singles.chain(identities).chain(options);
        flags
            .flat_map(|(flag, value)| [flag.to_owned(), value.clone()])
            .collect()
    }

    /// What the command line sets, which goes before all files: for a configuration that is read without ssh.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        let port = self.port.map(|port| port.to_string());
        let singles = [
            ("proxyjump", &self.jump),
            ("user", &self.user),
            ("port", &port),
        ];
        for (key, value) in singles {
            if let Some(value) = value {
                settings.push(key, value);
            }
        }
        for path in &self.identities {
            settings.push("identityfile", path);
        }
        for option in &self.options {
            let (key, value) = ssh_option::split(option);
            let mut one = Settings::default();
            one.push(key, value);
            settings.fill_up(one);
        }
        settings
    }

    /// The question that no file and no option answers: it shows what this ssh does by itself.
    pub fn for_defaults() -> Self {
        Self {
            host: "localhost".to_owned(),
            config_file: Some("none".to_owned()),
            ..Self::default()
        }
    }
}

fn user(remote: Option<String>, option: Option<String>) -> Result<Option<String>, PlanError> {
    let option = option.map(|name| remote::user(&name)).transpose()?;
    match (remote, option) {
        (Some(remote), Some(option)) if remote != option => {
            Err(PlanError::UserTwice { remote, option })
        }
        (remote, option) => Ok(remote.or(option)),
    }
}

fn port(remote: Option<u16>, option: Option<u16>) -> Result<Option<u16>, PlanError> {
    match (remote, option) {
        (Some(remote), Some(option)) if remote != option => {
            Err(PlanError::PortTwice { remote, option })
        }
        (remote, option) => Ok(remote.or(option)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_ssh() {
        let args = UpArgs {
            remote: Some("me@prod:2222".into()),
            ssh_config: Some("/a b".into()),
            jump: Some("gw".into()),
            login: Some("me".into()),
            identities: vec!["~/k".into(), "k2".into()],
            options: vec!["Compression yes".into()],
            ..UpArgs::default()
        };
        let query = Query::new(&args).unwrap();
        assert_eq!(
            query.arguments(),
            [
                "-G",
                "-T",
                "-F",
                "/a b",
                "-J",
                "gw",
                "-l",
                "me",
                "-p",
                "2222",
                "-i",
                "~/k",
                "-i",
                "k2",
                "-o",
                "Compression yes",
                "--",
                "prod"
            ]
        );
        assert_eq!(
            query.typed(),
            "-F '/a b' -J gw -l me -p 2222 -i '~/k' -i k2 -o 'Compression yes' prod"
        );
        assert_eq!(
            Query::for_defaults().arguments(),
            ["-G", "-T", "-F", "none", "--", "localhost"]
        );
    }

    #[test]
    fn a_pasted_ssh_asks_about_a_new_key() {
        let query = Query {
            host: "prod".into(),
            options: vec![
                "stricthostkeychecking yes".into(),
                "BatchMode=yes".into(),
                "Port=23".into(),
            ],
            ..Query::default()
        };
        let strict = query.typed_to_ask(HostKeyPolicy::Yes, true);
        let ask = "-o Port=23 -o StrictHostKeyChecking=ask -o BatchMode=no prod";
        assert_eq!(strict, ask);
        assert_eq!(
            query.typed_to_ask(HostKeyPolicy::Ask, false),
            "-o Port=23 prod"
        );
    }

    #[test]
    fn the_command_line_as_settings() {
        let query = Query {
            user: Some("me".into()),
            identities: vec!["k".into()],
            options: vec![
                "User=you".into(),
                "Compression yes".into(),
                "IdentityFile=k2".into(),
            ],
            ..Query::default()
        };
        assert_eq!(
            query.settings(),
            Settings::parse("user me\nidentityfile k\ncompression yes\nidentityfile k2")
        );
    }

    #[test]
    fn two_names_are_one_too_many() {
        let args = UpArgs {
            remote: Some("me@prod".into()),
            login: Some("you".into()),
            ..UpArgs::default()
        };
        assert!(matches!(
            Query::new(&args),
            Err(PlanError::UserTwice { .. })
        ));
    }

    #[test]
    fn a_hop_takes_the_file_and_the_hops_before_it() {
        let query = Query {
            host: "target".into(),
            config_file: Some("f".into()),
            options: vec!["Compression=yes".into()],
            identities: vec!["k".into()],
            ..Query::default()
        };
        let hops = super::super::jump::parse("a@h1:22,ssh://b@[::1]:23,h3").unwrap();
        let hop = query.last_hop(&hops).unwrap();
        assert_eq!(
            hop.arguments(),
            [
                "-G",
                "-T",
                "-F",
                "f",
                "-J",
                "a@h1:22,b@[::1]:23",
                "--",
                "h3"
            ]
        );
        assert_eq!(query.last_hop(&[]), None);
    }
}
