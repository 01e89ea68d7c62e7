//! underpass routes whole subnets through any SSH server you can log in to.

pub mod net;
pub mod plan;
