//! What an instance is told, by signals and over its control socket.

use std::io;

use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::app::control::Order;
use crate::os::signals::has_terminal;

/// Requests of the control socket that wait at most.
const WAITING: usize = 4;

/// What an instance is told.
///
/// SIGHUP ends what runs in the foreground of a terminal, as the terminal sends it when it goes away. Without a terminal, as a
/// daemon or a service, or where it was ignored at the start (nohup(1)), it has subnets and exclusions read again.
pub(super) struct Orders {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    hangup_ends: bool,
    requests: mpsc::Receiver<Order>,
}

impl Orders {
    /// Listens from here on; the control socket's requests come through the sender.
    ///
    /// # Errors
    /// The handlers cannot be set.
    pub(super) fn new() -> io::Result<(Self, mpsc::Sender<Order>)> {
        let (sender, requests) = mpsc::channel(WAITING);
        // Looked at before there is a handler.
        let hangup_ends = has_terminal() && !is_ignored(libc::SIGHUP);
        let orders = Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            hangup_ends,
            requests,
        };
        Ok((orders, sender))
    }

    /// The terminal has been left: it does not end us any more.
    pub(super) fn without_terminal(&mut self) {
        self.hangup_ends = false;
    }

    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.interrupt.recv() => Order::Stop,
            _ = self.terminate.recv() => Order::Stop,
            _ = self.hangup.recv() => match self.hangup_ends {
                true => Order::Stop,
                false => Order::Reload(None),
            },
            Some(order) = self.requests.recv() => order,
        }
    }

    /// Waits to be told to stop, before anything is up that could be reloaded.
    pub(super) async fn stop(&mut self) {
        loop {
            match self.next().await {
                Order::Stop => return,
                Order::Reload(Some(reply)) => {
                    // Whoever has asked may have gone.
                    let _ = reply.send(Err("it is starting".to_owned()));
                }
                Order::Reload(None) => {}
            }
        }
    }
}

/// Whether the process was started with this signal ignored (proc_pid_status(5), `SigIgn`).
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_ignores_sigpipe_and_nothing_else_here() {
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGUSR1));
    }
}
