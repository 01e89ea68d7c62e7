//! Who called sudo, by what it leaves in the environment (sudo(8), ENVIRONMENT).

use std::ffi::OsString;

use nix::unistd::{Uid, User};
use thiserror::Error;

use crate::plan::quoted;

/// Why it is not known who called sudo. To go on as root then would be to use root's keys and known hosts, and to run what
/// the caller's configuration names with root's rights.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SudoError {
    /// passwd(5) has no such user.
    #[error(
        "sudo was called by {caller} ({variable}), whom this host does not know: {}. {ADVICE}", asked(.caller)
    )]
    Unknown {
        /// The variable's value.
        caller: String,
        /// The variable.
        variable: &'static str,
    },
    /// The number that sudo leaves is none.
    #[error("SUDO_UID is {0:?}, which is no user's number. {ADVICE}")]
    NoNumber(
        /// The variable's value.
        String,
    ),
    /// The two variables name different users.
    #[error("SUDO_USER is {name}, whose number is {number}, but SUDO_UID is {uid}. {ADVICE}")]
    Disagree {
        /// The name.
        name: String,
        /// Its number.
        number: u32,
        /// The other's number.
        uid: u32,
    },
    /// passwd(5) cannot be read.
    #[error("cannot look up {caller}, who called sudo: {reason}. {ADVICE}")]
    Lookup {
        /// Who.
        caller: String,
        /// The system's words.
        reason: nix::errno::Errno,
    },
}

const ADVICE: &str = "Call sudo as the user whose keys are to be used; or, to use root's own: sudo env -u SUDO_USER -u SUDO_UID underpass ...";

fn asked(caller: &str) -> String {
    format!("getent passwd {}", quoted(caller))
}

/// Who called sudo; `None` where nobody did, or root.
///
/// # Errors
/// [`SudoError`] where the traces lead to nobody.
pub(super) fn caller() -> Result<Option<User>, SudoError> {
    let variable = |name| std::env::var_os(name);
    sudo_caller(&variable("SUDO_USER"), &variable("SUDO_UID"))
}

fn sudo_caller(name: &Option<OsString>, uid: &Option<OsString>) -> Result<Option<User>, SudoError> {
    let text = |value: &Option<OsString>| {
        let value = value.as_ref().filter(|value| !value.is_empty());
        value.map(|value| value.to_string_lossy().into_owned())
    };
    let uid = text(uid).map(number).transpose()?;
    let user = match (text(name), uid) {
        (None, None) => return Ok(None),
        (Some(name), _) => known(User::from_name(&name), name, "SUDO_USER")?,
        (None, Some(uid)) => known(
            User::from_uid(Uid::from_raw(uid)),
            uid.to_string(),
            "SUDO_UID",
        )?,
    };
    match uid {
        Some(uid) if uid != user.uid.as_raw() => Err(SudoError::Disagree {
            name: user.name,
            number: user.uid.as_raw(),
            uid,
        }),
        _ => Ok((!user.uid.is_root()).then_some(user)),
    }
}

fn number(text: String) -> Result<u32, SudoError> {
    text.parse().map_err(|_| SudoError::NoNumber(text))
}

fn known(
    found: nix::Result<Option<User>>,
    caller: String,
    variable: &'static str,
) -> Result<User, SudoError> {
    match found {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(SudoError::Unknown { caller, variable }),
        Err(reason) => Err(SudoError::Lookup { caller, reason }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn who_called_sudo() {
        let caller = |name: &str, uid: &str| {
            let user = sudo_caller(&Some(name.into()), &Some(uid.into()));
            user.map(|user| user.map(|user| user.name))
        };
        let nobody = Some("nobody".to_owned());
        assert_eq!(caller("", ""), Ok(None));
        assert_eq!(sudo_caller(&None, &None), Ok(None));
        assert_eq!(caller("root", "0"), Ok(None));
        assert_eq!(caller("nobody", ""), Ok(nobody.clone()));
        assert_eq!(caller("nobody", "65534"), Ok(nobody.clone()));
        assert_eq!(caller("", "65534"), Ok(nobody));
    }

    /// None of them is taken for root.
    #[test]
    fn a_caller_of_sudo_that_is_not_known_is_an_error() {
        for (name, uid, said) in [
            ("no-such-user", "", "getent passwd no-such-user"),
            ("no-such-user", "0", "SUDO_USER"),
            ("", "4000000000", "SUDO_UID"),
            ("nobody", "x", "no user's number"),
            ("nobody", "-1", "no user's number"),
            ("nobody", "0", "whose number is 65534, but SUDO_UID is 0"),
            ("root", "65534", "whose number is 0, but SUDO_UID is 65534"),
        ] {
            let error = sudo_caller(&Some(name.into()), &Some(uid.into())).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains(said) && text.contains("env -u SUDO_USER"),
                "{text}"
            );
        }
        let odd = OsString::from_vec(vec![0xff]);
        assert!(sudo_caller(&Some(odd), &None).is_err());
    }
}
