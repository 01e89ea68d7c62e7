//! What systemd is told, where it wants to know (sd_notify(3)). Without `$NOTIFY_SOCKET` nobody is told anything.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// More of a status is not told, in bytes: systemd drops a message of 4096 and more, with all that stands in it
/// (NOTIFY_BUFFER_MAX in src/core/manager.c).
const LONGEST: usize = 1024;

/// Packets flow.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
}

/// How things stand, in one line.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(&line(status))]);
}

/// As much of `status` as is told. A line break within, perhaps a server's, would begin another variable.
fn line(status: &str) -> String {
    let told = &status[..status.floor_char_boundary(LONGEST)];
    told.replace(char::is_control, " ")
}

/// What is captured is worked out again; [`ready`] ends it. The time belongs to it since systemd 253 (`Type=notify-reload`).
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!("the monotonic clock: {error}"),
    }
}

/// It is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// It is alive.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] has to be said: half of what `WatchdogSec=` says, as sd_watchdog_enabled(3) advises.
pub fn watchdog() -> Option<Duration> {
    let limit = sd_notify::watchdog_enabled()?;
    Some(limit / 2).filter(|half| !half.is_zero())
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("systemd was not told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_that_systemd_takes() {
        assert_eq!(line("up through me@bastion"), "up through me@bastion");
        assert_eq!(line("it said\nMAINPID=1\r"), "it said MAINPID=1 ");
        // Two bytes each, behind one: the edge is within a character.
        let long = line(&format!("x{}", "\u{fc}".repeat(4000)));
        assert_eq!(long.len(), LONGEST - 1);
    }
}
