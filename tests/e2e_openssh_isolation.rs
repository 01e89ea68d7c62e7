//! The tests of `e2e_isolation.rs` over the user's own ssh: alone, for they are about time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "e2e_isolation.rs"]
mod isolation;
