//! The system's bus (D-Bus), and systemd-resolved on it (org.freedesktop.resolve1(5)).
//!
//! Who sets servers anew is told of by a signal, `PropertiesChanged` of the manager. Domains alone are not (resolved-link-bus.c of
//! version 252), nor is what networkd writes to its files: so it is looked at every few seconds as well.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::select;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedVariant};

/// Not what the environment says: that is of whoever started us.
const BUS: &str = "unix:path=/run/dbus/system_bus_socket";
const NAME: &str = "org.freedesktop.resolve1";
pub(super) const PATH: &str = "/org/freedesktop/resolve1";
pub(super) const MANAGER: &str = "org.freedesktop.resolve1.Manager";
pub(super) const LINK: &str = "org.freedesktop.resolve1.Link";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks without a signal.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// Signals that wait; what they say is the same.
const QUEUE: NonZeroUsize = NonZeroUsize::MIN;

/// Whether it answers on the bus; it is started for that where it can be.
pub(super) async fn resolved_answers() -> bool {
    let ping = async {
        let bus = connect().await?;
        let peer = Some("org.freedesktop.DBus.Peer");
        bus.call_method(Some(NAME), PATH, peer, "Ping", &()).await
    };
    match timeout(PATIENCE, ping).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            debug!("{NAME}: {error}");
            false
        }
        Err(_) => false,
    }
}

async fn connect() -> zbus::Result<Connection> {
    let bus = zbus::connection::Builder::address(BUS).method_timeout(PATIENCE);
    bus.build().await
}

/// A connection, and who hears of changes by it.
#[derive(Debug)]
pub(super) struct Bus {
    connection: Connection,
    news: Arc<Notify>,
    /// A task of its own: a signal that nobody takes holds up answers. Ends with the connection, and with this.
    listener: JoinSet<()>,
}

impl Bus {
    pub(super) async fn open() -> zbus::Result<Self> {
        let connection = connect().await?;
        let set = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(NAME)
            .path(PATH)
            .interface(PROPERTIES)
            .member("PropertiesChanged")
            .build()?;
        let restarted = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .arg(0, NAME)
            .build()?;
        let mut set = MessageStream::for_match_rule(set, &connection, Some(QUEUE)).await?;
        let mut restarted =
            MessageStream::for_match_rule(restarted, &connection, Some(QUEUE)).await?;
        let (news, mut listener) = (Arc::new(Notify::new()), JoinSet::new());
        let bell = Arc::clone(&news);
        listener.spawn(async move {
            loop {
                let signal = select! {
                    signal = set.next() => signal,
                    signal = restarted.next() => signal,
                };
                let Some(Ok(_)) = signal else { return };
                bell.notify_one();
            }
        });
        Ok(Self {
            connection,
            news,
            listener,
        })
    }

    pub(super) async fn call<B>(&self, method: &str, body: &B) -> zbus::Result<Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let call = self
            .connection
            .call_method(Some(NAME), PATH, Some(MANAGER), method, body);
        call.await
    }

    pub(super) async fn property(
        &self,
        path: &str,
        interface: &str,
        name: &str,
    ) -> zbus::Result<OwnedVariant> {
        let body = (interface, name);
        let get = self
            .connection
            .call_method(Some(NAME), path, Some(PROPERTIES), "Get", &body);
        get.await?.body().deserialize()
    }

    /// Whether there may be something new; not where it is closed.
    pub(super) async fn heard(&mut self) -> bool {
        select! {
            () = self.news.notified() => true,
            _ = self.listener.join_next() => false,
            () = sleep(LOOK) => true,
        }
    }
}
