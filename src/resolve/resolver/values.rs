//! What goes into a resolver, and what comes out.

use std::sync::Arc;

use crate::resolve::pool::Pools;
use crate::resolve::view::View;
use crate::resolve::zones::Zones;

/// What a resolver is made for.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which names go where.
    pub zones: Zones,
    /// How addresses of the far side are shown.
    pub view: Arc<dyn View>,
    /// Where names of the far side are not asked for: the addresses that stand for them.
    pub pools: Option<Pools>,
    /// How many far resolvers there are; they have the numbers from 0.
    pub far: usize,
    /// How many near ones; they have the numbers behind.
    pub near: usize,
}

/// A message for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<C> {
    /// Who asked.
    pub client: C,
    /// The message, without a length in front.
    pub message: Vec<u8>,
}

/// What becomes of a client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken<C> {
    /// It is answered at once.
    Answered(Reply<C>),
    /// Its answer comes later.
    Waits,
    /// Nobody answers it.
    Noise,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Questions of clients.
    pub questions: u64,
    /// Of which so many were answered from memory.
    pub remembered: u64,
    /// And so many joined one that was under way.
    pub joined: u64,
    /// Messages of clients that nobody answers.
    pub noise: u64,
    /// Messages of resolvers that answer nothing that was asked.
    pub mismatched: u64,
    /// Answers of resolvers with something behind their end, which went no further.
    pub trailing: u64,
    /// Questions that were answered SERVFAIL here.
    pub failed: u64,
}

/// Some of the servers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Servers(u64);

impl Servers {
    pub(super) fn add(&mut self, server: usize) {
        self.0 |= 1_u64.checked_shl(server as u32).unwrap_or(0);
    }

    pub(super) fn remove(&mut self, server: usize) {
        self.0 &= !1_u64.checked_shl(server as u32).unwrap_or(0);
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it is one; who cannot be is.
    pub(super) fn has(self, server: usize) -> bool {
        1_u64
            .checked_shl(server as u32)
            .is_none_or(|bit| self.0 & bit != 0)
    }
}
