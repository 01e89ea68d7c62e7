//! The engine by itself, in virtual time: no clock, no socket, no device.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod beside;
mod ends;
mod foreign_bytes;
mod held;
mod names;
mod transfer;
