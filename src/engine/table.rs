//! Which flow a packet belongs to.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::flow::Flow;
use crate::net::FlowKey;

/// A flow as one with its key: the table keeps no second copy of that.
#[derive(Debug)]
struct ByKey(Arc<Flow>);

impl Borrow<FlowKey> for ByKey {
    fn borrow(&self) -> &FlowKey {
        &self.0.key
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

#[derive(Debug, Default)]
pub(super) struct Table {
    flows: Mutex<HashSet<ByKey>>,
    len: AtomicUsize,
    held: AtomicUsize,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashSet<ByKey>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Flows that wait for the far side's answer.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn get(&self, key: &FlowKey) -> Option<Arc<Flow>> {
        self.lock().get(key).map(|ByKey(flow)| Arc::clone(flow))
    }

    /// Every flow there is now.
    pub(super) fn all(&self) -> Vec<Arc<Flow>> {
        let flows = self.lock();
        flows.iter().map(|ByKey(flow)| Arc::clone(flow)).collect()
    }

    /// Adds a held flow.
    pub(super) fn insert(&self, flow: &Arc<Flow>) {
        self.held.fetch_add(1, Ordering::Relaxed);
        if self.lock().replace(ByKey(Arc::clone(flow))).is_none() {
            self.len.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A held flow got its answer, or its initiator gave up.
    pub(super) fn answered(&self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// Removes `flow`, but never another that has taken its key since.
    pub(super) fn remove(&self, flow: &Arc<Flow>) {
        let mut flows = self.lock();
        if flows
            .get(&flow.key)
            .is_some_and(|ByKey(found)| Arc::ptr_eq(found, flow))
        {
            flows.remove(&flow.key);
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
