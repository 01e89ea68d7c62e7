//! The end-to-end tests over the built-in SSH. In one program, so that what one test waits for costs the others nothing; what
//! measures time or memory has a program of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
mod e2e;
mod e2e_once;
