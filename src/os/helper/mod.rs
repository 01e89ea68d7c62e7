//! The privileged part: a process of its own that makes the device and sets routes, and can be asked for nothing else.
//!
//! # Theory of operation
//!
//! Whoever wants packets captured holds a [`Hand`]; at the other end of its socket [`serve()`] obeys. What is asked for is
//! said in the terms of the plan, and what follows from it on the host ([`super::routes::desired`]) is worked out by the
//! privileged end itself. The device's descriptor comes back over the socket (`SCM_RIGHTS`, unix(7)), and is held by the
//! end that asked alone: the device goes with it. The socket's end is the word to undo everything, whatever ended the
//! other process.
//!
//! On the host the privileged end is two processes that watch each other ([`guarded`]). In a user namespace of its own,
//! where all goes with the namespace, [`serve()`] is enough.

mod client;
mod guard;
mod line;
mod serve;
mod start;
mod wire;

pub use client::{Device, Hand, HandError, Process};
pub use guard::guarded;
pub use serve::{greeted, refused, serve};
pub use start::{Elevator, SUBCOMMAND, StartError, Way, capability, program, socket_on_stdin};
pub use wire::{Hello, LogWish, Refusal, RefusalKind};
