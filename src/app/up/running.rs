//! Everything that is up, until it ends, and its end.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, timeout};
use tracing::{debug, info, warn};

use super::leads::Mapped;
use super::life;
use super::reload::Reloader;
use super::session::Session;
use super::setup::Setup;
use super::signals::Orders;
use crate::app::control::Order;
use crate::carrier::steady::Connector;
use crate::carrier::{AnyCarrier, ConnectError, Link, Steady};
use crate::os::notify;
use crate::plan::LifePlan;

/// How long the goodbye may take: a server that no longer answers holds nobody up.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long the end of the privileged part may follow the device's.
const HELPERS_END: Duration = Duration::from_secs(1);

/// Everything that is up.
pub(super) struct Running<C: Connector> {
    pub(super) session: Arc<Session<Mapped<Steady<C::Link>>>>,
    pub(super) driver: JoinHandle<io::Result<()>>,
    /// Carries what is no flow.
    pub(super) beside: JoinHandle<()>,
    pub(super) connector: C,
    /// Rung when the network changes, by `watcher`.
    pub(super) changed: Arc<Notify>,
    pub(super) watcher: JoinHandle<()>,
    pub(super) setup: Arc<Mutex<Setup>>,
    /// The device's name.
    pub(super) device: String,
}

/// Why a run ends.
pub(super) enum End {
    /// By a signal, or over the control socket.
    Told,
    Over(String),
    /// The connection was lost, and cannot be had again.
    Lost(ConnectError),
    Device(io::Error),
    /// The privileged part is gone.
    Helper,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Told => f.write_str("told to stop"),
            Self::Helper => f.write_str("the privileged part is gone"),
            Self::Over(why) => f.write_str(why),
            Self::Lost(error) => error.fmt(f),
            Self::Device(error) => write!(f, "the TUN device is gone: {error}"),
        }
    }
}

impl<C> Running<C>
where
    C: Connector<Link = AnyCarrier>,
{
    pub(super) async fn until_end(
        &mut self,
        life: &LifePlan,
        orders: &mut Orders,
        reloader: &Reloader,
    ) -> End {
        let session = &self.session;
        let mut helper_gone = pin!(self.setup.lock().await.gone());
        let mut over = pin!(life::over(life, &session.activity));
        let mut lost = pin!(session.leads.server().keep(&self.connector, &self.changed));
        let mut follow = pin!(reloader.board.follow(session));
        let mut watchdog = pin!(feed_watchdog());
        // One at a time.
        let mut reload = JoinSet::new();
        let end = loop {
            tokio::select! {
                order = orders.next() => match order {
                    Order::Stop => break End::Told,
                    Order::Reload(reply) if reload.is_empty() => {
                        reload.spawn(reloader.clone().run(reply));
                    }
                    Order::Reload(reply) => {
                        // Whoever has asked may have gone.
                        let _ = reply.map(|reply| reply.send(Err("it is reloading already".to_owned())));
                    }
                },
                Some(_) = reload.join_next() => {}
                why = &mut over => break End::Over(why),
                error = &mut lost => break End::Lost(error),
                () = &mut helper_gone => break End::Helper,
                () = &mut follow => {}
                () = &mut watchdog => {}
                result = &mut self.driver => break End::Device(match result {
                    Ok(Err(error)) => error,
                    Ok(Ok(())) => io::ErrorKind::UnexpectedEof.into(),
                    Err(error) => error.into(),
                }),
            }
        };
        let end = match end {
            // Where one process of the privileged part was killed, the other takes the device with it, and ends.
            End::Device(error) => match timeout(HELPERS_END, helper_gone).await {
                Ok(()) => End::Helper,
                Err(_) => End::Device(error),
            },
            end => end,
        };
        // Nothing is set up behind the back of whoever takes it back.
        reload.shutdown().await;
        end
    }

    /// Takes everything back in reverse order; whether all of it went.
    pub(super) async fn stop(self) -> bool {
        self.watcher.abort();
        self.session.stopping();
        // While the routes are there: without one back to the target, the kernel takes no reset from it.
        self.session.inlet.reset_flows();
        let left = self.setup.lock().await.undo().await;
        for line in &left {
            warn!("could not take back: {line}; underpass cleanup removes it");
        }
        self.driver.abort();
        self.beside.abort();
        self.session.beside.end(self.session.leads.server()).await;
        self.say_goodbye().await;
        self.tell_counters();
        if left.is_empty() {
            info!("stopped; routes and rules are as before");
        }
        left.is_empty()
    }

    async fn say_goodbye(&self) {
        let Some(link) = self.session.leads.server().link() else {
            return;
        };
        if timeout(GOODBYE, link.shutdown()).await.is_err() {
            debug!("the server did not take the goodbye");
        }
    }

    fn tell_counters(&self) {
        let Session { inlet, stats, .. } = &*self.session;
        debug!("{stats}");
        for (reason, count) in inlet.drops() {
            debug!("packets not carried, {reason}: {count}");
        }
        let failed_writes = inlet.failed_writes();
        if failed_writes > 0 {
            debug!("packets that the device did not take: {failed_writes}");
        }
    }
}

/// Tells systemd that the loop turns, as often as it wants to hear that.
async fn feed_watchdog() {
    let Some(period) = notify::watchdog() else {
        return pending().await;
    };
    let mut ticks = interval(period);
    loop {
        ticks.tick().await;
        notify::alive();
    }
}
