//! Whose packets are captured: `--user`, `--group`, `--gateway`.
//!
//! The kernel's routing rules select by user and not by group (FRA_UID_RANGE is all there is), so a group stands for its
//! users. A mark that a packet filter sets by group would come too late: by then the source address was chosen, and a host
//! without another route was told that there is none.

use std::collections::BTreeSet;

use super::{Environment, PlanError, device};
use crate::cli::UpArgs;

/// `(uid_t) -1` stands for nobody at all (chown(2), fib_rules).
const NOBODY_AT_ALL: u32 = u32::MAX;
/// Every interface. None has this name: sysctl_dev_name_is_allowed() in include/net/ip.h.
pub(super) const ALL: &str = "all";
/// Users of a group at most: each is some rules, and every lookup of a route goes through all of them.
const MOST_IN_GROUP: usize = 256;

/// Whose packets are captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// Those of the sockets of these users of this host alone, by number; of everybody where it is empty.
    pub users: Vec<u32>,
    /// The groups by which some of them were named. Nothing but words: [`Self::users`] has them all.
    pub groups: Vec<Group>,
    /// What is captured beside those of this host itself, where no user is named.
    pub forwarded: Forwarded,
}

/// A group of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// As typed.
    pub name: String,
    /// The numbers of those who are in it.
    pub users: Vec<u32>,
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
    let named = args.users.iter().map(|name| user(name, environment));
    let mut users: Vec<u32> = named.collect::<Result<_, _>>()?;
    let groups = args.groups.iter().map(|name| group(name, environment));
    let groups: Vec<Group> = groups.collect::<Result<_, _>>()?;
    users.extend(groups.iter().flat_map(|group| &group.users));
    let mut seen = BTreeSet::new();
    users.retain(|user| seen.insert(*user));
    let forwarded = forwarded(&args.gateway)?;
    if !users.is_empty() && forwarded != Forwarded::Containers {
        return Err(PlanError::UserAndGateway);
    }
    Ok(Whose {
        users,
        groups,
        forwarded,
    })
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

fn group(text: &str, environment: &Environment) -> Result<Group, PlanError> {
    let name = text.to_owned();
    let Some(users) = (environment.group_users)(text) else {
        return Err(PlanError::NoSuchGroup { name });
    };
    let (count, most) = (users.len(), MOST_IN_GROUP);
    if !(1..=most).contains(&count) {
        return Err(PlanError::GroupSize { name, count, most });
    }
    Ok(Group { name, users })
}

const fn is_user(number: u32) -> bool {
    number != NOBODY_AT_ALL
}

impl Whose {
    /// Of these users, and of what is forwarded. Groups are words for people.
    pub fn of(users: Vec<u32>, forwarded: Forwarded) -> Self {
        Self {
            users,
            groups: Vec::new(),
            forwarded,
        }
    }

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
