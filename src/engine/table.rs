//! Which flow a packet belongs to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::flow::Flow;
use crate::net::FlowKey;

#[derive(Debug, Default)]
pub(super) struct Table {
    flows: Mutex<HashMap<FlowKey, Arc<Flow>>>,
    len: AtomicUsize,
    held: AtomicUsize,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<FlowKey, Arc<Flow>>> {
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
        self.lock().get(key).cloned()
    }

    /// Every flow there is now.
    pub(super) fn all(&self) -> Vec<Arc<Flow>> {
        self.lock().values().cloned().collect()
    }

    /// Adds a held flow.
    pub(super) fn insert(&self, flow: &Arc<Flow>) {
        self.held.fetch_add(1, Ordering::Relaxed);
        if self.lock().insert(flow.key, Arc::clone(flow)).is_none() {
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
            .is_some_and(|found| Arc::ptr_eq(found, flow))
        {
            flows.remove(&flow.key);
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
