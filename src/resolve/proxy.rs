//! The resolver with streams, clients and a clock.

use std::convert::Infallible;
use std::future::pending;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use ipnet::IpNet;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::clients::Bells;
use super::frame::Deframer;
use super::pool::{Named, Pools};
use super::question::Way;
use super::resolver::{Config, Counters, Reply, Resolver, Taken};
use super::streams::Streams;
use super::upstream;
use super::view::View;
use super::zones::{Side, Zones};
use crate::net::{Carrier, Source, Target};

/// Takes datagrams to clients.
pub trait Respond: Send + Sync {
    /// Sends `message` from the name server's address, where it was asked, to who asked.
    fn respond(&self, from: Target, to: Source, message: &[u8]);
}

/// Who asked.
#[derive(Clone, Debug)]
pub(super) enum Client {
    Datagram { from: Source, to: Target },
    Stream(u64),
}

/// A resolver to ask.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) target: Target,
    /// Rung when there is something for it.
    pub(super) bell: Notify,
}

/// An address that a connection uses.
pub struct Held<'a, R: Respond> {
    proxy: &'a Proxy<R>,
    ip: IpAddr,
}

impl<R: Respond> Drop for Held<'_, R> {
    fn drop(&mut self) {
        self.proxy.with(|resolver| resolver.leave(now(), self.ip));
    }
}

/// The name server.
#[derive(Debug)]
pub struct Proxy<R> {
    resolver: Mutex<Resolver<Client>>,
    pools: Option<Pools>,
    pub(super) servers: Vec<Server>,
    far: usize,
    timer: Notify,
    streams: Mutex<Streams<Arc<Bells>>>,
    respond: R,
}

impl<R: Respond> Proxy<R> {
    /// One that asks `far` for the names of `zones`, in this order, and `near` for all others; addresses are as `view` shows them. With
    /// `pools` it asks nobody for those of `zones`, and gives them an address of these.
    pub fn new(
        zones: Zones,
        view: Arc<dyn View>,
        pools: Option<Pools>,
        (far, near): (&[Target], &[Target]),
        respond: R,
    ) -> Self {
        let server = |target: &Target| Server {
            target: *target,
            bell: Notify::new(),
        };
        Self {
            resolver: Mutex::new(Resolver::new(Config {
                zones,
                view,
                pools,
                far: far.len(),
                near: near.len(),
            })),
            pools,
            servers: far.iter().chain(near).map(server).collect(),
            far: far.len(),
            timer: Notify::new(),
            streams: Mutex::default(),
            respond,
        }
    }

    /// Whom `ip` stands for; a name has it as long as what is returned is held.
    pub fn enter(&self, ip: IpAddr) -> (Named, Option<Held<'_, R>>) {
        // Every connection comes by here; those to hosts wait for no lock that questions hold.
        if !self.pools.is_some_and(|pools| pools.has(ip)) {
            return (Named::Other, None);
        }
        let named = self.with(|resolver| resolver.enter(now(), ip));
        let is_held = matches!(named, Named::Name(_));
        (named, is_held.then_some(Held { proxy: self, ip }))
    }

    /// The addresses of `networks` have their names on the far side from here on, and no others.
    pub fn set_networks(&self, networks: Vec<IpNet>) {
        self.with(|resolver| resolver.set_networks(networks));
    }

    /// What near name servers have said counts no longer.
    pub fn forget_near(&self) {
        self.with(|resolver| resolver.forget(Side::Near));
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.with(|resolver| resolver.counters())
    }

    /// How many names have addresses that stand for them now, and how many can; `None` where no addresses do.
    pub fn pool_usage(&self) -> Option<(u32, u32)> {
        self.with(|resolver| resolver.pool_usage(now()))
    }

    /// Who is asked for names of the far side.
    pub fn far_servers(&self) -> impl Iterator<Item = Target> {
        self.servers[..self.far].iter().map(|server| server.target)
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Resolver<Client>) -> T) -> T {
        // It is whole at every moment, whoever panicked.
        f(&mut self.resolver.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn with_streams<T>(&self, f: impl FnOnce(&mut Streams<Arc<Bells>>) -> T) -> T {
        f(&mut self.streams.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the resolvers as long as it is polled: those of the far side through `far`, in the name of `source`, the others through
    /// `near`.
    pub async fn run<F: Carrier, N: Carrier>(
        &self,
        source: Source,
        far: &F,
        near: &N,
    ) -> Infallible {
        let (far_ones, near_ones) = (0..self.far, self.far..self.servers.len());
        let ask_far = far_ones.map(|number| upstream::keep(self, number, far, source));
        let ask_near = near_ones.map(|number| upstream::keep(self, number, near, source));
        tokio::select! {
            never = self.keep_time() => never,
            _ = join_all(ask_far), if self.far > 0 => pending().await,
            _ = join_all(ask_near), if self.far < self.servers.len() => pending().await,
        }
    }

    async fn keep_time(&self) -> Infallible {
        loop {
            let due = self.with(|resolver| resolver.poll_timeout());
            let Some(due) = due else {
                self.timer.notified().await;
                continue;
            };
            sleep_until(due.into()).await;
            let replies = self.with(|resolver| resolver.handle_timeout(now()));
            self.deliver(replies);
            self.ring();
        }
    }

    /// Tells each resolver's stream what there is for it.
    fn ring(&self) {
        for server in &self.servers {
            server.bell.notify_one();
        }
    }

    /// A datagram to the name server.
    pub fn handle_datagram(&self, from: Source, to: Target, message: &[u8]) {
        self.ask(Client::Datagram { from, to }, Way::Datagram, message);
    }

    /// Whether there is, or will be, an answer.
    pub(super) fn ask(&self, client: Client, way: Way, message: &[u8]) -> bool {
        let taken = self.with(|resolver| resolver.ask(now(), client, way, message));
        match taken {
            Taken::Answered(reply) => self.deliver([reply]),
            Taken::Waits => {
                self.timer.notify_one();
                self.ring();
            }
            Taken::Noise => return false,
        }
        true
    }

    fn deliver(&self, replies: impl IntoIterator<Item = Reply<Client>>) {
        for Reply { client, message } in replies {
            match client {
                Client::Datagram { from, to } => self.respond.respond(to, from, &message),
                Client::Stream(stream) => self.with_streams(|all| all.push(stream, message)),
            }
        }
    }

    pub(super) fn heard(&self, number: usize, deframer: &mut Deframer, piece: &[u8]) {
        deframer.push(piece);
        while let Some(message) = deframer.next_message() {
            let replies = self.with(|resolver| resolver.handle_message(now(), number, &message));
            self.deliver(replies);
        }
        self.ring();
    }

    pub(super) fn lost(&self, number: usize, was_open: bool) {
        let replies = self.with(|resolver| resolver.handle_lost(now(), number, was_open));
        self.deliver(replies);
        self.ring();
    }
}

pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}
