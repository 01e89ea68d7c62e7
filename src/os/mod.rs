//! The host: device, addresses, routes and rules. The only room with privileges and with `unsafe`.
//!
//! Desired state in, undo out: [`routes::desired`] says as a pure function what shall hold, [`apply()`]
//! makes it so, [`Undo`] takes it back in reverse order. What a killed run leaves behind is found by
//! its protocol number and an unclaimed [`Slot`], and removed by [`stale::clear`].

pub mod accounts;
mod apart;
mod apply;
mod bridges;
mod changes;
pub mod child;
pub mod confine;
pub mod daemon;
pub mod helper;
pub mod host;
pub mod limits;
mod made;
pub mod memory;
pub mod names;
pub mod namespace;
mod netlink;
mod news;
pub mod notify;
mod orphan;
mod others;
pub mod pid_file;
pub mod privilege;
mod processes;
pub mod resolv_conf;
mod resume;
pub mod ring;
pub mod routes;
pub mod run_dir;
pub mod signals;
mod slot;
mod socket_owner;
pub mod source;
pub mod stale;
pub mod standard;
mod tun;

pub use apply::{ApplyError, Undo, apply};
pub use bridges::bridges;
pub use changes::Changes;
pub use made::Made;
pub use netlink::{Netlink, NetlinkError};
pub use processes::{Process, Processes};
pub use resume::Resume;
pub use slot::{Slot, SlotError, Tables};
pub use socket_owner::{SocketOwner, SocketOwners, Transport, is_own_address};
pub use tun::{DEFAULT_MTU, PLAIN_MTU, TunDevice, TunError, first_free_name};
