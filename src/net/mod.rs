//! Plain values that every room shares, and the two seams: what an inlet gives ([`Inbound`]) and what
//! a carrier gives ([`Carrier`]). Knows std and `bytes`, nothing else.

mod address;
mod either;
mod exec;
mod failure;
mod packets;
mod seam;

pub use address::{Far, FlowKey, Source, Target};
pub use either::Either;
pub use exec::Exec;
pub use failure::{OpenError, OpenFailure, StreamError};
pub use packets::PacketKind;
pub use seam::{ByteReader, ByteWriter, Carrier, Inbound};
