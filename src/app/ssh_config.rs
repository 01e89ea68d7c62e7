//! Asks the user's own ssh for its effective configuration: Match, Include, tokens and canonical names are then
//! exactly ssh's. Where no ssh is installed the files are read instead.

mod files;

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tracing::debug;

use super::surroundings::Person;
use crate::plan::PlanError;
use crate::plan::ssh_config::{Effective, Query, Settings, Source};

/// How long ssh may take: `Match exec` runs commands, and canonical names are looked up in the DNS.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than this is no configuration, in bytes. What ssh prints without one has 5,000.
const MOST_OUTPUT: u64 = 1 << 20;
/// What ssh says before it reads anything where the process has no entry in passwd(5), as in some containers.
const NO_USER: &str = "No user exists for uid";

/// ssh's configuration, as the person who asked has it.
pub struct SshConfig {
    person: Person,
    /// What this ssh does by itself, once asked.
    defaults: Option<Settings>,
    /// Whether it was said that there is no ssh to ask.
    told: bool,
}

/// Why ssh gave no answer.
enum Silence {
    /// It cannot be run here at all.
    NoSsh(String),
    /// It does not accept its configuration.
    Said(String),
}

impl SshConfig {
    /// Of this person.
    pub fn new(person: Person) -> Self {
        Self {
            person,
            defaults: None,
            told: false,
        }
    }

    /// What the configuration says about a host.
    ///
    /// # Errors
    /// [`PlanError::SshConfig`], with what ssh says.
    pub fn ask(&mut self, query: &Query) -> Result<Effective, PlanError> {
        match self.ask_ssh(query) {
            Ok(effective) => Ok(effective),
            Err(Silence::NoSsh(why)) => {
                let home = self.person.home.as_deref();
                if !std::mem::replace(&mut self.told, true) {
                    files::tell(query, home, &why);
                }
                files::read(query, home)
            }
            Err(Silence::Said(said)) => Err(PlanError::SshConfig {
                host: query.host.clone(),
                said,
            }),
        }
    }

    fn ask_ssh(&mut self, query: &Query) -> Result<Effective, Silence> {
        let settings = self.run(query)?;
        let defaults = match &self.defaults {
            Some(defaults) => defaults.clone(),
            None => self
                .defaults
                .insert(self.run(&Query::for_defaults())?)
                .clone(),
        };
        Ok(Effective {
            settings,
            defaults,
            source: Source::Ssh,
        })
    }

    fn run(&self, query: &Query) -> Result<Settings, Silence> {
        let failed = |error: io::Error| Silence::Said(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let command = Self::command(query);
        let output =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, output(command)).await });
        let output = output
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Silence::NoSsh("no ssh client is installed".to_owned()),
                _ => failed(error),
            })?;
        for line in output.errors.lines() {
            debug!("ssh -G {}: {line}", query.host);
        }
        if output.success {
            return Ok(Settings::parse(&output.text));
        }
        let mut lines = output.errors.lines().map(str::trim);
        let said = lines.find(|line| !line.is_empty());
        let said = said.unwrap_or("ssh -G failed and said nothing").to_owned();
        Err(if said.starts_with(NO_USER) {
            Silence::NoSsh(said)
        } else {
            Silence::Said(said)
        })
    }

    fn command(query: &Query) -> Command {
        let mut command = Command::new("ssh");
        command
            .args(query.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

struct Output {
    success: bool,
    text: String,
    errors: String,
}

/// A name or path that is no UTF-8 comes out with replacement characters, as a file that is not there.
async fn output(mut command: Command) -> io::Result<Output> {
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (text, errors) = tokio::try_join!(read(stdout), read(stderr))?;
    Ok(Output {
        success: child.wait().await?.success(),
        text,
        errors,
    })
}

async fn read(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MOST_OUTPUT).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
