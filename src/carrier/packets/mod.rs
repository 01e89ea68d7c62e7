//! Whole packets over a carrier: what TCP cannot carry.
//!
//! | file | idea |
//! |---|---|
//! | `apart` | a connection for them alone |
//! | `classify` | which flow a packet belongs to, and whether it may be sent at all |
//! | `refusal` | why a server carries no packets |

mod apart;
mod classify;
mod refusal;

pub(super) use self::apart::Apart;
pub(super) use self::classify::classify;
pub use self::refusal::TunnelRefusal;

/// Packets that did not get through a tunnel here, by reason. What is lost on the far side nobody tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketDrops {
    /// Too much waited to be sent: the oldest of the longest queue had to go.
    pub full: u64,
    /// Had waited too long to be sent.
    pub late: u64,
    /// Was to be sent after the tunnel was lost.
    pub closed: u64,
    /// Too long to be sent, or no packet.
    pub unfit: u64,
    /// Had come, and nobody took it.
    pub unread: u64,
}

impl PacketDrops {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.full + self.late + self.closed + self.unfit + self.unread
    }
}
