//! What opens streams on the far side. Each carrier is one folder and ends in a [`crate::net::Carrier`];
//! no carrier knows an inlet or the engine.
//!
//! - [`RusshCarrier`]: the embedded SSH client, over the russh library.
//! - [`channels`]: the SSH connection protocol without I/O, for a carrier that speaks it over another program.
//! - [`dial`]: the budget in front of every open, so that hosts that never answer delay no host that does.
//! - [`link`]: a carrier with a life: it was connected, and may be lost. [`error`]: why it was not, or no longer is.
//! - `failure`: what a server's words for a refused open mean.
//! - [`prompt`]: the questions that a login asks of a person.

pub mod channels;
pub mod dial;
pub mod error;
mod failure;
pub mod link;
pub mod prompt;
pub mod russh;

pub use self::error::{ConnectError, HostKeyError, LostReason};
pub use self::link::{Description, Link};
pub use self::prompt::{AskpassPrompter, NoPrompter, Prompter, TtyPrompter};
pub use self::russh::{Keyring, RusshCarrier};
