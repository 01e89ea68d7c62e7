//! Echo requests without a tunnel, honestly: a reply only for a host that was heard from, and when it was.
//!
//! | way | what counts as heard |
//! |---|---|
//! | [`Pinger::run_exec`] | the server's own `ping` had a reply |
//! | [`Pinger::run_probe`] | one of five TCP ports opened, or was refused |
//!
//! Whatever else happens is silence, as is what comes too often: a host is asked once a second at most, and a reply is only for
//! the request that made us ask. The time that an application measures is that of the way through the server, and of starting
//! `ping` there.
//!
//! | file | idea |
//! |---|---|
//! | `hosts` | who may be asked when, without a clock |
//! | `pinger` | with a clock |
//! | `exec`, `probe` | the two ways |

mod exec;
mod hosts;
mod pinger;
mod probe;

pub use hosts::{Counters, Hosts, Pace};
pub use pinger::{Pinger, Reply, State};
pub use probe::PORTS;
