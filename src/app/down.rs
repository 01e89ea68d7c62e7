//! `down`: ends instances in good order, and waits until they are gone.

use tracing::{error, info};

use super::control::client::{self, ClientError};
use super::control::instances;
use super::control::protocol::{Answer, Request};
use super::exit::Exit;
use crate::os::run_dir::Found;

/// An instance answers twice: that it will end, and that it has ended.
const ANSWERS: usize = 2;

/// Ends the instance of `name`, the only one, or `all` there are. [`Exit::Success`] when they are gone and have taken
/// everything back, [`Exit::NotUndone`] where one could not, [`Exit::Failure`] where one stays, or none runs: but for
/// `all`, who want none to run and have that.
pub fn run(name: Option<&str>, all: bool) -> Exit {
    if !all {
        return match instances::choose(name) {
            Ok(found) => end(&found),
            Err(line) => super::failed(&line),
        };
    }
    let running = instances::running();
    if running.is_empty() {
        info!("{}", instances::names(&running));
        return Exit::Success;
    }
    let ends = running.iter().map(|one| end(&one.found));
    // To the last one, whatever the first one says.
    let ends: Vec<Exit> = ends.collect();
    let failed = ends.into_iter().find(|exit| *exit != Exit::Success);
    failed.unwrap_or(Exit::Success)
}

fn end(found: &Found) -> Exit {
    let name = &found.name;
    match until_gone(found) {
        Ok(Some(0)) => {
            info!("{name} has ended; routes and rules are as before");
            Exit::Success
        }
        Ok(Some(7)) => {
            error!(
                "{name} has ended, and could not take everything back; sudo underpass cleanup does it"
            );
            Exit::NotUndone
        }
        Ok(Some(code)) => {
            info!("{name} has ended, with exit code {code}");
            Exit::Success
        }
        // As when it was killed, or was not up yet.
        Ok(None) => {
            info!("{name} has ended");
            Exit::Success
        }
        Err(ClientError::Gone) => {
            info!("{name} is not running");
            Exit::Failure
        }
        Err(error) => super::failed(&format_args!("{name} was not ended: {error}")),
    }
}

/// Its exit code, if it told one.
fn until_gone(found: &Found) -> Result<Option<u8>, ClientError> {
    let mut asked = client::ask(found, Request::Down {})?;
    let mut exit = None;
    for _ in 0..=ANSWERS {
        match asked.answer()? {
            Some(Answer::Stopping { .. }) => {}
            Some(Answer::Ended { exit: code }) => exit = Some(code),
            Some(Answer::Failed { why }) => return Err(ClientError::Answer(why)),
            Some(other) => return Err(ClientError::Answer(format!("{other:?}"))),
            // The kernel closes the socket with the process.
            None => return Ok(exit),
        }
    }
    Err(ClientError::Answer("it says ever more".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::app::control::protocol;

    /// What comes of a socket where somebody says `said` again and again.
    fn ended(said: &Answer, times: usize) -> Result<Option<u8>, ClientError> {
        let dir = tempfile::tempdir().unwrap();
        let found = Found {
            name: "a".to_owned(),
            socket: dir.path().join("a.sock"),
        };
        let listener = UnixListener::bind(&found.socket).unwrap();
        let line = protocol::line(said).unwrap();
        let says = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for _ in 0..times {
                // Who has heard enough goes.
                if stream.write_all(&line).is_err() {
                    break;
                }
            }
        });
        let ended = until_gone(&found);
        says.join().unwrap();
        ended
    }

    #[test]
    fn who_never_stops_talking_holds_nobody_up() {
        for said in [Answer::Stopping { pid: 1 }, Answer::Ended { exit: 0 }] {
            let error = ended(&said, 1_000_000).unwrap_err();
            assert!(matches!(error, ClientError::Answer(_)), "{error}");
        }
        assert!(matches!(ended(&Answer::Ended { exit: 7 }, 1), Ok(Some(7))));
    }
}
