//! The connections of applications that are open or asked for, each with what it carries: what `flows` lists.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::app::control::report::{Bytes, FlowReport, now};
use crate::net::{Far, FlowKey, Target};
use crate::relay::{Meter, Traffic};

/// All of them, by number.
#[derive(Debug, Default)]
pub(in crate::app) struct Flows {
    begun: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Flow>>>,
}

/// One of them.
#[derive(Debug)]
struct Flow {
    key: FlowKey,
    /// Whom the target stands for.
    mapped_to: Option<Far>,
    /// In seconds since 1970.
    since: u64,
    traffic: Traffic,
    /// The carrier's connection that it is on; not set before the far side has opened.
    connection: OnceLock<Option<u32>>,
}

impl Flows {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Flow>>> {
        // It is whole at every moment, whoever panicked.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that begins now, until what is returned is dropped. `mapped_to` is whom its target stands for, if that is another.
    pub(super) fn begin(&self, key: FlowKey, mapped_to: Option<Far>) -> Listed<'_> {
        let number = 1 + self.begun.fetch_add(1, Relaxed);
        let flow = Arc::new(Flow {
            key,
            mapped_to,
            since: now(),
            traffic: Traffic::default(),
            connection: OnceLock::new(),
        });
        self.all().insert(number, Arc::clone(&flow));
        Listed {
            flows: self,
            number,
            flow,
        }
    }

    /// The first `most` behind number `after`, and the number to go on behind, where there are more.
    pub(super) fn page(&self, after: u64, most: usize) -> (Vec<FlowReport>, Option<u64>) {
        let mut some: Vec<_> = {
            let all = self.all();
            let behind = all.range(after.saturating_add(1)..).take(most + 1);
            behind
                .map(|(number, flow)| (*number, Arc::clone(flow)))
                .collect()
        };
        let is_more = some.len() > most;
        some.truncate(most);
        let next = some.last().map(|(number, _)| *number);
        let reports = some.iter().map(|(number, flow)| flow.report(*number));
        (reports.collect(), next.filter(|_| is_more))
    }
}

impl Flow {
    fn report(&self, number: u64) -> FlowReport {
        let connection = self.connection.get();
        FlowReport {
            flow: number,
            is_open: connection.is_some(),
            source: self.key.source.0.to_string(),
            target: self.key.target.0.to_string(),
            mapped_to: self.mapped_to.as_ref().map(ToString::to_string),
            since: self.since,
            bytes: Bytes {
                up: self.traffic.up.load(Relaxed),
                down: self.traffic.down.load(Relaxed),
            },
            connection: connection.copied().flatten(),
        }
    }
}

/// One of them, as its task holds it.
pub(super) struct Listed<'a> {
    flows: &'a Flows,
    number: u64,
    flow: Arc<Flow>,
}

impl Listed<'_> {
    /// Who is asked for here.
    pub(super) fn target(&self) -> Target {
        self.flow.key.target
    }

    /// Whom the server is asked for.
    pub(super) fn far(&self) -> Far {
        let here = || self.target().into();
        self.flow.mapped_to.clone().unwrap_or_else(here)
    }
}

impl Meter for Listed<'_> {
    fn opened(&self, connection: Option<u32>) {
        // An open is answered once.
        let _ = self.flow.connection.set(connection);
    }

    fn add_up(&self, bytes: u64) {
        self.flow.traffic.add_up(bytes);
    }

    fn add_down(&self, bytes: u64) {
        self.flow.traffic.add_down(bytes);
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.flows.all().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Source;

    #[test]
    fn pages_have_each_flow_once_and_none_that_has_ended() {
        let flows = Flows::default();
        let key = FlowKey {
            source: Source("10.9.0.1:4242".parse().unwrap()),
            target: Target("10.0.1.20:80".parse().unwrap()),
        };
        let mut listed: Vec<_> = (0..10).map(|_| flows.begin(key, None)).collect();
        drop(listed.remove(3));
        listed[0].add_up(7);
        listed[0].opened(Some(2));
        let (mut numbers, mut after) = (Vec::new(), 0);
        loop {
            let (page, next) = flows.page(after, 4);
            assert!(page.len() <= 4);
            numbers.extend(page.iter().map(|flow| flow.flow));
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(numbers, [1, 2, 3, 5, 6, 7, 8, 9, 10]);
        let (first, next) = flows.page(0, 9);
        assert_eq!((first.len(), next), (9, None));
        assert_eq!((first[0].bytes.up, first[0].connection), (7, Some(2)));
        assert!(first[0].is_open && !first[1].is_open);
        assert_eq!(first[0].source, "10.9.0.1:4242");
        drop(listed);
        assert_eq!(flows.page(0, 9), (Vec::new(), None));
        assert_eq!(flows.page(u64::MAX, 9), (Vec::new(), None));
    }
}
