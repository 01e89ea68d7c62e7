//! How the privileged part is started, and greeted, by who needs it.

use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread;

use tracing::info;

use super::log;
use crate::cli::{LogArgs, LogFormat};
use crate::os::helper::{Hand, HandError, Hello, LogWish, Process, StartError, Way};
use crate::os::names::{Apart, By};

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
    /// The resolv.conf of another network, if names there will be.
    apart: Option<Apart>,
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
            apart: None,
        })
    }

    /// In `namespace`, if one is given, and for the names of programs there.
    pub(super) fn working_in(self, namespace: Option<OwnedFd>, apart: Option<Apart>) -> Self {
        Self {
            namespace,
            apart,
            ..self
        }
    }

    /// For the host's names too, if they are asked for.
    pub(super) fn with_names(self, names: Option<By>) -> Self {
        Self { names, ..self }
    }

    /// Talks to it.
    pub(super) async fn greet(self) -> Result<Hand, HandError> {
        let plain = self.words.is_some() || !log::wants_colour();
        let hello = Hello::new(wish(self.log, plain)).with_names(self.names, self.apart);
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
