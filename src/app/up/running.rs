//! Everything that is up, until it ends, and its end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::life;
use super::session::Session;
use super::setup::Setup;
use super::signals::Signals;
use crate::carrier::steady::Connector;
use crate::carrier::{ConnectError, Link, Steady};
use crate::plan::LifePlan;

/// How long the goodbye may take: a server that no longer answers holds nobody up.
const GOODBYE: Duration = Duration::from_secs(2);

/// Everything that is up.
pub(super) struct Running<C: Connector> {
    pub(super) session: Arc<Session<Steady<C::Link>>>,
    pub(super) driver: JoinHandle<io::Result<()>>,
    pub(super) connector: C,
    /// Rung when the network changes, by `watcher`.
    pub(super) changed: Arc<Notify>,
    pub(super) watcher: JoinHandle<()>,
    pub(super) setup: Arc<Mutex<Setup>>,
}

/// Why a run ends.
pub(super) enum End {
    Signal,
    Over(String),
    /// The connection was lost, and cannot be had again.
    Lost(ConnectError),
    Device(io::Error),
    /// The privileged part is gone.
    Helper,
}

impl<C> Running<C>
where
    C: Connector<Link: 'static>,
{
    pub(super) async fn until_end(&mut self, life: &LifePlan, signals: &mut Signals) -> End {
        let session = &self.session;
        let helper_gone = self.setup.lock().await.gone();
        tokio::select! {
            () = helper_gone => End::Helper,
            () = signals.stop() => End::Signal,
            why = life::over(life, &session.activity) => End::Over(why),
            error = session.carrier.keep(&self.connector, &self.changed) => End::Lost(error),
            result = &mut self.driver => End::Device(match result {
                Ok(Err(error)) => error,
                Ok(Ok(())) => io::ErrorKind::UnexpectedEof.into(),
                Err(error) => error.into(),
            }),
        }
    }

    /// Takes everything back in reverse order; whether all of it went.
    pub(super) async fn stop(self) -> bool {
        self.watcher.abort();
        // While the routes are there: without one back to the target, the kernel takes no reset from it.
        self.session.inlet.reset_flows();
        let left = self.setup.lock().await.undo().await;
        for line in &left {
            warn!("could not take back: {line}; underpass cleanup removes it");
        }
        self.driver.abort();
        self.say_goodbye().await;
        self.tell_counters();
        if left.is_empty() {
            info!("stopped; routes and rules are as before");
        }
        left.is_empty()
    }

    async fn say_goodbye(&self) {
        let Some(link) = self.session.carrier.link() else {
            return;
        };
        if tokio::time::timeout(GOODBYE, link.shutdown())
            .await
            .is_err()
        {
            debug!("the server did not take the goodbye");
        }
    }

    fn tell_counters(&self) {
        let Session { inlet, stats, .. } = &*self.session;
        debug!("{stats}");
        for (reason, count) in inlet.drops().nonzero() {
            debug!("packets not carried, {reason}: {count}");
        }
        let failed_writes = inlet.failed_writes();
        if failed_writes > 0 {
            debug!("packets that the device did not take: {failed_writes}");
        }
    }
}
