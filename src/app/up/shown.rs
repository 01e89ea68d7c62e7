//! How the far network is shown to who asks for names.

use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

use crate::plan::{CapturePlan, Mapping};
use crate::resolve::View;

/// By what is captured at the moment.
#[derive(Debug)]
pub(in crate::app) struct Shown {
    mapping: RwLock<Mapping>,
}

impl Shown {
    pub(in crate::app) fn new(capture: &CapturePlan) -> Self {
        Self {
            mapping: RwLock::new(Mapping::new(capture)),
        }
    }

    /// Shows it by `mapping` from here on.
    pub(super) fn remap(&self, mapping: Mapping) {
        // It is whole at every moment, whoever panicked.
        *self.mapping.write().unwrap_or_else(PoisonError::into_inner) = mapping;
    }

    fn with<T>(&self, f: impl FnOnce(&Mapping) -> T) -> T {
        f(&self.mapping.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl View for Shown {
    fn near(&self, far: IpAddr) -> Option<IpAddr> {
        self.with(|mapping| mapping.local(&far.into()))
            .map(|net| net.addr())
    }

    fn far(&self, near: IpAddr) -> Option<IpAddr> {
        self.with(|mapping| mapping.far(&near.into()))
            .map(|net| net.addr())
    }
}
