//! What goes beside TCP without a tunnel: UDP and echo requests, by far ends that are real shells or played by hand.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod commands;
mod frame;

mod mux;
mod ping;
mod records;
mod udp;
