//! underpass routes whole subnets through any SSH server you can log in to.

pub mod app;
pub mod cli;
pub mod net;
pub mod os;
pub mod plan;
