//! `-D`: the terminal back as soon as packets flow.

use super::exit::Exit;
use crate::os::daemon::{Attached, Side, Waiting, split};

/// Makes the process that goes on. It gives what tells the waiting one that packets flow; the waiting one gets its exit code
/// here: success once packets flow, else the other's.
///
/// # Errors
/// The exit code of a process that has nothing left to do.
pub fn start() -> Result<Attached, Exit> {
    match split() {
        Ok(Side::Child(attached)) => Ok(attached),
        Ok(Side::Parent(waiting)) => Err(outcome(waiting)),
        Err(error) => Err(super::failed(&format_args!(
            "cannot go to the background: {error}"
        ))),
    }
}

fn outcome(waiting: Waiting) -> Exit {
    match waiting.wait() {
        Ok(None) => Exit::Success,
        Ok(Some(0)) => super::failed(&"stopped before packets flowed"),
        Ok(Some(code)) => Exit::of(code),
        Err(error) => super::failed(&format_args!("waiting for packets to flow: {error}")),
    }
}
