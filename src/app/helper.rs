//! `helper`: the privileged part, and how the others have it started.

use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread;

use tracing::{debug, info};

use super::exit::Exit;
use super::log;
use crate::cli::{LogArgs, LogFormat};
use crate::os::confine;
use crate::os::helper::{
    Hand, HandError, Hello, LogWish, Process, StartError, Way, greeted, guarded, program,
    socket_on_stdin,
};
use crate::os::names::By;
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
            "the network namespace cannot be entered: {error}{}",
            hint(&error)
        ));
    }
    match confine::helper(hello.names).and_then(|()| guarded(socket, hello.names)) {
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

/// The privileged part: it waits for a greeting, or for the password that somebody is asked for.
pub struct Helper {
    socket: UnixStream,
    process: Process,
    log: LogArgs,
    /// What it says, where our own stderr will not stay what it is.
    words: Option<PipeReader>,
    namespace: Option<OwnedFd>,
    /// How the host's names will be asked for, if they will.
    names: Option<By>,
}

/// Where it says what it has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// On our stderr.
    Here,
    /// To us: our stderr is left when packets flow, and must not be held open by another process.
    ToUs,
}

impl Helper {
    /// Starts it where that asks nobody: with privileges of our own, which are given up next.
    pub(super) fn early(log: LogArgs, words: Words) -> Result<Option<Self>, StartError> {
        if Way::is_direct() {
            Self::start(&Way::Direct, log, words).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Starts it by a program that may ask for a password; says why.
    pub(super) fn late(log: LogArgs, words: Words) -> Result<Self, StartError> {
        let way = Way::find()?;
        if let Way::By(elevator, _) = &way {
            info!(
                "making the device and setting routes needs privileges: asking {} for them",
                elevator.name()
            );
        }
        Self::start(&way, log, words)
    }

    fn start(way: &Way, log: LogArgs, words: Words) -> Result<Self, StartError> {
        let (words, stderr) = match words {
            Words::Here => (None, Stdio::inherit()),
            Words::ToUs => {
                let (reader, writer) = pipe()?;
                (Some(reader), writer.into())
            }
        };
        let (socket, process) = way.start(stderr)?;
        Ok(Self {
            socket,
            process,
            log,
            words,
            namespace: None,
            names: None,
        })
    }

    /// In `namespace`, if one is given.
    pub(super) fn working_in(self, namespace: Option<OwnedFd>) -> Self {
        Self { namespace, ..self }
    }

    /// For the host's names too, if they are asked for.
    pub(super) fn with_names(self, names: Option<By>) -> Self {
        Self { names, ..self }
    }

    /// Talks to it.
    pub(super) async fn greet(self) -> Result<Hand, HandError> {
        let plain = self.words.is_some() || !log::wants_colour();
        let hello = Hello::new(wish(self.log, plain)).with_names(self.names);
        if let Some(words) = self.words {
            thread::Builder::new()
                .name("helper's words".to_owned())
                .spawn(move || pass_on(words))?;
        }
        Hand::greet(self.socket, hello, self.namespace, Some(self.process)).await
    }
}

/// Until it has ended.
fn pass_on(words: PipeReader) {
    for line in BufReader::new(words).lines().map_while(Result::ok) {
        log::pass_on(&line);
    }
}

fn wish(log: LogArgs, plain: bool) -> LogWish {
    LogWish {
        verbose: log.verbose,
        quiet: log.quiet,
        json: log.log_format == LogFormat::Json,
        plain,
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
