//! What opens streams on the far side. Each carrier is one folder and ends in a [`crate::net::Carrier`];
//! no carrier knows an inlet or the engine.
//!
//! - [`RusshCarrier`]: the embedded SSH client, over the russh library.
//! - [`channels`]: the SSH connection protocol without I/O, for a carrier that speaks it over another program.
//! - [`dial`]: the budget in front of every open, so that hosts that never answer delay no host that does.
//! - [`prompt`]: the questions that a login asks of a person.

pub mod channels;
pub mod dial;
pub mod prompt;
pub mod russh;

pub use self::prompt::{NoPrompter, Prompter, TtyPrompter};
pub use self::russh::{ConnectError, HostKeyError, LostReason, RusshCarrier};
