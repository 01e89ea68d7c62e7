//! Whose packets are captured: `--user`, and why there is no `--group`; `--gateway`.

use super::{Environment, PlanError, device};
use crate::cli::UpArgs;

/// `(uid_t) -1` stands for nobody at all (chown(2), fib_rules).
const NOBODY_AT_ALL: u32 = u32::MAX;
/// Every interface. None has this name: sysctl_dev_name_is_allowed() in include/net/ip.h.
const ALL: &str = "all";

/// Whose packets are captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// Those of the sockets of these users of this host alone, by number; of everybody where it is empty.
    pub users: Vec<u32>,
    /// What is captured beside those of this host itself, where no user is named.
    pub forwarded: Forwarded,
}

/// Which of the packets are captured that come from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Forwarded {
    /// Those of containers behind a bridge of Docker or Podman.
    #[default]
    Containers,
    /// Also those that come in by these interfaces.
    By(Vec<String>),
    /// All.
    All,
}

impl Forwarded {
    /// As `--gateway` spells it, one for each time that it is given.
    pub fn typed(&self) -> Vec<String> {
        match self {
            Self::Containers => Vec::new(),
            Self::By(names) => names.clone(),
            Self::All => vec![ALL.to_owned()],
        }
    }
}

/// Whose packets to capture.
pub(super) fn plan(args: &UpArgs, environment: &Environment) -> Result<Whose, PlanError> {
    if let Some(name) = &args.group {
        return Err(PlanError::Group { name: name.clone() });
    }
    let mut users = Vec::new();
    for name in &args.users {
        let number = user(name, environment)?;
        if !users.contains(&number) {
            users.push(number);
        }
    }
    let forwarded = forwarded(&args.gateway)?;
    if !users.is_empty() && forwarded != Forwarded::Containers {
        return Err(PlanError::UserAndGateway);
    }
    Ok(Whose { users, forwarded })
}

fn forwarded(interfaces: &[String]) -> Result<Forwarded, PlanError> {
    if interfaces.iter().any(|name| name == ALL) {
        return Ok(Forwarded::All);
    }
    interfaces
        .iter()
        .try_for_each(|name| check_interface(name))?;
    Ok(match interfaces {
        [] => Forwarded::Containers,
        names => Forwarded::By(names.to_vec()),
    })
}

/// Whether a text can stand behind `--gateway`.
pub(super) fn check_gateway(text: &str) -> Result<(), PlanError> {
    match text {
        ALL => Ok(()),
        name => check_interface(name),
    }
}

fn check_interface(name: &str) -> Result<(), PlanError> {
    device::check_name(name).map_err(|reason| PlanError::BadGateway {
        name: name.to_owned(),
        reason,
    })
}

/// Digits are a number, whether somebody has it or not; everything else is a name.
fn user(text: &str, environment: &Environment) -> Result<u32, PlanError> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let found = match is_number {
        true => text.parse().ok().filter(|number| is_user(*number)),
        false => (environment.user_number)(text),
    };
    found.ok_or_else(|| PlanError::NoSuchUser { name: text.into() })
}

const fn is_user(number: u32) -> bool {
    number != NOBODY_AT_ALL
}

impl Whose {
    /// Whether it is one that [`super::resolve()`] may give, for a plan that comes from elsewhere.
    ///
    /// # Errors
    /// [`PlanError::NoSuchUser`], [`PlanError::BadGateway`].
    pub(super) fn check(&self) -> Result<(), PlanError> {
        if let Some(number) = self.users.iter().find(|number| !is_user(**number)) {
            let name = number.to_string();
            return Err(PlanError::NoSuchUser { name });
        }
        match &self.forwarded {
            Forwarded::By(names) => names.iter().try_for_each(|name| check_interface(name)),
            Forwarded::Containers | Forwarded::All => Ok(()),
        }
    }
}
