//! By TCP: a host whose port opens, or that refuses, is there.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;

use super::pinger::{Pinger, Reply};
use crate::net::{Carrier, OpenFailure, Source, Target};

/// The ports that are tried, all at a time. Where one of them was heard from, it is the only one from then on.
pub const PORTS: [u16; 5] = [443, 80, 22, 445, 3389];
/// How long they may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Hosts whose port is remembered.
const REMEMBERED: usize = 1024;

impl<T: Send, R: Reply<T>> Pinger<T, R> {
    /// Answers requests as long as it is polled, by opening ports through `carrier` in the name of `source`.
    pub async fn run_probe(&self, carrier: &impl Carrier, source: Source) -> Infallible {
        tokio::select! {
            never = self.keep_time() => never,
            never = self.keep_probing(carrier, source) => never,
        }
    }

    async fn keep_probing(&self, carrier: &impl Carrier, source: Source) -> Infallible {
        let mut ports: HashMap<IpAddr, u16> = HashMap::new();
        let mut under_way = FuturesUnordered::new();
        loop {
            while let Some((number, host)) = {
                let mut hosts = self.hosts();
                hosts.next_question()
            } {
                let known = ports.get(&host).copied();
                under_way.push(async move {
                    let heard = heard(carrier, source, host, known).await;
                    (number, host, heard)
                });
            }
            tokio::select! {
                Some((number, host, heard)) = under_way.next() => {
                    match heard {
                        Some(port) if ports.len() < REMEMBERED || ports.contains_key(&host) => {
                            ports.insert(host, port);
                        }
                        Some(_) => {}
                        None => drop(ports.remove(&host)),
                    }
                    self.answered(number, heard.is_some());
                }
                () = self.bell.notified() => {}
            }
        }
    }
}

/// The port that `host` was heard from on.
async fn heard(
    carrier: &impl Carrier,
    source: Source,
    host: IpAddr,
    known: Option<u16>,
) -> Option<u16> {
    let known = known.map(|port| [port]);
    let ports = known.as_ref().map_or(&PORTS[..], |port| &port[..]);
    let opens = ports.iter().map(|&port| async move {
        let target = Target(SocketAddr::new(host, port));
        // What opened is closed again at once.
        let opened = carrier.open(source, target).await.map(drop);
        (port, opened)
    });
    let mut opens: FuturesUnordered<_> = opens.collect();
    let first = async {
        while let Some((port, opened)) = opens.next().await {
            match opened {
                Ok(()) => return Some(port),
                Err(error) if error.failure == OpenFailure::Refused => return Some(port),
                Err(_) => {}
            }
        }
        None
    };
    timeout(PATIENCE, first).await.ok().flatten()
}
