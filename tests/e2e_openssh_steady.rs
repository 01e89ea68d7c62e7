//! The tests of `e2e_steady.rs` over the user's own ssh.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "e2e_steady.rs"]
mod steady;
