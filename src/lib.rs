//! underpass routes whole subnets through any SSH server you can log in to.

pub mod carrier;
pub mod net;
pub mod plan;
