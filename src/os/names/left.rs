//! What a killed run has left of the name server that programs ask. systemd-resolved keeps none of it.

use std::io;

use tracing::warn;

use super::{netns, program};
use crate::os::Slot;
use crate::os::resolv_conf::{Owner, ResolvConf};

/// Brings programs to those that they had asked before a run that is gone, or `own`; how many things that took.
pub(in crate::os) async fn put_back(own: Option<&Slot>) -> usize {
    let mut count = 0;
    let mut told = |what: &str, done: io::Result<bool>| match done {
        Ok(is_done) => count += usize::from(is_done),
        Err(error) => warn!(
            "{what}, which a killed run replaced, could not be put back: {error}; run: sudo underpass cleanup"
        ),
    };
    let conf = ResolvConf::default();
    if conf.owner().is_some_and(|owner| is_left(&owner, own)) {
        told("/etc/resolv.conf", conf.restore());
    }
    for entry in program::left(|owner| is_left(owner, own)) {
        let forgotten = program::forget(&entry).await;
        told("what resolvconf was told", forgotten.map(|()| true));
    }
    count + netns::left::put_back()
}

/// How many things there are to be put back.
pub(in crate::os) fn count() -> usize {
    let conf = ResolvConf::default().owner();
    let conf = conf.is_some_and(|owner| is_left(&owner, None));
    let told = program::left(|owner| is_left(owner, None)).len();
    usize::from(conf) + told + netns::left::count()
}

/// Whether `owner` is an instance that is gone, or `own`.
pub(super) fn is_left(owner: &Owner, own: Option<&Slot>) -> bool {
    if owner.is_elsewhere() || owner.is_of_another_boot() {
        return owner.is_of_another_boot();
    }
    let is_own = own.is_some_and(|slot| slot.number() == owner.slot);
    // One that cannot be told to be gone is left alone.
    is_own || matches!(Slot::try_claim(owner.slot), Ok(Some(_)))
}
