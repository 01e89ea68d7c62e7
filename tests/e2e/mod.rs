//! The end-to-end tests that run over either carrier, once in each program that has this module, and what they share.

pub(crate) mod datagrams;
pub(crate) mod rig;
pub(crate) mod server;

mod audit;
mod bad_input;
mod beside;
mod control;
mod daemon;
mod dns;
mod docker;
mod doctor;
mod integrity;
mod lifecycle;
mod mapping;
mod netns;
mod plain_tun;
mod route;
mod run;
mod stuck;
mod truth;
mod whose;
mod words;
