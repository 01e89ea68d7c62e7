//! ssh's effective configuration for a host: what to ask for, how the answer is read, and what of it cannot be
//! honoured. Running `ssh -G` and reading files is for those who call.
//!
//! # How a configuration becomes a plan
//!
//! ```text
//!   arguments --> Query --> [ssh -G, as the person who asked] --> Settings --> read --> SshPlan
//!                   ^                                                           |
//!                   +--------------- the last of its jump hosts <---------------+
//! ```
//! `ssh -G` applies Match, Include, patterns and canonical names, and expands the tokens of HostName, IdentityAgent and
//! UserKnownHostsFile. It leaves those of IdentityFile, CertificateFile, ProxyJump and ProxyCommand, which [`tokens`]
//! expands. What differs from the answer to `ssh -G -F none`, the defaults of this very ssh, was set by the user: only
//! then do lists of algorithms count, and only then is an option said that is not honoured ([`table`]).
//!
//! The way leads through jump hosts as ssh's own does: the last host of ProxyJump is asked about with `-J` of those
//! before it and the same `-F`, but without other options of the command line; the first keeps a ProxyJump or
//! ProxyCommand of its own.
//!
//! Without ssh the settings are what the files say as it is written ([`Source::Files`]); all tokens are expanded here then.

mod jump;
mod methods;
mod query;
mod read;
mod settings;
mod table;
mod tokens;
mod values;

pub use query::Query;
pub use settings::Settings;
pub use table::Unheeded;

pub(super) use read::read;
pub(super) use values::seconds;

/// What ssh's configuration says about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Options with their values.
    pub settings: Settings,
    /// What ssh does where nothing is set, as far as it is known.
    pub defaults: Settings,
    /// Where the settings come from.
    pub source: Source,
}

/// Where settings come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `ssh -G`: complete, and with most tokens expanded.
    Ssh,
    /// The files, read without ssh: only what they set, as it is written.
    Files,
}

impl Effective {
    /// The first value of an option, else its default.
    fn value(&self, key: &str) -> Option<&str> {
        self.settings
            .first(key)
            .or_else(|| self.defaults.first(key))
            .or_else(|| table::default(key))
    }

    /// Whether an option has been set to something else than its default.
    fn is_set(&self, key: &str) -> bool {
        let mut values = self.settings.all(key).peekable();
        if values.peek().is_none() {
            return false;
        }
        let mut defaults = self.defaults.all(key).peekable();
        if defaults.peek().is_some() {
            return !values.eq(defaults);
        }
        !values.eq(table::default(key))
    }
}
