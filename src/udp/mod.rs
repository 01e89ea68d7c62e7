//! UDP without a tunnel: datagrams over one stream to a small program on the server, which has a socket of its own for
//! each flow.
//!
//! ```text
//!   datagrams     +-----+    one command's input and output     +---------+   one socket for each flow
//!   ------------> | Mux | ------------------------------------> | far end | -------------------------->
//!   <------------ +-----+ <------------------------------------ +---------+ <--------------------------
//!     answers      flows, queue       frames                     python3, perl; socat, nc
//! ```
//! [`Mux`] is sans-IO: datagrams, bytes and `now` in, bytes and answers out. [`Proxy`] gives it a stream and a clock. Who has
//! neither python3 nor perl on the server is asked one thing at a time: [`Carries::Questions`]; or has this program there, as an
//! [`Upload`], which is a [`FarEnd`] with sockets then.
//!
//! # Bounds
//!
//! | what | bound |
//! |---|---|
//! | flows | 4,096, or what the far end has room for; the one that would end next goes |
//! | how long a flow lasts | 120 s after its last datagram, 60 s to a port up to 1023, 30 s where none was answered |
//! | what waits for the stream | 512 KiB; the oldest datagram of the longest line goes; 250 ms once the far end listens |
//! | what waits on the far side | 256 KiB, then the sockets' own buffers |
//! | questions under way over socat or nc | 64, each 3 s on the server |
//! | a helper on its way to the server | 128 KiB at a time, 256 MiB in all, in a file without a name there |
//!
//! | file | idea |
//! |---|---|
//! | `far` | the programs of the far end, and which of them a server has |
//! | `frame` | what goes over the stream |
//! | `table` | the flows, and when they end |
//! | `record` | what is kept of a flow, for whoever wants to know of it |
//! | `queue` | what waits for the stream, and whose turn it is |
//! | `mux` | all of that together |
//! | `start` | how a far end begins, and why there may be none |
//! | `upload` | how this program gets to a server that has no other |
//! | `far_end` | the same stream, seen from there |
//! | `clock` | when something is due |
//! | `proxy` | the near end with a stream and a clock |

pub(crate) mod clock;
mod far;
mod far_end;
mod frame;
mod mux;
mod proxy;
mod queue;
mod record;
mod start;
mod table;
mod upload;

pub use far::{Carries, Found, LOOKED_AT, Means, NoProgram, PROBE, System};
pub use far_end::{FarEnd, Order};
pub use frame::Fault;
pub use mux::{Counters, Heard, Mux};
pub use proxy::{Deliver, Proxy, State};
pub use record::{End, Record};
pub use start::{PATIENCE, Pauses, Trouble, probe, start};
pub use table::MOST;
pub use upload::{Image, Open, Upload, UploadError};
