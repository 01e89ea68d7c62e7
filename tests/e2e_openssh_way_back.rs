//! The tests of `e2e_way_back.rs` over the user's own ssh.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "e2e_way_back.rs"]
mod way_back;
