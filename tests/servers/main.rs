//! The servers that people have, and how one logs in there: by program and by hand, with any option. In one program, so that what
//! one test waits for costs the others nothing; what measures memory has a program of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod check;
mod client;
mod forwarder;
mod openssh;
#[path = "../carrier/person.rs"]
mod person;
mod place;
mod python;
#[path = "../carrier/rig.rs"]
mod rig;
mod small;
mod ways;

mod expired;
mod options;
mod rows;
mod terminal;
