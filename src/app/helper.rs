//! `helper`: the privileged part, and how the others have it started.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use tracing::{debug, info};

use super::exit::Exit;
use super::log;
use crate::cli::{LogArgs, LogFormat};
use crate::os::confine;
use crate::os::helper::{
    Hand, HandError, Hello, LogWish, Process, StartError, Way, greeted, guarded, socket_on_stdin,
};
use crate::os::namespace::existing;

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
            "the network namespace cannot be entered: {error}"
        ));
    }
    match confine::helper().and_then(|()| guarded(socket)) {
        Ok(true) => Exit::Success,
        Ok(false) => Exit::Failure,
        Err(error) => super::failed(&format_args!(
            "the privileged part could not begin: {error}"
        )),
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

/// The privileged part: it waits for a greeting, or for the password that somebody is asked for.
pub struct Helper {
    socket: UnixStream,
    process: Process,
    log: LogArgs,
    namespace: Option<OwnedFd>,
}

impl Helper {
    /// Starts it where that asks nobody: with privileges of our own, which are given up next.
    pub(super) fn early(log: LogArgs) -> Result<Option<Self>, StartError> {
        if Way::is_direct() {
            Self::start(&Way::Direct, log).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Starts it by a program that may ask for a password; says why.
    pub(super) fn late(log: LogArgs) -> Result<Self, StartError> {
        let way = Way::find()?;
        if let Way::By(elevator, _) = &way {
            info!(
                "making the device and setting routes needs privileges: asking {} for them",
                elevator.name()
            );
        }
        Self::start(&way, log)
    }

    fn start(way: &Way, log: LogArgs) -> Result<Self, StartError> {
        let (socket, process) = way.start()?;
        Ok(Self {
            socket,
            process,
            log,
            namespace: None,
        })
    }

    /// In `namespace`, if one is given.
    pub(super) fn working_in(self, namespace: Option<OwnedFd>) -> Self {
        Self { namespace, ..self }
    }

    /// Talks to it.
    pub(super) async fn greet(self) -> Result<Hand, HandError> {
        let hello = Hello::new(wish(self.log));
        Hand::greet(self.socket, hello, self.namespace, Some(self.process)).await
    }
}

fn wish(log: LogArgs) -> LogWish {
    LogWish {
        verbose: log.verbose,
        quiet: log.quiet,
        json: log.log_format == LogFormat::Json,
        plain: !log::wants_colour(),
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
