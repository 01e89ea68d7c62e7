//! underpass routes whole subnets through any SSH server you can log in to.

pub mod engine;
pub mod inlet;
pub mod net;
pub mod plan;
pub mod relay;
