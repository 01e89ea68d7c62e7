//! What opens streams on the far side. Each carrier is one folder and ends in a [`crate::net::Carrier`];
//! no carrier knows an inlet or the engine.
//!
//! - [`RusshCarrier`]: the embedded SSH client, over the russh library.
//! - [`OpensshCarrier`]: the user's own ssh, over [`channels`]: the SSH connection protocol without I/O.
//! - [`Direct`]: this host's own TCP, for what is to go around the server.
//! - [`clients`]: who is let in by published ports, and what they are still to be given.
//! - [`AnyCarrier`]: one of the two, as the plan says, and `by_name`: its opens by name, apart from all others.
//! - [`dial`]: the budget in front of every open, so that hosts that never answer delay no host that does.
//! - [`link`]: a carrier with a life: it was connected, and may be lost. [`error`]: why it was not, or no longer is.
//! - [`steady`]: a carrier that stays, over links that are replaced when they are lost.
//! - `processes`: what a carrier has started. `detach`: what runs to its end, whoever has gone.
//! - `failure`: what a server's words for a refused open mean.
//! - `first_host_key`: whether several connections, one after the other, are to the same server.
//! - `expired`: a password that lets in, but only to be changed.
//! - [`packets`]: what TCP cannot carry, as whole packets: which flow one belongs to, and why a server carries none.
//! - `command`: what a command on the server says beside its output, for the log.
//! - [`examine`]: what is asked of a server beside flows. `sftp`: reading a file for that, without I/O.
//! - [`prompt`]: the questions that a login asks of a person.

mod any;
mod by_name;
pub mod channels;
pub mod clients;
mod command;
mod detach;
pub mod dial;
pub mod direct;
pub mod error;
pub mod examine;
mod expired;
mod failure;
mod first_host_key;
pub mod link;
mod one;
pub mod openssh;
pub mod packets;
mod processes;
pub mod prompt;
pub mod russh;
mod sftp;
pub mod steady;

pub use self::any::{AnyCarrier, PacketCarrier};
pub use self::direct::Direct;
pub use self::error::{CertificateFault, CommandEnd, ConnectError, HostKeyError, LostReason};
pub use self::link::{Description, Link};
pub use self::one::{AnyReader, AnyWriter};
pub use self::openssh::{OpensshCarrier, PacketLink};
pub use self::packets::{PacketDrops, TunnelRefusal};
pub use self::prompt::{AskpassPrompter, NoPrompter, Prompter, TtyPrompter};
pub use self::russh::RusshCarrier;
pub use self::steady::Steady;

/// The target of log lines that tell a person what to do to be let in. A program that may have the terminal to itself does not
/// hide them.
pub const TO_PERSON: &str = "underpass::to_person";
