//! Which instance owns which routing tables.
//!
//! A slot is claimed by binding an abstract Unix socket (unix(7)): the name exists once per network
//! namespace and vanishes with the process, also on SIGKILL. So "nobody holds the name" means "whoever
//! wrote these rules is gone".

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use thiserror::Error;

/// The first of our routing tables.
const FIRST_TABLE: u32 = 30064;
/// How many tables in a row a slot owns; one is spare.
const TABLES: u32 = 4;
/// How many instances fit side by side in one network namespace.
const SLOTS: u32 = 64;
/// Priority of slot 0's first rules: after `local` (0), before `main` (32766). Each kind of rule has a row of
/// [`SLOTS`] priorities, so that a subnet of one instance comes before the default of another.
const FIRST_PRIORITY: u32 = 5000;

/// The claim of one instance to its routing tables. Dropping it gives the claim up.
#[derive(Debug)]
pub struct Slot {
    number: u32,
    _name: UnixDatagram,
}

/// Numbers that belong to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Table of the subnets that are captured whole.
    pub whole: u32,
    /// Table of the subnets of which some TCP ports are captured.
    pub ports: u32,
    /// Table of `0.0.0.0/0` and `::/0`, with and without ports.
    pub default: u32,
    /// Priority of the rules that lead to `whole` and `ports`.
    pub priority: u32,
    /// Priority of the rules that let the host's own routes go before `default`.
    pub priority_main: u32,
    /// Priority of the rules that lead to `default`.
    pub priority_default: u32,
}

/// No slot could be claimed.
#[derive(Debug, Error)]
pub enum SlotError {
    /// All are taken.
    #[error("{SLOTS} instances are running already; stop one of them")]
    Full,
    /// The socket could not be made.
    #[error("could not claim a routing table: {0}")]
    Io(#[from] io::Error),
}

impl Slot {
    /// Claims the first free slot of this network namespace.
    ///
    /// # Errors
    /// [`SlotError::Full`] when every slot is claimed.
    pub fn claim() -> Result<Self, SlotError> {
        for number in 0..SLOTS {
            if let Some(slot) = Self::try_claim(number)? {
                return Ok(slot);
            }
        }
        Err(SlotError::Full)
    }

    /// Claims this slot, or gives `None` when another process holds it.
    pub(super) fn try_claim(number: u32) -> io::Result<Option<Self>> {
        let name = format!("underpass/table/{}", Tables::of(number).whole);
        Ok(bind(&name)?.map(|socket| Self {
            number,
            _name: socket,
        }))
    }

    /// The number, from 0.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The tables and the priority of this slot.
    pub fn tables(&self) -> Tables {
        Tables::of(self.number)
    }
}

/// Binds an abstract name, or gives `None` when another process holds it.
pub(super) fn bind(name: &str) -> io::Result<Option<UnixDatagram>> {
    let address = SocketAddr::from_abstract_name(name)?;
    match UnixDatagram::bind_addr(&address) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

impl Tables {
    /// The numbers of slot `number`.
    pub(super) fn of(number: u32) -> Self {
        let whole = FIRST_TABLE + TABLES * number;
        let priority = FIRST_PRIORITY + number;
        Self {
            whole,
            ports: whole + 1,
            default: whole + 2,
            priority,
            priority_main: priority + SLOTS,
            priority_default: priority + 2 * SLOTS,
        }
    }

    /// The slot that owns `table`, if it is one of ours.
    pub(super) fn slot_of(table: u32) -> Option<u32> {
        let number = table.checked_sub(FIRST_TABLE)? / TABLES;
        (number < SLOTS).then_some(number)
    }

    /// The slot that owns the rule of `priority` that leads to `main`, if it is one of ours.
    pub(super) fn slot_of_main(priority: u32) -> Option<u32> {
        let number = priority.checked_sub(Self::of(0).priority_main)?;
        (number < SLOTS).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_knows_its_slot() {
        for number in 0..SLOTS {
            let tables = Tables::of(number);
            assert_eq!(Tables::slot_of(tables.whole), Some(number));
            assert_eq!(Tables::slot_of(tables.ports), Some(number));
            assert_eq!(Tables::slot_of(tables.default), Some(number));
            assert_eq!(Tables::slot_of_main(tables.priority_main), Some(number));
            assert_eq!(Tables::slot_of_main(tables.priority), None);
            assert_eq!(Tables::slot_of_main(tables.priority_default), None);
        }
        assert_eq!(Tables::slot_of(FIRST_TABLE - 1), None);
        assert_eq!(Tables::slot_of(FIRST_TABLE + TABLES * SLOTS), None);
    }

    #[test]
    fn a_slot_is_claimed_once_and_free_after() {
        let last = SLOTS - 1;
        let held = Slot::try_claim(last).unwrap().unwrap();
        assert!(Slot::try_claim(last).unwrap().is_none());
        drop(held);
        assert!(Slot::try_claim(last).unwrap().is_some());
    }
}
