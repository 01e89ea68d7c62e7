//! The control socket: how a running instance is asked, reloaded and ended.
//!
//! A client connects to the instance's Unix socket (`os::run_dir` says where it lies), writes one request, a line of JSON,
//! and reads answers, a line of JSON each, until the end. Only the instance's own user and root are heard (SO_PEERCRED,
//! unix(7)), whatever the file's mode says. Everything is bounded: [`protocol::MAX_REQUEST`] bytes of request,
//! [`server::CLIENTS`] clients at a time, [`server::PAGE`] flows in an answer, [`server::REQUEST`] and [`server::ANSWER`] for each step.
//!
//! | file | idea |
//! |---|---|
//! | `protocol` | requests and answers, as JSON |
//! | `report` | what `status` and `flows` say: the stable form for scripts |
//! | `server` | the instance's end |
//! | `client` | the other end |
//! | `instances` | those that a command may mean |

pub mod client;
pub mod instances;
pub mod protocol;
pub mod report;
pub mod server;

pub use client::{Asked, ClientError};
pub use protocol::{Answer, Request};
pub use report::Report;
pub use server::{Order, Server};
