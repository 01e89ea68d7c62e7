//! `helper`: the privileged part.

use tracing::debug;

use super::exit::Exit;
use super::log;
use crate::cli::{LogArgs, LogFormat};
use crate::os::confine;
use crate::os::helper::{LogWish, greeted, guarded, program, refused, socket_on_stdin};
use crate::os::names::{Apart, By, Place};
use crate::os::namespace::existing;
use crate::os::resolv_conf::ResolvConf;

/// Serves whoever started us, and holds the other end of stdin.
pub(super) fn run() -> Exit {
    let begun = socket_on_stdin().and_then(|socket| {
        let (hello, namespace) = greeted(&socket)?;
        Ok((socket, hello, namespace))
    });
    let (socket, hello, namespace) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            log::start(LogArgs::default(), log::USUAL);
            return not_begun(&error);
        }
    };
    log::start_with(arguments(&hello.log), log::USUAL, !hello.log.plain);
    // Before the privilege for that is given up.
    if let Err(error) = namespace.map_or(Ok(()), existing::enter) {
        return super::failed(&format_args!(
            "the network namespace cannot be entered: {error}{}",
            hint(&error)
        ));
    }
    let place = match hello.apart.as_ref().map(Place::find).transpose() {
        Ok(place) => place,
        Err(error) => {
            return match refused(&socket, error) {
                Ok(()) => Exit::Failure,
                Err(error) => not_begun(&error),
            };
        }
    };
    let names = hello.names.or(hello.apart.as_ref().map(Apart::by));
    // What a killed run left is put back also where names are nothing to this one.
    let left = ResolvConf::default().owner().map(|_| By::File);
    match confine::helper(names.or(left)).and_then(|()| guarded(socket, names, place)) {
        Ok(true) => Exit::Success,
        Ok(false) => Exit::Failure,
        Err(error) => super::failed(&format_args!(
            "the privileged part could not begin: {error}"
        )),
    }
}

/// The rule for sudo gives what a capability of the file does not.
fn hint(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => format!(
            "; that takes CAP_SYS_ADMIN, which sudo gives and a capability of the file does not: sudo setcap -r {}",
            program().display()
        ),
        _ => String::new(),
    }
}

fn not_begun(error: &std::io::Error) -> Exit {
    match error.kind() {
        std::io::ErrorKind::InvalidInput => {
            tracing::error!("underpass up starts this by itself; there is nothing to do by hand");
            Exit::Usage
        }
        std::io::ErrorKind::UnexpectedEof => {
            debug!("who started this has gone");
            Exit::Success
        }
        _ => super::failed(error),
    }
}

fn arguments(wish: &LogWish) -> LogArgs {
    LogArgs {
        verbose: wish.verbose,
        quiet: wish.quiet,
        log_format: if wish.json {
            LogFormat::Json
        } else {
            LogFormat::Human
        },
    }
}
