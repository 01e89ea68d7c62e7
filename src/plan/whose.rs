//! Whose packets are captured: `--user`, and why there is no `--group`.

use super::{Environment, PlanError};
use crate::cli::UpArgs;

/// `(uid_t) -1` stands for nobody at all (chown(2), fib_rules).
const NOBODY_AT_ALL: u32 = u32::MAX;

/// Whose packets are captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// Those of the sockets of these users of this host alone, by number; of everybody where it is empty.
    pub users: Vec<u32>,
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
    Ok(Whose { users })
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
    /// [`PlanError::NoSuchUser`].
    pub(super) fn check(&self) -> Result<(), PlanError> {
        match self.users.iter().find(|number| !is_user(**number)) {
            Some(number) => Err(PlanError::NoSuchUser {
                name: number.to_string(),
            }),
            None => Ok(()),
        }
    }
}
