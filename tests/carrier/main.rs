//! The two carriers against real servers on loopback, which each test starts for itself, and against servers in this process.
//! In one program, so that what one test waits for costs the others nothing; what measures memory has a program of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agent;
#[path = "../servers/client.rs"]
mod client;
mod person;
mod rig;

mod auth;
mod commands;
mod dialog;
mod hostkeys;
mod login;
mod odd_servers;
mod openssh;
mod route;
mod russh;
