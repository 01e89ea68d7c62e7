//! What an instance is told, by signals and over its control socket.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::warn;

use crate::app::control::Order;
use crate::audit::Audit;
use crate::os::daemon::Front;
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
    /// Who waits for packets to flow: where that one is gone, nobody expects that they will.
    front: Option<Front>,
    /// Its file is opened anew at every reload, whatever comes of that one.
    audit: Option<Arc<Audit>>,
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
            front: None,
            audit: None,
        };
        Ok((orders, sender))
    }

    /// Somebody waits for packets to flow, and is not to go before.
    pub(super) fn with_front(&mut self, front: Option<Front>) {
        self.front = front;
    }

    /// The terminal has been left: neither that nor who has waited for it ends us any more.
    pub(super) fn without_terminal(&mut self) {
        self.hangup_ends = false;
        self.front = None;
    }

    /// The audit log is open.
    pub(super) fn with_audit(&mut self, audit: Option<Arc<Audit>>) {
        self.audit = audit;
    }

    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Order {
        let order = self.told().await;
        if matches!(order, Order::Reload(_)) {
            self.reopen();
        }
        order
    }

    /// The file was renamed, perhaps: a line more in the old one may be lost with it.
    fn reopen(&self) {
        if let Some(audit) = &self.audit {
            audit.reopen();
        }
    }

    async fn told(&mut self) -> Order {
        tokio::select! {
            _ = self.interrupt.recv() => Order::Stop,
            _ = self.terminate.recv() => Order::Stop,
            _ = self.hangup.recv() => match self.hangup_ends {
                true => Order::Stop,
                false => Order::Reload(None),
            },
            Some(order) = self.requests.recv() => order,
            () = gone(self.front.as_ref()) => {
                warn!("the process that waited for packets to flow is gone: stopping");
                Order::Stop
            }
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

    /// Waits for the end of what takes everything back: of what it is told meanwhile only the log's file counts.
    pub(super) async fn until_stopped<T>(&mut self, stopping: impl Future<Output = T>) -> T {
        let mut stopping = pin!(stopping);
        loop {
            tokio::select! {
                done = &mut stopping => return done,
                Some(()) = self.hangup.recv() => self.reopen(),
            }
        }
    }
}

async fn gone(front: Option<&Front>) {
    match front {
        Some(front) => front.gone().await,
        None => std::future::pending().await,
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
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::audit::Lookup;
    use crate::os::Processes;
    use crate::plan::AuditLog;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// As logrotate(8) does it.
    fn rotate(log: &Path) {
        fs::rename(log, log.with_extension("1")).unwrap();
        raise(Signal::SIGHUP).unwrap();
    }

    async fn is_made_anew(log: &Path) {
        while !log.exists() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_hangup_has_the_log_opened_anew_from_its_start_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let log = AuditLog::File(path.clone());
        let audit = Audit::open(&log, Lookup::nowhere(Processes::default())).unwrap();
        let (mut orders, _requests) = Orders::new().unwrap();
        orders.without_terminal();
        orders.with_audit(Some(Arc::new(audit)));
        rotate(&path);
        let starting = async {
            tokio::select! {
                () = orders.stop() => {}
                () = is_made_anew(&path) => {}
            }
        };
        timeout(PATIENCE, starting).await.unwrap();
        // Whoever takes the order may be reloading.
        rotate(&path);
        assert!(matches!(orders.next().await, Order::Reload(None)));
        timeout(PATIENCE, is_made_anew(&path)).await.unwrap();
        rotate(&path);
        let stopping = orders.until_stopped(is_made_anew(&path));
        timeout(PATIENCE, stopping).await.unwrap();
    }

    #[test]
    fn rust_ignores_sigpipe_and_nothing_else_here() {
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGUSR1));
    }
}
